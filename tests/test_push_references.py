"""Fields of a push that name another object: found by a property, created, left out, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stripe_feed.errors import UsageError
from stripe_feed.write.push.definition import make_definition
from tests.pushing import Pushing, Row, ends, killed_at, pushing, reasons

BY_SKU = {"column": "sku", "find": "products", "by": "metadata.sku"}
MAP = {"lookup_key": "k", "unit_amount": "amount", "currency": {"value": "usd"}, "product": BY_SKU}
BY_EMAIL = {"column": "payer", "find": "customers", "by": "email"}


@pytest.fixture
def prices() -> Iterator[Pushing]:
    with pushing(object="prices", key="k", match="lookup_key", map=MAP) as found:
        for n in range(3):
            found.box.create("products", id=f"prod_{n}", metadata={"sku": f"S{n}"})
        yield found


def rows(count: int) -> list[Row]:
    return [{"k": f"k{n}", "amount": 100, "sku": f"S{n}"} for n in range(count)]


def test_a_product_is_found_by_its_metadata(prices: Pushing) -> None:
    assert ends(prices.run(rows(3))) == {"created": 3}
    held = {one["lookup_key"]: one["product"] for one in prices.held("prices")}
    assert held == {"k0": "prod_0", "k1": "prod_1", "k2": "prod_2"}
    lists = [call for call in prices.box.log if call.template == "/v1/products"]
    assert len([call for call in lists if call.method == "GET"]) == 1  # one walk for all
    prices.writes()
    assert ends(prices.run(rows(3))) == {"unchanged": 3}
    assert prices.box.counts["/v1/products", 200] == 0


@pytest.mark.checklist("H13")
def test_what_is_not_found_is_refused_or_left_out(prices: Pushing) -> None:
    lost = [{"k": "k9", "amount": 100, "sku": "S9"}]
    result = prices.run(lost)
    assert reasons(result) == {"k9": "product: no product has this metadata.sku."}
    as_null = {"map": MAP | {"product": BY_SKU | {"on_missing": "null"}}}
    assert "exactly one of product, product_data" in reasons(prices.run(lost, changes=as_null))["k9"]  # fmt: skip
    assert prices.writes() == []


def test_two_objects_with_one_property_are_none(prices: Pushing) -> None:
    prices.box.create("products", id="prod_x", metadata={"sku": "S0"})
    assert "2 products have this metadata.sku (prod_0, prod_x)" in reasons(prices.run(rows(1)))["k0"]  # fmt: skip


# -- created on the way ----------------------------------------------------------------------------


@pytest.fixture
def people() -> Iterator[Pushing]:
    """Customers stand in for what has a payer: a description of theirs names one."""
    fields = {"metadata.payer": BY_EMAIL | {"on_missing": "create"}, "email": "email"}
    with pushing(object="customers", key="id", match="email", map=fields) as found:
        yield found


CHILDREN = [
    {"id": n, "email": f"child{n}@example.com", "payer": "payer@example.com"} for n in range(6)
]


@pytest.mark.checklist("H13")
def test_what_is_missing_is_created_once_for_all_rows(people: Pushing) -> None:
    plan = people.plan(CHILDREN)
    assert (plan.creations, plan.writes, people.writes()) == (1, 7, [])
    assert ends(people.run(CHILDREN)) == {"created": 6}
    (payer,) = [one for one in people.held() if one["email"] == "payer@example.com"]
    assert {one["metadata"].get("payer") for one in people.held()} == {payer["id"], None}
    assert len(people.held()) == 7
    assert ends(people.run(CHILDREN)) == {"unchanged": 6}
    assert b"payer@example.com" not in Path("stripe_feed.push.sqlite").read_bytes()


def test_an_address_in_another_case_is_who_an_earlier_run_created(people: Pushing) -> None:
    first, second = (CHILDREN[n] | {"payer": payer} for n, payer in enumerate(("Payer@Example.com", "payer@example.com")))  # fmt: skip
    assert ends(people.run([first])) == {"created": 1}
    assert people.plan([first, second]).creations == 0
    assert ends(people.run([first, second])) == {"created": 1, "unchanged": 1}
    (payer,) = [one for one in people.held() if "payer" in one["email"].lower()]
    assert {one["metadata"].get("payer") for one in people.held()} == {payer["id"], None}
    people.box.delete("customers", payer["id"])
    third = CHILDREN[2] | {"payer": "PAYER@example.com"}
    assert ends(people.run([first, second, third])) == {"created": 1, "unchanged": 2}
    payers = [one["email"] for one in people.held() if one["email"].lower().startswith("payer")]
    assert payers == ["PAYER@example.com"]


@pytest.mark.parametrize("fault", ["reset", "500_after"])
def test_what_is_created_on_the_way_is_there_once_whatever_fails(
    people: Pushing, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stripe_feed.write.push.log import PushLog

    with killed_at(monkeypatch, PushLog, "mark_done", "before"):
        people.run(CHILDREN[:1])
    people.box.faults.once["POST /v1/customers"] = [fault] * 5
    people.run(CHILDREN)
    people.box.faults.once.clear()
    assert people.run(CHILDREN).exit_code == 0
    assert sorted(one["email"] for one in people.held()) == [
        *(row["email"] for row in CHILDREN), "payer@example.com",
    ]  # fmt: skip


def test_a_missing_object_that_cannot_be_created_refuses_its_rows(people: Pushing) -> None:
    result = people.run([{**CHILDREN[0], "payer": "nobody"}])
    assert reasons(result) == {"0": "email is no e-mail address."}
    assert people.writes() == []


def test_nothing_is_created_for_a_row_that_another_name_refuses() -> None:
    """In whatever order the row names them."""
    lost = {"column": "sku", "find": "products", "by": "metadata.sku"}
    fields = {"metadata.payer": BY_EMAIL | {"on_missing": "create"}, "metadata.sold": lost, "email": "email"}  # fmt: skip
    with pushing(object="customers", key="id", match="email", map=fields) as people:
        result = people.run([{**CHILDREN[0], "sku": "S9"}])
        assert reasons(result) == {"0": "metadata.sold: no product has this metadata.sku."}
        assert people.writes() == []


def test_nothing_is_created_for_a_row_that_a_check_refuses(people: Pushing) -> None:
    bad = {**CHILDREN[0], "email": "nobody"}
    assert reasons(people.run([bad])) == {"0": "email is no e-mail address."}
    assert people.plan([bad]).creations == 0
    assert people.writes() == []
    assert ends(people.run(CHILDREN[1:2])) == {"created": 1}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"find": "charges"}, "find is one of customers"),
        ({"by": "phone"}, "by is one of id, email"),
        ({"on_missing": "skip"}, "on_missing is one of"),
        ({"by": "id", "on_missing": "create"}, "not by its id"),
        ({"find": "products", "by": "id", "on_missing": "create"}, "only a customer can be created"),
        ({"of": "x"}, "is a column, or one of"),
    ],
)  # fmt: skip
def test_an_association_that_makes_no_sense_is_refused(given: Row, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_definition(
            "x",
            {"object": "customers", "key": "id", "match": "email",
             "map": {"email": "email", "metadata.payer": BY_EMAIL | given}},
        )  # fmt: skip


def test_a_list_names_nobody_and_stops_no_other_row(people: Pushing) -> None:
    result = people.run([{"id": 9, "email": "z@example.com", "payer": ["a"]}, CHILDREN[0]])
    assert ends(result) == {"created": 1, "rejected": 1}
    assert "names no customers" in reasons(result)["9"]
