"""The DuckDB file of a copy: check it before use, wait for other processes, keep it open during a
load.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import SetupError
from .error_messages import file_error, is_lock_error
from .locks import retry_while_locked
from .place import place_of

_DUCKDB_MEMORY = "200MB"  # enough for a package; DuckDB's default would keep whole files in memory
DUCKDB_JOBS = 2  # side by side, one thread each


def check_name_clash(file: Path, dataset: str) -> None:
    """Raise `SetupError` if the file's name equals the dataset's: DuckDB could not tell catalog from
    schema.
    """
    if file.stem.lower() == dataset.lower():
        raise SetupError(
            f"The file {file.name} and the dataset {dataset} have the same name, and DuckDB could not tell them apart. "
            "Choose another --database or --dataset."
        )


def duckdb_path(pipeline: Any) -> Path | None:
    """The DuckDB file of a pipeline; None for other destinations."""
    if pipeline.destination.destination_type != "dlt.destinations.duckdb":
        return None
    return place_of(pipeline).file


def check_folder(file: Path) -> None:
    """Raise `SetupError` if no file can be created next to a database."""
    folder = file.absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK):  # DuckDB writes its log next to the file
        raise SetupError(
            f"The folder {folder.name} of {file.name} cannot be written. "
            "Allow it with `chmod u+wx` (as its owner), or choose another --database."
        )


def check_file(file: Path) -> None:
    """Raise `SetupError` if a DuckDB file cannot be opened for writing, or created. A missing file
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
        raise file_error(file, str(fault)) from None


def wait_for_file(client: Any, file: Path, wait: float) -> None:
    """Make a SQL client wait until no other process has the DuckDB file open."""
    open_connection = client.open_connection

    def open_unlocked() -> Any:
        try:
            return open_connection()
        except Exception as fault:
            text = str(fault)
            if is_lock_error(text):
                raise file_error(file, text) from None
            raise

    client.open_connection = lambda: retry_while_locked(open_unlocked, wait)


@contextmanager
def keep_open(pipeline: Any) -> Iterator[None]:
    """Keep a DuckDB file open between dlt's jobs, so that there is one checkpoint instead of one per
    job. Does nothing for other destinations.
    """
    if duckdb_path(pipeline) is None:
        yield
        return
    with pipeline.sql_client() as client:
        client.execute_sql(
            "set wal_autocheckpoint = '1GB'"
        )  # one checkpoint, when the package is complete
        client.execute_sql(f"set memory_limit = '{_DUCKDB_MEMORY}'")
        client.execute_sql("set threads = 1")  # dlt's jobs run side by side already
        yield


def trim_memory() -> None:
    """Return freed memory to the system between packages; the C library would keep it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)
