"""Replays, and what is held, released and discarded: nothing that happened by itself is lost by any
of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stripe_feed.delivery.outbox import counts, discard, release, retry
from stripe_feed.feed.storage.maintenance import prune
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.triggers import engine
from stripe_feed.triggers.engine import replay
from stripe_feed.triggers.trigger import Trigger
from tests.deliveries import (
    NOW,
    OK,
    REFUSED,
    Clock,
    Scripted,
    a_trigger,
    add,
    delivering_to,
    filled,
    kept,
    once,
    run_one,
    updates,
)
from tests.feed_kills import a_change


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedStore]:
    with FeedStore(tmp_path / "copy.feed.sqlite") as opened:
        yield opened


def guarded(most: int = 5, **words: Any) -> Trigger:
    return a_trigger(guard={"max": most}, **words)


def arrived(store: FeedStore, trigger: Trigger) -> list[str]:
    sink = Scripted()
    once(store, trigger, sink, Clock(NOW + 10_000))
    return sorted(sink.changes, key=lambda id: int(id[4:]))


def ids(*numbers: int) -> list[str]:
    return [f"evt_{n}" for n in numbers]


def history(store: FeedStore, trigger: Trigger) -> None:
    """Ten changes of ten objects from before the trigger began."""
    add(store, *updates(10, 10))
    run_one(store, trigger)


def test_a_replay_that_is_discarded_leaves_what_waits(store: FeedStore) -> None:
    trigger = guarded()
    history(store, trigger)
    add(store, *updates(3, 3, first=11))
    run_one(store, trigger)

    done = replay(store, trigger, "earliest", NOW)
    assert (done.fired, done.held is not None) == (13, True)
    assert counts(store) == {"t": {"waiting": 3, "held": 10}}

    assert discard(store, "t", NOW) == 10
    assert arrived(store, trigger) == ids(11, 12, 13)
    assert counts(store) == {"t": {"sent": 3, "dropped": 10}}


@pytest.mark.parametrize("enrol", ["always", "no_concurrency"])
def test_what_happens_while_a_replay_is_held_is_sent(store: FeedStore, enrol: str) -> None:
    """In the lanes of the replay, too."""
    trigger = guarded(enrol=enrol)
    history(store, trigger)
    replay(store, trigger, "earliest", NOW)
    add(store, *updates(3, 3, first=11))

    assert run_one(store, trigger).fired == 3
    assert arrived(store, trigger) == ids(11, 12, 13)
    assert release(store, "t", NOW) == 10
    assert arrived(store, trigger) == ids(*range(1, 11))


def test_what_was_sent_or_given_up_before_a_replay_stands_so_after_a_discard(
    store: FeedStore,
) -> None:
    trigger = guarded()
    filled(store, trigger, *updates(4, 4))
    sink = Scripted(lambda id, body, n: REFUSED if body["meta"]["change_id"] == "evt_2" else OK)
    with delivering_to(store, [(trigger, sink)], clock := Clock()) as delivery:
        for _ in range(10):
            delivery.once()
            clock.at += 200_000
    assert counts(store) == {"t": {"sent": 3, "dead": 1}}
    add(store, *updates(4, 4, first=5))
    run_one(store, trigger, clock.at)

    assert replay(store, trigger, "earliest", clock.at).held is not None
    assert counts(store) == {"t": {"held": 4, "waiting": 4}}
    assert discard(store, "t", clock.at) == 4
    assert counts(store) == {"t": {"sent": 3, "dead": 1, "waiting": 4}}
    assert retry(store, clock.at) == 1


@pytest.mark.parametrize("when", ["before the run", "after the run"])
def test_what_a_discarded_replay_saw_first_is_sent_all_the_same(
    store: FeedStore, when: str
) -> None:
    """The replay reached changes that the trigger had not come to yet."""
    trigger = guarded()
    history(store, trigger)
    add(store, *updates(3, 3, first=11))
    replay(store, trigger, "earliest", NOW)
    if when == "after the run":
        assert run_one(store, trigger).fired == 3
    discard(store, "t", NOW)
    run_one(store, trigger)

    assert arrived(store, trigger) == ids(11, 12, 13)


def test_a_discard_drops_the_replay_first_and_what_a_guard_holds_afterwards(
    store: FeedStore,
) -> None:
    trigger = guarded()
    history(store, trigger)
    add(store, *updates(8, 8, first=11))
    run_one(store, trigger)
    replay(store, trigger, "earliest", NOW)
    assert counts(store) == {"t": {"held": 18}}

    assert discard(store, "t", NOW) == 10
    assert counts(store) == {"t": {"held": 8, "dropped": 10}}
    assert store.query("select held is not null from triggers") == [(1,)]
    assert discard(store, "t", NOW) == 8
    assert store.query("select held, held_for from triggers") == [(None, None)]


def test_a_guard_holds_what_happens_while_a_replay_is_held(store: FeedStore) -> None:
    trigger = guarded()
    history(store, trigger)
    replay(store, trigger, "earliest", NOW)
    add(store, *updates(8, 8, first=11))
    assert run_one(store, trigger).held is not None
    assert arrived(store, trigger) == []
    assert discard(store, "t", NOW) == 10
    assert counts(store) == {"t": {"held": 8, "dropped": 10}}
    release(store, "t", NOW)
    assert arrived(store, trigger) == ids(*range(11, 19))


@pytest.mark.parametrize("ends", ["discarded", "released"])
def test_whom_a_held_replay_enrols_is_enrolled_once_it_is_released(
    store: FeedStore, ends: str
) -> None:
    trigger = guarded(enrol="once")
    history(store, trigger)
    assert replay(store, trigger, "earliest", NOW).held is not None
    (discard if ends == "discarded" else release)(store, "t", NOW)
    add(store, *updates(3, 10, first=11))
    run_one(store, trigger)

    assert arrived(store, trigger) == (
        ids(11, 12, 13) if ends == "discarded" else ids(*range(1, 11))
    )


def test_a_rule_that_is_edited_while_a_replay_is_held_loses_nothing(store: FeedStore) -> None:
    trigger = guarded()
    history(store, trigger)
    replay(store, trigger, "earliest", NOW)
    edited = guarded(where="after.status != 's12'")
    add(store, *updates(3, 3, first=11))
    run_one(store, edited)  # held, for the rule changed
    discard(store, "t", NOW)
    release(store, "t", NOW)

    assert arrived(store, edited) == ids(11, 13)


def test_a_long_replay_is_written_piece_by_piece(
    store: FeedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_PAGE_SIZE", 7)
    trigger, pieces, put = (
        a_trigger(guard={"max": 1_000, "share": 1.0}, enrol="once"),
        list[int](),
        engine.store_messages,
    )
    add(store, *updates(50, 50))
    run_one(store, trigger)

    def putting(db: Any, trigger: Trigger, found: Any, *more: Any, **named: Any) -> int:
        before = db.total_changes
        made = put(db, trigger, found, *more, **named)
        pieces.append(len(found))
        assert (
            db.total_changes - before == 2 * len(found) + 1
        )  # messages, enrolments, and the trigger itself
        return made

    monkeypatch.setattr(engine, "store_messages", putting)
    assert replay(store, trigger, "earliest", NOW).fired == 50
    assert (max(pieces), sum(pieces)) == (7, 50)
    assert arrived(store, trigger) == ids(*range(1, 51))


@pytest.mark.parametrize("work", [release, discard])
def test_many_are_released_and_discarded_piece_by_piece(
    store: FeedStore, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stripe_feed.delivery.outbox._BATCH_SIZE", 4)
    trigger = guarded()
    filled(store, trigger, *updates(21, 21))
    assert work(store, "t", NOW) == 21
    assert counts(store) == {"t": {"waiting" if work is release else "dropped": 21}}


STEPS = (
    "happen",
    "run",
    "deliver",
    "fail",
    "replay",
    "discard",
    "release",
    "retry",
    "prune",
    "edit",
)


def lived(steps: list[str]) -> None:
    """Whatever is done, what happened after the trigger began and was not held by itself arrives in
    the end.
    """
    with kept() as store:
        trigger, clock, n, expected = a_trigger(guard={"max": 4}), Clock(), 10, set[str]()
        add(store, *updates(10, 10))
        run_one(store, trigger)
        got = set[str]()
        for step in steps:
            clock.at += 700
            match step:
                case "happen":
                    n += 1
                    add(store, a_change(n, f"sub_{n % 4}"))
                    expected.add(f"evt_{n}")
                case "run":
                    assert run_one(store, trigger, clock.at).error is None
                case "deliver" | "fail":
                    sink = Scripted() if step == "deliver" else Scripted(lambda *_: REFUSED)
                    once(store, trigger, sink, clock)
                    got |= set(sink.changes)
                case "replay":
                    replay(store, trigger, "earliest", clock.at)
                case "discard":
                    if store.query(
                        "select 1 from triggers where held is null or held_for = 'replay'"
                    ):
                        discard(store, "t", clock.at)
                case "release":
                    release(store, "t", clock.at)
                case "retry":
                    retry(store, clock.at)
                case "prune":
                    run_one(store, trigger, clock.at)
                    prune(store, 0, False, clock.at)
                case "edit":
                    trigger = a_trigger(guard={"max": 4}, where=f"after.status != 'x{n}'")
        for _ in range(2):
            run_one(store, trigger, clock.at)
            release(store, "t", clock.at)
            clock.at += 700
            sink = Scripted()
            with delivering_to(store, [(trigger, sink)], clock) as delivery:
                for _ in range(3):
                    delivery.once()
                    clock.at += 200_000
            got |= set(sink.changes)
        assert expected <= got


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=14))
def test_nothing_that_happens_is_lost(steps: list[str]) -> None:
    lived(steps)


@pytest.mark.long
@settings(max_examples=1_000, deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=30))
def test_nothing_that_happens_is_lost_in_many_lives(steps: list[str]) -> None:
    lived(steps)
