"""Deliver messages: in order for each ordering key, keys in parallel, with retries on a schedule
until they are given up.

Only one process delivers from a store. A message counts as sent once that is recorded: if killed in
between, it is sent again with the same id.
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
from .endpoint_config import Route, secret_variables
from .outbox import (
    Attempt,
    Message,
    is_in_doubt,
    mark_skips_reported,
    next_due,
    record_attempt,
    record_start,
    skipped,
)
from .payloads import NotRenderable, PayloadContext
from .queues import MAX_WAITING, EndpointQueue, Sent
from .transports import AttemptResult, Endpoint

log = logging.getLogger("stripe_feed")

SCHEDULE = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds before the 2nd, 3rd, … attempt: https://www.standardwebhooks.com (deliverability)."""

_JITTER = 0.2
MAX_IN_FLIGHT = (
    8  # messages of one trigger under way, without those that take much longer than others
)
_POLL_SECONDS = 0.02  # seconds between two looks whether a place is free
_BATCH_SIZE = 1_000  # lanes looked up at once
_RETRY_SECONDS = 5.0  # seconds until what cannot be looked up is tried again
TICK_SECONDS = 0.5  # seconds
ALREADY_DELIVERS = "delivers from this store already. Leave it to that one, or end it first."


@dataclass
class DeliveryReport:
    """What a delivery did: messages sent, attempts that failed and will be repeated, messages given
    up or dropped, and the disabled triggers with the reason.
    """

    sent: int = 0
    failed: int = 0
    dead: int = 0
    dropped: int = 0
    disabled: dict[str, str] = field(default_factory=dict)


class Worker:
    """Deliver the due messages of these triggers from one store; `close` it.

    `now` is the clock, in Unix seconds. Raises `SetupError` if another process delivers, or a
    secret is not set.
    """

    def __init__(
        self,
        store: FeedStore,
        triggers: Sequence[Route],
        *,
        now: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        at_once: int = MAX_IN_FLIGHT,
        lookups: Lookups = NO_LOOKUPS,
        **network: Any,
    ) -> None:
        self.lookups = lookups
        self.store, self.now, self.rng, self.at_once = store, now, rng or random.Random(), at_once
        self.until = now  # what is due by then is sent
        self.done = DeliveryReport()
        self.ended: SimpleQueue[Sent] = SimpleQueue()
        self.under_way = 0
        self.has_room = False  # what comes of a try can be noted, as far as one can know
        self.unnoted: list[Sent] = []  # it was sent, and could not be written down yet
        hidden = secret_variables(trigger.deliver for trigger in triggers)
        self.lanes = {
            trigger.name: EndpointQueue(
                trigger,
                Endpoint(trigger.name, trigger.deliver, now, hidden, **network),
                ThreadPoolExecutor(
                    MAX_WAITING if trigger.deliver.kind == "url" else at_once, trigger.name
                ),
                at_once,
            )
            for trigger in triggers
        }

    def close(self) -> None:
        """Wait for messages in flight, and close everything."""
        for lanes in self.lanes.values():
            lanes.pool.shutdown()
            lanes.endpoint.close()

    def once(self, stop: threading.Event | None = None) -> DeliveryReport:
        """Send everything that is due when this is called, in order per ordering key; failed
        messages wait for another call.

        `stop`: start nothing more; messages in flight are finished and recorded.
        """
        began = self.now()
        self.until = lambda: began
        self._pump(stop or threading.Event(), lambda: False)
        return self.done

    def follow(self, stop: threading.Event, tick: Callable[[], object]) -> DeliveryReport:
        """Deliver until `stop`; `tick` is called about twice a second, to create new messages."""
        self.until, last = self.now, 0.0

        def go_on() -> bool:
            nonlocal last
            if time.monotonic() >= last + TICK_SECONDS:
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
                        stop.wait(TICK_SECONDS)
        finally:  # whatever happened, what was sent is noted
            ended = [self.ended.get() for _ in range(self.under_way)]
            self.under_way = 0
            try:
                self._note(ended)
            finally:  # what could not be noted is not sent again by this one
                for name, lanes in self.lanes.items():
                    lanes.busy = {
                        sent.message.lane: 0.0
                        for sent in self.unnoted
                        if sent.message.trigger == name
                    }

    def _begin(self, stop: threading.Event) -> bool:
        """Start the messages that may start, once that is recorded: what cannot be recorded is not
        sent. Return whether any is in flight.
        """
        chosen = [] if stop.is_set() else list(self._next())
        if chosen:
            now = self.now()
            # or every run sends it again on a disk that is nearly full
            if not self.has_room and is_in_doubt(self.store):
                self.store.require_space()
            self.has_room = True
            with self.store.transaction() as db:
                alive = [record_start(db, message, now) for message in chosen]
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
        """Return the attempts that have ended: at least one, unless that takes long."""
        ended = list[Sent]()
        with suppress(Empty):
            ended.append(
                self.ended.get(
                    timeout=_POLL_SECONDS
                    if any(queue.ready for queue in self.lanes.values())
                    else TICK_SECONDS
                )
            )
            while True:
                ended.append(self.ended.get_nowait())
        self.under_way -= len(ended)
        return ended

    def _look(self) -> bool:
        """Find the ordering keys whose first message is due; return whether there are any."""
        disabled, pauses = (
            endpoint_health.disabled_endpoints(self.store),
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

    def _fill(self, lanes: EndpointQueue) -> None:
        """Query some ordering keys of a trigger whose first message is due, if none is queued."""
        if lanes.ready or not lanes.has_more or self._rests(lanes):
            return
        messages = next_due(
            self.store, lanes.trigger.name, self.until(), self.now(), lanes.is_blocking, _BATCH_SIZE
        )
        lanes.unread = messages if lanes.endpoint.related_tables else []
        lanes.has_more = len(messages) == _BATCH_SIZE
        lanes.ready += [message for message in messages if message.lane not in lanes.busy]

    def _look_up(self, lanes: EndpointQueue) -> None:
        """Read at once the related objects of a trigger's messages. The first sent message does it,
        so no other trigger waits. If that fails, each message reports it.
        """
        with lanes.looking:
            messages, lanes.unread = lanes.unread, []
            if messages:
                changes = filter(
                    None, (self.store.by_id(message.change_id) for message in messages)
                )
                with suppress(StripeFeedError):
                    self.lookups.prefetch(changes, lanes.endpoint.related_tables)

    def _go_on(self, lanes: EndpointQueue, lane: str) -> None:
        """Queue the next message with an ordering key."""
        if not self._rests(lanes):
            lanes.ready += next_due(
                self.store, lanes.trigger.name, self.until(), self.now(), lanes.is_blocking, 1, lane
            )

    def _rests(self, lanes: EndpointQueue) -> bool:
        return lanes.disabled or self.now() < lanes.paused_until

    def _next(self) -> Iterator[Message]:
        """Iterate over the messages that may start now, trigger by trigger: a slow endpoint does
        not hold up the others.
        """
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

    def _send(self, lanes: EndpointQueue, message: Message) -> None:
        began, clock = self.now(), time.monotonic()
        try:
            self._look_up(lanes)
            telling = self._telling(message, lanes.endpoint.related_tables)
            if telling is None:
                outcome = AttemptResult(False, "gone", note="its change is no longer in the feed")
            else:
                outcome = lanes.endpoint.send(message.message_id, lanes.endpoint.body(telling))
        except NotRenderable as fault:
            outcome = AttemptResult(False, "gone", note=str(fault))
        except LookupUnavailable as fault:
            outcome = AttemptResult(False, "later", note=str(fault))
        except Unusable as fault:
            outcome = AttemptResult(False, "later", note=str(fault))
        except StripeFeedError as fault:
            outcome = AttemptResult(False, "setup", note=str(fault))
        except Exception as fault:  # its words may hold data
            outcome = AttemptResult(False, f"error {type(fault).__name__}")
        self.ended.put(
            Sent(
                message,
                outcome,
                began,
                0.0 if outcome.code in ("gone", "later") else time.monotonic() - clock,
            )
        )

    def _telling(self, message: Message, related_tables: frozenset[str]) -> PayloadContext | None:
        """Build a message's context from its changes; None if they were pruned."""
        last = self.store.by_id(message.change_id)
        first = (
            last
            if message.first_change_id == message.change_id
            else self.store.by_id(message.first_change_id)
        )
        if last is None or first is None:
            return None
        if self.store.is_forgotten(last.change_id):
            raise NotRenderable("The object was forgotten.")
        subject = last if first is last else net_between(self.store, first, last)
        if subject is None:
            raise NotRenderable("The object ended as it began.")
        related = self.lookups.related(last, related_tables) if related_tables else {}
        return PayloadContext(
            subject,
            message.trigger,
            message.message_id,
            tuple(skipped(self.store, message)),
            related,
        )

    def _note(self, ended: Sequence[Sent]) -> None:
        """Record how attempts ended, all in one transaction, and queue the next message of their
        ordering keys.
        """
        self.unnoted += ended
        if not self.unnoted:
            return
        with self.store.transaction() as db:
            results = [self._noted(db, one) for one in self.unnoted]
        recorded, self.unnoted = self.unnoted, []
        for sent, result in zip(recorded, results, strict=True):
            lanes = self.lanes[sent.message.trigger]
            lanes.busy.pop(sent.message.lane, None)
            setattr(self.done, result, getattr(self.done, result) + 1)
            if sent.outcome.ok:
                lanes.takes += (sent.seconds - lanes.takes) / 8
        for sent in recorded:
            self._go_on(self.lanes[sent.message.trigger], sent.message.lane)

    def _noted(self, db: sqlite3.Connection, sent: Sent) -> str:
        """Record how an attempt ended; return its field of `DeliveryReport`."""
        message, outcome, lanes = sent.message, sent.outcome, self.lanes[sent.message.trigger]
        attempt = Attempt(sent.began, sent.seconds, outcome.code, outcome.note)
        if outcome.ok:
            record_attempt(db, message, attempt, "sent")
            mark_skips_reported(db, message)
            endpoint_health.record_success(db, message.trigger)
            lanes.waits_for = ""
            return "sent"
        if outcome.code == "later":  # no try: nothing was sent
            if outcome.note != lanes.waits_for:
                log.warning(
                    "Trigger %s cannot create a message yet: %s", message.trigger, outcome.note
                )
            lanes.waits_for = outcome.note
            db.execute(
                "update messages set due_at = ?, begun_at = null where number = ?",
                (sent.began + _RETRY_SECONDS, message.number),
            )
            return "failed"
        if outcome.code == "gone":
            record_attempt(db, message, attempt, "dropped")
            return "dropped"
        return self._failed(db, message, attempt, outcome)

    def _failed(
        self, db: sqlite3.Connection, message: Message, attempt: Attempt, outcome: AttemptResult
    ) -> str:
        now = attempt.at + attempt.seconds
        lanes = self.lanes[message.trigger]
        until, why = endpoint_health.record_failure(db, message.trigger, now, outcome)
        lanes.paused_until = max(lanes.paused_until, until or 0.0)
        if why is not None:
            lanes.disabled, self.done.disabled[message.trigger] = True, why
        if message.tries >= len(SCHEDULE):
            record_attempt(db, message, attempt, "dead")
            log.warning(
                "Message %s of trigger %s is given up after %d attempts (%s): `stripe-feed feed dead list`.",
                message.message_id,
                message.trigger,
                message.tries + 1,
                outcome.code,
            )
            return "dead"
        pause = SCHEDULE[message.tries] * self.rng.uniform(1 - _JITTER, 1 + _JITTER)
        record_attempt(
            db, message, attempt, "waiting", now + max(pause, outcome.retry_after or 0.0)
        )
        return "failed"


@contextmanager
def open_worker(store: FeedStore, triggers: Sequence[Route], **settings: Any) -> Iterator[Worker]:
    """A delivery, and the only one of this store. Raises `SetupError` where another process
    delivers.
    """
    with lock_file(delivery_lock(store.path), "stripe-feed deliver", activity=ALREADY_DELIVERS):
        delivery = Worker(store, triggers, **settings)
        try:
            yield delivery
        finally:
            delivery.close()
