"""Read the columns of the resources: `columns/<object>.tsv` names every documented field of one of
Stripe's objects, with its kind and a description.

`make columns` adds the fields that the installed SDK knows and a file does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from .model import Column, ColumnKind, Resource

FOLDER = Path(__file__).with_name("columns")
HEADER = "name\tkind\tdescription\n"
FOLDED = "folded"  # the kind of a field that is stored in the column `details` with others
DETAILS = Column("details", "json", "What only its type has, by the name of the field.")
KINDS = frozenset(get_args(ColumnKind))


def with_columns(rows: Iterable[Resource]) -> Iterator[Resource]:
    """Give each row the columns of its object, without the fields that the row names otherwise, and
    each of its children those of its own.

    Raises `ValueError` if a row names a field that its object does not have.
    """
    for row in rows:
        columns, folded = _columns_of(row.objects)
        fields = {column.name: column for column in columns}
        expanded = [extra.name for extra in row.expandable]
        elsewhere = [
            *(extra.name for extra in row.expandable if not extra.always),
            *(child.field for child in row.children),
            *row.excluded,
        ]
        through = [name for name, _ in row.customer_through if name != "customer"]
        if unknown := sorted(
            {*elsewhere, *row.volatile, *row.bearer_links, *expanded, *through} - {*fields, *folded}
        ):
            raise ValueError(f"{row.table}: not among its fields: {', '.join(unknown)}")
        kept = [column for column in columns if column.name not in elsewhere]
        yield replace(
            row,
            columns=_with_parent(
                [*kept, *([DETAILS] if folded else [])], row.parent.column if row.parent else ""
            ),
            folded=folded,
            expandable=tuple(
                replace(extra, description=fields[extra.name].description)
                for extra in row.expandable
            ),
            children=tuple(
                replace(
                    child, columns=_with_parent(list(read_columns(child.object)[0]), child.parent)
                )
                for child in row.children
            ),
        )


def _with_parent(columns: list[Column], parent: str) -> tuple[Column, ...]:
    """Add the column with the parent's id after the object's own, if Stripe has no such field."""
    if parent and all(column.name != parent for column in columns):
        noun = parent.replace("_", " ").capitalize()
        columns.insert(1, Column(parent, "text", f"{noun} that it belongs to (id)."))
    return tuple(columns)


def _columns_of(objects: Iterable[str]) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """Like `read_columns`, for objects that share a table: what several have, as the first says it."""
    columns: dict[str, Column] = {}
    folded: dict[str, None] = {}
    for object_name in objects:
        own, own_folded = read_columns(object_name)
        columns |= {column.name: column for column in own if column.name not in columns}
        folded |= dict.fromkeys(own_folded)
    *others, last = objects
    if others:
        said = f"One of {', '.join(f'`{name}`' for name in others)} and `{last}`."
        columns["object"] = Column("object", "text", said)
    return tuple(columns.values()), tuple(folded)


def read_columns(object_name: str) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """Return the columns of an object, and the names of the fields that are stored in `details`."""
    text = (FOLDER / f"{object_name}.tsv").read_text(encoding="utf-8")
    return parse_columns(text)


def parse_columns(text: str) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """Parse the content of a file of columns; otherwise like `read_columns`."""
    columns, folded = [], []
    for line in text.splitlines()[1:]:
        name, kind, description = line.split("\t")
        if kind == FOLDED:
            folded.append(name)
        elif kind in KINDS:
            columns.append(Column(name, cast(ColumnKind, kind), description))
        else:
            raise ValueError(
                f"column {name!r}: unknown kind {kind!r}; one of {', '.join(get_args(ColumnKind))}"
            )
    return tuple(columns), tuple(folded)


def column_line(name: str, kind: str, description: str) -> str:
    """Write one line of a file of columns."""
    return f"{name}\t{kind}\t{description}\n"
