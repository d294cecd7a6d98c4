"""What a fresh copy knows of many objects at once: a push asks for all of its rows in a few queries,
not for each in one of its own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date
from typing import Any

from ...api.client import Api
from ...destination.read import CopyReader, NoSuchTable
from ...errors import UsageError
from ...resources import TABLES
from .copy import CopyPlace, NoAnswer, fresh_copy, objects_of, read_until
from .filters import literal

Asked = Mapping[tuple[str, str], Iterable[str]]
"""Values by table and property: `id`, `email`, `lookup_key` or `metadata.NAME`."""
Known = dict[tuple[str, str], dict[str, list[dict[str, Any]]]]
"""The objects that have a value, by table and property, then by value as `known_value` gives it."""

VALUES_PER_QUERY = 30_000  # values of one query
_NO_SQL = re.compile("[\0\ud800-\udfff]")


def known_value(by: str, value: object) -> str:
    """A value as it is compared: e-mail addresses in any case, booleans and times as metadata has them."""
    if isinstance(value, date):
        return value.isoformat()
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.casefold() if by == "email" else text


def read_known(
    api: Api, place: CopyPlace, account_id: str, asked: Asked, fields: Collection[str]
) -> tuple[Known, dict[str, int]]:
    """Read what the copy of an account knows, and the second up to which it knows each table: of each
    object its id, and those of some fields that its table has.

    What the copy cannot tell is left out. Raises `NoAnswer` if it cannot tell anything, and
    `WrongAccount` for a copy of another account.
    """
    known: Known = {}
    until: dict[str, int] = {}
    with fresh_copy(api, place, account_id) as (copy, state):
        for (table, by), values in asked.items():
            expression = _expression(table, by)
            if expression is None:
                continue
            try:
                until[table] = read_until(api, state, table, place.max_age)
                known[table, by] = _read(copy, table, by, expression, set(values), fields)
            except (NoAnswer, NoSuchTable, UsageError):
                continue
    return known, until


def _expression(table: str, by: str) -> str | None:
    """A property in SQL; None if the copy has no such column."""
    if table not in TABLES:
        return None
    top, _, key = by.partition(".")
    if top not in {"id", *(column.name for column in TABLES[table].columns)}:
        return None
    if top == "metadata":
        return f"(metadata ->> {literal(key)})" if key and key[0] not in "$/" else None
    return 'lower("email")' if by == "email" else f'"{by}"'


def _read(
    copy: CopyReader,
    table: str,
    by: str,
    expression: str,
    values: set[str],
    fields: Collection[str],
) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    kinds = {column.name: column.kind for column in TABLES[table].columns}
    chosen = ", ".join(
        _selected(name, kinds.get(name)) for name in sorted({"id", *(kinds.keys() & {*fields})})
    )
    # a list in place of `values` is compared item by item on DuckDB: 100 times as long
    for batch in _batches(sorted(filter(_can_be_asked, values))):
        texts = (literal(value.lower() if by == "email" else value) for value in batch)
        wanted = ", ".join(f"({text})" for text in texts)
        rows = copy.query(
            f"select {chosen}, {expression} as wanted_value from {copy.table_name(table)} "
            f"where deleted_at is null and {expression} in (select v from (values {wanted}) t(v))"
        )
        for one, row in zip(objects_of(table, rows), rows.rows, strict=True):
            found[known_value(by, row[-1])].append(one)
    return found


def _selected(name: str, kind: str | None) -> str:
    """A column in SQL; times as seconds, because DuckDB makes a time zone of Python's for each one."""
    if kind == "timestamp":
        return f'cast(extract(epoch from "{name}") as bigint) as "{name}"'
    return f'"{name}"'


def _can_be_asked(value: str) -> bool:
    """Whether SQL can hold a text: Postgres takes no NUL, and nothing takes half a character."""
    return not _NO_SQL.search(value)


def _batches(values: list[str]) -> Iterator[list[str]]:
    for first in range(0, len(values), VALUES_PER_QUERY):
        yield values[first : first + VALUES_PER_QUERY]
