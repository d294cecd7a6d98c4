"""What goes wrong on request: latency, rate limits, errors, broken connections and bodies."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from .errors import Refusal, key_in_use, lock_timeout_error, rate_limited, server_error

Fate = Literal["", "reset", "truncate", "malformed", "500_after", "refused"]
T = TypeVar("T")
Always = int | Literal["reset", "truncate", "malformed", "lock_timeout", "500_after", "refused"]
"""A status, or what happens to the answer. `500_after` and `refused` are the outcomes of a write that was executed, or
begun: its idempotency key keeps them.
"""


@dataclass
class Bucket:
    """Tokens for one second at most, refilled all the time."""

    rate: float
    tokens: float
    at: float

    def fill(self, now: float) -> bool:
        self.tokens = min(max(self.rate, 1.0), self.tokens + (now - self.at) * self.rate)
        self.at = now
        return self.tokens >= 1


@dataclass
class Faults:
    """Set what should happen; shares are of all requests, rates in requests per second, times in
    seconds.
    """

    seed: int = 1
    latency: float = 0.0
    jitter: float = 0.0
    rate: float | None = None
    endpoint_rate: float | None = None
    rates: dict[str, float] = field(default_factory=dict)
    error_500: float = 0.0
    reset: float = 0.0
    truncate: float = 0.0
    malformed: float = 0.0
    lock_timeout: float = 0.0
    error_500_after: float = 0.0  # writes that are executed, and answered 500
    write_time: float = 0.0  # a write takes so long, and holds its object and its idempotency key
    search_lag: float = (
        60.0  # searches see objects as they were so long ago, by the sandbox's clock
    )
    short: float = (
        0.0  # pages with fewer rows than asked for although there are more; Stripe may do that
    )
    event_delay: float = (
        0.0  # each event shows up to so many seconds of the sandbox's clock after it was created
    )
    lost_events: float = 0.0  # events that never show
    doubled_events: float = 0.0  # events that are recorded again, under another id
    webhooks_lost: float = 0.0  # webhooks that are never sent, not even again
    webhooks_doubled: float = 0.0  # webhooks that are sent twice
    webhooks_shuffled: float = 0.0  # webhooks that are held back until others have overtaken them
    always: dict[str, Always] = field(default_factory=dict)
    """Path template, or method and template (`POST /v1/customers`) -> what happens each time."""

    once: dict[str, list[Always | None]] = field(default_factory=dict)
    """The same for the next requests, one after the other; None lets one pass."""

    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.buckets: dict[str, Bucket] = {}
        self._seeded = self.seed
        self._generators: dict[str, random.Random] = {}

    def rng(self, of: str = "faults") -> random.Random:
        """Chance of its own, so that faults do not change the account; a new seed starts it anew."""
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
        """Take a token from the account's bucket and from the endpoint's, or refuse."""
        own = self.rates.get(template, self.endpoint_rate)
        rates = {"global-rate": ("", self.rate), "endpoint-rate": (template, own)}
        now, full = self.clock(), []
        for reason, (name, rate) in rates.items():
            if rate is None:
                continue
            bucket = self.buckets.get(name)
            if bucket is None or bucket.rate != rate:
                bucket = self.buckets[name] = Bucket(rate, max(rate, 1.0), now)
            if not bucket.fill(now):
                raise rate_limited(reason)
            full.append(bucket)
        for bucket in full:
            bucket.tokens -= 1

    def inject(self, method: str, template: str) -> Fate:
        """Raise what Stripe answers instead, or tell what happens to the answer on its way."""
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
            "500_after": 0.0 if method == "GET" else self.error_500_after,
        }
        if not any(shares.values()):
            return ""
        drawn = self.rng().random()
        for kind, share in shares.items():
            if drawn < share:
                return self._planned(kind)
            drawn -= share
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
                    what, f"The sandbox answers {what} here, as it was told to.", type="api_error"
                )
        raise ValueError(f"no such fault: {what!r}")

    def shorten_page(self, rows: list[T], has_more: bool) -> list[T]:
        """The rows of a page, or with bad luck the first ones only."""
        if has_more and self.short and self.rng().random() < self.short:
            return rows[: len(rows) // 2 + 1]
        return rows

    def corrupt(self, body: bytes) -> bytes:
        """A body that arrives whole and is no JSON."""
        if self.rng().random() < 0.3:
            return b"<html><body><h1>502 Bad Gateway</h1></body></html>"
        return body[: int(len(body) * self.rng().random() * 0.95)]
