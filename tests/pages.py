"""Reads a page as a person does: its blocks run, one after the other, in one folder.

Plain commands of ours and Python run in this process, which saves the imports of a new one;
whatever needs a shell gets one.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import tomlkit
from dlt.common.runtime.run_context import RunContext, switched_run_context

from stripe_feed.api import client
from stripe_feed.sandbox import Sandbox
from tests.commands import Shell
from tests.postgres import postgres_server

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
NGINX = (ROOT / "pipelines" / "nginx.conf").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomlkit.parse(
    (ROOT / "pyproject.toml").read_text(encoding="utf-8")
).unwrap()["project"]
CRON_FOLDER = "/srv/stripe"
NEEDS_A_SHELL = re.compile(r"[|&;<>$`]")
NO_LIMIT = 2000.0  # requests per second: the look-alike has none
SECONDS, CHANGES, SETTLED = 20, 15, 120
"""What happens in the account before a second `sync`, and the time after which events are read."""


@dataclass(frozen=True)
class Block:
    """A fenced block, the page it is on and the line it begins in."""

    page: str
    line: int
    language: str
    body: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str, text: str) -> list[Block]:
    """The fenced blocks of a page."""
    fences = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in fences
    ]


@dataclass
class Reader:
    """Someone who reads one page after the other; what is exported stays exported."""

    box: Sandbox
    folder: Path
    env: dict[str, str]
    stack: ExitStack
    printed: dict[str, str] = field(default_factory=dict)  # by the place of the block
    synced: bool = False

    def read(self, block: Block) -> None:
        """Run a block as its language says."""
        run = getattr(self, f"run_{block.language}", None)
        assert run, (
            f"{block.place}: nothing runs a {block.language!r} block; `text` is for what is no code"
        )
        self.printed[block.place] = run(block) or ""

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """The reader's folder and environment, also for dlt, which looks for settings when it is
        imported.
        """
        ours = {name: value for name, value in os.environ.items() if not name.startswith("STRIPE_")}
        with (
            # the first, so that what was before comes back outside of the reader's folder
            switched_run_context(RunContext(str(self.folder))),
            contextlib.chdir(self.folder) if sys.version_info >= (3, 11) else _chdir(self.folder),
            patch.dict(os.environ, {**ours, **self.env}, clear=True),
            patch.multiple(client, TEST_RPS=NO_LIMIT, ENDPOINT_RPS=NO_LIMIT),
        ):
            yield

    def command(self, line: str, place: str) -> str:
        """Run a command of ours in this process."""
        name, *arguments = shlex.split(line, comments=True)
        assert name == "stripe-feed", f"{place}: {line}"
        with self.here():
            done = Shell(
                self.box,
                self.env["STRIPE_API_BASE"],
                self.folder,
                self.env.get("STRIPE_SECRET_KEY", ""),
            ).run(*arguments, STRIPE_SECRET_KEY=self.env.get("STRIPE_SECRET_KEY"))
        assert done.code == 0, f"{place}: `{line}` ends with {done.code}\n{done.out}\n{done.err}"
        return done.out

    def shell(self, script: str, place: str, env: dict[str, str] | None = None) -> str:
        """Run a script in a shell."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=env or {**os.environ, **self.env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, (
            f"{place}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout

    def run_bash(self, block: Block) -> str:
        """Commands; those of `make` and `pip` are looked up."""
        lines = [line for line in block.body.splitlines() if not self.is_known(line, block)]
        if any(line.startswith("stripe-feed sync") for line in lines):
            self.let_happen()
        if any(NEEDS_A_SHELL.search(re.sub(r"'[^']*'|\"[^\"]*\"|#.*", "", line)) for line in lines):
            return self.shell("\n".join(lines), block.place)
        return "".join(self.command(line, block.place) for line in lines)

    def is_known(self, line: str, block: Block) -> bool:
        """Whether a line is dealt with: a comment, exported, or a target or an extra that exists."""
        words = shlex.split(line, comments=True)
        if not words:
            return True
        if words[0] == "export":
            self.env |= dict(word.split("=", 1) for word in words[1:])
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", MAKEFILE, re.M), (
                f"{block.place}: there is no `make {words[1]}`"
            )
        elif words[:2] == ["pip", "install"]:
            found = re.fullmatch(rf"({PROJECT['name']}|\.)(?:\[([a-z,]+)\])?", words[2])
            assert found, f"{block.place}: {line}"
            assert {*(found[2] or "").split(",")} - {""} <= PROJECT[
                "optional-dependencies"
            ].keys(), f"{block.place}: {line}"
        else:
            return False
        return True

    def let_happen(self) -> None:
        """Let something happen between two syncs."""
        if self.synced:
            self.box.live(SECONDS, CHANGES)
            self.box.advance(SETTLED)
        self.synced = True

    def run_console(self, block: Block) -> str:
        """A command and what it prints; `make` stands for what its target runs."""
        first, *expected = block.body.splitlines()
        command = re.sub(r"^make (\w+)$", target, first.removeprefix("$ "))
        printed = self.command(command, block.place)
        assert agree(timeless(expected), timeless(printed.splitlines())), (
            f"{block.place}: it really prints\n{printed}"
        )
        return printed

    def run_python(self, block: Block) -> str:
        script = self.folder / f"{Path(block.page).stem}_{block.line}.py"
        script.write_text(block.body, encoding="utf-8")
        with self.here(), contextlib.redirect_stdout(io.StringIO()) as printed:
            runpy.run_path(str(script), run_name="__main__")
        return printed.getvalue()

    def run_sql(self, block: Block) -> str:
        return self.command(f"stripe-feed query {shlex.quote(block.body)}", block.place)

    def run_toml(self, block: Block) -> None:
        """Goes to the file that its first line names."""
        name, text = block.body.splitlines()[0].removeprefix("# "), block.body
        given: dict[str, Any] = tomlkit.parse(text).unwrap()
        if "sources" in given:
            assert given["sources"]["stripe_feed"]["api_key"] == self.env.pop(
                "STRIPE_SECRET_KEY"
            )  # or the file would not matter
        if "postgres" in given.get("destination", {}):
            text = text.replace(
                given["destination"]["postgres"]["credentials"],
                self.stack.enter_context(postgres_server()),
            )
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{file.read_text() if file.exists() else ''}{text}\n", encoding="utf-8")

    def run_crontab(self, block: Block) -> str:
        """The command, with no key but the one in the folder."""
        line = re.fullmatch(
            r"((?:\S+ ){5})cd (\S+) && \.venv/bin/(stripe-feed .*) >> sync\.log 2>&1\n", block.body
        )
        assert line and line[2] == CRON_FOLDER, f"{block.place}: the command is not as expected"
        assert all(re.fullmatch(r"\*|\*/\d+|\d+", part) for part in line[1].split()), (
            f"{block.place}: {line[1]}"
        )
        secrets = self.folder / ".dlt" / "secrets.toml"
        secrets.parent.mkdir(exist_ok=True)
        secrets.write_text(f'sources.stripe_feed.api_key = "{self.env.pop("STRIPE_SECRET_KEY")}"\n')
        return self.command(line[3], block.place)

    def run_nginx(self, block: Block) -> None:
        """A part of the file that a test of its own runs."""
        lines = [re.sub(r"\s*#.*", "", line).strip() for line in NGINX.splitlines()]
        part = [line.strip() for line in block.body.splitlines()]
        assert "\n".join(part) in "\n".join(lines), (
            f"{block.place}: this is not in pipelines/nginx.conf"
        )

    def run_text(self, block: Block) -> None:
        """Pictures."""


@contextlib.contextmanager
def _chdir(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def target(match: re.Match[str]) -> str:
    """What a target of the Makefile runs."""
    found = re.findall(rf"^{match[1]}:.*\n\t@?\$\(BIN\)/(.+)$", MAKEFILE, re.M)
    assert len(found) == 1, f"`make {match[1]}` is not one command"
    return str(found[0])


def timeless(lines: Sequence[str]) -> list[str]:
    """Without what differs from day to day, as the past of the demo's business ends today: numbers,
    ids, the width of columns; without blank lines around it.
    """
    text = "\n".join(
        re.sub(
            " +", " ", re.sub(r"\b(cus|in|sub)_\w{14}\w*|-?\d[\d,.]*(?: s\b)?|─+", "…", line)
        ).rstrip()
        for line in lines
    )
    return text.strip("\n").splitlines()


def agree(expected: Sequence[str], printed: Sequence[str]) -> bool:
    """Whether the lines are the same; a line of three dots stands for any."""
    pattern = "".join("(?:.*\n)*" if line == "..." else re.escape(f"{line}\n") for line in expected)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in printed)) is not None
