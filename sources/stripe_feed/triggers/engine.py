"""Log to messages: each trigger is a consumer of its own, and what its rule fires for becomes a
message, exactly once.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from ..delivery.outbox import Attempt, Message, attempts, enqueue, find, message_id_of
from ..errors import StripeFeedError, UsageError
from ..feed import consumers
from ..feed.change import Change
from ..feed.consumers import StartAt
from ..feed.lookups import NO_LOOKUPS, Lookups
from ..feed.net import net_changes, to_change
from ..feed.storage.store import FeedStore
from ..feed.storage.store_errors import Unusable
from .frequency import Enrolment
from .trigger import Clause, Trigger, clauses

log = logging.getLogger("stripe_feed")

PAGE = 500
WINDOW = 600  # seconds over which a guard counts
# a share of all objects counts from so many on: in a small account anything is a large share
SHARE_FROM = 100

Firing = tuple[Change, Change, str]
"""The first and the last change that a message is about (one, but for net changes), and its key."""


@dataclass(frozen=True, slots=True)
class Fired:
    """What one trigger did in a run: how many changes it looked at and messages it made; `held`:
    why they wait for a release.
    """

    trigger: str
    seen: int
    fired: int
    held: str | None = None
    is_new: bool = False
    error: str | None = None  # why it could not run

    def plus(self, later: Fired) -> Fired:
        """Both runs as one."""
        seen, fired = self.seen + later.seen, self.fired + later.fired
        return Fired(
            self.trigger, seen, fired, later.held, self.is_new or later.is_new, later.error
        )


def fire(
    store: FeedStore,
    triggers: Sequence[Trigger],
    now: float,
    paid: Callable[[str], Iterable[str]] = lambda query: (),
    lookups: Lookups = NO_LOOKUPS,
) -> list[Fired]:
    """Run each trigger over the changes that it has not seen, up to the newest; return what each
    did.

    A trigger that is new begins with the changes that come from now on. The messages of some
    changes and the step over these are one transaction. `paid` answers the query for those that a
    new trigger's preset enrols at once. A trigger that cannot run says so in `error`, and holds up
    no other.
    """
    found = []
    for trigger in triggers:
        try:
            found.append(_fire(store, trigger, now, paid, lookups))
        except (Unusable, sqlite3.Error):
            raise  # of the store, which all share
        except StripeFeedError as fault:
            found.append(Fired(trigger.name, 0, 0, error=str(fault)))
        except Exception as fault:  # its words may hold data
            found.append(
                Fired(
                    trigger.name, 0, 0, error=f"unexpected {type(fault).__name__}; please report it"
                )
            )
    return found


def consumer_of(name: str) -> str:
    """The name of the consumer that a trigger is."""
    return f"trigger:{name}"


def _fire(
    store: FeedStore,
    trigger: Trigger,
    now: float,
    paid: Callable[[str], Iterable[str]],
    lookups: Lookups,
) -> Fired:
    name = trigger.name
    rows = store.query(
        "select t.rule, t.held, c.position from triggers t join consumers c on c.name = ? where t.name = ?",
        consumer_of(name),
        name,
    )
    if rows and rows[0][0] == trigger.rule and rows[0][2] >= store.head:
        return Fired(name, 0, 0, rows[0][1])
    is_new = not store.query("select 1 from triggers where name = ?", name)
    enrolled = _enrolled(trigger, paid) if is_new else []
    with store.transaction() as db:
        position, epoch, _ = consumers.attach(store, consumer_of(name), "latest", now)
        if is_new:
            _begin(db, trigger, enrolled, now)
        upto = store.head
    held = _judged(store, trigger, position, upto, now, lookups)
    made = _write(store, trigger, epoch, position, upto, now, lookups) if position < upto else 0
    return Fired(name, upto - position, made, held, is_new)


def _enrolled(trigger: Trigger, paid: Callable[[str], Iterable[str]]) -> list[str]:
    """Whom a trigger's preset enrols when it begins."""
    return [] if trigger.enrolled_by is None else list(paid(trigger.enrolled_by))


def _begin(db: sqlite3.Connection, trigger: Trigger, enrolled: Iterable[str], now: float) -> None:
    db.execute(
        "insert or ignore into triggers (name, rule, started_at) values (?, ?, ?)",
        (trigger.name, trigger.rule, now),
    )
    db.executemany(
        "insert or ignore into enrolled values (?, ?, 0)",
        [(trigger.name, key) for key in enrolled if key],
    )


def _judged(
    store: FeedStore, trigger: Trigger, position: int, upto: int, now: float, lookups: Lookups
) -> str | None:
    """Why the trigger is held, if it is, now that all that this run would make is known; noted
    before any of it is made.
    """
    ((rule, held, held_for),) = store.query(
        "select rule, held, held_for from triggers where name = ?", trigger.name
    )
    is_held = (
        held is not None and held_for is None
    )  # a replay that waits holds nothing that happens now
    with store.transaction("deferred") as db:
        found = firings(store, trigger, position, upto, Enrolment(trigger, db), lookups)
        fired = [(last.resource, last.object_id) for _, last, _ in found]
    why = _why_held(store, trigger, fired, rule, now) if fired and not is_held else None
    if why is not None:
        log.warning(
            "The trigger %s is held: %s. See `stripe-feed triggers list`; release or discard it.",
            trigger.name,
            why,
        )
    with store.transaction() as db:
        db.execute(
            "update triggers set rule = ?1, held = coalesce(?2, held), held_for = case when ?2 is null then held_for end "
            "where name = ?3",
            (trigger.rule, why, trigger.name),
        )
    return why or held


def _why_held(
    store: FeedStore, trigger: Trigger, fired: Sequence[tuple[str, str]], rule: str, now: float
) -> str | None:
    """`fired`: the object of each message to be made."""
    if rule != trigger.rule:
        return f"its rule changed, and it would fire {len(fired):,} times for changes of before"
    since = (  # what a clock noted that was ahead does not count, nor what was replayed
        "trigger = ?1 and replayed is null and made_at <= ?2 + 660 and made_at > max(?2, (select coalesce(max(released_at), 0) "
        "from triggers where name = ?1 and released_at <= ?2 + 660))"
    )
    just_now = (
        f"from messages where {since}"  # a large load is relayed, and fired for, piece by piece
    )
    count = (
        len(fired) + store.query(f"select count(*) {just_now}", trigger.name, now - WINDOW)[0][0]
    )
    if count > trigger.guard.most:
        return f"it would fire {count:,} times within {WINDOW // 60} minutes, more than {trigger.guard.most:,}"
    if count < SHARE_FROM or trigger.guard.share >= 1:
        return None
    touched = len(
        {
            *fired,
            *store.query(
                f"select distinct resource, object_id {just_now}", trigger.name, now - WINDOW
            ),
        }
    )
    resources = trigger.wanted.resources
    where = f" where resource in ({', '.join('?' * len(resources))})" if resources else ""
    ((total,),) = store.query(f"select coalesce(sum(objects), 0) from totals{where}", *resources)
    if total and touched >= SHARE_FROM and touched > trigger.guard.share * total:
        share = f"{trigger.guard.share:.0%} of {total:,} objects"
        return f"it would fire for {touched:,} objects within {WINDOW // 60} minutes, more than {share}"
    return None


def _write(
    store: FeedStore,
    trigger: Trigger,
    epoch: int,
    position: int,
    upto: int,
    now: float,
    lookups: Lookups,
) -> int:
    """Make the messages, page by page, and return how many; those of a net run are one transaction,
    for they are made of all its changes.
    """
    made, step = 0, upto - position if trigger.net else PAGE
    for low in range(position, upto, step):
        high = min(low + step, upto)
        with store.transaction() as db:
            enrolment = Enrolment(trigger, db)
            made += _put(
                db,
                trigger,
                list(firings(store, trigger, low, high, enrolment, lookups)),
                enrolment,
                now,
            )
            consumers.advance(db, consumer_of(trigger.name), epoch, high, now)
    return made


def _put(
    db: sqlite3.Connection,
    trigger: Trigger,
    found: Sequence[Firing],
    enrolment: Enrolment,
    now: float,
    again: bool = False,
) -> int:
    """Make messages, which wait for a release where the trigger is held by now, and enrol whom they
    are for.
    """
    held, held_for = db.execute(
        "select held, held_for from triggers where name = ?", (trigger.name,)
    ).fetchone()
    waits = held is not None and (again or held_for is None)
    made = enqueue(db, trigger.name, found, "held" if waits else "waiting", now, again)
    enrolment.store(held=waits and again)
    if made:
        db.execute(
            "update triggers set fired = fired + ?, fired_at = ? where name = ?",
            (made, now, trigger.name),
        )
    return made


def firings(
    store: FeedStore,
    trigger: Trigger,
    after: int,
    upto: int,
    enrolment: Enrolment,
    lookups: Lookups = NO_LOOKUPS,
) -> Iterator[Firing]:
    """What a trigger fires for among the changes behind `after` up to `upto`, in their order."""
    spans = _spans(store, trigger, after, upto)
    for first, last, change in _looked_up(spans, trigger, lookups) if trigger.looks_up else spans:
        if trigger.fires(change, lookups):
            key = trigger.key(change)
            if enrolment.admits(key, change.occurred_at.timestamp()):
                yield first, last, key


def _spans(
    store: FeedStore, trigger: Trigger, after: int, upto: int
) -> Iterator[tuple[Change, Change, Change]]:
    """The changes that a rule is asked about, each with the first and the last that it is made of."""
    if trigger.net:
        for found in net_changes(store, after, upto, trigger.wanted.resources):
            yield found.first, found.last, to_change(found)
        return
    while after < upto:
        page = store.page(after, PAGE, trigger.wanted.resources, trigger.wanted.ops, upto)
        yield from ((change, change, change) for change in page.changes)
        after = page.upto


Spans = Iterator[tuple[Change, Change, Change]]


def _looked_up(spans: Spans, trigger: Trigger, lookups: Lookups) -> Spans:
    """The same, with what is beside the changes read for many at once."""
    while some := list(islice(spans, PAGE)):
        trigger.look_up([change for *_, change in some], lookups)
        yield from some


def rehearse(
    store: FeedStore, trigger: Trigger, since: StartAt, now: float, lookups: Lookups = NO_LOOKUPS
) -> Iterator[Firing]:
    """What a trigger would have fired for from a place in the feed on, had it been there; nothing
    is written or sent.

    Whom its preset enrolled when it began stays enrolled. A net trigger sees the span as one run.
    """
    position, head = consumers.position_before(store, since, now), store.head
    with store.transaction("deferred") as db:
        yield from firings(
            store, trigger, position, head, Enrolment(trigger, db, position), lookups
        )


def replay(
    store: FeedStore,
    trigger: Trigger,
    since: StartAt,
    now: float,
    paid: Callable[[str], Iterable[str]] = lambda query: (),
    lookups: Lookups = NO_LOOKUPS,
) -> Fired:
    """Make the messages from a place in the feed on (again), with the ids that they had; return how
    many.

    The guard holds for them as for a run, and for nothing that happens meanwhile; what waits
    already is left as it is. For those who are enrolled already, only what was fired is sent again.
    Killed in between, it may be run again.
    """
    position, head, name = consumers.position_before(store, since, now), store.head, trigger.name
    is_new = not store.query("select 1 from triggers where name = ?", name)
    enrolled = _enrolled(trigger, paid) if is_new else []
    if is_new:
        with store.transaction() as db:
            consumers.attach(store, consumer_of(name), "latest", now)
            _begin(db, trigger, enrolled, now)

    def found() -> Iterator[tuple[Firing, Enrolment]]:
        with store.transaction("deferred") as db:
            enrolment = Enrolment(trigger, db, position, again=True)
        for one in firings(store, trigger, position, head, enrolment, lookups):
            if one[2] not in enrolment.enrolled or _was_fired(store, trigger, one):
                yield one, enrolment

    fired = [(last.resource, last.object_id) for (_, last, _), _ in found()]
    why = _why_held(store, trigger, fired, trigger.rule, float("inf"))
    with store.transaction() as db:
        db.execute(
            "update triggers set held_for = case when held is null and ?1 is not null then 'replay' else held_for end, "
            "held = coalesce(held, ?1) where name = ?2",
            (why, name),
        )
    left = found()
    while some := list(
        islice(left, PAGE)
    ):  # they are read outside of the transaction: nobody waits for long
        with store.transaction() as db:
            _put(db, trigger, [one for one, _ in some], some[0][1], now, again=True)
    ((held,),) = store.query("select held from triggers where name = ?", name)
    return Fired(name, head - position, len(fired), held)


def _was_fired(store: FeedStore, trigger: Trigger, firing: Firing) -> bool:
    id = message_id_of(trigger.name, firing[0].change_id, firing[1].change_id)
    return bool(store.query("select 1 from messages where message_id = ?", id))


@dataclass(frozen=True, slots=True)
class Explained:
    """What one trigger made of one change: each clause, what came of it in a few words, and its
    messages with their attempts.
    """

    trigger: str
    clauses: list[Clause]
    verdict: str
    messages: list[tuple[Message, list[Attempt]]]


def explain(
    store: FeedStore, triggers: Sequence[Trigger], change_id: str, lookups: Lookups = NO_LOOKUPS
) -> list[Explained]:
    """Why each trigger fired for a change, or did not. Raises `UsageError` where the feed has no
    such change.
    """
    change = store.at(consumers.position_before(store, change_id, 0) + 1)
    if change is None or change.change_id != change_id:
        raise UsageError(
            f"{change_id!r} is no change of the feed. `stripe-feed feed tail --json` shows their ids."
        )
    found = []
    for trigger in triggers:
        messages = [one for one in find(store, change_id=change_id) if one.trigger == trigger.name]
        parts = list(clauses(trigger, change, lookups))
        verdict = _verdict(store, trigger, change, parts, messages)
        found.append(
            Explained(
                trigger.name,
                parts,
                verdict,
                [(one, attempts(store, one.message_id)) for one in messages],
            )
        )
    return found


def _verdict(
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
        consumer_of(name),
    )
    if not reached or reached[0][0] < change.offset:
        return "has not come to it yet: `stripe-feed deliver --once`"
    if trigger.net:
        return "did not fire by itself: it is part of a net change"
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
    return (
        "did not fire: it happened before the trigger began; `stripe-feed triggers replay` sends it"
    )
