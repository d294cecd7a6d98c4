"""How fast to send requests, and how large pages are: token buckets for the account and for each
endpoint, which learn from 429 answers.

No clock and no I/O: every call gets the time in monotonic seconds. The default rates are 80 % of
what Stripe documents, because the account's own traffic shares the limits
(https://docs.stripe.com/rate-limits).
"""

from __future__ import annotations

import threading
from collections import deque

from ..resources import RESOURCES

LIVE_RPS = 80.0
TEST_RPS = 20.0
ENDPOINT_RPS = 20.0
SEARCH_RPS = 16.0  # of all searches together

SAFETY = 0.99  # of the given rate, so that a limiter with a hard one-second window never refuses
BURST_SECONDS = 0.15
MIN_RATE = 0.5
# a rounding error of a token: waiting for it would never end, as the clock does not move
EPSILON = 1e-9
RECOVERY_SECONDS = 60.0
SHARED_SECONDS = 30.0
MAX_PAGE_SIZE = 100
# the first segment of paths such as /v1/checkout/sessions, which is no endpoint of its own
NAMESPACES = {"test_helpers"} | {
    parts[2]
    for parts in (row.path.split("/") for row in RESOURCES.values())
    if len(parts) > 3 and parts[3] != "{id}"
}


class TokenBucket:
    """A token bucket whose rate falls with 429 answers and climbs back slowly, up to the configured
    rate.
    """

    def __init__(self, rate: float, now: float) -> None:
        self.max_rate = rate * SAFETY
        self.rate = self.max_rate
        self.burst = max(2.0, BURST_SECONDS * rate)
        self.tokens = self.burst
        self.refilled_at = now
        self.last_limited_at = float("-inf")
        self.last_lowered_at = float("-inf")
        self.last_measured_at = float("-inf")
        self.succeeded_at: deque[float] = deque()  # of the last second
        self.limited_at: deque[float] = deque()

    def ready_in(self, now: float) -> float:
        """Seconds until a token is available; 0 if one is."""
        self._refill(now)
        missing = 1.0 - self.tokens
        return missing / self.rate if missing > EPSILON else 0.0

    def take(self, now: float) -> None:
        """Use one token."""
        self._refill(now)
        self.tokens -= 1.0

    def give_back(self) -> None:
        """Return a token that was not used."""
        self.tokens += 1.0

    def limited(self, now: float) -> None:
        """Lower the rate after a 429: slightly, at most once a second; if many came within the last
        second, to the number of successes in it.

        Few successes alone prove nothing: after an idle time there are none.
        """
        self.last_limited_at = now
        self.limited_at.append(now)
        threshold = max(1.0, 0.2 * self.rate)
        if (
            _count_last_second(self.limited_at, now) > threshold
            and now - self.last_measured_at >= 1.0
        ):
            self.last_measured_at = self.last_lowered_at = now
            measured = 0.97 * _count_last_second(self.succeeded_at, now)
            self._lower(min(0.96 * self.rate, max(measured, 0.5 * self.rate)))
        elif now - self.last_lowered_at >= 1.0:
            self.last_lowered_at = now
            self._lower(0.96 * self.rate)

    def succeeded(self, now: float) -> None:
        """Raise the rate after a success if there was no 429 for ten seconds; faster after a
        minute.
        """
        self.succeeded_at.append(now)
        _count_last_second(self.succeeded_at, now)
        quiet = now - self.last_limited_at
        if self.rate < self.max_rate and quiet > 10.0:
            self.rate = min(
                self.max_rate, self.rate + (0.02 if quiet > RECOVERY_SECONDS else 0.002)
            )

    def _refill(self, now: float) -> None:
        if now > self.refilled_at:
            self.tokens = min(self.burst, self.tokens + (now - self.refilled_at) * self.rate)
            self.refilled_at = now

    def _lower(self, rate: float) -> None:
        self.rate = max(min(MIN_RATE, self.max_rate), rate)
        self.tokens = min(self.tokens, 0.0)


def _count_last_second(times: deque[float], now: float) -> int:
    """Drop times older than a second and count the rest."""
    while times and times[0] < now - 1.0:
        times.popleft()
    return len(times)


class SharedBudget:
    """The requests to all accounts of a platform together; threads and clients can share it.

    Stripe does not say whether they count for the account, the platform or both
    (https://docs.stripe.com/rate-limits). The rate falls when a second account gets a 429 within
    `SHARED_SECONDS`: one whose own traffic uses up its limit slows no other.
    """

    def __init__(self, rps: float, now: float) -> None:
        self.bucket = TokenBucket(rps, now)
        self.limited_at: dict[str, float] = {}  # by account
        self._lock = threading.Lock()

    def take(self, now: float) -> float:
        """Use one token if there is one, and return 0; else return the seconds until there is."""
        with self._lock:
            wait = self.bucket.ready_in(now)
            if wait <= 0:
                self.bucket.take(now)
            return wait

    def give_back(self) -> None:
        """Return a token that was not used."""
        with self._lock:
            self.bucket.give_back()

    def succeeded(self, now: float) -> None:
        """Record a success."""
        with self._lock:
            self.bucket.succeeded(now)

    def limited(self, account: str, now: float) -> None:
        """Record a 429 of an account."""
        with self._lock:
            recent = {id: at for id, at in self.limited_at.items() if now - at <= SHARED_SECONDS}
            self.limited_at = {**recent, account: now}
            if len(self.limited_at) > 1:
                self.bucket.limited(now)


class RateLimiter:
    """The account's bucket, one bucket per endpoint, and a ceiling for requests in flight; a budget
    that other accounts share, if there is one.
    """

    def __init__(
        self,
        rps: float,
        endpoint_rps: float,
        in_flight: int,
        now: float,
        shared: SharedBudget | None = None,
        account_id: str = "",
    ) -> None:
        self.shared = shared
        self.account_id = account_id
        self.account = TokenBucket(rps, now)
        self.endpoint_rps = endpoint_rps
        self.endpoints: dict[str, TokenBucket] = {}
        self.max_in_flight = in_flight
        self.in_flight_ceiling = in_flight
        self.lowered_at = now

    def take(self, endpoint: str, now: float) -> float:
        """Use one token of each bucket if all have one, and return 0; else use none, and return the
        seconds to wait before the next attempt.
        """
        bucket = self._bucket(endpoint, now)
        wait = max(self.account.ready_in(now), bucket.ready_in(now))
        if wait <= 0 and self.shared is not None:
            wait = self.shared.take(now)
        if wait <= 0:
            self.account.take(now)
            bucket.take(now)
        return wait

    def give_back(self, endpoint: str, now: float) -> None:
        """Return the tokens of a request that was not sent."""
        self.account.give_back()
        self._bucket(endpoint, now).give_back()
        if self.shared is not None:
            self.shared.give_back()

    def succeeded(self, endpoint: str, now: float) -> None:
        """Record a success."""
        self.account.succeeded(now)
        if self.shared is not None:
            self.shared.succeeded(now)
        self._bucket(endpoint, now).succeeded(now)
        if self.in_flight_ceiling < self.max_in_flight and now - self.lowered_at > RECOVERY_SECONDS:
            self.in_flight_ceiling += 1
            self.lowered_at = now

    def limited(self, endpoint: str, reason: str, now: float) -> None:
        """Record a 429; `reason` is Stripe's `Stripe-Rate-Limited-Reason` header, empty if there is
        none.
        """
        if reason.endswith("-concurrency"):
            self.in_flight_ceiling = max(1, self.in_flight_ceiling - 1)
            self.lowered_at = now
        elif reason.startswith("global"):
            self.account.limited(now)
            if self.shared is not None:
                self.shared.limited(self.account_id, now)
        else:
            self._bucket(endpoint, now).limited(now)

    def _bucket(self, endpoint: str, now: float) -> TokenBucket:
        rate = self.endpoint_rps
        if endpoint.endswith("/search"):
            endpoint, rate = "search", min(rate, SEARCH_RPS)
        bucket = self.endpoints.get(endpoint)
        if bucket is None:
            bucket = self.endpoints[endpoint] = TokenBucket(rate, now)
        return bucket


class PageSize:
    """The page size of an endpoint: halved when a page arrives truncated, doubled after some whole
    pages; each truncation of a raised size doubles the pages to wait.
    """

    def __init__(self) -> None:
        self.limit = MAX_PAGE_SIZE
        self.pages_before_raise = 10  # whole pages in a row
        self.whole_pages = 0
        self.was_raised = False  # the last change

    def record_whole(self) -> None:
        """Record a page that arrived whole."""
        self.whole_pages += 1
        if self.limit < MAX_PAGE_SIZE and self.whole_pages >= self.pages_before_raise:
            self.limit, self.whole_pages, self.was_raised = (
                min(MAX_PAGE_SIZE, 2 * self.limit),
                0,
                True,
            )

    def record_cut(self, limit: int) -> None:
        """Record that a page with this limit arrived truncated."""
        if limit <= self.limit:  # otherwise another thread has learned it already
            self.pages_before_raise *= (
                2 if self.was_raised else 1
            )  # an outage halves the page many times, and passes
            self.limit, self.whole_pages, self.was_raised = max(1, limit // 2), 0, False


def endpoint_name(path: str) -> str:
    """The endpoint under which Stripe counts a path: all ids of one path share it."""
    parts = path.split("/")
    id_index = 4 if parts[2:3] and parts[2] in NAMESPACES else 3
    if len(parts) > id_index and parts[id_index] != "search":
        parts[id_index] = ":id"
    if len(parts) > id_index + 2:  # an object of a list below another object
        parts[id_index + 2] = ":id"
    return "/".join(parts)
