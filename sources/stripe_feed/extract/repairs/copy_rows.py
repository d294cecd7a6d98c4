"""Read the stored rows of a resource, and delete those that cannot belong there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ...resources.model import Child, Resource
from .. import existing
from ..next_step import VERSION_STEP
from ..tables.codec import TableCodec
from . import stray_rows
from .row_digests import RowDigests, digest_columns, digest_function, digest_value

VERSION_TOLERANCE = 3_600  # seconds that the clocks of runs, and of Stripe's answers, may differ
OWN_NAMES = ("id", "_hash", "_version", "deleted_at", "_dlt_load_id", "account_id")


class HeldRow(NamedTuple):
    """The stored row of an object, with its children. `irregular`: no run writes such rows.
    `written_by_run`: a run of this account may have written it.
    """

    hash: str
    version: int
    deleted: bool
    created: int | None
    active: bool
    content: RowDigests
    irregular: bool
    written_by_run: bool


def read_copy(
    client: Any,
    resource: Resource,
    codec: TableCodec,
    account: str,
    now: int,
    since: int | None = None,
) -> dict[str, HeldRow]:
    """Return the stored rows by id, or those of the objects created since a second. Delete rows
    without an id and children without a parent; rows with versions in the future, which nothing
    could replace, become the oldest.
    """
    newest = (now + VERSION_TOLERANCE) * VERSION_STEP
    held_rows: dict[str, HeldRow] = {}
    without_id = in_future = False
    loads = existing.complete_loads(client)
    for id, row in _held_rows(client, resource, codec, account, newest, loads, since):
        without_id, in_future = without_id or id is None, in_future or row.version < 0
        if id is not None:
            held_rows[id] = row if id not in held_rows else _merge_duplicates(held_rows[id], row)
    if without_id:
        stray_rows.delete_rows_without_id(client, resource.table)
    if in_future:
        stray_rows.reset_future_versions(client, resource.table, newest)
    for child, child_codec in codec.children:
        if _add_children(client, child, child_codec, held_rows, loads, since is not None):
            stray_rows.delete_orphans(client, child, resource.table)
    return held_rows


def _held_rows(
    client: Any,
    resource: Resource,
    codec: TableCodec,
    account: str,
    newest: int,
    loads: Collection[str],
    since: int | None,
) -> Iterator[tuple[str | None, HeldRow]]:
    digest, names = digest_function(codec, resource.volatile), _column_names(codec)
    created_at = names.index(resource.created_column) if resource.created_column else None
    active_at = names.index("active") if "active" in names else None
    stored_rows = (
        existing.all_rows(client, resource.table, [*OWN_NAMES, *names])
        if since is None
        else existing.rows_created_since(client, resource, [*OWN_NAMES, *names], since)
    )
    for id, hash, version, deleted, load, owner, *values in stored_rows:
        created = None if created_at is None else digest_value("timestamp", values[created_at])
        is_impossible = version is None or version > newest
        yield (
            id,
            HeldRow(
                hash or "",
                -1 if is_impossible else int(version),
                deleted is not None,
                created if isinstance(created, int) else None,
                active_at is not None and bool(values[active_at]),
                digest(values),
                is_impossible or load not in loads,
                owner == account and hash is not None and load in loads,
            ),
        )


def _merge_duplicates(first: HeldRow, other: HeldRow) -> HeldRow:
    """Merge two rows of one object: it is deleted only if both say so."""
    return first._replace(
        version=max(first.version, other.version),
        deleted=first.deleted and other.deleted,
        irregular=True,
    )


def _add_children(
    client: Any,
    child: Child,
    codec: TableCodec,
    held_rows: dict[str, HeldRow],
    loads: Collection[str],
    is_partial: bool,
) -> bool:
    """Add the children to their parents' digests; return whether any has no parent. `is_partial`:
    the parents are not all there are, so only theirs are read.
    """
    digest, has_orphans = digest_function(codec), False
    own_names = ("id", child.parent, "_version", "deleted_at", "_dlt_load_id")
    names = [*own_names, *_column_names(codec)]
    children = (
        existing.rows_of_parents(client, child.table, names, child.parent, list(held_rows))
        if is_partial
        else existing.all_rows(client, child.table, names)
    )
    for id, parent, version, deleted, load, *values in children:
        parent_row = held_rows.get(parent)
        if id is None or parent_row is None or parent_row.deleted:
            has_orphans = True
        else:
            irregular = (
                parent_row.irregular
                or version != parent_row.version
                or deleted is not None
                or load not in loads
            )
            held_rows[parent] = parent_row._replace(
                content=parent_row.content + digest(values), irregular=irregular
            )
    return has_orphans


def _column_names(codec: TableCodec) -> Sequence[str]:
    return [column.name for column in digest_columns(codec)]


def shared_hashes(rows: Iterable[HeldRow]) -> set[str]:
    """Return the hashes that several rows share. A hash covers the id, so only a copied row shares
    one.
    """
    seen: set[str] = set()
    return {row.hash for row in rows if row.hash in seen or seen.add(row.hash)}  # type: ignore[func-returns-value]
