"""Find out which objects an event is about, and what kind of change it reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from ...api.client import Api
from ...resources.model import Resource
from ..tables.rejected import decode_or_none, usable_id
from .ordering import Kind
from .reader import Event, MalformedEvent, oldest_first

DISCOUNT = "discount"


class _Head(msgspec.Struct, gc=False):
    object: str | None = None
    id: msgspec.Raw = msgspec.Raw(b"null")
    created: msgspec.Raw = msgspec.Raw(b"null")
    date: msgspec.Raw = msgspec.Raw(b"null")
    customer: msgspec.Raw = msgspec.Raw(b"null")
    subscription: msgspec.Raw = msgspec.Raw(b"null")
    test_clock: msgspec.Raw = msgspec.Raw(b"null")
    deleted: msgspec.Raw = msgspec.Raw(b"false")


class _Ref(msgspec.Struct, gc=False):
    id: str


_head = msgspec.json.Decoder(_Head)
_id = msgspec.json.Decoder(str | _Ref | None)


class ObjectEvent(msgspec.Struct, gc=False):
    """An event about one object. `from_copy`: rebuilt from a stored change, without links. `seen`:
    an earlier run has stored its change. `is_stub`: it does not hold the object's content.
    """

    event: Event
    resource: Resource
    id: str
    kind: Kind
    is_stub: bool
    created: int | None = None
    customer: str | None = None
    on_test_clock: bool = False
    seen: bool = False
    from_copy: bool = False


def object_events(event: Event, resources: Mapping[str, Resource]) -> list[ObjectEvent]:
    """The loaded objects an event is about; `resources` by Stripe's object name.

    Sub-objects and invoice previews give none. A discount event gives its customer and
    subscription, which are then re-read.
    """
    try:
        head = _head.decode(event.data.object)
    except msgspec.ValidationError:
        return []
    if head.object == DISCOUNT:
        owners = (("customer", head.customer), ("subscription", head.subscription))
        owners_present = [
            (resources[name], id) for name, raw in owners if name in resources and (id := _ref(raw))
        ]
        return [ObjectEvent(event, resource, id, "status", True) for resource, id in owners_present]
    resource, id = resources.get(head.object or ""), usable_id(decode_or_none(head.id, str))
    if resource is None or id is None or event.type not in resource.events:
        return []
    customer = id if resource.object == "customer" else _ref(head.customer)
    clock = bytes(head.test_clock) != b"null"
    created = decode_or_none(head.date if resource.created_field == "date" else head.created, int)
    stub = bytes(head.deleted) == b"true" and created is None
    return [
        ObjectEvent(event, resource, id, _kind(event, resource), stub, created, customer, clock)
    ]


def is_malformed(event: Event, resources: Mapping[str, Resource]) -> bool:
    """Whether an event that gives no object event should have given one for these resources."""
    try:
        name = _head.decode(event.data.object).object
    except msgspec.ValidationError:
        name = None
    concerned = [
        resource.object for resource in resources.values() if event.type in resource.events
    ]
    return (isinstance(event, MalformedEvent) and not event.type) or (
        bool(concerned) and name in (None, *concerned)
    )


def _ref(raw: msgspec.Raw) -> str | None:
    try:
        reference = _id.decode(raw)
    except msgspec.ValidationError:
        return None
    return reference.id if isinstance(reference, _Ref) else reference


def _kind(event: Event, resource: Resource) -> Kind:
    if event.type in resource.deleted_by:
        return "deleted"
    return "created" if event.type in resource.created_by else kind_of_update(event)


def kind_of_update(event: Event) -> Kind:
    """The kind of an event about an object that was there before."""
    return "updated" if bytes(event.data.previous_attributes).startswith(b"{") else "status"


def is_discount_only(event: ObjectEvent) -> bool:
    """Whether the event only reports that the object's discount changed."""
    return event.is_stub and event.kind == "status"


def ids_with_events(api: Api, resource: Resource, since: int) -> Iterator[set[str]]:
    """Yield, page by page, the ids of the objects that have events from a second on, unsettled
    events included.
    """
    by_name = {resource.object: resource}
    for page in oldest_first(api, resource.events, since, api.now() + 1):
        yield {object_event.id for event in page for object_event in object_events(event, by_name)}
