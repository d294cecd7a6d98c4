"""A process that forks evaluations of a trigger on a model and kills them, as `feed_kills` does.

A job is {"point": where it is killed, or null, "at": which time the point is reached, "folder":
where `watched.duckdb`, the store and the receiver's file are, "now": the clock}.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb

from stripe_feed.delivery.transports import Endpoint
from stripe_feed.delivery.worker import Worker
from stripe_feed.feed.feed import Feed
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.models.database import ModelDatabase, duckdb_database
from stripe_feed.triggers.models import evaluate
from stripe_feed.triggers.run import deliver
from tests import feed_kills
from tests.model_triggers import a_model_trigger

POINTS: dict[str, tuple[Any, str, str]] = {
    "rows were compared": (evaluate, "compare_rows", "after"),
    "the state is written, not committed": (evaluate, "_advance", "after"),
    "a message is half written": (evaluate, "_insert", "after"),
    "all is written, not committed": (evaluate, "_store_rows", "after"),
    "committed, not sent": (evaluate, "_store_changes", "after"),
    "before sending": (Endpoint, "send", "before"),
    "sent, not noted": (Endpoint, "send", "after"),
    "noted": (Worker, "_note", "after"),
}


class FileFeed(Feed):
    """A feed whose models are the tables of a DuckDB file."""

    def __init__(self, folder: Path, store: FeedStore) -> None:
        super().__init__(None, store)
        self.file = folder / "watched.duckdb"

    def read_models(self, read: Callable[[ModelDatabase], Any], wait: float = 0.0) -> Any:
        with closing(duckdb.connect(str(self.file), read_only=True)) as connection:
            return read(duckdb_database(connection, "stripe"))


def run(job: dict[str, Any]) -> None:
    folder = Path(job["folder"])
    trigger = a_model_trigger(
        watch="mrr", on=["entered", "left", "changed"], deliver={"file": str(folder / "out.jsonl")}
    )
    if job["point"]:
        feed_kills.arm(job["point"], job["at"])
    with FeedStore(folder / "copy.feed.sqlite") as store:
        deliver(FileFeed(folder, store), [trigger], now=lambda: job["now"])


if __name__ == "__main__":
    feed_kills.POINTS |= POINTS
    feed_kills.run = run
    feed_kills.main()
