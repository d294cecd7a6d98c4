"""The pool of threads over lists in memory: who is asked, what waits, what is handed out, and how
it ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from stripe_feed.errors import PermissionMissing, Unreachable
from stripe_feed.extract.paging import reader as paging_reader
from stripe_feed.extract.paging.reader import FetchPage, Listing, ListPage, PageReader
from stripe_feed.extract.paging.windows import Accepted, PageRequest, Planner, RowKey
from tests.endpoint import Endpoint, Tokens, read, reader_of

T0 = 100_000
REQUESTED_AT = 1_780_000_000
ENOUGH = paging_reader.MAX_WAITING_BATCHES


@contextmanager
def reading(*listings: Listing[str], tokens: Tokens | None = None) -> Iterator[PageReader]:
    """A pool that reads these; at the end all of its threads end too."""
    reader = reader_of(tokens or Tokens())
    try:
        for listing in listings:
            reader.open(listing)
        yield reader
    finally:
        reader.close()
        for thread in reader._threads:
            thread.join(10)
            assert not thread.is_alive()


def page(endpoint: Endpoint, ask: PageRequest) -> ListPage[str]:
    heads, has_more = endpoint.page(ask)
    rows = {head.id: head.id for head in heads}
    return ListPage(rows, heads, has_more, 10 * len(heads), REQUESTED_AT)


def fetch_from(endpoint: Endpoint) -> FetchPage[str]:
    lock = threading.Lock()

    def fetch(walk: int, ask: PageRequest) -> ListPage[str]:
        with lock:
            return page(endpoint, ask)

    return fetch


def listing_of(
    endpoint: Endpoint | None = None,
    fetch: FetchPage[str] | None = None,
    path: str = "/v1/customers",
    walks: int = 1,
    lo: int = 1,
) -> Listing[str]:
    found = fetch or fetch_from(Endpoint() if endpoint is None else endpoint)
    return Listing(
        path.rpartition("/")[2], path, found, [Planner([(lo, T0)]) for _ in range(walks)]
    )


def ids(batches: Sequence[Sequence[ListPage[str]]]) -> list[str]:
    return [row for parts in batches for part in parts for row in part.rows]


def wait_for(reader: PageReader, until: Callable[[], bool]) -> None:
    """Wait until the pool is where the test wants it."""
    with reader._cond:
        assert reader._cond.wait_for(until, 20)


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_every_row_of_every_listing_comes_once(threads: int) -> None:
    """Several listings at the same time, with any number of threads."""
    endpoints = [Endpoint(range(1, 3_000, 7), size=10), Endpoint([5] * 60, size=10), Endpoint()]
    listings = [listing_of(endpoint, path=f"/v1/table{n}") for n, endpoint in enumerate(endpoints)]
    with reading(*listings, tokens=Tokens(threads)) as reader:
        found = [ids(list(read(reader, listing))) for listing in listings]

    assert [sorted(rows) for rows in found] == [sorted(endpoint.keys) for endpoint in endpoints]
    assert [listing.rows_read for listing in listings] == [len(endpoint) for endpoint in endpoints]
    assert [listing.pages_read for listing in listings] == [
        len(endpoint.asked) for endpoint in endpoints
    ]


def test_each_page_costs_a_token_of_its_endpoint() -> None:
    """Paid before it is asked for, one by one."""
    endpoint = Endpoint(range(1, 500), size=10)
    tokens = Tokens(1)
    with reading(listing := listing_of(endpoint), tokens=tokens) as reader:
        list(read(reader, listing))

    assert tokens.tokens_taken == ["/v1/customers"] * len(endpoint.asked)
    assert len(endpoint.asked) == 50


def test_a_token_that_is_not_there_yet_is_waited_for() -> None:
    """By the clock, not by turning round and round."""
    tokens = Tokens(2, waits=[0.001, 0.001, 0.001])
    with reading(listing := listing_of(Endpoint([1, 2])), tokens=tokens) as reader:
        found = ids(list(read(reader, listing)))

    assert found == ["cus_1", "cus_0"]
    assert tokens.waits == []


def test_less_than_a_batch_waits_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of about the size asked for, then what is left."""
    monkeypatch.setattr(paging_reader, "MAX_TABLE_ROWS", 25)
    with reading(
        listing := listing_of(Endpoint(range(1, 66), size=10)), tokens=Tokens(1)
    ) as reader:
        sizes = [len(ids([parts])) for parts in read(reader, listing)]

    assert sizes == [30, 30, 5]


def test_a_batch_is_also_limited_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of large objects stays in memory until its table is built."""
    monkeypatch.setattr(paging_reader, "MAX_TABLE_BYTES", 150)
    with reading(
        listing := listing_of(Endpoint(range(1, 66), size=10)), tokens=Tokens(1)
    ) as reader:
        sizes = [sum(part.size for part in parts) for parts in read(reader, listing)]

    assert sizes == [200, 200, 200, 50]


def test_a_consumer_pauses_at_the_last_listing_until_any_has_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It asks for all of them in turn, and would do nothing else while Stripe answers."""
    pausing, ending = threading.Event(), threading.Event()

    def fetch_after(event: threading.Event) -> FetchPage[str]:
        def fetch(walk: int, ask: PageRequest) -> ListPage[str]:
            assert event.wait(20)
            return page(Endpoint([1]), ask)

        return fetch

    first, last = listing_of(fetch=fetch_after(pausing)), listing_of(fetch=fetch_after(ending))
    with reading(first, last, tokens=Tokens(2)) as reader:
        wait_for_news = reader._cond.wait_for

        def wait(until: Callable[[], bool], timeout: float) -> bool:
            pausing.set()
            return wait_for_news(until, 20)

        monkeypatch.setattr(reader._cond, "wait_for", wait)
        asked = [reader.next_batch(first), reader.next_batch(last)]
        found = ids([reader.next_batch(first)])
        ending.set()

    assert (asked, found) == ([[], []], ["cus_0"])


@pytest.mark.parametrize("limit", ["MAX_TABLE_ROWS", "MAX_TABLE_BYTES"])
def test_no_page_is_asked_for_while_enough_batches_wait(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """A slow consumer stops the requests, not the memory; taking a batch lets them go on."""
    monkeypatch.setattr(paging_reader, limit, 10 if limit == "MAX_TABLE_ROWS" else 100)
    endpoint = Endpoint(range(1, 101), size=10)
    with reading(listing := listing_of(endpoint), tokens=Tokens(1)) as reader:
        wait_for(reader, lambda: listing.pages_read == ENOUGH and not reader.in_flight)
        with reader._cond:
            assert reader._choose_job() == (None, None)
        assert len(endpoint.asked) == ENOUGH
        reader.next_batch(listing)
        wait_for(reader, lambda: listing.pages_read == ENOUGH + 1)


def test_a_listing_without_a_batch_is_read_even_when_others_crowd(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or its consumer would wait for ever for a batch that is never read."""
    monkeypatch.setattr(paging_reader, "MAX_TABLE_ROWS", 10)
    crowd, small = (
        listing_of(Endpoint(range(1, 101), size=10)),
        listing_of(Endpoint(range(1, 9)), path="/v1/prices"),
    )
    with reading(crowd, tokens=Tokens(1)) as reader:
        wait_for(reader, lambda: crowd.pages_read == ENOUGH and not reader.in_flight)
        reader.open(small)

        assert len(ids(list(read(reader, small)))) == 8
        assert crowd.pages_read == ENOUGH


def test_never_more_requests_are_under_way_than_stripe_allows() -> None:
    """The ceiling falls when Stripe limits concurrency; threads beyond it wait."""
    endpoint = Endpoint(range(1, 2_000), size=10)
    lock, now, most = threading.Lock(), 0, 0

    def fetch(walk: int, ask: PageRequest) -> ListPage[str]:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            found = page(endpoint, ask)
        with lock:
            now -= 1
        return found

    with reading(
        listing := listing_of(fetch=fetch), tokens=Tokens(8, in_flight_ceiling=2)
    ) as reader:
        assert len(ids(list(read(reader, listing)))) == 1_999
    assert most <= 2


def test_requests_of_one_listing_really_run_at_the_same_time() -> None:
    """Three pages are under way together: each waits for the other two."""
    endpoint = Endpoint(range(T0 - 1_000, T0), size=10)
    together, lock, calls = threading.Barrier(3), threading.Lock(), iter(range(1, 10_000))

    def fetch(walk: int, ask: PageRequest) -> ListPage[str]:
        if next(calls) in (2, 3, 4):
            together.wait(20)
        with lock:
            return page(endpoint, ask)

    with reading(listing := listing_of(fetch=fetch, lo=T0 - 1_000), tokens=Tokens(3)) as reader:
        assert sorted(ids(list(read(reader, listing)))) == sorted(endpoint.keys)


def test_tokens_go_to_the_listing_with_most_pages_left() -> None:
    """One thread, so one after the other: the long list is read down to the length of the short one
    first.
    """
    started = threading.Event()
    order: list[str] = []

    def fetch_of(name: str, endpoint: Endpoint) -> FetchPage[str]:
        def fetch(walk: int, ask: PageRequest) -> ListPage[str]:
            started.wait(20)
            order.append(name)
            return page(endpoint, ask)

        return fetch

    short = listing_of(
        fetch=fetch_of("s", Endpoint(range(T0 - 30, T0), size=10)), path="/v1/s", lo=T0 - 30
    )
    long = listing_of(
        fetch=fetch_of("L", Endpoint(range(T0 - 80, T0), size=10)), path="/v1/l", lo=T0 - 80
    )
    with reading(short, long, tokens=Tokens(1)) as reader:
        started.set()
        for listing in (short, long):
            list(read(reader, listing))

    assert "".join(order).startswith("sLLLLLL")
    assert sorted(order) == ["L"] * 8 + ["s"] * 3


def test_walks_follow_each_other() -> None:
    """Active prices, all of them, before archived ones: a price archived meanwhile is in the second
    walk.
    """
    walks: list[int] = []
    endpoint = Endpoint(range(1, 100), size=10)

    def fetch(walk: int, ask: PageRequest) -> ListPage[str]:
        walks.append(walk)
        return page(endpoint, ask)

    with reading(listing := listing_of(fetch=fetch, walks=2), tokens=Tokens(1)) as reader:
        parts = [part for batch in read(reader, listing) for part in batch]

    assert walks == [0] * 10 + [1] * 10
    assert [part.walk for part in parts] == walks
    assert sorted(row for part in parts for row in part.rows) == sorted(
        [*endpoint.keys, *endpoint.keys]
    )


def test_rows_that_are_left_out_still_move_the_walk() -> None:
    """Objects on a test clock are not handed out, but their page is covered."""
    endpoint = Endpoint(range(1, 40), size=10)

    def fetch(walk: int, ask: PageRequest) -> ListPage[str]:
        found = page(endpoint, ask)
        odd = [head.id for head in found.keys if head.created and head.created % 2]
        return replace(found, rows={id: found.rows[id] for id in odd})

    with reading(listing := listing_of(fetch=fetch), tokens=Tokens(1)) as reader:
        parts = [part for batch in read(reader, listing) for part in batch]

    assert [len(part.rows) for part in parts] == [5, 5, 5, 5]
    assert (min(part.covered[0] for part in parts), max(part.covered[1] for part in parts)) == (
        1,
        T0,
    )
    assert {part.requested_at for part in parts} == {REQUESTED_AT}


def test_a_listing_is_not_finished_before_its_last_rows_wait() -> None:
    """Consumers look without a lock: one that looks while the last page is handed over must not go
    home without its rows.
    """
    done: list[bool] = []

    class Watched(Planner):
        def record_page(
            self, ask: PageRequest, heads: Sequence[RowKey], has_more: bool
        ) -> Accepted:
            took = super().record_page(ask, heads, has_more)
            done.append(listing.finished)
            return took

    listing = listing_of(Endpoint([3, 2, 1], size=1))
    listing.walks = [Watched([(1, T0)])]
    with reading(listing, tokens=Tokens(1)) as reader:
        assert len(ids(list(read(reader, listing)))) == 3
    assert done == [False, False, False]


def test_a_refused_cursor_is_gone_on_from_by_time() -> None:
    """The row was deleted between two pages: no error, no row lost, none twice."""
    endpoint = Endpoint([5] * 15 + [4] * 15, size=10)

    def fetch(walk: int, ask: PageRequest) -> ListPage[str]:
        if ask.cursor is not None and ask.cursor in endpoint.keys and len(endpoint.keys) > 28:
            endpoint.delete(ask.cursor)
        return page(endpoint, ask)

    with reading(listing := listing_of(fetch=fetch), tokens=Tokens(1)) as reader:
        found = ids(list(read(reader, listing)))

    assert sorted(found) == sorted(endpoint.ever)
    assert sum("starting_after" not in asked for asked in endpoint.asked) == 3


def test_an_error_is_raised_where_the_listing_is_consumed_and_others_go_on() -> None:
    """A missing permission ends one resource, not the run."""

    def refuse(walk: int, ask: PageRequest) -> ListPage[str]:
        raise PermissionMissing("no", "rak_price_read")

    bad, good = (
        listing_of(fetch=refuse, path="/v1/prices"),
        listing_of(Endpoint(range(1, 500), size=10)),
    )
    with reading(bad, good) as reader:
        assert len(ids(list(read(reader, good)))) == 499
        with pytest.raises(PermissionMissing):
            list(read(reader, bad))
        with pytest.raises(PermissionMissing):
            reader.next_batch(bad)


def test_whatever_a_thread_runs_into_is_raised() -> None:
    """Also what is no `Exception`: a consumer that waits for a thread that is gone would hang."""

    def fail(walk: int, ask: PageRequest) -> ListPage[str]:
        raise SystemExit(3)

    with reading(listing := listing_of(fetch=fail)) as reader, pytest.raises(SystemExit):
        list(read(reader, listing))


def test_a_list_without_progress_is_reported_with_its_path() -> None:
    """Stripe would be asked the same for ever."""
    endpoint = Endpoint(range(1, 40), size=10)
    first: list[ListPage[str]] = []

    def fetch(walk: int, ask: PageRequest) -> ListPage[str]:
        first.append(page(endpoint, ask))
        return first[0]

    with (
        reading(listing := listing_of(fetch=fetch), tokens=Tokens(1)) as reader,
        pytest.raises(
            Unreachable,
            match=r"^/v1/customers has more but repeats cus_\d+\. Run again; if it stays, report it\.$",
        ),
    ):
        list(read(reader, listing))


def test_a_listing_that_is_dropped_is_not_asked_for_again() -> None:
    """Whoever stops early costs no further requests."""
    endpoint = Endpoint(range(1, 1_000), size=10)
    going = threading.Semaphore(2)

    def fetch(walk: int, ask: PageRequest) -> ListPage[str]:
        going.acquire(timeout=20)
        return page(endpoint, ask)

    with reading(listing := listing_of(fetch=fetch), tokens=Tokens(1)) as reader:
        wait_for(reader, lambda: listing.pages_read == 2)
        reader.stop(listing)
        reader.stop(listing)
        going.release()
        wait_for(reader, lambda: not reader.in_flight)
        with reader._cond:
            assert reader._choose_job() == (None, None)

    assert len(endpoint.asked) <= 3


def test_closing_ends_all_threads_and_the_api() -> None:
    """Also threads that wait for a token, for their turn, or for room."""
    tokens = Tokens(6)
    with reading(listing_of(Endpoint(range(1, 10))), tokens=tokens) as reader:
        wait_for(reader, lambda: reader.listings[0].finished)

    assert tokens.closed


def test_a_reader_that_read_nothing_has_no_threads() -> None:
    """They begin with the first listing."""
    reader = reader_of(Tokens())
    assert reader._threads == []
    reader.close()


def test_a_cursor_refused_in_the_middle_of_a_burst_with_many_threads() -> None:
    """Every third cursor is deleted on purpose, while eight threads read: what stays comes once,
    and nothing comes twice.
    """
    endpoint = Endpoint([n // 30 for n in range(30, 1_500)], size=7)
    lock = threading.Lock()
    asked = 0

    def fetch(walk: int, ask: PageRequest) -> ListPage[str]:
        nonlocal asked
        with lock:
            asked += 1
            if ask.cursor is not None and asked % 3 == 0 and ask.cursor in endpoint.keys:
                endpoint.delete(ask.cursor)
            return page(endpoint, ask)

    with reading(listing := listing_of(fetch=fetch), tokens=Tokens(8)) as reader:
        found = ids(list(read(reader, listing)))

    assert len(found) == len(set(found))
    assert set(endpoint.keys) <= set(found) <= set(endpoint.ever)
    assert len(endpoint.keys) < 1_470
