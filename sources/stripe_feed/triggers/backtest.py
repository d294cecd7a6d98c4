"""Backtest a trigger on past changes: how often it would have fired, per day and at once, with
sample messages.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..delivery.endpoint_config import lookups_of, payload_for
from ..delivery.outbox import message_id_of
from ..delivery.payloads import NotRenderable, PayloadContext
from ..feed.consumers import StartAt, position_before
from ..feed.lookups import NO_LOOKUPS, Lookups
from ..feed.net import net_between
from ..feed.storage.store import FeedStore
from .engine import Firing, backtest_firings
from .trigger import Trigger


@dataclass(frozen=True, slots=True)
class SampleMessage:
    """One message that would have been sent."""

    change_id: str
    object_id: str
    occurred_at: datetime
    body: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class BacktestReport:
    """How often a trigger would have fired. `changes`: how many were checked; `days`: firings by UTC
    date; `busiest_minute`: the most in one minute; `most_per_key`: the most for one object or
    customer; `samples`: the newest messages.
    """

    trigger: str
    changes: int
    fired: int
    days: dict[str, int]
    busiest_minute: int
    most_per_key: int
    samples: list[SampleMessage]


def backtest(
    store: FeedStore,
    trigger: Trigger,
    since: StartAt,
    samples: int = 3,
    now: float | None = None,
    lookups: Lookups = NO_LOOKUPS,
) -> BacktestReport:
    """Run a trigger over past changes; nothing is written or sent."""
    run_at = time.time() if now is None else now
    days, minutes, keys = Counter[str](), Counter[int](), Counter[str]()
    newest: list[Firing] = []
    for firing in backtest_firings(store, trigger, since, run_at, lookups):
        _, last, key = firing
        days[last.occurred_at.date().isoformat()] += 1
        minutes[int(last.occurred_at.timestamp()) // 60] += 1
        keys[key] += 1
        newest = [*newest, firing][-samples:] if samples else []
    sample_messages = [
        _sample_message(store, trigger, firing_to_show, lookups) for firing_to_show in newest
    ]
    return BacktestReport(
        trigger.name,
        store.head - position_before(store, since, run_at),
        sum(days.values()),
        dict(sorted(days.items())),
        max(minutes.values(), default=0),
        max(keys.values(), default=0),
        sample_messages,
    )


def _sample_message(
    store: FeedStore, trigger: Trigger, firing: Firing, lookups: Lookups
) -> SampleMessage:
    first, last, _ = firing
    change = last if first.change_id == last.change_id else net_between(store, first, last) or last
    related = lookups.related(last, lookups_of(trigger.deliver))
    context = PayloadContext(
        change,
        trigger.name,
        message_id_of(trigger.name, first.change_id, last.change_id),
        beside=related,
    )
    try:
        body: Any = json.loads(payload_for(trigger.deliver)(context).content)
    except NotRenderable as fault:
        body = str(fault)
    return SampleMessage(last.change_id, last.object_id, last.occurred_at, body)
