"""Which connected account is synced next: those that rang, then those that are due, and nobody waits
for one that rings all the time.
"""

from __future__ import annotations

import pytest

from stripe_feed.server.connected.turns import FIRST_AGAIN, Turn, Turns
from stripe_feed.server.service import DEBOUNCE

DAY = 86_400.0


def turns_of(at_once: int = 3, **cursors: int) -> Turns:
    turns = Turns(DAY, at_once)
    for account, cursor in cursors.items():
        turns.add(account, cursor, DAY)
    return turns


def test_missing_copies_are_loaded_first_then_the_oldest() -> None:
    turns = turns_of(4, fresh=80_000, old=100, missing=0)

    assert turns.next(DAY) == Turn("missing", polls=True)
    assert turns.next(DAY) is None
    assert turns.seconds_until_next(DAY) == 100
    assert turns.next(DAY + 100) == Turn("old", polls=True)
    assert turns.next(DAY + 80_000) == Turn("fresh", polls=True)


def test_one_that_rings_is_next_once_it_is_quiet_for_a_moment() -> None:
    turns = turns_of(one=1000, other=1000)
    turns.announce("one", 5.0)
    turns.announce("one", 5.2)
    turns.announce("other", 5.1)

    assert turns.next(5.0) is None
    assert turns.seconds_until_next(5.0) == pytest.approx(DEBOUNCE)
    assert turns.next(5.0 + DEBOUNCE) == Turn("one", polls=False)
    assert turns.next(5.1 + DEBOUNCE) == Turn("other", polls=False)
    assert turns.seconds_until_next(6.0) is None  # both have a turn


def test_a_burst_of_one_account_delays_no_other() -> None:
    """Even in a single place: it goes to the end of the queue after each turn."""
    turns = turns_of(1, busy=1000, other=1000)
    turns.announce("busy", 1.0)
    first = turns.next(2.0)
    assert first == Turn("busy", polls=False)
    for at in (2.1, 2.2, 3.0):
        turns.announce("busy", at)
    turns.announce("other", 2.5)
    assert turns.next(9.0) is None
    turns.end(first, 9.0, failed=False, more=True)

    order = []
    for now in (10.0, 11.0, 12.0):
        turn = turns.next(now)
        assert turn is not None
        order.append(turn.account)
        turns.announce("busy", now)
        turns.end(turn, now, failed=False)
    assert order == ["busy", "other", "busy"]


def test_whole_readings_leave_a_place_for_webhooks() -> None:
    turns = turns_of(3, a=0, b=0, c=0, rings=1000)

    loads = [turns.next(10.0), turns.next(10.0)]
    assert all(turn is not None and turn.polls for turn in loads)
    assert turns.next(10.0) is None
    turns.announce("c", 10.0)  # it has no copy yet: events alone would leave it empty
    turns.announce("rings", 10.0)
    assert turns.next(11.0) == Turn("rings", polls=False)
    assert turns.next(11.0) is None


def test_an_account_has_one_turn_at_a_time() -> None:
    turns = turns_of(one=1000)
    turns.announce("one", 1.0)
    first = turns.next(2.0)
    assert first is not None
    turns.announce("one", 2.0)

    assert turns.next(9.0) is None
    turns.end(first, 9.0, failed=False)
    assert turns.next(9.0) == Turn("one", polls=False)


def test_one_that_fails_rests_longer_each_time_and_stops_no_other() -> None:
    turns, now = turns_of(2, broken=0, fine=1000), 10.0
    for pause in (2.0, 4.0, 8.0):
        turn = turns.next(now)
        assert turn == Turn("broken", polls=True)
        turns.end(turn, now, failed=True)
        turns.announce("broken", now)
        assert turns.seconds_until_next(now) == pause
        now += pause
    turns.announce("fine", now - 1)
    assert turns.failing == 1 and turns.failures("broken") == 3
    turn = turns.next(now)
    assert turn == Turn("fine", polls=False)
    turn = turns.next(now)
    assert turn == Turn("broken", polls=True)
    turns.end(turn, now, failed=False)
    assert turns.failing == 0 and turns.has_whole_copy("broken")
    assert turns.next(now + DEBOUNCE) is None  # a whole reading takes what rang with it


def test_one_that_is_dropped_has_no_turn() -> None:
    turns = turns_of(gone=0, stays=1000)
    turn = turns.next(1.0)
    assert turn == Turn("gone", polls=True)
    turns.announce("gone", 1.0)
    turns.drop(["gone"])
    turns.end(turn, 2.0, failed=True, more=True)

    assert turns.accounts == {"stays"}
    assert turns.next(500.0) is None
    assert turns.failing == 0


def test_without_an_interval_only_missing_copies_are_loaded() -> None:
    """And read once more: their webhooks may have come before the account was known."""
    turns = Turns(0, 2)
    turns.add("missing", 0, 1.0)
    turns.add("fine", 10, 1.0)

    turn = turns.next(1.0)
    assert turn == Turn("missing", polls=True)
    turns.end(turn, 2.0, failed=False)
    assert turns.seconds_until_next(2.0) == FIRST_AGAIN
    turn = turns.next(2.0 + FIRST_AGAIN)
    assert turn == Turn("missing", polls=True)
    turns.end(turn, 400.0, failed=False)
    assert turns.seconds_until_next(400.0) is None
    turns.announce("fine", 2.0)
    assert turns.next(403.0) == Turn("fine", polls=False)
