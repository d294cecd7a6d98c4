"""One webhook on its way: signed as Stripe signs, and never longer on it than ten seconds."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import socket
import ssl
import time
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

TIMEOUT = 10.0
MAX_RESPONSE_HEAD = 65_536
USER_AGENT = "Stripe/1.0 (+https://stripe.com/docs/webhooks)"
STATUS = re.compile(rb"HTTP/1\.\d (\d{3})\b")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,9})\r\n", re.IGNORECASE)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, without asking anyone."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def signature(secret: str, body: bytes, at: int) -> str:
    """The header by which a receiver knows who sent a body, and when."""
    signed = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={signed}"


def post(url: str, secret: str, body: bytes, running: set[socket.socket]) -> int:
    """The status of the answer; `running` holds the socket meanwhile. Signed by the wall clock, as
    receivers check by theirs.
    """
    end, parts = time.monotonic() + TIMEOUT, urlsplit(url)
    with _connected(parts) as connection:
        running.add(connection)
        try:
            connection.settimeout(_left(end))
            connection.sendall(_head(parts, secret, body) + body)
            return _status(connection, end)
        finally:
            running.discard(connection)


def _connected(parts: SplitResult) -> socket.socket:
    """A connection to loopback. Certificates are not checked: nobody issues one for that."""
    host = parts.hostname or ""
    if not is_loopback(host):
        raise ValueError(f"{host} is no loopback address: the sandbox calls nothing else")
    plain = socket.create_connection(
        (host, parts.port or (443 if parts.scheme == "https" else 80)), TIMEOUT
    )
    if parts.scheme != "https":
        return plain
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def _head(parts: SplitResult, secret: str, body: bytes) -> bytes:
    lines = [
        f"POST {parts.path or '/'}{'?' if parts.query else ''}{parts.query} HTTP/1.1",
        f"Host: {parts.netloc.rpartition('@')[2]}",
        f"User-Agent: {USER_AGENT}",
        "Accept: */*; q=0.5, application/xml",
        "Cache-Control: no-cache",
        "Content-Type: application/json; charset=utf-8",
        f"Content-Length: {len(body)}",
        f"Stripe-Signature: {signature(secret, body, int(time.time()))}",
        "Connection: close",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _status(connection: socket.socket, end: float) -> int:
    """Reads what is announced of the answer's body too, so that the receiver is not cut off."""
    head = b""
    while b"\r\n\r\n" not in head:
        if len(head) > MAX_RESPONSE_HEAD:
            raise ValueError("the answer's head does not end")
        head += _more(connection, end)
    status = STATUS.match(head)
    if status is None:
        raise ValueError("the answer is no HTTP")
    length = LENGTH.search(head)
    left = min(int(length[1]) if length else 0, MAX_RESPONSE_HEAD) - len(
        head.partition(b"\r\n\r\n")[2]
    )
    with suppress(OSError):
        while left > 0:
            left -= len(_more(connection, end))
    return int(status[1])


def _more(connection: socket.socket, end: float) -> bytes:
    connection.settimeout(_left(end))
    found = connection.recv(MAX_RESPONSE_HEAD)
    if not found:
        raise ConnectionError("closed before the answer's end")
    return found


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left
