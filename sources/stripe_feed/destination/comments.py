"""The columns' descriptions as comments in the database, where dlt does not write them itself:
catalogs show them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from dlt.destinations.exceptions import DatabaseException

BARE = {
    "dlt.destinations.duckdb": """
        select table_name, column_name from duckdb_columns()
        where database_name = current_database() and schema_name = %s and comment is null
    """,
    "dlt.destinations.postgres": """
        select c.relname, a.attname from pg_class c join pg_namespace n on n.oid = c.relnamespace
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where n.nspname = %s and c.relkind = 'r' and pg_has_role(c.relowner, 'usage') and col_description(c.oid, a.attnum) is null
    """,
}
"""Columns without a comment, by type of the destination."""
LOCK_TIMEOUT = "5s"  # whoever writes to the table is not waited for


def describe(client: Any, destination: str, tables: Mapping[str, Any]) -> None:
    """Comment the columns that are there and have no comment yet, whoever made it; `tables` as in
    dlt's schema.

    Where the role may not, or the table is in use, a later package tries again.
    """
    if destination not in BARE:
        return
    with client, suppress(DatabaseException):
        bare = client.execute_sql(BARE[destination], client.dataset_name) or ()
        wanted = {
            (table, column): found["description"]
            for table, column in bare
            if (found := tables.get(table, {}).get("columns", {}).get(column))
            and found.get("description")
        }
        if not wanted:
            return
        with client.begin_transaction():  # one write to the disk
            if destination == "dlt.destinations.postgres":
                client.execute_sql(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
            for (table, column), text in wanted.items():
                where = (
                    f"{client.make_qualified_table_name(table)}.{client.escape_column_name(column)}"
                )
                client.execute_sql(
                    f"comment on column {where} is '{text.replace(chr(39), 2 * chr(39))}'"
                )
