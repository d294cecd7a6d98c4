"""Decide what a run does, from the state, the options and Stripe's time: the cursors, and what they
allow. Pure.

State of a list: `{t0, left, start}`; `relisted` is the time at which its last days were listed
again. State of the events, per resource: `{since, cursor}`. `since` is the time at which the list
began that its events continue from; `cursor` the time up to which they were applied; `told`, if
changes were lost, the time since which they are read again; `put_off`, that a comparison comes
before more events, and `copied` the ids of some rows that it is to know as copies. All times are Unix seconds of Stripe's clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..resources import CHANGES, RESOURCES
from ..resources.model import Resource

SECONDS_PER_DAY = 86_400
RETENTION = 30 * SECONDS_PER_DAY  # Stripe keeps events so long
TOO_OLD = RETENTION - SECONDS_PER_DAY  # a cursor that is older counts as a gap
IDLE_STORE_INTERVAL = 6 * 3600  # an idle cursor is stored this often
VERSION_STEP = 1_000_000  # `_version` of a row is second * step + order
# in the source's state: rows of versions beyond this second may be older than they say
UNPROVEN = "unproven"

ResourceStep = Literal["backfill", "relist", "incremental", "gap"]
EventStates = dict[str, dict[str, Any]]  # resource -> the state of its events


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What one package does, in this sequence: read the lists of `lists`, apply the events of
    `polled`, compare the lists of `compared` with the copy.

    `steps`: what each resource needs. `relist_from`: where objects change without an event, the
    second since whose creations they are listed again, or compared; the others whole.
    `compares_first`: a comparison was put off, so no events come before it. `is_by_id`: only events
    that are fetched by id are applied. `reads_events`: whether events are read at all.
    """

    steps: Mapping[str, ResourceStep] = field(default_factory=dict)
    lists: tuple[str, ...] = ()
    polled: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()
    relist_from: Mapping[str, int] = field(default_factory=dict)
    compares_first: bool = False
    is_by_id: bool = False
    reads_events: bool = False

    def is_incremental(self, refused: Collection[str]) -> bool:
        """Whether every resource that may be read is complete: an event older than a running
        backfill, or than a comparison, would overwrite what these bring.
        """
        return all(
            step == "incremental" for name, step in self.steps.items() if name not in refused
        )

    def with_step(self, step: ResourceStep) -> list[str]:
        """Return the resources that need this step."""
        return [name for name, needed in self.steps.items() if needed == step]


def plan_run(
    states: Mapping[str, Any],
    lists: Sequence[str],
    now: int,
    *,
    reads_events: bool,
    compares: bool = True,
    is_range: bool = False,
    start: int = 0,
    relist_every: int = SECONDS_PER_DAY,
    followed: Collection[str] = (),
    reconcile: Collection[str] = (),
    listed: Collection[str] = (),
    compared: Collection[str] = (),
    is_by_id: bool = False,
    resources: Mapping[str, Resource] = RESOURCES,
) -> RunPlan:
    """Plan a package from the states of all resources.

    `lists`: the selected lists; without any, the events of the `followed` resources are read.
    `compares`: whether lists can be compared with the copy. `is_range`: a fixed range is read.
    `start`: the oldest second asked for. `relist_every`: the seconds after which objects that change
    without an event are listed again. `reconcile`: the lists to compare on request, unless this run
    has `listed` them before. `compared`: the lists that this run has compared. `is_by_id`: the
    package is for events that only their id finds.
    """
    event_states = states.get(CHANGES, {})
    tables = lists or ([name for name in followed if name in event_states] if reads_events else ())
    steps = {
        name: next_step(
            states.get(name, {}),
            event_states.get(name),
            now,
            reads_events and bool(resources[name].events),
        )
        for name in tables
    }
    put_off = [name for name in tables if event_states.get(name, {}).get("put_off", False)]

    def is_due(name: str) -> bool:
        """Whether objects may have changed without an event since they were listed last."""
        resource = resources[name]
        if steps[name] != "incremental" or resource.is_dependent or name in compared:
            return False
        if name in put_off and _is_relisted(resource):
            return True
        before = now - relist_every
        return name not in listed and _is_relist_due(resource, states[name], start, before)

    due = list(filter(is_due, lists))
    again = [name for name in due if compares and not _is_told_by_list(resources[name])]

    def is_listed(name: str) -> bool:
        if resources[name].is_dependent:
            return True
        if steps[name] != "incremental":
            return steps[name] != "gap"
        has_time = bool(resources[name].created_field)
        return name not in (*reconcile, *again) and (has_time or name in due or is_range)

    def is_compared(name: str) -> bool:
        if resources[name].is_dependent:
            return False
        if name in compared or steps[name] != "incremental":
            return name not in compared and steps[name] == "gap"
        return (
            states.get(name, {}).get("compare", False)
            or (name in reconcile and name not in listed)
            or name in again
        )

    compares_first = reads_events and bool(put_off)
    polls = reads_events and not compares_first and not is_by_id
    return RunPlan(
        steps,
        tuple(filter(is_listed, lists)),
        tuple(
            name
            for name, step in steps.items()
            if polls and step == "incremental" and resources[name].events
        ),
        tuple(filter(is_compared, steps)),
        {
            name: max(0, now - resources[name].relist_days * SECONDS_PER_DAY)
            for name in due
            if resources[name].created_field
            and name not in reconcile
            and not states[name].get("compare", False)
        },
        compares_first,
        is_by_id,
        reads_events,
    )


def must_probe_events(
    states: Mapping[str, Any],
    lists: Sequence[str],
    now: int,
    resources: Mapping[str, Resource] = RESOURCES,
) -> bool:
    """Whether the plan depends on the right to read events: for a resource whose events were never
    read, and over a gap.
    """
    event_states = states.get(CHANGES, {})
    return any(
        name not in event_states
        or next_step(states.get(name, {}), event_states[name], now, True) == "gap"
        for name in lists
        if resources[name].events
    )


def _is_relisted(resource: Resource) -> bool:
    """Whether objects change without an event, or the list cannot be filtered by time."""
    if resource.is_dependent:
        return False
    return not resource.created_field or resource.relist_days > 0


def _is_relist_due(
    resource: Resource, list_state: Mapping[str, Any], start: int, before: int
) -> bool:
    """Whether such objects were listed last before a second, or not as far back as asked for."""
    if resource.created_field:
        return resource.relist_days > 0 and bool(list_state.get("relisted", 0) <= before)
    return bool(list_state["t0"] <= before or start < list_state["start"])


def _is_told_by_list(resource: Resource) -> bool:
    """Whether its list tells what changed: no event tells it too, and of what is listed again
    nothing is ever deleted.
    """
    return bool(resource.created_field) and not resource.events


def next_step(
    list_state: Mapping[str, Any],
    event_state: Mapping[str, Any] | None,
    now: int,
    reads_events: bool,
) -> ResourceStep:
    """Decide what a resource needs: its backfill to begin or to continue, a list from the start
    again, what is new, or a comparison after a gap.

    Without `reads_events`, a complete list continues by `created`.
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
    """Move a cursor back as far as Stripe keeps events; objects created before `told` get no second
    change for their creation.
    """
    event_state["cursor"] = event_state["told"] = max(
        event_state["since"], min(event_state["cursor"], now - TOO_OLD + SECONDS_PER_DAY)
    )
    event_state.pop("rung", None)


def event_window(
    event_state: Mapping[str, Any], now: int, look_back: int, settle: int
) -> tuple[int, int]:
    """Return the seconds [lo, hi) whose events are read now: those of the look-back again, and none
    that may not all be visible yet.
    """
    return max(event_state["since"], event_state["cursor"] - look_back), now - settle


def should_store(stored: int, hi: int, look_back: int, newest: int | None) -> bool:
    """Whether to move a stored cursor to `hi` although nothing new came: once the `newest` event
    seen again has left the look-back, else every 6 h.
    """
    if newest is not None:
        return newest < hi - look_back
    return hi - stored >= IDLE_STORE_INTERVAL
