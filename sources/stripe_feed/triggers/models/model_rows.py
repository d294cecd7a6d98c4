"""Read the rows that a trigger on a model watches: whether any differ, their keys, and whole rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone
from decimal import Decimal
from itertools import islice
from typing import Any, TypeVar

from ...destination.error_messages import causes_of
from ...destination.read import first_line
from ...errors import StripeFeedError, UsageError
from ...feed.change import iso
from ...models.copies import built_relation
from ...models.database import ModelDatabase
from ...models.run import describe_fault
from ...wording import counted
from .model_trigger import ModelTrigger

MAX_NAMED_KEYS = 5
_KEYS_PER_QUERY = 500
_MAX_QUERIES = 20  # for more rows, all are read at once

KEY_BUCKETS = 1_024  # a power of two; only rows of buckets that differ are compared

# The version of an engine, the bucket of a key, and a number for the watched values. Such hashes
# are fast, but another version may give others: then the digests of all rows decide.
_HASHES = {
    "duckdb": ("version()", "hash({})", "hash({})"),
    "postgres": (
        "current_setting('server_version')",
        "hashtextextended(coalesce({}, ''), 0)",
        "hashtextextended(row({})::text, 0)",
    ),
}

_NAME_ERRORS = ("BinderException", "CatalogException", "ParserException")
_VALUE_ERRORS = ("ConversionException", "InvalidInputException", "OutOfRangeException")

T = TypeVar("T")
ModelRow = dict[str, Any]
"""A row as JSON: times are ISO 8601 in UTC, decimals with a fraction are texts, bytes are hexadecimal."""


class InvalidKeys(StripeFeedError):
    """The key of a trigger does not identify the rows of its model."""


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """A text per bucket of keys, which differs if any key or watched value in it does, as this
    version of an engine makes them; and the number of rows.
    """

    engine: str
    buckets: Mapping[int, str]
    rows: int


@dataclass(frozen=True, slots=True)
class RowDigest:
    """What is known of a row: the bucket of its key, a digest of its key and watched columns, and
    its customer.
    """

    bucket: int
    digest: str
    customer_id: str | None


class ModelRows:
    """The rows that a trigger watches, in an open database. Raises `UsageError` if its model is not
    built, if it lacks a column, or if the database refuses its SQL.
    """

    def __init__(self, database: ModelDatabase, trigger: ModelTrigger) -> None:
        self.database, self.trigger = database, trigger
        relation = (
            f"(\n{trigger.sql}\n) as selected"
            if trigger.sql is not None
            else built_relation(database, trigger.model)
        )
        where = f" where (\n{trigger.rows}\n)" if trigger.rows else ""
        self.source = f"select * from {relation}{where}"
        self.names = [name for name, _ in self._ask(database.columns, self.source)]
        for column in (*trigger.key, *trigger.watch):
            if column not in self.names:
                raise UsageError(
                    f"{trigger.model} has no column {column!r}. It has {', '.join(self.names)}."
                )
        self.key = _key_text(trigger.key)
        _, bucket, _ = _HASHES[database.target.type]
        self.bucket = f"cast({bucket.format(self.key)} & {KEY_BUCKETS - 1} as integer)"

    def fingerprints(self) -> Fingerprints:
        """What is cheap to know of all rows."""
        columns = ", ".join(f'"{name}"' for name in (*self.trigger.key, *self.trigger.watch))
        version, _, number = _HASHES[self.database.target.type]
        rows = self._query(
            f"select {self.bucket}, count(*), sum({number.format(columns)}) from ({self.source}) as source group by 1"
        )
        ((engine,),) = self._query(f"select {version}")
        buckets = {int(bucket): f"{count} {total}" for bucket, count, total in rows}
        return Fingerprints(str(engine), buckets, sum(int(count) for _, count, _ in rows))

    def digests(self, buckets: Collection[int] | None = None) -> dict[str, RowDigest]:
        """The rows by key: those of some buckets, or all. Raises `InvalidKeys` if a key is null or
        double.
        """
        customer = '"customer_id"' if "customer_id" in self.names else "null"
        columns = (*self.trigger.key, *self.trigger.watch)
        where = (
            "" if buckets is None else f" where {self.bucket} in ({', '.join(map(str, buckets))})"
        )
        rows = self._query(
            f"select {self.key}, {self.bucket}, substr(md5({' || '.join(map(_tagged, columns))}), 1, 16), "
            f"cast({customer} as varchar) from ({self.source}) as source{where}"
        )
        found = {key: RowDigest(*values) for key, *values in rows}
        if len(found) < len(rows) or None in found:
            raise self._invalid_keys(rows)
        return found

    def _invalid_keys(self, rows: Sequence[tuple[Any, ...]]) -> InvalidKeys:
        columns = ", ".join(self.trigger.key)
        nulls = sum(key is None for key, *_ in rows)
        if nulls:
            return InvalidKeys(
                f"The key ({columns}) is null in {counted(nulls, 'row')} of {self.trigger.model}. "
                "Choose columns that every row has, or leave those rows out with `rows`."
            )
        seen, double = set[str](), dict[str, None]()
        for key, *_ in rows:
            if key in seen:
                double[key] = None
            seen.add(key)
        named = ", ".join(islice(double, MAX_NAMED_KEYS))
        unnamed = len(double) - MAX_NAMED_KEYS
        more = f" and {unnamed:,} more" if unnamed > 0 else ""
        return InvalidKeys(
            f"The key ({columns}) of {self.trigger.model} is not unique: {named}{more}. "
            "Add columns to `key` until it names one row."
        )

    def whole(self, keys: Sequence[str] | None = None) -> dict[str, ModelRow]:
        """Whole rows by key: those of some keys, or all."""
        if keys is None or len(keys) > _KEYS_PER_QUERY * _MAX_QUERIES:
            found = self._whole("")
            return found if keys is None else {key: found[key] for key in keys if key in found}
        found = {}
        for chunk in _chunks(keys, _KEYS_PER_QUERY):
            literals = ", ".join(f"'{_escape(key)}'" for key in chunk)
            found |= self._whole(f" where {self.key} in ({literals})")
        return found

    def _whole(self, where: str) -> dict[str, ModelRow]:
        rows = self._query(f"select {self.key}, source.* from ({self.source}) as source{where}")
        return {
            row[0]: {
                name: json_value(value) for name, value in zip(self.names, row[1:], strict=True)
            }
            for row in rows
        }

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        return self._ask(self.database.execute, sql)

    def _ask(self, ask: Callable[[str], T], sql: str) -> T:
        try:
            return ask(sql)
        except Exception as fault:
            if any(type(cause).__name__ == "OutOfMemoryException" for cause in causes_of(fault)):
                raise  # it is read again with more memory
            raise UsageError(
                f"The rows of {self.trigger.model} cannot be read: {_reason(fault)}"
            ) from None


def _reason(fault: Exception) -> str:
    """Why a database refused SQL; its own words only if they are about names, not values."""
    for cause in causes_of(fault):
        code = getattr(cause, "pgcode", None) or ""
        if code.startswith("42") or type(cause).__name__ in _NAME_ERRORS:
            return first_line(cause)
        if code.startswith("22") or type(cause).__name__ in _VALUE_ERRORS:
            return "a value is not of the kind that the SQL makes of it."
    return f"{describe_fault(fault)}."


def _escape(text: str) -> str:
    return text.replace("'", "''")


def _key_text(columns: Sequence[str]) -> str:
    """An expression for the key of a row as text: the value, or several joined by `/`."""
    if len(columns) == 1:
        return f'cast("{columns[0]}" as varchar)'
    parts = [
        f"replace(replace(cast(\"{column}\" as varchar), '\\', '\\\\'), '/', '\\/')"
        for column in columns
    ]
    return " || '/' || ".join(parts)


def _tagged(column: str) -> str:
    """An expression for a value as text that no other value, and no neighbour, can give."""
    text = f'cast("{column}" as varchar)'
    return f"coalesce(cast(length({text}) as varchar) || ':' || {text}, '-')"


def _chunks(keys: Iterable[str], size: int) -> Iterator[list[str]]:
    remaining = iter(keys)
    while chunk := list(islice(remaining, size)):
        yield chunk


def json_value(value: Any) -> Any:
    """A value of a database as JSON, the same from every engine."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            exponent = value.as_tuple().exponent
            return int(value) if isinstance(exponent, int) and exponent >= 0 else str(value)
        case datetime():
            return iso(value if value.tzinfo else value.replace(tzinfo=timezone.utc))
        case date():
            return value.isoformat()
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case Mapping():
            return {str(name): json_value(item) for name, item in value.items()}
        case list() | tuple():
            return [json_value(item) for item in value]
    return str(value)
