"""The app over real HTTP: webhooks ring, and nobody gets anything who may not."""

from __future__ import annotations

import json
import logging
import re
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from stripe_feed.delivery.signatures import stripe_header
from stripe_feed.errors import SetupError, UsageError
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.server import context, page, webhook_inbox
from stripe_feed.server.app import NO_EVENT, ServerConfig, create_app
from stripe_feed.server.auth import check_token, load_or_create_token
from stripe_feed.server.listener import CLIENT_TIMEOUT, REPEAT_SECONDS, RateLimitedLog
from tests.feed_kills import a_change
from tests.web import BOUND, NOW, TOKEN, Answer, Web, a_feed, basic, served

OLD, NEW, FOREIGN = "whsec_old", "whsec_new", "whsec_foreign"
PATHS = (
    ("GET", "/"), ("GET", "/changes"), ("GET", "/changes/stream"), ("POST", "/changes/ack"), ("GET", "/metrics"), ("POST", "/retry"), ("GET", "/objects/{table}/{id:path}"),
    ("POST", "/actions/{resource}/{verb}"), ("GET", "/page.css"), ("GET", "/page.js"), ("GET", "/icon.svg"), ("GET", "/nowhere"), ("HEAD", "/changes"), ("DELETE", "/changes"),
)  # fmt: skip


def event(event_id: str = "evt_1", **given: Any) -> bytes:
    return json.dumps(
        {
            "id": event_id,
            "object": "event",
            "type": "customer.updated",
            "data": {"object": {"name": "Zoë"}},
            **given,
        }
    ).encode()


def send(
    web: Web,
    body: bytes,
    at: float = NOW,
    secrets: tuple[str, ...] = (NEW,),
    header: str | None = None,
) -> Answer:
    signature = stripe_header(int(at), body, secrets) if header is None else header
    return web.post("/stripe", body, Stripe_Signature=signature)


def rung(web: Web) -> list[str]:
    return [one.event_id for one in webhook_inbox.unread(web.store, 1_000)]


RINGS: list[int] = []


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("served")
    with (
        a_feed(folder, *(a_change(n, f"sub_{n % 3}") for n in range(1, 11))) as feed,
        served(feed, secrets=(OLD, NEW), wake_up=lambda: RINGS.append(1)) as web,
    ):
        yield web


@pytest.fixture
def web(running: Web) -> Web:
    """A server that takes webhooks, of a feed with ten changes. Nothing has rung."""
    running.store.query("delete from rung")
    RINGS.clear()
    return running


@pytest.fixture
def rings() -> list[int]:
    return RINGS


def test_a_webhook_wakes_the_sync(web: Web, rings: list[int]) -> None:
    answer = send(web, event())

    assert (answer.status, answer.json) == (200, {"received": True})
    assert webhook_inbox.unread(web.store, 9) == [
        webhook_inbox.ReceivedEvent("evt_1", NOW, head=b'{"type":"customer.updated"}')
    ]
    assert rings == [1]


def test_a_replayed_webhook_records_nothing_new(web: Web, rings: list[int]) -> None:
    assert [send(web, event()).status for _ in range(3)] == [200] * 3
    assert rung(web) == ["evt_1"]

    webhook_inbox.mark_read(web.store, ["evt_1"], NOW)
    assert send(web, event(), NOW - 299).status == 200
    assert rung(web) == []
    assert rings == [1]


def test_webhooks_at_the_same_time_are_all_recorded(web: Web, rings: list[int]) -> None:
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(send(web, event(f"evt_{n % 30}")).status))
        for n in range(60)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)

    assert found == [200] * 60
    assert sorted(rung(web)) == sorted(f"evt_{n}" for n in range(30))
    assert len(rings) == 30


def test_a_webhook_waits_for_nobody_who_reads(web: Web) -> None:
    with web.store.transaction("deferred") as db:
        db.execute("select count(*) from log").fetchone()
        assert send(web, event()).status == 200
        assert web.get("/changes").status == 200


def test_health_waits_for_no_long_question(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, told, ended = threading.Event(), threading.Event(), list[bool]()

    def long(store: FeedStore) -> None:
        with store.transaction("deferred"):
            asked.set()
            ended.append(told.wait(BOUND / 2))
        raise UsageError("That was long.")

    monkeypatch.setattr(page, "read_overview", long)
    reader = threading.Thread(target=web.get, args=("/",))
    reader.start()
    try:
        assert asked.wait(BOUND)
        assert web.get("/health").status == 200
        assert not ended
    finally:
        told.set()
        reader.join()


@pytest.mark.parametrize("secrets", [(OLD,), (NEW,), (NEW, OLD), (FOREIGN, OLD)])
def test_while_a_secret_is_replaced_both_hold(web: Web, secrets: tuple[str, ...]) -> None:
    assert send(web, event(), secrets=secrets).status == 200


BODY = event()
SIGNED = stripe_header(int(NOW), BODY, [NEW])


@pytest.mark.parametrize(
    ("body", "header"),
    {
        "expired": (BODY, stripe_header(int(NOW) - 301, BODY, [NEW])),
        "future": (BODY, stripe_header(int(NOW) + 301, BODY, [NEW])),
        "foreign secret": (BODY, stripe_header(int(NOW), BODY, [FOREIGN])),
        "another body": (BODY + b" ", SIGNED),
        "another time": (BODY, SIGNED.replace(str(int(NOW)), str(int(NOW) + 1))),
        "v0 only": (BODY, SIGNED.replace("v1=", "v0=")),
        "no signature": (BODY, f"t={int(NOW)}"),
        "no time": (BODY, SIGNED.partition(",")[2]),
        "empty": (BODY, ""),
        "garbage": (BODY, "a" * 5_000),
        "the whole header twice": (BODY, f"{SIGNED},{SIGNED}"),
        "the empty secret": (BODY, stripe_header(int(NOW), BODY, ["-"])),
    }.values(),
)  # fmt: skip
def test_what_is_not_signed_now_is_refused_in_the_same_words(
    web: Web, rings: list[int], caplog: pytest.LogCaptureFixture, body: bytes, header: str
) -> None:
    before = web.serving.counts["webhook_refused"]
    answer = send(web, body, header=header)

    assert (answer.status, answer.error) == (400, "The signature is invalid.")
    assert (rung(web), rings) == ([], [])
    assert web.serving.counts["webhook_refused"] == before + 1
    assert "A webhook was refused." in caplog.text
    assert "Zo" not in caplog.text and NEW not in caplog.text


@pytest.mark.parametrize("seconds", [-300, 300])
def test_the_clocks_may_differ_by_five_minutes(web: Web, seconds: int) -> None:
    assert send(web, BODY, NOW + seconds).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'{"object":"event"}', b'{"id":1,"object":"event"}', b'{"id":"evt_1"}', b"\xff\xfe", b"[" * 900_000,
        event("cus_1"), event("evt_"), event("evt_1; drop table rung"), event("evt_\u00e9"), event("evt_" + "a" * 251), event("evt_1\n"),
        event(object="v2.core.event"),
    ],
)  # fmt: skip
def test_a_signed_body_that_is_no_event_is_refused(
    web: Web, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = send(web, body)

    assert (answer.status, answer.error) == (400, NO_EVENT)
    assert rung(web) == [] and NO_EVENT in caplog.text


@pytest.mark.parametrize("path", ["/stripe", "/changes/ack", "/retry"])
@pytest.mark.parametrize("length", [1_000_001, 5_000_000, 10**18])
def test_a_body_of_5_mb_is_refused_before_it_is_sent(web: Web, path: str, length: int) -> None:
    with socket.create_connection(("127.0.0.1", web.port), timeout=BOUND) as plain:
        plain.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {length}\r\n\r\n{{".encode()
        )
        answer = plain.makefile("rb").read()  # to the end: it hangs up

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'{"error":"The body is longer than 1,000,000 bytes."}' in answer


def test_a_streamed_body_of_5_mb_is_refused_on_its_way(web: Web) -> None:
    sent = 0
    with socket.create_connection(("127.0.0.1", web.port), timeout=BOUND) as plain:
        plain.sendall(
            b"POST /stripe HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        try:
            for _ in range(50):
                plain.sendall(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
                sent += 100_000
            answer = plain.recv(20)
        except ConnectionError:
            answer = b"HTTP/1.1 413 "  # it hung up on us

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert rung(web) == []
    assert send(web, BODY).status == 200


def test_a_megabyte_is_taken(web: Web) -> None:
    body = event(padding="x" * (1_000_000 - len(event(padding=""))))

    assert len(body) == 1_000_000
    assert send(web, body).status == 200


def test_a_body_that_does_not_come_is_given_up(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_BODY_SECONDS", 0.05)
    with socket.create_connection(("127.0.0.1", web.port), timeout=BOUND) as plain:
        plain.sendall(b"POST /stripe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        assert plain.makefile("rb").read().startswith(b"HTTP/1.1 408 ")


def test_bodies_that_do_not_come_are_not_given_up_all_at_once(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor later than the listener cuts off whoever sends nothing: it would do so without an answer."""
    given, real = list[float](), anyio.fail_after

    def noted(seconds: float) -> Any:
        given.append(seconds)
        return real(seconds)

    monkeypatch.setattr(anyio, "fail_after", noted)
    for _ in range(20):
        assert send(web, BODY).status == 200
    assert len(set(given)) > 10
    assert min(given) >= context._BODY_SECONDS and max(given) < CLIENT_TIMEOUT


def test_a_client_that_hangs_up_does_no_harm(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_connection(("127.0.0.1", web.port), timeout=BOUND) as plain:
        plain.sendall(b"POST /stripe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
    assert send(web, BODY).status == 200
    assert caplog.text == ""


def test_where_the_store_cannot_be_written_stripe_comes_again(
    web: Web, rings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bool:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(webhook_inbox, "record", full)
        answer = send(web, BODY)
    assert (answer.status, answer.headers["retry-after"], rings) == (503, "5", [])
    assert answer.error == "The feed store cannot be used now. Try again."
    assert send(web, BODY).status == 200


def test_bodies_are_kept_only_for_a_key_that_cannot_read_events(tmp_path: Path) -> None:
    keeps = [True]
    with a_feed(tmp_path) as feed, served(feed, secrets=[NEW], keep_bodies=lambda: keeps[0]) as web:
        send(web, event("evt_1"))
        keeps[0] = False
        send(web, event("evt_2"))
        assert [one.body for one in webhook_inbox.unread(feed.store, 9)] == [event("evt_1"), None]


def test_without_a_secret_there_are_no_webhooks(tmp_path: Path) -> None:
    with a_feed(tmp_path) as feed, served(feed) as web:
        answer = send(web, BODY)
        assert answer.status == 404
        assert "signing secret" in answer.error


@pytest.mark.parametrize("secrets", [("",), ("whsec_a b",), ("whsec_a\n",), (NEW, "")])
def test_a_secret_that_signs_nothing_is_refused_before_anything_is_served(
    tmp_path: Path, secrets: tuple[str, ...]
) -> None:
    with a_feed(tmp_path) as feed, pytest.raises(SetupError):
        create_app(ServerConfig(feed, TOKEN, secrets))


def test_an_unexpected_fault_tells_its_class_and_no_more(
    web: Web, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> bool:
        raise KeyError("zoe@example.com")

    monkeypatch.setattr(webhook_inbox, "record", broken)
    answer = send(web, BODY)

    assert (answer.status, answer.error) == (500, "Unexpected (KeyError); please report it.")
    assert "POST /stripe failed (KeyError)" in caplog.text
    assert "zoe" not in caplog.text and "Traceback" not in caplog.text


# Who may ask


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_every_route_needs_the_token(web: Web, method: str, path: str) -> None:
    for header in (
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        TOKEN,
        f"Digest {TOKEN}",
        "Basic ?",
        basic("wrong"),
        basic(""),
    ):
        answer = web.ask(method, path, Authorization=header)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == 'Basic realm="stripe-feed", charset="UTF-8"'
        assert TOKEN.encode() not in answer.body
        assert method == "HEAD" or "token" in answer.error


def test_the_paths_above_are_all_there_are(web: Web) -> None:
    routes = {route.path for route in create_app(web.serving).routes}  # type: ignore[attr-defined]
    assert routes - {path for _, path in PATHS} == {"/health", "/stripe"}


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer  {TOKEN}", basic(TOKEN)])
def test_the_token_opens(web: Web, header: str) -> None:
    for path in ("/", "/changes", "/metrics", "/page.css"):
        assert web.get(path, Authorization=header).status == 200
        assert (
            web.get(
                path, Authorization=header, Host="feed.example.com", X_Forwarded_For="1.2.3.4"
            ).status
            == 200
        )


def test_health_and_webhooks_need_no_token(web: Web) -> None:
    assert web.get("/health", Host="evil.example").status == 200
    assert send(web, BODY).status == 200
    assert send(web, BODY, secrets=(FOREIGN,)).status == 400


@pytest.mark.parametrize(
    "token",
    [
        "",
        "short",
        "0123456789abcde",
        "0123456789abcdef ghi",
        "0123456789abcdef\n",
        "0123456789abcdefé",
    ],
)
def test_a_token_that_is_easily_guessed_is_refused(tmp_path: Path, token: str) -> None:
    with pytest.raises(UsageError, match="openssl rand") as told:
        check_token(token)
    assert not token or token not in str(told.value)
    with a_feed(tmp_path) as feed, pytest.raises(UsageError):
        create_app(ServerConfig(feed, token))


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost"},
        {"Host": "127.0.0.1:8787", "Connection": "close"},
        {"X_Forwarded_For": "127.0.0.1"},
    ],
)
def test_this_machine_is_no_exception(web: Web, headers: dict[str, str]) -> None:
    """A proxy on it, a tunnel and a name that was bound to it look just so."""
    assert {
        web.get(path, Authorization="", **headers).status for path in ("/", "/changes", "/metrics")
    } == {401}


def test_the_link_opens_the_page_and_leaves_a_cookie(web: Web) -> None:
    counts = web.serving.counts["turned_away"]
    first = web.get(f"/?token={TOKEN}", Authorization="")
    assert (first.status, first.headers["location"], first.body) == (303, "/", b"")
    cookie = first.headers["set-cookie"]
    assert (
        TOKEN not in cookie
        and "HttpOnly" in cookie
        and "SameSite=strict" in cookie
        and "Secure" not in cookie
    )
    assert (
        "Secure"
        in web.get(f"/?token={TOKEN}", Authorization="", X_Forwarded_Proto="https").headers[
            "set-cookie"
        ]
    )

    held = cookie.partition(";")[0]
    for path in ("/", "/changes", "/page.css", "/metrics"):
        for other in (
            "other=1",
            'a={"b": [1]}',
            "path=/",
            "x; y z",
            '"',
        ):  # of other servers on this host
            assert web.get(path, Authorization="", Cookie=f"{other}; {held}").status == 200
    assert (
        web.post("/retry", Authorization="", Cookie=held, Sec_Fetch_Site="cross-site").status == 403
    )
    assert web.get("/changes", Authorization="", Cookie=held[:-1]).status == 401
    assert web.get("/changes", Authorization="", Cookie="a=b; =; ;\u00e9=1").status == 401
    assert web.get(f"/?token={TOKEN}x", Authorization="").status == 401
    assert web.get(f"/changes?token={TOKEN}", Authorization="").status == 401
    assert web.serving.counts["turned_away"] == counts + 4


def test_a_token_is_made_once_and_kept_in_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "stripe.feed.token"
    token, is_new = load_or_create_token(file)

    assert (is_new, load_or_create_token(file)) == (True, (token, False))
    assert file.stat().st_mode & 0o777 == 0o600
    check_token(token)


def test_a_token_file_that_is_not_to_be_trusted_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "stripe.feed.token"
    token, _ = load_or_create_token(file)
    link = tmp_path / "link.token"
    link.symlink_to(file)
    (odd := tmp_path / "odd.token").write_bytes(b"\xff\xfe")
    (empty := tmp_path / "empty.token").write_bytes(b"")
    (folder := tmp_path / "folder.token").mkdir()
    file.chmod(0o644)
    for one in (file, link, odd, empty, folder):
        with pytest.raises(SetupError, match=f"{one.name} holds") as told:
            load_or_create_token(one)
        assert token not in str(told.value)


# Who keeps it waiting


def half_open(
    web: Web, count: int, text: bytes = b"POST /stripe HTTP/1.1\r\nHost: x\r\nX-A: "
) -> list[socket.socket]:
    found = [socket.create_connection(("127.0.0.1", web.port), timeout=BOUND) for _ in range(count)]
    for one in found:
        one.sendall(text)
    return found


def ended(some: list[socket.socket]) -> int:
    """How many were hung up on; the others still wait."""
    count = 0
    for one in some:
        one.settimeout(0)
        try:
            count += one.recv(1) == b""
        except BlockingIOError:
            continue
        except ConnectionError:
            count += 1
    return count


def test_more_connections_than_there_is_room_for_end_those_that_wait_longest(
    tmp_path: Path,
) -> None:
    with a_feed(tmp_path, a_change(1)) as feed, served(feed, most=10, secrets=[NEW]) as web:
        idle = half_open(web, 30)
        assert web.get("/health").status == 200
        assert send(web, BODY).status == 200
        assert (ended(idle[:20]), ended(idle[22:])) == (
            20,
            0,
        )  # those of the two requests are closed again
        assert web.serving.counts["cut"] in (20, 21, 22)
        for one in idle:
            one.close()


@pytest.mark.parametrize(
    "text", [b"", b"GET /hea", b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1"]
)
def test_a_request_that_does_not_come_to_its_end_is_hung_up_on(tmp_path: Path, text: bytes) -> None:
    with a_feed(tmp_path) as feed, served(feed, patience=0.05) as web:
        with socket.create_connection(("127.0.0.1", web.port), timeout=BOUND) as plain:
            plain.sendall(text)
            try:
                while plain.recv(1_000):
                    pass
            except ConnectionResetError:
                pass
        assert web.serving.counts["cut"] == 1


def test_who_waits_for_an_answer_is_not_hung_up_on(tmp_path: Path) -> None:
    with a_feed(tmp_path) as feed, served(feed, patience=0.05) as web:
        assert web.get("/changes?wait=1").status == 200
        assert web.serving.counts["cut"] == 0


def test_the_same_line_is_logged_once_a_minute_without_a_traceback() -> None:
    now = [0.0]
    rule = RateLimitedLog(lambda: now[0])

    def passes(words: str, **more: bool) -> bool:
        record = logging.makeLogRecord(
            {"msg": words, "exc_info": (ValueError, ValueError("zoe@example.com"), None), **more}
        )
        return rule.filter(record) and record.exc_info is None

    assert [passes("a"), passes("a"), passes("b")] == [True, False, True]
    assert [passes("edited", rare=True), passes("edited", rare=True)] == [True, True]
    now[0] = REPEAT_SECONDS
    assert [passes("a"), passes("a")] == [True, False]


@pytest.mark.parametrize("path", ["/retry", "/changes/ack"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:1"}, {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"}, {"Origin": "http://127.0.0.1"},
    ],
)  # fmt: skip
def test_a_page_of_another_origin_sends_nothing(
    web: Web, path: str, headers: dict[str, str]
) -> None:
    answer = web.post(path, b"{}", **headers)
    assert (answer.status, answer.error) == (403, "This was sent by a page of another origin.")


# Every answer


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/changes", 200),
        ("/health", 200),
        ("/page.js", 200),
        ("/nowhere", 404),
        ("/changes?x=1", 400),
    ],
)
def test_every_answer_says_what_browsers_may_do_with_it(web: Web, path: str, status: int) -> None:
    answer = web.get(path)

    assert answer.status == status
    assert answer.headers["content-security-policy"].startswith("default-src 'self'; ")
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/nowhere", 404), ("GET", "/changes/", 404), ("GET", "/stripe", 405), ("POST", "/changes", 405), ("DELETE", "/", 405),
    ("PUT", "/stripe", 405), ("GET", "/retry", 405), ("GET", "/page.html", 404), ("GET", "/../serve.py", 404),
])  # fmt: skip
def test_other_pages_and_methods_are_refused_in_a_line(
    web: Web, method: str, path: str, status: int
) -> None:
    answer = web.ask(method, path)
    assert (answer.status, bool(answer.error)) == (status, True)
    assert status != 405 or answer.headers["allow"]


@pytest.mark.parametrize(
    "path", ["/", "/changes", "/changes/stream", "/health", "/metrics", "/page.css"]
)
def test_head_answers_without_a_body(web: Web, path: str) -> None:
    answer = web.ask("HEAD", path)
    assert (answer.status, answer.body) == (200, b"")


def test_health_tells_how_fresh_the_copy_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {"synced_at": None, "error": None, "failures": 0}
    with (
        a_feed(tmp_path, a_change(1), a_change(2)) as feed,
        served(feed, health=lambda: told, token=TOKEN, secrets=[NEW]) as web,
    ):
        assert (web.get("/health").status, web.get("/health").json) == (
            200,
            {"status": "ok", "head": 2, **told},
        )
        told |= {"synced_at": NOW, "error": "RateLimited", "failures": 2}
        answer = web.get("/health")
        assert (answer.status, answer.json) == (503, {"status": "failing", "head": 2, **told})
        assert not re.search(f"{TOKEN}|{NEW}|{tmp_path}", str(answer))

        def broken(*_: object) -> None:
            raise sqlite3.OperationalError

        monkeypatch.setattr(type(feed.store), "counter", broken)
        answer = web.get("/health")
        assert (answer.status, answer.json["error"]) == (503, "OperationalError")


def test_secrets_and_tokens_are_in_no_repr(tmp_path: Path) -> None:
    with a_feed(tmp_path) as feed:
        assert not re.search(f"{TOKEN}|{NEW}", repr(ServerConfig(feed, TOKEN, [NEW])))


def test_nothing_is_logged_of_what_is_asked(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "stripe_feed")
    send(web, event())
    web.get("/changes?after=evt_3")
    web.get("/")
    assert [one for one in caplog.records if one.name.startswith("stripe_feed")] == []
