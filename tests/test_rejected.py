"""One object or event that cannot be taken ends no run: it is left out by name, and tried again
until it can or is gone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stripe_feed.cli.main import raise_if_incomplete
from stripe_feed.errors import NotReadable, PartlyDone
from stripe_feed.extract.events.webhook import WebhookEvent
from stripe_feed.extract.run import open_run
from stripe_feed.extract.tables.rejected import (
    MAX_SHOWN,
    MAX_STORED,
    REJECTED_STATE,
    Rejected,
    RejectedObjects,
    describe_rejected,
)
from stripe_feed.resources import CHANGES
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.http import events as sandbox_events
from tests.copies import Copy, copy_of
from tests.feed_truth import changes

TABLES = ("customers",)
SETTLED = 61


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    """An account with one customer that says it is something else."""
    box = Sandbox(seed=5, customers=4, oddities=False)
    box.advance(86_400)
    with copy_of(box, tmp_path, hold=True) as found:
        yield found


def as_kind(copy: Copy, id: str, kind: str) -> None:
    """Make a customer something else, or one again; no event tells of it."""
    copy.box.put("customers", copy.box.objects("customers")[id] | {"object": kind})


def synced(copy: Copy, **options: Any) -> dict[str, dict[str, str]]:
    """What a run leaves out."""
    copy.box.advance(SETTLED)
    return copy.sync(resources=TABLES, **options).left_out


def held(copy: Copy) -> set[str]:
    return {id for (id,) in copy.select("select id from stripe.customers where deleted_at is null")}


def kept(copy: Copy) -> dict[str, list[str]]:
    found: dict[str, list[str]] = copy.pipeline.state["sources"]["stripe"].get(REJECTED_STATE, {})
    return {table: ids for table, ids in found.items() if ids}


def test_an_object_that_cannot_be_taken_is_tried_again_until_it_can(copy: Copy) -> None:
    """The others are loaded and followed meanwhile; a comparison does not take it for deleted, and
    idle runs write nothing.
    """
    odd, other, *_ = every = sorted(copy.box.objects("customers"))
    as_kind(copy, odd, "card")

    assert synced(copy) == {"customers": {odd: "it is not of type customer"}}
    assert held(copy) == {*every} - {odd}
    assert kept(copy) == {"customers": [odd]}

    copy.box.update("customers", other, name="Goes on")
    assert synced(copy, reconcile=True) == {"customers": {odd: "it is not of type customer"}}
    assert copy.one(f"select name from stripe.customers where id = '{other}'") == "Goes on"
    states = copy.one("select count(*) from stripe._dlt_pipeline_state")
    assert synced(copy) == {"customers": {odd: "it is not of type customer"}}
    assert copy.one("select count(*) from stripe._dlt_pipeline_state") == states

    as_kind(copy, odd, "customer")
    assert synced(copy) == {}
    assert held(copy) == {*every}
    assert kept(copy) == {}
    copy.check(*TABLES)


def test_a_row_whose_object_cannot_be_taken_any_more_stays(copy: Copy) -> None:
    """It is there, so no comparison ends it."""
    odd = min(copy.box.objects("customers"))
    synced(copy)
    as_kind(copy, odd, "card")

    assert synced(copy, reconcile=True) == {"customers": {odd: "it is not of type customer"}}
    assert odd in held(copy)
    assert [row["op"] for row in changes(copy)] == []


def test_an_object_that_is_gone_is_not_tried_for_ever(copy: Copy) -> None:
    """Nothing is left to wait for."""
    odd = min(copy.box.objects("customers"))
    as_kind(copy, odd, "card")
    synced(copy)
    as_kind(copy, odd, "customer")
    copy.box.delete("customers", odd)

    assert synced(copy) == {}
    assert kept(copy) == {}
    assert odd not in held(copy)


def test_an_event_that_cannot_be_read_stops_no_other(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told once it can be read, though the cursor has passed it."""
    first, second, *_ = sorted(copy.box.objects("customers"))
    synced(copy)
    copy.box.update("customers", first, name="Unreadable")
    odd = copy.box.events[-1].id
    copy.box.advance(1)
    copy.box.update("customers", second, name="Readable")
    shown = sandbox_events.event_bytes
    with monkeypatch.context() as patch:

        def spoilt(account: Any, event: Any) -> bytes:
            body = shown(account, event)
            return (
                json.dumps(json.loads(body) | {"data": None}).encode() if event.id == odd else body
            )

        patch.setattr(sandbox_events, "event_bytes", spoilt)
        assert synced(copy) == {"events": {odd: "its object is not as documented"}}
        assert [row["object_id"] for row in changes(copy)] == [second]
        copy.box.advance(7_000)
        assert synced(copy) == {"events": {odd: "its object is not as documented"}}

    assert synced(copy) == {}
    assert sorted(row["object_id"] for row in changes(copy)) == sorted([first, second])
    assert kept(copy) == {}
    copy.check(*TABLES)


def test_a_plain_run_says_what_it_leaves_out(copy: Copy, caplog: pytest.LogCaptureFixture) -> None:
    """Where no command line does."""
    odd = min(copy.box.objects("customers"))
    as_kind(copy, odd, "card")
    with caplog.at_level(logging.WARNING, logger="stripe_feed"):
        copy.run(copy.source().with_resources("customers", "changes"))

    assert caplog.messages == [
        f"Left out of customers: {odd} (it is not of type customer). The next run tries again."
    ]


def test_the_sentence_names_a_few_and_counts_the_rest() -> None:
    """The command ends with 4."""
    found = RejectedObjects()
    for n in range(MAX_SHOWN + 2):
        found.add(Rejected("plans", f"plan {n}", 5, "it is not of type plan"))
    found.add(Rejected("prices", None, 5, "it has no id"))

    plans = "; ".join(f"plan {n} (it is not of type plan)" for n in range(MAX_SHOWN))
    assert describe_rejected(found.reasons) == [
        f"Left out of plans: {plans}; and 2 more. The next run tries again.",
        "Left out of prices: an object without an id, created 5 (it has no id).",
    ]
    with pytest.raises(
        PartlyDone, match=r"^Left out of plans: plan 0 .* Everything else is loaded\.$"
    ):
        raise_if_incomplete({}, found.reasons, None)


def test_what_is_kept_for_the_next_run_is_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And says how the rest is found."""
    state: dict[str, Any] = {}
    monkeypatch.setattr("dlt.current.source_state", lambda: state)
    found = RejectedObjects()
    for n in range(MAX_STORED + 1):
        found.add(Rejected("plans", f"plan_{n:05}", None, "it is not of type plan"))
    found.store("plans")
    found.store("plans")

    assert len(state[REJECTED_STATE]["plans"]) == MAX_STORED
    assert caplog.messages == [
        "plans: more than 1,000 objects cannot be stored: `stripe-feed reconcile` finds all."
    ]
    again = RejectedObjects()
    assert len(again.ids_to_retry("plans")) == MAX_STORED and again.ids_to_retry("plans") == []
    again.add(Rejected("plans", "plan_00007", None, "it is not of type plan"))
    again.resolve("plans", [f"plan_{n:05}" for n in range(MAX_STORED)])
    again.store("plans")
    assert state[REJECTED_STATE]["plans"] == ["plan_00007"]


def test_a_source_that_runs_again_begins_anew() -> None:
    """What one run could not read any more, the next one takes from the state."""
    context = open_run({}, webhook_events=[WebhookEvent("evt_1", by_id=True)])
    context.pending_events.retry(["evt_2"])
    context.pending_events.failed["evt_1"] = "X"
    context.refuse("plans", NotReadable("not allowed"))
    context.require_another_package(by_id=True)
    context.acquire()
    context.release(["customers"], False)
    pending = context.pending_events
    assert not (pending.events or pending.retried or pending.failed or context.refused)
    assert not context.needs_another_package


def test_a_refusal_of_the_events_that_names_no_permission_is_told_as_it_is() -> None:
    reason = "/v1/events: Stripe refuses the list (400, no code, param types, request req_1)."
    with pytest.raises(PartlyDone, match=r"^Events cannot be read, so .*") as told:
        raise_if_incomplete({CHANGES: reason}, {}, None, needs_events=True)
    assert reason in str(told.value) and "permission" not in str(told.value)
