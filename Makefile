# `make run` shows the whole idea on real data, `make test` runs every test, `make check` checks types, `make figures` draws
# the figures of docs/ again, `make notebooks` runs the notebooks and keeps their output.
VENV := .venv
BIN := $(VENV)/bin
# Files of few and long tests come first, so that no worker has the last of them to itself.
SLOW := test_notebooks test_documentation test_benchmarks test_environments test_training experiments/test_sharding
# The first that runs and is new enough; a name alone may be a shim of a version manager.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null && { command -v $$p; break; }; done)

.PHONY: run test check figures notebooks install clean

run: install
	$(BIN)/python -m experiments pl_pruning --preset digits

# Two workers share the cores: eigen-solvers with threads of their own would only wait for each other.
test: export OPENBLAS_NUM_THREADS ?= 1
test: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/test_architecture.py $(SLOW:%=tests/%.py) tests

check: install
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements-check.txt
	$(BIN)/pyright --pythonpath $(BIN)/python

# Figures of README and docs whose records are in the repository.
figures: install
	@work=$$(mktemp -d) && cp -r docs/records/. $$work && $(BIN)/python -m experiments report $$work/pl_pruning/digits && \
	for regime in gd sgd; do cp $$work/pl_pruning/digits/figures/$$regime.png docs/figures/digits_$$regime.png; done && \
	$(BIN)/python -m experiments report $$work/pl_pruning/atlas && \
	for map in other_halves dense; do cp $$work/pl_pruning/atlas/figures/$$map.png docs/figures/atlas_$$map.png; done; rm -r $$work

notebooks: install
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check nbclient ipykernel
	$(BIN)/python notebooks/execute.py

# Packages are compiled as they are imported: doing so for all of them takes half of the installation.
install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "plprune needs Python 3.11 or newer, and none was found. Install it, or say make PYTHON=/path/to/python3.11."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "plprune needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Say make PYTHON=/path/to/python3.11."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module. On Debian: apt install python3-venv."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt || { echo "pip could not install requirements.txt (its words are above). Is a Python package index within reach?"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --editable . || { echo "pip could not install plprune itself (its words are above)."; exit 1; }
	@touch $@

clean:
	rm -rf $(VENV)
