"""Discounts have no endpoint: they come with the objects that hold them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.protocol.messages import Request
from tests.copies import PERMISSIONS, Copy, copy_of

DAY = 86_400
TABLES = ["customers", "subscriptions", "invoices", "coupons", "discounts"]


def ask(box: Sandbox, method: str, target: str, **params: str) -> Any:
    """The answer to a request that succeeds."""
    body = urlencode(params).encode()
    answer = box.answer(Request(method, target, {"authorization": f"Bearer {box.key}"}, body))
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


class Shop:
    """An account without anything else."""

    def __init__(self) -> None:
        self.box = Sandbox(customers=0, products=0, oddities=False)
        settings = {"default_payment_method": "pm_1", "custom_fields": None, "footer": None}
        self.customer = self.box.create("customers", currency="usd", balance=0, discount=None, invoice_settings=settings | {"rendering_options": None})["id"]  # fmt: skip
        self.product = self.box.create("products")["id"]

    def coupon(self, id: str) -> str:
        return str(ask(self.box, "POST", "/v1/coupons", id=id, percent_off="10")["id"])

    def subscribe(self, params: dict[str, str], count: int = 1) -> Any:
        """A subscription to so many prices."""
        items = {}
        for n in range(count):
            price = self.box.create(
                "prices",
                product=self.product,
                currency="usd",
                unit_amount=1000,
                recurring={"interval": "month", "usage_type": "licensed"},
            )
            items[f"items[{n}][price]"] = price["id"]
        return ask(self.box, "POST", "/v1/subscriptions", customer=self.customer, **items | params)

    @property
    def named(self) -> set[str]:
        """The ids of all discounts that an object of the account names."""
        found: set[str] = set()
        for kind in ("customers", "subscriptions", "invoices"):
            for content in self.box.objects(kind).values():
                found |= _ids(content)
        for id in self.box.objects("subscriptions"):
            items = ask(self.box, "GET", f"/v1/subscription_items?subscription={id}&limit=100")
            found |= _ids(items)
        return found


def _ids(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*map(_ids, value.values())) if value else set()
    if isinstance(value, list):
        return set().union(*map(_ids, value)) if value else set()
    return {value} if isinstance(value, str) and value.startswith("di_") else set()


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def copy(shop: Shop, tmp_path: Path) -> Iterator[Copy]:
    with copy_of(shop.box, tmp_path, hold=True) as found:
        yield found


def requests_of(copy: Copy) -> list[str]:
    """The kinds of requests since the last time."""
    paths = [f"{call.method} {call.template}" for call in copy.box.log]
    copy.box.log.clear()
    return paths


def discounts(copy: Copy) -> dict[str, str]:
    """Coupon by discount."""
    rows = copy.select("select id, source ->> '$.coupon' from stripe.discounts")
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def test_discounts_at_every_level_are_in_one_table(shop: Shop, copy: Copy) -> None:
    """Those of a customer, a subscription, its items and their invoice; with the coupon's id, also
    of a coupon that was deleted, which has a row although no list shows it.
    """
    for id in ("A", "B", "C"):
        shop.coupon(id)
    discount = {"id": "di_1", "object": "discount", "start": 5, "end": None, "source": {"type": "coupon", "coupon": "C"}}  # fmt: skip
    shop.box.update("customers", shop.customer, discount=discount)
    shop.subscribe({"discounts[0][coupon]": "A", "items[1][discounts][0][coupon]": "B"}, 2)
    ask(shop.box, "DELETE", "/v1/coupons/A")
    shop.box.advance(DAY)
    copy.load(resources=TABLES)

    assert set(discounts(copy)) == shop.named
    assert {"di_1": "C"}.items() <= discounts(copy).items()
    assert set(discounts(copy).values()) == {"A", "B", "C"}
    assert copy.select("select id, percent_off from stripe.coupons order by id") == [
        ("A", 10.0),
        ("B", 10.0),
        ("C", 10.0),
    ]


def test_what_is_known_costs_nothing_and_what_is_new_one_request(shop: Shop, copy: Copy) -> None:
    """Whoever holds a discount that the copy lacks is fetched once."""
    for id in ("A", "B"):
        shop.coupon(id)
    made = shop.subscribe({"discounts[0][coupon]": "A"})
    shop.box.advance(DAY)
    copy.load(resources=TABLES)
    shop.box.advance(DAY)
    requests_of(copy)
    copy.sync(resources=TABLES)
    assert "GET /v1/subscriptions/:id" not in requests_of(copy)

    shop.box.advance(DAY)
    ask(shop.box, "POST", f"/v1/subscriptions/{made['id']}", **{"discounts[0][coupon]": "B"})
    shop.box.advance(DAY)
    copy.sync(resources=TABLES)
    assert set(discounts(copy)) >= shop.named
    assert (
        requests_of(copy).count("GET /v1/subscriptions/:id") == 2
    )  # as an event asks for, and for it


def test_discounts_of_items_beyond_the_first_ten_are_found(shop: Shop, copy: Copy) -> None:
    shop.coupon("A")
    shop.subscribe({"items[12][discounts][0][coupon]": "A"}, 13)
    shop.box.advance(DAY)
    copy.load(resources=TABLES)

    assert set(discounts(copy)) == shop.named != set()


def test_a_key_that_may_not_read_coupons_reads_all_else(shop: Shop, copy: Copy) -> None:
    """What holds the discounts is not refused for them: its next changes come."""
    shop.coupon("A")
    shop.subscribe({"discounts[0][coupon]": "A"})
    shop.box.advance(DAY)
    key = shop.box.restrict(permissions=PERMISSIONS - {"rak_coupon_read"})
    for name in ("first", "second"):
        shop.box.update("customers", shop.customer, name=name)
        shop.box.advance(DAY)
        done = copy.sync(
            api_key=key, resources=["customers", "subscriptions", "coupons", "discounts"]
        )

        assert set(done.refused) == {"coupons", "discounts"}
        assert copy.one("select name from stripe.customers") == name


def test_discounts_that_are_asked_for_later_come_with_the_first_run(shop: Shop, copy: Copy) -> None:
    """Also after somebody has dropped their table."""
    shop.coupon("A")
    shop.subscribe({"discounts[0][coupon]": "A"})
    shop.box.advance(DAY)
    copy.load(resources=["subscriptions"])
    for _ in range(2):
        shop.box.advance(DAY)
        copy.sync(resources=["subscriptions", "discounts"])
        assert set(discounts(copy)) == shop.named
        copy.select("drop table stripe.discounts")
