"""Webhooks on their way: a queue that never makes anyone wait, and a few threads that end when it
is empty.
"""

from __future__ import annotations

import random
import socket
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from ..protocol.faults import Faults
from ..samples.values import Object
from .post import post

THREADS = 4
MAX_QUEUED = 10_000
HOLD_SECONDS = 0.2
"""Seconds for which one that should overtake those that were held back is waited for."""


@dataclass(slots=True, eq=False)
class WebhookEndpoint:
    """A webhook endpoint, and the secret that signs what goes there."""

    object: Object
    secret: str

    @property
    def id(self) -> str:
        return str(self.object["id"])

    @property
    def enabled(self) -> bool:
        return bool(self.object["status"] == "enabled")

    def wants(self, type: str) -> bool:
        return self.enabled and (
            "*" in self.object["enabled_events"] or type in self.object["enabled_events"]
        )


class Delivery(NamedTuple):
    """One event for one endpoint."""

    hook: WebhookEndpoint
    event: str
    body: bytes


class Failure(NamedTuple):
    delivery: Delivery
    why: str


class Sender:
    """What is due, what is held back so that it comes later than it should, and what has failed."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.due: deque[Delivery] = deque()
        self.held_back: list[Delivery] = []
        self.failed: list[Failure] = []
        self.pending: dict[str, set[str]] = {}  # events, and the endpoints that have not taken them
        self.running: set[socket.socket] = set()
        self.threads = self.busy = 0

    def enqueue(self, delivery: Delivery, faults: Faults) -> None:
        """Take one for later; with bad luck it never comes, comes twice, or comes after others.
        Lost: Stripe thinks it came.
        """
        luck = faults.rng("webhooks")
        shares = (faults.webhooks_lost, faults.webhooks_doubled, faults.webhooks_shuffled)
        lost, twice, held_back = (bool(share) and luck.random() < share for share in shares)
        with self.changed:
            self._release(faults.rng("shuffled"))
            for _ in range(0 if lost else 1 + twice):
                self._queue(delivery, held_back)

    def resend(self) -> int:
        """Take all that have failed once more; says how many."""
        with self.changed:
            again, self.failed = self.failed, []
            for failure in again:
                self._queue(failure.delivery)
            return len(again)

    def drain(self, timeout: float) -> None:
        with self.changed:
            self._release()
            if not self.changed.wait_for(lambda: not self.outstanding, timeout):
                raise TimeoutError(f"{self.outstanding} webhooks are still due after {timeout} s")

    @property
    def outstanding(self) -> int:
        """How many are due or being sent."""
        return len(self.due) + len(self.held_back) + self.busy

    def forget(self, hook: WebhookEndpoint) -> None:
        """Nothing more goes there, also nothing of what has failed."""
        with self.changed:
            self.due = deque(one for one in self.due if one.hook is not hook)
            self.held_back = [one for one in self.held_back if one.hook is not hook]
            self.failed = [one for one in self.failed if one.delivery.hook is not hook]
            for event in list(self.pending):
                self._mark_delivered(event, hook)
            self.changed.notify_all()

    def close(self) -> None:
        """Send nothing more: what is due and what is being sent has failed."""
        with self.changed:
            self.failed += [
                Failure(one, "the sandbox stopped") for one in (*self.due, *self.held_back)
            ]
            self.due.clear()
            self.held_back.clear()
            for connection in list(self.running):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.changed.notify_all()

    def _queue(self, delivery: Delivery, held_back: bool = False) -> None:
        self.pending.setdefault(delivery.event, set()).add(delivery.hook.id)
        if len(self.due) + len(self.held_back) >= MAX_QUEUED:
            self.failed.append(Failure(delivery, "the queue is full"))
            return
        (self.held_back if held_back else self.due).append(delivery)
        if self.threads < min(THREADS, self.outstanding):
            self.threads += 1
            threading.Thread(target=self._work, name="webhooks", daemon=True).start()
        self.changed.notify_all()

    def _release(self, luck: random.Random | None = None) -> None:
        """What was held back is due: some of it by luck, else all, the last first."""
        freed: list[Delivery] = []
        kept: list[Delivery] = []
        for one in self.held_back:
            (freed if luck is None or luck.random() < 0.3 else kept).append(one)
        self.held_back = kept
        self.due.extend(reversed(freed))
        self.changed.notify_all()

    def _work(self) -> None:
        while (delivery := self._next()) is not None:
            why = _sent(delivery, self.running)
            with self.changed:
                self.busy -= 1
                if why and delivery.hook.enabled:
                    self.failed.append(Failure(delivery, why))
                else:
                    self._mark_delivered(delivery.event, delivery.hook)
                self.changed.notify_all()

    def _next(self) -> Delivery | None:
        with self.changed:
            if not self.due and self.held_back:
                self.changed.wait_for(lambda: self.due or not self.held_back, HOLD_SECONDS)
                if not self.due:
                    self._release()
            if self.due:
                self.busy += 1
                return self.due.popleft()
            self.threads -= 1
            return None

    def _mark_delivered(self, event: str, hook: WebhookEndpoint) -> None:
        missing = self.pending.get(event, set())
        missing.discard(hook.id)
        if not missing:
            self.pending.pop(event, None)


def _sent(delivery: Delivery, running: set[socket.socket]) -> str:
    """Why it failed, or nothing."""
    try:
        status = post(delivery.hook.object["url"], delivery.hook.secret, delivery.body, running)
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "" if 200 <= status < 300 else f"answered {status}"
