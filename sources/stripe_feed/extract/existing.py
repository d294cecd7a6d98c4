"""What the destination holds already, by id: so that nothing is written twice, and what was there
before a change can be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
from dlt.common.destination.exceptions import DestinationUndefinedEntity

from ..destination.state import select_rows, table_name
from ..resources import CHANGES, RESOURCES
from ..resources.model import Child, Column, ColumnKind, Resource
from .tables.arrow import Stamp
from .tables.codec import ARROW, MEMORY, Shape
from .tables.diff import Image, id_of

IDS_PER_SELECT = 500
EVER = (
    10**11
    # a second after all others: a difference is told at our time, which may be ahead of the next run's
)

Row = dict[str, Any]  # a row that is held, by column, as the destination's driver gives it


def hashes(client: Any, table: str, ids: Sequence[str]) -> dict[str, str]:
    """Return id -> `_hash` of the rows that a complete load brought and that are not deleted;
    nothing where there is no table.
    """
    query = f"select id, _hash from {table_name(client, table)} where deleted_at is null and _dlt_load_id in ({_complete(client)})"
    return dict(_by_ids(client, f"{query} and id in", ids))


def children(client: Any, table: str, child: Child, ids: Sequence[str]) -> dict[str, int]:
    """Return id -> how many children are held that came with the row that is held: a run can stop
    between the two.
    """
    query = (
        f"select c.{child.parent}, count(*) from {table_name(client, child.table)} c "
        f"join {table_name(client, table)} p on p.id = c.{child.parent} where p._version = c._version and p.id in"
    )
    return dict(_by_ids(client, query, ids, f" group by c.{child.parent}"))


def seen(client: Any, ids: Sequence[str]) -> set[str]:
    """Those of these change ids that a complete load brought."""
    query = f"select change_id from {table_name(client, CHANGES)} where _dlt_load_id in ({_complete(client)}) and change_id in"
    return {id for (id,) in _by_ids(client, query, ids)}


class LastImage(NamedTuple):
    """What an object's newest change leads to: an image of this API version, none after a deletion.
    `whole`: as Stripe sent it, where others are made of a row, and have its lists. `at`: when it
    happened.
    """

    api_version: str | None
    image: Image | None
    whole: bool
    at: int


def last_images(client: Any, resource: str, before: Mapping[str, int]) -> dict[str, LastImage]:
    """Return id -> where its newest change before a second leads to; nothing where that was
    forgotten.

    What was told late came before the others of its second.
    """
    query = (
        "select object_id, occurred_at, _dlt_load_id, seq, api_version, op, after, late, origin "
        f"from {table_name(client, CHANGES)} where _dlt_load_id in ({_complete(client)}) and resource = %s and object_id in"
    )
    found = _by_ids(client, query, list(before), first=(resource,))
    older = [row for row in found if _time(row[1]).timestamp() < before[row[0]]]
    newest = {
        row[0]: row
        for row in sorted(older, key=lambda row: (_time(row[1]), not row[7], row[2], row[3]))
    }
    return {
        id: LastImage(
            version,
            None if op == "d" else parsed(after),
            origin == "event",
            int(_time(at).timestamp()),
        )
        for id, (_, at, *_, version, op, after, _, origin) in newest.items()
        if op == "d" or after is not None
    }


class Before(NamedTuple):
    """A change that was told; of one that no event told, `event_id` is None."""

    object_id: str
    event_id: str | None
    event_type: str | None
    occurred_at: int
    api_version: str | None
    op: str
    after: bytes | None
    previous: bytes | None


def told_since(client: Any, resource: str, since: Mapping[str, int]) -> list[Before]:
    """The changes of some objects from a second on, in the order in which they happened as far as
    that is known.
    """
    query = (
        "select object_id, event_id, event_type, occurred_at, api_version, op, after, previous, late, _dlt_load_id, seq "
        f"from {table_name(client, CHANGES)} where _dlt_load_id in ({_complete(client)}) "
        "and resource = %s and occurred_at >= %s and object_id in"
    )
    oldest = datetime.fromtimestamp(min(since.values()), timezone.utc)
    rows = [
        (
            Before(
                id,
                event,
                type,
                int(_time(at).timestamp()),
                version,
                op,
                _raw(after),
                _raw(previous),
            ),
            (not late, load, seq),
        )
        for id, event, type, at, version, op, after, previous, late, load, seq in _by_ids(
            client, query, list(since), first=(resource, oldest)
        )
    ]
    rows.sort(key=lambda row: (row[0].occurred_at, row[1]))
    return [one for one, _ in rows if one.occurred_at >= since[one.object_id]]


def _raw(value: Any) -> bytes | None:
    """A JSON cell as bytes, whatever the driver makes of it."""
    found = value if isinstance(value, str | bytes) else msgspec.json.encode(value)
    return (
        None if found in ("null", b"null") else found.encode() if isinstance(found, str) else found
    )


def copies(client: Any, table: str, id: str) -> Iterator[bytes]:
    """The JSON of an object where rows that are held show it whole, as an item shows its price."""
    children = [child for row in RESOURCES.values() for child in row.children]
    for owner, column in [
        (child.table, name) for child in children for name, of in child.embeds if of == table
    ]:
        text = f"cast({client.escape_column_name(column)} as varchar)"
        query = f"select distinct {text} from {table_name(client, owner)} where {text} like %s"
        for (found,) in select_rows(client, query, f'%"{id}"%'):
            yield found.encode()


def rows(client: Any, shape: Shape, ids: Sequence[str]) -> dict[str, Row]:
    """Return id -> the whole row that is held, deleted or not."""
    columns = [column for column in shape.all_columns if column.name != "_dlt_load_id"]
    names = _cells(client, shape.name, [column.name for column in columns])
    held = _by_ids(client, f"select {names} from {table_name(client, shape.name)} where id in", ids)
    return {
        row["id"]: row
        for row in (dict(zip([c.name for c in columns], one, strict=True)) for one in held)
    }


def items(client: Any, shape: Shape, parent: str, parents: Sequence[str]) -> dict[str, list[Image]]:
    """Return parent's id -> its children as the objects that they were."""
    columns = shape.columns
    names = _cells(client, shape.name, [*(column.name for column in columns), "extra"])
    found: dict[str, list[Image]] = {}
    for one in _by_ids(
        client, f"select {names} from {table_name(client, shape.name)} where {parent} in", parents
    ):
        row = dict(zip([*(column.name for column in columns), "extra"], one, strict=True))
        found.setdefault(row[parent], []).append(image(shape, row))
    return found


def images(client: Any, shape: Shape, rows: Mapping[str, Row]) -> dict[str, Image]:
    """Held rows as the objects that they were, their lists whole."""
    found = {id: image(shape, row) for id, row in rows.items()}
    for child, one in shape.children:
        held = items(client, one, child.parent, list(rows))
        for id, whole in found.items():
            whole[child.field] = {"object": "list", "data": held.get(id, []), "has_more": False}
    return found


def told(client: Any, resource: str, ids: Sequence[str] | None = None) -> set[str]:
    """The objects of a resource, or those of these, that any change of a complete load tells of."""
    query = (
        f"select distinct object_id from {table_name(client, CHANGES)} "
        f"where _dlt_load_id in ({_complete(client)}) and resource = %s"
    )
    if ids is None:
        return {id for (id,) in select_rows(client, query, resource)}
    return {id for (id,) in _by_ids(client, f"{query} and object_id in", ids, first=(resource,))}


def told_gone(client: Any, resource: str, ids: Sequence[str]) -> set[str]:
    """Those of these objects whose deletion a change of a complete load tells of."""
    query = (
        f"select object_id from {table_name(client, CHANGES)} where _dlt_load_id in ({_complete(client)}) and resource = %s "
        "and op = 'd' and object_id in"
    )
    return {id for (id,) in _by_ids(client, query, ids, first=(resource,))}


def compared(resource: Resource, shape: Shape) -> set[str]:
    """The fields in which an object and its row may not differ: the documented ones and its lists,
    without the volatile.
    """
    names = {column.name for column in shape.columns} | {child.field for child in resource.children}
    return names - set(resource.volatile)


def unlike(resource: Resource, shape: Shape, told: Image, held: Image) -> list[str]:
    """The documented fields in which a change's image differs from its row's, without lists: events
    cut them, and tables hold them apart.
    """
    left_out = {*resource.volatile, *resource.bearer_links, *resource.excluded}
    columns = [
        column for column in shape.columns if column.name in told and column.name not in left_out
    ]
    return [
        column.name
        for column in columns
        if _plain(column, told[column.name]) != _plain(column, held.get(column.name))
    ]


def _plain(column: Column, value: Any) -> Any:
    if column.kind == "ref":
        return id_of(value)
    return (
        as_json("decimal", value) if column.kind == "decimal" and isinstance(value, str) else value
    )


def is_empty(client: Any, table: str) -> bool:
    """Whether a table is not there, or has no row."""
    return not select_rows(client, f"select 1 from {table_name(client, table)} limit 1")


def complete_loads(client: Any) -> set[str]:
    """The ids of the loads that were completed."""
    return {str(id) for (id,) in select_rows(client, _complete(client))}


def remove_deleted(client: Any, table: str, before: int) -> None:
    """Delete the rows of objects that were deleted before a Unix second."""
    try:
        client.execute_sql(
            f"delete from {table_name(client, table)} where deleted_at < %s",
            datetime.fromtimestamp(before, timezone.utc),
        )
    except DestinationUndefinedEntity:
        return


def all_rows(client: Any, table: str, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Some columns of every row of a table, null where it lacks one; nothing where there is no
    table.
    """
    try:
        with client.execute_query(
            f"select {_cells(client, table, names)} from {table_name(client, table)}"
        ) as cursor:
            while found := cursor.fetchmany(10_000):
                yield from found
    except DestinationUndefinedEntity:
        return


def image(shape: Shape, row: Row) -> Image:
    """A held row as the object that it was, without its children."""
    found: Image = {column.name: as_json(column.kind, row[column.name]) for column in shape.columns}
    return found | (parsed(row["extra"]) or {})


def as_json(kind: ColumnKind, value: Any) -> Any:
    """A cell as Stripe writes it in JSON."""
    if value is None:
        return None
    match kind:
        case "timestamp":
            return int(_time(value).timestamp())
        case "json":
            return parsed(value)
        case "decimal":
            text = f"{Decimal(str(value)):f}"
            return text.rstrip("0").rstrip(".") if "." in text else text
        case "bool":
            return bool(value)
        case _:
            return value


def parsed(value: Any) -> Any:
    """A JSON cell, whatever the driver makes of it; a text that is no JSON as it is."""
    try:
        return msgspec.json.decode(value) if isinstance(value, str | bytes) else value
    except msgspec.DecodeError:
        return value


def as_table(
    shape: Shape,
    held: Sequence[Row],
    versions: Sequence[int],
    deleted_at: Sequence[int | None],
    stamp: Stamp,
) -> pa.Table:
    """Held rows as they are, but with another version and time of deletion."""
    own: Mapping[str, Sequence[Any]] = {
        "_version": versions,
        "_dlt_load_id": [stamp.load_id] * len(held),
        "account_id": [stamp.account_id] * len(held),
        "deleted_at": [
            None if end is None else datetime.fromtimestamp(end, timezone.utc) for end in deleted_at
        ],
    }
    arrays = [
        pa.array(
            own[column.name]
            if column.name in own
            else [_cell(column, row[column.name]) for row in held],
            ARROW[column.kind],
            memory_pool=MEMORY,
        )
        for column in shape.all_columns
    ]
    return pa.Table.from_arrays(arrays, schema=shape.schema)


def _cell(column: Column, value: Any) -> Any:
    if value is None:
        return None
    match column.kind:
        case "timestamp":
            return _time(value)
        case "json":
            return value if isinstance(value, str) else msgspec.json.encode(value).decode()
        case "decimal":
            return Decimal(str(value))
        case "bool":
            return bool(value)
        case _:
            return value


def _time(value: Any) -> datetime:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment


def count_between(client: Any, resource: Resource, lo: int, hi: int) -> int:
    """How many rows are held that were created in [lo, hi], Unix seconds."""
    query = f"select count(*) from {table_name(client, resource.table)} where created >= %s and created <= %s"
    times = [datetime.fromtimestamp(at, timezone.utc) for at in (lo, hi)]
    return next((int(count) for (count,) in select_rows(client, query, *times)), 0)


def _complete(client: Any) -> str:
    return f"select load_id from {table_name(client, '_dlt_loads')} where status = 0"


def _cells(client: Any, table: str, names: Sequence[str]) -> str:
    """What to select for these columns: null for one that somebody has dropped."""
    quoted = [client.escape_column_name(name) for name in names]
    try:
        with client.execute_query(
            f"select * from {table_name(client, table)} where 1 = 0"
        ) as cursor:
            there = {column[0].lower() for column in cursor.native_cursor.description or ()}
    except DestinationUndefinedEntity:
        there = set()
    return ", ".join(
        name if not there or plain.lower() in there else f"null as {name}"
        for plain, name in zip(names, quoted, strict=True)
    )


def _by_ids(
    client: Any, query: str, ids: Sequence[str], end: str = "", first: Sequence[Any] = ()
) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(ids), IDS_PER_SELECT):
        some = ids[start : start + IDS_PER_SELECT]
        yield from select_rows(
            client, f"{query} ({', '.join(['%s'] * len(some))}){end}", *first, *some
        )
