"""Times as text mean the same on each version of Python."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from stripe_feed.api.iso_time import parse_time, with_zone

NOON = datetime(2026, 1, 31, 12, 0, 4, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-01-31T12:00:04Z", NOON),
        ("2026-01-31T12:00:04.5Z", NOON + timedelta(milliseconds=500)),
        ("2026-01-31 12:00:04.1234567+00:00", NOON + timedelta(microseconds=123_456)),
        ("2026-01-31T14:00:04.25+02:00", NOON + timedelta(milliseconds=250)),
        ("2026-01-31 12:00:04", NOON),
    ],
)
def test_any_fraction_and_zone_is_read(text: str, wanted: datetime) -> None:
    assert with_zone(text) == wanted


def test_a_time_without_a_zone_stays_so_if_it_is_only_read() -> None:
    assert parse_time("2026-01-31 12:00:04").tzinfo is None
    assert with_zone(NOON) is NOON


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(ValueError):
        parse_time("yesterday")
