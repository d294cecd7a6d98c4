"""Lists give what exists: each resource walks its list endpoint by `created` and yields Arrow tables with its state.

State of a resource: `t0`, Stripe's time when the listing began; `left`, per walk the ranges of seconds not yet yielded; and
`start`, the oldest second asked for. Nothing else: no ids, no cursors.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import dlt
import msgspec
import pyarrow as pa
from dlt.common.configuration.container import Container
from dlt.common.storages.load_package import LoadPackageStateInjectableContext
from dlt.extract.source import SourceInjectableContext

from ..destination import require_merge
from ..errors import PermissionMissing, UsageError
from ..resources import RESOURCES, Child, Params, Resource
from . import prior
from .fetch import page_of
from .hints import names_of, newer_wins, table_hints, whole_lists
from .pages import Listing, Part
from .records import Record, Shape, Stamp, children, parents, typed
from .session import Options, Session, check_owner
from .windows import Planner, Range, subtract

log = logging.getLogger("stripe_feed")

FIRST_ACCOUNT = 1_293_840_000      # 2011-01-01: where the account's creation is unknown
VERSION_STEP = 1_000_000           # `_version` is second * step + order
VERSION_LAG = 5                    # seconds that a listed row yields to an event of the same time
FAR = 10_000_000_000               # test clocks run ahead of now
REST = 6 * 3600                    # an idle cursor is stored this often, in seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """What one listing covers: ranges per walk; `t0` is its end for a listing by cursor."""

    t0: int
    left: list[list[Range]]
    first: bool                    # nothing of this resource was loaded before
    keeps_cursor: bool             # a fixed range: state is left alone


def plan(state: dict[str, Any], options: Options, walks: int, now: int, account_created: int) -> Plan:
    """Decide what to list: go on where a listing stopped, or what is new since the last one, or everything."""
    start = options.start or 0
    if start >= now:
        raise UsageError("start_date is in the future. Give an earlier one, or leave it out.")
    low = account_created or FIRST_ACCOUNT
    until = now if options.end is None else min(options.end, now)
    ranges = [(start, until)] if start else [(low, until), (0, min(low, until))]
    whole = [[r for r in ranges if r[0] < r[1]] for _ in range(walks)]
    if options.end is not None:
        return Plan(now, whole, False, True)
    if "t0" not in state:
        return Plan(now, whole, True, False)
    older = [(start, state["start"])] if start < state["start"] else []
    left = [[*older, *((lo, hi) for lo, hi in walk)] for walk in state["left"]]
    if any(state["left"]):
        return Plan(state["t0"], left, False, False)
    since = max(state["start"], state["t0"] - options.look_back)      # a later start does not skip what the cursor has not seen
    return Plan(now, [[*older, (since, now)] for _ in range(walks)], False, False)


@dataclass(eq=False)
class Run:
    """One listing under way: what is left to yield, and the reader's side of it."""

    resource: Resource
    plan: Plan
    listing: Listing[Record]
    left: list[list[Range]] = field(default_factory=list)
    rest: bool = False             # of a listing that an earlier run began
    start: int | None = None       # the oldest second that this copy was ever asked for
    yielded: bool = False

    @property
    def done(self) -> bool:
        """Whether all was read and taken."""
        return self.listing.finished and not self.listing.parts

    def state(self, options: Options) -> dict[str, Any]:
        """The resource's state once everything taken so far is loaded."""
        left = [[list(r) for r in walk] for walk in self.left[:len(self.resource.walks)]]    # test clocks: always whole
        return {"t0": self.plan.t0, "left": left, "start": options.start or 0 if self.start is None else self.start}


def list_rows(session: Session, resource: Resource) -> Iterator[Any]:
    """Yield the rows of a resource and its children as Arrow tables, and nothing while none are ready."""
    selected = list(Container()[SourceInjectableContext].source.resources.selected)
    session.enter()
    failed = False
    try:
        yield from _list_rows(session, resource)
    except PermissionMissing as refusal:
        session.refused[resource.table] = refusal
        log.warning("%s is left out: %s", resource.table, refusal)
    except Exception:
        failed = True
        raise
    finally:
        session.leave(selected, failed)


def _list_rows(session: Session, resource: Resource) -> Iterator[Any]:
    run = session.runs.get(resource.table)
    if run is not None and run.done:
        return                                       # an earlier package of this session brought all there is
    state = dlt.current.resource_state()
    writer = Writer(session, resource)
    before = dict(state)
    run = _resume(session, resource, state) or _begin(session, resource, state)
    try:
        yield from _walk(session, run, writer, state, before)
        if run.done and run.rest:                    # it ended where an earlier run began: go on with what came since
            before = dict(state)
            run = _begin(session, resource, state)
            yield from _walk(session, run, writer, state, before)
    except PermissionMissing:
        _replace(state, before)
        session.reader.drop(run.listing)
        raise


def _walk(session: Session, run: Run, writer: Writer, state: dict[str, Any], before: dict[str, Any]) -> Iterator[Any]:
    """Yield what a listing reads, until it or the package ends, and keep the state; `before` is the one stored last."""
    keeps_cursor = run.plan.keeps_cursor
    while not run.done and not session.full:
        parts = session.reader.take(run.listing)
        if not parts:
            yield None
            continue
        for part in parts:
            run.left[part.walk] = subtract(run.left[part.walk], part.cover)
        tables = writer.tables(parts, run.plan.first)
        if not tables and not run.yielded and (run.plan.first or run.rest):
            tables = writer.empty_tables()
        for table in tables:
            run.yielded = True
            yield table
        if tables and not keeps_cursor:
            state.update(run.state(session.options))     # after the yield: a run that is stopped there reads the batch again
    if run.done:
        session.reader.drop(run.listing)
    if not keeps_cursor:
        rested = run.plan.t0 - before.get("t0", 0) >= REST
        worth = not run.done or run.yielded or rested or any(before.get("left", ()))
        _replace(state, run.state(session.options) if worth else before)     # an idle run writes nothing


def _replace(state: dict[str, Any], new: dict[str, Any]) -> None:
    state.clear()
    state.update(new)


def _resume(session: Session, resource: Resource, state: dict[str, Any]) -> Run | None:
    """The listing that this session has under way, if the state is where it left it."""
    run: Run | None = session.runs.get(resource.table)
    if run is None or run.plan.keeps_cursor or state == run.state(session.options):
        return run
    return None


def _begin(session: Session, resource: Resource, state: dict[str, Any]) -> Run:
    """Start a listing; its `t0` is in the state before its first request."""
    account = session.account
    options = session.options
    now = session.api.now()
    planned = plan(state, options, len(resource.walks), now, account.created)
    shape = session.shapes[resource.table]
    if not planned.first:
        _tell_new_columns(resource.table, [expandable.column.name for expandable in shape.expanded])
    api = session.api
    clocks = session.test_clocks if resource.clock_filtered else []
    walks: list[Params] = [*resource.walks, *((*walk, ("test_clock", clock)) for clock in clocks for walk in resource.walks)]
    left = [*planned.left, *([(0, FAR)] for _ in walks[len(resource.walks):])]
    listing: Listing[Record] = Listing(
        resource.table, resource.path,
        lambda walk, ask: page_of(api, resource, shape, walks[walk], ask, options.test_clocks),
        [Planner(ranges) for ranges in left],
    )
    run = Run(resource, planned, listing, [list(walk) for walk in left], rest=planned.t0 < now)
    session.runs[resource.table] = run
    if not planned.keeps_cursor:
        _replace(state, run.state(options))
    session.reader.open(listing)
    return run


def _tell_new_columns(table: str, names: Sequence[str]) -> None:
    """An opt-in field that is asked for later: say what happens to the rows that are there."""
    held = dlt.current.source_schema().tables.get(table, {}).get("columns", {})
    for name in names:
        if held and name not in held:
            log.warning("%s.%s comes with rows loaded from now on; --full-refresh brings it to all.", table, name)


class Writer:
    """Turns parts of a listing into marked Arrow tables; the first of each table brings its merge conditions along."""

    def __init__(self, session: Session, resource: Resource) -> None:
        self.session = session
        self.resource = resource
        self.shape = session.shapes[resource.table]
        self.hinted: set[str] = set()
        self.client: Any = None
        self.destination = ""
        load_id = ""
        if LoadPackageStateInjectableContext in Container():      # otherwise somebody just looks at the rows
            load_id = dlt.current.load_package_state()["load_id"]
            self.client = self._client(load_id)
            self.destination = dlt.current.pipeline().destination.destination_type
            self.names = {name: names_of(self.client, name) for name in self._tables()}
            self._check_owner()
        self.stamp = Stamp(session.account.id, load_id)

    def _client(self, load_id: str) -> Any:
        """The destination's SQL client, made once for a package: dlt resolves its configuration each time."""
        if self.session.client is None or self.session.client[0] != load_id:
            pipeline = dlt.current.pipeline()
            require_merge(pipeline.destination)
            self.session.client = (load_id, pipeline.sql_client())
        return self.session.client[1]

    def _tables(self) -> list[str]:
        embeds = [table for child in self.resource.children for _, table in child.embeds]
        return [self.resource.table, *(child.table for child in self.resource.children), *embeds]

    def _check_owner(self) -> None:
        """One dataset holds one account in one mode; asked of the rows themselves where the state does not say."""
        account = self.session.account
        state = dlt.current.source_state()
        if "account" in state:
            check_owner(account, (state["account"], state["livemode"]))
        else:
            with self.client as client:
                check_owner(account, prior.owner(client, list(RESOURCES)))
            state.update(account=account.id, livemode=account.livemode)
        if state.get("api_version") != self.session.api.version:
            if "api_version" in state:
                log.warning("The API version changes from %s to %s.", state["api_version"], self.session.api.version)
            state["api_version"] = self.session.api.version

    def tables(self, parts: Sequence[Part[Record]], first: bool) -> list[Any]:
        """The tables to yield for some parts; none where nothing is new."""
        versions = {id(r): (part.asked_at - VERSION_LAG) * VERSION_STEP for part in parts for r in part.rows}
        records = [record for part in parts for record in part.rows]
        if not first:
            records = self._changed(records)
        if not records:
            return []
        held = [versions[id(record)] for record in records]
        found = [self._mark(self.resource.table, parents(self.shape, records, held, self.stamp))]
        for child, shape in self.shape.children:       # children last: where they are held, the rest is as well
            families = [(record.row.id, _items(record, child), version) for record, version in zip(records, held, strict=True)]
            found += self._embedded(shape, child, families)
            found.append(self._mark(child.table, children(shape, child, families, self.stamp, self.session.api.now()), child))
        return found

    def empty_tables(self) -> list[Any]:
        """Tables without rows, so that they exist after the first run."""
        found = [self._mark(self.resource.table, parents(self.shape, [], [], self.stamp))]
        for child, shape in self.shape.children:
            found.append(self._mark(child.table, children(shape, child, [], self.stamp, 0), child))
        return found

    def _changed(self, records: Sequence[Record]) -> list[Record]:
        """Without the rows of the overlap that the destination holds as they are."""
        if not records or self.client is None:
            return list(records)
        with self.client as client:
            held = prior.hashes(client, self.resource.table, [record.row.id for record in records])
            same = [record.row.id for record in records if held.get(record.row.id) == record.hash]
            whole = [(child, prior.children(client, self.resource.table, child, same)) for child in self.resource.children]

        def is_held(record: Record) -> bool:
            id = record.row.id
            return held.get(id) == record.hash and all(
                found.get(id, 0) == len({item.id for item in _items(record, child)}) for child, found in whole
            )

        return [record for record in records if not is_held(record)]

    def _embedded(self, shape: Shape, child: Child, families: Sequence[tuple[str, Sequence[Any], int]]) -> list[Any]:
        """Rows for full objects inside children: the list may hide them. Anything read directly is newer."""
        found = []
        for name, table in child.embeds:
            fresh: dict[str, Record] = {}
            for _, rows, _ in families:
                for row in rows:
                    self._collect(fresh, self.session.shapes[table], getattr(row, name))
            if fresh:
                records = list(fresh.values())
                versions = [(typed(record.row.created, "timestamp") or 0) * VERSION_STEP for record in records]
                found.append(self._mark(table, parents(self.session.shapes[table], records, versions, self.stamp)))
        return found

    def _collect(self, fresh: dict[str, Record], shape: Shape, raw: msgspec.Raw) -> None:
        try:
            key = f"{shape.name}/{_head.decode(raw).id}"
        except msgspec.ValidationError:
            return                                   # an id, or nothing: no full object
        if key not in self.session.embedded_seen:
            self.session.embedded_seen.add(key)
            fresh[key] = shape.object(bytes(raw))

    def _mark(self, name: str, table: pa.Table, child: Child | None = None) -> Any:
        """Tell dlt where a table goes, and count its rows; copies from inside other objects are not counted."""
        if name == self.resource.table or child is not None:
            self.session.wrote(name, table.num_rows if child is None else table["deleted_at"].null_count)
        if name in self.hinted:
            return table if name == self.resource.table else dlt.mark.with_table_name(table, name)
        self.hinted.add(name)
        if self.client is None:
            return table
        names = self.names[name]
        merge = newer_wins(names) if child is None else whole_lists(child, self.names[self.resource.table], names)
        hints = {**table_hints(self._shape(name), child, self.destination), "write_disposition": merge}
        if name == self.resource.table:
            columns = hints["columns"]
            return dlt.mark.with_hints(table, dlt.mark.make_hints(write_disposition=merge, columns=columns))   # type: ignore[arg-type]
        return dlt.mark.with_hints(table, dlt.mark.make_hints(**hints), create_table_variant=True)

    def _shape(self, name: str) -> Shape:
        children = {shape.name: shape for _, shape in self.shape.children}
        return children.get(name) or self.session.shapes[name]


class _Head(msgspec.Struct):
    id: str
    object: str


_head = msgspec.json.Decoder(_Head)


def _items(record: Record, child: Child) -> list[Any]:
    return list(getattr(record.row, child.field).data)


