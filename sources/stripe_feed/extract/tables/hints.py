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


def table_hints(
    codec: TableCodec, child: Child | None = None, destination: str = ""
) -> dict[str, Any]:
    """Return the hints of a table. Before a run the type of the destination is unknown."""
    return {
        "table_name": codec.name,
        "primary_key": "id",
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


def newer_wins(names: TableNames) -> dict[str, Any]:
    """Return the merge of a resource's table: a row replaces the stored one unless it is older."""
    return {**MERGE, "source_filter": _no_newer(names.table, "id", "")}


def replace_children(child: Child, parent: TableNames, names: TableNames) -> dict[str, Any]:
    """Return the merge of a child table: the children of a parent replace all stored ones, unless
    the stored parent is newer.
    """
    key = child.parent
    seen = (
        f"select s.{key} from {{staging_table}} s where {_no_newer(parent.table, f's.{key}', 's.')}"
    )
    fresh = _no_newer(parent.table, key, "", (key, names.staging))
    return {
        **MERGE,
        "destination_scope": f"{key} in ({seen})",
        "source_filter": f"id <> {key} and {fresh}",  # tombstones: id = key
    }


def _no_newer(table: str, key: str, alias: str, staged: tuple[str, str] | None = None) -> str:
    # the inner columns are renamed, or the names would bind to the inner table. The correlated
    # max() form is quadratic, and so are two conditions instead of the union, or dlt's hard_delete
    # beside them: PostgreSQL then expects one row and loops
    stored_versions = f"select id as xid, _version as xv from {_escape_braces(table)}"
    if staged:
        stored_versions += (
            f" union all select {staged[0]}, _version from {_escape_braces(staged[1])}"
        )
    return f"not exists (select 1 from ({stored_versions}) xx where xid = {key} and xv > {alias}_version)"


def _escape_braces(name: str) -> str:
    return name.replace("{", "{{").replace("}", "}}")  # dlt formats the conditions


def table_names(client: Any, table: str) -> TableNames:
    """Look up the qualified names of a table with a dlt SQL client."""
    with client.with_staging_dataset():
        staging = client.make_qualified_table_name(table)
    return TableNames(client.make_qualified_table_name(table), staging)
