"""The endpoints without a kind of their own: sublists, test clocks, events, webhook endpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import msgspec

from ..protocol.errors import Refusal, missing, required, unknown_parameters
from ..protocol.parameters import Params, Query, query
from ..state.account import Account
from ..state.kinds import KINDS, Kind, Sublist
from ..state.table import Row
from ..world import World
from . import events, expansions, meter_usage, webhook_endpoints
from .lists import envelope, page_of_list


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`answer` takes the account, the path, the id in the path, and the parameters."""

    permission: str
    answer: Callable[[World, str, str, Params], bytes]


def list_children(
    account: Account, path: str, id: str, params: Params, kind: Kind, sublist: Sublist
) -> bytes:
    """The whole sublist of an object, page by page."""
    request = query(params, (sublist.parameter,) if sublist.parameter else ())
    if sublist.parameter:
        id = required_text(params, sublist.parameter)
        row = find_parent(account, kind, id, sublist.parameter, 400)
    else:
        row = find_parent(account, kind, id)
    if sublist.children:
        rows = account.children(kind.name, row)
    else:
        value = expansions.full_value(account, kind.name, row.content(), sublist.field)
        rows = [msgspec.json.encode(element) for element in value]
    if request.expand:
        rows = [expansions.expand_embedded(account, raw, request.expand) for raw in rows]
    return _page(path, rows, request, sublist.object)


def retrieve_child(
    account: Account, path: str, id: str, params: Params, kind: Kind, sublist: Sublist
) -> bytes:
    """One embedded object by its own id."""
    if unknown := [name for name in params if name != "expand"]:
        raise unknown_parameters(unknown)
    parent, _, id = id.rpartition("/")
    if parent:
        find_parent(account, kind, parent)
    quoted = f'"{id}"'.encode()
    for row in account.tables[kind.name].rows.values():
        if quoted in row.raw or row.id in account.all_children:
            for raw in account.children(kind.name, row):
                if quoted in raw and msgspec.json.decode(raw)["id"] == id:
                    return raw
    raise missing(sublist.object, id)


def list_test_clocks(account: Account, path: str, id: str, params: Params) -> bytes:
    request = query(params, ())
    if account.livemode:
        raise Refusal(400, "Test clocks are only available in test mode.")
    newest = sorted(account.clocks.values(), key=lambda clock: -int(clock["created"]))
    return _page(path, [msgspec.json.encode(clock) for clock in newest], request, "test_clock")


def retrieve_test_clock(account: Account, path: str, id: str, params: Params) -> bytes:
    if id not in account.clocks:
        raise missing("test_clock", id)
    return msgspec.json.encode(account.clocks[id])


def is_sampled(account: Account, template: str, kind: Kind, params: Params) -> bool:
    """Whether the list below another object is answered from samples, because its kind has no
    objects of its own in this account.
    """
    parameter = SAMPLED.get(template)
    return (
        parameter is not None
        and not account.has_held(kind.name)
        and (not parameter or parameter in params)
    )


def find_parent(account: Account, kind: Kind, id: str, param: str = "id", status: int = 404) -> Row:
    row = account.tables[kind.name].rows.get(id)
    if row is None:
        raise missing(kind.object, id, param, status)
    return row


def required_text(params: Params, name: str) -> str:
    value = params.get(name)
    if not isinstance(value, str) or not value:
        raise required(name)
    return value


def _page(path: str, rows: list[bytes], request: Query, object: str) -> bytes:
    page, has_more = page_of_list(rows, request, object)
    return envelope(path, page, has_more)


def sublist_endpoints() -> Iterator[tuple[str, Endpoint]]:
    """The endpoints of all sublists. An embedded object whose list has a path of its own can also
    be retrieved.
    """
    for kind in KINDS.values():
        for sublist in kind.sublists:
            permission = sublist.permission or kind.permission
            all_of_it = partial(list_children, kind=kind, sublist=sublist)
            yield sublist.path, Endpoint(permission, all_of_it)
            if sublist.children and (sublist.parameter or sublist.by_id):
                by_id = partial(retrieve_child, kind=kind, sublist=sublist)
                yield f"{sublist.path}/:id", Endpoint(permission, by_id)


ENDPOINTS = dict(sublist_endpoints()) | {
    "/v1/test_helpers/test_clocks": Endpoint("rak_test_clock_read", list_test_clocks),
    "/v1/test_helpers/test_clocks/:id": Endpoint("rak_test_clock_read", retrieve_test_clock),
    "/v1/billing/meters/:id/event_summaries": Endpoint(
        KINDS["meters"].permission, meter_usage.list_event_summaries
    ),
    "/v1/events": Endpoint("rak_event_read", events.list_events),
    "/v1/events/:id": Endpoint("rak_event_read", events.retrieve_event),
    "/v1/webhook_endpoints": Endpoint("rak_webhook_read", webhook_endpoints.list_endpoints),
    "/v1/webhook_endpoints/:id": Endpoint("rak_webhook_read", webhook_endpoints.retrieve_endpoint),
}
SAMPLED = {
    sublist.path: sublist.parameter
    for kind in KINDS.values()
    for sublist in kind.sublists
    if not sublist.children and kind.opt_in.get(sublist.field)
}
"""Path of a list that only comes when expanded -> the parameter that names the parent."""
WRITES = {
    ("POST", "/v1/webhook_endpoints"): Endpoint(
        "rak_webhook_write", webhook_endpoints.create_endpoint
    ),
    ("POST", "/v1/webhook_endpoints/:id"): Endpoint(
        "rak_webhook_write", webhook_endpoints.update_endpoint
    ),
    ("DELETE", "/v1/webhook_endpoints/:id"): Endpoint(
        "rak_webhook_write", webhook_endpoints.delete_endpoint
    ),
}
