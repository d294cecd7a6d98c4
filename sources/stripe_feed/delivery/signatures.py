"""Sign and verify messages: Standard Webhooks (https://www.standardwebhooks.com) and Stripe's own
scheme.

While a secret is being replaced there are two, and every message carries a signature of each.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from secrets import token_bytes

from ..errors import SetupError, StripeFeedError

_PREFIX = "whsec_"
MIN_SECRET_BYTES = 24  # of a Standard Webhooks secret, by the specification
MAX_HEADER = 4_096
TOLERANCE_SECONDS = 300  # seconds


class BadSignature(StripeFeedError):
    """No secret of ours signed a message, or its time is outside the tolerance."""


def new_secret() -> str:
    """Return a new secret for either scheme."""
    return _PREFIX + base64.b64encode(token_bytes(MIN_SECRET_BYTES)).decode()


def standard_headers(
    message_id: str, timestamp: int, body: bytes, secrets: Sequence[str]
) -> dict[str, str]:
    """Return the three headers of Standard Webhooks, with a signature per secret. Raises
    `SetupError` for an invalid secret.

    The id stays the same for every attempt; `timestamp`, in Unix seconds, is the attempt's.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = [
        base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
        for key in map(_key, _check_secrets(secrets))
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def stripe_header(timestamp: int, body: bytes, secrets: Sequence[str]) -> str:
    """Return the value of `Stripe-Signature`, with a signature per secret. Raises `SetupError` for
    an invalid secret.
    """
    return ",".join(
        [
            f"t={timestamp}",
            *(
                f"v1={_sign_stripe(str(timestamp), body, secret)}"
                for secret in _check_secrets(secrets)
            ),
        ]
    )


def verify_stripe(
    body: bytes, header: str, secrets: Sequence[str], now: float, tolerance: int = TOLERANCE_SECONDS
) -> None:
    """Raise `BadSignature` unless one of the secrets signed exactly this body, at most `tolerance`
    seconds before or after `now`.

    `header` is the value of `Stripe-Signature`; signatures of versions other than v1 are ignored.
    """
    time, signatures = _parse_header(header)
    expected = [_sign_stripe(time, body, secret).encode() for secret in _check_secrets(secrets)]
    matches = [hmac.compare_digest(a, b) for a in expected for b in signatures]
    if not any(matches):
        raise BadSignature(
            "No signature matches: the secret differs, or the body was changed in transit. Compare the secrets."
        )
    if int(time) < now - tolerance:
        raise BadSignature(
            f"The signature is too old: more than {tolerance} seconds. Compare the clocks; it may be a replay."
        )
    if int(time) > now + tolerance:
        raise BadSignature(
            f"The signature is from the future: more than {tolerance} seconds ahead. Compare the clocks."
        )


def _parse_header(header: str) -> tuple[str, list[bytes]]:
    """Return the signed time and the signatures of version 1."""
    pairs = (
        [part.strip().partition("=") for part in header.split(",")]
        if len(header) <= MAX_HEADER
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


def _sign_stripe(time: str, body: bytes, secret: str) -> str:
    """Sign as Stripe does, with the secret as written, prefix included
    (https://docs.stripe.com/webhooks#verify-manually).
    """
    return hmac.digest(secret.encode(), f"{time}.".encode() + body, "sha256").hex()


def _check_secrets(secrets: Sequence[str]) -> Sequence[str]:
    """Raise `SetupError` for unusable secrets: an empty one lets anyone sign, one with a line end
    matches nothing.
    """
    if isinstance(secrets, str) or not secrets:
        raise SetupError(
            'There is no secret to sign with. Name at least one, such as `secrets = ["env:HOOK_SECRET"]`.'
        )
    if any(
        not secret or not secret.isascii() or not secret.isprintable() or " " in secret
        for secret in secrets
    ):
        raise SetupError(
            "A secret is empty, or has blanks, line ends or non-ASCII characters. Copy it again, without a line end."
        )
    return secrets


def _key(secret: str) -> bytes:
    text = secret.removeprefix(_PREFIX)
    try:
        key = (
            base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
            if secret.startswith(_PREFIX)
            else b""
        )
    except binascii.Error:
        key = b""
    if len(key) < MIN_SECRET_BYTES:
        raise SetupError(
            f"A secret is not of the form {_PREFIX}<base64 of at least {MIN_SECRET_BYTES} bytes>. Copy it anew, or have a new one made."
        )
    return key
