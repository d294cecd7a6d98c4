"""Which page to ask for next: disjoint windows of `created` seconds, split only when a request may
be sent and none waits.

Pure: no I/O, no clock, no threads. Whole seconds, half-open ranges `[lo, hi)`; `lo` 0 means without
a lower bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Range = tuple[int, int]

LEAST_PAGES = (
    3  # a window with fewer pages left is not worth a split: every window costs half a page
)
UNKNOWN = float("inf")  # pages left in a window that nobody has looked into
MOST_EMPTY = 5
MOST_REFUSED = 200  # cursors in a row


class Stuck(Exception):
    """A list repeats itself or stays empty although it says that it has more."""


@dataclass(slots=True, eq=False)
class Window:
    """A range that is walked newest first, by one request at a time."""

    lo: int
    hi: int
    splittable: bool = True
    cursor: str | None = None
    pos: int = 0  # created of the last row delivered; at first `hi`
    covered: int = 0  # everything from here up to `hi` is delivered
    spp: float | None = None  # seconds per page, smoothed
    busy: bool = False
    rest: bool = False  # go on by time below `pos + 1`, because the cursor is of no use
    empty: int = 0
    refused: int = 0
    edge: set[str] = field(default_factory=set)  # ids delivered with created == pos
    undated: set[str] = field(default_factory=set)  # ids delivered without created

    def pages_left(self) -> float:
        """An estimate; infinite before the first page."""
        return UNKNOWN if self.spp is None else (self.pos - self.lo) / max(self.spp, 0.001)


@dataclass(frozen=True, slots=True)
class Ask:
    """One page to ask for, and the window it belongs to."""

    window: Window
    lo: int
    hi: int
    cursor: str | None

    def params(self) -> dict[str, object]:
        """The list parameters of this page."""
        created = {"lt": self.hi, **({"gte": self.lo} if self.lo > 0 else {})}
        return {
            "limit": 100,
            "created": created,
            **({"starting_after": self.cursor} if self.cursor else {}),
        }


@dataclass(frozen=True, slots=True)
class Head:
    """What the planner needs to know of a row. `created` is null on a few very old objects."""

    id: str
    created: int | None


@dataclass(frozen=True, slots=True)
class Took:
    """What to keep of a page, and the seconds that it completes."""

    keep: list[int]
    cover: Range


class Planner:
    """Walks disjoint ranges of one list endpoint, in as many windows as the rate allows.

    The windows and what was delivered always partition the ranges given: a window ends only when
    Stripe says that there is no more, when it crosses its lower bound (raised by a split), or by an
    empty answer to a request without a cursor.
    """

    def __init__(self, ranges: Sequence[Range]) -> None:
        self.windows = [
            Window(lo, hi, splittable=lo > 0, pos=hi, covered=hi) for lo, hi in ranges if lo < hi
        ]

    @property
    def finished(self) -> bool:
        """Whether every window has ended."""
        return not self.windows

    def pages_left(self) -> float:
        """An estimate of the pages not yet asked for; infinite where nobody has looked."""
        return sum(window.pages_left() for window in self.windows)

    def take(self) -> Ask | None:
        """The next page to ask for; call it only when a request may be sent now. Nothing: every
        window is under way.
        """
        free = [window for window in self.windows if not window.busy]
        window = max(free, key=Window.pages_left, default=None) or self._split()
        if window is None:
            return None
        window.busy = True
        if window.rest:
            return Ask(window, window.lo, min(window.pos + 1, window.hi), None)
        return Ask(window, window.lo, window.hi, window.cursor)

    def page(self, ask: Ask, heads: Sequence[Head], has_more: bool) -> Took:
        """Take note of an answer. Raises `Stuck` when the list makes no progress."""
        window = ask.window
        window.busy = False
        if not heads:
            return self._empty(ask, has_more)
        if heads[-1].id == ask.cursor:
            raise Stuck(f"has more but repeats {ask.cursor}")
        times = _times(heads, window.pos)
        cut = window.lo > ask.lo
        keep = [
            n
            for n, head in enumerate(heads)
            if not (cut and times[n] < window.lo) and head.id not in window.edge
        ]
        ended = not has_more or (cut and times[-1] < window.lo)
        last = max(times[-1], window.lo)
        if keep:
            window.empty = window.refused = 0
        self._advance(window, heads, times, last)
        return Took(keep, self._cover(window, ended))

    def refused(self, ask: Ask) -> None:
        """The cursor was deleted meanwhile: go on below its second by time; what was seen of that
        second is dropped.

        Raises `Stuck` when one cursor after the other is refused.
        """
        ask.window.busy = False
        ask.window.rest = True
        ask.window.refused += 1
        if ask.window.refused > MOST_REFUSED:
            raise Stuck("refuses one cursor after the other")

    def failed(self, ask: Ask) -> None:
        """The page was not read: the window is free again."""
        ask.window.busy = False

    def _split(self) -> Window | None:
        known = [w for w in self.windows if w.splittable and w.spp is not None]
        window = max(known, key=Window.pages_left, default=None)
        if (
            window is None or window.spp is None or window.pages_left() - 1 < LEAST_PAGES
        ):  # one page is in flight
            return None
        top = window.pos - window.spp  # where that page should end
        mid = int((window.lo + top) // 2)
        if not window.lo < mid < window.pos:
            return None
        lower = Window(window.lo, mid, pos=mid, covered=mid, spp=window.spp)
        window.lo = mid
        self.windows.append(lower)
        return lower

    def _advance(
        self, window: Window, heads: Sequence[Head], times: Sequence[int], last: int
    ) -> None:
        span = float(window.pos - last)
        window.spp = (
            span if window.spp is None else 0.6 * window.spp + 0.4 * span
        )  # a mean: a burst cannot blow it up
        here = {head.id for head, time in zip(heads, times, strict=True) if time == last}
        window.undated |= {head.id for head in heads if head.created is None}
        window.edge = (window.edge if last == window.pos else window.undated) | here
        window.pos, window.cursor, window.rest = last, heads[-1].id, False

    def _empty(self, ask: Ask, has_more: bool) -> Took:
        window = ask.window
        if ask.cursor is None and not has_more:
            return Took([], self._cover(window, True))
        window.empty += 1
        if window.empty > MOST_EMPTY:
            raise Stuck("says that it has more but stays empty")
        window.rest = (
            True  # a cursor inside the second of a bound can give an empty page that is not the end
        )
        return Took([], (window.covered, window.covered))

    def _cover(self, window: Window, ended: bool) -> Range:
        top = window.covered
        down = window.lo if ended else min(window.pos + 1, top)
        window.covered = down
        if ended:
            self.windows.remove(window)
        return down, top


def _times(heads: Sequence[Head], newest: int) -> list[int]:
    """When each row was created. One that does not say counts to the second of the row before it,
    so that it covers nothing.
    """
    times = []
    for head in heads:
        newest = newest if head.created is None else head.created
        times.append(newest)
    return times


def subtract(ranges: Sequence[Range], cover: Range) -> list[Range]:
    """Return the ranges without the covered seconds."""
    lo, hi = cover
    if lo >= hi:
        return list(ranges)
    pieces = [piece for a, b in ranges for piece in ((a, min(b, lo)), (max(a, hi), b))]
    return [(a, b) for a, b in pieces if a < b]
