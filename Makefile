# make demo   set up, train IMM on real digits, sample, score, draw
# make check  set up, the mathematics and one small run: a minute and a half
# make test   set up, the fast tests
# make full   set up, style, the fast tests, hostile inputs, sixteen devices, the TPU's compiler: 25 minutes
# make slow   set up, the slow tests too
# make trust  set up, kills, damage, layouts and faults by the dozen: up to an hour
# make pods   compile every recipe for TPU slices that are not there, into results/pods.csv: two hours
# Another Python: make demo PYTHON=python3.12 VENV=.venv312

PYTHON ?= python3
VENV ?= .venv
TPU_VENV ?= .venv-tpu
RUN = $(VENV)/bin/python

.PHONY: setup demo check test full slow trust pods lint

setup: $(VENV)/ready

$(VENV)/ready: setup.py
	@$(PYTHON) -c 'import sys; sys.exit("dfim needs Python 3.11 or later: make PYTHON=python3.12") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --no-compile --disable-pip-version-check --editable '.[test,tfds]'
	@touch $@

demo: setup
	$(RUN) -m dfim.main --config=configs/imm_digits.py --workdir=runs/demo
	@echo
	@echo "Digits that a network drew in 1, 2, 4 and 8 steps: $(CURDIR)/runs/demo/samples/3000.png"
	@echo "One-step digits above their nearest training digits: $(CURDIR)/runs/demo/eval/3000_images_nearest.png"

check: setup
	$(RUN) -m pytest -n 2 --dist worksteal tests/core tests/objectives tests/samplers --ignore=tests/samplers/test_nfe.py 'tests/test_configs.py::test_trains_samples_and_scores[imm_toy]'

test: setup
	$(RUN) -m pytest -n 2 --dist worksteal

full: lint test $(TPU_VENV)/ready
	HOSTILE_SECONDS=60 $(RUN) -m pytest -n 0 tests/trust/test_hostile_arrays.py
	$(RUN) -m pytest -n 2 --dist worksteal tests/test_parallel.py -m slow
	$(TPU_VENV)/bin/python -m pytest -n 0 tests/pods/test_tpu.py

slow: setup
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(RUN) -m pytest -n 2 --dist worksteal -m 'slow or not slow'

trust: setup
	TRUST_FULL=1 JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(RUN) -m pytest -n 2 --dist worksteal tests/trust -m 'slow or not slow' --timeout=3600 --junitxml=runs/trust.xml
	$(RUN) -m tests.trust.report runs/trust.xml

$(TPU_VENV)/ready: setup.py
	$(PYTHON) -m venv $(TPU_VENV)
	$(TPU_VENV)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --editable '.[test,tpu]'
	@touch $@

pods: $(TPU_VENV)/ready
	$(TPU_VENV)/bin/python -m benchmarks.pods

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
