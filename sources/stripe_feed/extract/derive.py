"""Events of an object -> its changes, in causal order, and where it stands after them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby

import msgspec

from ..api import API_VERSION
from ..resources import Resource, fields
from .changes import Change, Quality, encoded
from .events import Request
from .images import Image, counted, difference, paths, revert, with_lists_of
from .order import NOTHING, Step, in_order, is_round, reached, start_of
from .told import Told

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_image = msgspec.json.Decoder(dict)
_sorted = msgspec.json.Encoder(order="sorted")


def same_shape(resource: Resource, version: str | None, pin: str) -> bool:
    """Whether snapshots of an API version have the field set of the pinned one, children included."""
    if version is None or version == pin:
        return version == pin
    return all(resource.same_since <= one[:10] <= API_VERSION[:10] for one in (version, pin))


@dataclass(frozen=True, slots=True)
class Known:
    """An image of an object before its events, and the API version whose shape it has. One that was made of a row is not
    `whole`: it has the documented fields, and its lists have no order."""

    image: Image
    api_version: str | None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Ordered:
    """An event in its place: the `number`th of its object in its second, from 1. `sure`: no other order would do."""

    told: Told
    number: int
    sure: bool = True


def sequence(history: Sequence[Told], known: Known | None = None, looked: bool = False) -> list[Ordered]:
    """The events of one object, oldest first in Stripe's order reversed, in the order in which they happened, without twins.

    `looked`: what was before was looked up, so that without `known` there was nothing.
    """
    found: list[Ordered] = []
    at: Told | None = None
    groups = [list(group) for _, group in groupby(history, key=lambda one: one.event.created)]
    for group, following in zip(groups, [*groups[1:], []], strict=True):
        some, sure = _born_once(group), True
        if len(some) > 1:
            some, sure = _in_order(some, _key_before(at, some, known, looked), _key_then(following))
        found += [Ordered(one, n, sure) for n, one in enumerate(some, 1)]
        at = some[-1]
    return found


def _born_once(some: list[Told]) -> list[Told]:
    """Without the twins of a creation, where Stripe gives out ids, and so each only once."""
    births = sorted((one for one in some if one.role == "begins"), key=lambda one: (not one.seen, one.event.id))
    twins = [] if some[0].resource.own_ids else [one.event.id for one in births[1:]]
    return [one for one in some if one.event.id not in twins]


def _in_order(some: Sequence[Told], known: str | None, then: str | None) -> tuple[list[Told], bool]:
    ends = sorted((one for one in some if one.role == "ends"), key=lambda one: (not one.seen, one.event.id))
    if ends and not some[0].resource.own_ids:        # the only life of its id: whatever the shapes, that was the last
        rest, sure = _in_order([one for one in some if one.role != "ends"], known, None)
        return [*rest, ends[0]], sure
    where = {one.event.id: one for one in some}
    line, sure = in_order([_step(one) for one in some], known, then)
    return [where[step.id] for step in line], sure


def _key_then(following: Sequence[Told]) -> str | None:
    """The image that the next second begins with, where its events tell."""
    return start_of([_step(one) for one in following if one.role == "moves"])


def _step(one: Told) -> Step:
    event = one.event
    image = _image.decode(event.data.object)
    at = key(one.resource, image)
    before: str | None = NOTHING
    match one.role:
        case "moves":
            before = key(one.resource, revert(image, _image.decode(event.data.previous_attributes)))
        case "ends":
            before, at = None if one.stub else at, NOTHING
        case "says":
            before = None
    return Step(one.role, event.id, event.type, before, at, one.seen)


def _key_before(at: Told | None, some: Sequence[Told], known: Known | None, looked: bool) -> str | None:
    if at is not None and at.role == "ends":
        return NOTHING
    before = known if at is None else _known_after(at)
    if before is None:
        return NOTHING if looked and at is None else None
    if not _comparable(some[0], before):
        return _key_like(some, before.image, all_told=True)
    if before.whole:
        return key(some[0].resource, before.image)
    return _key_like(some, before.image) or _key_of_end(some, before.image)


def _comparable(one: Told, known: Known) -> bool:
    """Whether an image has the shape of an event's snapshot."""
    version = one.event.api_version
    return known.api_version == version or same_shape(one.resource, version, known.api_version or "")


def _key_like(some: Sequence[Told], held: Image, all_told: bool = False) -> str | None:
    """The key of the one image before an event that is like the one held, in all that they change but lists; `all_told`: only
    where that one tells of all of it, as one of another shape may not."""
    lists = {child.field for child in some[0].resource.children}
    moves = [(one, _image.decode(one.event.data.previous_attributes)) for one in some if one.role == "moves"]
    names = {name for _, previous in moves for name in previous} - lists
    if not names or (all_told and not names <= held.keys()):
        return None
    befores = [revert(_image.decode(one.event.data.object), previous) for one, previous in moves]
    at = _told_of(held, names)
    like = {key(some[0].resource, before) for before in befores if _told_of(before, names) == at} - _next_life(some)
    return like.pop() if len(like) == 1 else None


def _told_of(image: Image, names: Collection[str]) -> Image:
    return counted({name: image.get(name) for name in names})


def _next_life(some: Sequence[Told]) -> set[str]:
    """The images that a creation leads to."""
    steps = [_step(one) for one in some if one.role in ("begins", "moves")]
    return {image for step in steps if step.role == "begins" for image in reached(steps, step.after)}


def _key_of_end(some: Sequence[Told], held: Image) -> str | None:
    """The key of the image that is deleted first, where nothing moves before that."""
    again = _next_life(some)
    if any(_step(one).before not in again for one in some if one.role == "moves"):
        return None
    end = next((one for one in some if one.role == "ends"), None)
    if end is None:
        return None
    return key(end.resource, held if end.stub else _image.decode(end.event.data.object))


def key(resource: Resource, image: Image) -> str:
    """Equal for images that differ in nothing that counts."""
    left_out = {*resource.volatile, *resource.links, *resource.never}
    content = counted({name: value for name, value in image.items() if name not in left_out})
    return blake2b(_sorted.encode(content), digest_size=16).hexdigest()


def needs_known(history: Sequence[Told]) -> bool:
    """Whether the image before the first events must be looked up: where these do not tell it, or not in which order they came.

    `history` as for `sequence`.
    """
    first = [one for one in history if one.event.created == history[0].event.created]
    if any(one.role == "begins" for one in first):
        return any(one.role == "ends" for one in first)
    moves = [one for one in first if one.role == "moves"]
    if not moves:
        return any((one.role == "says") != one.stub for one in first if one.role != "moves" and not one.seen)
    return len(first) > 1 and is_round([_step(one) for one in moves])


def changes_of(history: Sequence[Ordered], known: Known | None, pin: str) -> list[Change]:
    """The changes of one object that were not seen before; what came after a seen one is late otherwise."""
    found: list[Change] = []
    last_seen = max((n for n, one in enumerate(history) if one.told.seen), default=-1)
    at: Told | None = None
    for n, one in enumerate(history):
        if not one.told.seen:
            before = known if at is None else _known_after(at)
            found.append(_change(one.told, before, pin, n < last_seen))
        at = one.told
    return found


def _known_after(at: Told) -> Known | None:
    if at.role == "ends":
        return None
    return Known(_image.decode(at.event.data.object), at.event.api_version)


def _change(one: Told, known: Known | None, pin: str, late: bool) -> Change:
    event, resource = one.event, one.resource
    request = event.request if isinstance(event.request, Request) else Request(event.request)
    change = Change(
        event.id, resource.table, one.id, "u", "event", event.created, None, customer_id=one.customer, event_id=event.id,
        event_type=event.type, api_version=event.api_version, request_id=request.id,
        request_idempotency_key=request.idempotency_key, context=event.context, late=late,
    )
    match one.role:
        case "begins":
            change.op, change.after, change.before_quality = "c", _without_links(one, event.data.object), "exact"
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
        if (old is None and name not in known) or (name in one.resource.free_form and isinstance(old, dict)):
            return "derived"
    return "exact"


def _tell_said(change: Change, one: Told, known: Known | None) -> None:
    if known is None or not _comparable(one, known):
        return
    after = _image.decode(one.event.data.object)
    left_out = {*one.resource.volatile, *one.resource.links, *one.resource.never}
    before = known.image
    if not known.whole:
        before = with_lists_of(before, after, [child.field for child in one.resource.children])
        left_out |= {name for name in after if name not in before}
    changed = difference(counted(before), counted(after)).keys() - left_out
    previous = {name: old for name, old in difference(before, after).items() if name in changed}
    change.previous, change.changed, change.before_quality = msgspec.json.encode(previous), paths(previous), "exact"


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
    """The object's last content, from its last event or the one before a bare deletion; nothing where its shape is another, or
    where it cannot be told which event was the last."""
    last = history[-1].told
    if not history[-1].sure and last.role != "ends":
        return None
    if last.role == "ends" and last.stub:
        if len(history) == 1:
            return None
        last = history[-2].told
    if last.stub or not same_shape(last.resource, last.event.api_version, pin):
        return None
    return bytes(last.event.data.object)
