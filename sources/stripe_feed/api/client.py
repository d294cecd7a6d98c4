"""Stripe transport: GET requests go in, decoded answers come out, within the rate budget and past
passing faults.

The official SDK signs, encodes, versions and classifies; our thin HTTP client under it keeps
answers as bytes, because the SDK's own objects cost many times the CPU of the rows that we make of
them.
"""

from __future__ import annotations

import logging
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
import stripe

from ..errors import (
    PermissionMissing,
    RateLimited,
    SetupError,
    StripeFeedError,
    Unreachable,
    UsageError,
)
from .credentials import find_base, find_key, is_live
from .json_repair import decoded
from .rate_limits import (
    ENDPOINT_RPS,
    LIVE_RPS,
    MOST_ON_A_PAGE,
    TEST_RPS,
    Budget,
    PageSize,
    endpoint_of,
)
from .responses import TOO_BIG, Malformed, code_of, first_word, is_cut, not_stripe, problem
from .stripe_time import Clock, StripeTime
from .transport import BytesClient

__all__ = ["API_VERSION", "GIVE_UP_AFTER", "Account", "Api", "Clock", "Malformed", "Reply"]

API_VERSION = "2026-10-28.endive"
OLDEST_VERSION = "2019-12-03"  # before, a line has its subscription's id, on each of its invoices
MAX_TRIES = 9
FEW_TRIES = 3  # where somebody else answers
CUTS = 2  # in a row: then a smaller page is asked for
CUT_ON_THE_WAY = ("IncompleteRead", "ProtocolError", "ReadTimeoutError")
GIVE_UP_AFTER = 120.0  # seconds
ACCOUNT = "/v1/account"

log = logging.getLogger("stripe_feed")
stripe.enable_telemetry = False

T = TypeVar("T")


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

    Requests are paced by a budget that learns from 429 answers; the budget is the wait. Answers of
    408, 409, 424, 425 and 5xx, connection faults, lock time-outs and bodies that are cut or no JSON
    are asked again with jittered backoff, and pages that do not arrive whole as smaller ones. A
    request gives up with `TryLater` after `give_up_after` seconds, whatever drips in. `max_rps` and
    `endpoint_rps` are requests per second; by default 80 % of Stripe's documented limits
    (https://docs.stripe.com/rate-limits).
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
        self.counts: Counter[tuple[str, int]] = Counter()  # (endpoint, HTTP status; 0: no answer)
        self._lock = threading.Lock()
        self._time = StripeTime(self.clock)
        self._sizes: dict[str, PageSize] = {}
        self._cut_said = False
        self._met = False  # Stripe has answered
        rps = (LIVE_RPS if self.live else TEST_RPS) if max_rps is None else max_rps
        per_endpoint = ENDPOINT_RPS if endpoint_rps is None else endpoint_rps
        if rps <= 0 or per_endpoint <= 0:
            raise UsageError("max_rps and endpoint_rps are requests per second: give more than 0.")
        self._budget = Budget(rps, per_endpoint, threads, self.clock.monotonic())
        self._http = BytesClient(self.base, threads)
        self._client = stripe.StripeClient(
            key,
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
        paid: bool = False,
    ) -> Reply[T]:
        """Ask once, and again as long as the fault may pass. `paid`: the caller took the token
        already.

        Raises the errors of `errors`: `PermissionMissing`, `NotFound`, `CursorGone`,
        `RequestRefused`, `SetupError`, `TryLater`.
        """
        return self._request("get", path, params, decode, paid)

    def post(self, path: str, params: Mapping[str, Any], decode: Callable[[bytes], T]) -> Reply[T]:
        """Do something once, however often it must be asked: all tries carry one idempotency key.
        Raises as `get` does.
        """
        return self._request(
            "post", path, {**params, "idempotency_key": str(uuid4())}, decode, False
        )

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any],
        decode: Callable[[bytes], T],
        paid: bool,
    ) -> Reply[T]:
        endpoint = endpoint_of(path)
        give_up_at = self.clock.monotonic() + self.give_up_after
        size = self._sizes.setdefault(endpoint, PageSize())
        tries = cuts = 0
        final: StripeFeedError | None = None
        while True:
            if self.stopped.is_set():
                raise final or Unreachable(f"{endpoint}: stopped.")
            if not paid:
                self._pay(endpoint, give_up_at, final)
            paid = False
            limit = min(params.get("limit", 1), size.most)
            asked = {**params, "limit": limit} if "limit" in params else params
            self._http.allow(give_up_at - self.clock.monotonic())
            try:
                reply = self._ask(method, endpoint, path, asked, decode)
            except (stripe.StripeError, msgspec.DecodeError) as fault:
                final = self._problem(fault, endpoint, method)
                too_fast = isinstance(final, RateLimited) and code_of(fault) != "lock_timeout"  # type: ignore[arg-type]
                tries += not too_fast  # a 429 says nothing of the request
                cuts = cuts + 1 if self._is_cut(fault) else 0
                if (
                    limit > 1
                    and cuts
                    and (cuts >= CUTS or getattr(fault, "http_status", None) == 413)
                ):
                    size.cut(limit)
                    tries = cuts = 0
                elif not self._may_pass(final, fault, tries):
                    raise final from None
                if too_fast:
                    self._limited(endpoint, fault)  # type: ignore[arg-type]
                else:
                    self._back_off(max(1, tries))
            else:
                if "limit" in params:
                    self._whole(endpoint, size)
                return reply
            if self.stopped.is_set() or self.clock.monotonic() >= give_up_at:
                raise final

    def _problem(self, fault: Exception, endpoint: str, method: str) -> StripeFeedError:
        host = urlsplit(self.base).hostname
        if isinstance(fault, msgspec.DecodeError):
            other = None if self._met else not_stripe(host, endpoint, self._http.last.body)
            return other or Unreachable(
                f"{endpoint}: {host} keeps sending broken answers. Run again later."
            )
        if isinstance(fault, stripe.APIConnectionError):
            name = first_word(fault)
            check = "certificates (SSL_CERT_FILE)" if name == "SSLError" else "network"
            return Unreachable(
                f"{endpoint}: cannot reach {host} ({name}). Check the {check}, proxy and STRIPE_API_BASE, then run again."
            )
        assert isinstance(fault, stripe.StripeError)
        return problem(
            fault,
            endpoint,
            is_list=method == "get" and ":id" not in endpoint and endpoint != ACCOUNT,
        )

    def _may_pass(self, final: StripeFeedError, fault: Exception, tries: int) -> bool:
        """Whether it is worth to ask again."""
        if isinstance(final, RateLimited):
            return True
        if isinstance(fault, msgspec.DecodeError):
            return tries < (FEW_TRIES if isinstance(final, SetupError) else MAX_TRIES)
        return (
            isinstance(final, Unreachable)
            and tries < MAX_TRIES
            and getattr(fault, "should_retry", True) is not False
        )

    def _is_cut(self, fault: Exception) -> bool:
        """Whether an answer may be too big for whoever stands between."""
        if isinstance(fault, stripe.APIConnectionError):
            return first_word(fault) in CUT_ON_THE_WAY
        if isinstance(fault, stripe.StripeError):
            return fault.http_status in TOO_BIG
        return is_cut(self._http.last.body)

    def _whole(self, endpoint: str, size: PageSize) -> None:
        with self._lock:
            told, self._cut_said = self._cut_said, self._cut_said or size.most < MOST_ON_A_PAGE
            most = size.most
            size.whole()
        if not told and self._cut_said:
            log.warning(
                "%s: big pages do not arrive whole, so smaller ones are asked for (of %s).",
                endpoint,
                most,
            )

    def now(self) -> int:
        """Stripe's time now in Unix seconds, by the `Date` of its answers; asks for the account if
        none came yet.
        """
        self._hear()
        return int(self._time.now())

    def skew(self) -> float:
        """Seconds that the local clock is ahead of Stripe's (behind: negative); `Date` has whole
        seconds.
        """
        self._hear()
        return self._time.skew()

    @property
    def has_date(self) -> bool:
        """Whether Stripe's answers say what time it is."""
        return self._time.is_known

    def prove(self, second: int) -> None:
        """Something at Stripe happened then: a clock that is behind that is wrong."""
        with self._lock:
            self._time.prove(second)

    def _hear(self) -> None:
        if not any(status for _, status in self.counts):
            self.account()

    def account(self) -> Account:
        """The account of the key. A restricted key that may not read it learns the id from Stripe's
        refusal.
        """
        try:
            found = self.get(ACCOUNT, {}, _Account.decode).value
        except PermissionMissing as refusal:
            if refusal.account_id is None:
                raise
            return Account(refusal.account_id, self.live)
        self.prove(found.created or 0)
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
        self,
        method: str,
        endpoint: str,
        path: str,
        params: Mapping[str, Any],
        decode: Callable[[bytes], T],
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
                    date = self._time.heard(self._http.last.headers, ended)
                if status == 200:
                    self._budget.succeeded(endpoint, ended)
        try:
            value = decoded(decode, self._http.last.body)
        except (UnicodeDecodeError, RecursionError):
            raise Malformed("no UTF-8, or too deep") from None
        self._met = self._met or decode is not bytes
        return Reply(value, int(date - max(0.0, ended - began)))

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
                raise last or RateLimited(
                    f"{endpoint}: no room in the rate budget. Run again later, or raise --max-rps."
                )
            if self.clock.wait(self.stopped, min(wait, give_up_at - now)):
                raise Unreachable(f"{endpoint}: stopped while waiting.")

    def _limited(self, endpoint: str, fault: stripe.StripeError) -> None:
        reason = (fault.headers or {}).get("Stripe-Rate-Limited-Reason") or ""
        with self._lock:
            self._budget.limited(endpoint, reason, self.clock.monotonic())

    def _back_off(self, tries: int) -> None:
        self.clock.wait(self.stopped, min(0.25 * 2 ** (tries - 1), 8.0) * random.uniform(0.5, 1.0))


def _usable(version: str) -> str:
    """An API version whose objects the tables can hold. Raises `UsageError`."""
    if not re.match(r"\d{4}-\d\d-\d\d", version):
        raise UsageError(
            f"{version!r} is no API version: give one like {API_VERSION}, or leave it out."
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
