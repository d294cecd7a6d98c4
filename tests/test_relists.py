"""What no event tells arrives all the same: new objects by their list, changes by listing the last
days or the whole list again, once in a while; each change once.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stripe_feed import sync_run
from stripe_feed.destination import load
from stripe_feed.extract.paging import reader
from stripe_feed.resources import RESOURCES
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.state.kinds import GROUPS
from stripe_feed.sync_run import Planned, dry_run
from stripe_feed.verify_run import verify
from tests.copies import PERMISSIONS, Copy, copy_of, first_copy
from tests.feed_truth import changes

DAY = 86_400
BY_TIME = ("balance_transactions", "invoice_payments")
"""Some changes have no event; of the first none has. The last days are listed again."""
WHOLE = ("quotes", "invoice_rendering_templates", "terminal_locations", "tax_codes")
"""Lists without a filter by time; only quotes have events. The last two do not say when an object
was created, and a location can be deleted.
"""
TABLES = (*BY_TIME, *WHOLE)
NAMES = ("customers", *TABLES)


def account(count: int = 4) -> Sandbox:
    """Some objects of each kind, none of them new."""
    box = Sandbox(seed=3, customers=3, invoices=3, subscriptions=3, oddities=False)
    box.advance(5_000)
    for table in TABLES:
        for _ in range(count):
            box.create(table)
            box.advance(13)
    box.advance(2_000)
    return box


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The database after a first sync of the account."""
    return first_copy(account(), tmp_path_factory.mktemp("loaded"), resources=NAMES).read_bytes()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Copy]:
    """The account, of which nothing is loaded."""
    with copy_of(account(), tmp_path, hold=True) as found:
        yield found


@pytest.fixture
def copy(loaded: bytes, empty: Copy) -> Copy:
    """A copy of the account that is up to date."""
    (empty.folder / empty.database).write_bytes(loaded)
    return empty


def sync(copy: Copy, **options: Any) -> Any:
    copy.box.counts.clear()
    return copy.sync(**{"resources": NAMES} | options)


def asked(box: Sandbox) -> Counter[str]:
    """Requests by table, others by the last name of the path."""
    listed = {name: row for name, row in RESOURCES.items() if row.parent is None}
    tables, found = {row.path: name for name, row in listed.items()}, Counter[str]()
    for (template, _), count in box.counts.items():
        found[tables.get(template, template.removeprefix("/v1/"))] += count
    return found


def some(box: Sandbox, table: str, n: int = 0) -> str:
    return list(box.objects(table))[n]


def told(copy: Copy) -> list[tuple[str, str, str, str]]:
    """All changes: resource, operation, origin, object."""
    return [(row["resource"], row["op"], row["origin"], row["object_id"]) for row in changes(copy)]


@contextmanager
def stopped_after_a_package() -> Iterator[None]:
    """Rows come by the page, and the run ends when the first package is loaded."""
    loads = iter([load.run_load])

    def load_once(*arguments: Any, **options: Any) -> Any:
        return next(loads)(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "MAX_TABLE_ROWS", 50)
        patch.setattr(sync_run, "run_load", load_once)
        with pytest.raises(StopIteration):
            yield


# -- a life, with a sync after each part
# -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What each sync said, asked and told: a first one, one after new objects, one soon after silent
    changes, and one a day later; `new` and `silent` are the ids by table.
    """
    box = account()
    with copy_of(box, tmp_path_factory.mktemp("lived"), hold=True) as copy:
        seen: dict[str, Any] = {"copy": copy}

        def note(name: str) -> None:
            done = sync(copy)
            seen[name] = (done, asked(box), told(copy) if name != "first" else [])

        note("first")
        box.advance(1_000)
        seen["new"] = {table: box.create(table)["id"] for table in TABLES}
        box.advance(100)
        note("soon")
        box.advance(3_600)
        seen["silent"] = {
            "balance_transactions": {"status": "available"},
            "invoice_payments": {"status": "canceled"},
            "quotes": {"description": "silent"},
            "invoice_rendering_templates": {"nickname": "silent"},
        }
        for table, fields in seen["silent"].items():
            box.update(table, some(box, table), **fields)
        seen["deleted"] = some(box, "terminal_locations", 1)
        box.delete("terminal_locations", seen["deleted"])
        box.advance(100)
        note("later")
        box.advance(DAY)
        note("next day")
        box.advance(3_600)
        note("idle")
        yield seen


def test_a_first_load_tells_nothing_and_reads_each_list_once(lived: dict[str, Any]) -> None:
    done, requests, _ = lived["first"]

    assert {table: done.rows[table] for table in TABLES} == dict.fromkeys(TABLES, 4)
    assert "changes" not in done.rows
    assert all(requests[table] == 1 for table in WHOLE)


def test_a_list_tells_new_objects_that_have_no_events(lived: dict[str, Any]) -> None:
    """At once where it can be filtered by time, if nothing else could; others by their events, or
    when they are listed again.
    """
    _, _, changes_soon = lived["soon"]
    _, _, changes_next = lived["next day"]
    new = lived["new"]

    assert ("balance_transactions", "c", "list", new["balance_transactions"]) in changes_soon
    assert ("quotes", "c", "event", new["quotes"]) in changes_soon
    assert len(changes_soon) == 2
    for table in set(TABLES) - {"balance_transactions", "quotes"}:
        assert (table, "c", "diff", new[table]) in changes_next
    created = Counter(table for table, op, _, _ in changes_next if op == "c")
    assert created == dict.fromkeys(TABLES, 1)


def test_silent_changes_are_told_once_when_the_lists_are_read_again(lived: dict[str, Any]) -> None:
    copy: Copy = lived["copy"]
    _, _, soon = lived["soon"]
    _, _, later = lived["later"]
    _, _, next_day = lived["next day"]

    assert later == soon, "nothing is listed again before its time"
    found = [change for change in next_day if change not in later and change[1] != "c"]
    assert sorted(found) == sorted(
        [
            *((table, "u", "diff", some(copy.box, table)) for table in lived["silent"]),
            ("terminal_locations", "d", "diff", lived["deleted"]),
        ]
    )
    assert lived["idle"][2] == next_day
    by_id = {row["object_id"]: row for row in changes(copy) if row["op"] == "u"}
    for table, fields in lived["silent"].items():
        assert by_id[some(copy.box, table)]["changed"] == list(fields)


def test_the_tables_equal_the_account_after_that(lived: dict[str, Any]) -> None:
    copy: Copy = lived["copy"]

    copy.check(*NAMES, found_later=True)
    gone = "select id from stripe.terminal_locations where deleted_at is not null"
    assert copy.select(gone) == [(lived["deleted"],)]


def test_verify_finds_no_difference(lived: dict[str, Any]) -> None:
    """Of whole lists it looks at the first page; what is due for the next comparison it tells."""
    copy: Copy = lived["copy"]
    options: dict[str, Any] = {
        "api_key": copy.box.key,
        "api_base": copy.url,
        "database": str(copy.folder / copy.database),
        "resources": NAMES,
    }

    copy.release()
    found = verify(**options)
    assert found.differences == []
    assert set(found.compared) == set(NAMES)


def test_between_its_times_no_whole_list_is_read(lived: dict[str, Any]) -> None:
    """An idle run asks each list with a filter by time once, the account, and the events."""
    requests = lived["idle"][1]

    assert requests == {
        "account": 1,
        "customers": 1,
        "balance_transactions": 1,
        "invoice_payments": 1,
        "events": 1,
    }
    assert lived["idle"][0].rows == {}
    again = lived["next day"][1]
    assert all(again[table] == 1 for table in TABLES)


def test_a_comparison_that_finds_nothing_asks_for_no_events(copy: Copy) -> None:
    """So a run in which all lists are due asks each of them once."""
    copy.box.advance(2 * DAY)

    sync(copy)

    assert asked(copy.box) == dict.fromkeys(("account", "events", *NAMES), 1)


def test_what_lists_keep_in_the_state_is_small(lived: dict[str, Any]) -> None:
    """Times only, whatever was read."""
    states = lived["copy"].states

    for table in TABLES:
        assert set(states[table]) <= {"t0", "left", "start", "shape", "since", "relisted"}
        assert not any(states[table]["left"])
    assert set(states["changes"]) == {"customers", "invoice_payments", "quotes"}


# -- what else can happen
# -------------------------------------------------------------------------------------------------


def test_a_change_whose_event_is_not_settled_is_left_to_it(copy: Copy) -> None:
    """Or it would be told twice."""
    quote, payment = some(copy.box, "quotes"), some(copy.box, "invoice_payments")
    copy.box.advance(DAY)
    copy.box.update("quotes", quote, status="canceled")
    copy.box.update("invoice_payments", payment, status="paid")
    copy.box.advance(10)

    sync(copy)
    before = told(copy)
    copy.box.advance(100)
    sync(copy)

    assert before == []
    assert sorted(told(copy)) == [
        ("invoice_payments", "u", "event", payment),
        ("quotes", "u", "event", quote),
    ]
    copy.check(*NAMES)


def test_a_change_within_the_look_back_of_the_list_is_told(copy: Copy) -> None:
    """The list shows the object again, and overwrites its row."""
    copy.box.advance(500)
    new = copy.box.create("balance_transactions")["id"]
    copy.box.advance(10)
    sync(copy)
    copy.box.update("balance_transactions", new, status="available")
    copy.box.advance(10)
    sync(copy)

    assert [change[1:3] for change in told(copy)] == [("c", "list"), ("u", "diff")]
    copy.check(*NAMES)


def test_how_often_lists_are_read_again_can_be_set(empty: Copy) -> None:
    """And what it costs is shown before."""

    def planned(**options: Any) -> dict[str, Planned]:
        plans = dry_run(
            api_key=empty.box.key,
            api_base=empty.url,
            database=str(empty.folder / empty.database),
            resources=NAMES,
            **options,
        )
        return {plan.resource: plan for plan in plans}

    assert planned()["quotes"].requests is None, "nothing tells how long a list is"
    sync(empty)
    empty.box.advance(1_000)

    assert [p.kind for p in planned().values()] == ["new"] * 3 + ["events"]
    plans = planned(relist_hours=0.25)
    assert {name: plan.kind for name, plan in plans.items()} == {
        "customers": "new",
        **dict.fromkeys(TABLES, "again"),
        "changes": "events",
    }
    requests = sum(plan.requests or 0 for plan in plans.values())
    assert sync(empty, relist_hours=0.25).requests == requests + 1  # the account
    assert sync(empty, relist_hours=0.25).requests < requests


def test_an_interrupted_first_load_tells_nothing_either(empty: Copy) -> None:
    """What is created meanwhile is new, and told once."""
    for _ in range(120):
        empty.box.create("tax_codes")
        empty.box.create("quotes")
        empty.box.create("balance_transactions")
        empty.box.advance(1)
    empty.box.advance(1_000)
    long = ("tax_codes", "quotes", "balance_transactions")
    for table in long:
        with stopped_after_a_package():
            sync(empty, checkpoint_rows=10, resources=[table])
    parts = [empty.one(f"select count(*) from stripe.{table}") for table in long]
    empty.box.advance(1_000)
    new = {table: empty.box.create(table)["id"] for table in ("quotes", "balance_transactions")}
    empty.box.advance(100)
    sync(empty, checkpoint_rows=10, resources=long)
    sync(empty, resources=long)

    assert all(0 < part < 124 for part in parts), "the first package has a part of each list"
    assert {change[3] for change in told(empty) if change[1] == "c"} == set(new.values())
    assert len(told(empty)) == 2
    empty.check(*long)


def test_an_interrupted_relist_goes_on_and_tells_the_rest(copy: Copy) -> None:
    """New objects and changed ones, each once."""
    copy.box.advance(DAY)
    new = set[str]()
    for _ in range(150):
        new.add(copy.box.create("balance_transactions")["id"])
        copy.box.advance(1)
    changed = some(copy.box, "balance_transactions")
    copy.box.update("balance_transactions", changed, status="available")
    copy.box.advance(10)
    with stopped_after_a_package():
        sync(copy, checkpoint_rows=10)
    part = len(told(copy))
    copy.box.advance(100)
    sync(copy)

    found = [change for change in told(copy) if change[0] == "balance_transactions"]
    assert 0 < part < 151
    assert sorted(found) == sorted(
        [
            ("balance_transactions", "u", "diff", changed),
            *(("balance_transactions", "c", "list", id) for id in new),
        ]
    )
    copy.check(*NAMES)


def test_a_key_that_may_not_read_events_finds_changes_of_whole_lists(empty: Copy) -> None:
    """And no second change comes with the permission."""
    lists = {RESOURCES[table].permission for table in NAMES}
    key = empty.box.restrict(permissions=(PERMISSIONS | lists) - {"rak_event_read"})
    some_tables = {"resources": (*BY_TIME, "quotes", "tax_codes")}
    sync(empty, api_key=key, **some_tables)
    empty.box.advance(500)
    new = {table: empty.box.create(table)["id"] for table in some_tables["resources"]}
    empty.box.update("quotes", some(empty.box, "quotes"), status="canceled")
    empty.box.advance(DAY)

    sync(empty, api_key=key, **some_tables)
    found = told(empty)
    sync(empty, **some_tables)
    empty.box.advance(1_000)
    sync(empty, **some_tables)

    assert {change[0]: change[3] for change in found if change[1] == "c"} == new
    assert [change[:3] for change in found if change[1] != "c"] == [("quotes", "u", "diff")]
    assert told(empty) == found
    empty.check(*some_tables["resources"])


def test_an_own_pipeline_reads_lists_again_too(copy: Copy) -> None:
    """Where events were applied in the same package, the comparison is the next run's first."""
    names = (*NAMES, "changes")
    copy.box.advance(DAY)
    copy.box.update("quotes", some(copy.box, "quotes"), status="canceled")
    copy.box.update("quotes", some(copy.box, "quotes", 1), description="silent")
    copy.box.advance(100)

    copy.run(copy.source().with_resources(*names))
    first = [change[:3] for change in told(copy)]
    copy.run(copy.source().with_resources(*names))

    assert first == [("quotes", "u", "event")]
    assert [change[:3] for change in told(copy)] == [*first, ("quotes", "u", "diff")]
    copy.check(*NAMES)


def test_without_changes_whole_lists_are_read_for_their_rows(
    empty: Copy, caplog: pytest.LogCaptureFixture
) -> None:
    """New and changed rows arrive; nothing is told, also not later."""
    names = ("quotes", "tax_codes")
    empty.run(empty.source().with_resources(*names))
    empty.box.create("tax_codes")
    empty.box.update("quotes", some(empty.box, "quotes"), description="silent")
    empty.box.advance(DAY)
    with caplog.at_level(logging.WARNING):
        empty.run(empty.source().with_resources(*names))

    assert "`changes` is not selected" in caplog.text
    empty.check(*names)
    sync(empty, resources=names)
    assert told(empty) == []


def test_dates_hold_for_lists_without_a_filter_by_time(empty: Copy) -> None:
    """An earlier start reads them again; a fixed range leaves the cursor alone."""
    now = empty.box.now
    middle = empty.box.objects("quotes")[some(empty.box, "quotes", 2)]["created"]

    def held() -> list[int]:
        return [
            empty.one(f"select count(*) from stripe.{name}") for name in ("quotes", "tax_codes")
        ]

    names = ("quotes", "tax_codes")
    sync(empty, start_date=middle, resources=names)
    from_start = held()
    sync(empty, start_date=middle - 13, resources=names)
    earlier, state = held(), empty.states["quotes"]
    sync(empty, start_date=now - 9_000, end_date=middle - 13, resources=names)

    assert (from_start, earlier, held()) == ([2, 4], [3, 4], [4, 4])
    assert empty.states["quotes"] == state
    assert told(empty) == []


def test_a_snapshot_has_objects_without_events_too(empty: Copy) -> None:
    """One change of op `r` per object, once."""
    names = ("balance_transactions", "tax_codes")
    sync(empty, snapshot=True, resources=names)
    empty.box.advance(1_000)
    sync(empty, snapshot=True, resources=names)

    count = Counter(change[:3] for change in told(empty))
    assert count == {(table, "r", "snapshot"): 4 for table in names}


def test_an_empty_whole_list_is_not_taken_for_a_lost_table(tmp_path: Path) -> None:
    """It is read when its time has come; what is new then is told."""
    names = ("quotes", "tax_codes")
    with copy_of(account(0), tmp_path, hold=True) as copy:
        sync(copy, resources=names)
        copy.box.advance(1_000)
        sync(copy, resources=names)
        idle = asked(copy.box)
        new = {copy.box.create(table)["id"] for table in names}
        copy.box.advance(DAY)
        sync(copy, resources=names)

        assert not set(names) & idle.keys()
        assert {change[3] for change in told(copy)} == new
        copy.check(*names)


def test_a_table_that_is_gone_comes_back_without_a_change(copy: Copy) -> None:
    """Somebody has dropped it: its objects are no news."""
    for table in TABLES:
        copy.select(f"delete from stripe.{table}")
    copy.box.advance(DAY)
    sync(copy)

    assert told(copy) == []
    copy.check(*NAMES)


def history(seed: int, folder: Path) -> None:
    """A first load, then what happened since, told or not; each run lists everything again, and tells
    each new object once.
    """
    dice = random.Random(f"silent {seed}")
    names = ("customers", *dice.sample(TABLES, 4))
    box = Sandbox(seed=seed, customers=4, oddities=False, groups=GROUPS)
    box.advance(3_600)
    with pytest.MonkeyPatch.context() as patch, copy_of(box, folder, hold=True) as copy:
        for table in BY_TIME:  # whatever their age
            patch.setitem(RESOURCES, table, replace(RESOURCES[table], relist_days=36_500))
        copy.sync(resources=names)
        first = {table: set(box.objects(table)) for table in names}
        for _ in range(3):
            box.live(dice.choice((60, 5_000, 90_000)), dice.choice((20, 60)))
            box.advance(600)
            copy.sync(resources=names, relist_hours=0)
            copy.check(*names, found_later=True)
            created = [change for change in told(copy) if change[1] == "c"]
            assert len(created) == len(set(created))
            for table in names:
                held = {id for (id,) in copy.select(f"select id from stripe.{table}")}
                assert {c[3] for c in created if c[0] == table} == held - first[table]


def test_tables_equal_a_random_history_of_silent_changes(tmp_path: Path) -> None:
    history(1, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 40))
def test_tables_equal_many_random_histories_of_silent_changes(seed: int, tmp_path: Path) -> None:
    history(seed, tmp_path)
