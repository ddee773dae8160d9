# The whole way from a clean clone: `make demo`. Everything is installed into .venv and everything written to cxr-home.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test lint up doctor lock seed clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP) ## Install, then run the whole pipeline on the built-in phantoms
	@$(BIN)/cxr run --preset demo

test: $(STAMP) ## Run the tests
	@$(BIN)/python -m pytest

lint: $(STAMP) ## Check style, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

up: $(STAMP) ## Start the Prefect UI, the MLflow UI and a worker; Ctrl-C stops them
	@$(BIN)/cxr up

doctor: $(STAMP) ## Check this computer and say what to do about what is missing
	@$(BIN)/cxr doctor

lock: $(STAMP) ## Write requirements.lock from what is installed in .venv
	@$(BIN)/python .ci/lock.py

seed: $(STAMP) ## Make the empty Prefect database again, after a change of Prefect's version
	@$(BIN)/python .ci/seed.py

clean: ## Remove .venv and caches; cxr-home with your runs stays
	@rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis build ./*.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is older than the lock after an update: then only what changed is installed.
$(STAMP): requirements.lock pyproject.toml
	@"$(PYTHON)" -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] < (3, 14) else "Expected Python 3.11, 3.12 or 3.13, but \"$(PYTHON)\" is %d.%d. Name another: make $(or $(MAKECMDGOALS),demo) PYTHON=python3.11" % v[:2])' \
		|| { echo "Cannot use Python \"$(PYTHON)\"."; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV) \
		|| { echo 'Expected "$(PYTHON) -m venv" to work, but it does not. On Debian and Ubuntu: apt-get install python3-venv'; rm -rf $(VENV); exit 1; }
	@echo "Installing the locked packages into $(VENV) (once; some minutes) ..."
	@$(PIP) install -qq -r requirements.lock \
		|| { echo "pip could not install requirements.lock: see its message above. A package index must be reachable."; exit 1; }
	@$(PIP) install -qq --no-deps --no-build-isolation -e .
	@touch $(STAMP)
