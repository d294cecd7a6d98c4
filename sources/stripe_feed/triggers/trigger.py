"""A trigger: the rule that a change must meet, and the endpoint for its messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import msgspec

from ..delivery.endpoint_config import EndpointConfig
from ..feed.change import Change
from ..feed.filters import Filter, compile_filter
from ..feed.lookups import NO_LOOKUPS, Lookups
from ..feed.paths import value_at
from ..resources import RESOURCES
from .expressions import Expression

DEFAULT_ORIGINS = ("event", "diff", "list")  # "snapshot" would fire for every object
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
"""Rules by name; a trigger's own settings replace those of its preset."""


@dataclass(frozen=True, slots=True)
class Enrol:
    """How often a trigger fires for one key: always, once ever, never while a message waits, or
    again after `seconds`.
    """

    kind: EnrolKind = "always"
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Guard:
    """Hold a run that fires more than `max_messages` messages, or for more than this share of all
    objects (and at least 100); a share of 1 holds nothing.
    """

    max_messages: int = 1_000
    share: float = 0.5


@dataclass(frozen=True, slots=True)
class Trigger:
    """A rule on changes, and the endpoint that gets a message for each change that meets it."""

    name: str
    filter: Filter
    deliver: EndpointConfig
    event: tuple[str, ...] = ()
    origin: tuple[str, ...] = DEFAULT_ORIGINS
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
    def related_tables(self) -> frozenset[str]:
        """The related objects that its rule must look up."""
        return self.where.related_tables if self.where else frozenset()

    def fires(self, change: Change, lookups: Lookups = NO_LOOKUPS) -> bool:
        """Whether every clause holds, whatever was enrolled before. Raises `NotNow` if a related
        object cannot be looked up now.
        """
        return self.matches_filters(change) and (
            self.where is None or self._where_holds(self.where, change, lookups)
        )

    def _where_holds(self, where: Expression, change: Change, lookups: Lookups) -> bool:
        return (
            where.holds(change, lookups.related(change, self.related_tables))
            if self.related_tables
            else where.holds(change)
        )

    def prefetch(self, changes: Iterable[Change], lookups: Lookups) -> None:
        """Look up the related objects of these changes together. Raises `NotNow`."""
        if self.related_tables:
            lookups.prefetch(
                [one for one in changes if self.matches_filters(one)], self.related_tables
            )

    def matches_filters(self, change: Change) -> bool:
        """Whether every clause but `where` holds."""
        return (
            (not self.filter.resources or change.resource in self.filter.resources)
            and change.op in self.filter.ops
            and change.origin in self.origin
            and self.origin_push in (None, change.origin_push)
            and (not self.event or change.event_type in self.event)
            and self.filter.matches(change)
        )

    def key(self, change: Change) -> str:
        """The key that is enrolled and ordered by: the customer or the object; without a customer,
        the object.
        """
        return (change.customer_id if self.per == "customer_id" else None) or change.object_id

    @property
    def rule(self) -> str:
        """The rule as text, to detect when it changes; the endpoint is not part of it."""
        parts: tuple[Any, ...] = (
            self.filter.resources,
            self.filter.ops,
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
        if self.origin_push is not None:  # without the setting, the text stays as it was
            parts = (*parts, self.origin_push)
        return msgspec.json.encode(parts, enc_hook=repr).decode()


@dataclass(frozen=True, slots=True)
class Clause:
    """One part of a rule for one change: what it requires, what the change has, and whether it
    holds.
    """

    what: str
    asks: str
    found: Any
    holds: bool


def evaluate_clauses(
    trigger: Trigger, change: Change, lookups: Lookups = NO_LOOKUPS
) -> Iterator[Clause]:
    """Evaluate every part of a rule for a change; all hold if the trigger `fires`."""
    resources, ops = trigger.filter.resources or tuple(RESOURCES), trigger.filter.ops
    membership = partial(_membership, change)
    yield membership("resource", resources)
    yield membership("op", ops)
    yield membership("origin", trigger.origin)
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
        actual = (value_at(change.before, path), value_at(change.after, path))
        holds = compile_filter(transition={path: (old, new)}).matches(change)
        asks, found = (" -> ".join(map(format_side, sides)) for sides in ((old, new), actual))
        yield Clause(f"transition of {path}", asks, found, holds)
    if trigger.changed:
        yield Clause(
            "changed",
            " or ".join(trigger.changed),
            change.changed,
            compile_filter(changed=trigger.changed).matches(change),
        )
    related = lookups.related(change, trigger.related_tables)
    for part in trigger.where.explain(change, related) if trigger.where else ():
        yield Clause("where", part.text, part.values, part.holds)


def _membership(change: Change, name: str, values: tuple[str, ...]) -> Clause:
    value = getattr(change, name)
    return Clause(name, " or ".join(values), value, value in values)


def format_side(value: Any) -> str:
    """One side of a transition as text."""
    if isinstance(value, list | tuple):
        return " or ".join(map(format_side, value))
    if value is ... or value == "*":
        return "anything"
    return "null" if value is None else str(value)
