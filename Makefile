# Two commands on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
BIN := .venv/bin
SHELL := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help install quickstart table1 figure7 benchmark test test-fast lint format clean

help:  ## show this help
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  \1\t\2/' | expand -t 14

# Tiny matrices: threads that wait for each other cost more than they bring.
quickstart table1 figure7 test test-fast: export OMP_NUM_THREADS ?= 1
quickstart table1 figure7 test test-fast: export OMP_WAIT_POLICY ?= PASSIVE

install: .venv/.installed  ## create .venv with the tested set of packages

.venv/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[experiments,minilm,nlg,diffusion,serve,sweep,report,track,test]'
	touch $@

quickstart: install  ## Figure 7 and Table 1 beside the paper, in minutes, without a hub
	$(BIN)/python train.py experiment=table1
	$(BIN)/python train.py experiment=figure7
	$(BIN)/python -m experiments.report table1 figure7

table1 figure7: install  ## one table or figure: run what is missing, then report
	$(BIN)/python train.py experiment=$@
	$(BIN)/python -m experiments.report $@

benchmark: install  ## the engine against frozen layers, LoRA and PEFT's FourierFT, in ten minutes
	$(BIN)/python -m benchmarks.engine

test: install lint  ## lint and every test
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: install  ## the tests that take a moment
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

lint: install  ## ruff, format and rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: install  ## let ruff mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and caches; never outputs/
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache
