"""Log to messages: each trigger is a consumer of its own, and what its rule fires for becomes a message, exactly once."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import UsageError
from . import cursors
from .change import Change
from .cursors import Place
from .fold import as_change, net
from .messages import Attempt, Message, attempts, find, put
from .rules import Clause, Trigger, clauses
from .store import FeedStore

log = logging.getLogger("stripe_feed")

PAGE = 500
SHARE_FROM = 100      # a share of all objects counts from so many firings on: in a small account anything is a large share

Firing = tuple[Change, Change, str]
"""The first and the last change that a message is about (one, but for net changes), and its key."""


@dataclass(frozen=True, slots=True)
class Fired:
    """What one trigger did in a run: how many changes it looked at and messages it made; `held`: why they wait for a release."""

    trigger: str
    seen: int
    fired: int
    held: str | None = None
    is_new: bool = False

    def plus(self, later: Fired) -> Fired:
        """Both runs as one."""
        return Fired(self.trigger, self.seen + later.seen, self.fired + later.fired, later.held, self.is_new)


class Enrolment:
    """Who is enrolled in a trigger: as the store says, and as this run adds."""

    def __init__(self, trigger: Trigger, db: sqlite3.Connection | None, before: float = float("inf")) -> None:
        self.trigger, self.db, self.before = trigger, db, before
        self.added: dict[str, float] = {}

    def admits(self, key: str, at: float) -> bool:
        """Whether the trigger fires for a key now; if so, it is enrolled from now on. `at`: Unix seconds of the change."""
        kind = self.trigger.enrol.kind
        if kind == "always":
            return True
        if kind == "no_concurrency":      # over history, everything counts as delivered at once
            return self.before < float("inf") or not self._waits(key)
        last = self.added.get(key, self._stored(key))
        if last is not None and (kind == "once" or at < last + self.trigger.enrol.seconds):
            return False
        self.added[key] = at
        return True

    def _stored(self, key: str) -> float | None:
        if self.db is None:
            return None
        found = self.db.execute(
            "select at from enrolled where trigger = ? and key = ? and at < ?", (self.trigger.name, key, self.before)
        ).fetchone()
        return None if found is None else float(found[0])

    def _waits(self, key: str) -> bool:
        waits = key in self.added
        if not waits and self.db is not None:
            waits = self.db.execute(
                "select 1 from messages where trigger = ? and lane = ? and state in ('waiting', 'held')", (self.trigger.name, key)
            ).fetchone() is not None
        if not waits:
            self.added[key] = 0.0
        return waits

    def store(self, db: sqlite3.Connection) -> None:
        """Write down who was added."""
        if self.trigger.enrol.kind in ("once", "cooldown"):
            rows = [(self.trigger.name, key, at) for key, at in self.added.items()]
            db.executemany("insert or replace into enrolled values (?, ?, ?)", rows)
        self.added.clear()


def fire(
    store: FeedStore, triggers: Sequence[Trigger], now: float, paid: Callable[[str], Iterable[str]] = lambda query: ()
) -> list[Fired]:
    """Run each trigger over the changes that it has not seen, up to the newest; return what each did.

    A trigger that is new begins with the changes that come from now on. The messages of some changes and the step over these
    are one transaction. `paid` answers the query for those that a new trigger's preset enrols at once.
    """
    return [_fire(store, trigger, now, paid) for trigger in triggers]


def consumer_of(name: str) -> str:
    """The name of the consumer that a trigger is."""
    return f"trigger:{name}"


def _fire(store: FeedStore, trigger: Trigger, now: float, paid: Callable[[str], Iterable[str]]) -> Fired:
    known = store.ask("select rule, held from triggers where name = ?", trigger.name)
    enrolled = [] if known or trigger.enrolled_by is None else list(paid(trigger.enrolled_by))
    position, epoch, _ = cursors.enter(store, consumer_of(trigger.name), "latest", now)
    upto = store.head
    if not known:
        _begin(store, trigger, enrolled, now)
        return Fired(trigger.name, upto - position, 0, is_new=True) if position >= upto else _fire(store, trigger, now, paid)
    (rule, held), = known
    count = _count(store, trigger, position, upto) if position < upto else 0
    if held is None and count:
        held = _why_held(store, trigger, count, rule)
        if held is not None:
            log.warning("The trigger %s is held: %s. See `stripe-feed triggers list`; release or discard it.", trigger.name, held)
    with store.transaction() as db:
        db.execute("update triggers set rule = ?, held = ? where name = ?", (trigger.rule, held, trigger.name))
    if position < upto:
        _write(store, trigger, epoch, position, upto, "waiting" if held is None else "held", now)
    return Fired(trigger.name, upto - position, count, held)


def _begin(store: FeedStore, trigger: Trigger, enrolled: Iterable[str], now: float) -> None:
    with store.transaction() as db:
        db.execute("insert into triggers (name, rule, started_at) values (?, ?, ?)", (trigger.name, trigger.rule, now))
        db.executemany(
            "insert or ignore into enrolled values (?, ?, ?)", [(trigger.name, key, now) for key in enrolled if key]
        )


def _count(store: FeedStore, trigger: Trigger, position: int, upto: int) -> int:
    with store.transaction("deferred") as db:
        enrolment = Enrolment(trigger, db)
        return sum(1 for _ in firings(store, trigger, position, upto, enrolment))


def _why_held(store: FeedStore, trigger: Trigger, count: int, rule: str) -> str | None:
    if rule != trigger.rule:
        return f"its rule changed, and it would fire {count:,} times for changes of before"
    if count > trigger.guard.most:
        return f"it would fire {count:,} times in one run, more than {trigger.guard.most:,}"
    resources = trigger.wanted.resources
    where = f" where resource in ({', '.join('?' * len(resources))})" if resources else ""
    (total,), = store.ask(f"select coalesce(sum(objects), 0) from totals{where}", *resources)
    if total and count >= SHARE_FROM and count > trigger.guard.share * total:
        return f"it would fire {count:,} times in one run, for more than {trigger.guard.share:.0%} of {total:,} objects"
    return None


def _write(
    store: FeedStore, trigger: Trigger, epoch: int, position: int, upto: int, state: str, now: float
) -> None:
    """Make the messages, page by page; those of a net run are one transaction, for they are made of all its changes."""
    step = upto - position if trigger.net else PAGE
    for low in range(position, upto, step):
        high = min(low + step, upto)
        with store.transaction() as db:
            enrolment = Enrolment(trigger, db)
            found = list(firings(store, trigger, low, high, enrolment))
            put(db, trigger.name, found, state, now)
            enrolment.store(db)
            if found:
                db.execute("update triggers set fired = fired + ?, fired_at = ? where name = ?", (len(found), now, trigger.name))
            cursors.advance(db, consumer_of(trigger.name), epoch, high, now)


def firings(
    store: FeedStore, trigger: Trigger, after: int, upto: int, enrolment: Enrolment
) -> Iterator[Firing]:
    """What a trigger fires for among the changes behind `after` up to `upto`, in their order."""
    for first, last, change in _spans(store, trigger, after, upto):
        if trigger.fires(change):
            key = trigger.key(change)
            if enrolment.admits(key, change.occurred_at.timestamp()):
                yield first, last, key


def _spans(store: FeedStore, trigger: Trigger, after: int, upto: int) -> Iterator[tuple[Change, Change, Change]]:
    """The changes that a rule is asked about, each with the first and the last that it is made of."""
    if trigger.net:
        for found in net(store, after, upto, trigger.wanted.resources):
            yield found.first, found.last, as_change(found)
        return
    while after < upto:
        page = store.page(after, PAGE, trigger.wanted.resources, trigger.wanted.ops, upto)
        yield from ((change, change, change) for change in page.changes)
        after = page.upto


def rehearse(store: FeedStore, trigger: Trigger, since: Place, now: float) -> Iterator[Firing]:
    """What a trigger would have fired for from a place in the feed on, had it been there; nothing is written or sent.

    A place from before the trigger began is as if it had begun there. A net trigger sees the span as one run.
    """
    position, head = cursors.position_before(store, since, now), store.head
    first = store.page(position, 1).changes
    with store.transaction("deferred") as db:
        enrolment = Enrolment(trigger, db, first[0].occurred_at.timestamp() if first else now)
        yield from firings(store, trigger, position, head, enrolment)


def replay(store: FeedStore, trigger: Trigger, since: Place, now: float) -> Fired:
    """Make the messages from a place in the feed on (again), with the ids that they had; return how many.

    The guard holds for them as for a run, and whoever is enrolled once stays so: for them, only what was fired is sent again.
    """
    position, head = cursors.position_before(store, since, now), store.head
    found = list(rehearse(store, trigger, since, now))
    held = _why_held(store, trigger, len(found), trigger.rule)
    with store.transaction() as db:
        if not store.ask("select 1 from triggers where name = ?", trigger.name):
            _begin(store, trigger, (), now)
        put(db, trigger.name, found, "waiting" if held is None else "held", now, again=True)
        db.execute("update triggers set held = coalesce(held, ?) where name = ?", (held, trigger.name))
    return Fired(trigger.name, head - position, len(found), held)


@dataclass(frozen=True, slots=True)
class Explained:
    """What one trigger made of one change: each clause, what came of it in a few words, and its messages with their attempts."""

    trigger: str
    clauses: list[Clause]
    verdict: str
    messages: list[tuple[Message, list[Attempt]]]


def explain(store: FeedStore, triggers: Sequence[Trigger], change_id: str) -> list[Explained]:
    """Why each trigger fired for a change, or did not. Raises `UsageError` where the feed has no such change."""
    change = store.at(cursors.position_before(store, change_id, 0) + 1)
    if change is None or change.change_id != change_id:
        raise UsageError(f"{change_id!r} is no change of the feed. `stripe-feed feed tail --json` shows their ids.")
    found = []
    for trigger in triggers:
        messages = [one for one in find(store, change_id=change_id) if one.trigger == trigger.name]
        parts = list(clauses(trigger, change))
        verdict = _verdict(store, trigger, change, parts, messages)
        found.append(Explained(trigger.name, parts, verdict, [(one, attempts(store, one.message_id)) for one in messages]))
    return found


def _verdict(
    store: FeedStore, trigger: Trigger, change: Change, parts: Sequence[Clause], messages: Sequence[Message]
) -> str:
    if messages:
        return f"fired; its message is {messages[-1].state}"
    if failed := [part.what for part in parts if not part.holds]:
        return f"did not fire: {', '.join(dict.fromkeys(failed))} does not hold"
    reached = store.ask("select position from consumers where name = ?", consumer_of(trigger.name))
    if not reached or reached[0][0] < change.offset:
        return "has not come to it yet: `stripe-feed deliver --once`"
    (started,) = store.ask("select started_at from triggers where name = ?", trigger.name)[0]
    if (change.observed_at or change.occurred_at).timestamp() < started:
        return "did not fire: it happened before the trigger began; `stripe-feed triggers replay` sends it"
    if trigger.net:
        return "did not fire by itself: it is part of a net change"
    return f"did not fire: {trigger.key(change)} was enrolled before ({trigger.enrol.kind})"
