"""Named consumers: how far each has acknowledged, which process may acknowledge for it, and whether
it lost changes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from ..errors import Fenced, OffsetOutOfRange, UsageError
from .change import from_microseconds, to_microseconds
from .storage.store import FeedStore

StartAt = str | int | datetime
"""Where to start: "latest", "earliest", an offset, a change id, or a time (a datetime, ISO 8601, or
`30d`, `12h`, `90m` ago).
"""

DURATION = re.compile(r"([0-9]+)\s*([smhdw])")
OFFSET = re.compile(r"[0-9]+")
MAX_DAYS = 36_525  # days
SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a consumer is: `behind` counts the kept changes after its position, whatever it
    filters.

    `seconds` is the age of the next change, 0 if there is none. `lost`: changes that it has not
    seen were pruned; `behind` then counts these too, and `seconds` is the age of the newest of
    them.
    """

    consumer: str
    position: int
    head: int
    behind: int
    seconds: float
    change_id: str | None
    lost: bool


def parse_duration(text: str) -> int:
    """Return the seconds of `90d`, `12h`, `30m`, `45s` or `2w`. Raises `UsageError` for other
    forms.
    """
    match = DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{text[:40]!r} is not a duration. Use a form such as 90d, 12h, 30m or 45s."
        )
    seconds = int(match[1][:12]) * SECONDS[match[2]]
    if len(match[1]) > 12 or seconds > MAX_DAYS * SECONDS["d"]:
        raise UsageError(f"{text[:40]!r} is too long: the maximum is {MAX_DAYS}d, a hundred years.")
    return seconds


def position_before(store: FeedStore, place: StartAt, now: float) -> int:
    """Return the position after which the change at `place` is the next one.

    A time means the first change in feed order that happened then or later. Raises `UsageError` if
    the place does not exist, `OffsetOutOfRange` if changes from there on were pruned.
    """
    if place == "latest":
        return store.head
    if place == "earliest":
        return 0
    if isinstance(place, int) or (isinstance(place, str) and OFFSET.fullmatch(place)):
        return _check_offset(store, int(str(place)[:20]) - 1, f"offset {str(place)[:20]}")
    when = time_of(place, now)
    return _position_of_id(store, str(place)) if when is None else _position_since(store, when)


def _position_of_id(store: FeedStore, change_id: str) -> int:
    rows = store.query("select position from log where change_id = ?", change_id)
    if rows:
        return int(rows[0][0]) - 1
    if store.query("select 1 from pruned where change_id = ?", change_id):
        raise OffsetOutOfRange(
            f'The change {change_id} was pruned. Start at "earliest" or "latest".'
        )
    raise UsageError(
        f"{change_id[:60]!r} is not a position in the feed. Use latest, earliest, an offset, a change id, or a time "
        "such as 2026-01-31 or 30d."
    )


def _position_since(store: FeedStore, when: int) -> int:
    if store.pruned_through and when <= store.counter("pruned_until"):
        raise OffsetOutOfRange(
            'Changes of that time were pruned. Start at "earliest", the oldest kept change, or later.'
        )
    rows = store.query(
        "select position from log where occurred_at >= ? order by position limit 1", when
    )
    return int(rows[0][0]) - 1 if rows else store.head


def time_of(place: StartAt, now: float) -> int | None:
    """The time that a place names, in microseconds since 1970; None if it is no time."""
    if isinstance(place, datetime):
        return to_microseconds(place)
    if DURATION.fullmatch(str(place)):
        return int((now - parse_duration(str(place))) * 1_000_000)
    try:
        return to_microseconds(str(place))
    except ValueError:
        return None


def _check_offset(store: FeedStore, position: int, label: str) -> int:
    if position < 0 or position > store.head:
        raise UsageError(f"There is no {label}: the feed has offsets 1 to {store.head}.")
    if position < store.pruned_through:
        raise OffsetOutOfRange(
            f'Changes from {label} on were pruned. Start at "earliest", the oldest kept change, or later.'
        )
    return position


def attach(store: FeedStore, name: str, place: StartAt, now: float) -> tuple[int, int, bool]:
    """Take over a consumer, or create it at `place`; return its position, its epoch, and whether it
    is new.

    Any process that consumed under this name can acknowledge no more. Raises `OffsetOutOfRange` if it
    fell behind the oldest kept change.
    """
    _check_name(name)
    with store.transaction() as db:
        if db.execute("select 1 from consumers where name = ?", (name,)).fetchone() is None:
            _put(store, db, name, position_before(store, place, now))
            is_new = True
        else:
            is_new = False
        db.execute("update consumers set epoch = epoch + 1 where name = ?", (name,))
        position, epoch, accepted, horizon = db.execute(
            "select position, epoch, accepted, (select value from meta where name = 'horizon') from consumers where name = ?",
            (name,),
        ).fetchone()
        check_retained(name, max(position, accepted), horizon)
    return position, epoch, is_new


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[\w.:-]{1,100}", name):
        raise UsageError(
            "A consumer's name is made of at most 100 letters, digits and the characters _ . : -"
        )


def _put(store: FeedStore, db: Any, name: str, position: int) -> None:
    """Set a position; what was pruned before is no loss to this consumer."""
    db.execute(
        "insert into consumers (name, position, change_id, accepted) "
        "values (?, ?, (select change_id from log where position = ?), "
        "(select value from meta where name = 'horizon')) on conflict (name) do update set position = excluded.position, "
        "change_id = excluded.change_id, accepted = excluded.accepted",
        (name, position, position),
    )


def check_retained(name: str, seen: int, horizon: int) -> None:
    """Raise `OffsetOutOfRange` if changes that a consumer has not seen were pruned."""
    if horizon > seen:
        raise OffsetOutOfRange(
            f"Consumer {name} is at offset {seen}, but changes up to offset {horizon} were pruned. "
            f"Choose where it continues: `stripe-feed feed reset {name} --to earliest` (the oldest kept change), or --to latest; "
            f"`stripe-feed feed rebuild` restores what the destination still holds."
        )


def offset_out_of_range(after: int, horizon: int) -> OffsetOutOfRange:
    """Return the error for a reader without a name."""
    return OffsetOutOfRange(
        f"Changes after offset {after} were pruned, up to {horizon}. Start at 0, the oldest kept change."
    )


def pruned_ok_until(store: FeedStore, name: str) -> int:
    """Return the offset up to which pruned changes are not reported as lost to this consumer."""
    rows = store.query("select accepted from consumers where name = ?", name)
    return int(rows[0][0]) if rows else 0


def acknowledge(store: FeedStore, name: str, epoch: int, position: int, now: float) -> None:
    """Move a consumer forward to a position, never back. Raises `Fenced` if another process took it
    over, or it was removed or rebuilt.
    """
    with store.transaction() as db:
        advance(db, name, epoch, position, now)


def advance(db: Any, name: str, epoch: int, position: int, now: float) -> None:
    """Do what `acknowledge` does, within a transaction."""
    consumer = db.execute(
        "select epoch, position from consumers where name = ?", (name,)
    ).fetchone()
    if consumer is None or consumer[0] != epoch:
        raise Fenced(
            f"Consumer {name} was taken over by another process, reset or rebuilt: this process can acknowledge no more. "
            "Run one process per name; other names see every change too."
        )
    if position > consumer[1]:
        db.execute(
            "update consumers set position = ?, acknowledged_at = ?, "
            "change_id = coalesce((select change_id from log where position = ?), change_id) where name = ?",
            (position, now, position, name),
        )


def reset(store: FeedStore, name: str, place: StartAt, now: float) -> int:
    """Move a consumer, existing or new, to just before the change at `place`; return its position.
    Fences off the process that consumes now.
    """
    _check_name(name)
    with store.transaction() as db:
        position = position_before(store, place, now)
        _put(store, db, name, position)
        db.execute("update consumers set epoch = epoch + 1 where name = ?", (name,))
    return position


def set_position(store: FeedStore, name: str, position: int) -> None:
    """Set a consumer to a position recorded elsewhere."""
    with store.transaction() as db:
        _put(store, db, name, position)


def unknown_consumer(store: FeedStore, name: str) -> UsageError:
    """Return the error for a name that no consumer has; it suggests the most similar name."""
    near = get_close_matches(
        name[:100], [existing for (existing,) in store.query("select name from consumers")], 1
    )
    hint = (
        f"; did you mean {near[0]!r}?" if near else ". `stripe-feed feed lag` lists all consumers."
    )
    return UsageError(f"There is no consumer {name[:100]!r}{hint}")


def remove(store: FeedStore, name: str) -> None:
    """Delete a consumer. Raises `UsageError` if no consumer has this name."""
    with store.transaction() as db:
        if not db.execute("delete from consumers where name = ?", (name,)).rowcount:
            raise unknown_consumer(store, name)


def lags(store: FeedStore, now: float) -> list[Lag]:
    """Return the lag of every consumer, by name."""
    result = []
    with store.transaction("deferred") as db:
        numbers = dict(db.execute("select name, value from meta"))
        rows = db.execute(
            "select name, position, change_id, accepted from consumers order by name"
        ).fetchall()
        for name, position, change_id, pruned_ok in rows:
            waiting = (
                db.execute("select count(*) from log where position > ?", (position,)).fetchone()[0]
                if position < numbers["horizon"]
                else numbers["head"] - position
            )
            following = db.execute(
                "select occurred_at from log where position > ? order by position limit 1",
                (position,),
            ).fetchone()
            when = from_microseconds(following[0]) if following else None
            lost = numbers["horizon"] > max(position, pruned_ok)
            if lost:
                waiting, when = (
                    numbers["head"] - max(position, pruned_ok),
                    from_microseconds(numbers["pruned_until"] or None) or when,
                )
            seconds = max(0.0, now - when.timestamp()) if when else 0.0
            result.append(Lag(name, position, numbers["head"], waiting, seconds, change_id, lost))
    return result
