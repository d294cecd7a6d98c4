"""For tests of triggers on models: a table that is watched, and evaluations of it."""

from __future__ import annotations

import atexit
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import duckdb

from stripe_feed.delivery.outbox import find
from stripe_feed.feed.change import Change
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.models.database import ModelDatabase, duckdb_database
from stripe_feed.models.run import build_models
from stripe_feed.triggers.config import parse_any_trigger
from stripe_feed.triggers.engine import TriggerResult
from stripe_feed.triggers.models.evaluate import evaluate_models
from stripe_feed.triggers.models.model_trigger import ModelTrigger
from tests.deliveries import NOW, nothing

FOLDER = TemporaryDirectory(prefix="watched-")
atexit.register(FOLDER.cleanup)
SELECT_ALL = "select * from watched"
Rows = Mapping[str, Mapping[str, Any]]
"""Rows by key, without the key."""


def a_model_trigger(name: str = "t", sql: str = SELECT_ALL, **settings: Any) -> ModelTrigger:
    """A trigger on the rows of `watched` by `id`, unless something else is said."""
    settings = {"key": "id", "deliver": {"python": nothing}, **settings}
    if "model" in settings or "preset" in settings:
        if "preset" in settings:
            settings.pop("key")
        made = parse_any_trigger({"name": name, **settings})
    else:
        made = parse_any_trigger({"name": name, "sql": "watched.sql", **settings}, folder_with(sql))
    assert isinstance(made, ModelTrigger)
    return made


@cache
def folder_with(sql: str) -> Path:
    """A folder with `watched.sql`, until the tests end."""
    folder = Path(mkdtemp(dir=FOLDER.name, prefix="sql-"))
    (folder / "watched.sql").write_text(sql, encoding="utf-8")
    return folder


@dataclass
class Watched:
    """A database with the table `watched`, which holds the rows that it is given."""

    store: FeedStore
    columns: str = "id varchar, customer_id varchar, mrr bigint, note varchar"
    connection: Any = field(default_factory=duckdb.connect)
    now: float = NOW
    schema: str | None = "stripe"
    feed: Any = None

    def __post_init__(self) -> None:
        if self.schema:
            self.connection.execute(f"create schema {self.schema}")
        self.connection.execute(f"create table watched ({self.columns})")

    @property
    def database(self) -> ModelDatabase:
        return duckdb_database(self.connection, "stripe")

    def hold(self, rows: Rows) -> None:
        """Replace the rows of the table."""
        self.connection.execute("delete from watched")
        names = [name.split()[0] for name in self.columns.split(",")][1:]
        values = [[key, *(row.get(name) for name in names)] for key, row in rows.items()]
        for value in values:
            marks = ", ".join("?" * len(value))
            self.connection.execute(f"insert into watched values ({marks})", value)

    def evaluate(self, *triggers: ModelTrigger) -> list[TriggerResult]:
        """Evaluate triggers a minute later."""
        self.now += 60
        return evaluate_models(self.store, triggers, self.now, self.read)

    def read(self, read: Callable[[ModelDatabase], Any]) -> Any:
        return read(self.database)

    def evaluate_one(self, trigger: ModelTrigger) -> TriggerResult:
        (result,) = self.evaluate(trigger)
        assert result.error is None, result.error
        return result

    def told(self, trigger: str = "t") -> list[tuple[str, str]]:
        """Every message of a trigger in order: what happened, and to which row."""
        return [
            (str(one.event_type).rpartition(".")[2], one.object_id) for one in self.changes(trigger)
        ]

    def changes(self, trigger: str = "t") -> list[Change]:
        found = [self.store.by_id(one.change_id) for one in find(self.store, trigger=trigger)]
        return [one for one in found if one is not None]


def build_as_of(database: ModelDatabase, as_of: str, *models: str) -> None:
    """Build models, and what they read, so that their now is another moment (UTC)."""
    results = build_models(database, [f"+{name}" for name in models], {"as_of": as_of})
    assert {one.status for one in results} <= {"built", "unchanged"}, results


def row(mrr: int | None = 1, customer: str = "cus_1", note: str | None = None) -> dict[str, Any]:
    return {"customer_id": customer, "mrr": mrr, "note": note}


def random_rows(rng: random.Random, before: Rows) -> dict[str, dict[str, Any]]:
    """Rows that differ a little, or not at all, from those before."""
    rows = {key: dict(values) for key, values in before.items()}
    for _ in range(rng.choice((0, 1, 1, 3, 8))):
        key = rng.choice("abcdefghij") + rng.choice(("", "'", '"', "%", "/", "\\", "ü", "\n"))
        if rng.random() < 0.4:
            rows.pop(key, None)
        else:
            rows[key] = row(
                rng.choice((None, 0, 1, -(2**62))),
                rng.choice(("cus_1", "cus_2")),
                rng.choice((None, "", "-", "x")),
            )
    return rows


def expected(before: Rows, after: Rows, watch: list[str]) -> list[tuple[str, str, Any, Any]]:
    """What happened between two states, row by row."""
    found: list[tuple[str, str, Any, Any]] = []
    for key in sorted({**before, **after}):
        old, new = before.get(key), after.get(key)
        if old is None:
            found.append(("entered", key, None, new))
        elif new is None:
            found.append(("left", key, old, None))
        elif any(old[name] != new[name] for name in watch):
            found.append(("changed", key, old, new))
    return found


def check_against_calculation(watched: Watched, seed: int) -> None:
    rng = random.Random(seed)
    watch = rng.choice((["mrr"], ["mrr", "note"], ["mrr", "note", "customer_id"]))
    trigger = a_model_trigger(
        f"t{seed}", watch=watch, on=["entered", "left", "changed"], guard={"max": 10**9, "share": 1}
    )
    before: dict[str, dict[str, Any]] = {}
    known: dict[str, dict[str, Any]] = {}  # as of the last change of a watched column
    wanted: list[tuple[str, str, Any, Any]] = []
    for n in range(6):
        rows = random_rows(rng, before)
        watched.hold(rows)
        watched.evaluate_one(trigger)
        if n:
            happened = expected(known, rows, watch)
            wanted += sorted(happened, key=lambda one: ("entered", "left", "changed").index(one[0]))
            for _, key, _, new in happened:
                known.pop(key, None)
                if new is not None:
                    known[key] = new
        else:
            known = dict(rows)
        before = rows
    told = [
        (kind, key, change.before, change.after)
        for (kind, key), change in zip(
            watched.told(trigger.name), watched.changes(trigger.name), strict=True
        )
    ]
    with_keys = [
        (kind, key, *({"id": key, **side} if side else None for side in sides))
        for kind, key, *sides in wanted
    ]
    assert told == with_keys
