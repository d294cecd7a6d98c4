"""What of an update is left when the object is known: what differs, and with only-if-empty what is
empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import InvalidParameter
from ..resources.writable import Writable
from .lookup.filters import same
from .parameters import UNSET, Nulls, Params, convert

WHOLE = ("address", "shipping")
"""Hashes that are sent whole: whether Stripe merges or replaces a part is not documented."""
METADATA_KEY = re.compile(r"metadata\..{1,40}", re.S)
EMPTY: tuple[Any, ...] = (None, "", {}, [])


def has_parts(given: Iterable[str]) -> bool:
    """Whether parts of a hash are given that has to be sent whole."""
    return any(name.partition(".")[0] in WHOLE and "." in name for name in given)


def with_needed(row: Writable, given: Mapping[str, Any], held: Mapping[str, Any]) -> dict[str, Any]:
    """Add what the object holds and a hash cannot be without, if parts of the hash are given."""
    found, needed = dict(given), row.required["update"]
    for top in WHOLE:
        if top not in needed or not any(one.startswith(f"{top}.") for one in given):
            continue
        for name in needed[top]:
            path, value = f"{top}.{name}", (held.get(top) or {}).get(name)
            if value is not None and not any(f"{one}.".startswith(f"{path}.") for one in given):
                found[path] = _without_nulls(value)
    return found


def _without_nulls(value: Any) -> Any:
    """A value; of a hash what is not null."""
    if not isinstance(value, dict):
        return value
    return {name: inner for name, inner in value.items() if inner is not None}


def completed(params: Params, held: Mapping[str, Any], given: Iterable[str]) -> Params:
    """Add what the object holds to hashes of which parts are given."""
    begun = {name.partition(".")[0] for name in given if name.startswith(WHOLE) and "." in name}
    parts = begun & {*WHOLE} & params.keys()
    if not parts:
        return params
    return {
        name: _merged(held.get(name), value) if name in parts else value
        for name, value in params.items()
    }


def _merged(held: Any, given: Any) -> Any:
    if not isinstance(held, dict) or not isinstance(given, dict):
        return given
    return {
        **_without_nulls(held),
        **{name: _merged(held.get(name), value) for name, value in given.items()},
    }


def check_only_if_empty(row: Writable, fields: bool | tuple[str, ...]) -> None:
    """Raise `InvalidParameter` for a name that stands for no whole field: its value would not stay."""
    for name in () if isinstance(fields, bool) else fields:
        if name not in row.tops["update"] and not METADATA_KEY.fullmatch(str(name)):
            raise InvalidParameter(
                "only_if_empty names fields that can be updated, or metadata.NAME; a hash such as address is one field.",
                str(name),
            )


def empty_only(params: Params, held: Mapping[str, Any], fields: bool | tuple[str, ...]) -> Params:
    """Leave out fields that have a value already: all, or only those named."""

    def keeps(name: str) -> bool:
        return fields is not True and name not in (fields or ())

    left = {
        name: value
        for name, value in params.items()
        if name == "metadata" or keeps(name) or _is_empty(held.get(name))
    }
    metadata = held.get("metadata") or {}
    return _with_metadata(
        left,
        lambda key, _: (
            (keeps("metadata") and keeps(f"metadata.{key}")) or _is_empty(metadata.get(key))
        ),
    )


def _is_empty(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_empty(inner) for inner in value.values())
    return value in EMPTY


def changed(params: Params, held: Mapping[str, Any]) -> Params:
    """Leave out what the object holds already."""
    left = {
        name: value
        for name, value in params.items()
        if name == "metadata" or name not in held or not equal(name, held[name], value)
    }
    metadata = held.get("metadata") or {}
    return _with_metadata(left, lambda key, value: not equal("", metadata.get(key), value))


def without_fixed(
    row: Writable, given: Mapping[str, Any], held: Mapping[str, Any], nulls: Nulls
) -> Params:
    """Leave out what only a new object takes, if the object has it already."""
    create, update = row.parameters["create"], row.parameters["update"]
    fixed = {
        name: value
        for name, value in given.items()
        if (top := name.partition(".")[0]) in create and top not in update
    }
    converted = convert(row, "create", fixed, nulls)
    there = {name for name, value in converted.items() if equal(name, held.get(name), value)}
    there |= {name.partition(".")[0] for name in fixed} - converted.keys()  # nulls
    return {name: value for name, value in given.items() if name.partition(".")[0] not in there}


def equal(name: str, held: Any, given: Any) -> bool:
    """Whether a value is what the object holds; a hash, if all that is given is."""
    if isinstance(given, dict):
        return isinstance(held, dict) and all(
            equal(key, held.get(key), value) for key, value in given.items()
        )
    if isinstance(given, list):
        return (
            isinstance(held, list)
            and len(held) == len(given)
            and all(equal(name, *pair) for pair in zip(held, given, strict=True))
        )
    if given == UNSET:
        return _is_empty(held)
    if isinstance(held, dict):  # expanded
        held = held.get("id")
    if name == "currency" and isinstance(given, str):  # Stripe writes it in lower case
        given = given.lower()
    return held is not None and same("", held, given)


def _with_metadata(params: Params, keep: Any) -> Params:
    """Filter the keys of metadata too; without any, metadata is left out."""
    metadata = params.get("metadata")
    if not isinstance(metadata, dict):
        return params
    kept = {key: value for key, value in metadata.items() if keep(key, value)}
    return (
        {**params, "metadata": kept}
        if kept
        else {k: v for k, v in params.items() if k != "metadata"}
    )
