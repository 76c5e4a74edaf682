# Each target sets up .venv by itself: a Python from 3.11 on and `make` are all it takes.
# PYTHON=python3.13  the interpreter that .venv is made with
# ARGS="-k softmax"  further arguments for pytest, asv or the command of `twolayer`
# BASE=main HEAD=    what `make regress` compares; without HEAD the working tree is judged
# DEP=numba          BASE and HEAD are versions of that package, on the working tree
# GPU=               leaves the CUDA packages out where an NVIDIA driver was found
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
#                    for make peers on Linux: PyTorch without gigabytes of CUDA

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
GPU := $(if $(shell command -v nvidia-smi 2>/dev/null),$(VENV)/.cuda)
BIN := $(VENV)/bin
CUDA_VENV ?= $(VENV)-cuda
# A test that is named starts at once in one process; each further process collects all again.
PYTEST = $(BIN)/python -m pytest \
  $(if $(filter -k% tests/%,$(ARGS)),,-n logical --maxprocesses=4 --dist=worksteal)

.PHONY: help test test-slow test-oldest on-oldest test-cuda test-cuda-slow coverage lint format \
  bench peers updates report machines documents site regress asv asv-night mutants clean \
  cuda-environment
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@echo "make test | test-slow | test-oldest | test-cuda | test-cuda-slow | coverage | lint | format"
	@echo "     bench | peers | updates | report | machines | documents"
	@echo "     site | regress | asv | asv-night | mutants | clean"

test: $(VENV)/.test $(GPU)
	$(PYTEST) -m "not slow" $(ARGS)

# All 2^32 numbers of float32, and libraries that compile for minutes.
test-slow: $(VENV)/.test $(GPU)
	$(PYTEST) -m slow $(ARGS)

# With the lowest versions of all packages that pyproject.toml admits, which are for Python 3.11 and
# 3.12, in an environment of its own.
test-oldest:
	@$(MAKE) --no-print-directory VENV=$(VENV)-oldest on-oldest
on-oldest: $(VENV)/.oldest
	$(PYTEST) -m "not slow" $(ARGS)

# CUDA kernels without a GPU: their arithmetic in the simulator, which takes a process for itself,
# and their machine code. An environment of its own, as the toolkit takes 900 MB. The slow ones are
# all combinations of activations, losses and dtypes where the others have each in turn.
test-cuda test-cuda-slow: cuda-environment
	NUMBA_ENABLE_CUDASIM=1 $(CUDA_PYTEST) tests/cuda $(ARGS)
	$(CUDA_PYTEST) tests/cuda_code $(ARGS)
cuda-environment:
	@$(MAKE) --no-print-directory VENV=$(CUDA_VENV) $(CUDA_VENV)/.cuda-test
test-cuda: CUDA_MARK = not slow
test-cuda-slow: CUDA_MARK = slow
CUDA_PYTEST = $(CUDA_VENV)/bin/python -m pytest -n logical --maxprocesses=4 --dist=worksteal \
  -m "$(CUDA_MARK)"

# Coverage does not see compiled code; tests/kernels/test_interpreted.py runs it interpreted.
coverage: $(VENV)/.test $(GPU)
	$(PYTEST) -m "not slow" --cov --cov-report=
	$(BIN)/python -m coverage report --skip-covered --show-missing

# Hours for all of them; ARGS="--sample 300 -j 2" for some, ARGS="--only kernels/cpu/fused.py" for a file.
# .mutants.jsonl keeps what is known, so that a run that was stopped goes on.
mutants: $(VENV)/.test
	$(BIN)/python tools/mutation/mutants.py $(ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.lint
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.bench $(GPU)
	$(BIN)/twolayer bench $(ARGS)

peers: $(VENV)/.bench $(VENV)/.peers
	$(BIN)/twolayer peers $(ARGS)

updates: $(VENV)/.bench $(VENV)/.peers
	$(BIN)/twolayer updates --peers $(ARGS)

report: $(VENV)/.bench $(GPU)
	$(BIN)/twolayer report report.html $(ARGS)

# Adds this machine to docs/machines.md.
machines: $(VENV)/.bench $(GPU)
	$(BIN)/twolayer bench $(ARGS)
	$(BIN)/twolayer machines --add --page docs/machines.md

# The figures of README.md and docs/, measured anew on this machine.
documents: $(VENV)/.bench $(VENV)/.peers $(GPU)
	$(BIN)/twolayer bench --readme docs/lab/measured.md --plot docs/bench.svg $(ARGS)
	$(BIN)/twolayer peers --readme README.md --plot docs/peers.svg \
	  --roofline docs/roofline.svg $(ARGS)
	$(BIN)/twolayer updates --peers --readme docs/training.md $(ARGS)
	$(BIN)/twolayer report report.html --plots docs/report --readme docs/lab/measured.md $(ARGS)
	$(BIN)/python tools/documents/printed.py --write

# The documents as a website; a link that leads nowhere is an error.
site: $(VENV)/.site
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs/site -d build/doctrees . site
	@echo 'The pages are $(CURDIR)/site/index.html'

# make itself ends with 2 whatever went wrong; the last line names the exit code of the command.
BASE ?= main
regress: $(VENV)/.bench
	@$(BIN)/twolayer regress $(BASE) $(HEAD) $(if $(DEP),--dep $(DEP)) $(ARGS)

# What the next two targets measure; docs/lab/history.md has the full profile, eight times as much.
ASV_BENCH = --bench Import --bench "(Samples|First|Memory|Ratio).*'(python|num)" \
  --bench "(DataSets|Accuracy).*'(python|num).*'di" --bench "parts.*'(python|num).*'base" \
  --bench "updates.*'numba-fused'.*'(sgd|adam) "

# A quick look at one commit. asv builds HEAD in an environment of its own, so that changes which
# are not committed are never taken for it.
asv: $(VENV)/.bench
	@git log -1 --format='Measuring HEAD, %h: %s'
	@git diff --quiet HEAD || echo 'Changes that are not committed are left out.'
	@$(BIN)/python tools/asv_machine.py
	@code=0; \
	TWOLAYER_ASV_ROUNDS=1 $(BIN)/asv run --machine local --show-stderr $(ARGS) $(ASV_BENCH) \
	  'HEAD^!' || code=$$?; \
	$(BIN)/asv publish; exit $$code
	@echo 'The pages are $(CURDIR)/.asv/html/index.html; to see them: $(BIN)/asv preview'

# Ten rounds of every commit since the last one that has results, as far as the hours go.
HOURS ?= 5
asv-night: $(VENV)/.bench
	@$(BIN)/python tools/asv_machine.py
	@code=0; \
	$(BIN)/python tools/asv_night.py --hours $(HOURS) --show-stderr $(ARGS) $(ASV_BENCH) || code=$$?; \
	$(BIN)/asv publish; exit $$code

clean:
	rm -rf $(VENV) $(VENV)-oldest $(CUDA_VENV) build dist site src/*.egg-info .asv/env
	rm -rf .coverage .coverage.*
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp an extra, so that only a change of pyproject.toml installs again.
$(VENV)/.%: pyproject.toml | $(BIN)/python
	@echo "Installing twolayer[$*] into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(VENV)/.oldest: pyproject.toml | $(BIN)/python
	@echo "Installing twolayer[test] with the lowest versions into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --resolution lowest-direct \
	  --editable '.[test]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'twolayer needs Python 3.11 or later: make PYTHON=/path/to/python' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo 'This Python cannot make virtual environments. On Debian and Ubuntu: apt install' \
	    'python3-venv; elsewhere: make PYTHON=/path/to/another/python' >&2; exit 1; }
