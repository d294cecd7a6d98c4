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

DAY = 86_400
RETENTION = 30 * DAY  # Stripe keeps events so long
TOO_OLD = RETENTION - DAY  # a cursor that is older counts as a gap
REST = 6 * 3600  # an idle cursor is stored this often
VERSION_STEP = 1_000_000  # `_version` of a row is second * step + order
# in the source's state: rows of versions beyond this second may be older than they say
UNPROVEN = "unproven"

Standing = Literal["listing", "again", "complete", "gap"]


def standing(
    listed: Mapping[str, Any], mine: Mapping[str, Any] | None, now: int, follows: bool
) -> Standing:
    """What to do for a resource: go on with its listing, list again from the start, follow its
    events, or heal a gap.

    `follows`: whether its events are read at all; where not, a list that is complete goes on by
    `created`.
    """
    if "t0" not in listed:
        return "listing"
    if follows and mine is None:
        return "again" if any(listed["left"]) else "gap"
    if follows and mine is not None and listed["t0"] < mine["since"]:
        return "again"
    if any(listed["left"]):
        return "again" if follows and listed["t0"] < now - TOO_OLD else "listing"
    return "gap" if follows and mine is not None and mine["cursor"] < now - TOO_OLD else "complete"


def told_anew(mine: dict[str, Any], now: int) -> None:
    """Move a reader's cursor back as far as Stripe remembers; `told`: whose creation is older,
    nobody is told of again.
    """
    mine["cursor"] = mine["told"] = max(mine["since"], min(mine["cursor"], now - TOO_OLD + DAY))
    mine.pop("rung", None)


def span(mine: Mapping[str, Any], now: int, look_back: int, settle: int) -> tuple[int, int]:
    """The seconds [lo, hi) whose events are read now: those of the look-back again, and none that
    may not all be visible yet.
    """
    return max(mine["since"], mine["cursor"] - look_back), now - settle


def rested(stored: int, hi: int, look_back: int, newest: int | None) -> bool:
    """Whether a cursor that stands at `stored` is worth moving to `hi` although nothing new came:
    once the newest that is seen again has left the look-back, else every 6 h.
    """
    if newest is not None:
        return newest < hi - look_back
    return hi - stored >= REST
