"""Load what pushes did into the destination, from their log: each run once.

The destination says which runs it has, so nothing is doubled after a kill, and an older backup of it
gets again what the log still holds. All rows of a load are one transaction where the destination has
transactions, and the runs come last.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from dlt.destinations.job_client_impl import SqlJobClientBase

from ....api.iso_time import with_zone
from ....destination.comments import comment_columns
from ....destination.duckdb_file import duckdb_path
from ....destination.lease import hold_lease
from ....destination.load import translate_errors
from ....destination.locks import SHORT_WAIT, lock_file, retry_while_locked
from ....destination.pipeline import (
    check_destination,
    dlt_settings,
    open_pipeline,
    state_root,
)
from ....destination.place import DEFAULT_DATASET, LOCK_SUFFIX, companion_path, place_of
from ....destination.preflight import require_no_foreign_tables
from ....destination.state import (
    read_source_state,
    select_rows,
    stored_owner,
    table_name,
)
from ....errors import Locked, StripeFeedError, WrongAccount
from ....resources.groups import OWNED_TABLES
from ....resources.model import ColumnKind
from ....resources.push_tables import PUSH_TABLES, PushTable
from ..log import PushLog, log_lock
from .records import PushRecord, operation_records, rejected_records, run_id, run_records

log = logging.getLogger("stripe_feed")

_LATER = "What pushes did could not be added to the destination; the next run does it: %s"
HOLDER = "stripe-feed push"
_ROWS = 100  # per statement: some databases take no more than 2,100 values
_ALL = 1_000_000  # runs
_TYPES: dict[ColumnKind, str] = {
    "text": "text", "bigint": "bigint", "bool": "bool", "timestamp": "timestamp", "double": "double",
}  # fmt: skip


def record_runs(
    push_log: Path,
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DEFAULT_DATASET,
    state_dir: str | None = None,
    is_locked: bool = False,
    first: Callable[[PushLog], object] = lambda log: None,
) -> int:
    """Load the runs of a push log that the destination lacks; return how many.

    Where that is not possible now, say so in one line: the next run, or `sync`, does it. `is_locked`:
    the caller holds the locks of the copy. `first` is called with the log, whatever the destination
    does. Does nothing without the file of the log.
    """
    if not push_log.exists():
        return 0
    try:
        with _lock_log(push_log), PushLog(push_log, time.time) as opened, dlt_settings():
            first(opened)
            if opened.owner is None:
                return 0  # no run came as far as Stripe
            with tempfile.TemporaryDirectory(prefix="stripe-feed-") as folder:
                pipeline = open_pipeline(database, destination, dataset, folder)
                file = duckdb_path(pipeline)
                if file is not None and not file.exists():
                    return 0
                with nullcontext() if is_locked else _lock_copy(pipeline, state_root(state_dir)):
                    return retry_while_locked(partial(_load, pipeline, opened), SHORT_WAIT)
    except _Pushing:
        return 0  # that run does it when it ends
    except WrongAccount as fault:
        if not is_locked:  # else the log is that of another copy in this folder
            log.warning(_LATER, fault)
        return 0
    except StripeFeedError as fault:
        log.warning(_LATER, fault)
        return 0


class _Pushing(Exception):
    """Another push uses the log."""


@contextmanager
def _lock_log(push_log: Path) -> Iterator[None]:
    """Hold the lock of a push log: none of its runs goes on meanwhile."""
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_file(log_lock(push_log), HOLDER, advice=PushLog.advice))
        except Locked:
            raise _Pushing from None
        yield


@contextmanager
def _lock_copy(pipeline: Any, root: Path) -> Iterator[None]:
    """Hold the locks of a copy, here and in its database."""
    path = companion_path(place_of(pipeline), root, LOCK_SUFFIX)
    with lock_file(path, HOLDER, SHORT_WAIT), hold_lease(pipeline, HOLDER, SHORT_WAIT):
        yield


def _load(pipeline: Any, opened: PushLog) -> int:
    check_destination(pipeline)
    with translate_errors(pipeline):
        with pipeline.destination_client() as client:
            if not isinstance(client, SqlJobClientBase):
                return 0  # a lake: the push log has all
            require_no_foreign_tables(client, PUSH_TABLES, {"run_id", "push", "account_id"})
        _check_owner(pipeline, opened)
        with pipeline.destination_client() as client:
            runs = opened.runs(last=_ALL)[::-1]
            ids = _missing(client.sql_client, opened, runs)
            if not ids:
                return 0
            missing = [run for run in runs if run_id(opened.log_id, run["run"]) in ids]
            _create_tables(pipeline, client)
            records = {
                "push_operations": operation_records(opened, [run["run"] for run in missing]),
                "push_rejected": rejected_records(opened, missing),
                "push_runs": (one for one in run_records(opened, runs) if one["run_id"] in ids),
            }
            account_id, livemode = opened.owner or ("", False)
            owner = {"account_id": account_id, "livemode": livemode}
            with _transaction(client):
                for name, table in PUSH_TABLES.items():
                    rows = (one | owner | {"run_id": ids[one["run_id"]]} for one in records[name])
                    _replace(client.sql_client, table, rows)
    return len(ids)


def _check_owner(pipeline: Any, opened: PushLog) -> None:
    """Raise `WrongAccount` if the dataset holds another account than the log's."""
    client = pipeline.sql_client()
    with client:
        state = read_source_state(client)
    owner = stored_owner(state, pipeline.sql_client(), OWNED_TABLES)
    if owner not in (None, opened.owner):
        raise WrongAccount(
            f"{opened.path.name} is the push log of another account or mode than the dataset holds. "
            "Use the copy of its account."
        )


def _missing(client: Any, opened: PushLog, runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The ids of the runs that the destination lacks, and what it is to know them by: a log that was
    restored from a backup counts runs again that are there.
    """
    query = (
        f"select run_id, started_at from {table_name(client, 'push_runs')} "
        "where run_id like %s and run >= %s"
    )
    oldest = min((run["run"] for run in runs), default=0)
    of_log = run_id(opened.log_id, 0)[:-1] + "%"
    held = {id: _seconds(began) for id, began in select_rows(client, query, of_log, oldest)}
    missing: dict[str, str] = {}
    for run in runs:
        id, began = run_id(opened.log_id, run["run"]), run["started_at"]
        is_another = id in held and abs((held[id] or began) - began) > 1
        known_by = f"{id}-{int(began)}" if is_another else id
        if known_by not in held:
            missing[id] = known_by
    return missing


def _seconds(moment: Any) -> float | None:
    """A time of the destination in Unix seconds; some know no zones, or keep text."""
    return with_zone(moment).timestamp() if isinstance(moment, str | datetime) else None


def _create_tables(pipeline: Any, client: Any) -> None:
    """Create what is missing of the tables and their columns."""
    for table in PUSH_TABLES.values():
        columns = {
            column.name: {
                "name": column.name,
                "data_type": _TYPES[column.kind],
                "description": column.description,
                "nullable": column.name not in table.key,
            }
            for column in table.columns
        }
        client.schema.update_table(
            {"name": table.name, "columns": columns, "write_disposition": "append"}
        )
    client.initialize_storage()
    if client._execute_schema_update_sql(list(PUSH_TABLES), store_schema=False):
        comment_columns(
            pipeline.sql_client(), pipeline.destination.destination_type, client.schema.tables
        )


def _transaction(client: Any) -> Any:
    if client.capabilities.supports_transactions is False:  # None: they are not mentioned
        return nullcontext()
    return client.sql_client.begin_transaction()


def _replace(client: Any, table: PushTable, records: Iterable[PushRecord]) -> None:
    """Put rows into a table, in the place of those with the same key."""
    names = [column.name for column in table.columns]
    name = table_name(client, table.name)
    columns = ", ".join(client.escape_column_name(one) for one in names)
    first, *others = table.key  # the others are unique within one load
    marks = f"({', '.join(['%s'] * len(names))})"
    deleted: set[Any] = set()
    while batch := list(islice(records, _ROWS)):
        keys = [key for key in dict.fromkeys(row[first] for row in batch) if key not in deleted]
        if keys:
            among = f"{client.escape_column_name(first)} in ({', '.join(['%s'] * len(keys))})"
            client.execute_sql(f"delete from {name} where {among}", *keys)
        deleted.update(keys if others else ())
        values = [row.get(one) for row in batch for one in names]
        client.execute_sql(
            f"insert into {name} ({columns}) values {', '.join([marks] * len(batch))}", *values
        )
