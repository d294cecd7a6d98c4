"""`stripe-feed feed …` as a user sees it: data on stdout, talk on stderr, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import pytest
from typer.testing import CliRunner

from stripe_feed.cli.feed import app
from stripe_feed.feed.storage.store import FeedStore
from tests.commands import Said, ended, holding
from tests.deliveries import add
from tests.feed_kills import a_change, a_copy, load

NEW: Any = {"op": "c", "previous": None, "before_quality": "none", "changed": []}
HOSTILE = "evil\x1b[2J\nname"
ROWS = [
    a_change(1, "cus_1", resource="customers", after={"id": "cus_1", "name": HOSTILE}, **NEW),
    a_change(2, after={"id": "sub_1", "status": "active", "metadata": {}}, **NEW),
    a_change(
        3,
        after={"id": "sub_1", "status": "past_due", "metadata": {"plan": "pro"}, "livemode": False},
        previous={"status": "active", "metadata": {"plan": None}, "livemode": True},
        changed=["status", "metadata.plan", "livemode"],
    ),
    a_change(
        4,
        "cus_1",
        resource="customers",
        after={"id": "cus_1", "name": "x"},
        previous={"name": HOSTILE},
        changed=["name"],
    ),
    a_change(5, "cus_1", "d", resource="customers", previous={"id": "cus_1", "name": "x"}),
    a_change(6, "cus_2", resource="customers", after={"id": "cus_2"}, **NEW | {"op": "r"}),
]


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("filled")
    load(a_copy(folder), ROWS)
    return (folder / "copy.duckdb").read_bytes()


@pytest.fixture
def folder(tmp_path: Path, filled: bytes) -> Path:
    """A folder with a copy whose feed has six changes, the last one a snapshot's."""
    (tmp_path / "copy.duckdb").write_bytes(filled)
    return tmp_path


def run(folder: Path, *arguments: object) -> Said:
    done = CliRunner().invoke(app, [str(one) for one in (*arguments, *places(folder))])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Said(done.exit_code, done.stdout, done.stderr)


def places(folder: Path) -> list[str]:
    return ["--database", str(folder / "copy.duckdb"), "--state-dir", str(folder / "state")]


def spawn(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    code = "from stripe_feed.cli.feed import app; app()"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments), *places(folder)],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def objects(said: Said) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.out.splitlines()]


def test_tail_shows_the_newest_changes_with_old_and_new_values(folder: Path) -> None:
    said = run(folder, "tail")

    assert said.code == 0
    assert said.out.splitlines() == [
        "      1  2026-01-01 00:00:01  c  customers  cus_1  customer.subscription.updated",
        "      2  2026-01-01 00:00:02  c  subscriptions  sub_1  customer.subscription.updated",
        "      3  2026-01-01 00:00:03  u  subscriptions  sub_1  status: active -> past_due, metadata.plan: null -> pro, "
        "livemode: true -> false",
        r"      4  2026-01-01 00:00:04  u  customers  cus_1  name: evil\x1b[2J\nname -> x",
        "      5  2026-01-01 00:00:05  d  customers  cus_1  customer.subscription.updated",
    ]


def test_tail_as_json_is_one_object_per_line(folder: Path) -> None:
    said = run(
        folder,
        "tail",
        "-n",
        2,
        "--json",
        "--resource",
        "customers,subscriptions",
        "--op",
        "updated",
    )

    (first, second) = objects(said)
    assert (first["offset"], first["before"]["status"], first["after"]["status"]) == (
        3,
        "active",
        "past_due",
    )
    assert (second["change_id"], second["before"], second["occurred_at"]) == (
        "evt_4",
        {"id": "cus_1", "name": HOSTILE},
        "2026-01-01T00:00:04Z",
    )
    assert "\x1b" not in said.out
    assert [
        one["offset"] for one in objects(run(folder, "tail", "--json", "--op", "r", "--op", "d"))
    ] == [5, 6]


def test_tail_is_in_the_order_of_time_whatever_a_load_brought_first(folder: Path) -> None:
    late = [a_change(n, f"in_{n}", resource="invoices") for n in (20, 21)]
    run(folder, "tail")
    with FeedStore(folder / "copy.feed.sqlite") as store:
        add(store, *late, a_change(19, changed=["status"]), a_change(22, customer_id="cus_9"))

    assert [one["change_id"] for one in objects(run(folder, "tail", "-n", 3, "--json"))] == [
        "evt_20",
        "evt_21",
        "evt_22",
    ]
    assert [
        one["change_id"] for one in objects(run(folder, "tail", "--json", "--customer", "cus_9"))
    ] == ["evt_22"]
    assert [
        one["last_change_id"]
        for one in objects(
            run(folder, "net", "--json", "--resource", "subscriptions", "--op", "added")
        )
    ] == ["evt_22"]
    assert [
        one["object_id"]
        for one in objects(run(folder, "net", "--json", "--changed", "status", "--since", 7))
    ] == ["in_20", "in_21", "sub_1"]


def test_consume_prints_and_acknowledges(folder: Path) -> None:
    first = run(folder, "consume", "play", "--start", "earliest", "--max", 2)
    assert [one["change_id"] for one in objects(first)] == ["evt_1", "evt_2"]
    assert "Consumer play is new" in first.err

    rest = run(folder, "consume", "play")
    assert [one["change_id"] for one in objects(rest)] == ["evt_3", "evt_4", "evt_5"]
    assert rest.err == ""
    assert objects(run(folder, "consume", "play")) == []


def test_a_new_consumer_says_where_it_starts(folder: Path) -> None:
    said = run(folder, "consume", "play")

    assert (said.code, said.out) == (0, "")
    assert "Consumer play is new and starts after offset 6 of 6" in said.err
    assert "earliest" in said.err


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--resource", "customers"], [1, 4, 5]),
        (["--resource", "customers", "--op", "removed"], [5]),
        (["--transition", "status:active:past_due"], [3]),
        (["--transition", "status:active,trialing:*"], [3]),
        (["--transition", "status:active:unpaid,canceled"], []),
        (["--transition", "metadata.plan:null:pro"], [3]),
        (["--transition", "livemode:true:false"], [3]),
        (["--transition", "status:*:*", "--transition", "livemode:false:true"], []),
        (["--changed", "metadata"], [3]),
        (["--changed", "metadata.plan,name"], [3, 4]),
        (["--op", "r"], [6]), (["--customer", "cus_1,cus_2", "--origin", "event", "--changed", "name"], [4]), (["--origin", "diff"], []),
    ],
)  # fmt: skip
def test_consume_filters(folder: Path, filters: list[str], expected: list[int]) -> None:
    assert [
        one["offset"]
        for one in objects(run(folder, "consume", "x", "--start", "earliest", *filters))
    ] == expected


def test_a_command_gets_each_change_and_acknowledges_with_0(folder: Path) -> None:
    out = folder / "got"
    said = run(folder, "consume", "play", "--start", "earliest", "--exec", f"cat >> '{out}'")

    assert (said.code, said.out) == (0, "")
    assert [json.loads(line)["change_id"] for line in out.read_text().splitlines()] == [
        f"evt_{n}" for n in range(1, 6)
    ]


@pytest.mark.parametrize(
    ("fails", "how"), [("exit 7", "exited with 7"), ("kill -9 $$", "was killed by signal 9")]
)
def test_a_command_that_fails_stops_and_gets_the_change_again(
    folder: Path, fails: str, how: str
) -> None:
    count = folder / "count"
    fail_at_third = f"echo x >> '{count}'; test $(wc -l < '{count}') -ne 3 || {fails}"

    said = run(folder, "consume", "play", "--start", "earliest", "--exec", fail_at_third)

    assert said.code == 4
    assert (
        said.error
        == f"The command {how} at change evt_3 (offset 3). The change is not acknowledged and will be delivered again."
    )
    assert [one["offset"] for one in objects(run(folder, "consume", "play"))] == [3, 4, 5]


def test_a_command_that_does_not_read_is_fine(folder: Path) -> None:
    empty = run(
        folder, "consume", "play", "--start", "earliest", "--exec", " "
    )  # an unset variable
    assert (empty.code, empty.out) == (2, "") and "--exec is empty" in empty.err
    assert run(folder, "consume", "play", "--start", "earliest", "--exec", "true").code == 0


def test_net_shows_what_changed_in_the_end(folder: Path) -> None:
    assert [one["object_id"] for one in objects(run(folder, "net", "--json"))] == ["sub_1", "cus_2"]
    (folded, *_) = objects(run(folder, "net", "--json", "--since", 3))
    assert (folded["op"], folded["changed"], folded["changes"]) == (
        "u",
        ["status", "metadata.plan", "livemode"],
        1,
    )
    assert "status: active -> past_due" in run(folder, "net", "--since", "evt_3").out


def test_lag_lists_the_consumers(folder: Path) -> None:
    assert "There are no consumers yet" in run(folder, "lag").err
    run(folder, "consume", "play", "--start", "earliest", "--max", 2)

    assert "play" in run(folder, "lag").out
    (found,) = objects(run(folder, "lag", "--json"))
    assert (
        found["consumer"],
        found["position"],
        found["head"],
        found["behind"],
        found["lost"],
    ) == ("play", 2, 6, 4, False)
    assert found["seconds"] > 0


def test_what_shows_nothing_says_why(folder: Path) -> None:
    assert "No net changes in that range" in run(folder, "net", "--resource", "invoices").err
    assert "No changes of cus_nobody found." in run(folder, "forget", "cus_nobody").err
    run(folder, "prune", "--older-than", "0d")
    assert "All changes were pruned; `stripe-feed feed rebuild`" in run(folder, "tail").err


def test_a_consumer_is_removed(folder: Path) -> None:
    run(folder, "consume", "play", "--start", "earliest", "--max", 2)
    assert "Consumer play deleted." in run(folder, "remove", "play").err
    assert "There are no consumers yet" in run(folder, "lag").err
    again = run(folder, "remove", "play")
    assert (again.code, again.error) == (
        2,
        "There is no consumer 'play'. `stripe-feed feed lag` lists all consumers.",
    )


def test_a_field_that_is_misspelt_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It could be one of another API version, and so is no error."""
    said = "{} is not a field of the loaded API version: only changes in another version can match."
    run(folder, "lag")
    caplog.clear()
    run(
        folder,
        "consume",
        "play",
        "--start",
        "earliest",
        "--transition",
        "stauts:active:past_due",
        "--changed",
        "metadata.plan",
    )
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        said.format("stauts")
    ]
    caplog.clear()
    run(
        folder,
        "consume",
        "other",
        "--resource",
        "customers",
        "--changed",
        "status",
        "--changed",
        "name",
    )
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        said.format("status")
    ]


def test_reset_prune_and_what_a_consumer_behind_gets(folder: Path) -> None:
    run(folder, "consume", "play", "--start", "earliest", "--max", 2)
    assert "3 changes pruned" in run(folder, "prune", "--older-than", "1d", "--keep-latest").err

    lost = run(folder, "consume", "play")
    assert lost.code == 3
    (lag,) = objects(run(folder, "lag", "--json"))
    assert (lag["lost"], lag["behind"]) == (True, 4) and lag["seconds"] > 0
    assert "unread changes were pruned" in run(folder, "lag").out
    unknown = run(folder, "reset", "pley", "--to", "earliest")
    assert (unknown.code, unknown.error) == (2, "There is no consumer 'pley'; did you mean 'play'?")
    assert "stripe-feed feed reset play --to earliest" in lost.error
    assert "is at offset 0 (head 6)" in run(folder, "reset", "play", "--to", "earliest").err
    assert [one["offset"] for one in objects(run(folder, "consume", "play"))] == [3, 5]

    assert "The feed holds 6 changes." in run(folder, "rebuild").err
    run(folder, "reset", "play", "--to", "evt_4")
    assert [one["offset"] for one in objects(run(folder, "consume", "play"))] == [4, 5]


def test_forget_takes_the_images(folder: Path) -> None:
    said = run(folder, "forget", "cus_1")

    assert said.code == 0
    assert "Data of cus_1 erased from" in said.err
    assert HOSTILE not in "".join(str(one) for one in objects(run(folder, "tail", "--json")))


def test_no_file_and_an_empty_feed_say_what_to_do(tmp_path: Path) -> None:
    missing = run(tmp_path, "tail")
    assert missing.code == 3
    assert (
        missing.error
        == "There is no file copy.duckdb yet. Run `stripe-feed sync` first, or name another --database."
    )
    assert list(tmp_path.glob("*.sqlite")) == []
    import duckdb

    duckdb.connect(str(tmp_path / "copy.duckdb")).close()
    empty = run(tmp_path, "tail")
    assert (empty.code, empty.out) == (0, "")
    assert "The feed is empty" in empty.err
    assert "stripe-feed sync" in empty.err


@pytest.mark.usefixtures("hurried")
def test_a_feed_that_is_held_up_says_by_whom(tmp_path: Path) -> None:
    """It goes on with what it has, and does not call itself empty."""
    with holding(tmp_path / "copy.duckdb") as pid:
        found = run(tmp_path, "tail")
    assert (found.code, found.out) == (0, "")
    assert (
        f"The feed continues with the changes relayed before. copy.duckdb is open in process {pid}."
        in found.err
    )
    assert "empty" not in found.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["consume", "a b"], ["consume", "x", "--resource", "invoice"], ["consume", "x", "--op", "changed"],
        ["consume", "x", "--transition", "status:active"], ["consume", "x", "--start", "evt_99"], ["consume", "x", "--max", "0"],
        ["prune", "--older-than", "90 moons"], ["reset", "x", "--to", "nowhere"], ["net", "--since", "7 moons"], ["tail", "-n", "-1"],
        ["tail", "-n", "9" * 23], ["reset", "x", "--to", "\udcff"], ["consume", "x", "--max", "9" * 23], ["consume", "x", "--changed", "metadata["],
    ],
)  # fmt: skip
def test_nonsense_is_exit_code_2(folder: Path, arguments: list[str]) -> None:
    said = run(folder, *arguments)

    assert said.code == 2
    assert said.out == ""


@pytest.mark.usefixtures("hurried")
def test_a_locked_database_is_said_and_the_feed_goes_on(folder: Path) -> None:
    run(folder, "tail")
    with holding(folder / "copy.duckdb") as pid:
        said = run(folder, "tail", "-n", 1, "--json")

        assert [one["offset"] for one in objects(said)] == [5]
        assert f"copy.duckdb is open in process {pid}" in said.err
        rebuilt = run(folder, "rebuild")
        assert (rebuilt.code, f"process {pid}" in rebuilt.error) == (3, True)


def many(folder: Path) -> None:
    """More changes than a pipe's buffer holds."""
    run(folder, "tail")
    with FeedStore(folder / "copy.feed.sqlite") as log:
        filler = {"id": "sub_1", "filler": "x" * 5_000}
        add(log, *(a_change(n, after=filler) for n in range(10, 210)))


@contextmanager
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """What a command of this process prints, as another program reads it."""
    reading, writing = os.pipe()
    with monkeypatch.context() as patch, os.fdopen(reading) as reader:
        patch.setattr(sys, "stdout", os.fdopen(writing, "w"))
        yield reader
        with suppress(BrokenPipeError):
            sys.stdout.close()


def test_who_stops_reading_costs_at_most_what_was_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(folder)
    read = list[str]()

    def stop_soon(reader: TextIO) -> None:
        read.extend(json.loads(reader.readline())["change_id"] for _ in range(3))
        reader.close()

    with piped(monkeypatch) as reader, ThreadPoolExecutor(1) as other:
        stopped = other.submit(stop_soon, reader)
        with pytest.raises(SystemExit) as end:
            app(["consume", "play", "--start", "earliest", *places(folder)])
        stopped.result(60)

    assert not end.value.code
    (found,) = objects(run(folder, "lag", "--json"))
    assert read == ["evt_1", "evt_2", "evt_3"]
    assert 2 <= found["position"] < 200  # a pipe's buffer at most is written and not read


def test_a_reader_that_goes_away_costs_at_most_what_it_did_not_read(folder: Path) -> None:
    many(folder)
    process = spawn(folder, "consume", "play", "--start", "earliest")
    assert process.stdout and process.stderr
    read = [json.loads(process.stdout.readline())["change_id"] for _ in range(3)]
    process.stdout.close()

    assert process.wait(30) == 0
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    (found,) = objects(run(folder, "lag", "--json"))
    assert read == ["evt_1", "evt_2", "evt_3"]
    assert 2 <= found["position"] < 200  # a pipe's buffer at most is written and not read


def test_follow_prints_what_comes_until_it_is_interrupted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[Any]()

    def look_on(reader: TextIO) -> None:
        try:
            read.append(json.loads(reader.readline())["offset"])
            with FeedStore(folder / "copy.feed.sqlite") as log:
                add(log, a_change(77))
            read.append(json.loads(reader.readline())["change_id"])
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    with piped(monkeypatch) as reader, ThreadPoolExecutor(1) as other:
        seen = other.submit(look_on, reader)
        with pytest.raises(SystemExit) as end:
            app(["tail", "-n", "1", "--follow", "--json", *places(folder)])
        seen.result(60)

    assert (end.value.code, read) == (130, [5, "evt_77"])


def test_follow_prints_what_comes_and_ends_with_ctrl_c(folder: Path) -> None:
    process = spawn(folder, "tail", "-n", 1, "--follow", "--json")
    late = threading.Timer(60, process.kill)
    late.start()
    assert process.stdout
    assert json.loads(process.stdout.readline())["offset"] == 5
    with FeedStore(folder / "copy.feed.sqlite") as log:
        from tests.test_store import entry_of

        log.append([entry_of(77)])
    assert json.loads(process.stdout.readline())["change_id"] == "evt_77"
    late.cancel()
    os.kill(process.pid, signal.SIGINT)
    said = ended(process)
    assert (said.code, said.err.count("Traceback")) == (130, 0)


def test_the_help_is_quick_and_names_the_verbs() -> None:
    heavy = "import sys; from stripe_feed.cli.feed import app; print([m for m in ('dlt', 'duckdb', 'stripe', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    light = heavy.replace("feed_commands import app", "feed import consume")
    assert (
        subprocess.run(
            [sys.executable, "-c", light], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )

    said = CliRunner().invoke(app, ["--help"]).stdout
    assert all(
        verb in said
        for verb in ("tail", "consume", "net", "lag", "rebuild", "prune", "forget", "reset")
    )
