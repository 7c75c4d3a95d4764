# The project's commands. Python 3.11 or later and make are all they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# make demo SECONDS=20 ends by itself; without, it goes on until Ctrl-C. make soak takes 60.
SECONDS ?= 0
# make test ARGS="-k limiter" is passed on to pytest.
ARGS ?=
PROMISES_STEPS ?= 1000000
# The tests start hundreds of processes; each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
# make bench SHORT=1 takes two and a half minutes, without half an hour.
SHORT ?=
# make compat FULL=1 runs the whole suite for each Celery, and takes over an hour.
FULL ?=

.DEFAULT_GOAL := help
.PHONY: help demo test promises soak bench lint types docs dist compat compat-short clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; name it with make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Only the first time: making an environment in $(VENV), and installing this package there,"
	@echo "with what its demo, tests, docs and benchmarks need. It takes about a minute; make clean removes it."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@echo "Installed."
	@touch $@

demo: $(READY) ## two workers under limits, with a live view (SECONDS=20 to end by itself)
	@$(BIN)/python -m celery_concurrency.demo --seconds $(SECONDS)

soak: $(READY) ## workers, children and Redis killed at random, and Redis full, under load (SECONDS=60)
	$(BIN)/python -m tests.support.soak $(SECONDS)

test: $(READY) ## the whole suite (ARGS="-k name" for a part of it)
	$(BIN)/python -m tests $(ARGS)

bench: $(READY) ## measure: beside the floor, the ideal and others (SHORT=1 for a few minutes)
	$(BIN)/python -m benchmarks $(if $(SHORT),--short)

promises: $(READY) ## the model test at length: a million steps (PROMISES_STEPS=N for others)
	PROMISES_STEPS=$(PROMISES_STEPS) $(BIN)/python -m pytest tests/limiter/model/test_promises.py

lint: $(READY) ## ruff: style and order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy, strict
	$(BIN)/mypy

docs: $(READY) ## the documentation, to docs/_build; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build
	@echo docs/_build/index.html

dist: $(READY) ## wheel and sdist, checked, and a task run on the wheel
	$(BIN)/python -m tools.dist

compat: $(READY) ## the suite's core on each Celery, server, pool and broker (FULL=1: all of the suite)
	$(BIN)/python -m tools.compat $(if $(FULL),--full)

compat-short: $(READY) ## a handful of tests on the oldest Celery
	$(BIN)/python -m tools.compat --short

clean: ## remove what the commands above made
	rm -rf $(VENV) build dist *.egg-info docs/_build docs/_generated .mypy_cache .ruff_cache .pytest_cache .hypothesis
