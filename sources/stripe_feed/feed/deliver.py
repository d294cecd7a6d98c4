"""Messages to receivers: one after the other in each lane, lanes side by side, tried again on a schedule until they are given up.

Only one process delivers from a store. A message counts as sent once that is noted: killed in between, it is sent again, with the
same id.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from ..destination import lock_file
from ..errors import StripeFeedError
from .bodies import NotRenderable, Telling
from .consume import Feed
from .fold import between
from .lookups import NOWHERE, Lookups, NotNow
from .messages import Attempt, Message, are_several_failing, due, skipped, tried
from .receivers import Receiver
from .rules import Trigger
from .sinks import Outcome
from .store import FeedStore, delivery_lock
from .triggers import Fired, fire

log = logging.getLogger("stripe_feed")

SCHEDULE = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds before the 2nd, 3rd, … attempt: https://www.standardwebhooks.com (deliverability)."""

JITTER = 0.2
DISABLE_AFTER = 120 * 3_600      # seconds of nothing but failures
AT_ONCE = 8                      # messages of one trigger under way
READ = 1_000                     # lanes looked up at once
LATER = 5.0                      # seconds until what cannot be looked up is tried again
REST = 30.0                      # seconds that a trigger which cannot run is left alone
TICK = 0.5                       # seconds
BUSY = "delivers from this store already. Leave it to that one, or end it first."


@dataclass
class Delivered:
    """What a delivery did: messages sent, tries that failed and will be repeated, messages given up or dropped; and which
    triggers are disabled, and why."""

    sent: int = 0
    failed: int = 0
    dead: int = 0
    dropped: int = 0
    disabled: dict[str, str] = field(default_factory=dict)


@dataclass
class Lanes:
    """The messages of one trigger that are due, and those under way."""

    trigger: Trigger
    receiver: Receiver
    pool: ThreadPoolExecutor
    ready: deque[Message] = field(default_factory=deque)
    busy: set[str] = field(default_factory=set)
    has_more: bool = True           # lanes that were not looked up yet may be due
    paused_until: float = 0.0
    disabled: bool = False

    @property
    def is_blocking(self) -> bool:
        """Whether a message that was given up holds its lane."""
        return self.trigger.deliver.on_exhausted == "block"


Sent = tuple[Outcome, float, float]      # what came of it, when it began, and for how long


class Delivery:
    """Sends what is due, from one store, for these triggers; `close` it.

    `now` is the clock, in Unix seconds. Raises `SetupError` where another process delivers, or a secret is not set.
    """

    def __init__(
        self, store: FeedStore, triggers: Sequence[Trigger], *, now: Callable[[], float] = time.time,
        dice: random.Random | None = None, at_once: int = AT_ONCE, lookups: Lookups = NOWHERE, **network: Any,
    ) -> None:
        self.lookups = lookups
        self.store, self.now, self.dice, self.at_once = store, now, dice or random.Random(), at_once
        self.until = now               # what is due by then is sent
        self.done = Delivered()
        self.lanes = {
            one.name: Lanes(one, Receiver(one.name, one.deliver, now, **network), ThreadPoolExecutor(at_once, one.name))
            for one in triggers
        }

    def close(self) -> None:
        """Wait for what is under way, and let go of everything."""
        for lanes in self.lanes.values():
            lanes.pool.shutdown()
            lanes.receiver.close()

    def once(self, stop: threading.Event | None = None) -> Delivered:
        """Send everything that is due when this is called, lane by lane; what fails waits for another call.

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
        under_way: dict[Future[Sent], Message] = {}
        try:
            self._look()
            while self._begun(under_way, stop) or not stop.is_set():
                if under_way:
                    done, _ = wait(under_way, TICK, FIRST_COMPLETED)
                    self._note([(under_way.pop(one), one.result()) for one in done])
                    if not stop.is_set():
                        go_on()
                elif not self._look():
                    if not go_on():
                        return
                    if not any(lanes.ready for lanes in self.lanes.values()):
                        stop.wait(TICK)
        finally:      # whatever happened, what was sent is noted
            try:
                self._note([(message, one.result()) for one, message in under_way.items()])
            finally:
                for lanes in self.lanes.values():
                    lanes.busy.clear()

    def _begun(self, under_way: dict[Future[Sent], Message], stop: threading.Event) -> bool:
        """Begin what may begin now; whether anything is under way."""
        for message in self._next() if not stop.is_set() else ():
            lanes = self.lanes[message.trigger]
            lanes.busy.add(message.lane)
            under_way[lanes.pool.submit(self._send, lanes, message)] = message
        return bool(under_way)

    def _look(self) -> bool:
        """Find the lanes whose first message is due; whether there are any."""
        disabled = dict(self.store.ask("select name, disabled from triggers where disabled is not null"))
        self.done.disabled = {name: disabled[name] for name in self.lanes if name in disabled}
        for name, lanes in self.lanes.items():
            lanes.disabled, lanes.has_more = name in disabled, True
            self._fill(lanes)
        return any(lanes.ready for lanes in self.lanes.values())

    def _fill(self, lanes: Lanes) -> None:
        """Look up some of the lanes of a trigger whose first message is due, where none of them is known."""
        if lanes.ready or not lanes.has_more or self._rests(lanes):
            return
        found = due(self.store, lanes.trigger.name, self.until(), lanes.is_blocking, READ)
        self._look_up(lanes, found)
        lanes.has_more = len(found) == READ
        lanes.ready += [one for one in found if one.lane not in lanes.busy]

    def _look_up(self, lanes: Lanes, found: Sequence[Message]) -> None:
        """Read what these messages look up at once; where it cannot be read, each of them will say so."""
        if found and lanes.receiver.looks_up:
            changes = filter(None, (self.store.by_id(one.change_id) for one in found))
            with suppress(StripeFeedError):
                self.lookups.fetch(changes, lanes.receiver.looks_up)

    def _rests(self, lanes: Lanes) -> bool:
        return lanes.disabled or self.now() < lanes.paused_until

    def _next(self) -> Iterator[Message]:
        """What may begin now, trigger by trigger: a slow receiver does not hold the others."""
        for lanes in self.lanes.values():
            if self._rests(lanes):
                lanes.ready.clear()
                lanes.has_more = True
            while len(lanes.busy) < self.at_once:
                self._fill(lanes)
                if not lanes.ready:
                    break
                yield lanes.ready.popleft()

    def _send(self, lanes: Lanes, message: Message) -> Sent:
        began, clock = self.now(), time.monotonic()
        try:
            if self.store.ask("select 1 from messages where number = ? and state = 'waiting'", message.number) == []:
                return Outcome(False, "gone", note="it was dropped meanwhile"), began, 0.0
            telling = self._telling(message, lanes.receiver.looks_up)
            if telling is None:
                return Outcome(False, "gone", note="its change is no more in the feed"), began, 0.0
            outcome = lanes.receiver.send(message.message_id, lanes.receiver.body(telling))
        except NotRenderable as fault:
            return Outcome(False, "gone", note=str(fault)), began, 0.0
        except NotNow as fault:
            return Outcome(False, "later", note=str(fault)), began, 0.0
        except StripeFeedError as fault:
            outcome = Outcome(False, "setup", note=str(fault))
        except Exception as fault:      # its words may hold data
            outcome = Outcome(False, f"error {type(fault).__name__}")
        return outcome, began, time.monotonic() - clock

    def _telling(self, message: Message, looks_up: frozenset[str]) -> Telling | None:
        """What a message tells, made of its changes; nothing where they were pruned."""
        last = self.store.by_id(message.change_id)
        first = last if message.first_change_id == message.change_id else self.store.by_id(message.first_change_id)
        if last is None or first is None:
            return None
        if self.store.ask("select 1 from log where change_id = ? and body is null", last.change_id):
            raise NotRenderable("The object was forgotten.")
        about = last if first is last else between(self.store, first, last)
        if about is None:
            raise NotRenderable("The object ended as it began.")
        beside = self.lookups.of(last, looks_up) if looks_up else {}
        return Telling(about, message.trigger, message.message_id, tuple(skipped(self.store, message)), beside)

    def _note(self, ended: Sequence[tuple[Message, Sent]]) -> None:
        """Note what came of some tries, all in one transaction, and find what follows in their lanes."""
        if not ended:
            return
        try:
            with self.store.transaction() as db:
                for message, sent in ended:
                    self._noted(db, message, sent)
        finally:      # what could not be noted is sent again
            for message, _ in ended:
                self.lanes[message.trigger].busy.discard(message.lane)
        for message, _ in ended:
            lanes = self.lanes[message.trigger]
            if not self._rests(lanes):
                lanes.ready += due(self.store, message.trigger, self.until(), lanes.is_blocking, 1, message.lane)

    def _noted(self, db: sqlite3.Connection, message: Message, sent: Sent) -> None:
        outcome, began, seconds = sent
        attempt = Attempt(began, seconds, outcome.code, outcome.note)
        if outcome.ok:
            self.done.sent += 1
            tried(db, message, attempt, "sent")
            db.execute("update triggers set failing_since = null where name = ?", (message.trigger,))
        elif outcome.code == "later":      # no try: nothing was sent
            self.done.failed += 1
            log.warning("The trigger %s cannot look up what its template names yet: %s", message.trigger, outcome.note)
            db.execute("update messages set due_at = ? where number = ?", (began + LATER, message.number))
        elif outcome.code == "gone":
            self.done.dropped += 1
            tried(db, message, attempt, "dropped")
        else:
            self._failed(db, message, attempt, outcome)

    def _failed(self, db: sqlite3.Connection, message: Message, attempt: Attempt, outcome: Outcome) -> None:
        now = attempt.at + attempt.seconds
        if outcome.throttled and outcome.retry_after:
            self.lanes[message.trigger].paused_until = now + outcome.retry_after
        self._disable(db, message.trigger, now, outcome)
        if message.tries >= len(SCHEDULE):
            self.done.dead += 1
            tried(db, message, attempt, "dead")
            log.warning(
                "The message %s of the trigger %s is given up after %d attempts (%s): `stripe-feed feed dead list`.",
                message.message_id, message.trigger, message.tries + 1, outcome.code,
            )
            return
        self.done.failed += 1
        pause = SCHEDULE[message.tries] * self.dice.uniform(1 - JITTER, 1 + JITTER)
        tried(db, message, attempt, "waiting", now + max(pause, outcome.retry_after or 0.0))

    def _disable(self, db: sqlite3.Connection, trigger: str, now: float, outcome: Outcome) -> None:
        """Give up on a receiver that is gone, or that has only failed for days."""
        (since,), = db.execute("select failing_since from triggers where name = ?", (trigger,)).fetchall() or [(None,)]
        why = "it answers 410 Gone" if outcome.gone else None
        if since is None:
            log.warning("The receiver of the trigger %s fails (%s); it is tried again, ever more rarely.", trigger, outcome.code)
            db.execute("update triggers set failing_since = ? where name = ?", (now, trigger))
        elif now - since >= DISABLE_AFTER and are_several_failing(db, trigger, since):
            why = why or f"it has only failed for {DISABLE_AFTER // 3_600} hours"
        if why is not None:
            self.lanes[trigger].disabled = True
            self.done.disabled[trigger] = why
            db.execute("update triggers set disabled = ? where name = ?", (why, trigger))
            log.warning("The receiver of the trigger %s is disabled: %s. `stripe-feed triggers release %s` tries it again.",
                        trigger, why, trigger)


def ticking(feed: Feed, triggers: Sequence[Trigger], now: Callable[[], float] = time.time) -> Callable[[], list[Fired]]:
    """A function that runs the triggers over what is new, again and again; what goes wrong is logged once, and tried again."""
    said: dict[str, str | None] = {}
    rests: dict[str, float] = {}

    def tick() -> list[Fired]:
        try:
            able = [one for one in triggers if rests.get(one.name, 0.0) <= time.monotonic()]
            found = fire(feed.store, able, now(), feed.ids, feed.lookups)
            found += [Fired(one.name, 0, 0, error=said[one.name]) for one in triggers if one not in able]
        except sqlite3.Error as fault:
            found = [Fired(one.name, 0, 0, error=f"the feed store cannot be used ({type(fault).__name__})") for one in triggers]
        for one in found:
            if one.error is not None and one.error != said.get(one.trigger):
                log.warning("The trigger %s does not run: %s", one.trigger, one.error)
            if one.error is not None and rests.get(one.trigger, 0.0) <= time.monotonic():
                rests[one.trigger] = time.monotonic() + REST
            said[one.trigger] = one.error
        return found

    return tick


@contextmanager
def delivering(store: FeedStore, triggers: Sequence[Trigger], **settings: Any) -> Iterator[Delivery]:
    """A delivery, and the only one of this store. Raises `SetupError` where another process delivers."""
    with lock_file(delivery_lock(store.path), "stripe-feed deliver", does=BUSY):
        delivery = Delivery(store, triggers, **settings)
        try:
            yield delivery
        finally:
            delivery.close()


def deliver(
    feed: Feed, triggers: Sequence[Trigger], *, now: Callable[[], float] = time.time, stop: threading.Event | None = None,
    **settings: Any,
) -> tuple[list[Fired], Delivered]:
    """Run the triggers over what is new in a feed, and send every message that is due; return what each did.

    What fails is tried again by a later call, on the schedule. Raises `SetupError` where another process delivers from this
    feed, or a secret is not set, before anything is sent.
    """
    with delivering(feed.store, triggers, now=now, **{"lookups": feed.lookups, **settings}) as delivery:
        fired = fire(feed.store, triggers, now(), feed.ids, feed.lookups)
        return fired, delivery.once(stop)
