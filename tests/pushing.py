"""Pushes into a sandbox over HTTP, without waiting."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from stripe_feed.api.client import Clock
from stripe_feed.feed.storage.push_states import note_runs
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.sandbox import Sandbox
from stripe_feed.write.push.definition import make_definition
from stripe_feed.write.push.log import LOG, FailedRow, PushLog
from stripe_feed.write.push.report import Plan, Result
from stripe_feed.write.push.run import Push, open_push
from tests.commands import Shell, shell_of

Row = dict[str, Any]


def no_wait(stopped: threading.Event, seconds: float) -> bool:
    return stopped.is_set()


FAST: dict[str, Any] = {
    "max_rps": 5_000, "endpoint_rps": 5_000, "threads": 8, "clock": Clock(wait=no_wait),
}  # fmt: skip


class Pushing:
    """A sandbox, and one push into it; each run opens the log anew."""

    def __init__(self, box: Sandbox, url: str, **definition: Any) -> None:
        self.box, self.url = box, url
        self.definition = definition

    @contextmanager
    def opened(self, **changes: Any) -> Iterator[Push]:
        given = {**self.definition, **changes}
        definition = make_definition(given.pop("name", "crm"), given)
        with open_push(definition, self.box.key, base=self.url, log=LOG, **FAST) as push:
            yield push

    def run(self, rows: Any, **options: Any) -> Result:
        changes = options.pop("changes", {})
        with self.opened(**changes) as push:
            return push.run(rows, **options)

    def plan(self, rows: Any, **options: Any) -> Plan:
        changes = options.pop("changes", {})
        with self.opened(**changes) as push:
            return push.plan(rows, **options)

    def held(self, table: str = "customers") -> list[Row]:
        """What the account has of the rows of this push, by the name."""
        found = self.box.objects(table).values()
        return [one for one in found if "sf_key" in (one.get("metadata") or {})]

    def writes(self) -> list[str]:
        """What was written since the last look."""
        found = [f"{call.method} {call.template}" for call in self.box.log if call.method != "GET"]
        self.box.reset_counts()
        return found


def ends(result: Result) -> dict[str, int]:
    """How many rows ended how, without zeros."""
    return {status: count for status, count in result.counts().items() if count}


def reasons(result: Result) -> dict[str, str]:
    return {row.key: row.reason for row in result.rows if row.reason}


@contextmanager
def pushing(**definition: Any) -> Iterator[Pushing]:
    box = Sandbox(seed=5, customers=3, oddities=False)
    with box.serve() as url:
        yield Pushing(box, url, **definition)


FILE = """
[push.crm]
object = "customers"
key = "email"
match = "email"
query = "select email, name, phone from people order by email"
"""
CARD = "4242 4242 4242 4242"


@contextmanager
def push_shell(folder: Path) -> Iterator[Shell]:
    """A folder with the file of a push, and a copy with its rows; one of them cannot be sent."""
    with shell_of(Sandbox(seed=5, customers=2, oddities=False), folder) as shell:
        (folder / "pushes.toml").write_text(FILE)
        people(folder, Ann="Ann Canary", Bob=CARD)
        yield shell


def people(folder: Path, **names: str) -> None:
    """The rows of the copy."""
    with duckdb.connect(str(folder / "stripe_feed.duckdb")) as db:
        db.execute("create schema if not exists stripe")
        db.execute("create or replace table stripe.people (email text, name text, phone text)")
        for key, name in names.items():
            row = [f"{key.lower()}.canary@example.com", name, "+1 555 1234"]
            db.execute("insert into stripe.people values (?, ?, ?)", row)


def note_ends(store: FeedStore, clock: Callable[[], float], **ends: str) -> None:
    """Let a feed store know pushes whose last run ended so."""
    with PushLog("noted.sqlite", clock) as log:
        log.stamp("acct_1", False)
        for push, end in ends.items():
            note_end(log, end, push)
        note_runs(store, log)


def note_end(log: PushLog, end: str, push: str = "crm", reason: str = "name is too long.") -> None:
    """A run that ends so: healthy, warning, failed, killed, or a retry that is healthy."""
    log.begin_run(push, "customers", "upsert", is_retry=end == "retried")
    if end == "warning":
        log.note_failed([FailedRow("jane.canary@example.com", "rejected", None, None, reason)])
        log.end_run({"created": 2, "rejected": 1})
    elif end == "failed":
        log.end_run({"not_sent": 3}, f"Stripe cannot be reached: {reason}")
    elif end in ("healthy", "retried"):
        log.end_run({"created": 3, "unchanged": 12_345})


class Killed(BaseException):
    """The process died here."""


@contextmanager
def killed_at(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str, when: str, later: int = 0
) -> Iterator[None]:
    """Die before or after a call of a function: the next one, or so many later."""
    real = getattr(place, name)
    calls = itertools.count()

    def dying(*args: Any, **kwargs: Any) -> Any:
        due = next(calls) == later
        if due and when == "before":
            raise Killed
        result = real(*args, **kwargs)
        if due:
            raise Killed
        return result

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(place, name, dying)
        yield
