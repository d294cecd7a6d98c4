"""A database and a feed store that an earlier version made are taken over: nothing is read or told twice, nothing is lost.

The files hold a small account of the sandbox: a first sync, a second one with five changes, a consumer that
acknowledged two of them, and a message that could not be delivered.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from stripe_feed import deliver, open_feed, trigger
from stripe_feed.extract.events.poll_groups import poll_groups
from stripe_feed.sandbox import Sandbox
from tests.copies import Copy, copy_of
from tests.core import CORE, CORE_TABLES
from tests.receiver import receiving

FILES = Path(__file__).parent / "data" / "copy_made_before_0.1.0.zip"


@pytest.fixture
def about() -> dict[str, Any]:
    with ZipFile(FILES) as files:
        found: dict[str, Any] = json.loads(files.read("about.json"))
        return found


@pytest.fixture
def old(about: dict[str, Any], tmp_path: Path) -> Iterator[Copy]:
    """The account as it was at the end of the last sync, and the files beside it."""
    with ZipFile(FILES) as files:
        files.extractall(tmp_path)
    box = Sandbox(
        customers=0, invoices=0, subscriptions=0, products=0, oddities=False, now=about["now"]
    )
    observers, box.account.observers = box.account.observers, []
    for table, objects in about["objects"].items():
        for one in box.objects(table).keys() - {one["id"] for one in objects}:
            box.delete(table, one)
        for one in objects:
            box.put(table, one)
    box.account.observers = observers
    box.account.id = box.account.object["id"] = about["account"]
    with copy_of(box, tmp_path, hold=True) as copy:
        yield copy


def test_a_copy_of_an_earlier_version_goes_on(old: Copy, about: dict[str, Any]) -> None:
    old.box.advance(600)
    first, second, *_ = old.box.objects("customers")
    old.box.update("customers", first, name="Somebody else")
    old.box.delete("customers", second)
    made = old.box.create("customers")
    old.box.advance(600)
    happened = old.box.events

    done = old.sync()

    assert done.rows["customers"] == 4  # the new one comes from the list, and as an event
    old.check()
    with open_feed(old.pipeline) as feed:
        changes = feed.read()
        known, new = [change.change_id for change in changes[:5]], changes[5:]
        assert known == about["changes"]
        assert {change.change_id for change in new} == {event.id for event in happened}
        assert len(new) == len(happened)
        assert [change.op for change in changes if change.object_id == made["id"]] == ["c"]


def test_a_consumer_and_a_message_of_an_earlier_version_go_on(
    old: Copy, about: dict[str, Any]
) -> None:
    rule = {"name": "welcome", "resource": "customers", "op": "added"}

    with open_feed(old.pipeline) as feed, receiving() as receiver:
        seen = [change.change_id for change in feed.consume("crm")]
        to = {"url": receiver.url, "allow_private": True}
        fired, done = deliver(feed, [trigger({**rule, "deliver": to})], now=lambda: 4e9)

    assert seen == [id for id in about["changes"] if id not in about["read"]]
    assert [(one.seen, one.fired) for one in fired] == [(0, 0)]
    assert (done.sent, done.dead) == (1, 0)
    (message,) = receiver.received
    assert json.loads(message.body)["data"]["id"] == about["created"]


def test_an_upgrade_changes_nothing(old: Copy, about: dict[str, Any]) -> None:
    """Nothing happened at Stripe: no row is written, no change fires, no table comes, and the run
    asks what a run of the version before asked: the account, each list once, and the events.
    """
    contents = {table: old.select(f"from stripe.{table} order by id") for table in CORE_TABLES}
    old.box.advance(600)

    done = old.sync()

    lists = sum(len(row.list_filters) for row in CORE.values())
    events = len(poll_groups(list(CORE.values()), dict.fromkeys(CORE, 0)))
    assert done.rows == {}
    assert done.requests == 1 + lists + events
    assert {
        table: old.select(f"from stripe.{table} order by id") for table in CORE_TABLES
    } == contents
    tables = {
        name
        for (name,) in old.select(
            "select table_name from duckdb_tables() where schema_name = 'stripe'"
        )
    }
    assert {name for name in tables if not name.startswith("_dlt")} == {*CORE_TABLES, "changes"}
    with open_feed(old.pipeline) as feed:
        assert [change.change_id for change in feed.read()] == about["changes"]
