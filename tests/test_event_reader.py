"""`/v1/events` is read oldest first, each event once, whatever happens meanwhile, and in hardly
more requests than pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations, pairwise
from queue import Empty
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stripe_feed.api.client import Api, Reply
from stripe_feed.errors import CursorGone, PermissionMissing, Unreachable
from stripe_feed.extract.events import reader
from stripe_feed.extract.events.classify import ids_with_events
from stripe_feed.extract.events.poll_groups import LATE, MAX_TYPES, PollGroup, poll_groups
from stripe_feed.extract.events.reader import (
    Event,
    MalformedEvent,
    Prefetch,
    fetch_events_page,
    oldest_first,
)
from stripe_feed.resources import RESOURCES
from stripe_feed.resources.core import CORE
from stripe_feed.resources.model import Resource
from stripe_feed.sandbox import Sandbox
from tests.copies import FAST

DAY = 86_400
CUSTOMER = RESOURCES["customers"].events
Make = Callable[[Sandbox], Api]


@pytest.fixture
def make() -> Iterator[Make]:
    """Serves a sandbox; gives the API that asks it."""
    opened: list[Any] = []

    def api_of(box: Sandbox) -> Api:
        serving = box.serve()
        opened.append(serving)
        api = Api(box.key, base=serving.__enter__(), **FAST)
        opened.append(api)
        return api

    yield api_of
    for one in reversed(opened):
        one.close() if isinstance(one, Api) else one.__exit__(None, None, None)


def busy(count: int, seconds: int, seed: int = 1) -> Sandbox:
    """An account with so many updates of customers, spread over so many seconds up to now; nothing
    else since ten seconds before.
    """
    box = Sandbox(seed=seed, customers=12, oddities=False, products=5)
    for n in range(count):
        box.advance((n + 1) * seconds // count - n * seconds // count)
        box.update(
            "customers", list(box.objects("customers"))[n % 3], name=f"Name {n}"
        ) if n < 5 else _touch(box, n)
    box.advance(10)
    return box


def _touch(box: Sandbox, n: int) -> None:
    """A quick event."""
    with box.account.lock:
        first = box.account.event_log.records[n % 5]
        box.account.event_log.add(events_happening(first), box.now)


def events_happening(event: Any) -> Any:
    from stripe_feed.sandbox.state.event_builder import EventDraft

    return EventDraft(
        event.type,
        event.table,
        event.object_id,
        b'{"id":"%s","object":"customer"}' % event.object_id.encode(),
    )


def requests(box: Sandbox) -> int:
    return sum(count for (template, _), count in box.counts.items() if template == "/v1/events")


def shown(box: Sandbox, lo: int, hi: int, types: Sequence[str] = CUSTOMER) -> list[str]:
    """The ids of the events of [lo, hi) that the API shows, sorted."""
    return sorted(
        e.id
        for e in box.events
        if lo <= e.created < hi and e.type in types and box.account.event_log.is_visible(e)
    )


def read(api: Api, lo: int, hi: int, types: Sequence[str] = CUSTOMER) -> list[Event]:
    """All of them; fails unless they come oldest first."""
    found = [event for some in oldest_first(api, types, lo, hi) for event in some]
    assert all(one.created <= other.created for one, other in pairwise(found))
    return found


def check(box: Sandbox, api: Api, lo: int, hi: int, slack: int = 3) -> None:
    """Oldest first, each once, in hardly more requests than it takes."""
    before = requests(box)
    found = read(api, lo, hi)
    wanted = shown(box, lo, hi)
    assert sorted(event.id for event in found) == wanted
    least = max(1, -(-len(wanted) // 100))
    assert requests(box) - before <= 1.05 * least + slack


# Which types are asked for together


def test_all_resources_take_two_calls() -> None:
    """Of at most twenty types each, and a resource's types are in one of them."""
    found = poll_groups(list(CORE), dict.fromkeys(RESOURCES, 0))

    assert len(found) == 2
    assert all(len(call.types or ()) <= MAX_TYPES for call in found)
    assert sorted(r.table for call in found for r in call.resources) == sorted(
        row.table for row in CORE
    )


@pytest.mark.parametrize("count", range(1, len(CORE) + 1))
def test_each_resource_is_in_one_call_with_all_its_types(count: int) -> None:
    """Whatever is selected; a type that two resources share is asked for once."""
    for some in combinations(CORE, count):
        found = poll_groups(list(some), dict.fromkeys(RESOURCES, 0))
        assert sorted(r.table for call in found for r in call.resources) == sorted(
            r.table for r in some
        )
        for call in found:
            types = call.types or ()
            assert set(types) == {type for r in call.resources for type in r.events}
            assert len(types) == len(set(types)) <= MAX_TYPES
    assert poll_groups([], {}) == []


def many(count: int) -> list[Resource]:
    """Resources of which no two fit into one call."""
    return [
        replace(
            RESOURCES["customers"],
            table=f"t{n}",
            object=f"o{n}",
            events=tuple(f"o{n}.{verb}" for verb in range(15)),
        )
        for n in range(count)
    ]


def test_one_call_for_every_type_replaces_more_than_three() -> None:
    """A resource without events is in no call; of resources without any, there is none."""
    rows = many(4)
    starts = {row.table: 100 for row in rows}
    silent = replace(rows[0], table="silent", events=())

    assert [call.types for call in poll_groups(rows[:3], starts)] == [
        row.events for row in rows[:3]
    ]
    assert poll_groups([*rows, silent], starts) == [PollGroup(tuple(rows), None)]
    assert poll_groups([silent], starts) == []


def test_a_resource_that_is_far_behind_does_not_take_the_others_along() -> None:
    """One call for every type would read the events of all of them again."""
    rows = many(6)
    now = 10 * LATE
    starts = {row.table: now for row in rows} | {"t0": now - LATE - 1, "t1": now - LATE}

    assert poll_groups(rows, starts) == [
        PollGroup((rows[0],), rows[0].events),
        PollGroup(tuple(rows[1:]), None),
    ]
    assert poll_groups(rows, dict.fromkeys(starts, 0)) == [PollGroup(tuple(rows), None)]


def test_without_types_there_is_no_call(make: Make) -> None:
    """Stripe would take an empty filter for every type."""
    box = busy(20, 1000)
    api = make(box)

    assert read(api, 0, box.now, ()) == []
    assert requests(box) == 0


# Few events


def test_nothing_new_is_one_request(make: Make) -> None:
    box = busy(20, 1000)
    api = make(box)
    assert read(api, box.now - 5, box.now) == []
    assert requests(box) == 1


def test_events_that_are_applied_leave_no_object_waiting(make: Make) -> None:
    box = busy(3, 30)
    api = make(box)
    first, *_ = read(api, box.now - 60, box.now)
    waiting = partial(ids_with_events, api, RESOURCES["customers"], box.now - 60)

    assert len(set().union(*waiting())) == 3
    assert len(set().union(*waiting(lambda ids: {first.id}))) == 2
    assert len(set().union(*waiting(lambda ids: ids))) == 0


def test_a_page_is_one_request(make: Make) -> None:
    box = busy(100, 1000)
    api = make(box)
    check(box, api, 0, box.now, slack=0)


def test_only_the_span_and_only_the_types(make: Make) -> None:
    """The lower bound belongs to it, the upper one does not."""
    box = busy(60, 60)
    box.noise(50)
    first = box.events[0].created
    api = make(box)
    for lo, hi in [(first, first + 1), (first + 7, first + 31), (first, box.now + 1)]:
        assert sorted(event.id for event in read(api, lo, hi)) == shown(box, lo, hi)
    found, has_more = fetch_events_page(api, CUSTOMER, first + 7, first + 31, limit=5)
    assert (len(found), has_more) == (5, True)


# Many


@pytest.mark.parametrize("count", [101, 250, 1_040])
def test_many_pages_by_an_anchor(make: Make, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest event before the span leads forward from page to page."""
    monkeypatch.setattr(reader, "NEAR_PAGES", 1)
    box = busy(count, count * 2)
    check(box, make(box), box.events[0].created + 10, box.now)
    assert all(
        "ending_before" not in call.params or "starting_after" not in call.params
        for call in box.log
    )


def test_many_pages_without_an_anchor(make: Make) -> None:
    """Nothing is before the span: its first stretch is read newest first."""
    box = busy(450, 900)
    check(box, make(box), box.events[0].created - 5, box.now)


def test_far_behind_in_slices(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several are read ahead, and handed out in their order; each costs a request more, no page is
    read twice.
    """
    monkeypatch.setattr(reader, "NEAR_PAGES", 1)
    monkeypatch.setattr(reader, "FAR_BEHIND", 5)
    monkeypatch.setattr(reader, "SLICE_PAGES", 3)
    box = busy(2_000, 30_000)
    api = make(box)
    before = requests(box)
    found = read(api, box.events[0].created, box.now)
    assert [event.id for event in found] != []
    assert sorted(event.id for event in found) == shown(box, 0, box.now)
    assert requests(box) - before <= 2 * 20 + 8


def test_a_quiet_time_in_a_far_span_is_crossed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Much at its beginning and at its end, weeks of nothing between."""
    monkeypatch.setattr(reader, "FAR_BEHIND", 5)
    monkeypatch.setattr(reader, "SLICE_PAGES", 3)
    box = busy(150, 100)
    box.advance(15 * DAY)
    for n in range(400):
        box.advance(1)
        _touch(box, n)
    box.advance(10)
    api = make(box)
    before = requests(box)
    found = read(api, box.events[0].created, box.now)
    assert sorted(event.id for event in found) == shown(box, 0, box.now)
    assert requests(box) - before <= 40


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_second_with_many_events(make: Make, where: str) -> None:
    """More than three pages within a second, all with one time: each once."""
    box = busy(30, 60)
    for n in range(3):
        box.advance(5)
        for m in range(330 if n == ("first", "middle", "last").index(where) else 7):
            _touch(box, m)
    api = make(box)
    check(box, api, box.events[10].created, box.now + 1)
    check(box, api, box.events[60].created, box.now + 1, slack=4)


def test_ten_thousand_events_in_hardly_more_requests_than_pages(make: Make) -> None:
    """The issue's gate: at most 1.05 times the least, and a few."""
    box = busy(10_000, 20_000)
    check(box, make(box), box.events[0].created + 1, box.now, slack=10)


@pytest.mark.parametrize("quiet", [3_600, DAY])
def test_a_burst_after_a_quiet_time(make: Make, quiet: int) -> None:
    """The time without events costs a few requests, not one per slice."""
    box = busy(20, 60)
    lo = box.now - 30
    box.advance(quiet)
    for n in range(2_000):
        box.advance(n % 20 == 0)
        _touch(box, n)
    box.advance(5)
    check(box, make(box), lo, box.now, slack=10)


# What happens meanwhile


class Refusing:
    """An API whose n-th request with a cursor is refused, as if its event had gone."""

    def __init__(
        self, api: Api, *refused: int, of: tuple[str, ...] = ("ending_before", "starting_after")
    ) -> None:
        self.api, self.refused, self.of, self.count = api, refused, of, 0

    def get(self, path: str, params: Any, decode: Callable[[bytes], Any]) -> Reply[Any]:
        if any(name in params for name in self.of):
            self.count += 1  # of slices that are read side by side: about
            if self.count in self.refused:
                raise CursorGone("no such event", "resource_missing", "ending_before")
        return self.api.get(path, params, decode)


def read_refusing(api: Api, lo: int, hi: int, *refused: int) -> tuple[list[Event], int]:
    refusing: Any = Refusing(api, *refused)
    return read(refusing, lo, hi), refusing.count


@pytest.mark.parametrize("refused", [(1,), (2,), (3,), (2, 3), (1, 2, 3, 4), (4, 6)])
@pytest.mark.parametrize("anchored", [True, False])
def test_an_anchor_that_is_refused_is_replaced(
    make: Make, refused: tuple[int, ...], anchored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any page, again and again: nothing is lost, nothing comes twice."""
    monkeypatch.setattr(reader, "NEAR_PAGES", 1)  # the rest is read oldest first, behind anchors
    box = busy(700, 350)
    lo = box.events[5].created if anchored else box.events[0].created - 5
    found, asked = read_refusing(make(box), lo, box.now, *refused)
    assert asked >= max(refused)
    assert sorted(event.id for event in found) == shown(box, lo, box.now)


@pytest.mark.parametrize("refused", [(2,), (3,), (4,), (2, 4)])
def test_an_anchor_that_is_refused_within_a_second_with_many_events(
    make: Make, refused: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What of it was read is dropped by id when it is read again."""
    monkeypatch.setattr(reader, "NEAR_PAGES", 1)  # the rest is read oldest first, behind anchors
    box = busy(50, 100)
    box.advance(5)
    for n in range(420):
        _touch(box, n)
    box.advance(5)
    for n in range(120):
        _touch(box, n)
    box.advance(5)
    lo = box.events[0].created
    found, _ = read_refusing(make(box), lo, box.now, *refused)
    assert sorted(event.id for event in found) == shown(box, lo, box.now)


def test_an_anchor_that_grows_too_old(make: Make) -> None:
    """Stripe forgets it while pages are read: what it still has then comes, each once."""
    box = busy(800, 7 * 3600)
    lo = box.events[0].created
    box.advance(30 * DAY - (box.now - lo) + 100)

    def age(template: str, params: Any) -> None:
        if "ending_before" in params:
            box.advance(3600)

    api = make(box)
    before = set(shown(box, lo, box.now))
    box.on_request = age
    found = [event.id for event in read(api, lo, box.now)]
    assert len(found) == len(set(found))
    assert set(shown(box, lo, box.now)) <= set(found) <= before
    assert len(found) > 100


def test_events_that_come_while_pages_are_read_stay_out(make: Make) -> None:
    """The span has its end; what is after it is for the next run."""
    box = busy(600, 600)
    lo, hi = box.events[3].created, box.now
    wanted = shown(box, lo, hi)

    def live(template: str, params: Any) -> None:
        box.advance(1)
        box.burst(3)

    api = make(box)
    box.on_request = live
    assert sorted(event.id for event in read(api, lo, hi)) == wanted


def test_short_pages_lose_nothing(make: Make) -> None:
    """The end is proven by `has_more`, not by a page's length, in both directions."""
    box = busy(900, 1_800)
    box.faults.short = 0.5
    api = make(box)
    for lo in (box.events[0].created, box.events[20].created):
        assert sorted(event.id for event in read(api, lo, box.now)) == shown(box, lo, box.now)


def test_a_list_that_stays_empty_is_reported() -> None:
    """Rather than asked for ever."""

    class Empty_:
        def get(self, path: str, params: Any, decode: Callable[[bytes], Any]) -> Reply[Any]:
            body = b'{"id":"evt_%d","type":"customer.updated","created":%d,"data":{"object":{}}}'
            rows = [body % (n, 500 - n) for n in range(1)] if "ending_before" not in params else []
            return Reply(decode(b'{"data":[' + b",".join(rows) + b'],"has_more":true}'), 0)

    api: Any = Empty_()
    with pytest.raises(Unreachable, match="stays empty"):
        read(api, 400, 600)


class Answers:
    """Pages one after the other; the last one stays."""

    def __init__(self, *bodies: bytes) -> None:
        self.bodies, self.count = list(bodies), 0

    def get(self, path: str, params: Any, decode: Callable[[bytes], Any]) -> Reply[Any]:
        self.count += 1
        return Reply(decode(self.bodies.pop(0) if len(self.bodies) > 1 else self.bodies[0]), 0)


def test_an_empty_page_that_has_more_is_asked_again() -> None:
    """The first one too."""
    some = b'{"data":[{"id":"evt_1","type":"customer.updated","created":500,"data":{"object":{}}}],"has_more":false}'
    api: Any = Answers(b'{"data":[],"has_more":true}', some)
    assert [event.id for event in read(api, 400, 600)] == ["evt_1"]
    assert api.count == 2


@pytest.mark.parametrize("cursor", ["ending_before", "starting_after"])
def test_a_list_that_refuses_every_cursor_is_reported(cursor: str) -> None:
    """Rather than asked for ever, however many events share the second."""
    history = [(500, f"evt_{n:05}") for n in range(300)] + (
        [(100, "evt_a")] if cursor == "ending_before" else []
    )
    api: Any = Refusing(Listed(history, 7), *range(10_000), of=(cursor,))  # type: ignore[arg-type]
    with pytest.raises(Unreachable, match="refuses one cursor after the other"):
        read(api, 400, 600)
    assert api.count < 500


@pytest.mark.parametrize(
    ("sent", "is_odd", "created"),
    [
        (b'{"id":"evt_1","type":"customer.updated","created":7,"data":null}', True, 7),
        (
            b'{"id":"evt_1","type":"customer.updated","created":7,"data":{"object":{}},"request":5}',
            False,
            7,
        ),
        (
            b'{"id":"evt_1","type":"customer.updated","created":7,"data":{"object":{}},"context":{},"account":[]}',
            False,
            7,
        ),
        (b'{"id":"evt_1","type":"customer.updated","created":"7","data":{"object":{}}}', True, 9),
        (
            b'{"id":"evt_1","type":"customer.updated","created":253402300800,"data":{"object":{}}}',
            True,
            9,
        ),
        (b'{"id":"evt_1","created":7}', True, 7),
        (b'{"id":"evt_1","type":5,"created":7,"data":{"object":{}}}', True, 7),
        (b'{"id":null,"type":"customer.updated","created":7,"data":{"object":{}}}', None, 7),
        (b"5", None, 7),
        (b"{}", None, 7),
    ],
)
def test_an_event_that_is_not_as_documented_leads_the_pager_all_the_same(
    sent: bytes, is_odd: bool | None, created: int
) -> None:
    """Unless it has no id; the others of its page are read."""
    good = b'{"id":"evt_%d","type":"customer.updated","created":%d,"data":{"object":{}}}'
    api: Any = Answers(
        b'{"data":[%s,%s,%s],"has_more":false}' % (good % (2, 9), sent, good % (0, 5))
    )
    found, _ = fetch_events_page(api, CUSTOMER, 0, 10)

    assert [event.id for event in found if event.id != "evt_1"] == ["evt_2", "evt_0"]
    assert [
        (isinstance(event, MalformedEvent), event.created) for event in found if event.id == "evt_1"
    ] == ([] if is_odd is None else [(is_odd, created)])


@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(
    gaps=st.lists(st.sampled_from([0, 0, 0, 1, 1, 2, 30, 500, 20_000]), min_size=1, max_size=60),
    repeat=st.integers(1, 12),
    lo=st.integers(0, 60),
    refused=st.sets(st.integers(1, 12), max_size=4),
    far=st.booleans(),
    limit=st.sampled_from([3, 7]),
)
def test_any_history_is_read_whole(
    gaps: list[int], repeat: int, lo: int, refused: set[int], far: bool, limit: int
) -> None:
    """Any density, small pages, cursors refused at any time, read ahead in slices or not: oldest
    first, each once.
    """
    at, history = 1_000_000, list[tuple[int, str]]()
    for n, gap in enumerate(gaps * repeat):
        at += gap
        history.append((at, f"evt_{n:05}"))
    start = history[min(lo, len(history) - 1)][0] if lo else 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "FAR_BEHIND", 2 if far else 10**9)
        patch.setattr(reader, "SLICE_PAGES", 2)
        api: Any = Refusing(Listed(history, limit), *refused)  # type: ignore[arg-type]
        found = read(api, start, at + 1)
    assert sorted(event.id for event in found) == sorted(
        id for created, id in history if created >= start
    )


class Listed:
    """A list of events in memory, with pages of so many."""

    def __init__(self, history: Sequence[tuple[int, str]], limit: int) -> None:
        self.newest = sorted(history, reverse=True)
        self.limit = limit

    def get(self, path: str, params: Any, decode: Callable[[bytes], Any]) -> Reply[Any]:
        lo, hi = params["created"].get("gte", 0), params["created"]["lt"]
        rows = [row for row in self.newest if lo <= row[0] < hi]
        limit = min(params["limit"], self.limit)
        if (before := params.get("ending_before")) is not None:
            (cursor,) = [row for row in self.newest if row[1] == before]
            newer = [row for row in rows if row > cursor]
            some, more = newer[-limit:], len(newer) > limit
        else:
            if (after := params.get("starting_after")) is not None:
                (cursor,) = [row for row in self.newest if row[1] == after]
                rows = [row for row in rows if row < cursor]
            some, more = rows[:limit], len(rows) > limit
        body = [
            b'{"id":"%s","type":"customer.updated","created":%d,"data":{"object":{}}}'
            % (id.encode(), at)
            for at, id in some
        ]
        return Reply(
            decode(
                b'{"data":[%s],"has_more":%s}' % (b",".join(body), b"true" if more else b"false")
            ),
            0,
        )


# The thread that reads ahead


def test_a_stream_gives_what_its_source_gives() -> None:
    some = [[Event("evt_1", "t", 1, None)], [Event("evt_2", "t", 2, None)]]  # type: ignore[arg-type]
    stream = Prefetch(iter(some))
    assert list(stream.pages()) == some


def test_a_stream_raises_what_its_source_raises() -> None:
    def source() -> Iterator[list[Event]]:
        yield []
        raise PermissionMissing("no", "rak_event_read")

    stream = Prefetch(source())
    assert stream.next_page(5) == []
    with pytest.raises(PermissionMissing):
        stream.next_page(5)


def test_a_stream_that_is_closed_reads_no_further() -> None:
    """Its thread ends, though nobody takes what it read."""
    taken = []

    def source() -> Iterator[list[Event]]:
        for n in range(1000):
            taken.append(n)
            yield []

    stream = Prefetch(source())
    stream.next_page(5)
    stream.close()
    stream.thread.join(5)
    assert not stream.thread.is_alive()
    assert len(taken) <= 5
    with pytest.raises(Empty):
        for _ in range(5):
            stream.next_page(0)
