"""The outbox: one stored message per firing of a trigger, kept until it is delivered or given up.

A message holds only ids; its payload is built from the change when it is sent. States: `waiting`,
`held` (by a guard), `sent`, `dead` (given up after the last attempt), `dropped` (discarded, or its
change is gone). Messages with the same ordering key (`lane`) are sent one after the other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import Any

from ..errors import UsageError
from ..feed.change import Change
from ..feed.storage.schema import UNFINISHED
from ..feed.storage.store import FeedStore, placeholders


@dataclass(frozen=True, slots=True)
class Message:
    """A message for an endpoint: a change, or an object's net change from `first_change_id` to
    `change_id`.

    `message_id` is the same whenever and wherever it is created, so receivers can detect
    repetitions. Times are Unix seconds.
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
    """One delivery attempt: when, how long (seconds), and how it ended (`code`: an HTTP status,
    `timeout`, …).
    """

    at: float
    seconds: float
    code: str
    note: str


CLOCK_SKEW = 60.0  # seconds: a clock that noted more than this was ahead
MAX_WAIT = 120_000.0  # seconds that a message waits at most, jitter included
_BATCH_SIZE = 5_000  # messages changed at once: nobody waits for long
GIVEN_UP = f"trigger = ? and lane = ? and state in ({UNFINISHED}) and state = 'dead' and told = 0 and number < ?"
COLUMNS = ", ".join(one.name for one in fields(Message))


def message_id_of(trigger: str, first: str, last: str) -> str:
    """Return the id of a message."""
    return "msg_" + blake2b("\0".join((trigger, first, last)).encode(), digest_size=15).hexdigest()


def enqueue(
    db: sqlite3.Connection,
    trigger: str,
    firings: Iterable[tuple[Change, Change, str]],
    state: str,
    now: float,
    replay: bool = False,
) -> int:
    """Enqueue messages, each from a first change, a last change and an ordering key; return how
    many.

    Existing messages are unchanged, unless a held or discarded replay created them. A replay sends
    again what is not waiting, and keeps the state it found.
    """
    rows = [
        (
            message_id_of(trigger, first.change_id, last.change_id),
            trigger,
            last.change_id,
            first.change_id,
            last.resource,
            last.object_id,
            lane,
            state,
            now,
            now,
            "new" if replay else None,
        )
        for first, last, lane in firings
    ]
    found_in = (
        "case when replayed = 'new' and state = 'dropped' then 'new' else state end"
        if replay
        else "null"
    )
    where = (
        "state not in ('waiting', 'held')"
        if replay
        else "replayed = 'new' and state in ('held', 'dropped')"
    )
    conflict = (
        f"update set replayed = {found_in}, state = excluded.state, tries = 0, due_at = excluded.due_at, begun_at = null, "
        f"ended_at = null where {where}"
    )
    before = db.total_changes
    db.executemany(
        "insert into messages (message_id, trigger, change_id, first_change_id, resource, object_id, lane, state, due_at, "
        f"made_at, replayed) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        f"on conflict (message_id) do {conflict}",
        rows,
    )
    return db.total_changes - before


def next_due(
    store: FeedStore,
    trigger: str,
    until: float,
    now: float,
    blocking: bool,
    limit: int,
    lane: str | None = None,
) -> list[Message]:
    """Return the first message of each ordering key if it is due by `until`, oldest first.
    `blocking`: a dead message blocks its key; messages held for a replay's release do not. Times
    from a clock that was ahead count as due.
    """
    passes = (
        f"trigger = ? and state in ({UNFINISHED}) and not (state = 'held' and replayed is not null)"
    )
    passes += "" if blocking else " and state <> 'dead'"
    first, values = (
        f"select min(number) as first from messages where {passes} group by lane",
        [trigger],
    )
    if lane is not None:
        first = f"select number as first from messages where {passes} and lane = ? order by number limit 1"
        values = [trigger, lane]
    rows = store.query(
        f"select {', '.join(f'm.{one.name}' for one in fields(Message))} from ({first}) join messages m on m.number = first "
        "where m.state = 'waiting' and (m.due_at <= ? or m.due_at > ? or coalesce(m.begun_at, m.made_at) > ?) "
        "order by m.number limit ?",
        *values,
        until,
        now + MAX_WAIT,
        now + CLOCK_SKEW,
        limit,
    )
    return [Message(*row) for row in rows]


def record_start(db: sqlite3.Connection, message: Message, now: float) -> bool:
    """Record that an attempt starts; return whether the message must still be sent. Without this
    record nothing is sent.
    """
    return (
        db.execute(
            "update messages set begun_at = ? where number = ? and state = 'waiting'",
            (now, message.number),
        ).rowcount
        == 1
    )


def is_in_doubt(store: FeedStore) -> bool:
    """Whether some message may have been sent already: its attempt started, and no result was
    recorded.
    """
    return bool(
        store.query(
            f"select 1 from messages m where state in ({UNFINISHED}) and state = 'waiting' and begun_at is not null "
            "and not exists (select 1 from attempts a where a.message_id = m.message_id and a.at >= m.begun_at) limit 1"
        )
    )


def skipped(store: FeedStore, message: Message) -> list[str]:
    """Return the changes with its ordering key that were given up since the last sent message."""
    rows = store.query(
        f"select change_id from messages where {GIVEN_UP} order by number", *_ordering_key(message)
    )
    return [change_id for (change_id,) in rows]


def mark_skips_reported(db: sqlite3.Connection, message: Message) -> None:
    """Record that a sent message reported the skipped changes before it."""
    db.execute(f"update messages set told = 1 where {GIVEN_UP}", _ordering_key(message))


def _ordering_key(message: Message) -> tuple[str, str, int]:
    return message.trigger, message.lane, message.number


def record_attempt(
    db: sqlite3.Connection,
    message: Message,
    attempt: Attempt,
    state: str,
    due_at: float | None = None,
) -> None:
    """Record an attempt and the message's new state: the try counts unless it succeeded."""
    db.execute(
        "insert into attempts select ?, coalesce(max(number), 0) + 1, ?, ?, ?, ? from attempts where message_id = ?",
        (
            message.message_id,
            attempt.at,
            attempt.seconds,
            attempt.code,
            attempt.note,
            message.message_id,
        ),
    )
    ended = None if state == "waiting" else attempt.at + attempt.seconds
    db.execute(
        "update messages set state = ?, tries = tries + ?, due_at = coalesce(?, due_at), ended_at = ?, told = 0 "
        "where number = ? and state = 'waiting'",
        (state, int(state in ("waiting", "dead")), due_at, ended, message.number),
    )


def are_several_failing(db: sqlite3.Connection, trigger: str, since: float) -> bool:
    """Whether messages with several ordering keys have failed since a time: a single one may be the
    message's own fault.
    """
    failed = f"trigger = ? and state in ({UNFINISHED}) and tries > 0 and coalesce(ended_at, ?) >= ?"
    return (
        len(
            db.execute(
                f"select distinct lane from messages where {failed} limit 2",
                (trigger, since, since),
            ).fetchall()
        )
        > 1
    )


def dead(store: FeedStore, trigger: str | None = None) -> list[Message]:
    """Return the dead messages, oldest first."""
    return find(store, states=("dead",), trigger=trigger)


def find(
    store: FeedStore,
    *,
    states: Sequence[str] = (),
    trigger: str | None = None,
    change_id: str | None = None,
) -> list[Message]:
    """Return messages in these states, of a trigger, or about a change; oldest first."""
    where, values, index = ["1"], list[Any](), ""
    if states:
        where, values = [*where, f"state in ({placeholders(states)})"], [*values, *states]
    if states and all(
        f"'{state}'" in UNFINISHED for state in states
    ):  # few, however many were sent
        where, index = [*where, f"state in ({UNFINISHED})"], " indexed by messages_lanes"
    if trigger is not None:
        where, values = [*where, "trigger = ?"], [*values, trigger]
    if change_id is not None:
        where, values = [*where, "change_id = ?"], [*values, change_id]
    rows = store.query(
        f"select {COLUMNS} from messages{index} where {' and '.join(where)} order by number",
        *values,
    )
    return [Message(*row) for row in rows]


def attempts(store: FeedStore, message_id: str) -> list[Attempt]:
    """Return the attempts of a message, in order."""
    query = "select at, seconds, code, note from attempts where message_id = ? order by number"
    return [Attempt(*row) for row in store.query(query, message_id)]


def retry(store: FeedStore, now: float, ids: Sequence[str] = (), trigger: str | None = None) -> int:
    """Requeue dead messages: these, or all of a trigger, or all; return how many.

    Raises `UsageError` for an id that is not a dead message.
    """
    given_up = {message.message_id for message in dead(store, trigger)}
    for id in ids:
        if id not in given_up:
            raise UsageError(
                f"{id!r} is not a dead message. `stripe-feed feed dead list` lists them."
            )
    chosen = sorted(set(ids) or given_up)
    for start in range(0, len(chosen), _BATCH_SIZE):
        with store.transaction() as db:
            db.executemany(
                "update messages set state = 'waiting', tries = 0, due_at = ?, begun_at = null, ended_at = null "
                "where message_id = ? and state = 'dead'",
                [(now, id) for id in chosen[start : start + _BATCH_SIZE]],
            )
    return len(chosen)


RESET = (
    "disabled = null, failing_since = null, failed_at = null, paused_until = null, released_at = ?"
)
RELEASED = "held = null, held_for = null"
RESUMED = "state = 'waiting', due_at = ?, ended_at = null"
DROPPED = "state = 'dropped', ended_at = ?"
_UNDONE = (
    "state = case replayed when 'new' then 'dropped' else replayed end, replayed = case replayed when 'new' then 'new' end, "
    "ended_at = ?"
)
REPLAYED = "state = 'held' and replayed is not null"


def release(store: FeedStore, trigger: str, now: float) -> int:
    """Resume a held or disabled trigger; return how many messages are released."""
    if any(
        value is not None for value in _trigger_status(store, trigger)
    ):  # the receiver may be mended
        _change(store, trigger, "due_at = ?", now, f"state = 'waiting' and due_at > {now!r}")
    released = _change(store, trigger, RESUMED, now, "state = 'held'")
    with store.transaction() as db:
        db.execute("update enrolled set at = -at where trigger = ? and at < 0", (trigger,))
        db.execute(f"update triggers set {RELEASED}, {RESET} where name = ?", (now, trigger))
        return released + _changed(db, trigger, RESUMED, now, "state = 'held'")


def discard(store: FeedStore, trigger: str, now: float, waiting: bool = False) -> int:
    """Drop held messages and resume the trigger; return how many were dropped. `waiting`: also drop
    waiting and dead messages.

    A held replay is dropped first, and alone: messages sent or given up before it keep their state,
    messages held by a guard stay held, and the objects it enrolled are no longer enrolled.
    """
    _trigger_status(store, trigger)
    replayed = store.query(
        f"select 1 from messages where trigger = ? and state in ({UNFINISHED}) and {REPLAYED} limit 1",
        trigger,
    )
    if replayed and not waiting:
        which, change, unheld = (
            REPLAYED,
            _UNDONE,
            "held = case when held_for is null then held end, held_for = null",
        )
    else:
        which, change, unheld = "1" if waiting else "state = 'held'", DROPPED, RELEASED
    if any(value is not None for value in _trigger_status(store, trigger)):
        _change(store, trigger, "due_at = ?", now, f"state = 'waiting' and due_at > {now!r}")
    dropped = _change(store, trigger, change, now, which)
    with store.transaction() as db:
        db.execute("delete from enrolled where trigger = ? and at < 0", (trigger,))
        db.execute(f"update triggers set {unheld}, {RESET} where name = ?", (now, trigger))
        return dropped + _changed(db, trigger, change, now, which)


def _trigger_status(store: FeedStore, trigger: str) -> tuple[Any, ...]:
    rows = store.query(
        "select disabled, failing_since, paused_until from triggers where name = ?", trigger
    )
    if not rows:
        raise UsageError(
            f"Trigger {trigger!r} has not run yet. `stripe-feed triggers list` lists the triggers that have."
        )
    status: tuple[Any, ...] = rows[0]
    return status


def _change(store: FeedStore, trigger: str, change: str, now: float, which: str) -> int:
    """Change a trigger's unfinished messages in batches; return how many. Changed messages must no
    longer match `which`.
    """
    count = 0
    while True:
        with store.transaction() as db:
            changed = _changed(db, trigger, change, now, which)
        count += changed
        if changed < _BATCH_SIZE:
            return count


def _changed(db: sqlite3.Connection, trigger: str, change: str, now: float, which: str) -> int:
    return db.execute(
        f"update messages set {change} where number in (select number from messages where trigger = ? and state in ({UNFINISHED}) "
        f"and {which} limit {_BATCH_SIZE})",
        (now, trigger),
    ).rowcount


def counts(store: FeedStore) -> dict[str, dict[str, int]]:
    """Return each trigger's number of messages, by state."""
    by_trigger = unfinished_counts(store)
    for trigger, count in store.query(
        "select trigger, count(*) from messages where state = 'dropped' group by 1"
    ):
        by_trigger.setdefault(trigger, {})["dropped"] = count
    for trigger, count in store.query(
        "select trigger, count(*) from messages indexed by messages_made group by 1"
    ):
        if sent := count - sum(by_trigger.get(trigger, {}).values()):
            by_trigger.setdefault(trigger, {})["sent"] = sent
    return by_trigger


def unfinished_counts(store: FeedStore) -> dict[str, dict[str, int]]:
    """Return each trigger's number of messages that may still be delivered, by state."""
    by_trigger: dict[str, dict[str, int]] = {}
    query = (
        f"select trigger, state, count(*) from messages where state in ({UNFINISHED}) group by 1, 2"
    )
    for trigger, state, count in store.query(query):
        by_trigger.setdefault(trigger, {})[state] = count
    return by_trigger
