"""The key and where it is sent: from arguments, dlt's secrets, a file or the environment, and refused where it cannot read."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from .errors import SetupError

STRIPE_BASE = "https://api.stripe.com"
KEYS_PAGE = "https://dashboard.stripe.com/apikeys"


def find_key(api_key: str | None) -> str:
    """Return the key given, else that of dlt's secrets (`sources.stripe_feed.api_key`), else `STRIPE_SECRET_KEY`.

    Raises `SetupError` for no key and for keys that cannot read, before any request.
    """
    key = (api_key or _configured_key() or os.environ.get("STRIPE_SECRET_KEY") or "").strip()
    if not key:
        raise SetupError(
            "No Stripe key. Set STRIPE_SECRET_KEY, or api_key under [sources.stripe_feed] in .dlt/secrets.toml; "
            "without an account, try `stripe-feed demo`."
        )
    if key.startswith("pk_"):
        raise SetupError(f"This is a publishable key (pk_), which cannot read. Use a restricted key from {KEYS_PAGE}.")
    if key.startswith("sk_org_"):
        raise SetupError(f"Organization keys (sk_org_) are not supported. Use a key of one account from {KEYS_PAGE}.")
    if not key.startswith(("sk_", "rk_")) or not key.isascii() or not key.isprintable() or " " in key:
        raise SetupError(f"This is no Stripe key: it should begin with rk_ or sk_. Copy one from {KEYS_PAGE}.")
    return key


def read_key(file: str) -> str:
    """Return the key in a file (`-`: standard input). Raises `SetupError` where there is none."""
    try:
        key = (sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError) as fault:
        what = type(fault).__name__
        raise SetupError(f"The key file {file} cannot be read ({what}). Check its path and permissions.") from None
    if not key:
        raise SetupError(f"The key file {file} is empty. Write a key from {KEYS_PAGE} into it.")
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

    Raises `SetupError` when a live key would be sent anywhere but to Stripe, unless `allow` says so.
    """
    base = (base or os.environ.get("STRIPE_API_BASE") or STRIPE_BASE).rstrip("/")
    try:
        host = urlsplit(base).hostname
    except ValueError:
        host = None
    if not host or not base.startswith(("https://", "http://")):
        raise SetupError("STRIPE_API_BASE is no URL. Unset it to use Stripe's own, or give one such as http://127.0.0.1:12111.")
    if is_live(key) and base != STRIPE_BASE and not allow:
        raise SetupError(
            f"A live key would be sent to {host} instead of Stripe. "
            "Unset STRIPE_API_BASE, or pass --allow-api-base if you mean it."
        )
    return base
