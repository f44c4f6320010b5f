# Gantry: everything that a person starts by hand. Needs make and a Python from 3.11 to 3.14, nothing else; PYTHON=...
# says which, else the newest that works is taken.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:
.NOTPARALLEL:

PY := .venv/bin/python
# More arguments for pytest, the benchmarks or a management command: make test ARGS="-k kill"
ARGS ?=
# How many processes run the tests side by side: a number, or auto (two for each core).
WORKERS ?= auto
# On which Pythons `make test-python` tries what may differ between them.
PYTHONS ?= 3.13
SCHEMA ?= var/openapi.yaml
SOURCES := config workers tasks_api jobs queues workqueue tests manage.py

# Settings for checks of a deployment: what production looks like, with throw-away secrets.
DEPLOYED = GANTRY_HTTPS=1 GANTRY_ALLOWED_HOSTS=gantry.example \
	DJANGO_SECRET_KEY=$$($(PY) -c 'import secrets; print(secrets.token_urlsafe(64))') \
	GANTRY_SECRET_KEYS=$$($(PY) -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())')

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-11s %s\n", $$1, $$2 }'

.PHONY: demo
demo: venv ## a tour of under a minute: starts everything, runs commands, shows them, stops everything
	@$(PY) -m config.local demo

.PHONY: up
up: venv ## the service until Ctrl-C; data in var/ (GANTRY_DATA_DIR), port 8000 (GANTRY_PORT)
	@exec $(PY) -m config.local up

.PHONY: worker
worker: venv ## one more node for a running service (GANTRY_NODE_NAME, GANTRY_NODE_ATTRIBUTES=rack_id=r1)
	@exec $(PY) -m config.local worker

.PHONY: manage
manage: venv ## a management command of the running service: make manage ARGS="create_token admin"
	@$(PY) -m config.local manage $(ARGS)

.PHONY: test
test: venv-dev ## every test but the long ones, on servers that the tests start themselves
	@sh config/local/debian.sh
	@$(PY) -m tests.tools.run $(WORKERS) -m "not long" $(ARGS)

.PHONY: test-long
test-long: venv-dev ## scale, soak and full repetitions; hours
	@sh config/local/debian.sh
	$(PY) -m pytest -m long -o timeout=14400 $(ARGS)

.PHONY: test-python
test-python: venv-dev ## unit tests and demo on other Pythons, in a copy: make test-python PYTHONS="3.12 3.13"
	@sh config/local/debian.sh
	@sh config/local/pythons.sh $(PYTHONS)

.PHONY: lint
lint: venv-dev ## ruff, mypy, import rules, migrations, deployment check, schema
	@# mypy takes as long as all others together: beside them.
	$(PY) -m mypy & mypy=$$!; trap "kill $$mypy" INT TERM; \
		$(MAKE) --no-print-directory lint-others; others=$$?; \
		wait $$mypy && exit $$others

.PHONY: lint-others
lint-others:
	$(PY) -m ruff check $(SOURCES)
	$(PY) -m ruff format --check $(SOURCES)
	@# NO_COLOR: import-linter's banner is for terminals.
	NO_COLOR=1 $(PY) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'
	@# No database runs here, so makemigrations cannot compare the history that one would have.
	@$(DEPLOYED) $(PY) -W 'ignore:Got an error checking:RuntimeWarning' manage.py makemigrations --check --dry-run
	@$(DEPLOYED) $(PY) manage.py check --deploy --fail-level WARNING
	@$(DEPLOYED) $(PY) manage.py spectacular --validate --fail-on-warn --file /dev/null
	@echo "schema: valid, no warnings"

.PHONY: bench
bench: venv-dev ## the figures of docs/performance.md
	@NEEDED=wrk:wrk sh config/local/debian.sh
	$(PY) -m tests.bench $(ARGS)

.PHONY: bench-long
bench-long: venv-dev ## the same with more repetitions and more rows
	@NEEDED=wrk:wrk sh config/local/debian.sh
	$(PY) -m tests.bench --long $(ARGS)

.PHONY: schema
schema: venv ## writes the OpenAPI document to SCHEMA (var/openapi.yaml)
	@mkdir -p $(dir $(SCHEMA))
	@$(DEPLOYED) $(PY) manage.py spectacular --validate --fail-on-warn --file $(SCHEMA)
	@echo "wrote $(SCHEMA)"

.PHONY: fmt
fmt: venv-dev ## formats the code
	$(PY) -m ruff check --fix $(SOURCES)
	$(PY) -m ruff format $(SOURCES)

.PHONY: lock
lock: venv-dev ## resolves the dependencies of pyproject.toml again into both lock files
	$(PY) -m uv pip compile pyproject.toml --python-version 3.11 --universal --generate-hashes \
		--no-emit-index-url --no-header --quiet -o requirements.txt
	$(PY) -m uv pip compile pyproject.toml --extra dev --python-version 3.11 --universal --generate-hashes \
		--no-emit-index-url --no-header --quiet -c requirements.txt -o requirements-dev.txt

.PHONY: clean
clean: ## removes .venv and caches; your data in var/ stays
	rm -rf .venv .mypy_cache .ruff_cache .import_linter_cache .hypothesis .pytest_cache
	find . -name __pycache__ -type d -not -path './var/*' -prune -exec rm -rf {} +

.PHONY: venv venv-dev
venv:
	@sh config/local/venv.sh requirements.txt
venv-dev:
	@sh config/local/venv.sh requirements.txt requirements-dev.txt
