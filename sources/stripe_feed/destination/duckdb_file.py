"""The DuckDB file of a copy: checked before use, opened with patience, kept open during a load."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import SetupError
from .error_messages import file_problem, is_lock
from .locks import patiently
from .place import place_of

DUCKDB_MEMORY = (
    "200MB"  # a package needs no more; DuckDB's own default would keep whole files in memory
)
DUCKDB_JOBS = 2  # side by side, one thread each


def check_stem(file: Path, dataset: str) -> None:
    """Raise `SetupError` where DuckDB could not tell the file's catalog from the schema in it."""
    if file.stem.lower() == dataset.lower():
        raise SetupError(
            f"The file {file.name} and the dataset {dataset} have the same name, and DuckDB could not tell them apart. "
            "Choose another --database or --dataset."
        )


def duckdb_file(pipeline: Any) -> Path | None:
    """The DuckDB file of a pipeline; nothing for other destinations."""
    if pipeline.destination.destination_type != "dlt.destinations.duckdb":
        return None
    return place_of(pipeline).file


def check_folder(file: Path) -> None:
    """Raise `SetupError` where a file cannot be made beside a database."""
    folder = file.absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK):  # DuckDB writes its log beside the file
        raise SetupError(
            f"The folder {folder.name} of {file.name} cannot be written. "
            "Allow it with `chmod u+wx` (as its owner), or choose another --database."
        )


def check_file(file: Path) -> None:
    """Raise `SetupError` where a DuckDB file cannot be opened for writing, or made. A missing file
    is fine.
    """
    import duckdb

    check_folder(file)
    if not file.exists():
        return
    if not os.access(file, os.W_OK):
        raise SetupError(
            f"{file.name} cannot be written. Allow it with `chmod u+w` (as its owner), or choose another --database."
        )
    try:
        duckdb.connect(str(file)).close()
    except duckdb.Error as fault:
        raise file_problem(file, str(fault)) from None


def patient(client: Any, file: Path, wait: float) -> None:
    """Make a SQL client of a DuckDB file wait for other processes when it is opened."""
    opened = client.open_connection

    def opening() -> Any:
        try:
            return opened()
        except Exception as fault:
            words = str(fault)
            if is_lock(words):
                raise file_problem(file, words) from None
            raise

    client.open_connection = lambda: patiently(opening, wait)


@contextmanager
def held_open(pipeline: Any) -> Iterator[None]:
    """Keep a DuckDB file open in between dlt's jobs, which would else write a checkpoint after
    each; other destinations as is.
    """
    if duckdb_file(pipeline) is None:
        yield
        return
    with pipeline.sql_client() as client:
        client.execute_sql(
            "set wal_autocheckpoint = '1GB'"
        )  # one checkpoint, when the package is complete
        client.execute_sql(f"set memory_limit = '{DUCKDB_MEMORY}'")
        client.execute_sql("set threads = 1")  # dlt's jobs run side by side already
        yield


def give_back_memory() -> None:
    """Return freed memory to the system between packages; the C library would keep it, package
    after package.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)
