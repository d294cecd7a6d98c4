"""The newest changes: by time for people, by their place in the feed for clients that poll and keep
no place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .change import STORED, Change, change
from .filters import Wanted
from .storage.store import FeedStore, marks

# the newest by place, among which those by time are looked for; and the most that a poll gets
AMONG = 10_000
RECENT = 3_600  # seconds before the newest was read: nobody polls more rarely
READ = 200  # bodies in memory


def by_time(store: FeedStore, filters: Wanted, count: int) -> list[Change]:
    """The newest changes by the time when they happened, oldest first; a load brings one resource
    after the other.
    """
    query, values = _newest("position, occurred_at", filters)
    rows = store.ask(
        f"select position from ({query}) order by occurred_at desc, position desc",
        *values,
        max(count, AMONG),
    )
    found = list[Change]()
    for one in _read(store, [position for (position,) in rows], filters) if count else ():
        found.append(one)
        if len(found) == count:
            break
    return sorted(found, key=lambda one: (one.occurred_at, one.offset))


def lately(store: FeedStore, filters: Wanted) -> Iterator[tuple[Change, bool]]:
    """The changes that match, newest first, each with whether it is recent, which those before it
    then are, too.
    """
    query, values = _newest("position, coalesce(observed_at, occurred_at)", filters)
    rows = store.ask(query, *values, AMONG + 1)
    since = max((at for _, at in rows), default=0) - RECENT * 1_000_000
    last = min((position for position, at in rows if at >= since), default=0)
    for one in _read(store, [position for position, _ in rows], filters):
        yield one, one.offset >= last


def _newest(columns: str, filters: Wanted) -> tuple[str, list[str]]:
    """A query for the newest by place that lack but `matches`; how many is its last value."""
    conditions = [
        f"{name} in ({marks(some)})"
        for name, some in (("resource", filters.resources), ("op", filters.ops))
        if some
    ]
    where = " and ".join(conditions) or "1"
    return f"select {columns} from log where {where} order by position desc limit ?", [
        *filters.resources,
        *filters.ops,
    ]


def _read(store: FeedStore, positions: Sequence[int], filters: Wanted) -> Iterator[Change]:
    """The changes at these positions that match, in this order, some at a time."""
    for start in range(0, len(positions), READ):
        some = positions[start : start + READ]
        columns = f"position, object_version, {', '.join(STORED)}"
        rows = store.ask(f"select {columns} from log where position in ({marks(some)})", *some)
        found = {row[0]: row for row in rows}
        yield from filters.among(
            [
                change(row[0], row[1], row[2:])
                for position in some
                if (row := found.get(position)) is not None
            ]
        )
