# make demo             train a classifier, filter real text, and write a page
# make ablation-demo    then train on filtered and unfiltered text, compare, and write a page
# make test             style, types and all tests but those on engines
# make check            style, types and the fast tests
# make pictures         the README's pictures, from the two demos
# make engines          fetch Prism, Flink and Spark for tests/engines
# make architecture     the picture in docs/architecture.md, from the imports
# make lock             pin the dependencies of pyproject.toml anew
# make clean            remove what the demos wrote
#
# The environment .venv uses the first Python of PYTHONS that works; PYTHON=… names another.

PYTHONS := python3.11 python3.12 python3.13 python3.14 python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TEXT := cache/real_text
# A thread per process; each process takes file after file, in the order of tests/conftest.py.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder

# Tests start hundreds of processes, so Python must keep compiled files.
unexport PYTHONDONTWRITEBYTECODE

# Without python3-venv, Debian's Python has venv but no ensurepip.
WORKS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(firstword $(foreach python,$(PYTHONS),$(shell $(python) -c '$(WORKS)' 2>&- && echo $(python))))

# An environment holds absolute paths: make it again if the clone was moved or its Python is gone.
MADE_IN := $(shell cat .venv/made_in 2>&-)
ifneq ($(MADE_IN),$(CURDIR))
STALE := yes
else ifneq ($(shell $(BIN)/python -c 'print("runs")' 2>&-),runs)
STALE := yes
endif

.PHONY: demo ablation-demo test check lint kernels asserts engines pictures architecture lock clean environment

demo: .venv/data.stamp $(TEXT)/input/news.jsonl.gz
	rm -rf demo
	$(BIN)/python quality_classifier/train.py \
	    'positive=[$(TEXT)/train/curated.jsonl.gz]' 'negative=[$(TEXT)/train/web.warc.gz]' \
	    output=demo/classifier seed=0
	$(BIN)/python pipeline/run.py \
	    --source web='$(TEXT)/input/web.warc.gz' --source wiki='$(TEXT)/input/wiki.jsonl.gz' \
	    --source news='$(TEXT)/input/news.jsonl.gz' \
	    --filter web --classifier demo/classifier --rule pareto --alpha 3 --seed 0 \
	    --output demo/scored

ablation-demo: .venv/dev.stamp demo
	$(BIN)/python model/prepare.py scored=demo/scored output=demo/corpus \
	    tokenizer.vocabulary=4096 held_out=0.1
	$(BIN)/python ablations/run.py experiment=demo corpus=demo/corpus output=demo/study

test: .venv/dev.stamp
	$(MAKE) --no-print-directory --jobs 2 kernels lint asserts
	$(PYTEST) -n 4 -m "not engines and not clusters" --durations=10  # more than the cores of a small machine: many tests wait

check: .venv/dev.stamp
	$(MAKE) --no-print-directory --jobs 2 kernels lint asserts
	$(PYTEST) -n 2 -m "not slow"

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy pipeline quality_classifier model ablations benchmarks winnow

# Else several processes of pytest compile the same kernels.
kernels: .venv/dev.stamp
	$(BIN)/python -m winnow warm-up

# Else each of them rewrites the asserts of all files; they also report what can't be collected.
asserts: .venv/dev.stamp
	-@$(BIN)/python -m pytest --collect-only -qq > /dev/null

engines: .venv/dev.stamp
	$(BIN)/python tests/engines/fetch.py

pictures: ablation-demo
	$(BIN)/python docs/make_pictures.py

architecture: .venv/dev.stamp
	$(BIN)/python docs/draw_architecture.py

$(TEXT)/input/news.jsonl.gz: benchmarks/real_text.py | .venv/data.stamp
	$(BIN)/python benchmarks/real_text.py --output $(TEXT)

.venv/made_in: $(if $(STALE),environment)
environment:
	@test -n "$(PYTHON)" || { echo "Winnow needs Python 3.11, 3.12, 3.13 or 3.14 with its venv" \
	    "module (on Debian and Ubuntu: apt install python3-venv), or PYTHON=/path/to/one." >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	echo $(CURDIR) > .venv/made_in

# Only what the data side needs: torch is for training.
.venv/data.stamp: requirements/data.txt pyproject.toml .venv/made_in
	$(PIP) --require-hashes -r requirements/data.txt
	$(PIP) --no-deps -e .
	touch $@

# Also as constraints: older pips do not see that google-auth pins google-auth[pyopenssl].
.venv/dev.stamp: requirements/dev.txt requirements/torch.txt pyproject.toml .venv/made_in
	$(PIP) --require-hashes -r requirements/dev.txt -c requirements/dev.txt
	$(PIP) -r requirements/torch.txt
	$(PIP) --no-deps -e .
	touch $@ .venv/data.stamp

# Each lock is for every Python from 3.11 on; the environment does not change.
lock: .venv/made_in
	$(PIP) uv
	$(COMPILE) $(addprefix --extra ,dev demo trafilatura model ablations) \
	    -o requirements/dev.txt pyproject.toml
	$(COMPILE) --extra demo -c requirements/dev.txt -o requirements/data.txt pyproject.toml
COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
    --generate-hashes --no-header --overrides requirements/no-torch.txt

clean:
	rm -rf demo outputs
