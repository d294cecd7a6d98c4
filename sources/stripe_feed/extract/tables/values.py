"""Read single values of decoded objects, which may not have their documented type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ...resources.model import ColumnKind

# of the years 1 and 9999: database drivers read no others
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799


class Ref(msgspec.Struct, gc=False):
    """An expanded object in a field that may hold just its id."""

    id: str


PYTHON_TYPES: dict[ColumnKind, Any] = {
    "text": str | None,
    "ref": str | Ref | None,
    "bigint": int | None,
    "bool": bool | None,
    "timestamp": int | None,
    "decimal": str | None,
    "double": float | None,
    "json": msgspec.Raw,
}


def value_or_overflow(
    n: int, value: Any, python_type: Any, overflow: Callable[[int, Any], None]
) -> Any:
    """Decode a value of a field that does not always have its documented type; call `overflow` if
    this one does not.
    """
    if not isinstance(value, msgspec.Raw):
        return value
    try:
        return msgspec.json.decode(value, type=python_type)
    except msgspec.ValidationError:
        overflow(n, value)
        return None


def value_of(value: Any, kind: ColumnKind) -> Any:
    """Return a field's value; None if it does not have its documented type, or is not a valid time."""
    decoded = value_or_overflow(0, value, PYTHON_TYPES[kind], lambda n, value: None)
    if kind == "timestamp" and decoded is not None and not FIRST_SECOND <= decoded <= LAST_SECOND:
        return None
    return decoded.id if isinstance(decoded, Ref) else decoded
