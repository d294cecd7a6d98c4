"""Faults on request: latency, rate limits, errors, broken connections and bodies."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from .errors import (
    Refusal,
    key_in_use,
    lock_timeout_error,
    not_set_up,
    rate_limited,
    server_error,
    unknown_url,
)

Fate = Literal["", "reset", "truncate", "malformed", "500_after", "refused"]
T = TypeVar("T")
Always = int | Literal["reset", "truncate", "malformed", "lock_timeout", "500_after", "refused"]
"""A status, or what happens to the answer. With `500_after` a write is executed, with `refused` it
has begun; the idempotency key keeps both outcomes.
"""


@dataclass
class Bucket:
    """A token bucket that holds the tokens of one second and is refilled continuously."""

    rate: float
    tokens: float
    at: float

    def fill(self, now: float) -> bool:
        self.tokens = min(max(self.rate, 1.0), self.tokens + (now - self.at) * self.rate)
        self.at = now
        return self.tokens >= 1


@dataclass
class Faults:
    """The faults to inject. Shares are of all requests, rates in requests per second, times in
    seconds.
    """

    seed: int = 1
    latency: float = 0.0
    jitter: float = 0.0
    rate: float | None = None
    endpoint_rate: float | None = None
    search_rate: float | None = None  # of all searches together
    rates: dict[str, float] = field(default_factory=dict)
    error_500: float = 0.0
    reset: float = 0.0
    truncate: float = 0.0
    malformed: float = 0.0
    lock_timeout: float = 0.0
    error_500_after: float = 0.0  # share of writes that are executed and answered 500
    write_time: float = 0.0  # how long a write holds its object and its idempotency key
    search_lag: float = 60.0  # how old the state is that searches see, by the sandbox's clock
    short: float = 0.0  # share of pages that lack rows although there are more
    event_delay: float = 0.0  # longest time, by the sandbox's clock, until an event is visible
    lost_events: float = 0.0  # share of events that are never visible
    doubled_events: float = 0.0  # share of events that are recorded again with another id
    webhooks_lost: float = 0.0  # share of webhooks that are never sent
    webhooks_doubled: float = 0.0  # share of webhooks that are sent twice
    webhooks_shuffled: float = 0.0  # share of webhooks that arrive after later ones
    not_set_up: tuple[str, ...] = ()
    """Beginnings of paths (`/v1/issuing/`) of products that the account is not set up for."""

    unknown_urls: tuple[str, ...] = ()
    """Beginnings of paths that Stripe does not know for this account."""

    always: dict[str, Always] = field(default_factory=dict)
    """Path template, or method and template (`POST /v1/customers`) -> the fault of each request."""

    once: dict[str, list[Always | None]] = field(default_factory=dict)
    """The same for the next requests, one fault each; None lets a request pass."""

    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.buckets: dict[str, Bucket] = {}
        self._seeded = self.seed
        self._generators: dict[str, random.Random] = {}

    def rng(self, of: str = "faults") -> random.Random:
        """A generator for one purpose, so that faults do not change the account. A new seed
        restarts it.
        """
        if self._seeded != self.seed:
            self._seeded, self._generators = self.seed, {}
        if of not in self._generators:
            self._generators[of] = random.Random(f"{of} {self.seed}")
        return self._generators[of]

    def delay(self) -> float:
        if not self.latency and not self.jitter:
            return 0.0
        return max(0.0, self.latency + self.rng().uniform(-self.jitter, self.jitter))

    def limit(self, template: str) -> None:
        """Take a token from the account's bucket and from the endpoint's, or raise the rate limit
        error.
        """
        endpoint_rate = self.rates.get(template, self.endpoint_rate)
        rates = [("global-rate", "", self.rate), ("endpoint-rate", template, endpoint_rate)]
        if template.endswith("/search"):
            rates.append(("endpoint-rate", "search", self.search_rate))
        now, filled = self.clock(), []
        for reason, name, rate in rates:
            if rate is None:
                continue
            bucket = self.buckets.get(name)
            if bucket is None or bucket.rate != rate:
                bucket = self.buckets[name] = Bucket(rate, max(rate, 1.0), now)
            if not bucket.fill(now):
                raise rate_limited(reason)
            filled.append(bucket)
        for bucket in filled:
            bucket.tokens -= 1

    def refuse_path(self, method: str, path: str) -> None:
        """Raise the error of a product that is off, or of a path that does not exist."""
        if path.startswith(tuple(self.unknown_urls)):
            raise unknown_url(method, path)
        if path.startswith(tuple(self.not_set_up)):
            raise not_set_up(path)

    def inject(self, method: str, template: str) -> Fate:
        """Raise the error that Stripe answers instead, or return what happens to the answer."""
        for name in (f"{method} {template}", template):
            if queue := self.once.get(name):
                planned = queue.pop(0)
                return "" if planned is None else self._planned(planned)
            if name in self.always:
                return self._planned(self.always[name])
        shares: dict[Always, float] = {
            500: self.error_500,
            "lock_timeout": self.lock_timeout,
            "reset": self.reset,
            "truncate": self.truncate,
            "malformed": self.malformed,
            "500_after": self.error_500_after,
        }
        if not any(shares.values()):
            return ""
        share_drawn = self.rng().random()
        for kind, share in shares.items():
            if share_drawn < share:
                return self._planned(kind)
            share_drawn -= share
        return ""

    def _planned(self, what: Always) -> Fate:
        match what:
            case "reset" | "truncate" | "malformed" | "500_after" | "refused":
                return what
            case "lock_timeout":
                raise lock_timeout_error()
            case 429:
                raise rate_limited("endpoint-rate")
            case 500:
                raise server_error()
            case 409:
                raise key_in_use("of this request")
            case int():
                raise Refusal(
                    what, f"The sandbox answers {what} here on request.", type="api_error"
                )
        raise ValueError(f"unknown fault: {what!r}")

    def shorten_page(self, rows: list[T], has_more: bool) -> list[T]:
        """The rows of a page, or with bad luck only the first ones."""
        if has_more and self.short and self.rng().random() < self.short:
            return rows[: len(rows) // 2 + 1]
        return rows

    def corrupt(self, body: bytes) -> bytes:
        """A body that arrives completely and is not JSON."""
        if self.rng().random() < 0.3:
            return b"<html><body><h1>502 Bad Gateway</h1></body></html>"
        return body[: int(len(body) * self.rng().random() * 0.95)]
