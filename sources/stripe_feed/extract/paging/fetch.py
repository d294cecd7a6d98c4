"""One page of a list endpoint, with every embedded list complete."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from ...api.client import Api, InvalidBody
from ...api.rate_limits import endpoint_name
from ...errors import CursorGone, NotFound, RequestRefused, StripeFeedError, Unreachable
from ...resources.model import Child, Column, Expandable, Params, Resource
from ..tables.arrow import typed
from ..tables.codec import NULL, Record, Shape, own
from ..tables.rejected import Odd
from .reader import Page
from .windows import Ask, Head

MOST_RESTARTS = 3


class Restless(Unreachable):
    """A list that changes all the time, or says so."""


class _Cut(msgspec.Struct):
    has_more: bool = False


class _Raws(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: bool


class _Head(msgspec.Struct):
    id: str


_cut = msgspec.json.Decoder(_Cut)
_raws = msgspec.json.Decoder(_Raws)
_head = msgspec.json.Decoder(_Head)


def page_of(
    api: Api,
    resource: Resource,
    shape: Shape,
    walk: Params,
    ask: Ask,
    test_clocks: bool = False,
    only: Collection[str] | None = None,
    paid: bool = True,
    leave_out: Callable[[Odd], None] = lambda odd: None,
) -> Page[Record]:
    """Ask for one page, its token being `paid`, and complete what is cut in it.

    An object that was deleted before the page, or between it and its embedded list, is not in it.
    Rows on a test clock are left out unless asked for, and all but `only` these ids; what cannot be
    taken is handed to `leave_out`.
    """
    expand = [f"data.{expandable.column.name}" for expandable in shape.expanded]
    params: dict[str, Any] = {
        **dict(walk),
        **ask.params(),
        **({"expand": expand} if expand else {}),
    }
    size = 0

    def decode(body: bytes) -> tuple[list[Record | Odd], bool]:
        nonlocal size
        size = len(body)
        return shape.page(body)

    reply = api.get(resource.path, params, decode, token_taken=paid)
    found, has_more = reply.value

    def is_wanted(id: str | None, clock: Any) -> bool:
        return (only is None or id in only) and (test_clocks or not typed(clock, "ref"))

    heads: dict[str, Head] = {}
    rows: list[Record | None] = []
    for one in found:
        if isinstance(one, Odd):
            id, created, row = one.id, one.created, None
            if is_wanted(id, None):
                leave_out(one)
        else:
            id, created, row = one.row.id, typed(one.row.created, "timestamp"), one
        if id is None or id in heads:
            continue
        heads[id] = Head(id, created)
        if row is not None and (
            shape.is_stub(row.row) or not is_wanted(id, getattr(row.row, "test_clock", None))
        ):
            row = None
        try:
            rows.append(row if row is not None and complete(api, resource, shape, row) else None)
        except Odd as odd:
            rows.append(None)
            leave_out(odd)
    return Page(rows, list(heads.values()), has_more, size, reply.requested_at)


def complete(api: Api, resource: Resource, shape: Shape, record: Record) -> bool:
    """Read the rest of every embedded list of an object that is cut; False where the object is gone
    meanwhile.

    Raises `Odd` where one cannot be taken.
    """
    row = record.row
    again = False
    try:
        for child, child_shape in shape.children:
            embedded = child_shape.list_in(getattr(row, child.field))
            if embedded is None or embedded.has_more:
                rows = whole(api, child, row.id, lambda body, s=child_shape: _rows(s, body))  # type: ignore[misc]
                embedded = child_shape.embedded(data=rows)
            if embedded is not getattr(row, child.field):
                own(child, row.id, embedded)
                setattr(row, child.field, embedded)
                again = True
        for expandable in shape.expanded:
            if expandable.path and _is_cut(getattr(row, expandable.column.name)):
                setattr(row, expandable.column.name, _whole_raw(api, expandable, row.id))
                again = True
    except NotFound:
        return False
    except (Odd, RequestRefused, Restless) as fault:
        raise Odd(resource.table, row.id, typed(row.created, "timestamp"), _why(fault)) from None
    if again:
        record.hash = shape.hash(row)
    return True


def _why(fault: StripeFeedError) -> str:
    match fault:
        case Odd():
            return f"of its {fault.table}, {fault.id or 'one'}: {fault.why}"
        case RequestRefused():
            return f"Stripe refuses one of its lists ({fault.code or 'no code'})"
        case _:
            return "one of its lists changes faster than it can be read"


def in_path(id: str) -> str:
    """An id as one segment of a path; `.` and `..` would be taken for folders."""
    return quote(id, safe="") if id.strip(".") else id.replace(".", "%2E")


def whole(
    api: Api,
    where: Child | Expandable,
    parent: str,
    decode: Callable[[bytes], tuple[list[tuple[str, Any]], bool]],
) -> list[Any]:
    """Read a sub-list from its beginning. It starts over when the row it goes on from is deleted
    meanwhile, and when the list says that it has more but brings nothing new.
    """
    path = where.path.format(id=in_path(parent))
    fixed: Mapping[str, str] = {name: value.format(id=parent) for name, value in where.params}
    for _ in range(MOST_RESTARTS + 1):
        found: dict[str, Any] = {}
        cursor: dict[str, str] = {}
        try:
            while True:
                items, has_more = api.get(path, {"limit": 100, **fixed, **cursor}, decode).value
                fresh = {id_: item for id_, item in items if id_ not in found}
                found |= fresh
                if not has_more:
                    return list(found.values())
                if not fresh:
                    break
                cursor = {"starting_after": items[-1][0]}
        except CursorGone:
            continue
    raise Restless(
        f"{endpoint_name(path)}: one list changes faster than it can be read. Run again; if it stays, report it."
    )


CLOCKS = Expandable(
    Column("test_clocks", "json", "The account's test clocks."), path="/v1/test_helpers/test_clocks"
)


def test_clocks(api: Api) -> list[str]:
    """The ids of the account's test clocks."""
    return [_head.decode(raw).id for raw in whole(api, CLOCKS, "", raw_rows)]


def _rows(shape: Shape, body: bytes) -> tuple[list[tuple[str, Any]], bool]:
    rows, has_more = shape.rows(body)
    for row in rows:
        if isinstance(row, Odd):
            raise row
    return [(row.id, row) for row in rows], has_more


def raw_rows(body: bytes) -> tuple[list[tuple[str, Any]], bool]:
    """The ids and objects of a page as they are, and whether there is more."""
    try:
        page = _raws.decode(body)
        return [(_head.decode(raw).id, raw) for raw in page.data], page.has_more
    except msgspec.ValidationError:
        raise InvalidBody("no list of objects") from None


def _is_cut(raw: msgspec.Raw) -> bool:
    try:
        return bytes(raw) != bytes(NULL) and _cut.decode(raw).has_more
    except msgspec.ValidationError:
        return False


def _whole_raw(api: Api, expandable: Expandable, parent: str) -> msgspec.Raw:
    rows = whole(api, expandable, parent, raw_rows)
    body = {
        "object": "list",
        "data": rows,
        "has_more": False,
        "url": expandable.path.format(id=parent),
    }
    return msgspec.Raw(msgspec.json.encode(body))
