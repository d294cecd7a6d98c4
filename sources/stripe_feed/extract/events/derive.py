"""Derive the changes of one object, and its final state, from its ordered events."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from ...resources.model import Resource, field_names
from ..tables.changes import BeforeQuality, ChangeRow, encode_image
from ..tables.diff import Image, align_lists, changed_paths, revert, significant_difference
from .classify import ObjectEvent
from .history import BaseState, SequencedEvent, same_api_shape, same_schema, state_after
from .reader import EventRequest

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_image = msgspec.json.Decoder(dict)


def changes_for(
    history: Sequence[SequencedEvent], base: BaseState | None, pin: str, compared: int = 0
) -> list[ChangeRow]:
    """The changes of one object that are not stored yet. A change is late if a stored one follows
    it, or if the object was compared with Stripe after it, in the second `compared`.
    """
    changes: list[ChangeRow] = []
    last_seen = max((n for n, event in enumerate(history) if event.entry.seen), default=-1)
    previous: ObjectEvent | None = None
    for position, sequenced in enumerate(history):
        entry = sequenced.entry
        if not entry.seen:
            before = base if previous is None else state_after(previous)
            late = position < last_seen or entry.event.created < compared
            changes.append(_change(entry, before, pin, late))
        previous = entry
    return changes


def _change(entry: ObjectEvent, base: BaseState | None, pin: str, late: bool) -> ChangeRow:
    event, resource = entry.event, entry.resource
    request = (
        event.request if isinstance(event.request, EventRequest) else EventRequest(event.request)
    )
    change = ChangeRow(
        event.id,
        resource.table,
        entry.id,
        "u",
        "event",
        event.created,
        None,
        customer_id=entry.customer,
        event_id=event.id,
        event_type=event.type,
        api_version=event.api_version,
        request_id=request.id,
        request_idempotency_key=request.idempotency_key,
        context=event.context,
        late=late,
    )
    match entry.kind:
        case "created":
            change.op, change.after, change.before_quality = (
                "c",
                _without_links(entry, event.data.object),
                "exact",
            )
        case "deleted":
            change.op = "d"
            _describe_deletion(change, entry, base)
        case "updated":
            change.after = _without_links(entry, event.data.object)
            _describe_update(change, entry, pin)
        case "status":
            change.after = _without_links(entry, event.data.object)
            _describe_status(change, entry, base)
    return change


def _describe_deletion(change: ChangeRow, entry: ObjectEvent, base: BaseState | None) -> None:
    if not entry.is_stub:
        change.previous, change.before_quality = (
            _without_links(entry, entry.event.data.object),
            "exact",
        )
    elif base is not None:
        change.previous, change.before_quality = encode_image(entry.resource, base.image), "exact"
        customer = base.image.get("customer")
        change.customer_id = change.customer_id or (customer if isinstance(customer, str) else None)


def _describe_update(change: ChangeRow, entry: ObjectEvent, pin: str) -> None:
    raw = entry.event.data.previous_attributes
    previous: Image = _image.decode(raw)
    change.previous = _without_links(entry, raw)
    change.changed = [
        path for path in changed_paths(previous) if path not in entry.resource.bearer_links
    ]
    change.before_quality = _quality(entry, previous, pin)


def _quality(entry: ObjectEvent, previous: Image, pin: str) -> BeforeQuality:
    if not same_schema(entry.resource, entry.event.api_version, pin):
        return "derived"
    documented = _documented(entry.resource)
    for name, old in previous.items():
        if (old is None and name not in documented) or (
            name in entry.resource.map_fields and isinstance(old, dict)
        ):
            return "derived"
    return "exact"


def _describe_status(change: ChangeRow, entry: ObjectEvent, base: BaseState | None) -> None:
    if base is None or not same_api_shape(entry, base):
        return
    after = _image.decode(entry.event.data.object)
    left_out = {*entry.resource.volatile, *entry.resource.bearer_links, *entry.resource.excluded}
    before = base.image
    if not base.complete:
        before = align_lists(before, after, [child.field for child in entry.resource.children])
        left_out |= {name for name in after if name not in before}
    previous = {
        name: old
        for name, old in significant_difference(before, after).items()
        if name not in left_out
    }
    change.previous, change.changed, change.before_quality = (
        msgspec.json.encode(previous),
        changed_paths(previous),
        "exact",
    )


def _documented(resource: Resource) -> Collection[str]:
    if resource.table not in _DOCUMENTED:
        _DOCUMENTED[resource.table] = frozenset(field_names(resource))
    return _DOCUMENTED[resource.table]


_DOCUMENTED: dict[str, frozenset[str]] = {}


def _without_links(entry: ObjectEvent, raw: msgspec.Raw) -> bytes:
    """The event's own bytes without links that grant access to whoever holds them."""
    left_out = (*entry.resource.bearer_links, *entry.resource.excluded)
    body = bytes(raw)
    if not any(name.encode() in body for name in left_out):
        return body
    kept = _fields.decode(body)
    for name in left_out:
        kept.pop(name, None)
    return msgspec.json.encode(kept)


def initial_state(history: Sequence[SequencedEvent]) -> tuple[bool, Image | None]:
    """Whether the first event tells the state before it, and that state; None before a creation."""
    first = history[0].entry
    match first.kind:
        case "created":
            return True, None
        case "updated":
            after = _image.decode(first.event.data.object)
            return True, revert(after, _image.decode(first.event.data.previous_attributes))
        case "deleted":
            return not first.is_stub, None if first.is_stub else _image.decode(
                first.event.data.object
            )
        case _:
            return False, None


def final_object(history: Sequence[SequencedEvent], pin: str) -> bytes | None:
    """The object's final content, from its last event or the one before a bare deletion; None if
    its schema is another one, or if the last event is uncertain.
    """
    last = history[-1].entry
    if last.from_copy or (not history[-1].certain and last.kind != "deleted"):
        return None
    if last.kind == "deleted" and last.is_stub:
        if len(history) == 1:
            return None
        last = history[-2].entry
    if last.is_stub or not same_schema(last.resource, last.event.api_version, pin):
        return None
    return bytes(last.event.data.object)
