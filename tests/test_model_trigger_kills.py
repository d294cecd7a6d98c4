"""Whoever evaluates triggers on models may be killed at any time: each fact becomes one message."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.deliveries import NOW
from tests.forker import Forker
from tests.model_trigger_kills import POINTS

KEYS = "abcdef"


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    """The process that forks the evaluations."""
    with closing(Forker("model_trigger_kills.py")) as process:
        yield process


class Life:
    """A table that changes at random, evaluations that are killed, and what should be told."""

    def __init__(self, folder: Path, process: Forker, seed: int) -> None:
        self.folder, self.process, self.chance = folder, process, random.Random(seed)
        self.rows: dict[str, int] = {}
        self.expected: list[tuple[str, str]] = []
        self.kills, self.now = 0, NOW
        with closing(duckdb.connect(str(folder / "watched.duckdb"))) as connection:
            connection.execute("create table watched (id varchar, mrr bigint)")
        self.run()  # the baseline

    def step(self) -> None:
        """Change some rows."""
        before = dict(self.rows)
        for key in self.chance.sample(KEYS, 3):
            if self.chance.random() < 0.3:
                self.rows.pop(key, None)
            else:
                self.rows[key] = self.chance.randint(1, 3)
        for kind, keys in (
            ("entered", self.rows.keys() - before.keys()),
            ("left", before.keys() - self.rows.keys()),
            ("changed", {key for key in before if self.rows.get(key, before[key]) != before[key]}),
        ):
            self.expected += [(kind, key) for key in sorted(keys)]
        with closing(duckdb.connect(str(self.folder / "watched.duckdb"))) as connection:
            connection.execute("delete from watched")
            for row in self.rows.items():
                connection.execute("insert into watched values (?, ?)", row)

    def run(self, point: str | None = None, at: int = 1) -> int:
        self.now += 3_600
        job: dict[str, Any] = {"point": point, "at": at, "folder": str(self.folder)}
        status = self.process.run(job | {"now": self.now})
        assert status in (0, -9)
        self.kills += status == -9
        return status

    def told(self) -> list[tuple[str, str]]:
        """What the receiver got, each message once. A repetition has the same body."""
        seen: dict[str, Any] = {}
        file = self.folder / "out.jsonl"
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
            said = json.loads(line)
            assert seen.setdefault(said["meta"]["message_id"], said) == said
        return [
            (said["type"].partition(".")[2], said["meta"]["object_id"]) for said in seen.values()
        ]

    def check(self) -> None:
        told = self.told()
        assert sorted(told) == sorted(self.expected)
        for key in KEYS:  # in order per row
            assert [one for one in told if one[1] == key] == [
                one for one in self.expected if one[1] == key
            ]


def test_an_evaluation_killed_at_any_point_tells_everything_once(
    tmp_path: Path, forker: Forker
) -> None:
    life = Life(tmp_path, forker, 1)
    for point in POINTS:
        life.step()
        life.run(point)
        assert life.run() == 0
    life.check()

    assert life.kills == len(POINTS)
    assert {kind for kind, _ in life.expected} == {"entered", "left", "changed"}


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_many_kills_lose_and_double_nothing(tmp_path: Path, forker: Forker, seed: int) -> None:
    life = Life(tmp_path, forker, seed)
    while life.kills < 50:
        life.step()
        for _ in range(life.chance.randint(1, 3)):
            life.run(life.chance.choice([*POINTS]), life.chance.randint(1, 3))
        assert life.run() == 0
    life.check()
