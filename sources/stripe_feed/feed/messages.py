"""Messages to receivers, as they lie in the store: one per firing of a trigger, until it is delivered or given up.

A message holds ids only; its body is made of the change when it is sent. States: `waiting`, `held` (by a guard), `sent`, `dead`
(given up after the last attempt), `dropped` (discarded, or its change is gone). Those of one lane are sent one after the other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import Any

from ..errors import UsageError
from .change import Change
from .store import LEFT, FeedStore, marks


@dataclass(frozen=True, slots=True)
class Message:
    """What is to reach a receiver: a change, or the net of an object's changes from `first_change_id` to `change_id`.

    `message_id` is the same whenever and wherever it is made, so that a receiver can tell a repetition. Times are Unix seconds.
    """

    number: int
    message_id: str
    trigger: str
    change_id: str
    first_change_id: str
    resource: str
    object_id: str
    lane: str
    state: str
    tries: int
    due_at: float
    made_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to deliver: when, for how long (seconds), and what came of it (`code`: an HTTP status, `timeout`, …)."""

    at: float
    seconds: float
    code: str
    note: str


COLUMNS = ", ".join(one.name for one in fields(Message))


def id_of(trigger: str, first: str, last: str) -> str:
    """The id of a message."""
    return "msg_" + blake2b("\0".join((trigger, first, last)).encode(), digest_size=15).hexdigest()


def put(
    db: sqlite3.Connection, trigger: str, found: Iterable[tuple[Change, Change, str]], state: str, now: float, again: bool = False
) -> int:
    """Note messages, each of a first and a last change and a lane; return how many. What is there already stays as it is, or is
    to be sent `again`."""
    rows = [
        (id_of(trigger, first.change_id, last.change_id), trigger, last.change_id, first.change_id, last.resource, last.object_id,
         lane, state, now, now)
        for first, last, lane in found
    ]
    conflict = "update set state = excluded.state, tries = 0, due_at = excluded.due_at, ended_at = null" if again else "nothing"
    before = db.total_changes
    db.executemany(
        "insert into messages (message_id, trigger, change_id, first_change_id, resource, object_id, lane, state, due_at, "
        f"made_at) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict (message_id) do {conflict}", rows,
    )
    return db.total_changes - before


def due(store: FeedStore, trigger: str, now: float, blocking: bool, limit: int, lane: str | None = None) -> list[Message]:
    """The first message of each lane, where it is due; the oldest first. `blocking`: one that was given up holds its lane."""
    mine, values = ("", [trigger]) if lane is None else (" and lane = ?", [trigger, lane])
    alive = "" if blocking else " and state <> 'dead'"
    rows = store.ask(
        f"select {', '.join(f'm.{one.name}' for one in fields(Message))} from (select min(number) as first from messages "
        f"where trigger = ? and state in ({LEFT}){alive}{mine} group by lane) join messages m on m.number = first "
        "where m.state = 'waiting' and m.due_at <= ? order by m.number limit ?", *values, now, limit,
    )
    return [Message(*row) for row in rows]


def skipped(store: FeedStore, message: Message) -> list[str]:
    """The changes of its lane that were given up since one was last sent."""
    rows = store.ask(
        "select change_id from messages where trigger = ? and lane = ? and state = 'dead' and number < ? and number > coalesce("
        "(select max(number) from messages where trigger = ? and lane = ? and state = 'sent' and number < ?), 0) order by number",
        *(message.trigger, message.lane, message.number) * 2,
    )
    return [change_id for (change_id,) in rows]


def tried(
    db: sqlite3.Connection, message: Message, attempt: Attempt, state: str, due_at: float | None = None
) -> None:
    """Note an attempt, and where the message stands after it: its try counts unless it ended well."""
    db.execute(
        "insert into attempts select ?, coalesce(max(number), 0) + 1, ?, ?, ?, ? from attempts where message_id = ?",
        (message.message_id, attempt.at, attempt.seconds, attempt.code, attempt.note, message.message_id),
    )
    ended = None if state == "waiting" else attempt.at + attempt.seconds
    db.execute(
        "update messages set state = ?, tries = tries + ?, due_at = coalesce(?, due_at), ended_at = ? "
        "where number = ? and state = 'waiting'",
        (state, int(state in ("waiting", "dead")), due_at, ended, message.number),
    )


def are_several_failing(db: sqlite3.Connection, trigger: str, since: float) -> bool:
    """Whether messages of several lanes failed since a time and did not arrive: of one, it may be the message's own fault."""
    failed = f"trigger = ? and state in ({LEFT}) and tries > 0 and coalesce(ended_at, ?) >= ?"
    return len(db.execute(f"select distinct lane from messages where {failed} limit 2", (trigger, since, since)).fetchall()) > 1


def dead(store: FeedStore, trigger: str | None = None) -> list[Message]:
    """Messages that were given up, the oldest first."""
    return find(store, states=("dead",), trigger=trigger)


def find(
    store: FeedStore, *, states: Sequence[str] = (), trigger: str | None = None, change_id: str | None = None
) -> list[Message]:
    """Messages in these states, of a trigger, or about a change; the oldest first."""
    where, values = ["1"], list[Any]()
    if states:
        where, values = [*where, f"state in ({marks(states)})"], [*values, *states]
    if trigger is not None:
        where, values = [*where, "trigger = ?"], [*values, trigger]
    if change_id is not None:
        where, values = [*where, "change_id = ?"], [*values, change_id]
    rows = store.ask(f"select {COLUMNS} from messages where {' and '.join(where)} order by number", *values)
    return [Message(*row) for row in rows]


def attempts(store: FeedStore, message_id: str) -> list[Attempt]:
    """The attempts of a message, the first first."""
    query = "select at, seconds, code, note from attempts where message_id = ? order by number"
    return [Attempt(*row) for row in store.ask(query, message_id)]


def retry(store: FeedStore, now: float, ids: Sequence[str] = (), trigger: str | None = None) -> int:
    """Put messages that were given up back into their lanes: these, or all of a trigger, or all; return how many.

    Raises `UsageError` for an id that is none of theirs.
    """
    given_up = {one.message_id for one in dead(store, trigger)}
    for id in ids:
        if id not in given_up:
            raise UsageError(f"{id!r} is no dead letter. `stripe-feed feed dead list` shows them.")
    chosen = set(ids) or given_up
    with store.transaction() as db:
        for id in chosen:
            db.execute(
                "update messages set state = 'waiting', tries = 0, due_at = ?, ended_at = null where message_id = ?", (now, id)
            )
    return len(chosen)


def release(store: FeedStore, trigger: str, now: float) -> int:
    """Let a trigger that is held or disabled go on; return how many messages are no longer held."""
    return _let_go(store, trigger, "waiting", now)


def discard(store: FeedStore, trigger: str, now: float, waiting: bool = False) -> int:
    """Drop what a guard holds, and let the trigger go on; return how many messages were dropped. `waiting`: also what waits, or
    was given up."""
    dropped = _let_go(store, trigger, "dropped", now)
    if waiting:
        with store.transaction() as db:
            dropped += db.execute(
                f"update messages set state = 'dropped', ended_at = ? where trigger = ? and state in ({LEFT})", (now, trigger)
            ).rowcount
    return dropped


def _let_go(store: FeedStore, trigger: str, state: str, now: float) -> int:
    with store.transaction() as db:
        found = db.execute("select disabled, failing_since from triggers where name = ?", (trigger,)).fetchone()
        if found is None:
            raise UsageError(f"The trigger {trigger!r} has not run yet. `stripe-feed triggers list` shows those that have.")
        afresh = "held = null, disabled = null, failing_since = null, released_at = ?"
        db.execute(f"update triggers set {afresh} where name = ?", (now, trigger))
        if any(one is not None for one in found):      # the receiver may be mended
            db.execute("update messages set due_at = ? where trigger = ? and state = 'waiting'", (now, trigger))
        return db.execute(
            "update messages set state = ?, due_at = ?, ended_at = case when ? = 'dropped' then ? end "
            "where trigger = ? and state = 'held'", (state, now, state, now, trigger),
        ).rowcount


def counts(store: FeedStore) -> dict[str, dict[str, int]]:
    """How many messages each trigger has, by state."""
    found: dict[str, dict[str, int]] = {}
    for trigger, state, count in store.ask("select trigger, state, count(*) from messages group by 1, 2"):
        found.setdefault(trigger, {})[state] = count
    return found
