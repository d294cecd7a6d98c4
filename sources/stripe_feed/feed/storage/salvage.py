"""Replace a damaged store with a new one that has everything still readable; the log is rebuilt
from the destination later.

The damaged file stays next to the new one. Until its log is whole, the new store is marked as
needing a rebuild.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from .schema import REBUILD_NEEDED
from .store import FeedStore, placeholders

SALVAGED = {
    "meta": "",
    "log": "",
    "pruned": "",
    "totals": "",
    "consumers": "positions of consumers and triggers",
    "triggers": "holds of triggers",
    "model_changes": "rows of models that messages are about",
    "messages": "messages that were not delivered",
    "attempts": "delivery attempts",
    "enrolled": "objects that triggers fired for",
    "forgotten": "forgotten objects",
    "erased": "erased customers",
    "rung": "unread webhooks",
    "pushes": "states of pushes",
}
"""Each table that no destination holds, and what is lost with it. Of the log the order is kept, and
no body.
"""

WAL_SUFFIXES = ("-wal", "-shm")


def salvage(path: Path) -> list[str]:
    """Replace a damaged store with a new one; return descriptions of what was lost, at least in
    part.

    If killed, the damaged file or the new one is in place, and `salvage` may be called again.
    """
    made = path.with_name(f"{path.name}.mended")
    for name in ("", *WAL_SUFFIXES):
        made.with_name(made.name + name).unlink(missing_ok=True)
    with FeedStore(made, rebuilding=True) as store:
        lost = _save(path, store)
        with store.transaction() as db:
            db.execute("insert or replace into meta values (?, 1)", (REBUILD_NEEDED,))
        store.truncate_wal()
    _swap(path, made)
    return lost


def _save(path: Path, store: FeedStore) -> list[str]:
    lost = []
    with closing(sqlite3.connect(path)) as old, store.transaction() as db:
        with suppress(sqlite3.Error):
            old.execute("pragma cell_size_check = on")
        for table, words in SALVAGED.items():
            columns = [
                row[1]
                for row in db.execute(f"pragma table_info({table})")
                if row[1] != "body" or table != "log"
            ]
            if not _copy_rows(old, db, table, columns) and words:
                lost.append(words)
        if _had_baselines(old):
            lost.append("baselines of triggers on models, which start anew")
    return lost


def _had_baselines(old: sqlite3.Connection) -> bool:
    """Whether triggers on models knew rows. They are not salvaged: each row that is missing would
    fire.
    """
    try:
        return old.execute("select 1 from model_states limit 1").fetchone() is not None
    except sqlite3.Error:  # damaged, or an older file without the table
        return False


def _copy_rows(
    old: sqlite3.Connection, new: sqlite3.Connection, table: str, columns: list[str]
) -> bool:
    """Copy the rows of a table from its start, and from its end if a damaged part is in between;
    return whether that was all.
    """
    is_whole = True
    try:
        available = {row[1] for row in old.execute(f"pragma table_info({table})")}
    except sqlite3.Error:
        return False
    names = [name for name in columns if name in available]
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
                _insert(new, table, names, row)
            if names:
                return is_whole
        except sqlite3.Error:
            pass
        is_whole = False
    return False


def _insert(new: sqlite3.Connection, table: str, names: list[str], row: Any) -> None:
    with suppress(sqlite3.IntegrityError):  # a damaged row
        new.execute(
            f"insert or replace into {table} ({', '.join(names)}) values ({placeholders(names)})",
            row,
        )


def _swap(path: Path, made: Path) -> None:
    aside = next(candidate for candidate in _backup_names(path) if not candidate.exists())
    try:
        os.link(path, aside)
    except OSError:  # no hard links on this file system
        shutil.copyfile(path, aside)
        aside.chmod(0o600)
    for side in WAL_SUFFIXES:
        with suppress(FileNotFoundError):
            shutil.copyfile(f"{path}{side}", f"{aside}{side}")
            os.chmod(f"{aside}{side}", 0o600)
    for side in WAL_SUFFIXES:  # must not be applied to the new file
        Path(f"{path}{side}").unlink(missing_ok=True)
    os.replace(made, path)


def _backup_names(path: Path) -> Iterator[Path]:
    """Iterate over names for the damaged file."""
    yield from (path.with_name(f"{path.name}.damaged-{n}") for n in range(1, 10_000))
