"""Named consumers of the feed: each gets every change it asks for, in order, until it acknowledges
it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Formatter
from typing import Any

from ..destination.duckdb_file import duckdb_file
from ..destination.lease import leased
from ..destination.locks import MOMENT, PATIENCE, lock_file, patiently
from ..destination.pipeline import lock
from ..destination.place import require_own_file
from ..errors import Locked, SetupError, UsageError
from ..resources import RESOURCES
from . import consumers as feed_consumers
from . import remote_positions
from .change import Change
from .consumers import Lag, Place
from .filters import Names, Transition, Wanted, unheard_of, wanted
from .latest import by_time
from .lookups import Lookups, reader, require_complete
from .net import Net, as_change, net
from .relay import relay_pipeline, store_path, with_client
from .storage import maintenance
from .storage.salvage import mend
from .storage.store import FeedStore, delivery_lock
from .storage.store_errors import Damaged

log = logging.getLogger("stripe_feed")

PAGE = 200  # changes in memory
POLL_SECONDS = 1.0
WAITS = "uses this store. End it, then run again."


def open_feed(
    pipeline: Any,
    store: str | os.PathLike[str] | None = None,
    *,
    keeps_cursors: bool = False,
    now: Callable[[], float] = time.time,
    wait: Callable[[float], None] = time.sleep,
) -> Feed:
    """Open the feed of a dlt pipeline, with the changes of all its completed loads.

    The store is a SQLite file beside the DuckDB file, or in dlt's pipelines folder for other
    destinations; `store` is another place for it. The destination is read once, here, and closed
    again: consuming never touches it, so that loads go on. Where another process is loading or has
    the DuckDB file open, the feed goes on with what was relayed before, and logs a line. Call
    again, or `relay`, after a load of your own; `stripe-feed sync` relays by itself. `now` and
    `wait` are the clock.

    `keeps_cursors`: the destination, a server database, holds the consumers' positions (not those
    of triggers): they are taken from there now and written there by `close`, so that a worker whose
    disk is gone goes on. A worker that ends before sees its changes again; `close` raises `Fenced`
    where another moved the same consumer meanwhile.

    Raises `SetupError` where the store or the destination cannot be opened, `UsageError` for
    `keeps_cursors` with DuckDB.
    """
    if keeps_cursors and duckdb_file(pipeline) is not None:
        raise UsageError(
            "keeps_cursors is for server databases; with DuckDB the feed store lies beside the file."
        )
    require_own_file(pipeline)
    file = duckdb_file(pipeline)
    if file is not None and not file.exists():
        log.warning("There is no file %s yet: the feed is empty until a load brings it.", file)
    feed = Feed(pipeline, FeedStore(store or store_path(pipeline)), now=now, wait=wait)
    try:
        feed.relay(MOMENT)
        if keeps_cursors:
            feed.take_cursors()
    except BaseException:
        feed.close()
        raise
    return feed


def rebuild_feed(
    pipeline: Any, store: str | os.PathLike[str] | None = None
) -> tuple[int, list[str]]:
    """Make the log of a feed anew (see `Feed.rebuild`), and first its store, where that is damaged.

    Return the length of the log, and what could not be read of a damaged store, in words. That file
    is kept beside the new one.
    """
    path = Path(store or store_path(pipeline))

    def rebuilt(client: Any) -> tuple[int, list[str]]:
        try:
            with FeedStore(path, mending=True) as found:
                found.require_whole()
                return maintenance.rebuild(found, client), []
        except Damaged as fault:
            log.warning("%s", fault)
        with lock_file(delivery_lock(path), "stripe-feed feed rebuild", does=WAITS):
            lost = mend(path)
        with FeedStore(path, mending=True) as found:
            return maintenance.rebuild(found, client), lost

    with lock(pipeline, "stripe-feed feed rebuild"):
        return patiently(lambda: with_client(pipeline, rebuilt), PATIENCE)


class Feed:
    """The changes of a copy, in order, and their consumers; made by `open_feed`. Usable from
    several threads.

    Every change has an `offset` (1, 2, 3, … in the order of the feed) and a `change_id` that never
    changes. Delivery is at least once: a change comes again when its consumer ended before it was
    acknowledged.
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
        self.lookups = Lookups(store, reader(pipeline))  # for rules and templates
        self._taken: dict[str, str | None] | None = (
            None  # the destination's cursors, where it keeps them
        )
        self.held_up: Locked | None = None  # why the newest changes are not here yet

    def close(self) -> None:
        """Close the store; write the cursors where the destination keeps them."""
        taken, self._taken = self._taken, None
        try:
            if taken is not None:
                with_client(
                    self._pipeline, lambda client: remote_positions.save(self._store, client, taken)
                )
        finally:
            self._store.close()

    def take_cursors(self) -> None:
        """Put the consumers where the destination says they stand; `close` writes them there."""
        self._taken = with_client(
            self._pipeline, lambda client: remote_positions.fetch(self._store, client)
        )

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def store(self) -> FeedStore:
        """The store itself, for triggers and delivery."""
        return self._store

    def ids(self, query: str) -> list[str]:
        """The first column of a query on the destination, in which `{invoices}` stands for that
        table's name there.

        Raises `SetupError` while the first copy of a table that it asks is not complete, or another
        process is loading.
        """
        tables = [name for _, name, _, _ in Formatter().parse(query) if name]

        def asked(client: Any) -> list[str]:
            require_complete(client, tables)
            names = {table: client.make_qualified_table_name(table) for table in RESOURCES}
            return [
                str(row[0])
                for row in client.execute_sql(query.format(**names))
                if row[0] is not None
            ]

        file = duckdb_file(self._pipeline)
        if file is not None and not file.exists():  # dlt would make it
            raise SetupError(
                f"There is no copy of {', '.join(tables)} yet. Run `stripe-feed sync` first."
            )
        with lock(self._pipeline, "stripe-feed feed", 0.0):
            return with_client(self._pipeline, asked)

    @property
    def path(self) -> Path:
        """The store's file."""
        return self._store.path

    @property
    def head(self) -> int:
        """The newest offset; 0 for an empty feed."""
        return self._store.head

    @property
    def horizon(self) -> int:
        """The newest offset that was pruned; 0 where nothing was."""
        return self._store.horizon

    def relay(self, wait: float = 0.0) -> int:
        """Take over the changes of loads completed since; return how many. The destination is
        closed again.

        Nothing, and a line in the log, where another process is loading or has the DuckDB file open
        for longer than `wait` seconds: `held_up` says which.
        """
        before, self.held_up = self.held_up, None
        try:
            with lock(self._pipeline, "stripe-feed feed", wait):
                return patiently(lambda: relay_pipeline(self._pipeline, self._store), wait)
        except Locked as fault:
            self.held_up = fault
            log.log(
                logging.WARNING if before is None else logging.INFO,
                "Going on with the changes relayed before. %s",
                fault,
            )
            return 0

    def consume(
        self,
        name: str,
        *,
        resource: Names = None,
        op: Names = None,
        transition: Transition = None,
        changed: Names = None,
        origin: Names = None,
        customer: Names = None,
        start: Place = "latest",
        max: int | None = None,
        follow: bool = False,
    ) -> Iterator[Change]:
        """Iterate over the changes that the consumer `name` has not acknowledged; asking for the
        next acknowledges one.

        Leaving the loop (`break`, an error, a crash) leaves the change at hand unacknowledged: it
        comes first next time. Changes that do not match are passed over for good. `resource`: a
        table's name, or several. `op`: c, u, d (all three by default), r, or added, updated,
        removed. `transition`: dotted path -> (from, to), where None is null, `...` is anything, and
        a list is any of its values. `changed`: paths of which one, or something below it, changed.
        `origin`: event, diff, list or snapshot. `customer`: ids. `start` is for a new name only:
        "latest" (what comes from this call on), "earliest", or the offset, the change id or the
        time of the first change. `max` ends after so many; `follow` waits for more instead of
        ending.

        Only the newest `consume` of a name may acknowledge. Raises `Fenced` when another took over,
        `PositionLost` where changes that this consumer has not seen were pruned, `UsageError` for
        filters that make no sense.
        """
        if max is not None and max < 1:
            raise UsageError("max is at least 1.")
        filters = wanted(resource, op, transition, changed, origin, customer)
        for path in unheard_of(
            resource,
            [*(transition or ()), *((changed,) if isinstance(changed, str) else changed or ())],
        ):
            log.warning(
                "%s is no field of the API version that is loaded: only changes in another one could match.",
                path,
            )
        position, epoch, is_new = feed_consumers.enter(
            self._store, name, _place(start), self._now()
        )
        if is_new:
            log.info(
                "Consumer %s is new and starts behind offset %d of %d%s.",
                name,
                position,
                self.head,
                '; "earliest" would give all' if start == "latest" and self.head else "",
            )
        return self._consume(name, epoch, position, filters, max, follow)

    def _consume(
        self, name: str, epoch: int, position: int, filters: Wanted, count: int | None, follow: bool
    ) -> Iterator[Change]:
        while True:
            page = self._store.page(position, PAGE, filters.resources, filters.ops)
            if page.horizon > position:
                feed_consumers.require_kept(
                    name, max(position, feed_consumers.accepted(self._store, name)), page.horizon
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
            if page.changes or position < page.head:  # while they were handled, more may have come
                continue
            if not follow:
                return
            self._wait(POLL_SECONDS)

    def read(
        self,
        after: int = 0,
        limit: int = 100,
        *,
        resource: Names = None,
        op: Names = None,
        transition: Transition = None,
        changed: Names = None,
        accepted: int = 0,
    ) -> list[Change]:
        """The first `limit` matching changes behind the offset `after`, without a consumer. 0 is
        the oldest that is kept.

        Raises `PositionLost` where changes behind `after` were pruned. Who began at 0 after that
        passes, as `accepted`, the `horizon` it began with.
        """
        filters = wanted(resource, op, transition, changed)
        if after and self.horizon > max(after, accepted):
            raise feed_consumers.lost_at(after, self.horizon)
        found: list[Change] = []
        while len(found) < limit:
            page = self._store.page(after, limit, filters.resources, filters.ops)
            found += filter(filters.matches, page.changes)
            if page.upto >= page.head:
                break
            after = page.upto
        return found[:limit]

    def tail(self, n: int = 10, **filters: Any) -> list[Change]:
        """The newest `n` changes by the time when they happened, oldest first. `filters` as in
        `consume`.
        """
        return by_time(self._store, wanted(**filters), n)

    def follow(self, after: int, **filters: Any) -> Iterator[Change]:
        """The changes behind an offset, for ever, as they are relayed. Nothing is acknowledged.
        `filters` as in `consume`.
        """
        found = wanted(**filters)
        while True:
            page = self._store.page(after, PAGE, found.resources, found.ops)
            yield from filter(found.matches, page.changes)
            after = page.upto
            if after >= page.head:
                self._wait(POLL_SECONDS)

    def net(
        self, since: Place = "earliest", until: Place | None = None, **filters: Any
    ) -> Iterator[Net]:
        """What changed in the end, per object: all changes from `since` on and before `until`
        (none: the newest too), folded.

        Created and deleted in between is nothing; several updates are one; fields that ended as
        they began are left out. `filters` as in `consume`: they are asked of the whole.
        """
        found = wanted(**filters)
        after = feed_consumers.position_before(self._store, _place(since), self._now())
        upto = (
            self.head
            if until is None
            else feed_consumers.position_before(self._store, _place(until), self._now())
        )
        ops = found.ops if filters.get("op") else (*found.ops, "r")
        folded = net(self._store, after, upto, found.resources)
        return (one for one in folded if one.op in ops and found.matches(as_change(one)))

    def lag(self, name: str | None = None) -> list[Lag]:
        """How far each consumer is, or only this one. Raises `UsageError` for an unknown name."""
        found = [
            one
            for one in feed_consumers.lags(self._store, self._now())
            if name in (None, one.consumer)
        ]
        if name is not None and not found:
            raise feed_consumers.unknown(self._store, name)
        return found

    def consumers(self) -> list[str]:
        """The names of all consumers."""
        return [one.consumer for one in self.lag()]

    def reset(self, name: str, to: Place) -> int:
        """Put a consumer before the change at `to` (as `start` of `consume`); return the offset it
        stands behind.

        A process that consumes under this name is fenced off.
        """
        return feed_consumers.reset(self._store, name, _place(to), self._now())

    def remove(self, name: str) -> None:
        """Forget a consumer. Raises `UsageError` for an unknown name."""
        feed_consumers.remove(self._store, name)

    def rebuild(self) -> int:
        """Make the log anew from the destination, in the order of the loads; return its length.

        Consumers keep what they acknowledged, by change id, and get the rest; those that run
        meanwhile are fenced off. Pruned changes come back. A kill leaves the old log. Raises
        `SetupError` where another command writes.
        """
        with lock(self._pipeline, "stripe-feed feed rebuild"):
            return with_client(
                self._pipeline, lambda client: maintenance.rebuild(self._store, client)
            )

    def prune(self, older_than_seconds: float, *, keep_latest: bool = False) -> int:
        """Drop the oldest changes, up to the first that was read from Stripe within this time;
        return how many.

        `keep_latest` keeps the newest change of each object. The destination keeps all, offsets
        stay, and a consumer that has not seen what went raises `PositionLost`.
        """
        return maintenance.prune(self._store, older_than_seconds, keep_latest, self._now())

    def forget(self, object_id: str) -> int:
        """Drop the images (`after`, `previous`) of an object, and of every change of that customer,
        here and in the destination.

        For good: they do not come back, and later changes of it are kept without images. Ids, times
        and offsets stay. Returns how many changes of the store were concerned. Run it again if the
        destination failed.
        """
        what = "stripe-feed feed forget"
        with lock(self._pipeline, what), leased(self._pipeline, what):
            return patiently(
                lambda: with_client(
                    self._pipeline,
                    lambda client: maintenance.forget(self._store, client, object_id),
                ),
                PATIENCE,
            )


def _place(place: Place) -> Place:
    return place.strip().removeprefix("at=") if isinstance(place, str) else place
