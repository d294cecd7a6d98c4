"""dlt's DuckDB destination, with merges that read the Parquet files of a package where they are.

dlt copies them to staging tables first, which writes each row to the database twice. Its merge chooses
among whole rows, which holds them in memory thrice; here it chooses among their places in the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dlt.common.destination import PreparedTableSchema
from dlt.common.destination.client import FollowupJobRequest, LoadJob
from dlt.common.schema.utils import get_nested_tables, get_root_table
from dlt.common.storages.load_package import LoadJobInfo
from dlt.destinations.impl.duckdb.duck import DuckDbClient, DuckDbCopyJob
from dlt.destinations.impl.duckdb.factory import duckdb
from dlt.destinations.sql_client import SqlClientBase
from dlt.destinations.sql_jobs import SqlMergeFollowupJob

_FILES = "x-stripe-feed-files"  # in dlt's description of a table: the files to merge
_FILE = "_dlt_file"  # dlt reserves names that begin so
_PLACE = (_FILE, "file_row_number")  # DuckDB gives the name of the second


class duckdb_in_place(duckdb):
    """The destination; dlt knows it as its own, and so may load what it left."""

    @property
    def destination_type(self) -> str:
        return "dlt.destinations.duckdb"

    @property
    def client_class(self) -> type[InPlaceClient]:
        return InPlaceClient


class InPlaceClient(DuckDbClient):
    """A DuckDB file whose merges need no staging tables."""

    def initialize_storage(self, truncate_tables: Iterable[str] | None = None) -> None:
        """Create the dataset, or empty these tables; do nothing if there are none to empty: a staging
        dataset without dlt's own tables would fail the next refresh.
        """
        tables = None if truncate_tables is None else list(truncate_tables)
        if tables != []:
            super().initialize_storage(tables)  # type: ignore[arg-type]

    def should_load_data_to_staging_dataset(self, table_name: str) -> bool:
        """Whether a table is loaded through a staging table."""
        is_in_place = self._is_in_place(self.prepare_load_table(table_name))
        return not is_in_place and super().should_load_data_to_staging_dataset(table_name)

    def create_load_job(
        self, table: PreparedTableSchema, file_path: str, load_id: str, restore: bool = False
    ) -> LoadJob:
        job = super().create_load_job(table, file_path, load_id, restore)
        is_file = isinstance(job, DuckDbCopyJob)
        return InPlaceJob(file_path) if is_file and self._is_in_place(table) else job

    def create_table_chain_completed_followup_jobs(
        self,
        table_chain: Sequence[PreparedTableSchema],
        completed_table_chain_jobs: Sequence[LoadJobInfo] | None = None,
    ) -> list[FollowupJobRequest]:
        """The merge of a table, once all its files are there."""
        jobs, chain = completed_table_chain_jobs or (), list[Any](table_chain)
        if self._is_in_place(chain[0]):
            files: dict[str, list[str]] = {table["name"]: [] for table in chain}
            for job in jobs:
                if job.file_path.endswith(".parquet"):
                    files[job.job_file_info.table_name].append(job.file_path)
            chain = [{**table, _FILES: files[table["name"]]} for table in chain]
        return super().create_table_chain_completed_followup_jobs(chain, completed_table_chain_jobs)

    def _create_merge_followup_jobs(
        self, table_chain: Sequence[PreparedTableSchema]
    ) -> list[FollowupJobRequest]:
        merge = _InPlaceMerge if self._is_in_place(table_chain[0]) else SqlMergeFollowupJob
        return [merge.from_table_chain(table_chain, self.sql_client)]

    def _is_in_place(self, table: PreparedTableSchema) -> bool:
        """Whether a table is merged from its files: not if it or one of its nested tables has a column
        of the name that a place needs.
        """
        if table["write_disposition"] != "merge" or table.get("file_format") != "parquet":
            return False
        tables = self.schema.tables
        root = get_root_table(tables, str(table["name"]))
        chain = get_nested_tables(tables, str(root["name"]))
        return not any(_PLACE[1] in one["columns"] for one in chain)


class InPlaceJob(DuckDbCopyJob):
    """Leaves the rows in their file, for the merge that follows."""

    def run(self) -> None:
        """Do nothing."""


class _InPlaceMerge(SqlMergeFollowupJob):
    @classmethod
    def generate_sql(
        cls, table_chain: Sequence[PreparedTableSchema], sql_client: SqlClientBase[Any]
    ) -> list[str]:
        """dlt's merge, with the files of each table in place of its staging table. A column that they
        lack is null, as it would be there.
        """
        statements = super().generate_sql(table_chain, sql_client)
        for table in list[Any](table_chain):
            target, staging = sql_client.get_qualified_table_names(table["name"])
            names = ", ".join(map(sql_client.escape_column_name, table["columns"]))
            rows = _rows_of(table[_FILES], names, target)
            statements = [statement.replace(staging, rows) for statement in statements]
        return statements

    @classmethod
    def gen_select_from_dedup_sql(
        cls,
        table_name: str,
        primary_keys: Sequence[str],
        columns: Sequence[str],
        dedup_sort: tuple[str, Any] | None = None,
        condition: str | None = None,
        condition_columns: Sequence[str] | None = None,
        skip_dedup: bool = False,
    ) -> str:
        """dlt's choice of rows, by their places; then the rows at these places, one after the other."""
        places = super().gen_select_from_dedup_sql(
            table_name,
            primary_keys,
            _PLACE,
            dedup_sort,  # type: ignore[arg-type]  # dlt means None, too
            "1 = 1" if condition is None else condition,
            [*columns, *(condition_columns or ())],
            skip_dedup,
        )
        place = ", ".join(_PLACE)
        return f"SELECT {', '.join(columns)} FROM {table_name} WHERE ({place}) IN ({places})"


def _rows_of(files: list[str], columns: str, target: str) -> str:
    """A subquery of the rows in the files and their places, with the columns of the table that they
    go to; without those that somebody added there.
    """
    empty = f"select {columns}, null as {_PLACE[0]}, null as {_PLACE[1]} from {target} where false"
    if not files:  # of a nested table
        return f"({empty})"
    paths = ", ".join(map(_literal, files))
    return (
        f"(select * from read_parquet([{paths}], union_by_name = true, filename = '{_FILE}', "
        f"file_row_number = true) union all by name {empty})"
    )


def _literal(path: str) -> str:
    """A path in SQL that dlt may split at semicolons and lines."""
    text = path.replace("'", "''")
    for character in ";\n":
        text = text.replace(character, f"' || chr({ord(character)}) || '")
    return f"'{text}'"
