"""The database that models are built in: what exists there, and the record of what was built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..destination.place import models_schema
from .render import ModelTarget

RESULTS = "_stripe_feed_models"  # beside the models: what was built, from what, and when
LAST_BUILD = "_stripe_feed_build"  # of all models: from what, and its results
CUSTOMER_MARKS = "_stripe_feed_customers"  # what each customer's rows were at the last build


@dataclass(frozen=True, slots=True)
class ModelDatabase:
    """An open database and where the models go in it.

    `execute` runs one statement and returns its rows; `columns` names and types a query's columns;
    the statements inside a `transaction` take effect together.
    """

    target: ModelTarget
    execute: Callable[[str], list[tuple[Any, ...]]]
    columns: Callable[[str], list[tuple[str, str]]]
    transaction: Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A row of the table of results: one model as it was last built. `basis`: what its rows of
    unchanged customers depend on.
    """

    name: str
    kind: str
    definition: str
    content: str
    load_id: str | None
    built_at: datetime
    seconds: float
    rows: int | None
    basis: str = ""


def duckdb_database(connection: Any, dataset: str, schema: str | None = None) -> ModelDatabase:
    """The models of a dataset in an open DuckDB connection."""
    (name,) = connection.execute("select current_database()").fetchone()
    target = ModelTarget("duckdb", name, dataset, schema or models_schema(dataset))

    def execute(sql: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
        return rows

    def columns(sql: str) -> list[tuple[str, str]]:
        described = connection.execute(f"select * from ({sql}) as described limit 0").description
        return [(str(column[0]), str(column[1])) for column in described or ()]

    @contextmanager
    def transaction() -> Iterator[None]:
        connection.execute("begin")
        try:
            yield
        except BaseException:
            connection.execute("rollback")
            raise
        connection.execute("commit")

    return ModelDatabase(target, execute, columns, transaction)


@contextmanager
def client_database(client: Any) -> Iterator[ModelDatabase]:
    """Open one of dlt's SQL clients, and yield the models of its dataset, for DuckDB or Postgres."""
    with client:
        yield opened_database(client)


def opened_database(client: Any) -> ModelDatabase:
    """The models of the dataset of one of dlt's SQL clients that is open, for DuckDB or Postgres."""
    ((name,),) = client.execute_sql("select current_database()")
    dataset = str(client.dataset_name)
    kind = str(client.capabilities.sqlglot_dialect)
    target = ModelTarget(kind, str(name), dataset, models_schema(dataset))

    def execute(sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in client.execute_sql(sql) or ()]

    def columns(sql: str) -> list[tuple[str, str]]:
        query = f"select * from ({sql}) as described limit 0"
        with client.execute_query(query) as cursor:
            described = [(str(column[0]), column[1]) for column in cursor.native_cursor.description]
        if target.type == "duckdb":
            return [(name, str(type_code)) for name, type_code in described]
        types = ", ".join(f"format_type({type_code}, null)" for _, type_code in described)
        (names,) = client.execute_sql(f"select {types}")
        return [(name, type_name) for (name, _), type_name in zip(described, names, strict=True)]

    return ModelDatabase(target, execute, columns, client.begin_transaction)


def existing_tables(database: ModelDatabase) -> dict[str, frozenset[str]]:
    """The raw tables of the dataset, each with its columns."""
    rows = database.execute(
        "select table_name, column_name from information_schema.columns "
        f"where table_schema = '{database.target.dataset}' and table_catalog = '{database.target.database}'"
    )
    tables: dict[str, set[str]] = {}
    for table, column in rows:
        tables.setdefault(table, set()).add(column)
    return {table: frozenset(columns) for table, columns in tables.items()}


def existing_relations(database: ModelDatabase) -> dict[str, str]:
    """What exists in the schema of the models: `table` or `view`, by name."""
    rows = database.execute(
        "select table_name, table_type from information_schema.tables "
        f"where table_schema = '{database.target.schema}' and table_catalog = '{database.target.database}'"
    )
    return {name: "view" if kind == "VIEW" else "table" for name, kind in rows}


def newest_load(database: ModelDatabase, raw_tables: Mapping[str, frozenset[str]]) -> str | None:
    """The id of the newest complete load; None if dlt has loaded nothing."""
    if "_dlt_loads" not in raw_tables:
        return None
    loads = database.target.relation("_dlt_loads", database.target.dataset)
    ((load_id,),) = database.execute(f"select max(load_id) from {loads} where status = 0")
    return load_id if load_id is None else str(load_id)


def create_schema(database: ModelDatabase) -> None:
    """Create the schema of the models, and in it the table of results."""
    database.execute(f'create schema if not exists "{database.target.schema}"')
    database.execute(
        f"create table if not exists {database.target.relation(RESULTS)} (name varchar(200), kind varchar(20), "
        "definition varchar(32), content varchar(32), load_id varchar(64), built_at timestamp, "
        "seconds double precision, row_count bigint)"
    )
    database.execute(
        f"alter table {database.target.relation(RESULTS)} add column if not exists basis varchar(32)"
    )
    database.execute(
        f"create table if not exists {database.target.relation(LAST_BUILD)} (content varchar(32), results text)"
    )


def read_results(database: ModelDatabase) -> dict[str, BuiltModel]:
    """The record of what was built, by model; empty before the first build."""
    if RESULTS not in existing_relations(database):
        return {}
    rows = database.execute(f"select * from {database.target.relation(RESULTS)}")
    return {row[0]: BuiltModel(*row) for row in rows}


def record_result(database: ModelDatabase, built: BuiltModel) -> None:
    """Replace the record of one model."""
    relation = database.target.relation(RESULTS)
    values = ", ".join(
        "null" if value is None else f"'{value}'"
        for value in (
            built.name,
            built.kind,
            built.definition,
            built.content,
            built.load_id,
            f"{built.built_at:%Y-%m-%d %H:%M:%S.%f}",
            f"{built.seconds:.3f}",
            built.rows,
            built.basis,
        )
    )
    with database.transaction():
        database.execute(f"delete from {relation} where name = '{built.name}'")
        database.execute(f"insert into {relation} values ({values})")


def read_last_build(database: ModelDatabase, content: str) -> str | None:
    """The results of the last build of all models, if it was made from this content."""
    relation = database.target.relation(LAST_BUILD)
    rows = database.execute(f"select results from {relation} where content = '{content}'")
    return str(rows[0][0]) if rows else None


def forget_last_build(database: ModelDatabase) -> None:
    """Remove the record of the last build of all models."""
    database.execute(f"delete from {database.target.relation(LAST_BUILD)}")


def forget_bases(database: ModelDatabase) -> None:
    """Make the build after the next load a whole one: rows changed that no load tells of."""
    if RESULTS in existing_relations(database):
        relation = database.target.relation(RESULTS)
        database.execute(f"alter table {relation} add column if not exists basis varchar(32)")
        database.execute(f"update {relation} set basis = ''")


def record_last_build(database: ModelDatabase, content: str, results: str) -> None:
    """Record a build of all models."""
    quoted = results.replace("'", "''")
    relation = database.target.relation(LAST_BUILD)
    database.execute(f"insert into {relation} values ('{content}', '{quoted}')")
