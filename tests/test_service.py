"""From a change at Stripe to a signed message, over real HTTP: webhook in, one reading, trigger,
delivery.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import stripe
import urllib3
from standardwebhooks import Webhook
from typer.testing import CliRunner

from stripe_feed.cli import main
from stripe_feed.cli.serve import announce
from stripe_feed.errors import SetupError, Unreachable
from stripe_feed.feed.feed import Feed
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.models.run import ModelResult
from stripe_feed.sandbox import Sandbox
from stripe_feed.server import webhook_inbox
from stripe_feed.server.service import (
    Listening,
    ServiceState,
    run_service,
    run_worker,
    sync_and_build,
    sync_loop,
)
from stripe_feed.sync_run import Synced
from stripe_feed.triggers.config_watcher import ConfigWatcher
from stripe_feed.triggers.models.evaluate import watched_rows
from tests.receiver import Receiver, receiving

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes 123").decode()
TOKEN = "0123456789abcdef"
SHOWN = {"Authorization": f"Bearer {TOKEN}"}
BOUND = 60.0
RULES = """
[[trigger]]
name = "standard"
resource = "customers"
deliver = {{ url = "{url}/standard", allow_private = true, secrets = ["env:HOOK_SECRET"] }}

[[trigger]]
name = "stripe"
resource = "customers"
deliver = {{ url = "{url}/stripe", allow_private = true, secrets = ["env:HOOK_SECRET"], format = "stripe" }}
"""
ON_MODEL = """
[[trigger]]
name = "overdue"
preset = "invoice_overdue"
rows = "days_overdue > 0"
deliver = {{ url = "{url}/overdue", allow_private = true }}
"""


@dataclass
class Running:
    """`stripe-feed serve` in a process of its own, the account that rings it, and the receiver of
    its messages.
    """

    box: Sandbox
    url: str
    receiver: Receiver
    folder: Path
    environment: dict[str, str]
    port: int
    flags: Sequence[str] = ()
    process: subprocess.Popen[str] | None = None
    ended: list[subprocess.Popen[str]] = field(default_factory=list)
    readers: list[threading.Thread] = field(default_factory=list)
    http: urllib3.PoolManager = field(
        default_factory=lambda: urllib3.PoolManager(retries=False, timeout=40)
    )

    def start(self) -> None:
        """Begin, and wait until requests are answered."""
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "stripe_feed.cli.main",
                "serve",
                "--port",
                str(self.port),
                "--max-rps",
                "2000",
                "--endpoint-rps",
                "2000",
                "--give-up-after",
                "20",
                *self.flags,
            ],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.ended.append(self.process)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("The page"):
                break
        reader = threading.Thread(
            target=self.process.stderr.read, daemon=True
        )  # its pipe must not fill up
        reader.start()
        self.readers.append(reader)

    def get(self, path: str) -> Any:
        return json.loads(
            self.http.request("GET", f"http://127.0.0.1:{self.port}{path}", headers=SHOWN).data
        )

    def synced(self) -> None:
        """Wait for the first copy."""
        until = time.monotonic() + BOUND
        while self.get("/health").get("synced_at") is None:
            assert time.monotonic() < until
            self.get("/changes?wait=1")

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(BOUND)

    def delivered(self, trigger: str) -> dict[str, Any]:
        """The messages that arrived for a trigger, by id: repetitions are the same."""
        return {
            one.message_id: one
            for one in self.receiver.accepted
            if one.path.endswith(f"/{trigger}")
        }


@contextmanager
def running(folder: Path, *flags: str, rules: str = RULES, **account: Any) -> Iterator[Running]:
    box = Sandbox(now=int(time.time()), real_time=True, **account)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with box.serve() as url, receiving() as receiver:
        (folder / "triggers.toml").write_text(rules.format(url=receiver.url), encoding="utf-8")
        hook = box.webhook_endpoint(f"http://127.0.0.1:{port}/stripe")
        environment = {
            **os.environ,
            "STRIPE_API_BASE": url,
            "STRIPE_SECRET_KEY": box.key,
            "STRIPE_WEBHOOK_SECRET": hook["secret"],
            "HOOK_SECRET": SECRET,
            "STRIPE_FEED_TOKEN": TOKEN,
            "DLT_DATA_DIR": str(folder / "dlt"),
        }
        found = Running(box, url, receiver, folder, environment, port, flags)
        try:
            yield found
        finally:
            if found.process is not None:
                found.process.kill()
                found.process.wait()
            for reader, process in zip(found.readers, found.ended, strict=True):
                reader.join(BOUND)
                assert process.stderr is not None
                process.stderr.close()


def arrived(receiver: Receiver, count: int) -> None:
    """Wait until so many more requests came."""
    for _ in range(count):
        assert receiver.arrived.acquire(timeout=BOUND)


def test_a_change_reaches_both_kinds_of_receivers_signed(tmp_path: Path) -> None:
    """Within seconds, though polling alone would wait for the settle time; SIGTERM ends it well."""
    with running(tmp_path, "--resources", "customers", seed=2, customers=2) as it:
        it.start()
        it.synced()
        began = time.monotonic()
        id = it.box.create("customers", name="<script>alert(1)</script>", email="new@example.com")[
            "id"
        ]
        arrived(it.receiver, 2)
        seconds = time.monotonic() - began
        (standard,), (event,) = it.delivered("standard").values(), it.delivered("stripe").values()
        told = Webhook(SECRET).verify(standard.body, dict(standard.headers))
        assert (told["type"], told["data"]["id"]) == ("customer.created", id)
        again: Any = stripe.Webhook.construct_event(
            event.body, event.headers["stripe-signature"], SECRET
        )
        assert again.data.object["email"] == "new@example.com"
        assert again.id == it.box.events[-1].id
        assert [one["object_id"] for one in it.get("/changes?resource=customers")["data"]] == [id]
        assert seconds < 40  # of a settle time of 60: it did not wait for it
        assert it.stop() == 0


@pytest.mark.broad
def test_a_row_that_a_change_brings_into_a_model_reaches_its_receiver(tmp_path: Path) -> None:
    """Webhook, sync, models, evaluation, delivery, all in one process."""
    with running(tmp_path, "--models", rules=ON_MODEL, seed=2, customers=5) as it:
        it.start()
        it.synced()
        until = time.monotonic() + 2 * BOUND
        with FeedStore(tmp_path / "stripe_feed.feed.sqlite") as store:
            while "overdue" not in watched_rows(store):  # its silent beginning
                assert time.monotonic() < until
                it.get("/changes?wait=1")
        customer = next(iter(it.box.objects("customers")))
        owed = {"amount_due": 900, "amount_remaining": 900, "due_date": it.box.now - 3 * 86_400}
        id = it.box.create("invoices", customer=customer, status="open", **owed)["id"]
        arrived(it.receiver, 1)
        (message,) = it.delivered("overdue").values()
        told = json.loads(message.body)

        assert told["type"] == "overdue_invoices.entered"
        assert (told["data"]["invoice_id"], told["data"]["amount_remaining"]) == (id, 900)
        assert it.stop() == 0


def test_killed_again_and_again_it_loses_nothing(tmp_path: Path) -> None:
    """`kill -9` in the middle of readings and deliveries: every change arrives, under one id."""
    with running(tmp_path, seed=2, customers=5) as it:
        it.start()
        it.synced()
        made = []
        for n in range(4):
            for _ in range(3):
                made.append(it.box.create("customers")["id"])
            if n % 2:
                it.receiver.arrived.acquire(timeout=3)
            it.stop(signal.SIGKILL)
            it.start()
        it.box.drain_webhooks()
        while it.box.resend():
            it.box.drain_webhooks()
        until = time.monotonic() + BOUND
        for name in ("standard", "stripe"):
            while len(it.delivered(name)) < len(made) and time.monotonic() < until:
                it.receiver.arrived.acquire(timeout=1)
        for name in ("standard", "stripe"):
            found = [json.loads(one.body) for one in it.delivered(name).values()]
            ids = [
                one["data"]["id"] if name == "standard" else one["data"]["object"]["id"]
                for one in found
            ]
            assert sorted(ids) == sorted(made)


def test_rung_events_are_noted_as_read_once_they_are_in_the_feed(tmp_path: Path) -> None:
    """A run that fails is tried again with the same events; the reason shows in the health, without
    its words.
    """
    with FeedStore(tmp_path / "a.feed.sqlite") as store:
        webhook_inbox.record(store, "evt_1", 1.0, b"{}")
        state, runs = ServiceState(), list[list[str]]()

        def run(webhook_events: Any, polls: bool, wait: float, watch: Any) -> Synced:
            runs.append([one.event_id for one in webhook_events])
            if len(runs) == 1:
                state.woken.set()
                raise Unreachable("Stripe, of jane.canary@example.com, does not answer.")
            if webhook_events:
                state.stopped.set()
            unread = ("evt_1",) if len(runs) == 3 else ()
            return Synced(
                {},
                1,
                0.1,
                1,
                "acct_1",
                False,
                unread=unread,
                left_out={"plans": {"plan_1": "it is not of type plan"}},
            )

        feed = Feed(None, store)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(state.stopped, "wait", lambda seconds: None)
            patch.setattr("stripe_feed.server.service._wait", lambda *_: None)
            sync_loop(feed, state, 0, run, lambda: 2.0)
        assert [one.event_id for one in webhook_inbox.unread(store, 10)] == [
            "evt_1"
        ]  # the third could not read it yet
        state.stopped.clear()
        sync_loop(feed, state, 0, run, lambda: 2.0)
        assert (runs, webhook_inbox.unread(store, 10)) == (
            [["evt_1"], [], ["evt_1"], ["evt_1"]],
            [],
        )  # once without, after a fault
        assert state.health() == {
            "synced_at": 2.0,
            "error": None,
            "failures": 0,
            "delivery": None,
            "left_out": 1,
        }
        assert not state.keeps_bodies


def test_after_a_run_without_them_webhook_events_are_read_soon(tmp_path: Path) -> None:
    """Though nothing rings any more; ever more rarely where they fail the run each time."""
    with FeedStore(tmp_path / "a.feed.sqlite") as store, pytest.MonkeyPatch.context() as patch:
        webhook_inbox.record(store, "evt_1", 1.0)
        state, rests = ServiceState(), list[float]()

        def run(webhook_events: Any, **_: Any) -> Synced:
            if webhook_events and len(rests) < 6:
                raise Unreachable("Stripe does not answer.")
            return Synced({}, 1, 0.1, 1, "acct_1", False)

        def rest(state: ServiceState, every: float, more: bool) -> None:
            rests.append(0.0 if state.failures else every)
            if len(rests) == 7:
                state.stopped.set()

        patch.setattr("stripe_feed.server.service._wait", rest)
        sync_loop(Feed(None, store), state, 0, run, lambda: 2.0)
        assert (rests, webhook_inbox.unread(store, 1)) == ([0.0, 2.0, 0.0, 4.0, 0.0, 8.0, 0.0], [])


def test_what_is_left_out_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Until it is taken; a reading of webhooks does not try it again."""
    state, odd = ServiceState(), {"plans": {"plan_1": "it is not of type plan"}}
    for found, polls, count in (
        (odd, True, 1),
        (odd, True, 1),
        ({}, False, 1),
        ({"prices": {"price_1": "x"}}, False, 2),
        ({}, True, 0),
    ):
        state.leave_out(found, polls)
        assert state.health()["left_out"] == count
    assert caplog.messages == [
        "Left out of plans: plan_1 (it is not of type plan). The next run tries again.",
        "Left out of prices: price_1 (x). The next run tries again.",
    ]


def test_rings_have_only_their_events_read_until_it_is_time_for_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that cannot be read is tried again, and given up with one line."""
    with FeedStore(tmp_path / "a.feed.sqlite") as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(webhook_inbox, "MAX_TRIES", 2)
        state, runs, time = (
            ServiceState(keeps_bodies=False),
            list[tuple[list[str], bool, bool]](),
            [0.0],
        )

        def run(webhook_events: Any, polls: bool, wait: float, watch: Any) -> Synced:
            runs.append(
                (
                    [one.event_id for one in webhook_events],
                    polls,
                    any(one.by_id for one in webhook_events),
                )
            )
            return Synced(
                {},
                1,
                0.1,
                1,
                "acct_1",
                False,
                failed={"evt_odd": "NotFound"} if "evt_odd" in runs[-1][0] else {},
            )

        def rest(state: ServiceState, every: float, more: bool) -> None:
            if len(runs) == 1:
                webhook_inbox.record(store, "evt_odd", 1.0)
                webhook_inbox.record(store, "evt_1", 1.0)
            time[0] += {1: 1.0, 2: every, 3: 1.0}.get(len(runs), 300.0)
            if len(runs) == 5:
                state.stopped.set()
            elif len(runs) > 2:
                webhook_inbox.record(store, f"evt_{len(runs)}", 1.0)

        patch.setattr("stripe_feed.server.service._wait", rest)
        sync_loop(Feed(None, store), state, 300.0, run, lambda: time[0], lambda: time[0])
        assert runs == [
            ([], True, False),
            (["evt_1", "evt_odd"], False, False),
            (["evt_odd"], False, True),
            (["evt_3"], False, False),
            (["evt_4"], True, False),
        ]
        assert [record.getMessage() for record in caplog.records] == [
            "1 event announced by webhooks could not be read in 2 tries: given up (evt_odd: NotFound). Polling catches the rest."
        ]


@pytest.mark.parametrize(
    ("token", "host", "words"),
    [("short", "127.0.0.1", "STRIPE_FEED_TOKEN"), ("", "192.0.2.1", "Choose another --host")],
)
def test_what_cannot_be_served_is_said_in_a_line(token: str, host: str, words: str) -> None:
    done = served("--host", host, STRIPE_FEED_TOKEN=token)
    assert done.exit_code == (2 if token else 3)
    assert words in done.stderr and len(done.stderr.splitlines()) == 1


def served(*arguments: str, **environment: str) -> Any:
    """How `stripe-feed serve` ends in this process, where it cannot begin."""
    return CliRunner().invoke(
        main.app, ["serve", *arguments], env={"STRIPE_SECRET_KEY": "sk_test_x", **environment}
    )


def test_without_a_token_it_makes_one_and_shows_it_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    announce(Listening("http://127.0.0.1:1", tmp_path / "a.feed.token", "0" * 48), True)
    assert f"http://127.0.0.1:1/?token={'0' * 48} (kept in a.feed.token" in capsys.readouterr().err
    announce(Listening("http://0.0.0.0:1", tmp_path / "a.feed.token", None), False)
    said = capsys.readouterr().err
    assert str(tmp_path / "a.feed.token") in said and "0" * 48 not in said


def test_models_are_built_after_loads_and_every_hour_and_fail_no_sync(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    packages, time_, built = [1], [0.0], list[str]()
    results = [ModelResult("months", "table", "built")]

    def run(**_: Any) -> Synced:
        return Synced({}, 1, 0.1, packages[0], "acct_1", False)

    def build(**given: Any) -> list[ModelResult]:
        built.append(given["database"])
        if isinstance(results[0], ModelResult):
            return results
        raise SetupError("Another process loads.")

    with FeedStore(tmp_path / "a.feed.sqlite") as store:
        places = {"database": "a.duckdb"}
        once = sync_and_build(Feed(None, store), places, run, build, lambda: time_[0])

        def builds(loaded: int, after: float) -> int:
            packages[0], time_[0], before = loaded, time_[0] + after, len(built)
            assert once().packages == loaded
            return len(built) - before

        assert [builds(0, 0), builds(0, 60), builds(1, 0), builds(0, 3_599)] == [1, 0, 1, 0]
        assert [builds(0, 1), builds(0, 1)] == [1, 0]
        assert store.counter("models_built") == 3
        results[:] = [ModelResult("months", "table", "failed", "no space")]
        assert [builds(1, 0), builds(1, 0)] == [1, 1]
        results[:] = [None]  # type: ignore[list-item]
        assert [builds(1, 0), builds(1, 0)] == [1, 1]
    assert caplog.messages == [
        "Models are not built: months: no space", "Models are not built: Another process loads.",
    ]  # fmt: skip


def test_a_long_outage_ends_no_thread(tmp_path: Path) -> None:
    with FeedStore(tmp_path / "a.feed.sqlite") as store:
        state = ServiceState(failures=5_000)

        def run(**_: Any) -> Synced:
            state.stopped.set()
            raise ZeroDivisionError("jane.canary@example.com")

        state.stopped.set()
        state.stopped.clear()
        threading.Timer(0.1, state.stop).start()
        sync_loop(Feed(None, store), state, 0, run)


def test_delivery_goes_on_after_a_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its class shows in the health, its words nowhere."""
    state, runs = ServiceState(), list[int]()

    class Stumbling:
        def follow(self, stop: threading.Event, tick: Any) -> None:
            runs.append(1)
            if len(runs) == 2:
                state.stopped.set()
                return
            raise sqlite3.OperationalError("jane.canary@example.com")

    stumbling: Any = Stumbling()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state.stopped, "wait", lambda seconds: None)
        run_worker(stumbling, lambda: None, state)
    assert (len(runs), state.health()["error"]) == (2, "OperationalError")
    assert "canary" not in caplog.text


def test_a_busy_port_is_said_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = served("--port", str(taken.getsockname()[1]))
    assert (done.exit_code, len(done.stderr.splitlines())) == (3, 1)
    assert "Choose another --host or --port." in done.stderr


def test_it_ends_in_the_middle_of_a_backfill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What SIGTERM sets ends it while Stripe does not answer."""
    box, stopped, asked = Sandbox(seed=2, customers=5), threading.Event(), threading.Event()
    box.on_request = lambda template, _: asked.set() if template != "/v1/account" else None
    box.faults.latency = 0.2
    database = str(tmp_path / "a.duckdb")
    with box.serve() as url:
        monkeypatch.setenv("STRIPE_API_BASE", url)
        service = threading.Thread(
            target=run_service,
            kwargs={
                "host": "127.0.0.1", "port": 0, "token": TOKEN, "secrets": (), "every": 300.0,
                "rules": ConfigWatcher([], tmp_path / "triggers.toml"), "stopped": stopped,
                "ready": lambda _: None, "places": {"database": database}, "api_key": box.key,
            },
        )  # fmt: skip
        service.start()
        assert asked.wait(BOUND)
        stopped.set()
        service.join(BOUND)
        assert not service.is_alive()


def test_sigterm_ends_it_in_the_middle_of_a_backfill(tmp_path: Path) -> None:
    with running(tmp_path, seed=2, customers=300) as it:
        it.box.faults.latency = 0.5
        it.start()
        it.get("/health")
        began = time.monotonic()
        assert it.stop() == 0
        assert time.monotonic() - began < 25
