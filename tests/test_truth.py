"""What is loaded equals the account: every field of every row, for accounts with everything odd
that real ones have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stripe_feed.sandbox import Sandbox
from tests.copies import Copy, copy_of
from tests.core import CORE, CORE_TABLES
from tests.truth import assert_true, columns_of, truth

ACCOUNTS: dict[int, dict[str, Any]] = {
    9: {"customers": 120},
    1: {},
    2: {"shape": "import"},
    3: {"shape": "months", "gzip": True},
}
ODD = (
    "absent_fields", "archived_prices", "beyond_2_53", "burst", "canceled", "chosen_ids", "clock_customers", "clock_invoices",
    "clock_subscriptions", "deleted_customers", "deleted_invoices", "deleted_plans", "deleted_prices", "deleted_products",
    "deleted_with_subscriptions", "drafts", "empty_invoices", "empty_metadata_values", "fifty_metadata_keys", "future_created",
    "imported", "incomplete_expired", "inline_prices", "long_invoices", "long_names", "long_subscriptions", "negative_totals",
    "null_created", "nulls", "odd_metadata_keys", "one_time", "three_decimal", "tiered", "twelve_digits", "unicode",
    "unknown_fields", "zero_decimal",
)  # fmt: skip


@pytest.fixture(scope="module", params=ACCOUNTS, ids="seed{}".format)
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Copy]:
    account = {"customers": 3750} | ACCOUNTS[request.param]
    box = Sandbox(seed=request.param, **account)
    with copy_of(box, tmp_path_factory.mktemp("truth"), hold=True) as copy:
        copy.load()
        yield copy


def is_large(copy: Copy) -> bool:
    return len(copy.box.objects("customers")) > 1_000


def test_every_field_of_every_row_equals_the_account(loaded: Copy) -> None:
    """Of a large account at least 20,000 objects: nothing missing, nothing extra, nothing
    different, children complete.
    """
    count = sum(len(expected.raws) for expected in truth(loaded.box).values())
    assert count >= (20_000 if is_large(loaded) else 1_000)
    loaded.check()


def test_everything_odd_is_in_the_account(loaded: Copy) -> None:
    """What the comparison claims to cover is there to be compared."""
    counts = loaded.box.oddities()
    assert [name for name in ODD if not counts[name]] == []
    assert counts["burst"] > (300 if is_large(loaded) else 1)


def test_rows_that_are_easily_lost_are_there(loaded: Copy) -> None:
    """Archived and inline prices, cancelled subscriptions, long lists, imported and undated
    objects.
    """
    few = 10 if is_large(loaded) else 0
    assert loaded.one("select count(*) from stripe.prices where not active") > few
    inline = loaded.box.account.inline_prices
    held = {id for (id,) in loaded.select("select id from stripe.prices")}
    assert len(held & inline) > few
    assert loaded.one("select count(*) from stripe.subscriptions where status = 'canceled'") > few
    assert (
        loaded.one(
            "select max(n) from (select count(*) as n from stripe.invoice_line_items group by invoice)"
        )
        == 250
    )
    assert (
        loaded.one(
            "select max(n) from (select count(*) as n from stripe.subscription_items group by subscription)"
        )
        == 120
    )
    assert loaded.one("select count(*) from stripe.customers where created is null") == 1
    assert (
        loaded.one(
            f"select count(*) from stripe.customers where epoch(created) < {loaded.box.account.start}"
        )
        == 2
    )
    assert loaded.one("select count(*) from stripe.customers where extra is not null") >= 1


def test_rows_that_do_not_belong_are_not_there(loaded: Copy) -> None:
    """What is on a test clock, what was deleted, what is created in the future."""
    for table in ("customers", "subscriptions", "invoices"):
        assert loaded.one(f"select count(*) from stripe.{table} where test_clock is not null") == 0
    gone = set(loaded.box.deleted("customers"))
    held = {id for (id,) in loaded.select("select id from stripe.customers")}
    assert gone and not gone & held
    assert (
        loaded.one(
            f"select count(*) from stripe.customers where epoch(created) >= {loaded.box.now}"
        )
        == 0
    )


TYPES = {
    "text": "VARCHAR",
    "ref": "VARCHAR",
    "bigint": "BIGINT",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "decimal": "DECIMAL(38,12)",
    "double": "DOUBLE",
    "json": "JSON",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    with copy_of(
        Sandbox(seed=9, customers=120), tmp_path_factory.mktemp("small"), hold=True
    ) as copy:
        copy.load()
        yield copy


@pytest.mark.parametrize("table", CORE_TABLES)
def test_each_column_has_its_type(small: Copy, table: str) -> None:
    """Timestamps know that they are UTC, decimals are exact, what is nested is JSON; and no other
    column is there.
    """
    wanted = {column.name: TYPES[column.kind] for column in columns_of(CORE_TABLES[table])}
    wanted |= {
        "extra": "JSON",
        "account_id": "VARCHAR",
        "deleted_at": TYPES["timestamp"],
        "_version": "BIGINT",
    }
    wanted |= {
        "_dlt_load_id": "VARCHAR",
        **({"_hash": "VARCHAR"} if hasattr(CORE_TABLES[table], "children") else {}),
    }
    of = f"table_schema = 'stripe' and table_name = '{table}'"
    assert (
        dict(
            small.select(
                f"select column_name, data_type from information_schema.columns where {of}"
            )
        )
        == wanted
    )


DAMAGE = {
    "a row is missing": ("delete from {products} where id = '{product}'", "{product} is missing"),
    "a row is there twice": (
        "insert into {products} select * from {products} where id = '{product}'",
        "is there 2 times",
    ),
    "a row is too much": (
        "insert into {customers} select * replace ('x' as id) from {customers} limit 1",
        "x should not",
    ),
    "a line is missing": ("delete from {lines} where id = '{line}'", "{line} is missing"),
    "a line is another invoice's": (
        "update {lines} set invoice = 'x' where id = '{line}'",
        "items.invoice of {line}",
    ),
    "text": (
        "update {customers} set name = name || ' ' where id = '{customer}'",
        "customers.name of {customer}",
    ),
    "null": (
        "update {customers} set balance = null where id = '{customer}'",
        "customers.balance of {customer}",
    ),
    "one second": (
        "update {customers} set created = created + interval 1 second where id = '{customer}'",
        "customers.created",
    ),
    "a time zone": (
        "update {customers} set created = created + interval 2 hour where id = '{customer}'",
        "customers.created",
    ),
    "a twelfth digit": (
        "update {prices} set unit_amount_decimal = unit_amount_decimal + 0.000000000001",
        "unit_amount_decimal",
    ),
    "a big integer": (
        "update {customers} set balance = balance + 1 where balance > 9007199254740992",
        "customers.balance",
    ),
    "a key": (
        "update {customers} set address = '{{}}' where id = '{address}'",
        "customers.address of {address}",
    ),
    "white space": (
        "update {customers} set metadata = '{{ }}' where metadata::text = '{{}}'",
        "customers.metadata of",
    ),
    "an unknown field": (
        "update {products} set extra = null where extra is not null",
        "products.extra of",
    ),
    "another account": ("update {plans} set account_id = 'acct_x'", "plans.account_id of"),
    "deleted": ("update {plans} set deleted_at = now()", "plans.deleted_at of"),
    "a load that does not exist": (
        "update {plans} set _dlt_load_id = '1'",
        "plans._dlt_load_id of",
    ),
    "a version of its own": (
        "update {lines} set _version = _version - 1 where id = '{line}'",
        "._version of {line}",
    ),
    "a version from the future": (
        "update {plans} set _version = _version * 2",
        "plans._version of",
    ),
    "a hash": ("update {plans} set _hash = 'abcdef0123456789'", "is there twice"),
}


@pytest.fixture(scope="module")
def words(small: Copy) -> dict[str, str]:
    """Tables, and a row of each to damage."""
    (found,) = small.select("""
        select (select min(id) from stripe.products), (select min(id) from stripe.invoice_line_items),
               (select min(id) from stripe.customers where name is not null and created is not null),
               (select min(id) from stripe.customers where address is not null)
    """)
    rows = dict(zip(("product", "line", "customer", "address"), found, strict=True))
    tables = {name: f"stripe.{name}" for name in ("customers", "products", "prices", "plans")}
    return tables | {"lines": "stripe.invoice_line_items"} | rows


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_comparison_sees_damage(small: Copy, words: dict[str, str], damage: str) -> None:
    """A single field that is off is named, with its table and its object."""
    query, message = DAMAGE[damage]
    with small.pipeline.sql_client() as client:
        client.execute_sql("begin")
        client.execute_sql(query.format(**words))
        with pytest.raises(AssertionError, match=re.escape(message.format(**words))):
            assert_true(_Open(client), small.box, _resources_of(query))
        client.execute_sql("rollback")


def _resources_of(query: str) -> tuple[str, ...]:
    """Those whose tables a query names."""
    if "{lines}" in query:
        return ("invoices",)
    return tuple(name for name in CORE if f"{{{name}}}" in query)


class _Open:
    """A pipeline whose client is in a transaction."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def sql_client(self) -> Any:
        return self

    def __enter__(self) -> Any:
        return self.client

    def __exit__(self, *_: object) -> None:
        pass


def test_future_objects_come_when_their_time_comes(tmp_path: Path) -> None:
    """`created` lies ahead: absent before, there afterwards, and nothing else moves."""
    box = Sandbox(seed=4, customers=120)
    ahead = next(
        found for found in box.objects("customers").values() if (found["created"] or 0) > box.now
    )
    with copy_of(box, tmp_path, hold=True) as copy:
        copy.sync()
        copy.check()
        assert copy.select(f"select id from stripe.customers where id = '{ahead['id']}'") == []
        box.advance(4 * 86_400)
        copy.sync()
        copy.check()
        (row,) = copy.select(
            f"select name, metadata::text from stripe.customers where id = '{ahead['id']}'"
        )
        assert (row[0], json.loads(row[1])) == (ahead["name"], ahead["metadata"])


def test_prices_that_are_selected_later_find_the_hidden_ones_there(tmp_path: Path) -> None:
    """No list shows inline prices: their copies come with the subscriptions that hold them,
    whatever else is selected.
    """
    with copy_of(Sandbox(seed=6, customers=6, oddities=False), tmp_path, hold=True) as copy:
        copy.box.create("subscriptions", items=[{"price_data": {"unit_amount": 42}}])
        copy.box.advance(100)
        copy.run(copy.source().with_resources("subscriptions"))
        copy.run(copy.source().with_resources("prices"))
        copy.check("prices", "subscriptions")
        assert {
            id for (id,) in copy.select("select id from stripe.prices")
        } & copy.box.account.inline_prices
