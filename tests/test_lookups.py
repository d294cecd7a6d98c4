"""What rules and templates look up beside a change: the customer, the subscription and the invoice,
as the copy has them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stripe_feed import open_feed
from stripe_feed.delivery.transports import AttemptResult
from stripe_feed.destination.pipeline import lock_copy
from stripe_feed.errors import Locked, SetupError, UsageError
from stripe_feed.feed import lookups as module
from stripe_feed.feed.lookups import CACHE_SECONDS, CACHE_SIZE, Lookups, LookupUnavailable
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.sandbox import Sandbox
from stripe_feed.server.changes_query import as_records, fetch_page, parse_query
from stripe_feed.triggers.backtest import backtest
from stripe_feed.triggers.engine import explain_change, replay, run_triggers
from stripe_feed.triggers.expressions import compile_expression
from tests.copies import copy_of
from tests.deliveries import (
    NOW,
    OK,
    Clock,
    Scripted,
    a_trigger,
    add,
    delivering_to,
    made,
    messages,
    run_one,
    told_ids,
    updates,
)
from tests.feed_kills import a_change
from tests.web import served

CUSTOMER = {"id": "cus_1", "email": "c@example.com", "name": "C", "metadata": {"tier.x": "gold"}}


@dataclass
class Shelf:
    """A copy that counts how often it is read, and can be closed."""

    objects: dict[tuple[str, str], Any] = field(
        default_factory=lambda: {("customers", "cus_1"): CUSTOMER}
    )
    reads: list[tuple[str, list[str]]] = field(default_factory=list)
    is_open: bool = True

    def __call__(self, table: str, ids: Sequence[str]) -> Mapping[str, Any]:
        self.reads.append((table, sorted(ids)))
        if not self.is_open:
            raise Locked("Somebody loads.")
        return {id: self.objects[table, id] for id in ids if (table, id) in self.objects}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedStore]:
    with FeedStore(tmp_path / "feed.sqlite") as store:
        yield store


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (a_change(1), "customer.email == 'c@example.com' and customer.metadata['tier.x'] == 'gold' and customer.metadata.tier.x == 'gold'"),
        (a_change(1, customer_id="cus_2"), "customer.email is null and customer.metadata['x'] is null"),
        (a_change(1, customer_id=None), "customer.email is null"),
        (a_change(1, customer_id=None, after={"customer": {"id": "cus_1"}}), "customer.name == 'C'"),
        (a_change(1, "d", "d"), "customer.email == 'c@example.com' and subscription.status == 's1'"),
        (a_change(1, "cus_1", resource="customers", after={"id": "cus_1", "email": "new"}), "customer.email == 'new'"),
        (a_change(1, "in_1", resource="invoices", after={"id": "in_1", "subscription": "sub_9"}), "subscription.status == 'active'"),
        (a_change(1, "in_1", resource="invoices", after={"parent": {"subscription_details": {"subscription": "sub_9"}}}), "subscription.status == 'active'"),
        (a_change(1, after={"latest_invoice": "in_9"}), "invoice.number == 'N-9' and subscription.latest_invoice == 'in_9'"),
        (a_change(1, "price_1", resource="prices", customer_id=None, after={"id": "price_1"}), "customer.id is null and invoice.id is null"),
    ],
)  # fmt: skip
def test_a_rule_reads_what_is_beside_a_change(change: Any, rule: str) -> None:
    shelf = Shelf()
    shelf.objects |= {
        ("subscriptions", "sub_9"): {"status": "active"},
        ("invoices", "in_9"): {"number": "N-9"},
    }
    words = {"resource": change["resource"], "op": ["c", "u", "d"], "where": rule}

    assert a_trigger(**words).fires(made(change), Lookups(None, shelf))
    assert compile_expression(rule).related_tables <= {"customer", "subscription", "invoice"}
    assert a_trigger(**{**words, "where": "after.id != 'x'"}).fires(
        made(change), Lookups(None, Shelf(is_open=False))
    )


@pytest.mark.parametrize(
    "rule", ["customer", "customer == null", "customer.id == price.id", "customer.__class__"]
)
def test_what_has_no_field_or_is_not_looked_up_is_refused(rule: str) -> None:
    with pytest.raises(UsageError, match="at column"):
        compile_expression(rule)


def test_a_run_reads_once_for_all_its_changes(store: FeedStore) -> None:
    shelf = Shelf()
    trigger = a_trigger(where="customer.email != null", guard={"max": 10_000, "share": 1})
    run_triggers(store, [trigger], NOW)
    add(
        store,
        *(
            a_change(n, f"sub_{n}", customer_id=f"cus_{n % 50}", op="u" if n % 2 else "r")
            for n in range(1, 401)
        ),
    )

    (found,) = run_triggers(store, [trigger], NOW, lookups=Lookups(store, shelf))

    assert found.fired == 8
    assert shelf.reads == [("customers", sorted(f"cus_{n}" for n in range(1, 50, 2)))]
    assert backtest(store, trigger, "earliest", 1, NOW, Lookups(store, shelf)).fired == 8
    assert replay(store, trigger, 1, NOW, lookups=Lookups(store, shelf)).fired == 8
    (told,) = explain_change(store, [trigger], "evt_1", Lookups(store, shelf))
    assert told.clauses[-1].found == {"customer.email": "c@example.com"}


def test_a_question_for_a_rule_reads_once_for_a_page(store: FeedStore) -> None:
    trigger = a_trigger(where="customer.email != null")
    add(
        store,
        *(
            a_change(n, f"sub_{n}", customer_id=f"cus_{n}", op="u" if n % 2 else "r")
            for n in range(1, 61)
        ),
    )

    for form in ("json", "zapier"):
        lookups = Lookups(store, shelf := Shelf())
        question = parse_query(
            {"trigger": "t", "format": form}.items(), ("trigger", "format"), [trigger], lookups
        )
        if form == "json":
            assert [one.change_id for one in fetch_page(store, question, NOW).changes] == ["evt_1"]
        else:
            assert [one["id"] for one in json.loads(as_records(store, question)[0])] == ["evt_1"]
        assert shelf.reads == [("customers", sorted(f"cus_{n}" for n in range(1, 61, 2)))]


def test_a_copy_that_cannot_be_read_is_later_and_never_null(store: FeedStore) -> None:
    shelf, clock = Shelf(is_open=False), Clock(0.0)
    trigger, lookups = a_trigger(where="customer.email == null"), Lookups(store, shelf, clock)
    run_one(store, trigger)
    add(store, *updates(3, 3))

    for _ in range(2):
        (found,) = run_triggers(store, [trigger], NOW, lookups=lookups)
        assert (found.fired, found.error) == (0, "Somebody loads.")
    assert len(shelf.reads) == 1  # who asks a moment later is told the same
    shelf.is_open, clock.at = True, 2.0
    shelf.objects.clear()
    assert run_triggers(store, [trigger], NOW, lookups=lookups)[0].fired == 3


def test_a_message_says_what_is_beside_its_change_when_it_is_sent(
    store: FeedStore, caplog: pytest.LogCaptureFixture
) -> None:
    shelf, at, clock = Shelf(is_open=False), Clock(), Clock(0.0)
    trigger = a_trigger(
        deliver={
            "template": {
                "to": "{customer.email}",
                "text": '{subscription.status} of {customer.metadata["tier.x"]}{invoice.number}',
            }
        }
    )
    run_one(store, trigger)
    add(store, *updates(3, 3))
    run_one(store, trigger)
    sink, lookups = Scripted(), Lookups(store, shelf, clock)
    with delivering_to(store, [(trigger, sink)], at, lookups=lookups) as delivery:
        assert delivery.once().sent == 0
        assert ([one.tries for one in messages(store, "waiting")], sink.seen) == ([0, 0, 0], [])
        assert [one.getMessage() for one in caplog.records] == [
            "Trigger t cannot create a message yet: Somebody loads."
        ]
        shelf.is_open, clock.at, at.at = True, 2.0, at.at + 6
        assert delivery.once().sent == 3
    assert sorted((said for _, said in sink.seen), key=str) == [
        {"to": "c@example.com", "text": f"s{n} of gold"} for n in (1, 2, 3)
    ]
    assert len(shelf.reads) == 2

    store.query("insert into forgotten values ('cus_1')")
    assert lookups.related(made(a_change(9)), {"customer"}) == {"customer": None}
    assert told_ids(store, "sent") == ["evt_1", "evt_2", "evt_3"]


def test_a_trigger_that_waits_for_the_copy_holds_no_other(store: FeedStore) -> None:
    told, waited = threading.Event(), list[bool]()

    def read(table: str, ids: Sequence[str]) -> Mapping[str, Any]:
        waited.append(told.wait(5.0))
        return {}

    looks, plain = a_trigger("a", deliver={"template": {"to": "{customer.email}"}}), a_trigger("b")
    run_triggers(store, [looks, plain], NOW)
    add(store, *updates(3, 3))
    run_triggers(store, [looks, plain], NOW)

    def take(*_: object) -> AttemptResult:
        told.set()
        return OK

    sinks = [(looks, Scripted()), (plain, Scripted(take))]
    with delivering_to(store, sinks, Clock(), lookups=Lookups(store, read)) as delivery:
        assert delivery.once().sent == 6
    assert waited == [True]


def test_an_object_is_read_again_after_a_minute_and_few_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shelf, clock = Shelf(), Clock(0.0)
    found = Lookups(None, shelf, clock)
    for at in (0.0, CACHE_SECONDS, CACHE_SECONDS + 1):
        clock.at = at
        found.related(made(a_change(1)), {"customer"})
    assert len(shelf.reads) == 2
    monkeypatch.setattr(module, "CACHE_SIZE", 2)
    found.prefetch([made(a_change(1, customer_id=f"cus_{n}")) for n in range(2, 4)], {"customer"})
    found.related(made(a_change(1)), {"customer"})
    assert len(shelf.reads) == 4
    assert CACHE_SIZE >= 1_500  # three for each change of a page


def test_rows_of_a_copy_are_looked_up_and_asked_for_over_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.0)
    box = Sandbox(seed=4, customers=3, oddities=False)
    gone = box.create("customers", email="g@example.com")["id"]
    box.advance(400)
    with copy_of(box, tmp_path, hold=True) as copy:
        with (
            open_feed(copy.pipeline) as feed,
            pytest.raises(SetupError, match="no copy of customers yet"),
        ):
            feed.lookups.get("customers", gone)
        copy.sync(resources=["customers", "subscriptions"])
        box.delete("customers", gone)
        box.advance(400)
        copy.sync(resources=["customers", "subscriptions"])
        with open_feed(copy.pipeline) as feed, served(feed) as web:
            id, image = next(iter(box.objects("subscriptions").items()))
            held = feed.lookups.get("subscriptions", id)
            assert held is not None
            assert {
                name: held[name] for name in ("id", "status", "customer", "created", "metadata")
            } == {name: image[name] for name in ("id", "status", "customer", "created", "metadata")}
            assert (held["deleted_at"], feed.lookups.get("customers", "cus_none")) == (None, None)
            with pytest.raises(SetupError, match="first copy of invoices is not complete"):
                feed.lookups.get("invoices", "in_1")

            (item,) = [
                one[0]
                for one in copy.select(
                    f"select id from stripe.subscription_items where subscription = '{id}' limit 1"
                )
            ]
            assert web.get(f"/objects/subscription_items/{item}").json["subscription"] == id
            customer = web.get(f"/objects/customers/{gone}").json
            assert (customer["email"], customer["deleted_at"] is None) == ("g@example.com", False)
            assert [
                web.get(f"/objects/{path}").status
                for path in (
                    "customers/cus_none",
                    "customers/a%2Fb",
                    "customers/a%00b",
                    "customers/%FF",
                    "changes/evt_1",
                    "invoices/in_1",
                )
            ] == [404] * 5 + [503]
            with lock_copy(copy.pipeline, "stripe-feed sync"):
                busy = web.get(f"/objects/customers/{gone}")
                assert (busy.status, "stripe-feed sync" in busy.error) == (503, True)
                with pytest.raises(LookupUnavailable):
                    feed.lookups.related(made(a_change(1)), {"customer"})
            feed.forget(gone)
            assert web.get(f"/objects/customers/{gone}").status == 404
