"""Named consumers: at least once, in order, acknowledged when the next one is asked for, and only
by the newest owner.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stripe_feed.destination.pipeline import lock_copy
from stripe_feed.errors import Fenced, Locked, OffsetOutOfRange, UsageError
from stripe_feed.feed import consumers, relay
from stripe_feed.feed.change import SOURCE_COLUMNS, Change, change_from_row, entry_from_row
from stripe_feed.feed.feed import Feed, open_feed
from stripe_feed.feed.filters import compile_filter
from stripe_feed.feed.paths import value_at
from stripe_feed.feed.storage.store import FeedStore
from tests.commands import holding
from tests.feed_kills import BEGIN, Plain, Row, a_change, a_copy, load

CREATED: Any = {"op": "c", "previous": None, "before_quality": "none"}


def packed(row: Row) -> Any:
    return entry_from_row([{**row, "_dlt_load_id": "17.5"}[name] for name in SOURCE_COLUMNS])


def made(row: Row) -> Change:
    return change_from_row(1, 1, packed(row))


def add(feed: Feed, *rows: Row) -> None:
    feed._store.append([packed(row) for row in rows])


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Feed]:
    """A feed of ten changes, without a destination; its clock stands ten seconds after the last."""
    now = (BEGIN + timedelta(seconds=20)).timestamp()
    with Feed(None, FeedStore(tmp_path / "feed.sqlite"), now=lambda: now) as opened:
        add(opened, *(a_change(n, f"sub_{n % 3}") for n in range(1, 11)))
        yield opened


def offsets(found: Iterator[Change]) -> list[int]:
    return [one.offset for one in found]


def test_a_change_is_acknowledged_when_the_next_is_asked_for(feed: Feed) -> None:
    changes = feed.consume("c", start="earliest")
    assert next(changes).offset == 1
    assert feed.lag("c")[0].position == 0
    assert next(changes).offset == 2
    assert feed.lag("c")[0].position == 1


@pytest.mark.parametrize("how", ["break", "error"])
def test_leaving_the_loop_leaves_the_change_at_hand(feed: Feed, how: str) -> None:
    try:
        for one in feed.consume("c", start="earliest"):
            if one.offset == 4:
                if how == "break":
                    break
                raise ValueError
    except ValueError:
        pass

    assert offsets(feed.consume("c")) == [4, 5, 6, 7, 8, 9, 10]
    assert offsets(feed.consume("c")) == []


def test_max_ends_after_so_many_and_acknowledges_them(feed: Feed) -> None:
    assert offsets(feed.consume("c", start="earliest", max=3)) == [1, 2, 3]
    assert offsets(feed.consume("c", max=3)) == [4, 5, 6]
    with pytest.raises(UsageError, match="at least 1"):
        feed.consume("c", max=0)


def test_a_new_consumer_starts_at_the_latest_when_it_is_made(
    feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "stripe_feed")
    changes = feed.consume("c")
    add(feed, a_change(11), a_change(12))

    assert offsets(changes) == [11, 12]
    assert "Consumer c is new and starts after offset 10 of 10" in caplog.text
    assert "earliest" in caplog.text
    caplog.clear()
    assert offsets(feed.consume("c", start="earliest")) == []  # it is not new any more
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("start", "first"),
    [
        ("earliest", 1), (1, 1), (4, 4), ("4", 4), (10, 10), (11, None), ("evt_7", 7), ("at=evt_7", 7), ("latest", None),
        (BEGIN + timedelta(seconds=5), 5), ("2026-01-01T00:00:05Z", 5), ("2026-01-01T01:00:04.5+01:00", 5), ("2026-01-01", 1),
        ("2025-01-01", 1), ("2027-01-01", None), ("12s", 8), ("1d", 1),
    ],
)  # fmt: skip
def test_a_start_is_the_first_change_that_comes(feed: Feed, start: Any, first: int | None) -> None:
    assert offsets(feed.consume("c", start=start)) == (
        [] if first is None else list(range(first, 11))
    )


@pytest.mark.parametrize("start", ["evt_99", 12, "12", 0, "yesterday", ""])
def test_a_start_that_does_not_exist_is_refused(feed: Feed, start: Any) -> None:
    with pytest.raises(UsageError):
        feed.consume("c", start=start)
    assert feed.consumers() == []


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "x" * 101, "café/1"])
def test_names_are_plain(feed: Feed, name: str) -> None:
    with pytest.raises(UsageError, match="name"):
        feed.consume(name)


def test_changes_passed_over_are_acknowledged_without_a_commit_each(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(feed, *(a_change(n, "cus_1", resource="customers") for n in range(11, 2_000)))
    calls = []
    real = consumers.acknowledge

    def counted(*given: Any) -> None:
        calls.append(given[3])
        real(*given)

    monkeypatch.setattr(consumers, "acknowledge", counted)

    assert offsets(feed.consume("c", resource="subscriptions", start="earliest")) == list(
        range(1, 11)
    )
    assert feed.lag("c")[0].position == 1_999
    assert len(calls) == 11
    assert offsets(feed.consume("c")) == []


def test_sparse_matches_are_found_all_over_the_log(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stripe_feed.feed.storage.store.SCAN_WINDOW", 7)
    monkeypatch.setattr("stripe_feed.feed.feed._PAGE_SIZE", 2)
    add(
        feed,
        *(a_change(n, resource="invoices" if n % 9 == 0 else "customers") for n in range(11, 100)),
    )
    expected = [n for n in range(11, 100) if n % 9 == 0]

    assert offsets(feed.consume("c", resource="invoices", start="earliest")) == expected
    assert [one.offset for one in feed.read(0, 4, resource="invoices")] == expected[:4]
    assert [one.offset for one in feed.read(expected[3], 100, resource="invoices")] == expected[4:]
    assert [one.offset for one in feed.tail(3, resource="invoices")] == expected[-3:]


def test_a_stale_owner_is_fenced(feed: Feed) -> None:
    old = feed.consume("c", start="earliest")
    assert next(old).offset == 1
    new = feed.consume("c")
    assert next(new).offset == 1
    with pytest.raises(Fenced, match="taken over"):
        next(old)
    assert next(new).offset == 2

    feed.reset("c", "latest")
    with pytest.raises(Fenced):
        next(new)
    newest = feed.consume("c", start="earliest")
    add(feed, a_change(11), a_change(12))
    assert next(newest).offset == 11
    feed.remove("c")
    with pytest.raises(Fenced):
        next(newest)


def test_an_acknowledgement_never_goes_back(feed: Feed) -> None:
    _, epoch, _ = consumers.attach(feed._store, "c", "earliest", 0.0)
    for position, stands in ((3, 3), (2, 3), (3, 3), (7, 7)):
        consumers.acknowledge(feed._store, "c", epoch, position, 0.0)
        assert feed.lag("c")[0].position == stands


class Owners(RuleBasedStateMachine):
    """Several processes take over one name, acknowledge, reset it and go away; the feed grows."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = mkdtemp()
        self.stores = [FeedStore(Path(self.folder) / "feed.sqlite") for _ in range(3)]
        self.feeds = [Feed(None, one, now=lambda: 0.0) for one in self.stores]
        self.owners: list[tuple[Iterator[Change], list[int]]] = []
        self.newest: Iterator[Change] | None = None
        self.count = 0
        self.position = 0
        self.floor = 0

    @initialize(start=st.sampled_from(["earliest", "latest"]), count=st.integers(0, 5))
    def begin(self, start: str, count: int) -> None:
        self.grow(count)
        self.feeds[0].consume("c", start=start)
        self.position = self.floor = self.count if start == "latest" else 0

    @rule(count=st.integers(1, 4))
    def grow(self, count: int) -> None:
        add(self.feeds[0], *(a_change(self.count + n) for n in range(1, count + 1)))
        self.count += count

    @rule(where=st.integers(0, 2))
    def take_over(self, where: int) -> None:
        self.newest = self.feeds[where].consume("c")
        self.owners.append((self.newest, []))

    @precondition(lambda self: self.owners)
    @rule(who=st.integers(0, 20))
    def ask(self, who: int) -> None:
        """The newest owner gets the next change; an older one that would acknowledge is fenced off."""
        who = max(0, len(self.owners) - 1 - who % 3)
        changes, given = self.owners[who]
        newest = changes is self.newest
        try:
            got = next(changes).offset
        except StopIteration:
            assert not newest or given == [] or given[-1] == self.count
            self.position = max(self.position, given[-1]) if newest and given else self.position
            del self.owners[who]
            return
        except Fenced:
            assert not newest
            del self.owners[who]
            return
        if newest:
            self.position = max(self.position, given[-1]) if given else self.position
            assert got == self.position + 1  # nothing left out, nothing twice
        else:
            assert given == []  # it can read on, but not acknowledge
        given.append(got)

    @rule(place=st.sampled_from(["latest", "earliest"]))
    def reset(self, place: str) -> None:
        self.position = self.feeds[1].reset("c", place)
        self.floor = self.position
        self.owners, self.newest = [], None

    @invariant()
    def the_cursor_is_where_it_was_acknowledged(self) -> None:
        found = self.feeds[2].lag()
        assert [one.position for one in found] == ([self.position] if found else [])
        assert self.position >= self.floor
        self.floor = self.position

    def teardown(self) -> None:
        for one in self.stores:
            one.close()
        shutil.rmtree(self.folder)


TestC2CursorIsMonotoneAndStaleOwnersAreFenced = Owners.TestCase
TestC2CursorIsMonotoneAndStaleOwnersAreFenced.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # a busy machine
)


class ManyOwners(Owners):
    """The same, for long."""


ManyOwners.TestCase.settings = settings(max_examples=1_000, stateful_step_count=60, deadline=None)
TestC2ForLong = pytest.mark.long(ManyOwners.TestCase)


def test_c3_consumers_are_independent_and_a_dead_one_loses_its_position_loudly(feed: Feed) -> None:
    dead, quick = feed.consume("dead", start="earliest"), feed.consume("quick", start="earliest")
    next(dead), next(dead)
    assert offsets(quick) == list(range(1, 11))
    later = Feed(None, feed._store, now=lambda: (BEGIN + timedelta(days=7)).timestamp())
    add(feed, a_change(7 * 86_400 - 100))

    assert later.prune(86_400) == 10

    assert offsets(later.consume("quick")) == [11]
    assert [(one.consumer, one.position, one.behind, one.lost) for one in later.lag()] == [
        ("dead", 1, 10, True),
        ("quick", 11, 0, False),
    ]
    with pytest.raises(OffsetOutOfRange, match="feed reset dead --to earliest"):
        later.consume("dead")
    with pytest.raises(OffsetOutOfRange):
        later.consume("dead", start="latest")  # a start is for new names
    later.reset("dead", "earliest")
    assert offsets(later.consume("dead")) == [11]
    with pytest.raises(OffsetOutOfRange):
        later.reset("dead", 5)
    with pytest.raises(OffsetOutOfRange):
        later.reset("dead", "evt_5")
    with pytest.raises(OffsetOutOfRange):
        later.reset("dead", BEGIN)
    with pytest.raises(OffsetOutOfRange):
        later.read(3)


def test_a_consumer_pruned_while_it_runs_stops(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stripe_feed.feed.feed._PAGE_SIZE", 2)
    changes = feed.consume("c", start="earliest")
    assert [next(changes).offset, next(changes).offset] == [1, 2]
    Feed(None, feed._store, now=lambda: BEGIN.timestamp() + 86_400).prune(60)

    with pytest.raises(OffsetOutOfRange):
        next(changes)


def test_lag_counts_what_is_behind_and_how_old_the_next_is(feed: Feed) -> None:
    for _ in zip(range(4), feed.consume("some", start="earliest"), strict=False):
        pass
    list(feed.consume("all", start="earliest"))

    assert [
        (one.consumer, one.position, one.head, one.behind, one.seconds) for one in feed.lag()
    ] == [
        ("all", 10, 10, 0, 0.0),
        ("some", 3, 10, 7, 16.0),
    ]
    assert feed.lag("some")[0].change_id == "evt_3"
    assert feed.consumers() == ["all", "some"]
    feed.remove("all")
    assert feed.consumers() == ["some"]
    for unknown in (lambda: feed.lag("all"), lambda: feed.remove("all")):
        with pytest.raises(UsageError, match="no consumer 'all'"):
            unknown()


def test_following_waits_for_more(tmp_path: Path) -> None:
    counter = itertools.count(1)
    with FeedStore(tmp_path / "feed.sqlite") as store:

        def arrive(seconds: float) -> None:
            add(growing, a_change(next(counter)))

        growing = Feed(None, store, wait=arrive)

        assert offsets(growing.consume("c", follow=True, max=4)) == [1, 2, 3, 4]
        assert [one.offset for one in itertools.islice(growing.follow(2), 4)] == [3, 4, 5, 6]


def test_several_threads_consume_from_one_feed(feed: Feed) -> None:
    add(feed, *(a_change(n) for n in range(11, 500)))
    got: dict[str, list[int]] = {}
    threads = [
        threading.Thread(
            target=lambda name=name: got.update(
                {name: offsets(feed.consume(name, start="earliest"))}
            )
        )
        for name in ("a", "b", "c", "d")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert got == {name: list(range(1, 500)) for name in "abcd"}


@pytest.mark.usefixtures("hurried")
def test_consumers_never_open_the_database(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "stripe_feed")
    pipeline = a_copy(tmp_path)
    load(pipeline, [a_change(n) for n in range(1, 4)])
    with open_feed(pipeline) as feed:
        changes = feed.consume("c", start="earliest")
        assert next(changes).offset == 1
        load(pipeline, [a_change(4)])  # would fail while a reader has it open
        with holding(tmp_path / "copy.duckdb") as pid:
            assert offsets(changes) == [2, 3]
            with open_feed(pipeline) as other:
                assert other.head == 3
            assert (
                f"The feed continues with the changes relayed before. copy.duckdb is open in process {pid}."
                in caplog.text
            )
    caplog.clear()
    with lock_copy(pipeline, "stripe-feed sync"), open_feed(pipeline) as feed:
        assert feed.head == 3
        assert "`stripe-feed sync`" in caplog.text
        assert "`stripe-feed sync`" in str(feed.blocked_by)
    with open_feed(pipeline) as feed:
        assert feed.blocked_by is None
        assert offsets(feed.consume("c")) == [4]


@pytest.mark.usefixtures("hurried")
def test_a_database_open_in_this_process_is_no_obstacle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import duckdb

    caplog.set_level(logging.INFO, "stripe_feed")
    pipeline = a_copy(tmp_path)
    load(pipeline, [a_change(1)])
    with duckdb.connect(str(tmp_path / "copy.duckdb"), read_only=True), open_feed(pipeline) as feed:
        assert feed.head == 1
        with pytest.raises(Locked, match="already open in this process with other settings"):
            feed.forget("cus_1")
    with duckdb.connect(str(tmp_path / "copy.duckdb")) as own:
        own.execute("set memory_limit = '1GiB'; set threads = 2")
        with open_feed(pipeline) as feed:
            assert feed.head == 1
        assert own.execute(
            "select current_setting('memory_limit'), current_setting('threads')"
        ).fetchone() == ("1.0 GiB", 2)


STATUS = {
    "id": "sub_1",
    "status": "past_due",
    "plan": {"id": "p2", "tier": 3},
    "metadata": {"plan": "pro"},
    "flag": True,
}
WAS = {
    "status": "active",
    "plan": {"tier": 2},
    "metadata": {"plan": None, "old": "1"},
    "flag": False,
}
PATHS = ["status", "plan.tier", "metadata.plan", "metadata.old", "flag"]


@pytest.mark.parametrize(
    ("given", "matches"),
    [
        ({"status": ("active", "past_due")}, True),
        ({"status": ["active", "past_due"]}, True),
        ({"status": ("active", "unpaid")}, False),
        ({"status": ("trialing", "past_due")}, False),
        ({"status": (..., "past_due")}, True),
        ({"status": ("*", "past_due")}, True),
        ({"status": ("active", ...)}, True),
        ({"status": (..., ...)}, True),
        ({"status": (["trialing", "active"], ["unpaid", "past_due"])}, True),
        ({"status": (["trialing", "active"], ["unpaid", "canceled"])}, False),
        ({"status": ({"active"}, "past_due")}, True),
        ({"status": (None, "past_due")}, False),
        ({"plan.tier": (2, 3)}, True),
        ({"plan.tier": ("2", "3")}, False),
        ({"plan.id": (..., ...)}, False),                                 # did not change
        ({"id": ("sub_1", "sub_1")}, False),
        ({"metadata.plan": (None, "pro")}, True),                         # absent before
        ({"metadata.plan": ([None, "basic"], ...)}, True),
        ({"metadata.old": ("1", None)}, True),                            # absent after
        ({"metadata.none": (None, None)}, False),
        ({"flag": (False, True)}, True),
        ({"flag": (0, 1)}, False),
        ({"plan": ({"id": "p2", "tier": 2}, ...)}, True),
        ({"plan": ([{"id": "p2", "tier": 2}], ...)}, True),
        ({"status": ("active", "past_due"), "plan.tier": (2, 3)}, True),
        ({"status": ("active", "past_due"), "plan.tier": (2, 4)}, False),
    ],
)  # fmt: skip
def test_transitions_of_an_update(given: Any, matches: bool) -> None:
    update = made(a_change(1, after=STATUS, previous=WAS, changed=PATHS))

    assert compile_filter(transition=given).matches(update) is matches


@pytest.mark.parametrize(
    ("row", "from_any", "from_active"),
    [
        (a_change(1, after=STATUS, previous=WAS, changed=PATHS), True, True),
        (
            a_change(
                1,
                after=STATUS,
                previous=WAS,
                changed=PATHS,
                origin="diff",
                before_quality="derived",
            ),
            True,
            True,
        ),
        (
            a_change(1, after=STATUS, previous=None, changed=PATHS, before_quality="none"),
            True,
            False,
        ),
        (
            a_change(1, after=STATUS, previous=None, changed=["plan"], before_quality="none"),
            False,
            False,
        ),
        (a_change(1, after=STATUS, **CREATED), False, False),
        (a_change(1, after=STATUS, **CREATED | {"op": "r"}), False, False),
        (a_change(1, op="d", after=None, previous=STATUS), False, False),
    ],
)
def test_transitions_by_kind_of_change(row: Row, from_any: bool, from_active: bool) -> None:
    assert compile_filter(transition={"status": (..., "past_due")}).matches(made(row)) is from_any
    assert (
        compile_filter(transition={"status": ("active", "past_due")}).matches(made(row))
        is from_active
    )


@pytest.mark.parametrize(
    ("changed", "asked", "matches"),
    [
        (["status"], "status", True), (["status"], ["plan", "status"], True), (["status"], "stat", False),
        (["metadata.plan"], "metadata.plan", True), (["metadata.plan"], "metadata", True), (["metadata.plan"], "metadata.pl", False),
        (["metadata"], "metadata.plan", True), (["plan"], "plan.id", False), ([], "status", False),
    ],
)  # fmt: skip
def test_changed_paths(changed: list[str], asked: Any, matches: bool) -> None:
    found = made(a_change(1, after=STATUS, previous=WAS, changed=changed))

    assert compile_filter(changed=asked).matches(found) is matches


def test_values_inside_arrays_are_found() -> None:
    assert value_at({"items": {"data": [{"id": "si_1"}]}}, "items.data.0.id") == "si_1"
    assert value_at({"items": [1]}, "items.1") is None
    assert value_at({"items": [1]}, "items.x") is None


def test_resources_and_kinds(feed: Feed) -> None:
    add(
        feed,
        a_change(11, "in_1", resource="invoices", **CREATED),
        a_change(12, "in_1", "d", resource="invoices"),
        a_change(13, "cus_1", resource="customers", **CREATED | {"op": "r"}),
    )

    def found(**given: Any) -> list[int]:
        return [one.offset for one in feed.read(10, **given)]

    assert found() == [11, 12]
    assert found(op="r") == [13]
    assert found(op=["added", "r"]) == [11, 13]
    assert found(op="removed") == found(op="d") == [12]
    assert found(op="updated") == []
    assert found(resource="invoices", op="c") == [11]
    assert found(resource=["customers", "invoices"], op=["c", "r", "d", "u"]) == [11, 12, 13]
    assert found(resource="products") == []


@pytest.mark.parametrize(
    "given",
    [
        {"resource": "invoice"}, {"resource": ["invoices", "x"]}, {"op": "x"}, {"op": ["c", "created"]}, {"transition": {"status": "active"}},
        {"transition": {"status": ("active",)}}, {"transition": {"status": 1}},
    ],
)  # fmt: skip
def test_filters_that_make_no_sense_are_refused_at_once(feed: Feed, given: Any) -> None:
    with pytest.raises(UsageError):
        feed.consume("c", **given)
    assert feed.consumers() == []


def image(**fields: Any) -> dict[str, Any]:
    return {"id": "sub_1", "status": "a", "n": 1, **fields}


def step(
    op: str,
    n: int,
    was: dict[str, Any] | None = None,
    now: dict[str, Any] | None = None,
    **given: Any,
) -> Row:
    """A change from one image to another."""
    match op:
        case "c" | "r":
            return a_change(n, op=op, after=now, previous=None, before_quality="none", **given)
        case "d":
            return a_change(n, op=op, after=None, previous=was, **given)
    assert was is not None and now is not None
    previous = {name: was[name] for name in was if was[name] != now[name]}
    return a_change(n, op=op, after=now, previous=previous, changed=list(previous), **given)


A, B, C, D = image(), image(status="b"), image(status="b", n=2), image(n=2)
SOLD, ARCHIVED = (
    {"data": [{"id": "si_1", "price": {"id": "price_1", "active": active}}]}
    for active in (True, False)
)
E, F, G = image(items=SOLD), image(status="b", items=ARCHIVED), image(items=ARCHIVED)
ROWS = {"object": "list", "data": [{"id": "si_1"}, {"id": "si_2"}], "has_more": False}
SHOWN = {
    "object": "list",
    "data": [{"id": "si_2"}, {"id": "si_1"}],
    "has_more": False,
    "total_count": 2,
    "url": "/v1/subscription_items",
}
CUT = SHOWN | {"data": [{"id": "si_1", "quantity": 7}], "has_more": True}
P, Q, R = image(items=ROWS, n=2), image(items=ROWS), image(items=SHOWN, status="b", n=2)
S = image(items=CUT, n=2)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([step("c", 1, None, A)], ("c", None, A, [])),
        ([step("c", 1, None, A), step("u", 2, A, B)], ("c", None, B, [])),
        ([step("r", 1, None, A), step("u", 2, A, B)], ("r", None, B, [])),
        ([step("u", 1, A, B), step("u", 2, B, C)], ("u", A, C, ["status", "n"])),
        (
            [step("u", 1, A, B), step("u", 2, B, C), step("u", 3, C, D)],
            ("u", A, D, ["n"]),
        ),  # the status flapped
        ([step("u", 1, A, B), step("u", 2, B, A)], None),
        ([step("c", 1, None, A), step("d", 2, A)], None),
        ([step("c", 1, None, A), step("u", 2, A, B), step("d", 3, B)], None),
        ([step("d", 1, A), step("c", 2, None, B)], ("u", A, B, ["status"])),
        ([step("d", 1, A), step("c", 2, None, A)], None),
        ([step("u", 1, A, B), step("d", 2, B)], ("d", A, None, [])),
        ([step("d", 1, A), step("c", 2, None, B), step("d", 3, B)], ("d", A, None, [])),
        ([step("c", 1, None, A), step("d", 2, A), step("c", 3, None, B)], ("c", None, B, [])),
        ([step("d", 1, A)], ("d", A, None, [])),
        ([step("u", 1, A, B, before_quality="none")], ("u", None, B, ["status"])),
        (
            [step("u", 1, A, B, before_quality="none"), step("u", 2, B, C)],
            ("u", None, C, ["status", "n"]),
        ),
        (
            [step("u", 1, A, B), step("u", 2, B, A, api_version="other")],
            ("u", A, A, ["status"]),
        ),  # not to be compared
        (
            [step("u", 2, A, B), step("u", 1, D, A, late=True)],
            ("u", D, B, ["status", "n"]),
        ),  # it begins with a late one
        (
            [step("u", 3, B, C), step("u", 2, A, B, late=True), step("c", 1, None, A, late=True)],
            ("c", None, C, []),
        ),
        (
            [step("u", 3, A, B), step("u", 1, C, D, late=True)],
            ("u", A, B, ["status"]),
        ),  # which does not lead there
        (
            [step("u", 2, A, B), step("u", 3, B, C), step("u", 1, D, C, late=True)],
            ("u", A, C, ["status", "n"]),
        ),
        ([step("u", 1, C, A, late=True)], None),
        (
            [step("u", 1, P, Q, origin="diff"), step("u", 2, Q, R)],
            ("u", P, R, ["status"]),
        ),  # rows hold lists in another form
        (
            [step("u", 1, P, Q, origin="diff"), step("u", 2, Q, S)],
            ("u", P, S, ["items.data"]),
        ),  # cut, but the first differs
        ([step("u", 1, E, F)], ("u", E, F, ["status"])),  # a price is no part of what embeds it
        ([step("u", 1, E, F), step("u", 2, F, G)], None),
    ],
)
def test_net_changes(tmp_path: Path, steps: list[Row], expected: Any) -> None:
    with Feed(None, FeedStore(tmp_path / "feed.sqlite")) as feed:
        add(feed, *(row | {"change_id": f"evt_{n}"} for n, row in enumerate(steps)))
        found = [(one.op, one.before, one.after, one.changed) for one in feed.net()]

    assert found == ([] if expected is None else [expected])


def test_net_of_a_span(feed: Feed) -> None:
    assert [
        (one.object_id, one.changes, one.first.offset, one.last.offset) for one in feed.net()
    ] == [
        ("sub_2", 3, 2, 8),
        ("sub_0", 3, 3, 9),
        ("sub_1", 4, 1, 10),
    ]
    assert [(one.object_id, one.changes) for one in feed.net(since=5, until="evt_8")] == [
        ("sub_2", 1),
        ("sub_0", 1),
        ("sub_1", 1),
    ]
    assert list(feed.net(resource="invoices")) == []
    assert next(feed.net()).as_dict()["first_change_id"] == "evt_2"


def test_a_relay_in_another_store_goes_on_while_consumed(tmp_path: Path) -> None:
    with (
        closing(Plain()) as plain,
        FeedStore(tmp_path / "f.sqlite") as one,
        FeedStore(tmp_path / "f.sqlite") as two,
    ):
        plain.put("1", a_change(1), a_change(2))
        plain.complete("1")
        relay.relay(one, plain)
        changes = Feed(None, two).consume("c", start="earliest")
        assert next(changes).offset == 1
        plain.put("2", a_change(3))
        plain.complete("2")
        relay.relay(one, plain)
        assert offsets(changes) == [2, 3]
