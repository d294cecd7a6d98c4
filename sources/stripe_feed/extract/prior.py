"""What the destination holds already, by id: so that rows that did not change are not written again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dlt.common.destination.exceptions import DestinationUndefinedEntity

IDS_PER_SELECT = 500


def hashes(client: Any, table: str, ids: Sequence[str]) -> dict[str, str]:
    """Return id -> `_hash` of the rows that are held and not deleted; nothing where the table does not exist yet."""
    found: dict[str, str] = {}
    name = client.make_qualified_table_name(table)
    for some in _slices(ids):
        marks = ", ".join(["%s"] * len(some))
        query = f"select id, _hash from {name} where deleted_at is null and id in ({marks})"
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
