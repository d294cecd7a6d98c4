"""Keep consumer positions in the destination, for workers without a disk: read when a feed opens,
written when it closes.

The log needs no copy there: a feed opened on a new machine relays the same changes in the same
order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..destination.state import is_missing_table
from ..errors import Fenced
from . import consumers
from .storage.store import FeedStore

_TABLE = "_stripe_feed_cursors"

Positions = Mapping[str, str | None]  # consumer -> the change that it acknowledged last


def fetch(store: FeedStore, client: Any) -> dict[str, str | None]:
    """Set each consumer to just after the change it acknowledged last, as the destination records
    it; return these changes.

    A consumer that the destination does not know keeps its position in the store.
    """
    positions = _read_positions(client)
    for name, change_id in positions.items():
        rows = (
            store.query("select position from log where change_id = ?", change_id)
            if change_id
            else [(0,)]
        )
        if rows:
            consumers.set_position(store, name, int(rows[0][0]))
    return positions


def save(store: FeedStore, client: Any, before: Positions) -> None:
    """Write the consumers' positions, all or none. Raises `Fenced` if another worker moved one
    since `before`.
    """
    positions = dict(
        store.query("select name, change_id from consumers where name not like 'trigger:%'")
    )
    moved = {
        name: change_id
        for name, change_id in positions.items()
        if name not in before or before[name] != change_id
    }
    if not moved:
        return
    table = client.make_qualified_table_name(_TABLE)
    client.execute_sql(
        f"create table if not exists {table} (consumer varchar(100) primary key, change_id varchar(255))"
    )
    with client.begin_transaction():
        current = _read_positions(client)
        if conflicting := [name for name in moved if current.get(name) != before.get(name)]:
            raise Fenced(
                f"Consumer {conflicting[0]} was moved by another worker: its position here is not saved. Open the feed again."
            )
        for name, change_id in moved.items():
            client.execute_sql(f"delete from {table} where consumer = %s", name)
            client.execute_sql(
                f"insert into {table} (consumer, change_id) values (%s, %s)", name, change_id
            )


def _read_positions(client: Any) -> dict[str, str | None]:
    try:
        rows = client.execute_sql(
            f"select consumer, change_id from {client.make_qualified_table_name(_TABLE)}"
        )
    except Exception as fault:
        if not is_missing_table(fault):
            raise
        return {}
    return {str(name): change_id for name, change_id in rows or ()}
