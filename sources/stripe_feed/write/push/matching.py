"""Find objects by a property, many in one run.

An e-mail address or a lookup key is asked for one by one, as Stripe's lists can be filtered by them. The
list by e-mail is exact, so a fresh copy is asked, too, for an address in another case. By
metadata they cannot: the list is read once, and kept as an index for the run. Search never decides.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field

from ...errors import WrongAccount
from ...resources.writable import Writable
from ..lookup.copy import CopyPlace, NoAnswer, ask_copy
from ..lookup.filters import matches, read
from ..lookup.find import Lookup, Object, Pages
from .decision import get

MOST_ALIKE = 100  # objects with one e-mail address
Index = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Matcher:
    """Look-ups of one run; threads can share it."""

    lookup: Lookup
    copy: CopyPlace | None = None
    _indexes: dict[tuple[str, str], Index] = field(default_factory=dict)
    _no_answer: threading.Event = field(
        default_factory=threading.Event
    )  # the copy is not asked again
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
        if by == "email" and not found:
            found = self._in_any_case(row, value)
        return sorted(found, key=lambda one: (one.get("created") or 0, str(one["id"])))

    def _in_any_case(self, row: Writable, email: object) -> list[Object]:
        """Those that a fresh copy of this account knows by an address, as they are now."""
        if self.copy is None:
            return []
        wanted = read({"email": email})
        with self._lock:
            if self._no_answer.is_set():
                return []
            try:
                known = ask_copy(self.lookup.api, self.copy, row.table, wanted, MOST_ALIKE).objects
            except (NoAnswer, WrongAccount):  # rows of one account can be pushed to another one
                self._no_answer.set()
                return []
        held = (get(self.lookup, row, str(one["id"])) for one in known)
        return [one for one in held if one and matches(wanted, one)]

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
