"""Decide what one listing of a resource covers, and keep what is left of it in the resource's state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...errors import UsageError
from ...resources.model import Resource
from ..options import Options
from ..tables.codec import Record
from .reader import Listing
from .whole_walk import WHOLE_LIST
from .windows import Range

FIRST_ACCOUNT = 1_293_840_000  # 2011-01-01: if the account's creation is unknown


@dataclass(frozen=True, slots=True)
class ListingPlan:
    """What one listing covers: ranges per walk. It ends at `started_at`, unless it is a fixed range."""

    started_at: int
    remaining: list[list[Range]]
    first: bool  # nothing of this resource was loaded before
    keeps_cursor: bool  # a fixed range: leave the state alone


def plan_listing(
    resource: Resource,
    state: dict[str, Any],
    options: Options,
    now: int,
    account_created: int,
    is_lost: bool = False,
    relist_from: int | None = None,
) -> ListingPlan:
    """Decide what to list: the rest of a listing that stopped, what is new since the last one, or
    everything, which includes a table that the destination has lost (`is_lost`; as one range, so
    that an empty list costs one request). `relist_from`: what was created since is listed again.

    A list that cannot be filtered by time is always listed whole, by what it shows now.
    """
    start, walks = options.start or 0, len(resource.list_filters)
    if start >= now:
        raise UsageError("start_date is in the future. Give an earlier one, or leave it out.")
    until = now if options.end is None else min(options.end, now)
    everything = [whole_ranges(start, until, account_created) for _ in range(walks)]
    if not resource.created_field:
        everything = [[WHOLE_LIST] for _ in range(walks)]
    if options.end is not None:
        return ListingPlan(now, everything, False, True)
    if "t0" not in state or not resource.created_field:
        return ListingPlan(now, everything, "t0" not in state, False)
    if is_lost:
        return ListingPlan(
            now, [[(min(start, state["start"]), until)] for _ in range(walks)], False, False
        )
    older = [(start, state["start"])] if start < state["start"] else []
    remaining = [[*older, *((lo, hi) for lo, hi in walk)] for walk in state["left"]]
    if any(state["left"]):
        return ListingPlan(state["t0"], remaining, False, False)
    # a later start date does not skip what the cursor has not seen
    since = max(state["start"], state["t0"] - options.look_back)
    if relist_from is not None:
        since = min(since, max(state["start"], relist_from))
    return ListingPlan(now, [[*older, (since, now)] for _ in range(walks)], False, False)


def whole_ranges(start: int, until: int, account_created: int) -> list[Range]:
    """Return all seconds from `start` (0: ever) to `until`, with a separate range before the
    account's creation: imported objects can predate it.
    """
    low = account_created or FIRST_ACCOUNT
    ranges = [(start, until)] if start else [(low, until), (0, min(low, until))]
    return [r for r in ranges if r[0] < r[1]]


@dataclass(eq=False)
class ListingRun:
    """A listing in progress: what is left to yield, and the reader's side of it."""

    resource: Resource
    plan: ListingPlan
    listing: Listing[Record]
    remaining: list[list[Range]] = field(default_factory=list)
    resumed: bool = False  # it continues a listing that an earlier run began
    continued: bool = False  # such a listing has not loaded everything; a whole walk begins anew
    start: int | None = None  # the oldest second that any run was asked for
    yielded: bool = False
    lost_table: str = (
        ""  # a table that is gone or empty, because of which everything is listed again
    )
    lost_embedded: str = ""  # a table of objects embedded in these that is gone or empty
    known_before: int = 0  # objects created before this second were listed once
    # compare the whole list once it is complete: it does not show what was deleted
    compare: bool = False
    schema: str | None = None  # the schema of the rows of the first listing
    childless: bool = False  # no object of the whole list has a child
    is_empty: bool = False  # no object came yet
    carried: dict[str, Any] = field(default_factory=dict)  # the rest of the state

    @property
    def done(self) -> bool:
        """Whether everything was read and taken."""
        return self.listing.done

    def state(self, options: Options) -> dict[str, Any]:
        """Return the resource's state once everything taken so far is loaded."""
        # without the walks of test clocks: these are always read whole
        walks = self.remaining[: len(self.resource.list_filters)]
        remaining = [[list(r) for r in walk] for walk in walks]
        start = options.start or 0 if self.start is None else self.start
        more: dict[str, Any] = ({"compare": True} if self.compare else {}) | (
            {"shape": self.schema} if self.schema else {}
        )
        more |= {"childless": True} if self.childless else {}
        more |= {"lost": self.lost_embedded} if self.lost_embedded else {}
        more |= self.carried
        if self.plan.first and not self.resource.events:
            more["since"] = self.plan.started_at
        if self.is_empty and not self.resource.created_field:
            more["empty"] = True
        return {"t0": self.plan.started_at, "left": remaining, "start": start} | more
