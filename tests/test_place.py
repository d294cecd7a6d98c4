"""What is kept for a copy is kept for the very database that it is in: its working folder, its
lock, its feed, and what waits.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import pytest

from stripe_feed.destination import load
from stripe_feed.destination.pipeline import open_pipeline
from stripe_feed.destination.place import Place, companion_file, place_of
from stripe_feed.errors import WrongAccount
from stripe_feed.feed.relay import store_path
from stripe_feed.sandbox import Sandbox
from tests.copies import Copy, copy_of

HERE = "postgresql://loader:secret@db.example.com:5432/eu"


def place(url: str, dataset: str = "stripe") -> Place:
    where = (
        dlt.destinations.postgres(url)
        if url.startswith("postgres")
        else dlt.destinations.sqlalchemy(url)
    )
    return place_of(dlt.pipeline("p", destination=where, dataset_name=dataset, pipelines_dir="dlt"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://other:word@db.example.com/eu",
        "postgresql://loader:secret@DB.example.com:5432/eu?connect_timeout=3&sslmode=require",
        "postgresql+psycopg2://loader:secret@db.example.com:5432/eu",
    ],
)
def test_whoever_connects_it_is_the_same_database(url: str) -> None:
    assert place(url) == place(HERE)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://loader:secret@db.example.com:5432/us",
        "postgresql://loader:secret@db.example.com:5433/eu",
        "postgresql://loader:secret@db2.example.com:5432/eu",
        "postgresql://loader:secret@db.example.com:5432/EU",
        "postgresql://loader:secret@db.example.com:5432/eu?hostaddr=10.0.0.2",
    ],
)
def test_another_database_is_another_place(url: str) -> None:
    assert place(url).key != place(HERE).key


def test_a_dataset_is_a_place_of_its_own() -> None:
    assert place(HERE, "second").key != place(HERE).key
    assert place(HERE, "Second Set").key == place(HERE, "second_set").key


def test_files_are_distinguished_and_known_by_every_name(tmp_path: Path) -> None:
    (tmp_path / "link.duckdb").symlink_to(tmp_path / "copy.duckdb")
    (tmp_path / "sub").mkdir()

    def files(name: str, **options: Any) -> tuple[Path, Path]:
        pipeline = open_pipeline(name, state_dir="state", **options)
        return Path(pipeline.pipelines_dir), store_path(pipeline)

    assert files("copy.duckdb") == files("sub/../copy.duckdb") == files("link.duckdb")
    names = ("copy.duckdb", "copy.db", "sub/copy.duckdb")
    assert (
        len({folder for folder, _ in map(files, names)})
        == len({store for _, store in map(files, names)})
        == 3
    )
    assert (
        files("copy.duckdb", dataset="second")[1]
        != files("copy.duckdb")[1]
        == tmp_path / "copy.feed.sqlite"
    )


def test_two_sqlite_files_have_two_feeds(tmp_path: Path) -> None:
    one, other = (place(f"sqlite:///{tmp_path / name}") for name in ("a.db", "b.db"))
    assert one.key != other.key and (one.file, other.file) == (tmp_path / "a.db", tmp_path / "b.db")


def test_a_server_s_copy_keeps_its_files_in_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each database in its own, whatever the password; a pipeline of one's own finds the same store
    in the same folder.
    """

    def files(url: str) -> tuple[Path, Path, Path]:
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", url)
        pipeline = open_pipeline(None, "postgres", state_dir="state")
        return Path(pipeline.pipelines_dir), store_path(pipeline), companion_file(pipeline, ".lock")

    eu, us = files(HERE), files(HERE.replace("/eu", "/us"))
    assert files(HERE.replace("secret", "new")) == eu
    assert not set(eu) & set(us)
    assert {path.parent for path in (*eu, *us)} == {Path("state")}
    own = dlt.pipeline(
        "own",
        destination=dlt.destinations.postgres(HERE),
        dataset_name="stripe",
        pipelines_dir="state",
    )
    assert store_path(own) == eu[1]


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    """A copy whose second run ended before its package was loaded, and a backup from before."""
    with copy_of(
        Sandbox(seed=8, customers=3, invoices=0, subscriptions=0, oddities=False), tmp_path
    ) as found:
        found.sync(resources=["customers"])
        shutil.copy(tmp_path / found.database, tmp_path / "backup.duckdb")
        found.box.create("customers", name="First")
        found.box.advance(400)
        yield found


def interrupted(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends before its package is loaded."""

    def killed(_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(load, "_load_package", killed)
        copy.sync(resources=["customers"])


def test_what_waits_is_read_again_where_a_backup_was_restored(
    copy: Copy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its cursors would pass over what the backup lacks."""
    caplog.set_level(logging.WARNING, "stripe_feed")
    copy.sync(resources=["customers"])
    copy.box.create("customers", name="Second")
    copy.box.advance(400)
    interrupted(copy, monkeypatch)
    shutil.copy(copy.folder / "backup.duckdb", copy.folder / copy.database)

    copy.sync(resources=["customers"])
    copy.check("customers")
    assert "does not match the destination any more and is read again" in caplog.text


def test_what_waits_is_not_loaded_into_another_account_s_copy(
    copy: Copy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file was replaced, or the server's name leads to another one; neither key brings it
    there.
    """
    interrupted(copy, monkeypatch)
    with copy_of(
        Sandbox(seed=9, customers=2, invoices=0, subscriptions=0, oddities=False), tmp_path
    ) as other:
        other.database = "other.duckdb"
        other.sync(resources=["customers"])
        shutil.copy(tmp_path / "other.duckdb", tmp_path / copy.database)
        with pytest.raises(WrongAccount):
            copy.sync(resources=["customers"])
        other.database = copy.database
        assert other.one("select count(*) from stripe.customers") == 2
        other.sync(resources=["customers"])
        other.check("customers")
