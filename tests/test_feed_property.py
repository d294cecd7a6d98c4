"""Whatever happens in an account and to the runs that copy it: after a quiet run the tables are
true and the changes complete.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from stripe_feed.extract.events.webhook import WebhookEvent, WebhookHead
from stripe_feed.extract.writer import Writer
from stripe_feed.sandbox import Sandbox
from tests.copies import Copy, PostgresCopy, copy_of, first_copy
from tests.core import CORE
from tests.feed_truth import assert_complete, assert_folds, assert_in_order
from tests.postgres import postgres_server

DAY = 86_400
PIN = "2026-10-28.endive"
VERSIONS = (PIN, "2025-09-30.clover", "2024-06-20", PIN, "2025-02-24.acacia", PIN)
TABLES = (
    ("customers",), ("subscriptions",), ("products",), ("invoices",), ("customers", "products"), ("prices", "plans"),
    ("subscriptions", "prices"), ("invoices", "customers"), tuple(CORE),
)  # fmt: skip
SECONDS = (1, 0, 5, 61, 301, 3_600, 20_000, 2)


class Died(Exception):
    """A run ends here."""


@dataclass(frozen=True)
class Op:
    """Something that happens; `a` and `b` choose to what and how."""

    kind: str
    a: int = 0
    b: int = 0

    def __repr__(self) -> str:
        return f"Op({self.kind!r}, {self.a}, {self.b})"


@dataclass
class World:
    """An account, its copy, and what must be known to judge the copy in the end."""

    copy: Copy
    tables: tuple[str, ...]
    lossy: bool = False  # some events never show: a comparison of the lists must heal
    doubled: bool = False
    late: bool = False
    foreign: bool = (
        False  # events of another shape: the last content of what was deleted may be unknown
    )
    dies_at: int = 0
    requests: int = 0
    ran: int = field(default=0)
    offered: int = 0  # events whose webhooks were sent
    waiting: list[WebhookEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.offered = len(self.box.events)

    @property
    def box(self) -> Sandbox:
        return self.copy.box

    def one(self, table: str, n: int) -> str | None:
        """The id of an object; the newest come first."""
        ids = sorted(
            self.box.objects(table).items(), key=lambda item: (-(item[1]["created"] or 0), item[0])
        )
        return ids[n % len(ids)][0] if ids else None

    def table(self, n: int) -> str:
        return self.tables[n % len(self.tables)]

    def do(self, op: Op) -> None:
        """Let it happen; what Stripe would refuse does not."""
        with contextlib.suppress(ValueError):
            getattr(self, op.kind)(op.a, op.b)

    # -- what happens in the account

    def create(self, a: int, b: int) -> None:
        table = self.table(a)
        drawn: dict[str, dict[str, Any]] = {
            "subscriptions": {"items": (1, 2, 12)[b % 3]},
            "invoices": {"lines": (1, 3, 12)[b % 3], "status": ("draft", "open")[b % 2]},
            "prices": {"recurring": {"interval": "month"}, "unit_amount": 100 * b},
            "products": {"default_price": None},
        }
        self.box.create(table, **drawn.get(table, {}))

    def update(self, a: int, b: int) -> None:
        id = self.one(self.table(a), b)
        if id:
            self.box.update(
                self.table(a),
                id,
                metadata={f"key_{b % 3}": f"value {a}", "n": str(len(self.box.events))},
            )

    def toggle(self, a: int, b: int, seconds: int = 16) -> None:
        """There and back in a second, or there only, or there and back and there.

        Nothing is read in that second, or so shortly before that the row may show what happened
        while the answer came: what was before a round would not be known. Nor is a second step
        taken where events come twice: a twin could not be told from a third.
        """
        field = {
            "customers": "delinquent",
            "products": "active",
            "prices": "active",
            "plans": "active",
        }.get(self.table(a))
        id = self.one(self.table(a), b)
        self.box.advance(seconds)
        for _ in range(1 + b % (1 if self.box.faults.doubled_events else 3) if field and id else 0):
            self.box.update(
                self.table(a),
                str(id),
                **{str(field): not self.box.objects(self.table(a))[str(id)][str(field)]},
            )
        self.box.advance(1)

    def children(self, a: int, b: int) -> None:
        """Other items or lines: fewer, more, more than ten."""
        table, name, parent = (
            ("subscriptions", "items", "subscription"),
            ("invoices", "lines", "invoice"),
        )[a % 2]
        id = self.one(table, b)
        if id and table in self.tables:
            child = {"items": "subscription_items", "lines": "invoice_line_items"}[name]
            held = [one for one, row in self.box.children(child).items() if row[parent] == id]
            kept: list[dict[str, Any]] = [{"id": one} for one in held[b % 3 :]]
            self.box.update(
                table, id, **{name: [*kept, *({} for _ in range((0, 1, 11)[a % 3] if kept else 1))]}
            )

    def cancel(self, a: int, b: int) -> None:
        id = self.one("subscriptions", b)
        if id and "subscriptions" in self.tables:
            self.box.cancel(id)

    def delete(self, a: int, b: int) -> None:
        id = self.one(self.table(a), b)
        if id and self.table(a) != "subscriptions":
            self.box.advance(self.doubled)  # not in the second of a creation that may have a twin
            self.box.delete(self.table(a), id)

    def again(self, a: int, b: int) -> None:
        """What was deleted is created anew under its id, or is deleted and created in one second."""
        gone = sorted(self.box.deleted("products"))
        if gone and b % 2:
            self.box.advance(self.doubled)  # not in the second of a deletion that may have one
            self.box.create("products", id=gone[a % len(gone)], default_price=None)
        else:
            id = self.box.create("products", default_price=None)["id"]
            self.box.advance(self.doubled)
            self.box.delete("products", id)
            if (
                a % 2 and not self.box.stub_deletes
            ):  # bare, nothing tells which of the two lives was the first
                self.box.create("products", id=id, default_price=None)

    def discount(self, a: int, b: int) -> None:
        id = self.one("subscriptions", b)
        if id:
            self.box.update("subscriptions", id, discounts=[f"di_{a}"] if a % 2 else [])

    def burst(self, a: int, b: int) -> None:
        self.box.burst(1 + a, 1 + b % 2)

    def live(self, a: int, b: int) -> None:
        """With whole bodies: of two lives in a second whose end is bare, nothing tells which was
        the first; nor of two whether one is but a twin of the other.
        """
        faults, bare = self.box.faults, self.box.stub_deletes
        doubled, faults.doubled_events, self.box.stub_deletes = faults.doubled_events, 0.0, False
        self.box.live((1, 60, 4_000)[b % 3], 2 + a * 3)
        faults.doubled_events, self.box.stub_deletes = doubled, bare

    def noise(self, a: int, b: int) -> None:
        self.box.noise(3)
        if id := self.one("customers", b):
            self.box.preview(id)

    def advance(self, a: int, b: int) -> None:
        self.box.advance(SECONDS[a % len(SECONDS)])

    def outage(self, a: int, b: int) -> None:
        """More than Stripe remembers."""
        self.lossy = True
        self.box.advance((31, 45, 400)[a % 3] * DAY)

    # -- how it is told

    def delayed(self, a: int, b: int) -> None:
        """Events show late: within the settle time, or well after it."""
        self.box.faults.event_delay = (0, 40, 200)[a % 3]
        self.late = self.late or a % 3 == 2

    def doubles(self, a: int, b: int) -> None:
        self.box.faults.doubled_events = (0.3, 0.0)[a % 2]
        self.doubled = True

    def loses(self, a: int, b: int) -> None:
        self.box.faults.lost_events = (0.3, 0.0)[a % 2]
        self.lossy = True

    def version(self, a: int, b: int) -> None:
        self.box.api_version = VERSIONS[a % len(VERSIONS)]
        self.foreign = self.foreign or self.box.api_version != PIN

    def stubs(self, a: int, b: int) -> None:
        self.box.stub_deletes = a % 2 == 0

    # -- what happens to runs

    def faulty(self, a: int, b: int) -> None:
        """The next run meets broken answers."""
        setattr(
            self.box.faults, ("reset", "truncate", "short")[a % 3], 0.15 if a % 3 == 2 else 0.04
        )

    def meanwhile(self, a: int, b: int) -> None:
        """The account lives on while the next run reads."""
        deeds = (
            self.update,
            self.delete,
            self.create,
            self.burst,
            lambda a, b: self.toggle(a, b - b % 6, 1),
        )  # there only

        def live(template: str, params: Any) -> None:
            self.requests += 1
            if self.requests % (2 + a % 3) == 0:
                with contextlib.suppress(ValueError):
                    deeds[(a + self.requests) % len(deeds)](a, b)
                if self.requests % 5 == 0:
                    self.box.advance(b % 3)

        self.box.on_request = live

    def dies(self, a: int, b: int) -> None:
        """The next run ends at its n-th table."""
        self.dies_at = 1 + a

    def sync(self, a: int, b: int, **options: Any) -> None:
        self.ran += 1
        try:
            with dying(self.dies_at):
                self.copy.sync(
                    resources=self.tables,
                    **({"checkpoint_rows": 3} if b % 3 == 1 else {}),
                    **options,
                )
        except Died:
            pass
        self.calm()

    def rings(self, a: int, b: int) -> None:
        """Webhooks come in any order, over runs, doubled or never, and are read; every second time,
        polling too.
        """
        dice, known = random.Random(8 * a + b), self.offered
        self.offered = len(self.box.events)
        self.waiting += [
            WebhookEvent(
                event.id, head=WebhookHead(event.type, event.created) if a % 4 else WebhookHead()
            )
            for event in self.box.events[known:]
            if dice.random() < 0.8
            for _ in range(dice.choice((1, 1, 2)))
        ]
        dice.shuffle(self.waiting)
        half = len(self.waiting) // 2 + 1
        rung, self.waiting = self.waiting[:half], self.waiting[half:]
        self.late = True
        self.sync(a, b, webhook_events=rung, polls=bool(b % 2))

    def calm(self) -> None:
        """Faults of a run end with it."""
        faults = self.box.faults
        faults.reset = faults.truncate = faults.short = 0.0
        self.box.on_request, self.dies_at = None, 0

    def settle(self) -> None:
        """Nothing happens any more, all is visible and old enough, and the copy is brought up to
        date.
        """
        self.calm()
        self.box.faults.event_delay = self.box.faults.lost_events = (
            self.box.faults.doubled_events
        ) = 0
        self.box.advance(700)
        self.copy.sync(resources=self.tables, reconcile=self.lossy)

    def judge(self) -> None:
        """The tables are true, field by field, children too; and no change is missing, doubled or
        out of order.
        """
        self.copy.check(
            *self.tables,
            volatile=False,
            last=not self.lossy and not self.foreign,
            found_later=self.lossy,
        )
        if not self.lossy:
            assert_complete(self.copy, self.tables, late=self.late or self.doubled or self.foreign)
            if not self.doubled:
                assert_in_order(self.copy)
        assert_folds(self.copy, self.tables)


@contextlib.contextmanager
def dying(at: int) -> Iterator[None]:
    """A run ends when it hands its `at`-th tables to dlt."""
    if not at:
        yield
        return
    left = [at]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Died
            return real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("rows", "changes"):
            patch.setattr(Writer, name, counted(getattr(Writer, name)))
        try:
            yield
        except Exception as fault:
            if left[0] <= 0:
                raise Died from fault
            raise


COMMON = (
    "update",
    "update",
    "update",
    "create",
    "delete",
    "toggle",
    "children",
    "cancel",
    "advance",
    "advance",
    "burst",
)
RARE = (
    "again",
    "discount",
    "live",
    "noise",
    "delayed",
    "doubles",
    "version",
    "stubs",
    "faulty",
    "meanwhile",
    "dies",
)
SMALL = st.integers(0, 7)
HAPPENING = st.builds(Op, st.sampled_from(COMMON) | st.sampled_from(RARE), SMALL, SMALL)
LOSING = st.builds(Op, st.sampled_from(("loses", "outage", "loses")), SMALL)
SYNC = st.builds(Op, st.just("sync"), SMALL, SMALL)


RINGS = st.builds(Op, st.sampled_from(("rings", "rings", "sync")), SMALL, SMALL)


@st.composite
def histories(
    draw: st.DrawFn, most: int = 30, runs: int = 2, run: st.SearchStrategy[Op] = SYNC
) -> list[Op]:
    """What happens, with a few runs in between; in every fourth, events are lost."""
    size = most // (runs + 1)
    parts = draw(
        st.lists(
            st.lists(HAPPENING, min_size=size, max_size=size), min_size=runs + 1, max_size=runs + 1
        )
    )
    found = [op for part in parts[:-1] for op in [*part, draw(run)]] + parts[-1]
    if draw(st.integers(0, 3)) == 0:
        found.insert(draw(st.integers(0, len(found))), draw(LOSING))
    return found


def account() -> Sandbox:
    box = Sandbox(seed=9, customers=5, oddities=False)
    box.advance(DAY)
    return box


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database after a first sync of the account."""
    return first_copy(account(), tmp_path_factory.mktemp("loaded"))


def play(history: list[Op], tables: tuple[str, ...], loaded: Path) -> None:
    """Let it all happen, and judge the copy."""
    with tempfile.TemporaryDirectory() as folder, copy_of(account(), Path(folder)) as copy:
        shutil.copy(loaded, copy.folder / copy.database)
        act(World(copy, tables), history)


def act(world: World, history: list[Op]) -> None:
    for op in history:
        world.do(op)
    world.settle()
    world.judge()


Test = Callable[..., None]
QUIETLY: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


def shares(count: int) -> pytest.MarkDecorator:
    """As many shares of a random test, the first of which is enough for `make test`."""
    return pytest.mark.parametrize(
        "share", [0, *(pytest.param(n, marks=pytest.mark.broad) for n in range(1, count))]
    )


def a_share(share: int, size: int) -> Callable[[Test], Test]:
    """So many examples, the same in each run. None is shrunk: by hand that takes less time."""
    quietly = settings(max_examples=size, phases=[Phase.generate], **QUIETLY)

    def decorated(test: Test) -> Test:
        return seed(share)(quietly(test))

    return decorated


@shares(21)
def test_whatever_happens_the_copy_becomes_true(loaded: Path, share: int) -> None:
    """Creations, updates, cancellations, deletions, bursts within a second; events late, doubled,
    lost, of another version; changes while pages are read, faults, and runs that die.
    """

    @a_share(share, 2 if share else 1)
    @given(history=histories() if share else histories(12, 3), tables=st.sampled_from(TABLES[:6]))
    def every(history: list[Op], tables: tuple[str, ...]) -> None:
        play(history, tables, loaded)

    every()


@pytest.mark.long
@settings(max_examples=500, print_blob=True, **QUIETLY)
@given(history=histories(100, 5), tables=st.sampled_from(TABLES))
def test_whatever_happens_the_copy_becomes_true_in_many_more_cases(
    loaded: Path, history: list[Op], tables: tuple[str, ...]
) -> None:
    """The same with new and longer cases each time."""
    play(history, tables, loaded)


@shares(5)
def test_webhooks_in_any_order_lead_to_the_same(loaded: Path, share: int) -> None:
    """The same where webhooks come in any order, minutes apart, doubled or never, between polls and
    kills: what is not `late` is told in order, and the changes end where Stripe is.
    """

    size = (30, 5) if share else (12, 2)

    @a_share(share, 1)
    @given(history=histories(*size, RINGS), tables=st.sampled_from(TABLES[:6]))
    def every(history: list[Op], tables: tuple[str, ...]) -> None:
        play(history, tables, loaded)

    every()


@pytest.mark.long
@settings(max_examples=300, print_blob=True, **QUIETLY)
@given(history=histories(60, 10, RINGS), tables=st.sampled_from(TABLES))
def test_webhooks_in_any_order_lead_to_the_same_in_many_more_cases(
    loaded: Path, history: list[Op], tables: tuple[str, ...]
) -> None:
    """The same with new and longer cases each time."""
    play(history, tables, loaded)


# -- on Postgres
# ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


ON_POSTGRES: tuple[tuple[tuple[str, ...], list[Op]], ...] = (
    (("customers", "products"), [
        Op("update", 0, 1), Op("stubs"), Op("delete", 0, 2), Op("again", 1, 0), Op("toggle", 1, 2), Op("sync"), Op("doubles"),
        Op("update", 0, 1), Op("burst", 5), Op("delayed", 2), Op("update", 0, 1), Op("sync"), Op("again", 0, 1), Op("advance", 4),
    ]),
    (("subscriptions", "prices"), [
        Op("create", 0, 2), Op("children", 0, 1), Op("advance", 3), Op("sync"), Op("version", 1), Op("children", 2, 0),
        Op("cancel", 0, 1), Op("dies", 1), Op("sync"), Op("update", 1, 3), Op("discount", 1, 0), Op("loses"), Op("children", 4, 0),
    ]),
    (("invoices",), [
        Op("create", 0, 2), Op("create", 0, 0), Op("advance", 5), Op("meanwhile", 0, 1), Op("sync"), Op("delete", 0, 0),
        Op("children", 1, 0), Op("live", 3, 1), Op("outage"),
    ]),
)  # fmt: skip


@pytest.mark.parametrize(
    ("tables", "history"), ON_POSTGRES, ids=[" ".join(tables) for tables, _ in ON_POSTGRES]
)
def test_the_same_on_postgres(
    postgres: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tables: tuple[str, ...],
    history: list[Op],
) -> None:
    """A few histories, from the first load on."""
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres)
    box = account()
    with box.serve() as url:
        copy = PostgresCopy(box, url, tmp_path)
        copy.sync(resources=tables)
        act(World(copy, tables), history)
        with copy.pipeline.sql_client() as client:
            client.execute_sql("drop schema stripe cascade")
