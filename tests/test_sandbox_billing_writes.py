"""Subscriptions, invoices, invoice items and quotes written to the sandbox: additive items, states, and what a delete
leaves behind.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import stripe

from stripe_feed.sandbox import Sandbox
from tests.writing import Object, done, event_types, new_customer, refused

CUSTOMERS, SUBSCRIPTIONS, ITEMS = "/v1/customers", "/v1/subscriptions", "/v1/subscription_items"
INVOICES, INVOICE_ITEMS, QUOTES, PRICES = (
    "/v1/invoices",
    "/v1/invoiceitems",
    "/v1/quotes",
    "/v1/prices",
)
DAY = 86_400
PAYS = {"invoice_settings[default_payment_method]": "pm_1"}
NOT_OPEN = "You can only pass in open invoices. This invoice isn't open."


class Shop(NamedTuple):
    """A sandbox with a customer who can pay, and three monthly prices and one that is paid once."""

    box: Sandbox
    customer: str
    small: str
    large: str
    yearly: str
    once: str


@pytest.fixture
def shop() -> Shop:
    box = Sandbox(seed=5, customers=20, oddities=False)
    product = done(box, "POST", "/v1/products", {"name": "Team"})["id"]
    made = [
        done(box, "POST", PRICES, {"product": product, "currency": "usd", "unit_amount": amount} | cycle)["id"]
        for amount, cycle in (
            (1000, {"recurring[interval]": "month"}), (3000, {"recurring[interval]": "month"}),
            (9000, {"recurring[interval]": "year"}), (500, {}),
        )
    ]  # fmt: skip
    return Shop(box, new_customer(box, **PAYS), *made)


def subscribe(shop: Shop, **form: object) -> Object:
    return done(
        shop.box,
        "POST",
        SUBSCRIPTIONS,
        {"customer": shop.customer, "items[0][price]": shop.small} | form,
    )


def invoice(shop: Shop, *amounts: int, **form: object) -> Object:
    """A draft with items of these amounts."""
    made = done(shop.box, "POST", INVOICES, {"customer": shop.customer} | form)
    for amount in amounts:
        item = {
            "customer": shop.customer,
            "invoice": made["id"],
            "amount": amount,
            "currency": made["currency"],
        }
        done(shop.box, "POST", INVOICE_ITEMS, item)
    return done(shop.box, "GET", f"{INVOICES}/{made['id']}")


def prices_of(subscription: Object) -> list[tuple[str, int | None]]:
    return [(item["price"]["id"], item["quantity"]) for item in subscription["items"]["data"]]


# Subscriptions


def test_a_subscription_begins_with_a_paid_invoice(shop: Shop) -> None:
    box, seen = shop.box, len(shop.box.events)
    made = subscribe(shop, **{"items[0][quantity]": "2", "metadata[k]": "v"})
    bill = done(box, "GET", f"{INVOICES}/{made['latest_invoice']}")
    assert (made["status"], made["currency"], made["start_date"]) == ("active", "usd", box.now)
    assert (bill["status"], bill["total"], bill["amount_paid"]) == ("paid", 2000, 2000)
    assert bill["parent"]["subscription_details"]["metadata"] == {"k": "v"}
    assert box.objects("customers")[shop.customer]["currency"] == "usd"
    told = event_types(box)[seen:]
    assert [type for type in told if not type.endswith("updated")] == [
        "customer.subscription.created", "invoice.created", "invoice.finalized", "invoice.paid", "invoice.payment_succeeded",
    ]  # fmt: skip
    drawn = Sandbox(seed=1)
    assert set(made) == set(drawn.create("subscriptions"))
    assert set(bill) == set(drawn.create("invoices"))
    transitions = drawn.create("invoices")["status_transitions"]
    assert set(invoice(shop)["status_transitions"]) == set(transitions)
    assert set(made["items"]["data"][0]) == set(drawn.create("subscriptions")["items"]["data"][0])
    assert set(bill["lines"]["data"][0]) == set(drawn.create("invoices")["lines"]["data"][0])


def test_how_a_subscription_begins(shop: Shop) -> None:
    assert subscribe(shop, trial_period_days="7")["trial_end"] == shop.box.now + 7 * DAY
    assert subscribe(shop, trial_end=str(shop.box.now + 9))["status"] == "trialing"
    by_mail = subscribe(shop, collection_method="send_invoice", days_until_due="30")
    assert shop.box.objects("invoices")[by_mail["latest_invoice"]]["status"] == "draft"
    poor = new_customer(shop.box)
    late = subscribe(shop, customer=poor, payment_behavior="default_incomplete")
    assert late["status"] == "incomplete"
    assert shop.box.objects("invoices")[late["latest_invoice"]]["status"] == "open"
    assert refused(shop.box, "POST", SUBSCRIPTIONS, {"customer": poor, "items[0][price]": shop.small})[:2] == (
        400, "resource_missing",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("form", "code", "param"),
    [
        ({"customer": "cus_x"}, "resource_missing", "customer"),
        ({"items[0][price]": "price_x"}, "resource_missing", "items[0][price]"),
        ({"items[0][plan]": "x"}, "parameters_exclusive", "items[0][price]"),
        ({"items[1][price]": "small"}, "", "items"),
        ({"items[1][price]": "yearly"}, "", "items"),
        ({"items[0][price]": "once"}, "", "items[0][price]"),
        ({"collection_method": "send_invoice"}, "parameter_missing", "days_until_due"),
        ({"days_until_due": "3"}, "", "days_until_due"),
        ({"trial_end": "5"}, "", "trial_end"),
        ({"trial_end": "now", "trial_period_days": "3"}, "parameters_exclusive", "trial_end"),
        ({"cancel_at": "99999999999", "cancel_at_period_end": "true"}, "parameters_exclusive", "cancel_at"),
        ({"discounts[0][coupon]": "NO"}, "resource_missing", "discounts[0][coupon]"),
        ({"status": "active"}, "parameter_unknown", "status"),
    ],
)  # fmt: skip
def test_subscriptions_that_are_refused(shop: Shop, form: Object, code: str, param: str) -> None:
    named = {name: getattr(shop, str(value), value) for name, value in form.items()}
    whole = {"customer": shop.customer, "items[0][price]": shop.small} | named
    assert refused(shop.box, "POST", SUBSCRIPTIONS, whole)[:3] == (400, code, param)


def test_what_a_subscription_needs(shop: Shop) -> None:
    missing = [
        refused(shop.box, "POST", SUBSCRIPTIONS, form)[2]
        for form in ({}, {"customer": shop.customer})
    ]
    assert missing == ["customer", "items"]
    done(shop.box, "POST", f"{PRICES}/{shop.large}", {"active": "false"})
    inactive = refused(
        shop.box, "POST", SUBSCRIPTIONS, {"customer": shop.customer, "items[0][price]": shop.large}
    )
    assert inactive[3] == "The price specified is inactive. This field only accepts active prices."


def test_one_customer_has_one_currency(shop: Shop) -> None:
    subscribe(shop)
    product = shop.box.objects("prices")[shop.small]["product"]
    euro = {
        "product": product,
        "currency": "eur",
        "unit_amount": "1",
        "recurring[interval]": "month",
    }
    price = done(shop.box, "POST", PRICES, euro)["id"]
    form = {"customer": shop.customer, "items[0][price]": price}
    assert refused(shop.box, "POST", SUBSCRIPTIONS, form)[3].startswith(
        "You cannot combine currencies on a single customer."
    )
    assert done(shop.box, "POST", SUBSCRIPTIONS, form | {"currency": "eur"})["currency"] == "eur"


def test_items_are_added_changed_and_only_removed_by_deleted(shop: Shop) -> None:
    made = subscribe(shop, **{"items[0][quantity]": "5"})
    path, first = f"{SUBSCRIPTIONS}/{made['id']}", made["items"]["data"][0]["id"]
    quiet = {"proration_behavior": "none"}
    both = done(shop.box, "POST", path, quiet | {"items[0][price]": shop.large})
    assert prices_of(both) == [(shop.small, 5), (shop.large, 1)]
    assert refused(shop.box, "POST", path, {"items[0][price]": shop.large})[3] == (
        f"Cannot add multiple subscription items with the same plan: {shop.large}"
    )
    second = both["items"]["data"][1]["id"]
    one = done(
        shop.box, "POST", path, quiet | {"items[0][id]": second, "items[0][deleted]": "true"}
    )
    assert prices_of(one) == [(shop.small, 5)]
    swapped = done(
        shop.box, "POST", path, quiet | {"items[0][id]": first, "items[0][price]": shop.large}
    )
    assert prices_of(swapped) == [(shop.large, 1)] and swapped["items"]["data"][0]["id"] == first
    last = {"items[0][id]": first, "items[0][deleted]": "true"}
    assert refused(shop.box, "POST", path, last)[2] == "items"
    assert refused(shop.box, "POST", path, {"items[0][id]": "si_x"})[1:3] == (
        "resource_missing",
        "items[0][id]",
    )
    assert refused(shop.box, "POST", path, {"items[0][quantity]": "2"})[1:3] == (
        "parameter_missing",
        "items[0][price]",
    )


def test_a_change_in_the_middle_of_a_period_is_prorated_unless_told_not_to(shop: Shop) -> None:
    made = subscribe(shop)
    item = made["items"]["data"][0]
    shop.box.advance((item["current_period_end"] - item["current_period_start"]) // 2)
    path = f"{SUBSCRIPTIONS}/{made['id']}"
    swap = {"items[0][id]": item["id"], "items[0][price]": shop.large}
    done(shop.box, "POST", path, swap)
    waiting = done(shop.box, "GET", f"{INVOICE_ITEMS}?pending=true")["data"]
    assert sorted((one["amount"], one["proration"]) for one in waiting) == [
        (-500, True),
        (1500, True),
    ]
    after = done(
        shop.box,
        "POST",
        path,
        swap | {"items[0][quantity]": "2", "proration_behavior": "always_invoice"},
    )
    bill = shop.box.objects("invoices")[after["latest_invoice"]]
    assert (bill["status"], bill["total"], bill["billing_reason"]) == (
        "paid",
        2500,
        "subscription_update",
    )
    assert done(shop.box, "GET", f"{INVOICE_ITEMS}?pending=true")["data"] == []
    done(
        shop.box,
        "POST",
        path,
        {"items[0][id]": item["id"], "items[0][quantity]": "9", "proration_behavior": "none"},
    )
    assert done(shop.box, "GET", f"{INVOICE_ITEMS}?pending=true")["data"] == []


def test_items_have_endpoints_of_their_own(shop: Shop) -> None:
    made = subscribe(shop)["id"]
    item = done(
        shop.box, "POST", ITEMS, {"subscription": made, "price": shop.large, "metadata[k]": "v"}
    )
    assert (item["price"]["id"], item["metadata"], item["subscription"]) == (
        shop.large,
        {"k": "v"},
        made,
    )
    assert (
        done(shop.box, "POST", f"{ITEMS}/{item['id']}", {"quantity": "3", "metadata[k]": ""})[
            "quantity"
        ]
        == 3
    )
    assert done(shop.box, "DELETE", f"{ITEMS}/{item['id']}?proration_behavior=none") == {
        "id": item["id"], "object": "subscription_item", "deleted": True,
    }  # fmt: skip
    assert prices_of(shop.box.objects("subscriptions")[made]) == [(shop.small, 1)]
    assert refused(shop.box, "DELETE", f"{ITEMS}/{item['id']}")[0] == 404
    assert refused(shop.box, "POST", ITEMS, {"price": shop.small})[2] == "subscription"


def test_a_subscription_is_canceled_now_or_at_the_end_of_its_period(shop: Shop) -> None:
    made = subscribe(shop)
    path, end = f"{SUBSCRIPTIONS}/{made['id']}", made["items"]["data"][0]["current_period_end"]
    later = done(
        shop.box,
        "POST",
        path,
        {"cancel_at_period_end": "true", "cancellation_details[feedback]": "unused"},
    )
    assert (later["status"], later["cancel_at"], later["canceled_at"]) == (
        "active",
        end,
        shop.box.now,
    )
    assert later["cancellation_details"]["feedback"] == "unused"
    back = done(shop.box, "POST", path, {"cancel_at_period_end": "false"})
    assert (back["cancel_at"], back["canceled_at"], back["cancel_at_period_end"]) == (
        None,
        None,
        False,
    )
    gone = done(shop.box, "DELETE", f"{path}?cancellation_details[comment]=bye&invoice_now=true")
    assert (gone["status"], gone["ended_at"], gone["cancellation_details"]["comment"]) == (
        "canceled",
        shop.box.now,
        "bye",
    )
    assert event_types(shop.box)[-1] == "customer.subscription.deleted"
    assert refused(shop.box, "DELETE", path) == (
        404,
        "resource_missing",
        "id",
        f"No such subscription: '{made['id']}'",
    )
    assert done(shop.box, "POST", path, {"metadata[k]": "v"})["metadata"] == {"k": "v"}
    assert refused(shop.box, "POST", path, {"description": "x"})[3] == (
        "A canceled subscription can only update its cancellation_details and metadata."
    )


def test_a_subscription_is_paused_and_resumed(shop: Shop) -> None:
    path = f"{SUBSCRIPTIONS}/{subscribe(shop)['id']}"
    assert done(shop.box, "POST", path, {"pause_collection[behavior]": "void"})["pause_collection"] == {
        "behavior": "void", "resumes_at": None,
    }  # fmt: skip
    assert done(shop.box, "POST", path, {"pause_collection": ""})["pause_collection"] is None
    assert refused(shop.box, "POST", f"{path}/resume")[0] == 400
    assert done(shop.box, "POST", f"{path}/pause")["status"] == "paused"
    assert done(shop.box, "POST", f"{path}/resume")["status"] == "active"
    told = [type for type in event_types(shop.box) if type.endswith(("paused", "resumed"))]
    assert told == ["customer.subscription.paused", "customer.subscription.resumed"]


def test_a_subscription_is_migrated_once(shop: Shop) -> None:
    made = subscribe(
        shop, **{"billing_mode[type]": "classic", "billing_cycle_anchor_config[day_of_month]": "5"}
    )
    assert made["billing_mode"] == {"flexible": None, "type": "classic"}
    assert made["billing_cycle_anchor_config"]["day_of_month"] == 5
    path, form = f"{SUBSCRIPTIONS}/{made['id']}/migrate", {"billing_mode[type]": "flexible"}
    assert done(shop.box, "POST", path, form)["billing_mode"]["type"] == "flexible"
    assert refused(shop.box, "POST", path, form)[0] == 400


def test_discounts_replace_those_before(shop: Shop) -> None:
    for id in ("A", "B"):
        done(shop.box, "POST", "/v1/coupons", {"id": id, "percent_off": "10"})
    made = subscribe(shop, **{"discounts[0][coupon]": "A"})
    path, old = f"{SUBSCRIPTIONS}/{made['id']}", made["discounts"][0]
    assert shop.box.objects("coupons")["A"]["times_redeemed"] == 1
    both = done(
        shop.box, "POST", path, {"discounts[0][discount]": old, "discounts[1][coupon]": "B"}
    )["discounts"]
    assert both[0] == old and len(both) == 2
    assert done(shop.box, "POST", path, {"discounts": ""})["discounts"] == []
    events = done(shop.box, "GET", "/v1/events?type=customer.discount.*&limit=100")["data"]
    assert sorted((one["type"][18:], one["data"]["object"]["source"]["coupon"]) for one in events) == [
        ("created", "A"), ("created", "B"), ("deleted", "A"), ("deleted", "B"),
    ]  # fmt: skip


def test_a_trial_ends_when_told(shop: Shop) -> None:
    path = f"{SUBSCRIPTIONS}/{subscribe(shop, trial_period_days='7')['id']}"
    ended = done(shop.box, "POST", path, {"trial_end": "now"})
    assert (ended["status"], ended["trial_end"]) == ("active", shop.box.now)
    item = ended["items"]["data"][0]
    assert item["current_period_start"] == shop.box.now < item["current_period_end"]


# Invoices and their items


def test_an_invoice_is_empty_unless_pending_items_are_included(shop: Shop) -> None:
    item = {"customer": shop.customer, "currency": "usd"}
    first = done(shop.box, "POST", INVOICE_ITEMS, item | {"amount": "700", "description": "Work"})
    done(shop.box, "POST", INVOICE_ITEMS, item | {"pricing[price]": shop.once, "quantity": "3"})
    empty = done(shop.box, "POST", INVOICES, {"customer": shop.customer})
    assert (empty["total"], empty["status"], empty["number"], empty["currency"]) == (
        0,
        "draft",
        None,
        "usd",
    )
    full = done(
        shop.box,
        "POST",
        INVOICES,
        {"customer": shop.customer, "pending_invoice_items_behavior": "include"},
    )
    assert (full["total"], [line["amount"] for line in full["lines"]["data"]]) == (
        2200,
        [700, 1500],
    )
    assert full["lines"]["data"][0]["parent"]["invoice_item_details"]["invoice_item"] == first["id"]
    assert done(shop.box, "GET", f"{INVOICE_ITEMS}/{first['id']}")["invoice"] == full["id"]
    assert done(shop.box, "GET", f"{INVOICE_ITEMS}?invoice={full['id']}")["has_more"] is False
    assert set(done(shop.box, "GET", f"{INVOICE_ITEMS}/{first['id']}")) == set(
        Sandbox(seed=1).create("invoiceitems")
    )


def test_an_item_changes_the_draft_that_it_is_on(shop: Shop) -> None:
    draft = invoice(shop, 100, 200)
    lines = {
        line["amount"]: line["parent"]["invoice_item_details"]["invoice_item"]
        for line in draft["lines"]["data"]
    }
    seen = len(shop.box.events)
    done(shop.box, "POST", f"{INVOICE_ITEMS}/{lines[100]}", {"amount": "150"})
    done(shop.box, "DELETE", f"{INVOICE_ITEMS}/{lines[200]}")
    assert done(shop.box, "GET", f"{INVOICES}/{draft['id']}")["total"] == 150
    assert event_types(shop.box)[seen:] == [
        "invoice.updated",
        "invoiceitem.deleted",
        "invoice.updated",
    ]
    done(shop.box, "POST", f"{INVOICES}/{draft['id']}/finalize")
    closed = (
        400,
        "invoice_not_editable",
        "id",
        "Invalid invoice: This invoice is no longer editable",
    )
    assert refused(shop.box, "DELETE", f"{INVOICE_ITEMS}/{lines[100]}") == closed
    assert refused(shop.box, "POST", f"{INVOICE_ITEMS}/{lines[100]}", {"amount": "1"}) == closed
    late = {"customer": shop.customer, "invoice": draft["id"], "amount": "1", "currency": "usd"}
    assert refused(shop.box, "POST", INVOICE_ITEMS, late)[1:3] == (
        "invoice_not_editable",
        "invoice",
    )


@pytest.mark.parametrize(
    ("form", "code", "param"),
    [
        ({"customer": ""}, "parameter_invalid_empty", "customer"), ({"amount": ""}, "parameter_invalid_empty", "amount"),
        ({"pricing[price]": "price_x"}, "parameters_exclusive", "amount"), ({"invoice": "in_x"}, "resource_missing", "invoice"),
        ({"period[start]": "1"}, "parameter_missing", "period[end]"), ({"unit_amount": "1"}, "parameter_unknown", "unit_amount"),
    ],
)  # fmt: skip
def test_invoice_items_that_are_refused(shop: Shop, form: Object, code: str, param: str) -> None:
    whole = {"customer": shop.customer, "amount": "5", "currency": "usd"} | form
    assert refused(shop.box, "POST", INVOICE_ITEMS, whole)[:3] == (400, code, param)


def test_an_invoice_item_needs_an_amount_and_a_currency(shop: Shop) -> None:
    assert refused(shop.box, "POST", INVOICE_ITEMS, {"customer": shop.customer})[2] == "amount"
    assert (
        refused(shop.box, "POST", INVOICE_ITEMS, {"customer": shop.customer, "amount": "1"})[2]
        == "currency"
    )


def test_deleting_a_draft_strands_its_items(shop: Shop) -> None:
    draft = invoice(shop, 100)
    assert done(shop.box, "DELETE", f"{INVOICES}/{draft['id']}")["deleted"] is True
    (item,) = done(shop.box, "GET", INVOICE_ITEMS)["data"]
    assert item["invoice"] == draft["id"]
    assert done(shop.box, "GET", f"{INVOICE_ITEMS}?pending=true")["data"] == []


def test_the_way_of_an_invoice(shop: Shop) -> None:
    box = shop.box
    path = f"{INVOICES}/{invoice(shop, 900)['id']}"
    for verb in ("void", "mark_uncollectible"):
        assert refused(box, "POST", f"{path}/{verb}") == (400, "", "", NOT_OPEN)
    assert done(box, "POST", path, {"description": "d", "metadata[k]": "v"})["description"] == "d"
    opened = done(box, "POST", f"{path}/finalize")
    prefix = box.objects("customers")[shop.customer]["invoice_prefix"]
    assert (opened["status"], opened["number"], opened["amount_due"]) == (
        "open",
        f"{prefix}-0001",
        900,
    )
    assert refused(box, "POST", f"{path}/finalize")[3] == (
        "This invoice is already finalized, you can't re-finalize a non-draft invoice."
    )
    assert refused(box, "DELETE", path)[3] == "You can only delete draft invoices."
    assert refused(box, "POST", path, {"metadata[k]": "w", "description": "x"}) == (
        400, "", "description", "Finalized invoices can't be updated in this way",
    )  # fmt: skip
    assert done(box, "POST", path, {"metadata[k]": "w", "auto_advance": "false"})["metadata"] == {
        "k": "w"
    }
    lost = done(box, "POST", f"{path}/mark_uncollectible")
    assert lost["status"] == "uncollectible"
    assert (
        refused(box, "POST", f"{path}/mark_uncollectible")[3]
        == "This invoice has already been marked uncollectible."
    )
    assert done(box, "POST", f"{path}/pay", {"paid_out_of_band": "true"})["status"] == "paid"
    assert refused(box, "POST", f"{path}/pay")[3] == "Invoice is already paid"
    assert (
        refused(box, "POST", f"{path}/void")[3] == "Invoices with `paid` payments cannot be voided."
    )
    assert refused(box, "POST", path, {"auto_advance": "true"})[2] == "auto_advance"
    told = [
        event.type
        for event in box.events
        if event.table == "invoices" and not event.type.endswith("updated")
    ]
    assert told == [
        "invoice.created", "invoice.finalized", "invoice.marked_uncollectible", "invoice.paid", "invoice.payment_succeeded",
    ]  # fmt: skip


def test_an_invoice_without_amount_is_paid_at_once(shop: Shop) -> None:
    assert done(shop.box, "POST", f"{INVOICES}/{invoice(shop)['id']}/finalize")["status"] == "paid"


def test_a_void_invoice_stays_void(shop: Shop) -> None:
    path = f"{INVOICES}/{invoice(shop, 900)['id']}"
    done(shop.box, "POST", f"{path}/finalize")
    gone = done(shop.box, "POST", f"{path}/void")
    assert (gone["status"], gone["status_transitions"]["voided_at"]) == ("void", shop.box.now)
    for verb in ("void", "pay", "mark_uncollectible"):
        assert refused(shop.box, "POST", f"{path}/{verb}")[3] == NOT_OPEN
    assert done(shop.box, "POST", path, {"metadata[k]": "v"})["metadata"] == {"k": "v"}


def test_a_declined_payment_finalizes_and_counts(shop: Shop) -> None:
    path = f"{INVOICES}/{invoice(shop, 900)['id']}"
    declined = {"payment_method": "pm_card_chargeDeclined"}
    assert refused(shop.box, "POST", f"{path}/pay", declined)[:2] == (402, "card_declined")
    after = done(shop.box, "GET", path)
    assert (after["status"], after["attempt_count"], after["attempted"]) == ("open", 1, True)
    assert event_types(shop.box)[-1] == "invoice.payment_failed"
    assert done(shop.box, "POST", f"{path}/pay", {"payment_method": "pm_2"})["status"] == "paid"


def test_an_invoice_by_mail_is_sent(shop: Shop) -> None:
    assert refused(shop.box, "POST", INVOICES, {"customer": shop.customer, "collection_method": "send_invoice"})[1:3] == (
        "parameter_missing", "days_until_due",
    )  # fmt: skip
    draft = invoice(shop, 900, collection_method="send_invoice", days_until_due="30")
    assert draft["due_date"] == shop.box.now + 30 * DAY
    assert done(shop.box, "POST", f"{INVOICES}/{draft['id']}/send")["status"] == "open"
    assert event_types(shop.box)[-1] == "invoice.sent"
    charged = invoice(shop, 900)
    assert "'send_invoice'" in refused(shop.box, "POST", f"{INVOICES}/{charged['id']}/send")[3]


def test_the_credit_of_a_customer_is_used(shop: Shop) -> None:
    done(shop.box, "POST", f"{CUSTOMERS}/{shop.customer}", {"balance": "-600"})
    opened = done(shop.box, "POST", f"{INVOICES}/{invoice(shop, 900)['id']}/finalize")
    assert (opened["total"], opened["starting_balance"], opened["amount_due"]) == (900, -600, 300)
    assert shop.box.objects("customers")[shop.customer]["balance"] == 0


def test_a_draft_of_a_subscription_is_not_deleted(shop: Shop) -> None:
    made = subscribe(shop, collection_method="send_invoice", days_until_due="30")
    assert refused(shop.box, "DELETE", f"{INVOICES}/{made['latest_invoice']}")[0] == 400


def test_an_invoice_copies_its_customer_until_it_is_finalized(shop: Shop) -> None:
    draft = invoice(shop, 900)
    done(shop.box, "POST", f"{CUSTOMERS}/{shop.customer}", {"name": "New name"})
    assert done(shop.box, "GET", f"{INVOICES}/{draft['id']}")["customer_name"] is None
    assert (
        done(shop.box, "POST", f"{INVOICES}/{draft['id']}/finalize")["customer_name"] == "New name"
    )
    assert (
        refused(shop.box, "POST", f"{INVOICES}/{draft['id']}", {"customer_name": "x"})[1]
        == "parameter_unknown"
    )


# What Stripe does by itself


def test_a_draft_that_advances_is_finalized_and_paid_after_an_hour(shop: Shop) -> None:
    draft = invoice(shop, 900, auto_advance="true")
    by_mail = invoice(
        shop, 500, auto_advance="true", collection_method="send_invoice", days_until_due="3"
    )
    stays = invoice(shop, 700, auto_advance="true")
    done(shop.box, "POST", f"{INVOICES}/{stays['id']}", {"auto_advance": "false"})
    assert draft["automatically_finalizes_at"] == shop.box.now + 3600
    start = shop.box.now
    shop.box.advance(DAY)
    held = shop.box.objects("invoices")
    assert [held[one["id"]]["status"] for one in (draft, by_mail, stays)] == [
        "paid",
        "open",
        "draft",
    ]
    assert held[draft["id"]]["status_transitions"]["paid_at"] == start + 3600
    events = done(shop.box, "GET", "/v1/events?type=invoice.paid")["data"]
    assert [(one["created"], one["request"]["id"]) for one in events] == [(start + 3600, None)]
    assert "invoice.sent" in event_types(shop.box) and shop.box.now == start + DAY


def test_a_subscription_ends_when_it_was_to_end(shop: Shop) -> None:
    made = subscribe(shop)
    path, end = f"{SUBSCRIPTIONS}/{made['id']}", made["items"]["data"][0]["current_period_end"]
    done(shop.box, "POST", path, {"cancel_at_period_end": "true"})
    other = subscribe(shop, cancel_at=str(end))["id"]
    done(shop.box, "POST", f"{SUBSCRIPTIONS}/{other}", {"cancel_at": ""})
    shop.box.advance(end - shop.box.now + 5)
    held = shop.box.objects("subscriptions")
    assert (held[made["id"]]["status"], held[made["id"]]["ended_at"]) == ("canceled", end)
    assert held[other]["status"] == "active"
    assert event_types(shop.box)[-1] == "customer.subscription.deleted"


def test_a_trial_becomes_a_paid_period_or_is_past_due(shop: Shop) -> None:
    rich = subscribe(shop, trial_period_days="7")["id"]
    poor = subscribe(shop, customer=new_customer(shop.box), trial_period_days="7")["id"]
    shop.box.advance(8 * DAY)
    held = shop.box.objects("subscriptions")
    bills = [shop.box.objects("invoices")[held[id]["latest_invoice"]] for id in (rich, poor)]
    assert [held[id]["status"] for id in (rich, poor)] == ["active", "past_due"]
    assert [(bill["status"], bill["total"]) for bill in bills] == [("paid", 1000), ("open", 1000)]
    done(shop.box, "POST", f"{INVOICES}/{bills[1]['id']}/pay", {"payment_method": "pm_2"})
    assert shop.box.objects("subscriptions")[poor]["status"] == "active"


def test_an_incomplete_subscription_expires_or_is_paid(shop: Shop) -> None:
    poor = new_customer(shop.box)
    form = {"customer": poor, "payment_behavior": "default_incomplete"}
    late, paid = subscribe(shop, **form), subscribe(shop, **form)
    done(shop.box, "POST", f"{INVOICES}/{paid['latest_invoice']}/pay", {"payment_method": "pm_2"})
    shop.box.advance(DAY)
    held = shop.box.objects("subscriptions")
    assert [held[one["id"]]["status"] for one in (late, paid)] == ["incomplete_expired", "active"]


def test_items_may_be_added_to_the_next_invoice(shop: Shop) -> None:
    extra = {"add_invoice_items[0][price]": shop.once, "add_invoice_items[0][quantity]": "2"}
    made = subscribe(shop, **extra)
    assert shop.box.objects("invoices")[made["latest_invoice"]]["total"] == 2000
    done(shop.box, "POST", f"{SUBSCRIPTIONS}/{made['id']}", extra)
    (waiting,) = done(shop.box, "GET", f"{INVOICE_ITEMS}?pending=true")["data"]
    assert waiting["amount"] == 1000
    wrong = {
        "customer": shop.customer,
        "items[0][price]": shop.small,
        "add_invoice_items[0][price]": shop.large,
    }
    assert refused(shop.box, "POST", SUBSCRIPTIONS, wrong)[2] == "add_invoice_items[0][price]"


# Previews


def test_a_preview_shows_the_next_invoice_and_changes_nothing(shop: Shop) -> None:
    made = subscribe(shop, **{"items[0][quantity]": "2"})
    item = made["items"]["data"][0]
    shop.box.advance((item["current_period_end"] - item["current_period_start"]) // 2)
    before = [
        shop.box.objects(table) for table in ("invoices", "invoiceitems", "subscriptions", "prices")
    ]
    seen = len(shop.box.events)

    def amounts(**form: object) -> list[int]:
        given = {f"subscription_details[{name}]": value for name, value in form.items()}
        shown = done(
            shop.box, "POST", f"{INVOICES}/create_preview", {"subscription": made["id"]} | given
        )
        assert shown["id"].startswith("upcoming_in_") and shown["status"] == "draft"
        assert shown["total"] == sum(line["amount"] for line in shown["lines"]["data"])
        return [line["amount"] for line in shown["lines"]["data"]]

    swap = {"items][0][id": item["id"], "items][0][price": shop.large}
    assert amounts() == [2000]
    assert amounts(**swap) == [-1000, 1500, 3000]
    assert amounts(**swap, proration_behavior="none") == [3000]
    assert amounts(**swap, proration_behavior="always_invoice") == [-1000, 1500]
    assert amounts(cancel_now="true") == [-1000]
    after = [
        shop.box.objects(table) for table in ("invoices", "invoiceitems", "subscriptions", "prices")
    ]
    assert (after, len(shop.box.events)) == (before, seen)


def test_a_preview_of_what_is_not_there_yet(shop: Shop) -> None:
    path = f"{INVOICES}/create_preview"
    form = {
        "customer": shop.customer,
        "currency": "usd",
        "subscription_details[items][0][price]": shop.yearly,
    }
    extra = {
        "invoice_items[0][amount]": "70",
        "invoice_items[0][currency]": "usd",
        "invoice_items[1][price]": shop.once,
    }
    assert done(shop.box, "POST", path, form | extra)["total"] == 9570
    assert refused(shop.box, "POST", path, {"customer": shop.customer})[:2] == (
        404,
        "invoice_upcoming_none",
    )
    assert refused(shop.box, "POST", path, {"subscription": "sub_x"})[:3] == (
        400,
        "resource_missing",
        "subscription",
    )
    ended = subscribe(shop)["id"]
    done(shop.box, "DELETE", f"{SUBSCRIPTIONS}/{ended}")
    assert refused(shop.box, "POST", path, {"subscription": ended})[1] == "invoice_upcoming_none"


# Quotes


def quote(shop: Shop, price: str, **form: object) -> Object:
    return done(
        shop.box,
        "POST",
        QUOTES,
        {"customer": shop.customer, "line_items[0][price]": price, "line_items[0][quantity]": "2"}
        | form,
    )


def test_a_quote_of_what_recurs_becomes_a_subscription(shop: Shop) -> None:
    made = quote(shop, shop.small, **{"subscription_data[metadata][k]": "v"})
    assert (made["status"], made["amount_total"], made["currency"]) == ("draft", 2000, "usd")
    assert made["computed"]["recurring"]["interval"] == "month" and "line_items" not in made
    path = f"{QUOTES}/{made['id']}"
    assert refused(shop.box, "POST", f"{path}/accept")[0] == 400
    opened = done(shop.box, "POST", f"{path}/finalize")
    assert opened["status"] == "open" and opened["number"]
    assert refused(shop.box, "POST", path, {"description": "x"})[2] == "description"
    assert (
        done(shop.box, "POST", path, {"expires_at": str(shop.box.now + 60)})["expires_at"]
        == shop.box.now + 60
    )
    taken = done(shop.box, "POST", f"{path}/accept")
    assert (taken["status"], taken["status_transitions"]["accepted_at"]) == (
        "accepted",
        shop.box.now,
    )
    subscription = shop.box.objects("subscriptions")[taken["subscription"]]
    assert (subscription["metadata"], prices_of(subscription)) == ({"k": "v"}, [(shop.small, 2)])
    assert refused(shop.box, "POST", f"{path}/cancel")[0] == 400
    told = [event.type for event in shop.box.events if event.table == "quotes"]
    assert told == ["quote.created", "quote.finalized", "quote.accepted"]


def test_a_quote_of_the_rest_becomes_a_draft(shop: Shop) -> None:
    path = f"{QUOTES}/{quote(shop, shop.once)['id']}"
    done(shop.box, "POST", f"{path}/finalize")
    taken = done(shop.box, "POST", f"{path}/accept")
    bill = shop.box.objects("invoices")[taken["invoice"]]
    assert (bill["status"], bill["total"], bill["billing_reason"]) == (
        "draft",
        1000,
        "quote_accept",
    )


def test_what_a_quote_needs_and_keeps(shop: Shop) -> None:
    empty = done(shop.box, "POST", QUOTES)
    path = f"{QUOTES}/{empty['id']}"
    assert set(empty) == set(Sandbox(seed=1).create("quotes"))
    assert refused(shop.box, "POST", f"{path}/finalize")[2] == "customer"
    done(shop.box, "POST", path, {"customer": shop.customer})
    assert refused(shop.box, "POST", f"{path}/finalize")[2] == "line_items"
    assert refused(shop.box, "POST", path, {"customer": new_customer(shop.box)})[2] == "customer"
    assert refused(shop.box, "POST", path, {"metadata": ""})[1] == "parameter_invalid_empty"
    done(
        shop.box,
        "POST",
        path,
        {"line_items[0][price]": shop.small, "line_items[1][price]": shop.once},
    )
    lines = done(shop.box, "GET", f"{path}/line_items")["data"]
    done(
        shop.box,
        "POST",
        path,
        {"line_items[0][id]": lines[1]["id"], "line_items[0][quantity]": "4"},
    )
    (kept,) = done(shop.box, "GET", f"{path}?expand[]=line_items")["line_items"]["data"]
    assert (kept["id"], kept["quantity"], kept["price"]["id"]) == (lines[1]["id"], 4, shop.once)
    assert refused(shop.box, "DELETE", path)[0] == 404
    assert done(shop.box, "POST", f"{path}/cancel")["status"] == "canceled"


def test_quotes_are_listed_and_expire(shop: Shop) -> None:
    made = quote(shop, shop.small)["id"]
    assert [one["id"] for one in done(shop.box, "GET", f"{QUOTES}?status=draft")["data"]] == [made]
    assert refused(shop.box, "GET", f"{QUOTES}?created=1")[1] == "parameter_unknown"
    shop.box.advance(31 * DAY)
    assert refused(shop.box, "POST", f"{QUOTES}/{made}/finalize")[0] == 400
    assert shop.box.objects("quotes")[made]["status"] == "canceled"


def test_a_quote_from_another_one(shop: Shop) -> None:
    first = quote(shop, shop.small)
    assert (
        refused(shop.box, "POST", QUOTES, {"from_quote[quote]": first["id"], "header": "x"})[2]
        == "header"
    )
    copy = done(shop.box, "POST", QUOTES, {"from_quote[quote]": first["id"]})
    assert (copy["amount_total"], copy["customer"], copy["from_quote"]["quote"]) == (
        2000,
        shop.customer,
        first["id"],
    )


# Over the wire


def test_the_official_client_bills_a_customer(shop: Shop) -> None:
    with shop.box.serve() as url:
        client = stripe.StripeClient(
            shop.box.key, base_addresses={"api": url}, max_network_retries=0
        )
        made = client.v1.subscriptions.create(
            {
                "customer": shop.customer,
                "items": [{"price": shop.small, "quantity": 2}, {"price": shop.large}],
            }
        )
        draft = client.v1.invoices.create(
            {"customer": shop.customer, "custom_fields": [{"name": "PO", "value": "7"}]}
        )
        client.v1.invoice_items.create(
            {"customer": shop.customer, "invoice": str(draft.id), "amount": 100, "currency": "usd"}
        )
        paid = client.v1.invoices.pay(str(draft.id), {"paid_out_of_band": True})
        gone = client.v1.subscriptions.cancel(made.id, {"cancellation_details": {"comment": "bye"}})
        with pytest.raises(stripe.CardError) as caught:
            other = client.v1.invoices.create({"customer": shop.customer})
            client.v1.invoice_items.create(
                {
                    "customer": shop.customer,
                    "invoice": str(other.id),
                    "amount": 100,
                    "currency": "usd",
                }
            )
            client.v1.invoices.pay(str(other.id), {"payment_method": "pm_card_chargeDeclined"})
    assert (paid.status, gone.status, caught.value.code) == ("paid", "canceled", "card_declined")
    assert prices_of(shop.box.objects("subscriptions")[made.id]) == [
        (shop.small, 2),
        (shop.large, 1),
    ]
