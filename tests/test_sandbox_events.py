"""The sandbox's event history follows Stripe's rules, in its content and over HTTP."""

from __future__ import annotations

import json
import time
from collections import Counter
from functools import cache
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode

import pytest
import stripe

from stripe_feed.api.client import API_VERSION
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.protocol.messages import Request
from stripe_feed.sandbox.state.event_log import Event
from stripe_feed.sandbox.state.mutation import Mutation
from tests.feed_truth import by_ids

DAY = 86_400
Object = dict[str, Any]


@pytest.fixture
def box() -> Sandbox:
    return Sandbox(seed=5, customers=20, oddities=False)


def ask(
    box: Sandbox, path: str = "/v1/events", key: str = "", version: str = "", **params: Any
) -> tuple[int, Any]:
    target = f"{path}?{urlencode(params, doseq=True)}"
    headers = {"authorization": f"Bearer {key or box.key}"} | (
        {"stripe-version": version} if version else {}
    )
    answer = box.answer(Request("GET", target, headers, b""))
    assert box.account.failures == []
    return answer.status, json.loads(answer.body)


def control(box: Sandbox, method: str, path: str, **given: Any) -> Any:
    answer = box.answer(Request(method, f"/_sandbox/{path}", {}, json.dumps(given).encode()))
    return answer.status, json.loads(answer.body)


def page(box: Sandbox, **params: Any) -> tuple[list[str], bool]:
    status, found = ask(box, **params)
    assert status == 200, found
    assert (found["object"], found["url"]) == ("list", "/v1/events")
    return [event["id"] for event in found["data"]], found["has_more"]


def error(
    box: Sandbox, path: str = "/v1/events", /, **params: Any
) -> tuple[int, str | None, str | None]:
    status, found = ask(box, path, **params)
    return status, found["error"].get("code"), found["error"].get("param")


def walk(box: Sandbox, **params: Any) -> list[Object]:
    found: list[Object] = []
    while True:
        after = {"starting_after": found[-1]["id"]} if found else {}
        status, got = ask(box, **{"limit": 100} | params | after)
        assert status == 200, got
        found += got["data"]
        if not got["has_more"]:
            return found


def happened(box: Sandbox, since: int = 0) -> list[Object]:
    return [json.loads(event.body) for event in box.events[since:]]


def told(box: Sandbox, since: int = 0) -> list[str]:
    return [event.type for event in box.events[since:]]


def changed(box: Sandbox, table: str, id: str, **fields: Any) -> Object:
    """The `data` of the one event of an update."""
    since = len(box.events)
    box.update(table, id, **fields)
    (event,) = happened(box, since)
    return dict(event["data"])


# What is recorded


def test_the_past_has_no_events(box: Sandbox) -> None:
    assert (box.events, box.history, page(box)) == ([], [], ([], False))


def test_an_event_has_stripes_fields(box: Sandbox) -> None:
    made = box.create("customers", discount=None)
    (event,) = ask(box)[1]["data"]

    assert set(event) == set(stripe.Event.__annotations__) - {"OBJECT_NAME", "account", "reason"}
    assert event["id"].startswith("evt_1")
    assert event | {"id": "", "request": None} == {
        "id": "", "object": "event", "api_version": "2026-10-28.endive", "context": None, "created": box.now,
        "data": {"object": made}, "livemode": False, "pending_webhooks": 0, "request": None, "type": "customer.created",
    }  # fmt: skip
    assert box.events == [
        Event(
            event["id"],
            "customer.created",
            "customers",
            made["id"],
            box.now,
            box.now,
            False,
            None,
            box.events[0].body,
        )
    ]


def test_the_sdk_reads_them(box: Sandbox) -> None:
    for _ in range(3):
        box.create("customers", discount=None)
    with box.serve() as url:
        client = stripe.StripeClient(box.key, base_addresses={"api": url})
        listed = client.v1.events.list({"types": ["customer.created"], "limit": 2})
        assert [event.id for event in listed.auto_paging_iter()] == page(box)[0]
        assert client.v1.events.retrieve(listed.data[0].id).data.object["object"] == "customer"


def test_events_of_one_request_name_it_once() -> None:
    box = Sandbox(seed=5, customers=5, oddities=False)
    customer = box.create("customers", discount=None)["id"]
    box.create(
        "subscriptions", customer=customer, items=[{"price_data": {"unit_amount": 5}}], discounts=[]
    )
    box.delete("customers", customer)
    *created, canceled, deleted = happened(box)[1:]

    assert [event["type"] for event in created] == [
        "plan.created",
        "price.created",
        "customer.subscription.created",
    ]
    assert created[0]["request"] == created[1]["request"] == created[2]["request"]
    assert canceled["request"] == deleted["request"]
    box.noise(300)
    requests = [event["request"] for event in happened(box)]
    assert None in requests
    given = [request for request in requests if request]
    assert {(bool(request["id"]), bool(request["idempotency_key"])) for request in given} == {
        (False, False), (True, False), (True, True)
    }  # fmt: skip
    assert len({request["id"] for request in given if request["id"]}) > 200


def test_previous_attributes_hold_the_old_values_of_what_changed(box: Sandbox) -> None:
    id = box.create(
        "customers", name="A", phone=None, discount=None, preferred_locales=["de", "en"]
    )["id"]
    data = changed(box, "customers", id, name="B", phone="1", preferred_locales=["de"], loyalty=5)

    assert data["previous_attributes"] == {
        "name": "A",
        "phone": None,
        "preferred_locales": ["de", "en"],
        "loyalty": None,
    }
    assert data["object"] == box.objects("customers")[id]


def test_of_hashes_they_hold_the_changed_keys(box: Sandbox) -> None:
    id = box.create(
        "customers", metadata={"a": "1", "b": "2", "c": "3"}, discount=None, shipping=None
    )["id"]
    settings = {
        "custom_fields": None,
        "rendering_options": {"amount_tax_display": "x", "template": None},
    }
    box.update("customers", id, invoice_settings=settings)
    deeper = {
        "custom_fields": None,
        "rendering_options": {"amount_tax_display": "y", "template": None},
    }

    assert changed(box, "customers", id, metadata={"a": "1", "b": "5", "d": "4"})[
        "previous_attributes"
    ] == {"metadata": {"b": "2", "c": "3", "d": None}}
    assert changed(box, "customers", id, invoice_settings=deeper)["previous_attributes"] == {
        "invoice_settings": {"rendering_options": {"amount_tax_display": "x"}}
    }
    assert changed(box, "customers", id, shipping={"name": "A"})["previous_attributes"] == {
        "shipping": None
    }


def test_only_updates_have_them(box: Sandbox) -> None:
    box.live(DAY, 300)

    for event in happened(box):
        assert ("previous_attributes" in event["data"]) == event["type"].endswith(".updated")


def test_an_update_that_changes_nothing_is_no_event(box: Sandbox) -> None:
    made = box.create("prices", recurring={"interval": "month"}, lookup_key=None)
    since = len(box.events)
    box.update("prices", made["id"], nickname=made["nickname"])
    assert told(box, since) == []
    box.update("prices", made["id"], lookup_key="gold")
    assert told(box, since) == ["price.updated"]
    assert len(box.history) == 6


def test_a_price_tells_as_plan_too(box: Sandbox) -> None:
    price = box.create("prices", recurring={"interval": "month"}, nickname="A")
    box.update("prices", price["id"], nickname="B")
    plan_event, price_event = happened(box)[-2:]

    assert told(box) == ["plan.created", "price.created", "plan.updated", "price.updated"]
    assert plan_event["request"] == price_event["request"]
    assert plan_event["data"] == {
        "object": box.objects("plans")[price["id"]], "previous_attributes": {"nickname": "A"}
    }  # fmt: skip
    box.put(
        "prices",
        {
            "id": "p",
            "object": "price",
            "created": 5,
            "active": True,
            "recurring": None,
            "product": "x",
        },
    )
    assert told(box, 4) == ["price.created"]


def test_embedded_lists_are_shown_to_ten_and_given_whole(box: Sandbox) -> None:
    id = box.create("subscriptions", items=2, discounts=[])["id"]
    old = box.objects("subscriptions")[id]["items"]["data"]
    kept = [{"id": item["id"]} for item in old]
    grown = changed(box, "subscriptions", id, items=[*kept, *({} for _ in range(10))])
    assert grown["previous_attributes"] == {
        "items": {"data": old, "has_more": False, "total_count": 2}
    }
    assert (len(grown["object"]["items"]["data"]), grown["object"]["items"]["has_more"]) == (
        10,
        True,
    )
    shown = grown["object"]["items"]["data"]
    shrunk = changed(box, "subscriptions", id, items=kept)
    assert shrunk["previous_attributes"] == {
        "items": {"data": shown, "has_more": True, "total_count": 12}
    }


def test_a_change_beyond_the_tenth_has_an_event_without_a_difference(box: Sandbox) -> None:
    id = box.create("subscriptions", items=12, discounts=[])["id"]
    items: list[Object] = [
        {"id": child["id"]}
        for child in box.children("subscription_items").values()
        if child["subscription"] == id
    ]
    data = changed(box, "subscriptions", id, items=[*items[:-1], items[-1] | {"quantity": 77}])

    assert data["previous_attributes"] == {}
    assert (box.history[-1].hidden, box.history[-2].hidden) == (True, False)


@pytest.mark.parametrize("how", ["cancel", "update"])
def test_a_canceled_subscription_has_one_deleted_event(box: Sandbox, how: str) -> None:
    id = box.create("subscriptions", discounts=[])["id"]
    since = len(box.events)
    done = box.cancel(id) if how == "cancel" else box.update("subscriptions", id, status="canceled")
    (event,) = happened(box, since)

    assert event["type"] == "customer.subscription.deleted"
    assert event["data"] == {"object": done}
    assert (done["status"], box.history[-1].operation) == ("canceled", "canceled")


def test_a_deleted_customer_ends_its_subscriptions(box: Sandbox) -> None:
    customer = box.create("customers", discount=None)["id"]
    subscriptions = {
        box.create("subscriptions", customer=customer, discounts=[])["id"] for _ in range(2)
    }
    since = len(box.events)
    last = box.delete("customers", customer)
    events = happened(box, since)

    assert [event["type"] for event in events] == ["customer.subscription.deleted"] * 2 + [
        "customer.deleted"
    ]
    assert {event["data"]["object"]["id"] for event in events[:2]} == subscriptions
    assert events[2]["data"] == {"object": last}


def test_the_events_of_an_invoices_way_carry_one_snapshot(box: Sandbox) -> None:
    id = box.create("invoices", status="draft")["id"]
    for status in ("open", "paid"):
        box.update("invoices", id, status=status)
    box.create("invoices", status="paid")
    opened, paid = happened(box)[1:3], happened(box)[3:6]

    assert told(box)[:6] == [
        "invoice.created", "invoice.updated", "invoice.finalized",
        "invoice.updated", "invoice.paid", "invoice.payment_succeeded",
    ]  # fmt: skip
    assert told(box, 6) == [
        "invoice.created",
        "invoice.finalized",
        "invoice.paid",
        "invoice.payment_succeeded",
    ]
    assert opened[0]["data"]["previous_attributes"]["status"] == "draft"
    assert paid[0]["data"]["previous_attributes"]["status_transitions"] == {"paid_at": None}
    for group in (opened, paid):
        assert all(event["data"]["object"] == group[0]["data"]["object"] for event in group)
        assert all(
            event["request"] == group[0]["request"] and event["created"] == box.now
            for event in group
        )


@pytest.mark.parametrize("short", [False, True])
def test_deletes_carry_the_last_object_or_a_stub(box: Sandbox, short: bool) -> None:
    box.stub_deletes = short
    objects = [
        box.create("customers"),
        box.create("invoices"),
        box.create("plans"),
        box.create("products"),
    ]
    since = len(box.events)
    for table, made in zip(("customers", "invoices", "plans", "products"), objects, strict=True):
        box.delete(table, made["id"])
    price = box.deleted("prices")[objects[2]["id"]]
    expected = [*objects[:3], price, objects[3]]
    if short:
        expected = [
            {"id": made["id"], "object": made["object"], "deleted": True} for made in expected
        ]

    assert told(box, since) == [
        "customer.deleted",
        "invoice.deleted",
        "plan.deleted",
        "price.deleted",
        "product.deleted",
    ]
    assert [event["data"] for event in happened(box, since)] == [
        {"object": found} for found in expected
    ]


def discounted(coupon: str, id: str = "di_1") -> Object:
    source = {"coupon": coupon, "type": "coupon"}
    return {
        "id": id,
        "object": "discount",
        "customer": "cus_1",
        "subscription": None,
        "source": source,
        "start": 1,
        "end": None,
    }


def test_a_customers_discount_tells_apart(box: Sandbox) -> None:
    id = box.create("customers", discount=None)["id"]
    box.update("customers", id, discount=discounted("A"))
    box.update("customers", id, discount=discounted("B"))
    box.update("customers", id, name="no discount changes here")
    box.update("customers", id, discount=None)
    events = [event for event in happened(box) if "discount" in event["type"]]

    assert told(box)[1:] == [
        "customer.updated", "customer.discount.created", "customer.updated", "customer.discount.updated",
        "customer.updated", "customer.updated", "customer.discount.deleted",
    ]  # fmt: skip
    assert [event["data"]["object"] for event in events] == [
        discounted("A"),
        discounted("B"),
        discounted("B"),
    ]
    assert events[1]["data"]["previous_attributes"] == {"source": {"coupon": "A"}}
    assert {(event.table, event.object_id) for event in box.events if "discount" in event.type} == {
        ("discounts", "di_1")
    }


def test_a_subscriptions_discounts_tell_too(box: Sandbox) -> None:
    made = box.create("subscriptions", discounts=["di_a"])
    box.update("subscriptions", made["id"], discounts=["di_b"])
    events = [event for event in happened(box) if "discount" in event["type"]]

    assert [(event["type"].rsplit(".", 1)[1], event["data"]["object"]["id"]) for event in events] == [
        ("created", "di_a"), ("deleted", "di_a"), ("created", "di_b")
    ]  # fmt: skip
    found = events[0]["data"]["object"]
    assert (found["object"], found["subscription"], found["customer"]) == (
        "discount",
        made["id"],
        made["customer"],
    )
    assert events[0]["data"]["object"] == events[1]["data"]["object"]


def test_a_preview_is_of_no_invoice(box: Sandbox) -> None:
    subscription = box.create("subscriptions", items=12, discounts=[])
    previews = [box.preview(subscription["id"]), box.preview(subscription["customer"])]
    events = happened(box, 1)

    assert [event["type"] for event in events] == ["invoice.upcoming"] * 2
    assert [event["data"]["object"]["id"] for event in events] == [
        found["id"] for found in previews
    ]
    assert all(found["id"].startswith("upcoming_in_1") for found in previews)
    assert [len(event["data"]["object"]["lines"]["data"]) for event in events] == [10, 10]
    assert (
        events[0]["data"]["object"]["parent"]["subscription_details"]["subscription"]
        == subscription["id"]
    )
    assert not {found["id"] for found in previews} & set(box.objects("invoices"))
    assert ({event.table for event in box.events[1:]}, len(box.history)) == ({"previews"}, 1)
    with pytest.raises(KeyError):
        box.preview("cus_unknown")


def test_noise_is_of_other_objects(box: Sandbox) -> None:
    box.noise(50)

    assert set(told(box)) == {
        "customer.source.created", "customer.tax_id.created", "charge.succeeded", "payment_intent.succeeded"
    }  # fmt: skip
    assert {event["data"]["object"]["object"] for event in happened(box)} == {
        "card",
        "tax_id",
        "charge",
        "payment_intent",
    }
    assert (len(box.events), box.history) == (50, [])


def test_the_truth_is_kept_in_order(box: Sandbox) -> None:
    seen: list[Any] = []
    box.observers.append(seen.append)
    box.live(DAY, 100)

    assert box.history == seen
    assert [event.created for event in box.events] == sorted(event.created for event in box.events)
    assert len({event.id for event in box.events}) == len(box.events)
    assert all(event.visible_at == event.created and not event.lost for event in box.events)


def test_the_history_cannot_be_changed_from_outside(box: Sandbox) -> None:
    made = box.create("customers", name="A")
    made["name"] = "B"

    assert box.history[0].after is not None
    assert box.history[0].after["name"] == "A"


def test_the_same_seed_gives_the_same_events() -> None:
    one, other = (Sandbox(seed=5, customers=20, oddities=False) for _ in range(2))
    assert one.live(DAY, 100) == other.live(DAY, 100)
    assert one.events == other.events


# Older versions


def all_events(version: str) -> list[Object]:
    box = Sandbox(seed=5, customers=20, oddities=False, api_version=version)
    box.live(DAY, 400)
    box.create("customers", discount=discounted("A"))
    customer = box.create("customers", discount=None)["id"]
    box.preview(customer)
    assert {event["api_version"] for event in happened(box)} == {version}
    return happened(box)


def test_what_is_read_has_the_version_asked_for_or_the_accounts_own() -> None:
    """Lists, objects and the lists inside them; events keep the version that they were recorded
    with.
    """
    box = Sandbox(seed=5, customers=4, oddities=False, api_version="2025-01-27.acacia")
    invoice, subscription = (
        next(iter(box.objects("invoices"))),
        next(iter(box.objects("subscriptions"))),
    )

    def shown(path: str, version: str) -> Object:
        found: Object = ask(box, path, version=version)[1]
        return found["data"][0] if found["object"] == "list" else found

    box.update("invoices", invoice, description="Changed")
    for version, old in (("", True), ("2025-01-27.acacia", True), (API_VERSION, False)):
        for path in ("/v1/invoices", f"/v1/invoices/{invoice}"):
            assert ("subscription" in shown(path, version)) is old
            assert ("parent" in shown(path, version)) is not old
            assert ("proration" in shown(path, version)["lines"]["data"][0]) is old
        assert ("proration" in shown(f"/v1/invoices/{invoice}/lines", version)) is old
        assert ("current_period_end" in shown(f"/v1/subscriptions/{subscription}", version)) is old
        assert "subscription" in shown("/v1/events", version)["data"]["object"]


def objects(events: list[Object], kind: str) -> list[Object]:
    return [
        event["data"]["object"] for event in events if event["data"]["object"]["object"] == kind
    ]


def fields(found: list[Object]) -> set[str]:
    names = {frozenset(one) for one in found}
    assert len(names) == 1, names
    return set(next(iter(names)))


NEWER_THAN_CLOVER = {
    "invoice": {"status_details", "amount_paid_off_stripe", "customer_account"},
    "subscription": {
        "status_details",
        "billing_schedules",
        "managed_payments",
        "presentment_details",
        "customer_account",
    },
    "product": {"tax_details"},
    "customer": {"customer_account"},
    "plan": set(),
    "price": set(),
    "discount": {"customer_account"},
}


@cache
def _events(version: str) -> list[Object]:
    return all_events(version)


@pytest.mark.parametrize("kind", NEWER_THAN_CLOVER)
def test_clover_lacks_what_came_later(kind: str) -> None:
    now, then = (
        fields(objects(_events(version), kind)[:5])
        for version in ("2026-10-28.endive", "2025-09-30.clover")
    )

    assert now - then == NEWER_THAN_CLOVER[kind]
    assert then <= now


@pytest.fixture(scope="module")
def acacia() -> list[Object]:
    return all_events("2025-02-24.acacia")


def test_before_basil_subscriptions_had_a_period_and_a_discount(acacia: list[Object]) -> None:
    for found in objects(acacia, "subscription"):
        assert {
            "current_period_start",
            "current_period_end",
            "discount",
            "billing_thresholds",
        } <= set(found)
        assert "billing_mode" not in found
        assert (found["discount"] or {}).get("id") == next(iter(found["discounts"]), None)
        for item in found["items"]["data"]:
            assert not {
                "current_period_start",
                "current_period_end",
                "billed_until",
                "current_trial",
            } & set(item)
            assert item["plan"]["aggregate_usage"] is None
            assert item["price"]["recurring"]["aggregate_usage"] is None


def test_before_basil_invoices_named_their_subscription(acacia: list[Object]) -> None:
    invoices = [found for found in objects(acacia, "invoice") if "id" in found]
    for found in invoices:
        assert not {"parent", "total_taxes", "amount_overpaid", "status_details"} & set(found)
        assert {
            "subscription",
            "paid",
            "tax",
            "total_tax_amounts",
            "discount",
            "charge",
            "payment_intent",
            "quote",
        } <= set(found)
        assert found["paid"] is (found["status"] == "paid")
        assert found["tax"] == (sum(tax["amount"] for tax in found["total_tax_amounts"]) or None)
        for line in found["lines"]["data"]:
            assert not {"parent", "pricing", "taxes", "quantity_decimal", "subtotal"} & set(line)
            assert line["type"] == (
                "subscription" if "subscription_item" in line else "invoiceitem"
            )
            assert line["price"]["id"] == line["plan"]["id"]
    assert any(found["subscription"] for found in invoices)


def test_before_clover_discounts_held_the_coupon_and_previews_had_no_id(
    acacia: list[Object],
) -> None:
    given = [found for found in objects(acacia, "customer") if found["discount"]]

    assert {found["discount"]["coupon"]["object"] for found in given} == {"coupon"}
    assert all("source" not in found["discount"] for found in given)
    assert all("coupon" in found for found in objects(acacia, "discount"))
    (preview,) = [
        event["data"]["object"] for event in acacia if event["type"] == "invoice.upcoming"
    ]
    assert "id" not in preview


def test_before_acacia_some_fields_were_not_there_yet(acacia: list[Object]) -> None:
    older = all_events("2024-06-20")
    for kind, extra in (
        ("invoice", {"total_pretax_credit_amounts"}),
        ("subscription", set()),
        ("customer", set()),
    ):
        assert fields(objects(acacia, kind)[:5]) - fields(objects(older, kind)[:5]) == extra
    assert all(
        "disabled_reason" not in found["automatic_tax"] for found in objects(older, "invoice")
    )


def test_differences_are_between_the_shapes(box: Sandbox) -> None:
    box.api_version = "2024-06-20"
    made = box.create("subscriptions", items=1, discounts=[])
    item = made["items"]["data"][0]
    longer = {"id": item["id"], "current_period_end": item["current_period_end"] + 5}
    data = changed(box, "subscriptions", made["id"], items=[longer])
    invoice = box.create("invoices", status="open")["id"]
    box.update("invoices", invoice, status="paid")

    assert data["previous_attributes"] == {"current_period_end": item["current_period_end"]}
    assert happened(box)[-3]["data"]["previous_attributes"]["paid"] is False
    since = len(box.events)
    box.update("subscriptions", made["id"], presentment_details={"presentment_currency": "eur"})
    assert told(box, since) == []
    assert len(box.history[-1].events) == 1


def test_the_default_may_change_and_old_events_stay_as_they_are(box: Sandbox) -> None:
    box.create("products")
    assert control(box, "POST", "settings", api_version="2025-09-30.clover") == (
        200, {"api_version": "2025-09-30.clover", "silent_changes": True, "stub_deletes": False}
    )  # fmt: skip
    box.create("products")

    assert [event["api_version"] for event in happened(box)] == [
        "2026-10-28.endive",
        "2025-09-30.clover",
    ]
    assert control(box, "POST", "settings", api_version="2019-01-01")[0] == 400
    assert control(box, "POST", "settings", nonsense=1)[0] == 400
    with pytest.raises(ValueError, match="unknown API version"):
        Sandbox(customers=1, api_version="yesterday")


# The list


def several(box: Sandbox, seconds: int = 10, each: int = 5) -> list[Event]:
    for _ in range(seconds):
        for _ in range(each):
            box.create("customers", discount=None)
        box.advance(1)
    return box.events


def test_newest_first_and_without_order_inside_a_second(box: Sandbox) -> None:
    happened = several(box)
    found = walk(box, limit=7)

    assert [event["created"] for event in found] == sorted(
        (event.created for event in happened), reverse=True
    )
    assert {event["id"] for event in found} == {event.id for event in happened}
    assert [event["id"] for event in found] != [event.id for event in reversed(happened)]
    assert found == walk(box, limit=100)


def test_pages_are_the_recorded_bytes(box: Sandbox) -> None:
    several(box, 1)
    body = box.answer(
        Request("GET", "/v1/events?limit=2", {"authorization": f"Bearer {box.key}"}, b"")
    ).body
    by_id = {event.id: event.body for event in box.events}

    assert (
        body
        == b'{"object":"list","data":['
        + b",".join(by_id[id] for id in page(box, limit=2)[0])
        + b'],"has_more":true,"url":"/v1/events"}'
    )


def test_cursors_go_both_ways_and_meet(box: Sandbox) -> None:
    several(box)
    ids = [event["id"] for event in walk(box)]

    assert page(box, limit=10, starting_after=ids[14]) == (ids[15:25], True)
    assert page(box, limit=35, starting_after=ids[14]) == (ids[15:], False)
    assert page(box, limit=10, ending_before=ids[14]) == (ids[4:14], True)
    assert page(box, limit=14, ending_before=ids[14]) == (ids[:14], False)
    assert page(box, ending_before=ids[0]) == ([], False)
    assert ask(box, starting_after=ids[0], ending_before=ids[1])[0] == 400


@pytest.mark.parametrize("param", ["starting_after", "ending_before"])
def test_a_cursor_must_be_there_still(box: Sandbox, param: str) -> None:
    old = several(box, 1, 1)[0].id
    assert error(box, **{param: "evt_unknown"}) == (400, "resource_missing", param)
    box.advance(30 * DAY + 1)
    assert error(box, **{param: old}) == (400, "resource_missing", param)


def test_a_cursor_need_not_match_the_filters(box: Sandbox) -> None:
    box.create("products")
    box.advance(1)
    customer = box.create("customers", discount=None)["id"]

    assert (
        len(page(box, type="product.*", starting_after=page(box, type="customer.created")[0][0])[0])
        == 1
    )
    box.advance(1)
    box.update("customers", customer, name="B")
    assert page(box, type="product.*", ending_before=page(box, type="customer.created")[0][0]) == (
        [],
        False,
    )


def test_events_are_gone_after_thirty_days(box: Sandbox) -> None:
    first = box.now
    several(box, 2)
    old = next(event.id for event in box.events if event.created == first)
    box.advance(30 * DAY - (box.now - first))
    assert len(walk(box)) == 10
    assert ask(box, f"/v1/events/{old}")[0] == 200
    box.advance(1)
    assert {event["created"] for event in walk(box)} == {first + 1}
    assert error(box, f"/v1/events/{old}") == (404, "resource_missing", "id")
    assert len(box.events) == 10


def test_one_event(box: Sandbox) -> None:
    event = several(box, 1, 1)[0]

    assert ask(box, f"/v1/events/{event.id}") == (200, json.loads(event.body))
    assert error(box, "/v1/events/evt_unknown")[:2] == (404, "resource_missing")
    assert error(box, f"/v1/events/{event.id}", nonsense=1)[:2] == (400, "parameter_unknown")


def test_created_windows(box: Sandbox) -> None:
    start = box.now
    several(box)

    def seconds(**params: int) -> set[int]:
        return {
            event["created"] - start
            for event in walk(
                box,
                **{
                    name.replace("_", "[") + "]" if "_" in name else name: at + start
                    for name, at in params.items()
                },
            )
        }

    assert seconds(created=3) == {3}
    assert seconds(created_gte=3, created_lt=6) == {3, 4, 5}
    assert seconds(created_gt=3, created_lte=6) == {4, 5, 6}
    assert seconds(created_gt=8) == {9}
    assert seconds(created_lt=0) == set()
    assert error(box, **{"created[about]": 5})[1] == "parameter_unknown"


def types_of(box: Sandbox, **params: Any) -> set[str]:
    return {event["type"] for event in walk(box, **params)}


def test_types(box: Sandbox) -> None:
    box.live(DAY, 300)
    box.noise(20)
    all_types = set(told(box))

    assert types_of(box, type="customer.created") == {"customer.created"}
    assert types_of(box, type="customer.*") == {
        name for name in all_types if name.startswith("customer.")
    }
    assert {"customer.subscription.created", "customer.tax_id.created"} <= types_of(
        box, type="customer.*"
    )
    assert types_of(box, type="*.deleted") == {
        name for name in all_types if name.endswith(".deleted")
    }
    assert types_of(box, type="*") == all_types
    assert types_of(box, type="unheard.of") == set()
    two = {"customer.created", "plan.created"}
    assert types_of(box, **{"types[]": sorted(two)}) == two
    assert types_of(box, **{"types[0]": "customer.created", "types[1]": "plan.created"}) == two
    assert types_of(box, **{"types[]": [f"no.{n}" for n in range(19)] + ["plan.created"]}) == {
        "plan.created"
    }


def test_bad_parameters_are_refused(box: Sandbox) -> None:
    assert error(box, **{"types[]": [f"no.{n}" for n in range(21)]})[0] == 400
    assert error(box, type="plan.*", **{"types[]": ["plan.created"]})[0] == 400
    assert error(box, types="plan.created") == (400, None, "types")
    assert error(box, type="*.plan.*") == (400, None, "type")
    assert error(box, **{"types[]": ["plan.*"]}) == (400, None, "types")
    assert error(box, limit=101) == (400, "parameter_invalid_integer", "limit")
    assert error(box, limit=0) == (400, "parameter_invalid_integer", "limit")
    assert error(box, object_id="cus_1") == (400, "parameter_unknown", "object_id")
    assert error(box, **{"expand[]": "data.data"}) == (400, None, "expand")
    assert error(box, delivery_success="maybe")[1] == "parameter_invalid_boolean"


def test_all_deliveries_succeeded_as_there_are_none(box: Sandbox) -> None:
    several(box, 1)
    assert len(page(box, delivery_success="true")[0]) == 5
    assert page(box, delivery_success="false") == ([], False)


def test_a_key_needs_the_permission(box: Sandbox) -> None:
    event = several(box, 1, 1)[0]
    poor, rich = (
        box.restrict(permissions=["rak_customer_read"]),
        box.restrict(permissions=["rak_event_read"]),
    )

    for path in ("/v1/events", f"/v1/events/{event.id}"):
        assert ask(box, path, key=rich)[0] == 200
        status, found = ask(box, path, key=poor)
        assert status == 403
        assert "rak_event_read" in found["error"]["message"]


def test_ten_thousands_of_events_are_paged_fast() -> None:
    box = Sandbox(seed=5, customers=20, oddities=False)
    started = time.process_time()
    box.noise(20_000)
    box.advance(5)
    assert time.process_time() - started < 5
    started = time.process_time()
    assert len(page(box, limit=100, type="payment_intent.*")[0]) == 100
    assert time.process_time() - started < 0.5


# What goes wrong


def test_events_may_show_late() -> None:
    box = Sandbox(seed=5, customers=20, oddities=False)
    box.faults.event_delay = 60
    start = box.now
    several(box, 1, 100)
    waits = [event.visible_at - start for event in box.events]
    last = box.events[max(range(100), key=waits.__getitem__)].id

    assert 0 <= min(waits) < 5
    assert 55 < max(waits) <= 60
    for _ in range(30):
        assert {event["id"] for event in walk(box)} == {
            event.id for event in box.events if event.visible_at <= box.now
        }
        box.advance(1)
    assert error(box, starting_after=last)[0] == 400
    assert error(box, f"/v1/events/{last}")[0] == 404
    box.advance(60)
    assert len(walk(box)) == 100
    assert {event["created"] for event in walk(box)} == {start}


def test_events_may_be_lost(box: Sandbox) -> None:
    box.faults.lost_events = 0.3
    several(box, 4, 50)
    lost = {event.id for event in box.events if event.lost}

    assert 30 < len(lost) < 90
    assert {event["id"] for event in walk(box)} == {event.id for event in box.events} - lost
    assert error(box, f"/v1/events/{min(lost)}")[0] == 404


def test_events_may_come_twice(box: Sandbox) -> None:
    box.faults.doubled_events = 0.3
    several(box, 4, 50)
    bodies = {event["id"]: event for event in walk(box)}
    twins = [event for event in box.events if event.duplicate_of]

    assert 30 < len(twins) < 90
    assert len(bodies) == 200 + len(twins)
    for twin in twins:
        assert twin.id != twin.duplicate_of
        assert bodies[twin.id] == bodies[twin.duplicate_of or ""] | {"id": twin.id}


def test_these_faults_are_set_over_http_and_change_nothing_else(box: Sandbox) -> None:
    twin = Sandbox(seed=5, customers=20, oddities=False)
    assert (
        control(box, "POST", "faults", event_delay=5, lost_events=0.5, doubled_events=0.1)[1][
            "event_delay"
        ]
        == 5
    )
    assert box.live(DAY, 100) == twin.live(DAY, 100)
    assert box.history == twin.history


def test_the_other_faults_hit_events_too(box: Sandbox) -> None:
    several(box)
    box.faults.always["/v1/events/:id"] = 500
    assert ask(box, f"/v1/events/{box.events[0].id}")[0] == 500
    assert ask(box)[0] == 200
    box.faults.rates["/v1/events"] = 1
    assert [ask(box)[0] for _ in range(3)][1:] == [429, 429]
    box.faults.rates.clear()
    box.faults.short = 1.0
    assert [len(ids) if more else 0 for ids, more in [page(box, limit=20)]] == [11]
    assert len(walk(box)) == 50
    assert box.counts["/v1/events/:id", 500] == 1


# Life


def test_a_life_has_the_hard_cases() -> None:
    box = Sandbox(seed=5, customers=100, oddities=False)
    box.live(5 * DAY, 1500)
    history = box.history
    by_second = Counter((change.table, change.id, change.at) for change in history)
    kinds = {(change.table, change.operation) for change in history}

    assert max(by_second.values()) >= 4
    assert kinds >= {
        ("customers", "deleted"), ("invoices", "deleted"), ("products", "deleted"), ("plans", "deleted"), ("prices", "deleted"),
        ("subscriptions", "canceled"), ("plans", "updated"), ("products", "created"),
    }  # fmt: skip
    assert there_and_back(history)
    assert same_id_again(history) >= 2
    assert min(tagged(history)[name] for name in ("added", "removed", "replaced")) >= 5
    sizes = {table: [len(change.after[field]["data"]) if change.after else 0 for change in history if change.table == table]
             for table, field in (("subscriptions", "items"), ("invoices", "lines"))}  # fmt: skip
    assert [max(each) for each in sizes.values()] == [10, 10]
    assert any(change.hidden for change in history)
    assert {
        "invoice.paid",
        "invoice.voided",
        "customer.discount.created",
        "customer.discount.deleted",
    } <= set(told(box))


def there_and_back(history: list[Mutation]) -> bool:
    """Whether an object was changed and was as before in the same second."""
    pairs = pairwise(history)
    return any(
        (one.table, one.id, one.at) == (two.table, two.id, two.at)
        and one.before == two.after
        and one.before != one.after
        for one, two in pairs
    )


def same_id_again(history: list[Mutation]) -> int:
    gone: set[str] = set()
    again = 0
    for change in history:
        if change.table == "products" and change.operation == "deleted":
            gone.add(change.id)
        again += change.operation == "created" and change.id in gone
    return again


def tagged(history: list[Mutation]) -> Counter[str]:
    found: Counter[str] = Counter()
    for change in history:
        if change.before and change.after:
            before, after = change.before.get("metadata") or {}, change.after.get("metadata") or {}
            found["added"] += bool(after.keys() - before.keys())
            found["removed"] += bool(before.keys() - after.keys())
            found["replaced"] += any(
                before[key] != after[key] for key in before.keys() & after.keys()
            )
    return found


def test_a_burst_is_quick_and_hits_many(box: Sandbox) -> None:
    start = box.now
    done = box.burst(40)
    assert (len(done), box.now, len({id for _, _, id in done}) > 15) == (40, start, True)
    box.burst(40, seconds=10)
    assert start < box.now < start + 10
    assert control(box, "POST", "burst", count=3)[0] == 200


def test_a_burst_may_run_while_a_page_is_read(box: Sandbox) -> None:
    def busy(template: str, params: Object) -> None:
        box.burst(5)

    box.on_request = busy
    assert ask(box, "/v1/customers")[0] == 200
    assert len(box.history) >= 5


def test_reverting_the_differences_leads_back(box: Sandbox) -> None:
    """What `previous_attributes` says, put over the later object, is the earlier one wherever keys
    did not come or go.
    """
    box.live(DAY, 400)
    after_of: dict[tuple[str, str], Object] = {}
    checked = 0
    for event, content in zip(box.events, happened(box), strict=True):
        data, key = content["data"], (event.table, event.object_id)
        if event.type.endswith(".updated") and key in after_of:
            before = reverted(data["object"], data["previous_attributes"])
            assert bare(by_ids(before)) == bare(by_ids(after_of[key]))
            checked += 1
        after_of[key] = data["object"]
    assert checked > 100


def reverted(after: Object, previous: Object) -> Object:
    found = dict(after)
    for name, old in previous.items():
        found[name] = (
            reverted(after[name], old)
            if isinstance(old, dict) and isinstance(after.get(name), dict)
            else old
        )
    return found


def bare(value: Any) -> Any:
    """Without nulls in hashes: those of keys that were not there look the same."""
    if isinstance(value, dict):
        return {name: bare(inner) for name, inner in value.items() if inner is not None}
    return value


def test_control_over_http(box: Sandbox) -> None:
    customer = box.create("customers", discount=None)["id"]
    assert control(box, "POST", "preview", id=customer)[1]["object"] == "invoice"
    control(box, "POST", "noise", count=2)
    control(box, "POST", "settings", stub_deletes=True)
    box.delete("customers", customer)
    found = control(box, "GET", "events")[1]

    assert [event["type"] for event in found[:2]] == ["customer.created", "invoice.upcoming"]
    assert found[-1]["body"]["data"]["object"] == {
        "id": customer,
        "object": "customer",
        "deleted": True,
    }
    assert [event["id"] for event in found] == [event.id for event in box.events]
    assert {"twin_of", "visible_at", "lost"} < set(found[0])
