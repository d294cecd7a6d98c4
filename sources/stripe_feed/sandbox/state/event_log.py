"""The account's events as Stripe keeps them: encoded once, newest first, for thirty days."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import msgspec

from ..samples.values import Object
from .account import Account
from .event_builder import EventDraft, drafts_of, render_draft
from .mutation import Mutation

RETENTION = 30 * 86_400
Body = Callable[[str, str, int], bytes]
"""Renders an event with an id, in an API version, with a number of pending webhooks."""

TIEBREAK_BITS = 62
"""A key is `created << TIEBREAK_BITS`, then 31 random bits, then a number: within a second the
order is arbitrary, but stable.
"""


class Event(NamedTuple):
    """One recorded event. A `lost` one is never visible; a duplicate repeats another event with an
    id of its own.
    """

    id: str
    type: str
    table: str
    object_id: str
    created: int
    visible_at: float
    lost: bool
    duplicate_of: str | None
    body: bytes


class StoredMutation(NamedTuple):
    """A mutation with its objects as bytes, because thousands of decoded objects would take much
    memory.
    """

    mutation: Mutation
    before: bytes
    after: bytes

    def decode(self) -> Mutation:
        before, after = msgspec.json.decode(self.before), msgspec.json.decode(self.after)
        return self.mutation._replace(before=before, after=after)


class EventLog:
    """All events of an account. `records` has them in the order in which they happened, which the
    API does not reveal.
    """

    def __init__(
        self, account: Account, publish: Callable[[Event, Callable[[str, int], bytes]], None]
    ) -> None:
        self.account, self.publish = account, publish
        self.rng = account.generator("history")
        self.stub_deletes = False
        self.records: list[Event] = []
        self.by_id: dict[str, Event] = {}
        self.mutations: list[StoredMutation] = []
        self._keys: list[int] = []
        self._order: list[Event] = []
        self._keys_by_id: dict[str, int] = {}
        self._request: Object | None = None
        self._acting = False

    @contextmanager
    def action(self, request: Object | None = None) -> Iterator[None]:
        """Give all events inside the same request: the given one, or a random one."""
        if self._acting:
            yield
            return
        self._acting, self._request = True, request or self._random_request()
        try:
            yield
        finally:
            self._acting = False

    def _random_request(self) -> Object | None:
        """A request, sometimes without an id or None: Stripe acted by itself."""
        share = self.rng.random()
        if share < 0.02:
            return None
        key = f"{self.rng.getrandbits(128):032x}" if share > 0.7 else None
        return {
            "id": None if share < 0.2 else f"req_{self.rng.word(14)}",
            "idempotency_key": key if share > 0.2 else None,
        }

    def record(self, mutation: Mutation) -> None:
        """Store a mutation and record its events."""
        after = object_bytes(self.account, mutation)
        before = msgspec.json.encode(mutation.before)
        self.mutations.append(
            StoredMutation(
                mutation._replace(before=None, after=None),
                before,
                b"null" if mutation.after is None else after,
            )
        )
        with self.action():
            for draft in drafts_of(self.account, mutation, after, self.stub_deletes):
                self.add(draft, mutation.at)

    def add(self, draft: EventDraft, created: int) -> None:
        """Record one event. The faults decide whether it is visible late, never, or twice."""
        faults = self.account.faults
        rng = faults.rng("events")
        lost = bool(faults.lost_events) and rng.random() < faults.lost_events
        body = partial(self._body, draft, created)
        first = self._put(draft, created, lost, None, body)
        if faults.doubled_events and not lost and rng.random() < faults.doubled_events:
            self._put(draft, created, False, first, body)

    def _body(self, draft: EventDraft, created: int, id: str, version: str, pending: int) -> bytes:
        rendered = render_draft(self.account, draft, version)
        data: dict[str, Any] = {"object": msgspec.Raw(rendered.raw)}
        if rendered.previous_attributes is not None:
            data["previous_attributes"] = rendered.previous_attributes
        event = {
            "id": id,
            "object": "event",
            "api_version": version,
            "context": None,
            "created": created,
            "data": data,
            "livemode": self.account.livemode,
            "pending_webhooks": pending,
            "request": self._request,
            "type": rendered.type,
        }
        return msgspec.json.encode(event)

    def _put(
        self, draft: EventDraft, created: int, lost: bool, duplicate_of: str | None, body: Body
    ) -> str:
        delay = self.account.faults.event_delay
        visible_at = (
            created + self.account.faults.rng("events").random() * delay if delay else created
        )
        id = self.rng.id("evt")
        body_now = body(id, self.account.api_version, 0)
        event = Event(
            id,
            draft.type,
            draft.table,
            draft.id,
            created,
            visible_at,
            lost,
            duplicate_of,
            body_now,
        )
        key = (created << TIEBREAK_BITS) | (self.rng.getrandbits(31) << 31) | len(self.records)
        position = bisect_left(self._keys, key)
        self._keys.insert(position, key)
        self._order.insert(position, event)
        self._keys_by_id[id] = key
        self.records.append(event)
        self.by_id[id] = event
        self.publish(event, partial(body, id))
        return id

    def is_visible(self, event: Event) -> bool:
        """Whether the API shows the event now."""
        now = self.account.now
        return event.visible_at <= now and not event.lost and event.created >= now - RETENTION

    def get(self, id: str) -> Event | None:
        event = self.by_id.get(id)
        return event if event and self.is_visible(event) else None

    def span(self, lo: int | None, hi: int | None) -> tuple[int, int]:
        """The positions of the retained events with lo <= created < hi."""
        oldest = self.account.now - RETENTION
        first = bisect_left(self._keys, max(oldest, lo or 0) << TIEBREAK_BITS)
        last = (
            len(self._keys) if hi is None else bisect_left(self._keys, max(hi, 0) << TIEBREAK_BITS)
        )
        return first, max(first, last)

    def position(self, event: Event) -> int:
        return bisect_left(self._keys, self._keys_by_id[event.id])

    def older(self, first: int, last: int) -> Iterator[Event]:
        """The visible events at positions first..last-1, newest first."""
        now, order = self.account.now, self._order
        for position in range(last - 1, first - 1, -1):
            event = order[position]
            if event.visible_at <= now and not event.lost:
                yield event

    def newer(self, first: int, last: int) -> Iterator[Event]:
        """The same events, oldest first."""
        now, order = self.account.now, self._order
        for position in range(first, last):
            event = order[position]
            if event.visible_at <= now and not event.lost:
                yield event


def object_bytes(account: Account, mutation: Mutation) -> bytes:
    """The object as the API shows it after the change; a deleted object as it was last."""
    if mutation.after is None:
        return account.deleted[mutation.table][mutation.id]
    return account.tables[mutation.table].rows[mutation.id].raw
