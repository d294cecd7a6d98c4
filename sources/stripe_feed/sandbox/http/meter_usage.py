"""`/v1/billing/meters/:id/event_summaries`: what a customer used, in windows. It follows from the
ids and the hour, because the sandbox stores no meter events.
"""

from __future__ import annotations

import zlib

import msgspec

from ..protocol.errors import Refusal, bad_choice, missing, required
from ..protocol.parameters import Params, integer, query
from ..samples.values import Object
from ..state.kinds import KINDS
from ..world import World
from .lists import envelope, page_of_list

WINDOWS = {"hour": 3600, "day": 86_400}
MOST_USED = 20  # in an hour
NEEDED = ("customer", "start_time", "end_time")


def list_event_summaries(account: World, path: str, id: str, params: Params) -> bytes:
    """The windows with any usage, newest first; one for the whole time without a grouping."""
    for name in NEEDED:
        if not params.get(name):
            raise required(name)
    request = query(params, (*NEEDED, "value_grouping_window"))
    meter = account.tables["meters"].rows.get(id)
    if meter is None:
        raise missing(KINDS["meters"].object, id)
    if params["customer"] not in account.tables["customers"].rows:
        raise missing("customer", params["customer"], "customer", 400)
    start, end = (integer(name, params[name]) for name in ("start_time", "end_time"))
    size = _window(params, start, end)
    summaries = [
        _summary(account, id, params["customer"], begin, min(begin + size, end))
        for begin in range(start, end, size)
    ]
    rows = [msgspec.json.encode(one) for one in reversed(summaries) if one["aggregated_value"]]
    page, has_more = page_of_list(rows, request, "billing.meter_event_summary")
    return envelope(path, page, has_more)


def _window(params: Params, start: int, end: int) -> int:
    """The length of a window in seconds; both times must be at the beginning of one."""
    grouping = params.get("value_grouping_window")
    if grouping is not None and grouping not in WINDOWS:
        raise bad_choice("value_grouping_window", tuple(WINDOWS))
    step = WINDOWS.get(grouping or "", 60)
    for name, at in (("start_time", start), ("end_time", end)):
        if at % step:
            raise Refusal(
                400, f"Invalid {name}: must be aligned to the beginning of a window.", param=name
            )
    if start >= end:
        raise Refusal(400, "Invalid end_time: must be after start_time.", param="end_time")
    return WINDOWS.get(grouping or "", end - start)


def _summary(account: World, meter: str, customer: str, start: int, end: int) -> Object:
    known = range(start - start % 3600, min(end, account.now), 3600)
    value = sum(_used(meter, customer, hour) for hour in known)
    key = f"{meter} {customer} {start} {end}"
    return {
        "id": f"mtrusg_test_{zlib.crc32(key.encode()):08x}{start:x}",
        "object": "billing.meter_event_summary",
        "aggregated_value": float(value),
        "end_time": end,
        "livemode": account.livemode,
        "meter": meter,
        "start_time": start,
    }


def _used(meter: str, customer: str, hour: int) -> int:
    """The usage of an hour; every third hour has none."""
    drawn = zlib.crc32(f"{meter} {customer} {hour}".encode())
    return drawn % MOST_USED if drawn % 3 else 0
