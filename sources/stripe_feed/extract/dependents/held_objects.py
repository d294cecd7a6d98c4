"""Load objects that no endpoint returns, such as discounts: rows of other tables name them, and they
come with the objects of these rows if they are expanded.

State: `t0`, Stripe's time of the last look; `left`, as lists have it; `checked`, the newest load
whose rows were looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from ...resources import RESOURCES
from ...resources.model import Child, Column, Resource, field_names
from .. import existing
from ..accounts.package import resource_state
from ..lists import rows_if_readable
from ..next_step import should_store
from ..paging.fetch import decode_raw_rows, fetch_sublist
from ..refetch import Fetched, refetch
from ..run import RunContext
from ..tables.codec import Record, TableCodec
from ..tables.diff import id_of
from ..tables.rejected import Rejected
from ..writer import Writer, read_version
from .parents import overlap_start

_KEPT_COLUMNS = ("id", "object", "created", "test_clock")


@dataclass
class Missing:
    """The objects to fetch for what they hold and the copy lacks, by resource: id -> when it was
    created.
    """

    owners: dict[str, dict[str, int | None]] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)  # what they hold and the copy lacks


def held_rows(context: RunContext, resource: Resource) -> Iterator[Any]:
    """Yield the objects that rows of completed loads name and that the copy lacks; None while none
    are ready.
    """
    yield from rows_if_readable(context, resource, _held_rows)


def _held_rows(context: RunContext, resource: Resource, selected: Sequence[str]) -> Iterator[Any]:
    state = resource_state(resource.table)
    writer = Writer(context, resource)
    is_first = "t0" not in state
    if is_first:
        context.require_another_package()  # the rows of this one are not there yet
        yield from writer.empty_tables()
    now, checked = context.api.now(), state.get("checked", "")
    if resource.table in writer.tables_without_rows:
        checked = ""
    newest, yielded = checked, False
    if writer.client is not None:
        newest, missing = _find_missing(writer, checked)
        for fetched in _fetch(context, writer, missing):
            yield None
            for table in _tables(context, writer, fetched, missing.ids):
                yielded = True
                yield table
    if is_first or yielded or should_store(state["t0"], now, context.options.look_back, None):
        state.update(t0=now, left=[[]], start=0, checked=newest)


def _find_missing(writer: Writer, checked: str) -> tuple[str, Missing]:
    """Return the newest completed load, and what rows of loads since `checked` hold and the copy
    lacks.
    """
    since = overlap_start(checked)
    missing = Missing()
    with writer.client as client:
        newest = max(existing.complete_loads(client), default="")
        for holder in writer.resource.holders:
            held = existing.rows_that_hold(client, holder, since)
            ids = {id for _, ids in held for id in ids}
            known = existing.known_ids(client, writer.resource.table, sorted(ids))
            owners = [owner for owner, ids in held if not known.issuperset(ids)]
            missing.ids |= ids - known
            if owners:
                row = RESOURCES[holder.resource]
                missing.owners.setdefault(row.table, {}).update(
                    existing.creations(client, row, owners)
                )
    return newest, missing


def _fetch(
    context: RunContext, writer: Writer, missing: Missing
) -> Iterator[list[tuple[str, Fetched]]]:
    """Yield the owners with all that they hold, by resource."""
    codecs = {table: holder_codec(writer.resource, RESOURCES[table]) for table in missing.owners}
    clients = dict.fromkeys(missing.owners, writer.client)
    table = writer.resource.table
    yield from refetch(context, missing.owners, clients, codecs, wanted_by=table)
    if table in context.refused:
        raise context.refused[table]


def holder_codec(held: Resource, owner: Resource) -> TableCodec:
    """Return a decoder of the owner's objects that keeps only what holds others, as Stripe sent it."""
    holders = [holder for holder in held.holders if holder.resource == owner.table]
    fields = dict.fromkeys(holder.expand.split(".")[0] for holder in holders)
    kept = [column for column in owner.columns if column.name in _KEPT_COLUMNS]
    columns = (*kept, *(Column(name, "json", "") for name in fields))
    names = {column.name for column in columns}
    codec = TableCodec(
        replace(
            owner,
            columns=columns,
            expandable=(),
            children=(),
            volatile=(),
            excluded=tuple(name for name in field_names(owner) if name not in names),
        )
    )
    codec.expand = tuple(holder.expand for holder in holders)
    return codec


def _tables(
    context: RunContext, writer: Writer, fetched: Sequence[tuple[str, Fetched]], ids: set[str]
) -> Iterator[Any]:
    """Yield the rows of what fetched objects hold and the copy lacks, and of what these embed."""
    bodies: dict[str, tuple[bytes, int]] = {}
    embedded: dict[str, list[bytes]] = {}
    for table, item in fetched:
        for body in _held_in(context, writer.resource, RESOURCES[table], item.record):
            for found in _objects(msgspec.json.decode(body), writer.resource.object):
                if found["id"] in ids:
                    for name, copy in _take_embedded(writer.resource, found):
                        embedded.setdefault(name, []).append(copy)
                    encoded = msgspec.json.encode(found)
                    bodies[found["id"]] = (encoded, read_version(item.requested_at))
    ids.difference_update(bodies)
    records = writer.codec.decode_objects([body for body, _ in bodies.values()]) if bodies else []
    rows: list[tuple[Record, int]] = []
    for record, (_, version) in zip(records, bodies.values(), strict=True):
        if isinstance(record, Rejected):
            context.left_out.add(record)
        else:
            rows.append((record, version))
    for name, copies in embedded.items():
        yield from writer.embedded_rows(name, copies)
    yield from writer.rows([record for record, _ in rows], [version for _, version in rows])
    context.left_out.store(writer.resource.table)


def _held_in(
    context: RunContext, held: Resource, owner: Resource, record: Record
) -> Iterator[bytes]:
    """Yield the fields of an object that hold others; a list that is cut is read whole."""
    for holder in held.holders:
        if holder.resource != owner.table:
            continue
        first, *rest = holder.expand.split(".")
        raw = bytes(getattr(record.row, first))
        child = next((child for child in owner.children if child.field == first), None)
        if child is not None and rest and msgspec.json.decode(raw, type=_List).has_more:
            raw = _whole_list(context, child, record.row.id, ".".join(rest))
        yield raw


class _List(msgspec.Struct):
    has_more: bool = False


def _whole_list(context: RunContext, child: Child, owner: str, expand: str) -> bytes:
    rows = fetch_sublist(context.api, child, owner, decode_raw_rows, [expand])
    return msgspec.json.encode({"data": rows})


def _take_embedded(resource: Resource, image: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Replace the full objects inside an object with their ids; yield their tables and contents."""
    for path, table in resource.embeds:
        *parents, name = path.split(".")
        place: Any = image
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        value = place.get(name) if isinstance(place, dict) else None
        if isinstance(value, dict):
            yield table, msgspec.json.encode(value)
            place[name] = id_of(value)


def _objects(value: Any, object_name: str) -> Iterator[dict[str, Any]]:
    """Yield every object of a type inside a parsed JSON value."""
    if isinstance(value, list):
        for item in value:
            yield from _objects(item, object_name)
    elif isinstance(value, dict):
        if value.get("object") == object_name and isinstance(value.get("id"), str):
            yield value
        else:
            for item in value.values():
                yield from _objects(item, object_name)
