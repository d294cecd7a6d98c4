"""Named consumers: how far each has acknowledged, who may acknowledge for it, and what is lost to
it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from ..errors import Fenced, PositionLost, UsageError
from .change import microseconds, moment
from .storage.store import FeedStore

Place = str | int | datetime
"""Where to begin: "latest", "earliest", an offset, a change id, or a time (a datetime, ISO 8601, or
`30d`, `12h`, `90m` ago).
"""

AGE = re.compile(r"([0-9]+)\s*([smhdw])")
OFFSET = re.compile(r"[0-9]+")
LONGEST_AGE = 36_525  # days
SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a consumer is: `behind` counts the changes after its position that are kept, whatever
    it filters.

    `seconds` is the age of the next one, 0 where there is none. `lost`: changes that it has not
    seen were pruned; then `behind` counts these, too, and `seconds` is the age of the newest of
    them.
    """

    consumer: str
    position: int
    head: int
    behind: int
    seconds: float
    change_id: str | None
    lost: bool


def age(text: str) -> int:
    """Seconds of `90d`, `12h`, `30m`, `45s` or `2w`. Raises `UsageError` for other forms."""
    found = AGE.fullmatch(text.strip())
    if found is None:
        raise UsageError(
            f"{text[:40]!r} is no length of time. Use forms such as 90d, 12h, 30m or 45s."
        )
    seconds = int(found[1][:12]) * SECONDS[found[2]]
    if len(found[1]) > 12 or seconds > LONGEST_AGE * SECONDS["d"]:
        raise UsageError(
            f"{text[:40]!r} is too long a time: {LONGEST_AGE}d, which are a hundred years, is the most."
        )
    return seconds


def position_before(store: FeedStore, place: Place, now: float) -> int:
    """The position from which the change at `place` is the next one.

    For a time, that is the first change in the feed's order which happened then or later. Raises
    `UsageError` where there is no such place, `PositionLost` where changes from there on were
    pruned.
    """
    if place == "latest":
        return store.head
    if place == "earliest":
        return 0
    if isinstance(place, int) or (isinstance(place, str) and OFFSET.fullmatch(place)):
        return _checked(store, int(str(place)[:20]) - 1, f"offset {str(place)[:20]}")
    when = _time(place, now)
    return _of_id(store, str(place)) if when is None else _since(store, when)


def _of_id(store: FeedStore, change_id: str) -> int:
    rows = store.ask("select position from log where change_id = ?", change_id)
    if rows:
        return int(rows[0][0]) - 1
    if store.ask("select 1 from pruned where change_id = ?", change_id):
        raise PositionLost(f'The change {change_id} was pruned. Start at "earliest" or "latest".')
    raise UsageError(
        f"{change_id[:60]!r} is no place in the feed. Use latest, earliest, an offset, a change id, or a time "
        "such as 2026-01-31 or 30d."
    )


def _since(store: FeedStore, when: int) -> int:
    if store.horizon and when <= store.number("pruned_until"):
        raise PositionLost(
            'Changes of that time were pruned. Start at "earliest", the oldest that is kept, or later.'
        )
    rows = store.ask(
        "select position from log where occurred_at >= ? order by position limit 1", when
    )
    return int(rows[0][0]) - 1 if rows else store.head


def _time(place: Place, now: float) -> int | None:
    if isinstance(place, datetime):
        return microseconds(place)
    if AGE.fullmatch(str(place)):
        return int((now - age(str(place))) * 1_000_000)
    try:
        return microseconds(str(place))
    except ValueError:
        return None


def _checked(store: FeedStore, position: int, what: str) -> int:
    if position < 0 or position > store.head:
        raise UsageError(f"There is no {what}: the feed goes from 1 to {store.head}.")
    if position < store.horizon:
        raise PositionLost(
            f'Changes from {what} on were pruned. Start at "earliest", the oldest that is kept, or later.'
        )
    return position


def enter(store: FeedStore, name: str, place: Place, now: float) -> tuple[int, int, bool]:
    """Take over a consumer, or begin a new one at `place`; return its position, its epoch, and
    whether it is new.

    Whoever consumed under this name can acknowledge no more. Raises `PositionLost` where it fell
    behind what is kept.
    """
    _named(name)
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
        require_kept(name, max(position, accepted), horizon)
    return position, epoch, is_new


def _named(name: str) -> None:
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


def require_kept(name: str, seen: int, horizon: int) -> None:
    """Raise `PositionLost` where changes that a consumer has not seen were pruned."""
    if horizon > seen:
        raise PositionLost(
            f"Consumer {name} stands at offset {seen}, and changes up to offset {horizon} were pruned meanwhile. "
            f"Choose where it goes on: `stripe-feed feed reset {name} --to earliest` (the oldest that is kept), or --to latest; "
            f"`stripe-feed feed rebuild` brings back what the destination still holds."
        )


def lost_at(after: int, horizon: int) -> PositionLost:
    """The error of a reader without a name."""
    return PositionLost(
        f"Changes behind offset {after} were pruned, up to {horizon}. Begin at 0, the oldest that is kept."
    )


def accepted(store: FeedStore, name: str) -> int:
    """The pruned changes up to here are no loss to this consumer, wherever it stands."""
    rows = store.ask("select accepted from consumers where name = ?", name)
    return int(rows[0][0]) if rows else 0


def acknowledge(store: FeedStore, name: str, epoch: int, position: int, now: float) -> None:
    """Move a consumer on to a position; never back. Raises `Fenced` where another took it over, or
    removed or rebuilt it.
    """
    with store.transaction() as db:
        advance(db, name, epoch, position, now)


def advance(db: Any, name: str, epoch: int, position: int, now: float) -> None:
    """`acknowledge` within a transaction."""
    held = db.execute("select epoch, position from consumers where name = ?", (name,)).fetchone()
    if held is None or held[0] != epoch:
        raise Fenced(
            f"Consumer {name} was taken over by another process, reset or rebuilt: nothing more is acknowledged here. "
            "Run one process per name; other names see every change, too."
        )
    if position > held[1]:
        db.execute(
            "update consumers set position = ?, acknowledged_at = ?, "
            "change_id = coalesce((select change_id from log where position = ?), change_id) where name = ?",
            (position, now, position, name),
        )


def reset(store: FeedStore, name: str, place: Place, now: float) -> int:
    """Put a consumer, known or new, before the change at `place`; return its position. Whoever
    consumes now is fenced off.
    """
    _named(name)
    with store.transaction() as db:
        position = position_before(store, place, now)
        _put(store, db, name, position)
        db.execute("update consumers set epoch = epoch + 1 where name = ?", (name,))
    return position


def place(store: FeedStore, name: str, position: int) -> None:
    """Put a consumer behind a position, as it was noted elsewhere."""
    with store.transaction() as db:
        _put(store, db, name, position)


def unknown(store: FeedStore, name: str) -> UsageError:
    """The error for a name that no consumer has, with the one that is most like it."""
    near = get_close_matches(
        name[:100], [known for (known,) in store.ask("select name from consumers")], 1
    )
    hint = f"; did you mean {near[0]!r}?" if near else ". `stripe-feed feed lag` lists them."
    return UsageError(f"There is no consumer {name[:100]!r}{hint}")


def remove(store: FeedStore, name: str) -> None:
    """Forget a consumer. Raises `UsageError` where there is none of this name."""
    with store.transaction() as db:
        if not db.execute("delete from consumers where name = ?", (name,)).rowcount:
            raise unknown(store, name)


def lags(store: FeedStore, now: float) -> list[Lag]:
    """Every consumer, by name."""
    found = []
    with store.transaction("deferred") as db:
        numbers = dict(db.execute("select name, value from meta"))
        rows = db.execute(
            "select name, position, change_id, accepted from consumers order by name"
        ).fetchall()
        for name, position, change_id, taken in rows:
            waiting = (
                db.execute("select count(*) from log where position > ?", (position,)).fetchone()[0]
                if position < numbers["horizon"]
                else numbers["head"] - position
            )
            following = db.execute(
                "select occurred_at from log where position > ? order by position limit 1",
                (position,),
            ).fetchone()
            when = moment(following[0]) if following else None
            lost = numbers["horizon"] > max(position, taken)
            if lost:
                waiting, when = (
                    numbers["head"] - max(position, taken),
                    moment(numbers["pruned_until"] or None) or when,
                )
            seconds = max(0.0, now - when.timestamp()) if when else 0.0
            found.append(Lag(name, position, numbers["head"], waiting, seconds, change_id, lost))
    return found
