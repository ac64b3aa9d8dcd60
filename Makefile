# Each target is complete on a machine with Python 3.11, Java 17 and Maven, as root or not.
# What is fetched (Kafka, PostgreSQL) is kept in KESHI_CACHE, by default once per user; nothing else leaves the clone.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test lint chart helm kills bench bench-long lock clean env

# A Python that is new enough; another one: make PYTHON=/path/to/python …
PYTHON ?= $(firstword $(shell for name in python3.11 python3 python3.12 python3.13 python3.14; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$name"; done; true))
BIN := .venv/bin
# Processes that run tests side by side.
WORKERS ?= 2
# kills: what chooses the moments (default: the time), how often each point is hit, and where the ledger is kept
# (postgresql or sqlite).
SEED ?= $(shell date +%s)
HITS ?= 1
LEDGER ?= postgresql
# bench: further options, such as BENCH='--only closed400 --profile api'.
BENCH ?=

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

demo: env ## erase sample people from five running systems, and look whether they are gone
	@$(BIN)/keshi dev demo

test: lint ## everything that is checked before a change goes in
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile

lint: env ## style, types and layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy src tests
	@$(BIN)/lint-imports

chart: env ## lint and render the Helm chart, and hold it against the code
	@$(BIN)/pytest tests/chart

helm: env ## compile Helm with Go into the cache, where it is not there yet
	@$(BIN)/python -m tests.chart.tools >/dev/null

kills: env ## kill each part at each named point, over five systems: make kills SEED=7 HITS=5
	@$(BIN)/python -m tests.chaos.kills --seed $(SEED) --hits $(HITS) --ledger $(LEDGER)

bench: env ## how fast it is, next to what the broker would allow (under 8 minutes)
	@$(BIN)/python -m bench $(BENCH)

bench-long: env ## 100,000 requests at once, and memory over time
	@$(BIN)/python -m bench --long $(BENCH)

lock: env ## resolve the dependencies anew, into requirements.lock and the parts of it that images are built from
	@$(BIN)/python -m pip install --quiet uv
	@compile() { $(BIN)/uv pip compile --universal --generate-hashes --python-version 3.11 --no-header \
		--no-emit-index-url --quiet "$$@"; }; \
	compile pyproject.toml --all-extras -o requirements.lock; \
	image() { compile pyproject.toml -c requirements.lock --no-annotate "$$@"; }; \
	image --extra orchestrator --extra telemetry -o helm/image/core.lock; \
	image --extra sql --extra rest --extra s3 --extra telemetry -o helm/image/handlers.lock; \
	compile - -c requirements.lock --no-annotate -o helm/image/build.lock <<<setuptools

clean: ## remove what the other targets made in this clone
	@rm -rf .venv .cache build dist src/*.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Two makes at once must not both build .venv: the second waits, then finds it done. What it was built from is
# kept as a digest, since times of files say little after a checkout.
env:
	@mkdir -p .cache; exec 9>.cache/env.lock; \
	flock --nonblock 9 || { echo "Waiting for another make, which is preparing .venv" >&2; flock 9; }; \
	[[ -n "$(PYTHON)" ]] || { echo "No Python 3.11 or newer on PATH: install it (Debian: apt-get install python3" \
		"python3-venv), or name one: make PYTHON=/path/to/python" >&2; exit 1; }; \
	made_from="$$(cat requirements.lock pyproject.toml <(pwd) | sha256sum)"; \
	if [[ "$$(cat .venv/made-from 2>/dev/null)" == "$$made_from" ]] && $(BIN)/python -c ''; then exit 0; fi; \
	echo "Preparing .venv with $$($(PYTHON) --version) and the locked dependencies" >&2; \
	rm -f .venv/made-from; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv >&2 || { \
		echo "Python cannot make an environment: install its venv module (Debian: apt-get install" \
		"python3-venv)" >&2; exit 1; }; \
	$(BIN)/python -m pip install --no-input --disable-pip-version-check --require-hashes -r requirements.lock >&2; \
	$(BIN)/python -m pip install --no-input --disable-pip-version-check --no-deps --no-build-isolation -e . >&2; \
	echo "$$made_from" > .venv/made-from
