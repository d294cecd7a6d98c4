"""dlt's packages: what an earlier run left, the state from the destination, and each load with our
patience and our words.

No package holds up a pipeline: what a destination does not take is dropped, and read again by the
cursors that it holds itself.
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
from dlt.common.exceptions import SignalReceivedException
from dlt.destinations.exceptions import DestinationConnectionError
from dlt.pipeline.exceptions import PipelineStepFailed

from ..api.client import Account
from ..errors import Locked, StripeFeedError, TryLater
from ..resources import CHANGES, RESOURCES, TABLES
from .comments import describe
from .duckdb_file import DUCKDB_JOBS, duckdb_file, held_open
from .error_messages import (
    chain,
    connection_problem,
    explained,
    file_problem,
    is_lock,
    lost,
    refusal,
)
from .locks import PATIENCE, patiently
from .place import place_of
from .state import check_owner, owner_in, source_state

log = logging.getLogger("stripe_feed")

CHILDREN = frozenset(child.table for resource in RESOURCES.values() for child in resource.children)
SOURCE = "stripe"
BASE = "read_upon"  # in dlt's local state: what the destination held when the package was read


def settle(
    pipeline: Any,
    account: Account,
    wait: float = PATIENCE,
    holds: Callable[[], None] = lambda: None,
) -> tuple[Any, Counter[str]]:
    """Finish what an earlier run left behind, then take state and schema from the destination: it
    is the only truth.

    Return the pipeline, and the rows by table that were left and are loaded now. Raises
    `WrongAccount` where the destination is not the account's, before anything is loaded into it.
    """
    _drop_extracted(pipeline)
    loaded: Counter[str] = Counter()
    if pipeline.has_pending_data and not patiently(partial(_belongs, pipeline, account), wait):
        log.warning(
            "An earlier run was interrupted: what it had read does not go with what is here now, and is read again."
        )
        pipeline = pipeline.drop()
    if pipeline.has_pending_data:
        log.warning("An earlier run was interrupted: what it had read is loaded first.")
    while pipeline.has_pending_data:
        waiting = _rows_in(pipeline)
        try:
            run(pipeline, None, wait, holds)
            loaded += waiting
        except (Locked, TryLater):
            raise
        except Exception as fault:
            drop_pending(pipeline)
            words = (
                str(fault).partition(". ")[0]
                if isinstance(fault, StripeFeedError)
                else type(fault).__name__
            )
            log.warning("It cannot be loaded, and is read again: %s.", words)
    pipeline = pipeline.drop()
    patiently(partial(restore, pipeline), wait)
    return pipeline, loaded


def _belongs(pipeline: Any, account: Account) -> bool:
    """Whether what is pending was read for this account, and upon what the destination holds now.

    Else its cursors would pass over what is missing: a backup was restored, another worker went on,
    or the name of the server leads to another one.
    """
    mine = pipeline.state.get("sources", {}).get(SOURCE, {})
    with explaining(pipeline):
        with pipeline.sql_client() as client:
            stored = source_state(client)
        held = owner_in(stored, pipeline.sql_client(), list(RESOURCES))
    check_owner(account, held)
    upon = pipeline.state["_local"].get(BASE)
    return mine.get("account", account.id) == account.id and _digest(stored) in (
        upon,
        _digest(mine),
    )


def _note_base(pipeline: Any) -> None:
    """Keep in mind upon which state of the destination a package is read."""
    pipeline.set_local_state_val(BASE, _digest(pipeline.state.get("sources", {}).get(SOURCE, {})))


def _digest(state: Any) -> str:
    return blake2b(
        json.dumps(state, sort_keys=True, default=str).encode(), digest_size=12
    ).hexdigest()


def _drop_extracted(pipeline: Any) -> None:
    """Delete what was extracted and not yet normalized: it is read again, since its cursors went
    with it.

    dlt notes the schema of an extracted package only after it: where the run was killed in between,
    or at the end of the normalize step, which leaves the package in two folders, dlt would pass
    over it, or fail on it, for ever.
    """
    for load_id in pipeline.list_extracted_load_packages():
        pipeline._get_normalize_storage().extracted_packages.delete_package(load_id)


def drop_pending(pipeline: Any) -> None:
    """Delete what waits to be loaded; rows of a load that is half done are replaced when they are
    read again.
    """
    pipeline._delete_pending_packages()


def _rows_in(pipeline: Any) -> Counter[str]:
    """The rows that wait to be loaded, by table; the marks of a child's parent aside, which are no
    rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: Counter[str] = Counter()
    for load_id in pipeline.list_normalized_load_packages():
        jobs = [
            job for some in pipeline.get_load_package_info(load_id).jobs.values() for job in some
        ]
        for job in jobs:
            table = job.job_file_info.table_name
            if job.job_file_info.file_format == "parquet" and (table in TABLES or table == CHANGES):
                try:
                    column = [] if table == CHANGES else ["deleted_at"]
                    file = pq.read_table(job.file_path, columns=column, memory_map=True)
                except (OSError, pa.ArrowException):  # it will not be loaded either
                    continue
                found[table] += (
                    file["deleted_at"].null_count if table in CHILDREN else file.num_rows
                )
    return found


def _forget_words(pipeline: Any) -> None:
    """Delete what dlt keeps of a database's words beside a package that is loaded later: they can
    hold rows.
    """
    packages = pipeline._get_load_storage().normalized_packages
    for load_id in pipeline.list_normalized_load_packages():
        for file in Path(packages.storage.make_full_path(packages.get_package_path(load_id))).glob(
            ".exceptions/*"
        ):
            file.unlink(missing_ok=True)


def restore(pipeline: Any) -> None:
    """Take state and schema from the destination."""
    with explaining(pipeline):
        pipeline.sync_destination()


def run(
    pipeline: Any,
    source: Any,
    wait: float = PATIENCE,
    holds: Callable[[], None] = lambda: None,
    **options: Any,
) -> None:
    """`pipeline.run`, with the database opened once for all jobs and our errors in place of dlt's
    wrapping.

    A package that the destination refuses is dropped; one that could be loaded another time waits
    for the next run. `holds` raises where somebody else may write by now: it is asked before the
    load.
    """
    with explaining(pipeline):
        if source is not None:
            _note_base(pipeline)
            pipeline.extract(source, **options)
        if pipeline.list_extracted_load_packages():
            pipeline.normalize()
    if pipeline.list_normalized_load_packages():
        holds()
        try:
            patiently(partial(_load_package, pipeline), wait)
        except Exception as fault:
            if not isinstance(fault, Locked | TryLater):
                drop_pending(pipeline)
            raise
        finally:
            _forget_words(pipeline)


def _load_package(pipeline: Any) -> None:
    with explaining(pipeline), held_open(pipeline):
        pipeline.load(**_workers(pipeline))
        if pipeline.default_schema_name is not None:
            describe(
                pipeline.sql_client(),
                pipeline.destination.destination_type,
                pipeline.default_schema.tables,
            )


def _workers(pipeline: Any) -> dict[str, int]:
    """Jobs side by side, where a database in a file has one writer."""
    if duckdb_file(pipeline):
        return {"workers": DUCKDB_JOBS}
    return {"workers": 1} if place_of(pipeline).is_sqlite else {}


@contextmanager
def explaining(pipeline: Any) -> Iterator[None]:
    """Raise our errors in place of those of dlt and of the destination."""
    try:
        yield
    except SignalReceivedException:
        raise KeyboardInterrupt from None
    except Exception as fault:
        if (known := in_our_words(fault, pipeline)) is None:
            raise
        raise known from None  # what a database says can hold rows


def in_our_words(fault: Exception, pipeline: Any) -> BaseException | None:
    """Our error inside dlt's, or the one that stands for what the destination says; nothing for a
    defect.
    """
    file, causes = duckdb_file(pipeline), chain(fault)
    step = fault.step if isinstance(fault, PipelineStepFailed) else "load"
    for inner in causes:
        if isinstance(inner, StripeFeedError | KeyboardInterrupt):
            return inner
        if isinstance(inner, SignalReceivedException):
            return KeyboardInterrupt()
        if (
            type(inner).__module__.startswith(("duckdb", "_duckdb"))
            and file is not None
            and is_lock(str(inner))
        ):
            return file_problem(file, str(inner))
    name, dataset = pipeline.destination.destination_name, pipeline.dataset_name
    for inner in causes:
        if isinstance(inner, ConfigurationException):
            return connection_problem(pipeline, inner)
        if isinstance(inner, DestinationConnectionError):
            if file is not None:
                return file_problem(file, str(causes[-1]))
            return connection_problem(pipeline, causes[-1]) if step == "sync" else lost(name)
    known = explained(fault, name, dataset)
    if (
        file is None and step == "sync" and (known is None or isinstance(known, TryLater))
    ):  # the first contact
        return connection_problem(pipeline, causes[-1])
    return refusal(fault, name, dataset) if known is None and step == "load" else known
