"""The feed store: one SQLite file with the log of completed changes, numbered without gaps, and the
consumers' cursors.

Any number of threads and processes may use one file. It holds personal data: only its owner may
read it.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import SetupError
from ..change import CHANGE_ID, CUSTOMER_ID, OBJECT_ID, RESOURCE, STORED, Change, Entry, change
from .schema import ADDED, FORMAT, MENDING, SCHEMA
from .store_errors import Unusable, damaged, unusable

BUSY_SECONDS = 30.0
WAL_BYTES = 32_000_000
ROOM = 250_000  # bytes
WINDOW = 5_000  # positions looked at in one select, however few of them match


@dataclass(frozen=True, slots=True)
class Page:
    """Changes that match, and how far the log was looked through for them."""

    changes: list[Change]
    upto: int  # every position up to here was looked at
    head: int  # the newest position
    horizon: int  # the newest position that was pruned


class FeedStore:
    """A feed store's file; it is made where there is none. `close` it, or use it in a `with` block."""

    def __init__(self, path: str | os.PathLike[str], *, mending: bool = False) -> None:
        self.path = Path(path)
        self._turn = threading.RLock()
        _own(self.path)
        with self._told():
            self._db = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            with self._told():
                self._prepare(mending)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, mending: bool) -> None:
        found = self._db.execute("pragma user_version").fetchone()[0]
        if found > FORMAT:
            raise SetupError(
                f"{self.path.name} was written by a newer stripe-feed: `pip install -U stripe-feed`."
            )
        tables = {
            name
            for (name,) in self._db.execute("select name from sqlite_master where type = 'table'")
        }
        if tables and not tables & {"meta", "consumers", "log"}:
            raise SetupError(
                f"{self.path.name} is no feed store, but a database of another program. Choose another place."
            )
        _write_ahead(self._db)
        self._db.execute(
            "pragma synchronous = normal"
        )  # a power cut can cost acknowledgements, never the order
        self._db.execute(
            "pragma secure_delete = fast"
        )  # some builds overwrite always; see `zeroing`
        self._db.execute(f"pragma journal_size_limit = {WAL_BYTES}")
        if found < FORMAT:
            with self.transaction() as db:
                for statement in SCHEMA.split(";"):
                    db.execute(statement)
                for table, column, kind in ADDED:
                    if column not in {row[1] for row in db.execute(f"pragma table_info({table})")}:
                        db.execute(f"alter table {table} add column {column} {kind}")
                db.execute(f"pragma user_version = {FORMAT}")
        if not mending and self.number(MENDING):
            raise damaged(self.path, "its log is still to be made anew")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What SQLite says of the file becomes `Unusable`, or `Damaged`."""
        try:
            yield
        except sqlite3.Error as fault:
            found = unusable(self.path, fault)
            if found is None:
                raise
            raise found from None

    def close(self) -> None:
        """Close the file."""
        with self._turn:
            self._db.close()

    def __enter__(self) -> FeedStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def transaction(self, kind: str = "immediate") -> Iterator[sqlite3.Connection]:
        """All or nothing; nobody else writes meanwhile. `kind="deferred"`: one state of the file to
        read from.

        One within another is part of it.
        """
        with self._turn:
            if self._db.in_transaction:
                yield self._db
                return
            with self._told():
                self._db.execute(f"begin {kind}")
                try:
                    yield self._db
                    self._db.execute("commit")
                except BaseException:
                    if self._db.in_transaction:  # SQLite ends it by itself where the disk is full
                        self._db.execute("rollback")
                    raise

    def ask(self, sql: str, *values: Any) -> list[Any]:
        """The rows of one statement."""
        with self._turn, self._told():
            return self._db.execute(sql, values).fetchall()

    def require_whole(self) -> None:
        """Raise `Damaged` where any page of the file is; it reads them all."""
        if self.ask("pragma integrity_check(1)") != [("ok",)]:
            raise damaged(self.path, "some of its pages cannot be read")

    def require_room(self) -> None:
        """Raise `Unusable` where the disk has no place for some hundred notes."""
        with self.transaction() as db:
            db.execute("insert or replace into meta values ('room', zeroblob(?))", (ROOM,))
        self.ask("delete from meta where name = 'room'")

    def erase(self) -> None:
        """Overwrite what a deletion left in the write-ahead log."""
        self.ask("pragma wal_checkpoint(truncate)")

    @contextmanager
    def zeroing(self) -> Iterator[None]:
        """What is deleted inside is overwritten in the file."""
        with self._turn:
            before = self._db.execute("pragma secure_delete").fetchone()[0]
            self._db.execute("pragma secure_delete = on")
            try:
                yield
            finally:
                self._db.execute(f"pragma secure_delete = {int(before)}")

    @property
    def head(self) -> int:
        """The newest position; 0 for an empty feed."""
        return self.number("head")

    @property
    def horizon(self) -> int:
        """The newest position that was pruned; 0 where nothing was."""
        return self.number("horizon")

    def number(self, name: str) -> int:
        """A number of the store's own."""
        rows = self.ask("select value from meta where name = ?", name)
        return int(rows[0][0]) if rows else 0

    def relayed(self, into: str = "") -> set[str]:
        """The ids of the loads whose changes are all in the log."""
        return {load_id for (load_id,) in self.ask(f"select load_id from loads{into}")}

    def append(self, entries: Iterable[Entry], done: Collection[str] = (), into: str = "") -> int:
        """Add changes to the end of the log, and note the loads that are `done` with them; return
        how many were new.

        All or nothing. Positions are dense; a `change_id` that the log has or had is left out.
        """
        found = {entry[CHANGE_ID]: entry for entry in reversed(list(entries))}
        with self.transaction() as db:
            self._withhold(db, found)
            known = _known(db, list(found), into)
            fresh = [entry for entry in reversed(found.values()) if entry[CHANGE_ID] not in known]
            _number(db, fresh, into)
            db.executemany(
                f"insert or ignore into loads{into} values (?)", [(load_id,) for load_id in done]
            )
        return len(fresh)

    def _withhold(self, db: sqlite3.Connection, found: dict[str, Entry]) -> None:
        """Objects can be forgotten after their changes were read and before they are written."""
        forgotten = {name for (name,) in db.execute("select object_id from forgotten")}
        for key, one in found.items() if forgotten else ():
            if one[OBJECT_ID] in forgotten or one[CUSTOMER_ID] in forgotten:
                found[key] = (*one[:-1], None)

    def note_totals(self, objects: Mapping[str, int]) -> None:
        """Keep how many objects of each resource the copy holds, for guards."""
        with self.transaction() as db:
            db.executemany("insert or replace into totals values (?, ?)", list(objects.items()))

    def page(
        self,
        after: int,
        limit: int,
        resources: Sequence[str] = (),
        ops: Sequence[str] = (),
        upto: int | None = None,
    ) -> Page:
        """Changes behind a position, in order: at most `limit`, out of the next `WINDOW` positions,
        none behind `upto`.
        """
        with self.transaction("deferred") as db:
            numbers = dict(db.execute("select name, value from meta"))
            head = numbers["head"]
            last = min(after + WINDOW, head if upto is None else min(upto, head))
            where, values = _where(resources, ops)
            rows = db.execute(
                f"select position, object_version, {', '.join(STORED)} from log "
                f"where position > ? and position <= ?{where} order by position limit ?",
                (after, last, *values, limit),
            ).fetchall()
        found = [self._change(row) for row in rows]
        return Page(
            found,
            found[-1].offset if len(found) == limit else max(last, after),
            head,
            numbers["horizon"],
        )

    def newest(
        self, count: int, resources: Sequence[str] = (), ops: Sequence[str] = ()
    ) -> list[Change]:
        """The last changes, oldest first."""
        where, values = _where(resources, ops)
        rows = self.ask(
            f"select position, object_version, {', '.join(STORED)} from log where 1{where} order by position desc limit ?",
            *values,
            count,
        )
        return [self._change(row) for row in reversed(rows)]

    def at(self, position: int) -> Change | None:
        """The change at a position."""
        return self._one("position", position)

    def by_id(self, change_id: str) -> Change | None:
        """The change with an id."""
        return self._one("change_id", change_id)

    def _one(self, column: str, value: int | str) -> Change | None:
        rows = self.ask(
            f"select position, object_version, {', '.join(STORED)} from log where {column} = ?",
            value,
        )
        return self._change(rows[0]) if rows else None

    def _change(self, row: Sequence[Any]) -> Change:
        try:
            return change(row[0], row[1], row[2:])
        except (ValueError, TypeError, ArithmeticError, zlib.error):
            raise damaged(self.path, f"the change at offset {row[0]} cannot be read") from None


def delivery_lock(path: Path) -> Path:
    """The file that whoever delivers from a store holds."""
    return path.with_name(f"{path.name}.deliver.lock")


def _own(path: Path) -> None:
    """Make the file, for its owner only; SQLite gives its -wal and -shm the same mode.

    A file that exists is not opened here: closing it would end the locks of SQLite's own
    connections in this process.
    """
    try:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no regular file"
            raise SetupError(
                f"The feed store {path} is {kind}, and is left alone. Move it away, or choose another place."
            )
        if found.st_mode & 0o077:
            path.chmod(0o600)
    except OSError as fault:
        raise Unusable(
            f"The feed store {path} cannot be made or read ({fault.strerror}). Choose another place."
        ) from None


def _write_ahead(db: sqlite3.Connection) -> None:
    """Readers and one writer at a time. Two that switch a new file at once do not wait for each
    other by themselves.
    """
    for attempt in range(200):
        try:
            db.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError as fault:
            if attempt == 199 or "locked" not in str(fault):
                raise
            time.sleep(0.02)


def _where(resources: Sequence[str], ops: Sequence[str]) -> tuple[str, list[str]]:
    sql = "".join(
        f" and {name} in ({marks(some)})"
        for name, some in (("resource", resources), ("op", ops))
        if some
    )
    return sql, [*resources, *ops]


def marks(values: Collection[Any]) -> str:
    """One placeholder per value."""
    return ", ".join("?" * len(values))


def _known(db: sqlite3.Connection, ids: list[str], into: str) -> set[str]:
    tables = (f"log{into}",) if into else ("log", "pruned")  # a rebuild brings back what was pruned
    return {
        found
        for table in tables
        for (found,) in db.execute(
            f"select change_id from {table} where change_id in ({marks(ids)})", ids
        )
    }


def _number(db: sqlite3.Connection, fresh: list[Entry], into: str) -> None:
    """Write changes under the next positions, and under the next version of each object."""
    if not fresh:
        return
    ids = list({entry[OBJECT_ID] for entry in fresh})
    versions: dict[tuple[str, str], int] = {
        (resource, object_id): count
        for resource, object_id, count in db.execute(
            f"select resource, object_id, versions from objects{into} where object_id in ({marks(ids)})",
            ids,
        )
    }
    (head,) = db.execute(f"select value from meta where name = 'head{into}'").fetchone()
    rows = []
    for position, entry in enumerate(fresh, head + 1):
        key = (entry[RESOURCE], entry[OBJECT_ID])
        versions[key] = versions.get(key, 0) + 1
        rows.append((position, versions[key], *entry))
    columns = f"position, object_version, {', '.join(STORED)}"
    db.executemany(f"insert into log{into} ({columns}) values ({marks(rows[0])})", rows)
    counts = [(object_id, resource, count) for (resource, object_id), count in versions.items()]
    db.executemany(f"insert or replace into objects{into} values (?, ?, ?)", counts)
    db.execute(f"update meta set value = ? where name = 'head{into}'", (head + len(fresh),))
