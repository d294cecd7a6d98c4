"""What becomes of one message, sink by sink, with receivers that misbehave."""

from __future__ import annotations

import json
import logging
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import stripe_feed
from stripe_feed.delivery import addresses, transports
from stripe_feed.delivery.transports import (
    AttemptResult,
    CallableTransport,
    CommandTransport,
    FileTransport,
    Transport,
    WebhookTransport,
    retry_after,
)
from stripe_feed.errors import UsageError
from tests.receiver import (
    CUT,
    EARLY,
    ENDLESS,
    ERROR,
    GARBAGE,
    GONE,
    HANG,
    LATE,
    OK,
    RESET,
    TAKEN_THEN_RESET,
    THROTTLED,
    TRICKLE,
    TRICKLE_HEAD,
    Behaviour,
    Received,
    at_random,
    receiving,
    redirect,
)

NOW = 1_780_000_000.0
SECRET = "s3cret"
BODY = b'{"id":"cus_1"}'
SHORT = 0.3  # seconds, for receivers that never answer


def nearby(host: str, port: int, **more: Any) -> list[Any]:
    """A name server that has this machine for every name."""
    return [(socket.AF_INET, more["type"], 6, "", ("127.0.0.1", port))]


def send(
    sink: Transport, number: int = 1, headers: Mapping[str, str] | None = None
) -> AttemptResult:
    return sink.send(
        f"msg_{number}", "welcome", BODY, {"webhook-id": f"msg_{number}", **(headers or {})}
    )


def outcome_of(behaviour: Behaviour, timeout: float = 15.0) -> AttemptResult:
    """What one try at a receiver comes to."""
    with receiving(behaviour) as receiver:
        webhook = WebhookTransport(
            f"{receiver.url}?key={SECRET}", allow_private=True, timeout=timeout, now=lambda: NOW
        )
        try:
            return send(webhook)
        finally:
            webhook.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_a_message_arrives_whole() -> None:
    with receiving() as receiver:
        webhook = WebhookTransport(
            receiver.url + "/a?b=c",
            allow_private=True,
            headers={"X-Source": "stripe", "content-type": "text/plain"},
        )
        outcome = send(webhook, headers={"Webhook-Signature": "v1,abc", "x-source": "mine"})
        webhook.close()

    assert outcome == AttemptResult(True, "200")
    assert (
        receiver.accepted
        == receiver.received
        == [
            Received(
                "/hook/a?b=c",
                {
                    "host": f"127.0.0.1:{receiver.port}",
                    "accept-encoding": "identity",
                    "content-length": str(len(BODY)),
                    "content-type": "text/plain",
                    "user-agent": f"stripe-feed/{stripe_feed.__version__}",
                    "x-source": "mine",
                    "webhook-id": "msg_1",
                    "webhook-signature": "v1,abc",
                },
                BODY,
                1,
            )
        ]
    )


def test_json_is_announced_by_default() -> None:
    with receiving() as receiver:
        webhook = WebhookTransport(receiver.url, allow_private=True)
        send(webhook)
        webhook.close()

    assert receiver.received[0].headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (Behaviour(201), AttemptResult(True, "201")),
        (Behaviour(204, body=b""), AttemptResult(True, "204")),
        (Behaviour(200, "close"), AttemptResult(True, "200")),
        (Behaviour(200, "hang_up"), AttemptResult(True, "200")),
        (ENDLESS, AttemptResult(True, "200")),
        (Behaviour(400), AttemptResult(False, "400")),
        (Behaviour(404), AttemptResult(False, "404")),
        (ERROR, AttemptResult(False, "500")),
        (GONE, AttemptResult(False, "410", gone=True)),
        (THROTTLED, AttemptResult(False, "429", retry_after=7.0, throttled=True)),
        (Behaviour(502), AttemptResult(False, "502", throttled=True)),
        (
            Behaviour(503, headers={"retry-after": formatdate(NOW + 90, usegmt=True)}),
            AttemptResult(False, "503", retry_after=90.0, throttled=True),
        ),
        (
            Behaviour(504, headers={"Retry-After": "soon"}),
            AttemptResult(False, "504", throttled=True),
        ),
        (RESET, AttemptResult(False, "reset")),
        (TAKEN_THEN_RESET, AttemptResult(False, "reset")),
        (CUT, AttemptResult(False, "reset")),
        (GARBAGE, AttemptResult(False, "malformed", note="the answer is not HTTP")),
    ],
)
def test_an_answer_becomes_an_outcome(behaviour: Behaviour, outcome: AttemptResult) -> None:
    assert outcome_of(behaviour) == outcome


@pytest.mark.parametrize("behaviour", [HANG, LATE, TRICKLE_HEAD], ids=lambda one: one.fate)
def test_the_time_limit_holds_for_the_whole_try(behaviour: Behaviour) -> None:
    began = time.monotonic()

    assert outcome_of(behaviour, SHORT) == AttemptResult(False, "timeout")
    assert SHORT <= time.monotonic() - began < SHORT + 2


def test_a_body_that_trickles_does_not_undo_success() -> None:
    began = time.monotonic()

    assert outcome_of(TRICKLE, SHORT) == AttemptResult(True, "200")
    assert time.monotonic() - began < SHORT + 2


def test_what_a_receiver_does_after_the_sender_gave_up_is_seen_there_only() -> None:
    with receiving(LATE) as receiver:
        webhook = WebhookTransport(receiver.url, allow_private=True, timeout=SHORT)
        outcomes = [send(webhook), send(webhook)]
        webhook.close()

    assert [one.code for one in outcomes] == ["timeout", "200"]
    assert [one.message_id for one in receiver.accepted] == ["msg_1", "msg_1"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    with receiving() as elsewhere, receiving(redirect(elsewhere.url, status)) as receiver:
        webhook = WebhookTransport(receiver.url, allow_private=True)
        outcome = send(webhook)
        webhook.close()

    assert outcome == AttemptResult(
        False, str(status), note="redirects are not followed, give the URL they lead to"
    )
    assert (len(receiver.received), elsewhere.connections) == (1, 0)


def test_nobody_there() -> None:
    assert send(
        WebhookTransport(f"http://127.0.0.1:{free_port()}/", allow_private=True)
    ) == AttemptResult(False, "refused")


def test_a_local_address_is_blocked_before_anything_is_sent() -> None:
    with receiving() as receiver:
        outcome = send(WebhookTransport(f"https://localhost:{receiver.port}/{SECRET}"))

    assert (outcome.ok, outcome.code, receiver.connections) == (False, "blocked", 0)
    assert outcome.note.startswith("localhost leads to an address that is not public.")


def test_a_name_that_is_not_found() -> None:
    def lookup(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    outcome = send(WebhookTransport(f"https://hooks.example.com/{SECRET}", lookup=lookup))

    assert (outcome.ok, outcome.code) == (False, "lookup")


@pytest.mark.parametrize(("later", "code"), [("169.254.169.254", "blocked"), ("::1", "refused")])
def test_a_kept_connection_ends_with_the_address_it_was_made_for(later: str, code: str) -> None:
    """A name that moves takes no message along, though the old connection is still open."""
    found, seconds = ["127.0.0.1"], [0.0]

    def lookup(host: str, port: int, **more: Any) -> list[Any]:
        return [(0, more["type"], 6, "", (address, port)) for address in found]

    with receiving() as receiver:
        url = f"http://hooks.example.com:{receiver.port}/"
        webhook = WebhookTransport(
            url, allow_private=True, lookup=lookup, monotonic=lambda: seconds[0]
        )
        codes = [send(webhook).code, send(webhook).code]
        found[:] = [later]
        for seconds[0] in (
            3.0,
            29.0,
            31.0,
        ):  # known until 30; the connection is good for 4 after each use
            codes.append(send(webhook).code)
        webhook.close()

    assert codes[:4] == ["200"] * 4
    assert codes[4] == code or (later, codes[4]) == ("::1", "unreachable")  # a machine without IPv6
    assert [one.connection for one in receiver.received] == [1, 1, 1, 2]
    assert receiver.received[0].headers["host"] == f"hooks.example.com:{receiver.port}"


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy, receiving() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        webhook = WebhookTransport(receiver.url, allow_private=True)
        outcome = send(webhook)
        webhook.close()

    assert (outcome.code, len(receiver.received), proxy.connections) == ("200", 1, 0)


@pytest.mark.parametrize(
    ("behaviour", "connections"),
    [(OK, 1), (ERROR, 1), (Behaviour(200, "close"), 3), (Behaviour(200, "hang_up"), 3)],
)
def test_a_connection_is_kept_as_long_as_it_lasts(behaviour: Behaviour, connections: int) -> None:
    with receiving(choose=lambda *_: behaviour) as receiver:
        webhook = WebhookTransport(receiver.url, allow_private=True)
        for number in range(3):
            assert send(webhook, number).code == str(behaviour.status)
            if behaviour.fate == "hang_up":  # which may take a moment to arrive
                assert select.select(webhook._connections._idle, [], [], 10)[0]
        webhook.close()

    assert receiver.connections == connections


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://example.com/", "example.com"),
        ("https://[::1]:8443/", "[::1]:8443"),
        ("https://[::1]/", "[::1]"),
    ],
)
def test_the_receiver_gets_the_host_that_the_url_names(
    url: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver:
        there = addresses.Target(False, "127.0.0.1", receiver.port, "/")
        monkeypatch.setattr(
            addresses,
            "connect",
            partial(
                lambda real, *given: real(there, ["127.0.0.1"], None, given[-1]), addresses.connect
            ),
        )
        webhook = WebhookTransport(url, allow_private=True, lookup=nearby)
        assert send(webhook).ok
        webhook.close()

    assert receiver.received[0].headers["host"] == host


def test_informational_answers_are_no_answers() -> None:
    """After 1xx the real answer follows, on the same connection; 101 is an answer."""
    with receiving(
        EARLY, Behaviour(500, "early"), OK, Behaviour(101, "close", body=b"")
    ) as receiver:
        webhook = WebhookTransport(receiver.url, allow_private=True)
        codes = [send(webhook, number).code for number in range(4)]
        webhook.close()

    assert codes == ["200", "500", "200", "101"]
    assert [one.connection for one in receiver.received] == [1] * 4


def kept_and_then(
    monkeypatch: pytest.MonkeyPatch, *behaviours: Behaviour
) -> tuple[list[str], int, int]:
    """Codes, requests and connections where a kept connection ends unseen between two messages."""
    monkeypatch.setattr(addresses.DeadlineSocket, "is_good", lambda *_: True)
    with receiving(*behaviours) as receiver:
        webhook = WebhookTransport(receiver.url, allow_private=True)
        codes = []
        for number in range(2):
            codes.append(send(webhook, number).code)
            if behaviours[number].fate == "hang_up":
                assert select.select(webhook._connections._idle, [], [], 10)[0]
        webhook.close()
        return codes, len(receiver.received), receiver.connections


def test_a_kept_connection_that_ended_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a byte of an answer came: the message goes once more, over a new one, with the same id."""
    assert kept_and_then(monkeypatch, Behaviour(200, "hang_up"), OK) == (["200", "200"], 2, 2)
    assert kept_and_then(monkeypatch, OK, RESET, OK) == (["200", "200"], 3, 2)


@pytest.mark.parametrize(
    ("behaviours", "codes"),
    [
        ((OK, CUT), ["200", "reset"]),
        ((RESET, OK), ["reset", "200"]),
        ((OK, RESET, RESET), ["200", "reset"]),
    ],
)
def test_a_connection_that_ends_otherwise_is_one(
    behaviours: tuple[Behaviour, ...], codes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an answer, or on a connection that was just made: once more and no oftener."""
    assert kept_and_then(monkeypatch, *behaviours)[:2] == (codes, len(behaviours))


def test_an_idle_connection_is_not_trusted() -> None:
    seconds = [0.0]
    with receiving() as receiver:
        webhook = WebhookTransport(receiver.url, allow_private=True, monotonic=lambda: seconds[0])
        send(webhook)
        seconds[0] = addresses.IDLE_SECONDS
        send(webhook)
        webhook.close()

    assert [one.connection for one in receiver.received] == [1, 2]


def test_many_threads_share_a_webhook() -> None:
    with receiving() as receiver, ThreadPoolExecutor(16) as threads:
        webhook = WebhookTransport(receiver.url, allow_private=True)
        outcomes = set(threads.map(lambda number: send(webhook, number), range(1_000)))
        webhook.close()

    assert outcomes == {AttemptResult(True, "200")}
    assert sorted(receiver.tries) == sorted(f"msg_{number}" for number in range(1_000))
    assert receiver.connections <= 16


def test_no_message_is_taken_for_sent_at_a_receiver_that_fails_at_random() -> None:
    chances = {
        ERROR: 0.1,
        RESET: 0.1,
        TAKEN_THEN_RESET: 0.05,
        THROTTLED: 0.05,
        CUT: 0.05,
        GARBAGE: 0.05,
        Behaviour(200, "hang_up"): 0.1,
    }

    def until_sent(number: int) -> int:
        return next(count for count in range(1, 100) if send(webhook, number).ok)

    with receiving(choose=at_random(chances, seed=1)) as receiver, ThreadPoolExecutor(8) as threads:
        webhook = WebhookTransport(receiver.url, allow_private=True)
        tries = list(threads.map(until_sent, range(500)))
        webhook.close()

    assert {one.message_id for one in receiver.accepted} == {
        f"msg_{number}" for number in range(500)
    }
    assert 2 * sum(tries) >= len(receiver.received) > 600
    assert {one.body for one in receiver.received} == {BODY}


def test_outcomes_and_logs_hold_neither_path_nor_body_nor_header(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    behaviours = [
        OK,
        ERROR,
        RESET,
        CUT,
        GARBAGE,
        redirect(f"http://127.0.0.1/{SECRET}"),
        Behaviour(400, headers={"X": SECRET}, body=SECRET.encode()),
    ]
    with receiving(*behaviours) as receiver:
        webhook = WebhookTransport(
            f"{receiver.url}/{SECRET}?{SECRET}",
            allow_private=True,
            headers={"Authorization": SECRET},
        )
        outcomes = [
            webhook.send("msg_1", "welcome", SECRET.encode(), {"X-Sign": SECRET})
            for _ in behaviours
        ]
        webhook.close()

    assert SECRET in receiver.received[0].path
    assert SECRET not in f"{outcomes} {caplog.text} {webhook!r}"


@pytest.mark.parametrize(
    "name",
    ["X\r\nY", "", "X Y", "X:", "Ü", "Host", "content-length", "Transfer-Encoding", "connection"],
)
def test_names_that_no_header_may_have_are_refused(name: str) -> None:
    with pytest.raises(
        UsageError, match=r"^The headers for example\.com cannot be sent: "
    ) as refusal:
        WebhookTransport("https://example.com/", headers={name: SECRET})
    assert SECRET not in str(refusal.value)
    assert send(WebhookTransport("https://example.com/"), headers={name: SECRET}).code == "header"


@pytest.mark.parametrize(
    "value", ["a\r\nX: b", "a\nb", "a\rb", "a\n b", "a\x00b", "a\x7f", "a\x85b", "жук"]
)
def test_values_that_no_header_may_have_are_refused(value: str) -> None:
    with pytest.raises(
        UsageError, match="the value of X-Note has a line break or another character"
    ):
        WebhookTransport("https://example.com/", headers={"X-Note": value})
    assert (
        send(WebhookTransport("https://example.com/"), headers={"X-Note": value}).code == "header"
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("86401", 86_400.0),
        ("9" * 15, 86_400.0),
        ("9" * 5_000, 86_400.0),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("soon", None),
        ("٣", None),
        ("inf", None),
        ("nan", None),
        ("5, 6", None),
        (formatdate(NOW + 60, usegmt=True), 60.0),
        (formatdate(NOW - 60, usegmt=True), 0.0),
        (formatdate(NOW + 1e6, usegmt=True), 86_400.0),
        (formatdate(NOW + 60), 60.0),
        ("Thu, 99 Foo 2026 00:00:00 GMT", None),
        ("Thu, 01 Jan 99999 00:00:00 GMT", None),
    ],
)
def test_a_receiver_may_ask_to_wait_for_a_day_at_most(
    value: str | None, seconds: float | None
) -> None:
    assert retry_after(value, NOW) == seconds
    assert (
        retry_after(value, NOW + 1e8, formatdate(NOW, usegmt=True)) == seconds
    )  # whatever our own clock says


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate of hooks.example.com in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command to make a certificate with")
    file = tmp_path_factory.mktemp("tls") / "hooks.pem"
    names = ["-subj", "/CN=hooks.example.com", "-addext", "subjectAltName=DNS:hooks.example.com"]
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            *names,
            "-keyout",
            str(file),
            "-out",
            str(file.with_suffix(".crt")),
        ],
        check=True,
        capture_output=True,
    )
    file.write_text(file.read_text() + file.with_suffix(".crt").read_text())
    return file


def over_tls(
    certificate: Path, host: str, trusted: bool, behaviour: Behaviour = OK, timeout: float = 5
) -> tuple[list[AttemptResult], list[str | None], int]:
    """Two messages to a host whose name leads to the receiver: outcomes, names asked for, requests
    that got through.
    """
    with receiving(choose=lambda *_: behaviour, certificate=certificate) as receiver:
        ca = str(certificate) if trusted else None
        webhook = WebhookTransport(
            f"https://{host}:{receiver.port}/",
            allow_private=True,
            ca_certs=ca,
            lookup=nearby,
            timeout=timeout,
        )
        outcomes = [send(webhook), send(webhook)]
        webhook.close()
    return outcomes, receiver.names, len(receiver.received)


@pytest.mark.parametrize("host", ["hooks.example.com", "hooks.example.com."])
def test_tls_asks_for_the_name_though_the_connection_goes_to_the_address(
    certificate: Path, host: str
) -> None:
    assert over_tls(certificate, host, True) == (
        [AttemptResult(True, "200")] * 2,
        ["hooks.example.com"],
        2,
    )


@pytest.mark.parametrize(
    ("host", "trusted", "why"),
    [
        ("other.example.com", True, "Hostname mismatch"),
        ("127.0.0.1", True, "IP address mismatch"),
        ("hooks.example.com", False, "self"),
    ],
)
def test_a_certificate_for_another_name_or_of_a_stranger_gets_nothing(
    certificate: Path, host: str, trusted: bool, why: str
) -> None:
    outcomes, _, requests = over_tls(certificate, host, trusted)

    assert [(one.ok, one.code) for one in outcomes] == [(False, "tls")] * 2
    assert why in outcomes[0].note
    assert requests == 0


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (RESET, "reset"),
        (CUT, "reset"),
        (GARBAGE, "malformed"),
        (TRICKLE, "200"),
        (Behaviour(200, "hang_up"), "200"),
    ],
)
def test_receivers_misbehave_over_tls_too(
    certificate: Path, behaviour: Behaviour, code: str
) -> None:
    timeout = 0.5 if behaviour is TRICKLE else 5  # the head has come, the body is not waited for
    outcomes, _, _ = over_tls(certificate, "hooks.example.com", True, behaviour, timeout)

    assert outcomes[0].code == code
    assert outcomes[1].code in (code, "reset")  # a hang-up may cross the next message


def test_the_time_limit_holds_while_tls_shakes_hands_and_for_its_answers(certificate: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        webhook = WebhookTransport(
            f"https://localhost:{silent.getsockname()[1]}/", allow_private=True, timeout=SHORT
        )
        assert send(webhook) == AttemptResult(False, "timeout")
    with receiving(TRICKLE_HEAD, certificate=certificate) as receiver:
        url = f"https://hooks.example.com:{receiver.port}/"
        webhook = WebhookTransport(
            url, allow_private=True, ca_certs=str(certificate), lookup=nearby, timeout=SHORT
        )
        assert send(webhook) == AttemptResult(False, "timeout")


def test_no_tls_where_it_is_expected(certificate: Path) -> None:
    """The other side answers garbage, hangs up, or waits for the end of a line that the greeting
    may not hold.
    """
    with receiving(GARBAGE) as receiver:
        outcome = send(
            WebhookTransport(f"https://localhost:{receiver.port}/", allow_private=True, timeout=1)
        )

    assert not outcome.ok and outcome.code in ("tls", "reset", "timeout")


def test_a_body_that_nobody_reads_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        webhook = WebhookTransport(
            f"http://127.0.0.1:{deaf.getsockname()[1]}/", allow_private=True, timeout=SHORT
        )
        assert webhook.send("msg_1", "welcome", b" " * 50_000_000, {}) == AttemptResult(
            False, "timeout"
        )


def test_a_command_gets_the_message_on_its_stdin_and_what_it_is_in_its_environment(
    tmp_path: Path,
) -> None:
    command = CommandTransport(
        'cat > got; echo "$STRIPE_FEED_MESSAGE_ID $STRIPE_FEED_TRIGGER" >> got'
    )

    assert send(command) == AttemptResult(True, "exit 0")
    assert (tmp_path / "got").read_bytes() == BODY + b"\nmsg_1 welcome\n"


def test_a_command_inherits_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = (
        "STRIPE_SECRET_KEY",
        "STRIPE_FEED_TOKEN",
        "STRIPE_WEBHOOK_SECRET",
        "DESTINATION__POSTGRES__CREDENTIALS",
        "CREDENTIALS",
        "SOURCES__STRIPE__API_KEY",
        "MY_PIPE__DESTINATION__DUCKDB__CREDENTIALS",
        "CREDENTIALS__PASSWORD",
        "HOOK_SECRET",
        "HOOKS__URL",
    )
    for name in (*ours, "PLAY_TOKEN", "SOURCES_OF_TRUTH"):
        monkeypatch.setenv(name, "canary")
    command = CommandTransport("env > got", hidden=("HOOK_SECRET", "HOOKS__URL"))

    assert send(command).ok
    got = {line.partition("=")[0] for line in (tmp_path / "got").read_text().splitlines()}
    assert not got & set(ours)
    assert {"PLAY_TOKEN", "SOURCES_OF_TRUTH", "PATH", "STRIPE_FEED_MESSAGE_ID"} <= got


def test_what_a_command_prints_is_talk(capfd: pytest.CaptureFixture[str]) -> None:
    assert send(CommandTransport("echo said; echo warned >&2")).ok
    assert capfd.readouterr() == ("", "said\nwarned\n")


@pytest.mark.parametrize(
    ("run", "outcome"),
    [
        ("exit 3", AttemptResult(False, "exit 3")),
        ("kill -9 $$", AttemptResult(False, "signal 9")),
        ("true", AttemptResult(True, "exit 0")),
    ],
)
def test_the_end_of_a_command_becomes_an_outcome(run: str, outcome: AttemptResult) -> None:
    command = CommandTransport(run)

    assert (
        command.send("msg_1", "welcome", b"x" * 1_000_000, {}) == outcome
    )  # more than a pipe holds, and nobody reads


def test_a_command_that_cannot_start_is_a_failure() -> None:
    assert send(CommandTransport("a\0b")) == AttemptResult(False, "error ValueError")
    assert send(CommandTransport("no-such-command-anywhere 2>&-")) == AttemptResult(
        False, "exit 127"
    )


class Family:
    """A command and what it starts; all of them hold the other end of a pipe."""

    run = "exec 9> life; echo >&9; {} sleep 60 & sleep 60; wait"

    def __init__(self) -> None:
        os.mkfifo("life")
        self.pipe = os.open("life", os.O_RDONLY | os.O_NONBLOCK)

    def heard(self) -> bytes:
        assert select.select([self.pipe], [], [], 60)[0], "neither alive nor gone after a minute"
        return os.read(self.pipe, 1)

    def is_there(self) -> bool:
        return self.heard() == b"\n"

    def is_gone(self) -> bool:
        return self.heard() == b""


@pytest.fixture
def family() -> Iterator[Family]:
    found = Family()
    yield found
    os.close(found.pipe)


@pytest.mark.parametrize(
    "habit", ["", "trap '' TERM;", "(trap '' TERM; sleep 60) &"], ids=["meek", "stubborn", "sly"]
)
def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(
    habit: str, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transports, "KILL_SECONDS", 0.1)

    assert send(CommandTransport(family.run.format(habit), timeout=0.5)) == AttemptResult(
        False, "timeout"
    )
    assert family.is_there() and family.is_gone()


def test_closing_ends_the_commands_that_run_and_starts_no_more(family: Family) -> None:
    command = CommandTransport(family.run.format(""))
    with ThreadPoolExecutor(1) as threads:
        outcome = threads.submit(send, command)
        assert family.is_there()
        command.close()

        assert outcome.result(10) == AttemptResult(False, f"signal {signal.SIGTERM.value}")
    assert family.is_gone()
    assert send(command) == AttemptResult(False, "closed")


def test_a_command_ends_when_its_sender_is_interrupted(family: Family) -> None:
    run = family.run.format("")
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # not inherited
        "from stripe_feed.delivery.transports import CommandTransport\n"
        f"CommandTransport({run!r}).send('m', 't', b'', {{}})"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as sender:
        assert family.is_there()
        sender.send_signal(signal.SIGINT)

        assert sender.wait(20) != 0
    assert family.is_gone()


def test_many_threads_run_commands_at_once(tmp_path: Path) -> None:
    command = CommandTransport("cat > $STRIPE_FEED_MESSAGE_ID")
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda number: send(command, number), range(40))) == {
            AttemptResult(True, "exit 0")
        }
    assert len(list(tmp_path.glob("msg_*"))) == 40


@pytest.fixture
def plays(tmp_path: Path) -> Iterator[str]:
    """The name of a module in the current directory."""
    name, path = f"plays_{tmp_path.name.replace('-', '_')}", list(sys.path)
    (tmp_path / f"{name}.py").write_text(
        "seen = []\ndef collect(message, id):\n    seen.append((message, id))\n    return seen\n"
        "def fail(message, id):\n    raise ValueError(message)\ndef leave(message, id):\n    raise SystemExit(1)\n"
        "async def later(message, id):\n    pass\nclass Play:\n    @staticmethod\n    def start(message, id):\n        collect(message, id)\n"
    )
    yield name
    sys.path[:] = path
    sys.modules.pop(name, None)


def test_a_function_is_called_with_the_message_and_its_id(plays: str) -> None:
    assert send(CallableTransport(f"{plays}:collect")) == AttemptResult(True, "ok")
    assert send(CallableTransport(f"{plays}:Play.start")) == AttemptResult(True, "ok")
    assert send(CallableTransport(sys.modules[plays].collect)) == AttemptResult(True, "ok")
    assert sys.modules[plays].seen == [({"id": "cus_1"}, "msg_1")] * 3


@pytest.mark.parametrize(("name", "kind"), [("fail", "ValueError"), ("leave", "SystemExit")])
def test_an_exception_is_a_failure_known_by_its_class(plays: str, name: str, kind: str) -> None:
    assert send(CallableTransport(f"{plays}:{name}")) == AttemptResult(False, f"error {kind}")


def test_a_body_that_is_no_json_is_a_failure_of_the_function(plays: str) -> None:
    assert CallableTransport(f"{plays}:collect").send(
        "msg_1", "welcome", b"<p>", {}
    ) == AttemptResult(False, "error JSONDecodeError")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "plays",
        "plays:",
        ":collect",
        "no_such_module:f",
        "{}:no_such",
        "{}:seen",
        "{}:later",
        ".x:y",
    ],
)
def test_what_is_no_function_is_refused(plays: str, name: str) -> None:
    with pytest.raises(UsageError):
        CallableTransport(name.format(plays))


def test_an_installed_module_wins_over_a_file_of_its_name(tmp_path: Path, plays: str) -> None:
    (tmp_path / "colorsys.py").write_text("def rgb_to_hsv(message, id):\n    raise ValueError\n")

    assert send(CallableTransport("colorsys:rgb_to_hsv")).code == "error TypeError"


def test_each_message_is_a_line_that_only_the_owner_may_read(tmp_path: Path) -> None:
    lines = FileTransport("out.jsonl")
    outcomes = [send(lines), lines.send("msg_2", "welcome", b'{\r\n "a": "b\\n"\n}\n', {})]
    lines.close()

    file = tmp_path / "out.jsonl"
    assert outcomes == [AttemptResult(True, "ok")] * 2
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"id": "cus_1"},
        {"a": "b\n"},
    ]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_that_others_could_read_becomes_private_and_keeps_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    file.write_text("{}\n")
    file.chmod(0o644)

    assert send(FileTransport(file)).ok
    assert file.read_bytes() == b"{}\n" + BODY + b"\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_line_that_a_kill_cut_short_is_ended_first(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    file.write_bytes(b'{}\n{"id":"cu')

    assert send(FileTransport(file)).ok
    assert file.read_bytes() == b'{}\n{"id":"cu\n' + BODY + b"\n"


def test_a_message_that_does_not_fit_on_the_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, write = tmp_path / "out.jsonl", os.write
    lines = FileTransport(file)
    send(lines)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda opened, line: write(opened, line[:5]))
        assert send(lines) == AttemptResult(False, "error ENOSPC")

    assert send(lines).ok
    assert file.read_bytes() == (BODY + b"\n") * 2


def test_a_line_is_on_the_disk_before_it_counts_as_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: int) -> None:
        raise OSError(5, "broken disk")

    lines = FileTransport("out.jsonl")
    monkeypatch.setattr(os, "fsync", fails)

    assert send(lines) == AttemptResult(False, "error EIO")


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    lines = FileTransport(file)
    send(lines)
    file.rename(tmp_path / "old.jsonl")

    assert send(lines).ok
    assert file.read_bytes() == BODY + b"\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (
        tmp_path,
        tmp_path / "pipe",
        Path("/dev/null"),
        tmp_path / "missing" / "out.jsonl",
    ):
        with pytest.raises(UsageError, match="Choose another"):
            FileTransport(path)


def test_a_link_is_left_alone(tmp_path: Path) -> None:
    """When it is there at the beginning, and when it comes later."""
    other, file = tmp_path / "other", tmp_path / "out.jsonl"
    other.write_text("mine")
    other.chmod(0o644)
    lines = FileTransport(file)
    file.unlink()
    file.symlink_to(other)

    with pytest.raises(UsageError, match="is a link"):
        FileTransport(file)
    assert send(lines).code == "setup"
    assert (other.read_text(), stat.S_IMODE(other.stat().st_mode)) == ("mine", 0o644)


APPEND = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from stripe_feed.delivery.transports import FileTransport

lines = FileTransport(sys.argv[1])
def one(number):
    body = json.dumps({"id": f"{sys.argv[2]} {number}", "more": "x" * 5_000}).encode()
    return lines.send("m", "t", body, {}).ok

with ThreadPoolExecutor(4) as threads:
    assert all(threads.map(one, range(50)))
"""


def test_threads_and_processes_write_whole_lines_to_one_file(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", APPEND, str(file), name]) for name in "abc"]

    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = [json.loads(line)["id"] for line in file.read_text().splitlines()]
    assert sorted(found) == sorted(f"{name} {number}" for name in "abc" for number in range(50))


def test_the_receiver_remembers_what_came_and_what_it_took() -> None:
    with receiving(ERROR, OK) as receiver:
        webhook = WebhookTransport(receiver.url, allow_private=True)
        turn = threading.Thread(
            target=lambda: [send(webhook, 1), send(webhook, 1), send(webhook, 2)]
        )
        turn.start()
        assert all(receiver.arrived.acquire(timeout=10) for _ in range(3))
        turn.join()
        webhook.close()

    assert [one.message_id for one in receiver.received] == ["msg_1", "msg_1", "msg_2"]
    assert [one.message_id for one in receiver.accepted] == ["msg_1", "msg_2"]
    assert receiver.tries == {"msg_1": 2, "msg_2": 1}
