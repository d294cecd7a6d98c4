"""What the destination holds of a resource, row by row, without what cannot belong there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ...resources.model import Child, Resource
from .. import existing
from ..next_step import VERSION_STEP
from ..tables.codec import Shape
from . import stray_rows
from .row_digests import Content, cell, columns_of, digest_of

LEEWAY = 3_600  # seconds that clocks may differ: of runs, and of answers
OWN = ("id", "_hash", "_version", "deleted_at", "_dlt_load_id", "account_id")


class Held(NamedTuple):
    """What is held of an object. `odd`: its rows, or those of its children, are such as no run
    writes them; not `ours`: no run has written this one.
    """

    hash: str
    version: int
    deleted: bool
    created: int | None
    active: bool
    content: Content
    odd: bool
    ours: bool


def look(client: Any, resource: Resource, shape: Shape, account: str, now: int) -> dict[str, Held]:
    """Return id -> what is held. Rows without an id and children without a parent are removed, and
    rows that claim to come from the future, which nothing could replace, become the oldest.
    """
    newest = (now + LEEWAY) * VERSION_STEP
    found: dict[str, Held] = {}
    nameless = ahead = False
    loads = existing.complete_loads(client)
    for id, held in _rows(client, resource, shape, account, newest, loads):
        nameless, ahead = nameless or id is None, ahead or held.version < 0
        if id is not None:
            found[id] = held if id not in found else _one(found[id], held)
    if nameless:
        stray_rows.remove_nameless(client, resource.table)
    if ahead:
        stray_rows.age(client, resource.table, newest)
    for child, one in shape.children:
        if _add_children(client, child, one, found, loads):
            stray_rows.remove_orphans(client, child, resource.table)
    return found


def _rows(
    client: Any, resource: Resource, shape: Shape, account: str, newest: int, loads: Collection[str]
) -> Iterator[tuple[str | None, Held]]:
    digest, names = digest_of(shape, resource.volatile), _names(shape)
    created_at = names.index("created")
    active_at = names.index("active") if "active" in names else None
    for id, hash, version, deleted, load, owner, *values in existing.all_rows(
        client, resource.table, [*OWN, *names]
    ):
        created = cell("timestamp", values[created_at])
        wild = version is None or version > newest
        yield (
            id,
            Held(
                hash or "",
                -1 if wild else int(version),
                deleted is not None,
                created if isinstance(created, int) else None,
                active_at is not None and bool(values[active_at]),
                digest(values),
                wild or load not in loads,
                owner == account and hash is not None and load in loads,
            ),
        )


def _one(first: Held, other: Held) -> Held:
    """Two rows of one object: it lives where one of them does."""
    return first._replace(
        version=max(first.version, other.version), deleted=first.deleted and other.deleted, odd=True
    )


def _add_children(
    client: Any, child: Child, shape: Shape, found: dict[str, Held], loads: Collection[str]
) -> bool:
    """Count the children as part of their parents; return whether any belong to none."""
    digest, astray = digest_of(shape), False
    own = ("id", child.parent, "_version", "deleted_at", "_dlt_load_id")
    for id, parent, version, deleted, load, *values in existing.all_rows(
        client, child.table, [*own, *_names(shape)]
    ):
        held = found.get(parent)
        if id is None or held is None or held.deleted:
            astray = True
        else:
            odd = held.odd or version != held.version or deleted is not None or load not in loads
            found[parent] = held._replace(content=held.content + digest(values), odd=odd)
    return astray


def _names(shape: Shape) -> Sequence[str]:
    return [column.name for column in columns_of(shape)]


def doubled(held: Iterable[Held]) -> set[str]:
    """The digests that several rows share: each covers the id, so that only copying a row can make
    one.
    """
    seen: set[str] = set()
    return {one.hash for one in held if one.hash in seen or seen.add(one.hash)}  # type: ignore[func-returns-value]
