# make demo: a search on the embedded data, from nothing but Python 3.11+, pip and make.
# make test: the same set-up, then style, types, layers and all tests but the long ones.
# make test-long: the long ones: kill series and soaks.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test .test-cluster .test-other test-long lint format

demo: .venv/installed
	$(BIN)/vqtune search quickstart

# Two processes: one for most of what uses Ray, one for all else, shown at the end.
test: lint
	@$(MAKE) --no-print-directory -j2 .test-cluster .test-other; code=$$?; cat .test.log; exit $$code

.test-cluster:
	$(BIN)/python -m pytest -m "not long and cluster"

.test-other:
	@$(BIN)/python -m pytest -m "not long and not cluster" >.test.log 2>&1

test-long: .venv/installed
	$(BIN)/python -m pytest -m long

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@
