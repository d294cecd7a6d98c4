"""Small accounts from end to end, each for one promise of the extractor; `test_mutants.py` breaks
the code under them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from stripe_feed.sandbox import Sandbox
from tests.copies import Copy, copy_of

LOOK_BACK = 300


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    """An account of a few objects, and an empty copy of it."""
    box = Sandbox(seed=3, customers=4, invoices=3, subscriptions=3, oddities=False)
    with copy_of(box, tmp_path) as found:
        yield found


def held(copy: Copy, query: str) -> list[Any]:
    """The first column of a query's rows."""
    with duckdb.connect(str(copy.folder / copy.database), read_only=True) as base:
        return [value for (value, *_) in base.execute(query).fetchall()]


def overwrite(copy: Copy, statement: str) -> None:
    with duckdb.connect(str(copy.folder / copy.database)) as base:
        base.execute(statement)


def test_what_is_created_while_a_listing_runs_is_in_the_next_one(copy: Copy) -> None:
    """`t0` is Stripe's time when a listing began: however long it takes, nothing falls between it
    and the next.

    For a key that may not read events: these would tell of it too.
    """
    key = copy.box.restrict(permissions={"rak_customer_read"})
    made: list[str] = []

    def live(template: str, _: dict[str, Any]) -> None:
        if template == "/v1/customers" and not made:
            copy.box.advance(10)
            made.append(copy.box.create("customers")["id"])
            copy.box.advance(10 * LOOK_BACK)

    copy.box.on_request = live
    copy.sync(resources=["customers"], api_key=key)
    copy.box.advance(10 * LOOK_BACK)
    copy.sync(resources=["customers"], api_key=key)

    assert made[0] in held(copy, "select id from stripe.customers")


def test_what_becomes_visible_late_is_found_by_the_overlap(copy: Copy) -> None:
    """Stripe's lists can lag a little behind: an object may appear below the `t0` of the listing
    that missed it.
    """
    copy.sync(resources=["customers"])
    late = copy.box.create("customers", created=copy.box.now - 100)["id"]
    copy.box.advance(50)
    copy.sync(resources=["customers"])

    assert late in held(copy, "select id from stripe.customers")


def test_a_stale_row_does_not_replace_a_newer_one(copy: Copy) -> None:
    """A list that was asked for earlier may arrive later; the row that was true last stays."""
    id = copy.box.create("customers", created=copy.box.now - 10, name="stale")["id"]
    copy.sync(resources=["customers"])
    overwrite(
        copy,
        f"update stripe.customers set name = 'newer', _hash = '', _version = _version + 1 where id = '{id}'",
    )
    copy.sync(resources=["customers"])

    assert held(copy, f"select name from stripe.customers where id = '{id}'") == ["newer"]


def test_of_two_rows_of_the_same_second_the_one_that_came_last_wins(copy: Copy) -> None:
    """Versions tie when an object changes within a second; what is read now is not older than what
    is held.
    """
    id = copy.box.create("customers", created=copy.box.now - 10, name="before")["id"]
    copy.sync(resources=["customers"])
    copy.box.update("customers", id, name="after")
    copy.sync(resources=["customers"])
    (version, *others) = held(copy, "select distinct _version from stripe.customers")

    assert (others, version > 0) == ([], True)
    assert held(copy, f"select name from stripe.customers where id = '{id}'") == ["after"]


def test_canceled_subscriptions_and_archived_prices_are_there(copy: Copy) -> None:
    """Stripe's lists hide both unless they are asked for."""
    canceled = copy.box.cancel(next(iter(copy.box.objects("subscriptions"))))["id"]
    product = next(iter(copy.box.objects("products")))
    past = {"created": copy.box.now - 100, "product": product}
    archived = copy.box.create("prices", **past, currency="usd", unit_amount=100, active=False)[
        "id"
    ]
    copy.sync(resources=["subscriptions", "prices"])

    assert canceled in held(copy, "select id from stripe.subscriptions where status = 'canceled'")
    assert archived in held(copy, "select id from stripe.prices where not active")


def test_children_are_complete_and_follow_their_parent(copy: Copy) -> None:
    """An embedded list stops at ten. When a line is removed, or all are, so are their rows."""

    def lines() -> list[Any]:
        return held(
            copy, "select count(*) from stripe.invoice_line_items group by invoice order by 1"
        )

    ids = [
        copy.box.create("invoices", created=copy.box.now - 10, lines=count, status="draft")["id"]
        for count in (11, 3)
    ]
    before = {
        id: sum(line["invoice"] == id for line in copy.box.children("invoice_line_items").values())
        for id in ids
    }
    copy.sync(resources=["invoices"])
    first = lines()
    copy.box.update("invoices", ids[0], lines=2)
    copy.box.update("invoices", ids[1], lines=[])
    copy.sync(resources=["invoices"])

    assert sorted(before.values()) == [3, 11]
    assert first[-1] == 11
    assert held(
        copy, f"select count(*) from stripe.invoice_line_items where invoice = '{ids[0]}'"
    ) == [2]
    assert held(
        copy, f"select count(*) from stripe.invoice_line_items where invoice = '{ids[1]}'"
    ) == [0]
    assert held(
        copy,
        "select count(*) from stripe.invoice_line_items where deleted_at is not null or id = invoice",
    ) == [0]


@pytest.mark.parametrize(("yields", "is_first"), [(0, True), (1, True), (2, True), (1, False)])
def test_a_run_that_stops_after_any_yield_loses_nothing(
    copy: Copy, yields: int, is_first: bool
) -> None:
    """A page is yielded as several tables; the state counts it once the last of them is handed
    over. A table that stayed empty would be listed again in any case, so the later run is the one
    that shows it.
    """
    if not is_first:
        copy.run(copy.source().with_resources("invoices"))
        copy.box.advance(10 * LOOK_BACK)
        copy.box.create("invoices", lines=2)
        copy.box.advance(10 * LOOK_BACK)
    copy.run(copy.source().with_resources("invoices").add_limit(yields))
    copy.run(copy.source().with_resources("invoices"))

    copy.check("invoices", volatile=False)
