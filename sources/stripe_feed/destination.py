"""Where the copy lives: the dlt pipeline and its destination, checked before use, and the lock for commands that write."""

from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, TextIO, TypeVar
from weakref import WeakKeyDictionary

from .destination_errors import CAN_WAIT, file_problem, is_lock
from .errors import Locked, SetupError

T = TypeVar("T")
log = logging.getLogger("stripe_feed")

PIPELINE = "stripe_feed"
DATASET = "stripe"
DUCKDB_MEMORY = "200MB"      # a package needs no more; DuckDB's own default would keep whole files in memory
DUCKDB_JOBS = 2              # side by side, one thread each
PAUSE = 0.2                  # seconds between two looks whether a lock is free
WRITES = f"is writing to this pipeline. Run again when it is done; {CAN_WAIT}"
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

    dlt's working files go to `state_dir` (its own folder by default), below that into a folder per destination and dataset: what
    a run left behind for one is never loaded into another, and syncs to different databases do not wait for each other.

    Nothing is opened yet. Raises `SetupError` for a DuckDB file named like its dataset, and for unknown destinations.
    """
    import dlt
    from dlt.common.destination.exceptions import UnknownDestinationModule
    from dlt.common.pipeline import get_dlt_pipelines_dir

    where: Any = destination or "duckdb"
    dataset = normalized(dataset)
    place = f"{where} {os.getcwd()} {dataset}"
    if database is not None and where != "duckdb":
        raise SetupError("--database names a DuckDB file; it does not go with another --destination.")
    if where == "duckdb":
        file = Path(database or f"{name}.duckdb")
        check_stem(file, dataset)
        if not file.absolute().parent.is_dir():
            raise SetupError(f"The folder of {file} does not exist. Create it, or choose another --database.")
        where = dlt.destinations.duckdb(str(file.absolute()), destination_name="duckdb")
        place = f"duckdb {file.absolute().resolve()} {dataset}"
    folder = Path(state_dir or get_dlt_pipelines_dir(), blake2b(place.encode(), digest_size=6).hexdigest())
    try:
        return dlt.pipeline(name, destination=where, dataset_name=dataset, pipelines_dir=str(folder))
    except UnknownDestinationModule:
        raise SetupError(f"dlt knows no destination {destination!r}; it knows duckdb, postgres, snowflake, bigquery, …") from None


def normalized(dataset: str) -> str:
    """The name that dlt gives to a dataset in the destination."""
    if re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", dataset):
        return dataset
    from dlt.common.normalizers.naming.snake_case import NamingConvention

    return NamingConvention().normalize_identifier(dataset)


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
    if pipeline not in _FILES:       # dlt resolves the whole configuration each time
        found = pipeline.destination_client().config.credentials.database
        _FILES[pipeline] = None if str(found).startswith((":", "md:")) else Path(found)
    return _FILES[pipeline]


_FILES: WeakKeyDictionary[Any, Path | None] = WeakKeyDictionary()


def tell_place(pipeline: Any) -> None:
    """Say which file it is, where dlt takes a relative path from the folder that a pipeline of this name began in."""
    file = duckdb_file(pipeline)
    given = str(pipeline.destination.config_params.get("credentials") or "")
    if file is not None and not os.path.isabs(given) and file.parent.resolve() != Path.cwd():
        log.warning(
            "A pipeline named %s began in another folder, so its file is %s. For one in this folder give the pipeline another "
            "name, or dlt.destinations.duckdb an absolute path.", pipeline.pipeline_name, file,
        )


def check(pipeline: Any) -> None:
    """Raise `SetupError` where the destination cannot take a load: no merge, or a file that is locked or too new."""
    require_merge(pipeline.destination)
    file = duckdb_file(pipeline)
    if file is not None:
        check_stem(file, pipeline.dataset_name)
        check_file(file)


def check_file(file: Path) -> None:
    """Raise `SetupError` where a DuckDB file cannot be opened for writing, or made. A missing file is fine."""
    import duckdb

    folder = file.absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK):        # DuckDB writes its log beside the file
        raise SetupError(
            f"The folder {folder.name} of {file.name} cannot be written. "
            "Allow it with `chmod u+wx` (as its owner), or choose another --database."
        )
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


def patiently(work: Callable[[], T], wait: float) -> T:
    """Do work that can be repeated until no other process is in the way. Raises `Locked` after `wait` seconds."""
    waited = 0.0
    while True:
        try:
            return work()
        except Locked as fault:
            if waited >= wait:
                raise
            if not waited:
                log.info("Waiting for up to %g s: %s.", wait, str(fault).partition(". ")[0])
            rest()
            waited += PAUSE


def rest() -> None:
    """Let whoever is in the way go on."""
    time.sleep(PAUSE)


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
def lock(pipeline: Any, what: str, wait: float = 0.0) -> Iterator[None]:
    """Hold the one lock of a pipeline directory. Raises `Locked` that names the holder after `wait` seconds."""
    with lock_file(Path(pipeline.pipelines_dir) / f"{pipeline.pipeline_name}.lock", what, wait):
        yield


@contextmanager
def lock_file(path: Path, what: str, wait: float = 0.0, does: str = WRITES) -> Iterator[None]:
    """Hold the lock that a file is. Raises `Locked` that names the holder, and what it `does`, after `wait` seconds."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as fault:
        raise SetupError(f"{path.parent} cannot be written ({fault.strerror}). Choose another --state-dir.") from None
    with open(opened, "r+", encoding="utf-8") as file:
        patiently(partial(_take, file, does), wait)
        file.seek(0)
        file.truncate()
        json.dump({"pid": os.getpid(), "command": what}, file)
        file.flush()
        yield


def _take(file: TextIO, does: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise Locked(f"{_holder(file.read())} {does}") from None


def _holder(text: str) -> str:
    try:
        held = json.loads(text)
        who = f"`{held['command']}` (process {held['pid']})"
    except (ValueError, KeyError, TypeError):
        who = "another command"
    return who
