"""The command line: verbs, options, what goes to stdout and what to stderr, exit codes."""

from __future__ import annotations

import ast
import csv
import importlib
import io
import json
import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import duckdb
import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from rich.console import Console
from typer.testing import CliRunner

from stripe_feed.api.client import API_VERSION
from stripe_feed.cli import action, main, serve, triggers
from stripe_feed.cli.demo import remove_earlier_demo
from stripe_feed.cli.models import report
from stripe_feed.cli.output import command_name, escape_control, log_to_stderr
from stripe_feed.cli.progress import (
    WAITING,
    ListingMeter,
    ListingProgress,
    Progress,
    RequestMonitor,
)
from stripe_feed.destination.duckdb import optional_packages
from stripe_feed.destination.duckdb.optional_packages import _answer_if_missing, _hidden
from stripe_feed.errors import SetupError
from stripe_feed.extract.paging.reader import Listing
from stripe_feed.extract.paging.windows import Planner
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.__main__ import make_parser
from stripe_feed.sync_run import Synced
from tests.commands import COMMAND, STAMP, Shell, ended, shell_of
from tests.core import CORE, CORE_TABLES

VERBS = [
    "action",
    "deliver",
    "demo",
    "doctor",
    "forget",
    "mcp",
    "preview",
    "query",
    "reconcile",
    "report",
    "sandbox",
    "serve",
    "status",
    "sync",
    "verify",
]
HEAVY = ["dlt", "duckdb", "msgspec", "pendulum", "pyarrow", "rich", "stripe", "urllib3"]


@pytest.fixture(scope="module")
def box() -> Sandbox:
    return Sandbox(seed=3, customers=12)


@pytest.fixture(scope="module")
def origin(box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """An account, loaded once."""
    folder = tmp_path_factory.mktemp("origin")
    with shell_of(box, folder) as shell:
        done = shell.sync(
            "--database", folder / "stripe_feed.duckdb", "--state-dir", folder / "state", "--json"
        )
        assert done.code == 0, done.err
        (folder / "synced.json").write_text(done.out)
        (folder / "talk.txt").write_text(done.err)
        yield shell


@pytest.fixture
def shell(origin: Shell, tmp_path: Path) -> Shell:
    """An account and an empty folder."""
    return Shell(origin.box, origin.url, tmp_path)


@pytest.fixture
def copy(origin: Shell, shell: Shell) -> Shell:
    """An account and a folder with a copy of it."""
    shutil.copy(origin.folder / "stripe_feed.duckdb", shell.folder)
    return shell


# -- the frame
# --------------------------------------------------------------------------------------------------------------


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    """The best of three, in CPU seconds: other processes do not count."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*COMMAND, "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    code = "import sys; from stripe_feed.cli.main import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"

    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], check=True, capture_output=True, text=True
    )

    assert min(taken) < 0.3
    assert set(done.stderr.split()) & set(HEAVY) == set()


def test_the_verbs_are_those_of_the_design(shell: Shell) -> None:
    said = shell.run("--help")

    assert said.code == 0
    verbs = [
        *sorted(VERBS, key=list(_order()).index),
        "feed",
        "models",
        "push",
        "triggers",
        "webhook",
    ]
    assert re.findall(r"^  ([a-z]+)  +\S", said.out.split("Commands:")[1], re.M) == verbs


def _order() -> Iterator[str]:
    return (
        command.callback.__name__ for command in main.app.registered_commands if command.callback
    )


@pytest.mark.parametrize("arguments", [["-h"], ["sync", "-h"], ["feed", "tail", "-h"]])
def test_help_has_a_short_form(shell: Shell, arguments: list[str]) -> None:
    assert shell.run(*arguments) == shell.run(*arguments[:-1], "--help")


def test_the_package_is_a_command_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stripe_feed", "--version"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("stripe-feed ")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(shell: Shell, verb: str) -> None:
    said = shell.run(verb, "--help")

    assert said.code == 0
    assert f"stripe-feed {verb}" in said.out or f"{verb} [OPTIONS]" in said.out
    assert len(said.out.splitlines()) > 3


def test_every_command_is_short() -> None:
    """A command collects its options and calls the library; what it does is the library's."""
    trees = [
        ast.parse(Path(module.__file__ or "").read_text())
        for module in (main, triggers, serve, action, report)
    ]
    bodies = {
        node.name: sum(isinstance(inner, ast.stmt) for inner in ast.walk(node)) - 1
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name in VERBS
    }

    assert bodies.keys() == set(VERBS)
    assert {verb: statements for verb, statements in bodies.items() if statements > 20} == {}


def test_a_package_is_hidden_only_while_others_look_for_it() -> None:
    sys.modules.pop("colorsys", None)

    with _hidden("colorsys"), pytest.raises(ImportError, match="colorsys"):
        importlib.import_module("colorsys")

    assert importlib.import_module("colorsys")


def test_only_a_package_that_is_missing_is_not_searched_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = [*sys.meta_path]
    monkeypatch.setattr(sys, "meta_path", [*before])

    _answer_if_missing("colorsys")
    assert sys.meta_path == before
    _answer_if_missing("no_such_package")
    assert len(sys.meta_path) == len(before) + 1
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        importlib.import_module("no_such_package")
    assert importlib.import_module("colorsys")


def test_a_process_that_may_be_somebody_elses_keeps_its_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hide = Mock(side_effect=AssertionError)
    monkeypatch.setattr(optional_packages, "_hidden", hide)

    optional_packages.spare_packages(None)
    monkeypatch.setattr(optional_packages, "_owned", [True])
    optional_packages.spare_packages("postgres")  # its driver may need them

    hide.assert_not_called()


@pytest.mark.parametrize("verb", ["sync", "reconcile"])
def test_a_command_that_loads_spares_packages_by_its_destination(
    monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    spare = Mock(side_effect=SystemExit(0))
    monkeypatch.setattr(main, "spare_packages", spare)

    CliRunner().invoke(main.app, [verb, "--destination", "postgres"])

    spare.assert_called_once_with("postgres")


@pytest.mark.broad
def test_a_sync_imports_no_package_that_others_only_look_for(shell: Shell) -> None:
    at_the_end = """
import sys
from stripe_feed.cli import main as command
end = command._end_process
def tell(code):
    found = [name for name in ("aiohttp", "sqlalchemy") if name in sys.modules]
    import sqlalchemy
    print(found, file=sys.stderr)
    end(code)
command._end_process = tell
"""

    said = ended(shell.spawn("sync", "--quiet", "--resources", "customers", first=at_the_end))

    assert (said.code, said.err) == (0, "[]\n")


def test_no_verb_shows_the_help() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True)

    assert done.returncode == 2
    assert "Commands:" in done.stdout + done.stderr


def test_an_unknown_option_is_usage(shell: Shell) -> None:
    said = shell.run("sync", "--nonsense")

    assert said.code == 2
    assert "--nonsense" in said.err


def test_an_unexpected_error_is_one_line_without_its_words(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words of a foreign exception may hold keys or data."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr("stripe_feed.destination.read.copy_status", broken)

    said = shell.run("status")

    assert said.code == 1
    assert (
        said.error
        == "unexpected builtins.RuntimeError. Run again with --debug for the traceback, and please report it."
    )
    assert "canary" not in said.out + said.err


def test_debug_shows_the_traceback_wherever_it_stands(shell: Shell) -> None:
    code = (
        "import sys; from stripe_feed.cli.main import main; from stripe_feed.destination import read\n"
        "def broken(**_): raise RuntimeError('words')\n"
        "read.copy_status = broken; sys.argv = ['stripe-feed', 'status', '--debug']; main()"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 1
    assert "RuntimeError: words" in done.stderr


def test_a_reader_that_goes_away_is_no_error(copy: Shell) -> None:
    """`stripe-feed query … | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    env = {
        name: value
        for name, value in {**os.environ, **copy.environment}.items()
        if value is not None
    }

    done = subprocess.run(
        [*COMMAND, "query", "--csv", "select * from invoices, customers"],
        cwd=copy.folder,
        env=env,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [["query", "select * from invoices, customers limit 1000"], ["status"], ["status", "--json"]],
)
def test_a_reader_that_goes_away_is_no_error_for_tables_either(
    copy: Shell, arguments: list[str]
) -> None:
    """Rich would end the process with 1; and what is still in the buffer when Python ends is no
    error.
    """
    done = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$@" | true', "bash", *COMMAND, *arguments],
        cwd=copy.folder,
        capture_output=True,
        text=True,
        env={
            name: value
            for name, value in {**os.environ, **copy.environment}.items()
            if value is not None
        },
    )

    assert (done.returncode, "Traceback" in done.stderr, "error" in done.stderr) == (
        0,
        False,
        False,
    ), done.stderr


def test_a_sync_goes_on_though_nobody_reads_what_it_says(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is complete all the same."""
    streams = []
    with monkeypatch.context() as patch:
        for name, value in shell.environment.items():
            patch.setenv(name, str(value))
        for name in ("stdout", "stderr"):
            reading, writing = os.pipe()
            os.close(reading)
            streams.append(os.fdopen(writing, "w", buffering=1))
            patch.setattr(sys, name, streams[-1])
        with pytest.raises(SystemExit) as end:
            main._run(["sync", "--resources", "products"])
    for stream in streams:
        stream.close()

    assert not end.value.code
    assert shell.rows()["products"] == shell.truth()["products"]


def test_a_sync_goes_on_when_nobody_listens_any_more(shell: Shell) -> None:
    """`stripe-feed sync 2>&1 | head -1`: the copy is complete all the same."""
    reading, writing = os.pipe()
    os.close(reading)
    env = {
        name: value
        for name, value in {**os.environ, **shell.environment}.items()
        if value is not None
    }

    done = subprocess.run(
        [*COMMAND, "sync", "--resources", "products"],
        cwd=shell.folder,
        env=env,
        stdout=writing,
        stderr=writing,
    )
    os.close(writing)

    assert done.returncode == 0
    assert shell.rows()["products"] == shell.truth()["products"]


def test_a_broken_pipe_elsewhere_is_an_error(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a database's connection breaks with says nothing about our reader."""

    def broken(**_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("stripe_feed.destination.read.copy_status", broken)
    monkeypatch.setattr("stripe_feed.cli.output.is_pipe_closed", lambda stream: False)

    said = shell.run("status")

    assert (said.code, said.error) == (5, "A connection broke off (BrokenPipeError). Run again.")


def test_a_service_says_the_same_line_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    """One that was said on another day is news; a clock that was ahead hides nothing."""
    log = logging.getLogger("stripe_feed")
    with log_to_stderr():
        for at in (100.0, 159.0, 160.0, 50.0):
            record = log.makeRecord(log.name, logging.WARNING, "", 0, "It fails.", (), None)
            record.created = at
            log.handle(record)
    assert [line[14:] for line in capsys.readouterr().err.splitlines()] == [
        f"{at}Z warning: It fails." for at in ("01:40", "02:40", "00:50")
    ]


def test_the_version(shell: Shell) -> None:
    from importlib.metadata import version

    said = shell.run("--version")

    assert (said.code, said.out, said.err) == (0, f"stripe-feed {version('stripe-feed')}\n", "")


@pytest.mark.parametrize(
    ("script", "path", "words"),
    [
        ("{bin}/stripe-feed", "{bin}", "stripe-feed"),
        ("{bin}/stripe-feed", "/nowhere", "{bin}/stripe-feed"),
        ("bin/stripe-feed", "/nowhere", "bin/stripe-feed"),
        ("a b/stripe-feed", "{bin}", "'a b/stripe-feed'"),
        ("/usr/bin/pytest", "/nowhere", "stripe-feed"),
    ],
)
def test_what_is_said_to_run_next_can_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, path: str, words: str
) -> None:
    """`make demo` runs `.venv/bin/stripe-feed`, which is not on the PATH."""
    for folder in (tmp_path / "bin", tmp_path / "a b"):
        folder.mkdir()
        (folder / "stripe-feed").touch(0o755)
    known = tmp_path / "bin"
    monkeypatch.setattr(sys, "argv", [script.format(bin=known)])
    monkeypatch.setenv("PATH", path.format(bin=known))

    assert command_name() == words.format(bin=known)


# -- sync
# -------------------------------------------------------------------------------------------------------------------


def test_sync_loads_the_account_and_says_so(origin: Shell) -> None:
    talk = (origin.folder / "talk.txt").read_text()

    assert origin.rows() == origin.truth()
    assert re.search(
        r"^[\d,]+ rows written to \S+/stripe_feed.duckdb, dataset stripe: \d+ requests, \d+\.\d s\.$",
        talk,
        re.M,
    )
    assert re.search(r"^  customers +\d+$", talk, re.M)
    assert re.search(r'^Next: stripe-feed query --database \S+ "select .*"$', talk, re.M)


def test_the_json_of_sync_is_one_object(origin: Shell) -> None:
    found = json.loads((origin.folder / "synced.json").read_text())

    assert found.keys() == {
        "rows",
        "requests",
        "seconds",
        "packages",
        "account_id",
        "livemode",
        "refused",
        "healed",
        "restored",
        "relayed",
        "unread",
        "left_out",
        "failed",
    }
    assert found["account_id"] == origin.box.account_id
    assert found["rows"]["customers"] == origin.truth()["customers"]


def test_a_second_sync_has_nothing_new(copy: Shell) -> None:
    said = copy.sync()

    assert (said.code, said.out) == (0, "")
    assert re.match(
        r"Nothing new for stripe_feed.duckdb, dataset stripe: \d+ requests, \d+\.\d s\.\nNext: ",
        said.err,
    )
    assert "--database" not in said.err


def test_a_quiet_sync_says_nothing(copy: Shell) -> None:
    said = copy.sync("--quiet")

    assert (said.code, said.out, said.err) == (0, "", "")


ASKED: Mapping[str, Any] = {
    "api_key": None,
    "account": None,
    "database": None,
    "destination": None,
    "dataset": "stripe",
    "state_dir": None,
    "resources": None,
    "start_date": None,
    "end_date": None,
    "expand": {},
    "test_clocks": False,
    "full_refresh": False,
    "max_rps": None,
    "endpoint_rps": None,
    "allow_api_base": False,
    "api_version": API_VERSION,
    "give_up_after": 120.0,
    "wait": 30.0,
    "checkpoint_rows": None,
    "deletes": "soft",
    "snapshot": False,
}


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ([], {}),
        (
            ["--database", "x.duckdb", "--dataset", "live", "--state-dir", "s"],
            {"database": "x.duckdb", "dataset": "live", "state_dir": "s"},
        ),
        (["--destination", "postgres"], {"destination": "postgres"}),
        (
            ["--account", "acct_1"],
            {
                "account": "acct_1",
                "database": "stripe_feed_acct_1.duckdb",
                "dataset": "stripe_acct_1",
            },
        ),
        (["--resources", "customers, invoices"], {"resources": ["customers", "invoices"]}),
        (
            ["--resources", "plans,invoices", "--resources", "prices,", "--resources", "plans"],
            {"resources": ["plans", "invoices", "prices"]},
        ),
        (
            ["--start-date", "2026-01-31", "--end-date", "1780000000"],
            {"start_date": "2026-01-31", "end_date": 1_780_000_000},
        ),
        (
            [
                "--expand",
                "customers.tax_ids",
                "--expand",
                "customers.sources",
                "--expand",
                "prices.tiers",
            ],
            {"expand": {"customers": ["tax_ids", "sources"], "prices": ["tiers"]}},
        ),
        (
            ["--test-clocks", "--full-refresh", "--allow-api-base"],
            {"test_clocks": True, "full_refresh": True, "allow_api_base": True},
        ),
        (
            ["--max-rps", "90", "--endpoint-rps", "22.5", "--checkpoint-rows", "1000"],
            {"max_rps": 90.0, "endpoint_rps": 22.5, "checkpoint_rows": 1000},
        ),
        (["--deletes", "hard", "--snapshot"], {"deletes": "hard", "snapshot": True}),
        (
            ["--wait", "60", "--give-up-after", "5", "--api-version", "2026-01-01.x"],
            {"wait": 60.0, "give_up_after": 5.0, "api_version": "2026-01-01.x"},
        ),
    ],
)
def test_every_option_reaches_the_library(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, arguments: list[str], changed: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {}

    def noted(*, watch: object, **options: Any) -> Synced:
        asked.update(options)
        return Synced({}, 1, 0.1, 0, "acct_1", False)

    monkeypatch.setattr("stripe_feed.sync_run.sync", noted)

    said = shell.run("sync", *arguments)

    assert said.code == 0
    assert asked == {**ASKED, **changed}


def test_options_that_make_no_sense_are_usage(shell: Shell) -> None:
    assert shell.run("sync", "--max-rps", "0").code == 2
    assert shell.run("sync", "--checkpoint-rows", "none").code == 2
    assert shell.run("sync", "--expand", "tax_ids").error == (
        "--expand takes TABLE.FIELD, such as customers.tax_ids, not 'tax_ids'."
    )
    assert shell.run("sync", "--expand", "customers.nope").code == 2


@pytest.mark.parametrize("names", [[","], [""], [" , ", ""]])
def test_a_list_of_resources_without_a_name_is_usage(shell: Shell, names: list[str]) -> None:
    """It would load everything."""
    said = shell.run("sync", *(part for name in names for part in ("--resources", name)))

    assert (said.code, said.error) == (
        2,
        "--resources names nothing. Give it like a,b, or leave it out.",
    )


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_full_refresh_of_some_resources_is_usage(copy: Shell, more: list[str]) -> None:
    said = copy.run("sync", "--resources", "prices", "--full-refresh", *more)

    assert (said.code, said.error) == (
        2,
        "--full-refresh drops and reloads all tables: leave out --resources.",
    )
    assert copy.rows() == copy.truth()


def test_fields_that_this_version_does_not_know_are_one_line(tmp_path: Path) -> None:
    """Each is logged for itself; their names stay out of it."""
    box = Sandbox(seed=4, customers=3)
    with shell_of(box, tmp_path) as shell:
        for table, fields in {
            "customers": {"canary_a": 1, "canary_b": 2},
            "products": {"canary_a": 1},
        }.items():
            box.update(table, next(iter(box.objects(table))), **fields)
        said = shell.sync("--resources", "customers,products")
        quiet = shell.sync(
            "--resources", "customers,products", "--database", "other.duckdb", "--quiet"
        )

    assert re.findall("^.*does not know.*$", said.err, re.M) == [
        "3 fields that this version does not know: kept in `extra` of customers, products."
    ]
    assert "canary" not in said.err
    assert (quiet.code, quiet.err) == (0, "")


# -- the key
# ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stdin", [False, True])
def test_the_key_comes_from_a_file_or_stdin(copy: Shell, stdin: bool) -> None:
    file = copy.folder / "key"
    file.write_text(f"{copy.box.key}\n")
    key = copy.box.key

    said = copy.run(
        "doctor",
        "--api-key-file",
        "-" if stdin else file,
        stdin=key if stdin else None,
        STRIPE_SECRET_KEY=None,
    )

    assert f"ok       {'key':<27} a secret key in test mode" in said.out


def test_a_key_file_wins_over_dlt_which_wins_over_the_environment(copy: Shell) -> None:
    """All three are there: the wrong ones are of a kind that is refused at once."""
    (copy.folder / "key").write_text(copy.box.key)
    pk, org = "pk_test_51", "sk_org_test_51"

    first = copy.run(
        "doctor", "--api-key-file", "key", SOURCES__STRIPE_FEED__API_KEY=pk, STRIPE_SECRET_KEY=org
    )
    second = copy.run("doctor", SOURCES__STRIPE_FEED__API_KEY=pk, STRIPE_SECRET_KEY=copy.box.key)
    third = copy.run("doctor", STRIPE_SECRET_KEY=org)

    assert "ok       account" in first.out
    assert "publishable key" in second.out
    assert "Organization keys" in third.out


def test_the_key_comes_from_dlt_s_secrets_file(copy: Shell) -> None:
    """dlt reads the file when it is imported, and does so once more here."""
    (copy.folder / ".dlt").mkdir()
    (copy.folder / ".dlt" / "secrets.toml").write_text(
        f'[sources.stripe_feed]\napi_key = "{copy.box.key}"\n'
    )
    context = Container()[PluggableRunContext]

    without = copy.run("sync", "--dry-run", STRIPE_SECRET_KEY=None)
    context.reload_providers()
    said = copy.run("sync", "--dry-run", STRIPE_SECRET_KEY=None)
    (copy.folder / ".dlt" / "secrets.toml").unlink()
    context.reload_providers()

    assert (without.code, said.code) == (3, 0), said.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read (FileNotFoundError)"),
        ("\n", "is empty"),
        (b"\xff\xfe\x00", "(UnicodeDecodeError)"),
    ],
)
def test_a_key_file_without_a_key_is_refused(
    shell: Shell, content: str | bytes | None, words: str
) -> None:
    if content is not None:
        (shell.folder / "key").write_bytes(
            content if isinstance(content, bytes) else content.encode()
        )

    said = shell.run("sync", "--api-key-file", "key")

    assert said.code == 3
    assert words in said.error


# -- sync --dry-run
# ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_plans_everything_and_writes_nothing(shell: Shell) -> None:
    before = sum(shell.box.counts.values())

    said = shell.run("sync", "--dry-run", "--state-dir", "state")

    assert said.code == 0
    assert re.findall(r"^ (\w+) +everything +the beginning +$", said.out, re.M) == list(CORE)
    assert list(shell.folder.iterdir()) == []
    assert sum(shell.box.counts.values()) == before + 1


def test_a_dry_run_after_a_load_plans_what_is_new(copy: Shell) -> None:
    content = (copy.folder / "stripe_feed.duckdb").read_bytes()

    said = copy.run("sync", "--dry-run", "--json", "--resources", "customers")
    dates = ["--start-date", "2026-01-01", "--end-date", "2026-02-01"]
    fixed = copy.run("sync", "--dry-run", "--json", "--resources", "plans", *dates)
    shown = copy.run("sync", "--dry-run", "--resources", "plans", *dates)
    fresh = copy.run("sync", "--dry-run", "--json", "--full-refresh")

    now = copy.box.now
    new = json.loads(said.out)  # no line for events: none is old enough
    planned = [json.loads(line) for line in fresh.out.splitlines()]
    everything = planned[0]
    assert (new["resource"], new["kind"], everything["resource"], everything["kind"]) == (
        "customers",
        "new",
        "customers",
        "everything",
    )
    assert (
        0 <= _seconds(new["since"]) - (now - 300) < 60 and 0 <= _seconds(new["until"]) - now < 60
    )  # Stripe's time goes on
    assert [one["resource"] for one in planned] == list(
        CORE
    )  # no events before the lists are complete
    assert everything["since"] is None and 0 <= _seconds(everything["until"]) - now < 60
    assert new["requests"] == 1
    assert "plans range 2026-01-01 00:00:00 2026-02-01 00:00:00" in " ".join(shown.out.split())
    assert json.loads(fixed.out) == {
        "resource": "plans",
        "kind": "range",
        "since": "2026-01-01T00:00:00Z",
        "until": "2026-02-01T00:00:00Z",
        "requests": None,
    }
    assert (copy.folder / "stripe_feed.duckdb").read_bytes() == content
    assert [path.name for path in copy.folder.iterdir()] == ["stripe_feed.duckdb"]


# -- status
# -----------------------------------------------------------------------------------------------------------------


def test_status_before_the_first_load(shell: Shell) -> None:
    said = shell.run("status")
    as_json = shell.run("status", "--json")

    assert (said.code, said.out, said.err) == (
        0,
        "",
        "Nothing is loaded yet. Run `stripe-feed sync`.\n",
    )
    assert json.loads(as_json.out)["tables"] == []
    assert list(shell.folder.iterdir()) == []


def test_status_shows_tables_cursors_and_freshness(copy: Shell) -> None:
    said = copy.run("status")
    found = json.loads(copy.run("status", "--json").out)

    newest = max(
        customer["created"]
        for customer in copy.box.objects("customers").values()
        if customer["created"]
    )
    with duckdb.connect("stripe_feed.duckdb", read_only=True) as connection:
        ((loaded_at,),) = connection.execute(
            "select floor(epoch(max(inserted_at))) from stripe._dlt_loads"
        ).fetchall()
    assert (
        f"account {copy.box.account_id}, test mode, API version {API_VERSION}, last load 20"
        in said.out
    )
    assert re.search(
        r"^ customers +2026-05-28 20:2\d:\d\d +nothing +2026-05-28 20:2\d:\d\d *$", said.out, re.M
    )
    assert {row["table"]: row["rows"] for row in found["tables"]} == copy.truth() | {"changes": 0}
    assert _seconds(found["tables"][0]["newest"]) <= newest
    assert _seconds(found["loaded_at"]) == loaded_at
    assert [(cursor["resource"], cursor["seconds_left"]) for cursor in found["cursors"]] == [
        (name, 0) for name in CORE
    ]
    assert all(0 <= _seconds(cursor["until"]) - copy.box.now < 60 for cursor in found["cursors"])


def _seconds(text: str) -> int:
    from datetime import datetime

    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def test_status_tells_an_unfinished_backfill(shell: Shell) -> None:
    """The first package is loaded, then invoices fail."""
    box = Sandbox(seed=4, customers=20)
    box.faults.always["/v1/invoices"] = 500
    with shell_of(box, shell.folder) as shell:
        two = ["--resources", "customers,invoices"]
        said = shell.sync(*two, "--checkpoint-rows", 1, "--give-up-after", 0)
        status = shell.run("status")
        found = json.loads(shell.run("status", "--json").out)
        planned = [
            json.loads(line) for line in shell.run("sync", "--dry-run", "--json").out.splitlines()
        ]
        box.faults.always.clear()
        box.advance(86_400)
        assert shell.sync(*two).code == 0
        later = json.loads(shell.run("status", "--json").out)

    left = {cursor["resource"]: cursor["seconds_left"] for cursor in found["cursors"]}
    assert said.code == 5
    assert left["invoices"] > 0
    assert re.search(
        r"^ invoices +2026-05-28 20:2\d:\d\d +.*[\d,]+ days\b.* +2026-05-28 20:2\d:\d\d *$",
        status.out,
        re.M,
    )
    assert "…" not in status.out  # it fits into 80 columns
    assert {p["kind"] for p in planned if p["resource"] == "invoices"} == {"the rest"}
    assert {cursor["seconds_left"] for cursor in later["cursors"]} == {0}
    assert later["cursors"][0]["resource"] == "customers"
    assert (
        0 <= _seconds(later["cursors"][0]["until"]) - box.now < 60
    )  # Stripe's time goes on between its answers


# -- preview and query
# ------------------------------------------------------------------------------------------------------


def test_preview_shows_the_newest_rows_and_names_the_columns_that_do_not_fit(copy: Shell) -> None:
    said = copy.run("preview", "customers", "-n", "2")
    whole = [
        json.loads(line)
        for line in copy.run("preview", "customers", "-n", "2", "--json").out.splitlines()
    ]

    newest = sorted((row["created"] for row in whole), reverse=True)
    assert [line.split()[0] for line in said.out.splitlines() if " cus_" in line] == [
        row["id"] for row in whole
    ]
    assert [row["created"] for row in whole] == newest
    assert set(whole[0]) >= {column.name for column in CORE["customers"].columns}
    assert re.match(r"Not shown: .*metadata.*\. --json shows all\.\n", said.err)
    ids = "select id, id as second, id as third, id as fourth from customers"
    assert "…" not in copy.run("query", ids).out  # what is shown is whole


@pytest.mark.parametrize("table", CORE_TABLES)
def test_every_table_can_be_previewed(copy: Shell, table: str) -> None:
    said = copy.run("preview", table, "--json", "-n", "1")

    assert said.code == 0
    assert set(json.loads(said.out)) > {"id", "account_id", "_version"}


def test_preview_of_an_unknown_or_missing_table(copy: Shell, shell: Shell) -> None:
    unknown = copy.run("preview", "charge")
    with duckdb.connect("stripe_feed.duckdb") as connection:
        connection.execute("drop table stripe.plans")
    missing = copy.run("preview", "plans")

    assert (unknown.code, unknown.error) == (
        2,
        "There is no table 'charge'. Did you mean charges or changes? `stripe-feed status` lists what is loaded.",
    )
    assert (missing.code, missing.error) == (
        3,
        "The table plans is not loaded yet. Run `stripe-feed sync --resources plans`.",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--dataset", "x", "--database", "none.duckdb"],
        ["query", "select 1", "--database", "none.duckdb"],
    ],
)
def test_a_failure_is_json_where_json_was_asked_for(shell: Shell, arguments: list[str]) -> None:
    said = shell.run(*arguments, "--json")
    assert json.loads(said.out) == {
        "error": {"kind": "SetupError", "message": said.error, "exit_code": 3}
    }
    assert shell.run(*arguments).out == ""


@pytest.mark.checklist("C6")
def test_query_as_table_json_and_csv(copy: Shell) -> None:
    nested = "{'a': [1, 2]} as deep, true as yes"
    values = (
        f"12345678901234567890123 as big, null as nothing, timestamp '2026-01-31' as day, {nested}"
    )
    sql = f"select id, created, metadata, {values} from plans order by id limit 2"

    as_table = copy.run("query", sql)
    as_json = [json.loads(line) for line in copy.run("query", "--json", sql).out.splitlines()]
    as_csv = list(csv.DictReader(io.StringIO(copy.run("query", "--csv", "-", stdin=sql).out)))

    ids = sorted(copy.box.objects("plans"))[:2]
    assert all(id in as_table.out for id in ids)
    assert [row["id"] for row in as_json] == [row["id"] for row in as_csv] == ids
    assert as_json[0]["metadata"] == copy.box.objects("plans")[ids[0]]["metadata"]
    assert as_json[0]["created"].endswith("Z")
    assert as_json[0]["day"] == "2026-01-31T00:00:00Z"
    assert (as_json[0]["big"], as_json[0]["nothing"]) == (12345678901234567890123, None)
    assert (as_csv[0]["big"], as_csv[0]["nothing"]) == ("12345678901234567890123", "")
    assert (as_csv[0]["deep"], as_csv[0]["yes"], as_csv[0]["day"]) == (
        '{"a":[1,2]}',
        "true",
        "2026-01-31T00:00:00+00:00",
    )
    assert (as_json[0]["deep"], json.loads(as_csv[0]["metadata"])) == (
        {"a": [1, 2]},
        as_json[0]["metadata"],
    )


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        (
            "select nope from customers",
            'Binder Error: Referenced column "nope" not found in FROM clause!',
        ),
        (
            "select * from customer",
            'Catalog Error: Table with name customer does not exist! Did you mean "customers"?',
        ),
        ("select * from nope", "Catalog Error: Table with name nope does not exist!"),
        ("selec", 'Parser Error: syntax error at or near "selec"'),
    ],
)
def test_an_error_of_the_database_is_one_line(copy: Shell, sql: str, words: str) -> None:
    said = copy.run("query", sql)

    assert (said.code, said.out) == (2, "")
    assert said.error.startswith(words)
    assert "\n" not in said.error


def test_query_cannot_write(copy: Shell) -> None:
    said = copy.run("query", "delete from customers")

    assert said.code == 2
    assert "read-only" in said.error
    assert copy.rows() == copy.truth()


@pytest.mark.parametrize("arguments", [["preview", "customers"], ["query", "select 1"], ["status"]])
def test_a_database_that_is_named_has_to_be_there(shell: Shell, arguments: list[str]) -> None:
    said = shell.run(*arguments, "--database", "nope.duckdb")

    assert (said.code, said.error) == (
        3,
        "There is no file nope.duckdb yet. Run `stripe-feed sync` first, or name another --database.",
    )


@pytest.mark.parametrize("arguments", [["preview", "customers"], ["query", "select 1"]])
def test_reading_before_the_first_load(shell: Shell, arguments: list[str]) -> None:
    said = shell.run(*arguments)

    assert (said.code, said.error) == (
        3,
        "There is no file stripe_feed.duckdb yet. Run `stripe-feed sync` first, or name another --database.",
    )
    assert list(shell.folder.iterdir()) == []


def test_what_strangers_wrote_is_no_control_sequence(copy: Shell) -> None:
    with duckdb.connect("stripe_feed.duckdb") as connection:
        connection.execute("update stripe.customers set name = ?", ["\x1b[31m[red]é\u202e\nx"])

    said = copy.run("query", "select name from customers limit 1")

    assert "\x1b" not in said.out and "\u202e" not in said.out
    assert "\\x1b[31m[red]é\\u202e\\nx" in said.out
    assert escape_control("é 漢") == "é 漢"


def test_colour_is_left_out_where_it_is_not_wanted(copy: Shell) -> None:
    said = copy.run("status", NO_COLOR="1", FORCE_COLOR="1")

    assert not re.search(r"\x1b\[3\dm", said.out)


def test_another_destination_is_read_through_dlt(shell: Shell) -> None:
    """SQLite, which keeps times and JSON as text."""
    shell.env["DESTINATION__SQLALCHEMY__CREDENTIALS"] = f"sqlite:///{shell.folder}/copy.sqlite"
    where = ["--destination", "sqlalchemy"]

    empty = shell.run("status", *where)
    synced = shell.sync(*where, "--resources", "customers,invoices,plans")
    status = json.loads(shell.run("status", *where, "--json").out)
    preview = shell.run("preview", "customers", *where, "--json")
    query = shell.run("query", "select count(*) as n from invoices", *where, "--json")
    refused = {
        sql: shell.run("query", sql, *where)
        for sql in ("delete from plans", "select 1; select 2", "select nope")
    }

    assert empty.err == "Nothing is loaded yet. Run `stripe-feed sync`.\n"
    assert synced.code == 0
    some = ("customers", "invoices", "invoice_line_items", "plans")
    counted = {row["table"]: row["rows"] for row in status["tables"]}
    assert counted == {name: shell.truth()[name] for name in some}
    assert status["tables"][0]["newest"].endswith("Z")
    assert len(preview.out.splitlines()) == 5
    assert json.loads(query.out) == {"n": shell.truth()["invoices"]}
    assert {sql: said.code for sql, said in refused.items()} == dict.fromkeys(refused, 2)
    assert refused["delete from plans"].error == "`query` only reads: give one select."
    assert refused["select nope"].error == "(sqlite3.OperationalError) no such column: nope"


def test_a_destination_out_of_reach_is_one_line_without_its_password(shell: Shell) -> None:
    shell.env["DESTINATION__POSTGRES__CREDENTIALS"] = "postgresql://u:canary@127.0.0.1:1/x"

    for arguments in (["status"], ["query", "select 1"], ["sync"], ["sync", "--dry-run"]):
        said = shell.run(*arguments, "--destination", "postgres")
        assert said.code == 3
        assert said.error == (
            "Cannot connect to postgres (OperationalError). Check [destination.postgres.credentials] in .dlt/secrets.toml, "
            "or DESTINATION__POSTGRES__CREDENTIALS."
        )
        assert "canary" not in said.out + said.err


# -- demo and sandbox
# -------------------------------------------------------------------------------------------------------


def test_the_demo_loads_twice_and_says_the_same_each_time(shell: Shell) -> None:
    first = shell.run("demo", "--customers", "30", STRIPE_SECRET_KEY=None, STRIPE_API_BASE=None)
    again = shell.run("demo", "--customers", "30", STRIPE_SECRET_KEY=None, STRIPE_API_BASE=None)

    before, after = map(_numbers, first.out.split("Second sync"))
    assert (first.code, again.code) == (0, 0), first.err
    assert set(before) == {*CORE_TABLES, "coupons", "discounts", "changes"}
    assert [after[name] for name in CORE_TABLES] == [
        [after[name][0], after[name][0] - before[name][0]] for name in CORE_TABLES
    ]
    assert after["customers"][1] > 0
    assert "select strftime" in first.out and "stripe-feed doctor" in first.out
    assert "minor_units desc" not in first.out  # amounts of different currencies do not compare
    assert "owes 250.00" in first.out  # the trigger on a model fired
    moved = [line.split() for line in first.out.partition("How MRR moved")[2].splitlines()[4:11]]
    opening, *movements, closing = ([int(n.replace(",", "")) for n in row[1:]] for row in moved)
    assert (moved[0][0], moved[-1][0]) == ("opening", "closing")
    assert [sum(amounts) for amounts in zip(opening, *movements, strict=True)] == closing
    assert _timeless(first.out) == _timeless(again.out)
    kinds = {
        kind: int(count)
        for count, kind in re.findall(
            r"^ +(\d+) (added|updated|cancelled|removed)$", first.out, re.M
        )
    }
    assert len(kinds) == 4 and min(kinds.values()) > 0
    assert after["changes"] == [sum(kinds.values())] * 2
    assert {path.name for path in shell.folder.iterdir()} == {
        "demo.duckdb",
        "demo.feed.sqlite",
        "demo.feed.sqlite.deliver.lock",
        "demo.sync.lock",
    }


def _numbers(text: str) -> dict[str, list[int]]:
    """The numbers behind each table's name."""
    lines = re.findall(r"^ (\w+) +([\d, ]+?) *$", text, re.M)
    return {name: [int(n.replace(",", "")) for n in numbers.split()] for name, numbers in lines}


def _timeless(text: str) -> str:
    return re.sub(r"\d+\.\d s|127\.0\.0\.1:\d+", "…", text)


def test_only_the_files_of_an_earlier_demo_are_removed(copy: Shell) -> None:
    """Another account's data is none, nor is a file with a schema of its owner's."""
    with duckdb.connect("mine.duckdb") as connection:
        connection.execute("create schema stripe; create schema own; create table own.t (n int)")
    mine, loaded = Path("mine.duckdb"), Path("stripe_feed.duckdb")

    for file, account in ((loaded, "acct_other"), (mine, copy.box.account_id)):
        before = file.read_bytes()
        words = f"{file.name} holds data that is not from a demo. Choose another --database."
        with pytest.raises(SetupError, match=f"^{re.escape(words)}$"):
            remove_earlier_demo(file, account)
        assert file.read_bytes() == before
    remove_earlier_demo(loaded, copy.box.account_id)
    assert mine.exists() and not loaded.exists()


def test_the_demo_leaves_a_foreign_file_alone(copy: Shell) -> None:
    content = (copy.folder / "stripe_feed.duckdb").read_bytes()
    with duckdb.connect("mine.duckdb") as connection:
        connection.execute("create schema stripe; create schema own; create table own.t (n int)")

    loaded = copy.run("demo", "--database", "stripe_feed.duckdb")
    foreign = copy.run("demo", "--database", "mine.duckdb")

    assert (loaded.code, loaded.error) == (
        3,
        "stripe_feed.duckdb holds data that is not from a demo. Choose another --database.",
    )
    assert (foreign.code, foreign.error) == (
        3,
        "mine.duckdb holds data that is not from a demo. Choose another --database.",
    )
    assert (copy.folder / "stripe_feed.duckdb").read_bytes() == content


def test_the_sandbox_says_what_to_export_and_ends_with_ctrl_c(shell: Shell) -> None:
    process = shell.spawn("sandbox", "--customers", "5")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(6)]
    found = dict(re.findall(r"(\w+)=(\S+)", lines[1]))

    told = shell.run("doctor", **found)
    for body, place in re.findall(r"curl -d '(.+)' (\S+)", "".join(lines)):
        urllib.request.urlopen(place, body.encode(), timeout=30).close()
    later = shell.run("doctor", **found)
    process.send_signal(signal.SIGINT)
    said = ended(process)

    assert (told.code, later.code) == (0, 0), told.out + later.out
    assert (said.code, said.err) == (0, "")


def test_a_sandbox_that_cannot_start_says_why(shell: Shell) -> None:
    port = shell.url.rpartition(":")[2]

    said = shell.run("sandbox", "--port", port)

    assert said.code == 3
    assert (
        said.error.startswith("The sandbox did not start: ")
        and "address already in use" in said.error
    )


def test_the_sandbox_explains_its_options(shell: Shell) -> None:
    said = shell.run("sandbox", "--help")

    options = re.findall(r"^  (?:-h, )?(--[a-z-]+)(?: \S+)?(.*(?:\n {10,}.*)?)$", said.out, re.M)
    assert said.code == 0
    assert {"--port", "--customers", "--seed", "--rate"} < dict(options).keys()
    assert [name for name, words in options if not words.strip()] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (
            ["--customers", "many"],
            "argument --customers: 'many' is not a whole number of at least 0",
        ),
        (["--port", "70000"], "argument --port: '70000' is not a port (0 to 65535)"),
        (["--rate", "-1"], "argument --rate: '-1' is not a number of at least 0"),
        (["--latency", "inf"], "argument --latency: 'inf' is not a number of at least 0"),
        (["--latency", "much"], "argument --latency: 'much' is not a number of at least 0"),
    ],
)
def test_wrong_options_of_the_sandbox_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as end:
        make_parser().parse_args(arguments)

    assert (end.value.code, capsys.readouterr().err) == (2, f"{words}\n")


def test_wrong_options_of_the_sandbox_are_usage(shell: Shell) -> None:
    said = shell.run("sandbox", "--nonsense")

    line = "error: unrecognized arguments: --nonsense. See `stripe-feed sandbox --help`.\n"
    assert (said.code, said.err) == (2, line)


# -- progress
# ---------------------------------------------------------------------------------------------------------------


def watched(*listings: Listing[Any]) -> Any:
    """A run as the meter sees it."""
    return SimpleNamespace(
        listing_runs={listing.name: SimpleNamespace(listing=listing) for listing in listings},
        api=SimpleNamespace(counts=Counter()),
    )


def listing(*windows: tuple[int, int], rows: int = 0, pages: int = 0) -> Listing[Any]:
    def never(walk: int, ask: object) -> Any:
        raise AssertionError

    return Listing(
        "customers", "/v1/customers", never, [Planner(windows)], rows_read=rows, pages_read=pages
    )


def test_before_the_first_page_the_share_is_unknown() -> None:
    (reading,) = ListingMeter(watched(listing((0, 100), (100, 200))), now=lambda: 5.0).sample()

    assert reading == ListingProgress("customers", 0, 0, float("inf"), None, None, None)
    assert reading.columns() == ("customers", "0", "0", "…", "…", "…", "…")


def test_share_speed_position_and_time_left_come_from_the_windows() -> None:
    times = iter([0.0, 2.0])
    walk = listing((1_700_000_000, 1_700_864_000))
    meter = ListingMeter(watched(walk), now=lambda: next(times))
    meter.sample()
    window = walk.walks[0].windows[0]
    window.position, window.seconds_per_page = 1_700_432_000, 43_200.0
    walk.rows_read, walk.pages_read = 1000, 10

    (reading,) = meter.sample()

    assert reading == ListingProgress("customers", 1000, 10, 10.0, 1_700_432_000, 500.0, 5.0)
    assert (reading.share, reading.seconds_left) == (0.5, 2.0)
    assert (
        reading.sentence()
        == "customers: 1,000 rows, 10 pages, 500 rows/s, back to 2023-11-19, 50% done, 0:02 left"
    )


def test_a_listing_that_ended_is_done() -> None:
    ended_one = listing(rows=7, pages=1)

    (reading,) = ListingMeter(watched(ended_one), now=lambda: 0.0).sample()

    assert (reading.share, reading.seconds_left) == (1.0, 0.0)
    assert reading.columns() == ("customers", "7", "1", "…", "all", "100%", "0:00")
    assert reading.sentence() == "customers: 7 rows, 1 page, all read"


def test_speed_is_that_of_the_last_seconds() -> None:
    times = iter([0.0, 100.0, 101.0])
    walk = listing((100, 200))
    meter = ListingMeter(watched(walk), now=lambda: next(times))
    meter.sample()
    walk.rows_read = 100
    meter.sample()
    walk.rows_read = 600

    (reading,) = meter.sample()

    assert reading.rows_per_second == 500.0


def test_a_session_that_closed_keeps_its_last_reading() -> None:
    context = watched(listing((100, 200), rows=3))
    meter = ListingMeter(context, now=lambda: 0.0)
    meter.sample()
    context.listing_runs.clear()

    assert [reading.rows for reading in meter.sample()] == [3]


def test_a_terminal_gets_a_live_table_and_a_log_gets_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen = io.StringIO()
    with Progress(Console(file=screen, force_terminal=True, width=100)) as live:
        live.watch(watched(listing((100, 200), rows=1234, pages=13)))
    with Progress(Console(file=io.StringIO(), force_terminal=False)) as log:
        log.watch(watched(listing((100, 200), rows=1234, pages=13)))
        log.report()
    with Progress(Console(file=io.StringIO(), force_terminal=True), quiet=True) as quiet:
        quiet.watch(watched(listing((100, 200), rows=1234)))

    done = Progress(Console())
    done.meter = ListingMeter(watched(listing(rows=7, pages=1)))
    with Console(file=screen, width=100) as console:
        console.print(done.render())

    assert "back to" in screen.getvalue() and "1,234" in screen.getvalue()
    assert "All read, loading …" in screen.getvalue()
    (line,) = capsys.readouterr().err.splitlines()
    assert STAMP.match(line)
    assert (
        STAMP.sub("", line)
        == "customers: 1,234 rows, 13 pages, … rows/s, back to 1970-01-01, … done, … left"
    )


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        ({0: 2}, "no answer from Stripe"),
        ({503: 2}, "Stripe answers 503"),
        ({429: 2, 0: 1}, "Stripe answers 429"),
        ({403: 2}, ""),
        ({200: 1, 500: 1}, ""),
    ],
)
def test_an_endpoint_that_only_fails_for_three_seconds_is_named(
    statuses: dict[int, int], words: str
) -> None:
    """One that answers, if only with a refusal, is none; what others do does not matter."""
    times = iter([0.0, 2.9, 3.0, 9.0, 9.0])
    counts = Counter({("/v1/plans", 200): 5, ("/v1/invoices", 200): 3, ("/v1/plans", 429): 1})
    requests = RequestMonitor(counts, now=lambda: now)
    now = 0.0
    found = []
    for now in times:
        found.append(requests.sample())
        counts["/v1/plans", 200] += 1
        if now == 0.0:
            requests.sample()
            counts.update({("/v1/invoices", status): n for status, n in statuses.items()})
        elif now == 2.9:
            counts.update({("/v1/invoices", status): n for status, n in statuses.items()})
        elif len(found) == 4:
            counts["/v1/invoices", 200] += 1

    line = {"/v1/invoices": f"/v1/invoices: {words} for {{}} s, retrying …"} if words else {}
    assert found == [{}, {}, {}, {name: text.format(6) for name, text in line.items()}, {}]


def test_an_endpoint_that_does_not_answer_is_said_and_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = iter([0.0, 5.0, 5.0, 5.0])
    progress = Progress(Console(width=100))
    progress.meter = ListingMeter(watched(listing((100, 200))))
    progress.requests = RequestMonitor({("/v1/customers", 0): 3}, now=lambda: next(times))

    known = progress.report_failures(set())
    known = progress.report_failures(known)
    assert progress.report_failures(known) == known == {"/v1/customers"}
    progress.requests.now = lambda: 9.0
    screen = io.StringIO()
    Console(file=screen, width=100).print(progress.render())

    assert "/v1/customers: no answer from Stripe for 9 s, retrying …" in screen.getvalue()
    assert (
        STAMP.sub("", capsys.readouterr().err)
        == "/v1/customers: no answer from Stripe for 5 s, retrying …\n"
    )


def test_a_long_wait_before_the_first_request_is_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stripe_feed.cli.progress._PATIENCE", 0.01)
    for quiet in (True, False):
        with Progress(Console(), quiet) as waiting:
            if not quiet:
                waiting._before.join(5)

    assert STAMP.sub("", capsys.readouterr().err) == f"{WAITING}\n"


def test_what_is_piped_is_utf_8_in_every_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON with the escapes of another encoding would be none."""
    piped = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    monkeypatch.setattr(sys, "stdout", piped)
    monkeypatch.setattr(main, "app", lambda *_, **__: print("Jörg"))
    with pytest.raises(SystemExit):
        main._run([])
    piped.flush()
    assert piped.buffer.getvalue() == "Jörg\n".encode()


def test_ctrl_c_before_a_command_begins_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "app", Mock(side_effect=KeyboardInterrupt))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(SystemExit) as end:
        main._run([])
    assert end.value.code == 130
