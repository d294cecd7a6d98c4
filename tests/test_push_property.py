"""Whatever tables come one after the other and whatever fails on the way: run to the end, the account
holds what the last table says, nothing twice, and another run sends nothing.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stripe_feed.api.client import Api
from stripe_feed.write.push.log import REPEATABLE, PushLog
from tests.pushing import Killed, Pushing, Row, ends, pushing

PAYER = {"value": "cus_payer1"}
BILLED = {
    "customer": PAYER, "collection_method": {"value": "send_invoice"}, "days_until_due": {"value": 30},
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "customers": {
        "match": "metadata.k", "on_delete": "delete",
        "map": {"email": "a", "name": "b", "metadata.k": "k", "address.city": "c"},
    },
    "prices": {
        "match": "lookup_key", "on_delete": "deactivate",
        "map": {"lookup_key": "k", "unit_amount": "n", "nickname": "b", "currency": {"value": "usd"},
                "product": {"value": "prod_1"}},
    },
    "products": {
        "match": "metadata.k", "on_delete": "delete",
        "map": {"name": "a", "description": "b", "metadata.k": "k"},
    },
    "subscriptions": {
        "match": "metadata.k", "on_delete": "cancel",
        "map": {"description": "b", "items[0].price": {"value": "price_1"}, "items[0].quantity": "n",
                "metadata.k": "k", **BILLED},
    },
    "invoices": {
        "match": "metadata.k", "on_delete": "delete",
        "map": {"description": "a", "footer": "b", "metadata.k": "k", **BILLED},
    },
    "invoice_items": {
        "match": "metadata.k", "on_delete": "delete",
        "map": {"description": "a", "amount": "n", "currency": {"value": "usd"}, "metadata.k": "k",
                "customer": PAYER},
    },
    "quotes": {
        "match": "metadata.k", "on_delete": "cancel",
        "map": {"description": "a", "header": "b", "line_items[0].price": {"value": "price_1"},
                "line_items[0].quantity": "n", "metadata.k": "k", "customer": PAYER},
    },
}  # fmt: skip
"""What is pushed of each object, and what becomes of those whose rows are gone."""
LOGS = itertools.count()
LIMITS = {"max_deletes": 100, "max_delete_share": 1}
PLACES = ((PushLog, "begin"), (PushLog, "mark_done"), (PushLog, "mark_sent"), (Api, "post"), (Api, "delete"))  # fmt: skip

rows = st.dictionaries(
    st.sampled_from("pqrs"),
    st.tuples(st.sampled_from("AB"), st.sampled_from([None, "x"]), st.integers(1, 3)),
    max_size=4,
)
faults = st.one_of(
    st.none(),
    st.lists(st.sampled_from([None, "reset", "500_after", 500, "refused", "truncate"]), max_size=24),
    st.tuples(st.sampled_from(PLACES), st.sampled_from(["before", "after"]), st.integers(0, 4)),
)  # fmt: skip
days = st.sampled_from([0, 0, 0, REPEATABLE + 10, 100_000])


def table(drawn: dict[str, tuple[str, str | None, int]]) -> list[Row]:
    return [
        {"k": k, "a": f"{k}{b}@example.com".lower(), "b": b, "c": c, "n": n}
        for k, (b, c, n) in drawn.items()
    ]


def run(push: Pushing, rows: list[Row], fault: Any) -> None:
    """One run, in which something fails."""
    if isinstance(fault, tuple):
        (place, name), when, later = fault
        with pytest.MonkeyPatch.context() as patch:
            _die(patch, place, name, when, later)
            try:
                push.run(rows)
            except Killed:
                return
        return
    path = f"/v1/{stripe_name(push)}"
    for n, one in enumerate((f"POST {path}", f"POST {path}/:id", f"DELETE {path}/:id")):
        push.box.faults.once[one] = list(fault or [])[n::3]
    push.run(rows)
    push.box.faults.once.clear()


def _die(patch: pytest.MonkeyPatch, place: Any, name: str, when: str, later: int) -> None:
    real, count = getattr(place, name), iter(range(1_000))

    def dying(*args: Any, **kwargs: Any) -> Any:
        due = next(count) >= later
        if due and when == "before":
            raise Killed
        result = real(*args, **kwargs)
        if due:
            raise Killed
        return result

    patch.setattr(place, name, dying)


def stripe_name(push: Pushing) -> str:
    """The name of the object in paths and in the sandbox."""
    name = push.definition["object"]
    return "invoiceitems" if name == "invoice_items" else str(name)


def in_force(push: Pushing) -> list[Row]:
    """The objects of the push that nothing has ended."""
    return [
        one
        for one in push.held(stripe_name(push))
        if one.get("active", True) and one.get("status") != "canceled"
    ]


def field(found: Row, path: str) -> Any:
    """The value at a dotted path; of a list of lines, that of its only one."""
    value: Any = found
    if path == "line_items[0].quantity":  # a quote shows no lines, and one of each costs 1
        path = "amount_total"
    for name in path.replace("[0]", "").split("."):
        if isinstance(value, dict) and isinstance(value.get("data"), list):
            (value,) = value["data"]
        value = (value or {}).get(name)
    return value


def holds(push: Pushing, rows: list[Row]) -> None:
    """The account holds what the table says, and nothing twice."""
    columns = {
        path: column for path, column in push.definition["map"].items() if isinstance(column, str)
    }
    held = [[field(one, path) for path in columns] for one in in_force(push)]
    wanted = [[row[column] for column in columns.values()] for row in rows]
    assert sorted(held, key=str) == sorted(wanted, key=str)


def catalog(push: Pushing) -> None:
    """What rows refer to."""
    push.box.create("customers", id="cus_payer1", currency=None)
    push.box.create("products", id="prod_1", default_price=None)
    push.box.create("prices", id="price_1", product="prod_1", currency="usd", unit_amount=1,
                    recurring={"interval": "month", "interval_count": 1})  # fmt: skip


def history(kind: str, steps: list[tuple[Any, Any, int]]) -> None:
    definition = {"object": kind, "key": "k", "nulls": "unset", **KINDS[kind], **LIMITS}
    with pushing(**definition) as push, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.pushing.LOG", f"{next(LOGS)}.sqlite")
        catalog(push)
        for drawn, fault, later in steps:
            run(push, table(drawn), fault)
            push.box.advance(later)
        last = table(steps[-1][0])
        for _ in range(2):
            done = push.run(last)
        assert done.exit_code == 0
        holds(push, last)
        push.writes()
        assert ends(push.run(last)) in ({"unchanged": len(last)}, {})
        assert push.writes() == []


steps = st.lists(st.tuples(rows, faults, days), min_size=1, max_size=4)
SETTINGS: dict[str, Any] = {
    "deadline": None, "suppress_health_check": list(HealthCheck), "database": None,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_some_histories_end_as_the_last_table(kind: str) -> None:
    @settings(max_examples=4, derandomize=True, **SETTINGS)
    @given(steps)
    def check(drawn: list[tuple[Any, Any, int]]) -> None:
        history(kind, drawn)

    check()


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_many_histories_end_as_the_last_table(kind: str) -> None:
    @settings(max_examples=300, **SETTINGS)
    @given(steps)
    def check(drawn: list[tuple[Any, Any, int]]) -> None:
        history(kind, drawn)

    check()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_row_comes_back_after_a_run_died_while_it_cancelled_its_subscription(when: str) -> None:
    row = ("A", None, 1)
    history("subscriptions", [
        ({"p": row}, None, 0), ({}, ((Api, "delete"), when, 0), 0), ({"p": row}, None, 0),
    ])  # fmt: skip
