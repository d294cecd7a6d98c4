"""Run triggers: each is a consumer of the log, and writes exactly one message for each change that
meets its rule.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

from ..delivery.outbox import Attempt, Message, attempts, enqueue, find, message_id_of
from ..errors import StripeFeedError, UsageError
from ..feed import consumers
from ..feed.change import Change
from ..feed.consumers import StartAt
from ..feed.lookups import NO_LOOKUPS, Lookups
from ..feed.net import net_changes, to_change
from ..feed.storage.store import FeedStore
from ..feed.storage.store_errors import Unusable
from ..wording import counted
from .frequency import FiringLimit
from .models.model_trigger import AnyTrigger
from .trigger import Clause, Trigger, evaluate_clauses

log = logging.getLogger("stripe_feed")

T = TypeVar("T", bound=AnyTrigger)
_PAGE_SIZE = 500
GUARD_WINDOW = 600  # seconds over which a guard counts
# the share guard needs at least this many objects: in a small account any number is a large share
MIN_FOR_SHARE = 100

Firing = tuple[Change, Change, str]
"""The first and the last change of a message (they differ only for net changes), and its key."""


@dataclass(frozen=True, slots=True)
class TriggerResult:
    """What one trigger did in a run: how many changes it checked, and how many messages it wrote;
    `held`: why these wait for a release.
    """

    trigger: str
    seen: int
    fired: int
    held: str | None = None
    is_new: bool = False
    error: str | None = None  # why it could not run
    baseline: int | None = None  # the rows that a trigger on a model starts from

    def plus(self, later: TriggerResult) -> TriggerResult:
        """Sum two runs."""
        seen, fired = self.seen + later.seen, self.fired + later.fired
        baseline = self.baseline if later.baseline is None else later.baseline
        is_new = self.is_new or later.is_new
        return TriggerResult(self.trigger, seen, fired, later.held, is_new, later.error, baseline)


def run_triggers(
    store: FeedStore,
    triggers: Sequence[Trigger],
    now: float,
    query_ids: Callable[[str], Iterable[str]] = lambda query: (),
    lookups: Lookups = NO_LOOKUPS,
) -> list[TriggerResult]:
    """Run each trigger over its unread changes, up to the newest; return what each did.

    A new trigger starts with changes from now on. The messages of a page of changes and the
    trigger's new position are one transaction. `query_ids` runs the query for the ids that a new
    trigger's preset enrols at once. A trigger that cannot run sets `error` and blocks no other.
    """
    return run_each(triggers, lambda trigger: _run_trigger(store, trigger, now, query_ids, lookups))


def run_each(triggers: Sequence[T], run: Callable[[T], TriggerResult]) -> list[TriggerResult]:
    """Run each trigger; one that cannot run sets `error` and blocks no other. Raises the errors of
    the store, which all share.
    """
    results = []
    for trigger in triggers:
        try:
            results.append(run(trigger))
        except (Unusable, sqlite3.Error):
            raise
        except StripeFeedError as fault:
            results.append(TriggerResult(trigger.name, 0, 0, error=str(fault)))
        except Exception as fault:  # its text can hold data
            results.append(
                TriggerResult(
                    trigger.name, 0, 0, error=f"unexpected {type(fault).__name__}; please report it"
                )
            )
    return results


def consumer_name(name: str) -> str:
    """The name of a trigger's consumer."""
    return f"trigger:{name}"


def _run_trigger(
    store: FeedStore,
    trigger: Trigger,
    now: float,
    query_ids: Callable[[str], Iterable[str]],
    lookups: Lookups,
) -> TriggerResult:
    name = trigger.name
    rows = store.query(
        "select t.rule, t.held, c.position from triggers t join consumers c on c.name = ? where t.name = ?",
        consumer_name(name),
        name,
    )
    if rows and rows[0][0] == trigger.rule and rows[0][2] >= store.head:
        return TriggerResult(name, 0, 0, rows[0][1])
    is_new = not store.query("select 1 from triggers where name = ?", name)
    enrolled = _initial_keys(trigger, query_ids) if is_new else []
    with store.transaction() as db:
        position, epoch, _ = consumers.attach(store, consumer_name(name), "latest", now)
        if is_new:
            register_trigger(db, trigger, now, enrolled)
        upto = store.head
    held = _apply_guard(store, trigger, position, upto, now, lookups)
    message_count = (
        _write_messages(store, trigger, epoch, position, upto, now, lookups)
        if position < upto
        else 0
    )
    return TriggerResult(name, upto - position, message_count, held, is_new)


def _initial_keys(trigger: Trigger, query_ids: Callable[[str], Iterable[str]]) -> list[str]:
    """The keys that a trigger's preset enrols when it starts."""
    return [] if trigger.enrolled_by is None else list(query_ids(trigger.enrolled_by))


def register_trigger(
    db: sqlite3.Connection, trigger: AnyTrigger, now: float, enrolled: Iterable[str] = ()
) -> None:
    """Record that a trigger started, with the keys that it enrols at once."""
    db.execute(
        "insert or ignore into triggers (name, rule, started_at) values (?, ?, ?)",
        (trigger.name, trigger.rule, now),
    )
    db.executemany(
        "insert or ignore into enrolled values (?, ?, 0)",
        [(trigger.name, key) for key in enrolled if key],
    )


def _apply_guard(
    store: FeedStore, trigger: Trigger, position: int, upto: int, now: float, lookups: Lookups
) -> str | None:
    """Decide whether to hold the trigger, from all messages that this run would write, and store the
    reason before any is written. Return the reason, if there is one.
    """
    ((rule, held, held_for),) = store.query(
        "select rule, held, held_for from triggers where name = ?", trigger.name
    )
    is_held = held is not None and held_for is None  # a replay that waits does not hold new changes
    with store.transaction("deferred") as db:
        new_firings = firings(store, trigger, position, upto, FiringLimit(trigger, db), lookups)
        fired = [(last.resource, last.object_id) for _, last, _ in new_firings]
    reason = None
    if fired and not is_held and rule != trigger.rule:
        reason = f"its rule was edited and would now fire {counted(len(fired), 'time')} for older changes"
    elif fired and not is_held:
        reason = guard_reason(store, trigger, fired, now, partial(_object_count, store, trigger))
    with store.transaction() as db:
        hold(db, trigger, reason)
    return reason or held


def hold(db: sqlite3.Connection, trigger: AnyTrigger, reason: str | None) -> None:
    """Record the rule that a trigger runs by, and why it is held from now on, if there is a reason."""
    if reason is not None:
        log.warning(
            "The trigger %s is held: %s. See `stripe-feed triggers list`; release or discard it.",
            trigger.name,
            reason,
        )
    db.execute(
        "update triggers set rule = ?, held = coalesce(?, held), held_for = case when ? is null then held_for end "
        "where name = ?",
        (trigger.rule, reason, reason, trigger.name),
    )


def _object_count(store: FeedStore, trigger: Trigger) -> int:
    """How many objects the copy holds that a trigger is about."""
    resources = trigger.filter.resources
    where = f" where resource in ({', '.join('?' * len(resources))})" if resources else ""
    ((total,),) = store.query(f"select coalesce(sum(objects), 0) from totals{where}", *resources)
    return int(total)


def guard_reason(
    store: FeedStore,
    trigger: AnyTrigger,
    fired: Sequence[tuple[str, str]],
    now: float,
    count_objects: Callable[[], int],
) -> str | None:
    """Why the guard holds these messages; None if it does not. `fired`: the object of each;
    `count_objects`: how many there are in all.
    """
    since = (  # without replayed messages, and those made by a clock that was ahead
        "trigger = ? and replayed is null and made_at <= ? + 660 and made_at > max(?, (select coalesce(max(released_at), 0) "
        "from triggers where name = ? and released_at <= ? + 660))"
    )
    start = now - GUARD_WINDOW
    values = (trigger.name, start, start, trigger.name, start)
    recent_messages = f"from messages where {since}"  # a large load arrives in several runs
    count = len(fired) + store.query(f"select count(*) {recent_messages}", *values)[0][0]
    if count > trigger.guard.max_messages:
        return f"it would fire {count:,} times within {GUARD_WINDOW // 60} minutes, more than {trigger.guard.max_messages:,}"
    if count < MIN_FOR_SHARE or trigger.guard.share >= 1:
        return None
    object_count = len(
        {
            *fired,
            *store.query(
                f"select distinct resource, object_id {recent_messages}",
                *values,
            ),
        }
    )
    total = count_objects()
    if total and object_count >= MIN_FOR_SHARE and object_count > trigger.guard.share * total:
        share = f"{trigger.guard.share:.0%} of {total:,} objects"
        return f"it would fire for {object_count:,} objects within {GUARD_WINDOW // 60} minutes, more than {share}"
    return None


def _write_messages(
    store: FeedStore,
    trigger: Trigger,
    epoch: int,
    position: int,
    upto: int,
    now: float,
    lookups: Lookups,
) -> int:
    """Write the messages, page by page, and return how many; those of a net trigger in one
    transaction, because they depend on all changes of the run.
    """
    count, step = 0, upto - position if trigger.net else _PAGE_SIZE
    for low in range(position, upto, step):
        high = min(low + step, upto)
        with store.transaction() as db:
            firing_limit = FiringLimit(trigger, db)
            count += store_messages(
                db,
                trigger,
                list(firings(store, trigger, low, high, firing_limit, lookups)),
                firing_limit,
                now,
            )
            consumers.advance(db, consumer_name(trigger.name), epoch, high, now)
    return count


def store_messages(
    db: sqlite3.Connection,
    trigger: AnyTrigger,
    firings_to_store: Sequence[Firing],
    firing_limit: FiringLimit,
    now: float,
    is_replay: bool = False,
) -> int:
    """Write messages and enrol their keys; if the trigger is held, they wait for a release."""
    held, held_for = db.execute(
        "select held, held_for from triggers where name = ?", (trigger.name,)
    ).fetchone()
    is_held = held is not None and (is_replay or held_for is None)
    count = enqueue(
        db, trigger.name, firings_to_store, "held" if is_held else "waiting", now, is_replay
    )
    firing_limit.store(held=is_held and is_replay)
    if count:
        db.execute(
            "update triggers set fired = fired + ?, fired_at = ? where name = ?",
            (count, now, trigger.name),
        )
    return count


def firings(
    store: FeedStore,
    trigger: Trigger,
    after: int,
    upto: int,
    firing_limit: FiringLimit,
    lookups: Lookups = NO_LOOKUPS,
) -> Iterator[Firing]:
    """Yield what a trigger fires for among the changes after `after` up to `upto`, in order."""
    spans = _candidates(store, trigger, after, upto)
    for first, last, change in (
        _prefetched(spans, trigger, lookups) if trigger.related_tables else spans
    ):
        if trigger.fires(change, lookups):
            key = trigger.key(change)
            if firing_limit.allows(key, change.occurred_at.timestamp()):
                yield first, last, key


def _candidates(
    store: FeedStore, trigger: Trigger, after: int, upto: int
) -> Iterator[tuple[Change, Change, Change]]:
    """Yield the changes to check, each with the first and the last change that it combines."""
    if trigger.net:
        for found in net_changes(store, after, upto, trigger.filter.resources):
            yield found.first, found.last, to_change(found)
        return
    while after < upto:
        page = store.page(after, _PAGE_SIZE, trigger.filter.resources, trigger.filter.ops, upto)
        yield from ((change, change, change) for change in page.changes)
        after = page.upto


Candidates = Iterator[tuple[Change, Change, Change]]


def _prefetched(spans: Candidates, trigger: Trigger, lookups: Lookups) -> Candidates:
    """The same candidates, with related objects looked up for many at once."""
    while batch := list(islice(spans, _PAGE_SIZE)):
        trigger.prefetch([change for *_, change in batch], lookups)
        yield from batch


def backtest_firings(
    store: FeedStore, trigger: Trigger, since: StartAt, now: float, lookups: Lookups = NO_LOOKUPS
) -> Iterator[Firing]:
    """Yield what a trigger would have fired for since a position, had it existed; nothing is written
    or sent.

    Keys that its preset enrolled at its start stay enrolled. A net trigger sees the range as one run.
    """
    position, head = consumers.position_before(store, since, now), store.head
    with store.transaction("deferred") as db:
        yield from firings(
            store, trigger, position, head, FiringLimit(trigger, db, position), lookups
        )


def replay(
    store: FeedStore,
    trigger: Trigger,
    since: StartAt,
    now: float,
    query_ids: Callable[[str], Iterable[str]] = lambda query: (),
    lookups: Lookups = NO_LOOKUPS,
) -> TriggerResult:
    """Write the messages since a position (again), with the ids that they had; return what was done.

    The guard applies to them as to a run, but does not hold new changes; messages that already wait
    are not changed. For enrolled keys, only messages that existed are sent again. If it is killed,
    it can be run again.
    """
    position, head, name = consumers.position_before(store, since, now), store.head, trigger.name
    is_new = not store.query("select 1 from triggers where name = ?", name)
    enrolled = _initial_keys(trigger, query_ids) if is_new else []
    if is_new:
        with store.transaction() as db:
            consumers.attach(store, consumer_name(name), "latest", now)
            register_trigger(db, trigger, now, enrolled)

    def pending_firings() -> Iterator[tuple[Firing, FiringLimit]]:
        with store.transaction("deferred") as db:
            firing_limit = FiringLimit(trigger, db, position, again=True)
        for firing in firings(store, trigger, position, head, firing_limit, lookups):
            if firing[2] not in firing_limit.enrolled or _was_fired_before(store, trigger, firing):
                yield firing, firing_limit

    fired = [(last.resource, last.object_id) for (_, last, _), _ in pending_firings()]
    reason = guard_reason(
        store, trigger, fired, float("inf"), partial(_object_count, store, trigger)
    )
    with store.transaction() as db:
        hold_replay(db, name, reason)
    remaining = pending_firings()
    while batch := list(
        islice(remaining, _PAGE_SIZE)
    ):  # read outside of the transaction, to keep it short
        with store.transaction() as db:
            store_messages(
                db, trigger, [firing for firing, _ in batch], batch[0][1], now, is_replay=True
            )
    ((held,),) = store.query("select held from triggers where name = ?", name)
    return TriggerResult(name, head - position, len(fired), held)


def hold_replay(db: sqlite3.Connection, name: str, reason: str | None) -> None:
    """Hold only what a replay makes, if there is a reason and the trigger is not held already."""
    db.execute(
        "update triggers set held_for = case when held is null and ? is not null then 'replay' else held_for end, "
        "held = coalesce(held, ?) where name = ?",
        (reason, reason, name),
    )


def _was_fired_before(store: FeedStore, trigger: Trigger, firing: Firing) -> bool:
    id = message_id_of(trigger.name, firing[0].change_id, firing[1].change_id)
    return bool(store.query("select 1 from messages where message_id = ?", id))


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one trigger did with one change: each clause, a short verdict, and the messages with their
    attempts.
    """

    trigger: str
    clauses: list[Clause]
    verdict: str
    messages: list[tuple[Message, list[Attempt]]]


def explain_change(
    store: FeedStore, triggers: Sequence[Trigger], change_id: str, lookups: Lookups = NO_LOOKUPS
) -> list[Explanation]:
    """Explain why each trigger fired for a change or not. Raises `UsageError` if the feed has no such
    change.
    """
    change = store.at(consumers.position_before(store, change_id, 0) + 1)
    if change is None or change.change_id != change_id:
        raise UsageError(
            f"{change_id!r} is not a change of the feed. `stripe-feed feed tail --json` shows their ids."
        )
    explanations = []
    for trigger in triggers:
        messages = [
            message
            for message in find(store, change_id=change_id)
            if message.trigger == trigger.name
        ]
        evaluated = list(evaluate_clauses(trigger, change, lookups))
        verdict = _explain_verdict(store, trigger, change, evaluated, messages)
        explanations.append(
            Explanation(
                trigger.name,
                evaluated,
                verdict,
                [(message, attempts(store, message.message_id)) for message in messages],
            )
        )
    return explanations


def _explain_verdict(
    store: FeedStore,
    trigger: Trigger,
    change: Change,
    parts: Sequence[Clause],
    messages: Sequence[Message],
) -> str:
    if messages:
        return f"fired; its message is {messages[-1].state}"
    if failed := [part.what for part in parts if not part.holds]:
        return f"did not fire: {', '.join(dict.fromkeys(failed))} does not hold"
    name = trigger.name
    reached = store.query(
        "select c.position from consumers c join triggers t on t.name = ? where c.name = ?",
        name,
        consumer_name(name),
    )
    if not reached or reached[0][0] < change.offset:
        return "has not reached it yet: run `stripe-feed deliver --once`"
    if trigger.net:
        return "did not fire for it alone: it is part of a net change"
    key, kind = trigger.key(change), trigger.enrol.kind
    earlier = store.query(
        "select 1 from enrolled where trigger = ? and key = ? and at = 0 union all select 1 from messages m "
        "join log l using (change_id) where m.trigger = ? and m.lane = ? and l.position < ?",
        name,
        key,
        name,
        key,
        change.offset,
    )
    if kind != "always" and earlier:
        return f"did not fire: {key} was enrolled before ({kind})"
    return "did not fire: it happened before the trigger started; `stripe-feed triggers replay` sends it"
