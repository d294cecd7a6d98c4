"""Rows that no run has written: looked for, and mended where nothing that Stripe says could."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from dlt.common.destination.exceptions import DestinationUndefinedEntity

from ...destination.state import select_rows, table_name
from ...resources.model import Child
from ..existing import IDS_PER_SELECT


def twice(client: Any, table: str, most: int) -> list[tuple[str, int]]:
    """Some of the ids that have several rows, and how many."""
    query = f"select id, count(*) from {table_name(client, table)} group by id having count(*) > 1 order by id limit {most}"
    return [(str(id), int(count)) for id, count in select_rows(client, query)]


def foreign(client: Any, table: str, account: str, most: int) -> list[str]:
    """Some of the rows that are not an account's, or have no id."""
    query = f"select id from {table_name(client, table)} where id is null or account_id is null or account_id <> %s limit {most}"
    return [str(id) for (id,) in select_rows(client, query, account)]


def ahead(client: Any, table: str, version: int, most: int) -> list[str]:
    """Some of the rows that claim to be newer than this."""
    query = f"select id from {table_name(client, table)} where _version > %s or _version is null limit {most}"
    return [str(id) for (id,) in select_rows(client, query, version)]


def living_between(client: Any, table: str, lo: int, hi: int, most: int) -> set[str]:
    """Some of the rows of what was created in (lo, hi), Unix seconds, and is not deleted."""
    query = f"select id from {table_name(client, table)} where created > %s and created < %s and deleted_at is null limit {most}"
    times = [datetime.fromtimestamp(max(at, 0), timezone.utc) for at in (lo, hi)]
    return {str(id) for (id,) in select_rows(client, query, *times) if id is not None}


def orphans(client: Any, child: Child, parent: str, most: int) -> list[str]:
    """Some of the children whose parent is not held, or deleted."""
    return [
        str(id)
        for (id,) in select_rows(
            client, f"select id from {_astray(client, child, parent)} limit {most}"
        )
    ]


def remove_orphans(client: Any, child: Child, parent: str) -> None:
    """Delete the children whose parent is not held, or deleted."""
    _mend(client, f"delete from {_astray(client, child, parent)}")


def _astray(client: Any, child: Child, parent: str) -> str:
    table = table_name(client, child.table)
    return (
        f"{table} where id is null or not exists (select 1 from {table_name(client, parent)} held "
        f"where held.id = {table}.{child.parent} and held.deleted_at is null)"
    )


def remove(client: Any, table: str, ids: Sequence[str]) -> None:
    """Delete rows by id."""
    for start in range(0, len(ids), IDS_PER_SELECT):
        some = ids[start : start + IDS_PER_SELECT]
        _mend(
            client,
            f"delete from {table_name(client, table)} where id in ({', '.join(['%s'] * len(some))})",
            *some,
        )


def remove_nameless(client: Any, table: str) -> None:
    """Delete the rows without an id."""
    _mend(client, f"delete from {table_name(client, table)} where id is null")


def age(client: Any, table: str, version: int) -> None:
    """Make the rows that claim to be newer than this the oldest of all: nothing could replace them."""
    _mend(
        client,
        f"update {table_name(client, table)} set _version = 0 where _version > %s or _version is null",
        version,
    )


def _mend(client: Any, statement: str, *values: Any) -> None:
    try:
        client.execute_sql(statement, *values)
    except DestinationUndefinedEntity:
        return
