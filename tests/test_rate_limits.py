"""Token buckets told the time: how fast they let go, and what they learn from 429s in a simulated
clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from random import Random

import pytest

from stripe_feed.api.rate_limits import (
    BURST_SECONDS,
    MAX_PAGE_SIZE,
    MIN_RATE,
    SAFETY,
    PageSize,
    RateLimiter,
    TokenBucket,
    endpoint_name,
)

ENDPOINT = "/v1/customers"
OTHER = "/v1/invoices"


def sent(bucket: TokenBucket, seconds: float, now: float = 0.0) -> list[float]:
    """When requests leave that take every token as soon as it is there."""
    times: list[float] = []
    end = now + seconds
    while True:
        now += bucket.ready_in(now)
        if now > end:
            return times
        bucket.take(now)
        times.append(now)


@pytest.mark.parametrize(
    ("rate", "burst"), [(0.5, 2), (5, 2), (20, 3), (25, 3), (80, 12), (100, 15)]
)
def test_a_burst_is_a_seventh_of_a_second_and_at_least_two(rate: float, burst: int) -> None:
    """More at once would be answered 429; less would lose the tokens of threads that wake late."""
    assert [time for time in sent(TokenBucket(rate, 0.0), 1.0) if time == 0.0] == [0.0] * burst
    assert TokenBucket(rate, 0.0).burst == max(2.0, BURST_SECONDS * rate)


@pytest.mark.parametrize("rate", [0.2, 3, 20, 80, 100])
def test_requests_leave_at_99_percent_of_the_rate(rate: float) -> None:
    """Just below the budget, so that a limiter with a hard one-second window stays quiet."""
    bucket = TokenBucket(rate, 0.0)

    assert len(sent(bucket, 100.0)) == pytest.approx(100 * rate * SAFETY + bucket.burst, abs=1.1)


def test_tokens_that_nobody_took_are_kept_up_to_the_burst() -> None:
    """A pause does not allow a flood afterwards."""
    bucket = TokenBucket(20, 0.0)
    sent(bucket, 1.0)

    assert len(sent(bucket, 0.0, now=3600.0)) == 3


def test_a_clock_that_goes_back_gives_no_tokens() -> None:
    """Monotonic clocks do not; threads can hand in their times out of order."""
    bucket = TokenBucket(20, 10.0)
    sent(bucket, 0.0, now=10.0)

    assert bucket.ready_in(9.0) == bucket.ready_in(10.0) > 0


def test_a_token_is_there_after_the_announced_wait() -> None:
    """Rounding must not leave a rest too small for the clock to move: whoever waits for it would
    spin for ever.
    """
    dice = Random(1)
    now = 1e6
    for rate in (0.3, 3, 19.8, 79.2, 99):
        bucket = TokenBucket(rate, now)
        for _ in range(2000):
            wait = bucket.ready_in(now)
            now += wait
            if wait:
                assert bucket.ready_in(now) in (0.0, pytest.approx(0.0, abs=1e-6))
            else:
                bucket.take(now)
            now += dice.random() * 1e-3


def test_a_429_lowers_the_rate_at_most_once_a_second() -> None:
    """All requests under way come back with it: that is one message."""
    bucket = TokenBucket(20, 0.0)
    for n in range(20):
        bucket.succeeded(n / 20)

    rates = []
    for now in (1.0, 1.1, 1.9, 2.05):
        bucket.limited(now)
        rates.append(bucket.rate)

    assert rates[0] == rates[1] == rates[2] == pytest.approx(20 * SAFETY * 0.96)
    assert rates[3] < rates[2]


def test_many_429s_lower_the_rate_to_what_went_through() -> None:
    """Where a fifth of the rate or more is refused within a second, its successes tell the limit;
    once a second.
    """
    bucket = TokenBucket(20, 0.0)
    for n in range(12):
        bucket.succeeded(n / 12)

    rates = []
    for n in range(7):
        bucket.limited(0.95 + n / 1000)
        rates.append(bucket.rate)

    assert rates == pytest.approx([20 * SAFETY * 0.96] * 3 + [0.97 * 12] * 4)


def test_429s_never_halve_the_rate_more_than_once_a_second() -> None:
    """Many at once may be a mishap: whether it lasts shows in the second that follows."""
    bucket = TokenBucket(20, 0.0)

    for n in range(20):
        bucket.limited(n / 1000)

    assert bucket.rate == pytest.approx(20 * SAFETY * 0.96 * 0.5)


@pytest.mark.parametrize("rate", [0.5, 3, 25, 80])
def test_a_single_429_after_a_rest_costs_little(rate: float) -> None:
    """There are no successes in the last second because nothing was asked."""
    bucket = TokenBucket(rate, 0.0)

    bucket.limited(3600.0)

    assert bucket.rate == pytest.approx(max(min(MIN_RATE, rate * SAFETY), rate * SAFETY * 0.96))


def test_the_rate_never_falls_below_one_request_in_two_seconds() -> None:
    """A limiter that refuses everything for a while does not stop us for good."""
    bucket = TokenBucket(20, 0.0)
    for now in range(100):
        bucket.limited(float(now))

    assert bucket.rate == MIN_RATE


def test_a_429_never_raises_the_rate() -> None:
    """Also where less was configured than the slowest rate that is learned."""
    bucket = TokenBucket(0.2, 0.0)

    bucket.limited(1.0)

    assert bucket.rate == pytest.approx(0.2 * SAFETY)


def test_the_rate_climbs_back_slowly_then_faster_and_never_above_what_was_configured() -> None:
    """Ten quiet seconds, then 0.002 per answer; after a minute 0.02."""
    bucket = TokenBucket(20, 0.0)
    bucket.limited(0.0)
    low = bucket.rate

    def after(now: float) -> float:
        bucket.succeeded(now)
        return bucket.rate

    assert after(10.0) == low
    assert after(10.1) == pytest.approx(low + 0.002)
    assert after(60.1) == pytest.approx(low + 0.022)
    assert max(after(61 + n / 20) for n in range(2000)) == bucket.rate == bucket.max_rate


def test_the_account_and_the_endpoint_both_need_a_token() -> None:
    """Two endpoints share the account's bucket and have their own."""
    budget = RateLimiter(rps=100, endpoint_rps=20, in_flight=4, now=0.0)
    for _ in range(3):
        budget.take(ENDPOINT, 0.0)

    assert budget.take(ENDPOINT, 0.0) == pytest.approx(1 / (20 * SAFETY))
    assert budget.take(OTHER, 0.0) == 0.0
    budget.give_back(OTHER, 0.0)
    for _ in range(12):
        budget.account.take(0.0)
    assert budget.take(OTHER, 0.0) == pytest.approx(1 / (100 * SAFETY))


@pytest.mark.parametrize(
    ("reason", "slower"),
    [
        ("global-rate", {"account"}),
        ("endpoint-rate", {ENDPOINT}),
        ("resource-specific", {ENDPOINT}),
        ("", {ENDPOINT}),
        ("global-concurrency", {"ceiling"}),
        ("endpoint-concurrency", {"ceiling"}),
    ],
)
def test_a_429_teaches_the_bucket_that_its_reason_names(reason: str, slower: set[str]) -> None:
    """`Stripe-Rate-Limited-Reason` tells the account's rate, the endpoint's, or too many at once;
    none means the endpoint.
    """
    budget = RateLimiter(rps=100, endpoint_rps=20, in_flight=4, now=0.0)
    for endpoint in (ENDPOINT, OTHER):
        budget.take(endpoint, 0.0)

    budget.limited(ENDPOINT, reason, 1.0)

    found = {
        name
        for name, bucket in {"account": budget.account, **budget.endpoints}.items()
        if bucket.rate < bucket.max_rate
    }
    assert found | ({"ceiling"} if budget.in_flight_ceiling < 4 else set()) == slower


def test_the_ceiling_of_requests_under_way_falls_to_one_and_rises_again() -> None:
    """By one for each refusal; a minute without one gives one back."""
    budget = RateLimiter(rps=100, endpoint_rps=20, in_flight=3, now=0.0)
    for _ in range(5):
        budget.limited(ENDPOINT, "global-concurrency", 1.0)
    ceilings = [budget.in_flight_ceiling]
    for now in (60.0, 61.5, 62.0, 122.0, 500.0):
        budget.succeeded(ENDPOINT, now)
        ceilings.append(budget.in_flight_ceiling)

    assert ceilings == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v1/customers", "/v1/customers"),
        ("/v1/customers/cus_1", "/v1/customers/:id"),
        ("/v1/customers/search", "/v1/customers/search"),
        ("/v1/customers/cus_1/tax_ids", "/v1/customers/:id/tax_ids"),
        ("/v1/invoices/in_1/lines", "/v1/invoices/:id/lines"),
        ("/v1/customers/cus_1/tax_ids/txi_1", "/v1/customers/:id/tax_ids/:id"),
        ("/v1/subscription_items", "/v1/subscription_items"),
        ("/v1/account", "/v1/account"),
        ("/v1/test_helpers/test_clocks", "/v1/test_helpers/test_clocks"),
        ("/v1/test_helpers/test_clocks/clock_1", "/v1/test_helpers/test_clocks/:id"),
    ],
)
def test_all_ids_of_a_path_share_an_endpoint(path: str, endpoint: str) -> None:
    """Stripe limits endpoints, not objects."""
    assert endpoint_name(path) == endpoint


Limiter = Callable[[float], bool]


def token_bucket(rate_at: Callable[[float], float], depth: float) -> Limiter:
    tokens, filled_at = depth, 0.0

    def admits(now: float) -> bool:
        nonlocal tokens, filled_at
        tokens = min(depth, tokens + (now - filled_at) * rate_at(now))
        filled_at = now
        if tokens < 1:
            return False
        tokens -= 1
        return True

    return admits


def sliding_window(rate: float) -> Limiter:
    admitted: list[float] = []

    def admits(now: float) -> bool:
        admitted[:] = [time for time in admitted if time > now - 1]
        if len(admitted) >= rate:
            return False
        admitted.append(now)
        return True

    return admits


@dataclass(frozen=True)
class Outcome:
    """When something went through in a run, and how much was refused."""

    times: list[float]
    refused: int

    @property
    def successes(self) -> int:
        return len(self.times)


def simulate(
    limiter: Limiter,
    seconds: float = 300.0,
    rps: float = 25.0,
    in_flight: int = 32,
    rest: tuple[float, float] = (0.0, 0.0),
) -> Outcome:
    """Requests as fast as the budget allows, except during a rest, against a limiter, over a way
    with jitter.
    """
    dice = Random(7)
    budget = RateLimiter(rps=1000, endpoint_rps=rps, in_flight=in_flight, now=0.0)
    order = count()
    events: list[tuple[float, int, str, bool]] = []  # time, order, what, admitted
    now, under_way, refused = 0.0, 0, 0
    times: list[float] = []

    def at(moment: float, what: str, admitted: bool = False) -> None:
        heapq.heappush(events, (moment, next(order), what, admitted))

    at(0.0, "client")
    for now, what, admitted in _until(events, seconds):
        if what == "server":
            at(now + 0.02 + dice.expovariate(1 / 0.02), "answer", limiter(now))
            continue
        if what == "answer":
            under_way -= 1
            if admitted:
                times.append(now)
                budget.succeeded(ENDPOINT, now)
            else:
                refused += 1
                budget.limited(ENDPOINT, "endpoint-rate", now)
        while (
            not rest[0] <= now < rest[1]
            and under_way < in_flight
            and budget.take(ENDPOINT, now) <= 0
        ):
            under_way += 1
            at(now + 0.02 + dice.expovariate(1 / 0.02), "server")
        if what == "client":
            at(now + max(budget.endpoints[ENDPOINT].ready_in(now), 0.002), "client")
    return Outcome(times, refused)


def _until(
    events: list[tuple[float, int, str, bool]], end: float
) -> Iterator[tuple[float, str, bool]]:
    while events and events[0][0] < end:
        now, _, what, admitted = heapq.heappop(events)
        yield now, what, admitted


@pytest.mark.parametrize("limit", [20, 10, 3])
def test_a_stricter_limit_is_found_and_used(limit: float) -> None:
    """Configured 25 a second, truly less: 99 % of it are used over five minutes, with few 429s."""
    found = simulate(token_bucket(lambda now: limit, depth=limit))

    assert found.successes >= 0.99 * limit * 300
    assert found.refused <= 30


def test_a_limiter_with_a_sliding_window_is_found() -> None:
    """The strictest kind: any second counts, so jitter on the way refuses some of an exact pace. 90
    % are used.
    """
    found = simulate(sliding_window(25))

    assert found.successes >= 0.9 * 25 * 300
    assert found.refused <= 25


def test_a_generous_limiter_is_never_hit() -> None:
    """A bucket of one second's depth at the configured rate answers no 429 at all."""
    found = simulate(token_bucket(lambda now: 25, depth=25))

    assert found.refused == 0
    assert found.successes >= 0.98 * 25 * 300


def test_a_limit_that_is_raised_is_used_again() -> None:
    """10 a second for 100 s, then 25: over 200 more seconds most of it is used, with few more 429s."""
    found = simulate(token_bucket(lambda now: 10 if now < 100 else 25, depth=10))

    assert found.successes >= 0.85 * (10 * 100 + 25 * 200)
    assert found.refused <= 30


@pytest.mark.parametrize("mishaps", [1, 3, 10])
def test_a_429_after_a_rest_does_not_slow_what_follows(mishaps: int) -> None:
    """A minute of rest, a 429 without need, then 1,000 requests at 25 a second: close to the 40 s
    that they take at best.
    """
    generous, left = token_bucket(lambda now: 25, depth=25), mishaps

    def limiter(now: float) -> bool:
        nonlocal left
        if now < 70 or not left:
            return generous(now)
        left -= 1
        return False

    found = simulate(limiter, rest=(10.0, 70.0))

    after = [time for time in found.times if time >= 70]
    assert found.refused == mishaps
    assert after[999] - 70 < (1.3 if mishaps == 1 else 2.5) * 1000 / 25


@pytest.mark.parametrize("limit", [5, 10, 15])
def test_few_of_two_thousand_requests_are_refused(limit: float) -> None:
    """Configured 25 a second, truly less: less than 2 % are answered 429 while the limit is found
    and kept.
    """
    found = simulate(token_bucket(lambda now: limit, depth=limit), seconds=2000 / limit)

    assert found.successes >= 1980
    assert found.refused < 0.02 * 2000


def test_after_an_outage_pages_are_soon_whole_again() -> None:
    """Though they were made as small as can be."""
    size, pages = PageSize(), 0
    while size.limit > 1:
        size.record_cut(size.limit)
    while size.limit < MAX_PAGE_SIZE:
        size.record_whole()
        pages += 1
    assert pages == 70


def test_bigger_pages_are_tried_ever_more_rarely_where_they_are_cut() -> None:
    """Each try costs an answer that is of no use."""
    size, cuts = PageSize(), 0
    for _ in range(2_000):
        if size.limit > 30:
            size.record_cut(size.limit)
            cuts += 1
        else:
            size.record_whole()
    assert (size.limit, cuts) == (25, 9)
