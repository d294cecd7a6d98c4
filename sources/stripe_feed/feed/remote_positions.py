"""Cursors kept in the destination, for workers that keep nothing: taken from there when a feed is
opened, written when it closes.

The log needs no such care: whoever opens a feed on a new machine relays the same changes in the
same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..destination.state import is_missing
from ..errors import Fenced
from . import consumers
from .storage.store import FeedStore

TABLE = "_stripe_feed_cursors"

Held = Mapping[str, str | None]  # consumer -> the change that it acknowledged last


def fetch(store: FeedStore, client: Any) -> dict[str, str | None]:
    """Put each consumer behind the change that it acknowledged last, as the destination says;
    return these.

    A consumer that the destination does not know stays where the store has it.
    """
    found = _held(client)
    for name, change_id in found.items():
        rows = (
            store.ask("select position from log where change_id = ?", change_id)
            if change_id
            else [(0,)]
        )
        if rows:
            consumers.place(store, name, int(rows[0][0]))
    return found


def save(store: FeedStore, client: Any, before: Held) -> None:
    """Write down where the consumers stand, all or none. Raises `Fenced` where another worker moved
    one since `before`.
    """
    mine = dict(store.ask("select name, change_id from consumers where name not like 'trigger:%'"))
    moved = {
        name: change_id
        for name, change_id in mine.items()
        if name not in before or before[name] != change_id
    }
    if not moved:
        return
    table = client.make_qualified_table_name(TABLE)
    client.execute_sql(
        f"create table if not exists {table} (consumer varchar(100) primary key, change_id varchar(255))"
    )
    with client.begin_transaction():
        now = _held(client)
        if taken := [name for name in moved if now.get(name) != before.get(name)]:
            raise Fenced(
                f"Consumer {taken[0]} was moved by another worker meanwhile: where it stands here is not written down."
            )
        for name, change_id in moved.items():
            client.execute_sql(f"delete from {table} where consumer = %s", name)
            client.execute_sql(
                f"insert into {table} (consumer, change_id) values (%s, %s)", name, change_id
            )


def _held(client: Any) -> dict[str, str | None]:
    try:
        rows = client.execute_sql(
            f"select consumer, change_id from {client.make_qualified_table_name(TABLE)}"
        )
    except Exception as fault:
        if not is_missing(fault):
            raise
        return {}
    return {str(name): change_id for name, change_id in rows or ()}
