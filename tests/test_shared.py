"""One dataset for all connected accounts: keyed by account and id, with a state per account."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import duckdb
import pytest

from stripe_feed.accounts_run import AccountResult
from stripe_feed.destination.state import AccountClient, rows_to_change, table_name
from stripe_feed.errors import Locked, SetupError, Unreachable
from stripe_feed.extract.tables.changes import change_hints
from stripe_feed.extract.tables.hints import TableNames, newer_wins, replace_children
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.resources import CHANGES, RESOURCES
from stripe_feed.sandbox import Sandbox
from stripe_feed.server.connected.accounts import Accounts
from stripe_feed.server.connected.service import keep_together
from stripe_feed.server.connected.turns import Turns
from stripe_feed.shared_run import AccountTurn
from stripe_feed.sync_run import Synced
from tests.commands import Said, Shell, shell_of
from tests.copies import held_open

FILE, DATASET = "stripe_feed_accounts.duckdb", "stripe_accounts"
AT = ("--database", FILE, "--dataset", DATASET)
NOW = 1_800_000_000.0


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    with shell_of(Sandbox(customers=0, products=0, oddities=False), tmp_path) as opened:
        yield opened


def sync_shared(shell: Shell, *arguments: object) -> Said:
    pace = ("--max-rps", 2000, "--endpoint-rps", 2000, "--resources", "products")
    with held_open(shell.folder.resolve() / FILE):
        return shell.run("sync", "--all-accounts", "--shared", *pace, *arguments)


def select(query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(FILE, read_only=True) as opened:
        opened.execute(f"set search_path = '{DATASET}'")
        return opened.execute(query).fetchall()


def test_two_accounts_with_an_object_of_the_same_id(shell: Shell) -> None:
    """Each has its own row, changes and versions; one that has failed, or left, touches no other."""
    one, other, gone = (shell.box.connect(customers=0, products=0) for _ in range(3))
    ids = {account.account_id for account in (one, other)}
    for account, name in ((one, "One"), (other, "Other"), (gone, "Gone")):
        account.create("products", id="gold", name=name)
    shell.box.advance(600)
    gone.faults.always = {"/v1/products": 400}

    said = sync_shared(shell)
    assert (said.code, f"1 of 3 accounts are not loaded, 0 in part: {gone.account_id}" in said.error) == (4, True)  # fmt: skip
    names = "select account_id, name, deleted_at is null from products order by name"
    assert select(names) == [(one.account_id, "One", True), (other.account_id, "Other", True)]

    one.update("products", "gold", name="One again")
    other.delete("products", "gold")
    one.create("products", id="silver", name="Silver")
    shell.box.advance(600)
    gone.faults.always = {}
    said = sync_shared(shell, "--json")
    assert said.code == 0, said.err
    loaded = {line["account_id"] for line in map(json.loads, said.out.splitlines())}
    assert loaded == {*ids, gone.account_id}
    assert select(names) == [
        (gone.account_id, "Gone", True), (one.account_id, "One again", True),
        (other.account_id, "Other", False), (one.account_id, "Silver", True),
    ]  # fmt: skip
    told = select("select account_id, op, object_id from changes order by object_id, op")
    assert told == [(other.account_id, "d", "gold"), (one.account_id, "u", "gold"), (one.account_id, "c", "silver")]  # fmt: skip
    with FeedStore(f"stripe_feed_accounts.{DATASET}.feed.sqlite") as store:
        changes = store.newest(9, ["products"])
    assert {(c.account_id, c.object_id, c.object_version) for c in changes} == {
        (other.account_id, "gold", 1), (one.account_id, "gold", 1), (one.account_id, "silver", 1),
    }  # fmt: skip
    net = [json.loads(line) for line in shell.run("feed", "net", "--json", *AT).out.splitlines()]
    assert sorted((fold["object_id"], fold["op"]) for fold in net) == [("gold", "d"), ("gold", "u"), ("silver", "c")]  # fmt: skip
    status = json.loads(shell.run("status", "--json", *AT).out)
    assert (status["account_id"], status["accounts"]) == (shell.box.account_id, 3)

    for forget, why in (
        (["feed", "forget", "gold"], "3 accounts of this dataset have an object of this id"),
        (["forget", "cus_1", "--yes"], "Name the customer's with --account"),
        (
            ["forget", "gold", "--account", one.account_id, "--yes"],
            "3 accounts of this dataset have",
        ),
    ):
        refused = shell.run(*forget, *AT)
        assert (refused.code, why in refused.error) == (2, True)
    assert select("select count(*) from changes where after is null and previous is null") == [(0,)]
    assert shell.run("feed", "forget", "silver", *AT).code == 0
    emptied = "select object_id from changes where after is null and previous is null"
    assert select(emptied) == [("silver",)]

    assert sync_shared(shell).code == 0
    assert len(select("select 1 from changes")) == 3
    for verb in (["sync"], ["verify"], ["reconcile"], ["sync", "--account", one.account_id]):
        refused = shell.run(*verb, *AT)
        words = f"holds the accounts connected to {shell.box.account_id}"
        assert (refused.code, words in refused.error) == (3, True)
        assert "sync --account acct_...`" in refused.error
    with shell_of(Sandbox(seed=2, customers=0, products=0, oddities=False), Path()) as other_shell:
        other_shell.box.connect(customers=0, products=1)
        refused = sync_shared(other_shell)
        assert (refused.code, words in refused.error) == (3, True)
    assert len(select("select distinct account_id from products")) == 3
    own = ("--resources", "products", "--database", "own.duckdb", "--dataset", "single")
    assert shell.run("sync", *own).code == 0
    refused = sync_shared(shell, *own[2:])
    assert (refused.code, f"holds account {shell.box.account_id}" in refused.error) == (3, True)
    refused = shell.run("models", "build", *AT)
    assert (refused.code, "a dataset of one account" in refused.error) == (3, True)


def test_what_a_shared_dataset_cannot_be_is_refused(shell: Shell) -> None:
    for arguments, code, words in (
        (["--destination", "sqlalchemy"], 3, "is for DuckDB"),
        (["--deletes", "hard"], 2, "keeps deleted rows"),
        (["--full-refresh"], 2, "--full-refresh"),
        (["--account", "acct_1"], 2, "--all-accounts goes with neither"),
    ):
        said = sync_shared(shell, *arguments)
        assert (said.code, words in said.error) == (code, True)
    for verb in ("sync", "serve"):
        said = shell.run(verb, "--shared")
        assert (said.code, "it goes with --all-accounts" in said.error) == (2, True)


def test_merges_and_keys_name_the_account() -> None:
    """Of the child's merge: both what is deleted, and what is not written because it is old."""
    items = TableNames('"s"."items"', '"staging"."items"')
    parent = TableNames('"s"."subscriptions"', '"staging"."subscriptions"')
    (child,) = RESOURCES["subscriptions"].children
    merge = replace_children(child, parent, items, is_shared=True)
    assert merge["destination_scope"].startswith("(account_id, subscription) in (select s.account_id, s.subscription from")  # fmt: skip
    for condition in (merge["destination_scope"], merge["source_filter"]):
        assert "account_id as xa" in condition and "xa = " in condition
    assert "xa = account_id and" in newer_wins(parent, is_shared=True)["source_filter"]
    assert "account_id" not in str(newer_wins(parent))
    hints = change_hints(is_shared=True)
    assert hints["primary_key"] == ["account_id", "change_id"]
    assert not hints["columns"]["account_id"]["nullable"]


class _Names:
    def make_qualified_table_name(self, table: str) -> str:
        return f"s.{table}"


def test_a_client_of_an_account_sees_its_rows_alone() -> None:
    client = AccountClient(_Names(), "acct_1", ("products", CHANGES))
    assert table_name(client, "products") == "(select * from s.products where account_id = 'acct_1')"  # fmt: skip
    assert table_name(client, "_dlt_loads") == "s._dlt_loads"
    assert rows_to_change(client, "products") == ("s.products", "account_id = 'acct_1' and ")
    assert rows_to_change(_Names(), "products") == ("s.products", "")
    with pytest.raises(Exception, match="not the id of an account"):
        AccountClient(_Names(), "acct_1' or '1", ("products",))


# -- the service


def test_accounts_that_rang_are_loaded_together(tmp_path: Path) -> None:
    """Before whole readings, of which one goes with them; an account that fails is tried again alone."""
    asked: list[list[tuple[str, list[str], bool]]] = []

    def sync(turns: Sequence[AccountTurn]) -> Iterator[AccountResult]:
        asked.append([(t.account, [e.event_id for e in t.webhook_events], t.polls) for t in turns])
        for turn in turns:
            fault = SetupError("no access") if turn.account == "acct_2" else None
            done = Synced({}, 1, 0.0, 0, turn.account, livemode=False)
            yield AccountResult(turn.account, None if fault else done, "no access", 3, fault)

    def unused(*_: Any, **__: Any) -> Synced:
        raise AssertionError

    with FeedStore(tmp_path / "inbox.sqlite") as inbox:
        turns = Turns(0, 9, 2)
        accounts = Accounts(inbox, inbox, turns, live=False, run=unused, now=lambda: NOW, keeps_bodies=False)  # fmt: skip
        accounts.follow([f"acct_{n}" for n in range(1, 4)], lambda id: 1_000)
        accounts.follow([f"acct_{n}" for n in range(1, 6)], lambda id: 0)
        for n in (1, 2):
            body = {"type": "customer.created", "account": f"acct_{n}", "livemode": False}
            accounts.receive(f"evt_{n}", json.dumps(body).encode())
        accounts.take_together(turns.next_together(NOW + 1), sync)
        accounts.take_together(turns.next_together(NOW + 1), sync)
        assert asked == [
            [("acct_1", ["evt_1"], False), ("acct_2", ["evt_2"], False), ("acct_4", [], True)],
            [("acct_5", [], True)],
        ]
        health = accounts.health()
        assert (health["failing"], health["waiting"], health["synced"]) == (1, 1, 3)

        def broken(turns: Sequence[AccountTurn]) -> Iterator[AccountResult]:
            raise Unreachable("away")
            yield

        with pytest.raises(Unreachable):
            accounts.take_together(turns.next_together(NOW + 1_000), broken)
        assert turns.next_together(NOW + 1) == []
        assert turns.failures("acct_2") == 2


def test_a_dataset_that_cannot_be_opened_is_in_the_health(tmp_path: Path) -> None:
    """As long as it lasts; it is opened again."""
    seen: list[object] = []

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            return self.is_set()

    def unused(*_: Any, **__: Any) -> Synced:
        raise AssertionError

    with FeedStore(tmp_path / "inbox.sqlite") as inbox:
        turns = Turns(0, 9, 2)
        accounts = Accounts(inbox, inbox, turns, live=False, run=unused, stopped=Impatient())

        @contextmanager
        def open_copy() -> Iterator[Any]:
            seen.append(accounts.health()["error"])
            if len(seen) < 3:
                raise Locked("held")
            yield SimpleNamespace(sync=None)

        def work(_: object) -> None:
            seen.append(accounts.health()["error"])
            accounts.stop()

        with patch.object(accounts, "work_together", work):
            keep_together(accounts, open_copy, [])
    assert seen == [None, "Locked", "Locked", None]
