"""The events of one call, oldest first, in batches that end with a whole second."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from queue import Empty

from ...api.client import Api
from .reader import Call, Event, Stream, oldest_first

BATCH_EVENTS = 2_000
BATCH_BYTES = 16_000_000


class Reading:
    """The events of one call on their way, cut into batches that end with a whole second; `cut` is
    where the next one begins.
    """

    def __init__(self, call: Call, api: Api, lo: int, hi: int) -> None:
        self.call, self.hi, self.cut = call, hi, lo
        self.stream = Stream(oldest_first(api, call.types, lo, hi))
        self.waiting: list[Event] = []
        self.size = 0
        self.last = self.ended = False

    @property
    def ready(self) -> bool:
        """Whether a batch can be taken, having looked what has come."""
        while not (self.last or self._is_full):
            try:
                self._add(self.stream.take(0))
            except Empty:
                return False
        return True

    @property
    def _is_full(self) -> bool:
        """A second is never cut, however many events it holds."""
        enough = len(self.waiting) >= BATCH_EVENTS or self.size >= BATCH_BYTES
        return enough and self.waiting[0].created < self.waiting[-1].created

    def wait(self) -> None:
        """Wait a moment for the next page."""
        if not self.ready:
            with suppress(Empty):
                self._add(self.stream.take(0.05))

    def take(self) -> list[Event]:
        """A batch; after it `cut` has moved on."""
        self.ended, self.cut = self.last, self.hi if self.last else self.waiting[-1].created
        batch = [event for event in self.waiting if event.created < self.cut]
        self.waiting = [event for event in self.waiting if event.created >= self.cut]
        self.size = _size(self.waiting)
        return batch

    def _add(self, some: list[Event] | None) -> None:
        self.last = some is None
        self.waiting += some or []
        self.size += _size(some or [])


def _size(events: Sequence[Event]) -> int:
    return sum(len(bytes(event.data.object)) for event in events)
