"""Runs over resources of every way of reading that are killed, meet faults or cannot load a package:
the next one that ends leaves the tables as the account is, and the log as it happened.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from dlt.destinations.exceptions import DatabaseTerminalException
from dlt.destinations.job_client_impl import SqlLoadJob

from stripe_feed.extract.dependents import sublists
from stripe_feed.extract.paging import reader
from stripe_feed.resources import RESOURCES
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.protocol.faults import Always
from tests.copies import Copy, PostgresCopy
from tests.crash import POINTS
from tests.group_life import WAYS, account, assert_equal, live
from tests.postgres import postgres_server
from tests.test_crash import Runner
from tests.truth import kind_of

FAULTS: tuple[Always, ...] = (429, 500, "reset", "truncate", "malformed", "lock_timeout")
IN_THREADS = (
    "a page was asked for",
    "a page was read",
    "a page of events was read",
    "a file is ready to be merged",
    "about to be merged",
    "merged",
)
IN_PROCESS = [
    point for point, (_, _, when) in POINTS.items() if when != "half" and point not in IN_THREADS
]
"""Where an exception ends the run as a kill does. In other threads it only ends the thread."""


class Died(Exception):
    """A run ends here."""


@contextmanager
def dying(point: str, at: int) -> Iterator[None]:
    """The run ends when it reaches a point of `crash.py` for the `at`-th time."""
    holder, name, when = POINTS[point]
    real, count = getattr(holder, name), itertools.count(1)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        reached = next(count) == at
        if reached and when == "before":
            raise Died
        result = real(*args, **kwargs)
        if reached:
            raise Died
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holder, name, wrapped)
        yield


@contextmanager
def failing(at: int) -> Iterator[None]:
    """The destination refuses the `at`-th merge of the run."""
    real, count = SqlLoadJob.run, itertools.count(1)

    def run(job: Any) -> None:
        if next(count) == at:
            raise DatabaseTerminalException(ValueError("the destination refuses it"))
        real(job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqlLoadJob, "run", run)
        yield


def break_answers(box: Sandbox, dice: random.Random) -> None:
    """The next answers of some paths are faults."""
    paths = sorted({path for path, _ in box.counts})
    for path in dice.sample(paths, min(4, len(paths))):
        box.faults.once[path] = [dice.choice((*FAULTS, None)) for _ in range(dice.randint(1, 3))]


def in_small_steps(patch: pytest.MonkeyPatch) -> None:
    """Several batches per package, so that a small account has every state in between."""
    patch.setattr(reader, "MAX_TABLE_ROWS", 4)
    patch.setattr(sublists, "SWEEP_BATCH", 2)
    patch.setattr(sublists, "PACKAGE_PARENTS", 2)


def run_badly(copy: Copy, tables: tuple[str, ...], dice: random.Random) -> bool:
    """A run with faults that is ended, or not; return whether it came to its end."""
    options: dict[str, Any] = {"resources": tables, "checkpoint_rows": dice.choice((3, 8, 1000))}
    break_answers(copy.box, dice)
    how = dice.choice(("dies", "dies", "fails", "outage", "faults"))
    try:
        if how == "dies":
            with dying(dice.choice(IN_PROCESS), dice.randint(1, 6)):
                copy.sync(**options)
        elif how == "fails":
            with failing(dice.randint(1, 4)):
                copy.sync(**options)
        elif how == "outage":
            copy.box.faults.always[_list_path(dice.choice(tables))] = 500
            copy.sync(**options, give_up_after=0.05)
        else:
            copy.sync(**options)
    except Exception:
        ended = False
    else:
        ended = True
    copy.box.faults.always.clear()
    copy.box.faults.once.clear()
    return ended


def _list_path(table: str) -> str:
    row = RESOURCES[table]
    return (row.path or RESOURCES[row.holders[0].resource].path).replace("{id}", ":id")


def settle(copy: Copy, tables: tuple[str, ...]) -> None:
    """All is old enough to be seen, and what is read once a day is due."""
    copy.box.advance(700)
    copy.sync(resources=tables, relist_hours=0)


def play(copy: Copy, tables: tuple[str, ...], dice: random.Random, runs: int) -> None:
    """A first load, which may be killed too, and runs while the account lives on."""
    whole_at = 0
    for _ in range(runs):
        if run_badly(copy, tables, dice):
            whole_at = whole_at or copy.box.now
        live(copy.box, tables, dice, dice.randint(3, 12))
    settle(copy, tables)
    assert_equal(copy, tables, whole_at or copy.box.now)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 10))]
)
@pytest.mark.parametrize("way", WAYS)
def test_runs_that_end_badly_leave_no_trace(
    way: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, so that it costs little: an exception ends them."""
    in_small_steps(monkeypatch)
    dice, box = random.Random(f"{way} {seed}"), account(seed, WAYS[way])
    with box.serve() as url:
        play(Copy(box, url, tmp_path), WAYS[way], dice, runs=2)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    found = Runner()
    yield found
    found.close()


SEEDS = [
    pytest.param(seed, marks=pytest.mark.broad if seed < 4 else pytest.mark.long)
    for seed in range(220)
]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_kills(runner: Runner, tmp_path: Path, seed: int) -> None:
    """Processes that are killed anywhere, with broken answers before and after."""
    dice = random.Random(f"kills {seed}")
    tables = WAYS[list(WAYS)[seed % len(WAYS)]]
    box = account(seed, tables)
    with box.serve() as url:
        copy, whole_at = Copy(box, url, tmp_path), 0
        for _ in range(dice.randint(2, 4)):
            break_answers(box, dice)
            steps = {"batch": dice.choice((2, 4)), "package": dice.choice((3, 8, 1000))}
            point = dice.choice(list(POINTS))
            status = runner.run(copy, point, dice.randint(1, 12), steps, resources=tables)
            assert status in (0, -9)
            whole_at = whole_at or (0 if status else box.now)
            box.faults.once.clear()
            live(box, tables, dice, dice.randint(3, 12))
        settle(copy, tables)
        assert_equal(copy, tables, whole_at or box.now)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.mark.broad
@pytest.mark.parametrize("way", WAYS)
def test_the_same_on_postgres(
    way: str, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list without objects has no table there."""
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres)
    in_small_steps(monkeypatch)
    dice, box = random.Random(f"postgres {way}"), account(5, WAYS[way])
    with box.serve() as url:
        copy = PostgresCopy(box, url, tmp_path)
        tables = tuple(
            name for name in WAYS[way] if not RESOURCES[name].path or box.objects(kind_of(name))
        )
        try:
            play(copy, tables, dice, runs=2)
        finally:
            with copy.pipeline.sql_client() as client:
                client.execute_sql("drop schema if exists stripe cascade")
