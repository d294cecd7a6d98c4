"""What the sandbox knows about one kind of object, and the short form of a plain kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as default
from functools import partial
from typing import Any, Literal, NamedTuple

from ...samples import generic, opt_in
from ...samples.opt_in import OptInSample
from ...samples.values import Object, Random

Rule = Literal[
    "text", "choice", "boolean", "list", "time", "hash", "group", "null", "not", "owner", "or all"
]
Operation = Literal["created", "updated", "deleted", "canceled"]


@dataclass(frozen=True, slots=True)
class Filter:
    """How a list compares one of its parameters with a field."""

    rule: Rule = "text"
    at: str = ""  # path of the value, as `items.data.price.id`; by default the parameter's name
    choices: tuple[str, ...] = ()
    most: int = 0  # how many values a list may have; 0 means any number


@dataclass(frozen=True, slots=True)
class Sublist:
    """A list inside an object, and the endpoint that has all of it."""

    field: str
    object: str
    path: str
    parameter: str = ""  # names the parent, unless the path does
    permission: str = ""  # by default that of the parent
    children: str = ""  # name of its objects if it is embedded; else it only comes when expanded
    prefix: str = ""  # of the ids of embedded objects
    parent: str = ""  # field of its objects that names the parent
    values: Mapping[str, Any] = default(default_factory=dict)  # of embedded objects: see `generic`
    by_id: bool = False  # whether one embedded object can be retrieved
    count: int = 0  # of embedded objects, unless it is given

    def url(self, parent: str) -> str:
        if self.parameter:
            return f"{self.path}?{self.parameter}={parent}"
        return self.path.replace(":id", parent)


class Change(NamedTuple):
    """A change of a field, to any value if none is given. Its event is instead of that of an update."""

    field: str
    value: Any
    ending: str  # last part of the event type

    def happened(self, before: Object, after: Object) -> bool:
        value = after.get(self.field)
        return value != before.get(self.field) and self.value in (ANY, value)


ANY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """All that the sandbox needs to know about one kind of object."""

    name: str
    object: str
    prefix: str
    path: str
    permission: str
    event: str = ""  # first part of its event types
    events: Mapping[Operation, str] = default(default_factory=dict)
    """Operation -> last part of the event type. Other operations have no event."""

    leaving: Mapping[str, tuple[str, ...]] = default(default_factory=dict)
    reaching: Mapping[str, tuple[str, ...]] = default(default_factory=dict)
    """Status -> last parts of the event types of a change from it or to it."""

    changing: tuple[Change, ...] = ()  # changes of fields that have events of their own
    summary: str = ""  # object name of the summary whose `updated` event tells of its changes
    discount_events: bool = False  # its discounts have `customer.discount.*` events
    filters: Mapping[str, Filter] = default(default_factory=dict)
    grouped: Literal["", "status", "active"] = ""  # field that every list request filters by
    hidden: tuple[str, ...] = ()  # groups that a list shows only on request
    dated: str = "created"  # the field that lists sort by; without one they sort by creation
    windowed: bool = True  # lists take `created`
    on_clocks: bool = False  # lists hide objects on a test clock
    expandable: Mapping[str, str] = default(default_factory=dict)  # field -> object name
    opt_in: Mapping[str, OptInSample | None] = default(default_factory=dict)
    """Fields that only come when expanded -> their value. None: the objects of a sublist's kind."""

    sublists: tuple[Sublist, ...] = ()
    keeps_stub: bool = False  # a deleted object is still read as a stub
    plain: bool = False  # whether its fields are read from the SDK's annotations
    group: str = "core"
    owner: str = (
        ""  # field, or parameter if no field has it, with the id of the object it belongs to
    )
    owners: str = ""  # the kind of that object
    under: str = ""  # path of the list below that object, if there is another list of all
    required: tuple[str, ...] = ()  # filters that a list must have
    client_ids: bool = False  # whether the account may choose the ids
    deletable: bool = False  # whether Stripe lets it be deleted
    retrievable: bool = True
    immutable: bool = False  # whether it never changes once it is there
    share: float = 0.0  # objects per customer in the seed data, if it has a sample
    sample: Callable[[Random, int], Object] | None = None
    """Makes a random object created at a time. If None, `builders` makes it from other objects."""

    variants: Mapping[str, Callable[[Random, int], Object]] = default(default_factory=dict)
    """Object name -> the sample of objects of that name, if the kind has several."""

    def types(self, operation: Operation) -> tuple[str, ...]:
        """The event types of an operation."""
        return tuple(map(self.event_type, self.events.get(operation, "").split()))

    def event_type(self, ending: str) -> str:
        """A last part of an event type with the first one; what begins with a slash is whole."""
        return ending[1:] if ending.startswith("/") else f"{self.event}.{ending}"

    @property
    def embedded(self) -> Sublist | None:
        return next((sublist for sublist in self.sublists if sublist.children), None)


RULES: dict[str, Rule] = {
    "?": "boolean",
    "~": "time",
    "%": "hash",
    "^": "owner",
    "0": "null",
    "[": "list",
    "-": "not",
    "*": "or all",
}
FILTER = re.compile(r"(?P<name>\w+?)(?P<rule>[?~%^0[*-])?(?P<required>!)?(@(?P<at>[\w.]+))?")
CHANGE = re.compile(r"(?P<field>\w+):(?P<value>[\w*]+)=(?P<ending>\w+)")
CONSTANTS: dict[str, Any] = {"true": True, "false": False, "null": None}
EVENT = re.compile(r"(?P<what>@?\w+)(=(?P<ending>[\w./]+))?")


def plain(
    name: str,
    object: str,
    prefix: str,
    path: str,
    permission: str,
    *,
    filters: str = "",
    event: str = "",
    events: str = "",
    changes: str = "",
    expanded: str = "",
    values: Mapping[str, Any] | None = None,
    sublists: tuple[Sublist, ...] = (),
    variants: Mapping[str, str] | None = None,
    **more: Any,
) -> Kind:
    """A kind whose objects are made from the SDK's annotations and `values`.

    `filters` are parameters of its list, each with its rule if it is no text: `active?` is a
    boolean, `due~` a time or number, `payment%` a hash, `owner^` the id of the object it belongs
    to, `pending0` whether a field is null, `keys[` several values, `archived-` a boolean that is
    not what the field says, `status*` a text of which `all` selects everything; `!` marks a
    required one, `coupon@promotion.coupon` another place of the value. `events` are operations with
    the last part of their type, unless it has the same name, and `@status` for a change to a
    status: `created updated=changed @paid`. `changes` are fields with a value and the event of
    reaching it: `open:false=closed`. `expanded` are the fields that only come when expanded.
    `variants` are further object names with their prefixes.
    """
    absent = tuple(expanded.split())
    parameters = dict(_filters(filters))
    operations, statuses = _events(events)
    make = partial(generic.sample, values=values or {}, absent=absent)
    objects = {object: prefix} | dict(variants or {})
    return Kind(
        name=name,
        object=object,
        prefix=prefix,
        path=f"/v1/{path}",
        permission=f"rak_{permission}_read",
        event=event or object,
        events=operations,
        reaching=statuses,
        changing=tuple(_changes(changes)),
        plain=True,
        filters={name: rule for name, (rule, _) in parameters.items()},
        required=tuple(name for name, (_, required) in parameters.items() if required),
        opt_in={field: _opt_in(field, sublists) for field in absent if field != "*"},
        sublists=sublists,
        sample=partial(make, object=object, prefix=prefix),
        variants={
            object: partial(make, object=object, prefix=prefix)
            for object, prefix in objects.items()
        }
        if variants
        else {},
        **more,
    )


def _opt_in(field: str, sublists: tuple[Sublist, ...]) -> OptInSample | None:
    """The value of a field that only comes when expanded."""
    for sublist in sublists:
        if sublist.field == field:
            return (
                opt_in.drawn(sublist.object, sublist.prefix, sublist.values)
                if sublist.prefix
                else None
            )
    return opt_in.constant(None)


def _filters(text: str) -> Iterator[tuple[str, tuple[Filter, bool]]]:
    for part in text.split():
        match = FILTER.fullmatch(part)
        if match is None:
            raise ValueError(f"not a filter: {part}")
        rule = RULES.get(match["rule"] or "", "text")
        yield match["name"], (Filter(rule, match["at"] or ""), bool(match["required"]))


def _changes(text: str) -> Iterator[Change]:
    for part in text.split():
        match = CHANGE.fullmatch(part)
        if match is None:
            raise ValueError(f"not a change: {part}")
        value = match["value"]
        yield Change(match["field"], CONSTANTS.get(value, value), match["ending"])


def _events(text: str) -> tuple[dict[Operation, str], dict[str, tuple[str, ...]]]:
    """The last parts of event types by operation and by status."""
    operations: dict[Operation, str] = {}
    statuses: dict[str, tuple[str, ...]] = {}
    for part in text.split():
        match = EVENT.fullmatch(part)
        if match is None:
            raise ValueError(f"not an event: {part}")
        what, ending = match["what"], match["ending"] or match["what"].removeprefix("@")
        if what.startswith("@"):
            statuses[what[1:]] = (*statuses.get(what[1:], ()), ending)
        else:
            key: Operation = what  # type: ignore[assignment]
            operations[key] = f"{operations[key]} {ending}" if key in operations else ending
    return operations, statuses
