# Every verb of a contributor. CI calls these and nothing else.
PYTHON := .venv/bin/python
BIN := .venv/bin

##@ Work
build:  ## compile the extensions in place, those whose sources changed
	$(PYTHON) setup.py -q build_ext --inplace -j2

test: build  ## tests that need no root, kernel or broker (under a minute)
	$(PYTHON) -m pytest tests -m "not live and not slow" $(ARGS)

test-bpf: build  ## the kernel programs: layout, verifier (root)
	$(PYTHON) -m pytest tests/bpf

test-live: build  ## real kernel, servers, broker (root)
	$(PYTHON) -m pytest tests/live

image:  ## the container image, with a Docker engine
	scripts/image

debug-build:  ## the extensions with bounds checks and sanitizers, in build/debug
	@mkdir -p build/debug/lib && find build/debug/lib -name '*.py' -delete
	COLLECTOR_DEBUG=1 COLLECTOR_BUILD=build/debug/c $(PYTHON) setup.py -q build --build-base build/debug \
		--build-lib build/debug/lib -j2

# The sanitizers' runtime must be the first library of the process; libstdc++ beside it, or re2 cannot throw.
DEBUG_ENV = LD_PRELOAD="$(shell gcc -print-file-name=libasan.so) $(shell gcc -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc PYTHONPATH=build/debug/lib:.
debug-test: debug-build  ## `make test` with them; ARGS="-k name" goes to pytest
	$(DEBUG_ENV) $(PYTHON) -P -m pytest --import-mode=append --timeout=600 tests -m "not live and not slow" $(ARGS)

bench: build  ## the pipeline benchmark, small
	$(PYTHON) -m tests.bench pipeline --exchanges 20000 --body 1024 --json

TIME ?= 3600
fuzz:  ## the compiled core under a fuzzer, with sanitizers; TIME=60: seconds, an hour by itself
	scripts/fuzz $(TIME)

##@ Checks
PY := collector tests deploy setup.py
# bpf/headers are the kernel's, in its words
C = $(shell find bpf -name headers -prune -o -name '*.[ch]' -print; find collector -name '*.h'; find tests -name '*.c')
lint:  ## style of Python, Cython and C, and that the formatters would change nothing
	$(BIN)/ruff check $(PY)
	$(BIN)/ruff format --check --quiet $(PY)
	PATH=$(BIN):$$PATH cython-lint collector
	clang-format --dry-run --Werror $(C)

format:  ## write the sources as the formatters want them
	$(BIN)/ruff format $(PY)
	clang-format -i $(C)

# Each compiled module has a .pyi; stubtest compares it with the module.
STUBS = $(subst /,.,$(basename $(shell find collector -name '*.pyi')))
types: build  ## mypy, strict; stubs against the compiled modules
	$(BIN)/mypy
	$(PYTHON) -m mypy.stubtest --mypy-config-file pyproject.toml --allowlist tests/stubtest-allowlist.txt \
		--ignore-disjoint-bases --concise $(STUBS)

##@ Pages
docs:  ## generated pages, and the schemas of policies and of the chart's values
	$(PYTHON) -m collector.docs docs
	PYTHONPATH=. $(PYTHON) deploy/helm/schema.py

help:  ## this list
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*##/ {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build test test-bpf test-live image debug-build debug-test bench fuzz lint format types docs help
.DEFAULT_GOAL := help
