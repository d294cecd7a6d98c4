"""Signatures on deliveries: Standard Webhooks (https://www.standardwebhooks.com) and Stripe's own
scheme, made and verified.

While a secret is being replaced there are two, and every message carries a signature of each.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets as chance
from collections.abc import Sequence

from ..errors import SetupError, StripeFeedError

PREFIX = "whsec_"
LEAST_BYTES = 24  # of a Standard Webhooks secret, by the specification
LONGEST_HEADER = 4_096
TOLERANCE = 300  # seconds


class BadSignature(StripeFeedError):
    """A message was not signed with a secret of ours, or not just now."""


def new_secret() -> str:
    """A secret for either scheme."""
    return PREFIX + base64.b64encode(chance.token_bytes(LEAST_BYTES)).decode()


def standard_headers(
    message_id: str, timestamp: int, body: bytes, secrets: Sequence[str]
) -> dict[str, str]:
    """The three headers of Standard Webhooks, with a signature per secret. Raises `SetupError` for
    a secret that is none.

    The id stays the same for every attempt; `timestamp`, in Unix seconds, is the attempt's.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = [
        base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
        for key in map(_key, _some(secrets))
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{one}" for one in signatures),
    }


def stripe_header(timestamp: int, body: bytes, secrets: Sequence[str]) -> str:
    """The value of `Stripe-Signature`, with a signature per secret. Raises `SetupError` for a
    secret that is none.
    """
    return ",".join(
        [
            f"t={timestamp}",
            *(f"v1={_hex(str(timestamp), body, secret)}" for secret in _some(secrets)),
        ]
    )


def verify_stripe(
    body: bytes, header: str, secrets: Sequence[str], now: float, tolerance: int = TOLERANCE
) -> None:
    """Raise `BadSignature` unless one of the secrets signed exactly this body, at most `tolerance`
    seconds before or after `now`.

    `header` is the value of `Stripe-Signature`; signatures of other versions than v1 count for
    nothing.
    """
    time, signatures = _parsed(header)
    wanted = [_hex(time, body, secret).encode() for secret in _some(secrets)]
    matches = [hmac.compare_digest(one, other) for one in wanted for other in signatures]
    if not any(matches):
        raise BadSignature(
            "No signature matches: another secret, or a body that was changed on its way. Compare the secrets."
        )
    if int(time) < now - tolerance:
        raise BadSignature(
            f"The signature is too old: more than {tolerance} seconds. Compare the clocks; it may be a replay."
        )
    if int(time) > now + tolerance:
        raise BadSignature(
            f"The signature is from the future: more than {tolerance} seconds ahead. Compare the clocks."
        )


def _parsed(header: str) -> tuple[str, list[bytes]]:
    """The time as it was signed, and the signatures of version 1."""
    pairs = (
        [part.strip().partition("=") for part in header.split(",")]
        if len(header) <= LONGEST_HEADER
        else []
    )
    times = [value for name, _, value in pairs if name == "t"]
    signatures = [value.encode(errors="replace") for name, _, value in pairs if name == "v1"]
    if (
        len(times) != 1
        or not signatures
        or not (times[0].isascii() and times[0].isdigit() and len(times[0]) < 16)
    ):
        raise BadSignature(
            "The Stripe-Signature header is malformed: `t=<Unix seconds>,v1=<signature>` is expected."
        )
    return times[0], signatures


def _hex(time: str, body: bytes, secret: str) -> str:
    """Stripe takes the secret as it is written, prefix included
    (https://docs.stripe.com/webhooks#verify-manually).
    """
    return hmac.digest(secret.encode(), f"{time}.".encode() + body, "sha256").hex()


def _some(secrets: Sequence[str]) -> Sequence[str]:
    """An empty secret would let anyone sign, and one with a line end would match nobody's."""
    if isinstance(secrets, str) or not secrets:
        raise SetupError(
            'There is no secret to sign with. Name at least one, such as `secrets = ["env:HOOK_SECRET"]`.'
        )
    if any(not one or not one.isascii() or not one.isprintable() or " " in one for one in secrets):
        raise SetupError(
            "A secret is empty, or holds blanks, line ends or odd characters. Copy it anew, without a line end."
        )
    return secrets


def _key(secret: str) -> bytes:
    text = secret.removeprefix(PREFIX)
    try:
        key = (
            base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
            if secret.startswith(PREFIX)
            else b""
        )
    except binascii.Error:
        key = b""
    if len(key) < LEAST_BYTES:
        raise SetupError(
            f"A secret is not of the form {PREFIX}<base64 of at least {LEAST_BYTES} bytes>. Copy it anew, or have a new one made."
        )
    return key
