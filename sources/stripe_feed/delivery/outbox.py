"""Messages to receivers, as they lie in the store: one per firing of a trigger, until it is
delivered or given up.

A message holds ids only; its body is made of the change when it is sent. States: `waiting`, `held`
(by a guard), `sent`, `dead` (given up after the last attempt), `dropped` (discarded, or its change
is gone). Those of one lane are sent one after the other.
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
    """What is to reach a receiver: a change, or the net of an object's changes from
    `first_change_id` to `change_id`.

    `message_id` is the same whenever and wherever it is made, so that a receiver can tell a
    repetition. Times are Unix seconds.
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
    """One try to deliver: when, for how long (seconds), and what came of it (`code`: an HTTP
    status, `timeout`, …).
    """

    at: float
    seconds: float
    code: str
    note: str


AHEAD = 60.0  # seconds: a clock that noted more than this was ahead
LONGEST = 120_000.0  # seconds that a message waits at most, jitter included
STEP = 5_000  # messages changed at once: nobody waits for long
GIVEN_UP = f"trigger = ? and lane = ? and state in ({UNFINISHED}) and state = 'dead' and told = 0 and number < ?"
COLUMNS = ", ".join(one.name for one in fields(Message))


def id_of(trigger: str, first: str, last: str) -> str:
    """The id of a message."""
    return "msg_" + blake2b("\0".join((trigger, first, last)).encode(), digest_size=15).hexdigest()


def put(
    db: sqlite3.Connection,
    trigger: str,
    found: Iterable[tuple[Change, Change, str]],
    state: str,
    now: float,
    again: bool = False,
) -> int:
    """Note messages, each of a first and a last change and a lane; return how many.

    What is there already stays as it is, unless a replay that is held or was discarded made it. A
    replay sends what does not wait already `again`, and keeps the state that it found.
    """
    rows = [
        (
            id_of(trigger, first.change_id, last.change_id),
            trigger,
            last.change_id,
            first.change_id,
            last.resource,
            last.object_id,
            lane,
            state,
            now,
            now,
            "new" if again else None,
        )
        for first, last, lane in found
    ]
    found_in = (
        "case when replayed = 'new' and state = 'dropped' then 'new' else state end"
        if again
        else "null"
    )
    where = (
        "state not in ('waiting', 'held')"
        if again
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


def due(
    store: FeedStore,
    trigger: str,
    until: float,
    now: float,
    blocking: bool,
    limit: int,
    lane: str | None = None,
) -> list[Message]:
    """The first message of each lane, where it is due by `until`; the oldest first. `blocking`: one
    that was given up holds its lane; what waits for the release of a replay holds none. What a
    clock noted that was ahead is due.
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
        now + LONGEST,
        now + AHEAD,
        limit,
    )
    return [Message(*row) for row in rows]


def begun(db: sqlite3.Connection, message: Message, now: float) -> bool:
    """Note that a try begins; whether the message is still to be sent. What cannot be noted is not
    sent.
    """
    return (
        db.execute(
            "update messages set begun_at = ? where number = ? and state = 'waiting'",
            (now, message.number),
        ).rowcount
        == 1
    )


def is_in_doubt(store: FeedStore) -> bool:
    """Whether a message may have been sent already: its try began, and nobody noted what came of
    it.
    """
    return bool(
        store.query(
            f"select 1 from messages m where state in ({UNFINISHED}) and state = 'waiting' and begun_at is not null "
            "and not exists (select 1 from attempts a where a.message_id = m.message_id and a.at >= m.begun_at) limit 1"
        )
    )


def skipped(store: FeedStore, message: Message) -> list[str]:
    """The changes of its lane that were given up since one was last sent."""
    rows = store.query(
        f"select change_id from messages where {GIVEN_UP} order by number", *_lane_of(message)
    )
    return [change_id for (change_id,) in rows]


def told(db: sqlite3.Connection, message: Message) -> None:
    """Note that a message was sent, and with it what was skipped before."""
    db.execute(f"update messages set told = 1 where {GIVEN_UP}", _lane_of(message))


def _lane_of(message: Message) -> tuple[str, str, int]:
    return message.trigger, message.lane, message.number


def tried(
    db: sqlite3.Connection,
    message: Message,
    attempt: Attempt,
    state: str,
    due_at: float | None = None,
) -> None:
    """Note an attempt, and where the message stands after it: its try counts unless it ended well."""
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
    """Whether messages of several lanes failed since a time and did not arrive: of one, it may be
    the message's own fault.
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
    """Messages that were given up, the oldest first."""
    return find(store, states=("dead",), trigger=trigger)


def find(
    store: FeedStore,
    *,
    states: Sequence[str] = (),
    trigger: str | None = None,
    change_id: str | None = None,
) -> list[Message]:
    """Messages in these states, of a trigger, or about a change; the oldest first."""
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
    """The attempts of a message, the first first."""
    query = "select at, seconds, code, note from attempts where message_id = ? order by number"
    return [Attempt(*row) for row in store.query(query, message_id)]


def retry(store: FeedStore, now: float, ids: Sequence[str] = (), trigger: str | None = None) -> int:
    """Put messages that were given up back into their lanes: these, or all of a trigger, or all;
    return how many.

    Raises `UsageError` for an id that is none of theirs.
    """
    given_up = {one.message_id for one in dead(store, trigger)}
    for id in ids:
        if id not in given_up:
            raise UsageError(f"{id!r} is no dead letter. `stripe-feed feed dead list` shows them.")
    chosen = sorted(set(ids) or given_up)
    for start in range(0, len(chosen), STEP):
        with store.transaction() as db:
            db.executemany(
                "update messages set state = 'waiting', tries = 0, due_at = ?, begun_at = null, ended_at = null "
                "where message_id = ? and state = 'dead'",
                [(now, id) for id in chosen[start : start + STEP]],
            )
    return len(chosen)


AFRESH = (
    "disabled = null, failing_since = null, failed_at = null, paused_until = null, released_at = ?"
)
UNHELD = "held = null, held_for = null"
RESUMED = "state = 'waiting', due_at = ?, ended_at = null"
DROPPED = "state = 'dropped', ended_at = ?"
UNDONE = (
    "state = case replayed when 'new' then 'dropped' else replayed end, replayed = case replayed when 'new' then 'new' end, "
    "ended_at = ?"
)
REPLAYED = "state = 'held' and replayed is not null"


def release(store: FeedStore, trigger: str, now: float) -> int:
    """Let a trigger that is held or disabled go on; return how many messages are no longer held."""
    if any(one is not None for one in _standing(store, trigger)):  # the receiver may be mended
        _change(store, trigger, "due_at = ?", now, f"state = 'waiting' and due_at > {now!r}")
    released = _change(store, trigger, RESUMED, now, "state = 'held'")
    with store.transaction() as db:
        db.execute("update enrolled set at = -at where trigger = ? and at < 0", (trigger,))
        db.execute(f"update triggers set {UNHELD}, {AFRESH} where name = ?", (now, trigger))
        return released + _changed(db, trigger, RESUMED, now, "state = 'held'")


def discard(store: FeedStore, trigger: str, now: float, waiting: bool = False) -> int:
    """Drop what a guard holds, and let the trigger go on; return how many messages were dropped.
    `waiting`: also what waits, or was given up.

    A replay that is held goes first, and alone: messages that were sent before it, or given up,
    stand where they stood, those that a guard holds beside it stay held, and whom it enrolled is
    enrolled no more.
    """
    _standing(store, trigger)
    replayed = store.query(
        f"select 1 from messages where trigger = ? and state in ({UNFINISHED}) and {REPLAYED} limit 1",
        trigger,
    )
    if replayed and not waiting:
        which, change, unheld = (
            REPLAYED,
            UNDONE,
            "held = case when held_for is null then held end, held_for = null",
        )
    else:
        which, change, unheld = "1" if waiting else "state = 'held'", DROPPED, UNHELD
    if any(one is not None for one in _standing(store, trigger)):
        _change(store, trigger, "due_at = ?", now, f"state = 'waiting' and due_at > {now!r}")
    dropped = _change(store, trigger, change, now, which)
    with store.transaction() as db:
        db.execute("delete from enrolled where trigger = ? and at < 0", (trigger,))
        db.execute(f"update triggers set {unheld}, {AFRESH} where name = ?", (now, trigger))
        return dropped + _changed(db, trigger, change, now, which)


def _standing(store: FeedStore, trigger: str) -> tuple[Any, ...]:
    rows = store.query(
        "select disabled, failing_since, paused_until from triggers where name = ?", trigger
    )
    if not rows:
        raise UsageError(
            f"The trigger {trigger!r} has not run yet. `stripe-feed triggers list` shows those that have."
        )
    found: tuple[Any, ...] = rows[0]
    return found


def _change(store: FeedStore, trigger: str, change: str, now: float, which: str) -> int:
    """Change what is left of a trigger's messages, some at a time; return how many. What was
    changed is not `which` any more.
    """
    count = 0
    while True:
        with store.transaction() as db:
            some = _changed(db, trigger, change, now, which)
        count += some
        if some < STEP:
            return count


def _changed(db: sqlite3.Connection, trigger: str, change: str, now: float, which: str) -> int:
    return db.execute(
        f"update messages set {change} where number in (select number from messages where trigger = ? and state in ({UNFINISHED}) "
        f"and {which} limit {STEP})",
        (now, trigger),
    ).rowcount


def counts(store: FeedStore) -> dict[str, dict[str, int]]:
    """How many messages each trigger has, by state."""
    found = left(store)
    for trigger, count in store.query(
        "select trigger, count(*) from messages where state = 'dropped' group by 1"
    ):
        found.setdefault(trigger, {})["dropped"] = count
    for trigger, count in store.query(
        "select trigger, count(*) from messages indexed by messages_made group by 1"
    ):
        if sent := count - sum(found.get(trigger, {}).values()):
            found.setdefault(trigger, {})["sent"] = sent
    return found


def left(store: FeedStore) -> dict[str, dict[str, int]]:
    """How many messages of each trigger did not reach their receiver and may still, by state."""
    found: dict[str, dict[str, int]] = {}
    query = (
        f"select trigger, state, count(*) from messages where state in ({UNFINISHED}) group by 1, 2"
    )
    for trigger, state, count in store.query(query):
        found.setdefault(trigger, {})[state] = count
    return found
