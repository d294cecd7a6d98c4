"""Find objects by a property, many in one run.

An e-mail address or a lookup key is asked for one by one, as Stripe's lists can be filtered by them. By
metadata they cannot: the list is read once, and kept as an index for the run. Search never decides.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field

from ...resources.writable import Writable
from ..lookup.find import Lookup, Object, Pages
from .decision import get

Index = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Matcher:
    """Look-ups of one run; threads can share it."""

    lookup: Lookup
    _indexes: dict[tuple[str, str], Index] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, row: Writable, by: str, value: object) -> list[Object]:
        """Every object that has a value, oldest first."""
        if by == "id":
            held = get(self.lookup, row, str(value))
            return [held] if held is not None else []
        if by.startswith("metadata."):
            found = self._from_index(row, by, _text(value))
        else:
            found = list(self.lookup.find(row, {by: value}, True).objects)
        return sorted(found, key=lambda one: (one.get("created") or 0, str(one["id"])))

    def _from_index(self, row: Writable, by: str, value: str) -> list[Object]:
        name = by.partition(".")[2]
        with self._lock:
            if (row.table, by) not in self._indexes:
                self._indexes[row.table, by] = self._read_index(row, name)
            ids = list(self._indexes[row.table, by].get(value, ()))
        held = (get(self.lookup, row, id) for id in ids)
        return [one for one in held if one and (one.get("metadata") or {}).get(name) == value]

    def _read_index(self, row: Writable, name: str) -> Index:
        index: Index = defaultdict(list)
        for one in Pages(self.lookup.api).listed(row, {}):
            value = (one.get("metadata") or {}).get(name)
            if value is not None:
                index[value].append(str(one["id"]))
        return index


def _text(value: object) -> str:
    """A value as metadata has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
