"""What the destination holds already, by id: so that rows that did not change are not written again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dlt.common.destination.exceptions import DestinationUndefinedEntity

from ..resources import Child

IDS_PER_SELECT = 500


def hashes(client: Any, table: str, ids: Sequence[str]) -> dict[str, str]:
    """Return id -> `_hash` of the rows that a complete load brought and that are not deleted; nothing where there is no table."""
    found: dict[str, str] = {}
    name, loads = client.make_qualified_table_name(table), client.make_qualified_table_name("_dlt_loads")
    for some in _slices(ids):
        marks = ", ".join(["%s"] * len(some))
        query = f"select id, _hash from {name} where deleted_at is null and id in ({marks})"
        found.update(_select(client, f"{query} and _dlt_load_id in (select load_id from {loads} where status = 0)", *some))
    return found


def children(client: Any, table: str, child: Child, ids: Sequence[str]) -> dict[str, int]:
    """Return id -> how many children are held that came with the row that is held: a run can stop between the two."""
    found: dict[str, int] = {}
    held, rows = client.make_qualified_table_name(table), client.make_qualified_table_name(child.table)
    for some in _slices(ids):
        marks = ", ".join(["%s"] * len(some))
        query = (
            f"select c.{child.parent}, count(*) from {rows} c join {held} p on p.id = c.{child.parent} "
            f"where p._version = c._version and p.id in ({marks}) group by c.{child.parent}"
        )
        found.update(_select(client, query, *some))
    return found


def owner(client: Any, tables: Sequence[str]) -> tuple[str, bool] | None:
    """Return account id and livemode of the first row found; nothing for an empty dataset."""
    if not client.has_dataset():
        return None
    for table in tables:
        query = f"select account_id, livemode from {client.make_qualified_table_name(table)} limit 1"
        for account_id, livemode in _select(client, query):
            return str(account_id), bool(livemode)
    return None


def _select(client: Any, query: str, *values: Any) -> list[tuple[Any, ...]]:
    try:
        with client.execute_query(query, *values) as cursor:
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows
    except DestinationUndefinedEntity:
        return []


def _slices(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), IDS_PER_SELECT):
        yield ids[start:start + IDS_PER_SELECT]
