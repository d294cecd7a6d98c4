"""Actions on the sandbox: every capability of the checklist by its id, matching, nulls, dry runs, and
how each can end.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from stripe_feed import open_actions, open_push
from stripe_feed.api.client import Clock
from stripe_feed.errors import PermissionMissing, SetupError, UsageError
from stripe_feed.forget_run import check_customer
from stripe_feed.resources.writable import WRITABLE
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.http.search import FIELDS as SEARCHED
from stripe_feed.write.actions import Actions
from stripe_feed.write.lookup import find
from stripe_feed.write.order import make_order
from stripe_feed.write.verbs import verbs_of
from tests.scripted import Answer, Scripted, Seen, scripted

KEY = "rk_test_canary51SecretOfTheKey"
EMAIL = "jane.canary@example.com"
NAME = "Canary O'Shea"
FAST: dict[str, Any] = {
    "max_rps": 5_000, "endpoint_rps": 5_000, "threads": 2,
    "clock": Clock(wait=lambda stopped, seconds: stopped.is_set()),  # without rests between tries
}  # fmt: skip


class Account:
    """A sandbox, and actions on it."""

    def __init__(self, box: Sandbox, actions: Actions) -> None:
        self.box, self.actions = box, actions

    def customer(self, **fields: Any) -> str:
        """A new customer's id."""
        done = self.actions.create("customers", {"email": EMAIL, **fields})
        assert done.status == "success", done.message
        return str(done.id)

    def held(self, table: str, object_id: str) -> dict[str, Any]:
        """What the account has."""
        found: dict[str, Any] = self.box.objects(table)[object_id]
        return found


@pytest.fixture
def account() -> Iterator[Account]:
    box = Sandbox(seed=5, customers=3)
    with box.serve() as url, open_actions(box.key, base=url, **FAST) as actions:
        yield Account(box, actions)


@contextmanager
def on(server: Scripted, key: str = KEY, **options: Any) -> Iterator[Actions]:
    """Actions on a scripted server."""
    with open_actions(key, base=server.url, **FAST, **options) as actions:
        yield actions


def body(value: Any) -> Answer:
    return Answer(body=json.dumps(value).encode(), headers={"Request-Id": "req_1"})


def refusal(status: int, **error: Any) -> Answer:
    return Answer(
        status, json.dumps({"error": {"type": "invalid_request_error", **error}}).encode()
    )


def page(*objects: dict[str, Any], more: bool = False) -> Answer:
    return body({"object": "list", "data": list(objects), "has_more": more})


def sent(request: Seen) -> dict[str, str]:
    text = request.body if request.method == "POST" else urlsplit(request.path).query
    return dict(parse_qsl(text, keep_blank_values=True))


def first(account: Account, table: str, **wanted: Any) -> dict[str, Any]:
    """The first object that the account has of a kind."""
    return next(
        held
        for held in account.box.objects(table).values()
        if all(held[name] == value for name, value in wanted.items())
    )


# -- the checklist ---------------------------------------------------------------------------------


def c_create(account: Account) -> None:
    given = {"name": NAME, "email": EMAIL, "phone": "+1", "description": "A note"}
    done = account.actions.create("customers", given)
    assert (done.status, done.message) == ("success", "Customer created successfully")
    assert done.object == done.raw and done.id and done.request_id
    held = account.held("customers", done.id)
    assert {name: held[name] for name in given} == given


def c_get(account: Account) -> None:
    done = account.actions.get("customers", account.customer())
    assert (done.status, done.message) == ("success", "Customer retrieved successfully")
    assert account.actions.get("customers", "cus_nope").code == "resource_missing"


def c_get_deleted(account: Account) -> None:
    customer = account.customer()
    account.actions.delete("customers", customer)
    done = account.actions.get("customers", customer)
    assert done.status == "success" and done.object == {
        "id": customer, "object": "customer", "deleted": True,
    }  # fmt: skip


def c_list(account: Account) -> None:
    for _ in range(2):
        account.customer()
    done = account.actions.list("customers", {"email": EMAIL})
    assert (len(done.objects or ()), done.via, done.has_more) == (2, "list", False)
    assert len(account.actions.list("customers", limit=4).objects or ()) == 4


def c_update(account: Account) -> None:
    customer = account.customer(name=NAME)
    done = account.actions.update("customers", customer, set={"metadata.order_id": "6735"})
    held = account.held("customers", customer)
    assert done.status == "success"
    assert (held["metadata"], held["name"], held["email"]) == ({"order_id": "6735"}, NAME, EMAIL)


def c_delete(account: Account) -> None:
    customer = account.customer()
    done = account.actions.delete("customers", customer)
    assert (done.status, done.raw) == (
        "success", {"id": customer, "object": "customer", "deleted": True},
    )  # fmt: skip
    assert customer not in account.box.objects("customers")


def c_delete_matching(account: Account) -> None:
    customer = account.customer()
    done = account.actions.delete("customers", match={"email": EMAIL}, dry_run=True)
    assert (done.status, done.id) == ("dry_run", customer)
    assert customer in account.box.objects("customers")
    assert account.actions.delete("customers", match={"email": EMAIL}).status == "success"
    assert account.actions.delete("customers", match={"email": EMAIL}).status == "error"


def c_bad_id(account: Account) -> None:
    before = account.actions.api.requests
    for bad in ("", "sub_1", "cus_1 ", "cus_\n1", "cus_" + "x" * 300):
        for verb in ("get", "update", "delete"):
            done = account.actions.run("customers", verb, id=bad)
            assert (done.status, done.param) == ("error", "id")
    assert account.actions.api.requests == before


def c_limit(account: Account) -> None:
    box = Sandbox(seed=5, customers=260)
    with box.serve() as url, open_actions(box.key, base=url, **FAST) as actions:
        done = actions.list("customers", limit=250)
        assert (len(done.objects or ()), done.has_more, actions.api.requests) == (250, True, 3)
    for limit in (0, -1, True, 1.5):
        with pytest.raises(UsageError, match="limit is a whole number"):
            account.actions.list("customers", limit=limit)


def c_flat(account: Account) -> None:
    customer = account.customer(name="Jane Doe")
    done = account.actions.get("customers", customer)
    assert done.to_dict(flat=True) == {
        "customer": done.object,
        "customer_id": customer,
        "status": "success",
        "message": "Customer retrieved successfully",
    }


def c_chain(account: Account) -> None:
    created = account.actions.create("customers", {"name": NAME})
    assert account.actions.update("customers", created.id, set={"phone": "+1"}).id == created.id


def c_email(account: Account) -> None:
    for bad in ("jane", "jane@", "@x.org", "a b@x.org", "a@x", f"{'a' * 510}@x.org"):
        done = account.actions.create("customers", {"email": bad})
        assert (done.status, done.param, bad in done.message) == ("error", "email", False)


def c_cards(account: Account) -> None:
    card = "4242 4242 4242 4242"
    for given in ({"description": f"card {card}"}, {"metadata": {"note": card}}, {"name": card}):
        done = account.actions.create("customers", given)
        assert (
            done.status == "error" and "card number" in done.message and "4242" not in done.message
        )
    wide = "".join(chr(ord(digit) + 0xFEE0) for digit in card if digit != " ")  # fullwidth digits
    for hidden in ({"description": wide}, {"metadata": {card: "1"}}):
        assert account.actions.create("customers", hidden).status == "error"
    for fine in ({"description": "order 1234567890123456"}, {"phone": "4242424242424242"}):
        assert account.actions.create("customers", fine).status == "success"


def c_nested(account: Account) -> None:
    customer = account.customer(address={"line1": "T 1", "city": "Bonn"})
    account.actions.update("customers", customer, set={"address.city": "Berlin"})
    assert (
        account.held("customers", customer)["address"] | {"city": "Berlin", "line1": "T 1"}
        == (account.held("customers", customer)["address"])
    )
    unset = account.actions.update("customers", customer, unset="address.city", dry_run=True)
    assert unset.requests[0].params["address"].items() >= {"line1": "T 1", "city": ""}.items()


def c_wrong_field(account: Account) -> None:
    done = account.actions.update("customers", "cus_1", set={"tax_id_data": [{"type": "eu_vat"}]})
    assert "only be set when a customer is created. Allowed: address, balance" in done.message
    with pytest.raises(UsageError, match=r"get takes no set\. It takes id, expand"):
        account.actions.get("customers", "cus_1", set={"name": "x"})


def c_insert(account: Account) -> None:
    first = account.actions.insert("customers", {"name": NAME}, match={"email": EMAIL})
    again = account.actions.insert("customers", {"name": "B"}, match={"email": EMAIL})
    assert (first.status, again.status, again.id) == ("success", "skipped", first.id)
    assert account.held("customers", str(first.id))["email"] == EMAIL


def c_upsert(account: Account) -> None:
    first = account.actions.upsert("customers", {"email": EMAIL}, set={"name": NAME})
    again = account.actions.upsert("customers", {"email": EMAIL}, set={"phone": "+1"})
    same = account.actions.upsert("customers", {"email": EMAIL}, set={"phone": "+1"})
    held = account.held("customers", str(first.id))
    assert (again.id, same.status, held["name"], held["phone"]) == (first.id, "skipped", NAME, "+1")


def c_only_if_empty(account: Account) -> None:
    customer = account.customer(name=NAME, metadata={"a": "1"})
    order = {"set": {"name": "B", "phone": "+1", "metadata": {"a": "2", "b": "2"}}}
    account.actions.update("customers", customer, only_if_empty=True, **order)
    held = account.held("customers", customer)
    assert (held["name"], held["phone"], held["metadata"]) == (NAME, "+1", {"a": "1", "b": "2"})
    account.actions.update("customers", customer, only_if_empty=("metadata.b",), set={
        "name": "B", "metadata": {"a": "3", "b": "3"},
    })  # fmt: skip
    held = account.held("customers", customer)
    assert (held["name"], held["metadata"]) == ("B", {"a": "3", "b": "2"})


def c_update_matching(account: Account) -> None:
    customer = account.customer()
    done = account.actions.update("customers", match={"email": EMAIL}, set={"name": NAME})
    assert (done.id, done.via) == (customer, "list")


def c_metadata_unset(account: Account) -> None:
    customer = account.customer(metadata={"a": "1", "b": "2", "c": "3"})
    account.actions.update("customers", customer, unset=("metadata.a",))
    assert account.held("customers", customer)["metadata"] == {"b": "2", "c": "3"}
    account.actions.update("customers", customer, set={"metadata": {"b": None}}, nulls="unset")
    assert account.held("customers", customer)["metadata"] == {"c": "3"}
    account.actions.update("customers", customer, unset=("metadata",))
    assert account.held("customers", customer)["metadata"] == {}


def c_refusal(account: Account) -> None:
    invalid = refusal(
        400, code="resource_missing", param="source", message="No such token: 'tok_x'"
    )
    with scripted(invalid) as server, on(server) as actions:
        for verb, where in (("create", {}), ("update", {"id": "cus_1"})):
            done = actions.run("customers", verb, set={"source": "tok_x"}, **where)
            assert (done.status, done.code, done.param) == ("error", "resource_missing", "source")
            assert "No such token: '<source>'" in done.message and done.exit_code == 1


def c_get_each(account: Account) -> None:
    for table in ("customers", "subscriptions", "invoices", "products", "prices", "plans"):
        object_id = next(iter(account.box.objects(table)))
        done = account.actions.get(table, object_id)
        assert (done.status, done.id) == ("success", object_id), table


def c_dict(account: Account) -> None:
    done = account.actions.get("customers", account.customer()).to_dict()
    assert json.loads(json.dumps(done)) == done
    assert [*done] == [
        "status", "message", "action", "id", "request_id", "via", "object", "raw",
    ]  # fmt: skip


def c_search(account: Account) -> None:
    product = first(account, "products")
    invoice = first(account, "invoices", status="paid")
    price = first(account, "prices", active=True, type="recurring")
    plan = first(account, "subscriptions")["items"]["data"][0]["price"]["id"]
    leaving = first(account, "subscriptions", status="active")["id"]
    at_risk = {"or": [{"status": "past_due"}, {"cancel_at_period_end": True}]}
    for where in ({"status": "active"}, at_risk):
        done = account.actions.search("subscriptions", where, limit=100)
        assert leaving in {one["id"] for one in done.objects or ()}, (where, done.message)
        account.actions.cancel("subscriptions", leaving, at_period_end=True)
    customer = account.customer(name="Jane", phone="+1")
    owed = account.actions.create("invoices", {
        "customer": customer, "currency": "usd", "collection_method": "send_invoice", "days_until_due": 1,
    })  # fmt: skip
    item = {"customer": customer, "invoice": owed.id, "amount": 500, "currency": "usd"}
    account.actions.create("invoice_items", item)
    account.actions.run("invoices", "finalize", id=owed.id)
    account.box.advance(2 * 86_400)
    overdue = {"status": "open", "due_date": {"lt": account.box.now}}
    searches: list[tuple[str, dict[str, Any], str]] = [
        ("products", {"name": product["name"], "active": product["active"]}, product["id"]),
        ("invoices", {"status": "paid", "total": {"gte": invoice["total"]}}, invoice["id"]),
        ("invoices", {"customer": invoice["customer"], "created": {"lte": invoice["created"]}}, invoice["id"]),
        ("customers", {"or": [{"name": "Jane", "phone": "+1"}, {"name": "nobody"}]}, customer),
        ("prices", {"currency": price["currency"], "unit_amount": {"gte": price["unit_amount"]}}, price["id"]),
        ("invoices", overdue, str(owed.id)),
        ("subscriptions", {"price": plan}, first(account, "subscriptions")["id"]),
    ]  # fmt: skip
    for table, where, object_id in searches:
        done = account.actions.search(table, where, limit=100)
        assert object_id in {one["id"] for one in done.objects or ()}, (table, where, done.message)


def c_canceled(account: Account) -> None:
    gone = first(account, "subscriptions", status="active")["id"]
    account.actions.cancel("subscriptions", gone)
    done = account.actions.search("subscriptions", {"status": "canceled"}, limit=100)
    assert gone in {one["id"] for one in done.objects or ()} and done.via == "list"


def c_side_effects(account: Account) -> None:
    customer, effect = account.customer(), "Stripe charges it for the open invoice"
    order = {"set": {"source": "tok_visa"}, "dry_run": True}
    assert effect in account.actions.update("customers", customer, **order).message
    push = {"object": "customers", "key": "k", "match": "email"}
    with open_push(push, account.box.key, base=account.actions.api.base, **FAST) as opened:
        (decision,) = opened.plan([{"k": 1, "email": EMAIL, "source": "tok_visa"}]).decisions
    assert decision.action == "update" and any(effect in note for note in decision.notes)
    assert account.held("customers", customer)["default_source"] is None


def c_key(account: Account) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STRIPE_SECRET_KEY", account.box.key)
        patch.setenv("STRIPE_API_BASE", account.actions.api.base)
        with open_actions() as actions:
            assert actions.list("customers").status == "success"
        patch.delenv("STRIPE_SECRET_KEY")
        with pytest.raises(SetupError, match="No Stripe key"):
            open_actions()


def c_pace(account: Account) -> None:
    with open_actions(account.box.key, base=account.actions.api.base, max_rps=40) as actions:
        started = actions.api.clock.monotonic()
        for n in range(10):
            actions.create("customers", {"name": str(n)})
        assert actions.api.clock.monotonic() - started > 0.05


CHECKLIST = {
    "C3 C4 C5 C7 C8 C10 C11 C12 C13": c_search,
    "C11 C18": c_canceled,
    "S35": c_side_effects,
    "N3 C1": c_key,
    "N29": c_pace,
    "N1 N4 N11 N12 N13 N14 N16 N17 N18 N19 N20 S30 S33 S39": c_create,
    "N5 N9 C14 S38": c_get,
    "S38 deleted": c_get_deleted,
    "N6 N9 N12 C3": c_list,
    "N7 S34 S31 S39 C21": c_update,
    "N8": c_delete,
    "C22": c_delete_matching,
    "N10": c_bad_id,
    "N15": c_limit,
    "N21": c_flat,
    "N26": c_chain,
    "N28": c_email,
    "N33": c_cards,
    "N34": c_nested,
    "N35 S36": c_wrong_field,
    "C19": c_insert,
    "C20": c_upsert,
    "C20 C21 only if empty": c_only_if_empty,
    "C21 matching": c_update_matching,
    "S31": c_metadata_unset,
    "S33 S37": c_refusal,
    "C14 C15 C16 C17": c_get_each,
    "N2": c_dict,
}


@pytest.mark.parametrize("row", CHECKLIST)
def test_the_checklist(account: Account, row: str) -> None:
    CHECKLIST[row](account)


CHECKLIST_PARAMETERS: list[tuple[str, str, Any, bool, bool]] = [
    ("SP1", "address", {"line1": "T 1", "country": "DE"}, True, True),
    ("SP2", "description", "A note", True, True),
    ("SP3", "email", "jane@example.com", True, True),
    ("SP4", "metadata", {"plan": "pro"}, True, True),
    ("SP5", "name", "Jane", True, True),
    ("SP6", "payment_method", "pm_card_visa", True, False),
    ("SP7", "phone", "+1", True, True),
    ("SP8", "shipping", {"name": "J", "address": {"line1": "T 1"}}, True, True),
    ("SP9", "tax", {"validate_location": "deferred"}, True, True),
    ("SP10", "balance", -500, True, True),
    ("SP11", "cash_balance", {"settings": {"reconciliation_mode": "manual"}}, True, True),
    ("SP12", "coupon", "25OFF", False, False),
    ("SP13", "invoice_prefix", "ABC", True, True),
    ("SP14", "invoice_settings", {"footer": "Thanks"}, True, True),
    ("SP15", "next_invoice_sequence", 7, True, True),
    ("SP16", "preferred_locales", ["de", "en"], True, True),
    ("SP17", "promotion_code", "promo_1", False, False),
    ("SP18", "source", "tok_visa", True, True),
    ("SP19", "tax_exempt", "exempt", True, True),
    ("SP20", "tax_id_data", [{"type": "eu_vat", "value": "DE1"}], True, False),
    ("SP21", "test_clock", "clock_1", True, False),
    ("SP22", "default_source", "card_1", False, True),
]
UNSEEN = {
    "payment_method",
    "tax",
    "cash_balance",
    "source",
    "tax_id_data",
    "test_clock",
    "default_source",
}
"""Not to be seen in the object as it was given, or about something that a sandbox lacks."""


@pytest.mark.checklist("S30 S32 S36")
@pytest.mark.parametrize("verb", ["create", "update"])
@pytest.mark.parametrize(("row", "name", "value", "creates", "updates"), CHECKLIST_PARAMETERS)
def test_the_parameters_of_a_customer(
    account: Account, row: str, name: str, value: Any, creates: bool, updates: bool, verb: str
) -> None:
    is_taken = creates if verb == "create" else updates
    where = {"id": account.customer()} if verb == "update" else {}
    plan = account.actions.run("customers", verb, set={name: value}, dry_run=True, **where)

    if not is_taken:
        assert plan.status == "error" and name in plan.message and plan.param == name
    elif name in UNSEEN:
        assert (plan.status, plan.requests[0].params) == ("dry_run", {name: value})
    else:
        done = account.actions.run("customers", verb, set={name: value}, **where)
        assert done.object is not None, done.message
        held = done.object[name]
        assert (
            held == value
            or value.items() <= {k: v for k, v in held.items() if v}.items()
            or (name == "shipping" and held["name"] == "J")
        )


# -- matching --------------------------------------------------------------------------------------


def twins(account: Account) -> tuple[str, str]:
    first = account.customer(name="First")
    account.box.advance(10)
    return first, account.customer(name="Second")


@pytest.mark.parametrize("policy", ["newest", "oldest", "all", "error"])
def test_several_matches_follow_the_policy(account: Account, policy: str) -> None:
    first, second = twins(account)
    done = account.actions.update(
        "customers", match={"email": EMAIL}, set={"phone": "+1"}, if_several=policy
    )
    phones = [account.held("customers", one)["phone"] for one in (first, second)]

    expected = {"newest": [None, "+1"], "oldest": ["+1", None], "all": ["+1", "+1"]}
    assert phones == expected.get(policy, [None, None])
    if policy == "error":
        assert done.status == "error" and first in done.message and second in done.message
    if policy == "all":
        assert [o["id"] for o in done.objects or ()] == [first, second] and done.id is None


def test_an_upsert_with_several_matches_creates_nothing(account: Account) -> None:
    twins(account)
    count = len(account.box.objects("customers"))

    assert account.actions.upsert("customers", {"email": EMAIL}).status == "error"
    assert len(account.box.objects("customers")) == count


def test_an_address_in_capitals_is_the_same_customer(account: Account) -> None:
    customer = account.customer()

    done = account.actions.upsert("customers", {"email": EMAIL.upper()}, set={"name": NAME})
    assert done.id == customer


def test_a_property_has_one_value(account: Account) -> None:
    """A range would match half of the account."""
    for several in ({"gte": 0}, [EMAIL]):
        done = account.actions.delete("customers", match={"created": several})
        assert done.status == "error" and "has one value" in done.message


@pytest.mark.parametrize("match", [{}, {"email": ""}, {"email": None}])
def test_an_empty_value_matches_nothing(account: Account, match: dict[str, Any]) -> None:
    """Or every customer without an address would be one and the same."""
    account.actions.create("customers", {"name": "No address"})
    before = account.actions.api.requests

    for verb in ("upsert", "delete", "update"):
        done = account.actions.run("customers", verb, match=match)
        assert done.status == "error" and "Nothing to match on" in done.message
    assert account.actions.api.requests == before


def test_a_failed_look_up_creates_nothing() -> None:
    with scripted(refusal(400, message="No.")) as server, on(server) as actions:
        done = actions.upsert("customers", {"email": EMAIL}, set={"name": NAME})

    assert done.status == "error" and [request.method for request in server.seen] == ["GET"]


@pytest.mark.parametrize(
    ("match", "query"),
    [
        ({"email": EMAIL}, {"email": EMAIL, "limit": "100"}),
        ({"metadata.crm": "7"}, {"limit": "100"}),
        ({"name": NAME}, {"limit": "100"}),
    ],
)
def test_a_create_is_never_decided_by_search(match: dict[str, str], query: dict[str, str]) -> None:
    with (
        scripted(page(), body({"id": "cus_1", "object": "customer"})) as server,
        on(server) as actions,
    ):
        done = actions.upsert("customers", match)

    assert done.status == "success" and done.via == "list"
    assert [urlsplit(request.path).path for request in server.seen] == ["/v1/customers"] * 2
    assert sent(server.seen[0]) == query and server.seen[1].method == "POST"


def test_search_may_decide_an_update_and_each_hit_is_tested() -> None:
    """It finds phrases: "Jane" finds "Mary Jane"."""
    hits = page({"id": "cus_1", "name": "Jane"}, {"id": "cus_2", "name": "Mary Jane"})
    with (
        scripted(hits, body({"id": "cus_1", "object": "customer"})) as server,
        on(server) as actions,
    ):
        done = actions.update("customers", match={"name": "Jane"}, set={"phone": "+1"})

    assert (done.id, done.via) == ("cus_1", "search")
    assert sent(server.seen[0])["query"] == 'name:"Jane"'


def test_a_look_up_does_not_read_an_account_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "MOST_READ", 4)
    many = page(*({"id": f"cus_{n}", "metadata": {}} for n in range(5)), more=True)
    with scripted(many) as server, on(server) as actions:
        done = actions.upsert("customers", {"metadata.crm": "7"})

    assert done.status == "error" and "did not tell" in done.message and len(server.seen) == 1


def test_prices_are_looked_for_among_the_inactive_too() -> None:
    """An inactive price still holds its lookup key."""
    price = {
        "id": "price_1",
        "object": "price",
        "lookup_key": "pro",
        "active": False,
        "nickname": None,
    }
    with scripted(page(), page(price), body(price)) as server, on(server) as actions:
        done = actions.upsert("prices", {"lookup_key": "pro"}, set={"nickname": "Pro"})

    assert done.id == "price_1"
    assert [sent(request).get("active") for request in server.seen[:2]] == ["true", "false"]
    assert sent(server.seen[0])["lookup_keys[0]"] == "pro"
    assert sent(server.seen[2]) == {"nickname": "Pro"}


def test_a_product_that_somebody_creates_meanwhile_is_updated() -> None:
    missing = refusal(404, code="resource_missing", param="id")
    taken = refusal(400, code="resource_already_exists")
    there = body({"id": "pro", "object": "product", "name": "Old", "metadata": {}})
    with scripted(missing, taken, there, there) as server, on(server) as actions:
        done = actions.upsert("products", {"id": "pro"}, set={"name": "Pro"})

    assert (done.status, done.message) == ("success", "Product updated successfully")
    assert [(r.method, r.path) for r in server.seen] == [
        ("GET", "/v1/products/pro"), ("POST", "/v1/products"),
        ("GET", "/v1/products/pro"), ("POST", "/v1/products/pro"),
    ]  # fmt: skip


def test_ids_that_stripe_chooses_are_not_created(account: Account) -> None:
    done = account.actions.upsert("customers", {"id": "cus_mine"}, set={"name": NAME})

    assert done.status == "error" and "Stripe chooses the ids" in done.message


# -- what is sent ----------------------------------------------------------------------------------


@pytest.mark.checklist("C18")
@pytest.mark.parametrize(
    ("resource", "verb", "order", "method", "path", "fields"),
    [
        ("subscriptions", "cancel", {"reason": "too_expensive", "comment": "c"}, "DELETE",
         "/v1/subscriptions/sub_1",
         {"cancellation_details[feedback]": "too_expensive", "cancellation_details[comment]": "c"}),
        ("subscriptions", "cancel", {"at_period_end": True, "reason": "unused"}, "POST",
         "/v1/subscriptions/sub_1",
         {"cancel_at_period_end": "true", "cancellation_details[feedback]": "unused"}),
        ("subscriptions", "cancel", {"set": {"prorate": True, "invoice_now": True}}, "DELETE",
         "/v1/subscriptions/sub_1", {"prorate": "true", "invoice_now": "true"}),
        ("subscriptions", "resume", {"set": {"billing_cycle_anchor.type": "now"}}, "POST",
         "/v1/subscriptions/sub_1/resume", {"billing_cycle_anchor[type]": "now"}),
        ("invoices", "finalize", {"set": {"auto_advance": False}}, "POST",
         "/v1/invoices/in_1/finalize", {"auto_advance": "false"}),
        ("invoices", "void", {}, "POST", "/v1/invoices/in_1/void", {}),
        ("invoices", "pay", {"set": {"paid_out_of_band": True}}, "POST", "/v1/invoices/in_1/pay",
         {"paid_out_of_band": "true"}),
        ("invoices", "mark_uncollectible", {}, "POST", "/v1/invoices/in_1/mark_uncollectible", {}),
        ("invoices", "send", {"expand": ("customer",)}, "POST", "/v1/invoices/in_1/send",
         {"expand[0]": "customer"}),
        ("invoices", "delete", {}, "DELETE", "/v1/invoices/in_1", {}),
        ("invoice_items", "delete", {}, "DELETE", "/v1/invoiceitems/ii_1", {}),
        ("quotes", "finalize", {}, "POST", "/v1/quotes/qt_1/finalize", {}),
        ("quotes", "accept", {}, "POST", "/v1/quotes/qt_1/accept", {}),
        ("quotes", "cancel", {}, "POST", "/v1/quotes/qt_1/cancel", {}),
        ("plans", "delete", {}, "DELETE", "/v1/plans/gold", {}),
        ("customers", "delete_discount", {}, "DELETE", "/v1/customers/cus_1/discount", {}),
        ("customers", "create_tax_id", {"set": {"type": "eu_vat", "value": "DE123456789"}}, "POST",
         "/v1/customers/cus_1/tax_ids", {"type": "eu_vat", "value": "DE123456789"}),
        ("customers", "delete_tax_id", {"tax_id": "txi_1"}, "DELETE",
         "/v1/customers/cus_1/tax_ids/txi_1", {}),
        ("subscriptions", "pause", {"set": {"bill_for.unused_time_from.type": "none"}}, "POST",
         "/v1/subscriptions/sub_1/pause", {"bill_for[unused_time_from][type]": "none"}),
        ("subscriptions", "migrate", {"set": {"billing_mode.type": "flexible"}}, "POST",
         "/v1/subscriptions/sub_1/migrate", {"billing_mode[type]": "flexible"}),
        ("subscriptions", "delete_discount", {}, "DELETE", "/v1/subscriptions/sub_1/discount", {}),
        ("coupons", "delete", {}, "DELETE", "/v1/coupons/25%25%20OFF", {}),
    ],
)  # fmt: skip
def test_the_verbs_send_what_stripe_documents(
    resource: str, verb: str, order: dict[str, Any], method: str, path: str, fields: dict[str, str]
) -> None:
    ids = {"plans": "gold", "coupons": "25% OFF", "invoice_items": "ii_1", "quotes": "qt_1"}
    ids |= {"invoices": "in_1", "customers": "cus_1", "subscriptions": "sub_1"}
    object_id = ids[resource]
    with scripted(body({"id": object_id, "object": "x"})) as server, on(server) as actions:
        plan = actions.run(resource, verb, id=object_id, dry_run=True, **order)
        done = actions.run(resource, verb, id=object_id, **order)

    (request,) = server.seen
    assert done.status == "success" and done.id == object_id
    assert (request.method, request.path.partition("?")[0], sent(request)) == (method, path, fields)
    assert plan.status == "dry_run"
    assert (plan.requests[0].method.upper(), plan.requests[0].path) == (method, path)


CREATES: list[tuple[str, dict[str, Any], str]] = [
    ("products", {}, "name is missing"),
    ("prices", {"product": "p", "unit_amount": 1}, "currency is missing"),
    ("prices", {"currency": "usd", "unit_amount": 1}, "exactly one of product, product_data"),
    ("prices", {"currency": "usd", "product": "p"}, "exactly one of unit_amount"),
    ("prices", {"currency": "usd", "product": "p", "unit_amount": 1, "unit_amount_decimal": "1"}, "exactly one of"),
    ("prices", {"currency": "usd", "product": "p", "billing_scheme": "tiered"}, "needs recurring"),
    ("prices", {"currency": "usd", "product": "p", "unit_amount": 1, "recurring": {"interval": "month", "usage_type": "metered"}},
     "recurring.meter"),
    ("prices", {"currency": "usd", "product": "p", "unit_amount": 1, "recurring": {"usage_type": "licensed"}}, "recurring.interval is missing"),
    ("plans", {"currency": "usd"}, "interval is missing"),
    ("coupons", {}, "exactly one of percent_off, amount_off"),
    ("coupons", {"amount_off": 5}, "amount_off needs currency"),
    ("coupons", {"percent_off": 101}, "at most 100"),
    ("coupons", {"percent_off": 5, "duration": "repeating"}, "needs duration_in_months"),
    ("subscriptions", {"customer": "cus_1"}, "items is missing"),
    ("subscriptions", {"customer": "prod_jane", "items": [{"price": "p"}]}, "begins with cus_"),
    ("subscriptions", {"customer": "cus_1", "items": [{"price": "p"}] * 21}, "at most 20"),
    ("subscriptions", {"customer": "cus_1", "items": [{"price": "p"}], "collection_method": "send_invoice"}, "needs days_until_due"),
    ("invoices", {}, "exactly one of customer"),
    ("invoices", {"customer": "cus_1", "collection_method": "send_invoice"}, "needs days_until_due"),
    ("invoice_items", {"customer": "cus_1", "amount": 5}, "amount and currency"),
    ("quotes", {"from_quote": {"quote": "qt_1"}, "header": "x"}, "only expires_at"),
    ("quotes", {"header": "x" * 51}, "at most 50 characters"),
    ("customers", {"metadata": {str(n): "x" for n in range(51)}}, "at most 50 keys"),
    ("customers", {"metadata": {"a": "x" * 501}}, "at most 500"),
    ("customers", {"invoice_prefix": "abc"}, "capital letters"),
    ("products", {"name": "x", "statement_descriptor": "a<b"}, "none of"),
    ("invoices", {"customer": "cus_1", "custom_fields": [{"name": "x" * 41, "value": "y"}]}, "at most 40"),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "given", "says"), CREATES)
def test_what_stripe_would_refuse_is_reported_before_the_call(
    resource: str, given: dict[str, Any], says: str
) -> None:
    with scripted(body({})) as server, on(server) as actions:
        done = actions.create(resource, given)

    assert done.status == "error" and says in done.message and server.seen == []
    assert done.exit_code == 2


def test_a_customer_who_came_from_another_system_has_the_id_of_that_system() -> None:
    own = "7001/ü"
    with scripted(body({"id": own, "object": "customer"})) as server, on(server) as actions:
        assert actions.get("customers", own).id == own

    assert [urlsplit(request.path).path for request in server.seen] == [
        "/v1/customers/7001%2F%C3%BC"
    ]
    check_customer(own, asks_stripe=True)
    for refused, asks_stripe in (("sub_1", True), (own, False)):
        with pytest.raises(UsageError):
            check_customer(refused, asks_stripe)


def test_a_dry_run_writes_nothing(account: Account) -> None:
    customer = account.customer()
    before = account.held("customers", customer)
    count = len(account.box.objects("customers"))

    for verb in ("create", "insert", "upsert", "update", "delete"):
        where: dict[str, Any] = {"id": customer} if verb in ("update", "delete") else {}
        if verb == "upsert":
            where = {"match": {"email": "new@example.com"}}
        given = {} if verb == "delete" else {"set": {"name": NAME}}
        done = account.actions.run("customers", verb, dry_run=True, **where, **given)
        assert (done.status, len(done.requests)) == ("dry_run", 1), verb
    assert account.held("customers", customer) == before
    assert len(account.box.objects("customers")) == count


@pytest.mark.parametrize("key", ["", "x" * 201, "jane@example.com", "é", "a\r\nb"])
def test_an_idempotency_key_is_short_and_plain_and_holds_no_personal_data(key: str) -> None:
    with scripted(body({})) as server, on(server) as actions, pytest.raises(UsageError):
        actions.create("customers", {"name": "x"}, idempotency_key=key)
    assert server.seen == []


def test_a_dry_run_of_what_cannot_be_sent_fails_as_the_run_would() -> None:
    with scripted(body({})) as server, on(server) as actions:
        done = actions.create("customers", {"metadata.k": "\ud800"}, dry_run=True)
        assert (done.status, server.seen) == ("error", []) and "half a character" in done.message


def test_a_repeated_upsert_finds_what_its_first_try_created(account: Account) -> None:
    """An idempotency key stands for one path."""
    order: dict[str, Any] = {"match": {"email": EMAIL}, "idempotency_key": "sf-1"}
    account.box.faults.error_500_after = 1.0
    first = account.actions.run("customers", "upsert", set={"name": NAME}, **order)
    account.box.faults.error_500_after = 0.0
    same = account.actions.run("customers", "upsert", set={"name": NAME}, **order)
    other = account.actions.run("customers", "upsert", set={"name": "B"}, **order)

    assert (first.status, same.status, other.status) == ("unknown", "skipped", "success")
    assert other.idempotency_key == "sf-1-update"


def test_own_writes_are_recognized_by_their_key() -> None:
    with scripted(body({"id": "cus_1", "object": "customer"})) as server, on(server) as actions:
        mine = actions.create("customers", {"name": "x"}, idempotency_key="sf-mine")
        other = actions.create("customers", {"name": "x"})

    keys = [request.headers["idempotency-key"] for request in server.seen]
    assert keys == [mine.idempotency_key, other.idempotency_key]
    assert keys[0] == "sf-mine" and keys[1].startswith("sf-") and keys[1] != keys[0]


# -- how it can end --------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", ["reset", "truncate", "malformed"])
def test_an_answer_that_is_lost_creates_one_customer(account: Account, fate: str) -> None:
    account.actions.list("customers", limit=1)  # before, a broken answer can be a stranger's
    before = len(account.box.objects("customers"))
    setattr(account.box.faults, fate, 0.3)

    for _ in range(5):
        assert account.actions.create("customers", {"name": NAME}).status == "success"
    assert len(account.box.objects("customers")) == before + 5


def test_a_500_after_execution_is_unknown(account: Account) -> None:
    before = len(account.box.objects("customers"))
    account.box.faults.error_500_after = 1.0

    done = account.actions.create("customers", {"name": NAME})

    assert (done.status, done.exit_code) == ("unknown", 5)
    assert done.idempotency_key is None or done.idempotency_key in done.message
    assert len(account.box.objects("customers")) == before + 1


def test_a_missing_permission_is_a_result_that_names_it(account: Account) -> None:
    account.box.restrict(KEY, ["rak_customer_read"])
    with open_actions(KEY, base=account.actions.api.base, **FAST) as actions:
        done = actions.create("customers", {"name": NAME})

    assert (done.status, done.exit_code) == ("error", 3)
    assert isinstance(done.error, PermissionMissing)
    assert done.error.permission == "rak_customer_write" and "rak_customer_write" in done.message


def test_a_key_that_is_not_valid_ends_everything() -> None:
    with (
        scripted(refusal(401, message="Invalid API Key provided")) as server,
        on(server) as actions,
        pytest.raises(SetupError, match="not valid"),
    ):
        actions.get("customers", "cus_1")


@pytest.mark.parametrize("answer", [b'{"hello": 1}', b"[]", b"<html>"])
def test_what_is_no_answer_of_stripes_is_no_success(answer: bytes) -> None:
    with scripted(Answer(body=answer)) as server, on(server) as actions:
        try:
            assert actions.create("customers", {"name": NAME}).status == "unknown"
        except SetupError as error:
            assert "STRIPE_API_BASE" in str(error)


def test_a_declined_card_is_a_result_with_its_reason() -> None:
    declined = refusal(402, code="card_declined", decline_code="insufficient_funds", message="No.")
    with scripted(declined) as server, on(server) as actions:
        done = actions.run("invoices", "pay", id="in_1")

    assert (done.status, done.code, done.decline_code) == (
        "error", "card_declined", "insufficient_funds",
    )  # fmt: skip


# -- live data -------------------------------------------------------------------------------------

LIVE = "sk_live_canary51"
LIVE_ORDERS: dict[str, dict[str, Any]] = {
    "migrate": {"set": {"billing_mode": {"type": "flexible"}}},
    "delete_tax_id": {"tax_id": "txi_1"},
}
"""What some verbs need beside the id."""


@pytest.mark.parametrize(
    ("resource", "verb", "object_id", "answers", "says"),
    [
        ("customers", "delete", "cus_1", [page({"id": "sub_1"}, {"id": "sub_2", "status": "canceled"})],
         "Subscriptions that end with it at once: 1"),
        ("products", "delete", "prod_1", [page({"id": "p1"}), page({"id": "p2"})], "Prices that keep Stripe from deleting it: 2"),
        ("subscriptions", "cancel", "sub_1", [], "Ends the subscription at once"),
        ("subscriptions", "migrate", "sub_1", [], "there is no way back"),
        ("subscriptions", "delete_discount", "sub_1", [], "Removes the subscription's discounts"),
        ("customers", "delete_discount", "cus_1", [], "Removes the customer's discount"),
        ("customers", "delete_tax_id", "cus_1", [], "Deletes the customer's tax id"),
        ("invoices", "void", "in_1", [], "Voids the invoice"),
        ("invoices", "finalize", "in_1", [], "Finalizes the invoice for good"),
        ("invoices", "pay", "in_1", [], "Takes the customer's money"),
        ("invoices", "send", "in_1", [], "Sends the invoice to the customer"),
        ("quotes", "accept", "qt_1", [], "Accepts the quote"),
    ],
)  # fmt: skip
def test_what_cannot_be_undone_on_live_data_needs_a_confirmation(
    resource: str, verb: str, object_id: str, answers: list[Answer], says: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    answers = [replace(answer, headers={}) for answer in answers]
    order = LIVE_ORDERS.get(verb, {})
    with (
        scripted(*answers, *answers, body({"object": "x"})) as server,
        on(server, LIVE, allow_api_base=True) as actions,
    ):
        asked = actions.run(resource, verb, id=object_id, **order)
        assert asked.status == "error" and says in asked.message and "--yes" in asked.message
        assert asked.exit_code == 2 and {request.method for request in server.seen} <= {"GET"}
        done = actions.run(resource, verb, id=object_id, confirm=True, **order)

    assert done.status == "success" and server.seen[-1].method in ("DELETE", "POST")
    assert says in caplog.text


@pytest.mark.parametrize(("key", "live"), [(KEY, True), (LIVE, False)])
@pytest.mark.parametrize("verb", ["get", "list", "update", "delete", "upsert", "create"])
def test_an_answer_in_the_other_mode_ends_everything(key: str, live: bool, verb: str) -> None:
    """And nothing is written once the first answer showed it."""
    held = {"id": "cus_1", "object": "customer", "livemode": live, "email": EMAIL, "metadata": {}}
    orders: dict[str, dict[str, Any]] = {
        "get": {"id": "cus_1"},
        "list": {},
        "update": {"id": "cus_1", "set": {"address.city": "Bonn"}},
        "delete": {"match": {"email": EMAIL}, "confirm": True},
        "upsert": {"match": {"email": EMAIL}, "set": {"name": NAME}},
        "create": {"set": {"name": NAME}},
    }
    first = page(held) if verb in ("list", "upsert", "delete") else body(held)
    with (
        scripted(replace(first, headers={})) as server,
        on(server, key, allow_api_base=True) as actions,
        pytest.raises(SetupError, match=r"another mode than the key's: .*\(cus_1\)"),
    ):
        actions.run("customers", verb, **orders[verb])

    assert [request.method for request in server.seen] == ["POST" if verb == "create" else "GET"]


# -- what there is ---------------------------------------------------------------------------------


def test_the_verbs_of_each_resource() -> None:
    usual = ["search", "get", "list", "insert", "create", "update", "upsert"]
    more = {
        "customers": ["delete", "delete_discount", "create_tax_id", "list_tax_ids", "delete_tax_id"],
        "products": ["delete"], "prices": [], "plans": ["delete"],
        "coupons": ["delete"], "subscriptions": ["cancel", "pause", "resume", "migrate", "delete_discount"],
        "invoices": ["delete", "finalize", "void", "pay", "mark_uncollectible", "send"],
        "invoice_items": ["delete"], "quotes": ["finalize", "accept", "cancel"],
    }  # fmt: skip

    assert {row.table: verbs_of(row) for row in WRITABLE.values()} == {
        table: usual + verbs for table, verbs in more.items()
    }


@pytest.mark.checklist("N36")
@pytest.mark.parametrize(
    ("resource", "verb", "order", "says"),
    [
        ("charges", "get", {}, "no actions on 'charges'. Choose from: customers"),
        ("prices", "delete", {}, "no action 'delete' on prices. Choose from: search"),
        ("customers", "create", {"nulls": "x"}, "nulls is one of skip, unset, error"),
        ("customers", "update", {"if_several": "x"}, "if_several is one of"),
        ("customers", "create", {"set": ["a"]}, "set takes names and values"),
        ("customers", "create", {"headers": {}}, "create takes no headers"),
        ("quotes", "cancel", {"id": "qt_1", "reason": "unused"}, "cancel takes no reason"),
        ("customers", "delete", {"id": "cus_1", "confirm": "false"}, "confirm is true or false"),
    ],
)
def test_an_action_that_does_not_exist_is_a_usage_error(
    account: Account, resource: str, verb: str, order: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        account.actions.run(resource, verb, **order)


@pytest.mark.checklist("N32")
def test_no_personal_data_in_messages_and_logs(
    account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    """Stripe's SDK and urllib3 included, at any level."""
    caplog.set_level(logging.DEBUG)
    given = {"email": EMAIL, "name": NAME, "metadata": {"who": EMAIL}}
    results = [
        account.actions.create("customers", given),
        account.actions.create("customers", {**given, "source": "tok_nope"}),
        account.actions.upsert(
            "customers", {"email": EMAIL}, set={"name": NAME, "phone": "x" * 21}
        ),
        account.actions.search("customers", {"email": EMAIL}),
        account.actions.search("customers", {"name": {"contains": NAME}}),
        account.actions.update("customers", match={"email": EMAIL}, set={"metadata.x": NAME * 50}),
        account.actions.create("customers", {"balance": EMAIL}),
        account.actions.create("customers", {EMAIL: EMAIL}),
        account.actions.delete("customers", match={"email": EMAIL}),
    ]

    said = "\n".join([*(result.message for result in results), caplog.text])
    assert [
        word for word in (EMAIL, EMAIL.replace("@", "%40"), NAME, "Canary") if word in said
    ] == []


# -- on the sandbox, one object after the other ----------------------------------------------------


def test_a_product_with_a_price_is_made_twice_and_archived(account: Account) -> None:
    order: dict[str, Any] = {"match": {"lookup_key": "gold"}, "set": {
        "product": "gold", "currency": "EUR", "unit_amount": "900", "recurring": {"interval": "month"},
    }}  # fmt: skip
    product = account.actions.upsert("products", {"id": "gold"}, set={"name": "Gold"})
    price = account.actions.run("prices", "upsert", **order)
    assert (product.status, price.status) == ("success", "success"), price.message

    assert (
        account.actions.upsert("products", {"id": "gold"}, set={"name": "Gold"}).status == "skipped"
    )
    assert account.actions.run("prices", "upsert", **order).status == "skipped"
    dearer = account.actions.run("prices", "upsert", match=order["match"], set={"unit_amount": 950})
    assert "unit_amount can only be set when a price is created. Create another" in dearer.message
    delete = account.actions.delete("products", "gold")
    assert delete.status == "error" and "cannot be deleted" in delete.message
    assert account.actions.update("prices", price.id, set={"active": False}).status == "success"
    assert account.actions.update("products", "gold", set={"active": "false"}).object == (
        account.held("products", "gold")
    )


@pytest.mark.checklist("C18")
def test_a_subscription_is_canceled_at_its_end_and_now(account: Account) -> None:
    running = first(account, "subscriptions", status="active")["id"]
    later = account.actions.cancel(
        "subscriptions", running, at_period_end=True, reason="unused", comment="bye"
    )
    assert (later.status, later.message) == ("success", "Subscription ends with its period")
    held = account.held("subscriptions", running)
    assert held["cancel_at_period_end"] and held["cancellation_details"]["feedback"] == "unused"

    account.box.faults.reset = 0.3
    now = account.actions.cancel("subscriptions", running, reason="too_expensive")
    account.box.faults.reset = 0.0
    assert now.status == "success" and now.object is not None
    assert (now.object["status"], account.held("subscriptions", running)["status"]) == (
        "canceled",
    ) * 2
    assert account.actions.cancel("subscriptions", running).status == "error"
    assert (
        "reason is one of" in account.actions.cancel("subscriptions", running, reason="x").message
    )


def test_an_invoice_from_its_items_to_payment(account: Account) -> None:
    customer = account.customer()
    invoice = account.actions.create("invoices", {"customer": customer, "currency": "usd"})
    item = account.actions.create("invoice_items", {
        "customer": customer, "invoice": invoice.id, "amount": 500, "currency": "usd",
    })  # fmt: skip
    assert (invoice.status, item.status) == ("success", "success"), item.message

    statuses = []
    for verb in ("finalize", "mark_uncollectible", "void"):
        done = account.actions.run("invoices", verb, id=invoice.id)
        assert done.status == "success" and done.object is not None, done.message
        statuses.append(done.object["status"])
    assert statuses == ["open", "uncollectible", "void"]
    refused = account.actions.run("invoices", "pay", id=invoice.id)
    assert refused.status == "error" and "Stripe refuses it" in refused.message
    assert account.actions.delete("invoice_items", item.id).status == "error"


def test_a_quote_is_finalized_accepted_and_canceled(account: Account) -> None:
    price = first(account, "prices", active=True, type="recurring")["id"]
    given = {"customer": account.customer(), "line_items": [{"price": price, "quantity": 1}]}
    one, other = (account.actions.create("quotes", given) for _ in range(2))
    assert one.status == "success", one.message

    states = [
        account.actions.run("quotes", verb, id=quote.id)
        for quote, verb in ((one, "finalize"), (one, "accept"), (other, "cancel"))
    ]
    assert [(done.status, (done.object or {}).get("status")) for done in states] == [
        ("success", "open"), ("success", "accepted"), ("success", "canceled"),
    ]  # fmt: skip
    assert account.actions.run("quotes", "finalize", id=other.id).status == "error"


def test_a_coupon_has_an_id_of_our_own(account: Account) -> None:
    made = account.actions.upsert(
        "coupons", {"id": "10 OFF"}, set={"percent_off": 10.5, "duration": "once"}
    )
    again = account.actions.upsert(
        "coupons", {"id": "10 OFF"}, set={"percent_off": "10.5", "name": "Ten"}
    )

    assert (made.status, again.status) == ("success", "success"), again.message
    assert again.object is not None and again.object["name"] == "Ten"
    assert account.actions.delete("coupons", "10 OFF").status == "success"


def test_a_customers_tax_ids_are_created_listed_and_deleted(account: Account) -> None:
    customer = account.customer()
    made = [
        account.actions.run("customers", "create_tax_id", id=customer, set={"type": kind, "value": value})
        for kind, value in (("eu_vat", "DE123456789"), ("br_cnpj", "42424242424242"))
    ]  # fmt: skip
    assert [done.message for done in made] == ["Customer tax id created successfully"] * 2
    assert all(str(done.id).startswith("txi_") for done in made)

    def listed() -> set[str]:
        done = account.actions.run("customers", "list_tax_ids", id=customer)
        assert done.status == "success" and f"{len(done.objects or ())} tax id" in done.message
        return {str(one["value"]) for one in done.objects or ()}

    assert listed() == {"DE123456789", "42424242424242"}
    one = account.actions.run("customers", "list_tax_ids", id=customer, limit=1)
    assert (len(one.objects or ()), one.has_more) == (1, True)
    assert account.actions.run("customers", "create_tax_id", match={"email": EMAIL}, set={
        "type": "eu_vat", "value": "nope",
    }).code == "tax_id_invalid"  # fmt: skip
    gone = account.actions.run("customers", "delete_tax_id", id=customer, tax_id=made[0].id)
    assert (gone.status, gone.id, listed()) == ("success", made[0].id, {"42424242424242"})
    before = account.actions.api.requests
    for bad in (None, customer, "txi_ 1 "):
        done = account.actions.run("customers", "delete_tax_id", id=customer, tax_id=bad)
        assert done.status == "error"
    assert account.actions.api.requests == before


def test_a_discount_ends(account: Account) -> None:
    subscription = first(account, "subscriptions", status="active")["id"]
    account.actions.create("coupons", {"id": "TEN", "percent_off": 10, "duration": "forever"})
    given = account.actions.update(
        "subscriptions", subscription, set={"discounts": [{"coupon": "TEN"}]}
    )
    assert given.object is not None and given.object["discounts"], given.message
    customer = account.customer()
    account.box.update("customers", customer, discount={"id": "di_1", "object": "discount"})

    for table, object_id in (("subscriptions", subscription), ("customers", customer)):
        done = account.actions.run(table, "delete_discount", id=object_id)
        assert (done.status, (done.object or {}).get("deleted")) == ("success", True), done.message
        assert not account.held(table, object_id).get("discounts")
        assert not account.held(table, object_id).get("discount")
        again = account.actions.run(table, "delete_discount", id=object_id)
        assert (again.status, again.code) == ("error", "resource_missing")


def test_a_subscription_is_paused_resumed_and_migrated(account: Account) -> None:
    running = first(account, "subscriptions", status="active", collection_method="charge_automatically")["id"]  # fmt: skip
    for verb, status in (("pause", "paused"), ("resume", "active")):
        done = account.actions.run("subscriptions", verb, id=running)
        assert (done.status, account.held("subscriptions", running)["status"]) == (
            "success",
            status,
        )
    assert account.actions.run("subscriptions", "resume", id=running).status == "error"

    classic = {"type": "classic", "flexible": None}
    account.box.update("subscriptions", running, billing_mode=classic)
    order = {"id": running, "set": {"billing_mode.type": "flexible"}}
    assert account.actions.run("subscriptions", "migrate", **order).status == "success"
    assert account.held("subscriptions", running)["billing_mode"]["type"] == "flexible"
    assert "already" in account.actions.run("subscriptions", "migrate", **order).message


# -- Stripe's search -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ({"name": {"contains": "jan"}}, {"Jane", "Janet", "Mary Jane"}),
        ({"name": "Jane"}, {"Jane"}),  # search finds "Mary Jane", too
        ({"metadata.plan": "pro"}, {"Jane"}),
        ({"metadata.plan": "Pro"}, {"Janet"}),  # search minds no case
        ({"or": [{"name": "Janet"}, {"phone": "+1"}]}, {"Janet", "Mary Jane"}),
        ({"name": {"contains": "jan"}, "created": {"gte": 1}, "metadata.plan": None}, {"Mary Jane"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)  # fmt: skip
def test_a_search_finds_what_was_asked_for(
    account: Account, where: dict[str, Any], names: set[str]
) -> None:
    for given in (
        {"name": "Jane", "metadata.plan": "pro"},
        {"name": "Janet", "metadata.plan": "Pro"},
        {"name": "Mary Jane", "phone": "+1"},
    ):
        assert account.actions.create("customers", given).status == "success"
    account.box.advance(90)  # a search is behind

    done = account.actions.search("customers", where)

    assert done.status == "success", done.message
    assert {one["name"] for one in done.objects or ()} == names and done.via == "search"


def test_a_search_is_cut_at_its_limit(account: Account) -> None:
    for n in range(4):
        account.actions.create("customers", {"name": f"Jane {n}"})
    account.box.advance(90)
    done = account.actions.search("customers", {"name": {"contains": "Jane"}}, limit=3)

    assert (len(done.objects or ()), done.has_more) == (
        3,
        True,
    ) and "there are more" in done.message


def test_a_search_that_is_behind_creates_no_twin(account: Account) -> None:
    first = account.actions.create("customers", {"metadata.crm": "7"})
    assert account.actions.search("customers", {"metadata.crm": "7"}).objects == ()

    again = account.actions.upsert("customers", {"metadata.crm": "7"}, set={"name": NAME})
    assert (again.id, again.via) == (first.id, "list")


@pytest.mark.parametrize("table", ["customers", "products", "prices", "subscriptions", "invoices"])
def test_the_fields_that_can_be_searched_are_stripes(account: Account, table: str) -> None:
    """Each field of the row is one that the search takes, and none is left out."""
    assert {**WRITABLE[table].searchable} == {
        name: "token" if kind == "metadata" else kind for name, kind in SEARCHED[table].items()
    }
    for name, kind in WRITABLE[table].searchable.items():
        field = f"{name}.a" if name == "metadata" else name
        value: Any = 1 if kind == "number" else "usd" if name == "currency" else "active"
        done = account.actions.search(table, {"or": [{field: value}, {"metadata.b": "c"}]})
        assert (done.status, done.via) == ("success", "search"), (name, done.message)


def test_invoices_of_a_subscription_are_found() -> None:
    """The field lies deep in an invoice."""
    box = Sandbox(seed=5, customers=20)
    invoice, subscription = next(
        (held, parent["subscription_details"]["subscription"])
        for held in box.objects("invoices").values()
        if (parent := held["parent"]) and parent["subscription_details"]
    )
    box.advance(90)
    where = {"or": [{"subscription": subscription}, {"number": "none"}]}
    with box.serve() as url, open_actions(box.key, base=url, **FAST) as actions:
        done = actions.search("invoices", where, limit=100)
        listed = actions.list("invoices", {"subscription": subscription})

    assert done.via == "search" and invoice["id"] in {one["id"] for one in done.objects or ()}
    assert invoice["id"] in {one["id"] for one in listed.objects or ()}


@pytest.mark.parametrize(
    ("verb", "order", "says"),
    [
        ("get", {"expand": 5}, "expand is a list of names"),
        ("update", {"unset": [1]}, "unset is a list of names"),
        ("update", {"only_if_empty": 5}, "only_if_empty is a list of names"),
        ("update", {"set": {5: "x"}}, "set takes names and values"),
        ("update", {"idempotency_key": 5}, "An idempotency key has"),
    ],
)
def test_an_order_of_the_wrong_kind_is_refused_in_words(
    verb: str, order: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        make_order("customers", verb, {"id": "cus_1", **order})


@pytest.mark.parametrize("key", ["mine", "sf-mine"])
def test_a_key_of_the_caller_is_known_as_ours(key: str) -> None:
    assert make_order("customers", "create", {"idempotency_key": key}).idempotency_key == "sf-mine"
