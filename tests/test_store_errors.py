"""Feed stores that cannot be used: each of SQLite's faults has words and a way out, and what can be
read of damage is saved.
"""

from __future__ import annotations

import os
import random
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest

from stripe_feed.delivery.worker import open_worker
from stripe_feed.errors import Locked, SetupError
from stripe_feed.feed import feed as feed_feed
from stripe_feed.feed.feed import Feed, rebuild_feed
from stripe_feed.feed.relay import relay
from stripe_feed.feed.storage import maintenance
from stripe_feed.feed.storage.salvage import salvage
from stripe_feed.feed.storage.schema import ADDED
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.feed.storage.store_errors import Damaged, Unusable, unusable
from tests.deliveries import a_trigger, messages, packed, run_one
from tests.feed_kills import Plain, a_change, ids_of

PAGE = 4_096
WORDS = {
    3: ("access permission denied", "permissions"),
    5: ("database is locked", "locked by another program"),
    6: ("database table is locked: messages", "locked by another program"),
    7: ("out of memory", "more memory"),
    8: ("attempt to write a readonly database", "read-only"),
    10: ("disk I/O error", "full, over quota or failing"),
    13: ("database or disk is full", "disk is full"),
    14: ("unable to open database file", "-wal"),
    15: ("locking protocol", "locked by another program"),
    23: ("authorization denied", "permissions"),
}


@pytest.fixture
def plain() -> Iterator[Plain]:
    made = Plain()
    yield made
    made.close()


def fault_of(words: str, code: int | None) -> sqlite3.Error:
    fault: Any = sqlite3.OperationalError(words)
    if code is not None:
        fault.sqlite_errorcode = code
    return fault  # type: ignore[no-any-return]


@pytest.mark.parametrize("code", WORDS)
def test_a_healthy_store_is_never_called_damaged(code: int) -> None:
    """With the codes of newer versions of Python, extended ones too, and by SQLite's words alone."""
    words, ours = WORDS[code]
    for told in (code, code | 3 << 8, None):
        found = unusable(Path("/x/copy.feed.sqlite"), fault_of(words, told))
        assert found is not None and not isinstance(found, Damaged)
        assert ours in str(found) and str(found).startswith("The feed store copy.feed.sqlite ")
        assert "Nothing is lost." in str(found)
        assert not any(word in str(found).lower() for word in ("delete", "damaged", "rebuild"))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (11, "database disk image is malformed"),
        (267, "malformed database schema (x)"),
        (26, "file is not a database"),
        (1, "no such table: log"),
    ],
)
def test_damage_leads_to_a_rebuild_and_never_to_a_deletion(code: int, words: str) -> None:
    for told in (code, None):
        found = unusable(Path("copy.feed.sqlite"), fault_of(words, told))
        assert isinstance(found, Damaged)
        assert "feed rebuild" in str(found) and "Do not delete the file." in str(found)


def test_mistakes_of_a_caller_are_no_fault_of_the_store() -> None:
    for words in ("no such column: nope", 'near "selct": syntax error'):
        assert (
            unusable(Path("x"), fault_of(words, 1))
            is unusable(Path("x"), fault_of(words, None))
            is None
        )
    assert "moved or deleted" in str(
        unusable(Path("x"), fault_of("attempt to write a readonly database", 1032))
    )


def test_a_full_disk_is_reported_and_the_store_goes_on_afterwards(tmp_path: Path) -> None:
    with FeedStore(tmp_path / "a.sqlite") as store:
        ((pages,),) = store.query("pragma page_count")
        store.query(f"pragma max_page_count = {pages}")
        with pytest.raises(Unusable, match="the disk is full") as fault:
            store.append([an_entry(n) for n in range(200)])
        assert (type(fault.value), fault.value.exit_code) == (Unusable, 3)
        store.query(f"pragma max_page_count = {pages + 1_000}")
        assert store.append([an_entry(n) for n in range(200)]) == 200


def an_entry(n: int) -> Any:
    return packed(
        a_change(n, after={"id": "sub_1", "filler": random.Random(n).randbytes(300).hex()})
    )


def test_a_store_that_another_program_holds_is_not_to_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stripe_feed.sqlite_file._BUSY_SECONDS", 0.0)
    FeedStore(tmp_path / "a.sqlite").close()
    with closing(sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)) as other:
        other.execute("pragma locking_mode = exclusive")
        other.execute("begin immediate")
        other.execute("update meta set value = value")
        other.execute("commit")
        monkeypatch.setattr("stripe_feed.sqlite_file.time.sleep", lambda seconds: None)
        with pytest.raises(Unusable, match="locked by another program"):
            FeedStore(tmp_path / "a.sqlite")
    FeedStore(tmp_path / "a.sqlite").close()


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "foreign"])
def test_what_is_no_store_is_left_alone(tmp_path: Path, kind: str) -> None:
    file, other = tmp_path / "a.sqlite", tmp_path / "other"
    other.write_text("mine")
    other.chmod(0o644)
    match kind:
        case "link":
            file.symlink_to(other)
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "foreign":
            with closing(sqlite3.connect(file)) as base:
                base.execute("create table books (title text)")

    with pytest.raises(
        SetupError, match="another program's database" if kind == "foreign" else "is left unchanged"
    ):
        FeedStore(file)

    assert (other.read_text(), stat.S_IMODE(other.stat().st_mode)) == ("mine", 0o644)
    if kind == "foreign":
        with closing(sqlite3.connect(file)) as base:
            assert base.execute("select name from sqlite_master").fetchall() == [("books",)]


def test_a_store_of_an_older_version_gets_what_it_lacks(tmp_path: Path) -> None:
    with FeedStore(tmp_path / "a.sqlite") as store:
        names = store.query("select name from sqlite_master order by name")
        store.query("drop index messages_lanes")
        store.query(
            "create index messages_left on messages (trigger, lane, number) where state = 'waiting'"
        )
        for table, column, _ in ADDED:
            store.query(f"alter table {table} drop column {column}")
        store.query("pragma user_version = 3")
    with FeedStore(tmp_path / "a.sqlite") as store:
        for table, column, _ in ADDED:
            assert store.query(f"select {column} from {table}") == []
        assert store.query("select name from sqlite_master order by name") == names


def filled(file: Path, plain: Plain, count: int = 400) -> None:
    """A store with a log, consumers, an undelivered message per change of a held trigger, and
    something forgotten.
    """
    plain.put("1", *(a_change(n, f"sub_{n}") for n in range(1, count + 1)))
    plain.complete("1")
    with FeedStore(file) as store:
        held = a_trigger(guard={"max": 1})
        run_one(store, held)
        relay(store, plain)
        run_one(store, held)
        feed = Feed(None, store)
        for _ in feed.consume("half", start="earliest", max=count // 2):
            pass
        store.query("insert into forgotten values ('cus_9')")


def stands(store: FeedStore) -> Any:
    return (
        ids_of(store),
        store.query("select name, position from consumers order by name"),
        store.query("select * from forgotten"),
        store.query("select held from triggers"),
        [(one.message_id, one.state) for one in messages(store)],
    )


def rebuilt(file: Path, plain: Plain) -> list[str]:
    """As `rebuild_feed` does it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed_feed, "lock_copy", lambda *_: nullcontext())
        patch.setattr(feed_feed, "with_client", lambda _, work: work(plain))
        return rebuild_feed(None, file)[1]


class plain_lock:
    def close(self) -> None:
        """Nothing is held."""


def test_a_damaged_log_costs_nothing(tmp_path: Path, plain: Plain) -> None:
    """Not even where consumers stand: what the log cannot tell any more, the destination and their
    own change do.
    """
    file = tmp_path / "a.sqlite"
    filled(file, plain)
    with FeedStore(file) as store:
        before = stands(store)
        leaves = [
            page
            for (page,) in store.query(
                "select pageno from dbstat where name = 'log' and pagetype = 'leaf' order by pageno"
            )
        ]
    with file.open("r+b") as raw:
        for page in leaves[2:6]:
            raw.seek((page - 1) * PAGE)
            raw.write(random.Random(page).randbytes(PAGE))
    with FeedStore(file) as store, pytest.raises(Damaged):
        list(Feed(None, store).read(limit=1_000))

    assert rebuilt(file, plain) == []

    with FeedStore(file) as store:
        assert stands(store) == before
    assert (tmp_path / "a.sqlite.damaged-1").exists()
    assert (
        stat.S_IMODE(file.stat().st_mode)
        == stat.S_IMODE((tmp_path / "a.sqlite.damaged-1").stat().st_mode)
        == 0o600
    )


def test_of_damaged_messages_those_before_and_behind_are_saved(
    tmp_path: Path, plain: Plain
) -> None:
    file = tmp_path / "a.sqlite"
    filled(file, plain)
    with FeedStore(file) as store:
        before = stands(store)
        leaves = [
            page
            for (page,) in store.query(
                "select pageno from dbstat where name = 'messages' and pagetype = 'leaf' order by path"
            )
        ]
    with file.open("r+b") as raw:
        raw.seek((leaves[len(leaves) // 2] - 1) * PAGE)
        raw.write(b"\xff" * PAGE)

    assert rebuilt(file, plain) == ["messages that were not delivered"]

    with FeedStore(file) as store:
        after = stands(store)
    assert after[:4] == before[:4]
    assert set(after[4]) < set(before[4])
    assert (after[4][0], after[4][-1]) == (before[4][0], before[4][-1])
    assert len(before[4]) - len(after[4]) < 60


def test_of_a_store_without_a_head_nothing_is_left_and_that_is_said(
    tmp_path: Path, plain: Plain
) -> None:
    file = tmp_path / "a.sqlite"
    filled(file, plain, 20)
    content = b"no database " * 1_000
    file.write_bytes(content)
    with pytest.raises(Damaged, match="not a SQLite file"):
        FeedStore(file)

    assert "positions of consumers and triggers" in rebuilt(file, plain)

    with FeedStore(file) as store:
        assert len(ids_of(store)) == 20
    assert (tmp_path / "a.sqlite.damaged-1").read_bytes() == content


def test_a_damaged_body_is_reported_and_repaired(tmp_path: Path, plain: Plain) -> None:
    file = tmp_path / "a.sqlite"
    filled(file, plain, 20)
    with FeedStore(file) as store:
        store.query("update log set body = x'00ff' where position = 7")
        with pytest.raises(Damaged, match="the change at offset 7 cannot be read"):
            Feed(None, store).read()

    assert rebuilt(file, plain) == []
    with FeedStore(file) as store:
        assert len(Feed(None, store).read()) == 20


def test_a_store_that_is_mended_is_not_used_before_its_log_is_whole(
    tmp_path: Path, plain: Plain
) -> None:
    file = tmp_path / "a.sqlite"
    filled(file, plain, 20)
    salvage(file)
    with pytest.raises(Damaged, match="still has to be rebuilt"):
        FeedStore(file)
    with FeedStore(file, rebuilding=True) as store:
        maintenance.rebuild(store, plain)
    with FeedStore(file) as store:
        assert store.query("select name, position from consumers order by name") == [
            ("half", 10),
            ("trigger:t", 20),
        ]


def test_a_store_is_not_mended_while_another_process_delivers_from_it(
    tmp_path: Path, plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_feed, "DEFAULT_WAIT", 0.0)
    file = tmp_path / "a.sqlite"
    filled(file, plain, 20)
    with FeedStore(file) as store, open_worker(store, []):
        store.query("drop table objects")
        with pytest.raises(Locked, match="uses this store"):
            rebuilt(file, plain)
    assert rebuilt(file, plain) == []
