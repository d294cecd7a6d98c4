"""Pushes into a sandbox over HTTP, without waiting."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stripe_feed.api.client import Clock
from stripe_feed.sandbox import Sandbox
from stripe_feed.write.push.definition import make_definition
from stripe_feed.write.push.report import Plan, Result
from stripe_feed.write.push.run import LOG, Push, open_push

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
