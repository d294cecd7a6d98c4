"""The `changes` resource: reads events, and yields the rows that changed into their tables and the changes into theirs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from queue import Empty
from typing import Any

import dlt
from dlt.common.configuration.container import Container
from dlt.extract.source import SourceInjectableContext

from ..errors import PermissionMissing
from ..resources import RESOURCES, Resource
from .apply import prepare
from .cursors import rested, span, standing
from .derive import Told, told
from .events import Call, Event, Stream, calls, oldest_first
from .reconcile import prune, reconcile
from .rereads import read_again
from .session import Session
from .snapshot import snapshot
from .writer import Writer

log = logging.getLogger("stripe_feed")

BATCH_EVENTS = 2_000
BATCH_BYTES = 16_000_000
State = dict[str, dict[str, Any]]


def read_changes(session: Session) -> Iterator[Any]:
    """Yield what happened since the last run as Arrow tables, and nothing while none are ready."""
    selected = list(Container()[SourceInjectableContext].source.resources.selected)
    session.enter()
    failed = False
    try:
        yield from _read_changes(session, [table for table in selected if table in RESOURCES])
    except PermissionMissing as refusal:
        session.refused["changes"] = refusal
        log.warning(
            "The key may not read events, so updates, cancellations and deletes of older objects are not seen. "
            "Add the permission rak_event_read (Core > Events), or run `stripe-feed reconcile` now and then."
        )
    except Exception:
        failed = True
        raise
    finally:
        session.leave(selected, failed)


def _read_changes(session: Session, lists: Sequence[str]) -> Iterator[Any]:
    if session.options.end is not None:
        return
    while any(table not in session.standing and table not in session.refused for table in lists):
        yield None                                       # each list looks at its state first
    mine: State = dlt.current.resource_state()
    tables = [table for table in lists or (t for t in RESOURCES if t in mine) if table not in session.refused]
    follow = Follow(session, mine)
    if session.unreadable is None:
        _begin(session, tables, mine)
        yield from prune(session, follow.writer, mine)
        try:
            yield from follow.run([RESOURCES[table] for table in tables if session.standing[table] == "complete"])
        except PermissionMissing as refusal:
            session.unreadable = refusal
            session.behind.clear()
    if gaps := [table for table in tables if session.standing.get(table) == "gap"]:
        log.warning(
            "The last run is more than 29 days ago, and Stripe keeps events for 30: the whole lists are compared (%s).",
            ", ".join(gaps),
        )
    yield from reconcile(session, follow.writer, [table for table in tables if _is_due(session, table)], mine)
    if session.unreadable is not None:
        raise session.unreadable


def _is_due(session: Session, table: str) -> bool:
    """Whether the whole list is to be compared now: over a gap, or as asked and not just listed."""
    where = session.standing.get(table)
    asked = table in session.options.reconcile and table not in session.runs
    return table not in session.reconciled and (where == "gap" or (where == "complete" and asked))


def _begin(session: Session, tables: Sequence[str], mine: State) -> None:
    """Set `since` where a list begins, and the standing of resources whose lists do not run."""
    states = dlt.current.source_state().get("resources", {})
    for table in tables:
        if table not in session.standing:
            session.standing[table] = standing(states.get(table, {}), mine.get(table), session.api.now(), True)
        run = session.runs.get(table)
        where = session.standing[table]
        if where in ("listing", "again"):
            if run is not None and (where == "again" or table not in mine):
                mine[table] = {"since": run.plan.t0, "cursor": run.plan.t0}
            session.behind.add(table)


class Follow:
    """One reading of events: its writers by resource, and the reader's state."""

    def __init__(self, session: Session, mine: State) -> None:
        self.session = session
        self.mine = mine
        self.writers: dict[str, Writer] = {}
        self.yielded = False

    def writer(self, resource: Resource) -> Writer:
        """The writer of a resource; made when it is needed."""
        if resource.table not in self.writers:
            self.writers[resource.table] = Writer(self.session, resource, "changes")
        return self.writers[resource.table]

    def run(self, resources: Sequence[Resource]) -> Iterator[Any]:
        """Read the events of these resources up to now."""
        options, now = self.session.options, self.session.api.now()
        yield from self._snapshots(resources, now)
        spans = {r.table: span(self.mine[r.table], now, options.look_back, options.settle) for r in resources}
        started = {r.table: self.mine[r.table]["cursor"] for r in resources}
        newest: dict[str, int] = {}
        for call in calls([r for r in resources if spans[r.table][0] < spans[r.table][1]]):
            lo, hi = min(spans[r.table][0] for r in call.resources), now - options.settle
            stream = Stream(oldest_first(self.session.api, call.types, lo, hi))
            try:
                yield from self._read(call, stream, spans, started, newest, hi)
            finally:
                stream.close()
            if self.session.full:
                self.session.behind.update(r.table for r in resources)
                break
        else:
            for r in resources:
                mine = self.mine[r.table]
                lo, hi = spans[r.table]
                if hi > mine["cursor"] and (self.yielded or rested(mine, hi, options.look_back, newest.get(r.table))):
                    mine["cursor"] = hi

    def _snapshots(self, resources: Sequence[Resource], now: int) -> Iterator[Any]:
        """Before its first events, the objects of a resource as they were when its list began; where asked for."""
        for resource in resources if self.session.options.snapshot else ():
            mine = self.mine[resource.table]
            if mine["cursor"] == mine["since"] and "snapshot" not in mine:
                for found in snapshot(self.session, self.writer(resource), mine["since"], now + 1):
                    self.yielded = True
                    yield found
                mine["snapshot"] = mine["since"]

    def _read(
        self, call: Call, stream: Stream, spans: Mapping[str, tuple[int, int]], started: Mapping[str, int],
        newest: dict[str, int], hi: int,
    ) -> Iterator[Any]:
        """Apply the events of one call in batches that end with a whole second."""
        names = {r.object: r for r in call.resources}
        waiting: list[Event] = []
        size = 0
        ended = False
        while not ended and not self.session.full:
            try:
                some = stream.take(0.05)
            except Empty:
                yield None
                continue
            ended = some is None
            waiting += some or []
            size += sum(len(bytes(event.data.object)) for event in some or [])
            if not ended and len(waiting) < BATCH_EVENTS and size < BATCH_BYTES:
                continue
            cut = hi if ended else waiting[-1].created
            batch = [event for event in waiting if event.created < cut]
            waiting = [event for event in waiting if event.created >= cut]
            size = 0
            if batch:
                history = [
                    one for event in batch for one in told(event, names)
                    if spans[one.resource.table][0] <= event.created and self._wanted(one)
                ]
                for one in history:
                    newest[one.resource.table] = max(newest.get(one.resource.table, 0), one.event.created)
                yield from self._apply(history, started)
            if self.yielded:
                for r in call.resources:
                    self.mine[r.table]["cursor"] = max(self.mine[r.table]["cursor"], cut)

    def _wanted(self, one: Told) -> bool:
        start = self.session.options.start
        too_old = start is not None and one.created is not None and one.created < start
        return not too_old and (self.session.options.test_clocks or not one.clock)

    def _apply(self, history: Sequence[Told], started: Mapping[str, int]) -> Iterator[Any]:
        """Yield rows and changes for a batch of events; what must be read again is read for all resources side by side."""
        by_table: dict[str, list[Told]] = {}
        for one in history:
            by_table.setdefault(one.resource.table, []).append(one)
        works = {table: prepare(self.writer(RESOURCES[table]), some, started[table]) for table, some in by_table.items()}
        wanted = {table: work.again for table, work in works.items() if work.again}
        for reads in read_again(self.session, wanted, {table: works[table].writer.client for table in wanted}):
            yield None
            for table, read in reads:
                works[table].reads.append(read)
        for work in works.values():
            for found in work.tables():
                self.yielded = True
                yield found
