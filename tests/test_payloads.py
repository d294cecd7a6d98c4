"""Bodies of messages, as their receivers read them: whole texts for known changes, and Stripe's own
events again.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stripe_feed.api.client import API_VERSION
from stripe_feed.delivery.payloads import (
    FORMATS,
    NotRenderable,
    PayloadContext,
    Template,
    compile_template,
    render,
)
from stripe_feed.errors import UsageError
from stripe_feed.extract.events.classify import (
    ObjectEvent,
    by_object,
    is_discount_only,
    object_events,
)
from stripe_feed.extract.events.history import BaseState, changes_for
from stripe_feed.extract.events.reader import Event
from stripe_feed.extract.tables.changes import ChangeRow as Extracted
from stripe_feed.feed.change import SOURCE_COLUMNS, Change, change_from_row, entry_from_row
from stripe_feed.feed.net import NetChange
from stripe_feed.sandbox import Sandbox
from tests.core import CORE
from tests.feed_kills import a_change

QUICK = settings(derandomize=True, deadline=None, max_examples=300, database=None)

CUSTOMER: dict[str, Any] = {
    "id": "cus_NffrFeUfNV2Hib", "object": "customer", "address": None, "balance": 0, "created": 1680893993, "currency": None,
    "default_source": None, "delinquent": False, "description": None, "discount": None, "email": "wile.e.coyote@example.com",
    "invoice_prefix": "0759376C", "livemode": False, "metadata": {}, "name": "Wile E Coyote", "preferred_locales": [], "tax_exempt": "none",
}  # fmt: skip
AT = datetime(2023, 4, 7, 18, 59, 53, tzinfo=timezone.utc)


def made(offset: int = 7, version: int = 2, **given: Any) -> Change:
    row = {**a_change(5, "in_1"), **given, "_dlt_load_id": "17.5"}
    return change_from_row(offset, version, entry_from_row([row[name] for name in SOURCE_COLUMNS]))


def customer(**given: Any) -> Change:
    row: dict[str, Any] = {
        "change_id": "evt_1", "event_id": "evt_1", "event_type": "customer.created", "resource": "customers", "op": "c", "previous": None,
        "object_id": CUSTOMER["id"], "customer_id": CUSTOMER["id"], "after": CUSTOMER, "changed": [], "occurred_at": AT,
        "request_id": "req_1", "request_idempotency_key": "key_1",
    }  # fmt: skip
    return made(**{**row, **given})


def moved(**given: Any) -> Change:
    row = {
        "op": "u",
        "event_type": "customer.updated",
        "previous": {"name": "Wile"},
        "changed": ["name"],
    }
    return customer(**{**row, **given})


def gone(**given: Any) -> Change:
    return customer(
        **{
            "op": "d",
            "event_type": "customer.deleted",
            "after": None,
            "previous": CUSTOMER,
            **given,
        }
    )


def body(form: str | Template, about: Change | NetChange, synthetic: bool = False) -> Any:
    return json.loads(render(form, PayloadContext(about, "welcome", "msg_1"), synthetic).content)


# --- whole bodies
# -------------------------------------------------------------------------------------------------

DATA = (
    '{"id":"cus_NffrFeUfNV2Hib","object":"customer","address":null,"balance":0,"created":1680893993,"currency":null,"default_source":null,'
    '"delinquent":false,"description":null,"discount":null,"email":"wile.e.coyote@example.com","invoice_prefix":"0759376C","livemode":false,'
    '"metadata":{},"name":"Wile E Coyote","preferred_locales":[],"tax_exempt":"none"}'
)


@pytest.mark.parametrize(("form", "wanted"), [
    ("standard",
     '{"type":"customer.created","timestamp":"2023-04-07T18:59:53Z","data":' + DATA + ',"meta":{"change_id":"evt_1","offset":7,"object_version":2,'
     '"op":"c","origin":"event","resource":"customers","object_id":"cus_NffrFeUfNV2Hib","customer_id":"cus_NffrFeUfNV2Hib","before":null,'
     '"changed":[],"before_quality":"exact","late":false,"trigger":"welcome","message_id":"msg_1"}}'),
    ("stripe",
     '{"id":"evt_1","object":"event","api_version":"2026-06-24","context":null,"created":1680893993,"data":{"object":' + DATA + '},'
     '"livemode":false,"pending_webhooks":0,"request":{"id":"req_1","idempotency_key":"key_1"},"type":"customer.created"}'),
    ("change",
     '{"offset":7,"object_version":2,"change_id":"evt_1","resource":"customers","object_id":"cus_NffrFeUfNV2Hib",'
     '"customer_id":"cus_NffrFeUfNV2Hib","op":"c","origin":"event","event_id":"evt_1","event_type":"customer.created","api_version":"2026-06-24",'
     '"request_id":"req_1","request_idempotency_key":"key_1","context":null,"before_quality":"exact","account_id":"acct_1",'
     '"occurred_at":"2023-04-07T18:59:53Z","observed_at":"2026-01-01T00:01:05Z","late":false,"livemode":false,"seq":5,"load_id":"17.5",'
     '"changed":[],"after":' + DATA + ',"previous":null,"before":null}'),
    ("record", DATA),
    ("cloudevents",
     '{"specversion":"1.0","id":"evt_1","source":"/stripe/acct_1","type":"com.stripe.customer.created","subject":"cus_NffrFeUfNV2Hib",'
     '"time":"2023-04-07T18:59:53Z","datacontenttype":"application/json","sequence":"7","data":' + DATA + '}'),
])  # fmt: skip
def test_a_new_customer_in_each_format(form: str, wanted: str) -> None:
    found = render(form, PayloadContext(customer(), "welcome", "msg_1"))
    assert found.content.decode() == wanted
    assert found.content_type == (
        "application/cloudevents+json" if form == "cloudevents" else "application/json"
    )
    assert "coyote" not in repr(found)


def test_customer_io_finds_the_person_where_its_guide_says() -> None:
    """Find or create the person by `data.email`, set the attribute `id` to `data.id`
    (https://customer.io/docs/journeys/stripe-webhook-customer-created/)."""
    found = body("standard", customer())
    assert (found["data"]["email"], found["data"]["id"]) == (
        "wile.e.coyote@example.com",
        "cus_NffrFeUfNV2Hib",
    )

    identify = compile_template({"email": "{after.email}", "attributes": {"id": "{after.id}"}})
    assert render(identify, PayloadContext(customer(), "welcome", "msg_1")).content == (
        b'{"email":"wile.e.coyote@example.com","attributes":{"id":"cus_NffrFeUfNV2Hib"}}'
    )


INVOICE: dict[str, Any] = {
    "id": "in_1", "object": "invoice", "customer_name": "Zoë {after.id} ½", "currency": "eur", "amount_paid": 1234567, "created": 1680893993, "paid": True,
    "number": "A-1", "lines": {"data": [{"id": "il_1", "price": None}]}, "metadata": {"plan": "gold"}, "large": 2**63 + 1, "rate": 0.1, "none": None,
}  # fmt: skip


def paid(**given: Any) -> Change:
    row = {
        "resource": "invoices", "object_id": "in_1", "event_type": "invoice.paid", "after": INVOICE, "previous": {"paid": False}, "changed": ["paid"],
        "occurred_at": AT,
    }  # fmt: skip
    return made(**{**row, **given})


def test_a_message_for_slack() -> None:
    message = compile_template({
        "text": "{{{after.number}}} of {after.customer_name}: {after.amount_paid|money:after.currency} {after.currency}, "
        "since {after.created|date} ({change.type}, {trigger})",
    })  # fmt: skip
    assert render(message, PayloadContext(paid(), "paid", "msg_1")).content.decode() == (
        '{"text":"{A-1} of Zoë {after.id} ½: 12345.67 eur, since 2023-04-07T18:59:53Z (invoice.paid, paid)"}'
    )


def test_a_flat_row_for_a_table() -> None:
    row = compile_template({
        "invoice_id": "{after.id}", "amount": "{after.amount_paid|money:after.currency}", "cents": "{after.amount_paid}", "paid": "{after.paid}",
        "was_paid": "{before.paid}", "plan": "{after.metadata.plan}", "line": "{after.lines.data.0.id}", "price": "{after.lines.data.0.price.id}",
        "changed": "{change.changed}", "account": "{account_id}", "at": "{change.occurred_at}", "large": "{after.large}", "source": "stripe", "n": 1,
        "nested": [None, True, 2.5, "{after.rate}"],
    })  # fmt: skip
    assert render(row, PayloadContext(paid(), "paid", "msg_1")).content == (
        b'{"invoice_id":"in_1","amount":"12345.67","cents":1234567,"paid":true,"was_paid":false,"plan":"gold","line":"il_1","price":null,'
        b'"changed":["paid"],"account":"acct_1","at":"2023-04-07T18:59:53Z","large":9223372036854775809,"source":"stripe","n":1,'
        b'"nested":[null,true,2.5,0.1]}'
    )


# --- the formats
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_odd_values_arrive_as_they_are(form: str) -> None:
    odd = {
        **CUSTOMER,
        "name": 'Zoë\u2028 "\\ 😀 \x00',
        "balance": 2**70,
        "tax": -(2**53) - 1,
        "rate": 1e-7,
        "half": "\ud800",
    }
    found = body(
        form, customer(after=json.dumps(odd))
    )  # as text, which is how destinations give it
    held = {
        "standard": ["data"],
        "stripe": ["data", "object"],
        "change": ["after"],
        "record": [],
        "cloudevents": ["data"],
    }[form]
    for name in held:
        found = found[name]
    assert found == odd


def test_an_update_tells_what_was_before() -> None:
    found = body("standard", moved())
    assert (found["type"], found["meta"]["before"], found["meta"]["changed"]) == (
        "customer.updated",
        {**CUSTOMER, "name": "Wile"},
        ["name"],
    )
    assert body("stripe", moved())["data"] == {
        "object": CUSTOMER,
        "previous_attributes": {"name": "Wile"},
    }


def test_a_deletion_tells_what_was_deleted() -> None:
    found = body("standard", gone())
    assert (found["type"], found["data"], found["meta"]["before"], found["meta"]["op"]) == (
        "customer.deleted",
        CUSTOMER,
        CUSTOMER,
        "d",
    )
    assert body("record", gone()) == {**CUSTOMER, "deleted": True}
    assert body("stripe", gone())["data"] == {"object": CUSTOMER}


@pytest.mark.parametrize(
    ("form", "held"), [("standard", "data"), ("cloudevents", "data"), ("record", None)]
)
def test_of_an_object_that_is_not_known_its_id_remains(form: str, held: str | None) -> None:
    unknown, forgotten = (
        gone(previous=None, before_quality="none"),
        moved(after=None, previous=None),
    )
    found = [body(form, one)[held] if held else body(form, one) for one in (unknown, forgotten)]
    stub = {"id": CUSTOMER["id"], "object": "customer"}
    assert found == [{**stub, "deleted": True}, stub]


@pytest.mark.parametrize(("resource", "op", "wanted"), [
    ("customers", "c", "customer.created"), ("customers", "d", "customer.deleted"), ("subscriptions", "u", "customer.subscription.updated"),
    ("invoices", "u", "invoice.updated"), ("plans", "r", "plan.read"), ("widgets", "c", "widgets.created"),
])  # fmt: skip
def test_what_was_no_event_has_the_type_that_the_event_would_have(
    resource: str, op: str, wanted: str
) -> None:
    one = made(resource=resource, op=op, origin="diff", event_id=None, event_type=None)
    assert body("standard", one)["type"] == wanted
    assert body("cloudevents", one)["type"] == f"com.stripe.{wanted}"


def test_no_event_is_made_up_unless_asked_for() -> None:
    one = moved(
        change_id="chg_1",
        origin="diff",
        event_id=None,
        event_type=None,
        request_id=None,
        request_idempotency_key=None,
    )
    with pytest.raises(NotRenderable, match="chg_1 was not a Stripe event"):
        body("stripe", one)

    found = body("stripe", one, synthetic=True)
    assert found.pop("id").startswith("evt_syn_")
    assert found == {
        "object": "event", "api_version": "2026-06-24", "context": None, "created": 1680893993, "type": "customer.updated", "livemode": False,
        "data": {"object": CUSTOMER, "previous_attributes": {"name": "Wile"}}, "pending_webhooks": 0, "request": {"id": None, "idempotency_key": None},
    }  # fmt: skip
    again, other = (
        moved(change_id="chg_1", offset=9, origin="diff", event_id=None),
        moved(change_id="chg_2", origin="diff", event_id=None),
    )
    made_up = [body("stripe", each, synthetic=True)["id"] for each in (one, again, other)]
    assert made_up[0] == made_up[1] != made_up[2]


def test_an_event_whose_object_was_forgotten_is_not_rebuilt() -> None:
    with pytest.raises(NotRenderable, match="forgotten"):
        body("stripe", moved(after=None, previous=None))


def a_net(op: str = "u", changes: int = 3, **given: Any) -> NetChange:
    found: dict[str, Any] = {
        "first": moved(offset=3, change_id="evt_3", event_id="evt_3", before_quality="derived"),
        "last": moved(offset=8, change_id="evt_8", event_id="evt_8"),
        "before": {**CUSTOMER, "name": "Wile", "email": "w@example.com"}, "after": CUSTOMER, **given,
    }  # fmt: skip
    return NetChange(
        "customers", CUSTOMER["id"], CUSTOMER["id"], op, changes, changed=["name", "email"], **found
    )


def test_a_net_change_has_the_id_of_its_last_one() -> None:
    net = a_net()
    found = body("standard", net)
    assert (found["type"], found["timestamp"], found["data"]) == (
        "customer.updated",
        "2023-04-07T18:59:53Z",
        CUSTOMER,
    )
    assert found["meta"] == {
        "change_id": "evt_8", "offset": 8, "object_version": 2, "op": "u", "origin": "event", "resource": "customers", "object_id": CUSTOMER["id"],
        "customer_id": CUSTOMER["id"], "before": net.before, "changed": ["name", "email"], "before_quality": "derived", "late": False,
        "trigger": "welcome", "message_id": "msg_1", "changes": 3,
    }  # fmt: skip
    assert body("change", net) == net.as_dict()
    assert body("record", net) == CUSTOMER
    assert (
        body(compile_template("{before.email} {change.changes}{change.event_type}"), net)
        == "w@example.com 3"
    )
    assert body("record", a_net("d", after=None, last=gone())) == {**CUSTOMER, "deleted": True}
    assert body("standard", a_net("d", after=None, last=gone(previous=None)))["data"] == net.before


def test_a_net_change_is_an_event_only_if_it_is_one_change() -> None:
    assert body("stripe", a_net(changes=1)) == body(
        "stripe", moved(change_id="evt_8", event_id="evt_8")
    )
    with pytest.raises(NotRenderable):
        body("stripe", a_net())
    found = body("stripe", a_net(), synthetic=True)
    assert found["data"] == {
        "object": CUSTOMER,
        "previous_attributes": {"name": "Wile", "email": "w@example.com"},
    }
    assert found["id"].startswith("evt_syn_") and found["type"] == "customer.updated"


def test_what_a_receiver_missed_is_named() -> None:
    assert "skipped" not in body("standard", customer())["meta"]
    found = json.loads(
        render(
            "standard", PayloadContext(customer(), "welcome", "msg_1", ("evt_8", "evt_9"))
        ).content
    )
    assert found["meta"]["skipped"] == ["evt_8", "evt_9"]


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(
        UsageError, match="'xml'\\. Choose from: standard, stripe, change, record, cloudevents"
    ):
        body("xml", customer())


# --- Stripe's events, rebuilt
# -------------------------------------------------------------------------------------

NAMES = by_object(CORE.values())


def read(one: Extracted, position: int) -> Change:
    """A derived change as it comes out of the log."""
    row = {name: getattr(one, name, None) for name in SOURCE_COLUMNS}
    row |= {
        "_dlt_load_id": "1", "account_id": "acct_1", "livemode": False, "observed_at": AT, "seq": position,
        "occurred_at": datetime.fromtimestamp(one.occurred_at, timezone.utc),
    }  # fmt: skip
    return change_from_row(position, 1, entry_from_row([row[name] for name in SOURCE_COLUMNS]))


def happened(box: Sandbox) -> list[tuple[ObjectEvent, bytes, Change]]:
    """Every event with its change; what was before an event is what the object's last one held."""
    found: list[tuple[ObjectEvent, bytes, Change]] = []
    held: dict[tuple[str, str], BaseState] = {}  # a price and its plan have one id
    for record in box.events:
        for one in object_events(msgspec.json.decode(record.body, type=Event), NAMES):
            if is_discount_only(one):
                continue
            key = (one.resource.table, one.id)
            (derived,) = changes_for([one], held.get(key), API_VERSION)
            held[key] = BaseState(json.loads(bytes(one.event.data.object)), API_VERSION)
            found.append((one, record.body, read(derived, len(found) + 1)))
    return found


@pytest.mark.parametrize("stubs", [False, True], ids=["whole deletions", "bare deletions"])
def test_stripes_events_come_again(stubs: bool) -> None:
    """Equal as parsed JSON, but for: links that open to whoever holds them, a `request` that is
    null, how a deletion is told, and `pending_webhooks`, which is 0.
    """
    box = Sandbox(seed=5, customers=15)
    box.stub_deletes = stubs
    box.live(400, 500)
    stories = happened(box)
    for one, raw, each in stories:
        wanted, found = json.loads(raw), body("stripe", each)
        for name in (*one.resource.bearer_links, *one.resource.excluded):
            wanted["data"]["object"].pop(name, None)
            wanted["data"].get("previous_attributes", {}).pop(name, None)
        wanted["request"] = wanted["request"] or {"id": None, "idempotency_key": None}
        if one.is_stub and len(found["data"]["object"]) > 3:
            found["data"]["object"] = {"id": one.id, "object": one.resource.object, "deleted": True}
        assert found == wanted
        assert list(found) == list({"id": 0, **wanted})

    assert {one.kind for one, _, _ in stories} == {"created", "updated", "status", "deleted"}
    assert any(
        one.kind == "status" and each.previous for one, _, each in stories
    )  # known, but not told by Stripe
    assert {one.resource.table for one, _, _ in stories} == set(CORE)


# --- templates
# ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("template", "wanted"), [
    ("plain", "plain"), ("", ""), ("{{}}", "{}"), ("{{after.id}}", "{after.id}"), ("a}}b{{c", "a}b{c"), ("{{{after.id}}}", "{in_1}"),
    ("{after.none}", None), ("{after.nothing.at.all}", None), ("{ after.id }", "in_1"), ("<{after.none}>", "<>"), ("{after.paid}{after.paid}", "truetrue"),
    ("x{after.rate}", "x0.1"), ("x{after.metadata}", 'x{"plan":"gold"}'), ("{after.metadata}", {"plan": "gold"}), ("{after.lines.data}x", '[{"id":"il_1","price":null}]x'),
    ("{after.customer_name}", "Zoë {after.id} ½"), ("{after.customer_name}!", "Zoë {after.id} ½!"), ("%s $x {{0}}", "%s $x {0}"),
    ("{change.offset}", 7), ("{change.message_id}/{change.trigger}", "msg_1/welcome"), ("{change.livemode}", False), ("{change.event_id}", "evt_5"),
    ("{before}", {**INVOICE, "paid": False}), ("{after.amount_paid|money:after.currency}", "12345.67"), ("{ after.created | date }", "2023-04-07T18:59:53Z"),
    ("{after.id|date}", None), ("<{after.id|money:after.currency}>", "<>"), ("{after.amount_paid|money:after.none}", None), (7, 7), (None, None), ([], []), ({}, {}),
    (["{after.id}", {"{after.id}": "{after.id}"}], ["in_1", {"{after.id}": "in_1"}]), (("a",), ["a"]), (10**400, 10**400),
])  # fmt: skip
def test_a_template_is_filled(template: Any, wanted: Any) -> None:
    assert body(compile_template(template), paid()) == wanted


def test_a_template_over_a_deletion_is_filled_with_nothing() -> None:
    assert body(compile_template(["{after.id}", "<{after}>", "{before.id}"]), gone()) == [
        None,
        "<>",
        CUSTOMER["id"],
    ]


@pytest.mark.parametrize(("template", "place"), [
    ("{after.id", "template, character 1"), ("after.id}", "template, character 9"), ("{{{after.id}}", "template, character 13"), ("{", "character 1"),
    ("{}", "''"), ("{0}", "'0'"), ("{after..id}", "'after..id'"), ("{after.}", "'after.'"), ("{.id}", "'.id'"), ("{name}", "'name'"), ("{after.id!r}x{", "character 14"),
    ("{after.id:>10}", "after.id:>10"), ("{__class__}", "__class__"), ("{change}", "no change"), ("{change.__class__}", "no change.__class__"), ("{change.previous}", "no change.previous"),
    ("{trigger.x}", "no trigger.x"), ("{account_id.x}", "no account_id.x"), ("{after.x|upper}", "'upper'"), ("{after.x|}", "''"), ("{after.x|money}", "'money'"),
    ("{after.x|money:}", "''"), ("{after.x|money:eur}", "'eur'"), ("{after.x|date:x}", "'date:x'"), ("{after.x|date|date}", "'date|date'"), ("{after.x|money:after.y|date}", "after.y|date"),
    ({"a": {"b": ["x", "{oops}"]}}, "template.a.b[1], character 1"), ({"a": AT}, "template.a is a datetime, which is not JSON"), ([{"b": float("nan")}], "template[0].b"),
    ({"a": {1: "x"}}, "template.a has a key"), ({"a": {"x"}}, "template.a is a set, which is not JSON"),
])  # fmt: skip
def test_a_wrong_template_is_refused_with_its_place(template: Any, place: str) -> None:
    with pytest.raises(UsageError) as caught:
        compile_template(template)
    assert place in str(caught.value) and str(caught.value).startswith("template")


def test_a_template_without_an_end_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UsageError, match="nested more than 50 deep"):
        compile_template(endless)


@pytest.mark.parametrize(("amount", "currency", "wanted"), [
    (1234, "usd", "12.34"), (5, "eur", "0.05"), (0, "eur", "0.00"), (-5, "eur", "-0.05"), (-1234, "EUR", "-12.34"), (500, "jpy", "500"), (-500, "krw", "-500"),
    (0, "jpy", "0"), (1234, "kwd", "1.234"), (5, "bhd", "0.005"), (12300, "isk", "123.00"), (12300, "ugx", "123.00"), (1, "xxx", "0.01"),
    (2**63, "usd", "92233720368547758.08"), ("0.5", "usd", "0.005"), ("1050", "usd", "10.50"), ("1050.123456789012", "usd", "10.50123456789012"), ("0.5", "jpy", "0.5"),
    ("-0.5", "usd", "-0.005"), (None, "usd", None), (5, None, None), (True, "usd", None), (1.5, "usd", None), ("1e9", "usd", None), ("x", "usd", None), ("", "usd", None),
    ("٣", "usd", None), ([], "usd", None), (5, 5, None), ({}, {}, None), ("1" * 500, "usd", None),
])  # fmt: skip
def test_money_is_exact_in_major_units(amount: Any, currency: Any, wanted: str | None) -> None:
    """https://docs.stripe.com/currencies#zero-decimal and #three-decimal"""
    one = paid(after={"amount": amount, "currency": currency})
    assert body(compile_template("{after.amount|money:after.currency}"), one) == wanted


@pytest.mark.parametrize(("seconds", "wanted"), [
    (0, "1970-01-01T00:00:00Z"), (-1, "1969-12-31T23:59:59Z"), (1680893993, "2023-04-07T18:59:53Z"), (None, None), (True, None), (1.5, None), ("1", None),
    (10**11, "5138-11-16T09:46:40Z"), (10**15, None), (-(10**15), None), (10**400, None), ([], None),
])  # fmt: skip
def test_a_date_is_in_utc(seconds: Any, wanted: str | None) -> None:
    assert body(compile_template("{after.at|date}"), paid(after={"at": seconds})) == wanted


@QUICK
@given(template=st.recursive(
    st.text(alphabet="{}|:. ax") | st.lists(st.sampled_from(["{after.", "a}", "b", "}", "{{", "|date}", "{trigger}"])).map("".join) | st.none() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=5,
), image=st.dictionaries(st.sampled_from("ab"), st.none() | st.integers() | st.text() | st.lists(st.text(), max_size=2), max_size=2))  # fmt: skip
def test_any_template_is_refused_or_filled(template: Any, image: Any) -> None:
    try:
        compiled = compile_template(template)
    except UsageError:
        return
    body(compiled, paid(after=image))
