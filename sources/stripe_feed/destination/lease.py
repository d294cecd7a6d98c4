"""The lease on a dataset: a lock in the database itself, so that two machines, or two folders,
never write at once.

It is the advisory lock of a transaction that stays open during the run: the server releases it when
the connection ends, for whatever reason, and a connection pooler keeps such a connection for one
client. Other destinations have no such lock.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timezone
from functools import partial
from hashlib import blake2b
from typing import Any

from ..errors import Locked, TryLater
from .error_messages import connection_error
from .locks import DEFAULT_WAIT, IS_WRITING, retry_while_locked
from .place import place_of

log = logging.getLogger("stripe_feed")

LEASE_DESTINATIONS = frozenset({"dlt.destinations.postgres"})
LOCK_NAMESPACE = 0x57817E  # apart from the locks of other programs in the same database
MAX_NAME_BYTES = 63  # of an application's name, which identifies the holder
SESSION_SETTINGS = """
select set_config(name, value, true) from pg_settings
join (values ('application_name', %s), ('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0'),
    ('tcp_keepalives_idle', '30'), ('tcp_keepalives_interval', '10'), ('tcp_keepalives_count', '3')) as ours(name, value)
using (name)
"""
"""Settings of the transaction: it may be idle for hours, but a machine that vanished is noticed
within a minute.
"""

TRY_LOCK = "select pg_try_advisory_xact_lock(%s, %s)"
LOCK_HOLDER = """
select a.application_name, a.xact_start from pg_locks l left join pg_stat_activity a using (pid)
where l.locktype = 'advisory' and l.granted and l.classid = %s and l.objid = %s::bigint::oid and l.objsubid = 2
and l.database = (select oid from pg_database where datname = current_database())
"""
OTHER_WRITERS = """
select l.pid from pg_locks l join pg_class c on c.oid = l.relation join pg_namespace n on n.oid = c.relnamespace
where n.nspname in (%s, %s) and l.mode = 'RowExclusiveLock' and l.granted and l.pid <> pg_backend_pid()
and l.database = (select oid from pg_database where datname = current_database())
"""
"""A killed run releases its lock at once, but the server may still execute its statements."""


@contextmanager
def hold_lease(
    pipeline: Any, command: str, wait: float = DEFAULT_WAIT
) -> Iterator[Callable[[], None]]:
    """Hold the lease of a pipeline's dataset; yield a function that raises `TryLater` if it was lost
    meanwhile.

    Raises `Locked`, with the holder, after `wait` seconds, or another `SetupError` if the database
    cannot be reached.
    """
    if pipeline.destination.destination_type not in LEASE_DESTINATIONS:
        yield lambda: None
        return
    client = pipeline.sql_client()
    try:
        connection = client.open_connection()
    except Exception as fault:
        raise connection_error(pipeline, fault) from None
    try:
        connection.set_session(
            isolation_level="READ COMMITTED", autocommit=False
        )  # it holds no snapshot while idle
        datasets = (client.dataset_name, client.staging_dataset_name)
        retry_while_locked(
            partial(
                _try_lock, connection, lock_number(place_of(pipeline).dataset), datasets, command
            ),
            wait,
        )
        yield partial(_require_connection, connection)
    finally:
        with suppress(Exception):
            client.close_connection()


def lock_number(dataset: str) -> int:
    """The lock number of a dataset; each database has its own locks."""
    return int.from_bytes(blake2b(dataset.encode(), digest_size=4).digest(), "big", signed=True)


def _try_lock(connection: Any, number: int, datasets: tuple[str, str], command: str) -> None:
    """Try once, in a new transaction: within one, the server always shows the same sessions."""
    from psycopg2 import Error, OperationalError

    connection.rollback()
    try:
        with connection.cursor() as cursor:
            cursor.execute(SESSION_SETTINGS, (_application_name(command),))
            cursor.execute(TRY_LOCK, (LOCK_NAMESPACE, number))
            if not cursor.fetchone()[0]:
                cursor.execute(LOCK_HOLDER, (LOCK_NAMESPACE, number % 2**32))
                raise Locked(f"{_describe_holder(cursor.fetchone())} {IS_WRITING}")
            cursor.execute(OTHER_WRITERS, datasets)
            if (writer := cursor.fetchone()) is not None:
                raise Locked(f"The database session {writer[0]} {IS_WRITING}")
    except OperationalError:
        raise _lost_lease() from None
    except Error as fault:
        connection.rollback()
        log.warning(
            "This database has no advisory locks (%s): make sure that only one run at a time writes.",
            fault.pgcode,
        )
    except Locked:
        connection.rollback()
        raise


def _require_connection(connection: Any) -> None:
    """Raise `TryLater` if the connection, and with it the lock, is lost."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("select 1")
    except Exception:
        raise _lost_lease() from None


def _lost_lease() -> TryLater:
    return TryLater(
        "The database closed the connection that holds the lock on the dataset. Nothing is lost: run again."
    )


def _application_name(command: str) -> str:
    end = f":{os.getpid()}"
    start = f"{command}@{socket.gethostname()}".encode("ascii", "replace")[
        : MAX_NAME_BYTES - len(end)
    ]
    return start.decode() + end


def _describe_holder(row: tuple[str | None, Any] | None) -> str:
    """Name the holder as far as this role may see it."""
    name, since = row or (None, None)
    command, at, place = (name or "").partition("@")
    host, colon, pid = place.rpartition(":")
    if not (at and colon and since):
        return "another run, on this or another machine,"
    return f"`{command}` (process {pid} on {host}, since {since.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC)"
