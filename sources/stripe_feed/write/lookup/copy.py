"""Look-ups in the copy's own tables: they cost no request, but only a fresh copy of the same account
may answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from ...api.client import Api
from ...destination.place import DEFAULT_DATASET
from ...destination.read import CopyReader, NoSuchTable, QueryResult, open_copy, read_state
from ...errors import StripeFeedError, WrongAccount
from ...resources import CHANGES, TABLES
from .filters import ObjectFilter, to_sql

MAX_AGE = 900.0  # seconds since events were read into the copy
DIALECTS = ("duckdb", "postgres")
_PATIENCE = 1.0  # seconds to wait for a sync that holds the file


@dataclass(frozen=True, slots=True)
class CopyPlace:
    """Which copy may answer, and how old it may be (seconds)."""

    database: str | None = None
    destination: str | None = None
    dataset: str = DEFAULT_DATASET
    max_age: float = MAX_AGE


@dataclass(frozen=True, slots=True)
class CopyAnswer:
    """Objects of the copy; `read_until` is the second up to which it knows the account."""

    objects: tuple[dict[str, Any], ...]
    read_until: int


class NoAnswer(Exception):
    """The copy cannot answer, and why."""


def ask_copy(
    api: Api, place: CopyPlace, table: str, wanted: ObjectFilter, limit: int
) -> CopyAnswer:
    """Objects of the copy that fulfil the conditions, newest first.

    Raises `NoAnswer` if it cannot tell, and `WrongAccount` for a copy of another account.
    """
    condition = to_sql(wanted, table)
    if condition is None:
        raise NoAnswer("the copy does not have these fields")
    try:
        with open_copy(place.database, place.destination, place.dataset, _PATIENCE) as copy:
            if copy.dialect not in DIALECTS:
                raise NoAnswer(
                    f"look-ups in {copy.dialect or 'this destination'} are not supported"
                )
            until = _read_until(api, read_state(copy), table, place.max_age)
            return CopyAnswer(_objects(copy, table, condition, limit), until)
    except WrongAccount:
        raise
    except (StripeFeedError, NoSuchTable):
        raise NoAnswer("the copy cannot be read now") from None


def _read_until(api: Api, state: Mapping[str, Any], table: str, max_age: float) -> int:
    if state.get("livemode") != api.live or state.get("account") != api.account().id:
        raise WrongAccount(
            "The copy holds another account or mode than the key's. Name the right --database, or use another key."
        )
    cursor = state.get("resources", {}).get(CHANGES, {}).get(table, {}).get("cursor")
    if cursor is None:
        raise NoAnswer("the copy does not follow the account's events")
    age = api.now() - int(cursor)
    if age > max_age:
        raise NoAnswer(f"the copy is {age // 60:,} minutes behind: run `stripe-feed sync`")
    return int(cursor)


def _objects(
    copy: CopyReader, table: str, condition: str, limit: int
) -> tuple[dict[str, Any], ...]:
    when = "created" if any(column.name == "created" for column in TABLES[table].columns) else "id"
    rows = copy.query(
        f"select * from {copy.table_name(table)} where deleted_at is null and ({condition}) "
        f"order by {when} desc, id desc limit {int(limit)}"
    )
    return tuple(_object(table, rows, row) for row in rows.rows)


def _object(table: str, rows: QueryResult, row: tuple[Any, ...]) -> dict[str, Any]:
    """A row as the API has the object; lists that are tables of their own are left out."""
    held = dict(zip(rows.columns, row, strict=True))
    found = {
        column.name: _plain(held[column.name], column.kind)
        for column in TABLES[table].columns
        if column.name in held
    }
    return {**found, **(_plain(held.get("extra"), "json") or {})}


def _plain(value: Any, kind: str) -> Any:
    if kind == "json" and isinstance(value, str):
        return json.loads(value)
    if isinstance(value, datetime):
        return int(value.timestamp())
    return str(value) if isinstance(value, Decimal) else value
