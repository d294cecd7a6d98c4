"""What an incremental run costs: requests after 10,000 changes, re-reads at the rate limit, and
deriving changes in memory.
"""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stripe_feed.api.client import API_VERSION
from stripe_feed.extract.events.classify import (
    ObjectEvent,
    by_object,
    is_discount_only,
    object_events,
)
from stripe_feed.extract.events.history import (
    changes_for,
    final_object,
    needs_base_state,
    order_events,
)
from stripe_feed.extract.events.reader import _page
from stripe_feed.extract.tables.arrow import LoadStamp
from stripe_feed.extract.tables.changes import change_table
from stripe_feed.sandbox import Sandbox
from tests.core import CORE

CHANGED = 10_000
FIRST_CALL = ("invoice.", "product.")  # types that are asked for together


def incremental(tools: Any) -> None:
    """Requests of a run after 10,000 changes with events in the pinned shape, against the least
    number of event pages.
    """
    with tools.sandbox(30_000, no_oddities=True) as box, tempfile.TemporaryDirectory() as folder:
        tools.sync(Path(folder), box, *tools.UNPACED)
        least, objects = _change(box)
        box.call("reset_counts", {})
        cost = tools.sync(Path(folder), box, *tools.UNPACED)
        by = box.requests("template")
        events, single = by["/v1/events"], sum(count for name, count in by.items() if ":id" in name)
        made = sum(by.values())
        tools.show(
            "requests after 10,000 changes",
            str(made),
            f"<= {1.05 * least + 10:.0f}",
            made <= 1.05 * least + 10,
            f"{events} event pages, {least} at least; {single} for single objects; wall {cost.wall:.1f} s, CPU {cost.cpu:.1f} s",
        )
        tools.show(
            "the same by re-reading each object",
            f"1/{(objects + least) / made:.0f}",
            "(no target)",
            True,
            f"{objects} objects",
        )
        box.call("reset_counts", {})
        idle = tools.sync(Path(folder), box)
        count = sum(box.requests().values())
        tools.show(
            "idle run with events: requests",
            str(count),
            "<= 10",
            count <= 10,
            f"wall {idle.wall:.2f} s",
        )


def foreign(tools: Any) -> None:
    """Objects are read again at the allowed rate where the account's default API version is
    another.
    """
    rps, endpoint_rps = 40.0, 15.0
    paced = ("--max-rps", str(rps), "--endpoint-rps", str(endpoint_rps))
    with (
        tools.sandbox(60_000, no_oddities=True, api_version="2024-06-20") as box,
        tempfile.TemporaryDirectory() as folder,
    ):
        tools.sync(Path(folder), box, *tools.UNPACED)
        box.call("burst", {"count": 2_400, "seconds": 86_400})
        box.call("advance", {"seconds": 400})
        box.call("reset_counts", {})
        with _watched(box) as seen:
            cost = tools.sync(Path(folder), box, *paced)
        by = {
            name: count for name, count in box.requests("template").items() if name.endswith(":id")
        }
        total, slowest = sum(by.values()), max((count, name) for name, count in by.items())
        least = max(total / rps, slowest[0] / endpoint_rps)
        first = max(at for at, count in seen if count == 0)
        last = min(at for at, count in seen if count == total)
        share = least / (last - first)
        tools.show(
            "re-reads: share of the allowed rate",
            f"{share:.0%}",
            ">= 95 %",
            share >= 0.95,
            f"{total} requests in {last - first:.1f} s, {slowest[0]} of {slowest[1]}; the whole run {cost.wall:.1f} s",
        )


@contextmanager
def _watched(box: Any) -> Iterator[list[tuple[float, int]]]:
    """How many objects were asked for one by one, over time."""
    seen: list[tuple[float, int]] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            count = sum(
                count for name, count in box.requests("template").items() if name.endswith(":id")
            )
            seen.append((time.monotonic(), count))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def _change(box: Any) -> tuple[int, int]:
    box.call("burst", {"count": CHANGED, "seconds": 3600})
    box.call("advance", {"seconds": 400})
    events = box.call("events")
    first = sum(event["type"].startswith(FIRST_CALL) for event in events)
    return math.ceil(first / 100) + math.ceil((len(events) - first) / 100), len(
        {event["object_id"] for event in events}
    )


def derive(tools: Any) -> None:
    """Events per second from pages to rows of the change table, in one core."""
    box = Sandbox(seed=1, customers=8_000)
    box.burst(20_000, seconds=86_400)
    bodies = [event.body for event in box.events]
    pages = [
        b'{"has_more":true,"data":[' + b",".join(bodies[n : n + 100]) + b"]}"
        for n in range(0, len(bodies), 100)
    ]
    _derived(pages)
    began = time.process_time()
    _derived(pages)
    rate = len(bodies) / (time.process_time() - began)
    tools.show(
        "deriving changes",
        f"{rate:,.0f}/s",
        ">= 20,000/s",
        rate >= 20_000,
        f"{len(bodies):,} events",
    )


def _derived(pages: list[bytes]) -> None:
    names = by_object(CORE.values())
    for start in range(0, len(pages), 20):
        objects: dict[tuple[str, str], list[ObjectEvent]] = {}
        for page in pages[start : start + 20]:
            for event in _page.decode(page).data:
                for one in object_events(event, names):
                    if not is_discount_only(one):
                        objects.setdefault((one.resource.table, one.id), []).append(one)
        changes = []
        for some in objects.values():
            needs_base_state(some)
            ordered = order_events(some)
            changes += changes_for(ordered, None, API_VERSION)
            final_object(ordered, API_VERSION)
        change_table(changes, LoadStamp("acct_1", "1"), False, 1, 0)
