"""An effect exactly once, in the user's own database: noted in the transaction of the effect, and
taken back with it.
"""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest

from stripe_feed import process_once
from stripe_feed.errors import UsageError
from stripe_feed.feed.feed import Feed
from stripe_feed.feed.storage.store import FeedStore
from tests.deliveries import add, made, updates
from tests.feed_kills import a_change
from tests.postgres import postgres_server

Connect = Callable[[], Any]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def on_postgres(postgres: str) -> Iterator[Connect]:
    """Connections to an empty database."""
    with closing(psycopg2.connect(postgres)) as base:
        base.autocommit = True
        with base.cursor() as cursor:
            cursor.execute("drop schema public cascade; create schema public")
    yield lambda: psycopg2.connect(postgres)


@pytest.fixture(params=["sqlite", "sqlite, explicit", "duckdb", "postgres", "postgres, autocommit"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    """Connections to a database with a table of effects, each in a transaction."""
    kept = []

    def opened() -> Any:
        match request.param.partition(",")[0]:
            case "sqlite":
                explicit = request.param.endswith("explicit")
                found: Any = sqlite3.connect(
                    tmp_path / "mine.db",
                    isolation_level=None if explicit else "DEFERRED",
                    timeout=0,
                )
                begin = "begin" * explicit
            case "duckdb":
                found, begin = duckdb.connect(str(tmp_path / "mine.duckdb")), "begin"
            case _:
                found, begin = request.getfixturevalue("on_postgres")(), ""
                found.autocommit = request.param.endswith("autocommit")
                begin = "begin" * found.autocommit
        kept.append(found)
        if begin:
            execute(found, begin)
        return found

    base = opened()
    execute(base, "create table effects (change_id text)")
    end(base, "commit")
    base.close()
    yield opened
    for one in kept:
        one.close()


def execute(connection: Any, statement: str) -> list[Any]:
    if not hasattr(connection, "execute"):
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
    return list(connection.execute(statement).fetchall())


def end(connection: Any, word: str) -> None:
    if isinstance(connection, sqlite3.Connection):
        getattr(connection, word)()
    else:
        execute(connection, word)


def effect(connection: Any, change: Any) -> None:
    execute(connection, f"insert into effects values ('{change}')")


def effects(connection: Any) -> list[str]:
    return [id for (id,) in execute(connection, "select change_id from effects order by 1")]


def test_it_is_true_the_first_time_only(connect: Connect) -> None:
    mine = connect()

    assert [
        process_once(mine, "evt_1"),
        process_once(mine, "evt_1"),
        process_once(mine, made(a_change(1))),
    ] == [True, False, False]
    assert [
        process_once(mine, "evt_1", "other"),
        process_once(mine, "evt_2"),
        process_once(mine, "evt_1", "other"),
    ] == [True, True, False]
    end(mine, "commit")
    mine.close()

    again = connect()
    assert [
        process_once(again, "evt_1"),
        process_once(again, "evt_2"),
        process_once(again, "evt_3"),
    ] == [False, False, True]
    assert execute(again, "select * from stripe_feed_processed order by 1, 2") == [
        ("default", "evt_1"),
        ("default", "evt_2"),
        ("default", "evt_3"),
        ("other", "evt_1"),
    ]


def test_c4_what_is_rolled_back_comes_again(connect: Connect) -> None:
    mine = connect()
    assert process_once(mine, "evt_1")
    effect(mine, "evt_1")
    end(mine, "rollback")
    assert effects(mine) == []
    mine.close()

    again = connect()
    assert process_once(again, "evt_1")
    effect(again, "evt_1")
    end(again, "commit")
    assert effects(again) == ["evt_1"]


def test_c4_an_effect_happens_exactly_once_however_often_a_change_comes(
    connect: Connect, tmp_path: Path
) -> None:
    """A consumer that fails before its commit, after it, and before the change is acknowledged."""
    chance, ended = random.Random(3), False
    with FeedStore(tmp_path / "feed.sqlite") as store:
        add(store, *updates(25, 4))
        while not ended:
            mine = connect()
            for change in Feed(None, store).consume("mine", start="earliest"):
                if process_once(mine, change, "mine"):
                    effect(mine, change.change_id)
                if chance.random() < 0.2:
                    break  # nothing is committed
                end(mine, "commit")
                if chance.random() < 0.2:
                    break  # nothing is acknowledged
                mine.close()
                mine = connect()
            else:
                ended = True
            mine.close()

        assert effects(connect()) == sorted(f"evt_{n}" for n in range(1, 26))


@pytest.mark.parametrize(
    "id", ["", "a b", "evt_1'; drop table effects; --", "é", "x" * 201, "a\n", "%s", "a\\b"]
)
def test_ids_are_plain(connect: Connect, id: str) -> None:
    mine = connect()
    with pytest.raises(UsageError, match="at most 200 letters"):
        process_once(mine, id)
    with pytest.raises(UsageError, match="at most 200 letters"):
        process_once(mine, "evt_1", id)
    assert process_once(mine, "x" * 200, "trigger:a.b-c_1")


def test_outside_a_transaction_nothing_is_noted(tmp_path: Path, on_postgres: Connect) -> None:
    lite, duck, post = (
        sqlite3.connect(tmp_path / "mine.db", isolation_level=None),
        duckdb.connect(),
        on_postgres(),
    )
    post.autocommit = True
    for mine in (lite, duck, post):
        with closing(mine), pytest.raises(UsageError, match=r"none is open\. Begin one first\."):
            process_once(mine, "evt_1")


@pytest.mark.parametrize("wrong", [None, object(), "mine.db"])
def test_other_connections_are_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="sqlite3, psycopg2 or duckdb connection, not a wrapper"):
        process_once(wrong, "evt_1")


def test_a_connection_may_be_of_a_class_of_its_own_and_give_rows_as_it_likes(
    on_postgres: Connect,
) -> None:
    class Mine(sqlite3.Connection):
        pass

    with closing(sqlite3.connect(":memory:", factory=Mine)) as mine:
        mine.row_factory = sqlite3.Row
        assert [process_once(mine, "evt_1"), process_once(mine, "evt_1")] == [True, False]
    with closing(on_postgres()) as post:
        from psycopg2.extras import RealDictCursor

        post.cursor_factory = RealDictCursor
        assert [process_once(post, "evt_1"), process_once(post, "evt_1")] == [True, False]


@pytest.mark.parametrize("first_commits", [True, False])
def test_in_postgres_two_that_process_a_change_at_once_do_it_once(
    on_postgres: Connect, first_commits: bool
) -> None:
    """The second waits for the first: while the table is made, and while the change is noted."""
    for id in ("evt_1", "evt_2"):
        one, two = on_postgres(), on_postgres()
        found: list[bool] = []

        def second(mine: Any = two, id: str = id, found: list[bool] = found) -> None:
            found.append(process_once(mine, id))
            mine.commit()

        assert process_once(one, id)
        thread = threading.Thread(target=second)
        thread.start()
        while thread.is_alive() and not execute(one, "select 1 from pg_locks where not granted"):
            pass
        (one.commit if first_commits else one.rollback)()
        thread.join()
        assert found == [not first_commits]
        one.close()
        two.close()


def test_in_postgres_the_right_to_create_is_not_needed_where_the_table_exists(
    on_postgres: Connect,
) -> None:
    with closing(on_postgres()) as owner, closing(on_postgres()) as user:
        process_once(owner, "evt_1")
        execute(
            owner,
            "drop role if exists reader; create role reader; grant usage on schema public to reader",
        )
        execute(owner, "grant insert, select on stripe_feed_processed to reader")
        owner.commit()
        execute(user, "set role reader")

        assert [process_once(user, "evt_1"), process_once(user, "evt_2")] == [False, True]
        assert user.notices == []
