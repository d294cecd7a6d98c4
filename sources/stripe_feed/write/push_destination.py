"""Stripe as a destination of a dlt pipeline: a way into a push, whose log knows what was sent.

dlt sends a batch again if it fails, and drops nulls and order; the push skips what it sent before, and
a column that a row lacks is empty.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..errors import StripeFeedError, TryLater, UsageError
from .push.definition import NOTHING, Definition, make_definition
from .push.log import LOG
from .push.rows import read_rows
from .push.run import open_push

BATCH_ROWS = 500


def stripe_objects(
    definition: Definition | Mapping[str, Any],
    api_key: str | None = None,
    *,
    log: str | os.PathLike[str] = LOG,
    **options: Any,
) -> Any:
    """Make a dlt destination that pushes the rows of a pipeline, as `open_push` does.

    Rows that are rejected do not stop the pipeline: `stripe-feed push show` has them. A batch is a
    part of a table, so nothing is deleted. Raises `UsageError` for a push with `on_delete`.
    """
    import dlt

    if not isinstance(definition, Definition):
        settings = dict(definition)
        definition = make_definition(str(settings.pop("name", "push")), settings)
    push = definition
    if push.on_delete != NOTHING:
        raise UsageError(f"{push.name}: a pipeline brings parts of a table: leave out on_delete.")

    def send(items: Any, table: Any) -> None:
        empty = dict.fromkeys(push.columns)  # dlt leaves nulls out
        rows = [{**empty, **row} for row in read_rows(items)]
        _send(push, rows, api_key, log, options)

    make = dlt.destination(
        batch_size=BATCH_ROWS,
        name="stripe_objects",
        naming_convention="direct",
        skip_dlt_columns_and_tables=True,
        loader_parallelism_strategy="sequential",
        max_parallel_load_jobs=1,
    )
    return make(send)()


def _send(
    push: Definition,
    rows: list[dict[str, Any]],
    api_key: str | None,
    log: str | os.PathLike[str],
    options: Mapping[str, Any],
) -> None:
    """Push a batch; what must be fixed ends the load, and what will pass is tried again by dlt."""
    from dlt.common.destination.exceptions import (
        DestinationTerminalException,
        DestinationTransientException,
    )

    error: StripeFeedError | None
    try:
        with open_push(push, api_key, log=log, **options) as opened:
            error = opened.run(rows, is_part=True).error
    except StripeFeedError as failed:
        error = failed
    if isinstance(error, TryLater):
        raise DestinationTransientException(str(error))
    if error is not None:
        raise DestinationTerminalException(str(error))
