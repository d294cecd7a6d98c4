"""The `changes` resource: reads events, and yields the rows that changed into their tables and the
changes into theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import dlt
from dlt.common.configuration.container import Container
from dlt.extract.source import SourceInjectableContext

from ..errors import NotFound, NotReadable
from ..resources import CHANGES, RESOURCES
from ..resources.model import Resource
from . import existing
from .apply import plan_batch
from .events.batches import EventBatches
from .events.classify import ObjectEvent, is_malformed, object_events
from .events.reader import Event, PollGroup, poll_groups
from .events.webhook import (
    MAX_BY_ID,
    WebhookEvent,
    events_in_bodies,
    fetch_webhook_events,
    listing_start,
    relevant_events,
)
from .next_step import event_window, next_step, rewind_cursor, should_store
from .reconcile import reconcile, remove_old_deletions
from .refetch import refetch
from .run import RunContext
from .snapshot import snapshot
from .tables.codec import schema_id
from .tables.rejected import EVENTS_KEY, Rejected
from .writer import HAS_CHANGES, Writer

log = logging.getLogger("stripe_feed")

END_OF_TIME = 10**11
State = dict[str, dict[str, Any]]


def stream_changes(context: RunContext) -> Iterator[Any]:
    """Yield what happened since the last run as Arrow tables, and nothing while none are ready."""
    selected = list(Container()[SourceInjectableContext].source.resources.selected)
    context.acquire()
    failed = False
    try:
        yield from _stream_changes(context, [table for table in selected if table in RESOURCES])
    except NotReadable as refusal:
        context.refused[CHANGES] = refusal
        if not context.keep_open:  # whoever keeps it open says so in its own words
            log.warning(
                "The key may not read events, so updates, cancellations and deletes of older objects are not seen. "
                "Add the permission rak_event_read (Core > Events), or run `stripe-feed reconcile` now and then."
            )
    except Exception:
        failed = True
        raise
    finally:
        context.release(selected, failed)


def _stream_changes(context: RunContext, lists: Sequence[str]) -> Iterator[Any]:
    if context.options.end is not None:
        return
    while any(table not in context.next_steps and table not in context.refused for table in lists):
        yield None  # each list looks at its state first
    states: State = dlt.current.resource_state()
    followed = lists or [
        table
        for table in RESOURCES
        if table in states and table in (context.followed_tables or RESOURCES)
    ]
    tables = [table for table in followed if table not in context.refused]
    events = EventStream(context, states)
    if context.events_denied is None:
        _begin_events(context, tables, states)
        if not dlt.current.source_schema().tables.get(CHANGES, {}).get("columns"):
            yield from (
                events.writer(RESOURCES[tables[0]]).changes([], empty=True) if tables else ()
            )  # there from the start
        yield from remove_old_deletions(context, events.writer, states)
        _rewind_if_changes_lost(context, events.writer, tables, states)
        try:
            if [table for table in tables if states.get(table, {}).pop("put_off", False)]:
                context.unfinished.update(tables)  # what was put off once comes before more events
            else:
                yield from events.poll(
                    [
                        RESOURCES[table]
                        for table in tables
                        if context.next_steps[table] == "incremental"
                    ]
                )
                yield from events.apply_by_id(tables)
        except NotReadable as refusal:
            context.events_denied = refusal
            context.unfinished.clear()
    if context.events_denied is not None:
        yield from events.apply_bodies(tables)
    gaps = [table for table in tables if context.next_steps.get(table) == "gap"]
    _warn_of_gaps(gaps, states)
    listed = dlt.current.source_state().get("resources", {})
    due = [table for table in tables if _comparison_due(context, table, listed.get(table, {}))]
    if (
        events.yielded
    ):  # the destination does not hold yet what the events brought: compare in the next package
        context.unfinished.update(table for table in due if table not in gaps)
        for table in due:
            if table in states and table not in gaps and table not in context.refused:
                states[table]["put_off"] = True
        due = [table for table in due if table in gaps]
    yield from reconcile(context, events.writer, due, states)
    if context.events_denied is not None:
        raise context.events_denied


def _rewind_if_changes_lost(
    context: RunContext, writers: Callable[[Resource], Writer], tables: Sequence[str], states: State
) -> None:
    """Read the events again where the destination has lost the changes."""
    followed = [
        table
        for table in tables
        if context.next_steps[table] == "incremental" and "put_off" not in states[table]
    ]
    if not followed or not dlt.current.source_state().get(HAS_CHANGES):
        return
    writer = writers(RESOURCES[followed[0]])
    if writer.client is None:
        return
    with writer.client as client:
        if not existing.is_empty(client, CHANGES):
            return
    log.warning(
        "%s is gone or empty in the destination: what Stripe still knows of the last 28 days is told again, under the same ids. "
        "Older changes are lost here; the feed has those that it took over.",
        CHANGES,
    )
    del dlt.current.source_state()[
        HAS_CHANGES
    ]  # until there are some again: Stripe may know of none
    for table in followed:
        rewind_cursor(states[table], context.api.now())


def _warn_of_gaps(gaps: Sequence[str], states: State) -> None:
    old, late = (
        [table for table in gaps if bool(states[table]["cursor"]) is followed]
        for followed in (True, False)
    )
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


def _comparison_due(context: RunContext, table: str, listed: Mapping[str, Any]) -> bool:
    """Whether the whole list is to be compared now: over a gap, after it was listed again, or as
    asked and not just listed.
    """
    where = context.next_steps.get(table)
    asked = listed.get("compare", False) or (
        table in context.options.reconcile and table not in context.listing_runs
    )
    return table not in context.reconciled and (
        where == "gap" or (where == "incremental" and asked)
    )


def _begin_events(context: RunContext, tables: Sequence[str], states: State) -> None:
    """Set `since` where a list begins, and the next step of resources whose lists do not run."""
    list_states = dlt.current.source_state().get("resources", {})
    for table in tables:
        if table not in context.next_steps:
            context.next_steps[table] = next_step(
                list_states.get(table, {}), states.get(table), context.api.now(), True
            )
        run = context.listing_runs.get(table)
        step = context.next_steps[table]
        if step in ("backfill", "relist"):
            if run is not None and (step == "relist" or run.plan.first or table not in states):
                schema = schema_id(context.api.version, context.codecs[table])
                since = context.proven(run.plan.started_at)
                states[table] = {"since": since, "cursor": since, "shape": schema}
            context.unfinished.add(table)
        elif step == "gap":
            states.setdefault(
                table, {"since": 0, "cursor": 0, "shape": list_states[table].get("shape")}
            )  # until it is compared


class EventStream:
    """One reading of events: its writers by resource, and the reader's state."""

    def __init__(self, context: RunContext, states: State) -> None:
        self.context = context
        self.states = states
        self.writers: dict[str, Writer] = {}
        self.yielded = False

    def writer(self, resource: Resource) -> Writer:
        """The writer of a resource; made when it is needed."""
        if resource.table not in self.writers:
            self.writers[resource.table] = Writer(self.context, resource, CHANGES)
        return self.writers[resource.table]

    def apply_by_id(self, tables: Sequence[str]) -> Iterator[Any]:
        """Read by id the events that webhooks told of and no list shows; in a package of their own,
        because what was told of their objects must be in the destination.

        Once all lists are complete: what is in a list that is under way, or compared, its events of
        before tell wrongly.
        """
        context = self.context
        batch = [event for event in context.webhook_events if event.by_id][:MAX_BY_ID]
        if not batch or context.unfinished or not self._is_complete:
            return
        if self.yielded:
            context.only_by_id = True
            context.unfinished.update(tables)
            return
        events: list[Event] = []
        for fetched in fetch_webhook_events(context, batch):
            yield None
            events += fetched
        context.webhook_events = [event for event in context.webhook_events if event not in batch]
        yield from self._apply_any_age(events, tables)
        read = {
            event.event_id
            for event in batch
            if context.failed_events.get(event.event_id) in (None, NotFound.__name__)
        }
        if read & context.retried_events:
            context.left_out.resolve(EVENTS_KEY, read & context.retried_events)
            context.left_out.store(EVENTS_KEY)

    def apply_bodies(self, tables: Sequence[str]) -> Iterator[Any]:
        """Apply the events whose bodies webhooks brought, for a key that may not read events."""
        if self._is_complete:
            with_body = [event for event in self.context.webhook_events if event.body is not None]
            self.context.webhook_events = [
                event for event in self.context.webhook_events if event.body is None
            ]
            yield from self._apply_any_age(events_in_bodies(with_body), tables)

    @property
    def _is_complete(self) -> bool:
        standing, refused = self.context.next_steps, self.context.refused
        return all(
            where == "incremental" for table, where in standing.items() if table not in refused
        )

    def _apply_any_age(self, events: Sequence[Event], tables: Sequence[str]) -> Iterator[Any]:
        """Apply events of any age, each of which may have been read before."""
        names = {RESOURCES[table].object: RESOURCES[table] for table in tables}
        history = [
            object_event
            for event in sorted(filter(self._is_ours, events), key=attrgetter("created"))
            for object_event in self._object_events(event, names)
            if self._is_in_window(object_event, 0) and self._is_wanted(object_event)
        ]
        yield from self._apply(history, dict.fromkeys(tables, END_OF_TIME))
        self._note_webhook_progress(history)

    def _note_webhook_progress(self, history: Sequence[ObjectEvent]) -> None:
        """Note up to when events were told ahead of the cursor: polling comes to them later, and
        knows them.
        """
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
        """A webhook can bring events of connected accounts, and of the other mode."""
        account = self.context.account
        return event.account in (None, account.id) and event.livemode in (None, account.livemode)

    def poll(self, resources: Sequence[Resource]) -> Iterator[Any]:
        """Read the events of these resources and apply them in batches that end with a whole
        second.

        Up to those that may not all be visible yet; of resources for which a webhook rang, up to
        now. The cursor never passes the former.
        """
        options, now = self.context.options, self.context.api.now()
        if self.context.only_by_id:
            self.context.only_by_id = False
            return
        yield from self._snapshots(resources, now)
        self._drop_known_webhook_events(resources)
        if self.context.polls:
            rejected_ids = self.context.left_out.ids_to_retry(EVENTS_KEY)
            self.context.retried_events.update(rejected_ids)
            self.context.webhook_events = [
                *self.context.webhook_events,
                *(WebhookEvent(id, by_id=True) for id in rejected_ids),
            ]
        settled, polls = now - options.settle, self.context.polls
        spans = self._windows(resources, now)
        started = {
            r.table: max(self.states[r.table]["cursor"], self.states[r.table].get("rung", -1) + 1)
            for r in resources
        }
        newest: dict[str, int] = {}
        batches = [
            EventBatches(
                group,
                self.context.api,
                min(spans[r.table][0] for r in group.resources),
                max(spans[r.table][1] for r in group.resources),
            )
            for group in poll_groups(
                [r for r in resources if r.table in spans and spans[r.table][0] < spans[r.table][1]]
            )
        ]
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
                for batch in active if self.yielded and polls else ():
                    reached = self.context.proven(min(batch.next_start, settled))
                    for r in self._readable(batch.group.resources):
                        self.states[r.table]["cursor"] = max(
                            self.states[r.table]["cursor"], reached
                        )
                self._note_webhook_progress(history)
        finally:
            for batch in batches:
                batch.stream.close()
        if self.context.package_full and any(not one.finished for one in batches):
            self.context.unfinished.update(r.table for r in resources)
            return
        settled = self.context.proven(settled)
        if self._is_complete:
            self.context.webhook_events = [
                one._replace(by_id=True) for one in self.context.webhook_events
            ]
        for r in self._readable(resources) if polls else ():
            state = self.states[r.table]
            if settled > state["cursor"] and (
                self.yielded
                or should_store(state["cursor"], settled, options.look_back, newest.get(r.table))
            ):
                state["cursor"] = settled
                yield from self._store_list_cursor(r.table)

    def _store_list_cursor(self, table: str) -> Iterator[Any]:
        """Move the list's cursor together with that of the events, so that both are one row of
        state.
        """
        run = self.context.listing_runs.get(table)
        if run is not None and not run.plan.keeps_cursor:
            while not run.closed:
                yield None
            if run.done:
                dlt.current.source_state()["resources"][table].update(
                    run.state(self.context.options)
                )

    def _readable(self, resources: Sequence[Resource]) -> list[Resource]:
        return [r for r in resources if r.table not in self.context.refused]

    def _drop_known_webhook_events(self, resources: Sequence[Resource]) -> None:
        """Forget what webhooks told of that is told already, or concerns nobody."""
        context = self.context
        if not context.webhook_events or not resources:
            return
        types = {type for table in context.next_steps for type in RESOURCES[table].events}
        context.webhook_events = relevant_events(context.webhook_events, context.account, types)
        if (client := self.writer(resources[0]).client) is not None:
            with client:
                seen = existing.known_change_ids(
                    client, [event.event_id for event in context.webhook_events]
                )
            context.webhook_events = [
                event for event in context.webhook_events if event.event_id not in seen
            ]

    def _windows(self, resources: Sequence[Resource], now: int) -> dict[str, tuple[int, int]]:
        """The seconds [lo, hi) whose events are read, by resource."""
        options, windows = self.context.options, {}
        for r in resources:
            state = self.states[r.table]
            lo, hi = event_window(state, now, options.look_back, options.settle)
            announced = [
                event
                for event in self.context.webhook_events
                if not event.by_id and event.may_match(r.events)
            ]
            if announced:
                windows[r.table] = (
                    lo if self.context.polls else listing_start(state, announced, lo),
                    now + 1,
                )
            elif self.context.polls:
                windows[r.table] = (lo, hi)
        return windows

    def _classify(
        self, batch: Sequence[Event], group: PollGroup, spans: Mapping[str, tuple[int, int]]
    ) -> list[ObjectEvent]:
        names, announced = (
            {r.object: r for r in group.resources},
            {one.event_id for one in self.context.webhook_events},
        )
        self.context.newest_seen = max(
            (self.context.newest_seen, *(event.created for event in batch))
        )
        object_events = [
            one
            for event in batch
            for one in self._object_events(event, names)
            if self._is_in_window(one, 0 if event.id in announced else spans[one.resource.table][0])
            and self._is_wanted(one)
        ]
        if announced:
            listed = {event.id for event in batch}
            self.context.webhook_events = [
                one for one in self.context.webhook_events if one.event_id not in listed
            ]
        return object_events

    def _object_events(self, event: Event, names: Mapping[str, Resource]) -> list[ObjectEvent]:
        """What an event tells; one that should tell of something and cannot be read is left out."""
        found_events = object_events(event, names)
        if not found_events and is_malformed(event, names):
            self.context.left_out.add(
                Rejected(EVENTS_KEY, event.id, event.created, "its object is not as documented")
            )
            self.context.left_out.store(EVENTS_KEY)
        return found_events

    def _is_in_window(self, object_event: ObjectEvent, lo: int) -> bool:
        """Whether an event is from a second on, and what the list does not hold."""
        since: int = self.states.get(object_event.resource.table, {}).get("since", 0)
        return object_event.event.created >= max(lo, since)

    def _snapshots(self, resources: Sequence[Resource], now: int) -> Iterator[Any]:
        """Before its first events, the objects of a resource as they were when its list began;
        where asked for.
        """
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
        """Yield rows and changes for a batch of events; what must be read again is read for all
        resources side by side.
        """
        by_table: dict[str, list[ObjectEvent]] = {}
        for object_event in history:
            by_table.setdefault(object_event.resource.table, []).append(object_event)
        batches = {
            table: plan_batch(self.writer(RESOURCES[table]), events, started[table])
            for table, events in by_table.items()
        }
        wanted = {table: batch.to_refetch for table, batch in batches.items() if batch.to_refetch}
        for fetched in refetch(
            self.context, wanted, {table: batches[table].writer.client for table in wanted}
        ):
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
