"""Stripe transport: GET requests go in, decoded answers come out, within the rate budget and past passing faults.

The official SDK signs, encodes, versions and classifies; our thin HTTP client under it keeps answers as bytes, because the
SDK's own objects cost many times the CPU of the rows that we make of them.
"""

from __future__ import annotations

import logging
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import monotonic, time
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
import stripe

from .credentials import KEYS_PAGE, find_base, find_key, is_live
from .errors import (
    CursorGone,
    NotFound,
    PermissionMissing,
    RateLimited,
    RequestRefused,
    SetupError,
    StripeFeedError,
    Unreachable,
    UsageError,
)
from .rates import ENDPOINT_RPS, LIVE_RPS, TEST_RPS, Budget, endpoint_of
from .repair import decoded
from .transport import BytesClient

API_VERSION = "2026-10-28.endive"
OLDEST_VERSION = "2019-12-03"      # before, a line has its subscription's id, on each of its invoices
MAX_TRIES = 9
GIVE_UP_AFTER = 120.0      # seconds

log = logging.getLogger("stripe_feed")
stripe.enable_telemetry = False

T = TypeVar("T")


class Malformed(msgspec.DecodeError):
    """A body that is JSON but not an answer of Stripe's: read it again."""


@dataclass(frozen=True)
class Clock:
    """The one place where time comes from; tests hand in another."""

    time: Callable[[], float] = time
    monotonic: Callable[[], float] = monotonic
    wait: Callable[[threading.Event, float], bool] = threading.Event.wait


class Reply(msgspec.Struct, Generic[T], frozen=True):
    """A decoded answer, and Stripe's time (Unix seconds, rounded down) when its request began."""

    value: T
    asked_at: int


class Account(msgspec.Struct, frozen=True):
    """Whose key this is. `created` is 0 when the key may not read the account."""

    id: str
    livemode: bool
    created: int = 0


class Api:
    """Reads from one Stripe account in one mode; safe to share among threads.

    Requests are paced by a budget that learns from 429 answers; the budget is the wait. Answers of 5xx, connection faults,
    lock time-outs and bodies that are cut or no JSON are asked again with jittered backoff. A request gives up with
    `TryLater` after `give_up_after` seconds. `max_rps` and `endpoint_rps` are requests per second; by default 80 % of
    Stripe's documented limits (https://docs.stripe.com/rate-limits).
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base: str | None = None,
        version: str = API_VERSION,
        max_rps: float | None = None,
        endpoint_rps: float | None = None,
        give_up_after: float = GIVE_UP_AFTER,
        allow_api_base: bool = False,
        threads: int = 32,
        clock: Clock | None = None,
    ) -> None:
        key = find_key(api_key)
        self.base = find_base(base, key, allow_api_base)
        self.live = is_live(key)
        self.kind = "restricted" if key.startswith("rk_") else "secret"
        self.version = _usable(version)
        self.threads = threads
        self.clock = clock or Clock()
        self.give_up_after = give_up_after
        self.stopped = threading.Event()
        self.counts: Counter[tuple[str, int]] = Counter()   # (endpoint, HTTP status; 0: no answer)
        self._lock = threading.Lock()
        self._offset: float | None = None                   # Stripe's time minus our monotonic clock
        rps = (LIVE_RPS if self.live else TEST_RPS) if max_rps is None else max_rps
        per_endpoint = ENDPOINT_RPS if endpoint_rps is None else endpoint_rps
        if rps <= 0 or per_endpoint <= 0:
            raise UsageError("max_rps and endpoint_rps are requests per second: give more than 0.")
        self._budget = Budget(rps, per_endpoint, threads, self.clock.monotonic())
        self._http = BytesClient(self.base, threads)
        self._client = stripe.StripeClient(
            key, stripe_version=version, max_network_retries=0, http_client=self._http, base_addresses={"api": self.base}
        )

    def __repr__(self) -> str:
        return f"Api({self.base!r}, live={self.live}, version={self.version!r})"

    def get(self, path: str, params: Mapping[str, Any], decode: Callable[[bytes], T], *, paid: bool = False) -> Reply[T]:
        """Ask once, and again as long as the fault may pass. `paid`: the caller took the token already.

        Raises the errors of `errors`: `PermissionMissing`, `NotFound`, `CursorGone`, `RequestRefused`, `SetupError`, `TryLater`.
        """
        return self._request("get", path, params, decode, paid)

    def post(self, path: str, params: Mapping[str, Any], decode: Callable[[bytes], T]) -> Reply[T]:
        """Do something once, however often it must be asked: all tries carry one idempotency key. Raises as `get` does."""
        return self._request("post", path, {**params, "idempotency_key": str(uuid4())}, decode, False)

    def _request(self, method: str, path: str, params: Mapping[str, Any], decode: Callable[[bytes], T], paid: bool) -> Reply[T]:
        endpoint = endpoint_of(path)
        give_up_at = self.clock.monotonic() + self.give_up_after
        tries = 0
        final: StripeFeedError | None = None
        while True:
            if self.stopped.is_set():
                raise final or Unreachable(f"{endpoint}: stopped.")
            if not paid:
                self._pay(endpoint, give_up_at, final)
            paid = False
            try:
                return self._ask(method, endpoint, path, params, decode)
            except (stripe.APIConnectionError, msgspec.DecodeError) as fault:
                tries += 1
                final = Unreachable(self._why(endpoint, fault))
                if tries >= MAX_TRIES or not getattr(fault, "should_retry", True):
                    raise final from None
                self._back_off(tries)
            except stripe.StripeError as fault:
                final = problem(fault, endpoint)
                too_fast = isinstance(final, RateLimited) and code_of(fault) != "lock_timeout"
                tries += not too_fast           # a 429 says nothing of the request
                if too_fast:
                    self._limited(endpoint, fault)
                elif isinstance(final, RateLimited) or (isinstance(final, Unreachable) and tries < MAX_TRIES):
                    self._back_off(tries)
                else:
                    raise final from None
            if self.stopped.is_set() or self.clock.monotonic() >= give_up_at:
                raise final

    def now(self) -> int:
        """Stripe's time now in Unix seconds, from the `Date` of the newest answer; asks for the account if none came yet."""
        if self._offset is None:
            self.account()
        return int(self.clock.monotonic() + (self._offset or 0.0))

    def skew(self) -> float:
        """Seconds that the local clock is ahead of Stripe's (behind: negative); `Date` has whole seconds."""
        return self.clock.time() - (self.clock.monotonic() + (self._offset or 0.0))

    def account(self) -> Account:
        """The account of the key. A restricted key that may not read it learns the id from Stripe's refusal."""
        try:
            found = self.get("/v1/account", {}, _Account.decode).value
        except PermissionMissing as refusal:
            if refusal.account_id is None:
                raise
            return Account(refusal.account_id, self.live)
        return Account(found.id, self.live, found.created or 0)

    def ready_in(self, endpoint: str) -> float:
        """Seconds until a request to this endpoint may be sent."""
        with self._lock:
            return self._budget.ready_in(endpoint, self.clock.monotonic())

    def pay(self, endpoint: str) -> None:
        """Take the tokens for one request that is then sent with `paid=True`."""
        with self._lock:
            self._budget.take(endpoint, self.clock.monotonic())

    @property
    def in_flight_ceiling(self) -> int:
        """How many requests may be under way at once; falls when Stripe limits concurrency."""
        return self._budget.in_flight_ceiling

    @property
    def requests(self) -> int:
        """How many requests were sent."""
        return sum(self.counts.values())

    def close(self) -> None:
        """Stop waiting requests and close idle connections."""
        self.stopped.set()
        self._http.close()

    def _ask(
        self, method: str, endpoint: str, path: str, params: Mapping[str, Any], decode: Callable[[bytes], T]
    ) -> Reply[T]:
        began = self.clock.monotonic()
        status = 0
        try:
            self._client.raw_request(method, path, **params)
            status = 200
        except stripe.StripeError as fault:
            status = fault.http_status or 0
            raise
        finally:
            ended = self.clock.monotonic()
            with self._lock:
                self.counts[endpoint, status] += 1
                if status:
                    date = self._stripe_time(ended)
                if status == 200:
                    self._budget.succeeded(endpoint, ended)
        try:
            value = decoded(decode, self._http.last.body)
        except UnicodeDecodeError:
            raise Malformed("no UTF-8") from None
        return Reply(value, int(date - (ended - began)))

    def _stripe_time(self, ended: float) -> float:
        """Stripe's time of the answer that just came; the local clock's where it has no usable `Date`."""
        try:
            date = parsedate_to_datetime(self._http.last.headers["Date"]).timestamp()
        except (KeyError, TypeError, ValueError):
            return ended + self._offset if self._offset is not None else self.clock.time()
        self._offset = date - ended
        return date

    def _pay(self, endpoint: str, give_up_at: float, last: StripeFeedError | None) -> None:
        """Wait for a token. Raises what ended the last try, if there was one, when time is up."""
        while True:
            with self._lock:
                now = self.clock.monotonic()
                wait = self._budget.ready_in(endpoint, now)
                if wait <= 0:
                    self._budget.take(endpoint, now)
                    return
            if now >= give_up_at:
                raise last or RateLimited(f"{endpoint}: no room in the rate budget. Run again later, or raise --max-rps.")
            if self.clock.wait(self.stopped, min(wait, give_up_at - now)):
                raise Unreachable(f"{endpoint}: stopped while waiting.")

    def _limited(self, endpoint: str, fault: stripe.StripeError) -> None:
        reason = (fault.headers or {}).get("Stripe-Rate-Limited-Reason") or ""
        with self._lock:
            self._budget.limited(endpoint, reason, self.clock.monotonic())

    def _back_off(self, tries: int) -> None:
        self.clock.wait(self.stopped, min(0.25 * 2 ** (tries - 1), 8.0) * random.uniform(0.5, 1.0))

    def _why(self, endpoint: str, fault: Exception) -> str:
        if isinstance(fault, msgspec.DecodeError):
            return f"{endpoint}: {urlsplit(self.base).hostname} keeps sending broken answers. Run again later."
        return (
            f"{endpoint}: cannot reach {urlsplit(self.base).hostname} ({first_word(fault)}). "
            "Check the network, proxy and STRIPE_API_BASE, then run again."
        )


def _usable(version: str) -> str:
    """An API version whose objects the tables can hold. Raises `UsageError`."""
    if not re.match(r"\d{4}-\d\d-\d\d", version):
        raise UsageError(f"{version!r} is no API version: give one like {API_VERSION}, or leave it out.")
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


def first_word(fault: BaseException) -> str:
    """The class of a connection fault, as the transport named it."""
    words = re.findall(r"\w+", str(fault))
    return words[0] if words else type(fault).__name__


def code_of(fault: stripe.StripeError) -> str | None:
    """Stripe's error code; the SDK fills `code` for some classes only."""
    error = getattr(fault, "error", None)
    return fault.code or (getattr(error, "code", None) if error is not None else None)


def problem(fault: stripe.StripeError, endpoint: str) -> StripeFeedError:
    """Our error for one of the SDK's. Stripe's sentence is read for hints, never quoted: it can hold key or personal data."""
    text = str(fault)
    trace = f"request {fault.request_id}" if fault.request_id else "no request id"
    match fault:
        case stripe.AuthenticationError():
            word = "expired" if "expired" in text.lower() else "not valid"
            return SetupError(f"Stripe says that this key is {word} (401, {trace}). Copy a valid one from {KEYS_PAGE}.")
        case stripe.PermissionError():
            needed = re.search(r"'?(rak_\w+)'?", text)
            account = re.search(r"'?(acct_\w+)'?", text)
            fix = f"Add the permission {needed[1]} at {KEYS_PAGE}." if needed else f"Check the key's permissions at {KEYS_PAGE}."
            return PermissionMissing(
                f"{endpoint}: this key may not read it (403, {trace}). {fix}",
                needed[1] if needed else None, account[1] if account else None,
            )
        case _ if fault.http_status == 429 or isinstance(fault, stripe.RateLimitError):
            return RateLimited(
                f"{endpoint}: Stripe keeps answering 429 (too many requests). Run again later, or lower --max-rps."
            )
        case stripe.InvalidRequestError() | stripe.IdempotencyError() | stripe.CardError():
            return _refusal(fault, endpoint, trace)
        case stripe.APIError() if fault.http_status in range(400, 500) and fault.error is None:
            return SetupError(
                f"{endpoint}: something answers {fault.http_status} in Stripe's place. Check the proxy and STRIPE_API_BASE."
            )
        case _ if fault.http_status in range(400, 500) and fault.http_status != 409:
            return _refusal(fault, endpoint, trace)
        case _:
            status = fault.http_status or "no status"
            return Unreachable(f"{endpoint}: Stripe keeps answering {status} ({trace}). Run again later.")


def _refusal(fault: stripe.StripeError, endpoint: str, trace: str) -> RequestRefused:
    code, param = code_of(fault), getattr(fault, "param", None)
    what = f"{endpoint}: Stripe refuses the request ({fault.http_status}, {code or 'no code'}, param {param}, {trace})."
    if param in ("starting_after", "ending_before"):
        return CursorGone(what, code, param)
    if fault.http_status == 404 or code == "resource_missing":      # 400 where a parameter names the object
        return NotFound(f"{endpoint}: no such object ({trace}).", code, param)
    return RequestRefused(f"{what} Please report this.", code, param)
