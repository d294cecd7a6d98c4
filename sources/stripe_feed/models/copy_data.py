"""Read the tables and the models of a copy as DuckDB relations, and so as pandas, polars or Arrow."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from ..destination.error_messages import LAKE_PACKAGES
from ..destination.locks import DEFAULT_WAIT
from ..destination.pipeline import copy_names
from ..destination.place import models_schema, normalize_dataset
from ..destination.read import (
    KNOWN_TABLES,
    CopyReader,
    NoSuchTable,
    not_loaded_error,
    open_reader,
    require_one_read,
    unknown_table_error,
)
from ..errors import UsageError
from .copies import reader_database
from .database import existing_relations, existing_tables
from .render import BUILT_IN_TYPES, ModelTarget, load_project

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

T = TypeVar("T")


class Copy:
    """The tables and models of a copy. Each reading opens the copy, takes what it wants into memory
    and closes it: between two readings nothing is open, so that no sync waits for a notebook.

    A reading waits while a sync writes to the file, and sees the copy at one moment; to read several
    tables as of the same moment, join them in `sql`. It returns a relation of DuckDB, which `.df()`
    turns into a pandas data frame, `.pl()` into a polars one and `.to_arrow_table()` into an Arrow
    table; relations of one copy can be joined if one thread made them. Times are in UTC, amounts
    integers in minor units, JSON is text.

    Every method raises `SetupError` if the copy cannot be opened in time.
    """

    def __init__(
        self, database: str | None, destination: str | None, dataset: str, wait: float
    ) -> None:
        import duckdb

        self._place = (database, destination, dataset, wait)
        self._dataset = normalize_dataset(dataset)
        self._memory = duckdb.connect(":memory:")
        self._own = threading.local()  # the connection of each thread

    def tables(self) -> list[str]:
        """The tables that are loaded."""
        return self._read(lambda copy: self._existing(copy, KNOWN_TABLES))

    def models(self) -> list[str]:
        """The models that are built."""
        return self._read(lambda copy: self._existing(copy, load_project().models))

    def table(self, name: str) -> duckdb.DuckDBPyRelation:
        """A whole table or model, such as `invoices` or `mrr_summary`. Raises `UsageError` if there is
        none of that name or the model is not built, `SetupError` if the table is not loaded.
        """
        models = load_project().models
        if name not in KNOWN_TABLES and name not in models:
            raise unknown_table_error(name, (*KNOWN_TABLES, *models))

        def read(copy: CopyReader) -> pa.Table:
            try:
                return copy.arrow(f"select * from {self._relation(copy, name)}")
            except NoSuchTable:
                raise (_not_built_error if name in models else not_loaded_error)(name) from None

        return self._relation_of(self._read(read))

    def sql(self, query: str) -> duckdb.DuckDBPyRelation:
        """The result of one select, in the SQL of the copy's database; in DuckDB and Postgres tables
        and models need no schema. Raises `UsageError` with the database's message.
        """

        def read(copy: CopyReader) -> pa.Table:
            require_one_read(copy, query)
            try:
                return copy.arrow(query)
            except NoSuchTable as fault:
                named = load_project().models.keys() & set(re.findall(r"\w+", query))
                missing = sorted(named - {*self._existing(copy, named)})
                raise _not_built_error(missing[0]) if missing else UsageError(str(fault)) from None

        return self._relation_of(self._read(read))

    def _read(self, work: Callable[[CopyReader], T]) -> T:
        with open_reader(*self._place) as copy:
            return work(copy)

    def _relation_of(self, rows: pa.Table) -> duckdb.DuckDBPyRelation:
        """A relation with these rows, in a connection of this thread: threads that share one block each
        other for ever, one with the connection's lock and one with Python's.
        """
        if not hasattr(self._own, "connection"):
            self._own.connection = self._memory.cursor()
            self._own.connection.execute("set timezone = 'UTC'")
        relation: duckdb.DuckDBPyRelation = self._own.connection.from_arrow(
            rows.rename_columns(_distinct_names(rows.column_names))
        )
        return relation

    def _relation(self, copy: CopyReader, name: str) -> str:
        if name in KNOWN_TABLES:
            return copy.table_name(name)
        schema = models_schema(self._dataset)
        return ModelTarget(copy.dialect, "", self._dataset, schema).relation(name)

    def _existing(self, copy: CopyReader, names: Iterable[str]) -> list[str]:
        if copy.dialect in BUILT_IN_TYPES and self._place[1] not in LAKE_PACKAGES:
            database = reader_database(copy, self._dataset)
            found = {*existing_tables(database), *existing_relations(database)}
            return [name for name in names if name in found]
        return [name for name in names if self._exists(copy, name)]

    def _exists(self, copy: CopyReader, name: str) -> bool:
        try:
            copy.query(f"select 1 from {self._relation(copy, name)} where 1 = 0")
        except (NoSuchTable, UsageError):  # some databases have other words for it
            return False
        return True


def open_copy(
    database: str | None = None,
    *,
    destination: str | None = None,
    dataset: str | None = None,
    account: str | None = None,
    wait: float = DEFAULT_WAIT,
) -> Copy:
    """Read a copy: `open_copy().table("mrr_summary").df()`. Arguments as those of `open_pipeline`.

    Nothing stays open. Raises `SetupError` if there is no copy yet, or if it cannot be opened within
    `wait` seconds.
    """
    database, dataset = copy_names(account, database, destination, dataset)
    with open_reader(database, destination, dataset, wait):
        return Copy(database, destination, dataset, wait)


def _distinct_names(names: Iterable[str]) -> list[str]:
    """The names of columns, with a number for those that came before: two tables joined both have an
    `id`.
    """
    distinct: dict[str, str] = {}  # by what DuckDB, which ignores case, compares
    for name in names:
        new, number = name, 0
        while new.lower() in distinct:
            number += 1
            new = f"{name}_{number}"
        distinct[new.lower()] = new
    return list(distinct.values())


def _not_built_error(name: str) -> UsageError:
    return UsageError(f"The model {name} is not built. Run `stripe-feed models build +{name}`.")
