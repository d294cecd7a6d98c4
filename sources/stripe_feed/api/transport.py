"""HTTP for the SDK on urllib3: answers stay bytes, and each has a deadline."""

from __future__ import annotations

import codecs
import io
import logging
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
from .final_response import FinalResponse
from .forms import Form, redact, to_query

CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
CONNECT_TIMEOUT = 10.0  # seconds
MAX_TIMEOUT = 80.0  # seconds for one request and its answer, Stripe's own limit
MAX_SENTENCE = 600  # characters of Stripe's sentence
MIN_TIMEOUT = 5.0  # what a request gets at least

_deadline = (
    threading.local()
)  # `.at`: when the answer that this thread reads must be there, in monotonic seconds


class _DeadlineIO(io.RawIOBase):
    """A connection with a deadline for reading: a socket's own timeout restarts with each byte."""

    def __init__(self, sock: Any) -> None:
        self.sock, self.raw = sock, sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = getattr(_deadline, "at", monotonic() + MAX_TIMEOUT) - monotonic()
        if left <= 0:
            raise TimeoutError("the answer did not come in time")
        with suppress(OSError):  # if it was closed meanwhile, reading raises
            self.sock.settimeout(left)
        count: int | None = self.raw.readinto(buffer)
        return count

    def close(self) -> None:
        self.raw.close()
        super().close()


class _DeadlineResponse(FinalResponse):
    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_DeadlineIO(sock))


class _HttpConnection(HTTPConnection):
    response_class = _DeadlineResponse


class _HttpsConnection(HTTPSConnection):
    response_class = _DeadlineResponse


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


def proxy_for(base: SplitResult) -> str | None:
    """Return the proxy that the environment names for a URL, as requests and curl read it."""
    proxies = urllib.request.getproxies()
    proxy = (proxies.get(base.scheme) or proxies.get("all") or "").strip()
    if not proxy or urllib.request.proxy_bypass(base.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _proxy_manager(proxy: str, options: Mapping[str, Any]) -> urllib3.PoolManager:
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


def certificate_path() -> str:
    """The file or folder of trusted certificates. Raises `SetupError` if the environment names an
    invalid one.
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
            f"{name} does not name a readable file or folder of certificates (PEM). Correct its path, or unset it."
        ) from None
    return path


class _WithoutQuery(logging.Filter):
    """Keeps what is asked for, an e-mail address perhaps, out of the log of urllib3."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                part.partition("?")[0] if isinstance(part, str) and "/v1/" in part else part
                for part in record.args
            )
        return True


logging.getLogger("urllib3.connectionpool").addFilter(_WithoutQuery())


class BytesHttpClient(stripe.HTTPClient):
    """The SDK's transport on urllib3; keeps the body of a 2xx answer as bytes and hands the SDK an
    empty object.
    """

    name = "urllib3"

    def __init__(self, base: str, threads: int) -> None:
        super().__init__()
        options: dict[str, Any] = {"maxsize": threads, "block": False, "retries": False}
        parts = urlsplit(base)
        proxy = proxy_for(parts)
        if parts.scheme == "https" or (proxy or "").startswith("https:"):
            ca = certificate_path()
            options["ca_cert_dir" if os.path.isdir(ca) else "ca_certs"] = ca
        self.pool = _proxy_manager(proxy, options) if proxy else urllib3.PoolManager(**options)
        self.pool.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        self.last = threading.local()
        self.outgoing = threading.local()

    def set_form(self, form: Form) -> None:
        """Set the fields that this thread's next request carries, in its query or its body. The SDK
        does not see them, so none can be one of its options or get into its log.
        """
        self.outgoing.form = form

    def set_timeout(self, seconds: float) -> None:
        """Set how long this thread's next request may take, its answer included."""
        _deadline.at = monotonic() + min(MAX_TIMEOUT, max(MIN_TIMEOUT, seconds))

    def request(  # type: ignore[override]  # the SDK's own transports return bytes too
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Send one request. Raises `stripe.APIConnectionError`, with only the fault's class, if no
        answer comes.
        """
        left = max(0.1, getattr(_deadline, "at", monotonic() + MAX_TIMEOUT) - monotonic())
        self.last.body, self.last.headers = b"", {}
        all_headers = {**(headers or {}), "Accept-Encoding": "gzip", "Cache-Control": "no-cache"}
        form: Form = getattr(self.outgoing, "form", ())
        if method != "post":
            url, post_data = f"{url}?{to_query(form)}" if form else url, None
        elif form:
            post_data = to_query(form)
        try:
            answer = self.pool.request(
                method,
                url,
                headers=all_headers,
                body=post_data,
                timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT, left), read=left),
            )
        except urllib3.exceptions.HTTPError as fault:
            retry = not isinstance(fault, urllib3.exceptions.SSLError)
            raise stripe.APIConnectionError(type(fault).__name__, should_retry=retry) from None  # type: ignore[no-untyped-call]
        body = answer.data.removeprefix(codecs.BOM_UTF8)  # some proxies write one
        self.last.headers = answer.headers
        if 200 <= answer.status < 300:
            self.last.body, body = body, b"{}"
        elif not _is_stripe_error(body):
            body = b"{}"  # of a proxy: the SDK fails on some of these
        else:
            body = _redacted(body, form)
        return body, answer.status, answer.headers

    def close(self) -> None:
        """Close idle connections."""
        self.pool.clear()


class _ErrorBody(msgspec.Struct):
    error: dict[str, Any]


_error_decoder = msgspec.json.Decoder(_ErrorBody)


def _is_stripe_error(body: bytes) -> bool:
    """Whether a body has the form of Stripe's errors."""
    try:
        words = (
            _error_decoder.decode(body).error.get(name)
            for name in ("message", "type", "code", "param")
        )
        return all(isinstance(word, str | None) for word in words)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _redacted(body: bytes, form: Form) -> bytes:
    """An error of Stripe's without what was sent."""
    answer = msgspec.json.decode(body)
    error = answer["error"]
    if error.get("message"):
        error["message"] = redact(error["message"], form)[:MAX_SENTENCE]
    return msgspec.json.encode(answer)
