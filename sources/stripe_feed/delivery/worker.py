"""Messages to receivers: one after the other in each lane, lanes side by side, tried again on a
schedule until they are given up.

Only one process delivers from a store. A message counts as sent once that is noted: killed in
between, it is sent again, with the same id.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from ..destination.locks import lock_file
from ..errors import StripeFeedError
from ..feed.lookups import NO_LOOKUPS, Lookups, LookupUnavailable
from ..feed.net import net_between
from ..feed.storage.store import FeedStore, delivery_lock
from ..feed.storage.store_errors import Unusable
from . import endpoint_health
from .endpoint import Receiver, Route, variables
from .outbox import Attempt, Message, begun, due, is_in_doubt, skipped, told, tried
from .payloads import NotRenderable, Telling
from .queues import MOST, Lanes, Sent
from .transports import Outcome

log = logging.getLogger("stripe_feed")

SCHEDULE = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds before the 2nd, 3rd, … attempt: https://www.standardwebhooks.com (deliverability)."""

JITTER = 0.2
AT_ONCE = 8  # messages of one trigger under way, without those that take much longer than others
SOON = 0.02  # seconds between two looks whether a place is free
READ = 1_000  # lanes looked up at once
LATER = 5.0  # seconds until what cannot be looked up is tried again
TICK = 0.5  # seconds
BUSY = "delivers from this store already. Leave it to that one, or end it first."


@dataclass
class Delivered:
    """What a delivery did: messages sent, tries that failed and will be repeated, messages given up
    or dropped; and which triggers are disabled, and why.
    """

    sent: int = 0
    failed: int = 0
    dead: int = 0
    dropped: int = 0
    disabled: dict[str, str] = field(default_factory=dict)


class Delivery:
    """Sends what is due, from one store, for these triggers; `close` it.

    `now` is the clock, in Unix seconds. Raises `SetupError` where another process delivers, or a
    secret is not set.
    """

    def __init__(
        self,
        store: FeedStore,
        triggers: Sequence[Route],
        *,
        now: Callable[[], float] = time.time,
        dice: random.Random | None = None,
        at_once: int = AT_ONCE,
        lookups: Lookups = NO_LOOKUPS,
        **network: Any,
    ) -> None:
        self.lookups = lookups
        self.store, self.now, self.dice, self.at_once = store, now, dice or random.Random(), at_once
        self.until = now  # what is due by then is sent
        self.done = Delivered()
        self.ended: SimpleQueue[Sent] = SimpleQueue()
        self.under_way = 0
        self.has_room = False  # what comes of a try can be noted, as far as one can know
        self.unnoted: list[Sent] = []  # it was sent, and could not be written down yet
        hidden = variables(one.deliver for one in triggers)
        self.lanes = {
            one.name: Lanes(
                one,
                Receiver(one.name, one.deliver, now, hidden, **network),
                ThreadPoolExecutor(MOST if one.deliver.kind == "url" else at_once, one.name),
                at_once,
            )
            for one in triggers
        }

    def close(self) -> None:
        """Wait for what is under way, and let go of everything."""
        for lanes in self.lanes.values():
            lanes.pool.shutdown()
            lanes.receiver.close()

    def once(self, stop: threading.Event | None = None) -> Delivered:
        """Send everything that is due when this is called, lane by lane; what fails waits for
        another call.

        `stop`: begin nothing more; what is under way is finished and noted.
        """
        began = self.now()
        self.until = lambda: began
        self._pump(stop or threading.Event(), lambda: False)
        return self.done

    def follow(self, stop: threading.Event, tick: Callable[[], object]) -> Delivered:
        """Go on until `stop`; `tick` is called about twice a second, to make new messages."""
        self.until, last = self.now, 0.0

        def go_on() -> bool:
            nonlocal last
            if time.monotonic() >= last + TICK:
                tick()
                self._look()
                last = time.monotonic()
            return True

        self._pump(stop, go_on)
        return self.done

    def _pump(self, stop: threading.Event, go_on: Callable[[], bool]) -> None:
        try:
            self._note([])
            self._look()
            while self._begin(stop) or not stop.is_set():
                if self.under_way:
                    self._note(self._ended())
                    if not stop.is_set():
                        go_on()
                elif not self._look():
                    if not go_on():
                        return
                    if not any(lanes.ready for lanes in self.lanes.values()):
                        stop.wait(TICK)
        finally:  # whatever happened, what was sent is noted
            rest = [self.ended.get() for _ in range(self.under_way)]
            self.under_way = 0
            try:
                self._note(rest)
            finally:  # what could not be noted is not sent again by this one
                for name, lanes in self.lanes.items():
                    lanes.busy = {
                        one.message.lane: 0.0 for one in self.unnoted if one.message.trigger == name
                    }

    def _begin(self, stop: threading.Event) -> bool:
        """Begin what may begin now, once that is noted: where nothing can be noted, nothing is
        sent. Whether any is under way.
        """
        chosen = [] if stop.is_set() else list(self._next())
        if chosen:
            now = self.now()
            # or every run sends it again on a disk that is nearly full
            if not self.has_room and is_in_doubt(self.store):
                self.store.require_space()
            self.has_room = True
            with self.store.transaction() as db:
                alive = [begun(db, message, now) for message in chosen]
            for message, is_alive in zip(chosen, alive, strict=True):
                lanes = self.lanes[message.trigger]
                if is_alive:
                    self.under_way += 1
                    lanes.pool.submit(self._send, lanes, message)
                else:  # it was dropped meanwhile
                    del lanes.busy[message.lane]
                    self._go_on(lanes, message.lane)
        return self.under_way > 0

    def _ended(self) -> list[Sent]:
        """The tries that have ended by now: at least one, unless it takes long."""
        found = list[Sent]()
        with suppress(Empty):
            found.append(
                self.ended.get(
                    timeout=SOON if any(one.ready for one in self.lanes.values()) else TICK
                )
            )
            while True:
                found.append(self.ended.get_nowait())
        self.under_way -= len(found)
        return found

    def _look(self) -> bool:
        """Find the lanes whose first message is due; whether there are any."""
        disabled, pauses = (
            endpoint_health.disabled(self.store),
            endpoint_health.pauses(self.store, self.now()),
        )
        self.done.disabled = {name: disabled[name] for name in self.lanes if name in disabled}
        for name, lanes in self.lanes.items():
            lanes.disabled, lanes.paused_until, lanes.has_more = (
                name in disabled,
                pauses.get(name, 0.0),
                True,
            )
            self._fill(lanes)
        return any(lanes.ready for lanes in self.lanes.values())

    def _fill(self, lanes: Lanes) -> None:
        """Look up some of the lanes of a trigger whose first message is due, where none of them is
        known.
        """
        if lanes.ready or not lanes.has_more or self._rests(lanes):
            return
        found = due(
            self.store, lanes.trigger.name, self.until(), self.now(), lanes.is_blocking, READ
        )
        lanes.unread = found if lanes.receiver.looks_up else []
        lanes.has_more = len(found) == READ
        lanes.ready += [one for one in found if one.lane not in lanes.busy]

    def _look_up(self, lanes: Lanes) -> None:
        """Read at once what the messages of a trigger look up; the first that is sent does it, and
        no other trigger waits for it. Where it cannot be read, each of them will say so.
        """
        with lanes.looking:
            found, lanes.unread = lanes.unread, []
            if found:
                changes = filter(None, (self.store.by_id(one.change_id) for one in found))
                with suppress(StripeFeedError):
                    self.lookups.prefetch(changes, lanes.receiver.looks_up)

    def _go_on(self, lanes: Lanes, lane: str) -> None:
        """Find what follows in a lane."""
        if not self._rests(lanes):
            lanes.ready += due(
                self.store, lanes.trigger.name, self.until(), self.now(), lanes.is_blocking, 1, lane
            )

    def _rests(self, lanes: Lanes) -> bool:
        return lanes.disabled or self.now() < lanes.paused_until

    def _next(self) -> Iterator[Message]:
        """What may begin now, trigger by trigger: a slow receiver does not hold the others."""
        for lanes in self.lanes.values():
            if self._rests(lanes):
                lanes.ready.clear()
                lanes.has_more = True
            while lanes.has_place():
                self._fill(lanes)
                if not lanes.ready:
                    break
                message = lanes.ready.popleft()
                lanes.busy[message.lane] = time.monotonic()
                yield message

    def _send(self, lanes: Lanes, message: Message) -> None:
        began, clock = self.now(), time.monotonic()
        try:
            self._look_up(lanes)
            telling = self._telling(message, lanes.receiver.looks_up)
            if telling is None:
                outcome = Outcome(False, "gone", note="its change is no more in the feed")
            else:
                outcome = lanes.receiver.send(message.message_id, lanes.receiver.body(telling))
        except NotRenderable as fault:
            outcome = Outcome(False, "gone", note=str(fault))
        except LookupUnavailable as fault:
            outcome = Outcome(False, "later", note=str(fault))
        except Unusable as fault:
            outcome = Outcome(False, "later", note=str(fault))
        except StripeFeedError as fault:
            outcome = Outcome(False, "setup", note=str(fault))
        except Exception as fault:  # its words may hold data
            outcome = Outcome(False, f"error {type(fault).__name__}")
        self.ended.put(
            Sent(
                message,
                outcome,
                began,
                0.0 if outcome.code in ("gone", "later") else time.monotonic() - clock,
            )
        )

    def _telling(self, message: Message, looks_up: frozenset[str]) -> Telling | None:
        """What a message tells, made of its changes; nothing where they were pruned."""
        last = self.store.by_id(message.change_id)
        first = (
            last
            if message.first_change_id == message.change_id
            else self.store.by_id(message.first_change_id)
        )
        if last is None or first is None:
            return None
        if self.store.query(
            "select 1 from log where change_id = ? and body is null", last.change_id
        ):
            raise NotRenderable("The object was forgotten.")
        about = last if first is last else net_between(self.store, first, last)
        if about is None:
            raise NotRenderable("The object ended as it began.")
        beside = self.lookups.related(last, looks_up) if looks_up else {}
        return Telling(
            about, message.trigger, message.message_id, tuple(skipped(self.store, message)), beside
        )

    def _note(self, ended: Sequence[Sent]) -> None:
        """Note what came of some tries, all in one transaction, and find what follows in their
        lanes.
        """
        self.unnoted += ended
        if not self.unnoted:
            return
        with self.store.transaction() as db:
            came = [self._noted(db, one) for one in self.unnoted]
        noted, self.unnoted = self.unnoted, []
        for one, what in zip(noted, came, strict=True):
            lanes = self.lanes[one.message.trigger]
            lanes.busy.pop(one.message.lane, None)
            setattr(self.done, what, getattr(self.done, what) + 1)
            if one.outcome.ok:
                lanes.takes += (one.seconds - lanes.takes) / 8
        for one in noted:
            self._go_on(self.lanes[one.message.trigger], one.message.lane)

    def _noted(self, db: sqlite3.Connection, sent: Sent) -> str:
        """Note what came of a try; return it in the words of `Delivered`."""
        message, outcome, lanes = sent.message, sent.outcome, self.lanes[sent.message.trigger]
        attempt = Attempt(sent.began, sent.seconds, outcome.code, outcome.note)
        if outcome.ok:
            tried(db, message, attempt, "sent")
            told(db, message)
            endpoint_health.succeeded(db, message.trigger)
            lanes.waits_for = ""
            return "sent"
        if outcome.code == "later":  # no try: nothing was sent
            if outcome.note != lanes.waits_for:
                log.warning(
                    "The trigger %s cannot make a message yet: %s", message.trigger, outcome.note
                )
            lanes.waits_for = outcome.note
            db.execute(
                "update messages set due_at = ?, begun_at = null where number = ?",
                (sent.began + LATER, message.number),
            )
            return "failed"
        if outcome.code == "gone":
            tried(db, message, attempt, "dropped")
            return "dropped"
        return self._failed(db, message, attempt, outcome)

    def _failed(
        self, db: sqlite3.Connection, message: Message, attempt: Attempt, outcome: Outcome
    ) -> str:
        now = attempt.at + attempt.seconds
        lanes = self.lanes[message.trigger]
        until, why = endpoint_health.failed(db, message.trigger, now, outcome)
        lanes.paused_until = max(lanes.paused_until, until or 0.0)
        if why is not None:
            lanes.disabled, self.done.disabled[message.trigger] = True, why
        if message.tries >= len(SCHEDULE):
            tried(db, message, attempt, "dead")
            log.warning(
                "The message %s of the trigger %s is given up after %d attempts (%s): `stripe-feed feed dead list`.",
                message.message_id,
                message.trigger,
                message.tries + 1,
                outcome.code,
            )
            return "dead"
        pause = SCHEDULE[message.tries] * self.dice.uniform(1 - JITTER, 1 + JITTER)
        tried(db, message, attempt, "waiting", now + max(pause, outcome.retry_after or 0.0))
        return "failed"


@contextmanager
def delivering(store: FeedStore, triggers: Sequence[Route], **settings: Any) -> Iterator[Delivery]:
    """A delivery, and the only one of this store. Raises `SetupError` where another process
    delivers.
    """
    with lock_file(delivery_lock(store.path), "stripe-feed deliver", does=BUSY):
        delivery = Delivery(store, triggers, **settings)
        try:
            yield delivery
        finally:
            delivery.close()
