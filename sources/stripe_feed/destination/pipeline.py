"""The dlt pipeline of a copy: open it, check its destination, lock it for commands that write."""

from __future__ import annotations

import gc
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..api.credentials import check_account
from ..errors import SetupError
from .duckdb_file import check_file, check_folder, check_name_clash, duckdb_path
from .error_messages import LAKE_PACKAGES, connection_error, require_dataset, require_file
from .locks import DEFAULT_WAIT, lock_file
from .place import (
    DEFAULT_DATASET,
    LOCK_SUFFIX,
    Place,
    companion_file,
    normalize_dataset,
    place_in_file,
    place_of,
    set_place,
)

log = logging.getLogger("stripe_feed")

DEFAULT_PIPELINE = "stripe_feed"
TRACE = "ENABLE_RUNTIME_TRACE"
DLT_SETTINGS = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "LOAD__DELETE_COMPLETED_JOBS": "true",  # leave no personal data in dlt's folder
    "LOAD__TRUNCATE_STAGING_DATASET": "true",  # nor a second copy in the destination
    TRACE: "false",  # it would keep a database's text about a row that it refuses
}


def open_pipeline(
    database: str | None = None,
    destination: str | None = None,
    dataset: str | None = None,
    state_dir: str | None = None,
    name: str = DEFAULT_PIPELINE,
    account: str | None = None,
) -> Any:
    """Return the dlt pipeline of a copy. `database` is a DuckDB file; `destination` any dlt
    destination by name. `account`: the copy of a connected account, whose id is in the default names
    of its file and dataset.

    dlt's working files go to a folder per database and dataset below `state_dir` (by default dlt's
    own folder): a package for one is never loaded into another, and syncs to different databases do
    not wait for each other.

    Nothing is opened yet. Raises `SetupError` for a DuckDB file named like its dataset, for unknown
    destinations, and for those without credentials.
    """
    import dlt

    database, dataset = copy_names(account, database, destination, dataset, name)
    place = resolve_place(database, destination, dataset, name)
    resolved: Any
    if destination in (None, "duckdb"):
        file = Path(database or f"{name}.duckdb").absolute()
        resolved = _duckdb_destination(file)
    else:
        resolved = _named_destination(destination)
    _cache_capabilities(resolved)
    folder = state_root(state_dir) / place.key
    pipeline = dlt.pipeline(
        name, destination=resolved, dataset_name=place.dataset, pipelines_dir=str(folder)
    )
    set_place(pipeline, place)
    return pipeline


def _duckdb_destination(file: Path) -> Any:
    from .duckdb.client import duckdb_in_place

    return duckdb_in_place(str(file), destination_name="duckdb")


def _named_destination(name: str) -> Any:
    """A destination of dlt, or a lake, by name."""
    from dlt.common.destination import Destination

    if name not in LAKE_PACKAGES:
        return Destination.from_reference(name)
    from .lake.factory import LAKES

    return LAKES[name]()


def _cache_capabilities(destination: Any) -> None:
    """Resolve a destination's capabilities once per naming convention.

    dlt asks for them some twenty times a run and reads its whole configuration each time: an eighth
    of a small run.
    """
    resolve, cached = destination.capabilities, {}

    def capabilities(config: Any = None, naming: Any = None) -> Any:
        if config is not None:
            return resolve(config, naming)
        if type(naming) not in cached:
            cached[type(naming)] = resolve(None, naming)
        return cached[type(naming)].copy()

    destination.capabilities = capabilities


def state_root(state_dir: str | None) -> Path:
    """The folder of `--state-dir`; dlt's own by default."""
    from dlt.common.pipeline import get_dlt_pipelines_dir

    return Path(state_dir or get_dlt_pipelines_dir())


def copy_names(
    account: str | None,
    database: str | None,
    destination: str | None,
    dataset: str | None,
    name: str = DEFAULT_PIPELINE,
) -> tuple[str | None, str]:
    """The DuckDB file and the dataset of a copy; those that are not given have a default. The copy of
    a connected account has its id in both, in lower case, as databases fold names.

    Raises `UsageError` for an id that is none.
    """
    if account is None:
        return database, DEFAULT_DATASET if dataset is None else dataset
    ending = check_account(account).lower()
    if database is None and destination in (None, "duckdb"):
        database = f"{name}_{ending}.duckdb"
    return database, f"{DEFAULT_DATASET}_{ending}" if dataset is None else dataset


def resolve_place(
    database: str | None,
    destination: str | None,
    dataset: str = DEFAULT_DATASET,
    name: str = DEFAULT_PIPELINE,
) -> Place:
    """The place of a copy, from the same arguments as `open_pipeline`."""
    require_dataset(dataset)
    dataset = normalize_dataset(dataset)
    if destination not in (None, "duckdb"):
        if database is not None:
            raise SetupError(
                "--database names a DuckDB file; it does not go with another --destination."
            )
        return _configured_place(destination, dataset, name)
    require_file(f"{name}.duckdb" if database is None else database)
    file = Path(database or f"{name}.duckdb")
    check_name_clash(file, dataset)
    if not file.absolute().parent.is_dir():
        raise SetupError(
            f"The folder of {file} does not exist. Create it, or choose another --database."
        )
    return place_in_file("duckdb", file, dataset)


def _configured_place(destination: str, dataset: str, name: str) -> Place:
    """The place that dlt's configuration leads to, from a temporary pipeline: the real one needs the
    place for its folder.
    """
    import dlt
    from dlt.common.destination.exceptions import UnknownDestinationModule

    try:
        with tempfile.TemporaryDirectory(prefix="stripe-feed-") as folder:
            trial = dlt.pipeline(
                name,
                destination=_named_destination(destination),
                dataset_name=dataset,
                pipelines_dir=folder,
            )
            try:
                return place_of(trial)
            except Exception as fault:
                raise connection_error(trial, fault) from None
            finally:
                trial.deactivate()
    except UnknownDestinationModule:
        raise SetupError(
            f"dlt knows no destination {destination!r}; it knows duckdb, postgres, snowflake, bigquery, …"
        ) from None


def require_merge(destination: Any) -> None:
    """Raise `SetupError` for a destination that cannot merge exactly, before anything is read."""
    if "delete-insert" not in (destination.capabilities().supported_merge_strategies or []):
        raise SetupError(
            f"The destination {destination.destination_name} cannot merge with delete-insert, so rows would be duplicated. "
            "Use a SQL destination, such as duckdb, postgres, snowflake or bigquery, or for files delta or iceberg."
        )


def check_destination(pipeline: Any) -> None:
    """Raise `SetupError` if the destination cannot be loaded: no merge, no catalog, or a file that is
    locked or too new.
    """
    require_merge(pipeline.destination)
    _require_catalog(pipeline)
    file = duckdb_path(pipeline)
    if file is not None:
        check_name_clash(file, pipeline.dataset_name)
        check_file(file)


def _require_catalog(pipeline: Any) -> None:
    """Raise `SetupError` for Iceberg tables in a bucket without a catalog."""
    if pipeline.destination.destination_type.rpartition(".")[2] == "iceberg":
        client = pipeline.destination_client()
        if not client.is_local_filesystem:
            client.find_catalog()


class _OncePerProcess:
    """What the first of several threads enters, and the last leaves."""

    def __init__(self, enter: Callable[[], AbstractContextManager[None]]) -> None:
        self._enter = enter
        self._lock = threading.Lock()
        self._users = 0
        self._held = ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._held.enter_context(self._enter())
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._held.close()


@_OncePerProcess
@contextmanager
def dlt_settings() -> Iterator[None]:
    """Set dlt's settings while a command runs, except those already in the environment. New files
    are readable by the user only. Threads share it.
    """
    mask = os.umask(0o077)
    added = {name: value for name, value in DLT_SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        with _quick_dlt():
            yield
    finally:
        os.umask(mask)
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _quick_dlt() -> Iterator[None]:
    """Spare dlt what costs a fifth of a small run, with the same results: it reads the type hints of
    its schemas anew for each table that it validates, and writes for a trace that is off the columns
    of each resource as YAML and each setting that it looked for.
    """
    from dlt.common import validation
    from dlt.common.configuration import resolve
    from dlt.extract import extract

    with ExitStack() as replaced:
        replaced.enter_context(_replaced(validation, "get_type_hints", _remembered))
        if os.environ.get(TRACE, "").lower() == "false":
            replaced.enter_context(_replaced(extract, "yaml", _not_written))
            replaced.enter_context(_replaced(resolve, "log_traces", _not_logged))
        yield


@contextmanager
def _replaced(module: Any, name: str, replace: Callable[[Any], Any]) -> Iterator[None]:
    """Replace what a module has by this name; nothing in a version of dlt that has none."""
    before = getattr(module, name, None)
    if before is None:
        yield
        return
    setattr(module, name, replace(before))
    try:
        yield
    finally:
        setattr(module, name, before)


def _remembered(read: Callable[..., Any]) -> Callable[..., Any]:
    kept: dict[Any, Any] = {}

    def type_hints(spec: Any, **options: Any) -> Any:
        if spec not in kept:
            kept[spec] = read(spec, **options)
        return kept[spec]

    return type_hints


def _not_written(yaml: Any) -> Any:
    return SimpleNamespace(**{**vars(yaml), "dump": lambda _hints, **_options: ""})


def _not_logged(_log: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *_lookup, **_named: None


@_OncePerProcess
@contextmanager
def settings_for_many() -> Iterator[None]:
    """`dlt_settings` for many runs in one process: the garbage collector leaves out what is loaded
    already.
    """
    with dlt_settings():
        gc.freeze()
        try:
            yield
        finally:
            gc.unfreeze()


@contextmanager
def lock_copy(pipeline: Any, command: str, wait: float = DEFAULT_WAIT) -> Iterator[None]:
    """Hold the lock of a copy on this machine. Raises `Locked`, with the holder, after `wait`
    seconds.
    """
    file = place_of(pipeline).file
    if file is not None:
        check_folder(file)
    lock = companion_file(pipeline, LOCK_SUFFIX)
    with lock_file(lock, command, wait):
        if _is_half_deleted(pipeline):
            pipeline.drop()
        try:
            yield
        finally:
            if file is not None and not file.exists():  # refused before anything was loaded
                lock.unlink(missing_ok=True)


def _is_half_deleted(pipeline: Any) -> bool:
    """Whether a run was killed while it deleted the working folder of a copy: dlt would fail on the
    rest for ever.

    All its content, pending packages included, can be read again from the destination and Stripe.
    """
    from dlt.common.exceptions import DltException

    try:
        return pipeline.default_schema_name is not None and pipeline.default_schema is None
    except (DltException, OSError, ValueError):
        return Path(pipeline.pipelines_dir).name == place_of(pipeline).key
