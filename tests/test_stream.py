"""What happened in an account arrives in its copy: rows and changes, each once, in order; and what
is no change does not.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from dlt.pipeline.exceptions import PipelineStepFailed
from msgspec import Raw

from stripe_feed.extract.events import poll_groups, reader
from stripe_feed.extract.events.poll_groups import PollGroup
from stripe_feed.extract.events.reader import Event, EventData
from stripe_feed.extract.events.webhook import WebhookEvent
from stripe_feed.extract.writer import Writer
from stripe_feed.sandbox import Sandbox
from stripe_feed.sync_run import Synced
from tests.copies import PERMISSIONS, Copy, copy_of, first_copy
from tests.core import CORE
from tests.feed_truth import Row, assert_complete, assert_folds, assert_in_order, before_of, changes

DAY = 86_400
SETTLED = 61
PIN = "2026-10-28.endive"
LISTS = {"/v1/account", "/v1/events", *(row.path for row in CORE.values())}


def account() -> Sandbox:
    """A few objects of each kind, none of them new; always the same."""
    box = Sandbox(seed=5, customers=6, oddities=False)
    box.create("subscriptions", id="sub_many", items=14, status="active")
    box.advance(DAY)
    return box


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The database after a first sync of the account."""
    return first_copy(account(), tmp_path_factory.mktemp("loaded")).read_bytes()


@pytest.fixture
def copy(loaded: bytes, tmp_path: Path) -> Iterator[Copy]:
    """A copy of the account that is up to date."""
    with copy_of(account(), tmp_path, hold=True) as found:
        (tmp_path / found.database).write_bytes(loaded)
        yield found


def settled(copy: Copy, *tables: str, **options: Any) -> Synced:
    """Sync once all events are old enough."""
    copy.box.advance(SETTLED)
    return copy.sync(resources=tables or None, **options)


def some(copy: Copy, table: str, n: int = 0, **fields: Any) -> str:
    """The id of an object that the copy holds already; the n-th with these fields."""
    found = [
        id
        for id, one in copy.box.objects(table).items()
        if all(one[name] == value for name, value in fields.items())
    ]
    return found[n]


def told(copy: Copy, *names: str) -> list[tuple[Any, ...]]:
    """Fields of all changes, in their order."""
    return [tuple(row[name] for name in names) for row in changes(copy)]


def books(copy: Copy) -> list[int]:
    """How many loads, states and schemas the destination has noted."""
    return [
        copy.one(f"select count(*) from stripe.{table}")
        for table in ("_dlt_loads", "_dlt_pipeline_state", "_dlt_version")
    ]


def asked(box: Sandbox) -> Counter[str]:
    """Requests by path template."""
    found = Counter[str]()
    for (template, _), count in box.counts.items():
        found[template] += count
    return found


# -- a life
# -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lived(loaded: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """After two stretches of a busy life, each followed by a sync, and a quiet sync at the end."""
    box = account()
    with copy_of(box, tmp_path_factory.mktemp("lived"), hold=True) as copy:
        (copy.folder / copy.database).write_bytes(loaded)
        for seconds, count, wait in ((2, 80, 30), (3000, 120, 1)):
            box.live(seconds, count)
            box.noise(20)
            box.burst(10)
            box.preview(some(copy, "customers"))
            box.advance(wait)
            copy.sync()
        settled(copy)
        yield copy


def test_f1_every_transition_is_recorded_once(lived: Copy) -> None:
    """Nothing is missing, nothing comes twice, nothing that did not happen; each as Stripe told it."""
    found = assert_complete(lived, orders=False)
    assert len(found) > 200
    assert {row["op"] for row in found} == {"c", "u", "d"}
    assert {row["resource"] for row in found} == set(CORE)


def test_f2_the_changes_lead_to_the_tables_and_these_to_the_truth(lived: Copy) -> None:
    lived.check(volatile=False)
    assert assert_folds(lived) > 100


def test_f3_each_change_begins_where_the_one_before_ended(lived: Copy) -> None:
    """And objects go the way that they went, seconds with several changes included."""
    assert_complete(lived)
    assert_in_order(lived)
    assert not lived.one("select count(*) from stripe.changes where late")
    same_second = "select 1 from stripe.changes group by object_id, resource, occurred_at having count(distinct after::varchar) > 1"
    assert lived.one(f"select count(*) from ({same_second})") > 20


def test_what_is_no_object_is_in_no_table(lived: Copy) -> None:
    """Cards, tax ids, payments, and previews of invoices."""
    types = {event.type for event in lived.box.events}
    assert types >= {"invoice.upcoming", "customer.source.created", "charge.succeeded"}
    found = {type for (type,) in told(lived, "event_type")}
    assert not {
        type
        for type in found
        if type.startswith(("customer.source", "customer.tax_id", "charge", "payment"))
        or "upcoming" in type
    }
    assert not lived.one("select count(*) from stripe.invoices where id like 'upcoming%'")


def test_links_are_in_the_tables_but_in_no_change(lived: Copy) -> None:
    """Whoever holds one may open the invoice."""
    assert lived.one(
        "select count(*) from stripe.invoices where hosted_invoice_url is not null and invoice_pdf is not null"
    )
    text = "concat_ws(' ', after::varchar, previous::varchar, changed::varchar)"
    assert (
        lived.one(
            f"select count(*) from stripe.changes where regexp_matches({text}, 'hosted_invoice_url|invoice_pdf|confirmation_secret')"
        )
        == 0
    )


def test_each_change_names_its_customer(lived: Copy) -> None:
    """Of customers themselves, subscriptions and invoices; deletions too."""
    for row in changes(lived):
        if row["resource"] in ("customers", "subscriptions", "invoices"):
            image = row["after"] or before_of(row)
            assert row["customer_id"] == (
                row["object_id"] if row["resource"] == "customers" else image["customer"]
            )
        else:
            assert row["customer_id"] is None


# -- the same changes, however they are read
# --------------------------------------------------------------------------------


def test_f4_change_ids_are_the_same_wherever_and_whenever_they_are_read(
    copy: Copy, loaded: bytes, tmp_path: Path
) -> None:
    """Run again, with a wider look-back, and from an older copy in another folder that has missed a
    run.
    """
    tables = ("customers", "products")
    for _ in range(2):
        copy.box.live(200, 80)
        settled(copy, *tables)
    first = told(copy, "change_id", "resource", "op")
    noted = books(copy)
    for options in ({"look_back": 5_000}, {"look_back": 0}):
        copy.sync(resources=tables, **options)
        assert (told(copy, "change_id", "resource", "op"), books(copy)) == (first, noted)

    other = Copy(copy.box, copy.url, tmp_path / "other")
    other.folder.mkdir()
    (other.folder / other.database).write_bytes(loaded)
    other.sync(resources=tables)
    assert sorted(told(other, "change_id", "resource", "op")) == sorted(first)
    for table in tables:
        assert_complete(other, [table])
    assert_in_order(other)


# -- deleted, cancelled, created again
# --------------------------------------------------------------------------------------


def test_f10_a_cancelled_subscription_is_an_update(copy: Copy) -> None:
    """`customer.subscription.deleted` ends it; its row stays, with its items."""
    id = some(copy, "subscriptions", status="active")
    copy.box.advance(400)
    copy.box.cancel(id)
    settled(copy, "subscriptions")

    (row,) = changes(copy)
    assert (row["op"], row["event_type"], row["after"]["status"]) == (
        "u",
        "customer.subscription.deleted",
        "canceled",
    )
    assert (before_of(row)["status"], row["before_quality"]) == ("active", "exact")
    assert "status" in row["changed"]
    assert copy.select(
        f"select status, deleted_at from stripe.subscriptions where id = '{id}'"
    ) == [("canceled", None)]
    copy.check("subscriptions")


@pytest.mark.parametrize("before", ["row", "change"])
def test_f10_a_deletion_without_a_body_has_the_whole_object_before(copy: Copy, before: str) -> None:
    """`customer.deleted` with three keys: the content comes from the change before it, or from the
    row.
    """
    id = some(copy, "customers")
    copy.box.stub_deletes = True
    if before == "change":
        copy.box.update("customers", id, name="Newer", metadata={"a": "b"})
        settled(copy, "customers")
    last = copy.box.objects("customers")[id]
    copy.box.advance(10)
    copy.box.delete("customers", id)
    settled(copy, "customers")

    row = changes(copy)[-1]
    assert (row["op"], row["after"], row["before_quality"], row["customer_id"]) == (
        "d",
        None,
        "exact",
        id,
    )
    left_out = ("next_invoice_sequence",)
    assert {**before_of(row), **dict.fromkeys(left_out)} == {**last, **dict.fromkeys(left_out)}
    copy.check("customers", volatile=False)


@pytest.mark.parametrize("stubs", [False, True], ids=["whole", "stubs"])
def test_deleted_rows_stay_with_their_last_content(copy: Copy, stubs: bool) -> None:
    """Customers, products, plans with their prices, drafts; the children of these are gone."""
    box = copy.box
    box.stub_deletes = stubs
    made = {
        "prices": box.create(
            "prices", recurring={"interval": "month"}, unit_amount=7, product=some(copy, "products")
        )["id"],
        "customers": box.create("customers")["id"],
        "products": box.create("products", default_price=None)["id"],
        "invoices": box.create("invoices", status="draft", lines=13)["id"],
    }
    tables = (*made, "plans")
    settled(copy, *tables)
    assert (
        copy.one(
            f"select count(*) from stripe.invoice_line_items where invoice = '{made['invoices']}'"
        )
        == 13
    )
    box.advance(5)
    for table, id in made.items():
        box.delete(table, id)
    ended = box.now
    settled(copy, *tables)

    for table, id in [*made.items(), ("plans", made["prices"])]:
        assert (
            copy.one(f"select epoch(deleted_at)::bigint from stripe.{table} where id = '{id}'")
            == ended
        )
    assert (
        copy.one(
            f"select count(*) from stripe.invoice_line_items where invoice = '{made['invoices']}'"
        )
        == 0
    )
    assert Counter(op for (op,) in told(copy, "op"))["d"] == 5
    copy.check(*tables, volatile=False)
    assert_complete(copy, tables)


def test_what_cannot_be_read_again_and_was_deleted_is_gone(copy: Copy) -> None:
    """Though an event of another version, of the same second, seems to come after the deletion."""
    box = copy.box
    gone = [box.create("products", default_price=None)["id"] for _ in range(8)]
    box.advance(SETTLED)
    copy.sync(resources=("products",))
    for versions in (("2024-06-20",), (PIN, "2024-06-20")):
        box.advance(30)
        for version in versions:
            box.api_version = version
            for id in gone:
                box.update("products", id, name=f"{version} {box.now}")
    for id in gone:
        box.delete("products", id)
    box.advance(SETTLED)
    copy.sync(resources=("products",))
    ids = ", ".join(f"'{id}'" for id in gone)
    assert copy.one(
        f"select count(*) from stripe.products where id in ({ids}) and deleted_at is not null"
    ) == len(gone)


def test_hard_deletes_remove_rows_once_the_look_back_has_passed(copy: Copy) -> None:
    """Not before: an event that shows late could bring the row back. The change stays."""
    id = some(copy, "customers")
    copy.box.delete("customers", id)
    settled(copy, "customers", deletes="hard")
    assert (
        copy.one(
            f"select count(*) from stripe.customers where id = '{id}' and deleted_at is not null"
        )
        == 1
    )
    for _ in range(2):
        copy.box.advance(500)
        copy.box.create("customers")
        settled(copy, "customers", deletes="hard")
    assert copy.one(f"select count(*) from stripe.customers where id = '{id}'") == 0
    assert [op for op, object in told(copy, "op", "object_id") if object == id] == ["d"]


@pytest.mark.parametrize(("gap", "stubs"), [(0, False), (0, True), (1, True), (1000, False)])
def test_an_object_that_is_created_again_lives_again(copy: Copy, gap: int, stubs: bool) -> None:
    """Under its old id: its row has the new content and no end, and its changes come in order."""
    box = copy.box
    box.stub_deletes = stubs
    id = box.create("products", default_price=None, name="first")["id"]
    settled(copy, "products")
    box.advance(1000)
    box.delete("products", id)
    if gap > 60:
        settled(copy, "products")
        assert (
            copy.one(
                f"select count(*) from stripe.products where id = '{id}' and deleted_at is not null"
            )
            == 1
        )
    box.advance(gap)
    box.create("products", id=id, name="second")
    settled(copy, "products")

    assert copy.select(f"select name, deleted_at from stripe.products where id = '{id}'") == [
        ("second", None)
    ]
    assert [op for op, object in told(copy, "op", "object_id") if object == id] == ["c", "d", "c"]
    copy.check("products")
    assert_complete(copy, ["products"])


# -- children
# ---------------------------------------------------------------------------------------------------------------


def test_children_follow_their_parent_beyond_the_ten_that_an_event_shows(copy: Copy) -> None:
    """An event holds ten at most: where it says that there are more, all are read."""
    box, many = copy.box, "sub_many"
    few = next(
        id
        for id, one in box.objects("subscriptions").items()
        if one["status"] == "active" and id != many
    )
    items = [
        id
        for id, item in box.children("subscription_items").items()
        if item["subscription"] == many
    ]
    box.update(
        "subscriptions",
        many,
        items=[*({"id": id} for id in items[2:13]), {"id": items[13], "quantity": 99}, {}, {}],
    )
    box.update("subscriptions", few, items=[{}])
    settled(copy, "subscriptions")
    copy.check("subscriptions")
    assert (
        copy.one(f"select count(*) from stripe.subscription_items where subscription = '{many}'")
        == 14
    )
    assert (
        copy.one(f"select quantity from stripe.subscription_items where id = '{items[13]}'") == 99
    )

    box.advance(400)
    box.update("subscriptions", many, items=[{"id": items[5]}])
    settled(copy, "subscriptions")
    copy.check("subscriptions")
    assert (
        copy.one(f"select count(*) from stripe.subscription_items where subscription = '{many}'")
        == 1
    )


# -- time
# -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["BATCH_EVENTS", "BATCH_BYTES"])
@pytest.mark.parametrize(
    "seconds", [[5] * 40, [1, 2, 2] + [5] * 40 + [6, 7], [1] * 12 + [2] * 12, []]
)
def test_a_batch_of_events_ends_with_a_second_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch, seconds: list[int], limit: str
) -> None:
    """Each event comes once, and no second is cut."""
    monkeypatch.setattr(reader, limit, 10)
    events = [
        Event(f"evt_{n}", "customer.updated", at, EventData(Raw(b"{}")))
        for n, at in enumerate(seconds)
    ]
    pages = [events[n : n + 5] for n in range(0, len(events), 5)]
    monkeypatch.setattr(reader, "oldest_first", lambda *_: iter(pages))
    reading, batches = (
        reader.EventBatches(PollGroup((CORE["customers"],), None), cast(Any, None), 0, 10),
        list[list[Event]](),
    )
    while not reading.finished:
        while not reading.ready:
            reading.wait_for_page()
        batches.append(reading.next_batch())
        assert len(batches) <= len(seconds) + 1, "it goes on without end"

    assert [event.id for batch in batches for event in batch] == [event.id for event in events]
    assert len({(n, event.created) for n, batch in enumerate(batches) for event in batch}) == len(
        set(seconds)
    )


def test_events_of_every_type_are_read_in_one_call(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where filtered calls would be more than three; events of no resource are skipped."""
    monkeypatch.setattr(poll_groups, "MAX_FILTERED_CALLS", 0)
    copy.box.live(500, 40)
    copy.box.noise(20)
    copy.box.advance(SETTLED)
    copy.box.counts.clear()

    copy.sync()

    assert asked(copy.box)["/v1/events"] == 1
    assert len(assert_complete(copy, orders=False)) > 30
    copy.check(volatile=False)
    copy.box.advance(DAY)
    copy.sync()  # the last of the look-back
    copy.box.advance(DAY)
    copy.box.counts.clear()
    copy.sync()
    assert asked(copy.box) == Counter(LISTS) + Counter({"/v1/prices": 1})  # active, and archived


def test_an_event_is_applied_once_it_is_settled(copy: Copy) -> None:
    """Younger ones may not all be visible yet; those that are read are not read again."""
    id = some(copy, "customers")
    copy.box.advance(400)
    copy.box.update("customers", id, name="Settles")
    copy.box.advance(50)
    assert copy.sync(resources=["customers"]).rows == {}
    assert copy.one(f"select name = 'Settles' from stripe.customers where id = '{id}'") is False
    copy.box.advance(11)
    assert copy.sync(resources=["customers"]).rows == {"customers": 1, "changes": 1}
    assert copy.sync(resources=["customers"]).rows == {}
    copy.check("customers")


def test_an_event_that_shows_late_is_marked_late(copy: Copy) -> None:
    """Within the look-back it is found. The row keeps what is newer, and the change says so."""
    box, id = copy.box, some(copy, "customers")
    box.faults.event_delay = 10**6
    box.update("customers", id, name="hidden", phone="1")
    box.faults.event_delay = 0
    hidden = box.events[-1]
    box.advance(5)
    box.update("customers", id, name="newer")
    settled(copy, "customers")
    _show(box, hidden.id)
    box.advance(100)
    copy.sync(resources=["customers"])

    assert told(copy, "event_id", "late")[1:] == [(hidden.id, True)]
    assert changes(copy)[1]["after"]["name"] == "hidden"
    copy.check("customers")
    assert copy.sync(resources=["customers"]).rows == {}


def test_an_event_that_shows_late_in_its_second_puts_the_rest_in_order(copy: Copy) -> None:
    """The last of a second is the row, though it was not the last that was told."""
    box, id = copy.box, some(copy, "customers")
    box.update("customers", id, name="first")
    box.faults.event_delay = 10**6
    box.update("customers", id, name="last")
    box.faults.event_delay = 0
    hidden = box.events[-1]
    settled(copy, "customers")
    assert copy.one(f"select name from stripe.customers where id = '{id}'") == "first"
    _show(box, hidden.id)
    box.advance(100)
    copy.sync(resources=["customers"])
    assert copy.one(f"select name from stripe.customers where id = '{id}'") == "last"
    assert told(copy, "late") == [(False,), (False,)]
    copy.check("customers")


def _show(box: Sandbox, id: str) -> None:
    """A late event shows now."""
    history = box.account.event_log
    place = history.by_id[id]._replace(visible_at=box.now)
    history.by_id[id] = place
    for events in (history.records, history._order):
        events[next(n for n, event in enumerate(events) if event.id == id)] = place


def test_an_event_in_the_second_of_the_list_wins(tmp_path: Path) -> None:
    """The list was asked for in that second, before the change: its row yields."""
    box = account()
    with copy_of(box, tmp_path, hold=True) as copy:
        copy.sync(resources=["customers"])
        box.update("customers", some(copy, "customers"), name="in the same second")
        settled(copy, "customers")
        copy.check("customers")
        assert told(copy, "op") == [("u",)]


def test_an_older_event_does_not_overwrite_a_fresher_row(copy: Copy) -> None:
    """A list may be ahead of the events; their changes come all the same, when they are settled."""
    box = copy.box
    id = box.create("customers", name="first")["id"]
    box.advance(100)
    box.update("customers", id, name="second")
    box.advance(20)
    copy.sync(resources=["customers"])
    assert copy.one(f"select name from stripe.customers where id = '{id}'") == "second"
    assert told(copy, "op") == [("c",)]
    settled(copy, "customers")
    assert told(copy, "op") == [("c",), ("u",)]
    copy.check("customers")


def test_lost_and_doubled_events(copy: Copy) -> None:
    """What is told twice is one change; what is lost heals by `reconcile`, as a difference."""
    box = copy.box
    box.faults.lost_events, box.faults.doubled_events = 0.3, 0.3
    for _ in range(2):
        box.live(300, 80)
        settled(copy, "customers", "products")
    box.faults.lost_events = box.faults.doubled_events = 0
    box.advance(400)
    copy.sync(resources=["customers", "products"], reconcile=True)

    copy.check("customers", "products", volatile=False, last=False, found_later=True)
    assert_complete(copy, ["customers", "products"], late=True, orders=False)
    assert copy.one("select count(*) from stripe.changes where origin = 'diff'") > 0
    assert_folds(copy, ["customers", "products"])
    assert copy.sync(resources=["customers", "products"], reconcile=True).rows == {}


# -- other API versions
# -----------------------------------------------------------------------------------------------------


def test_f9_another_version_of_the_account_is_no_change(copy: Copy) -> None:
    """Nothing was touched: no row, no change, not even when the whole lists are compared."""
    noted = books(copy)
    tables = ("customers", "subscriptions", "invoices")
    for version in ("2024-06-20", "2026-10-28.endive"):
        copy.box.api_version = version
        assert settled(copy, *tables).rows == {}
    assert books(copy) == noted
    copy.box.api_version = "2025-02-24.acacia"
    done = settled(copy, *tables, reconcile=True)
    assert (done.rows.get("changes", 0), sum(done.healed.values())) == (0, 0)
    copy.check(*tables)


@pytest.mark.parametrize("version", ["2024-06-20", "2025-09-30.clover"])
def test_events_of_another_shape_are_read_again(copy: Copy, version: str) -> None:
    """The tables have the pin's shape, whatever the account's; the changes have the event's."""
    box = copy.box
    box.api_version = version
    tables = ("subscriptions", "invoices")
    box.live(400, 80)
    box.advance(400)
    settled(copy, *tables)
    copy.check(*tables, volatile=False, last=False)
    assert_complete(copy, tables)
    assert {found for (found,) in told(copy, "api_version")} == {version}


def test_objects_that_lie_apart_are_read_again_one_by_one(copy: Copy) -> None:
    """Each once, however many events it had."""
    box = copy.box
    box.api_version = "2025-09-30.clover"
    ids = [some(copy, "subscriptions", n) for n in range(2)]
    for n in range(12):
        box.advance(1)
        box.update("subscriptions", ids[n % 2], metadata={"n": str(n)})
    box.advance(400)
    box.reset_counts()
    settled(copy, "subscriptions")
    assert asked(box)["/v1/subscriptions/:id"] == 2
    copy.check("subscriptions")


def test_objects_that_lie_close_are_read_again_by_listing_them(copy: Copy) -> None:
    """Two hundred of one day in a few pages, not in two hundred requests."""
    box = copy.box
    ids = [box.create("products", name=f"P{n}")["id"] for n in range(200)]
    settled(copy, "products")
    box.api_version = "2025-09-30.clover"
    box.advance(400)
    for id in ids:
        box.update("products", id, name="Renamed")
    box.advance(400)
    box.reset_counts()
    settled(copy, "products")
    assert asked(box)["/v1/products/:id"] == 0
    assert asked(box)["/v1/products"] <= 8
    copy.check("products")


# -- which events are read
# --------------------------------------------------------------------------------------------------


def test_a_resource_that_is_added_later_is_followed_from_its_list_on(tmp_path: Path) -> None:
    """No change of what was before; all that comes after."""
    box = account()
    with copy_of(box, tmp_path, hold=True) as copy:
        copy.sync(resources=["customers"])
        box.update("products", some(copy, "products"), name="before")
        box.update("customers", some(copy, "customers"), name="A")
        settled(copy, "customers", "products")
        assert told(copy, "resource") == [("customers",)]
        box.advance(100)
        box.update("products", some(copy, "products"), name="after")
        box.update("customers", some(copy, "customers"), name="B")
        settled(copy, "customers", "products")
        assert sorted(told(copy, "resource")) == [("customers",), ("customers",), ("products",)]
        copy.check("customers", "products")


def test_a_selection_leaves_the_cursors_of_the_rest(copy: Copy) -> None:
    """What happened to the others meanwhile comes when they are selected again."""
    box = copy.box
    box.update("customers", some(copy, "customers"), name="A")
    box.update("products", some(copy, "products"), name="A")
    settled(copy, "customers")
    assert told(copy, "resource") == [("customers",)]
    box.advance(5_000)
    settled(copy, "customers")
    settled(copy, "customers", "products")
    assert told(copy, "resource") == [("customers",), ("products",)]
    copy.check("customers", "products")


def test_a_key_that_may_not_read_events_loses_none(
    copy: Copy, caplog: pytest.LogCaptureFixture
) -> None:
    """The run loads what is new and says what it cannot see; once the permission is back, all the
    changes come.
    """
    box = copy.box
    key = box.restrict(permissions=PERMISSIONS - {"rak_event_read"})
    box.update("customers", some(copy, "customers"), name="Unseen")
    made = box.create("customers")["id"]
    with caplog.at_level(logging.WARNING, "stripe_feed"):
        done = settled(copy, "customers", api_key=key)
    assert set(done.refused) == {"changes"}
    assert "rak_event_read" in done.refused["changes"] + caplog.text
    assert copy.one(f"select count(*) from stripe.customers where id = '{made}'") == 1

    box.advance(3_000)
    box.restrict(key, permissions=PERMISSIONS)
    assert settled(copy, "customers", api_key=key).refused == {}
    assert sorted(told(copy, "op", "origin")) == [("c", "event"), ("u", "event")]
    copy.check("customers")
    assert settled(copy, "customers", api_key=key).rows == {}


def test_a_key_that_lost_its_permission_reports_new_objects_by_its_lists(copy: Copy) -> None:
    """Its lists come before its events: the first run notices, those after it ask first. Once the
    permission is back, no event reports an object again.
    """
    box = copy.box
    key = box.restrict(permissions=PERMISSIONS - {"rak_event_read"})
    settled(copy, "customers", api_key=key)
    made = box.create("customers")["id"]
    for _ in range(2):
        settled(copy, "customers", api_key=key)
        assert told(copy, "op", "origin", "object_id") == [("c", "list", made)]
    box.restrict(key, permissions=PERMISSIONS)
    for _ in range(2):
        assert settled(copy, "customers", api_key=key).refused == {}
    assert told(copy, "op", "origin", "object_id") == [("c", "list", made)]
    copy.check("customers")
    box.reset_counts()
    settled(copy, "customers", api_key=key)
    assert asked(box)["/v1/events"] == 1


@pytest.mark.parametrize("dies", [False, True], ids=["at once", "a run died"])
def test_a_copy_whose_key_gets_the_permission_later_is_compared_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    """What happened since the last run is told as differences, rows and changes together; from then
    on events tell.
    """
    box, table = account(), "customers"
    with copy_of(box, tmp_path, hold=True) as copy:
        key = box.restrict(permissions=PERMISSIONS - {"rak_event_read"})
        settled(copy, table, api_key=key)
        first, second = some(copy, table, 0), some(copy, table, 1)
        box.update(table, first, name="Changed")
        box.delete(table, second)
        made = box.create(table)["id"]
        box.advance(3_600)
        box.restrict(key, permissions=PERMISSIONS)
        if dies:
            with monkeypatch.context() as patch, pytest.raises(PipelineStepFailed):
                patch.setattr(Writer, "changes", lambda *_, **__: 1 / 0)
                settled(copy, table, api_key=key)
        with caplog.at_level(logging.WARNING, "stripe_feed"):
            settled(copy, table, api_key=key)
        assert (
            f"Events are followed from now on: first the whole lists are compared with the copy ({table})."
            in caplog.text
        )
        wanted = [("u", "diff", first), ("d", "diff", second), ("c", "diff", made)]
        assert sorted(told(copy, "op", "origin", "object_id")) == sorted(wanted)
        copy.check(table, found_later=True)
        box.update(table, first, name="Again")
        settled(copy, table, api_key=key)
        assert told(copy, "op", "origin", "object_id")[len(wanted) :] == [("u", "event", first)]
        copy.check(table, found_later=True)
        assert settled(copy, table, api_key=key).rows == {}


@pytest.fixture
def unfollowed(tmp_path: Path) -> Iterator[Copy]:
    """A new account, whose key `rk` may not read events, and no copy of it yet."""
    box = account()
    box.restrict("rk_test_1", permissions=PERMISSIONS - {"rak_event_read"})
    with copy_of(box, tmp_path, hold=True) as found:
        yield found


def test_a_comparison_that_begins_to_follow_knows_the_shape_of_the_rows(unfollowed: Copy) -> None:
    """Another API version by then is no difference."""
    copy, tables = unfollowed, ("subscriptions", "prices")
    settled(copy, *tables, api_key="rk_test_1", api_version="2025-02-24.acacia")
    copy.box.restrict("rk_test_1", permissions=PERMISSIONS)
    settled(copy, *tables, api_key="rk_test_1")
    assert told(copy, "op") == []
    copy.check(*tables)


@pytest.mark.parametrize("first", [True, False], ids=["a start first", "a start then"])
def test_a_comparison_that_begins_to_follow_and_a_start_date(unfollowed: Copy, first: bool) -> None:
    """What is older than asked for so far is written, and is no news; what was asked for once is
    compared and followed on.
    """
    copy, box, table = unfollowed, unfollowed.box, "customers"
    start = box.now - 50
    settled(copy, table, api_key="rk_test_1", start_date=start if first else None)
    old = some(copy, table)
    box.update(table, old, name="Untold")
    box.advance(3_600)
    box.restrict("rk_test_1", permissions=PERMISSIONS)
    settled(copy, table, api_key="rk_test_1", start_date=None if first else start)
    settled(copy, table, api_key="rk_test_1")
    assert told(copy, "op", "origin", "object_id") == ([] if first else [("u", "diff", old)])
    copy.check(table)
    assert copy.states[table]["start"] == 0


def test_webhooks_do_not_record_what_a_comparison_records(unfollowed: Copy) -> None:
    copy, box = unfollowed, unfollowed.box
    settled(copy, "customers", api_key="rk_test_1")
    box.update("customers", some(copy, "customers"), name="Changed")
    event = box.events[-1].id
    box.advance(100)
    box.restrict("rk_test_1", permissions=PERMISSIONS)
    copy.sync(resources=["customers"], api_key="rk_test_1", webhook_events=[WebhookEvent(event)])
    settled(copy, "customers", api_key="rk_test_1")
    assert told(copy, "op", "origin") == [("u", "diff")]
    copy.check("customers")


def test_a_key_that_lost_its_permission_a_month_ago_still_loads(copy: Copy) -> None:
    """What is new goes on coming; once events can be read again, the gap is healed."""
    box, table = copy.box, "customers"
    key = box.restrict(permissions=PERMISSIONS - {"rak_event_read"})
    made = set()
    for _ in range(4):
        box.advance(10 * DAY)
        made.add(box.create(table)["id"])
        done = settled(copy, table, api_key=key)
        assert (set(done.refused), done.rows[table]) == ({"changes"}, 1)
    box.update(table, some(copy, table), name="Untold")
    box.advance(31 * DAY)
    settled(copy, table, api_key=key)
    box.restrict(key, permissions=PERMISSIONS)
    settled(copy, table, api_key=key)
    copy.check(table)
    assert told(copy, "op", "origin")[-1:] == [("u", "diff")]
    assert {id for op, id in told(copy, "op", "object_id") if op == "c"} == made


def test_a_key_that_loses_its_permission_while_lists_are_compared(unfollowed: Copy) -> None:
    """The comparison stands, and is not begun again."""
    copy, box = unfollowed, unfollowed.box
    settled(copy, "customers", api_key="rk_test_1")
    box.update("customers", some(copy, "customers"), name="Untold")
    box.restrict("rk_test_1", permissions=PERMISSIONS)

    def forbid(template: str, params: Any) -> None:
        if template == "/v1/customers":
            box.restrict("rk_test_1", permissions=PERMISSIONS - {"rak_event_read"})

    box.on_request = forbid
    assert set(settled(copy, "customers", api_key="rk_test_1").refused) == {"changes"}
    box.on_request = None
    assert told(copy, "op", "origin") == [("u", "diff")]
    copy.check("customers")
    made = box.create("customers")["id"]
    assert set(settled(copy, "customers", api_key="rk_test_1").refused) == {"changes"}
    assert copy.one(f"select count(*) from stripe.customers where id = '{made}'") == 1


def test_a_key_that_loses_its_permission_within_a_run_loses_no_event(copy: Copy) -> None:
    """The cursor stays where the reading stopped."""
    box = copy.box
    key = box.restrict(permissions=PERMISSIONS)
    for n in range(250):
        box.advance(4)
        box.update("customers", some(copy, "customers", n % 3), name=f"N{n}")

    def forbid(template: str, params: Any) -> None:
        if template == "/v1/events" and box.counts[template, 200] >= 2:
            box.restrict(key, permissions=PERMISSIONS - {"rak_event_read"})

    box.on_request = forbid
    done = settled(copy, "customers", api_key=key)
    assert set(done.refused) == {"changes"}
    box.on_request = None
    box.advance(2_000)
    box.restrict(key, permissions=PERMISSIONS)
    settled(copy, "customers", api_key=key)
    copy.check("customers")
    assert len(assert_complete(copy, ["customers"])) == 250


def test_a_start_date_holds_for_changes_too(copy: Copy) -> None:
    """Objects that are older than it are neither loaded nor followed."""
    box = copy.box
    start = box.now - 50
    young = box.create("customers")["id"]
    box.advance(10)
    for id in (some(copy, "customers"), young):
        box.update("customers", id, name="Changed")
    settled(copy, "customers", start_date=start)
    assert {id for (id,) in told(copy, "object_id")} == {young}
    assert copy.one("select count(*) from stripe.customers where name = 'Changed'") == 1


# -- in a script of one's own
# -----------------------------------------------------------------------------------------------


def test_customers_alone_warn_that_they_do_not_follow(
    copy: Copy, caplog: pytest.LogCaptureFixture
) -> None:
    """Without `changes` an update of an older object is not seen; nothing is lost for a later run
    with it.
    """
    copy.box.update("customers", some(copy, "customers"), name="Unseen")
    copy.box.advance(SETTLED)
    with caplog.at_level(logging.WARNING, "stripe_feed"):
        copy.run(copy.source().with_resources("customers"))
    assert "`changes` is not selected" in caplog.text
    assert copy.one("select count(*) from stripe.customers where name = 'Unseen'") == 0
    copy.run(copy.source().with_resources("customers", "changes"))
    assert told(copy, "op", "resource") == [("u", "customers")]
    copy.check("customers")


def test_a_plain_run_follows_from_the_second_on(tmp_path: Path) -> None:
    """The first loads what there is; the events since it began come with the second."""
    box = account()
    with copy_of(box, tmp_path, hold=True) as copy:
        done = dict[str, bool]()

        def change(template: str, params: Any) -> None:
            if template == "/v1/products" and not done:
                done["once"] = True
                box.advance(1)
                box.update("customers", some(copy, "customers"), name="Meanwhile")

        box.on_request = change
        names = ("customers", "products", "changes")
        copy.run(copy.source().with_resources(*names))
        box.advance(SETTLED)
        copy.run(copy.source().with_resources(*names))
        assert [row[0] for row in told(copy, "op")] == ["u"]
        copy.check("customers", "products")


@pytest.mark.parametrize("limit", [1, 4])
def test_a_limit_loses_nothing(copy: Copy, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """`add_limit` stops the reader after any yield; later runs bring the rest, each change once."""
    monkeypatch.setattr("stripe_feed.extract.events.reader.BATCH_EVENTS", 20, raising=False)
    box = copy.box
    for n in range(90):
        box.advance(1)
        box.update("customers", some(copy, "customers", n % 4), name=f"N{n}")
    box.advance(SETTLED)
    copy.run(copy.source().with_resources("customers", "changes").add_limit(limit))
    copy.run(copy.source().with_resources("customers", "changes"))
    copy.check("customers")
    assert len(assert_complete(copy, ["customers"])) == 90


# -- nothing to do
# ----------------------------------------------------------------------------------------------------------


def test_an_idle_run_asks_little_and_writes_nothing(copy: Copy) -> None:
    """After events: their cursor is stored once they have left the look-back, and then nothing any
    more.
    """
    box = copy.box
    tables = ("customers", "subscriptions")
    box.live(100, 40)
    settled(copy, *tables)
    noted = books(copy)
    rows = copy.one("select count(*) from stripe.changes")
    states = []
    for _ in range(6):
        box.advance(130)
        box.reset_counts()
        done = copy.sync(resources=tables)
        assert not done.rows
        assert asked(box)["/v1/events"] == 1
        states.append([now - then for now, then in zip(books(copy), noted, strict=True)])
    assert states[0] == [0, 0, 0]
    assert states[-1] in ([0, 1, 0], [1, 1, 0])
    assert states[-1] == states[-3]
    assert box.counts.total() <= 10
    assert copy.one("select count(*) from stripe.changes") == rows
    assert settled(copy, *tables).packages == 0


def test_an_incremental_run_asks_for_its_events_and_nothing_else(copy: Copy) -> None:
    """Of the pin's shape: no request per object, hardly more than their pages."""
    box = copy.box
    for n in range(1_000):
        box.advance(n % 3 == 0)
        box.update("customers", some(copy, "customers", n % 5), name=f"N{n}")
    box.advance(400)
    box.reset_counts()
    settled(copy, "customers")
    assert asked(box)["/v1/customers/:id"] == 0
    assert box.counts.total() <= 1.05 * 10 + 10
    copy.check("customers")


def test_a_change_is_the_events_own_bytes(copy: Copy) -> None:
    """`after` and `previous` as Stripe sent them, key for key."""
    id = some(copy, "customers")
    copy.box.update("customers", id, name='Quote " and ü', metadata={"z": "1", "a": "2"})
    settled(copy, "customers")
    body = json.loads(copy.box.events[-1].body)
    after, previous = copy.select("select after::varchar, previous::varchar from stripe.changes")[0]
    assert (list(json.loads(after)), json.loads(after)) == (
        list(body["data"]["object"]),
        body["data"]["object"],
    )
    assert json.loads(previous) == body["data"]["previous_attributes"]
    row: Row = changes(copy)[0]
    assert (row["request_id"], row["event_type"]) == (
        (body["request"] or {}).get("id"),
        "customer.updated",
    )
