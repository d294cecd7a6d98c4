"""What time it is at Stripe: from the `Date` of its answers, as far as they agree; from the local
clock where there is none.

Somebody between can drop the header, break it, repeat an old one, or write it by a clock of its own
that is wrong.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from time import monotonic, time

DOUBT = 60.0  # seconds that two clocks may differ

log = logging.getLogger("stripe_feed")


@dataclass(frozen=True)
class Clock:
    """The one place where time comes from; tests hand in another."""

    time: Callable[[], float] = time
    monotonic: Callable[[], float] = monotonic
    wait: Callable[[threading.Event, float], bool] = threading.Event.wait


class StripeTime:
    """Stripe's clock, carried on by our monotonic one. Share it under a lock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.offset: float | None = None  # Stripe's time minus our monotonic clock
        self.sure = False  # two answers agreed
        self.odd: float | None = None  # another offset, of one answer only
        self.proven = 0.0  # a second that has passed at Stripe, whatever the clocks say
        self.said = False

    @property
    def is_known(self) -> bool:
        """Whether a `Date` serves."""
        return self.offset is not None

    def now(self) -> float:
        """Stripe's time now."""
        now = self.clock.time() if self.offset is None else self.clock.monotonic() + self.offset
        return max(now, self.proven)

    def skew(self) -> float:
        """Seconds that the local clock is ahead of Stripe's (behind: negative); `Date` has whole
        seconds.
        """
        return self.clock.time() - self.now()

    def prove(self, second: float) -> None:
        """Something at Stripe happened then: a clock that is behind that is wrong."""
        self.proven = max(self.proven, second)
        if self.offset is not None and self.clock.monotonic() + self.offset < second - DOUBT:
            self.offset, self.sure, self.odd = None, False, None
            self._tell()

    def heard(self, headers: Mapping[str, str], ended: float) -> float:
        """Stripe's time of an answer that came at `ended`."""
        date = date_of(headers)
        if date is None or date + _age(headers) < self.proven - DOUBT:
            if self.offset is None:
                self._tell()
            return self.now()
        self._agree(date + _age(headers) - ended)
        return min(date, ended + self.offset) if self.offset is not None else date

    def _agree(self, offset: float) -> None:
        """Take the newest offset, unless it is the only one of its kind."""
        if self.offset is None:
            self.offset = offset
        elif abs(offset - self.offset) <= DOUBT or (
            self.odd is not None and abs(offset - self.odd) <= DOUBT
        ):
            self.offset, self.sure, self.odd = offset, True, None
        elif self.sure:
            self.odd = offset
        else:  # two answers, two times: the earlier one leaves nothing out
            self.offset, self.odd = sorted((offset, self.offset))

    def _tell(self) -> None:
        if not self.said:
            self.said = True
            log.warning(
                "Stripe's answers have no `Date` that can be used (does a proxy change it?): this machine's clock serves instead."
            )


def date_of(headers: Mapping[str, str]) -> float | None:
    """The `Date` of an answer in Unix seconds, if it can be read."""
    try:
        date = parsedate_to_datetime(headers["Date"])
        return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _age(headers: Mapping[str, str]) -> float:
    """Seconds that an answer lay in a cache."""
    age = headers.get("Age", "")
    return float(age) if age.isascii() and age.isdigit() and len(age) < 9 else 0.0
