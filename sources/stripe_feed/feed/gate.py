"""Who may ask over HTTP: the token, the host and the origin; and what every answer carries. Faults become one line of JSON."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import logging
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import UsageError

log = logging.getLogger("stripe_feed")

OPEN = ("/health", "/stripe")      # one tells nothing, the other has signatures
SHORTEST = 16                      # characters of a token
SAFE = ("GET", "HEAD", "OPTIONS")
PROXIED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
CHALLENGE = {"WWW-Authenticate": 'Basic realm="stripe-feed", charset="UTF-8"'}      # what a browser asks its user for


def require_token_for(host: str, token: str | None) -> None:
    """Raise `UsageError` where a server at this address needs a token and has none, or one that is easily guessed."""
    if token is not None and (len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token):
        raise UsageError(
            f"The token has fewer than {SHORTEST} characters, or blanks or odd ones. `openssl rand -hex 24` makes a good one."
        )
    if token is None and not is_loopback(host):
        raise UsageError(f"{host or 'Every address'} can be reached by others: set a token, or listen on 127.0.0.1.")


def is_loopback(host: str) -> bool:
    """Whether a host, without its port, is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def refused(status: int, words: str, **headers: str) -> Response:
    """A fault as one line of JSON."""
    return JSONResponse({"error": words}, status, {name.replace("_", "-"): value for name, value in headers.items()})


def gate(app: ASGIApp, token: str | None) -> ASGIApp:
    """The app behind a gate. Without a token it answers only who asks for this machine by name, so that no web page can ask."""

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
        try:
            await (refusal or app)(scope, receive, answer)
        except ClientDisconnect:
            pass
        except Exception as fault:      # its words may hold data
            log.error("%s %s failed (%s); please report it.", scope["method"], scope["path"], type(fault).__name__)
            if not begun:
                await refused(500, f"Unexpected ({type(fault).__name__}); please report it.")(scope, receive, answer)

    return ask


def refusal_of(scope: Scope, token: str | None) -> Response | None:
    """The answer to who may not ask."""
    if scope["path"] in OPEN:
        return None
    headers = Headers(scope=scope)
    if token is not None and not _shows(headers.get("authorization", ""), token):
        return refused(401, "This needs the token: `Authorization: Bearer …`, or in a browser as the password.", **CHALLENGE)
    if token is None and not is_loopback(_name(headers.get("host", ""))):
        return refused(421, "Without a token, only localhost, 127.0.0.1 and [::1] are answered. Start it with a token.")
    if token is None and any(name in headers for name in PROXIED):
        return refused(403, "This came through a proxy, so others can ask, too. Start it with a token.")
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    does = scope["method"] not in SAFE or "consumer" in query      # a new consumer is noted
    if does and _is_foreign(headers):
        return refused(403, "This was sent by a page of another origin.")
    return None


def _shows(header: str, token: str) -> bool:
    scheme, _, given = header.partition(" ")
    given = given.strip()
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.encode(), token.encode())


def _name(host: str) -> str:
    """A `Host` without its port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _is_foreign(headers: Headers) -> bool:
    """Browsers say from where a page sends something; other clients say nothing."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:      # a page that sends no referrer has the origin "null" here, even for itself
        return site not in ("same-origin", "none")
    return origin is not None and origin.lower().partition("://")[2] != headers.get("host", "").lower()
