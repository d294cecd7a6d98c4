"""Idempotency keys: a repeated request gets the stored outcome of the first one, for a day."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .errors import Refusal, key_in_use, key_too_long, reused_key
from .parameters import Params

KEY_LIFETIME = 86_400
MAX_KEY_LENGTH = 255


class Outcome(NamedTuple):
    """How the execution of one request ended, whatever the status."""

    at: int
    path: str
    params: Params
    status: int
    body: bytes
    request_id: str


class IdempotencyStore:
    """Outcomes by key. A request that never began to execute has none."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.outcomes: dict[str, Outcome] = {}
        self.in_flight: dict[str, float] = {}  # until when, on `clock`

    def find(self, key: str, now: int, path: str, params: Params) -> Outcome | None:
        """The stored outcome; refuses a key in flight, and one used for another request."""
        if len(key) > MAX_KEY_LENGTH:
            raise key_too_long()
        if self.clock() < self.in_flight.get(key, 0.0):
            raise key_in_use(key)
        first = self.outcomes.get(key)
        if first is None or first.at < now - KEY_LIFETIME:
            return None
        if first.path != path:
            raise reused_key(
                key, f"for the same endpoint they were first used for ('{path}' vs '{first.path}')"
            )
        if first.params != params:
            raise reused_key(key, "with the same parameters they were first used with")
        return first

    def keep(self, key: str, outcome: Outcome) -> None:
        self.outcomes[key] = outcome

    def hold(self, key: str, seconds: float) -> None:
        """The request with this key is answered so many seconds from now."""
        self.in_flight[key] = self.clock() + seconds


class ReplayedRefusal(Refusal):
    """A stored outcome that was a refusal, byte for byte."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.status, "a stored refusal")
        self.stored = outcome.body

    def body(self, request_id: str, now: int, mode: str) -> bytes:
        return self.stored
