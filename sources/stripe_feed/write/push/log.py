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
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from secrets import randbelow, token_hex
from typing import Any, Literal
from urllib.parse import unquote

from ...api.forms import path_to
from ...destination.error_messages import require_file
from ...errors import SetupError, UsageError, WrongAccount
from ...resources.writable import WRITABLE
from ...sqlite_file import SqliteFile
from ..order import KEY_PREFIX

_FORMAT = 2
LOG = "stripe_feed.push.sqlite"
_LOG_SUFFIX = ".push.sqlite"
KEPT = 7 * 86_400  # seconds that the requests of a run are shown
KEY_SEPARATOR = "|"  # between the parts of a row's key
CREATED_FOR = (
    ":"  # in the name of a push: rows that it created for others, by a digest of what they name
)
MARKER = "sf_key"  # of metadata: the key of the request that created an object
FAR = 10**9  # versions that are left out if keys are in use already
_ABOUT = 5  # seconds by which times of one event can differ
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
    run integer primary key, push text, started_at real, ended_at real, counts text);
create table if not exists failed (
    run integer, row_key text, status text not null, object_id text, request_id text, reason text,
    at real, primary key (run, row_key)) without rowid
"""
ADDED_LATER = (
    ("runs", "object", "text"),
    ("runs", "mode", "text"),
    ("runs", "error", "text"),
    ("runs", "is_retry", "integer not null default 0"),
    ("operations", "sent_times", "text"),
    ("operations", "seconds", "real"),
)
"""Columns that a file of format 1 lacks."""
OPERATION = (
    "push, row_key, version, step, verb, method, path, params, idempotency_key, state, "
    "first_sent_at, last_sent_at, request_id, object_id, reason, sent_times"
)


_TOOK = "seconds = coalesce(?, seconds)"
_OF_RUN = "run = coalesce(?, run)"  # a request belongs to the run that learned its outcome


@dataclass(frozen=True, slots=True)
class PushStep:
    """One request of a version. `{0}` in its path, or as the default price, is the object of step 0."""

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


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A row that a run rejected, or whose outcome it does not know."""

    key: str
    status: str  # "rejected", "unknown"
    object_id: str | None
    request_id: str | None
    reason: str
    at: float | None = None


class PushLog(SqliteFile):
    """The file of a push log, created if it is missing. `close` it, or use it in a `with` block."""

    noun = "push log"
    advice = "Choose another --log."

    def __init__(self, path: str | os.PathLike[str], clock: Callable[[], float]) -> None:
        super().__init__(path)
        self.clock = clock
        self.account_id = ""
        self.livemode = False
        self.run: int | None = None
        self._sent: dict[str, float] = {}  # when requests were sent, on the monotonic clock

    def __enter__(self) -> PushLog:
        return self

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Raise SQLite's errors about the file as `SetupError`."""
        try:
            yield
        except sqlite3.Error as fault:
            raise SetupError(
                f"{self.path.name} cannot be used as a push log ({fault}). {self.advice}"
            ) from None

    def _prepare(self) -> None:
        found = self._require_format(_FORMAT)
        self._write_ahead()
        self._db.execute("pragma synchronous = full")  # an intent must outlive a power cut
        self._db.execute("pragma secure_delete = on")
        if found == _FORMAT:
            return
        with self.transaction() as db:
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            for table, column, kind in ADDED_LATER:
                if column not in {row[1] for row in db.execute(f"pragma table_info({table})")}:
                    db.execute(f"alter table {table} add column {column} {kind}")
            db.execute("insert or ignore into meta values ('log_id', ?)", (token_hex(6),))
            db.execute(f"pragma user_version = {_FORMAT}")

    def close(self) -> None:
        """Close the file; parameters that were removed do not stay in its write-ahead log."""
        with self._lock, suppress(sqlite3.Error):
            self._db.execute("pragma wal_checkpoint(truncate)")
        super().close()

    # -- whose it is ----------------------------------------------------------------------------

    @property
    def log_id(self) -> str:
        """What tells this file's runs from those of another file."""
        return str(self.query("select value from meta where name = 'log_id'")[0][0])

    @property
    def owner(self) -> tuple[str, bool] | None:
        """The account that the log is tied to, and whether in live mode; None before the first run."""
        held = dict(self.query("select name, value from meta"))
        return (held["account_id"], held["mode"] == "live") if "account_id" in held else None

    @property
    def skew(self) -> float:
        """Seconds by which this machine's clock was ahead of Stripe's when the last run began."""
        found = self.query("select value from meta where name = 'skew'")
        return float(found[0][0]) if found else 0.0

    def stamp(self, account_id: str, livemode: bool, skew: float = 0.0) -> None:
        """Tie the log to an account and mode, and note the `skew` of this machine's clock. Raises
        `WrongAccount` for any other one.
        """
        mode = "live" if livemode else "test"
        with self.transaction() as db:
            for name, value in (("account_id", account_id), ("mode", mode)):
                db.execute("insert or ignore into meta values (?, ?)", (name, value))
        held = dict(self.query("select name, value from meta"))
        if (held["account_id"], held["mode"]) != (account_id, mode):
            raise WrongAccount(
                f"{self.path.name} is the push log of {held['account_id']} ({held['mode']} mode), and the key "
                f"belongs to {account_id} ({mode} mode). Use that account's key, or another --log."
            )
        self.account_id, self.livemode = account_id, livemode
        with self.transaction() as db:
            db.execute("insert or replace into meta values ('skew', ?)", (f"{skew:.0f}",))

    def tie(self, push: str, object: str) -> None:
        """Tie the name of a push to a kind of object. Raises `UsageError` if rows of this name are of
        another kind: their objects would be taken for it.
        """
        with self.transaction() as db:
            found = self.query("select value from meta where name = ?", _tied(push))
            is_free = not self.query(
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
        found = self.query(f"select {columns} from rows where push = ?", push)
        return {row[0]: _logged_row(row) for row in found}

    def row(self, push: str, row_key: str) -> LoggedRow | None:
        """One row, if it was ever sent."""
        columns = "row_key, version, state, content, sent_content, object_id, replaced, reason"
        found = self.query(
            f"select {columns} from rows where push = ? and row_key = ?", push, row_key
        )
        return _logged_row(found[0]) if found else None

    def written_since(self, path: str, second: float) -> set[str]:
        """The objects of a kind that were written, or may have been, since a second; `path` is that
        of their list.
        """
        found = self.query(
            "select object_id, path from operations where state in ('sent', 'unknown', 'done') "
            "and coalesce(ended_at, last_sent_at) >= ? and (path = ? or instr(path, ?) = 1)",
            second - _ABOUT,
            path,
            f"{path}/",
        )
        return {object_id or unquote(path.rpartition("/")[2]) for object_id, path in found}

    def open_steps(self, push: str, row_key: str) -> list[Operation]:
        """All steps of a row's open version, in order."""
        row = self.row(push, row_key)
        if row is None or row.state != "open":
            return []
        return self._steps(push, row_key, row.version)

    def _steps(self, push: str, row_key: str, version: int) -> list[Operation]:
        where = "push = ? and row_key = ? and version = ? order by step"
        found = self.query(
            f"select {OPERATION} from operations where {where}", push, row_key, version
        )
        return [_operation(row) for row in found]

    # -- what happens ---------------------------------------------------------------------------

    def begin(
        self,
        push: str,
        row_key: str,
        content: str | None,
        steps: Sequence[PushStep],
        *,
        is_far: bool = False,
    ) -> list[Operation]:
        """Open the next version of a row. Its first step counts as sent from here on.

        `is_far`: another log may have used the keys of the versions that come next.
        """
        with self.transaction() as db:
            before = self.row(push, row_key)
            if before is not None and before.state == "open":
                raise ValueError("the version before has no definite outcome")
            version = (before.version if before else 0) + 1 + (randbelow(FAR) if is_far else 0)
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
                if number == 0:
                    self._sent[key] = time.monotonic()
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
        self._sent[operation.idempotency_key] = time.monotonic()
        self._update(
            operation,
            "state = 'sent', first_sent_at = coalesce(first_sent_at, ?), last_sent_at = ?, sent_times = ?, run = ?",
            now, now, json.dumps([*operation.sent_times, now]), self.run,
        )  # fmt: skip

    def mark_unknown(self, operation: Operation, reason: str, request_id: str | None) -> None:
        """Note that no definite answer came: the version stays open."""
        self._update(
            operation,
            f"state = 'unknown', reason = ?, request_id = ?, {_TOOK}",
            reason,
            request_id,
            self._seconds(operation),
        )

    def _seconds(self, operation: Operation) -> float | None:
        """How long a request took that this process sent."""
        sent = self._sent.pop(operation.idempotency_key, None)
        return None if sent is None else round(time.monotonic() - sent, 3)

    def mark_done(
        self, operation: Operation, object_id: str, request_id: str | None, is_last: bool
    ) -> None:
        """Note that Stripe carried out a step; the last one ends the version."""
        where = (operation.push, operation.row_key)
        with self.transaction() as db:
            self._update(
                operation,
                f"state = 'done', ended_at = ?, object_id = ?, request_id = ?, params = null, reason = null, {_OF_RUN}, {_TOOK}",
                self.clock(), object_id, request_id, self.run, self._seconds(operation),
            )  # fmt: skip
            if operation.step == 0 and operation.verb in ("create", "update"):
                self._replace_object(db, operation, object_id)
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

    def _replace_object(self, db: sqlite3.Connection, operation: Operation, object_id: str) -> None:
        where = (operation.push, operation.row_key)
        row = self.row(*where)
        assert row is not None
        replaced = list(row.replaced)
        is_price = operation.path == WRITABLE["prices"].path  # of others nothing is archived
        if row.object_id not in (None, object_id) and operation.verb == "create" and is_price:
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
        with self.transaction() as db:
            self._update(
                operation,
                f"state = 'rejected', ended_at = ?, reason = ?, request_id = ?, params = null, {_OF_RUN}, {_TOOK}",
                self.clock(), reason, request_id, self.run, self._seconds(operation),
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
        with self.transaction() as db:
            db.execute(
                "insert into rows (push, row_key, version, state, content, sent_content, object_id) "
                "values (?, ?, 0, 'done', ?, ?, ?) on conflict do update set state = 'done', "
                "content = excluded.content, sent_content = excluded.sent_content, "
                "object_id = excluded.object_id, reason = null",
                (push, row_key, content, content, object_id),
            )

    def reject(self, push: str, row_key: str, reason: str) -> None:
        """Note that a row cannot be sent; an open version stays open."""
        with self.transaction() as db:
            db.execute(
                "insert into rows (push, row_key, version, state, reason) values (?, ?, 0, 'rejected', ?) "
                "on conflict do update set state = 'rejected', reason = excluded.reason where state <> 'open'",
                (push, row_key, reason),
            )

    def drop(self, push: str, row_key: str) -> None:
        """Forget a row that never reached Stripe, or that is to stay there."""
        with self.transaction() as db:
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
        with self.transaction() as db:
            open_rows = self.query(
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

    def erase(
        self, object_id: str, others: Iterable[str] = (), named: Iterable[str] = ()
    ) -> set[tuple[str, str]]:
        """Erase what is known of a customer; return the pushes and keys of the rows that were.

        Keys of rows stay, for versions go on counting, unless they tell who it was. `others`: objects
        of the same person, whose rows are erased if their key is an address. `named`: keys, or parts
        of them, that tell it.
        """
        about = "object_id = ? or path = ? or instr(path, ?) = 1"
        path = path_to(
            WRITABLE["customers"].verbs["update"].path, object_id
        )  # ids can be anything: no pattern
        ids = (object_id, path, f"{path}/")
        with self.transaction() as db:
            # a row that is gone has no object any more, but its requests name it
            rows = self.query(
                f"select push, row_key from rows where object_id = ? union select push, row_key from operations where {about}",
                object_id,
                *ids,
            )
            db.execute(f"delete from operations where {about}", ids)
            db.execute("delete from failed where object_id = ?", (object_id,))
            db.executemany("delete from failed where row_key = ?", [(key,) for _, key in rows])
            db.execute(
                "update rows set state = 'deleted', content = null, sent_content = null, "
                "object_id = null, replaced = null, reason = null where object_id = ?",
                (object_id,),
            )
            addresses = {key for push, key in rows if tells_who(push, key)}
            telling = {name.casefold() for name in named}
            for (key,) in self.query("select distinct row_key from rows") if telling else ():
                if telling.intersection(key.casefold().split(KEY_SEPARATOR)):
                    addresses.add(key)
            for other in others:
                of_other = (
                    "select row_key from rows where object_id = ? and instr(row_key, '@') > 0"
                )
                addresses.update(key for (key,) in self.query(of_other, other))
            for address in addresses:
                rows += self.query("select push, row_key from rows where row_key = ?", address)
                for table in ("rows", "operations", "failed"):
                    db.execute(f"delete from {table} where row_key = ?", (address,))
            return {(push, key) for push, key in rows}

    # -- runs -----------------------------------------------------------------------------------

    def begin_run(
        self,
        push: str,
        object: str | None = None,
        mode: str | None = None,
        *,
        is_retry: bool = False,
    ) -> int:
        """Open a run; its operations carry its number. `is_retry`: it is for the failed rows only."""
        with self.transaction() as db:
            self._prune(db)
            cursor = db.execute(
                "insert into runs (push, object, mode, is_retry, started_at) values (?, ?, ?, ?, ?)",
                (push, object, mode, is_retry, self.clock()),
            )
            self.run = cursor.lastrowid
        assert self.run is not None
        return self.run

    def note_refused_run(self, push: str, object: str, mode: str, error: str, now: float) -> None:
        """Note a run that could not begin, and why."""
        with self.transaction() as db:
            db.execute(
                "insert into runs (push, object, mode, started_at, ended_at, error) values (?, ?, ?, ?, ?, ?)",
                (push, object, mode, now, now, error),
            )

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
            "delete from runs where started_at < ? and run < (select max(run) from runs) "  # or its number came again
            "and run not in (select run from operations where run is not null)",
            (before,),
        )
        db.execute("delete from failed where run not in (select run from runs)")

    def note_failed(self, rows: Iterable[FailedRow]) -> None:
        """Note rows of this run that were not sent, or came to no known outcome."""
        now = self.clock()
        with self.transaction() as db:
            db.executemany(
                "insert or replace into failed values (?, ?, ?, ?, ?, ?, ?)",
                [
                    (self.run, row.key, row.status, row.object_id, row.request_id, row.reason, now)
                    for row in rows
                ],
            )

    def failed(self, run: int) -> list[FailedRow]:
        """The rows of a run that were rejected, or have no known outcome."""
        columns = "row_key, status, object_id, request_id, reason, at"
        found = self.query(f"select {columns} from failed where run = ? order by row_key", run)
        return [FailedRow(*row) for row in found]

    def end_run(self, counts: Mapping[str, int], error: str | None = None) -> None:
        """Note how a run ended; `error`: what stopped it."""
        with self.transaction() as db:
            db.execute(
                "update runs set ended_at = ?, counts = ?, error = ? where run = ?",
                (self.clock(), json.dumps(dict(counts)), error, self.run),
            )
        self.run = None

    def runs(
        self, push: str | None = None, last: int = 20, number: int | None = None
    ) -> list[dict[str, Any]]:
        """The newest runs, newest first; `number`: only that one."""
        names = ("run", "push", "object", "mode", "is_retry", "started_at", "ended_at", "error")
        found = self.query(
            f"select {', '.join(names)}, counts from runs where coalesce(?, push) = push "
            "and coalesce(?, run) = run order by run desc limit ?",
            push,
            number,
            last,
        )
        return [
            {**dict(zip(names, row[:-1], strict=True)), "counts": json.loads(row[-1] or "{}")}
            for row in found
        ]

    def operations(self, run: int) -> list[Operation]:
        """The requests of a run."""
        found = self.query(
            f"select {OPERATION} from operations where run = ? order by push, row_key, version, step",
            run,
        )
        return [_operation(row) for row in found]


def tells_who(push: str, row_key: str) -> bool:
    """Whether the key of a row tells a person who knows an e-mail address whose it is."""
    return "@" in row_key or CREATED_FOR in push


def _tied(push: str) -> str:
    return f"object of {push}"


def log_beside(database: str | None) -> str:
    """The path of the push log that belongs to a DuckDB file; by default it lies in the working
    folder. Raises `SetupError` for what cannot be such a file.
    """
    if database is None:
        return LOG
    require_file(database)
    return str(Path(database).with_suffix(_LOG_SUFFIX))


def log_lock(path: Path) -> Path:
    """The lock file that a push holds while it uses the log."""
    return path.with_name(f"{path.name}.lock")


def marked(step: PushStep, key: str) -> dict[str, Any]:
    """The parameters of a step; what it creates carries the key as a marker in its metadata."""
    if step.verb != "create":
        return dict(step.params)
    return {**step.params, "metadata": {**(step.params.get("metadata") or {}), MARKER: key}}


def _dumped(params: Mapping[str, Any]) -> str:
    return json.dumps(params, default=str)  # a Decimal is sent as its digits


_CONTENT = json.JSONEncoder(sort_keys=True, default=str)


def content_of(params: Mapping[str, Any]) -> str:
    """A digest of what is to be sent."""
    text = _CONTENT.encode(params)
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
