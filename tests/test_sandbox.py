"""The sandbox answers like Stripe, to Stripe's own SDK and byte by byte."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import stripe
import urllib3

from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.protocol.messages import Request
from stripe_feed.sandbox.scenarios.seed_data import Shape
from stripe_feed.sandbox.state.mutation import Mutation

TABLES = ("customers", "invoices", "subscriptions", "products", "plans", "prices")
Object = dict[str, Any]


class Caller:
    """The sandbox as a client sees it: Stripe's SDK, and plain HTTP."""

    def __init__(self, box: Sandbox, url: str, key: str | None = None) -> None:
        self.box, self.url, self.key = box, url, key or box.key
        self.http = stripe.RequestsClient()
        self.stripe = stripe.StripeClient(
            self.key, base_addresses={"api": url}, http_client=self.http
        )
        self.pool = urllib3.PoolManager(retries=False)

    def raw(self, path: str, **headers: str) -> urllib3.BaseHTTPResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.pool.request(
            "GET", self.url + path, headers=sent | {"Authorization": f"Bearer {self.key}"}
        )

    def get(self, path: str) -> Any:
        answer = self.raw(path)
        assert answer.status == 200, answer.data
        return answer.json()

    def error(self, path: str) -> tuple[int, Object]:
        answer = self.raw(path)
        assert answer.status != 200
        return answer.status, answer.json()["error"]

    def all(self, path: str) -> list[Object]:
        """Every page of a list."""
        found: list[Object] = []
        joint = "&" if "?" in path else "?"
        while True:
            after = f"&starting_after={found[-1]['id']}" if found else ""
            page = self.get(f"{path}{joint}limit=100{after}")
            found += page["data"]
            if not page["has_more"]:
                return found

    def ids(self, path: str) -> list[str]:
        return [found["id"] for found in self.all(path)]

    def close(self) -> None:
        self.http.close()  # type: ignore[no-untyped-call]
        self.pool.clear()


@contextmanager
def calling(box: Sandbox, key: str | None = None) -> Iterator[Caller]:
    with box.serve() as url, closing(Caller(box, url, key)) as caller:
        yield caller


@pytest.fixture(scope="module")
def read() -> Iterator[Caller]:
    """An account that no test changes."""
    with calling(Sandbox(seed=3, customers=400)) as caller:
        yield caller


@pytest.fixture
def own() -> Iterator[Caller]:
    """A small account of the test's own."""
    with calling(Sandbox(seed=5, customers=20, oddities=False)) as caller:
        yield caller


def by_created(objects: dict[str, Object]) -> list[int]:
    return sorted((found["created"] for found in objects.values()), reverse=True)


# The objects


OPT_IN = {"tax", "sources", "tax_ids", "cash_balance", "invoice_credit_balance", "subscriptions", "tiers",
          "currency_options", "payments", "confirmation_secret", "deleted"}  # fmt: skip


@pytest.mark.parametrize(
    ("table", "documented"),
    [
        ("customers", stripe.Customer), ("invoices", stripe.Invoice), ("subscriptions", stripe.Subscription),
        ("products", stripe.Product), ("plans", stripe.Plan), ("prices", stripe.Price),
        ("subscription_items", stripe.SubscriptionItem), ("invoice_line_items", stripe.InvoiceLineItem),
    ],
)  # fmt: skip
def test_every_documented_field_is_there(table: str, documented: type) -> None:
    """Each object has exactly the SDK's top-level fields, but for those that only come when
    expanded.
    """
    fields = set(documented.__annotations__) - {"OBJECT_NAME"} - OPT_IN
    box = Sandbox(customers=20, oddities=False)
    objects = box.children(table) if "_" in table else box.objects(table)

    assert {frozenset(found) for found in objects.values()} == {frozenset(fields)}


def test_the_same_seed_gives_the_same_account() -> None:
    first, second, other = Sandbox(seed=1), Sandbox(seed=1), Sandbox(seed=2)

    assert [first.objects(table) for table in TABLES] == [second.objects(table) for table in TABLES]
    assert (first.key, first.account_id) == (second.key, second.account_id)
    assert set(first.objects("customers")).isdisjoint(other.objects("customers"))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_all_oddities_are_there(seed: int) -> None:
    """From 200 customers up; subscriptions are the one thing that Stripe never deletes."""
    found = Sandbox(seed=seed).oddities()

    assert [name for name, count in found.items() if not count] == ["deleted_subscriptions"]
    assert found["burst"] >= 130


def test_a_large_account_has_several_hundred_objects_in_a_second() -> None:
    box = Sandbox(customers=1600, invoices=0, subscriptions=0)

    assert Counter(by_created(known_created(box))).most_common(1)[0][1] >= 340


def known_created(box: Sandbox) -> dict[str, Object]:
    return {
        id: found for id, found in box.objects("customers").items() if found["created"] is not None
    }


def test_without_oddities_an_account_is_neat() -> None:
    box = Sandbox(seed=1, oddities=False)
    odd = box.oddities()

    assert {table: len(box.objects(table)) for table in ("customers", "invoices", "subscriptions")} == {
        "customers": 200, "invoices": 200, "subscriptions": 100
    }  # fmt: skip
    absent = ("unknown_fields", "null_created", "clock_customers", "imported", "long_invoices")
    assert [odd[name] for name in absent] == [0] * 5


def within(times: list[int], hours: int) -> float:
    """The largest share of the times that lies within some hours."""
    return max(sum(at <= other < at + hours * 3600 for other in times) for at in times) / len(times)


def test_shapes_put_the_objects_in_time() -> None:
    def times(shape: Shape) -> list[int]:
        box = Sandbox(customers=500, invoices=0, subscriptions=0, oddities=False, shape=shape)
        return by_created(box.objects("customers"))

    even, growth, months = times("even"), times("growth"), times("months")
    start, now = 1_780_000_000 - 3 * 365 * 86_400, 1_780_000_000
    first_days = [
        moment
        for moment in (datetime.fromtimestamp(at, timezone.utc) for at in months)
        if moment.day == 1
    ]

    def newer_half(found: list[int]) -> float:
        return sum(at > (start + now) / 2 for at in found) / 500

    assert 0.4 < newer_half(even) < 0.6
    assert newer_half(growth) > 0.75
    assert 0.55 < within(times("import"), 2) < 0.7
    assert 0.75 < sum(moment.hour < 3 for moment in first_days) / 500 < 0.9


def test_plans_and_prices_are_two_views_of_one_object() -> None:
    """One-time prices are no plans."""
    box = Sandbox()
    prices, plans = box.objects("prices"), box.objects("plans")
    recurring = {id: price for id, price in prices.items() if price["recurring"]}

    assert set(plans) == set(recurring)
    assert {
        id: (plan["amount"], plan["active"], plan["interval"], plan["metadata"])
        for id, plan in plans.items()
    } == {
        id: (
            price["unit_amount"],
            price["active"],
            price["recurring"]["interval"],
            price["metadata"],
        )
        for id, price in recurring.items()
    }


# Lists


HIDDEN: dict[str, Callable[[Object], Any]] = {
    "customers": lambda found: found.get("test_clock"),
    "subscriptions": lambda found: found["test_clock"] or found["status"] == "canceled",
}


@pytest.mark.parametrize("table", ["customers", "invoices", "subscriptions", "products"])
def test_a_list_walked_with_the_sdk_is_the_truth(read: Caller, table: str) -> None:
    """Newest first, each once; what is on a test clock and canceled subscriptions stay hidden."""
    hidden: Callable[[Object], Any] = HIDDEN.get(table, lambda found: False)
    truth = {id: found for id, found in read.box.objects(table).items() if not hidden(found)}
    listed = read.all(f"/v1/{table}")

    assert {found["id"]: found for found in listed} == truth
    assert len(listed) == len(truth)
    service: Any = getattr(read.stripe.v1, table)
    walked = service.list({"limit": 100}).auto_paging_iter()
    assert [found.id for found in walked] == [found["id"] for found in listed]
    created = [found["created"] if found["created"] is not None else -1 for found in listed]
    assert created == sorted(created, reverse=True)


def test_a_page_has_ten_rows_unless_told_otherwise(read: Caller) -> None:
    page = read.get("/v1/customers")

    assert (len(page["data"]), page["has_more"], page["url"], page["object"]) == (
        10,
        True,
        "/v1/customers",
        "list",
    )
    assert len(read.get("/v1/customers?limit=1")["data"]) == 1


@pytest.mark.parametrize("limit", ["0", "101", "-1", "ten", ""])
def test_a_limit_is_1_to_100(read: Caller, limit: str) -> None:
    status, error = read.error(f"/v1/customers?limit={limit}")

    assert (status, error["param"], error["type"]) == (400, "limit", "invalid_request_error")


def test_has_more_is_exact(read: Caller) -> None:
    """A last page that is full says that there is no more."""
    products = read.ids("/v1/products")
    exact = read.get(f"/v1/products?limit={len(products)}")

    assert ([found["id"] for found in exact["data"]], exact["has_more"]) == (products, False)
    assert read.get(f"/v1/products?limit={len(products) - 1}")["has_more"]


def test_cursors_go_both_ways(read: Caller) -> None:
    """`ending_before` is the page directly newer than the id, newest first inside."""
    ids = read.ids("/v1/customers")
    after = read.get(f"/v1/customers?limit=3&starting_after={ids[10]}")
    before = read.get(f"/v1/customers?limit=3&ending_before={ids[10]}")
    first = read.get(f"/v1/customers?limit=20&ending_before={ids[10]}")
    exact = read.get(f"/v1/customers?limit=10&ending_before={ids[10]}")

    assert [found["id"] for found in after["data"]] == ids[11:14]
    assert ([found["id"] for found in before["data"]], before["has_more"]) == (ids[7:10], True)
    assert ([found["id"] for found in first["data"]], first["has_more"]) == (ids[:10], False)
    assert ([found["id"] for found in exact["data"]], exact["has_more"]) == (ids[:10], False)
    assert read.get(f"/v1/customers?starting_after={ids[-1]}") == {
        "object": "list", "data": [], "has_more": False, "url": "/v1/customers"
    }  # fmt: skip
    assert read.error(f"/v1/customers?starting_after={ids[0]}&ending_before={ids[1]}")[0] == 400


def test_a_cursor_must_exist(own: Caller) -> None:
    """An unknown id, a deleted one and one that left the filter are refused with 400, as
    `starting_after`.
    """
    gone = own.box.create("customers")["id"]
    own.box.delete("customers", gone)
    canceled = own.box.create("subscriptions")["id"]
    page = own.ids("/v1/subscriptions")
    own.box.cancel(canceled)

    assert canceled in page
    for path, param, id in [
        ("/v1/customers", "starting_after", "cus_unknown"),
        ("/v1/customers", "ending_before", "cus_unknown"),
        ("/v1/customers", "starting_after", gone),
        ("/v1/subscriptions", "starting_after", canceled),
    ]:
        with pytest.raises(stripe.InvalidRequestError) as error:
            own.stripe.raw_request("get", path, **{param: id})
        assert (error.value.http_status, error.value.code, error.value.param) == (
            400,
            "resource_missing",
            param,
        )
    assert own.get(f"/v1/subscriptions?status=all&starting_after={canceled}")["object"] == "list"


@pytest.mark.parametrize("table", TABLES)
def test_created_windows(read: Caller, table: str) -> None:
    """Bounds are whole seconds and hold together; an exact second is one too."""
    path = f"/v1/{table}" + ("?status=all&" if table == "subscriptions" else "?")
    listed = [(found["id"], found["created"]) for found in read.all(path.rstrip("?&"))]
    known = [(id, created) for id, created in listed if created is not None]
    middle = known[len(known) // 2][1]
    older = known[len(known) * 3 // 4][1]
    no_time = [id for id, created in listed if created is None]

    def ids(bounds: str) -> list[str]:
        return read.ids(path + bounds)

    assert ids(f"created={middle}") == [id for id, created in known if created == middle]
    assert ids(f"created[gt]={middle}") == [id for id, created in known if created > middle]
    assert ids(f"created[gte]={middle}") == [id for id, created in known if created >= middle]
    assert (
        ids(f"created[lt]={middle}") == [id for id, created in known if created < middle] + no_time
    )
    assert (
        ids(f"created[lte]={middle}")
        == [id for id, created in known if created <= middle] + no_time
    )
    inside = [id for id, created in known if older <= created < middle]
    assert ids(f"created[gte]={older}&created[lt]={middle}") == inside
    assert ids(f"created[gte]={middle}&created[lt]={middle}") == []


def test_created_can_be_null_or_in_the_future(read: Caller) -> None:
    """A very old customer has none: it comes last, and never where there is a lower bound."""
    null = next(
        id for id, found in read.box.objects("customers").items() if found["created"] is None
    )
    ahead = [found["created"] for found in read.all(f"/v1/customers?created[gte]={read.box.now}")]

    assert read.ids("/v1/customers")[-1] == null
    assert read.ids("/v1/customers?created[lt]=9999999999")[-1] == null
    assert null not in read.ids("/v1/customers?created[gte]=0")
    assert null not in read.ids("/v1/customers?created[gt]=-5")
    assert ahead == [read.box.now + 3 * 86_400]


def test_a_second_with_more_than_a_page_is_paged_by_cursor(read: Caller) -> None:
    second, count = Counter(by_created(known_created(read.box))).most_common(1)[0]
    ids = read.ids(f"/v1/customers?created[gte]={second}&created[lt]={second + 1}")

    assert count > 100
    assert (len(ids), len(set(ids))) == (count, count)
    assert ids == read.ids(f"/v1/customers?created={second}")
    assert ids != sorted(ids) != ids[::-1]


@pytest.mark.parametrize(
    "bounds", ["created=x", "created[gte]=1.5", "created[from]=1", "created[gte]="]
)
def test_bad_bounds_are_refused(read: Caller, bounds: str) -> None:
    status, error = read.error(f"/v1/customers?{bounds}")

    assert (status, error["param"].partition("[")[0]) == (400, "created")


@pytest.mark.parametrize(
    "path",
    ["/v1/customers?foo=1", "/v1/prices?foo=1", "/v1/invoices?test_clock=x&foo=1", "/v1/account?foo=1",
     "/v1/subscription_items?subscription=sub_1&foo=1", "/v1/customers/cus_1?foo=1", "/v1/customers?status=all"],
)  # fmt: skip
def test_unknown_parameters_are_refused(read: Caller, path: str) -> None:
    status, error = read.error(path)

    assert (status, error["code"]) == (400, "parameter_unknown")
    assert error["param"] in ("foo", "status", "test_clock")
    assert error["message"].startswith("Received unknown parameter")


@pytest.mark.parametrize(
    "status",
    [None, "all", "ended", "active", "canceled", "incomplete", "incomplete_expired", "past_due", "paused", "trialing",
     "unpaid"],
)  # fmt: skip
def test_subscriptions_by_status(read: Caller, status: str | None) -> None:
    """All but the canceled by default."""
    wanted: dict[str | None, Any] = {
        None: lambda one: one != "canceled",
        "all": lambda one: True,
        "ended": lambda one: one in ("canceled", "incomplete_expired"),
    }
    match = wanted.get(status, lambda one: one == status)
    shown = {
        id: found
        for id, found in read.box.objects("subscriptions").items()
        if not found["test_clock"]
    }
    truth = {id for id, found in shown.items() if match(found["status"])}
    listed = read.ids("/v1/subscriptions" + (f"?status={status}" if status else ""))

    assert set(listed) == truth
    assert len(listed) == len(truth) > 0


def test_bad_choices_are_refused(read: Caller) -> None:
    for path in (
        "/v1/subscriptions?status=gone",
        "/v1/invoices?status=gone",
        "/v1/prices?active=yes",
    ):
        assert read.error(path)[0] == 400


def test_prices_list_the_active_ones_and_never_the_inline_ones(read: Caller) -> None:
    """Archived ones need `active=false`; inline ones (from `price_data`) are only there by id and
    inside items.
    """
    prices = read.box.objects("prices")
    embedded = {item["price"]["id"] for item in read.box.children("subscription_items").values()}
    inline = embedded & read.box.account.inline_prices
    active, archived = read.ids("/v1/prices"), read.ids("/v1/prices?active=false")

    assert active == read.ids("/v1/prices?active=true")
    assert set(active) == {id for id, price in prices.items() if price["active"]}
    assert (
        set(archived)
        == {id for id, price in prices.items() if not price["active"]}
        - read.box.account.inline_prices
    )
    assert len(inline) > 0
    assert not any(prices[id]["active"] for id in inline)
    assert {id: read.get(f"/v1/prices/{id}") for id in inline} == {id: prices[id] for id in inline}


def test_items_embed_the_whole_price_and_plan(read: Caller) -> None:
    prices, plans = read.box.objects("prices"), read.box.objects("plans")
    items = [
        item
        for found in read.all("/v1/subscriptions?status=all")
        for item in found["items"]["data"]
    ]

    assert all(item["price"] == prices[item["price"]["id"]] for item in items)
    assert all(item["plan"] == plans[item["plan"]["id"]] for item in items)


def test_plans_list_archived_ones_too(read: Caller) -> None:
    plans, inline = read.box.objects("plans"), read.box.account.inline_prices

    assert set(read.ids("/v1/plans")) == set(plans) - inline
    archived = {id for id in set(plans) - inline if not plans[id]["active"]}
    assert set(read.ids("/v1/plans?active=false")) == archived != set()


def test_objects_on_a_test_clock(read: Caller) -> None:
    """Customers and subscriptions hide unless asked for by clock or by customer; invoices do not."""
    clocks = read.ids("/v1/test_helpers/test_clocks")
    truth = {
        table: {
            id
            for id, found in read.box.objects(table).items()
            if found.get("test_clock") == clocks[0]
        }
        for table in ("customers", "subscriptions", "invoices")
    }
    customer = min(truth["customers"])

    assert set(read.ids(f"/v1/customers?test_clock={clocks[0]}")) == truth["customers"] != set()
    assert (
        set(read.ids(f"/v1/subscriptions?test_clock={clocks[0]}"))
        == truth["subscriptions"]
        != set()
    )
    assert truth["invoices"] <= set(read.ids("/v1/invoices"))
    assert set(read.ids(f"/v1/subscriptions?customer={customer}")) <= truth["subscriptions"]
    assert read.get(f"/v1/customers/{customer}")["test_clock"] == clocks[0]
    assert (
        read.get(f"/v1/test_helpers/test_clocks/{clocks[0]}")["object"] == "test_helpers.test_clock"
    )


@pytest.mark.parametrize(
    ("table", "field"),
    [("customers", "email"), ("invoices", "customer"), ("invoices", "status"), ("invoices", "collection_method"),
     ("prices", "currency"), ("prices", "product"), ("prices", "type"), ("plans", "product"), ("products", "type"),
     ("products", "url")],
)  # fmt: skip
def test_filters_by_a_field(read: Caller, table: str, field: str) -> None:
    everything = read.all(f"/v1/{table}")
    value = next(found[field] for found in everything if found.get(field) is not None)

    assert read.all(f"/v1/{table}?{field}={value}") == [
        found for found in everything if found.get(field) == value
    ]


def test_filters_by_what_is_inside(read: Caller) -> None:
    invoices = read.all("/v1/invoices")
    everything = read.all("/v1/subscriptions?status=all")
    price = everything[0]["items"]["data"][0]["price"]["id"]
    products = read.ids("/v1/products")
    key = next(price["lookup_key"] for price in read.all("/v1/prices") if price["lookup_key"])
    due = next(found["due_date"] for found in invoices if found["due_date"])

    def about(found: Object) -> str | None:
        details = (found["parent"] or {}).get("subscription_details") or {}
        return details.get("subscription")

    subscription = next(about(found) for found in invoices if about(found))

    def prices(found: Object) -> set[str]:
        return {item["price"]["id"] for item in found["items"]["data"]}

    billed = [found["id"] for found in invoices if about(found) == subscription]
    assert read.ids(f"/v1/invoices?subscription={subscription}") == billed
    assert read.ids(f"/v1/invoices?due_date[gte]={due}") == [
        i["id"] for i in invoices if (i["due_date"] or 0) >= due
    ]
    sold = [found["id"] for found in everything if price in prices(found)]
    assert read.ids(f"/v1/subscriptions?status=all&price={price}") == sold
    assert read.ids(f"/v1/products?ids[]={products[0]}&ids[]={products[3]}") == [
        products[0],
        products[3],
    ]
    assert [found["lookup_key"] for found in read.all(f"/v1/prices?lookup_keys[0]={key}")] == [key]
    assert {
        p["recurring"]["interval"] for p in read.all("/v1/prices?recurring[interval]=year")
    } == {"year"}


# Children and expansions


def test_embedded_lists_stop_at_ten(read: Caller) -> None:
    """The rest is where `url` says, in the same order, in pages."""
    lines = Counter(line["invoice"] for line in read.box.children("invoice_line_items").values())
    items = Counter(
        item["subscription"] for item in read.box.children("subscription_items").values()
    )

    for path, field, counts in [
        ("/v1/invoices", "lines", lines),
        ("/v1/subscriptions?status=all", "items", items),
    ]:
        for found in read.all(path):
            total, embedded = counts[found["id"]], found[field]
            assert (len(embedded["data"]), embedded["has_more"]) == (min(total, 10), total > 10)
            if total > 10:
                children = read.all(embedded["url"])
                assert (len(children), children[:10]) == (total, embedded["data"])
    assert {0, 11, 12, 45, 130, 250} <= {lines[id] for id in read.box.objects("invoices")}
    assert {10, 11, 20, 120} <= set(items.values())


def test_sub_lists_have_the_rules_of_lists(read: Caller) -> None:
    counts = Counter(
        item["subscription"] for item in read.box.children("subscription_items").values()
    )
    id = next(id for id, count in counts.items() if count == 20)
    path = f"/v1/subscription_items?subscription={id}"
    ids = read.ids(path)

    assert [
        found["id"] for found in read.get(f"{path}&limit=3&starting_after={ids[4]}")["data"]
    ] == ids[5:8]
    assert [
        found["id"] for found in read.get(f"{path}&limit=3&ending_before={ids[4]}")["data"]
    ] == ids[1:4]
    assert read.get(f"{path}&limit=20")["has_more"] is False
    assert read.get(f"{path}&limit=19")["has_more"] is True
    assert read.error(f"{path}&starting_after=si_unknown")[1]["code"] == "resource_missing"
    assert read.error("/v1/subscription_items")[1]["code"] == "parameter_missing"
    assert read.error("/v1/subscription_items?subscription=sub_unknown")[0] == 400
    assert read.error("/v1/invoices/in_unknown/lines")[0] == 404
    assert (
        read.get(f"/v1/subscription_items/{ids[15]}")
        == read.box.children("subscription_items")[ids[15]]
    )
    assert read.error("/v1/subscription_items/si_unknown")[0] == 404


def test_opt_in_fields_come_when_expanded(read: Caller) -> None:
    customer_fields = ("tax", "sources", "tax_ids", "cash_balance", "invoice_credit_balance")
    expand = "&".join(f"expand[]=data.{name}" for name in customer_fields)
    plain, full = read.get("/v1/customers?limit=100"), read.get(f"/v1/customers?limit=100&{expand}")

    pairs = list(zip(full["data"], plain["data"], strict=True))

    assert [set(new) - set(old) for new, old in pairs] == [set(customer_fields)] * 100
    assert [{name: new[name] for name in old} for new, old in pairs] == plain["data"]
    tiered = read.all("/v1/prices?expand[0]=data.tiers&expand[1]=data.currency_options")
    assert all(
        isinstance(price["tiers"], list) == (price["billing_scheme"] == "tiered")
        for price in tiered
    )
    assert all(price["currency"] in price["currency_options"] for price in tiered)
    assert any(plan["tiers"] for plan in read.all("/v1/plans?expand[]=data.tiers"))
    paid = read.get("/v1/invoices?status=paid&limit=1&expand[]=data.payments")["data"][0]
    assert [payment["amount_paid"] for payment in paid["payments"]["data"]] == [paid["amount_paid"]]
    assert read.all(paid["payments"]["url"]) == paid["payments"]["data"]


def test_an_expanded_list_stops_at_ten_too(read: Caller) -> None:
    """Three customers have more tax ids than that, one more cards."""
    customers = read.all("/v1/customers?expand[]=data.tax_ids&expand[]=data.sources")
    taxed = [
        len(read.all(found["tax_ids"]["url"]))
        for found in customers
        if found["tax_ids"]["has_more"]
    ]
    cards = [
        read.all(found["sources"]["url"]) for found in customers if found["sources"]["has_more"]
    ]

    assert sorted(taxed) == [11, 12, 130]
    assert [len(found) for found in cards] == [23]
    assert all(len(found["tax_ids"]["data"]) <= 10 for found in customers)
    assert (
        read.get(f"/v1/customers/{customers[0]['id']}?expand[]=tax_ids")["tax_ids"]
        == customers[0]["tax_ids"]
    )


def test_ids_expand_to_objects(read: Caller) -> None:
    customers = read.box.objects("customers")
    page = read.stripe.v1.subscriptions.list(
        {"limit": 5, "expand": ["data.customer", "data.items.data.price.product"]}
    )
    expanded: list[Any] = [found.customer for found in page.data]

    assert [found.to_dict(for_json=True) for found in expanded] == [
        customers[found.id] for found in expanded
    ]
    assert {found["items"].data[0].price.product.object for found in page.data} == {"product"}
    invoice = read.get("/v1/invoices?limit=1")["data"][0]["id"]
    assert read.get(f"/v1/invoices/{invoice}?expand[]=customer")["customer"]["object"] == "customer"


def test_a_deleted_customer_expands_to_its_stub(own: Caller) -> None:
    invoice = own.box.create("invoices")
    own.box.delete("customers", invoice["customer"])

    assert own.get(f"/v1/invoices/{invoice['id']}?expand[]=customer")["customer"] == {
        "id": invoice["customer"], "object": "customer", "deleted": True
    }  # fmt: skip


@pytest.mark.parametrize(
    "path",
    ["/v1/customers?expand[]=tax_ids", "/v1/customers?expand[]=data.name", "/v1/customers?expand[]=data.customer",
     "/v1/invoices?expand[]=data", "/v1/invoices?expand[]=data.customer.discount.source.coupon.x",
     "/v1/customers?expand=data.tax_ids", "/v1/subscriptions?expand[]=data.foo"],
)  # fmt: skip
def test_what_cannot_be_expanded_is_refused(read: Caller, path: str) -> None:
    status, error = read.error(path)

    assert (status, error["param"]) == (400, "expand")


# Retrieving, keys and headers


@pytest.mark.parametrize("table", TABLES)
def test_any_id_can_be_retrieved(read: Caller, table: str) -> None:
    """Ids that the account chose have odd characters."""
    truth = read.box.objects(table)
    chosen = [id for id in truth if not id.replace("_", "").isalnum()]

    for id in [*list(truth)[:3], *chosen]:
        assert (
            json.loads(getattr(read.stripe.v1, table).retrieve(id).last_response.body) == truth[id]
        )
    assert bool(chosen) == (table in ("products", "plans", "prices"))


def test_a_deleted_customer_is_a_stub_and_others_are_missing(own: Caller) -> None:
    box = own.box
    customer, product, invoice = (
        box.create("customers"),
        box.create("products"),
        box.create("invoices"),
    )
    for table, found in (("customers", customer), ("products", product), ("invoices", invoice)):
        box.delete(table, found["id"])

    assert own.get(f"/v1/customers/{customer['id']}") == {
        "id": customer["id"],
        "object": "customer",
        "deleted": True,
    }
    for table, found in (("products", product), ("invoices", invoice)):
        status, error = own.error(f"/v1/{table}/{found['id']}")
        assert (status, error["code"], error["param"]) == (404, "resource_missing", "id")
        assert error["message"] == f"No such {found['object']}: '{found['id']}'"
    assert customer["id"] not in own.ids("/v1/customers")
    assert box.deleted("customers") == {customer["id"]: customer}


def test_an_object_of_the_other_mode(read: Caller) -> None:
    status, error = read.error(f"/v1/customers/{read.box.account.other_mode['customers']}")

    assert status == 404
    assert "a similar object exists in live mode, but a test mode key was used" in error["message"]


def test_unknown_urls(read: Caller) -> None:
    for path in ("/v1/nonsense", "/", "/v1", "/v2/core/events", "/v1/customers/cus_1/nonsense"):
        status, error = read.error(path)
        assert status == 404
        assert error["message"].startswith(f"Unrecognized request URL (GET: {path})")


def test_a_key_is_needed(read: Caller) -> None:
    answer = read.pool.request("GET", f"{read.url}/v1/customers")

    assert answer.status == 401
    assert answer.json()["error"]["message"].startswith("You did not provide an API key.")


def test_wrong_and_expired_keys_are_masked(own: Caller) -> None:
    expired = own.box.restrict(permissions={"rak_customer_read"})
    own.box.expire(expired)

    for key, said in [
        ("sk_test_wrongwrongabcd", "Invalid API Key provided: sk_test_**********abcd"),
        (expired, f"Expired API Key provided: rk_test_{'*' * 28}{expired[-4:]}"),
    ]:
        with (
            closing(Caller(own.box, own.url, key)) as caller,
            pytest.raises(stripe.AuthenticationError) as error,
        ):
            caller.stripe.v1.customers.list()
        assert (error.value.http_status, error.value.user_message) == (401, said)


def test_a_publishable_key_is_refused(own: Caller) -> None:
    with closing(Caller(own.box, own.url, "pk_test_1234567890")) as caller:
        assert caller.error("/v1/customers")[1]["code"] == "secret_key_required"


PERMISSIONS = {
    "customers": "rak_customer_read",
    "invoices": "rak_invoice_read",
    "subscriptions": "rak_subscription_read",
    "products": "rak_product_read",
    "plans": "rak_plan_read",
    "prices": "rak_plan_read",
}


def test_a_restricted_key_reads_what_it_may(own: Caller) -> None:
    """The refusal names the missing permission and the account."""
    for table, permission in PERMISSIONS.items():
        key = own.box.restrict(permissions=set(PERMISSIONS.values()) - {permission})
        assert key.startswith("rk_test_")
        with closing(Caller(own.box, own.url, key)) as caller:
            for other, needed in PERMISSIONS.items():
                if needed != permission:
                    assert caller.get(f"/v1/{other}?limit=1")["object"] == "list"
            with pytest.raises(stripe.PermissionError) as error:
                getattr(caller.stripe.v1, table).list()
            assert error.value.http_status == 403
            assert f"'{permission}'" in str(error.value)
            assert f"on account '{own.box.account_id}'" in str(error.value)
            assert key not in str(error.value)


def test_permissions_of_sub_lists_and_expansions(own: Caller) -> None:
    key = own.box.restrict(permissions={"rak_invoice_read"})
    invoice = next(iter(own.box.objects("invoices")))
    with closing(Caller(own.box, own.url, key)) as caller:
        assert caller.get(f"/v1/invoices/{invoice}/lines")["object"] == "list"
        assert (
            "rak_customer_read" in caller.error("/v1/invoices?expand[]=data.customer")[1]["message"]
        )
        assert (
            "rak_subscription_read"
            in caller.error("/v1/subscription_items?subscription=x")[1]["message"]
        )
        assert "rak_event_read" in caller.error("/v1/events")[1]["message"]


def test_the_account_is_there_for_restricted_keys_unless_told_otherwise(own: Caller) -> None:
    key = own.box.restrict(permissions=())
    with closing(Caller(own.box, own.url, key)) as caller:
        account = caller.stripe.v1.accounts.retrieve_current()
        assert (account.id, account.created) == (own.box.account_id, own.box.account.start)
        own.box.account_needs_permission = True
        assert "rak_accounts_kyc_basic_read" in caller.error("/v1/account")[1]["message"]


def test_no_events_yet(own: Caller) -> None:
    assert own.stripe.v1.events.list({"types": ["customer.created"]}).data == []


def test_headers(own: Caller) -> None:
    """`Date` is the sandbox's own clock, `Stripe-Version` what was asked for."""
    answer = own.raw("/v1/customers", Stripe_Version="2026-09-30.endive")
    date = parsedate_to_datetime(answer.headers["Date"])

    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Request-Id"].startswith("req_")
    assert answer.headers["Stripe-Version"] == "2026-09-30.endive"
    assert own.raw("/v1/customers").headers["Stripe-Version"] == "2026-10-28.endive"
    assert own.raw("/v1/customers", Stripe_Version="newest").status == 400
    assert int(date.timestamp()) == own.box.now == 1_780_000_000
    own.box.advance(90)
    assert (
        parsedate_to_datetime(own.raw("/v1/customers").headers["Date"]).timestamp()
        - date.timestamp()
        == 90
    )


def test_errors_look_like_stripes(own: Caller) -> None:
    answer = own.raw("/v1/customers/cus_unknown")
    error = answer.json()["error"]

    assert list(answer.json()) == ["error"]
    assert error == {
        "code": "resource_missing",
        "doc_url": "https://stripe.com/docs/error-codes/resource-missing",
        "message": "No such customer: 'cus_unknown'",
        "param": "id",
        "request_log_url": f"https://dashboard.stripe.com/test/logs/{answer.headers['Request-Id']}?t={own.box.now}",
        "type": "invalid_request_error",
    }


# Changes through time


def test_what_changes_shows_at_once(own: Caller) -> None:
    box = own.box
    made = box.create("customers", name="Ada", email="ada@example.com")
    box.advance(5)
    box.update("customers", made["id"], name="Ada L.")

    assert made["created"] == 1_780_000_000
    assert own.get("/v1/customers?limit=1")["data"] == [made | {"name": "Ada L."}]
    assert box.objects("customers")[made["id"]]["name"] == "Ada L."


@pytest.mark.parametrize("table", TABLES)
def test_each_resource_is_created_and_updated(own: Caller, table: str) -> None:
    made = own.box.create(table)
    changed = own.box.update(table, made["id"], metadata={"a": "b"})

    assert (made["object"], changed["metadata"]) == (table[:-1], {"a": "b"})
    assert own.get(f"/v1/{table}/{made['id']}") == changed == own.box.objects(table)[made["id"]]
    assert own.ids(f"/v1/{table}")[0] == made["id"]


def test_items_and_lines_are_given_as_lists(own: Caller) -> None:
    """Partial ones are filled; a number makes as many; a known id keeps its fields."""
    box = own.box
    price = box.create("prices", unit_amount=700, currency="eur", recurring={"interval": "year"})
    items = [{"price": price["id"], "quantity": 3}, {"price_data": {"unit_amount": 5}}]
    made = box.create("subscriptions", items=items)
    kept = made["items"]["data"][0]
    items = [{"id": kept["id"], "quantity": 4}, *({} for _ in range(11))]
    changed = box.update("subscriptions", made["id"], items=items)
    invoice = box.create("invoices", lines=[{"amount": 10}, {"amount": 32}])

    assert [item["price"]["unit_amount"] for item in made["items"]["data"]] == [700, 5]
    assert kept["plan"]["interval"] == "year"
    assert changed["items"]["data"][0] == kept | {"quantity": 4}
    assert (len(changed["items"]["data"]), changed["items"]["has_more"]) == (10, True)
    assert len(own.ids(changed["items"]["url"])) == 12
    assert (invoice["subtotal"], invoice["total"], invoice["amount_due"]) == (42, 42, 42)
    assert box.update("invoices", invoice["id"], lines=12)["lines"]["total_count"] == 12
    assert box.update("invoices", invoice["id"], lines=[])["total"] == 0
    assert [
        line
        for line in box.children("invoice_line_items").values()
        if line["invoice"] == invoice["id"]
    ] == []


def test_an_update_keeps_the_children_beyond_ten(own: Caller) -> None:
    made = own.box.create("invoices", lines=25)
    own.box.update("invoices", made["id"], metadata={"a": "b"})

    assert len(own.ids(f"/v1/invoices/{made['id']}/lines")) == 25
    assert own.get(f"/v1/invoices/{made['id']}")["lines"] == made["lines"]


def test_an_invoice_goes_its_way(own: Caller) -> None:
    draft = own.box.create("invoices", lines=[{"amount": 500}])
    own.box.advance(60)
    opened = own.box.update("invoices", draft["id"], status="open")
    own.box.advance(60)
    paid = own.box.update("invoices", draft["id"], status="paid")

    assert (draft["number"], draft["hosted_invoice_url"], draft["auto_advance"]) == (
        None,
        None,
        True,
    )
    assert (opened["amount_due"], opened["amount_remaining"], opened["status"]) == (
        500,
        500,
        "open",
    )
    assert (paid["number"], paid["hosted_invoice_url"]) == (
        opened["number"],
        opened["hosted_invoice_url"],
    )
    assert (paid["amount_paid"], paid["amount_remaining"], paid["attempted"]) == (500, 0, True)
    assert (
        paid["status_transitions"]["finalized_at"] == opened["status_transitions"]["finalized_at"]
    )
    assert paid["status_transitions"]["paid_at"] == own.box.now


def test_what_stripe_does_not_delete(own: Caller) -> None:
    box = own.box
    invoice, price = box.create("invoices", status="open"), box.create("prices")

    with pytest.raises(ValueError, match="only drafts"):
        box.delete("invoices", invoice["id"])
    with pytest.raises(ValueError, match="has prices"):
        box.delete("products", price["product"])
    with pytest.raises(KeyError):
        box.delete("customers", "cus_unknown")
    with pytest.raises(ValueError, match="no such table"):
        box.create("gift_cards")


def test_a_deleted_plan_is_a_deleted_price_and_may_come_again(own: Caller) -> None:
    box = own.box
    box.create("plans", id="gold.v1", amount=100, currency="usd", interval="month")
    box.delete("plans", "gold.v1")

    assert own.error("/v1/prices/gold.v1")[0] == own.error("/v1/plans/gold.v1")[0] == 404
    assert set(box.deleted("plans")) == set(box.deleted("prices")) == {"gold.v1"}
    again = box.create("plans", id="gold.v1", amount=200, currency="usd", interval="month")
    assert (
        again["amount"],
        box.objects("prices")["gold.v1"]["unit_amount"],
        box.deleted("prices"),
    ) == (200, 200, {})
    with pytest.raises(ValueError, match="already"):
        box.create("plans", id="gold.v1", amount=1, currency="usd", interval="month")


def test_an_archived_price_leaves_the_default_list(own: Caller) -> None:
    made = own.box.create("prices", recurring={"interval": "month"})
    own.box.update("prices", made["id"], active=False)

    assert made["id"] not in own.ids("/v1/prices")
    assert made["id"] in own.ids("/v1/prices?active=false")
    assert own.get(f"/v1/plans/{made['id']}")["active"] is False


def test_items_show_a_price_as_it_is_now(own: Caller) -> None:
    """Also one that is new since the first change of a price, and those beyond the ten; no event of
    theirs tells of it.
    """
    made = own.box.create("prices", recurring={"interval": "month"}, active=True)
    old = own.box.create("subscriptions", items=[{"price": made["id"]}])
    own.box.update("prices", made["id"], nickname="first")
    young = own.box.create("subscriptions", items=[{}] * 11 + [{"price": made["id"]}])
    happened = len(own.box.account.event_log.records)
    own.box.update("plans", made["id"], metadata={"a": "b"})

    price, plan = own.get(f"/v1/prices/{made['id']}"), own.get(f"/v1/plans/{made['id']}")
    assert (price["nickname"], plan["nickname"], price["metadata"], plan["metadata"]) == (
        "first",
        "first",
        *[{"a": "b"}] * 2,
    )
    shown = own.get(f"/v1/subscriptions/{old['id']}")["items"]["data"][0]
    last = own.all(f"/v1/subscription_items?subscription={young['id']}")[-1]
    assert [(item["price"], item["plan"]) for item in (shown, last)] == [(price, plan)] * 2
    assert [event.table for event in own.box.account.event_log.records[happened:]] == [
        "plans",
        "prices",
    ]


def test_observers_see_every_change(own: Caller) -> None:
    """A price tells as plan too; a canceled subscription has Stripe's `deleted` event; that of a
    lost customer too.
    """
    box = own.box
    seen: list[Mutation] = []
    box.observers.append(seen.append)
    customer = box.create("customers")
    subscription = box.create("subscriptions", customer=customer["id"])
    price = box.create("prices", recurring={"interval": "month"})
    box.update("plans", price["id"], nickname="New")
    box.delete("customers", customer["id"])

    assert [(one.operation, one.table, one.id, one.events) for one in seen] == [
        ("created", "customers", customer["id"], ("customer.created",)),
        ("created", "subscriptions", subscription["id"], ("customer.subscription.created",)),
        ("created", "plans", price["id"], ("plan.created",)),
        ("created", "prices", price["id"], ("price.created",)),
        ("updated", "plans", price["id"], ("plan.updated",)),
        ("updated", "prices", price["id"], ("price.updated",)),
        ("canceled", "subscriptions", subscription["id"], ("customer.subscription.deleted",)),
        ("deleted", "customers", customer["id"], ("customer.deleted",)),
    ]
    assert (seen[0].before, seen[0].after) == (None, customer)
    assert (seen[5].before, seen[5].after) == (price, price | {"nickname": "New"})
    assert (seen[7].before, seen[7].after) == (customer, None)
    assert own.get(f"/v1/subscriptions/{subscription['id']}")["status"] == "canceled"
    assert own.get(f"/v1/subscriptions/{subscription['id']}")["canceled_at"] == box.now


def test_planted_bytes_stay_the_same_bytes(own: Caller) -> None:
    raw = b'{ "object":"customer","id":"cus_planted",\n "created": 1680893993, "x": 1.50, "name":"J\\u00f6rg", '
    raw += b'"balance": 1e2 }'
    own.box.put("customers", raw)
    own.box.put(
        "prices", {"id": "p", "object": "price", "created": 5, "active": True, "recurring": None}
    )

    assert raw in own.raw("/v1/customers?created=1680893993").data
    assert own.raw("/v1/customers/cus_planted").data == raw
    assert own.get("/v1/prices/p") == own.box.objects("prices")["p"]
    assert (
        b'"x":1.50,"name":"J\\u00f6rg","balance":1e2,'
        in own.raw("/v1/customers/cus_planted?expand[]=tax_ids").data
    )


def test_a_life_is_deterministic_and_the_lists_follow_it() -> None:
    one, other = Sandbox(seed=9, customers=60), Sandbox(seed=9, customers=60)
    done = one.live(86_400, 400)

    assert done == other.live(86_400, 400)
    assert [one.objects(table) for table in TABLES] == [other.objects(table) for table in TABLES]
    assert one.now == 1_780_000_000 + 86_400
    assert len(done) == 400
    assert {(what, table) for what, table, _ in done} >= {
        ("created", "customers"), ("updated", "customers"), ("deleted", "customers"), ("created", "subscriptions"),
        ("updated", "subscriptions"), ("canceled", "subscriptions"), ("created", "invoices"), ("updated", "invoices"),
        ("created", "products"), ("created", "prices"), ("updated", "prices"),
    }  # fmt: skip
    with calling(one) as caller:
        listed = {found["id"]: found for found in caller.all("/v1/subscriptions?status=all")}
        assert listed == one.objects("subscriptions")
        assert {found["id"]: found for found in caller.all("/v1/customers")} == one.objects(
            "customers"
        )


def test_the_account_may_change_while_it_is_read(own: Caller) -> None:
    ids = own.ids("/v1/customers")

    def delete_the_cursor(template: str, params: Object) -> None:
        if params.get("starting_after") == ids[4]:
            own.box.delete("customers", ids[4])

    own.box.on_request = delete_the_cursor
    assert own.error(f"/v1/customers?starting_after={ids[4]}")[1]["code"] == "resource_missing"


def test_a_mistake_of_the_hook_is_not_swallowed() -> None:
    box = Sandbox(customers=1, oddities=False)

    def fail(template: str, params: Object) -> None:
        raise ZeroDivisionError

    box.on_request = fail
    with pytest.raises(ZeroDivisionError), calling(box) as caller:
        assert caller.raw("/v1/customers").status == 500


def test_requests_are_counted(own: Caller) -> None:
    own.box.reset_counts()
    own.get("/v1/customers?limit=1&expand[]=data.tax")
    own.error("/v1/invoices/in_1/lines")

    assert own.box.counts == {("/v1/customers", 200): 1, ("/v1/invoices/:id/lines", 404): 1}
    assert [tuple(call) for call in own.box.log] == [
        ("GET", "/v1/customers", {"limit": "1", "expand": ["data.tax"]}, 200),
        ("GET", "/v1/invoices/:id/lines", {}, 404),
    ]
    assert own.box.cpu_seconds > 0


# Faults


def test_rate_limits_per_endpoint_and_for_all(own: Caller) -> None:
    """Buckets of one second's depth; an endpoint is a path template, whatever the id. A refusal
    costs no token.
    """
    faults, at = own.box.faults, [100.0]
    faults.clock = lambda: at[0]
    faults.endpoint_rate, faults.rate = 3, 5
    first, second, *_ = own.box.objects("customers")

    def outcomes(*paths: str) -> list[str]:
        answers = [own.raw(path) for path in paths]
        assert all(
            answer.json()["error"]["code"] == "rate_limit"
            for answer in answers
            if answer.status == 429
        )
        return [
            answer.headers.get("Stripe-Rate-Limited-Reason", str(answer.status))
            for answer in answers
        ]

    listing, one, other = "/v1/customers", f"/v1/customers/{first}", f"/v1/customers/{second}"
    assert outcomes(*[listing] * 5) == ["200", "200", "200", "endpoint-rate", "endpoint-rate"]
    assert outcomes(one, other, one, "/v1/products") == ["200", "200", "global-rate", "global-rate"]
    at[0] += 0.2
    assert outcomes("/v1/products", "/v1/products") == ["200", "global-rate"]
    at[0] += 60
    faults.rate = None
    assert outcomes(one, other, one, other) == ["200", "200", "200", "endpoint-rate"]
    faults.rates = {"/v1/customers": 1}
    assert outcomes(listing, listing, "/v1/products") == ["200", "endpoint-rate", "200"]


def test_the_sdk_sees_429_as_a_rate_limit(own: Caller) -> None:
    own.box.faults.always = {"/v1/invoices": 429}

    with pytest.raises(stripe.RateLimitError) as error:
        own.stripe.v1.invoices.list()
    assert error.value.headers is not None
    assert error.value.headers["Stripe-Should-Retry"] == "false"


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [(500, 500, "api_error"), ("lock_timeout", 429, "lock_timeout"), (503, 503, "api_error")],
)
def test_errors_on_request(own: Caller, fault: Any, status: int, said: str) -> None:
    own.box.faults.always = {"/v1/invoices": fault}
    found, error = own.error("/v1/invoices")

    assert (found, error.get("code", error["type"])) == (status, said)
    assert own.raw("/v1/customers").status == 200


def test_broken_answers_on_request(own: Caller) -> None:
    """A reset sends nothing, a truncated body ends early, a malformed one comes whole and is no
    JSON.
    """
    own.box.faults.always = {"/v1/invoices": "reset"}
    with pytest.raises(urllib3.exceptions.ProtocolError):
        own.raw("/v1/invoices")
    own.box.faults.always = {"/v1/invoices": "truncate"}
    with pytest.raises(urllib3.exceptions.ProtocolError, match="IncompleteRead"):
        own.raw("/v1/invoices")
    own.box.faults.always = {"/v1/invoices": "malformed"}
    for _ in range(20):
        answer = own.raw("/v1/invoices")
        assert answer.status == 200
        with pytest.raises(json.JSONDecodeError):
            json.loads(answer.data)


def asked(box: Sandbox, path: str = "/v1/products") -> Request:
    return Request("GET", path, {"authorization": f"Bearer {box.key}"}, b"")


def test_faults_are_deterministic_and_as_frequent_as_asked_for() -> None:
    box = Sandbox(customers=1, oddities=False)

    def outcomes() -> Counter[str]:
        answers = [box.answer(asked(box)) for _ in range(2000)]
        return Counter(answer.fate or str(answer.status) for answer in answers)

    box.faults.error_500, box.faults.reset, box.faults.truncate, box.faults.malformed = (
        0.05,
        0.02,
        0.01,
        0.01,
    )
    first = outcomes()
    box.faults.seed = 2
    second = outcomes()
    box.faults.seed = 1
    box.faults.rng()

    assert outcomes() == first != second
    assert 70 < first["500"] < 130
    assert 20 < first["reset"] < 60
    assert first["truncate"] and first["malformed"]


def test_latency_with_jitter() -> None:
    box = Sandbox(customers=1, oddities=False)
    box.faults.latency, box.faults.jitter = 0.08, 0.02
    delays = [box.answer(asked(box)).delay for _ in range(200)]

    assert 0.06 <= min(delays) < 0.065
    assert 0.095 < max(delays) <= 0.1


def test_latency_does_not_add_up_over_connections(own: Caller) -> None:
    own.box.faults.latency = 0.1
    began = time.monotonic()
    sockets = [connected(own.url) for _ in range(20)]
    for one in sockets:
        one.sendall(wire(own, "/v1/products?limit=1"))
    for one in sockets:
        assert one.recv(100).startswith(b"HTTP/1.1 200 OK")
        one.close()

    assert 0.1 <= time.monotonic() - began < 1


def test_short_pages_still_say_that_there_is_more(own: Caller) -> None:
    own.box.faults.short = 1.0
    page = own.get("/v1/customers?limit=10")

    assert (len(page["data"]), page["has_more"]) == (6, True)
    assert set(own.ids("/v1/customers")) == set(own.box.objects("customers"))


# The wire


def connected(url: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))


def wire(caller: Caller, path: str, *more: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {caller.key}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_all(one: socket.socket) -> bytes:
    found = b""
    while more := one.recv(65_536):
        found += more
    return found


@pytest.mark.parametrize("latency", [0.0, 0.01])
def test_requests_may_come_in_pieces_or_several_at_once(own: Caller, latency: float) -> None:
    """They are answered in their order, on one connection."""
    own.box.faults.latency = own.box.faults.jitter = latency
    account, none = wire(own, "/v1/account"), wire(own, "/v1/products/none")
    with connected(own.url) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(0, len(account), 7):
            one.sendall(account[place : place + 7])
        one.sendall((account + none) * 4 + wire(own, "/v1/account", "Connection: close"))
        answers = read_all(one).split(b"HTTP/1.1 ")[1:]

    assert [answer[:3] for answer in answers] == [b"200", *[b"200", b"404"] * 4, b"200"]
    assert b"Connection: close" in answers[-1]


def test_nonsense_closes_the_connection(own: Caller) -> None:
    for sent in (b"nonsense\r\n\r\n", b"x" * 70_000):
        with connected(own.url) as one:
            one.sendall(sent)
            assert read_all(one) == b""


def test_basic_authentication_works_too(own: Caller) -> None:
    headers = urllib3.make_headers(basic_auth=f"{own.key}:")

    assert own.pool.request("GET", f"{own.url}/v1/customers", headers=headers).status == 200


def test_gzip_is_for_those_who_ask_where_it_is_on(own: Caller) -> None:
    plain = own.raw("/v1/customers", Accept_Encoding="gzip")
    own.box.account.gzip = True
    packed = own.raw("/v1/customers", Accept_Encoding="gzip, deflate")

    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < len(plain.data) / 2
    assert packed.data == plain.data
    assert "Content-Encoding" not in own.raw("/v1/customers", Accept_Encoding="identity").headers


def test_indented_bodies_nest_as_in_life(own: Caller) -> None:
    """The same object is indented deeper inside a list."""
    own.box.account.indent = True
    id = own.ids("/v1/customers")[0]
    alone, inside = (
        own.raw(f"/v1/customers/{id}").data.decode(),
        own.raw("/v1/customers?limit=1").data.decode(),
    )

    assert alone.startswith('{\n  "id": "')
    assert inside.startswith('{\n  "object": "list",\n  "data": [\n    {\n      "id": "')
    assert json.loads(alone) == json.loads(inside)["data"][0] == own.box.objects("customers")[id]


# A process of its own


@contextmanager
def process(*flags: str) -> Iterator[tuple[subprocess.Popen[bytes], Object]]:
    command = [sys.executable, "-m", "stripe_feed.sandbox", *flags]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as running:
        assert running.stdout is not None
        try:
            yield running, json.loads(running.stdout.readline())
        finally:
            running.kill()


def test_a_process_is_controlled_over_http() -> None:
    flags = [
        "--seed",
        "4",
        "--customers",
        "30",
        "--no-oddities",
        "--fixed-clock",
        "--now",
        "1790000000",
    ]
    twin = Sandbox(seed=4, customers=30, oddities=False, now=1_790_000_000)
    with (
        process(*flags, "--exit-with-parent") as (running, line),
        urllib3.PoolManager(retries=False) as pool,
    ):
        url = line["url"]

        def control(method: str, path: str, **given: Any) -> Any:
            body = json.dumps(given) if method == "POST" else None
            answer = pool.request(method, f"{url}/_sandbox/{path}", body=body)
            assert answer.status == 200, answer.data
            return answer.json()

        def status(path: str) -> int:
            return pool.request(
                "GET", url + path, headers={"Authorization": f"Bearer {line['key']}"}
            ).status

        assert line == {"url": url, "key": twin.key, "account": twin.account_id, "pid": running.pid}
        assert control("GET", "account")["now"] == twin.now
        assert control("POST", "live", seconds=3600, changes=20) == [
            list(deed) for deed in twin.live(3600, 20)
        ]
        for table in TABLES:
            assert control("GET", f"truth/{table}") == twin.objects(table)
        assert control("GET", "truth/invoice_line_items") == twin.children("invoice_line_items")
        made = control("POST", "create", table="customers", name="A")
        assert control("POST", "update", table="customers", id=made["id"], name="B")["name"] == "B"
        control("POST", "delete", table="customers", id=made["id"])
        assert list(control("GET", "deleted/customers"))[-1] == made["id"]
        subscription = control("POST", "create", table="subscriptions")["id"]
        assert control("POST", "cancel", id=subscription)["status"] == "canceled"
        assert control("POST", "restrict", permissions=["rak_customer_read"])["key"].startswith(
            "rk_test_"
        )
        assert control("POST", "advance", seconds=5)["now"] == twin.now + 5
        control("POST", "faults", always={"/v1/customers": 500})
        assert [status("/v1/customers"), status("/v1/invoices")] == [500, 200]
        stats = control("GET", "stats")
        assert {(one["template"], one["status"]): one["count"] for one in stats["counts"]} == {
            ("/v1/customers", 500): 1, ("/v1/invoices", 200): 1
        }  # fmt: skip
        assert 0 < stats["cpu_seconds"] < 5
        control("POST", "reset_counts")
        assert control("GET", "stats")["counts"] == []
        assert pool.request("POST", f"{url}/_sandbox/faults", body=b'{"nonsense": 1}').status == 400
        assert running.stdin is not None
        running.stdin.close()
        assert running.wait(10) == 0


def test_a_process_ends_at_sigterm_and_its_clock_ticks() -> None:
    with process("--customers", "1", "--no-oddities", "--rate", "7", "--latency", "0.001") as (
        running,
        line,
    ):
        with urllib3.PoolManager(retries=False) as pool:
            now = pool.request("GET", line["url"] + "/_sandbox/account").json()["now"]
            faults = pool.request("POST", line["url"] + "/_sandbox/faults", body=b"{}").json()
        assert 1_780_000_000 <= now < 1_780_000_600
        assert (faults["rate"], faults["latency"]) == (7, 0.001)
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0
