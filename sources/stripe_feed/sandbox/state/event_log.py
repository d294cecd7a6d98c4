"""The account's events as Stripe keeps them: finished bytes, newest first, for thirty days."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import msgspec

from ..samples.values import Object, Random
from .account import Account
from .event_builder import EventDraft, drafts_of, render_draft
from .mutation import Mutation

RETENTION = 30 * 86_400
Body = Callable[[str, str, int], bytes]
"""An event by its id, API version, and number of endpoints that still have to take it."""

TIEBREAK_BITS = 62
"""A key is `created << BITS`, then 31 bits by chance, then a number: arbitrary inside a second, but
stable.
"""


class Event(NamedTuple):
    """One event that was recorded; `lost` ones never show, a twin repeats another event under an id
    of its own.
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
    """A mutation with its objects as bytes: thousands of decoded ones would take much memory."""

    mutation: Mutation
    before: bytes
    after: bytes

    def decode(self) -> Mutation:
        before, after = msgspec.json.decode(self.before), msgspec.json.decode(self.after)
        return self.mutation._replace(before=before, after=after)


class EventLog:
    """All events of an account. `records` has them in the order in which they happened, which the
    API does not tell.
    """

    def __init__(
        self, account: Account, publish: Callable[[Event, Callable[[str, int], bytes]], None]
    ) -> None:
        self.account, self.publish = account, publish
        self.rng = Random(
            f"history {account.seed}"
        )  # its own, so that events do not change what happens
        self.rng.livemode, self.rng.account = account.livemode, account.id
        self.stub_deletes = False
        self.records: list[Event] = []
        self.by_id: dict[str, Event] = {}
        self.kept: list[StoredMutation] = []
        self._keys: list[int] = []
        self._order: list[Event] = []
        self._places: dict[str, int] = {}
        self._request: Object | None = None
        self._acting = False

    @contextmanager
    def action(self, request: Object | None = None) -> Iterator[None]:
        """All events inside come from one request; one that is not given is drawn."""
        if self._acting:
            yield
            return
        self._acting, self._request = True, request or self._drawn_request()
        try:
            yield
        finally:
            self._acting = False

    def _drawn_request(self) -> Object | None:
        """Without an id Stripe did it by itself."""
        drawn = self.rng.random()
        if drawn < 0.02:
            return None
        key = f"{self.rng.getrandbits(128):032x}" if drawn > 0.7 else None
        return {
            "id": None if drawn < 0.2 else f"req_{self.rng.word(14)}",
            "idempotency_key": key if drawn > 0.2 else None,
        }

    def record(self, mutation: Mutation) -> None:
        """Keep a mutation, and record its events."""
        after = object_bytes(self.account, mutation)
        before = msgspec.json.encode(mutation.before)
        self.kept.append(
            StoredMutation(
                mutation._replace(before=None, after=None),
                before,
                b"null" if mutation.after is None else after,
            )
        )
        with self.action():
            for happening in drafts_of(self.account, mutation, after, self.stub_deletes):
                self.add(happening, mutation.at)

    def add(self, happening: EventDraft, created: int) -> None:
        """Record one event; with bad luck it shows late, never, or twice."""
        faults = self.account.faults
        luck = faults.rng("events")
        lost = bool(faults.lost_events) and luck.random() < faults.lost_events
        body = partial(self._body, happening, created)
        first = self._put(happening, created, lost, None, body)
        if faults.doubled_events and not lost and luck.random() < faults.doubled_events:
            self._put(happening, created, False, first, body)

    def _body(
        self, happening: EventDraft, created: int, id: str, version: str, pending: int
    ) -> bytes:
        shown = render_draft(self.account, happening, version)
        data: dict[str, Any] = {"object": msgspec.Raw(shown.raw)}
        if shown.previous_attributes is not None:
            data["previous_attributes"] = shown.previous_attributes
        found = {
            "id": id,
            "object": "event",
            "api_version": version,
            "context": None,
            "created": created,
            "data": data,
            "livemode": self.account.livemode,
            "pending_webhooks": pending,
            "request": self._request,
            "type": shown.type,
        }
        return msgspec.json.encode(found)

    def _put(
        self, happening: EventDraft, created: int, lost: bool, duplicate_of: str | None, body: Body
    ) -> str:
        delay = self.account.faults.event_delay
        visible = created + self.account.faults.rng("events").random() * delay if delay else created
        id = self.rng.id("evt")
        raw = body(id, self.account.api_version, 0)
        event = Event(
            id,
            happening.type,
            happening.table,
            happening.id,
            created,
            visible,
            lost,
            duplicate_of,
            raw,
        )
        key = (created << TIEBREAK_BITS) | (self.rng.getrandbits(31) << 31) | len(self.records)
        place = bisect_left(self._keys, key)
        self._keys.insert(place, key)
        self._order.insert(place, event)
        self._places[id] = key
        self.records.append(event)
        self.by_id[id] = event
        self.publish(event, partial(body, id))
        return id

    def shown(self, event: Event) -> bool:
        """Whether the API shows it now."""
        now = self.account.now
        return event.visible_at <= now and not event.lost and event.created >= now - RETENTION

    def get(self, id: str) -> Event | None:
        event = self.by_id.get(id)
        return event if event and self.shown(event) else None

    def span(self, lo: int | None, hi: int | None) -> tuple[int, int]:
        """The places of the events with lo <= created < hi that are not too old."""
        oldest = self.account.now - RETENTION
        first = bisect_left(self._keys, max(oldest, lo or 0) << TIEBREAK_BITS)
        last = (
            len(self._keys) if hi is None else bisect_left(self._keys, max(hi, 0) << TIEBREAK_BITS)
        )
        return first, max(first, last)

    def place(self, event: Event) -> int:
        return bisect_left(self._keys, self._places[event.id])

    def older(self, first: int, last: int) -> Iterator[Event]:
        """The events that show at the places first..last-1, newest first."""
        now, order = self.account.now, self._order
        for place in range(last - 1, first - 1, -1):
            event = order[place]
            if event.visible_at <= now and not event.lost:
                yield event

    def newer(self, first: int, last: int) -> Iterator[Event]:
        """The same, oldest first."""
        now, order = self.account.now, self._order
        for place in range(first, last):
            event = order[place]
            if event.visible_at <= now and not event.lost:
                yield event


def object_bytes(account: Account, mutation: Mutation) -> bytes:
    """The object as the API shows it after a change, or showed it last."""
    if mutation.after is None:
        return account.deleted[mutation.table][mutation.id]
    return account.tables[mutation.table].rows[mutation.id].raw
