"""Find the API key and the base URL: in arguments, dlt's secrets, a file or the environment."""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import SetupError, UsageError

STRIPE_BASE = "https://api.stripe.com"
KEYS_PAGE = "https://dashboard.stripe.com/apikeys"
LOGS_PAGE = "https://dashboard.stripe.com/logs"
PASTED_CHARACTERS = " \t\r\n\v\f'\"`\ufeff\u200b\xa0"  # that copying can add around a key
MAX_KEY_FILE_BYTES = 4_096
UNUSABLE_PREFIXES = {
    "pk_": "This is a publishable key (pk_), which cannot read.",
    "sk_org": "Organization keys (sk_org_) are not supported; give a key of one account.",
    "whsec_": "This is the signing secret of a webhook (whsec_), which cannot read.",
    "ek_": "This is an ephemeral key (ek_), which cannot read.",
}


def key_form(permissions: Iterable[str]) -> str:
    """Return the address of Stripe's form for a new restricted key with these permissions."""
    asked = "&".join(f"permissions[{n}]={name}" for n, name in enumerate(permissions))
    return f"{KEYS_PAGE}/create?name=stripe-feed&{asked}"


def find_key(api_key: str | None) -> str:
    """Return the key given, else that of dlt's secrets (`sources.stripe_feed.api_key`), else
    `STRIPE_SECRET_KEY`.

    White space, quotes and a byte order mark around it are removed. Raises `SetupError` for no key
    and for keys that cannot read, before any request.
    """
    key = str(api_key or _configured_key() or os.environ.get("STRIPE_SECRET_KEY") or "").strip(
        PASTED_CHARACTERS
    )
    if not key:
        raise SetupError(
            "No Stripe key. Set STRIPE_SECRET_KEY, or api_key under [sources.stripe_feed] in .dlt/secrets.toml; "
            "without an account, try `stripe-feed demo`."
        )
    for prefix, what in UNUSABLE_PREFIXES.items():
        if key.startswith(prefix):
            raise SetupError(f"{what} Use a restricted key from {KEYS_PAGE}.")
    if not re.fullmatch(r"[sr]k_[!-~]{1,250}", key):
        raise SetupError(
            f"This is not a Stripe key: it must begin with rk_ or sk_. Copy one from {KEYS_PAGE}."
        )
    return key


def check_account(account: str) -> str:
    """Return the id of an account. Raises `UsageError` for what is none."""
    if not re.fullmatch(r"acct_[A-Za-z0-9]{1,60}", account):
        raise UsageError(
            "This is not the id of an account: it begins with acct_. `stripe-feed sync --resources accounts` "
            "loads the accounts of a platform."
        )
    return account


def read_key(file: str) -> str:
    """Return the key in a file (`-`: standard input). Raises `SetupError` if there is none."""
    try:
        if file == "-":
            content = sys.stdin.buffer.read(MAX_KEY_FILE_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(MAX_KEY_FILE_BYTES + 1)
        encoding = (
            "utf-16"
            if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            else "utf-8-sig"
        )
        key = content.decode(encoding).strip(PASTED_CHARACTERS)
    except (OSError, ValueError) as fault:  # ValueError: a null byte in the path
        what = type(fault).__name__
        raise SetupError(
            f"The key file {file!r} cannot be read ({what}). Check its path and permissions."
        ) from None
    if len(content) > MAX_KEY_FILE_BYTES:
        raise SetupError(
            f"The key file {file!r} is too large: it must hold a key and nothing else."
        )
    if not key:
        raise SetupError(f"The key file {file!r} is empty. Write a key from {KEYS_PAGE} into it.")
    return key


def key_of_profile(profile: str) -> str:
    """Return the key of a profile, from dlt's secrets. Raises `SetupError` if there is none."""
    if not re.fullmatch(r"\w{1,40}", profile, re.ASCII):
        raise UsageError("The name of a profile has 1 to 40 letters, digits or _.")
    key = _configured_key(f"{profile}.")
    if not key:
        raise SetupError(
            f"There is no key of the profile {profile}. Put api_key under [sources.stripe_feed.{profile}] in "
            f".dlt/secrets.toml, or set SOURCES__STRIPE_FEED__{profile.upper()}__API_KEY."
        )
    return key


def _configured_key(section: str = "") -> str | None:
    import dlt

    key: str | None = dlt.secrets.get(f"sources.stripe_feed.{section}api_key", str)
    return key


def is_live(key: str) -> bool:
    """Whether a key works on live data, by its prefix."""
    return "_live_" in key[:9]


def find_base(base: str | None, key: str, allow: bool = False) -> str:
    """Return the API's base URL: the one given, else `STRIPE_API_BASE`, else Stripe's own.

    Raises `SetupError` if a live key would be sent anywhere but to Stripe, unless `allow` is set.
    """
    base = (base or os.environ.get("STRIPE_API_BASE") or STRIPE_BASE).strip(PASTED_CHARACTERS)
    base = re.sub(r"/+(?:v1/*)?$", "", base)  # every path begins with /v1
    try:
        parts = urlsplit(base)
        scheme, host, _ = parts.scheme, parts.hostname, parts.port  # raises for an invalid port
        idna = (host or "").encode("idna")
    except ValueError:
        scheme, host, idna = "", None, b""
    if scheme not in ("https", "http") or not idna or re.search(r"[\s?#\\]", base):
        raise SetupError(
            "STRIPE_API_BASE is not a URL. Unset it to use Stripe's own, or give one such as http://127.0.0.1:12111."
        )
    if "@" in parts.netloc:
        raise SetupError(
            "STRIPE_API_BASE holds a user or a password, which Stripe does not take. Give the URL without them."
        )
    base = parts._replace(scheme=scheme, netloc=parts.netloc.lower()).geturl()
    if is_live(key) and base != STRIPE_BASE and not allow:
        raise SetupError(
            f"A live key would be sent to {host} instead of Stripe. "
            "Unset STRIPE_API_BASE, or pass --allow-api-base if you mean it."
        )
    return base
