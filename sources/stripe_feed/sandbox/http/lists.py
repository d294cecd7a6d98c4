"""Lists by Stripe's rules: newest first, existing cursors, `created` windows, filters, `has_more`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec

from ..protocol.errors import Refusal, bad_choice, missing
from ..protocol.parameters import Params, Query, Span, boolean, span
from ..samples.subscriptions import ENDED
from ..state.account import Account
from ..state.kinds import KINDS, Kind
from ..state.table import Row, Table, has_text, values_at

T = TypeVar("T")
Condition = Callable[[Row], bool]


def envelope(url: str, rows: Iterable[bytes], has_more: bool) -> bytes:
    more = b"true" if has_more else b"false"
    return (
        b'{"object":"list","data":['
        + b",".join(rows)
        + b'],"has_more":'
        + more
        + b',"url":"'
        + url.encode()
        + b'"}'
    )


def page_of_rows(
    account: Account, table: str, query: Query, owner: str = ""
) -> tuple[list[Row], bool]:
    """The rows of one page, newest first, and whether there are more. With `owner` only the objects
    that belong to this one.
    """
    rows, condition = account.tables[table], row_condition(table, query.filters, owner)
    first, last = rows.span(query.created.lo, query.created.hi)
    if query.before:
        first = max(
            first,
            rows.above(cursor_row(account, table, rows, query.before, "ending_before", condition)),
        )
        page = take(rows.newer(first, last), condition, query.limit + 1)
        return page[: query.limit][::-1], len(page) > query.limit
    if query.after:
        last = min(
            last,
            rows.below(cursor_row(account, table, rows, query.after, "starting_after", condition)),
        )
    page = take(rows.older(first, last), condition, query.limit + 1)
    return page[: query.limit], len(page) > query.limit


def take(rows: Iterator[T], condition: Callable[[T], bool] | None, count: int) -> list[T]:
    """The first `count` rows that meet a condition."""
    return list(islice(rows if condition is None else filter(condition, rows), count))


def cursor_row(
    account: Account, table: str, rows: Table, id: str, param: str, condition: Condition | None
) -> Row:
    """The row that a page starts from. Refuses a row that does not exist or does not match the
    filters.
    """
    row = rows.rows.get(id)
    if row is None or (condition and not condition(row)):
        raise missing(KINDS[table].object, id, param, 400)
    return row


def page_of_list(rows: Sequence[bytes], query: Query, object: str) -> tuple[list[bytes], bool]:
    """One page of a short list in its own order."""
    ids = [msgspec.json.decode(row, type=_ListedId).id for row in rows]
    first, last = 0, len(rows)
    if query.after:
        first = _position(ids, query.after, object, "starting_after") + 1
    if query.before:
        last = _position(ids, query.before, object, "ending_before")
        first = max(0, last - query.limit)
        return list(rows[first:last]), first > 0
    return list(rows[first : first + query.limit]), first + query.limit < last


def _position(ids: Sequence[str], id: str, object: str, param: str) -> int:
    if id not in ids:
        raise missing(object, id, param, 400)
    return ids.index(id)


class _ListedId(msgspec.Struct):
    id: str


def row_condition(table: str, filters: Params, owner: str = "") -> Condition | None:
    """The condition of all given filters, and of what the list hides; None if every row is listed."""
    kind = KINDS[table]
    conditions = [
        *_hidden_conditions(kind, filters),
        *(_filter_condition(kind, name, value) for name, value in filters.items()),
        *_owner_conditions(owner),
    ]
    if len(conditions) < 2:
        return conditions[0] if conditions else None
    return lambda row: all(condition(row) for condition in conditions)


def _owner_conditions(owner: str) -> Iterator[Condition]:
    if owner:
        yield lambda row: row.group == owner


def _hidden_conditions(kind: Kind, filters: Params) -> Iterator[Condition]:
    """Hide objects on a test clock and objects of hidden groups, unless a filter asks for them."""
    if kind.on_clocks and "test_clock" not in filters and "customer" not in filters:
        yield lambda row: row.clock is None
    if kind.hidden and kind.grouped not in filters:
        yield lambda row: row.group not in kind.hidden


def _filter_condition(kind: Kind, name: str, value: Any) -> Condition:
    field_filter = kind.filters[name]
    at = field_filter.at or name
    match field_filter.rule:
        case "group":
            return _of_group(kind.grouped, value, field_filter.choices)
        case "choice":
            return has_text(at, _choice(name, value, field_filter.choices))
        case "boolean":
            return _content(at, boolean(name, value))
        case "not":
            return _content(at, not boolean(name, value))
        case "list":
            return _one_of(name, at, value, field_filter.most)
        case "time":
            return _within(span({name: value}, name), at.split("."))
        case "hash":
            return _inside(name, value)
        case "null":
            wanted = boolean(name, value)
            return lambda row: (row.content()[at] is None) == wanted
        case "owner":
            owner = _text(name, value)
            return lambda row: row.group == owner
        case "or all":
            return (lambda row: True) if value == "all" else has_text(at, _text(name, value))
        case "text":
            return has_text(at, _text(name, value))


def _of_group(field: str, value: Any, choices: tuple[str, ...]) -> Condition:
    if field == "active":
        wanted: tuple[str, ...] = ("active" if boolean(field, value) else "archived",)
    else:
        status = _choice(field, value, choices)
        if status == "all":
            return lambda row: True
        wanted = ENDED if status == "ended" else (status,)
    return lambda row: row.group in wanted


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise bad_choice(name, choices)
    return str(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Refusal(400, f"Invalid string: {value}", param=name)
    return value


def _content(name: str, value: Any) -> Condition:
    return lambda row: bool(row.content().get(name) == value)


def _one_of(name: str, field: str, values: Any, most: int) -> Condition:
    if not isinstance(values, list):
        raise Refusal(400, "Invalid array", param=name)
    if most and len(values) > most:
        raise Refusal(400, f"Array too long: {name} takes at most {most}.", param=name)
    wanted = set(values)
    return lambda row: row.content().get(field) in wanted


def _within(bounds: Span, names: list[str]) -> Condition:
    return lambda row: any(map(bounds.has, values_at(row.content(), names)))


def _inside(name: str, wanted: Any) -> Condition:
    if not isinstance(wanted, dict):
        raise Refusal(400, "Invalid object", param=name)
    wanted = {key: value == "true" if key == "enabled" else value for key, value in wanted.items()}

    def match(row: Row) -> bool:
        hash = row.content().get(name) or {}
        return all(hash.get(key) == value for key, value in wanted.items())

    return match
