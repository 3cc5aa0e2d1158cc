# Every target does all of its own set-up: a fresh clone needs `make demo` or `make test`, no more.

VENV := .venv
PY := $(VENV)/bin/python
# Written after the last successful installation; older than pyproject.toml means: install again.
STAMP := $(VENV)/.installed

# One thread: small models run several times slower when threads fight over few cores.
QUIET := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

RECIPE := recipes/aligndistil_onpolicy.yaml

.DEFAULT_GOAL := help
.PHONY: help setup demo test gpu grid check docs format clean

help:
	@echo "make demo    align a small model from scratch on this machine and print the leaderboard"
	@echo "make test    all tests but the widest and those for a GPU"
	@echo "make gpu     what needs a GPU, and its benchmark, five minutes"
	@echo "make grid    the widest: every method, strategy and fault on several processes, an hour"
	@echo "make check   style, types and the fast tests"
	@echo "make docs    the documentation site, in build/site/html"
	@echo "make format  let ruff rewrite the files"
	@echo "make setup   only the virtual environment in $(VENV)"

setup: $(STAMP)

$(STAMP): pyproject.toml .ci/install
	@sh .ci/install $(VENV)
	@touch $@

demo: setup
	@$(QUIET) $(VENV)/bin/alignzoo run $(RECIPE)
	@echo "Open the report named above in a browser; its folder holds models, samples and scores."

test: setup
	@$(QUIET) $(PY) -m pytest -n 2 --dist loadfile -m "not grid and not gpu"

grid: setup
	@$(QUIET) $(PY) -m pytest -n 2 --dist loadfile -m grid

gpu: setup
	@$(QUIET) $(PY) -m pytest -n 4 -m gpu
	$(PY) benchmarks/gpu.py

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	@$(QUIET) $(PY) -m pytest -n 2 --dist loadfile -m "not slow and not grid and not gpu"

docs: setup
	@$(QUIET) $(PY) docs/site/build.py

format: setup
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
