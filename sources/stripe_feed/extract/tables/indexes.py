"""Indexes on the ids by which rows are looked up and merged, for a destination that would read a
whole table for each of them.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from itertools import chain
from typing import Any

from dlt.destinations.exceptions import DatabaseException

from ...destination.error_messages import OWN_INDEX_SUFFIX, UNIQUE_INDEX, find_reason
from ...resources import CHANGES, RESOURCES

log = logging.getLogger("stripe_feed")

INDEXED = frozenset({"dlt.destinations.postgres"})
KEYS: tuple[tuple[str, str], ...] = (
    *((resource.table, "id") for resource in RESOURCES.values()),
    *(
        (child.table, child.parent)
        for resource in RESOURCES.values()
        for child in resource.children
    ),
    *((CHANGES, column) for column in ("change_id", "object_id", "_dlt_load_id")),
)
SINGLE = frozenset(
    {*((resource.table, "id") for resource in RESOURCES.values()), (CHANGES, "change_id")}
)
MISSING = f"""
select c.relname, a.attname from pg_class c
join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
where n.nspname = %s and c.relkind = 'r' and (c.relname, a.attname) in ({", ".join(["(%s, %s)"] * len(KEYS))})
and pg_has_role(c.relowner, 'usage') and has_schema_privilege(n.oid, 'create')
and not exists (
    select 1 from pg_index i where i.indrelid = c.oid and i.indkey[0] = a.attnum and i.indisvalid and i.indpred is null
    and (i.indisunique or (c.relname, a.attname) not in ({", ".join(["(%s, %s)"] * len(SINGLE))}))
)
"""
LOCK_TIMEOUT = "5s"  # whoever writes to the table is not waited for, nor made to wait behind us


def index(client: Any, destination: str) -> None:
    """Index the ids of the tables that are there and have no index on them yet, whoever made it; a
    second or so per million rows.

    A table's own ids are unique there, so that two runs at once cannot double a row: the later one
    fails, and is to be repeated. Where the role may not, or the table is in use, the copy is as
    right, only slower, and a later package tries again.
    """
    if destination not in INDEXED:
        return
    with client, suppress(DatabaseException):
        client.execute_sql(f"set lock_timeout = '{LOCK_TIMEOUT}'")
        for table, column in (
            client.execute_sql(MISSING, client.dataset_name, *chain.from_iterable((*KEYS, *SINGLE)))
            or ()
        ):
            if (table, column) not in SINGLE or not _create(
                client, table, column, "unique index", OWN_INDEX_SUFFIX
            ):
                _create(client, table, column, "index", "_idx")


def _create(client: Any, table: str, column: str, kind: str, ending: str) -> bool:
    """Make an index; false where an id is there twice, which is said."""
    name, on = (
        client.escape_column_name(f"{table}_{column}{ending}"),
        client.make_qualified_table_name(table),
    )
    try:
        client.execute_sql(
            f"create {kind} if not exists {name} on {on} ({client.escape_column_name(column)})"
        )
    except DatabaseException as fault:
        if (find_reason(fault) or [None])[0] is not UNIQUE_INDEX:
            raise
        log.warning("%s holds some rows twice. Run `stripe-feed reconcile`.", table)
        return False
    return True
