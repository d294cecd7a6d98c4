"""Create indexes on the ids by which rows are looked up and merged, for destinations that would
scan a whole table for each id.
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

INDEXED_DESTINATIONS = frozenset({"dlt.destinations.postgres"})
INDEXED_COLUMNS: tuple[tuple[str, str], ...] = (
    *((resource.table, "id") for resource in RESOURCES.values()),
    *(
        (child.table, child.parent)
        for resource in RESOURCES.values()
        for child in resource.children
    ),
    *((CHANGES, column) for column in ("change_id", "object_id", "_dlt_load_id")),
)
UNIQUE_COLUMNS = frozenset(
    {*((resource.table, "id") for resource in RESOURCES.values()), (CHANGES, "change_id")}
)
MISSING_INDEXES = f"""
select c.relname, a.attname from pg_class c
join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
where n.nspname = %s and c.relkind = 'r' and (c.relname, a.attname) in ({", ".join(["(%s, %s)"] * len(INDEXED_COLUMNS))})
and pg_has_role(c.relowner, 'usage') and has_schema_privilege(n.oid, 'create')
and not exists (
    select 1 from pg_index i where i.indrelid = c.oid and i.indkey[0] = a.attnum and i.indisvalid and i.indpred is null
    and (i.indisunique or (c.relname, a.attname) not in ({", ".join(["(%s, %s)"] * len(UNIQUE_COLUMNS))}))
)
"""
INDEX_LOCK_TIMEOUT = "5s"  # neither wait for other writers of the table, nor block them


def create_indexes(client: Any, destination: str) -> None:
    """Index the ids of existing tables that have no index on them; about a second per million rows.

    A table's own ids get a unique index, so that two concurrent runs cannot duplicate a row: the
    later one fails, and can be repeated. If the role lacks the right, or the table is in use, runs
    are only slower, and a later package tries again.
    """
    if destination not in INDEXED_DESTINATIONS:
        return
    with client, suppress(DatabaseException):
        client.execute_sql(f"set lock_timeout = '{INDEX_LOCK_TIMEOUT}'")
        for table, column in (
            client.execute_sql(
                MISSING_INDEXES,
                client.dataset_name,
                *chain.from_iterable((*INDEXED_COLUMNS, *UNIQUE_COLUMNS)),
            )
            or ()
        ):
            if (table, column) not in UNIQUE_COLUMNS or not _create(
                client, table, column, "unique index", OWN_INDEX_SUFFIX
            ):
                _create(client, table, column, "index", "_idx")


def _create(client: Any, table: str, column: str, kind: str, ending: str) -> bool:
    """Create an index. If a table holds an id twice, log it and return False."""
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
