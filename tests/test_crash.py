"""A killed run loses nothing, doubles nothing and costs at most the package under way."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import duckdb
import msgspec
import pytest

from stripe_feed.extract.paging import reader
from stripe_feed.resources import RESOURCES
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.protocol.messages import Answer, Request
from tests.chosen import chosen
from tests.copies import FAST, Copy
from tests.crash import BATCH_ROWS, PACKAGE_ROWS, POINTS, THREADS
from tests.forker import Forker

PATHS = {row.path: row.table for row in RESOURCES.values()}


class Watched(Sandbox):
    """A sandbox that notes which ids of which table it has sent."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.sent: Counter[tuple[str, str]] = Counter()

    def answer(self, request: Request) -> Answer:
        found = super().answer(request)
        table = PATHS.get(request.target.partition("?")[0])
        if table and found.status == 200:
            self.sent.update(
                (table, one.id) for one in msgspec.json.decode(found.body, type=_Page).data
            )
        return found


class _Id(msgspec.Struct):
    id: str


class _Page(msgspec.Struct):
    data: list[_Id]


class Runner:
    """The process that forks the runs."""

    def __init__(self) -> None:
        self.forker = Forker("crash.py")
        self.close = self.forker.close

    def run(
        self,
        copy: Copy,
        point: str | None = None,
        at: int = 1,
        steps: Mapping[str, int] | None = None,
        **options: Any,
    ) -> int:
        """Sync; return the exit status. `steps`: the sizes of batches and packages."""
        files = {
            "database": str(copy.folder / copy.database),
            "state_dir": str(copy.folder / copy.state),
        }
        arguments = {"api_key": copy.box.key, "api_base": copy.url} | files | FAST | options
        return self.sync(point, at, steps=steps, **arguments)

    def sync(
        self,
        point: str | None,
        at: int,
        environment: Mapping[str, str] | None = None,
        steps: Mapping[str, int] | None = None,
        **arguments: Any,
    ) -> int:
        """Sync with these arguments, in this environment; return the exit status."""
        job: dict[str, Any] = {"point": point, "at": at, "sync": arguments}
        job |= {"environment": environment or {}, **(steps or {})}
        return self.forker.run(job)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    found = Runner()
    yield found
    found.close()


def loaded(file: Path) -> set[tuple[str, str]]:
    """Table and id of every row that a complete package has brought."""
    if not file.exists():
        return set()
    done = "_dlt_load_id in (select load_id from stripe._dlt_loads where status = 0)"
    with closing(duckdb.connect(str(file), read_only=True)) as base:
        query = "select table_name from duckdb_tables() where schema_name = 'stripe'"
        names = {name for (name,) in base.execute(query).fetchall()}
        tables = [table for table in RESOURCES if {table, "_dlt_loads"} <= names]
        return {
            (t, id)
            for t in tables
            for (id,) in base.execute(f"select id from stripe.{t} where {done}").fetchall()
        }


@dataclass(frozen=True)
class Kill:
    """Where a run is killed: a point of `crash.py`, and which time it is reached.

    `later`: not the first load. `then`: the account moves on before the next run.
    """

    point: str
    at: int = 1
    later: bool = False
    then: bool = False

    def __str__(self) -> str:
        return f"{self.point} {self.at}{' later' * self.later}".replace(" ", "-")


@dataclass(frozen=True)
class Outcome:
    """What a killed run and the one after it did."""

    copy: Copy
    statuses: list[int]
    held: set[tuple[str, str]]
    before: Counter[tuple[str, str]]
    after: Counter[tuple[str, str]]


TABLES = (
    "prices",
    "subscriptions",
)  # with `subscription_items`: all there is to a merge, in few tables
KILLS = (
    Kill("a page was read", 4),
    Kill("rows were handed to dlt", 3),
    Kill("between packages", 1, then=True),
    Kill("the package is extracted", 1),
    Kill("the package is extracted", 2),
    Kill("in normalize", 2),
    Kill("normalized twice", 2),
    Kill("the destination's tables are there", 1),
    Kill("a file is ready to be merged", 3, later=True),
    Kill("merged", 1, later=True),
    Kill("about to be merged", 2, later=True),
    Kill("all jobs done", 2),
    Kill("the load is noted", 1),
    Kill("the local state is half gone", 1, later=True),
)


def account() -> Watched:
    """Some 500 rows: lists that are cut, prices that no list shows, what is new within the
    look-back.
    """
    box = Watched(seed=5, customers=40, subscriptions=140, products=25)
    box.create("subscriptions", items=25)
    box.create("subscriptions", items=[{"price_data": {"unit_amount": 42}}, {}])
    box.advance(100)
    return box


def change(box: Sandbox) -> None:
    """What the next run sees: items that vanish, stay and come, a list that grows beyond ten; and
    what is new.
    """
    young = [
        id
        for id, found in box.objects("subscriptions").items()
        if found["created"] >= box.now - 100
    ]
    for id in young:
        items = [
            found["id"]
            for found in box.children("subscription_items").values()
            if found["subscription"] == id
        ]
        box.update(
            "subscriptions",
            id,
            items=[{"id": items[-1], "quantity": 77}, *[{}] * (30 - len(items))],
        )
    for _ in range(30):
        box.create("subscriptions", items=2)
    box.create("prices", currency="eur", unit_amount=1, recurring={"interval": "month"})
    box.advance(50)


def killed(
    runner: Runner,
    kill: Kill,
    folder: Path,
    box: Watched,
    tables: Sequence[str] = TABLES,
    package: int = PACKAGE_ROWS,
) -> Outcome:
    """Kill a run and let another one finish, whose packages are of this size."""
    with box.serve() as url:
        copy = Copy(box, url, folder)
        statuses = []
        if kill.later:
            statuses.append(runner.run(copy, resources=tables))
            change(box)
            box.sent.clear()
        statuses.append(runner.run(copy, kill.point, kill.at, resources=tables))
        held = loaded(folder / copy.database)
        before, box.sent = box.sent, Counter()
        if kill.then:
            change(box)
        statuses.append(runner.run(copy, resources=tables, steps={"package": package}))
    return Outcome(copy, statuses, held, before, box.sent)


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, runner: Runner
) -> Iterator[dict[Kill, Future[Outcome]]]:
    """All kills that are asked for, two at a time if there are many."""
    kills, runners = chosen(request, "kill"), SimpleQueue[Runner]()
    both = [runner, *([Runner()] if len(kills) > 2 else [])]
    for one in both:
        runners.put(one)

    def work(kill: Kill) -> Outcome:
        one = runners.get()
        try:
            return killed(one, kill, tmp_path_factory.mktemp("crash"), account())
        finally:
            runners.put(one)

    with ThreadPoolExecutor(len(both)) as pool:
        yield {kill: pool.submit(work, kill) for kill in kills}
    for one in both[1:]:
        one.close()


@pytest.mark.parametrize("kill", KILLS, ids=str)
def test_a_killed_run_goes_on(outcomes: dict[Kill, Future[Outcome]], kill: Kill) -> None:
    """Killed at a named point and run again: the tables equal the truth, and what was loaded is not
    read again.
    """
    done = outcomes[kill].result()
    assert done.statuses == [0] * kill.later + [-9, 0]
    done.copy.check(*TABLES)
    again = [id for table, id in done.held & set(done.after) if table == "subscriptions"]
    assert len(again) <= 3 or kill.later  # a second may be cut, and the look-back is read again


def test_a_package_with_a_table_that_dlt_has_not_noted_is_read_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Killed when it was extracted: dlt would fail on it for ever. It is not even tried."""
    box = account()
    runner = Runner()
    with box.serve() as url:
        copy = Copy(box, url, tmp_path)
        statuses = [
            runner.run(copy, resources=["customers"]),
            runner.run(copy, "the package is extracted", 1, resources=TABLES),
            runner.run(copy, resources=["customers", *TABLES]),
        ]
        runner.close()
        copy.check("customers", *TABLES)
    assert statuses == [0, -9, 0]
    assert "cannot be loaded" not in capfd.readouterr().err


def test_at_most_one_package_is_read_again(runner: Runner, tmp_path: Path) -> None:
    """Killed in the third package: the two before it stay, and of the rows that were read not many
    more than one package's are read again.
    """
    box = Watched(seed=6, customers=1400)
    done = killed(runner, Kill("a page was read", 11), tmp_path, box, ["customers"], 5_000)
    assert done.statuses == [-9, 0]
    done.copy.check("customers")
    again = done.before & done.after
    assert len(done.held) >= PACKAGE_ROWS
    assert again.total() <= PACKAGE_ROWS + 4 * BATCH_ROWS + THREADS * 100


@pytest.mark.parametrize("start", [None, 1_600_000_000], ids=["cursor", "range"])
def test_a_run_in_packages_reads_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: int | None
) -> None:
    """Each package goes on where the one before it ended, and what is finished is not asked for
    again.
    """
    monkeypatch.setattr(reader, "MAX_TABLE_ROWS", BATCH_ROWS)
    box = Watched(seed=5, customers=300, subscriptions=140, products=25)
    with box.serve() as url:
        copy = Copy(box, url, tmp_path)
        period = {"start_date": start, "end_date": box.now} if start else {}
        done = copy.sync(resources=["customers", *TABLES], checkpoint_rows=PACKAGE_ROWS, **period)
        copy.check("customers", *TABLES, since=start)
    assert done.packages >= 3
    assert box.sent.total() < 1.3 * len(
        box.sent
    )  # windows that are split after they were asked for overlap
    assert box.counts["/v1/customers", 200] <= 6


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100))
def test_random_kills(runner: Runner, tmp_path: Path, seed: int) -> None:
    """Up to four runs of all tables killed at random, the account moving on in between, then one
    that ends.
    """
    dice = random.Random(seed)
    box = Watched(seed=seed, customers=40, subscriptions=60, invoices=40, products=8)
    box.create("invoices", lines=25)
    box.advance(100)
    with box.serve() as url:
        copy = Copy(box, url, tmp_path)
        if dice.random() < 0.3:
            assert runner.run(copy) == 0
        for _ in range(dice.randint(1, 4)):
            assert runner.run(copy, dice.choice(list(POINTS)), dice.randint(1, 12)) in (0, -9)
            if dice.random() < 0.6:
                change(box)
        assert runner.run(copy) == 0
        copy.check()
