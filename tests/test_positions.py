"""Places in the feed and lengths of time, as people and clients write them: what makes no sense is
said, and never a fault of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stripe_feed.cli.command import check_values
from stripe_feed.errors import OffsetOutOfRange, UsageError
from stripe_feed.feed import consumers
from stripe_feed.feed.consumers import parse_duration, position_before
from stripe_feed.feed.storage.store import FeedStore
from tests.deliveries import NOW, add, updates

QUICK = settings(derandomize=True, deadline=None, max_examples=200, database=None)
PIECES = st.sampled_from([
    "9", "0", "-", "+", " ", ".", ":", "T", "Z", "d", "w", "s", "2026", "-01", "-31", "99999", "²", "٣", "nan", "inf", "e9", "_", "evt_1", "latest", "earliest", "\x00", "é",
])  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeedStore]:
    with FeedStore(Path(tmp_path_factory.mktemp("places")) / "feed.sqlite") as store:
        add(store, *updates(3))
        yield store


@QUICK
@given(
    st.lists(PIECES, max_size=6).map("".join)
    | st.integers()
    | st.datetimes()
    | st.datetimes(timezones=st.just(timezone.utc))
)
@example("9" * 5_000)
@example("9" * 20 + "d")
@example("²")
@example("٣")
@example("-0d")
@example("0000-01-01")
@example("99999-01-01")
@example("0001-01-01T00:00:00+23:59")
@example("9999-12-31T23:59:59-23:59")
@example(datetime(1, 1, 1, tzinfo=timezone.utc))
def test_any_place_is_in_the_feed_or_refused(store: FeedStore, place: Any) -> None:
    try:
        found = position_before(store, place, NOW)
    except (UsageError, OffsetOutOfRange) as fault:
        assert len(str(fault)) < 300
    else:
        assert 0 <= found <= store.head
    if isinstance(place, str):
        with pytest.raises(UsageError):
            consumers.attach(store, "a name", place, NOW)


@QUICK
@given(st.lists(PIECES, max_size=6).map("".join))
@example("9" * 5_000 + "d")
@example("36526d")
@example("٣d")
@example("-0d")
def test_any_length_of_time_is_under_a_hundred_years_or_refused(text: str) -> None:
    try:
        assert 0 <= parse_duration(text) <= 36_525 * 86_400
    except UsageError as fault:
        assert len(str(fault)) < 300


def test_the_longest_time_is_fine() -> None:
    assert (parse_duration("36525d"), parse_duration("0s"), parse_duration(" 2 w ")) == (
        3_155_760_000,
        0,
        1_209_600,
    )


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        float("-inf"),
        1e300,
        10**30,
        -(10**30),
        "\udcff",
        ["a", "\udcff"],
    ],
)
def test_no_verb_gets_a_number_that_nobody_means_or_bytes_that_are_no_text(value: Any) -> None:
    with pytest.raises(UsageError):
        check_values([None, "ä", True, value])
    check_values([None, "ä", True, 5, 0.5, ["a"]])
