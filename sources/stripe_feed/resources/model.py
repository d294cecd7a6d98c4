"""What a row of the resource table holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, cast, get_args

Kind = Literal["text", "ref", "bigint", "bool", "timestamp", "decimal", "double", "json"]
"""How a field arrives and lands.

`text`, `bigint`, `bool`, `double` as they are; `ref` an id that Stripe can expand (always the id
lands); `timestamp` Unix seconds to a UTC timestamp; `decimal` a JSON string with at most 12
fractional digits, exact; `json` the original bytes.
"""

Params = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Column:
    """One documented top-level field of an object, under Stripe's own name."""

    name: str
    kind: Kind
    description: str


@dataclass(frozen=True, slots=True)
class Expandable:
    """A field that only comes when it is expanded. `path` is where the rest of a list is (`{id}`:
    the object's id).
    """

    column: Column
    path: str = ""
    params: Params = ()


@dataclass(frozen=True, slots=True)
class Child:
    """A list embedded in an object, and the table of its own that it fills, complete."""

    field: str  # where it is embedded: "lines"
    table: str  # "invoice_line_items"
    object: str  # "line_item"
    parent: str  # the column with the parent's id: "invoice"
    path: str  # where the whole list is: "/v1/invoices/{id}/lines"
    columns: tuple[Column, ...]
    params: Params = ()  # (("subscription", "{id}"),)
    embeds: tuple[
        tuple[str, str], ...
    ] = ()  # full objects inside each row, and their resource: (("price", "prices"),)


@dataclass(frozen=True, slots=True)
class Resource:
    """One Stripe list endpoint and the table it fills."""

    table: str  # "customers"; also the resource's name
    object: str  # Stripe's name for one: "customer"
    columns: tuple[Column, ...]
    permission: str  # what a restricted key needs: "rak_customer_read"
    label: str  # the same, as the Dashboard words it: "Core > Customers"
    walks: tuple[Params, ...] = ((),)  # list filters; several: walked one after the other
    expandable: tuple[Expandable, ...] = ()
    children: tuple[Child, ...] = ()
    volatile: tuple[str, ...] = ()  # fields that change without meaning; left out of `_hash`
    never: tuple[str, ...] = ()  # never loaded: secrets, and lists that are resources anyway
    clock_filtered: bool = (
        False  # the list hides objects on a test clock unless `test_clock` is given
    )
    events: tuple[str, ...] = ()  # the event types that tell of it
    deleted_by: str = ""  # the one that means that it is gone
    own_ids: bool = False  # an account can choose ids, and so use one again
    same_since: str = (
        ""  # first API version whose field set, children included, is the pinned one's
    )
    links: tuple[str, ...] = ()  # open to whoever holds them: in the table, in no change
    free_form: tuple[
        str, ...
    ] = ()  # hashes whose keys come and go: null in `previous_attributes` is ambiguous

    @property
    def path(self) -> str:
        """The list endpoint; an object is at `path/id`."""
        return f"/v1/{self.table}"


def types(prefix: str, verbs: str) -> tuple[str, ...]:
    """Event types of one prefix: `types("plan", "created updated")`."""
    return tuple(f"{prefix}.{verb}" for verb in verbs.split())


def columns(text: str) -> tuple[Column, ...]:
    """Read a table of text: one column per line, its name, its kind and its description."""
    return tuple(_column(line) for line in text.strip().splitlines())


def _column(line: str) -> Column:
    name, kind, description = line.split(maxsplit=2)
    if kind not in get_args(Kind):
        raise ValueError(
            f"column {name!r}: unknown kind {kind!r}; one of {', '.join(get_args(Kind))}"
        )
    return Column(name, cast(Kind, kind), description)


def table(*rows: Resource) -> dict[str, Resource]:
    """Key the rows by table, in their order; a table or a field that is declared twice is refused."""
    _distinct("tables", [row.table for row in with_children(rows)])
    for row in with_children(rows):
        _distinct(row.table, fields(row))
    return {row.table: row for row in rows}


def fields(row: Resource | Child) -> list[str]:
    """Name every field that the row knows: columns, expandable fields, embedded lists, and those
    never loaded.
    """
    names = [column.name for column in row.columns]
    if isinstance(row, Resource):
        names += [extra.column.name for extra in row.expandable]
        names += [child.field for child in row.children]
        names += row.never
    return names


def with_children(rows: Iterable[Resource]) -> Iterator[Resource | Child]:
    """Yield each row, followed by its children."""
    for row in rows:
        yield row
        yield from row.children


def _distinct(where: str, names: list[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{where}: declared twice: {', '.join(twice)}")
