"""The Stripe client: send a request, wait for the rate limit, retry temporary faults, decode the
answer.

The official SDK signs, encodes, versions and classifies. A thin HTTP client below it keeps answers
as bytes, because building the SDK's objects costs many times the CPU of the rows made from them.
"""

from __future__ import annotations

import logging
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
import stripe
from msgspec.structs import replace

from ..errors import (
    NotFound,
    OutcomeUnknown,
    PermissionMissing,
    RateLimited,
    RequestRefused,
    SetupError,
    StripeFeedError,
    TryLater,
    Unreachable,
    UsageError,
    WrongAccount,
)
from .account import Account
from .credentials import check_account, find_base, find_key, is_live
from .forms import Form, encode
from .json_repair import DEPTH_HINTS, escape_unreadable, flatten_deep
from .rate_limits import (
    ENDPOINT_RPS,
    LIVE_RPS,
    MAX_PAGE_SIZE,
    TEST_RPS,
    PageSize,
    RateLimiter,
    SharedBudget,
    endpoint_name,
)
from .responses import (
    TOO_LARGE_STATUSES,
    InvalidBody,
    Purpose,
    fault_name,
    foreign_answer,
    is_truncated,
    printable_name,
    stripe_code,
    to_error,
)
from .stripe_time import Clock, StripeTime
from .transport import BytesHttpClient

__all__ = ["API_VERSION", "GIVE_UP_AFTER", "Api", "Clock", "InvalidBody", "Reply", "decode_body"]

API_VERSION = "2026-10-28.endive"
OLDEST_VERSION = "2019-12-03"  # before it, lines of different invoices can share one id
_MAX_TRIES = 9
MAX_TRIES_FOREIGN = 3  # if something other than Stripe answers
CUTS_BEFORE_SMALLER_PAGE = 2  # in a row
TRUNCATION_FAULTS = ("IncompleteRead", "ProtocolError", "ReadTimeoutError")
NEVER_SENT_FAULTS = (
    "ConnectTimeoutError", "NameResolutionError", "NewConnectionError", "ProxyError", "SSLError",
)  # fmt: skip
MAX_TRIES_500 = 3  # of a write: with one key Stripe may repeat the answer that it stored
GIVE_UP_AFTER = 120.0  # seconds
ACCOUNT_PATH = "/v1/account"

log = logging.getLogger("stripe_feed")
stripe.enable_telemetry = False

T = TypeVar("T")


class Reply(msgspec.Struct, Generic[T], frozen=True):
    """A decoded answer, and Stripe's time (Unix seconds, rounded down) when its request began."""

    value: T
    requested_at: int
    request_id: str | None = None
    replayed: bool = False  # of a write: its idempotency key was used before this call


class Api:
    """A client of one Stripe account in one mode; threads can share it.

    A rate limiter that learns from 429 answers decides when a request is sent. Answers of 408, 409,
    424, 425 and 5xx, those that say so (`Stripe-Should-Retry: true`), connection faults, lock
    time-outs and truncated or invalid bodies are retried with jittered backoff; pages that arrive
    truncated are retried with a smaller limit. A request raises `TryLater` after `give_up_after`
    seconds, even if bytes still arrive. Writes have rate
    limits of their own, and tell a refusal from an unknown outcome. `max_rps` and
    `endpoint_rps` are requests per second; by default 80 % of Stripe's documented limits
    (https://docs.stripe.com/rate-limits). `account` is an account that is connected to that of the
    key: every request names it (`Stripe-Account`, https://docs.stripe.com/connect/authentication).
    `budget`, `transport`: what clients of several accounts share.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        account: str | None = None,
        base: str | None = None,
        version: str = API_VERSION,
        max_rps: float | None = None,
        endpoint_rps: float | None = None,
        give_up_after: float = GIVE_UP_AFTER,
        allow_api_base: bool = False,
        threads: int = 32,
        clock: Clock | None = None,
        budget: SharedBudget | None = None,
        transport: BytesHttpClient | None = None,
    ) -> None:
        key = find_key(api_key)
        self.base = find_base(base, key, allow_api_base)
        self.live = is_live(key)
        self.key_kind = "restricted" if key.startswith("rk_") else "secret"
        self.version = _checked_version(version)
        self.threads = threads
        self.clock = clock or Clock()
        self.give_up_after = give_up_after
        self.stopped = threading.Event()
        self.counts: Counter[tuple[str, int]] = Counter()  # (endpoint, HTTP status; 0: no answer)
        self._lock = threading.Lock()
        self._time = StripeTime(self.clock)
        self._page_sizes: dict[str, PageSize] = {}
        self._warned_cut = False
        self._stripe_answered = False  # Stripe has answered
        default_rps = LIVE_RPS if self.live else TEST_RPS
        rps = default_rps if max_rps is None else max_rps
        per_endpoint = ENDPOINT_RPS if endpoint_rps is None else endpoint_rps
        if rps <= 0 or per_endpoint <= 0:
            raise UsageError("max_rps and endpoint_rps are requests per second: give more than 0.")
        now = self.clock.monotonic()
        self.rps = rps
        self._limiter = RateLimiter(rps, per_endpoint, threads, now, budget, account or "")
        self._write_limiter = RateLimiter(rps, per_endpoint, threads, now)
        self.connected = None if account is None else check_account(account)
        self._owns_http = transport is None
        self._http = transport or BytesHttpClient(self.base, threads)
        self._client = stripe.StripeClient(
            key,
            stripe_account=self.connected,
            stripe_version=version,
            max_network_retries=0,
            http_client=self._http,
            base_addresses={"api": self.base},
        )

    def __repr__(self) -> str:
        return f"Api({self.base!r}, live={self.live}, version={self.version!r})"

    def get(
        self,
        path: str,
        params: Mapping[str, Any],
        decode: Callable[[bytes], T],
        *,
        token_taken: bool = False,
        is_action: bool = False,
    ) -> Reply[T]:
        """Send a GET request and retry temporary faults. `token_taken`: the caller has already
        taken the token (`take_token`). `is_action`: a refusal is in Stripe's words.

        Raises the errors of `errors`: `PermissionMissing`, `NotFound`, `CursorGone`,
        `RequestRefused`, `SetupError`, `TryLater`.
        """
        return self._request(path, params, decode, token_taken, is_action)

    def post(
        self,
        path: str,
        params: Mapping[str, Any],
        decode: Callable[[bytes], T],
        *,
        key: str | None = None,
    ) -> Reply[T]:
        """Send a POST request; all tries carry one idempotency key, so it takes effect once.

        Raises as `get` does, and `OutcomeUnknown` if Stripe may have carried it out.
        """
        return self._write("post", path, encode(params), decode, key or str(uuid4()))

    def delete(
        self, path: str, params: Mapping[str, Any], decode: Callable[[bytes], T]
    ) -> Reply[T]:
        """Send a DELETE request. If the object is gone after a try without an answer, the answer is
        `{"deleted": true}`. Raises as `post` does.
        """
        return self._write("delete", path, encode(params), decode, None)

    def _request(
        self,
        path: str,
        params: Mapping[str, Any],
        decode: Callable[[bytes], T],
        token_taken: bool,
        is_action: bool,
    ) -> Reply[T]:
        endpoint = endpoint_name(path)
        purpose: Purpose = "list"
        if endpoint == ACCOUNT_PATH or (":id" in endpoint and not is_action):
            purpose = "object"
        elif is_action:
            purpose = "action"
        give_up_at = self.clock.monotonic() + self.give_up_after
        size = self._page_sizes.setdefault(endpoint, PageSize())
        tries = cuts = 0
        final: StripeFeedError | None = None
        while True:
            if self.stopped.is_set():
                raise final or Unreachable(f"{endpoint}: stopped.")
            if not token_taken:
                self._wait_for_token(self._limiter, endpoint, give_up_at, final)
            token_taken = False
            limit = min(params.get("limit", 1), size.limit)
            request_params = {**params, "limit": limit} if "limit" in params else params
            self._http.set_timeout(give_up_at - self.clock.monotonic())
            try:
                reply = self._send("get", endpoint, path, encode(request_params), decode)
            except (stripe.StripeError, msgspec.DecodeError) as fault:
                final = self._to_error(fault, endpoint, purpose)
                is_rate_limited = isinstance(final, RateLimited) and (
                    stripe_code(fault) != "lock_timeout"  # type: ignore[arg-type]
                )
                tries += not is_rate_limited  # a 429 says nothing of the request
                cuts = cuts + 1 if self._is_truncated(fault) else 0
                if (
                    limit > 1
                    and cuts
                    and (
                        cuts >= CUTS_BEFORE_SMALLER_PAGE
                        or getattr(fault, "http_status", None) == 413
                    )
                ):
                    size.record_cut(limit)
                    tries = cuts = 0
                elif not self._is_retryable(final, fault, tries):
                    raise final from None
                if is_rate_limited:
                    self._record_limited(self._limiter, endpoint, fault)
                else:
                    self._back_off(max(1, tries))
            else:
                if "limit" in params:
                    self._record_whole_page(endpoint, size)
                return reply
            if self.stopped.is_set() or self.clock.monotonic() >= give_up_at:
                raise final

    def _write(
        self,
        method: Literal["post", "delete"],
        path: str,
        form: Form,
        decode: Callable[[bytes], T],
        key: str | None,
    ) -> Reply[T]:
        """Send a write until its outcome is known, or time is up."""
        endpoint = endpoint_name(path)
        give_up_at = self.clock.monotonic() + self.give_up_after
        tries = 0
        doubt: OutcomeUnknown | None = None
        final: StripeFeedError | None = None
        while not self.stopped.is_set():
            self._wait_for_token(self._write_limiter, endpoint, give_up_at, doubt or final)
            self._http.set_timeout(give_up_at - self.clock.monotonic())
            try:
                reply = self._send(method, endpoint, path, form, decode, key)
                return replace(reply, replayed=reply.replayed and doubt is None)
            except (stripe.StripeError, msgspec.DecodeError) as fault:
                final = self._to_error(fault, endpoint, "write")
                if isinstance(final, NotFound) and method == "delete" and doubt:
                    gone = decode(b'{"deleted":true}')
                    return Reply(gone, int(self._time.now()), final.request_id)
                if isinstance(final, RequestRefused):
                    raise final from None
                is_limited = isinstance(final, RateLimited)  # then it was not carried out
                if _may_have_arrived(final, fault):
                    doubt = self._in_doubt(fault, endpoint, key)
                tries += 1
                if not is_limited and not self._is_write_retryable(final, fault, tries):
                    raise doubt or final from None
                if is_limited and stripe_code(fault) != "lock_timeout":  # type: ignore[arg-type]
                    self._record_limited(self._write_limiter, endpoint, fault)
                else:
                    self._back_off(tries)
            if self.clock.monotonic() >= give_up_at:
                break
        raise doubt or final or Unreachable(f"{endpoint}: stopped.")

    def _in_doubt(self, fault: Exception, endpoint: str, key: str | None) -> OutcomeUnknown:
        status = getattr(fault, "http_status", None)
        what = f"answered {status}" if status else "no whole answer came"
        request_id = printable_name(self._http.last.headers.get("Request-Id"))
        repeat = f" A repetition with the idempotency key {key} within 23 hours takes effect once."
        return OutcomeUnknown(
            f"{endpoint}: Stripe may have done it, or not ({what}, {request_id or 'no request id'}). "
            f"Look at the object before you repeat it.{repeat if key else ''}",
            key,
            request_id,
        )

    def _is_write_retryable(self, final: StripeFeedError, fault: Exception, tries: int) -> bool:
        """Whether another try may bring a definite answer: a 500 that Stripe stored is repeated."""
        headers = self._http.last.headers
        if headers.get("Stripe-Should-Retry") == "false" or _is_replayed(headers):
            return False
        if getattr(fault, "http_status", None) == HTTPStatus.INTERNAL_SERVER_ERROR:
            return tries < MAX_TRIES_500
        return self._is_retryable(final, fault, tries)

    def _to_error(self, fault: Exception, endpoint: str, purpose: Purpose) -> StripeFeedError:
        host = urlsplit(self.base).hostname
        if isinstance(fault, msgspec.DecodeError):
            other = (
                None
                if self._stripe_answered
                else foreign_answer(host, endpoint, self._http.last.body)
            )
            return other or Unreachable(
                f"{endpoint}: {host} keeps sending broken answers. Run again later."
            )
        if isinstance(fault, stripe.APIConnectionError):
            name = fault_name(fault)
            check = "certificates (SSL_CERT_FILE)" if name == "SSLError" else "network"
            return Unreachable(
                f"{endpoint}: cannot reach {host} ({name}). Check the {check}, proxy and STRIPE_API_BASE, then run again."
            )
        assert isinstance(fault, stripe.StripeError)
        return to_error(fault, endpoint, purpose)

    def _is_retryable(self, final: StripeFeedError, fault: Exception, tries: int) -> bool:
        """Whether to try the request again."""
        if isinstance(final, RateLimited):
            return True
        if isinstance(fault, msgspec.DecodeError):
            return tries < (MAX_TRIES_FOREIGN if isinstance(final, SetupError) else _MAX_TRIES)
        says_retry = self._http.last.headers.get("Stripe-Should-Retry") == "true"
        return (
            (isinstance(final, Unreachable) or says_retry)
            and tries < _MAX_TRIES
            and getattr(fault, "should_retry", True) is not False
        )

    def _is_truncated(self, fault: Exception) -> bool:
        """Whether the answer may be too large for a proxy in between."""
        if isinstance(fault, stripe.APIConnectionError):
            return fault_name(fault) in TRUNCATION_FAULTS
        if isinstance(fault, stripe.StripeError):
            return fault.http_status in TOO_LARGE_STATUSES
        return is_truncated(self._http.last.body)

    def _record_whole_page(self, endpoint: str, size: PageSize) -> None:
        with self._lock:
            warned_before, self._warned_cut = (
                self._warned_cut,
                self._warned_cut or size.limit < MAX_PAGE_SIZE,
            )
            limit = size.limit
            size.record_whole()
        if not warned_before and self._warned_cut:
            log.warning(
                "%s: large pages arrive truncated, so smaller ones are requested (limit %s).",
                endpoint,
                limit,
            )

    def now(self) -> int:
        """Stripe's time now in Unix seconds, from the `Date` of its answers; requests the account
        if there was no answer yet.
        """
        self._ensure_time()
        return int(self._time.now())

    def skew(self) -> float:
        """Seconds by which the local clock is ahead of Stripe's (negative if behind); `Date` has
        whole seconds.
        """
        self._ensure_time()
        return self._time.skew()

    @property
    def has_date(self) -> bool:
        """Whether Stripe's answers have a usable `Date`."""
        return self._time.is_known

    def advance_clock(self, second: int) -> None:
        """Note that this second has passed at Stripe: a clock that is behind it is wrong."""
        with self._lock:
            self._time.advance_to(second)

    def _ensure_time(self) -> None:
        if not any(status for _, status in self.counts):
            self.account()

    def account(self) -> Account:
        """The account of the key, or the connected account. If a restricted key may not read it, the id
        comes from Stripe's refusal. Raises `WrongAccount` if Stripe answers for another one.
        """
        try:
            body = self.get(ACCOUNT_PATH, {}, _Account.decode).value
        except PermissionMissing as refusal:
            if refusal.account_id is None:
                raise
            return Account(self._checked(refusal.account_id), self.live)
        self.advance_clock(body.created or 0)
        return Account(self._checked(body.id), self.live, body.created or 0)

    def _checked(self, answered: str) -> str:
        if self.connected not in (None, answered):
            raise WrongAccount(
                f"Stripe answers for {answered} in the place of {self.connected}. "
                "Is there a proxy that drops the header Stripe-Account?"
            )
        return answered

    def take_token(self, endpoint: str) -> float:
        """Take the tokens for one request that is then sent with `token_taken=True`, and return 0; or
        take none, and return the seconds until the rate limits allow it.
        """
        with self._lock:
            return self._limiter.take(endpoint, self.clock.monotonic())

    def return_token(self, endpoint: str) -> None:
        """Return the tokens of a request that is not sent after all."""
        with self._lock:
            self._limiter.give_back(endpoint, self.clock.monotonic())

    @property
    def in_flight_ceiling(self) -> int:
        """How many requests may be in flight at once; falls when Stripe limits concurrency."""
        return self._limiter.in_flight_ceiling

    @property
    def requests(self) -> int:
        """How many requests were sent."""
        return sum(self.counts.values())

    def close(self) -> None:
        """Stop requests that wait and close idle connections."""
        self.stopped.set()
        if self._owns_http:
            self._http.close()

    def _send(
        self,
        method: str,
        endpoint: str,
        path: str,
        form: Form,
        decode: Callable[[bytes], T],
        key: str | None = None,
    ) -> Reply[T]:
        started_at = self.clock.monotonic()
        status = 0
        limiter = self._limiter if method == "get" else self._write_limiter
        self._http.set_form(form)
        try:
            self._client.raw_request(method, path, **({"idempotency_key": key} if key else {}))
            status = 200
        except stripe.StripeError as fault:
            status = fault.http_status or 0
            raise
        finally:
            ended_at = self.clock.monotonic()
            with self._lock:
                self.counts[endpoint, status] += 1
                if status:
                    date = self._time.observe(self._http.last.headers, ended_at)
                if status == 200:
                    limiter.succeeded(endpoint, ended_at)
        try:
            value = decode_body(decode, self._http.last.body)
        except (UnicodeDecodeError, RecursionError):
            raise InvalidBody("no UTF-8, or too deep") from None
        self._stripe_answered = self._stripe_answered or decode is not bytes
        requested_at = int(date - max(0.0, ended_at - started_at))
        headers = self._http.last.headers
        request_id = printable_name(headers.get("Request-Id"))
        return Reply(value, requested_at, request_id, _is_replayed(headers))

    def _wait_for_token(
        self,
        limiter: RateLimiter,
        endpoint: str,
        give_up_at: float,
        last_error: StripeFeedError | None,
    ) -> None:
        """Wait for a token. When time is up, raise the error of the last try if there was one."""
        while True:
            with self._lock:
                now = self.clock.monotonic()
                wait = limiter.take(endpoint, now)
                if wait <= 0:
                    return
            if now >= give_up_at:
                raise last_error or RateLimited(
                    f"{endpoint}: no room in the rate budget. Run again later, or raise --max-rps."
                )
            if self.clock.wait(self.stopped, min(wait, give_up_at - now)):
                raise Unreachable(f"{endpoint}: stopped while waiting.")

    def _record_limited(self, limiter: RateLimiter, endpoint: str, fault: Exception) -> None:
        reason = (getattr(fault, "headers", None) or {}).get("Stripe-Rate-Limited-Reason") or ""
        with self._lock:
            limiter.limited(endpoint, reason, self.clock.monotonic())

    def _back_off(self, tries: int) -> None:
        self.clock.wait(self.stopped, min(0.25 * 2 ** (tries - 1), 8.0) * random.uniform(0.5, 1.0))


def _may_have_arrived(error: StripeFeedError, fault: Exception) -> bool:
    """Whether Stripe may have carried out a write that ended so."""
    return (
        isinstance(error, TryLater)
        and not isinstance(error, RateLimited)
        and fault_name(fault) not in NEVER_SENT_FAULTS
    )


def _is_replayed(headers: Mapping[str, str]) -> bool:
    return headers.get("Idempotent-Replayed") == "true"


def _checked_version(version: str) -> str:
    """Return a version whose objects the tables can hold. Raises `UsageError` for any other."""
    if not re.match(r"\d{4}-\d\d-\d\d", version):
        raise UsageError(
            f"{version!r} is not an API version. Give one like {API_VERSION}, or leave it out."
        )
    if version < OLDEST_VERSION:
        raise UsageError(
            f"API version {version}: before {OLDEST_VERSION}, lines of different invoices have one id, so rows would vanish. "
            "Give a newer one, or leave it out."
        )
    return version


class _AccountBody(msgspec.Struct):
    id: str
    created: int | None = None


class _Account:
    decode = msgspec.json.Decoder(_AccountBody).decode


def decode_body(decode: Callable[[bytes], T], body: bytes) -> T:
    """Decode a body, rewritten first if it cannot be decoded as it is. Raises what `decode` raises,
    and `UnicodeDecodeError` if it is not UTF-8.
    """
    body.decode()  # nothing else checks values that stay bytes
    if any(sign in body for sign in DEPTH_HINTS):
        body = flatten_deep(body)
    try:
        return decode(body)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, RecursionError):
        body = flatten_deep(escape_unreadable(body))
    try:
        return decode(body)
    except RecursionError:
        raise msgspec.DecodeError("too many brackets") from None
