"""The cursors: how far the list of a resource and the reading of its events have come, and what
that allows.

State of a list: `{t0, left, start}`. State of the reader, per resource: `{since, cursor}`. `since`
is the time at which the list began that its events go on from; `cursor` the time up to which they
were read; `told`, where changes were lost, the time since which they are told again. All are Unix
seconds of Stripe's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

SECONDS_PER_DAY = 86_400
RETENTION = 30 * SECONDS_PER_DAY  # Stripe keeps events so long
TOO_OLD = RETENTION - SECONDS_PER_DAY  # a cursor that is older counts as a gap
IDLE_STORE_INTERVAL = 6 * 3600  # an idle cursor is stored this often
VERSION_STEP = 1_000_000  # `_version` of a row is second * step + order
# in the source's state: rows of versions beyond this second may be older than they say
UNPROVEN = "unproven"

Step = Literal["backfill", "relist", "incremental", "gap"]


def next_step(
    list_state: Mapping[str, Any],
    event_state: Mapping[str, Any] | None,
    now: int,
    reads_events: bool,
) -> Step:
    """What to do for a resource: go on with its listing, list again from the start, follow its
    events, or heal a gap.

    `follows`: whether its events are read at all; where not, a list that is complete goes on by
    `created`.
    """
    if "t0" not in list_state:
        return "backfill"
    if reads_events and event_state is None:
        return "relist" if any(list_state["left"]) else "gap"
    if reads_events and event_state is not None and list_state["t0"] < event_state["since"]:
        return "relist"
    if any(list_state["left"]):
        return "relist" if reads_events and list_state["t0"] < now - TOO_OLD else "backfill"
    return (
        "gap"
        if reads_events and event_state is not None and event_state["cursor"] < now - TOO_OLD
        else "incremental"
    )


def rewind_cursor(event_state: dict[str, Any], now: int) -> None:
    """Move a reader's cursor back as far as Stripe remembers; `told`: whose creation is older,
    nobody is told of again.
    """
    event_state["cursor"] = event_state["told"] = max(
        event_state["since"], min(event_state["cursor"], now - TOO_OLD + SECONDS_PER_DAY)
    )
    event_state.pop("rung", None)


def event_window(
    event_state: Mapping[str, Any], now: int, look_back: int, settle: int
) -> tuple[int, int]:
    """The seconds [lo, hi) whose events are read now: those of the look-back again, and none that
    may not all be visible yet.
    """
    return max(event_state["since"], event_state["cursor"] - look_back), now - settle


def should_store(stored: int, hi: int, look_back: int, newest: int | None) -> bool:
    """Whether a cursor that stands at `stored` is worth moving to `hi` although nothing new came:
    once the newest that is seen again has left the look-back, else every 6 h.
    """
    if newest is not None:
        return newest < hi - look_back
    return hi - stored >= IDLE_STORE_INTERVAL
