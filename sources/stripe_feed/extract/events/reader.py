"""`/v1/events` -> what happened, oldest first, with a page in memory.

The API is newest first. One page is enough where little happened. Otherwise an anchor, the newest
event before the span, and `ending_before` give the pages in the order of happening; far behind,
several slices of the span are read ahead.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from queue import Full, Queue
from typing import Annotated, Any

import msgspec

from ...api.client import Api, Malformed
from ...errors import CursorGone, Unreachable
from ...resources.model import Resource
from ..paging.windows import MOST_EMPTY, MOST_REFUSED
from ..tables.rejected import read, usable_id

log = logging.getLogger("stripe_feed")

PATH = "/v1/events"
MOST_TYPES = 20  # Stripe's limit for `types[]`
SLICE_PAGES = 60  # per slice, where several are read ahead
SLICES = 4
FAR_BEHIND = 150  # pages; a slice costs two requests more
LAST_SECOND = 253_402_300_799  # of the year 9999
NEAR_PAGES = 40  # read newest first, at the end of a span, and in memory until they are all there
FEW_PAGES = 10  # of a slice that is read newest first, for want of an anchor


class Request(msgspec.Struct, gc=False):
    """Who asked for the change."""

    id: str | None = None
    idempotency_key: str | None = None


class Data(msgspec.Struct, gc=False):
    """The object then, and the old values of what changed."""

    object: msgspec.Raw
    previous_attributes: msgspec.Raw = msgspec.Raw(b"")  # `Raw | None` would take nothing but null


class Event(msgspec.Struct, gc=False):
    """One event as Stripe gives it; what it holds stays bytes."""

    id: str
    type: str
    created: Annotated[int, msgspec.Meta(ge=0, le=LAST_SECOND)]
    data: Data
    api_version: str | None = None
    request: Request | str | None = None
    context: str | None = None
    account: str | None = None  # of a connected account, where it is another's
    livemode: bool | None = None


class OddEvent(Event):
    """An event that cannot be read, but for its id and time."""


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


def event_of(body: bytes | msgspec.Raw, created: int = 0) -> Event:
    """One event; of one that is not as documented, what is: its parts that can be read, or its id
    and time (else `created`).

    Raises `Malformed` where it is no event at all.
    """
    try:
        return _event.decode(body)
    except msgspec.ValidationError:
        pass
    try:
        fields = _fields.decode(body)
    except msgspec.ValidationError:
        raise Malformed("no event") from None
    found = {
        name: value
        for name, raw in fields.items()
        if name in KINDS and (value := read(raw, KINDS[name])) is not None
    }
    if usable_id(found.get("id")) is None:
        raise Malformed("an event without an id")
    if {"type", "created", "data"} <= found.keys():
        return Event(**found)
    return OddEvent(
        found["id"],
        found.get("type", ""),
        found.get("created", created),
        Data(msgspec.Raw(b"null")),
    )


KINDS: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(Event)}


def _decoded(body: bytes) -> tuple[list[Event], bool]:
    try:
        found = _page.decode(body)
        return found.data, found.has_more
    except msgspec.ValidationError:
        pass
    try:
        raws = _raws.decode(body)
    except msgspec.ValidationError:
        raise Malformed("no list of events") from None
    events: list[Event] = []
    for raw in raws.data:
        try:
            events.append(event_of(raw, events[-1].created if events else 0))
        except Malformed:
            log.warning("An event without an id is left out.")  # nothing could ask for it again
    first = next((event.created for event in events if event.created), 0)
    for event in events:
        event.created = event.created or first
    return events, raws.has_more


@dataclass(frozen=True)
class Call:
    """Resources that are read together: their types fit into one request."""

    resources: tuple[Resource, ...]
    types: tuple[str, ...]


def calls(resources: Sequence[Resource]) -> list[Call]:
    """As few calls as their types fit into; the types of a resource stay together."""
    found: list[Call] = []
    for resource in sorted(resources, key=lambda row: -len(row.events)):
        for n, call in enumerate(found):
            both = tuple(dict.fromkeys((*call.types, *resource.events)))
            if len(both) <= MOST_TYPES:
                found[n] = Call((*call.resources, resource), both)
                break
        else:
            found.append(Call((resource,), resource.events))
    return found


def page(
    api: Api, types: Sequence[str], lo: int, hi: int, *, limit: int = 100, **cursor: Any
) -> tuple[list[Event], bool]:
    """One page of [lo, hi), newest first, and whether there is more. `lo` 0: without a lower bound.

    One that is empty and says that there is more is asked for again.
    """
    created = {"lt": hi, **({"gte": lo} if lo > 0 else {})}
    for _ in range(MOST_EMPTY + 1):
        events, has_more = api.get(
            PATH, {"types": list(types), "created": created, "limit": limit, **cursor}, _decoded
        ).value
        if events or not has_more:
            return events, has_more
    raise Unreachable(
        f"{PATH} says that it has more but stays empty. Run again; if it stays, report it."
    )


def newest(api: Api, path: str = PATH) -> int:
    """When the newest object of a list was created, the newest event by default; 0 where there is
    none.
    """
    found = api.get(path, {"limit": 1}, _raws.decode).value.data
    try:
        created = _fields.decode(found[0]).get("created") if found else None
    except msgspec.ValidationError:
        return 0
    return 0 if created is None else read(created, int) or 0


def oldest_first(api: Api, types: Sequence[str], lo: int, hi: int) -> Iterator[list[Event]]:
    """The events of [lo, hi) in pages, the oldest first; within a second in no order."""
    newest, has_more = _backward(api, types, lo, hi, NEAR_PAGES)
    if not has_more:
        if newest:
            yield newest[::-1]
        return
    seconds = max(
        (newest[0].created - newest[-1].created) // NEAR_PAGES, 1
    )  # that a page takes, here at the end
    last = newest[-1].created  # what is newer than that second is there already
    if (hi - lo) / seconds <= FAR_BEHIND:
        yield from _forward(api, types, lo, last + 1, seconds)
    else:
        yield from _ahead(api, types, lo, last + 1, seconds)
    if rest := [event for event in newest if event.created > last]:
        yield rest[::-1]


def _forward(
    api: Api, types: Sequence[str], lo: int, hi: int, seconds: int
) -> Iterator[list[Event]]:
    """By an anchor and `ending_before`; the anchor that is gone is replaced by time."""
    anchor, reached, refused = None, lo, 0
    edge: set[str] = set()  # ids of the second that was reached
    while reached < hi:
        if anchor is None:
            before, _ = page(api, types, 0, reached, limit=1)
            anchor = before[0].id if before else None
        if anchor is None:
            mid = min(hi, reached + FEW_PAGES * seconds)
            found, has_more = _backward(api, types, reached, mid)[0][::-1], mid < hi
            if not found:
                reached, seconds = mid, seconds * 2
                continue
        else:
            try:
                newest, has_more = page(api, types, 0, hi, ending_before=anchor)
            except CursorGone:
                anchor, refused = None, _one_more(refused)
                continue
            found = newest[::-1]
        fresh = [event for event in found if event.id not in edge and event.created >= lo]
        if fresh:
            refused = 0
            yield fresh
        if found:
            anchor, reached = found[-1].id, found[-1].created
            edge = {event.id for event in found if event.created == reached} | (
                edge if found[0].created == reached else set()
            )
        if not has_more:
            return


def _one_more(refused: int) -> int:
    if refused >= MOST_REFUSED:
        raise Unreachable(
            f"{PATH} refuses one cursor after the other. Run again; if it stays, report it."
        )
    return refused + 1


def _backward(
    api: Api, types: Sequence[str], lo: int, hi: int, pages: int | None = None
) -> tuple[list[Event], bool]:
    """All events of [lo, hi), newest first; or those of so many pages, and whether there is more."""
    found: dict[str, Event] = {}
    cursor: dict[str, Any] = {}
    refused = 0
    for n in count(1):
        try:
            some, has_more = page(api, types, lo, hi, **cursor)
        except CursorGone:
            cursor, hi, refused = (
                {},
                min(event.created for event in found.values()) + 1,
                _one_more(refused),
            )
            continue
        refused = refused if found.keys() >= {event.id for event in some} else 0
        found.update((event.id, event) for event in some)
        if not has_more or n == pages:
            break
        cursor = {"starting_after": some[-1].id}
    return sorted(found.values(), key=lambda event: -event.created), has_more


def _ahead(api: Api, types: Sequence[str], lo: int, hi: int, seconds: int) -> Iterator[list[Event]]:
    """Slices that are read side by side and handed out in their order; their length adapts to what
    the one before held.
    """
    length = max(seconds * SLICE_PAGES, 1)
    slices: list[Stream] = []
    at = lo
    try:
        while at < hi or slices:
            while at < hi and len(slices) < SLICES:
                until = min(hi, at + length)
                slices.append(
                    Stream(_forward(api, types, at, until, seconds), SLICE_PAGES, until - at)
                )
                at = until
            stream = slices[0]
            count = 0
            for some in stream.pages():
                count += len(some)
                yield some
            slices.pop(0)
            length = (
                max(1, int(stream.seconds * SLICE_PAGES * 100 / count)) if count else length * 2
            )
    finally:
        for stream in slices:
            stream.close()


@dataclass(eq=False)
class Stream:
    """Pages that a thread of its own reads ahead, at most `most` of them."""

    source: Iterator[list[Event]]
    most: int = 2
    seconds: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.queue: Queue[Any] = Queue(self.most)
        self.thread = threading.Thread(target=self._work, name="stripe-feed-events", daemon=True)
        self.thread.start()

    def pages(self) -> Iterator[list[Event]]:
        """The pages in order; waits for each."""
        while (found := self.take(None)) is not None:
            yield found

    def take(self, wait: float | None) -> list[Event] | None:
        """The next page; nothing after the last. Raises `queue.Empty` after `wait` seconds, and
        what reading raised.
        """
        found = self.queue.get(wait is None or wait > 0, wait)
        if isinstance(found, BaseException):
            raise found
        pages: list[Event] | None = found
        return pages

    def close(self) -> None:
        """Read no further."""
        self.stopped.set()

    def _work(self) -> None:
        try:
            for some in self.source:
                if not self._put(some):
                    return
            self._put(None)
        except BaseException as fault:  # raised again in the consumer's thread
            self._put(fault)

    def _put(self, found: Any) -> bool:
        while not self.stopped.is_set():
            try:
                self.queue.put(found, timeout=0.1)
                return True
            except Full:
                continue
        return False
