"""What a caller wants to set, as parameters that Stripe takes: names held against the allow-list,
values converted to the types that it documents, nulls as the caller decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timezone
from decimal import Decimal
from difflib import get_close_matches
from math import isfinite
from typing import Any, Literal

from ..api.iso_time import parse_time
from ..errors import InvalidParameter
from ..resources import TABLES
from ..resources.writable import REMOVED, Parameter, Type, Writable

Nulls = Literal["skip", "unset", "error"]
Params = dict[str, Any]

NULLS = ("skip", "unset", "error")
UNSET = ""  # what Stripe takes for null
CLEARED_BY_EMPTY_TEXT = re.compile(
    r"description|email|invoice_settings\.default_payment_method|name|phone|address\..+|shipping\..+"
)
"""Plain text that an empty string clears, though the SDK's annotations do not say so."""
MILLISECONDS = (
    100_000_000_000  # a later second is beyond the year 5138: somebody means milliseconds
)
REPLACE_PRICE = " Create another price, with lookup_key and transfer_lookup_key if need be."
MOST_NAMES = 40  # in a sentence
_TEXT: tuple[Type, ...] = ("text",)
_LONGEST_NUMBER = 2_000  # bits: more than metadata can hold
_LARGEST = 10**18  # a number beyond it is no amount, no count and no time


class _Skipped:
    """A null that is not sent."""


SKIPPED = _Skipped()


def convert(
    row: Writable,
    verb: str,
    given: Mapping[str, Any],
    nulls: Nulls = "skip",
    unset: tuple[str, ...] = (),
) -> Params:
    """Turn what a caller gives (`{"address.city": "Berlin"}` or nested) into parameters of one verb.

    `unset` names fields to clear, whatever `nulls` says. Raises `InvalidParameter`.
    """
    known = row.parameters.get(verb, {})
    params: Params = {}
    for path, value in unfold(known, given).items():
        converted = _convert(row, verb, known, path, value, nulls)
        if converted is not SKIPPED:
            params[path] = converted
    for path in unset:
        _place(params, _split(known, path), _cleared(row, verb, known, path))
    return params


def unfold(known: Mapping[str, Parameter], given: Mapping[str, Any]) -> Params:
    """Turn dotted names into nested hashes."""
    nested: Params = {}
    for name, value in given.items():
        if type(value) is str and name not in nested and "." not in name:
            nested[name] = value  # most are of this kind
        else:
            _place(nested, _split(known, name), value)
    return nested


def _split(known: Mapping[str, Parameter], name: str) -> list[str]:
    """The parts of a dotted name; what stands behind a map (`metadata.a.b`) is one key."""
    parts = str(name).split(".")
    for n in range(1, len(parts)):
        if f"{'.'.join(parts[:n])}.*" in known:
            return [*parts[:n], ".".join(parts[n:])]
    return parts


def _place(nested: Params, parts: list[str], value: Any) -> None:
    for part in parts[:-1]:
        inner = nested.setdefault(part, {})
        if not isinstance(inner, dict):
            raise InvalidParameter(f"{part} is given twice: whole and in parts.", ".".join(parts))
        nested = inner
    if isinstance(nested.get(parts[-1]), dict) and isinstance(value, Mapping):
        for key, inner_value in value.items():
            _place(nested[parts[-1]], [key], inner_value)
    elif parts[-1] in nested:
        raise InvalidParameter(f"{'.'.join(parts)} is given twice.", ".".join(parts))
    else:
        is_hash = not isinstance(value, str) and isinstance(value, Mapping)
        nested[parts[-1]] = dict(value) if is_hash else value


def _convert(
    row: Writable, verb: str, known: Mapping[str, Parameter], path: str, value: Any, nulls: Nulls
) -> Any:
    parameter = known.get(path)
    if parameter is not None and type(value) is str and value and parameter.types == _TEXT:
        return value  # most are of this kind
    if parameter is None and path not in row.hashes.get(verb, ()):
        raise unknown(row, verb, path)
    if value is None or (isinstance(value, str | dict | list) and not value):
        if nulls == "error":
            raise InvalidParameter(
                f"{path} is empty. Give a value, or choose what empty values mean: skip or unset.",
                path,
            )
        is_entry = path.endswith("[]")  # of a list, which is left out
        return SKIPPED if nulls == "skip" or is_entry else _cleared(row, verb, known, path)
    types: tuple[Type, ...] = parameter.types if parameter else ("hash",)
    match value:
        case str():
            pass
        case Mapping():
            return _hash(row, verb, known, path, types, value, nulls)
        case list() | tuple():
            if "list" not in types:
                raise _wrong_type(path, types, value)
            items = (_convert(row, verb, known, f"{path}[]", item, nulls) for item in value)
            return [item for item in items if item is not SKIPPED]
    return _scalar(path, types, parameter.values if parameter else (), value)


def _hash(
    row: Writable,
    verb: str,
    known: Mapping[str, Parameter],
    path: str,
    types: tuple[Type, ...],
    value: Mapping[str, Any],
    nulls: Nulls,
) -> Any:
    is_map = "map" in types
    if not is_map and "hash" not in types:
        raise _wrong_type(path, types, value)
    converted: Params = {}
    for key, inner in value.items():
        if is_map:
            check_key(path, key)
        below = f"{path}.{'*' if is_map else key}"
        try:
            inner = _convert(row, verb, known, below, inner, nulls)
        except InvalidParameter as error:
            raise _with_key(error, below, f"{path}.{key}") from None
        if inner is not SKIPPED:
            converted[key] = inner
    needed = () if is_map else row.required.get(verb, {}).get(path, ())
    if missing := [name for name in needed if name not in converted]:
        raise InvalidParameter(f"{path}.{missing[0]} is missing.", f"{path}.{missing[0]}")
    return converted or SKIPPED


def _with_key(error: InvalidParameter, path: str, named: str) -> InvalidParameter:
    """The error with the key of a map in place of the star, unless the key holds somebody's data."""
    if error.param != path or not re.fullmatch(r"[\w.-]{1,80}", named, re.ASCII):
        return error
    return InvalidParameter(str(error).replace(path, named), named)


def check_key(path: str, key: object) -> None:
    """Raise `InvalidParameter` for a key of metadata (or of another map) that cannot be sent."""
    if not isinstance(key, str) or not 0 < len(key) <= 40 or "[" in key or "]" in key:
        raise InvalidParameter(f"A key of {path} has 1 to 40 characters and no brackets.", path)


def _cleared(row: Writable, verb: str, known: Mapping[str, Parameter], path: str) -> str:
    """What clears a field. Raises `InvalidParameter` if nothing does."""
    parent = ".".join(_split(known, path)[:-1])
    parameter = known.get(path) or known.get(f"{parent}.*")
    if parameter is None:
        raise unknown(row, verb, path)
    is_key = path not in known or path.endswith(".*")
    on_create = row.parameters["create"].get(path)
    is_needed = parameter.required or (on_create is not None and on_create.required)
    is_text = "text" in parameter.types and not is_needed
    if parameter.unsettable or (is_text and (is_key or CLEARED_BY_EMPTY_TEXT.fullmatch(path))):
        return UNSET
    raise InvalidParameter(f"Stripe cannot unset {path}: leave it out, or give a value.", path)


def _scalar(path: str, types: tuple[Type, ...], values: tuple[str, ...], value: Any) -> Any:
    if isinstance(value, str) and value in values:
        return value
    for kind in ("bool", "int", "timestamp", "decimal", "double", "text"):
        if kind in types:
            converted = _CONVERSIONS[kind](path, value)
            if converted is not None:
                return converted
    raise _wrong_type(path, types, value)


def _bool(path: str, value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def _int(path: str, value: Any) -> int | None:
    match value:
        case (
            bool() | float()
        ):  # 19.99 is never an amount, and 20.0 hides that its unit is not clear
            return None
        case int() if abs(value) < _LARGEST:
            return value
        case Decimal() if is_moderate(value) and value == value.to_integral_value():
            return int(value)
        case str() if re.fullmatch(r"-?\d{1,18}", value, re.ASCII):
            return int(value)
    return None


def is_moderate(value: Decimal) -> bool:
    """Whether a number has so few digits that it can be written out."""
    return value.is_finite() and abs(value) < _LARGEST


def timestamp(path: str, value: Any) -> int | None:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidParameter(f"{path} has no time zone: give one, or Unix seconds.", path)
        return int(value.timestamp())
    if isinstance(value, date):
        return int(datetime(value.year, value.month, value.day, tzinfo=timezone.utc).timestamp())
    if isinstance(value, str) and (moment := _parsed(value)) is not None:
        return timestamp(path, moment)
    seconds = _int(path, value)
    if seconds is not None and not 0 <= seconds < MILLISECONDS:
        raise InvalidParameter(f"{path} is no time in Unix seconds; milliseconds are not.", path)
    return seconds


def _parsed(text: str) -> date | None:
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return date.fromisoformat(text)
        if re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", text):
            return parse_time(text)
    except ValueError:
        pass
    return None


_MOST_DECIMALS = 12
_DECIMAL = re.compile(rf"-?\d{{1,18}}(?:\.\d{{1,{_MOST_DECIMALS}}})?", re.ASCII)


def _decimal(path: str, value: Any) -> str | None:
    match value:
        case bool() | float():
            return None
        case int() if abs(value) < _LARGEST:
            return str(value)
        case Decimal() if is_moderate(value):
            is_long = (
                -int(value.as_tuple().exponent) > _MOST_DECIMALS
            )  # numeric(38, 20) of a database
            text = format(value.normalize() if is_long else value, "f")
            return text if _DECIMAL.fullmatch(text) else None
        case str() if _DECIMAL.fullmatch(value):
            return value
    return None


def _double(path: str, value: Any) -> Decimal | None:
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) >= _LARGEST):
        return None
    text = repr(value) if isinstance(value, float) else str(value)
    if re.fullmatch(r"-?\d{1,15}(?:\.\d{1,15})?", text, re.ASCII):
        return Decimal(text)
    return None


def _text(path: str, value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if not path.endswith("metadata.*"):  # 10119 can have been 010119
        return None
    match value:
        case bool():
            return str(value).lower()
        case Decimal() if not value.is_finite():
            return None
        case float() if not isfinite(value):
            return None
        case int() if value.bit_length() > _LONGEST_NUMBER:
            return None
        case Decimal() if is_moderate(value):
            return format(value, "f")
        case int() | Decimal() | float():
            return str(value)
        case date():
            return value.isoformat()
    return None


_CONVERSIONS: dict[str, Any] = {
    "bool": _bool,
    "int": _int,
    "timestamp": timestamp,
    "decimal": _decimal,
    "double": _double,
    "text": _text,
}
_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "timestamp": "a time: Unix seconds, a date, or a time with its zone",
    "decimal": "a decimal number as text",
    "double": "a number",
    "text": "text",
    "hash": "a hash",
    "list": "a list",
    "map": "a hash",
}


def _wrong_type(path: str, types: tuple[Type, ...], value: Any) -> InvalidParameter:
    wanted = " or ".join(dict.fromkeys(_WORDS[kind] for kind in types))
    return InvalidParameter(
        f"{path} takes {wanted}; this is a value of type {type(value).__name__}.", path
    )


def unknown(row: Writable, verb: str, path: str) -> InvalidParameter:
    """Why a parameter cannot be given to a verb, and what can be."""
    top = path.partition(".")[0].partition("[")[0]
    for name in (path, top):
        if sentence := REMOVED.get((row.table, name)):
            return InvalidParameter(sentence, path)
    known = row.parameters.get(verb, {})
    others = [other for other in ("create", "update") if path in row.parameters.get(other, {})]
    if others and verb in ("create", "update"):
        when = "created" if others == ["create"] else "updated"
        hint = REPLACE_PRICE if (row.table, when) == ("prices", "created") else ""
        return InvalidParameter(
            f"{path} can only be set when a {row.noun} is {when}.{hint} {_allowed(known)}", path
        )
    if path == top and _is_column(row, top):
        return InvalidParameter(f"{path} is read-only: Stripe sets it. {_allowed(known)}", path)
    near = get_close_matches(path, known, 1)
    hint = f" Do you mean {near[0]}?" if near else ""
    name = path if re.fullmatch(r"[\w.\[\]*-]{1,80}", path, re.ASCII) else "of this name"
    return InvalidParameter(
        f"{verb} of a {row.noun} has no parameter {name}.{hint} {_allowed(known)}", path
    )


def _is_column(row: Writable, name: str) -> bool:
    table = TABLES.get(row.table)
    return table is not None and any(column.name == name for column in table.columns)


def _allowed(known: Mapping[str, Parameter]) -> str:
    names = [name for name in known if "." not in name and "[" not in name]
    if not names:
        return "It takes no parameters."
    return f"Allowed: {', '.join(sorted(names)[:MOST_NAMES])}."
