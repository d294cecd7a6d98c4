"""Webhooks tell of events at once; polling comes to them later. However the two mix, tables and
change ids are the same.
"""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stripe_feed.errors import Unreachable
from stripe_feed.extract.events.webhook import (
    MAX_BEFORE_LISTING,
    WebhookEvent,
    WebhookHead,
    decode_head,
    fetch_webhook_events,
    listing_start,
)
from stripe_feed.sandbox import Sandbox
from tests.copies import Copy, copy_of, first_copy
from tests.core import CORE

TABLES = ("customers", "subscriptions", "invoices")
SETTLED = 400


def account() -> Sandbox:
    box = Sandbox(seed=3, customers=8)
    box.advance(SETTLED)
    return box


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database after a first sync."""
    return first_copy(account(), tmp_path_factory.mktemp("loaded"), resources=TABLES)


@pytest.fixture
def copy(tmp_path: Path, loaded: Path) -> Iterator[Copy]:
    with copy_of(account(), tmp_path, hold=True) as found:
        shutil.copy(loaded, tmp_path / found.database)
        found.box.advance(SETTLED)
        yield found


def ids(copy: Copy) -> set[str]:
    rows = copy.select("select change_id, count(*) from stripe.changes group by 1")
    assert all(count == 1 for _, count in rows)
    return {id for id, _ in rows}


def bells(copy: Copy, since: int) -> list[str]:
    """The ids of the events from the n-th on, as webhooks bring them."""
    return [event.id for event in copy.box.events[since:]]


def test_a_webhook_event_is_there_before_it_settles(copy: Copy) -> None:
    box = copy.box
    id = copy.one("select id from stripe.customers where deleted_at is null limit 1")
    box.update("customers", id, name="At once")
    copy.sync(resources=TABLES)
    assert copy.one(f"select name from stripe.customers where id = '{id}'") != "At once"
    copy.sync(resources=TABLES, webhook_events=[WebhookEvent(box.events[-1].id)])
    assert copy.one(f"select name from stripe.customers where id = '{id}'") == "At once"
    assert box.events[-1].id in ids(copy)


def told_of(copy: Copy, id: str) -> list[tuple[str, bool]]:
    """The changes of an object in the order of the feed, each with whether it says `late`."""
    return copy.select(
        f"select change_id, late from stripe.changes where object_id = '{id}' order by _dlt_load_id, seq"
    )


def twice(copy: Copy, seconds: int) -> tuple[str, str, str]:
    """A customer that is updated twice; its id and those of the events."""
    box = copy.box
    id = copy.one("select id from stripe.customers where deleted_at is null limit 1")
    box.update("customers", id, name="First")
    box.advance(seconds)
    box.update("customers", id, name="Second")
    first, second = (event.id for event in box.events[-2:])
    return id, first, second


@pytest.mark.parametrize(("seconds", "polls"), [(0, False), (3, False), (70, True)])
def test_what_came_before_a_webhook_event_is_recorded_before_it(
    copy: Copy, seconds: int, polls: bool
) -> None:
    """Though its webhook comes later, or never; and nothing tells it again."""
    id, first, second = twice(copy, seconds)
    copy.sync(resources=TABLES, webhook_events=[WebhookEvent(second)], polls=polls)
    assert told_of(copy, id) == [(first, False), (second, False)]
    copy.sync(
        resources=TABLES, webhook_events=[WebhookEvent(first), WebhookEvent(second)], polls=False
    )
    copy.box.advance(SETTLED)
    copy.sync(resources=TABLES)
    assert told_of(copy, id) == [(first, False), (second, False)]
    copy.check(*TABLES)


def hide(copy: Copy, event_id: str, seconds: float) -> None:
    """The API shows an event only after so many seconds."""
    history = copy.box.account.event_log
    event = history.by_id[event_id]
    history.by_id[event_id] = later = event._replace(visible_at=copy.box.now + seconds)
    for some in (history.records, history._order):
        some[some.index(event)] = later


@pytest.mark.parametrize(("seconds", "rings"), [(0, True), (3, True), (3, False)])
def test_what_shows_only_after_a_newer_one_says_late(copy: Copy, seconds: int, rings: bool) -> None:
    """By its own webhook or by polling, long before the newer one is polled; the row stays where
    the newer one led.
    """
    id, first, second = twice(copy, seconds)
    hide(copy, first, 60)
    copy.sync(resources=TABLES, webhook_events=[WebhookEvent(second)], polls=False)
    copy.box.advance(61 + seconds)
    copy.sync(
        resources=TABLES, webhook_events=[WebhookEvent(first)] if rings else [], polls=not rings
    )
    assert told_of(copy, id) == [(second, False), (first, True)]
    copy.box.advance(SETTLED)
    copy.sync(resources=TABLES)
    assert told_of(copy, id) == [(second, False), (first, True)]
    copy.check(*TABLES)


def test_what_no_list_shows_says_late_though_the_newer_one_is_not_read_with_it(copy: Copy) -> None:
    """The destination is asked what was told of the object since."""
    id, first, second = twice(copy, 3)
    hide(copy, first, 60)
    copy.sync(resources=TABLES, webhook_events=[WebhookEvent(second)], polls=False)
    copy.box.advance(64)
    copy.sync(resources=TABLES, webhook_events=[WebhookEvent(first, by_id=True)], polls=False)
    assert told_of(copy, id) == [(second, False), (first, True)]


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(n, marks=pytest.mark.long) for n in range(2, 20))]
)
def test_webhooks_in_any_order_doubled_or_missing_lead_to_the_same(copy: Copy, seed: int) -> None:
    dice, box, known = random.Random(seed), copy.box, len(copy.box.events)
    waiting: list[str] = []
    for _ in range(6):
        before = len(box.events)
        box.live(dice.choice([1, 5, 90]), 6)
        waiting += [
            id
            for id in bells(copy, before)
            if dice.random() < 0.8
            for _ in range(dice.choice([1, 1, 2]))
        ]
        dice.shuffle(waiting)
        now, waiting = waiting[: len(waiting) // 2], waiting[len(waiting) // 2 :]
        copy.sync(resources=TABLES, webhook_events=[WebhookEvent(id) for id in now])
        box.advance(dice.choice([0, 30, 200]))
    box.advance(SETTLED)
    copy.sync(resources=TABLES, webhook_events=[WebhookEvent(id) for id in waiting])
    box.advance(SETTLED)
    copy.sync(resources=TABLES)
    copy.check(*TABLES)
    assert ids(copy) == {event.id for event in box.events[known:] if told(event.type)}


def told(type: str) -> bool:
    """Whether polling makes a change of an event: discounts are told by those whose they are."""
    return any(type in CORE[table].events for table in TABLES) and not type.startswith(
        "customer.discount."
    )


def test_an_event_of_another_account_and_one_of_before_the_list_are_passed_over(
    tmp_path: Path,
) -> None:
    with copy_of(Sandbox(seed=3, customers=8), tmp_path, hold=True) as copy:
        copy.box.create("customers")
        copy.box.advance(SETTLED)
        copy.sync(resources=["customers"])
        copy.sync(
            resources=["customers"],
            webhook_events=[
                WebhookEvent("evt_of_another_account"),
                WebhookEvent(copy.box.events[0].id),
            ],
        )
        assert ids(copy) == set()
        copy.check("customers")


def test_without_the_permission_the_body_is_enough(tmp_path: Path) -> None:
    with copy_of(account(), tmp_path, hold=True) as copy:
        box = copy.box
        key = box.restrict(permissions={"rak_customer_read"})
        copy.load(resources=["customers"], api_key=key)
        box.advance(SETTLED)
        id: Any = copy.one("select id from stripe.customers where deleted_at is null limit 1")
        box.update("customers", id, name="Told by body")
        copy.sync(
            resources=["customers"],
            api_key=key,
            webhook_events=[WebhookEvent(box.events[-1].id, box.events[-1].body)],
        )
        assert copy.one(f"select name from stripe.customers where id = '{id}'") == "Told by body"
        assert ids(copy) == {box.events[-1].id}


@pytest.mark.parametrize("foreign", [{"account": "acct_of_another"}, {"livemode": True}])
def test_a_body_of_another_account_or_mode_is_passed_over(
    tmp_path: Path, foreign: dict[str, Any]
) -> None:
    """An endpoint can be sent events of connected accounts, signed with the same secret."""
    with copy_of(account(), tmp_path, hold=True) as copy:
        key = copy.box.restrict(permissions={"rak_customer_read"})
        copy.load(resources=["customers"], api_key=key)
        copy.box.advance(SETTLED)
        held = copy.one("select id from stripe.customers where deleted_at is null limit 1")
        copy.box.update("customers", held, name="Foreign")
        body = json.dumps({**json.loads(copy.box.events[-1].body), **foreign}).encode()
        event = WebhookEvent(copy.box.events[-1].id, body)
        copy.sync(resources=["customers"], api_key=key, webhook_events=[event])
        assert copy.one(f"select name from stripe.customers where id = '{held}'") != "Foreign"


def test_what_cannot_be_read_yet_is_left(tmp_path: Path) -> None:
    """Without the permission and without a body; and while the first list is not complete."""
    with copy_of(account(), tmp_path, hold=True) as copy:
        key = copy.box.restrict(permissions={"rak_customer_read"})
        copy.load(resources=["customers"], api_key=key)
        copy.box.advance(SETTLED)
        id = next(iter(copy.box.objects("customers")))
        copy.box.update("customers", id, name="One")
        copy.box.update("customers", id, name="Two")
        one, two = (event for event in copy.box.events[-2:])
        done = copy.sync(
            resources=["customers"],
            api_key=key,
            webhook_events=[WebhookEvent(one.id), WebhookEvent(two.id, two.body)],
        )
        assert done.unread == (one.id,)
        assert copy.one(f"select name from stripe.customers where id = '{id}'") == "Two"


def asked(copy: Copy) -> dict[str, int]:
    """How often events were asked for, one by one and by the page."""
    found = {"/v1/events": 0, "/v1/events/:id": 0}
    for (path, _), count in copy.box.counts.items():
        if path in found:
            found[path] += count
    return found


def rung_of(copy: Copy, since: int) -> list[WebhookEvent]:
    """The events from the n-th on, as webhooks bring them: each says of which type it is, and when
    it was.
    """
    return [
        WebhookEvent(event.id, head=WebhookHead(type=event.type, created=event.created))
        for event in copy.box.events[since:]
    ]


def test_a_burst_is_read_by_the_page(copy: Copy) -> None:
    """In two readings, the second of which does not begin with the first once more; nothing is
    asked for twice, or by id.
    """
    box, known = copy.box, len(copy.box.events)
    ids = sorted(box.objects("customers"))
    box.reset_counts()
    told = 0
    for part in range(2):
        for n in range(250):
            box.update("customers", ids[n % len(ids)], name=f"{part} {n}")
            box.advance(n % 3 == 0)
        rung = rung_of(copy, known)
        assert copy.sync(resources=TABLES, webhook_events=rung[::-1], polls=False).unread == ()
        told += 250
    assert asked(copy)["/v1/events/:id"] == 0
    assert asked(copy)["/v1/events"] <= 1.2 * told / 100
    for id in ids:
        assert [one for one, _ in told_of(copy, id)] == [
            event.id for event in box.events[known:] if event.object_id == id
        ]
    assert not copy.one("select count(*) from stripe.changes where late")
    box.reset_counts()
    copy.sync(resources=TABLES, webhook_events=rung, polls=False)
    assert sum(asked(copy).values()) == 0


def test_one_event_that_cannot_be_read_stops_nothing_else(copy: Copy) -> None:
    box, held = (
        copy.box,
        copy.one("select id from stripe.customers where deleted_at is null limit 1"),
    )
    box.update("customers", held, name="Rung")
    event = box.events[-1]
    customer = WebhookHead(type="customer.updated")
    box.faults.always["/v1/events/:id"] = 400
    done = copy.sync(
        resources=TABLES,
        webhook_events=[
            WebhookEvent("evt_odd", head=customer),
            WebhookEvent(event.id),
            WebhookEvent("evt_old", by_id=True),
        ],
        polls=False,
    )
    assert (done.failed, done.unread) == (
        {"evt_odd": "RequestRefused", "evt_old": "RequestRefused"},
        (),
    )
    assert ids(copy) == {event.id}
    box.faults.always.clear()
    done = copy.sync(
        resources=TABLES,
        webhook_events=[WebhookEvent("evt_odd", head=customer, by_id=True)],
        polls=False,
    )
    assert done.failed == {"evt_odd": "NotFound"}


def test_nothing_is_asked_for_what_concerns_nobody(copy: Copy) -> None:
    """Types that no table is made of, connected accounts, the other mode."""
    copy.box.reset_counts()
    heads = (
        WebhookHead(type="charge.succeeded"),
        WebhookHead(type="customer.updated", account="acct_2"),
        WebhookHead(livemode=True),
    )
    done = copy.sync(
        resources=TABLES,
        webhook_events=[WebhookEvent(f"evt_{n}", head=head) for n, head in enumerate(heads)],
        polls=False,
    )
    assert (done.unread, done.failed, sum(asked(copy).values())) == ((), {}, 0)


def test_a_row_is_right_at_once_whatever_the_order_in_its_second(copy: Copy) -> None:
    """There, back and there, and once more: the object is read again, and what was read then is
    newer than its events.
    """
    id = copy.one("select id from stripe.customers where deleted_at is null limit 1")
    copy.box.update("customers", id, name="zero")
    copy.sync(resources=TABLES, webhook_events=[WebhookEvent(copy.box.events[-1].id)], polls=False)
    for name in ("one", "two", "one", "two", "one", "three", "one", "four"):
        copy.box.update("customers", id, name=name)
    copy.sync(resources=TABLES, webhook_events=[WebhookEvent(copy.box.events[-1].id)], polls=False)
    assert copy.one(f"select name from stripe.customers where id = '{id}'") == "four"
    copy.box.update("customers", id, name="five")
    for name in ("one", "two", "one", "two", "one", "three", "one", "six"):
        copy.box.update("customers", id, name=name)
    copy.sync(resources=TABLES, webhook_events=[WebhookEvent(copy.box.events[-1].id)], polls=False)
    assert copy.one(f"select name from stripe.customers where id = '{id}'") == "six"


def test_bodies_that_come_in_reverse_say_late(tmp_path: Path) -> None:
    """Without the permission, in two runs; one that is no event stops none of them."""
    with copy_of(account(), tmp_path, hold=True) as copy:
        box = copy.box
        key = box.restrict(permissions={"rak_customer_read"})
        copy.load(resources=["customers"], api_key=key)
        box.advance(SETTLED)
        id, first, second = twice(copy, 3)
        bodies = {event.id: event.body for event in box.events[-2:]}
        odd = json.dumps(
            {**json.loads(bodies[first]), "id": "evt_odd", "data": {"object": []}}
        ).encode()
        far = json.dumps({**json.loads(bodies[first]), "id": "evt_far", "created": 10**18}).encode()
        copy.sync(
            resources=["customers"],
            api_key=key,
            webhook_events=[
                WebhookEvent(second, bodies[second]),
                WebhookEvent("evt_odd", odd),
                WebhookEvent("evt_far", far),
            ],
        )
        done = copy.sync(
            resources=["customers"],
            api_key=key,
            webhook_events=[WebhookEvent(first, bodies[first])],
        )
        assert (done.unread, told_of(copy, id)) == ((), [(second, False), (first, True)])
        assert copy.one(f"select name from stripe.customers where id = '{id}'") == "Second"


class Slow:
    """An API of which some events never come, and a clock that goes on whenever somebody looks."""

    def __init__(self) -> None:
        self.clock, self.stopped = self, threading.Event()
        self.time = 0.0

    def monotonic(self) -> float:
        self.time += 1
        return self.time

    def get(self, path: str, params: Any, decode: Any) -> Any:
        if path.endswith("slow"):
            self.stopped.wait(10)
        if path.endswith("down"):
            raise Unreachable("of Stripe's words: jane.canary@example.com")
        event = {"id": path.rpartition("/")[2], "type": "x", "created": 1, "data": {"object": {}}}
        return SimpleNamespace(value=decode(json.dumps(event).encode()))


def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    api = Slow()
    with ThreadPoolExecutor(4) as pool:
        failed: dict[str, str] = {}
        ids = [f"evt_{n}" for n in ("slow", "down", "good")]
        stripe: Any = api
        found = [
            event.id
            for events in fetch_webhook_events(stripe, pool, ids, failed)
            for event in events
        ]
        api.stopped.set()
    assert (found, failed) == (
        ["evt_good"],
        {"evt_slow": "Unreachable", "evt_down": "Unreachable"},
    )


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"type": 1}',
        b'{"created": -1}',
        b'{"created": 1e300}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_an_odd_head_says_nothing(body: bytes) -> None:
    assert decode_head(body) == WebhookHead()


def test_the_list_begins_where_it_ended_or_with_those_of_before() -> None:
    mine = {"cursor": 100, "rung": 500}
    late = [
        WebhookEvent(f"evt_{n}", head=WebhookHead(created=n))
        for n in range(200, 200 + MAX_BEFORE_LISTING)
    ]
    assert listing_start({"cursor": 100}, late, 50) == 100
    assert listing_start(mine, late, 50) == 500
    assert (
        listing_start(mine, [*late, WebhookEvent("evt_1", head=WebhookHead(created=300))], 50)
        == 300
    )
    assert (
        listing_start(mine, [*late, WebhookEvent("evt_1", head=WebhookHead(created=300))], 400)
        == 400
    )
