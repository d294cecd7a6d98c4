"""The inbox: what webhooks announced is there after a kill or a power cut, once, until it is read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stripe_feed.feed.storage.maintenance import drop_bodies
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.feed.storage.store_errors import Unusable
from stripe_feed.server import webhook_inbox
from stripe_feed.server.webhook_inbox import FailedEvents, ReceivedEvent


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedStore]:
    with FeedStore(tmp_path / "feed.sqlite") as opened:
        yield opened


def test_an_event_is_recorded_once(store: FeedStore) -> None:
    assert webhook_inbox.record(store, "evt_1", 10.0)
    assert not webhook_inbox.record(store, "evt_1", 11.0, b"{}")
    assert webhook_inbox.unread(store, 10) == [ReceivedEvent("evt_1", 10.0)]

    webhook_inbox.mark_read(store, ["evt_1"], 12.0)
    assert not webhook_inbox.record(store, "evt_1", 13.0)
    assert webhook_inbox.unread(store, 10) == []


def test_events_wait_in_the_order_in_which_they_came(store: FeedStore) -> None:
    for event_id, at in (("evt_c", 1.0), ("evt_b", 2.0), ("evt_a", 2.0), ("evt_d", 0.5)):
        webhook_inbox.record(store, event_id, at, event_id.encode())

    assert webhook_inbox.unread(store, 3) == [
        ReceivedEvent("evt_d", 0.5, b"evt_d"),
        ReceivedEvent("evt_c", 1.0, b"evt_c"),
        ReceivedEvent("evt_a", 2.0, b"evt_a"),
    ]
    webhook_inbox.mark_read(store, ["evt_d", "evt_c", "evt_unknown"], 3.0)
    assert [one.event_id for one in webhook_inbox.unread(store, 10)] == ["evt_a", "evt_b"]


def test_what_is_read_keeps_no_body(store: FeedStore) -> None:
    webhook_inbox.record(store, "evt_1", 1.0, b"secret")
    assert "secret" not in repr(webhook_inbox.unread(store, 1))
    webhook_inbox.mark_read(store, ["evt_1"], 2.0)
    webhook_inbox.mark_read(store, ["evt_1"], 9.0)

    assert store.query("select body, read_at from rung") == [(None, 2.0)]


def test_a_forget_drops_the_bodies_of_that_customer_alone(store: FeedStore) -> None:
    """Its id may be one of another system, which stands in other numbers too."""
    webhook_inbox.record(store, "evt_1", 1.0, b'{"created": 1200, "customer": "cus_1"}')
    webhook_inbox.record(store, "evt_2", 2.0, b'{"customer": "12"}')
    with store.transaction() as db:
        drop_bodies(db, "12")
    bodies = {one.event_id: one.body for one in webhook_inbox.unread(store, 10)}
    assert bodies["evt_1"] is not None and bodies["evt_2"] is None


def test_only_what_was_read_long_ago_is_forgotten(store: FeedStore) -> None:
    for event_id in ("evt_1", "evt_2", "evt_3"):
        webhook_inbox.record(store, event_id, 1.0)
    webhook_inbox.mark_read(store, ["evt_1"], 5.0)
    webhook_inbox.mark_read(store, ["evt_2"], 10.0)

    assert webhook_inbox.prune_read_events(store, 10.0) == 1
    assert webhook_inbox.record(store, "evt_1", 20.0)
    assert not webhook_inbox.record(store, "evt_2", 20.0)
    assert webhook_inbox.prune_read_events(store, 1e9) == 1
    assert [one.event_id for one in webhook_inbox.unread(store, 10)] == ["evt_3", "evt_1"]


def test_what_cannot_be_read_is_tried_again_after_growing_pauses_and_given_up(
    store: FeedStore,
) -> None:
    webhook_inbox.record(store, "evt_odd", 0.0, b"body", b"head")
    webhook_inbox.record(store, "evt_good", 1.0)
    now, tries = 10.0, 0
    while (
        webhook_inbox.mark_failed(store, {"evt_odd": "NotFound", "evt_never_rang": "NotFound"}, now)
        == []
    ):
        tries += 1
        assert [one.event_id for one in webhook_inbox.unread(store, 10, now)] == [
            "evt_good"
        ]  # it holds up no other
        assert webhook_inbox.seconds_until_due(store, now) == 2.0**tries
        now += 2.0**tries
        assert webhook_inbox.unread(store, 1, now) == [
            ReceivedEvent("evt_odd", 0.0, b"body", b"head", tries)
        ]
        assert webhook_inbox.failed_events(store) == FailedEvents(1, 0)
    assert (tries, now) == (
        webhook_inbox.MAX_TRIES - 1,
        10.0 + 2.0**webhook_inbox.MAX_TRIES - 2.0,
    )
    assert [one.event_id for one in webhook_inbox.unread(store, 10)] == ["evt_good"]
    assert (webhook_inbox.failed_events(store), webhook_inbox.seconds_until_due(store, now)) == (
        FailedEvents(0, 1),
        None,
    )
    assert store.query("select body, head from rung where event_id = 'evt_odd'") == [(None, None)]
    assert not webhook_inbox.record(store, "evt_odd", now)


def test_a_clock_that_was_ahead_makes_no_event_wait(store: FeedStore) -> None:
    webhook_inbox.record(store, "evt_1", 0.0)
    webhook_inbox.mark_failed(store, {"evt_1": "NotFound"}, 1e9)
    assert [one.event_id for one in webhook_inbox.unread(store, 10, 5.0)] == ["evt_1"]
    assert webhook_inbox.seconds_until_due(store, 5.0) == webhook_inbox._MAX_WAIT_SECONDS


def test_a_received_event_is_synced_to_the_disk_and_nothing_else_is(store: FeedStore) -> None:
    said: list[str] = []
    store._db.set_trace_callback(said.append)
    webhook_inbox.record(store, "evt_1", 1.0)
    webhook_inbox.mark_read(store, ["evt_1"], 2.0)

    inside = said[
        said.index("pragma synchronous = full") : said.index("pragma synchronous = normal")
    ]
    assert [inside[1], inside[-1]] == ["begin immediate", "commit"]
    assert store.query("pragma synchronous") == [(1,)]


def test_rings_at_the_same_time_are_all_synced(store: FeedStore) -> None:
    """One that ends must not turn off the sync of another."""
    said: list[str] = []
    store._db.set_trace_callback(said.append)
    threads = [
        threading.Thread(target=webhook_inbox.record, args=(store, f"evt_{n}", 1.0))
        for n in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    level = "normal"
    for words in said:
        level = (
            words.removeprefix("pragma synchronous = ")
            if words.startswith("pragma synchronous =")
            else level
        )
        assert words != "commit" or level == "full"
    assert len(webhook_inbox.unread(store, 100)) == 40


def test_a_store_that_cannot_be_written_says_so(store: FeedStore) -> None:
    store.query("pragma query_only = on")
    with pytest.raises(Unusable, match="cannot be written"):
        webhook_inbox.record(store, "evt_1", 1.0)
    store.query("pragma query_only = off")

    assert webhook_inbox.unread(store, 1) == []
    assert store.query("pragma synchronous") == [(1,)]
    assert webhook_inbox.record(store, "evt_1", 1.0)


def test_a_store_of_an_older_version_gets_what_it_lacks(store: FeedStore) -> None:
    store.query("drop table rung")
    store.query("pragma user_version = 1")
    store.close()
    with FeedStore(store.path) as opened:
        assert webhook_inbox.record(opened, "evt_1", 1.0)
        assert [one.event_id for one in webhook_inbox.unread(opened, 1)] == ["evt_1"]
