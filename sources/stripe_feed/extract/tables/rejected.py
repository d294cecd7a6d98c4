"""Record objects that cannot be stored: the source's state keeps their ids, and the next run tries
again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from threading import Lock
from typing import Any

import msgspec

from ...errors import PartlyDone
from ..accounts.package import source_state

log = logging.getLogger("stripe_feed")

MAX_STORED = 1_000  # ids per table
MAX_SHOWN = 5
WITHOUT_ID = "an object without an id"
EVENTS_KEY = "events"  # the table name under which events are recorded
REJECTED_STATE = "left_out"  # in the source's state: table -> ids


class Rejected(PartlyDone):
    """One object that cannot be stored, and why. Without an id it cannot be requested again."""

    def __init__(self, table: str, id: str | None, created: int | None, reason: str) -> None:
        super().__init__(f"{table}: {id or 'an object'} cannot be stored: {reason}.")
        self.table, self.id, self.created, self.reason = table, id, created, reason


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NULL = msgspec.Raw(b"null")


def rejection(
    table: str,
    raw: msgspec.Raw,
    fault: msgspec.ValidationError | str,
    created_column: str = "created",
) -> Rejected:
    """Say why the JSON of an object cannot be stored, without quoting its content."""
    try:
        fields = _fields.decode(raw)
    except msgspec.ValidationError:
        return Rejected(table, None, None, "it is not an object")
    id = usable_id(decode_or_none(fields.get("id", _NULL), str))
    created = decode_or_none(fields.get(created_column, _NULL), int)
    if id is None:
        return Rejected(table, None, created, "it has no id")
    if isinstance(fault, str):
        return Rejected(table, id, created, fault)
    where = re.search(r"`\$\.([\w.\[\]]+)`$", str(fault))
    return Rejected(
        table, id, created, f"its {where[1] if where else 'content'} is not as documented"
    )


def usable_id(id: Any) -> str | None:
    """Return an id if it can be requested and used as a key."""
    return id if isinstance(id, str) and id and "\0" not in id else None


def decode_or_none(raw: msgspec.Raw, python_type: Any) -> Any:
    """Decode a JSON value; None if it has another type."""
    try:
        return msgspec.json.decode(raw, type=python_type)
    except msgspec.ValidationError:
        return None


class RejectedObjects:
    """The objects that a run could not store, by table and name, and those it tried again. Threads
    may add to it.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, dict[str, str]] = {}
        self.ids_by_table: dict[str, set[str]] = {}
        self.resolved_ids: dict[str, set[str]] = {}
        self.retried_tables: set[str] = set()
        self.overflowing_tables: set[str] = set()
        self._lock = Lock()

    def add(self, rejected: Rejected) -> None:
        """Record an object that cannot be stored."""
        name = rejected.id or (
            WITHOUT_ID if rejected.created is None else f"{WITHOUT_ID}, created {rejected.created}"
        )
        with self._lock:
            self.reasons.setdefault(rejected.table, {})[name] = rejected.reason
            self.ids_by_table.setdefault(rejected.table, set()).update(
                [rejected.id] if rejected.id else ()
            )
            self.resolved_ids.get(rejected.table, set()).discard(name)

    def ids(self, table: str) -> set[str]:
        """Return the ids of a table that were rejected."""
        with self._lock:
            return set(self.ids_by_table.get(table, ()))

    def ids_to_retry(self, table: str) -> list[str]:
        """Return the ids that earlier runs rejected; only once for each table."""
        if table in self.retried_tables:
            return []
        self.retried_tables.add(table)
        return list(source_state().get(REJECTED_STATE, {}).get(table, ()))

    def resolve(self, table: str, ids: Iterable[str]) -> None:
        """Forget ids that were tried again and are stored now, or do not exist any more."""
        self.resolved_ids.setdefault(table, set()).update(set(ids) - self.ids(table))

    def store(self, table: str) -> None:
        """Store the ids to try again, before a cursor moves past them."""
        state = source_state()
        stored: Collection[str] = state.get(REJECTED_STATE, {}).get(table, ())
        ids = sorted((set(stored) - self.resolved_ids.get(table, set())) | self.ids(table))
        if ids == list(stored):
            return
        if len(ids) > MAX_STORED and table not in self.overflowing_tables:
            self.overflowing_tables.add(table)
            log.warning(
                "%s: more than %s objects cannot be stored: `stripe-feed reconcile` finds all.",
                table,
                f"{MAX_STORED:,}",
            )
        state[REJECTED_STATE] = {**state.get(REJECTED_STATE, {}), table: ids[:MAX_STORED]}


def describe_rejected(left_out: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return a sentence for each table: which objects were left out, and why."""
    sentences = []
    for table, reasons in left_out.items():
        names = "; ".join(
            f"{name} ({reason})" for name, reason in list(reasons.items())[:MAX_SHOWN]
        )
        more = f"; and {len(reasons) - MAX_SHOWN:,} more" if len(reasons) > MAX_SHOWN else ""
        retry_note = (
            ""
            if all(name.startswith(WITHOUT_ID) for name in reasons)
            else " The next run tries again."
        )
        sentences.append(f"Left out of {table}: {names}{more}.{retry_note}")
    return sentences
