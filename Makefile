# make demo    train a classifier and run the pipeline on real text, end at a page to look at
# make ablation-demo    then train on filtered and unfiltered text, compare, end at a page
# make test    style, types and all tests
# make lock    compute the pinned dependencies anew from pyproject.toml

PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
TEXT := cache/real_text

.PHONY: demo ablation-demo test lint lock clean

demo: .venv/data.stamp $(TEXT)/input/web.warc.gz
	rm -rf demo
	$(BIN)/python quality_classifier/train.py \
	    'positive=[$(TEXT)/train/curated.jsonl.gz]' 'negative=[$(TEXT)/train/web.warc.gz]' \
	    output=demo/classifier seed=0
	$(BIN)/python pipeline/run.py \
	    --source web='$(TEXT)/input/web.warc.gz' --source wiki='$(TEXT)/input/wiki.jsonl.gz' \
	    --filter web --classifier demo/classifier --rule pareto --alpha 9 --seed 0 \
	    --output demo/scored

ablation-demo: .venv/dev.stamp demo
	$(BIN)/python model/prepare.py scored=demo/scored output=demo/corpus \
	    tokenizer.vocabulary=4096 held_out=0.05
	$(BIN)/python ablations/run.py experiment=demo corpus=demo/corpus output=demo/study

test: lint .venv/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist worksteal  # a thread per process; many tests wait

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy pipeline quality_classifier model ablations benchmarks

$(TEXT)/input/web.warc.gz: benchmarks/real_text.py | .venv/data.stamp
	$(BIN)/python benchmarks/real_text.py --output $(TEXT)

.venv/bin/python:
	$(PYTHON) -m venv .venv

# What the data side needs, and no more; torch is for those who train models.
.venv/data.stamp: requirements/data.txt pyproject.toml | .venv/bin/python
	$(PIP) --require-hashes -r requirements/data.txt
	$(PIP) --no-deps -e .
	touch $@

# As constraints too: an older pip does not see that google-auth[pyopenssl] is pinned by google-auth.
.venv/dev.stamp: requirements/dev.txt requirements/torch.txt pyproject.toml | .venv/bin/python
	$(PIP) --require-hashes -r requirements/dev.txt -c requirements/dev.txt
	$(PIP) -r requirements/torch.txt
	$(PIP) --no-deps -e .
	touch $@ .venv/data.stamp

lock: | .venv/bin/python
	$(PIP) pip-tools
	$(COMPILE) --extra demo -o requirements/data.txt pyproject.toml
	$(COMPILE) $(addprefix --extra ,dev demo language trafilatura model ablations) \
	    -c requirements/data.txt -c requirements/torch.txt -o requirements/dev.txt pyproject.toml
COMPILE := $(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header \
    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --unsafe-package torch

clean:
	rm -rf demo outputs
