# Everything runs in .venv, which `make venv` makes. Nothing but Python >= 3.11 and make is needed.
#
#   make demo     install, then answer questions about the pictures in examples/ and write demo.html
#   make test     all tests, each core one worker
#   make browser  where no browser is found: as root installs Debian's chromium by apt-get, else says what to run
#   make browser-test   the web page in that browser
#   make browser-shots  the pictures of docs/composition.md again
#   make check    format, lint, types, import levels, README and docs
#   make peer     slow comparisons with live peer implementations
#   make soak     long fuzzing and kill tests; writes benchmarks/results/soak.json
#   make bench    measurements; writes benchmarks/results/
#   make clean    remove what is made: .venv, caches, demo.html (not runs/, not the language model's cache)
#
# TORCH_INDEX=<url of a CPU wheel index>   where torch alone comes from; by default wherever pip finds it
# PYTHON=python3.12                        which Python makes .venv

PYTHON ?= python3
WORKERS ?= auto
SOAK ?=
BENCHES ?= packing train_throughput first_answer loading

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
TORCH = $(shell grep '^torch==' constraints.txt)
BUILD = $(shell grep '^setuptools==' constraints.txt)
# One thread a test process: two cores are busier with two processes than with two threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: venv demo test browser browser-test browser-shots check peer soak bench clean
.DELETE_ON_ERROR:

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt Makefile
	@test -x $(BIN)/python || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo 'vedere needs Python 3.11 or newer; name one: make PYTHON=python3.12' >&2; exit 1; }; \
	  echo 'making $(VENV)'; $(PYTHON) -m venv $(VENV); }
	@echo 'installing $(TORCH)$(if $(TORCH_INDEX), from TORCH_INDEX) and the rest of constraints.txt (minutes at first)'
	@$(PIP) -c constraints.txt '$(BUILD)'
	@$(PIP) '$(TORCH)' $(if $(TORCH_INDEX),--no-deps --index-url '$(TORCH_INDEX)',-c constraints.txt)
	@$(PIP) -c constraints.txt --no-build-isolation -e '.[cpu,train,corpus,compose,eval,serve,dev]'
	@touch $@

demo: venv
	$(BIN)/python examples/demo.py

test: venv
	$(PYTEST) -n $(WORKERS) --maxprocesses 8

# A browser is no Python package: Debian's comes by apt-get, which only root may do. Anyone else is told what to run.
browser:
	@for one in chromium chromium-browser google-chrome chrome; do command -v $$one >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo 'no browser found: apt-get installs chromium'; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; \
	else \
	  echo "no browser found (chromium, chromium-browser, google-chrome, chrome), and make is not root, so it cannot install one." >&2; \
	  echo "Install one and run make again; on Debian and Ubuntu: sudo apt-get install chromium" >&2; exit 1; \
	fi

browser-test: venv browser
	$(PYTEST) -m browser tests/browser

browser-shots: venv browser
	$(BIN)/python tests/browser/shots.py docs/composition

check: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) tests/test_house.py

peer: venv
	$(PYTEST) -m peer

soak: venv
	$(BIN)/python tests/soak/run.py --inputs 40000 --kills 40 --out benchmarks/results/soak.json $(SOAK)

bench: venv
	for one in $(BENCHES); do $(BIN)/python benchmarks/$$one.py || exit 1; done

clean:
	rm -rf $(VENV) build dist demo.html .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find . -path ./.git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
