"""What dlt is told about each table: keys, columns with descriptions, and a merge in which the
newest version wins.

`merge` / `delete-insert` with a primary key and without nested tables is the one combination that
stays exact when a run is killed between a job's commit and dlt's bookkeeping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...resources.model import Child, ColumnKind
from .codec import NEVER_NULL, Shape

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
class Names:
    """The qualified names of a table and its staging twin in the destination; known only while a
    pipeline runs.
    """

    table: str
    staging: str


def table_hints(shape: Shape, child: Child | None = None, destination: str = "") -> dict[str, Any]:
    """The hints of a table; before a run the type of the destination is not known."""
    return {
        "table_name": shape.name,
        "primary_key": "id",
        "file_format": "parquet",
        "write_disposition": dict(MERGE),
        "columns": columns(
            shape, child is not None, "text" if destination in JSON_AS_TEXT else "json"
        ),
    }


def columns(
    shape: Shape, is_child: bool = False, json_type: str = "json"
) -> dict[str, dict[str, Any]]:
    """dlt's columns, in order, each typed and described."""
    types = {**DATA_TYPES, "json": {"data_type": json_type}}
    found: dict[str, dict[str, Any]] = {}
    for column in shape.all_columns:
        found[column.name] = {
            "name": column.name,
            **types[column.kind],
            "description": column.description,
            "nullable": column.name not in NEVER_NULL,
        }
    found["_version"]["dedup_sort"] = "desc"
    if is_child:
        found["deleted_at"]["description"] = "Always null: children that vanish are removed."
    return found


def newer_wins(names: Names) -> dict[str, Any]:
    """The merge of a resource's table: a row that is older than the one held is left out, a tie
    replaces it.
    """
    return {**MERGE, "source_filter": _no_newer(names.table, "id", "")}


def whole_lists(child: Child, parent: Names, names: Names) -> dict[str, Any]:
    """The merge of a child table: all children of the parents seen give way, unless the parent held
    is newer.
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
    # the inner columns are renamed, or the names would bind to the inner table; the correlated
    # max() form is quadratic, and so
    # are two conditions instead of the union, or dlt's hard_delete beside them: PostgreSQL then
    # expects one row and loops
    held = f"select id as xid, _version as xv from {_plain(table)}"
    if staged:
        held += f" union all select {staged[0]}, _version from {_plain(staged[1])}"
    return f"not exists (select 1 from ({held}) xx where xid = {key} and xv > {alias}_version)"


def _plain(name: str) -> str:
    return name.replace("{", "{{").replace("}", "}}")  # dlt formats the conditions


def names_of(client: Any, table: str) -> Names:
    """The qualified names of a table, from a dlt SQL client."""
    with client.with_staging_dataset():
        staging = client.make_qualified_table_name(table)
    return Names(client.make_qualified_table_name(table), staging)
