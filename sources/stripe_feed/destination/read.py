"""What the copy holds, read without writing: rows per table, cursors, some rows, SQL."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import SetupError, UsageError
from ..resources import CHANGES, RESOURCES, TABLES
from .duckdb_file import check_stem
from .error_messages import connection_problem, file_problem, require_dataset, require_file
from .locks import PATIENCE, patiently
from .pipeline import PIPELINE, open_pipeline, place_named, settings, state_root
from .place import DATASET, STORE, file_at, normalized
from .state import state_in, states_query


@dataclass(frozen=True, slots=True)
class Rows:
    """The answer to a query; `json` names the columns whose text is JSON."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    json: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Held:
    """One table of the copy: how many rows, and the newest `created` among them."""

    table: str
    rows: int
    newest: datetime | None


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far one resource is: its events were read up to `followed` (nothing: never), it was
    listed up to `until`, with so many seconds of `created` still to be listed.
    """

    resource: str
    until: datetime
    seconds_left: int
    followed: datetime | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """What the copy holds and how fresh it is; all empty before the first load. And where dlt's
    working folder and the feed's store are, there yet or not.
    """

    account_id: str | None = None
    livemode: bool | None = None
    api_version: str | None = None
    loaded_at: datetime | None = None
    tables: list[Held] = field(default_factory=list)
    cursors: list[Cursor] = field(default_factory=list)
    working_folder: str | None = None
    feed_store: str | None = None


class Missing(Exception):
    """The table or the dataset does not exist."""


@dataclass(frozen=True, slots=True)
class Copy:
    """An open copy. `ask` runs one query; it raises `Missing`, or `UsageError` with the database's
    words.
    """

    ask: Callable[[str], Rows]
    name: Callable[[str], str]  # the qualified name of a table
    dialect: str


@contextmanager
def opened(
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DATASET,
    wait: float = PATIENCE,
) -> Iterator[Copy]:
    """Open a copy for reading. Raises `SetupError` where there is none, or where it cannot be
    opened within `wait` seconds.
    """
    require_dataset(dataset)
    dataset = normalized(dataset)
    if destination in (None, "duckdb"):
        with _duckdb(_file(database, dataset), dataset, wait) as copy:
            yield copy
    else:
        with (
            settings(),
            tempfile.TemporaryDirectory(
                prefix="stripe-feed-"
            ) as folder,  # dlt makes a working folder
            _elsewhere(open_pipeline(database, destination, dataset, folder)) as copy,
        ):
            yield copy


def _file(database: str | None, dataset: str) -> Path:
    require_file(f"{PIPELINE}.duckdb" if database is None else database)
    file = Path(database or f"{PIPELINE}.duckdb")
    check_stem(file, dataset)
    return file


@contextmanager
def _duckdb(file: Path, dataset: str, wait: float) -> Iterator[Copy]:
    import duckdb

    if not file.is_file():
        raise SetupError(
            f"There is no file {file.name} yet. Run `stripe-feed sync` first, or name another --database."
        )

    def connected() -> duckdb.DuckDBPyConnection:
        try:
            return duckdb.connect(str(file), read_only=True)
        except duckdb.Error as fault:
            raise file_problem(file, str(fault)) from None

    connection = patiently(connected, wait)

    def ask(sql: str) -> Rows:
        try:
            found = connection.execute(sql)
            described = found.description or []
            names = [str(column[0]) for column in described]
            texts = frozenset(str(column[0]) for column in described if str(column[1]) == "JSON")
            return Rows(names, found.fetchall(), texts)
        except duckdb.CatalogException as fault:
            raise Missing(first_line(fault)) from None
        except duckdb.Error as fault:
            raise UsageError(first_line(fault)) from None

    try:
        connection.execute("set timezone = 'UTC'")
        schemas = connection.execute(
            "select schema_name from information_schema.schemata"
        ).fetchall()
        if (dataset,) in schemas:
            connection.execute(f"set schema = '{_quoted(dataset)}'")
        connection.execute("set enable_external_access = false")
        yield Copy(ask, lambda table: f'"{dataset}"."{table}"', "duckdb")
    finally:
        connection.close()


def _quoted(name: str) -> str:
    return name.replace("'", "''")


@contextmanager
def _elsewhere(pipeline: Any) -> Iterator[Copy]:
    from dlt.common.destination.exceptions import DestinationUndefinedEntity
    from dlt.destinations.exceptions import DatabaseException

    def ask(sql: str) -> Rows:
        try:
            with client.execute_query(sql) as cursor:
                return Rows(list(cursor.columns_schema), [tuple(row) for row in cursor.fetchall()])
        except DestinationUndefinedEntity as fault:
            raise Missing(first_line(fault)) from None
        except DatabaseException as fault:
            raise UsageError(first_line(fault)) from None

    try:
        client = pipeline.sql_client()
        client.open_connection()
    except Exception as fault:
        raise connection_problem(pipeline, fault) from None
    try:
        yield Copy(ask, client.make_qualified_table_name, client.capabilities.sqlglot_dialect or "")
    finally:
        client.close_connection()


def first_line(fault: BaseException) -> str:
    """The first line of what a database says."""
    return next(
        (line.strip() for line in str(fault).splitlines() if line.strip()), type(fault).__name__
    )


def status(
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DATASET,
    state_dir: str | None = None,
    wait: float = PATIENCE,
) -> Status:
    """What the copy holds and how fresh it is, and where its files are; empty where there is none
    yet.

    A file that was named has to be there.
    """
    place, root = place_named(database, destination, dataset), state_root(state_dir)
    places: Any = {
        "working_folder": str(root / place.key / PIPELINE),
        "feed_store": str(file_at(place, root, STORE)),
    }
    if (
        place.file is not None
        and database is None
        and destination in (None, "duckdb")
        and not place.file.exists()
    ):
        return replace(Status(), **places)
    with opened(database, destination, dataset, wait) as copy:
        return replace(status_of(copy), **places)


def status_of(copy: Copy) -> Status:
    """What an open copy holds and how fresh it is."""
    state = state_of(copy)
    resources = state.get("resources", {})
    followed = resources.get(CHANGES, {})
    cursors = [
        Cursor(
            name,
            datetime.fromtimestamp(found["t0"], timezone.utc),
            sum(hi - lo for walk in found["left"] for lo, hi in walk),
            datetime.fromtimestamp(followed[name]["cursor"], timezone.utc)
            if followed.get(name, {}).get("cursor")
            else None,
        )
        for name in RESOURCES
        if "t0" in (found := resources.get(name, {}))
    ]
    return Status(
        state.get("account"),
        state.get("livemode"),
        state.get("api_version"),
        _loaded_at(copy),
        held(copy),
        cursors,
    )


def held(copy: Copy) -> list[Held]:
    """Rows and newest `created` of every table that exists."""
    found = []
    for name in (*TABLES, CHANGES):
        newest = f"max({_when(name)})" if _when(name) else "null"
        try:
            rows, created = copy.ask(f"select count(*), {newest} from {copy.name(name)}").rows[0]
        except Missing:
            continue
        found.append(Held(name, rows, _moment(created)))
    return found


def state_of(copy: Copy) -> dict[str, Any]:
    """The source's state as it is stored with the data: cursors, account, mode, API version."""
    try:
        return state_in(copy.ask(states_query(copy.name)).rows)
    except Missing:
        return {}


def _loaded_at(copy: Copy) -> datetime | None:
    try:
        return _moment(
            copy.ask(
                f"select max(inserted_at) from {copy.name('_dlt_loads')} where status = 0"
            ).rows[0][0]
        )
    except Missing:
        return None


def _moment(value: datetime | str | None) -> datetime | None:
    """UTC; SQLite has times as text, without a zone."""
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    return found if found is None or found.tzinfo else found.replace(tzinfo=timezone.utc)


def preview(copy: Copy, table: str, rows: int = 5) -> Rows:
    """The newest rows of a table. Raises `UsageError` for unknown tables."""
    if table not in (*TABLES, CHANGES):
        raise UsageError(
            f"There is no table {table!r}. Choose from: {', '.join((*TABLES, CHANGES))}."
        )
    key = "change_id" if table == CHANGES else "id"
    try:
        return copy.ask(
            f"select * from {copy.name(table)} order by {_when(table) or key} desc, {key} limit {int(rows)}"
        )
    except Missing:
        raise SetupError(
            f"The table {table} is not loaded yet. Run `stripe-feed sync --resources {_owner(table)}`."
        ) from None


def _when(table: str) -> str:
    """The column that says how new a row is; nothing where there is none."""
    if table == CHANGES:
        return "occurred_at"
    return "created" if any(column.name == "created" for column in TABLES[table].columns) else ""


def _owner(table: str) -> str:
    if table == CHANGES:
        return next(iter(RESOURCES))
    return next(
        row.table
        for row in RESOURCES.values()
        if table in (row.table, *(child.table for child in row.children))
    )


def query(copy: Copy, sql: str) -> Rows:
    """The answer to one query that only reads. Raises `UsageError` with the database's words."""
    if copy.dialect == "duckdb":  # opened read-only, and cut off from files
        _require_one(sql)
    else:
        _require_select(sql, copy.dialect)
    try:
        return copy.ask(sql)
    except Missing as fault:
        raise UsageError(str(fault)) from None


def _require_one(sql: str) -> None:
    import duckdb

    try:
        count = len(duckdb.extract_statements(sql))
    except duckdb.Error as fault:
        raise UsageError(first_line(fault)) from None
    if count != 1:
        raise UsageError("`query` takes one statement: give one select.")


def _require_select(sql: str, dialect: str) -> None:
    import sqlglot
    from sqlglot import exp

    writes = (exp.DML, exp.DDL, exp.Into, exp.Command)
    try:
        parsed: Sequence[Any] = sqlglot.parse(sql, dialect=dialect or None)
    except sqlglot.ParseError as fault:
        raise UsageError(re.sub(r"\x1b\[\d*m", "", first_line(fault))) from None
    reads = len(parsed) == 1 and isinstance(parsed[0], exp.Query)
    if not reads or any(isinstance(node, writes) for node in parsed[0].walk()):
        raise UsageError("`query` only reads: give one select.")
