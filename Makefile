# Everything a person types. `make demo` and `make test` are where to start.
TORCH ?=
DEMO_ARGS ?=
TEST_ARGS ?=
BIN := .venv/bin
BENCH_ARGS ?=
LOCK_ARGS ?=
COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command 'make lock' $(LOCK_ARGS)

.PHONY: help setup demo test check check-long bench lock force

help:
	@echo 'make demo        the main job on generated data, on a real Kafka (DEMO_ARGS="--help" shows its options)'
	@echo 'make test        the test suite'
	@echo 'make check       ruff, format, mypy'
	@echo 'make check-long  the tests that take minutes'
	@echo 'make setup       only the environment, .venv (TORCH=cpu: torch without CUDA)'
	@echo 'make bench       how fast the audience plane is, beside rivals (BENCH_ARGS=--quick: a minute, small)'
	@echo 'make lock        the locks anew, after a change of pyproject.toml (LOCK_ARGS=--upgrade: newer versions too)'

setup: .venv/.ready

# Asking for a torch by name is asking to look again.
.venv/.ready: requirements.lock requirements-build.lock requirements-uv.lock pyproject.toml deploy/setup.sh $(if $(TORCH),force)
	@TORCH='$(TORCH)' sh deploy/setup.sh

demo: setup
	@$(BIN)/coldstart demo $(DEMO_ARGS)

test: setup
	$(BIN)/python -m pytest $(TEST_ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/bench

check-long: setup
	$(BIN)/python -m pytest -m long $(TEST_ARGS)

bench: setup .venv-bench/.ready
	$(BIN)/python tests/bench/bench_plane.py $(BENCH_ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench/bench_cat.py

# The rivals' pins are not ours, so they live apart.
.venv-bench/.ready: .venv/.ready
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-bench
	$(BIN)/uv pip install --quiet --python .venv-bench/bin/python quixstreams==3.28.1 numpy
	@touch $@

# Three locks: what runs, what builds (hatchling for this project, the rest for hnswlib), and the installer itself.
lock: setup
	$(COMPILE) --all-extras -o requirements.lock pyproject.toml
	printf '%s\n' hatchling editables setuptools wheel pybind11 numpy | \
		$(COMPILE) -o requirements-build.lock -
	echo uv | $(COMPILE) -o requirements-uv.lock -
