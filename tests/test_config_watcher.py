"""A service follows its file of rules: what is right comes into force, what is wrong leaves the
rules of before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from stripe_feed.delivery.worker import open_worker
from stripe_feed.errors import SetupError
from stripe_feed.server.service import ServiceState, delivery_loop
from stripe_feed.triggers.config import read_triggers
from stripe_feed.triggers.config_watcher import ConfigWatcher
from stripe_feed.triggers.models.model_trigger import ModelTrigger
from tests.deliveries import updates
from tests.web import a_feed, add

BOUND = 60.0
FILE = Path("triggers.toml")


def write(name: str, more: str = "") -> None:
    FILE.write_text(
        f'[[trigger]]\nname = "{name}"\nresource = "subscriptions"\n{more}\ndeliver.file = "{name}.jsonl"\n',
        encoding="utf-8",
    )


def lines(name: str) -> int:
    file = Path(f"{name}.jsonl")
    return len(file.read_text(encoding="utf-8").splitlines()) if file.exists() else 0


def test_a_file_is_read_again_where_it_changed_and_is_right(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rules = ConfigWatcher([], FILE)
    assert not rules.reload()
    write("one")
    assert rules.reload() and [one.name for one in rules.triggers] == ["one"]
    assert not rules.reload()
    for wrong in ('where = "open"', 'deliver.secrets = "env:NOT_SET"'):
        write("another", wrong)
        assert not rules.reload()
        assert (
            "triggers.toml changed but has errors, so the triggers stay as they were. "
            in caplog.messages[-1]
        )
        assert not rules.reload() and len(caplog.messages) == len(set(caplog.messages))
        assert all(record.rare for record in caplog.records)  # type: ignore[attr-defined]
    FILE.unlink()
    assert not rules.reload() and [one.name for one in rules.triggers] == ["one"]
    write("two", 'op = "updated"')
    assert rules.reload() and [one.name for one in rules.triggers] == ["two"]
    assert not ConfigWatcher(rules.triggers).reload()


def test_edited_sql_is_read_again() -> None:
    sql = Path("late.sql")
    sql.write_text("select 1 as id", encoding="utf-8")
    FILE.write_text(
        '[[trigger]]\nname = "late"\nsql = "late.sql"\nkey = "id"\ndeliver.file = "out"\n',
        encoding="utf-8",
    )
    rules = ConfigWatcher(read_triggers(FILE), FILE)
    assert not rules.reload()
    sql.write_text("select 2 as id limit 1", encoding="utf-8")

    assert rules.reload()
    (late,) = rules.triggers
    assert isinstance(late, ModelTrigger) and late.sql == "select 2 as id limit 1"


def test_delivery_goes_on_by_the_new_rules(tmp_path: Path) -> None:
    write("one")
    rules, state = ConfigWatcher(read_triggers(), FILE), ServiceState()
    with a_feed(tmp_path) as feed, ExitStack() as current:
        delivery = current.enter_context(open_worker(feed.store, rules.triggers))
        thread = threading.Thread(
            target=delivery_loop, args=(rules, feed, state, current, delivery)
        )
        thread.start()

        def until(done: Callable[[], object]) -> None:
            for _ in range(int(BOUND / 0.02)):
                if done() or not thread.is_alive():
                    break
                thread.join(0.02)
            assert done()

        def has_begun(name: str) -> bool:
            return bool(feed.store.query("select 1 from triggers where name = ?", name))

        try:
            until(lambda: has_begun("one"))
            add(feed, *updates(1))
            until(lambda: lines("one") == 1)
            write("two")
            until(lambda: has_begun("two"))
            with (
                pytest.raises(SetupError),
                open_worker(feed.store, []),
            ):  # it is the one that delivers
                pass
            add(feed, *updates(1, first=2))
            until(lambda: lines("two") == 1)
        finally:
            state.stopped.set()
            thread.join(BOUND)
    assert not thread.is_alive()
    assert lines("one") == lines("two") == 1
