"""Describe how stored rows differ from the objects that Stripe shows now."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ...resources.model import Resource
from .. import existing
from ..tables.changes import ChangeRow, diff_change
from ..tables.codec import Record, TableCodec
from ..tables.diff import Image, align_lists, project_onto


def changes_of_rows(
    client: Any,
    resource: Resource,
    codec: TableCodec,
    records: Sequence[Record],
    now: int,
    api_version: str,
    is_same_schema: bool,
) -> list[ChangeRow]:
    """Return the changes between the stored rows of some objects and what Stripe shows now; none
    for an object without a row, or whose documented fields are the same.

    Without `is_same_schema` only fields of both schemas are compared.
    """
    if not records:
        return []
    with client as connected:
        rows = existing.stored_rows(connected, codec, [record.row.id for record in records])
        befores = existing.objects_from_rows(connected, codec, rows)
    stored = [record for record in records if record.row.id in rows]
    afters = {record.row.id: codec.image(record.row) for record in stored}
    names = existing.compared_fields(resource, codec)
    shared = names if is_same_schema else shared_fields(names, befores, afters)
    changes = []
    for record in stored:
        id = record.row.id
        after = afters[id]
        before = comparable_image(resource, befores[id], after)
        if not is_same_schema:
            before = project_image(before, after, shared)
        if any(before.get(name) != after.get(name) for name in names):
            version = rows[id]["_version"] or 0
            changes.append(
                diff_change(resource, id, before, after, version, record.hash, now, api_version)
            )
    return changes


def comparable_image(resource: Resource, before: Image, after: Image) -> Image:
    """Give the image of a stored row the lists of the current object where they say the same."""
    return align_lists(before, after, [child.field for child in resource.children])


def shared_fields(
    names: Collection[str], befores: Mapping[str, Image], afters: Mapping[str, Image]
) -> set[str]:
    """Return the fields of both schemas: a field that is null everywhere on one side is new, or
    gone.
    """
    both = [(befores[id], after) for id, after in afters.items() if id in befores]
    return {
        name
        for name in names
        if any(before.get(name) is not None for before, _ in both)
        and any(after.get(name) is not None for _, after in both)
    }


def project_image(before: Image, after: Image, shared: Collection[str]) -> Image:
    """Give a stored image of another schema the current one: fields that only one of both has get
    their current value.
    """
    projected = dict(after)
    for name in shared:
        old, now = before.get(name), after.get(name)
        projected[name] = old if old is None or now is None else project_onto(now, old, name)
    return projected
