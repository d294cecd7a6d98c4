"""The scripts that users copy, each run as it stands in an empty folder."""

from __future__ import annotations

import base64
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from stripe_feed import open_feed
from stripe_feed.delivery.outbox import release
from stripe_feed.destination.pipeline import lock_copy, open_pipeline
from stripe_feed.extract.options import SETTLE
from stripe_feed.sandbox import Sandbox
from tests.commands import FILE, Said, Shell, ended, loaded, shell_of
from tests.copies import PERMISSIONS, held_open
from tests.receiver import Behaviour, receiving
from tests.test_schedulers import SCHEDULED

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes 123").decode()
A_WHILE = 3600  # seconds; what is read while it changes does not tell what was before
BUSY = Behaviour(
    503, headers={"Retry-After": "3600"}
)  # or a slow machine tries again within one test
PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"


def start(shell: Shell, script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PIPELINES / script), *arguments],
        cwd=shell.folder,
        env={
            **os.environ,
            **{name: value for name, value in shell.environment.items() if value is not None},
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def nightly(shell: Shell) -> Any:
    """The pipeline of the shell's default database."""
    return open_pipeline(
        str(shell.folder / "stripe_feed.duckdb"), state_dir=f"{shell.env['DLT_DATA_DIR']}/pipelines"
    )


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A folder without a copy."""
    with shell_of(Sandbox(seed=5, customers=5), tmp_path) as found:
        found.env["DLT_DATA_DIR"] = str(tmp_path.with_name(f"{tmp_path.name}-dlt"))
        yield found


Here = Callable[..., Said]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """One run of a script in this process, without the imports of a new one."""

    def run(shell: Shell, script: str, *arguments: str) -> Said:
        with monkeypatch.context() as patch:
            for name, value in shell.environment.items():
                patch.setenv(name, str(value))
            patch.chdir(shell.folder)
            patch.setattr(sys, "argv", [script, *arguments])
            with held_open(shell.folder / FILE):
                try:
                    runpy.run_path(str(PIPELINES / script), run_name="__main__")
                    code: Any = 0
                except SystemExit as end:
                    code = end.code
        return Said(code or 0, *capsys.readouterr())

    return run


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What a scheduled run logs, without the time."""
    return [
        f"{record.levelname} {record.getMessage()}"
        for record in caplog.records
        if record.name == "scheduled" or record.levelname == "WARNING"
    ]


def test_scripts_are_short_and_all_are_tested() -> None:
    lines = {
        path.name: len(path.read_text(encoding="utf-8").splitlines())
        for path in PIPELINES.glob("*.py")
    }

    assert set(lines) == {
        "scheduled.py",
        "stripe_to_duckdb.py",
        "watch_subscriptions.py",
        "welcome_message.py",
        "write_back.py",
        *(f"{name}.py" for name in SCHEDULED),  # see test_schedulers.py
    }
    assert lines["stripe_to_duckdb.py"] < 20 and max(lines.values()) <= 60


@pytest.mark.checklist("N24")
def test_the_shortest_script_loads_the_account_and_shows_its_tables(
    shell: Shell, here: Here
) -> None:
    said = here(shell, "stripe_to_duckdb.py")

    assert (said.code, said.err) == (0, "")
    printed = {
        name: int(rows.replace(",", ""))
        for name, rows in (line.split() for line in said.out.splitlines())
    }
    assert printed == shell.rows() | {"changes": 0}
    for table in (
        "customers",
        "products",
        "subscription_items",
        "invoice_line_items",
    ):  # of prices, some are hidden
        assert printed[table] == shell.truth()[table]
    assert [path.name for path in shell.folder.iterdir()] == ["stripe_feed.duckdb"]


def test_a_scheduled_run_logs_one_line(
    shell: Shell, here: Here, caplog: pytest.LogCaptureFixture
) -> None:
    said = here(shell, "scheduled.py")
    (line,) = lines_of(caplog)

    assert (said.code, said.out) == (0, "")
    assert (
        line.startswith(f"INFO {shell.box.account_id}: ")
        and f" {shell.truth()['customers']} customers, " in line
    )
    assert re.search(r"; \d+ requests, \d+\.\d s$", line)
    assert shell.rows()["customers"] == shell.truth()["customers"]


def test_a_wrong_key_is_exit_code_3(shell: Shell) -> None:
    shell.key = "sk_test_canary"
    said = play(shell, "scheduled.py")
    (line,) = [re.sub(r"^\S+ \S+ ", "", line) for line in said.err.splitlines()]

    assert (said.code, said.out, shell.rows()) == (3, "", {})
    assert line.startswith("ERROR Stripe says this key is not valid (401, ")
    assert "canary" not in said.err


def test_a_missing_permission_is_exit_code_4(
    shell: Shell, here: Here, caplog: pytest.LogCaptureFixture
) -> None:
    shell.key = shell.box.restrict(permissions=PERMISSIONS - {"rak_invoice_read"})
    said = here(shell, "scheduled.py", "--database", "mine.duckdb")
    warning, line = lines_of(caplog)

    assert said.code == 4
    assert warning.startswith("WARNING invoices is left out: ") and "rak_invoice_read" in warning
    assert line.startswith(f"INFO {shell.box.account_id}: ")
    rows = shell.rows("mine.duckdb")
    assert "invoices" not in rows and rows["customers"] == shell.truth()["customers"]


def test_a_run_that_does_not_get_its_turn_is_exit_code_3_and_names_the_holder(
    shell: Shell, here: Here, caplog: pytest.LogCaptureFixture
) -> None:
    with lock_copy(nightly(shell), "the nightly run"):
        said = here(shell, "scheduled.py", "--wait", "0.1")
    *_, line = lines_of(caplog)

    assert (said.code, said.out, shell.rows()) == (3, "", {})
    assert line.startswith(
        f"ERROR `the nightly run` (process {os.getpid()}) is writing to this copy."
    )


def test_a_play_handles_each_change_once(tmp_path: Path, here: Here) -> None:
    """Nothing of the first load, what happened before the second run then, and nothing of it a
    third time.
    """
    script = "watch_subscriptions.py"
    box = Sandbox(seed=5, customers=2, subscriptions=12, oddities=False)
    active = sorted(
        id for id, found in loaded(box, "subscriptions").items() if found["status"] == "active"
    )
    late, ended, renamed, kept = active[:4]
    with shell_of(box, tmp_path) as shell, held_open(shell.folder / FILE):
        shell.env["DLT_DATA_DIR"] = str(tmp_path / "home")
        first = here(shell, script)
        box.advance(A_WHILE)
        box.update("subscriptions", late, status="past_due")
        box.cancel(ended)
        box.update("subscriptions", renamed, metadata={"plan": "pro"})
        box.advance(2 * SETTLE)
        second = here(shell, script)
        third = here(shell, script)
        box.update("subscriptions", late, status="active")
        box.update("subscriptions", kept, status="past_due")
        box.advance(2 * SETTLE)
        fourth = here(shell, script)

    assert [(said.code, said.err) for said in (first, second, third, fourth)] == [(0, "")] * 4
    assert (first.out, third.out) == ("", "")
    of = {id: f"{id} of {loaded(box, 'subscriptions')[id]['customer']}" for id in active}
    assert sorted(second.out.splitlines()) == sorted(
        [f"{of[late]}: active -> past_due", f"{of[ended]}: active -> canceled"]
    )
    assert fourth.out.splitlines() == [f"{of[kept]}: active -> past_due"]


def test_a_play_that_fails_gets_its_change_again(tmp_path: Path) -> None:
    """What was handled before stays handled. A key that may not read events is exit code 4: there
    is nothing to play on.
    """
    box = Sandbox(seed=5, customers=20)
    active = sorted(
        id for id, found in loaded(box, "subscriptions").items() if found["status"] == "active"
    )
    broken = tmp_path / "broken.py"
    script = (PIPELINES / "watch_subscriptions.py").read_text(encoding="utf-8")
    broken.write_text(
        script.replace(
            "    before, after", f'    assert change.object_id != "{active[1]}"\n    before, after'
        )
    )
    few = box.restrict(permissions=PERMISSIONS - {"rak_event_read"})
    with shell_of(box, tmp_path) as shell:
        shell.env["DLT_DATA_DIR"] = str(tmp_path / "home")
        play(shell)
        box.advance(A_WHILE)
        for id in active[:2]:
            box.update("subscriptions", id, status="past_due")
            box.advance(2 * SETTLE)
        failed = play(shell, str(broken))
        mended = play(shell)
        shell.key = few
        partly = play(shell)

    assert failed.code == 1 and "AssertionError" in failed.err
    assert [line.split()[0] for line in failed.out.splitlines()] == active[:1]
    assert (mended.code, [line.split()[0] for line in mended.out.splitlines()]) == (0, active[1:2])
    assert (partly.code, partly.out) == (4, "")


def play(shell: Shell, script: str = "watch_subscriptions.py") -> Said:
    """One run of the script."""
    return ended(start(shell, script))


PEOPLE = """user_id,email,name,plan
1,ada@example.com,Ada,pro
2,nobody,Bob,pro
3,cy@example.com,Cy,
"""


@pytest.mark.checklist("N22 N26 N27")
def test_a_table_becomes_customers_who_are_welcomed_once(tmp_path: Path, here: Here) -> None:
    """Nothing is written by a plan, and nothing twice; a bad line stops no other."""
    box = Sandbox(seed=5, customers=2)
    with shell_of(box, tmp_path) as shell, receiving() as receiver:
        (shell.folder / "crm.csv").write_text(PEOPLE, encoding="utf-8")
        shell.env["WELCOME_URL"] = receiver.url
        before = len(box.objects("customers"))
        script = "write_back.py"
        planned = here(shell, script, "--plan")
        assert len(box.objects("customers")) == before
        first = here(shell, script)
        later = PEOPLE.replace("nobody", "bob@example.com").replace("Ada", "Ada L")
        (shell.folder / "crm.csv").write_text(later, encoding="utf-8")
        second, third = here(shell, script), here(shell, script)

    counts = [json.loads(said.out) for said in (planned, first, second, third)]
    assert [said.code for said in (planned, first, second, third)] == [0, 4, 0, 0]
    assert (counts[0]["create"], counts[0]["reject"]) == (2, 1)
    assert (counts[1]["created"], counts[1]["rejected"]) == (2, 1)
    assert (counts[2]["created"], counts[2]["updated"]) == (1, 1)
    assert counts[3]["unchanged"] == sum(counts[3].values()) == 3
    assert first.err == "rejected: 2: email is no e-mail address.\n"
    held = {one["email"]: one for one in box.objects("customers").values()}
    greeted = [json.loads(one.body) for one in receiver.accepted]
    assert sorted(greeted, key=lambda one: str(one["text"])) == [
        {"id": held[email]["id"], "text": f"Welcome {name}! Your customer id is {held[email]['id']}."}
        for email, name in (("ada@example.com", "Ada"), ("bob@example.com", "Bob"), ("cy@example.com", "Cy"))
    ]  # fmt: skip
    assert (held["ada@example.com"]["name"], held["ada@example.com"]["metadata"]["plan"]) == (
        "Ada L",
        "pro",
    )


def test_a_table_that_is_not_there_is_one_line(tmp_path: Path, here: Here) -> None:
    with shell_of(Sandbox(seed=5, customers=2), tmp_path) as shell:
        said = here(shell, "write_back.py")
    assert (said.code, said.out, len(said.err.splitlines())) == (1, "", 1)


@pytest.mark.checklist("N27")
def test_a_new_customer_is_welcomed_once(tmp_path: Path, here: Here) -> None:
    """Nobody of the first load; a message that fails is tried again with its id. It is signed."""
    box, script = Sandbox(seed=5, customers=3), "welcome_message.py"
    with (
        shell_of(box, tmp_path) as shell,
        held_open(shell.folder / FILE),
        receiving(BUSY) as receiver,
    ):
        shell.env |= {
            "DLT_DATA_DIR": str(tmp_path / "home"),
            "WELCOME_URL": receiver.url,
            "WELCOME_SECRET": SECRET,
        }
        first = here(shell, script)
        box.advance(A_WHILE)
        new = box.create("customers", name="Ada", email="ada@example.com")["id"]
        box.create("customers", email=None)
        box.advance(2 * SETTLE)
        second, third = here(shell, script), here(shell, script)
        with open_feed(
            open_pipeline(
                str(shell.folder / "stripe_feed.duckdb"), state_dir=f"{tmp_path}/home/pipelines"
            )
        ) as feed:
            release(feed.store, "welcome", 0.0)
        fourth = here(shell, script)

    assert [(said.code, said.out) for said in (first, second, third, fourth)] == [
        (0, "0 sent, 0 to be tried again, 0 given up\n"),
        (0, "0 sent, 1 to be tried again, 0 given up\n"),
        (0, "0 sent, 0 to be tried again, 0 given up\n"),
        (0, "1 sent, 0 to be tried again, 0 given up\n"),
    ]
    assert [one.message_id for one in receiver.received] == [receiver.accepted[0].message_id] * 2
    assert Webhook(SECRET).verify(
        receiver.accepted[0].body, dict(receiver.accepted[0].headers)
    ) == {
        "text": f"Welcome Ada! Your customer id is {new}.",
        "to": "ada@example.com",
        "id": new,
    }
