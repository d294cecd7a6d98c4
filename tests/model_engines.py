"""The engines that the models are written for, and what tests show of each."""

from __future__ import annotations

DIALECTS = (
    "duckdb",
    "postgres",
    "redshift",
    "snowflake",
    "bigquery",
    "databricks",
    "spark",
    "trino",
    "athena",
    "clickhouse",
)
"""Engines for which every model is written and read again in their dialect."""

RAN = {
    "DuckDB": "test_models_oracle.py::test_every_cell_is_as_calculated",
    "DuckDB through dbt": "test_models_dbt.py::test_dbt_builds_the_same_rows_and_tests_them",
    "Postgres": "test_models_postgres.py::test_every_row_is_that_of_duckdb_in_any_time_zone",
    "Postgres through dbt": "test_models_engines.py::test_dbt_on_postgres_has_the_rows_of_duckdb",
    "Spark (through dbt)": "test_models_engines.py::test_spark_has_the_rows_of_duckdb",
    "ClickHouse (chdb)": "test_models_engines.py::test_clickhouse_has_the_rows_of_duckdb",
    "Snowflake's dialect (fakesnow)": "test_models_engines.py::test_fakesnow_has_the_rows_of_duckdb",
}
"""Where the models were built and every row compared: how the docs name it, and by which test."""

PARSED = {
    "Athena": "athena",
    "BigQuery": "bigquery",
    "Databricks": "databricks",
    "Redshift": "redshift",
    "Snowflake": "snowflake",
    "Trino": "trino",
}
"""Engines of which no test has compared every row yet, by dialect."""


def documented_engines() -> list[list[str]]:
    """The table of engines in the docs: each, and what tests show of it."""
    return [*([name, "ran"] for name in RAN), *([name, "parsed"] for name in PARSED)]
