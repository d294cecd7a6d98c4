"""Messages to receivers: nothing lost, lanes in order, the schedule kept, and one that fails in
nobody's way.
"""

from __future__ import annotations

import itertools
import json
import logging
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stripe_feed import deliver as deliver_all
from stripe_feed.delivery import queues, worker
from stripe_feed.delivery.endpoint_health import DISABLE_AFTER_SECONDS
from stripe_feed.delivery.outbox import (
    attempts,
    counts,
    dead,
    record_start,
    release,
    retry,
    unfinished_counts,
)
from stripe_feed.delivery.signatures import standard_headers
from stripe_feed.delivery.transports import AttemptResult
from stripe_feed.delivery.worker import _JITTER, SCHEDULE, Worker, open_worker
from stripe_feed.errors import SetupError, UsageError
from stripe_feed.feed.feed import Feed
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.feed.storage.store_errors import Unusable
from stripe_feed.server import page
from stripe_feed.triggers.engine import replay
from stripe_feed.triggers.trigger import Trigger
from tests.deliveries import (
    NEW,
    NOW,
    OK,
    REFUSED,
    Clock,
    Scripted,
    a_trigger,
    add,
    delivering_to,
    filled,
    messages,
    once,
    run_one,
    updates,
)
from tests.feed_kills import a_change
from tests.receiver import (
    ERROR,
    LATE,
    RESET,
    TAKEN_THEN_RESET,
    THROTTLED,
    Receiver,
    at_random,
    receiving,
)

HOUR = 3_600
CANARY = "canary@example.com"
WAIT = 30.0  # seconds until a test that hangs fails


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedStore]:
    with FeedStore(tmp_path / "copy.feed.sqlite") as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """A try takes no time."""
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: 0.0))


def refusing(*change_ids: str) -> Scripted:
    return Scripted(lambda id, body, n: REFUSED if body["meta"]["change_id"] in change_ids else OK)


def states(store: FeedStore) -> dict[str, str]:
    return {one.change_id: one.state for one in messages(store)}


def next_due(store: FeedStore, after: float = 0.0) -> float:
    return min(
        (one.due_at for one in messages(store, "waiting") if one.due_at > after), default=after
    )


def to_the_end(store: FeedStore, delivery: Worker, clock: Clock) -> int:
    """Deliver, and move the clock to whatever is due next, until nothing waits; how many rounds it
    took.
    """
    for n in range(1, 1_000):
        delivery.once()
        if not messages(store, "waiting"):
            return n
        clock.at = max(clock.at + 1, next_due(store, clock.at))
    raise AssertionError("it does not end")


# Lanes


def test_what_is_due_is_sent_in_the_order_of_each_lane(store: FeedStore, clock: Clock) -> None:
    trigger, sink = a_trigger(), Scripted()
    filled(store, trigger, *updates(60, 7))

    done = once(store, trigger, sink, clock)

    assert (done.sent, done.failed, done.dead, done.dropped, done.disabled) == (60, 0, 0, 0, {})
    assert counts(store) == {"t": {"sent": 60}}
    lanes = defaultdict(list)
    for change_id in sink.changes:
        lanes[int(change_id[4:]) % 7].append(int(change_id[4:]))
    assert all(found == sorted(found) for found in lanes.values())
    assert once(store, trigger, sink, clock).sent == 0


@pytest.mark.parametrize(("lanes", "at_once"), [(1, 1), (20, 8), (20, 3)])
def test_one_message_of_a_lane_and_few_of_a_trigger_are_under_way(
    store: FeedStore, clock: Clock, lanes: int, at_once: int
) -> None:
    trigger = a_trigger()
    filled(store, trigger, *updates(60, lanes))
    under_way, most, turn = Counter[str](), [0], threading.Lock()
    together = threading.Barrier(at_once)

    def answer(id: str, body: Any, n: int) -> AttemptResult:
        lane = body["meta"]["object_id"]
        with turn:
            under_way[lane] += 1
            most[0] = max(most[0], sum(under_way.values()))
            assert under_way[lane] == 1
        if len(sink.seen) <= at_once:
            together.wait(WAIT)  # so many are under way at once
        with turn:
            under_way[lane] -= 1
        return OK

    sink = Scripted(answer)

    assert once(store, trigger, sink, clock, at_once=at_once).sent == 60
    assert most[0] == at_once


def test_more_lanes_than_are_looked_up_at_once(
    store: FeedStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_BATCH_SIZE", 5)
    trigger, sink = a_trigger(), refusing("evt_3", "evt_11")
    filled(store, trigger, *updates(90, 43))

    done = once(store, trigger, sink, clock, at_once=3)

    assert (done.sent, done.failed) == (85, 2)  # and what is behind those two in their lanes waits
    assert max(Counter(sink.changes).values()) == 1
    assert states(store)["evt_46"] == states(store)["evt_54"] == "waiting"


def test_what_fails_holds_its_lane_only_and_waits_for_another_call(
    store: FeedStore, clock: Clock
) -> None:
    """Even where so much time passes that it would be due again."""
    trigger = a_trigger()
    filled(store, trigger, *updates(20, 5))

    def answer(id: str, body: Any, n: int) -> AttemptResult:
        clock.at += 1_000
        return REFUSED if body["meta"]["object_id"] == "sub_2" else OK

    sink = Scripted(answer)

    done = once(store, trigger, sink, clock)

    assert (done.sent, done.failed) == (16, 1)
    assert max(sink.tries.values()) == 1
    assert [one.tries for one in messages(store, "waiting")] == [1, 0, 0, 0]
    sink.answer = lambda id, body, n: OK
    assert once(store, trigger, sink, clock).sent == 4
    assert [one for one in sink.changes if int(one[4:]) % 5 == 2] == [
        "evt_2",
        "evt_7",
        "evt_12",
        "evt_17",
    ]


def test_lanes_may_be_customers(store: FeedStore, clock: Clock) -> None:
    trigger, sink = a_trigger(per="customer_id"), refusing("evt_1")
    filled(
        store, trigger, *(a_change(n, f"sub_{n}", customer_id=f"cus_{n % 2}") for n in range(1, 7))
    )

    once(store, trigger, sink, clock)

    assert sink.changes == ["evt_2", "evt_4", "evt_6"]


def test_a_try_says_what_goes_wrong_and_nothing_of_the_data(
    store: FeedStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    trigger = a_trigger()
    filled(store, trigger, *(a_change(n, f"sub_{n}", after={"email": CANARY}) for n in (1, 2, 3)))
    caplog.set_level(logging.DEBUG)

    def answer(id: str, body: Any, n: int) -> AttemptResult:
        if body["meta"]["change_id"] == "evt_1":
            raise KeyError(CANARY)
        if body["meta"]["change_id"] == "evt_2":
            raise SetupError("Mend this.")
        return AttemptResult(False, "tls", note="expired")

    once(store, trigger, Scripted(answer), clock)

    found = [attempts(store, one.message_id) for one in messages(store)]
    assert [(one.code, one.note, one.at) for (one,) in found] == [
        ("error KeyError", "", NOW),
        ("setup", "Mend this.", NOW),
        ("tls", "expired", NOW),
    ]
    assert CANARY not in caplog.text + str(store.query("select * from attempts")) + str(
        store.query("select * from messages")
    )


def test_deliver_fires_and_sends(store: FeedStore, clock: Clock) -> None:
    got: list[tuple[str, str]] = []
    trigger = a_trigger(
        deliver={"python": lambda body, id: got.append((body["data"]["status"], id))}
    )
    feed = Feed(None, store)
    assert deliver_all(feed, [trigger], now=clock)[0][0].is_new
    add(store, *updates(2))

    fired, done = deliver_all(feed, [trigger], now=clock)

    assert ([(one.trigger, one.fired) for one in fired], done.sent) == ([("t", 2)], 2)
    assert sorted(got) == sorted(
        (f"s{one.change_id[4:]}", one.message_id) for one in messages(store)
    )


# The flaky receiver


def to_receiver(receiver: Receiver, **words: Any) -> Trigger:
    return a_trigger(deliver={"url": receiver.url, "allow_private": True, "timeout": 0.3, **words})


FLAKY = {ERROR: 0.05, RESET: 0.015, TAKEN_THEN_RESET: 0.005, LATE: 0.01, THROTTLED: 0.01}
SECRET = "whsec_" + "QUFB" * 8


def check_received(receiver: Receiver, expected: dict[str, str]) -> None:
    """Nothing is lost or made up, the first deliveries of each lane are in order, and what comes
    twice is the same.
    """
    assert {one.message_id for one in receiver.accepted} == set(expected)
    bodies, lanes = defaultdict(set), defaultdict(list)
    for one in receiver.accepted:
        meta = json.loads(one.body)["meta"]
        assert expected[one.message_id] == meta["change_id"]
        if one.message_id not in bodies:
            lanes[meta["object_id"]].append(meta["offset"])
        bodies[one.message_id].add(one.body)
    assert all(found == sorted(found) for found in lanes.values())
    assert all(len(found) == 1 for found in bodies.values())


def flaky(store: FeedStore, clock: Clock, count: int, lanes: int, seed: int) -> None:
    with receiving(choose=at_random(FLAKY, seed)) as receiver:
        trigger = to_receiver(receiver, secrets=["env:HOOK_SECRET"])
        run_one(store, trigger)
        for first in range(1, count, 500):
            add(store, *updates(min(500, count - first + 1), lanes, first))
            run_one(store, trigger)
        with open_worker(store, [trigger], now=clock, rng=random.Random(seed)) as delivery:
            rounds = to_the_end(store, delivery, clock)

        assert rounds > 2
        assert counts(store) == {"t": {"sent": count}}
        check_received(receiver, {one.message_id: one.change_id for one in messages(store)})
        assert len(receiver.received) > count * 1.04
        for one in receiver.received[:: count // 10]:
            at = int(one.headers["webhook-timestamp"])
            assert NOW <= at <= clock.at
            assert (
                standard_headers(one.message_id, at, one.body, [SECRET]).items()
                <= one.headers.items()
            )


def test_d1_a_flaky_receiver_loses_nothing_and_keeps_lanes_in_order(
    store: FeedStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    flaky(store, clock, 400, 40, 1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_d1_ten_thousand_messages(
    store: FeedStore, clock: Clock, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    flaky(store, clock, 10_000, 500, seed)


# D2: the schedule


@pytest.mark.usefixtures("still")
def test_d2_ten_attempts_on_the_schedule_with_jitter(store: FeedStore, clock: Clock) -> None:
    trigger, lanes = a_trigger(), 200
    filled(store, trigger, *updates(lanes, lanes))
    drawn: list[list[float]] = [[] for _ in SCHEDULE]
    with delivering_to(
        store, [(trigger, Scripted(lambda *_: REFUSED))], clock, rng=random.Random(7)
    ) as delivery:
        for n, pause in enumerate(SCHEDULE):
            done = delivery.once()
            assert done.failed == lanes * (n + 1)
            drawn[n] = [(one.due_at - clock.at) / pause for one in messages(store, "waiting")]
            clock.at = max(one.due_at for one in messages(store, "waiting"))
        assert delivery.once().dead == lanes

    for shares in drawn:
        assert 1 - _JITTER <= min(shares) < 0.85
        assert 1.15 < max(shares) <= 1 + _JITTER
    assert (len(SCHEDULE) + 1, round(sum(SCHEDULE) / HOUR, 1)) == (10, 75.6)
    assert {len(attempts(store, one.message_id)) for one in dead(store)} == {10}
    assert {(one.state, one.tries, one.ended_at) for one in messages(store)} == {
        ("dead", 10, clock.at)
    }


@pytest.mark.usefixtures("still")
def test_d2_a_message_is_not_tried_before_it_is_due(store: FeedStore, clock: Clock) -> None:
    trigger, sink = a_trigger(), Scripted(lambda *_: REFUSED)
    filled(store, trigger, a_change(1))
    once(store, trigger, sink, clock)
    due = next_due(store)

    clock.at = due - 0.001
    once(store, trigger, sink, clock)
    assert len(sink.seen) == 1
    clock.at = due
    once(store, trigger, sink, clock)
    assert len(sink.seen) == 2


@pytest.mark.parametrize(
    ("asked", "expected"), [(10_000.0, 10_000.0), (5.9, 6.0), (1.0, 6.0), (0.0, 6.0), (None, 6.0)],
)  # fmt: skip
@pytest.mark.usefixtures("still")
def test_d2_retry_after_is_honoured_where_it_is_later(
    store: FeedStore, clock: Clock, asked: float | None, expected: float
) -> None:
    trigger = a_trigger()
    filled(store, trigger, a_change(1))
    dice = SimpleNamespace(uniform=lambda low, high: high)

    once(
        store,
        trigger,
        Scripted(lambda *_: AttemptResult(False, "503", asked, throttled=True)),
        clock,
        rng=dice,
    )

    assert next_due(store) == NOW + expected


def test_d2_who_has_too_much_to_do_gets_nothing_for_that_long(
    store: FeedStore, clock: Clock
) -> None:
    trigger = a_trigger()
    filled(store, trigger, *updates(10, 10))
    sink = Scripted(
        lambda id, body, n: (
            AttemptResult(False, "429", 60.0, throttled=True) if len(sink.seen) == 3 else OK
        )
    )
    with delivering_to(store, [(trigger, sink)], clock, at_once=1) as delivery:
        delivery.once()
        assert len(sink.seen) == 3
        clock.at += 59
        delivery.once()
        assert len(sink.seen) == 3
        clock.at += 2
        assert delivery.once().sent == 10
    assert sink.changes[-1] == "evt_10"


def test_d2_a_wait_that_only_one_message_is_asked_for_holds_no_other(
    store: FeedStore, clock: Clock
) -> None:
    trigger = a_trigger()
    filled(store, trigger, *updates(4, 4))
    sink = Scripted(
        lambda id, body, n: (
            AttemptResult(False, "500", 600.0) if body["meta"]["change_id"] == "evt_1" else OK
        )
    )

    assert once(store, trigger, sink, clock, at_once=1).sent == 3
    assert next_due(store) >= NOW + 600


def test_d2_a_receiver_that_is_gone_is_disabled_at_once(
    store: FeedStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    trigger, other = a_trigger(), a_trigger("other")
    for one in (trigger, other):
        run_one(store, one)
    add(store, *updates(5, 5))
    for one in (trigger, other):
        run_one(store, one)
    gone, fine = Scripted(lambda *_: AttemptResult(False, "410", gone=True)), Scripted()
    with delivering_to(store, [(trigger, gone), (other, fine)], clock, at_once=1) as delivery:
        done = delivery.once()

    assert (len(gone.seen), done.sent, done.disabled) == (1, 5, {"t": "it answers 410 Gone"})
    assert "The endpoint of trigger t is disabled" in caplog.text
    clock.at += 500 * HOUR
    again = once(store, trigger, gone, clock)  # it is said each time, and nothing is sent
    assert (len(gone.seen), again.disabled) == (1, {"t": "it answers 410 Gone"})
    add(store, *updates(1, 5, first=6))
    run_one(store, trigger)

    release(store, "t", clock.at)
    back = Scripted()
    assert once(store, trigger, back, clock).sent == 6
    assert sorted(back.changes) == [f"evt_{n}" for n in range(1, 7)]
    assert store.query("select disabled, failing_since from triggers where name = 't'") == [
        (None, None)
    ]


def test_d2_a_release_makes_what_failed_due(store: FeedStore, clock: Clock) -> None:
    """The receiver was mended by a person: what waits for hours goes out now."""
    trigger = a_trigger()
    filled(store, trigger, *updates(3, 3))
    once(
        store, trigger, Scripted(lambda *_: AttemptResult(False, "410", 5_000.0, gone=True)), clock
    )
    assert max(one.due_at for one in messages(store)) >= NOW + 5_000

    release(store, "t", clock.at)

    assert once(store, trigger, Scripted(), clock).sent == 3


def hourly(store: FeedStore, clock: Clock, ok: Callable[[int], bool], hours: int) -> list[int]:
    """A change every ten hours, and a try for each; the hours at which the receiver was disabled."""
    trigger, found = a_trigger(), []
    run_one(store, trigger)
    for n in range(0, hours + 1, 10):
        clock.at = NOW + n * HOUR
        add(store, a_change(n + 1, f"sub_{n}"))
        run_one(store, trigger)
        if once(
            store,
            trigger,
            Scripted(
                lambda id, body, _: OK if ok(int(body["meta"]["change_id"][4:]) - 1) else REFUSED
            ),
            clock,
            at_once=1,
        ).disabled:
            found.append(n)
    return found


@pytest.mark.usefixtures("still")
def test_d2_only_failures_for_120_hours_disable(store: FeedStore, clock: Clock) -> None:
    assert DISABLE_AFTER_SECONDS == 120 * HOUR
    assert hourly(store, clock, lambda n: False, 130) == [120, 130]
    assert store.query("select disabled from triggers") == [("it has only failed for 120 hours",)]


@pytest.mark.usefixtures("still")
def test_d2_one_success_begins_the_120_hours_anew(store: FeedStore, clock: Clock) -> None:
    assert hourly(store, clock, lambda n: n == 110, 230) == []


@pytest.mark.usefixtures("still")
def test_d2_failures_now_and_then_disable_nothing(store: FeedStore, clock: Clock) -> None:
    assert hourly(store, clock, lambda n: n % 30 == 0, 500) == []


@pytest.mark.usefixtures("still")
def test_d2_one_lane_that_only_fails_disables_nothing(store: FeedStore, clock: Clock) -> None:
    """Where little happens, it may be the object's fault and not the receiver's."""
    trigger, sink = a_trigger(), Scripted(lambda *_: REFUSED)
    filled(store, trigger, *updates(3))
    with delivering_to(store, [(trigger, sink)], clock) as delivery:
        to_the_end(store, delivery, clock)
        assert (len(dead(store)), delivery.done.disabled) == (3, {})
        add(store, a_change(4, "sub_4"))
        run_one(store, trigger)
        assert delivery.once().disabled == {}
        add(store, a_change(5))
        run_one(store, trigger)
        assert delivery.once().disabled == {"t": "it has only failed for 120 hours"}


# D3: poison


def test_d3_poison_holds_its_own_lane_until_it_is_given_up(
    store: FeedStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    trigger, sink = a_trigger(), refusing("evt_100", "evt_200")
    filled(store, trigger, *updates(500, 100))
    with delivering_to(store, [(trigger, sink)], clock) as delivery:
        assert (delivery.once().sent, delivery.done.failed) == (495, 1)
        assert to_the_end(store, delivery, clock) == 1 + 9 + 9

    skipped = {
        said["meta"]["change_id"]: said["meta"].get("skipped")
        for _, said in sink.taken
        if said["meta"]["object_id"] == "sub_0"
    }
    assert skipped == {"evt_300": ["evt_100", "evt_200"], "evt_400": None, "evt_500": None}
    assert [(one.change_id, one.tries) for one in dead(store)] == [("evt_100", 10), ("evt_200", 10)]
    assert caplog.text.count("is given up after 10 attempts (500)") == 2


def test_d3_a_lane_may_be_blocked_by_what_was_given_up(store: FeedStore, clock: Clock) -> None:
    trigger, sink = a_trigger(deliver={"on_exhausted": "block"}), refusing("evt_2")
    filled(store, trigger, *updates(8, 2))
    with delivering_to(store, [(trigger, sink)], clock) as delivery:
        for _ in range(12):
            delivery.once()
            clock.at = next_due(store, clock.at)
    assert states(store) == {
        f"evt_{n}": "sent" if n % 2 else "dead" if n == 2 else "waiting" for n in range(1, 9)
    }

    sink.answer = lambda id, body, n: OK
    assert once(store, trigger, sink, clock).sent == 0
    assert retry(store, clock.at) == 1
    assert once(store, trigger, sink, clock).sent == 4
    assert sink.changes[-4:] == ["evt_2", "evt_4", "evt_6", "evt_8"]


def test_dead_letters_are_sent_again_with_the_same_ids(store: FeedStore, clock: Clock) -> None:
    one, two = a_trigger("one"), a_trigger("two")
    refused = Scripted(lambda *_: REFUSED)
    for trigger, first in ((one, 1), (two, 4)):
        filled(store, trigger, *updates(3, 6, first))
    run_one(store, one)
    with delivering_to(store, [(one, refused), (two, refused)], clock) as delivery:
        to_the_end(store, delivery, clock)
    ids = {
        trigger: [message.message_id for message in dead(store, trigger)]
        for trigger in ("one", "two")
    }
    assert (len(ids["one"]), len(ids["two"]), len(dead(store))) == (6, 3, 9)

    with pytest.raises(
        UsageError,
        match=r"'msg_no' is not a dead message\. `stripe-feed feed dead list` lists them\.",
    ):
        retry(store, clock.at, [ids["one"][0], "msg_no"])
    with pytest.raises(UsageError, match="is not a dead message"):
        retry(store, clock.at, ids["one"], "two")
    assert len(dead(store)) == 9
    assert retry(store, clock.at, [ids["one"][1]] * 2) == 1
    assert retry(store, clock.at, trigger="two") == 3
    again = {trigger.name: Scripted() for trigger in (one, two)}
    for trigger in (one, two):
        once(store, trigger, again[trigger.name], clock)

    assert [id for id, _ in again["one"].taken] == [ids["one"][1]]
    assert sorted(id for id, _ in again["two"].taken) == sorted(ids["two"])
    assert retry(store, clock.at) == 5
    assert [
        (message.state, message.tries, message.ended_at) for message in messages(store, "waiting")
    ] == [("waiting", 0, None)] * 5


# Each trigger for itself


def test_a_receiver_that_hangs_holds_no_other_trigger(
    store: FeedStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even one with more lanes than are looked up at once, or with messages that are dropped in
    between.
    """
    monkeypatch.setattr(worker, "_BATCH_SIZE", 5)
    stuck, other = a_trigger("stuck"), a_trigger("other", deliver={"format": "stripe"})
    for trigger in (stuck, other):
        run_one(store, trigger)
    add(
        store,
        *updates(60, 20),
        *(a_change(n, f"sub_{n % 20}", origin="diff") for n in range(61, 81)),
        *updates(20, 20, first=81),
    )
    for trigger in (stuck, other):
        run_one(store, trigger)
    all_there, waited = threading.Event(), list[bool]()

    def hang(id: str, body: Any, n: int) -> AttemptResult:
        waited.append(all_there.wait(WAIT))
        all_there.set()
        return OK

    def count(id: str, body: Any, n: int) -> AttemptResult:
        if len(fine.seen) == 80:
            all_there.set()
        return OK

    slow, fine = Scripted(hang), Scripted(count)
    with delivering_to(store, [(stuck, slow), (other, fine)], clock) as delivery:
        done = delivery.once()

    assert (done.sent, done.dropped) == (180, 20)
    assert set(waited) == {True}


def test_a_pause_that_ends_while_another_trigger_hangs_is_over(
    store: FeedStore, clock: Clock
) -> None:
    stuck, other = a_trigger("stuck"), a_trigger("other")
    for trigger in (stuck, other):
        run_one(store, trigger)
    add(store, *updates(20, 20))
    for trigger in (stuck, other):
        run_one(store, trigger)
    all_there = threading.Event()

    def hang(id: str, body: Any, n: int) -> AttemptResult:
        for _ in range(int(WAIT * 100)):
            if all_there.wait(0.01):
                return OK
            clock.at += 10
        all_there.set()
        return REFUSED

    def throttle(id: str, body: Any, n: int) -> AttemptResult:
        if len(fine.seen) == 20:
            all_there.set()
        return AttemptResult(False, "429", 60.0, throttled=True) if len(fine.seen) == 3 else OK

    slow, fine = Scripted(hang), Scripted(throttle)
    with delivering_to(store, [(stuck, slow), (other, fine)], clock, at_once=1) as delivery:
        done = delivery.once()

    assert (done.sent, done.failed) == (39, 1)


def test_a_held_trigger_sends_nothing_and_others_do(store: FeedStore, clock: Clock) -> None:
    held, other = a_trigger("held", guard={"max": 1}), a_trigger("other")
    for trigger in (held, other):
        run_one(store, trigger)
    add(store, *updates(4, 2))
    for trigger in (held, other):
        run_one(store, trigger)
    slow, fine = Scripted(), Scripted()
    pairs = [(held, slow), (other, fine)]
    with delivering_to(store, pairs, clock) as delivery:
        assert delivery.once().sent == 4
        add(store, *updates(2, 2, first=5))
        run_one(store, held)
        assert delivery.once().sent == 4
        release(store, "held", clock.at)
        assert delivery.once().sent == 10
    for lane in (0, 1):
        assert [one for one in slow.changes if int(one[4:]) % 2 == lane] == [
            f"evt_{n}" for n in range(1, 7) if n % 2 == lane
        ]


# D6: stopping


def test_d6_what_is_under_way_is_finished_and_nothing_more_is_begun(
    store: FeedStore, clock: Clock
) -> None:
    trigger, stop = a_trigger(), threading.Event()
    filled(store, trigger, *updates(60, 30))
    together = threading.Barrier(4)

    def answer(id: str, body: Any, n: int) -> AttemptResult:
        together.wait(WAIT)
        stop.set()
        return REFUSED if body["meta"]["change_id"] == "evt_2" else OK

    sink = Scripted(answer)
    with delivering_to(store, [(trigger, sink)], clock, at_once=4) as delivery:
        done = delivery.once(stop)

    assert (len(sink.seen), done.sent, done.failed) == (4, 3, 1)
    assert states(store) == {
        f"evt_{n}": "sent" if n in (1, 3, 4) else "waiting" for n in range(1, 61)
    }
    assert len(store.query("select 1 from attempts")) == 4
    once(store, trigger, sink2 := Scripted(), Clock(clock.at + 100))
    assert not {id for id, _ in sink2.taken} & {id for id, _ in sink.taken}  # nothing comes twice


def test_d6_a_stop_from_the_start_sends_nothing(store: FeedStore, clock: Clock) -> None:
    trigger, sink, stop = a_trigger(), Scripted(), threading.Event()
    filled(store, trigger, *updates(3))
    stop.set()
    with delivering_to(store, [(trigger, sink)], clock) as delivery:
        assert delivery.once(stop).sent == 0
        assert delivery.follow(stop, lambda: None).sent == 0
    assert sink.seen == []


def test_following_sends_what_comes_until_it_is_stopped(
    store: FeedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "TICK_SECONDS", 0.001)
    trigger, stop, ticks = a_trigger(), threading.Event(), itertools.count(1)
    run_one(store, trigger)
    clock = Clock()

    def tick() -> None:
        if (n := next(ticks)) <= 5:
            add(store, *updates(4, 4, first=4 * n))
            run_one(store, trigger, clock.at)
        clock.at += 10
        if len(sink.taken) == 20:
            stop.set()

    sink = Scripted(
        lambda id, body, n: REFUSED if body["meta"]["change_id"] == "evt_9" and n < 3 else OK
    )
    with delivering_to(store, [(trigger, sink)], clock) as delivery:
        done = delivery.follow(stop, tick)

    assert (done.sent, done.failed) == (20, 2)
    assert [one for one in sink.changes if int(one[4:]) % 4 == 1] == [
        "evt_5",
        "evt_9",
        "evt_13",
        "evt_17",
        "evt_21",
    ]


def test_what_was_sent_is_noted_whatever_goes_wrong_beside_it(
    store: FeedStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "TICK_SECONDS", 0.0)
    trigger, sent = a_trigger(), threading.Semaphore(0)
    filled(store, trigger, *updates(4, 4))

    def answer(id: str, body: Any, n: int) -> AttemptResult:
        assert sent.acquire(timeout=WAIT)
        return OK

    def tick() -> None:
        for _ in range(4):
            sent.release()
        raise SetupError("Something else.")

    with (
        delivering_to(store, [(trigger, Scripted(answer))], clock) as delivery,
        pytest.raises(SetupError, match="Something else"),
    ):
        delivery.follow(threading.Event(), tick)
    assert counts(store) == {"t": {"sent": 4}}


def test_one_process_delivers_from_a_store(store: FeedStore) -> None:
    with open_worker(store, []):
        with pytest.raises(SetupError) as fault, open_worker(store, []):
            pass
        assert str(fault.value).startswith("`stripe-feed deliver` (process ")
        assert str(fault.value).endswith(
            ") delivers from this store already. Leave it to that one, or end it first."
        )
    with open_worker(store, []):
        pass


def test_a_secret_that_is_not_set_is_said_before_anything_is_sent(
    store: FeedStore, clock: Clock
) -> None:
    sent: list[str] = []
    fine = a_trigger("fine", deliver={"python": lambda body, id: sent.append(id)})
    wrong = a_trigger("wrong", deliver={"url": "https://example.com/", "secrets": ["env:NOT_SET"]})
    filled(store, fine, *updates(2))

    with pytest.raises(SetupError, match="env:NOT_SET is not set"):
        deliver_all(Feed(None, store), [fine, wrong], now=clock)
    assert sent == []
    assert store.query("select name from triggers") == [("fine",)]


# What is gone


def test_what_was_forgotten_is_dropped_and_its_lane_goes_on(store: FeedStore, clock: Clock) -> None:
    trigger, net = a_trigger(), a_trigger("net", net=True)
    filled(store, net, a_change(1, customer_id="cus_1"), a_change(2, customer_id="cus_1"))
    run_one(store, trigger)
    add(
        store,
        a_change(3, customer_id="cus_1"),
        a_change(4, "sub_1", customer_id="cus_2"),
        a_change(5, "sub_2", "d", customer_id="cus_1"),
    )
    run_one(store, trigger)
    with store.transaction() as db:
        db.execute("update log set body = null where customer_id = 'cus_1'")
    sink = Scripted()
    with delivering_to(store, [(trigger, sink), (net, sink)], clock) as delivery:
        done = delivery.once()

    assert (sink.changes, done.dropped, done.sent) == (["evt_4"], 3, 1)
    dropped = messages(store, "dropped")
    assert [
        [(one.code, one.note) for one in attempts(store, each.message_id)] for each in dropped
    ] == [[("gone", "The object was forgotten.")]] * 3
    assert (dropped[0].tries, dropped[0].ended_at) == (0, NOW)


def test_a_deletion_of_which_only_the_id_is_known_is_delivered(
    store: FeedStore, clock: Clock
) -> None:
    trigger, sink = a_trigger(resource="customers", op="removed"), Scripted()
    filled(
        store,
        trigger,
        a_change(1, "cus_1", "d", resource="customers", previous=None, before_quality="none"),
    )

    assert once(store, trigger, sink, clock).sent == 1
    assert sink.taken[0][1]["data"] == {"id": "cus_1", "object": "customer", "deleted": True}


def test_what_is_no_more_in_the_feed_is_dropped(store: FeedStore, clock: Clock) -> None:
    trigger, sink = a_trigger(), Scripted()
    filled(store, trigger, *updates(3))
    store.query("delete from log where change_id = 'evt_2'")

    assert once(store, trigger, sink, clock).dropped == 1
    assert sink.changes == ["evt_1", "evt_3"]
    (gone,) = messages(store, "dropped")
    assert attempts(store, gone.message_id)[0].note == "its change is no longer in the feed"


def test_what_was_no_event_has_no_body_in_stripes_format(store: FeedStore, clock: Clock) -> None:
    trigger, sink = a_trigger(deliver={"format": "stripe"}), Scripted()
    filled(store, trigger, a_change(1, origin="diff"), a_change(2))

    assert (once(store, trigger, sink, clock).dropped, [said["id"] for _, said in sink.taken]) == (
        1,
        ["evt_2"],
    )


@pytest.mark.parametrize("state", ["waiting", "held", "dead"])
def test_pruning_keeps_what_undelivered_messages_are_made_of(
    store: FeedStore, clock: Clock, state: str
) -> None:
    net, trigger = a_trigger("net", net=True), a_trigger(where="after.status == 's2'")
    for one in (net, trigger):
        run_one(store, one)
    add(store, *updates(6, 2))
    for one in (net, trigger):
        run_one(store, one)
    with store.transaction() as db:
        db.execute("update messages set state = ?", (state,))
    feed = Feed(None, store, now=lambda: NOW)

    assert feed.prune(0) == 2
    assert [one.change_id for one in feed.read()] == ["evt_1", "evt_2", "evt_5", "evt_6"]
    with store.transaction() as db:
        db.execute("update messages set state = 'waiting'")
    sink = Scripted()
    with delivering_to(store, [(net, sink), (trigger, sink)], clock) as delivery:
        assert (delivery.once().sent, delivery.done.dropped) == (3, 0)
    assert sorted(sink.changes) == ["evt_2", "evt_5", "evt_6"]
    assert {
        said["meta"]["before"]["status"]
        for _, said in sink.taken
        if said["meta"]["trigger"] == "net"
    } == {"s0", "s1"}
    assert feed.prune(0) == 4


def test_a_replay_is_delivered_with_the_ids_of_then(store: FeedStore, clock: Clock) -> None:
    trigger, sink = a_trigger(), Scripted()
    filled(store, trigger, *updates(4, 2))
    once(store, trigger, sink, clock)
    first = [id for id, _ in sink.taken]

    replay(store, trigger, "earliest", clock.at)
    once(store, trigger, sink, clock)

    assert sorted(id for id, _ in sink.taken[4:]) == sorted(first)
    assert {one.state for one in messages(store)} == {"sent"}
    assert {len(attempts(store, id)) for id in first} == {2}


def test_a_creation_an_update_and_a_deletion_are_delivered_in_order(
    store: FeedStore, clock: Clock
) -> None:
    trigger, sink = a_trigger(), Scripted()
    filled(store, trigger, a_change(1, **NEW), a_change(2), a_change(3, op="d"))

    once(store, trigger, sink, clock)

    assert [(said["meta"]["op"], said["meta"]["before"] is None) for _, said in sink.taken] == [
        ("c", True),
        ("u", False),
        ("d", False),
    ]


# What lasts from one run to the next, and what a clock or a disk does in between


def throttling(seconds: float) -> Scripted:
    return Scripted(lambda *_: AttemptResult(False, "429", seconds, throttled=True))


def test_quiet_that_a_receiver_asks_for_holds_for_later_runs(
    store: FeedStore, clock: Clock
) -> None:
    trigger, asked, later = a_trigger(), throttling(3_600.0), Scripted()
    filled(store, trigger, *updates(20, 20))

    once(store, trigger, asked, clock, at_once=4)
    assert len(asked.seen) == 4
    for _ in range(3):
        clock.at += 1_000
        once(store, trigger, later, clock)
    assert later.seen == []
    add(store, a_change(21, "sub_21"))
    run_one(store, trigger, clock.at)
    clock.at += 700
    assert once(store, trigger, later, clock).sent == 21


def test_a_release_ends_the_quiet(store: FeedStore, clock: Clock) -> None:
    trigger, later = a_trigger(), Scripted()
    filled(store, trigger, *updates(3, 3))
    once(store, trigger, throttling(3_600.0), clock)

    release(store, "t", clock.at)

    assert once(store, trigger, later, clock).sent == 3


@pytest.mark.parametrize("ahead", [12 * HOUR, 30 * 24 * HOUR], ids=["hours", "a month"])
@pytest.mark.parametrize(
    "outcome",
    [REFUSED, AttemptResult(False, "503", 86_400.0, throttled=True)],
    ids=["refused", "throttled"],
)
def test_a_clock_that_was_ahead_leaves_no_message_waiting(
    store: FeedStore, clock: Clock, ahead: int, outcome: AttemptResult
) -> None:
    """Neither those that were tried then, nor those that were made then."""
    trigger, sink = a_trigger(), Scripted()
    run_one(store, trigger)
    clock.at += ahead
    add(store, *updates(6, 3))
    run_one(store, trigger, clock.at)
    once(store, trigger, Scripted(lambda *_: outcome), clock, at_once=2)

    clock.at -= ahead
    assert once(store, trigger, sink, clock).sent == 6
    assert sorted(sink.changes) == [f"evt_{n}" for n in range(1, 7)]


def test_a_small_step_of_the_clock_changes_no_pause(store: FeedStore, clock: Clock) -> None:
    trigger, sink = a_trigger(), Scripted(lambda *_: REFUSED)
    filled(store, trigger, a_change(1))
    once(store, trigger, sink, clock)
    clock.at -= 2
    once(store, trigger, sink, clock)
    assert len(sink.seen) == 1


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize(
    ("hours", "disabled"),
    [
        ((0, 168), False),
        ((0, 1, 168, 169), False),
        ((0, 30, 60, 90, 121), True),
        ((0, 30, 67, 104, 141), False),
    ],
)
def test_d2_failures_must_be_spread_over_the_120_hours(
    store: FeedStore, clock: Clock, hours: tuple[int, ...], disabled: bool
) -> None:
    trigger = a_trigger()
    filled(store, trigger, *updates(3, 3))
    for n, hour in enumerate(hours):
        clock.at = NOW + hour * HOUR
        add(store, *updates(2, 2, first=10 * n + 10))
        run_one(store, trigger, clock.at)
        done = once(store, trigger, Scripted(lambda *_: REFUSED), clock)
    assert bool(done.disabled) is disabled


def test_what_cannot_be_noted_is_not_sent(store: FeedStore, clock: Clock) -> None:
    trigger, sink = a_trigger(), Scripted()
    filled(store, trigger, *updates(20, 20))
    store.query("pragma query_only = on")
    for _ in range(3):
        with pytest.raises(Unusable, match="cannot be written"):
            once(store, trigger, sink, clock)
    assert sink.seen == []

    store.query("pragma query_only = off")
    assert once(store, trigger, sink, clock).sent == 20


def test_what_was_sent_and_could_not_be_noted_is_not_sent_again_but_noted(
    store: FeedStore, clock: Clock
) -> None:
    """As long as this process lasts."""
    trigger = a_trigger()
    filled(store, trigger, *updates(6, 3))

    together = threading.Barrier(3)

    def answer(id: str, body: Any, n: int) -> AttemptResult:
        if len(sink.seen) <= 3:
            together.wait(WAIT)
            store.query("pragma query_only = on")
        return OK

    sink = Scripted(answer)
    with delivering_to(store, [(trigger, sink)], clock, at_once=3) as delivery:
        for _ in range(3):
            with pytest.raises(Unusable):
                delivery.once()
        assert (len(sink.seen), delivery.done.sent) == (3, 0)
        store.query("pragma query_only = off")
        assert delivery.once().sent == 6
    assert set(sink.tries.values()) == {1}
    assert len(store.query("select 1 from attempts")) == 6


@pytest.mark.parametrize(
    "outcome",
    [OK, REFUSED, AttemptResult(False, "later"), None],
    ids=["sent", "refused", "later", "nothing noted"],
)
def test_what_may_have_been_sent_is_sent_again_only_where_that_can_be_noted(
    store: FeedStore, clock: Clock, outcome: AttemptResult | None
) -> None:
    """On a disk that is nearly full each run would note that it begins, and could not note what
    came of it.
    """
    trigger = a_trigger()
    filled(store, trigger, *updates(1))
    if outcome is None:
        with store.transaction() as db:
            assert record_start(db, messages(store)[0], clock.at)  # the process ends here
    else:
        once(store, trigger, Scripted(lambda *_: outcome), clock)
    clock.at += 1_000
    add(store, *updates(2, first=2))
    run_one(store, trigger, clock.at)
    ((pages,),) = store.query("pragma page_count")
    store.query(f"pragma max_page_count = {pages + 10}")
    for _ in range(2):
        sink = Scripted()
        if outcome is None:
            with pytest.raises(Unusable, match="the disk is full"):
                once(store, trigger, sink, clock)
            assert sink.seen == []
        else:
            once(store, trigger, sink, clock)
    store.query(f"pragma max_page_count = {pages + 1_000}")
    once(store, trigger, Scripted(), clock)
    assert counts(store) == {"t": {"sent": 3}}


def test_lanes_that_hang_take_no_places_of_others(
    store: FeedStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hang until all others have arrived."""
    monkeypatch.setattr(queues, "FIRST_GUESS", 0.0)
    trigger = a_trigger(deliver={"url": "https://example.com/hook"})
    filled(store, trigger, *updates(24, 12))
    all_there, waited = threading.Event(), list[bool]()

    def answer(id: str, body: Any, n: int) -> AttemptResult:
        if int(body["meta"]["object_id"][4:]) < 6:
            waited.append(all_there.wait(WAIT))
        elif len(sink.taken) == 11:
            all_there.set()
        return OK

    sink = Scripted(answer)

    assert once(store, trigger, sink, clock, at_once=3).sent == 24
    assert set(waited) == {True}


def test_commands_that_take_long_keep_their_places() -> None:
    """They wait for this machine: more of them would only take longer."""
    nothing: Any = None
    many = queues.EndpointQueue(a_trigger(deliver={"command": "true"}), nothing, nothing, 2)
    many.busy = {"a": 0.0, "b": 0.0}
    assert not many.has_place()
    few = queues.EndpointQueue(
        a_trigger(deliver={"url": "https://example.com/"}), nothing, nothing, 2
    )
    few.busy = {"a": 0.0, "b": 0.0}
    assert few.has_place()
    few.busy = {str(n): 0.0 for n in range(queues.MAX_WAITING)}
    assert not few.has_place()


def steps_of(store: FeedStore, work: Callable[[], object]) -> int:
    """How many steps SQLite's machine takes for some work."""
    steps = itertools.count()

    def count() -> int:
        next(steps)
        return 0

    store._db.set_progress_handler(count, 10)
    try:
        work()
    finally:
        store._db.set_progress_handler(None, 0)
    return next(steps)


def test_a_message_costs_the_same_whatever_was_sent_before(store: FeedStore, clock: Clock) -> None:
    trigger, needed = a_trigger(), list[int]()
    run_one(store, trigger)
    for n in (1, 31):
        add(store, *updates(30, 10, first=n))
        run_one(store, trigger)

        def work() -> None:
            once(store, trigger, Scripted(), clock, at_once=1)
            dead(store)
            retry(store, clock.at)
            release(store, "t", clock.at)
            unfinished_counts(store)
            page._failing_messages(store)

        needed.append(steps_of(store, work))
        store.query(
            "insert into messages (message_id, trigger, change_id, first_change_id, resource, object_id, lane, state, due_at, "
            "made_at) with recursive n (n) as (select 1 union all select n + 1 from n where n < 20000) select 'msg_' || n, 't', "
            "'old_' || n, 'old_' || n, 'subscriptions', 'sub_' || n % 10, 'sub_' || n % 10, 'sent', 0, 0 from n"
        ) if n == 1 else None

    assert counts(store) == {"t": {"sent": 20_060}}
    assert needed[1] < needed[0] * 1.2
