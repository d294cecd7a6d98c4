"""Write column descriptions as comments into databases for which dlt does not: catalogs show them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from dlt.destinations.exceptions import DatabaseException

UNCOMMENTED_QUERIES = {
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
"""Queries for columns without a comment, by destination type."""
LOCK_TIMEOUT = "5s"  # a comment does not wait for a writer


def comment_columns(client: Any, destination: str, tables: Mapping[str, Any]) -> None:
    """Comment existing columns that have no comment; `tables` as in dlt's schema.

    If the role has no right to, or the table is in use, the next package tries again.
    """
    if destination not in UNCOMMENTED_QUERIES:
        return
    with client, suppress(DatabaseException):
        uncommented = (
            client.execute_sql(UNCOMMENTED_QUERIES[destination], client.dataset_name) or ()
        )
        comments = {
            (table, column): column_hints["description"]
            for table, column in uncommented
            if (column_hints := tables.get(table, {}).get("columns", {}).get(column))
            and column_hints.get("description")
        }
        if not comments:
            return
        with client.begin_transaction():  # one write to the disk
            if destination == "dlt.destinations.postgres":
                client.execute_sql(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
            client.execute_sql(
                ";\n".join(
                    f"comment on column {client.make_qualified_table_name(table)}."
                    f"{client.escape_column_name(column)} is '{text.replace(chr(39), 2 * chr(39))}'"
                    for (table, column), text in comments.items()
                )
            )
