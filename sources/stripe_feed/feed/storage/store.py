"""The feed store: one SQLite file with the log of completed changes, numbered without gaps, and the
consumers' positions.

Any number of threads and processes may use one file. It holds personal data: only its owner may
read it.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import SetupError
from ...resources.push_tables import PUSHES
from ...sqlite_file import SqliteFile
from ..change import (
    ACCOUNT_ID,
    CHANGE_ID,
    CUSTOMER_ID,
    LOG_COLUMNS,
    OBJECT_ID,
    RESOURCE,
    Change,
    Entry,
    change_from_row,
)
from .schema import ADDED, FORMAT, REBUILD_NEEDED, SCHEMA
from .store_errors import Unusable, damaged, unusable

WAL_BYTES = 32_000_000
MODELS_BUILT = "models_built"  # counter of builds
# counter that is set if the changes are of several accounts: two may have objects of the same id
MANY_ACCOUNTS = "many_accounts"
SPARE_BYTES = 250_000  # bytes
SCAN_WINDOW = 5_000  # positions searched in one select, however few match


@dataclass(frozen=True, slots=True)
class Page:
    """Matching changes, and how far the log was searched for them."""

    changes: list[Change]
    upto: int  # every position up to here was searched
    head: int  # the newest position
    pruned_through: int  # the newest pruned position


class FeedStore(SqliteFile):
    """The file of a feed store, created if it is missing. `close` it, or use it in a `with` block."""

    noun = "feed store"
    unusable = Unusable

    def __init__(self, path: str | os.PathLike[str], *, rebuilding: bool = False) -> None:
        super().__init__(path)
        if not rebuilding and self.counter(REBUILD_NEEDED):
            self.close()
            raise damaged(self.path, "its log still has to be rebuilt")

    def __enter__(self) -> FeedStore:
        return self

    def _prepare(self) -> None:
        file_format = self._require_format(FORMAT)
        self.is_new = file_format == 0  # until the changes that the copy has are there
        tables = {
            name
            for (name,) in self._db.execute("select name from sqlite_master where type = 'table'")
        }
        if tables and not tables & {"meta", "consumers", "log"}:
            raise SetupError(
                f"{self.path.name} is not a feed store but another program's database. Choose another path."
            )
        self._write_ahead()
        self._db.execute(
            "pragma synchronous = normal"
        )  # a power cut can cost acknowledgements, never the order
        self._db.execute(
            "pragma secure_delete = fast"
        )  # some builds overwrite always; see `secure_delete`
        self._db.execute(f"pragma journal_size_limit = {WAL_BYTES}")
        if file_format < FORMAT:
            with self.transaction() as db:
                for statement in SCHEMA.split(";"):
                    db.execute(statement)
                for table, column, kind in ADDED:
                    if column not in {row[1] for row in db.execute(f"pragma table_info({table})")}:
                        db.execute(f"alter table {table} add column {column} {kind}")
                db.execute(f"pragma user_version = {FORMAT}")

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Raise SQLite's errors about the file as `Unusable` or `Damaged`."""
        try:
            yield
        except sqlite3.Error as fault:
            translated = unusable(self.path, fault)
            if translated is None:
                raise
            raise translated from None

    def check_integrity(self) -> None:
        """Read every page of the file; raise `Damaged` if one is damaged."""
        if self.query("pragma integrity_check(1)") != [("ok",)]:
            raise damaged(self.path, "some of its pages cannot be read")

    def require_space(self) -> None:
        """Raise `Unusable` if the disk has no space for some hundred records."""
        with self.transaction() as db:
            db.execute("insert or replace into meta values ('room', zeroblob(?))", (SPARE_BYTES,))
        self.query("delete from meta where name = 'room'")

    def truncate_wal(self) -> None:
        """Overwrite deleted data in the write-ahead log."""
        self.query("pragma wal_checkpoint(truncate)")

    @contextmanager
    def secure_delete(self) -> Iterator[None]:
        """Overwrite in the file what the block deletes."""
        with self._lock:
            before = self._db.execute("pragma secure_delete").fetchone()[0]
            self._db.execute("pragma secure_delete = on")
            try:
                yield
            finally:
                self._db.execute(f"pragma secure_delete = {int(before)}")

    @property
    def head(self) -> int:
        """The newest position; 0 for an empty feed."""
        return self.counter("head")

    @property
    def pruned_through(self) -> int:
        """The newest pruned position; 0 if nothing was pruned."""
        return self.counter("horizon")

    def counter(self, name: str) -> int:
        """Return a counter of the store."""
        rows = self.query("select value from meta where name = ?", name)
        return int(rows[0][0]) if rows else 0

    def relayed(self, into: str = "") -> set[str]:
        """Return the ids of the loads whose changes are all in the log."""
        return {load_id for (load_id,) in self.query(f"select load_id from loads{into}")}

    def append(self, entries: Iterable[Entry], done: Collection[str] = (), into: str = "") -> int:
        """Append changes to the log, and record the loads in `done` as complete; return how many
        were new.

        All or nothing. Positions have no gaps; a `change_id` that the log has or had is skipped.
        """
        by_id = {entry[CHANGE_ID]: entry for entry in reversed(list(entries))}
        with self.transaction() as db:
            self._drop_forgotten_bodies(db, by_id)
            existing = _existing_ids(db, list(by_id), into)
            new = [entry for entry in reversed(by_id.values()) if entry[CHANGE_ID] not in existing]
            _insert(db, new, into)
            db.executemany(
                f"insert or ignore into loads{into} values (?)", [(load_id,) for load_id in done]
            )
        return len(new)

    def forget(self, object_ids: Collection[str]) -> int:
        """Drop the bodies of the changes of objects, of a customer's every change, and of those that
        come later; return how many changes the log has of them.
        """
        count = 0
        with self.secure_delete(), self.transaction() as db:
            for id in object_ids:
                db.execute("insert or ignore into forgotten values (?)", (id,))
                count += sum(
                    db.execute(
                        f"update {table} set body = null where object_id = ? or customer_id = ?",
                        (id, id),
                    ).rowcount
                    for table in ("log", "model_changes")
                )
                db.execute(
                    "update model_rows set row = null where key = ? or customer_id = ?", (id, id)
                )
        self.truncate_wal()
        return count

    def _drop_forgotten_bodies(self, db: sqlite3.Connection, by_id: dict[str, Entry]) -> None:
        """Remove the bodies of objects that were forgotten after their changes were read."""
        forgotten = {name for (name,) in db.execute("select object_id from forgotten")}
        for key, entry in by_id.items() if forgotten else ():
            if entry[OBJECT_ID] in forgotten or entry[CUSTOMER_ID] in forgotten:
                by_id[key] = (*entry[:-1], None)

    def models_mark(self) -> tuple[Any, ...]:
        """Return a value that differs after a load was relayed or the models were built."""
        ((newest,),) = self.query("select max(load_id) from loads")
        return newest, self.head, self.counter(MODELS_BUILT)

    def note_models_built(self) -> None:
        """Record that models were built, so that triggers on them are evaluated."""
        with self.transaction() as db:
            db.execute(
                "insert into meta values (?, 1) on conflict do update set value = value + 1",
                (MODELS_BUILT,),
            )

    def note_many_accounts(self) -> None:
        """Record that the changes are of several accounts, before the first of them."""
        self.query("insert or ignore into meta values (?, 1)", MANY_ACCOUNTS)

    def holds_many_accounts(self) -> bool:
        """Whether the changes are of several accounts."""
        return bool(self.query("select 1 from meta where name = ?", MANY_ACCOUNTS))

    def note_totals(self, objects: Mapping[str, int]) -> None:
        """Store how many objects of each resource the copy holds, for guards."""
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
        """Return changes after a position, in order: at most `limit`, from the next `SCAN_WINDOW`
        positions, none after `upto`.
        """
        with self.transaction("deferred") as db:
            numbers = dict(db.execute("select name, value from meta"))
            head = numbers["head"]
            last = min(after + SCAN_WINDOW, head if upto is None else min(upto, head))
            where, values = conditions(resources, ops)
            rows = db.execute(
                f"select position, object_version, {', '.join(LOG_COLUMNS)} from log "
                f"where position > ? and position <= ?{where} order by position limit ?",
                (after, last, *values, limit),
            ).fetchall()
        changes = [self._change(row) for row in rows]
        return Page(
            changes,
            changes[-1].offset if len(changes) == limit else max(last, after),
            head,
            numbers["horizon"],
        )

    def newest(
        self, count: int, resources: Sequence[str] = (), ops: Sequence[str] = ()
    ) -> list[Change]:
        """Return the last changes, oldest first."""
        where, values = conditions(resources, ops)
        rows = self.query(
            f"select position, object_version, {', '.join(LOG_COLUMNS)} from log where 1{where} order by position desc limit ?",
            *values,
            count,
        )
        return [self._change(row) for row in reversed(rows)]

    def at(self, position: int) -> Change | None:
        """Return the change at a position."""
        return self._one("position", position)

    def by_id(self, change_id: str) -> Change | None:
        """Return the change with an id: of the log, or of a model that a trigger watches."""
        return self._one("change_id", change_id) or self._one(
            "change_id", change_id, "model_changes"
        )

    def is_forgotten(self, change_id: str) -> bool:
        """Whether the images of a change were deleted."""
        return any(
            self.query(f"select 1 from {table} where change_id = ? and body is null", change_id)
            for table in ("log", "model_changes")
        )

    def _one(self, column: str, value: int | str, table: str = "log") -> Change | None:
        rows = self.query(
            f"select position, object_version, {', '.join(LOG_COLUMNS)} from {table} where {column} = ?",
            value,
        )
        return self._change(rows[0]) if rows else None

    def _change(self, row: Sequence[Any]) -> Change:
        try:
            return change_from_row(row[0], row[1], row[2:])
        except (ValueError, TypeError, ArithmeticError, zlib.error):
            raise damaged(self.path, f"the change at offset {row[0]} cannot be read") from None


def delivery_lock(path: Path) -> Path:
    """Return the lock file that the delivering process of a store holds."""
    return path.with_name(f"{path.name}.deliver.lock")


def conditions(resources: Sequence[str], ops: Sequence[str] = ()) -> tuple[str, list[str]]:
    """The conditions that select changes of the log, and their values. Without resources these are
    Stripe's: what pushes did goes to whoever names it.
    """
    sql = "".join(
        f" and {name} in ({placeholders(values)})"
        for name, values in (("resource", resources), ("op", ops))
        if values
    )
    if not resources:
        sql += f" and resource <> '{PUSHES.table}'"
    return sql, [*resources, *ops]


def placeholders(values: Collection[Any]) -> str:
    """Return one placeholder per value, joined with commas."""
    return ", ".join("?" * len(values))


def _existing_ids(db: sqlite3.Connection, ids: list[str], into: str) -> set[str]:
    tables = (f"log{into}",) if into else ("log", "pruned")  # a rebuild brings back what was pruned
    return {
        change_id
        for table in tables
        for (change_id,) in db.execute(
            f"select change_id from {table} where change_id in ({placeholders(ids)})", ids
        )
    }


def _insert(db: sqlite3.Connection, fresh: list[Entry], into: str) -> None:
    """Insert changes at the next positions, each with its object's next version."""
    if not fresh:
        return
    many = db.execute("select 1 from meta where name = ?", (MANY_ACCOUNTS,)).fetchone()
    keys = [
        f"{entry[ACCOUNT_ID]}/{entry[OBJECT_ID]}" if many else str(entry[OBJECT_ID])
        for entry in fresh
    ]
    ids = list(set(keys))
    versions: dict[tuple[str, str], int] = {
        (resource, object_id): count
        for resource, object_id, count in db.execute(
            f"select resource, object_id, versions from objects{into} where object_id in ({placeholders(ids)})",
            ids,
        )
    }
    (head,) = db.execute(f"select value from meta where name = 'head{into}'").fetchone()
    rows = []
    for position, (entry, id) in enumerate(zip(fresh, keys, strict=True), head + 1):
        key = (entry[RESOURCE], id)
        versions[key] = versions.get(key, 0) + 1
        rows.append((position, versions[key], *entry))
    columns = f"position, object_version, {', '.join(LOG_COLUMNS)}"
    db.executemany(f"insert into log{into} ({columns}) values ({placeholders(rows[0])})", rows)
    counts = [(object_id, resource, count) for (resource, object_id), count in versions.items()]
    db.executemany(f"insert or replace into objects{into} values (?, ?, ?)", counts)
    db.execute(f"update meta set value = ? where name = 'head{into}'", (head + len(fresh),))
