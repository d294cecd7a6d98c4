"""A push that changes its state tells so once, through the feed and its triggers, whatever is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stripe_feed.delivery.endpoint_config import ConfigError
from stripe_feed.feed.net import net_changes
from stripe_feed.feed.storage import push_states
from stripe_feed.feed.storage.maintenance import rebuild
from stripe_feed.feed.storage.push_states import last_runs, note_runs
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.triggers.config import check_triggers, parse_trigger
from stripe_feed.write.push.log import PushLog
from tests.commands import Shell
from tests.deliveries import packed
from tests.feed_kills import Plain, a_change
from tests.pushing import FILE, killed_at, note_end, people, push_shell

TRIGGERS = """
[[trigger]]
name = "push-alerts"
resource = "pushes"
deliver = { file = "alerts.jsonl" }
"""


class Times:
    """A clock that goes on by a minute."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        self.now += 60
        return self.now


@pytest.fixture
def log() -> Iterator[PushLog]:
    with PushLog("push.sqlite", Times()) as opened:
        opened.stamp("acct_1", False)
        yield opened


@pytest.fixture
def store() -> Iterator[FeedStore]:
    with FeedStore("feed.sqlite") as opened:
        yield opened


def told(store: FeedStore) -> list[str]:
    """The changes of state that the feed has."""
    return [str(one.event_type) for one in store.newest(100, ["pushes"])]


ENDS = ("healthy", "warning", "warning", "killed", "warning", "healthy", "healthy", "failed", "failed",
        "warning", "killed", "healthy", "failed", "healthy", "warning")  # fmt: skip
TOLD = ["push.warning", "push.recovered", "push.failed", "push.warning", "push.recovered", "push.failed",
        "push.recovered", "push.warning"]  # fmt: skip


@pytest.mark.parametrize("every", [1, 4, len(ENDS)])
def test_each_change_of_state_is_told_once(log: PushLog, store: FeedStore, every: int) -> None:
    for n, end in enumerate(ENDS, 1):
        note_end(log, end)
        if n % every == 0 or n == len(ENDS):
            note_runs(store, log)
            assert note_runs(store, log) == 0
    assert told(store) == TOLD
    (last,) = last_runs(store)
    assert (last.push, last.state, last.run, last.counts["rejected"]) == ("crm", "warning", 15, 1)


def test_an_older_copy_of_the_log_tells_what_follows(log: PushLog, store: FeedStore) -> None:
    for end in ("healthy", "failed", "healthy"):
        note_end(log, end)
    note_runs(store, log)
    log.query("delete from runs where run > 1")  # a backup, in its place
    note_end(log, "failed")
    assert note_runs(store, log) == 1
    assert note_runs(store, log) == 0
    assert told(store) == ["push.failed", "push.recovered", "push.failed"]


def test_a_retry_ends_a_warning_but_no_error(log: PushLog, store: FeedStore) -> None:
    for end in ("warning", "retried", "failed", "retried", "healthy"):
        note_end(log, end)
    note_runs(store, log)
    assert told(store) == ["push.warning", "push.recovered", "push.failed", "push.recovered"]


def test_pushes_have_states_of_their_own(log: PushLog, store: FeedStore) -> None:
    for push, end in (("crm", "failed"), ("erp", "healthy"), ("erp", "failed"), ("crm", "failed")):
        note_end(log, end, push)
        note_runs(store, log)
    changes = store.newest(10, ["pushes"])
    assert [(one.object_id, one.object_version) for one in changes] == [("crm", 1), ("erp", 1)]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("place", ["_note", "append"])
def test_a_kill_on_the_way_loses_and_doubles_nothing(
    log: PushLog, store: FeedStore, monkeypatch: pytest.MonkeyPatch, place: str, when: str
) -> None:
    note_end(log, "failed")
    where = push_states if place == "_note" else FeedStore
    with killed_at(monkeypatch, where, place, when):
        note_runs(store, log)
    assert told(store) == []
    note_end(log, "failed")
    note_runs(store, log)
    note_end(log, "healthy")
    note_runs(store, log)
    assert told(store) == ["push.failed", "push.recovered"]


def test_a_change_says_what_happened_and_holds_no_key_of_a_row(
    log: PushLog, store: FeedStore
) -> None:
    note_end(log, "healthy")
    note_end(log, "warning")
    note_runs(store, log)
    (change,) = store.newest(10, ["pushes"])
    assert (change.op, change.account_id, change.livemode) == ("u", "acct_1", False)
    assert change.before is not None and change.before["state"] == "healthy"
    assert change.after == {
        "id": "crm",
        "object": "push",
        "state": "warning",
        "run": 2,
        "run_id": f"{log.log_id}-2",
        "pushes_to": "customers",
        "mode": "upsert",
        "started_at": change.after and change.after["started_at"],
        "ended_at": int(change.occurred_at.timestamp()),
        "counts": {"created": 2, "rejected": 1},
        "error": None,
        "reasons": [{"reason": "name is too long.", "rows": 1}],
    }
    assert "canary" not in json.dumps(change.as_dict())


def test_only_who_names_pushes_gets_them(log: PushLog, store: FeedStore) -> None:
    store.append([packed(a_change(1))])
    note_end(log, "failed")
    note_runs(store, log)
    assert store.head == 2

    def resources(names: Sequence[str]) -> list[str]:
        found = [one.resource for one in store.page(0, 10, names).changes]
        assert found == [one.resource for one in net_changes(store, 0, 2, names)]
        assert found == [one.resource for one in store.newest(10, names)]
        return found

    assert resources(()) == ["subscriptions"]
    assert resources(["pushes"]) == ["pushes"]
    assert resources(["pushes", "subscriptions"]) == ["subscriptions", "pushes"]


def test_a_rebuild_keeps_them(log: PushLog, store: FeedStore) -> None:
    client = Plain()
    client.put("load_1", a_change(1), a_change(2))
    client.complete("load_1")
    store.append([packed(a_change(1))], ["load_1"])
    note_end(log, "failed")
    note_runs(store, log)
    assert rebuild(store, client) == 3
    assert [one.resource for one in (store.at(n) for n in (1, 2, 3)) if one] == [
        "subscriptions", "subscriptions", "pushes",
    ]  # fmt: skip
    note_end(log, "failed")
    assert (note_runs(store, log), told(store)) == (0, ["push.failed"])


def test_a_log_of_another_account_tells_nothing(log: PushLog, store: FeedStore) -> None:
    store.append([packed(a_change(1, account_id="acct_2", livemode=False))])
    note_end(log, "failed")
    assert (note_runs(store, log), last_runs(store)) == (0, [])


def test_a_trigger_names_what_it_waits_for(tmp_path: Path) -> None:
    deliver = {"file": "x.jsonl"}
    rule = {"name": "a", "resource": "pushes", "deliver": deliver}
    assert parse_trigger({**rule, "event": ["push.failed", "push.recovered"]}).event
    with pytest.raises(ConfigError, match="no change comes of the event"):
        parse_trigger({"name": "a", "event": "push.failed", "deliver": deliver})
    with pytest.raises(ConfigError, match="no change comes of the event"):
        parse_trigger({**rule, "event": "invoice.paid"})
    file = tmp_path / "triggers.toml"
    file.write_text(
        TRIGGERS + 'transition = { state = { to = "failed" } }\nwhere = "after.run > 1"\n'
    )
    assert (check_triggers(file).errors, check_triggers(file).warnings) == ([], [])
    file.write_text(TRIGGERS + 'transition = { status = { to = "failed" } }\n')
    (warning,) = check_triggers(file).warnings
    assert "pushes has no documented field 'status'; did you mean 'state'?" in warning


BY_MAIL_AND_PAGER = """
[[trigger]]
name = "mail"
resource = "pushes"
deliver = { command = "PATH=.:$PATH mail -s 'A push' ops@example.com", template = "{after.id} is {after.state}. {after.error}" }

[[trigger]]
name = "pager"
resource = "pushes"
transition = { state = { to = ["warning", "failed"] } }

[trigger.deliver]
file = "pager.jsonl"
template = { routing_key = "R1", event_action = "trigger", dedup_key = "{after.id}", payload = { summary = "The push {after.id} is {after.state}", source = "stripe-feed", severity = "error" } }

[[trigger]]
name = "pager-done"
resource = "pushes"
transition = { state = { to = "recovered" } }
deliver = { file = "pager.jsonl", template = { routing_key = "R1", event_action = "resolve", dedup_key = "{after.id}" } }
"""


def alerts() -> list[str]:
    lines = Path("alerts.jsonl").read_text().splitlines() if Path("alerts.jsonl").exists() else []
    assert not [line for line in lines if "canary" in line.lower()]
    return [json.loads(line)["type"] for line in lines]


@pytest.mark.checklist("H17 H18")
def test_two_failing_runs_alert_once_and_recovery_once(tmp_path: Path) -> None:
    with push_shell(tmp_path) as shell:
        Path("mail").write_text('#!/bin/sh\necho "$@" >> mails\ncat >> mails\n')
        Path("mail").chmod(0o755)
        Path("triggers.toml").write_text(TRIGGERS + BY_MAIL_AND_PAGER)
        deliver(shell)
        for expected in (["push.warning"], ["push.warning"]):
            assert shell.run("push", "run").code == 4
            deliver(shell)
            assert alerts() == expected
        Path("pushes.toml").write_text(FILE.replace("from people", "from nowhere"))
        shell.run("push", "run")
        people(tmp_path, Ann="Ann Canary", Bob="Bob Canary")
        Path("pushes.toml").write_text(FILE)
        assert shell.run("push", "run").code == 0
        deliver(shell)
        assert alerts() == ["push.warning", "push.failed", "push.recovered"]
    mails = Path("mails").read_text().splitlines()
    assert mails[:2] == ["-s A push ops@example.com", '"crm is warning. "']
    assert len(mails) == 6
    events = [json.loads(line) for line in Path("pager.jsonl").read_text().splitlines()]
    assert sorted((one["event_action"], one["dedup_key"]) for one in events) == [
        ("resolve", "crm"), ("trigger", "crm"), ("trigger", "crm"),
    ]  # fmt: skip


def test_sync_tells_what_a_kill_kept_from_being_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with push_shell(tmp_path) as shell:
        Path("triggers.toml").write_text(TRIGGERS)
        deliver(shell)
        with killed_at(monkeypatch, push_states, "_note", "before"):
            shell.run("push", "run")
        assert shell.sync("--resources", "products").code == 0
        deliver(shell)
        assert alerts() == ["push.warning"]


def deliver(shell: Shell) -> None:
    said = shell.run("deliver", "--once")
    assert said.code == 0, said.err
