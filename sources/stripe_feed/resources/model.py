"""The facts about a Stripe resource: its columns, child tables, events and list endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, cast, get_args

ColumnKind = Literal["text", "ref", "bigint", "bool", "timestamp", "decimal", "double", "json"]
"""How a field arrives and is stored.

`text`, `bigint`, `bool`, `double`: unchanged; `ref`: an id that Stripe can expand (the id is
stored); `timestamp`: Unix seconds to a UTC timestamp; `decimal`: a JSON string with at most 12
fractional digits, exact; `json`: the original bytes.
"""

QueryPairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Column:
    """One documented top-level field of an object, under Stripe's own name."""

    name: str
    kind: ColumnKind
    description: str


@dataclass(frozen=True, slots=True)
class Expandable:
    """A field that Stripe only returns if it is expanded. `path` is the endpoint for the rest of a
    list (`{id}`: the object's id).
    """

    column: Column
    path: str = ""
    params: QueryPairs = ()


@dataclass(frozen=True, slots=True)
class Child:
    """A list embedded in an object, and the table that holds it completely."""

    field: str  # where it is embedded: "lines"
    table: str  # "invoice_line_items"
    object: str  # "line_item"
    parent: str  # the column with the parent's id: "invoice"
    path: str  # the endpoint for the whole list: "/v1/invoices/{id}/lines"
    columns: tuple[Column, ...]
    params: QueryPairs = ()  # (("subscription", "{id}"),)
    # full objects inside each row, and their resource: (("price", "prices"),)
    embeds: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Resource:
    """One Stripe list endpoint and the table it fills."""

    table: str  # "customers"; also the resource's name
    object: str  # Stripe's name for one: "customer"
    columns: tuple[Column, ...]
    permission: str  # what a restricted key needs: "rak_customer_read"
    label: str  # the same, as the Dashboard words it: "Core > Customers"
    list_filters: tuple[QueryPairs, ...] = ((),)  # query parameters; each set is listed in turn
    expandable: tuple[Expandable, ...] = ()
    children: tuple[Child, ...] = ()
    volatile: tuple[str, ...] = ()  # fields that change without meaning; not part of `_hash`
    excluded: tuple[str, ...] = ()  # never loaded: secrets, and lists that are resources themselves
    hides_test_clocks: bool = False  # the list omits objects on a test clock without `test_clock`
    events: tuple[str, ...] = ()  # the types of its events
    deleted_event: str = ""  # the event type of its deletion
    client_ids: bool = False  # an account can choose ids, and so reuse one
    schema_since: str = ""  # first API version with the pinned version's fields, children included
    bearer_links: tuple[str, ...] = ()  # URLs that need no login: in the table, not in changes
    # hashes whose keys come and go: null in `previous_attributes` is ambiguous
    map_fields: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The list endpoint; an object is at `path/id`."""
        return f"/v1/{self.table}"


def event_types(prefix: str, verbs: str) -> tuple[str, ...]:
    """Prefix each verb: `event_types("plan", "created updated")`."""
    return tuple(f"{prefix}.{verb}" for verb in verbs.split())


def parse_columns(text: str) -> tuple[Column, ...]:
    """Parse a text with one column per line: its name, kind and description."""
    return tuple(_parse_column(line) for line in text.strip().splitlines())


def _parse_column(line: str) -> Column:
    name, kind, description = line.split(maxsplit=2)
    if kind not in get_args(ColumnKind):
        raise ValueError(
            f"column {name!r}: unknown kind {kind!r}; one of {', '.join(get_args(ColumnKind))}"
        )
    return Column(name, cast(ColumnKind, kind), description)


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
        names += [extra.column.name for extra in row.expandable]
        names += [child.field for child in row.children]
        names += row.excluded
    return names


def with_children(rows: Iterable[Resource]) -> Iterator[Resource | Child]:
    """Yield each row, followed by its children."""
    for row in rows:
        yield row
        yield from row.children


def _require_distinct(where: str, names: list[str]) -> None:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{where}: declared twice: {', '.join(repeated)}")
