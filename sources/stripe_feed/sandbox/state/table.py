"""Objects as bytes, in Stripe's order: by `created`, newest first, and stable inside a second."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ..samples.values import Random

SEQUENCE_BITS = 31
"""A key is `created << BITS | number`; an object without `created` counts as -1, older than
everything.
"""

MAX_CREATED = (1 << 32) - 1


@dataclass(slots=True, eq=False)
class Row:
    """One object: its bytes as they go over the wire, and what the lists filter by all the time."""

    id: str
    key: int
    raw: bytes
    group: str = ""  # a subscription's status; of a price: active, archived or inline
    clock: str | None = None  # test clock that it is on

    @property
    def created(self) -> int | None:
        created = self.key >> SEQUENCE_BITS
        return None if created < 0 else created

    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.raw)
        return found


def has_text(path: str, value: str) -> Callable[[Row], bool]:
    """Whether there is this text at a path; most rows are told apart without being decoded."""
    quoted, names = msgspec.json.encode(value), path.split(".")
    return lambda row: quoted in row.raw and value in values_at(row.content(), names)


def values_at(content: object, names: Sequence[str]) -> Iterator[Any]:
    """What is at a path, once for each object of the lists on the way."""
    if isinstance(content, list):
        for element in content:
            yield from values_at(element, names)
    elif not names:
        yield content
    elif isinstance(content, dict):
        yield from values_at(content.get(names[0]), names[1:])


class Table:
    """The objects of one resource."""

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
        place = (
            len(self._keys)
            if not self._keys or key > self._keys[-1]
            else bisect_left(self._keys, key)
        )
        self._keys.insert(place, key)
        self._order.insert(place, row)
        self.rows[id] = row
        return row

    def remove(self, id: str) -> Row:
        row = self.rows.pop(id)
        place = bisect_left(self._keys, row.key)
        del self._keys[place]
        del self._order[place]
        return row

    def span(self, lo: int | None, hi: int | None) -> tuple[int, int]:
        """The places of the rows with lo <= created < hi; those without `created` only if there is
        no lower bound.
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
        """The place of the next newer row."""
        return bisect_right(self._keys, row.key)

    def older(self, first: int, last: int) -> Iterator[Row]:
        """The rows at the places first..last-1, newest first."""
        order = self._order
        for place in range(last - 1, first - 1, -1):
            yield order[place]

    def newer(self, first: int, last: int) -> Iterator[Row]:
        """The same rows, oldest first."""
        order = self._order
        for place in range(first, last):
            yield order[place]

    def random_row(self, rng: Random) -> Row | None:
        """One row by chance; those that are in the middle of a list count as much as its ends."""
        return self._order[int(rng.random() * len(self._order))] if self._order else None
