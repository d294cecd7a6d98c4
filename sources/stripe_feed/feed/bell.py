"""Rung events: what webhooks told of, kept until it is read through the API. A webhook is never a change by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from .store import FeedStore

_turn = threading.Lock()


@dataclass(frozen=True, slots=True)
class Rung:
    """An event that is to be read. `rung_at`: Unix seconds; `body`: as the webhook brought it, where it was kept."""

    event_id: str
    rung_at: float
    body: bytes | None = field(default=None, repr=False)


def ring(store: FeedStore, event_id: str, now: float, body: bytes | None = None) -> bool:
    """Note that an event happened, once; whether that is new. Once this returns, a power cut does not undo it.

    Raises `Unusable` where the store cannot be written.
    """
    with _turn:      # two at once would take the setting from each other
        # Stripe does not send again what was answered with 200. Elsewhere a lost commit is done anew, so only this one is synced.
        store.ask("pragma synchronous = full")
        try:
            with store.transaction() as db:
                return db.execute("insert or ignore into rung values (?, ?, ?, null)", (event_id, now, body)).rowcount == 1
        finally:
            store.ask("pragma synchronous = normal")


def waiting(store: FeedStore, limit: int) -> list[Rung]:
    """The events that were not read yet, in the order in which they were rung: at most `limit`.

    Those with a body first: the others may wait for a permission.
    """
    rows = store.ask(
        "select event_id, rung_at, body from rung where read_at is null order by body is null, rung_at, event_id limit ?", limit
    )
    return [Rung(*row) for row in rows]


def read(store: FeedStore, ids: Iterable[str], now: float) -> None:
    """Note that events were read, and drop their bodies. Their ids stay, so that a webhook that comes again rings nothing."""
    with store.transaction() as db:
        db.executemany(
            "update rung set read_at = ?, body = null where event_id = ? and read_at is null", [(now, id) for id in ids]
        )


def prune(store: FeedStore, before: float) -> int:
    """Forget the events that were read before this time; return how many. Those that were not read stay."""
    with store.transaction() as db:
        return db.execute("delete from rung where read_at < ?", (before,)).rowcount
