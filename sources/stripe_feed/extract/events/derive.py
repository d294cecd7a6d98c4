"""Events of an object in their order -> its changes, and where it stands after them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from ...resources.model import Resource, fields
from ..tables.changes import Change, Quality, encoded
from ..tables.diff import Image, difference_that_counts, paths, revert, with_lists_of
from .classify import Told
from .history import Known, Ordered, comparable, known_after, same_shape
from .reader import Request

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_image = msgspec.json.Decoder(dict)


def changes_of(
    history: Sequence[Ordered], known: Known | None, pin: str, compared: int = 0
) -> list[Change]:
    """The changes of one object that were not seen before: late where a seen one came after it, or
    a comparison with Stripe did, in the second `compared`.
    """
    found: list[Change] = []
    last_seen = max((n for n, one in enumerate(history) if one.told.seen), default=-1)
    at: Told | None = None
    for n, one in enumerate(history):
        if not one.told.seen:
            before = known if at is None else known_after(at)
            found.append(
                _change(one.told, before, pin, n < last_seen or one.told.event.created < compared)
            )
        at = one.told
    return found


def _change(one: Told, known: Known | None, pin: str, late: bool) -> Change:
    event, resource = one.event, one.resource
    request = event.request if isinstance(event.request, Request) else Request(event.request)
    change = Change(
        event.id,
        resource.table,
        one.id,
        "u",
        "event",
        event.created,
        None,
        customer_id=one.customer,
        event_id=event.id,
        event_type=event.type,
        api_version=event.api_version,
        request_id=request.id,
        request_idempotency_key=request.idempotency_key,
        context=event.context,
        late=late,
    )
    match one.role:
        case "begins":
            change.op, change.after, change.before_quality = (
                "c",
                _without_links(one, event.data.object),
                "exact",
            )
        case "ends":
            change.op = "d"
            _tell_end(change, one, known)
        case "moves":
            change.after = _without_links(one, event.data.object)
            _tell_move(change, one, pin)
        case "says":
            change.after = _without_links(one, event.data.object)
            _tell_said(change, one, known)
    return change


def _tell_end(change: Change, one: Told, known: Known | None) -> None:
    if not one.stub:
        change.previous, change.before_quality = _without_links(one, one.event.data.object), "exact"
    elif known is not None:
        change.previous, change.before_quality = encoded(one.resource, known.image), "exact"
        customer = known.image.get("customer")
        change.customer_id = change.customer_id or (customer if isinstance(customer, str) else None)


def _tell_move(change: Change, one: Told, pin: str) -> None:
    raw = one.event.data.previous_attributes
    previous: Image = _image.decode(raw)
    change.previous = _without_links(one, raw)
    change.changed = [path for path in paths(previous) if path not in one.resource.links]
    change.before_quality = _quality(one, previous, pin)


def _quality(one: Told, previous: Image, pin: str) -> Quality:
    if not same_shape(one.resource, one.event.api_version, pin):
        return "derived"
    known = _names(one.resource)
    for name, old in previous.items():
        if (old is None and name not in known) or (
            name in one.resource.free_form and isinstance(old, dict)
        ):
            return "derived"
    return "exact"


def _tell_said(change: Change, one: Told, known: Known | None) -> None:
    if known is None or not comparable(one, known):
        return
    after = _image.decode(one.event.data.object)
    left_out = {*one.resource.volatile, *one.resource.links, *one.resource.never}
    before = known.image
    if not known.whole:
        before = with_lists_of(before, after, [child.field for child in one.resource.children])
        left_out |= {name for name in after if name not in before}
    previous = {
        name: old
        for name, old in difference_that_counts(before, after).items()
        if name not in left_out
    }
    change.previous, change.changed, change.before_quality = (
        msgspec.json.encode(previous),
        paths(previous),
        "exact",
    )


def _names(resource: Resource) -> Collection[str]:
    if resource.table not in _NAMES:
        _NAMES[resource.table] = frozenset(fields(resource))
    return _NAMES[resource.table]


_NAMES: dict[str, frozenset[str]] = {}


def _without_links(one: Told, raw: msgspec.Raw) -> bytes:
    """The event's own bytes, but for links that are open to whoever holds them."""
    left_out = (*one.resource.links, *one.resource.never)
    body = bytes(raw)
    if not any(name.encode() in body for name in left_out):
        return body
    kept = _fields.decode(body)
    for name in left_out:
        kept.pop(name, None)
    return msgspec.json.encode(kept)


def body_before(history: Sequence[Ordered]) -> tuple[bool, Image | None]:
    """Whether the first event tells what was before it, and the image; none before a creation."""
    one = history[0].told
    match one.role:
        case "begins":
            return True, None
        case "moves":
            after = _image.decode(one.event.data.object)
            return True, revert(after, _image.decode(one.event.data.previous_attributes))
        case "ends":
            return not one.stub, None if one.stub else _image.decode(one.event.data.object)
        case _:
            return False, None


def body_of(history: Sequence[Ordered], pin: str) -> bytes | None:
    """The object's last content, from its last event or the one before a bare deletion; nothing
    where its shape is another, or where it cannot be told which event was the last.
    """
    last = history[-1].told
    if last.held or (not history[-1].sure and last.role != "ends"):
        return None
    if last.role == "ends" and last.stub:
        if len(history) == 1:
            return None
        last = history[-2].told
    if last.stub or not same_shape(last.resource, last.event.api_version, pin):
        return None
    return bytes(last.event.data.object)
