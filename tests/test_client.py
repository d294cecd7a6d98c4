"""The transport over real HTTP on loopback: errors, retries within bounded time, Stripe's clock,
proxies, certificates, keys.
"""

from __future__ import annotations

import codecs
import inspect
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
import stripe
import stripe.oauth_error
import urllib3

from stripe_feed.api import transport
from stripe_feed.api.account import Account
from stripe_feed.api.client import (
    _MAX_TRIES,
    API_VERSION,
    MAX_TRIES_FOREIGN,
    Api,
    Clock,
    InvalidBody,
    Reply,
)
from stripe_feed.api.credentials import STRIPE_BASE, find_base, find_key, is_live, read_key
from stripe_feed.api.rate_limits import ENDPOINT_RPS, LIVE_RPS, TEST_RPS
from stripe_feed.api.responses import to_error
from stripe_feed.api.transport import CA_VARIABLES
from stripe_feed.errors import (
    CursorGone,
    NoAccess,
    NotFound,
    NotReadable,
    NotSetUp,
    PermissionMissing,
    RateLimited,
    RequestRefused,
    SetupError,
    StripeFeedError,
    TryLater,
    Unreachable,
    UsageError,
    WrongAccount,
)
from tests.scripted import CERTIFICATE, NOW, Answer, Scripted, Seen, scripted

KEY = "rk_test_canary51SecretOfTheKey"
CANARY = "jane.canary@example.com"
PATH = "/v1/customers"
LONGEST_BACK_OFF = 8.0


@dataclass
class Time:
    """A clock that moves only when somebody waits, or when it is told to."""

    now: float = 1_000.0
    waits: list[float] = field(default_factory=list)

    def pass_(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, stopped: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return stopped.is_set()

    def clock(self) -> Clock:
        return Clock(
            time=lambda: NOW + 5_000.0 + self.now, monotonic=lambda: self.now, wait=self.wait
        )


Make = Callable[..., Api]


@pytest.fixture(autouse=True)
def no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted(Answer()) as found:
        yield found


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def make(server: Scripted, time: Time) -> Iterator[Make]:
    made: list[Api] = []

    def make_api(key: str = KEY, **options: Any) -> Api:
        defaults: dict[str, Any] = {"base": server.url, "clock": time.clock(), "threads": 2}
        made.append(Api(key, **defaults | options))
        return made[-1]

    yield make_api
    for api in made:
        api.close()


def text(body: bytes) -> str:
    """Decodes JSON text, strictly."""
    return msgspec.json.decode(body, type=str)


def refusal(status: int, headers: dict[str, str] | None = None, **error: str) -> Answer:
    """An error as Stripe words it, with what must never be quoted in its sentence."""
    body = {"error": {"message": f"Canary {CANARY} {KEY}", "type": "invalid_request_error"} | error}
    return Answer(status, json.dumps(body).encode(), {"Request-Id": "req_1"} | (headers or {}))


FINE = Answer(body=b'"fine"')


def dated(seconds: int) -> Answer:
    """A fine answer whose `Date` is so far from now."""
    return Answer(body=b'"fine"', date=formatdate(NOW + seconds, usegmt=True))


def test_a_request_is_signed_versioned_and_encoded_by_the_sdk(server: Scripted, make: Make) -> None:
    """Nested parameters as Stripe reads them, the pinned version, the key as a bearer, gzip asked
    for, no telemetry.
    """
    server.answers = [FINE]

    reply = make().get(
        PATH, {"limit": 100, "created": {"lt": 5, "gte": 1}, "expand": ["data.tax"]}, text
    )

    (request,) = server.seen
    assert reply.value == "fine"
    assert (
        unquote(request.path) == f"{PATH}?limit=100&created[lt]=5&created[gte]=1&expand[0]=data.tax"
    )
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["stripe-version"] == API_VERSION
    assert request.headers["accept-encoding"] == "gzip"
    assert "x-stripe-client-telemetry" not in request.headers


def test_a_gzipped_answer_is_unpacked(server: Scripted, make: Make) -> None:
    """The decoder sees the JSON."""
    server.answers = [Answer(body=b'"fine"', headers={"Content-Encoding": "gzip"})]

    assert make().get(PATH, {}, text).value == "fine"


def test_a_byte_order_mark_is_no_part_of_an_answer(server: Scripted, make: Make) -> None:
    server.answers = [Answer(body=codecs.BOM_UTF8 + FINE.body)]

    assert make().get(PATH, {}, text).value == "fine"


def test_informational_answers_come_before_the_answer() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
        )
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")
        answer = transport._DeadlineResponse(ours)
        answer.begin()

        assert (answer.status, answer.read()) == (200, b"fine")
        answer.close()


def test_the_decoder_gets_the_original_bytes(server: Scripted, make: Make) -> None:
    """White space, escapes and order are Stripe's: the SDK does not touch an answer."""
    body = b'{ "b": "\\u00e9\\/", "a":1.50 , "b2": 12345678901234567890}'
    server.answers = [Answer(body=body)]

    assert make().get(PATH, {}, bytes).value == body


def test_threads_do_not_mix_up_their_answers(server: Scripted, make: Make) -> None:
    """One client for all threads: each gets the answer to its own request."""
    server.reply = lambda request: Answer(body=json.dumps(request.path).encode())
    api = make(max_rps=10_000, endpoint_rps=10_000, threads=16)
    paths = [f"{PATH}/cus_{n}" for n in range(160)]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda path: api.get(path, {}, text).value, paths))

    assert found == paths
    assert api.requests == 160


def test_requests_are_counted_by_endpoint_and_status(server: Scripted, make: Make) -> None:
    """0 stands for no answer at all."""
    server.answers = [Answer(500), Answer(0), FINE]
    api = make()
    api.get(f"{PATH}/cus_1", {}, text)

    assert api.counts == {(f"{PATH}/:id", 500): 1, (f"{PATH}/:id", 0): 1, (f"{PATH}/:id", 200): 1}
    assert api.requests == 3


@pytest.mark.parametrize(
    ("elapsed", "requested_at"), [(0.0, NOW), (0.1, NOW - 1), (1.0, NOW - 1), (2.4, NOW - 3)]
)
def test_the_time_of_a_reply_is_its_date_minus_its_elapsed_time(
    server: Scripted, make: Make, time: Time, elapsed: float, requested_at: int
) -> None:
    """Rounded down: rows read then are never called fresher than they are."""
    server.answers = [Answer(body=b'"fine"', meanwhile=lambda: time.pass_(elapsed))]

    assert make().get(PATH, {}, text) == Reply("fine", requested_at)


def test_only_the_last_try_counts_for_the_time_of_a_reply(
    server: Scripted, make: Make, time: Time
) -> None:
    """Waits and failed tries before it are not part of the request."""
    server.answers = [Answer(500, meanwhile=lambda: time.pass_(60)), FINE]

    assert make().get(PATH, {}, text).requested_at == NOW


def test_now_is_stripes_clock_and_moves_on(server: Scripted, make: Make, time: Time) -> None:
    """The local clock, here 5,000 seconds ahead, has no say; the newest answer has."""
    server.answers = [FINE, dated(50)]
    api = make()
    api.get(PATH, {}, text)
    time.pass_(7.5)
    before = api.now()
    api.get(PATH, {}, text)

    assert (before, api.now()) == (NOW + 7, NOW + 50)


HOURS = 7_200


@pytest.mark.parametrize(
    ("dates", "now"),
    [
        ([0, 0, HOURS], 0),
        ([0, 0, -HOURS], 0),
        ([HOURS, 0, 0], 0),
        ([-HOURS, 0, 0], 0),
        ([0, HOURS, 0, -HOURS, 0], 0),
        ([HOURS, 0], 0),
        ([0, HOURS], 0),
        ([HOURS, HOURS], HOURS),
        ([0, 0, HOURS, HOURS], HOURS),
    ],
)
def test_one_answer_with_another_time_has_no_say(
    server: Scripted, make: Make, dates: list[int], now: int
) -> None:
    """One server's clock is wrong, or a cache repeats itself: two answers in a row must agree; at
    first, the earlier one counts.
    """
    server.answers = [dated(seconds) for seconds in dates]
    api = make(endpoint_rps=1000, max_rps=1000)
    requested_at = [api.get(PATH, {}, text).requested_at for _ in dates]

    assert api.now() == NOW + now
    assert requested_at[-1] <= NOW + now


def test_the_age_of_an_answer_out_of_a_cache_counts(server: Scripted, make: Make) -> None:
    """What it holds is as old as its `Date`, the time is not."""
    server.answers = [Answer(body=b'"fine"', headers={"Age": "5000"})]
    api = make()

    assert api.get(PATH, {}, text).requested_at == NOW
    assert api.now() == NOW + 5_000
    api.advance_clock(NOW + 5_000)
    assert api.get(PATH, {}, text).requested_at == NOW
    assert server.seen[0].headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("date", ["Mon, 01 Jan 2001 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_date_before_something_happened_is_wrong(
    server: Scripted, make: Make, caplog: pytest.LogCaptureFixture, date: str
) -> None:
    """Nothing happens at Stripe before the account exists. The local clock counts, and it is said
    once.
    """
    server.answers = [Answer(body=b'{"id": "acct_1", "created": 1600000000}', date=date)]
    api = make()
    api.account()
    api.account()

    assert api.now() == NOW + 6_000
    assert [record.message for record in caplog.records] == [
        "Stripe's answers have no usable `Date` (does a proxy change it?): using this machine's clock instead."
    ]


def test_a_date_without_a_zone_is_utc(
    server: Scripted, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever this machine's zone is."""
    server.answers = [Answer(body=b'"fine"', date="Thu, 28 May 2026 20:26:40 -0000")]

    assert make().get(PATH, {}, text).requested_at == NOW


def test_now_asks_for_the_account_when_nothing_was_asked_yet(server: Scripted, make: Make) -> None:
    """One request; refused or not, its answer has a date."""
    server.answers = [Answer(body=b'{"id": "acct_1"}')]

    assert make().now() == NOW
    assert [request.path for request in server.seen] == ["/v1/account"]


def test_skew_is_how_far_the_local_clock_is_ahead(server: Scripted, make: Make) -> None:
    """What doctor shows."""
    server.answers = [FINE]
    api = make()
    api.get(PATH, {}, text)

    assert api.skew() == 5_000.0 + 1_000.0


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_without_a_usable_date_the_last_one_counts_on(
    server: Scripted, make: Make, time: Time, date: str | None
) -> None:
    """A proxy may drop the header or break it."""
    server.answers = [FINE, Answer(body=b'"fine"', date=date)]
    api = make()
    api.get(PATH, {}, text)
    time.pass_(30)

    assert api.get(PATH, {}, text).requested_at == NOW + 30


@pytest.mark.parametrize(
    "date", [None, "2026-11-29T20:00:00Z", "Mon, 99 Foo 99999 99:99:99 GMT", ""]
)
def test_without_any_date_the_local_clock_counts(
    server: Scripted, make: Make, time: Time, caplog: pytest.LogCaptureFixture, date: str | None
) -> None:
    """For what is read and for what time it is; said once."""
    server.answers = [Answer(body=b'"fine"', date=date)]
    api = make()

    assert api.get(PATH, {}, text).requested_at == NOW + 5_000 + 1_000
    time.pass_(30)
    assert api.now() == NOW + 5_000 + 1_030
    assert (api.skew(), api.has_date) == (0, False)
    assert [record.message[:35] for record in caplog.records] == [
        "Stripe's answers have no usable `Da"
    ]


PASSING = {
    "500": Answer(500),
    "502, not Stripe's": Answer(502, b"<html>Bad Gateway"),
    "503": refusal(503, type="api_error"),
    "408, not Stripe's": Answer(408, b"<html>Request Timeout"),
    "424": refusal(424, type="api_error"),
    "425": Answer(425, b""),
    "409": refusal(409, type="api_error"),
    "504": Answer(504, b""),
    "dropped": Answer(0),
    "cut in the middle": Answer(body=b'"fine"', sends=3),
    "cut before the body": Answer(body=b'"fine"', sends=0),
    "cut JSON": Answer(body=b'"fin'),
    "no JSON": Answer(body=b"OK"),
    "empty": Answer(body=b""),
    "no UTF-8": Answer(body=b'"\xff"'),
    "204": Answer(204, b""),
    "broken gzip": Answer(body=b"x", headers={"Content-Encoding": "deflate"}),
    "lock": refusal(429, code="lock_timeout"),
    "429": refusal(429, code="rate_limit"),
    "429, not Stripe's": Answer(429, b"slow down"),
    "400 of old": refusal(400, code="rate_limit"),
}
each_passing = pytest.mark.parametrize("fault", PASSING.values(), ids=list(PASSING))


@each_passing
def test_a_passing_fault_is_asked_again(server: Scripted, make: Make, fault: Answer) -> None:
    """Twice the fault, then the answer: the caller sees the answer only."""
    server.answers = [fault, fault, FINE]

    assert make().get(PATH, {}, text).value == "fine"
    assert len(server.seen) == 3


def test_a_refusal_that_says_so_is_asked_again(server: Scripted, make: Make) -> None:
    server.answers = [refusal(400, {"Stripe-Should-Retry": "true"}), FINE]

    assert make().get(PATH, {}, text).value == "fine"


@each_passing
def test_a_fault_that_stays_ends_in_try_later(
    server: Scripted, make: Make, time: Time, fault: Answer
) -> None:
    """Within the time allowed, with an exit code of its own and a sentence without Stripe's words."""
    server.answers = [fault]
    api = make(give_up_after=60, endpoint_rps=4)

    with pytest.raises(TryLater) as refused:
        api.get(PATH, {}, text)

    assert refused.value.exit_code == 5
    assert re.search(rf"^{PATH}: .*[Rr]un again", str(refused.value))
    assert time.now - 1_000 <= 60 + LONGEST_BACK_OFF
    assert isinstance(refused.value, RateLimited) or len(server.seen) <= _MAX_TRIES
    assert "canary" not in str(refused.value).lower()
    assert refused.value.__context__ is None or refused.value.__suppress_context__


def test_what_is_not_stripe_is_reported_at_once(server: Scripted, make: Make) -> None:
    """A login page of the network, or another API: three tries, then what to look at. Where Stripe
    was met before, it may pass.
    """
    page, other = b"<html>Log in, " + CANARY.encode(), b'{"error": {"message": "Canary"}}'
    for body, what in (
        (page, "a web page"),
        (b"\n " + page, "a web page"),
        (b"{}", "JSON"),
        (b"[]", "JSON"),
        (other, "JSON"),
    ):
        server.seen.clear()
        server.answers = [Answer(body=body)]
        api = make()

        with pytest.raises(
            SetupError,
            match=rf"^{PATH}: 127\.0\.0\.1 answers with {what}.* Check the proxy, .*STRIPE_API_BASE",
        ) as told:
            api.get(PATH, {}, text)
        assert len(server.seen) == MAX_TRIES_FOREIGN
        assert "canary" not in str(told.value).lower()

        server.answers = [FINE, Answer(body=body)]
        api.get(PATH, {}, text)
        with pytest.raises(Unreachable, match="keeps sending broken answers"):
            api.get(PATH, {}, text)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(301, b"", {"Location": "https://login.example/"}),
        Answer(302, b"<html>"),
        Answer(307, b""),
        Answer(401, b"<html>"),
        Answer(404, b'{"message": "no route"}'),
        Answer(404, b'{"error": "not found"}'),
        Answer(400, b'{"error": null}'),
        Answer(403, b'{"error": {"message": 5}}'),
        Answer(400, b'{"error": []}'),
        Answer(511, b"<html>"),
        Answer(404, b"\xff"),
    ],
)
def test_a_refusal_that_is_not_stripes(server: Scripted, make: Make, answer: Answer) -> None:
    """A redirection is not followed: the key would go along."""
    server.answers = [answer]

    with pytest.raises(
        SetupError,
        match=rf"a proxy answered {answer.status} instead of Stripe\. Check the proxy, .* and STRIPE_API_BASE",
    ):
        make().get(PATH, {}, text)
    assert len(server.seen) == 1


def limit_of(request: Seen) -> int:
    return int(request.path.partition("limit=")[2])


@pytest.mark.parametrize("too_big", ["cut", "dropped", 413, 504])
def test_pages_that_do_not_arrive_whole_are_made_smaller(
    server: Scripted, make: Make, caplog: pytest.LogCaptureFixture, too_big: str | int
) -> None:
    """By half, until they do; later pages of that list begin there. It is said once, whatever else
    is cut.
    """
    fates = {"cut": Answer(body=b'{"data": [1, 2,'), "dropped": Answer(body=b'"fine"', sends=3)}

    def answer(request: Seen) -> Answer:
        if limit_of(request) <= 30:
            return FINE
        return fates[too_big] if isinstance(too_big, str) else Answer(too_big, b"<html>")

    server.reply = answer
    api = make(endpoint_rps=1000, max_rps=1000)
    found = [api.get(path, {"limit": 100}, text).value for path in (PATH, PATH, "/v1/events")]

    tries = 1 if too_big == 413 else 2
    first = [limit_of(request) for request in server.seen if request.path.startswith(PATH)]
    assert found == ["fine"] * 3
    assert first == [100] * tries + [50] * tries + [25, 25]
    assert [record.message for record in caplog.records] == [
        f"{PATH}: large pages arrive truncated, so smaller ones are requested (limit 25)."
    ]


def test_pages_that_are_never_whole_end(server: Scripted, make: Make) -> None:
    """Down to one object."""
    server.answers = [Answer(body=b'{"data": [')]

    with pytest.raises(TryLater, match="keeps sending broken answers"):
        make(endpoint_rps=1000, max_rps=1000).get(PATH, {"limit": 100}, text)
    assert [limit_of(request) for request in server.seen][:13:2] == [100, 50, 25, 12, 6, 3, 1]
    assert len(server.seen) == 12 + _MAX_TRIES


def drip(server: socket.socket, head: bytes, stop: threading.Event) -> None:
    """Answers one connection after the other with a head at once, and then a byte now and then, for
    ever.
    """
    while not stop.is_set():
        with suppress(OSError):
            connection, _ = server.accept()
            with connection:
                connection.sendall(head)
                while not stop.wait(0.05):
                    connection.sendall(b"a")


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_an_answer_that_drips_in_ends_in_time(monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    """Each byte would begin a socket's own time-out anew, in the head as in the body."""
    monkeypatch.setattr(transport, "MIN_TIMEOUT", 0.2)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server, head, stop))
        thread.start()
        try:
            with pytest.raises(
                Unreachable, match=r"cannot reach 127\.0\.0\.1 \(ReadTimeoutError\)"
            ):
                ask(f"http://127.0.0.1:{server.getsockname()[1]}")
        finally:
            stop.set()
            with suppress(OSError):
                socket.create_connection(server.getsockname()).close()
            thread.join()


def test_a_request_that_was_too_fast_has_not_failed(server: Scripted, make: Make) -> None:
    """However often it was limited before, an error is asked again."""
    server.answers = [*[refusal(429, code="rate_limit")] * (_MAX_TRIES + 1), Answer(500), FINE]

    assert make().get(PATH, {}, text).value == "fine"
    assert len(server.seen) == _MAX_TRIES + 3


def test_a_malformed_answer_is_what_the_decoder_says_it_is(server: Scripted, make: Make) -> None:
    """Also JSON that is no answer of Stripe's: a page of a proxy, an object without an id."""
    server.answers = [FINE]
    tries = iter([InvalidBody("no list"), None])

    def decode(body: bytes) -> str:
        if fault := next(tries):
            raise fault
        return text(body)

    assert make().get(PATH, {}, decode).value == "fine"
    assert len(server.seen) == 2


def test_the_pause_between_tries_grows_and_is_jittered(
    server: Scripted, make: Make, time: Time
) -> None:
    """From a quarter of a second, doubling, up to eight; each at random between half and all of it."""
    server.answers = [Answer(500)]
    with pytest.raises(Unreachable, match="keeps answering 500"):
        make(endpoint_rps=1000, max_rps=1000).get(PATH, {}, text)

    full = [0.25, 0.5, 1, 2, 4, 8, 8, 8]
    assert len(time.waits) == len(full) == _MAX_TRIES - 1
    assert all(most / 2 <= wait <= most for wait, most in zip(time.waits, full, strict=True))
    assert any(wait not in (most / 2, most) for wait, most in zip(time.waits, full, strict=True))


def test_slow_faults_end_within_the_time_allowed(server: Scripted, make: Make, time: Time) -> None:
    """The time of the requests themselves counts: no further try begins after `give_up_after`."""
    server.answers = [Answer(500, meanwhile=lambda: time.pass_(50))]

    with pytest.raises(Unreachable):
        make(give_up_after=120).get(PATH, {}, text)

    assert len(server.seen) == 3


def test_a_permanent_429_ends_within_the_time_allowed(
    server: Scripted, make: Make, time: Time
) -> None:
    """The bucket is the wait: requests get slower instead of sleeping longer and longer."""
    server.answers = [
        refusal(429, {"Stripe-Rate-Limited-Reason": "endpoint-rate"}, code="rate_limit")
    ]
    with pytest.raises(RateLimited, match=r"/v1/customers: .*429.*--max-rps"):
        make(give_up_after=30, endpoint_rps=20).get(PATH, {}, text)

    assert 30 <= time.now - 1_000 <= 33
    assert max(time.waits) == pytest.approx(2.0)
    assert len(server.seen) < 60


def test_no_room_in_the_budget_ends_within_the_time_allowed(make: Make, time: Time) -> None:
    """Others take every token: the wait for one is bounded as well."""
    api = make(give_up_after=10, endpoint_rps=0.1)
    for _ in range(5):
        api.take_token(PATH)

    with pytest.raises(RateLimited, match="no room in the rate budget"):
        api.get(PATH, {}, text)
    assert time.now - 1_000 == 10


def test_an_api_that_is_closed_stops_waiting(server: Scripted, make: Make, time: Time) -> None:
    """Ctrl-C must not hang in a pause."""
    api = make()
    server.answers = [Answer(500, meanwhile=api.stopped.set)]

    with pytest.raises(TryLater):
        api.get(PATH, {}, text)
    assert len(server.seen) == 1

    for _ in range(3):
        api.take_token(PATH)
    with pytest.raises(Unreachable, match="stopped"):
        api.get(PATH, {}, text)


def test_an_unreachable_host_is_named_with_the_kind_of_fault(make: Make) -> None:
    """Nothing listens there. The class of the fault is told, not its text: that can hold a URL with
    parameters.
    """
    with scripted() as gone:
        pass

    with pytest.raises(
        Unreachable,
        match=r"cannot reach 127\.0\.0\.1 \(NewConnectionError\)\. Check the network, proxy",
    ):
        make(base=gone.url).get(PATH, {"email": CANARY}, text)


@pytest.mark.parametrize(
    ("reason", "slower"),
    [
        ("global-rate", "account"),
        ("endpoint-rate", PATH),
        ("", PATH),
        ("global-concurrency", "ceiling"),
    ],
)
def test_a_429_teaches_what_its_reason_names(
    server: Scripted, make: Make, reason: str, slower: str
) -> None:
    """The header `Stripe-Rate-Limited-Reason` says whose limit it was."""
    headers = {"Stripe-Rate-Limited-Reason": reason} if reason else {}
    server.answers = [refusal(429, headers, code="rate_limit"), FINE]
    api = make(threads=8)
    api.get(PATH, {}, text)

    budget = api._limiter
    rates = {"account": budget.account, **budget.endpoints}
    found = [name for name, bucket in rates.items() if bucket.rate < bucket.max_rate]
    assert found + (["ceiling"] if api.in_flight_ceiling == 7 else []) == [slower]


def test_a_lock_timeout_is_no_rate_limit(server: Scripted, make: Make, time: Time) -> None:
    """An object was busy: pause and ask again, at the same rate."""
    server.answers = [refusal(429, code="lock_timeout"), FINE]
    api = make()
    api.get(PATH, {}, text)

    assert all(
        bucket.rate == bucket.max_rate
        for bucket in (api._limiter.account, *api._limiter.endpoints.values())
    )
    assert 0.125 <= time.waits[0] <= 0.25


def test_requests_are_paced(server: Scripted, make: Make, time: Time) -> None:
    """A hundred requests at ten a second take ten seconds, less the first burst."""
    server.answers = [FINE]
    api = make(endpoint_rps=10)
    for _ in range(100):
        api.get(PATH, {}, text)

    assert time.now - 1_000 == pytest.approx((100 - 2) / 9.9)


def test_a_request_that_was_paid_takes_no_token_but_its_repetitions_do(
    server: Scripted, make: Make, time: Time
) -> None:
    """The scheduler pays before it hands out a job."""
    server.answers = [FINE]
    api = make(endpoint_rps=10)
    assert [api.take_token(PATH) for _ in range(2)] == [0.0, 0.0]
    assert api.take_token(PATH) == pytest.approx(1 / 9.9)

    api.get(PATH, {}, text, token_taken=True)
    assert time.waits == []

    server.answers = [Answer(body=b"<html>"), FINE]
    api.get(PATH, {}, text, token_taken=True)
    assert len(time.waits) in (1, 2)  # the pause, and what of the token's time is left after it
    assert time.now - 1_000 >= 1 / 9.9


@pytest.mark.parametrize(("key", "rps"), [("sk_test_1", TEST_RPS), ("rk_live_1", LIVE_RPS)])
def test_the_default_budget_is_four_fifths_of_the_documented_limits(
    make: Make, key: str, rps: float
) -> None:
    """100 a second live, 25 in a sandbox, 25 for an endpoint: the account's own traffic shares
    them.
    """
    api = make(key, allow_api_base=True)
    api.take_token(PATH)

    assert api._limiter.account.max_rate == pytest.approx(0.99 * rps)
    assert api._limiter.endpoints[PATH].max_rate == pytest.approx(0.99 * ENDPOINT_RPS)
    assert (LIVE_RPS, TEST_RPS, ENDPOINT_RPS) == (80, 20, 20)


@pytest.mark.parametrize("limits", [{"max_rps": 0}, {"endpoint_rps": 0}, {"max_rps": -1}])
def test_a_budget_of_nothing_is_refused(make: Make, limits: dict[str, float]) -> None:
    """It is neither "no limit" nor "never"."""
    with pytest.raises(UsageError, match="more than 0"):
        make(**limits)


STAYING: dict[str, tuple[Answer, type[StripeFeedError], str]] = {
    "401": (refusal(401), SetupError, r"key is not valid \(401, request req_1\)"),
    "401 expired": (
        refusal(401, code="api_key_expired", message="Expired API Key provided: x"),
        SetupError,
        "key is expired",
    ),
    "403": (
        refusal(
            403,
            message="Key 'rk_test_***' may not on account 'acct_1'. Having the 'rak_customer_read' permission would",
        ),
        PermissionMissing,
        "/v1/customers/:id: .* Add the permission rak_customer_read at https",
    ),
    "403 in words of 2026": (
        refusal(
            403,
            message='Permission denied on account `acct_1`. Enabling "Prices Read" (`plan_read`) permissions would help',
        ),
        PermissionMissing,
        "Add the permission plan_read at https",
    ),
    "401 of a live key": (
        refusal(
            401,
            message="Key 'rk_live_***' may not on account 'acct_1'. Having the 'rak_plan_read' permission would",
        ),
        PermissionMissing,
        r"this key may not read it \(401, request req_1\)\. Add the permission rak_plan_read at https",
    ),
    "401 of an address": (
        refusal(401, message="The API key provided does not allow requests from your IP address."),
        SetupError,
        r"from this machine's IP address \(401, request req_1\)\. Allow the address for the key at https",
    ),
    "403 of another account": (
        refusal(
            403, code="account_invalid", message="The key does not have access to account 'acct_1'"
        ),
        NoAccess,
        "no access to the account",
    ),
    "400 of a version": (
        refusal(
            400,
            message="Invalid Stripe API version: 2026-99-99.x. You can view your versions at ...",
        ),
        UsageError,
        "does not know this API version .* Leave out --api-version",
    ),
    "404 of a list below": (
        refusal(
            404,
            message="Unrecognized request URL (GET: /v1/customers/x). Please see https://stripe.com/docs",
        ),
        NotSetUp,
        "no such list at this address",
    ),
    "403 of another kind": (
        refusal(403),
        PermissionMissing,
        "Check the key's permissions at https",
    ),
    "404": (refusal(404, code="resource_missing", param="id"), NotFound, "no such object"),
    "400 of a cursor": (
        refusal(400, code="resource_missing", param="starting_after"),
        CursorGone,
        "param starting_after",
    ),
    "400 of a cursor back": (
        refusal(400, code="resource_missing", param="ending_before"),
        CursorGone,
        "param ending_before",
    ),
    "400 of a parent": (
        refusal(400, code="resource_missing", param="subscription"),
        NotFound,
        "no such object",
    ),
    "400": (
        refusal(400, code="parameter_unknown", param="colour"),
        RequestRefused,
        r"refuses the request \(400, parameter_unknown, param colour, request req_1\)\. https://dashboard.stripe.com/logs shows",
    ),
    "402": (refusal(402, type="card_error"), RequestRefused, r"\(402, no code"),
    "405": (refusal(405), RequestRefused, r"\(405"),
    "403 of a firewall": (
        Answer(403, b"<html>Blocked"),
        SetupError,
        "a proxy answered 403 instead of Stripe. Check the proxy",
    ),
    "407 of a proxy": (Answer(407, b""), SetupError, "a proxy answered 407 instead of Stripe"),
}


@pytest.mark.parametrize(("answer", "error", "says"), STAYING.values(), ids=list(STAYING))
def test_an_error_that_stays_is_raised_at_once(
    server: Scripted, make: Make, answer: Answer, error: type[StripeFeedError], says: str
) -> None:
    """One request; our class, our sentence with the endpoint or the key as its subject, nothing
    that Stripe's sentence holds.
    """
    server.answers = [answer]

    with pytest.raises(error, match=says) as refused:
        make().get(f"{PATH}/cus_1", {}, text)

    assert type(refused.value) is error
    assert len(server.seen) == 1
    assert "canary" not in str(refused.value).lower()
    assert refused.value.__suppress_context__


def test_a_refusal_carries_stripes_code_and_parameter(server: Scripted, make: Make) -> None:
    """Callers decide by them."""
    server.answers = [refusal(400, code="parameter_unknown", param="colour")]

    with pytest.raises(RequestRefused) as refused:
        make().get(f"{PATH}/cus_1", {}, text)
    assert (refused.value.code, refused.value.param) == ("parameter_unknown", "colour")


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (
            refusal(400, message="Your account is not set up to use Issuing."),
            NotSetUp,
            "the account is not set up for it .400, no code",
        ),
        (
            refusal(404, message="Unrecognized request URL (GET: /v1/customers)."),
            NotSetUp,
            "no such list at this address .404",
        ),
        (
            refusal(404, code="resource_missing", param="id"),
            NotReadable,
            "Stripe refuses the list .404, resource_missing, param id",
        ),
        (
            refusal(400, code="parameter_unknown", param="colour"),
            NotReadable,
            "Stripe refuses the list .400, parameter_unknown, param colour",
        ),
        (refusal(402), NotReadable, "Stripe refuses the list .402"),
        (refusal(405), NotReadable, "Stripe refuses the list .405"),
    ],
)
def test_a_list_that_is_refused_says_why(
    server: Scripted, make: Make, answer: Answer, kind: type[NotReadable], says: str
) -> None:
    """It is left out; the others are read."""
    server.answers = [answer]

    with pytest.raises(NotReadable, match=rf"^{PATH}: .*{says}.*[Ll]eave it out") as refused:
        make().get(PATH, {}, text)
    assert type(refused.value) is kind
    assert "canary" not in str(refused.value).lower()


def test_what_an_answer_names_is_shown_only_if_it_is_a_name(server: Scripted, make: Make) -> None:
    """Whoever sent it."""
    server.answers = [
        refusal(400, {"Request-Id": f"req {CANARY}"}, code=f"no {CANARY}", param=CANARY)
    ]

    with pytest.raises(NotReadable, match="400, no code, param None, no request id"):
        make().get(PATH, {}, text)


def test_a_missing_permission_carries_its_name_and_the_account(
    server: Scripted, make: Make
) -> None:
    """Read from Stripe's sentence, which says both."""
    server.answers = [STAYING["403"][0]]

    with pytest.raises(PermissionMissing) as refused:
        make().get(PATH, {}, text)
    assert (refused.value.permission, refused.value.account_id) == ("rak_customer_read", "acct_1")


REFUSED = (RequestRefused, 400)
SDK_ERRORS: dict[str, tuple[type[StripeFeedError], int | None]] = {
    "StripeError": (Unreachable, None),
    "APIError": (Unreachable, 500),
    "APIConnectionError": (Unreachable, None),
    "StripeErrorWithParamCode": REFUSED,
    "CardError": (RequestRefused, 402),
    "IdempotencyError": REFUSED,
    "InvalidRequestError": REFUSED,
    "AuthenticationError": (SetupError, 401),
    "PermissionError": (PermissionMissing, 403),
    "RateLimitError": (RateLimited, 429),
    "SignatureVerificationError": (Unreachable, None),
    "AlreadyCanceledError": REFUSED,
    "BlockedByStripeError": REFUSED,
    "CannotProceedError": REFUSED,
    "CapabilityNotEnabledError": REFUSED,
    "ControlledByAlternateResourceError": REFUSED,
    "FeatureNotEnabledError": REFUSED,
    "FinancialAccountNotOpenError": REFUSED,
    "FxQuoteNeedsRefreshError": REFUSED,
    "InsufficientFundsError": REFUSED,
    "InvalidPaymentMethodError": REFUSED,
    "InvalidPayoutMethodError": REFUSED,
    "InvalidVaultedCredentialError": REFUSED,
    "NotCancelableError": REFUSED,
    "QuotaExceededError": REFUSED,
    "RecipientNotNotifiableError": REFUSED,
    "TemporarySessionExpiredError": REFUSED,
    "VerificationAttemptFailedError": REFUSED,
    "VerificationExpiredError": REFUSED,
    "VerificationNotInitiatedError": REFUSED,
    "OAuthError": REFUSED,
    "InvalidClientError": (SetupError, 401),
    "InvalidGrantError": REFUSED,
    "InvalidScopeError": REFUSED,
    "UnsupportedGrantTypeError": REFUSED,
    "UnsupportedResponseTypeError": REFUSED,
}
"""Every error class of the pinned SDK: what it means to us, and the status that it comes with
(none: no answer at all).
"""


def sdk_errors(
    base: type[stripe.StripeError] = stripe.StripeError,
) -> Iterator[type[stripe.StripeError]]:
    yield base
    for error in base.__subclasses__():
        yield from sdk_errors(error)


def test_every_error_class_of_the_sdk_is_known() -> None:
    """A class that an SDK release adds or drops shows here: decide what the user should do about
    it.
    """
    assert {error.__name__ for error in sdk_errors()} == set(SDK_ERRORS)


@pytest.mark.parametrize(
    "error", list(sdk_errors()), ids=lambda error: f"{error.__module__}.{error.__name__}"
)
def test_every_error_class_of_the_sdk_is_mapped(error: type[stripe.StripeError]) -> None:
    """One of ours, by what the user should do."""
    ours, status = SDK_ERRORS[error.__name__]
    fault = _made(error, status)

    assert type(to_error(fault, f"{PATH}/:id")) is ours


def _made(error: type[stripe.StripeError], status: int | None) -> stripe.StripeError:
    body = {"error": {"message": CANARY, "type": "api_error"}}
    given: dict[str, Any] = {
        "http_status": status,
        "json_body": body,
        "message": CANARY,
        "headers": {},
    }
    needed = {
        name: given.get(name)
        for name, parameter in inspect.signature(error).parameters.items()
        if name in given
        or (
            parameter.default is inspect.Parameter.empty
            and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        )
    }
    return error(**needed)


def test_the_account_is_asked_for(server: Scripted, make: Make) -> None:
    """Its id, its mode by the key, and when it was made: the history begins there."""
    server.answers = [
        Answer(body=b'{"id": "acct_1", "created": 1600000000, "email": "x@example.com"}')
    ]

    assert make().account() == Account("acct_1", False, 1_600_000_000)


def test_a_403_on_the_account_teaches_its_id(server: Scripted, make: Make) -> None:
    """A restricted key without that permission works all the same; when the account was made stays
    unknown.
    """
    server.answers = [STAYING["403"][0]]
    api = make()

    assert api.account() == Account("acct_1", False, 0)
    assert api.now() == NOW
    assert len(server.seen) == 1


def test_an_answer_for_another_account_is_refused(server: Scripted, make: Make) -> None:
    """A proxy may drop the header that names the account: Stripe then answers for the platform."""
    server.answers = [Answer(body=b'{"id": "acct_0"}'), STAYING["403"][0]]
    api = make(account="acct_2")

    for answered in ("acct_0", "acct_1"):
        with pytest.raises(
            WrongAccount, match=f"{answered} in the place of acct_2.*Stripe-Account"
        ):
            api.account()


def test_a_403_that_does_not_name_the_account_is_raised(server: Scripted, make: Make) -> None:
    """Without an id, rows could not be told from another account's."""
    server.answers = [refusal(403)]

    with pytest.raises(PermissionMissing):
        make().account()


@pytest.mark.parametrize("body", [b'{"id": "acct_1", "created": null}', b'{"id": "acct_1"}'])
def test_an_account_without_a_date_is_fine(server: Scripted, make: Make, body: bytes) -> None:
    """Connected accounts may show none."""
    server.answers = [Answer(body=body)]

    assert make().account().created == 0


@pytest.mark.parametrize(
    "key",
    [
        "sk_test_1",
        "sk_live_1",
        "rk_test_1",
        "rk_live_1",
        " rk_test_1\n",
        "sk_1",
        '"rk_test_1"',
        "'sk_test_1'\r\n",
        "\ufeffrk_test_1",
    ],
)
def test_keys_that_can_read(key: str) -> None:
    """Secret and restricted ones; what copying brings along is no part of them."""
    assert find_key(key) == key.strip(" \r\n'\"\ufeff")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"rk_test_1\n", ""),
        (b"\xef\xbb\xbfrk_test_1\r\n", ""),
        ("rk_test_1\n".encode("utf-16"), ""),
        (b'"rk_test_1"', ""),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"rk_test_1" * 1000, "is too large"),
        (b"\x80\x81", "UnicodeDecodeError"),
        (None, "IsADirectoryError"),
    ],
)
def test_the_key_in_a_file(tmp_path: Path, content: bytes | None, says: str) -> None:
    """As editors and shells write it."""
    file = tmp_path / "key"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    if not says:
        assert read_key(str(file)) == "rk_test_1"
        return
    with pytest.raises(SetupError, match=says):
        read_key(str(file))


@pytest.mark.parametrize("name", ["missing", "a\0b", "x" * 5000])
def test_a_key_file_that_is_none(name: str) -> None:
    with pytest.raises(SetupError, match=r"^The key file .* cannot be read"):
        read_key(name)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", "No Stripe key. Set STRIPE_SECRET_KEY"),
        ("  ", "No Stripe key"),
        ("pk_test_1", "publishable key"),
        ("pk_live_1", "publishable key"),
        ("sk_org_live_1", "Organization keys"),
        ("whsec_1", "signing secret"),
        ("ek_test_1", "ephemeral key"),
        ("sk_test_" + "a" * 300, "not a Stripe key"),
        ("acct_1", "not a Stripe key"),
        ("sk_test_a b", "not a Stripe key"),
        ("sk_test_a\nb", "not a Stripe key"),
        ("sk_test_a\0b", "not a Stripe key"),
        ("sk_test_\x1b[1m", "not a Stripe key"),
        ("sk_test_é", "not a Stripe key"),
    ],
)
def test_keys_that_cannot_read(monkeypatch: pytest.MonkeyPatch, key: str, says: str) -> None:
    """Refused before any request, with the fix; the key itself is not repeated."""
    monkeypatch.delenv("STRIPE_SECRET_KEY", raising=False)

    with pytest.raises(SetupError, match=says) as refused:
        find_key(key)
    assert len(key.strip()) < 7 or key not in str(refused.value)


def test_the_key_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`STRIPE_SECRET_KEY` is for when none is given."""
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_test_environment")

    assert (find_key("sk_test_given"), find_key(None)) == ("sk_test_given", "sk_test_environment")


@pytest.mark.parametrize(
    ("key", "live"),
    [("sk_live_1", True), ("rk_live_1", True), ("sk_test_live_1", False), ("rk_test_1", False)],
)
def test_the_mode_follows_from_the_prefix(key: str, live: bool) -> None:
    """Whatever the rest of the key looks like."""
    assert is_live(key) is live


def test_the_base_is_the_one_given_then_the_environments_then_stripes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a slash at its end."""
    monkeypatch.delenv("STRIPE_API_BASE", raising=False)
    assert find_base(None, KEY) == STRIPE_BASE
    monkeypatch.setenv("STRIPE_API_BASE", "http://127.0.0.1:1/")
    assert find_base(None, KEY) == "http://127.0.0.1:1"
    assert find_base("https://example.com/", KEY) == "https://example.com"


@pytest.mark.parametrize(
    ("base", "found"),
    [
        (" https://api.stripe.com/v1/ ", STRIPE_BASE),
        ('"https://api.stripe.com"', STRIPE_BASE),
        ("https://API.Stripe.com", STRIPE_BASE),
        ("HTTPS://api.stripe.com//", STRIPE_BASE),
        ("http://[::1]:12111/", "http://[::1]:12111"),
        ("https://gateway.example/Stripe/", "https://gateway.example/Stripe"),
        ("https://gateway.example/x/v1", "https://gateway.example/x"),
    ],
)
def test_a_base_as_people_write_it(base: str, found: str) -> None:
    """With a slash, with the version, in capitals, below a path."""
    assert find_base(base, KEY) == found
    if found == STRIPE_BASE:
        assert find_base(base, "sk_live_1") == found


def test_a_base_with_a_password_is_refused() -> None:
    """It would be shown with the base; Stripe has no use for it."""
    with pytest.raises(SetupError, match="holds a user or a password") as refused:
        find_base(f"https://jane:{CANARY}@example.com", KEY)
    assert "canary" not in str(refused.value)


def test_a_base_below_a_path_is_asked_below_it(server: Scripted, make: Make) -> None:
    """As a gateway has it."""
    server.answers = [FINE]
    make(base=f"{server.url}/stripe").get(PATH, {}, text)

    assert server.seen[0].path == f"/stripe{PATH}"


@pytest.mark.parametrize(
    "base",
    [
        "api.stripe.com",
        "ftp://api.stripe.com",
        "http://",
        "http://[",
        "127.0.0.1:12111",
        "http://127.0.0.1:x",
        "http://a:99999",
        "https://a b",
        "https://a?x=1",
        "https://a#b",
        "https://.",
        "https://" + "a" * 70 + ".example",
        "https:\\\\a",
        "v1",
        "/",
    ],
)
def test_a_base_that_is_no_url_is_refused(base: str) -> None:
    """Before any request."""
    with pytest.raises(SetupError, match="STRIPE_API_BASE is not a URL"):
        find_base(base, KEY)


@pytest.mark.parametrize(
    "base",
    [
        "http://127.0.0.1:12111",
        "http://api.stripe.com",
        "https://api.stripe.com.example.com",
        "https://api.stripe.com:444",
    ],
)
def test_a_live_key_goes_to_stripe_only(base: str) -> None:
    """Anything else, plain HTTP included, needs a word of its own. A test key goes anywhere."""
    with pytest.raises(
        SetupError, match=r"live key would be sent to .* --allow-api-base"
    ) as refused:
        find_base(base, "sk_live_1")
    assert "sk_live_1" not in str(refused.value)

    assert find_base(base, "sk_live_1", allow=True) == base
    assert find_base(base, "sk_test_1") == base
    assert find_base(STRIPE_BASE + "/", "sk_live_1") == STRIPE_BASE


def test_the_key_shows_nowhere(make: Make) -> None:
    """Neither in how the object shows itself nor in that of what it holds."""
    api = make()

    assert repr(api).startswith("Api('http://127.0.0.1:")
    assert not [name for name, value in vars(api).items() if KEY in f"{value!r} {value}"]


def ask(url: str) -> str:
    """One request with a fresh transport, the environment being read now."""
    api = Api(KEY, base=url, threads=1, give_up_after=0)
    try:
        return api.get(PATH, {}, text).value
    finally:
        api.close()


@pytest.fixture
def proxy() -> Iterator[Scripted]:
    with scripted(Answer(body=b'"by proxy"')) as found:
        yield found


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_the_proxy_of_the_environment_is_used(
    server: Scripted, proxy: Scripted, monkeypatch: pytest.MonkeyPatch, name: str, scheme: str
) -> None:
    """As requests and curl do, with or without a scheme; the proxy gets the whole URL."""
    server.answers = [FINE]
    monkeypatch.setenv(name, proxy.url.replace("http://", scheme))

    assert ask(server.url) == "by proxy"
    assert [request.path for request in proxy.seen] == [server.url + PATH]


@pytest.mark.parametrize("hosts", ["127.0.0.1", "example.com,127.0.0.1", "*", "PORT"])
def test_no_proxy_names_the_hosts_that_are_asked_directly(
    server: Scripted, proxy: Scripted, monkeypatch: pytest.MonkeyPatch, hosts: str
) -> None:
    """By name, with or without a port, or all."""
    server.answers = [FINE]
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", hosts.replace("PORT", server.url.removeprefix("http://")))

    assert ask(server.url) == "fine"
    assert proxy.seen == []


def test_a_proxys_credentials_are_sent_decoded(
    server: Scripted, proxy: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password in a URL is percent-encoded; the header must hold the password."""
    monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("http://", "http://jane:p%40ss%3Aword@"))
    ask(server.url)

    assert (
        proxy.seen[0].headers["proxy-authorization"]
        == urllib3.make_headers(proxy_basic_auth="jane:p@ss:word")["proxy-authorization"]
    )


@pytest.mark.parametrize(
    "proxy_url",
    [
        "socks5://127.0.0.1:1080",
        "http://[",
        "ftp://127.0.0.1",
        "http://",
        "http://127.0.0.1:x",
        "http://:8080",
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused(
    monkeypatch: pytest.MonkeyPatch, proxy_url: str
) -> None:
    """Going around it would be worse."""
    monkeypatch.setenv("HTTPS_PROXY", proxy_url)

    with pytest.raises(SetupError, match="HTTPS_PROXY or ALL_PROXY cannot be used"):
        Api(KEY)


def test_https_goes_through_a_tunnel_of_the_proxy(
    proxy: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy sees the host, never the key."""
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
    with scripted(FINE, tls=True) as server:
        assert ask(server.url) == "fine"

        (tunnel,) = proxy.seen
        assert tunnel.path == server.url.removeprefix("https://")
        assert "authorization" not in tunnel.headers
        assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("name", CA_VARIABLES)
def test_the_certificates_of_the_environment_are_trusted(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Companies that look into TLS give their own."""
    monkeypatch.setenv(name, str(CERTIFICATE))
    with scripted(FINE, tls=True) as server:
        assert ask(server.url) == "fine"


def test_the_certificates_can_be_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As requests takes them: each file named by the hash of its subject."""
    (tmp_path / "ddfa22c9.0").write_bytes(CERTIFICATE.read_bytes())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    with scripted(FINE, tls=True) as server:
        assert ask(server.url) == "fine"


def test_an_unknown_certificate_is_not_trusted_and_not_tried_again() -> None:
    """It will not become right by itself; the key is never sent."""
    with scripted(FINE, tls=True) as server:
        api = Api(KEY, base=server.url, threads=1)
        with pytest.raises(
            Unreachable,
            match=r"cannot reach 127\.0\.0\.1 \(SSLError\)\. Check the certificates \(SSL_CERT_FILE\)",
        ):
            api.get(PATH, {}, text)
        api.close()

        assert (server.seen, api.requests) == ([], 1)


@pytest.mark.parametrize("name", CA_VARIABLES)
def test_certificates_that_are_none_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """By the variable that names them."""
    (tmp_path / "notes.txt").write_text("no certificate")
    for path in ("missing.pem", "notes.txt"):
        monkeypatch.setenv(name, str(tmp_path / path))
        with pytest.raises(
            SetupError, match=f"^{name} does not name a readable file or folder of certificates"
        ):
            Api(KEY)


def test_the_pool_reuses_its_connections(server: Scripted, make: Make) -> None:
    """Twenty requests of one thread need one connection."""
    server.answers = [FINE]
    api = make(max_rps=1000, endpoint_rps=1000)
    for _ in range(20):
        api.get(PATH, {}, text)

    pool = api._http.pool.connection_from_url(server.url)
    assert (pool.num_connections, pool.num_requests) == (1, 20)
