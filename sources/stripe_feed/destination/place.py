"""Where a copy really is: the kind, server and database of its destination, or the file, whoever
connects and by which name.
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

DATASET = "stripe"
STORE = ".feed.sqlite"  # endings of the files that belong to a copy
LOCK = ".sync.lock"
PLACE = "place"  # in dlt's local state: where a pipeline went
FILES = {"duckdb", "sqlite"}
PARTS = (
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
)
"""What tells one database from another in dlt's configurations; never who connects to it."""


@dataclass(frozen=True, slots=True)
class Place:
    """One dataset in one database. `key` is a digest of both, `label` is for people; `file` that of
    DuckDB and SQLite.
    """

    key: str
    dataset: str
    label: str
    file: Path | None = None
    is_sqlite: bool = False


def place_of(pipeline: Any) -> Place:
    """Where the copy of a pipeline is. dlt resolves its configuration for it, once, and raises
    where that lacks something.
    """
    if pipeline not in _PLACES:
        _PLACES[pipeline] = place(
            pipeline.destination_client().config, normalized(str(pipeline.dataset_name))
        )
    return _PLACES[pipeline]


def remember(pipeline: Any, found: Place) -> None:
    """Where the copy of a pipeline is, known before; its working folder need not be whole to tell
    it.
    """
    _PLACES[pipeline] = found


_PLACES: WeakKeyDictionary[Any, Place] = WeakKeyDictionary()


def place(config: Any, dataset: str) -> Place:
    """Where a dataset is that a resolved configuration of dlt leads to."""
    file, kind = _file(config.credentials), config.destination_type.rpartition(".")[2]
    if file is not None:
        return in_file(kind, file, dataset)
    parts = list(_parts(config))
    where = "/".join(
        dict.fromkeys(value for name, value in parts if name not in ("drivername", "port"))
    )
    return Place(_digest(kind, parts, dataset), dataset, f"{kind} {where}, dataset {dataset}")


def in_file(kind: str, file: Path, dataset: str) -> Place:
    """A dataset in a file, symbolic links followed: by whatever name, it is the same one."""
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


def _file(credentials: Any) -> Path | None:
    """The database's file; nothing where the database is in memory or elsewhere."""
    named, kind = (
        getattr(credentials, "database", None),
        str(getattr(credentials, "drivername", "")).partition("+")[0],
    )
    if kind not in FILES or not named or str(named).startswith((":", "md:", "file:")):
        return None
    return Path(named)


def normalized(dataset: str) -> str:
    """The name that dlt gives to a dataset in the destination."""
    if re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", dataset):
        return dataset
    if not re.search(r"\w", dataset):
        raise UsageError("--dataset names nothing: give it a letter or a digit, or leave it out.")
    from dlt.common.normalizers.naming.snake_case import NamingConvention

    return NamingConvention().normalize_identifier(dataset)


def _parts(config: Any) -> Iterator[tuple[str, str]]:
    credentials = getattr(config, "credentials", None)
    query = getattr(credentials, "query", None) or {}
    for name in PARTS:
        for value in (
            query.get(name),
            getattr(credentials, name, None),
            getattr(config, name, None),
        ):
            if hasattr(value, "drivername"):  # of a catalog that is a database of its own
                yield from ((f"{name}.{inner}", text) for inner, text in _parts(_Inner(value)))
            elif value not in (None, ""):
                yield name, _plain(name, str(value))


@dataclass(frozen=True)
class _Inner:
    credentials: Any


def _plain(name: str, value: str) -> str:
    """A driver makes no difference, nor do capitals in a server's name."""
    if name == "drivername":
        return value.partition("+")[0]
    return value.lower().rstrip(".") if "host" in name and not value.startswith("/") else value


def beside(pipeline: Any, ending: str) -> Path:
    """A file that belongs to the copy of a pipeline."""
    return file_at(place_of(pipeline), state_folder(pipeline), ending)


def file_at(found: Place, state: Path, ending: str) -> Path:
    """A file that belongs to a copy: beside its database file, else in the state folder, named
    after the place.

    `stripe.duckdb` with the dataset `stripe` has `stripe.feed.sqlite`; another suffix or dataset
    stands in the name.
    """
    if found.file is None:
        return state / f"stripe_feed-{found.key}{ending}"
    stem = found.file.stem if found.file.suffix == ".duckdb" else found.file.name
    return found.file.with_name(
        f"{stem}{ending}" if found.dataset == DATASET else f"{stem}.{found.dataset}{ending}"
    )


def state_folder(pipeline: Any) -> Path:
    """The folder of `--state-dir`, or where a pipeline of one's own has its working folder."""
    folder = Path(pipeline.pipelines_dir)
    return folder.parent if folder.name == place_of(pipeline).key else folder


def require_own_file(pipeline: Any) -> None:
    """Raise `SetupError` where dlt takes a relative path from the folder that a pipeline of this
    name began in, not from this.
    """
    import dlt

    file, settings = place_of(pipeline).file, pipeline.destination.config_params
    began, here = settings.get("local_dir"), os.path.abspath(dlt.current.run_context().local_dir)
    if (
        file is None
        or began is None
        or began == here
        or began != pipeline.get_local_state_val("initial_cwd")
    ):
        return
    try:
        settings["local_dir"] = here
        other = _file(pipeline.destination_client().config.credentials)
    finally:
        settings["local_dir"] = began
    if other is not None and other.absolute().resolve() != file:
        raise SetupError(
            f"A pipeline named {pipeline.pipeline_name} began in another folder, so its file is {file}, not {other}. "
            "Give this one another name or pipelines_dir, or its destination an absolute path."
        )


def require_same_place(pipeline: Any) -> None:
    """Raise `SetupError` where the cursors that dlt keeps for a pipeline are those of another
    database; note the place else.

    To be called while it extracts: what was read into one database would be passed over in the
    next.
    """
    found, known = place_of(pipeline), None
    with suppress(KeyError):
        known = pipeline.get_local_state_val(PLACE)
    if known is not None and known["key"] != found.key:
        raise SetupError(
            f"The pipeline {pipeline.pipeline_name} went to {known['label']} before, and goes to {found.label} now. Give it "
            f"another name; where the database only moved, delete {pipeline.working_dir}: its cursors are in the database, too."
        )
    pipeline.set_local_state_val(PLACE, {"key": found.key, "label": found.label})
