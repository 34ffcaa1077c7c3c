# Everything a user or developer does here, by name. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Debian keeps nft and its like where ordinary users do not look.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
PYTEST := $(BIN)/pytest
# Installed when it is newer than what it was installed from.
STAMP := $(VENV)/.installed

.PHONY: help dev demo up down test unit component netns e2e check format bench golden docs clean

help: ## list these targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  \1\t\2/' | expand -t 14

dev: $(STAMP) ## install everything: system packages, .venv, the pilotage command

$(STAMP): requirements.lock pyproject.toml tools/system-packages
	tools/system-packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: dev ## start a cluster, prove every path of the case topology, draw it, clean up
	$(BIN)/pilotage demo

up: dev ## start a cluster and stay in the foreground
	$(BIN)/pilotage up

down: dev ## stop every cluster of this user
	$(BIN)/pilotage down --all

test: dev check unit component netns e2e ## everything CI runs

unit: dev ## pure cores, milliseconds each
	$(PYTEST) tests/unit -q

component: dev ## the API server and its clients in one process
	$(PYTEST) tests/component -q

netns: dev ## the real kernel, in namespaces of the test's own
	$(PYTEST) tests/netns -q

e2e: dev ## whole clusters: real kubectl, real Envoy, real containers
	$(PYTEST) tests/e2e -q --timeout 300

check: dev ## lint, format, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: dev ## rewrite the sources as the formatter wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: dev ## measure; one JSON line per figure, beside a peer of the same run
	tools/system-packages bench
	$(BIN)/python -m bench

golden: dev ## rewrite the expected outputs of the translators; read the diff
	PILOTAGE_GOLDEN=1 $(PYTEST) tests/unit -q

docs: dev ## draw the diagrams that are made from tables and check the examples
	$(BIN)/python tools/draw-docs
	$(PYTEST) tests/unit/docs -q

clean: ## remove what was built, not what a cluster stored
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
