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

import pytest

from stripe_feed.errors import SetupError, UsageError
from stripe_feed.feed import bell, desk
from stripe_feed.feed.gate import require_token_for
from stripe_feed.feed.serve import Serving, app_of
from stripe_feed.feed.signing import stripe_header
from tests.feed_kills import a_change
from tests.web import BOUND, NOW, Answer, Web, a_feed, basic, served

OLD, NEW, FOREIGN = "whsec_old", "whsec_new", "whsec_foreign"
TOKEN = "0123456789abcdef-token"
PATHS = (
    ("GET", "/"), ("GET", "/changes"), ("GET", "/changes/stream"), ("POST", "/changes/ack"), ("GET", "/metrics"), ("POST", "/retry"),
    ("GET", "/page.css"), ("GET", "/page.js"), ("GET", "/icon.svg"), ("GET", "/nowhere"), ("HEAD", "/changes"), ("DELETE", "/changes"),
)  # fmt: skip


def event(event_id: str = "evt_1", **given: Any) -> bytes:
    return json.dumps({"id": event_id, "object": "event", "type": "customer.updated", "data": {"object": {"name": "Zoë"}}, **given}).encode()


def send(web: Web, body: bytes, at: float = NOW, secrets: tuple[str, ...] = (NEW,), header: str | None = None) -> Answer:
    signature = stripe_header(int(at), body, secrets) if header is None else header
    return web.post("/stripe", body, Stripe_Signature=signature)


def rung(web: Web) -> list[str]:
    return [one.event_id for one in bell.waiting(web.store, 1_000)]


RINGS: list[int] = []


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("served")
    with (
        a_feed(folder, *(a_change(n, f"sub_{n % 3}") for n in range(1, 11))) as feed,
        served(feed, secrets=(OLD, NEW), rung=lambda: RINGS.append(1)) as web,
    ):
        yield web


@pytest.fixture
def web(running: Web) -> Web:
    """A server that takes webhooks, of a feed with ten changes. Nothing has rung."""
    running.store.ask("delete from rung")
    RINGS.clear()
    return running


@pytest.fixture
def rings() -> list[int]:
    return RINGS


def test_a_webhook_rings(web: Web, rings: list[int]) -> None:
    answer = send(web, event())

    assert (answer.status, answer.json) == (200, {"received": True})
    assert bell.waiting(web.store, 9) == [bell.Rung("evt_1", NOW)]
    assert rings == [1]


def test_a_replayed_webhook_rings_nothing_new(web: Web, rings: list[int]) -> None:
    assert [send(web, event()).status for _ in range(3)] == [200] * 3
    assert rung(web) == ["evt_1"]

    bell.read(web.store, ["evt_1"], NOW)
    assert send(web, event(), NOW - 299).status == 200
    assert rung(web) == []
    assert rings == [1]


def test_webhooks_at_the_same_time_all_ring(web: Web, rings: list[int]) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda n=n: found.append(send(web, event(f"evt_{n % 30}")).status)) for n in range(60)]
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
    answer = send(web, body, header=header)

    assert (answer.status, answer.error) == (400, "The signature does not hold.")
    assert (rung(web), rings) == ([], [])
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
def test_a_signed_body_that_is_no_event_is_refused(web: Web, body: bytes) -> None:
    answer = send(web, body)

    assert (answer.status, answer.error) == (400, "The body is no event of Stripe's.")
    assert rung(web) == []


@pytest.mark.parametrize("path", ["/stripe", "/changes/ack", "/retry"])
@pytest.mark.parametrize("length", [1_000_001, 5_000_000, 10**18])
def test_a_body_of_5_mb_is_refused_before_it_is_sent(web: Web, path: str, length: int) -> None:
    with socket.create_connection(("127.0.0.1", web.port), timeout=BOUND) as plain:
        plain.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{{".encode())
        answer = plain.makefile("rb").read()      # to the end: it hangs up

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'{"error":"The body is longer than 1,000,000 bytes."}' in answer


def test_a_streamed_body_of_5_mb_is_refused_on_its_way(web: Web) -> None:
    sent = 0
    with socket.create_connection(("127.0.0.1", web.port), timeout=BOUND) as plain:
        plain.sendall(b"POST /stripe HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(50):
                plain.sendall(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
                sent += 100_000
            answer = plain.recv(20)
        except ConnectionError:
            answer = b"HTTP/1.1 413 "      # it hung up on us

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert rung(web) == []
    assert send(web, BODY).status == 200


def test_a_megabyte_is_taken(web: Web) -> None:
    body = event(padding="x" * (1_000_000 - len(event(padding=""))))

    assert len(body) == 1_000_000
    assert send(web, body).status == 200


def test_a_body_that_does_not_come_is_given_up(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "BODY_SECONDS", 0.05)
    with socket.create_connection(("127.0.0.1", web.port), timeout=BOUND) as plain:
        plain.sendall(b"POST /stripe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        assert plain.makefile("rb").read().startswith(b"HTTP/1.1 408 ")


def test_a_client_that_hangs_up_does_no_harm(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_connection(("127.0.0.1", web.port), timeout=BOUND) as plain:
        plain.sendall(b"POST /stripe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
    assert send(web, BODY).status == 200
    assert caplog.text == ""


def test_where_the_store_cannot_be_written_stripe_comes_again(web: Web, rings: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bool:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(bell, "ring", full)
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
        assert [one.body for one in bell.waiting(feed.store, 9)] == [event("evt_1"), None]


def test_without_a_secret_there_are_no_webhooks(tmp_path: Path) -> None:
    with a_feed(tmp_path) as feed, served(feed) as web:
        answer = send(web, BODY)
        assert answer.status == 404
        assert "signing secret" in answer.error


@pytest.mark.parametrize("secrets", [("",), ("whsec_a b",), ("whsec_a\n",), (NEW, "")])
def test_a_secret_that_signs_nothing_is_refused_before_anything_is_served(tmp_path: Path, secrets: tuple[str, ...]) -> None:
    with a_feed(tmp_path) as feed, pytest.raises(SetupError):
        app_of(Serving(feed, secrets))


def test_an_unexpected_fault_tells_its_class_and_no_more(
    web: Web, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> bool:
        raise KeyError("zoe@example.com")

    monkeypatch.setattr(bell, "ring", broken)
    answer = send(web, BODY)

    assert (answer.status, answer.error) == (500, "Unexpected (KeyError); please report it.")
    assert "POST /stripe failed (KeyError)" in caplog.text
    assert "zoe" not in caplog.text and "Traceback" not in caplog.text


# Who may ask


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A server with a token."""
    with a_feed(tmp_path_factory.mktemp("locked"), a_change(1)) as feed, served(feed, token=TOKEN, secrets=[NEW]) as web:
        yield web


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_every_route_needs_the_token(locked: Web, method: str, path: str) -> None:
    for header in (None, "", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, f"Digest {TOKEN}", "Basic ?", basic("wrong"), basic("")):
        answer = locked.ask(method, path, **({} if header is None else {"Authorization": header}))
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == 'Basic realm="stripe-feed", charset="UTF-8"'
        assert TOKEN.encode() not in answer.body
        assert method == "HEAD" or "token" in answer.error


def test_the_paths_above_are_all_there_are(locked: Web) -> None:
    routes = {route.path for route in app_of(locked.serving).routes}     # type: ignore[attr-defined]
    assert routes - {path for _, path in PATHS} == {"/health", "/stripe"}


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer  {TOKEN}", basic(TOKEN)])
def test_the_token_opens(locked: Web, header: str) -> None:
    for path in ("/", "/changes", "/metrics", "/page.css"):
        assert locked.get(path, Authorization=header).status == 200
        assert locked.get(path, Authorization=header, Host="feed.example.com", X_Forwarded_For="1.2.3.4").status == 200


def test_health_and_webhooks_need_no_token(locked: Web) -> None:
    assert locked.get("/health", Host="evil.example").status == 200
    assert send(locked, BODY).status == 200
    assert send(locked, BODY, secrets=(FOREIGN,)).status == 400


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "feed.example.com", "", "localhost.example.com", "8.8.8.8"])
def test_an_address_that_others_reach_needs_a_token(host: str) -> None:
    require_token_for(host, TOKEN)
    with pytest.raises(UsageError, match="set a token") as told:
        require_token_for(host, None)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_loopback_needs_none(host: str) -> None:
    require_token_for(host, None)


@pytest.mark.parametrize("token", ["", "short", "0123456789abcde", "0123456789abcdef ghi", "0123456789abcdef\n", "0123456789abcdefé"])
def test_a_token_that_is_easily_guessed_is_refused(token: str) -> None:
    with pytest.raises(UsageError, match="openssl rand") as told:
        require_token_for("127.0.0.1", token)
    assert not token or token not in str(told.value)


@pytest.mark.parametrize(
    ("host", "status"),
    {
        "localhost": 200, "localhost:8787": 200, "127.0.0.1": 200, "127.0.0.1:1": 200, "[::1]": 200, "[::1]:8787": 200, "LocalHost:8": 200,
        "evil.example": 421, "localhost.evil.example": 421, "evil.example:8787": 421, "192.168.1.5": 421, "127.0.0.1.evil.example": 421,
        "[::2]:80": 421, "localhost:x": 421, "": 421,
    }.items(),
)  # fmt: skip
def test_a_page_elsewhere_cannot_ask_by_rebinding_a_name(web: Web, host: str, status: int) -> None:
    answer = web.get("/changes", Host=host)
    assert answer.status == status
    assert status == 200 or "token" in answer.error
    assert web.get("/health", Host=host).status == 200


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Forwarded-Host", "X-Real-IP"])
def test_without_a_token_nobody_is_answered_through_a_proxy(web: Web, header: str) -> None:
    assert web.get("/changes", **{header: "1.2.3.4"}).status == 403
    assert web.post("/stripe", BODY, Stripe_Signature=SIGNED, **{header: "1.2.3.4"}).status == 200


@pytest.mark.parametrize("path", ["/retry", "/changes/ack"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:1"}, {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"}, {"Origin": "http://127.0.0.1"},
    ],
)  # fmt: skip
def test_a_page_of_another_origin_sends_nothing(web: Web, path: str, headers: dict[str, str]) -> None:
    answer = web.post(path, b"{}", **headers)
    assert (answer.status, answer.error) == (403, "This was sent by a page of another origin.")


# Every answer


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/changes", 200), ("/health", 200), ("/page.js", 200), ("/nowhere", 404), ("/changes?x=1", 400)])
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
def test_other_pages_and_methods_are_refused_in_a_line(web: Web, method: str, path: str, status: int) -> None:
    answer = web.ask(method, path)
    assert (answer.status, bool(answer.error)) == (status, True)
    assert status != 405 or answer.headers["allow"]


@pytest.mark.parametrize("path", ["/", "/changes", "/changes/stream", "/health", "/metrics", "/page.css"])
def test_head_answers_without_a_body(web: Web, path: str) -> None:
    answer = web.ask("HEAD", path)
    assert (answer.status, answer.body) == (200, b"")


def test_health_tells_how_fresh_the_copy_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {"synced_at": None, "error": None, "failures": 0}
    with a_feed(tmp_path, a_change(1), a_change(2)) as feed, served(feed, health=lambda: told, token=TOKEN, secrets=[NEW]) as web:
        assert (web.get("/health").status, web.get("/health").json) == (200, {"status": "ok", "head": 2, **told})
        told |= {"synced_at": NOW, "error": "RateLimited", "failures": 2}
        answer = web.get("/health")
        assert (answer.status, answer.json) == (503, {"status": "failing", "head": 2, **told})
        assert not re.search(f"{TOKEN}|{NEW}|{tmp_path}", str(answer))

        def broken(*_: object) -> None:
            raise sqlite3.OperationalError

        monkeypatch.setattr(type(feed.store), "number", broken)
        answer = web.get("/health")
        assert (answer.status, answer.json["error"]) == (503, "OperationalError")


def test_secrets_and_tokens_are_in_no_repr(tmp_path: Path) -> None:
    with a_feed(tmp_path) as feed:
        assert not re.search(f"{TOKEN}|{NEW}", repr(Serving(feed, [NEW], TOKEN)))


def test_nothing_is_logged_of_what_is_asked(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "stripe_feed")
    send(web, event())
    web.get("/changes?after=evt_3")
    web.get("/")
    assert [one for one in caplog.records if one.name.startswith("stripe_feed")] == []
