"""Read a copy without writing: rows per table, cursors, a preview of rows, SQL."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..api.iso_time import with_zone
from ..errors import SetupError, UsageError, did_you_mean
from ..resources import CHANGES, RESOURCES, TABLES
from ..resources.groups import tables_filled_by
from ..resources.model import Resource
from ..resources.push_tables import PUSH_TABLES
from .duckdb_file import check_name_clash
from .error_messages import connection_error, file_error, require_dataset, require_file
from .locks import DEFAULT_WAIT, retry_while_locked
from .pipeline import DEFAULT_PIPELINE, dlt_settings, open_pipeline, resolve_place, state_root
from .place import (
    DEFAULT_DATASET,
    FEED_STORE_SUFFIX,
    POSTGRES,
    companion_path,
    models_schema,
    normalize_dataset,
)
from .state import ACCOUNTS, MANY, decode_state, states_query

if TYPE_CHECKING:
    import pyarrow as pa

KNOWN_TABLES = (*TABLES, CHANGES, *PUSH_TABLES)
"""Every table that a copy can have."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The result of a query; `json` names the columns whose text is JSON."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    json: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TableStats:
    """One table of the copy: its number of rows, and the newest `created`."""

    table: str
    rows: int
    newest: datetime | None


@dataclass(frozen=True, slots=True)
class ResourceCursor:
    """How far a resource was read: its events up to `followed` (None: never), its list up to
    `until`, except `seconds_left` seconds of `created`.
    """

    resource: str
    until: datetime
    seconds_left: int
    followed: datetime | None = None


@dataclass(frozen=True, slots=True)
class CopyStatus:
    """What the copy holds and how fresh it is (empty before the first load), and the paths of dlt's
    working folder and of the feed's store, whether they exist or not.
    """

    account_id: str | None = None
    livemode: bool | None = None
    api_version: str | None = None
    loaded_at: datetime | None = None
    tables: list[TableStats] = field(default_factory=list)
    cursors: list[ResourceCursor] = field(default_factory=list)
    working_folder: str | None = None
    feed_store: str | None = None
    accounts: int | None = None  # how many accounts the dataset holds, keyed by `account_id`


class NoSuchTable(Exception):
    """The table or the dataset does not exist."""


class RunsQuery(Protocol):
    """Runs one query, and reads at most `limit` rows of its result."""

    def __call__(self, sql: str, limit: int | None = None) -> QueryResult:
        """Raises `NoSuchTable`, or `UsageError` with the database's message."""


@dataclass(frozen=True, slots=True)
class CopyReader:
    """An open copy. `arrow` runs a query and returns an Arrow table, with the errors of `query`;
    `cancel` ends a running query, from another thread.
    """

    query: RunsQuery
    arrow: Callable[[str], pa.Table]
    table_name: Callable[[str], str]  # the qualified name of a table
    dialect: str
    cancel: Callable[[], object] = lambda: None


@contextmanager
def open_reader(
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DEFAULT_DATASET,
    wait: float = DEFAULT_WAIT,
) -> Iterator[CopyReader]:
    """Open a copy for reading. Raises `SetupError` if there is none, or if it cannot be opened within
    `wait` seconds.
    """
    require_dataset(dataset)
    dataset = normalize_dataset(dataset)
    if destination in (None, "duckdb"):
        with _open_duckdb(_existing_file(database, dataset), dataset, wait) as copy:
            yield copy
    else:
        with (
            dlt_settings(),
            tempfile.TemporaryDirectory(
                prefix="stripe-feed-"
            ) as folder,  # dlt makes a working folder
            _open_destination(open_pipeline(database, destination, dataset, folder)) as copy,
        ):
            yield copy


def _existing_file(database: str | None, dataset: str) -> Path:
    require_file(f"{DEFAULT_PIPELINE}.duckdb" if database is None else database)
    file = Path(database or f"{DEFAULT_PIPELINE}.duckdb")
    check_name_clash(file, dataset)
    return file


@contextmanager
def _open_duckdb(file: Path, dataset: str, wait: float) -> Iterator[CopyReader]:
    import duckdb

    if not file.is_file():
        raise SetupError(
            f"There is no file {file.name} yet. Run `stripe-feed sync` first, or name another --database."
        )

    def connect() -> duckdb.DuckDBPyConnection:
        try:
            return duckdb.connect(str(file), read_only=True)
        except duckdb.Error as fault:
            raise file_error(file, str(fault)) from None

    connection = retry_while_locked(connect, wait)

    @contextmanager
    def executed(sql: str) -> Iterator[Any]:
        try:
            yield connection.execute(sql)
        except duckdb.CatalogException as fault:
            raise NoSuchTable(_with_suggestion(fault)) from None
        except duckdb.Error as fault:
            raise UsageError(_with_suggestion(fault)) from None

    def query(sql: str, limit: int | None = None) -> QueryResult:
        with executed(sql) as result:
            columns = result.description or []
            names = [str(column[0]) for column in columns]
            json_columns = frozenset(
                str(column[0]) for column in columns if str(column[1]) == "JSON"
            )
            return QueryResult(names, _fetch(result, limit), json_columns)

    def arrow(sql: str) -> pa.Table:
        with executed(sql) as result:
            return result.fetch_arrow_table()

    try:
        connection.execute("set timezone = 'UTC'")
        schemas = connection.execute(
            "select schema_name from information_schema.schemata"
        ).fetchall()
        named = [name for name in (dataset, models_schema(dataset)) if (name,) in schemas]
        if named:
            connection.execute(f"set search_path = '{_escape_quotes(','.join(named))}'")
        connection.execute("set enable_external_access = false")
        yield CopyReader(
            query, arrow, lambda table: f'"{dataset}"."{table}"', "duckdb", connection.interrupt
        )
    finally:
        connection.close()


def _fetch(cursor: Any, limit: int | None) -> list[tuple[Any, ...]]:
    rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit)
    return [tuple(row) for row in rows]


def _escape_quotes(name: str) -> str:
    return name.replace("'", "''")


@contextmanager
def _open_destination(pipeline: Any) -> Iterator[CopyReader]:
    from dlt.common.destination.exceptions import DestinationUndefinedEntity
    from dlt.destinations.exceptions import DatabaseException

    @contextmanager
    def executed(sql: str) -> Iterator[Any]:
        try:
            with client.execute_query(sql) as cursor:
                yield cursor
        except DestinationUndefinedEntity as fault:
            raise NoSuchTable(first_line(fault)) from None
        except DatabaseException as fault:
            raise UsageError(first_line(fault)) from None

    def query(sql: str, limit: int | None = None) -> QueryResult:
        with executed(sql) as cursor:
            return QueryResult(list(cursor.columns_schema), _fetch(cursor, limit))

    def arrow(sql: str) -> pa.Table:
        with executed(sql) as cursor:
            return cursor.arrow()

    try:
        client = pipeline.sql_client()
        client.open_connection()
        is_postgres = pipeline.destination.destination_type == POSTGRES
        if is_postgres:
            client.execute_sql(_search_path(client.dataset_name))
    except Exception as fault:
        raise connection_error(pipeline, fault) from None
    try:
        yield CopyReader(
            query,
            partial(_postgres_arrow, client) if is_postgres else arrow,
            client.make_qualified_table_name,
            client.capabilities.sqlglot_dialect or "",
            getattr(client.native_connection, "cancel", lambda: None),
        )
    finally:
        client.close_connection()


def _search_path(dataset: str) -> str:
    """The statement that lets queries in Postgres name tables and models without their schema."""
    return f'set search_path to "{dataset}", "{models_schema(dataset)}", public'


def _postgres_arrow(client: Any, sql: str) -> pa.Table:
    """Run a query in Postgres by ADBC, which knows the types of columns, also of empty ones."""
    import adbc_driver_manager
    import adbc_driver_postgresql.dbapi

    try:
        with (
            adbc_driver_postgresql.dbapi.connect(
                client.credentials.to_native_representation()
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(_search_path(client.dataset_name))
            cursor.execute(sql)
            return _plain_types(cursor.fetch_arrow_table())
    except adbc_driver_manager.Error as fault:
        error = NoSuchTable if fault.sqlstate == _UNDEFINED_TABLE else UsageError
        raise error(first_line(fault)) from None


_UNDEFINED_TABLE = "42P01"
_NUMERIC_SCALE = 12  # of a numeric without one, such as a sum; Stripe's amounts have at most 12


def _plain_types(table: pa.Table) -> pa.Table:
    """JSON becomes text, and numeric a decimal."""
    import pyarrow as pa

    def plain(field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
        if isinstance(field.type, pa.OpaqueType) and field.type.type_name == "numeric":
            modifier = int(field.metadata.get(b"POSTGRESQL:typmod", b"-1"))
            scale = (modifier - 4) & 0x7FF if modifier >= 4 else _NUMERIC_SCALE
            return _storage(column).cast(pa.decimal128(38, scale))
        return _storage(column) if isinstance(field.type, pa.BaseExtensionType) else column

    columns = [plain(field, table[n]) for n, field in enumerate(table.schema)]
    return pa.table(columns, names=table.column_names)


def _storage(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa

    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)


def _with_suggestion(fault: BaseException) -> str:
    """The first line of DuckDB's message, with the names that it suggests instead."""
    suggestion = re.search(r"^(Did you mean .*|Candidate bindings: .*)$", str(fault), re.MULTILINE)
    return f"{first_line(fault)} {suggestion[0]}" if suggestion else first_line(fault)


def first_line(fault: BaseException) -> str:
    """The first line of a database's message."""
    return next(
        (line.strip() for line in str(fault).splitlines() if line.strip()), type(fault).__name__
    )


def copy_status(
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DEFAULT_DATASET,
    state_dir: str | None = None,
    wait: float = DEFAULT_WAIT,
) -> CopyStatus:
    """What a copy holds, how fresh it is, and where its files are; empty if there is no copy yet.

    A `database` that is given must exist.
    """
    place, root = resolve_place(database, destination, dataset), state_root(state_dir)
    paths: Any = {
        "working_folder": str(root / place.key / DEFAULT_PIPELINE),
        "feed_store": str(companion_path(place, root, FEED_STORE_SUFFIX)),
    }
    if (
        place.file is not None
        and database is None
        and destination in (None, "duckdb")
        and not place.file.exists()
    ):
        return replace(CopyStatus(), **paths)
    with open_reader(database, destination, dataset, wait) as copy:
        return replace(read_status(copy), **paths)


def read_status(copy: CopyReader) -> CopyStatus:
    """What an open copy holds and how fresh it is."""
    state = read_state(copy)
    accounts = state.get(ACCOUNTS)
    resources = state.get("resources", {}) if accounts is None else oldest_states(accounts.values())
    events_state = resources.get(CHANGES, {})
    cursors = [
        ResourceCursor(
            name,
            datetime.fromtimestamp(resource_state["t0"], timezone.utc),
            _seconds_left(resource_state["left"]),
            datetime.fromtimestamp(events_state[name]["cursor"], timezone.utc)
            if events_state.get(name, {}).get("cursor")
            else None,
        )
        for name in RESOURCES
        if "t0" in (resource_state := resources.get(name, {}))
    ]
    return CopyStatus(
        state["account"].removesuffix(MANY) if "account" in state else None,
        state.get("livemode"),
        state.get("api_version"),
        loaded_at(copy),
        table_stats(copy, [name for name in RESOURCES if name in resources]),
        cursors,
        accounts=None if accounts is None else len(accounts),
    )


def oldest_states(accounts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """How far all accounts of a dataset were read: what the one of them that is least far has, by
    resource.
    """
    oldest: dict[str, Any] = {CHANGES: {}}
    for resources in (account.get("resources", {}) for account in accounts):
        for name, state in resources.items():
            if "t0" in state:
                held = oldest.setdefault(name, {"t0": state["t0"], "left": []})
                held["t0"] = min(held["t0"], state["t0"])
                held["left"] = max(held["left"], state["left"], key=_seconds_left)
        for name, cursors in resources.get(CHANGES, {}).items():
            held = oldest[CHANGES].setdefault(name, {"cursor": cursors["cursor"]})
            held["cursor"] = min(held["cursor"], cursors["cursor"])
    return oldest


def _seconds_left(walks: Iterable[Iterable[tuple[int, int]]]) -> int:
    return sum(hi - lo for walk in walks for lo, hi in walk)


def table_stats(copy: CopyReader, resources: Sequence[str]) -> list[TableStats]:
    """The number of rows and the newest `created` of every existing table of these resources, and of
    those of pushes."""
    stats, tables = [], tables_filled_by(resources)
    for name in (*(name for name in TABLES if name in tables), CHANGES, *PUSH_TABLES):
        newest = f"max({_recency_column(name)})" if _recency_column(name) else "null"
        try:
            rows, created = copy.query(
                f"select count(*), {newest} from {copy.table_name(name)}"
            ).rows[0]
        except NoSuchTable:
            continue
        stats.append(TableStats(name, rows, _to_utc(created)))
    return stats


def read_state(copy: CopyReader) -> dict[str, Any]:
    """Read the source's state as stored with the data: cursors, account, mode, API version."""
    try:
        return decode_state(copy.query(states_query(copy.table_name)).rows)
    except NoSuchTable:
        return {}


def loaded_at(copy: CopyReader) -> datetime | None:
    """When the newest load was complete, UTC; null before the first."""
    try:
        return _to_utc(
            copy.query(
                f"select max(inserted_at) from {copy.table_name('_dlt_loads')} where status = 0"
            ).rows[0][0]
        )
    except NoSuchTable:
        return None


def _to_utc(value: datetime | str | None) -> datetime | None:
    """A time in UTC; SQLite returns text without a zone."""
    return None if value is None else with_zone(value)


def unknown_table_error(name: str, known: Sequence[str] = KNOWN_TABLES) -> UsageError:
    """The error for a name that no table has, with the nearest that exist."""
    return UsageError(
        f"There is no table {name!r}. {did_you_mean(name, known)}`stripe-feed status` lists what is loaded."
    )


def not_loaded_error(table: str) -> SetupError:
    """The error for a table that the copy does not have yet."""
    command = "push run" if table in PUSH_TABLES else f"sync --resources {_resource_of(table)}"
    return SetupError(f"The table {table} is not loaded yet. Run `stripe-feed {command}`.")


def preview(copy: CopyReader, table: str, rows: int = 5) -> QueryResult:
    """The newest rows of a table. Raises `UsageError` for unknown tables."""
    if table not in KNOWN_TABLES:
        raise unknown_table_error(table)
    pushed = PUSH_TABLES.get(table)
    key = "change_id" if table == CHANGES else "id"
    if pushed is not None:
        key = ", ".join(pushed.key)
    try:
        return copy.query(
            f"select * from {copy.table_name(table)} order by {_recency_column(table) or key} desc, {key} limit {int(rows)}"
        )
    except NoSuchTable:
        raise not_loaded_error(table) from None


def _recency_column(table: str) -> str:
    """The column with the time of a row; empty if there is none."""
    if table == CHANGES:
        return "occurred_at"
    if table in PUSH_TABLES:
        return PUSH_TABLES[table].recency
    row = TABLES[table]
    if isinstance(row, Resource):
        return row.created_column
    return "created" if any(column.name == "created" for column in row.columns) else ""


def _resource_of(table: str) -> str:
    if table == CHANGES:
        return next(iter(RESOURCES))
    return next(
        row.table
        for row in RESOURCES.values()
        if table in (row.table, *(child.table for child in row.children))
    )


def run_query(copy: CopyReader, sql: str, limit: int | None = None) -> QueryResult:
    """Run one query that only reads, and return at most `limit` rows. Raises `UsageError` with the database's message."""
    require_one_read(copy, sql)
    try:
        return copy.query(sql, limit)
    except NoSuchTable as fault:
        raise UsageError(str(fault)) from None


def require_one_read(copy: CopyReader, sql: str) -> None:
    """Raise `UsageError` unless this is one statement that only reads."""
    if copy.dialect == "duckdb":  # opened read-only, and cut off from files
        _require_one_statement(sql)
    else:
        _require_select(sql, copy.dialect)


def _require_one_statement(sql: str) -> None:
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
    is_query = len(parsed) == 1 and isinstance(parsed[0], exp.Query)
    if not is_query or any(isinstance(node, writes) for node in parsed[0].walk()):
        raise UsageError("`query` only reads: give one select.")
