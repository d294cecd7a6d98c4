"""What a rule fires for: every part of it, and each preset on what really happens in an account."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stripe_feed.delivery.endpoint_config import EndpointConfig
from stripe_feed.extract.tables.diff import changed_paths, difference
from stripe_feed.feed.change import Change
from stripe_feed.sandbox import Sandbox
from stripe_feed.triggers.trigger import PRESETS, Trigger, evaluate_clauses
from tests.deliveries import NEW, a_trigger, an_event, images, made, nothing, rows_of
from tests.feed_kills import Row, a_change

MISSING: Any = object()
VALUES = ("a", "b", None, MISSING)
SIDES = (MISSING, "*", "a", "null", ["a", "null"], ["a", "b"], ["*", "x"], "x")
ORIGINS = ("event", "diff", "list", "snapshot")


def image_of(value: Any) -> dict[str, Any]:
    return {"id": "sub_1", **({} if value is MISSING else {"status": value})}


def an_update(before: Any, after: Any, **given: Any) -> Row:
    """A subscription's status goes from one value to another; `MISSING` is a key that is not there."""
    old, new = image_of(before), image_of(after)
    previous = difference(old, new)
    return a_change(
        1, **{"after": new, "previous": previous, "changed": changed_paths(previous), **given}
    )


def asked(origin: Any = None, **sides: Any) -> Trigger:
    words = {} if origin is None else {"origin": origin}
    return a_trigger(
        transition={"status": {name: one for name, one in sides.items() if one is not MISSING}},
        **words,
    )


def meant(side: Any, value: Any) -> bool:
    """Whether a side of a transition means a value; written anew, so that it is a witness."""
    if side is MISSING:
        return True
    options = side if isinstance(side, list) else [side]
    return any(
        one == "*" or (value in (None, MISSING) if one == "null" else one == value)
        for one in options
    )


def test_t1_a_transition_fires_for_the_updates_that_it_means() -> None:
    """From and to: a value, one of several, null, absent, anything, or one side only; of every kind
    of change and origin.
    """
    wrong = []
    rules = [
        (origin, old, new, asked(origin, **{"from": old, "to": new}))
        for origin in (None, "event", "snapshot")
        for old, new in itertools.product(SIDES, SIDES)
        if (old, new) != (MISSING, MISSING)
    ]
    for before, after, origin in itertools.product(VALUES, VALUES, ORIGINS):
        change = made(an_update(before, after, origin=origin))
        moved = (None if before is MISSING else before) != (None if after is MISSING else after)
        for named, old, new, trigger in rules:
            heard = origin in (("event", "diff", "list") if named is None else (named,))
            if trigger.fires(change) is not (
                heard and moved and meant(old, before) and meant(new, after)
            ):
                wrong.append((before, after, origin, named, old, new))
    assert wrong == []


@pytest.mark.parametrize("op", ["c", "d", "r"])
@pytest.mark.parametrize("origin", ORIGINS)
def test_t1_only_an_update_is_a_transition(op: str, origin: str) -> None:
    change = made(
        a_change(1, op=op, origin=origin, before_quality="exact" if op == "d" else "none")
    )

    for old, new in itertools.product(SIDES[1:], SIDES[1:]):
        assert not asked([*ORIGINS], **{"from": old, "to": new}).fires(change)


@pytest.mark.parametrize(
    ("old", "new", "changed", "fires"),
    [
        ("*", "a", ["status"], True), ("*", "a", [], True), ("*", "a", ["name"], False), (MISSING, "a", [], True),
        ("b", "a", ["status"], False), ("null", "a", [], False), ("*", "b", [], False), ("*", "*", ["status"], True),
    ],
)  # fmt: skip
def test_where_the_value_before_is_unknown_only_anything_is_it(
    old: Any, new: Any, changed: list[str], fires: bool
) -> None:
    change = made(an_update("b", "a", before_quality="none", previous=None, changed=changed))

    assert asked(**{"from": old, "to": new}).fires(change) is fires


def test_several_transitions_must_all_hold() -> None:
    both = a_trigger(transition={"status": {"to": "a"}, "plan.id": {"from": "p1", "to": "p2"}})
    image = {"status": "a", "plan": {"id": "p2", "name": "x"}}

    assert both.fires(
        made(
            a_change(
                1,
                after=image,
                previous={"status": "b", "plan": {"id": "p1"}},
                changed=["status", "plan.id"],
            )
        )
    )
    assert not both.fires(
        made(a_change(1, after=image, previous={"status": "b"}, changed=["status"]))
    )
    assert not both.fires(
        made(a_change(1, after=image, previous={"plan": {"id": "p1"}}, changed=["plan.id"]))
    )


SUBSCRIPTION = {"id": "sub_1", "status": "active", "quantity": 3, "metadata": {"plan": "pro"}}
A_MOVE: Any = {
    "after": SUBSCRIPTION,
    "previous": {"quantity": 1, "metadata": {"plan": None}},
    "changed": ["quantity", "metadata.plan"],
}


@pytest.mark.parametrize(
    ("words", "given", "fires"),
    [
        ({}, {}, True),
        ({}, {"resource": "customers"}, False),
        ({"resource": ["invoices", "customers"]}, {"resource": "customers"}, True),
        ({"resource": ["invoices", "customers"]}, {}, False),
        *(({"op": op}, {"op": found}, op == found) for op in "cudr" for found in "cudr"),
        *(({"op": op}, {"op": found}, match == found)
          for op, match in (("added", "c"), ("updated", "u"), ("removed", "d")) for found in "cudr"),
        *(({}, {"op": op}, op != "r") for op in "cudr"),
        ({"op": ["added", "d"]}, {"op": "c"}, True), ({"op": ["added", "d"]}, {"op": "d"}, True),
        ({"op": ["added", "d"]}, {"op": "u"}, False),
        *(({}, {"origin": origin}, origin != "snapshot") for origin in ORIGINS),
        *(({"origin": one}, {"origin": origin}, one == origin) for one in ORIGINS for origin in ORIGINS),
        ({"origin": "snapshot", "op": "r"}, {"origin": "snapshot", "op": "r"}, True),
        ({"origin": "snapshot"}, {"origin": "snapshot", "op": "r"}, False),
        ({"event": "customer.subscription.updated"}, {}, True),
        ({"event": ["customer.subscription.paused", "customer.subscription.resumed"]}, {}, False),
        ({"event": ["customer.subscription.paused"]}, {"event_type": "customer.subscription.paused"}, True),
        ({"event": ["customer.subscription.paused"]}, {"event_type": None, "origin": "diff"}, False),
        ({"changed": "quantity"}, A_MOVE, True), ({"changed": ["status", "metadata"]}, A_MOVE, True),
        ({"changed": ["metadata.plan"]}, A_MOVE, True), ({"changed": ["metadata.other"]}, A_MOVE, False),
        ({"changed": "status"}, A_MOVE, False), ({"changed": "quant"}, A_MOVE, False), ({"changed": "quantity"}, NEW, False),
        ({"where": "after.quantity >= 3 and after.metadata.plan == 'pro'"}, A_MOVE, True),
        ({"where": "after.quantity > 3"}, A_MOVE, False),
        ({"where": "before.quantity == 1 and not before.metadata.plan"}, A_MOVE, True),
        ({"where": "change.customer_id == 'cus_1'"}, A_MOVE, True), ({"where": "before.quantity == 1"}, NEW, False),
        ({"where": "after.quantity == 3", "changed": "quantity", "op": "updated", "event": "customer.subscription.updated"}, A_MOVE, True),
        ({"where": "after.quantity == 3", "changed": "status"}, A_MOVE, False),
        ({"where": "after.quantity == 4", "changed": "quantity"}, A_MOVE, False),
        ({"where": "after.quantity == 3", "op": "added"}, A_MOVE, False),
    ],
)  # fmt: skip
def test_t1_every_part_of_a_rule_must_hold(
    words: dict[str, Any], given: dict[str, Any], fires: bool
) -> None:
    assert a_trigger(**words).fires(made(a_change(1, **given))) is fires


def test_events_say_enough_without_a_resource() -> None:
    trigger = a_trigger(resource=[], event="invoice.paid")

    assert trigger.fires(made(a_change(1, resource="invoices", event_type="invoice.paid")))
    assert not trigger.fires(made(a_change(1, resource="invoices", event_type="invoice.sent")))


def test_each_preset_fires_for_what_it_is_called() -> None:
    """In an account where all of it happens, and much else."""
    box = Sandbox(seed=5, customers=12, oddities=False)
    start, first = images(box), len(box.events)
    told, expected = happened(box)
    rows = rows_of([*(record.body for record in box.events[first:]), *told], start)

    assert len(rows) > 25
    assert set(expected) == set(PRESETS)
    for preset, objects in expected.items():
        trigger = a_trigger(preset=preset)
        assert sorted({row["object_id"] for row in rows if trigger.fires(made(row))}) == sorted(
            objects
        ), preset
        assert sum(trigger.fires(made(row)) for row in rows) >= len(objects) > 0


def happened(box: Sandbox) -> tuple[list[bytes], dict[str, list[str]]]:
    """Lets things happen; gives the events that the sandbox does not send, and for each preset the
    objects it is about.
    """
    customer = box.create("customers", name="New")["id"]
    renamed = next(id for id in box.objects("customers") if id != customer)
    box.update("customers", renamed, name="Renamed")
    subscription, other, trial = (
        box.create("subscriptions", status=status, customer=customer)["id"]
        for status in ("active", "active", "trialing")
    )
    box.advance(60)
    box.update("subscriptions", other, status="past_due")
    box.cancel(subscription)
    bill, free, open_bill = (
        box.create("invoices", customer=customer, lines=2)["id"] for _ in range(3)
    )
    for id in (bill, free, open_bill):
        box.update("invoices", id, status="open")
    box.advance(60)
    box.update("invoices", bill, status="paid")
    box.update("invoices", free, lines=[], status="paid")
    assert (
        box.objects("invoices")[free]["amount_paid"],
        box.objects("invoices")[bill]["amount_paid"] > 0,
    ) == (0, True)
    for table in ("products", "prices"):
        box.create(table)
    told = [
        an_event(box, "customer.subscription.trial_will_end", box.objects("subscriptions")[trial]),
        an_event(box, "invoice.payment_failed", box.objects("invoices")[open_bill]),
    ]
    return told, {
        "customer_created": [customer],
        "customer_updated": [renamed],
        "payment_failed": [open_bill],
        "subscription_canceled": [subscription],
        "subscription_past_due": [other],
        "trial_ending": [trial],
        "invoice_paid": [bill, free],
        "first_payment": [bill],
    }


def test_a_cancellation_is_one_firing_and_so_is_a_payment() -> None:
    """Stripe sends several events about one payment; only the first of them moves the status."""
    box = Sandbox(seed=5, customers=8, oddities=False)
    paid, gone = (
        box.create("invoices", lines=2)["id"],
        box.create("subscriptions", status="active")["id"],
    )
    box.update("invoices", paid, status="open")
    box.advance(60)
    box.update("invoices", paid, status="paid")
    box.cancel(gone)
    rows = rows_of([record.body for record in box.events], {})

    fired = {
        preset: [row["event_type"] for row in rows if a_trigger(preset=preset).fires(made(row))]
        for preset in ("invoice_paid", "first_payment", "subscription_canceled")
    }

    assert fired == {
        "invoice_paid": ["invoice.updated"],
        "first_payment": ["invoice.updated"],
        "subscription_canceled": ["customer.subscription.deleted"],
    }
    assert {"invoice.paid", "invoice.payment_succeeded"} <= {row["event_type"] for row in rows}


def test_what_is_said_beside_a_preset_replaces_its_word() -> None:
    trigger = a_trigger(preset="first_payment", where="after.amount_paid > 500", enrol="always")

    assert (trigger.where and trigger.where.text, trigger.enrol.kind, trigger.per) == (
        "after.amount_paid > 500",
        "always",
        "customer_id",
    )
    assert trigger.transition == {"status": ("*", "paid")}


# Why


about: list[dict[str, Any]] = [
    {"resource": []} | {"event": ["customer.subscription.updated", "customer.updated"]},
    {"event": "customer.subscription.updated"},
    {"resource": "customers"},
    {"resource": ["subscriptions", "customers"]},
    {"resource": "invoices", "event": "invoice.paid"},
]
triggers = st.builds(
    lambda about, **words: a_trigger(**about, **words),
    about=st.sampled_from(about),
    op=st.sampled_from([[], "u", "added", ["c", "u", "d", "r"]]),
    origin=st.sampled_from([[], "event", ["diff", "snapshot"]]),
    transition=st.dictionaries(
        st.sampled_from(["status", "quantity", "metadata.plan"]),
        st.fixed_dictionaries(
            {},
            optional={
                "from": st.sampled_from(["a", "null", "*", ["a", "b"]]),
                "to": st.sampled_from(["b", "*"]),
            },
        ).filter(bool),
        max_size=2,
    ),
    changed=st.sampled_from([[], "status", ["metadata", "quantity"]]),
    where=st.sampled_from(
        [
            None,
            "after.status == 'a'",
            "after.status == 'b' or before.status",
            "change.op == 'u' and after.quantity > 1",
        ]
    ),
)
an_image = st.fixed_dictionaries(
    {"id": st.just("sub_1")},
    optional={
        "status": st.sampled_from(["a", "b", None]),
        "quantity": st.integers(0, 3),
        "metadata": st.sampled_from([{}, {"plan": "b"}]),
    },
)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    op, old, new = draw(st.sampled_from("cudr")), draw(an_image), draw(an_image)
    previous = {"u": difference(old, new), "d": old}.get(op)
    return made(
        a_change(
            1,
            op=op,
            origin=draw(st.sampled_from(ORIGINS)),
            resource=draw(st.sampled_from(["subscriptions", "customers"])),
            event_type=draw(
                st.sampled_from([None, "customer.subscription.updated", "customer.updated"])
            ),
            after=None if op == "d" else new,
            previous=previous,
            changed=changed_paths(previous or {}) if op == "u" else [],
            before_quality=draw(st.sampled_from(["exact", "none"])) if op in "ud" else "none",
        )
    )


@settings(max_examples=300, deadline=None)
@given(triggers, changes())
def test_all_clauses_hold_exactly_where_a_trigger_fires(trigger: Trigger, change: Change) -> None:
    assert all(clause.holds for clause in evaluate_clauses(trigger, change)) is trigger.fires(
        change
    )


def test_clauses_say_what_is_asked_and_what_is_there() -> None:
    trigger = a_trigger(
        event="customer.subscription.updated",
        transition={"quantity": {"from": ["null", 1], "to": 5}},
        changed=["metadata.plan", "status"],
        where="after.quantity > 2 and after.status == 'past_due'",
    )

    found = [
        (one.what, one.asks, one.found, one.holds)
        for one in evaluate_clauses(trigger, made(a_change(1, **A_MOVE)))
    ]

    assert found == [
        ("resource", "subscriptions", "subscriptions", True),
        ("op", "c or u or d", "u", True),
        ("origin", "event or diff or list", "event", True),
        ("event", "customer.subscription.updated", "customer.subscription.updated", True),
        ("transition of quantity", "null or 1 -> 5", "1 -> 3", False),
        ("changed", "metadata.plan or status", ["quantity", "metadata.plan"], True),
        ("where", "after.quantity > 2", {"after.quantity": 3}, True),
        ("where", "after.status == 'past_due'", {"after.status": "active"}, False),
    ]


# Keys and names


@pytest.mark.parametrize(
    ("per", "customer", "key"),
    [
        ("object_id", "cus_1", "sub_1"),
        ("customer_id", "cus_1", "cus_1"),
        ("customer_id", None, "sub_1"),
        ("object_id", None, "sub_1"),
    ],
)
def test_a_key_is_the_object_or_its_customer(per: str, customer: str | None, key: str) -> None:
    assert a_trigger(per=per).key(made(a_change(1, customer_id=customer))) == key


def test_a_rule_is_what_it_fires_for_and_not_where_that_goes() -> None:
    base: dict[str, Any] = {"op": "updated", "where": "after.a == 1", "enrol": "once"}
    rule = a_trigger(**base).rule
    others: tuple[dict[str, Any], ...] = (
        {"resource": "invoices"},
        {"op": "added"},
        {"event": "customer.subscription.updated"},
        {"origin": "event"},
        {"transition": {"status": {"to": "paid"}}},
        {"changed": "status"},
        {"where": "after.a == 2"},
        {"enrol": "cooldown 1d"},
        {"enrol": "cooldown 2d"},
        {"per": "customer_id"},
        {"net": True},
    )

    assert len({rule, *(a_trigger(**base).rule for _ in range(2))}) == 1
    assert len({rule, *(a_trigger(**{**base, **other}).rule for other in others)}) == 1 + len(
        others
    )
    assert a_trigger("renamed", **base, guard={"max": 1}, deliver={"file": "x"}).rule == rule


@pytest.mark.parametrize(
    ("deliver", "shown"),
    [
        (EndpointConfig("url", "https://hooks.example.com:8443/catch/SECRET?t=SECRET"), "https://hooks.example.com:8443/…"),
        (EndpointConfig("url", "https://user:SECRET@example.com/x"), "https://example.com/…"),
        (EndpointConfig("command", "./collect.sh"), "./collect.sh"),
        (EndpointConfig("python", "module:function"), "module:function"),
        (EndpointConfig("python", nothing), "nothing"),
        (EndpointConfig("file", "out.jsonl"), "out.jsonl"),
    ],
)  # fmt: skip
def test_a_receiver_is_shown_without_what_may_be_secret(
    deliver: EndpointConfig, shown: str
) -> None:
    assert deliver.shown == shown
    assert [one.name for one in dataclasses.fields(deliver)][:2] == ["kind", "to"]
