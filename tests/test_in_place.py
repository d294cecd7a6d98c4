"""Packages for a DuckDB file are merged from where they are, without staging tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa

from stripe_feed.destination.duckdb.client import duckdb_in_place
from stripe_feed.destination.pipeline import dlt_settings


def test_files_are_merged_where_they_are(tmp_path: Path) -> None:
    """In a folder of any name, the newest row of each key; null in a column that a file lacks."""
    with dlt_settings():
        pipeline = dlt.pipeline(
            "in_place",
            destination=duckdb_in_place(str(tmp_path / "copy.duckdb"), destination_name="duckdb"),
            dataset_name="rows",
            pipelines_dir=str(tmp_path / "it's; one's\nfolder"),
        )
        load(pipeline, {"id": ["a", "b", "b"], "_version": [1, 1, 2], "note": ["x", "old", "new"]})
        load(pipeline, {"id": ["a"], "_version": [2]})
        with pipeline.sql_client() as client:
            rows = client.execute_sql("select id, _version, note from kept order by id")
            tables = client.execute_sql(
                "select table_name from information_schema.tables where table_schema = 'rows_staging'"
            )
        assert rows == [("a", 2, None), ("b", 2, "new")]
        assert tables == []
        load(pipeline, {"id": ["c"], "_version": [1]}, refresh="drop_sources")
        with pipeline.sql_client() as client:
            assert client.execute_sql("select id from kept") == [("c",)]


def load(pipeline: Any, columns: dict[str, list[Any]], **options: Any) -> None:
    """Merge some rows."""
    kept = dlt.resource(
        [pa.table(columns)],
        name="kept",
        primary_key="id",
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
        columns={"_version": {"data_type": "bigint", "dedup_sort": "desc"}},
        file_format="parquet",
    )
    pipeline.run(kept, **options)
