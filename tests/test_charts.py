"""The charts of the models, as SVG and PNG."""

from __future__ import annotations

import re
from datetime import date
from typing import Any
from xml.etree import ElementTree

import pytest

from stripe_feed.report import charts

MARCH, JUNE = date(2026, 3, 1), date(2026, 6, 1)


@pytest.mark.parametrize(
    ("currency", "minor", "shown"), [("eur", 123456, "1234.56"), ("jpy", 1234, "1234"), ("kwd", 1234567, "1234.567")]
)  # fmt: skip
def test_amounts_are_drawn_in_the_units_of_their_currency(
    currency: str, minor: int, shown: str
) -> None:
    chart = charts.mrr_chart([{"month": MARCH, "basis": "observed", "mrr": minor}], currency)

    assert f"month: 2026-03; MRR ({currency.upper()}): {shown};" in charts.chart_svg(chart)


def test_what_is_not_observed_is_hatched_and_the_svg_brings_the_hatches() -> None:
    rows = [
        {"month": MARCH, "basis": basis, "kind": "new", "amount": 100} for basis in charts.BASES
    ]

    svg = charts.chart_svg(charts.movements_chart(rows, "eur"))

    ElementTree.fromstring(svg)
    for basis in ("invoice", "assumed"):
        assert f'<pattern id="hatch-{basis}"' in svg
        assert re.search(f'basis: {basis}[^>]*fill="url\\(#hatch-{basis}\\)"', svg)
    assert not re.search("basis: observed[^>]*fill=", svg)
    assert set(re.findall(r"https?://[^\"' ]+", svg)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_months_without_a_row_have_a_place() -> None:
    rows = [
        {"month": month, "kind": "new", "basis": "observed", "amount": 1} for month in (MARCH, JUNE)
    ]

    svg = charts.chart_svg(charts.movements_chart(rows, "eur"))

    assert [month for month in ("2026-03", "2026-04", "2026-05", "2026-06") if f">{month}<" in svg] == [
        "2026-03", "2026-04", "2026-05", "2026-06",
    ]  # fmt: skip


def test_a_name_is_text_and_nothing_else() -> None:
    name = "<script>alert(1)</script>\"'&"

    svg = charts.chart_svg(charts.products_chart([{"product_name": name, "revenue": 5}], "eur"))

    assert "<script" not in svg
    texts = [element.text for element in ElementTree.fromstring(svg).iter() if element.text]
    assert any(text.startswith("<script>") for text in texts)


@pytest.mark.parametrize("rows", [[], [{"month": MARCH, "payouts": 0, "fees": None}]], ids=["none", "zero"])  # fmt: skip
def test_a_chart_without_figures_is_empty_axes(rows: list[dict[str, Any]]) -> None:
    assert charts.chart_svg(charts.payouts_chart(rows, "eur")).startswith("<svg")


def test_a_png() -> None:
    rows = [{"cohort_month": MARCH, "age_months": 0, "logo_retention": 1}]

    assert charts.chart_png(charts.cohorts_chart(rows), scale=1).startswith(b"\x89PNG")
