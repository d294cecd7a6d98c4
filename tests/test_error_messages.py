"""What a destination answers, in our words: never in its own, which hold rows and passwords."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pyarrow as pa
import pytest
from dlt.common.configuration.exceptions import (
    ConfigFieldMissingException,
    ConfigValueCannotBeCoercedException,
)
from dlt.common.configuration.providers.toml import TomlProviderReadException
from dlt.common.configuration.specs import RuntimeConfiguration
from dlt.common.exceptions import MissingDependencyException
from dlt.common.runtime.init import initialize_runtime
from dlt.destinations.exceptions import DatabaseTerminalException
from dlt.pipeline.exceptions import InvalidPipelineName

from stripe_feed.destination.duckdb_file import check_file
from stripe_feed.destination.error_messages import (
    SQLSTATES,
    TEXT_PATTERNS,
    causes_of,
    find_reason,
    refused_error,
    settings_error,
    translate_error,
)
from stripe_feed.destination.pipeline import open_pipeline
from stripe_feed.errors import SetupError, StripeFeedError, TryLater, UsageError
from stripe_feed.sandbox import Sandbox
from tests.commands import Shell

CANARY = "jane.canary@example.com"


class Refused(Exception):
    """As drivers tell it: a code, and words that quote the row."""

    def __init__(self, code: str) -> None:
        super().__init__(f"ERROR: {CANARY}")
        self.sqlstate = code


def raised(work: Callable[[], Any]) -> Exception:
    """What a call raises."""
    try:
        work()
    except Exception as fault:
        return fault
    raise AssertionError


def by_duckdb(statement: str) -> Exception:
    with duckdb.connect() as base:
        base.execute(
            "create table t (id text not null, n int check (n < 5)); create unique index one on t (id)"
        )
        base.execute("insert into t values (?, 1)", [CANARY])
        return raised(lambda: base.execute(statement))


def by_sqlite(statement: str) -> Exception:
    base = sqlite3.connect(":memory:")
    base.executescript(
        f"create table t (id text unique not null, n int check (n < 5)); insert into t values ('{CANARY}', 1)"
    )
    fault = raised(lambda: base.execute(statement))
    base.close()
    return fault


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            by_duckdb(f"insert into t values ('{CANARY}', 1)"),
            "a unique index or constraint refuses rows",
        ),
        (
            by_duckdb(f"insert into t values ('{CANARY} NOT NULL', 7)"),
            "a check, a trigger or a foreign key refuses",
        ),
        (
            by_duckdb("insert into t values (null, 1)"),
            "a column that may not be null (t.id) gets no value",
        ),
        (by_duckdb(f"select cast('{CANARY}' as int)"), "a column has another type"),
        (
            by_duckdb("select cast(sum(9223372036854775807) as bigint) from range(2)"),
            "a number or a sum is beyond 64 bits",
        ),
        (
            by_duckdb("select 9223372036854775807::bigint + 1::bigint"),
            "a number or a sum is beyond 64 bits",
        ),
        (
            by_duckdb("select cast(9223372036854775807::decimal(38, 0) + 1 as bigint)"),
            "a number or a sum is beyond 64 bits",
        ),
        (by_duckdb("select cast(9223372036854775807 as int)"), "a column has another type"),
        (by_duckdb(f"""select cast('"{CANARY}"'::json as bigint)"""), "a column has another type"),
        (by_duckdb("select * from missing"), "a table or a column is missing"),
        (
            by_duckdb("alter table t add column m int not null"),
            "it cannot do what the load asks of it",
        ),
        (
            duckdb.IOException(f"IO Error: Could not write file {CANARY}: No space left on device"),
            "no space is left",
        ),
        (duckdb.OutOfMemoryException(CANARY), "it ran out of memory"),
        (duckdb.FatalException(CANARY), "its files cannot be read or written"),
        (
            by_sqlite(f"insert into t values ('{CANARY}', 1)"),
            "a unique index or constraint (t.id) refuses",
        ),
        (by_sqlite("insert into t values ('b', 7)"), "a check, a trigger or a foreign key refuses"),
        (
            by_sqlite("insert into t values (null, 1)"),
            "a column that may not be null (t.id) gets no value",
        ),
        (by_sqlite("select * from missing"), "a table or a column is missing"),
        (sqlite3.OperationalError("database or disk is full"), "no space is left"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "it can only be read"),
        (Refused("23505"), "a unique index or constraint refuses"),
        (Refused("42501"), "the user lacks a right"),
        (Refused("53100"), "no space is left"),
        (Refused("25006"), "it can only be read"),
        (Refused("22003"), "a number or a sum is beyond 64 bits"),
        (Refused("57014"), "a statement was cancelled, or took longer"),
        (Refused("99999"), "it refuses (99999)"),
        (pa.ArrowInvalid(CANARY), "its files cannot be read or written"),
    ],
)
def test_a_refusal_says_why_and_what_to_do(fault: Exception, words: str) -> None:
    """In whatever wrapping it comes; without a word of what the driver says."""
    wrapped = DatabaseTerminalException(fault)
    wrapped.job_id = "customers.d9f0.0.parquet"  # type: ignore[attr-defined]
    for one in (fault, wrapped):
        said = refused_error(one, "duckdb", "stripe")
        assert isinstance(said, SetupError)
        assert words in str(said)
        assert str(said).endswith(", then run again.")
        assert CANARY not in str(said)
    assert str(said).startswith("duckdb cannot load customers: ")


@pytest.mark.parametrize(
    "fault",
    [
        Refused("40P01"),
        Refused("40001"),
        Refused("55P03"),
        Refused("57P01"),
        Refused("08006"),
        Refused("53300"),
        sqlite3.OperationalError("database is locked"),
        psycopg2.OperationalError(f"server closed the connection {CANARY}"),
        duckdb.TransactionException(f"TransactionContext Error: Conflict {CANARY}"),
        ConnectionResetError(104, CANARY),
        TimeoutError(CANARY),
    ],
)
def test_what_passes_is_to_be_tried_again(fault: Exception) -> None:
    """Exit code 5."""
    said = translate_error(fault)
    assert isinstance(said, TryLater)
    assert str(said).endswith("Run again.")
    assert CANARY not in str(said)


def test_every_reason_is_a_sentence() -> None:
    """Of what went wrong, and of what to do unless it passes."""
    for one in [
        *SQLSTATES.values(),
        *(reason for patterns in TEXT_PATTERNS.values() for _, reason in patterns),
    ]:
        assert one.is_temporary != bool(one.fix)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            OSError(errno.ENOSPC, "x", "/srv/state"),
            "/srv/state: No space left on device. Fix that, then run again.",
        ),
        (OSError(errno.EROFS, "x"), "Read-only file system. Fix that, then run again."),
        (
            PermissionError(errno.EACCES, "x", "/srv/state"),
            "/srv/state: Permission denied. Fix that, then run again.",
        ),
        (MemoryError(), "The machine has too little memory left."),
        (RuntimeError("can't start new thread"), "The machine cannot start more threads."),
        (ModuleNotFoundError("x", name="alembic"), "The module alembic is not installed."),
        (
            MissingDependencyException("Postgres destination", ["dlt[postgres]"]),
            "Run `pip install 'stripe-feed[postgres]'`.",
        ),
        (
            MissingDependencyException("Snowflake destination", ["dlt[snowflake]>=1"]),
            "Run `pip install 'dlt[snowflake]>=1'`.",
        ),
        (
            ConfigValueCannotBeCoercedException("workers", CANARY, int),
            "dlt's setting workers has a value of the wrong type.",
        ),
        (InvalidPipelineName(CANARY, CANARY), "dlt refuses: InvalidPipelineName."),
    ],
)
def test_what_happens_to_any_program_is_no_defect(fault: Exception, words: str) -> None:
    said = translate_error(fault)
    assert isinstance(said, SetupError)
    assert words in str(said)
    assert CANARY not in str(said)


def test_a_defect_of_ours_stays_one() -> None:
    """Also where it came up while a database's error was handled, and where dlt has wrapped it."""
    assert translate_error(KeyError("x")) is None
    assert translate_error(ModuleNotFoundError("x", name="stripe_feed.nope")) is None
    assert find_reason(KeyError("ABCDE")) is None


def test_our_own_error_is_found_in_any_wrapping() -> None:
    ours = UsageError("Give it like a,b.")
    outer = RuntimeError("wrapped")
    outer.__cause__ = ours
    assert translate_error(outer) is ours


def test_a_circle_of_causes_ends() -> None:
    one, other = ValueError("a"), ValueError("b")
    one.__cause__, other.__cause__ = other, one
    assert causes_of(one) == [one, other]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b'[sources\napi_key = "sk_canary"\n',
            "secrets.toml cannot be read: line 1 is not valid TOML.",
        ),
        (b'[a]\napi_key = "sk_canary\n', "secrets.toml cannot be read: line 2 is not valid TOML."),
        (b"[a]\nb = 1\n[a]\nb = 2\n", "secrets.toml cannot be read: line 3 is not valid TOML."),
        (
            b'\xef\xbb\xbf[a]\nb = "sk_canary"\n',
            "secrets.toml cannot be read: it begins with a byte order mark.",
        ),
        (b'[a]\nb = "sk_canary\xff"\n', "secrets.toml cannot be read: line 2 is not UTF-8."),
    ],
)
def test_settings_that_cannot_be_read_are_named_with_their_line(
    tmp_path: Path, content: bytes, words: str
) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "secrets.toml"
    good.write_text("[a]\nb = 1\n")
    bad.write_bytes(content)
    fault = TomlProviderReadException(
        "secrets.toml",
        "secrets.toml",
        [str(tmp_path / "none.toml"), str(good), str(bad)],
        "sk_canary",
    )

    said = settings_error(fault)

    assert isinstance(translate_error(fault), StripeFeedError)
    assert words in str(said)
    assert "canary" not in str(said)


def test_a_missing_setting_is_named() -> None:
    """`ConfigFieldMissingException` prints where it looked, and what it found there."""
    fault = ConfigFieldMissingException.__new__(ConfigFieldMissingException)
    fault.spec_name, fault.fields = "PostgresCredentials", ["database"]
    assert "ConfigFieldMissingException (PostgresCredentials)" in str(translate_error(fault))


@pytest.mark.parametrize(
    ("database", "words"),
    [
        (":memory:", "in memory would be gone"),
        ("md:mine", "--destination motherduck"),
        ("", "names a DuckDB file"),
        ("postgres://u:canary@h/d", "names a DuckDB file"),
        ("folder", "is a folder. Give --database a file in it"),
        ("pipe", "not a regular file"),
        ("/dev/null", "not a regular file"),
        ("x" * 300, "cannot be used: File name too long"),
        ("loop", "cannot be used: Too many levels"),
        ("dangling", "links to a folder that does not exist"),
        ("lite.duckdb", "is an SQLite database"),
        ("empty.duckdb", "is empty. Remove it"),
        ("text.duckdb", "is not a DuckDB database, or is damaged"),
    ],
)
def test_what_is_no_duckdb_file_is_said_by_readers_and_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str, words: str
) -> None:
    """None of them hangs on it or writes to it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.duckdb").touch()
    (tmp_path / "text.duckdb").write_text("text" * 999)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere/x.duckdb")
    with closing(sqlite3.connect(tmp_path / "lite.duckdb")) as base:
        base.execute("create table t (id)")
    shell = Shell(Sandbox(seed=1, customers=1), "http://127.0.0.1:1", tmp_path)
    for arguments in (["status"], ["feed", "tail"]):
        said = shell.run(*arguments, "--database", database)
        assert said.code == 3
        assert words in said.error
        assert "canary" not in said.error


def test_what_is_left_of_a_file_that_could_not_be_created_stops_no_later_run(
    tmp_path: Path,
) -> None:
    """As after a full disk. Its target is removed, not a link to it; anything else is left alone."""
    whole = tmp_path / "whole.duckdb"
    duckdb.connect(str(whole)).close()
    for size in (0, 4096, 8192):
        (tmp_path / "target").write_bytes(whole.read_bytes()[:size])
        file = tmp_path / f"{size}.duckdb"
        file.symlink_to("target")
        check_file(file)
        assert file.is_symlink() and not file.exists()
    with closing(duckdb.connect(str(whole))):
        check_file(whole)
        assert is_locked(whole)
    whole.write_bytes(b"text" * 99)
    with pytest.raises(SetupError, match="is not a DuckDB database"):
        check_file(whole)
    assert whole.exists()
    begun = tmp_path / "begun.duckdb"
    begun.touch()
    (log := tmp_path / "begun.duckdb.wal").touch()
    with pytest.raises(SetupError):
        check_file(begun)
    log.unlink()
    holder = f"import fcntl; file = open({str(begun)!r}, 'r+b'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has the lock, as DuckDB does that creates a file
        with pytest.raises(StripeFeedError):
            check_file(begun)
        process.communicate(b"\n")
    assert begun.exists()
    check_file(begun)
    assert not begun.exists()


def is_locked(file: Path) -> bool:
    """Whether another process finds a file locked."""
    take = f"import fcntl; fcntl.lockf(open({str(file)!r}, 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    return subprocess.run([sys.executable, "-c", take], capture_output=True).returncode != 0


@pytest.mark.parametrize(
    "dataset", ["", "  ", "x" * 300, "a\0b", "information_schema", "PG_Catalog", "temp"]
)
def test_what_is_no_dataset_is_usage(tmp_path: Path, dataset: str) -> None:
    with pytest.raises(UsageError, match="--dataset"):
        open_pipeline(str(tmp_path / "x.duckdb"), dataset=dataset, state_dir=str(tmp_path))


def test_what_dlt_raises_where_it_applies_its_settings_is_a_setting() -> None:
    """A bare `ValueError`, for a level of its log that does not exist."""
    with pytest.raises(ValueError, match="LOUD") as raised:
        initialize_runtime("dlt", RuntimeConfiguration(log_level="LOUD"))
    assert str(translate_error(raised.value)) == (
        "dlt refuses its settings (ValueError). Check .dlt/config.toml and the environment."
    )


def test_a_level_of_dlts_log_that_does_not_exist_is_a_setting(tmp_path: Path) -> None:
    """dlt raises a bare `ValueError`; it takes its settings over once in a process."""
    said = Shell(Sandbox(seed=1, customers=1), "http://127.0.0.1:1", tmp_path).apart(
        "sync", RUNTIME__LOG_LEVEL="LOUD"
    )
    assert (said.code, said.error) == (
        3,
        "dlt refuses its settings (ValueError). Check .dlt/config.toml and the environment.",
    )
