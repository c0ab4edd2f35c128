# A machine with Python and make is enough: `make test` and `make demo` set up what they need in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
USABLE := $(VENV)/.usable
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# More for pytest: make test PYTEST_ARGS="-k backoff"
PYTEST_ARGS ?=
# Which tests are in which suite is in tests/suites.py.
# Images of containers set PYTHONDONTWRITEBYTECODE, and then every process that a test starts compiles the package: a
# second of processor time each, and ten for the tests. With a folder of its own nothing is written beside the sources.
CACHED := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(CURDIR)/$(VENV)/pycache
PYTEST := $(CACHED) $(BIN)/python -m pytest -n 2
SUITES := hostile chaos processes fleet docs browser conformance $(if $(wildcard tests/integrations),integrations)
comma := ,
space := $() $()
# Where pyenv holds the other Pythons, all of them are made visible, and not the default one alone.
NOX = $(if $(shell command -v pyenv),PYENV_VERSION="$$(pyenv versions --bare | grep -E '^3\.1[0-9]+\.[0-9]+$$' | paste -sd :)" )$(BIN)/nox --reuse-existing-virtualenvs
# What make chaos does: make chaos CHAOS_ARGS="--seconds 60 --seed 3"
CHAOS_ARGS ?= --seconds 600
# What make soak does: make soak SOAK_ARGS="--seeds 100 --backend trio"
SOAK_ARGS ?= --seeds 1000
# And of its second part: make soak SOAK_FLEET_ARGS="--seeds 5000 --first 1000"
SOAK_FLEET_ARGS ?= --seeds 1000
FLEET_ARGS ?= --redis
# What make bench does: make bench BENCH_ARGS="--quick calls"
BENCH_ARGS ?=

TYPED := mcpconn tests examples docs_src benchmarks noxfile.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup test test-slow $(SUITES:%=test-%) lint format cover test-all demo demo-svg bench bench-gateways soak \
  chaos mutate conformance \
  compat canary frameworks docs dist clean distclean demo-fleet soak-fleet test-users

help:
	@echo "make test         check style, types and imports, then run the quick tests: under 5 minutes on 2 cores"
	@echo "make test-slow    all other tests, one suite after another:"
	@echo "  test-hostile      servers that cannot be trusted, in every combination of case, engine and event loop"
	@echo "  test-chaos        bad networks, cancellation at every point, simulated days, random histories, the model"
	@echo "  test-processes    servers, gateways and commands that run as processes, and are killed"
	@echo "  test-fleet        replicas behind haproxy that share a store, and stores that fail: real servers of Redis"
	@echo "  test-docs         the demo, the examples, the tutorial, the how-to pages and the site"
	@echo "  test-browser      the status page in a headless Chromium"
	@echo "  test-conformance  the official suite, with mcpconn as client and the gateway as server"
	@echo "  test-integrations agent frameworks, each in an environment of its own"
	@echo "make test-all     the tests on Python 3.10 to 3.14, on asyncio, trio and uvloop"
	@echo "make lint         style, types and imports alone"
	@echo "make format       rewrite the files in the project's style"
	@echo "make cover        the tests, with the lines they reach"
	@echo "make canary       what the package needs of mcp's inner workings, in the newest mcp of the index"
	@echo "make compat       the SDK's own test suite, with Connection in the place of mcp.Client"
	@echo "make conformance  the official suite, with and without mcpconn, as client and as server; writes docs/conformance.md"
	@echo "make test-users   600 users with tokens of their own come and go, 20 at once; some minutes"
	@echo "make soak         a thousand simulated days of outages, and as many minutes of a fleet's, each from a seed"
	@echo "make chaos        ten minutes of a gateway, its servers and clients, while they are killed"
	@echo "make mutate       change the core line by line; does a test notice?"
	@echo "make demo-fleet   watch replicas of the gateway be killed behind haproxy, for a minute"
	@echo "make soak-fleet   the same for ten minutes, with fifty clients"
	@echo "make demo         watch connections break and recover"
	@echo "make demo-svg     record the demo: its moving picture, and the excerpt in the README"
	@echo "make bench        measure; a short run: make bench BENCH_ARGS=--quick"
	@echo "make bench-gateways  the same faults and calls, through other gateways; writes docs/comparison.md"
	@echo "make docs         build the site into site/"
	@echo "make dist         build the wheel and the sdist into dist/, and try both in a fresh environment"
	@echo "make clean        remove what runs leave behind; make distclean: the environments too"

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
	$(PYTEST) --suite=quick $(PYTEST_ARGS)

# Each with every test of its suite; SHORT=1 runs the short form of .ci/run.
$(SUITES:%=test-%): test-%: $(INSTALLED)
	$(PYTEST) --suite=$* $(if $(SHORT),--short) $(PYTEST_ARGS)

test-slow: $(INSTALLED)
	$(PYTEST) --suite=$(subst $(space),$(comma),$(strip $(SUITES))) $(if $(SHORT),--short) $(PYTEST_ARGS)

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

# A terminal of its own for the demo: its picture, and the excerpt in the README.
demo-svg: $(INSTALLED)
	$(BIN)/python -m tests.demo_picture

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# Other gateways, each in an environment of its own below benchmarks/gateways/.envs; it writes docs/comparison.md.
# BENCH_ARGS="--part promises fastmcp" tries one anew.
bench-gateways: $(INSTALLED)
	$(BIN)/python -m benchmarks.gateways $(BENCH_ARGS)

chaos: $(INSTALLED)
	$(BIN)/python -m tests.gateway.chaos $(CHAOS_ARGS)

demo-fleet: $(INSTALLED)
	$(BIN)/python -m tests.fleet.demo

# Ten minutes: make soak-fleet FLEET_ARGS="--seconds 60 --redis"
soak-fleet: $(INSTALLED)
	$(BIN)/python -m tests.fleet.soak $(FLEET_ARGS)

# 600 users with tokens of their own come and go, 20 at once: some minutes.
test-users: $(INSTALLED)
	MCPCONN_USERS=600 $(BIN)/python -m pytest -q -p no:logging -o faulthandler_timeout=3600 \
		tests/gateway/upstream_auth/test_many_users.py

soak: $(INSTALLED)
	$(BIN)/python -m tests.simulation $(SOAK_ARGS)
	$(BIN)/python -m tests.simulated_fleet $(SOAK_FLEET_ARGS)

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

# Whether what mcpconn/sdk knows of the SDK is still so. Without constraints, and beyond the version that
# pyproject.toml allows, so that a new release is met here first.
canary: | $(BIN)/python
	$(PYTHON) -m venv --clear .canary
	.canary/bin/python -m pip --disable-pip-version-check --quiet install --editable . pytest hypothesis trio
	.canary/bin/python -m pip --disable-pip-version-check --quiet install --upgrade mcp
	@.canary/bin/python -c 'from importlib.metadata import version; print("mcp", version("mcp"))'
	.canary/bin/python -m pytest tests/sdk $(PYTEST_ARGS)

# The tests of the sdist run against the package as the wheel has installed it.
dist: $(VENV)/.installed-dist
	rm -rf dist build/dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv --clear build/dist/env
	build/dist/env/bin/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt \
	  "$$(echo dist/*.whl)[test]"
	mkdir build/dist/sdist && tar -xzf dist/*.tar.gz --strip-components=1 -C build/dist/sdist
	rm -r build/dist/sdist/mcpconn
	ln -s "$$(build/dist/env/bin/python -I -c 'import mcpconn; print(mcpconn.__path__[0])')" build/dist/sdist/mcpconn
	cd build/dist/sdist && $(CACHED) ../env/bin/python -m pytest -n 2 --suite=quick $(PYTEST_ARGS)

# Agents of frameworks, each in an environment of its own in .integrations, whose servers die. It writes the table of
# docs/frameworks.md when all were tried; FRAMEWORKS="--short", or names, choose some.
frameworks: $(INSTALLED)
	$(BIN)/python -m tests.integrations.frameworks $(FRAMEWORKS)

# The suite runs the frameworks that are installed, so it needs them first.
test-integrations: frameworks

docs: $(VENV)/.installed-docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site is in site/: open site/index.html"

clean:
	rm -rf build dist site htmlcov mutants .coverage .coverage.* *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -f benchmarks/results/*.tmp
	find . \( -name '$(VENV)' -o -name .nox -o -name .integrations -o -name .node -o -name .compat -o -name .canary -o -name .git \) -prune \
	  -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) .node .nox .integrations .compat .canary
