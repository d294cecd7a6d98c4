"""Changes that our own actions and pushes made can be told from others, and left out everywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from stripe_feed import open_actions, open_feed, open_pipeline, sync
from stripe_feed.errors import UsageError
from stripe_feed.feed.feed import Feed
from stripe_feed.feed.filters import compile_filter
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.sandbox import Sandbox
from stripe_feed.server.changes_query import FILTERS, parse_query
from stripe_feed.triggers.trigger import evaluate_clauses
from tests.copies import FAST
from tests.deliveries import a_trigger, made
from tests.feed_kills import a_change
from tests.test_consumers import add

OURS = {"request_idempotency_key": "sf-0d5d"}
OTHERS: tuple[dict[str, Any], ...] = (
    {"request_idempotency_key": None},
    {"request_idempotency_key": "SF-0d5d"},
    {"request_idempotency_key": "order-sf-1"},
)


def test_a_change_is_ours_by_its_key() -> None:
    assert made(a_change(1, **OURS)).origin_push
    assert not any(made(a_change(1, **other)).origin_push for other in OTHERS)


@pytest.mark.parametrize(("wanted", "kept"), [(None, [1, 2]), (True, [1]), (False, [2])])
def test_consumers_choose(wanted: bool | None, kept: list[int], tmp_path: Path) -> None:
    with Feed(None, FeedStore(tmp_path / "feed.sqlite")) as feed:
        add(feed, a_change(1, **OURS), a_change(2))
        assert [
            one.offset for one in feed.consume("x", start="earliest", origin_push=wanted)
        ] == kept
        assert [one.offset for one in feed.tail(origin_push=wanted)] == kept


@pytest.mark.parametrize(("query", "kept"), [("true", [True, False]), ("false", [False, True])])
def test_http_asks_in_words(query: str, kept: list[bool]) -> None:
    filters = parse_query([("origin_push", query)], FILTERS).filters
    assert [filters.matches(made(a_change(1, **given))) for given in (OURS, {})] == kept
    with pytest.raises(UsageError, match="origin_push: "):
        parse_query([("origin_push", "0")], FILTERS)


@pytest.mark.parametrize(
    "words", [{"origin_push": False}, {"where": "change.origin_push == false"}]
)
def test_a_trigger_leaves_out_what_we_did(words: dict[str, Any]) -> None:
    trigger = a_trigger(**words)
    ours, other = made(a_change(1, **OURS)), made(a_change(1))
    assert (trigger.fires(ours), trigger.fires(other)) == (False, True)
    assert [(one.what, one.asks) for one in evaluate_clauses(trigger, ours) if not one.holds] == [
        next(
            ("where", text) if name == "where" else (name, "false") for name, text in words.items()
        )
    ]


def test_a_rule_that_does_not_ask_is_the_rule_it_was() -> None:
    assert "false" in a_trigger(origin_push=False).rule.rsplit(",", 1)[1]
    assert a_trigger().rule.endswith("false]")  # of `net`, which was the last before
    asked: list[dict[str, Any]] = [{}, {"origin_push": False}, {"origin_push": True}]
    assert len({a_trigger(**words).rule for words in asked}) == 3
    with pytest.raises(UsageError, match="origin_push"):
        a_trigger(origin_push="no")


@pytest.mark.parametrize(
    ("keys", "is_ours"),
    [
        (["sf-1", "sf-2"], True),
        ([None, "sf-2"], False),
        (["sf-1", None], False),
        (["sf-1", "x", "sf-2"], False),
    ],
)
def test_a_net_change_is_ours_if_all_of_it_is(
    keys: list[str | None], is_ours: bool, tmp_path: Path
) -> None:
    with Feed(None, FeedStore(tmp_path / "feed.sqlite")) as feed:
        add(feed, *(a_change(n, request_idempotency_key=key) for n, key in enumerate(keys, 1)))
        (whole,) = feed.net()
        assert whole.origin_push is is_ours
        assert len(list(feed.net(origin_push=True))) == is_ours
        assert len(list(feed.net(origin_push=False))) == (not is_ours)


def test_what_an_action_did_comes_back_as_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Sandbox(seed=3, customers=2)
    with box.serve() as url:
        monkeypatch.setitem(os.environ, "STRIPE_API_BASE", url)
        monkeypatch.setitem(os.environ, "STRIPE_SECRET_KEY", box.key)
        sync(database="echo.duckdb", resources=["customers"], **FAST)
        first, second = list(box.objects("customers"))[:2]
        with open_actions(base=url) as actions:
            done = actions.update("customers", first, set={"description": "by an action"})
        assert done.status == "success"
        box.update("customers", second, description="by somebody")
        box.advance(120)
        sync(database="echo.duckdb", resources=["customers"], **FAST)
        with open_feed(open_pipeline("echo.duckdb")) as feed:
            told = {one.object_id: one.origin_push for one in feed.read(resource="customers")}
            filtered = [one for one in feed.read(resource="customers") if compile_filter(origin_push=False).matches(one)]  # fmt: skip
    assert told == {first: True, second: False}
    assert [one.object_id for one in filtered] == [second]
