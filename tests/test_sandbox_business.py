"""The business of the sandbox lives: it renews, collects, discounts, and its money adds up."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.protocol.messages import Request
from stripe_feed.sandbox.scenarios import business, renewals
from stripe_feed.sandbox.state.discounts import coupon_content, discount_content
from stripe_feed.sandbox.writes import subscriptions

DAY = 86_400
Object = dict[str, Any]


@pytest.fixture(scope="module")
def box() -> Sandbox:
    return Sandbox(seed=4, customers=40, business=True)


def get(box: Sandbox, target: str) -> Any:
    answer = box.answer(Request("GET", target, {"authorization": f"Bearer {box.key}"}, b""))
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def periods(box: Sandbox) -> Iterator[list[tuple[int, int]]]:
    """The billed periods of each subscription, in order."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for line in box.children("invoice_line_items").values():
        details = line["parent"]["subscription_item_details"]
        if details:
            found[details["subscription"]].append((line["period"]["start"], line["period"]["end"]))
    yield from (sorted(spans) for spans in found.values())


def test_subscriptions_renew_without_a_gap(box: Sandbox) -> None:
    """Each period begins when the one before ends, month by month or year by year."""
    renewed = 0
    for spans in periods(box):
        assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
        renewed += len(spans) - 1
    assert renewed > 150
    running = [one for one in box.objects("subscriptions").values() if one["status"] == "active"]
    assert len(running) > 15
    assert all(one["items"]["data"][0]["current_period_end"] > box.now for one in running)
    reasons = Counter(one["billing_reason"] for one in box.objects("invoices").values())
    assert set(reasons) == {"subscription_create", "subscription_cycle"}


def test_an_invoice_that_is_paid_has_a_charge_and_a_payment(box: Sandbox) -> None:
    """Of its amount; `payments` shows it. One without an amount has none."""
    intents = {one["payment_intent"]: one for one in box.objects("charges").values()}
    by_invoice = {one["invoice"]: one for one in box.objects("invoice_payments").values()}
    paid = [one for one in box.objects("invoices").values() if one["status"] == "paid"]
    assert len(by_invoice) == len(box.objects("invoice_payments")) > 150
    assert set(by_invoice) == {one["id"] for one in paid if one["amount_paid"]}
    for invoice in paid:
        if invoice["amount_paid"]:
            payment = by_invoice[invoice["id"]]
            charge = intents[payment["payment"]["payment_intent"]]
            assert payment["amount_paid"] == charge["amount"] == invoice["amount_paid"]
            assert (charge["currency"], charge["customer"]) == (invoice["currency"], invoice["customer"])  # fmt: skip
    id = next(iter(by_invoice))
    shown = get(box, f"/v1/invoices/{id}?expand[]=payments")["payments"]["data"]
    assert shown == [by_invoice[id]]


def test_totals_are_less_by_the_discounts(box: Sandbox) -> None:
    """A coupon of three months is good for three months, one that is good once is good once."""
    uses: dict[str, list[Object]] = defaultdict(list)
    for invoice in box.objects("invoices").values():
        off = sum(one["amount"] for one in invoice["total_discount_amounts"])
        assert invoice["total"] == invoice["subtotal"] - off
        for one in invoice["total_discount_amounts"]:
            uses[one["discount"]].append(invoice)
    durations = set()
    for id, invoices in uses.items():
        discount = discount_content(box.account, id, {})
        coupon = coupon_content(box.account, discount["source"]["coupon"])
        durations.add(coupon["duration"])
        assert all(discount["start"] <= one["created"] < (discount["end"] or box.now + 1) for one in invoices)  # fmt: skip
        if coupon["duration"] == "once":
            assert len(invoices) == 1
        if coupon["percent_off"]:
            for invoice in invoices:
                discountable = sum(line["amount"] for line in invoice["lines"]["data"] if line["discountable"])  # fmt: skip
                assert invoice["total"] == pytest.approx(invoice["subtotal"] - discountable * coupon["percent_off"] / 100, abs=1)  # fmt: skip
    assert durations == {"repeating", "forever", "once"}
    for subscription in box.objects("subscriptions").values():
        if subscription["status"] == "active":
            begin = subscription["items"]["data"][0]["current_period_start"]
            for id in subscription["discounts"]:
                end = discount_content(box.account, id, subscription)["end"]
                assert end is None or end > begin


def test_a_subscription_that_ends_with_its_period_is_not_billed_again(box: Sandbox) -> None:
    ended = {
        id: one["ended_at"]
        for id, one in box.objects("subscriptions").items()
        if one["cancel_at_period_end"] and one["status"] == "canceled"
    }
    assert ended
    for line in box.children("invoice_line_items").values():
        assert line["period"]["start"] < ended.get(line["subscription"], box.now + 1)


@pytest.mark.parametrize(
    ("renewed", "ends", "types"),
    [
        (1.0, ("active", "paid", 2), ["customer.subscription.updated", "invoice.paid"]),
        (0.0, ("canceled", "uncollectible", 3), ["customer.subscription.deleted", "invoice.marked_uncollectible"]),
    ],
    ids=["new card", "no card"],
)  # fmt: skip
def test_a_declined_card_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, renewed: float, ends: tuple[str, str, int], types: list[str]
) -> None:
    """Three days apart, until a new card pays or the subscription ends because of it."""
    monkeypatch.setattr(renewals, "CARD_RENEWED", renewed)
    monkeypatch.setattr(business, "ACTIONS_PER_SUBSCRIPTION", 0.0)
    box = Sandbox(customers=0, business=True)
    business.sign_up(box.account)
    (id,) = box.objects("subscriptions")
    price = next(one["id"] for one in box.objects("prices").values() if one["nickname"] == "Team monthly")  # fmt: skip
    item = box.objects("subscriptions")[id]["items"]["data"][0]["id"]
    given = {"items": [{"id": item, "price": price}], "default_payment_method": "pm_card_chargeDeclined"}  # fmt: skip
    subscriptions.update(box.account, id, given | {"billing_cycle_anchor": {"type": "now"}})
    before = len(box.events)
    box.advance(62 * DAY)

    subscription = box.objects("subscriptions")[id]
    tried = [one for one in box.objects("invoices").values() if one["attempt_count"] > 1]
    assert [(subscription["status"], one["status"], one["attempt_count"]) for one in tried] == [
        ends
    ]
    seen = [event.type for event in box.events[before:]]
    assert set(types) | {"invoice.payment_failed", "charge.failed"} <= set(seen)
    reason = "payment_failed" if renewed == 0.0 else None
    assert subscription["cancellation_details"]["reason"] == reason


def test_the_payouts_of_a_business_add_up(box: Sandbox) -> None:
    movements = box.account.tables["balance_transactions"].rows.values()
    by_payout: dict[str, int] = defaultdict(int)
    for row in movements:
        if row.content()["type"] != "payout":
            by_payout[row.group] += row.content()["net"]
    payouts = box.objects("payouts")
    assert len(payouts) > 100
    assert {id: by_payout[id] for id in payouts} == {
        id: one["amount"] for id, one in payouts.items()
    }


def test_only_the_events_of_thirty_days_are_there(box: Sandbox) -> None:
    times = [event.created for event in box.events]
    assert min(times) >= box.now - 30 * DAY and len(times) > 100
    assert min(one["created"] for one in box.objects("invoices").values()) < box.now - 300 * DAY


def test_time_alone_renews(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes later is told by events; a renewal names no request."""
    box = Sandbox(seed=5, customers=12, business=True)
    monkeypatch.setattr(business, "ACTIONS_PER_SUBSCRIPTION", 0.0)
    before, invoices = len(box.events), len(box.objects("invoices"))
    box.advance(31 * DAY)
    new = box.events[before:]
    assert len(box.objects("invoices")) > invoices
    types = {event.type for event in new}
    assert types >= {"customer.subscription.updated", "invoice.created", "invoice.paid", "charge.succeeded", "payout.paid"}  # fmt: skip
    renewal = next(event for event in new if event.type == "invoice.paid")
    assert json.loads(renewal.body)["request"] == {"id": None, "idempotency_key": None}


def test_the_same_seed_is_the_same_business() -> None:
    one, other = (Sandbox(seed=6, customers=8, business=True) for _ in range(2))
    assert one.objects("invoices") == other.objects("invoices")
    assert one.live(9 * DAY, 12) == other.live(9 * DAY, 12)
    assert one.objects("subscriptions") == other.objects("subscriptions")


def test_the_numbers_of_a_business_follow_from_its_customers() -> None:
    with pytest.raises(ValueError, match="follow from its customers"):
        Sandbox(customers=4, invoices=9, business=True)
