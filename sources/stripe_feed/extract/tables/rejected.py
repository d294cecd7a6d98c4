"""Objects that cannot be taken: left out by name, kept in the source's state, and tried again by
the next run.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from threading import Lock
from typing import Any

import dlt
import msgspec

from ...errors import PartlyDone

log = logging.getLogger("stripe_feed")

MOST_KEPT = 1_000  # ids per table
MOST_TOLD = 5
NAMELESS = "an object without an id"
EVENTS = "events"  # where events that cannot be read are counted
STATE = "left_out"  # in the source's state: table -> ids


class Odd(PartlyDone):
    """One object that cannot be taken, and why; without an id it cannot be asked for again either."""

    def __init__(self, table: str, id: str | None, created: int | None, why: str) -> None:
        super().__init__(f"{table}: {id or 'an object'} cannot be taken: {why}.")
        self.table, self.id, self.created, self.why = table, id, created, why


class _Named(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw(b"null")
    created: msgspec.Raw = msgspec.Raw(b"null")


def odd(table: str, raw: msgspec.Raw, fault: msgspec.ValidationError | str) -> Odd:
    """Why the JSON of an object cannot be taken, without a word of what is in it."""
    try:
        named = msgspec.json.decode(raw, type=_Named)
    except msgspec.ValidationError:
        return Odd(table, None, None, "it is no object")
    id, created = usable_id(read(named.id, str)), read(named.created, int)
    if id is None:
        return Odd(table, None, created, "it has no id")
    if isinstance(fault, str):
        return Odd(table, id, created, fault)
    where = re.search(r"`\$\.([\w.\[\]]+)`$", str(fault))
    return Odd(table, id, created, f"its {where[1] if where else 'content'} is not as documented")


def usable_id(id: Any) -> str | None:
    """An id that can be asked for and be a key."""
    return id if isinstance(id, str) and id and "\0" not in id else None


def read(raw: msgspec.Raw, kind: Any) -> Any:
    """A value of JSON; nothing where it is of another kind."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError:
        return None


class LeftOut:
    """What a session could not take, by table and name, and what it tried again; threads may add to
    it.
    """

    def __init__(self) -> None:
        self.why: dict[str, dict[str, str]] = {}
        self.named: dict[str, set[str]] = {}
        self.mended: dict[str, set[str]] = {}
        self.tried: set[str] = set()
        self.many: set[str] = set()
        self._lock = Lock()

    def add(self, one: Odd) -> None:
        """Leave an object out."""
        name = one.id or (NAMELESS if one.created is None else f"{NAMELESS}, created {one.created}")
        with self._lock:
            self.why.setdefault(one.table, {})[name] = one.why
            self.named.setdefault(one.table, set()).update([one.id] if one.id else ())
            self.mended.get(one.table, set()).discard(name)

    def ids(self, table: str) -> set[str]:
        """The ids of a table that were left out."""
        with self._lock:
            return set(self.named.get(table, ()))

    def waiting(self, table: str) -> list[str]:
        """What earlier runs left out, to be tried again; once in a session."""
        if table in self.tried:
            return []
        self.tried.add(table)
        return list(dlt.current.source_state().get(STATE, {}).get(table, ()))

    def took(self, table: str, ids: Iterable[str]) -> None:
        """Forget what was tried again, and taken or gone."""
        self.mended.setdefault(table, set()).update(set(ids) - self.ids(table))

    def keep(self, table: str) -> None:
        """Store what is to be tried again, before a cursor moves past it."""
        state = dlt.current.source_state()
        held: Collection[str] = state.get(STATE, {}).get(table, ())
        ids = sorted((set(held) - self.mended.get(table, set())) | self.ids(table))
        if ids == list(held):
            return
        if len(ids) > MOST_KEPT and table not in self.many:
            self.many.add(table)
            log.warning(
                "%s: more than %s objects cannot be taken: `stripe-feed reconcile` finds all.",
                table,
                f"{MOST_KEPT:,}",
            )
        state[STATE] = {**state.get(STATE, {}), table: ids[:MOST_KEPT]}


def words(left_out: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A sentence per table: what was left out, by name, and why."""
    said = []
    for table, found in left_out.items():
        names = "; ".join(f"{name} ({why})" for name, why in list(found.items())[:MOST_TOLD])
        more = f"; and {len(found) - MOST_TOLD:,} more" if len(found) > MOST_TOLD else ""
        again = (
            "" if all(name.startswith(NAMELESS) for name in found) else " The next run tries again."
        )
        said.append(f"Left out of {table}: {names}{more}.{again}")
    return said
