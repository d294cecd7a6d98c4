"""Rows to push, from whatever holds them: dicts, a DataFrame, Arrow, a dlt resource, or a query on the
copy.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any
from uuid import UUID

from ...destination.place import DEFAULT_DATASET
from ...destination.read import open_reader, run_query
from ...errors import UsageError

Row = dict[str, Any]


def read_rows(source: Any) -> Iterator[Row]:
    """Read rows as dicts. Raises `UsageError` for what holds none."""
    if isinstance(source, Mapping):
        yield {str(name): _plain(value) for name, value in source.items()}
    elif hasattr(source, "to_pylist"):  # Arrow: a table, or a batch
        _check_names(source.schema.names if hasattr(source, "schema") else ())
        yield from read_rows(source.to_pylist())
    elif hasattr(source, "to_dict") and hasattr(source, "columns"):  # pandas
        _check_names(source.columns)
        yield from read_rows(source.to_dict("records"))
    elif hasattr(source, "to_dicts"):  # Polars
        yield from read_rows(source.to_dicts())
    elif isinstance(source, Iterable) and not isinstance(source, str | bytes):
        for item in source:
            yield from read_rows(item)
    else:
        raise UsageError(
            f"A {type(source).__name__} holds no rows. Give dicts, a DataFrame, Arrow or a dlt resource."
        )


def _check_names(names: Iterable[Any]) -> None:
    """Raise `UsageError` for two columns of one name: a row could hold one of them only."""
    seen: set[str] = set()
    for name in map(str, names):
        if name in seen:
            raise UsageError(f"Two columns of the rows are named {name}. Rename one.")
        seen.add(name)


def _plain(value: Any) -> Any:
    """A value as Python has it, inside lists and hashes, too; what is no number or no time is null."""
    try:
        return _without_numpy(value)
    except RecursionError:  # it holds itself
        return value


def _without_numpy(value: Any) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, str | int):
        return value
    if type(value).__module__ == "numpy":
        if getattr(value.dtype, "kind", "") in "mM":  # of nanoseconds it makes an integer
            value = value.astype(f"{value.dtype.kind}8[us]")
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: _without_numpy(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_numpy(inner) for inner in value]
    if isinstance(value, UUID):
        return str(value)
    try:
        differs = value != value
        return None if differs is value or differs else value  # NA; NaN, NaT
    except (ArithmeticError, TypeError, ValueError):  # a signaling NaN; compared one by one
        return value


def query_rows(
    sql: str,
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DEFAULT_DATASET,
) -> list[Row]:
    """The rows of a query on the copy. Raises `UsageError` with the database's words."""
    with open_reader(database, destination, dataset) as copy:
        found = run_query(copy, sql)
    if len(set(found.columns)) < len(found.columns):
        raise UsageError("Two columns of the query have one name. Name each of them with `as`.")
    return [
        {
            name: _parsed(value) if name in found.json and value is not None else value
            for name, value in zip(found.columns, row, strict=True)
        }
        for row in found.rows
    ]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (RecursionError, ValueError):  # an integer of thousands of digits
        return text


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Every column that some row has, in the order of their appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))
