"""Decide which page to ask for next: disjoint windows of `created` seconds, split only if a request
may be sent and no window waits for one.

Pure: no I/O, no clock, no threads. Whole seconds, half-open ranges `[lo, hi)`; `lo` 0 means without
a lower bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

Range = tuple[int, int]

FAR_FUTURE = 10_000_000_000  # test clocks run ahead of now

# a window with fewer pages left is not worth a split: every window costs half a page
MIN_PAGES_TO_SPLIT = 3
UNKNOWN_PAGES = float("inf")  # pages left in a window without an answer yet
MAX_EMPTY_PAGES = 5
MAX_REFUSED_CURSORS = 200  # in a row


class NoProgress(Exception):
    """A list repeats itself, or stays empty although it says that it has more."""


@dataclass(slots=True, eq=False)
class Window:
    """A range that is read newest first, by one request at a time."""

    lo: int
    hi: int
    splittable: bool = True
    cursor: str | None = None
    position: int = 0  # `created` of the last row delivered; at first `hi`
    covered: int = 0  # everything from here up to `hi` is delivered
    seconds_per_page: float | None = None  # smoothed
    busy: bool = False
    by_time: bool = False  # continue by time below `position + 1`: the cursor cannot be used
    empty_pages: int = 0
    refused_cursors: int = 0
    boundary_ids: set[str] = field(
        default_factory=set
    )  # ids delivered with `created` == `position`
    undated_ids: set[str] = field(default_factory=set)  # ids delivered without `created`

    def pages_left(self) -> float:
        """Estimate the pages left; infinite before the first page."""
        return (
            UNKNOWN_PAGES
            if self.seconds_per_page is None
            else (self.position - self.lo) / max(self.seconds_per_page, 0.001)
        )


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One page to ask for, and the window it belongs to. `dated`: the list can be filtered by time."""

    window: Window
    lo: int
    hi: int
    cursor: str | None
    dated: bool = True

    def params(self) -> dict[str, object]:
        """Return the list parameters of this page."""
        created = {"lt": self.hi, **({"gte": self.lo} if self.lo > 0 else {})}
        return {
            "limit": 100,
            **({"created": created} if self.dated else {}),
            **({"starting_after": self.cursor} if self.cursor else {}),
        }


@dataclass(frozen=True, slots=True)
class RowKey:
    """What the planner needs to know about a row. `created` is null on a few very old objects."""

    id: str
    created: int | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The indexes of the rows to keep of a page, and the seconds that it completes."""

    kept: list[int]
    covered: Range


class Walk(Protocol):
    """What decides which pages of one list endpoint are read."""

    windows: list[Window]  # those that have not ended

    @property
    def finished(self) -> bool:
        """Whether every page was read."""

    def pages_left(self) -> float:
        """Estimate the pages not yet asked for; infinite before the first answer."""

    def next_request(self) -> PageRequest | None:
        """Return the next page to ask for; None if an answer must come first."""

    def record_page(self, request: PageRequest, keys: Sequence[RowKey], has_more: bool) -> Accepted:
        """Record an answer. Raises `NoProgress` if the list makes none."""

    def cursor_refused(self, request: PageRequest) -> None:
        """Continue without the cursor of this request: its object was deleted. Raises `NoProgress`."""

    def request_failed(self, request: PageRequest) -> None:
        """Record that no answer came."""


class Planner:
    """Read disjoint ranges of one list endpoint, in as many windows as the rate allows.

    The windows and the delivered seconds always partition the ranges given: a window ends only when
    Stripe says that there is no more, when it crosses its lower bound (raised by a split), or by an
    empty answer to a request without a cursor.
    """

    def __init__(self, ranges: Sequence[Range]) -> None:
        self.windows = [
            Window(lo, hi, splittable=lo > 0, position=hi, covered=hi)
            for lo, hi in ranges
            if lo < hi
        ]

    @property
    def finished(self) -> bool:
        """Whether every window has ended."""
        return not self.windows

    def pages_left(self) -> float:
        """Estimate the pages not yet asked for; infinite before the first answer."""
        return sum(window.pages_left() for window in self.windows)

    def next_request(self) -> PageRequest | None:
        """Return the next page to ask for; None if every window waits for an answer. Call it only
        if a request may be sent now.
        """
        free = [window for window in self.windows if not window.busy]
        window = max(free, key=Window.pages_left, default=None) or self._split()
        if window is None:
            return None
        window.busy = True
        if window.by_time:
            return PageRequest(window, window.lo, min(window.position + 1, window.hi), None)
        return PageRequest(window, window.lo, window.hi, window.cursor)

    def record_page(self, request: PageRequest, keys: Sequence[RowKey], has_more: bool) -> Accepted:
        """Record an answer. Raises `NoProgress` if the list makes none."""
        window = request.window
        window.busy = False
        if not keys:
            return self._record_empty(request, has_more)
        if keys[-1].id == request.cursor:
            raise NoProgress(f"has more but repeats {request.cursor}")
        times = _times(keys, window.position)
        was_split = window.lo > request.lo
        keep = [
            n
            for n, key in enumerate(keys)
            if not (was_split and times[n] < window.lo) and key.id not in window.boundary_ids
        ]
        ended = not has_more or (was_split and times[-1] < window.lo)
        last_second = max(times[-1], window.lo)
        if keep:
            window.empty_pages = window.refused_cursors = 0
        self._advance(window, keys, times, last_second)
        return Accepted(keep, self._cover(window, ended))

    def cursor_refused(self, request: PageRequest) -> None:
        """Continue below the second of a deleted cursor by time; drop the rows of that second that
        were delivered already.

        Raises `NoProgress` if one cursor after the other is refused.
        """
        request.window.busy = False
        request.window.by_time = True
        request.window.refused_cursors += 1
        if request.window.refused_cursors > MAX_REFUSED_CURSORS:
            raise NoProgress("refuses one cursor after the other")

    def request_failed(self, request: PageRequest) -> None:
        """Free the window: its page was not read."""
        request.window.busy = False

    def _split(self) -> Window | None:
        known = [w for w in self.windows if w.splittable and w.seconds_per_page is not None]
        window = max(known, key=Window.pages_left, default=None)
        if (
            window is None
            or window.seconds_per_page is None
            or window.pages_left() - 1 < MIN_PAGES_TO_SPLIT
        ):  # one page is in flight
            return None
        top = window.position - window.seconds_per_page  # where that page should end
        mid = int((window.lo + top) // 2)
        if not window.lo < mid < window.position:
            return None
        lower = Window(
            window.lo, mid, position=mid, covered=mid, seconds_per_page=window.seconds_per_page
        )
        window.lo = mid
        self.windows.append(lower)
        return lower

    def _advance(
        self, window: Window, keys: Sequence[RowKey], times: Sequence[int], last_second: int
    ) -> None:
        span = float(window.position - last_second)
        window.seconds_per_page = (
            span if window.seconds_per_page is None else 0.6 * window.seconds_per_page + 0.4 * span
        )  # a mean: a burst cannot blow it up
        ids_at_last = {key.id for key, time in zip(keys, times, strict=True) if time == last_second}
        window.undated_ids |= {key.id for key in keys if key.created is None}
        window.boundary_ids = (
            window.boundary_ids if last_second == window.position else window.undated_ids
        ) | ids_at_last
        window.position, window.cursor, window.by_time = last_second, keys[-1].id, False

    def _record_empty(self, request: PageRequest, has_more: bool) -> Accepted:
        window = request.window
        if request.cursor is None and not has_more:
            return Accepted([], self._cover(window, True))
        window.empty_pages += 1
        if window.empty_pages > MAX_EMPTY_PAGES:
            raise NoProgress("says that it has more but stays empty")
        # a cursor inside the second of a bound can give an empty page that is not the end
        window.by_time = True
        return Accepted([], (window.covered, window.covered))

    def _cover(self, window: Window, ended: bool) -> Range:
        covered_before = window.covered
        window.covered = window.lo if ended else min(window.position + 1, covered_before)
        if ended:
            self.windows.remove(window)
        return window.covered, covered_before


def _times(keys: Sequence[RowKey], newest: int) -> list[int]:
    """When each row was created. A row without `created` counts to the second of the row before
    it, so that it covers nothing.
    """
    times = []
    for key in keys:
        newest = newest if key.created is None else key.created
        times.append(newest)
    return times


def subtract(ranges: Sequence[Range], covered: Range) -> list[Range]:
    """Return the ranges without the covered seconds."""
    lo, hi = covered
    if lo >= hi:
        return list(ranges)
    pieces = [piece for a, b in ranges for piece in ((a, min(b, lo)), (max(a, hi), b))]
    return [(a, b) for a, b in pieces if a < b]
