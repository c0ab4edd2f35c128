# A machine with Python and make is enough: `make test` and `make demo` set up what they need in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
USABLE := $(VENV)/.usable
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# More for pytest: make test PYTEST_ARGS="-k backoff"
PYTEST_ARGS ?=
# Where pyenv holds the other Pythons, all of them are made visible, and not the default one alone.
NOX = $(if $(shell command -v pyenv),PYENV_VERSION="$$(pyenv versions --bare | grep -E '^3\.1[0-9]+\.[0-9]+$$' | paste -sd :)" )$(BIN)/nox --reuse-existing-virtualenvs
# What make soak does: make soak SOAK_ARGS="--seeds 100 --backend trio"
SOAK_ARGS ?= --seeds 1000

TYPED := mcpconn tests examples docs_src benchmarks noxfile.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup test lint format cover test-all demo bench soak mutate conformance compat docs clean distclean

help:
	@echo "make test      check style, types and imports, then run the tests"
	@echo "make demo      watch connections break and mend"
	@echo "make lint      style, types and imports alone"
	@echo "make format    rewrite the files in the project's style"
	@echo "make cover     the tests, with the lines they reach"
	@echo "make test-all  the tests on Python 3.10 to 3.13, on asyncio, trio and uvloop"
	@echo "make bench     measure"
	@echo "make soak      a thousand simulated days of outages, from a thousand seeds"
	@echo "make mutate    change the core line by line; does a test notice?"
	@echo "make conformance  the official suite, for mcpconn and for the bare SDK; writes docs/conformance.md"
	@echo "make compat    the SDK's own test suite, with Connection in the place of mcp.Client"
	@echo "make docs      build the site into site/"
	@echo "make clean     remove what runs leave behind; make distclean: the environments too"

setup: $(INSTALLED)

$(BIN)/python:
	@$(PYTHON) -c 'import sys' || { \
	  echo "No Python here: '$(PYTHON)' does not run. Install Python 3.10 or later, or name one:" \
	       "make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "mcpconn needs Python 3.10 or later; '$(PYTHON)' is `$(PYTHON) --version 2>&1`." \
	       "Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: its venv or ensurepip module is missing." \
	       "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)

# The stamp is newer than both files as long as what they ask for is installed.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing mcpconn and its test tools into $(VENV); the first time this takes a minute or two."
	$(PIP) install --quiet --constraint constraints.txt --editable ".[test]"
	@touch $@

# The demo needs what a user has, and none of the tools.
$(USABLE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing mcpconn into $(VENV); the first time this takes a moment."
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-%: $(INSTALLED)
	$(PIP) install --quiet --constraint constraints.txt --editable ".[$*]"
	@touch $@

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# On one of the Pythons that measure truly: see the noxfile.
cover: $(INSTALLED)
	$(NOX) --error-on-missing-interpreters -s cover -- $(PYTEST_ARGS)

test-all: $(INSTALLED)
	$(NOX) -- $(PYTEST_ARGS)

demo: $(if $(wildcard $(INSTALLED)),$(INSTALLED),$(USABLE))
	$(BIN)/python -m mcpconn.demo

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks

soak: $(INSTALLED)
	$(BIN)/python -m tests.simulation $(SOAK_ARGS)

mutate: $(VENV)/.installed-mutate
	rm -rf mutants
	HYPOTHESIS_PROFILE=ci $(BIN)/mutmut run
	$(BIN)/mutmut results
	$(BIN)/mutmut export-cicd-stats
	@$(BIN)/python -c 'import json; s = json.load(open("mutants/mutmut-cicd-stats.json")); \
	  share = s["killed"] / s["total"]; print("%d of %d killed: %.1f %%" % (s["killed"], s["total"], 100 * share)); \
	  raise SystemExit(share < 0.95)'

conformance: $(INSTALLED)
	$(BIN)/python -m tests.conformance.table

# The SDK's sdist comes from the registry, and its test tools go into an environment of their own: .compat.
compat: $(INSTALLED)
	$(BIN)/python -m tests.sdk_suite

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf build dist site htmlcov mutants .coverage .coverage.* *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -f benchmarks/results/*.tmp
	find . \( -name '$(VENV)' -o -name .nox -o -name .node -o -name .compat -o -name .git \) -prune \
	  -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) .node .nox .compat
