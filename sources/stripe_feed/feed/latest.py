"""The newest changes: by time for people, by offset for clients that poll and keep no position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .change import LOG_COLUMNS, Change, change_from_row
from .filters import Filter
from .storage.store import FeedStore, conditions, placeholders

# newest changes by offset, searched for the newest by time; also the most that a poll gets
SCAN_LIMIT = 10_000
RECENT_SECONDS = 3_600  # before the newest change was read: longer than any poll interval
_BATCH_SIZE = 200  # bodies in memory


def newest_by_time(store: FeedStore, filters: Filter, count: int) -> list[Change]:
    """Return the newest changes by the time they happened, oldest first: a load brings one resource
    after the other.
    """
    query, values = _newest("position, occurred_at", filters)
    rows = store.query(
        f"select position from ({query}) order by occurred_at desc, position desc",
        *values,
        max(count, SCAN_LIMIT),
    )
    newest = list[Change]()
    for change in _read(store, [position for (position,) in rows], filters) if count else ():
        newest.append(change)
        if len(newest) == count:
            break
    return sorted(newest, key=lambda one: (one.occurred_at, one.offset))


def newest_first(store: FeedStore, filters: Filter) -> Iterator[tuple[Change, bool]]:
    """Iterate over the matching changes, newest first, each with whether it is recent; those before
    it are recent too.
    """
    query, values = _newest("position, coalesce(observed_at, occurred_at)", filters)
    rows = store.query(query, *values, SCAN_LIMIT + 1)
    since = max((at for _, at in rows), default=0) - RECENT_SECONDS * 1_000_000
    last = min((position for position, at in rows if at >= since), default=0)
    for change in _read(store, [position for position, _ in rows], filters):
        yield change, change.offset >= last


def _newest(columns: str, filters: Filter) -> tuple[str, list[str]]:
    """Return a query for the newest changes by offset, without `matches`; its last value is the
    limit.
    """
    where, values = conditions(filters.resources, filters.ops)
    return f"select {columns} from log where 1{where} order by position desc limit ?", values


def _read(store: FeedStore, positions: Sequence[int], filters: Filter) -> Iterator[Change]:
    """Iterate over the matching changes at these positions, in this order, in batches."""
    for start in range(0, len(positions), _BATCH_SIZE):
        batch = positions[start : start + _BATCH_SIZE]
        columns = f"position, object_version, {', '.join(LOG_COLUMNS)}"
        rows = store.query(
            f"select {columns} from log where position in ({placeholders(batch)})", *batch
        )
        by_position = {row[0]: row for row in rows}
        yield from filters.select(
            [
                change_from_row(row[0], row[1], row[2:])
                for position in batch
                if (row := by_position.get(position)) is not None
            ]
        )
