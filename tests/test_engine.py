"""Log to messages: each firing once, whatever is killed, held, replayed or run at the same time;
and the same on history.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stripe_feed.delivery.outbox import (
    Attempt,
    attempts,
    counts,
    discard,
    find,
    message_id_of,
    record_attempt,
    release,
)
from stripe_feed.errors import SetupError, UsageError
from stripe_feed.feed import consumers
from stripe_feed.feed.feed import Feed
from stripe_feed.feed.storage.maintenance import prune
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.feed.storage.store_errors import Unusable
from stripe_feed.triggers import engine
from stripe_feed.triggers.backtest import backtest
from stripe_feed.triggers.engine import backtest_firings, explain_change, replay, run_triggers
from stripe_feed.triggers.trigger import Trigger
from tests.deliveries import (
    NEW,
    NOW,
    a_trigger,
    add,
    kept,
    messages,
    ran,
    run_one,
    told_ids,
    updates,
)
from tests.feed_kills import BEGIN, Row, a_change

A_DAY = 86_400


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedStore]:
    with FeedStore(tmp_path / "copy.feed.sqlite") as opened:
        yield opened


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_PAGE_SIZE", 7)


def begun(store: FeedStore, **words: Any) -> Trigger:
    """A trigger that has run once, over whatever is there."""
    trigger = a_trigger(**words)
    run_one(store, trigger)
    return trigger


def status(store: FeedStore, name: str = "t") -> tuple[str | None, str | None]:
    """Why a trigger is held, and why disabled."""
    ((held, disabled),) = store.query("select held, disabled from triggers where name = ?", name)
    return held, disabled


def sent(store: FeedStore, *change_ids: str) -> None:
    with store.transaction() as db:
        for one in messages(store):
            if one.change_id in change_ids or not change_ids:
                record_attempt(db, one, Attempt(NOW, 0.1, "200", ""), "sent")


# What becomes a message


def test_a_new_trigger_begins_with_what_comes_from_now_on(store: FeedStore) -> None:
    add(store, *updates(5))
    trigger = a_trigger()

    assert run_one(store, trigger).is_new
    add(store, *updates(3, first=6))
    done = run_one(store, trigger)

    assert (done.seen, done.fired, done.held, done.is_new) == (3, 3, None, False)
    assert told_ids(store) == ["evt_6", "evt_7", "evt_8"]
    assert ran(store, trigger) == [("t", 0, False)]


def test_each_trigger_sees_every_change(store: FeedStore) -> None:
    active, every = a_trigger("active", where="after.status == 's2'"), a_trigger("every")
    ran(store, active, every)
    add(store, *updates(3))
    late = a_trigger("late")

    assert ran(store, active, every, late) == [
        ("active", 1, False),
        ("every", 3, False),
        ("late", 0, False),
    ]
    assert {name: found["waiting"] for name, found in counts(store).items()} == {
        "active": 1,
        "every": 3,
    }


def test_a_message_says_of_what_it_is_and_holds_nothing_else(store: FeedStore) -> None:
    trigger = begun(store, per="customer_id")
    add(store, a_change(1))
    run_one(store, trigger, NOW + 5)

    (one,) = messages(store)

    assert (one.message_id, one.trigger, one.change_id, one.first_change_id) == (
        message_id_of("t", "evt_1", "evt_1"),
        "t",
        "evt_1",
        "evt_1",
    )
    assert (one.resource, one.object_id, one.lane, one.state, one.tries) == (
        "subscriptions",
        "sub_1",
        "cus_1",
        "waiting",
        0,
    )
    assert (one.due_at, one.made_at, one.ended_at) == (NOW + 5, NOW + 5, None)


def test_ids_differ_by_trigger_and_by_change() -> None:
    parts = ("a", "b", "ab", "ba")

    assert len({message_id_of(*some) for some in itertools.product(parts, repeat=3)}) == 64
    assert (
        message_id_of("t", "evt_1", "evt_2") == "msg_61138b282d022c4babc49f55abb3fc"
    )  # receivers remember them: for ever


def test_nothing_is_written_where_nothing_is_new(store: FeedStore) -> None:
    trigger = begun(store)
    before = store.query("select total_changes()")

    assert ran(store, trigger) == [("t", 0, False)]
    assert store.query("select total_changes()") == before


# Enrolment


def of(n: int, object_id: str, customer: str | None = "cus_1") -> Row:
    return a_change(n, object_id, customer_id=customer)


@pytest.mark.parametrize(
    ("enrol", "per", "fired"),
    [
        ("always", "object_id", [1, 2, 3, 4, 5, 6, 2 * A_DAY, 2 * A_DAY + 1, 4 * A_DAY]),
        ("once", "object_id", [1, 2, 4]),
        ("once", "customer_id", [1, 4, 5]),
        ("cooldown 1d", "object_id", [1, 2, 4, 2 * A_DAY, 4 * A_DAY]),
        ("cooldown 1d", "customer_id", [1, 4, 5, 2 * A_DAY, 4 * A_DAY]),
        ("cooldown 2d", "customer_id", [1, 4, 5, 2 * A_DAY + 1, 4 * A_DAY]),
        ("cooldown 5d", "object_id", [1, 2, 4]),
        ("no_concurrency", "object_id", [1, 2, 4]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("runs", [1, 2, 9])
def test_how_often_a_trigger_fires_for_a_key(
    store: FeedStore, enrol: str, per: str, fired: list[int], runs: int
) -> None:
    """sub_1 and sub_2 belong to one customer, sub_3 first to another and then to nobody; in one
    run, in two, or in one each.
    """
    trigger = begun(store, enrol=enrol, per=per)
    rows = [
        of(1, "sub_1"),
        of(2, "sub_2"),
        of(3, "sub_1"),
        of(4, "sub_3", "cus_2"),
        of(5, "sub_3", None),
        of(6, "sub_1"),
        of(2 * A_DAY, "sub_1"),
        of(2 * A_DAY + 1, "sub_1", "cus_1"),
        of(4 * A_DAY, "sub_3", None),
    ]
    for n in range(0, 9, -(-9 // runs)):
        add(store, *rows[n : n + -(-9 // runs)])
        run_one(store, trigger)

    assert told_ids(store) == [f"evt_{n}" for n in fired]


def test_no_concurrency_waits_for_the_message_to_end(store: FeedStore) -> None:
    trigger = begun(store, enrol="no_concurrency")
    for n, state in (
        (1, ""),
        (2, "sent"),
        (3, ""),
        (4, "dead"),
        (5, ""),
        (6, "dropped"),
        (7, "held"),
        (8, ""),
    ):
        add(store, a_change(n))
        run_one(store, trigger)
        if state:
            store.query("update messages set state = ? where state = 'waiting'", state)

    assert told_ids(store) == ["evt_1", "evt_3", "evt_5", "evt_7"]


def test_who_paid_before_a_trigger_began_is_enrolled(store: FeedStore) -> None:
    asked: list[str] = []

    def paid(query: str) -> list[str]:
        asked.append(query)
        return ["cus_old", ""]

    def payment(n: int, customer: str) -> Row:
        image = {"id": f"in_{n}", "status": "paid", "amount_paid": 100}
        return a_change(
            n,
            f"in_{n}",
            customer_id=customer,
            resource="invoices",
            after=image,
            previous={"status": "open"},
        )

    trigger = a_trigger(preset="first_payment")
    run_triggers(store, [trigger], NOW, paid)
    add(
        store,
        payment(1, "cus_old"),
        payment(2, "cus_new"),
        payment(3, "cus_new"),
        payment(4, "cus_old"),
        payment(5, "cus_other"),
    )
    run_triggers(store, [trigger], NOW, paid)

    assert told_ids(store) == ["evt_2", "evt_5"]
    assert asked == [
        "select distinct customer from {invoices} where status = 'paid' and amount_paid > 0"
    ]
    assert [last.change_id for _, last, _ in backtest_firings(store, trigger, "earliest", NOW)] == [
        "evt_2",
        "evt_5",
    ]
    replay(store, trigger, "earliest", NOW, paid)
    assert told_ids(store) == ["evt_2", "evt_5"]


def test_a_trigger_that_cannot_run_says_so_and_holds_up_no_other(store: FeedStore) -> None:
    """Such as a preset that must know who has paid before, while the first copy of the invoices is
    not complete.
    """

    def incomplete(query: str) -> list[str]:
        raise SetupError("The first copy of invoices is not complete yet.")

    def broken(query: str) -> list[str]:
        raise ZeroDivisionError

    first, other = a_trigger(preset="first_payment"), a_trigger("other")
    assert (
        run_triggers(store, [first], NOW, broken)[0].error
        == "unexpected ZeroDivisionError; please report it"
    )
    assert store.query("select name from consumers") == []  # nothing is half begun
    found = run_triggers(store, [first, other], NOW, incomplete)
    assert [(one.trigger, one.is_new, bool(one.error)) for one in found] == [
        (first.name, False, True),
        ("other", True, False),
    ]
    assert run_triggers(store, [first, other], NOW, lambda query: [])[0].is_new


def test_a_lost_position_is_one_triggers_own(store: FeedStore) -> None:
    """It was out of the file while its changes were pruned."""
    away, there = a_trigger("away"), a_trigger("there")
    ran(store, away)
    add(store, *(a_change(n, "sub_1") for n in range(1, 4)))
    prune(store, 0, False, NOW + 1e9)
    ran(store, there)
    add(store, a_change(4, "sub_1"))
    lost, fired = run_triggers(store, [away, there], NOW)
    assert "were pruned" in (lost.error or "") and fired.fired == 1


def test_a_large_load_that_comes_in_pieces_is_held_as_one(store: FeedStore) -> None:
    """The relay commits it piece by piece, and triggers run twice a second."""
    trigger = begun(store, guard={"max": 200, "share": 1})
    for first in range(0, 1_000, 100):
        add(store, *(a_change(n, f"sub_{n}") for n in range(first, first + 100)))
        run_one(store, trigger)
    waiting, held = len(messages(store, "waiting")), len(messages(store, "held"))
    assert (waiting, waiting + held) == (200, 1_000)
    later = begun(store, name="later", guard={"max": 200, "share": 1})
    for n, first in enumerate(range(1_000, 1_600, 200)):
        add(store, *(a_change(n, f"sub_{n}") for n in range(first, first + 200)))
        run_one(store, later, NOW + 700 * n)
    assert {one.state for one in messages(store) if one.trigger == "later"} == {"waiting"}


# Net changes


def test_a_net_trigger_makes_one_message_per_object_and_run(store: FeedStore) -> None:
    trigger = begun(store, net=True, op=["added", "updated", "removed"])
    add(
        store,
        a_change(1, "sub_new", **NEW),
        a_change(2, "sub_new", "d"),
        *(a_change(n, "sub_busy") for n in range(3, 20)),
        a_change(20, "sub_made", **NEW),
        a_change(21, "sub_made"),
        a_change(22, "sub_gone", "d"),
        a_change(23, "sub_flaps", after={"id": "x", "status": "b"}, previous={"status": "a"}),
        a_change(24, "sub_flaps", after={"id": "x", "status": "a"}, previous={"status": "b"}),
    )

    run_one(store, trigger)

    assert [(one.object_id, one.first_change_id, one.change_id) for one in messages(store)] == [
        ("sub_busy", "evt_3", "evt_19"),
        ("sub_made", "evt_20", "evt_21"),
        ("sub_gone", "evt_22", "evt_22"),
    ]
    add(store, a_change(30, "sub_busy"))
    run_one(store, trigger)
    assert told_ids(store)[3:] == ["evt_30"]


def test_a_net_trigger_asks_its_rule_of_the_whole(store: FeedStore) -> None:
    moved = begun(
        store,
        name="moved",
        net=True,
        transition={"status": {"from": "s0", "to": "s5"}},
        where="change.op == 'u'",
    )
    began = begun(
        store, name="began", net=True, op="added", where="after.status == 's9' and not before"
    )
    there = begun(store, name="there", net=True, changed=["metadata"])
    add(
        store,
        *(a_change(n, "sub_1") for n in range(1, 6)),
        a_change(8, "sub_2", **NEW),
        a_change(9, "sub_2"),
    )
    add(
        store,
        a_change(10, "sub_3", previous={"metadata": {"a": "1"}}, changed=["metadata.a"]),
        a_change(11, "sub_3", previous={}, changed=[]),
    )

    assert ran(store, moved, began, there) == [
        ("moved", 1, False),
        ("began", 1, False),
        ("there", 1, False),
    ]
    assert [(one.trigger, one.first_change_id, one.change_id) for one in messages(store)] == [
        ("moved", "evt_1", "evt_5"),
        ("began", "evt_8", "evt_9"),
        ("there", "evt_10", "evt_11"),
    ]


# Kills and fences


class Killed(BaseException):
    """As if the process were gone."""


@contextmanager
def killed_at(
    store: FeedStore, monkeypatch: pytest.MonkeyPatch, commit: int
) -> Iterator[list[int]]:
    """Die at the `commit`th commit that writes, counted from 1; gives how many there were."""
    real, seen = FeedStore.transaction, [0]

    @contextmanager
    def transaction(self: FeedStore, kind: str = "immediate") -> Iterator[sqlite3.Connection]:
        is_outer = not self._db.in_transaction
        with real(self, kind) as db:
            yield db
            if is_outer and kind == "immediate":
                seen[0] += 1
                if seen[0] == commit:
                    raise Killed

    monkeypatch.setattr(FeedStore, "transaction", transaction)
    try:
        yield seen
    except Killed:
        pass
    finally:
        monkeypatch.setattr(FeedStore, "transaction", real)


@pytest.mark.parametrize(
    "words",
    [{}, {"enrol": "once"}, {"enrol": "cooldown 3s"}, {"net": True}, {"guard": {"max": 5}}],
    ids=str,
)
def test_a_run_that_is_killed_makes_every_message_exactly_once(
    store: FeedStore, monkeypatch: pytest.MonkeyPatch, words: Any
) -> None:
    trigger = a_trigger(**words)
    rows, n = updates(40, 4), itertools.count(1)
    kills = 0
    for commit in itertools.chain(range(1, 9), range(1, 9)):
        with killed_at(store, monkeypatch, commit) as commits:
            run_one(store, trigger)
        kills += commits[0] == commit
        if next(n) == 2:
            add(store, *rows)
    run_one(store, trigger)

    with kept() as whole:
        run_one(whole, trigger)
        add(whole, *rows)
        run_one(whole, trigger)
        assert told_ids(store) == told_ids(whole)
        assert store.query("select fired from triggers") == whole.query(
            "select fired from triggers"
        )
    assert {one.state for one in messages(store)} == {"held" if "guard" in words else "waiting"}
    assert kills >= 3


def test_a_trigger_that_is_killed_while_it_begins_misses_nothing_that_comes_after(
    store: FeedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = a_trigger()
    with killed_at(store, monkeypatch, 1):
        run_one(store, trigger)
    assert store.query(
        "select (select count(*) from consumers) + (select count(*) from triggers)"
    ) == [(0,)]

    with killed_at(store, monkeypatch, 2):
        run_one(store, trigger)
    add(store, *updates(3))

    assert run_one(store, trigger).fired == 3


def test_of_two_processes_one_is_fenced(store: FeedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    trigger = begun(store)
    add(store, *updates(20))
    real: Callable[..., Any] = engine.store_messages
    pages = itertools.count(1)

    def overtaken(*given: Any) -> Any:
        if next(pages) == 2:
            monkeypatch.setattr(engine, "store_messages", real)
            with FeedStore(store.path) as other:
                assert other.query("pragma busy_timeout = 0") is not None
                with pytest.raises(Unusable, match="locked by another program"):
                    consumers.attach(
                        other, "trigger:t", "latest", NOW
                    )  # not within the other's transaction
        return real(*given)

    monkeypatch.setattr(engine, "store_messages", overtaken)
    assert run_one(store, trigger).fired == 20

    add(store, *updates(20, first=21))
    advance, count = consumers.advance, itertools.count(1)

    def taken_over(db: Any, *given: Any) -> None:
        advance(db, *given)
        if next(count) == 1:
            db.execute("update consumers set epoch = epoch + 1")

    monkeypatch.setattr(consumers, "advance", taken_over)
    assert "trigger:t was taken over" in (run_one(store, trigger).error or "")
    assert len(messages(store)) == 27
    run_one(store, trigger)
    assert told_ids(store) == [f"evt_{n}" for n in range(1, 41)]


def test_what_was_pruned_unseen_is_said_and_not_jumped_over(store: FeedStore) -> None:
    trigger = begun(store)
    add(store, *updates(5))
    Feed(None, store, now=lambda: NOW).prune(0)

    assert "feed reset trigger:t" in (run_one(store, trigger).error or "")


# T3: on history


kinds = st.sampled_from(
    [
        {},
        {"enrol": "once"},
        {"enrol": "once", "per": "customer_id"},
        {"enrol": "cooldown 3s"},
        {"enrol": "cooldown 5s", "per": "customer_id"},
    ]
)
rules = st.sampled_from(
    [
        {},
        {"op": "updated"},
        {"where": "after.status != 's3'"},
        {"transition": {"status": {"to": ["s1", "s2", "s5", "s8"]}}},
    ]
)
histories = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 2),
        st.integers(0, 12),
        st.sampled_from("cuuud"),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=25, deadline=None)
@given(kinds, rules, histories, st.data())
def test_t3_a_backtest_is_what_really_happened(
    kind: dict[str, Any], rule: dict[str, Any], history: list[Any], data: st.DataObject
) -> None:
    """For a span from anywhere after the trigger began to now; several changes happen in a second,
    and some arrive late.
    """
    check_backtest(kind, rule, history, data)


@pytest.mark.broad
@settings(max_examples=80, deadline=None)
@given(kinds, rules, histories, st.data())
def test_t3_more_backtests_are_what_really_happened(
    kind: dict[str, Any], rule: dict[str, Any], history: list[Any], data: st.DataObject
) -> None:
    check_backtest(kind, rule, history, data)


def check_backtest(
    kind: dict[str, Any], rule: dict[str, Any], history: list[Any], data: st.DataObject
) -> None:
    trigger = a_trigger(**kind, **rule)
    rows = [
        a_change(
            n,
            f"sub_{key}",
            op,
            customer_id=[None, "cus_1", "cus_2"][customer],
            occurred_at=BEGIN.fromtimestamp(BEGIN.timestamp() + at, BEGIN.tzinfo),
            late=late,
        )
        for n, (key, customer, at, op, late) in enumerate(history, 1)
    ]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(rows)), max_size=4)))
    since = data.draw(st.integers(1, len(rows)))
    with kept() as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_PAGE_SIZE", 3)
        run_one(store, trigger)
        for low, high in itertools.pairwise([0, *cuts, len(rows)]):
            add(store, *rows[low:high])
            run_one(store, trigger)
        live = {one.message_id for one in messages(store) if int(one.change_id[4:]) >= since}

        assert {
            message_id_of("t", first.change_id, last.change_id)
            for first, last, _ in backtest_firings(store, trigger, since, NOW)
        } == live
        assert backtest(store, trigger, since, 0, NOW).fired == len(live)
        before = [tuple(row) for row in store.query("select * from messages")]
        replay(store, trigger, since, NOW)
        assert [
            tuple(row) for row in store.query("select * from messages")
        ] == before  # with the ids that they had


def test_a_backtest_of_a_trigger_that_never_ran_writes_nothing(store: FeedStore) -> None:
    add(store, *updates(12, 3))
    before = store.query("select total_changes()")

    found = backtest(
        store, a_trigger(enrol="once", where="after.status != 's3'"), "earliest", 2, NOW
    )

    assert (
        found.trigger,
        found.changes,
        found.fired,
        found.busiest_minute,
        found.most_per_key,
    ) == ("t", 12, 3, 3, 1)
    assert found.days == {"2026-01-01": 3}
    assert [
        (one.change_id, one.body["type"], one.body["data"]["status"]) for one in found.samples
    ] == [
        ("evt_2", "customer.subscription.updated", "s2"),
        ("evt_6", "customer.subscription.updated", "s6"),
    ]
    assert store.query("select total_changes()") == before
    assert store.query(
        "select (select count(*) from triggers) + (select count(*) from messages) + (select count(*) from consumers)"
    ) == [(0,)]


def test_a_backtest_counts_days_minutes_and_keys(store: FeedStore) -> None:
    add(store, *(a_change(n, f"sub_{n % 2}") for n in (0, 1, 2, 59, 60, 61, A_DAY, A_DAY + 2)))

    found = backtest(store, a_trigger(), "earliest", 1, NOW)

    assert (found.fired, found.days, found.busiest_minute, found.most_per_key) == (
        8,
        {"2026-01-01": 6, "2026-01-02": 2},
        4,
        5,
    )


def test_a_sample_without_a_body_says_why(store: FeedStore) -> None:
    add(store, a_change(1, origin="diff"))

    (sample,) = backtest(
        store, a_trigger(deliver={"format": "stripe"}), "earliest", now=NOW
    ).samples

    assert "was not a Stripe event" in sample.body
    assert "body" not in repr(sample)


# T4: the guard


def test_t4_a_mass_change_is_held_and_released_once(
    store: FeedStore, caplog: pytest.LogCaptureFixture
) -> None:
    trigger = begun(store, guard={"max": 20})
    add(store, *updates(20, 5))
    assert ran(store, trigger) == [("t", 20, False)]
    sent(store)

    add(store, *updates(21, 5, first=21))
    done = run_one(store, trigger)

    assert (done.fired, done.held) == (21, "it would fire 41 times within 10 minutes, more than 20")
    assert "The trigger t is held" in caplog.text
    assert counts(store) == {"t": {"sent": 20, "held": 21}}
    add(store, *updates(2, 5, first=42))
    assert run_one(store, trigger).held == done.held  # what comes later waits, too
    add(store, *updates(30, 5, first=44))
    assert run_one(store, trigger).held == done.held
    assert caplog.text.count("is held") == 1
    assert ran(store, trigger) == [("t", 0, True)]
    assert counts(store) == {"t": {"sent": 20, "held": 53}}

    assert release(store, "t", NOW + 1) == 53
    assert (status(store), counts(store)) == ((None, None), {"t": {"sent": 20, "waiting": 53}})
    assert release(store, "t", NOW + 1) == 0
    assert ran(store, trigger) == [("t", 0, False)]
    assert told_ids(store) == [
        f"evt_{n}" for n in range(1, 74)
    ]  # the numbers, and so the lanes, are in order


@pytest.mark.parametrize(
    ("objects", "count", "share", "is_held"),
    [(200, 100, 0.5, False), (200, 101, 0.5, True), (199, 100, 0.5, True), (10, 99, 0.5, False), (10, 100, 0.5, True), (10, 100, 1, False), (0, 150, 0, False), (10**6, 100, 0, True)],
)  # fmt: skip
def test_t4_a_share_of_all_objects_is_held(
    store: FeedStore, objects: int, count: int, share: float, is_held: bool
) -> None:
    store.note_totals({"subscriptions": objects, "customers": 10**6})
    trigger = begun(store, guard={"share": share})
    add(store, *updates(count, 500))

    assert ran(store, trigger) == [("t", count, is_held)]
    reason = f"it would fire for {count:,} objects within 10 minutes, more than {share:.0%} of {objects:,} objects"
    assert status(store)[0] == (reason if is_held else None)


def test_t4_a_share_counts_each_object_once_over_runs_too(store: FeedStore) -> None:
    store.note_totals({"subscriptions": 200})
    trigger = begun(store)
    add(store, *updates(300, 100))
    assert ran(store, trigger) == [("t", 300, False)]
    add(store, *updates(50, 100, first=301))
    assert ran(store, trigger) == [("t", 50, False)]

    add(store, a_change(400, "sub_another"))

    assert ran(store, trigger) == [("t", 1, True)]


def test_t4_a_changed_rule_is_held_for_what_happened_before(store: FeedStore) -> None:
    begun(store, where="after.status == 's1'")
    add(store, *updates(3))
    other = a_trigger(where="after.status != 's1'")

    assert (
        run_one(store, other).held
        == "its rule was edited and would now fire 2 times for older changes"
    )
    add(store, *updates(1, first=4))
    assert run_one(store, other).held
    assert counts(store) == {"t": {"held": 3}}
    release(store, "t", NOW)
    add(store, *updates(1, first=5))
    assert run_one(store, other).held is None
    assert counts(store) == {"t": {"waiting": 4}}


def test_t4_a_changed_rule_with_nothing_to_fire_for_is_simply_the_rule(store: FeedStore) -> None:
    begun(store, where="after.status == 's1'")
    other = a_trigger(where="after.status != 's1'")
    assert ran(store, other) == [("t", 0, False)]
    add(store, a_change(5))
    assert ran(store, other) == [("t", 1, False)]
    assert ran(store, a_trigger(where="after.status != 's1'", deliver={"file": "elsewhere"})) == [
        ("t", 0, False)
    ]


def test_t4_what_is_discarded_is_never_sent_and_the_trigger_goes_on(store: FeedStore) -> None:
    trigger = begun(store, guard={"max": 2}, enrol="once")
    add(store, *updates(3, 3))
    run_one(store, trigger)

    assert discard(store, "t", NOW + 7) == 3
    add(store, *updates(3, 3, first=4), a_change(9, "sub_9"))
    run_one(store, trigger)

    assert [(one.change_id, one.state, one.ended_at) for one in messages(store)] == [
        ("evt_1", "dropped", NOW + 7),
        ("evt_2", "dropped", NOW + 7),
        ("evt_3", "dropped", NOW + 7),
        ("evt_9", "waiting", None),
    ]
    assert status(store) == (None, None)


def test_t4_a_release_in_the_midst_of_a_held_run_leaves_nothing_held(
    store: FeedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = begun(store, guard={"max": 2})
    add(store, *updates(20))
    real: Callable[..., Any] = engine.store_messages
    pages = itertools.count(1)

    def released(*given: Any) -> Any:
        if next(pages) == 2:
            release(store, "t", NOW)
        return real(*given)

    monkeypatch.setattr(engine, "store_messages", released)
    run_one(store, trigger)

    assert (status(store)[0], counts(store)) == (None, {"t": {"waiting": 20}})


def test_a_trigger_that_never_ran_cannot_be_released(store: FeedStore) -> None:
    for act in (release, discard):
        with pytest.raises(UsageError, match="'t' has not run yet"):
            act(store, "t", NOW)


# Replays


def test_a_replay_sends_again_with_the_same_ids(store: FeedStore) -> None:
    trigger = begun(store)
    add(store, *updates(5))
    run_one(store, trigger)
    sent(store)
    ids = [one.message_id for one in messages(store)]

    done = replay(store, trigger, "evt_3", NOW + 9)

    assert (done.fired, done.seen, done.held) == (3, 3, None)
    assert [one.message_id for one in messages(store)] == ids
    assert [
        (one.state, one.tries, one.due_at, one.ended_at) for one in messages(store, "waiting")
    ] == [("waiting", 0, NOW + 9, None)] * 3


def test_a_replay_reaches_back_before_the_trigger_began_and_enrols(store: FeedStore) -> None:
    add(store, *updates(4, 2))
    trigger = a_trigger(enrol="once")

    assert replay(store, trigger, "earliest", NOW).fired == 2
    add(store, *updates(4, 2, first=5), a_change(9, "sub_9"))
    run_one(store, trigger)

    assert told_ids(store) == ["evt_1", "evt_2", "evt_9"]


def test_a_replay_makes_no_second_message_for_who_is_enrolled(store: FeedStore) -> None:
    """What a key fired for is sent again, and not what it would have fired for, had the trigger
    begun earlier.
    """
    add(store, *updates(4, 2))
    trigger = begun(store, enrol="once")
    add(store, *updates(2, 2, first=5))
    run_one(store, trigger)
    sent(store)
    add(store, a_change(7, "sub_7"))

    assert replay(store, trigger, "earliest", NOW).fired == 3
    assert [(one.change_id, one.state) for one in messages(store)] == [
        ("evt_5", "waiting"),
        ("evt_6", "waiting"),
        ("evt_7", "waiting"),
    ]


def test_a_replay_begins_a_trigger_with_those_who_are_enrolled(store: FeedStore) -> None:
    trigger = a_trigger(preset="first_payment")

    replay(store, trigger, "latest", NOW, lambda query: ["cus_old"])

    assert store.query("select key, at from enrolled") == [("cus_old", 0.0)]
    assert store.query("select name from consumers") == [("trigger:t",)]


def test_a_replay_is_guarded_and_does_not_slip_past_a_hold(store: FeedStore) -> None:
    trigger = begun(store, guard={"max": 3})
    add(store, *updates(2))
    run_one(store, trigger)
    sent(store)
    add(store, *updates(4, first=3))
    run_one(store, trigger)
    assert counts(store) == {"t": {"sent": 2, "held": 4}}

    assert replay(store, trigger, "evt_5", NOW).held is not None
    assert counts(store) == {"t": {"sent": 2, "held": 4}}
    release(store, "t", NOW)
    sent(store)
    assert (
        replay(store, trigger, 1, NOW).held
        == "it would fire 6 times within 10 minutes, more than 3"
    )
    assert counts(store) == {"t": {"held": 6}}


def test_a_replay_does_not_fence_off_who_delivers(store: FeedStore) -> None:
    trigger = begun(store)
    _, epoch, _ = consumers.attach(store, "trigger:t", "latest", NOW)
    add(store, *updates(2))

    replay(store, trigger, 1, NOW)

    consumers.acknowledge(store, "trigger:t", epoch, 1, NOW)
    assert run_one(store, trigger).fired == 0  # the messages are there already
    assert Counter(told_ids(store)) == {"evt_1": 1, "evt_2": 1}


# Why


def test_explained_is_what_each_trigger_made_of_a_change(store: FeedStore) -> None:
    add(store, a_change(0))
    names = ("fired", "no", "once", "net")
    some = [
        a_trigger("fired"),
        a_trigger("no", where="after.status == 'x'", op="added"),
        a_trigger("once", enrol="once"),
        a_trigger("net", net=True),
    ]
    ran(store, *some)
    add(store, *updates(3))
    ran(store, *some)
    (last,) = find(store, trigger="fired", change_id="evt_2")
    with store.transaction() as db:
        record_attempt(db, last, Attempt(NOW, 0.5, "500", ""), "waiting", NOW + 5)
    fresh = a_trigger("fresh")

    found = explain_change(store, [*some, fresh], "evt_2")

    assert [one.trigger for one in found] == [*names, "fresh"]
    assert [one.verdict for one in found] == [
        "fired; its message is waiting",
        "did not fire: op, where does not hold",
        "did not fire: sub_0 was enrolled before (once)",
        "did not fire for it alone: it is part of a net change",
        "has not reached it yet: run `stripe-feed deliver --once`",
    ]
    assert [(one.change_id, [try_.code for try_ in tries]) for one, tries in found[0].messages] == [
        ("evt_2", ["500"])
    ]
    assert attempts(store, last.message_id) == [Attempt(NOW, 0.5, "500", "")]
    began = "did not fire: it happened before the trigger started; `stripe-feed triggers replay` sends it"
    assert [one.verdict for one in explain_change(store, [some[0], some[2]], "evt_0")] == [
        began,
        began,
    ]
    add(store, a_change(4))
    assert explain_change(store, some[:1], "evt_4")[0].verdict.startswith("has not reached it yet")


@pytest.mark.parametrize("id", ["evt_9", "latest", "1", "30d", "2026-01-01", ""])
def test_only_a_change_can_be_explained(store: FeedStore, id: str) -> None:
    add(store, *updates(3))

    with pytest.raises(UsageError):
        explain_change(store, [a_trigger()], id)


def test_a_consumer_that_was_put_somewhere_before_its_trigger_began_is_explained_and_used(
    store: FeedStore,
) -> None:
    add(store, *updates(3))
    consumers.reset(store, "trigger:t", "earliest", NOW)

    assert explain_change(store, [a_trigger()], "evt_1")[0].verdict.startswith(
        "has not reached it yet"
    )
    done = run_one(store, a_trigger())
    assert (done.fired, done.is_new) == (3, True)
