"""The webhook inbox: received events, kept until they are read through the API. A webhook is never
a change by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..feed.storage.store import FeedStore

MAX_TRIES = 10  # of an event that cannot be read; with the waits between them half an hour
_MAX_WAIT_SECONDS = 2.0**MAX_TRIES

_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event to read. `rung_at`: Unix seconds; `body`: as the webhook sent it, if it was kept;
    `head`: the parts of it that the reader uses. `tries`: how often it could not be read.
    """

    event_id: str
    rung_at: float
    body: bytes | None = field(default=None, repr=False)
    head: bytes | None = None
    tries: int = 0


@dataclass(frozen=True, slots=True)
class FailedEvents:
    """How many received events could not be read and are retried, and how many of the remembered
    ones were given up.
    """

    waiting: int
    given_up: int


def record(
    store: FeedStore,
    event_id: str,
    now: float,
    body: bytes | None = None,
    head: bytes | None = None,
    account: str | None = None,
) -> bool:
    """Record an event once; return whether it is new. After this returns, a power cut does not undo
    it. `account`: of an event of a connected account, where one inbox serves many.

    Raises `Unusable` if the store cannot be written.
    """
    with _lock:  # two at once would take the setting from each other
        # Stripe does not send again what was answered with 200. Elsewhere a lost commit is done
        # anew, so only this one is synced.
        store.query("pragma synchronous = full")
        try:
            with store.transaction() as db:
                query = "insert or ignore into rung (event_id, rung_at, body, head, account) values (?, ?, ?, ?, ?)"
                return db.execute(query, (event_id, now, body, head, account)).rowcount == 1
        finally:
            store.query("pragma synchronous = normal")


def unread(
    store: FeedStore, limit: int, now: float | None = None, account: str | None = None
) -> list[ReceivedEvent]:
    """Return at most `limit` unread events in the order received; with `now`, only those due; with
    `account`, only those of this connected account.

    Events with a body come first: the others may wait for a permission.
    """
    due = (
        "" if now is None else " and not (due_at > ? and due_at <= ?)"
    )  # a clock that was ahead makes none wait longer
    theirs = "" if account is None else " and account = ?"
    rows = store.query(
        f"select event_id, rung_at, body, head, tries from rung where read_at is null{due}{theirs} "
        "order by body is null, rung_at, event_id limit ?",
        *(() if now is None else (now, now + _MAX_WAIT_SECONDS)),
        *(() if account is None else (account,)),
        limit,
    )
    return [ReceivedEvent(*row) for row in rows]


def accounts_to_read(store: FeedStore, account: str | None = None) -> dict[str, float]:
    """Return the connected accounts that have unread events, and from which time on the first of them
    can be read; with `account`, only this one.
    """
    which = "account is not null" if account is None else "account = ?"
    rows = store.query(
        "select account, min(case when fault is null then rung_at else due_at end) from rung "
        f"where read_at is null and {which} group by account",
        *(() if account is None else (account,)),
    )
    return dict(rows)


def drop_accounts(store: FeedStore, accounts: Iterable[str], now: float) -> None:
    """Read nothing more of these accounts: they are not connected any more."""
    with store.transaction() as db:
        db.executemany(
            "update rung set read_at = ?, body = null, head = null where account = ? and read_at is null",
            [(now, account) for account in accounts],
        )


def seconds_until_due(store: FeedStore, now: float) -> float | None:
    """Return in how many seconds the next failed event is due."""
    ((due,),) = store.query(
        "select min(due_at) from rung where read_at is null and fault is not null"
    )
    return None if due is None else min(due - now, _MAX_WAIT_SECONDS)


def mark_read(store: FeedStore, ids: Iterable[str], now: float) -> None:
    """Record that events were read, and delete their bodies. Their ids stay, so a repeated webhook
    does nothing.
    """
    with store.transaction() as db:
        db.executemany(
            "update rung set read_at = ?, body = null, head = null, fault = null where event_id = ? and read_at is null",
            [(now, id) for id in ids],
        )


def mark_failed(store: FeedStore, faults: Mapping[str, str], now: float) -> list[str]:
    """Record that events could not be read, and why: each is retried after a growing pause. Return
    those given up.
    """
    given_up = []
    with store.transaction() as db:
        for event_id, fault in faults.items():
            ((tries,),) = db.execute(
                "update rung set tries = tries + 1, fault = ? where event_id = ? and read_at is null returning tries",
                (fault, event_id),
            ).fetchall() or [(0,)]
            if tries >= MAX_TRIES:
                given_up.append(event_id)
                db.execute(
                    "update rung set read_at = ?, body = null, head = null where event_id = ?",
                    (now, event_id),
                )
            else:
                db.execute(
                    "update rung set due_at = ? where event_id = ?", (now + 2.0**tries, event_id)
                )
    return given_up


def failed_events(store: FeedStore) -> FailedEvents:
    """Return how many events cannot be read."""
    ((waits, given_up),) = store.query(
        "select count(*) filter (where read_at is null), count(*) filter (where read_at is not null) "
        "from rung where fault is not null"
    )
    return FailedEvents(waits, given_up)


def prune_read_events(store: FeedStore, before: float) -> int:
    """Delete the events that were read before this time; return how many. Unread events stay."""
    with store.transaction() as db:
        return db.execute("delete from rung where read_at < ?", (before,)).rowcount
