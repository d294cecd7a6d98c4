"""Who may ask over HTTP: whoever shows the token, from no page of another origin. Faults become one
line of JSON.

This machine is no exception: who comes through a proxy or a tunnel looks as if they sat at it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import os
import secrets as chance
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

OPEN = ("/health", "/stripe")  # one tells nothing, the other has signatures
SHORTEST = 16  # characters of a token
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
    """Raise `UsageError` for a token that is easily guessed or that no header can hold."""
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"The token has fewer than {SHORTEST} characters, or blanks or odd ones. `openssl rand -hex 24` makes a good one."
        )


def kept_token(file: Path) -> tuple[str, bool]:
    """The token in a private file, and whether it was made just now. Raises `SetupError` where the
    file is not to be trusted.
    """
    delete = f"Delete {file.name} to get a new token, or set one."
    try:
        with open(
            os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii"
        ) as new:
            new.write(token := chance.token_hex(24))
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
                    f"{file.name} holds the token, and others may read it: `chmod 600` it. {delete}"
                )
            token = held.read(1_000).strip()
            check_token(token)
            return token, False
    except (OSError, UnicodeError, UsageError):
        raise SetupError(f"{file.name} holds no token, or cannot be read. {delete}") from None


def refused(status: int, words: str, **headers: str) -> Response:
    """A fault as one line of JSON."""
    return JSONResponse(
        {"error": words}, status, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def gate(app: ASGIApp, token: str, counts: Counter[str]) -> ASGIApp:
    """The app behind a gate: every route but those in `OPEN` asks for the token. `counts`: how many
    were turned away.
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

        refusal = refusal_of(scope, token)
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
                await refused(500, f"Unexpected ({type(fault).__name__}); please report it.")(
                    scope, receive, answer
                )

    return ask


def refusal_of(scope: Scope, token: str) -> Response | None:
    """The answer to who may not ask, and to who brings the page's link: the page from then on has a
    cookie.
    """
    if scope["path"] in OPEN:
        return None
    headers = Headers(scope=scope)
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    if scope["path"] == "/" and "token" in query and _is(query["token"][-1], token):
        return _let_in(token, is_secure=headers.get("x-forwarded-proto") == "https")
    if not _is(_shown(headers.get("authorization", "")), token) and not _is(
        _cookie(headers, token), _session(token)
    ):
        return refused(
            401,
            "This needs the token: `Authorization: Bearer …`, or in a browser as the password.",
            **CHALLENGE,
        )
    does = scope["method"] not in SAFE or "consumer" in query  # a new consumer is noted
    if does and _is_foreign(headers):
        return refused(403, "This was sent by a page of another origin.")
    return None


def _let_in(token: str, is_secure: bool) -> Response:
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
    """What the cookie holds: it opens this server, and does not tell the token."""
    return hmac.new(token.encode(), b"stripe-feed session", sha256).hexdigest()


def _cookie_name(token: str) -> str:
    """Cookies are shared among the ports of a host: servers with other tokens have cookies of other
    names.
    """
    return f"stripe_feed_{hmac.new(token.encode(), b'stripe-feed cookie', sha256).hexdigest()[:8]}"


def _cookie(headers: Headers, token: str) -> str:
    return cookie_parser(headers.get("cookie", "")).get(
        _cookie_name(token), ""
    )  # whatever others of this host wrote


def _is(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogateescape"), expected.encode())


def _shown(header: str) -> str:
    """The token in an `Authorization` header, as bearer or as a password."""
    scheme, _, given = header.partition(" ")
    match scheme.lower():
        case "bearer":
            return given.strip()
        case "basic":
            with suppress(binascii.Error, ValueError):
                return base64.b64decode(given.strip(), validate=True).decode().partition(":")[2]
    return ""


def _is_foreign(headers: Headers) -> bool:
    """Browsers say from where a page sends something; other clients say nothing."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if (
        site is not None
    ):  # a page that sends no referrer has the origin "null" here, even for itself
        return site not in ("same-origin", "none")
    return (
        origin is not None and origin.lower().partition("://")[2] != headers.get("host", "").lower()
    )
