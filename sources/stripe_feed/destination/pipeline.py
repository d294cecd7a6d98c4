"""Where the copy lives: the dlt pipeline and its destination, checked before use, and the lock for
commands that write.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import SetupError
from .duckdb_file import check_file, check_folder, check_stem, duckdb_file
from .error_messages import connection_problem, require_dataset, require_file
from .locks import PATIENCE, lock_file
from .place import DATASET, LOCK, Place, beside, in_file, normalized, place_of, remember

log = logging.getLogger("stripe_feed")

PIPELINE = "stripe_feed"
SETTINGS = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "LOAD__DELETE_COMPLETED_JOBS": "true",  # no personal data stays in dlt's folder
    "LOAD__TRUNCATE_STAGING_DATASET": "true",  # nor a second copy in the destination
    "ENABLE_RUNTIME_TRACE": "false",  # it would keep what a database says of a row that it refuses
}


def open_pipeline(
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DATASET,
    state_dir: str | None = None,
    name: str = PIPELINE,
) -> Any:
    """Return the dlt pipeline of a copy. `database` is a DuckDB file; `destination` any dlt
    destination by name.

    dlt's working files go to `state_dir` (its own folder by default), below that into a folder per
    database and dataset: what a run left behind for one is never loaded into another, and syncs to
    different databases do not wait for each other.

    Nothing is opened yet. Raises `SetupError` for a DuckDB file named like its dataset, for unknown
    destinations, and for those without credentials.
    """
    import dlt
    from dlt.common.destination import Destination

    found = place_named(database, destination, dataset, name)
    where: Any
    if destination in (None, "duckdb"):
        file = Path(database or f"{name}.duckdb").absolute()
        where = dlt.destinations.duckdb(str(file), destination_name="duckdb")
    else:
        where = Destination.from_reference(destination)
    _keep_capabilities(where)
    folder = state_root(state_dir) / found.key
    pipeline = dlt.pipeline(
        name, destination=where, dataset_name=found.dataset, pipelines_dir=str(folder)
    )
    remember(pipeline, found)
    return pipeline


def _keep_capabilities(destination: Any) -> None:
    """Resolve a destination's capabilities once per naming convention.

    dlt asks for them some twenty times a run and reads its whole configuration each time: an eighth
    of a small run.
    """
    resolve, known = destination.capabilities, {}

    def capabilities(config: Any = None, naming: Any = None) -> Any:
        if config is not None:
            return resolve(config, naming)
        if type(naming) not in known:
            known[type(naming)] = resolve(None, naming)
        return known[type(naming)].copy()

    destination.capabilities = capabilities


def state_root(state_dir: str | None) -> Path:
    """The folder of `--state-dir`; dlt's own by default."""
    from dlt.common.pipeline import get_dlt_pipelines_dir

    return Path(state_dir or get_dlt_pipelines_dir())


def place_named(
    database: str | None, destination: str | None, dataset: str = DATASET, name: str = PIPELINE
) -> Place:
    """Where a copy is that is named as for `open_pipeline`."""
    require_dataset(dataset)
    dataset = normalized(dataset)
    if destination not in (None, "duckdb"):
        if database is not None:
            raise SetupError(
                "--database names a DuckDB file; it does not go with another --destination."
            )
        return _place(destination, dataset, name)
    require_file(f"{name}.duckdb" if database is None else database)
    file = Path(database or f"{name}.duckdb")
    check_stem(file, dataset)
    if not file.absolute().parent.is_dir():
        raise SetupError(
            f"The folder of {file} does not exist. Create it, or choose another --database."
        )
    return in_file("duckdb", file, dataset)


def _place(destination: str, dataset: str, name: str) -> Place:
    """Where dlt's configuration leads to, asked of a pipeline that is thrown away: its folder would
    have to be known before.
    """
    import dlt
    from dlt.common.destination.exceptions import UnknownDestinationModule

    try:
        with tempfile.TemporaryDirectory(prefix="stripe-feed-") as folder:
            trial = dlt.pipeline(
                name, destination=destination, dataset_name=dataset, pipelines_dir=folder
            )
            try:
                return place_of(trial)
            except Exception as fault:
                raise connection_problem(trial, fault) from None
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
            f"The destination {destination.destination_name} cannot merge with delete-insert, so rows would pile up or double. "
            "Use a SQL destination, such as duckdb, postgres, snowflake, bigquery or sqlalchemy."
        )


def check(pipeline: Any) -> None:
    """Raise `SetupError` where the destination cannot take a load: no merge, or a file that is
    locked or too new.
    """
    require_merge(pipeline.destination)
    file = duckdb_file(pipeline)
    if file is not None:
        check_stem(file, pipeline.dataset_name)
        check_file(file)


@contextmanager
def settings() -> Iterator[None]:
    """Our settings for dlt while a command runs; what the environment says already stays. New files
    are the user's own.
    """
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
    """Hold the one lock of a copy on this machine. Raises `Locked` that names the holder after
    `wait` seconds.
    """
    file = place_of(pipeline).file
    if file is not None:
        check_folder(file)
    with lock_file(beside(pipeline, LOCK), what, wait):
        if _is_half_gone(pipeline):
            pipeline.drop()
        yield


def _is_half_gone(pipeline: Any) -> bool:
    """Whether a run was killed while it deleted the working folder of a copy: dlt would stumble
    over the rest for ever.

    What is in it, a package that waits too, comes from the destination and from Stripe again.
    """
    from dlt.common.exceptions import DltException

    try:
        return pipeline.default_schema_name is not None and pipeline.default_schema is None
    except (DltException, OSError, ValueError):
        return Path(pipeline.pipelines_dir).name == place_of(pipeline).key
