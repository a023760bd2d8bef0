# Everything a person or a CI job runs. Each target installs first what it needs, into .venv and nowhere else.
PYTHON ?= python3
REPO ?=
BIN := .venv/bin
INSTALLED := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-editors soak lint docs generate audit licences coverage mutation clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

install: $(INSTALLED)  ## create .venv with everything in it

# torch comes first and alone: its build is then decided by your pip configuration, and nothing that follows replaces it.
$(INSTALLED): pyproject.toml constraints.txt lab/pyproject.toml $(wildcard c2l_lsp/model/runtime/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "c2l-lsp needs Python 3.10 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]' --editable ./lab
	@touch $@

demo: install  ## the main job, live, on a copy of this project or of REPO=path
	@$(BIN)/python -m c2l_lab.demo $(if $(REPO),"$(REPO)")

test: install  ## the test suite, without real editors
	$(BIN)/python -m pytest -m "not editors"

test-editors: install  ## real VS Code, Neovim and Emacs against the real server, set up in build/editors (Debian packages, npm)
	tests/editors/setup.sh
	tests/editors/run.sh

soak: install  ## every soak bar at its full count, continued in build/soak.json: hours; BARS=name,name for some
	$(BIN)/python -m tests.soak --json build/soak.json $(if $(BARS),--bars "$(BARS)")

lint: install docs  ## formatter, linter, types, documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: install  ## the documentation site in build/site; fails on a broken link
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

generate: install  ## write what repeats the settings and the editor contract: docs, VS Code, Neovim
	$(BIN)/python docs/settings_table.py docs/settings.md
	$(BIN)/python editors/vscode/scripts/settings.py
	$(BIN)/python editors/neovim/generate.py

licences: install  ## the licence of every dependency against a list of permissive ones
	$(BIN)/python tests/licences.py

audit: licences  ## and the dependencies against the advisory database: asks the network about each
	$(BIN)/python tests/audit.py

coverage: install  ## lines of repo/, engine/ and server/ that their tests run; fails below 90 %
	$(BIN)/python -m pytest -q tests/repo tests/engine tests/server tests/e2e tests/test_errors.py \
	  --cov=c2l_lsp.repo --cov=c2l_lsp.engine --cov=c2l_lsp.server --cov-report=term --cov-report=json:build/coverage.json --cov-fail-under=90

mutation: install  ## faults put into state and framing, one at a time; fails if the tests miss more than a fifth
	$(BIN)/python tests/mutation.py

clean:  ## remove .venv and all caches
	rm -rf .venv build dist mutants .coverage *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
