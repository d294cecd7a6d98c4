"""Maintenance of a store: rebuild its log, prune old changes, forget one object's images."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ...destination.state import select_rows, table_name
from ...errors import SetupError, UsageError
from ...resources import CHANGES, RESOURCES
from ...resources.push_tables import PUSHES
from ...resources.writable import WRITABLE
from ..change import LOG_COLUMNS
from ..erase import (
    addresses_of,
    erase_bodies,
    erase_keys,
    erase_rows,
    held_columns,
    ids_of,
    ids_of_others,
)
from ..relay import copy_changes
from .schema import LOG_TABLE, REBUILD_NEEDED, REBUILD_SUFFIX, UNFINISHED
from .store import MANY_ACCOUNTS, SCAN_WINDOW, FeedStore

NEWEST_VERSION = (
    "select versions from objects o where o.resource = log.resource and o.object_id = "
    f"iif((select 1 from meta where name = '{MANY_ACCOUNTS}'), log.account_id || '/' || log.object_id, log.object_id)"
)
LOG_TABLES = ("log", "objects", "loads")


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased of a customer: ids of rows by table, changes in the store, messages to be sent."""

    ids: dict[str, list[str]]
    changes: int
    messages: int


DELIVERED = (
    f" and change_id not in (select change_id from messages where state in ({UNFINISHED}))"
    f" and change_id not in (select first_change_id from messages where state in ({UNFINISHED}))"
)


def rebuild(store: FeedStore, client: Any) -> int:
    """Rebuild the log from the destination and return its length. Only one at a time.

    Takes completed loads in the order of the loads, then `seq`; pruned changes come back as far as
    the destination holds them. Each consumer is set to its first unacknowledged change, and running
    consumers are fenced off. The old log is used until the last moment: if killed, it is the old
    one or the new one. Raises `SetupError` if the destination has no changes and the log has some.
    """
    with store.transaction() as db:
        _drop_next(db)
        for statement in filter(str.strip, LOG_TABLE.format(REBUILD_SUFFIX).split(";")):
            db.execute(statement)
    copy_changes(store, client, REBUILD_SUFFIX)
    with store.transaction() as db:
        length = int(
            db.execute(f"select value from meta where name = 'head{REBUILD_SUFFIX}'").fetchone()[0]
        )
        if not length and store.newest(1):
            raise SetupError(
                "The destination holds no changes, so the log is left unchanged. Check --database and --dataset."
            )
        length += _keep_pushes(store)
        _reposition_consumers(db, length)
        _swap(db, length)
    store.truncate_wal()
    return length


def _keep_pushes(store: FeedStore) -> int:
    """Take over what pushes did, which no destination holds, behind the rest; return how many changes
    that are.
    """
    columns = ", ".join(LOG_COLUMNS)
    kept = store.query(
        f"select {columns} from log where resource = ? order by position", PUSHES.table
    )
    return store.append(kept, into=REBUILD_SUFFIX)


def _drop_next(db: sqlite3.Connection) -> None:
    for table in LOG_TABLES:
        db.execute(f"drop table if exists {table}{REBUILD_SUFFIX}")
    db.execute(f"delete from meta where name = 'head{REBUILD_SUFFIX}'")


def _reposition_consumers(db: sqlite3.Connection, length: int) -> None:
    """Set each consumer to just before the first change, in the new order, that it has not
    acknowledged in the old one.

    Compares the change ids of the whole log: two loads relayed in another order than now must not
    hide each other's rows. If a damaged log has holes, everything before the change that a consumer
    acknowledged last counts as acknowledged.
    """
    has_holes = (
        db.execute("select 1 from meta where name = ?", (REBUILD_NEEDED,)).fetchone() is not None
    )
    db.execute(
        f"create temp table was as select n.position as position, coalesce(o.position, p.position) as before from log{REBUILD_SUFFIX} n "
        "left join log o on o.change_id = n.change_id left join pruned p on p.change_id = n.change_id"
    )
    for name, position, last in db.execute(
        "select name, position, change_id from consumers"
    ).fetchall():
        acknowledged = (
            db.execute(
                f"select position from log{REBUILD_SUFFIX} where change_id = ?", (last,)
            ).fetchone()
            if has_holes
            else None
        )
        untold = "before is null and position > ?"
        (first,) = db.execute(
            f"select min(position) from was where before > ? or ({untold})",
            (position, acknowledged[0] if acknowledged else 0),
        ).fetchone()
        now = length if first is None else first - 1
        db.execute(
            f"update consumers set position = ?, change_id = (select change_id from log{REBUILD_SUFFIX} where position = ?), accepted = 0, "
            "epoch = epoch + 1 where name = ?",
            (now, now, name),
        )
    db.execute("drop table was")


def _swap(db: sqlite3.Connection, length: int) -> None:
    for table in LOG_TABLES:
        db.execute(f"drop table {table}")
        db.execute(f"alter table {table}{REBUILD_SUFFIX} rename to {table}")
    db.execute("delete from pruned")
    db.execute("delete from meta where name = ?", (REBUILD_NEEDED,))
    db.execute("update meta set value = 0 where name in ('horizon', 'pruned_until')")
    db.execute("update meta set value = ? where name = 'head'", (length,))
    db.execute(f"delete from meta where name = 'head{REBUILD_SUFFIX}'")


def prune(store: FeedStore, older_than_seconds: float, keep_latest: bool, now: float) -> int:
    """Delete the changes that were read from Stripe longer ago than this; return how many. Offsets
    and ids are never reused.

    Deletes from the start of the feed up to the first younger change. `keep_latest` keeps the
    newest change of each object. Changes of undelivered messages stay; messages delivered by then
    are deleted with their attempts. The destination keeps everything. A consumer that has not seen
    the deleted changes raises `OffsetOutOfRange` at its next use.
    """
    cutoff = int((now - older_than_seconds) * 1_000_000)
    young = store.query(
        "select position from log where coalesce(observed_at, occurred_at) >= ? order by position limit 1",
        cutoff,
    )
    last = young[0][0] - 1 if young else store.head
    kept = DELIVERED + (f" and object_version < ({NEWEST_VERSION})" if keep_latest else "")
    pruned = 0
    with store.secure_delete():
        for start in range(0, last, SCAN_WINDOW):
            pruned += _prune(store, start, min(start + SCAN_WINDOW, last), kept)
        last_number = int(store.query("select coalesce(max(number), 0) from messages")[0][0])
        for start in range(0, last_number, SCAN_WINDOW):
            _prune_messages(store, start, start + SCAN_WINDOW, cutoff / 1e6)
        with store.transaction() as db:
            pruned += db.execute(
                f"delete from model_changes where occurred_at < ?{DELIVERED}", (cutoff,)
            ).rowcount
    store.truncate_wal()
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
    """Delete the images of an object, and of a customer's every change, in the store and the
    destination, permanently.

    Ids, times, paths and offsets stay. Returns how many changes in the store were affected. Applies
    to later changes too. May be run again if the destination failed. Raises `UsageError` if several
    accounts of a dataset have an object of this id.
    """
    _require_one_account(store, client, object_id)
    return _forget(store, client, [object_id])


def check_erasable(store: FeedStore, client: Any, customer: str) -> None:
    """Raise `UsageError` if a customer's id can be that of another person: several accounts of a
    dataset have it, and it is none that Stripe made.
    """
    if not customer.startswith(MADE_BY_STRIPE):
        _require_one_account(store, client, customer)


def _require_one_account(store: FeedStore, client: Any, object_id: str) -> None:
    if not store.holds_many_accounts():
        return
    accounts: set[str] = set()
    for table, key in ((CHANGES, "object_id"), *((name, "id") for name in RESOURCES)):
        query = f"select distinct account_id from {table_name(client, table)} where {key} = %s"
        accounts.update(account for (account,) in select_rows(client, query, object_id))
    if len(accounts) > 1:
        raise UsageError(
            f"{len(accounts)} accounts of this dataset have an object of this id, and it would be erased in all. "
            "Nothing was erased: load that account into a dataset of its own, and erase it there."
        )


def _forget(store: FeedStore, client: Any, object_ids: Sequence[str]) -> int:
    with store.transaction() as db:
        _drop_next(db)  # left by a killed rebuild
    count = store.forget(object_ids)
    erase_bodies(client, object_ids)
    return count


MADE_BY_STRIPE = WRITABLE["customers"].prefix
ErasePushed = Callable[[Collection[str], Collection[str]], Collection[str]]
"""Erases what a push log holds of a customer, by the ids of all objects and the e-mail addresses, and
returns the keys of its rows, as the tables of pushes have them.
"""


def erase(
    store: FeedStore,
    client: Any,
    customer: str,
    now: float,
    erase_pushed: ErasePushed = lambda ids, addresses: (),
) -> Erased:
    """Forget a customer, and erase the rows and messages too, now and whenever a load brings them
    again. May be run again. Raises `UsageError` as `check_erasable` does.
    """
    check_erasable(store, client, customer)
    columns = held_columns(client)
    held = ids_of(client, customer, columns)
    keys = erase_pushed(held, addresses_of(client, customer, columns))
    erase_keys(client, customer, held, keys)
    ids = [customer, *ids_of_others(client, customer, columns)]
    with store.secure_delete(), store.transaction() as db:
        db.execute("insert or ignore into erased values (?, ?)", (customer, now))
        messages = sum(_drop_messages(db, id, now) for id in ids)
        drop_bodies(db, customer)
    changes = _forget(store, client, ids)
    return Erased(erase_rows(client, customer, columns), changes, messages)


def drop_bodies(db: sqlite3.Connection, customer: str) -> None:
    """Drop the bodies of received events that name a customer; they are read from Stripe again."""
    db.execute(
        "update rung set body = null "
        "where instr(body, cast(? as blob)) > 0 or instr(body, cast(? as blob)) > 0",
        (json.dumps(customer), json.dumps(customer, ensure_ascii=False)),
    )


def _drop_messages(db: sqlite3.Connection, id: str, now: float) -> int:
    """Drop what is still to be sent of an object or a customer, dead messages too, with the notes of
    attempts.
    """
    of_customer = (
        "object_id = ? or change_id in (select change_id from log where customer_id = ? "
        "union all select change_id from model_changes where customer_id = ?)"
    )
    values = (id, id, id)
    db.execute(
        f"update attempts set note = '' where message_id in (select message_id from messages where {of_customer})",
        values,
    )
    return db.execute(
        f"update messages set state = 'dropped', ended_at = ? where state in ({UNFINISHED}) and ({of_customer})",
        (now, *values),
    ).rowcount
