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
from .apply import prepare
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
from .next_step import rested, span, standing, told_anew
from .reconcile import prune, reconcile
from .refetch import read_again
from .run import Session
from .snapshot import snapshot
from .tables.codec import shape_id
from .tables.rejected import EVENTS, Odd
from .writer import HAS_TOLD, Writer

log = logging.getLogger("stripe_feed")

FAR = 10**11
State = dict[str, dict[str, Any]]


def read_changes(session: Session) -> Iterator[Any]:
    """Yield what happened since the last run as Arrow tables, and nothing while none are ready."""
    selected = list(Container()[SourceInjectableContext].source.resources.selected)
    session.enter()
    failed = False
    try:
        yield from _read_changes(session, [table for table in selected if table in RESOURCES])
    except NotReadable as refusal:
        session.refused[CHANGES] = refusal
        if not session.kept:  # whoever keeps it open says so in its own words
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
        yield None  # each list looks at its state first
    mine: State = dlt.current.resource_state()
    followed = lists or [
        table for table in RESOURCES if table in mine and table in (session.tables or RESOURCES)
    ]
    tables = [table for table in followed if table not in session.refused]
    follow = Follow(session, mine)
    if session.unreadable is None:
        _begin(session, tables, mine)
        if not dlt.current.source_schema().tables.get(CHANGES, {}).get("columns"):
            yield from (
                follow.writer(RESOURCES[tables[0]]).changes([], empty=True) if tables else ()
            )  # there from the start
        yield from prune(session, follow.writer, mine)
        _tell_anew(session, follow.writer, tables, mine)
        try:
            if [table for table in tables if mine.get(table, {}).pop("put_off", False)]:
                session.behind.update(tables)  # what was put off once comes before more events
            else:
                yield from follow.run(
                    [RESOURCES[table] for table in tables if session.standing[table] == "complete"]
                )
                yield from follow.alone(tables)
        except NotReadable as refusal:
            session.unreadable = refusal
            session.behind.clear()
    if session.unreadable is not None:
        yield from follow.bodies(tables)
    gaps = [table for table in tables if session.standing.get(table) == "gap"]
    _tell_gaps(gaps, mine)
    listed = dlt.current.source_state().get("resources", {})
    due = [table for table in tables if _is_due(session, table, listed.get(table, {}))]
    if (
        follow.yielded
    ):  # the destination does not hold yet what the events brought: compare in the next package
        session.behind.update(table for table in due if table not in gaps)
        for table in due:
            if table in mine and table not in gaps and table not in session.refused:
                mine[table]["put_off"] = True
        due = [table for table in due if table in gaps]
    yield from reconcile(session, follow.writer, due, mine)
    if session.unreadable is not None:
        raise session.unreadable


def _tell_anew(
    session: Session, writers: Callable[[Resource], Writer], tables: Sequence[str], mine: State
) -> None:
    """Read the events again where the destination has lost the changes."""
    followed = [
        table
        for table in tables
        if session.standing[table] == "complete" and "put_off" not in mine[table]
    ]
    if not followed or not dlt.current.source_state().get(HAS_TOLD):
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
    del dlt.current.source_state()[HAS_TOLD]  # until there are some again: Stripe may know of none
    for table in followed:
        told_anew(mine[table], session.api.now())


def _tell_gaps(gaps: Sequence[str], mine: State) -> None:
    old, late = (
        [table for table in gaps if bool(mine[table]["cursor"]) is followed]
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


def _is_due(session: Session, table: str, listed: Mapping[str, Any]) -> bool:
    """Whether the whole list is to be compared now: over a gap, after it was listed again, or as
    asked and not just listed.
    """
    where = session.standing.get(table)
    asked = listed.get("compare", False) or (
        table in session.options.reconcile and table not in session.runs
    )
    return table not in session.reconciled and (where == "gap" or (where == "complete" and asked))


def _begin(session: Session, tables: Sequence[str], mine: State) -> None:
    """Set `since` where a list begins, and the standing of resources whose lists do not run."""
    states = dlt.current.source_state().get("resources", {})
    for table in tables:
        if table not in session.standing:
            session.standing[table] = standing(
                states.get(table, {}), mine.get(table), session.api.now(), True
            )
        run = session.runs.get(table)
        where = session.standing[table]
        if where in ("listing", "again"):
            if run is not None and (where == "again" or run.plan.first or table not in mine):
                shape = shape_id(session.api.version, session.shapes[table])
                since = session.proven(run.plan.t0)
                mine[table] = {"since": since, "cursor": since, "shape": shape}
            session.behind.add(table)
        elif where == "gap":
            mine.setdefault(
                table, {"since": 0, "cursor": 0, "shape": states[table].get("shape")}
            )  # until it is compared


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
            self.writers[resource.table] = Writer(self.session, resource, CHANGES)
        return self.writers[resource.table]

    def alone(self, tables: Sequence[str]) -> Iterator[Any]:
        """Read by id the events that webhooks told of and no list shows; in a package of their own,
        because what was told of their objects must be in the destination.

        Once all lists are complete: what is in a list that is under way, or compared, its events of
        before tell wrongly.
        """
        session = self.session
        some = [one for one in session.rung if one.by_id][:MAX_BY_ID]
        if not some or session.behind or not self._is_complete:
            return
        if self.yielded:
            session.only_alone = True
            session.behind.update(tables)
            return
        events: list[Event] = []
        for found in fetch_webhook_events(session, some):
            yield None
            events += found
        session.rung = [one for one in session.rung if one not in some]
        yield from self._tell(events, tables)
        read = {
            one.event_id
            for one in some
            if session.failed.get(one.event_id) in (None, NotFound.__name__)
        }
        if read & session.again:
            session.left_out.took(EVENTS, read & session.again)
            session.left_out.keep(EVENTS)

    def bodies(self, tables: Sequence[str]) -> Iterator[Any]:
        """Apply the events whose bodies webhooks brought, for a key that may not read events."""
        if self._is_complete:
            kept = [one for one in self.session.rung if one.body is not None]
            self.session.rung = [one for one in self.session.rung if one.body is None]
            yield from self._tell(events_in_bodies(kept), tables)

    @property
    def _is_complete(self) -> bool:
        standing, refused = self.session.standing, self.session.refused
        return all(where == "complete" for table, where in standing.items() if table not in refused)

    def _tell(self, events: Sequence[Event], tables: Sequence[str]) -> Iterator[Any]:
        """Apply events of any age, each of which may have been read before."""
        names = {RESOURCES[table].object: RESOURCES[table] for table in tables}
        history = [
            one
            for event in sorted(filter(self._is_ours, events), key=attrgetter("created"))
            for one in self._of(event, names)
            if self._is_due(one, 0) and self._wanted(one)
        ]
        yield from self._apply(history, dict.fromkeys(tables, FAR))
        self._ahead(history)

    def _ahead(self, history: Sequence[ObjectEvent]) -> None:
        """Note up to when events were told ahead of the cursor: polling comes to them later, and
        knows them.
        """
        now = self.session.api.now()
        for one in history if self.yielded else ():
            mine = self.mine.get(one.resource.table)
            if (
                mine is not None
                and one.event.created >= mine["cursor"]
                and one.resource.table not in self.session.refused
            ):
                mine["rung"] = min(max(mine.get("rung", 0), one.event.created), now)

    def _is_ours(self, event: Event) -> bool:
        """A webhook can bring events of connected accounts, and of the other mode."""
        account = self.session.account
        return event.account in (None, account.id) and event.livemode in (None, account.livemode)

    def run(self, resources: Sequence[Resource]) -> Iterator[Any]:
        """Read the events of these resources and apply them in batches that end with a whole
        second.

        Up to those that may not all be visible yet; of resources for which a webhook rang, up to
        now. The cursor never passes the former.
        """
        options, now = self.session.options, self.session.api.now()
        if self.session.only_alone:
            self.session.only_alone = False
            return
        yield from self._snapshots(resources, now)
        self._listen(resources)
        if self.session.polls:
            again = self.session.left_out.waiting(EVENTS)
            self.session.again.update(again)
            self.session.rung = [
                *self.session.rung,
                *(WebhookEvent(id, by_id=True) for id in again),
            ]
        settled, polls = now - options.settle, self.session.polls
        spans = self._spans(resources, now)
        started = {
            r.table: max(self.mine[r.table]["cursor"], self.mine[r.table].get("rung", -1) + 1)
            for r in resources
        }
        newest: dict[str, int] = {}
        batches = [
            EventBatches(
                call,
                self.session.api,
                min(spans[r.table][0] for r in call.resources),
                max(spans[r.table][1] for r in call.resources),
            )
            for call in poll_groups(
                [r for r in resources if r.table in spans and spans[r.table][0] < spans[r.table][1]]
            )
        ]
        try:
            while (active := [b for b in batches if not b.finished]) and not self.session.full:
                while (late := next((one for one in active if not one.ready), None)) is not None:
                    late.wait_for_page()
                    yield None
                history = [
                    one
                    for batch in active
                    for one in self._told(batch.next_batch(), batch.group, spans)
                ]
                for one in history:
                    newest[one.resource.table] = max(
                        newest.get(one.resource.table, 0), one.event.created
                    )
                yield from self._apply(history, started)
                for batch in active if self.yielded and polls else ():
                    reached = self.session.proven(min(batch.next_start, settled))
                    for r in self._allowed(batch.group.resources):
                        self.mine[r.table]["cursor"] = max(self.mine[r.table]["cursor"], reached)
                self._ahead(history)
        finally:
            for batch in batches:
                batch.stream.close()
        if self.session.full and any(not one.finished for one in batches):
            self.session.behind.update(r.table for r in resources)
            return
        settled = self.session.proven(settled)
        if self._is_complete:
            self.session.rung = [one._replace(by_id=True) for one in self.session.rung]
        for r in self._allowed(resources) if polls else ():
            mine = self.mine[r.table]
            if settled > mine["cursor"] and (
                self.yielded
                or rested(mine["cursor"], settled, options.look_back, newest.get(r.table))
            ):
                mine["cursor"] = settled
                yield from self._rest(r.table)

    def _rest(self, table: str) -> Iterator[Any]:
        """Move the list's cursor together with that of the events, so that both are one row of
        state.
        """
        run = self.session.runs.get(table)
        if run is not None and not run.plan.keeps_cursor:
            while not run.closed:
                yield None
            if run.done:
                dlt.current.source_state()["resources"][table].update(
                    run.state(self.session.options)
                )

    def _allowed(self, resources: Sequence[Resource]) -> list[Resource]:
        return [r for r in resources if r.table not in self.session.refused]

    def _listen(self, resources: Sequence[Resource]) -> None:
        """Forget what webhooks told of that is told already, or concerns nobody."""
        session = self.session
        if not session.rung or not resources:
            return
        types = {type for table in session.standing for type in RESOURCES[table].events}
        session.rung = relevant_events(session.rung, session.account, types)
        if (client := self.writer(resources[0]).client) is not None:
            with client:
                seen = existing.seen(client, [one.event_id for one in session.rung])
            session.rung = [one for one in session.rung if one.event_id not in seen]

    def _spans(self, resources: Sequence[Resource], now: int) -> dict[str, tuple[int, int]]:
        """The seconds [lo, hi) whose events are read, by resource."""
        options, found = self.session.options, {}
        for r in resources:
            mine = self.mine[r.table]
            lo, hi = span(mine, now, options.look_back, options.settle)
            rang = [one for one in self.session.rung if not one.by_id and one.may_match(r.events)]
            if rang:
                found[r.table] = (
                    lo if self.session.polls else listing_start(mine, rang, lo),
                    now + 1,
                )
            elif self.session.polls:
                found[r.table] = (lo, hi)
        return found

    def _told(
        self, batch: Sequence[Event], call: PollGroup, spans: Mapping[str, tuple[int, int]]
    ) -> list[ObjectEvent]:
        names, rang = (
            {r.object: r for r in call.resources},
            {one.event_id for one in self.session.rung},
        )
        self.session.newest = max((self.session.newest, *(event.created for event in batch)))
        found = [
            one
            for event in batch
            for one in self._of(event, names)
            if self._is_due(one, 0 if event.id in rang else spans[one.resource.table][0])
            and self._wanted(one)
        ]
        if rang:
            listed = {event.id for event in batch}
            self.session.rung = [one for one in self.session.rung if one.event_id not in listed]
        return found

    def _of(self, event: Event, names: Mapping[str, Resource]) -> list[ObjectEvent]:
        """What an event tells; one that should tell of something and cannot be read is left out."""
        found = object_events(event, names)
        if not found and is_malformed(event, names):
            self.session.left_out.add(
                Odd(EVENTS, event.id, event.created, "its object is not as documented")
            )
            self.session.left_out.keep(EVENTS)
        return found

    def _is_due(self, one: ObjectEvent, lo: int) -> bool:
        """Whether an event is from a second on, and what the list does not hold."""
        since: int = self.mine.get(one.resource.table, {}).get("since", 0)
        return one.event.created >= max(lo, since)

    def _snapshots(self, resources: Sequence[Resource], now: int) -> Iterator[Any]:
        """Before its first events, the objects of a resource as they were when its list began;
        where asked for.
        """
        for resource in resources if self.session.options.snapshot else ():
            mine = self.mine[resource.table]
            if mine["cursor"] == mine["since"] and "snapshot" not in mine:
                for found in snapshot(self.session, self.writer(resource), mine["since"], now + 1):
                    self.yielded = True
                    yield found
                mine["snapshot"] = mine["since"]

    def _wanted(self, one: ObjectEvent) -> bool:
        start = self.session.options.start
        too_old = start is not None and one.created is not None and one.created < start
        return not too_old and (self.session.options.test_clocks or not one.on_test_clock)

    def _apply(self, history: Sequence[ObjectEvent], started: Mapping[str, int]) -> Iterator[Any]:
        """Yield rows and changes for a batch of events; what must be read again is read for all
        resources side by side.
        """
        by_table: dict[str, list[ObjectEvent]] = {}
        for one in history:
            by_table.setdefault(one.resource.table, []).append(one)
        works = {
            table: prepare(self.writer(RESOURCES[table]), some, started[table])
            for table, some in by_table.items()
        }
        wanted = {table: work.again for table, work in works.items() if work.again}
        for reads in read_again(
            self.session, wanted, {table: works[table].writer.client for table in wanted}
        ):
            yield None
            for table, read in reads:
                works[table].reads.append(read)
        for table in wanted:
            self.session.left_out.keep(table)
        for table, work in works.items():
            for found in (
                work.tables() if table not in self.session.refused else ()
            ):  # its events wait for a key that may
                self.yielded = True
                yield found
