"""What a trigger asks of a change, and which of it holds; where its messages go is said beside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import msgspec

from ..delivery.endpoint import EndpointConfig
from ..feed.change import Change
from ..feed.filters import Filter, compile_filter
from ..feed.lookups import NO_LOOKUPS, Lookups
from ..feed.paths import value_at
from ..resources import RESOURCES
from .expressions import Expression

ORIGINS = ("event", "diff", "list")  # a snapshot's reads would fire for every object
EnrolKind = Literal["always", "once", "no_concurrency", "cooldown"]
Per = Literal["object_id", "customer_id"]

PRESETS: dict[str, dict[str, Any]] = {
    "customer_created": {"resource": "customers", "op": "added"},
    "customer_updated": {"resource": "customers", "op": "updated"},
    "payment_failed": {"resource": "invoices", "event": "invoice.payment_failed"},
    "subscription_canceled": {
        "resource": "subscriptions",
        "transition": {"status": {"to": "canceled"}},
    },
    "subscription_past_due": {
        "resource": "subscriptions",
        "transition": {"status": {"to": "past_due"}},
    },
    "trial_ending": {"resource": "subscriptions", "event": "customer.subscription.trial_will_end"},
    "invoice_paid": {"resource": "invoices", "transition": {"status": {"to": "paid"}}},
    "first_payment": {
        "resource": "invoices",
        "transition": {"status": {"to": "paid"}},
        "where": "after.amount_paid > 0",
        "enrol": "once",
        "per": "customer_id",
        "enrolled_by": "select distinct customer from {invoices} where status = 'paid' and amount_paid > 0",
    },
}
"""Rules by name; what a trigger says beside its preset replaces the preset's word."""


@dataclass(frozen=True, slots=True)
class Enrol:
    """How often a trigger fires for one key: each time, once ever, never while a message waits, or
    after `seconds` again.
    """

    kind: EnrolKind = "always"
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Guard:
    """A run that fires more than `most` messages, or for more than this share of all objects and
    for 100, is held; a share of 1 holds nothing.
    """

    most: int = 1_000
    share: float = 0.5


@dataclass(frozen=True, slots=True)
class Trigger:
    """A rule on changes, and where a message about each change that it fires for goes."""

    name: str
    wanted: Filter
    deliver: EndpointConfig
    event: tuple[str, ...] = ()
    origin: tuple[str, ...] = ORIGINS
    origin_push: bool | None = None
    transition: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    where: Expression | None = None
    enrol: Enrol = Enrol()
    per: Per = "object_id"
    net: bool = False
    guard: Guard = Guard()
    enrolled_by: str | None = None

    @property
    def looks_up(self) -> frozenset[str]:
        """What its rule must look up beside a change."""
        return self.where.looks_up if self.where else frozenset()

    def fires(self, change: Change, lookups: Lookups = NO_LOOKUPS) -> bool:
        """Whether every clause holds; who was enrolled before is another matter. Raises `NotNow`
        where something must be looked up and cannot be.
        """
        return self.asks_for(change) and (
            self.where is None or self._holds(self.where, change, lookups)
        )

    def _holds(self, where: Expression, change: Change, lookups: Lookups) -> bool:
        return (
            where.holds(change, lookups.related(change, self.looks_up))
            if self.looks_up
            else where.holds(change)
        )

    def look_up(self, changes: Iterable[Change], lookups: Lookups) -> None:
        """Read at once what must be looked up beside these changes. Raises `NotNow`."""
        if self.looks_up:
            lookups.prefetch([one for one in changes if self.asks_for(one)], self.looks_up)

    def asks_for(self, change: Change) -> bool:
        """Whether every clause but `where` holds."""
        return (
            (not self.wanted.resources or change.resource in self.wanted.resources)
            and change.op in self.wanted.ops
            and change.origin in self.origin
            and self.origin_push in (None, change.origin_push)
            and (not self.event or change.event_type in self.event)
            and self.wanted.matches(change)
        )

    def key(self, change: Change) -> str:
        """Whom it fires for: what is enrolled, and what a lane is. Without a customer it is the
        object.
        """
        return (change.customer_id if self.per == "customer_id" else None) or change.object_id

    @property
    def rule(self) -> str:
        """The rule as text, to see when it changes; where messages go is no part of it."""
        said: tuple[Any, ...] = (
            self.wanted.resources,
            self.wanted.ops,
            self.event,
            self.origin,
            sorted(self.transition.items()),
            self.changed,
            self.where.text if self.where else None,
            self.enrol.kind,
            self.enrol.seconds,
            self.per,
            self.net,
        )
        if self.origin_push is not None:  # a rule that does not ask stays the text it was
            said = (*said, self.origin_push)
        return msgspec.json.encode(said, enc_hook=repr).decode()


@dataclass(frozen=True, slots=True)
class Clause:
    """One part of a rule for one change: what it asks, what the change has there, and whether it
    holds.
    """

    what: str
    asks: str
    found: Any
    holds: bool


def clauses(trigger: Trigger, change: Change, lookups: Lookups = NO_LOOKUPS) -> Iterator[Clause]:
    """Every part of a rule, with what the change has there; all hold where the trigger `fires`."""
    resources, ops = trigger.wanted.resources or tuple(RESOURCES), trigger.wanted.ops
    one_of = partial(_one_of, change)
    yield one_of("resource", resources)
    yield one_of("op", ops)
    yield one_of("origin", trigger.origin)
    if trigger.origin_push is not None:
        asks = str(trigger.origin_push).lower()
        holds = change.origin_push is trigger.origin_push
        yield Clause("origin_push", asks, change.origin_push, holds)
    if trigger.event:
        yield Clause(
            "event",
            " or ".join(trigger.event),
            change.event_type,
            change.event_type in trigger.event,
        )
    for path, (old, new) in trigger.transition.items():
        moved = (value_at(change.before, path), value_at(change.after, path))
        holds = compile_filter(transition={path: (old, new)}).matches(change)
        asks, found = (" -> ".join(map(side_words, sides)) for sides in ((old, new), moved))
        yield Clause(f"transition of {path}", asks, found, holds)
    if trigger.changed:
        yield Clause(
            "changed",
            " or ".join(trigger.changed),
            change.changed,
            compile_filter(changed=trigger.changed).matches(change),
        )
    beside = lookups.related(change, trigger.looks_up)
    for part in trigger.where.explain(change, beside) if trigger.where else ():
        yield Clause("where", part.text, part.values, part.holds)


def _one_of(change: Change, name: str, values: tuple[str, ...]) -> Clause:
    found = getattr(change, name)
    return Clause(name, " or ".join(values), found, found in values)


def side_words(value: Any) -> str:
    """One side of a transition in words."""
    if isinstance(value, list | tuple):
        return " or ".join(map(side_words, value))
    return "anything" if value is ... or value == "*" else "null" if value is None else str(value)
