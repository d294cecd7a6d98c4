"""What it costs on Postgres to read a stretch of a list again and to keep the newer row: 10,000
rows into 1,000,000.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dlt
import pytest

from stripe_feed import stripe_source
from stripe_feed.destination.pipeline import dlt_settings
from stripe_feed.extract import existing, writer
from stripe_feed.extract.tables import indexes
from stripe_feed.extract.tables.hints import MERGE
from stripe_feed.sandbox import Sandbox
from tests.postgres import postgres_server

INCOMING, HELD, PAIRS = 10_000, 1_000_000, 3
EVER = 200_000_000  # seconds of look-back: all of the list is read again


def postgres(tools: Any) -> None:
    """Whole runs in which every row of the list has changed, with and without both; and what dlt's
    defaults would cost.
    """
    box = Sandbox(
        seed=1, customers=INCOMING, invoices=0, subscriptions=0, products=1, oddities=False
    )
    with (
        postgres_server() as server,
        tempfile.TemporaryDirectory() as folder,
        dlt_settings(),
        box.serve() as url,
    ):
        destination = dlt.destinations.postgres(server)
        pipeline = dlt.pipeline(
            "lookback", destination=destination, dataset_name="stripe", pipelines_dir=folder
        )

        def run() -> float:
            source = stripe_source(
                api_key=box.key, api_base=url, max_rps=5000, endpoint_rps=5000, look_back=EVER
            )
            began = time.monotonic()
            pipeline.run(source.with_resources("customers"))
            return time.monotonic() - began

        def changed_run() -> float:
            box.advance(10)
            for id in box.objects("customers"):
                box.update("customers", id, name=f"at {box.now}")
            box.advance(10)
            return run()

        run()
        _fill(pipeline)
        with _without("index"):
            bare = changed_run()
            with _without("both"):
                defaults = changed_run()
        run()  # the indexes are made
        pairs = [(changed_run(), _plain(changed_run)) for _ in range(PAIRS)]
    ratio = statistics.median(ours / plain for ours, plain in pairs)
    ours = statistics.median(ours for ours, _ in pairs)
    tools.show(
        "look-back and newer-wins on Postgres / without",
        f"{ratio:.2f}x",
        "<= 3x",
        ratio <= 3,
        f"{ours:.1f} s for {INCOMING:,} rows into {HELD:,}",
    )
    tools.show(
        "the same against no indexes, no look-up",
        f"{ours / defaults:.2f}x",
        "(no target)",
        True,
        f"{defaults:.1f} s; with look-up and without indexes {bare:.1f} s",
    )


def _plain(run: Any) -> float:
    with _without("both"):
        return float(run())


def _fill(pipeline: Any) -> None:
    """Copies of the rows that are there, under ids of their own."""
    with pipeline.sql_client() as client:
        found = client.execute_sql(
            "select column_name from information_schema.columns where table_schema = 'stripe' and table_name = 'customers'"
        )
        columns = [f'"{name}"' for (name,) in found]
        values = ["'cus_held_' || id || n" if name == '"id"' else name for name in columns]
        client.execute_sql(
            f"insert into customers ({', '.join(columns)}) select {', '.join(values)} "
            f"from customers, generate_series(1, {HELD // INCOMING - 1}) as s (n)"
        )
        client.native_connection.autocommit = True
        client.native_connection.cursor().execute("vacuum analyze stripe.customers")


@contextmanager
def _without(what: str) -> Iterator[None]:
    """Runs that make no `index`, or that do without `both` the look-up and the condition of the
    merge.
    """
    with pytest.MonkeyPatch.context() as patch:
        if what == "index":
            patch.setattr(indexes, "INDEXED_DESTINATIONS", frozenset())
        else:
            patch.setattr(writer, "newer_wins", lambda names: dict(MERGE))
            patch.setattr(existing, "stored_hashes", lambda client, table, ids: {})
        yield
