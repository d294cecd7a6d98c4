"""Models built over generated tables, and their rows held against calculated ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any

from stripe_feed.models.database import duckdb_database, existing_tables
from stripe_feed.models.render import load_project, render_models
from stripe_feed.models.run import build_models, derived_variables, select_models

from .mart_rows import MARTS, SPAN_KEYS, Row, as_few_spans
from .mrr_oracle import MrrOracle
from .timelines import AS_OF, Account, load_names, new_connection, raw_tables, utc_time

AS_OF_ALWAYS = {"as_of": f"{utc_time(AS_OF)}"}


def build(
    connection: Any, selection: Sequence[str] | None = None, *, full: bool = True, **variables: Any
) -> None:
    """Build the selected models, all by default, over the tables in `stripe`, as of `AS_OF`."""
    database = duckdb_database(connection, "stripe")
    results = build_models(database, selection, AS_OF_ALWAYS | variables, full)
    failed = [f"{result.name}: {result.reason}" for result in results if result.status == "failed"]
    assert not failed, failed


def built(account: Account, **variables: Any) -> Any:
    """Return a DuckDB connection with the account's tables and all models over them."""
    connection = new_connection(raw_tables(account))
    build(connection, **variables)
    return connection


def built_load_by_load(account: Account, loads: int) -> Any:
    """Return the same where the models were built after each of so many loads of changes."""
    tables = raw_tables(account, loads=loads)
    later = {name: tables[name] for name in ("changes", "_dlt_loads")}
    connection = new_connection(tables | {name: table.slice(0, 0) for name, table in later.items()})
    for name, table in later.items():
        connection.register(f"all_{name}", table)
    for load in load_names(loads):
        connection.execute(
            f"insert into stripe.changes select * from all_changes where _dlt_load_id = '{load}'"
        )
        connection.execute(
            f"insert into stripe._dlt_loads select * from all__dlt_loads where load_id = '{load}'"
        )
        build(connection, full=False)
    return connection


def rows_of(connection: Any, query: str) -> list[Row]:
    """Return the rows of a query, or of a model; decimals as fractions."""
    sql = query if " " in query else f"select * from stripe_models.{query}"
    cursor = connection.execute(sql)
    names = [column[0] for column in cursor.description]
    return [
        {
            name: _fraction(value) if isinstance(value, Decimal) else value
            for name, value in zip(names, row, strict=True)
        }
        for row in cursor.fetchall()
    ]


@cache
def _fraction(value: Decimal) -> Fraction:
    return Fraction(value)


def differences(connection: Any, model: str, oracle: MrrOracle) -> list[str]:
    """Return what a mart says and the calculation does not (`+`), and the reverse (`-`), in all the
    columns that are calculated.
    """
    calculated = list(MARTS[model](oracle))
    names = list(calculated[0]) if calculated else ["*"]
    found = rows_of(connection, f"select {', '.join(names)} from stripe_models.{model}")
    if key := SPAN_KEYS.get(model):
        calculated, found = as_few_spans(calculated, key), as_few_spans(found, key)
    wanted = Counter(tuple(row.values()) for row in calculated)
    given = Counter(tuple(row.values()) for row in found)
    lines = [f"{row} +" for row in (given - wanted).elements()]
    lines += [f"{row} -" for row in (wanted - given).elements()]
    heading = f"{model} {tuple(names)}: {len(lines)} of {wanted.total()} rows"
    return [heading, *sorted(lines)[:12]] if lines else []


class Modelled:
    """An account with its models, in which a model can be wrong for a moment."""

    def __init__(self, account: Account) -> None:
        self._connection = built(account)
        self._oracle = MrrOracle(account)
        database = duckdb_database(self._connection, "stripe")
        variables = derived_variables(database.target, existing_tables(database))
        self._database = database
        self._models = render_models(load_project(), database.target, variables | AS_OF_ALWAYS)

    def sees(self, name: str, right: str, wrong: str) -> bool:
        """Return whether a mart differs from the calculation once a text in a model's SQL is replaced
        by another. Raises `AssertionError` if the text is not there.
        """
        assert right in self._models[name].sql, (name, right)
        readers = set(select_models(self._models, [f"{name}+"]))
        self._connection.execute("begin")
        try:
            for model in self._models.values():
                if model.name not in readers:
                    continue
                sql = model.sql.replace(right, wrong) if model.name == name else model.sql
                kind = "view" if model.kind == "view" else "table"
                relation = self._database.target.relation(model.name)
                self._connection.execute(f"create or replace {kind} {relation} as {sql}")
                if model.name in MARTS and differences(self._connection, model.name, self._oracle):
                    return True
            return False
        finally:
            self._connection.execute("rollback")
