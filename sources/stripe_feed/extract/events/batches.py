"""Cut the events of one poll group, oldest first, into batches that end with a whole second."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from queue import Empty

from ...api.client import Api
from .reader import Event, PollGroup, Prefetch, oldest_first

BATCH_EVENTS = 2_000
BATCH_BYTES = 16_000_000


class EventBatches:
    """The events of one poll group, in batches that end with a whole second; `next_start` is the
    second at which the next batch begins. Events of types that no resource of the group has are
    dropped as they come.
    """

    def __init__(self, group: PollGroup, api: Api, lo: int, hi: int) -> None:
        self.group, self.hi, self.next_start = group, hi, lo
        # an event whose type cannot be read is kept: it may be of any
        self.types = {"", *(type for resource in group.resources for type in resource.events)}
        self.stream = Prefetch(oldest_first(api, group.types, lo, hi))
        self.buffered: list[Event] = []
        self.buffered_bytes = 0
        self.exhausted = self.finished = False

    @property
    def ready(self) -> bool:
        """Whether a batch can be taken; first buffers every page that has arrived."""
        while not (self.exhausted or self._is_full):
            try:
                self._add(self.stream.next_page(0))
            except Empty:
                return False
        return True

    @property
    def _is_full(self) -> bool:
        """A second is never split, however many events it holds."""
        enough = len(self.buffered) >= BATCH_EVENTS or self.buffered_bytes >= BATCH_BYTES
        return enough and self.buffered[0].created < self.buffered[-1].created

    def wait_for_page(self) -> None:
        """Wait briefly for the next page."""
        if not self.ready:
            with suppress(Empty):
                self._add(self.stream.next_page(0.05))

    def next_batch(self) -> list[Event]:
        """Return one batch and move `next_start` past it."""
        self.finished, self.next_start = (
            self.exhausted,
            self.hi if self.exhausted else self.buffered[-1].created,
        )
        batch = [event for event in self.buffered if event.created < self.next_start]
        self.buffered = [event for event in self.buffered if event.created >= self.next_start]
        self.buffered_bytes = _size(self.buffered)
        return batch

    def _add(self, events: list[Event] | None) -> None:
        self.exhausted = events is None
        wanted = [event for event in events or () if event.type in self.types]
        self.buffered += wanted
        self.buffered_bytes += _size(wanted)


def _size(events: Sequence[Event]) -> int:
    return sum(len(bytes(event.data.object)) for event in events)
