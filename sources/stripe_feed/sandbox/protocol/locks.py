"""Locks on objects: one write at a time per object, and per customer."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .errors import lock_timeout_error


class Locks:
    """Objects that a slow write still holds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.held: dict[str, float] = {}  # until when, on `clock`

    def check(self, ids: Iterable[str]) -> None:
        now = self.clock()
        if any(now < self.held.get(id, 0.0) for id in ids):
            raise lock_timeout_error()

    def hold(self, ids: Iterable[str], seconds: float) -> None:
        self.held |= dict.fromkeys(ids, self.clock() + seconds)
