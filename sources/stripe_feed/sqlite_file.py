"""A SQLite file that holds account data: only its owner may read it, and its readers do not wait for
its one writer.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from .errors import SetupError

_BUSY_SECONDS = 30.0


class SqliteFile:
    """The file, created if it is missing. `close` it, or use it in a `with` block.

    Any number of threads and processes may use one file.
    """

    noun: ClassVar[str] = "file"
    advice: ClassVar[str] = "Choose another path."
    unusable: ClassVar[type[SetupError]] = SetupError
    """Raised if the file cannot be created or read."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._make_private()
        with self._translated_errors():
            self._db = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            with self._translated_errors():
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        """Check the format of the file, and create its tables."""

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Raise SQLite's errors about the file as errors of ours."""
        yield

    def _make_private(self) -> None:
        """Create the file for its owner only; SQLite gives its -wal and -shm the same mode.

        An existing file is not opened here: closing it would release the locks of SQLite's own
        connections in this process.
        """
        try:
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            status = self.path.lstat()
            if not stat.S_ISREG(status.st_mode):
                kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a regular file"
                raise SetupError(
                    f"The {self.noun} {self.path} is {kind}, and is left unchanged. {self.advice}"
                )
            if status.st_mode & 0o077:
                self.path.chmod(0o600)
        except OSError as fault:
            raise self.unusable(
                f"The {self.noun} {self.path} cannot be created or read ({fault.strerror}). {self.advice}"
            ) from None

    def _require_format(self, newest: int) -> int:
        """Return the format of the file. Raises `SetupError` for one that a newer version wrote."""
        found = int(self._db.execute("pragma user_version").fetchone()[0])
        if found > newest:
            raise SetupError(
                f"{self.path.name} was written by a newer stripe-feed: `pip install -U stripe-feed`."
            )
        return found

    def _write_ahead(self) -> None:
        """Switch to write-ahead logging: readers and one writer at a time. Retries, for two that
        switch a new file at once do not wait for each other.
        """
        for attempt in range(200):
            try:
                self._db.execute("pragma journal_mode = wal")
                return
            except sqlite3.OperationalError as fault:
                if attempt == 199 or "locked" not in str(fault):
                    raise
                time.sleep(0.02)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def transaction(self, kind: str = "immediate") -> Iterator[sqlite3.Connection]:
        """Run a block all or nothing; nobody else writes meanwhile. `kind="deferred"`: read from
        one state of the file.

        A nested transaction is part of the outer one.
        """
        with self._lock:
            if self._db.in_transaction:
                yield self._db
                return
            with self._translated_errors():
                self._db.execute(f"begin {kind}")
                try:
                    yield self._db
                    self._db.execute("commit")
                except BaseException:
                    if self._db.in_transaction:  # SQLite ends it itself if the disk is full
                        self._db.execute("rollback")
                    raise

    def query(self, sql: str, *values: Any) -> list[Any]:
        """Return the rows of one statement."""
        with self._lock, self._translated_errors():
            return self._db.execute(sql, values).fetchall()
