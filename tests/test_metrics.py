"""The numbers, read back by a parser of the text format."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stripe_feed.delivery import outbox
from stripe_feed.delivery.outbox import Attempt
from stripe_feed.feed import consumers
from stripe_feed.feed.feed import Feed
from stripe_feed.server import webhook_inbox
from stripe_feed.server.metrics import LateCounter, metrics
from stripe_feed.triggers.engine import run_triggers
from stripe_feed.write.push.history.states import PUSH_STATES
from tests.feed_kills import a_change
from tests.pushing import note_ends
from tests.web import NOW, a_feed, a_trigger, add, served

Numbers = dict[str, dict[tuple[tuple[str, str], ...], float]]

SAMPLE = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)'
)
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
ESCAPED = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


def parsed(text: str) -> Numbers:
    """By metric, by labels. Fails for what Prometheus would not take: a sample before its HELP and
    TYPE, or one that comes twice.
    """
    found: Numbers = {}
    kinds: dict[str, str] = {}
    helped = ""
    assert text.endswith("\n")
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            helped, words = line.removeprefix("# HELP ").split(" ", 1)
            assert words and helped not in kinds
        elif line.startswith("# TYPE "):
            name, kind = line.removeprefix("# TYPE ").split(" ")
            assert (
                name == helped
                and kind in ("gauge", "counter")
                and (kind == "counter") == name.endswith("_total")
            )
            kinds[name] = kind
            found[name] = {}
        else:
            sample = SAMPLE.fullmatch(line)
            assert sample is not None, line
            name, inside, value = sample.groups()
            labels = tuple(
                (key, re.sub(r"\\.", lambda mark: ESCAPED[mark[0]], text))
                for key, text in LABEL.findall(inside or "")
            )
            assert name == helped and labels not in found[name]
            found[name][labels] = float(value)
    return {
        name.removeprefix("stripe_feed_"): samples
        for name, samples in found.items()
        if name.startswith("stripe_feed_")
    }


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Feed]:
    """Ten changes, of which two came late; times as in `feed_kills`, and the clock an hour after
    the first.
    """
    rows = [a_change(n, f"sub_{n % 3}", late=n in (3, 10)) for n in range(1, 11)]
    with a_feed(tmp_path, *rows) as opened:
        yield opened


def numbers(
    feed: Feed, triggers: Any = (), health: Any = None, late: LateCounter | None = None
) -> Numbers:
    return parsed(
        metrics(
            feed.store, triggers, health or {}, late or LateCounter(), {"webhook_refused": 2}, NOW
        )
    )


def test_how_far_the_feed_is(feed: Feed) -> None:
    found = numbers(feed)
    assert found["feed_head_offset"] == {(): 10}
    assert found["source_lag_seconds"] == {(): 60}
    assert found["late_total"] == {(): 2}
    assert "last_sync_timestamp_seconds" not in found


def test_an_empty_feed_has_numbers_too(tmp_path: Path) -> None:
    with a_feed(tmp_path) as feed:
        found = numbers(feed)
    assert (found["feed_head_offset"], found["source_lag_seconds"], found["late_total"]) == (
        {(): 0},
        {},
        {(): 0},
    )
    assert found["oldest_event_age_days"] == {(("of", "rung"),): 0, (("of", "consumer"),): 0}


def test_how_far_consumers_are(feed: Feed) -> None:
    feed.reset("crm", 5)
    feed.reset("idle", "latest")
    feed.reset("lost", 1)
    feed.store.query("update meta set value = 2 where name = 'horizon'")
    found = numbers(feed)

    assert found["consumer_lag_changes"] == {
        (("consumer", "crm"),): 6,
        (("consumer", "idle"),): 0,
        (("consumer", "lost"),): 10,
    }
    assert found["consumer_lag_seconds"] == {
        (("consumer", "crm"),): 3_595,
        (("consumer", "idle"),): 0,
        (("consumer", "lost"),): 3_599,
    }
    assert found["consumer_position_lost"] == {
        (("consumer", "crm"),): 0,
        (("consumer", "idle"),): 0,
        (("consumer", "lost"),): 1,
    }
    assert found["oldest_event_age_days"][("of", "consumer"),] == pytest.approx(3_599 / 86_400)


def test_unread_webhook_events_are_counted(feed: Feed) -> None:
    webhook_inbox.record(feed.store, "evt_a", NOW - 3 * 86_400)
    webhook_inbox.record(feed.store, "evt_b", NOW - 86_400)
    assert numbers(feed)["rung_events_waiting"] == {(): 2}
    assert numbers(feed)["oldest_event_age_days"][("of", "rung"),] == 3
    webhook_inbox.mark_read(feed.store, ["evt_a"], NOW)
    assert numbers(feed)["oldest_event_age_days"][("of", "rung"),] == 1


def test_what_triggers_and_deliveries_did(feed: Feed) -> None:
    triggers = [a_trigger("crm"), a_trigger("new")]
    run_triggers(feed.store, triggers[:1], NOW)
    add(feed, *(a_change(n, f"sub_{n}") for n in range(11, 14)))
    run_triggers(feed.store, triggers[:1], NOW)
    one, two, _ = outbox.next_due(feed.store, "crm", NOW, NOW, False, 9)
    with feed.store.transaction() as db:
        for _ in range(2):
            outbox.record_attempt(db, one, Attempt(NOW, 0.1, "500", ""), "waiting", NOW)
        outbox.record_attempt(db, one, Attempt(NOW, 0.1, "timeout", ""), "dead")
        outbox.record_attempt(db, two, Attempt(NOW, 0.1, "200", ""), "sent")
        db.execute("update triggers set disabled = 'it answers 410 Gone'")
    found = numbers(feed, triggers)

    crm = ("trigger", "crm")
    assert found["delivery_attempts_total"] == {
        (crm, ("code", "200")): 1,
        (crm, ("code", "500")): 2,
        (crm, ("code", "timeout")): 1,
    }
    assert found["messages"] == {
        (crm, ("state", "dead")): 1,
        (crm, ("state", "sent")): 1,
        (crm, ("state", "waiting")): 1,
    }
    assert found["dead_letters"] == {(crm,): 1, (("trigger", "new"),): 0}
    assert found["trigger_fired_total"] == {(crm,): 3, (("trigger", "new"),): 0}
    assert found["trigger_disabled"] == {(crm,): 1, (("trigger", "new"),): 0}
    assert found["trigger_held"] == {(crm,): 0, (("trigger", "new"),): 0}


def test_odd_names_are_escaped(feed: Feed) -> None:
    name = 'a"b\\c\nd} 1\n# HELP x'
    consumers.reset(feed.store, "crm", "latest", NOW)
    feed.store.query("update consumers set name = ?", name)
    assert numbers(feed)["consumer_lag_changes"] == {(("consumer", name),): 0}


def test_late_changes_are_looked_for_once(feed: Feed) -> None:
    late, said = LateCounter(), list[str]()
    assert numbers(feed, late=late)["late_total"] == {(): 2}
    add(feed, a_change(11, late=True), a_change(12))
    feed.store._db.set_trace_callback(said.append)
    assert numbers(feed, late=late)["late_total"] == {(): 3}
    assert [one for one in said if "and late" in one] == [
        "select count(*) from log where position > 10 and position <= 12 and late"
    ]
    feed.store._db.set_trace_callback(None)

    feed.store.query("delete from log where position > 2")
    assert numbers(feed, late=late)["late_total"] == {(): 3}  # pruned: it was so
    feed.store.query("update meta set value = 2 where name = 'head'")
    assert numbers(feed, late=late)["late_total"] == {(): 0}  # another log


def test_how_the_reading_goes(feed: Feed) -> None:
    assert numbers(feed, health={"synced_at": None, "failures": 0})["sync_failures"] == {(): 0}
    found = numbers(
        feed, health={"synced_at": NOW - 0.25, "error": "x", "failures": 3, "left_out": 2}
    )
    assert found["objects_left_out"] == {(): 2}
    assert (found["last_sync_timestamp_seconds"], found["sync_failures"]) == (
        {(): NOW - 0.25},
        {(): 3},
    )


def test_the_numbers_over_http(tmp_path: Path) -> None:
    with a_feed(tmp_path, a_change(1)) as feed, served(feed, triggers=[a_trigger("crm")]) as web:
        answer = web.get("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert parsed(answer.body.decode())["feed_head_offset"] == {(): 1}
        assert b"hidden" not in answer.body


def test_pushes_have_a_state_and_rows(feed: Feed) -> None:
    note_ends(feed.store, lambda: NOW - 120, crm="failed", erp="healthy")
    found = parsed(metrics(feed.store, [], {}, LateCounter(), {}, NOW))
    crm, erp = ("push", "crm"), ("push", "erp")
    assert found["push_state"] == {
        (push, ("state", state)): int((push, state) in ((crm, "failed"), (erp, "healthy")))
        for push in (crm, erp)
        for state in PUSH_STATES
    }
    assert found["push_last_run_timestamp_seconds"] == {(crm,): NOW - 120, (erp,): NOW - 120}
    assert found["push_rows"] == {
        (crm, ("status", "not_sent")): 3,
        (erp, ("status", "created")): 3,
        (erp, ("status", "unchanged")): 12_345,
    }
