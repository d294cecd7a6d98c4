"""Plays: how long a change takes from Stripe to a receiver, how many messages go out per second,
and what slow lanes and old messages cost.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from stripe_feed.delivery.outbox import unfinished_counts
from stripe_feed.delivery.worker import Worker
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.triggers.config import parse_trigger
from stripe_feed.triggers.engine import run_triggers
from tests.deliveries import add, filled, updates
from tests.receiver import (
    ERROR,
    HANG,
    OK,
    RESET,
    THROTTLED,
    Behaviour,
    Received,
    at_random,
    receiving,
)
from tests.test_service import arrived, running

CHANGES = 9
MESSAGES, LANES = 10_000, 500


def latency(tools: Any) -> None:
    """From a change in the account to both of its messages, with `serve` and webhooks; polling
    would add the settle time.
    """
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
    tools.show(
        "change to delivery with serve, median",
        f"{median:.2f} s",
        "< 3 s",
        median < 3,
        f"slowest {max(seconds):.2f} s",
    )


def rate(tools: Any) -> None:
    """Messages per second to a receiver on this machine, in one process with it, and through its
    faults.
    """
    for name, choose in (
        ("to a good receiver", None),
        (
            "to a flaky receiver",
            at_random(
                {ERROR: 0.05, RESET: 0.02, THROTTLED: 0.01},
                seed=1,
            ),
        ),
    ):
        with (
            tempfile.TemporaryDirectory() as folder,
            receiving(choose=choose) as receiver,
            FeedStore(Path(folder) / "a.feed.sqlite") as store,
        ):
            where = {"url": receiver.url, "allow_private": True}
            guard = {"max": MESSAGES, "share": 1}
            trigger = parse_trigger(
                {"name": "t", "resource": "subscriptions", "guard": guard, "deliver": where}
            )
            filled(store, trigger, *updates(MESSAGES, LANES))
            now = [time.time()]
            delivery = Worker(store, [trigger], now=lambda now=now: now[0])  # type: ignore[misc]
            began, rounds = time.monotonic(), 0
            while store.query("select 1 from messages where state = 'waiting' limit 1"):
                delivery.once()
                now[0] += 600
                rounds += 1
            took = time.monotonic() - began
            delivery.close()
            ids = {one.message_id for one in receiver.accepted}
        per_second = MESSAGES / took
        tools.show(
            f"messages per second, {name}",
            f"{per_second:,.0f}/s",
            ">= 300/s",
            per_second >= 300 and len(ids) == MESSAGES,
            f"{LANES} lanes, {rounds} rounds, {len(ids):,} of {MESSAGES:,} arrived",
        )


SENT, MORE = 1_000_000, 100
SLOW_SHARE = 20  # every 20th lane hangs, until the trigger gives up


def slow_lanes(tools: Any) -> None:
    """2,000 messages of as many lanes, of which 5 % hang: when the last of the others arrives."""
    with (
        tempfile.TemporaryDirectory() as folder,
        receiving(
            choose=lambda request, _: (
                HANG if int(json.loads(request.body)["data"]["id"][4:]) % SLOW_SHARE == 0 else OK
            )
        ) as receiver,
        FeedStore(Path(folder) / "a.feed.sqlite") as store,
    ):
        where = {"url": receiver.url, "allow_private": True, "timeout": 5}
        trigger = parse_trigger(
            {
                "name": "t",
                "resource": "subscriptions",
                "guard": {"max": 5_000, "share": 1},
                "deliver": where,
            }
        )
        filled(store, trigger, *updates(2_000, 2_000))
        arrived_at: list[float] = []
        take = receiver.take

        def noting(request: Received) -> Behaviour:
            arrived_at.append(time.monotonic())
            return take(request)

        receiver.take = noting  # type: ignore[method-assign]
        delivery = Worker(store, [trigger])
        began = time.monotonic()
        delivery.once()
        whole = time.monotonic() - began
        delivery.close()
        done = delivery.done
    assert (done.sent, done.failed) == (1_900, 100)
    last = arrived_at[-1] - began
    tools.show(
        "2,000 messages, 5 % of their lanes hang",
        f"{last:.2f} s",
        "< 3 s",
        last < 3,
        f"until the last began; {whole:.1f} s in all",
    )


def history(tools: Any) -> None:
    """CPU of 100 messages to a file, behind none and behind a million that were sent."""
    took = {}
    for behind in (0, SENT):
        with (
            tempfile.TemporaryDirectory() as folder,
            FeedStore(Path(folder) / "a.feed.sqlite") as store,
        ):
            where = {"file": str(Path(folder) / "out.jsonl")}
            trigger = parse_trigger(
                {
                    "name": "t",
                    "resource": "subscriptions",
                    "guard": {"max": 5_000, "share": 1},
                    "deliver": where,
                }
            )
            filled(store, trigger)
            store.query(
                "insert into messages (message_id, trigger, change_id, first_change_id, resource, object_id, lane, state, due_at, "
                "made_at) with recursive n (n) as (select 1 union all select n + 1 from n where n < ?) select 'msg_' || n, 't', "
                "'old_' || n, 'old_' || n, 'subscriptions', 'sub_' || n % 5000, 'sub_' || n % 5000, 'sent', 0, 0 from n "
                "where n <= ?",
                behind,
                behind,
            )
            best = []
            for turn in range(5):
                add(store, *updates(MORE, MORE, first=1 + turn * MORE))
                began = time.process_time()
                run_triggers(store, [trigger], time.time())
                delivery = Worker(store, [trigger], at_once=1)
                delivery.once()
                delivery.close()
                unfinished_counts(store)
                best.append(time.process_time() - began)
            took[behind] = min(best)
    ratio = took[SENT] / took[0]
    tools.show(
        "100 messages behind 1,000,000 sent",
        f"{ratio:.2f}x",
        "<= 1.2x",
        ratio <= 1.2,
        f"{took[0] * 1e3:.0f} ms behind none",
    )
