"""Requests without an answer whose object is hard to find: on a test clock, in a long list, or wanted by
another row meanwhile.
"""

from __future__ import annotations

from typing import Any

import pytest

from stripe_feed.errors import UsageError
from stripe_feed.write.push.log import REPEATABLE, PushLog, PushStep
from stripe_feed.write.push.send import AFTER, BEFORE, sending_windows
from tests.pushing import Pushing, Row, ends, killed_at, pushing, reasons

CREATE = "POST /v1/customers"
ANN = {"id": 1, "email": "ann@example.com", "name": "Ann"}
DELETES = {"on_delete": "delete", "max_deletes": 5, "max_delete_share": 1}
CRM: dict[str, Any] = {
    "object": "customers", "key": "id", "match": "email", "map": {"email": "email", "name": "name"},
}  # fmt: skip


def doubted(push: Pushing, rows: list[Row], place: str, **changes: Any) -> None:
    """Rows that Stripe carried out without an answer, and the process died before it could look."""
    push.box.faults.always[place] = "reset"
    with killed_at(pytest.MonkeyPatch(), PushLog, "mark_unknown", "before"):
        push.run(rows, changes=changes)
    push.box.faults.always.clear()


def lists(push: Pushing, path: str) -> list[Row]:
    return [call.params for call in push.box.log if (call.method, call.template) == ("GET", path)]


# -- rows that are renamed meanwhile ---------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, DELETES], ids=["kept", "deleted"])
@pytest.mark.parametrize("is_still_down", [False, True], ids=["settled", "in doubt"])
def test_a_row_that_gets_another_key_while_its_request_is_open_has_one_object(
    changes: Row, is_still_down: bool
) -> None:
    with pushing(**CRM) as crm:
        crm.box.faults.always[CREATE] = 500  # it is not carried out, and nothing shows that
        assert ends(crm.run([ANN], changes=changes)) == {"unknown": 1}
        renamed = {**ANN, "id": 99}
        if is_still_down:
            result = crm.run([renamed], changes=changes)
            assert "may have created what this row matches on" in reasons(result)["99"]
        crm.box.faults.always.clear()
        assert crm.run([renamed], changes=changes).exit_code == 0
        crm.run([renamed], changes=changes)
        created = [event for event in crm.box.events if b'"customer.created"' in event.body]
        assert (len(created), len(crm.held())) == (1, 1)


# -- objects that lists hide, or have among many ---------------------------------------------------


def test_a_customer_on_a_test_clock_is_found_after_a_day() -> None:
    with pushing(**CRM | {"map": CRM["map"] | {"test_clock": "clock"}}) as crm:
        crm.box.account.clocks["clock_1"] = {"id": "clock_1", "object": "test_helpers.test_clock"}
        row = {**ANN, "clock": "clock_1"}
        doubted(crm, [row], CREATE)
        crm.box.advance(REPEATABLE + 3_600)
        assert ends(crm.run([row])) == {"created": 1}
        assert [one["test_clock"] for one in crm.held()] == ["clock_1"]


@pytest.mark.parametrize("customer", ["cus_payer1", None])
def test_a_quote_is_looked_for_among_few(customer: str | None) -> None:
    """Stripe's list of quotes knows no `created`, but has the newest first."""
    offers: Row = {"object": "quotes", "key": "id", "mode": "insert",
                   "map": {"description": "text", "customer": "customer"}}  # fmt: skip
    with pushing(**offers) as quotes:
        quotes.box.create("customers", id="cus_payer1")
        for n in range(250):
            quotes.box.create("quotes", created=quotes.box.now - 86_400 - n)
        row = {"id": "o1", "text": "Bikes", "customer": customer}
        quotes.box.faults.always["POST /v1/quotes"] = 500
        quotes.run([row])
        quotes.box.faults.always.clear()
        quotes.box.advance(REPEATABLE + 3_600)
        quotes.box.log.clear()
        assert ends(quotes.run([row])) == {"created": 1}
        (asked,) = lists(quotes, "/v1/quotes")
        assert asked.get("customer") == customer


def test_what_was_sent_twice_in_a_day_is_not_looked_for_in_between() -> None:
    with pushing(**CRM | {"mode": "insert", "match": None, "map": {"name": "name"}}) as crm:
        start = int(crm.box.now)
        crm.box.faults.always[CREATE] = 500
        crm.run([ANN])
        crm.box.advance(20 * 3_600)
        crm.run([ANN])
        crm.box.faults.always.clear()
        crm.box.advance(REPEATABLE)
        crm.box.log.clear()
        assert ends(crm.run([ANN])) == {"created": 1}
        spans = [params["created"] for params in lists(crm, "/v1/customers")]
        assert len(spans) == 2
        assert all(int(span["lte"]) - int(span["gte"]) < 3_600 for span in spans)
        assert int(spans[0]["gte"]) <= start < int(spans[0]["lte"]) < int(spans[1]["gte"])


def test_times_of_sending_that_are_near_are_one_window() -> None:
    now = 10_000.0
    with PushLog("x.sqlite", lambda: now) as log:
        log.stamp("acct_1", False)
        (operation,) = log.begin("crm", "1", "A", [PushStep("create", "post", "/v1/customers", {})])
        for later in (10_100.0, 90_000.0):
            now = later
            log.mark_sent(operation)
            (operation,) = log.open_steps("crm", "1")
    assert sending_windows(operation, 0.0) == [
        (10_000 - BEFORE, 10_100 + AFTER), (90_000 - BEFORE, 90_000 + AFTER),
    ]  # fmt: skip


# -- updates that show in another form than they are sent -----------------------------------------

ODDLY_SHOWN: dict[str, tuple[dict[str, Any], Row]] = {
    "quotes": (
        {"line_items[0].price": {"value": "price_1"}, "line_items[0].quantity": "n"}, {},
    ),
    "invoices": (
        {"days_until_due": "n", "collection_method": {"value": "send_invoice"}}, {},
    ),
    "invoice_items": (
        {"pricing.price": "price"}, {"price": "price_2"},
    ),
    "customers": (
        {"name": "price", "validate": {"value": True}}, {"price": "price_2"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("object", ODDLY_SHOWN)
def test_an_update_that_was_carried_out_is_seen_though_stripe_answers_500_for_a_day(
    object: str,
) -> None:
    map, after = ODDLY_SHOWN[object]
    owner = {} if object == "customers" else {"customer": {"value": "cus_payer1"}}
    row: Row = {"k": "1", "n": 1, "price": "price_1"}
    with pushing(
        object=object, key="k", match="metadata.k", map={"metadata.k": "k", **owner, **map}
    ) as push:
        push.box.create("customers", id="cus_payer1", currency=None)
        for price in ("price_1", "price_2"):
            push.box.create("prices", id=price, currency="usd", unit_amount=1, recurring=None)
        assert ends(push.run([row])) == {"created": 1}
        changed = {**row, "n": 2, **after}
        path = f"POST /v1/{'invoiceitems' if object == 'invoice_items' else object}/:id"
        push.box.faults.always[path] = "500_after"
        assert ends(push.run([changed])) == {"updated": 1}
        push.writes()
        assert ends(push.run([changed])) == {"unchanged": 1}
        assert push.writes() == []


# -- one name, one kind of object ------------------------------------------------------------------


def test_a_name_that_stood_for_another_object_is_refused_until_it_is_reset() -> None:
    products: Row = {"object": "products", "match": "id", "map": {"id": "sku", "name": "name"}}
    rows = [{"id": 1, "sku": "gold", "name": "Gold"}]
    with pushing(**CRM) as crm:
        crm.run([ANN])
        crm.writes()
        for attempt in (crm.run, crm.plan):
            with pytest.raises(
                UsageError, match=r"stands for customers.*`stripe-feed push reset crm`"
            ):
                attempt(rows, changes=products)
        assert crm.writes() == []
        with crm.opened(**products) as push:
            push.reset()
        assert ends(crm.run(rows, changes=products)) == {"created": 1}
