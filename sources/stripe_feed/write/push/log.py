"""The log of a push: what is going to be sent is committed before it is sent, and its outcome after.

A version of a row is what one change of it needs: one or more requests, each with an idempotency key
of its own. A version ends with a definite outcome; until then a repetition sends the same parameters
with the same key. The file holds account data: only its owner may read it. Parameters are removed
from it when their outcome is known.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from ...errors import SetupError, UsageError, WrongAccount
from ..order import KEY_PREFIX

_FORMAT = 1
_BUSY_SECONDS = 30.0
KEPT = 7 * 86_400  # seconds that the requests of a run are shown
MARKER = "sf_key"  # of metadata: the key of the request that created an object
REPEATABLE = 23 * 3_600  # seconds; Stripe keeps the outcome of a key for 24 hours

RequestState = Literal["planned", "sent", "unknown", "done", "rejected"]
"""Of a request: `sent` was sent and no outcome is recorded (yet); `unknown` came to no answer."""
RowState = Literal["open", "done", "rejected", "deleted", "forgotten"]
"""Of a row: `open` while a version of it has no definite outcome; `deleted` if a push removed its object,
`forgotten` if it did not.
"""

REMOVING = ("delete", "cancel", "cancel_at_period_end", "void", "deactivate")
"""Verbs after which a row has no object any more."""

_SCHEMA = """
create table if not exists meta (name text primary key, value text) without rowid;
create table if not exists rows (
    push text, row_key text, version integer not null, state text not null, content text,
    sent_content text, object_id text, replaced text, reason text,
    primary key (push, row_key)) without rowid;
create table if not exists operations (
    push text, row_key text, version integer, step integer, verb text, method text, path text,
    params text, idempotency_key text, state text not null, first_sent_at real, last_sent_at real,
    ended_at real, request_id text, object_id text, reason text, run integer, sent_times text,
    primary key (push, row_key, version, step)) without rowid;
create index if not exists by_run on operations (run);
create table if not exists runs (
    run integer primary key, push text, started_at real, ended_at real, counts text)
"""
OPERATION = (
    "push, row_key, version, step, verb, method, path, params, idempotency_key, state, "
    "first_sent_at, last_sent_at, request_id, object_id, reason, sent_times"
)


@dataclass(frozen=True, slots=True)
class PushStep:
    """One request of a version. `{0}` in its path, or as a value, is the object of step 0."""

    verb: str
    method: Literal["post", "delete"]
    path: str
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """A step as the log has it."""

    push: str
    row_key: str
    version: int
    step: int
    verb: str
    method: Literal["post", "delete"]
    path: str
    params: dict[str, Any]
    idempotency_key: str
    state: RequestState
    first_sent_at: float | None
    last_sent_at: float | None
    request_id: str | None
    object_id: str | None
    reason: str | None
    sent_times: tuple[float, ...]  # each time of sending


@dataclass(frozen=True, slots=True)
class LoggedRow:
    """What the log knows of a row; `sent_content` is the digest of what Stripe took last."""

    row_key: str
    version: int
    state: RowState
    content: str | None
    sent_content: str | None
    object_id: str | None
    replaced: tuple[str, ...]  # objects that another one took the place of, not archived yet
    reason: str | None


class PushLog:
    """The file of a push log, created if it is missing. `close` it, or use it in a `with` block."""

    def __init__(self, path: str | os.PathLike[str], clock: Callable[[], float]) -> None:
        self.path = Path(path)
        self.clock = clock
        self.account_id = ""
        self.livemode = False
        self.run: int | None = None
        self._lock = threading.RLock()
        _make_private(self.path)
        try:
            self._db = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._prepare()
        except sqlite3.Error as fault:
            self._db.close()
            raise SetupError(
                f"{self.path.name} cannot be used as a push log ({fault}). Choose another --log."
            ) from None

    def _prepare(self) -> None:
        found = self._db.execute("pragma user_version").fetchone()[0]
        if found > _FORMAT:
            raise SetupError(
                f"{self.path.name} was written by a newer stripe-feed: `pip install -U stripe-feed`."
            )
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = full")  # an intent must outlive a power cut
        self._db.execute("pragma secure_delete = on")
        with self._transaction() as db:
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            columns = {row[1] for row in db.execute("pragma table_info(operations)")}
            if "sent_times" not in columns:  # a log of before
                db.execute("alter table operations add column sent_times text")
            db.execute(f"pragma user_version = {_FORMAT}")

    def __enter__(self) -> PushLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; parameters that were removed do not stay in its write-ahead log."""
        with self._lock, suppress(sqlite3.Error):
            self._db.execute("pragma wal_checkpoint(truncate)")
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("begin immediate")
            try:
                yield self._db
                self._db.execute("commit")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise

    def _query(self, sql: str, *values: Any) -> list[Any]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    # -- whose it is ----------------------------------------------------------------------------

    def stamp(self, account_id: str, livemode: bool) -> None:
        """Tie the log to an account and mode. Raises `WrongAccount` for any other one."""
        mode = "live" if livemode else "test"
        with self._transaction() as db:
            for name, value in (("account_id", account_id), ("mode", mode)):
                db.execute("insert or ignore into meta values (?, ?)", (name, value))
        held = dict(self._query("select name, value from meta"))
        if (held["account_id"], held["mode"]) != (account_id, mode):
            raise WrongAccount(
                f"{self.path.name} is the push log of {held['account_id']} ({held['mode']} mode), and the key "
                f"belongs to {account_id} ({mode} mode). Use that account's key, or another --log."
            )
        self.account_id, self.livemode = account_id, livemode

    def tie(self, push: str, object: str) -> None:
        """Tie the name of a push to a kind of object. Raises `UsageError` if rows of this name are of
        another kind: their objects would be taken for it.
        """
        with self._transaction() as db:
            found = self._query("select value from meta where name = ?", _tied(push))
            is_free = not self._query(
                "select 1 from rows where push = ? and (object_id is not null or state = 'open') limit 1",
                push,
            )
            if is_free or not found:
                db.execute("insert or replace into meta values (?, ?)", (_tied(push), object))
                return
        ((held,),) = found
        if held != object:
            raise UsageError(
                f"{push}: this name stands for {held} in {self.path.name}, so it cannot push to {object}. Choose "
                f"another name, or forget what was sent with it: `stripe-feed push reset {push}`."
            )

    # -- what is known --------------------------------------------------------------------------

    def rows(self, push: str) -> dict[str, LoggedRow]:
        """Every row that was ever sent, by its key."""
        columns = "row_key, version, state, content, sent_content, object_id, replaced, reason"
        found = self._query(f"select {columns} from rows where push = ?", push)
        return {row[0]: _logged_row(row) for row in found}

    def row(self, push: str, row_key: str) -> LoggedRow | None:
        """One row, if it was ever sent."""
        columns = "row_key, version, state, content, sent_content, object_id, replaced, reason"
        found = self._query(
            f"select {columns} from rows where push = ? and row_key = ?", push, row_key
        )
        return _logged_row(found[0]) if found else None

    def open_steps(self, push: str, row_key: str) -> list[Operation]:
        """All steps of a row's open version, in order."""
        row = self.row(push, row_key)
        if row is None or row.state != "open":
            return []
        return self._steps(push, row_key, row.version)

    def _steps(self, push: str, row_key: str, version: int) -> list[Operation]:
        where = "push = ? and row_key = ? and version = ? order by step"
        found = self._query(
            f"select {OPERATION} from operations where {where}", push, row_key, version
        )
        return [_operation(row) for row in found]

    # -- what happens ---------------------------------------------------------------------------

    def begin(
        self, push: str, row_key: str, content: str | None, steps: Sequence[PushStep]
    ) -> list[Operation]:
        """Open the next version of a row. Its first step counts as sent from here on."""
        with self._transaction() as db:
            before = self.row(push, row_key)
            if before is not None and before.state == "open":
                raise ValueError("the version before has no definite outcome")
            version = before.version + 1 if before else 1
            db.execute(
                "insert into rows (push, row_key, version, state, content) values (?, ?, ?, 'open', ?) "
                "on conflict do update set version = excluded.version, state = 'open', "
                "content = excluded.content, reason = null",
                (push, row_key, version, content),
            )
            now = self.clock()
            for number, step in enumerate(steps):
                state, sent_at = ("sent", now) if number == 0 else ("planned", None)
                key = self._key(push, row_key, version, number)
                times = json.dumps([sent_at]) if sent_at is not None else None
                values = (push, row_key, version, number, step.verb, step.method, step.path,
                          _dumped(marked(step, key)), key, state, sent_at, sent_at, None, None, None, times)  # fmt: skip
                db.execute(
                    f"insert into operations ({OPERATION}, run) values ({', '.join('?' * 17)})",
                    (*values, self.run),
                )
        return self._steps(push, row_key, version)

    def _key(self, push: str, row_key: str, version: int, step: int) -> str:
        what = [self.account_id, self.livemode, push, row_key, version, step]
        return KEY_PREFIX + blake2b(json.dumps(what).encode(), digest_size=18).hexdigest()

    def mark_sent(self, operation: Operation) -> None:
        """Note that a step is sent (again) now."""
        now = self.clock()
        self._update(
            operation,
            "state = 'sent', first_sent_at = coalesce(first_sent_at, ?), last_sent_at = ?, sent_times = ?, run = ?",
            now, now, json.dumps([*operation.sent_times, now]), self.run,
        )  # fmt: skip

    def mark_unknown(self, operation: Operation, reason: str, request_id: str | None) -> None:
        """Note that no definite answer came: the version stays open."""
        self._update(operation, "state = 'unknown', reason = ?, request_id = ?", reason, request_id)

    def mark_done(
        self, operation: Operation, object_id: str, request_id: str | None, is_last: bool
    ) -> None:
        """Note that Stripe carried out a step; the last one ends the version."""
        where = (operation.push, operation.row_key)
        with self._transaction() as db:
            self._update(
                operation,
                "state = 'done', ended_at = ?, object_id = ?, request_id = ?, params = null, reason = null",
                self.clock(), object_id, request_id,
            )  # fmt: skip
            if operation.step == 0 and operation.verb in ("create", "update"):
                self._replace_object(db, where, operation.verb, object_id)
            if operation.verb == "archive":
                self._forget_replaced(db, where, object_id)
            if not is_last:
                return
            if operation.verb in REMOVING:
                change = "state = 'deleted', object_id = null, sent_content = null"
            else:
                change = "state = 'done', sent_content = content"
            db.execute(
                f"update rows set {change}, reason = null where push = ? and row_key = ?", where
            )

    def _replace_object(
        self, db: sqlite3.Connection, where: tuple[str, str], verb: str, object_id: str
    ) -> None:
        row = self.row(*where)
        assert row is not None
        replaced = list(row.replaced)
        if row.object_id not in (None, object_id) and verb == "create":
            replaced.append(str(row.object_id))
        db.execute(
            "update rows set object_id = ?, replaced = ? where push = ? and row_key = ?",
            (object_id, json.dumps(replaced), *where),
        )

    def _forget_replaced(
        self, db: sqlite3.Connection, where: tuple[str, str], object_id: str
    ) -> None:
        row = self.row(*where)
        assert row is not None
        left = [id for id in row.replaced if id != object_id]
        db.execute(
            "update rows set replaced = ? where push = ? and row_key = ?",
            (json.dumps(left), *where),
        )

    def mark_rejected(self, operation: Operation, reason: str, request_id: str | None) -> None:
        """Note that Stripe refused a step: the version ends, and later steps are not sent."""
        with self._transaction() as db:
            self._update(
                operation,
                "state = 'rejected', ended_at = ?, reason = ?, request_id = ?, params = null",
                self.clock(), reason, request_id,
            )  # fmt: skip
            self._drop_planned(db, operation)
            db.execute(
                "update rows set state = 'rejected', reason = ? where push = ? and row_key = ?",
                (reason, operation.push, operation.row_key),
            )

    def abandon(self, operation: Operation) -> None:
        """End a version that is known not to have been carried out."""
        self.mark_rejected(operation, "Stripe did not carry it out.", None)

    def _drop_planned(self, db: sqlite3.Connection, operation: Operation) -> None:
        db.execute(
            "delete from operations where push = ? and row_key = ? and version = ? and state = 'planned'",
            (operation.push, operation.row_key, operation.version),
        )

    def _update(self, operation: Operation, change: str, *values: Any) -> None:
        with self._lock:
            self._db.execute(
                f"update operations set {change} where push = ? and row_key = ? and version = ? and step = ?",
                (
                    *values,
                    operation.push,
                    operation.row_key,
                    operation.version,
                    operation.step,
                ),
            )

    def adopt(self, push: str, row_key: str, content: str, object_id: str) -> None:
        """Note that an object already is what a row says, without a request."""
        with self._transaction() as db:
            db.execute(
                "insert into rows (push, row_key, version, state, content, sent_content, object_id) "
                "values (?, ?, 0, 'done', ?, ?, ?) on conflict do update set state = 'done', "
                "content = excluded.content, sent_content = excluded.sent_content, "
                "object_id = excluded.object_id, reason = null",
                (push, row_key, content, content, object_id),
            )

    def reject(self, push: str, row_key: str, reason: str) -> None:
        """Note that a row cannot be sent; an open version stays open."""
        with self._transaction() as db:
            db.execute(
                "insert into rows (push, row_key, version, state, reason) values (?, ?, 0, 'rejected', ?) "
                "on conflict do update set state = 'rejected', reason = excluded.reason where state <> 'open'",
                (push, row_key, reason),
            )

    def drop(self, push: str, row_key: str) -> None:
        """Forget a row that never reached Stripe, or that is to stay there."""
        with self._transaction() as db:
            db.execute(
                "update rows set state = 'forgotten', object_id = null, sent_content = null, reason = null "
                "where push = ? and row_key = ?",
                (push, row_key),
            )

    def reset(self, push: str) -> int:
        """Forget what was sent and which object each row is; return how many rows that are.

        Versions go on counting, for a key is never used for two requests. Raises `SetupError` if an
        outcome is unknown.
        """
        with self._transaction() as db:
            open_rows = self._query(
                "select 1 from rows where push = ? and state = 'open' limit 1", push
            )
            if open_rows:
                raise SetupError(
                    f"The outcome of some requests of {push} is not known yet. Run it once, then reset it."
                )
            return db.execute(
                "update rows set state = 'forgotten', content = null, sent_content = null, object_id = null, "
                "replaced = null, reason = null where push = ? and state not in ('deleted', 'forgotten')",
                (push,),
            ).rowcount

    def erase(self, object_id: str) -> int:
        """Erase what is known of an object; return how many rows that were.

        Keys of rows stay, for versions go on counting, unless one holds an e-mail address.
        """
        with self._transaction() as db:
            db.execute(
                "delete from operations where object_id = ? or path like '%/' || ? or path like '%/' || ? || '/%'",
                (object_id, object_id, object_id),
            )
            db.execute(
                "delete from rows where object_id = ? and instr(row_key, '@') > 0", (object_id,)
            )
            return db.execute(
                "update rows set state = 'deleted', content = null, sent_content = null, "
                "object_id = null, replaced = null, reason = null where object_id = ?",
                (object_id,),
            ).rowcount

    # -- runs -----------------------------------------------------------------------------------

    def begin_run(self, push: str) -> int:
        """Open a run; its operations carry its number."""
        with self._transaction() as db:
            self._prune(db)
            cursor = db.execute(
                "insert into runs (push, started_at) values (?, ?)", (push, self.clock())
            )
            self.run = cursor.lastrowid
        assert self.run is not None
        return self.run

    def _prune(self, db: sqlite3.Connection) -> None:
        """Remove requests whose outcome has been known for a week, and runs without any."""
        before = self.clock() - KEPT
        db.execute(
            "delete from operations where ended_at < ? and not exists (select 1 from rows r where "
            "r.push = operations.push and r.row_key = operations.row_key and r.state = 'open' "
            "and r.version = operations.version)",
            (before,),
        )
        db.execute(
            "delete from runs where started_at < ? and run not in (select run from operations where run is not null)",
            (before,),
        )

    def end_run(self, counts: Mapping[str, int]) -> None:
        """Note how a run ended."""
        with self._transaction() as db:
            db.execute(
                "update runs set ended_at = ?, counts = ? where run = ?",
                (self.clock(), json.dumps(dict(counts)), self.run),
            )
        self.run = None

    def runs(self, push: str | None = None, last: int = 20) -> list[dict[str, Any]]:
        """The newest runs, newest first."""
        found = self._query(
            "select run, push, started_at, ended_at, counts from runs where ? in (push, '') order by run desc limit ?",
            push or "",
            last,
        )
        names = ("run", "push", "started_at", "ended_at")
        return [
            {**dict(zip(names, row[:4], strict=True)), "counts": json.loads(row[4] or "{}")}
            for row in found
        ]

    def operations(self, run: int) -> list[Operation]:
        """The requests of a run."""
        found = self._query(
            f"select {OPERATION} from operations where run = ? order by push, row_key, version, step",
            run,
        )
        return [_operation(row) for row in found]


def _tied(push: str) -> str:
    return f"object of {push}"


def marked(step: PushStep, key: str) -> dict[str, Any]:
    """The parameters of a step; what it creates carries the key as a marker in its metadata."""
    if step.verb != "create":
        return dict(step.params)
    return {**step.params, "metadata": {**(step.params.get("metadata") or {}), MARKER: key}}


def _dumped(params: Mapping[str, Any]) -> str:
    return json.dumps(params, default=str)  # a Decimal is sent as its digits


def content_of(params: Mapping[str, Any]) -> str:
    """A digest of what is to be sent."""
    text = json.dumps(params, sort_keys=True, default=str)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _logged_row(row: Sequence[Any]) -> LoggedRow:
    values = list(row)
    values[6] = tuple(json.loads(values[6] or "[]"))
    return LoggedRow(*values)


def _operation(row: Sequence[Any]) -> Operation:
    values = list(row)
    values[7] = json.loads(values[7] or "{}")
    values[15] = tuple(json.loads(values[15] or "[]"))
    return Operation(*values)


def _make_private(path: Path) -> None:
    """Create the file for its owner only; SQLite gives its -wal and -shm the same mode."""
    try:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise SetupError(f"{path} is not a regular file. Choose another --log.")
        if status.st_mode & 0o077:
            path.chmod(0o600)
    except OSError as fault:
        raise SetupError(
            f"The push log {path} cannot be created or read ({fault.strerror}). Choose another --log."
        ) from None
