"""Turn refusals of Stripe, and answers of a proxy in its place, into errors.

Stripe's sentence is searched for hints. Only actions quote it, after the transport has replaced what
was sent: it can hold the key or personal data.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Literal

import msgspec
import stripe

from ..errors import (
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
    Unreachable,
    UsageError,
)
from ..resources import RESOURCES
from ..resources.writable import WRITABLE
from .credentials import KEYS_PAGE, LOGS_PAGE

RETRYABLE_STATUSES = frozenset(
    (408, 409, 424, 425)
)  # and 5xx: a service behind Stripe, or somebody between, did not answer in time
TOO_LARGE_STATUSES = frozenset((413, 504))
PERMISSIONS = {row.path.replace("{id}", ":id"): row.needs for row in RESOURCES.values()}
WRITE_PERMISSIONS = {row.path: row.permission for row in WRITABLE.values()}
PERMISSION_PATTERN = re.compile(r"\b(rak_\w{1,60})|[`'\"](\w{1,60}_(?:read|write))[`'\"]")
NOT_ENABLED_PATTERN = re.compile(
    r"not (?:set up|enabled|activated|available|eligible)|not have access to|must be activated|sign up"
)


class InvalidBody(msgspec.ValidationError):
    """A body that is JSON but not an answer of Stripe's: it is requested again."""


def is_retryable(status: int) -> bool:
    """Whether a request with this status, or without an answer (0), is retried."""
    return (
        status in (0, 429)
        or status in RETRYABLE_STATUSES
        or (status >= 500 and status != HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED)
    )


def fault_name(fault: BaseException) -> str:
    """The class of a connection fault, as named by the transport."""
    words = re.findall(r"\w+", str(fault))
    return words[0] if words else type(fault).__name__


def stripe_code(fault: stripe.StripeError) -> str | None:
    """Stripe's error code; the SDK fills `code` for some classes only."""
    error = getattr(fault, "error", None)
    return printable_name(fault.code or getattr(error, "code", None))


Purpose = Literal["object", "list", "action", "write"]
"""What a request was for: a list can be left out, actions and their writes quote Stripe's sentence."""


def to_error(
    fault: stripe.StripeError, endpoint: str, purpose: Purpose = "object"
) -> StripeFeedError:
    """Translate an error of the SDK."""
    text, status = str(fault).lower(), fault.http_status or 0
    trace = f"request {id}" if (id := printable_name(fault.request_id)) else "no request id"
    if stripe_code(fault) == "lock_timeout":
        return RateLimited(
            f"{endpoint}: other requests keep the object locked (429, lock_timeout). Run again later."
        )
    if status == 429 or isinstance(fault, stripe.RateLimitError):
        return RateLimited(
            f"{endpoint}: Stripe keeps answering 429 (too many requests). Run again later, or lower --max-rps."
        )
    if not status or is_retryable(status):
        return Unreachable(
            f"{endpoint}: Stripe keeps answering {status or 'no status'} ({trace}). Run again later."
        )
    if fault.error is None:
        return SetupError(
            f"{endpoint}: a proxy answered {status} instead of Stripe. "
            "Check the proxy, the network's login page and STRIPE_API_BASE."
        )
    if status in (401, 403):
        return _access_error(fault, status, endpoint, trace, text, purpose == "write")
    if status == 400 and re.search(r"stripe[- ](?:api[- ])?version|\bapi version", text):
        return UsageError(
            f"Stripe does not know this API version (400, {trace}). Leave out --api-version, or give another one."
        )
    if purpose in ("action", "write"):
        return _refused_action(fault, endpoint, trace)
    return _refused_request(fault, endpoint, trace, text, purpose == "list")


def foreign_answer(host: str | None, endpoint: str, body: bytes) -> SetupError | None:
    """The error for a whole body that cannot be Stripe's: a web page, or other JSON. None if it is
    truncated: the next try may succeed.
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


def is_truncated(body: bytes) -> bool:
    """Whether a body is JSON without its end."""
    return bool(body) and body.lstrip()[:1] in b"{[" and not _is_json(body)


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _access_error(
    fault: stripe.StripeError, status: int, endpoint: str, trace: str, text: str, is_write: bool
) -> StripeFeedError:
    """Translate 401 and 403. A live key that lacks a permission gets 401, others 403; Stripe's
    sentence names it.
    """
    needed = next((one or other for one, other in PERMISSION_PATTERN.findall(text)), None)
    if "ip address" in text:
        return SetupError(
            f"Stripe refuses requests with this key from this machine's IP address ({status}, {trace}). "
            f"Allow the address for the key at {KEYS_PAGE}, or run on a machine that is allowed."
        )
    account = re.search(r"\bacct_\w{1,60}", str(fault))
    if stripe_code(fault) == "account_invalid" or "access to account" in text:
        return NoAccess(
            f"This key has no access to the account{f' {account[0]}' if account else ''} ({status}, {trace}): it does not exist, or "
            f"has revoked the access. Check the id, or use a key of the account from {KEYS_PAGE}."
        )
    if "any connect permissions" in text:
        return SetupError(
            f"This key may not read connected accounts ({status}, {trace}). "
            f"Add the permission rak_connected_account_read at {KEYS_PAGE}, or read the account of the key itself."
        )
    if status == 401 and needed is None and "permission" not in text:
        word = "expired" if "expired" in text else "not valid"
        return SetupError(
            f"Stripe says this key is {word} (401, {trace}). Copy a valid one from {KEYS_PAGE}."
        )
    if is_write and needed is None:
        needed = WRITE_PERMISSIONS.get("/".join(endpoint.split("/")[:3]))
    needs = PERMISSIONS.get(endpoint)
    fix = f"Check the key's permissions at {KEYS_PAGE}{f': this needs {needs}' if needs else ''}."
    if needed is not None:
        fix = f"Add the permission {needed} at {KEYS_PAGE}."
    return PermissionMissing(
        f"{endpoint}: this key may not {'write' if is_write else 'read'} it ({status}, {trace}). {fix}",
        needed,
        account[0] if account else None,
    )


def _refused_request(
    fault: stripe.StripeError, endpoint: str, trace: str, text: str, is_list: bool
) -> StripeFeedError:
    code, param, status = (
        stripe_code(fault),
        printable_name(getattr(fault, "param", None)),
        fault.http_status,
    )
    what = f"({status}, {code or 'no code'}, param {param}, {trace})"
    if param in ("starting_after", "ending_before"):
        return CursorGone(f"{endpoint}: Stripe refuses the request {what}.", code, param)
    if code == "resource_missing" and not (
        is_list and param in (None, "id")
    ):  # 400 where a parameter names the object
        return NotFound(f"{endpoint}: no such object ({trace}).", code, param)
    if "unrecognized request url" in text:
        return NotSetUp(
            f"{endpoint}: there is no such list at this address {what}. "
            "Check STRIPE_API_BASE and --api-version, or leave it out with --resources."
        )
    if status == 404 and not is_list:
        return NotFound(f"{endpoint}: no such object ({trace}).", code, param)
    if NOT_ENABLED_PATTERN.search(text):
        return NotSetUp(
            f"{endpoint}: the account is not set up for it {what}. Leave it out with --resources."
        )
    if is_list:
        return NotReadable(
            f"{endpoint}: Stripe refuses the list {what}. Leave it out with --resources; {LOGS_PAGE} shows the reason."
        )
    return RequestRefused(
        f"{endpoint}: Stripe refuses the request {what}. {LOGS_PAGE} shows the reason.", code, param
    )


KEY_REUSED = "idempotency_error"
"""The code of a refusal whose idempotency key was used for another request; Stripe gives it none."""


def _refused_action(fault: stripe.StripeError, endpoint: str, trace: str) -> RequestRefused:
    """The refusal of an action, in Stripe's words."""
    code, param = stripe_code(fault), printable_name(getattr(fault, "param", None))
    if isinstance(fault, stripe.IdempotencyError):
        code = KEY_REUSED
    declined = printable_name(getattr(fault.error, "decline_code", None))
    details = [f"param {param}" if param else "", f"decline code {declined}" if declined else ""]
    what = ", ".join(part for part in (str(fault.http_status), code, *details, trace) if part)
    sentence = (fault.user_message or "no reason given").strip()
    kind = NotFound if fault.http_status == 404 else RequestRefused
    return kind(
        f"Stripe refuses it: {sentence} ({endpoint}: {what})",
        code,
        param,
        printable_name(fault.request_id),
        declined,
    )


def printable_name(value: object) -> str | None:
    """A name in an answer if it looks like one: it is shown, and anybody may have sent it."""
    return (
        value
        if isinstance(value, str) and re.fullmatch(r"[\w.\[\]-]{1,80}", value, re.ASCII)
        else None
    )
