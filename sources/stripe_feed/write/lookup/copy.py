"""Look-ups in the copy's own tables: they cost no request, but only a fresh copy of the same account
may answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from ...api.client import Api
from ...destination.place import DEFAULT_DATASET
from ...destination.read import CopyReader, NoSuchTable, QueryResult, open_reader, read_state
from ...errors import StripeFeedError, WrongAccount
from ...resources import CHANGES, TABLES
from ...wording import counted
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
    with fresh_copy(api, place) as (copy, state):
        until = read_until(api, state, table, place.max_age)
        return CopyAnswer(_objects(copy, table, condition, limit), until)


@contextmanager
def fresh_copy(
    api: Api, place: CopyPlace, account_id: str | None = None
) -> Iterator[tuple[CopyReader, Mapping[str, Any]]]:
    """Open the copy of an account (the key's, which costs a request), and give its state. Raises as
    `ask_copy` does.
    """
    try:
        with open_reader(place.database, place.destination, place.dataset, _PATIENCE) as copy:
            if copy.dialect not in DIALECTS:
                raise NoAnswer(
                    f"look-ups in {copy.dialect or 'this destination'} are not supported"
                )
            state = read_state(copy)
            owner = account_id or api.account().id
            if state.get("livemode") != api.live or state.get("account") != owner:
                raise WrongAccount(
                    "The copy holds another account or mode than the key's. Name the right --database, or use another key."
                )
            yield copy, state
    except WrongAccount:
        raise
    except (StripeFeedError, NoSuchTable):
        raise NoAnswer("the copy cannot be read now") from None


def read_until(api: Api, state: Mapping[str, Any], table: str, max_age: float) -> int:
    """The second up to which a copy knows a table. Raises `NoAnswer` if that is too long ago."""
    cursor = state.get("resources", {}).get(CHANGES, {}).get(table, {}).get("cursor")
    if cursor is None:
        raise NoAnswer("the copy does not follow the account's events")
    age = api.now() - int(cursor)
    if age > max_age:
        raise NoAnswer(
            f"the copy is {counted(int(age // 60), 'minute')} behind: run `stripe-feed sync`"
        )
    return int(cursor)


def _objects(
    copy: CopyReader, table: str, condition: str, limit: int
) -> tuple[dict[str, Any], ...]:
    when = "created" if any(column.name == "created" for column in TABLES[table].columns) else "id"
    rows = copy.query(
        f"select * from {copy.table_name(table)} where deleted_at is null and ({condition}) "
        f"order by {when} desc, id desc limit {int(limit)}"
    )
    return tuple(objects_of(table, rows))


def objects_of(table: str, rows: QueryResult) -> Iterator[dict[str, Any]]:
    """Rows as the API has the objects; lists that are tables of their own are left out."""
    kinds = {column.name: column.kind for column in TABLES[table].columns}
    chosen = [
        (place, name, _PLAIN.get(kinds[name]))
        for place, name in enumerate(rows.columns)
        if name in kinds
    ]
    extra = rows.columns.index("extra") if "extra" in rows.columns else None
    for row in rows.rows:
        found = {
            name: row[place] if plain is None or row[place] is None else plain(row[place])
            for place, name, plain in chosen
        }
        if extra is not None and row[extra]:
            found |= _parsed(row[extra])
        yield found


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value  # Postgres has parsed it


def _seconds(value: Any) -> Any:
    return int(value.timestamp()) if isinstance(value, datetime) else value


def _digits(value: Any) -> str:
    return format(Decimal(value).normalize(), "f")


_PLAIN: dict[str, Callable[[Any], Any]] = {
    "json": _parsed, "timestamp": _seconds, "decimal": _digits,
}  # fmt: skip
"""What makes of a column's value what the API has."""
