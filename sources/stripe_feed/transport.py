"""Requests on the wire: the SDK's HTTP client on urllib3, which keeps answers as bytes."""

from __future__ import annotations

import os
import threading
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import stripe
import urllib3

from .errors import SetupError

CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def find_proxy(base: SplitResult) -> str | None:
    """Return the proxy that the environment names for a URL, as requests and curl read it."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(base.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(base.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _through(proxy: str, options: Mapping[str, Any]) -> urllib3.PoolManager:
    try:
        credentials = urllib3.util.parse_url(proxy).auth
        headers = urllib3.make_headers(proxy_basic_auth=unquote(credentials)) if credentials else None
        return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)
    except (urllib3.exceptions.ProxySchemeUnknown, urllib3.exceptions.LocationParseError):
        raise SetupError(
            "HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used. Give a URL like http://proxy.example:3128, or unset it."
        ) from None


class BytesClient(stripe.HTTPClient):
    """The SDK's transport on urllib3; keeps the body of a 2xx answer as bytes and hands the SDK an empty object."""

    name = "urllib3"

    def __init__(self, base: str, threads: int) -> None:
        super().__init__()
        ca = next((os.environ[name] for name in CA_VARIABLES if os.environ.get(name)), stripe.ca_bundle_path)
        options: dict[str, Any] = {
            "maxsize": threads, "block": False, "retries": False, "timeout": urllib3.Timeout(connect=10, read=80),
            "ca_cert_dir" if os.path.isdir(ca) else "ca_certs": ca,
        }
        proxy = find_proxy(urlsplit(base))
        self.pool = _through(proxy, options) if proxy else urllib3.PoolManager(**options)
        self.last = threading.local()

    def request(  # type: ignore[override]  # the SDK's own transports return bytes too
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Send one request. Any fault on the way is a `stripe.APIConnectionError` that names its class only."""
        try:
            answer = self.pool.request(
                method, url, headers={**(headers or {}), "Accept-Encoding": "gzip"}, body=post_data
            )
        except urllib3.exceptions.HTTPError as fault:
            retry = not isinstance(fault, urllib3.exceptions.SSLError)
            raise stripe.APIConnectionError(type(fault).__name__, should_retry=retry) from None  # type: ignore[no-untyped-call]
        body = answer.data
        self.last.headers = answer.headers
        if 200 <= answer.status < 300:
            self.last.body, body = body, b"{}"
        return body, answer.status, answer.headers

    def close(self) -> None:
        """Close idle connections."""
        self.pool.clear()
