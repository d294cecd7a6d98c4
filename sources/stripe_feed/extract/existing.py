"""Look up by id what the destination holds already, so that nothing is written twice, and the state
before a change is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
from dlt.common.destination.exceptions import DestinationUndefinedEntity

from ..api.iso_time import with_zone
from ..destination.state import rows_to_change, select_rows, table_name
from ..resources import CHANGES, RESOURCES
from ..resources.column_files import DETAILS
from ..resources.model import Child, Column, ColumnKind, Holder, Resource
from .tables.arrow import LoadStamp
from .tables.codec import ARROW_MEMORY, ARROW_TYPES, TableCodec
from .tables.diff import Image, id_of

IDS_PER_SELECT = 500
# later than any change: a difference has the time of the run that found it, which may be ahead of
# the next run's
AFTER_ANY_CHANGE = 10**11

StoredRow = dict[str, Any]  # a stored row by column, as the destination's driver returns it


def stored_hashes(client: Any, table: str, ids: Sequence[str]) -> dict[str, str]:
    """Return id -> `_hash` of the rows that a complete load brought and that are not deleted; empty
    if there is no table.
    """
    query = f"select id, _hash from {table_name(client, table)} where deleted_at is null and _dlt_load_id in ({_complete_loads_query(client)})"
    return dict(_by_ids(client, f"{query} and id in", ids))


def stored_child_counts(
    client: Any, table: str, child: Child, ids: Sequence[str]
) -> dict[str, int]:
    """Return id -> the number of stored children that came with the stored row: a run can stop
    between the two.
    """
    query = (
        f"select c.{child.parent}, count(*) from {table_name(client, child.table)} c "
        f"join {table_name(client, table)} p on p.id = c.{child.parent} where p._version = c._version and p.id in"
    )
    return dict(_by_ids(client, query, ids, f" group by c.{child.parent}"))


def known_change_ids(client: Any, ids: Sequence[str]) -> set[str]:
    """Return those of these change ids that a complete load brought."""
    query = f"select change_id from {table_name(client, CHANGES)} where _dlt_load_id in ({_complete_loads_query(client)}) and change_id in"
    return {id for (id,) in _by_ids(client, query, ids)}


class LastImage(NamedTuple):
    """The image that an object's newest change leads to, in this API version; None after a deletion.
    `complete`: as Stripe sent it; other images are made from a row. `at`: when it happened.
    """

    api_version: str | None
    image: Image | None
    complete: bool
    at: int


def last_images(client: Any, resource: str, before: Mapping[str, int]) -> dict[str, LastImage]:
    """Return id -> the image that its newest change before a second leads to; no entry if it was
    forgotten. A late change counts as the earliest of its second.
    """
    query = (
        "select object_id, occurred_at, _dlt_load_id, seq, api_version, op, after, late, origin "
        f"from {table_name(client, CHANGES)} where _dlt_load_id in ({_complete_loads_query(client)}) and resource = %s and object_id in"
    )
    rows = _by_ids(client, query, list(before), values=(resource,))
    older = [row for row in rows if with_zone(row[1]).timestamp() < before[row[0]]]
    newest = {
        row[0]: row
        for row in sorted(older, key=lambda row: (with_zone(row[1]), not row[7], row[2], row[3]))
    }
    return {
        id: LastImage(
            version,
            None if op == "d" else parse_cell(after),
            origin == "event",
            int(with_zone(at).timestamp()),
        )
        for id, (_, at, *_, version, op, after, _, origin) in newest.items()
        if op == "d" or after is not None
    }


class StoredChange(NamedTuple):
    """A stored change; without an event, `event_id` is None."""

    object_id: str
    event_id: str | None
    event_type: str | None
    occurred_at: int
    api_version: str | None
    op: str
    after: bytes | None
    previous: bytes | None


def changes_since(client: Any, resource: str, since: Mapping[str, int]) -> list[StoredChange]:
    """Return the stored changes of some objects from a second on, in the order in which they
    happened as far as it is known.
    """
    query = (
        "select object_id, event_id, event_type, occurred_at, api_version, op, after, previous, late, _dlt_load_id, seq "
        f"from {table_name(client, CHANGES)} where _dlt_load_id in ({_complete_loads_query(client)}) "
        "and resource = %s and occurred_at >= %s and object_id in"
    )
    oldest = datetime.fromtimestamp(min(since.values()), timezone.utc)
    rows = [
        (
            StoredChange(
                id,
                event,
                type,
                int(with_zone(at).timestamp()),
                version,
                op,
                _json_bytes(after),
                _json_bytes(previous),
            ),
            (not late, load, seq),
        )
        for id, event, type, at, version, op, after, previous, late, load, seq in _by_ids(
            client, query, list(since), values=(resource, oldest)
        )
    ]
    rows.sort(key=lambda row: (row[0].occurred_at, row[1]))
    return [change for change, _ in rows if change.occurred_at >= since[change.object_id]]


def _json_bytes(value: Any) -> bytes | None:
    """Return a JSON cell as bytes, whatever type the driver returns."""
    text = value if isinstance(value, str | bytes) else msgspec.json.encode(value)
    if text in ("null", b"null"):
        return None
    return text.encode() if isinstance(text, str) else text


def embedded_copies(client: Any, table: str, id: str) -> Iterator[bytes]:
    """Yield the JSON of an object from stored rows that embed it, as an item embeds its price."""
    children = [child for row in RESOURCES.values() for child in row.children]
    for owner, column in [
        (child.table, name) for child in children for name, of in child.embeds if of == table
    ]:
        cast_text = f"cast({client.escape_column_name(column)} as varchar)"
        query = f"select distinct {cast_text} from {table_name(client, owner)} where {cast_text} like %s"
        for (text,) in select_rows(client, query, f'%"{id}"%'):
            yield text.encode()


def rows_that_hold(client: Any, holder: Holder, since: str) -> list[tuple[str, set[str]]]:
    """Return the ids of owners and the ids that their rows of loads after `since` hold, where they
    hold any.
    """
    field, owner = (client.escape_column_name(name) for name in (holder.field, holder.owner))
    held = f"cast({field} as varchar)"
    query = (
        f"select {owner}, {held} from {table_name(client, holder.table)} where deleted_at is null "
        f"and {held} not in ('[]', 'null') and _dlt_load_id > %s"
    )
    rows = [
        (owner_id, msgspec.json.decode(text))
        for owner_id, text in select_rows(client, query, since)
    ]
    return [
        (str(owner_id), {id for id in map(id_of, _as_list(value)) if isinstance(id, str)})
        for owner_id, value in rows
    ]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def known_ids(client: Any, table: str, ids: Sequence[str]) -> set[str]:
    """Return those of these ids that have a row of a complete load, deleted or not."""
    query = (
        f"select id from {table_name(client, table)} "
        f"where _dlt_load_id in ({_complete_loads_query(client)}) and id in"
    )
    return {id for (id,) in _by_ids(client, query, ids)}


def creations(client: Any, resource: Resource, ids: Sequence[str]) -> dict[str, int | None]:
    """Return id -> when the object was created, of stored rows."""
    created = client.escape_column_name(resource.created_column)
    query = f"select id, {created} from {table_name(client, resource.table)} where id in"
    return {
        id: stripe_value("timestamp", at) for id, at in _by_ids(client, query, sorted(set(ids)))
    }


def stored_rows(client: Any, codec: TableCodec, ids: Sequence[str]) -> dict[str, StoredRow]:
    """Return id -> the whole stored row, deleted or not."""
    columns = [column for column in codec.all_columns if column.name != "_dlt_load_id"]
    names = _select_list(client, codec.name, [column.name for column in columns])
    rows = _by_ids(client, f"select {names} from {table_name(client, codec.name)} where id in", ids)
    return {
        row["id"]: row
        for row in (dict(zip([c.name for c in columns], values, strict=True)) for values in rows)
    }


def child_objects(
    client: Any, codec: TableCodec, parent: str, parents: Sequence[str]
) -> dict[str, list[Image]]:
    """Return parent's id -> its stored children as objects."""
    columns = codec.columns
    names = _select_list(client, codec.name, [*(column.name for column in columns), "extra"])
    objects: dict[str, list[Image]] = {}
    for values in _by_ids(
        client, f"select {names} from {table_name(client, codec.name)} where {parent} in", parents
    ):
        row = dict(zip([*(column.name for column in columns), "extra"], values, strict=True))
        objects.setdefault(row[parent], []).append(object_from_row(codec, row))
    return objects


def objects_from_rows(
    client: Any, codec: TableCodec, rows: Mapping[str, StoredRow]
) -> dict[str, Image]:
    """Turn stored rows into objects, with their lists complete."""
    objects = {id: object_from_row(codec, row) for id, row in rows.items()}
    for child, child_codec in codec.children:
        children = child_objects(client, child_codec, child.parent, list(rows))
        for id, image in objects.items():
            image[child.field] = {"object": "list", "data": children.get(id, []), "has_more": False}
    return objects


def ids_with_changes(client: Any, resource: str, ids: Sequence[str] | None = None) -> set[str]:
    """Return the ids of a resource, or those of these, that a change of a complete load is about."""
    query = (
        f"select distinct object_id from {table_name(client, CHANGES)} "
        f"where _dlt_load_id in ({_complete_loads_query(client)}) and resource = %s"
    )
    if ids is None:
        return {id for (id,) in select_rows(client, query, resource)}
    return {id for (id,) in _by_ids(client, f"{query} and object_id in", ids, values=(resource,))}


def ids_with_deletion(client: Any, resource: str, ids: Sequence[str]) -> set[str]:
    """Return those of these ids whose deletion a change of a complete load reports."""
    query = (
        f"select object_id from {table_name(client, CHANGES)} where _dlt_load_id in ({_complete_loads_query(client)}) and resource = %s "
        "and op = 'd' and object_id in"
    )
    return {id for (id,) in _by_ids(client, query, ids, values=(resource,))}


def compared_fields(resource: Resource, codec: TableCodec) -> set[str]:
    """Return the fields in which an object and its row must agree: the documented ones and its
    lists, without the volatile ones.
    """
    names = {column.name for column in codec.columns} | {child.field for child in resource.children}
    if codec.folded:
        names = (names - {DETAILS.name}) | set(codec.folded)
    return names - set(resource.volatile)


def differing_fields(
    resource: Resource, codec: TableCodec, change_image: Image, row_image: Image
) -> list[str]:
    """Return the documented fields in which a change's image differs from its row's, without lists:
    events truncate them, and tables hold them separately.
    """
    left_out = {*resource.volatile, *resource.bearer_links, *resource.excluded}
    columns = [
        column
        for column in codec.columns
        if column.name in change_image and column.name not in left_out
    ]
    return [
        column.name
        for column in columns
        if _comparable(column, change_image[column.name])
        != _comparable(column, row_image.get(column.name))
    ]


def _comparable(column: Column, value: Any) -> Any:
    if column.kind == "ref":
        return id_of(value)
    if column.kind == "decimal" and isinstance(value, str):
        return stripe_value("decimal", value)
    return _as_stored(value)


def _as_stored(value: Any) -> Any:
    """A parsed JSON value with each NUL written out, as a change has it: no table can hold one."""
    match value:
        case str():
            return value.replace("\0", "\\u0000")
        case list():
            return [_as_stored(element) for element in value]
        case dict():
            return {_as_stored(name): _as_stored(element) for name, element in value.items()}
    return value


def is_empty(client: Any, table: str) -> bool:
    """Whether a table does not exist, or has no row."""
    return not select_rows(client, f"select 1 from {table_name(client, table)} limit 1")


def tables_without_rows(client: Any, tables: Iterable[str]) -> frozenset[str]:
    """Those of these tables that do not exist, or have no row."""
    return frozenset(table for table in tables if is_empty(client, table))


def has_value(client: Any, table: str, column: str) -> bool:
    """Whether a column of a table has a value in some row."""
    name, quoted = table_name(client, table), client.escape_column_name(column)
    return bool(select_rows(client, f"select 1 from {name} where {quoted} is not null limit 1"))


def complete_loads(client: Any) -> set[str]:
    """Return the ids of the completed loads."""
    return {str(id) for (id,) in select_rows(client, _complete_loads_query(client))}


def remove_deleted(client: Any, table: str, before: int) -> None:
    """Delete the rows of objects that were deleted before a Unix second."""
    try:
        name, condition = rows_to_change(client, table)
        client.execute_sql(
            f"delete from {name} where {condition}deleted_at < %s",
            datetime.fromtimestamp(before, timezone.utc),
        )
    except DestinationUndefinedEntity:
        return


def all_rows(client: Any, table: str, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield some columns of every row of a table; null for a missing column, nothing for a missing
    table.
    """
    yield from _read_rows(
        client, f"select {_select_list(client, table, names)} from {table_name(client, table)}"
    )


def rows_created_since(
    client: Any, resource: Resource, names: Sequence[str], since: int
) -> Iterator[tuple[Any, ...]]:
    """Like `all_rows`, for objects created since a Unix second."""
    created = client.escape_column_name(resource.created_column)
    query = (
        f"select {_select_list(client, resource.table, names)} "
        f"from {table_name(client, resource.table)} where {created} >= %s"
    )
    yield from _read_rows(client, query, datetime.fromtimestamp(since, timezone.utc))


def rows_of_parents(
    client: Any, table: str, names: Sequence[str], parent: str, parents: Sequence[str]
) -> Iterator[tuple[Any, ...]]:
    """Like `all_rows`, for the children of some parents; `parent` is the column with their ids."""
    query = (
        f"select {_select_list(client, table, names)} from {table_name(client, table)} "
        f"where {client.escape_column_name(parent)} in"
    )
    yield from _by_ids(client, query, parents)


def rows_by_ids(
    client: Any, table: str, ids: Sequence[str], condition: str
) -> Iterator[tuple[Any, ...]]:
    """Yield those of these ids whose rows meet a condition."""
    yield from _by_ids(
        client, f"select id from {table_name(client, table)} where {condition} and id in", ids
    )


def _read_rows(client: Any, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
    try:
        with client.execute_query(query, *values) as cursor:
            while batch := cursor.fetchmany(10_000):
                yield from batch
    except DestinationUndefinedEntity:
        return


def object_from_row(codec: TableCodec, row: StoredRow) -> Image:
    """Turn a stored row into an object, without its children."""
    image: Image = {
        column.name: stripe_value(column.kind, row[column.name]) for column in codec.columns
    }
    image["id"] = codec.own_id(image["id"])
    if codec.folded:
        image |= image.pop(DETAILS.name) or {}
    return image | (parse_cell(row["extra"]) or {})


def stripe_value(kind: ColumnKind, value: Any) -> Any:
    """Return a cell as Stripe writes it in JSON."""
    if value is None:
        return None
    match kind:
        case "timestamp":
            return int(with_zone(value).timestamp())
        case "json":
            return parse_cell(value)
        case "decimal":
            text = f"{Decimal(str(value)):f}"
            return text.rstrip("0").rstrip(".") if "." in text else text
        case "bool":
            return bool(value)
        case _:
            return value


def parse_cell(value: Any) -> Any:
    """Parse a JSON cell, whatever type the driver returns; return text that is not JSON unchanged."""
    try:
        return msgspec.json.decode(value) if isinstance(value, str | bytes) else value
    except msgspec.DecodeError:
        return value


def rows_as_table(
    codec: TableCodec,
    rows: Sequence[StoredRow],
    versions: Sequence[int],
    deleted_at: Sequence[int | None],
    stamp: LoadStamp,
) -> pa.Table:
    """Build a table of stored rows, with another version and time of deletion."""
    replaced: Mapping[str, Sequence[Any]] = {
        "_version": versions,
        "_dlt_load_id": [stamp.load_id] * len(rows),
        "account_id": [stamp.account_id] * len(rows),
        "deleted_at": [
            None if second is None else datetime.fromtimestamp(second, timezone.utc)
            for second in deleted_at
        ],
    }
    arrays = [
        pa.array(
            replaced[column.name]
            if column.name in replaced
            else [_arrow_value(column, row[column.name]) for row in rows],
            ARROW_TYPES[column.kind],
            memory_pool=ARROW_MEMORY,
        )
        for column in codec.all_columns
    ]
    return pa.Table.from_arrays(arrays, schema=codec.schema)


def _arrow_value(column: Column, value: Any) -> Any:
    if value is None:
        return None
    match column.kind:
        case "timestamp":
            return with_zone(value)
        case "json":
            return value if isinstance(value, str) else msgspec.json.encode(value).decode()
        case "decimal":
            return Decimal(str(value))
        case "bool":
            return bool(value)
        case _:
            return value


def count_rows(client: Any, table: str) -> int:
    """Count the rows of a table; 0 if it does not exist."""
    query = f"select count(*) from {table_name(client, table)}"
    return next((int(count) for (count,) in select_rows(client, query)), 0)


def count_between(client: Any, resource: Resource, lo: int, hi: int) -> int:
    """Count the stored rows that were created in [lo, hi], Unix seconds."""
    created = client.escape_column_name(resource.created_column)
    query = f"select count(*) from {table_name(client, resource.table)} where {created} >= %s and {created} <= %s"
    times = [datetime.fromtimestamp(at, timezone.utc) for at in (lo, hi)]
    return next((int(count) for (count,) in select_rows(client, query, *times)), 0)


def _complete_loads_query(client: Any) -> str:
    return f"select load_id from {table_name(client, '_dlt_loads')} where status = 0"


def _select_list(client: Any, table: str, names: Sequence[str]) -> str:
    """Return the select list for these columns; null for a column that somebody has dropped."""
    quoted = [client.escape_column_name(name) for name in names]
    try:
        with client.execute_query(
            f"select * from {table_name(client, table)} where 1 = 0"
        ) as cursor:
            existing_names = {name.lower() for name in cursor.columns_schema or ()}
    except DestinationUndefinedEntity:
        existing_names = set()
    return ", ".join(
        name if not existing_names or plain.lower() in existing_names else f"null as {name}"
        for plain, name in zip(names, quoted, strict=True)
    )


def _by_ids(
    client: Any, query: str, ids: Sequence[str], suffix: str = "", values: Sequence[Any] = ()
) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(ids), IDS_PER_SELECT):
        batch = ids[start : start + IDS_PER_SELECT]
        yield from select_rows(
            client, f"{query} ({', '.join(['%s'] * len(batch))}){suffix}", *values, *batch
        )
