"""`verify` finds every way in which a copy can be untrue, names fields and ids alone, and changes
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from stripe_feed import open_feed
from stripe_feed.errors import SetupError
from stripe_feed.extract.run import RunContext
from stripe_feed.sandbox import Sandbox
from stripe_feed.verify_run import Difference, Verified, verify
from tests.commands import Shell, shell_of
from tests.copies import FAST, PERMISSIONS, Copy, copy_of

TABLES = ("customers", "products")
MORE = (*TABLES, "subscriptions")
ONLY = ("--resources", "customers")


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    """A copy whose customers all have changed since they were loaded."""
    with copy_of(Sandbox(seed=4, customers=6, oddities=False), tmp_path, hold=True) as found:
        found.load(resources=MORE)
        found.box.advance(3_600)
        for id in found.box.objects("customers"):
            found.box.update("customers", id, name="Changed")
        found.box.advance(400)
        found.load(resources=TABLES)
        yield found


def verified(copy: Copy, **options: Any) -> Verified:
    mine = {
        "api_key": copy.box.key,
        "api_base": copy.url,
        "database": str(copy.folder / copy.database),
        "resources": TABLES,
    }
    return verify(**mine | FAST | options)


def first(copy: Copy) -> str:
    return next(iter(copy.box.objects("customers")))


def tamper(copy: Copy, statement: str) -> None:
    with closing(duckdb.connect(str(copy.folder / copy.database))) as base:
        base.execute(statement)


def test_a_true_copy_has_no_difference(copy: Copy) -> None:
    counts = {table: len(copy.box.objects(table)) for table in TABLES}
    assert verified(copy) == Verified(counts, {"customers": 0, "products": 0}, [])
    assert all(
        2 <= count <= 4 for count in verified(copy, sample=2).compared.values()
    )  # from both sides


def test_what_a_sync_will_bring_waits(copy: Copy) -> None:
    copy.box.update("customers", first(copy), name="Later")
    found = verified(copy)
    assert (found.compared["customers"], found.waiting["customers"], found.differences) == (
        5,
        1,
        [],
    )


@pytest.mark.broad
def test_the_object_that_changed_last_is_compared_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Stripe's clock is ahead of this machine's, the cursor stays at the newest event until
    another one comes: its object does not wait for anything.
    """
    monkeypatch.setattr(
        RunContext, "proven", lambda self, second: min(second, self.newest_seen or second)
    )
    with copy_of(Sandbox(seed=4, customers=3, oddities=False), tmp_path, hold=True) as copy:
        copy.sync(resources=TABLES)
        copy.box.advance(3_600)
        copy.box.update("customers", first(copy), name="Changed")
        copy.box.advance(400)
        copy.sync(resources=TABLES)
        tamper(copy, "update stripe.customers set name = 'Wrong' where name = 'Changed'")
        found = verified(copy)

        assert found.waiting["customers"] == 0
        assert [one.object_id for one in found.differences] == [first(copy)]
        copy.sync(resources=TABLES, reconcile=True)
        assert verified(copy).differences == []


@pytest.mark.parametrize(("statement", "what"), [
    ("update stripe.customers set name = 'Wrong', balance = 5 where id = '{}'", "the row differs from Stripe in name, balance"),
    ("update stripe.customers set deleted_at = created where id = '{}'", "it is marked as deleted, but Stripe has it"),
    ("update stripe.changes set after = replace(after::text, 'Changed', 'Wrong')::json where object_id = '{}'",
     "its last change differs from the row in name"),
    ("update stripe.changes set op = 'd', after = null where object_id = '{}'", "its last change is a deletion"),
])  # fmt: skip
def test_a_row_or_a_change_that_is_wrong_is_found(copy: Copy, statement: str, what: str) -> None:
    tamper(copy, statement.format(first(copy)))
    assert verified(copy).differences == [Difference("customers", first(copy), what)]


WRONG = (
    ("delete from stripe.customers where id = '{c0}'", "customers", "{c0}", "Stripe has it, and the copy does not"),
    ("insert into stripe.customers select * from stripe.customers where id = '{c1}'", "customers", "{c1}", "it is there 2 times"),
    ("alter table stripe.customers drop column email", "customers", "{c2}", "the row differs from Stripe in email"),
    ("update stripe.customers set account_id = 'acct_x' where id = '{c3}'", "customers", "{c3}", "it is not of this account"),
    ("update stripe.products set _version = _version * 2 where id = '{p}'", "products", "{p}", "its version lies in the future"),
    ("insert into stripe.products select * replace ('prod_x' as id) from stripe.products where id = '{p}'", "products", "prod_x",
     "Stripe does not have it any more"),
    ("insert into stripe.subscription_items select * replace ('si_x' as id, 'sub_x' as subscription) from stripe.subscription_items "
     "where id = '{i0}'", "subscription_items", "si_x", "its subscription is not there"),
    ("delete from stripe.subscription_items where id = '{i0}'", "subscriptions", "{s0}", "the row differs from Stripe in items"),
    ("insert into stripe.subscription_items select * from stripe.subscription_items where id = '{i1}'", "subscription_items", "{i1}",
     "it is there 2 times"),
)  # fmt: skip


def test_rows_that_are_missing_doubled_or_nobodys_are_found(copy: Copy) -> None:
    """Children too; and a column that was dropped."""
    box = copy.box
    items = sorted(box.children("subscription_items").values(), key=lambda item: item["id"])
    words = {f"c{n}": id for n, id in enumerate(box.objects("customers"))} | {
        "p": next(iter(box.objects("products")))
    }
    words |= {"i0": items[0]["id"], "s0": items[0]["subscription"], "i1": items[-1]["id"]}
    for statement, *_ in WRONG:
        tamper(copy, statement.format(**words))
    found = verified(copy, resources=MORE).differences
    wanted = [Difference(resource, id.format(**words), what) for _, resource, id, what in WRONG]
    assert [one for one in wanted if one not in found] == []


def test_what_cannot_be_taken_is_a_difference(copy: Copy) -> None:
    """Held or only listed; the others are compared."""
    id = first(copy)
    copy.box.put("customers", copy.box.objects("customers")[id] | {"object": "card"})
    odd = [Difference("customers", id, "it cannot be stored: it is not of type customer")]
    found = verified(copy)
    assert (found.compared["customers"], found.differences) == (5, odd)
    tamper(copy, f"delete from stripe.customers where id = '{id}'")
    assert verified(copy).differences == odd


def test_what_nobody_asked_for_is_neither_a_difference_nor_lost(tmp_path: Path) -> None:
    """Even if it cannot be taken; a comparison without a start brings the rest."""
    with copy_of(Sandbox(seed=5, customers=4, oddities=False), tmp_path, hold=True) as copy:
        copy.sync(resources=TABLES[:1], start_date=copy.box.now - 60)
        id = first(copy)
        copy.box.put("customers", copy.box.objects("customers")[id] | {"object": "card"})
        assert verified(copy, resources=TABLES[:1]).differences == []
        done = copy.sync(resources=TABLES[:1], reconcile=True)
        assert (list(done.left_out), done.rows, done.healed, done.restored) == (
            ["customers"],
            {"customers": 3},
            {"customers": 0},
            {},
        )


def test_what_has_an_id_counts_whole_and_what_is_unknown_not(tmp_path: Path) -> None:
    """`reconcile` finds and heals the very same."""
    updates: list[tuple[dict[str, Any], str | None]] = [
        ({"metadata": {"id": "1", "plan": "b"}}, "metadata"),
        ({"discount": {"id": "di_1", "object": "discount", "end": 2}}, "discount"),
        ({"of_a_later_version": 2}, None),
    ]
    with copy_of(Sandbox(seed=4, customers=1, oddities=False), tmp_path, hold=True) as copy:
        ids = [
            copy.box.create(
                "customers",
                metadata={"id": "1", "plan": "a"},
                discount={"id": "di_1", "object": "discount", "end": 1},
            )["id"]
            for _ in updates
        ]
        for id in ids:
            copy.box.update("customers", id, of_a_later_version=1)
        copy.box.advance(3_600)
        copy.sync(resources=TABLES)
        copy.box.faults.lost_events = 1.0
        for id, (fields, _) in zip(ids, updates, strict=True):
            copy.box.update("customers", id, **fields)
        copy.box.advance(400)
        found = sorted((one.object_id, one.what) for one in verified(copy).differences)
        assert found == sorted(
            (id, f"the row differs from Stripe in {field}")
            for id, (_, field) in zip(ids, updates, strict=True)
            if field
        )
        done = copy.sync(resources=TABLES, reconcile=True)
        assert (sum(done.healed.values()), verified(copy).differences) == (2, [])


def test_what_was_forgotten_is_not_compared_with_its_changes(copy: Copy) -> None:
    """The row is there, and its changes hold nothing any more."""
    with open_feed(copy.pipeline) as feed:
        assert feed.forget(first(copy)) > 0
    assert verified(copy).differences == []


def test_a_deleted_price_that_an_item_still_shows_is_found(tmp_path: Path) -> None:
    """A list has shown it, and shows it no more: the copy inside the item proves nothing.
    `reconcile` takes it so, too. A subscription does not differ by the prices in its items: they
    change without it, and count by their ids.
    """
    tables = ("subscriptions", "prices", "plans")
    with copy_of(Sandbox(seed=4, customers=4, oddities=False), tmp_path, hold=True) as copy:
        copy.load(resources=tables)
        copy.box.advance(3_600)
        used = {item["price"]["id"] for item in copy.box.children("subscription_items").values()}
        unused = set(copy.box.objects("prices")) - used
        copy.box.faults.lost_events = 1.0
        gone = {min(used - copy.box.account.inline_prices), min(unused)}
        for id in gone:
            copy.box.delete("prices", id)
        copy.box.advance(400)
        assert {one.object_id for one in verified(copy, resources=tables).differences} == gone
        copy.sync(resources=tables, reconcile=True)
        assert copy.one("select count(*) from stripe.prices where deleted_at is not null") == 2
        assert verified(copy, resources=tables).differences == []

        copy.box.faults.lost_events = 0.0
        for what in ("subscriptions", "prices"):
            for id in copy.box.objects(what):
                copy.box.update(what, id, metadata={"changed": "yes"})
            copy.box.advance(400)
        copy.sync(resources=tables)
        assert verified(copy, resources=tables).differences == []


def test_a_deletion_without_an_event_is_found(copy: Copy) -> None:
    gone = first(copy)
    copy.box.faults.lost_events = 1.0
    copy.box.delete("customers", gone)
    assert verified(copy).differences == [
        Difference("customers", gone, "Stripe does not have it any more")
    ]


def test_a_deletion_that_the_changes_do_not_tell_is_found(copy: Copy) -> None:
    gone = first(copy)
    copy.box.delete("customers", gone)
    copy.box.advance(400)
    copy.sync(resources=TABLES)
    assert verified(copy).differences == []
    tamper(copy, f"delete from stripe.changes where object_id = '{gone}' and op = 'd'")
    assert verified(copy).differences == [
        Difference("customers", gone, "its last change is no deletion")
    ]


def test_without_a_copy_there_is_nothing_to_verify(copy: Copy) -> None:
    with pytest.raises(SetupError, match=r"There is no copy yet\. Run `stripe-feed sync` first"):
        verified(copy, database=str(copy.folder / "other.duckdb"))


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with shell_of(Sandbox(seed=4, customers=6, oddities=False), tmp_path) as found:
        assert found.sync(*ONLY).code == 0
        yield found


def test_the_command_ends_with_4_where_something_differs(shell: Shell) -> None:
    """It names the object and the fields, and no value."""
    said = shell.run("verify", *ONLY, "--sample", 3)
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith("No differences.\n")

    box = shell.box
    box.faults.lost_events = 1.0
    for id in box.objects("customers"):
        box.update("customers", id, name="Secret name")
    said = shell.run("verify", *ONLY, "--sample", 3)
    assert said.code == 4
    count = said.out.count(": the row differs from Stripe in name")
    assert 3 <= count <= 6  # from both sides
    assert (
        said.err.strip()
        == f"error: {count} of {count} objects differ. Run `stripe-feed reconcile`, then verify again."
    )
    assert "Secret" not in said.out

    told = json.loads(shell.run("verify", *ONLY, "--json").out)
    assert told["compared"] == {"customers": 6}
    assert {one["what"] for one in told["differences"]} == {"the row differs from Stripe in name"}

    assert shell.run("reconcile", *ONLY).code == 0
    assert shell.run("verify", *ONLY).code == 0


def test_a_key_without_events_loads_says_so_once_and_reconcile_finds_the_updates(
    tmp_path: Path,
) -> None:
    """Exit code 4 with one line; the comparison does without events, and so ends with 0."""
    box = Sandbox(seed=4, customers=6, oddities=False)
    without = box.restrict(permissions=PERMISSIONS - {"rak_event_read"})
    with shell_of(box, tmp_path) as shell:
        said = shell.sync("--quiet", STRIPE_SECRET_KEY=without)
        assert (said.code, shell.rows()) == (4, shell.truth())
        assert said.err.splitlines() == [
            "error: The key may not read events, so updates, cancellations and deletions of older objects are missed: add the "
            "permission rak_event_read (Core > Events), or run `stripe-feed reconcile` regularly. Everything else is loaded."
        ]

        box.advance(3_600)
        for id in box.objects("customers"):
            box.update("customers", id, name="Changed")
        box.advance(3_600)
        assert shell.sync("--quiet", STRIPE_SECRET_KEY=without).code == 4
        assert shell.run("verify", *ONLY, STRIPE_SECRET_KEY=without).code == 4
        said = shell.run("reconcile", "--quiet", *ONLY, STRIPE_SECRET_KEY=without)
        assert (said.code, said.err) == (0, "")
        assert shell.run("verify", *ONLY, STRIPE_SECRET_KEY=without).code == 0


def test_what_is_new_between_two_walks_of_a_whole_list_waits(tmp_path: Path) -> None:
    """Locations do not say when they were created: those before all of the copy are new, others are
    missing; so are all, unless the list was empty.
    """
    tables = ("terminal_locations", "terminal_configurations")
    with copy_of(Sandbox(customers=1, oddities=False), tmp_path, hold=True) as copy:
        for _ in range(3):
            copy.box.create("terminal_locations")
        copy.box.advance(100)
        copy.sync(resources=tables)
        copy.box.advance(100)
        new = copy.box.create("terminal_locations")["id"]
        copy.box.create("terminal_configurations")

        found = verified(copy, resources=tables)
        assert (found.differences, found.waiting) == ([], dict.fromkeys(tables, 1))

        held = [id for id in copy.box.objects("terminal_locations") if id != new]
        tamper(copy, f"delete from stripe.terminal_locations where id = '{held[0]}'")
        found = verified(copy, resources=tables)
        assert [one.object_id for one in found.differences] == [held[0]]
        tamper(copy, "delete from stripe.terminal_locations")
        found = verified(copy, resources=tables)
        assert {one.object_id for one in found.differences} == {new, *held}


def test_a_column_of_another_type_is_named_with_the_way_back(copy: Copy) -> None:
    tamper(copy, "alter table stripe.customers alter column balance type double")
    with pytest.raises(SetupError, match=r"the type of customers\.balance in the dest") as fault:
        verified(copy)
    with pytest.raises(SetupError, match=r"the type of customers\.balance in the dest"):
        copy.load(resources=["customers"], reconcile=True)
    tamper(copy, str(fault.value).partition(" its type (")[2].partition("), then run")[0])
    assert not verified(copy).differences
