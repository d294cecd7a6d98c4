"""Signatures: the official verifiers accept ours, we accept Stripe's, and nobody accepts anything
else.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
import stripe
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from stripe_feed.delivery.signatures import (
    BadSignature,
    new_secret,
    standard_headers,
    stripe_header,
    verify_stripe,
)
from stripe_feed.errors import SetupError

QUICK = settings(derandomize=True, deadline=None, max_examples=200, database=None)

BODY = '{"id":"evt_1","object":"event","api_version":"2026-06-24","data":{"object":{"name":"Zoë"}},"type":"customer.created"}'.encode()
OLD, NEW, FOREIGN = (f"whsec_{base64.b64encode(bytes([n]) * 24).decode()}" for n in (1, 2, 3))
NOW = 1_767_225_600
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Pacific/Apia",
    "Pacific/Marquesas",
    "Asia/Kathmandu",
    "America/St_Johns",
)


@pytest.fixture(params=ZONES)
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A host in another time zone."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


def now() -> int:
    return int(time.time())


def test_the_known_signatures() -> None:
    """Computed once by hand with openssl."""
    assert standard_headers("msg_1", NOW, b"{}", [OLD]) == {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1767225600",
        "webhook-signature": "v1,n8CeL0yEPD9TfNgtPVDX+gUR5hNuTNAMqI/SimVDklE=",
    }
    assert (
        stripe_header(NOW, b"{}", [OLD])
        == "t=1767225600,v1=a6d698820987dcd045c2507a568ad945e14dc60147872d63144737293fa1e43f"
    )


def test_the_official_verifiers_accept_both_in_every_time_zone(zone: str) -> None:
    at = now()
    headers = standard_headers("msg_1", at, BODY, [NEW, OLD])
    assert [Webhook(secret).verify(BODY, headers) for secret in (OLD, NEW)] == [
        json.loads(BODY)
    ] * 2
    header = stripe_header(at, BODY, [NEW, OLD])
    assert [stripe.Webhook.construct_event(BODY, header, secret).id for secret in (OLD, NEW)] == [
        "evt_1"
    ] * 2
    verify_stripe(BODY, header, [OLD], at)


@pytest.mark.parametrize("secrets", [[NEW], [OLD, NEW]], ids=["one secret", "two secrets"])
def test_standard_headers_hold_for_nothing_else(secrets: list[str]) -> None:
    at = now()
    headers = standard_headers("msg_1", at, BODY, secrets)
    assert headers["webhook-signature"].count("v1,") == len(secrets)
    Webhook(NEW).verify(BODY, headers)

    wrong: list[Callable[[], Any]] = [
        lambda: Webhook(NEW).verify(BODY + b" ", headers),
        lambda: Webhook(FOREIGN).verify(BODY, headers),
        lambda: Webhook(NEW).verify(BODY, {**headers, "webhook-id": "msg_2"}),
        lambda: Webhook(NEW).verify(BODY, {**headers, "webhook-timestamp": str(at + 1)}),
        lambda: Webhook(NEW).verify(BODY, standard_headers("msg_1", at - 400, BODY, secrets)),
    ]
    for attempt in wrong:
        with pytest.raises(WebhookVerificationError):
            attempt()


@pytest.mark.parametrize("secrets", [[NEW], [OLD, NEW]], ids=["one secret", "two secrets"])
def test_a_stripe_header_holds_for_nothing_else(secrets: list[str]) -> None:
    at = now()
    header = stripe_header(at, BODY, secrets)
    assert header.count("v1=") == len(secrets)
    stripe.Webhook.construct_event(BODY, header, NEW)

    for body, found, secret in [
        (BODY + b" ", header, NEW), (BODY, header, FOREIGN), (BODY, header.replace(str(at), str(at + 1)), NEW),
        (BODY, stripe_header(at - 400, BODY, secrets), NEW),
    ]:  # fmt: skip
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(body, found, secret)
        with pytest.raises(BadSignature):
            verify_stripe(body, found, [secret], at)


def test_what_stripe_signs_is_accepted(zone: str) -> None:
    header = stripe.WebhookSignature.generate_signature_header(BODY.decode(), NEW)
    verify_stripe(BODY, header, [OLD, NEW], now())


@pytest.mark.parametrize(("shift", "reason"), [
    (-300, None), (300, None), (0.9, None), (-301, "future"), (301, "too old"), (10**9, "too old"), (-(10**9), "future"),
])  # fmt: skip
def test_the_time_counts_both_ways(shift: float, reason: str | None) -> None:
    header = stripe_header(NOW, BODY, [NEW])
    if reason is None:
        verify_stripe(BODY, header, [NEW], NOW + shift)
        return
    with pytest.raises(BadSignature, match=reason):
        verify_stripe(BODY, header, [NEW], NOW + shift)
    verify_stripe(BODY, header, [NEW], NOW + shift, tolerance=2 * 10**9)


GOOD = stripe_header(NOW, BODY, [NEW])
SIGNATURE = GOOD.partition(",")[2]


@pytest.mark.parametrize("header", [
    "", ",", "=", "t=", "v1=", f"t={NOW}", SIGNATURE, f"t=,{SIGNATURE}", f"t=-{NOW},{SIGNATURE}", f"t=now,{SIGNATURE}", f"t={NOW}.0,{SIGNATURE}",
    f"t={NOW},t={NOW},{SIGNATURE}", f"t=٣٤,{SIGNATURE}", f"t={'9' * 400},{SIGNATURE}", f"t={NOW},{SIGNATURE.replace('v1', 'v0')}",
    f"{GOOD},{'v0=' + 'a' * 4_096}", f"t={NOW}", f"T={NOW},{SIGNATURE}", f"t={NOW};{SIGNATURE}",
])  # fmt: skip
def test_a_malformed_header_is_distinguished(header: str) -> None:
    with pytest.raises(BadSignature, match="malformed"):
        verify_stripe(BODY, header, [NEW], NOW)


@pytest.mark.parametrize("header", [
    f"t={NOW},v1=", f"t={NOW},v1=é", f"t={NOW},v1=\ud800", f"t={NOW},{SIGNATURE[:-1]}", f"t={NOW},{SIGNATURE}0", f"t={NOW},{SIGNATURE.upper().replace('V1', 'v1')}",
    f"t={NOW},v1={SIGNATURE}",
])  # fmt: skip
def test_a_signature_counts_as_a_whole(header: str) -> None:
    with pytest.raises(BadSignature, match="No signature matches"):
        verify_stripe(BODY, header, [NEW], NOW)


def test_other_parts_of_the_header_do_not_matter() -> None:
    verify_stripe(BODY, f" v0=x, t={NOW}, v1=00, {SIGNATURE}, v2=y,z", [FOREIGN, NEW], NOW)


@QUICK
@given(
    header=st.text(max_size=80)
    | st.lists(st.sampled_from(["t", "v1", "v0", "=", ",", " ", str(NOW), "a", "9" * 20])).map(
        "".join
    )
)
def test_no_header_is_anything_but_refused(header: str) -> None:
    with pytest.raises(BadSignature) as caught:
        verify_stripe(BODY, header, [NEW], NOW)
    assert "Zoë" not in str(caught.value) and NEW not in str(caught.value)


@pytest.mark.parametrize("secret", [
    "", " ", "canary", "whsec_", "whsec_canary", "whsec_" + base64.b64encode(b"canary " * 3).decode(), OLD + "\n", " " + OLD, OLD + "%", "whsec_" + "é" * 40,
    OLD.removeprefix("whsec_"), "WHSEC_" + OLD.removeprefix("whsec_"), OLD[:-1],
], ids=range(13))  # fmt: skip
def test_a_wrong_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(SetupError) as caught:
        standard_headers("msg_1", NOW, BODY, [OLD, secret])
    assert "canary" not in str(caught.value) and OLD[6:20] not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__ is (
        caught.value.__context__ is not None
    )


def test_padding_may_be_left_out() -> None:
    padded = f"whsec_{base64.b64encode(b'x' * 31).decode()}"
    assert padded.endswith("=")
    assert standard_headers("m", 1, b"", [padded]) == standard_headers(
        "m", 1, b"", [padded.rstrip("=")]
    )


@pytest.mark.parametrize(
    "secrets",
    [[], [""], [NEW, ""], [NEW + "\n"], NEW],
    ids=["none", "empty", "one empty", "a line end", "a text"],
)
def test_without_a_secret_nothing_is_signed_or_accepted(secrets: Any) -> None:
    with pytest.raises(SetupError):
        stripe_header(NOW, BODY, secrets)
    with pytest.raises(SetupError):
        standard_headers("msg_1", NOW, BODY, secrets)
    with pytest.raises(SetupError):
        verify_stripe(BODY, GOOD, secrets, NOW)


def test_a_new_secret_serves_both() -> None:
    one, other = new_secret(), new_secret()
    assert one != other and len(base64.b64decode(one.removeprefix("whsec_"))) >= 24
    Webhook(one).verify(b"{}", standard_headers("msg_1", now(), b"{}", [one]))
    verify_stripe(b"{}", stripe_header(NOW, b"{}", [one]), [one], NOW)


def test_the_zones_are_known_here(zone: str) -> None:
    """Else the tests above would run in one and the same."""
    assert os.environ["TZ"] == zone
    assert (zone == "UTC") is (time.localtime(NOW)[:5] == time.gmtime(NOW)[:5])
