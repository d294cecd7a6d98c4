"""A damaged store, made anew from all that can still be read of it; the log comes from the
destination afterwards.

The damaged file stays beside the new one. Until the log is whole, the new store says that it is
still to be made.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from .schema import MENDING
from .store import FeedStore, marks

SAVED = {
    "meta": "",
    "log": "",
    "pruned": "",
    "totals": "",
    "consumers": "where consumers and triggers stand",
    "triggers": "holds of triggers",
    "messages": "messages that were not delivered",
    "attempts": "attempts to deliver",
    "enrolled": "for whom triggers fired before",
    "forgotten": "what was forgotten",
    "rung": "webhooks that were not read",
}
"""Each table that no destination holds, and what is lost with it. Of the log the order is kept, and
no body.
"""

SIDES = ("-wal", "-shm")


def mend(path: Path) -> list[str]:
    """Put a new store in the place of a damaged one, with what could be read; return what is lost,
    in words, at least in part.

    Killed anywhere, the damaged file or the new one is in its place, and `mend` may be called
    again.
    """
    made = path.with_name(f"{path.name}.mended")
    for name in ("", *SIDES):
        made.with_name(made.name + name).unlink(missing_ok=True)
    with FeedStore(made, mending=True) as store:
        lost = _save(path, store)
        with store.transaction() as db:
            db.execute("insert or replace into meta values (?, 1)", (MENDING,))
        store.erase()
    _swap(path, made)
    return lost


def _save(path: Path, store: FeedStore) -> list[str]:
    lost = []
    with closing(sqlite3.connect(path)) as old, store.transaction() as db:
        with suppress(sqlite3.Error):
            old.execute("pragma cell_size_check = on")
        for table, words in SAVED.items():
            columns = [
                row[1]
                for row in db.execute(f"pragma table_info({table})")
                if row[1] != "body" or table != "log"
            ]
            if not _saved(old, db, table, columns) and words:
                lost.append(words)
    return lost


def _saved(
    old: sqlite3.Connection, new: sqlite3.Connection, table: str, columns: list[str]
) -> bool:
    """Save the rows of a table from its beginning, and from its end where a damage is in between;
    whether that was all.
    """
    is_whole = True
    try:
        there = {row[1] for row in old.execute(f"pragma table_info({table})")}
    except sqlite3.Error:
        return False
    names = [name for name in columns if name in there]
    keys = [
        row[1]
        for row in sorted(new.execute(f"pragma table_info({table})"), key=lambda row: int(row[5]))
        if row[5]
    ]
    for order in ("", f" order by {', '.join(f'{key} desc' for key in keys)}"):
        try:
            for row in (
                old.execute(f"select {', '.join(names)} from {table}{order}") if names else ()
            ):
                _put(new, table, names, row)
            if names:
                return is_whole
        except sqlite3.Error:
            pass
        is_whole = False
    return False


def _put(new: sqlite3.Connection, table: str, names: list[str], row: Any) -> None:
    with suppress(sqlite3.IntegrityError):  # what a damage made of a row
        new.execute(
            f"insert or replace into {table} ({', '.join(names)}) values ({marks(names)})", row
        )


def _swap(path: Path, made: Path) -> None:
    aside = next(one for one in _names(path) if not one.exists())
    try:
        os.link(path, aside)
    except OSError:  # no such links here
        shutil.copyfile(path, aside)
        aside.chmod(0o600)
    for side in SIDES:
        with suppress(FileNotFoundError):
            shutil.copyfile(f"{path}{side}", f"{aside}{side}")
            os.chmod(f"{aside}{side}", 0o600)
    for side in SIDES:  # never beside another file
        Path(f"{path}{side}").unlink(missing_ok=True)
    os.replace(made, path)


def _names(path: Path) -> Iterator[Path]:
    """Names for the damaged file."""
    yield from (path.with_name(f"{path.name}.damaged-{n}") for n in range(1, 10_000))
