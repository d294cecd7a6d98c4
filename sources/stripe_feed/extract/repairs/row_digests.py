"""Compute two digests of a row, the same for a stored row and for the row that an object would
become.

The first covers the documented fields without the volatile ones: if it differs, the row is wrong.
The other covers the rest: volatile and unknown fields, the account, and the objects embedded in
children, which change without these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from ...resources.model import Column, ColumnKind, Resource
from .. import existing
from ..tables.arrow import LoadStamp, child_table, parent_table
from ..tables.codec import ADDED_COLUMNS, Record, TableCodec
from ..tables.diff import Image, id_of, normalized_image

OTHER_COLUMNS = ADDED_COLUMNS[:2]  # `extra` and `account_id`
MASK = (1 << 64) - 1

_json = msgspec.json.Encoder(order="sorted")


class RowDigests(NamedTuple):
    """The digests of a row; those of an object include its children in any order."""

    documented: int
    other: int

    def __add__(self, other: tuple[Any, ...]) -> RowDigests:
        return RowDigests((self.documented + other[0]) & MASK, (self.other + other[1]) & MASK)


Digest = Callable[[Sequence[Any]], RowDigests]


def digest_columns(codec: TableCodec) -> tuple[Column, ...]:
    """Return the columns that a digest covers, in its order."""
    return (*codec.columns, *OTHER_COLUMNS)


def digest_function(codec: TableCodec, volatile: Sequence[str] = ()) -> Digest:
    """Return the function that digests one row, given as the values of `digest_columns`."""
    kinds = [column.kind for column in digest_columns(codec)]
    embedded = {n for n, column in enumerate(codec.columns) if column.name in dict(codec.embeds)}
    documented = [n for n, column in enumerate(codec.columns) if column.name not in volatile]
    other = [n for n in range(len(kinds)) if n not in documented or n in embedded]

    def digest(values: Sequence[Any]) -> RowDigests:
        cells = [digest_value(kind, value) for kind, value in zip(kinds, values, strict=True)]
        documented_values = [id_of(cells[n]) if n in embedded else cells[n] for n in documented]
        return RowDigests(_digest(documented_values), _digest([cells[n] for n in other]))

    return digest


def digests_of(
    resource: Resource, codec: TableCodec, records: Sequence[Record], stamp: LoadStamp
) -> list[RowDigests]:
    """Return the digests of the rows that some objects would become."""
    digest = digest_function(codec, resource.volatile)
    digests = [
        digest(values)
        for values in _values(codec, parent_table(codec, records, [0] * len(records), stamp))
    ]
    for child, child_codec in codec.children:
        families = [
            (str(record.row.id), list(getattr(record.row, child.field).data), 0)
            for record in records
        ]
        owners = [n for n, (_, rows, _) in enumerate(families) for _ in rows]
        digest_child = digest_function(child_codec)
        for n, values in zip(
            owners,
            _values(child_codec, child_table(child_codec, child, families, stamp, 0)),
            strict=False,
        ):  # tombstones follow
            digests[n] += digest_child(values)
    return digests


def row_images(
    resource: Resource, codec: TableCodec, records: Sequence[Record], stamp: LoadStamp
) -> list[Image]:
    """Return images of the rows that some objects would become, comparable to those of stored rows."""
    images = [
        existing.object_from_row(codec, row)
        for row in parent_table(codec, records, [0] * len(records), stamp).to_pylist()
    ]
    for child, child_codec in codec.children:
        families = [
            (str(record.row.id), list(getattr(record.row, child.field).data), 0)
            for record in records
        ]
        rows = child_table(child_codec, child, families, stamp, 0).to_pylist()[
            : sum(len(items) for _, items, _ in families)
        ]
        by_parent: dict[str, list[Image]] = {}
        for row in rows:
            by_parent.setdefault(row[child.parent], []).append(
                existing.object_from_row(child_codec, row)
            )
        for record, image in zip(records, images, strict=True):
            image[child.field] = {
                "object": "list",
                "data": by_parent.get(record.row.id, []),
                "has_more": False,
            }
    return images


def comparable_value(value: Any, is_list: bool) -> Any:
    """Normalize a value of an image: children in the order of their ids, embedded objects replaced
    with their ids.
    """
    decoded = _parsed.decode(msgspec.json.encode(value))
    return (
        sorted(
            (normalized_image(item) for item in decoded["data"]), key=lambda item: str(item["id"])
        )
        if is_list and decoded
        else decoded
    )


def _values(codec: TableCodec, table: pa.Table) -> Sequence[tuple[Any, ...]]:
    return list(
        zip(
            *(table.column(column.name).to_pylist() for column in digest_columns(codec)),
            strict=True,
        )
    )


def digest_value(kind: ColumnKind, value: Any) -> Any:
    """Return a stored value as JSON; a marked string if Stripe could not have sent it."""
    if value is None:
        return None
    try:
        if kind == "json":
            return _parsed.decode(
                value if isinstance(value, str | bytes) else msgspec.json.encode(value)
            )
        return existing.stripe_value(kind, value)
    except (ValueError, ArithmeticError, TypeError, AttributeError):
        return f"{kind}? {value!r}"


def _number(text: str) -> int | float:
    """Decode a number like the databases that store 30.0 as 30."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


_parsed = msgspec.json.Decoder(float_hook=_number)


def _digest(values: list[Any]) -> int:
    return int.from_bytes(blake2b(_json.encode(values), digest_size=8).digest(), "big")
