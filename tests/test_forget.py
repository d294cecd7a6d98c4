"""A customer is deleted at Stripe and erased here, and nothing that Stripe still has brings it back."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pytest

from stripe_feed import open_feed, open_pipeline, sync
from stripe_feed.feed.storage.salvage import SALVAGED
from stripe_feed.models.copies import build_copy_models
from stripe_feed.resources import RESOURCES
from stripe_feed.resources.model import BY_CUSTOMER
from stripe_feed.sandbox import Sandbox
from stripe_feed.sync_run import Synced
from stripe_feed.write.push.history.load import record_runs
from stripe_feed.write.push.log import FailedRow, PushLog, PushStep
from stripe_feed.write.push.references import reference_key
from tests.commands import Said, Shell
from tests.copies import FAST, held_open

EMAIL = "jane.canary@example.com"
NAME = "Canary O'Shea"
NAMED = reference_key("email", EMAIL)  # a digest, as the address itself is not kept
COPY = "copy.duckdb"
TABLES = ("customers", "subscriptions", "invoices")


@pytest.fixture
def box() -> Sandbox:
    return Sandbox(seed=5, customers=6)


@pytest.fixture
def shell(box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    with box.serve() as url:
        monkeypatch.setitem(os.environ, "STRIPE_API_BASE", url)
        monkeypatch.setitem(os.environ, "STRIPE_SECRET_KEY", box.key)
        yield Shell(box, url, tmp_path)


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    """The files of the copy that the first test has made, by name: the account is always the same."""
    return {}


@pytest.fixture
def jane(box: Sandbox, shell: Shell, made: dict[str, bytes]) -> str:
    """A customer with a subscription and invoices, all with a name in them, in a copy with changes."""
    ended = {one["customer"] for one in box.objects("subscriptions").values() if one["status"] == "canceled"}  # fmt: skip
    customer = next(
        one["customer"]
        for one in box.objects("subscriptions").values()
        if one["customer"] not in ended
        and any(invoice["customer"] == one["customer"] for invoice in box.objects("invoices").values())
    )  # fmt: skip
    if not made:
        load()
    write(box, customer, "first")
    if made:
        for name, content in made.items():
            Path(name).write_bytes(content)
    else:
        load()
        made |= {name: Path(name).read_bytes() for name in (COPY, "copy.feed.sqlite")}
    return str(customer)


def load(**options: Any) -> Synced:
    """Sync the copy, with the file open only as long as it takes."""
    with held_open(Path(COPY).resolve()):
        return sync(database=COPY, **FAST, **{"resources": TABLES} | options)


def write(box: Sandbox, customer: str, word: str) -> None:
    """Somebody writes the name into everything of a customer."""
    box.update("customers", customer, name=f"{NAME} {word}", email=EMAIL)
    for table in ("subscriptions", "invoices"):
        for key, one in list(box.objects(table).items()):
            if one["customer"] == customer:
                box.update(table, key, metadata={"who": f"{NAME} {word}"})
    box.advance(120)


def forget(shell: Shell, *arguments: str) -> Said:
    with held_open(Path(COPY).resolve()):
        return shell.run("forget", *arguments, "--database", COPY)


def held() -> str:
    """Everything in the copy, dlt's staging tables and the feed store, as text."""
    parts: list[str] = []
    with duckdb.connect(COPY, read_only=True) as db:
        tables = db.execute(
            "select table_schema, table_name from information_schema.tables where table_name not like '\\_dlt%' escape '\\'"
        ).fetchall()
        for schema, table in tables:
            rows = db.execute(f'select * from "{schema}"."{table}"').fetchall()
            parts += [json.dumps(row, default=str) for row in rows]
    with open_feed(open_pipeline(COPY)) as feed:
        parts += [json.dumps(one.as_dict()) for one in feed.read(0, 10_000, op=["c", "u", "d", "r"])]  # fmt: skip
    return "\n".join(parts)


def pushed() -> int:
    """Rows of what was pushed."""
    with duckdb.connect(COPY, read_only=True) as db:
        sql = "select (select count(*) from stripe.push_operations) + (select count(*) from stripe.push_rejected)"
        return int(db.execute(sql).fetchall()[0][0])


def counts() -> dict[str, Any]:
    with duckdb.connect(COPY, read_only=True) as db:
        return {
            table: db.execute(f"select count(*) from stripe.{table}").fetchall()
            for table in ("customers", "subscriptions", "subscription_items", "invoices", "invoice_line_items")
        } | {"paid": db.execute("select sum(amount_paid), count(status) from stripe.invoices").fetchall()}  # fmt: skip


@pytest.mark.checklist("C22")
def test_a_customer_is_deleted_and_erased_and_stays_so(
    box: Sandbox, shell: Shell, jane: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert NAME in held()
    before = counts()
    with open_feed(open_pipeline(COPY)) as feed:
        change = feed.read(0, 1, resource="customers")[-1]
        assert change.object_id == jane
        feed.store.query("insert into messages (message_id, trigger, change_id, first_change_id, resource, object_id, lane, state, due_at, made_at) values ('msg_1', 't', ?, ?, 'customers', ?, ?, 'dead', 0, 0)", change.change_id, change.change_id, jane, jane)  # fmt: skip
    with PushLog("copy.push.sqlite", lambda: 0.0) as pushes:
        pushes.stamp(box.account_id, False)
        pushes.begin_run("crm")
        pushes.adopt("crm", EMAIL, "digest", jane)
        (sent,) = pushes.begin("crm", "user-7", "digest", [PushStep("update", "post", f"/v1/customers/{jane}", {})])  # fmt: skip
        pushes.mark_rejected(sent, "Stripe refuses it.", None)
        pushes.adopt("crm", "user-7", "digest", jane)
        pushes.note_failed([FailedRow("user-7", "rejected", jane, None, "Stripe refuses it.")])
        for key in (EMAIL, f"eu|{EMAIL.title()}"):  # they never had an object
            pushes.reject("crm", key, "name is too long.")
            pushes.note_failed([FailedRow(key, "rejected", None, None, "name is too long.")])
        (sent,) = pushes.begin("bills:customers", NAMED, "digest", [PushStep("create", "post", "/v1/customers", {})])  # fmt: skip
        pushes.mark_rejected(sent, "Stripe refuses it.", None)
    assert record_runs(Path("copy.push.sqlite"), COPY) == 1
    assert pushed() == 5

    said = forget(shell, jane, "--json")

    assert said.code == 0, said.err
    receipt = json.loads(said.out)
    assert (receipt["customer"], receipt["stripe"]) == (jane, "deleted")
    assert {table for table, count in receipt["rows"].items() if count} >= {"customers", "subscriptions", "invoices", "subscription_items", "invoice_line_items"}  # fmt: skip
    assert receipt["changes"] > 2
    assert (receipt["messages"], receipt["push_rows"]) == (1, 4)
    assert "Subscriptions that end with it at once: 1" in said.err
    assert box.objects("customers").get(jane, {"deleted": True})["deleted"] is True
    assert (counts(), pushed()) == (before, 0)
    clean = [held()]

    box.advance(120)
    load()  # the events of the deletion bring whole objects
    with duckdb.connect(COPY, read_only=True) as db:
        assert db.execute("select deleted_at is not null, name, email from stripe.customers where id = ?", [jane]).fetchall() == [(True, None, None)]  # fmt: skip
        assert db.execute("select distinct status from stripe.subscriptions where customer = ?", [jane]).fetchall() == [("canceled",)]  # fmt: skip
    clean.append(held())
    done = load(reconcile=True)
    assert "changes" not in done.rows  # it fires nothing, though what is erased differs
    clean.append(held())
    load(full_refresh=True, resources=None)
    clean.append(held())

    texts = [*clean, said.out, said.err, caplog.text, Path("copy.push.sqlite").read_bytes().decode("latin-1")]  # fmt: skip
    for text in texts:
        assert NAME not in text
        assert EMAIL not in text
        assert NAMED not in text and sha256(EMAIL.encode()).hexdigest() not in text

    again = forget(shell, jane)
    assert again.code == 0
    assert "deleted at Stripe already" in again.err
    assert f"{jane}: at Stripe deleted before" in again.out


def test_a_dry_run_and_a_wrong_id_touch_nothing(box: Sandbox, shell: Shell, jane: str) -> None:
    before, events = held(), len(box.events)
    said = forget(shell, jane, "--dry-run")
    assert (said.code, said.out) == (0, "")
    assert "Subscriptions that end with it at once: 1" in said.err
    assert forget(shell, "sub_1").code == 2
    for nobody in ("cus_none", "cus_1/../x", "jane"):  # another system's ids may look like that
        unknown = forget(shell, nobody)
        assert (unknown.code, f"Stripe has no customer {nobody}" in unknown.err) == (2, True)
    assert held() == before
    assert len(box.events) == events


def test_only_here_leaves_stripe_alone(box: Sandbox, shell: Shell, jane: str) -> None:
    events = len(box.events)
    said = forget(shell, jane, "--only-here")
    assert said.code == 0
    assert "at Stripe kept" in said.out
    assert len(box.events) == events
    write(box, jane, "again")
    load()
    assert NAME not in held()


def test_live_data_is_confirmed(
    shell: Shell, jane: str, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stripe_feed.api.client.is_live", lambda key: True)
    for table, owner in (("customers", "id"), ("subscriptions", "customer")):
        for key, one in list(box.objects(table).items()):
            if one[owner] == jane:
                box.update(table, key, livemode=True)
    refused = forget(shell, jane, "--allow-api-base")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert jane in box.objects("customers")
    assert NAME in held()


def test_the_models_are_built_whole_after_it(jane: str) -> None:
    """Bodies that are erased change what the models say of the past, though no load tells of it."""
    bases = "select count(*), count(nullif(basis, '')) from stripe_models._stripe_feed_models"
    build_copy_models(database=COPY, selection=["+int_stripe__item_periods"])
    with duckdb.connect(COPY) as connection:
        assert all(connection.execute(bases).fetchone() or ())

    with open_feed(open_pipeline(COPY)) as feed:
        feed.erase(jane)

    with duckdb.connect(COPY) as connection:
        count, based = connection.execute(bases).fetchone() or (0, 0)
        assert count and not based


def test_a_damaged_store_does_not_lose_who_was_erased() -> None:
    assert "erased" in SALVAGED


def test_a_push_log_that_is_not_there_is_named_before_anything_is_done(tmp_path: Path) -> None:
    box = Sandbox(seed=5, customers=2)
    said = forget(Shell(box, "http://127.0.0.1:9", tmp_path), "cus_1", "--push-log", "lost.sqlite")
    assert (said.code, len(box.log)) == (2, 0)
    assert "There is no push log lost.sqlite" in said.err


def test_what_leads_to_a_customer_only_through_others_is_erased_too(
    box: Sandbox, shell: Shell, jane: str
) -> None:
    """A dispute names the charge, the charge its customer: its row, its change, and those that come
    later; another customer's stay.
    """
    names = ["customers", "charges", "disputes", "reviews", "balance_transactions"]
    other = next(id for id in box.objects("customers") if id != jane)
    disputes = {}
    for customer in (jane, other):
        charge = box.create("charges", customer=customer)["id"]
        disputes[customer] = box.create("disputes", charge=charge, reason="general")["id"]
        box.create("reviews", charge=charge, ip_address=NAME)
        box.create("balance_transactions", source=disputes[customer], description=f"{NAME} {customer}")  # fmt: skip
    box.advance(120)
    load(resources=names)
    for customer in (jane, other):
        box.update("disputes", disputes[customer], metadata={"who": f"{NAME} {customer}"})
    box.advance(120)
    load(resources=names)
    assert held().count(f"{NAME} {jane}") == held().count(f"{NAME} {other}") == 4

    said = forget(shell, jane, "--only-here", "--json")
    assert json.loads(said.out)["rows"].items() >= {"disputes": 1, "reviews": 1, "balance_transactions": 1}.items()  # fmt: skip
    clean = [held()]
    box.update("disputes", disputes[jane], metadata={"who": f"{NAME} {jane} again"})
    box.advance(120)
    load(resources=names)
    clean.append(held())

    for text in clean:
        assert f"{NAME} {jane}" not in text
        assert text.count(f"{NAME} {other}") == 4
    with duckdb.connect(COPY, read_only=True) as db:
        assert db.execute("select count(charge), count(metadata) from stripe.disputes").fetchall() == [(2, 1)]  # fmt: skip


def test_every_way_to_a_customer_is_declared() -> None:
    """Columns that name an object which belongs to a customer, of rows that do not name one; and no
    path leads in a circle.
    """
    of_customers = {"charge", "payment_intent", "setup_intent", "invoice", "subscription"}
    assert all(ways(f"{column}s") for column in of_customers)
    for name, row in RESOURCES.items():
        if row.table == "customers" or any(column.name == "customer" for column in row.columns):
            continue
        found = {column.name for column in row.columns} & of_customers
        assert found <= {column for column, _ in row.customer_through}, name
        assert row.customer_through == BY_CUSTOMER or ways(name)


def ways(table: str, depth: int = 0) -> bool:
    """Whether the columns of a table lead to a customer, in a few steps."""
    assert depth < 5, table
    row = RESOURCES[table]
    names = {column.name for column in row.columns}
    return table == "customers" or any(
        column in names and ways(owner, depth + 1) for column, owner in row.customer_through
    )
