"""DuckDB takes a quicker way with small amounts; either way gives the exact result."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from math import floor

import duckdb
import pytest

from stripe_feed.models.render import ModelTarget, load_project, render_text

TARGET = ModelTarget("duckdb", "", "stripe", "stripe_models")


def evaluated(macro: str, column: str, rows: list[tuple[object, ...]], names: str) -> list[object]:
    """What a macro gives for each row."""
    values = ", ".join(f"({', '.join(map(str, row))})" for row in rows)
    sql = render_text(load_project(), TARGET, f"{{{{ {macro}('{column}') }}}}")
    found = duckdb.sql(f"select {sql} from (values {values}) as given({names})").fetchall()
    return [value for (value,) in found]


def test_an_amount_in_text_is_exact() -> None:
    texts = ["0", "1500", "-7", "0.5", "0.000000000001", "123456789012.123456", "123456789012.1234567",
             "1234567890123", "9007199254740993", "15e-1", "-0.25", "99999999999999999999.5"]  # fmt: skip

    found = evaluated("amount_of", "t", [(f"'{text}'",) for text in [*texts, "0"]], "t")

    assert found == [Decimal(text) for text in [*texts, "0"]]
    odd: list[tuple[object, ...]] = [
        ("null::varchar",),
        ("'abc'",),
        ("''",),
        ("'1e30'",),
        ("'1,5'",),
    ]
    assert evaluated("amount_of", "t", odd, "t") == [None] * 5


def test_an_amount_is_rounded_half_away_from_zero() -> None:
    numbers = ["0", "0.5", "-0.5", "1.499999999999", "899999.5", "900000", "900000.5", "-900000.5",
               "9007199254740993.5", "-2.5"]  # fmt: skip

    found = evaluated("whole", "a", [(f"cast('{n}' as decimal(38, 12))",) for n in numbers], "a")

    assert found == [int(Decimal(number).quantize(Decimal(1), ROUND_HALF_UP)) for number in numbers]


@pytest.mark.parametrize(
    ("interval", "per_year"), [("day", 365), ("week", 52), ("month", 12), ("year", 1)]
)
def test_an_amount_per_month_is_rounded_once(interval: str, per_year: int) -> None:
    cases = [(amount, count) for amount in (0, 1, 5, 1_000, 999_999_999_999, 1_000_000_000_000, 10**16)
             for count in (1, 3, 9_999, 10_000)]  # fmt: skip

    rows = [(f"{amount}::bigint", f"'{interval}'", f"{count}::bigint") for amount, count in cases]
    found = evaluated("monthly", "a", list(rows), "a, billing_interval, billing_interval_count")

    assert found == [
        floor(Fraction(amount * per_year, 12 * count) + Fraction(1, 2)) for amount, count in cases
    ]
