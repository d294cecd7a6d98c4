"""What is done to a store now and then: make its log anew, prune what is old, drop the images of
one object.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from ...destination.state import is_missing
from ...errors import SetupError
from ...resources import CHANGES
from ..relay import copy
from .schema import LEFT, LOG, MENDING, NEXT
from .store import WINDOW, FeedStore

NEWEST = (
    "select versions from objects o where o.object_id = log.object_id and o.resource = log.resource"
)
TABLES = ("log", "objects", "loads")
NEEDED = (
    f" and change_id not in (select change_id from messages where state in ({LEFT}))"
    f" and change_id not in (select first_change_id from messages where state in ({LEFT}))"
)


def rebuild(store: FeedStore, client: Any) -> int:
    """Make the log anew from the destination and return its length. One at a time.

    Completed loads in the order of the loads, then `seq`; what was pruned comes back as far as the
    destination holds it. Consumers stand before the first change that they have not acknowledged,
    and whoever consumes meanwhile is fenced off. Until the last moment the old log is in use:
    killed anywhere, it is the old one or the new one. Raises `SetupError` where the destination has
    no changes and the log has some.
    """
    with store.transaction() as db:
        _drop_next(db)
        for statement in filter(str.strip, LOG.format(NEXT).split(";")):
            db.execute(statement)
    copy(store, client, NEXT)
    with store.transaction() as db:
        length = int(db.execute(f"select value from meta where name = 'head{NEXT}'").fetchone()[0])
        if not length and store.head:
            raise SetupError(
                "The destination holds no changes, so the log is kept as it is. Check --database and --dataset."
            )
        _anchor(db, length)
        _swap(db, length)
    store.erase()
    return length


def _drop_next(db: sqlite3.Connection) -> None:
    for table in TABLES:
        db.execute(f"drop table if exists {table}{NEXT}")
    db.execute(f"delete from meta where name = 'head{NEXT}'")


def _anchor(db: sqlite3.Connection, length: int) -> None:
    """Put each consumer before the first change, in the new order, that it has not acknowledged in
    the old one.

    By the change ids of the whole log: two loads that were relayed in another order than now must
    not hide each other's rows. Where a damaged log has holes, what now comes before the change that
    a consumer acknowledged last counts as acknowledged.
    """
    has_holes = db.execute("select 1 from meta where name = ?", (MENDING,)).fetchone() is not None
    db.execute(
        f"create temp table was as select n.position as position, coalesce(o.position, p.position) as before from log{NEXT} n "
        "left join log o on o.change_id = n.change_id left join pruned p on p.change_id = n.change_id"
    )
    for name, position, last in db.execute(
        "select name, position, change_id from consumers"
    ).fetchall():
        own = (
            db.execute(f"select position from log{NEXT} where change_id = ?", (last,)).fetchone()
            if has_holes
            else None
        )
        untold = "before is null and position > ?"
        (first,) = db.execute(
            f"select min(position) from was where before > ? or ({untold})",
            (position, own[0] if own else 0),
        ).fetchone()
        now = length if first is None else first - 1
        db.execute(
            f"update consumers set position = ?, change_id = (select change_id from log{NEXT} where position = ?), accepted = 0, "
            "epoch = epoch + 1 where name = ?",
            (now, now, name),
        )
    db.execute("drop table was")


def _swap(db: sqlite3.Connection, length: int) -> None:
    for table in TABLES:
        db.execute(f"drop table {table}")
        db.execute(f"alter table {table}{NEXT} rename to {table}")
    db.execute("delete from pruned")
    db.execute("delete from meta where name = ?", (MENDING,))
    db.execute("update meta set value = 0 where name in ('horizon', 'pruned_until')")
    db.execute("update meta set value = ? where name = 'head'", (length,))
    db.execute(f"delete from meta where name = 'head{NEXT}'")


def prune(store: FeedStore, older_than_seconds: float, keep_latest: bool, now: float) -> int:
    """Drop the changes that were read from Stripe longer ago than this; return how many. Offsets
    and ids are never used again.

    From the beginning of the feed up to the first that is younger. `keep_latest`: the newest change
    of each object stays, and so do those that a message which is not delivered is made of; messages
    that were delivered by then go, with their attempts. The destination keeps all. A consumer that
    has not seen what goes raises `PositionLost` when it is used next.
    """
    cutoff = int((now - older_than_seconds) * 1_000_000)
    young = store.ask(
        "select position from log where coalesce(observed_at, occurred_at) >= ? order by position limit 1",
        cutoff,
    )
    last = young[0][0] - 1 if young else store.head
    kept = NEEDED + (f" and object_version < ({NEWEST})" if keep_latest else "")
    pruned = 0
    with store.zeroing():
        for start in range(0, last, WINDOW):
            pruned += _prune(store, start, min(start + WINDOW, last), kept)
        last_number = int(store.ask("select coalesce(max(number), 0) from messages")[0][0])
        for start in range(0, last_number, WINDOW):
            _prune_messages(store, start, start + WINDOW, cutoff / 1e6)
    store.erase()
    return pruned


def _prune_messages(store: FeedStore, after: int, upto: int, ended_before: float) -> None:
    where = (
        "number > ? and number <= ? and state in ('sent', 'dropped') and ended_at < ? "
        "and change_id not in (select change_id from log where log.change_id = messages.change_id)"
    )
    with store.transaction() as db:
        values = (after, upto, ended_before)
        db.execute(
            f"delete from attempts where message_id in (select message_id from messages where {where})",
            values,
        )
        db.execute(f"delete from messages where {where}", values)


def _prune(store: FeedStore, after: int, upto: int, kept: str) -> int:
    with store.transaction() as db:
        span = (after, upto)
        where = f"position > ? and position <= ?{kept}"
        last, newest = db.execute(
            f"select max(position), max(occurred_at) from log where {where}", span
        ).fetchone()
        if last is None:
            return 0
        db.execute(f"insert into pruned select change_id, position from log where {where}", span)
        count = db.execute(f"delete from log where {where}", span).rowcount
        db.executemany(
            "update meta set value = max(value, ?) where name = ?",
            [(last, "horizon"), (newest, "pruned_until")],
        )
    return count


def forget(store: FeedStore, client: Any, object_id: str) -> int:
    """Drop the images of an object, and of a customer's every change, in the store and in the
    destination; for good.

    Ids, times, paths and offsets stay. Returns how many changes of the store were concerned. It
    holds for changes that come later, too. May be run again where the destination failed.
    """
    count = _forget_here(store, object_id)
    try:
        client.execute_sql(
            f"update {client.make_qualified_table_name(CHANGES)} set after = null, previous = null "
            "where object_id = %s or customer_id = %s",
            object_id,
            object_id,
        )
    except Exception as fault:
        if not is_missing(fault):
            raise
    return count


def _forget_here(store: FeedStore, object_id: str) -> int:
    with store.zeroing(), store.transaction() as db:
        _drop_next(db)  # of a rebuild that was killed
        db.execute("insert or ignore into forgotten values (?)", (object_id,))
        count = db.execute(
            "update log set body = null where object_id = ? or customer_id = ?",
            (object_id, object_id),
        ).rowcount
    store.erase()
    return count
