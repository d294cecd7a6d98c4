"""Every combination that a push can be asked for: seven objects, three modes, what rows match on, what
becomes of an object whose row is gone, and what an empty cell means.

What is decided needs no socket: all cases share one sandbox. Then each object is pushed in each mode
over HTTP, once.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from stripe_feed.errors import InvalidParameter, UsageError
from stripe_feed.resources.writable import WRITABLE
from stripe_feed.sandbox import Sandbox
from stripe_feed.write.lookup.find import Lookup
from stripe_feed.write.push.decide import decide
from stripe_feed.write.push.decision import Decision
from stripe_feed.write.push.definition import Definition, make_definition
from stripe_feed.write.push.log import LoggedRow
from stripe_feed.write.push.mapping import push_fields, wanted_of
from stripe_feed.write.push.matching import Matcher
from stripe_feed.write.push.references import References
from stripe_feed.write.push.rules.removals import decide_removal
from tests.direct import direct_lookup
from tests.pushing import Pushing, Row, ends
from tests.writing import done

MODES = ("insert", "update", "upsert")
NULLS = ("skip", "unset", "error")
MATCHES = ("id", "email", "lookup_key", "metadata.ref")
WAYS = ("nothing", "delete", "deactivate", "cancel", "cancel_at_period_end", "void")
LIMITS = {"max_deletes": 9, "max_delete_share": 1}

FINDS: dict[str, dict[str, set[str]]] = {
    "customers": {"insert": {"email"}, "upsert": {"email"}, "update": {"id", "email"}},
    "products": {"insert": {"id"}, "upsert": {"id"}, "update": {"id"}},
    "prices": {"insert": {"lookup_key"}, "upsert": {"lookup_key"}, "update": {"id", "lookup_key"}},
    "subscriptions": {"insert": set(), "upsert": set(), "update": {"id"}},
    "invoices": {"insert": set(), "upsert": set(), "update": {"id"}},
    "invoice_items": {"insert": set(), "upsert": set(), "update": {"id"}},
    "quotes": {"insert": set(), "upsert": set(), "update": {"id"}},
}
"""What finds the object of a row, by mode, beside the metadata: Stripe chooses all ids but those of
products.
"""
REMOVES: dict[str, set[str]] = {
    "customers": {"delete"},
    "products": {"delete", "deactivate"},
    "prices": {"deactivate"},
    "subscriptions": {"cancel", "cancel_at_period_end"},
    "invoices": {"delete", "void"},
    "invoice_items": {"delete"},
    "quotes": {"cancel"},
}
"""What Stripe lets be done to an object; nothing is the default."""
NEW: dict[str, Row] = {
    "customers": {"description": "Old"},
    "products": {"name": "A", "description": "Old"},
    "prices": {"product": "prod_m", "currency": "usd", "unit_amount": 500, "metadata.note": "Old"},
    "subscriptions": {
        "customer": "cus_matrix", "items": [{"price": "price_m"}], "description": "Old",
        "collection_method": "send_invoice", "days_until_due": 30,
    },
    "invoices": {
        "customer": "cus_matrix", "currency": "usd", "description": "Old", "auto_advance": False,
        "collection_method": "send_invoice", "days_until_due": 14,
    },
    "invoice_items": {
        "customer": "cus_matrix", "currency": "usd", "amount": 500, "description": "Old",
    },
    "quotes": {
        "customer": "cus_matrix", "line_items": [{"price": "price_m", "quantity": 1}], "header": "Old",
    },
}  # fmt: skip
"""What a new object of each kind needs, and one field that can be cleared (the last or only text)."""
CLEARED = dict.fromkeys(NEW, "description") | {
    "prices": "metadata.note",
    "quotes": "header",
}


@pytest.fixture(scope="module")
def box() -> Sandbox:
    """An account with a customer, a product and a monthly price."""
    box = Sandbox(seed=5, customers=1, oddities=False)
    box.create("customers", id="cus_matrix", currency=None)
    box.create("products", id="prod_m", default_price=None)
    box.create("prices", id="price_m", product="prod_m", currency="usd", unit_amount=500,
               unit_amount_decimal="500", type="recurring", active=True)  # fmt: skip
    return box


@pytest.fixture(scope="module")
def url(box: Sandbox) -> Iterator[str]:
    with box.serve() as url:
        yield url


@pytest.fixture(scope="module")
def lookup(box: Sandbox) -> Lookup:
    return direct_lookup(box)


_numbers = itertools.count(1)


def new(table: str) -> Row:
    """A row that stands for one object, whatever it matches on."""
    ref = f"{table}-{next(_numbers)}"
    row = {"k": ref, "metadata.ref": ref, **NEW[table]}
    return row | {"customers": {"email": f"{ref}@example.com"}, "products": {"id": ref},
                  "prices": {"lookup_key": ref}}.get(table, {})  # fmt: skip


def made(lookup: Lookup, table: str, row: Row) -> Row:
    """Create the object of a row at Stripe."""
    definition = definition_of(table, mode="insert")
    (step, *_) = decision_of(lookup, definition, row).steps
    held: Row = lookup.api.post(step.path, step.params, decode_json).value
    return held


def decode_json(body: bytes) -> Any:
    return json.loads(body)


def definition_of(table: str, **settings: Any) -> Definition:
    return make_definition(table, {"object": table, "key": "k", **settings})


def decision_of(lookup: Lookup, push: Definition, row: Row) -> Decision:
    wanted = wanted_of(push, push_fields(push, row), row)
    return decide(push, References(push, Matcher(lookup), None), wanted, None)


# -- what can be asked for -------------------------------------------------------------------------


@pytest.mark.checklist("H1 H2 H5 H6a H6b H6c H6d H6e H6f H10 H11a H11b H11c H11d H11e H11f")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("table", FINDS)
def test_a_definition_stands_for_what_stripe_can_do(table: str, mode: str) -> None:
    """Every match, delete behaviour and meaning of null: 90 definitions for each object and mode."""
    for match, way, nulls in itertools.product((None, *MATCHES), WAYS, NULLS):
        finds = match in FINDS[table][mode] or match == "metadata.ref"
        finds = finds or (match is None and mode == "insert")
        removes = way == "nothing" or (mode == "upsert" and way in REMOVES[table])
        given = {"mode": mode, "on_delete": way, "nulls": nulls, **LIMITS}
        if match is not None:
            given["match"] = match
        try:
            made = definition_of(table, **given)
        except UsageError as error:
            assert not (finds and removes), (given, str(error))
        else:
            assert finds and removes, given
            assert (made.mode, made.match, made.on_delete, made.nulls) == (mode, match, way, nulls)


# -- what a row needs ------------------------------------------------------------------------------


@pytest.mark.checklist("H2 H5 H6a H6b H6c H6d H6e H6f H20")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("table", FINDS)
def test_a_row_is_decided_by_mode_match_and_nulls(lookup: Lookup, table: str, mode: str) -> None:
    """A row with an empty cell, whose object is there or not."""
    row = new(table)
    held = made(lookup, table, row)
    field, other = CLEARED[table], {**new(table), "k": row["k"]}
    nobody = WRITABLE[table].prefix + "nobody1"
    for match, nulls in itertools.product((*FINDS[table][mode], "metadata.ref"), NULLS):
        push = definition_of(table, mode=mode, match=match, nulls=nulls)
        for is_there in (True, False):
            given = {**(row if is_there else other), field: None}
            if match == "id":
                given["id"] = held["id"] if is_there else other.get("id", nobody)
            expected = expectation(mode, nulls, is_there)
            try:
                found = decision_of(lookup, push, given)
            except InvalidParameter as error:
                assert expected == "reject", (match, nulls, str(error))
                assert error.param == field
                continue
            assert found.action == expected, (match, nulls, is_there)
            for step in found.steps:
                sent = flat(step.params)
                assert (step.verb, sent.get(field)) == (
                    expected, "" if expected == "update" else None,
                )  # fmt: skip
                assert expected == "create" or step.path == f"{WRITABLE[table].path}/{held['id']}"
                assert expected == "create" or {*sent} - {"proration_behavior"} == {field}


def expectation(mode: str, nulls: str, is_there: bool) -> str:
    """What a row needs that differs from its object by one empty cell."""
    if is_there and mode == "insert":
        return "none"
    if not is_there and mode == "update":
        return "skip"
    if nulls == "error":
        return "reject"
    if not is_there:
        return "create"
    return "update" if nulls == "unset" else "none"


def flat(params: Mapping[str, Any]) -> Row:
    """Parameters with the keys of the metadata beside the others."""
    metadata = params.get("metadata") or {}
    return {k: v for k, v in params.items() if k != "metadata"} | {
        f"metadata.{k}": v for k, v in metadata.items()
    }


# -- what becomes of an object whose row is gone ---------------------------------------------------

REMOVALS: list[tuple[str, str, str, str, Row]] = [
    ("customers", "delete", "delete", "", {}),
    ("products", "delete", "delete", "", {}),
    ("products", "deactivate", "post", "", {"active": False}),
    ("prices", "deactivate", "post", "", {"active": False}),
    ("subscriptions", "cancel", "delete", "", {}),
    ("subscriptions", "cancel_at_period_end", "post", "", {"cancel_at_period_end": True}),
    ("invoices", "delete", "delete", "", {}),
    ("invoices", "void", "delete", "", {}),  # a draft is deleted in any case
    ("invoice_items", "delete", "delete", "", {}),
    ("quotes", "cancel", "post", "/cancel", {}),
]
"""Object, delete behaviour, and the request: method, what follows the object's path, parameters."""


@pytest.mark.checklist("H11a H11b H11d H11e H11f")
@pytest.mark.parametrize(("table", "way", "method", "suffix", "params"), REMOVALS)
def test_each_delete_behaviour_is_one_request(
    lookup: Lookup, table: str, way: str, method: str, suffix: str, params: Row
) -> None:
    held = made(lookup, table, new(table))
    (step,) = removal(lookup, table, way, held["id"]).steps
    path = f"{WRITABLE[table].path}/{held['id']}{suffix}"
    assert (step.method, step.path, dict(step.params)) == (method, path, params)


def test_no_delete_behaviour_is_left_out() -> None:
    assert {(table, way) for table, ways in REMOVES.items() for way in ways} == {
        (table, way) for table, way, *_ in REMOVALS
    }


def removal(lookup: Lookup, table: str, way: str, object_id: str) -> Decision:
    push = definition_of(table, match="metadata.ref", on_delete=way, **LIMITS)
    row = LoggedRow("k", 1, "done", "c", "c", object_id, (), None)
    return decide_removal(lookup, push, row, explain=False)


KEPT: list[tuple[str, str, list[str], str, str]] = [
    ("products", "delete", ["price"], "delete", "deactivated instead"),
    ("prices", "deactivate", ["archive"], "drop", "inactive already"),
    ("subscriptions", "cancel", ["cancel"], "drop", "has ended already"),
    ("invoices", "delete", ["finalize"], "drop", "The invoice is open: it stays."),
    ("invoices", "void", ["finalize"], "delete", ""),
    ("invoices", "void", ["finalize", "pay"], "drop", "The invoice is paid: it stays."),
    ("invoice_items", "delete", ["attach", "finalize"], "drop", "no draft any more: it stays"),
    ("invoice_items", "delete", ["attach"], "delete", ""),
    ("quotes", "cancel", ["finalize"], "delete", ""),
    ("quotes", "cancel", ["cancel"], "drop", "The quote is canceled: it stays."),
]
"""Object, delete behaviour, what happened to the object before, and what is decided, and why."""


@pytest.mark.checklist("H11b H11d H11e H11f H12")
@pytest.mark.parametrize(("table", "way", "before", "action", "says"), KEPT)
def test_what_stripe_does_not_delete_stays_and_the_reason_is_told(
    box: Sandbox, lookup: Lookup, table: str, way: str, before: list[str], action: str, says: str
) -> None:
    row = new(table)
    if "attach" in before:
        invoice = made(lookup, "invoices", new("invoices"))
        row["invoice"] = invoice["id"]
    held = made(lookup, table, row)
    path = f"{WRITABLE[table].path}/{held['id']}"
    for step in before:
        match step:
            case "price":
                box.create("prices", product=held["id"])
            case "archive":
                done(box, "POST", path, {"active": "false"})
            case "cancel" if table == "subscriptions":
                done(box, "DELETE", path)
            case "finalize" if table == "invoice_items":
                done(box, "POST", f"/v1/invoices/{row['invoice']}/finalize")
            case "finalize" if table == "invoices":
                item = {"customer": "cus_matrix", "invoice": held["id"], "amount": "500", "currency": "usd"}  # fmt: skip
                done(box, "POST", "/v1/invoiceitems", item)
                done(box, "POST", f"{path}/finalize", {"auto_advance": "false"})
            case "pay":
                done(box, "POST", f"{path}/pay", {"paid_out_of_band": "true"})
            case "finalize" | "cancel":
                done(box, "POST", f"{path}/{step}")
    found = removal(lookup, table, way, held["id"])
    assert found.action == action
    assert says in f"{found.reason} {' '.join(found.notes)}"
    assert found.action == "drop" or found.steps


# -- pushed ----------------------------------------------------------------------------------------


@pytest.mark.checklist("H1 H2 H19")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("table", FINDS)
def test_each_object_is_pushed_in_each_mode(
    box: Sandbox, url: str, lookup: Lookup, table: str, mode: str
) -> None:
    """A row whose object is there, and one whose object is not; a second run sends nothing."""
    field, known, fresh = CLEARED[table], new(table), new(table)
    held = made(lookup, table, known)
    match = next(iter(FINDS[table]["insert"]), "metadata.ref")
    push = Pushing(box, url, name=f"{table}-{mode}", object=table, key="k", mode=mode, match=match)
    rows = [{**known, field: "New"}, {**fresh, field: "New"}]
    expected = {
        "insert": {"created": 1, "unchanged": 1},
        "update": {"updated": 1, "skipped": 1},
        "upsert": {"created": 1, "updated": 1},
    }[mode]

    result = push.run(rows)
    assert ends(result) == expected, [row.reason for row in result.rows]
    account = {
        one["metadata"]["ref"]: one
        for one in box.objects(table.replace("_", "")).values()
        if "ref" in (one.get("metadata") or {})
    }  # fmt: skip
    after = account[known["metadata.ref"]]
    is_changed = flat(after)[field] == "New"
    assert (after["id"], is_changed) == (held["id"], mode != "insert")
    assert (fresh["metadata.ref"] in account) is (mode != "update")
    push.writes()
    again = ends(push.run(rows))
    assert (again, push.writes()) == (
        {"skipped": 1, "unchanged": 1} if mode == "update" else {"unchanged": 2}, [],
    )  # fmt: skip
