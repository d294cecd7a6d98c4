"""Send one webhook: signed as Stripe signs, within ten seconds."""

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
    """Whether a host is this machine, decided without a look-up."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def signature(secret: str, body: bytes, at: int) -> str:
    """The header that proves to a receiver who sent a body and when."""
    signed = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={signed}"


def post(url: str, secret: str, body: bytes, connections: set[socket.socket]) -> int:
    """Send a body and return the status of the answer. `connections` holds the open socket
    meanwhile, so that others can close it. The signature has the time of the wall clock, because
    receivers compare it with theirs.
    """
    end, parts = time.monotonic() + TIMEOUT, urlsplit(url)
    with _connected(parts) as connection:
        connections.add(connection)
        try:
            connection.settimeout(_remaining(end))
            connection.sendall(_head(parts, secret, body) + body)
            return _status(connection, end)
        finally:
            connections.discard(connection)


def _connected(parts: SplitResult) -> socket.socket:
    """A connection to a loopback address. Certificates are not verified: no authority issues them
    for loopback.
    """
    host = parts.hostname or ""
    if not is_loopback(host):
        raise ValueError(f"{host} is not a loopback address: the sandbox sends webhooks only there")
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
    """Read the whole announced answer, so that the receiver can finish sending it."""
    head = b""
    while b"\r\n\r\n" not in head:
        if len(head) > MAX_RESPONSE_HEAD:
            raise ValueError("the head of the answer is too long")
        head += _receive(connection, end)
    status = STATUS.match(head)
    if status is None:
        raise ValueError("the answer is not HTTP")
    length = LENGTH.search(head)
    remaining = min(int(length[1]) if length else 0, MAX_RESPONSE_HEAD) - len(
        head.partition(b"\r\n\r\n")[2]
    )
    with suppress(OSError):
        while remaining > 0:
            remaining -= len(_receive(connection, end))
    return int(status[1])


def _receive(connection: socket.socket, end: float) -> bytes:
    connection.settimeout(_remaining(end))
    received = connection.recv(MAX_RESPONSE_HEAD)
    if not received:
        raise ConnectionError("the connection was closed before the end of the answer")
    return received


def _remaining(end: float) -> float:
    remaining = end - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("timed out")
    return remaining
