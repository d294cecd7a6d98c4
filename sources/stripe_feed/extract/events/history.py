"""The history of one object: order its events, drop duplicates, and derive its changes and its final
state.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby

import msgspec

from ...api.client import API_VERSION
from ...resources.model import Resource, field_names
from ..existing import StoredChange
from ..tables.changes import BeforeQuality, ChangeRow, encode_image
from ..tables.diff import (
    Image,
    align_lists,
    changed_paths,
    normalized_image,
    revert,
    significant_difference,
)
from .classify import ObjectEvent, by_object, kind_of_update, object_events
from .ordering import ABSENT, Transition, is_cycle, order_transitions, reachable, unique_start
from .reader import Event, EventData, EventRequest

# a doubtful creation that comes later after the object's own time is none
MOST_SECONDS_TO_CREATE = 60
_image = msgspec.json.Decoder(dict)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_sorted = msgspec.json.Encoder(order="sorted")


def events_of_stored_change(row: StoredChange, resource: Resource) -> list[ObjectEvent]:
    """Rebuild the object events of a stored change. For a deletion the stored content is not the
    event's own.
    """
    stub = msgspec.json.encode({"id": row.object_id, "object": resource.object, "deleted": True})
    data = EventData(
        msgspec.Raw(row.after or stub), msgspec.Raw(b"" if row.op == "d" else row.previous or b"")
    )
    event = Event(row.event_id or "", row.event_type or "", row.occurred_at, data, row.api_version)
    entries = object_events(event, by_object([resource]))
    for entry in entries:
        entry.id = row.object_id
        entry.seen = entry.from_copy = True
        if row.op == "c":
            entry.kind = "created"
        elif entry.kind == "created":
            entry.kind = kind_of_update(event)
    return entries


def same_schema(resource: Resource, version: str | None, pin: str) -> bool:
    """Whether objects of an API version have the fields of the pinned version, children included."""
    if version is None or version == pin or not resource.schema_since:
        return version == pin
    return all(resource.schema_since <= each[:10] <= API_VERSION[:10] for each in (version, pin))


@dataclass(frozen=True, slots=True)
class BaseState:
    """The state of an object before its events, and the API version of its schema. If it was built
    from a row it is not `complete`: it has only the documented fields, and its lists have no order.
    """

    image: Image
    api_version: str | None
    complete: bool = True


def order_events(
    history: Sequence[ObjectEvent], base: BaseState | None = None, looked_up: bool = False
) -> list[ObjectEvent]:
    """Return the events of one object in the order in which they happened, without duplicates.

    `history`: oldest second first, within a second in reverse of Stripe's order. `looked_up`: the
    state before was looked up, so without `base` the object did not exist.
    """
    ordered: list[ObjectEvent] = []
    last: ObjectEvent | None = None
    history = _with_one_creation(history, base)
    groups = [list(group) for _, group in groupby(history, key=lambda entry: entry.event.created)]
    for group, following in zip(groups, [*groups[1:], []], strict=True):
        second, sure = _without_repeated_creations(group), True
        if len(second) > 1:
            before, next_state = _hash_before(last, second, base, looked_up), _hash_after(following)
            if (
                ordered and not ordered[-1].certain
            ):  # the end of that second, and so the start of this one, is a guess
                sure = _order_second(second, None, next_state)[1]
            second, group_sure = _order_second(second, before, next_state)
            sure = sure and group_sure
        ordered += [
            msgspec.structs.replace(entry, position=n, certain=sure)
            for n, entry in enumerate(second, 1)
        ]
        last = second[-1]
    return ordered


def _with_one_creation(
    history: Sequence[ObjectEvent], base: BaseState | None
) -> Sequence[ObjectEvent]:
    """Of the events of one object that may have created it, let the first be its creation and the
    others updates; all of them if it was there before, or is too old to be new.
    """
    if not history or len(history[0].resource.created_by) < 2:
        return history
    precedence = history[0].resource.created_by
    candidates = sorted(
        (entry for entry in history if entry.kind == "created"),
        key=lambda entry: (entry.event.created, precedence.index(entry.event.type)),
    )
    first = candidates[0] if candidates else None
    is_new = (
        first is not None
        and base is None
        and first.event.created == history[0].event.created
        and first.event.created - (first.created or 0) <= MOST_SECONDS_TO_CREATE
    )
    return [
        msgspec.structs.replace(entry, kind=kind_of_update(entry.event))
        if entry.kind == "created" and not (is_new and entry is first)
        else entry
        for entry in history
    ]


def _without_repeated_creations(second: list[ObjectEvent]) -> list[ObjectEvent]:
    """Drop repeated creations of objects whose ids Stripe assigns: each id is created only once."""
    creations = _seen_first(entry for entry in second if entry.kind == "created")
    duplicates = (
        [] if second[0].resource.client_ids else [entry.event.id for entry in creations[1:]]
    )
    return [entry for entry in second if entry.event.id not in duplicates]


def _seen_first(events: Iterable[ObjectEvent]) -> list[ObjectEvent]:
    return sorted(events, key=lambda entry: (not entry.seen, entry.event.id))


def _order_second(
    second: Sequence[ObjectEvent], start: str | None, next_state: str | None
) -> tuple[list[ObjectEvent], bool]:
    deletions = _seen_first(entry for entry in second if entry.kind == "deleted")
    if (
        deletions and not second[0].resource.client_ids
    ):  # an id lives only once: whatever the schemas, the deletion was last
        rest, sure = _order_second(
            [entry for entry in second if entry.kind != "deleted"], start, None
        )
        return [*rest, deletions[0]], sure
    by_event_id = {entry.event.id: entry for entry in second}
    ordered, sure = order_transitions([_transition(entry) for entry in second], start, next_state)
    return [by_event_id[step.id] for step in ordered], sure


def _hash_after(following: Sequence[ObjectEvent]) -> str | None:
    """The hash of the state that the next second begins with, if its events tell."""
    return unique_start([_transition(entry) for entry in following if entry.kind == "updated"])


def _transition(entry: ObjectEvent) -> Transition:
    event = entry.event
    image = _image.decode(event.data.object)
    after = state_hash(entry.resource, image)
    before: str | None = ABSENT
    match entry.kind:
        case "updated":
            before = state_hash(
                entry.resource, revert(image, _image.decode(event.data.previous_attributes))
            )
        case "deleted":
            before, after = None if entry.is_stub else after, ABSENT
        case "status":
            before = None
    return Transition(entry.kind, event.id, event.type, before, after, entry.seen)


def _hash_before(
    last: ObjectEvent | None, second: Sequence[ObjectEvent], base: BaseState | None, looked_up: bool
) -> str | None:
    if last is not None and last.kind == "deleted":
        return ABSENT
    before = base if last is None else state_after(last)
    if before is None:
        return ABSENT if looked_up and last is None else None
    if not same_api_shape(second[0], before):
        return _hash_of_matching_before(second, before.image, require_all=True)
    if before.complete:
        return state_hash(second[0].resource, before.image)
    return _hash_of_matching_before(second, before.image) or _hash_of_deleted(second, before.image)


def same_api_shape(entry: ObjectEvent, base: BaseState) -> bool:
    """Whether a base state has the schema of an event's object."""
    version = entry.event.api_version
    return base.api_version == version or same_schema(
        entry.resource, version, base.api_version or ""
    )


def _hash_of_matching_before(
    second: Sequence[ObjectEvent], stored: Image, require_all: bool = False
) -> str | None:
    """The hash of the single event's before-state that agrees with the stored object in every
    changed non-list field; None if there is no such event or several. `require_all`: the stored
    object must have all of these fields, which one of another schema may not.
    """
    lists = {child.field for child in second[0].resource.children}
    updates = [
        (entry, _image.decode(entry.event.data.previous_attributes))
        for entry in second
        if entry.kind == "updated"
    ]
    names = {name for _, previous in updates for name in previous} - lists
    if not names or (require_all and not names <= stored.keys()):
        return None
    befores = [
        revert(_image.decode(entry.event.data.object), previous) for entry, previous in updates
    ]
    wanted = _selected(stored, names)
    candidates = {
        state_hash(second[0].resource, before)
        for before in befores
        if _selected(before, names) == wanted
    } - _recreated_states(second)
    return candidates.pop() if len(candidates) == 1 else None


def _selected(image: Image, names: Collection[str]) -> Image:
    return normalized_image({name: image.get(name) for name in names})


def _recreated_states(second: Sequence[ObjectEvent]) -> set[str]:
    """The states that follow a creation within the second."""
    steps = [_transition(entry) for entry in second if entry.kind in ("created", "updated")]
    return {
        state for step in steps if step.kind == "created" for state in reachable(steps, step.after)
    }


def _hash_of_deleted(second: Sequence[ObjectEvent], stored: Image) -> str | None:
    """The hash of the state that is deleted first, if no update comes before the deletion."""
    recreated = _recreated_states(second)
    if any(
        _transition(entry).before not in recreated for entry in second if entry.kind == "updated"
    ):
        return None
    deletion = next((entry for entry in second if entry.kind == "deleted"), None)
    if deletion is None:
        return None
    return state_hash(
        deletion.resource, stored if deletion.is_stub else _image.decode(deletion.event.data.object)
    )


def state_hash(resource: Resource, image: Image) -> str:
    """Equal for states that do not differ significantly."""
    left_out = {*resource.volatile, *resource.bearer_links, *resource.excluded}
    content = normalized_image(
        {name: value for name, value in image.items() if name not in left_out}
    )
    return blake2b(_sorted.encode(content), digest_size=16).hexdigest()


def needs_base_state(history: Sequence[ObjectEvent]) -> bool:
    """Whether the state before the first events must be looked up: they do not tell it, or not the
    order in which they came.

    `history` as for `order_events`.
    """
    first = [entry for entry in history if entry.event.created == history[0].event.created]
    if len(history[0].resource.created_by) != 1:
        return True  # only that tells whether the object is new
    if any(entry.kind == "created" for entry in first):
        return any(entry.kind == "deleted" for entry in first)
    updates = [entry for entry in first if entry.kind == "updated"]
    if not updates:
        return any(
            (entry.kind == "status") != entry.is_stub
            for entry in first
            if entry.kind != "updated" and not entry.seen
        )
    return len(first) > 1 and is_cycle([_transition(entry) for entry in updates])


def state_after(last: ObjectEvent) -> BaseState | None:
    """The state that an event leaves; None after a deletion."""
    if last.kind == "deleted":
        return None
    return BaseState(_image.decode(last.event.data.object), last.event.api_version)


def changes_for(
    history: Sequence[ObjectEvent], base: BaseState | None, pin: str, compared: int = 0
) -> list[ChangeRow]:
    """The changes of one object that are not stored yet. A change is late if a stored one follows
    it, or if the object was compared with Stripe after it, in the second `compared`.
    """
    changes: list[ChangeRow] = []
    last_seen = max((n for n, entry in enumerate(history) if entry.seen), default=-1)
    previous: ObjectEvent | None = None
    for n, entry in enumerate(history):
        if not entry.seen:
            before = base if previous is None else state_after(previous)
            late = n < last_seen or entry.event.created < compared
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


def initial_state(history: Sequence[ObjectEvent]) -> tuple[bool, Image | None]:
    """Whether the first event tells the state before it, and that state; None before a creation."""
    first = history[0]
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


def final_object(history: Sequence[ObjectEvent], pin: str) -> bytes | None:
    """The object's final content, from its last event or the one before a bare deletion; None if
    its schema is another one, or if the last event is uncertain.
    """
    last = history[-1]
    if last.from_copy or (not last.certain and last.kind != "deleted"):
        return None
    if last.kind == "deleted" and last.is_stub:
        if len(history) == 1:
            return None
        last = history[-2]
    if last.is_stub or not same_schema(last.resource, last.event.api_version, pin):
        return None
    return bytes(last.event.data.object)
