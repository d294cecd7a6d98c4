"""Why a feed store cannot be used: SQLite's codes in words, and what to do. Only damage leads to a
rebuild; nothing is ever to be deleted, for a store holds what no destination does: positions,
holds, messages that were not delivered, and what was forgotten.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ...errors import SetupError

REBUILD = "Run `stripe-feed feed rebuild`: it saves all that can still be read, and makes the log anew. Do not delete the file."


class Unusable(SetupError):
    """The feed store cannot be read or written now; it is left as it is."""


class Damaged(Unusable):
    """Parts of the feed store cannot be read any more: `feed rebuild` saves the others."""


LOCKED = "is held by another program, such as a SQLite shell or a backup. End that, then run again"
RIGHTS = "cannot be written: the rights to it or to its folder, or a file system that is read-only. Allow it, then run again"
KINDS: tuple[tuple[int, str, str], ...] = (
    (3, "access permission denied", RIGHTS),
    (5, "database is locked", LOCKED),
    (6, "database table is locked", LOCKED),
    (7, "out of memory", "needs more memory than there is. Free some, then run again"),
    (8, "attempt to write a readonly database", RIGHTS),
    (
        10,
        "disk i/o error",
        "could not be read or written by the system: a disk that is full, over its quota or failing. Make "
        "room and look at its health, then run again",
    ),
    (13, "database or disk is full", "cannot grow: the disk is full. Make room, then run again"),
    (
        14,
        "unable to open database file",
        "or a file beside it (-wal, -shm) cannot be opened or made: rights, a full disk, or too "
        "many open files. Mend that, then run again",
    ),
    (15, "locking protocol", LOCKED),
    (22, "large file support is disabled", "is too large for this system. Move it, then run again"),
    (23, "authorization denied", RIGHTS),
)
"""SQLite's primary result code, its own words for it (Python 3.10 tells no code), and ours.
https://sqlite.org/rescode.html
"""

ERROR = 1  # SQLITE_ERROR stands for all that has no code of its own
DAMAGES = (
    (11, "malformed", "some of its pages cannot be read"),
    (26, "file is not a database", "it is no SQLite file, or its head cannot be read"),
    (ERROR, "no such table", "a table is missing"),
)
MOVED = 1032  # SQLITE_READONLY_DBMOVED


def unusable(path: Path, fault: sqlite3.Error) -> Unusable | None:
    """What SQLite's error says about the file; nothing where it is a mistake of the caller's.
    SQLite's words are not quoted.
    """
    code, words = getattr(fault, "sqlite_errorcode", None), str(fault).lower()

    def means(primary: int, text: str) -> bool:
        return (code is None or code & 0xFF == primary) and (
            text in words or code not in (None, ERROR)
        )

    if code == MOVED:
        return Unusable(
            f"The feed store {path.name} was moved or deleted while it was in use. Put it back, then run again."
        )
    for primary, text, what in DAMAGES:
        if means(primary, text):
            return damaged(path, what)
    for primary, text, what in KINDS:
        if means(primary, text):
            return Unusable(f"The feed store {path.name} {what}. Nothing is lost.")
    return None


def damaged(path: Path, what: str) -> Damaged:
    """The error for a store of which parts are lost."""
    return Damaged(f"The feed store {path.name} is damaged: {what}. {REBUILD}")
