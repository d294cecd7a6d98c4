"""A copy of a sandbox's account in a DuckDB file of its own, as tests hold it."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
from dlt.extract import DltSource

from stripe_feed import stripe_source
from stripe_feed.destination.pipeline import dlt_settings, open_pipeline
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.state.kinds import KINDS
from stripe_feed.sync_run import Synced, sync
from tests.core import CORE
from tests.truth import assert_true

LOADED: dict[tuple[str, ...], Path] = {}
"""Databases of this process, by what was loaded into them."""

FAST: dict[str, Any] = {"max_rps": 2000, "endpoint_rps": 2000, "give_up_after": 20}
"""No pace: the sandbox has no limits unless it is told to."""

PERMISSIONS = frozenset(row.permission for row in CORE.values()) | {
    "rak_accounts_kyc_basic_read",
    "rak_event_read",
}
"""What a restricted key needs for everything."""


@contextmanager
def held_open(file: Path) -> Iterator[Callable[[], None]]:
    """Keep a DuckDB file open from its first opening on, and give what closes it until the next one:
    a run opens it a dozen times, 30 ms of CPU each, and the first time it is this one's copy in
    memory that all others share.
    """
    connect, held = duckdb.connect, list[duckdb.DuckDBPyConnection]()

    def connect_and_hold(database: Any = ":memory:", *args: Any, **options: Any) -> Any:
        opened = connect(database, *args, **options)
        if not held and str(database) == str(file):
            with suppress(duckdb.Error):  # opened for reading only, or in another way
                held.append(connect(str(file)))
        return opened

    def release() -> None:
        while held:
            held.pop().close()

    with patch.object(duckdb, "connect", connect_and_hold):
        try:
            yield release
        finally:
            release()


@dataclass
class Copy:
    """An account, where it is served, and the folder with its database and dlt's state."""

    box: Sandbox
    url: str
    folder: Path
    database: str = "copy.duckdb"
    state: str = "state"
    alone: bool = True  # no other process is to have the database meanwhile
    loads: tuple[str, ...] = ()  # what `load` loaded, in order
    release: Callable[[], None] = lambda: None  # close the file, if it is held open

    def sync(self, **options: Any) -> Synced:
        """`stripe-feed sync`."""
        mine = {
            "api_key": self.box.key,
            "api_base": self.url,
            "database": str(self.folder / self.database),
        }
        with self._held():
            return sync(**mine | {"state_dir": str(self.folder / self.state)} | FAST | options)

    def load(self, **options: Any) -> None:
        """`sync` where only the database matters: that of an earlier test which loaded the same."""
        self.loads = (*self.loads, f"{sorted(options.items())} {fingerprint(self.box)}")
        file = self.folder / self.database
        self.release()
        if self.loads in LOADED:
            shutil.copy(LOADED[self.loads], file)
            return
        self.sync(**options)
        self.release()
        LOADED[self.loads] = Path(tempfile.mkdtemp(dir=os.environ["HOME"]), file.name)
        shutil.copy(file, LOADED[self.loads])

    def source(self, **options: Any) -> DltSource:
        """A new source on the account."""
        return stripe_source(**{"api_key": self.box.key, "api_base": self.url} | FAST | options)

    def run(self, source: DltSource | None = None, **options: Any) -> Any:
        """`pipeline.run(stripe_source())`, as in a user's own script."""
        pipeline = self.pipeline
        with dlt_settings(), self._held():
            pipeline.run(self.source() if source is None else source, **options)
        return pipeline

    def _held(self) -> AbstractContextManager[Any]:
        return held_open(self.folder / self.database) if self.alone else nullcontext()

    @property
    def pipeline(self) -> Any:
        return open_pipeline(
            str(self.folder / self.database), state_dir=str(self.folder / self.state)
        )

    def check(self, *tables: str, **options: Any) -> None:
        """Fail unless every table equals the truth."""
        assert_true(self.pipeline, self.box, **({"tables": tables} if tables else {}), **options)

    def select(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of a query; the dataset is `stripe`."""
        with closing(duckdb.connect(str(self.folder / self.database))) as base:
            return base.execute(query).fetchall()

    def one(self, query: str) -> Any:
        """The first field of a query's only row."""
        ((value, *_),) = self.select(query)
        return value

    @property
    def states(self) -> dict[str, Any]:
        """dlt's state of each resource."""
        found: dict[str, Any] = (
            self.pipeline.state.get("sources", {}).get("stripe", {}).get("resources", {})
        )
        return found


class PostgresCopy(Copy):
    """The same on a Postgres server, whose address is in the environment."""

    def sync(self, **options: Any) -> Synced:
        return super().sync(**{"database": None, "destination": "postgres"} | options)

    @property
    def pipeline(self) -> Any:
        return open_pipeline(None, "postgres", state_dir=str(self.folder / self.state))

    def select(self, query: str) -> list[tuple[Any, ...]]:
        with self.pipeline.sql_client() as client, client.execute_query(query) as cursor:
            found: list[tuple[Any, ...]] = cursor.fetchall()
            return found


def fingerprint(box: Sandbox) -> str:
    """A digest of what a copy of the account would hold, its events among it."""
    digest = hashlib.sha256(f"{box.account_id} {box.now} ".encode())
    with box.account.lock:
        for table in KINDS:
            for id, raw in box.account.objects(table):
                digest.update(id.encode() + raw)
    digest.update(f"{[event.id for event in box.events]}".encode())
    return digest.hexdigest()


@contextmanager
def copy_of(box: Sandbox, folder: Path, hold: bool = False) -> Iterator[Copy]:
    """Serve an account and give an empty copy of it. `hold`: its file stays open until the end, in
    this process alone, or each run and each look would open it anew and write it out.
    """
    with box.serve() as url:
        copy = Copy(box, url, folder)
        with held_open(folder / copy.database) if hold else nullcontext(copy.release) as release:
            copy.release = release
            yield copy


def first_copy(box: Sandbox, folder: Path, **options: Any) -> Path:
    """The database after a first sync of an account."""
    with copy_of(box, folder) as copy:
        copy.sync(**options)
        return copy.folder / copy.database
