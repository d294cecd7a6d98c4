"""Check which addresses a webhook may go to, and connect to exactly those.

The connection goes to the checked address: a name that resolves differently a moment later gains
nothing. Proxies from the environment are not used, because they would resolve the name themselves,
unguarded; nor is urllib3's pool, because it logs paths and queries, and its time limits restart
with every byte.
"""

from __future__ import annotations

import ipaddress
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, cast
from urllib.parse import quote, urlsplit

from ..api.final_response import FinalResponse
from ..errors import SetupError, Unreachable, UsageError

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[..., Iterable[Any]]  # socket.getaddrinfo, or what stands for it

LOOKUP_SECONDS = 30.0  # for which an address stays good
IDLE_SECONDS = 4.0  # many receivers hang up after 5
BODY_BYTES, _BODY_SECONDS = 65_536, 1.0  # of an answer, read only to use the connection again


def _networks(*texts: str) -> tuple[IpNetwork, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


UNICAST = _networks("2000::/3")[
    0
]  # all that is given out of IPv6: NAT64 (64:ff9b::/96) and the like lie outside
DENIED = _networks(  # `is_global` lets these through, in some versions of Python or in all
    "2002::/16",
    "2001::/23",
    "3fff::/20",  # 6to4; Teredo and other protocols; documentation
    "192.0.0.0/24",
    "192.88.99.0/24",  # protocols; relays of 6to4
    "168.63.129.16/32",  # answers every virtual machine at Azure about itself
)
LOCAL = _networks(
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "::1/128",
    "fc00::/7",
)
_METADATA = _networks(
    "100.100.100.200/32", "fd00:ec2::254/128", "fd20:ce::254/128"
)  # of clouds, inside local networks


class Blocked(SetupError):
    """A name resolves to an address that no message may go to."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads, in the form sent over the wire; `path` can hold a secret."""

    is_tls: bool
    host: str
    port: int
    path: str = field(repr=False)

    @property
    def authority(self) -> str:
        """The value of the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"


def check_url(url: str, allow_private: bool = False) -> Target:
    """Split a URL. Raises `UsageError` for faults visible without the network; names only the host."""
    try:
        parts = urlsplit(url)
        host, port = _host(parts.hostname or "", "[" in parts.netloc), parts.port
    except ValueError:
        raise UsageError(
            "The URL has no host or port that can be called. Give one like https://example.com/hook."
        ) from None
    if not url.isprintable() or " " in url or "\\" in url:
        raise UsageError(
            f"The URL to {host} holds a blank, a backslash or a control character. Quote it with %."
        )
    if "@" in parts.netloc:
        raise UsageError(
            f"The URL to {host} holds a user or password. Give them as auth, by reference."
        )
    if "#" in url:
        raise UsageError(f"The URL to {host} has a fragment (#…), which is never sent. Remove it.")
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        raise UsageError(
            f"The URL to {host} must begin with https://; http:// takes allow_private = true."
        )
    if port == 0:
        raise UsageError(
            f"The URL to {host} has port 0, which cannot be called. Give another port."
        )
    is_tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(
        is_tls, host, port or (443 if is_tls else 80), quote(path, safe="!$%&'()*+,-./:;=?@[]_~")
    )


def _host(name: str, is_bracketed: bool) -> str:
    """Return a host in ASCII. Raises `ValueError` if it is invalid."""
    if is_bracketed and "%" not in name:
        return str(ipaddress.IPv6Address(name))
    host = name.encode("idna").decode().removesuffix(".").lower()
    if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", host) or len(host) > 253:
        raise ValueError
    return host


def resolve(
    host: str, port: int, allow_private: bool = False, lookup: Resolver = socket.getaddrinfo
) -> list[str]:
    """Resolve a name once and return its addresses, all of which may be called.

    Without `allow_private` each must be public. With it loopback and private networks pass too;
    link-local addresses (cloud metadata), multicast, reserved and unspecified ones never do. An
    address embedded in another is checked itself. Raises `Blocked` if any address may not be
    called, and `Unreachable` if there is none.
    """
    try:
        addresses = list(
            dict.fromkeys(str(one[4][0]) for one in lookup(host, port, type=socket.SOCK_STREAM))
        )
    except (OSError, UnicodeError):
        addresses = []
    if not addresses:
        raise Unreachable(
            f"No address was found for {host}. Check the name and the network, then run again."
        )
    if not all(may_call(address, allow_private) for address in addresses):
        fix = (
            "It is never called."
            if allow_private
            else "allow_private = true is for tools on this machine or network."
        )
        raise Blocked(f"{host} leads to an address that is not public. {fix}")
    return addresses


def may_call(address: str, allow_private: bool = False) -> bool:
    """Whether a connection may go to this numeric address."""
    judged = _embedded_ipv4(ipaddress.ip_address(address))
    if _in_any(judged, _METADATA):
        return False
    if allow_private and _in_any(judged, LOCAL):
        return True
    given_out = judged.version == 4 or judged in UNICAST
    return (
        given_out
        and judged.is_global
        and not (judged.is_multicast or judged.is_reserved or _in_any(judged, DENIED))
    )


def _embedded_ipv4(address: IpAddress) -> IpAddress:
    """Return the IPv4 address inside a mapped (::ffff:a.b.c.d) or compatible (::a.b.c.d) one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    return address.ipv4_mapped or (
        ipaddress.IPv4Address(int(address)) if 1 < int(address) < 2**32 else address
    )


def _in_any(address: IpAddress, networks: tuple[IpNetwork, ...]) -> bool:
    return any(address in network for network in networks)


class Connections:
    """Connections to one target, reused for the next message; threads may share them."""

    def __init__(
        self,
        target: Target,
        *,
        allow_private: bool = False,
        ca_certs: str | None = None,
        lookup: Resolver = socket.getaddrinfo,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.target = target
        self._context = _tls(ca_certs) if target.is_tls else None
        self._allow_private, self._lookup, self._monotonic = allow_private, lookup, monotonic
        self._turn, self._looking = threading.Lock(), threading.Lock()
        self._idle: list[DeadlineSocket] = []
        self._found: tuple[float, list[str]] | None = None
        self._closed = False

    def post(self, body: bytes, headers: Mapping[str, str], timeout: float) -> HTTPResponse:
        """POST once and return the response; its body is not kept.

        `timeout` (seconds) bounds all of it, except for the system's own limit on name lookups.
        Raises `Blocked`, `Unreachable` if the name has no address, and `OSError` or `HTTPException`
        if no complete response head came.
        """
        give_up_at = time.monotonic() + timeout
        sock, is_kept = self._socket(give_up_at)
        try:
            return self._posted(sock, body, headers, give_up_at)
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            if not is_kept or sock.has_heard:
                raise
        fresh = connect(
            self.target, self._addresses(), self._context, give_up_at
        )  # the kept one had ended (RFC 9112, 9.3.1)
        return self._posted(fresh, body, headers, give_up_at)

    def _posted(
        self, sock: DeadlineSocket, body: bytes, headers: Mapping[str, str], give_up_at: float
    ) -> HTTPResponse:
        is_reusable, sock.has_heard = False, False
        http = HTTPConnection(self.target.host, self.target.port)
        http.response_class = FinalResponse
        http.sock, http.auto_open = sock, 0  # by itself it would look the name up
        try:
            sock.arm(give_up_at)
            with suppress(BrokenPipeError):  # a receiver may answer before it has read everything
                http.request(
                    "POST", self.target.path, body, {"Host": self.target.authority, **headers}
                )
            answer = http.getresponse()
            if sock.ended:  # http.client takes the end of a connection for the end of the head
                raise ConnectionResetError
            is_reusable = _drain(sock, answer) and not answer.will_close
            return answer
        finally:
            self._release(sock, is_reusable)

    def close(self) -> None:
        """Close idle connections now, busy ones when they end."""
        with self._turn:
            self._closed = True
            while self._idle:
                self._idle.pop().close()

    def _socket(self, give_up_at: float) -> tuple[DeadlineSocket, bool]:
        """Return a connection, and whether it is reused."""
        addresses = self._addresses()
        while sock := self._taken():
            if sock.is_good(addresses, self._monotonic()):
                return sock, True
            sock.close()
        return connect(self.target, addresses, self._context, give_up_at), False

    def _addresses(self) -> list[str]:
        with self._looking:
            now = self._monotonic()
            if self._found is None or now - self._found[0] >= LOOKUP_SECONDS:
                self._found = (
                    now,
                    resolve(self.target.host, self.target.port, self._allow_private, self._lookup),
                )
            return self._found[1]

    def _taken(self) -> DeadlineSocket | None:
        with self._turn:
            return self._idle.pop() if self._idle else None

    def _release(self, sock: DeadlineSocket, is_reusable: bool) -> None:
        with self._turn:
            if is_reusable and not self._closed:
                sock.used_at = self._monotonic()
                self._idle.append(sock)
                return
        sock.close()


class DeadlineSocket(socket.socket):
    """A socket that times out at a time of the monotonic clock, however slowly bytes arrive.
    `ended`: the other side closed; `has_heard`: it sent something.
    """

    address = ""
    used_at = give_up_at = 0.0
    ended = has_heard = False

    def arm(self, give_up_at: float) -> None:
        """Set the deadline. Raises `TimeoutError` if it has passed."""
        self.give_up_at = give_up_at
        left = give_up_at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)

    def recv_into(self, *args: Any) -> int:
        """As in `socket`, within the deadline."""
        self.arm(self.give_up_at)
        count = super().recv_into(*args)
        self.ended, self.has_heard = not count, self.has_heard or count > 0
        return count

    def send(self, *args: Any) -> int:
        """As in `socket`, within the deadline; TLS calls it for each piece of a body."""
        self.arm(self.give_up_at)
        return super().send(*args)

    def is_good(self, addresses: list[str], now: float) -> bool:
        """Whether one more message may use it."""
        poll = select.poll()
        poll.register(self, select.POLLIN)
        return (
            not poll.poll(0) and now - self.used_at < IDLE_SECONDS and self.address in addresses
        )  # readable: hung up


class _TimedTls(DeadlineSocket, ssl.SSLSocket):
    pass


def _drain(sock: DeadlineSocket, answer: HTTPResponse) -> bool:
    """Read the body within bounds, and return whether it ended; it says nothing that the status
    does not.
    """
    try:
        sock.arm(min(sock.give_up_at, time.monotonic() + _BODY_SECONDS))
        answer.read(BODY_BYTES)
        return (
            answer.isclosed() and not sock.ended and answer.status >= 200
        )  # 1xx: another answer follows
    except (OSError, HTTPException, ValueError):
        return False
    finally:
        answer.close()


def _tls(ca_certs: str | None) -> ssl.SSLContext:
    """Return a TLS context that verifies against the system's authorities, or those in a file.
    Raises `SetupError`.
    """
    try:
        context = ssl.create_default_context(cafile=ca_certs)
    except OSError as fault:
        raise SetupError(
            f"The certificates in {ca_certs} cannot be read ({type(fault).__name__}). Check the file."
        ) from None
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = _TimedTls
    return context


def connect(
    target: Target, addresses: list[str], context: ssl.SSLContext | None, give_up_at: float
) -> DeadlineSocket:
    """Connect to the first address that answers; TLS checks the certificate for the target's host.
    Raises `OSError`.
    """
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        now = time.monotonic()
        try:
            return _connect_one(
                target, address, context, now + (give_up_at - now) / left
            )  # a silent one leaves time for the next
        except OSError:
            if left == 1:
                raise
    raise OSError


def _connect_one(
    target: Target, address: str, context: ssl.SSLContext | None, give_up_at: float
) -> DeadlineSocket:
    sock = DeadlineSocket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.arm(give_up_at)
        sock.connect((address, target.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            sock.arm(give_up_at)
            sock = cast(DeadlineSocket, context.wrap_socket(sock, server_hostname=target.host))
        sock.address = address
        return sock
    except BaseException:
        sock.close()
        raise
