"""Recreate tables and columns that somebody has dropped: dlt looks at the destination only if its
schema has changed.
"""

from __future__ import annotations

from typing import Any

from dlt.common.schema.utils import has_table_seen_data
from dlt.destinations.exceptions import DatabaseException
from dlt.destinations.job_client_impl import SqlJobClientBase

from ..errors import SetupError
from ..resources import CHANGES, TABLES


def recreate_missing(pipeline: Any) -> None:
    """Recreate missing tables and columns, empty. Raises `SetupError` if a missing column may not be
    null.
    """
    if pipeline.default_schema_name is None:
        return  # nothing was ever loaded
    known = pipeline.default_schema.tables
    expected = {
        name: {
            column.lower()
            for column, hints in known[name]["columns"].items()
            if "data_type" in hints
        }
        for name in (*TABLES, CHANGES)
        if name in known and has_table_seen_data(known[name])
    }
    if not expected:
        return
    with pipeline.destination_client() as client:
        if not isinstance(client, SqlJobClientBase):
            return
        existing = {
            name: {column.lower() for column in columns}
            for name, columns in client.get_storage_tables(expected)
        }
        for name in [
            name for name, columns in expected.items() if columns - existing.get(name, set())
        ]:
            try:
                client.update_stored_schema(only_tables=[name], force=True)
            except DatabaseException:
                missing = ", ".join(sorted(expected[name] - existing.get(name, set())))
                raise SetupError(
                    f"The table {name} lacks {missing}, and the destination cannot add that to existing rows. "
                    f"Drop the table: the next sync lists it again."
                ) from None
