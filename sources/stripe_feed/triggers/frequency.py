"""Whom a trigger has fired for already: how often it may for one object or customer."""

from __future__ import annotations

import sqlite3

from ..feed.storage.schema import UNFINISHED
from .trigger import Trigger


class Enrolment:
    """Who is enrolled in a trigger: as the store says, and as this run adds. `upto`: as it was at
    that place in the feed; `again`: but whoever is enrolled by now passes.
    """

    def __init__(
        self, trigger: Trigger, db: sqlite3.Connection, upto: int | None = None, again: bool = False
    ) -> None:
        self.trigger, self.db, self.is_history = trigger, db, upto is not None
        self.added: dict[str, float] = {}
        self.known = {} if upto is None else self._history(upto)
        all = (
            db.execute("select key from enrolled where trigger = ? and at >= 0", (trigger.name,))
            if again
            else ()
        )
        self.enrolled = {key for (key,) in all}

    def admits(self, key: str, at: float) -> bool:
        """Whether the trigger fires for a key now; if so, it is enrolled from now on. `at`: Unix
        seconds of the change.
        """
        kind = self.trigger.enrol.kind
        if kind == "always" or key in self.enrolled:
            return True
        if kind == "no_concurrency":  # over history, everything counts as delivered at once
            return self.is_history or not self._waits(key)
        last = self.added.get(key, self._stored(key))
        if last is not None and (kind == "once" or at < last + self.trigger.enrol.seconds):
            return False
        self.added[key] = at
        return True

    def _history(self, upto: int) -> dict[str, float]:
        """When each key was enrolled last for a change up to a position; who was enrolled by a
        query always was.
        """
        by_query = "select key, at from enrolled where trigger = ? and at = 0"
        fired = (
            "select m.lane, max(coalesce(l.occurred_at / 1e6, m.made_at)) from messages m left join log l using (change_id) "
            "left join pruned p using (change_id) where m.trigger = ? and coalesce(l.position, p.position) <= ? group by 1"
        )
        name = self.trigger.name
        return dict(self.db.execute(by_query, (name,))) | dict(self.db.execute(fired, (name, upto)))

    def _stored(self, key: str) -> float | None:
        if self.is_history:
            return self.known.get(key)
        query = "select at from enrolled where trigger = ? and key = ? and at >= 0"
        found = self.db.execute(query, (self.trigger.name, key)).fetchone()
        return None if found is None else float(found[0])

    def _waits(self, key: str) -> bool:
        # a replay that is held may be discarded, and nothing that happens meanwhile with it
        query = (
            f"select 1 from messages where trigger = ? and lane = ? and state in ({UNFINISHED}) and state <> 'dead' "
            "and not (state = 'held' and replayed is not null)"
        )
        waits = (
            key in self.added
            or self.db.execute(query, (self.trigger.name, key)).fetchone() is not None
        )
        if not waits:
            self.added[key] = 0.0
        return waits

    def store(self, held: bool = False) -> None:
        """Write down who was added since the last time; a key that was enrolled for a later change
        stays so. `held`: by a replay that waits for a release, which does not count until then, and
        is written as a negative time.
        """
        if self.trigger.enrol.kind in ("once", "cooldown"):
            self.db.executemany(
                "insert into enrolled values (?, ?, ?) on conflict do update set at = max(at, excluded.at)",
                [(self.trigger.name, key, -at if held else at) for key, at in self.added.items()],
            )
        self.known |= self.added
        self.added = {}
