"""dlt's hints for each table: keys, columns with descriptions, and a merge in which the newest
version wins.

`merge` / `delete-insert` with a primary key and without nested tables is the one combination that
stays exact when a run is killed between a job's commit and dlt's bookkeeping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...resources.model import Child, ColumnKind
from .codec import NEVER_NULL, TableCodec

DATA_TYPES: dict[ColumnKind, dict[str, Any]] = {
    "text": {"data_type": "text"},
    "ref": {"data_type": "text"},
    "bigint": {"data_type": "bigint"},
    "bool": {"data_type": "bool"},
    "timestamp": {"data_type": "timestamp"},
    "double": {"data_type": "double"},
    "decimal": {"data_type": "decimal", "precision": 38, "scale": 12},
    "json": {"data_type": "json"},
}
ACCOUNT_COLUMN = "account_id"
MERGE = {"disposition": "merge", "strategy": "delete-insert"}
JSON_AS_TEXT = frozenset(
    {
        # would encode the text once more: a JSON string that holds JSON
        "dlt.destinations.sqlalchemy",
        "dlt.destinations.bigquery",  # refuses to read JSON from parquet
    }
)
NO_EMPTY_FILES = frozenset(
    {  # dlt's ADBC jobs fail on a parquet file without rows: tables come with their first row
        "dlt.destinations.postgres",
        "dlt.destinations.mssql",
        "dlt.destinations.sqlalchemy",
    }
)


@dataclass(frozen=True, slots=True)
class TableNames:
    """The qualified names of a table and of its staging table in the destination; known only while
    a pipeline runs.
    """

    table: str
    staging: str


def key_of(name: str, is_shared: bool) -> str | list[str]:
    """The primary key of a table; of one that several accounts share, with the account."""
    return [ACCOUNT_COLUMN, name] if is_shared else name


def table_hints(
    codec: TableCodec, child: Child | None = None, destination: str = "", is_shared: bool = False
) -> dict[str, Any]:
    """Return the hints of a table. Before a run the type of the destination is unknown.
    `is_shared`: several accounts share the table.
    """
    return {
        "table_name": codec.name,
        "primary_key": key_of("id", is_shared),
        "file_format": "parquet",
        "write_disposition": dict(MERGE),
        "columns": column_hints(
            codec, child is not None, "text" if destination in JSON_AS_TEXT else "json"
        ),
    }


def column_hints(
    codec: TableCodec, is_child: bool = False, json_type: str = "json"
) -> dict[str, dict[str, Any]]:
    """Return dlt's columns, in order, each typed and described."""
    types = {**DATA_TYPES, "json": {"data_type": json_type}}
    hints: dict[str, dict[str, Any]] = {}
    for column in codec.all_columns:
        hints[column.name] = {
            "name": column.name,
            **types[column.kind],
            "description": column.description,
            "nullable": column.name not in NEVER_NULL,
        }
    hints["_version"]["dedup_sort"] = "desc"
    if is_child:
        hints["deleted_at"]["description"] = "Always null: children that vanish are removed."
    return hints


def newer_wins(names: TableNames, is_shared: bool = False) -> dict[str, Any]:
    """Return the merge of a resource's table: a row replaces the stored one unless it is older."""
    return {**MERGE, "source_filter": _no_newer(names.table, "id", "", is_shared)}


def replace_children(
    child: Child, parent: TableNames, names: TableNames, is_shared: bool = False
) -> dict[str, Any]:
    """Return the merge of a child table: the children of a parent replace all stored ones, unless
    the stored parent is newer.
    """
    key = child.parent
    key_columns = [key] if not is_shared else [ACCOUNT_COLUMN, key]
    staged_keys = ", ".join(f"s.{name}" for name in key_columns)
    seen = f"select {staged_keys} from {{staging_table}} s where {_no_newer(parent.table, f's.{key}', 's.', is_shared)}"
    fresh = _no_newer(parent.table, key, "", is_shared, (key, names.staging))
    keys = key if not is_shared else f"({', '.join(key_columns)})"
    return {
        **MERGE,
        "destination_scope": f"{keys} in ({seen})",
        "source_filter": f"id <> {key} and {fresh}",  # tombstones: id = key
    }


def _no_newer(
    table: str, key: str, alias: str, is_shared: bool, staged: tuple[str, str] | None = None
) -> str:
    # the inner columns are renamed, or the names would bind to the inner table. The correlated
    # max() form is quadratic, and so are two conditions instead of the union, or dlt's hard_delete
    # beside them: PostgreSQL then expects one row and loops
    account = f"{ACCOUNT_COLUMN} as xa, " if is_shared else ""
    stored_versions = f"select {account}id as xid, _version as xv from {_escape_braces(table)}"
    if staged:
        staged_account = f"{ACCOUNT_COLUMN}, " if is_shared else ""
        stored_versions += f" union all select {staged_account}{staged[0]}, _version from {_escape_braces(staged[1])}"
    same_account = f"xa = {alias}{ACCOUNT_COLUMN} and " if is_shared else ""
    return f"not exists (select 1 from ({stored_versions}) xx where {same_account}xid = {key} and xv > {alias}_version)"


def _escape_braces(name: str) -> str:
    return name.replace("{", "{{").replace("}", "}}")  # dlt formats the conditions


def table_names(client: Any, table: str) -> TableNames:
    """Look up the qualified names of a table with a dlt SQL client."""
    with client.with_staging_dataset():
        staging = client.make_qualified_table_name(table)
    return TableNames(client.make_qualified_table_name(table), staging)
