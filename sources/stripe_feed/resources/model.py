"""The facts about a Stripe resource: its columns, child tables, events and list endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

ColumnKind = Literal["text", "ref", "bigint", "bool", "timestamp", "decimal", "double", "json"]
"""How a field arrives and is stored.

`text`, `bigint`, `bool`, `double`: unchanged; `ref`: an id that Stripe can expand (the id is
stored); `timestamp`: Unix seconds to a UTC timestamp; `decimal`: a JSON string with at most 12
fractional digits, exact; `json`: the original bytes.
"""

QueryPairs = tuple[tuple[str, str], ...]

BY_CUSTOMER = (("customer", "customers"),)
"""The object names its customer itself."""


@dataclass(frozen=True, slots=True)
class Column:
    """One documented top-level field of an object, under Stripe's own name."""

    name: str
    kind: ColumnKind
    description: str


@dataclass(frozen=True, slots=True)
class Expandable:
    """A field that Stripe only returns if it is expanded. `path` is the endpoint for the rest of a
    list (`{id}`: the object's id). `always`: it is a column of the table; else only if asked for.
    """

    name: str
    path: str = ""
    params: QueryPairs = ()
    always: bool = False
    description: str = ""  # from the object's file of columns

    @property
    def column(self) -> Column:
        """The column that holds it, if it was asked for."""
        return Column(self.name, "json", self.description)


@dataclass(frozen=True, slots=True)
class Child:
    """A list embedded in an object, and the table that holds it completely."""

    field: str  # where it is embedded: "lines"
    table: str  # "invoice_line_items"
    object: str  # "line_item"
    parent: str  # the column with the parent's id: "invoice"; added where Stripe has no such field
    path: str  # the endpoint for the whole list: "/v1/invoices/{id}/lines"
    columns: tuple[Column, ...] = ()  # from the object's file of columns
    params: QueryPairs = ()  # (("subscription", "{id}"),)
    # full objects inside each row, and their resource: (("price", "prices"),)
    embeds: tuple[tuple[str, str], ...] = ()
    expand: bool = False  # Stripe only embeds it if it is expanded


@dataclass(frozen=True, slots=True)
class Parent:
    """Where the lists of a resource are that has one list per object of another resource."""

    table: str  # the resource with the parents: "customers"
    column: str  # the column with the parent's id: "customer"; added where Stripe has no such field
    params: QueryPairs = ()  # (("setup_intent", "{id}"),)
    # fields of the parent that change with its list, which is then read again; None: any may
    fields: tuple[str, ...] | None = None
    # events about the list as a whole, which name the parent in the column; then it is read again
    events: tuple[str, ...] = ()
    flag: str = ""  # a column of the parent: only if it is true there is a list
    local_ids: bool = False  # ids are unique within one list only: rows have `parent/id`


@dataclass(frozen=True, slots=True)
class Holder:
    """A table whose rows name objects that no endpoint returns. These come with the object of
    `resource` if that is expanded.
    """

    table: str  # "subscription_items"
    field: str  # the column with the ids: "discounts"
    resource: str  # "subscriptions"
    owner: str  # the column with the id of the object of `resource`: "subscription"
    expand: str  # what to expand in that object: "items.data.discounts"


@dataclass(frozen=True, slots=True)
class Resource:
    """One Stripe list endpoint and the table it fills.

    The columns come from `columns/<object>.tsv`; a row only says what no annotation tells.
    """

    table: str  # "customers"; also the resource's name
    object: str  # Stripe's name for one: "customer"
    columns: tuple[Column, ...] = ()  # from the object's file of columns
    permission: str = ""  # what a restricted key needs: "rak_customer_read"
    permission_guessed: bool = False  # no source names it: it follows the pattern of the others
    label: str = ""  # the same, as the Dashboard words it: "Core > Customers"
    group: str = "core"  # resources that are asked for together
    path: str = ""  # the list endpoint, by default /v1/{table}; an object is at `path/id`
    parent: Parent | None = None  # then `path` has `{id}`, the parent's, or `parent.params` have it
    other_objects: tuple[str, ...] = ()  # further names of objects in the same list
    holders: tuple[Holder, ...] = ()  # then there is no endpoint: the objects come with others
    # full objects inside, where they are and their resource: (("source.coupon", "coupons"),)
    embeds: tuple[tuple[str, str], ...] = ()
    list_filters: tuple[QueryPairs, ...] = ((),)  # query parameters; each set is listed in turn
    # the field with the time of creation, by which the list can be filtered; "": it cannot
    created_field: str = "created"
    relist_days: int = 0  # objects of the last days are listed again: they change without an event
    expandable: tuple[Expandable, ...] = ()
    children: tuple[Child, ...] = ()
    volatile: tuple[str, ...] = ()  # fields that change without meaning; not part of `_hash`
    excluded: tuple[str, ...] = ()  # never loaded: secrets, and lists that are resources themselves
    folded: tuple[str, ...] = ()  # fields that are stored together in one JSON column, `details`
    hides_test_clocks: bool = False  # the list omits objects on a test clock without `test_clock`
    events: tuple[str, ...] = ()  # the types of its events; none: changes are seen by the list only
    # the event types that report a new object. Of several the one that comes first for an object;
    # within a second in this order
    created_by: tuple[str, ...] = ()
    deleted_by: tuple[str, ...] = ()  # the event types that report that an object is gone
    client_ids: bool = False  # an account can choose ids, and so reuse one
    # first API version with the pinned version's fields, children included; "": only the pinned one
    schema_since: str = ""
    bearer_links: tuple[str, ...] = ()  # URLs that need no login: in the table, not in changes
    # columns with the id of an object whose customer is this one's, and that object's resource
    customer_through: tuple[tuple[str, str], ...] = BY_CUSTOMER
    # hashes whose keys come and go: null in `previous_attributes` is ambiguous
    map_fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.path and not self.holders:
            object.__setattr__(self, "path", f"/v1/{self.table}")

    @property
    def objects(self) -> tuple[str, ...]:
        """Stripe's names for its objects."""
        return (self.object, *self.other_objects)

    @property
    def is_dependent(self) -> bool:
        """Whether its objects are found through the rows of other tables."""
        return self.parent is not None or bool(self.holders)

    @property
    def embedded_tables(self) -> list[str]:
        """The tables of the full objects inside its objects, or inside their children."""
        of_children = [table for child in self.children for _, table in child.embeds]
        return [*of_children, *(table for _, table in self.embeds)]

    @property
    def needs(self) -> str:
        """The permission in a sentence, with its place in the Dashboard."""
        return f"{'probably ' if self.permission_guessed else ''}{self.permission} ({self.label})"

    @property
    def created_column(self) -> str:
        """The column with the time of creation, whether the list can be filtered by it or not; ""
        if there is none.
        """
        has_created = any(column.name == "created" for column in self.columns)
        return self.created_field or ("created" if has_created else "")


def event_types(prefix: str, verbs: str) -> tuple[str, ...]:
    """Prefix each verb: `event_types("plan", "created updated")`."""
    return tuple(f"{prefix}.{verb}" for verb in verbs.split())


def index_by_table(*rows: Resource) -> dict[str, Resource]:
    """Key the rows by table, in their order. Raises `ValueError` if a table or a field is declared
    twice.
    """
    _require_distinct("tables", [row.table for row in with_children(rows)])
    for row in with_children(rows):
        _require_distinct(row.table, field_names(row))
    return {row.table: row for row in rows}


def field_names(row: Resource | Child) -> list[str]:
    """Every known field of an object: columns, expandable fields, embedded lists, and excluded
    ones.
    """
    names = [column.name for column in row.columns]
    if isinstance(row, Resource):
        names += [extra.name for extra in row.expandable if not extra.always]
        names += [child.field for child in row.children]
        names += (*row.excluded, *row.folded)
    return names


def with_children(rows: Iterable[Resource]) -> Iterator[Resource | Child]:
    """Yield each row, followed by its children."""
    for row in rows:
        yield row
        yield from row.children


def _require_distinct(where: str, names: list[str]) -> None:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{where}: declared twice: {', '.join(repeated)}")
