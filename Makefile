# make demo    train a classifier and run the pipeline on real text, end at a page to look at
# make ablation-demo    then train on filtered and unfiltered text, compare, end at a page
# make test    style, types and all tests
# make check    style, types and the fast tests, for those who are changing something
# make pictures    the pictures in the README, from the two demos
# make engines    fetch Prism, Flink and Spark, as far as they can be had, for tests/engines
# make architecture    the picture in docs/architecture.md, from the imports
# make lock    compute the pinned dependencies anew from pyproject.toml
# make clean    remove what the demos wrote
#
# The environment .venv is made with the first Python that works out of PYTHONS; PYTHON=… names
# another one.

PYTHONS := python3.11 python3.12 python3.13 python3.14 python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TEXT := cache/real_text
# A thread per process; a process takes file after file, in the order of tests/conftest.py.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder

# Python keeps what it compiled: tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

# Debian's Python has venv without ensurepip unless python3-venv is installed.
WORKS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(firstword $(foreach python,$(PYTHONS),$(shell $(python) -c '$(WORKS)' 2>&- && echo $(python))))

# An environment holds absolute paths: one of a clone that was moved, or whose Python is gone, is
# made again.
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
	$(PYTEST) -n 4 -m "not engines and not clusters" --durations=10  # more than a small machine's cores, since many tests wait

check: .venv/dev.stamp
	$(MAKE) --no-print-directory --jobs 2 kernels lint asserts
	$(PYTEST) -n 2 -m "not slow"

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy pipeline quality_classifier model ablations benchmarks winnow

# Else several processes of pytest compile the same ones.
kernels: .venv/dev.stamp
	$(BIN)/python -m winnow warm-up

# Else each of them rewrites the asserts of all files. What it can't collect, they tell.
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

# What the data side needs, and no more; torch is for those who train models.
.venv/data.stamp: requirements/data.txt pyproject.toml .venv/made_in
	$(PIP) --require-hashes -r requirements/data.txt
	$(PIP) --no-deps -e .
	touch $@

# As constraints too: an older pip does not see that google-auth[pyopenssl] is pinned by google-auth.
.venv/dev.stamp: requirements/dev.txt requirements/torch.txt pyproject.toml .venv/made_in
	$(PIP) --require-hashes -r requirements/dev.txt -c requirements/dev.txt
	$(PIP) -r requirements/torch.txt
	$(PIP) --no-deps -e .
	touch $@ .venv/data.stamp

# Each lock holds for every Python from 3.11 on; the environment stays as it is.
lock: .venv/made_in
	$(PIP) uv
	$(COMPILE) $(addprefix --extra ,dev demo trafilatura model ablations) \
	    -o requirements/dev.txt pyproject.toml
	$(COMPILE) --extra demo -c requirements/dev.txt -o requirements/data.txt pyproject.toml
COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
    --generate-hashes --no-header --overrides requirements/no-torch.txt

clean:
	rm -rf demo outputs
