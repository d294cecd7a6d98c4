"""Metrics of the store and server as text for Prometheus: positions, failures and ages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..delivery.outbox import counts
from ..feed import consumers
from ..feed.change import from_microseconds
from ..feed.storage.push_states import LastRun, last_runs
from ..feed.storage.store import FeedStore
from ..triggers.models.evaluate import watched_rows
from ..triggers.models.model_trigger import AnyTrigger
from ..write.push.history.states import PUSH_STATES
from . import webhook_inbox

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "stripe_feed_"
_DAY = 86_400.0
ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Sample = tuple[Mapping[str, str], float]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with all its samples."""

    name: str
    kind: str
    help: str
    samples: Sequence[Sample]


@dataclass
class LateCounter:
    """Counts late changes, visiting each position of the log once: a store can hold millions."""

    upto: int = 0
    count: int = 0

    def total(self, store: FeedStore) -> int:
        """Return how many there are, or were before they were pruned."""
        head = store.head
        if head < self.upto:  # the log was made anew
            self.upto = self.count = 0
        query = "select count(*) from log where position > ? and position <= ? and late"
        self.count += store.query(query, self.upto, head)[0][0]
        self.upto = head
        return self.count


def metrics(
    store: FeedStore,
    triggers: Sequence[AnyTrigger],
    health: Mapping[str, Any],
    late: LateCounter,
    counts: Mapping[str, int],
    now: float,
) -> str:
    """Return all metrics of a store and its server, in the text format:
    https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    with store.transaction("deferred"):
        families = [*_feed(store, late), *_consumers(store, now), *_triggers(store, triggers)]
        families += _pushes(last_runs(store))
    families += [*_sync(health), *_requests(counts)]
    return "".join(line + "\n" for family in families for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    name = _PREFIX + family.name
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} {family.kind}"
    for labels, value in family.samples:
        inside = ",".join(f'{label}="{text.translate(ESCAPES)}"' for label, text in labels.items())
        yield f"{name}{f'{{{inside}}}' if inside else ''} {value:.17g}"


def _feed(store: FeedStore, late: LateCounter) -> Iterator[Family]:
    yield Family("feed_head_offset", "gauge", "The newest offset of the feed.", [({}, store.head)])
    rows = store.query("select occurred_at, observed_at from log order by position desc limit 1")
    seen = [
        (from_microseconds(occurred), from_microseconds(observed)) for occurred, observed in rows
    ]
    lag: list[Sample] = [
        ({}, (observed - occurred).total_seconds())
        for occurred, observed in seen
        if occurred and observed
    ]
    yield Family(
        "source_lag_seconds",
        "gauge",
        "From the newest change to when it was read from Stripe.",
        lag,
    )
    yield Family(
        "late_total",
        "counter",
        "Changes that arrived after a newer one of the same object.",
        [({}, late.total(store))],
    )


def _consumers(store: FeedStore, now: float) -> Iterator[Family]:
    lags = consumers.lags(store, now)

    def each(values: Iterable[float]) -> list[Sample]:
        return [
            ({"consumer": lag.consumer}, value) for lag, value in zip(lags, values, strict=True)
        ]

    behind, seconds, lost = (
        each(lag.behind for lag in lags),
        each(lag.seconds for lag in lags),
        each(lag.lost for lag in lags),
    )
    yield Family(
        "consumer_lag_changes", "gauge", "Changes that a consumer has not acknowledged.", behind
    )
    yield Family("consumer_lag_seconds", "gauge", "The age of the first of them.", seconds)
    yield Family(
        "consumer_position_lost",
        "gauge",
        "1 where changes that a consumer has not seen were pruned.",
        lost,
    )
    ((waiting, since),) = store.query(
        "select count(*), min(rung_at) from rung where read_at is null"
    )
    yield Family(
        "rung_events_waiting",
        "gauge",
        "Events that webhooks announced and that are not read yet.",
        [({}, waiting)],
    )
    trouble = webhook_inbox.failed_events(store)
    yield Family(
        "rung_events_failing",
        "gauge",
        "Of these, the ones that could not be read so far.",
        [({}, trouble.waiting)],
    )
    yield Family(
        "rung_events_given_up_total",
        "counter",
        "Events that were given up, of 30 days.",
        [({}, trouble.given_up)],
    )
    oldest = {
        "rung": now - since if waiting else 0.0,
        "consumer": max((lag.seconds for lag in lags), default=0.0),
    }
    days: list[Sample] = [({"of": name}, max(0.0, value) / _DAY) for name, value in oldest.items()]
    yield Family(
        "oldest_event_age_days",
        "gauge",
        "The oldest that waits; Stripe keeps events for 30 days.",
        days,
    )


def _triggers(store: FeedStore, triggers: Sequence[AnyTrigger]) -> Iterator[Family]:
    rows = store.query("select name, fired, held is not null, disabled is not null from triggers")
    names = sorted({trigger.name for trigger in triggers} | {row[0] for row in rows})
    status, by_state = {row[0]: row[1:] for row in rows}, counts(store)

    def each(column: int) -> list[Sample]:
        return [({"trigger": name}, status.get(name, (0, 0, 0))[column]) for name in names]

    yield Family("trigger_fired_total", "counter", "Messages that a trigger made.", each(0))
    yield Family("trigger_held", "gauge", "1 where a guard holds a trigger.", each(1))
    yield Family("trigger_disabled", "gauge", "1 where a receiver is given up.", each(2))
    watched = sorted(watched_rows(store).items())
    for n, (name, words) in enumerate(
        (
            ("trigger_rows", "Rows that a trigger on a model watches."),
            (
                "trigger_evaluated_timestamp_seconds",
                "When a trigger on a model was last evaluated.",
            ),
        )
    ):
        yield Family(name, "gauge", words, [({"trigger": one}, row[n]) for one, row in watched])
    states: list[Sample] = [
        ({"trigger": name, "state": state}, count)
        for name, some in sorted(by_state.items())
        for state, count in sorted(some.items())
    ]
    yield Family("messages", "gauge", "Messages by state.", states)
    dead: list[Sample] = [
        ({"trigger": name}, by_state.get(name, {}).get("dead", 0))
        for name in sorted({*names, *by_state})
    ]
    yield Family("dead_letters", "gauge", "Messages that were given up.", dead)
    query = "select trigger, code, count(*) from attempts join messages using (message_id) group by 1, 2 order by 1, 2"
    codes: list[Sample] = [
        ({"trigger": name, "code": code}, count) for name, code, count in store.query(query)
    ]
    yield Family(
        "delivery_attempts_total", "counter", "Attempts to deliver, by what came of them.", codes
    )


def _pushes(runs: Sequence[LastRun]) -> Iterator[Family]:
    if not runs:
        return
    states: list[Sample] = [
        ({"push": run.push, "state": state}, run.state == state)
        for run in runs
        for state in PUSH_STATES
    ]
    yield Family("push_state", "gauge", "1 for the state that a push is in.", states)
    began: list[Sample] = [({"push": run.push}, run.started_at) for run in runs]
    yield Family(
        "push_last_run_timestamp_seconds",
        "gauge",
        "When its last run began, in Unix seconds.",
        began,
    )
    rows: list[Sample] = [
        ({"push": run.push, "status": status}, count)
        for run in runs
        for status, count in run.counts.items()
    ]
    yield Family("push_rows", "gauge", "Rows of its last run, by what became of them.", rows)


def _sync(health: Mapping[str, Any]) -> Iterator[Family]:
    gauges = {
        "synced_at": (
            "last_sync_timestamp_seconds",
            "When the copy was brought up to date last, in Unix seconds.",
        ),
        "failures": ("sync_failures", "Runs that failed since."),
        "left_out": (
            "objects_left_out",
            "Objects that the last run could not take; the log names them.",
        ),
    }
    for field_name, (name, help) in gauges.items():
        value = health.get(field_name)
        if isinstance(value, int | float):
            yield Family(name, "gauge", help, [({}, value)])


def _requests(counts: Mapping[str, int]) -> Iterator[Family]:
    webhooks: list[Sample] = [
        ({"result": name}, counts.get(f"webhook_{name}", 0)) for name in ("taken", "refused")
    ]
    yield Family(
        "webhooks_total",
        "counter",
        "Webhooks that came, by whether they were signed by Stripe.",
        webhooks,
    )
    turned_away, cut = counts.get("turned_away", 0), counts.get("cut", 0)
    yield Family(
        "turned_away_total", "counter", "Requests without the right token.", [({}, turned_away)]
    )
    yield Family(
        "connections_cut_total",
        "counter",
        "Connections that were closed because nothing whole came.",
        [({}, cut)],
    )
