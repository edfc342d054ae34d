# Everything a person does with this repository, one word each. `make` lists them.
#
# Each target prepares what it needs in .venv and remembers that in a stamp file, so
# the second call starts at once; a change of pyproject.toml prepares again.

PYTHON ?= python3
VENV ?= .venv
RAY_VENV ?= .venv-ray
RAY_VERSION ?= 2.60.0
PYTEST_ARGS ?=
BENCH_ARGS ?=

BIN := $(VENV)/bin
QUICKSTART_READY := $(VENV)/.ready-quickstart
DEV_READY := $(VENV)/.ready-dev
RAY_READY := $(RAY_VENV)/.ready-$(RAY_VERSION)

# pip's own advice to upgrade pip helps nobody here.
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-all bench conformance-ray lint types format docs clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' \
		$(MAKEFILE_LIST)

quickstart: ## set everything up, then run a real job on all cores
	@began=$$($(PYTHON) -c 'import time; print(time.time())') \
		&& $(MAKE) --no-print-directory $(QUICKSTART_READY) \
		&& $(BIN)/python examples/quickstart.py --make-began-at "$$began"

test: $(DEV_READY) ## the everyday tests
	$(BIN)/python -m pytest -m "not fault and not browser and not redis" $(PYTEST_ARGS)

test-all: $(DEV_READY) ## every test, the long and the destructive ones too
	$(BIN)/python -m pytest $(PYTEST_ARGS)

bench: | $(BIN)/python ## measure shoal, its peers and the physical floor; print a table
	$(BIN)/python -m benchmarks.run $(BENCH_ARGS)

conformance-ray: $(RAY_READY) ## run the conformance tests on Ray itself
	SHOAL_CONFORMANCE_IMPL=ray $(RAY_VENV)/bin/python -m pytest tests/conformance \
		$(PYTEST_ARGS)

lint: $(DEV_READY) types ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: $(DEV_READY) ## mypy, strict
	$(BIN)/mypy

format: $(DEV_READY) ## rewrite the sources in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DEV_READY) ## reference pages from the docstrings, into build/docs
	$(BIN)/pdoc --docformat google --output-directory build/docs \
		shoal '!shoal\._core' '!shoal\._api'
	@echo "open build/docs/index.html"

clean: ## remove what builds and tools leave behind (keeps the environments)
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis \
		.import_linter_cache
	find src tests benchmarks examples -name __pycache__ -type d -prune \
		-exec rm -rf {} + 2>/dev/null || true

$(BIN)/python $(RAY_VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "shoal needs Python 3.11 or later, and $(PYTHON) is older or missing;" \
			"call: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(@:/bin/python=)

$(QUICKSTART_READY): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[quickstart]'
	@touch $@

$(DEV_READY): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

$(RAY_READY): pyproject.toml | $(RAY_VENV)/bin/python
	$(RAY_VENV)/bin/python -m pip install --quiet 'ray==$(RAY_VERSION)' '.[test]'
	@touch $@
