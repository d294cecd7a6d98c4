"""What a row needs, and what of an object that changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ...errors import NotFound
from ...resources.writable import Writable
from ..lookup.find import Lookup, Object
from ..parameters import Params
from .log import PushStep

Action = Literal["create", "update", "delete", "none", "skip", "drop", "reject", "settle"]

OPEN = "The outcome of its last request is not known yet: it is found out first."


class FieldChange(NamedTuple):
    """One field of an object, before and after."""

    field: str
    before: Any
    after: Any


Update = tuple[Iterable[PushStep], Iterable[FieldChange], Iterable[str]]
"""Requests, what they change, and what else comes of it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a row needs. `none`: its object is already so. `drop`: its row is gone, and its object needs
    nothing. `settle`: the outcome of its last request
    has to be found out first.
    """

    key: str
    action: Action
    object_id: str | None = None
    steps: tuple[PushStep, ...] = ()
    changes: tuple[FieldChange, ...] = ()
    reason: str = ""
    content: str | None = None
    notes: tuple[str, ...] = ()


def get(
    lookup: Lookup, row: Writable, object_id: str, expand: tuple[str, ...] = ()
) -> Object | None:
    """One object, if it exists."""
    try:
        held = lookup.get(row, object_id, expand).value
    except NotFound:
        return None
    return None if held.get("deleted") else held


def field_changes(held: Object, params: Params) -> Iterator[FieldChange]:
    """Every field that an update changes, before and after; an empty text after unsets it."""
    for name, after in leaves(params):
        before: Any = held
        for part in name.split(".", 1 if name.startswith("metadata.") else -1):
            before = before.get(part) if isinstance(before, dict) else None
        if before != after:
            yield FieldChange(name, before, None if after == "" else after)


def leaves(params: Params, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested parameters by dotted name; a list is one value."""
    for name, value in params.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
