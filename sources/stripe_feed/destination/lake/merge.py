"""The merge of a package's rows into one table: what dlt's `delete-insert` does on a database, with
the same conditions, worked out by DuckDB and written as one commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from .sql_client import LakeSqlClient

_RANK = "_stripe_feed_rank"  # no table has a column of this name
UNKNOWN_TABLE = "select null::varchar as id, null::bigint as _version where false"


def merge_files(
    client: Any, name: str, key: str, hints: Mapping[str, Any], files: Sequence[str]
) -> None:
    """Merge Parquet files into a table, which is created if it is missing.

    The same files twice change nothing: of each key the newest version is put once, under the same
    condition. Raises what the table format raises if another run has committed meanwhile.
    """
    schema = without_metadata(ds.dataset(list(files)).schema)
    table = client.open_table(name) or client.create_table(name, schema)
    stored = table.contents().schema
    schema = pa.schema([*schema, *(field for field in stored if field.name not in schema.names)])
    sql_client = LakeSqlClient(client, client.dataset_name)
    with sql_client:
        rows, held = _plan(sql_client, name, key, hints, files)
    table.commit(key, rows.select(schema.names).cast(schema), held)


def _plan(
    client: LakeSqlClient, name: str, key: str, hints: Mapping[str, Any], files: Sequence[str]
) -> tuple[pa.Table, pa.Table]:
    """The rows to put, and the stored rows that are replaced or removed."""
    target = client.make_qualified_table_name(name)
    with client.with_staging_dataset():
        schema = client.fully_qualified_dataset_name()
        staging = client.make_qualified_table_name(name)
    paths = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    source_filter = _condition(hints, "x-merge-source-filter", target, staging)
    scope = _condition(hints, "x-merge-destination-scope", target, staging)
    for statement in (
        f"create schema if not exists {schema}",
        f"create or replace view {staging} as select * from read_parquet([{paths}], union_by_name = true)",
    ):
        client.execute_sql(statement)
    client.show_tables(f"{source_filter} {scope} {name}", otherwise=UNKNOWN_TABLE)
    order = next((c for c, one in hints["columns"].items() if one.get("dedup_sort")), "1")
    client.execute_sql(
        f"create temp table accepted as select * exclude ({_RANK}) from (select *, row_number() over "
        f"(partition by {key} order by {order} desc) as {_RANK} from {staging}) where {_RANK} = 1 and {source_filter}"
    )
    columns = f"select * from {target} where false"  # null in a column that the package lacks
    rows = _fetch(client, f"select * from accepted union all by name {columns}")
    found = f"{key} in (select {key} from accepted) or ({scope if scope != 'true' else 'false'})"
    held = _fetch(client, f"select * from {target} where {found}")
    return rows, held


def _condition(hints: Mapping[str, Any], hint: str, target: str, staging: str) -> str:
    condition = hints.get(hint)
    return f"({condition.format(table=target, staging_table=staging)})" if condition else "true"


def _fetch(client: LakeSqlClient, query: str) -> pa.Table:
    result: pa.Table = client.native_connection.execute(query).fetch_arrow_table()
    return result


def without_metadata(schema: pa.Schema) -> pa.Schema:
    """A schema without dlt's and Parquet's notes, which table formats would take for their own."""
    return pa.schema([field.remove_metadata() for field in schema])
