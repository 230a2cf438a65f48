# Everything a newcomer needs. `make demo` and `make test` set up .venv first; nothing else is installed by hand.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
# The stamp's name holds the lock's hash: another lock, another stamp, and the set-up runs again.
STAMP := $(VENV)/.installed-$(shell cat requirements.lock pyproject.toml | sha256sum | cut -c1-16)
PEERS := .venv-bench
PEERS_STAMP := $(PEERS)/.installed-$(shell cat requirements-bench.lock | sha256sum | cut -c1-16)

.PHONY: help demo test soak lint bench bench-training docs clean lock setup

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP)  ## set up .venv from requirements.lock

$(STAMP):
	@command -v git >/dev/null || { echo "git is missing. On Debian: apt-get install git" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' || \
	  { echo "Python 3.11 or 3.12 is needed, found $$($(PYTHON) -V 2>&1). Say which: make PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments. On Debian: apt-get install python3-venv" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (about 3 minutes, 2.7 GB) …" >&2
# torch comes first and by version: its CPU and CUDA builds have different hashes, so the lock cannot hold it
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: $(STAMP)  ## the main job, end to end (SEGFOUNDRY_MIRROR=<folder> for real data)
	@$(BIN)/segfoundry demo

test: $(STAMP)  ## all tests
	@$(BIN)/python -m pytest

soak: $(STAMP)  ## the long faults, with the counts that are promised
	@SEGFOUNDRY_SOAK=1 $(BIN)/python -m pytest $(wildcard tests/faults tests/security tests/registry/test_served.py \
	  tests/e2e/test_flow_serve.py) --timeout=7200

lint: $(STAMP)  ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench-training: $(STAMP) $(PEERS_STAMP)  ## training, loader and memory plan; writes docs/benchmarks-training.md (10 minutes)
	@$(BIN)/python -m training.bench.page docs/benchmarks-training.md --peers $(PEERS)/bin/python \
	  $(if $(SEGFOUNDRY_MIRROR),--pictures $(SEGFOUNDRY_MIRROR))

bench: $(STAMP) $(PEERS_STAMP)  ## ingest beside public tools, large manifests; writes docs/benchmarks.md (10 minutes)
	@$(BIN)/python -m pipelines.bench --peers $(PEERS)/bin/python --out docs/benchmarks.md

# The peers never meet .venv; only torch, which MONAI asks for, is looked up there and not installed twice.
$(PEERS_STAMP): | $(STAMP)
	@test -x $(PEERS)/bin/python || $(BIN)/python -m venv $(PEERS)
	@echo "installing the peers of the benchmark into $(PEERS) …" >&2
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-bench.lock
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' > \
	  "$$($(PEERS)/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/torch_of_the_project.pth"
	@rm -f $(PEERS)/.installed-*
	@touch $@

docs: $(STAMP)  ## write docs/cli.md from the command line, docs/datasets.md from the cards
	@$(BIN)/python -m pipelines.cli.reference docs/cli.md
	@$(BIN)/python -m preprocessing.dataset_table docs/datasets.md

lock:  ## resolve pyproject.toml and requirements-bench.in into their locks again (needs uv)
	@command -v uv >/dev/null || { echo "uv is missing: https://docs.astral.sh/uv" >&2; exit 2; }
	@uv pip compile pyproject.toml --extra dev --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-package torch --custom-compile-command "make lock" --output-file requirements.lock --quiet
	@uv pip compile requirements-bench.in --override requirements-bench.overrides --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-package torch --custom-compile-command "make lock" --output-file requirements-bench.lock --quiet

clean:  ## remove caches and the virtual environment; workspaces stay
	@rm -rf $(VENV) $(PEERS) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -not -path './workspaces/*' -type d -prune -exec rm -rf {} +
