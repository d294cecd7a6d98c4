"""Pushes of products and prices: ids of one's own, prices that take another one's place, and what is
archived because it cannot be deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from stripe_feed.api.client import Api
from stripe_feed.errors import UsageError
from stripe_feed.write.push.definition import make_definition
from stripe_feed.write.push.log import REPEATABLE, PushLog
from tests.pushing import Pushing, Row, ends, killed_at, pushing, reasons

DELETES = {"on_delete": "delete", "max_deletes": 5, "max_delete_share": 1}
NEW, ANY = "POST /v1/prices", "POST /v1/prices/:id"
DEFAULT = "POST /v1/products/:id"


@pytest.fixture
def products() -> Iterator[Pushing]:
    with pushing(object="products", key="id", match="id") as found:
        yield found


@pytest.fixture
def prices() -> Iterator[Pushing]:
    with pushing(object="prices", key="lookup_key", match="lookup_key") as found:
        found.box.create("products", id="prod_1", default_price=None)
        found.writes()
        yield found


def price(amount: int = 1_000, **fields: Any) -> Row:
    return {"lookup_key": "pro", "product": "prod_1", "currency": "usd", "unit_amount": amount,
            "recurring.interval": "month", **fields}  # fmt: skip


def active(prices: Pushing) -> list[Row]:
    return [one for one in prices.held("prices") if one["active"]]


# -- products --------------------------------------------------------------------------------------


@pytest.mark.checklist("H6a H8")
def test_products_have_ids_of_their_own(products: Pushing) -> None:
    rows = [{"id": "gold", "name": "Gold", "tier": 1}, {"id": "silver", "name": "Silver", "tier": 2}]  # fmt: skip
    assert ends(products.run(rows)) == {"created": 2}
    assert products.box.objects("products")["gold"]["metadata"]["tier"] == "1"
    rows[0]["name"] = "Gold!"
    assert ends(products.run(rows)) == {"updated": 1, "unchanged": 1}
    assert products.box.objects("products")["gold"]["name"] == "Gold!"
    assert ends(products.run(rows)) == {"unchanged": 2}


def test_a_new_product_needs_a_name_before_it_is_sent(products: Pushing) -> None:
    result = products.run([{"id": "gold", "name": None}])
    assert (reasons(result), products.writes()) == ({"gold": "name is missing."}, [])


def test_a_product_with_prices_is_deactivated_in_place_of_deleted(products: Pushing) -> None:
    rows = [{"id": "gold", "name": "Gold"}, {"id": "silver", "name": "Silver"}]
    products.run(rows, changes=DELETES)
    products.box.create("prices", product="gold")
    products.writes()
    plan = products.plan(rows[:0], changes=DELETES)
    notes = {one.key: " ".join(one.notes) for one in plan.decisions}
    assert notes["gold"].startswith("Stripe does not delete a product that has prices")
    assert notes["silver"].startswith("Deletes the product for good")
    result = products.run(rows[:0], changes=DELETES)
    assert ends(result) == {"deleted": 2}
    assert "deactivated instead" in reasons(result)["gold"]
    assert sorted(products.writes()) == ["DELETE /v1/products/:id", DEFAULT]
    held = products.box.objects("products")
    assert (held["gold"]["active"], "silver" in held) == (False, False)
    assert ends(products.run(rows[:0], changes=DELETES)) == {}


# -- prices ----------------------------------------------------------------------------------------


def test_prices_are_created_once(prices: Pushing) -> None:
    assert ends(prices.run([price()])) == {"created": 1}
    assert ends(prices.run([price()])) == {"unchanged": 1}
    assert ends(prices.run([price()], full_resync=True)) == {"unchanged": 1}
    assert prices.writes() == [NEW]


def test_what_stripe_lets_change_is_updated(prices: Pushing) -> None:
    prices.run([price()])
    assert ends(prices.run([price(nickname="Pro", tier=1)])) == {"updated": 1}
    assert prices.writes() == [NEW, ANY]
    (held,) = prices.held("prices")
    assert (held["nickname"], held["metadata"]["tier"]) == ("Pro", "1")


@pytest.mark.checklist("H6b")
def test_a_changed_amount_makes_a_new_price_that_takes_the_old_ones_place(prices: Pushing) -> None:
    prices.run([price(nickname="Pro", tier=1)])
    (old,) = prices.held("prices")
    prices.box.update("products", "prod_1", default_price=old["id"])
    prices.writes()
    plan = prices.plan([price(1_200, nickname="Pro", tier=1)])
    (decision,) = plan.decisions
    assert [(c.field, c.before, c.after) for c in decision.changes] == [("unit_amount", 1_000, 1_200)]  # fmt: skip
    assert (plan.writes, old["id"] in decision.notes[0]) == (3, True)
    assert ends(prices.run([price(1_200, nickname="Pro", tier=1)])) == {"updated": 1}

    assert prices.writes() == [NEW, DEFAULT, ANY]  # Stripe archives no default price
    (new,) = active(prices)
    held = prices.box.objects("prices")
    assert (new["unit_amount"], new["lookup_key"], new["nickname"]) == (1_200, "pro", "Pro")
    assert new["recurring"]["interval"] == "month"
    assert (held[old["id"]]["active"], held[old["id"]]["lookup_key"]) == (False, None)
    assert prices.box.objects("products")["prod_1"]["default_price"] == new["id"]
    assert ends(prices.run([price(1_200, nickname="Pro", tier=1)])) == {"unchanged": 1}


def test_a_new_price_takes_over_what_the_row_does_not_say(prices: Pushing) -> None:
    prices.run([price(nickname="Pro", tier=1)])
    partial = {"map": {"lookup_key": "lookup_key", "unit_amount": "unit_amount"}, "mode": "update"}
    assert ends(prices.run([price(1_200)], changes=partial)) == {"updated": 1}
    (new,) = active(prices)
    assert (new["currency"], new["nickname"], new["metadata"]["tier"]) == ("usd", "Pro", "1")
    assert (new["product"], new["recurring"]["interval"]) == ("prod_1", "month")


@pytest.mark.parametrize("fails", [DEFAULT, ANY])
def test_a_price_that_is_refused_half_way_is_finished_later(prices: Pushing, fails: str) -> None:
    prices.run([price()])
    (old,) = prices.held("prices")
    prices.box.update("products", "prod_1", default_price=old["id"])
    prices.box.faults.once[fails] = ["refused"]
    assert ends(prices.run([price(1_200)])) == {"rejected": 1}
    assert ends(prices.run([price(1_500)])) == {"updated": 1}  # and has changed since
    (new,) = active(prices)
    assert new["unit_amount"] == 1_500
    assert prices.box.objects("products")["prod_1"]["default_price"] == new["id"]
    prices.writes()
    assert (ends(prices.run([price(1_500)])), prices.writes()) == ({"unchanged": 1}, [])


@pytest.mark.parametrize("nth", range(3))
@pytest.mark.parametrize(
    ("place", "name", "when"),
    [(Api, "post", "after"), (PushLog, "mark_done", "after"), (PushLog, "mark_sent", "after")],
)
def test_a_price_whose_run_dies_at_any_point_is_there_once(
    prices: Pushing, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, when: str, nth: int
) -> None:
    prices.run([price()])
    (old,) = prices.held("prices")
    prices.box.update("products", "prod_1", default_price=old["id"])
    steps = 2 if name == "mark_sent" else 3
    with killed_at(monkeypatch, place, name, when, min(nth, steps - 1)):
        prices.run([price(1_200)])
    assert prices.run([price(1_200)]).exit_code == 0
    (new,) = active(prices)
    assert (new["unit_amount"], len(prices.held("prices"))) == (1_200, 2)
    assert prices.box.objects("products")["prod_1"]["default_price"] == new["id"]


def test_a_price_that_was_replaced_goes_with_its_row_though_nobody_archived_it(
    prices: Pushing, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = DELETES | {"on_delete": "deactivate"}
    prices.run([price()], changes=gone)
    with killed_at(monkeypatch, PushLog, "mark_sent", "after"):  # of the old one's archiving
        prices.run([price(1_200)], changes=gone)
    prices.box.advance(REPEATABLE + 10)
    assert ends(prices.run([], changes=gone)) == {"deleted": 1}
    assert (active(prices), len(prices.held("prices"))) == ([], 2)
    assert ends(prices.run([], changes=gone)) == {}


@pytest.mark.parametrize("way", ["500_after", "reset"])
def test_a_price_without_an_answer_is_there_once(prices: Pushing, way: Any) -> None:
    for amount in (1_000, 1_200, 1_000):
        for place in (NEW, ANY):
            prices.box.faults.once[place] = [way] * 12
        prices.run([price(amount)])
        prices.box.faults.once.clear()
        assert prices.run([price(amount)]).exit_code == 0
        assert [one["unit_amount"] for one in active(prices)] == [amount]
    assert len(prices.held("prices")) == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"unit_amount_decimal": "10.50"},
        {"unit_amount": 10, "currency": "USD"},
        {"custom_unit_amount.enabled": True, "custom_unit_amount.minimum": 100, "recurring.interval": None},
        {"billing_scheme": "tiered", "tiers_mode": "graduated",
         "tiers": [{"up_to": 5, "unit_amount": 10}, {"up_to": "inf", "unit_amount_decimal": "5.0"}]},
        {"unit_amount": 10, "transform_quantity.divide_by": 5, "transform_quantity.round": "up"},
        {"unit_amount": 10, "currency_options.eur.unit_amount": 9},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_read_back_in_another_form_is_no_change(prices: Pushing, fields: Row) -> None:
    row = {k: v for k, v in {**price(), "unit_amount": None, **fields}.items() if v is not None}
    assert ends(prices.run([row])) == {"created": 1}
    with prices.opened() as push:
        push.reset()
    assert ends(prices.run([row])) == {"unchanged": 1}
    assert prices.writes() == [NEW]


@pytest.mark.checklist("H11c")
def test_prices_are_never_deleted(prices: Pushing) -> None:
    with pytest.raises(UsageError, match="on_delete of prices is one of nothing, deactivate"):
        make_definition("p", {**prices.definition, **DELETES})
    gone = DELETES | {"on_delete": "deactivate"}
    prices.run([price()], changes=gone)
    assert ends(prices.run([], changes=gone)) == {"deleted": 1}
    assert [one["active"] for one in prices.held("prices")] == [False]
    assert ends(prices.run([price()], changes=gone)) == {"updated": 1}
    assert [one["active"] for one in prices.held("prices")] == [True]  # its row came back


def test_many_prices_of_one_product_are_sent_one_after_the_other(prices: Pushing) -> None:
    prices.box.faults.write_time = 0.01  # the product is locked so long
    rows = [price(n, lookup_key=f"k{n}") for n in range(1, 9)]
    assert ends(prices.run(rows)) == {"created": 8}
    assert prices.box.counts["/v1/prices", 429] == 0
