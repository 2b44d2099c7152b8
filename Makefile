PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test check docs bench bench-smoke registries clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "depthflow needs Python 3.11 or newer; run: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[all]"
	@touch $(STAMP)

demo: setup
	rm -rf depthflow-demo
	$(BIN)/depthflow demo -o depthflow-demo

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

docs: setup
	$(BIN)/python -m sphinx -M html docs docs/_build -q -W --keep-going -n
	$(BIN)/python -m sphinx -M doctest docs docs/_build -q -W --keep-going
	$(BIN)/python docs/check_links.py docs/_build/html
	@echo "$$(ls docs/tutorials/plot_*.rst | wc -l) tutorials executed; $$(sed -n 's/^ *\([0-9]* tests\)$$/\1/p' docs/_build/doctest/output.txt) of examples passed"
	@echo "open docs/_build/html/index.html"

bench: setup
	$(BIN)/python -m benchmarks

bench-smoke: setup
	$(BIN)/python -m benchmarks --smoke

registries: setup
	$(BIN)/python -m tests.registries --resume

clean:
	rm -rf $(VENV) docs/_build docs/api docs/tutorials docs/sg_execution_times.rst depthflow-demo
