"""Read `/v1/events` oldest first, with one page in memory, in batches that end with a whole second.

The API lists newest first. One page is enough if little happened. Otherwise an anchor, the newest
event before the range, and `ending_before` give the pages in the order of occurrence; if the cursor
is far behind, several slices of the range are read in parallel.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from queue import Empty, Full, Queue
from typing import Annotated, Any

import msgspec

from ...api.client import Api, InvalidBody
from ...errors import CursorGone, Unreachable
from ..paging.windows import MAX_EMPTY_PAGES, MAX_REFUSED_CURSORS
from ..tables.rejected import decode_or_none, usable_id
from .poll_groups import PollGroup

log = logging.getLogger("stripe_feed")

EVENTS_PATH = "/v1/events"
SLICE_PAGES = 60  # per slice, if several are read in parallel
SLICES = 4
FAR_BEHIND = 150  # pages; a slice costs two requests more
_LAST_SECOND = 253_402_300_799  # of the year 9999
NEAR_PAGES = 40  # at the end of a range: read newest first, and kept in memory until complete
BATCH_EVENTS = 2_000
BATCH_BYTES = 16_000_000
FEW_PAGES = 10  # of a slice that is read newest first, because it has no anchor


class EventRequest(msgspec.Struct, gc=False):
    """The API request that caused the change."""

    id: str | None = None
    idempotency_key: str | None = None


class EventData(msgspec.Struct, gc=False):
    """The object after the event, and the old values of what changed."""

    object: msgspec.Raw
    previous_attributes: msgspec.Raw = msgspec.Raw(b"")  # `Raw | None` would take nothing but null


class Event(msgspec.Struct, gc=False):
    """One event as Stripe sends it; nested values stay bytes."""

    id: str
    type: str
    created: Annotated[int, msgspec.Meta(ge=0, le=_LAST_SECOND)]
    data: EventData
    api_version: str | None = None
    request: EventRequest | str | None = None
    context: str | None = None
    account: str | None = None  # the connected account, if the event is not of our own
    livemode: bool | None = None


class MalformedEvent(Event):
    """An event of which only the id and time can be read."""


class _Page(msgspec.Struct):
    data: list[Event]
    has_more: bool


class _Raws(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: bool


_event = msgspec.json.Decoder(Event)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_page = msgspec.json.Decoder(_Page)
_raws = msgspec.json.Decoder(_Raws)


def decode_event(body: bytes | msgspec.Raw, created: int = 0) -> Event:
    """Decode one event. If parts of it are not as documented, keep the parts that can be read, at
    least its id and time (else `created`).

    Raises `InvalidBody` if it is no event at all.
    """
    try:
        return _event.decode(body)
    except msgspec.ValidationError:
        pass
    try:
        fields = _fields.decode(body)
    except msgspec.ValidationError:
        raise InvalidBody("no event") from None
    usable = {
        name: value
        for name, raw in fields.items()
        if name in FIELD_TYPES and (value := decode_or_none(raw, FIELD_TYPES[name])) is not None
    }
    if usable_id(usable.get("id")) is None:
        raise InvalidBody("an event without an id")
    if {"type", "created", "data"} <= usable.keys():
        return Event(**usable)
    return MalformedEvent(
        usable["id"],
        usable.get("type", ""),
        usable.get("created", created),
        EventData(msgspec.Raw(b"null")),
    )


FIELD_TYPES: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(Event)}


def _decode_page(body: bytes) -> tuple[list[Event], bool]:
    try:
        page = _page.decode(body)
        return page.data, page.has_more
    except msgspec.ValidationError:
        pass
    try:
        raws = _raws.decode(body)
    except msgspec.ValidationError:
        raise InvalidBody("no list of events") from None
    events: list[Event] = []
    for raw in raws.data:
        try:
            events.append(decode_event(raw, events[-1].created if events else 0))
        except InvalidBody:
            log.warning("An event without an id is left out.")  # nothing could ask for it again
    first = next((event.created for event in events if event.created), 0)
    for event in events:
        event.created = event.created or first
    return events, raws.has_more


EventTypes = Sequence[str] | None  # None: every type


def fetch_events_page(
    api: Api, types: EventTypes, lo: int, hi: int, *, limit: int = 100, **cursor: Any
) -> tuple[list[Event], bool]:
    """Fetch one page of [lo, hi), newest first, and whether there is more. `lo` 0: no lower bound.

    Repeat the request if the page is empty although it announces more.
    """
    created = {"lt": hi, **({"gte": lo} if lo > 0 else {})}
    filters = {} if types is None else {"types": list(types)}
    for _ in range(MAX_EMPTY_PAGES + 1):
        events, has_more = api.get(
            EVENTS_PATH,
            {**filters, "created": created, "limit": limit, **cursor},
            _decode_page,
        ).value
        if events or not has_more:
            return events, has_more
    raise Unreachable(
        f"{EVENTS_PATH} says that it has more but stays empty. Run again; if it stays, report it."
    )


def newest_created(api: Api, path: str = EVENTS_PATH) -> int:
    """The `created` of the newest object of a list, by default of the events; 0 if there is none."""
    objects = api.get(path, {"limit": 1}, _raws.decode).value.data
    try:
        created = _fields.decode(objects[0]).get("created") if objects else None
    except msgspec.ValidationError:
        return 0
    return 0 if created is None else decode_or_none(created, int) or 0


def oldest_first(api: Api, types: EventTypes, lo: int, hi: int) -> Iterator[list[Event]]:
    """Yield the events of [lo, hi) in pages, oldest first; in no order within a second. Without any
    type there are none: Stripe would take no filter for every type.
    """
    if types is not None and not types:
        return
    newest, has_more = _backward(api, types, lo, hi, NEAR_PAGES)
    if not has_more:
        if newest:
            yield newest[::-1]
        return
    seconds = max(
        (newest[0].created - newest[-1].created) // NEAR_PAGES, 1
    )  # per page, at the end of the range
    last = newest[-1].created  # newer events are in memory already
    if (hi - lo) / seconds <= FAR_BEHIND:
        yield from _forward(api, types, lo, last + 1, seconds)
    else:
        yield from _parallel(api, types, lo, last + 1, seconds)
    if rest := [event for event in newest if event.created > last]:
        yield rest[::-1]


def _forward(api: Api, types: EventTypes, lo: int, hi: int, seconds: int) -> Iterator[list[Event]]:
    """Page forward with an anchor and `ending_before`; if the anchor is gone, go on by time."""
    anchor, reached, refused = None, lo, 0
    edge: set[str] = set()  # ids of the second that was reached
    while reached < hi:
        if anchor is None:
            before, _ = fetch_events_page(api, types, 0, reached, limit=1)
            anchor = before[0].id if before else None
        if anchor is None:
            mid = min(hi, reached + FEW_PAGES * seconds)
            events, has_more = _backward(api, types, reached, mid)[0][::-1], mid < hi
            if not events:
                reached, seconds = mid, seconds * 2
                continue
        else:
            try:
                newest, has_more = fetch_events_page(api, types, 0, hi, ending_before=anchor)
            except CursorGone:
                anchor, refused = None, _count_refusal(refused)
                continue
            events = newest[::-1]
        fresh = [event for event in events if event.id not in edge and event.created >= lo]
        if fresh:
            refused = 0
            yield fresh
        if events:
            anchor, reached = events[-1].id, events[-1].created
            edge = {event.id for event in events if event.created == reached} | (
                edge if events[0].created == reached else set()
            )
        if not has_more:
            return


def _count_refusal(refused: int) -> int:
    if refused >= MAX_REFUSED_CURSORS:
        raise Unreachable(
            f"{EVENTS_PATH} refuses one cursor after the other. Run again; if it stays, report it."
        )
    return refused + 1


def _backward(
    api: Api, types: EventTypes, lo: int, hi: int, pages: int | None = None
) -> tuple[list[Event], bool]:
    """All events of [lo, hi), newest first; with `pages`: at most so many pages, and whether there
    is more.
    """
    by_id: dict[str, Event] = {}
    cursor: dict[str, Any] = {}
    refused = 0
    for page_number in count(1):
        try:
            events, has_more = fetch_events_page(api, types, lo, hi, **cursor)
        except CursorGone:
            cursor, hi, refused = (
                {},
                min(event.created for event in by_id.values()) + 1,
                _count_refusal(refused),
            )
            continue
        refused = refused if by_id.keys() >= {event.id for event in events} else 0
        by_id.update((event.id, event) for event in events)
        if not has_more or page_number == pages:
            break
        cursor = {"starting_after": events[-1].id}
    return sorted(by_id.values(), key=lambda event: -event.created), has_more


def _parallel(api: Api, types: EventTypes, lo: int, hi: int, seconds: int) -> Iterator[list[Event]]:
    """Read slices of the range in parallel and yield them in order; the length of a slice adapts to
    the number of events in the one before.
    """
    length = max(seconds * SLICE_PAGES, 1)
    slices: list[Prefetch] = []
    next_start = lo
    try:
        while next_start < hi or slices:
            while next_start < hi and len(slices) < SLICES:
                until = min(hi, next_start + length)
                slices.append(
                    Prefetch(
                        _forward(api, types, next_start, until, seconds),
                        SLICE_PAGES,
                        until - next_start,
                    )
                )
                next_start = until
            stream = slices[0]
            events_read = 0
            for events in stream.pages():
                events_read += len(events)
                yield events
            slices.pop(0)
            length = (
                max(1, int(stream.seconds * SLICE_PAGES * 100 / events_read))
                if events_read
                else length * 2
            )
    finally:
        for stream in slices:
            stream.close()


@dataclass(eq=False)
class Prefetch:
    """Pages that a thread of its own reads ahead, at most `max_pages` of them."""

    source: Iterator[list[Event]]
    max_pages: int = 2
    seconds: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.queue: Queue[Any] = Queue(self.max_pages)
        self.thread = threading.Thread(target=self._work, name="stripe-feed-events", daemon=True)
        self.thread.start()

    def pages(self) -> Iterator[list[Event]]:
        """Yield the pages in order; wait for each."""
        while (events := self.next_page(None)) is not None:
            yield events

    def next_page(self, wait: float | None) -> list[Event] | None:
        """Return the next page, None after the last. Raises `queue.Empty` after `wait` seconds, and
        whatever reading raised.
        """
        item = self.queue.get(wait is None or wait > 0, wait)
        if isinstance(item, BaseException):
            raise item
        events: list[Event] | None = item
        return events

    def close(self) -> None:
        """Stop reading."""
        self.stopped.set()

    def _work(self) -> None:
        try:
            for events in self.source:
                if not self._put(events):
                    return
            self._put(None)
        except BaseException as fault:  # raised again in the consumer's thread
            self._put(fault)

    def _put(self, item: Any) -> bool:
        while not self.stopped.is_set():
            try:
                self.queue.put(item, timeout=0.1)
                return True
            except Full:
                continue
        return False


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
