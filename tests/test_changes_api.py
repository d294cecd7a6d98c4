"""Changes over real HTTP: every client gets each change, in order, however it asks and however
often it is cut off.
"""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from stripe_feed.cli.feed import app
from stripe_feed.feed import consumers
from stripe_feed.feed.feed import Feed
from stripe_feed.feed.storage.store import FeedStore
from tests.deliveries import a_trigger as rule_of
from tests.feed_kills import Row, a_change
from tests.web import BOUND, NOW, Web, a_feed, add, fields, served

NEW: Any = {
    "op": "c",
    "previous": None,
    "before_quality": "none",
    "changed": [],
    "event_type": "customer.created",
}


def some(count: int, first: int = 1) -> list[Row]:
    return [a_change(n, f"sub_{n % 7}") for n in range(first, first + count)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("served")
    with a_feed(folder) as feed, served(feed, heartbeat=0.05) as web:
        yield web


@pytest.fixture
def web(running: Web) -> Web:
    """A server of a feed with ten changes and no consumers."""
    store = running.store
    for table in ("log", "objects", "pruned", "consumers"):
        store.query(f"delete from {table}")
    store.query("update meta set value = 0")
    add(running.serving.feed, *some(10))
    return running


def prune(web: Web, upto: int, kept: str = "0") -> None:
    """Drop the changes up to an offset, but for one."""
    web.store.query(
        f"insert into pruned select change_id, position from log where position <= {upto} and position <> {kept}"
    )
    web.store.query(f"delete from log where position <= {upto} and position <> {kept}")
    web.store.query("update meta set value = ? where name = 'horizon'", upto)


def offsets(answer: Any) -> list[int]:
    return [one["offset"] for one in answer["data"]]


def walk(web: Web, limit: int, more: str = "") -> Iterator[dict[str, Any]]:
    """What a client without a name gets that begins at 0 and goes on until there is no more."""
    after, has_more = "0", True
    while has_more:
        answer = web.get(f"/changes?after={after}&limit={limit}{more}").json
        yield from answer["data"]
        after, has_more = answer["next_cursor"], answer["has_more"]


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_h1_a_walk_over_http_gives_what_the_iterator_and_the_command_line_give(
    tmp_path: Path, count: int
) -> None:
    duckdb.connect(str(tmp_path / "copy.duckdb")).close()
    with Feed(None, FeedStore(tmp_path / "copy.feed.sqlite")) as feed:
        for first in range(1, count, 1_000):
            add(feed, *some(1_000, first))
        with served(feed) as web:
            walked = list(walk(web, 997))
        iterated = [one.as_dict() for one in feed.consume("iterator", start="earliest")]
    places = ("--database", str(tmp_path / "copy.duckdb"), "--state-dir", str(tmp_path / "state"))
    said = CliRunner().invoke(app, ["consume", "cli", "--start", "earliest", *places])

    assert len(walked) == count
    assert walked == iterated
    assert walked == [json.loads(line) for line in said.stdout.splitlines()]


def test_a_page_behind_a_cursor(web: Web) -> None:
    first = web.get("/changes?limit=4").json
    assert offsets(first) == [1, 2, 3, 4]
    assert {name: first[name] for name in ("next_cursor", "has_more", "lag")} == {
        "next_cursor": "4",
        "has_more": True,
        "lag": 6,
    }
    assert first["data"] == [one.as_dict() for one in web.serving.feed.read(0, 4)]

    last = web.get(f"/changes?after={first['next_cursor']}").json
    assert offsets(last) == [5, 6, 7, 8, 9, 10]
    assert {name: last[name] for name in ("next_cursor", "has_more", "lag")} == {
        "next_cursor": "10",
        "has_more": False,
        "lag": 0,
    }
    assert web.get("/changes?after=10").json == {
        "data": [],
        "next_cursor": "10",
        "has_more": False,
        "lag": 0,
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("after=evt_7", [8, 9, 10]), ("after=evt_10", []), ("after=0", list(range(1, 11))), ("after=9", [10]), ("limit=1", [1]),
        ("limit=1000&after=8", [9, 10]), ("resource=subscriptions&after=8", [9, 10]), ("resource=customers,invoices", []), ("op=updated&after=8", [9, 10]),
        ("op=c,removed", []), ("op=r", []), ("after=8&limit=1&resource=subscriptions&op=u&wait=1&format=json", [9]),
    ],
)  # fmt: skip
def test_what_is_asked_for_comes(web: Web, query: str, found: list[int]) -> None:
    assert offsets(web.get(f"/changes?{query}").json) == found


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("limit=0", "limit"), ("limit=1001", "limit"), ("limit=ten", "limit"), ("limit=", "limit"), ("limit=-1", "limit"), ("limit=%D9%A1", "limit"),
        ("wait=26", "wait"), ("wait=-1", "wait"), ("wait=1.5", "wait"), ("wait=99999999999999999999", "wait"),
        ("resource=refundz", "resource"), ("resource=", "resource"), ("op=x", "op"), ("op=", "op"), ("format=xml", "format"), ("after=", "after"),
        ("after=evt_99", "after"), ("after=-1", "after"), ("after=1:2:3", "after"), ("after=latest", "after"), ("after=' or 1=1", "after"),
        ("after=2026-01-01", "after"), ("since=3", "since"), ("After=3", "After"), ("after=1&after=2", "after"), ("token=x", "token"),
        ("consumer=a%20b", "consumer"), ("consumer=", "consumer"), ("consumer=trigger:x", "consumer"), ("consumer=a&after=3", "after"),
        ("start=earliest", "start"), ("consumer=a&start=yesterday", "start"), ("format=zapier&after=3", "after"), ("format=zapier&wait=3", "wait"),
        ("format=zapier&consumer=a", "consumer"), ("ack=3", "ack"),
    ],
)  # fmt: skip
def test_a_parameter_that_makes_no_sense_is_refused_by_name(
    web: Web, query: str, word: str
) -> None:
    answer = web.get("/changes?" + query.replace(" ", "%20"))
    assert answer.status == 400
    assert word in answer.error
    assert web.serving.feed.consumers() == []


@pytest.mark.parametrize("query", ["limit=3", "wait=3", "format=json", "consumer=a", "after=x/y"])
def test_a_stream_takes_fewer_parameters(web: Web, query: str) -> None:
    assert web.get(f"/changes/stream?{query}").status == 400


def test_an_answer_that_is_known_is_not_sent_again(web: Web) -> None:
    first = web.get("/changes?after=8")
    for held in (first.headers["etag"], f'"x", W/{first.headers["etag"]}', "*"):
        again = web.get("/changes?after=8", If_None_Match=held)
        assert (again.status, again.body, again.headers["etag"]) == (
            304,
            b"",
            first.headers["etag"],
        )
    add(web.serving.feed, a_change(11))

    changed = web.get("/changes?after=8", If_None_Match=first.headers["etag"])
    assert (changed.status, offsets(changed.json)) == (200, [9, 10, 11])
    assert web.get("/changes?after=7", If_None_Match=first.headers["etag"]).status == 200


# What was pruned


def test_a_cursor_behind_which_changes_were_pruned_is_lost(web: Web) -> None:
    prune(web, 5)
    for after in ("1", "4", "evt_3"):
        answer = web.get(f"/changes?after={after}")
        assert (answer.status, "pruned" in answer.error) == (410, True)
        assert web.get(f"/changes/stream?after={after}").status == 410
    assert offsets(web.get("/changes?after=5").json) == [6, 7, 8, 9, 10]
    assert [one["offset"] for one in walk(web, 2)] == [6, 7, 8, 9, 10]


def test_who_began_at_0_walks_over_what_pruning_left(web: Web) -> None:
    """Pruning can keep the newest change of each object, in the midst of what it drops."""
    prune(web, 8, kept="3")
    assert [one["offset"] for one in walk(web, 1)] == [3, 9, 10]
    first = web.get("/changes?limit=1").json
    assert (offsets(first), first["next_cursor"]) == ([3], "3:8")

    prune(web, 9, kept="3")
    assert web.get("/changes?after=3:8").status == 410


def test_who_began_with_an_empty_feed_loses_nothing_silently(web: Web) -> None:
    web.store.query("delete from log")
    web.store.query("update meta set value = 0")
    cursor = web.get("/changes").json["next_cursor"]
    add(web.serving.feed, *some(10))
    assert offsets(web.get(f"/changes?after={cursor}").json) == list(range(1, 11))

    prune(web, 5)
    assert web.get(f"/changes?after={cursor}").status == 410
    assert offsets(web.get("/changes?after=0").json) == [6, 7, 8, 9, 10]


def test_a_cursor_of_a_feed_that_is_no_more_is_lost(web: Web) -> None:
    answer = web.get("/changes?after=11")
    assert (answer.status, answer.error) == (
        410,
        "Offset 11 is of another feed: this one goes up to 10. Start at 0.",
    )
    assert web.get("/changes/stream", Last_Event_ID="11").status == 410


def test_a_question_looks_through_so_much_and_no_more(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stripe_feed.feed.storage.store.SCAN_WINDOW", 2)
    monkeypatch.setattr("stripe_feed.server.changes_query.MAX_SCANS", 2)
    answer = web.get("/changes?resource=customers").json
    assert answer == {"data": [], "next_cursor": "4", "has_more": True, "lag": 6}
    assert list(walk(web, 3, "&resource=customers")) == []
    assert len(list(walk(web, 3))) == 10


# Waiting


def test_who_waits_gets_a_change_when_it_comes(web: Web) -> None:
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(web.get, "/changes?after=10&wait=20")
        web.get("/health")
        add(web.serving.feed, a_change(11))
        answer = waits.result(BOUND)
    assert offsets(answer.json) == [11]


def test_who_waits_in_vain_gets_an_empty_page(web: Web) -> None:
    assert web.get("/changes?after=10&wait=1&resource=customers").json == {
        "data": [],
        "next_cursor": "10",
        "has_more": False,
        "lag": 0,
    }


def test_who_waits_for_something_else_goes_on_waiting_from_there(web: Web) -> None:
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(web.get, "/changes?after=10&wait=20&resource=customers")
        add(web.serving.feed, a_change(11))
        with web.opened("/changes/stream") as stream:
            fields(stream, 4)  # some time
        add(web.serving.feed, a_change(12, "cus_1", resource="customers", **NEW))
        assert offsets(waits.result(BOUND).json) == [12]


def test_hundreds_wait_without_a_thread_each(tmp_path: Path) -> None:
    with a_feed(tmp_path, a_change(1)) as feed, served(feed, poll=0.1) as web:
        before = threading.active_count()
        waiting = [
            socket.create_connection(("127.0.0.1", web.port), timeout=BOUND) for _ in range(300)
        ]
        for one in waiting:
            one.sendall(
                b"GET /changes?after=1&wait=25 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                + web.shown
                + b"\r\n"
            )
        web.get("/changes?after=1&wait=1")
        threads = threading.active_count() - before
        add(feed, a_change(2))

        for one in waiting:
            with one, one.makefile("rb") as answer:
                assert b'"change_id":"evt_2"' in answer.read()
    assert threads <= 45  # as many as anyio has at most


def test_who_waits_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with (
        a_feed(tmp_path, a_change(1)) as feed,
        ThreadPoolExecutor() as pool,
        served(feed, heartbeat=0.05) as web,
    ):
        waits = pool.submit(web.get, "/changes?after=1&wait=25")
        with web.opened("/changes/stream") as stream:
            fields(stream, 1)
            web.serving.stopped.set()
            assert fields(stream, 5) == []  # it ends as it should, not in the midst
        assert waits.result(2).json["data"] == []


# Consumers


def test_a_consumer_gets_what_it_has_not_acknowledged(web: Web) -> None:
    first = web.get("/changes?consumer=crm&start=earliest&limit=4").json
    assert offsets(first) == [1, 2, 3, 4]
    assert first["ack"] == {"consumer": "crm", "offset": 4, "epoch": 1}
    assert web.get("/changes?consumer=crm&limit=4").json == first

    told = web.post("/changes/ack", json.dumps(first["ack"]))
    assert (told.status, told.json) == (200, first["ack"])
    assert offsets(web.get("/changes?consumer=crm&start=earliest").json) == [5, 6, 7, 8, 9, 10]
    assert web.serving.feed.lag("crm")[0].position == 4


def test_a_consumer_that_is_new_begins_at_the_latest(web: Web) -> None:
    assert web.get("/changes?consumer=crm").json["data"] == []
    add(web.serving.feed, a_change(11))
    assert offsets(web.get("/changes?consumer=crm").json) == [11]


def test_an_acknowledgement_never_goes_back(web: Web) -> None:
    web.get("/changes?consumer=crm&start=earliest")
    assert web.post("/changes/ack", '{"consumer":"crm","offset":7}').json["offset"] == 7
    assert web.post("/changes/ack", '{"consumer":"crm","offset":3}').json["offset"] == 7


@pytest.mark.parametrize(
    "body",
    [
        "", "{", "[]", '{"consumer":"crm"}', '{"consumer":"crm","offset":"7"}', '{"consumer":"crm","offset":1.5}', '{"consumer":"nobody","offset":1}',
        '{"consumer":"crm","offset":11}', '{"consumer":"crm","offset":-1}', '{"consumer":"trigger:x","offset":1}', '{"consumer":"crm","offset":1,"x":1}',
        "[" * 100_000, '{"consumer":"crm","offset":99999999999999999999}',
    ],
)  # fmt: skip
def test_an_acknowledgement_that_makes_no_sense_is_refused(web: Web, body: str) -> None:
    web.get("/changes?consumer=crm&start=earliest")
    consumers.attach(web.store, "trigger:x", "earliest", NOW)
    answer = web.post("/changes/ack", body)

    assert (answer.status, bool(answer.error)) == (400, True)
    assert [one.position for one in web.serving.feed.lag()] == [0, 0]


def test_who_was_taken_over_acknowledges_no_more(web: Web) -> None:
    held = web.get("/changes?consumer=crm&start=earliest&limit=4").json["ack"]
    next(web.serving.feed.consume("crm"))

    answer = web.post("/changes/ack", json.dumps(held))
    assert (answer.status, "taken over" in answer.error) == (409, True)
    assert web.serving.feed.lag("crm")[0].position == 0


def test_a_consumer_that_lost_changes_gets_an_error(web: Web) -> None:
    web.get("/changes?consumer=crm&start=earliest")
    prune(web, 5)
    answer = web.get("/changes?consumer=crm")
    assert (answer.status, "feed reset crm" in answer.error) == (410, True)

    web.serving.feed.reset("crm", "earliest")
    assert offsets(web.get("/changes?consumer=crm").json) == [6, 7, 8, 9, 10]


# Formats


def test_zapier_gets_the_newest_first_each_with_an_id(web: Web) -> None:
    image = {
        "id": "cus_1",
        "object": "customer",
        "email": "z@example.com",
        "address": {"city": "Ulm"},
    }
    add(
        web.serving.feed,
        a_change(11, "cus_1", resource="customers", after=image, **NEW),
        a_change(
            12, "cus_1", "d", resource="customers", previous=image, event_type="customer.deleted"
        ),
    )
    found = web.get("/changes?format=zapier&resource=customers").json

    more = {"change_resource": "customers", "change_customer_id": "cus_1", "change_changed": []}
    assert found == [
        {**image, "id": "evt_12", "object_id": "cus_1", "change_op": "removed", "change_event_type": "customer.deleted",
         "change_occurred_at": "2026-01-01T00:00:12Z", "change_offset": 12, "change_before": image, **more},
        {**image, "id": "evt_11", "object_id": "cus_1", "change_op": "added", "change_event_type": "customer.created",
         "change_occurred_at": "2026-01-01T00:00:11Z", "change_offset": 11, "change_before": None, **more},
    ]  # fmt: skip
    assert [one["id"] for one in web.get("/changes?format=zapier&limit=5").json] == [
        f"evt_{n}" for n in range(12, 7, -1)
    ]
    assert len(web.get("/changes?format=zapier").json) == 12
    assert web.get("/changes?format=zapier&op=removed").json == found[:1]


def test_who_polls_without_a_cursor_gets_all_of_the_hour_or_has_more(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(web.serving.feed, *some(150, 5_000), *some(300, 12_000))
    answer = web.get("/changes?format=zapier")
    assert [one["id"] for one in answer.json] == [f"evt_{n}" for n in range(12_299, 11_999, -1)]
    assert answer.headers["x-has-more"] == "false"

    few = web.get("/changes?format=zapier&limit=299")
    assert (len(few.json), few.headers["x-has-more"]) == (299, "true")
    assert web.get("/changes?format=zapier&limit=300").headers["x-has-more"] == "false"
    some_of_them = web.get(
        "/changes?format=zapier&transition=status:*:s12299,s12000,s5000,s5001,s5"
    )
    assert [one["id"] for one in some_of_them.json] == [
        "evt_12299",
        "evt_12000",
        "evt_5001",
        "evt_5000",
        "evt_5",
    ]
    for name, value in (("SCAN_LIMIT", 299), ("MAX_ZAPIER_BYTES", 1_000)):
        with monkeypatch.context() as patch:
            patch.setattr(f"stripe_feed.server.changes_query.{name}", value)
            assert web.get("/changes?format=zapier").headers["x-has-more"] == "true"


FILTERED = [
    ("transition=status:*:s3,s5", [3, 5]), ("transition=status:s4:s5&op=updated", [5]), ("changed=status,name&after=8", [9, 10, 11, 13]), ("changed=metadata", [12]),
    ('changed=metadata["a.b"]', [12]), ("origin=diff", [11]), ("origin=event,diff&after=9", [10, 11, 12, 13]), ("customer=cus_9", [13]), ("trigger=renamed", [13]),
    ("trigger=renamed&resource=subscriptions", []), ("trigger=all&after=11", [12, 13]), ("changed=status&limit=2&after=3", [4, 5]),
]  # fmt: skip


@pytest.mark.parametrize(("query", "found"), FILTERED)
def test_the_filters_of_consumers_and_the_rules_of_triggers_can_be_asked_for(
    filtered: Web, query: str, found: list[int]
) -> None:
    query = query.replace('"', "%22")
    assert offsets(filtered.get(f"/changes?{query}").json) == found
    after = {"" if "after" in query else "&after=0"}.pop()
    with filtered.opened(f"/changes/stream?{query}{after}".replace("&limit=2", "")) as stream:
        (_, *events) = fields(stream, 1 + min(len(found), 2))
        assert [json.loads(one["data"])["offset"] for one in events] == found[:2]


@pytest.mark.parametrize(
    "query",
    [
        "transition=status",
        "transition=:a:b",
        "changed=",
        "changed=metadata[",
        "origin=web",
        "trigger=rename",
        "trigger=",
        "changed=a&changed=b",
    ],
)
def test_a_wrong_filter_is_named(filtered: Web, query: str) -> None:
    answer = filtered.get(f"/changes?{query}")
    assert answer.status == 400
    assert query.partition("=")[0] in answer.error


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    rows = [
        *some(10),
        a_change(11, origin="diff"),
        a_change(
            12,
            changed=["metadata.a.b"],
            after={"metadata": {"a.b": "x"}},
            previous={"metadata": {"a.b": "w"}},
        ),
        a_change(
            13,
            "cus_9",
            resource="customers",
            customer_id="cus_9",
            changed=["name"],
            after={"name": "x"},
            previous={"name": "w"},
        ),
    ]
    triggers = [
        rule_of(name="renamed", resource="customers", changed="name"),
        rule_of(name="all", resource=["customers", "subscriptions"], origin="event", op="updated"),
    ]
    with (
        a_feed(tmp_path_factory.mktemp("filtered"), *rows) as feed,
        served(feed, triggers=triggers, heartbeat=0.05) as web,
    ):
        yield web


def test_zapier_gets_what_was_forgotten_without_its_data(web: Web) -> None:
    web.store.query("update log set body = null")
    (found,) = web.get("/changes?format=zapier&limit=1").json
    assert (found["id"], found["object_id"], found["change_before"]) == ("evt_10", "sub_3", None)


def test_cloudevents_come_as_a_batch(web: Web) -> None:
    answer = web.get("/changes?format=cloudevents&limit=3")

    assert answer.headers["content-type"] == "application/cloudevents-batch+json"
    assert (answer.headers["x-next-cursor"], answer.headers["x-has-more"]) == ("3", "true")
    assert [(one["id"], one["sequence"], one["type"]) for one in answer.json] == [
        (f"evt_{n}", str(n), "com.stripe.customer.subscription.updated") for n in (1, 2, 3)
    ]
    assert web.get("/changes?format=cloudevents&after=10").json == []


def test_texts_that_have_no_utf_8_are_sent_nevertheless(web: Web) -> None:
    half = {"id": "cus_1", "name": "\ud800\u2028\n</script>"}
    add(
        web.serving.feed, a_change(11, "cus_1", resource="customers", after=json.dumps(half), **NEW)
    )  # a destination gives text

    assert web.get("/changes?after=10").json["data"][0]["after"] == half
    assert web.get("/changes?format=zapier&limit=1").json[0]["name"] == half["name"]
    assert web.get("/changes?format=cloudevents&after=10").json[0]["data"] == half
    with web.opened("/changes/stream?after=10") as stream:
        assert json.loads(fields(stream, 2)[1]["data"])["after"] == half


# The stream


def test_a_stream_begins_with_what_comes_and_goes_on(web: Web) -> None:
    with web.opened("/changes/stream") as stream:
        assert stream.getheader("content-type") == "text/event-stream; charset=utf-8"
        assert fields(stream, 1) == [{"retry": "2000", "id": "10"}]
        add(web.serving.feed, a_change(11))
        (block,) = [one for one in fields(stream, 2) if "event" in one][:1]
    assert {**block, "data": json.loads(block["data"])} == {
        "id": "11",
        "event": "change",
        "data": web.get("/changes?after=10").json["data"][0],
    }


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?after=6", {}),
        ("?after=evt_6", {}),
        ("?after=2", {"Last_Event_ID": "6"}),
        ("", {"Last_Event_ID": "evt_6"}),
    ],
)
def test_a_stream_goes_on_where_it_was_left(web: Web, query: str, headers: dict[str, str]) -> None:
    with web.opened(f"/changes/stream{query}", **headers) as stream:
        blocks = fields(stream, 6)
    assert [one["id"] for one in blocks] == ["6", "7", "8", "9", "10", "10"]
    assert ["event" in one for one in blocks] == [
        False,
        True,
        True,
        True,
        True,
        False,
    ]  # then it is quiet


def test_a_quiet_stream_shows_that_it_lives_and_how_far_it_is(web: Web) -> None:
    with web.opened("/changes/stream?resource=customers") as stream:
        fields(stream, 1)
        add(web.serving.feed, a_change(11))
        beats = fields(stream, 3)
    assert [set(one) for one in beats] == [{"", "id"}] * 3
    assert beats[-1]["id"] == "11"


def test_a_stream_says_when_its_place_is_lost(web: Web) -> None:
    with web.opened("/changes/stream") as stream:
        fields(stream, 1)
        web.store.query("update meta set value = 3 where name = 'head'")
        last = [one for one in fields(stream, 100) if "event" in one]
    assert [one["event"] for one in last] == ["lost"]
    assert "another feed" in json.loads(last[0]["data"])["error"]


@pytest.mark.parametrize("last", ["x y", "-1", "1:2:3"])
def test_a_last_event_id_that_is_none_is_refused(web: Web, last: str) -> None:
    answer = web.get("/changes/stream", Last_Event_ID=last)
    assert (answer.status, "Last-Event-ID" in answer.error) == (400, True)


def test_h1_a_stream_that_is_cut_off_200_times_loses_nothing(web: Web) -> None:
    """Each time after some bytes, in the midst of an event as well; the feed grows meanwhile."""
    dice, found, last, drops = random.Random(7), list[str](), "0", 0
    with ThreadPoolExecutor(1) as pool:
        growing = [
            pool.submit(add, web.serving.feed, *some(20, first)) for first in range(11, 3_011, 20)
        ]
        while drops < 200 or last != "3010":
            with web.opened("/changes/stream?after=0", Last_Event_ID=last) as stream:
                wanted, pieces = dice.randint(1, 24_000), list[bytes]()
                while (left := wanted - sum(map(len, pieces))) > 0 and b"id: 3010" not in b"".join(
                    pieces[-2:]
                ):
                    pieces.append(stream.read1(left))
            drops, text = drops + 1, b"".join(pieces).decode()
            assert drops < 1_000
            for block in text.split("\n\n")[:-1]:  # what came whole
                told = dict(line.split(": ", 1) for line in block.splitlines())
                last = told.get("id", last)
                found += [json.loads(told["data"])["change_id"]] if "data" in told else []
        for one in growing:
            one.result()

    assert found == [f"evt_{n}" for n in range(1, 3_011)]
    assert drops >= 200


def test_who_does_not_read_costs_one_page(web: Web) -> None:
    """The server stops reading the log until the client has taken what it has."""
    add(
        web.serving.feed,
        *(a_change(n, after={"id": "sub_1", "text": "x" * 10_000}) for n in range(11, 2_011)),
    )
    pages: list[int] = []
    page = FeedStore.page

    def counted(store: FeedStore, after: int, *more: Any, **given: Any) -> Any:
        pages.append(after)
        return page(store, after, *more, **given)

    with pytest.MonkeyPatch.context() as patch, socket.socket() as slow:
        patch.setattr(FeedStore, "page", counted)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        slow.settimeout(BOUND)
        slow.connect(("127.0.0.1", web.port))
        slow.sendall(
            b"GET /changes/stream?after=0 HTTP/1.1\r\nHost: localhost\r\n" + web.shown + b"\r\n"
        )
        slow.recv(1_000)
        with web.opened("/changes/stream") as other:
            fields(other, 8)  # time to do wrong
        taken = sum(1 for after in pages if after < 2_000)
        assert taken <= 12  # of 21 pages, a megabyte each: what lies between the two
    assert web.get("/changes?after=2009").json["data"]
