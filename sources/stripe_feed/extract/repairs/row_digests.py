"""What a row holds as two digests, made alike from a row of the destination and from an object as
it would be written.

The first one is of what Stripe documents, without the volatile fields: where it differs, the row is
wrong. The other is of the rest: volatile and unknown fields, the account, and the objects inside
children that change without these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from ...resources.model import Column, ColumnKind, Resource
from .. import existing
from ..tables.arrow import Stamp, children, parents
from ..tables.codec import OWN_COLUMNS, Record, Shape
from ..tables.diff import Image, counted, id_of

MORE = OWN_COLUMNS[:2]  # `extra` and `account_id`
MASK = (1 << 64) - 1

_json = msgspec.json.Encoder(order="sorted")


class Content(NamedTuple):
    """Digests; those of an object include its children, in whatever order."""

    counted: int
    rest: int

    def __add__(self, other: tuple[Any, ...]) -> Content:
        return Content((self.counted + other[0]) & MASK, (self.rest + other[1]) & MASK)


Digest = Callable[[Sequence[Any]], Content]


def columns_of(shape: Shape) -> tuple[Column, ...]:
    """The columns that a digest is made of, in its order."""
    return (*shape.columns, *MORE)


def digest_of(shape: Shape, volatile: Sequence[str] = ()) -> Digest:
    """What makes the digests of one row, given as the values of `columns_of`."""
    kinds = [column.kind for column in columns_of(shape)]
    embedded = {n for n, column in enumerate(shape.columns) if column.name in dict(shape.embeds)}
    counted = [n for n, column in enumerate(shape.columns) if column.name not in volatile]
    rest = [n for n in range(len(kinds)) if n not in counted or n in embedded]

    def digest(values: Sequence[Any]) -> Content:
        cells = [cell(kind, value) for kind, value in zip(kinds, values, strict=True)]
        told = [id_of(cells[n]) if n in embedded else cells[n] for n in counted]
        return Content(_digest(told), _digest([cells[n] for n in rest]))

    return digest


def contents_of(
    resource: Resource, shape: Shape, records: Sequence[Record], stamp: Stamp
) -> list[Content]:
    """The digests of some objects, by way of the rows that they would be."""
    digest = digest_of(shape, resource.volatile)
    found = [
        digest(values)
        for values in _values(shape, parents(shape, records, [0] * len(records), stamp))
    ]
    for child, one in shape.children:
        families = [
            (str(record.row.id), list(getattr(record.row, child.field).data), 0)
            for record in records
        ]
        owners = [n for n, (_, rows, _) in enumerate(families) for _ in rows]
        of_child = digest_of(one)
        for n, values in zip(
            owners, _values(one, children(one, child, families, stamp, 0)), strict=False
        ):  # then tombstones
            found[n] += of_child(values)
    return found


def images_of(
    resource: Resource, shape: Shape, records: Sequence[Record], stamp: Stamp
) -> list[Image]:
    """Objects as images of the rows that they would be, like those of rows that are held."""
    found = [
        existing.image(shape, row)
        for row in parents(shape, records, [0] * len(records), stamp).to_pylist()
    ]
    for child, one in shape.children:
        families = [
            (str(record.row.id), list(getattr(record.row, child.field).data), 0)
            for record in records
        ]
        rows = children(one, child, families, stamp, 0).to_pylist()[
            : sum(len(items) for _, items, _ in families)
        ]
        by_parent: dict[str, list[Image]] = {}
        for row in rows:
            by_parent.setdefault(row[child.parent], []).append(existing.image(one, row))
        for record, image in zip(records, found, strict=True):
            image[child.field] = {
                "object": "list",
                "data": by_parent.get(record.row.id, []),
                "has_more": False,
            }
    return found


def as_plain(value: Any, is_list: bool) -> Any:
    """A value of an image as it counts: children in the order of their ids, copies of other objects
    by theirs.
    """
    found = _parsed.decode(msgspec.json.encode(value))
    return (
        sorted((counted(one) for one in found["data"]), key=lambda one: str(one["id"]))
        if is_list and found
        else found
    )


def _values(shape: Shape, table: pa.Table) -> Sequence[tuple[Any, ...]]:
    return list(
        zip(*(table.column(column.name).to_pylist() for column in columns_of(shape)), strict=True)
    )


def cell(kind: ColumnKind, value: Any) -> Any:
    """A value as JSON; as it is where it is nothing that Stripe could have sent."""
    if value is None:
        return None
    try:
        if kind == "json":
            return _parsed.decode(
                value if isinstance(value, str | bytes) else msgspec.json.encode(value)
            )
        return existing.as_json(kind, value)
    except (ValueError, ArithmeticError, TypeError, AttributeError):
        return f"{kind}? {value!r}"


def _number(text: str) -> int | float:
    """Some databases keep 30.0 as 30."""
    found = float(text)
    return int(found) if found.is_integer() and abs(found) < 2**53 else found


_parsed = msgspec.json.Decoder(float_hook=_number)


def _digest(values: list[Any]) -> int:
    return int.from_bytes(blake2b(_json.encode(values), digest_size=8).digest(), "big")
