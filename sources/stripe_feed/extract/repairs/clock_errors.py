"""Repair the effects of a wrong clock: cursors in the future, and rows that no later event could
replace.

If Stripe's `Date` is ahead of this machine's clock, a run cannot tell which of the two is right. It
reads up to the later one, keeps its cursors at the latest proven second, and stores that second as
`unproven` in the source's state: rows with later versions may be older than they say.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from dlt.common.destination.exceptions import DestinationUndefinedEntity

from ...api.stripe_time import CLOCK_TOLERANCE
from ...destination.state import rows_to_change
from ...resources import CHANGES, RESOURCES, TABLES
from ..next_step import RETENTION, UNPROVEN, VERSION_STEP
from ..run import RunContext

log = logging.getLogger("stripe_feed")


def repair_clock_errors(context: RunContext, client: Any, state: dict[str, Any]) -> None:
    """Repair what an earlier run left, and note the second that is proven now. Called before a
    package reads anything.
    """
    now, resources = context.api.now(), state.get("resources", {})
    latest = max(now, context.api.clock.time()) + CLOCK_TOLERANCE
    limit = state.pop(UNPROVEN, None)
    if any(second > latest for second in _cursor_seconds(resources)):
        log.warning(
            "The copy's cursors are in the future: a clock was wrong. The whole lists are compared."
        )
        _rewind_cursors(resources, now)
        # less than the versions of rows that are read from now on
        limit = min(now - int(CLOCK_TOLERANCE), now if limit is None else limit)
    if limit is not None:
        _lower_versions(client, limit * VERSION_STEP)
    context.note_seconds(_cursor_seconds(resources))
    context.note_proven(now)


def _cursor_seconds(resources: dict[str, Any]) -> Iterator[int]:
    for name, state in resources.items():
        if name in RESOURCES and "t0" in state:
            yield state["t0"]
    for event_state in resources.get(CHANGES, {}).values():
        yield max(event_state["since"], event_state["cursor"])


def _rewind_cursors(resources: dict[str, Any], now: int) -> None:
    """Continue lists without events from a month ago. Resources with events are compared, and their
    events begin anew.
    """
    for name, state in resources.items():
        if name in RESOURCES and "t0" in state:
            for key in {"t0", "since", "relisted"} & state.keys():
                state[key] = min(state[key], now - RETENTION)
    for event_state in resources.get(CHANGES, {}).values():
        event_state.update(since=0, cursor=0)


def _lower_versions(client: Any, version: int) -> None:
    with client:
        for table in TABLES:
            with suppress(DestinationUndefinedEntity):
                name, condition = rows_to_change(client, table)
                client.execute_sql(
                    f"update {name} set _version = %s where {condition}_version > %s",
                    version,
                    version,
                )
