"""`GET /v1/events` and `GET /v1/events/:id`: what the history shows of itself, page by page."""

from __future__ import annotations

from collections.abc import Callable

from ..protocol.errors import Refusal, missing, not_expandable, unknown_parameters
from ..protocol.parameters import Params, Query, boolean, query
from ..state.event_log import Event
from ..world import World
from .lists import envelope, take

FILTERS = frozenset({"created", "type", "types", "delivery_success"})
MOST_TYPES = 20
EventCondition = Callable[[Event], bool]


def list_events(account: World, path: str, id: str, params: Params) -> bytes:
    asked = query(params, FILTERS)
    if asked.expand:
        raise not_expandable(asked.expand[0])
    found, has_more = page_of_events(account, asked)
    turn = -1 if asked.before else 1  # the rows next to the cursor stay
    found = account.faults.shorten_page(found[::turn], has_more)[::turn]
    return envelope(path, [shown(account, event) for event in found], has_more)


def retrieve_event(account: World, path: str, id: str, params: Params) -> bytes:
    if strange := [name for name in params if name != "expand"]:
        raise unknown_parameters(strange)
    event = account.event_log.get(id)
    if event is None:
        raise missing("event", id)
    return shown(account, event)


def shown(account: World, event: Event) -> bytes:
    """An event with the number of endpoints that have not taken it yet."""
    count = len(account.webhooks.sender.pending.get(event.id, ()))
    if not count:
        return event.body
    head, name, tail = event.body.rpartition(b'"pending_webhooks":')
    return head + name + str(count).encode() + tail[1:]


def page_of_events(account: World, asked: Query) -> tuple[list[Event], bool]:
    """The events of one page, newest first, and whether there are more in its direction."""
    history, match = account.event_log, event_condition(account, asked.filters)
    first, last = history.span(asked.created.lo, asked.created.hi)
    if asked.before:
        first = max(
            first, history.position(cursor_event(account, asked.before, "ending_before")) + 1
        )
        found = take(history.newer(first, last), match, asked.limit + 1)
        return found[: asked.limit][::-1], len(found) > asked.limit
    if asked.after:
        last = min(last, history.position(cursor_event(account, asked.after, "starting_after")))
    found = take(history.older(first, last), match, asked.limit + 1)
    return found[: asked.limit], len(found) > asked.limit


def cursor_event(account: World, id: str, param: str) -> Event:
    """The event a page starts from; one that is too old is as unknown as any other."""
    event = account.event_log.get(id)
    if event is None:
        raise missing("event", id, param, 400)
    return event


def event_condition(account: World, filters: Params) -> EventCondition | None:
    match = _type_condition(filters)
    if "delivery_success" not in filters:
        return match
    reached, pending = (
        boolean("delivery_success", filters["delivery_success"]),
        account.webhooks.sender.pending,
    )
    return lambda event: (event.id not in pending) == reached and (match is None or match(event))


def _type_condition(filters: Params) -> EventCondition | None:
    if "type" in filters and "types" in filters:
        raise Refusal(
            400, "You may only specify one of these parameters: type, types.", param="types"
        )
    if "types" in filters:
        return _one_of(filters["types"])
    return _matches_pattern(filters["type"]) if "type" in filters else None


def _one_of(types: object) -> EventCondition:
    if not isinstance(types, list):
        raise Refusal(400, "Invalid array", param="types")
    if len(types) > MOST_TYPES:
        raise Refusal(400, f"You may only specify up to {MOST_TYPES} event types.", param="types")
    if any("*" in type for type in types):
        raise Refusal(400, "Wildcards are only available in `type`, not in `types`.", param="types")
    wanted = frozenset(types)
    return lambda event: event.type in wanted


def _matches_pattern(type: object) -> EventCondition:
    """`customer.*` is what begins with `customer.`, thus `customer.subscription.created` as well."""
    if not isinstance(type, str):
        raise Refusal(400, f"Invalid string: {type}", param="type")
    head, star, tail = type.partition("*")
    if not star:
        return lambda event: event.type == type
    if "*" in tail:
        raise Refusal(
            400, f"Invalid event type: {type}. Only one wildcard is allowed.", param="type"
        )
    least = len(head) + len(tail)
    return lambda event: (
        len(event.type) >= least and event.type.startswith(head) and event.type.endswith(tail)
    )
