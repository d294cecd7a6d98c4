"""What an event tells: of which object, and in which role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from ...api.client import Api
from ...resources.model import Resource
from ..tables.rejected import read, usable_id
from .ordering import Role
from .reader import Event, OddEvent, oldest_first

DISCOUNT = "discount"


class _Head(msgspec.Struct, gc=False):
    object: str | None = None
    id: msgspec.Raw = msgspec.Raw(b"null")
    created: msgspec.Raw = msgspec.Raw(b"null")
    customer: msgspec.Raw = msgspec.Raw(b"null")
    subscription: msgspec.Raw = msgspec.Raw(b"null")
    test_clock: msgspec.Raw = msgspec.Raw(b"null")
    deleted: msgspec.Raw = msgspec.Raw(b"false")


class _Ref(msgspec.Struct, gc=False):
    id: str


_head = msgspec.json.Decoder(_Head)
_id = msgspec.json.Decoder(str | _Ref | None)


class Told(msgspec.Struct, gc=False):
    """An event about one object. `held`: made of what the copy holds of it, without links; it was
    seen.
    """

    event: Event
    resource: Resource
    id: str
    role: Role
    stub: bool
    created: int | None = None
    customer: str | None = None
    clock: bool = False
    seen: bool = False
    held: bool = False


def told(event: Event, resources: Mapping[str, Resource]) -> list[Told]:
    """What an event tells of the objects that are read, by Stripe's name for one: none of
    sub-objects and previews.

    A discount is told of its customer and its subscription: what they are then must be read.
    """
    try:
        head = _head.decode(event.data.object)
    except msgspec.ValidationError:
        return []
    if head.object == DISCOUNT:
        owners = (("customer", head.customer), ("subscription", head.subscription))
        found = [
            (resources[name], id) for name, raw in owners if name in resources and (id := _ref(raw))
        ]
        return [Told(event, resource, id, "says", True) for resource, id in found]
    resource, id = resources.get(head.object or ""), usable_id(read(head.id, str))
    if resource is None or id is None or event.type not in resource.events:
        return []
    customer = id if resource.object == "customer" else _ref(head.customer)
    clock = bytes(head.test_clock) != b"null"
    created = read(head.created, int)
    stub = bytes(head.deleted) == b"true" and created is None
    return [Told(event, resource, id, _role(event, resource), stub, created, customer, clock)]


def is_odd(event: Event, resources: Mapping[str, Resource]) -> bool:
    """Whether an event that tells of nothing should tell of one of these resources."""
    try:
        name = _head.decode(event.data.object).object
    except msgspec.ValidationError:
        name = None
    concerned = [
        resource.object for resource in resources.values() if event.type in resource.events
    ]
    return (isinstance(event, OddEvent) and not event.type) or (
        bool(concerned) and name in (None, *concerned)
    )


def _ref(raw: msgspec.Raw) -> str | None:
    try:
        found = _id.decode(raw)
    except msgspec.ValidationError:
        return None
    return found.id if isinstance(found, _Ref) else found


def _role(event: Event, resource: Resource) -> Role:
    if event.type == resource.deleted_by:
        return "ends"
    if event.type == resource.events[0]:
        return "begins"
    return "moves" if bytes(event.data.previous_attributes).startswith(b"{") else "says"


def is_discount(one: Told) -> bool:
    """Whether it only says that the object's discount changed."""
    return one.stub and one.role == "says"


def objects_told(api: Api, resource: Resource, since: int) -> Iterator[set[str]]:
    """The ids of the objects that events tell of from a second on, unsettled ones included, page by
    page.
    """
    names = {resource.object: resource}
    for some in oldest_first(api, resource.events, since, api.now() + 1):
        yield {one.id for event in some for one in told(event, names)}
