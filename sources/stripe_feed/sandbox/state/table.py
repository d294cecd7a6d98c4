"""Objects as bytes, in Stripe's order: newest `created` first, and stable within a second."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ..samples.values import Random

SEQUENCE_BITS = 31
"""A key is `created << SEQUENCE_BITS | number`. An object without `created` counts as -1, older
than all others.
"""

MAX_CREATED = (1 << 32) - 1


@dataclass(slots=True, eq=False)
class Row:
    """One object: its bytes as they are sent, and the values that lists filter by most."""

    id: str
    key: int
    raw: bytes
    group: str = ""  # the value that lists filter by: see `Kind.grouped`
    clock: str | None = None  # test clock that it is on

    @property
    def created(self) -> int | None:
        created = self.key >> SEQUENCE_BITS
        return None if created < 0 else created

    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = msgspec.json.decode(self.raw)
        return content


def has_text(path: str, value: str) -> Callable[[Row], bool]:
    """Whether the value at a path is this text. Most rows are rejected without being decoded."""
    quoted, names = msgspec.json.encode(value), path.split(".")
    return lambda row: quoted in row.raw and value in values_at(row.content(), names)


def values_at(content: object, names: Sequence[str]) -> Iterator[Any]:
    """The values at a path, one for each object of the lists on the way."""
    if isinstance(content, list):
        for element in content:
            yield from values_at(element, names)
    elif not names:
        yield content
    elif isinstance(content, dict):
        yield from values_at(content.get(names[0]), names[1:])


class Table:
    """The objects of one kind."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self._keys = array("q")
        self._order: list[Row] = []
        self._number = 0

    def add(
        self, id: str, created: int | None, raw: bytes, group: str = "", clock: str | None = None
    ) -> Row:
        self._number += 1
        key = (
            (-1 if created is None else min(max(0, created), MAX_CREATED)) << SEQUENCE_BITS
        ) | self._number
        row = Row(id, key, raw, group, clock)
        position = (
            len(self._keys)
            if not self._keys or key > self._keys[-1]
            else bisect_left(self._keys, key)
        )
        self._keys.insert(position, key)
        self._order.insert(position, row)
        self.rows[id] = row
        return row

    def remove(self, id: str) -> Row:
        row = self.rows.pop(id)
        position = bisect_left(self._keys, row.key)
        del self._keys[position]
        del self._order[position]
        return row

    def span(self, lo: int | None, hi: int | None) -> tuple[int, int]:
        """The positions of the rows with lo <= created < hi. Rows without `created` belong to it
        only if there is no lower bound.
        """
        first = (
            0
            if lo is None
            else bisect_left(self._keys, min(max(lo, 0), MAX_CREATED) << SEQUENCE_BITS)
        )
        last = (
            len(self._keys)
            if hi is None
            else bisect_left(self._keys, min(max(hi, 0), MAX_CREATED) << SEQUENCE_BITS)
        )
        return first, max(first, last)

    def below(self, row: Row) -> int:
        """How many rows are older than this one."""
        return bisect_left(self._keys, row.key)

    def above(self, row: Row) -> int:
        """The position of the next newer row."""
        return bisect_right(self._keys, row.key)

    def older(self, first: int, last: int) -> Iterator[Row]:
        """The rows at positions first..last-1, newest first."""
        order = self._order
        for position in range(last - 1, first - 1, -1):
            yield order[position]

    def newer(self, first: int, last: int) -> Iterator[Row]:
        """The same rows, oldest first."""
        order = self._order
        for position in range(first, last):
            yield order[position]

    def random_row(self, rng: Random) -> Row | None:
        """A random row; all rows are equally likely."""
        return self._order[int(rng.random() * len(self._order))] if self._order else None
