"""Tables and columns that somebody has dropped are made again: dlt looks at the destination only
where its schema has changed.
"""

from __future__ import annotations

from typing import Any

from dlt.common.schema.utils import has_table_seen_data
from dlt.destinations.exceptions import DatabaseException
from dlt.destinations.job_client_impl import SqlJobClientBase

from ..errors import SetupError
from ..resources import CHANGES, TABLES


def make_again(pipeline: Any) -> None:
    """Make what our tables lack, empty. Raises `SetupError` where a column that is never null
    cannot come back.
    """
    if pipeline.default_schema_name is None:
        return  # nothing was ever loaded
    known = pipeline.default_schema.tables
    wanted = {
        name: {
            column.lower()
            for column, hints in known[name]["columns"].items()
            if "data_type" in hints
        }
        for name in (*TABLES, CHANGES)
        if name in known and has_table_seen_data(known[name])
    }
    if not wanted:
        return
    with pipeline.destination_client() as client:
        if not isinstance(client, SqlJobClientBase):
            return
        there = {
            name: {column.lower() for column in columns}
            for name, columns in client.get_storage_tables(wanted)
        }
        for name in [name for name, columns in wanted.items() if columns - there.get(name, set())]:
            try:
                client.update_stored_schema(only_tables=[name], force=True)
            except DatabaseException:
                lost = ", ".join(sorted(wanted[name] - there.get(name, set())))
                raise SetupError(
                    f"The table {name} lacks {lost}, and the destination cannot add that to rows that are there. "
                    f"Drop the table: the next sync lists it again."
                ) from None
