"""Run the triggers over new changes, and send the messages that are due."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..delivery.worker import DeliveryReport, log, open_worker
from ..feed.feed import Feed
from ..feed.storage.store_errors import Unusable
from .engine import Fired, fire
from .trigger import Trigger

REST = 30.0  # seconds that a trigger which cannot run is left alone


def ticking(
    feed: Feed,
    triggers: Sequence[Trigger],
    now: Callable[[], float] = time.time,
    patient: bool = True,
) -> Callable[[], list[Fired]]:
    """A function that runs the triggers over what is new, again and again; what goes wrong is
    logged once, and tried again.

    Where the store cannot be used, it raises `Unusable`, unless it is `patient`.
    """
    said: dict[str, str | None] = {}
    rests: dict[str, float] = {}

    def tick() -> list[Fired]:
        try:
            able = [one for one in triggers if rests.get(one.name, 0.0) <= time.monotonic()]
            found = fire(feed.store, able, now(), feed.query_ids, feed.lookups)
            found += [
                Fired(one.name, 0, 0, error=said[one.name]) for one in triggers if one not in able
            ]
        except (Unusable, sqlite3.Error) as fault:
            if not patient:
                raise
            words = (
                str(fault)
                if isinstance(fault, Unusable)
                else f"the feed store cannot be used ({type(fault).__name__})"
            )
            found = [Fired(one.name, 0, 0, error=words) for one in triggers]
        for one in found:
            if one.error is not None and one.error != said.get(one.trigger):
                log.warning("The trigger %s does not run: %s", one.trigger, one.error)
            if one.error is not None and rests.get(one.trigger, 0.0) <= time.monotonic():
                rests[one.trigger] = time.monotonic() + REST
            said[one.trigger] = one.error
        return found

    return tick


def deliver(
    feed: Feed,
    triggers: Sequence[Trigger],
    *,
    now: Callable[[], float] = time.time,
    stop: threading.Event | None = None,
    **settings: Any,
) -> tuple[list[Fired], DeliveryReport]:
    """Run the triggers over what is new in a feed, and send every message that is due; return what
    each did.

    What fails is tried again by a later call, on the schedule. Raises `SetupError` where another
    process delivers from this feed, or a secret is not set, before anything is sent.
    """
    with open_worker(
        feed.store, triggers, now=now, **{"lookups": feed.lookups, **settings}
    ) as delivery:
        fired = fire(feed.store, triggers, now(), feed.query_ids, feed.lookups)
        return fired, delivery.once(stop)
