"""Read the lists: each resource walks its list endpoint by `created` and yields Arrow tables with
its state.

State of a resource: `t0`, Stripe's time when the listing began; `left`, per walk the ranges of
seconds not yet yielded; `start`, the oldest second asked for; `shape`, the schema of the first
rows; `compare`, if stored rows may no longer exist; `childless`, if no object of a whole list had a
child; `lost`, the table of embedded objects whose rows this listing brings back; `relisted`, when
the last days were listed again, because objects change without an event; `since`, of a resource
without events, the time from which its list reports creations, and `snapshot_due`, if it is to give
a snapshot; and `empty`, if a list that cannot be filtered by time had no object. Nothing else: no
ids, no cursors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..errors import NotReadable
from ..resources import CHANGES
from ..resources.model import QueryPairs, Resource
from . import existing
from .accounts.package import (
    resource_state,
    selected_resource,
    selected_resources,
    source_state,
    stored_columns,
)
from .next_step import should_store
from .paging.fetch import fetch_list_page
from .paging.listing import ListingRun, plan_listing
from .paging.reader import Listing, ListPage
from .paging.whole_walk import WHOLE_LIST, WholeWalk
from .paging.windows import FAR_FUTURE, Planner, Range, subtract
from .refetch import Fetched, refetch
from .repairs.row_changes import changes_of_rows
from .run import RunContext
from .tables.changes import ChangeRow, customer_id_of, encode_image, listed_change_id
from .tables.codec import Record, schema_id
from .tables.dlt_resource import is_limited
from .tables.values import value_of
from .writer import Writer, child_items, read_version

log = logging.getLogger("stripe_feed")

# in the source's state: a list has reported creations, for a key that could not read events
LIST_EMITTED_CREATES = "told_by_list"
KEPT_IN_STATE = ("relisted", "since", "snapshot_due")  # what a listing leaves in the state


def list_rows(context: RunContext, resource: Resource) -> Iterator[Any]:
    """Yield the rows of a resource and its children as Arrow tables; None while none are ready."""
    yield from rows_if_readable(context, resource, _list_rows)


def rows_if_readable(
    context: RunContext,
    resource: Resource,
    read: Callable[[RunContext, Resource, Sequence[str]], Iterator[Any]],
) -> Iterator[Any]:
    """Yield what `read` yields, given the names of the selected resources. If Stripe refuses the
    resource, it is left out with a warning.
    """
    selected = selected_resources()
    context.acquire()
    failed = False
    try:
        yield from read(context, resource, selected)
    except NotReadable as refusal:
        context.refuse(resource.table, refusal)
        log.warning("%s is left out: %s", resource.table, refusal)
    except Exception:
        failed = True
        raise
    finally:
        context.end_list(resource.table)
        context.release(selected, failed)


def _list_rows(context: RunContext, resource: Resource, selected: Sequence[str]) -> Iterator[Any]:
    state = resource_state(resource.table)
    # first: it refuses another account's dataset before anything is read
    writer = Writer(context, resource)
    plan = context.plan(selected)
    step = plan.steps[resource.table]
    yield from _retry_rejected(context, writer)
    run = context.listing_runs.get(resource.table)
    if run is not None and run.done:
        return  # an earlier package of this run has read everything
    if resource.table not in plan.lists:
        return  # the whole list is compared instead
    relist_from = None if resource.table in plan.compared else plan.relist_from.get(resource.table)
    run = _resume_listing(context, resource, state) if step != "relist" else None
    lost = _lost_table(writer, state) if run is None and step != "relist" else ""
    before = dict(state)
    if step == "relist":
        _replace_state(state, {})
    run = (
        run
        or _resume_listing(context, resource, state)
        or _begin_listing(
            context,
            resource,
            state,
            relist=step == "relist",
            lost_table=lost,
            relist_from=relist_from,
        )
    )
    reports_changes = CHANGES in selected
    try:
        yield from _walk(
            context, run, writer, state, {} if step == "relist" else before, reports_changes
        )
        if run.done and run.resumed:  # it ended where an earlier run began: read what is new since
            before = dict(state)
            run = _begin_listing(context, resource, state)
            yield from _walk(context, run, writer, state, before, reports_changes)
    except NotReadable:
        if run.plan.first:  # its events begin with the listing that loads it
            source_state().get("resources", {}).get(CHANGES, {}).pop(resource.table, None)
        _replace_state(state, before)
        context.connections.reader.stop(run.listing)
        raise


def _retry_rejected(context: RunContext, writer: Writer) -> Iterator[Any]:
    """Fetch objects that earlier runs rejected."""
    table = writer.resource.table
    ids = context.left_out.ids_to_retry(table)
    if not ids:
        return
    fetched_objects: list[Fetched] = []
    for batch in refetch(context, {table: dict.fromkeys(ids)}, {table: writer.client}):
        yield None
        fetched_objects += [fetched for _, fetched in batch]
    if table in context.refused:
        raise context.refused[table]
    clocks = context.options.test_clocks
    fetched_objects = [
        fetched
        for fetched in fetched_objects
        if clocks or not value_of(getattr(fetched.record.row, "test_clock", None), "ref")
    ]
    yield from writer.rows(
        [fetched.record for fetched in fetched_objects],
        [read_version(fetched.requested_at) for fetched in fetched_objects],
    )
    context.left_out.resolve(table, ids)
    context.left_out.store(table)


def _walk(
    context: RunContext,
    run: ListingRun,
    writer: Writer,
    state: dict[str, Any],
    before: dict[str, Any],
    reports_changes: bool,
) -> Iterator[Any]:
    """Yield what a listing reads, until it or the package ends, and keep the state; `before` is the
    state stored last. `reports_changes`: also yield changes that no event reports.
    """
    writer.lost_table = run.lost_embedded
    while not run.done and not context.package_full:
        pages = context.connections.reader.next_batch(run.listing)
        if not pages:
            yield None
            continue
        tables = _batch_tables(context, run, writer, pages, reports_changes)
        for table in tables:
            run.yielded = True
            yield table
        context.left_out.store(run.resource.table)
        if tables and not run.plan.keeps_cursor:
            # after the yield: a run that is stopped there reads the batch again
            state.update(run.state(context.options))
    context.left_out.store(run.resource.table)
    if run.done:
        context.connections.reader.stop(run.listing)
        run.plan = replace(run.plan, started_at=context.proven(run.plan.started_at))
        run.lost_embedded = ""
    if not run.plan.keeps_cursor:
        # an idle run writes nothing
        is_news = _is_worth_storing(run, before, context.options.look_back)
        _replace_state(state, run.state(context.options) if is_news else before)


def _batch_tables(
    context: RunContext,
    run: ListingRun,
    writer: Writer,
    pages: Sequence[ListPage[Record]],
    reports_changes: bool,
) -> list[Any]:
    """Return the rows and changes that a batch of pages brings, and note in `run` what it shows."""
    versions = {
        id(record): read_version(page.requested_at)
        for page in pages
        for record in page.rows.values()
    }
    listed = [record for page in pages for record in page.rows.values()]
    for page in pages:
        run.remaining[page.walk] = subtract(run.remaining[page.walk], page.covered)
    if context.is_in_doubt:
        context.note_seconds(_created_seconds(listed))
    run.is_empty = run.is_empty and not listed
    run.childless = run.childless and not any(
        child_items(record, child) for record in listed for child in run.resource.children
    )
    is_first_load = run.plan.first or bool(run.lost_embedded)
    records = listed if is_first_load else writer.drop_unchanged(listed)
    tables = writer.rows(records, [versions[id(record)] for record in records])
    if not tables and _needs_empty_tables(run):
        tables = writer.empty_tables()
    if tables and reports_changes and not (run.plan.first or run.plan.keeps_cursor):
        tables += _changes_without_events(context, run, writer, records)
    if run.lost_table and any((record.created or 0) < run.known_before for record in records):
        log.warning(
            "%s is gone or empty in the destination: %s are listed again.",
            run.lost_table,
            run.resource.table,
        )
        run.lost_table = ""
    return tables


def _needs_empty_tables(run: ListingRun) -> bool:
    """Whether the tables are to exist although a batch has no rows. `add_limit` counts yields: a page
    without rows, from before the account existed, is none.
    """
    return (
        not run.yielded
        and (run.plan.first or run.resumed or _has_no_table(run.resource.table))
        and (run.done or not run.listing.batch_per_page)
    )


def _changes_without_events(
    context: RunContext, run: ListingRun, writer: Writer, records: Sequence[Record]
) -> list[Any]:
    """Return the changes that these rows show, if no event that may be read reports them."""
    if not run.resource.events:
        since = max(run.carried.get("since", 0), run.known_before)
        schema = schema_id(context.api.version, writer.codec)
        return listed_changes(
            context, writer, records, partial(_is_new, run, since), run.schema == schema
        )
    if context.events_denied is not None and not run.resumed:
        return _created_changes(context, writer, records, run.known_before)
    return []


def _is_worth_storing(run: ListingRun, before: Mapping[str, Any], look_back: int) -> bool:
    """Whether the state of a listing says more than the one that was stored `before`."""
    return (
        not run.done
        or run.yielded
        or should_store(before.get("t0", 0), run.plan.started_at, look_back, None)
        or any(before.get("left", ()))
        or run.childless != ("childless" in before)
    )


def _has_no_table(table: str) -> bool:
    """Whether no package has brought the table: a run was killed that had only begun to list."""
    return not stored_columns(table)


def _created_seconds(records: Sequence[Record]) -> Iterator[int]:
    """When objects were created, except those on test clocks, which have a time of their own."""
    for record in records:
        if not value_of(getattr(record.row, "test_clock", None), "ref"):
            yield record.created or 0


def _is_new(run: ListingRun, since: int, record: Record) -> bool:
    """Whether an object without a row was created since the first listing began. Those that never
    say when they were created are new if the whole list was there before.
    """
    if record.created is None:
        return not run.resource.created_column and not run.continued
    return record.created >= since


def listed_changes(
    context: RunContext,
    writer: Writer,
    records: Sequence[Record],
    is_new: Callable[[Record], bool],
    is_same_schema: bool,
) -> list[Any]:
    """Return the changes that no event reports: creations of new objects, and differences to the rows
    that were looked up last. Without `is_same_schema` only fields of both schemas are compared.
    """
    resource, codec = writer.resource, writer.codec
    created = [
        _created_change(context, writer, record)
        for record in records
        if record.row.id not in writer.stored_hashes and is_new(record)
    ]
    changed = changes_of_rows(
        writer.client,
        resource,
        codec,
        [record for record in records if record.row.id in writer.stored_hashes],
        context.api.now(),
        context.api.version,
        is_same_schema,
    )
    return writer.changes([*created, *changed])


def _created_changes(
    context: RunContext, writer: Writer, records: Sequence[Record], known_before: int
) -> list[Any]:
    """Return changes for new objects, for a key that may not read their events; not for objects
    that were listed before the destination lost them.
    """
    new = [
        record
        for record in records
        if record.row.id not in writer.stored_hashes
        and (not known_before or (record.created or 0) >= known_before)
    ]
    if not new:
        return []
    source_state()[LIST_EMITTED_CREATES] = True
    return writer.changes([_created_change(context, writer, record) for record in new])


def _created_change(context: RunContext, writer: Writer, record: Record) -> ChangeRow:
    resource, id, created = writer.resource, record.row.id, record.created
    image = writer.codec.image(record.row)
    return ChangeRow(
        listed_change_id(context.account.id, resource.table, id, created),
        resource.table,
        id,
        "c",
        "list",
        context.api.now() if created is None else created,
        encode_image(resource, image),
        before_quality="exact",
        customer_id=customer_id_of(resource, id, image),
        api_version=context.api.version,
    )


def _replace_state(state: dict[str, Any], new: dict[str, Any]) -> None:
    state.clear()
    state.update(new)


def _resume_listing(
    context: RunContext, resource: Resource, state: dict[str, Any]
) -> ListingRun | None:
    """Return the listing that an earlier package began, if the state is as it left it."""
    run = context.listing_runs.get(resource.table)
    if run is None or run.plan.keeps_cursor or state == run.state(context.options):
        return run
    return None


def _lost_table(writer: Writer, state: dict[str, Any]) -> str:
    """Return the table that the destination has lost, the resource's or its children's; children
    may be empty at Stripe too.
    """
    if "t0" not in state or writer.client is None or writer.context.options.end is not None:
        return ""
    if writer.resource.table in writer.tables_without_rows and "empty" not in state:
        return writer.resource.table
    children = [child.table for child in writer.resource.children]
    empty = next((table for table in children if table in writer.tables_without_rows), "")
    embedded = "" if empty else _lost_embedded_table(writer)
    if not empty:
        state.pop("childless", None)
    return embedded or ("" if state.get("childless") else empty)


def _lost_embedded_table(writer: Writer) -> str:
    """The table that the destination has lost, although its children hold objects that belong there.

    The list of these objects may hide them, as it hides prices that were made for one subscription.
    Where deletes are `hard`, an empty table is nothing unusual.
    """
    if writer.context.options.deletes == "hard":
        return ""
    states = source_state().get("resources", {})
    lost = [
        (child, column, table)
        for child in writer.resource.children
        for column, table in child.embeds
        if table in writer.tables_without_rows and "t0" in states.get(table, {})
    ]
    if not lost:
        return ""
    with writer.client as client:
        return next(
            (
                table
                for child, column, table in lost
                if existing.has_value(client, child.table, column)
            ),
            "",
        )


def _begin_listing(
    context: RunContext,
    resource: Resource,
    state: dict[str, Any],
    relist: bool = False,
    lost_table: str = "",
    relist_from: int | None = None,
) -> ListingRun:
    """Begin a listing; its `t0` is in the state before its first request. `relist`: the destination
    holds rows already; `lost_table`: a table that it has lost; `relist_from`: what was created since
    is listed again.
    """
    options, now = context.options, context.api.now()
    planned = plan_listing(
        resource, state, options, now, context.account.created, bool(lost_table), relist_from
    )
    if relist:
        planned = replace(planned, first=False)
    if not planned.first:
        codec = context.codecs[resource.table]
        _warn_new_columns(resource.table, [expandable.name for expandable in codec.expanded])
    listing = open_listing(context, resource, planned.remaining)
    remaining = [list(walk) for walk in planned.remaining]
    remaining += [[WHOLE_LIST] for _ in listing.walks[len(remaining) :]]
    run = ListingRun(resource, planned, listing, remaining, resumed=planned.started_at < now)
    run.start = min(options.start or 0, state.get("start", options.start or 0))
    if lost_table:
        run.lost_table, run.known_before = lost_table, state["t0"] - options.look_back
    children = [child.table for child in resource.children]
    embedded = [table for child in resource.children for _, table in child.embeds]
    run.childless = state.get("childless", False) or lost_table in children  # until a child comes
    run.lost_embedded = lost_table if lost_table in embedded else state.get("lost", "")
    run.compare = relist or state.get("compare", False)
    run.is_empty = not resource.created_field
    run.continued = any(state.get("left", ()))
    run.carried = {name: state[name] for name in KEPT_IN_STATE if name in state}
    if planned.first and options.snapshot and not resource.events:
        run.carried["snapshot_due"] = True
    if resource.relist_days and (planned.first or lost_table or relist_from is not None):
        run.carried["relisted"] = planned.started_at
    run.schema = (
        schema_id(context.api.version, context.codecs[resource.table])
        if planned.first or relist
        else state.get("shape")
    )
    run.listing.batch_per_page = is_limited(selected_resource(resource.table))
    context.keep_listing(run)
    if not planned.keeps_cursor:
        _replace_state(state, run.state(options))
    return run


def open_listing(
    context: RunContext, resource: Resource, remaining: Sequence[Sequence[Range]]
) -> Listing[Record]:
    """Begin to read ranges of a list, per walk, or the whole list if it has no filter by time; if
    requested, also all objects on test clocks, which the list hides.
    """
    api, options, codec = context.api, context.options, context.codecs[resource.table]
    clocks = context.test_clocks if resource.hides_test_clocks else []
    walks: list[QueryPairs] = [
        *resource.list_filters,
        *((*walk, ("test_clock", clock)) for clock in clocks for walk in resource.list_filters),
    ]
    created_in = None if resource.created_field else (options.start or 0, options.end or FAR_FUTURE)
    listing: Listing[Record] = Listing(
        resource.table,
        resource.path,
        lambda walk, request: fetch_list_page(
            api,
            resource,
            codec,
            walks[walk],
            request,
            options.test_clocks,
            reject=context.left_out.add,
            created_in=created_in,
        ),
        [WholeWalk() for _ in walks]
        if not resource.created_field
        else [
            *(Planner(ranges) for ranges in remaining),
            *(Planner([WHOLE_LIST]) for _ in walks[len(remaining) :]),
        ],
    )
    context.connections.reader.open(listing)
    return listing


def _warn_new_columns(table: str, names: Sequence[str]) -> None:
    """Warn that an opt-in field that was added later is empty in the stored rows."""
    columns = stored_columns(table)
    for name in names:
        if columns and name not in columns:
            log.warning(
                "%s.%s comes with rows loaded from now on; --full-refresh brings it to all.",
                table,
                name,
            )
