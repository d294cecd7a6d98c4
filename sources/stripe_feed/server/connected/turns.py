"""Which connected account is synced next. No threads, no clock and no I/O: times are arguments, in Unix
seconds.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from itertools import islice

from ..service import DEBOUNCE, pause_after

# seconds after a first load: webhooks that came before the account was known are lost
FIRST_AGAIN = 300.0


@dataclass(frozen=True, slots=True)
class Turn:
    """An account to sync; without `polls`, only the events that its webhooks announced."""

    account: str
    polls: bool


class Turns:
    """The order of the accounts: first one whose webhooks announced events, the one that waits longest; then one
    that is due, the most overdue.

    Each account has one turn at a time, and goes to the end of the queue after it: a burst of one
    delays no other. Whole readings leave one of `at_once` places free, so that a webhook waits for
    no first load; or take `most_polls` at most. `every`: seconds between the whole readings of an
    account; 0: none but the first and one more.
    """

    def __init__(self, every: float, at_once: int, most_polls: int | None = None) -> None:
        self.every = every or math.inf
        self.at_once = at_once
        self.most_polls = max(1, at_once - 1) if most_polls is None else most_polls
        self._due_at: dict[str, float] = {}
        self._without_copy: set[str] = set()  # or with one that is not whole
        self._announced_at: dict[str, float] = {}
        self._running: dict[str, Turn] = {}
        self._failures: dict[str, int] = {}
        self._rests_until: dict[str, float] = {}

    @property
    def accounts(self) -> frozenset[str]:
        """The accounts that are followed."""
        return frozenset(self._due_at)

    def add(self, account: str, cursor: int, now: float) -> None:
        """Follow an account. `cursor`: up to when its copy was read; 0 if there is no whole copy."""
        if account in self._due_at:
            return
        self._due_at[account] = min(cursor, now) + self.every if cursor else 0.0
        if not cursor:
            self._without_copy.add(account)

    def drop(self, accounts: Collection[str]) -> None:
        """Follow these accounts no more; a turn that runs is finished."""
        for account in accounts:
            for by_account in (self._due_at, self._announced_at, self._failures, self._rests_until):
                by_account.pop(account, None)
            self._without_copy.discard(account)

    def announce(self, account: str, at: float) -> None:
        """Note that a webhook came, or that events can be read from this time on."""
        self._announced_at.setdefault(account, at)

    def next(self, now: float) -> Turn | None:
        """Take the next turn; None if nothing is to be done now. `end` it afterwards."""
        return self._take(now, polls=False) or self._take(now, polls=True)

    def _take(self, now: float, *, polls: bool) -> Turn | None:
        if len(self._running) >= self.at_once:
            return None
        starts = self._polls() if polls else self._announced()
        at, account = min(((at, id) for id, at in starts.items()), default=(math.inf, ""))
        if at > now:
            return None
        self._announced_at.pop(account, None)
        self._running[account] = turn = Turn(account, polls)
        return turn

    def seconds_until_next(self, now: float) -> float | None:
        """Return when `next` is worth another call, if nothing else happens; None: never."""
        if len(self._running) >= self.at_once:
            return None
        at = min([*self._announced().values(), *self._polls().values()], default=math.inf)
        return None if at == math.inf else max(0.0, at - now)

    def end(self, turn: Turn, now: float, *, failed: bool, more: bool = False) -> None:
        """End a turn. `more`: further events can be read at once. After a failure, the account waits
        for a growing time.
        """
        account = turn.account
        del self._running[account]
        if account not in self._due_at:
            return
        if failed:
            self._failures[account] = failures = self.failures(account) + 1
            self._rests_until[account] = now + pause_after(failures)
        else:
            self._failures.pop(account, None)
            self._rests_until.pop(account, None)
            if turn.polls:
                first = account in self._without_copy
                self._without_copy.discard(account)
                self._due_at[account] = now + (FIRST_AGAIN if first else self.every)
        if more:
            self.announce(account, now)

    def failures(self, account: str) -> int:
        """Return how often this account has failed since it was synced last."""
        return self._failures.get(account, 0)

    def has_whole_copy(self, account: str) -> bool:
        """Whether the copy of an account was loaded once."""
        return account in self._due_at and account not in self._without_copy

    @property
    def failing(self) -> int:
        """How many accounts cannot be synced now."""
        return len(self._failures)

    def next_together(self, now: float) -> list[Turn]:
        """Take the turns that are taken together: all with announced events, and a whole reading; or
        a few whole readings if there are none.
        """
        announced = list(iter(partial(self._take, now, polls=False), None))
        polls = islice(iter(partial(self._take, now, polls=True), None), 1 if announced else None)
        return [*announced, *polls]

    def _announced(self) -> dict[str, float]:
        """When each account with announced events can start; one without a copy is loaded first."""
        return {
            id: max(at + DEBOUNCE, self._rests_until.get(id, 0.0))
            for id, at in self._announced_at.items()
            if self.has_whole_copy(id) and id not in self._running
        }

    def _polls(self) -> dict[str, float]:
        """When each account's whole reading can start."""
        if sum(turn.polls for turn in self._running.values()) >= self.most_polls:
            return {}
        return {
            id: max(at, self._rests_until.get(id, 0.0))
            for id, at in self._due_at.items()
            if id not in self._running
        }
