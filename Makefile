# Every verb of a contributor. CI calls these and nothing else.
PYTHON := .venv/bin/python
BIN := .venv/bin

##@ Work
build:  ## compile the extensions in place
	$(PYTHON) setup.py -q build_ext --inplace -j2

test:  ## tests that need no root, kernel or broker (under a minute)
	$(PYTHON) -m pytest tests -m "not live and not slow"

test-bpf:  ## the kernel programs: layout, verifier (root)
	$(PYTHON) -m pytest tests/bpf

test-live:  ## real kernel, servers, broker (root)
	$(PYTHON) -m pytest tests/live

bench:  ## the pipeline benchmark, small
	$(PYTHON) -m tests.bench pipeline --exchanges 20000 --body 1024 --json

TIME ?= 3600
fuzz:  ## the compiled core under a fuzzer, with sanitizers; TIME=60: seconds, an hour by itself
	scripts/fuzz $(TIME)

##@ Checks
lint:  ## formatting and style
	$(BIN)/ruff check collector tests setup.py
	PATH=$(BIN):$$PATH cython-lint collector
	clang-format --dry-run --Werror bpf/*.c bpf/*.h bpf/abi/*.h

types:  ## mypy, strict
	$(BIN)/mypy

##@ Pages
docs:  ## generated pages
	$(PYTHON) -m collector.docs docs

help:  ## this list
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*##/ {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build test test-bpf test-live bench fuzz lint types docs help
.DEFAULT_GOAL := help
