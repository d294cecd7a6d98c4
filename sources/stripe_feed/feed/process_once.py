"""An effect exactly once: what was processed is noted in the transaction of the effect itself, in
the user's own database.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ..errors import UsageError
from .change import Change

TABLE = "stripe_feed_processed"
MAKE = f"create table if not exists {TABLE} (consumer text, change_id text, primary key (consumer, change_id))"
SQLITE_LEGACY = -1  # sqlite3.LEGACY_TRANSACTION_CONTROL of Python 3.12

Run = Callable[[str], list[Any]]


def process_once(connection: Any, change: str | Change, consumer: str = "default") -> bool:
    """Note that a consumer processes a change, within the connection's open transaction; whether it
    does so for the first time.

    Where this is true, do the effect in the same transaction, then commit. A rollback or a crash
    takes back both, and the change comes again. `connection` is one of sqlite3, psycopg2 or duckdb
    itself; `change` a change, or its id, or that of a message. Raises `UsageError` for other ids
    and connections, and outside a transaction, where nothing would hold the two together.

    Where the table `stripe_feed_processed` is missing, it is made, as part of the transaction (of
    sqlite3's own ones, which begin with the first row, it is not); in Postgres, others that find it
    missing wait for the end of this transaction. Where another transaction notes the same change at
    the same time, Postgres waits for its end. SQLite and DuckDB, and Postgres at isolation levels
    above the default one, may raise an error of theirs instead: roll back and try again.
    """
    id = change if isinstance(change, str) else change.change_id
    for text in (id, consumer):
        if not re.fullmatch(r"[\w.:-]{1,200}", text, re.ASCII):
            raise UsageError(
                "An id or a consumer's name has at most 200 letters, digits and the characters _ . : -"
            )
    run = _prepared(connection)
    return bool(
        run(f"insert into {TABLE} values ('{consumer}', '{id}') on conflict do nothing returning 1")
    )


def _prepared(connection: Any) -> Run:
    """What runs a statement and gives its rows; there is a transaction, or the next statement
    begins one, and the table.
    """
    drivers = {base.__module__.partition(".")[0].lstrip("_") for base in type(connection).__mro__}
    if "psycopg2" in drivers:
        return _in_postgres(connection)

    def run(statement: str) -> list[Any]:
        rows: list[Any] = connection.execute(
            statement
        ).fetchall()  # a cursor of DuckDB is another connection
        return rows

    if "sqlite3" in drivers:
        is_legacy = getattr(connection, "autocommit", SQLITE_LEGACY) == SQLITE_LEGACY
        _require(
            connection.in_transaction or (is_legacy and connection.isolation_level is not None)
        )
    elif "duckdb" in drivers:
        _require(run("select txid_current()") == run("select txid_current()"))
    else:
        raise UsageError(
            "process_once takes a connection of sqlite3, psycopg2 or duckdb itself, no wrapper of one."
        )
    run(MAKE)
    return run


def _in_postgres(connection: Any) -> Run:
    def run(statement: str) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    _require(not connection.autocommit or connection.info.transaction_status)
    if not run(
        f"select 1 where to_regclass('{TABLE}') is not null"
    ):  # to ask for what exists takes the right to create
        run(f"select pg_advisory_xact_lock(hashtext('{TABLE}'))")  # two at once would collide
        run(MAKE)
    return run


def _require(is_in_transaction: object) -> None:
    if not is_in_transaction:
        raise UsageError(
            "process_once belongs into the transaction of the effect, and there is none. Begin one first."
        )
