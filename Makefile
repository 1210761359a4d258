# Two commands: `make demo` shows the whole system at work, `make test` tests it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where the demo uploads its results; empty: to a builder-web of its own. make demo UPLOAD=http://user:password@host/upload
export UPLOAD ?=
# With KEEP=1 the demo's programs run on until Ctrl-C, so that its pages can be looked at.
export KEEP ?=

.PHONY: demo test lint unit chaos test-long test-interop test-vm bench man wheel deb clean help

help:
	@echo "make demo          run server, worker and site, build this project twice, compare (KEEP=1: stay up until Ctrl-C;"
	@echo "                   UPLOAD=http://user:password@host/upload: upload there, without a site of its own)"
	@echo "make test          lint, type check and the tests, five to seven minutes on two cores"
	@echo "make test-long     the tests that take longer: packages in systems of their own, large builds, crowds"
	@echo "make test-interop  the same programs against the original's (BUILDER_PEER_BIN=folder with its programs,"
	@echo "                   BUILDER_WEB_PEER_BIN=folder with its builder-web and builder-db; one of both will do)"
	@echo "make test-vm       the packages and sandboxes in a virtual machine with systemd and control groups of version 2"
	@echo "make chaos         hit a farm at random and account for every job (SECONDS=60 SEED=number WORKERS=2;"
	@echo "                   SERVERS=3: so many on a PostgreSQL, which is hit, too)"
	@echo "make bench         benchmarks, medians"
	@echo "make man           write the manual pages below build/man"
	@echo "make wheel         build the wheel"
	@echo "make deb           build Debian packages for this release into dist/"
	@echo "make clean         remove what the others made"

$(VENV)/.installed: pyproject.toml builder/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv is missing: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/python demo/demo.py

test: lint unit

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/vulture

unit: $(VENV)/.installed
	$(BIN)/pytest --numprocesses 3 --dist loadgroup

test-long: $(VENV)/.installed
	$(BIN)/pytest -m long --numprocesses 3 --dist loadgroup

test-interop: $(VENV)/.installed
	@$(BIN)/python tests/interop/check_peer.py
	$(BIN)/pytest -m interop tests/interop

test-vm: deb
	tests/vm/run.sh

chaos: $(VENV)/.installed
	cd tests && ../$(BIN)/python -m chaos --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) --workers $(or $(WORKERS),2) --servers $(or $(SERVERS),0)

bench: $(VENV)/.installed
	@for script in bench/bench_*.py; do $(BIN)/python $$script || exit 1; done

man: $(VENV)/.installed
	$(BIN)/python man/pages.py build/man

wheel: $(VENV)/.installed
	$(BIN)/python -m hatchling build -t wheel

deb: $(VENV)/.installed
	$(BIN)/python debian/build.py

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
