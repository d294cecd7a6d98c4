"""The charts of the models, in Altair. They need the extra `[report]`.

Each takes rows as mappings with the columns of a mart, amounts in minor units, and draws one currency.
What is not observed is hatched: once if it comes from invoices, crosswise if it is assumed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import altair as alt

from ..currencies import DECIMALS

ChartRows = Iterable[Mapping[str, Any]]

WIDTH, HEIGHT = 760, 230  # of the drawing, in pixels
MOVEMENTS = ("new", "reactivation", "expansion", "contraction", "churn")
BASES = ("observed", "invoice", "assumed")
BUCKETS = ("current", "1-30", "31-60", "61-90", "90+", "uncollectible")
_BLUE, _GREEN, _RED, _ORANGE = "#7d8ff0", "#58b98b", "#e4777d", "#f0b35e"
_MOVEMENT_COLORS = ("#58b98b", "#97d3b5", "#7d8ff0", "#f0b35e", "#e4777d")
_BUCKET_COLORS = ("#a9b4c6", "#f3cf98", "#f0b35e", "#e98a63", "#d9555c", "#7c3440")
_INK, _SOFT, _LINE = "#1b1f27", "#5b6472", "#e1e5eb"
_MONTH_LABELS = 7  # at most; measuring texts is what takes the time
_CONFIG = {
    "font": "sans-serif",
    "background": "white",
    "padding": 4,
    "view": {"stroke": None},
    "axis": {
        "labelColor": _SOFT,
        "titleColor": _SOFT,
        "titleFontWeight": "normal",
        "gridColor": _LINE,
        "domainColor": _LINE,
        "tickColor": _LINE,
        "labelFontSize": 12,
        "titleFontSize": 12,
    },
    "axisX": {"grid": False},
    "legend": {
        "orient": "top",
        "labelColor": _INK,
        "titleColor": _SOFT,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
    },
}
_GRID_COLOR = {"condition": {"test": "datum.value == 0", "value": _SOFT}, "value": _LINE}
_PNG_START = b"\x89PNG\r\n\x1a\n"
_HATCH = "url(#hatch-{})"  # defined by `chart_svg`
_HATCHES = """<defs>\
<pattern id="hatch-invoice" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">\
<path d="M0,0v6" stroke="#1b1f27" stroke-width="1.6" stroke-opacity="0.55"/></pattern>\
<pattern id="hatch-assumed" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">\
<path d="M0,0v5M0,0h5" stroke="#1b1f27" stroke-width="1.4" stroke-opacity="0.5"/></pattern></defs>"""


def mrr_chart(rows: ChartRows, currency: str) -> alt.LayerChart:
    """Draw MRR by month. `rows`: month, basis, mrr."""
    values = _values(rows, currency, "mrr")
    base = _monthly(values).encode(
        y=_amount("mrr", currency, "MRR"), order=alt.Order("basis_order:Q")
    )
    return _styled(base.mark_bar(color=_BLUE), _hatched(base))


def movements_chart(rows: ChartRows, currency: str) -> alt.LayerChart:
    """Draw what was added to MRR by month above zero, and what was lost below. `rows`: month, kind,
    basis, amount.
    """
    values = _values(rows, currency, "amount")
    for row in values:
        row["order"] = MOVEMENTS.index(row["kind"]) * len(BASES) + row["basis_order"]
    base = _monthly(values).encode(
        y=_amount("amount", currency, "Change of MRR"), order=alt.Order("order:Q")
    )
    kind = _color("kind:N", MOVEMENTS, _MOVEMENT_COLORS)
    return _styled(base.mark_bar().encode(color=kind), _hatched(base))


def rates_chart(rows: ChartRows, names: Sequence[str]) -> alt.LayerChart:
    """Draw rates by month as lines. `rows`: month, and a share under each of the names."""
    values = [
        {"month": _month(row["month"]), "rate": name, "share": float(row[name])}
        for row in rows
        for name in names
        if row[name] is not None
    ]
    lines = _monthly(values).encode(
        y=alt.Y("share:Q", title=None, axis=alt.Axis(format=".1~%")),
        color=_color("rate:N", names, (_RED, _BLUE, _ORANGE, _GREEN)),
    )
    return _styled(lines.mark_line(strokeWidth=2.5, point=alt.OverlayMarkDef(size=45)))


def subscribers_chart(rows: ChartRows) -> alt.LayerChart:
    """Draw active subscribers over time. `rows`: day, active_subscribers."""
    values = [{"day": str(row["day"]), "subscribers": row["active_subscribers"]} for row in rows]
    base = _chart(values).encode(
        x=alt.X("day:T", title=None, axis=alt.Axis(format="%Y-%m-%d", labelAngle=0, tickCount=6)),
        y=alt.Y("subscribers:Q", title="Active subscribers", axis=alt.Axis(tickMinStep=1)),
    )
    return _styled(base.mark_area(color=_BLUE, opacity=0.25, line={"color": _BLUE}))


def aging_chart(rows: ChartRows, currency: str) -> alt.LayerChart:
    """Draw what is left to pay by how long it has been due. `rows`: bucket, amount_remaining."""
    values = _values(rows, currency, "amount_remaining")
    bars = _chart(values).encode(
        x=alt.X("bucket:N", title="Days overdue", sort=BUCKETS, axis=alt.Axis(labelAngle=0)),
        y=_amount("amount_remaining", currency, "Left to pay"),
        color=_color("bucket:N", BUCKETS, _BUCKET_COLORS, legend=False),
    )
    return _styled(bars.mark_bar(size=60))


def products_chart(rows: ChartRows, currency: str) -> alt.LayerChart:
    """Draw what was invoiced for each product. `rows`: product_name, revenue."""
    values = _values(rows, currency, "revenue")
    names = [row["product_name"] for row in values]
    bars = _chart(values).encode(
        x=_amount("revenue", currency, "Invoiced", axis=alt.X),
        y=alt.Y("product_name:N", title=None, sort=names, axis=alt.Axis(labelLimit=180)),
    )
    return _styled(bars.mark_bar(color=_BLUE), height=max(60, 26 * len(values)))


def payouts_chart(
    rows: ChartRows, currency: str, amounts: Sequence[str] = ("payouts", "fees")
) -> alt.LayerChart:
    """Draw payouts and fees, or other amounts, by month and side by side. `rows`: month, and these."""
    scale, names = _scale(currency), [name.replace("_", " ") for name in amounts]
    values = [
        {"month": _month(row["month"]), "what": name, "amount": float(row[amount]) / scale}
        for row in rows
        for amount, name in zip(amounts, names, strict=True)
        if row[amount] is not None
    ]
    bars = _monthly(values).encode(
        y=_amount("amount", currency, "Amount"),
        xOffset=alt.XOffset("what:N", sort=names),
        color=_color("what:N", names, (_BLUE, _ORANGE, _GREEN, _RED)),
    )
    return _styled(bars.mark_bar())


def cohorts_chart(rows: ChartRows, share: str = "logo_retention") -> alt.LayerChart:
    """Draw what share of each month's new customers is left, by age. `rows`: cohort_month,
    age_months, and the share.
    """
    values = [
        {
            "cohort": _month(row["cohort_month"]),
            "age": row["age_months"],
            "share": float(row[share]),
        }
        for row in rows
        if row[share] is not None
    ]
    base = _chart(values).encode(
        x=alt.X("age:O", title="Months since the first payment", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("cohort:O", title=None),
    )
    color = alt.Color(
        "share:Q", legend=None, scale=alt.Scale(range=["#eef0fd", _BLUE], domain=[0, 1])
    )
    cells = base.mark_rect(stroke="white").encode(color=color)
    labels = base.mark_text(fontSize=10, color=_INK).encode(text=alt.Text("share:Q", format=".0%"))
    cohorts = len({row["cohort"] for row in values})
    return _styled(cells, labels, height=max(60, 24 * cohorts))


def chart_svg(chart: alt.LayerChart) -> str:
    """Render a chart as an SVG that stands alone. Its hatches come with it."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(chart.to_dict())
    opening, bracket, rest = svg.partition(">")
    return f"{opening}{bracket}{_HATCHES}{rest}"


def chart_png(chart: alt.LayerChart, scale: float = 2) -> bytes:
    """Render a chart as a PNG, `scale` pixels for each of the drawing's."""
    import vl_convert

    return _compressed(vl_convert.svg_to_png(chart_svg(chart), scale=scale))


def _compressed(png: bytes) -> bytes:
    """The same PNG in a fifth of the bytes: vl-convert compresses for speed."""
    at, kept, data = len(_PNG_START), [_PNG_START], b""
    while at < len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        if kind == b"IDAT":
            data += png[at + 8 : at + 8 + size]
        elif kind == b"IEND":
            body = b"IDAT" + zlib.compress(zlib.decompress(data), 9)
            kept.append(
                struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
            )
        if kind != b"IDAT":
            kept.append(png[at : at + 12 + size])
        at += 12 + size
    return b"".join(kept)


def _values(rows: ChartRows, currency: str, amount: str) -> list[dict[str, Any]]:
    """The rows for JSON: the amount in major units, months as text."""
    scale = _scale(currency)
    values = [dict(row) | {amount: float(row[amount]) / scale} for row in rows]
    for row in values:
        if "month" in row:
            row["month"] = _month(row["month"])
        if "basis" in row:
            row["basis_order"] = BASES.index(row["basis"])
    return values


def _scale(currency: str) -> int:
    return int(10 ** DECIMALS.get(currency.lower(), 2))


def _month(month: date | str) -> str:
    return str(month)[:7]


def _chart(values: list[dict[str, Any]]) -> Any:
    return alt.Chart(alt.InlineData(values=values))


def _monthly(values: list[dict[str, Any]]) -> Any:
    months = _calendar([row["month"] for row in values])
    step = -(-len(months) // _MONTH_LABELS) or 1
    axis = alt.Axis(
        labelAngle=0, title=None, values=months[::-step][::-1], labelOverlap=False, ticks=False
    )
    scale = alt.Scale(domain=months)
    return _chart(values).encode(x=alt.X("month:O", axis=axis, scale=scale))


def _calendar(months: Sequence[str]) -> list[str]:
    """Every month from the first to the last of these, also those in which nothing happened."""
    if not months:
        return []
    first, last = (int(end[:4]) * 12 + int(end[5:]) - 1 for end in (min(months), max(months)))
    return [f"{number // 12:04}-{number % 12 + 1:02}" for number in range(first, last + 1)]


def _amount(name: str, currency: str, title: str, axis: Any = alt.Y) -> Any:
    """An axis in major units of a currency; large amounts as 1.2M."""
    label = "replace(format(datum.value, abs(datum.value) >= 10000 ? '.3~s' : ','), 'G', 'B')"
    return axis(
        f"sum({name}):Q" if axis is alt.Y else f"{name}:Q",
        title=f"{title} ({currency.upper()})",
        axis=alt.Axis(labelExpr=label, tickCount=4, gridColor=_GRID_COLOR),
    )


def _color(field: str, domain: Sequence[str], colors: Sequence[str], legend: bool = True) -> Any:
    shown = alt.Legend(title=None) if legend else None
    return alt.Color(
        field, scale=alt.Scale(domain=list(domain), range=list(colors[: len(domain)])), legend=shown
    )


def _hatched(base: Any) -> Any:
    """The same bars once more, filled with the hatch of their basis."""
    fills = ["transparent", *(_HATCH.format(basis) for basis in BASES[1:])]
    legend = alt.Legend(
        title="basis",
        symbolStrokeColor=_SOFT,
        symbolStrokeWidth=1,
        symbolType="square",
        titleOrient="left",
    )
    fill = alt.Fill("basis:N", scale=alt.Scale(domain=list(BASES), range=fills), legend=legend)
    return base.mark_bar().encode(fill=fill)


def _styled(*layers: Any, height: float = HEIGHT) -> alt.LayerChart:
    return alt.LayerChart(
        layer=list(layers),
        width=WIDTH,
        height=height,
        resolve=alt.Resolve(scale={"color": "independent", "fill": "independent"}),
        config=_CONFIG,
    )
