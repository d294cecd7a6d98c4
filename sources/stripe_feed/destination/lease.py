"""The lease on a dataset: who writes holds it in the database itself, so that two machines, or two
folders, never do at once.

An advisory lock of a transaction that stays open while the run lasts: the server gives it back when
the connection ends, however that ends, and a pooler in between keeps such a connection to one
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
from .error_messages import connection_problem
from .locks import PATIENCE, WRITES, patiently
from .place import place_of

log = logging.getLogger("stripe_feed")

LEASED = frozenset({"dlt.destinations.postgres"})
SPACE = 0x57817E  # keeps our locks apart from those of others in the same database
NAME_BYTES = 63  # of an application's name, which tells others who it is
SETTINGS = """
select set_config(name, value, true) from pg_settings
join (values ('application_name', %s), ('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0'),
    ('tcp_keepalives_idle', '30'), ('tcp_keepalives_interval', '10'), ('tcp_keepalives_count', '3')) as ours(name, value)
using (name)
"""
"""For this transaction: it may rest for hours, but a machine that vanished is noticed within a
minute.
"""

TAKE = "select pg_try_advisory_xact_lock(%s, %s)"
HOLDER = """
select a.application_name, a.xact_start from pg_locks l left join pg_stat_activity a using (pid)
where l.locktype = 'advisory' and l.granted and l.classid = %s and l.objid = %s::bigint::oid and l.objsubid = 2
and l.database = (select oid from pg_database where datname = current_database())
"""
WRITERS = """
select l.pid from pg_locks l join pg_class c on c.oid = l.relation join pg_namespace n on n.oid = c.relnamespace
where n.nspname in (%s, %s) and l.mode = 'RowExclusiveLock' and l.granted and l.pid <> pg_backend_pid()
and l.database = (select oid from pg_database where datname = current_database())
"""
"""A worker that was killed lets go at once; what it had sent, the server may still be doing."""


@contextmanager
def leased(pipeline: Any, what: str, wait: float = PATIENCE) -> Iterator[Callable[[], None]]:
    """Hold the lease of a pipeline's dataset; gives a function that raises `TryLater` where it was
    lost meanwhile.

    Raises `Locked` that names the holder after `wait` seconds, or another `SetupError` where the
    database cannot be reached.
    """
    if pipeline.destination.destination_type not in LEASED:
        yield lambda: None
        return
    client = pipeline.sql_client()
    try:
        connection = client.open_connection()
    except Exception as fault:
        raise connection_problem(pipeline, fault) from None
    try:
        connection.set_session(
            isolation_level="READ COMMITTED", autocommit=False
        )  # it rests without a snapshot
        datasets = (client.dataset_name, client.staging_dataset_name)
        patiently(
            partial(_take, connection, number_of(place_of(pipeline).dataset), datasets, what), wait
        )
        yield partial(_hold, connection)
    finally:
        with suppress(Exception):
            client.close_connection()


def number_of(dataset: str) -> int:
    """The lock's number of a dataset; each database has its own."""
    return int.from_bytes(blake2b(dataset.encode(), digest_size=4).digest(), "big", signed=True)


def _take(connection: Any, number: int, datasets: tuple[str, str], what: str) -> None:
    """One try, in a transaction of its own: within one, the server shows the same sessions again."""
    from psycopg2 import Error, OperationalError

    connection.rollback()
    try:
        with connection.cursor() as cursor:
            cursor.execute(SETTINGS, (_name(what),))
            cursor.execute(TAKE, (SPACE, number))
            if not cursor.fetchone()[0]:
                cursor.execute(HOLDER, (SPACE, number % 2**32))
                raise Locked(f"{_holder(cursor.fetchone())} {WRITES}")
            cursor.execute(WRITERS, datasets)
            if (writer := cursor.fetchone()) is not None:
                raise Locked(f"The database session {writer[0]} {WRITES}")
    except OperationalError:
        raise _lost() from None
    except Error as fault:
        connection.rollback()
        log.warning(
            "This database has no advisory locks (%s): see to it that only one run at a time writes.",
            fault.pgcode,
        )
    except Locked:
        connection.rollback()
        raise


def _hold(connection: Any) -> None:
    """The lock lasts as long as its transaction."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("select 1")
    except Exception:
        raise _lost() from None


def _lost() -> TryLater:
    return TryLater(
        "The database closed the connection that keeps other runs away. Nothing is lost: run again."
    )


def _name(what: str) -> str:
    end = f":{os.getpid()}"
    start = f"{what}@{socket.gethostname()}".encode("ascii", "replace")[: NAME_BYTES - len(end)]
    return start.decode() + end


def _holder(row: tuple[str | None, Any] | None) -> str:
    """Who it is, of what others may see; another role sees nothing."""
    name, since = row or (None, None)
    what, at, place = (name or "").partition("@")
    host, colon, pid = place.rpartition(":")
    if not (at and colon and since):
        return "another run, on this or another machine,"
    return f"`{what}` (process {pid} on {host}, since {since.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC)"
