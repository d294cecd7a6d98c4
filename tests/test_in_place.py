"""Packages for a DuckDB file are merged from where they are, without staging tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import pytest

from stripe_feed.destination import duckdb_file
from stripe_feed.destination.duckdb.client import duckdb_in_place
from stripe_feed.destination.duckdb_file import keep_open
from stripe_feed.destination.pipeline import dlt_settings, open_pipeline


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


@pytest.mark.parametrize("whose", ["of the load", "of the table alone"])
def test_a_column_may_have_the_name_that_duckdb_gives_the_number_of_a_row(
    tmp_path: Path, whose: str
) -> None:
    """In the rows of a user's own pipeline, or added to the table by hand."""
    with dlt_settings():
        pipeline = open_pipeline(
            str(tmp_path / "copy.duckdb"), dataset="rows", state_dir=str(tmp_path / "state")
        )
        number = {"file_row_number": [7, 8]} if whose == "of the load" else {}
        load(pipeline, {"id": ["a", "b"], "_version": [1, 1]})
        with pipeline.sql_client() as client:
            if not number:
                client.execute_sql("alter table kept add column file_row_number int default 9")
        load(pipeline, {"id": ["b", "b"], "_version": [2, 3], **number})
        with pipeline.sql_client() as client:
            rows = client.execute_sql("select id, _version, file_row_number from kept order by id")
    assert rows == ([("a", 1, None), ("b", 3, 8)] if number else [("a", 1, 9), ("b", 3, 9)])


@pytest.mark.broad
def test_nested_tables_have_files_of_their_own(tmp_path: Path) -> None:
    """A user's own resource in the pipeline of the copy: its nested rows follow their parents."""
    with dlt_settings():
        pipeline = open_pipeline(
            str(tmp_path / "copy.duckdb"), dataset="rows", state_dir=str(tmp_path / "state")
        )
        load_orders(
            pipeline, {"id": 1, "lines": [{"n": 1}, {"n": 2}]}, {"id": 2, "lines": [{"n": 5}]}
        )
        load_orders(pipeline, {"id": 1, "lines": [{"n": 3}]})
        load_orders(pipeline, {"id": 2, "lines": []})
        with pipeline.sql_client() as client:
            assert client.execute_sql("select id from orders order by id") == [(1,), (2,)]
            assert client.execute_sql("select n from orders__lines") == [(3,)]


@pytest.mark.broad
def test_a_package_may_be_larger_than_the_memory_of_a_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows go to the table one after the other."""
    monkeypatch.setattr(duckdb_file, "LOAD_SETTINGS", ("set memory_limit = '40MB'",))
    text = "".join(chr(97 + n % 26) for n in range(5_000))
    rows = [
        {"id": f"{n}", "_version": version, "note": f"{n * version}{text}"}
        for version in (1, 2)
        for n in range(8_000)
    ]
    with dlt_settings():
        pipeline = open_pipeline(
            str(tmp_path / "copy.duckdb"), dataset="rows", state_dir=str(tmp_path / "state")
        )
        pipeline.extract(kept(*(pa.Table.from_pylist(rows[n::20]) for n in range(20))))
        pipeline.normalize()
        with keep_open(pipeline):
            pipeline.load()
        with pipeline.sql_client() as client:
            found = client.execute_sql("select count(*), sum(_version) from kept")
    assert found == [(8_000, 16_000)]


def load_orders(pipeline: Any, *orders: dict[str, Any]) -> None:
    """Merge some rows with nested ones."""
    pipeline.run(
        dlt.resource(
            list(orders),
            name="orders",
            primary_key="id",
            write_disposition="merge",
            file_format="parquet",
        )
    )


def load(pipeline: Any, columns: dict[str, list[Any]], **options: Any) -> None:
    """Merge some rows."""
    pipeline.run(kept(pa.table(columns)), **options)


def kept(*tables: pa.Table) -> Any:
    """A resource of which the newest row of each key is kept."""
    return dlt.resource(
        list(tables),
        name="kept",
        primary_key="id",
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
        columns={"_version": {"data_type": "bigint", "dedup_sort": "desc"}},
        file_format="parquet",
    )
