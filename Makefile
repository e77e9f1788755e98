# MediMind's commands. `make demo` and `make test` set up what they need.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed

# Nothing here phones home.
export MLFLOW_DISABLE_TELEMETRY := true
export BENTOML_DO_NOT_TRACK := True
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export GX_ANALYTICS_ENABLED := false
export DVC_NO_ANALYTICS := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1

.PHONY: help setup lock data demo up down serve bench bench-clinical bench-monitoring bench-cfdna bench-training gpu-check \
  check test test-faults tools clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 18

# Keyed by what is installed: a second `make setup` does nothing.
setup: ## a virtual environment in .venv with everything pinned
	@key=$$(cat requirements.lock pyproject.toml Makefile | sha256sum | cut -d' ' -f1)
	if [ "$$(cat $(STAMP) 2>/dev/null)" = "$$key" ]; then exit 0; fi
	echo "setting up .venv: torch by pip, the rest from requirements.lock by uv (about 90 s the first time)"
	[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv || python3 -m venv .venv
	$(BIN)/python -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "MediMind needs Python 3.11, found %d.%d; make setup PYTHON=/path/to/python3.11" % sys.version_info[:2])'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -E '^uv==' requirements.lock || echo uv)" torch==2.13.0
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	$(BIN)/uv pip check --quiet --python $(BIN)/python
	echo "$$key" > $(STAMP)

# Not after `setup`, which fails while pyproject.toml asks for what the lock does not have yet.
lock: ## make requirements.lock anew from pyproject.toml, keeping the pins that still fit
	@[ -x $(BIN)/uv ] || $(MAKE) setup
	$(BIN)/uv pip compile pyproject.toml --quiet --all-extras --override overrides.txt --python-version 3.11 --no-header --output-file requirements.lock
	rm -f $(STAMP)
	$(MAKE) setup

data: setup ## fetch and check the data of the released diseases and of those that tests hold, and two encoders
	@for name in heart_disease breast_cancer hospital_mortality cognitive_impairment fall_risk_notes_simulated; do $(BIN)/medimind ingest $$name; done
	$(BIN)/python -m pipelines.encoders openecg==0.11.0 openecg/models/codec_v6_int8.onnx onnx 640d2d13fbf71065b38cd999177ec294fafd532d608662f705cfb8c485e951f8

demo: setup ## the main job on real patients, told as a story
	@$(BIN)/python -m pipelines.demo

up: setup ## start the registry's and Prefect's servers here and print their addresses
	@deploy/local.sh up

down: ## stop what `make up` started
	@deploy/local.sh down

serve: setup ## serve the released champions on 127.0.0.1
	@$(BIN)/medimind serve

check: setup ## style, types, layers, lock: what the pre-commit hook runs
	@$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q tests/layout

bench: setup ## ours and the peer servers side by side, driven by wrk (about 40 min); make bench ARGS=--quick tries it
	@command -v wrk >/dev/null || { echo "make bench: wrk is not here; make tools installs it" >&2; exit 1; }
	$(BIN)/python -m bench.serving $(ARGS)

bench-clinical: setup ## each disease's figures on patients it never saw, beside untuned models (about 8 min)
	@$(BIN)/python -m bench.clinical $(ARGS)

bench-monitoring: setup ## a run of the monitor in a ledger of ten million predictions (about 5 min, 14 GB of /tmp)
	@$(BIN)/python -m bench.monitoring $(ARGS)

bench-cfdna: setup ## how much tumour has to be in simulated blood before it is found (about a minute)
	@$(BIN)/python -m bench.cfdna $(ARGS)

gpu-check: setup ## what a GPU is trusted with, checked on the one that is here (about 5 min); without one, a line
	@$(BIN)/python -m bench.gpu $(ARGS)

bench-training: setup ## what a step of a network's training costs, beside a bare loop and a DataLoader (about 2 min)
	@OMP_NUM_THREADS=1 $(BIN)/python -m bench.training $(ARGS)

test: check data ## all the tests, with the line coverage of the packages
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-faults: setup ## the long tests of what may go wrong: kill -9, full disks, lost databases, hostile clients
	@$(BIN)/python -m pytest -m faults --durations=0 tests/faults

tools: ## what the tests of the browser, of TypeScript and of faults need, from Debian's packages and npm
	@missing=""
	for tool in chromium node npm wrk faketime; do
	  command -v $$tool >/dev/null || missing="$$missing $${tool/#node/nodejs}"
	done
	if [ -n "$$missing" ]; then
	  if ! command -v apt-get >/dev/null; then echo "make tools: no apt-get here; install$$missing yourself" >&2; exit 1; fi
	  sudo=$$(command -v sudo || true)
	  $$sudo apt-get update -qq
	  $$sudo apt-get install -qq -y --no-install-recommends $$missing >/dev/null
	fi
	if ! cmp -s tests/typescript/package-lock.json tests/typescript/node_modules/.installed; then
	  npm ci --prefix tests/typescript --ignore-scripts --no-audit --no-fund --silent
	  cp tests/typescript/package-lock.json tests/typescript/node_modules/.installed
	fi

clean: ## remove the environment and every cache; data/ and var/ stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* *.egg-info tests/typescript/node_modules
