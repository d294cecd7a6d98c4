"""The command line as tests use it: in this process where that is enough, else in one of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
from typer.testing import CliRunner

from stripe_feed.cli.main import app
from stripe_feed.sandbox import Sandbox
from tests.copies import held_open
from tests.core import CORE_TABLES

FILE = "stripe_feed.duckdb"
COMMAND = [sys.executable, "-m", "stripe_feed.cli.main"]


STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", re.M)


@dataclass(frozen=True)
class Said:
    """What a command ended with; its log without the times."""

    code: int
    out: str
    err: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "err", STAMP.sub("", self.err))

    @property
    def error(self) -> str:
        """Its one line of error; fails where there is none, or more."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in self.err + self.out
        return line.removeprefix("error: ")


@dataclass
class Shell:
    """A folder, an account, and the environment that commands run in."""

    box: Sandbox
    url: str
    folder: Path
    key: str = ""
    env: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str | None]:
        key = self.key or self.box.key
        return {"STRIPE_SECRET_KEY": key, "STRIPE_API_BASE": self.url, **self.env}

    def run(self, *arguments: object, stdin: str | None = None, **environment: str | None) -> Said:
        """Run a command in this process; an environment variable that is None is unset."""
        is_held = arguments[:1] == ("push",)  # it opens the copy again and again
        with held_open(self.folder / FILE) if is_held else nullcontext():
            done = CliRunner().invoke(
                app,
                [str(argument) for argument in arguments],
                input=stdin,
                env={**self.environment, **environment},
            )
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Said(done.exit_code, done.stdout, done.stderr)

    def sync(self, *arguments: object, **environment: str | None) -> Said:
        """`stripe-feed sync` without a pace: the sandbox has no limits unless it is told to."""
        file: object = FILE
        if "--database" in arguments:
            file = arguments[arguments.index("--database") + 1]
        elif account := environment.get("STRIPE_ACCOUNT") or (
            "--account" in arguments and arguments[arguments.index("--account") + 1]
        ):
            file = f"stripe_feed_{str(account).lower()}.duckdb"
        with held_open(self.folder / str(file)):
            return self.run(
                "sync", "--max-rps", 2000, "--endpoint-rps", 2000, *arguments, **environment
            )

    def spawn(
        self,
        *arguments: object,
        first: str = "",
        environment: Mapping[str, str | None] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command in a process of its own; `first` is Python that it runs before."""
        env = {**os.environ, **self.environment, **(environment or {})}
        return subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"{first}\nfrom stripe_feed.cli.main import main\nmain()",
                *map(str, arguments),
            ],
            cwd=self.folder,
            env={name: value for name, value in env.items() if value is not None},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def apart(self, *arguments: object, **environment: str | None) -> Said:
        """Run a command in a process of its own."""
        return ended(self.spawn(*arguments, environment=environment))

    def rows(self, database: str = "stripe_feed.duckdb", dataset: str = "stripe") -> dict[str, int]:
        """Rows by table; none where a table or the file does not exist."""
        if not (self.folder / database).exists():
            return {}
        with duckdb.connect(str(self.folder / database), read_only=True) as connection:
            known = {
                name
                for (name,) in connection.execute(
                    "select table_name from information_schema.tables where table_schema = ?",
                    [dataset],
                ).fetchall()
            }
            return {
                table: _one(connection, f'select count(*) from "{dataset}"."{table}"')
                for table in CORE_TABLES
                if table in known
            }

    def truth(self) -> dict[str, int]:
        """Rows by table as the account has them; what is on a test clock is not loaded."""
        return {table: len(loaded(self.box, table)) for table in CORE_TABLES}


def ended(process: subprocess.Popen[str], seconds: float = 240) -> Said:
    out, err = process.communicate(timeout=seconds)
    return Said(process.returncode, out, err)


def loaded(box: Sandbox, table: str) -> dict[str, dict[str, Any]]:
    """The objects of an account that belong into a table: not those on a test clock, nor those
    created in the future.
    """
    if table in ("subscription_items", "invoice_line_items"):
        parent, name = (
            ("subscriptions", "subscription")
            if table == "subscription_items"
            else ("invoices", "invoice")
        )
        parents = loaded(box, parent)
        return {id: item for id, item in box.children(table).items() if item[name] in parents}
    return {
        id: found
        for id, found in box.objects(table).items()
        if not found.get("test_clock") and (found["created"] or 0) < box.now
    }


def _one(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = connection.execute(sql).fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def holding(file: Path, read_only: bool = False) -> Iterator[int]:
    """Another process that has a DuckDB file open; gives its id."""
    code = (
        f"import duckdb; c = duckdb.connect({str(file)!r}, {read_only}); print(flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield process.pid
    finally:
        process.communicate("\n")


@contextmanager
def shell_of(box: Sandbox, folder: Path) -> Iterator[Shell]:
    """Serve an account and give a shell on it."""
    with box.serve() as url:
        yield Shell(box, url, folder)
