"""A reader of the DuckDB file does not break a run for longer than `wait`: at its start, while it
reads, loads and relays.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from stripe_feed import open_feed
from stripe_feed import sync_run as syncing
from stripe_feed.destination import load, locks
from stripe_feed.errors import Locked, SetupError
from stripe_feed.extract.writer import Writer
from stripe_feed.feed.relay import store_path
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.sandbox import Sandbox
from tests.commands import holding
from tests.copies import Copy, copy_of

TABLES = ("customers", "products")


class Reader:
    """Somebody who opens the file at a moment of a run, and leaves when the run first waits."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.stack = ExitStack()
        self.waits = 0

    def come(self) -> None:
        if not self.waits:
            self.stack.enter_context(holding(self.file))

    def leave(self) -> None:
        self.waits += 1
        self.stack.close()


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    """A copy, and what came since."""
    with copy_of(Sandbox(seed=4, customers=6, oddities=False), tmp_path) as found:
        found.alone = False
        found.load(resources=TABLES)
        found.box.advance(3_600)
        found.box.create("customers", name="New")
        found.box.update("products", next(iter(found.box.objects("products"))), name="Changed")
        found.box.advance(400)
        yield found


@pytest.fixture
def reader(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    found = Reader(copy.folder / copy.database)
    monkeypatch.setattr(locks, "pause", found.leave)
    yield found
    found.stack.close()


def before(
    monkeypatch: pytest.MonkeyPatch, holder: Any, name: str, call: Callable[[], None]
) -> None:
    """Call something each time before a function runs."""
    real = getattr(holder, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        call()
        return real(*args, **kwargs)

    monkeypatch.setattr(holder, name, wrapped)


MOMENTS: dict[str, tuple[Any, str]] = {
    "at the start": (syncing, "check_destination"),
    "before the state is taken": (load, "sync_state"),
    "before rows are looked up": (Writer, "drop_unchanged"),
    "before the load": (load, "_load_package"),
    "before the relay": (syncing, "relay_pipeline"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_reader_holds_a_run_up_for_as_long_as_it_may_wait(
    copy: Copy, reader: Reader, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    before(monkeypatch, *MOMENTS[moment], reader.come)
    done = copy.sync(resources=TABLES, wait=60)
    assert reader.waits == 1
    copy.check(*TABLES)
    assert done.relayed == done.rows["changes"] == 2


@pytest.mark.parametrize(
    "moment",
    [
        moment
        for moment in MOMENTS
        if moment not in ("before rows are looked up", "before the relay")
    ],
)
def test_without_waiting_it_says_who_is_in_the_way(
    copy: Copy,
    reader: Reader,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    moment: str,
) -> None:
    """And loses nothing: the next run goes on, and says so where something was left to load."""
    before(monkeypatch, *MOMENTS[moment], reader.come)
    with pytest.raises(Locked, match=r"copy.duckdb is open in process \d+\. Close it there"):
        copy.sync(resources=TABLES, wait=0)
    assert reader.waits == 0
    reader.leave()
    done = copy.sync(resources=TABLES)
    copy.check(*TABLES)
    assert done.rows == {
        "customers": 2,
        "products": 1,
        "changes": 2,
    }  # what was left is counted as well
    assert done.packages == 1
    assert caplog.text.count(
        "An earlier run was interrupted: its unloaded data is loaded first."
    ) == (moment == "before the load")


def test_a_package_that_cannot_be_loaded_holds_up_no_run(
    copy: Copy, reader: Reader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is dropped, with one line, and read again by the same run."""
    before(monkeypatch, *MOMENTS["before the load"], reader.come)
    with pytest.raises(Locked):
        copy.sync(resources=TABLES, wait=0)
    reader.leave()
    for file in (copy.folder / copy.state).rglob("customers.*.parquet"):
        file.write_bytes(file.read_bytes()[:-9])
    done = copy.sync(resources=TABLES)
    copy.check(*TABLES)
    assert done.rows == {"customers": 2, "products": 1, "changes": 2}
    assert re.findall("This data cannot .*", caplog.text) == [
        "This data cannot be loaded and is read again: duckdb cannot load customers: it cannot do what the load asks of it."
    ]
    with open_feed(copy.pipeline) as feed:
        assert len(list(feed.read())) == 2


def test_a_package_that_is_refused_waits_for_nobody(copy: Copy) -> None:
    """Nothing of it stays in dlt's folder; when what is in the way is gone, the next run reads it
    again.
    """
    copy.select("create unique index one_name on stripe.products (name)")
    for product in list(copy.box.objects("products"))[:2]:
        copy.box.update("products", product, name="One name")
    copy.box.advance(400)
    with pytest.raises(
        SetupError, match="duckdb cannot load products: a unique index or constraint"
    ):
        copy.sync(resources=TABLES)
    assert not copy.pipeline.has_pending_data
    assert list((copy.folder / copy.state).rglob("*.parquet")) == []
    copy.select("drop index stripe.one_name")
    copy.sync(resources=TABLES)
    copy.check(*TABLES)


def test_who_looks_on_while_rows_are_looked_up_is_named_as_well(
    copy: Copy, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    before(monkeypatch, Writer, "drop_unchanged", reader.come)
    with pytest.raises(SetupError, match=r"copy.duckdb is open in process \d+\. Close it there"):
        copy.sync(resources=TABLES, wait=0)
    reader.leave()
    copy.sync(resources=TABLES)
    copy.check(*TABLES)


def test_all_is_loaded_when_only_the_relay_was_held_up(
    copy: Copy, reader: Reader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run succeeds, says so, and the feed takes the changes over when the file is free."""
    caplog.set_level(logging.WARNING, "stripe_feed")
    FeedStore(store_path(copy.pipeline)).close()  # else one is filled before the load, too
    before(monkeypatch, syncing, "relay_pipeline", reader.come)
    assert copy.sync(resources=TABLES, wait=0).relayed == 0
    assert (
        "Data loaded; the feed could not be updated and will catch up on the next run: copy.duckdb is open in process"
        in caplog.text
    )
    reader.leave()
    copy.check(*TABLES)
    with open_feed(copy.pipeline) as feed:
        assert len(list(feed.read())) == 2
