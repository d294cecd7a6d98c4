"""F7: a first run with `--snapshot` tells each object once, as it was when the list began, and
fires nothing; without it, none.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stripe_feed import open_feed
from stripe_feed.sandbox import Sandbox
from stripe_feed.triggers.config import parse_trigger
from stripe_feed.triggers.engine import run_triggers
from tests.copies import Copy, copy_of
from tests.feed_truth import changes

SETTLED = 400
DAY = 86_400


def changing(copy: Copy) -> list[str]:
    """Customers change while their pages are read; returns the ids of the events of it, once it is
    over.
    """
    box, told = copy.box, list[str]()
    ids = list(box.objects("customers"))

    def change(template: str, params: dict[str, Any]) -> None:
        if template == "/v1/customers" and len(told) < 40:
            box.advance(1)
            box.update("customers", ids[len(told) * 7 % len(ids)], name=f"While paging {len(told)}")
            told.append(box.events[-1].id)

    box.on_request = change
    return told


@pytest.mark.parametrize("count", [250, pytest.param(10_000, marks=pytest.mark.long)])
def test_f7_a_snapshot_of_objects_that_change_while_they_are_read(
    tmp_path: Path, count: int
) -> None:
    box = Sandbox(seed=8, customers=count, oddities=False)
    box.advance(SETTLED)
    with copy_of(box, tmp_path, hold=True) as copy:
        there = set(box.objects("customers"))
        told = changing(copy)
        copy.sync(resources=["customers"], snapshot=True)
        box.on_request = None
        box.advance(SETTLED)
        copy.sync(resources=["customers"], snapshot=True)
        assert told
        ops = copy.select("select op, change_id, object_id from stripe.changes")
        assert {id for op, _, id in ops if op == "r"} == there
        assert Counter(op for op, _, _ in ops) == {"r": len(there), "u": len(told)}
        assert {change_id for op, change_id, _ in ops if op == "u"} == set(told)
        copy.check("customers")
        welcome = parse_trigger(
            {
                "name": "all",
                "resource": "customers",
                "deliver": {"file": str(tmp_path / "out.jsonl")},
            }
        )
        with open_feed(copy.pipeline) as feed:
            (begun,) = run_triggers(feed.store, [welcome], 0.0)
            assert (begun.fired, feed.store.query("select count(*) from messages")[0][0]) == (0, 0)
            snapshots = [one for one in feed.read(limit=20_000, op="r") if welcome.fires(one)]
        assert snapshots == []


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("days", [0, 31], ids=["snapshot", "gap"])
def test_events_go_on_from_an_image_that_was_made_of_a_row(
    tmp_path: Path, seed: int, days: int
) -> None:
    """Rows hold lists in another form: neither the order within a second nor what changed is told
    by that.
    """
    box, tables = Sandbox(seed=seed, customers=4, oddities=False), ("subscriptions", "invoices")
    round, ends = (
        box.create("subscriptions", items=n, status="active", metadata={"k": "A"})["id"]
        for n in (1, 12)
    )
    invoice = box.create("invoices", lines=12, status="open")["id"]
    box.advance(DAY)
    with copy_of(box, tmp_path, hold=True) as copy:
        copy.sync(resources=tables, snapshot=not days)
        if days:
            for id in (round, ends):
                box.update("subscriptions", id, description="untold")
            box.update("invoices", invoice, description="untold")
            box.advance(days * DAY)
            copy.sync(resources=tables)
        box.advance(3_600)
        for letter in "BA":
            box.update("subscriptions", round, metadata={"k": letter})
        box.cancel(ends)
        box.update("invoices", invoice, status="paid")
        box.advance(SETTLED)
        copy.sync(resources=tables)
        copy.check(*tables)
        found = [row for row in changes(copy) if row["origin"] == "event"]
        assert [row["after"]["metadata"]["k"] for row in found if row["object_id"] == round] == [
            "B",
            "A",
        ]
        told = {
            path for row in found if row["object_id"] in (ends, invoice) for path in row["changed"]
        }
        assert {"status"} <= told
        assert not {path for path in told if path.startswith(("items", "lines"))}


def test_f7_without_it_there_are_none(tmp_path: Path) -> None:
    box = Sandbox(seed=8, customers=50, oddities=False)
    box.advance(SETTLED)
    with copy_of(box, tmp_path, hold=True) as copy:
        told = changing(copy)
        copy.sync(resources=["customers"])
        box.on_request = None
        box.advance(SETTLED)
        copy.sync(resources=["customers"])
        assert {id for (id,) in copy.select("select change_id from stripe.changes")} == set(told)
