"""Within the day for which Stripe repeats its answers, and for each kind of object: what was before is
sent again, what was refused passes once it is mended, and a second run writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.pushing import Pushing, Row, ends, pushing

PAYER = {"value": "cus_payer1"}
BILLED = {
    "customer": PAYER,
    "collection_method": {"value": "send_invoice"},
    "days_until_due": {"value": 30},
}
KINDS: dict[str, tuple[str, Row]] = {
    "customers": ("metadata.k", {"description": "a", "email": "b"}),
    "products": ("id", {"name": "a", "description": "b"}),
    "prices": ("lookup_key", {"nickname": "a", "unit_amount": "n", "currency": {"value": "usd"},
                              "product": {"value": "prod_1"}}),
    "subscriptions": ("metadata.k", {"description": "a", "items[0].price": {"value": "price_1"},
                                     "items[0].quantity": "n", **BILLED}),
    "invoices": ("metadata.k", {"description": "a", "footer": "b", **BILLED}),
    "invoice_items": ("metadata.k", {"description": "a", "amount": "n", "currency": {"value": "usd"}, "customer": PAYER}),
    "quotes": ("metadata.k", {"description": "a", "header": "b", "line_items[0].price": {"value": "price_1"},
                              "line_items[0].quantity": "n", "customer": PAYER}),
}  # fmt: skip
A: Row = {"k": "x", "a": "first", "b": "a@example.com", "n": 1}
B: Row = {"k": "x", "a": "second", "b": "b@example.com", "n": 2}
C: Row = {"k": "x", "a": "third", "b": "c@example.com", "n": 3}


@pytest.fixture(params=KINDS)
def push(request: pytest.FixtureRequest) -> Iterator[Pushing]:
    match, fields = KINDS[request.param]
    with pushing(object=request.param, key="k", match=match, map={match: "k", **fields}) as found:
        found.box.create("customers", id="cus_payer1", currency=None)
        found.box.create("products", id="prod_1", default_price=None)
        found.box.create("prices", id="price_1", product="prod_1", currency="usd", unit_amount=100,
                         recurring={"interval": "month", "interval_count": 1})  # fmt: skip
        found.writes()
        yield found


def says(push: Pushing, row: Row) -> bool:
    """Whether the one object that is in force is what a row says."""
    table = {"invoice_items": "invoiceitems"}.get(
        push.definition["object"], push.definition["object"]
    )
    (held,) = [one for one in push.held(table) if one.get("active", True)]
    wanted: dict[str, Any] = {
        name: row[column] for name, column in push.definition["map"].items()
        if isinstance(column, str) and "[" not in name and not name.startswith("metadata.")
    }  # fmt: skip
    lines = held.get("items", held.get("line_items"))
    if isinstance(lines, dict) and lines.get("data"):
        assert [one["quantity"] for one in lines["data"]] == [row["n"]]
    return {name: held[name] for name in wanted} == wanted


def test_within_a_day_each_change_takes_effect_and_a_second_run_writes_nothing(
    push: Pushing,
) -> None:
    for row in (A, B, A):
        assert push.run([row]).exit_code == 0
        assert says(push, row)
    path = {"invoice_items": "/v1/invoiceitems"}.get(
        push.definition["object"], f"/v1/{push.definition['object']}"
    )
    for place in (f"POST {path}", f"POST {path}/:id"):
        push.box.faults.always[place] = "refused"
    assert ends(push.run([B])) == {"rejected": 1}
    assert says(push, A)
    push.box.faults.always.clear()
    assert ends(push.run([B], only_failed=True)) == {"updated": 1}  # as it was
    for place in (f"POST {path}", f"POST {path}/:id"):
        push.box.faults.always[place] = "refused"
    assert ends(push.run([A])) == {"rejected": 1}
    push.box.faults.always.clear()
    assert ends(push.run([C])) == {"updated": 1}  # it was mended
    assert says(push, C)
    push.writes()
    assert ends(push.run([C])) == {"unchanged": 1}
    assert ends(push.run([C], full_resync=True)) == {"unchanged": 1}
    assert push.writes() == []
