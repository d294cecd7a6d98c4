"""Discounts come when they are expanded, and take their part off the lines of invoices."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.protocol.messages import Request


def ask(box: Sandbox, method: str, target: str, **params: str) -> Any:
    """The answer to a request that succeeds."""
    body = urlencode(params).encode()
    answer = box.answer(Request(method, target, {"authorization": f"Bearer {box.key}"}, body))
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


class Shop:
    """A customer who can pay, and two monthly prices of different products."""

    def __init__(self) -> None:
        self.box = Sandbox(customers=0, products=0, oddities=False)
        create = self.box.create
        settings = {"default_payment_method": "pm_1", "custom_fields": None, "footer": None}
        self.customer = create("customers", currency="usd", balance=0, discount=None, invoice_settings=settings | {"rendering_options": None})["id"]  # fmt: skip
        self.products = [create("products")["id"] for _ in range(2)]
        self.prices = [
            create(
                "prices",
                product=product,
                currency="usd",
                unit_amount=amount,
                recurring={"interval": "month", "usage_type": "licensed"},
            )["id"]
            for product, amount in zip(self.products, (1000, 3333), strict=True)
        ]

    def coupon(self, id: str, **params: str) -> str:
        return str(ask(self.box, "POST", "/v1/coupons", id=id, **params)["id"])

    def subscribe(self, **params: str) -> tuple[Any, Any]:
        """The subscription to both prices, and its first invoice."""
        both = {f"items[{n}][price]": price for n, price in enumerate(self.prices)}
        made = ask(self.box, "POST", "/v1/subscriptions", customer=self.customer, **both | params)
        return made, ask(self.box, "GET", f"/v1/invoices/{made['latest_invoice']}")


@pytest.fixture
def shop() -> Shop:
    return Shop()


def taken(invoice: Any) -> list[list[int]]:
    return [
        [off["amount"] for off in line["discount_amounts"]] for line in invoice["lines"]["data"]
    ]


@pytest.mark.parametrize(
    ("coupons", "lines"),
    [
        ([{"percent_off": "10"}], [[100], [333]]),
        ([{"percent_off": "12.5"}], [[125], [417]]),
        ([{"amount_off": "1000", "currency": "usd"}], [[230], [770]]),
        ([{"amount_off": "9999", "currency": "usd"}], [[1000], [3333]]),
        ([{"percent_off": "50"}, {"amount_off": "100", "currency": "usd"}], [[500, 23], [1667, 77]]),
        ([{"amount_off": "100", "currency": "eur"}], [[], []]),
    ],
)  # fmt: skip
def test_discounts_take_their_part_off_each_line(
    shop: Shop, coupons: list[dict[str, str]], lines: list[list[int]]
) -> None:
    """Percentages one after the other, half up; fixed amounts once, in proportion to the lines."""
    params = {
        f"discounts[{n}][coupon]": shop.coupon(f"C{n}", **coupon)
        for n, coupon in enumerate(coupons)
    }
    subscription, invoice = shop.subscribe(**params)

    assert taken(invoice) == lines
    off = sum(sum(amounts) for amounts in lines)
    assert (invoice["subtotal"], invoice["total"]) == (4333, 4333 - off)
    assert invoice["amount_paid"] == invoice["total_excluding_tax"] == 4333 - off
    assert invoice["discounts"] == subscription["discounts"]
    assert [one["discount"] for one in invoice["total_discount_amounts"]] == (
        subscription["discounts"] if off else []
    )
    assert sum(one["amount"] for one in invoice["total_discount_amounts"]) == off


def test_an_items_discount_comes_first_and_a_coupon_may_be_for_some_products(shop: Shop) -> None:
    half, some = shop.coupon("HALF", percent_off="50"), shop.coupon("SOME", percent_off="10")
    shop.box.update("coupons", some, applies_to={"products": [shop.products[1]]})
    _, invoice = shop.subscribe(
        **{"items[1][discounts][0][coupon]": half, "discounts[0][coupon]": some}
    )

    assert taken(invoice) == [[], [1667, 167]]
    assert invoice["total"] == 1000 + 3333 - 1667 - 167


def test_a_customers_discount_is_for_what_has_none(shop: Shop) -> None:
    coupon, other = shop.coupon("ALL", percent_off="10"), shop.coupon("OWN", percent_off="20")
    discount = {"id": "di_1", "object": "discount", "start": 0, "end": None, "source": {"coupon": coupon}}  # fmt: skip
    shop.box.update("customers", shop.customer, discount=discount)

    assert taken(shop.subscribe()[1]) == [[100], [333]]
    assert taken(shop.subscribe(**{"discounts[0][coupon]": other})[1]) == [[200], [667]]


def test_a_discount_of_months_has_an_end(shop: Shop) -> None:
    coupon = shop.coupon("Q", percent_off="10", duration="repeating", duration_in_months="3")
    made, _ = shop.subscribe(**{"discounts[0][coupon]": coupon})
    (discount,) = ask(
        shop.box, "GET", f"/v1/subscriptions/{made['id']}?expand[]=discounts.source.coupon"
    )["discounts"]

    assert discount["subscription"] == made["id"]
    assert 89 * 86_400 <= discount["end"] - discount["start"] <= 92 * 86_400
    assert discount["source"]["coupon"]["duration_in_months"] == 3


def test_discounts_come_when_they_are_expanded(shop: Shop) -> None:
    """On lists, on items, and with a coupon that was deleted since."""
    coupon = shop.coupon("GONE", percent_off="10", duration="forever")
    made, invoice = shop.subscribe(
        **{"discounts[0][coupon]": coupon, "items[0][discounts][0][coupon]": coupon}
    )
    ask(shop.box, "DELETE", "/v1/coupons/GONE")
    path = "/v1/subscriptions?expand[]=data.discounts.source.coupon"
    (subscription,) = ask(shop.box, "GET", path)["data"]
    (discount,) = subscription["discounts"]

    assert (discount["id"], discount["object"]) == (made["discounts"][0], "discount")
    assert (discount["customer"], discount["end"]) == (shop.customer, None)
    assert discount["source"]["coupon"]["percent_off"] == 10.0
    path = f"/v1/subscriptions/{made['id']}?expand[]=items.data.discounts"
    items = ask(shop.box, "GET", path)["items"]["data"]
    assert [one["source"]["coupon"] for one in items[0]["discounts"]] == ["GONE"]
    (shown,) = ask(shop.box, "GET", "/v1/invoices?expand[]=data.discounts")["data"]
    assert [one["id"] for one in shown["discounts"]] == invoice["discounts"]


def test_sampled_discounts_are_whole_too() -> None:
    """Those of random objects follow from their id, as do their coupons."""
    box = Sandbox(customers=300, oddities=False)
    path = "/v1/subscriptions?status=all&limit=100&expand[]=data.discounts.source.coupon"
    found = [one for held in ask(box, "GET", path)["data"] for one in held["discounts"]]
    again = [one for held in ask(box, "GET", path)["data"] for one in held["discounts"]]

    assert found and found == again
    assert {one["source"]["coupon"]["object"] for one in found} == {"coupon"}
    assert all({"start", "end", "customer", "subscription"} <= set(one) for one in found)


def test_the_discounts_of_a_draft_can_change(shop: Shop) -> None:
    coupon = shop.coupon("LATE", percent_off="10")
    params = {"customer": shop.customer, "amount": "5000", "currency": "usd"}
    ask(shop.box, "POST", "/v1/invoiceitems", **params)
    params = {"customer": shop.customer, "pending_invoice_items_behavior": "include"}
    draft = ask(shop.box, "POST", "/v1/invoices", **params)
    path = f"/v1/invoices/{draft['id']}"
    after = ask(shop.box, "POST", path, **{"discounts[0][coupon]": coupon})

    assert (draft["total"], after["total"], taken(after)) == (5000, 4500, [[500]])
    again = ask(shop.box, "POST", path, discounts="")
    assert (again["total"], again["amount_due"], taken(again)) == (5000, 5000, [[]])
