"""Evaluate triggers on models: compare the rows with those of the last evaluation, and write one
message for each row that meets the rule.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import blake2b
from typing import Any

import msgspec

from ...errors import SetupError
from ...feed.change import (
    CUSTOMER_ID,
    LOG_COLUMNS,
    OBJECT_ID,
    SOURCE_COLUMNS,
    Change,
    Entry,
    change_from_row,
    entry_from_row,
)
from ...feed.lookups import NO_LOOKUPS, Lookups
from ...feed.storage.store import FeedStore, placeholders
from ...models.database import ModelDatabase
from ..engine import TriggerResult, guard_reason, hold, register_trigger, run_each, store_messages
from ..frequency import FiringLimit
from .model_rows import Fingerprints, ModelRow, ModelRows, RowDigest
from .model_trigger import ROW_EVENTS, ModelTrigger, RowEvent

ReadModels = Callable[[Callable[[ModelDatabase], Any]], Any]
"""Calls a function with the open database of the models, and returns its result."""


def no_models(read: Callable[[ModelDatabase], Any]) -> Any:
    """Stands for a feed without a copy."""
    raise SetupError("There is no copy to read models from. Use a feed opened with `open_feed`.")


@dataclass(frozen=True, slots=True)
class EvaluationState:
    """What is known of a trigger's rows since the last evaluation that found a difference.
    `evaluation` counts these.
    """

    fingerprints: Fingerprints
    evaluation: int
    started_at: float


@dataclass(frozen=True, slots=True)
class RowChanges:
    """How the rows differ from the previous ones: keys by event, with what is to be stored of the
    rows that are there, and the whole previous and current rows as far as messages need them. `moved`:
    new buckets of rows that do not differ.
    """

    fingerprints: Fingerprints
    keys: Mapping[RowEvent, Sequence[str]]
    stored: Mapping[str, RowDigest]
    moved: Mapping[str, int]
    before: Mapping[str, ModelRow]
    after: Mapping[str, ModelRow]


@dataclass(frozen=True, slots=True)
class RowChange:
    """What happened to a row, as consumers get it and as the store holds it."""

    change: Change
    entry: Entry


def evaluate_models(
    store: FeedStore,
    triggers: Sequence[ModelTrigger],
    now: float,
    read_models: ReadModels = no_models,
    lookups: Lookups = NO_LOOKUPS,
) -> list[TriggerResult]:
    """Evaluate each trigger over the rows that its model has now; return what each did.

    The first evaluation, and the first one after its rule changed, is a silent baseline. The
    messages and the rows that they result from are one transaction. A trigger that cannot run sets
    `error` and blocks no other.
    """
    return run_each(triggers, lambda one: _evaluate(store, one, now, read_models, lookups))


def _evaluate(
    store: FeedStore,
    trigger: ModelTrigger,
    now: float,
    read_models: ReadModels,
    lookups: Lookups,
) -> TriggerResult:
    state = known_state(store, trigger)
    found: RowChanges | None = read_models(
        lambda database: compare_rows(store, trigger, ModelRows(database, trigger), state)
    )
    if state is None and found is not None:
        return _store_baseline(store, trigger, found, now)
    if state is None or found is None:
        with store.transaction() as db:
            query = "update model_states set evaluated_at = ? where trigger = ?"
            db.execute(query, (now, trigger.name))
        return TriggerResult(trigger.name, 0, 0, _held(store, trigger))
    matching = matching_changes(store, trigger, state, found, now, lookups)
    return _store_changes(store, trigger, state, found, matching, now)


def known_state(store: FeedStore, trigger: ModelTrigger) -> EvaluationState | None:
    """What is known of a trigger's rows; None if it has no baseline, or one of another rule."""
    rows = store.query(
        "select s.fingerprints, s.evaluation, s.started_at from model_states s "
        "join triggers t on t.name = s.trigger where s.trigger = ? and t.rule = ?",
        trigger.name,
        trigger.rule,
    )
    if not rows:
        return None
    fingerprints, evaluation, started_at = rows[0]
    return EvaluationState(
        msgspec.json.decode(fingerprints, type=Fingerprints), evaluation, started_at
    )


def watched_rows(store: FeedStore) -> dict[str, tuple[int, float]]:
    """How many rows each trigger on a model watches, and when it was last evaluated (Unix seconds)."""
    rows = store.query("select trigger, rows, evaluated_at from model_states")
    return {trigger: (count, at) for trigger, count, at in rows}


def compare_rows(
    store: FeedStore,
    trigger: ModelTrigger,
    rows: ModelRows,
    state: EvaluationState | None,
    samples: int | None = None,
) -> RowChanges | None:
    """Compare the rows with the previous ones; None if nothing differs. Without a state, every row
    is new. `samples`: read no more whole rows than this.
    """
    fingerprints = rows.fingerprints()
    if state is not None and state.fingerprints == fingerprints:
        return None
    buckets = None if state is None else _buckets_to_compare(state.fingerprints, fingerprints)
    stored = rows.digests(buckets)
    known: dict[str, str] = {}
    if state is not None:
        where = "" if buckets is None else f" and bucket in ({', '.join(map(str, buckets))})"
        query = f"select key, digest from model_rows where trigger = ?{where}"
        known = dict(store.query(query, trigger.name))
    keys: dict[RowEvent, Sequence[str]] = {
        "entered": sorted(stored.keys() - known.keys()),
        "left": sorted(known.keys() - stored.keys()),
        "changed": sorted(
            key for key, row in stored.items() if known.get(key, row.digest) != row.digest
        ),
    }
    if samples is not None:
        keys["entered"] = keys["entered"][:samples]
    present = [*keys["entered"], *keys["changed"]]
    is_needed = trigger.keeps_rows or state is not None or samples is not None
    return RowChanges(
        fingerprints,
        keys,
        {key: stored[key] for key in present},
        {key: stored[key].bucket for key in stored.keys() & known.keys()}
        if buckets is None
        else {},
        _rows_before(store, trigger, [*keys["left"], *keys["changed"]]),
        rows.whole(None if state is None and samples is None else present) if is_needed else {},
    )


def _buckets_to_compare(before: Fingerprints, now: Fingerprints) -> list[int] | None:
    """The buckets with a difference; None: all rows have to be compared."""
    if before.engine != now.engine:
        return None
    either = {**before.buckets, **now.buckets}
    return [one for one in either if before.buckets.get(one) != now.buckets.get(one)]


def _rows_before(
    store: FeedStore, trigger: ModelTrigger, keys: Sequence[str]
) -> dict[str, ModelRow]:
    if not trigger.keeps_rows:
        return {}
    found: dict[str, ModelRow] = {}
    for start in range(0, len(keys), 500):
        chunk = keys[start : start + 500]
        query = f"select key, row from model_rows where trigger = ? and key in ({placeholders(chunk)}) and row is not null"
        found |= {
            key: msgspec.json.decode(row) for key, row in store.query(query, trigger.name, *chunk)
        }
    return found


def matching_changes(
    store: FeedStore,
    trigger: ModelTrigger,
    state: EvaluationState,
    found: RowChanges,
    now: float,
    lookups: Lookups,
) -> list[RowChange]:
    """The changes of rows that meet the rule, whatever was enrolled before. Raises
    `LookupUnavailable` if a related object cannot be looked up now.
    """
    changes = [
        RowChange(change_from_row(0, 0, entry), entry)
        for entry in _entries(store, trigger, state, found, now)
    ]
    where, roots = trigger.where, trigger.related_tables
    if where is None:
        return changes
    if roots:
        lookups.prefetch([one.change for one in changes], roots)
    return [
        one
        for one in changes
        if where.holds(one.change, lookups.related(one.change, roots) if roots else {})
    ]


def _entries(
    store: FeedStore, trigger: ModelTrigger, state: EvaluationState, found: RowChanges, now: float
) -> Iterator[Entry]:
    """The changes of rows that a trigger watches, as the store holds them."""
    owner = store.query("select account_id, livemode from log order by position desc limit 1")
    account_id, livemode = owner[0] if owner else (None, None)
    at = datetime.fromtimestamp(now, timezone.utc)
    number = state.evaluation + 1
    for event in trigger.on:
        for key in found.keys[event]:
            before, after = found.before.get(key), found.after.get(key)
            identity = (trigger.name, state.started_at, number, key, event)
            previous = _old_values(before, after) if event == "changed" else before
            customer_id = (after or before or {}).get("customer_id")
            values = {
                "change_id": f"chg_{blake2b(repr(identity).encode(), digest_size=16).hexdigest()}",
                "resource": trigger.model,
                "object_id": key,
                "customer_id": None if customer_id is None else str(customer_id),
                "op": ROW_EVENTS[event],
                "origin": "model",
                "event_type": f"{trigger.model}.{event}",
                "before_quality": "none" if previous is None else "exact",
                "account_id": account_id,
                "livemode": livemode,
                "occurred_at": at,
                "observed_at": at,
                "_dlt_load_id": "",
                "changed": [name for name in trigger.watch if name in (previous or {})]
                if event == "changed"
                else [],
                "after": after if event != "left" else None,
                "previous": previous,
            }
            yield entry_from_row([values.get(name) for name in SOURCE_COLUMNS])


def _old_values(before: ModelRow | None, after: ModelRow | None) -> ModelRow | None:
    """The previous values that differ."""
    if before is None or after is None:
        return None
    return {name: old for name, old in before.items() if after.get(name) != old}


def _store_changes(
    store: FeedStore,
    trigger: ModelTrigger,
    state: EvaluationState,
    found: RowChanges,
    matching: Sequence[RowChange],
    now: float,
) -> TriggerResult:
    """Write the messages and the new rows, all or nothing."""
    seen = sum(map(len, found.keys.values()))
    with store.transaction() as db:
        ((held, held_for),) = db.execute(
            "select held, held_for from triggers where name = ?", (trigger.name,)
        )
        if not _advance(db, trigger, state, found, state.evaluation + (seen > 0), now):
            return TriggerResult(trigger.name, 0, 0, held)
        limit = FiringLimit(trigger, db)
        fired = [one for one in matching if limit.allows(trigger.lane(one.change), now)]
        reason = None
        if fired and (held is None or held_for is not None):  # a held replay holds nothing new
            objects = [(trigger.model, one.change.object_id) for one in fired]
            most = max(state.fingerprints.rows, found.fingerprints.rows)
            reason = guard_reason(store, trigger, objects, now, lambda: most)
        hold(db, trigger, reason)
        for one in fired:
            _insert(db, trigger, one.entry)
        messages = [(one.change, one.change, trigger.lane(one.change)) for one in fired]
        count = store_messages(db, trigger, messages, limit, now)
        _store_rows(db, trigger, found)
    return TriggerResult(trigger.name, seen, count, reason or held)


def _advance(
    db: sqlite3.Connection,
    trigger: ModelTrigger,
    state: EvaluationState,
    found: RowChanges,
    evaluation: int,
    now: float,
) -> bool:
    """Record an evaluation; return whether it still continues from the state that it read: another
    process may have evaluated the trigger meanwhile.
    """
    return (
        db.execute(
            "update model_states set fingerprints = ?, rows = ?, evaluation = ?, evaluated_at = ? "
            "where trigger = ? and evaluation = ? and started_at = ?",
            (
                msgspec.json.encode(found.fingerprints).decode(),
                found.fingerprints.rows,
                evaluation,
                now,
                trigger.name,
                state.evaluation,
                state.started_at,
            ),
        ).rowcount
        == 1
    )


def _insert(db: sqlite3.Connection, trigger: ModelTrigger, entry: Entry) -> None:
    """Store a change, numbered within its row."""
    columns = f"object_version, {', '.join(LOG_COLUMNS)}, trigger"
    version = "(select coalesce(max(object_version), 0) + 1 from model_changes where trigger = ? and object_id = ?)"
    db.execute(
        f"insert into model_changes ({columns}) values ({version}, {placeholders(LOG_COLUMNS)}, ?)",
        (trigger.name, entry[OBJECT_ID], *_without_forgotten(db, entry), trigger.name),
    )


def _without_forgotten(db: sqlite3.Connection, entry: Entry) -> Entry:
    query = "select 1 from forgotten where object_id in (?, ?)"
    if db.execute(query, (entry[OBJECT_ID], entry[CUSTOMER_ID])).fetchone():
        return (*entry[:-1], None)
    return entry


def _store_rows(db: sqlite3.Connection, trigger: ModelTrigger, found: RowChanges) -> None:
    """Store the rows that entered or changed, and delete those that left."""
    db.executemany(
        "update model_rows set bucket = ? where trigger = ? and key = ?",
        ((bucket, trigger.name, key) for key, bucket in found.moved.items()),
    )
    forgotten = {name for (name,) in db.execute("select object_id from forgotten")}
    db.executemany(
        "delete from model_rows where trigger = ? and key = ?",
        [(trigger.name, key) for key in found.keys["left"]],
    )
    db.executemany(
        "insert or replace into model_rows values (?, ?, ?, ?, ?, ?)",
        (
            (
                trigger.name,
                key,
                row.bucket,
                row.digest,
                row.customer_id,
                msgspec.json.encode(found.after[key]).decode()
                if trigger.keeps_rows and not {key, row.customer_id} & forgotten
                else None,
            )
            for key, row in found.stored.items()
        ),
    )


def _store_baseline(
    store: FeedStore, trigger: ModelTrigger, found: RowChanges, now: float
) -> TriggerResult:
    """Store the rows that there are now, and fire for none of them."""
    with store.transaction() as db:
        is_new = not db.execute("select 1 from triggers where name = ?", (trigger.name,)).fetchone()
        register_trigger(db, trigger, now)
        hold(db, trigger, None)
        db.execute("delete from model_rows where trigger = ?", (trigger.name,))
        db.execute(
            "insert or replace into model_states values (?, ?, ?, 0, ?, ?)",
            (
                trigger.name,
                msgspec.json.encode(found.fingerprints).decode(),
                found.fingerprints.rows,
                now,
                now,
            ),
        )
        _store_rows(db, trigger, found)
    held = _held(store, trigger)
    return TriggerResult(trigger.name, 0, 0, held, is_new, baseline=found.fingerprints.rows)


def _held(store: FeedStore, trigger: ModelTrigger) -> str | None:
    ((held,),) = store.query("select held from triggers where name = ?", trigger.name)
    return None if held is None else str(held)
