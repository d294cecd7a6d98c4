"""What a wrong clock has left behind: cursors ahead of time, and rows that no later event could
replace.

A run whose `Date` is ahead of this machine's clock cannot tell which of the two is right. It reads
up to the later one, keeps its cursors at what is proven, and notes `unproven` in the source's
state: rows of versions beyond that second may be older than they say.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from dlt.common.destination.exceptions import DestinationUndefinedEntity

from ...api.stripe_time import CLOCK_TOLERANCE
from ...resources import CHANGES, RESOURCES, TABLES
from ..next_step import RETENTION, UNPROVEN, VERSION_STEP
from ..run import Session

log = logging.getLogger("stripe_feed")


def settle(session: Session, client: Any, state: dict[str, Any]) -> None:
    """Before anything is read in a package: put right what an earlier run left, and note what is
    proven now.
    """
    now, resources = session.api.now(), state.get("resources", {})
    latest = max(now, session.api.clock.time()) + CLOCK_TOLERANCE
    limit = state.pop(UNPROVEN, None)
    if any(second > latest for second in _cursors(resources)):
        log.warning(
            "The copy's cursors are ahead of the time: a clock was wrong. The whole lists are compared."
        )
        _go_back(resources, now)
        limit = min(
            now - int(CLOCK_TOLERANCE), now if limit is None else limit
        )  # less than what is read from now on
    if limit is not None:
        _lower(client, limit * VERSION_STEP)
    session.newest = max((session.newest, *_cursors(resources)))
    session.sure = session.proven(now)


def _cursors(resources: dict[str, Any]) -> Iterator[int]:
    for name, state in resources.items():
        if name in RESOURCES and "t0" in state:
            yield state["t0"]
    for mine in resources.get(CHANGES, {}).values():
        yield max(mine["since"], mine["cursor"])


def _go_back(resources: dict[str, Any], now: int) -> None:
    """Lists without events go on from a month ago; those that are followed are compared, and their
    events begin anew.
    """
    for name, state in resources.items():
        if name in RESOURCES and "t0" in state:
            state["t0"] = min(state["t0"], now - RETENTION)
    for mine in resources.get(CHANGES, {}).values():
        mine.update(since=0, cursor=0)


def _lower(client: Any, version: int) -> None:
    with client:
        for table in TABLES:
            with suppress(DestinationUndefinedEntity):
                name = client.make_qualified_table_name(table)
                client.execute_sql(
                    f"update {name} set _version = %s where _version > %s", version, version
                )
