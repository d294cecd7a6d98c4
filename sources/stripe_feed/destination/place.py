"""Where a copy is: the kind, server and database of its destination, or the file, independent of the
user and of aliases.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from ..errors import SetupError, UsageError

DEFAULT_DATASET = "stripe"
_MODELS_SUFFIX = "_models"
FEED_STORE_SUFFIX = ".feed.sqlite"  # endings of the files that belong to a copy
LOCK_SUFFIX = ".sync.lock"
DUCKDB = "dlt.destinations.duckdb"  # dlt's names of the types
POSTGRES = "dlt.destinations.postgres"
PLACE_KEY = "place"  # in dlt's local state: where a pipeline went
FILE_DESTINATIONS = {"duckdb", "sqlite"}
IDENTIFYING_SETTINGS = (
    "drivername",
    "host",
    "hostaddr",
    "server_hostname",
    "port",
    "service",
    "database",
    "dbname",
    "project_id",
    "catalog",
    "aws_data_catalog",
    "region_name",
    "data_source",
    "ducklake_name",
    "bucket_url",
    "endpoint_url",
)
"""The settings of dlt that identify a database; never the user."""


@dataclass(frozen=True, slots=True)
class Place:
    """One dataset in one database. `key` is a digest of both, `label` is for people, `file` is the
    file of DuckDB and SQLite.
    """

    key: str
    dataset: str
    label: str
    file: Path | None = None
    is_sqlite: bool = False


def place_of(pipeline: Any) -> Place:
    """The place of a pipeline's copy. dlt resolves its configuration for it once, and raises if
    something is missing.
    """
    if pipeline not in _PLACES:
        _PLACES[pipeline] = place_from_config(
            pipeline.destination_client().config, normalize_dataset(str(pipeline.dataset_name))
        )
    return _PLACES[pipeline]


def set_place(pipeline: Any, place: Place) -> None:
    """Set the place of a pipeline's copy if it is known: `place_of` then needs no intact working
    folder.
    """
    _PLACES[pipeline] = place


_PLACES: WeakKeyDictionary[Any, Place] = WeakKeyDictionary()


def place_from_config(config: Any, dataset: str) -> Place:
    """The place of a dataset, from a resolved configuration of dlt."""
    file, kind = _database_file(config.credentials), config.destination_type.rpartition(".")[2]
    if file is not None:
        return place_in_file(kind, file, dataset)
    parts = list(_identifying_parts(config))
    label = "/".join(
        dict.fromkeys(value for name, value in parts if name not in ("drivername", "port"))
    )
    return Place(_digest(kind, parts, dataset), dataset, f"{kind} {label}, dataset {dataset}")


def place_in_file(kind: str, file: Path, dataset: str) -> Place:
    """The place of a dataset in a file. Symbolic links are followed: all names are one place."""
    real = file.absolute().resolve()
    return Place(
        _digest(kind, [("file", str(real))], dataset),
        dataset,
        f"{real}, dataset {dataset}",
        real,
        kind != "duckdb",
    )


def _digest(kind: str, parts: Sequence[tuple[str, str]], dataset: str) -> str:
    return blake2b(json.dumps([kind, parts, dataset]).encode(), digest_size=6).hexdigest()


def _database_file(credentials: Any) -> Path | None:
    """The database's file; None for a database in memory or on a server."""
    database, driver = (
        getattr(credentials, "database", None),
        str(getattr(credentials, "drivername", "")).partition("+")[0],
    )
    if (
        driver not in FILE_DESTINATIONS
        or not database
        or str(database).startswith((":", "md:", "file:"))
    ):
        return None
    return Path(database)


def normalize_dataset(dataset: str) -> str:
    """The name that dlt gives to a dataset in the destination."""
    if re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", dataset):
        return dataset
    if not re.search(r"\w", dataset):
        raise UsageError("--dataset names nothing: give it a letter or a digit, or leave it out.")
    from dlt.common.normalizers.naming.snake_case import NamingConvention

    return NamingConvention().normalize_identifier(dataset)


def models_schema(dataset: str) -> str:
    """The schema of the models of a dataset."""
    return f"{dataset}{_MODELS_SUFFIX}"


def _identifying_parts(config: Any) -> Iterator[tuple[str, str]]:
    credentials = getattr(config, "credentials", None)
    query = getattr(credentials, "query", None) or {}
    for name in IDENTIFYING_SETTINGS:
        for value in (
            query.get(name),
            getattr(credentials, name, None),
            getattr(config, name, None),
        ):
            if hasattr(value, "drivername"):  # a catalog that is a database itself
                yield from (
                    (f"{name}.{inner}", text) for inner, text in _identifying_parts(_Nested(value))
                )
            elif value not in (None, ""):
                yield name, _normalize_part(name, str(value))


@dataclass(frozen=True)
class _Nested:
    credentials: Any


def _normalize_part(name: str, value: str) -> str:
    """Drop the driver, and lower the case of a server's name: they make no difference."""
    if name == "drivername":
        return value.partition("+")[0]
    if name == "bucket_url":
        path = value.removeprefix("file://")
        return str(Path(path).resolve()) if "://" not in path else value.rstrip("/")
    return value.lower().rstrip(".") if "host" in name and not value.startswith("/") else value


def companion_file(pipeline: Any, suffix: str) -> Path:
    """The path of a file that belongs to the copy of a pipeline."""
    return companion_path(place_of(pipeline), state_folder(pipeline), suffix)


def companion_path(place: Place, state_folder: Path, suffix: str) -> Path:
    """The path of a file that belongs to a copy: next to its database file, else in the state
    folder.

    `stripe.duckdb` with the dataset `stripe` has `stripe.feed.sqlite`; another suffix or dataset is
    part of the name.
    """
    if place.file is None:
        return state_folder / f"stripe_feed-{place.key}{suffix}"
    stem = place.file.stem if place.file.suffix == ".duckdb" else place.file.name
    return place.file.with_name(
        f"{stem}{suffix}" if place.dataset == DEFAULT_DATASET else f"{stem}.{place.dataset}{suffix}"
    )


def state_folder(pipeline: Any) -> Path:
    """The folder of `--state-dir`, or that of the working folder of a user's own pipeline."""
    folder = Path(pipeline.pipelines_dir)
    return folder.parent if folder.name == place_of(pipeline).key else folder


def require_own_file(pipeline: Any) -> None:
    """Raise `SetupError` if dlt resolves a relative path in the folder in which a pipeline of this
    name was created, and not in the current one.
    """
    import dlt

    file, settings = place_of(pipeline).file, pipeline.destination.config_params
    first_folder, current_folder = (
        settings.get("local_dir"),
        os.path.abspath(dlt.current.run_context().local_dir),
    )
    if (
        file is None
        or first_folder is None
        or first_folder == current_folder
        or first_folder != pipeline.get_local_state_val("initial_cwd")
    ):
        return
    try:
        settings["local_dir"] = current_folder
        current_file = _database_file(pipeline.destination_client().config.credentials)
    finally:
        settings["local_dir"] = first_folder
    if current_file is not None and current_file.absolute().resolve() != file:
        raise SetupError(
            f"A pipeline named {pipeline.pipeline_name} was created in another folder, so its file is {file}, not {current_file}. "
            "Give this one another name or pipelines_dir, or its destination an absolute path."
        )


def require_same_place(pipeline: Any) -> None:
    """Raise `SetupError` if dlt's cursors of a pipeline belong to another database; otherwise record
    the place.

    Call it during extraction: what was read into one database would be skipped in the next.
    """
    place, earlier = place_of(pipeline), None
    with suppress(KeyError):
        earlier = pipeline.get_local_state_val(PLACE_KEY)
    if earlier is not None and earlier["key"] != place.key:
        raise SetupError(
            f"The pipeline {pipeline.pipeline_name} went to {earlier['label']} before, and goes to {place.label} now. Give it "
            f"another name; where the database only moved, delete {pipeline.working_dir}: its cursors are in the database, too."
        )
    pipeline.set_local_state_val(PLACE_KEY, {"key": place.key, "label": place.label})
