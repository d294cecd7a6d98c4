"""How often a trigger may fire for one object or customer."""

from __future__ import annotations

import sqlite3

from ..feed.storage.schema import UNFINISHED
from .models.model_trigger import AnyTrigger


class FiringLimit:
    """Which keys a trigger has already fired for, according to the store and this run. `upto`:
    replay the state at that position; `again`: let already enrolled keys through.
    """

    def __init__(
        self,
        trigger: AnyTrigger,
        db: sqlite3.Connection,
        upto: int | None = None,
        again: bool = False,
    ) -> None:
        self.trigger, self.db, self.is_history = trigger, db, upto is not None
        self.added: dict[str, float] = {}
        self.history = {} if upto is None else self._history(upto)
        rows = (
            db.execute("select key from enrolled where trigger = ? and at >= 0", (trigger.name,))
            if again
            else ()
        )
        self.enrolled = {key for (key,) in rows}

    def allows(self, key: str, at: float) -> bool:
        """Whether the trigger may fire for a key now; if so, the key is enrolled. `at`: Unix seconds
        of the change.
        """
        kind = self.trigger.enrol.kind
        if kind == "always" or key in self.enrolled:
            return True
        if kind == "no_concurrency":  # on history, every message counts as delivered at once
            return self.is_history or not self._has_waiting_message(key)
        last = self.added.get(key, self._last_fired_at(key))
        if last is not None and (kind == "once" or at < last + self.trigger.enrol.seconds):
            return False
        self.added[key] = at
        return True

    def _history(self, upto: int) -> dict[str, float]:
        """When each key was last enrolled by a change up to a position. Keys that a query enrolled
        count as always enrolled.
        """
        by_query = "select key, at from enrolled where trigger = ? and at = 0"
        fired = (
            "select m.lane, max(coalesce(l.occurred_at / 1e6, m.made_at)) from messages m left join log l using (change_id) "
            "left join pruned p using (change_id) where m.trigger = ? and coalesce(l.position, p.position) <= ? group by 1"
        )
        name = self.trigger.name
        return dict(self.db.execute(by_query, (name,))) | dict(self.db.execute(fired, (name, upto)))

    def _last_fired_at(self, key: str) -> float | None:
        if self.is_history:
            return self.history.get(key)
        query = "select at from enrolled where trigger = ? and key = ? and at >= 0"
        row = self.db.execute(query, (self.trigger.name, key)).fetchone()
        return None if row is None else float(row[0])

    def _has_waiting_message(self, key: str) -> bool:
        # a held replay may be discarded: it does not block what happens meanwhile
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
        """Store the keys added since the last call; a key that was enrolled by a later change keeps
        that time. `held`: by a replay that waits for a release; it does not count until then and is
        stored as a negative time.
        """
        if self.trigger.enrol.kind in ("once", "cooldown"):
            self.db.executemany(
                "insert into enrolled values (?, ?, ?) on conflict do update set at = max(at, excluded.at)",
                [(self.trigger.name, key, -at if held else at) for key, at in self.added.items()],
            )
        self.history |= self.added
        self.added = {}
