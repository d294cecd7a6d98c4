"""The options of a source, checked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal, TypedDict, get_args

import pendulum

from ..errors import UsageError, did_you_mean
from ..resources import RESOURCES
from ..resources.groups import DEFAULT_GROUP, GROUPS
from ..resources.model import Resource

LOOK_BACK = 300
SETTLE = 60
RELIST_HOURS = 24.0
Deletes = Literal["soft", "hard"]

Moment = int | float | str | Any  # Unix seconds, an ISO date or time, or a datetime


@dataclass(frozen=True)
class Options:
    """The checked options of a run; the same for all resources of a source."""

    start: int | None = None  # Unix seconds; older objects are not read
    end: int | None = None  # Unix seconds, exclusive; makes a fixed range without a cursor
    expand: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    test_clocks: bool = False
    # seconds that are read again, for objects and events that become visible late
    look_back: int = LOOK_BACK
    # the least age of an event in seconds: younger ones may not all be visible yet
    settle: int = SETTLE
    # seconds after which objects are listed again that change without an event
    relist_every: int = int(RELIST_HOURS * 3600)
    # soft: deleted rows stay, with `deleted_at`; hard: they are removed after the look-back
    deletes: Deletes = "soft"
    snapshot: bool = False  # a first backfill gives a change of op `r` for each object
    # the resources whose whole list is compared with the destination
    reconcile: frozenset[str] = frozenset()
    package_rows: int | None = None  # end a package after about this many rows
    polls: bool = True  # also read events that no webhook announced
    followed: tuple[str, ...] = ()  # whose events are read if no list is; none: of all resources
    lock_wait: float = 0.0  # seconds to wait for a process that has the DuckDB file open


class SourceOptions(TypedDict, total=False):
    """The options as keyword arguments of `stripe_source`, which explains them."""

    api_key: str | None
    account: str | None
    start_date: Moment | None
    end_date: Moment | None
    expand: Mapping[str, Iterable[str]] | None
    test_clocks: bool
    look_back: int
    settle: int
    relist_hours: float
    deletes: Deletes
    snapshot: bool
    max_rps: float | None
    endpoint_rps: float | None
    api_base: str | None
    allow_api_base: bool
    api_version: str
    give_up_after: float


def resource_names(chosen: Iterable[str] | None = None) -> list[str]:
    """The resources that are chosen by name or group, in the order of display, with the parents of
    those that have one list per parent; the default group if nothing is chosen.

    Raises `UsageError` for unknown names.
    """
    wanted: set[str] = set()
    for name in map(str.strip, chosen or (DEFAULT_GROUP,)):
        if name not in GROUPS and name not in RESOURCES:
            raise _unknown_resource(name)
        wanted.update(GROUPS.get(name, (name,)))
    wanted |= {row.parent.table for name in wanted if (row := RESOURCES[name]).parent is not None}
    return [name for name in RESOURCES if name in wanted]


def _unknown_resource(name: str) -> UsageError:
    hint = did_you_mean(name, [*GROUPS, *RESOURCES])
    return UsageError(
        f"There is no resource or group {name[:60]!r}. {hint}The groups are {', '.join(GROUPS)}; "
        "`stripe-feed doctor --resources GROUP` lists what is in one."
    )


def is_asked_by_name(name: str, chosen: Collection[str] | None) -> bool:
    """Whether a resource was asked for itself: by its name, as the parent of one that was, or as part
    of the default group. Others come with their group where they can be read.
    """
    named = {text.strip() for text in chosen or ()} & RESOURCES.keys()
    parents = {parent.table for one in named if (parent := RESOURCES[one].parent) is not None}
    return name in {*GROUPS[DEFAULT_GROUP], *named, *parents}


def check_options(reading: SourceOptions) -> Options:
    """Return the options of a source. Raises `UsageError`."""
    start, end = (
        _unix_seconds("start_date", reading.get("start_date")),
        _unix_seconds("end_date", reading.get("end_date")),
    )
    if start is not None and end is not None and start >= end:
        raise UsageError("start_date is not before end_date. Swap them, or leave one out.")
    look_back = reading.get("look_back", LOOK_BACK)
    if look_back < 0:
        raise UsageError("look_back must be 0 or more seconds.")
    settle = reading.get("settle", SETTLE)
    if settle < 0:
        raise UsageError("settle must be 0 or more seconds.")
    relist_hours = reading.get("relist_hours", RELIST_HOURS)
    if not 0 <= relist_hours < float("inf"):
        raise UsageError("relist_hours must be 0 or more hours.")
    deletes = reading.get("deletes", "soft")
    if deletes not in get_args(Deletes):
        raise UsageError(f"deletes must be soft or hard, not {deletes!r}.")
    return Options(
        start,
        end,
        _expandable_fields(reading.get("expand") or {}),
        reading.get("test_clocks", False),
        look_back,
        settle,
        int(relist_hours * 3600),
        deletes,
        reading.get("snapshot", False),
    )


def _expandable_fields(expand: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    expanded = {}
    for table, names in expand.items():
        row = RESOURCES.get(table)
        known = [e.name for e in row.expandable if not e.always] if row else []
        for name in names:
            if name not in known:
                raise UsageError(f"Cannot expand {table}.{name}. {_what_expands(table, row)}")
        expanded[table] = tuple(names)
    return expanded


def _what_expands(table: str, row: Resource | None) -> str:
    if row is None:
        return f"There is no resource {table!r}. {did_you_mean(table, RESOURCES)}".rstrip()
    return f"{row.table} can expand: {', '.join(e.name for e in row.expandable if not e.always) or 'nothing'}."


def _unix_seconds(name: str, moment: Moment | None) -> int | None:
    if moment is None:
        return None
    if isinstance(moment, int | float):
        return int(moment)
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = moment.isoformat()
    try:
        parsed = pendulum.parse(moment) if isinstance(moment, str) else pendulum.instance(moment)
        if not isinstance(parsed, pendulum.DateTime):
            raise ValueError
    except ValueError:
        raise UsageError(
            f"{name} is not a date: give it like 2026-01-31, or with a time, or as Unix seconds."
        ) from None
    return int(parsed.timestamp())
