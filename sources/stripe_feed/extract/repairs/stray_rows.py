"""Find rows that no run has written, and repair those that no answer of Stripe could."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from dlt.common.destination.exceptions import DestinationUndefinedEntity

from ...destination.state import rows_to_change, select_rows, table_name
from ...resources.model import Child, Resource
from ..existing import IDS_PER_SELECT


def duplicate_ids(client: Any, table: str, most: int) -> list[tuple[str, int]]:
    """Return some of the ids with several rows, and how many each has."""
    query = f"select id, count(*) from {table_name(client, table)} group by id having count(*) > 1 order by id limit {most}"
    return [(str(id), int(count)) for id, count in select_rows(client, query)]


def ids_of_shared_hashes(client: Any, table: str, most: int) -> list[str]:
    """Return some ids of rows that share a hash with a row of another id."""
    name = table_name(client, table)
    query = (
        f"select id from {name} where _hash in "
        f"(select _hash from {name} group by _hash having min(id) <> max(id))"
    )
    return [str(id) for (id,) in select_rows(client, query, limit=most) if id is not None]


def foreign_ids(client: Any, table: str, account: str, most: int) -> list[str]:
    """Return some ids of rows that belong to another account, or have no id."""
    query = f"select id from {table_name(client, table)} where id is null or account_id is null or account_id <> %s limit {most}"
    return [str(id) for (id,) in select_rows(client, query, account)]


def future_ids(client: Any, table: str, version: int, most: int) -> list[str]:
    """Return some ids of rows with a version above this one."""
    query = f"select id from {table_name(client, table)} where _version > %s or _version is null limit {most}"
    return [str(id) for (id,) in select_rows(client, query, version)]


def live_ids_between(client: Any, resource: Resource, lo: int, hi: int, most: int) -> set[str]:
    """Return some ids of rows created in (lo, hi), Unix seconds, that are not deleted."""
    created = client.escape_column_name(resource.created_column)
    query = (
        f"select id from {table_name(client, resource.table)} "
        f"where {created} > %s and {created} < %s and deleted_at is null limit {most}"
    )
    times = [datetime.fromtimestamp(max(at, 0), timezone.utc) for at in (lo, hi)]
    return {str(id) for (id,) in select_rows(client, query, *times) if id is not None}


def orphan_ids(client: Any, child: Child, parent: str, most: int) -> list[str]:
    """Return some ids of children whose parent is not stored, or deleted."""
    return [
        str(id)
        for (id,) in select_rows(
            client, f"select id from {_orphans_clause(client, child, parent)} limit {most}"
        )
    ]


def delete_orphans(client: Any, child: Child, parent: str) -> None:
    """Delete the children whose parent is not stored, or deleted."""
    _execute(client, f"delete from {_orphans_clause(client, child, parent)}")


def _orphans_clause(client: Any, child: Child, parent: str) -> str:
    table, condition = rows_to_change(client, child.table)
    return (
        f"{table} where {condition}(id is null or not exists (select 1 from {table_name(client, parent)} held "
        f"where held.id = {table}.{child.parent} and held.deleted_at is null))"
    )


def delete_rows(client: Any, table: str, ids: Sequence[str]) -> None:
    """Delete rows by id."""
    name, condition = rows_to_change(client, table)
    for start in range(0, len(ids), IDS_PER_SELECT):
        batch = ids[start : start + IDS_PER_SELECT]
        _execute(
            client,
            f"delete from {name} where {condition}id in ({', '.join(['%s'] * len(batch))})",
            *batch,
        )


def delete_rows_without_id(client: Any, table: str) -> None:
    """Delete the rows without an id."""
    name, condition = rows_to_change(client, table)
    _execute(client, f"delete from {name} where {condition}id is null")


def reset_future_versions(client: Any, table: str, version: int) -> None:
    """Set rows with a version above this one to the oldest version: no row could replace them."""
    name, condition = rows_to_change(client, table)
    _execute(
        client,
        f"update {name} set _version = 0 where {condition}(_version > %s or _version is null)",
        version,
    )


def _execute(client: Any, statement: str, *values: Any) -> None:
    try:
        client.execute_sql(statement, *values)
    except DestinationUndefinedEntity:
        return
