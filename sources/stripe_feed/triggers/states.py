"""What the feed store knows of each trigger: how often it fired, its messages, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..delivery.outbox import counts
from ..feed.consumers import lags
from ..feed.storage.store import FeedStore
from .engine import consumer_name
from .models.evaluate import watched_rows


@dataclass(frozen=True, slots=True)
class TriggerState:
    """A trigger as the store knows it; times are Unix seconds. `messages`: numbers by state.
    `behind`: changes that it has not seen; `rows`, `evaluated_at`: of one on a model.
    """

    trigger: str
    is_known: bool = False  # it ran
    fired: int = 0
    fired_at: float | None = None
    held: str | None = None
    disabled: str | None = None
    failing_since: float | None = None
    behind: int | None = None
    rows: int | None = None
    evaluated_at: float | None = None
    messages: Mapping[str, int] = field(default_factory=dict)


def trigger_states(store: FeedStore, now: float) -> dict[str, TriggerState]:
    """The triggers that ran or have messages, by name; also those that are in no file any more."""
    ran = {
        name: values
        for name, *values in store.query(
            "select name, fired, fired_at, held, disabled, failing_since from triggers order by name"
        )
    }
    messages, watched = counts(store), watched_rows(store)
    behind = {lag.consumer: lag.behind for lag in lags(store, now)}
    states = {}
    for name in dict.fromkeys((*ran, *messages)):
        fired, fired_at, held, disabled, failing_since = ran.get(name, (0, None, None, None, None))
        rows, evaluated_at = watched.get(name, (None, None))
        states[name] = TriggerState(
            name, name in ran, fired, fired_at, held, disabled, failing_since,
            behind.get(consumer_name(name)), rows, evaluated_at, messages.get(name, {}),
        )  # fmt: skip
    return states
