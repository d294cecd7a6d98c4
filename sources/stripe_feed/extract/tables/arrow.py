"""Turn decoded objects into Arrow tables with declared columns. Values that a column cannot hold go
to `extra`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import astuple

from ...resources.model import Child, ColumnKind
from .codec import (
    ABSENT_RAW,
    ARROW_MEMORY,
    ARROW_TYPES,
    UTC_TIME,
    Record,
    TableCodec,
)
from .values import FIRST_SECOND, LAST_SECOND, PYTHON_TYPES, Ref, value_or_overflow

CACHED_ROWS = 128  # rows that stay in the processor's cache while their values are taken
NUL_ESCAPE = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


@dataclass(frozen=True, slots=True)
class LoadStamp:
    """What every row of a load carries."""

    account_id: str
    load_id: str


def parent_table(
    codec: TableCodec,
    records: Sequence[Record],
    versions: Sequence[int],
    stamp: LoadStamp,
    deleted_at: Sequence[int | None] | None = None,
) -> pa.Table:
    """Build the table of some objects."""
    rows = [record.row for record in records]
    own_columns = _own_columns(
        len(rows), versions, stamp, [None] * len(rows) if deleted_at is None else list(deleted_at)
    )
    own_columns["_hash"] = [record.hash for record in records]
    return _to_table(codec, rows, {}, own_columns)


def child_table(
    codec: TableCodec,
    child: Child,
    families: Sequence[tuple[str, Sequence[Any], int]],
    stamp: LoadStamp,
    now: int,
) -> pa.Table:
    """Build the table of all children of some parents, given as (id, rows, version), with one
    tombstone row for each parent that has none.

    The tombstone is never stored: as the rows of other parents do, it tells the merge that its
    parent was seen, so that the merge removes the children that vanished.
    """
    rows = [row for _, rows, _ in families for row in rows]
    owners = [parent for parent, rows, _ in families for _ in rows]
    versions = [version for _, rows, version in families for _ in rows]
    childless = [(parent, version) for parent, rows, version in families if not rows]
    count = len(childless)
    tombstones = [codec.row_struct(id=parent) for parent, _ in childless]
    own_columns = _own_columns(
        len(rows) + count,
        versions + [version for _, version in childless],
        stamp,
        [None] * len(rows) + [now] * count,
    )
    fixed = {child.parent: owners + [parent for parent, _ in childless]}
    return _to_table(codec, rows + tombstones, fixed, own_columns)


def _own_columns(
    count: int, versions: Sequence[int], stamp: LoadStamp, deleted_at: list[int | None]
) -> dict[str, list[Any]]:
    return {
        "account_id": [stamp.account_id] * count,
        "deleted_at": deleted_at,
        "_version": list(versions),
        "_dlt_load_id": [stamp.load_id] * count,
    }


def _to_table(
    codec: TableCodec,
    rows: Sequence[Any],
    fixed: dict[str, list[Any]],
    own_columns: dict[str, list[Any]],
) -> pa.Table:
    overflowed: dict[int, list[tuple[str, bytes]]] = {}

    def overflow(name: str) -> Callable[[int, Any], None]:
        def move_to_extra(n: int, value: Any) -> None:
            raw = bytes(value) if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)
            overflowed.setdefault(n, []).append((name, raw))

        return move_to_extra

    arrays = {}
    for column, values in zip(codec.columns, _values_by_column(codec, rows), strict=True):
        name = column.name
        if name in fixed:
            arrays[name] = pa.array(fixed[name], pa.string(), memory_pool=ARROW_MEMORY)
            continue
        if name in codec.mistyped and column.kind != "json":
            values = [
                value_or_overflow(n, value, PYTHON_TYPES[column.kind], overflow(name))
                for n, value in enumerate(values)
            ]
        arrays[name] = to_array(column.kind, values, overflow(name))
    for name, attribute in list(codec.unknown_fields.items()):
        for n, row in enumerate(rows):
            raw = getattr(row, attribute, ABSENT_RAW)
            if bytes(raw):
                overflowed.setdefault(n, []).append((name, bytes(raw)))
    own_columns["extra"] = [
        _json_object(overflowed[n]) if n in overflowed else None for n in range(len(rows))
    ]
    for column in codec.all_columns[len(codec.columns) :]:
        values = own_columns[column.name]
        arrays[column.name] = (
            json_text(values) if column.kind == "json" else _typed_array(column.kind, values)
        )
    return pa.Table.from_arrays([arrays[field.name] for field in codec.schema], schema=codec.schema)


def _values_by_column(codec: TableCodec, rows: Sequence[Any]) -> list[list[Any]]:
    """Return the values of each column. A struct begins with the columns, in their order."""
    columns: list[list[Any]] = [[] for _ in codec.columns]
    for start in range(0, len(rows), CACHED_ROWS):
        tuples = map(astuple, rows[start : start + CACHED_ROWS])
        for column, values in zip(columns, zip(*tuples, strict=True), strict=False):
            column += values
    return columns


def _json_object(pairs: Sequence[tuple[str, bytes]]) -> bytes:
    return b"{" + b",".join(msgspec.json.encode(name) + b":" + raw for name, raw in pairs) + b"}"


def to_array(kind: ColumnKind, values: list[Any], overflow: Callable[[int, Any], None]) -> pa.Array:
    """Build an array of decoded values. A value that the column cannot hold becomes null;
    `overflow` is called with it.
    """
    if kind == "json":
        return _json_values(values)
    if kind == "ref" and Ref in set(map(type, values)):
        values = [value.id if isinstance(value, Ref) else value for value in values]
    try:
        array = _typed_array(kind, values)
    except (pa.ArrowException, OverflowError):
        array = _typed_array(
            kind, [_fitting_value(kind, n, value, overflow) for n, value in enumerate(values)]
        )
    if kind in ("text", "ref") and _contains(array, b"\0"):
        for n, value in enumerate(values):
            if value is not None and "\0" in value:
                overflow(n, value)
        array = _typed_array(
            kind, [value if value is None else value.replace("\0", "") for value in values]
        )
    return array


def _typed_array(kind: ColumnKind, values: list[Any]) -> pa.Array:
    if kind == "timestamp":
        seconds = pa.array(values, pa.int64(), memory_pool=ARROW_MEMORY)
        bounds = pc.min_max(seconds)
        if (
            bounds["min"].is_valid
            and not FIRST_SECOND <= bounds["min"].as_py() <= bounds["max"].as_py() <= LAST_SECOND
        ):
            raise OverflowError
        return seconds.cast(pa.timestamp("s", tz="UTC"), memory_pool=ARROW_MEMORY).cast(
            UTC_TIME, memory_pool=ARROW_MEMORY
        )
    if kind == "decimal":
        # there are few distinct values, and each is slow to convert
        distinct = pa.array(values, pa.string(), memory_pool=ARROW_MEMORY).dictionary_encode()
        return distinct.dictionary.cast(ARROW_TYPES["decimal"], memory_pool=ARROW_MEMORY).take(
            distinct.indices
        )
    return pa.array(values, ARROW_TYPES[kind], memory_pool=ARROW_MEMORY)


def _fitting_value(
    kind: ColumnKind, n: int, value: Any, overflow: Callable[[int, Any], None]
) -> Any:
    try:
        _typed_array(kind, [value])
    except (pa.ArrowException, OverflowError):
        overflow(n, value)
        return None
    return value


def json_text(raws: Sequence[bytes | None]) -> pa.Array:
    """Return the original bytes, with the escape of the character NUL escaped itself: PostgreSQL
    can store NUL neither in text nor in JSON.
    """
    array = pa.array(raws, pa.string(), memory_pool=ARROW_MEMORY)
    if _contains(array, b"\\u0000"):
        array = pa.array(
            [raw and NUL_ESCAPE.sub(rb"\1\\\\u0000", raw) for raw in raws],
            pa.string(),
            memory_pool=ARROW_MEMORY,
        )
    return array


def _json_values(raws: Sequence[msgspec.Raw]) -> pa.Array:
    """Like `json_text`, for what msgspec read: JSON's null becomes null. NUL is in no JSON text."""
    text = b"\0".join(raws)
    if not raws or b"\\u0000" in text:
        return json_text([None if raw == b"null" else raw for raw in map(bytes, raws)])
    joined = pa.array([text], pa.string(), memory_pool=ARROW_MEMORY)
    array = pc.split_pattern(joined, "\0", memory_pool=ARROW_MEMORY).values
    is_null = pc.equal(array, "null", memory_pool=ARROW_MEMORY)
    return pc.if_else(is_null, pa.scalar(None, pa.string()), array, memory_pool=ARROW_MEMORY)


def _contains(array: pa.Array, sequence: bytes) -> bool:
    data = array.buffers()[2]
    return data is not None and sequence in data.to_pybytes()
