"""Times as text, in the form of ISO 8601."""

from __future__ import annotations

import re
from datetime import datetime, timezone

_FRACTION = re.compile(r"\.(\d{1,6})\d*")  # of a second


def parse_time(text: str) -> datetime:
    """Read an ISO 8601 date and time, on each version of Python alike. Raises `ValueError`."""
    # Python 3.10 reads neither Z nor a fraction of other than three or six digits
    whole = _FRACTION.sub(lambda found: f".{found[1]:0<6}", text.replace("Z", "+00:00"))
    return datetime.fromisoformat(whole)


def with_zone(value: datetime | str) -> datetime:
    """A time, or its text, with its zone; one without is in UTC: some destinations keep none. Raises
    `ValueError`.
    """
    moment = parse_time(value) if isinstance(value, str) else value
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
