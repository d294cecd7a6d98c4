"""Translate SQLite's errors: why a feed store cannot be used, and what to do.

Only damage leads to a rebuild. Never suggest deleting the file: a store holds what no destination
does, such as positions, holds, undelivered messages and forgotten objects.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ...errors import SetupError

REBUILD = "Run `stripe-feed feed rebuild`: it saves what is still readable and rebuilds the log. Do not delete the file."


class Unusable(SetupError):
    """The feed store cannot be read or written now; it is left unchanged."""


class Damaged(Unusable):
    """Parts of the feed store are unreadable: `feed rebuild` saves the others."""


LOCKED = "is locked by another program, such as a SQLite shell or a backup. Stop it, then run again"
RIGHTS = "cannot be written: permissions of the file or its folder, or a read-only file system. Allow writing, then run again"
_KINDS: tuple[tuple[int, str, str], ...] = (
    (3, "access permission denied", RIGHTS),
    (5, "database is locked", LOCKED),
    (6, "database table is locked", LOCKED),
    (7, "out of memory", "needs more memory than available. Free some, then run again"),
    (8, "attempt to write a readonly database", RIGHTS),
    (
        10,
        "disk i/o error",
        "could not be read or written: the disk is full, over quota or failing. Make "
        "room and check the disk, then run again",
    ),
    (13, "database or disk is full", "cannot grow: the disk is full. Make room, then run again"),
    (
        14,
        "unable to open database file",
        "or a file next to it (-wal, -shm) cannot be opened or created: permissions, a full disk, or too "
        "many open files. Fix that, then run again",
    ),
    (15, "locking protocol", LOCKED),
    (22, "large file support is disabled", "is too large for this system. Move it, then run again"),
    (23, "authorization denied", RIGHTS),
)
"""SQLite's primary result code, its own words for it (Python 3.10 tells no code), and ours.
https://sqlite.org/rescode.html
"""

ERROR = 1  # SQLITE_ERROR: every error without a code of its own
DAMAGES = (
    (11, "malformed", "some of its pages cannot be read"),
    (26, "file is not a database", "it is not a SQLite file, or its header is unreadable"),
    (ERROR, "no such table", "a table is missing"),
)
MOVED = 1032  # SQLITE_READONLY_DBMOVED


def unusable(path: Path, fault: sqlite3.Error) -> Unusable | None:
    """Translate SQLite's error about the file; None if it is the caller's mistake. SQLite's own
    text is not quoted.
    """
    code, message = getattr(fault, "sqlite_errorcode", None), str(fault).lower()

    def means(primary: int, text: str) -> bool:
        return (code is None or code & 0xFF == primary) and (
            text in message or code not in (None, ERROR)
        )

    if code == MOVED:
        return Unusable(
            f"The feed store {path.name} was moved or deleted while it was in use. Put it back, then run again."
        )
    for primary, text, problem in DAMAGES:
        if means(primary, text):
            return damaged(path, problem)
    for primary, text, problem in _KINDS:
        if means(primary, text):
            return Unusable(f"The feed store {path.name} {problem}. Nothing is lost.")
    return None


def damaged(path: Path, what: str) -> Damaged:
    """Return the error for a store with lost parts."""
    return Damaged(f"The feed store {path.name} is damaged: {what}. {REBUILD}")
