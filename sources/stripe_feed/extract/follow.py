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
from . import prior
from .changes import Change, list_id
from .cursors import rested, span, standing
from .derive import Known, Ordered, Told, body_of, changes_of, is_discount, needs_known, sequence, told
from .events import Call, Event, Stream, calls, oldest_first
from .lists import TOLD_BY_LIST
from .reconcile import prune, reconcile
from .records import Record
from .rereads import Read, read_again
from .session import Session
from .snapshot import snapshot
from .writer import VERSION_STEP, Writer, is_before, version_read

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


class Last:
    """Where an object stands after its events; `body`: its content of the pinned shape, where an event holds it."""

    def __init__(self, ordered: Ordered, body: bytes | None) -> None:
        event = ordered.told.event
        self.body = body
        self.created = ordered.told.created
        self.version = event.created * VERSION_STEP + ordered.number
        self.ends = event.created if ordered.told.role == "ends" else None


class Follow:
    """One reading of events: its writers by resource, and the reader's state."""

    def __init__(self, session: Session, mine: State) -> None:
        self.session = session
        self.mine = mine
        self.writers: dict[str, Writer] = {}
        self.pin = session.api.version
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
        by_table: dict[str, list[Told]] = {}
        for one in history:
            by_table.setdefault(one.resource.table, []).append(one)
        for table, some in by_table.items():
            for found in self._apply_to(RESOURCES[table], some, started[table]):
                self.yielded = self.yielded or found is not None
                yield found

    def _apply_to(self, resource: Resource, history: Sequence[Told], started: int) -> Iterator[Any]:
        """Yield rows and changes of one resource for a batch of its events."""
        writer = self.writer(resource)
        objects = self._new(writer, history, started)
        known = self._known(writer, objects)
        changes: list[Change] = []
        last: dict[str, Last] = {}
        again: dict[str, int | None] = {}
        for id, some in objects.items():
            events = [one for one in some if not is_discount(one)]
            if len(events) < len(some):
                again[id] = None
            if all(one.seen for one in events):
                continue                                 # only its discount is new
            ordered = sequence(events, known.get(id), id in known)
            if all(one.told.seen for one in ordered):
                continue                                 # a twin of a change that was told
            changes += changes_of(ordered, known.get(id), self.pin)
            last[id] = Last(ordered[-1], body_of(ordered, self.pin))
        changes = self._once(writer, changes, last)
        yield from self._rows(writer, last, again)
        changes.sort(key=lambda change: change.occurred_at)
        yield from writer.changes(changes)

    def _new(self, writer: Writer, history: Sequence[Told], started: int) -> dict[str, list[Told]]:
        """The events by object, of objects with one that was not seen before."""
        distinct = {(one.event.id, one.id): one for one in history}
        old = [one.event.id for one in distinct.values() if one.event.created < started]
        if old and writer.client is not None:
            with writer.client as client:
                seen = prior.seen(client, old)
            for one in distinct.values():
                one.seen = one.event.id in seen
        objects: dict[str, list[Told]] = {}
        for one in distinct.values():
            objects.setdefault(one.id, []).append(one)
        return {id: some for id, some in objects.items() if not all(one.seen for one in some)}

    def _known(self, writer: Writer, objects: Mapping[str, Sequence[Told]]) -> dict[str, Known | None]:
        """The images before the first events, where these do not tell: from the newest change before, else from the row held.

        None where there was no object.
        """
        asked: dict[str, int] = {}
        for id, some in objects.items():
            events = [one for one in some if not is_discount(one)]
            if events and needs_known(events):
                asked[id] = events[0].event.created
        if not asked or writer.client is None:
            return {}
        table = writer.resource.table
        with writer.client as client:
            images = prior.last_images(client, table, asked)
            rows = prior.rows(client, writer.shape, [id for id in asked if id not in images])
            held = prior.images(client, writer.shape, rows)
        found: dict[str, Known | None] = {
            id: None if image is None else Known(image, version) for id, (version, image) in images.items()
        }
        for id in set(asked) - set(images):
            row = rows.get(id)
            if row is None or (row["deleted_at"] is not None and is_before(row["_version"], asked[id])):
                found[id] = None
            elif is_before(row["_version"], asked[id]):
                found[id] = Known(held[id], self.pin, whole=False)
        return found

    def _once(self, writer: Writer, changes: list[Change], last: Mapping[str, Last]) -> list[Change]:
        """Without the creations that a list has told already, of a time when the key could not read events."""
        account, created = self.session.account.id, [change for change in changes if change.op == "c"]
        if not created or writer.client is None or not dlt.current.source_state().get(TOLD_BY_LIST):
            return changes
        ids = {
            list_id(account, writer.resource.table, change.object_id, last[change.object_id].created): change.change_id
            for change in created
        }
        with writer.client as client:
            told_by_list = prior.seen(client, list(ids))
        left_out = {ids[id] for id in told_by_list}
        return [change for change in changes if change.change_id not in left_out]

    def _rows(self, writer: Writer, last: Mapping[str, Last], again: dict[str, int | None]) -> Iterator[Any]:
        """The rows of objects after their last events: from snapshots, from what is held, or read again."""
        bodies: list[Last] = []
        ended: dict[str, Last] = {}
        for id, one in last.items():
            if one.ends is None and (one.body is None or writer.shape.expanded or id in again):
                again[id] = one.created
                continue
            again.pop(id, None)
            if one.body is None or writer.shape.expanded:
                ended[id] = one
            else:
                bodies.append(one)
        records = writer.shape.objects([one.body or b"" for one in bodies]) if bodies else []
        rows: list[tuple[Record, int, int | None]] = []
        for record, one in zip(records, bodies, strict=True):
            if one.ends is None and is_cut(writer, record):
                again[record.row.id] = one.created
            else:
                rows.append((record, one.version, one.ends))
        if again:
            for reads in read_again(self.session, writer.resource, again, self._held(writer)):
                yield None
                rows += [(read.record, version_read(read.asked_at), None) for read in self._worth(writer, reads, last)]
        yield from writer.rows([r for r, _, _ in rows], [v for _, v, _ in rows], [end for _, _, end in rows])
        yield from self._ended(writer, ended)

    def _worth(self, writer: Writer, reads: Sequence[Read], last: Mapping[str, Last]) -> list[Read]:
        """Without objects on test clocks, and what only a discount led to if it is held as it is."""
        wanted = [r for r in reads if self.session.options.test_clocks or not getattr(r.record.row, "test_clock", None)]
        doubtful = [read.record for read in wanted if read.record.row.id not in last]
        held = {record.row.id for record in doubtful} - {record.row.id for record in writer.changed(doubtful)}
        return [read for read in wanted if read.record.row.id not in held]

    def _held(self, writer: Writer) -> Any:
        def count(lo: int, hi: int) -> int:
            if writer.client is None:
                return 10**9
            with writer.client as client:
                return prior.count_between(client, writer.resource, lo, hi)

        return count

    def _ended(self, writer: Writer, ended: Mapping[str, Last]) -> Iterator[Any]:
        """Deleted objects whose event does not hold their content: the row that is held becomes their last."""
        if not ended or writer.client is None:
            return
        with writer.client as client:
            held = list(prior.rows(client, writer.shape, list(ended)).values())
        ends = [ended[row["id"]] for row in held]
        yield from writer.ended(held, [one.version for one in ends], [one.ends or 0 for one in ends])


def is_cut(writer: Writer, record: Record) -> bool:
    """Whether an embedded list of a snapshot is not whole."""
    lists = [shape.list_in(getattr(record.row, child.field)) for child, shape in writer.shape.children]
    return any(embedded is None or embedded.has_more for embedded in lists)
