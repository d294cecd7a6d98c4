"""Pushes of subscriptions, invoices, invoice items and quotes: items one by one, prorations that are
asked for, and what is left alone because Stripe would not change it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from stripe_feed.errors import InvalidParameter, UsageError
from stripe_feed.write.push.definition import make_definition
from stripe_feed.write.push.mapping import push_fields
from tests.pushing import Pushing, Row, ends, pushing, reasons

CUSTOMER = {"column": "email", "find": "customers", "by": "email"}
BY_KEY = {"find": "prices", "by": "lookup_key"}
LIMITS = {"max_deletes": 9, "max_delete_share": 1}
CREATE, CHANGE = "POST /v1/subscriptions", "POST /v1/subscriptions/:id"


def prepared(push: Pushing) -> Pushing:
    """An account with a customer and monthly prices."""
    push.box.create("customers", id="cus_payer1", email="a@example.com", currency=None)
    push.box.create("products", id="prod_1", default_price=None)
    with push.opened() as opened:
        for name, amount in (("basic", 1_000), ("pro", 2_000), ("seat", 300)):
            form = {"currency": "usd", "product": "prod_1", "unit_amount": amount,
                    "lookup_key": name, "recurring": {"interval": "month"}}  # fmt: skip
            opened.lookup.api.post("/v1/prices", form, bytes)
    push.box.reset_counts()
    return push


# -- subscriptions ---------------------------------------------------------------------------------


@pytest.fixture
def subscriptions() -> Iterator[Pushing]:
    fields = {
        "customer": CUSTOMER,
        "metadata.contract": "contract",
        "items[0].price": {"column": "plan", **BY_KEY},
        "items[1].price": {"column": "extra", **BY_KEY},
        "items[1].quantity": "seats",
        "description": "note",
        "collection_method": {"value": "send_invoice"},
        "days_until_due": {"value": 30},
    }
    settings = {"object": "subscriptions", "key": "contract", "match": "metadata.contract"}
    with pushing(**settings, map=fields) as found:
        yield prepared(found)


def contract(plan: str = "basic", extra: str | None = None, seats: int | None = None, **more: Any) -> Row:  # fmt: skip
    return {"contract": "c1", "email": "a@example.com", "plan": plan, "extra": extra,
            "seats": seats, "note": None, **more}  # fmt: skip


def items(push: Pushing) -> dict[str, int]:
    """Lookup key -> quantity of the only subscription of this push."""
    (held,) = push.held("subscriptions")
    prices = push.box.objects("prices")
    return {
        prices[one["price"]["id"]]["lookup_key"]: one["quantity"] for one in held["items"]["data"]
    }


@pytest.mark.checklist("H13")
def test_a_subscription_is_created_once(subscriptions: Pushing) -> None:
    assert ends(subscriptions.run([contract(extra="seat", seats=3)])) == {"created": 1}
    assert items(subscriptions) == {"basic": 1, "seat": 3}
    assert subscriptions.held("subscriptions")[0]["customer"] == "cus_payer1"
    subscriptions.writes()
    assert ends(subscriptions.run([contract(extra="seat", seats=3)])) == {"unchanged": 1}
    again = subscriptions.run([contract(extra="seat", seats=3)], full_resync=True)
    assert (ends(again), subscriptions.writes()) == ({"unchanged": 1}, [])


@pytest.mark.checklist("H9")
@pytest.mark.parametrize(
    ("row", "after"),
    [
        (contract("pro", "seat", 3), {"pro": 1, "seat": 3}),
        (contract("basic", "seat", 5), {"basic": 1, "seat": 5}),
        (contract("basic"), {"basic": 1}),
        (contract("pro"), {"pro": 1}),
        (contract("seat", "basic", 2), {"seat": 3, "basic": 2}),
    ],
    ids=str,
)
def test_items_are_changed_swapped_and_removed_never_added_twice(
    subscriptions: Pushing, row: Row, after: Row
) -> None:
    changes = {"nulls": "unset"}
    subscriptions.run([contract(extra="seat", seats=3)], changes=changes)
    assert ends(subscriptions.run([row], changes=changes)) == {"updated": 1}
    assert items(subscriptions) == after
    subscriptions.writes()
    assert ends(subscriptions.run([row], changes=changes, full_resync=True)) == {"unchanged": 1}
    assert subscriptions.writes() == []


@pytest.mark.parametrize(
    ("before", "row"),
    [
        (contract(extra="seat", seats=3), contract("basic")),
        (contract(extra="seat", seats=3), contract("pro")),
        (contract(extra="seat", seats=3), contract("", "seat", 3)),
        (contract(), contract("", "seat", 3)),
        (
            contract(extra="seat", seats=3),
            {k: v for k, v in contract().items() if k not in ("extra", "seats")},
        ),
    ],
    ids=str,
)
def test_a_blank_cell_ends_no_item(subscriptions: Pushing, before: Row, row: Row) -> None:
    subscriptions.run([before])
    (billed,) = subscriptions.held("subscriptions")
    whole = {**contract(), "contract": "c2"}  # so that each column is there
    result = subscriptions.run([row, whole])
    assert re.match(r'items\[[01]\] is empty, .*nulls = "unset"', reasons(result)["c1"])
    assert billed in subscriptions.held("subscriptions")
    subscriptions.writes()
    subscriptions.plan([row, whole])
    assert subscriptions.writes() == []


def test_an_item_that_a_row_never_had_may_be_empty(subscriptions: Pushing) -> None:
    subscriptions.run([contract()])
    assert ends(subscriptions.run([contract("pro")])) == {"updated": 1}
    assert items(subscriptions) == {"pro": 1}


BY_ID = {
    "id": "sub", "items[0].id": "item", "items[0].price": {"column": "plan", **BY_KEY},
    "items[0].quantity": "seats", "items[1].price": {"column": "extra", **BY_KEY},
}  # fmt: skip


@pytest.mark.parametrize(
    ("seats", "after"),
    [(None, {"pro": 3, "basic": 1}), (5, {"pro": 5, "basic": 1})],
    ids=["kept", "given"],
)
def test_an_item_that_is_named_by_its_id_gets_another_price(
    subscriptions: Pushing, seats: int | None, after: Row
) -> None:
    subscriptions.run([contract("basic", "seat", 3)])
    (held,) = subscriptions.held("subscriptions")
    prices = subscriptions.box.objects("prices")
    ids = {prices[item["price"]["id"]]["lookup_key"]: item["id"] for item in held["items"]["data"]}
    by_id: Row = {"name": "by_id", "mode": "update", "match": "id", "map": BY_ID}
    row = {"contract": "c1", "sub": held["id"], "item": ids["seat"], "plan": "pro", "seats": seats,
           "extra": "basic"}  # fmt: skip
    assert ends(subscriptions.run([row], changes=by_id)) == {"updated": 1}
    assert items(subscriptions) == after
    (held,) = subscriptions.held("subscriptions")
    named = next(item for item in held["items"]["data"] if item["id"] == ids["seat"])
    assert prices[named["price"]["id"]]["lookup_key"] == "pro"
    again = subscriptions.run([row], changes=by_id, full_resync=True)
    assert ends(again) == {"unchanged": 1}
    lost = {**row, "item": "si_nobody"}
    assert "no item of this subscription" in reasons(subscriptions.run([lost], changes=by_id))["c1"]


def test_all_items_show_whether_a_change_was_carried_out(subscriptions: Pushing) -> None:
    """The subscription itself shows the first ten."""
    with subscriptions.opened() as push:
        keys = [f"p{n}" for n in range(14)]
        for key in keys:
            form = {"currency": "usd", "product": "prod_1", "unit_amount": 100,
                    "lookup_key": key, "recurring": {"interval": "month"}}  # fmt: skip
            push.lookup.api.post("/v1/prices", form, bytes)
    many = {f"items[{n}].price": {"column": key, **BY_KEY} for n, key in enumerate(keys)}
    seats = {"items[13].quantity": "seats"}
    fields = {"metadata.contract": "contract", "customer": CUSTOMER, **many, **seats}
    changes = {"map": {**fields, "collection_method": {"value": "send_invoice"},
                       "days_until_due": {"value": 30}}}  # fmt: skip
    row = {"contract": "c1", "email": "a@example.com", "seats": 1} | {key: key for key in keys}
    assert ends(subscriptions.run([row], changes=changes)) == {"created": 1}
    subscriptions.box.faults.always[CHANGE] = "500_after"
    assert ends(subscriptions.run([{**row, "seats": 7}], changes=changes)) == {"updated": 1}


@pytest.mark.parametrize("behavior", ["none", "create_prorations"])
def test_a_change_is_prorated_only_if_that_is_asked_for(
    subscriptions: Pushing, behavior: str
) -> None:
    changes = {} if behavior == "none" else {"proration_behavior": behavior}
    subscriptions.run([contract()], changes=changes)
    before = len(subscriptions.box.objects("invoiceitems"))
    subscriptions.box.advance(86_400)
    subscriptions.run([contract("pro")], changes=changes)
    call = next(one for one in subscriptions.box.log if f"{one.method} {one.template}" == CHANGE)
    assert call.params["proration_behavior"] == behavior
    assert (len(subscriptions.box.objects("invoiceitems")) > before) == (behavior != "none")


def test_a_plan_shows_items_and_what_the_next_invoice_would_be(subscriptions: Pushing) -> None:
    new = subscriptions.plan([contract()])
    assert "bills its customer" in new.decisions[0].notes[0]
    subscriptions.run([contract()])
    subscriptions.writes()
    (decision,) = subscriptions.plan([contract("pro")]).decisions
    assert subscriptions.writes() == ["POST /v1/invoices/create_preview"]  # which changes nothing
    assert re.fullmatch(r"The next invoice would be \d+ usd .*", decision.notes[0])
    (change,) = decision.changes
    assert (change.before["quantity"], change.after["price"] != change.before["price"]) == (1, True)
    assert items(subscriptions) == {"basic": 1}


def test_a_row_that_is_gone_ends_its_subscription(subscriptions: Pushing) -> None:
    for way, status in (("cancel_at_period_end", "active"), ("cancel", "canceled")):
        changes = LIMITS | {"on_delete": way}
        subscriptions.run([contract()], changes=changes)
        assert ends(subscriptions.run([], changes=changes)) == {"deleted": 1}
        (held,) = subscriptions.held("subscriptions")
        assert (held["status"], held["cancel_at_period_end"] or status == "canceled") == (
            status, True,
        )  # fmt: skip
        assert ends(subscriptions.run([], changes=changes)) == {}
    assert ends(subscriptions.run([contract()])) == {"created": 1}  # the one that ended stays so


def test_a_row_that_comes_back_undoes_the_end_of_its_subscription(subscriptions: Pushing) -> None:
    changes = LIMITS | {"on_delete": "cancel_at_period_end"}
    for rows in ([contract()], [], [contract()]):
        assert subscriptions.run(rows, changes=changes).exit_code == 0
    (held,) = subscriptions.held("subscriptions")
    assert held["cancel_at_period_end"] is False


def test_a_subscription_that_somebody_ended_is_not_started_again(subscriptions: Pushing) -> None:
    subscriptions.run([contract()])
    subscriptions.box.cancel(subscriptions.held("subscriptions")[0]["id"])
    result = subscriptions.run([contract("pro")])
    assert "has ended" in reasons(result)["c1"]
    assert len(subscriptions.held("subscriptions")) == 1


@pytest.mark.parametrize("fault", ["500_after", "reset"])
def test_an_update_without_an_answer_is_seen_in_the_items(
    subscriptions: Pushing, fault: Any
) -> None:
    changes = {"nulls": "unset"}
    subscriptions.run([contract(extra="seat", seats=3)], changes=changes)
    for row in (contract("pro", "seat", 4), contract("pro"), contract("pro", "basic", 2)):
        subscriptions.box.faults.always[CHANGE] = fault
        assert ends(subscriptions.run([row], changes=changes)) == {"updated": 1}
        subscriptions.box.faults.always.clear()
        assert ends(subscriptions.run([row], changes=changes)) == {"unchanged": 1}
    assert items(subscriptions) == {"pro": 1, "basic": 2}


# -- invoices and their items ----------------------------------------------------------------------


@pytest.fixture
def invoices() -> Iterator[Pushing]:
    fields = {"customer": CUSTOMER, "metadata.order": "order", "description": "note",
              "currency": {"value": "usd"}, "collection_method": {"value": "send_invoice"}, "days_until_due": {"value": 14},
              "auto_advance": {"value": False}}  # fmt: skip
    settings = {"object": "invoices", "key": "order", "match": "metadata.order"}
    with pushing(**settings, map=fields) as found:
        yield prepared(found)


LINES = {
    "object": "invoice_items", "key": "line", "match": "metadata.line", "name": "lines",
    "map": {
        "customer": CUSTOMER, "metadata.line": "line", "amount": "amount", "currency": {"value": "usd"},
        "invoice": {"column": "order", "find": "invoices", "by": "metadata.order"},
    },
}  # fmt: skip
ORDER = {"order": "o1", "email": "a@example.com", "note": "First"}
LINE = {"line": "l1", "order": "o1", "email": "a@example.com", "amount": 500}


def finalize(push: Pushing) -> Row:
    (held,) = push.held("invoices")
    with push.opened() as opened:
        opened.lookup.api.post(f"/v1/invoices/{held['id']}/finalize", {}, bytes)
    push.box.reset_counts()
    return push.held("invoices")[0]


@pytest.mark.checklist("H13")
def test_an_invoice_gets_its_items_and_changes_while_it_is_a_draft(invoices: Pushing) -> None:
    assert ends(invoices.run([ORDER])) == {"created": 1}
    assert ends(invoices.run([LINE], changes=LINES)) == {"created": 1}
    assert ends(invoices.run([{**LINE, "amount": 700}], changes=LINES)) == {"updated": 1}
    assert ends(invoices.run([{**ORDER, "note": "Second"}])) == {"updated": 1}
    (held,) = invoices.held("invoices")
    assert (held["total"], held["description"], held["status"]) == (700, "Second", "draft")
    for rows, changes in (([{**LINE, "amount": 700}], LINES), ([{**ORDER, "note": "Second"}], {})):
        again = invoices.run(rows, changes=changes, full_resync=True)
        assert ends(again) == {"unchanged": 1}


@pytest.mark.checklist("H11e H12 H15")
def test_a_finalized_invoice_is_left_alone_and_the_reason_is_told(invoices: Pushing) -> None:
    invoices.run([ORDER])
    invoices.run([LINE], changes=LINES)
    finalize(invoices)
    result = invoices.run([{**ORDER, "note": "Second"}])
    assert "is open: Stripe does not change description any more" in reasons(result)["o1"]
    result = invoices.run([{**LINE, "amount": 700}], changes=LINES)
    assert "no draft any more: it cannot be changed" in reasons(result)["l1"]
    gone = LIMITS | {"on_delete": "delete"}
    for changes, key in ((gone, "o1"), ({**LINES, **gone}, "l1")):
        result = invoices.run([], changes=changes)
        assert (ends(result), "it stays" in reasons(result)[key]) == ({"skipped": 1}, True)
    assert invoices.writes() == []


def test_drafts_are_deleted_and_open_invoices_voided_if_that_is_asked_for(
    invoices: Pushing,
) -> None:
    void = LIMITS | {"on_delete": "void"}
    invoices.run([ORDER, {**ORDER, "order": "o2"}], changes=void)
    invoices.run([LINE], changes=LINES)
    first = next(one for one in invoices.held("invoices") if one["metadata"]["order"] == "o1")
    with invoices.opened() as opened:
        opened.lookup.api.post(f"/v1/invoices/{first['id']}/finalize", {}, bytes)
    assert ends(invoices.run([], changes=void)) == {"deleted": 2}
    assert [one["status"] for one in invoices.held("invoices")] == ["void"]


@pytest.mark.checklist("H12")
def test_items_that_wait_are_deleted_with_their_rows(invoices: Pushing) -> None:
    waiting = {**LINES, **LIMITS, "on_delete": "delete"}
    waiting["map"] = {k: v for k, v in LINES["map"].items() if k != "invoice"}  # type: ignore[attr-defined]
    invoices.run([LINE], changes=waiting)
    assert len(invoices.held("invoiceitems")) == 1
    assert ends(invoices.run([], changes=waiting)) == {"deleted": 1}
    assert invoices.held("invoiceitems") == []


# -- quotes ----------------------------------------------------------------------------------------


@pytest.fixture
def quotes() -> Iterator[Pushing]:
    fields = {"customer": CUSTOMER, "metadata.offer": "offer", "header": "title",
              "line_items[0].price": {"column": "plan", **BY_KEY}, "line_items[0].quantity": "n"}  # fmt: skip
    settings = {"object": "quotes", "key": "offer", "match": "metadata.offer"}
    with pushing(**settings, map=fields) as found:
        yield prepared(found)


OFFER = {"offer": "q1", "email": "a@example.com", "title": "Offer", "plan": "basic", "n": 2}


@pytest.mark.checklist("H9 H14")
def test_a_quote_changes_while_it_is_a_draft(quotes: Pushing) -> None:
    assert ends(quotes.run([OFFER])) == {"created": 1}
    assert ends(quotes.run([OFFER], full_resync=True)) == {"unchanged": 1}
    assert ends(quotes.run([{**OFFER, "title": "Better", "n": 3}])) == {"updated": 1}
    (held,) = quotes.held("quotes")
    assert (held["header"], held["amount_total"], held["status"]) == ("Better", 3_000, "draft")


def test_a_blank_cell_removes_no_line_of_a_quote(quotes: Pushing) -> None:
    second = {"line_items[1].price": {"column": "extra", **BY_KEY}}
    two = {"map": quotes.definition["map"] | second}
    quotes.run([{**OFFER, "extra": "seat"}], changes=two)
    blank = [{**OFFER, "extra": None}]
    assert "line_items[1] is empty" in reasons(quotes.run(blank, changes=two))["q1"]
    assert ends(quotes.run(blank, changes=two | {"nulls": "unset"})) == {"updated": 1}
    assert quotes.held("quotes")[0]["amount_total"] == 2_000


def test_a_quote_that_is_open_is_left_alone_and_canceled_with_its_row(quotes: Pushing) -> None:
    gone = LIMITS | {"on_delete": "cancel"}
    quotes.run([OFFER], changes=gone)
    (held,) = quotes.held("quotes")
    with quotes.opened() as opened:
        opened.lookup.api.post(f"/v1/quotes/{held['id']}/finalize", {}, bytes)
    result = quotes.run([{**OFFER, "title": "Better"}], changes=gone)
    assert "is open: only a draft can be changed" in reasons(result)["q1"]
    assert ends(quotes.run([], changes=gone)) == {"deleted": 1}
    assert [one["status"] for one in quotes.held("quotes")] == ["canceled"]


# -- definitions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("object", "way"),
    [("subscriptions", "delete"), ("quotes", "delete"), ("invoices", "cancel"), ("invoice_items", "void")],
)  # fmt: skip
def test_what_cannot_be_done_to_an_object_is_refused(object: str, way: str) -> None:
    with pytest.raises(UsageError, match=f"on_delete of {object} is one of nothing"):
        make_definition(
            "x", {"object": object, "key": "k", "match": "metadata.k", "on_delete": way, **LIMITS}
        )


@pytest.mark.checklist("H9")
@pytest.mark.parametrize(
    ("object", "name", "says"),
    [
        ("quotes", "computed", "Stripe computes this part"),
        ("invoices", "customer_address", "Update the customer"),
        ("subscriptions", "status", "cannot be set"),
        ("invoice_items", "price", "Set pricing.price"),
    ],
)
def test_what_is_no_parameter_is_told(object: str, name: str, says: str) -> None:
    fields = {"metadata.k": "k", name: "x"}
    definition = make_definition(
        "x", {"object": object, "key": "k", "match": "metadata.k", "map": fields}
    )
    with pytest.raises(InvalidParameter, match=says):
        push_fields(definition, ["k", "x"])


def test_what_somebody_else_canceled_stays_canceled_when_its_row_comes_back(
    subscriptions: Pushing,
) -> None:
    changes = LIMITS | {"on_delete": "cancel_at_period_end"}
    subscriptions.run([contract()], changes=changes)
    (held,) = subscriptions.held("subscriptions")
    subscriptions.box.update("subscriptions", held["id"], cancel_at_period_end=True)
    assert ends(subscriptions.run([], changes=changes)) == {"skipped": 1}
    assert ends(subscriptions.run([contract()], changes=changes)) == {"unchanged": 1}
    with subscriptions.opened() as push:
        push.reset()
    assert ends(subscriptions.run([contract()], changes=changes)) == {"unchanged": 1}
    (held,) = subscriptions.held("subscriptions")
    assert held["cancel_at_period_end"] is True


# -- other lists -----------------------------------------------------------------------------------

NUMBERED = {
    f"invoice_settings.custom_fields[{n}].{part}": f"{part}{n}"
    for n in range(2)
    for part in ("name", "value")
}
FIELDS = [{"name": "PO", "value": "1"}, {"name": "Site", "value": "Bonn"}]


@pytest.mark.parametrize(
    ("object", "fields", "first", "blank"),
    [
        ("products", {"images": "list"}, {"list": ["https://a.example", "https://b.example"]},
         {"list": ["https://a.example", None]}),
        ("products", {"marketing_features": "list"}, {"list": [{"name": "A"}, {"name": "B"}]},
         {"list": [{}, {"name": "B"}]}),
        ("customers", NUMBERED, {"name0": "PO", "value0": "1", "name1": "Site", "value1": "Bonn"},
         {"name0": "PO", "value0": "1", "name1": None, "value1": ""}),
        ("customers", {"invoice_settings": "hash"}, {"hash": {"custom_fields": FIELDS}},
         {"hash": {"custom_fields": [None, FIELDS[1]]}}),
    ],
    ids=["images", "features", "numbered", "hash"],
)  # fmt: skip
def test_a_blank_cell_shortens_no_list(object: str, fields: Row, first: Row, blank: Row) -> None:
    key = {"products": "metadata.k", "customers": "metadata.k"}[object]
    fields = {key: "k", "name": "k", **fields}
    with pushing(object=object, key="k", match=key, map=fields) as push:
        assert ends(push.run([{"k": "x", **first}])) == {"created": 1}
        before = push.held(object)
        result = push.run([{"k": "x", **blank}])
        assert "is empty, and what is there is not removed for that" in reasons(result)["x"]
        assert push.held(object) == before
        unset = push.run([{"k": "x", **blank}], changes={"nulls": "unset"})
        assert ends(unset) == {"updated": 1}
        assert push.held(object) != before


def test_an_entry_that_a_list_never_had_may_be_empty() -> None:
    fields = {"metadata.k": "k", "name": "k", **NUMBERED}
    row = {"k": "x", "name0": "PO", "value0": "1", "name1": None, "value1": None}
    with pushing(object="customers", key="k", match="metadata.k", map=fields) as push:
        assert ends(push.run([row])) == {"created": 1}
        assert ends(push.run([{**row, "value0": "2"}])) == {"updated": 1}
