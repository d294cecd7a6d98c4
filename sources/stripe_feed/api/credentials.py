"""The key and where it is sent: from arguments, dlt's secrets, a file or the environment, and
refused where it cannot read.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import SetupError

STRIPE_BASE = "https://api.stripe.com"
KEYS_PAGE = "https://dashboard.stripe.com/apikeys"
AROUND = " \t\r\n\v\f'\"`\ufeff\u200b\xa0"  # what copying brings along
MOST_BYTES = 4_096
NO_KEYS = {
    "pk_": "This is a publishable key (pk_), which cannot read.",
    "sk_org": "Organization keys (sk_org_) are not supported, keys of one account are.",
    "whsec_": "This is the signing secret of a webhook (whsec_), which cannot read.",
    "ek_": "This is an ephemeral key (ek_), which cannot read.",
}


def find_key(api_key: str | None) -> str:
    """Return the key given, else that of dlt's secrets (`sources.stripe_feed.api_key`), else
    `STRIPE_SECRET_KEY`.

    White space, quotes and a byte order mark around it are no part of it. Raises `SetupError` for
    no key and for keys that cannot read, before any request.
    """
    key = str(api_key or _configured_key() or os.environ.get("STRIPE_SECRET_KEY") or "").strip(
        AROUND
    )
    if not key:
        raise SetupError(
            "No Stripe key. Set STRIPE_SECRET_KEY, or api_key under [sources.stripe_feed] in .dlt/secrets.toml; "
            "without an account, try `stripe-feed demo`."
        )
    for prefix, what in NO_KEYS.items():
        if key.startswith(prefix):
            raise SetupError(f"{what} Use a restricted key from {KEYS_PAGE}.")
    if not re.fullmatch(r"[sr]k_[!-~]{1,250}", key):
        raise SetupError(
            f"This is no Stripe key: it should begin with rk_ or sk_. Copy one from {KEYS_PAGE}."
        )
    return key


def read_key(file: str) -> str:
    """Return the key in a file (`-`: standard input). Raises `SetupError` where there is none."""
    try:
        if file == "-":
            content = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(MOST_BYTES + 1)
        encoding = (
            "utf-16"
            if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            else "utf-8-sig"
        )
        key = content.decode(encoding).strip(AROUND)
    except (OSError, ValueError) as fault:  # a path may hold what no path can
        what = type(fault).__name__
        raise SetupError(
            f"The key file {file!r} cannot be read ({what}). Check its path and permissions."
        ) from None
    if len(content) > MOST_BYTES:
        raise SetupError(
            f"The key file {file!r} is too big: it should hold a key and nothing else."
        )
    if not key:
        raise SetupError(f"The key file {file!r} is empty. Write a key from {KEYS_PAGE} into it.")
    return key


def _configured_key() -> str | None:
    import dlt

    found: str | None = dlt.secrets.get("sources.stripe_feed.api_key", str)
    return found


def is_live(key: str) -> bool:
    """Whether a key works on live data, told from its prefix."""
    return "_live_" in key[:9]


def find_base(base: str | None, key: str, allow: bool = False) -> str:
    """Return the API's base URL: the one given, else `STRIPE_API_BASE`, else Stripe's own.

    Raises `SetupError` when a live key would be sent anywhere but to Stripe, unless `allow` says
    so.
    """
    base = (base or os.environ.get("STRIPE_API_BASE") or STRIPE_BASE).strip(AROUND)
    base = re.sub(r"/+(?:v1/*)?$", "", base)  # what is asked for begins with it
    try:
        parts = urlsplit(base)
        scheme, host, _ = parts.scheme, parts.hostname, parts.port  # raises for a port that is none
        idna = (host or "").encode("idna")
    except ValueError:
        scheme, host, idna = "", None, b""
    if scheme not in ("https", "http") or not idna or re.search(r"[\s?#\\]", base):
        raise SetupError(
            "STRIPE_API_BASE is no URL. Unset it to use Stripe's own, or give one such as http://127.0.0.1:12111."
        )
    if "@" in parts.netloc:
        raise SetupError(
            "STRIPE_API_BASE holds a user or a password, which Stripe does not know. Give the URL without."
        )
    base = parts._replace(scheme=scheme, netloc=parts.netloc.lower()).geturl()
    if is_live(key) and base != STRIPE_BASE and not allow:
        raise SetupError(
            f"A live key would be sent to {host} instead of Stripe. "
            "Unset STRIPE_API_BASE, or pass --allow-api-base if you mean it."
        )
    return base
