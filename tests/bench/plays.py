"""Plays: how long a change takes from Stripe to a receiver, and how many messages go out per second."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from stripe_feed.feed.deliver import Delivery
from stripe_feed.feed.rule_file import trigger_of
from stripe_feed.feed.store import FeedStore
from tests.deliveries import filled, updates
from tests.receiver import ERROR, RESET, THROTTLED, at_random, receiving
from tests.test_service import arrived, running

CHANGES = 9
MESSAGES, LANES = 10_000, 500


def latency(tools: Any) -> None:
    """From a change in the account to both of its messages, with `serve` and webhooks; polling would add the settle time."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), seed=2, customers=50) as it:
        it.start()
        it.synced()
        for _ in range(CHANGES):
            began = time.monotonic()
            it.box.create("customers")
            arrived(it.receiver, 2)
            seconds.append(time.monotonic() - began)
        it.stop()
    median = statistics.median(seconds)
    tools.show("change to delivery with serve, median", f"{median:.2f} s", "< 3 s", median < 3, f"slowest {max(seconds):.2f} s")


def rate(tools: Any) -> None:
    """Messages per second to a receiver on this machine, in one process with it, and through its faults."""
    for name, choose in (("to a good receiver", None), ("to a flaky receiver", at_random(
        {ERROR: 0.05, RESET: 0.02, THROTTLED: 0.01}, seed=1,
    ))):
        with tempfile.TemporaryDirectory() as folder, receiving(choose=choose) as receiver, FeedStore(
            Path(folder) / "a.feed.sqlite"
        ) as store:
            where = {"url": receiver.url, "allow_private": True}
            guard = {"max": MESSAGES, "share": 1}
            trigger = trigger_of({"name": "t", "resource": "subscriptions", "guard": guard, "deliver": where})
            filled(store, trigger, *updates(MESSAGES, LANES))
            now = [time.time()]
            delivery = Delivery(store, [trigger], now=lambda now=now: now[0])  # type: ignore[misc]
            began, rounds = time.monotonic(), 0
            while store.ask("select 1 from messages where state = 'waiting' limit 1"):
                delivery.once()
                now[0] += 600
                rounds += 1
            took = time.monotonic() - began
            delivery.close()
            ids = {one.message_id for one in receiver.accepted}
        per_second = MESSAGES / took
        tools.show(f"messages per second, {name}", f"{per_second:,.0f}/s", ">= 300/s", per_second >= 300 and len(ids) == MESSAGES,
                   f"{LANES} lanes, {rounds} rounds, {len(ids):,} of {MESSAGES:,} arrived")

