"""Feeds for tests: changes to load, a destination without dlt, and a process that forks jobs and
kills them (SIGKILL).

As a program it reads one JSON job per line: {"kind": "relay" | "rebuild" | "consume", "point": name
or null, "at": which time the point is reached, "folder": where `plain.db` is}. The answer is the
exit status, -9 when it was killed.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from dlt.common.destination.exceptions import DestinationUndefinedEntity

from stripe_feed.destination.pipeline import open_pipeline
from stripe_feed.feed import consumers, relay
from stripe_feed.feed.change import SOURCE_COLUMNS
from stripe_feed.feed.feed import Feed
from stripe_feed.feed.storage import maintenance, store
from stripe_feed.feed.storage.store import FeedStore
from tests.forks import answer_jobs

Row = dict[str, Any]

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
JSON = ("after", "previous", "changed")
KINDS = {
    **dict.fromkeys(("occurred_at", "observed_at"), "timestamp"),
    **dict.fromkeys(("late", "livemode"), "bool"),
    "seq": "bigint",
}


def a_change(n: int, object_id: str = "sub_1", op: str = "u", **given: Any) -> Row:
    """A change that happened n seconds after `BEGIN`; of a subscription's status, unless something
    else is given.
    """
    seconds = timedelta(seconds=n)
    image = {"id": object_id, "status": f"s{n}", "metadata": {}}
    found = {
        "change_id": f"evt_{n}",
        "resource": "subscriptions",
        "object_id": object_id,
        "customer_id": "cus_1",
        "op": op,
        "origin": "event",
        "event_id": f"evt_{n}",
        "event_type": "customer.subscription.updated",
        "api_version": "2026-06-24",
        "request_id": None,
        "request_idempotency_key": None,
        "context": None,
        "before_quality": "exact",
        "account_id": "acct_1",
        "occurred_at": BEGIN + seconds,
        "observed_at": BEGIN + seconds + timedelta(minutes=1),
        "late": False,
        "livemode": False,
        "seq": n,
        "changed": ["status"] if op == "u" else [],
        "after": image if op != "d" else None,
        "previous": {"u": {"status": f"s{n - 1}"}, "d": image}.get(op),
    }
    return found | given


def as_text(row: Row) -> Row:
    """A row with JSON as text, as most destinations give it."""
    return row | {name: None if row[name] is None else json.dumps(row[name]) for name in JSON}


def load(pipeline: Any, rows: Sequence[Row], json_type: str = "json") -> str:
    """Load changes with dlt, as the source does; return the load's id."""
    return str(
        pipeline.run(resource_of(rows, json_type), loader_file_format="parquet").loads_ids[0]
    )


def resource_of(rows: Sequence[Row], json_type: str = "json") -> Any:
    """The `changes` resource."""
    import dlt

    columns: Any = {
        name: {
            "data_type": json_type if name in JSON else KINDS.get(name, "text"),
            "nullable": name not in ("change_id", "_dlt_load_id"),
        }
        for name in SOURCE_COLUMNS
    }

    @dlt.resource(
        name="changes",
        primary_key="change_id",
        columns=columns,
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
    )
    def changes() -> Iterator[list[Row]]:
        load_id = dlt.current.load_package_state()["load_id"]
        yield [as_text(row) | {"_dlt_load_id": load_id} for row in rows]

    return changes()


def a_copy(folder: Path) -> Any:
    """The pipeline of `copy.duckdb` in a folder."""
    return open_pipeline(str(folder / "copy.duckdb"), state_dir=str(folder / "state"))


class Plain:
    """A destination in SQLite, with what the relay uses of dlt's SQL client; loads begin, complete
    and repeat as one likes.
    """

    def __init__(self, file: str = ":memory:") -> None:
        self.base = sqlite3.connect(file, isolation_level=None)
        self.base.execute("pragma synchronous = off")
        self.base.execute("create table if not exists _dlt_loads (load_id text, status integer)")
        self.base.execute(f"create table if not exists changes ({', '.join(SOURCE_COLUMNS)})")

    def close(self) -> None:
        self.base.close()

    def put(self, load_id: str, *rows: Row) -> None:
        """Merge rows under a load."""
        for row in rows:
            self.base.execute("delete from changes where change_id = ?", (row["change_id"],))
            self.add(load_id, row)

    def add(self, load_id: str, *rows: Row) -> None:
        """Append rows under a load."""
        for row in rows:
            values = as_text(row) | {"_dlt_load_id": load_id}
            texts = [
                one.isoformat() if isinstance(one := values[name], datetime) else one
                for name in SOURCE_COLUMNS
            ]
            self.base.execute(
                f"insert into changes values ({store.placeholders(SOURCE_COLUMNS)})", texts
            )

    def complete(self, *load_ids: str) -> None:
        self.base.executemany(
            "insert into _dlt_loads values (?, 0)", [(load_id,) for load_id in load_ids]
        )

    def make_qualified_table_name(self, name: str) -> str:
        return name

    @contextmanager
    def execute_query(self, sql: str, *values: Any) -> Iterator[sqlite3.Cursor]:
        try:
            yield self.base.execute(sql.replace("%s", "?"), values)
        except sqlite3.OperationalError as fault:
            raise (
                DestinationUndefinedEntity(fault) if "no such table" in str(fault) else fault
            ) from None

    def execute_sql(self, sql: str, *values: Any) -> list[Any]:
        return self.base.execute(sql.replace("%s", "?"), values).fetchall()


def log_of(feed: FeedStore) -> list[tuple[Any, ...]]:
    """The whole log, byte by byte."""
    return [tuple(row) for row in feed.query("select * from log order by position")]


def ids_of(feed: FeedStore) -> list[str]:
    """The change ids, in the order of the feed."""
    return [change_id for (change_id,) in feed.query("select change_id from log order by position")]


POINTS: dict[str, tuple[Any, str, str]] = {
    "rows were read": (relay, "_read_span", "after"),
    "before rows are stored": (FeedStore, "append", "before"),
    "stored, not committed": (store, "_insert", "after"),
    "rows are stored": (FeedStore, "append", "after"),
    "the new log is full": (maintenance, "copy_changes", "after"),
    "cursors are anchored": (maintenance, "_reposition_consumers", "after"),
    "swapped, not committed": (maintenance, "_swap", "after"),
    "swapped": (FeedStore, "truncate_wal", "before"),
    "delivered": (consumers, "acknowledge", "before"),
    "acknowledged": (consumers, "acknowledge", "after"),
}
"""Where a process dies: before or after a call of this function."""

OF_KIND = {
    "relay": (
        "rows were read",
        "before rows are stored",
        "stored, not committed",
        "rows are stored",
    ),
    "rebuild": (
        "rows were read",
        "stored, not committed",
        "rows are stored",
        "the new log is full",
        "cursors are anchored",
        "swapped, not committed",
        "swapped",
    ),
    "consume": ("delivered", "acknowledged"),
}


def arm(point: str, at: int) -> None:
    """Make this process die when the point is reached for the `at`th time, counted from 1."""
    holder, name, when = POINTS[point]
    real: Callable[..., Any] = getattr(holder, name)
    count = itertools.count(1)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        reached = next(count) == at
        if reached and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if reached:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(holder, name, wrapped)


def run(job: dict[str, Any]) -> None:
    relay.READ_ROWS, relay.TRANSACTION_ROWS, relay.MAX_LOADS = 20, 7, 2  # many small steps
    folder = Path(job["folder"])
    if job["point"]:
        arm(job["point"], job["at"])
    with FeedStore(folder / "copy.feed.sqlite") as opened:
        if job["kind"] == "consume":
            _consume(Feed(None, opened), folder)
            return
        with closing(Plain(str(folder / "plain.db"))) as client:
            (relay.relay if job["kind"] == "relay" else maintenance.rebuild)(opened, client)


def _consume(feed: Feed, folder: Path) -> None:
    """Note each delivery where a kill cannot take it back."""
    out = os.open(folder / "delivered", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for change in feed.consume("killed", start="earliest"):
        os.write(out, f"{change.change_id}\n".encode())


def main() -> None:
    answer_jobs(run)


if __name__ == "__main__":
    main()
