"""Choose the objects whose lists are read: all that the copy holds, one batch after the other, or
those that loads have brought since.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from ...destination.state import select_rows, table_name
from ...resources import CHANGES, RESOURCES
from ...resources.model import Parent
from .. import existing

OVERLAP = 600  # seconds of loads that are looked at again: the clocks of two workers may differ


def overlap_start(load_id: str) -> str:
    """Return what ids of loads are compared with that are looked at again beside this one; "" if
    there was none.
    """
    return f"{float(load_id) - OVERLAP:.6f}" if load_id else ""


class Touched(NamedTuple):
    """Parents whose rows were loaded since: those with a list to read, and those that are deleted."""

    present: list[str]
    deleted: list[str]


def parents_to_sweep(
    client: Any, parent: Parent, since: int, count: int
) -> tuple[list[str], int | None]:
    """Return the next parents in the order of their creation, about `count` that were created from
    a second on, and the second to continue from; None if these are the last.

    All parents of a second are in one batch; those that do not say when they were created are in
    the first.
    """
    created = client.escape_column_name(RESOURCES[parent.table].created_column)
    held = f"select id, {created} from {table_name(client, parent.table)} where {_with_list(client, parent)}"
    undated = select_rows(client, f"{held} and {created} is null") if not since else []
    rows = [
        (str(id), int(existing.stripe_value("timestamp", at)))
        for id, at in select_rows(
            client, f"{held} and {created} >= %s order by {created} limit {count + 1}", _utc(since)
        )
    ]
    batch, following = [id for id, _ in rows], None
    if len(rows) > count:
        following = rows[-1][1]
        batch = [id for id, at in rows if at < following]
        if not batch:
            same = select_rows(client, f"{held} and {created} = %s", _utc(following))
            batch, following = [str(id) for id, _ in same], following + 1
    return [*(str(id) for id, _ in undated), *batch], following


def count_to_sweep(client: Any, parent: Parent, since: int) -> int:
    """Count the parents that a sweep has left."""
    created = client.escape_column_name(RESOURCES[parent.table].created_column)
    query = f"select count(*) from {table_name(client, parent.table)} where {_with_list(client, parent)}"
    if not since:
        return _count(select_rows(client, query))
    return _count(select_rows(client, f"{query} and {created} >= %s", _utc(since)))


def touched_parents(client: Any, parent: Parent, looked: Collection[str]) -> Touched:
    """Return the parents whose rows came with loads that were not `looked` at, without those of
    which only fields have changed that have nothing to do with their list.
    """
    since = overlap_start(max(looked, default=""))
    loads = "_dlt_load_id > %s"
    if looked:
        loads += f" and _dlt_load_id not in ({', '.join(['%s'] * len(looked))})"
    query = f"select id, deleted_at from {table_name(client, parent.table)} where {loads}"
    rows = select_rows(client, query, since, *looked)
    deleted = sorted(str(id) for id, deleted_at in rows if deleted_at is not None)
    present = {str(id) for id, deleted_at in rows if deleted_at is None}
    if parent.fields is not None and present:
        present -= _otherwise_changed(client, parent, parent.fields, loads, since, looked)
    if parent.flag and present:
        present &= {
            str(id)
            for (id,) in existing.rows_by_ids(
                client, parent.table, sorted(present), _with_list(client, parent)
            )
        }
    return Touched(sorted(present), deleted)


def _otherwise_changed(
    client: Any,
    parent: Parent,
    fields: Collection[str],
    loads: str,
    since: str,
    looked: Collection[str],
) -> set[str]:
    """Return the parents that were there before, and of which none of these fields has changed."""
    query = f"select object_id, op, changed from {table_name(client, CHANGES)} where resource = %s and {loads}"
    concerned: dict[str, bool] = {}
    for id, op, changed in select_rows(client, query, parent.table, since, *looked):
        paths = existing.parse_cell(changed) or []
        names = {path.partition(".")[0] for path in paths}
        is_concerned = op in ("c", "d") or not names.isdisjoint(fields)
        concerned[str(id)] = concerned.get(str(id), False) or is_concerned
    return {id for id, is_concerned in concerned.items() if not is_concerned}


def recent_loads(client: Any) -> list[str]:
    """Return the completed loads that the next look is not to look at again."""
    loads = existing.complete_loads(client)
    oldest = overlap_start(max(loads, default=""))
    return sorted(load for load in loads if load > oldest)


def _with_list(client: Any, parent: Parent) -> str:
    """The condition for parents that have a list."""
    return "deleted_at is null" + (
        f" and {client.escape_column_name(parent.flag)}" if parent.flag else ""
    )


def _utc(second: int) -> datetime:
    return datetime.fromtimestamp(second, timezone.utc)


def _count(rows: Sequence[tuple[Any, ...]]) -> int:
    return next((int(count) for (count,) in rows), 0)
