"""The events of one object, second by second in the order in which they happened, without twins."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby

import msgspec

from ...api.client import API_VERSION
from ...resources.model import Resource
from ..existing import Before
from ..tables.diff import Image, counted, revert
from .classify import Told, told
from .ordering import NOTHING, Step, in_order, is_round, reached, start_of
from .reader import Data, Event

_image = msgspec.json.Decoder(dict)
_sorted = msgspec.json.Encoder(order="sorted")


def held(row: Before, resource: Resource) -> list[Told]:
    """An event as what the copy holds of it tells. Of a deletion that is not the content that it
    had itself.
    """
    stub = msgspec.json.encode({"id": row.object_id, "object": resource.object, "deleted": True})
    data = Data(
        msgspec.Raw(row.after or stub), msgspec.Raw(b"" if row.op == "d" else row.previous or b"")
    )
    event = Event(row.event_id or "", row.event_type or "", row.occurred_at, data, row.api_version)
    found = told(event, {resource.object: resource})
    for one in found:
        one.seen = one.held = True
    return found


def same_shape(resource: Resource, version: str | None, pin: str) -> bool:
    """Whether snapshots of an API version have the field set of the pinned one, children included."""
    if version is None or version == pin:
        return version == pin
    return all(resource.same_since <= one[:10] <= API_VERSION[:10] for one in (version, pin))


@dataclass(frozen=True, slots=True)
class Known:
    """An image of an object before its events, and the API version whose shape it has. One that was
    made of a row is not `whole`: it has the documented fields, and its lists have no order.
    """

    image: Image
    api_version: str | None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Ordered:
    """An event in its place: the `number`th of its object in its second, from 1. `sure`: no other
    order would do.
    """

    told: Told
    number: int
    sure: bool = True


def sequence(
    history: Sequence[Told], known: Known | None = None, looked: bool = False
) -> list[Ordered]:
    """The events of one object, oldest first in Stripe's order reversed, in the order in which they
    happened, without twins.

    `looked`: what was before was looked up, so that without `known` there was nothing.
    """
    found: list[Ordered] = []
    at: Told | None = None
    groups = [list(group) for _, group in groupby(history, key=lambda one: one.event.created)]
    for group, following in zip(groups, [*groups[1:], []], strict=True):
        some, sure = _born_once(group), True
        if len(some) > 1:
            before, then = _key_before(at, some, known, looked), _key_then(following)
            if (
                found and not found[-1].sure
            ):  # where that second ended, and so this one began, is a guess
                sure = _in_order(some, None, then)[1]
            some, told = _in_order(some, before, then)
            sure = sure and told
        found += [Ordered(one, n, sure) for n, one in enumerate(some, 1)]
        at = some[-1]
    return found


def _born_once(some: list[Told]) -> list[Told]:
    """Without the twins of a creation, where Stripe gives out ids, and so each only once."""
    births = _seen_first(one for one in some if one.role == "begins")
    twins = [] if some[0].resource.own_ids else [one.event.id for one in births[1:]]
    return [one for one in some if one.event.id not in twins]


def _seen_first(some: Iterable[Told]) -> list[Told]:
    return sorted(some, key=lambda one: (not one.seen, one.event.id))


def _in_order(some: Sequence[Told], known: str | None, then: str | None) -> tuple[list[Told], bool]:
    ends = _seen_first(one for one in some if one.role == "ends")
    if (
        ends and not some[0].resource.own_ids
    ):  # the only life of its id: whatever the shapes, that was the last
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


def _key_before(
    at: Told | None, some: Sequence[Told], known: Known | None, looked: bool
) -> str | None:
    if at is not None and at.role == "ends":
        return NOTHING
    before = known if at is None else known_after(at)
    if before is None:
        return NOTHING if looked and at is None else None
    if not comparable(some[0], before):
        return _key_like(some, before.image, all_told=True)
    if before.whole:
        return key(some[0].resource, before.image)
    return _key_like(some, before.image) or _key_of_end(some, before.image)


def comparable(one: Told, known: Known) -> bool:
    """Whether an image has the shape of an event's snapshot."""
    version = one.event.api_version
    return known.api_version == version or same_shape(
        one.resource, version, known.api_version or ""
    )


def _key_like(some: Sequence[Told], held: Image, all_told: bool = False) -> str | None:
    """The key of the one image before an event that is like the one held, in all that they change
    but lists; `all_told`: only where that one tells of all of it, as one of another shape may not.
    """
    lists = {child.field for child in some[0].resource.children}
    moves = [
        (one, _image.decode(one.event.data.previous_attributes))
        for one in some
        if one.role == "moves"
    ]
    names = {name for _, previous in moves for name in previous} - lists
    if not names or (all_told and not names <= held.keys()):
        return None
    befores = [revert(_image.decode(one.event.data.object), previous) for one, previous in moves]
    at = _told_of(held, names)
    like = {
        key(some[0].resource, before) for before in befores if _told_of(before, names) == at
    } - _next_life(some)
    return like.pop() if len(like) == 1 else None


def _told_of(image: Image, names: Collection[str]) -> Image:
    return counted({name: image.get(name) for name in names})


def _next_life(some: Sequence[Told]) -> set[str]:
    """The images that a creation leads to."""
    steps = [_step(one) for one in some if one.role in ("begins", "moves")]
    return {
        image for step in steps if step.role == "begins" for image in reached(steps, step.after)
    }


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
    """Whether the image before the first events must be looked up: where these do not tell it, or
    not in which order they came.

    `history` as for `sequence`.
    """
    first = [one for one in history if one.event.created == history[0].event.created]
    if any(one.role == "begins" for one in first):
        return any(one.role == "ends" for one in first)
    moves = [one for one in first if one.role == "moves"]
    if not moves:
        return any(
            (one.role == "says") != one.stub
            for one in first
            if one.role != "moves" and not one.seen
        )
    return len(first) > 1 and is_round([_step(one) for one in moves])


def known_after(at: Told) -> Known | None:
    """What an event leaves behind."""
    if at.role == "ends":
        return None
    return Known(_image.decode(at.event.data.object), at.event.api_version)
