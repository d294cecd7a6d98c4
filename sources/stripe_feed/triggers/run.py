"""Run the triggers over new changes and send the messages that are due."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..delivery.worker import DeliveryReport, log, open_worker
from ..feed.feed import Feed
from ..feed.storage.store_errors import Unusable
from .engine import TriggerResult, run_triggers
from .models.evaluate import evaluate_models
from .models.model_trigger import AnyTrigger, ModelTrigger
from .models.schedule import ModelSchedule
from .trigger import Trigger

RETRY_TRIGGER_AFTER = 30.0  # seconds before a trigger that cannot run is tried again


def trigger_loop(
    feed: Feed,
    triggers: Sequence[AnyTrigger],
    now: Callable[[], float] = time.time,
    keep_running: bool = True,
) -> Callable[[], list[TriggerResult]]:
    """Return a function that runs the triggers over new changes each time it is called, and those on
    models when they are due: the first time, after a load or a build, and when their time is over.
    An error is logged once and retried; without `keep_running` it is only in the result.

    If the store cannot be used, the function raises `Unusable`, unless `keep_running` is set.
    """
    last_errors: dict[str, str | None] = {}
    retry_at: dict[str, float] = {}
    schedule = ModelSchedule(feed)

    def tick() -> list[TriggerResult]:
        try:
            runnable = [one for one in triggers if retry_at.get(one.name, 0.0) <= time.monotonic()]
            on_changes, on_models = split_triggers(runnable)
            results = run_triggers(feed.store, on_changes, now(), feed.query_ids, feed.lookups)
            results += schedule.run(on_models, now(), waits=not keep_running)
            results += [
                TriggerResult(one.name, 0, 0, error=last_errors[one.name])
                for one in triggers
                if one not in runnable
            ]
        except (Unusable, sqlite3.Error) as fault:
            if not keep_running:
                raise
            error = (
                str(fault)
                if isinstance(fault, Unusable)
                else f"the feed store cannot be used ({type(fault).__name__})"
            )
            results = [TriggerResult(one.name, 0, 0, error=error) for one in triggers]
        for one in results:
            is_new = one.error is not None and one.error != last_errors.get(one.trigger)
            if is_new and keep_running:
                log.warning("The trigger %s does not run: %s", one.trigger, one.error)
            if one.error is not None and retry_at.get(one.trigger, 0.0) <= time.monotonic():
                retry_at[one.trigger] = time.monotonic() + RETRY_TRIGGER_AFTER
            last_errors[one.trigger] = one.error
        return results

    return tick


def deliver(
    feed: Feed,
    triggers: Sequence[AnyTrigger],
    *,
    now: Callable[[], float] = time.time,
    stop: threading.Event | None = None,
    **settings: Any,
) -> tuple[list[TriggerResult], DeliveryReport]:
    """Run the triggers over the new changes of a feed, evaluate those on models, and send every
    message that is due; return both reports.

    A failed message is retried by a later call, on schedule. Raises `SetupError` before anything is
    sent if another process delivers from this feed, or a secret is not set.
    """
    with open_worker(
        feed.store, triggers, now=now, **{"lookups": feed.lookups, **settings}
    ) as delivery:
        on_changes, on_models = split_triggers(triggers)
        fired = run_triggers(feed.store, on_changes, now(), feed.query_ids, feed.lookups)
        fired += evaluate_models(feed.store, on_models, now(), feed.read_models, feed.lookups)
        return fired, delivery.once(stop)


def split_triggers(
    triggers: Sequence[AnyTrigger],
) -> tuple[list[Trigger], list[ModelTrigger]]:
    """The triggers on changes, and those on models."""
    return (
        [one for one in triggers if isinstance(one, Trigger)],
        [one for one in triggers if isinstance(one, ModelTrigger)],
    )
