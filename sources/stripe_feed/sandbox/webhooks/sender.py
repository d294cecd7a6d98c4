"""Webhooks on their way: a queue that never makes anyone wait, and a few threads that end when it
is empty.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from ..protocol.faults import Faults
from ..samples.customers import Object
from .post import post

THREADS = 4
QUEUE = 10_000
HELD = 0.2
"""Seconds for which one that should overtake those that were held back is waited for."""


@dataclass(slots=True, eq=False)
class Hook:
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

    hook: Hook
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
        self.held: list[Delivery] = []
        self.failed: list[Failure] = []
        self.pending: dict[str, set[str]] = {}  # events, and the endpoints that have not taken them
        self.running: set[socket.socket] = set()
        self.threads = self.busy = 0

    def offer(self, delivery: Delivery, faults: Faults) -> None:
        """Take one for later; with bad luck it never comes, comes twice, or comes after others.
        Lost: Stripe thinks it came.
        """
        luck = faults.dice("webhooks")
        shares = (faults.webhooks_lost, faults.webhooks_doubled, faults.webhooks_shuffled)
        lost, twice, held = (bool(share) and luck.random() < share for share in shares)
        with self.changed:
            self._release(faults.dice("shuffled"))
            for _ in range(0 if lost else 1 + twice):
                self._queue(delivery, held)

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
            if not self.changed.wait_for(lambda: not self.left, timeout):
                raise TimeoutError(f"{self.left} webhooks are still due after {timeout} s")

    @property
    def left(self) -> int:
        """How many are due or being sent."""
        return len(self.due) + len(self.held) + self.busy

    def forget(self, hook: Hook) -> None:
        """Nothing more goes there, also nothing of what has failed."""
        with self.changed:
            self.due = deque(one for one in self.due if one.hook is not hook)
            self.held = [one for one in self.held if one.hook is not hook]
            self.failed = [one for one in self.failed if one.delivery.hook is not hook]
            for event in list(self.pending):
                self._reached(event, hook)
            self.changed.notify_all()

    def close(self) -> None:
        """Send nothing more: what is due and what is being sent has failed."""
        with self.changed:
            self.failed += [Failure(one, "the sandbox stopped") for one in (*self.due, *self.held)]
            self.due.clear()
            self.held.clear()
            for connection in list(self.running):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.changed.notify_all()

    def _queue(self, delivery: Delivery, held: bool = False) -> None:
        self.pending.setdefault(delivery.event, set()).add(delivery.hook.id)
        if len(self.due) + len(self.held) >= QUEUE:
            self.failed.append(Failure(delivery, "the queue is full"))
            return
        (self.held if held else self.due).append(delivery)
        if self.threads < min(THREADS, self.left):
            self.threads += 1
            threading.Thread(target=self._work, name="webhooks", daemon=True).start()
        self.changed.notify_all()

    def _release(self, luck: Random | None = None) -> None:
        """What was held back is due: some of it by luck, else all, the last first."""
        freed: list[Delivery] = []
        kept: list[Delivery] = []
        for one in self.held:
            (freed if luck is None or luck.random() < 0.3 else kept).append(one)
        self.held = kept
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
                    self._reached(delivery.event, delivery.hook)
                self.changed.notify_all()

    def _next(self) -> Delivery | None:
        with self.changed:
            if not self.due and self.held:
                self.changed.wait_for(lambda: self.due or not self.held, HELD)
                if not self.due:
                    self._release()
            if self.due:
                self.busy += 1
                return self.due.popleft()
            self.threads -= 1
            return None

    def _reached(self, event: str, hook: Hook) -> None:
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
