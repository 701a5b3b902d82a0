# Two commands matter: `make demo` and `make test`. Both set up .venv first.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_OUT ?= demo-out

SOAK_FIRST_SEED ?= 0
SOAK_SEEDS ?= 200
SOAK_MINUTES ?= 0

.PHONY: setup demo test soak lint types check bench model media clean

setup: $(STAMP)

# Torch is left to the version range in pyproject.toml, so that pip may choose the build for this machine;
# everything else is pinned by constraints.txt.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ran-pipeline needs Python 3.11 or newer; try make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: setup
	rm -rf $(DEMO_OUT)
	$(BIN)/python examples/demo.py $(DEMO_OUT)

# Two at a time: half of the time goes by waiting for processes to start. Three on two cores took as long.
test: setup lint types
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/unit tests/integration tests/faults tests/hostile

# All of the hostile files in one run, and many more mutations of archives and videos; then hundreds of seeds of
# everything that tests/faults breaks: hours, of which SOAK_MINUTES=30 takes as many as that allows.
soak: setup
	$(BIN)/python -m pytest tests/hostile --whole-corpus --hypothesis-profile=soak
	$(BIN)/python -m pytest -n 2 --maxschedchunk 1 tests/faults \
		--soak-first-seed $(SOAK_FIRST_SEED) --soak-seeds $(SOAK_SEEDS) --soak-minutes $(SOAK_MINUTES) --soak-report docs/soak.md

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks

# The default model by its recipe, from ../shared/data: about an hour and a half on two cores.
model: setup
	$(BIN)/ran-pipeline train jobs/recipes/default.yaml -o ran_model/models/default

media: setup
	$(BIN)/python examples/make_media.py

clean:
	rm -rf $(VENV) $(DEMO_OUT) build .cache *.egg-info
