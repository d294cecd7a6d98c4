"""Whoever fires and delivers may be killed at any time: the receiver gets everything, in order, and
knows repetitions by their id.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from stripe_feed.delivery.outbox import counts, message_id_of
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.triggers.engine import run_triggers
from tests.deliveries import NOW, POINTS, add, both, updates
from tests.forker import Forker
from tests.receiver import (
    ERROR,
    RESET,
    TAKEN_THEN_RESET,
    Behaviour,
    Received,
    Receiver,
    at_random,
    receiving,
)

LANES = 6
AN_HOUR = 3_600.0


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    """The process that forks the deliveries."""
    with closing(Forker("deliveries.py")) as process:
        yield process


class Killer:
    """A store that gets changes, and deliveries that are killed."""

    def __init__(self, folder: Path, process: Forker, receiver: Receiver) -> None:
        self.folder, self.process, self.receiver = folder, process, receiver
        self.kills, self.made, self.now = 0, 0, NOW
        with FeedStore(folder / "copy.feed.sqlite") as store:
            run_triggers(store, both(receiver.url), NOW)

    def add(self, count: int) -> None:
        with FeedStore(self.folder / "copy.feed.sqlite") as store:
            add(store, *updates(count, LANES, self.made + 1))
        self.made += count

    def run(self, point: str | None = None, at: int = 1) -> int:
        self.now += AN_HOUR
        job = {
            "point": point,
            "at": at,
            "folder": str(self.folder),
            "url": self.receiver.url,
            "now": self.now,
        }
        status = self.process.run(job)
        assert status in (0, -9)
        self.kills += status == -9
        return status

    def check(self) -> None:
        """Deliver the rest, and look at all that came."""
        for _ in range(20):
            assert self.run() == 0
            with FeedStore(self.folder / "copy.feed.sqlite") as store:
                if set(
                    states := {state for found in counts(store).values() for state in found}
                ) == {"sent"}:
                    break
        assert states == {"sent"}
        wanted = {message_id_of("always", f"evt_{n}", f"evt_{n}") for n in range(1, self.made + 1)}
        wanted |= {
            message_id_of("once", f"evt_{n}", f"evt_{n}")
            for n in range(1, min(LANES, self.made) + 1)
        }
        assert {
            one.message_id for one in self.receiver.accepted
        } == wanted  # none is missing, none has another id
        lanes, seen = defaultdict(list), dict[str, bytes]()
        for one in self.receiver.accepted:
            meta = json.loads(one.body)["meta"]
            if one.message_id not in seen:
                lanes[meta["trigger"], meta["object_id"]].append(meta["offset"])
            assert seen.setdefault(one.message_id, one.body) == one.body
        assert all(found == sorted(found) for found in lanes.values())


@pytest.fixture
def killer(tmp_path: Path, forker: Forker) -> Iterator[Killer]:
    """The receiver refuses what a kill cut short, as every HTTP server does."""
    fate = at_random({ERROR: 0.03, RESET: 0.02, TAKEN_THEN_RESET: 0.02}, 5)

    def choose(request: Received, count: int) -> Behaviour:
        return (
            fate(request, count)
            if len(request.body) == int(request.headers["content-length"])
            else ERROR
        )

    with receiving(choose=choose) as receiver:
        yield Killer(tmp_path, forker, receiver)


def test_a_delivery_killed_at_any_point_loses_nothing(killer: Killer) -> None:
    """Twenty kills, among them one while a trigger begins."""
    killer.folder = killer.folder / "new"
    killer.folder.mkdir()
    assert killer.run("a trigger begins", 2) == -9
    killer.run()
    points = [point for point in POINTS if point != "a trigger begins"]
    for n, point in enumerate(points * 3):
        killer.add(10)
        killer.run(point, 1 + n // len(points) * 2)
    killer.check()

    assert killer.kills >= 20
    repeated = len(killer.receiver.accepted) - len(
        {one.message_id for one in killer.receiver.accepted}
    )
    assert 0 < repeated <= 6 * killer.kills + len(killer.receiver.received) // 10


@pytest.mark.long
@pytest.mark.parametrize("seed", range(25))
def test_a_thousand_kills_lose_nothing(killer: Killer, seed: int) -> None:
    chance = random.Random(seed)
    while killer.kills < 40:
        killer.add(chance.randint(1, 12))
        killer.run(chance.choice(list(POINTS)[1:]), chance.randint(1, 9))
    killer.check()
