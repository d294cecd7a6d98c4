"""Figures of the feed side: `python tests/bench/feed.py [--changes N]`. Each is (name, value,
target, whether it is met).

The destination is filled by SQL, 1.5 kB of JSON per change; every figure is taken in a process of
its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

Figure = tuple[str, str, str, bool]

OBJECTS = 20_000
LOAD_ROWS = 50_000
FILL = """
insert into stripe.changes select
    'evt_' || i, case when i % 2 = 0 then 'invoices' else 'customers' end, 'obj_' || (i % {objects}), 'cus_' || (i % {objects}), 'u',
    'event', 'evt_' || i, 'customer.updated', '2026-06-24', 'req_' || i, null, null,
    timestamptz '2026-01-01 00:00:00+00' + to_seconds(i), timestamptz '2026-01-01 00:01:00+00' + to_seconds(i),
    ('{{"id":"obj_' || (i % {objects}) || '","status":"active","n":' || i || ',"filler":"' || md5(i::varchar)
        || repeat('lorem ipsum dolor ' || (i % 97), 70) || '"}}')::json,
    ('{{"n":' || (i - 1) || '}}')::json, 'exact', '["n"]'::json, false, 'acct_1', false, i % {load}, load_id
from (select i, '1700000' || (100 + i // {load}) || '.5' as load_id from range({first}, {last}) t(i));
"""


def fill(file: Path, changes: int) -> None:
    """A destination as dlt leaves it, with loads of `LOAD_ROWS` changes."""
    with duckdb.connect(str(file)) as base:
        base.execute("set memory_limit = '1GB'; create schema stripe")
        base.execute(
            "create table stripe._dlt_loads (load_id varchar, schema_name varchar, status bigint, inserted_at timestamptz, "
            "schema_version_hash varchar)"
        )
        base.execute(
            "create table stripe.changes (change_id varchar, resource varchar, object_id varchar, customer_id varchar, op varchar, "
            "origin varchar, event_id varchar, event_type varchar, api_version varchar, request_id varchar, "
            "request_idempotency_key varchar, context varchar, occurred_at timestamptz, observed_at timestamptz, after json, "
            "previous json, before_quality varchar, changed json, late boolean, account_id varchar, livemode boolean, seq bigint, "
            "_dlt_load_id varchar)"
        )
        for first in range(0, changes, LOAD_ROWS):
            last = min(first + LOAD_ROWS, changes)
            base.execute(FILL.format(objects=OBJECTS, load=LOAD_ROWS, first=first, last=last))
        base.execute(
            "insert into stripe._dlt_loads select distinct _dlt_load_id, 'stripe', 0, now(), '' from stripe.changes"
        )


def relaying(folder: Path) -> None:
    """Relay everything; print the seconds."""
    from stripe_feed.destination.pipeline import open_pipeline
    from stripe_feed.feed.relay import relay_pipeline, store_path
    from stripe_feed.feed.storage.store import FeedStore

    pipeline = open_pipeline(str(folder / "copy.duckdb"), state_dir=str(folder / "state"))
    with FeedStore(store_path(pipeline)) as store:
        began = time.perf_counter()
        count = relay_pipeline(pipeline, store)
        print(json.dumps({"count": count, "seconds": time.perf_counter() - began}))


def paging(folder: Path) -> None:
    """Pages of 100 all over the log; print their times."""
    import random

    from stripe_feed.feed.storage.store import FeedStore

    with FeedStore(folder / "copy.feed.sqlite") as store:
        took, chance = [], random.Random(1)
        for _ in range(1_000):
            after = chance.randrange(max(1, store.head - 100))
            began = time.perf_counter()
            store.page(after, 100)
            took.append(time.perf_counter() - began)
    print(json.dumps({"p50": sorted(took)[500], "p99": sorted(took)[990]}))


def consuming(folder: Path) -> None:
    """Consume everything, each change acknowledged; print the seconds."""
    from stripe_feed.feed.feed import Feed
    from stripe_feed.feed.storage.store import FeedStore

    with Feed(None, FeedStore(folder / "copy.feed.sqlite")) as feed:
        began = time.perf_counter()
        count = sum(1 for _ in feed.consume("bench", start="earliest", max=50_000))
        print(json.dumps({"count": count, "seconds": time.perf_counter() - began}))


def folding(folder: Path) -> None:
    """Fold everything; print the seconds."""
    from stripe_feed.feed.feed import Feed
    from stripe_feed.feed.storage.store import FeedStore

    with Feed(None, FeedStore(folder / "copy.feed.sqlite")) as feed:
        began = time.perf_counter()
        count = sum(1 for _ in feed.net())
        print(json.dumps({"count": count, "seconds": time.perf_counter() - began}))


def rebuilding(folder: Path) -> None:
    """Rebuild the log; print the seconds."""
    from stripe_feed.destination.pipeline import open_pipeline
    from stripe_feed.feed.feed import open_feed

    with open_feed(
        open_pipeline(str(folder / "copy.duckdb"), state_dir=str(folder / "state"))
    ) as feed:
        began = time.perf_counter()
        count = feed.rebuild()
        print(json.dumps({"count": count, "seconds": time.perf_counter() - began}))


STEPS: dict[str, Callable[[Path], None]] = {
    "relay": relaying,
    "page": paging,
    "consume": consuming,
    "net": folding,
    "rebuild": rebuilding,
}


def measured(step: str, folder: Path) -> tuple[dict[str, float], int]:
    """What a step printed in a process of its own, and that process's peak memory in MB."""
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            [sys.executable, __file__, "--step", step, "--folder", str(folder)], stdout=out
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{step} ended with {process.returncode}")
        out.seek(0)
        found: dict[str, float] = json.load(out)
    return found, usage.ru_maxrss // 1024


def figures(changes: int = 100_000) -> list[Figure]:
    """All figures at this many changes; the memory target stands for 1,000,000."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = subprocess.run(
            [sys.executable, __file__, "--fill", str(changes), "--folder", name], check=True
        )
        assert process.returncode == 0
        found = {step: measured(step, folder) for step in STEPS}
        size = (folder / "copy.feed.sqlite").stat().st_size
    rate = {
        step: found[step][0]["count"] / found[step][0]["seconds"]
        for step in ("relay", "consume", "net", "rebuild")
    }
    p50, p99 = found["page"][0]["p50"] * 1e3, found["page"][0]["p99"] * 1e3
    peak = max(rss for _, rss in found.values())
    return [
        ("relay", f"{rate['relay']:,.0f}/s", ">= 10,000/s", rate["relay"] >= 10_000),
        ("rebuild", f"{rate['rebuild']:,.0f}/s", "(no target)", True),
        ("page of 100 changes, p99", f"{p99:.2f} ms", "< 10 ms", p99 < 10),
        ("page of 100 changes, p50", f"{p50:.2f} ms", "(no target)", True),
        ("consume, each acknowledged", f"{rate['consume']:,.0f}/s", "(no target)", True),
        ("net, objects", f"{rate['net']:,.0f}/s", "(no target)", True),
        (f"peak memory at {changes:,} changes", f"{peak} MB", "< 300 MB", peak < 300),
        (f"size of the store at {changes:,} changes", f"{size / 1e6:,.0f} MB", "(no target)", True),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=100_000)
    parser.add_argument("--step", choices=list(STEPS))
    parser.add_argument("--fill", type=int)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.fill:
        fill(options.folder / "copy.duckdb", options.fill)
    elif options.step:
        STEPS[options.step](options.folder)
    else:
        for name, value, target, good in figures(options.changes):
            print(
                f"{'ok  ' if good else 'MISS'}  {name:<44} {value:>12}   target {target}",
                flush=True,
            )


if __name__ == "__main__":
    main()
