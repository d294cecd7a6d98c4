"""Models built over generated tables, and their rows held against calculated ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any

from stripe_feed.models.database import duckdb_database
from stripe_feed.models.render import Project, load_project
from stripe_feed.models.run import build_models

from .mart_rows import MARTS, SPAN_KEYS, Row, as_few_spans
from .mrr_oracle import MrrOracle
from .timelines import AS_OF, Account, new_connection, raw_tables, utc_time


def build(connection: Any, project: Project | None = None, **variables: Any) -> None:
    """Build every model over the tables in `stripe`, as of `AS_OF`."""
    variables = {"as_of": f"{utc_time(AS_OF)}", **variables}
    results = build_models(
        duckdb_database(connection, "stripe"), variables=variables, full=True, project=project
    )
    failed = [f"{result.name}: {result.reason}" for result in results if result.status == "failed"]
    assert not failed, failed


def built(account: Account, *, project: Project | None = None, **variables: Any) -> Any:
    """Return a DuckDB connection with the account's tables and all models over them."""
    connection = new_connection(raw_tables(account))
    build(connection, project, **variables)
    return connection


def rows_of(connection: Any, query: str) -> list[Row]:
    """Return the rows of a query, or of a model; decimals as fractions."""
    sql = query if " " in query else f"select * from stripe_models.{query}"
    cursor = connection.execute(sql)
    names = [column[0] for column in cursor.description]
    return [
        {
            name: Fraction(value) if isinstance(value, Decimal) else value
            for name, value in zip(names, row, strict=True)
        }
        for row in cursor.fetchall()
    ]


def differences(connection: Any, model: str, oracle: MrrOracle) -> list[str]:
    """Return what a mart says and the calculation does not (`+`), and the reverse (`-`), in all the
    columns that are calculated.
    """
    calculated = list(MARTS[model](oracle))
    names = list(calculated[0])
    found = rows_of(connection, f"select {', '.join(names)} from stripe_models.{model}")
    if key := SPAN_KEYS.get(model):
        calculated, found = as_few_spans(calculated, key), as_few_spans(found, key)
    wanted = Counter(tuple(row.values()) for row in calculated)
    given = Counter(tuple(row.values()) for row in found)
    lines = [f"{row} +" for row in (given - wanted).elements()]
    lines += [f"{row} -" for row in (wanted - given).elements()]
    heading = f"{model} {tuple(names)}: {len(lines)} of {wanted.total()} rows"
    return [heading, *sorted(lines)[:12]] if lines else []


@cache
def mutated(model: str, old: str, new: str) -> Project:
    """Return the project with a text replaced once in a model or macro. Raises `AssertionError` if
    the text is not there exactly once.
    """
    project = load_project()
    if model in project.macros:
        text = project.macros[model]
        assert text.count(old) == 1, (model, old, text.count(old))
        return replace(project, macros={**project.macros, model: text.replace(old, new)})
    file = project.models[model]
    assert file.text.count(old) == 1, (model, old, file.text.count(old))
    models: Mapping[str, Any] = {
        **project.models,
        model: replace(file, text=file.text.replace(old, new)),
    }
    return replace(project, models=models)
