"""dlt's packages: what an earlier run left, the state from the destination, and each load with our patience and our words."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.exceptions import SignalReceivedException
from dlt.destinations.exceptions import DestinationConnectionError
from dlt.pipeline.exceptions import PipelineStepFailed

from .destination import DUCKDB_JOBS, connection_problem, duckdb_file, file_problem, held_open, is_lock, patiently
from .errors import StripeFeedError

log = logging.getLogger("stripe_feed")


def settle(pipeline: Any, wait: float = 0.0) -> Any:
    """Finish what an earlier run left behind, then take state and schema from the destination: it is the only truth."""
    _drop_extracted(pipeline)
    if pipeline.has_pending_data:
        log.warning("An earlier run was interrupted: what it had read is loaded first.")
    while pipeline.has_pending_data:
        run(pipeline, None, wait)
    pipeline = pipeline.drop()
    patiently(partial(restore, pipeline), wait)
    return pipeline


def _drop_extracted(pipeline: Any) -> None:
    """Delete what was extracted and not yet normalized: it is read again, since its cursors went with it.

    dlt notes the schema of an extracted package only after it: where the run was killed in between, or at the end of the
    normalize step, which leaves the package in two folders, dlt would pass over it, or fail on it, for ever.
    """
    for load_id in pipeline.list_extracted_load_packages():
        pipeline._get_normalize_storage().extracted_packages.delete_package(load_id)


def restore(pipeline: Any) -> None:
    """Take state and schema from the destination."""
    try:
        pipeline.sync_destination()
    except Exception as fault:
        raise explained(fault, pipeline) from fault


def run(pipeline: Any, source: Any, wait: float = 0.0, **options: Any) -> None:
    """`pipeline.run`, with the database opened once for all jobs and our errors in place of dlt's wrapping."""
    with _explaining(pipeline):
        if source is not None:
            pipeline.extract(source, **options)
        if pipeline.list_extracted_load_packages():
            pipeline.normalize()
    if pipeline.list_normalized_load_packages():
        patiently(partial(_load_package, pipeline), wait)


def _load_package(pipeline: Any) -> None:
    with _explaining(pipeline), held_open(pipeline):
        pipeline.load(**({"workers": DUCKDB_JOBS} if duckdb_file(pipeline) else {}))


@contextmanager
def _explaining(pipeline: Any) -> Iterator[None]:
    try:
        yield
    except SignalReceivedException:
        raise KeyboardInterrupt from None
    except (PipelineStepFailed, DestinationConnectionError) as fault:
        raise explained(fault, pipeline) from fault


def explained(fault: BaseException, pipeline: Any) -> BaseException:
    """Our error inside dlt's, or the one that stands for a destination that is locked or out of reach, or the fault itself."""
    file = duckdb_file(pipeline)
    chain = [fault]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    for inner in chain:
        if isinstance(inner, StripeFeedError | KeyboardInterrupt):
            return inner
        if isinstance(inner, SignalReceivedException):
            return KeyboardInterrupt()
        if type(inner).__module__.startswith(("duckdb", "_duckdb")) and file is not None and is_lock(str(inner)):
            return file_problem(file, str(inner))
    for inner in chain:
        if isinstance(inner, ConfigurationException | DestinationConnectionError):
            return connection_problem(pipeline, inner)
    if file is None and isinstance(fault, PipelineStepFailed) and fault.step == "sync":     # the first contact
        return connection_problem(pipeline, chain[-1])
    return fault
