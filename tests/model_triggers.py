"""For tests of triggers on models: a table that is watched, and evaluations of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
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


def folder_with(sql: str) -> Path:
    """A new folder with `watched.sql`."""
    folder = Path(mkdtemp(prefix="sql-"))
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
        return evaluate_models(self.store, triggers, self.now, lambda read: read(self.database))

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
