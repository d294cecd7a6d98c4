"""Read all listings of a source in parallel with one pool of threads, within the rate budget."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from ...api.client import Api
from ...api.rate_limits import endpoint_name
from ...errors import CursorGone, Unreachable
from .windows import NoProgress, PageRequest, Range, RowKey, Walk

PageRow = TypeVar("PageRow")

MAX_TABLE_ROWS = 2_500  # rows per Arrow table
MAX_TABLE_BYTES = 8_000_000  # a page's bytes stay in memory until its table is built
# beyond that, only a listing with less than one batch waiting asks for pages
MAX_WAITING_BATCHES = 2
MAX_PAUSE = 0.05  # seconds that a consumer waits for a batch, so that it need not ask all the time


@dataclass(frozen=True, slots=True)
class ListPage(Generic[PageRow]):
    """One answer of a list endpoint: by id the rows to keep, the keys of all its objects, and
    Stripe's time of the request. The reader adds which seconds it completes, of which walk.
    """

    rows: Mapping[str, PageRow]
    keys: Sequence[RowKey]
    has_more: bool
    size: int
    requested_at: int
    walk: int = 0
    covered: Range = (0, 0)


FetchPage = Callable[[int, PageRequest], ListPage[PageRow]]


@dataclass(eq=False)
class Listing(Generic[PageRow]):
    """One listing of one resource: walks that follow each other, each over ranges of `created`
    seconds, or over the whole list.
    """

    name: str
    path: str
    fetch: FetchPage[PageRow]  # (walk, request) -> page, with its children complete
    walks: Sequence[Walk]
    waiting: deque[ListPage[PageRow]] = field(default_factory=deque)
    rows_waiting: int = 0
    bytes_waiting: int = 0
    rows_read: int = 0
    pages_read: int = 0
    error: BaseException | None = None
    batch_per_page: bool = False  # each page is a batch
    handing_over: bool = False  # the planner has recorded a page whose rows do not wait yet

    @property
    def walk(self) -> int | None:
        """The current walk: the first that has not ended."""
        return next((n for n, planner in enumerate(self.walks) if not planner.finished), None)

    @property
    def finished(self) -> bool:
        """Whether every page was read (not: taken). Consumers read this without a lock: no rows may
        come after it is true.
        """
        return self.walk is None and not self.handing_over

    @property
    def done(self) -> bool:
        """Whether every page was read and taken."""
        return self.finished and not self.waiting

    @property
    def batch_ready(self) -> bool:
        """Whether a whole batch waits, or the last rows do."""
        full = (
            bool(self.batch_per_page and self.waiting)
            or self.rows_waiting >= MAX_TABLE_ROWS
            or self.bytes_waiting >= MAX_TABLE_BYTES
        )
        return full or (self.finished and bool(self.waiting))

    def pages_left(self) -> float:
        """Estimate the pages to come."""
        return sum(planner.pages_left() for planner in self.walks)


class PageReader:
    """The pool. `open` starts a listing, `next_batch` returns what was read of it, `close` stops
    everything.

    The rows of a page are handed over before its window is free again, so the pages of a window
    arrive in their order.
    """

    def __init__(self, api: Api) -> None:
        self.api = api
        self.listings: list[Listing[Any]] = []
        self.in_flight = 0
        self._threads: list[threading.Thread] = []
        self._choosing = threading.Lock()  # only one thread ever waits for the clock
        self._cond = threading.Condition()
        self._closed = False

    def open(self, listing: Listing[Any]) -> None:
        """Start to read a listing."""
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

    def next_batch(self, listing: Listing[PageRow]) -> list[ListPage[PageRow]]:
        """Return about one batch of pages, or none if less than a batch is ready. Raises what
        reading raised.

        All listings have one consumer, which asks for each in turn: it pauses at the last one until
        any has something for it.
        """
        with self._cond:
            if self.listings and listing is self.listings[-1]:
                self._cond.wait_for(self._has_news, MAX_PAUSE)
            if listing.error is not None:
                raise listing.error
            if not listing.batch_ready:
                return []
            batch: list[ListPage[PageRow]] = []
            rows = size = 0
            max_rows = 1 if listing.batch_per_page else MAX_TABLE_ROWS
            while listing.waiting and rows < max_rows and size < MAX_TABLE_BYTES:
                page = listing.waiting.popleft()
                batch.append(page)
                rows += len(page.rows)
                size += page.size
            listing.rows_waiting -= rows
            listing.bytes_waiting -= size
            self._cond.notify_all()
            return batch

    def _has_news(self) -> bool:
        return self._closed or any(
            listing.batch_ready or listing.error is not None for listing in self.listings
        )

    def stop(self, listing: Listing[Any]) -> None:
        """Read no further pages of this listing."""
        with self._cond:
            if listing in self.listings:
                self.listings.remove(listing)
            self._cond.notify_all()

    def close(self) -> None:
        """End all threads; requests in flight are not waited for."""
        with self._cond:
            self._closed = True
            self._cond.notify_all()
        self.api.close()

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            listing, walk, request = job
            try:
                page = listing.fetch(walk, request)
                with self._cond:
                    self._hand_over(listing, walk, request, page)
            except CursorGone:
                with self._cond:
                    self._cursor_refused(listing, walk, request)
            except BaseException as error:  # raised again in the consumer's thread
                with self._cond:
                    listing.walks[walk].request_failed(request)
                    listing.error = listing.error or error
            with self._cond:
                self.in_flight -= 1
                self._cond.notify_all()

    def _cursor_refused(self, listing: Listing[Any], walk: int, request: PageRequest) -> None:
        try:
            listing.walks[walk].cursor_refused(request)
        except NoProgress as stuck:
            listing.error = listing.error or Unreachable(
                f"{listing.path} {stuck}. Run again; if it stays, report it."
            )

    def _hand_over(
        self, listing: Listing[Any], walk: int, request: PageRequest, page: ListPage[Any]
    ) -> None:
        listing.handing_over = True
        try:
            accepted = listing.walks[walk].record_page(request, page.keys, page.has_more)
            ids = (page.keys[n].id for n in accepted.kept)
            rows = {id: page.rows[id] for id in ids if id in page.rows}
            listing.waiting.append(replace(page, rows=rows, walk=walk, covered=accepted.covered))
        except NoProgress as stuck:
            raise Unreachable(
                f"{listing.path} {stuck}. Run again; if it stays, report it."
            ) from None
        finally:
            listing.handing_over = False
        listing.rows_waiting += len(rows)
        listing.bytes_waiting += page.size
        listing.rows_read += len(rows)
        listing.pages_read += 1

    def _next_job(self) -> tuple[Listing[Any], int, PageRequest] | None:
        with self._choosing, self._cond:
            while not self._closed:
                job, wait = self._choose_job()
                if job is not None:
                    self.in_flight += 1
                    return job
                self._cond.wait(wait)
        return None

    def _choose_job(self) -> tuple[tuple[Listing[Any], int, PageRequest] | None, float | None]:
        """Choose a job and take its tokens, or say how long to wait for a token (None: until
        something happens).
        """
        if self.in_flight >= self.api.in_flight_ceiling:
            return None, None
        wait: float | None = None
        for listing in sorted(self._open_listings(), key=Listing.pages_left, reverse=True):
            walk = listing.walk
            if walk is None:
                continue
            endpoint = endpoint_name(listing.path)
            ready_in = self.api.take_token(endpoint)
            if ready_in > 0:
                wait = ready_in if wait is None else min(wait, ready_in)
                continue
            request = listing.walks[walk].next_request()
            if request is not None:
                return (listing, walk, request), None
            self.api.return_token(endpoint)
        return None, wait

    def _open_listings(self) -> list[Listing[Any]]:
        waiting_rows = sum(listing.rows_waiting for listing in self.listings)
        waiting_bytes = sum(listing.bytes_waiting for listing in self.listings)
        crowded = (
            waiting_rows >= MAX_WAITING_BATCHES * MAX_TABLE_ROWS
            or waiting_bytes >= MAX_WAITING_BATCHES * MAX_TABLE_BYTES
        )
        return [
            listing
            for listing in self.listings
            if listing.error is None
            and not (
                crowded
                and (
                    listing.rows_waiting >= MAX_TABLE_ROWS
                    or listing.bytes_waiting >= MAX_TABLE_BYTES
                )
            )
        ]
