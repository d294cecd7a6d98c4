"""A row of a table as parameters of Stripe's: columns, constants and templates, and what an empty
value means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from functools import cache
from math import isfinite
from types import MappingProxyType
from typing import Any

from ...api.iso_time import with_zone
from ...errors import InvalidParameter, UsageError
from ...resources import TABLES
from ...resources.writable import REMOVED, Writable
from ..checks import check, check_metadata
from ..lookup.find import Object
from ..parameters import MILLISECONDS, Params, convert, is_moderate, unknown
from ..unchanged import changed, completed, empty_only, with_needed
from .definition import (
    Association,
    ColumnSource,
    Computed,
    Constant,
    Definition,
    RowTemplate,
    RunTime,
    Source,
)
from .log import KEY_SEPARATOR, MARKER, content_of

SourceRow = Mapping[str, Any]
Fields = Mapping[str, Source]

FROM_COLUMN = (ColumnSource, Association)
WORDS = {
    "true": True, "yes": True, "y": True, "t": True, "1": True,
    "false": False, "no": False, "n": False, "f": False, "0": False,
}  # fmt: skip
FRACTIONS = (float, Decimal)
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Reference:
    """A value that finds another object."""

    association: Association
    value: Any


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a row says of its object: values by parameter, before they are checked; `content` is a
    digest of what the row said, and `gaps` has the first empty entry of each list that has one.
    `of_run`: parameters whose value is the run's, not the row's.
    """

    key: str
    given: Mapping[str, Any]
    content: str
    gaps: Mapping[str, int] = field(default_factory=dict)
    of_run: Set[str] = frozenset()


def push_fields(push: Definition, columns: Iterable[str], now: int = 0) -> Fields:
    """The fields of a push by parameter; a name that is no parameter is a key of the metadata. `now`:
    the second at which the run began.

    Raises `UsageError` for a column that no row has, and `InvalidParameter` for what Stripe never
    takes.
    """
    columns = list(columns)
    if missing := [name for name in push.columns if name not in columns]:
        raise UsageError(
            f"{push.name}: the rows have no column {missing[0]}. They have: {', '.join(map(str, columns)) or 'none'}."
        )
    chosen = push.map
    if chosen is None:
        chosen = {name: ColumnSource(name) for name in columns if _is_field(push, name)}
    fields: dict[str, Source] = {}
    for name, source in chosen.items():
        path = _path(push.row, name)
        if path == f"metadata.{MARKER}":
            raise _is_marker()
        if path in fields:
            raise UsageError(f"{push.name}: {path} is given twice.")
        if isinstance(source, RunTime):
            if not path.startswith("metadata.") or path == push.match:
                raise UsageError(
                    f"{push.name}: {path}: time_of is for metadata, and finds no object."
                )
            source = RunTime(now)
        fields[path] = source
    return fields


def _is_marker() -> InvalidParameter:
    path = f"metadata.{MARKER}"
    return InvalidParameter(f"{path} is what a push marks its objects with.", path)


def _is_field(push: Definition, column: str) -> bool:
    """Without a map, a key is a field only if it is a parameter, or is what rows match on."""
    return column not in push.key or column == push.match or _is_known(push.row, column)


@cache
def top_of(path: str) -> str:
    """The parameter that a dotted name, or an entry of a list, is a part of."""
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def _is_known(row: Writable, name: str) -> bool:
    return any(top_of(name) in row.tops[verb] for verb in ("create", "update"))


def _path(row: Writable, name: str) -> str:
    if name == "id" or _is_known(row, name):
        return name
    if "." in name or "[" in name or (row.table, name) in REMOVED or _is_column(row, name):
        raise unknown(row, "create", name)
    return f"metadata.{name}"


def _is_column(row: Writable, name: str) -> bool:
    table = TABLES.get(row.table)
    return table is not None and any(column.name == name for column in table.columns)


def wanted_of(
    push: Definition, fields: Fields, record: SourceRow, key: str | None = None
) -> Wanted:
    """What a row says of its object; `key` is that of the row, if it is known. Raises
    `InvalidParameter`.
    """
    given = {}
    path = ""
    try:
        for path, source in fields.items():
            if isinstance(source, FROM_COLUMN) and _column(source) not in record:
                continue  # this row says nothing of it
            given[path] = _value(path, source, record)
    except UNREADABLE as fault:
        raise _no_text(path, fault) from None
    if isinstance(given.get(push.match or ""), float):  # 3.0 finds no 3
        raise InvalidParameter(
            f'{push.match} is a float, which matches nothing. Map it with as = "integer".',
            push.match,
        )
    if "[" in "".join(fields) or not CELL_TYPES.issuperset(map(type, given.values())):
        listed, gaps = _with_lists(given), _gaps(fields, given)
    else:
        listed, gaps = given, {}
    of_run = frozenset(path for path, source in fields.items() if isinstance(source, RunTime))
    content = _content(
        push,
        {path: value for path, value in listed.items() if path not in of_run} if of_run else listed,
    )
    return Wanted(key or row_key(push, record), listed, content, gaps, of_run)


CELL_TYPES = frozenset({str, int, float, bool, type(None)})
"""Types of most cells, which hold nothing further: a look here is ten times as quick as at `Mapping`."""

UNREADABLE = (ArithmeticError, RecursionError, TypeError, ValueError)
"""What values raise that have no text: an integer of thousands of digits, a signaling NaN, a hash with
keys of several types, a list that holds itself.
"""


def _no_text(path: str, fault: Exception) -> InvalidParameter:
    return InvalidParameter(
        f"{path} holds a value that cannot be written as text ({type(fault).__name__}).", path
    )


_ENTRY = re.compile(r"([\w.]+)\[(\d+)\]\.([\w.]+)")
"""`items[0].price`: a list, the number of its entry, and what is in it."""


@cache
def _entry(path: str) -> tuple[str, int, tuple[str, ...]] | None:
    """List, number and names of an entry's field; None for another path."""
    found = _ENTRY.fullmatch(path)
    return (found[1], int(found[2]), tuple(found[3].split("."))) if found else None


def _gaps(fields: Fields, given: Mapping[str, Any]) -> dict[str, int]:
    """The first entry of each list of which a row says nothing, or only what is empty."""
    is_filled: dict[tuple[str, int], bool] = {}
    for path in fields:
        if entry := _entry(path):
            at = entry[:2]
            is_filled[at] = is_filled.get(at, False) or given.get(path) is not None
    empty = [at for at, filled in is_filled.items() if not filled]
    for path, value in given.items():
        if type(value) not in CELL_TYPES:
            empty += _empty_entries(path, value)
    return dict(sorted(empty, reverse=True))


def _empty_entries(path: str, value: Any) -> Iterator[tuple[str, int]]:
    """The entries that say nothing of a list, or of the lists in a hash."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _empty_entries(f"{path}.{name}", inner)
    elif isinstance(value, list | tuple):
        yield from ((path, n) for n, entry in enumerate(value) if _is_empty(entry))


def _is_empty(value: Any) -> bool:
    """Whether a value is null, or text, a list or a hash without anything in it; what compares in its
    own way (an array) is not asked.
    """
    return value is None or (isinstance(value, str | dict | list) and not value)


def keep_entries(push: Definition, wanted: Wanted, name: str, count: int, ends_one: bool) -> None:
    """Raise `InvalidParameter` if an empty entry of a list would end or replace what is there.
    `count` is how many entries the row has, `ends_one` whether one of those that are there goes.
    """
    gap = wanted.gaps.get(name)
    if gap is None or push.nulls == "unset":
        return
    if ends_one or gap < count:  # what follows the gap would take its place
        raise InvalidParameter(
            f'{name}[{gap}] is empty, and what is there is not removed for that. Fill it, or set nulls = "unset" to remove it.',
            name,
        )


def _with_lists(given: Mapping[str, Any]) -> dict[str, Any]:
    """Gather `items[0].price`, `items[0].quantity` as lists of hashes; an entry without any value is
    left out.
    """
    found: dict[str, Any] = {}
    lists: dict[str, dict[int, dict[str, Any]]] = {}
    for path, value in given.items():
        entry = _entry(path)
        if entry is None:
            found[path] = value
        elif value is not None:
            fields = lists.setdefault(entry[0], {}).setdefault(entry[1], {})
            *above, last = entry[2]
            for part in above:
                fields = fields.setdefault(part, {})
            fields[last] = value
        else:
            lists.setdefault(entry[0], {})
    for name, entries in lists.items():
        found[name] = [entries[n] for n in sorted(entries)] or None
    return found


def _column(source: ColumnSource | Association) -> str:
    return source.name if isinstance(source, ColumnSource) else source.column


def _content(push: Definition, given: Mapping[str, Any]) -> str:
    """A digest; what empty values mean is part of it if there are any."""
    nulls = push.nulls if None in given.values() else ""
    try:
        return content_of({"given": given, "nulls": nulls})
    except UNREADABLE:
        for path, value in given.items():
            try:
                content_of({"": value})
            except UNREADABLE as fault:
                raise _no_text(path, fault) from None
        raise


def row_key(push: Definition, record: SourceRow) -> str:
    """The key of a row as text. Raises `InvalidParameter` if a part of it is empty, or a fraction."""
    parts = []
    for name in push.key:
        try:
            value = blank_to_null(record.get(name))
            text = str(value)
        except UNREADABLE as fault:
            raise _no_text(f"The key column {name}", fault) from None
        if value is None:
            raise InvalidParameter(f"The key column {name} is empty.", name)
        if isinstance(value, FRACTIONS):
            number = _integer(value)  # a table with empty cells makes 1.0 of 1, and SQL 1.00
            if number is None and isinstance(value, float):
                raise InvalidParameter(
                    f"The key column {name} holds a float. Make it an integer or text.", name
                )
            text = text if number is None else str(number)
        if _HALF.search(text):
            raise InvalidParameter(f"The key column {name} holds half a character.", name)
        parts.append(text.replace("\\", "\\\\").replace(KEY_SEPARATOR, f"\\{KEY_SEPARATOR}"))
    return KEY_SEPARATOR.join(parts)


def blank_to_null(value: Any) -> Any:
    """A cell that holds nothing but white space, or no number, is null."""
    if isinstance(value, str):
        return None if value.isspace() or not value else value
    return None if isinstance(value, FRACTIONS) and value != value else value


def _value(path: str, source: Source, record: SourceRow) -> Any:
    match source:
        case Constant():
            return source.value
        case RowTemplate():
            values = {name: blank_to_null(record.get(name)) for name in source.columns}
            for name, value in values.items():
                _check_part(path, name, value)
            return source.filled(values)
        case RunTime():
            return datetime.fromtimestamp(source.at, timezone.utc)
        case Computed():
            return _computed(path, source, record)
        case Association():
            value = blank_to_null(record[source.column])
            if not isinstance(value, Hashable):
                raise InvalidParameter(f"{path}: a list or a hash names no {source.find}.", path)
            if isinstance(value, float):
                raise InvalidParameter(
                    f"{path}: a float names no {source.find}. Make it an integer or text.", path
                )
            return None if value is None else Reference(source, value)
        case ColumnSource():
            value = blank_to_null(record[source.name])
            return value if value is None else _converted(path, source.convert, value)


def _computed(path: str, source: Computed, record: SourceRow) -> Any:
    try:
        return blank_to_null(source.work(MappingProxyType(record)))
    except Exception as fault:  # its words can hold what the row holds
        raise InvalidParameter(
            f"{path}: its function raises {type(fault).__name__} for this row.", path
        ) from None


def _check_part(path: str, column: str, value: Any) -> None:
    """Raise `InvalidParameter` for what has no text of its own in a template."""
    if isinstance(value, float):  # 3.0 can be what a table with empty cells made of 3
        raise InvalidParameter(
            f"{path}: the column {column} holds a float. Make it an integer or text.", path
        )
    if isinstance(value, bytes | list | tuple | Mapping):
        raise InvalidParameter(
            f"{path}: a template takes no value of type {type(value).__name__} ({column}).", path
        )


def _converted(path: str, convert: str | None, value: Any) -> Any:
    result: Any = None
    match convert:
        case None:
            return value
        case "text" if isinstance(value, bytes | list | tuple | Mapping):
            pass
        case "text" if isinstance(value, float):  # 3.0 can be what a table made of 3
            result = None if (number := _integer(value)) is None else str(number)
        case "text":
            result = value.isoformat() if isinstance(value, datetime) else str(value)
        case "integer":
            result = _integer(value)
        case "boolean":
            result = WORDS.get(str(value).strip().lower())
        case "utc" if isinstance(value, datetime):
            result = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        case "utc" if isinstance(value, str):
            result = _utc(value)
        case "json" if isinstance(value, str):
            result = _parsed(value)
        case "json" if isinstance(value, list | tuple | Mapping):
            result = _dumped(value)
        case "milliseconds":
            number = _integer(value)
            result = number // 1000 if number is not None and number >= MILLISECONDS else None
    if result is None:
        raise InvalidParameter(
            f"{path}: a value of type {type(value).__name__} does not convert as {convert}.", path
        )
    return result


def _integer(value: Any) -> int | None:
    """A whole number; floats are what a table makes of whole numbers if some are empty."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, Decimal):
        return int(value) if is_moderate(value) and value == value // 1 else None
    if isinstance(value, float):
        return int(value) if isfinite(value) and value == value // 1 else None
    return int(value) if re.fullmatch(r"-?\d{1,18}", str(value).strip(), re.ASCII) else None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_float=Decimal)
    except (RecursionError, ValueError):
        return None


def _dumped(value: Any) -> str | None:
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
    except UNREADABLE:
        return None


def _utc(text: str) -> datetime | None:
    try:
        return with_zone(text.strip())
    except ValueError:
        return None


@cache
def _first(path: str) -> str:
    return path.partition(".")[0]


def params_for(
    push: Definition,
    wanted: Wanted,
    verb: str,
    complete: bool = True,
    held: Object | None = None,
) -> Params:
    """The parameters of one request. Raises `InvalidParameter` for what Stripe would refuse.
    `complete=False`: what a new object needs may be missing; so may what it has, if it is `held`.

    What an object only takes when it is created is left out of its updates, and the reverse.
    """
    tops = push.row.tops[verb]
    given = {path: value for path, value in wanted.given.items() if _first(path) in tops}
    if "id" in given and verb == "update":
        del given["id"]
    nulls = push.nulls
    if verb == "create" and nulls == "unset":  # nothing is set yet
        nulls = "skip"
    if held is not None:
        given = with_needed(push.row, given, held)
    params = convert(push.row, verb, given, nulls)
    check(push.row, verb if complete else "update", params)
    if MARKER in params.get("metadata", ()):
        raise _is_marker()
    return params


def update_only(push: Definition, wanted: Wanted) -> Params:
    """What an object takes only after it was created."""
    created = params_for(push, wanted, "create")
    updated = params_for(push, wanted, "update")
    return {name: value for name, value in updated.items() if name not in created and value != ""}


def update_params(push: Definition, wanted: Wanted, held: Object) -> Params:
    """What is left to be sent for an object to become what a row says."""
    params = params_for(push, wanted, "update", held=held)
    check_metadata(params.get("metadata"), held.get("metadata"))
    params = completed(params, held, wanted.given)
    if push.only_if_empty:
        params = empty_only(params, held, push.only_if_empty)
    left = changed(params, held)
    for name, gap in wanted.gaps.items():
        there, sent = _at(held, name), _at(left, name)
        if isinstance(there, list) and isinstance(sent, list) and gap < len(there):
            keep_entries(push, wanted, name, len(sent), True)
    return left


def _at(hash: Any, name: str) -> Any:
    for part in name.split("."):
        hash = hash.get(part) if isinstance(hash, Mapping) else None
    return hash
