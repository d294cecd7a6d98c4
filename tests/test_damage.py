"""What people do to the tables of a copy: `sync` sees that a table is gone, `reconcile` restores
every row, and nobody is told of what did not happen at Stripe.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import duckdb
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stripe_feed import open_feed
from stripe_feed.errors import SetupError
from stripe_feed.extract.repairs.stray_rows import ids_of_shared_hashes
from stripe_feed.sandbox import Sandbox
from tests.copies import Copy, copy_of, first_copy
from tests.core import CORE_TABLES
from tests.feed_truth import changes
from tests.test_feed_property import Died, dying

DAY = 86_400
SETTLED = 400


def account() -> Sandbox:
    """A few objects of each kind, each changed once since it was loaded, some of them deleted."""
    box = Sandbox(seed=6, customers=8, oddities=False)
    box.create(
        "subscriptions", items=[{"price_data": {"unit_amount": 42}}], status="active"
    )  # its price is in no list
    box.create("subscriptions", items=12, status="active")
    box.advance(DAY)
    return box


def lived(box: Sandbox) -> None:
    for n, id in enumerate(box.objects("customers")):
        box.delete("customers", id) if n == 0 else box.update("customers", id, phone=str(n))
    box.advance(SETTLED)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database after two runs: what was there first, and what changed since."""
    box, folder = account(), tmp_path_factory.mktemp("loaded")
    file = first_copy(box, folder)
    with copy_of(box, folder, hold=True) as copy:
        lived(box)
        copy.sync()
    return file


@pytest.fixture
def copy(loaded: Path, tmp_path: Path) -> Iterator[Copy]:
    """A copy that is up to date; an hour has passed."""
    box = account()
    lived(box)
    with copy_of(box, tmp_path, hold=True) as found:
        shutil.copy(loaded, tmp_path / found.database)
        box.advance(3_600)
        yield found


def told(copy: Copy) -> list[str]:
    return [row["change_id"] for row in changes(copy)]


def damage(copy: Copy, *statements: str) -> None:
    for statement in statements:
        copy.select(statement)


@pytest.mark.parametrize("table", ["_dlt_pipeline_state", "_dlt_loads"])
def test_a_dataset_that_lost_its_cursors_is_refused(copy: Copy, table: str) -> None:
    """A new state would miss what was deleted since."""
    damage(copy, f"drop table stripe.{table}")
    with pytest.raises(SetupError, match=f"has lost {table}.*backup"):
        copy.sync()


@pytest.mark.parametrize(
    "how", ["drop table stripe.{}", "delete from stripe.{}"], ids=["dropped", "emptied"]
)
def test_a_table_that_is_gone_or_empty_is_listed_again(
    copy: Copy, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By the next `sync`, with a word for each; children too. Nobody is told of anything, and the
    run after that has nothing to do.
    """
    before, lost = told(copy), ("customers", "prices", "subscription_items", "invoice_line_items")
    damage(copy, *(how.format(table) for table in lost))
    with caplog.at_level(logging.WARNING, "stripe_feed"):
        copy.sync()
    assert {
        record.getMessage() for record in caplog.records if "listed again" in record.getMessage()
    } == {
        f"{table} is gone or empty in the destination: {listed} are listed again."
        for table, listed in zip(
            lost, ("customers", "prices", "subscriptions", "invoices"), strict=True
        )
    }
    copy.check()
    assert told(copy) == before

    caplog.clear()
    copy.box.reset_counts()
    assert copy.sync().rows == {}
    assert (caplog.text, len(copy.box.log) < 15) == ("", True)


def test_what_is_empty_at_stripe_too_costs_an_idle_run_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No invoices at all; then one without lines, for which all are listed once, and a line that is
    lost later.
    """
    box = Sandbox(seed=6, customers=2, invoices=0, subscriptions=0, oddities=False)
    with copy_of(box, tmp_path, hold=True) as copy:
        copy.sync(resources=["invoices"])
        box.advance(DAY)
        with caplog.at_level(logging.WARNING, "stripe_feed"):
            box.reset_counts()
            assert (copy.sync(resources=["invoices"]).rows, box.counts["/v1/invoices", 200]) == (
                {},
                1,
            )
            invoice = box.create("invoices", lines=[])["id"]
            for _ in range(3):
                box.advance(DAY)
                copy.sync(resources=["invoices"])
            assert [call.params["created"] for call in box.log if call.template == "/v1/invoices"][
                -1
            ].get("gte", 0)
            assert caplog.text == ""
        box.update("invoices", invoice, lines=[{}])
        for n in range(3):
            box.advance(DAY)
            copy.sync(resources=["invoices"])
            copy.check("invoices")
            if n < 2:  # also right after the run that brought it
                damage(copy, "delete from stripe.invoice_line_items")


def test_changes_that_are_lost_are_recorded_again_as_far_as_stripe_remembers(
    copy: Copy, caplog: pytest.LogCaptureFixture
) -> None:
    """Under the same ids, so that no consumer gets one twice; what is older is not made up."""
    before, some = told(copy), sorted({row["resource"] for row in changes(copy)})
    copy.release()
    with open_feed(copy.pipeline) as feed:
        assert feed.head == len(before)
    damage(copy, "drop table stripe.changes")
    with caplog.at_level(logging.WARNING, "stripe_feed"):
        assert copy.sync(resources=some).relayed == 0
    assert "changes is gone or empty in the destination" in caplog.text
    assert sorted(told(copy)) == sorted(before) and before
    caplog.clear()
    assert (copy.sync(resources=some).rows, caplog.text) == ({}, "")

    copy.box.advance(60 * DAY)
    copy.sync(resources=some)
    damage(copy, "delete from stripe.changes")
    copy.box.advance(3_600)
    copy.sync(resources=some, reconcile=True)
    assert told(copy) == []
    copy.check(*some, found_later=True)
    caplog.clear()
    assert copy.sync(resources=some).rows == {}
    assert caplog.text == ""  # Stripe knows of none: that is said once


WRONG = {
    "a cell": "update stripe.customers set name = 'Wrong', balance = 5 where id = (select min(id) from stripe.customers where deleted_at is null)",
    "a nested cell": """update stripe.invoices set metadata = '{"by": "hand"}' where id = (select min(id) from stripe.invoices)""",
    "a column": "alter table stripe.products drop column name",
    "a column of children": "alter table stripe.subscription_items drop column quantity",
    "a cell of a child": "update stripe.invoice_line_items set amount = 7 where id = (select max(id) from stripe.invoice_line_items)",
    "a row": "delete from stripe.subscriptions where id = (select max(id) from stripe.subscriptions)",
    "a child": "delete from stripe.invoice_line_items where id = (select min(id) from stripe.invoice_line_items)",
    "half of the rows": "delete from stripe.customers where id > (select median(id) from stripe.customers)",
    "doubled rows": "insert into stripe.customers select * from stripe.customers",
    "doubled children": "insert into stripe.subscription_items select * from stripe.subscription_items",
    "a foreign row": "insert into stripe.plans select * replace ('plan_x' as id) from stripe.plans limit 1",
    "another account's row": "insert into stripe.products by name select 'prod_x' as id, 'acct_x' as account_id, 1 as _version, '1' as _dlt_load_id",
    "another account's name": "update stripe.invoices set account_id = 'acct_x'",
    "a foreign child": "insert into stripe.subscription_items select * replace ('si_x' as id, 'sub_x' as subscription) from stripe.subscription_items limit 1",
    "a child of another": "update stripe.invoice_line_items set invoice = (select min(id) from stripe.invoices)",
    "children of nobody": "update stripe.subscription_items set subscription = null",
    "marked as deleted": "update stripe.prices set deleted_at = created",
    "marked as there": "update stripe.customers set deleted_at = null",
    "a version of the future": "update stripe.plans set _version = _version * 2",
    "a digest": "update stripe.customers set _hash = 'abcdef0123456789'",
    "a load that was not": "update stripe.prices set _dlt_load_id = '1'",
    "a table": "drop table stripe.invoice_line_items",
}

OWN_ONLY = ("another account's name", "a foreign child", "a digest")
"""Restored without a word: no object of Stripe's is held wrongly."""


def test_a_comparison_restores_whatever_was_done_and_records_no_change(copy: Copy) -> None:
    """All of it at once, as `reconcile` looks at each row by itself; a second comparison finds
    nothing.
    """
    before = told(copy)
    damage(copy, *WRONG.values())
    done = copy.sync(reconcile=True)
    copy.check()
    assert [
        (row["resource"], row["object_id"], row["op"], row["changed"])
        for row in changes(copy)
        if row["change_id"] not in before
    ] == []
    assert sum(done.healed.values()) == 0
    assert all(
        done.restored[table]
        for table in ("customers", "products", "prices", "plans", "subscriptions", "invoices")
    )
    assert copy.sync(reconcile=True).rows == {}


def test_a_price_that_no_list_shows_is_restored_too(copy: Copy) -> None:
    """An item proves that it is there: it is asked for where its row is marked as deleted, and no
    change tells of that, or where no run has written the row, or a cell is not as the item shows.
    """
    before, inline = told(copy), min(copy.box.account.inline_prices)
    damage(
        copy,
        f"update stripe.prices set deleted_at = created where id = '{inline}'",
        f"update stripe.plans set _dlt_load_id = '1' where id = '{inline}'",
    )
    done = copy.sync(reconcile=True)
    assert (done.restored["prices"], done.restored["plans"]) == (1, 1)
    damage(copy, f"update stripe.plans set product = null where id = '{inline}'")
    done = copy.sync(reconcile=True)
    assert done.restored == {"plans": 1}
    copy.check()
    assert told(copy) == before
    assert copy.sync(reconcile=True).rows == {}


def test_a_copied_row_is_removed_although_its_original_changes_meanwhile(copy: Copy) -> None:
    """The events that come before the comparison replace the hash that the two share. Also the copy
    of an object that is new: nobody is told that it came or went.
    """
    made = copy.box.create("customers")["id"]
    copy.box.advance(SETTLED)
    copy.sync(resources=["customers"])
    before = told(copy)
    damage(
        copy,
        "insert into stripe.customers select * replace (id || 'x' as id) from stripe.customers",
        "update stripe.customers set email = null where id like '%x'",
    )
    copy.box.update("customers", made, phone="5")
    copy.box.advance(SETTLED)
    copy.sync(resources=["customers"], reconcile=True)
    copy.check("customers", found_later=True)
    assert [
        (row["object_id"], row["origin"]) for row in changes(copy) if row["change_id"] not in before
    ] == [(made, "event")]
    assert copy.sync(resources=["customers"], reconcile=True).rows == {}


def test_the_state_names_a_limited_number_of_copied_rows() -> None:
    rows = duckdb.connect()
    rows.execute(
        "create table held as select 'cus_' || i as id, (i // 2)::text as _hash from range(9) r(i)"
    )
    client = Mock(make_qualified_table_name=lambda _: "held")
    client.execute_query = lambda query: contextlib.nullcontext(rows.execute(query))

    assert set(ids_of_shared_hashes(client, "customers", 100)) == {f"cus_{n}" for n in range(8)}
    assert len(ids_of_shared_hashes(client, "customers", 3)) == 3


@pytest.mark.long
@pytest.mark.parametrize("what", WRONG)
def test_a_comparison_restores_each_by_itself(copy: Copy, what: str) -> None:
    before = told(copy)
    damage(copy, WRONG[what])
    done = copy.sync(reconcile=True)
    assert bool(done.restored) == (what not in OWN_ONLY)
    copy.check()
    assert told(copy) == before
    assert copy.sync(reconcile=True).rows == {}


# -- drawn by chance
# -----------------------------------------------------------------------------------------------------------

GONE = ("drop table stripe.{table}", "delete from stripe.{table}")
SOME = (
    "delete from stripe.{table} where hash(id) % 3 = {n}",
    "insert into stripe.{table} select * from stripe.{table} where hash(id) % 3 = {n}",
    "insert into stripe.{table} select * replace (id || 'x' as id) from stripe.{table} where hash(id) % 3 = {n}",
    "update stripe.{table} set {column} = null where hash(id) % 3 = {n} and deleted_at is null",
    "alter table stripe.{table} drop column {column}",
    "update stripe.{table} set account_id = 'acct_x' where hash(id) % 3 = {n}",
    "update stripe.{table} set _dlt_load_id = '1' where hash(id) % 3 = {n}",
    "update stripe.{table} set _version = _version * 2 where hash(id) % 3 = {n}",
    "update stripe.{table} set deleted_at = null where hash(id) % 3 = {n}",
)
TABLE = st.sampled_from(sorted(CORE_TABLES))
LOST = st.lists(st.tuples(st.sampled_from(GONE), TABLE), min_size=1, max_size=3)
HURT = st.lists(
    st.tuples(st.sampled_from((*SOME, *GONE)), TABLE, st.integers(0, 2), st.integers(0, 99)),
    min_size=1,
    max_size=6,
)
QUIETLY: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


def statements(drawn: list[tuple[Any, ...]]) -> Iterator[str]:
    for what, table, *more in drawn:
        n, m = more or (0, 0)
        names = [
            column.name
            for column in CORE_TABLES[table].columns
            if column.name not in ("id", "created")
        ]
        yield what.format(table=table, n=n, column=f'"{names[m % len(names)]}"')


def play(loaded: Path, hurt: list[tuple[Any, ...]], compare: bool, dies: int, moves: bool) -> None:
    """Damage a copy, perhaps let Stripe live on, let a run die, and judge what the next one makes
    of it.
    """
    box = account()
    lived(box)
    with tempfile.TemporaryDirectory() as folder, copy_of(box, Path(folder), hold=True) as copy:
        shutil.copy(loaded, copy.folder / copy.database)
        box.advance(3_600)
        before = told(copy)
        if moves:
            box.live(600, 12)
            box.advance(SETTLED)
        for statement in statements(hurt):
            try:
                copy.select(statement)
            except Exception as fault:  # the table or the column is gone already
                if "does not" not in str(fault) and "not found" not in str(fault):
                    raise
        for at in (dies, 0):
            with contextlib.suppress(Died), dying(at):
                copy.sync(reconcile=compare)
        copy.check(volatile=False, last=False, found_later=True)
        added = [row for row in changes(copy) if row["change_id"] not in before]
        assert [row for row in added if row["origin"] == "diff" or not moves] == []
        assert copy.sync(reconcile=compare).rows == {}


@settings(derandomize=True, max_examples=3, phases=[Phase.generate], **QUIETLY)
@given(hurt=HURT, dies=st.integers(0, 4), moves=st.booleans())
def test_whatever_is_done_to_the_tables_a_comparison_restores(
    loaded: Path, hurt: list[Any], dies: int, moves: bool
) -> None:
    play(loaded, hurt, True, dies, moves)


@pytest.mark.parametrize(
    ("table", "dies", "compare"), [("prices", 0, False), ("plans", 1, False), ("prices", 1, True)]
)
def test_a_lost_table_gets_back_what_only_items_show(
    loaded: Path, table: str, dies: int, compare: bool
) -> None:
    """No list shows a price that was made for one subscription; also if a run dies in between."""
    play(loaded, [("delete from stripe.{table}", table)], compare, dies, False)


@settings(derandomize=True, max_examples=2, phases=[Phase.generate], **QUIETLY)
@given(hurt=LOST, dies=st.integers(0, 4), moves=st.booleans())
def test_whatever_table_is_gone_a_sync_lists_it_again(
    loaded: Path, hurt: list[Any], dies: int, moves: bool
) -> None:
    play(loaded, hurt, False, dies, moves)


@pytest.mark.long
@settings(max_examples=200, print_blob=True, **QUIETLY)
@given(hurt=HURT, dies=st.integers(0, 8), moves=st.booleans())
def test_a_comparison_restores_in_many_more_cases(
    loaded: Path, hurt: list[Any], dies: int, moves: bool
) -> None:
    play(loaded, hurt, True, dies, moves)


@pytest.mark.long
@settings(max_examples=100, print_blob=True, **QUIETLY)
@given(hurt=LOST, dies=st.integers(0, 8), moves=st.booleans())
def test_a_sync_lists_again_in_many_more_cases(
    loaded: Path, hurt: list[Any], dies: int, moves: bool
) -> None:
    play(loaded, hurt, False, dies, moves)
