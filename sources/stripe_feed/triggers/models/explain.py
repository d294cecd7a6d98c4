"""Explain what a trigger on a model did with a row, and try a trigger without sending."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...delivery.endpoint_config import lookups_of, payload_for
from ...delivery.outbox import attempts, find, message_id_of
from ...delivery.payloads import NotRenderable, PayloadContext
from ...feed.change import Change
from ...feed.feed import Feed
from ...feed.lookups import NO_LOOKUPS, Lookups
from ...feed.storage.store import FeedStore
from ..backtest import SampleMessage
from ..engine import Explanation, explain_change, guard_reason
from ..frequency import FiringLimit
from ..trigger import Clause, Trigger
from .evaluate import (
    EvaluationState,
    ReadModels,
    RowChange,
    compare_rows,
    known_state,
    matching_changes,
)
from .model_rows import Fingerprints, ModelRows
from .model_trigger import AnyTrigger, ModelTrigger


@dataclass(frozen=True, slots=True)
class RowTrial:
    """What the next evaluation of a trigger would do. `rows`: that its model has now; `is_new`: it
    would be the silent baseline; `entered`, `left`, `changed`: rows since the last evaluation;
    `fires`: messages; `held`: why the guard would hold them; `samples`: messages, of a new trigger
    those that its rows would have made by entering.
    """

    trigger: str
    rows: int
    is_new: bool
    entered: int
    left: int
    changed: int
    fires: int
    held: str | None
    samples: list[SampleMessage] = field(repr=False)


def try_rows(
    store: FeedStore,
    trigger: ModelTrigger,
    samples: int,
    now: float,
    read_models: ReadModels,
    lookups: Lookups = NO_LOOKUPS,
) -> RowTrial:
    """Compare the rows with those of the last evaluation; nothing is written or sent."""
    state = known_state(store, trigger)
    found = read_models(
        lambda database: compare_rows(
            store, trigger, ModelRows(database, trigger), state, samples if state is None else None
        )
    )
    if found is None:
        assert state is not None
        return RowTrial(trigger.name, state.fingerprints.rows, False, 0, 0, 0, 0, None, [])
    started = state or EvaluationState(Fingerprints("", {}, 0), 0, now)
    matching = matching_changes(store, trigger, started, found, now, lookups)
    shown, held = matching[:samples], None
    fired: list[RowChange] = []
    if state is not None:
        with store.transaction("deferred") as db:
            limit = FiringLimit(trigger, db)
            fired = [one for one in matching if limit.allows(trigger.lane(one.change), now)]
        objects = [(trigger.model, one.change.object_id) for one in fired]
        most = max(state.fingerprints.rows, found.fingerprints.rows)
        held = guard_reason(store, trigger, objects, now, lambda: most)
        shown = fired[:samples]
    return RowTrial(
        trigger.name,
        found.fingerprints.rows,
        state is None,
        0 if state is None else len(found.keys["entered"]),
        len(found.keys["left"]),
        len(found.keys["changed"]),
        len(fired),
        held,
        [_sample(trigger, one.change, lookups) for one in shown],
    )


def _sample(trigger: ModelTrigger, change: Change, lookups: Lookups) -> SampleMessage:
    related = lookups.related(change, lookups_of(trigger.deliver))
    id = message_id_of(trigger.name, change.change_id, change.change_id)
    context = PayloadContext(change, trigger.name, id, beside=related)
    try:
        body: Any = json.loads(payload_for(trigger.deliver)(context).content)
    except NotRenderable as fault:
        body = str(fault)
    return SampleMessage(change.change_id, change.object_id, change.occurred_at, body)


def explain_rows(
    store: FeedStore,
    triggers: Sequence[ModelTrigger],
    id: str,
    read_models: ReadModels,
    lookups: Lookups = NO_LOOKUPS,
) -> list[Explanation]:
    """Explain a change of a row by its id, or the row with this key: whether it is in each model now,
    what was known of it, and why it fired or not. Empty if no trigger knows it.
    """
    change = store.by_id(id)
    if change is not None:
        return [
            _explain_change(store, one, change, lookups)
            for one in triggers
            if any(message.trigger == one.name for message in find(store, change_id=id))
        ]
    explained = (_explain_key(store, one, id, read_models, lookups) for one in triggers)
    return [one for one in explained if one is not None]


def explain(feed: Feed, triggers: Sequence[AnyTrigger], id: str) -> list[Explanation]:
    """Explain a change of the feed for each trigger on changes, or a change or row of a model for
    those that know it. Raises `UsageError` if there is neither.
    """
    on_models = [one for one in triggers if isinstance(one, ModelTrigger)]
    if on_models and not feed.store.query("select 1 from log where change_id = ?", id):
        found = explain_rows(feed.store, on_models, id, feed.read_models, feed.lookups)
        if found:
            return found
    on_changes = [one for one in triggers if isinstance(one, Trigger)]
    return explain_change(feed.store, on_changes, id, feed.lookups)


def _explain_change(
    store: FeedStore, trigger: ModelTrigger, change: Change, lookups: Lookups
) -> Explanation:
    messages = [
        one for one in find(store, change_id=change.change_id) if one.trigger == trigger.name
    ]
    return Explanation(
        trigger.name,
        list(_clauses(trigger, change, lookups)),
        f"fired; its message is {messages[-1].state}",
        [(one, attempts(store, one.message_id)) for one in messages],
    )


def _clauses(trigger: ModelTrigger, change: Change, lookups: Lookups) -> Iterator[Clause]:
    event = (change.event_type or "").rpartition(".")[2]
    yield Clause("model", trigger.model, change.resource, change.resource == trigger.model)
    yield Clause("on", " or ".join(trigger.on), event, event in trigger.on)
    if trigger.watch and event == "changed":
        yield Clause("watch", " or ".join(trigger.watch), change.changed, bool(change.changed))
    related = lookups.related(change, trigger.related_tables) if trigger.related_tables else {}
    for part in trigger.where.explain(change, related) if trigger.where else ():
        yield Clause("where", part.text, part.values, part.holds)


def _explain_key(
    store: FeedStore,
    trigger: ModelTrigger,
    key: str,
    read_models: ReadModels,
    lookups: Lookups,
) -> Explanation | None:
    state = known_state(store, trigger)
    row = read_models(lambda database: ModelRows(database, trigger).whole([key]).get(key))
    is_known = bool(
        store.query("select 1 from model_rows where trigger = ? and key = ?", trigger.name, key)
    )
    messages = [
        one
        for one in find(store, trigger=trigger.name)
        if one.object_id == key and one.resource == trigger.model
    ]
    if row is None and not is_known and not messages:
        return None
    clauses = [
        Clause("row", f"in {trigger.model}", "there" if row else "not there", row is not None),
        Clause("before", "in the last evaluation", "there" if is_known else "not there", is_known),
    ]
    if messages:
        verdict = f"fired; its message is {messages[-1].state}"
    elif state is None:
        verdict = "did not run yet: its first evaluation is a silent baseline"
    elif row is not None and not is_known:
        verdict = "has not seen it yet: run `stripe-feed deliver --once`"
    else:
        verdict = (
            f"did not fire: the row was there at the baseline, or {_unmet(trigger)}"
            if is_known
            else f"did not fire: {_unmet(trigger)}"
        )
    return Explanation(
        trigger.name,
        clauses,
        verdict,
        [(one, attempts(store, one.message_id)) for one in messages],
    )


def _unmet(trigger: ModelTrigger) -> str:
    reasons = [f"nothing happened to it that `on` names ({', '.join(trigger.on)})"]
    if trigger.where is not None:
        reasons.append("`where` did not hold")
    if trigger.enrol.kind != "always":
        reasons.append(f"its key was enrolled before ({trigger.enrol.kind})")
    return ", or ".join(reasons)
