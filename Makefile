# Two commands set everything up on a fresh machine (Python 3.10 or newer, git, make):
#   make scan    creates the environment and scans the example photos
#   make test    creates the development environment and passes the tests
# After a change in kernels/:
#   make kernels compiles them (no GPU and no CUDA toolkit needed); commit the PTX
#   make mutations breaks them on purpose, in a copy, and shows that a test fails each time

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check

.PHONY: scan test lint kernels mutations clean

scan: $(VENV)/runtime-installed
	$(BIN)/magrt scan examples/photos --out findings --overwrite

test: lint
	$(BIN)/pytest

lint: $(VENV)/development-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

kernels: $(VENV)/development-installed
	$(BIN)/python kernels/scripts/compile.py

mutations: $(VENV)/development-installed
	$(BIN)/python -m tests.cuda_host.mutate

clean:
	rm -rf $(VENV) findings build *.egg-info

$(BIN)/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/runtime-installed: $(BIN)/pip pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

# torch by itself first: where a CPU build is configured as a source, the exact pin finds it.
$(VENV)/development-installed: $(BIN)/pip pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt --editable '.[train,dev]'
	touch $@
