"""Find out which objects an event is about, and what kind of change it reports."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

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
    account: msgspec.Raw = msgspec.Raw(b"null")
    deleted: msgspec.Raw = msgspec.Raw(b"false")


class _Ref(msgspec.Struct, gc=False):
    id: str


_head = msgspec.json.Decoder(_Head)
_id = msgspec.json.Decoder(str | _Ref | None)


class ObjectEvent(msgspec.Struct, gc=False):
    """An event about one object. `from_copy`: rebuilt from a stored change, without links. `seen`:
    an earlier run has stored its change. `is_stub`: it does not hold the object's content. Once
    ordered: its `position` among the events of its object in the same second, from 1, and whether
    that is `certain`, since no other order is possible.
    """

    event: Event
    resource: Resource
    id: str
    kind: Kind
    is_stub: bool
    created: int | None = None
    customer: str | None = None
    owner: str | None = None  # the object whose list has it
    on_test_clock: bool = False
    seen: bool = False
    from_copy: bool = False
    position: int = 1
    certain: bool = True


ResourcesByObject = Mapping[str, Sequence[Resource]]
"""Resources by the names of their objects; several can have objects of one name."""


def by_object(resources: Iterable[Resource]) -> ResourcesByObject:
    """Index resources by the names of their objects."""
    index: dict[str, list[Resource]] = {}
    for resource in resources:
        for name in resource.objects:
            index.setdefault(name, []).append(resource)
    return index


def object_events(event: Event, resources: ResourcesByObject) -> list[ObjectEvent]:
    """The loaded objects an event is about.

    Sub-objects and invoice previews give none. A discount event gives its customer and
    subscription, which are then re-read.
    """
    try:
        head = _head.decode(event.data.object)
    except msgspec.ValidationError:
        return []
    if head.object == DISCOUNT:
        owners = (("customer", head.customer), ("subscription", head.subscription))
        return [
            ObjectEvent(event, resource, id, "status", True)
            for name, raw in owners
            for resource in resources.get(name, ())
            if (id := _ref(raw))
        ]
    candidates = resources.get(head.object or "", ())
    resource = next((row for row in candidates if event.type in row.events), None)
    id = usable_id(decode_or_none(head.id, str))
    if resource is None or id is None:
        return []
    customer, owner = id if resource.object == "customer" else _ref(head.customer), None
    if resource.parent is not None:
        owner = _ref(head.account if resource.parent.column == "account" else head.customer)
        if resource.parent.local_ids:
            id = f"{owner}/{id}"
    clock = bytes(head.test_clock) != b"null"
    created = decode_or_none(head.date if resource.created_field == "date" else head.created, int)
    stub = bytes(head.deleted) == b"true" and created is None
    kind = _kind(event, resource)
    return [ObjectEvent(event, resource, id, kind, stub, created, customer, owner, clock)]


def is_malformed(event: Event, resources: ResourcesByObject) -> bool:
    """Whether an event that gives no object event should have given one for these resources."""
    try:
        name = _head.decode(event.data.object).object
    except msgspec.ValidationError:
        name = None
    concerned = {
        of
        for rows in resources.values()
        for resource in rows
        if event.type in resource.events
        for of in resource.objects
    }
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


def ids_with_events(
    api: Api,
    resource: Resource,
    since: int,
    known: Callable[[Sequence[str]], Collection[str]] = lambda ids: (),
) -> Iterator[set[str]]:
    """Yield, page by page, the ids of the objects that have events from a second on, unsettled
    events included. `known` tells which ids of events do not count.
    """
    by_name = by_object([resource])
    for page in oldest_first(api, resource.events, since, api.now() + 1):
        applied = known([event.id for event in page])
        yield {
            object_event.id
            for event in page
            if event.id not in applied
            for object_event in object_events(event, by_name)
        }


def parents_with_events(
    api: Api, types: tuple[str, ...], column: str, since: int
) -> Iterator[set[str]]:
    """Yield, page by page, the ids in a field of the objects of events from a second on: those of
    the objects whose list has changed.
    """
    for page in oldest_first(api, types, since, api.now() + 1):
        contents = (decode_or_none(event.data.object, dict[str, msgspec.Raw]) for event in page)
        fields = (content[column] for content in contents if content and column in content)
        ids = (usable_id(decode_or_none(field, str)) for field in fields)
        yield {id for id in ids if id is not None}
