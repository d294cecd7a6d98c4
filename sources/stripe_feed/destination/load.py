"""Load dlt's packages: those that an earlier run left, and new ones, with waiting for locks and
errors of our own.

No package blocks a pipeline: one that the destination refuses is dropped and read again, from the
cursors stored in the destination.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.configuration.utils import get_resolved_traces
from dlt.common.exceptions import SignalReceivedException
from dlt.destinations.exceptions import DestinationConnectionError
from dlt.pipeline.exceptions import PipelineStepFailed

from ..api.account import Account
from ..errors import Locked, StripeFeedError, TryLater
from ..resources import CHANGES, RESOURCES, TABLES
from ..resources.groups import OWNED_TABLES
from .comments import comment_columns
from .duckdb_file import DUCKDB_JOBS, duckdb_path, keep_open, trim_memory
from .error_messages import (
    LAKE_PACKAGES,
    causes_of,
    connection_error,
    connection_lost_error,
    file_error,
    is_lock_error,
    refused_error,
    translate_error,
)
from .locks import DEFAULT_WAIT, retry_while_locked
from .place import place_of
from .state import MANY, check_owner, read_source_state, stored_owner, stored_owner_of_many

log = logging.getLogger("stripe_feed")

CHILD_TABLES = frozenset(
    child.table for resource in RESOURCES.values() for child in resource.children
)
SOURCE_NAME = "stripe"
BASE_STATE_KEY = "read_upon"  # in dlt's local state: a digest of the destination's state when the package was read


def finish_pending(
    pipeline: Any,
    account: Account,
    wait: float = DEFAULT_WAIT,
    require_lease: Callable[[], None] = lambda: None,
) -> tuple[Any, Counter[str]]:
    """Load what an earlier run left, then take state and schema from the destination: it is the only
    truth.

    Return the pipeline, and the rows by table that were left and are loaded now. Raises
    `WrongAccount` if the destination is not the account's, before anything is loaded into it.
    """
    _drop_extracted(pipeline)
    loaded: Counter[str] = Counter()
    if pipeline.has_pending_data and not retry_while_locked(
        partial(_is_current, pipeline, account), wait
    ):
        log.warning(
            "An earlier run was interrupted: its unloaded data does not match the destination any more and is read again."
        )
        pipeline = pipeline.drop()
    if pipeline.has_pending_data:
        log.warning("An earlier run was interrupted: its unloaded data is loaded first.")
    while pipeline.has_pending_data:
        pending = _pending_rows(pipeline)
        try:
            run_load(pipeline, None, wait, require_lease)
            loaded += pending
        except (Locked, TryLater):
            raise
        except Exception as fault:
            drop_pending(pipeline)
            reason = (
                str(fault).partition(". ")[0]
                if isinstance(fault, StripeFeedError)
                else type(fault).__name__
            )
            log.warning("This data cannot be loaded and is read again: %s.", reason)
    pipeline = pipeline.drop()
    retry_while_locked(partial(sync_state, pipeline), wait)
    return pipeline, loaded


def _is_current(pipeline: Any, account: Account) -> bool:
    """Whether the pending package was read for this account and from the destination's present
    state.

    Otherwise its cursors would skip what is missing: a backup was restored, another worker
    continued, or the server's name leads to another server.
    """
    pending_state = pipeline.state.get("sources", {}).get(SOURCE_NAME, {})
    with translate_errors(pipeline):
        with pipeline.sql_client() as client:
            stored = read_source_state(client)
        owner = (
            stored_owner_of_many(stored)
            if account.id.endswith(MANY)
            else stored_owner(stored, pipeline.sql_client(), OWNED_TABLES)
        )
    check_owner(account, owner)
    base_digest = pipeline.state["_local"].get(BASE_STATE_KEY)
    digests = (base_digest, _digest(pending_state))
    return pending_state.get("account", account.id) == account.id and _digest(stored) in digests


def _record_base_state(pipeline: Any) -> None:
    """Record from which state of the destination a package is read."""
    pipeline.set_local_state_val(
        BASE_STATE_KEY, _digest(pipeline.state.get("sources", {}).get(SOURCE_NAME, {}))
    )


def _digest(state: Any) -> str:
    return blake2b(
        json.dumps(state, sort_keys=True, default=str).encode(), digest_size=12
    ).hexdigest()


def _drop_extracted(pipeline: Any) -> None:
    """Delete what was extracted and not yet normalized: it is read again, as its cursors are deleted
    too.

    dlt stores the schema of an extracted package only afterwards. If the run was killed in between,
    or at the end of the normalize step, which leaves the package in two folders, dlt would skip it,
    or fail on it, for ever.
    """
    for load_id in pipeline.list_extracted_load_packages():
        pipeline._get_normalize_storage().extracted_packages.delete_package(load_id)


def drop_pending(pipeline: Any) -> None:
    """Delete pending packages; rows of a half-done load are replaced when they are read again."""
    pipeline._delete_pending_packages()


def _pending_rows(pipeline: Any) -> Counter[str]:
    """Count the pending rows by table, without the markers of a child table's parents."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    counts: Counter[str] = Counter()
    for load_id in pipeline.list_normalized_load_packages():
        jobs = [
            job
            for jobs_of_state in pipeline.get_load_package_info(load_id).jobs.values()
            for job in jobs_of_state
        ]
        for job in jobs:
            table = job.job_file_info.table_name
            if job.job_file_info.file_format == "parquet" and (table in TABLES or table == CHANGES):
                try:
                    column = [] if table == CHANGES else ["deleted_at"]
                    file = pq.read_table(job.file_path, columns=column, memory_map=True)
                except (OSError, pa.ArrowException):  # it will not be loaded either
                    continue
                counts[table] += (
                    file["deleted_at"].null_count if table in CHILD_TABLES else file.num_rows
                )
    return counts


def _delete_error_texts(pipeline: Any) -> None:
    """Delete the database's error texts that dlt keeps with a pending package: they can hold rows."""
    packages = pipeline._get_load_storage().normalized_packages
    for load_id in pipeline.list_normalized_load_packages():
        for file in Path(packages.storage.make_full_path(packages.get_package_path(load_id))).glob(
            ".exceptions/*"
        ):
            file.unlink(missing_ok=True)


def sync_state(pipeline: Any) -> None:
    """Take state and schema from the destination."""
    with translate_errors(pipeline):
        pipeline.sync_destination()


def run_load(
    pipeline: Any,
    source: Any,
    wait: float = DEFAULT_WAIT,
    require_lease: Callable[[], None] = lambda: None,
    **options: Any,
) -> None:
    """Run a pipeline, with the database opened once for all jobs and dlt's errors translated.

    A package that the destination refuses is dropped; after a temporary fault it waits for the next
    run. `require_lease` is called before the load and raises if another run may write by now.
    """
    get_resolved_traces().clear()  # else dlt keeps all lookups of settings for a trace that is off
    with translate_errors(pipeline):
        if source is not None:
            _record_base_state(pipeline)
            pipeline.extract(source, **options)
        if pipeline.list_extracted_load_packages():
            pipeline.normalize()
    if pipeline.list_normalized_load_packages():
        require_lease()
        trim_memory()  # or what reading needed adds to what the load needs
        try:
            retry_while_locked(partial(_load_package, pipeline), wait)
        except Exception as fault:
            if not isinstance(fault, Locked | TryLater):
                drop_pending(pipeline)
            raise
        finally:
            _delete_error_texts(pipeline)


def _load_package(pipeline: Any) -> None:
    with translate_errors(pipeline), keep_open(pipeline):
        pipeline.load(**_load_options(pipeline))
        if pipeline.default_schema_name is not None:
            comment_columns(
                pipeline.sql_client(),
                pipeline.destination.destination_type,
                pipeline.default_schema.tables,
            )


def _load_options(pipeline: Any) -> dict[str, int]:
    """Fewer parallel jobs for a database in a file, which has one writer, and for a lake, whose jobs
    hold their rows in memory.
    """
    is_lake = pipeline.destination.destination_type.rpartition(".")[2] in LAKE_PACKAGES
    if is_lake or duckdb_path(pipeline):
        return {"workers": DUCKDB_JOBS}
    return {"workers": 1} if place_of(pipeline).is_sqlite else {}


@contextmanager
def translate_errors(pipeline: Any) -> Iterator[None]:
    """Translate errors of dlt and of the destination into those of `errors`."""
    try:
        yield
    except SignalReceivedException:
        raise KeyboardInterrupt from None
    except Exception as fault:
        if (error := find_error(fault, pipeline)) is None:
            raise
        raise error from None  # a database's text can hold rows


def find_error(fault: Exception, pipeline: Any) -> BaseException | None:
    """The error of `errors` inside dlt's, or for what the destination says; None for a defect."""
    file, causes = duckdb_path(pipeline), causes_of(fault)
    step = fault.step if isinstance(fault, PipelineStepFailed) else "load"
    for cause in causes:
        if isinstance(cause, StripeFeedError | KeyboardInterrupt):
            return cause
        if isinstance(cause, SignalReceivedException):
            return KeyboardInterrupt()
        if (
            type(cause).__module__.startswith(("duckdb", "_duckdb"))
            and file is not None
            and is_lock_error(str(cause))
        ):
            return file_error(file, str(cause))
    name, dataset = pipeline.destination.destination_name, pipeline.dataset_name
    for cause in causes:
        if isinstance(cause, ConfigurationException):
            return connection_error(pipeline, cause)
        if isinstance(cause, DestinationConnectionError):
            if file is not None:
                return file_error(file, str(causes[-1]))
            return (
                connection_error(pipeline, causes[-1])
                if step == "sync"
                else connection_lost_error(name)
            )
    error = translate_error(fault, name, dataset)
    if (
        file is None and step == "sync" and (error is None or isinstance(error, TryLater))
    ):  # the first contact
        return connection_error(pipeline, causes[-1])
    return refused_error(fault, name, dataset) if error is None and step == "load" else error
