"""Events of an object become its changes: against what really happened in a sandbox, without HTTP
and without a destination.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, permutations
from random import Random
from typing import Any

import msgspec
import pytest

from stripe_feed.api.client import API_VERSION
from stripe_feed.extract.events.classify import (
    ObjectEvent,
    by_object,
    is_discount_only,
    object_events,
)
from stripe_feed.extract.events.history import (
    BaseState,
    changes_for,
    final_object,
    needs_base_state,
    order_events,
    same_schema,
)
from stripe_feed.extract.events.reader import Event, EventData
from stripe_feed.extract.tables.changes import ChangeRow
from stripe_feed.sandbox import Sandbox
from tests.core import CORE
from tests.feed_truth import before_of, by_ids

NAMES = by_object(CORE.values())
Image = dict[str, Any]

event_of = msgspec.json.Decoder(Event).decode


@dataclass
class Story:
    """What the events of one object tell, in the order of happening, and what it was before them;
    None: it was not there.
    """

    object_events: list[ObjectEvent]
    start: Image | None

    @property
    def known(self) -> BaseState | None:
        return None if self.start is None else BaseState(self.start, API_VERSION)

    def listed(self, dice: Random) -> list[ObjectEvent]:
        """As read: seconds in their order, and in each of them by chance."""
        found = list(self.object_events)
        dice.shuffle(found)
        return sorted(found, key=lambda one: one.event.created)


def stories(box: Sandbox, start: dict[tuple[str, str], Image]) -> list[Story]:
    """All objects with events, discounts aside."""
    found: dict[tuple[str, str], Story] = {}
    for record in box.events:
        for one in object_events(event_of(record.body), NAMES):
            if not is_discount_only(one):
                id = (one.resource.table, one.id)
                found.setdefault(id, Story([], start.get(id))).object_events.append(one)
    return list(found.values())


def present(box: Sandbox) -> dict[tuple[str, str], Image]:
    return {(table, id): image for table in CORE for id, image in box.objects(table).items()}


def lived(
    seed: int, seconds: int = 300, count: int = 300, version: str = API_VERSION, stubs: bool = False
) -> list[Story]:
    """A short and busy life: many changes of an object in a second."""
    box = Sandbox(seed=seed, customers=12, api_version=version)
    box.stub_deletes = stubs
    start = present(box)
    box.live(seconds, count)
    for _ in range(10):
        box.burst(8)
        box.advance(1)
    return stories(box, start)


def one_story(box: Sandbox, table: str, id: str, start: Image | None = None) -> Story:
    """The story of an object, all of whose events are in the sandbox."""
    (found,) = [
        story
        for story in stories(box, {})
        if (story.object_events[0].resource.table, story.object_events[0].id) == (table, id)
    ]
    return Story(found.object_events, start)


def ids(ordered: Sequence[ObjectEvent]) -> list[str]:
    return [one.event.id for one in ordered]


def without_volatile(one: ObjectEvent, image: Image) -> Image:
    return {
        name: value
        for name, value in image.items()
        if name not in (*one.resource.volatile, *one.resource.bearer_links)
    }


def images(steps: Sequence[ObjectEvent]) -> list[tuple[str, str, Image]]:
    """The objects that events hold; several that say the same of one image have no order
    (`invoice.paid` and the like).
    """
    found = [
        (
            one.kind,
            one.event.type,
            by_ids(without_volatile(one, json.loads(bytes(one.event.data.object)))),
        )
        for one in steps
    ]
    runs = (list(run) for _, run in groupby(found, key=lambda one: (one[0] == "status", one[2])))
    return [
        one
        for run in runs
        for one in (sorted(run, key=lambda one: one[1]) if run[0][0] == "status" else run)
    ]


# What an event is about


@pytest.fixture
def box() -> Sandbox:
    return Sandbox(seed=5, customers=8, oddities=False)


def told_of(box: Sandbox, since: int) -> list[tuple[str, str, str, str]]:
    """Type, table, id and role of all that the newest events tell."""
    events = [event_of(record.body) for record in box.events[since:]]
    return [
        (event.type, one.resource.table, one.id, one.kind)
        for event in events
        for one in object_events(event, NAMES)
    ]


def test_sub_objects_and_previews_are_no_objects(box: Sandbox) -> None:
    """`customer.*` matches cards and tax ids too, and `invoice.upcoming` is of no invoice."""
    box.noise(100)
    box.preview(next(iter(box.objects("customers"))))
    assert {record.type for record in box.events} >= {
        "customer.source.created",
        "customer.tax_id.created",
        "invoice.upcoming",
    }
    assert told_of(box, 0) == []


def test_a_cancellation_is_no_deletion(box: Sandbox) -> None:
    """`customer.subscription.deleted` tells of a subscription that stays."""
    id = box.create("subscriptions", status="active")["id"]
    since = len(box.events)
    box.cancel(id)
    assert told_of(box, since) == [("customer.subscription.deleted", "subscriptions", id, "status")]


def test_one_action_tells_of_a_plan_and_of_a_price(box: Sandbox) -> None:
    id = box.create("prices", recurring={"interval": "month"}, unit_amount=5)["id"]
    box.update("prices", id, active=False)
    assert {one[1:] for one in told_of(box, 0)} == {
        (table, id, role) for table in ("plans", "prices") for role in ("created", "updated")
    }


def test_a_discount_tells_of_its_customer_and_its_subscription(box: Sandbox) -> None:
    """Only that something is new: what they are then must be read."""
    customer = box.create("customers", discount=None)["id"]
    subscription = box.create("subscriptions", customer=customer, discounts=[])["id"]
    since = len(box.events)
    box.update("subscriptions", subscription, discounts=["di_1"])
    found = [
        one for record in box.events[since:] for one in object_events(event_of(record.body), NAMES)
    ]

    assert {(one.resource.table, one.id) for one in found if is_discount_only(one)} >= {
        ("subscriptions", subscription)
    }
    assert all(one.kind == "status" for one in found if is_discount_only(one))
    assert not any(
        is_discount_only(one) for one in found if one.event.type == "customer.subscription.updated"
    )


def test_what_is_no_object_tells_nothing() -> None:
    """Nor does an id of the wrong kind, or a type that is not asked for."""
    for body in (
        b'"cus_1"',
        b"null",
        b"{}",
        b'{"object":"customer"}',
        b'{"object":"customer","id":5}',
        b'{"object":["x"]}',
    ):
        assert (
            object_events(
                Event("evt_1", "customer.updated", 5, EventData(msgspec.Raw(body))), NAMES
            )
            == []
        )
    assert (
        object_events(
            Event(
                "evt_1",
                "customer.unheard_of",
                5,
                EventData(msgspec.Raw(b'{"object":"customer","id":"cus_1"}')),
            ),
            NAMES,
        )
        == []
    )


@pytest.mark.parametrize(
    ("table", "version", "same"),
    [
        ("customers", API_VERSION, True), ("invoices", API_VERSION, True),
        ("customers", "2026-03-25.dahlia", True), ("customers", "2025-09-30.clover", False),
        ("subscriptions", "2026-03-25.dahlia", False), ("invoices", "2025-09-30.clover", False),
        ("prices", "2025-09-30.clover", True), ("prices", "2024-06-20", False), ("plans", "2025-03-31.basil", True),
        ("customers", None, False), ("customers", "2099-01-01.unheard", False),
    ],
)  # fmt: skip
def test_a_snapshot_has_the_pins_shape_or_not(table: str, version: str | None, same: bool) -> None:
    """Additive fields count: one that lacks what came since is of another shape."""
    assert same_schema(CORE[table], version, API_VERSION) is same
    if version is not None:
        assert same_schema(CORE[table], API_VERSION, version) is same


# In which order


@pytest.mark.parametrize("stubs", [False, True], ids=["whole", "stubs"])
@pytest.mark.parametrize("seed", range(3))
def test_f6_a_busy_life_is_put_in_order(seed: int, stubs: bool) -> None:
    """Seconds with several events of an object, shuffled: right where it is sure, and sure nearly
    always.
    """
    dice = Random(seed)
    groups = right = 0
    for story in lived(seed, stubs=stubs):
        found = order_events(story.listed(dice), story.known, True)
        truth = iter(story.object_events)
        for _, second in groupby(found, key=lambda one: one.event.created):
            got = list(second)
            happened = [next(truth) for _ in got]
            if len(got) < 2:
                continue
            exact = images(got) == images(happened)
            assert exact or not got[-1].certain, (ids(got), [one.event.id for one in happened])
            groups, right = groups + 1, right + exact
    assert groups > 40
    assert right >= 0.97 * groups


def test_numbers_count_within_a_second(box: Sandbox) -> None:
    id = box.create("customers")["id"]
    box.update("customers", id, name="A")
    box.advance(1)
    box.update("customers", id, name="B")
    assert [
        one.position for one in order_events(one_story(box, "customers", id).object_events)
    ] == [1, 2, 1]


def test_created_deleted_and_created_again_in_one_second(box: Sandbox) -> None:
    """However Stripe lists them: the last creation is what there is."""
    id = box.create("products", id="prod_phoenix", name="first", default_price=None)["id"]
    box.delete("products", id)
    box.create("products", id=id, name="second")
    story = one_story(box, "products", id)
    for seed in range(6):
        found = order_events(story.listed(Random(seed)), None, True)
        changes = changes_for(found, None, API_VERSION)
        assert [change.op for change in changes] == ["c", "d", "c"]
        if found[-1].certain:
            assert (
                json.loads(final_object(found, API_VERSION) or b"")["name"]
                == json.loads(changes[-1].after or b"")["name"]
            )


@pytest.mark.parametrize("stubs", [False, True], ids=["whole", "stubs"])
@pytest.mark.parametrize("whole", [False, True], ids=["row", "image"])
def test_deleted_and_created_again_in_one_second(box: Sandbox, stubs: bool, whole: bool) -> None:
    """It was there before, whether its last change is known or only its row: it lives on."""
    start = box.create("products", id="prod_phoenix", name="first", default_price=None)
    since = len(box.events)
    box.stub_deletes = stubs
    box.advance(5)
    box.delete("products", start["id"])
    box.create("products", id=start["id"], name="second")
    box.update("products", start["id"], name="third", description="x")
    story = [
        one for record in box.events[since:] for one in object_events(event_of(record.body), NAMES)
    ]
    for seed in range(6):
        Random(seed).shuffle(story)
        assert [
            one.kind for one in order_events(story, BaseState(start, API_VERSION, whole), True)
        ] == ["deleted", "created", "updated"]


def doubled(story: Story, at: int) -> ObjectEvent:
    """The same event told again under another id."""
    one = story.object_events[at]
    event = msgspec.structs.replace(one.event, id=f"{one.event.id}_twin")
    return msgspec.structs.replace(one, event=event)


def test_twins_are_one_change(box: Sandbox) -> None:
    id = box.create("customers")["id"]
    for name in "ABC":
        box.update("customers", id, name=name)
    story = one_story(box, "customers", id)
    for at in range(4):
        found = order_events([*story.object_events[::-1], doubled(story, at)], None, True)
        assert [json.loads(bytes(one.event.data.object))["name"] for one in found[1:]] == [
            "A",
            "B",
            "C",
        ]
        assert len(found) == 4


def test_a_recorded_event_stands_for_its_duplicate(box: Sandbox) -> None:
    """Its change id is out already."""
    id = box.create("customers")["id"]
    box.update("customers", id, name="A")
    story = one_story(box, "customers", id)
    twin = doubled(story, 1)
    twin.seen = True
    assert ids(order_events([*story.object_events, twin], None, True)) == [
        story.object_events[0].event.id,
        twin.event.id,
    ]


def test_what_must_be_looked_up(box: Sandbox) -> None:
    """What an event itself tells need not be: only bare deletions, mere statements, and rounds
    within a second.
    """
    id = box.create("customers", delinquent=False)["id"]
    other = box.create("customers", delinquent=False)["id"]
    subscription = box.create("subscriptions", status="active")["id"]
    box.advance(1)
    box.update("customers", id, delinquent=True)
    assert not needs_base_state(one_story(box, "customers", id).object_events)
    assert not needs_base_state(one_story(box, "customers", id).object_events[1:])
    box.update("customers", id, delinquent=False)
    assert needs_base_state(one_story(box, "customers", id).object_events[1:])
    box.cancel(subscription)
    assert needs_base_state(one_story(box, "subscriptions", subscription).object_events[1:])
    box.delete("customers", other)
    assert not needs_base_state(one_story(box, "customers", other).object_events[1:])
    box.stub_deletes = True
    box.delete("customers", id)
    assert needs_base_state(one_story(box, "customers", id).object_events[-1:])
    assert not needs_base_state(one_story(box, "customers", id).object_events[1:2])


# What changed


def told_changes(story: Story, dice: Random) -> Iterator[tuple[ObjectEvent, ChangeRow]]:
    """The changes of an object whose events can be put in order."""
    found = order_events(story.listed(dice), story.known, True)
    if images(found) == images(story.object_events):
        yield from zip(found, changes_for(found, story.known, API_VERSION), strict=True)


@pytest.mark.parametrize("seed", range(2))
def test_f5_before_and_after_are_exact_throughout_a_life(seed: int) -> None:
    """Of every change: the object then, and the one before it, whether the event tells it or not."""
    kinds = set()
    for story in lived(seed, seconds=20_000):
        at = story.start
        for one, change in told_changes(story, Random(seed)):
            kinds.add((change.op, one.kind))
            assert change.before_quality == "exact" or change.op == "c" or one.resource.map_fields
            row: Image = {
                name: json.loads(raw) if raw else None
                for name, raw in (("after", change.after), ("previous", change.previous))
            }
            if change.op != "c":
                before = before_of({"op": change.op, **row})
                assert by_ids(without_volatile(one, before)) == by_ids(
                    without_volatile(one, at or {})
                )
            at = row["after"]
            if at is not None:
                assert at == {
                    k: v
                    for k, v in json.loads(bytes(one.event.data.object)).items()
                    if k not in one.resource.bearer_links
                }
    assert kinds >= {("c", "created"), ("u", "updated"), ("u", "status"), ("d", "deleted")}


def test_bare_deletions_have_the_whole_object_before(seed: int = 3) -> None:
    """F10: an event with three keys; what it was comes from the change before it, or from what is
    known.
    """
    ends = 0
    for story in lived(seed, seconds=20_000, stubs=True):
        at = story.start
        for one, change in told_changes(story, Random(seed)):
            if one.kind == "deleted":
                ends += 1
                assert one.is_stub and change.before_quality == "exact" and at is not None
                assert without_volatile(
                    one, json.loads(change.previous or b"")
                ) == without_volatile(one, at)
                if one.resource.table != "customers" and "customer" in at:
                    assert change.customer_id == at["customer"]
            at = json.loads(change.after) if change.after else None
    assert ends > 5


def test_a_bare_deletion_of_what_nobody_knows_says_so(box: Sandbox) -> None:
    box.stub_deletes = True
    id = box.create("customers")["id"]
    box.delete("customers", id)
    (change,) = changes_for(
        order_events(one_story(box, "customers", id).object_events[1:]), None, API_VERSION
    )
    assert (
        change.op,
        change.before_quality,
        change.previous,
        change.after,
        change.customer_id,
    ) == ("d", "none", None, None, id)


@pytest.mark.parametrize("version", ["2024-06-20", "2025-02-24.acacia", "2025-09-30.clover"])
def test_images_of_another_shape_are_derived_and_make_no_row(version: str) -> None:
    """Of invoices, subscriptions and products; the event's own bytes are kept."""
    derived = 0
    for story in lived(1, version=version):
        for one, change in told_changes(story, Random(1)):
            assert change.api_version == version
            if one.kind == "updated" and one.resource.table in (
                "invoices",
                "subscriptions",
                "products",
            ):
                derived += 1
                assert change.before_quality == "derived"
                assert final_object([one], API_VERSION) is None
    assert derived > 20


def test_free_form_hashes_are_derived(box: Sandbox) -> None:
    """Their keys come and go, so that null may mean either."""
    id = box.create(
        "subscriptions",
        status="active",
        payment_settings={"payment_method_options": {"card": {"mandate": "x"}}},
    )["id"]
    box.advance(1)
    box.update(
        "subscriptions",
        id,
        payment_settings={"payment_method_options": {"card": {"mandate": None}}},
    )
    box.advance(1)
    box.update("subscriptions", id, status="past_due")
    story = one_story(box, "subscriptions", id)
    assert [
        change.before_quality
        for change in changes_for(order_events(story.object_events), None, API_VERSION)
    ] == ["exact", "derived", "exact"]


def test_links_are_in_no_change(box: Sandbox) -> None:
    """Bearer links neither in after, nor in previous, nor among the paths."""
    id = box.create("invoices", status="draft", metadata={})["id"]
    box.advance(1)
    box.update("invoices", id, status="open")
    box.advance(1)
    box.update("invoices", id, hosted_invoice_url="https://example.com/canary", metadata={"a": "b"})
    story = one_story(box, "invoices", id)
    assert any(
        b'"hosted_invoice_url":"http' in bytes(one.event.data.object) for one in story.object_events
    )
    changes = changes_for(order_events(story.object_events, None, True), None, API_VERSION)
    text = b" ".join(
        [
            *(change.after or b"" for change in changes),
            *(change.previous or b"" for change in changes),
        ]
    )
    assert not any(
        name in text for name in (b"hosted_invoice_url", b"invoice_pdf", b"confirmation_secret")
    )
    assert changes[-1].changed == ["metadata.a"]


def test_seen_events_give_no_change_and_what_they_overtook_is_late(box: Sandbox) -> None:
    """An event that shows after a newer one of the same object was told."""
    id = box.create("customers")["id"]
    for name in "ABC":
        box.advance(1)
        box.update("customers", id, name=name)
    story = one_story(box, "customers", id).object_events
    story[0].seen = story[2].seen = True
    changes = changes_for(order_events(story), None, API_VERSION)
    assert [(json.loads(change.after or b"")["name"], change.late) for change in changes] == [
        ("A", True),
        ("C", False),
    ]


def test_the_last_content_is_the_row(box: Sandbox) -> None:
    """A deletion's own, or the one before a bare deletion; a stub gives none."""
    id = box.create("customers", name="A")["id"]
    box.advance(1)
    box.update("customers", id, name="B")
    box.advance(1)
    whole = order_events(one_story(box, "customers", id).object_events)
    box.delete("customers", id)
    ended = order_events(one_story(box, "customers", id).object_events)
    for found in (whole, ended):
        assert json.loads(final_object(found, API_VERSION) or b"")["name"] == "B"


def test_a_bare_deletion_takes_the_content_before_it(box: Sandbox) -> None:
    """Where there is one in the span."""
    box.stub_deletes = True
    id = box.create("customers", name="A")["id"]
    box.advance(1)
    box.delete("customers", id)
    found = order_events(one_story(box, "customers", id).object_events)
    assert json.loads(final_object(found, API_VERSION) or b"")["name"] == "A"
    assert final_object(found[1:], API_VERSION) is None


def test_an_order_that_is_not_sure_gives_no_content(box: Sandbox) -> None:
    """The object is read again then."""
    id = box.create("customers", delinquent=False)["id"]
    box.advance(1)
    for late in (True, False):
        box.update("customers", id, delinquent=late)
    found = order_events(one_story(box, "customers", id).object_events[1:])
    assert found[-1].certain is False
    assert final_object(found, API_VERSION) is None


def test_a_second_that_follows_a_guess_is_a_guess(box: Sandbox) -> None:
    """There and back twice: what the first second ended with decides the order of the next. Known
    before, both are sure.
    """
    id = box.create("customers", delinquent=False)["id"]
    for _ in range(2):
        box.advance(1)
        for late in (True, False):
            box.update("customers", id, delinquent=late)
    story = one_story(box, "customers", id).object_events
    first, second = story[1:3], story[3:5]
    assert [one.certain for one in order_events(story)] == [True] * 5
    for read in ([*first, *second], [*first[::-1], *second], [*first, *second[::-1]]):
        assert [one.certain for one in order_events(read)] == [False] * 4


def test_a_price_that_changes_between_them_does_not_part_two_events_of_a_subscription(
    box: Sandbox,
) -> None:
    """Items show it as it is at each event: the trail goes on, and a cancellation does not say that
    items changed.
    """
    price = box.create("prices", recurring={"interval": "month"}, nickname="A")["id"]
    id = box.create("subscriptions", items=[{"price": price}], metadata={"k": "A"})["id"]
    box.advance(20)
    for letter in "BCD":
        box.update("subscriptions", id, metadata={"k": letter})
        box.update("prices", price, nickname=letter)
    box.advance(20)
    box.update("prices", price, active=False)
    box.cancel(id)
    story = one_story(box, "subscriptions", id).object_events
    for second in permutations(story[1:4]):
        found = order_events([story[0], *second, story[4]])
        assert ids(found) == [one.event.id for one in story]
        assert all(one.certain for one in found)
    last = changes_for(order_events(story), None, API_VERSION)[-1]
    assert (last.event_type, last.before_quality) == ("customer.subscription.deleted", "exact")
    assert not [path for path in last.changed if path.startswith("items")]
    assert "status" in last.changed


def test_what_is_part_of_an_object_counts_whole(box: Sandbox) -> None:
    """A discount keeps its id when it changes, and metadata may have a key `id`."""
    id = box.create("customers", metadata={"id": "1", "n": "1"}, discount=discount(1))["id"]
    box.advance(20)
    for n in (2, 3, 4):
        box.update("customers", id, discount=discount(n))
        box.update("customers", id, metadata={"id": "1", "n": str(n)})
    story = [
        one for one in one_story(box, "customers", id).object_events if not is_discount_only(one)
    ]
    for turn in range(1, len(story)):
        found = order_events([story[0], *story[turn:], *story[1:turn]])
        assert ids(found) == [one.event.id for one in story]
        assert all(one.certain for one in found)


def discount(end: int) -> Image:
    return {"id": "di_1", "object": "discount", "start": 1, "end": end}


@pytest.mark.parametrize("told_first", ["2024-06-20", API_VERSION])
def test_a_round_begins_like_the_image_before_whatever_its_shape(
    box: Sandbox, told_first: str
) -> None:
    """There and back in a second: what was before tells which came first, also where that has the
    shape of another version.
    """
    box.api_version = told_first
    price = box.create("prices")["id"]
    box.api_version = API_VERSION if told_first != API_VERSION else "2024-06-20"
    box.advance(20)
    box.update("prices", price, active=False)
    box.update("prices", price, active=True)
    begins, *story = one_story(box, "prices", price).object_events
    known = BaseState(msgspec.json.decode(begins.event.data.object), told_first)

    for read in (story, story[::-1]):
        assert ids(order_events(read, known)) == [one.event.id for one in story]
        assert all(one.certain for one in order_events(read, known))

    known.image.pop("active")  # a shape that does not tell
    assert not any(one.certain for one in order_events(story, known))


def test_a_round_through_other_children_is_never_wrong_and_sure(box: Sandbox) -> None:
    """A row tells nothing of the order of its lists, and so not which of two equal rows came first."""
    id = box.create("subscriptions", items=1, metadata={"k": "A"})["id"]
    (item,) = [
        one
        for one, found in box.children("subscription_items").items()
        if found["subscription"] == id
    ]
    start = box.objects("subscriptions")[id]
    box.advance(20)
    box.update("subscriptions", id, metadata={"k": "B"}, items=[{"id": item, "quantity": 7}])
    box.update("subscriptions", id, metadata={"k": "A"})
    box.update(
        "subscriptions", id, items=[{"id": item, "quantity": start["items"]["data"][0]["quantity"]}]
    )
    story = one_story(box, "subscriptions", id).object_events[1:]
    assert len(story) == 3

    for read in permutations(story):
        found = order_events(read, BaseState(start, API_VERSION, complete=False), True)
        assert ids(found) == ids(order_events(story, BaseState(start, API_VERSION))) or not any(
            one.certain for one in found
        )


@pytest.mark.parametrize(("table", "lives"), [("customers", 1), ("products", 2)])
def test_only_where_the_account_chooses_ids_one_is_born_twice(
    box: Sandbox, table: str, lives: int
) -> None:
    """Elsewhere a second creation in the second of a bare deletion is a twin; where ids are chosen,
    it may be another life.
    """
    box.stub_deletes = True
    id = box.create(table)["id"]
    box.update(table, id, metadata={"k": "v"})
    box.delete(table, id)
    begins, moves, ends = one_story(box, table, id).object_events
    twin = doubled(Story([begins], None), 0)
    found = order_events([ends, twin, moves, begins], None, True)
    assert [one.kind for one in found].count("created") == lives
    if lives == 1:
        assert [one.kind for one in found] == ["created", "updated", "deleted"]
        assert all(one.certain for one in found)


def test_where_ids_are_given_out_a_deletion_is_the_last_whatever_the_shapes(box: Sandbox) -> None:
    """Events of two API versions in one second form no trail."""
    id = box.create("customers")["id"]
    box.advance(20)
    box.update("customers", id, name="A")
    box.api_version = "2024-06-20"
    box.update("customers", id, name="B")
    box.delete("customers", id)
    story = one_story(box, "customers", id).object_events[1:]
    for read in permutations(story):
        assert order_events(read)[-1].kind == "deleted"
