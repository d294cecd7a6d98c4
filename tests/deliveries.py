"""For tests of triggers and deliveries: stores filled directly, a clock, sinks that answer from a
script, and a sandbox's changes.

As a program it forks a delivery per JSON job on stdin, like `feed_kills`: {"point": where it is
killed, or null, "at": which time the point is reached, "folder": where the store is, "url": of the
receiver, "now": its clock}.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from stripe_feed.api.client import API_VERSION
from stripe_feed.delivery import worker
from stripe_feed.delivery.outbox import Message, find
from stripe_feed.delivery.transports import AttemptResult, Endpoint
from stripe_feed.delivery.worker import DeliveryReport, Worker
from stripe_feed.extract.events.classify import ObjectEvent, by_object, object_events
from stripe_feed.extract.events.history import BaseState, changes_for, order_events
from stripe_feed.extract.events.reader import Event
from stripe_feed.feed import consumers
from stripe_feed.feed.change import SOURCE_COLUMNS, Change, change_from_row, entry_from_row
from stripe_feed.feed.feed import Feed
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.sandbox import Sandbox
from stripe_feed.triggers import engine
from stripe_feed.triggers.config import parse_trigger
from stripe_feed.triggers.engine import TriggerResult, run_triggers
from stripe_feed.triggers.models.model_trigger import AnyTrigger
from stripe_feed.triggers.run import deliver
from stripe_feed.triggers.trigger import Trigger
from tests import feed_kills
from tests.core import CORE
from tests.feed_kills import BEGIN, Row, a_change
from tests.forks import answer_jobs

NEW: Any = {"op": "c", "previous": None, "before_quality": "none", "changed": []}
NOW = BEGIN.timestamp() + 1_000_000
OK = AttemptResult(True, "200")
REFUSED = AttemptResult(False, "500")
NAMES = by_object(CORE.values())
event_of = msgspec.json.Decoder(Event).decode


def packed(row: Row) -> Any:
    return entry_from_row([{"_dlt_load_id": "17.5", **row}[name] for name in SOURCE_COLUMNS])


def made(row: Row, offset: int = 1) -> Change:
    """A change as a reader of the feed gets it."""
    return change_from_row(offset, 1, packed(row))


def add(store: FeedStore, *rows: Row) -> None:
    store.append([packed(row) for row in rows])


def nothing(body: Any, message_id: str) -> None:
    """A receiver that is never looked at."""


def a_trigger(name: str = "t", **words: Any) -> Trigger:
    """A trigger on every change of subscriptions, unless something else is said; `deliver` may hold
    a few words only.
    """
    to = {"deliver": {"python": nothing, **words.pop("deliver", {})}}
    if {"url", "command", "file"} & set(to["deliver"]):
        del to["deliver"]["python"]
    return parse_trigger(
        {
            "name": name,
            **({} if "preset" in words else {"resource": "subscriptions"}),
            **words,
            **to,
        }
    )


@contextmanager
def kept() -> Iterator[FeedStore]:
    """A store of its own for each of many examples."""
    with TemporaryDirectory() as folder, FeedStore(Path(folder) / "feed.sqlite") as store:
        yield store


def ran(store: FeedStore, *triggers: Trigger, now: float = NOW) -> list[tuple[str, int, bool]]:
    """Run triggers; of each its name, how often it fired, and whether it is held."""
    return [
        (one.trigger, one.fired, one.held is not None) for one in run_triggers(store, triggers, now)
    ]


def run_one(store: FeedStore, trigger: Trigger, now: float = NOW) -> TriggerResult:
    (found,) = run_triggers(store, [trigger], now)
    return found


def messages(store: FeedStore, *states: str) -> list[Message]:
    return find(store, states=states)


def told_ids(store: FeedStore, *states: str) -> list[str]:
    """The changes that messages are about, in the order of the messages."""
    return [one.change_id for one in messages(store, *states)]


@dataclass
class Clock:
    """Stands until it is moved."""

    at: float = NOW

    def __call__(self) -> float:
        return self.at


Answer = Callable[[str, Any, int], AttemptResult]


@dataclass
class Scripted:
    """A sink that answers from a function of the message's id, its body, and which try it is; it
    remembers what it got.
    """

    answer: Answer = lambda id, body, n: OK
    seen: list[tuple[str, Any]] = field(default_factory=list)
    taken: list[tuple[str, Any]] = field(default_factory=list)
    tries: dict[str, int] = field(default_factory=dict)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def send(
        self, message_id: str, trigger: str, body: bytes, headers: Mapping[str, str]
    ) -> AttemptResult:
        said = json.loads(body)
        with self.turn:
            self.tries[message_id] = self.tries.get(message_id, 0) + 1
            self.seen.append((message_id, said))
        outcome = self.answer(message_id, said, self.tries[message_id])
        if outcome.ok:
            with self.turn:
                self.taken.append((message_id, said))
        return outcome

    def close(self) -> None:
        """Nothing is open."""

    @property
    def changes(self) -> list[str]:
        """The changes that were taken, in order."""
        return [said["meta"]["change_id"] for _, said in self.taken]


@contextmanager
def delivering_to(
    store: FeedStore,
    pairs: Sequence[tuple[AnyTrigger, Scripted]],
    clock: Callable[[], float],
    **settings: Any,
) -> Iterator[Worker]:
    """A delivery whose triggers send to these sinks."""
    delivery = Worker(store, [trigger for trigger, _ in pairs], now=clock, **settings)
    for trigger, sink in pairs:
        delivery.lanes[trigger.name].endpoint.transport = sink
    try:
        yield delivery
    finally:
        delivery.close()


def once(
    store: FeedStore,
    trigger: AnyTrigger,
    sink: Scripted,
    clock: Callable[[], float],
    **settings: Any,
) -> DeliveryReport:
    """One delivery, as of a new process."""
    with delivering_to(store, [(trigger, sink)], clock, **settings) as delivery:
        return delivery.once()


def filled(store: FeedStore, trigger: Trigger, *rows: Row) -> None:
    """A trigger that has begun, and has fired for these changes."""
    run_one(store, trigger)
    add(store, *rows)
    run_one(store, trigger)


def updates(count: int, lanes: int = 1, first: int = 1) -> list[Row]:
    """Updates of so many subscriptions in turn."""
    return [a_change(n, f"sub_{n % lanes}") for n in range(first, first + count)]


# What a sandbox lives through, as changes


def images(box: Sandbox) -> dict[tuple[str, str], Any]:
    return {(table, id): image for table in CORE for id, image in box.objects(table).items()}


def an_event(box: Sandbox, type: str, image: Any) -> bytes:
    """An event that the sandbox never sends by itself."""
    return msgspec.json.encode(
        {
            "id": f"evt_{type}",
            "object": "event",
            "api_version": API_VERSION,
            "created": box.now,
            "context": None,
            "livemode": False,
            "data": {"object": image},
            "pending_webhooks": 0,
            "request": {"id": None, "idempotency_key": None},
            "type": type,
        }
    )


def rows_of(events: Sequence[bytes], start: Mapping[tuple[str, str], Any]) -> list[Row]:
    """The changes that events tell, in their order; `start`: the objects before them."""
    stories: dict[tuple[str, str], list[ObjectEvent]] = {}
    for body in events:
        for one in object_events(event_of(body), NAMES):
            stories.setdefault((one.resource.table, one.id), []).append(one)
    found = {}
    for key, story in stories.items():
        known = BaseState(start[key], API_VERSION) if key in start else None
        for derived in changes_for(order_events(story, known), known, API_VERSION):
            row: Row = {name: getattr(derived, name, None) for name in SOURCE_COLUMNS}
            row |= {
                "occurred_at": datetime.fromtimestamp(derived.occurred_at, timezone.utc),
                "seq": 0,
                "livemode": False,
            }
            found[derived.event_id] = row | {
                "observed_at": row["occurred_at"],
                "account_id": "acct_1",
            }
    return [found[event.id] for event in map(event_of, events) if event.id in found]


# Kills


POINTS: dict[str, tuple[Any, str, str]] = {
    "a trigger begins": (engine, "register_trigger", "after"),
    "a run was judged": (engine, "_apply_guard", "after"),
    "before a page": (engine, "store_messages", "before"),
    "messages were made": (engine, "store_messages", "after"),
    "the page is done, not committed": (consumers, "advance", "after"),
    "before sending": (Endpoint, "send", "before"),
    "sent": (Endpoint, "send", "after"),
    "noted, not committed": (worker, "record_attempt", "after"),
    "noted": (Worker, "_note", "after"),
}


def both(url: str) -> list[Trigger]:
    """A trigger that fires always, and one that fires once per object."""
    to = {"url": url, "allow_private": True}
    return [a_trigger("always", deliver=to), a_trigger("once", enrol="once", deliver=to)]


def run(job: dict[str, Any]) -> None:
    engine._PAGE_SIZE = 7
    if job["point"]:
        feed_kills.arm(job["point"], job["at"])
    with FeedStore(Path(job["folder"]) / "copy.feed.sqlite") as store:
        deliver(Feed(None, store), both(job["url"]), now=lambda: job["now"], at_once=3)


if __name__ == "__main__":
    feed_kills.POINTS |= POINTS
    answer_jobs(run)
