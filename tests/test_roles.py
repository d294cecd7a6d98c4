"""What each type of event reports: that an object is new, that it changed, or that it is gone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stripe_feed.api.client import API_VERSION
from stripe_feed.extract.events.classify import ObjectEvent, by_object, object_events
from stripe_feed.extract.events.history import (
    BaseState,
    changes_for,
    events_of_stored_change,
    needs_base_state,
    order_events,
)
from stripe_feed.extract.events.reader import Event, EventData
from stripe_feed.extract.existing import StoredChange
from stripe_feed.resources import RESOURCES
from stripe_feed.resources.model import Resource
from stripe_feed.sandbox.protocol.event_types import TYPES

NO_CHANGES = {"invoice.upcoming"}
"""About an object that does not exist yet."""
STAYS = {"customer.subscription.deleted"}
"""A cancellation: the object is still there."""
OTHERS = ("customer.discount.",)
"""About objects inside of these."""
BORN = 1_780_000_000

each_resource = pytest.mark.parametrize("resource", RESOURCES.values(), ids=list(RESOURCES))


def prefix(type: str) -> str:
    return type.rpartition(".")[0]


@each_resource
def test_every_type_of_an_object_is_followed(resource: Resource) -> None:
    """All that Stripe lists with the same beginning, and nothing that it does not list."""
    prefixes = {prefix(type) for type in resource.events}

    assert set(resource.events) == {type for type in TYPES if prefix(type) in prefixes} - NO_CHANGES


@each_resource
def test_created_creates_and_deleted_deletes(resource: Resource) -> None:
    """Where Stripe has such a type, it is the one; the place in the list means nothing."""
    own = {type for type in resource.events if not type.startswith(OTHERS)}
    born, gone = (
        {type for type in own if type.endswith(ending)} - STAYS
        for ending in (".created", ".deleted")
    )

    assert not born or born == set(resource.created_by)
    assert not gone or gone == set(resource.deleted_by)


@pytest.mark.parametrize(
    ("table", "created_by", "deleted_by"),
    [
        ("charges", "charge.pending charge.succeeded charge.failed", ""),
        ("reviews", "review.opened", ""),
        ("invoice_payments", "", ""),
    ],
)
def test_births_and_ends_by_other_names(table: str, created_by: str, deleted_by: str) -> None:
    """Those that no name tells."""
    row = RESOURCES[table]

    assert (row.created_by, row.deleted_by) == (
        tuple(created_by.split()),
        tuple(deleted_by.split()),
    )


def test_objects_that_no_event_creates() -> None:
    """Their list does: Stripe tells what becomes of them, and not that they began."""
    unborn = [row for row in RESOURCES.values() if row.events and not row.created_by]

    assert {row.table for row in unborn} == {
        "accounts",
        "capabilities",
        "checkout_sessions",
        "invoice_payments",
        "personalization_designs",
        "report_runs",
        "terminal_readers",
    }
    assert all(row.relist_days or not row.created_field for row in unborn)


def told(table: str, *steps: tuple[int, str], status: str = "succeeded") -> list[ObjectEvent]:
    """Events about one object: seconds after its creation, and type."""
    row = RESOURCES[table]
    found: list[ObjectEvent] = []
    for n, (second, type) in enumerate(steps):
        body = {"id": "x_1", "object": row.object, "created": BORN, "status": f"{status} {n}"}
        data = EventData(msgspec.Raw(msgspec.json.encode(body)))
        event = Event(f"evt_{n}", type, BORN + second, data, API_VERSION)
        found += object_events(event, by_object([row]))
    return found


def ops(events: list[ObjectEvent], base: BaseState | None = None) -> list[str]:
    """The ops of the changes of one object, in their order."""
    ordered = order_events(events, base, base is not None)
    return [change.op for change in changes_for(ordered, base, API_VERSION)]


KNOWN = BaseState({"id": "x_1", "status": "pending"}, API_VERSION)


@pytest.mark.parametrize(
    ("table", "steps", "base", "expected"),
    [
        ("charges", [(0, "charge.succeeded")], None, "c"),
        ("charges", [(1, "charge.failed")], None, "c"),
        ("charges", [(0, "charge.pending"), (86_400, "charge.succeeded")], None, "cu"),
        ("charges", [(0, "charge.pending"), (3, "charge.failed")], None, "cu"),
        ("charges", [(0, "charge.succeeded"), (0, "charge.pending")], None, "cu"),
        ("charges", [(0, "charge.succeeded"), (5, "charge.captured")], None, "cu"),
        ("charges", [(5, "charge.succeeded")], KNOWN, "u"),
        ("charges", [(86_400, "charge.succeeded")], None, "u"),
        ("charges", [(0, "charge.updated"), (1, "charge.succeeded")], None, "uu"),
        ("reviews", [(0, "review.opened")], None, "c"),
        ("reviews", [(9, "review.closed")], KNOWN, "u"),
        ("reviews", [(9, "review.closed")], None, "u"),
        ("invoice_payments", [(9, "invoice_payment.paid")], KNOWN, "u"),
        ("invoice_payments", [(9, "invoice_payment.paid")], None, "u"),
        ("disputes", [(0, "charge.dispute.created"), (9, "charge.dispute.closed")], None, "cu"),
        ("coupons", [(0, "coupon.created"), (9, "coupon.deleted")], None, "cd"),
        ("subscriptions", [(9, "customer.subscription.deleted")], KNOWN, "u"),
    ],
)
def test_the_op_of_a_change(
    table: str, steps: list[tuple[int, str]], base: BaseState | None, expected: str
) -> None:
    """An object is created once, by the first of its events that can report that."""
    assert "".join(ops(told(table, *steps), base)) == expected


def test_a_charge_that_an_earlier_run_saw_is_not_new() -> None:
    """Its stored change is part of its history, whatever its type."""
    row = RESOURCES["charges"]
    (later,) = told("charges", (30, "charge.succeeded"))

    def stored(op: str) -> Any:
        body = b'{"id":"x_1","object":"charge","created":%d,"status":"pending"}' % BORN
        return StoredChange(
            "x_1", "evt_0", "charge.pending", BORN, API_VERSION, op, body, None
        )  # fmt: skip

    for op in "cu":
        (first,) = events_of_stored_change(stored(op), row)
        assert first.kind == {"c": "created", "u": "status"}[op]
        assert ops([first, later]) == ["u"]


def test_the_state_before_a_charge_is_looked_up() -> None:
    """Only for those whose event may report a creation or not: it costs a select."""
    assert needs_base_state(told("charges", (0, "charge.succeeded")))
    assert not needs_base_state(told("refunds", (0, "refund.created")))
