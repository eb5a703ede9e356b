# Two commands on a bare machine: `make demo`, `make test`. Both build .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check env env-ci clean

env: .venv/.ready

.venv/.ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	@echo "Installing the pinned packages into .venv (a minute or two, 5.5 GB) ..."
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# What optional parts and their tests need beyond that: Ray, torchcodec, readers of Parquet.
env-ci: env
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt -r requirements-ci.txt

demo: env
	$(BIN)/stabn demo --out demo

test: env
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv demo
