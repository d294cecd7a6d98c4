"""Requests on the wire: the SDK's HTTP client on urllib3, which keeps answers as bytes and ends
each one in time.
"""

from __future__ import annotations

import http.client
import io
import os
import ssl
import threading
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec
import stripe
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from ..errors import SetupError

CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
CONNECT = 10.0  # seconds
LONGEST = 80.0  # seconds for one request and its answer, Stripe's own limit
SHORTEST = 5.0  # what a request gets at least

_due = (
    threading.local()
)  # `.at`: when the answer that this thread reads must be there, in monotonic seconds


class _InTime(io.RawIOBase):
    """A connection that is read from until the time is up: a socket's own timeout starts anew with
    each byte.
    """

    def __init__(self, sock: Any) -> None:
        self.sock, self.raw = sock, sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = getattr(_due, "at", monotonic() + LONGEST) - monotonic()
        if left <= 0:
            raise TimeoutError("the answer did not come in time")
        with suppress(OSError):  # closed meanwhile: reading says so
            self.sock.settimeout(left)
        found: int | None = self.raw.readinto(buffer)
        return found

    def close(self) -> None:
        self.raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_InTime(sock))


class _Plain(HTTPConnection):
    response_class = _Response


class _Secure(HTTPSConnection):
    response_class = _Response


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Secure


def find_proxy(base: SplitResult) -> str | None:
    """Return the proxy that the environment names for a URL, as requests and curl read it."""
    proxies = urllib.request.getproxies()
    proxy = (proxies.get(base.scheme) or proxies.get("all") or "").strip()
    if not proxy or urllib.request.proxy_bypass(base.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _through(proxy: str, options: Mapping[str, Any]) -> urllib3.PoolManager:
    try:
        parts = urllib3.util.parse_url(proxy)
        if not parts.host:
            raise urllib3.exceptions.LocationParseError(proxy)
        headers = urllib3.make_headers(proxy_basic_auth=unquote(parts.auth)) if parts.auth else None
        return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)
    except (
        urllib3.exceptions.ProxySchemeUnknown,
        urllib3.exceptions.LocationParseError,
        UnicodeError,
    ):
        raise SetupError(
            "HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used. Give a URL like http://proxy.example:3128, or unset it."
        ) from None


def find_certificates() -> str:
    """The file or folder of trusted certificates. Raises `SetupError` where the environment names
    one that is none.
    """
    name = next((name for name in CA_VARIABLES if os.environ.get(name)), None)
    if name is None:
        return str(stripe.ca_bundle_path)
    path = os.environ[name]
    try:
        if not os.path.isdir(path):
            ssl.create_default_context(cafile=path)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        raise SetupError(
            f"{name} names no file or folder of certificates (PEM) that can be read. Mend its path, or unset it."
        ) from None
    return path


class BytesClient(stripe.HTTPClient):
    """The SDK's transport on urllib3; keeps the body of a 2xx answer as bytes and hands the SDK an
    empty object.
    """

    name = "urllib3"

    def __init__(self, base: str, threads: int) -> None:
        super().__init__()
        options: dict[str, Any] = {"maxsize": threads, "block": False, "retries": False}
        parts = urlsplit(base)
        proxy = find_proxy(parts)
        if parts.scheme == "https" or (proxy or "").startswith("https:"):
            ca = find_certificates()
            options["ca_cert_dir" if os.path.isdir(ca) else "ca_certs"] = ca
        self.pool = _through(proxy, options) if proxy else urllib3.PoolManager(**options)
        self.pool.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
        self.last = threading.local()

    def allow(self, seconds: float) -> None:
        """The time that this thread's next request may take, its answer included."""
        _due.at = monotonic() + min(LONGEST, max(SHORTEST, seconds))

    def request(  # type: ignore[override]  # the SDK's own transports return bytes too
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Send one request. Any fault on the way is a `stripe.APIConnectionError` that names its
        class only.
        """
        left = max(0.1, getattr(_due, "at", monotonic() + LONGEST) - monotonic())
        self.last.body, self.last.headers = b"", {}
        asked = {**(headers or {}), "Accept-Encoding": "gzip", "Cache-Control": "no-cache"}
        try:
            answer = self.pool.request(
                method,
                url,
                headers=asked,
                body=post_data,
                timeout=urllib3.Timeout(connect=min(CONNECT, left), read=left),
            )
        except urllib3.exceptions.HTTPError as fault:
            retry = not isinstance(fault, urllib3.exceptions.SSLError)
            raise stripe.APIConnectionError(type(fault).__name__, should_retry=retry) from None  # type: ignore[no-untyped-call]
        body = answer.data
        self.last.headers = answer.headers
        if 200 <= answer.status < 300:
            self.last.body, body = body, b"{}"
        elif not _is_error(body):
            body = b"{}"  # of whoever stands between: the SDK would stumble over some of it
        return body, answer.status, answer.headers

    def close(self) -> None:
        """Close idle connections."""
        self.pool.clear()


class _Error(msgspec.Struct):
    error: dict[str, Any]


_error = msgspec.json.Decoder(_Error)


def _is_error(body: bytes) -> bool:
    """Whether a body is an error as Stripe words it."""
    try:
        words = (
            _error.decode(body).error.get(name) for name in ("message", "type", "code", "param")
        )
        return all(isinstance(word, str | None) for word in words)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
