# Two commands do all the set-up: `make demo` and `make test`. Both need python3 (3.11 or later), make and a package index.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 2
# What is compiled once serves every worker and every program that the tests start.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test check unit integration swtpm test-slow soak mcpb conformance bench format lock clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "attestable-mcp needs Python 3.11 or later; name one with PYTHON=python3.x" >&2; exit 1; }
	@echo "setting up $(VENV) (once, about a minute)" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY)  ## the main job with the simulated TEE: servers and clients proven, impostors refused
	@$(BIN)/attestable-mcp demo

test: check unit integration  ## lint, types, import contracts and the tests

check: $(READY)  ## lint, types, import contracts
	@$(BIN)/ruff check src tests bench
	@$(BIN)/ruff format --check src tests bench
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

unit: $(READY) swtpm  ## the tests that start no program
	@$(PYTEST) -q -n $(WORKERS) -m "not slow" --ignore=tests/integration --ignore=tests/conformance --ignore=tests/soak \
	  --ignore=tests/contracts/test_readme.py

integration: $(READY) swtpm  ## whole programs: servers, bridges, their ends and their logs
	@$(PYTEST) -q -n $(WORKERS) -m "not slow" tests/integration tests/conformance tests/soak tests/contracts/test_readme.py

swtpm:  ## a TPM 2.0 in software, for the tests: by apt where that may be, else its tests skip by name
	@command -v swtpm >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && echo "installing swtpm (once)" >&2 && timeout 120 apt-get update -qq >/dev/null 2>&1 \
	  && DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -y -qq swtpm >/dev/null 2>&1; } \
	  || echo "swtpm is absent: the tests that need it will be skipped by name" >&2

test-slow: $(READY) swtpm  ## the suites that take minutes
	@$(PYTEST) -q -m slow --timeout 900

soak: $(READY)  ## a day of use, compressed: 200,000 calls, 5,000 sessions and faults (some ten minutes on two cores)
	@ATTESTABLE_SOAK_CALLS=200000 ATTESTABLE_SOAK_SESSIONS=5000 $(PYTEST) -q -n 3 -m slow --timeout 7200 tests/soak

mcpb: $(READY)  ## the .mcpb bundle of the bridge, for Claude Desktop and others, in dist/
	@$(BIN)/python packaging/mcpb/build.py dist

conformance: $(READY)  ## the official suite, reference servers and the Inspector (see docs/conformance.md)
	@$(BIN)/python tests/conformance/suite.py
	@$(BIN)/python tests/conformance/reference.py
	@$(BIN)/python tests/conformance/inspector_cli.py

bench: $(READY)  ## figures as ratios to a peer or a floor measured in the same run
	@$(BIN)/python bench/run.py

format: $(READY)  ## write the code in the house style
	@$(BIN)/ruff check --fix-only src tests bench
	@$(BIN)/ruff format src tests bench

lock: $(READY)  ## renew requirements/*.txt (needs uv)
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url \
	  --group dev --all-extras -o requirements/dev.txt pyproject.toml
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url \
	  --all-extras -c requirements/dev.txt -o requirements/runtime.txt pyproject.toml

clean:  ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
