"""What an answer says that is not what was asked for: Stripe's refusals, and whoever answers in
Stripe's place.

Stripe's sentence is read for hints, never quoted: it can hold the key or personal data.
"""

from __future__ import annotations

import re
from http import HTTPStatus

import msgspec
import stripe

from ..errors import (
    CursorGone,
    NotFound,
    NotReadable,
    PermissionMissing,
    RateLimited,
    RequestRefused,
    SetupError,
    StripeFeedError,
    Unreachable,
    UsageError,
)
from ..resources import RESOURCES
from .credentials import KEYS_PAGE

PASSING = frozenset(
    (408, 409, 424, 425)
)  # and 5xx: a service behind Stripe, or somebody between, did not answer in time
TOO_BIG = frozenset((413, 504))
NEEDS = {row.path: f"{row.permission} ({row.label})" for row in RESOURCES.values()}
PERMISSION = re.compile(r"\b(rak_\w{1,60})|[`'\"](\w{1,60}_(?:read|write))[`'\"]")
NOT_SET_UP = re.compile(
    r"not (?:set up|enabled|activated|available|eligible)|not have access to|must be activated|sign up"
)


class Malformed(msgspec.ValidationError):
    """A body that is JSON but not an answer of Stripe's: read it again."""


def is_passing(status: int) -> bool:
    """Whether a request that was answered so, or not at all (0), is made again."""
    return (
        status in (0, 429)
        or status in PASSING
        or (status >= 500 and status != HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED)
    )


def first_word(fault: BaseException) -> str:
    """The class of a connection fault, as the transport named it."""
    words = re.findall(r"\w+", str(fault))
    return words[0] if words else type(fault).__name__


def code_of(fault: stripe.StripeError) -> str | None:
    """Stripe's error code; the SDK fills `code` for some classes only."""
    error = getattr(fault, "error", None)
    return _word(fault.code or getattr(error, "code", None))


def problem(fault: stripe.StripeError, endpoint: str, is_list: bool = False) -> StripeFeedError:
    """Our error for one of the SDK's; `is_list`: a list was asked for, which can be left out."""
    text, status = str(fault).lower(), fault.http_status or 0
    trace = f"request {id}" if (id := _word(fault.request_id)) else "no request id"
    if status == 429 or isinstance(fault, stripe.RateLimitError):
        return RateLimited(
            f"{endpoint}: Stripe keeps answering 429 (too many requests). Run again later, or lower --max-rps."
        )
    if not status or is_passing(status):
        return Unreachable(
            f"{endpoint}: Stripe keeps answering {status or 'no status'} ({trace}). Run again later."
        )
    if fault.error is None:
        return SetupError(
            f"{endpoint}: something answers {status} in Stripe's place. "
            "Check the proxy, the network's login page and STRIPE_API_BASE."
        )
    if status in (401, 403):
        return _locked_out(fault, status, endpoint, trace, text)
    if status == 400 and re.search(r"stripe[- ](?:api[- ])?version|\bapi version", text):
        return UsageError(
            f"Stripe does not know this API version (400, {trace}). Leave out --api-version, or give another."
        )
    return _refusal(fault, endpoint, trace, text, is_list)


def not_stripe(host: str | None, endpoint: str, body: bytes) -> SetupError | None:
    """Why a body cannot be Stripe's, if it is whole: a web page, or JSON of something else. One
    that is cut may pass.
    """
    if body.lstrip()[:1] == b"<":
        what = "a web page"
    elif _is_json(body):
        what = "JSON that is not Stripe's"
    else:
        return None
    return SetupError(
        f"{endpoint}: {host} answers with {what}. Check the proxy, the network's login page and STRIPE_API_BASE."
    )


def is_cut(body: bytes) -> bool:
    """Whether a body is the beginning of something."""
    return bool(body) and body.lstrip()[:1] in b"{[" and not _is_json(body)


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _locked_out(
    fault: stripe.StripeError, status: int, endpoint: str, trace: str, text: str
) -> StripeFeedError:
    """A live key that lacks a permission gets 401, others 403; the sentence says which."""
    needed = next((one or other for one, other in PERMISSION.findall(text)), None)
    if "ip address" in text:
        return SetupError(
            f"Stripe takes no requests with this key from this machine's IP address ({status}, {trace}). "
            f"Add the address to those that the key allows at {KEYS_PAGE}, or run where it is allowed."
        )
    if code_of(fault) == "account_invalid" or "access to account" in text:
        return SetupError(
            f"This key has no access to the account ({status}, {trace}). Use one of the account from {KEYS_PAGE}."
        )
    if status == 401 and needed is None and "permission" not in text:
        word = "expired" if "expired" in text else "not valid"
        return SetupError(
            f"Stripe says that this key is {word} (401, {trace}). Copy a valid one from {KEYS_PAGE}."
        )
    account = re.search(r"\bacct_\w{1,60}", str(fault))
    needs = NEEDS.get(endpoint)
    fix = f"Check the key's permissions at {KEYS_PAGE}{f': this needs {needs}' if needs else ''}."
    if needed is not None:
        fix = f"Add the permission {needed} at {KEYS_PAGE}."
    return PermissionMissing(
        f"{endpoint}: this key may not read it ({status}, {trace}). {fix}",
        needed,
        account[0] if account else None,
    )


def _refusal(
    fault: stripe.StripeError, endpoint: str, trace: str, text: str, is_list: bool
) -> StripeFeedError:
    code, param, status = code_of(fault), _word(getattr(fault, "param", None)), fault.http_status
    what = f"({status}, {code or 'no code'}, param {param}, {trace})"
    if param in ("starting_after", "ending_before"):
        return CursorGone(f"{endpoint}: Stripe refuses the request {what}.", code, param)
    if code == "resource_missing" and not (
        is_list and param in (None, "id")
    ):  # 400 where a parameter names the object
        return NotFound(f"{endpoint}: no such object ({trace}).", code, param)
    if "unrecognized request url" in text:
        return NotReadable(
            f"{endpoint}: there is no such list at this address {what}. "
            "Check STRIPE_API_BASE and --api-version, or leave it out with --resources."
        )
    if status == 404 and not is_list:
        return NotFound(f"{endpoint}: no such object ({trace}).", code, param)
    if NOT_SET_UP.search(text):
        return NotReadable(
            f"{endpoint}: the account is not set up for it {what}. Leave it out with --resources."
        )
    if is_list:
        return NotReadable(
            f"{endpoint}: Stripe refuses the list {what}. Leave it out with --resources, and please report this."
        )
    return RequestRefused(
        f"{endpoint}: Stripe refuses the request {what}. Please report this.", code, param
    )


def _word(found: object) -> str | None:
    """A name in an answer, if it is one: whoever sent it, it is shown."""
    return (
        found
        if isinstance(found, str) and re.fullmatch(r"[\w.\[\]-]{1,80}", found, re.ASCII)
        else None
    )
