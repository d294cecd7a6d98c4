"""List endpoint in, pages out: one pool of threads reads all listings of a source in parallel,
within the rate budget.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ...api.client import Api
from ...api.rate_limits import endpoint_name
from ...errors import CursorGone, Unreachable
from .windows import Ask, Head, Planner, Range, Stuck

Rows = TypeVar("Rows")

BATCH_ROWS = 5_000  # rows per Arrow table
BATCH_BYTES = 16_000_000  # a page's bytes stay in memory until its table is built
MOST_BATCHES_WAITING = (
    2  # beyond that no new page is asked for, except by a listing that has less than one
)


@dataclass(frozen=True, slots=True)
class Page(Generic[Rows]):
    """One answer of a list endpoint: its rows (None: leave it out), what the planner needs of each,
    and Stripe's time when it was asked for.
    """

    rows: Sequence[Rows | None]
    heads: Sequence[Head]
    has_more: bool
    size: int
    requested_at: int


@dataclass(frozen=True, slots=True)
class Part(Generic[Rows]):
    """The rows to keep of a page, and the seconds of its walk that it completes."""

    rows: Sequence[Rows]
    size: int
    requested_at: int
    walk: int
    cover: Range


Fetch = Callable[[int, Ask], Page[Rows]]


@dataclass(eq=False)
class Listing(Generic[Rows]):
    """One listing of one resource: walks that follow each other, each over ranges of `created`
    seconds.
    """

    name: str
    path: str
    fetch: Fetch[Rows]  # (walk, ask) -> page, with its children complete
    walks: Sequence[Planner]
    parts: deque[Part[Rows]] = field(default_factory=deque)
    rows_waiting: int = 0
    bytes_waiting: int = 0
    rows_read: int = 0
    pages_read: int = 0
    error: BaseException | None = None
    page_wise: bool = False  # each page is a batch
    delivering: bool = False  # a page has moved its planner, but its rows do not wait yet

    @property
    def walk(self) -> int | None:
        """The walk that goes on now: the first that has not ended."""
        return next((n for n, planner in enumerate(self.walks) if not planner.finished), None)

    @property
    def finished(self) -> bool:
        """Whether every page was read (not: taken). Consumers look without a lock: nothing may come
        after this is true.
        """
        return self.walk is None and not self.delivering

    @property
    def batch_ready(self) -> bool:
        """Whether a whole batch waits, or the last rows do."""
        full = (
            bool(self.page_wise and self.parts)
            or self.rows_waiting >= BATCH_ROWS
            or self.bytes_waiting >= BATCH_BYTES
        )
        return full or (self.finished and bool(self.parts))

    def pages_left(self) -> float:
        """An estimate of the pages to come."""
        return sum(planner.pages_left() for planner in self.walks)


class Reader:
    """The pool. `open` starts a listing, `take` hands out what it has read, `close` stops
    everything.

    A page's rows are handed over before its window is free again, so parts of a window arrive in
    the order of its pages.
    """

    def __init__(self, api: Api) -> None:
        self.api = api
        self.listings: list[Listing[Any]] = []
        self.in_flight = 0
        self._threads: list[threading.Thread] = []
        self._turn = threading.Lock()  # only one thread ever waits for the clock
        self._cond = threading.Condition()
        self._closed = False

    def open(self, listing: Listing[Any]) -> None:
        """Start to read."""
        with self._cond:
            self.listings.append(listing)
            self._cond.notify_all()
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._work, name=f"stripe-feed-{n}", daemon=True)
                for n in range(self.api.threads)
            ]
            for thread in self._threads:
                thread.start()

    def take(self, listing: Listing[Rows]) -> list[Part[Rows]]:
        """Return about one batch of parts, or nothing when less than that is ready. Raises what
        reading raised.
        """
        with self._cond:
            if listing.error is not None:
                raise listing.error
            if not listing.batch_ready:
                return []
            taken: list[Part[Rows]] = []
            rows = size = 0
            most = 1 if listing.page_wise else BATCH_ROWS
            while listing.parts and rows < most and size < BATCH_BYTES:
                part = listing.parts.popleft()
                taken.append(part)
                rows += len(part.rows)
                size += part.size
            listing.rows_waiting -= rows
            listing.bytes_waiting -= size
            self._cond.notify_all()
            return taken

    def drop(self, listing: Listing[Any]) -> None:
        """Read no further pages of this listing."""
        with self._cond:
            if listing in self.listings:
                self.listings.remove(listing)
            self._cond.notify_all()

    def close(self) -> None:
        """End all threads; requests under way are left to themselves."""
        with self._cond:
            self._closed = True
            self._cond.notify_all()
        self.api.close()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            listing, walk, ask = job
            try:
                page = listing.fetch(walk, ask)
                with self._cond:
                    self._deliver(listing, walk, ask, page)
            except CursorGone:
                with self._cond:
                    self._refused(listing, walk, ask)
            except BaseException as error:  # raised again in the consumer's thread
                with self._cond:
                    listing.walks[walk].failed(ask)
                    listing.error = listing.error or error
            with self._cond:
                self.in_flight -= 1
                self._cond.notify_all()

    def _refused(self, listing: Listing[Any], walk: int, ask: Ask) -> None:
        try:
            listing.walks[walk].refused(ask)
        except Stuck as stuck:
            listing.error = listing.error or Unreachable(
                f"{listing.path} {stuck}. Run again; if it stays, report it."
            )

    def _deliver(self, listing: Listing[Any], walk: int, ask: Ask, page: Page[Any]) -> None:
        listing.delivering = True
        try:
            took = listing.walks[walk].page(ask, page.heads, page.has_more)
            rows = [row for n in took.keep if (row := page.rows[n]) is not None]
            listing.parts.append(Part(rows, page.size, page.requested_at, walk, took.cover))
        except Stuck as stuck:
            raise Unreachable(
                f"{listing.path} {stuck}. Run again; if it stays, report it."
            ) from None
        finally:
            listing.delivering = False
        listing.rows_waiting += len(rows)
        listing.bytes_waiting += page.size
        listing.rows_read += len(rows)
        listing.pages_read += 1

    def _next(self) -> tuple[Listing[Any], int, Ask] | None:
        with self._turn, self._cond:
            while not self._closed:
                job, wait = self._choose()
                if job is not None:
                    self.in_flight += 1
                    return job
                self._cond.wait(wait)
        return None

    def _choose(self) -> tuple[tuple[Listing[Any], int, Ask] | None, float | None]:
        """A job whose tokens are paid, or how long to wait for a token (None: until something
        happens).
        """
        if self.in_flight >= self.api.in_flight_ceiling:
            return None, None
        wait: float | None = None
        for listing in sorted(self._open_listings(), key=Listing.pages_left, reverse=True):
            walk = listing.walk
            if walk is None:
                continue
            endpoint = endpoint_name(listing.path)
            ready_in = self.api.ready_in(endpoint)
            if ready_in > 0:
                wait = ready_in if wait is None else min(wait, ready_in)
                continue
            ask = listing.walks[walk].take()
            if ask is not None:
                self.api.take_token(endpoint)
                return (listing, walk, ask), None
        return None, wait

    def _open_listings(self) -> list[Listing[Any]]:
        waiting_rows = sum(listing.rows_waiting for listing in self.listings)
        waiting_bytes = sum(listing.bytes_waiting for listing in self.listings)
        crowded = (
            waiting_rows >= MOST_BATCHES_WAITING * BATCH_ROWS
            or waiting_bytes >= MOST_BATCHES_WAITING * BATCH_BYTES
        )
        return [
            listing
            for listing in self.listings
            if listing.error is None
            and not (
                crowded
                and (listing.rows_waiting >= BATCH_ROWS or listing.bytes_waiting >= BATCH_BYTES)
            )
        ]
