"""Find objects by a property, many in one run.

An e-mail address or a lookup key is asked for one by one, as Stripe's lists can be filtered by them. The
list by e-mail is exact, so a fresh copy is asked, too, for an address in another case. By
metadata they cannot: the list is read once, and kept as an index for the run. Search never decides.
A plan asks a fresh copy alone, where there is one; of what this log wrote after that was read, it asks
Stripe.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from ...errors import WrongAccount
from ...resources.writable import WRITABLE, Writable
from ..lookup.copy import CopyPlace, NoAnswer
from ..lookup.filters import matches, read
from ..lookup.find import Lookup, Object, Pages
from ..lookup.known import Known, known_value, read_known
from .decision import get
from .definition import Definition
from .log import LoggedRow, PushLog
from .mapping import CELL_TYPES, Reference, Wanted, top_of

IN_PARTS = ("subscriptions",)
"""Tables whose rows lack what is in tables of their own."""
DECIDES = frozenset(
    ("active", "created", "due_date", "invoice", "metadata", "parent", "pricing", "product", "status",
     "status_transitions")
)  # fmt: skip
"""Fields of objects that decide what a row needs, whatever the row says."""
Index = dict[str, list[str]]
Pending = Collection[tuple[Wanted, LoggedRow | None]]


@dataclass(frozen=True, slots=True)
class Matcher:
    """Look-ups of one run, or of a plan; threads can share it."""

    lookup: Lookup
    is_plan: bool = False
    known: Known = field(default_factory=dict)  # from a fresh copy
    newer: Mapping[str, Set[str]] = field(default_factory=dict)
    """Ids by table that were written after the copy was read."""
    _indexes: dict[tuple[str, str], Index] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, row: Writable, by: str, value: object) -> list[Object]:
        """Every object that has a value, oldest first."""
        known = self._known(row, by, value)
        if known is not None and self._is_answer(row, by, value, known):
            return _oldest_first(known)
        if by == "id":
            held = get(self.lookup, row, str(value))
            return [held] if held is not None else []
        if by.startswith("metadata."):
            found = self._from_index(row, by, known_value(by, value))
        else:
            found = list(self.lookup.find(row, {by: value}, True).objects)
        if by == "email" and not found:  # the list has it in another case
            held_now = (get(self.lookup, row, str(one["id"])) for one in known or ())
            wanted = read({by: value})
            found = [one for one in held_now if one and matches(wanted, one)]
        return _oldest_first(found)

    def get(self, row: Writable, object_id: str) -> Object | None:
        """One object, if it exists; a plan takes it from the copy if that has it."""
        known = self._known(row, "id", object_id)
        if known and self._is_answer(row, "id", object_id, known):
            return known[0]
        return get(self.lookup, row, object_id)

    def _known(self, row: Writable, by: str, value: object) -> list[Object] | None:
        """What the copy knows; None if it cannot tell."""
        values = self.known.get((row.table, by))
        return None if values is None else values.get(known_value(by, value), [])

    def _is_answer(self, row: Writable, by: str, value: object, known: list[Object]) -> bool:
        """Whether a plan need not ask Stripe, too: nothing of this was written since."""
        newer = self.newer.get(row.table)
        if not newer or not self.is_plan:
            return self.is_plan
        ids = [value] if by == "id" else [one["id"] for one in known]
        return bool(ids) and newer.isdisjoint(ids)

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


def _oldest_first(found: Collection[Object]) -> list[Object]:
    if len(found) < 2:
        return list(found)
    return sorted(found, key=lambda one: (one.get("created") or 0, str(one["id"])))


def make_matcher(
    push: Definition,
    lookup: Lookup,
    copy: CopyPlace | None,
    log: PushLog,
    rows: Pending,
    is_plan: bool,
) -> Matcher:
    """Make the look-ups for some rows, with what a fresh copy of the account knows of them."""
    if copy is None:
        return Matcher(lookup, is_plan)
    asked: dict[tuple[str, str], set[str]] = defaultdict(set)
    for table, by, value in _look_ups(push, rows):
        if (is_plan and table not in IN_PARTS) or by == "email":
            asked[table, by].add(known_value(by, value))
    fields = {top_of(path) for wanted, _ in rows for path in wanted.given} if is_plan else set()
    try:
        if asked:
            place = (lookup.api, copy, log.account_id)
            known, until = read_known(*place, asked, fields | DECIDES)
            newer = {
                table: log.written_since(WRITABLE[table].path, at) for table, at in until.items()
            }
            return Matcher(lookup, is_plan, known, newer)
    except (NoAnswer, WrongAccount):  # rows of one account can be pushed to another one
        pass
    return Matcher(lookup, is_plan)


def _look_ups(push: Definition, rows: Pending) -> Iterator[tuple[str, str, Any]]:
    """What is going to be looked up: table, property, value."""
    for wanted, logged in rows:
        if logged is not None and logged.object_id:
            yield push.object, "id", logged.object_id
        elif push.match is not None and wanted.given.get(push.match) is not None:
            yield push.object, push.match, wanted.given[push.match]
        for reference in references_in(wanted.given.values()):
            yield reference.association.find, reference.association.by, reference.value


def references_in(values: Iterable[Any]) -> Iterator[Reference]:
    """What the values of a row name, nested ones too."""
    for value in values:
        if type(value) in CELL_TYPES:
            continue
        if isinstance(value, Reference):
            yield value
        elif isinstance(value, Mapping):
            yield from references_in(value.values())
        elif isinstance(value, list):
            yield from references_in(value)
