"""Decide which events that webhooks announced to read: which are relevant, from which second to
list, and which to fetch by id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from ...api.account import Account
from ...api.client import Api, decode_body
from ...errors import NotFound, SetupError, StripeFeedError, Unreachable
from ..paging.fetch import path_segment
from .reader import EVENTS_PATH, Event, decode_event

# more older events than this, and the list begins with them instead of fetching each by id
MAX_BEFORE_LISTING = 20
MAX_BY_ID = 200  # events fetched by id in one run
BY_ID_TIMEOUT = 10.0  # seconds until the next of them must arrive
MAX_SECOND = 2**33

_Name = Annotated[str, Meta(max_length=255)]
Second = Annotated[int, Meta(ge=0, lt=MAX_SECOND)]


class WebhookHead(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a webhook's body says about its event: only a hint, since whoever has the secret can
    write it.
    """

    type: _Name | None = None
    created: Second | None = None
    account: _Name | None = None
    livemode: bool | None = None


class WebhookEvent(NamedTuple):
    """The id of an event that a webhook announced; its body too if the key may not read events.
    `by_id`: fetch it by id, because no list shows it.
    """

    event_id: str
    body: bytes | None = None
    head: WebhookHead = WebhookHead()
    by_id: bool = False

    def may_match(self, types: Collection[str]) -> bool:
        """Whether the event may have one of these types."""
        return self.head.type is None or self.head.type in types


_head = msgspec.json.Decoder(WebhookHead)


class PendingEvents:
    """The events that are still to be read, apart from polling: webhooks announced them, or earlier
    runs rejected them.
    """

    def __init__(self, events: Iterable[WebhookEvent] = ()) -> None:
        self.events = list(events)
        self.failed: dict[str, str] = {}  # event id -> the class of its error
        self.retried: set[str] = set()  # ids that earlier runs rejected

    def retry(self, ids: Iterable[str]) -> None:
        """Add events that earlier runs rejected."""
        ids = list(ids)
        self.retried.update(ids)
        self.events += [WebhookEvent(id, by_id=True) for id in ids]

    def keep_relevant(self, account: Account, types: Collection[str]) -> None:
        """Drop irrelevant events, as `relevant_events` does."""
        self.events = relevant_events(self.events, account, types)

    def drop(self, ids: Collection[str]) -> None:
        """Drop events that were read."""
        self.events = [event for event in self.events if event.event_id not in ids]

    def listed(self, types: Collection[str]) -> list[WebhookEvent]:
        """Return the events that a list of these types may show."""
        return [event for event in self.events if not event.by_id and event.may_match(types)]

    def by_id(self) -> list[WebhookEvent]:
        """Return the next events to fetch by id."""
        return [event for event in self.events if event.by_id][:MAX_BY_ID]

    def fetch_rest_by_id(self) -> None:
        """Fetch what is left by id: no list has shown it."""
        self.events = [event._replace(by_id=True) for event in self.events]

    def take_bodies(self) -> list[WebhookEvent]:
        """Remove and return the events that came with their body."""
        with_body = [event for event in self.events if event.body is not None]
        self.events = [event for event in self.events if event.body is None]
        return with_body

    def read_ids(self, events: Iterable[WebhookEvent]) -> set[str]:
        """Return the ids of those that were read, or that no longer exist."""
        return {
            event.event_id
            for event in events
            if self.failed.get(event.event_id) in (None, NotFound.__name__)
        }


def decode_head(body: bytes | None) -> WebhookHead:
    """Decode what a body says about its event; an empty head if it is malformed."""
    try:
        return _head.decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return WebhookHead()


def relevant_events(
    webhook_events: Iterable[WebhookEvent], account: Account, types: Collection[str]
) -> list[WebhookEvent]:
    """Drop events of connected accounts, of the other mode (both are sent to an endpoint, too), and
    of types that are not read.
    """
    return [
        webhook_event
        for webhook_event in webhook_events
        if webhook_event.may_match(types)
        and webhook_event.head.account in (None, account.id)
        and webhook_event.head.livemode in (None, account.livemode)
    ]


def listing_start(
    cursors: Mapping[str, Any], webhook_events: Sequence[WebhookEvent], lowest: int
) -> int:
    """The second from which the events of a resource are listed: where the last run ended, or
    earlier if more than a few announced events are older.

    Those few are fetched by id. Never before `lowest`, which was listed long ago.
    """
    reached = max(cursors["cursor"], cursors.get("rung", 0))
    before = sorted(
        webhook_event.head.created
        for webhook_event in webhook_events
        if webhook_event.head.created is not None and webhook_event.head.created < reached
    )
    return max(before[MAX_BEFORE_LISTING], lowest) if len(before) > MAX_BEFORE_LISTING else reached


def fetch_webhook_events(
    api: Api, pool: ThreadPoolExecutor, ids: Iterable[str], failed: dict[str, str]
) -> Iterator[list[Event]]:
    """Fetch these events by id; yield those that arrived, an empty list while all are pending.

    Events that cannot be read are recorded in `failed` with the error class; they stop nothing
    else.
    """
    pending = {pool.submit(_fetch, api, id): id for id in ids}
    deadline = api.clock.monotonic() + BY_ID_TIMEOUT
    while pending and api.clock.monotonic() < deadline:
        done, _ = wait(pending, timeout=0.05, return_when=FIRST_COMPLETED)
        events = []
        for future in done:
            event_id, deadline = pending.pop(future), api.clock.monotonic() + BY_ID_TIMEOUT
            try:
                events.append(future.result())
            except SetupError:
                raise
            except StripeFeedError as fault:
                if api.stopped.is_set():
                    raise
                failed[event_id] = type(fault).__name__
        yield events
    for future, event_id in pending.items():
        future.cancel()
        failed[event_id] = Unreachable.__name__


def _fetch(api: Api, id: str) -> Event:
    return api.get(f"{EVENTS_PATH}/{path_segment(id)}", {}, decode_event).value


def events_in_bodies(webhook_events: Iterable[WebhookEvent]) -> list[Event]:
    """Decode the webhook bodies that are complete events."""
    events = []
    for webhook_event in webhook_events:
        try:
            event = decode_body(decode_event, webhook_event.body or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if event.id == webhook_event.event_id and 0 <= event.created < MAX_SECOND:
            events.append(event)
    return events
