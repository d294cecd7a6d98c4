"""Two workers without a common disk, one dataset of one Postgres database: they take turns, and
whoever dies holds nobody up.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from stripe_feed.destination.lease import hold_lease
from stripe_feed.destination.pipeline import open_pipeline
from stripe_feed.errors import Locked, SetupError, TryLater
from stripe_feed.sandbox import Sandbox
from tests.copies import FAST, PostgresCopy
from tests.core import CORE_TABLES
from tests.postgres import postgres_server

NAMES_THE_OTHER = (
    rf"(`stripe-feed sync` \(process \d+ on {re.escape(socket.gethostname())}, since [\d-]+ [\d:]+ UTC\)|The database session \d+) "
    r"is writing to this copy\. Run again when it is done; sync and reconcile can wait for it with --wait SECONDS\."
)
SOME = ("customers", "subscriptions")
DIED = (-9, -14)
POINTS = (
    "changes were handed to dlt",
    "between packages",
    "the package is extracted",
    "before normalize",
    "in normalize",
    "the destination's tables are there",
    "merged",
    "all jobs done",
    "the load is noted",
    "the package is complete",
)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def database(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", server)
    ask(server, "drop schema if exists stripe cascade")
    return server


def ask(url: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(query, values or None)
        found = cursor.fetchall() if cursor.description else []
    connection.close()
    return found


def copy_in(folder: str, dataset: str = "stripe") -> Any:
    return open_pipeline(None, "postgres", dataset, folder)


def test_one_at_a_time_holds_a_dataset(database: str) -> None:
    """From whatever folder; another dataset is free, and so is this one when the holder is done."""
    one, other = copy_in("a"), copy_in("b")
    with hold_lease(one, "stripe-feed sync", 0) as holds:
        holds()
        with (
            pytest.raises(Locked, match=f"^{NAMES_THE_OTHER}$") as raised,
            hold_lease(other, "stripe-feed reconcile", 0),
        ):
            pass
        assert f"(process {os.getpid()} on" in str(raised.value)
        with hold_lease(copy_in("b", "second"), "stripe-feed sync", 0):
            holds()
    with hold_lease(other, "stripe-feed sync", 0):
        pass


def test_a_lease_that_is_lost_is_noticed_before_a_load(database: str) -> None:
    """The server was restarted, or closed the connection: somebody else can hold it by now."""
    with hold_lease(copy_in("a"), "stripe-feed sync", 0) as holds:
        ((count,),) = ask(
            database,
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like %s",
            "stripe-feed sync@%",
        )
        assert count == 1
        with pytest.raises(
            TryLater, match=r"holds the lock on the dataset\. Nothing is lost: run again\."
        ):
            holds()
        with hold_lease(copy_in("b"), "stripe-feed sync", 0) as held:
            held()


def test_what_a_killed_worker_had_sent_is_waited_for(database: str) -> None:
    """Its lease is free at once, but the server may still be writing for it."""
    ask(database, "create schema stripe; create table stripe.customers (id text)")
    with ExitStack() as held:
        zombie = held.enter_context(psycopg2.connect(database))
        zombie.cursor().execute("insert into stripe.customers values ('cus_1')")
        with (
            pytest.raises(Locked, match=f"^{NAMES_THE_OTHER}$"),
            hold_lease(copy_in("a"), "stripe-feed sync", 0),
        ):
            pass
        zombie.rollback()
        with hold_lease(copy_in("a"), "stripe-feed sync", 0):
            pass


def test_a_sync_does_not_begin_before_its_turn(tmp_path: Path, database: str) -> None:
    """Whoever holds the dataset is named, and no list is asked for."""
    box = Sandbox(seed=3, customers=1, oddities=False)
    with box.serve() as url, hold_lease(copy_in("a"), "stripe-feed sync", 0):
        copy = PostgresCopy(box, url, tmp_path)
        with pytest.raises(Locked, match=f"^{NAMES_THE_OTHER}$"):
            copy.sync(resources=["customers"], wait=0)
    assert "/v1/customers" not in {path for path, _ in box.counts}


def test_a_copy_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", "postgresql://u:canary@127.0.0.1:1/x")
    with (
        pytest.raises(SetupError, match="Cannot connect to postgres") as raised,
        hold_lease(copy_in("a"), "stripe-feed sync", 0),
    ):
        pass
    assert "canary" not in str(raised.value)


class Workers:
    """Processes that can be forked cheaply."""

    def __init__(self, copy: PostgresCopy) -> None:
        self.copy = copy
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=copy.folder,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )

    def run(self, *jobs: dict[str, Any]) -> list[tuple[int, str]]:
        """Each in a folder of its own, at the same time."""
        where = {
            "api_key": self.copy.box.key,
            "api_base": self.copy.url,
            "destination": "postgres",
            "resources": SOME,
            **FAST,
        }
        syncs = [
            job | {"sync": where | {"state_dir": f"state{n}", "wait": job["wait"]}}
            for n, job in enumerate(jobs)
        ]
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(syncs) + "\n")
        self.process.stdin.flush()
        return [
            (int(status), str(said)) for status, said in json.loads(self.process.stdout.readline())
        ]


def rounds(
    jobs: list[tuple[dict[str, Any], dict[str, Any]]], folder: Path, database: str, seed: int
) -> list[list[tuple[int, str]]]:
    """Two workers at once, again and again, while the account lives; no row is ever there twice,
    and in the end all are true.
    """
    dice, found = random.Random(seed), []
    box = Sandbox(seed=seed, customers=60, subscriptions=40, invoices=0, oddities=False)
    with box.serve() as url:
        copy = PostgresCopy(box, url, folder)
        workers = Workers(copy)
        try:
            for both in jobs:
                found.append(workers.run(*both))
                assert doubles(database) == {}, both
                for id in dice.sample(sorted(box.objects("customers")), 20):
                    box.update("customers", id, name=f"Changed {dice.random()}")
                for table in ("customers", "subscriptions"):
                    box.create(table)
                box.advance(400)
        finally:
            workers.process.communicate()
        copy.sync(resources=SOME)
        assert doubles(database) == {}
        copy.check(*SOME)
    return found


def doubles(database: str) -> dict[str, int]:
    """How many ids are in a table more than once."""
    tables = {
        name
        for (name,) in ask(
            database,
            "select table_name from information_schema.tables where table_schema = 'stripe'",
        )
    }
    keys = {**dict.fromkeys(CORE_TABLES, "id"), "changes": "change_id"}
    counted = {
        table: ask(database, f"select count(*) - count(distinct {key}) from stripe.{table}")[0][0]
        for table, key in keys.items()
        if table in tables
    }
    return {table: count for table, count in counted.items() if count}


def require_turns(found: list[list[tuple[int, str]]]) -> None:
    for both in found:
        for status, said in both:
            assert status in (0, 3, *DIED), said
            assert status != 3 or re.fullmatch(NAMES_THE_OTHER, said), said


def test_two_workers_take_turns(tmp_path: Path, database: str) -> None:
    """One waits, or one is refused; whoever merges first dies after it, and what it left is loaded
    once.
    """
    found = rounds(
        [
            ({"wait": 60}, {"wait": 0}),
            ({"wait": 60, "point": "merged"}, {"wait": 60, "point": "merged"}),
        ],
        tmp_path,
        database,
        3,
    )
    require_turns(found)
    first, second = ([status for status, _ in both] for both in found)
    assert first in ([0, 3], [0, 0])
    assert -9 in second  # whoever is first; the other may find nothing left to merge


@pytest.mark.long
def test_two_workers_take_turns_for_fifty_rounds(tmp_path: Path, database: str) -> None:
    """With kills at any point, and at any time."""
    dice = random.Random(50)

    def worker() -> dict[str, Any]:
        killed: list[dict[str, Any]] = [
            {},
            {"point": dice.choice(POINTS), "at": dice.randint(1, 4)},
            {"after": dice.uniform(0.05, 4)},
        ]
        return {"wait": dice.choice([0, 60])} | dice.choice(killed)

    found = rounds([(worker(), worker()) for _ in range(50)], tmp_path, database, 7)
    require_turns(found)
    ends = [status for both in found for status, _ in both]
    assert ends.count(3) > 0 and ends.count(0) > 25 and sum(ends.count(died) for died in DIED) > 10
