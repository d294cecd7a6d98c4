"""Decide which events that webhooks announced to read: which are relevant, from which second to
list, and which to fetch by id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from ...api.client import Account, Api
from ...api.json_repair import decode_body
from ...errors import SetupError, StripeFeedError, Unreachable
from ..paging.fetch import path_segment
from ..run import RunContext
from .reader import EVENTS_PATH, Event, decode_event

# more older events than this, and the list begins with them instead of fetching each by id
MAX_BEFORE_LISTING = 20
MAX_BY_ID = 200  # events fetched by id in one run
BY_ID_TIMEOUT = 10.0  # seconds until the next of them must arrive
MAX_SECOND = 2**33

Name = Annotated[str, Meta(max_length=255)]
Second = Annotated[int, Meta(ge=0, lt=MAX_SECOND)]


class WebhookHead(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a webhook's body says about its event: only a hint, since whoever has the secret can
    write it.
    """

    type: Name | None = None
    created: Second | None = None
    account: Name | None = None
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
    context: RunContext, webhook_events: Sequence[WebhookEvent]
) -> Iterator[list[Event]]:
    """Fetch these events by id; yield those that arrived, an empty list while all are pending.

    Events that cannot be read are recorded as failed with the error class; they stop nothing else.
    """
    clock = context.api.clock
    pending = {
        context.pool.submit(_fetch, context.api, webhook_event.event_id): webhook_event.event_id
        for webhook_event in webhook_events
    }
    deadline = clock.monotonic() + BY_ID_TIMEOUT
    while pending and clock.monotonic() < deadline:
        done, _ = wait(pending, timeout=0.05, return_when=FIRST_COMPLETED)
        events = []
        for future in done:
            event_id, deadline = pending.pop(future), clock.monotonic() + BY_ID_TIMEOUT
            try:
                events.append(future.result())
            except SetupError:
                raise
            except StripeFeedError as fault:
                if context.api.stopped.is_set():
                    raise
                context.failed_events[event_id] = type(fault).__name__
        yield events
    for future, event_id in pending.items():
        future.cancel()
        context.failed_events[event_id] = Unreachable.__name__


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
