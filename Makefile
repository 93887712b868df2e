# Every target creates the environment when it is missing. `make help` lists them.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.plumb-installed
SPARK := $(VENV)/.plumb-spark
WORKERS := 2# processes of pytest; a file stays with one, so that what its tests share is made once

.PHONY: help env demo test test-all bench lint lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

env: $(STAMP)  ## create .venv with plumb and all libraries, from the locked versions

$(STAMP): requirements.lock pyproject.toml env.sh
	@bash env.sh $(VENV)
	@touch $@

$(SPARK): requirements-spark.lock $(STAMP)
	@bash env.sh $(VENV) spark
	@touch $@

demo: $(STAMP)  ## simulate a world, run the whole job on it, say where the explorer is
	@$(BIN)/plumb demo demo

test: lint $(SPARK)  ## linters, types, import directions and the fast tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-all: lint $(SPARK)  ## the same and the slow statistical tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m 'slow or not slow'

lint: $(STAMP)  ## ruff, mypy, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(STAMP)  ## speed, as ratios side by side in one run
	@$(BIN)/python -m benchmarks

COMPILE := uv pip compile --quiet --python-version 3.12 --generate-hashes --no-emit-index-url --no-header --no-annotate

lock:  ## resolve the two lock files again (needs uv)
	@$(COMPILE) --extra dev pyproject.toml -o requirements.lock
	@$(COMPILE) --extra dev --extra spark pyproject.toml -o requirements-spark.lock -c requirements.lock

clean:  ## remove the environment and the demo workspace
	@rm -rf $(VENV) demo
