"""A run that is killed while it follows events loses none, doubles none, and leaves the tables
exact once another has ended.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest

from stripe_feed import open_feed
from stripe_feed.sandbox import Sandbox
from tests.chosen import chosen
from tests.copies import Copy
from tests.crash import POINTS
from tests.feed_truth import Row, assert_complete, assert_folds, assert_in_order, changes
from tests.test_crash import Kill, Runner

TABLES = ("customers", "subscriptions")
KILLS = (
    Kill("a page of events was read", 2),
    Kill("changes were handed to dlt", 1),
    Kill("the package is extracted", 1),
    Kill("a file is ready to be merged", 2),
    Kill("merged", 1),
    Kill("merged", 3),
    Kill("all is loaded", 1),
    Kill("changes were relayed", 1),
    Kill("the feed has it", 1),
)
"""At least one between the rows and their changes, whichever of them is merged first."""


def account() -> Sandbox:
    box = Sandbox(seed=7, customers=20, subscriptions=12, invoices=5, products=6, oddities=False)
    box.advance(1_000)
    return box


def live(box: Sandbox, seed: int) -> None:
    """More events than one package holds, some of them of one object in one second, and a deletion
    without content.
    """
    box.stub_deletes = seed % 2 == 0
    box.live(60, 120)
    for _ in range(2):
        box.burst(40)
        box.advance(5)
    box.delete("customers", next(iter(box.objects("customers"))))
    box.advance(100)


def check(copy: Copy) -> list[Row]:
    """The tables equal the truth, each change is there once, in its place, and a consumer of the
    feed gets each once.
    """
    copy.check(*TABLES, volatile=False)
    assert_in_order(copy)
    assert_folds(copy, TABLES)
    assert not copy.one("select count(*) - count(distinct change_id) from stripe.changes")
    complete = assert_complete(copy, TABLES)
    given = [*consumed(copy, 50), *consumed(copy)]
    assert [offset for offset, _ in given] == list(range(1, len(given) + 1))
    assert sorted(id for _, id in given) == sorted(
        id for (id,) in copy.select("select change_id from stripe.changes")
    )
    return complete


def consumed(copy: Copy, most: int | None = None) -> list[tuple[int, str]]:
    """Offset and id of what a consumer gets."""
    with open_feed(copy.pipeline) as feed:
        return [
            (one.offset, one.change_id) for one in feed.consume("all", start="earliest", max=most)
        ]


def killed(runner: Runner, kill: Kill, folder: Path) -> tuple[Copy, list[int], int]:
    """Load, live, die, live, and end; with the statuses of the runs, and how many changes the
    killed one had completed.
    """
    box = account()
    with box.serve() as url:
        copy = Copy(box, url, folder)
        statuses = [runner.run(copy, resources=TABLES)]
        live(box, 1)
        statuses.append(runner.run(copy, kill.point, kill.at, resources=TABLES))
        held = len(changes(copy))
        live(box, 2)
        statuses.append(runner.run(copy, resources=TABLES))
    return copy, statuses, held


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Kill, Future[tuple[Copy, list[int], int]]]]:
    """All kills that are asked for, two at a time."""
    runners: SimpleQueue[Runner] = SimpleQueue()
    for _ in range(2):
        runners.put(Runner())

    def work(kill: Kill) -> tuple[Copy, list[int], int]:
        runner = runners.get()
        try:
            return killed(runner, kill, tmp_path_factory.mktemp("crash"))
        finally:
            runners.put(runner)

    with ThreadPoolExecutor(2) as pool:
        yield {kill: pool.submit(work, kill) for kill in chosen(request, "kill")}
    for _ in range(2):
        runners.get().close()


@pytest.mark.parametrize("kill", KILLS, ids=str)
def test_a_run_that_is_killed_among_events_goes_on(
    outcomes: dict[Kill, Future[tuple[Copy, list[int], int]]], kill: Kill
) -> None:
    """At a named point: whatever was half loaded is loaded whole, what was read is read again, and
    nothing is told twice.
    """
    copy, statuses, held = outcomes[kill].result()
    assert statuses == [0, -9, 0]
    assert len(check(copy)) > 250
    assert held < 250


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100))
def test_random_kills_among_events(tmp_path: Path, seed: int) -> None:
    """Several in a row, anywhere, while the account lives on."""
    dice = random.Random(seed)
    runner = Runner()
    box = account()
    with box.serve() as url:
        copy = Copy(box, url, tmp_path)
        assert runner.run(copy, resources=TABLES) == 0
        for n in range(dice.randint(1, 4)):
            live(box, seed + n)
            assert runner.run(
                copy, dice.choice(list(POINTS)), dice.randint(1, 12), resources=TABLES
            ) in (0, -9)
        assert runner.run(copy, resources=TABLES) == 0
        runner.close()
        check(copy)
