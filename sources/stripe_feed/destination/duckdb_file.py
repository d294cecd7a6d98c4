"""The DuckDB file of a copy: check it before use, wait for other processes, keep it open during a
load.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..errors import Locked, SetupError
from .error_messages import file_error, is_lock_error
from .locks import retry_while_locked
from .place import place_of

_DUCKDB_MEMORY = "120MB"  # DuckDB's default would keep whole files in memory
_HEADER_BYTES = 12_288  # https://duckdb.org/docs/stable/internals/storage: three blocks of 4,096
DUCKDB_JOBS = 2  # side by side, one thread each
LOAD_SETTINGS = (
    "set wal_autocheckpoint = '1GB'",  # one checkpoint, when the package is complete
    f"set memory_limit = '{_DUCKDB_MEMORY}'",
    "set threads = 1",  # dlt's jobs run side by side already
)


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
    is fine; what is left of one that could not be created (full disk) is removed.
    """
    import duckdb

    check_folder(file)
    if not file.exists():
        return
    if _remove_if_never_created(file):
        return
    if not os.access(file, os.W_OK):
        raise SetupError(
            f"{file.name} cannot be written. Allow it with `chmod u+w` (as its owner), or choose another --database."
        )
    try:
        duckdb.connect(str(file)).close()
    except duckdb.Error as fault:
        raise file_error(file, str(fault)) from None


def _remove_if_never_created(file: Path) -> bool:
    """Remove a file that ends before or within the headers that DuckDB writes first, and return
    whether it was one: it holds no table. One with a log beside it, or that somebody has locked, as
    DuckDB does while it creates it, stays.

    A whole file is not opened: to close it would give up the lock of this process's DuckDB on it
    (https://man7.org/linux/man-pages/man2/fcntl_locking.2.html).
    """
    target = file.resolve()
    if not target.is_file() or target.stat().st_size >= _HEADER_BYTES:
        return False
    if Path(f"{file}.wal").exists() or Path(f"{target}.wal").exists():
        return False
    try:
        with target.open("r+b") as content:
            fcntl.lockf(content, fcntl.LOCK_EX | fcntl.LOCK_NB)
            start = content.read(_HEADER_BYTES)
            if len(start) == _HEADER_BYTES or (start and start[8:12] != b"DUCK"):
                return False
            target.unlink()
    except OSError:  # DuckDB says what is wrong with it
        return False
    return True


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
def wait_for_readers(pipeline: Any, wait: float) -> Iterator[None]:
    """Inside the block, each connection of dlt to the DuckDB file of a pipeline waits for whoever has
    it open: a load opens it a dozen times, and somebody may read it in between.

    Attempts that fail share `wait` seconds, since callers repeat them. Raises `Locked` after that.
    """
    file = duckdb_path(pipeline)
    if file is None:
        yield
        return
    _make_connections_patient()
    _PATIENCE[file] = [wait, wait]
    try:
        yield
    finally:
        _PATIENCE.pop(file, None)


_PATIENCE: dict[Path, list[float]] = {}  # by file: the seconds that are left, and all


@cache
def _make_connections_patient() -> None:
    """Let dlt's connections to the files in `_PATIENCE` wait, for the rest of the process: syncs in
    several threads come and go.
    """
    from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient

    of_dlt: Any = DuckDbSqlClient
    open_connection = of_dlt.open_connection

    def open_unlocked(client: Any, file: Path) -> Any:
        try:
            return open_connection(client)
        except Exception as fault:
            text = str(fault)
            if is_lock_error(text):
                raise file_error(file, text) from None
            raise

    def open_patiently(client: Any) -> Any:
        file = Path(str(client.credentials.database)).absolute().resolve()
        patience = _PATIENCE.get(file)
        if patience is None:
            return open_connection(client)
        try:
            connection = retry_while_locked(partial(open_unlocked, client, file), patience[0])
        except Locked:
            patience[0] = 0.0
            raise
        patience[0] = patience[1]
        return connection

    of_dlt.open_connection = open_patiently


@contextmanager
def keep_open(pipeline: Any) -> Iterator[None]:
    """Keep a DuckDB file open between dlt's jobs, so that there is one checkpoint instead of one per
    job. Does nothing for other destinations.
    """
    if duckdb_path(pipeline) is None:
        yield
        return
    with pipeline.sql_client() as client:
        for setting in LOAD_SETTINGS:
            client.execute_sql(setting)
        yield


@contextmanager
def hold_open(file: Path) -> Iterator[None]:
    """Keep a DuckDB file open during a short run, which opens it some thirty times: each costs as much
    as a query. Does nothing if the file cannot be opened; the run says why.
    """
    import duckdb

    with ExitStack() as held:
        with suppress(duckdb.Error):
            connection = held.enter_context(closing(duckdb.connect(str(file))))
            for setting in LOAD_SETTINGS:
                connection.execute(setting)
        yield


def trim_memory() -> None:
    """Return freed memory to the system; the C library and Arrow, whose writer of files has a pool of
    its own, would keep it.
    """
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)
