"""What the resources of one source share while they run: the API, the pool of readers, the account,
the options.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, get_args

import dlt

from ..api.client import API_VERSION, GIVE_UP_AFTER, Account, Api
from ..api.stripe_time import CLOCK_TOLERANCE
from ..errors import NotReadable, UsageError
from ..resources import CHANGES, RESOURCES
from .events.reader import newest_created
from .next_step import RETENTION, SECONDS_PER_DAY, UNPROVEN, Step
from .options import (
    LOOK_BACK,
    SETTLE,
    Deletes,
    Options,
    SourceOptions,
    _expandable_fields,
    _unix_seconds,
)
from .paging.fetch import fetch_test_clocks
from .paging.reader import Listing, PageReader
from .tables.codec import Record, TableCodec
from .tables.rejected import RejectedObjects, describe_rejected

log = logging.getLogger("stripe_feed")


class RunContext:
    """Opened by the first resource that runs, closed by the last one (unless it is `kept` for
    several packages).
    """

    def __init__(
        self, make_api: Callable[[], Api], options: Options, keep_open: bool = False
    ) -> None:
        self.make_api = make_api
        self.options = options
        self.keep_open = keep_open
        self.codecs = {
            table: TableCodec(row, options.expand.get(table, ()))
            for table, row in RESOURCES.items()
        }
        self.listing_runs: dict[
            str, Any
        ] = {}  # live listings by table, for packages that follow each other
        self.refused: dict[str, NotReadable] = {}
        self.rows: dict[str, int] = {}  # rows handed to dlt, by table
        self.package_rows = 0
        self.embedded_seen: set[str] = set()
        self.left_out = RejectedObjects()  # objects that cannot be taken
        self.sql_client: tuple[str, Any, str] | None = (
            None  # the destination's SQL client and type, by load package
        )
        self.next_steps: dict[str, Step] = {}  # of the resources that entered this package
        self.unfinished: set[str] = set()  # resources whose events wait for the next package
        self.reconciled: set[str] = set()
        self.compared_listings: list[Listing[Record]] = []  # whole lists, read to be compared
        self.healed: dict[str, int] = {}  # differences that reconcile found, by table
        self.restored: dict[
            str, int
        ] = {}  # rows that it found wrong although nothing had happened at Stripe
        self.events_denied: NotReadable | None = None  # why events cannot be read
        self.webhook_events: Sequence[Any] = ()  # events that webhooks told of, still to be read
        self.failed_events: dict[
            str, str
        ] = {}  # those that could not be read, each with the class of its error
        self.retried_events: set[str] = set()  # odd events that earlier runs left out
        self.only_by_id = False  # whether this package is for those that no list shows
        self.polls = True  # whether events are read that no webhook told of
        self.followed_tables: Sequence[
            str
        ] = ()  # whose events are read where no list runs; none: of all that were
        self.events_checked = False
        self.newest_seen = 0  # the newest second of Stripe's of which something is known
        self.clocks_checked_for = (
            ""  # the load whose beginning looked at what a wrong clock had left
        )
        self.proven_second: int | None = None  # the second that was proven then
        self.lock_wait = 0.0  # seconds to wait for a process that has the DuckDB file open
        self._lock = threading.Lock()
        self._running = self._ended = 0
        self._failed = False
        self._api: Api | None = None
        self._reader: PageReader | None = None
        self._account: Account | None = None
        self._clocks: list[str] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._changes = 0

    @property
    def api(self) -> Api:
        """The API, made on first use: a missing key shows only when something is read."""
        with self._lock:
            if self._api is None:
                self._api = self.make_api()
            return self._api

    @property
    def reader(self) -> PageReader:
        """The pool of threads."""
        if self._reader is None:
            self._reader = PageReader(self.api)
        return self._reader

    @property
    def pool(self) -> ThreadPoolExecutor:
        """Threads for what is asked for one by one."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.api.threads, thread_name_prefix="stripe-feed-read")
        return self._pool

    @property
    def account(self) -> Account:
        """Whose key this is."""
        if self._account is None:
            self._account = self.api.account()
        return self._account

    @property
    def test_clocks(self) -> list[str]:
        """The ids of the account's test clocks, where their objects are asked for: lists hide these
        unless a clock is named.
        """
        if not self.options.test_clocks or self.api.live:
            return []
        if self._clocks is None:
            self._clocks = fetch_test_clocks(self.api)
        return self._clocks

    @property
    def package_full(self) -> bool:
        """Whether this package has as many rows as it should."""
        return (
            self.options.package_rows is not None and self.package_rows >= self.options.package_rows
        )

    @property
    def listings(self) -> list[Listing[Record]]:
        """All listings so far, for progress."""
        return [*(run.listing for run in self.listing_runs.values()), *self.compared_listings]

    @property
    def finished(self) -> bool:
        """Whether every listing that began has handed out its last row, and the events since then
        were read.
        """
        return not self.unfinished and all(
            run.done or table in self.refused for table, run in self.listing_runs.items()
        )

    def begin_package(self) -> None:
        """Count rows anew."""
        self.package_rows = self._changes = 0
        self.next_steps.clear()
        self.unfinished.clear()

    def count_changes(self, count: int) -> int:
        """The place of the first of so many changes within the load."""
        first, self._changes = self._changes, self._changes + count
        if count:
            self.rows[CHANGES] = self.rows.get(CHANGES, 0) + count
        return first

    def reads_events(self, selected: Sequence[str]) -> bool:
        """Whether events are to be read beside the lists."""
        return CHANGES in selected and self.options.end is None and self.events_denied is None

    def can_read_events(self) -> bool:
        """Whether the key may read events; the first to ask finds out."""
        if not self.events_checked:
            self.events_checked = True
            try:
                self.note_activity(newest_created(self.api) or self._newest_customer_ahead())
            except NotReadable as refusal:
                self.events_denied = refusal
        return self.events_denied is None

    def _newest_customer_ahead(self) -> int:
        """When the newest customer was made, if that is long after Stripe's `Date`: without events
        nothing else tells.
        """
        now = self.api.now()
        if now < self.api.clock.time() - RETENTION:
            with suppress(NotReadable):
                newest = newest_created(self.api, RESOURCES["customers"].path)
                return newest if newest > now + RETENTION else 0
        return 0

    @property
    def is_in_doubt(self) -> bool:
        """Whether Stripe's `Date` is ahead of this machine's clock by up to a day: one of them is
        wrong. By more, it is believed: where a cursor is so far ahead, the next run sees it.
        """
        return CLOCK_TOLERANCE < self.api.now() - self.api.clock.time() <= SECONDS_PER_DAY

    def proven(self, second: int) -> int:
        """The latest second up to this one that has surely passed at Stripe: a cursor must not be
        ahead of it.
        """
        return (
            min(second, max(int(self.api.clock.time()), self.newest_seen))
            if self.is_in_doubt
            else second
        )

    def note_activity(self, second: int) -> None:
        """Something happened at Stripe then."""
        if (
            second <= max(self.api.now(), self.api.clock.time()) + CLOCK_TOLERANCE
        ):  # otherwise it is odd itself
            self.newest_seen = max(self.newest_seen, second)
            self.api.advance_clock(second)

    def acquire(self) -> None:
        """A resource begins to run."""
        self._running += 1

    def release(self, selected: Sequence[str], failed: bool) -> None:
        """A resource ended. The last of those selected closes the session, or the last that runs
        once one has failed.

        A session that was refused by all raises the refusal; events alone, without a list that may
        be read, do not count.
        """
        self._running -= 1
        self._ended += 1
        self._failed = self._failed or failed
        needed = [table for table in selected if table in RESOURCES] or selected
        refusal = (
            self.refused[needed[0]] if all(table in self.refused for table in needed) else None
        )
        if (
            self._running == 0
            and not self.keep_open
            and (self._failed or self._ended >= len(selected))
        ):
            self.close()
            for sentence in describe_rejected(self.left_out.reasons):
                log.warning("%s", sentence)
            self.left_out = RejectedObjects()
            self.webhook_events, self.only_by_id = (), False
            self.retried_events.clear()
            self.failed_events.clear()
            self.refused.clear()
            self.reconciled.clear()
            self.compared_listings.clear()
        if refusal is not None:
            raise refusal

    def close(self) -> None:
        """Stop all reading; the session can be used again."""
        if self._reader is not None:
            self._reader.close()
        elif self._api is not None:
            self._api.close()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool, self.events_denied, self.events_checked = None, None, False
        self.next_steps.clear()
        self.unfinished.clear()
        self._api = self._reader = self._account = self._clocks = None
        self._ended, self._failed = 0, False
        self.listing_runs.clear()
        self.embedded_seen.clear()

    def count_rows(self, table: str, rows: int) -> None:
        """Count rows that go to dlt; a package is measured in objects, without their children."""
        self.rows[table] = self.rows.get(table, 0) + rows
        self.package_rows += rows if table in RESOURCES else 0
        if rows and self.proven_second is not None and self.is_in_doubt:
            dlt.current.source_state()[UNPROVEN] = self.proven_second


def open_run(
    reading: SourceOptions,
    package_rows: int | None = None,
    keep_open: bool = False,
    reconcile: frozenset[str] = frozenset(),
) -> RunContext:
    """The session that reads as asked. Raises `UsageError`."""
    start, end = (
        _unix_seconds("start_date", reading.get("start_date")),
        _unix_seconds("end_date", reading.get("end_date")),
    )
    if start is not None and end is not None and start >= end:
        raise UsageError("start_date is not before end_date. Swap them, or leave one out.")
    look_back = reading.get("look_back", LOOK_BACK)
    if look_back < 0:
        raise UsageError("look_back must be 0 or more seconds.")
    settle = reading.get("settle", SETTLE)
    if settle < 0:
        raise UsageError("settle must be 0 or more seconds.")
    deletes = reading.get("deletes", "soft")
    if deletes not in get_args(Deletes):
        raise UsageError(f"deletes must be soft or hard, not {deletes!r}.")
    options = Options(
        start,
        end,
        _expandable_fields(reading.get("expand") or {}),
        reading.get("test_clocks", False),
        look_back,
        settle,
        deletes,
        reading.get("snapshot", False),
        reconcile,
        package_rows,
    )

    def make_api() -> Api:
        return Api(
            reading.get("api_key"),
            base=reading.get("api_base"),
            version=reading.get("api_version", API_VERSION),
            max_rps=reading.get("max_rps"),
            endpoint_rps=reading.get("endpoint_rps"),
            give_up_after=reading.get("give_up_after", GIVE_UP_AFTER),
            allow_api_base=reading.get("allow_api_base", False),
        )

    return RunContext(make_api, options, keep_open)
