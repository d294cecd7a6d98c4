"""Stripe's time: from the `Date` of its answers as far as they agree, else from the local clock.

A proxy can drop the header, break it, repeat an old one, or write it by a wrong clock of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from time import monotonic, time

CLOCK_TOLERANCE = 60.0  # seconds that two clocks may differ

log = logging.getLogger("stripe_feed")


@dataclass(frozen=True)
class Clock:
    """The one source of time; tests pass another one."""

    time: Callable[[], float] = time
    monotonic: Callable[[], float] = monotonic
    wait: Callable[[threading.Event, float], bool] = threading.Event.wait


class StripeTime:
    """Stripe's clock, continued by the local monotonic clock. Threads share it under a lock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.offset: float | None = None  # Stripe's time minus our monotonic clock
        self.confirmed = False  # two answers agreed
        self.unconfirmed: float | None = None  # another offset, of one answer only
        self.earliest = 0.0  # a second that has passed at Stripe, whatever the clocks say
        self.warned = False

    @property
    def is_known(self) -> bool:
        """Whether an answer had a usable `Date`."""
        return self.offset is not None

    def now(self) -> float:
        """Stripe's time now."""
        now = self.clock.time() if self.offset is None else self.clock.monotonic() + self.offset
        return max(now, self.earliest)

    def skew(self) -> float:
        """Seconds by which the local clock is ahead of Stripe's (negative if behind); `Date` has
        whole seconds.
        """
        return self.clock.time() - self.now()

    def advance_to(self, second: float) -> None:
        """Note that this second has passed at Stripe: a clock that is behind it is wrong."""
        self.earliest = max(self.earliest, second)
        if (
            self.offset is not None
            and self.clock.monotonic() + self.offset < second - CLOCK_TOLERANCE
        ):
            self.offset, self.confirmed, self.unconfirmed = None, False, None
            self._warn()

    def observe(self, headers: Mapping[str, str], ended: float) -> float:
        """Learn from an answer that came at `ended` (monotonic), and return Stripe's time of it."""
        date = parse_date(headers)
        if date is None or date + _cache_age(headers) < self.earliest - CLOCK_TOLERANCE:
            if self.offset is None:
                self._warn()
            return self.now()
        self._update_offset(date + _cache_age(headers) - ended)
        return min(date, ended + self.offset) if self.offset is not None else date

    def _update_offset(self, offset: float) -> None:
        """Take the newest offset, unless it contradicts confirmed ones and no other agrees."""
        if self.offset is None:
            self.offset = offset
        elif abs(offset - self.offset) <= CLOCK_TOLERANCE or (
            self.unconfirmed is not None and abs(offset - self.unconfirmed) <= CLOCK_TOLERANCE
        ):
            self.offset, self.confirmed, self.unconfirmed = offset, True, None
        elif self.confirmed:
            self.unconfirmed = offset
        else:  # two answers, two times: the earlier one misses nothing
            self.offset, self.unconfirmed = sorted((offset, self.offset))

    def _warn(self) -> None:
        if not self.warned:
            self.warned = True
            log.warning(
                "Stripe's answers have no usable `Date` (does a proxy change it?): using this machine's clock instead."
            )


def parse_date(headers: Mapping[str, str]) -> float | None:
    """The `Date` of an answer in Unix seconds, if it can be read."""
    try:
        date = parsedate_to_datetime(headers["Date"])
        return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _cache_age(headers: Mapping[str, str]) -> float:
    """Seconds that an answer was in a cache."""
    age = headers.get("Age", "")
    return float(age) if age.isascii() and age.isdigit() and len(age) < 9 else 0.0
