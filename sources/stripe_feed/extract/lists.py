"""Lists give what exists: each resource walks its list endpoint by `created` and yields Arrow
tables with its state.

State of a resource: `t0`, Stripe's time when the listing began; `left`, per walk the ranges of
seconds not yet yielded; `start`, the oldest second asked for; `shape`, the one that the first rows
have; `compare`, where rows of before may be gone; and `childless`, where a whole list had not one
child. Nothing else: no ids, no cursors.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dlt
from dlt.common.configuration.container import Container
from dlt.extract.source import SourceInjectableContext

from ..errors import NotReadable, UsageError
from ..resources import CHANGES
from ..resources.model import Params, Resource
from . import existing
from .next_step import Standing, rested, standing
from .options import Options
from .paging.fetch import page_of
from .paging.reader import Listing
from .paging.windows import Planner, Range, subtract
from .refetch import Read, read_again
from .run import Session
from .tables.arrow import typed
from .tables.changes import Change, customer_of, encoded, list_id
from .tables.codec import Record, shape_id
from .tables.dlt_resource import is_limited
from .writer import Writer, items_of, version_read

log = logging.getLogger("stripe_feed")

FIRST_ACCOUNT = 1_293_840_000  # 2011-01-01: where the account's creation is unknown
FAR = 10_000_000_000  # test clocks run ahead of now
TOLD_BY_LIST = (
    "told_by_list"  # in the source's state: a list has told creations, for a key without events
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one listing covers: ranges per walk; `t0` is its end for a listing by cursor."""

    t0: int
    left: list[list[Range]]
    first: bool  # nothing of this resource was loaded before
    keeps_cursor: bool  # a fixed range: state is left alone


def plan(
    state: dict[str, Any],
    options: Options,
    walks: int,
    now: int,
    account_created: int,
    lost: bool = False,
) -> Plan:
    """Decide what to list: go on where a listing stopped, or what is new since the last one, or
    everything; also where the destination has `lost` its rows. One range, so that an empty list
    costs one request.
    """
    start = options.start or 0
    if start >= now:
        raise UsageError("start_date is in the future. Give an earlier one, or leave it out.")
    until = now if options.end is None else min(options.end, now)
    whole = [whole_ranges(start, until, account_created) for _ in range(walks)]
    if options.end is not None:
        return Plan(now, whole, False, True)
    if "t0" not in state:
        return Plan(now, whole, True, False)
    if lost:
        return Plan(
            now, [[(min(start, state["start"]), until)] for _ in range(walks)], False, False
        )
    older = [(start, state["start"])] if start < state["start"] else []
    left = [[*older, *((lo, hi) for lo, hi in walk)] for walk in state["left"]]
    if any(state["left"]):
        return Plan(state["t0"], left, False, False)
    since = max(
        state["start"], state["t0"] - options.look_back
    )  # a later start does not skip what the cursor has not seen
    return Plan(now, [[*older, (since, now)] for _ in range(walks)], False, False)


def whole_ranges(start: int, until: int, account_created: int) -> list[Range]:
    """All seconds from `start` (0: ever) to `until`, those before the account apart: imported
    objects can predate it.
    """
    low = account_created or FIRST_ACCOUNT
    ranges = [(start, until)] if start else [(low, until), (0, min(low, until))]
    return [r for r in ranges if r[0] < r[1]]


@dataclass(eq=False)
class Run:
    """One listing under way: what is left to yield, and the reader's side of it."""

    resource: Resource
    plan: Plan
    listing: Listing[Record]
    left: list[list[Range]] = field(default_factory=list)
    rest: bool = False  # of a listing that an earlier run began
    start: int | None = None  # the oldest second that this copy was ever asked for
    yielded: bool = False
    lost: str = ""  # a table that is gone or empty, for which all is listed again
    known: int = 0  # what was created before that second was listed once
    # once it is complete, the whole list is compared: it shows nothing of what was deleted
    compare: bool = False
    shape: str | None = None  # which shape the rows of the first list have
    childless: bool = False  # the whole list has no child
    closed: bool = False  # its state is written, for this package

    @property
    def done(self) -> bool:
        """Whether all was read and taken."""
        return self.listing.finished and not self.listing.parts

    def state(self, options: Options) -> dict[str, Any]:
        """The resource's state once everything taken so far is loaded."""
        left = [
            [list(r) for r in walk] for walk in self.left[: len(self.resource.list_filters)]
        ]  # test clocks: always whole
        start = options.start or 0 if self.start is None else self.start
        more: dict[str, Any] = ({"compare": True} if self.compare else {}) | (
            {"shape": self.shape} if self.shape else {}
        )
        more |= {"childless": True} if self.childless else {}
        return {"t0": self.plan.t0, "left": left, "start": start} | more


def list_rows(session: Session, resource: Resource) -> Iterator[Any]:
    """Yield the rows of a resource and its children as Arrow tables, and nothing while none are
    ready.
    """
    selected = list(Container()[SourceInjectableContext].source.resources.selected)
    session.enter()
    failed = False
    try:
        yield from _list_rows(session, resource, selected)
    except NotReadable as refusal:
        session.refused[resource.table] = refusal
        log.warning("%s is left out: %s", resource.table, refusal)
    except Exception:
        failed = True
        raise
    finally:
        if resource.table in session.runs:
            session.runs[resource.table].closed = True
        session.leave(selected, failed)


def _list_rows(session: Session, resource: Resource, selected: Sequence[str]) -> Iterator[Any]:
    state = dlt.current.resource_state()
    writer = Writer(
        session, resource
    )  # first: it refuses another account's dataset before anything is read
    where = _standing(session, resource.table, state, selected)
    yield from _try_again(session, writer)
    run = session.runs.get(resource.table)
    if run is not None:
        run.closed = False
    if run is not None and run.done:
        return  # an earlier package of this session brought all there is
    if where == "gap" or (where == "complete" and resource.table in session.options.reconcile):
        return  # the whole list is compared instead
    run = _resume(session, resource, state) if where != "again" else None
    lost = _lost(writer, state) if run is None and where != "again" else ""
    before = dict(state)
    if where == "again":
        _replace(state, {})
    run = (
        run
        or _resume(session, resource, state)
        or _begin(session, resource, state, again=where == "again", lost=lost)
    )
    try:
        yield from _walk(session, run, writer, state, {} if where == "again" else before)
        if run.done and run.rest:  # it ended where an earlier run began: go on with what came since
            before = dict(state)
            run = _begin(session, resource, state)
            yield from _walk(session, run, writer, state, before)
    except NotReadable:
        if run.plan.first:  # its events are followed from the listing that brings it
            dlt.current.source_state().get("resources", {}).get(CHANGES, {}).pop(
                resource.table, None
            )
        _replace(state, before)
        session.reader.drop(run.listing)
        raise


def _try_again(session: Session, writer: Writer) -> Iterator[Any]:
    """Read what earlier runs had to leave out."""
    table = writer.resource.table
    ids = session.left_out.waiting(table)
    if not ids:
        return
    reads: list[Read] = []
    for some in read_again(session, {table: dict.fromkeys(ids)}, {table: writer.client}):
        yield None
        reads += [read for _, read in some]
    if table in session.refused:
        raise session.refused[table]
    clocks = session.options.test_clocks
    reads = [
        read
        for read in reads
        if clocks or not typed(getattr(read.record.row, "test_clock", None), "ref")
    ]
    yield from writer.rows(
        [read.record for read in reads], [version_read(read.requested_at) for read in reads]
    )
    session.left_out.took(table, ids)
    session.left_out.keep(table)


def _standing(
    session: Session, table: str, state: Mapping[str, Any], selected: Sequence[str]
) -> Standing:
    """What to do for the resource in this package; the reader of events asks for it too."""
    follows = session.follows(selected)
    mine = dlt.current.source_state().get("resources", {}).get(CHANGES, {}).get(table)
    if CHANGES not in selected and session.options.end is None and not session.standing:
        log.warning(
            "`changes` is not selected: updates, cancellations and deletes of older objects are not seen."
        )
    where = standing(state, mine, session.api.now(), follows)
    if follows and (mine is None or where == "gap") and not session.may_follow():
        where = standing(state, mine, session.api.now(), False)  # the list goes on by itself
    session.standing[table] = where
    return where


def _walk(
    session: Session, run: Run, writer: Writer, state: dict[str, Any], before: dict[str, Any]
) -> Iterator[Any]:
    """Yield what a listing reads, until it or the package ends, and keep the state; `before` is the
    one stored last.
    """
    keeps_cursor = run.plan.keeps_cursor
    while not run.done and not session.full:
        parts = session.reader.take(run.listing)
        if not parts:
            yield None
            continue
        for part in parts:
            run.left[part.walk] = subtract(run.left[part.walk], part.cover)
        versions = {
            id(record): version_read(part.requested_at) for part in parts for record in part.rows
        }
        records = [record for part in parts for record in part.rows]
        if session.is_in_doubt:
            session.newest = max((session.newest, *_dates(records)))
        run.childless = run.childless and not any(
            items_of(one, child) for one in records for child in run.resource.children
        )
        if not run.plan.first:
            records = writer.changed(records)
        tables = writer.rows(records, [versions[id(record)] for record in records])
        # a limit asks for rows: a page without any, from before the account was made, does not
        # count
        if (
            not tables
            and not run.yielded
            and (run.plan.first or run.rest)
            and (run.done or not run.listing.page_wise)
        ):
            tables = writer.empty_tables()
        if (
            tables
            and session.unreadable is not None
            and not (run.plan.first or run.rest or keeps_cursor)
        ):
            tables += _creations(session, writer, records, run.known)
        if run.lost and any(
            (typed(record.row.created, "timestamp") or 0) < run.known for record in records
        ):
            log.warning(
                "%s is gone or empty in the destination: %s are listed again.",
                run.lost,
                run.resource.table,
            )
            run.lost = ""
        for table in tables:
            run.yielded = True
            yield table
        session.left_out.keep(run.resource.table)
        if tables and not keeps_cursor:
            state.update(
                run.state(session.options)
            )  # after the yield: a run that is stopped there reads the batch again
    session.left_out.keep(run.resource.table)
    if run.done:
        session.reader.drop(run.listing)
        run.plan = replace(run.plan, t0=session.proven(run.plan.t0))
    if not keeps_cursor:
        rests = rested(before.get("t0", 0), run.plan.t0, session.options.look_back, None)
        worth = (
            not run.done
            or run.yielded
            or rests
            or any(before.get("left", ()))
            or run.childless != ("childless" in before)
        )
        _replace(
            state, run.state(session.options) if worth else before
        )  # an idle run writes nothing


def _dates(records: Sequence[Record]) -> Iterator[int]:
    """When objects were created, those on test clocks aside: these have a time of their own."""
    for record in records:
        if not typed(getattr(record.row, "test_clock", None), "ref"):
            yield typed(record.row.created, "timestamp") or 0


def _creations(
    session: Session, writer: Writer, records: Sequence[Record], known: int
) -> list[Any]:
    """Changes for new objects, where the key may not read the events that would tell of them; not
    for those that were listed before the destination lost them.
    """
    resource, shape = writer.resource, writer.shape
    new = [
        record
        for record in records
        if record.row.id not in writer.held
        and (not known or (typed(record.row.created, "timestamp") or 0) >= known)
    ]
    if not new:
        return []
    dlt.current.source_state()[TOLD_BY_LIST] = True
    found = []
    for record in new:
        image, created = shape.image(record.row), typed(record.row.created, "timestamp")
        found.append(
            Change(
                list_id(session.account.id, resource.table, record.row.id, created),
                resource.table,
                record.row.id,
                "c",
                "list",
                session.api.now() if created is None else created,
                encoded(resource, image),
                before_quality="exact",
                customer_id=customer_of(resource, record.row.id, image),
                api_version=session.api.version,
            )
        )
    return writer.changes(found)


def _replace(state: dict[str, Any], new: dict[str, Any]) -> None:
    state.clear()
    state.update(new)


def _resume(session: Session, resource: Resource, state: dict[str, Any]) -> Run | None:
    """The listing that this session has under way, if the state is where it left it."""
    run: Run | None = session.runs.get(resource.table)
    if run is None or run.plan.keeps_cursor or state == run.state(session.options):
        return run
    return None


def _lost(writer: Writer, state: dict[str, Any]) -> str:
    """The table that the destination has lost, the resource's or its children's; they can be empty
    at Stripe, too.
    """
    if "t0" not in state or writer.client is None or writer.session.options.end is not None:
        return ""
    with writer.client as client:
        if existing.is_empty(client, writer.resource.table):
            return writer.resource.table
        empty = next(
            (
                child.table
                for child in writer.resource.children
                if existing.is_empty(client, child.table)
            ),
            "",
        )
    if not empty:
        state.pop("childless", None)
    return "" if state.get("childless") else empty


def _begin(
    session: Session, resource: Resource, state: dict[str, Any], again: bool = False, lost: str = ""
) -> Run:
    """Start a listing; its `t0` is in the state before its first request. `again`: the destination
    holds rows already; `lost`: a table that it has not.
    """
    options, now = session.options, session.api.now()
    planned = plan(
        state, options, len(resource.list_filters), now, session.account.created, bool(lost)
    )
    if again:
        planned = replace(planned, first=False)
    if not planned.first:
        shape = session.shapes[resource.table]
        _tell_new_columns(resource.table, [expandable.column.name for expandable in shape.expanded])
    listing = open_listing(session, resource, planned.left)
    left = [list(walk) for walk in planned.left]
    left += [[(0, FAR)] for _ in listing.walks[len(left) :]]
    run = Run(resource, planned, listing, left, rest=planned.t0 < now)
    run.start = min(options.start or 0, state.get("start", options.start or 0))
    if lost:
        run.lost, run.known = lost, state["t0"] - options.look_back
    run.childless = state.get("childless", False) or (
        bool(lost) and lost != resource.table
    )  # until a child comes
    run.compare = again or state.get("compare", False)
    run.shape = (
        shape_id(session.api.version, session.shapes[resource.table])
        if planned.first or again
        else state.get("shape")
    )
    run.listing.page_wise = is_limited(
        Container()[SourceInjectableContext].source.resources.get(resource.table)
    )
    session.runs[resource.table] = run
    if not planned.keeps_cursor:
        _replace(state, run.state(options))
    return run


def open_listing(
    session: Session, resource: Resource, left: Sequence[Sequence[Range]]
) -> Listing[Record]:
    """Begin to read ranges of a list, per walk; where asked for, also all that is on test clocks,
    which the list hides.
    """
    api, options, shape = session.api, session.options, session.shapes[resource.table]
    clocks = session.test_clocks if resource.hides_test_clocks else []
    walks: list[Params] = [
        *resource.list_filters,
        *((*walk, ("test_clock", clock)) for clock in clocks for walk in resource.list_filters),
    ]
    listing: Listing[Record] = Listing(
        resource.table,
        resource.path,
        lambda walk, ask: page_of(
            api,
            resource,
            shape,
            walks[walk],
            ask,
            options.test_clocks,
            leave_out=session.left_out.add,
        ),
        [*(Planner(ranges) for ranges in left), *(Planner([(0, FAR)]) for _ in walks[len(left) :])],
    )
    session.reader.open(listing)
    return listing


def _tell_new_columns(table: str, names: Sequence[str]) -> None:
    """An opt-in field that is asked for later: say what happens to the rows that are there."""
    held = dlt.current.source_schema().tables.get(table, {}).get("columns", {})
    for name in names:
        if held and name not in held:
            log.warning(
                "%s.%s comes with rows loaded from now on; --full-refresh brings it to all.",
                table,
                name,
            )
