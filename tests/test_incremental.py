"""What a later run reads, and what it leaves alone: cursors, ranges, late objects, and copies that
went back in time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dlt.common.configuration.utils import get_resolved_traces
from dlt.common.exceptions import SourceSectionNotAvailable

from stripe_feed.extract.run import open_run
from stripe_feed.extract.stream import follow_plan
from stripe_feed.resources import CHANGES
from stripe_feed.sandbox import Sandbox
from tests.copies import Copy, copy_of
from tests.core import CORE

DAY = 86_400
LOOK_BACK = 300
SOME = ("customers", "invoices")  # enough where all resources do the same
MOST = ("customers", "prices", "subscriptions")  # with items, and prices that no list shows


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    """A few objects of each kind, none of them new, and an empty copy of it."""
    box = Sandbox(seed=3, customers=4, invoices=3, subscriptions=3, oddities=False)
    box.advance(DAY)
    with copy_of(box, tmp_path, hold=True) as found:
        yield found


def ids(copy: Copy, table: str) -> set[str]:
    return {id for (id,) in copy.select(f"select id from stripe.{table}")}


def asked(box: Sandbox, table: str) -> list[dict[str, str]]:
    """The windows of `created` that were asked for in one list."""
    return [call.params["created"] for call in box.log if call.template == f"/v1/{table}"]


def about(one: int, other: int) -> bool:
    """Whether two times are the same but for the seconds that a slow machine adds to Stripe's."""
    return abs(one - other) < 60


def books(copy: Copy) -> list[int]:
    """How many loads, states and schemas the destination has noted."""
    return [
        copy.one(f"select count(*) from stripe.{table}")
        for table in ("_dlt_loads", "_dlt_pipeline_state", "_dlt_version")
    ]


# -- by cursor
# --------------------------------------------------------------------------------------------------------------


def test_new_objects_are_loaded_by_their_cursor(copy: Copy) -> None:
    """One more of each kind, its children complete; nothing older than the look-back is asked for."""
    copy.load()
    before = copy.box.now
    copy.box.advance(DAY)
    product = copy.box.create("products")["id"]
    copy.box.create(
        "prices", product=product, currency="eur", unit_amount=1200, recurring={"interval": "month"}
    )
    copy.box.create("customers")
    copy.box.create("subscriptions", items=12)
    copy.box.create("invoices", lines=12)
    copy.box.advance(1)
    copy.box.reset_counts()
    done = copy.sync()

    copy.check()
    assert {
        table: done.rows[table]
        for table in ("customers", "products", "subscriptions", "subscription_items")
    } == {
        "customers": 1,
        "products": 1,
        "subscriptions": 1,
        "subscription_items": 12,
    }
    for table in CORE:
        assert all(
            about(int(window["gte"]), before - LOOK_BACK) for window in asked(copy.box, table)
        )


@pytest.mark.parametrize(("look_back", "found"), [(100, False), (LOOK_BACK, True)])
def test_the_look_back_bounds_how_late_an_object_may_be(
    copy: Copy, look_back: int, found: bool
) -> None:
    """It becomes visible after the listing that should have had it, 200 seconds below its cursor."""
    copy.load(resources=["customers"])
    late = copy.box.create("customers", created=copy.box.now - 200)["id"]
    copy.box.advance(10)
    copy.sync(resources=["customers"], look_back=look_back)

    assert (late in ids(copy, "customers")) is found


def test_a_run_with_nothing_new_writes_nothing(copy: Copy) -> None:
    """No package, no state, no load is noted, and few requests are sent; in `sync` and in a plain
    run.
    """
    copy.box.create("invoices", created=copy.box.now - 10, lines=3)
    copy.box.advance(1)  # its event is older than the copy
    copy.load()
    noted = books(copy)
    before = [
        copy.select(f"select id, _dlt_load_id from stripe.{table} order by 1") for table in CORE
    ]
    for run in (copy.sync, copy.run):
        copy.box.advance(100)
        copy.box.reset_counts()
        done: Any = run()

        assert books(copy) == noted
        assert (
            (done.packages, done.requests) == (0, 10)
            if run == copy.sync
            else not done.has_pending_data
        )
        assert copy.box.counts.total() == 10  # the account, seven walks, and two pages of events
    assert [
        copy.select(f"select id, _dlt_load_id from stripe.{table} order by 1") for table in CORE
    ] == before
    copy.check()


def test_lists_come_first_and_the_events_after_them(copy: Copy) -> None:
    """In `sync` and in a plain run; what was created a second ago is in its table although its event
    is not settled yet.
    """
    copy.load()
    asked: list[str] = []
    lists = {row.path for row in CORE.values()}
    copy.box.on_request = lambda template, params: asked.append(template)
    for run in (copy.sync, copy.run):
        copy.box.advance(1_000)
        for _ in range(250):
            made = copy.box.create("customers")["id"]
        copy.box.advance(1)
        asked.clear()
        run()

        first = asked.index("/v1/events")
        assert lists <= set(asked[:first])
        assert not lists & set(asked[first:])
        assert made in ids(copy, "customers")


def test_events_wait_until_every_list_has_ended() -> None:
    """Before that they do not even look at the state, which only a pipeline has."""
    context = open_run({})
    changes = follow_plan(context, ["customers", "invoices", CHANGES])
    assert [next(changes) for _ in range(3)] == [None] * 3
    context.end_list("customers")
    assert next(changes) is None
    context.end_list("invoices")
    with pytest.raises(SourceSectionNotAvailable):
        next(changes)


@pytest.mark.parametrize("runs", [2, 5])
def test_an_idle_cursor_is_stored_every_six_hours(copy: Copy, runs: int) -> None:
    """Or a copy of a quiet account would list an ever longer time; not more often, or each run
    would write. What dlt has looked up in its settings is kept of one run only.
    """
    copy.load(resources=["customers"])
    first, noted = copy.box.now, books(copy)[1]
    found, lookups = [], []
    for hours in (5, 2, 1, 4, 2)[:runs]:
        copy.box.advance(hours * 3600)
        copy.sync(resources=["customers"])
        found.append(
            (books(copy)[1] - noted, round((copy.states["customers"]["t0"] - first) / 3600))
        )
        lookups.append(get_resolved_traces().all_traces)

    assert found == [(0, 0), (1, 7), (1, 7), (1, 7), (2, 14)][:runs]
    assert lookups[0] is not lookups[1]


@pytest.mark.parametrize("told", [True, False], ids=["told by an event", "without events"])
def test_an_object_of_the_future_comes_when_its_time_comes(copy: Copy, told: bool) -> None:
    """Or with its event, where that tells of it. The cursor does not jump ahead to it: what is
    created meanwhile is loaded.
    """
    key = copy.box.key if told else copy.box.restrict(permissions={"rak_customer_read"})
    future = copy.box.create("customers", created=copy.box.now + 3 * DAY)["id"]
    copy.sync(resources=["customers"], api_key=key)
    assert about(copy.states["customers"]["t0"], copy.box.now)
    assert future not in ids(copy, "customers")

    copy.box.advance(DAY)
    meanwhile = copy.box.create("customers")["id"]
    copy.box.advance(DAY)
    copy.sync(resources=["customers"], api_key=key)
    assert {future, meanwhile} & ids(copy, "customers") == {meanwhile, *([future] if told else [])}
    assert about(copy.states["customers"]["t0"], copy.box.now)

    copy.box.advance(2 * DAY)
    copy.sync(resources=["customers"], api_key=key)
    copy.check("customers")
    assert future in ids(copy, "customers")


@pytest.mark.parametrize("runs", [1, 2])
def test_a_key_without_events_tells_what_is_new_by_its_lists(copy: Copy, runs: int) -> None:
    """One change for each new object, in whatever run it is found; none of a first load, and none
    twice once events are read.
    """
    key = copy.box.restrict(permissions={CORE[table].permission for table in SOME})
    copy.sync(resources=SOME, api_key=key)
    new = []
    for _ in range(runs):
        copy.box.advance(DAY)
        new += [
            ("customers", copy.box.create("customers")["id"]),
            ("invoices", copy.box.create("invoices", lines=12)["id"]),
        ]
        copy.box.advance(10)
        done = copy.sync(resources=SOME, api_key=key)
        assert set(done.refused) == {"changes"}
        copy.check(*SOME)
    copy.box.advance(100)
    assert copy.sync(resources=SOME).refused == {}

    told = copy.select(
        "select resource, object_id, op, origin, after ->> '$.id' from stripe.changes order by occurred_at, 1"
    )
    assert told == [(table, id, "c", "list", id) for table, id in new]
    copy.check(*SOME)


# -- start and end
# ----------------------------------------------------------------------------------------------------------


def test_a_range_loads_what_lies_in_it_and_leaves_the_cursor_alone(copy: Copy) -> None:
    """The start included, the end not. The first real run then loads everything."""
    start = copy.box.now - 10 * DAY
    edges = [
        copy.box.create("customers", created=start + shift)["id"]
        for shift in (-1, 0, 5 * DAY - 1, 5 * DAY)
    ]
    copy.box.create("invoices", created=start + DAY, lines=12)
    copy.sync(resources=SOME, start_date=start, end_date=start + 5 * DAY)

    copy.check(*SOME, since=start, until=start + 5 * DAY)
    assert ids(copy, "customers") & set(edges) == set(edges[1:3])
    assert not any(copy.states.values())
    copy.sync(resources=SOME)
    copy.check(*SOME)


def test_a_backfill_between_two_runs_moves_no_cursor(copy: Copy) -> None:
    """An orchestrator reads a day once more; the next run goes on from where the last one was."""
    copy.sync(resources=SOME)
    states = copy.states
    copy.box.advance(DAY)
    copy.box.create("customers")
    copy.box.advance(DAY)
    copy.box.create("customers")
    copy.sync(resources=SOME, start_date=copy.box.now - DAY // 2, end_date=copy.box.now + 10 * DAY)
    assert copy.states == states

    copy.box.advance(10)
    copy.sync(resources=SOME)
    copy.check(*SOME)


def test_a_start_date_leaves_out_what_is_older_and_a_lower_one_fills_the_gap(copy: Copy) -> None:
    """Each part is read once; without a start everything is there in the end, undated and imported
    objects too.
    """
    copy.box.create("customers", created=None)
    copy.box.create("customers", created=copy.box.account.start - DAY)
    middle = copy.box.now - 300 * DAY
    copy.sync(resources=SOME, start_date=middle)
    copy.check(*SOME, since=middle)

    copy.box.reset_counts()
    copy.sync(resources=SOME, start_date=middle - 300 * DAY)
    copy.check(*SOME, since=middle - 300 * DAY)
    older, newer = sorted({int(window["lt"]) for window in asked(copy.box, "customers")})
    assert older == middle and about(newer, copy.box.now)

    copy.sync(resources=SOME)
    copy.check(*SOME)


def test_a_later_start_date_is_remembered_as_the_earliest_that_was_asked_for(copy: Copy) -> None:
    """It does not skip what the cursor has not seen, and a run without one reads what is older than
    the earliest, once.
    """
    first, later = copy.box.now - 300 * DAY, copy.box.now - 2
    copy.sync(resources=SOME, start_date=first)
    copy.box.advance(DAY)
    copy.box.create("customers")
    copy.box.advance(DAY)
    copy.sync(resources=SOME, start_date=later)
    copy.check(*SOME, since=first)
    assert [copy.states[table]["start"] for table in SOME] == [first] * len(SOME)

    copy.box.reset_counts()
    copy.sync(resources=SOME)
    copy.check(*SOME)
    for table in SOME:
        older, newer = sorted(asked(copy.box, table), key=lambda window: int(window["lt"]))
        assert int(older["lt"]) == first and about(int(newer["gte"]), copy.box.now - LOOK_BACK)

    copy.box.reset_counts()
    copy.sync(resources=SOME)
    for table in SOME:
        assert all(
            about(int(window["gte"]), copy.box.now - LOOK_BACK) for window in asked(copy.box, table)
        )


# -- more of the account
# ----------------------------------------------------------------------------------------------------


def test_a_resource_that_is_selected_later_is_loaded_whole(copy: Copy) -> None:
    """Each resource has a cursor of its own."""
    copy.load(resources=["customers"])
    copy.box.advance(DAY)
    copy.box.create("invoices", lines=12)
    copy.box.advance(10)
    copy.sync(resources=SOME)

    copy.check(*SOME)


def test_objects_on_test_clocks_are_loaded_on_request(tmp_path: Path) -> None:
    """Lists hide them unless their clock is named; they live in a time of their own."""
    with copy_of(
        Sandbox(seed=4, customers=100, invoices=20, subscriptions=20), tmp_path, hold=True
    ) as copy:
        some = ("customers", "subscriptions", "invoices")
        copy.sync(resources=some)
        copy.check(*some)
        for table in some:
            assert (
                copy.one(f"select count(*) from stripe.{table} where test_clock is not null") == 0
            )

        copy.sync(test_clocks=True, full_refresh=True)
        copy.check(*some, clocks=True)
        for table in some:
            assert copy.one(f"select count(*) from stripe.{table} where test_clock is not null") > 0


# -- copies that went back in time
# ------------------------------------------------------------------------------------------


@pytest.fixture
def twice(copy: Copy) -> Copy:
    """A copy after two runs; `older.duckdb` is its file after the first one."""
    copy.load(resources=MOST)
    copy.release()
    shutil.copy(copy.folder / copy.database, copy.folder / "older.duckdb")
    copy.box.advance(DAY)
    copy.box.create("customers")
    copy.box.create("subscriptions", items=[{"price_data": {"unit_amount": 77}}, {}])
    copy.box.advance(10)
    copy.sync(resources=MOST)
    copy.box.advance(DAY)
    return copy


def test_an_older_database_that_was_restored_loses_nothing(twice: Copy) -> None:
    """The cursors are those of the database, not those that dlt remembers."""
    twice.release()
    shutil.copy(twice.folder / "older.duckdb", twice.folder / twice.database)
    assert (
        twice.one("select count(*) from stripe.customers")
        == len(twice.box.objects("customers")) - 1
    )
    twice.sync(resources=MOST)

    twice.check(*MOST)


@pytest.mark.parametrize("plain", [False, True], ids=["sync", "plain run"])
def test_a_working_directory_that_was_deleted_costs_nothing(twice: Copy, plain: bool) -> None:
    """State and schema are in the destination: the next run reads what is new, and nothing else."""
    shutil.rmtree(twice.folder / twice.state)
    twice.box.create("customers")
    twice.box.advance(10)
    twice.box.reset_counts()
    twice.run(twice.source().with_resources(*MOST)) if plain else twice.sync(resources=MOST)

    twice.check(*MOST)
    windows = asked(twice.box, "customers")
    read_from = twice.box.now - DAY - LOOK_BACK
    assert windows and all(about(int(window["gte"]), read_from) for window in windows)


def test_a_database_that_was_deleted_is_loaded_anew(twice: Copy) -> None:
    """dlt's state of the former one does not count."""
    twice.release()
    (twice.folder / twice.database).unlink()
    twice.sync(resources=MOST)

    twice.check(*MOST)


@pytest.mark.parametrize("lost", ["subscription_items", "prices"])
def test_a_load_that_ended_half_way_in_a_lost_container_is_done_again(
    twice: Copy, lost: str
) -> None:
    """Some of its tables were merged, then process and working directory were gone: its rows do not
    pass for loaded.
    """
    last = twice.one("select max(load_id) from stripe._dlt_loads")
    with twice.pipeline.sql_client() as client:
        for table in (lost, "_dlt_pipeline_state"):
            client.execute_sql(f"delete from stripe.{table} where _dlt_load_id = '{last}'")
        client.execute_sql(f"delete from stripe._dlt_loads where load_id = '{last}'")
    shutil.rmtree(twice.folder / twice.state)
    twice.box.reset_counts()
    twice.sync(resources=MOST)

    twice.check(*MOST)
    read_from = twice.box.now - 2 * DAY - LOOK_BACK  # where the last load that is noted ended
    windows = asked(twice.box, "customers")
    assert windows and all(about(int(window["gte"]), read_from - 10) for window in windows)
