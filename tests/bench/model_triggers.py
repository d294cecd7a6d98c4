"""Triggers on models: what an evaluation costs where nothing differs, and where a few rows do."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb

from stripe_feed.destination.pipeline import dlt_settings, open_pipeline
from stripe_feed.feed.feed import Feed
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.triggers.models.evaluate import evaluate_models
from tests.model_triggers import a_model_trigger

ROWS = 500_000
Figure = tuple[str, str, str, bool]

BIG = f"""
create table big as select 'in_' || md5(n::varchar) as id, 'cus_' || (n // 3) as customer_id, n % 5000 as amount,
    case when n % 7 = 0 then null else timestamp '2026-01-01' + to_seconds(n) end as due_at, n % 11 as bucket
from range({ROWS}) as numbers(n)
"""


def figures() -> Iterator[Figure]:
    """CPU seconds of this process, the opening of the file included."""
    with tempfile.TemporaryDirectory() as folder, dlt_settings():
        file = Path(folder) / "copy.duckdb"
        with closing(duckdb.connect(str(file))) as connection:
            connection.execute(BIG)
        trigger = a_model_trigger(
            sql="select * from main.big", watch=["amount", "due_at", "bucket"], on="changed"
        )
        pipeline = open_pipeline(str(file), state_dir=str(Path(folder) / "state"))
        with FeedStore(Path(folder) / "copy.feed.sqlite") as store:
            feed = Feed(pipeline, store)

            def cost() -> float:
                before = time.process_time()
                (result,) = evaluate_models(store, [trigger], time.time(), feed.read_models)
                assert result.error is None, result.error
                return time.process_time() - before

            baseline = cost()
            yield f"baseline of {ROWS:,} rows", f"{baseline:.2f} CPU-s", "-", True
            unchanged = min(cost() for _ in range(3))
            yield (
                f"nothing differs in {ROWS:,} rows",
                f"{unchanged:.2f} CPU-s",
                "<= 0.3",
                unchanged <= 0.3,
            )
            with closing(duckdb.connect(str(file))) as connection:
                connection.execute("update big set amount = -1 where amount = 7 and bucket < 3")
            changed = cost()
            yield f"some rows of {ROWS:,} changed", f"{changed:.2f} CPU-s", "-", True
