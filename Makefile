# make run    start a host with the example functions
# make test   run every test
# make lint   everything that is checked without running
#
# PYTHON=... chooses the interpreter, VENV=... where the environment goes. Nothing else has to be installed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# An interpreter is taken when it runs: a version manager's stand-in may be on the PATH and yet fail.
PYTHON ?= $(shell .ci/find-python default)
VENV ?= .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
AWSCLI_VENV := .venv-awscli
JS := integration/sdk/js
TEST_ARGS ?=
PIP_INSTALL = -m pip install --quiet --quiet --disable-pip-version-check

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMPS)/venv:
	@[ -n "$(PYTHON)" ] || { echo "serverfull needs Python 3.11 or newer; none was found. Name one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

# uvloop and orjson make the host faster and are not needed: a machine that cannot have them does without.
$(STAMPS)/run: $(STAMPS)/venv pyproject.toml
	@echo "installing serverfull into $(VENV)"
	@$(BIN)/python $(PIP_INSTALL) --editable '.[fast]' \
		|| { echo "uvloop or orjson cannot be installed here: going on without them"; \
		     $(BIN)/python $(PIP_INSTALL) --editable . ; }
	@touch $@

$(STAMPS)/dev: $(STAMPS)/venv requirements-dev.txt pyproject.toml
	$(BIN)/python $(PIP_INSTALL) --requirement requirements-dev.txt
	$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@ $(STAMPS)/run

$(STAMPS)/bench: $(STAMPS)/dev requirements-bench.txt
	$(BIN)/python $(PIP_INSTALL) --requirement requirements-bench.txt
	@touch $@

# The AWS CLI wants its own botocore, so it lives apart. One that is on the PATH already will do as well.
$(AWSCLI_VENV)/.done: requirements-awscli.txt
	@if aws --version >/dev/null 2>&1; then mkdir -p $(AWSCLI_VENV); else \
		$(PYTHON) -m venv $(AWSCLI_VENV) && \
		$(AWSCLI_VENV)/bin/python $(PIP_INSTALL) --requirement requirements-awscli.txt ; fi
	@touch $@

# Without Node.js the tests that need it say so, and are failures where SERVERFULL_REQUIRE_ALL=1 asks for all.
$(JS)/node_modules/.done: $(JS)/package.json $(JS)/package-lock.json
	@if npm --version >/dev/null 2>&1; then \
		cd $(JS) && npm ci --silent --no-audit --no-fund && touch node_modules/.done ; \
	else echo "npm is not installed: the JavaScript SDK is not tested" ; fi

.PHONY: clients
clients: $(AWSCLI_VENV)/.done $(JS)/node_modules/.done ## Install the foreign clients that integration tests drive

.PHONY: run
run: $(STAMPS)/run ## Start a host with the example functions on port 8080
	@exec $(BIN)/serverfull serve examples/app.py:functions $(RUN_ARGS)

.PHONY: test
test: $(STAMPS)/dev clients ## Run unit and integration tests; SERVERFULL_REQUIRE_ALL=1 makes skips failures
	PATH="$$PATH:$(CURDIR)/$(AWSCLI_VENV)/bin" $(BIN)/python -m pytest -p no:cacheprovider $(TEST_ARGS)

.PHONY: test-newest
test-newest: ## Run the tests on the newest CPython found, if it is another one
	@newest="$$(.ci/find-python newest)"; \
	if [ "$$($$newest -V)" = "$$($(PYTHON) -V)" ]; then echo "the newest Python found is the default one: $$($$newest -V)"; \
	else $(MAKE) --no-print-directory test PYTHON="$$newest" VENV=.venv-newest ; fi

.PHONY: test-all-pythons
test-all-pythons: test test-newest ## Run the tests on the default and on the newest CPython

.PHONY: lint
lint: $(STAMPS)/dev ## Check style, format, types and the layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

.PHONY: format
format: $(STAMPS)/dev ## Format and fix what can be fixed
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

.PHONY: bench
bench: $(STAMPS)/bench ## Measure against a bare server and functions-framework
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

.PHONY: docs
docs: $(STAMPS)/dev ## Regenerate docs/settings.md from the code
	$(BIN)/serverfull config reference > docs/settings.md.new && mv docs/settings.md.new docs/settings.md

.PHONY: clean
clean: ## Remove everything that make created
	rm -rf .venv .venv-newest $(AWSCLI_VENV) $(JS)/node_modules .pytest_cache .mypy_cache .ruff_cache .import_linter_cache \
		.hypothesis build dist
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
