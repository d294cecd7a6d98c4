"""Copy the changes of completed loads from the destination to the store, each once, in the order of
the loads.

A change gets its position when its load is seen complete. A cursor over load ids would lose the
rows of loads that complete out of order, so the loads to relay are the completed loads minus the
relayed ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, TypeVar

from ..destination.duckdb_file import duckdb_path
from ..destination.error_messages import connection_error, file_error
from ..destination.place import FEED_STORE_SUFFIX, companion_file
from ..destination.state import ACCOUNTS, read_source_state, select_rows, table_name
from ..errors import Locked, WrongAccount
from ..resources import CHANGES, RESOURCES
from .change import ACCOUNT_ID, LOG_COLUMNS, SOURCE_COLUMNS, Entry, entry_from_row
from .erase import erase_again
from .storage.store import FeedStore

log = logging.getLogger("stripe_feed")

TRANSACTION_ROWS = 500  # lets consumers acknowledge in between
READ_ROWS = 1_000  # per select: bodies of some kB each are in memory
MAX_LOADS = 300  # per select
_DUCKDB_MEMORY = "50MB"  # enough for bodies of some ten kB
_OTHER_SETTINGS = "different configuration"  # DuckDB, of a file that this process has open

T = TypeVar("T")
SEQ, LOAD = SOURCE_COLUMNS.index("seq"), SOURCE_COLUMNS.index("_dlt_load_id")
LIVEMODE = LOG_COLUMNS.index("livemode")


@dataclass(frozen=True, slots=True)
class Span:
    """Changes to read at once: whole loads, or the part of one big load with `low < seq <= high`
    (None: no bound).
    """

    loads: list[str]
    low: int | None = None
    high: int | None = None
    is_last: bool = True  # completes its loads
    is_empty: bool = False  # they brought no change


def store_path(pipeline: Any) -> Path:
    """Return the path of a pipeline's feed store: next to its database file, else in the state
    folder, named after the database.
    """
    path = companion_file(pipeline, FEED_STORE_SUFFIX)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def relay_pipeline(pipeline: Any, store: FeedStore) -> int:
    """Relay the changes of a pipeline's destination; return how many were new. Closes the
    destination again.

    Return 0 if the DuckDB file does not exist. Raises `SetupError` if the destination cannot be
    opened.
    """
    file = duckdb_path(pipeline)
    if file is not None and not file.exists():  # dlt would make it
        store.is_new = False
        return 0
    erases = store.query("select 1 from forgotten union all select 1 from erased limit 1")
    new = with_client(pipeline, lambda client: relay(store, client), writes=bool(erases))
    if new and store.is_new and file is not None:  # elsewhere a worker may lose its disk each time
        log.warning(
            "There was no feed store %s: a new one holds the changes of the copy, and no position, trigger or message from before. If it was moved or deleted, put it back.",
            store.path.name,
        )
    store.is_new = False  # what comes later is new to the copy, too
    return new


def with_client(pipeline: Any, work: Callable[[Any], T], writes: bool = False) -> T:
    """Run repeatable work with a SQL client of the destination, and close the client.

    A DuckDB file is opened read-only unless the work `writes`: others can read it meanwhile. It
    gets little memory; if that is too little, the work runs once more without a limit. Raises
    `Locked` or another `SetupError` if the destination cannot be opened.
    """
    try:
        with _sql_client(pipeline, writes, _DUCKDB_MEMORY) as client:
            return work(client)
    except Exception as fault:
        if not any(type(cause).__name__ == "OutOfMemoryException" for cause in _causes(fault)):
            raise
    with _sql_client(pipeline, writes, None) as client:
        return work(client)


@contextmanager
def _sql_client(pipeline: Any, writes: bool, memory: str | None) -> Iterator[Any]:
    """Open a SQL client of the destination. Raises `Locked` or another `SetupError`; the driver's
    text is not shown, for it can hold a password.
    """
    file = duckdb_path(pipeline)
    try:
        client = pipeline.sql_client()
        if file is None or writes:
            client.open_connection()
        else:
            _open_read_only(client)
    except Exception as fault:
        text = _text_of(fault)
        if file is None:
            raise connection_error(pipeline, fault) from None
        if _OTHER_SETTINGS in text:
            raise Locked(
                f"{file.name} is already open in this process with other settings. Close that connection."
            ) from None
        raise file_error(file, text) from None
    try:
        with _limit_memory(client, memory) if file is not None and memory else nullcontext():
            yield client
    finally:
        client.close_connection()


def _open_read_only(client: Any) -> None:
    """Open a client of DuckDB for reading; or as this process has the file open already, since all
    its connections to a file are of one kind.
    """
    was_read_only = client.credentials.read_only
    client.credentials.read_only = True
    try:
        client.open_connection()
    except Exception as fault:
        client.credentials.read_only = was_read_only
        if _OTHER_SETTINGS not in _text_of(fault):
            raise
        client.open_connection()
    finally:
        client.credentials.read_only = was_read_only


@contextmanager
def _limit_memory(client: Any, memory: str) -> Iterator[None]:
    """Limit DuckDB's memory while we read, and restore the limit: the user's own connection in this
    process may share it.
    """
    ((limit, threads),) = client.execute_sql(
        "select current_setting('memory_limit'), current_setting('threads')"
    )
    client.execute_sql(f"set memory_limit = '{memory}'")
    client.execute_sql("set threads = 1")
    try:
        yield
    finally:
        client.execute_sql(f"set memory_limit = '{limit}'")
        client.execute_sql(f"set threads = {threads}")


def _text_of(fault: BaseException) -> str:
    return " ".join(str(cause) for cause in _causes(fault))


def _causes(fault: BaseException | None) -> Iterator[BaseException]:
    while fault is not None:
        yield fault
        fault = fault.__cause__ or fault.__context__


def relay(store: FeedStore, client: Any) -> int:
    """Copy the changes of completed loads that the store lacks; return how many were new.

    Orders them by load, then `seq`. May be killed at any point and run by several processes: a load
    is recorded together with its last change, and existing changes are skipped. Does nothing
    without a table of changes. What was forgotten is erased again first.
    """
    if set(_completed_loads(client)) - store.relayed():
        erase_again(store, client)
    new = copy_changes(store, client, "")
    if new or not store.query("select 1 from totals limit 1"):
        store.note_totals(dict(_count_objects(client)))
    return new


def _count_objects(client: Any) -> Iterator[tuple[str, int]]:
    state = read_source_state(client)
    parts = [state, *state.get(ACCOUNTS, {}).values()]
    loaded = {name for part in parts for name in part.get("resources", {})}
    for table in (name for name in RESOURCES if name in loaded):
        for (count,) in select_rows(client, f"select count(*) from {table_name(client, table)}"):
            yield table, int(count)


def copy_changes(store: FeedStore, client: Any, into: str) -> int:
    """Copy changes as `relay` does, into the log or into the one that a rebuild fills."""
    pending, new = sorted(set(_completed_loads(client)) - store.relayed(into)), 0
    is_of_many = bool(pending) and ACCOUNTS in read_source_state(client)
    if is_of_many:
        store.note_many_accounts()
    for span in _spans(client, pending):
        rows = [entry_from_row(row) for row in _read_span(client, span)]
        if not is_of_many:
            _check_account(store, rows)
        new += _write(store, rows, span.loads if span.is_last else [], into)
    return new


def _check_account(store: FeedStore, rows: Sequence[Entry]) -> None:
    """Raise `WrongAccount` if the changes are another account's than the store's: a server name can
    lead to another server.
    """
    for expected in store.query(
        "select account_id, livemode from log order by position desc limit 1"
    ):
        for actual in {(row[ACCOUNT_ID], row[LIVEMODE]) for row in rows} - {expected}:
            if None not in (*expected, *actual):
                raise WrongAccount(
                    f"{store.path.name} holds the changes of account {expected[0]}{_mode(expected[1])}, but the destination holds those of "
                    f"{actual[0]}{_mode(actual[1])}. Move the file away, or choose another --state-dir."
                )


def _mode(live: int) -> str:
    return " in live mode" if live else " in test mode"


def _write(store: FeedStore, rows: list[Entry], done: list[str], into: str) -> int:
    new, slices = (
        0,
        [rows[n : n + TRANSACTION_ROWS] for n in range(0, len(rows), TRANSACTION_ROWS)] or [[]],
    )
    for n, batch in enumerate(slices, 1):
        new += store.append(batch, done if n == len(slices) else (), into)
    return new


def _completed_loads(client: Any) -> list[str]:
    query = f"select load_id from {table_name(client, '_dlt_loads')} where status = 0"
    return [str(row[0]) for row in select_rows(client, query)]


def _spans(client: Any, pending: list[str]) -> Iterator[Span]:
    """Split loads into spans: join small loads, split big ones by `seq`."""
    loads: list[str] = []
    rows = 0
    for load_id, count in _count_changes(client, pending):
        if (loads and rows + count > READ_ROWS) or len(loads) == MAX_LOADS:
            yield Span(loads, is_empty=not rows)
            loads, rows = [], 0
        if count > READ_ROWS:
            yield from _split_load(client, load_id)
        else:
            loads, rows = [*loads, load_id], rows + count
    if loads:
        yield Span(loads, is_empty=not rows)


def _count_changes(client: Any, pending: list[str]) -> Iterator[tuple[str, int]]:
    changes, remaining = table_name(client, CHANGES), iter(pending)
    while ids := list(islice(remaining, MAX_LOADS)):
        where = f"where _dlt_load_id in ({_placeholders(ids)}) group by _dlt_load_id"
        rows = select_rows(client, f"select _dlt_load_id, count(*) from {changes} {where}", *ids)
        counts = {str(row[0]): int(row[1]) for row in rows}
        yield from ((load_id, counts.get(load_id, 0)) for load_id in ids)


def _split_load(client: Any, load_id: str) -> Iterator[Span]:
    query = f"select seq from {table_name(client, CHANGES)} where _dlt_load_id = %s order by seq"
    with client.execute_query(query, load_id) as cursor:
        boundaries = [
            row[0]
            for n, row in enumerate(_fetch_rows(cursor))
            if n % READ_ROWS == 0 or row[0] is None
        ]
    cuts = (
        [] if None in boundaries else list(dict.fromkeys(boundaries[1:]))
    )  # without an order, it is read whole
    bounds: list[int | None] = [None, *cuts, None]
    for low, high in pairwise(bounds):
        yield Span([load_id], low, high, high is None)


def _read_span(client: Any, span: Span) -> list[Sequence[Any]]:
    """Return the rows of a span, in order. A row that a later load took over meanwhile comes with
    that load.
    """
    if span.is_empty:
        return []
    where, values = [f"_dlt_load_id in ({_placeholders(span.loads)})"], list[Any](span.loads)
    for bound, condition in ((span.low, "seq > %s"), (span.high, "seq <= %s")):
        if bound is not None:
            where, values = [*where, condition], [*values, bound]
    query = f"select {', '.join(SOURCE_COLUMNS)} from {table_name(client, CHANGES)} where {' and '.join(where)}"
    with client.execute_query(query, *values) as cursor:
        return sorted(
            cursor.fetchall(), key=lambda row: (str(row[LOAD]), row[SEQ] or 0, str(row[0]))
        )


def _fetch_rows(cursor: Any) -> Iterator[Sequence[Any]]:
    while rows := cursor.fetchmany(10_000):
        yield from rows


def _placeholders(values: Sequence[Any]) -> str:
    return ", ".join(["%s"] * len(values))
