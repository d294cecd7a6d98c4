"""A plan of rows whose objects a fresh copy knows asks the copy, and says what Stripe would say; what a
push wrote is in the next copy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from stripe_feed import open_push, sync
from stripe_feed.api.client import Api
from stripe_feed.destination.read import open_reader
from stripe_feed.resources.writable import WRITABLE
from stripe_feed.sandbox import Sandbox
from stripe_feed.write.lookup.find import Lookup
from stripe_feed.write.push.matching import Matcher
from stripe_feed.write.push.report import plan_to_dict
from tests.pushing import FAST, Row

BY_EMAIL = {"object": "customers", "match": "email", "map": {"email": "email", "name": "name"}}
PLANS: dict[str, Row] = {
    "email": BY_EMAIL,
    "metadata": {"object": "customers", "match": "metadata.crm",
                 "map": {"metadata.crm": "crm", "name": "name", "address.city": "city"}},
    "id": {"object": "customers", "match": "id", "mode": "update",
           "map": {"id": "cus", "description": "name", "invoice_settings.footer": "city"}},
    "prices": {"object": "prices", "match": "lookup_key",
               "map": {"lookup_key": "lookup", "unit_amount": "amount", "currency": "currency",
                       "nickname": "name", "product": {"column": "product", "find": "products", "by": "metadata.sku"}}},
    "products": {"object": "products", "match": "id", "map": {"id": "prod", "name": "name", "metadata.n": "n"}},
    "invoices": {"object": "invoices", "match": "id", "mode": "update",
                 "map": {"id": "invoice", "metadata.n": "n", "description": "text"}},
    "quotes": {"object": "quotes", "match": None, "mode": "insert",
               "map": {"description": "name", "customer": {"column": "email", "find": "customers", "by": "email"}}},
}  # fmt: skip


class Account:
    """An account, and a copy of it that is fresh."""

    def __init__(self, box: Sandbox, url: str, folder: Path) -> None:
        self.box, self.url, self.folder = box, url, folder
        self.database = str(folder / "copy.duckdb")

    def sync(self, times: int = 1) -> None:
        self.box.advance(120)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STRIPE_API_BASE", self.url)
            for _ in range(times):
                sync(api_key=self.box.key, database=self.database, state_dir=str(self.folder),
                     resources=["core", "quotes", "invoice_items"], max_rps=5_000, endpoint_rps=5_000)  # fmt: skip

    def plan(self, rows: list[Row], definition: Row, log: Path, **options: Any) -> Row:
        """A plan as JSON has it, and how often Stripe was asked."""
        given = {"name": "p", "key": "n", **definition}
        with open_push(given, self.box.key, base=self.url, log=log, **FAST | options) as push:
            planned = plan_to_dict(push.plan(rows))
            planned["requests"] = sum(push.lookup.api.counts.values())
        return planned

    def rows(self) -> list[Row]:
        """Of each thing some that are as they were, some that change, and some that are new."""
        held = {table: list(self.box.objects(table).values())
                for table in ("customers", "products", "invoices")}  # fmt: skip
        rows = []
        for n in range(12):
            customer, product, invoice = (found[n % len(found)] for found in held.values())
            is_new = n % 4 == 3
            rows.append({
                "n": n, "email": f"new{n}@example.com" if is_new else f"C{n}@Example.com",
                "crm": f"{n + 100 * is_new}", "cus": customer["id"] if not is_new else f"cus_none{n}",
                "name": "Changed" if n % 4 == 1 else f"C {n}", "city": None if n % 2 else "Bonn",
                "lookup": f"k{n}", "amount": 100 + n % 2, "currency": "usd", "product": "S0",
                "prod": product["id"] if not is_new else f"new{n}",
                "invoice": invoice["id"] if not is_new else f"in_none{n}", "text": None,
            })  # fmt: skip
        return rows


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    box = Sandbox(seed=6, customers=12, oddities=False)
    for n, id in enumerate(box.objects("customers")):
        box.update(
            "customers", id, email=f"c{n}@example.com", name=f"C {n}", metadata={"crm": str(n)}
        )
    for n, id in enumerate(list(box.objects("products"))[:3]):
        box.update("products", id, metadata={"sku": f"S{n}"})
    product = next(iter(box.objects("products")))
    for n in range(0, 12, 2):
        box.create("prices", lookup_key=f"k{n}", unit_amount=100, currency="usd", product=product)
    with box.serve() as url:
        found = Account(box, url, tmp_path_factory.mktemp("planned"))
        found.sync(times=2)  # events follow the first lists
        yield found


@pytest.mark.parametrize("name", PLANS)
def test_a_fresh_copy_plans_what_stripe_would(account: Account, name: str, tmp_path: Path) -> None:
    rows = account.rows()
    ours = account.plan(rows, PLANS[name], tmp_path / "a.sqlite", database=account.database)
    if name == "email":  # Stripe's list knows the case in which it was written
        for row in rows:
            row["email"] = row["email"].lower()
        ours = account.plan(rows, PLANS[name], tmp_path / "a.sqlite", database=account.database)
    theirs = account.plan(rows, PLANS[name], tmp_path / "b.sqlite")
    assert ours.pop("requests") == 1 < theirs.pop("requests")  # whose key it is
    assert ours == theirs
    assert len({row["action"] for row in ours["rows"]}) > (name == "email") + (name != "quotes") - 1


def test_a_run_asks_stripe_though_a_fresh_copy_knows_better_or_nothing(
    account: Account, tmp_path: Path
) -> None:
    """Somebody created one, and deleted one, after the copy was read."""
    made = account.box.create("customers", email="just.made@example.com", name="Old")["id"]
    gone = next(
        one["id"] for one in account.box.objects("customers").values()
        if one["email"] == "c11@example.com"
    )  # fmt: skip
    account.box.delete("customers", gone)
    rows = [{"n": 1, "email": "just.made@example.com", "name": "New"},
            {"n": 2, "email": "C11@example.com", "name": "New"}]  # fmt: skip
    given = {"name": "late", "key": "n", **BY_EMAIL}
    with open_push(
        given, account.box.key, base=account.url, log=tmp_path / "late.sqlite",
        database=account.database, **FAST,
    ) as push:  # fmt: skip
        found = {row.key: row for row in push.run(rows).rows}
    assert (found["1"].status, found["1"].object_id) == ("updated", made)
    assert found["2"].status == "created" and found["2"].object_id != gone


def test_a_plan_asks_stripe_for_what_a_push_wrote_after_the_copy_was_read(
    account: Account, tmp_path: Path
) -> None:
    """A product that the copy does not know yet, and a customer that it has as it was before."""
    log = tmp_path / "newer.sqlite"
    options = {"database": account.database, "log": log, "base": account.url, **FAST}
    sold = {"column": "sku", "find": "products", "by": "metadata.sku"}
    goods = {"name": "goods", "key": "n", "object": "products", "match": "metadata.sku", "map": {"name": "sku", "metadata.sku": "sku"}}  # fmt: skip
    people = {"name": "people", "key": "n", **BY_EMAIL, "map": {"email": "email", "name": "name", "metadata.sold": sold}}  # fmt: skip
    before = {"n": 1, "email": "c3@example.com", "name": "C 3", "sku": "S1"}
    for definition, row in ((goods, {"n": 1, "sku": "NEW"}), (people, before), (people, before | {"name": "B", "sku": "NEW"})):  # fmt: skip
        with open_push(definition, account.box.key, **options) as push:
            planned = push.plan([row])
            done = push.run([row])
            assert [one.action + "d" for one in planned.decisions] == [
                one.status for one in done.rows
            ]
    with open_push(people, account.box.key, **options) as push:
        (back,) = push.plan([before]).decisions
    assert {change.field: (change.before, change.after) for change in back.changes}["name"] == ("B", "C 3")  # fmt: skip


@pytest.mark.parametrize("is_plan", [True, False])
def test_a_plan_finds_an_address_in_another_case_as_a_run_does(is_plan: bool) -> None:
    """Stripe's list does not; the copy knows it, though the log wrote the customer since."""
    box = Sandbox(seed=1, customers=0, products=0, oddities=False)
    made = box.create("customers", email="Mixed@Example.com")
    known = {("customers", "email"): {"mixed@example.com": [{"id": made["id"]}]}}
    with box.serve() as url, closing(Api(box.key, base=url, **FAST)) as api:
        matcher = Matcher(Lookup(api), is_plan, known, {"customers": {made["id"]}})
        found = matcher.find(WRITABLE["customers"], "email", "mixed@example.com")
    assert [one["id"] for one in found] == [made["id"]]


# -- there and back --------------------------------------------------------------------------------

SENT: dict[str, tuple[str, list[Row]]] = {
    "products": ("id", [{"id": "gold", "name": "Gold", "active": False, "images": ["https://a.example/1"], "metadata.n": "1"},
                        {"id": "tin", "name": "Tin Ü", "description": "x" * 900, "metadata.n": "2"}]),
    "prices": ("lookup_key", [{"lookup_key": "g1", "product": "tin", "currency": "usd", "unit_amount_decimal": "10.5",
                               "recurring.interval": "month", "nickname": "G"}]),
    "customers": ("email", [{"email": "round@example.com", "name": "Round O'Trip", "balance": -500, "phone": "+49 1",
                             "preferred_locales": ["de", "en"], "address.city": "Köln", "address.country": "DE",
                             "metadata.crm": "r1", "tax_exempt": "exempt"}]),
    "subscriptions": ("metadata.k", [{"metadata.k": "s", "customer": "cus_round", "items[0].price": "price_round",
                                      "items[0].quantity": 3, "description": "Seats", "off_session": True}]),
    "invoices": ("metadata.k", [{"metadata.k": "i", "customer": "cus_round", "footer": "Thanks", "auto_advance": False}]),
    "invoice_items": ("metadata.k", [{"metadata.k": "ii", "customer": "cus_round", "amount": 250, "currency": "usd"}]),
    "quotes": ("metadata.k", [{"metadata.k": "q", "customer": "cus_round", "header": "Offer", "line_items[0].price": "price_round"}]),
}  # fmt: skip


def shown(row: dict[str, Any], name: str) -> Any:
    """A field of a row of the copy, as it was pushed."""
    top, _, below = name.partition(".")
    value = row[top]
    if isinstance(value, str) and value[:1] in ("{", "["):
        value = json.loads(value)
    value = (value or {}).get(below) if below else value
    return format(value.normalize(), "f") if isinstance(value, Decimal) else value


def test_what_is_pushed_comes_back_in_tables_and_changes(account: Account, tmp_path: Path) -> None:
    account.box.create("customers", id="cus_round")
    account.box.create("prices", id="price_round", unit_amount=500, currency="usd",
                       recurring={"interval": "month", "interval_count": 1})  # fmt: skip
    requests = {}
    for object, (match, rows) in SENT.items():
        given = {"name": object, "object": object, "key": match, "match": match}
        with open_push(
            given, account.box.key, base=account.url, log=tmp_path / "log.sqlite", **FAST
        ) as push:
            result = push.run(rows)
            assert [row.status for row in result.rows] == ["created"] * len(rows)
            sent = push.log.operations(result.run)
            requests[object] = {
                one.object_id: (one.request_id, one.idempotency_key) for one in sent
            }
    account.sync()
    with open_reader(account.database) as copy:
        for object, (match, rows) in SENT.items():
            held = copy.query(f"select * from {object}")
            all_held = [dict(zip(held.columns, row, strict=True)) for row in held.rows]
            by_match = {shown(row, match): row for row in all_held}
            for row in rows:
                told = {name: value for name, value in row.items() if "[" not in name and name != "off_session"}  # fmt: skip
                assert {name: shown(by_match[row[match]], name) for name in told} == told
            changes = copy.query(
                "select object_id, request_id, request_idempotency_key from changes "
                f"where resource = '{object}' and op = 'c'"
            )
            told_of = {id: (request, key) for id, request, key in changes.rows}
            assert requests[object].items() <= told_of.items()
            assert all(key.startswith("sf-") for _, key in requests[object].values())
        items = copy.query(
            "select i.price ->> 'id', i.quantity from subscription_items i join subscriptions s on s.id = i.subscription "
            "where s.customer = 'cus_round'"
        )
        assert [tuple(row) for row in items.rows] == [("price_round", 3)]
