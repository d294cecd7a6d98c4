"""The whole pager, threads included, over a list that changes while it is read: nothing lost,
nothing invented, nothing twice.
"""

from __future__ import annotations

import heapq
import json
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stripe_feed.api.rate_limits import RateLimiter
from stripe_feed.errors import CursorGone
from stripe_feed.extract.paging import reader as paging_reader
from stripe_feed.extract.paging.reader import Listing, ListPage
from stripe_feed.extract.paging.windows import (
    MAX_EMPTY_PAGES,
    MAX_REFUSED_CURSORS,
    Accepted,
    PageRequest,
    Planner,
    Range,
    RowKey,
    subtract,
)
from tests.endpoint import Endpoint, Tokens, read, reader_of

BORN = 1_600_000_000  # when the account was made
SPAN = 2_000  # seconds until `T0`
T0 = BORN + SPAN
OLDEST = BORN - 500  # of what was imported


@dataclass(frozen=True)
class Case:
    """An account, how it is read, and what happens meanwhile; chances are per request."""

    created: tuple[int | None, ...]  # relative to `BORN`
    size: int = 3  # rows per page
    threads: int = 4
    batch: int = 10  # rows per batch
    seed: int = 0
    created_meanwhile: float = 0.0
    deleted_meanwhile: float = 0.0
    cursor_deleted: float = 0.0
    cursor_refused: float = 0.0
    short_pages: float = 0.0
    empty_pages: float = 0.0
    late: float = 0.0  # the answer arrives after the next one
    kills: tuple[int, ...] = ()  # each after so many batches


@dataclass
class Changing:
    """The endpoint of a case: it changes with each request, and misbehaves as Stripe may."""

    case: Case
    endpoint: Endpoint = field(init=False)
    dice: Random = field(init=False)
    turn: threading.Condition = field(default_factory=threading.Condition)
    empties: int = 0
    faults: int = 0  # of cursors
    waits: int = 0

    def __post_init__(self) -> None:
        self.endpoint = Endpoint(
            [None if at is None else BORN + at for at in self.case.created], self.case.size
        )
        self.dice = Random(self.case.seed)

    def fetch(self, walk: int, ask: PageRequest) -> ListPage[str]:
        with self.turn:
            self.live(ask)
            heads, has_more = self.answer(ask)
            self.turn.notify_all()
            if self.case.threads > 1 and self.waits < 40 and self.dice.random() < self.case.late:
                self.waits += 1
                self.turn.wait(
                    0.002
                    # meanwhile another request may cut this window; nobody else may come, so not for
                    # ever
                )
            return ListPage({head.id: head.id for head in heads}, heads, has_more, len(heads), T0)

    def live(self, ask: PageRequest) -> None:
        """Objects come, now and in the past, and go; above all the one that is to be gone on from."""
        endpoint, dice = self.endpoint, self.dice
        if dice.random() < self.case.created_meanwhile:
            endpoint.add(
                dice.choice([T0, T0 + 5, dice.randrange(OLDEST, T0), ask.window.position, None])
            )
        if dice.random() < self.case.deleted_meanwhile and endpoint.keys:
            endpoint.delete(dice.choice(list(endpoint.keys)))
        if (
            ask.cursor in endpoint.keys
            and self.faults < MAX_REFUSED_CURSORS
            and dice.random() < self.case.cursor_deleted
        ):
            self.faults += 1
            endpoint.delete(str(ask.cursor))

    def answer(self, ask: PageRequest) -> tuple[list[RowKey], bool]:
        if (
            ask.cursor
            and self.faults < MAX_REFUSED_CURSORS
            and self.dice.random() < self.case.cursor_refused
        ):
            self.faults += 1
            raise CursorGone("no longer in the list", "resource_missing", "starting_after")
        heads, has_more = self.endpoint.page(ask)
        if heads and self.dice.random() < self.case.short_pages:
            kept = self.dice.randrange(1, len(heads) + 1)
            heads, has_more = heads[:kept], has_more or kept < len(heads)
        if (
            heads
            and self.empties < MAX_EMPTY_PAGES - 3
            and self.dice.random() < self.case.empty_pages
        ):
            self.empties += 1
            heads, has_more = [], True
        return heads, has_more


class Watched(Planner):
    """A planner that checks after each page that its windows are what is left to deliver."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        super().__init__(ranges)
        self.left = list(ranges)

    def record_page(self, ask: PageRequest, heads: Sequence[RowKey], has_more: bool) -> Accepted:
        took = super().record_page(ask, heads, has_more)
        before, self.left = self.left, subtract(self.left, took.covered)
        held = [(window.lo, window.covered) for window in self.windows]
        assert length(before) - length(self.left) == took.covered[1] - took.covered[0], (
            "covered twice, or what was never asked for"
        )
        assert joined(held) == joined(self.left), "the windows are not what is left"
        assert length(held) == length(self.left), "windows overlap"
        return took


def length(ranges: Iterable[Range]) -> int:
    return sum(hi - lo for lo, hi in ranges)


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Ranges in order, neighbours joined."""
    found: list[Range] = []
    for lo, hi in sorted(r for r in ranges if r[0] < r[1]):
        if found and found[-1][1] >= lo:
            found[-1] = (found[-1][0], max(hi, found[-1][1]))
        else:
            found.append((lo, hi))
    return found


@dataclass
class Outcome:
    """What was yielded before each kill and to the end, and the largest state on the way."""

    rows: list[str] = field(default_factory=list)
    most_ranges: int = 0
    most_bytes: int = 0


def read_through(case: Case, changing: Changing) -> Outcome:
    """Read in batches; at each kill everything but what was yielded is forgotten, and reading
    resumes from the state.
    """
    left: list[Range] = [(BORN, T0), (0, BORN)]
    outcome = Outcome()
    for kill in [*case.kills, None]:
        listing: Listing[str] = Listing(
            "customers", "/v1/customers", changing.fetch, [Watched(left)]
        )
        reader = reader_of(Tokens(case.threads))
        reader.open(listing)
        try:
            for batch, parts in enumerate(read(reader, listing)):
                if batch == kill:
                    break
                for part in parts:
                    left = subtract(left, part.covered)
                    outcome.rows += part.rows
                outcome.most_ranges = max(outcome.most_ranges, len(left))
                outcome.most_bytes = max(
                    outcome.most_bytes, len(json.dumps({"t0": T0, "left": [left], "start": 0}))
                )
        finally:
            reader.close()
            for thread in reader._threads:
                thread.join(20)
    assert left == []
    return outcome


def check(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing lost, nothing invented; without kills also nothing twice; the state stays small."""
    monkeypatch.setattr(paging_reader, "MAX_TABLE_ROWS", case.batch)
    changing = Changing(case)
    before = changing.endpoint.within(0, T0)
    outcome = read_through(case, changing)
    throughout = before & set(changing.endpoint.keys)
    ever = {id for id, created in changing.endpoint.ever.items() if created is None or created < T0}

    assert throughout <= set(outcome.rows), f"lost: {throughout - set(outcome.rows)}"
    assert set(outcome.rows) <= ever, f"invented: {set(outcome.rows) - ever}"
    if not case.kills:
        twice = [id for id, times in Counter(outcome.rows).items() if times > 1]
        assert not twice, f"twice: {twice}"
    assert outcome.most_ranges < 64
    assert outcome.most_bytes < 2_000


moments = st.integers(OLDEST - BORN, SPAN + 5)
crowded = st.one_of(
    st.sampled_from([0, 1, 1_000, 1_001, SPAN - 1]), moments
)  # bursts, and a few others
recent = st.integers(0, 44).map(lambda root: SPAN - root * root)  # growth: most of them lately
chances = st.sampled_from([0.0, 0.0, 0.05, 0.3])


def cases(kills: st.SearchStrategy[tuple[int, ...]]) -> st.SearchStrategy[Case]:
    created = st.one_of(
        st.lists(st.one_of(moments, st.none()), max_size=120),
        st.lists(crowded, max_size=200),
        st.lists(recent, max_size=300),
        st.integers(0, 100).map(lambda n: [1_500] * n),
    )
    return st.builds(
        Case,
        created=created.map(tuple),
        size=st.integers(1, 9),
        threads=st.integers(1, 16),
        batch=st.integers(1, 40),
        seed=st.integers(0, 10_000),
        created_meanwhile=chances,
        deleted_meanwhile=chances,
        cursor_deleted=chances,
        cursor_refused=chances,
        short_pages=chances,
        empty_pages=chances,
        late=st.sampled_from([0.0, 0.5, 0.9]),
        kills=kills,
    )


UNBROKEN = cases(st.just(()))
KILLED = cases(st.lists(st.integers(0, 6), min_size=1, max_size=5).map(tuple))
QUICK = settings(derandomize=True, deadline=None, max_examples=80, database=None)
MORE = settings(QUICK, max_examples=300)
DEEP = settings(deadline=None, max_examples=5_000, database=None, print_blob=True)


@pytest.fixture(scope="module")
def patch() -> Iterable[pytest.MonkeyPatch]:
    """For all examples of a test."""
    with pytest.MonkeyPatch.context() as found:
        yield found


@QUICK
@example(
    case=Case((1_500,) * 30, size=4, threads=8, cursor_deleted=0.3, deleted_meanwhile=0.3, seed=3)
)
@example(
    case=Case((None, None, None, 5, 5), size=1, created_meanwhile=0.3, cursor_refused=0.3, seed=5)
)
@given(case=UNBROKEN)
def test_a_listing_holds_all_that_was_there_throughout_and_nothing_else_each_once(
    case: Case, patch: pytest.MonkeyPatch
) -> None:
    """Any account, page size and number of threads; objects created and deleted while it is read;
    refusals and odd pages.
    """
    check(case, patch)


@QUICK
@example(case=Case(tuple(range(0, SPAN, 2)), size=9, threads=16, batch=20, kills=(1, 2, 3, 4, 5)))
@given(case=KILLED)
def test_a_listing_that_is_killed_again_and_again_loses_nothing(
    case: Case, patch: pytest.MonkeyPatch
) -> None:
    """What was read but not yielded is read again, from a state of a few ranges of seconds."""
    check(case, patch)


@pytest.mark.broad
@MORE
@given(case=UNBROKEN)
def test_a_listing_is_exact_in_more_cases(case: Case, patch: pytest.MonkeyPatch) -> None:
    check(case, patch)


@pytest.mark.broad
@MORE
@given(case=KILLED)
def test_a_listing_that_is_killed_is_exact_in_more_cases(
    case: Case, patch: pytest.MonkeyPatch
) -> None:
    check(case, patch)


@pytest.mark.long
@DEEP
@given(case=UNBROKEN)
def test_a_listing_is_exact_in_many_more_cases(case: Case, patch: pytest.MonkeyPatch) -> None:
    """The same with new cases each time."""
    check(case, patch)


@pytest.mark.long
@DEEP
@given(case=KILLED)
def test_a_listing_that_is_killed_is_exact_in_many_more_cases(
    case: Case, patch: pytest.MonkeyPatch
) -> None:
    """The same with new cases each time."""
    check(case, patch)


Growth = Literal["even", "growth", "import", "months", "bursts"]
DAY = 86_400
YEARS = 3 * 365 * DAY
LATENCY = 0.08
RATE = 25.0


def account(shape: Growth, rows: int, seed: int) -> Endpoint:
    """`created` as accounts have it: most of it lately, imported within hours, on the first of each
    month; with bursts.
    """
    dice = Random(f"{shape} {seed}")
    found: list[int] = []
    while len(found) < rows:
        moment = dice.random()
        if shape == "growth" or (shape == "bursts" and dice.random() < 0.9):
            moment = moment**0.4
        elif shape == "import" and dice.random() < 0.6:
            moment = 0.3 + moment * 7_200 / YEARS
        elif shape == "months" and dice.random() < 0.8:
            moment = (dice.randrange(36) * 30 * DAY + moment * 3 * 3600) / YEARS
        burst = 300 if shape == "bursts" and dice.random() < 1 / 2_000 else 1
        found += [BORN + int(moment * (YEARS - 1))] * burst
    return Endpoint(found)


@dataclass(frozen=True)
class Cost:
    """Requests and seconds of a listing, beside the least that it takes."""

    requests: int
    seconds: float
    least: int

    @property
    def least_seconds(self) -> float:
        return self.least / RATE


def simulate(endpoint: Endpoint, in_flight: int, seed: int) -> Cost:
    """Read it all, 25 requests a second, each answered after 80±20 ms."""
    dice = Random(seed)
    planner = Planner([(BORN, BORN + YEARS), (0, BORN)])
    limiter = RateLimiter(rps=1_000, endpoint_rps=RATE, in_flight=in_flight, now=0.0)
    answers: list[tuple[float, int, PageRequest]] = []
    order = count()
    now = 0.0
    kept = 0
    while not planner.finished:
        wait = limiter.take("customers", now) if len(answers) < in_flight else 0.0
        ask = planner.next_request() if wait <= 0 and len(answers) < in_flight else None
        if wait <= 0 and len(answers) < in_flight and ask is None:
            limiter.give_back("customers", now)
        if ask is not None:
            heapq.heappush(answers, (now + LATENCY + dice.uniform(-0.02, 0.02), next(order), ask))
            continue
        due = answers[0][0] if answers else float("inf")
        if len(answers) < in_flight and wait > 0 and now + wait < due:
            now += wait
            continue
        now, _, ask = heapq.heappop(answers)
        heads, has_more = endpoint.page(ask)
        kept += len(planner.record_page(ask, heads, has_more).kept)
    assert kept == len(endpoint)
    return Cost(len(endpoint.asked), now, -(-len(endpoint) // 100))


@pytest.mark.parametrize("shape", ["even", "growth", "import", "months", "bursts"])
@pytest.mark.parametrize("rows", [5_000, 50_000])
def test_a_large_account_costs_hardly_more_than_its_pages(shape: Growth, rows: int) -> None:
    """With 16 under way: the least number of pages and at most 20 more, one for the time before the
    account included.
    """
    cost = simulate(account(shape, rows, seed=1), in_flight=16, seed=1)

    assert cost.least <= cost.requests <= cost.least + 20
    if rows > 10_000:
        assert cost.requests <= 1.05 * cost.least


@pytest.mark.parametrize("shape", ["even", "growth", "import", "months", "bursts"])
def test_a_large_account_is_read_at_the_rate_limit(shape: Growth) -> None:
    """In simulated time: at most 4 % above what the rate allows, one of these per cent being our
    own pace.
    """
    cost = simulate(account(shape, 50_000, seed=2), in_flight=32, seed=2)

    assert cost.seconds <= 1.04 * cost.least_seconds


def test_more_threads_cost_no_more_requests() -> None:
    """A window is split when a token is free, not when a thread is."""
    requests = [
        simulate(account("growth", 30_000, seed=3), in_flight=threads, seed=3).requests
        for threads in (8, 16, 32, 64)
    ]

    assert max(requests) - min(requests) <= 3
    assert max(requests) <= 300 + 12


@pytest.mark.parametrize("rows", [0, 1, 99, 100, 101, 250])
def test_a_small_account_costs_its_pages_and_the_look_below(rows: int) -> None:
    """One request for the time before the account, whatever else."""
    dice = Random(rows)
    cost = simulate(
        Endpoint(sorted(BORN + dice.randrange(YEARS) for _ in range(rows))), in_flight=16, seed=1
    )

    assert cost.requests <= max(1, cost.least) + 1 + (rows > 100)


@pytest.mark.long
@settings(deadline=None, max_examples=60)
@given(
    shape=st.sampled_from(["even", "growth", "import", "months", "bursts"]),
    rows=st.integers(2_000, 400_000),
    seed=st.integers(0, 1_000),
    in_flight=st.sampled_from([8, 16, 32]),
)
def test_any_large_account_costs_hardly_more_than_its_pages(
    shape: Growth, rows: int, seed: int, in_flight: int
) -> None:
    """The same with new accounts each time."""
    cost = simulate(account(shape, rows, seed), in_flight, seed)

    assert cost.requests <= cost.least + 40
