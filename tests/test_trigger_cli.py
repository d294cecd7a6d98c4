"""`stripe-feed triggers …`, `deliver` and `feed dead …` as a user sees them: data on stdout, talk
on stderr, exit codes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from stripe_feed.cli.main import app
from stripe_feed.delivery.outbox import message_id_of
from stripe_feed.feed.storage.store import FeedStore
from tests.commands import Said, ended
from tests.deliveries import NEW, add
from tests.feed_kills import a_change, a_copy, load
from tests.receiver import ERROR, GONE, LATE, OK, receiving

CANARY = "canary@example.com"
NAME = "Cassandra Canary"
WAIT = 30.0


def customer(n: int, **given: Any) -> Any:
    image = {"id": f"cus_{n}", "email": CANARY, "name": NAME, "balance": n}
    return a_change(
        n,
        f"cus_{n}",
        resource="customers",
        customer_id=f"cus_{n}",
        event_type="customer.created",
        after=image,
        **{**NEW, **given},
    )


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("loaded")
    load(a_copy(folder), [customer(1), customer(2), a_change(3, customer_id="cus_1")])
    return (folder / "copy.duckdb").read_bytes()


@pytest.fixture
def folder(tmp_path: Path, loaded: bytes) -> Path:
    """A folder with a copy whose feed has two new customers and a changed subscription."""
    (tmp_path / "copy.duckdb").write_bytes(loaded)
    return tmp_path


def places(folder: Path) -> list[str]:
    return ["--database", str(folder / "copy.duckdb"), "--state-dir", str(folder / "state")]


def run(*arguments: object, folder: Path | None = None) -> Said:
    more = places(folder) if folder else []
    done = CliRunner().invoke(app, [str(one) for one in (*arguments, *more)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert "unexpected" not in done.stderr
    assert CANARY not in done.stderr
    assert NAME not in done.stderr
    return Said(done.exit_code, done.stdout, done.stderr)


def rule(deliver: str, **words: str) -> None:
    """Write `triggers.toml`: new customers, unless something else is said."""
    words = {"name": '"welcome"', "preset": '"customer_created"', **words}
    Path("triggers.toml").write_text(
        "\n".join(
            [
                "[[trigger]]",
                *(f"{name} = {value}" for name, value in words.items()),
                f"deliver = {{ {deliver} }}",
            ]
        )
    )


def store_of(folder: Path) -> FeedStore:
    return FeedStore(folder / "copy.feed.sqlite")


def begun(folder: Path, *rows: Any) -> None:
    """The triggers have begun, and then these changes came."""
    assert run("deliver", "--once", "--quiet", folder=folder).code == 0
    with store_of(folder) as store:
        add(store, *rows)


def objects(said: Said) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.out.splitlines()]


def message_of(n: int) -> str:
    return message_id_of("welcome", f"evt_{n}", f"evt_{n}")


def test_check_says_what_each_trigger_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", "whsec_" + "QUFB" * 8)
    Path("mine.toml").write_text("""
[[trigger]]
name = "big"
resource = "invoices"
op = "updated"
transition = { status = { from = ["draft", "open"], to = "paid" }, "metadata.plan" = { to = "null" } }
changed = "total"
where = "after.total > 5"
enrol = "cooldown 7d"
per = "customer_id"
deliver = { url = "https://example.com/catch/h1dden", secrets = ["env:HOOK_SECRET"] }
[[trigger]]
name = "trial"
preset = "trial_ending"
deliver = { command = "./collect.sh" }
""")

    said = run("triggers", "check", "--triggers", "mine.toml")

    assert (said.code, said.err) == (0, "2 triggers valid.\n")
    assert said.out.splitlines() == [
        "big: invoices, updated, status from draft or open to paid, metadata.plan changes to null, total changes, where after.total > 5, "
        "cooldown per customer -> https://example.com/…",
        "trial: subscriptions, event customer.subscription.trial_will_end -> ./collect.sh",
    ]


@pytest.mark.parametrize(
    "command",
    [
        ("check",),
        ("list",),
        ("test", "welcome"),
        ("explain", "evt_1"),
        ("replay", "welcome", "--since", "1d"),
    ],
)
def test_a_wrong_file_is_one_line_and_exit_code_2(folder: Path, command: tuple[str, ...]) -> None:
    rule('file = "out", format = "xml"')

    said = run("triggers", *command, folder=None if command == ("check",) else folder)

    assert (said.code, said.out) == (2, "")
    assert said.error.startswith("triggers.toml:4: there is no format 'xml'.")


def test_deliver_with_a_wrong_file_or_without_a_secret_sends_nothing(folder: Path) -> None:
    rule('fil = "out"')
    assert (run("deliver", "--once", folder=folder).code, run("deliver", folder=folder).code) == (
        2,
        2,
    )
    rule('url = "https://example.com/", secrets = ["env:NOT_SET"]')
    for command in (("triggers", "check"), ("deliver", "--once", *places(folder))):
        said = run(*command)
        assert (said.code, said.out) == (3, "")
        assert (
            said.error
            == "The secret env:NOT_SET is not set. Set it in the environment, or remove it from the trigger."
        )
    Path("triggers.toml").unlink()
    assert run("deliver", "--once", folder=folder).error.startswith(
        "There is no file triggers.toml."
    )


def test_deliver_once_sends_what_is_new(folder: Path) -> None:
    rule('file = "out.jsonl"')
    first = run("deliver", "--once", folder=folder)
    assert (first.code, first.out) == (0, "")
    assert first.err.splitlines()[-2:] == [
        "welcome is new: it fires for changes from now on.",
        "0 fired, 0 sent.",
    ]
    with store_of(folder) as store:
        add(store, customer(4), customer(5))

    said = run("deliver", "--once", folder=folder)

    assert (said.code, said.err) == (0, "2 fired, 2 sent.\n")
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert sorted((one["data"]["email"], one["meta"]["message_id"]) for one in lines) == sorted(
        (CANARY, message_of(n)) for n in (4, 5)
    )
    assert (run("deliver", "--once", "--quiet", folder=folder).err) == ""


def test_deliver_as_json_is_one_object(folder: Path) -> None:
    rule('command = "grep -q cus_4"')
    begun(folder, customer(4), customer(5))

    (found,) = objects(run("deliver", "--once", "--json", folder=folder))

    assert found == {
        "fired": {"welcome": 2},
        "sent": 1,
        "failed": 1,
        "dead": 0,
        "dropped": 0,
        "held": {},
        "disabled": {},
    }


def test_what_is_held_ends_with_4_each_time_until_it_is_released(folder: Path) -> None:
    rule('file = "out.jsonl"', guard="{ max = 1 }")
    begun(folder, customer(4), customer(5))

    for _ in range(2):
        said = run("deliver", "--once", folder=folder)
        assert said.code == 4
        assert said.error == (
            "welcome is held: it would fire 2 times within 10 minutes, more than 1. Run `stripe-feed triggers release welcome`, or discard."
        )
    (listed,) = objects(run("triggers", "list", "--json", folder=folder))
    assert (listed["state"], listed["messages"]) == (
        "held: it would fire 2 times within 10 minutes, more than 1",
        {"held": 2},
    )
    assert Path("out.jsonl").read_text() == ""

    assert (
        run("triggers", "release", "welcome", folder=folder).err
        == "welcome resumed; 2 messages released.\n"
    )
    assert run("deliver", "--once", folder=folder).code == 0
    assert len(Path("out.jsonl").read_text().splitlines()) == 2


def test_what_is_discarded_is_not_sent(folder: Path) -> None:
    rule('file = "out.jsonl"', guard="{ max = 1 }")
    begun(folder, customer(4), customer(5))
    run("deliver", "--once", folder=folder)

    assert (
        run("triggers", "discard", "welcome", folder=folder).err
        == "welcome resumed; 2 messages dropped.\n"
    )
    assert (run("deliver", "--once", folder=folder).code, Path("out.jsonl").read_text()) == (0, "")


def test_a_receiver_that_is_gone_ends_with_4_each_time(folder: Path) -> None:
    with receiving(GONE) as receiver:
        rule(f'url = "{receiver.url}?k=h1dden", allow_private = true')
        begun(folder, customer(4))
        for _ in range(2):
            said = run("deliver", "--once", folder=folder)
            assert said.code == 4
            assert (
                said.error
                == "welcome is disabled: it answers 410 Gone. Fix the receiver, then run `stripe-feed triggers release welcome`."
            )
        assert len(receiver.received) == 1
        assert run("triggers", "list", folder=folder).out.startswith(
            "welcome (disabled: it answers 410 Gone): customers, added -> http://127.0.0.1:"
        )

        run("triggers", "release", "welcome", folder=folder)
        assert run("deliver", "--once", folder=folder).code == 0
    assert [one.message_id for one in receiver.received] == [message_of(4)] * 2


def test_dead_letters_are_listed_and_sent_again(folder: Path) -> None:
    assert run("feed", "dead", "list", folder=folder).out == ""
    with receiving(ERROR, OK) as receiver:
        rule(f'url = "{receiver.url}", allow_private = true')
        begun(folder, customer(4))
        run("deliver", "--once", folder=folder)
        with store_of(folder) as store, store.transaction() as db:
            db.execute("update messages set tries = 9, due_at = 0")
        receiver.script.insert(0, ERROR)
        said = run("deliver", "--once", folder=folder)
        assert (said.code, said.error) == (
            4,
            "1 message failed for good: see `stripe-feed feed dead list`.",
        )

        (found,) = objects(run("feed", "dead", "list", "--json", folder=folder))
        assert found.pop("given_up").startswith("20")
        assert found == {
            "message": message_of(4),
            "trigger": "welcome",
            "change": "evt_4",
            "resource": "customers",
            "object": "cus_4",
            "attempts": 2,
            "last": "500",
        }
        (line,) = run("feed", "dead", "list", folder=folder).out.splitlines()
        assert line.startswith(
            f"message {message_of(4)}  trigger welcome  change evt_4  resource customers  object cus_4  attempts 2  last 500  given up 20"
        )

        assert run("feed", "dead", "retry", "msg_no", folder=folder).code == 2
        assert (
            run("feed", "dead", "retry", "--trigger", "other", folder=folder).err
            == "0 messages to be sent by `stripe-feed deliver`.\n"
        )
        assert (
            run("feed", "dead", "retry", message_of(4), folder=folder).err
            == "1 message to be sent by `stripe-feed deliver`.\n"
        )
        assert run("deliver", "--once", folder=folder).code == 0
        assert {one.message_id for one in receiver.received} == {message_of(4)}


def test_list_says_how_each_trigger_stands(folder: Path) -> None:
    rule('command = "false"')
    assert (
        run("triggers", "list", folder=folder).out
        == "welcome (new): customers, added -> false\n  fired 0\n"
    )
    begun(folder, customer(4))
    run("deliver", "--once", folder=folder)
    with store_of(folder) as store:
        add(store, customer(5))

    lines = run("triggers", "list", folder=folder).out.splitlines()
    (found,) = objects(run("triggers", "list", "--json", folder=folder))
    found["state"] = found["state"].split()[0]

    assert re.fullmatch(
        r"welcome \(failing since 20\d\d-[-\d]+ [:\d]+\): customers, added -> false", lines[0]
    )
    assert lines[1].startswith("  fired 1, last 20") and lines[1].endswith(
        ", 1 waiting, 1 change behind"
    )
    assert found.pop("last_fired").startswith("20")
    assert found == {
        "trigger": "welcome",
        "waits_for": "customers, added",
        "receiver": "false",
        "fired": 1,
        "behind": 1,
        "rows": None,
        "evaluated": None,
        "messages": {"waiting": 1},
        "state": "failing",
    }


def test_a_trigger_is_tried_on_history(folder: Path) -> None:
    rule('command = "false"')

    (found,) = objects(
        run("triggers", "test", "welcome", "--since", "earliest", "--json", folder=folder)
    )
    said = run("triggers", "test", "welcome", "--since", "2026-01-01", folder=folder)

    assert [
        found[name]
        for name in ("trigger", "changes", "fired", "days", "busiest_minute", "most_per_key")
    ] == ["welcome", 3, 2, {"2026-01-01": 2}, 2, 1]
    assert [(one["change_id"], one["body"]["data"]["email"]) for one in found["samples"]] == [
        ("evt_1", CANARY),
        ("evt_2", CANARY),
    ]
    assert said.out.startswith(
        "welcome would have fired 2 times for 3 changes: at most 2 in a minute, and 1 for one object or customer."
    )
    assert (
        run("triggers", "test", "none", folder=folder).error
        == "triggers.toml has no trigger 'none'. It has: welcome."
    )
    with store_of(folder) as store:
        assert store.query(
            "select count(*) from messages union all select count(*) from triggers"
        ) == [(0,), (0,)]


def test_explain_says_why(folder: Path) -> None:
    rule('command = "false"', where="\"after.balance > 4 and after.name != 'x'\"")
    begun(folder, customer(4), customer(5))
    run("deliver", "--once", folder=folder)

    (why,) = objects(run("triggers", "explain", "evt_5", "--json", folder=folder))
    lines = run("triggers", "explain", "evt_4", folder=folder).out.splitlines()

    assert (why["trigger"], why["verdict"]) == ("welcome", "fired; its message is waiting")
    assert [(one["what"], one["found"], one["holds"]) for one in why["clauses"]][-2:] == [
        ("where", {"after.balance": 5}, True),
        ("where", {"after.name": NAME}, True),
    ]
    ((message, (attempt,)),) = why["messages"]
    assert (message["message_id"], attempt["code"]) == (message_of(5), "exit 1")
    assert lines == [
        "welcome: did not fire: where does not hold.",
        "  yes  resource: customers; it is customers",
        "  yes  op: c; it is c",
        "  yes  origin: event or diff or list; it is event",
        '  no   where: after.balance > 4; it is {"after.balance": 4}',
        f'  yes  where: after.name != \'x\'; it is {{"after.name": "{NAME}"}}',
    ]
    assert run("triggers", "explain", "evt_99", folder=folder).code == 2


def test_a_replay_makes_messages_of_the_past(folder: Path) -> None:
    rule('file = "out.jsonl"')
    run("feed", "lag", folder=folder)  # says that the copy comes without a feed store

    said = run("triggers", "replay", "welcome", "--since", "earliest", folder=folder)

    assert (said.code, said.err) == (
        0,
        "2 messages from 3 changes, to be sent by `stripe-feed deliver`.\n",
    )
    assert run("deliver", "--once", folder=folder).err == "0 fired, 2 sent.\n"
    rule('file = "out.jsonl"', guard="{ max = 1 }")
    said = run("triggers", "replay", "welcome", "--since", "1", folder=folder)
    assert (
        said.err
        == "2 messages from 3 changes, held: it would fire 2 times within 10 minutes, more than 1.\n"
    )


@pytest.mark.parametrize("verb", ["release", "discard"])
def test_a_trigger_that_never_ran_cannot_be_released(folder: Path, verb: str) -> None:
    said = run("triggers", verb, "none", folder=folder)

    assert (said.code, said.error) == (
        2,
        "Trigger 'none' has not run yet. `stripe-feed triggers list` lists the triggers that have.",
    )


def spawn(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stripe_feed.cli.main", *map(str, arguments), *places(folder)],
        cwd=os.getcwd(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_deliver_goes_on_until_it_is_asked_to_end_and_is_the_only_one(folder: Path) -> None:
    """What is under way when the signal comes is answered later, and counts."""
    with receiving(OK, LATE) as receiver:
        rule(f'url = "{receiver.url}", allow_private = true')
        begun(folder, customer(4))
        process = spawn(folder, "deliver")
        assert receiver.arrived.acquire(timeout=WAIT)
        with store_of(folder) as store:
            add(store, customer(5))
        assert receiver.arrived.acquire(timeout=WAIT)

        second = run("deliver", "--once", folder=folder)
        assert second.code == 3
        assert (
            second.error
            == f"`stripe-feed deliver` (process {process.pid}) delivers from this store already. Leave it to that one, or end it first."
        )
        process.send_signal(signal.SIGTERM)
        receiver.released.set()
        said = ended(process)

    assert (said.code, said.out) == (0, "")
    assert said.err.splitlines()[-1] == "2 fired, 2 sent."
    with store_of(folder) as store:
        assert store.query("select change_id, state from messages") == [
            ("evt_4", "sent"),
            ("evt_5", "sent"),
        ]


def test_check_doubts_fields_that_no_object_has(folder: Path) -> None:
    """Each would never fire, or say nothing; what this version does not know may still be right, so
    that it can be used.
    """
    text = """[[trigger]]
name = "t"
resource = "invoices"
transition = { statuss = { to = "paid" }, status = { from = ["open", "*"], to = "payed" } }
changed = ["custmer", "metadata.any.thing"]
where = "after.amountpaid > 100 and change.op == 'updated' and after.status in ['draft', 'opne'] and customer.adress.city == 'x'"
deliver = { file = "out.jsonl", template = "{after.customer.email} {customer.email} {after.lines.data.amount|money:after.curency}" }
"""
    Path("triggers.toml").write_text(text, encoding="utf-8")
    said = run("triggers", "check")
    assert (said.code, said.err.splitlines()[-2]) == (4, "1 trigger valid.")
    assert said.err.splitlines()[:-2] == [
        "triggers.toml:4: t: invoices has no documented field 'statuss'; did you mean 'status'?",
        "triggers.toml:4: t: status is never 'payed'; did you mean 'paid'?",
        "triggers.toml:5: t: invoices has no documented field 'custmer'; did you mean 'customer'?",
        "triggers.toml:6: t: invoices has no documented field 'amountpaid'; did you mean 'amount_paid'?",
        "triggers.toml:6: t: change.op is never 'updated'; there are: c, d, r, u.",
        "triggers.toml:6: t: status is never 'opne'; did you mean 'open'?",
        "triggers.toml:6: t: customers has no documented field 'adress'; did you mean 'address'?",
        "triggers.toml:7: t: invoices customer is an id in changes, without fields; customer.email looks it up.",
        "triggers.toml:7: t: invoices lines.data is a list: name an element by its number, such as lines.data.0.",
        "triggers.toml:7: t: invoices has no documented field 'curency'; did you mean 'currency'?",
    ]


def test_check_tells_all_mistakes_at_once(folder: Path) -> None:
    wrong = '[[trigger]]\nname = "a"\nresource = "invoice"\nop = "new"\nenrol = "twice"\ndeliver = { fil = "x" }\n'
    Path("triggers.toml").write_text(
        f"{wrong}{wrong.replace('invoice', 'invoices')}\n[more]\n", encoding="utf-8"
    )
    said = run("triggers", "check")
    assert (said.code, said.out) == (2, "")
    assert [line.split(":")[2] for line in said.err.splitlines()] == [
        "14",
        "3",
        "4",
        "5",
        "6",
        "10",
        "11",
        "12",
    ]
    assert all(line.startswith("error: triggers.toml:") for line in said.err.splitlines())
    assert (
        "And 7 more: `stripe-feed triggers check`." in run("triggers", "list", folder=folder).error
    )


def test_no_file_offers_a_starter_that_is_right_and_never_written_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for verb in (("check",), ("list",)):
        missing = run("triggers", *verb, folder=None if verb == ("check",) else folder)
        assert (
            missing.code == 2
            and "There is no file triggers.toml. `stripe-feed triggers init`" in missing.error
        )
    assert run("triggers", "init").code == 0
    assert run("triggers", "check").err == "0 triggers valid.\n"
    starter = Path("triggers.toml").read_text(encoding="utf-8")
    Path("triggers.toml").write_text(
        re.sub("^#(?! |$)", "", starter, flags=re.MULTILINE), encoding="utf-8"
    )
    monkeypatch.setenv("HOOK_SECRET", "whsec_" + "QUFB" * 8)
    assert run("triggers", "check").err == "4 triggers valid.\n"
    again = run("triggers", "init")
    assert again.code == 2 and "was not changed" in again.error
    assert "welcome" in Path("triggers.toml").read_text(encoding="utf-8")


def test_what_waits_for_a_trigger_that_left_the_file_is_said_and_can_be_dropped(
    folder: Path,
) -> None:
    rule('command = "false"')
    begun(folder, customer(4))
    assert run("deliver", "--once", folder=folder).code == 4
    Path("triggers.toml").write_text("", encoding="utf-8")
    for verb in (("triggers", "list"), ("deliver", "--once")):
        assert "1 message left of welcome" in run(*verb, folder=folder).err
    (gone,) = objects(run("triggers", "list", "--json", folder=folder))
    assert (gone["trigger"], gone["state"], gone["messages"]) == (
        "welcome",
        "not in the file",
        {"waiting": 1},
    )
    assert (
        "1 message dropped" in run("triggers", "discard", "welcome", "--waiting", folder=folder).err
    )
    assert "left of" not in run("triggers", "list", folder=folder).err


# Triggers on models


def test_a_trigger_on_a_model_is_checked_tried_evaluated_listed_and_explained(folder: Path) -> None:
    Path("late.sql").write_text("select * from main.late")
    Path("triggers.toml").write_text(
        '[[trigger]]\nname = "late"\nsql = "late.sql"\nkey = "id"\nrows = "days > 6"\ndeliver = { file = "late.jsonl" }\n'
        '[[trigger]]\nname = "unbuilt"\npreset = "mrr_dropped"\ndeliver = { file = "x.jsonl" }\n'
    )

    def now(*days: int) -> None:
        with closing(duckdb.connect(str(folder / "copy.duckdb"))) as connection:
            connection.execute("create or replace table main.late (id varchar, days bigint)")
            for n, count in enumerate(days):
                connection.execute("insert into main.late values (?, ?)", [f"in_{n}", count])

    now(7, 1)
    checked = run("triggers", "check")
    assert (
        checked.out.splitlines()[0]
        == "late: a row of late entered, of rows with days > 6 -> late.jsonl"
    )
    assert (
        "would start from 1 row, without a message"
        in run("triggers", "test", "late", folder=folder).out
    )
    first = run("deliver", "--once", folder=folder)
    assert first.code == 4
    assert "late starts from 1 row of now" in first.err
    assert "unbuilt did not run: The model mrr_monthly_customer is " in first.error
    assert "does not run" not in first.err  # said once

    Path("triggers.toml").write_text(
        Path("triggers.toml").read_text().partition('[[trigger]]\nname = "unbuilt"')[0]
    )
    trial = objects(run("triggers", "test", "late", "--json", folder=folder))
    assert [(one["rows"], one["is_new"], one["fires"]) for one in trial] == [(1, False, 0)]

    now(8, 9)
    assert objects(run("triggers", "test", "late", "--json", folder=folder))[0]["fires"] == 1
    second = run("deliver", "--once", folder=folder)
    assert (second.code, second.err) == (0, "1 fired, 1 sent.\n")
    (told,) = Path("late.jsonl").read_text().splitlines()
    assert json.loads(told)["data"] == {"id": "in_1", "days": 9}
    (listed,) = objects(run("triggers", "list", "--json", folder=folder))
    assert (listed["fired"], listed["rows"], listed["state"]) == (1, 2, "on")
    assert " 2 rows at 20" in run("triggers", "list", folder=folder).out
    assert re.search(
        r"^trigger late \(on\): fired 1, last 20.*, 1 sent, 2 rows at 20.*$",
        run("status", folder=folder).out,
        re.MULTILINE,
    )
    (copied,) = objects(run("status", "--json", folder=folder))
    stated = objects(run("triggers", "list", "--json", folder=folder))
    assert copied["triggers"] == [
        {name: one[name] for name in one if name not in ("waits_for", "receiver")}
        for one in stated
        if one["rows"] is not None
    ]
    for id in ("in_1", json.loads(told)["meta"]["change_id"]):
        assert (
            "late: fired; its message is sent." in run("triggers", "explain", id, folder=folder).out
        )
    again = run("triggers", "replay", "late", "--since", "1h", folder=folder)
    assert again.err == "1 message from 1 change, to be sent by `stripe-feed deliver`.\n"
    assert run("triggers", "explain", "in_9", folder=folder).code == 2
