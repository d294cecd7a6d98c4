"""The feed: an ordered log of changes. Each named consumer gets every change it asks for, in order,
until it acknowledges it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from string import Formatter
from typing import Any, TypeVar

from ..destination.duckdb_file import duckdb_path
from ..destination.lease import hold_lease
from ..destination.locks import DEFAULT_WAIT, SHORT_WAIT, lock_file, retry_while_locked
from ..destination.pipeline import lock_copy
from ..destination.place import require_own_file
from ..errors import Locked, SetupError, UsageError
from ..models.copies import require_built_in
from ..models.database import ModelDatabase, forget_bases, opened_database
from ..resources import RESOURCES
from . import consumers as feed_consumers
from . import remote_positions
from .change import Change
from .consumers import Lag, StartAt
from .filters import Filter, Names, TransitionFilter, compile_filter, unknown_paths
from .latest import newest_by_time
from .lookups import Lookups, object_reader, require_complete
from .net import NetChange, net_changes, to_change
from .relay import relay_pipeline, store_path, with_client
from .storage import maintenance
from .storage.salvage import salvage
from .storage.store import FeedStore, delivery_lock
from .storage.store_errors import Damaged

log = logging.getLogger("stripe_feed")

_T = TypeVar("_T")

_PAGE_SIZE = 200  # changes in memory
_POLL_SECONDS = 1.0
USES_STORE = "uses this store. Stop it, then run again."


def open_feed(
    pipeline: Any,
    store: str | os.PathLike[str] | None = None,
    *,
    keeps_cursors: bool = False,
    now: Callable[[], float] = time.time,
    wait: Callable[[float], None] = time.sleep,
) -> Feed:
    """Open the feed of a dlt pipeline with the changes of all its completed loads.

    The store is a SQLite file next to the DuckDB file, or in dlt's pipelines folder for other
    destinations; `store` sets another path. The destination is read once, here, and closed again:
    consuming never touches it, so loads can run meanwhile. If another process is loading or has the
    DuckDB file open, the feed uses the changes relayed before and logs a line. After a load of your
    own, call this again or call `relay`; `stripe-feed sync` relays by itself. `now` and `wait` are
    the clock.

    `keeps_cursors`: a server database as the destination keeps the consumers' positions (not those
    of triggers). They are read now and written by `close`, so a worker that loses its disk can
    continue. A worker that ends without `close` sees its changes again; `close` raises `Fenced` if
    another worker moved the same consumer meanwhile.

    Raises `SetupError` if the store or the destination cannot be opened, `UsageError` for
    `keeps_cursors` with DuckDB.
    """
    if keeps_cursors and duckdb_path(pipeline) is not None:
        raise UsageError(
            "keeps_cursors is for server databases; with DuckDB the feed store is next to the file."
        )
    require_own_file(pipeline)
    file = duckdb_path(pipeline)
    if file is not None and not file.exists():
        log.warning("File %s does not exist yet: the feed is empty until the first load.", file)
    feed = Feed(pipeline, FeedStore(store or store_path(pipeline)), now=now, wait=wait)
    try:
        feed.relay(SHORT_WAIT)
        if keeps_cursors:
            feed.load_positions()
    except BaseException:
        feed.close()
        raise
    return feed


def rebuild_feed(
    pipeline: Any, store: str | os.PathLike[str] | None = None
) -> tuple[int, list[str]]:
    """Rebuild the log of a feed (see `Feed.rebuild`). If the store is damaged, replace it first.

    Return the length of the log and a description of everything that could not be read from a
    damaged store. The damaged file is kept next to the new one.
    """
    path = Path(store or store_path(pipeline))

    def rebuild_log(client: Any) -> tuple[int, list[str]]:
        try:
            with FeedStore(path, rebuilding=True) as feed_store:
                feed_store.check_integrity()
                return maintenance.rebuild(feed_store, client), []
        except Damaged as fault:
            log.warning("%s", fault)
        with lock_file(delivery_lock(path), "stripe-feed feed rebuild", activity=USES_STORE):
            lost = salvage(path)
        with FeedStore(path, rebuilding=True) as feed_store:
            return maintenance.rebuild(feed_store, client), lost

    with lock_copy(pipeline, "stripe-feed feed rebuild"):
        return retry_while_locked(lambda: with_client(pipeline, rebuild_log), DEFAULT_WAIT)


class Feed:
    """The changes of a copy in order, and their consumers. Create it with `open_feed`; several
    threads may use it.

    Every change has an `offset` (1, 2, 3, … in the order of the feed) and a `change_id` that never
    changes. Delivery is at least once: a change comes again if its consumer ended before
    acknowledging it.
    """

    def __init__(
        self,
        pipeline: Any,
        store: FeedStore,
        *,
        now: Callable[[], float] = time.time,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._pipeline, self._store, self._now, self._wait = pipeline, store, now, wait
        self.lookups = Lookups(store, object_reader(pipeline))  # for rules and templates
        self._loaded_positions: dict[str, str | None] | None = (
            None  # the destination's cursors, where it keeps them
        )
        self.blocked_by: Locked | None = None  # why the last relay got nothing

    def close(self) -> None:
        """Close the store, and write the positions if the destination keeps them."""
        saved_positions, self._loaded_positions = self._loaded_positions, None
        try:
            if saved_positions is not None:
                with_client(
                    self._pipeline,
                    lambda client: remote_positions.save(self._store, client, saved_positions),
                    writes=True,
                )
        finally:
            self._store.close()

    def load_positions(self) -> None:
        """Move the consumers to the positions kept in the destination; `close` writes them back."""
        self._loaded_positions = with_client(
            self._pipeline, lambda client: remote_positions.fetch(self._store, client)
        )

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def store(self) -> FeedStore:
        """The store, used by triggers and delivery."""
        return self._store

    def query_ids(self, query: str) -> list[str]:
        """Return the first column of a query on the destination; `{invoices}` in it becomes that
        table's qualified name.

        Raises `SetupError` while the first copy of a queried table is incomplete or another process
        is loading.
        """
        tables = [name for _, name, _, _ in Formatter().parse(query) if name]

        def query_first_column(client: Any) -> list[str]:
            require_complete(client, tables)
            names = {table: client.make_qualified_table_name(table) for table in RESOURCES}
            return [
                str(row[0])
                for row in client.execute_sql(query.format(**names))
                if row[0] is not None
            ]

        file = duckdb_path(self._pipeline)
        if file is not None and not file.exists():  # dlt would make it
            raise SetupError(
                f"There is no copy of {', '.join(tables)} yet. Run `stripe-feed sync` first."
            )
        with lock_copy(self._pipeline, "stripe-feed feed", 0.0):
            return with_client(self._pipeline, query_first_column)

    def read_models(self, read: Callable[[ModelDatabase], _T], wait: float = SHORT_WAIT) -> _T:
        """Return what a function reads from the models of the copy, from one state of the database.

        The destination is closed again. Raises `SetupError` if there is no copy, if its models need
        dbt, or if another process loads, or writes to the DuckDB file, for more than `wait` seconds.
        """
        require_built_in(self._pipeline)
        file = duckdb_path(self._pipeline)
        if file is not None and not file.exists():  # dlt would make it
            raise SetupError("There is no copy yet. Run `stripe-feed sync` first.")

        def read_at_once(client: Any) -> _T:
            database = opened_database(client)
            with database.transaction():
                if database.target.type != "duckdb":
                    database.execute("set transaction isolation level repeatable read read only")
                    database.execute("set local timezone = 'UTC'")
                return read(database)

        with lock_copy(self._pipeline, "stripe-feed feed", wait):
            return retry_while_locked(lambda: with_client(self._pipeline, read_at_once), wait)

    @property
    def path(self) -> Path:
        """The path of the store's file."""
        return self._store.path

    @property
    def head(self) -> int:
        """The newest offset; 0 for an empty feed."""
        return self._store.head

    @property
    def pruned_through(self) -> int:
        """The newest pruned offset; 0 if nothing was pruned."""
        return self._store.pruned_through

    def relay(self, wait: float = 0.0) -> int:
        """Copy the changes of newly completed loads into the log; return how many. Closes the
        destination again.

        If another process loads or holds the DuckDB file for more than `wait` seconds, log a line,
        set `blocked_by` to the error and return 0.
        """
        before, self.blocked_by = self.blocked_by, None
        try:
            with lock_copy(self._pipeline, "stripe-feed feed", wait):
                return retry_while_locked(lambda: relay_pipeline(self._pipeline, self._store), wait)
        except Locked as fault:
            self.blocked_by = fault
            log.log(
                logging.WARNING if before is None else logging.INFO,
                "The feed continues with the changes relayed before. %s",
                fault,
            )
            return 0

    def consume(
        self,
        name: str,
        *,
        resource: Names = None,
        op: Names = None,
        transition: TransitionFilter = None,
        changed: Names = None,
        origin: Names = None,
        customer: Names = None,
        origin_push: bool | None = None,
        start: StartAt = "latest",
        max: int | None = None,
        follow: bool = False,
    ) -> Iterator[Change]:
        """Iterate over the changes that the consumer `name` has not acknowledged; asking for the
        next change acknowledges the current one.

        Leaving the loop (`break`, an error, a crash) leaves the current change unacknowledged: it
        comes first next time. Changes that do not match are skipped for good. `resource`: a table's
        name, or several. `op`: c, u, d (all three by default), r, or added, updated, removed.
        `transition`: dotted path -> (from, to), where None is null, `...` is anything, and a list
        matches any of its values. `changed`: paths; one of them, or something below it, changed.
        `origin`: event, diff, list or snapshot. `customer`: ids. `origin_push`: False leaves out
        what an action or push of this package did, True keeps nothing else. `start` applies to a new name
        only: "latest" (changes after this call), "earliest", or the offset, change id or time of
        the first change. `max` ends after that many changes; `follow` waits for more instead of
        ending.

        Only the newest `consume` of a name may acknowledge. Raises `Fenced` if another process took
        over, `OffsetOutOfRange` if changes that this consumer has not seen were pruned, `UsageError`
        for invalid filters.
        """
        if max is not None and max < 1:
            raise UsageError("max is at least 1.")
        filters = compile_filter(resource, op, transition, changed, origin, customer, origin_push)
        for path in unknown_paths(
            resource,
            [*(transition or ()), *((changed,) if isinstance(changed, str) else changed or ())],
        ):
            log.warning(
                "%s is not a field of the loaded API version: only changes in another version can match.",
                path,
            )
        position, epoch, is_new = feed_consumers.attach(
            self._store, name, _start_at(start), self._now()
        )
        if is_new:
            log.info(
                "Consumer %s is new and starts after offset %d of %d%s.",
                name,
                position,
                self.head,
                '; start="earliest" gives all' if start == "latest" and self.head else "",
            )
        return self._consume(name, epoch, position, filters, max, follow)

    def _consume(
        self, name: str, epoch: int, position: int, filters: Filter, count: int | None, follow: bool
    ) -> Iterator[Change]:
        while True:
            page = self._store.page(position, _PAGE_SIZE, filters.resources, filters.ops)
            if page.pruned_through > position:
                feed_consumers.check_retained(
                    name,
                    max(position, feed_consumers.pruned_ok_until(self._store, name)),
                    page.pruned_through,
                )
            for change in filter(filters.matches, page.changes):
                yield change
                position = change.offset
                feed_consumers.acknowledge(self._store, name, epoch, position, self._now())
                count = None if count is None else count - 1
                if count == 0:
                    return
            if page.upto > position:
                position = page.upto
                feed_consumers.acknowledge(self._store, name, epoch, position, self._now())
            if page.changes or position < page.head:  # more may have come while they were handled
                continue
            if not follow:
                return
            self._wait(_POLL_SECONDS)

    def read(
        self,
        after: int = 0,
        limit: int = 100,
        *,
        resource: Names = None,
        op: Names = None,
        transition: TransitionFilter = None,
        changed: Names = None,
        accepted: int = 0,
    ) -> list[Change]:
        """Return the first `limit` matching changes after the offset `after`, without a consumer. 0
        starts at the oldest kept change.

        Raises `OffsetOutOfRange` if changes after `after` were pruned. A reader that started at 0 after
        a prune passes as `accepted` the `pruned_through` it started with.
        """
        filters = compile_filter(resource, op, transition, changed)
        if after and self.pruned_through > max(after, accepted):
            raise feed_consumers.offset_out_of_range(after, self.pruned_through)
        matching: list[Change] = []
        while len(matching) < limit:
            page = self._store.page(after, limit, filters.resources, filters.ops)
            matching += filter(filters.matches, page.changes)
            if page.upto >= page.head:
                break
            after = page.upto
        return matching[:limit]

    def tail(self, n: int = 10, **filters: Any) -> list[Change]:
        """Return the newest `n` changes by the time they happened, oldest first. `filters` as in
        `consume`.
        """
        return newest_by_time(self._store, compile_filter(**filters), n)

    def follow(self, after: int, **filters: Any) -> Iterator[Change]:
        """Iterate without end over the changes after an offset, as they are relayed. Acknowledges
        nothing. `filters` as in `consume`.
        """
        compiled = compile_filter(**filters)
        while True:
            page = self._store.page(after, _PAGE_SIZE, compiled.resources, compiled.ops)
            yield from filter(compiled.matches, page.changes)
            after = page.upto
            if after >= page.head:
                self._wait(_POLL_SECONDS)

    def net(
        self, since: StartAt = "earliest", until: StartAt | None = None, **filters: Any
    ) -> Iterator[NetChange]:
        """Return each object's net change from `since` up to but excluding `until` (None: including
        the newest).

        An object created and deleted in between is left out; several updates become one; fields
        that end as they began are left out. `filters` as in `consume`; they apply to the net
        change.
        """
        compiled = compile_filter(**filters)
        after = feed_consumers.position_before(self._store, _start_at(since), self._now())
        upto = (
            self.head
            if until is None
            else feed_consumers.position_before(self._store, _start_at(until), self._now())
        )
        ops = compiled.ops if filters.get("op") else (*compiled.ops, "r")
        changes = net_changes(self._store, after, upto, compiled.resources)
        return (
            change for change in changes if change.op in ops and compiled.matches(to_change(change))
        )

    def lag(self, name: str | None = None) -> list[Lag]:
        """Return how far each consumer is, or only this one. Raises `UsageError` for an unknown
        name.
        """
        lags = [
            lag
            for lag in feed_consumers.lags(self._store, self._now())
            if name in (None, lag.consumer)
        ]
        if name is not None and not lags:
            raise feed_consumers.unknown_consumer(self._store, name)
        return lags

    def consumers(self) -> list[str]:
        """Return the names of all consumers."""
        return [lag.consumer for lag in self.lag()]

    def reset(self, name: str, to: StartAt) -> int:
        """Move a consumer to just before the change at `to` (like `start` of `consume`); return its
        new offset.

        Fences off a process that consumes under this name.
        """
        return feed_consumers.reset(self._store, name, _start_at(to), self._now())

    def remove(self, name: str) -> None:
        """Delete a consumer. Raises `UsageError` for an unknown name."""
        feed_consumers.remove(self._store, name)

    def rebuild(self) -> int:
        """Rebuild the log from the destination, in the order of the loads; return its length.

        Consumers keep what they acknowledged, by change id, and get the rest; running consumers are
        fenced off. Pruned changes come back. If killed, the old log stays. Raises `SetupError`
        while another command writes.
        """
        with lock_copy(self._pipeline, "stripe-feed feed rebuild"):
            return with_client(
                self._pipeline, lambda client: maintenance.rebuild(self._store, client)
            )

    def prune(self, older_than_seconds: float, *, keep_latest: bool = False) -> int:
        """Delete the oldest changes, up to the first that was read from Stripe within this time;
        return how many.

        `keep_latest` keeps the newest change of each object. The destination keeps everything,
        offsets stay, and a consumer that has not seen the deleted changes raises `OffsetOutOfRange`.
        """
        return maintenance.prune(self._store, older_than_seconds, keep_latest, self._now())

    def holds_many_accounts(self) -> bool:
        """Whether the changes are of several accounts, which share a dataset."""
        return self._store.holds_many_accounts()

    def forget(self, object_id: str) -> int:
        """Delete the images (`after`, `previous`) of an object, and of every change of that
        customer, from the store and the destination.

        This is permanent: the images do not come back, and later changes of the object are kept
        without images. Ids, times and offsets stay. Returns how many changes in the store were
        affected. Run it again if the destination failed. Raises `UsageError` if several accounts of
        a dataset have an object of this id.
        """
        return self._maintain(
            "feed forget", lambda client: maintenance.forget(self._store, client, object_id)
        )

    def check_erasable(self, customer: str) -> None:
        """Raise `UsageError` if `erase` would, because the id can be another person's, too."""
        if self.holds_many_accounts():
            check = partial(maintenance.check_erasable, self._store, customer=customer)
            retry_while_locked(lambda: with_client(self._pipeline, check), DEFAULT_WAIT)

    def erase(
        self,
        customer: str,
        erase_pushed: maintenance.ErasePushed = lambda ids, addresses: (),
    ) -> maintenance.Erased:
        """Forget a customer, and erase texts and nested values in the rows of the customer,
        subscriptions, invoices and their items, and what is still to be sent.

        Rows keep ids, amounts and times. Later loads are erased again when their changes are
        relayed. Run it again if the destination failed.
        """
        return self._maintain(
            "forget",
            lambda client: maintenance.erase(
                self._store, client, customer, self._now(), erase_pushed
            ),
        )

    def _maintain(self, command: str, work: Callable[[Any], _T]) -> _T:
        """Work on the destination while nobody else writes to it."""

        def erase(client: Any) -> _T:
            if duckdb_path(self._pipeline) is not None:
                forget_bases(opened_database(client))
            return work(client)

        name = f"stripe-feed {command}"
        with lock_copy(self._pipeline, name), hold_lease(self._pipeline, name):
            return retry_while_locked(
                lambda: with_client(self._pipeline, erase, writes=True), DEFAULT_WAIT
            )


def _start_at(place: StartAt) -> StartAt:
    return place.strip().removeprefix("at=") if isinstance(place, str) else place
