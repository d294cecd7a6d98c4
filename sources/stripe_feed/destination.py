"""Where the copy lives: the dlt pipeline and its destination, checked before use, and the lock for commands that write."""

from __future__ import annotations

import ctypes
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .destination_errors import connection_problem, file_problem, is_lock, require_dataset, require_file
from .errors import SetupError
from .locks import PATIENCE, lock_file, patiently
from .place import DATASET, LOCK, Place, beside, in_file, normalized, place_of, remember

log = logging.getLogger("stripe_feed")

PIPELINE = "stripe_feed"
DUCKDB_MEMORY = "200MB"      # a package needs no more; DuckDB's own default would keep whole files in memory
DUCKDB_JOBS = 2              # side by side, one thread each
SETTINGS = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "LOAD__DELETE_COMPLETED_JOBS": "true",          # no personal data stays in dlt's folder
    "LOAD__TRUNCATE_STAGING_DATASET": "true",       # nor a second copy in the destination
    "ENABLE_RUNTIME_TRACE": "false",                # it would keep what a database says of a row that it refuses
}


def open_pipeline(
    database: str | None = None, destination: str | None = None, dataset: str = DATASET, state_dir: str | None = None,
    name: str = PIPELINE,
) -> Any:
    """Return the dlt pipeline of a copy. `database` is a DuckDB file; `destination` any dlt destination by name.

    dlt's working files go to `state_dir` (its own folder by default), below that into a folder per database and dataset: what
    a run left behind for one is never loaded into another, and syncs to different databases do not wait for each other.

    Nothing is opened yet. Raises `SetupError` for a DuckDB file named like its dataset, for unknown destinations, and for those
    without credentials.
    """
    import dlt

    found = place_named(database, destination, dataset, name)
    where: Any = destination
    if destination in (None, "duckdb"):
        where = dlt.destinations.duckdb(str(Path(database or f"{name}.duckdb").absolute()), destination_name="duckdb")
    folder = state_root(state_dir) / found.key
    pipeline = dlt.pipeline(name, destination=where, dataset_name=found.dataset, pipelines_dir=str(folder))
    remember(pipeline, found)
    return pipeline


def state_root(state_dir: str | None) -> Path:
    """The folder of `--state-dir`; dlt's own by default."""
    from dlt.common.pipeline import get_dlt_pipelines_dir

    return Path(state_dir or get_dlt_pipelines_dir())


def place_named(database: str | None, destination: str | None, dataset: str = DATASET, name: str = PIPELINE) -> Place:
    """Where a copy is that is named as for `open_pipeline`."""
    require_dataset(dataset)
    dataset = normalized(dataset)
    if destination not in (None, "duckdb"):
        if database is not None:
            raise SetupError("--database names a DuckDB file; it does not go with another --destination.")
        return _place(destination, dataset, name)
    require_file(f"{name}.duckdb" if database is None else database)
    file = Path(database or f"{name}.duckdb")
    check_stem(file, dataset)
    if not file.absolute().parent.is_dir():
        raise SetupError(f"The folder of {file} does not exist. Create it, or choose another --database.")
    return in_file("duckdb", file, dataset)


def _place(destination: str, dataset: str, name: str) -> Place:
    """Where dlt's configuration leads to, asked of a pipeline that is thrown away: its folder would have to be known before."""
    import dlt
    from dlt.common.destination.exceptions import UnknownDestinationModule

    try:
        with tempfile.TemporaryDirectory(prefix="stripe-feed-") as folder:
            trial = dlt.pipeline(name, destination=destination, dataset_name=dataset, pipelines_dir=folder)
            try:
                return place_of(trial)
            except Exception as fault:
                raise connection_problem(trial, fault) from None
            finally:
                trial.deactivate()
    except UnknownDestinationModule:
        raise SetupError(f"dlt knows no destination {destination!r}; it knows duckdb, postgres, snowflake, bigquery, …") from None


def check_stem(file: Path, dataset: str) -> None:
    """Raise `SetupError` where DuckDB could not tell the file's catalog from the schema in it."""
    if file.stem.lower() == dataset.lower():
        raise SetupError(
            f"The file {file.name} and the dataset {dataset} have the same name, and DuckDB could not tell them apart. "
            "Choose another --database or --dataset."
        )


def require_merge(destination: Any) -> None:
    """Raise `SetupError` for a destination that cannot merge exactly, before anything is read."""
    if "delete-insert" not in (destination.capabilities().supported_merge_strategies or []):
        raise SetupError(
            f"The destination {destination.destination_name} cannot merge with delete-insert, so rows would pile up or double. "
            "Use a SQL destination, such as duckdb, postgres, snowflake, bigquery or sqlalchemy."
        )


def duckdb_file(pipeline: Any) -> Path | None:
    """The DuckDB file of a pipeline; nothing for other destinations."""
    if pipeline.destination.destination_type != "dlt.destinations.duckdb":
        return None
    return place_of(pipeline).file


def check(pipeline: Any) -> None:
    """Raise `SetupError` where the destination cannot take a load: no merge, or a file that is locked or too new."""
    require_merge(pipeline.destination)
    file = duckdb_file(pipeline)
    if file is not None:
        check_stem(file, pipeline.dataset_name)
        check_file(file)


def check_folder(file: Path) -> None:
    """Raise `SetupError` where a file cannot be made beside a database."""
    folder = file.absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK):        # DuckDB writes its log beside the file
        raise SetupError(
            f"The folder {folder.name} of {file.name} cannot be written. "
            "Allow it with `chmod u+wx` (as its owner), or choose another --database."
        )


def check_file(file: Path) -> None:
    """Raise `SetupError` where a DuckDB file cannot be opened for writing, or made. A missing file is fine."""
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
    """Keep a DuckDB file open in between dlt's jobs, which would else write a checkpoint after each; other destinations as is."""
    if duckdb_file(pipeline) is None:
        yield
        return
    with pipeline.sql_client() as client:
        client.execute_sql("set wal_autocheckpoint = '1GB'")     # one checkpoint, when the package is complete
        client.execute_sql(f"set memory_limit = '{DUCKDB_MEMORY}'")
        client.execute_sql("set threads = 1")                    # dlt's jobs run side by side already
        yield


def give_back_memory() -> None:
    """Return freed memory to the system between packages; the C library would keep it, package after package."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)      # glibc only
    if trim is not None:
        trim(0)


@contextmanager
def settings() -> Iterator[None]:
    """Our settings for dlt while a command runs; what the environment says already stays. New files are the user's own."""
    mask = os.umask(0o077)
    added = {name: value for name, value in SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        os.umask(mask)
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def lock(pipeline: Any, what: str, wait: float = PATIENCE) -> Iterator[None]:
    """Hold the one lock of a copy on this machine. Raises `Locked` that names the holder after `wait` seconds."""
    file = place_of(pipeline).file
    if file is not None:
        check_folder(file)
    with lock_file(beside(pipeline, LOCK), what, wait):
        if _is_half_gone(pipeline):
            pipeline.drop()
        yield


def _is_half_gone(pipeline: Any) -> bool:
    """Whether a run was killed while it deleted the working folder of a copy: dlt would stumble over the rest for ever.

    What is in it, a package that waits too, comes from the destination and from Stripe again.
    """
    from dlt.common.exceptions import DltException

    try:
        return pipeline.default_schema_name is not None and pipeline.default_schema is None
    except (DltException, OSError, ValueError):
        return Path(pipeline.pipelines_dir).name == place_of(pipeline).key
