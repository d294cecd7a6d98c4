"""`serve --all-accounts`: webhooks of connected accounts, over real HTTP, into each account's tables."""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest
import urllib3

from stripe_feed.accounts_run import sync_account
from stripe_feed.delivery.signatures import stripe_header
from stripe_feed.errors import SetupError, Unreachable
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.sandbox import Sandbox
from stripe_feed.server import webhook_inbox
from stripe_feed.server.connected import service
from stripe_feed.server.connected.accounts import Accounts
from stripe_feed.server.connected.service import serve_accounts
from stripe_feed.server.connected.turns import Turns
from stripe_feed.server.webhook_endpoint import DEAUTHORIZED
from stripe_feed.sync_run import Synced
from tests.commands import Shell, shell_of
from tests.copies import FAST
from tests.test_connect import customers_in

BOUND = 60.0
NOW = 1_800_000_000.0


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    with shell_of(Sandbox(customers=0, products=0, oddities=False), tmp_path) as opened:
        yield opened


@dataclass
class Served:
    """The service in a thread of this process, and the accounts whose syncs have ended, in order."""

    url: str
    secret: str
    ended: queue.Queue[str]
    http: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False))

    def wait_for(self, *accounts: str) -> None:
        """Wait until each of these was synced once more."""
        left = set(accounts)
        while left:
            left.discard(self.ended.get(timeout=BOUND))

    def post(self, **event: Any) -> tuple[int, Any]:
        body = json.dumps({"object": "event", **event}).encode()
        headers = {"Stripe-Signature": stripe_header(int(time.time()), body, [self.secret])}
        answer = self.http.request("POST", f"{self.url}/stripe", body=body, headers=headers)
        return answer.status, answer.json()

    def health(self) -> Any:
        return self.http.request("GET", f"{self.url}/health").json()

    def wait_until(self, **values: int) -> None:
        """Wait until the service says so of itself."""
        until = time.monotonic() + BOUND
        while not values.items() <= self.health().items():
            assert time.monotonic() < until


@contextmanager
def serving(shell: Shell, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[Served]:
    """Serve, with an endpoint of the platform that gets the events of connected accounts."""
    ended, opened = queue.Queue[str](), queue.Queue[str]()

    def noted(syncs: Any, budget: Any, account: str, *given: Any, **more: Any) -> Synced:
        try:
            return sync_account(syncs, budget, account, *given, **more)
        finally:
            ended.put(account)

    monkeypatch.setattr(service, "sync_account", noted)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    hook = shell.box.webhook_endpoint(f"http://127.0.0.1:{port}/stripe", connect="true")
    stopped = threading.Event()
    thread = threading.Thread(
        target=serve_accounts,
        kwargs={
            "host": "127.0.0.1",
            "port": port,
            "secrets": [hook["secret"]],
            "every": 86_400.0,
            "stopped": stopped,
            "ready": opened.put,
            "api_key": shell.box.key,
            "api_base": shell.url,
            "resources": ["customers"],
            **FAST,
            **options,
        },
    )
    thread.start()
    try:
        yield Served(opened.get(timeout=BOUND), hook["secret"], ended)
    finally:
        stopped.set()
        thread.join(BOUND)
        assert not thread.is_alive()


def test_a_webhook_brings_a_change_into_the_tables_of_its_account(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And into no other; what is said of an account that is not connected is answered alike."""
    one, other = shell.box.connect(customers=2), shell.box.connect(customers=1)

    with serving(shell, monkeypatch) as served:
        served.wait_for(one.account_id, other.account_id)
        before = len(other.log)
        made = one.create("customers", name="New")
        shell.box.drain_webhooks()
        served.wait_for(one.account_id)
        served.wait_until(waiting=0)
        event = {"id": "evt_1", "type": "customer.created"}
        for foreign in ({"account": "acct_foreign"}, {"account": other.account_id, "livemode": True}, {}):  # fmt: skip
            assert served.post(**event, **foreign) == (200, {"received": True})
        assert served.http.request("POST", f"{served.url}/stripe", body=b"{}").status == 400
        for path in ("/", "/changes", "/metrics"):
            assert served.http.request("GET", served.url + path).status == 401
        health = served.health()
    assert made["id"] in customers_in(one.account_id)
    assert customers_in(one.account_id) == set(one.objects("customers"))
    assert customers_in(other.account_id) == set(other.objects("customers"))
    assert len(other.log) == before
    assert (health["status"], health["accounts"], health["waiting"]) == ("ok", 2, 0)
    with FeedStore(shell.folder / "stripe_feed.accounts.sqlite") as inbox:
        assert inbox.query("select account from rung where read_at is not null") == [(one.account_id,)]  # fmt: skip
        assert inbox.query("select count(*) from rung where read_at is null") == [(0,)]


def test_an_account_that_is_connected_later_is_loaded_and_one_that_leaves_is_left(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LIST_SOON", 0.0)
    stays = shell.box.connect(customers=1)
    with serving(shell, monkeypatch) as served:
        served.wait_for(stays.account_id)
        new = shell.box.connect(customers=2)
        shell.box.advance(10)
        served.post(id="evt_1", type="customer.created", account=new.account_id)
        served.wait_for(new.account_id)
        served.wait_until(waiting=0)
        shell.box.revoke(stays.account_id)
        shell.box.drain_webhooks()
        served.wait_until(accounts=1)
    assert customers_in(new.account_id) == set(new.objects("customers"))


@pytest.mark.broad
def test_the_accounts_of_one_dataset_are_loaded_when_they_ring(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = shell.box.connect(customers=2), shell.box.connect(customers=1)

    with serving(shell, monkeypatch, shared=True) as served:
        served.wait_until(synced=2)
        made = one.create("customers", name="New")
        shell.box.drain_webhooks()
        served.wait_until(synced=3, waiting=0)
        assert served.health()["failing"] == 0
    with duckdb.connect("stripe_feed_accounts.duckdb", read_only=True) as opened:
        found = opened.execute("select account_id, id from stripe_accounts.customers").fetchall()
        told = opened.execute("select account_id, object_id from stripe_accounts.changes")
        assert told.fetchall() == [(one.account_id, made["id"])]
    assert set(found) == {
        (child.account_id, id) for child in (one, other) for id in child.objects("customers")
    }


def test_a_key_without_access_ends_at_once(shell: Shell) -> None:
    shell.key = shell.box.restrict(permissions={"rak_customer_read"})
    said = shell.run("serve", "--all-accounts", "--port", 0)
    assert (said.code, "rak_connected_account_read" in said.error) == (3, True)


@pytest.mark.parametrize(
    "options",
    [["--account", "acct_1"], ["--dataset", "x"], ["--allow-actions"], ["--triggers", "x.toml"]],
    ids=lambda options: str(options[0]),
)
def test_what_is_for_one_account_is_refused(shell: Shell, options: list[str]) -> None:
    said = shell.run("serve", "--all-accounts", *options)
    assert (said.code, said.error.startswith("--all-accounts goes with neither")) == (2, True)
    assert shell.run("serve", "--at-once", 2).code == 2


def test_an_endpoint_for_connected_accounts_is_registered(shell: Shell) -> None:
    """It gets their events, and is told when one revokes the access."""
    url = "http://127.0.0.1:9/stripe"
    said = shell.run("webhook", "register", url, "--connect", "--resources", "customers")
    assert (said.code, said.out.startswith("whsec_")) == (0, True), said.err
    (endpoint,) = shell.box.account.webhooks.endpoints.values()
    assert endpoint.connect
    assert endpoint.subscribes_to(DEAUTHORIZED) and endpoint.subscribes_to("customer.created")
    assert not endpoint.subscribes_to("invoice.paid")


# -- without HTTP


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[FeedStore]:
    with FeedStore(tmp_path / "inbox.sqlite") as opened:
        yield opened


@dataclass
class Scripted:
    """The syncs that were begun, and what each ends with: an error, or events that it cannot read."""

    begun: list[tuple[str, list[str], bool]] = field(default_factory=list)
    faults: list[Exception | dict[str, str] | None] = field(default_factory=list)

    def __call__(self, account: str, _: bool, *, webhook_events: Any, polls: bool) -> Synced:
        self.begun.append((account, [event.event_id for event in webhook_events], polls))
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        failed = {} if fault is None else fault
        return Synced({}, 1, 0.0, 0, account, livemode=False, failed=failed)


def accounts_of(inbox: FeedStore, run: Scripted, *ids: str, cursor: int = 1_000) -> Accounts:
    accounts = Accounts(
        inbox, inbox, Turns(0, 2), live=False, run=run, now=lambda: NOW, keeps_bodies=False
    )
    accounts.follow(ids, lambda id: cursor)
    return accounts


def body_of(account: str) -> bytes:
    return json.dumps({"type": "customer.created", "account": account, "livemode": False}).encode()


def work(accounts: Accounts, times: int, *, seconds: float = 1000.0) -> None:
    """Let a worker take turns until it has taken so many; each is long after the one before."""
    now = NOW
    for _ in range(times):
        now += seconds
        accounts.now = lambda at=now: at  # type: ignore[misc]
        turn = accounts.turns.next(now)
        assert turn is not None
        accounts.take(turn)


def test_what_was_received_before_a_restart_is_read_after_it(inbox: FeedStore) -> None:
    """Of accounts that are still connected."""
    run = Scripted()
    before = accounts_of(inbox, run, "acct_1", "acct_2")
    before.receive("evt_1", body_of("acct_1"))
    before.receive("evt_2", body_of("acct_2"))
    before.receive("evt_2", body_of("acct_2"))

    after = accounts_of(inbox, run, "acct_1")
    work(after, 1)
    assert run.begun == [("acct_1", ["evt_1"], False)]
    assert webhook_inbox.accounts_to_read(inbox) == {}
    assert after.turns.seconds_until_next(NOW) is None


def test_a_failure_is_said_once_and_the_events_are_read_later(
    inbox: FeedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Every second time without them, so that none of them stops the rest."""
    run = Scripted(faults=[SetupError("no access"), SetupError("no access"), Unreachable("away")])
    accounts = accounts_of(inbox, run, "acct_1")
    accounts.receive("evt_1", body_of("acct_1"))

    work(accounts, 5)
    assert run.begun == [
        ("acct_1", ["evt_1"], False), ("acct_1", [], True), ("acct_1", ["evt_1"], True),
        ("acct_1", [], True), ("acct_1", ["evt_1"], False),
    ]  # fmt: skip
    assert [r.getMessage() for r in caplog.records if "not up to date" in r.getMessage()] == [
        "acct_1: not up to date (SetupError): no access",
        "acct_1: not up to date (Unreachable): away",
    ]
    assert (accounts.health()["failing"], accounts.health()["waiting"]) == (0, 0)


def test_an_event_that_cannot_be_read_waits_and_stops_no_other(inbox: FeedStore) -> None:
    run = Scripted(faults=[{"evt_1": "Unreachable"}])
    accounts = accounts_of(inbox, run, "acct_1", "acct_2")
    for id, account in (("evt_1", "acct_1"), ("evt_2", "acct_1"), ("evt_3", "acct_2")):
        accounts.receive(id, body_of(account))

    work(accounts, 3)
    assert run.begun == [
        ("acct_1", ["evt_1", "evt_2"], False), ("acct_2", ["evt_3"], False), ("acct_1", ["evt_1"], False),
    ]  # fmt: skip
    assert webhook_inbox.accounts_to_read(inbox) == {}


def test_a_key_that_may_not_read_events_keeps_their_bodies(inbox: FeedStore) -> None:
    accounts = accounts_of(inbox, Scripted(), "acct_1")
    accounts.keeps_bodies = True
    accounts.receive("evt_1", body_of("acct_1"))
    (event,) = webhook_inbox.unread(inbox, 9, account="acct_1")
    assert event.body == body_of("acct_1")
    work(accounts, 1)
    accounts.receive("evt_2", body_of("acct_1"))
    (event,) = webhook_inbox.unread(inbox, 9, account="acct_1")
    assert event.body is None
