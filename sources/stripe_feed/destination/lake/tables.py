"""A Delta or Iceberg table of a copy: what is read of it, and one commit that replaces and removes
rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pyarrow as pa

from ...errors import SetupError

LakeFormat = Literal["delta", "iceberg"]
_REMOVED = "_stripe_feed_removed"  # in the source of a Delta merge: rows that go
_UNREADABLE_FEATURES = frozenset({"deletionVectors", "columnMapping"})


@dataclass(frozen=True, slots=True)
class Contents:
    """What a table holds now: the paths of its Parquet files, and its schema."""

    files: list[str]
    schema: pa.Schema


class LakeTable(Protocol):
    """An existing table."""

    def contents(self) -> Contents:
        """Return the current files and the schema. Raises `SetupError` if rows cannot be read from the
        files alone.
        """

    def commit(self, key: str, rows: pa.Table, held: pa.Table) -> None:
        """Put rows in place of the held ones, in one commit: readers see all of it or nothing.

        `held`: the whole stored rows that are replaced or removed, found by `key`; whichever is not
        among `rows` is removed.
        """


@dataclass(frozen=True, slots=True)
class DeltaLakeTable:
    """A Delta table, held by `deltalake.DeltaTable`."""

    table: Any

    def contents(self) -> Contents:
        features = _UNREADABLE_FEATURES & set(self.table.protocol().reader_features or ())
        if features:
            raise _unreadable(self.table.table_uri, ", ".join(sorted(features)))
        return Contents(self.table.file_uris(), pa.schema(self.table.schema().to_arrow()))

    def commit(self, key: str, rows: pa.Table, held: pa.Table) -> None:
        from deltalake import Field, write_deltalake

        stored = pa.schema(self.table.schema().to_arrow())
        if new_fields := [field for field in rows.schema if field.name not in stored.names]:
            self.table.alter.add_columns([Field.from_arrow(field) for field in new_fields])
        if not held.num_rows:
            if rows.num_rows:
                write_deltalake(self.table, rows, mode="append", schema_mode="merge")
            return
        (
            self.table.merge(
                _merge_source(key, rows, held),
                predicate=f"target.{key} = source.{key}",
                source_alias="source",
                target_alias="target",
            )
            .when_matched_delete(f"source.{_REMOVED}")
            .when_matched_update_all(except_cols=[_REMOVED])
            .when_not_matched_insert_all(f"not source.{_REMOVED}", except_cols=[_REMOVED])
            .execute()
        )


def _merge_source(key: str, rows: pa.Table, held: pa.Table) -> pa.Table:
    """The rows to put, and those to remove, told apart by a column."""
    import pyarrow.compute as pc

    gone = held.filter(pc.invert(pc.is_in(held[key], value_set=rows[key].combine_chunks())))
    marked = [
        part.append_column(
            pa.field(_REMOVED, pa.bool_(), nullable=False), pa.repeat(is_removed, part.num_rows)
        )
        for part, is_removed in ((rows, False), (gone.select(rows.column_names), True))
    ]
    return pa.concat_tables(part.cast(marked[0].schema) for part in marked)


@dataclass(frozen=True, slots=True)
class IcebergLakeTable:
    """An Iceberg table, held by `pyiceberg.table.Table`."""

    table: Any

    def contents(self) -> Contents:
        files = []
        for task in self.table.scan().plan_files():
            if task.delete_files:
                raise _unreadable(self.table.location(), "delete files")
            files.append(task.file.file_path)
        return Contents(files, self.table.schema().as_arrow())

    def commit(self, key: str, rows: pa.Table, held: pa.Table) -> None:
        from pyiceberg.expressions import In, Reference

        with self.table.transaction() as transaction:
            if set(rows.column_names) - set(self.table.schema().as_arrow().names):
                with transaction.update_schema() as update:
                    update.union_by_name(rows.schema)
            if held.num_rows:
                ids = set(held[key].to_pylist())
                transaction.delete(In(Reference(key), ids))  # type: ignore[call-arg,arg-type]
            if rows.num_rows:
                transaction.append(rows)


def _quoted(name: str) -> str:
    return f'"{name}"'


def _unreadable(location: str, reason: str) -> SetupError:
    return SetupError(
        f"The table at {location} has {reason}, which another program wrote: its rows cannot be "
        "read from its files. Compact it with that program, then run again."
    )


def file_path(uri: str) -> str:
    """A file's path for DuckDB, from the address that a table format gives it."""
    return uri.removeprefix("file://") if uri.startswith("file:///") else uri


def view_query(contents: Contents, names: Sequence[str]) -> str:
    """The query that reads some columns of a table, null where a file is older than a column."""
    empty = ", ".join(
        f"cast(null as {_duckdb_type(contents.schema.field(name).type)}) as {_quoted(name)}"
        for name in names
    )
    if not contents.files:
        return f"select {empty} where false"
    files = ", ".join("'" + file_path(uri).replace("'", "''") + "'" for uri in contents.files)
    columns = ", ".join(_quoted(name) for name in names)
    return (
        f"select {columns} from (select {empty} where false union all by name "
        f"select * from read_parquet([{files}], union_by_name = true))"
    )


def _duckdb_type(type_: pa.DataType) -> str:
    if pa.types.is_timestamp(type_):
        return "timestamptz" if type_.tz else "timestamp"
    if pa.types.is_decimal(type_):
        return f"decimal({type_.precision}, {type_.scale})"
    return {
        "int32": "integer",
        "int64": "bigint",
        "bool": "boolean",
        "double": "double",
        "float": "float",
        "date32[day]": "date",
    }.get(str(type_), "varchar")
