"""The feed store: every change of every completed load, once, numbered without gaps, whatever
happens between.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stripe_feed.destination.pipeline import open_pipeline
from stripe_feed.errors import Fenced, OffsetOutOfRange, SetupError, WrongAccount
from stripe_feed.feed import consumers, relay
from stripe_feed.feed.change import SOURCE_COLUMNS, change_from_row, entry_from_row
from stripe_feed.feed.feed import Feed, open_feed
from stripe_feed.feed.relay import relay_pipeline, store_path
from stripe_feed.feed.storage import maintenance
from stripe_feed.feed.storage.store import FeedStore
from tests.feed_kills import OF_KIND, Plain, a_change, a_copy, ids_of, load, log_of
from tests.forker import Forker
from tests.postgres import postgres_server

A_DAY = 86_400
SIX = (10, 30, 100, 5, 25, 40)  # loads


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FeedStore]:
    with FeedStore(tmp_path / "copy.feed.sqlite") as opened:
        yield opened


@pytest.fixture
def plain() -> Iterator[Plain]:
    with closing(Plain()) as destination:
        yield destination


@pytest.fixture(scope="session")
def six_loads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DuckDB file with six loads of changes of seven objects, made by dlt; 210 changes, the third
    load is big.
    """
    folder = tmp_path_factory.mktemp("six")
    pipeline = a_copy(folder)
    n = 0
    for count in SIX:
        rows = [a_change(n + i, f"sub_{(n + i) % 7}", seq=i) for i in range(count)]
        load(pipeline, rows)
        n += count
    return folder / "copy.duckdb"


@pytest.fixture
def copy(six_loads: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copy(six_loads, tmp_path / "copy.duckdb"))


def sql(file: Path, query: str) -> list[Any]:
    with duckdb.connect(str(file)) as base:
        return base.execute(query).fetchall()


def check_log(log: FeedStore) -> None:
    """Offsets are dense, ids are unique, and so are the versions of each object."""
    rows = log.query(
        "select position, change_id, resource, object_id, object_version from log order by position"
    )
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    assert log.head == len(rows)
    assert max(Counter(row[1] for row in rows).values(), default=1) == 1
    versions = defaultdict(list)
    for _, _, resource, object_id, version in rows:
        versions[resource, object_id].append(version)
    assert all(found == list(range(1, len(found) + 1)) for found in versions.values())


def test_changes_come_as_they_are(copy: Path) -> None:
    with open_feed(a_copy(copy.parent)) as feed:
        (first, *_), last = feed.read(), feed.tail(1)[0]

        assert feed.path == copy.with_name("copy.feed.sqlite")
    assert (first.offset, first.object_version, first.change_id, first.seq) == (1, 1, "evt_0", 0)
    assert (last.offset, last.object_version, last.change_id) == (210, 30, "evt_209")
    assert first.as_dict() == {
        **a_change(0, "sub_0"),
        "offset": 1,
        "object_version": 1,
        "load_id": first.load_id,
        "occurred_at": "2026-01-01T00:00:00Z",
        "observed_at": "2026-01-01T00:01:00Z",
        "before": {"id": "sub_0", "status": "s-1", "metadata": {}},
    }
    json.dumps(first.as_dict())
    assert "s0" not in repr(first)


def test_the_log_is_in_the_order_of_the_loads_and_dense(copy: Path) -> None:
    with FeedStore(copy.with_name("copy.feed.sqlite")) as log:
        assert relay_pipeline(a_copy(copy.parent), log) == 210
        assert relay_pipeline(a_copy(copy.parent), log) == 0

        assert ids_of(log) == [f"evt_{n}" for n in range(210)]
        check_log(log)


def test_bodies_that_need_more_memory_are_relayed_with_more(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_DUCKDB_MEMORY", "1KB")

    with FeedStore(copy.with_name("copy.feed.sqlite")) as log:
        assert relay_pipeline(a_copy(copy.parent), log) == 210


def test_nothing_to_relay_is_fine(tmp_path: Path) -> None:
    with open_feed(a_copy(tmp_path)) as feed:
        assert feed.head == 0
    assert not (tmp_path / "copy.duckdb").exists()

    duckdb.connect(str(tmp_path / "copy.duckdb")).close()
    with open_feed(a_copy(tmp_path)) as feed:
        assert feed.read() == []


def test_l1_a_load_that_is_not_complete_is_not_seen(copy: Path) -> None:
    third = sql(copy, "select load_id from stripe._dlt_loads order by 1")[2][0]
    sql(copy, f"update stripe._dlt_loads set status = 1 where load_id = '{third}'")
    with FeedStore(copy.with_name("copy.feed.sqlite")) as log:
        assert relay_pipeline(a_copy(copy.parent), log) == 110

        sql(copy, f"update stripe._dlt_loads set status = 0 where load_id = '{third}'")
        assert relay_pipeline(a_copy(copy.parent), log) == 100
        check_log(log)
        assert ids_of(log)[110:] == [f"evt_{n}" for n in range(40, 140)]


def test_l2_crash_duplicates_never_reach_a_consumer(copy: Path) -> None:
    sql(copy, "insert into stripe.changes select * from stripe.changes where seq < 20")
    with FeedStore(copy.with_name("copy.feed.sqlite")) as log:
        relay_pipeline(a_copy(copy.parent), log)
        sql(copy, "insert into stripe.changes select * from stripe.changes where seq > 20")
        load(
            a_copy(copy.parent), [a_change(n, f"sub_{n % 7}") for n in range(200, 220)]
        )  # ten of them again

        assert relay_pipeline(a_copy(copy.parent), log) == 10
        check_log(log)
        assert [found.change_id for found in Feed(None, log).consume("c", start="earliest")] == [
            f"evt_{n}" for n in range(220)
        ]


def test_l3_loads_that_complete_out_of_order_lose_nothing(tmp_path: Path) -> None:
    slow, quick = (
        open_pipeline(str(tmp_path / "copy.duckdb"), state_dir=str(tmp_path / name))
        for name in ("slow", "quick")
    )
    load(quick, [a_change(0)])
    from tests.feed_kills import resource_of

    slow.extract(resource_of([a_change(n) for n in (1, 2, 3)]), loader_file_format="parquet")
    slow.normalize()
    load(quick, [a_change(n) for n in (4, 5)])
    with FeedStore(tmp_path / "copy.feed.sqlite") as log:
        assert relay_pipeline(quick, log) == 3

        slow.load()
        assert relay_pipeline(quick, log) == 3
        assert ids_of(log) == ["evt_0", "evt_4", "evt_5", "evt_1", "evt_2", "evt_3"]


step = st.one_of(
    st.tuples(st.just("begin"), st.integers(1, 9)),
    st.tuples(st.just("complete"), st.integers(0, 20)),
    st.tuples(st.just("double"), st.integers(0, 20)),
    st.tuples(st.just("again"), st.integers(0, 20)),
    st.tuples(st.just("relay"), st.just(0)),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(step, max_size=30), st.integers(1, 5), st.integers(1, 5))
def test_l3_any_interleaving_of_loads_loses_nothing(
    steps: list[tuple[str, int]], read: int, stored: int
) -> None:
    interleaved(steps, read, stored)


@settings(max_examples=120, deadline=None)
@given(st.lists(step, max_size=30), st.integers(1, 5), st.integers(1, 5))
def test_l3_more_interleavings(steps: list[tuple[str, int]], read: int, stored: int) -> None:
    interleaved(steps, read, stored)


@pytest.mark.long
@settings(max_examples=5_000, deadline=None)
@given(st.lists(step, max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_l3_many_interleavings(steps: list[tuple[str, int]], read: int, stored: int) -> None:
    interleaved(steps, read, stored)


@contextmanager
def kept() -> Iterator[FeedStore]:
    """A store of its own for each of many examples."""
    with TemporaryDirectory() as folder, FeedStore(Path(folder) / "feed.sqlite") as log:
        yield log


def interleaved(steps: list[tuple[str, int]], read: int, stored: int) -> None:
    """Loads begin, complete in any order, are doubled by a crash and take over older rows; the
    relay runs in between.
    """
    plain, loads, made = Plain(), dict[str, list[str]](), 0
    open_loads: list[str] = []
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch, closing(plain), kept() as log:
        patch.setattr(relay, "READ_ROWS", read)
        patch.setattr(relay, "TRANSACTION_ROWS", stored)
        for what, number in [*steps, ("complete all", 0), ("relay", 0)]:
            match what:
                case "begin":
                    load_id = f"17{len(loads):05}.5"
                    rows = [
                        a_change(made + i, f"sub_{(made + i) % 3}", seq=i // 2)
                        for i in range(number)
                    ]
                    made += number
                    plain.put(load_id, *rows)
                    loads[load_id] = [row["change_id"] for row in rows]
                    open_loads.append(load_id)
                case "complete" if open_loads:
                    plain.complete(open_loads.pop(number % len(open_loads)))
                case "complete all":
                    plain.complete(*open_loads)
                case "double" if loads:
                    load_id = sorted(loads)[number % len(loads)]
                    query = "insert into changes select * from changes where _dlt_load_id = ?"
                    plain.base.execute(query, (load_id,))
                case "again" if open_loads and made:
                    taken = open_loads[number % len(open_loads)]
                    plain.base.execute(
                        "update changes set _dlt_load_id = ? where change_id = ?",
                        (taken, f"evt_{number % made}"),
                    )
                case "relay":
                    relay.relay(log, plain)
                    check_log(log)
                    assert ids_of(log)[: len(seen)] == seen  # immutable
                    seen = ids_of(log)
        assert sorted(seen) == sorted(f"evt_{n}" for n in range(made))
        rebuilt = maintenance.rebuild(log, plain) if made else 0
        check_log(log)
        assert (rebuilt, sorted(ids_of(log))) == (made, sorted(seen))


def test_a_big_load_is_cut_where_seq_allows(
    plain: Plain, log: FeedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "READ_ROWS", 10)
    ties = [a_change(n, seq=n // 25) for n in range(100)]
    unordered = [a_change(n, seq=None) for n in range(100, 130)]
    plain.put("1.1", *ties)
    plain.put("1.2", *unordered)
    plain.put("1.3", *(a_change(n) for n in range(130, 141)))
    plain.complete("1.1", "1.2", "1.3")

    assert relay.relay(log, plain) == 141
    check_log(log)
    assert [int(one[4:]) // 25 for one in ids_of(log)[:100]] == [n // 25 for n in range(100)]


def test_columns_come_as_each_destination_has_them() -> None:
    row = a_change(1, after={"id": "sub_1", "n": 2**60}, late=1, livemode=0, seq=3)
    texts = [
        json.dumps(row[name]) if name in ("after", "previous", "changed") else row[name]
        for name in SOURCE_COLUMNS[:-4]
    ]
    as_text = [
        *texts,
        "17.5",
        json.dumps(row["changed"]),
        json.dumps(row["after"]),
        json.dumps(row["previous"]),
    ]
    as_objects = [*texts, "17.5", row["changed"], row["after"], row["previous"]]
    at = SOURCE_COLUMNS.index("occurred_at")
    naive, iso = list(as_text), list(as_text)
    naive[at], iso[at] = row["occurred_at"].replace(tzinfo=None), "2026-01-01T00:00:01Z"

    found = [
        change_from_row(1, 1, entry_from_row(one)) for one in (as_text, as_objects, naive, iso)
    ]

    assert found[0] == found[1] == found[2] == found[3]
    assert found[0].after == row["after"]
    assert (found[0].late, found[0].livemode, found[0].changed) == (True, False, ["status"])


@pytest.mark.parametrize(
    ("op", "after", "previous", "quality", "before"),
    [
        ("c", {"a": 1}, None, "none", None),
        ("r", {"a": 1}, None, "none", None),
        ("u", {"a": 1, "b": 2}, {"a": 0}, "exact", {"a": 0, "b": 2}),
        ("u", {"a": 1, "b": 2}, {}, "exact", {"a": 1, "b": 2}),
        ("u", {"a": 1}, {"a": 0}, "none", None),
        ("u", {"a": 1}, None, "exact", None),
        ("u", {"metadata": {"x": "1"}}, {"metadata": {"x": None}}, "derived", {"metadata": {}}),
        ("d", None, {"a": 1}, "exact", {"a": 1}),
        ("d", None, {}, "none", None),
        ("d", None, None, "none", None),
    ],
)
def test_before_is_computed(op: str, after: Any, previous: Any, quality: str, before: Any) -> None:
    row = a_change(1, op=op, after=after, previous=previous, before_quality=quality)

    found = change_from_row(
        1,
        1,
        entry_from_row(
            [*(row.get(name) for name in SOURCE_COLUMNS[:-4]), "17.5", [], after, previous]
        ),
    )

    assert found.before == before


def test_l4_a_rebuild_gives_the_same_log(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_feed(a_copy(copy.parent)) as feed, FeedStore(feed.path) as log:
        next(iter(feed.consume("half", start=101)))
        feed.reset("half", 101)
        before = log_of(log)

        assert feed.rebuild() == 210

        assert log_of(log) == before
        assert [(one.position, one.change_id, one.behind) for one in feed.lag("half")] == [
            (100, "evt_99", 110)
        ]
        assert feed.relay() == 0
    assert "There was no feed store" in caplog.text  # the copy is older than its feed
    caplog.clear()
    feed.path.unlink()
    with open_feed(a_copy(copy.parent)) as feed, FeedStore(feed.path) as log:
        assert log_of(log) == before
        assert feed.relay() == 0
    with open_feed(a_copy(copy.parent)):
        pass
    assert caplog.text.count(f"There was no feed store {feed.path.name}") == 1


def test_a_feed_that_is_older_than_its_copy_misses_nothing(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was opened before the first load: no store was lost."""
    loaded = copy.rename(copy.with_name("loaded"))
    with open_feed(a_copy(copy.parent)) as feed:
        loaded.rename(copy)
        assert feed.relay() == 210
    assert "There was no feed store" not in caplog.text


def test_l4_a_rebuild_sorts_and_hides_nothing_from_a_consumer(plain: Plain, log: FeedStore) -> None:
    plain.put("2", a_change(3), a_change(4))
    plain.complete("2")
    relay.relay(log, plain)
    feed = Feed(None, log)
    assert [one.change_id for one in feed.consume("saw-two", start="earliest")] == [
        "evt_3",
        "evt_4",
    ]
    plain.put("1", a_change(1), a_change(2))
    plain.put("3", a_change(5))
    plain.complete("1", "3")
    relay.relay(log, plain)
    assert [one.change_id for one in feed.consume("saw-all", start="earliest")] == [
        "evt_3",
        "evt_4",
        "evt_1",
        "evt_2",
        "evt_5",
    ]

    maintenance.rebuild(log, plain)

    assert ids_of(log) == [f"evt_{n}" for n in range(1, 6)]
    check_log(log)
    assert [one.change_id for one in feed.consume("saw-all")] == []
    again = [one.change_id for one in feed.consume("saw-two")]
    assert again[:2] == ["evt_1", "evt_2"]
    assert again[-1] == "evt_5"


def test_whoever_consumes_during_a_rebuild_is_fenced(plain: Plain, log: FeedStore) -> None:
    plain.put("1", *(a_change(n) for n in range(5)))
    plain.complete("1")
    relay.relay(log, plain)
    changes = Feed(None, log).consume("c", start="earliest")
    assert [next(changes).offset, next(changes).offset] == [1, 2]

    maintenance.rebuild(log, plain)

    with pytest.raises(Fenced, match="rebuilt"):
        next(changes)
    assert next(Feed(None, log).consume("c")).offset == 2


def test_a_rebuild_without_changes_keeps_the_log(plain: Plain, log: FeedStore) -> None:
    plain.put("1", a_change(1))
    plain.complete("1")
    relay.relay(log, plain)
    plain.base.execute("delete from changes")

    with pytest.raises(SetupError, match="the log is left unchanged"):
        maintenance.rebuild(log, plain)
    assert ids_of(log) == ["evt_1"]


def test_pruned_offsets_and_changes_are_never_used_again(plain: Plain, log: FeedStore) -> None:
    now = [a_change(0)["observed_at"].timestamp()]
    plain.put("1", *(a_change(n * A_DAY, f"sub_{n % 2}") for n in range(10)))
    plain.complete("1")
    relay.relay(log, plain)
    feed = Feed(None, log, now=lambda: now[0] + 10 * A_DAY)

    assert feed.prune(5.5 * A_DAY) == 5
    assert feed.prune(5.5 * A_DAY) == 0
    assert (feed.head, feed.pruned_through, [one.offset for one in feed.read()]) == (
        10,
        5,
        [6, 7, 8, 9, 10],
    )
    assert feed.prune(0) == 5
    plain.put(
        "2", *(a_change(n * A_DAY, f"sub_{n % 2}") for n in range(12))
    )  # all once more, and two new ones
    plain.complete("2")
    assert relay.relay(log, plain) == 2
    assert [(one.offset, one.object_version, one.change_id) for one in feed.read()] == [
        (11, 6, f"evt_{10 * A_DAY}"),
        (12, 6, f"evt_{11 * A_DAY}"),
    ]

    maintenance.rebuild(log, plain)
    check_log(log)
    assert (feed.head, feed.pruned_through) == (12, 0)


def test_the_latest_of_each_object_can_be_kept(plain: Plain, log: FeedStore) -> None:
    plain.put("1", *(a_change(n, f"sub_{n % 3}") for n in range(12)), a_change(50_000, "sub_0"))
    plain.complete("1")
    relay.relay(log, plain)
    feed = Feed(None, log, now=lambda: a_change(50_000)["observed_at"].timestamp() + 10)

    assert feed.prune(60, keep_latest=True) == 10

    assert [(one.object_id, one.offset) for one in feed.read()] == [
        ("sub_1", 11),
        ("sub_2", 12),
        ("sub_0", 13),
    ]
    assert feed.pruned_through == 10
    assert [one.offset for one in feed.consume("new", start="earliest")] == [11, 12, 13]


def test_what_is_kept_below_the_horizon_is_readable_from_the_start(
    plain: Plain, log: FeedStore
) -> None:
    plain.put("1", a_change(0, "sub_quiet"), *(a_change(n, "sub_busy") for n in range(1, 10)))
    plain.complete("1")
    relay.relay(log, plain)
    feed = Feed(None, log, now=lambda: a_change(A_DAY)["observed_at"].timestamp())
    feed.prune(60, keep_latest=True)

    assert feed.pruned_through == 9
    assert [one.offset for one in feed.read(0, 1)] == [1]
    assert [one.offset for one in feed.read(1, accepted=feed.pruned_through)] == [10]
    with pytest.raises(OffsetOutOfRange, match="pruned"):
        feed.read(1)
    assert [one.offset for one in feed.consume("new", start="earliest", max=1)] == [1]
    assert [one.offset for one in feed.consume("new")] == [10]


CANARY = "canary@example.com"


def holds(folder: Path, pieces: list[bytes]) -> list[str]:
    """The files of the store that hold one of these pieces of bodies."""
    return [
        file.name
        for file in sorted(folder.glob("*feed.sqlite*"))
        if any(one in file.read_bytes() for one in pieces)
    ]


def pieces_of(file: Path, position: int) -> list[bytes]:
    """Pieces of a body as it lies in the store."""
    with FeedStore(file) as log:
        body = log.query("select body from log where position = ?", position)[0][0]
    return [body[n : n + 40] for n in range(0, len(body) - 40, 40)]


def test_forget_takes_the_images_and_leaves_the_rest(tmp_path: Path) -> None:
    pipeline = a_copy(tmp_path)
    image = {
        "email": CANARY,
        "long": random.Random(1).randbytes(9_000).hex(),
    }  # more than a page of SQLite's
    about: dict[str, Any] = {
        "resource": "customers",
        "object_id": "cus_1",
        "after": image,
        "previous": {"email": f"old {CANARY}"},
    }
    load(
        pipeline,
        [
            a_change(1, **about),
            a_change(2, after={"receipt": CANARY}),
            a_change(3, customer_id="cus_2"),
        ],
    )
    with open_feed(pipeline) as feed:
        pieces = pieces_of(feed.path, 1)
        assert holds(tmp_path, pieces)

        assert feed.forget("cus_1") == 2

        assert holds(tmp_path, pieces) == []
        assert [(one.offset, one.after is None, one.before is None) for one in feed.read()] == [
            (1, True, True),
            (2, True, True),
            (3, False, False),
        ]
        query = "select count(*) from stripe.changes where after::varchar || previous::varchar like '%canary%'"
        assert sql(tmp_path / "copy.duckdb", query) == [(0,)]
        load(
            pipeline, [a_change(1, **about), a_change(4, **about)]
        )  # the event is read once more, and another comes
        feed.relay()
        assert [one.after is None for one in feed.read()] == [True, True, False, True]
        feed.rebuild()
        assert [(one.change_id, one.after is None) for one in feed.read()] == [
            ("evt_2", True),
            ("evt_3", False),
            ("evt_1", True),
            ("evt_4", True),
        ]
        assert holds(tmp_path, pieces) == []


def test_only_the_owner_may_read_the_store(copy: Path) -> None:
    mask = os.umask(0)
    try:
        with open_feed(a_copy(copy.parent)) as feed:
            feed.reset("x", "earliest")
            files = sorted(copy.parent.glob("copy.feed.sqlite*"))
            assert [file.name for file in files] == [
                "copy.feed.sqlite",
                "copy.feed.sqlite-shm",
                "copy.feed.sqlite-wal",
            ]
            assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
        feed.path.chmod(0o644)
        with FeedStore(feed.path):
            assert feed.path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(mask)


def test_a_store_takes_the_changes_of_one_account(tmp_path: Path) -> None:
    """Where a server's name leads to another database than before, the store of the first would get
    the changes of both.
    """
    pipeline = a_copy(tmp_path)
    load(pipeline, [a_change(1)])
    open_feed(pipeline).close()
    load(pipeline, [a_change(2, account_id="acct_2")])
    words = "copy.feed.sqlite holds the changes of account acct_1 in test mode, but the destination holds those of acct_2 in test mode."
    with pytest.raises(
        WrongAccount, match=f"^{words} Move the file away, or choose another --state-dir.$"
    ):
        open_feed(pipeline)
    with FeedStore(tmp_path / "copy.feed.sqlite") as store:
        assert store.head == 1


def test_a_store_lies_beside_its_database(tmp_path: Path) -> None:
    assert store_path(a_copy(tmp_path)) == tmp_path / "copy.feed.sqlite"
    other = open_pipeline(str(tmp_path / "copy.duckdb"), dataset="second", state_dir=str(tmp_path))
    assert store_path(other) == tmp_path / "copy.second.feed.sqlite"


def test_another_destination_has_its_store_with_the_pipelines(tmp_path: Path) -> None:
    import dlt

    def path(file: str, dataset: str = "stripe") -> Path:
        where = dlt.destinations.sqlalchemy(f"sqlite:///{tmp_path / file}")
        return store_path(
            dlt.pipeline(
                "stripe_feed", destination=where, dataset_name=dataset, pipelines_dir=str(tmp_path)
            )
        )

    assert path("a.db") == path("a.db")
    assert path("a.db").parent.is_dir()
    assert path("a.db").name.endswith(".feed.sqlite")
    assert path("a.db") != path("a.db", "second")


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_another_destination_is_relayed_rebuilt_and_forgotten(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dlt

    monkeypatch.setattr(relay, "READ_ROWS", 2)
    sqlite = kind == "sqlite"
    where: Any = (
        dlt.destinations.sqlalchemy(f"sqlite:///{tmp_path / 'copy.db'}")
        if sqlite
        else dlt.destinations.postgres(request.getfixturevalue("postgres"))
    )
    pipeline = dlt.pipeline(
        "stripe_feed",
        destination=where,
        dataset_name="stripe",
        pipelines_dir=str(tmp_path / "state"),
    )
    with open_feed(pipeline, tmp_path / "own.sqlite") as feed:
        assert feed.head == 0
        load(
            pipeline,
            [a_change(n, customer_id=f"cus_{n}") for n in range(5)],
            "text" if sqlite else "json",
        )

        assert feed.relay() == 5
        first, *_ = found = feed.read()
        assert [one.change_id for one in found] == [f"evt_{n}" for n in range(5)]
        assert (first.after, first.occurred_at) == (
            a_change(0)["after"],
            a_change(0)["occurred_at"],
        )
        assert (first.changed, first.late, first.livemode) == (["status"], False, False)

        assert feed.forget("cus_1") == 1
        assert feed.rebuild() == 5
        assert [one.after is None for one in feed.read()] == [False, True, False, False, False]


@pytest.mark.parametrize("damage", ["garbage", "newer"])
def test_a_store_that_cannot_be_used_says_so(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "copy.feed.sqlite"
    if damage == "garbage":
        file.write_bytes(b"no database " * 1_000)
    else:
        with closing(sqlite3.connect(file)) as base:
            base.execute("pragma user_version = 99")

    with pytest.raises(
        SetupError,
        match="damaged: it is not a SQLite file" if damage == "garbage" else "newer stripe-feed",
    ):
        FeedStore(file)
    with pytest.raises(SetupError, match="cannot be created"):
        FeedStore(tmp_path / "missing" / "copy.feed.sqlite")


def test_many_processes_open_and_write_at_once(tmp_path: Path) -> None:
    file = tmp_path / "copy.feed.sqlite"
    code = (
        "import os, sys; from stripe_feed.feed.storage.store import FeedStore; from tests.test_store import entry_of\n"
        "others = list[int]()\n"
        "while len(others) < 2:\n"
        "    if not (pid := os.fork()):\n"
        "        others = []\n"
        "        break\n"
        "    others.append(pid)\n"
        "with FeedStore(sys.argv[1]) as log:\n"
        "    for n in range(0, 200, 5):\n"
        "        log.append([entry_of(i) for i in range(n, n + 5)], [str(n)])\n"
        "sys.exit(any(os.waitpid(pid, 0)[1] for pid in others))\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    run = subprocess.run([sys.executable, "-c", code, str(file)], env=env, timeout=60)
    assert run.returncode == 0

    with FeedStore(file) as log:
        check_log(log)
        assert ids_of(log) == [f"evt_{n}" for n in range(200)]
        assert len(log.relayed()) == 40


def entry_of(n: int) -> Any:
    row = a_change(n, f"sub_{n % 7}")
    return entry_from_row(
        [
            *(row.get(name) for name in SOURCE_COLUMNS[:-4]),
            "17.5",
            row["changed"],
            row["after"],
            row["previous"],
        ]
    )


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    """The process that forks the jobs."""
    with closing(Forker("feed_kills.py")) as process:
        yield process


class Killer:
    """A folder with six loads that are not complete yet, and processes that are killed there."""

    def __init__(self, folder: Path, process: Forker) -> None:
        self.folder, self.process, self.kills, n = folder, process, 0, 0
        self.plain = Plain(str(folder / "plain.db"))
        for load_id, count in enumerate(SIX):
            self.plain.put(
                str(load_id), *(a_change(n + i, f"sub_{(n + i) % 7}", seq=i) for i in range(count))
            )
            n += count

    def complete(self, n: int) -> None:
        self.plain.complete(str(n))

    def run(self, kind: str, point: str | None = None, at: int = 1) -> int:
        job = {"kind": kind, "point": point, "at": at, "folder": str(self.folder)}
        status = self.process.run(job)
        assert status in (0, -9)
        self.kills += status == -9
        return status

    def close(self) -> None:
        self.plain.close()

    @property
    def delivered(self) -> list[str]:
        file = self.folder / "delivered"
        return file.read_text().split() if file.exists() else []


@pytest.fixture
def killer(tmp_path: Path, forker: Forker) -> Iterator[Killer]:
    with closing(Killer(tmp_path, forker)) as made:
        yield made


@pytest.mark.parametrize("point", OF_KIND["relay"])
def test_c1_a_relay_killed_in_any_transaction_loses_nothing(killer: Killer, point: str) -> None:
    """The load of 25 is read in two spans and stored in five transactions."""
    killer.complete(4)
    for at in range(1, 6):
        killer.run("relay", point, at)
    killer.run("relay")

    with FeedStore(killer.folder / "copy.feed.sqlite") as log:
        check_log(log)
        assert ids_of(log) == [f"evt_{n}" for n in range(145, 170)]


def test_c1_killed_relays_and_consumers_lose_nothing(killer: Killer) -> None:
    for n in (1, 0, 2, 5, 3, 4):
        killer.complete(n)
        for at in range(1, 6):  # each transaction once
            killer.run("relay", OF_KIND["relay"][(n + at) % 4], at)
            killer.run("consume", OF_KIND["consume"][(n + at) % 2], at * 2)
        assert killer.run("relay") == 0
    killer.run("consume")

    assert killer.kills >= 40
    with FeedStore(killer.folder / "copy.feed.sqlite") as log:
        check_log(log)
        order = [
            range(10, 40),
            range(10),
            range(40, 140),
            range(170, 210),
            range(140, 145),
            range(145, 170),
        ]
        assert ids_of(log) == [f"evt_{n}" for some in order for n in some]
        firsts = list(dict.fromkeys(killer.delivered))
        assert firsts == ids_of(log)
        assert len(killer.delivered) - len(firsts) <= killer.kills


@pytest.mark.parametrize("point", OF_KIND["rebuild"])
def test_c1_a_killed_rebuild_leaves_the_old_log_or_the_new_one(killer: Killer, point: str) -> None:
    for n in (1, 0):
        killer.complete(n)
        killer.run("relay")
    killer.run("consume", "acknowledged", 35)
    file = killer.folder / "copy.feed.sqlite"
    with FeedStore(file) as log:
        old = ids_of(log)

    assert killer.run("rebuild", point) == -9

    with FeedStore(file) as log:
        check_log(log)
        swapped = point == "swapped"
        assert ids_of(log) == (sorted(old, key=lambda one: int(one[4:])) if swapped else old)
        assert consumers.lags(log, 0)[0].position == (5 if swapped else 35)
    assert killer.run("rebuild") == 0
    killer.run("consume")
    assert sorted(set(killer.delivered)) == sorted(old)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(40))
def test_c1_many_kills(killer: Killer, seed: int) -> None:
    chance, hidden = random.Random(seed), [0, 1, 2, 3, 4, 5]
    chance.shuffle(hidden)
    for _ in range(60):
        if hidden and chance.random() < 0.15:
            killer.complete(hidden.pop())
        kind = chance.choice(("relay", "relay", "consume", "consume", "rebuild"))
        killer.run(kind, chance.choice(OF_KIND[kind]), chance.randint(1, 12))
    for n in hidden:
        killer.complete(n)
    assert killer.run("relay") == killer.run("rebuild") == killer.run("consume") == 0

    with FeedStore(killer.folder / "copy.feed.sqlite") as log:
        check_log(log)
        assert ids_of(log) == [f"evt_{n}" for n in range(210)]
        assert set(killer.delivered) == set(ids_of(log))
    assert killer.kills > 5


def test_a_change_keeps_its_bodies_out_of_its_repr() -> None:
    found = change_from_row(1, 1, entry_of(1))

    assert "status': 's1'" not in repr(replace(found, after={"email": CANARY}))
    assert CANARY not in repr(replace(found, after={"email": CANARY}))
