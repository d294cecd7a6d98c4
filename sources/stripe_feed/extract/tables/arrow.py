"""Decoded objects -> Arrow tables with declared columns; what a column cannot hold is kept in
`extra`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from ...resources.model import Child, ColumnKind
from .codec import ABSENT, ARROW, DECODED, MEMORY, UTC_TIME, Record, Ref, Shape

FIRST_SECOND, LAST_SECOND = (
    -62_135_596_800,
    253_402_300_799,
)  # of the years 1 and 9999: drivers read no others
NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


@dataclass(frozen=True, slots=True)
class Stamp:
    """What every row of a batch carries."""

    account_id: str
    load_id: str


def parents(
    shape: Shape,
    records: Sequence[Record],
    versions: Sequence[int],
    stamp: Stamp,
    deleted_at: Sequence[int | None] | None = None,
) -> pa.Table:
    """Lay out objects as the rows of their table."""
    rows = [record.row for record in records]
    own = _own(
        len(rows), versions, stamp, [None] * len(rows) if deleted_at is None else list(deleted_at)
    )
    own["_hash"] = [record.hash for record in records]
    return _table(shape, rows, {}, own)


def children(
    shape: Shape,
    child: Child,
    parents: Sequence[tuple[str, Sequence[Any], int]],
    stamp: Stamp,
    now: int,
) -> pa.Table:
    """Lay out all children of some parents, given as (id, rows, version), and one tombstone row for
    each parent.

    The tombstone is never stored: it tells the merge which parents were seen, so that children that
    vanished are removed.
    """
    rows = [row for _, rows, _ in parents for row in rows]
    owners = [parent for parent, rows, _ in parents for _ in rows]
    versions = [version for _, rows, version in parents for _ in rows]
    count = len(parents)
    tombs = [shape.struct(id=parent) for parent, _, _ in parents]
    own = _own(
        len(rows) + count,
        versions + [version for _, _, version in parents],
        stamp,
        [None] * len(rows) + [now] * count,
    )
    fixed = {child.parent: owners + [parent for parent, _, _ in parents]}
    return _table(shape, rows + tombs, fixed, own)


def _own(
    count: int, versions: Sequence[int], stamp: Stamp, deleted_at: list[int | None]
) -> dict[str, list[Any]]:
    return {
        "account_id": [stamp.account_id] * count,
        "deleted_at": deleted_at,
        "_version": list(versions),
        "_dlt_load_id": [stamp.load_id] * count,
    }


def _table(
    shape: Shape, rows: Sequence[Any], fixed: dict[str, list[Any]], own: dict[str, list[Any]]
) -> pa.Table:
    spilled: dict[int, list[tuple[str, bytes]]] = {}

    def spill(name: str) -> Callable[[int, Any], None]:
        def keep(n: int, value: Any) -> None:
            raw = bytes(value) if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)
            spilled.setdefault(n, []).append((name, raw))

        return keep

    arrays = {}
    for column in shape.columns:
        if column.name in fixed:
            arrays[column.name] = pa.array(fixed[column.name], pa.string(), memory_pool=MEMORY)
            continue
        name = column.name
        values = list(map(attrgetter(name), rows))
        if name in shape.loose and column.kind != "json":
            values = [
                _typed(n, value, DECODED[column.kind], spill(name))
                for n, value in enumerate(values)
            ]
        arrays[name] = lay_out(column.kind, values, spill(name))
    for name, attribute in list(shape.unknown.items()):
        for n, row in enumerate(rows):
            raw = getattr(row, attribute, ABSENT)
            if bytes(raw):
                spilled.setdefault(n, []).append((name, bytes(raw)))
    own["extra"] = [_object(spilled[n]) if n in spilled else None for n in range(len(rows))]
    for column in shape.all_columns[len(shape.columns) :]:
        values = own[column.name]
        arrays[column.name] = (
            json_text(values) if column.kind == "json" else _plain(column.kind, values)
        )
    return pa.Table.from_arrays([arrays[field.name] for field in shape.schema], schema=shape.schema)


def _object(pairs: Sequence[tuple[str, bytes]]) -> bytes:
    return b"{" + b",".join(msgspec.json.encode(name) + b":" + raw for name, raw in pairs) + b"}"


def _typed(n: int, value: Any, kind: Any, keep: Callable[[int, Any], None]) -> Any:
    """A value of a field that does not always have its documented type; the others are kept aside."""
    if not isinstance(value, msgspec.Raw):
        return value
    try:
        return msgspec.json.decode(value, type=kind)
    except msgspec.ValidationError:
        keep(n, value)
        return None


def typed(value: Any, kind: ColumnKind) -> Any:
    """A field's value; nothing where it does not have its documented type, or is no time."""
    found = _typed(0, value, DECODED[kind], lambda n, value: None)
    if kind == "timestamp" and found is not None and not FIRST_SECOND <= found <= LAST_SECOND:
        return None
    return found.id if isinstance(found, Ref) else found


def lay_out(kind: ColumnKind, values: list[Any], keep: Callable[[int, Any], None]) -> pa.Array:
    """Make an array of decoded values. One that the column cannot hold becomes null there and is
    handed to `keep`.
    """
    if kind == "json":
        return json_text([None if raw == b"null" else raw for raw in map(bytes, values)])
    if kind == "ref":
        values = [value.id if isinstance(value, Ref) else value for value in values]
    try:
        array = _plain(kind, values)
    except (pa.ArrowException, OverflowError):
        array = _plain(kind, [_fitting(kind, n, value, keep) for n, value in enumerate(values)])
    if kind in ("text", "ref") and _holds(array, b"\0"):
        for n, value in enumerate(values):
            if value is not None and "\0" in value:
                keep(n, value)
        array = _plain(
            kind, [value if value is None else value.replace("\0", "") for value in values]
        )
    return array


def _plain(kind: ColumnKind, values: list[Any]) -> pa.Array:
    if kind == "timestamp":
        seconds = pa.array(values, pa.int64(), memory_pool=MEMORY)
        ends = pc.min_max(seconds)
        if (
            ends["min"].is_valid
            and not FIRST_SECOND <= ends["min"].as_py() <= ends["max"].as_py() <= LAST_SECOND
        ):
            raise OverflowError
        return seconds.cast(pa.timestamp("s", tz="UTC"), memory_pool=MEMORY).cast(
            UTC_TIME, memory_pool=MEMORY
        )
    if kind == "decimal":
        distinct = pa.array(
            values, pa.string(), memory_pool=MEMORY
        ).dictionary_encode()  # few, and dear to convert
        return distinct.dictionary.cast(ARROW["decimal"], memory_pool=MEMORY).take(distinct.indices)
    return pa.array(values, ARROW[kind], memory_pool=MEMORY)


def _fitting(kind: ColumnKind, n: int, value: Any, keep: Callable[[int, Any], None]) -> Any:
    try:
        _plain(kind, [value])
    except (pa.ArrowException, OverflowError):
        keep(n, value)
        return None
    return value


def json_text(raws: Sequence[bytes | None]) -> pa.Array:
    """The original bytes, but for the character NUL, which PostgreSQL can hold neither in text nor
    in JSON: it is written out.
    """
    array = pa.array(raws, pa.string(), memory_pool=MEMORY)
    if _holds(array, b"\\u0000"):
        array = pa.array(
            [raw and NUL.sub(rb"\1\\\\u0000", raw) for raw in raws], pa.string(), memory_pool=MEMORY
        )
    return array


def _holds(array: pa.Array, what: bytes) -> bool:
    data = array.buffers()[2]
    return data is not None and what in data.to_pybytes()
