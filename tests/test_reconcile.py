"""Gaps heal: what no event told is found by comparing the whole lists, and told as a difference;
what an event tells is left to it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stripe_feed.extract.paging import reader
from stripe_feed.sandbox import Sandbox
from stripe_feed.sync_run import Synced
from tests.copies import PERMISSIONS, Copy, copy_of, first_copy
from tests.feed_truth import assert_folds, before_of, changes
from tests.test_feed_property import Died, dying

DAY = 86_400
SETTLED = 400
PIN = "2026-10-28.endive"
SOME = ("customers", "products")


def account() -> Sandbox:
    box = Sandbox(seed=6, customers=6, oddities=False)
    box.create(
        "subscriptions", items=[{"price_data": {"unit_amount": 42}}], status="active"
    )  # its price is in no list
    box.advance(DAY)
    return box


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database after a first sync of the account."""
    return first_copy(account(), tmp_path_factory.mktemp("loaded"))


@pytest.fixture
def copy(loaded: Path, tmp_path: Path) -> Iterator[Copy]:
    """A copy of the account that is up to date; an hour has passed."""
    with copy_of(account(), tmp_path, hold=True) as found:
        shutil.copy(loaded, tmp_path / found.database)
        found.box.advance(3_600)
        yield found


def ids(copy: Copy, table: str) -> list[str]:
    return list(copy.box.objects(table))


def lost(copy: Copy, table: str, id: str, **fields: Any) -> None:
    """An update that no event tells of."""
    copy.box.faults.lost_events = 1.0
    copy.box.update(table, id, **fields)
    copy.box.faults.lost_events = 0.0


def compared(copy: Copy, *tables: str, **options: Any) -> Synced:
    return copy.sync(resources=tables or SOME, reconcile=True, **options)


def told(copy: Copy, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in changes(copy)]


@pytest.mark.parametrize("days", [31, 45, 400])
def test_f8_an_outage_heals_by_itself_and_says_so(
    copy: Copy, caplog: pytest.LogCaptureFixture, days: int
) -> None:
    """Stripe has forgotten part of what happened: the net difference of each object is told, once,
    and events go on.
    """
    box = copy.box
    tables = ("customers", "subscriptions")
    first, second, third = ids(copy, "customers")[:3]
    active = next(
        id for id, one in box.objects("subscriptions").items() if one["status"] == "active"
    )
    box.update("customers", first, name="between")
    box.advance(DAY // 2)
    box.update("customers", first, name="then")
    box.cancel(active)
    made = box.create("customers", name="new")["id"]
    box.advance((days - 1) * DAY)
    box.update("customers", second, phone="1")  # Stripe remembers this
    box.delete("customers", third)
    box.advance(DAY // 2)
    with caplog.at_level(logging.WARNING, "stripe_feed"):
        copy.sync(resources=tables)

    assert "more than 29 days ago" in caplog.text
    copy.check(*tables, volatile=False, found_later=True)
    found = {(row["object_id"], row["op"]): row for row in changes(copy)}
    assert set(found) >= {(first, "u"), (second, "u"), (third, "d"), (made, "c"), (active, "u")}
    assert len(found) == len(changes(copy))
    assert {row["origin"] for row in found.values()} == {"diff"}
    assert (before_of(found[first, "u"])["name"], found[first, "u"]["after"]["name"]) != (
        "between",
        "then",
    )
    assert (found[first, "u"]["after"]["name"], found[active, "u"]["after"]["status"]) == (
        "then",
        "canceled",
    )
    assert before_of(found[third, "d"])["id"] == third

    caplog.clear()
    box.advance(100)
    box.update("customers", first, name="later")
    box.advance(61)
    copy.sync(resources=tables)
    assert (told(copy, "origin", "object_id")[-1], caplog.text) == (("event", first), "")
    assert_folds(copy, tables)
    assert copy.sync(resources=tables).rows == {}


def test_a_lost_update_deletion_and_creation_are_found(copy: Copy) -> None:
    """Told as differences, with what was before; a second comparison finds nothing. Only what was
    asked for is compared. Where fields change without meaning the row is right again, and nobody is
    told.
    """
    box = copy.box
    changed, gone, silent = ids(copy, "customers")[:3]
    lost(copy, "customers", changed, name="lost", metadata={"a": "b"})
    lost(copy, "customers", silent, next_invoice_sequence=4_711)
    box.faults.lost_events = 1.0
    made = box.create("products", default_price=None)["id"]
    before = box.delete("customers", gone)
    box.faults.lost_events = 0.0
    box.advance(1_000)
    assert copy.sync(resources=SOME).rows.get("changes", 0) == 0
    assert compared(copy, "products").healed == {"products": 1}, "only what was asked for"
    assert copy.one("select count(*) from stripe.customers where name = 'lost'") == 0
    done = compared(copy)

    assert {table: count for table, count in done.healed.items() if count} == {"customers": 2}
    rows = {row["object_id"]: row for row in changes(copy)}
    assert {(id, row["op"], row["origin"]) for id, row in rows.items()} == {
        (changed, "u", "diff"),
        (gone, "d", "diff"),
        (made, "c", "diff"),
    }
    assert rows[changed]["after"]["name"] == "lost"
    assert {"name", "metadata.a"} <= set(rows[changed]["changed"])
    assert before_of(rows[gone])["email"] == before["email"]
    heals_silently = f"select next_invoice_sequence from stripe.customers where id = '{silent}'"
    assert copy.one(heals_silently) == 4_711
    copy.check(*SOME, volatile=False, found_later=True)
    done = compared(copy)
    assert (done.rows, sum(done.healed.values())) == ({}, 0)


def test_differences_have_the_same_ids_wherever_they_are_found(
    copy: Copy, loaded: Path, tmp_path: Path
) -> None:
    """A hash of the object, of the row that was replaced, and of what it is now."""
    for n, id in enumerate(ids(copy, "customers")[:3]):
        lost(copy, "customers", id, name=f"lost {n}")
    copy.box.advance(1_000)
    compared(copy, "customers")
    other = Copy(copy.box, copy.url, tmp_path / "other")
    other.folder.mkdir()
    shutil.copy(loaded, other.folder / other.database)
    copy.box.advance(5_000)
    compared(other, "customers")
    assert sorted(told(copy, "change_id")) == sorted(told(other, "change_id"))
    assert len(told(copy, "change_id")) == 3


def test_what_an_event_will_tell_is_left_to_it(copy: Copy) -> None:
    """Its event is not settled yet: no difference now, the change once later."""
    box = copy.box
    changed, gone = ids(copy, "customers")[:2]
    box.update("customers", changed, name="unsettled")
    box.delete("customers", gone)
    made = box.create("products", default_price=None)["id"]
    box.advance(30)
    done = compared(copy)
    assert (done.rows.get("changes", 0), sum(done.healed.values())) == (0, 0)
    box.advance(100)
    compared(copy)
    assert sorted(told(copy, "op", "origin", "object_id")) == sorted(
        [("u", "event", changed), ("d", "event", gone), ("c", "event", made)]
    )
    copy.check(*SOME, volatile=False)


def test_a_difference_counts_once_it_was_read_again(copy: Copy) -> None:
    """What changes while the list is read is told by its event, if that shows before the end."""
    box = copy.box
    id = ids(copy, "customers")[0]
    done = dict[str, bool]()

    def change(template: str, params: Any) -> None:
        if template == "/v1/customers" and not done:
            done["once"] = True
            box.update("customers", id, name="while it was read")

    box.on_request = change
    compared(copy, "customers")
    box.on_request = None
    assert done
    box.advance(100)
    copy.sync(resources=["customers"])
    assert told(copy, "op", "origin", "object_id") == [("u", "event", id)]
    copy.check("customers")


def test_what_the_list_does_not_show_is_not_gone(copy: Copy) -> None:
    """A price that was made for one subscription is in no list. What changed of it untold is seen
    inside its item and healed, as of a price that is listed; its subscription has not changed. It is
    retrieved before it would count as deleted.
    """
    tables = ("subscriptions", "prices", "plans")
    box = copy.box
    inline = {row.id for row in box.account.tables["prices"].rows.values() if row.group == "inline"}
    held = {
        item["price"]["id"]: item["subscription"]
        for item in box.children("subscription_items").values()
    }
    (hidden,) = inline & set(held)
    other = min(set(held) - inline)
    for id in (hidden, other):
        lost(copy, "prices", id, nickname="Changed")
    box.advance(1_000)
    compared(copy, *tables)
    healed = set(told(copy, "resource", "op", "origin", "object_id"))
    assert healed == {
        (table, "u", "diff", id) for table in ("prices", "plans") for id in (hidden, other)
    }, "a price that changed, and not what embeds it"
    box.update("subscriptions", held[hidden], items=[{}])  # not even an item shows it now
    box.advance(1_000)
    done = compared(copy, *tables)
    assert sum(done.healed.values()) == 0
    assert copy.select(f"select deleted_at from stripe.prices where id = '{hidden}'") == [(None,)]
    copy.check(*tables)


def test_a_copy_of_a_price_that_is_older_than_the_price_does_no_harm(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of it directly stays, and nobody is told anything."""
    tables = ("subscriptions", "prices", "plans")
    box = copy.box
    monkeypatch.setattr(box.account.embedded_prices, "replace_price", lambda *_: None)
    used = {item["price"]["id"] for item in box.children("subscription_items").values()}
    for id in (*(used & box.account.inline_prices), min(used - box.account.inline_prices)):
        box.update("prices", id, nickname="Changed")
    box.advance(1_000)
    copy.sync(resources=tables)
    before = told(copy, "change_id")
    assert sum(compared(copy, *tables).healed.values()) == 0
    assert told(copy, "change_id") == before
    copy.check(*tables)


@pytest.mark.parametrize("ended", [True, False], ids=["loaded", "its load did not end"])
@pytest.mark.parametrize(
    "told_of", [True, False], ids=["its creation was told", "nothing was told"]
)
def test_what_a_list_brought_without_an_event_is_recorded(
    copy: Copy, told_of: bool, ended: bool
) -> None:
    """The row is right already, as its list is read again for a while; the changes must lead there
    too. Also if a load merged the row and was refused before its changes.
    """
    box = copy.box
    box.faults.lost_events = 0.0 if told_of else 1.0
    id = box.create("customers", name="first")["id"]
    box.faults.lost_events = 0.0
    box.advance(5)
    lost(copy, "customers", id, name="second")
    box.advance(61)
    copy.sync(resources=["customers"])
    assert copy.one(f"select name from stripe.customers where id = '{id}'") == "second"
    assert told(copy, "op", "origin") == ([("c", "event")] if told_of else [])
    if not ended:
        copy.select(f"update stripe.customers set _dlt_load_id = '1' where id = '{id}'")
    box.advance(1_000)
    assert compared(copy, "customers").restored == ({} if ended else {"customers": 1})

    assert told(copy, "op", "origin") == (
        [("c", "event"), ("u", "diff")] if told_of else [("c", "diff")]
    )
    assert changes(copy)[-1]["after"]["name"] == "second"
    if told_of:
        assert (before_of(changes(copy)[-1])["name"], changes(copy)[-1]["changed"]) == (
            "first",
            ["name"],
        )
    assert compared(copy, "customers").rows == {}


def test_without_events_it_finds_the_updates(copy: Copy) -> None:
    """For a key that may not read them."""
    box = copy.box
    key = box.restrict(permissions=PERMISSIONS - {"rak_event_read"})
    changed, gone = ids(copy, "customers")[:2]
    box.update("customers", changed, name="unseen")
    box.delete("customers", gone)
    box.advance(1_000)
    copy.sync(resources=SOME, api_key=key)
    assert copy.one("select count(*) from stripe.customers where name = 'unseen'") == 0
    done = compared(copy, api_key=key)
    assert set(done.refused) == {"changes"}
    assert sorted(told(copy, "op", "origin", "object_id")) == sorted(
        [("u", "diff", changed), ("d", "diff", gone)]
    )
    copy.check(*SOME, volatile=False, found_later=True)


def test_children_are_compared_too(copy: Copy) -> None:
    """Lines of an invoice and items of a subscription, beyond the ten that it shows."""
    box = copy.box
    tables = ("subscriptions", "invoices")
    many = box.create("subscriptions", items=14, status="active")["id"]
    draft = box.create("invoices", lines=12, status="draft")["id"]
    box.advance(500)
    copy.sync(resources=tables)
    items = [
        id
        for id, item in box.children("subscription_items").items()
        if item["subscription"] == many
    ]
    box.advance(500)
    lost(
        copy,
        "subscriptions",
        many,
        items=[*({"id": id} for id in items[:13]), {"id": items[13], "quantity": 99}],
    )
    box.faults.lost_events = 1.0
    box.delete("invoices", draft)
    box.faults.lost_events = 0.0
    box.advance(1_000)
    compared(copy, *tables)
    copy.check(*tables, volatile=False, found_later=True)
    assert (
        copy.one(f"select quantity from stripe.subscription_items where id = '{items[13]}'") == 99
    )
    assert (
        copy.one(f"select count(*) from stripe.invoice_line_items where invoice = '{draft}'") == 0
    )


def test_a_backfill_that_was_left_for_a_month_is_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events of the first days are gone: what it listed then may have changed since, and
    nothing would tell.
    """
    box = Sandbox(seed=5, customers=300, oddities=False)
    with copy_of(box, tmp_path, hold=True) as copy:
        monkeypatch.setattr(reader, "MAX_TABLE_ROWS", 50)
        with pytest.raises(Died), dying(3):
            copy.sync(resources=["customers"], checkpoint_rows=100)
        held = [id for (id,) in copy.select("select id from stripe.customers")]
        assert 0 < len(held) < len(box.objects("customers"))
        for id in held[:20]:
            box.update("customers", id, name="Changed meanwhile")
        box.delete("customers", held[20])
        box.advance(31 * DAY)
        copy.sync(resources=["customers"])
        box.advance(SETTLED)
        copy.sync(resources=["customers"])
        copy.check("customers", found_later=True)


def test_a_permission_that_comes_later_brings_what_was_deleted_before(tmp_path: Path) -> None:
    """The list shows nothing of it, and the events from then on do not either."""
    box = Sandbox(seed=5, customers=20, oddities=False)
    without = box.restrict(permissions=PERMISSIONS - {"rak_event_read"})
    with copy_of(box, tmp_path, hold=True) as copy:
        copy.sync(resources=["customers"], api_key=without)
        box.advance(DAY)
        box.delete("customers", next(iter(box.objects("customers"))))
        box.advance(DAY)
        copy.sync(resources=["customers"])
        copy.check("customers", found_later=True)
        assert not any(
            "compare" in state for state in copy.states.values() if isinstance(state, dict)
        )


def test_what_was_deleted_in_the_middle_of_a_first_list_that_took_too_long_is_found(
    tmp_path: Path,
) -> None:
    """The list begins again, and no event that Stripe still has tells of the deletion."""
    box = Sandbox(seed=5, customers=250, oddities=False)
    with copy_of(box, tmp_path, hold=True) as copy:
        copy.run(copy.source().with_resources("customers", "changes").add_limit(1))
        (loaded,) = copy.select("select id from stripe.customers limit 1")
        box.delete("customers", *loaded)
        box.advance(45 * DAY)
        copy.sync(resources=["customers"])
        copy.check("customers", found_later=True)


def test_what_came_and_went_untold_comes_before_it_goes(copy: Copy) -> None:
    """A list brought it, no event told of its creation nor of its end."""
    copy.box.faults.lost_events = 1.0
    id = copy.box.create("customers")["id"]
    copy.box.advance(SETTLED)
    copy.sync(resources=("customers",))
    copy.box.delete("customers", id)
    copy.box.faults.lost_events = 0.0
    copy.box.advance(1_000)
    compared(copy, "customers")
    assert told(copy, "object_id", "op") == [(id, "c"), (id, "d")]


@pytest.mark.parametrize("first, then", [
    ("2024-06-20", PIN), ("2025-03-31.basil", PIN), (PIN, "2025-03-31.basil"), ("2024-06-20", "2025-09-30.clover"),
])  # fmt: skip
def test_another_api_version_makes_no_changes(tmp_path: Path, first: str, then: str) -> None:
    """Of objects that did not change; what no event told is told as what it is, without what the
    versions differ in.
    """
    box = Sandbox(seed=9, customers=20)
    with copy_of(box, tmp_path, hold=True) as copy:
        copy.sync(api_version=first)
        subscription, invoice = ids(copy, "subscriptions")[2], ids(copy, "invoices")[1]
        (item, *_) = [
            id
            for id, found in box.children("subscription_items").items()
            if found["subscription"] == subscription
        ]
        lost(
            copy,
            "subscriptions",
            subscription,
            metadata={"lost": "yes"},
            items=[{"id": item, "quantity": 77}],
        )
        lost(copy, "invoices", invoice, description="lost")
        box.advance(DAY)
        done = copy.sync(api_version=then, reconcile=True)
        assert {table: count for table, count in done.healed.items() if count} == {
            "subscriptions": 1,
            "invoices": 1,
        }
        changed = dict(told(copy, "object_id", "changed"))
        assert changed.keys() == {subscription, invoice}
        assert changed[invoice] == ["description"]
        assert [path for path in changed[subscription] if not path.startswith("metadata.")] == [
            "items.data"
        ]
