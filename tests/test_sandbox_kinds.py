"""The rows of the sandbox's kinds agree with Stripe's SDK, and a row is all that a plain kind needs."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
import stripe
from stripe._object_classes import OBJECT_CLASSES

from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.protocol.event_types import TYPES
from stripe_feed.sandbox.protocol.messages import Request
from stripe_feed.sandbox.protocol.parameters import COMMON
from stripe_feed.sandbox.state import kinds
from stripe_feed.sandbox.state.kinds import Filter, Kind
from stripe_feed.sandbox.state.kinds.core import CORE

EACH_KIND = pytest.mark.parametrize("kind", CORE, ids=lambda kind: kind.name)


def documented(kind: Kind) -> dict[str, Any]:
    """The fields of the SDK's class for a kind."""
    module, name = OBJECT_CLASSES[kind.object]
    return dict(getattr(importlib.import_module(module), name).__annotations__)


@EACH_KIND
def test_a_list_takes_the_parameters_that_the_sdk_sends(kind: Kind) -> None:
    name = OBJECT_CLASSES[kind.object][1]
    params = set(getattr(stripe.params, f"{name}ListParams").__annotations__)

    filters = {"created", *kind.filters} if kind.windowed else {*kind.filters}
    assert filters == params - COMMON - set(stripe.RequestOptions.__annotations__)


@EACH_KIND
def test_exactly_the_ids_that_the_sdk_knows_as_expandable_expand(kind: Kind) -> None:
    annotations = {name: str(annotation) for name, annotation in documented(kind).items()}

    assert set(kind.expandable) == {
        name for name, annotation in annotations.items() if "Union[str, ForwardRef" in annotation
    }


@EACH_KIND
def test_every_event_type_is_one_of_stripes(kind: Kind) -> None:
    ends = [*kind.events.values()]
    for more in (*kind.leaving.values(), *kind.reaching.values()):
        ends += more

    assert {f"{kind.event}.{end}" for end in ends} <= set(TYPES)


@EACH_KIND
def test_what_is_filtered_grouped_listed_and_expanded_is_a_field(kind: Kind) -> None:
    fields = documented(kind)
    paths = [known.at or name for name, known in kind.filters.items()]
    named = [
        *kind.opt_in,
        *(sublist.field for sublist in kind.sublists),
        *filter(None, [kind.grouped]),
    ]

    assert {path.partition(".")[0] for path in paths} | set(named) <= set(fields)
    assert {sublist.field for sublist in kind.sublists if not sublist.children} <= set(kind.opt_in)


@EACH_KIND
def test_a_new_object_has_exactly_the_documented_fields(kind: Kind) -> None:
    """Without those that only come when expanded, are secret, or belong to a deleted object."""
    content = Sandbox(customers=20, oddities=False).create(kind.name)
    absent = {"OBJECT_NAME", "confirmation_secret", "deleted", *kind.opt_in}

    assert content["object"] == kind.object
    assert set(content) == set(documented(kind)) - absent


@EACH_KIND
def test_ids_begin_with_the_prefix(kind: Kind) -> None:
    """But for those that the account's owner may choose."""
    box = Sandbox(customers=20, oddities=False)
    ids = box.objects(kind.name) or [box.create(kind.name)["id"]]
    prefix = "price_" if kind.name == "plans" else f"{kind.prefix}_" if kind.prefix else ""

    assert all(id.startswith(prefix) for id in ids)


def get(box: Sandbox, target: str, key: str = "") -> tuple[int, Any]:
    request = Request("GET", target, {"authorization": f"Bearer {key or box.key}"}, b"")
    answer = box.answer(request)
    return answer.status, json.loads(answer.body)


def values_at(content: Any, path: str) -> list[Any]:
    """The values at a dotted path, through lists."""
    name, _, rest = path.partition(".")
    if isinstance(content, list):
        return [value for element in content for value in values_at(element, path)]
    value = content.get(name) if isinstance(content, dict) else None
    return values_at(value, rest) if rest else [value]


def filled(kind: Kind) -> Sandbox:
    """An account with a few objects of the kind."""
    box = Sandbox(customers=60, products=25, oddities=False)
    for _ in range(3):
        box.create(kind.name)
        box.advance(7)
    return box


def listed(box: Sandbox, kind: Kind, query: str = "") -> list[str]:
    """The ids of all pages of a list."""
    found: list[str] = []
    while True:
        after = f"&starting_after={quote(found[-1])}" if found else ""
        status, page = get(box, f"{kind.path}?limit=7{query}{after}")
        assert status == 200, page
        found += [content["id"] for content in page["data"]]
        if not page["has_more"]:
            return found


@EACH_KIND
def test_every_kind_is_listed_newest_first_and_retrieved(kind: Kind) -> None:
    box = filled(kind)
    objects, ids = box.objects(kind.name), listed(box, kind)
    times = [objects[id][kind.dated] for id in ids]

    assert len(ids) == len(set(ids)) >= 3
    assert times == sorted(times, reverse=True)
    assert kind.hidden or set(ids) == set(objects)
    for id in (ids[0], ids[-1]):
        assert get(box, f"{kind.path}/{quote(id)}") == (200, objects[id])
    assert get(box, f"{kind.path}?starting_after=none")[0] == 400
    assert get(box, f"{kind.path}/none")[1]["error"]["message"] == (
        f"No such {kind.object}: 'none'"
    )


def asked(name: str, known: Filter, value: Any) -> str:
    """The query of a filter for one value."""
    match known.rule:
        case "time":
            return f"&{name}[gte]={value}&{name}[lte]={value}"
        case "list":
            return f"&{name}[]={quote(value)}"
        case "boolean":
            return f"&{name}={str(value).lower()}"
    return f"&{name}={quote(value)}"


@EACH_KIND
def test_every_plain_filter_lists_exactly_what_has_the_value(kind: Kind) -> None:
    box = filled(kind)
    objects, everything = box.objects(kind.name), listed(box, kind)
    for name, known in kind.filters.items():
        if known.rule in ("group", "hash", "null"):
            continue
        path = known.at or name
        held = [value for id in everything for value in values_at(objects[id], path)]
        for value in {value for value in held if value is not None}:
            assert listed(box, kind, asked(name, known, value)) == [
                id for id in everything if value in values_at(objects[id], path)
            ], (name, value)


@EACH_KIND
def test_every_kind_has_the_events_of_its_row(kind: Kind) -> None:
    box = Sandbox(customers=20, oddities=False)
    id = box.create(kind.name)["id"]
    box.update(kind.name, id, metadata={"changed": "yes"})

    types = [
        event.type for event in box.events if (event.table, event.object_id) == (kind.name, id)
    ]
    ends = [kind.events[what] for what in ("created", "updated") if what in kind.events]
    assert types == [f"{kind.event}.{end}" for end in ends]


def gift_card(dice: Any, created: int) -> dict[str, Any]:
    return {
        "id": dice.id("gift"),
        "object": "gift_card",
        "active": True,
        "code": dice.word(8),
        "created": created,
        "customer": "",
        "promotion": {"coupon": "SPRING", "type": "coupon"},
    }


PLAIN = Kind(
    name="gift_cards",
    object="gift_card",
    prefix="gift",
    path="/v1/gift_cards",
    permission="rak_gift_card_read",
    event="gift_card",
    events={"created": "created", "updated": "updated"},
    filters={
        "active": Filter("boolean"),
        "code": Filter(),
        "coupon": Filter(at="promotion.coupon"),
        "customer": Filter(),
    },
    expandable={"customer": "customer"},
    sample=gift_card,
)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A small account with a kind of which there is nothing but a row."""
    add_row(monkeypatch, PLAIN)
    return Sandbox(customers=5, oddities=False)


def add_row(monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    """Add the row of a kind."""
    monkeypatch.setitem(kinds.KINDS, kind.name, kind)
    monkeypatch.setitem(kinds.KIND_OF_OBJECT, kind.object, kind)
    monkeypatch.setitem(kinds.KIND_OF_PATH, kind.path, kind)


def ids(box: Sandbox, query: str) -> list[str]:
    status, page = get(box, f"/v1/gift_cards{query}")
    assert status == 200, page
    return [found["id"] for found in page["data"]]


def test_a_row_is_all_that_a_plain_kind_needs(plain: Sandbox) -> None:
    """It is listed, filtered, retrieved, expanded and told of by events; it has a customer, as its
    sample asks for one.
    """
    first = plain.create("gift_cards", code="FIRST", promotion={"coupon": "AUTUMN"})
    plain.advance(5)
    second = plain.create("gift_cards", active=False)

    assert first["customer"] in plain.objects("customers")
    assert ids(plain, "") == [second["id"], first["id"]]
    assert ids(plain, "?limit=1&starting_after=" + second["id"]) == [first["id"]]
    for query in ("code=FIRST", "coupon=AUTUMN", "active=true", f"created={first['created']}"):
        assert ids(plain, f"?{query}") == [first["id"]]
    assert get(plain, f"/v1/gift_cards/{first['id']}") == (200, first)
    assert (
        get(plain, f"/v1/gift_cards/{first['id']}?expand[]=customer")[1]["customer"]
        == (plain.objects("customers")[first["customer"]])
    )

    plain.update("gift_cards", first["id"], active=False)
    plain.delete("gift_cards", second["id"])

    assert [(event.type, event.object_id) for event in plain.events] == [
        ("gift_card.created", first["id"]),
        ("gift_card.created", second["id"]),
        ("gift_card.updated", first["id"]),
    ]
    status, answer = get(plain, f"/v1/gift_cards/{second['id']}")
    assert (status, answer["error"]["message"]) == (
        404,
        f"No such gift_card: '{second['id']}'",
    )


def test_a_plain_kind_refuses_what_its_row_does_not_name(plain: Sandbox) -> None:
    restricted = plain.restrict(permissions={"rak_customer_read"})

    assert get(plain, "/v1/gift_cards?email=x")[0] == 400
    assert get(plain, "/v1/gift_cards?active=maybe")[0] == 400
    assert get(plain, "/v1/gift_cards?expand[]=data.coupon")[0] == 400
    status, answer = get(plain, "/v1/gift_cards", restricted)
    assert (status, "'rak_gift_card_read'" in answer["error"]["message"]) == (403, True)


def test_a_kind_with_a_share_is_part_of_the_seed_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes no other object."""
    before = Sandbox(customers=120)
    add_row(monkeypatch, replace(PLAIN, share=0.5))
    after = Sandbox(customers=120)

    codes = after.objects("gift_cards")
    assert len(codes) == 60
    assert {code["customer"] for code in codes.values()} <= set(after.objects("customers"))
    assert [after.objects(table) for table in before.account.tables] == [
        before.objects(table) for table in before.account.tables
    ]
