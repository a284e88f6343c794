# On a fresh machine with Python 3.11 or later: make demo, make test, make docs.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= bandwise-runs/demo

.PHONY: demo test check docs clean help

help:            ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/'

demo: $(VENV)/.study   ## compare AdamW, SMI and NSF on Shakespeare, print the table, write the report
	$(VENV)/bin/bandwise compare shakespeare-char \
	  --optimizers 'adamw,smi-adamw,nsf,nsf:p=cyclic(0.5,-0.25,200)' --seeds 3 --out $(DEMO)

test: $(VENV)/.dev     ## run all tests
	$(VENV)/bin/pytest -n auto

check: $(VENV)/.dev    ## what a pull request must pass: lint, types, layers, tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/pytest -n auto

docs: $(VENV)/.docs    ## build the documentation into site/, where every warning is an error
	$(VENV)/bin/mkdocs build --strict

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bandwise needs Python 3.11 or later: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.%: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[$*]'
	touch $@

clean:           ## remove the environment and what the demo wrote
	rm -rf $(VENV) $(DEMO) site
