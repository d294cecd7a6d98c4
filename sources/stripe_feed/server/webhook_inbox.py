"""Rung events: what webhooks told of, kept until it is read through the API. A webhook is never a
change by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..feed.storage.store import FeedStore

MOST_TRIES = 10  # of an event that cannot be read; with the waits between them half an hour
LONGEST_WAIT = 2.0**MOST_TRIES

_turn = threading.Lock()


@dataclass(frozen=True, slots=True)
class Rung:
    """An event that is to be read. `rung_at`: Unix seconds; `body`: as the webhook brought it,
    where it was kept; `head`: what it said of the event, as the reader wants it. `tries`: how often
    it could not be read.
    """

    event_id: str
    rung_at: float
    body: bytes | None = field(default=None, repr=False)
    head: bytes | None = None
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Trouble:
    """How many rung events could not be read and are tried again, and how many were given up of
    those remembered.
    """

    waiting: int
    given_up: int


def ring(
    store: FeedStore,
    event_id: str,
    now: float,
    body: bytes | None = None,
    head: bytes | None = None,
) -> bool:
    """Note that an event happened, once; whether that is new. Once this returns, a power cut does
    not undo it.

    Raises `Unusable` where the store cannot be written.
    """
    with _turn:  # two at once would take the setting from each other
        # Stripe does not send again what was answered with 200. Elsewhere a lost commit is done
        # anew, so only this one is synced.
        store.query("pragma synchronous = full")
        try:
            with store.transaction() as db:
                query = (
                    "insert or ignore into rung (event_id, rung_at, body, head) values (?, ?, ?, ?)"
                )
                return db.execute(query, (event_id, now, body, head)).rowcount == 1
        finally:
            store.query("pragma synchronous = normal")


def waiting(store: FeedStore, limit: int, now: float | None = None) -> list[Rung]:
    """The events that were not read yet, in the order in which they were rung: at most `limit`; at
    a time, those due by then.

    Those with a body first: the others may wait for a permission.
    """
    due = (
        "" if now is None else " and not (due_at > ? and due_at <= ?)"
    )  # a clock that was ahead makes none wait longer
    rows = store.query(
        f"select event_id, rung_at, body, head, tries from rung where read_at is null{due} "
        "order by body is null, rung_at, event_id limit ?",
        *(() if now is None else (now, now + LONGEST_WAIT)),
        limit,
    )
    return [Rung(*row) for row in rows]


def next_due(store: FeedStore, now: float) -> float | None:
    """In how many seconds the next event is due that could not be read."""
    ((due,),) = store.query(
        "select min(due_at) from rung where read_at is null and fault is not null"
    )
    return None if due is None else min(due - now, LONGEST_WAIT)


def read(store: FeedStore, ids: Iterable[str], now: float) -> None:
    """Note that events were read, and drop their bodies. Their ids stay, so that a webhook that
    comes again rings nothing.
    """
    with store.transaction() as db:
        db.executemany(
            "update rung set read_at = ?, body = null, head = null, fault = null where event_id = ? and read_at is null",
            [(now, id) for id in ids],
        )


def failed(store: FeedStore, faults: Mapping[str, str], now: float) -> list[str]:
    """Note that events could not be read, and why: each is tried again after a growing pause.
    Return those given up.
    """
    given_up = []
    with store.transaction() as db:
        for event_id, fault in faults.items():
            ((tries,),) = db.execute(
                "update rung set tries = tries + 1, fault = ? where event_id = ? and read_at is null returning tries",
                (fault, event_id),
            ).fetchall() or [(0,)]
            if tries >= MOST_TRIES:
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


def trouble(store: FeedStore) -> Trouble:
    """How many events cannot be read."""
    ((waits, given_up),) = store.query(
        "select count(*) filter (where read_at is null), count(*) filter (where read_at is not null) "
        "from rung where fault is not null"
    )
    return Trouble(waits, given_up)


def prune(store: FeedStore, before: float) -> int:
    """Forget the events that were read before this time; return how many. Those that were not read
    stay.
    """
    with store.transaction() as db:
        return db.execute("delete from rung where read_at < ?", (before,)).rowcount
