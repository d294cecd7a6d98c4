"""Writes over real HTTP on loopback: keys, forms, refusals told from unknown outcomes, and what is
never sent or said.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from stripe_feed.api.client import MAX_TRIES_500, Api, Clock
from stripe_feed.api.forms import encode, path_to, redact, to_query
from stripe_feed.api.rate_limits import SEARCH_RPS, RateLimiter
from stripe_feed.api.responses import KEY_REUSED
from stripe_feed.errors import (
    NotFound,
    OutcomeUnknown,
    PermissionMissing,
    RateLimited,
    RequestRefused,
    SetupError,
    Unreachable,
    UsageError,
)
from tests.scripted import Answer, Scripted, Seen, scripted

KEY = "rk_test_canary51SecretOfTheKey"
EMAIL = "jane.canary@example.com"
NAME = "Canary O'Shea"
CUSTOMERS, CUSTOMER = "/v1/customers", "/v1/customers/cus_1"
DROPPED = Answer(status=0)
CREATED = Answer(body=b'{"id":"cus_1"}', headers={"Request-Id": "req_1"})
REPLAYED = {"Idempotent-Replayed": "true"}

decode = msgspec.json.decode


def error(status: int, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    body = {"error": {"type": "invalid_request_error", "message": "No.", **fields}}
    return Answer(status, json.dumps(body).encode(), {"Request-Id": "req_e", **(headers or {})})


IN_FLIGHT = error(409, code="idempotency_key_in_use")
GONE = error(404, code="resource_missing", param="id", message="No such customer: 'cus_1'")


@contextmanager
def client(server: Scripted, **options: Any) -> Iterator[Api]:
    """A client whose clock moves when it waits."""
    now = [1_000.0]

    def wait(stopped: threading.Event, seconds: float) -> bool:
        now[0] += seconds
        return stopped.is_set()

    clock = Clock(time=lambda: now[0], monotonic=lambda: now[0], wait=wait)
    api = Api(KEY, base=server.url, clock=clock, threads=2, **options)
    try:
        yield api
    finally:
        api.close()


def fields(request: Seen) -> dict[str, str]:
    return dict(parse_qsl(request.body, keep_blank_values=True))


# -- what is sent ----------------------------------------------------------------------------------


def test_a_post_carries_key_form_and_version_and_its_reply_the_request_id() -> None:
    with scripted(CREATED) as server, client(server) as api:
        reply = api.post(
            CUSTOMERS,
            {"name": NAME, "metadata": {"a.b": "1"}, "validate": True, "expand": ["tax"]},
            decode,
            key="sf-1",
        )

    (request,) = server.seen
    assert (reply.value, reply.request_id, reply.replayed) == ({"id": "cus_1"}, "req_1", False)
    assert (request.method, request.path) == ("POST", CUSTOMERS)
    assert request.headers["idempotency-key"] == "sf-1"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert fields(request) == {
        "name": NAME, "metadata[a.b]": "1", "validate": "true", "expand[0]": "tax",
    }  # fmt: skip


def test_a_delete_carries_its_parameters_in_the_query_and_no_key() -> None:
    """Stripe ignores idempotency keys of DELETE."""
    with scripted(Answer(body=b"{}")) as server, client(server) as api:
        api.delete("/v1/subscriptions/sub_1", {"prorate": False}, decode)

    (request,) = server.seen
    assert (request.method, request.path) == ("DELETE", "/v1/subscriptions/sub_1?prorate=false")
    assert "idempotency-key" not in request.headers and request.body == ""


OPTIONS = (
    "api_key", "stripe_version", "stripe_account", "stripe_context", "max_network_retries",
    "idempotency_key", "content_type", "headers", "base", "usage", "method_", "url_",
)  # fmt: skip


@pytest.mark.parametrize("method", ["get", "post", "delete"])
def test_no_column_can_become_an_option_of_the_client(method: str) -> None:
    evil = dict.fromkeys(OPTIONS, "evil.example")
    with scripted(Answer()) as server, client(server) as api:
        getattr(api, method)(CUSTOMER, evil, decode)

    (request,) = server.seen
    sent = fields(request) if method == "post" else dict(parse_qsl(urlsplit(request.path).query))
    assert sent == evil
    assert "evil.example" not in "".join(request.headers.values())


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"items": [{"price": "p"}, {"id": "si", "deleted": True}]},
         [("items[0][price]", "p"), ("items[1][id]", "si"), ("items[1][deleted]", "true")]),
        ({"a": Decimal("1E+2")}, [("a", "100")]),
        ({"a": 0.1}, [("a", "0.1")]),
        ({"a": 1e-7}, [("a", "0.0000001")]),
        ({"a": datetime(2026, 1, 1, tzinfo=timezone.utc)}, [("a", "1767225600")]),
        ({"a": None, "b": "", "c": {}, "d": []}, [("b", "")]),
        ({"created": {"gte": 1}}, [("created[gte]", "1")]),
    ],
)  # fmt: skip
def test_values_are_encoded_as_stripe_reads_them(given: Any, sent: Any) -> None:
    assert list(encode(given)) == sent


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        Decimal("NaN"),
        b"x",
        {1},
        object(),
        datetime(2026, 1, 1),
        "\ud800",
    ],
    ids=lambda value: "an object" if type(value) is object else repr(value),
)
def test_values_that_stripe_would_misread_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match=r"^a:"):
        encode({"a": value})


@pytest.mark.parametrize("name", ["", "a]b", "a[b", 1])
def test_a_name_that_breaks_the_nesting_is_refused(name: Any) -> None:
    with pytest.raises(UsageError):
        encode({"metadata": {name: "x"}})


@pytest.mark.parametrize(
    ("object_id", "path"),
    [
        ("cus_1", CUSTOMER),
        ("a b", "/v1/customers/a%20b"),
        ("a/../b?c#d", "/v1/customers/a%2F..%2Fb%3Fc%23d"),
        ("+é", "/v1/customers/%2B%C3%A9"),
    ],
)
def test_ids_are_quoted(object_id: str, path: str) -> None:
    assert path_to("/v1/customers/{id}", object_id) == path


@pytest.mark.parametrize("object_id", ["", ".", "..", " cus_1", "a\nb", "x" * 256, None])
def test_what_cannot_be_an_id_is_refused(object_id: Any) -> None:
    with pytest.raises(UsageError, match="cannot be the id"):
        path_to("/v1/customers/{id}", object_id)


# -- how it ended ----------------------------------------------------------------------------------


def test_a_write_without_an_answer_is_repeated_with_the_same_key_and_body() -> None:
    with (
        scripted(DROPPED, Answer(body=b'{"id":', sends=4), CREATED) as server,
        client(server) as api,
    ):
        assert api.post(CUSTOMERS, {"name": NAME}, decode).value == {"id": "cus_1"}

    assert len(server.seen) == 3
    assert len({(r.headers["idempotency-key"], r.body) for r in server.seen}) == 1


@pytest.mark.parametrize("answer", [DROPPED, error(503), error(504), IN_FLIGHT], ids=repr)
def test_a_write_that_never_gets_an_answer_is_unknown(answer: Answer) -> None:
    with scripted(answer) as server, client(server) as api, pytest.raises(OutcomeUnknown) as caught:
        api.post(CUSTOMERS, {"name": NAME}, decode, key="sf-1")

    assert caught.value.idempotency_key == "sf-1"
    assert "sf-1" in str(caught.value) and len(server.seen) > MAX_TRIES_500


def test_a_500_is_unknown_and_a_stored_one_is_not_asked_for_again() -> None:
    with scripted(error(500)) as server, client(server) as api, pytest.raises(OutcomeUnknown):
        api.post(CUSTOMERS, {}, decode)
    assert len(server.seen) == MAX_TRIES_500

    with (
        scripted(error(500), error(500, REPLAYED)) as server,
        client(server) as api,
        pytest.raises(OutcomeUnknown, match="req_e"),
    ):
        api.post(CUSTOMERS, {}, decode)
    assert len(server.seen) == 2


def test_stripe_can_say_that_a_repetition_is_of_no_use() -> None:
    final = error(503, {"Stripe-Should-Retry": "false"})
    with scripted(final) as server, client(server) as api, pytest.raises(OutcomeUnknown):
        api.post(CUSTOMERS, {}, decode)
    assert len(server.seen) == 1


def test_a_500_before_execution_does_no_harm() -> None:
    with scripted(error(500), CREATED) as server, client(server) as api:
        assert api.post(CUSTOMERS, {}, decode).request_id == "req_1"


def test_an_answer_that_was_stored_says_so() -> None:
    """If the key was used before this call, not by its own first try."""
    stored = Answer(body=b"{}", headers=REPLAYED)
    with scripted(stored) as server, client(server) as api:
        assert api.post(CUSTOMERS, {}, decode).replayed
    with scripted(DROPPED, stored) as server, client(server) as api:
        assert not api.post(CUSTOMERS, {}, decode).replayed


@pytest.mark.parametrize(
    "answer",
    [
        error(400, code="parameter_unknown", param="nope"),
        error(400, type="idempotency_error"),
        error(402, type="card_error", code="card_declined", decline_code="insufficient_funds"),
        GONE,
    ],
    ids=["400", "idempotency", "402", "404"],
)
def test_a_refusal_is_definite_and_not_repeated(answer: Answer) -> None:
    with scripted(answer) as server, client(server) as api, pytest.raises(RequestRefused) as caught:
        api.post(CUSTOMERS, {}, decode)

    body = json.loads(answer.body)["error"]
    assert len(server.seen) == 1
    assert caught.value.request_id == "req_e"
    used = KEY_REUSED if body["type"] == KEY_REUSED else None
    assert (caught.value.code, caught.value.decline_code) == (
        body.get("code", used),
        body.get("decline_code"),
    )
    assert isinstance(caught.value, NotFound) == (answer.status == 404)


def test_a_refusal_after_a_lost_answer_is_definite() -> None:
    """The key's first answer comes again, whatever it was."""
    with (
        scripted(DROPPED, error(400)) as server,
        client(server) as api,
        pytest.raises(RequestRefused),
    ):
        api.post(CUSTOMERS, {}, decode)


def test_a_key_that_expires_meanwhile_leaves_the_outcome_unknown() -> None:
    with (
        scripted(DROPPED, error(401, message="Expired API Key")) as server,
        client(server) as api,
        pytest.raises(OutcomeUnknown),
    ):
        api.post(CUSTOMERS, {}, decode)


@pytest.mark.parametrize("headers", [{}, {"Stripe-Rate-Limited-Reason": "global-rate"}])
def test_a_429_was_not_carried_out(headers: dict[str, str]) -> None:
    with (
        scripted(error(429, headers, code="rate_limit")) as server,
        client(server, give_up_after=5) as api,
        pytest.raises(RateLimited),
    ):
        api.post(CUSTOMERS, {}, decode)


def test_a_lock_timeout_waits_and_repeats_with_the_same_key() -> None:
    with scripted(error(429, code="lock_timeout"), CREATED) as server, client(server) as api:
        api.post(CUSTOMERS, {}, decode)

    assert len({request.headers["idempotency-key"] for request in server.seen}) == 1


def test_an_object_that_stays_locked_is_named_as_such() -> None:
    with (
        scripted(error(429, code="lock_timeout")) as server,
        client(server, give_up_after=5) as api,
        pytest.raises(RateLimited, match="locked"),
    ):
        api.post(CUSTOMERS, {}, decode)


def test_what_was_never_sent_is_not_unknown() -> None:
    with scripted(CREATED) as server:
        pass  # nobody listens any more
    with client(server) as api, pytest.raises(Unreachable) as caught:
        api.post(CUSTOMERS, {}, decode)
    assert not isinstance(caught.value, OutcomeUnknown)


def test_a_404_after_a_lost_answer_to_a_delete_is_success() -> None:
    with scripted(DROPPED, GONE) as server, client(server) as api:
        assert api.delete(CUSTOMER, {}, decode).value == {"deleted": True}


def test_a_404_of_the_first_delete_is_not() -> None:
    with scripted(GONE) as server, client(server) as api, pytest.raises(NotFound):
        api.delete(CUSTOMER, {}, decode)


def test_a_proxys_page_is_no_answer() -> None:
    with (
        scripted(Answer(200, b"<html>")) as server,
        client(server) as api,
        pytest.raises((SetupError, OutcomeUnknown)),
    ):
        api.post(CUSTOMERS, {}, decode)


# -- what is said ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "permission"),
    [
        (CUSTOMER, "rak_customer_write"),
        ("/v1/prices", "rak_plan_write"),
        ("/v1/invoices/in_1/finalize", "rak_invoice_write"),
    ],
)
@pytest.mark.parametrize("status", [401, 403])
def test_a_missing_permission_to_write_is_named(path: str, permission: str, status: int) -> None:
    answer = error(status, message="The provided key does not have the required permissions")
    with (
        scripted(answer) as server,
        client(server) as api,
        pytest.raises(PermissionMissing, match=f"may not write it.*{permission}") as caught,
    ):
        api.post(path, {}, decode)

    assert caught.value.permission == permission


def test_stripes_sentence_is_quoted_without_what_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    """Not even Stripe's SDK logs it, at any level."""
    caplog.set_level(logging.DEBUG)
    sentence = (
        f"Invalid: {EMAIL}, {EMAIL.upper()} or 'Canary O'Shea' in {KEY} for cus_1; other@x.org"
    )
    with (
        scripted(error(400, message=sentence)) as server,
        client(server) as api,
        pytest.raises(RequestRefused) as caught,
    ):
        api.post(CUSTOMER, {"email": EMAIL, "metadata": {"who": NAME}}, decode)
        with pytest.raises(RequestRefused):
            api.get(CUSTOMERS, {"email": EMAIL, "query": f'name:"{NAME}"'}, decode, is_action=True)

    assert "Invalid: <email>, <email> or '<metadata[who]>' in <key> for cus_1;" in str(caught.value)
    said = str(caught.value) + caplog.text
    assert [
        word for word in (EMAIL, EMAIL.replace("@", "%40"), "Canary", "other@", KEY) if word in said
    ] == []


@pytest.mark.parametrize(
    ("value", "sentence", "said"),
    [
        ("Al", "Al is in Alabama", "<a> is in Alabama"),
        ("x", "x is too short", "x is too short"),
        ("true", "must be true", "must be true"),
        ("cus_12345678", "No such customer: cus_12345678", "No such customer: cus_12345678"),
        ("(a|b)", "(a|b) is odd", "<a> is odd"),
    ],
)
def test_what_is_replaced(value: str, sentence: str, said: str) -> None:
    assert redact(sentence, (("a", value),)) == said


# -- how fast --------------------------------------------------------------------------------------


def test_writes_have_rate_limits_of_their_own() -> None:
    with scripted(Answer()) as server, client(server, max_rps=1, endpoint_rps=1) as api:
        for _ in range(2):  # the burst
            api.get(CUSTOMERS, {}, decode)
        start = api.clock.monotonic()
        api.post(CUSTOMERS, {}, decode)
        assert api.clock.monotonic() == start
        api.post(CUSTOMERS, {}, decode)
        api.post(CUSTOMERS, {}, decode)
        assert api.clock.monotonic() > start


def test_all_searches_share_one_limit() -> None:
    limiter = RateLimiter(100.0, 20.0, 8, 0.0)
    while limiter.take("/v1/customers/search", 0.0) <= 0:
        pass

    assert limiter.take("/v1/prices/search", 0.0) > 0
    assert limiter.endpoints["search"].rate == pytest.approx(SEARCH_RPS, rel=0.02)
    assert limiter.take("/v1/prices", 0.0) <= 0


def test_an_empty_form_is_an_empty_body() -> None:
    assert to_query(()) == ""
