"""dlt's client of a filesystem, for tables in Delta or Iceberg that are merged like a database's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from dlt.common.destination.client import JobClientBase, StateInfo
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.schema.utils import get_columns_names_with_prop
from dlt.destinations.impl.filesystem.filesystem import (
    FilesystemClient,
    ReferenceFollowupJob,
    TableFormatLoadFilesystemJob,
)

from ...errors import SetupError
from ..error_messages import LAKE_PACKAGES, missing_driver_error
from .merge import merge_files
from .sql_client import LakeSqlClient
from .tables import DeltaLakeTable, IcebergLakeTable, LakeFormat, LakeTable

CATALOG_FILE = "catalog.sqlite"  # of Iceberg tables in a folder, if no catalog is configured


class _MergeJob(TableFormatLoadFilesystemJob):
    """Merges the Parquet files of one table, in one commit."""

    def run(self) -> None:
        client: LakeClient = self._job_client  # type: ignore[assignment]
        table: Any = self._load_table
        (key,) = get_columns_names_with_prop(table, "primary_key")
        merge_files(client, self.load_table_name, key, table, self.file_paths)


class LakeClient(FilesystemClient):
    """A dataset in a lake."""

    sql_client_class: ClassVar[type[LakeSqlClient]] = LakeSqlClient

    @property
    def sql_client(self) -> Any:
        if not self._sql_client:
            self._sql_client = LakeSqlClient(self, self.dataset_name)
        return self._sql_client

    @sql_client.setter
    def sql_client(self, client: Any) -> None:
        self._sql_client = client

    @property
    def table_format(self) -> LakeFormat:
        table_format: LakeFormat = self.capabilities.preferred_table_format  # type: ignore[assignment]
        return table_format

    def __init__(self, schema: Any, config: Any, capabilities: Any) -> None:
        """Raises `SetupError` if the package of the table format is not installed."""
        super().__init__(schema, config, capabilities)
        if find_spec(LAKE_PACKAGES[self.table_format]) is None:
            raise missing_driver_error(ImportError(), self.table_format)

    # -- loading

    def get_reference_followup_job_class(  # type: ignore[override]
        self, table: PreparedTableSchema
    ) -> type[ReferenceFollowupJob] | None:
        if table.get("table_format") and table["write_disposition"] == "merge":
            return _MergeJob
        return FilesystemClient.get_reference_followup_job_class(table)

    def verify_schema(
        self, only_tables: Iterable[str] | None = None, new_jobs: Iterable[Any] | None = None
    ) -> list[PreparedTableSchema]:
        """dlt's checks, without those for its own merges, which know no conditions."""
        new_jobs = list(new_jobs or ())
        self._tables_with_jobs = {job.table_name for job in new_jobs}
        return JobClientBase.verify_schema(self, only_tables, new_jobs)  # type: ignore[arg-type]

    # -- bookkeeping

    def _write_to_json_file(self, filepath: str, data: Any) -> None:
        """dlt's record of a load, a state or a schema: whole or not there, also if the run is killed."""
        if not self.is_local_filesystem:
            return super()._write_to_json_file(filepath, data)
        unfinished = Path(filepath).parent.parent / f".{uuid4().hex}.tmp"
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        super()._write_to_json_file(str(unfinished), data)
        os.replace(unfinished, filepath)

    def _iter_stored_schema_files(self) -> Iterator[tuple[str, list[str]]]:
        """dlt's records of schemas; none in a dataset without them, as that for staging."""
        with suppress(DestinationUndefinedEntity):
            yield from super()._iter_stored_schema_files()

    def get_stored_state(self, pipeline_name: str) -> StateInfo | None:
        """The newest state of a completed load, as on a database; dlt's would skip what a killed load
        left out.
        """
        for load_id, path in self.state_files(pipeline_name):
            stored = json.loads(self.fs_client.read_text(path, encoding="utf-8"))
            return StateInfo(**{"_dlt_load_id": load_id, **stored})
        return None

    def completed_loads(self) -> list[tuple[str, str]]:
        """The schema's name and the id of each completed load, from the names of dlt's records."""
        names = [Path(path).stem for path in self._list("_dlt_loads")]
        return [
            (schema, load_id)
            for schema, _, load_id in (name.rpartition("__") for name in names)
            if load_id
        ]

    def state_files(self, pipeline_name: str | None = None) -> list[tuple[str, str]]:
        """The load and the file of each state of a completed load, newest first."""
        completed = {load_id for _, load_id in self.completed_loads()}
        with suppress(DestinationUndefinedEntity):
            files = self._list_dlt_table_files("_dlt_pipeline_state", pipeline_name)  # type: ignore[arg-type]
            found = [(parts[1], path) for path, parts in files if parts[1] in completed]
            return sorted(found, key=lambda state: float(state[0]), reverse=True)
        return []

    def _list(self, folder: str) -> list[str]:
        try:
            return [
                str(path)
                for path in self.fs_client.ls(f"{self.dataset_path}{folder}", detail=False)
            ]
        except FileNotFoundError:
            return []

    # -- tables

    def table_names(self) -> set[str]:
        """The names of the folders in the dataset, without dlt's own."""
        names = {Path(path.rstrip("/")).name for path in self._list("")}
        return {name for name in names if not name.startswith(("_", "."))}

    def open_table(self, name: str) -> LakeTable | None:
        """An existing table; None if there is none. Raises `SetupError` for one in another format."""
        location = self.get_open_table_location(self.table_format, name)
        folder = self.get_table_dir(name)
        log = {"delta": "_delta_log", "iceberg": "metadata"}
        for table_format, entry in log.items():
            if table_format != self.table_format and self.fs_client.exists(f"{folder}{entry}"):
                raise SetupError(
                    f"The dataset {self.dataset_name} holds {table_format} tables. "
                    f"Use --destination {table_format}, or another --dataset."
                )
        if self.table_format == "delta":
            return self._open_delta(location)
        return self._open_iceberg(name, folder)

    def create_table(self, name: str, schema: Any) -> LakeTable:
        """Create a table without rows."""
        location = self.get_open_table_location(self.table_format, name).rstrip("/")
        if self.table_format == "delta":
            from deltalake import DeltaTable

            return DeltaLakeTable(
                DeltaTable.create(
                    location,
                    schema,
                    mode="ignore",
                    storage_options=self._storage_options(),
                    configuration=self.config.deltalake_configuration,
                )
            )
        catalog = self.get_open_table_catalog("iceberg")
        properties = self.config.iceberg_table_properties or {}
        return IcebergLakeTable(
            catalog.create_table(
                f"{self.dataset_name}.{name}", schema, location, properties=properties
            )
        )

    def _open_delta(self, location: str) -> LakeTable | None:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            return DeltaLakeTable(DeltaTable(location, storage_options=self._storage_options()))
        except TableNotFoundError:
            return None

    def _storage_options(self) -> dict[str, str]:
        from dlt.common.libs.deltalake import deltalake_storage_options

        return deltalake_storage_options(
            self.config.credentials, self.config.deltalake_storage_options
        )

    def _open_iceberg(self, name: str, folder: str) -> LakeTable | None:
        from pyiceberg.exceptions import NoSuchTableError

        catalog, identifier = self.get_open_table_catalog("iceberg"), f"{self.dataset_name}.{name}"
        try:
            return IcebergLakeTable(catalog.load_table(identifier))
        except NoSuchTableError:
            newest = self._newest_metadata(folder)
            if newest is None:
                return None
            return IcebergLakeTable(catalog.register_table(identifier, newest))

    def _newest_metadata(self, folder: str) -> str | None:
        """The newest whole metadata of a table that the catalog has lost, as when it was deleted."""
        with suppress(FileNotFoundError):
            names = self.fs_client.ls(f"{folder}metadata", detail=False)
            for path in sorted((str(name) for name in names), reverse=True):
                with suppress(ValueError):
                    if path.endswith(".metadata.json"):
                        json.loads(self.fs_client.read_text(path, encoding="utf-8"))
                        return str(self.make_remote_url(path))
        return None

    def get_open_table_catalog(self, table_format: Any, catalog_name: str | None = None) -> Any:
        """The catalog of Iceberg tables; its namespace is created. Raises as `find_catalog`."""
        if self._catalog is None:
            self._catalog = self.find_catalog()
        return super().get_open_table_catalog(table_format, catalog_name)

    def find_catalog(self) -> Any:
        """The configured catalog of Iceberg tables; for a folder on this machine one in SQLite by
        default. Raises `SetupError` for a bucket without one: a listing tells no order of commits.
        """
        from dlt.common.libs.pyiceberg import (
            _get_fileio_config,
            get_catalog,
            get_sql_catalog,
            is_ephemeral_catalog,
        )

        try:
            catalog = get_catalog()
        except ValueError:  # an incomplete configuration; its values are not shown
            raise SetupError(
                "The catalog of Iceberg tables cannot be opened. Set type, uri and warehouse under "
                "[iceberg_catalog.iceberg_catalog_config] in .dlt/secrets.toml."
            ) from None
        credentials = self.config.credentials
        if not is_ephemeral_catalog(catalog):
            if catalog.properties.get("type") == "sql":
                catalog.properties = _get_fileio_config(credentials) | catalog.properties
            return catalog
        if not self.is_local_filesystem:
            raise SetupError(
                "Iceberg tables in a bucket need a catalog, which keeps two runs from overwriting each "
                "other. Set type, uri and warehouse under [iceberg_catalog.iceberg_catalog_config] in "
                ".dlt/secrets.toml, or use --destination delta."
            )
        self.fs_client.makedirs(self.dataset_path, exist_ok=True)
        file = Path(self.dataset_path, CATALOG_FILE)
        return get_sql_catalog("default", f"sqlite:///{file}", credentials)

    def get_storage_tables(self, table_names: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """Yield the columns that each table really has; none for a missing table."""
        existing = self.table_names()
        for name in table_names:
            table = self.open_table(name) if name in existing else None
            columns = table.contents().schema.names if table is not None else []
            yield name, {column: {"name": column} for column in columns}
