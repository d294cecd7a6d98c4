"""Copies of accounts that every engine builds the models over, and what DuckDB makes of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from stripe_feed.models.database import duckdb_database, existing_tables
from stripe_feed.models.render import RenderedModel, load_project
from stripe_feed.models.run import build_models, missing_tables, render_for, variables_for
from stripe_feed.sandbox import Sandbox

from .copies import copy_of
from .payments import payment_tables
from .timelines import AS_OF, DAY, draw_account, new_connection, raw_tables, utc_time

TIMELINES = 120


@dataclass(frozen=True, slots=True)
class EngineCase:
    """A copy: `name` is also its dataset. `zone`: the time zone of the engine's session."""

    name: str
    zone: str
    variables: Mapping[str, Any] = field(default_factory=dict)


CASES = (
    EngineCase("observed", "UTC"),
    EngineCase(
        "invoiced",
        "America/St_Johns",
        # its days begin at 1 once a year: midnight is skipped
        {"reporting_timezone": "America/Santiago", "discounts": "all", "churn_timing": "cancel"},
    ),
    EngineCase("business", "Asia/Kolkata", {"reporting_timezone": "America/New_York"}),
)


@dataclass(frozen=True, slots=True)
class EngineCopy:
    """The raw tables as Parquet files in `folder`, the columns of each with DuckDB's types, the
    variables of the models, and what DuckDB made of them.
    """

    case: EngineCase
    folder: Path
    tables: Mapping[str, Mapping[str, str]]
    variables: Mapping[str, Any]
    models: Mapping[str, RenderedModel]
    columns: Mapping[str, Mapping[str, str]]
    rows: Mapping[str, Counter[tuple[Any, ...]]]

    def file(self, table: str) -> Path:
        return self.folder / f"raw_{table}.parquet"

    def differences(self, model: str, found: Iterable[Sequence[Any]]) -> list[str]:
        """What an engine's rows of a model have beyond DuckDB's (`+`), and the reverse (`-`)."""
        given, wanted = Counter(map(plain_row, found)), self.rows[model]
        lines = [f"{row} +" for row in (given - wanted).elements()]
        lines += [f"{row} -" for row in (wanted - given).elements()]
        names = tuple(self.columns[model])
        heading = f"{self.case.name}: {model} {names}: {len(lines)} of {wanted.total()} rows"
        return [heading, *sorted(lines)[:6]] if lines else []


def plain_row(row: Sequence[Any]) -> tuple[Any, ...]:
    """A row with the values that every engine's driver can be brought to."""
    return tuple(map(_plain, row))


def _plain(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        return json.dumps(json.loads(value), sort_keys=True)
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True)
    if isinstance(value, datetime):  # before date: it is one
        return value.astimezone(timezone.utc).replace(tzinfo=None) if value.tzinfo else value
    if isinstance(value, (bool, int, str, date, Decimal)) or value is None:
        return value
    if isinstance(value, bytes):
        return value.decode()
    raise TypeError(f"a model gives a {type(value).__name__}")


def make_copy(case: EngineCase, folder: Path) -> EngineCopy:
    """Write the raw tables of a case as Parquet, and build the models in DuckDB."""
    connection, as_of = _raw_connection(case, folder)
    with closing(connection):
        database = duckdb_database(connection, case.name)
        tables = {
            table: dict(database.columns(f"select * from {case.name}.{table}"))
            for table in sorted(existing_tables(database))
        }
        for table in tables:
            file = folder / f"raw_{table}.parquet"  # Spark ignores names that begin with _
            connection.execute(f"copy {case.name}.{table} to '{file}' (format parquet)")
        raw_columns = existing_tables(database)
        given = {"as_of": f"{utc_time(as_of)}", **case.variables}
        variables = variables_for(database, load_project(), given, raw_columns)
        results = build_models(database, variables=variables, full=True)
        assert {result.status for result in results if not result.missing} == {"built"}
        rendered = render_for(database, load_project(), variables, raw_columns)
        missing = missing_tables(rendered, raw_columns)
        models = {name: model for name, model in rendered.items() if name not in missing}
        rows, columns = {}, {}
        for name in models:
            relation = f"{database.target.schema}.{name}"
            columns[name] = dict(database.columns(f"select * from {relation}"))
            rows[name] = Counter(map(plain_row, database.execute(f"select * from {relation}")))
    return EngineCopy(case, folder, tables, variables, models, columns, rows)


def _raw_connection(case: EngineCase, folder: Path) -> tuple[Any, int]:
    """DuckDB with the raw tables, and the second that the models speak of."""
    if case.name == "business":
        return _business(folder)
    account = draw_account(7, TIMELINES, "invoiced" if case.name == "invoiced" else "observed")
    tables = raw_tables(account, shape="old" if case.name == "invoiced" else "new")
    return new_connection(tables | payment_tables(), case.name), AS_OF


def _business(folder: Path) -> tuple[Any, int]:
    """The sandbox's business as `sync` loads it, after a week's activity."""
    box = Sandbox(seed=4, customers=40, business=True)
    loaded = {"dataset": "business", "resources": ["core", "payments", "billing", "payment_lists"]}
    with copy_of(box, folder) as copy:
        copy.sync(**loaded)
        box.live(9 * DAY, 40)
        box.advance(600)
        copy.sync(**loaded)
        return duckdb.connect(str(folder / copy.database)), int(box.now)
