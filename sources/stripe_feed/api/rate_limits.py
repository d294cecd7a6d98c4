"""How fast we may ask, and for how much: token buckets for the account and for each endpoint, which
learn from 429 answers.

Pure: no clock and no I/O of its own; every call is told the time in monotonic seconds. The default
budget is 80 % of what Stripe documents, because the account's own traffic shares the limits
(https://docs.stripe.com/rate-limits).
"""

from __future__ import annotations

from collections import deque

LIVE_RPS = 80.0
TEST_RPS = 20.0
ENDPOINT_RPS = 20.0

PACE = 0.99  # below the budget, so that limiters with a hard one-second window stay quiet
BURST_SECONDS = 0.15
SLOWEST = 0.5
# what rounding leaves of a token: a wait so short that the clock does not move would never end
DUST = 1e-9
RECOVER_PATIENCE = 60.0
MOST_ON_A_PAGE = 100


class Bucket:
    """A token bucket whose rate falls with 429 answers and climbs back slowly, never above the
    configured one.
    """

    def __init__(self, rate: float, now: float) -> None:
        self.top = rate * PACE
        self.rate = self.top
        self.burst = max(2.0, BURST_SECONDS * rate)
        self.tokens = self.burst
        self.filled_at = now
        self.last_limited = float("-inf")
        self.last_cut = float("-inf")
        self.last_found = float("-inf")
        self.successes: deque[float] = deque()  # of the last second
        self.refusals: deque[float] = deque()

    def ready_in(self, now: float) -> float:
        """Seconds until a token is there; 0 when one is."""
        self._fill(now)
        missing = 1.0 - self.tokens
        return missing / self.rate if missing > DUST else 0.0

    def take(self, now: float) -> None:
        """Use one token."""
        self._fill(now)
        self.tokens -= 1.0

    def limited(self, now: float) -> None:
        """Learn from a 429: a little less at most once a second, and where many come within one,
        what went through in it.

        Few successes alone tell nothing: after a rest there are none.
        """
        self.last_limited = now
        self.refusals.append(now)
        many = max(1.0, 0.2 * self.rate)
        if _recent(self.refusals, now) > many and now - self.last_found >= 1.0:
            self.last_found = self.last_cut = now
            found = 0.97 * _recent(self.successes, now)
            self._slow(min(0.96 * self.rate, max(found, 0.5 * self.rate)))
        elif now - self.last_cut >= 1.0:
            self.last_cut = now
            self._slow(0.96 * self.rate)

    def succeeded(self, now: float) -> None:
        """Learn from an answer: after ten quiet seconds the rate climbs back, faster after a
        minute.
        """
        self.successes.append(now)
        _recent(self.successes, now)
        quiet = now - self.last_limited
        if self.rate < self.top and quiet > 10.0:
            self.rate = min(self.top, self.rate + (0.02 if quiet > RECOVER_PATIENCE else 0.002))

    def _fill(self, now: float) -> None:
        if now > self.filled_at:
            self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * self.rate)
            self.filled_at = now

    def _slow(self, rate: float) -> None:
        self.rate = max(min(SLOWEST, self.top), rate)
        self.tokens = min(self.tokens, 0.0)


def _recent(times: deque[float], now: float) -> int:
    """How many are of the last second; drops the others."""
    while times and times[0] < now - 1.0:
        times.popleft()
    return len(times)


class Budget:
    """The account's bucket, one bucket per endpoint, and a ceiling for requests in flight."""

    def __init__(self, rps: float, endpoint_rps: float, in_flight: int, now: float) -> None:
        self.account = Bucket(rps, now)
        self.endpoint_rps = endpoint_rps
        self.endpoints: dict[str, Bucket] = {}
        self.most_in_flight = in_flight
        self.in_flight_ceiling = in_flight
        self.last_lowered = now

    def ready_in(self, endpoint: str, now: float) -> float:
        """Seconds until both buckets have a token for this endpoint."""
        return max(self.account.ready_in(now), self._endpoint(endpoint, now).ready_in(now))

    def take(self, endpoint: str, now: float) -> None:
        """Use one token of both."""
        self.account.take(now)
        self._endpoint(endpoint, now).take(now)

    def succeeded(self, endpoint: str, now: float) -> None:
        """An answer came."""
        self.account.succeeded(now)
        self._endpoint(endpoint, now).succeeded(now)
        if (
            self.in_flight_ceiling < self.most_in_flight
            and now - self.last_lowered > RECOVER_PATIENCE
        ):
            self.in_flight_ceiling += 1
            self.last_lowered = now

    def limited(self, endpoint: str, reason: str, now: float) -> None:
        """A 429 came; `reason` is Stripe's `Stripe-Rate-Limited-Reason` header, empty when there is
        none.
        """
        if reason.endswith("-concurrency"):
            self.in_flight_ceiling = max(1, self.in_flight_ceiling - 1)
            self.last_lowered = now
        elif reason.startswith("global"):
            self.account.limited(now)
        else:
            self._endpoint(endpoint, now).limited(now)

    def _endpoint(self, endpoint: str, now: float) -> Bucket:
        bucket = self.endpoints.get(endpoint)
        if bucket is None:
            bucket = self.endpoints[endpoint] = Bucket(self.endpoint_rps, now)
        return bucket


class PageSize:
    """How many objects one page of an endpoint may hold: fewer where pages do not arrive whole, and
    more again after some that do; ever more rarely where bigger ones are cut each time.
    """

    def __init__(self) -> None:
        self.most = MOST_ON_A_PAGE
        self.patience = 10  # whole pages before a bigger one is tried
        self.good = 0
        self.tries = False  # a bigger one

    def whole(self) -> None:
        """A page came."""
        self.good += 1
        if self.most < MOST_ON_A_PAGE and self.good >= self.patience:
            self.most, self.good, self.tries = min(MOST_ON_A_PAGE, 2 * self.most), 0, True

    def cut(self, limit: int) -> None:
        """A page of so many did not come whole."""
        if limit <= self.most:  # otherwise another thread has learned it already
            self.patience *= (
                2 if self.tries else 1
            )  # an outage halves the page many times, and passes
            self.most, self.good, self.tries = max(1, limit // 2), 0, False


def endpoint_of(path: str) -> str:
    """The endpoint that Stripe counts a path under: all ids of one path share it."""
    parts = path.split("/")
    at = 4 if parts[2:3] == ["test_helpers"] else 3
    if len(parts) > at and parts[at] != "search":
        parts[at] = ":id"
    return "/".join(parts)
