"""Keep connected accounts fresh: threads sync those whose webhooks announced events."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ...accounts_run import AccountResult
from ...errors import StripeFeedError, Unreachable
from ...extract.events.webhook import decode_head
from ...feed.storage.store import FeedStore
from ...feed.storage.store_errors import Unusable
from ...resources import CHANGES
from ...shared_run import AccountTurn
from ...sync_run import Synced
from .. import webhook_inbox
from ..service import MAX_BODIES, MAX_EVENTS, events_to_read, mark_events
from ..webhook_endpoint import DEAUTHORIZED
from .turns import Turn, Turns

log = logging.getLogger("stripe_feed")

LEFT_SECONDS = 60.0  # until events are tried again that a sync has left without a fault


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read of an account in a turn: the received events that wait; with `polls`, all that is
    new.
    """

    waiting: Sequence[webhook_inbox.ReceivedEvent]
    polls: bool


SyncTogether = Callable[[Sequence[AccountTurn]], Iterator[AccountResult]]
"""Syncs several accounts into one dataset, and tells the result of each once it is loaded."""


@dataclass
class Accounts:
    """The connected accounts that are kept fresh, and what the threads share.

    `inbox`: the received events of all; `webhook_store`: the same file, opened for webhooks alone. `live`:
    the mode of the key. `run`: syncs one account. `error`: the class of the error that keeps the
    list of accounts from being read; `load_error`: of that which keeps a shared dataset from being
    opened.
    """

    inbox: FeedStore
    webhook_store: FeedStore
    turns: Turns
    live: bool
    run: Callable[..., Synced]
    now: Callable[[], float] = time.time
    keeps_bodies: bool = True  # until it is known that the key may read events
    error: str | None = None
    load_error: str | None = None
    connected: frozenset[str] = frozenset()
    counts: Counter[str] = field(default_factory=Counter)
    said: dict[str, str] = field(default_factory=dict)  # account -> what was logged of its failure
    changed: threading.Condition = field(default_factory=threading.Condition)
    list_asked: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)

    def receive(self, event_id: str, body: bytes) -> None:
        """Store the event of a connected account, and let it have a turn. One of any other account,
        or of the other mode, is dropped; the answer to the webhook is the same.
        """
        head = decode_head(body)
        account = head.account
        is_known = account in self.connected
        if head.type == DEAUTHORIZED or not is_known:
            self.list_asked.set()  # it may be new, or gone
        if account is None or not is_known or head.livemode not in (None, self.live):
            self.counts["webhook_foreign"] += 1
            return
        kept = body if self.keeps_bodies else None
        now = self.now()
        if webhook_inbox.record(
            self.webhook_store, event_id, now, kept, msgspec.json.encode(head), account
        ):
            with self.changed:
                self.turns.announce(account, now)
                self.changed.notify_all()

    def follow(self, accounts: Sequence[str], cursor: Callable[[str], int]) -> None:
        """Follow these accounts and no other; `cursor` tells how far the copy of a new one was read."""
        self.connected = frozenset(accounts)
        with self.changed:
            gone = self.turns.accounts - self.connected
            self.turns.drop(gone)
        for account in gone:
            self.said.pop(account, None)
            log.info("%s is not connected any more; its copy stays as it is.", account)
        waiting = webhook_inbox.accounts_to_read(self.inbox)
        webhook_inbox.drop_accounts(self.inbox, waiting.keys() - self.connected, self.now())
        for account in accounts:
            if self.stopped.is_set():
                return
            if account in self.turns.accounts:
                continue
            reached = cursor(account)
            with self.changed:
                self.turns.add(account, reached, self.now())
                if account in waiting:
                    self.turns.announce(account, waiting[account])
                self.changed.notify_all()

    def work(self) -> None:
        """Sync account after account until stopped. Several threads do it."""
        while (turn := self._next()) is not None:
            self.take(turn)

    def work_together(self, sync: SyncTogether) -> None:
        """The same for a dataset that all accounts share: those with announced events are synced in one package.
        One thread does it. Raises what keeps the dataset from being written.
        """
        while not self.stopped.is_set():
            with self.changed:
                turns = self.turns.next_together(self.now())
                if not turns:
                    self.changed.wait(self.turns.seconds_until_next(self.now()))
            self.take_together(turns, sync)

    def take(self, turn: Turn) -> None:
        """Sync the account of a turn, and end the turn."""
        try:
            reading = self._reading(turn)
            done = None
            if reading is not None:
                is_whole = self.turns.has_whole_copy(turn.account)
                announced = events_to_read(reading.waiting)
                done = self.run(
                    turn.account, is_whole, webhook_events=announced, polls=reading.polls
                )
        except Exception as fault:
            self._end(turn, fault=fault)
        else:
            self._end(turn, reading, done)

    def take_together(self, turns: Sequence[Turn], sync: SyncTogether) -> None:
        """Sync the accounts of these turns, and end the turns. Raises what ends all of them."""
        readings: dict[str, tuple[Turn, Reading]] = {}
        for turn in turns:
            try:
                reading = self._reading(turn)
            except Exception as fault:
                self._end(turn, fault=fault)
            else:
                if reading is None:
                    self._end(turn)
                else:
                    readings[turn.account] = (turn, reading)
        asked = [
            AccountTurn(account, events_to_read(reading.waiting), reading.polls)
            for account, (_, reading) in readings.items()
        ]
        ended_by: Exception = Unreachable("stopped")
        try:
            for result in sync(asked) if asked else ():
                turn, reading = readings.pop(result.account_id)
                if result.synced is not None:
                    self._end(turn, reading, result.synced)
                else:
                    self._end(turn, fault=result.cause or StripeFeedError(result.error))
        except Exception as common:
            ended_by = common
            raise
        finally:
            for turn, _ in readings.values():
                self._end(turn, fault=ended_by)

    def _end(
        self,
        turn: Turn,
        reading: Reading | None = None,
        done: Synced | None = None,
        *,
        fault: Exception | None = None,
    ) -> None:
        """End a turn: with what was read, without anything to read, or with a fault."""
        more = False
        try:
            if fault is not None:
                raise fault
            if reading is not None and done is not None:
                more = self._mark(reading, done)
            self.said.pop(turn.account, None)
        except StripeFeedError as known:
            fault = known
            self._failed(turn.account, type(known).__name__, str(known))
        except Exception as unknown:  # its words may hold data
            fault = unknown
            words = "it is tried again; `stripe-feed sync --account ... --debug` shows more"
            self._failed(turn.account, type(unknown).__name__, words)
        failed, now = fault is not None, self.now()
        readable_at = None if more else self._left_at(turn.account, now, failed)
        with self.changed:
            self.turns.end(turn, now, failed=failed, more=more)
            if readable_at is not None:
                self.turns.announce(turn.account, readable_at)
            self.changed.notify_all()

    def _left_at(self, account: str, now: float, failed: bool) -> float | None:
        """When the events of an account can be read that are left; None if none is."""
        try:
            at = webhook_inbox.accounts_to_read(self.inbox, account).get(account)
        except (Unusable, sqlite3.Error):
            return now + LEFT_SECONDS
        if at is None or at > now or failed:
            return at
        return now + LEFT_SECONDS

    def _next(self) -> Turn | None:
        with self.changed:
            while not self.stopped.is_set():
                if turn := self.turns.next(self.now()):
                    return turn
                self.changed.wait(self.turns.seconds_until_next(self.now()))
        return None

    def _reading(self, turn: Turn) -> Reading | None:
        """What is to be read in a turn; None if nothing is. Every second time after a failure without
        the received events, so that none of them can stop the rest.
        """
        failures = self.turns.failures(turn.account)
        limit = MAX_BODIES if self.keeps_bodies else MAX_EVENTS
        waiting = (
            []
            if failures % 2 == 1
            else webhook_inbox.unread(self.inbox, limit, self.now(), turn.account)
        )
        polls = turn.polls or self.keeps_bodies or failures > 0
        return Reading(waiting, polls) if waiting or polls else None

    def _mark(self, reading: Reading, done: Synced) -> bool:
        """Record what was read; return whether more events can be read at once."""
        self.keeps_bodies = CHANGES in done.refused
        self.counts["synced"] += 1
        ids = [one.event_id for one in reading.waiting]
        return mark_events(self.inbox, ids, done, self.now())

    def _failed(self, account: str, kind: str, words: str) -> None:
        """Log a failure once; it is tried again after a growing pause."""
        if not self.stopped.is_set() and self.said.get(account) != kind:
            self.said[account] = kind
            log.warning("%s: not up to date (%s): %s", account, kind, words)

    def health(self) -> Mapping[str, Any]:
        """Return the data of `/health`: `error` is the class of what keeps the list of accounts from
        being read, or a shared dataset from being opened; `failing` how many accounts cannot be
        synced.
        """
        waiting = webhook_inbox.accounts_to_read(self.inbox)
        return {
            "error": self.error or self.load_error,
            "accounts": len(self.connected),
            "failing": self.turns.failing,
            "waiting": len(waiting),
            "synced": self.counts["synced"],
        }

    def stop(self) -> None:
        """Let all threads end after what they do."""
        self.stopped.set()
        self.list_asked.set()
        with self.changed:
            self.changed.notify_all()
