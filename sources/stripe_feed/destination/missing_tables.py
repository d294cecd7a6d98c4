"""Recreate tables and columns that somebody has dropped: dlt looks at the destination only if its
schema has changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dlt.common.schema.typing import (
    LOADS_TABLE_NAME,
    PIPELINE_STATE_TABLE_NAME,
    VERSION_TABLE_NAME,
)
from dlt.common.schema.utils import has_table_seen_data, pipeline_state_table
from dlt.destinations.exceptions import DatabaseException, DatabaseTransientException
from dlt.destinations.job_client_impl import SqlJobClientBase

from ..errors import SetupError
from ..resources import CHANGES, TABLES

# where a dataset lost one of the last two, dlt takes it for there as long as the first is
_DLT_TABLES = (VERSION_TABLE_NAME, LOADS_TABLE_NAME, PIPELINE_STATE_TABLE_NAME)


def recreate_missing(pipeline: Any) -> None:
    """Recreate missing tables and columns, empty, dlt's own tables too. Raises `SetupError` if a
    missing column may not be null, or the user may not use a table.
    """
    known = pipeline.default_schema.tables if pipeline.default_schema_name else {}
    expected = {
        name: {
            column.lower()
            for column, hints in known[name]["columns"].items()
            if "data_type" in hints
        }
        for name in (*TABLES, CHANGES)
        if name in known and has_table_seen_data(known[name])
    }
    with pipeline.destination_client() as client:
        if not isinstance(client, SqlJobClientBase) or not (
            expected or client.is_storage_initialized()
        ):
            return
        existing = {
            name: {column.lower() for column in columns}
            for name, columns in client.get_storage_tables([*expected, *_DLT_TABLES])
        }
        if existing.get(VERSION_TABLE_NAME):
            _recreate_dlt_tables(client, [name for name in _DLT_TABLES if not existing.get(name)])
        for name in [
            name for name, columns in expected.items() if columns - existing.get(name, set())
        ]:
            try:
                client.update_stored_schema(only_tables=[name], force=True)
            except DatabaseTransientException:
                raise
            except DatabaseException:
                if not existing.get(name):  # information_schema leaves out what a user may not use
                    raise SetupError(
                        f"The user may not use the table {client.sql_client.dataset_name}.{name}, or not create it. "
                        "Let its owner grant all privileges on it, or make this user its owner; then run again."
                    ) from None
                missing = ", ".join(sorted(expected[name] - existing.get(name, set())))
                raise SetupError(
                    f"The table {name} lacks {missing}, and the destination cannot add that to existing rows. "
                    f"Drop the table: the next sync lists it again."
                ) from None


def _recreate_dlt_tables(client: Any, names: Iterable[str]) -> None:
    """Recreate tables of dlt, without storing the schema: it may be that of an empty pipeline."""
    tables = {
        **client.schema.tables,
        PIPELINE_STATE_TABLE_NAME: pipeline_state_table(add_dlt_id=True),
    }
    for name in names:
        client.schema.tables.setdefault(name, tables[name])
        columns = list(tables[name]["columns"].values())
        client.sql_client.execute_many(client._get_table_update_sql(name, columns, False))
