"""Make an effect happen exactly once: record each processed change in the effect's own transaction,
in the user's database.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ..errors import UsageError
from .change import Change

_TABLE = "stripe_feed_processed"
CREATE_TABLE = f"create table if not exists {_TABLE} (consumer text, change_id text, primary key (consumer, change_id))"
SQLITE_LEGACY = -1  # sqlite3.LEGACY_TRANSACTION_CONTROL of Python 3.12

Execute = Callable[[str], list[Any]]


def process_once(connection: Any, change: str | Change, consumer: str = "default") -> bool:
    """Record within the connection's open transaction that a consumer processes a change; return
    whether it is the first time.

    If True, do the effect in the same transaction, then commit. A rollback or a crash undoes both,
    and the change comes again. `connection` is a sqlite3, psycopg2 or duckdb connection; `change` a
    change, its id, or a message's id. Raises `UsageError` for other ids and connections, and
    outside a transaction, where nothing would tie the two together.

    Creates the table `stripe_feed_processed` if it is missing, as part of the transaction (except
    in sqlite3's implicit transactions, which begin with the first row); in Postgres, others that
    find it missing wait for this transaction. If another transaction records the same change at the
    same time, Postgres waits for its end. SQLite and DuckDB, and Postgres above its default
    isolation level, may raise an error of their own instead: roll back and try again.
    """
    id = change if isinstance(change, str) else change.change_id
    for text in (id, consumer):
        if not re.fullmatch(r"[\w.:-]{1,200}", text, re.ASCII):
            raise UsageError(
                "An id or a consumer's name is at most 200 letters, digits or the characters _ . : -"
            )
    run = _executor(connection)
    return bool(
        run(
            f"insert into {_TABLE} values ('{consumer}', '{id}') on conflict do nothing returning 1"
        )
    )


def _executor(connection: Any) -> Execute:
    """Return a function that runs a statement and returns its rows. Checks the transaction and
    creates the table.
    """
    drivers = {base.__module__.partition(".")[0].lstrip("_") for base in type(connection).__mro__}
    if "psycopg2" in drivers:
        return _postgres_executor(connection)

    def run(statement: str) -> list[Any]:
        rows: list[Any] = connection.execute(
            statement
        ).fetchall()  # a cursor of DuckDB is another connection
        return rows

    if "sqlite3" in drivers:
        is_legacy = getattr(connection, "autocommit", SQLITE_LEGACY) == SQLITE_LEGACY
        _require_transaction(
            connection.in_transaction or (is_legacy and connection.isolation_level is not None)
        )
    elif "duckdb" in drivers:
        _require_transaction(run("select txid_current()") == run("select txid_current()"))
    else:
        raise UsageError(
            "process_once takes a sqlite3, psycopg2 or duckdb connection, not a wrapper. Pass the driver's own connection."
        )
    run(CREATE_TABLE)
    return run


def _postgres_executor(connection: Any) -> Execute:
    def run(statement: str) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    _require_transaction(not connection.autocommit or connection.info.transaction_status)
    if not run(
        f"select 1 where to_regclass('{_TABLE}') is not null"
    ):  # to ask for what exists takes the right to create
        run(f"select pg_advisory_xact_lock(hashtext('{_TABLE}'))")  # two at once would collide
        run(CREATE_TABLE)
    return run


def _require_transaction(is_in_transaction: object) -> None:
    if not is_in_transaction:
        raise UsageError(
            "process_once must run inside the transaction of the effect, and none is open. Begin one first."
        )
