"""Recreate tables and columns that somebody has dropped: dlt looks at the destination only if its
schema has changed.
"""

from __future__ import annotations

from typing import Any

from dlt.common.schema.typing import (
    LOADS_TABLE_NAME,
    PIPELINE_STATE_TABLE_NAME,
    VERSION_TABLE_NAME,
)
from dlt.common.schema.utils import has_table_seen_data
from dlt.destinations.exceptions import DatabaseException, DatabaseTransientException
from dlt.destinations.job_client_impl import SqlJobClientBase

from ..errors import SetupError
from ..resources import CHANGES, TABLES

_DLT_TABLES = (VERSION_TABLE_NAME, LOADS_TABLE_NAME, PIPELINE_STATE_TABLE_NAME)


def recreate_missing(pipeline: Any) -> None:
    """Recreate missing tables and columns, empty. Raises `SetupError` if a missing column may not be
    null, the user may not use a table, or one of dlt's own is missing: a state that starts anew would
    miss what was deleted since.
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
            for name, columns in client.get_storage_tables([*(expected or TABLES), *_DLT_TABLES])
        }
        lost = [name for name in _DLT_TABLES if not existing.get(name)]
        has_tables = any(existing.get(name) for name in TABLES)  # else a first load ended early
        if lost and has_tables and existing.get(VERSION_TABLE_NAME):
            raise SetupError(
                f"The dataset {client.sql_client.dataset_name} has lost {lost[0]}, a table of dlt that tells how far it was read. "
                "Restore that table from a backup; or sync into a new --dataset, or drop this one and sync again."
            )
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
