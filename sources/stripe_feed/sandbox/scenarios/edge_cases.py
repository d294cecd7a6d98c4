"""Edge cases of real accounts that random samples lack: created in the account's past, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from ..samples import customers
from ..samples.account import test_clock
from ..samples.values import Object, decode
from ..state import mutations
from ..state.account import Account
from ..state.kinds import KINDS
from .seed_data import Sizes

MIN_CUSTOMERS = 100
"""Smaller accounts get no edge cases."""

MAX_SAFE_INTEGER = 2**53
DIFFICULT_NAMES = (
    "Zoë 🚲 Fahrräder & Söhne 👩🏽‍🔧",
    "شركة الدراجات الحديثة",
    "רוכבים בע״מ",
    "e\u0301te\u0301 a\u0300 la plage",
    "Z\u0351\u036b\u0343a\u0300\u0312lgo\u0488 Inc.",
    "株式会社サンドボックス自転車販売",
    "Robert'); DROP TABLE customers;--",
    'tab\there "quoted" back\\slash \u2028 line separator',
    "very long " * 50,
    "\u202edesrever\u202c",
)
DIFFICULT_METADATA: tuple[dict[str, str], ...] = (
    {"": "empty key", "empty": ""},
    {"a.b.c": "dots", 'quo"te': "quote", "sla/sh": "slash", "back\\slash": "b"},
    {
        "$ref": "dollar",
        "__class__": "dunder",
        "__proto__": "proto",
        "id": "not the id",
        "object": "not the object",
    },
    {"schlüssel 🔑": "unicode", "nul\u0001l": "control\u001f character", " leading": " "},
    {f"key_{n:02d}": f"value {n}" for n in range(50)},
    {"json": '{"a": [1, 2, {"b": null}]}', "true": "true", "1": "1", "null": "null"},
)
UNKNOWN_FIELDS: Object = {
    "frobnication": {"level": 3, "tags": ["a", None], "deep": {"er": 1.5}},
    "loyalty_points": 9007199254740993,
    "is_beta": True,
    "beta_note": "from the future",
    "beta_null": None,
}
"""Fields that no documented API version has."""


def add_edge_cases(account: Account, sizes: Sizes) -> None:
    """Add every edge case to an account that is large enough."""
    if sizes.customers < MIN_CUSTOMERS:
        return
    _customers(account)
    _catalog(account)
    if sizes.subscriptions:
        _subscriptions(account)
    if sizes.invoices:
        _invoices(account)
    if not account.livemode:
        _clocks(account, sizes)
    for table in ("customers", "invoices", "subscriptions", "products"):
        account.other_mode[table] = account.rng.id(KINDS[table].prefix)


def _past_time(account: Account) -> int:
    return account.start + int(account.rng.random() * (account.now - account.start - 90_000))


def _customers(account: Account) -> None:
    def add(**fields: Any) -> Object:
        return mutations.create(account, "customers", {"created": _past_time(account)} | fields)

    for name in DIFFICULT_NAMES:
        add(name=name, description=name[::-1])
    for metadata in DIFFICULT_METADATA:
        add(metadata=metadata)
    add(balance=MAX_SAFE_INTEGER + 1, currency="eur")
    add(balance=-MAX_SAFE_INTEGER - 1, currency="jpy", metadata={})
    add(currency="kwd", balance=-12_345)
    for count in (11, 12, 130):
        add(tax_ids=count)
    add(sources=23)
    _bare_customer(account)
    add(
        **UNKNOWN_FIELDS,
        shipping={"address": None, "name": "Nested", "carrier": {"speed": "slow", "stops": [1, 2]}},
    )
    add(created=account.start - 200 * 86_400)
    add(created=account.start - 4000 * 86_400, name="Imported long ago")
    add(created=None, name="Older than time")
    add(created=account.now + 3 * 86_400, name="From the future")
    for _ in range(max(4, len(account.tables["customers"].rows) // 50)):
        account.remove("customers", add()["id"])


def _bare_customer(account: Account) -> None:
    """Add a customer without its null fields, as old objects are."""
    drawn = customers.customer(account.rng, _past_time(account))
    needed = ("id", "object", "created", "livemode", "metadata", "email")
    mutations.put(account, "customers", {name: drawn[name] for name in needed} | {"name": None})


def _catalog(account: Account) -> None:
    def add(table: str, **fields: Any) -> Object:
        return mutations.create(account, table, {"created": _past_time(account)} | fields)

    for id in ("gold.v2", "Basic_Plan-2019", "größe:xl", "50%&more=+1", "a" * 200):
        product = add("products", id=f"p:{id}", name=f"Product {id}")["id"]
        add(
            "plans",
            id=id,
            product=product,
            amount=1500,
            currency="eur",
            interval="month",
            nickname=id,
        )
    product = add(
        "products",
        **UNKNOWN_FIELDS,
        name="Ünïcödé 🚀",
        marketing_features=[{"name": "✓ all", "x": 1}],
    )["id"]
    cycle = {"interval": "month"}
    add(
        "prices",
        **UNKNOWN_FIELDS,
        product=product,
        unit_amount=100,
        currency="usd",
        recurring=cycle,
    )
    add("prices", product=product, currency="jpy", unit_amount=980, recurring=cycle)
    add("prices", product=product, currency="kwd", unit_amount=12_340, recurring=cycle)
    for decimal in ("0.000000000001", "123456789012.123456789012"):
        add(
            "prices",
            product=product,
            currency="usd",
            unit_amount=None,
            unit_amount_decimal=decimal,
            recurring=cycle,
        )
    add("prices", product=product, currency="usd", unit_amount=MAX_SAFE_INTEGER + 1, recurring=None)
    add("prices", product=product, currency="usd", unit_amount=100, recurring=cycle, active=False)
    tiered = {
        "billing_scheme": "tiered",
        "tiers_mode": "volume",
        "unit_amount": None,
        "unit_amount_decimal": None,
    }
    add("prices", product=product, currency="eur", recurring=cycle, **tiered)
    plan = add("plans", product=product, amount=100, currency="usd", interval="year")
    mutations.delete(account, "plans", plan["id"])
    mutations.delete(account, "products", add("products", name="Never sold")["id"])


def _subscriptions(account: Account) -> None:
    def add(**fields: Any) -> Object:
        return mutations.create(account, "subscriptions", {"created": _past_time(account)} | fields)

    for count in (10, 11, 20, 120):
        add(items=count)
    add(**UNKNOWN_FIELDS, items=[{"unknown_to_all": {"a": 1}, "unknown_flag": False}])
    add(status="incomplete_expired")
    add(status="paused")
    add(
        items=[
            {"price_data": {"unit_amount": 4200, "nickname": "For you 💎"}},
            {"price_data": {"unit_amount": 1}},
        ]
    )
    add(
        items=[
            {
                "price_data": {
                    "unit_amount": None,
                    "unit_amount_decimal": "0.123456789012",
                    "currency": "usd",
                }
            }
        ]
    )
    mutations.cancel(account, add()["id"])
    running = mutations.create(account, "customers", {"created": _past_time(account)})["id"]
    add(customer=running)
    mutations.delete(account, "customers", running)


def _invoices(account: Account) -> None:
    def add(**fields: Any) -> Object:
        return mutations.create(account, "invoices", {"created": _past_time(account)} | fields)

    for count in (0, 10, 11, 12, 45, 130, 250):
        add(lines=count, status="paid")
    add(lines=[{"amount": MAX_SAFE_INTEGER + 1}, {"amount": -5}], status="open", currency="jpy")
    add(lines=[{"amount": -9_900, "description": "Credit ✂"}], status="paid", currency="kwd")
    bare = {"taxes": None, "pricing": None, "parent": None}
    add(lines=[{"quantity": None, "quantity_decimal": "0.000000000001"} | bare])
    add(
        **UNKNOWN_FIELDS, lines=[{"unknown_to_all": [{"a": 1}], "unknown_name": "x"}], status="paid"
    )
    add(status="draft", customer=None, metadata=DIFFICULT_METADATA[2])
    add(status="uncollectible")
    mutations.delete(account, "invoices", add(status="draft")["id"])


def _clocks(account: Account, sizes: Sizes) -> None:
    for days in (30, 400):
        clock = test_clock(account.rng, account.now - 86_400 * 20, account.now + days * 86_400)
        account.clocks[clock["id"]] = clock
        for _ in range(2):
            fields = {"created": clock["frozen_time"] - 40 * 86_400, "test_clock": clock["id"]}
            customer = mutations.create(account, "customers", fields)["id"]
            on_clock = {"created": fields["created"] + 3600, "customer": customer}
            if sizes.subscriptions:
                mutations.create(account, "subscriptions", on_clock)
            if sizes.invoices:
                mutations.create(account, "invoices", on_clock | {"status": "paid"})


def count_edge_cases(account: Account) -> dict[str, int]:
    """Count the objects of each edge case in the present state."""
    counts: Counter[str] = Counter({name: 0 for _, name, _ in EDGE_CASES})
    for table in (*account.tables, "subscription_items", "invoice_line_items"):
        for content in _contents(account, table):
            for of_table, name, is_odd in EDGE_CASES:
                if of_table in (table, "") and is_odd(content):
                    counts[name] += 1
    for table, deleted in account.deleted.items():
        if deleted or account.tables[table].rows:
            counts[f"deleted_{table}"] = len(deleted)
    counts["deleted_with_subscriptions"] = len(_subscriptions_of_deleted(account))
    counts["inline_prices"] = len(account.inline_prices)
    counts["archived_prices"] = sum(
        row.group == "archived" for row in account.tables["prices"].rows.values()
    )
    counts["long_invoices"] = sum(
        id in account.tables["invoices"].rows for id in account.all_children
    )
    counts["long_subscriptions"] = sum(
        id in account.tables["subscriptions"].rows for id in account.all_children
    )
    counts["burst"] = max(
        Counter(row.created for row in account.tables["customers"].rows.values()).values(),
        default=0,
    )
    created = [row.created for row in account.tables["customers"].rows.values()]
    counts["imported"] = sum(at is not None and at < account.start for at in created)
    counts["future_created"] = sum(at is not None and at > account.now for at in created)
    counts["many_tax_ids"] = sum(
        isinstance(given.get("tax_ids"), int) for given in account.opt_in_values.values()
    )
    return dict(counts)


def _contents(account: Account, table: str) -> Iterator[Object]:
    if table in account.tables:
        yield from (row.content() for row in account.tables[table].rows.values())
    else:
        yield from (decode(raw) for _, raw in account.objects(table))


def _subscriptions_of_deleted(account: Account) -> list[str]:
    deleted = account.deleted["customers"]
    subscriptions = _contents(account, "subscriptions")
    return [
        subscription["id"] for subscription in subscriptions if subscription["customer"] in deleted
    ]


def _has_value(*path: str) -> Callable[[Object], bool]:
    def holds(content: Object) -> bool:
        return any(content.get(name) for name in path)

    return holds


def _has_twelve_decimals(content: Object) -> bool:
    decimals = (content.get(name) for name in ("unit_amount_decimal", "quantity_decimal"))
    return any(
        isinstance(decimal, str) and len(decimal.partition(".")[2]) == 12 for decimal in decimals
    )


def _has_difficult_keys(content: Object) -> bool:
    return any(
        not key.replace("_", "a").isalnum() or key.startswith("__")
        for key in content.get("metadata") or ()
    )


def _has_big_integer(content: Object) -> bool:
    return any(
        isinstance(value, int) and abs(value) > MAX_SAFE_INTEGER for value in content.values()
    )


def _has_unicode(content: Object) -> bool:
    return any(isinstance(value, str) and not value.isascii() for value in content.values())


EDGE_CASES: tuple[tuple[str, str, Callable[[Object], bool]], ...] = (
    ("", "nulls", lambda content: None in content.values()),
    ("", "unicode", _has_unicode),
    ("", "odd_metadata_keys", _has_difficult_keys),
    ("", "empty_metadata_values", lambda content: "" in (content.get("metadata") or {}).values()),
    ("", "fifty_metadata_keys", lambda content: len(content.get("metadata") or {}) == 50),
    ("", "beyond_2_53", _has_big_integer),
    ("", "zero_decimal", lambda content: content.get("currency") == "jpy"),
    ("", "three_decimal", lambda content: content.get("currency") == "kwd"),
    ("", "twelve_digits", _has_twelve_decimals),
    ("", "unknown_fields", _has_value("frobnication", "unknown_to_all")),
    ("customers", "long_names", lambda content: len(content.get("name") or "") > 300),
    ("customers", "absent_fields", lambda content: "balance" not in content),
    ("customers", "null_created", lambda content: content["created"] is None),
    ("customers", "clock_customers", _has_value("test_clock")),
    ("subscriptions", "clock_subscriptions", _has_value("test_clock")),
    ("invoices", "clock_invoices", _has_value("test_clock")),
    ("subscriptions", "canceled", lambda content: content["status"] == "canceled"),
    (
        "subscriptions",
        "incomplete_expired",
        lambda content: content["status"] == "incomplete_expired",
    ),
    ("invoices", "drafts", lambda content: content["status"] == "draft"),
    ("invoices", "empty_invoices", lambda content: not content["lines"]["data"]),
    ("invoices", "negative_totals", lambda content: content["total"] < 0),
    ("prices", "tiered", lambda content: content["billing_scheme"] == "tiered"),
    ("prices", "one_time", lambda content: content["recurring"] is None),
    ("plans", "chosen_ids", lambda content: not content["id"].startswith("price_")),
)
"""Table, name, and the test for one object; an empty table means all tables."""
