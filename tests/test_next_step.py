"""How far lists and events have been read, and what that allows."""

from __future__ import annotations

from typing import Any

import pytest

from stripe_feed.extract.next_step import (
    IDLE_STORE_INTERVAL,
    SECONDS_PER_DAY,
    TOO_OLD,
    event_window,
    next_step,
    should_store,
)

NOW = 1_780_000_000


def listed(t0: int = NOW - 100, left: Any = ((),)) -> dict[str, Any]:
    return {"t0": t0, "left": left, "start": 0}


def read(since: int = NOW - 100, cursor: int = NOW - 100) -> dict[str, int]:
    return {"since": since, "cursor": cursor}


@pytest.mark.parametrize(
    ("state", "mine", "follows", "found"),
    [
        ({}, None, True, "backfill"),  # nothing was ever read
        (listed(), None, True, "gap"),  # listed before events were followed
        (listed(left=[[[1, 5]]]), None, True, "relist"),  # nor is that list complete
        (listed(), None, False, "incremental"),
        (listed(NOW - 200), read(), True, "relist"),  # an older list: a refresh, a restored file
        (listed(left=[[[1, 5]]]), read(), True, "backfill"),  # on its way
        (
            listed(NOW - TOO_OLD - 1, [[[1, 5]]]),
            read(NOW - TOO_OLD - 1),
            True,
            "relist",
        ),  # its events are gone
        (listed(NOW - TOO_OLD - 1, [[[1, 5]]]), None, False, "backfill"),
        (listed(), read(), True, "incremental"),
        (listed(), read(NOW - 40 * SECONDS_PER_DAY, NOW - TOO_OLD), True, "incremental"),
        (listed(), read(NOW - 40 * SECONDS_PER_DAY, NOW - TOO_OLD - 1), True, "gap"),
        (
            listed(NOW),
            read(NOW - 40 * SECONDS_PER_DAY, NOW - TOO_OLD - 1),
            False,
            "incremental",
        ),  # nobody follows: the list goes on
    ],
)
def test_what_to_do_for_a_resource(
    state: dict[str, Any], mine: dict[str, int] | None, follows: bool, found: str
) -> None:
    """Go on with its listing, list again, follow its events, or heal a gap."""
    assert next_step(state, mine, NOW, follows) == found


@pytest.mark.parametrize(
    ("mine", "found"),
    [
        (read(NOW - SECONDS_PER_DAY, NOW - 1_000), (NOW - 1_300, NOW - 60)),
        (
            read(NOW - 1_100, NOW - 1_000),
            (NOW - 1_100, NOW - 60),
        ),  # nothing that was before the list
        (read(NOW - 5, NOW - 5), (NOW - 5, NOW - 60)),  # nothing is settled yet
    ],
)
def test_the_span_that_is_read(mine: dict[str, int], found: tuple[int, int]) -> None:
    """From the look-back before the cursor, but not from before the list, to what is settled."""
    assert event_window(mine, NOW, 300, 60) == found


def test_a_cursor_rests_once_its_events_have_left_the_look_back() -> None:
    """Else every six hours: idle runs write nothing."""
    stored, hi = NOW - 1_000, NOW - 60
    assert not should_store(stored, hi, 300, hi - 300)
    assert should_store(stored, hi, 300, hi - 301)
    assert not should_store(stored, hi, 300, None)
    assert not should_store(stored, stored + IDLE_STORE_INTERVAL - 1, 300, None)
    assert should_store(stored, stored + IDLE_STORE_INTERVAL, 300, None)
