"""The `changes` resource: read events, and yield the rows that changed and the changes into their
tables.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from ..errors import NotReadable
from ..resources import CHANGES, RESOURCES
from ..resources.model import Resource
from . import existing
from .accounts.package import resource_state, selected_resources, source_state, stored_columns
from .apply import plan_batch
from .events.classify import ObjectEvent, ResourcesByObject, by_object, is_malformed, object_events
from .events.poll_groups import PollGroup, poll_groups
from .events.reader import Event, EventBatches
from .events.webhook import (
    events_in_bodies,
    fetch_webhook_events,
    listing_start,
)
from .next_step import EventStates, ResourceStep, RunPlan, event_window, rewind_cursor, should_store
from .reconcile import reconcile, remove_old_deletions
from .refetch import refetch
from .repairs.stray_rows import ids_of_shared_hashes
from .run import EVENTS_DENIED, HAS_CHANGES, RunContext
from .snapshot import snapshot
from .tables.codec import schema_id
from .tables.rejected import EVENTS_KEY, Rejected
from .writer import Writer

log = logging.getLogger("stripe_feed")

END_OF_TIME = 10**11
MOST_COPIED = 1_000  # ids in the state of a table: it is written with each package


def stream_changes(context: RunContext) -> Iterator[Any]:
    """Yield what happened since the last run as Arrow tables; None while none are ready."""
    selected = selected_resources()
    context.acquire()
    failed = False
    try:
        yield from follow_plan(context, selected)
    except NotReadable as refusal:
        context.refuse(CHANGES, refusal)
        if not context.keep_open:  # else the caller says so
            log.warning(
                "Events cannot be read, so updates, cancellations and deletes of older objects are not seen. %s "
                "Or run `stripe-feed reconcile` now and then.",
                refusal,
            )
    except Exception:
        failed = True
        raise
    finally:
        context.release(selected, failed)


def follow_plan(context: RunContext, selected: Sequence[str]) -> Iterator[Any]:
    """Follow the plan: after the lists come the events, and then the comparisons."""
    if context.options.end is not None:
        return
    while not context.has_ended([name for name in selected if name in RESOURCES]):
        yield None
    plan = context.plan(selected)
    states: EventStates = resource_state(CHANGES)
    tables = [name for name in plan.steps if name not in context.refused]
    events = EventStream(context, plan, states)
    if plan.reads_events and context.events_denied is None:
        _begin_events(context, plan, tables, states)
        if tables and not stored_columns(CHANGES):
            # the table exists from the start
            yield from events.writer(RESOURCES[tables[0]]).changes([], empty=True)
        yield from remove_old_deletions(context, events.writer, states)
        _rewind_if_changes_lost(context, plan, events.writer, tables, states)
        try:
            yield from _apply_events(context, plan, events, tables)
        except NotReadable as refusal:
            context.deny_events(refusal)
            context.cancel_another_package()
            source_state()[EVENTS_DENIED] = True
    if context.events_denied is not None:
        yield from events.apply_bodies(tables)
    due = [name for name in plan.compared if name in tables]
    gaps = plan.with_step("gap")
    _warn_of_gaps([name for name in due if name in gaps], states)
    yield from _snapshots_of_lists(context, plan, events.writer, tables)
    if events.yielded:
        # the destination does not hold yet what the events brought
        waiting = [name for name in due if name not in gaps and RESOURCES[name].events]
        _put_off(context, events.writer, waiting, states)
        due = [name for name in due if name not in waiting]
    yield from reconcile(context, plan, events.writer, due, states)
    _look_for_dependents(context, tables)
    if context.events_denied is not None:
        raise context.events_denied


def _apply_events(
    context: RunContext, plan: RunPlan, events: EventStream, tables: Sequence[str]
) -> Iterator[Any]:
    if plan.compares_first:
        for table in tables:
            events.states.get(table, {}).pop("put_off", None)
        if tables:
            context.require_another_package()
        return
    if not plan.is_by_id:
        yield from events.poll([RESOURCES[name] for name in plan.polled if name in tables])
        source_state().pop(EVENTS_DENIED, None)
    yield from events.apply_by_id(tables)


def _snapshots_of_lists(
    context: RunContext,
    plan: RunPlan,
    writers: Callable[[Resource], Writer],
    tables: Sequence[str],
) -> Iterator[Any]:
    """Yield requested snapshots of resources without events, once their first listing is loaded."""
    list_states = source_state().get("resources", {})
    for table in tables:
        state, run = list_states.get(table, {}), context.listing_runs.get(table)
        if plan.steps[table] == "incremental" and state.pop("snapshot_due", False):
            if run is not None:
                run.carried.pop("snapshot_due", None)
            writer = writers(RESOURCES[table])
            yield from snapshot(context, writer, state["since"], state["since"])


def _look_for_dependents(context: RunContext, tables: Sequence[str]) -> None:
    """Continue with another package if this one brings rows that may name objects the copy lacks, or
    objects whose lists are to be read.
    """
    holders = {holder.table for name in tables for holder in RESOURCES[name].holders}
    holders |= {row.parent.table for name in tables if (row := RESOURCES[name]).parent is not None}
    if holders & context.counters.package_tables:
        context.require_another_package()


def _put_off(
    context: RunContext,
    writers: Callable[[Resource], Writer],
    tables: Sequence[str],
    states: EventStates,
) -> None:
    """Leave comparisons to the next package, where they come before more events. Note the rows that
    share a hash: once these events are loaded, a copied row may not be seen to be one.
    """
    if tables:
        context.require_another_package()
    for table in tables:
        if table in states and table not in context.refused:
            states[table]["put_off"] = True
            if (client := writers(RESOURCES[table]).client) is not None:
                with client:
                    copied = {
                        *states[table].get("copied", ()),
                        *ids_of_shared_hashes(client, table, MOST_COPIED),
                    }
                if copied:
                    states[table]["copied"] = sorted(copied)


def _rewind_if_changes_lost(
    context: RunContext,
    plan: RunPlan,
    writers: Callable[[Resource], Writer],
    tables: Sequence[str],
    states: EventStates,
) -> None:
    """Read the events again if the destination has lost the changes."""
    followed = [
        table
        for table in tables
        if plan.steps[table] == "incremental"
        and RESOURCES[table].events
        and "put_off" not in states[table]
    ]
    if not followed or not context.had_changes:
        return
    writer = writers(RESOURCES[followed[0]])
    if writer.client is None:
        return
    with writer.client as client:
        if not existing.is_empty(client, CHANGES):
            return
    log.warning(
        "%s is gone or empty in the destination: the events of the last 28 days are read again and give the same change ids. "
        "Older changes are lost here; the feed keeps those that it has relayed.",
        CHANGES,
    )
    # until there are some again: Stripe may know of none
    del source_state()[HAS_CHANGES]
    for table in followed:
        rewind_cursor(states[table], context.api.now())


def _warn_of_gaps(gaps: Sequence[str], states: EventStates) -> None:
    old = [table for table in gaps if states.get(table, {}).get("cursor")]
    late = [table for table in gaps if table not in old]
    if old:
        log.warning(
            "The last run is more than 29 days ago, and Stripe keeps events for 30: the whole lists are compared (%s).",
            ", ".join(old),
        )
    if late:
        log.warning(
            "Events are followed from now on: first the whole lists are compared with the copy (%s).",
            ", ".join(late),
        )


def _begin_events(
    context: RunContext, plan: RunPlan, tables: Sequence[str], states: EventStates
) -> None:
    """Let the events of a resource begin where its list began; with a gap, after its comparison."""
    list_states = source_state().get("resources", {})
    for table in tables:
        step, run = plan.steps[table], context.listing_runs.get(table)
        if RESOURCES[table].is_dependent:
            _begin_after_sweep(context, table, states, list_states.get(table, {}), step)
        elif not RESOURCES[table].events:
            if step == "backfill" and context.options.snapshot:
                context.require_another_package()
        elif step in ("backfill", "relist"):
            if run is not None and (step == "relist" or run.plan.first or table not in states):
                schema = schema_id(context.api.version, context.codecs[table])
                since = context.proven(run.plan.started_at)
                states[table] = {"since": since, "cursor": since, "shape": schema}
            context.require_another_package()
        elif step == "gap":
            schema = list_states[table].get("shape")
            states.setdefault(table, {"since": 0, "cursor": 0, "shape": schema})


def _begin_after_sweep(
    context: RunContext,
    table: str,
    states: EventStates,
    list_state: Mapping[str, Any],
    step: ResourceStep,
) -> None:
    """Let the events of a resource with one list per parent begin where its sweep began, if this
    package has begun one.
    """
    has_begun = "t0" in list_state and (step in ("relist", "gap") or table not in states)
    if has_begun and RESOURCES[table].events:
        since, schema = list_state["t0"], schema_id(context.api.version, context.codecs[table])
        states[table] = {"since": since, "cursor": since, "shape": schema}


class EventStream:
    """The events of one package: their writers by resource, and the cursors."""

    def __init__(self, context: RunContext, plan: RunPlan, states: EventStates) -> None:
        self.context = context
        self.plan = plan
        self.states = states
        self.writers: dict[str, Writer] = {}
        self.yielded = False

    def writer(self, resource: Resource) -> Writer:
        """The writer of a resource; made when it is needed."""
        if resource.table not in self.writers:
            self.writers[resource.table] = Writer(self.context, resource, CHANGES)
        return self.writers[resource.table]

    def apply_by_id(self, tables: Sequence[str]) -> Iterator[Any]:
        """Fetch by id and apply the events that webhooks announced and no list shows; in a package
        of their own, since the destination must hold all other changes of their objects.

        Runs only when every backfill is complete: an event older than a running backfill would
        overwrite newer rows.
        """
        context, pending = self.context, self.context.pending_events
        batch = pending.by_id()
        if not batch or context.needs_another_package or not self._is_incremental:
            return
        if self.yielded:
            context.require_another_package(by_id=True)
            return
        ids = [event.event_id for event in batch]
        events: list[Event] = []
        pool = context.connections.pool
        for fetched in fetch_webhook_events(context.api, pool, ids, pending.failed):
            yield None
            events += fetched
        pending.drop(ids)
        yield from self._apply_any_age(events, tables)
        if resolved := pending.read_ids(batch) & pending.retried:
            context.left_out.resolve(EVENTS_KEY, resolved)
            context.left_out.store(EVENTS_KEY)

    def apply_bodies(self, tables: Sequence[str]) -> Iterator[Any]:
        """Apply events whose bodies webhooks brought, for a key that may not read events."""
        if self._is_incremental:
            bodies = self.context.pending_events.take_bodies()
            yield from self._apply_any_age(events_in_bodies(bodies), tables)

    @property
    def _is_incremental(self) -> bool:
        return self.plan.is_incremental(self.context.refused)

    def _apply_any_age(self, events: Sequence[Event], tables: Sequence[str]) -> Iterator[Any]:
        """Apply events of any age, each of which may be stored already."""
        names = by_object(RESOURCES[table] for table in tables)
        history = [
            object_event
            for event in sorted(filter(self._is_ours, events), key=attrgetter("created"))
            for object_event in self._object_events(event, names)
            if self._is_in_window(object_event, 0) and self._is_wanted(object_event)
        ]
        yield from self._apply(history, dict.fromkeys(tables, END_OF_TIME))
        self._note_webhook_progress(history)

    def _note_webhook_progress(self, history: Sequence[ObjectEvent]) -> None:
        """Note up to when events were applied ahead of the cursor: polling reads them again later."""
        now = self.context.api.now()
        for object_event in history if self.yielded else ():
            state = self.states.get(object_event.resource.table)
            if (
                state is not None
                and object_event.event.created >= state["cursor"]
                and object_event.resource.table not in self.context.refused
            ):
                state["rung"] = min(max(state.get("rung", 0), object_event.event.created), now)

    def _is_ours(self, event: Event) -> bool:
        """Whether an event is of this account and mode; webhooks also bring others."""
        account = self.context.account
        return event.account in (None, account.id) and event.livemode in (None, account.livemode)

    def poll(self, resources: Sequence[Resource]) -> Iterator[Any]:
        """Read the events of these resources and apply them in batches that end with a whole
        second.

        Read those that are settled; for resources with announced events, those until now. The
        cursor never passes the settled ones.
        """
        options, now = self.context.options, self.context.api.now()
        yield from self._snapshots(resources, now)
        self._drop_known_webhook_events(resources)
        if options.polls:
            self.context.pending_events.retry(self.context.left_out.ids_to_retry(EVENTS_KEY))
        spans = self._windows(resources, now)
        started = {
            r.table: max(self.states[r.table]["cursor"], self.states[r.table].get("rung", -1) + 1)
            for r in resources
        }
        settled = now - options.settle
        newest: dict[str, int] = {}
        batches = self._open_batches(resources, spans)
        try:
            while (
                active := [b for b in batches if not b.finished]
            ) and not self.context.package_full:
                while (late := next((one for one in active if not one.ready), None)) is not None:
                    late.wait_for_page()
                    yield None
                history = [
                    one
                    for batch in active
                    for one in self._classify(batch.next_batch(), batch.group, spans)
                ]
                for one in history:
                    newest[one.resource.table] = max(
                        newest.get(one.resource.table, 0), one.event.created
                    )
                yield from self._apply(history, started)
                self._move_cursors(active, settled)
                self._note_webhook_progress(history)
        finally:
            for batch in batches:
                batch.stream.close()
        if self.context.package_full and any(not batch.finished for batch in batches):
            self.context.require_another_package()
            return
        settled = self.context.proven(settled)
        if self._is_incremental:
            self.context.pending_events.fetch_rest_by_id()
        self._settle_cursors(resources, settled, newest)

    def _open_batches(
        self, resources: Sequence[Resource], spans: Mapping[str, tuple[int, int]]
    ) -> list[EventBatches]:
        """Begin to read the spans that are not empty, in as few calls as there are groups."""
        polled = [
            r for r in resources if r.table in spans and spans[r.table][0] < spans[r.table][1]
        ]
        groups = poll_groups(polled, {table: lo for table, (lo, _) in spans.items()})
        return [
            EventBatches(
                group,
                self.context.api,
                min(spans[r.table][0] for r in group.resources),
                max(spans[r.table][1] for r in group.resources),
            )
            for group in groups
        ]

    def _move_cursors(self, batches: Sequence[EventBatches], settled: int) -> None:
        """Move the cursors to where the next batches start, if something was yielded."""
        for batch in batches if self.yielded and self.context.options.polls else ():
            reached = self.context.proven(min(batch.next_start, settled))
            for r in self._readable(batch.group.resources):
                state = self.states[r.table]
                state["cursor"] = max(state["cursor"], reached)

    def _settle_cursors(
        self, resources: Sequence[Resource], settled: int, newest: Mapping[str, int]
    ) -> None:
        """Move the cursors to the settled second, if that is worth a row of state."""
        options = self.context.options
        for r in self._readable(resources) if options.polls else ():
            state = self.states[r.table]
            if settled > state["cursor"] and (
                self.yielded
                or should_store(state["cursor"], settled, options.look_back, newest.get(r.table))
            ):
                state["cursor"] = settled
                self._store_list_cursor(r.table)

    def _store_list_cursor(self, table: str) -> None:
        """Move the list's cursor together with that of the events, so that both are one row of
        state.
        """
        run = self.context.listing_runs.get(table)
        if run is not None and run.done and not run.plan.keeps_cursor:
            list_state = source_state()["resources"][table]
            list_state.update(run.state(self.context.options))

    def _readable(self, resources: Sequence[Resource]) -> list[Resource]:
        return [r for r in resources if r.table not in self.context.refused]

    def _drop_known_webhook_events(self, resources: Sequence[Resource]) -> None:
        """Drop announced events that are stored already, or irrelevant."""
        pending = self.context.pending_events
        if not pending.events or not resources:
            return
        types = {type for table in self.plan.steps for type in RESOURCES[table].events}
        pending.keep_relevant(self.context.account, types)
        if (client := self.writer(resources[0]).client) is not None:
            with client:
                ids = [event.event_id for event in pending.events]
                pending.drop(existing.known_change_ids(client, ids))

    def _windows(self, resources: Sequence[Resource], now: int) -> dict[str, tuple[int, int]]:
        """Return the seconds [lo, hi) whose events are read, by resource."""
        options, windows = self.context.options, {}
        for r in resources:
            state = self.states[r.table]
            lo, hi = event_window(state, now, options.look_back, options.settle)
            announced = self.context.pending_events.listed(r.events)
            if announced:
                lo = lo if options.polls else listing_start(state, announced, lo)
                windows[r.table] = (lo, now + 1)
            elif options.polls:
                windows[r.table] = (lo, hi)
        return windows

    def _classify(
        self, batch: Sequence[Event], group: PollGroup, windows: Mapping[str, tuple[int, int]]
    ) -> list[ObjectEvent]:
        """Return the object events of a batch that are to be applied."""
        pending = self.context.pending_events
        names = by_object(group.resources)
        announced = {event.event_id for event in pending.events}
        self.context.note_seconds(event.created for event in batch)
        object_events = [
            one
            for event in batch
            for one in self._object_events(event, names)
            if self._is_in_window(
                one, 0 if event.id in announced else windows[one.resource.table][0]
            )
            and self._is_wanted(one)
        ]
        if announced:
            pending.drop({event.id for event in batch})
        return object_events

    def _object_events(self, event: Event, names: ResourcesByObject) -> list[ObjectEvent]:
        """Return the object events of an event; record a relevant event that is malformed."""
        found_events = object_events(event, names)
        if not found_events and is_malformed(event, names):
            self.context.left_out.add(
                Rejected(EVENTS_KEY, event.id, event.created, "its object is not as documented")
            )
            self.context.left_out.store(EVENTS_KEY)
        return found_events

    def _is_in_window(self, object_event: ObjectEvent, lo: int) -> bool:
        """Whether an event is not older than `lo`, nor than its list."""
        since: int = self.states.get(object_event.resource.table, {}).get("since", 0)
        return object_event.event.created >= max(lo, since)

    def _snapshots(self, resources: Sequence[Resource], now: int) -> Iterator[Any]:
        """Yield requested snapshots, before the first events of a resource."""
        for resource in resources if self.context.options.snapshot else ():
            state = self.states[resource.table]
            if state["cursor"] == state["since"] and "snapshot" not in state:
                for table in snapshot(self.context, self.writer(resource), state["since"], now + 1):
                    self.yielded = True
                    yield table
                state["snapshot"] = state["since"]

    def _is_wanted(self, object_event: ObjectEvent) -> bool:
        start = self.context.options.start
        too_old = (
            start is not None and object_event.created is not None and object_event.created < start
        )
        return not too_old and (self.context.options.test_clocks or not object_event.on_test_clock)

    def _apply(self, history: Sequence[ObjectEvent], started: Mapping[str, int]) -> Iterator[Any]:
        """Yield rows and changes for a batch of events. Objects to fetch again are fetched for all
        resources in parallel.
        """
        by_table: dict[str, list[ObjectEvent]] = {}
        for object_event in history:
            by_table.setdefault(object_event.resource.table, []).append(object_event)
        batches = {
            table: plan_batch(
                self.writer(RESOURCES[table]),
                events,
                started[table],
                self.states.get(table, {}).get("since", 0),
            )
            for table, events in by_table.items()
        }
        wanted = {table: batch.to_refetch for table, batch in batches.items() if batch.to_refetch}
        clients = {table: batches[table].writer.client for table in wanted}
        owners = {id: owner for batch in batches.values() for id, owner in batch.owners.items()}
        for fetched in refetch(self.context, wanted, clients, owners=owners):
            yield None
            for table, item in fetched:
                batches[table].fetched.append(item)
        for table in wanted:
            self.context.left_out.store(table)
        for table, batch in batches.items():
            for rows in (
                batch.tables() if table not in self.context.refused else ()
            ):  # its events wait for a key that may
                self.yielded = True
                yield rows
