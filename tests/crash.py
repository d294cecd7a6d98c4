"""Runs `sync` in processes that kill themselves (SIGKILL) at a named point: python crash.py, one
JSON job per line on stdin.

A job is {"point": name or null, "at": which time the point is reached, "sync": arguments}, for a tiny
account also {"batch": rows and parents, "package": rows}, elsewhere {"environment": variables to
set}; the answer is the exit status as JSON, -9 when it was killed. The packages are imported once and each
job is a fork, so that a kill costs no start-up.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
from dlt.common.storages import FileStorage, LoadStorage
from dlt.common.storages.load_package import PackageStorage
from dlt.destinations.job_client_impl import SqlLoadJob
from dlt.extract.extract import Extract
from dlt.load.load import Load
from dlt.normalize.normalize import Normalize
from dlt.pipeline.pipeline import Pipeline

from stripe_feed import sync_run as syncing
from stripe_feed.api.client import Api
from stripe_feed.destination.duckdb import client as in_place
from stripe_feed.destination.lake import client as lake
from stripe_feed.extract.dependents import sublists
from stripe_feed.extract.events import reader
from stripe_feed.extract.paging import reader as paging_reader
from stripe_feed.extract.paging.reader import PageReader
from stripe_feed.extract.writer import Writer
from stripe_feed.feed.storage.store import FeedStore
from tests import quick_dlt
from tests.forks import answer_jobs

PACKAGE_ROWS = 150
BATCH_ROWS = 50
THREADS = 3

POINTS: dict[str, tuple[type | Any, str, str]] = {
    "a page was asked for": (Api, "_send", "before"),
    "a page was read": (PageReader, "_hand_over", "after"),
    "rows were handed to dlt": (Writer, "rows", "after"),
    "a page of events was read": (reader, "fetch_events_page", "after"),
    "changes were handed to dlt": (Writer, "changes", "after"),
    "between packages": (syncing, "run_load", "after"),
    "the package is extracted": (Extract, "commit_packages", "after"),
    "before normalize": (Normalize, "spool_files", "before"),
    "in normalize": (Normalize, "map_single", "after"),
    "normalized twice": (PackageStorage, "delete_package", "before"),
    "the destination's tables are there": (LoadStorage, "commit_schema_update", "after"),
    "a file is ready to be merged": (in_place.InPlaceJob, "run", "after"),
    "about to be merged": (SqlLoadJob, "run", "before"),
    "merged": (SqlLoadJob, "run", "after"),
    "about to merge in a lake": (lake, "merge_files", "before"),
    "merged in a lake": (lake, "merge_files", "after"),
    "the lake's state is noted": (lake.LakeClient, "_store_current_state", "after"),
    "all jobs done": (Load, "complete_package", "before"),
    "the load is noted": (LoadStorage, "complete_load_package", "before"),
    "the package is complete": (Load, "complete_package", "after"),
    "the local state is half gone": (FileStorage, "delete_folder", "half"),
    "the destination's state was taken": (Pipeline, "sync_destination", "after"),
    "all is loaded": (syncing, "relay_pipeline", "before"),
    "changes were relayed": (FeedStore, "append", "after"),
    "the feed has it": (syncing, "relay_pipeline", "after"),
}
"""Where the process dies: before or after a call of this function; `half`: a folder's deletion
leaves half of it.
"""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, at: int) -> None:
    """Make this process die when the point is reached for the `at`th time, counted from 1."""
    holder, name, when = POINTS[point]
    real: Callable[..., Any] = getattr(holder, name)
    count = itertools.count(1)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        reached = next(count) == at
        if reached and when == "half":
            delete_half(Path(args[0].make_full_path(args[1])))
        if reached and when != "after":
            die()
        result = real(*args, **kwargs)
        if reached:
            die()
        return result

    setattr(holder, name, wrapped)


def delete_half(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files[: len(files) // 2]:
        path.unlink()


def in_small_steps(batch: int | None) -> None:
    """Several batches per package, and little read ahead, so that a small account has every state
    in between.
    """
    paging_reader.MAX_TABLE_ROWS = batch or BATCH_ROWS
    if batch:
        sublists.SWEEP_BATCH = sublists.PACKAGE_PARENTS = batch
    assert Api.__init__.__kwdefaults__ is not None
    Api.__init__.__kwdefaults__["threads"] = THREADS


def run(job: dict[str, Any]) -> None:
    os.environ.update(job.get("environment", {}))
    in_small_steps(job.get("batch"))
    if job["point"]:
        arm(job["point"], job["at"])
    syncing.sync(checkpoint_rows=job.get("package", PACKAGE_ROWS), **job["sync"])


def main() -> None:
    quick_dlt.install()
    duckdb.connect().close()
    answer_jobs(run)


if __name__ == "__main__":
    main()
