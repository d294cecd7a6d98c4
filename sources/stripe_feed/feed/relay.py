"""Destination to store: the changes of completed loads, each once, in the order of the loads; and
back when something must go.

The position of a change is given when its load is seen complete. A cursor over load ids would lose
the rows of loads that complete out of order, so what is left to relay is the set of completed loads
less the set of relayed ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, TypeVar

from ..destination.duckdb_file import duckdb_file
from ..destination.error_messages import connection_problem, file_problem
from ..destination.place import STORE, beside
from ..destination.state import select_rows, table_name
from ..errors import Locked, WrongAccount
from ..resources import CHANGES, RESOURCES
from .change import SOURCE, STORED, Entry, entry
from .storage.store import FeedStore

TRANSACTION_ROWS = 500  # consumers acknowledge in between
READ_ROWS = 1_000  # of a select: bodies of some kB each are in memory
IDS = 300  # load ids in one select
DUCKDB_MEMORY = "50MB"  # enough for bodies of some ten kB

T = TypeVar("T")
SEQ, LOAD = SOURCE.index("seq"), SOURCE.index("_dlt_load_id")
ACCOUNT, LIVEMODE = STORED.index("account_id"), STORED.index("livemode")


@dataclass(frozen=True, slots=True)
class Span:
    """Changes to be read at once: whole loads, or of one big load those with `low < seq <= high`
    (none: no bound).
    """

    loads: list[str]
    low: int | None = None
    high: int | None = None
    is_last: bool = True  # the loads are done with it


def store_path(pipeline: Any) -> Path:
    """Where the feed store of a pipeline is: beside its database file, else in the state folder,
    named after the database.
    """
    found = beside(pipeline, STORE)
    found.parent.mkdir(parents=True, exist_ok=True)
    return found


def relay_pipeline(pipeline: Any, store: FeedStore) -> int:
    """Relay what a pipeline's destination holds; return how many changes were new. The destination
    is closed again.

    A DuckDB file that does not exist has none. Raises `SetupError` where the destination cannot be
    opened.
    """
    file = duckdb_file(pipeline)
    if file is not None and not file.exists():  # dlt would make it
        return 0
    return with_client(pipeline, lambda client: relay(store, client))


def with_client(pipeline: Any, work: Callable[[Any], T]) -> T:
    """Do work that can be repeated on a SQL client of the destination, which is closed again.

    DuckDB gets little memory; where that is too little, the work is done once more with as much as
    it likes. Raises `Locked` or another `SetupError` where the destination cannot be opened.
    """
    try:
        with _opened(pipeline, DUCKDB_MEMORY) as client:
            return work(client)
    except Exception as fault:
        if not any(type(one).__name__ == "OutOfMemoryException" for one in _chain(fault)):
            raise
    with _opened(pipeline, None) as client:
        return work(client)


@contextmanager
def _opened(pipeline: Any, memory: str | None) -> Iterator[Any]:
    """A SQL client of the destination. Raises `Locked` or another `SetupError`; the driver's words
    can hold a password.
    """
    file = duckdb_file(pipeline)
    try:
        client = pipeline.sql_client()
        client.open_connection()
    except Exception as fault:
        words = " ".join(str(one) for one in _chain(fault))
        if file is None:
            raise connection_problem(pipeline, fault) from None
        if "different configuration" in words:
            raise Locked(
                f"{file.name} is open in this very process, with other settings. Close it there."
            ) from None
        raise file_problem(file, words) from None
    try:
        with _frugal(client, memory) if file is not None and memory else nullcontext():
            yield client
    finally:
        client.close_connection()


@contextmanager
def _frugal(client: Any, memory: str) -> Iterator[None]:
    """Little memory for DuckDB while we read; it may be shared with a connection of the user's own
    in this process.
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


def _chain(fault: BaseException | None) -> Iterator[BaseException]:
    while fault is not None:
        yield fault
        fault = fault.__cause__ or fault.__context__


def relay(store: FeedStore, client: Any) -> int:
    """Copy the changes of completed loads that the store does not have yet; return how many were
    new.

    In the order of the loads, then `seq`. May be killed anywhere and run by several processes: a
    load is noted together with the last of its changes, and a change that is there already is left
    out. Without a table of changes there is nothing to do.
    """
    new = copy(store, client, "")
    if new or not store.ask("select 1 from totals limit 1"):
        store.note_totals(dict(_totals(client)))
    return new


def _totals(client: Any) -> Iterator[tuple[str, int]]:
    for table in RESOURCES:
        for (count,) in select_rows(client, f"select count(*) from {table_name(client, table)}"):
            yield table, int(count)


def copy(store: FeedStore, client: Any, into: str) -> int:
    """`relay` into the log, or into the one that a rebuild makes."""
    pending, new = sorted(set(_completed(client)) - store.relayed(into)), 0
    for span in _spans(client, pending):
        rows = [entry(row) for row in _read(client, span)]
        _require_owner(store, rows)
        new += _write(store, rows, span.loads if span.is_last else [], into)
    return new


def _require_owner(store: FeedStore, rows: Sequence[Entry]) -> None:
    """Raise `WrongAccount` where a store would get another account's changes: the name of a server
    can lead to another one.
    """
    for known in store.ask("select account_id, livemode from log order by position desc limit 1"):
        for found in {(row[ACCOUNT], row[LIVEMODE]) for row in rows} - {known}:
            if None not in (*known, *found):
                raise WrongAccount(
                    f"{store.path.name} holds the changes of account {known[0]}{_mode(known[1])}, and the destination those of "
                    f"{found[0]}{_mode(found[1])}. Move the file away, or choose another --state-dir."
                )


def _mode(live: int) -> str:
    return " in live mode" if live else " in test mode"


def _write(store: FeedStore, rows: list[Entry], done: list[str], into: str) -> int:
    new, slices = (
        0,
        [rows[n : n + TRANSACTION_ROWS] for n in range(0, len(rows), TRANSACTION_ROWS)] or [[]],
    )
    for n, some in enumerate(slices, 1):
        new += store.append(some, done if n == len(slices) else (), into)
    return new


def _completed(client: Any) -> list[str]:
    query = f"select load_id from {table_name(client, '_dlt_loads')} where status = 0"
    return [str(row[0]) for row in select_rows(client, query)]


def _spans(client: Any, pending: list[str]) -> Iterator[Span]:
    """Cut loads into what is read at once: small ones together, big ones by `seq`."""
    some: list[str] = []
    rows = 0
    for load_id, count in _counts(client, pending):
        if (some and rows + count > READ_ROWS) or len(some) == IDS:
            yield Span(some)
            some, rows = [], 0
        if count > READ_ROWS:
            yield from _cut(client, load_id)
        else:
            some, rows = [*some, load_id], rows + count
    if some:
        yield Span(some)


def _counts(client: Any, pending: list[str]) -> Iterator[tuple[str, int]]:
    changes, left = table_name(client, CHANGES), iter(pending)
    while ids := list(islice(left, IDS)):
        where = f"where _dlt_load_id in ({_marks(ids)}) group by _dlt_load_id"
        rows = select_rows(client, f"select _dlt_load_id, count(*) from {changes} {where}", *ids)
        found = {str(row[0]): int(row[1]) for row in rows}
        yield from ((load_id, found.get(load_id, 0)) for load_id in ids)


def _cut(client: Any, load_id: str) -> Iterator[Span]:
    query = f"select seq from {table_name(client, CHANGES)} where _dlt_load_id = %s order by seq"
    with client.execute_query(query, load_id) as cursor:
        numbers = [
            row[0] for n, row in enumerate(_fetched(cursor)) if n % READ_ROWS == 0 or row[0] is None
        ]
    cuts = (
        [] if None in numbers else list(dict.fromkeys(numbers[1:]))
    )  # without an order, it is read whole
    bounds: list[int | None] = [None, *cuts, None]
    for low, high in pairwise(bounds):
        yield Span([load_id], low, high, high is None)


def _read(client: Any, span: Span) -> list[Sequence[Any]]:
    """The rows of a span, in order. A row that a later load took over meanwhile comes with that
    one.
    """
    where, values = [f"_dlt_load_id in ({_marks(span.loads)})"], list[Any](span.loads)
    for bound, condition in ((span.low, "seq > %s"), (span.high, "seq <= %s")):
        if bound is not None:
            where, values = [*where, condition], [*values, bound]
    query = (
        f"select {', '.join(SOURCE)} from {table_name(client, CHANGES)} where {' and '.join(where)}"
    )
    return sorted(
        select_rows(client, query, *values),
        key=lambda row: (str(row[LOAD]), row[SEQ] or 0, str(row[0])),
    )


def _fetched(cursor: Any) -> Iterator[Sequence[Any]]:
    while rows := cursor.fetchmany(10_000):
        yield from rows


def _marks(values: Sequence[Any]) -> str:
    return ", ".join(["%s"] * len(values))
