"""The queue of webhooks, and a few threads that send them and end when it is empty. Adding to it
never blocks.
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
"""How long the sender waits for a webhook that should overtake those held back."""


@dataclass(slots=True, eq=False)
class WebhookEndpoint:
    """A webhook endpoint with its signing secret."""

    object: Object
    secret: str
    connect: bool = False  # for the events of connected accounts instead of the account's own

    @property
    def id(self) -> str:
        return str(self.object["id"])

    @property
    def enabled(self) -> bool:
        return bool(self.object["status"] == "enabled")

    def subscribes_to(self, type: str) -> bool:
        return self.enabled and (
            "*" in self.object["enabled_events"] or type in self.object["enabled_events"]
        )


class Delivery(NamedTuple):
    """One event for one endpoint."""

    endpoint: WebhookEndpoint
    event: str
    body: bytes


class Failure(NamedTuple):
    delivery: Delivery
    why: str


class Sender:
    """Webhooks that are due, that are held back to arrive late, and that have failed."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.due: deque[Delivery] = deque()
        self.held_back: list[Delivery] = []
        self.failed: list[Failure] = []
        self.pending: dict[str, set[str]] = {}  # event -> endpoints that have not received it
        self.connections: set[socket.socket] = set()
        self.threads = self.busy = 0

    def enqueue(self, delivery: Delivery, faults: Faults) -> None:
        """Queue a webhook. The faults decide whether it is lost, sent twice or held back. A lost
        one counts as delivered.
        """
        rng = faults.rng("webhooks")
        shares = (faults.webhooks_lost, faults.webhooks_doubled, faults.webhooks_shuffled)
        lost, twice, held_back = (bool(share) and rng.random() < share for share in shares)
        with self.changed:
            self._release(faults.rng("shuffled"))
            for _ in range(0 if lost else 1 + twice):
                self._queue(delivery, held_back)

    def resend(self) -> int:
        """Queue all failed webhooks again and return their number."""
        with self.changed:
            failures, self.failed = self.failed, []
            for failure in failures:
                self._queue(failure.delivery)
            return len(failures)

    def drain(self, timeout: float) -> None:
        with self.changed:
            self._release()
            if not self.changed.wait_for(lambda: not self.outstanding, timeout):
                raise TimeoutError(f"{self.outstanding} webhooks are still due after {timeout} s")

    @property
    def outstanding(self) -> int:
        """How many webhooks are due or being sent."""
        return len(self.due) + len(self.held_back) + self.busy

    def forget(self, endpoint: WebhookEndpoint) -> None:
        """Drop all webhooks for an endpoint, including those that have failed."""
        with self.changed:
            self.due = deque(delivery for delivery in self.due if delivery.endpoint is not endpoint)
            self.held_back = [
                delivery for delivery in self.held_back if delivery.endpoint is not endpoint
            ]
            self.failed = [
                delivery for delivery in self.failed if delivery.delivery.endpoint is not endpoint
            ]
            for event in list(self.pending):
                self._mark_delivered(event, endpoint)
            self.changed.notify_all()

    def close(self) -> None:
        """Stop sending: webhooks that are due or being sent count as failed."""
        with self.changed:
            self.failed += [
                Failure(delivery, "the sandbox stopped")
                for delivery in (*self.due, *self.held_back)
            ]
            self.due.clear()
            self.held_back.clear()
            for connection in list(self.connections):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.changed.notify_all()

    def _queue(self, delivery: Delivery, held_back: bool = False) -> None:
        self.pending.setdefault(delivery.event, set()).add(delivery.endpoint.id)
        if len(self.due) + len(self.held_back) >= MAX_QUEUED:
            self.failed.append(Failure(delivery, "the queue is full"))
            return
        (self.held_back if held_back else self.due).append(delivery)
        if self.threads < min(THREADS, self.outstanding):
            self.threads += 1
            threading.Thread(target=self._work, name="webhooks", daemon=True).start()
        self.changed.notify_all()

    def _release(self, rng: random.Random | None = None) -> None:
        """Make held back webhooks due, the last first: all of them, or a random part."""
        released: list[Delivery] = []
        kept: list[Delivery] = []
        for delivery in self.held_back:
            (released if rng is None or rng.random() < 0.3 else kept).append(delivery)
        self.held_back = kept
        self.due.extend(reversed(released))
        self.changed.notify_all()

    def _work(self) -> None:
        while (delivery := self._next()) is not None:
            why = _send(delivery, self.connections)
            with self.changed:
                self.busy -= 1
                if why and delivery.endpoint.enabled:
                    self.failed.append(Failure(delivery, why))
                else:
                    self._mark_delivered(delivery.event, delivery.endpoint)
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

    def _mark_delivered(self, event: str, endpoint: WebhookEndpoint) -> None:
        waiting = self.pending.get(event, set())
        waiting.discard(endpoint.id)
        if not waiting:
            self.pending.pop(event, None)


def _send(delivery: Delivery, connections: set[socket.socket]) -> str:
    """Send one webhook; returns why it failed, or an empty string."""
    try:
        status = post(
            delivery.endpoint.object["url"], delivery.endpoint.secret, delivery.body, connections
        )
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "" if 200 <= status < 300 else f"answered {status}"
