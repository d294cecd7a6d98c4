"""`GET /v1/events` and `GET /v1/events/:id`."""

from __future__ import annotations

from collections.abc import Callable

from ..protocol.errors import Refusal, missing, not_expandable, unknown_parameters
from ..protocol.parameters import Params, Query, boolean, query
from ..state.event_log import Event
from ..world import World
from .lists import envelope, take

FILTERS = frozenset({"created", "type", "types", "delivery_success"})
MAX_TYPES = 20
EventCondition = Callable[[Event], bool]


def list_events(account: World, path: str, id: str, params: Params) -> bytes:
    request = query(params, FILTERS)
    if request.expand:
        raise not_expandable(request.expand[0])
    page, has_more = page_of_events(account, request)
    direction = -1 if request.before else 1  # a shortened page keeps the rows next to the cursor
    page = account.faults.shorten_page(page[::direction], has_more)[::direction]
    return envelope(path, [event_bytes(account, event) for event in page], has_more)


def retrieve_event(account: World, path: str, id: str, params: Params) -> bytes:
    if unknown := [name for name in params if name != "expand"]:
        raise unknown_parameters(unknown)
    event = account.event_log.get(id)
    if event is None:
        raise missing("event", id)
    return event_bytes(account, event)


def event_bytes(account: World, event: Event) -> bytes:
    """The event with the number of webhook endpoints that have not received it yet."""
    count = len(account.webhooks.sender.pending.get(event.id, ()))
    if not count:
        return event.body
    head, name, tail = event.body.rpartition(b'"pending_webhooks":')
    return head + name + str(count).encode() + tail[1:]


def page_of_events(account: World, request: Query) -> tuple[list[Event], bool]:
    """The events of one page, newest first, and whether there are more in its direction."""
    log, condition = account.event_log, event_condition(account, request.filters)
    first, last = log.span(request.created.lo, request.created.hi)
    if request.before:
        first = max(first, log.position(cursor_event(account, request.before, "ending_before")) + 1)
        events = take(log.newer(first, last), condition, request.limit + 1)
        return events[: request.limit][::-1], len(events) > request.limit
    if request.after:
        last = min(last, log.position(cursor_event(account, request.after, "starting_after")))
    events = take(log.older(first, last), condition, request.limit + 1)
    return events[: request.limit], len(events) > request.limit


def cursor_event(account: World, id: str, param: str) -> Event:
    """The event that a page starts from. An expired event is as unknown as any other."""
    event = account.event_log.get(id)
    if event is None:
        raise missing("event", id, param, 400)
    return event


def event_condition(account: World, filters: Params) -> EventCondition | None:
    by_type = _type_condition(filters)
    if "delivery_success" not in filters:
        return by_type
    delivered, pending = (
        boolean("delivery_success", filters["delivery_success"]),
        account.webhooks.sender.pending,
    )
    return lambda event: (
        (event.id not in pending) == delivered and (by_type is None or by_type(event))
    )


def _type_condition(filters: Params) -> EventCondition | None:
    if "type" in filters and "types" in filters:
        raise Refusal(
            400, "You may only specify one of these parameters: type, types.", param="types"
        )
    if "types" in filters:
        return _is_one_of(filters["types"])
    return _matches_pattern(filters["type"]) if "type" in filters else None


def _is_one_of(types: object) -> EventCondition:
    if not isinstance(types, list):
        raise Refusal(400, "Invalid array", param="types")
    if len(types) > MAX_TYPES:
        raise Refusal(400, f"You may only specify up to {MAX_TYPES} event types.", param="types")
    if any("*" in type for type in types):
        raise Refusal(400, "Wildcards are only available in `type`, not in `types`.", param="types")
    wanted = frozenset(types)
    return lambda event: event.type in wanted


def _matches_pattern(type: object) -> EventCondition:
    """`customer.*` matches all types that begin with `customer.`, so also
    `customer.subscription.created`.
    """
    if not isinstance(type, str):
        raise Refusal(400, f"Invalid string: {type}", param="type")
    head, star, tail = type.partition("*")
    if not star:
        return lambda event: event.type == type
    if "*" in tail:
        raise Refusal(
            400, f"Invalid event type: {type}. Only one wildcard is allowed.", param="type"
        )
    shortest = len(head) + len(tail)
    return lambda event: (
        len(event.type) >= shortest and event.type.startswith(head) and event.type.endswith(tail)
    )
