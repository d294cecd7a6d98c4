"""Triggers on models: a message for each row that enters, leaves or changes, and none else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from stripe_feed.delivery.outbox import counts, discard, find, release
from stripe_feed.errors import Locked, UsageError
from stripe_feed.feed.feed import open_feed
from stripe_feed.feed.lookups import NO_LOOKUPS
from stripe_feed.feed.storage import maintenance
from stripe_feed.feed.storage.salvage import salvage
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.server.metrics import LateCounter, metrics
from stripe_feed.server.page import read_overview, render_page
from stripe_feed.triggers.config import check_triggers, read_triggers
from stripe_feed.triggers.models import evaluate, model_rows
from stripe_feed.triggers.models.explain import explain_rows, try_rows
from stripe_feed.triggers.models.model_trigger import MODEL_PRESETS
from stripe_feed.triggers.models.replay import replay_rows
from stripe_feed.triggers.models.schedule import ModelSchedule
from stripe_feed.triggers.run import split_triggers, trigger_loop
from tests.commands import holding
from tests.deliveries import NOW, Clock, Scripted, a_trigger, add, once, updates
from tests.feed_kills import a_copy
from tests.model_triggers import (
    SELECT_ALL,
    Watched,
    a_model_trigger,
    build_as_of,
    check_against_calculation,
    row,
)
from tests.raw_tables import empty_tables, one_subscription

CANARY = "canary@example.com"

EVERYTHING: Any = {"watch": ["mrr"], "on": ["entered", "left", "changed"]}


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with FeedStore(tmp_path / "copy.feed.sqlite") as store:
        yield Watched(store)


# What becomes a message


def test_the_first_evaluation_is_silent_and_later_ones_tell_what_happened(watched: Watched) -> None:
    trigger = a_model_trigger(**EVERYTHING)
    watched.hold({"a": row(1), "b": row(2), "c": row(3)})

    first = watched.evaluate_one(trigger)
    assert (first.is_new, first.baseline, first.fired) == (True, 3, 0)

    watched.hold({"b": row(5, note="x"), "c": row(3, note="y"), "d": row(4)})
    second = watched.evaluate_one(trigger)

    assert (second.seen, second.fired, second.baseline) == (3, 3, None)
    assert watched.told() == [("entered", "d"), ("left", "a"), ("changed", "b")]
    assert watched.evaluate_one(trigger).seen == 0  # `note` is not watched


def test_messages_have_the_row_of_before_and_of_now(watched: Watched) -> None:
    trigger = a_model_trigger(**EVERYTHING)
    watched.hold({"a": row(1), "b": row(2)})
    watched.evaluate_one(trigger)
    watched.hold({"b": row(5, note="x"), "d": row(4, customer="cus_4")})
    watched.evaluate_one(trigger)

    entered, left, changed = watched.changes()

    assert (entered.op, entered.before, entered.after) == (
        "c",
        None,
        {"id": "d", **row(4, "cus_4")},
    )
    assert (left.op, left.before, left.after) == ("d", {"id": "a", **row(1)}, None)
    assert (changed.op, changed.before, changed.after) == (
        "u",
        {"id": "b", **row(2)},
        {"id": "b", **row(5, note="x")},
    )
    assert [one.customer_id for one in (entered, left, changed)] == ["cus_4", "cus_1", "cus_1"]
    assert changed.changed == ["mrr"]
    assert {one.event_type for one in watched.changes()} == {
        "watched.entered", "watched.left", "watched.changed",
    }  # fmt: skip


def test_a_row_that_left_and_came_back_fires_again(watched: Watched) -> None:
    again, once_ever = a_model_trigger("again"), a_model_trigger("once", enrol="once")
    for rows in ({}, {"a": row()}, {}, {"a": row()}):
        watched.hold(rows)
        watched.evaluate(again, once_ever)

    assert watched.told("again") == [("entered", "a")] * 2
    assert watched.told("once") == [("entered", "a")]
    ids = [one.message_id for one in find(watched.store, trigger="again")]
    assert len(set(ids)) == 2
    assert [one.object_version for one in watched.changes("again")] == [1, 2]


def test_bytes_are_told_in_hexadecimal(watched: Watched) -> None:
    trigger = a_model_trigger(sql="select id, 'a'::blob as fingerprint from watched")
    watched.evaluate_one(trigger)
    watched.hold({"a": row()})
    watched.evaluate_one(trigger)

    (change,) = watched.changes()
    assert change.after == {"id": "a", "fingerprint": "61"}


def test_only_rows_that_count_are_watched(watched: Watched) -> None:
    trigger = a_model_trigger(rows="mrr >= 7 -- and nothing else", **EVERYTHING)
    watched.hold({"a": row(6), "b": row(9)})
    watched.evaluate_one(trigger)
    watched.hold({"a": row(7), "b": row(6)})
    watched.evaluate_one(trigger)

    assert watched.told() == [("entered", "a"), ("left", "b")]


def test_where_judges_the_rows_of_before_and_now(watched: Watched) -> None:
    fell = a_model_trigger(on="changed", watch="mrr", where="after.mrr < before.mrr")
    watched.hold({"a": row(5), "b": row(5)})
    watched.evaluate_one(fell)
    watched.hold({"a": row(4), "b": row(6)})
    result = watched.evaluate_one(fell)

    assert (result.seen, watched.told()) == (2, [("changed", "a")])


def test_a_changed_rule_is_a_new_silent_baseline(watched: Watched) -> None:
    watched.hold({"a": row(1)})
    watched.evaluate_one(a_model_trigger())
    watched.hold({"a": row(1), "b": row(9), "c": row(9)})

    edited = a_model_trigger(rows="mrr < 10")
    assert watched.evaluate_one(edited).baseline == 3
    watched.hold({"d": row(1)})
    watched.evaluate_one(edited)

    assert watched.told() == [("entered", "d")]
    assert len(watched.store.query("select 1 from model_rows")) == 1


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ([("a", 1), ("b", 1), ("b", 2)], "The key (id) of watched is not unique: b. "),
        (
            [(f"k{n}", 1) for n in range(7) for _ in range(2)],
            "The key (id) of watched is not unique: k0, k1, k2, k3, k4 and 2 more. ",
        ),
        ([("a", 1), (None, 1)], "The key (id) is null in 1 row of watched. "),
    ],
    ids=["double", "many", "null"],
)
def test_null_and_double_keys_are_an_error_that_names_them(
    watched: Watched, given: list[tuple[str | None, int]], names: str
) -> None:
    trigger, other = a_model_trigger(), a_model_trigger("other", sql="select 1 as id")
    watched.hold({"a": row()})
    watched.evaluate(trigger, other)
    watched.connection.execute("delete from watched")
    for key, mrr in given:
        watched.connection.execute("insert into watched (id, mrr) values (?, ?)", [key, mrr])

    broken, fine = watched.evaluate(trigger, other)

    assert broken.error is not None and broken.error.startswith(names)
    assert fine.error is None
    watched.hold({"a": row(), "b": row()})
    watched.evaluate_one(trigger)
    assert watched.told() == [("entered", "b")]  # what was known is as it was


def test_keys_of_several_columns_stay_apart(watched: Watched) -> None:
    trigger = a_model_trigger(key=["id", "note"])
    watched.evaluate_one(trigger)
    watched.connection.execute(
        r"insert into watched (id, note) values ('a/b', 'c'), ('a', 'b/c'), ('a\', 'b'), ('a', '\/b')"
    )
    watched.evaluate_one(trigger)

    assert sorted(key for _, key in watched.told()) == [
        "a/\\\\\\/b", "a/b\\/c", "a\\/b/c", "a\\\\/b",
    ]  # fmt: skip


def test_values_that_look_alike_are_not_alike(watched: Watched) -> None:
    trigger = a_model_trigger(watch=["note", "customer_id"], on="changed")
    watched.hold({"a": row(customer="x", note="1:y"), "b": row(note=None), "c": row(note="-")})
    watched.evaluate_one(trigger)
    watched.hold({"a": row(customer="1:x", note="y"), "b": row(note="-"), "c": row(note=None)})

    assert watched.evaluate_one(trigger).fired == 3


def test_another_version_of_the_engine_compares_all_rows_and_fires_for_none(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = a_model_trigger(**EVERYTHING)
    watched.hold({key: row() for key in "abcdef"})
    watched.evaluate_one(trigger)
    newer = ("'newer'", "hash('salt' || {})", "hash({}, 1)")
    monkeypatch.setitem(model_rows._HASHES, "duckdb", newer)

    assert watched.evaluate_one(trigger).seen == 0
    watched.hold({**{key: row() for key in "abcde"}, "a": row(2), "g": row()})
    watched.evaluate_one(trigger)

    assert watched.told() == [("entered", "g"), ("left", "f"), ("changed", "a")]


# Guard, sending, kills


def test_the_guard_holds_a_flood_and_a_release_sends_it_once(watched: Watched) -> None:
    trigger = a_model_trigger(guard={"max": 2})
    watched.evaluate_one(trigger)
    watched.hold({key: row() for key in "abc"})

    held = watched.evaluate_one(trigger).held
    assert held == "it would fire 3 times within 10 minutes, more than 2"
    assert counts(watched.store) == {"t": {"held": 3}}
    watched.hold({key: row() for key in "abcd"})
    watched.evaluate_one(trigger)
    assert counts(watched.store) == {"t": {"held": 4}}

    assert release(watched.store, "t", watched.now) == 4
    sink = Scripted()
    assert once(watched.store, trigger, sink, lambda: watched.now).sent == 4
    assert sorted(said["meta"]["object_id"] for _, said in sink.taken) == ["a", "b", "c", "d"]


def test_the_share_of_the_guard_is_of_the_rows_of_the_model(watched: Watched) -> None:
    trigger = a_model_trigger()
    watched.connection.execute("insert into watched (id) select 'old_' || n from range(150) r(n)")
    watched.evaluate_one(trigger)
    watched.connection.execute("insert into watched (id) select 'new_' || n from range(160) r(n)")

    held = watched.evaluate_one(trigger).held

    assert held == "it would fire for 160 objects within 10 minutes, more than 50% of 310 objects"
    assert discard(watched.store, "t", watched.now) == 160
    assert watched.evaluate_one(trigger).held is None


def test_a_message_is_made_once_wherever_an_evaluation_is_cut_off(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = a_model_trigger(**EVERYTHING)
    watched.hold({"a": row()})
    watched.evaluate_one(trigger)
    watched.hold({"b": row()})
    for name in ("hold", "store_messages", "_insert", "_store_rows", "_advance"):

        def cut(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(evaluate, name, cut)
            watched.evaluate(trigger)
        assert watched.told() == []

    watched.evaluate_one(trigger)
    watched.evaluate_one(trigger)
    assert watched.told() == [("entered", "b"), ("left", "a")]


def test_two_evaluations_at_once_fire_once(watched: Watched) -> None:
    trigger = a_model_trigger()
    watched.evaluate_one(trigger)
    watched.hold({"a": row()})

    def overtaken(read: Any) -> Any:
        found = read(watched.database)
        watched.evaluate_one(trigger)
        return found

    evaluate.evaluate_models(watched.store, [trigger], watched.now, overtaken)

    assert watched.told() == [("entered", "a")]


# Models of the package


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Watched]:
    """The raw tables of an account with an open invoice that is due on 10 November."""
    with FeedStore(tmp_path / "copy.feed.sqlite") as store:
        made = Watched(store, schema=None)
        empty_tables(made.connection)
        made.connection.execute("""
            insert into stripe.invoices (id, customer, status, currency, collection_method, amount_due, amount_paid,
                amount_remaining, created, due_date)
            values ('in_1', 'cus_1', 'open', 'eur', 'send_invoice', 900, 0, 900, '2026-11-01 00:00:00+00', '2026-11-10 12:00:00+00')
        """)
        yield made


def test_an_invoice_becomes_overdue_by_the_clock_alone_and_is_told_once(account: Watched) -> None:
    trigger = a_model_trigger(preset="invoice_overdue")
    late = a_model_trigger("late", preset="invoice_overdue", rows="days_overdue >= 7")

    def evaluate_as_of(moment: str) -> None:
        build_as_of(account.database, moment, "overdue_invoices")
        for result in account.evaluate(trigger, late):
            assert result.error is None

    for moment in ("2026-11-09 00:00:00", "2026-11-10 23:59:59"):
        evaluate_as_of(moment)
    assert account.told() == []
    for moment in ("2026-11-11 00:00:00", "2026-11-12 00:00:00", "2026-11-16 23:59:59"):
        evaluate_as_of(moment)
    assert (account.told(), account.told("late")) == ([("entered", "in_1")], [])
    evaluate_as_of("2026-11-17 00:00:00")
    assert account.told("late") == [("entered", "in_1")]
    (message,) = account.changes()
    assert message.after is not None
    assert (message.after["days_overdue"], message.after["due_at"]) == (1, "2026-11-10T12:00:00Z")

    account.connection.execute("update stripe.invoices set status = 'paid', amount_remaining = 0")
    evaluate_as_of("2026-11-18 00:00:00")
    account.connection.execute("update stripe.invoices set status = 'open', amount_remaining = 900")
    evaluate_as_of("2026-11-19 00:00:00")
    assert account.told() == [("entered", "in_1")] * 2


def test_a_model_that_is_not_there_says_what_to_do_and_stops_no_other(account: Watched) -> None:
    overdue, churned = (
        a_model_trigger(name, preset=name) for name in ("invoice_overdue", "customer_churned")
    )
    build_as_of(account.database, "2026-11-09 00:00:00", "overdue_invoices")
    account.connection.execute("drop table stripe.subscriptions")

    fine, left_out = account.evaluate(overdue, churned)

    assert (fine.error, fine.baseline) == (None, 0)
    assert left_out.error == (
        "The model churn_events is left out: the table subscriptions is not loaded. Load it with "
        "`stripe-feed sync --resources core,subscriptions`, then run `stripe-feed models build +churn_events`."
    )
    account.connection.execute("drop view stripe_models.overdue_invoices")
    assert account.evaluate(overdue)[0].error == (
        "The model overdue_invoices is not built. Run `stripe-feed models build +overdue_invoices`; "
        "`stripe-feed models list` lists all."
    )


@pytest.mark.parametrize(
    ("sql", "settings", "reason"),
    [
        ("select 1 as a", {}, "watched has no column 'id'. It has a."),
        ("select nothing from watched", {}, "The rows of watched cannot be read: Binder Error: "),
        ("selec", {}, "The rows of watched cannot be read: Parser Error: "),
        (SELECT_ALL, {"rows": "cast(note as integer) > 0"}, "The rows of watched cannot be read: a value is not of the kind that the SQL makes of it."),
    ],
    ids=["no key", "no column", "no SQL", "a value"],
)  # fmt: skip
def test_sql_that_fails_is_an_error_without_values(
    watched: Watched, sql: str, settings: dict[str, Any], reason: str
) -> None:
    watched.hold({"a": row(note=CANARY)})

    (result,) = watched.evaluate(a_model_trigger(sql=sql, **settings))

    assert result.error is not None and result.error.startswith(reason)
    assert CANARY not in result.error


# When it is evaluated


class FakeFeed:
    """A feed whose models are those of a watched table; it can be locked."""

    def __init__(self, watched: Watched) -> None:
        self.watched, self.store, self.lookups = watched, watched.store, NO_LOOKUPS
        self.reads, self.is_locked = 0, False

    def read_models(self, read: Any, wait: float) -> Any:
        if self.is_locked:
            raise Locked("Another process loads.")
        self.reads += 1
        return read(self.watched.database)


def test_models_are_read_at_the_start_after_loads_and_builds_and_when_time_is_over(
    watched: Watched,
) -> None:
    feed: Any = FakeFeed(watched)
    schedule, trigger = ModelSchedule(feed), a_model_trigger(every="10m")

    def reads(now: float) -> int:
        before = feed.reads
        schedule.run([trigger], NOW + now, waits=False)
        return int(feed.reads - before)

    assert [reads(0), reads(1), reads(599)] == [1, 0, 0]
    assert [reads(600), reads(601)] == [1, 0]
    watched.store.append([], done=["1.5"])
    assert [reads(602), reads(603)] == [1, 0]
    watched.store.note_models_built()
    assert [reads(604), reads(605)] == [1, 0]
    assert [reads(-10), reads(-9)] == [1, 0]  # the clock was set back


def test_a_copy_that_is_loading_is_read_afterwards_and_after_a_minute_a_line_says_so(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    feed: Any = FakeFeed(watched)
    schedule, trigger = ModelSchedule(feed), a_model_trigger()
    feed.is_locked = True

    assert [schedule.run([trigger], NOW + at, waits=False) for at in (0, 59)] == [[], []]
    assert caplog.messages == []
    assert [schedule.run([trigger], NOW + at, waits=False) for at in (60, 61)] == [[], []]
    line = "Triggers on models wait until the copy is free. Another process loads."
    assert caplog.messages == [line]
    (at_once,) = ModelSchedule(feed).run([trigger], NOW, waits=True)
    assert at_once.error == "Another process loads."
    feed.is_locked = False
    assert schedule.run([trigger], NOW + 700, waits=False)[0].baseline == 0


def test_a_notebook_that_reads_the_copy_holds_no_evaluation_up(tmp_path: Path) -> None:
    file = tmp_path / "copy.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("create schema stripe; create table stripe.watched (id varchar)")
        connection.execute("insert into stripe.watched values ('a')")
    trigger = a_model_trigger(sql="select * from stripe.watched")
    with open_feed(a_copy(tmp_path)) as feed, holding(file, read_only=True):
        (result,) = ModelSchedule(feed).run([trigger], NOW, waits=False)

    assert (result.error, result.baseline) == (None, 1)


def test_both_kinds_of_triggers_run_side_by_side_and_an_error_is_said_once(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    feed: Any = FakeFeed(watched)
    feed.query_ids = list
    on_model, on_changes = a_model_trigger(), a_trigger("changes")
    missing = a_model_trigger("missing", preset="invoice_overdue")
    clock = Clock()
    tick = trigger_loop(feed, [on_model, missing, on_changes], clock)

    first = {one.trigger: one for one in tick()}
    add(watched.store, *updates(2))
    watched.hold({"a": row()})
    clock.at += 600
    second = {one.trigger: one for one in tick()}

    third = {one.trigger: one for one in tick()}

    assert third["missing"].error == second["missing"].error
    assert third["changes"].fired == 0 and "t" not in third
    assert (first["t"].baseline, first["changes"].is_new) == (0, True)
    assert (second["t"].fired, second["changes"].fired) == (1, 2)
    assert str(second["missing"].error).startswith("The model overdue_invoices is ")
    said = [text for text in caplog.messages if "overdue_invoices" in text]
    assert len(said) == 1


def test_a_damaged_store_starts_anew_and_says_so(watched: Watched) -> None:
    trigger = a_model_trigger()
    watched.hold({"a": row()})
    watched.evaluate_one(trigger)
    watched.hold({"a": row(), "b": row()})
    watched.evaluate_one(trigger)
    path = watched.store.path
    watched.store.close()

    assert salvage(path) == ["baselines of triggers on models, which start anew"]

    with FeedStore(path, rebuilding=True) as store:
        watched.store = store
        assert watched.told() == [("entered", "b")]  # still to be sent
        watched.hold({"c": row()})
        assert watched.evaluate_one(trigger).baseline == 1
        assert watched.told() == [("entered", "b")]


# Explained, tried, replayed, forgotten


def read_with(watched: Watched) -> Any:
    return lambda read: read(watched.database)


def test_a_trial_tells_what_the_next_evaluation_does(watched: Watched) -> None:
    trigger = a_model_trigger(guard={"max": 1}, **EVERYTHING)
    watched.hold({"a": row(1), "b": row(2), "c": row(3)})

    new = try_rows(watched.store, trigger, 2, watched.now, read_with(watched))
    assert (new.is_new, new.rows, new.fires, len(new.samples)) == (True, 3, 0, 2)
    assert new.samples[0].body["data"] == {"id": "a", **row(1)}
    watched.evaluate_one(trigger)
    assert try_rows(watched.store, trigger, 2, watched.now, read_with(watched)).fires == 0
    watched.hold({"b": row(9), "c": row(3), "d": row(4)})
    trial = try_rows(watched.store, trigger, 2, watched.now, read_with(watched))

    assert (trial.entered, trial.left, trial.changed, trial.fires) == (1, 1, 1, 3)
    assert trial.held == "it would fire 3 times within 10 minutes, more than 1"
    assert [one.body["type"] for one in trial.samples] == ["watched.entered", "watched.left"]
    assert watched.told() == []
    assert watched.evaluate_one(trigger).fired == 3


def test_a_row_and_its_messages_are_explained(watched: Watched) -> None:
    trigger = a_model_trigger(on="changed", watch="mrr", where="after.mrr < before.mrr")

    def verdict(id: str) -> str:
        (found,) = explain_rows(watched.store, [trigger], id, read_with(watched))
        return found.verdict

    watched.hold({"a": row(5), "b": row(5)})
    assert verdict("a") == "did not run yet: its first evaluation is a silent baseline"
    watched.evaluate_one(trigger)
    watched.hold({"a": row(4), "b": row(5), "c": row(1)})
    assert verdict("c") == "has not seen it yet: run `stripe-feed deliver --once`"
    watched.evaluate_one(trigger)

    assert verdict("a") == "fired; its message is waiting"
    assert verdict("b").startswith("did not fire: the row was there at the baseline")
    assert explain_rows(watched.store, [trigger], "z", read_with(watched)) == []
    (change,) = watched.changes()
    (explained,) = explain_rows(watched.store, [trigger], change.change_id, read_with(watched))
    assert [(one.what, one.found, one.holds) for one in explained.clauses] == [
        ("model", "watched", True),
        ("on", "changed", True),
        ("watch", ["mrr"], True),
        ("where", {"after.mrr": 4, "before.mrr": 5}, True),
    ]


def test_a_replay_sends_messages_again_with_their_ids(watched: Watched) -> None:
    trigger = a_model_trigger()
    watched.evaluate_one(trigger)
    for key in "ab":
        watched.hold({key: row()})
        watched.evaluate_one(trigger)
    sink = Scripted()
    once(watched.store, trigger, sink, lambda: watched.now)
    second = watched.changes()[1]

    assert replay_rows(watched.store, trigger, "earliest", watched.now).fired == 2
    assert replay_rows(watched.store, trigger, second.change_id, watched.now).fired == 1
    assert replay_rows(watched.store, trigger, "30s", watched.now).fired == 1
    once(watched.store, trigger, sink, lambda: watched.now)

    ids = [id for id, _ in sink.taken]
    assert (len(ids), sorted(ids[:2])) == (4, sorted(ids[2:]))
    with pytest.raises(UsageError, match="is not a message of t"):
        replay_rows(watched.store, trigger, "evt_1", watched.now)


def test_a_replay_that_is_held_does_not_hold_new_messages(watched: Watched) -> None:
    trigger = a_model_trigger(guard={"max": 1})
    watched.evaluate_one(trigger)
    for key in "ab":
        watched.hold({key: row()})
        watched.now += 700
        watched.evaluate_one(trigger)
    once(watched.store, trigger, Scripted(), lambda: watched.now)

    assert replay_rows(watched.store, trigger, "earliest", watched.now).held is not None
    watched.now += 700
    watched.hold({"c": row()})
    watched.evaluate_one(trigger)

    assert counts(watched.store) == {"t": {"held": 2, "waiting": 1}}
    assert discard(watched.store, "t", watched.now) == 2
    assert counts(watched.store) == {"t": {"sent": 2, "waiting": 1}}


def test_what_is_forgotten_is_in_no_row_and_no_message(watched: Watched) -> None:
    trigger = a_model_trigger(**EVERYTHING)
    watched.hold({"a": row(customer="cus_9", note=CANARY), "b": row()})
    watched.evaluate_one(trigger)
    watched.hold({"a": row(2, "cus_9", CANARY), "b": row(2)})
    watched.evaluate_one(trigger)

    watched.store.forget(["cus_9"])
    watched.hold({"a": row(3, "cus_9", CANARY), "b": row(3)})
    watched.evaluate_one(trigger)

    rows = watched.store.query("select key, row from model_rows order by key")
    assert [(key, row is None) for key, row in rows] == [("a", True), ("b", False)]
    assert [one.after is None for one in watched.changes()] == [True, False, True, False]
    watched.store.truncate_wal()
    assert CANARY.encode() not in watched.store.path.read_bytes()
    sink = Scripted()
    assert once(watched.store, trigger, sink, lambda: watched.now).dropped == 2
    assert {said["meta"]["object_id"] for _, said in sink.taken} == {"b"}


def test_what_is_still_to_be_sent_of_an_erased_customer_is_dropped(watched: Watched) -> None:
    trigger = a_model_trigger()
    watched.evaluate_one(trigger)
    watched.hold({"a": row(customer="cus_9"), "b": row()})
    watched.evaluate_one(trigger)

    with watched.store.transaction() as db:
        assert maintenance._drop_messages(db, "cus_9", watched.now) == 1

    assert [one.object_id for one in find(watched.store, states=["waiting"])] == ["b"]


def test_pruning_keeps_what_is_still_to_be_sent(watched: Watched) -> None:
    trigger = a_model_trigger()
    watched.evaluate_one(trigger)
    watched.hold({"a": row()})
    watched.evaluate_one(trigger)

    assert maintenance.prune(watched.store, 0, False, watched.now + 1) == 0
    once(watched.store, trigger, Scripted(), lambda: watched.now)
    assert maintenance.prune(watched.store, 0, False, watched.now + 1) == 1
    assert find(watched.store) == []


# Held against a calculation


def test_messages_are_the_differences_of_random_tables(watched: Watched) -> None:
    for seed in range(25):
        check_against_calculation(watched, seed)


@pytest.mark.broad
def test_messages_are_the_differences_of_many_random_tables(watched: Watched) -> None:
    for seed in range(100, 2_100):
        check_against_calculation(watched, seed)


# The grammar

HEAD = '[[trigger]]\nname = "t"\ndeliver = { file = "out" }\n'
OVERDUE = f'{HEAD}model = "overdue_invoices"\n'


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (f'{HEAD}model = "overdue_invoice"\n', 4, "there is no model 'overdue_invoice'; did you mean 'overdue_invoices'?"),
        (OVERDUE, 1, 'key names the columns that identify a row, such as key = "id".'),
        (f'{OVERDUE}key = "invoice"\n', 5, "the model has no column 'invoice'; did you mean 'invoice_id'?"),
        (f'{OVERDUE}key = "invoice_id"\non = "came"\n', 6, "on takes one or more of entered, left, changed."),
        (f'{OVERDUE}key = "invoice_id"\non = "changed"\n', 6, 'on = "changed" and watch go together: watch names the columns whose changes count.'),
        (f'{OVERDUE}key = "invoice_id"\nwatch = "bucket"\n', 6, 'on = "changed" and watch go together: watch names the columns whose changes count.'),
        (f'{OVERDUE}key = "invoice_id"\nresource = "invoices"\n', 6, "resource is for triggers on changes; one on a model takes model, sql, key, rows, watch, on, every."),
        (f'{OVERDUE}key = "invoice_id"\nevery = 5\n', 6, 'every is a duration, such as "10m".'),
        (f'{OVERDUE}key = "invoice_id"\nrows = 5\n', 6, 'rows is a condition in SQL, such as "days_overdue >= 7".'),
        (f'{OVERDUE}sql = "a.sql"\n', 5, "a trigger takes model or sql, not both."),
        (f'{HEAD}sql = "gone.sql"\n', 4, "the file gone.sql cannot be read (FileNotFoundError)."),
        (f'{HEAD}sql = "select 1"\n', 4, 'sql names a file with one select, such as "late_payers.sql".'),
        (f'{HEAD}resource = "invoices"\nkey = "id"\n', 5, "key is for triggers on models: name a model, or sql."),
        ('[[trigger]]\nname = "t"\npreset = "invoice_overdue"\ndeliver = { file = "out", format = "stripe" }\n', 4, "a row of a model is no Stripe event: choose another format."),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_refused_with_line_and_reason(
    tmp_path: Path, text: str, line: int, reason: str
) -> None:
    file = tmp_path / "triggers.toml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(UsageError) as fault:
        read_triggers(file)

    assert str(fault.value) == f"{file}:{line}: {reason}"


@pytest.mark.parametrize(
    ("end", "read"),
    [(" ;\n-- late; payers\n /* all; of them */ ", " \n-- late; payers\n /* all; of them */"), (" -- ; none", " -- ; none"), ("; select 2", "; select 2")],
    ids=["comments after it", "in a comment", "another statement"],
)  # fmt: skip
def test_what_ends_a_select_is_not_part_of_it(end: str, read: str) -> None:
    assert a_model_trigger(sql=f"select ';' as id{end}").sql == f"select ';' as id{read}"


def test_a_file_may_name_sql_beside_it_and_columns_are_checked(tmp_path: Path) -> None:
    (tmp_path / "late.sql").write_text("select 1 as id;\n", encoding="utf-8")
    file = tmp_path / "triggers.toml"
    late_rule = f'{HEAD}sql = "late.sql"\nkey = "id"\nevery = "1h"\n'
    overdue_rule = f'{OVERDUE}key = "invoice_id"\nwhere = "after.day_overdue > 3"\n'
    file.write_text(late_rule + overdue_rule.replace('"t"', '"u"'), encoding="utf-8")

    checked = check_triggers(file)

    late, overdue = split_triggers(checked.triggers)[1]
    assert (late.model, late.sql, late.key, late.every) == (
        "late",
        "select 1 as id",
        ("id",),
        3_600,
    )
    assert overdue.on == ("entered",)
    assert [one.partition(": ")[2] for one in checked.warnings] == [
        "u: overdue_invoices has no column 'day_overdue'; did you mean 'days_overdue'?"
    ]


def test_every_preset_reads_its_model_as_it_is_built(account: Watched) -> None:
    one_subscription(account.connection)
    triggers = [a_model_trigger(name, preset=name) for name in MODEL_PRESETS]
    models = {trigger.model for trigger in triggers}
    build_as_of(account.database, "2026-11-20 00:00:00", *sorted(models))
    account.evaluate(*triggers)
    account.connection.execute(
        "update stripe.subscriptions set status = 'canceled', canceled_at = '2026-11-21', ended_at = '2026-11-21'"
    )
    account.connection.execute("insert into stripe._dlt_loads values ('2.5', 0, null)")
    build_as_of(account.database, "2026-11-22 00:00:00", *sorted(models))

    results = account.evaluate(*triggers)

    assert [one.error for one in results] == [None] * len(triggers)
    assert account.told("mrr_dropped") == [("left", "cus_1/usd")]
    assert account.told("customer_churned")[0][0] == "entered"


# What is shown


def test_the_page_and_the_numbers_know_what_is_watched(watched: Watched) -> None:
    trigger = a_model_trigger()
    watched.hold({"a": row(), "b": row()})
    watched.evaluate_one(trigger)
    watched.evaluate_one(trigger)  # nothing differs

    page = render_page(read_overview(watched.store), [trigger], {}, "key", watched.now)
    assert "<dt>Watches</dt><dd>2 rows</dd>" in page
    numbers = metrics(watched.store, [trigger], {}, LateCounter(), {}, watched.now)
    assert 'stripe_feed_trigger_rows{trigger="t"} 2\n' in numbers
    assert 'stripe_feed_trigger_evaluated_timestamp_seconds{trigger="t"}' in numbers
