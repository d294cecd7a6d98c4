"""The planner alone: which page is asked for next, what is kept of it, and which seconds it
completes.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stripe_feed.errors import CursorGone
from stripe_feed.extract.paging.windows import (
    MAX_EMPTY_PAGES,
    UNKNOWN_PAGES,
    Accepted,
    NoProgress,
    PageRequest,
    Planner,
    Range,
    RowKey,
    subtract,
)
from tests.endpoint import Endpoint

T0 = 1_000_000
START = 10_000


def take(planner: Planner) -> PageRequest:
    """The next page to ask for; there is one."""
    ask = planner.next_request()
    assert ask is not None
    return ask


def heads(*created: int | None, first: int = 0) -> list[RowKey]:
    return [RowKey(f"cus_{n}", moment) for n, moment in enumerate(created, first)]


def every(step: int, newest: int, count: int = 100) -> list[RowKey]:
    """A full page: one object every `step` seconds, newest first."""
    return [RowKey(f"at_{newest - n * step}", newest - n * step) for n in range(count)]


def ids(page: Sequence[RowKey], took: Accepted) -> list[str]:
    return [page[n].id for n in took.kept]


def drain(
    planner: Planner, endpoint: Endpoint, dice: Random | None = None, flights: int = 1
) -> tuple[list[str], list[Range]]:
    """Walk to the end with up to `flights` requests under way, answered in any order; the ids kept,
    and the covers.
    """
    kept: list[str] = []
    covers: list[Range] = []
    dice = dice or Random(1)
    under_way: list[tuple[PageRequest, list[RowKey], bool]] = []
    while not planner.finished or under_way:
        ask = planner.next_request() if len(under_way) < flights else None
        if ask is None:
            ask, page, has_more = under_way.pop(dice.randrange(len(under_way)))
            took = planner.record_page(ask, page, has_more)
            kept += ids(page, took)
            covers.append(took.covered)
            continue
        try:
            under_way.append((ask, *endpoint.page(ask)))
        except CursorGone:
            planner.cursor_refused(ask)
    return kept, covers


def seconds(ranges: Sequence[Range]) -> list[Range]:
    """Ranges in order, neighbours joined."""
    joined: list[Range] = []
    for lo, hi in sorted(r for r in ranges if r[0] < r[1]):
        if joined and joined[-1][1] == lo:
            joined[-1] = (joined[-1][0], hi)
        else:
            joined.append((lo, hi))
    return joined


def left(planner: Planner) -> list[Range]:
    """What the windows still have to deliver."""
    return [(window.lo, window.covered) for window in planner.windows]


def length(ranges: Sequence[Range]) -> int:
    return sum(hi - lo for lo, hi in ranges)


def test_a_listing_begins_with_one_request() -> None:
    """One window over the whole range, half-open, without a cursor; nothing more until its page is
    there.
    """
    planner = Planner([(START, T0)])

    ask = take(planner)

    assert ask.params() == {"limit": 100, "created": {"lt": T0, "gte": START}}
    assert planner.next_request() is None


def test_a_table_of_one_page_costs_one_request() -> None:
    """A first page without more is the end."""
    planner = Planner([(START, T0)])

    took = planner.record_page(take(planner), heads(500_000, 400_000), has_more=False)

    assert took == Accepted([0, 1], (START, T0))
    assert planner.finished


def test_the_next_page_goes_on_from_the_last_row() -> None:
    """Same bounds, and the last id as `starting_after`."""
    planner = Planner([(START, T0)])
    planner.record_page(take(planner), heads(900_000, 899_999), has_more=True)

    assert take(planner).params() == {
        "limit": 100,
        "created": {"lt": T0, "gte": START},
        "starting_after": "cus_1",
    }


def test_a_window_is_split_only_when_none_is_free() -> None:
    """A free window is taken as it is; only when all are under way does a token split the one with
    most pages left.
    """
    planner = Planner([(START, T0)])
    planner.record_page(take(planner), every(100, T0 - 1), has_more=True)

    first = take(planner)
    assert (len(planner.windows), first.lo, first.hi) == (1, START, T0)
    second = take(planner)
    assert len(planner.windows) == 2
    assert (second.cursor, second.lo) == (None, START)
    assert second.hi == first.window.lo
    assert second.hi < first.window.position


def test_the_free_window_with_most_pages_left_comes_first() -> None:
    """Windows that nobody has looked into count as endless, then the longest estimate wins."""
    planner = Planner([(100_000, 110_000), (START, 100_000)])
    small = take(planner)
    large = take(planner)
    planner.record_page(small, every(10, 109_999), has_more=True)
    planner.record_page(large, every(10, 99_999), has_more=True)

    assert take(planner).window is large.window
    assert take(planner).window is small.window


def test_a_split_cuts_what_is_left_in_half_below_the_page_under_way() -> None:
    """The lower part begins in the middle between the lower bound and where the page under way
    should end.
    """
    planner = Planner([(START, 110_000)])
    planner.record_page(
        take(planner), every(10, 109_999), has_more=True
    )  # 1,000 seconds to the page: down to 109,009
    take(planner)

    lower = take(planner)

    assert (lower.lo, lower.hi) == (START, (START + 109_009 - 991) // 2)


@pytest.mark.parametrize(("pages_left", "splits"), [(3.9, False), (4.1, True)])
def test_a_window_with_fewer_than_three_pages_beyond_the_one_under_way_is_not_split(
    pages_left: float, splits: bool
) -> None:
    """Each window costs half a page on average."""
    bottom = 100_000 - int(pages_left * 1000)
    planner = Planner([(bottom, 101_000)])
    planner.record_page(
        take(planner), [RowKey("cus_0", 100_999), RowKey("cus_1", 100_000)], has_more=True
    )  # 1,000 seconds to the page
    take(planner)

    assert (planner.next_request() is not None) is splits


def test_a_part_of_a_split_window_can_be_split_before_its_first_page() -> None:
    """It inherits the density, so a free token never waits for a page; only a window of unknown
    density is left alone.
    """
    planner = Planner([(START, T0)])
    planner.record_page(take(planner), every(1, T0 - 1), has_more=True)
    asks = [take(planner) for _ in range(20)]

    assert len({(ask.lo, ask.hi) for ask in asks}) == 20
    assert seconds(left(planner)) == [(START, T0 - 99)]


def test_a_window_that_was_cut_while_its_page_was_under_way_ends_at_its_new_bound() -> None:
    """Rows below the raised lower bound are dropped: the window below reads them. The bound that
    was sent counts.
    """
    planner = Planner([(START, 110_000)])
    planner.record_page(take(planner), every(10, 109_999), has_more=True)
    upper = take(planner)
    lower = take(planner)
    bound = lower.hi

    page = heads(bound + 5, bound, bound - 1, START)
    took = planner.record_page(upper, page, has_more=True)

    assert ids(page, took) == ["cus_0", "cus_1"]
    assert took.covered == (bound, 109_010)
    assert planner.windows == [lower.window]


def test_a_cut_window_whose_page_stays_above_the_new_bound_goes_on() -> None:
    """It ends only where its rows pass the bound or Stripe has no more."""
    planner = Planner([(START, 110_000)])
    planner.record_page(take(planner), every(10, 109_999), has_more=True)
    upper = take(planner)
    lower = take(planner)

    page = heads(108_000, lower.hi, first=200)
    took = planner.record_page(upper, page, has_more=True)

    assert ids(page, took) == ["cus_200", "cus_201"]
    assert took.covered == (lower.hi + 1, 109_010)
    assert take(planner).params() == {
        "limit": 100,
        "created": {"lt": 110_000, "gte": lower.hi},
        "starting_after": "cus_201",
    }


def test_a_second_that_a_page_ends_in_stays_uncovered() -> None:
    """The rest of it may be on the next page: a crash between the two must read it again."""
    planner = Planner([(START, T0)])

    took = planner.record_page(take(planner), heads(900_001, 900_000), has_more=True)

    assert took.covered == (900_001, T0)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_burst_wider_than_a_page_is_read_by_cursor(size: int) -> None:
    """One second holds more rows than a page: no time bound helps, each row comes once all the
    same.
    """
    endpoint = Endpoint([START + 5] * 20 + [START + 6] * 2 + [START + 1], size=size)
    planner = Planner([(START, T0)])

    kept, covers = drain(planner, endpoint, flights=4)

    assert sorted(kept) == sorted(endpoint.keys)
    assert seconds(covers) == [(START, T0)]


def test_a_window_of_one_second_is_never_split() -> None:
    """There is no second between its bounds."""
    planner = Planner([(START, START + 1)])
    planner.record_page(
        take(planner), [RowKey(f"cus_{n}", START) for n in range(100)], has_more=True
    )

    take(planner)

    assert planner.next_request() is None


def test_a_burst_cannot_blow_up_the_estimate() -> None:
    """Seconds per page are a mean of spans: a page within one second makes the estimate grow by
    less than double.
    """
    planner = Planner([(START, T0)])
    page = every(100, T0 - 1)
    planner.record_page(take(planner), page, has_more=True)
    before = planner.pages_left()

    planner.record_page(
        take(planner), [RowKey(f"x{n}", page[-1].created) for n in range(100)], has_more=True
    )

    assert planner.pages_left() == pytest.approx(before / 0.6)


def test_a_refused_cursor_goes_on_by_time_and_drops_what_was_seen() -> None:
    """The row was deleted meanwhile: ask below its second without a cursor, and drop the rows of
    that second delivered before.
    """
    planner = Planner([(START, T0)])
    planner.record_page(take(planner), heads(900_001, 900_000, 900_000), has_more=True)

    planner.cursor_refused(take(planner))
    again = take(planner)
    page = [RowKey("cus_1", 900_000), RowKey("cus_7", 900_000), RowKey("cus_8", 899_000)]
    took = planner.record_page(again, page, has_more=True)

    assert again.params() == {"limit": 100, "created": {"lt": 900_001, "gte": START}}
    assert ids(page, took) == ["cus_7", "cus_8"]
    assert take(planner).cursor == "cus_8"


def test_what_was_seen_is_remembered_over_the_pages_of_one_second() -> None:
    """A burst of several pages, its cursor deleted in the middle: nothing comes twice."""
    endpoint = Endpoint([START + 5] * 30 + [START + 4] * 3, size=4)
    planner = Planner([(START, T0)])
    kept: list[str] = []
    while not planner.finished:
        ask = take(planner)
        try:
            page, has_more = endpoint.page(ask)
        except CursorGone:
            planner.cursor_refused(ask)
            continue
        kept += ids(page, planner.record_page(ask, page, has_more))
        if len(endpoint.asked) in (3, 4, 9):
            endpoint.delete(page[-1].id)  # the cursor of the next request

    assert len(kept) == len(set(kept))
    assert set(endpoint.ever) == set(kept)


def test_an_empty_page_without_more_and_without_cursor_is_the_end() -> None:
    """Nothing was ever created in this range."""
    planner = Planner([(START, T0)])

    assert planner.record_page(take(planner), [], has_more=False) == Accepted([], (START, T0))
    assert planner.finished


def test_an_empty_page_after_a_cursor_is_no_proof_of_the_end() -> None:
    """Ask once more by time; only an empty or known rest ends the window."""
    planner = Planner([(START, T0)])
    planner.record_page(take(planner), heads(900_001, 900_000), has_more=True)

    nothing = planner.record_page(take(planner), [], has_more=False)
    assert nothing == Accepted([], (900_001, 900_001))
    again = take(planner)
    assert again.params() == {"limit": 100, "created": {"lt": 900_001, "gte": START}}

    assert planner.record_page(again, heads(900_000, first=1), has_more=False) == Accepted(
        [], (START, 900_001)
    )
    assert planner.finished


def test_an_empty_page_that_has_more_is_asked_again() -> None:
    """Stripe says that there is more, so the window goes on, and never above its upper bound."""
    planner = Planner([(START, T0)])

    assert planner.record_page(take(planner), [], has_more=True) == Accepted([], (T0, T0))
    assert take(planner).params() == {"limit": 100, "created": {"lt": T0, "gte": START}}


def test_a_list_that_stays_empty_but_has_more_is_stuck() -> None:
    """It ends after a few tries instead of asking for ever."""
    planner = Planner([(START, T0)])
    for _ in range(MAX_EMPTY_PAGES):
        planner.record_page(take(planner), [], has_more=True)

    with pytest.raises(NoProgress, match="stays empty"):
        planner.record_page(take(planner), [], has_more=True)


def test_a_list_that_ends_in_an_empty_page_again_and_again_is_stuck() -> None:
    """Going on by time brings the same rows back each time: that is no progress."""
    planner = Planner([(START, T0)])
    page = heads(900_001, 900_000)
    planner.record_page(take(planner), page, has_more=True)

    with pytest.raises(NoProgress, match="stays empty"):
        for _ in range(20):
            planner.record_page(take(planner), [], has_more=True)
            planner.record_page(take(planner), page[1:], has_more=True)


def test_a_short_page_that_has_more_goes_on() -> None:
    """The end is proven by `has_more`, not by the length of a page."""
    planner = Planner([(START, T0)])

    took = planner.record_page(take(planner), heads(900_000), has_more=True)

    assert took.covered == (900_001, T0)
    assert take(planner).cursor == "cus_0"


def test_a_repeated_cursor_is_stuck() -> None:
    """A page that ends with the row it was asked to go on from would be asked for for ever."""
    planner = Planner([(START, T0)])
    planner.record_page(take(planner), heads(900_000), has_more=True)

    with pytest.raises(NoProgress, match="repeats cus_0"):
        planner.record_page(take(planner), heads(900_000), has_more=True)


def test_rows_without_created_are_kept_and_cover_nothing() -> None:
    """A few very old objects have `created: null`; what comes after such a row is still to be read."""
    planner = Planner([(0, T0)])

    first = planner.record_page(take(planner), heads(900_001, 900_000, None), has_more=True)
    last = planner.record_page(take(planner), heads(None, 5, None, first=3), has_more=False)

    assert (first, last) == (Accepted([0, 1, 2], (900_001, T0)), Accepted([0, 1, 2], (0, 900_001)))


def test_rows_without_created_are_remembered() -> None:
    """They come last; going on by time after them, with a row made in the past meanwhile, brings
    them again.
    """
    planner = Planner([(0, T0)])
    planner.record_page(take(planner), heads(900_000, None, None), has_more=True)
    planner.cursor_refused(take(planner))
    page = [RowKey("cus_0", 900_000), RowKey("new", 800_000), RowKey("cus_1", None)]
    again = planner.record_page(take(planner), page, has_more=True)
    last = planner.record_page(take(planner), heads(None, None, first=2), has_more=False)

    assert ids(page, again) == ["new"]
    assert last.kept == [1]


def test_a_page_of_rows_without_created_only_goes_on() -> None:
    """Nothing is covered, the cursor moves, and going on by time stays below the upper bound."""
    planner = Planner([(0, T0)])
    took = planner.record_page(take(planner), heads(None, None), has_more=True)
    planner.cursor_refused(take(planner))

    assert took == Accepted([0, 1], (T0, T0))
    assert take(planner).params() == {"limit": 100, "created": {"lt": T0}}


def test_a_row_from_the_future_covers_nothing_beyond_the_range() -> None:
    """Test clocks move `created` ahead. Such a row is not asked for; one that came all the same
    leaves the bounds alone.
    """
    endpoint = Endpoint([T0 + 5, 900_000])
    planner = Planner([(START, T0)])
    assert drain(planner, endpoint) == (["cus_1"], [(START, T0)])

    planner = Planner([(START, T0)])
    took = planner.record_page(take(planner), heads(T0 + 5, 900_000, T0 + 9), has_more=True)
    assert took.covered == (T0, T0)
    assert left(planner) == [(START, T0)]


def test_the_bottom_window_has_no_lower_bound_and_is_not_split() -> None:
    """Imported objects can predate the account; where the history begins is unknown, so there is no
    middle.
    """
    planner = Planner([(0, START)])
    ask = take(planner)
    assert ask.params() == {"limit": 100, "created": {"lt": START}}

    planner.record_page(ask, every(1, START - 1), has_more=True)
    take(planner)

    assert planner.next_request() is None


def test_a_page_that_was_not_read_is_asked_for_again() -> None:
    """A fault frees the window and changes nothing else."""
    planner = Planner([(START, T0)])
    first = take(planner)

    planner.request_failed(first)

    assert take(planner).params() == first.params()


def test_empty_ranges_are_no_windows() -> None:
    """A listing with nothing left is finished before its first request."""
    assert Planner([]).finished
    assert Planner([(5, 5), (7, 6)]).finished
    assert Planner([(5, 6)]).pages_left() == UNKNOWN_PAGES


@pytest.mark.parametrize(
    ("ranges", "cover", "rest"),
    [
        ([(0, 10)], (3, 5), [(0, 3), (5, 10)]),
        ([(0, 10)], (0, 10), []),
        ([(0, 10)], (0, 4), [(4, 10)]),
        ([(0, 10)], (4, 10), [(0, 4)]),
        ([(0, 10)], (5, 5), [(0, 10)]),
        ([(0, 4), (6, 10)], (2, 8), [(0, 2), (8, 10)]),
        ([(0, 4), (6, 10)], (4, 6), [(0, 4), (6, 10)]),
        ([], (4, 6), []),
    ],
)
def test_subtract_leaves_the_seconds_outside_of_the_cover(
    ranges: list[Range], cover: Range, rest: list[Range]
) -> None:
    """Whole seconds, half-open on both sides."""
    assert subtract(ranges, cover) == rest


moments = st.one_of(
    st.lists(st.integers(0, 400), max_size=80),
    st.lists(st.integers(0, 12), max_size=120),
    st.lists(st.sampled_from([3, 50, 51, 399]), max_size=120),
)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    created=moments,
    size=st.integers(1, 9),
    flights=st.integers(1, 16),
    dice=st.randoms(use_true_random=False),
    bounds=st.lists(st.integers(1, 400), min_size=1, max_size=5, unique=True).map(sorted),
)
def test_covers_and_windows_always_partition_the_ranges(
    created: list[int], size: int, flights: int, dice: Random, bounds: list[int]
) -> None:
    """After each answer, what is covered and what the windows still hold are disjoint and together
    the ranges given.
    """
    ranges = list(zip([0, *bounds], [*bounds, 401], strict=True))[::2]
    endpoint = Endpoint(created, size)
    planner = Planner(ranges)
    rest: list[Range] = ranges
    kept: list[str] = []
    under_way: list[tuple[PageRequest, list[RowKey], bool]] = []
    while not planner.finished:
        ask = planner.next_request() if len(under_way) < flights else None
        if ask is not None:
            under_way.append((ask, *endpoint.page(ask)))
            continue
        ask, page, has_more = under_way.pop(dice.randrange(len(under_way)))
        took = planner.record_page(ask, page, has_more)
        kept += ids(page, took)
        before, rest = rest, subtract(rest, took.covered)
        assert (
            length(before) - length(rest) == took.covered[1] - took.covered[0]
        )  # covers lie within and never overlap
        assert seconds(left(planner)) == seconds(rest)
        assert length(left(planner)) == length(rest)  # neither do windows
    assert not rest
    assert sorted(kept) == sorted(id for lo, hi in ranges for id in endpoint.within(lo, hi))


def test_a_list_that_refuses_every_cursor_of_one_second_ends() -> None:
    """It could be asked for ever: each page brings the same rows, and each cursor after it is
    refused.
    """
    planner = Planner([(START, T0)])
    burst = heads(*[900_000] * 3)
    planner.record_page(take(planner), burst, has_more=True)

    with pytest.raises(NoProgress, match="refuses one cursor after the other"):
        for _ in range(300):
            planner.cursor_refused(take(planner))
            planner.record_page(take(planner), burst, has_more=True)
