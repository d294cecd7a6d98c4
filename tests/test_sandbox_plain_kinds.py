"""Each plain kind of the sandbox against the annotations of Stripe's SDK, and served by Stripe's rules.

The annotations are read from the SDK's own classes, not by the sandbox's reader.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import stripe
from stripe._object_classes import OBJECT_CLASSES

from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.protocol.event_types import TYPES
from stripe_feed.sandbox.protocol.messages import Request
from stripe_feed.sandbox.protocol.parameters import COMMON
from stripe_feed.sandbox.samples.annotations import fields_of
from stripe_feed.sandbox.state.kinds import EMBEDDED, KINDS, Kind, objects_of

PLAIN = [kind for kind in KINDS.values() if kind.plain]
EACH_KIND = pytest.mark.parametrize("kind", PLAIN, ids=lambda kind: kind.name)
COUNT = 3

LIST_PARAMS = {
    "account_tax_ids": "TaxIdListParams",
    "early_fraud_warnings": "radar.EarlyFraudWarningListParams",
    "sources": "CustomerPaymentSourceListParams",
    "tax_ids": "CustomerTaxIdListParams",
    "persons": "AccountPersonListParams",
    "external_accounts": "AccountExternalAccountListParams",
    "capabilities": "AccountCapabilityListParams",
}
"""The SDK's name of a list's parameters, where it does not follow from the name of the object."""

WITHOUT_FIELD = {"customer_account", "order_by", "resolution"}
"""Parameters of lists that no field has."""


def documented(object: str) -> dict[str, Any]:
    """The fields of the SDK's class for an object, without that of a deleted one."""
    module, name = OBJECT_CLASSES[object]
    fields = dict(getattr(importlib.import_module(module), name).__annotations__)
    return {name: fields[name] for name in fields if name not in ("OBJECT_NAME", "deleted")}


@pytest.fixture(scope="module")
def box() -> Sandbox:
    """An account with a few objects of each kind, all created at different times."""
    box = Sandbox(customers=5, oddities=False)
    for kind in PLAIN:
        owner = box.create(kind.owners)["id"] if kind.owners else ""
        for _ in range(COUNT):
            box.create(kind.name, **({kind.owner: owner} if owner else {}))
            box.advance(7)
    return box


def get(box: Sandbox, target: str, key: str = "") -> tuple[int, Any]:
    answer = box.answer(Request("GET", target, {"authorization": f"Bearer {key or box.key}"}, b""))
    return answer.status, json.loads(answer.body)


def list_path(box: Sandbox, kind: Kind) -> str:
    """The path of a list that has objects, with the parameters that it requires."""
    owner = next(row.group for row in reversed(box.account.tables[kind.name].rows.values()))
    path = kind.path.replace(":id", owner) + "?limit=2"
    for name in kind.required:
        row = next(reversed(box.account.tables[kind.name].rows.values())).content()
        path += f"&{name}={row.get(name) or owner}"
    return path


def listed(box: Sandbox, target: str) -> Iterator[dict[str, Any]]:
    """The objects of all pages of a list."""
    after = ""
    while True:
        status, page = get(box, target + after)
        assert status == 200, page
        yield from page["data"]
        if not page["has_more"]:
            return
        after = f"&starting_after={quote(page['data'][-1]['id'])}"


@EACH_KIND
def test_a_new_object_has_exactly_the_documented_fields(box: Sandbox, kind: Kind) -> None:
    """Without those that only come when expanded; hashes of other kinds than its own may lack."""
    for content in box.objects(kind.name).values():
        names = set(documented(content["object"]))
        lacking = names - set(content)
        absent = set(kind.opt_in)
        if kind.name in (
            "payment_methods",
            "payment_method_configurations",
            "terminal_configurations",
        ):
            fields = fields_of(content["object"])
            absent |= {name for name in lacking if fields[name].nature == "hash" and fields[name].nullable}  # fmt: skip
        assert set(content) <= names
        assert lacking == absent & names


def test_only_what_may_be_null_is_null(box: Sandbox) -> None:
    for kind in PLAIN:
        for content in box.objects(kind.name).values():
            may = {
                name for name, of in documented(content["object"]).items() if "Optional" in str(of)
            }
            may |= {name for name, of in documented(content["object"]).items() if "None" in str(of)}
            assert {name for name, value in content.items() if value is None} <= may, kind.name
            assert "" not in content.values(), kind.name


def test_a_list_takes_the_parameters_that_the_sdk_sends() -> None:
    for kind in PLAIN:
        *folders, _ = kind.object.split(".")
        name = ".".join([*folders, OBJECT_CLASSES[kind.object][1] + "ListParams"])
        place: Any = stripe.params
        for part in LIST_PARAMS.get(kind.name, name).split("."):
            place = getattr(place, part)
        params = dict(place.__annotations__)
        known = set(params) - COMMON - set(stripe.RequestOptions.__annotations__)

        assert ({"created", *kind.filters} if kind.windowed else {*kind.filters}) == known, (
            kind.name
        )
        required = {name for name in known if "NotRequired" not in str(params[name])}
        required -= set(stripe.RequestOptions.__annotations__)
        assert set(kind.required) == required, kind.name


def test_a_filter_names_a_field() -> None:
    for kind in PLAIN:
        own = {known.at or name for name, known in kind.filters.items() if known.rule != "owner"}
        named = {path.partition(".")[0] for path in own} - WITHOUT_FIELD
        assert named <= set(documented(kind.object)), kind.name


def test_every_event_type_is_one_of_stripes() -> None:
    for kind in PLAIN:
        ends = [end for ends in (*kind.leaving.values(), *kind.reaching.values()) for end in ends]
        ends += [change.ending for change in kind.changing]
        types = {kind.event_type(end) for end in ends}
        for operation in kind.events:
            types |= set(kind.types(operation))

        assert types <= set(TYPES), kind.name
        assert "deleted" not in kind.events or kind.deletable, kind.name


@EACH_KIND
def test_every_kind_is_listed_newest_first_and_retrieved(box: Sandbox, kind: Kind) -> None:
    objects, found = box.objects(kind.name), list(listed(box, list_path(box, kind)))
    ids = [content["id"] for content in found]
    times = [content[kind.dated] for content in found if kind.dated]

    assert len(ids) == len(set(ids)) >= COUNT or kind.required
    assert all(content == objects[content["id"]] for content in found)
    assert times == sorted(times, reverse=True)
    path, _, query = list_path(box, kind).partition("?")
    assert get(box, f"{path}?{query}&starting_after=none")[0] == 400
    assert get(box, f"{path}?{query}&unheard_of=1")[1]["error"]["code"] == "parameter_unknown"
    if kind.retrievable:
        assert get(box, f"{path}/{ids[0]}") == (200, found[0])
        message = get(box, f"{path}/none")[1]["error"]["message"]
        unknown = f"No such {kind.object}: 'none'"
        assert message == unknown or (kind.name == "accounts" and "access to account" in message)
    else:
        assert get(box, f"{path}/{ids[0]}")[0] == 404


def test_a_list_is_cut_by_the_time_of_creation(box: Sandbox) -> None:
    """Where the list takes the parameter; elsewhere it is unknown."""
    for kind in PLAIN:
        path = list_path(box, kind)
        if not kind.windowed:
            assert get(box, f"{path}&created[gte]=0")[1]["error"]["param"] == "created"
            continue
        found, rows = list(listed(box, path)), box.account.tables[kind.name].rows
        at = rows[found[0]["id"]].created or 0
        within = list(listed(box, f"{path}&created[gte]={at}"))
        assert within == [one for one in found if (rows[one["id"]].created or 0) >= at], kind.name
        assert len(found) > len(within) >= 1 or len(found) == 1, kind.name


@EACH_KIND
def test_every_filter_lists_exactly_what_has_the_value(box: Sandbox, kind: Kind) -> None:
    path, everything = list_path(box, kind), list(listed(box, list_path(box, kind)))
    for name, known in kind.filters.items():
        if known.rule in ("hash", "null", "not", "owner") or name in kind.required:
            continue
        for value in {v for content in everything for v in values_at(content, known.at or name)}:
            asked = str(value).lower() if isinstance(value, bool) else quote(str(value))
            query = f"&{name}[]={asked}" if known.rule == "list" else f"&{name}={asked}"
            assert list(listed(box, path + query)) == [
                content
                for content in everything
                if value in list(values_at(content, known.at or name))
            ], (name, value)


def values_at(content: Any, path: str) -> Iterator[Any]:
    """The values at a dotted path, through lists, but no nulls."""
    name, _, rest = path.partition(".")
    for holder in content if isinstance(content, list) else [content]:
        value = holder.get(name) if isinstance(holder, dict) else None
        if rest:
            yield from values_at(value, rest)
        elif value is not None:
            yield value


def test_a_restricted_key_needs_the_permission_of_the_row(box: Sandbox) -> None:
    for kind in PLAIN:
        key, path = box.restrict(permissions={"rak_customer_write"}), list_path(box, kind)
        if kind.permission != "rak_customer_read":
            status, answer = get(box, path, key)
            assert (status, f"'{kind.permission}'" in answer["error"]["message"]) == (403, True)
        assert get(box, path, box.restrict(permissions={kind.permission}))[0] == 200


def test_a_live_key_without_the_permission_gets_401() -> None:
    """With the same sentence, though the key is valid."""
    box = Sandbox(customers=1, oddities=False, livemode=True)
    status, answer = get(box, "/v1/charges", box.restrict(permissions={"rak_customer_read"}))
    message = answer["error"]["message"]
    assert (status, "'rak_charge_read' permission would allow" in message) == (401, True)


@EACH_KIND
def test_every_kind_has_the_events_of_its_row(kind: Kind) -> None:
    """A creation has those of its operation and of its status, an update those of an update."""
    box = Sandbox(customers=3, oddities=False)
    content = box.create(kind.name)
    if not kind.immutable:
        box.update(kind.name, content["id"], metadata={"changed": "yes"})
    if kind.deletable:
        box.delete(kind.name, content["id"])

    types = [event.type for event in box.events if event.object_id == content["id"]]
    reached = map(kind.event_type, kind.reaching.get(content.get("status", ""), ()))
    after = () if kind.immutable else kind.types("updated")
    gone = kind.types("deleted") if kind.deletable else ()
    assert types == [*kind.types("created"), *reached, *after, *gone]
    if kind.deletable:
        assert content["id"] in box.deleted(kind.name)
    else:
        with pytest.raises(ValueError, match=f"Stripe deletes no {kind.name}"):
            box.delete(kind.name, content["id"])


@pytest.mark.parametrize(
    "kind", [kind for kind in PLAIN if kind.name in EMBEDDED], ids=lambda kind: kind.name
)
def test_an_embedded_list_shows_ten_and_its_path_has_all(kind: Kind) -> None:
    box, sublist = Sandbox(customers=3, oddities=False), EMBEDDED[kind.name]
    content = box.create(kind.name, **{sublist.field: 12})
    shown, children = content[sublist.field], box.children(sublist.children)
    path = shown["url"] + ("&" if "?" in shown["url"] else "?") + "limit=5"

    assert (len(shown["data"]), shown["has_more"]) == (10, True)
    assert list(listed(box, path)) == list(children.values())
    first = next(iter(children.values()))
    assert set(first) == set(documented(sublist.object))
    if sublist.parent:
        assert first[sublist.parent] == content["id"]
    if sublist.by_id:
        path = sublist.path.replace(":id", content["id"])
        assert get(box, f"{path}/{first['id']}") == (200, first)
        assert get(box, f"{path}/none")[0] == 404
    changed = box.update(kind.name, content["id"], **{sublist.field: [{"id": first["id"]}]})
    assert (changed[sublist.field]["data"], changed[sublist.field]["has_more"]) == ([first], False)


@EACH_KIND
def test_what_a_field_stands_for_comes_when_it_is_expanded(box: Sandbox, kind: Kind) -> None:
    """Each id of an object that is there; fields that only come when expanded; nothing else."""
    path = list_path(box, kind)
    plain = list(listed(box, path))
    for name in documented(kind.object):
        status, page = get(box, f"{path}&expand[]=data.{name}")
        objects = objects_of(kind, name)
        assert (status == 200) == bool(objects or name in kind.opt_in), name
        if not objects or status != 200:
            continue
        for before, after in zip(plain, page["data"], strict=False):
            if isinstance(before[name], str) and isinstance(after[name], dict):
                assert (after[name]["id"], after[name]["object"]) == (before[name], after[name]["object"])  # fmt: skip
                assert after[name]["object"] in objects


def test_the_reader_of_annotations_finds_what_the_sdk_has() -> None:
    """The same names for each object that the sandbox has, and no module of the SDK is needed."""
    for kind in PLAIN:
        for object in (kind.object, *kind.variants, *(one.object for one in kind.sublists)):
            assert set(fields_of(object)) == set(documented(object)), object


def test_only_the_asked_for_class_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account without plain objects reads nothing of the SDK."""
    read: list[str] = []
    whole = Path.read_text
    fields_of.cache_clear()

    def spied(path: Path, *args: Any, **options: Any) -> str:
        read.append(path.name)
        return whole(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", spied)
    box = Sandbox(customers=120)
    assert read == []
    box.create("payouts")
    assert [name for name in read if name != "_object_classes.py"] == ["_payout.py"]


@pytest.mark.parametrize(
    ("fault", "status", "says"),
    [
        ("not_set_up", 400, "Your account is not set up to use Issuing."),
        ("unknown_urls", 404, "Unrecognized request URL (GET: /v1/issuing/cards)."),
    ],
)
def test_a_product_can_be_off(fault: str, status: int, says: str) -> None:
    """The other lists work."""
    box = Sandbox(customers=1, oddities=False)
    setattr(box.faults, fault, ("/v1/issuing/",))

    answered, answer = get(box, "/v1/issuing/cards?limit=1")
    assert (answered, answer["error"]["message"].startswith(says)) == (status, True)
    assert get(box, "/v1/charges")[0] == 200


@pytest.mark.parametrize("version", ["2030-01-01", "2026-10-28.clover", "yesterday", "2026-10-28"])
def test_a_version_that_stripe_does_not_know_is_refused(box: Sandbox, version: str) -> None:
    headers = {"authorization": f"Bearer {box.key}", "stripe-version": version}
    answer = box.answer(Request("GET", "/v1/charges", headers, b""))

    message = json.loads(answer.body)["error"]["message"]
    assert (answer.status, message) == (400, f"Invalid Stripe API version: {version}")


def test_a_list_below_an_object_needs_the_object_and_its_parameter(box: Sandbox) -> None:
    """A list below another object has what belongs to that one only."""
    first, second = box.create("accounts")["id"], box.create("accounts")["id"]
    person = box.create("persons", account=first)

    assert list(listed(box, f"/v1/accounts/{first}/persons?limit=2")) == [person]
    assert list(listed(box, f"/v1/accounts/{second}/persons?limit=2")) == []
    assert get(box, f"/v1/accounts/{first}/persons/{person['id']}") == (200, person)
    assert get(box, f"/v1/accounts/{second}/persons/{person['id']}")[0] == 404
    assert get(box, "/v1/accounts/acct_none/persons")[0] == 403
    status, answer = get(box, "/v1/setup_attempts")
    assert (status, answer["error"]["code"]) == (400, "parameter_missing")


def test_what_belongs_to_an_object_need_not_name_it(box: Sandbox) -> None:
    """The entitlements of a customer, and the balance transactions of a payout, are known by asking."""
    customer, payout = box.create("customers")["id"], box.create("payouts")["id"]
    entitlement = box.create("active_entitlements", customer=customer)
    inside = box.create("balance_transactions", payout=payout)

    assert "customer" not in entitlement and "payout" not in inside
    path = f"/v1/entitlements/active_entitlements?customer={customer}"
    assert list(listed(box, path)) == [entitlement]
    assert list(listed(box, f"/v1/balance_transactions?payout={payout}")) == [inside]


@pytest.mark.parametrize(
    ("table", "change", "types"),
    [
        ("charges", {"captured": False}, ["charge.updated"]),
        ("charges", {"amount_refunded": 10}, ["charge.refunded"]),
        ("refunds", {"status": "failed"}, ["refund.updated", "charge.refund.updated", "refund.failed"]),
        ("reviews", {"open": False}, ["review.closed"]),
        ("payouts", {"status": "paid"}, ["payout.updated", "payout.paid"]),
        ("payment_intents", {"status": "canceled"}, ["payment_intent.canceled"]),
        ("payment_intents", {"description": "x"}, []),
        ("payment_methods", {"customer": None}, ["payment_method.detached"]),
        ("meters", {"status": "inactive"}, ["billing.meter.deactivated"]),
        ("balance_transactions", {"status": "available"}, []),
        ("disputes", {"status": "lost"}, ["charge.dispute.updated", "charge.dispute.closed"]),
        ("checkout_sessions", {"status": "complete"}, ["checkout.session.completed"]),
    ],
)  # fmt: skip
def test_a_change_has_the_events_that_stripe_has_for_it(
    table: str, change: dict[str, Any], types: list[str]
) -> None:
    """Some have events of their own instead of that of an update, some have none."""
    box = Sandbox(customers=2, oddities=False)
    id = box.create(table)["id"]
    before = len(box.events)
    box.update(table, id, **change)

    assert [event.type for event in box.events[before:]] == types
    assert get(box, f"{KINDS[table].path}/{id}")[1].items() >= change.items()


def test_entitlements_are_told_by_their_summary() -> None:
    """Which names the customer, and has the whole list of what is active."""
    box = Sandbox(customers=1, oddities=False)
    (customer,) = box.objects("customers")
    one, other = (box.create("active_entitlements", customer=customer) for _ in range(2))
    box.delete("active_entitlements", one["id"])

    told = [json.loads(event.body) for event in box.events if "summary" in event.type]
    assert {event["type"] for event in told} == {"entitlements.active_entitlement_summary.updated"}
    assert [event["data"]["object"]["entitlements"]["data"] for event in told] == [[one], [one, other], [other]]  # fmt: skip
    assert {event["data"]["object"]["customer"] for event in told} == {customer}


def test_any_event_of_stripes_can_be_announced() -> None:
    box = Sandbox(customers=1, oddities=False)
    charge = box.create("charges", captured=False)
    box.announce("charges", charge["id"], "charge.expired")

    event = json.loads(box.events[-1].body)
    assert (event["type"], event["data"]) == ("charge.expired", {"object": charge})
    with pytest.raises(ValueError, match=r"no such event type: charge\.vanished"):
        box.announce("charges", charge["id"], "charge.vanished")


def test_usage_comes_in_windows() -> None:
    """Hours sum up to days, and days to the whole time; each window begins where it should."""
    box = Sandbox(customers=1, oddities=False)
    (customer,), meter = box.objects("customers"), box.create("meters")["id"]
    end = box.now - box.now % 86_400
    path = f"/v1/billing/meters/{meter}/event_summaries?customer={customer}&start_time={end - 3 * 86_400}&end_time={end}"  # fmt: skip
    sizes = {"": 3 * 86_400, "day": 86_400, "hour": 3600}
    sums = []
    for window, size in sizes.items():
        more = f"&value_grouping_window={window}" if window else ""
        found = list(listed(box, f"{path}&limit=10{more}"))
        starts = [one["start_time"] for one in found]
        assert starts == sorted(starts, reverse=True)
        assert all(one["end_time"] - one["start_time"] == size for one in found)
        assert len({one["id"] for one in found}) == len(found) <= 3 * 86_400 // size
        assert set(found[0]) == set(documented("billing.meter_event_summary"))
        sums.append(sum(one["aggregated_value"] for one in found))
    assert sums[0] == sums[1] == sums[2] > 0
    assert get(box, path.replace(customer, "cus_none"))[0] == 400
    assert get(box, path.partition("&")[0])[1]["error"]["code"] == "parameter_missing"
    assert get(box, f"{path}1&value_grouping_window=day")[1]["error"]["param"] == "end_time"
    assert get(box, path.replace(meter, "mtr_none"))[0] == 404
