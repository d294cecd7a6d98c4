"""What a listing covers, decided from state, options and Stripe's time; and the state that it
leaves.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stripe_feed.errors import UsageError
from stripe_feed.extract.options import Options
from stripe_feed.extract.paging.listing import (
    FIRST_ACCOUNT,
    ListingPlan,
    ListingRun,
    plan_listing,
)
from stripe_feed.extract.paging.reader import Listing
from stripe_feed.extract.paging.windows import Planner, Range, subtract
from tests.core import CORE
from tests.endpoint import Endpoint

NOW = 1_780_000_000
BORN = 1_600_000_000
DAY = 86_400


def planned(
    state: dict[str, Any], now: int = NOW, walks: int = 1, born: int = BORN, **options: Any
) -> ListingPlan:
    resource = replace(CORE["customers"], list_filters=((),) * walks)
    return plan_listing(resource, state, Options(**options), now, born)


def done(t0: int, start: int = 0, walks: int = 1) -> dict[str, Any]:
    """The state after a listing that was loaded whole."""
    return {"t0": t0, "left": [[] for _ in range(walks)], "start": start}


def run_of(found: ListingPlan) -> ListingRun:
    resource = CORE["prices" if len(found.remaining) == 2 else "customers"]
    listing: Listing[Any] = Listing(
        resource.table, resource.path, _never, [Planner(ranges) for ranges in found.remaining]
    )
    return ListingRun(resource, found, listing, [list(walk) for walk in found.remaining])


def _never(walk: int, ask: Any) -> Any:
    raise AssertionError("nothing is asked for here")


def test_the_first_listing_covers_the_whole_history() -> None:
    """From the account's creation to now, in seconds that can be split, and all that is older
    without a lower bound.
    """
    assert planned({}) == ListingPlan(
        NOW, [[(BORN, NOW), (0, BORN)]], first=True, keeps_cursor=False
    )


def test_an_account_of_unknown_age_is_as_old_as_stripe() -> None:
    """A restricted key may not see when it was made."""
    assert planned({}, born=0).remaining == [[(FIRST_ACCOUNT, NOW), (0, FIRST_ACCOUNT)]]


def test_each_walk_covers_the_same() -> None:
    """Active prices and archived ones."""
    assert planned({}, walks=2).remaining == [[(BORN, NOW), (0, BORN)]] * 2


def test_a_first_listing_from_a_start_date_has_no_bottom() -> None:
    """Nothing older is asked for."""
    assert planned({}, start=NOW - DAY) == ListingPlan(
        NOW, [[(NOW - DAY, NOW)]], first=True, keeps_cursor=False
    )


def test_an_account_that_was_made_just_now_has_a_past_all_the_same() -> None:
    """Imported objects can predate it; clocks can disagree by a second."""
    assert planned({}, born=NOW).remaining == [[(0, NOW)]]
    assert sum(hi - lo for lo, hi in planned({}, born=NOW + 1).remaining[0]) >= NOW


def test_later_listings_read_what_is_new_and_look_back() -> None:
    """Objects that became visible late are found by the overlap; `t0` moves on."""
    assert planned(done(NOW - DAY)) == ListingPlan(
        NOW, [[(NOW - DAY - 300, NOW)]], first=False, keeps_cursor=False
    )
    assert planned(done(NOW - DAY), look_back=0).remaining == [[(NOW - DAY, NOW)]]
    assert planned(done(NOW - DAY, walks=2), walks=2).remaining == [[(NOW - DAY - 300, NOW)]] * 2


def test_the_look_back_stops_at_the_start_date() -> None:
    """Not a second older than asked for."""
    assert planned(done(NOW - 10, start=NOW - 50), start=NOW - 50).remaining == [[(NOW - 50, NOW)]]


def test_a_listing_that_stopped_goes_on_where_it_was() -> None:
    """Its own `t0` stays, or what was created meanwhile would fall between two listings."""
    state = {
        "t0": NOW - DAY,
        "left": [[[BORN, BORN + 5], [NOW - DAY - 9, NOW - DAY]], []],
        "start": 0,
    }

    assert planned(state, walks=2) == ListingPlan(
        NOW - DAY,
        [[(BORN, BORN + 5), (NOW - DAY - 9, NOW - DAY)], []],
        first=False,
        keeps_cursor=False,
    )


def test_a_fixed_range_leaves_the_cursor_alone() -> None:
    """An orchestrator's backfill of one day, whatever was loaded before; its end is exclusive and
    never in the future.
    """
    assert planned({}, start=BORN, end=BORN + DAY) == ListingPlan(
        NOW, [[(BORN, BORN + DAY)]], first=False, keeps_cursor=True
    )
    assert planned(done(NOW - 5), start=BORN, end=BORN + DAY).remaining == [[(BORN, BORN + DAY)]]
    assert planned({}, start=BORN, end=NOW + DAY).remaining == [[(BORN, NOW)]]


def test_a_fixed_range_without_a_start_covers_all_before_its_end() -> None:
    """The whole history up to then."""
    found = planned({}, end=BORN + DAY)

    assert found.keeps_cursor
    assert _length(found.remaining[0]) == BORN + DAY


def test_an_earlier_start_date_adds_the_older_part() -> None:
    """Once: what was loaded since is not read again."""
    assert planned(done(NOW - DAY, start=BORN + 50), start=BORN).remaining == [
        [(BORN, BORN + 50), (NOW - DAY - 300, NOW)]
    ]
    assert planned(done(NOW - DAY, start=BORN)).remaining == [[(0, BORN), (NOW - DAY - 300, NOW)]]
    assert planned(done(NOW - DAY, start=BORN), start=BORN).remaining == [[(NOW - DAY - 300, NOW)]]


def test_an_earlier_start_date_adds_the_older_part_to_a_listing_that_stopped() -> None:
    """Both are left to read."""
    state = {"t0": NOW - DAY, "left": [[[NOW - 2 * DAY, NOW - DAY]]], "start": BORN}

    assert planned(state).remaining == [[(0, BORN), (NOW - 2 * DAY, NOW - DAY)]]


@pytest.mark.parametrize("start", [BORN + 1, NOW - 2 * DAY, NOW - 10])
def test_a_later_start_date_skips_nothing_that_the_cursor_has_not_seen(start: int) -> None:
    """Whatever was asked for in a run between, the copy is complete from the earliest start date
    on.
    """
    assert planned(done(NOW - DAY, start=BORN), start=start).remaining == [[(NOW - DAY - 300, NOW)]]
    state = {"t0": NOW - DAY, "left": [[[BORN, NOW - DAY]]], "start": BORN}
    assert planned(state, start=start).remaining == [[(BORN, NOW - DAY)]]


@pytest.mark.parametrize("start", [NOW, NOW + 1, NOW + DAY])
def test_a_start_date_in_the_future_is_refused(start: int) -> None:
    """By Stripe's clock, whatever the state."""
    for state in ({}, done(NOW - DAY)):
        with pytest.raises(UsageError, match="start_date is in the future"):
            planned(state, start=start)


def test_a_clock_that_went_back_reads_nothing_and_loses_nothing() -> None:
    """A sandbox that was set up anew: the next listing begins where this one says it ended."""
    found = planned(done(NOW + DAY))

    assert Planner(found.remaining[0]).finished
    assert found.started_at == NOW


def test_an_object_from_the_future_is_listed_when_its_time_has_come() -> None:
    """Test clocks make them. Nothing newer than `t0` is asked for, so the cursor never jumps ahead."""
    endpoint = Endpoint([NOW - 50, NOW + 3 * DAY])
    state: dict[str, Any] = {}
    seen: list[set[str]] = []
    for now in (NOW, NOW + DAY, NOW + 4 * DAY):
        found = planned(state, now=now)
        seen.append({id for lo, hi in found.remaining[0] for id in endpoint.within(lo, hi)})
        state = done(found.started_at)

    assert seen == [{"cus_0"}, {"cus_0"}, {"cus_1"}]


def test_the_state_of_a_listing_that_begins_holds_all_that_it_will_read() -> None:
    """Stored before its first request: whatever happens then, nothing is forgotten."""
    found = planned({}, walks=2)
    state = run_of(found).state(Options())

    assert state == {"t0": NOW, "left": [[[BORN, NOW], [0, BORN]]] * 2, "start": 0}
    assert planned(state, now=NOW + DAY, walks=2) == ListingPlan(
        NOW, found.remaining, first=False, keeps_cursor=False
    )


def test_the_state_is_json_and_remembers_the_start_date() -> None:
    """As dlt stores it."""
    run = run_of(planned({}, start=BORN))
    run.remaining = [subtract(run.remaining[0], (BORN + 10, NOW))]

    assert json.loads(json.dumps(run.state(Options(start=BORN)))) == {
        "t0": NOW,
        "left": [[[BORN, BORN + 10]]],
        "start": BORN,
    }


def test_a_run_is_done_when_all_was_read_and_taken() -> None:
    """Rows that wait are still to come."""
    run = run_of(ListingPlan(NOW, [[]], first=False, keeps_cursor=False))
    assert run.done
    assert not run_of(planned({})).done


@settings(derandomize=True, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 3 * DAY),  # time until the next run
            st.one_of(st.none(), st.integers(BORN - DAY, BORN + 5 * DAY)),  # its start date
            st.lists(
                st.tuples(st.integers(-DAY, 20 * DAY), st.integers(0, 10 * DAY)), max_size=3
            ),  # what is covered in it
            st.booleans(),  # whether it ends whole
        ),
        max_size=6,
    ),
    walks=st.integers(1, 2),
)
def test_every_second_since_the_earliest_start_date_is_covered_in_the_end(
    steps: list[tuple[int, int | None, list[tuple[int, int]], bool]], walks: int
) -> None:
    """Runs that stop anywhere, with any start dates, followed by whole runs: no second before the
    last `t0` is left out.
    """
    now = BORN + 6 * DAY
    state: dict[str, Any] = {}
    covered: list[list[Range]] = [[] for _ in range(walks)]
    for wait, start, covers, whole in [
        *steps,
        (1, BORN - DAY, [], True),
        (1, BORN - DAY, [], True),
    ]:
        now += wait
        run = run_of(planned(state, now=now, walks=walks, start=start))
        for n in range(walks):
            cut = [
                (max(a, BORN + lo), min(b, BORN + lo + length))
                for lo, length in covers
                for a, b in run.remaining[n]
            ]
            for cover in list(run.remaining[n]) if whole else [r for r in cut if r[0] < r[1]]:
                covered[n].append(cover)
                run.remaining[n] = subtract(run.remaining[n], cover)
        state = run.state(Options(start=start))

    for walk in covered:
        missing: list[Range] = [(BORN - DAY, state["t0"])]
        for cover in walk:
            missing = subtract(missing, cover)
        assert missing == []


def _length(ranges: Sequence[Range]) -> int:
    return sum(hi - lo for lo, hi in ranges)
