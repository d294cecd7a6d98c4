"""A trigger tried on history: what it would have fired for, per day, how much at once, and what it
would have said.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..delivery.endpoint import lookups_of, payload_for
from ..delivery.outbox import message_id_of
from ..delivery.payloads import NotRenderable, PayloadContext
from ..feed.consumers import StartAt, position_before
from ..feed.lookups import NO_LOOKUPS, Lookups
from ..feed.net import net_between
from ..feed.storage.store import FeedStore
from .engine import Firing, rehearse
from .trigger import Trigger


@dataclass(frozen=True, slots=True)
class Sample:
    """One message that would have been sent."""

    change_id: str
    object_id: str
    occurred_at: datetime
    body: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What would have been fired. `changes`: how many were looked at; `days`: firings by UTC date;
    `busiest_minute`: the most in one; `most_per_key`: for one object or customer. `samples`: the
    newest messages.
    """

    trigger: str
    changes: int
    fired: int
    days: dict[str, int]
    busiest_minute: int
    most_per_key: int
    samples: list[Sample]


def rehearsed(
    store: FeedStore,
    trigger: Trigger,
    since: StartAt,
    samples: int = 3,
    now: float | None = None,
    lookups: Lookups = NO_LOOKUPS,
) -> Rehearsed:
    """Try a trigger on the changes from a place on; nothing is written or sent."""
    at = time.time() if now is None else now
    days, minutes, keys = Counter[str](), Counter[int](), Counter[str]()
    newest: list[Firing] = []
    for firing in rehearse(store, trigger, since, at, lookups):
        _, last, key = firing
        days[last.occurred_at.date().isoformat()] += 1
        minutes[int(last.occurred_at.timestamp()) // 60] += 1
        keys[key] += 1
        newest = [*newest, firing][-samples:] if samples else []
    shown = [_sample(store, trigger, one, lookups) for one in newest]
    return Rehearsed(
        trigger.name,
        store.head - position_before(store, since, at),
        sum(days.values()),
        dict(sorted(days.items())),
        max(minutes.values(), default=0),
        max(keys.values(), default=0),
        shown,
    )


def _sample(store: FeedStore, trigger: Trigger, firing: Firing, lookups: Lookups) -> Sample:
    first, last, _ = firing
    about = last if first.change_id == last.change_id else net_between(store, first, last) or last
    beside = lookups.related(last, lookups_of(trigger.deliver))
    telling = PayloadContext(
        about,
        trigger.name,
        message_id_of(trigger.name, first.change_id, last.change_id),
        beside=beside,
    )
    try:
        body: Any = json.loads(payload_for(trigger.deliver)(telling).content)
    except NotRenderable as fault:
        body = str(fault)
    return Sample(last.change_id, last.object_id, last.occurred_at, body)
