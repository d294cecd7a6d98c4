"""Send messages of a trigger on a model again."""

from __future__ import annotations

from ...delivery.outbox import find
from ...errors import UsageError
from ...feed.change import Change
from ...feed.consumers import StartAt, time_of
from ...feed.storage.store import FeedStore
from ..engine import TriggerResult, guard_reason, hold_replay, store_messages
from ..frequency import FiringLimit
from .model_trigger import ModelTrigger

_PAGE_SIZE = 500


def replay_rows(
    store: FeedStore, trigger: ModelTrigger, since: StartAt, now: float
) -> TriggerResult:
    """Send the messages since a time, a change or the earliest again, with their ids; return what was
    done.

    A row that never fired is not among them: nobody knows what a model was. The guard applies as to
    an evaluation, but does not hold new messages; messages that already wait are not changed. If it
    is killed, it can be run again.
    """
    ids = _change_ids(store, trigger, since, now)
    changes = [change for id in ids if (change := store.by_id(id)) is not None]
    objects = [(one.resource, one.object_id) for one in changes]
    reason = guard_reason(
        store, trigger, objects, float("inf"), lambda: _row_count(store, trigger.name)
    )
    with store.transaction() as db:
        hold_replay(db, trigger.name, reason)
    for start in range(0, len(changes), _PAGE_SIZE):
        page = changes[start : start + _PAGE_SIZE]
        firings = [(one, one, _lane(store, trigger, one)) for one in page]
        with store.transaction() as db:
            store_messages(db, trigger, firings, FiringLimit(trigger, db), now, is_replay=True)
    rows = store.query("select held from triggers where name = ?", trigger.name)
    return TriggerResult(trigger.name, len(ids), len(changes), rows[0][0] if rows else None)


def _change_ids(store: FeedStore, trigger: ModelTrigger, since: StartAt, now: float) -> list[str]:
    query = "select change_id from model_changes where trigger = ? and {} order by position"
    if since == "earliest":
        rows = store.query(query.format("1"), trigger.name)
    elif (when := time_of(since, now)) is not None:
        rows = store.query(query.format("occurred_at >= ?"), trigger.name, when)
    else:
        first = "position >= (select position from model_changes where change_id = ?)"
        rows = store.query(query.format(first), trigger.name, str(since))
        if not rows:
            raise UsageError(
                f"{str(since)[:60]!r} is not a message of {trigger.name}. Use earliest, the id of one "
                "of its changes, or a time such as 2026-01-31 or 30d."
            )
    return [change_id for (change_id,) in rows]


def _lane(store: FeedStore, trigger: ModelTrigger, change: Change) -> str:
    """The ordering key of the earlier message; the rule may order by another key now."""
    lanes = [
        one.lane for one in find(store, change_id=change.change_id) if one.trigger == trigger.name
    ]
    return lanes[0] if lanes else trigger.lane(change)


def _row_count(store: FeedStore, name: str) -> int:
    rows = store.query("select rows from model_states where trigger = ?", name)
    return int(rows[0][0]) if rows else 0
