"""Authorize HTTP requests: the client shows the token, and no page of another origin sends. Errors
become one line of JSON.

Local requests are no exception: a client behind a proxy or a tunnel also appears local.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import os
import secrets
import stat
from collections import Counter
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import SetupError, UsageError

log = logging.getLogger("stripe_feed")

PUBLIC_PATHS = ("/health", "/stripe")  # one tells nothing, the other has signatures
MIN_TOKEN_LENGTH = 16  # characters of a token
SAFE = ("GET", "HEAD", "OPTIONS")
A_YEAR = 365 * 86_400
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
CHALLENGE = {
    "WWW-Authenticate": 'Basic realm="stripe-feed", charset="UTF-8"'
}  # what a browser asks its user for


def check_token(token: str) -> None:
    """Raise `UsageError` for a token that is easy to guess or that no header can hold."""
    if (
        len(token) < MIN_TOKEN_LENGTH
        or not token.isascii()
        or not token.isprintable()
        or " " in token
    ):
        raise UsageError(
            f"The token has fewer than {MIN_TOKEN_LENGTH} characters, or blanks or odd ones. `openssl rand -hex 24` makes a good one."
        )


def load_or_create_token(file: Path) -> tuple[str, bool]:
    """Return the token from a private file, and whether it was created now. Raises `SetupError` if
    the file cannot be trusted.
    """
    delete = f"Delete {file.name} to get a new token, or set one."
    try:
        with open(
            os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii"
        ) as new:
            new.write(token := secrets.token_hex(24))
        return token, True
    except FileExistsError:
        pass
    except OSError as fault:
        raise SetupError(
            f"{file.name} cannot be written ({fault.strerror}). Allow it, or set a token."
        ) from None
    try:
        with open(
            os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="ascii"
        ) as held:
            mode = os.fstat(held.fileno()).st_mode
            if not stat.S_ISREG(mode) or mode & 0o077:
                raise SetupError(
                    f"{file.name} holds the token, and others may read it: run `chmod 600` on it. {delete}"
                )
            token = held.read(1_000).strip()
            check_token(token)
            return token, False
    except (OSError, UnicodeError, UsageError):
        raise SetupError(f"{file.name} holds no token, or cannot be read. {delete}") from None


def error_json(status: int, words: str, **headers: str) -> Response:
    """Return an error as one line of JSON."""
    return JSONResponse(
        {"error": words}, status, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def AuthMiddleware(app: ASGIApp, token: str, counts: Counter[str]) -> ASGIApp:
    """Wrap the app: every route except `PUBLIC_PATHS` requires the token. `counts`: counts refused
    requests.
    """

    async def ask(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = check_access(scope, token)
        counts["turned_away"] += refusal is not None and refusal.status_code == 401
        try:
            await (refusal or app)(scope, receive, answer)
        except ClientDisconnect:
            pass
        except Exception as fault:  # its words may hold data
            log.error(
                "%s %s failed (%s); please report it.",
                scope["method"],
                scope["path"],
                type(fault).__name__,
            )
            if not begun:
                await error_json(500, f"Unexpected ({type(fault).__name__}); please report it.")(
                    scope, receive, answer
                )

    return ask


def check_access(scope: Scope, token: str) -> Response | None:
    """Return the response for a request without access, or for the page's link: from then on the
    page has a cookie.
    """
    if scope["path"] in PUBLIC_PATHS:
        return None
    headers = Headers(scope=scope)
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    if scope["path"] == "/" and "token" in query and _equals(query["token"][-1], token):
        return _start_session(token, is_secure=headers.get("x-forwarded-proto") == "https")
    if not _equals(_token_in(headers.get("authorization", "")), token) and not _equals(
        _cookie(headers, token), _session(token)
    ):
        return error_json(
            401,
            "This route requires the token: `Authorization: Bearer …`, or in a browser as the password.",
            **CHALLENGE,
        )
    does = scope["method"] not in SAFE or "consumer" in query  # a new consumer is noted
    if does and _is_cross_origin(headers):
        return error_json(403, "This was sent by a page of another origin.")
    return None


def _start_session(token: str, is_secure: bool) -> Response:
    answer = RedirectResponse("/", 303)  # the token leaves the address bar
    answer.set_cookie(
        _cookie_name(token),
        _session(token),
        max_age=A_YEAR,
        httponly=True,
        samesite="strict",
        secure=is_secure,
    )
    return answer


def _session(token: str) -> str:
    """Return the cookie's value: it opens this server without revealing the token."""
    return hmac.new(token.encode(), b"stripe-feed session", sha256).hexdigest()


def _cookie_name(token: str) -> str:
    """Name the cookie after the token: ports of one host share cookies, and servers with other
    tokens need other names.
    """
    return f"stripe_feed_{hmac.new(token.encode(), b'stripe-feed cookie', sha256).hexdigest()[:8]}"


def _cookie(headers: Headers, token: str) -> str:
    return cookie_parser(headers.get("cookie", "")).get(
        _cookie_name(token), ""
    )  # whatever others of this host wrote


def _equals(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogateescape"), expected.encode())


def _token_in(header: str) -> str:
    """Return the token in an `Authorization` header, as bearer or as a password."""
    scheme, _, given = header.partition(" ")
    match scheme.lower():
        case "bearer":
            return given.strip()
        case "basic":
            with suppress(binascii.Error, ValueError):
                return base64.b64decode(given.strip(), validate=True).decode().partition(":")[2]
    return ""


def _is_cross_origin(headers: Headers) -> bool:
    """Whether a page of another origin sent the request. Browsers state the origin; other clients
    do not.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if (
        site is not None
    ):  # a page that sends no referrer has the origin "null" here, even for itself
        return site not in ("same-origin", "none")
    return (
        origin is not None and origin.lower().partition("://")[2] != headers.get("host", "").lower()
    )
