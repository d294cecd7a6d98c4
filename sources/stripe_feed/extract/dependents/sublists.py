"""Read resources that have one list for each object of another resource, such as the tax ids of
each customer.

A first sweep reads the lists of all parents that the copy holds, in the order of their creation.
Then the lists are read again of parents whose rows loads have brought since; the resource's
events, if it has any, report what happens in between.

State: `t0`, Stripe's time when the last sweep or look began; `left`, the seconds of creation whose
parents are still to be swept, as lists have it; `looked`, the loads of the last minutes whose rows
were looked at; `since`, the time from which the lists report creations; `compare`, if the sweep
compares what was loaded before; `empty`, if no list had an object; `relisted`, when the last sweep
began of lists without events; `shape` and `snapshot_due` as lists have them.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any

from ...errors import NotReadable
from ...resources import CHANGES
from ...resources.model import Parent, Resource
from ...wording import counted
from .. import existing
from ..accounts.package import resource_state, source_state
from ..events.classify import ids_with_events, parents_with_events
from ..lists import listed_changes, rows_if_readable
from ..next_step import SECONDS_PER_DAY, TOO_OLD, RunPlan, should_store
from ..paging.windows import FAR_FUTURE
from ..run import RunContext
from ..tables.changes import diff_change
from ..tables.codec import Record, schema_id
from ..tables.rejected import Rejected
from ..writer import Writer, read_version
from .parents import parents_to_sweep, recent_loads, touched_parents
from .read_lists import ListRead, read_lists

log = logging.getLogger("stripe_feed")

SWEEP_BATCH = 200  # parents; the state moves after each batch
PACKAGE_PARENTS = 1_000  # a crash costs the requests of so many parents at most
ROWS_PER_YIELD = 5_000


def sublist_rows(context: RunContext, resource: Resource) -> Iterator[Any]:
    """Yield the rows of the lists of a resource's parents; None while none are ready."""
    yield from rows_if_readable(context, resource, _sublist_rows)


def _sublist_rows(
    context: RunContext, resource: Resource, selected: Sequence[str]
) -> Iterator[Any]:
    state, parent = resource_state(resource.table), resource.parent
    assert parent is not None
    writer = Writer(context, resource)
    plan = context.plan(selected)
    if "t0" not in state:
        yield from writer.empty_tables()
    if writer.client is None or not _are_parents_complete(context, plan, resource, parent):
        return
    sublists = Sublists(context, writer, parent, plan, state, CHANGES in selected)
    before = dict(state)
    sublists.begin_due_sweep()
    try:
        yield from sublists.sweep() if any(state["left"]) else sublists.look()
    except NotReadable:
        state.clear()
        state.update(before)
        raise
    finally:
        sublists.log_refusals()


def _are_parents_complete(
    context: RunContext, plan: RunPlan, resource: Resource, parent: Parent
) -> bool:
    """Whether the list of the parents is loaded; if it is being loaded, another package follows."""
    if context.options.end is not None:
        log.warning("%s cannot be read for a range of time: it is left out.", resource.table)
        return False
    step = plan.steps.get(parent.table)
    if step in ("backfill", "relist"):
        if parent.table not in context.refused:
            context.require_another_package()
        return False
    list_state = source_state().get("resources", {}).get(parent.table, {})
    if step is None and ("t0" not in list_state or any(list_state["left"])):
        log.warning(
            "%s has one list for each of %s, which are not loaded: select both.",
            resource.table,
            parent.table,
        )
        return False
    return True


class Sublists:
    """The lists of one resource in one package."""

    def __init__(
        self,
        context: RunContext,
        writer: Writer,
        parent: Parent,
        plan: RunPlan,
        state: dict[str, Any],
        reports_changes: bool,
    ) -> None:
        self.context, self.writer, self.parent, self.plan = context, writer, parent, plan
        self.state, self.reports_changes = state, reports_changes
        self.resource, self.table = writer.resource, writer.resource.table
        self.refusals: dict[str, Exception] = {}  # by parent
        stored_state = source_state()
        self.event_state: dict[str, Any] = (
            stored_state.get("resources", {}).get(CHANGES, {}).get(self.table, {})
        )

    # -- which lists

    def begin_due_sweep(self) -> None:
        """Begin a sweep: the first, one that continues after a gap in the events, one that was asked
        for, one because the table is lost, or one that is due because nothing reports changes.
        """
        state, options, now = self.state, self.context.options, self.context.api.now()
        step = self.plan.steps[self.table]
        if "t0" not in state or step == "relist":
            is_again = "t0" in state
            state.clear()
            self._begin(0, now, since=now)
            state |= {"compare": True} if is_again else {}
            if options.snapshot and not self.resource.events:
                state["snapshot_due"] = True
        elif any(state["left"]):
            return
        elif step == "gap":
            self._begin(0, now, self.event_state.get("cursor") or state["t0"])
        elif self.table in options.reconcile and self.table not in self.context.compared:
            self._begin(0, now, self.event_state.get("cursor") or state["since"])
        elif self.table in self.writer.tables_without_rows and "empty" not in state:
            log.warning("%s is gone or empty in the destination: it is read again.", self.table)
            self._begin(0, now, state["t0"] - options.look_back)
        elif self.parent.events and state["t0"] < now - TOO_OLD:  # Stripe has forgotten events
            self._begin(0, now, state["since"])
        elif self.resource.relist_days and state["relisted"] <= now - options.relist_every:
            lo = max(0, now - self.resource.relist_days * SECONDS_PER_DAY)
            self._begin(lo, now, state["since"])

    def _begin(self, lo: int, now: int, since: int) -> None:
        is_first = "t0" not in self.state
        started = self.context.proven(now)
        self.state.update(t0=started, left=[[[lo, FAR_FUTURE]]], start=0, since=since)
        if self.resource.relist_days:
            self.state["relisted"] = started
        if is_first:
            self.state["empty"] = True
        else:
            self.state["compare"] = True
        if not lo:
            with self.writer.client as client:
                self.state["looked"] = recent_loads(client)

    def sweep(self) -> Iterator[Any]:
        """Read the lists of the parents that are left, as many as a package should."""
        state, swept, counters = self.state, 0, self.context.counters
        changes_before = counters.package_changes
        limit = PACKAGE_PARENTS if self.context.options.package_rows is not None else FAR_FUTURE
        while any(state["left"]) and swept < limit and not self.context.package_full:
            with self.writer.client as client:
                parents, following = parents_to_sweep(
                    client, self.parent, state["left"][0][0][0], SWEEP_BATCH
                )
            yield from self._read(parents)
            swept += len(parents)
            state["left"] = [[] if following is None else [[following, FAR_FUTURE]]]
        if self.table in self.context.options.reconcile:
            found = counters.package_changes - changes_before
            counters.add_fixes(self.table, counters.healed.get(self.table, 0) + found, 0)
        if any(state["left"]):
            self.context.require_another_package()
            return
        state.pop("compare", None)
        self.context.end_comparison(self.table)
        state["shape"] = self._schema
        if self.resource.events:
            self.context.require_another_package()  # what happened since it began

    def look(self) -> Iterator[Any]:
        """Read the lists of parents whose rows loads have brought since, those that events name, and
        those again that had an object which could not be stored.
        """
        state, now = self.state, self.context.api.now()
        retried = self.context.left_out.ids_to_retry(self.table)
        with self.writer.client as client:
            touched = touched_parents(client, self.parent, state["looked"])
            loads = recent_loads(client)
            named = self._named_by_events()
            again = existing.known_ids(client, self.parent.table, sorted({*retried, *named}))
        yield from self._read(sorted({*touched.present, *again} - {*touched.deleted}))
        yield from self._delete([ListRead(id, requested_at=now) for id in touched.deleted])
        if retried:
            self.context.left_out.resolve(self.table, retried)
            self.context.left_out.store(self.table)
        is_changed = bool(touched.present or touched.deleted or named)
        if is_changed or should_store(state["t0"], now, 0, None):
            state.update(t0=self.context.proven(now), looked=loads)

    def _named_by_events(self) -> set[str]:
        """Return the parents that events name whose lists have changed since the last look."""
        events, since = self.parent.events, self.state["t0"] - self.context.options.look_back
        if not events or not self.plan.reads_events or self.context.events_denied is not None:
            return set()
        with suppress(NotReadable):
            return set().union(
                *parents_with_events(self.context.api, events, self.parent.column, since)
            )
        return set()

    # -- what they show

    def _read(self, parents: Sequence[str]) -> Iterator[Any]:
        """Yield what the lists of these parents show."""
        reads: list[ListRead] = []
        read_count = 0
        for found in read_lists(self.context, self.resource, self.parent, parents):
            yield None
            reads += found
            if sum(len(read.records) for read in reads) >= ROWS_PER_YIELD:
                read_count += len(reads)
                yield from self._tables(reads)
                reads = []
        yield from self._tables(reads)
        read_count += len(reads)
        refused = [self.refusals[id] for id in parents if id in self.refusals]
        if len(refused) > 1 and len(refused) == read_count and isinstance(refused[0], NotReadable):
            raise refused[0]

    def _tables(self, reads: Sequence[ListRead]) -> Iterator[Any]:
        self.refusals |= {read.parent: read.refusal for read in reads if read.refusal is not None}
        reads = [read for read in reads if read.refusal is None]
        for read in reads:
            for rejected in read.rejected:
                reason = f"of its {self.table}, {rejected.id or 'one'}: {rejected.reason}"
                self.context.left_out.add(Rejected(self.table, read.parent, None, reason))
        self.context.left_out.store(self.table)
        pending = self._ids_with_pending_events() if reads and self._compares else set[str]()
        versions: dict[int, int] = {}
        records: list[Record] = []
        for read in reads:
            shown = [record for record in read.records if record.row.id not in pending]
            versions |= {id(record): read_version(read.requested_at) for record in shown}
            records += shown
        if records:
            self.state.pop("empty", None)
        if not self._is_first:
            records = self.writer.drop_unchanged(records)
        yield from self.writer.rows(records, [versions[id(record)] for record in records])
        yield from self._changes(records)
        if not (self._is_first or (self._events_tell and self.resource.deleted_by)):
            yield from self._delete(reads, pending)

    def _changes(self, records: Sequence[Record]) -> list[Any]:
        """Return the changes that no event reports: all, or creations where no event reports these; in a
        first sweep only creations since it began.
        """
        if not self.reports_changes or (self._events_tell and self.resource.created_by):
            return []
        stored = self.writer.stored_hashes
        if self._is_first:  # what says that it came after the sweep began
            records = [record for record in records if record.created is not None]
        elif self._events_tell:
            records = [record for record in records if record.row.id not in stored]
        return listed_changes(self.context, self.writer, records, self._is_new, self._is_same)

    def _delete(
        self, reads: Sequence[ListRead], pending: Sequence[str] | set[str] = ()
    ) -> Generator[Any, None, None]:
        """Mark rows as deleted that the list of their parent no longer shows."""
        shown = {record.row.id for read in reads for record in read.records}
        shown |= {rejected.id or "" for read in reads for rejected in read.rejected} | {*pending}
        read_at = {read.parent: read.requested_at for read in reads}
        names = ["id", self.parent.column, "_version", "deleted_at"]
        with self.writer.client as client:
            held = list(
                existing.rows_of_parents(
                    client, self.table, names, self.parent.column, list(read_at)
                )
            )
            versions = {
                id: read_version(read_at[owner])
                for id, owner, version, deleted_at in held
                if deleted_at is None and id not in shown and version < read_version(read_at[owner])
            }
            rows = existing.stored_rows(client, self.writer.codec, list(versions))
            images = existing.objects_from_rows(client, self.writer.codec, rows)
        now, version = self.context.api.now(), self.context.api.version
        yield from self.writer.deleted_rows(
            list(rows.values()), [versions[id] for id in rows], [now] * len(rows)
        )
        if self.reports_changes:
            changes = [
                diff_change(self.resource, id, images[id], None, row["_version"], "", now, version)
                for id, row in rows.items()
            ]
            yield from self.writer.changes(changes)

    @property
    def _is_first(self) -> bool:
        """Whether nothing was loaded before that could be compared."""
        return any(self.state["left"]) and not self._compares

    @property
    def _compares(self) -> bool:
        return "compare" in self.state

    @property
    def _events_tell(self) -> bool:
        """Whether events report what happens to the objects."""
        return (
            bool(self.resource.events)
            and self.plan.reads_events
            and self.context.events_denied is None
            and not self._compares
        )

    @property
    def _schema(self) -> str:
        return schema_id(self.context.api.version, self.writer.codec)

    @property
    def _is_same(self) -> bool:
        return self.state.get("shape") in (None, self._schema)

    def _is_new(self, record: Record) -> bool:
        """Whether an object without a row was created since lists report it: all, if it does not say
        when, since the lists were whole before.
        """
        return record.created is None or record.created >= self.state["since"]

    def _ids_with_pending_events(self) -> set[str]:
        """Return the ids of objects with events that are not applied yet, which are left to these."""
        if not self.resource.events or not self.plan.reads_events:
            return set()
        begins_anew = self.plan.steps[self.table] in ("relist", "gap")
        since = self.state["t0"] if begins_anew else self.event_state["cursor"]
        with suppress(NotReadable):
            return set().union(*ids_with_events(self.context.api, self.resource, since))
        return set()

    def log_refusals(self) -> None:
        """Say which lists could not be read; the next change of their parents reads them again."""
        if not self.refusals:
            return
        first, reason = next(iter(self.refusals.items()))
        log.warning(
            "%s of %s could not be read and %s left out, %s first: %s",
            self.table,
            counted(len(self.refusals), self.parent.table.removesuffix("s")),
            "is" if len(self.refusals) == 1 else "are",
            first,
            reason,
        )
