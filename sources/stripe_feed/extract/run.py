"""What the resources of one source share during a run: the options, the plan, the counters and the
open connections.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ..api.account import Account
from ..api.client import API_VERSION, GIVE_UP_AFTER, Api
from ..api.rate_limits import SharedBudget
from ..api.stripe_time import CLOCK_TOLERANCE
from ..api.transport import BytesHttpClient
from ..errors import NotReadable
from ..resources import CHANGES, RESOURCES
from .accounts.package import source_state
from .events.reader import newest_created
from .events.webhook import PendingEvents, WebhookEvent
from .next_step import (
    RETENTION,
    SECONDS_PER_DAY,
    UNPROVEN,
    RunPlan,
    must_probe_events,
    plan_run,
)
from .options import Options, SourceOptions, check_options
from .paging.fetch import fetch_test_clocks
from .paging.listing import ListingRun
from .paging.reader import PageReader
from .tables.codec import TableCodec
from .tables.rejected import RejectedObjects, describe_rejected

log = logging.getLogger("stripe_feed")

# in the source's state: the key could not read events, so the next run asks before its lists
EVENTS_DENIED = "events_denied"
# in the source's state: changes were stored, so an empty `changes` table has lost them
HAS_CHANGES = "has_told"
_THREADS = 32
THREADS_OF_ACCOUNT = 12  # several are read at once
THREADS_OF_MANY = 4  # the same, where many are


class _Connections:
    """What a run has open; each is made on first use, so that a missing key shows only when
    something is read.
    """

    def __init__(self, make_api: Callable[[], Api]) -> None:
        self._make_api = make_api
        self._lock = threading.Lock()
        self._api: Api | None = None
        self._reader: PageReader | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._account: Account | None = None
        self._clocks: list[str] | None = None
        self._client: tuple[str, Any, str, frozenset[str]] | None = None

    @property
    def api(self) -> Api:
        """The API."""
        with self._lock:
            if self._api is None:
                self._api = self._make_api()
            return self._api

    @property
    def reader(self) -> PageReader:
        """The threads that read lists."""
        if self._reader is None:
            self._reader = PageReader(self.api)
        return self._reader

    @property
    def pool(self) -> ThreadPoolExecutor:
        """The threads for single requests."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.api.threads, thread_name_prefix="stripe-feed-read")
        return self._pool

    @property
    def account(self) -> Account:
        """The account of the key, or the connected account that is read."""
        if self._account is None:
            self._account = self.api.account()
        return self._account

    @property
    def test_clocks(self) -> list[str]:
        """The ids of the account's test clocks; none in live mode."""
        if self._clocks is None:
            self._clocks = [] if self.api.live else fetch_test_clocks(self.api)
        return self._clocks

    def sql_client(
        self, load_id: str, make: Callable[[], tuple[Any, str, frozenset[str]]]
    ) -> tuple[Any, str, frozenset[str]]:
        """Return the destination's SQL client, its type and its empty tables; once per package."""
        if self._client is None or self._client[0] != load_id:
            self._client = (load_id, *make())
        return self._client[1:]

    def close(self) -> None:
        """Stop all reading; what is used again is opened anew."""
        self.rest()
        self._account = self._clocks = None

    def rest(self) -> None:
        """Stop all reading until the next package; what the account is, is known then."""
        if self._reader is not None:
            self._reader.close()
        elif self._api is not None:
            self._api.close()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._api = self._reader = self._pool = None


@dataclass
class Counters:
    """What a run has done so far. A package is measured in objects, without their children."""

    rows: dict[str, int] = field(default_factory=dict)  # rows handed to dlt, by table
    package_rows: int = 0
    package_tables: set[str] = field(default_factory=set)  # those that got rows in this package
    package_changes: int = 0
    healed: dict[str, int] = field(default_factory=dict)  # differences found, by table
    # rows that a comparison found wrong although nothing had happened at Stripe
    restored: dict[str, int] = field(default_factory=dict)

    def add_rows(self, table: str, rows: int) -> None:
        """Count rows that go to dlt."""
        self.rows[table] = self.rows.get(table, 0) + rows
        self.package_rows += rows if table in RESOURCES else 0
        if rows:
            self.package_tables.add(table)

    def add_pending(self, rows: Mapping[str, int]) -> None:
        """Count the rows of loads that an earlier run had left."""
        self.rows.update(rows)

    def add_changes(self, count: int) -> int:
        """Count changes, and return the position of the first within the load."""
        first, self.package_changes = self.package_changes, self.package_changes + count
        if count:
            self.rows[CHANGES] = self.rows.get(CHANGES, 0) + count
        return first

    def add_fixes(self, table: str, healed: int, restored: int) -> None:
        """Count what a comparison has fixed."""
        self.healed[table] = healed
        if restored:
            self.restored[table] = restored

    def begin_package(self) -> None:
        """Count the rows of a package from 0."""
        self.package_rows = self.package_changes = 0
        self.package_tables.clear()


class _Codecs(dict[str, TableCodec]):
    """The codec of each resource, made when it is needed first."""

    def __init__(self, expand: Mapping[str, Sequence[str]]) -> None:
        self._expand = expand

    def __missing__(self, table: str) -> TableCodec:
        codec = TableCodec(RESOURCES[table], self._expand.get(table, ()))
        return self.setdefault(table, codec)  # threads share one


def shared_codecs(options: Options) -> Mapping[str, TableCodec]:
    """The codecs of all resources, for the runs of several accounts with the same options."""
    return _Codecs(options.expand)


class RunContext:
    """The shared state of a run. The first resource that runs opens its connections, the last one
    closes them, unless they are kept open for several packages (`keep_open`).
    """

    def __init__(
        self,
        make_api: Callable[[], Api],
        options: Options,
        keep_open: bool = False,
        webhook_events: Iterable[WebhookEvent] = (),
        codecs: Mapping[str, TableCodec] | None = None,
    ) -> None:
        self.options = options
        self.keep_open = keep_open
        self.connections = _Connections(make_api)
        self.counters = Counters()
        self.codecs = shared_codecs(options) if codecs is None else codecs
        self.listing_runs: dict[str, ListingRun] = {}  # kept for the packages that follow
        self.compared: set[str] = set()  # resources that this run has compared
        self.refused: dict[str, NotReadable] = {}
        self.events_denied: NotReadable | None = None  # why events cannot be read
        self.left_out = RejectedObjects()  # objects that cannot be stored
        self.pending_events = PendingEvents(webhook_events)
        self.had_changes = False  # changes were stored before this package
        self.embedded_seen: set[str] = set()  # in this package: there may be millions
        self.newest_seen = 0  # the newest second at which something happened at Stripe
        self.needs_another_package = False
        self._proven_second: int | None = None  # proven when the package began
        self._clocks_checked_for = ""  # the load that checked for the effects of a wrong clock
        self._plan: RunPlan | None = None
        self._ended_lists: set[str] = set()
        self._events_checked = self._is_by_id = self._next_is_by_id = False
        self._running = self._ended = 0
        self._failed = False

    @property
    def api(self) -> Api:
        """The API."""
        return self.connections.api

    @property
    def account(self) -> Account:
        """The account of the key."""
        return self.connections.account

    @property
    def test_clocks(self) -> list[str]:
        """The ids of the account's test clocks, if their objects are loaded: lists hide these
        unless a clock is named.
        """
        return self.connections.test_clocks if self.options.test_clocks else []

    # -- the plan of a package

    def plan(self, selected: Sequence[str]) -> RunPlan:
        """Return the plan of this package. The first resource that asks makes it, from the state
        alone, before any list or event is requested.
        """
        if self._plan is None:
            self._plan = self._make_plan(
                [name for name in selected if name in RESOURCES], CHANGES in selected
            )
        return self._plan

    def _make_plan(self, lists: Sequence[str], with_changes: bool) -> RunPlan:
        state = source_state()
        states, now = state.get("resources", {}), self.api.now()
        self.had_changes = HAS_CHANGES in state
        if not with_changes and self.options.end is None:
            log.warning(
                "`changes` is not selected: updates, cancellations and deletes of older objects are not seen."
            )
        reads_events = with_changes and self.options.end is None and self.events_denied is None
        was_denied = EVENTS_DENIED in state and any(RESOURCES[n].events for n in lists)
        if reads_events and (was_denied or must_probe_events(states, lists, now)):
            reads_events = self.can_read_events()
        return plan_run(
            states,
            lists,
            now,
            reads_events=reads_events,
            compares=with_changes and self.options.end is None,
            is_range=self.options.end is not None,
            start=self.options.start or 0,
            relist_every=self.options.relist_every,
            followed=[name for name in RESOURCES if name in (self.options.followed or RESOURCES)],
            reconcile=self.options.reconcile,
            listed=self.listing_runs,
            compared=self.compared,
            is_by_id=self._is_by_id,
        )

    def can_read_events(self) -> bool:
        """Whether the key may read events; asked once."""
        if not self._events_checked:
            self._events_checked = True
            try:
                self.note_activity(newest_created(self.api) or self._newest_customer_ahead())
            except NotReadable as refusal:
                self.deny_events(refusal)
        return self.events_denied is None

    def deny_events(self, refusal: NotReadable) -> None:
        """Record that events cannot be read; later runs ask before they read their lists."""
        self.events_denied = refusal

    def refuse(self, name: str, refusal: NotReadable) -> None:
        """Record that a resource cannot be read."""
        self.refused.setdefault(name, refusal)

    # -- the course of a package

    def begin_package(self) -> None:
        """Start another package of this run."""
        self.counters.begin_package()
        self.embedded_seen.clear()
        self.needs_another_package = False
        self._is_by_id, self._next_is_by_id = self._next_is_by_id, False
        self._plan = None
        self._ended_lists.clear()

    def end_list(self, table: str) -> None:
        """Record that a list is read, as far as this package reads it."""
        self._ended_lists.add(table)

    def has_ended(self, lists: Collection[str]) -> bool:
        """Whether these lists are read, as far as this package reads them."""
        return self._ended_lists.issuperset(lists)

    def keep_listing(self, run: ListingRun) -> None:
        """Keep a listing for the packages that follow."""
        self.listing_runs[run.resource.table] = run

    def end_comparison(self, table: str) -> None:
        """Record that this run has compared a whole list."""
        self.compared.add(table)

    def require_another_package(self, by_id: bool = False) -> None:
        """Continue this run with another package; `by_id`: for the events that only their id
        finds.
        """
        self.needs_another_package = True
        self._next_is_by_id = self._next_is_by_id or by_id

    def cancel_another_package(self) -> None:
        """Do not continue this run for its events."""
        self.needs_another_package = False

    @property
    def package_full(self) -> bool:
        """Whether this package has as many rows as it should."""
        limit = self.options.package_rows
        return limit is not None and self.counters.package_rows >= limit

    @property
    def finished(self) -> bool:
        """Whether every listing that began has yielded its last row, and the events since then were
        read.
        """
        return not self.needs_another_package and all(
            run.done or table in self.refused for table, run in self.listing_runs.items()
        )

    def count_rows(self, table: str, rows: int) -> None:
        """Count rows that go to dlt; if Stripe's time is in doubt, store what is proven."""
        self.counters.add_rows(table, rows)
        if rows and self._proven_second is not None and self.is_in_doubt:
            source_state()[UNPROVEN] = self._proven_second

    # -- Stripe's time

    def _newest_customer_ahead(self) -> int:
        """When the newest customer was created, if that is long after Stripe's `Date`: without
        events nothing else shows it.
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
        wrong. Beyond that, `Date` is believed: if it was wrong, the next run sees the cursor.
        """
        return CLOCK_TOLERANCE < self.api.now() - self.api.clock.time() <= SECONDS_PER_DAY

    def proven(self, second: int) -> int:
        """Return the latest second up to this one that has certainly passed at Stripe: a cursor
        must not be ahead of it.
        """
        return (
            min(second, max(int(self.api.clock.time()), self.newest_seen))
            if self.is_in_doubt
            else second
        )

    def note_activity(self, second: int) -> None:
        """Note a second at which something happened at Stripe, unless it is in the future."""
        if second <= max(self.api.now(), self.api.clock.time()) + CLOCK_TOLERANCE:
            self.note_seconds([second])
            self.api.advance_clock(second)

    def note_seconds(self, seconds: Iterable[int]) -> None:
        """Note seconds at which something happened at Stripe."""
        self.newest_seen = max((self.newest_seen, *seconds))

    def must_check_clocks(self, load_id: str) -> bool:
        """Whether a load has not looked yet for the effects of a wrong clock; true once."""
        is_new = self._clocks_checked_for != load_id
        self._clocks_checked_for = load_id
        return is_new

    def note_proven(self, second: int) -> None:
        """Note the second that is proven when a package begins."""
        self._proven_second = self.proven(second)

    # -- opening and closing

    def acquire(self) -> None:
        """A resource begins to run."""
        self._running += 1

    def release(self, selected: Sequence[str], failed: bool) -> None:
        """A resource ended. The last of those selected closes the run, or the last that runs once
        one has failed.

        Raises the refusal if every list that was selected was refused; events alone do not count.
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
            self._forget_results()
        if refusal is not None:
            raise refusal

    def close(self) -> None:
        """Stop all reading; the context can be used again."""
        self.connections.close()
        self.events_denied, self._events_checked = None, False
        self._ended, self._failed = 0, False
        self.listing_runs.clear()
        self.begin_package()

    def _forget_results(self) -> None:
        """Log the objects that were left out, and forget the results of the run: the same source
        may run again.
        """
        for sentence in describe_rejected(self.left_out.reasons):
            log.warning("%s", sentence)
        self.left_out = RejectedObjects()
        self.pending_events = PendingEvents()
        self._is_by_id = False
        self.refused.clear()
        self.compared.clear()


def open_run(
    reading: SourceOptions,
    *,
    keep_open: bool = False,
    webhook_events: Iterable[WebhookEvent] = (),
    budget: SharedBudget | None = None,
    codecs: Mapping[str, TableCodec] | None = None,
    transport: BytesHttpClient | None = None,
    **more: Any,
) -> RunContext:
    """Return the context of a run with these options; `more`: fields of `Options` that a source
    does not have; `budget`, `codecs`, `transport`: what runs of several accounts share. Raises
    `UsageError`.
    """
    checked = replace(check_options(reading), **more)
    connect = partial(make_api, reading, budget, transport)
    return RunContext(connect, checked, keep_open, webhook_events, codecs)


def make_api(
    reading: SourceOptions,
    budget: SharedBudget | None = None,
    transport: BytesHttpClient | None = None,
) -> Api:
    """Return the client of a run with these options. `transport`: the connections of many accounts,
    each of which has few requests.
    """
    threads = _THREADS if budget is None else THREADS_OF_ACCOUNT
    threads = threads if transport is None else THREADS_OF_MANY
    return Api(
        reading.get("api_key"),
        account=reading.get("account"),
        base=reading.get("api_base"),
        version=reading.get("api_version", API_VERSION),
        max_rps=reading.get("max_rps"),
        endpoint_rps=reading.get("endpoint_rps"),
        give_up_after=reading.get("give_up_after", GIVE_UP_AFTER),
        allow_api_base=reading.get("allow_api_base", False),
        threads=threads,
        budget=budget,
        transport=transport,
    )
