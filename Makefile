# Everything runs in .venv, which the first target makes: with uv where it can be had, with plain pip otherwise.
# Another interpreter: make test PYTHON=python3.12 (with a fresh .venv).

PYTHON ?= python3
BIN := .venv/bin
comma := ,
export UV_LINK_MODE ?= copy
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: help demo test broad check compat wheel columns docs bench bench-long long test-browser picture test-nginx test-orchestrators test-dbt test-engines test-models test-live
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-18s %s\n", $$1, $$2}' Makefile

demo: .venv/.base  ## a Stripe look-alike, loaded twice into DuckDB; needs no account
	@$(BIN)/stripe-feed demo

test: .venv/.stamp  ## the test suite
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

broad: .venv/.stamp  ## more cases of what `make test` shows
	$(BIN)/pytest -m "broad and not long" -n auto --dist loadfile --no-loadscope-reorder

check: .venv/.stamp  ## lint, format, types, and the wheel in an empty environment
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	@$(MAKE) --no-print-directory wheel

wheel: .venv/.stamp  ## build the wheel, install it into an empty environment, try it there
	$(BIN)/python tests/wheel.py

columns: .venv/.stamp  ## add the fields that the installed SDK knows to the files of columns, and report what is gone
	$(BIN)/python -m tests.sdk_columns

docs: .venv/.stamp  ## the pages and references as a site in site/
	$(call install,.[dev$(comma)docs])
	$(BIN)/python docs/generate.py build/docs
	$(BIN)/zensical build --clean --strict
	$(BIN)/pytest -q -m docs tests/test_docs.py

compat: .venv/.stamp  ## a share of the tests with the lowest and the newest allowed versions, on each Python found
	$(BIN)/python tests/compat.py

bench: .venv/.stamp  ## speed, as ratios within one run
	$(BIN)/python tests/bench/run.py

bench-long: .venv/.stamp  ## the same with the large sizes
	$(BIN)/python tests/bench/run.py --long

long: .venv/.stamp  ## the tests that take minutes
	$(BIN)/pytest -m long

test-browser: .venv/.stamp  ## the page and the report in headless Chromium; skipped where there is none
	$(call install,.[dev$(comma)browser])
	-$(BIN)/playwright install chromium
	$(BIN)/pytest -m browser

picture: .venv/.stamp  ## the picture of the README, in headless Chromium
	$(call install,.[dev$(comma)browser])
	$(BIN)/python docs/picture.py

test-nginx: .venv/.stamp  ## `serve` behind a real nginx; skipped where there is none
	$(BIN)/pytest -m nginx

test-orchestrators: .venv/.stamp  ## the files for Dagster and Prefect, run by them
	$(call install,.[dev$(comma)dagster$(comma)prefect])
	$(BIN)/pytest -m orchestrators

test-dbt:  ## the models as dbt compiles and builds them, in an environment of its own: dbt pins what mypy needs newer
	@test -x build/dbt/bin/pip || $(PYTHON) -m venv build/dbt
	build/dbt/bin/pip install -q -e '.[dev$(comma)dbt]'
	build/dbt/bin/pytest tests/test_models_dbt.py tests/test_models_render.py

test-engines: test-models  ## destinations that need more: DuckLake, and the merges for warehouses; the models on more engines; in environments of their own
	@test -x build/engines/bin/pip || $(PYTHON) -m venv build/engines
	build/engines/bin/pip install -q -e '.[dev,engines]' 'duckdb==1.5.5' 'duckdb-extension-ducklake==1.5.5'
	build/engines/bin/pytest -m engines tests/test_dialects.py tests/test_contract.py

test-models:  ## the models on Spark, ClickHouse and through dbt on Postgres, in an environment of its own
	@test -x build/models/bin/pip || $(PYTHON) -m venv build/models
	build/models/bin/pip install -q -e '.[dbt,model-engines]'
	build/models/bin/pytest -m engines tests/test_models_engines.py

test-live:  ## the contract of destinations on STRIPE_FEED_LIVE=snowflake (or another), with dlt's credentials in the environment
	@test -n "$(STRIPE_FEED_LIVE)" || { echo "Name a destination: STRIPE_FEED_LIVE=snowflake make test-live"; exit 2; }
	@test -x build/engines/bin/pip || $(PYTHON) -m venv build/engines
	build/engines/bin/pip install -q -e '.[dev,engines]' 'duckdb==1.5.5' 'duckdb-extension-ducklake==1.5.5'
	build/engines/bin/pytest -m engines -k live tests/test_contract.py

# The base install is enough to run; the tests need the dev extra, which includes it.
.venv/.base: pyproject.toml
	$(call install,.)
	@touch $@

.venv/.stamp: pyproject.toml
	$(call install,.[dev])
	@touch .venv/.base $@

define install
@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
@test -x $(BIN)/uv || $(BIN)/pip install -q uv || true
@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -e '$(1)' || \
	{ echo "uv cannot do it here: installing with pip, which takes longer" >&2; $(BIN)/pip install -q -e '$(1)'; }
endef
