"""The README is true: its blocks run, one after the other, as a reader runs them, and its tables are those of the code."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import tomlkit

from stripe_feed import cli, errors, feed_commands, locks, open_feed, options, rates, service_commands, trigger_commands
from stripe_feed.destination import SETTINGS
from stripe_feed.doctor import EVENTS
from stripe_feed.extract.changes import COLUMNS
from stripe_feed.extract.cursors import DAY, RETENTION, TOO_OLD
from stripe_feed.extract.session import LOOK_BACK, SETTLE
from stripe_feed.extract.shapes import HASH_COLUMN, LOAD_COLUMN, OWN_COLUMNS
from stripe_feed.resources import RESOURCES, TABLES, Resource
from stripe_feed.sandbox import Sandbox
from tests.commands import loaded
from tests.copies import copy_of
from tests.postgres import postgres_server

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent

KEY = re.findall(r"export STRIPE_SECRET_KEY=(\S+)", README)[0]
CREDENTIALS = re.findall(r'"(postgresql://\S+)"', README)[0]
CRON_FOLDER = "/srv/stripe"
A_DAY = 86_400


@dataclass(frozen=True)
class Block:
    """A fenced block and the line that it begins in."""

    language: str
    body: str
    line: int


def blocks(text: str) -> list[Block]:
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [Block(match[1], match[2], text.count("\n", 0, match.start()) + 1) for match in found]


def table(first: str) -> list[list[str]]:
    """The cells of the Markdown table whose first heading this is."""
    lines = README[README.index(f"\n| {first} |") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


# -- the blocks -------------------------------------------------------------------------------------------------------------


@dataclass
class Reader:
    """Someone who goes down the page in one folder; what is exported stays exported."""

    folder: Path
    env: dict[str, str]
    stack: ExitStack
    told: dict[int, str | Future[str]] = field(default_factory=dict)      # what the block in this line printed

    def read(self, block: Block) -> None:
        run = getattr(self, f"run_{block.language}", None)
        assert run, f"README.md:{block.line}: nothing runs a {block.language!r} block; `text` is for what is no code"
        self.told[block.line] = run(block) or ""

    def shell(self, script: str, line: int, env: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=self.folder, env=env or self.env, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120,
        )
        assert done.returncode == 0, f"README.md:{line}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def run_bash(self, block: Block) -> str:
        lines = block.body.splitlines()
        for target in (shlex.split(line)[1] for line in lines if line.startswith("make ")):
            assert re.search(rf"^{target}:", MAKEFILE, re.M), f"README.md:{block.line}: there is no `make {target}`"
        for line in lines:
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").partition("=")
                self.env[name] = value
        return self.shell("\n".join(line for line in lines if not line.startswith("make ")), block.line)

    def run_console(self, block: Block) -> Future[str]:
        """A command and what it says, beside the other blocks: it has a database of its own."""
        pool = self.stack.enter_context(ThreadPoolExecutor(1))
        return pool.submit(self.shown, block, dict(self.env))

    def shown(self, block: Block, env: dict[str, str]) -> str:
        """What the command really says; `make` stands for what its target runs."""
        first, *expected = block.body.splitlines()
        command = re.sub(r"^make (\w+)$", recipe, first.removeprefix("$ "))
        said = self.shell(command, block.line, env)
        assert agree(timeless(expected), timeless(said.splitlines())), f"README.md:{block.line}: it really says\n{said}"
        return said

    def run_python(self, block: Block) -> str:
        script = self.folder / f"line_{block.line}.py"
        script.write_text(block.body, encoding="utf-8")
        return self.shell(f"python {script.name}", block.line)

    def run_toml(self, block: Block) -> None:
        """Goes to the file that its first line names."""
        name, text = block.body.splitlines()[0].removeprefix("# "), block.body
        given: dict[str, Any] = tomlkit.parse(text).unwrap()
        if "sources" in given:
            del self.env["STRIPE_SECRET_KEY"]       # or the file would not matter
        if "destination" in given:
            text = text.replace(CREDENTIALS, self.postgres())
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{file.read_text() if file.exists() else ''}{text}\n", encoding="utf-8")

    def run_crontab(self, block: Block) -> str:
        """With the little that cron gives a command."""
        when, command = block.body.split()[:5], block.body.split(maxsplit=5)[5]
        assert all(re.fullmatch(r"\*|\*/\d+|\d+", part) for part in when)
        (self.folder / ".venv").symlink_to(sys.prefix)
        home = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "STRIPE_API_BASE": self.env["STRIPE_API_BASE"]}
        return self.shell(command.replace(CRON_FOLDER, str(self.folder)), block.line, home)

    def run_text(self, block: Block) -> None:
        """Pictures."""

    def postgres(self) -> str:
        return self.stack.enter_context(postgres_server())


def recipe(match: re.Match[str]) -> str:
    """What a target of the Makefile runs."""
    found = re.findall(rf"^{match[1]}:.*\n\t@?\$\(BIN\)/(.+)$", MAKEFILE, re.M)
    assert len(found) == 1, f"`make {match[1]}` is not one command"
    return str(found[0])


def timeless(lines: Sequence[str]) -> list[str]:
    """Without what differs from run to run: days, times, the port, and the number of requests, which depends on the pace."""
    return [re.sub(r"\d{4}-\d\d-\d\d|\d+\.\d s|127\.0\.0\.1:\d+|\d+ requests", "…", line).rstrip() for line in lines]


def agree(expected: Sequence[str], said: Sequence[str]) -> bool:
    """Whether the lines are the same; a line of three dots stands for any."""
    pattern = "".join("(?:.*\n)*" if line == "..." else re.escape(f"{line}\n") for line in expected)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in said)) is not None


@pytest.mark.parametrize(
    ("expected", "same"),
    [("a b c", True), ("a ... c", True), ("... c", True), ("a ...", True), ("a b ... c", True), ("a c", False),
     ("a ... d", False), ("... b", False), ("b ...", False), ("a b", False)],
)
def test_three_dots_stand_for_any_lines(expected: str, same: bool) -> None:
    assert agree(expected.split(), ["a", "b", "c"]) is same


@pytest.fixture(scope="module")
def box() -> Sandbox:
    """An account in our time whose key may do what the README says, and nothing else."""
    found = Sandbox(seed=7, customers=20, now=int(time.time()), real_time=True)
    found.restrict(KEY, [permission for name, permission in parse_qsl(form().query) if name != "name"])
    found.account_needs_permission = True
    return found


@pytest.fixture(scope="module")
def read(box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """The whole page, read once."""
    folder = tmp_path_factory.mktemp("reader")
    with ExitStack() as stack:
        env = {
            **os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "STRIPE_API_BASE": stack.enter_context(box.serve()),
            "DLT_DATA_DIR": str(folder / "dlt"),
        }
        reader = Reader(folder, env, stack)
        for block in blocks(README):
            reader.read(block)
        yield reader


def said(reader: Reader) -> dict[int, str]:
    """What each block printed, by line."""
    return {line: told if isinstance(told, str) else told.result() for line, told in reader.told.items()}


def test_every_block_runs_and_says_what_it_shows(read: Reader) -> None:
    assert [block.line for block in blocks(README)] == list(said(read))
    assert README.count("```") == 2 * len(read.told)


def test_the_commands_and_the_pipeline_load_the_same(box: Sandbox, read: Reader) -> None:
    """The look-alike is real enough: what the blocks print is the account's."""
    printed = "\n".join(said(read).values())
    customers = len(loaded(box, "customers"))

    assert re.search(rf"^ customers +{customers} ", printed, re.M)                        # status
    assert re.search(rf"^ customers\s+─+\s+{customers}\s", printed, re.M)                 # query on Postgres
    assert (read.folder / "sync.log").read_text() == ""
    assert {path.name for path in read.folder.glob("*.duckdb")} == {
        "demo.duckdb", "stripe_feed.duckdb", "recent_invoices.duckdb",
    }


# -- what it says -----------------------------------------------------------------------------------------------------------


def form() -> Any:
    """The link to the prefilled form for a key."""
    return urlsplit(re.findall(r"<(https://dashboard\.stripe\.com/apikeys/create\?\S+)>", README)[0])


def test_the_permissions_are_those_of_the_resources() -> None:
    expected = [(row.table, row.permission, row.label) for row in RESOURCES.values()]
    changes, _, permission, label = EVENTS

    assert table("resource") == [[f"`{name}`", f"`{needed}`", at] for name, needed, at in (*expected, (changes, permission, label))]


def test_the_form_asks_for_each_permission_once() -> None:
    needed = dict.fromkeys((*(row.permission for row in RESOURCES.values()), EVENTS[2]))

    expected = [("name", "stripe-feed"), *((f"permissions[{n}]", permission) for n, permission in enumerate(needed))]

    assert parse_qsl(form().query) == expected


def test_the_tables_are_those_of_the_resources() -> None:
    rows = {names(first)[0]: names(last) for first, _, last in table("table")}

    expandable = {
        name: [e.column.name for e in row.expandable] if isinstance(row, Resource) else [] for name, row in TABLES.items()
    }
    assert list(rows) == [*TABLES, "changes"]
    assert rows == {**expandable, "changes": []}


def test_our_own_columns_are_those_of_the_tables() -> None:
    columns = [*OWN_COLUMNS, HASH_COLUMN, LOAD_COLUMN]
    rows = table("column")

    assert [(names(name)[0], kind) for name, kind, _ in rows] == [(column.name, column.kind) for column in columns]
    for (_, _, meaning), column in zip(rows, columns, strict=True):
        assert meaning.split(";")[0].rstrip(".") == column.description.split(";")[0].replace(" (UTC)", "").rstrip(".")


def test_the_columns_of_changes_are_those_of_the_table() -> None:
    rows = [(f"`{column.name}`", column.kind, column.description) for column in COLUMNS]

    assert [tuple(cells) for cells in table("column of `changes`")] == rows


def test_the_exit_codes_are_those_of_the_errors() -> None:
    root = errors.StripeFeedError
    codes = {fault.exit_code for fault in vars(errors).values() if isinstance(fault, type) and issubclass(fault, root)}

    assert [int(code) for code, _, _ in table("exit code")] == [0, *sorted(codes), 130]


def test_every_command_is_explained() -> None:
    verbs = {command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    groups = {group.name for group in cli.app.registered_groups}
    rows = {names(first)[0]: last for first, last in table("command")}

    assert rows.keys() == verbs | groups
    for name, app in (("feed", feed_commands.app), ("triggers", trigger_commands.triggers_app), ("webhook", service_commands.webhook_app)):
        subcommands = {one.name or one.callback.__name__ for one in app.registered_commands if one.callback}
        assert set(names(rows[name])) == subcommands | {one.name for one in app.registered_groups}


def test_every_option_exists() -> None:
    """Those of `make` and `pip` aside, all that the README mentions are the command's."""
    texts = [Path(module.__file__ or "").read_text(encoding="utf-8") for module in (cli, feed_commands, options, service_commands, trigger_commands)]
    known = {option for text in texts for option in re.findall(r'"(--[a-z-]+)"', text)}
    known |= {f"--{name.replace('_', '-')}" for name in inspect.signature(cli.sync).parameters}

    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README)) <= known


def test_the_numbers_are_those_of_the_code() -> None:
    budget = f"{rates.LIVE_RPS:.0f} requests per second in live mode, {rates.TEST_RPS:.0f} in test mode, "

    assert f"{budget}{rates.ENDPOINT_RPS:.0f} per endpoint" in README
    assert set(re.findall(r"(\d+) seconds", README)) == {str(LOOK_BACK), str(SETTLE), f"{locks.PATIENCE:.0f}"}
    assert set(re.findall(r"(\d+) days", README)) == {str(RETENTION // DAY), str(TOO_OLD // DAY)}


def test_the_settings_are_those_of_sync() -> None:
    (block,) = [block for block in blocks(README) if block.body.startswith("# .dlt/config.toml")]
    found: dict[str, Any] = tomlkit.parse(block.body).unwrap()

    flat = {name.upper(): str(value).lower() for name, value in found.items() if not isinstance(value, dict)}
    sections = {section: all for section, all in found.items() if isinstance(all, dict)}
    flat |= {f"{section}__{name}".upper(): str(value).lower() for section, all in sections.items() for name, value in all.items()}

    assert flat == SETTINGS


def test_links_lead_somewhere() -> None:
    anchors = {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in re.findall(r"^#+ (.+)$", README, re.M)}
    links = [link for link in re.findall(r"\]\(<?([^)>]+)>?\)", README) if not link.startswith("https://")]

    assert links
    for link in links:
        assert link[1:] in anchors if link.startswith("#") else (ROOT / link).exists(), link


def test_one_sentence_per_line() -> None:
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S)

    assert [line for line in prose.splitlines() if not line.startswith("|") and re.search(r"[.!?] [A-Z`]", line)] == []


def test_the_tables_and_the_feed_are_true(tmp_path: Path) -> None:
    """Updates, cancellations and deletes land, and each is a change; the first load is none."""
    box = Sandbox(seed=7, customers=5)
    box.advance(A_DAY)
    updated, deleted = list(loaded(box, "customers"))[:2]
    ended = next(id for id, found in loaded(box, "subscriptions").items() if found["status"] == "active")
    with copy_of(box, tmp_path) as copy:
        assert copy.sync().relayed == 0
        box.advance(A_DAY)
        box.update("customers", updated, name="Another")
        box.cancel(ended)
        box.delete("customers", deleted)
        box.advance(2 * SETTLE)
        copy.sync()
        copy.check()

        gone = copy.select("select id, deleted_at is not null, name is not null from stripe.customers where deleted_at is not null")
        with open_feed(copy.pipeline) as feed:
            told = {change.object_id: change for change in feed.read()}

    assert gone == [(deleted, True, True)]
    assert {id: (change.op, change.before_quality) for id, change in told.items() if id in (updated, ended, deleted)} == {
        updated: ("u", "exact"), ended: ("u", "exact"), deleted: ("d", "exact"),
    }
    assert (told[ended].before or {})["status"] == "active" and (told[ended].after or {})["status"] == "canceled"
    assert (told[deleted].before or {})["id"] == deleted


def test_the_snippets_are_enough_for_a_feed(tmp_path: Path) -> None:
    """In an empty folder: the pipeline as the page has it, run twice with changes in between, and its consumer."""
    load, consume = (block_with("pipeline.run(stripe_source())"), block_with("feed.consume("))
    box = Sandbox(seed=7, customers=20)
    box.advance(A_DAY)
    late, *_ = (id for id, found in loaded(box, "subscriptions").items() if found["status"] == "active")
    with box.serve() as url:
        env = {
            **os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "STRIPE_API_BASE": url, "STRIPE_SECRET_KEY": box.key,
            "DLT_DATA_DIR": str(tmp_path / "home"),
        }
        folder = tmp_path / "empty"
        folder.mkdir()
        with ExitStack() as stack:
            reader = Reader(folder, env, stack)
            reader.run_python(load)
            first = reader.run_python(consume)
            box.advance(A_DAY)
            box.update("subscriptions", late, status="past_due")
            box.advance(2 * SETTLE)
            reader.run_python(load)
            second, third = reader.run_python(consume), reader.run_python(consume)
            tail = reader.shell("stripe-feed feed tail --resource subscriptions", 0)

    (line,) = second.splitlines()
    assert line.startswith(f"{late} cus_") and line.endswith("['status']")
    assert (first, third) == ("", "")
    assert f"{late}  status: active -> past_due" in tail
    assert {path.name for path in folder.iterdir() if path.suffix != ".py"} == {
        "stripe_feed.duckdb", "stripe_feed.feed.sqlite", "stripe_feed.sync.lock",
    }


def block_with(words: str) -> Block:
    """The first Python block of the page that has these words."""
    return next(block for block in blocks(README) if block.language == "python" and words in block.body)
