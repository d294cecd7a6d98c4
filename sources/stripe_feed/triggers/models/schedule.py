"""When triggers on models are evaluated: at the start, after each load or build, and when their time
is over, since time alone makes a row enter.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ...destination.locks import SHORT_WAIT
from ...errors import Locked
from ...feed.feed import Feed
from ..engine import TriggerResult
from .evaluate import evaluate_models
from .model_trigger import ModelTrigger

log = logging.getLogger("stripe_feed")
PATIENCE = 60.0  # seconds of a locked copy before a line says so


class ModelSchedule:
    """Evaluates triggers on models of one feed when they are due."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self._evaluated: dict[str, tuple[Any, float]] = {}
        self._failed: dict[str, TriggerResult] = {}
        self._locked_since: float | None = None
        self._is_told = False

    def run(self, triggers: Sequence[ModelTrigger], now: float, waits: bool) -> list[TriggerResult]:
        """Evaluate the triggers that are due; of the others, return those that failed last.

        `waits`: for whoever loads or writes to the DuckDB file, after which it is an error;
        otherwise they are due again at once, and after a minute a line says what they wait for.
        """
        mark = self.feed.store.models_mark()
        due = [one for one in triggers if self._is_due(one, mark, now)]
        results = [
            self._failed[one.name]
            for one in triggers
            if one not in due and one.name in self._failed
        ]
        read = partial(self._read, now, SHORT_WAIT if waits else 0.0)
        for one in due:
            try:
                (result,) = evaluate_models(self.feed.store, [one], now, read, self.feed.lookups)
            except _NotNow:
                break
            self._evaluated[one.name] = mark, now
            self._failed.pop(one.name, None)
            if result.error is not None:
                self._failed[one.name] = result
            results.append(result)
        return results

    def _is_due(self, trigger: ModelTrigger, mark: Any, now: float) -> bool:
        last_mark, last = self._evaluated.get(trigger.name, (None, 0.0))
        return mark != last_mark or not last <= now < last + trigger.every

    def _read(self, now: float, wait: float, read: Callable[[Any], Any]) -> Any:
        try:
            found = self.feed.read_models(read, wait)
        except Locked as fault:
            if wait:
                raise
            since = self._locked_since = now if self._locked_since is None else self._locked_since
            if now >= since + PATIENCE and not self._is_told:
                self._is_told = True
                log.warning("Triggers on models wait until the copy is free. %s", fault)
            raise _NotNow from None
        self._locked_since, self._is_told = None, False
        return found


class _NotNow(BaseException):
    """Passes by what records errors: another process loads."""
