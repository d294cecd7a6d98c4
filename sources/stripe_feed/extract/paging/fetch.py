"""Fetch one page of a list endpoint, with every embedded list complete."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec

from ...api.client import Api, InvalidBody
from ...api.rate_limits import endpoint_name
from ...errors import CursorGone, NotFound, RequestRefused, StripeFeedError, Unreachable
from ...resources.model import Child, Expandable, QueryPairs, Resource
from ..tables.codec import NULL_RAW, Record, TableCodec, set_parent
from ..tables.rejected import Rejected
from ..tables.values import value_of
from .reader import ListPage
from .windows import PageRequest, Range, RowKey

MAX_RESTARTS = 3


class UnstableList(Unreachable):
    """A list that changes faster than it can be read, or says so."""


class _Truncatable(msgspec.Struct):
    has_more: bool = False


class _Raws(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: bool


class _WithId(msgspec.Struct):
    id: str


_truncatable = msgspec.json.Decoder(_Truncatable)
_raws = msgspec.json.Decoder(_Raws)
_with_id = msgspec.json.Decoder(_WithId)


def fetch_list_page(
    api: Api,
    resource: Resource,
    codec: TableCodec,
    walk: QueryPairs,
    request: PageRequest,
    test_clocks: bool = False,
    wanted_ids: Collection[str] | None = None,
    token_taken: bool = True,
    reject: Callable[[Rejected], None] = lambda rejected: None,
    created_in: Range | None = None,
) -> ListPage[Record]:
    """Fetch one page and complete its truncated embedded lists. `token_taken`: the caller took the
    token of the request.

    An object that is deleted before its embedded list is read is not in the page. Rows on a test
    clock are left out unless `test_clocks`; rows outside `wanted_ids`, or with a time of creation
    outside `created_in`, always. `reject` is called for each object that cannot be stored.
    """
    expand = [f"data.{name}" for name in codec.expand]
    params: dict[str, Any] = {
        **dict(walk),
        **request.params(),
        **({"expand": expand} if expand else {}),
    }
    size = 0

    def decode(body: bytes) -> tuple[list[Record | Rejected], bool]:
        nonlocal size
        size = len(body)
        return codec.decode_page(body)

    reply = api.get(resource.path, params, decode, token_taken=token_taken)
    records, has_more = reply.value

    def is_wanted(id: str | None, created: int | None, clock: Any) -> bool:
        return (
            (wanted_ids is None or id in wanted_ids)
            and (test_clocks or not value_of(clock, "ref"))
            and (created_in is None or created is None or created_in[0] <= created < created_in[1])
        )

    keys: dict[str, RowKey] = {}
    rows: dict[str, Record] = {}
    for record in records:
        if isinstance(record, Rejected):
            if is_wanted(record.id, record.created, None):
                reject(record)
            if record.id is not None:
                keys.setdefault(record.id, RowKey(record.id, record.created))
            continue
        id, row = record.row.id, record.row
        if id in keys:
            continue
        keys[id] = RowKey(id, record.created)
        clock = getattr(row, "test_clock", None)
        if codec.is_stub(row) or not is_wanted(id, record.created, clock):
            continue
        try:
            if complete_lists(api, resource, codec, record):
                rows[id] = record
        except Rejected as rejected:
            reject(rejected)
    return ListPage(rows, list(keys.values()), has_more, size, reply.requested_at)


def complete_lists(api: Api, resource: Resource, codec: TableCodec, record: Record) -> bool:
    """Read every truncated embedded list of an object completely; False if the object was deleted
    meanwhile.

    Raises `Rejected` if a list cannot be stored.
    """
    row = record.row
    changed = False
    try:
        for child, child_codec in codec.children:
            embedded = child_codec.decode_list(getattr(row, child.field))
            if embedded is None or embedded.has_more:
                embedded = child_codec.list_struct(
                    data=_fetch_children(api, child, child_codec, row.id)
                )
            if embedded is not getattr(row, child.field):
                set_parent(child, row.id, embedded)
                setattr(row, child.field, embedded)
                changed = True
        for expandable in codec.expanded:
            if expandable.path and _is_truncated(getattr(row, expandable.name)):
                setattr(row, expandable.name, _fetch_raw_sublist(api, expandable, row.id))
                changed = True
    except NotFound:
        return False
    except (Rejected, RequestRefused, UnstableList) as fault:
        raise Rejected(resource.table, row.id, record.created, _reason(fault)) from None
    if changed:
        record.hash = codec.hash(row)
    return True


def _fetch_children(api: Api, child: Child, codec: TableCodec, parent_id: str) -> list[Any]:
    """Read the rows of a child table of one object. A list that is only there if it is expanded can
    be missing while the object exists: Stripe keeps no line items of old checkout sessions.
    """
    try:
        return fetch_sublist(api, child, parent_id, partial(_decode_child_rows, codec))
    except CursorGone:
        raise
    except RequestRefused:
        if not child.expand:
            raise
        return []


def _reason(fault: StripeFeedError) -> str:
    match fault:
        case Rejected():
            return f"of its {fault.table}, {fault.id or 'one'}: {fault.reason}"
        case RequestRefused():
            return f"Stripe refuses one of its lists ({fault.code or 'no code'})"
        case _:
            return "one of its lists changes faster than it can be read"


def path_segment(id: str) -> str:
    """Return an id as one segment of a path; escape `.` and `..`, which would mean folders."""
    return quote(id, safe="") if id.strip(".") else id.replace(".", "%2E")


def fetch_sublist(
    api: Api,
    sublist: Child | Expandable,
    parent_id: str,
    decode: Callable[[bytes], tuple[list[tuple[str, Any]], bool]],
    expand: Sequence[str] = (),
) -> list[Any]:
    """Read a sub-list from its beginning."""
    path, params = sublist_query(sublist.path, sublist.params, parent_id)
    if expand:
        params["expand"] = list(expand)
    return read_list(api, path, params, decode)[0]


def sublist_query(path: str, params: QueryPairs, parent_id: str) -> tuple[str, dict[str, Any]]:
    """Return the path and the parameters of the list of one parent."""
    fixed = {name: value.format(id=parent_id) for name, value in params}
    return path.format(id=path_segment(parent_id)), fixed


def read_list(
    api: Api,
    path: str,
    params: Mapping[str, Any],
    decode: Callable[[bytes], tuple[list[tuple[str, Any]], bool]],
) -> tuple[list[Any], int]:
    """Read a list from its beginning to its end; also return Stripe's time of the first request.
    Start over if the row of the cursor was deleted meanwhile, or if the list says that it has more
    but brings nothing new.
    """
    for _ in range(MAX_RESTARTS + 1):
        items_by_id: dict[str, Any] = {}
        cursor: dict[str, str] = {}
        asked_at: int | None = None
        try:
            while True:
                reply = api.get(path, {"limit": 100, **params, **cursor}, decode)
                items, has_more = reply.value
                asked_at = reply.requested_at if asked_at is None else asked_at
                fresh = {id_: item for id_, item in items if id_ not in items_by_id}
                items_by_id |= fresh
                if not has_more:
                    return list(items_by_id.values()), asked_at
                if not fresh:
                    break
                cursor = {"starting_after": items[-1][0]}
        except CursorGone:
            continue
    raise UnstableList(
        f"{endpoint_name(path)}: one list changes faster than it can be read. Run again; if it stays, report it."
    )


TEST_CLOCKS = Expandable("test_clocks", "/v1/test_helpers/test_clocks")


def fetch_test_clocks(api: Api) -> list[str]:
    """Fetch the ids of the account's test clocks."""
    return [_with_id.decode(raw).id for raw in fetch_sublist(api, TEST_CLOCKS, "", decode_raw_rows)]


def _decode_child_rows(codec: TableCodec, body: bytes) -> tuple[list[tuple[str, Any]], bool]:
    rows, has_more = codec.decode_rows(body)
    for row in rows:
        if isinstance(row, Rejected):
            raise row
    return [(row.id, row) for row in rows], has_more


def decode_raw_rows(body: bytes) -> tuple[list[tuple[str, Any]], bool]:
    """Return the ids and undecoded objects of a page, and whether there is more."""
    try:
        page = _raws.decode(body)
        return [(_with_id.decode(raw).id, raw) for raw in page.data], page.has_more
    except msgspec.ValidationError:
        raise InvalidBody("no list of objects") from None


def _is_truncated(raw: msgspec.Raw) -> bool:
    try:
        return bytes(raw) != bytes(NULL_RAW) and _truncatable.decode(raw).has_more
    except msgspec.ValidationError:
        return False


def _fetch_raw_sublist(api: Api, expandable: Expandable, parent_id: str) -> msgspec.Raw:
    rows = fetch_sublist(api, expandable, parent_id, decode_raw_rows)
    body = {
        "object": "list",
        "data": rows,
        "has_more": False,
        "url": expandable.path.format(id=parent_id),
    }
    return msgspec.Raw(msgspec.json.encode(body))
