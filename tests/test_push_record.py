"""What pushes did, in the destination: each run once, whatever was killed, and no personal data."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import closing, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest

from stripe_feed.destination.locks import lock_file
from stripe_feed.sandbox import Sandbox
from stripe_feed.write.push.history import load
from stripe_feed.write.push.log import PushLog
from tests.commands import Shell
from tests.postgres import postgres_server
from tests.pushing import CARD, FILE, killed_at, people, push_shell

FAILED_AT = "some time"


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with push_shell(tmp_path) as shell:
        yield shell


def held(folder: Path, sql: str) -> list[Any]:
    with duckdb.connect(str(folder / "stripe_feed.duckdb"), read_only=True) as db:
        db.execute("set timezone = 'UTC'")
        return db.execute(sql).fetchall()


TABLES = ("push_operations", "push_rejected", "push_runs")


def tables(folder: Path) -> dict[str, list[Any]]:
    return {name: held(folder, f"select * from stripe.{name} order by 1, 2") for name in TABLES}


def counts(folder: Path) -> list[int]:
    return [len(rows) for rows in tables(folder).values()]


@pytest.mark.checklist("H16 N32")
def test_a_run_is_in_the_destination_without_personal_data(shell: Shell) -> None:
    said = shell.run("push", "run")
    assert (said.code, counts(shell.folder)) == (4, [1, 1, 1])
    assert held(shell.folder, "select run, state, created, rejected, error from stripe.push_runs") == [
        (1, "warning", 1, 1, None)
    ]  # fmt: skip
    ((made, key, verb, status, request, reason, seconds),) = held(
        shell.folder,
        "select object_id, row_key, verb, status, request_id, reason, seconds from stripe.push_operations",
    )
    assert (verb, status, reason) == ("create", "done", None)
    assert (made[:4], request[:4], seconds > 0) == ("cus_", "req_", True)
    assert key == sha256(b"ann.canary@example.com").hexdigest()
    rejected = held(
        shell.folder,
        "select r.status, r.reason, r.next_step from stripe.push_rejected r join stripe.people p "
        "on sha256(p.email) = r.row_key join stripe.push_runs using (run_id)",
    )
    assert rejected == [
        (
            "rejected",
            "name holds what looks like a card number, which must never be stored there. Remove it.",
            "Mend the row or what it names, then `stripe-feed push retry crm`.",
        )
    ]
    text = repr(tables(shell.folder)).lower()
    assert not [word for word in ("canary", CARD, "555 1234") if word in text]
    uncommented = "select column_name from duckdb_columns() where table_name like 'push_%' and comment is null"
    assert held(shell.folder, uncommented) == []


@pytest.mark.parametrize("part", range(3), ids=TABLES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_while_runs_are_loaded_doubles_and_loses_nothing(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, part: int, when: str
) -> None:
    with killed_at(monkeypatch, load, "_replace", when, part):
        shell.run("push", "run")
    people(shell.folder, Ann="Ann Canary", Bob="Bob Canary")
    assert shell.run("push", "run").code == 0
    assert counts(shell.folder) == [2, 1, 2]
    assert load.record_runs(Path("stripe_feed.push.sqlite")) == 0
    states = held(shell.folder, "select state from stripe.push_runs order by run")
    assert states == [("warning",), ("recovered",)]


def test_the_runs_come_last(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A destination without transactions keeps what was loaded before a kill."""
    monkeypatch.setattr(load, "_transaction", lambda client: nullcontext())
    with killed_at(monkeypatch, load, "_replace", "after", 1):
        shell.run("push", "run")
    assert counts(shell.folder) == [1, 1, 0]
    assert load.record_runs(Path("stripe_feed.push.sqlite")) == 1
    assert counts(shell.folder) == [1, 1, 1]


def test_a_run_that_was_killed_is_interrupted_and_its_requests_belong_to_the_next(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_at(monkeypatch, PushLog, "mark_done", "before"):
        shell.run("push", "run")
    assert load.record_runs(Path("stripe_feed.push.sqlite")) == 1
    status = (
        "select state, status, run from stripe.push_operations join stripe.push_runs using (run_id)"
    )
    assert held(shell.folder, status) == [("interrupted", "sent", 1)]
    assert shell.run("push", "run").code == 4
    assert held(shell.folder, status) == [("warning", "done", 2)]
    assert counts(shell.folder) == [1, 2, 2]


def test_a_copy_that_is_busy_does_not_fail_a_push(shell: Shell, hurried: None) -> None:
    with lock_file(shell.folder / "stripe_feed.sync.lock", "stripe-feed sync"):
        said = shell.run("push", "run")
    assert said.code == 4
    (line,) = [line for line in said.err.splitlines() if line.startswith("warning")]
    assert "the next run does it: `stripe-feed sync`" in line and "canary" not in line
    shell.run("push", "run")
    assert counts(shell.folder) == [1, 2, 2]


def test_another_tools_table_stays_as_it_is(shell: Shell) -> None:
    with duckdb.connect("stripe_feed.duckdb") as db:
        db.execute("create table stripe.push_runs (id int)")
    said = shell.run("push", "run")
    assert (said.code, "in the way: stripe.push_runs" in said.err) == (4, True)
    assert held(shell.folder, "select * from stripe.push_runs") == []


def test_a_table_that_was_dropped_is_filled_again(shell: Shell) -> None:
    shell.run("push", "run")
    with duckdb.connect("stripe_feed.duckdb") as db:
        db.execute("drop table stripe.push_runs")
    shell.run("push", "run")
    assert counts(shell.folder) == [1, 2, 2]
    rename = "update stripe.push_runs set started_at = started_at - interval 1 hour where run = 2"
    with duckdb.connect("stripe_feed.duckdb") as db:
        db.execute(rename)  # as if the log were a backup that counts from 2 again
    assert load.record_runs(Path("stripe_feed.push.sqlite")) == 1
    assert load.record_runs(Path("stripe_feed.push.sqlite")) == 0
    assert held(shell.folder, "select run, count(distinct run_id) from stripe.push_runs group by 1 order by 1") == [(1, 1), (2, 2)]  # fmt: skip


def test_a_run_that_cannot_begin_is_on_record_without_the_database_s_words(shell: Shell) -> None:
    shell.run("push", "run")
    Path("pushes.toml").write_text(FILE.replace("select email", "select name::int, email"))
    said = shell.run("push", "run")
    assert (said.code, "Ann Canary" in said.err) == (2, True)
    runs = held(
        shell.folder, "select state, error, ended_at is null from stripe.push_runs order by run"
    )
    words = "The rows cannot be read. `stripe-feed push plan` says why."
    assert runs == [("warning", None, False), ("failed", words, False)]
    shown = shell.run("push", "show").out
    assert "failed" in shown and words in shown


def test_a_run_that_stripe_or_a_defect_stops_is_on_record(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("jane.canary@example.com")

    shell.run("push", "run", STRIPE_SECRET_KEY="sk_test_of_nobody")
    with monkeypatch.context() as patch:
        patch.setattr(PushLog, "begin", fails)
        shell.run("push", "run")
    shell.run("push", "run")
    runs = held(shell.folder, "select state, error from stripe.push_runs order by run")
    assert [state for state, _ in runs] == ["failed", "failed", "warning"]
    assert ("nobody" in runs[0][1], runs[1][1]) == (False, "unexpected ValueError")
    assert runs[0][1].startswith("Stripe says this key is not valid")


def test_sync_catches_up(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with killed_at(monkeypatch, load, "_load", "before"):
        shell.run("push", "run")
    assert shell.sync("--resources", "customers").code == 0
    assert counts(shell.folder) == [1, 1, 1]


def test_a_full_refresh_keeps_the_tables_and_other_commands_know_them(shell: Shell) -> None:
    shell.run("push", "run")
    assert shell.sync("--full-refresh").code == 0
    assert counts(shell.folder) == [1, 1, 1]
    status = json.loads(shell.run("status", "--json").out)
    assert {one["table"]: one["rows"] for one in status["tables"]}.items() >= dict.fromkeys(
        TABLES, 1
    ).items()
    preview = json.loads(shell.run("preview", "push_rejected", "--json").out)
    assert preview["status"] == "rejected"
    said = shell.run("verify", "--max-rps", 2000)
    assert said.code == 0, said.err
    findings = map(json.loads, shell.run("doctor", "--json").out.splitlines())
    assert {one["check"]: one["ok"] for one in findings}["destination"]


def test_a_copy_of_another_account_gets_no_runs(shell: Shell) -> None:
    assert shell.sync("--resources", "customers").code == 0
    other = Sandbox(seed=6, customers=2)
    with other.serve() as url:
        shell.url, shell.key = url, other.key
        said = shell.run("push", "run")
        assert (said.code, "another account or mode" in said.err) == (4, True)
    assert "push_runs" not in {
        name for (name,) in held(shell.folder, "select table_name from duckdb_tables()")
    }


@pytest.mark.checklist("H16")
def test_rejected_rows_as_csv_and_only_they_are_retried(shell: Shell) -> None:
    shell.run("push", "run")
    wanted = {
        "push": "crm", "run": "1", "key": "bob.canary@example.com", "status": "rejected",
        "object_id": "", "request_id": "", "failed_at": FAILED_AT,
        "reason": "name holds what looks like a card number, which must never be stored there. Remove it.",
        "next_step": "Mend the row or what it names, then `stripe-feed push retry crm`.",
    }  # fmt: skip
    for arguments in (("1",), ("--run", "1"), ("crm",), ()):
        said = shell.run("push", "show", *arguments, "--rejected", "--csv")
        (row,) = csv.DictReader(io.StringIO(said.out))
        assert {**row, "failed_at": FAILED_AT} == wanted
    (line,) = shell.run("push", "show", "1", "--rejected", "--json").out.splitlines()
    assert json.loads(line)["key"] == wanted["key"]

    people(shell.folder, Ann="Ann Changed", Bob="Bob Canary")
    said = shell.run("push", "retry", "--json")
    assert {**json.loads(said.out)["counts"]}.items() >= {"created": 1, "updated": 0}.items()
    names = {one.get("name") for one in shell.box.objects("customers").values()}
    assert {"Ann Canary", "Bob Canary"} <= names and "Ann Changed" not in names
    said = shell.run("push", "show", "--rejected")
    assert (said.out, "No row failed." in said.err) == ("", True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("9", "--rejected"), "There is no run 9"), (("--csv",), "--csv goes with --rejected.")],
)
def test_what_cannot_be_shown_is_reported(
    shell: Shell, arguments: tuple[str, ...], says: str
) -> None:
    shell.run("push", "run")
    said = shell.run("push", "show", *arguments)
    assert (said.code, says in said.err) == (2, True), said.err


def test_a_lake_gets_no_tables_and_is_promised_none(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(load, "SqlJobClientBase", PushLog)  # which no client of a destination is
    said = shell.run("push", "run")
    assert "the next run does it" not in said.err + caplog.text
    with duckdb.connect(str(shell.folder / "stripe_feed.duckdb"), read_only=True) as db:
        names = {name for (name,) in db.execute("select table_name from information_schema.tables").fetchall()}  # fmt: skip
    assert not names & {*TABLES}


def test_postgres_has_the_runs_once_and_is_left_alone_where_it_is_read_only(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shell.run("push", "run")
    path = Path("stripe_feed.push.sqlite")
    with postgres_server() as url, closing(psycopg2.connect(url)) as db:
        db.autocommit = True
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", url)
        with db.cursor() as cursor:
            cursor.execute("alter role postgres set default_transaction_read_only = on")
            assert load.record_runs(path, destination="postgres") == 0
            assert "the next run does it" in caplog.text
            cursor.execute("set default_transaction_read_only = off")
            cursor.execute("alter role postgres reset default_transaction_read_only")
            with killed_at(monkeypatch, load, "_replace", "after", 2):
                load.record_runs(path, destination="postgres")
            assert load.record_runs(path, destination="postgres") == 1
            assert load.record_runs(path, destination="postgres") == 0
            for name in TABLES:
                cursor.execute(f"select count(*) from stripe.{name}")
                assert cursor.fetchone() == (1,)
            cursor.execute("select started_at, ended_at, livemode from stripe.push_runs")
            assert cursor.fetchone() == held(shell.folder, "select started_at, ended_at, livemode from stripe.push_runs")[0]  # fmt: skip
            cursor.execute("select count(*) from pg_attribute a join pg_class c on c.oid = a.attrelid where c.relname in %s and a.attnum > 0 and col_description(c.oid, a.attnum) is null", (TABLES,))  # fmt: skip
            assert cursor.fetchone() == (0,)
