"""The report as one HTML page that loads nothing: style, charts and figures are in the file."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from importlib.resources import files
from typing import Any

from ..currencies import DECIMALS
from ..markup import Html, tag
from .figures import FigureColumn
from .reading import CurrencyHeadline, Figure, ReportFigures

NO_NUMBER = "\N{EN DASH}"  # in place of a number that there is none of
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # no script, no request
_NUMBERS = ("money", "bar", "count", "share", "shade")

DrawFigure = Callable[[Figure, str], str | None]
"""A figure and its currency -> its chart as SVG; null for one that has none."""


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """What a report is about: which account, how fresh, in which time zone. `left_out`: figures, each
    with the reason; `notes`: what else a reader should know.
    """

    account_id: str | None
    livemode: bool | None
    loaded_at: datetime | None
    reporting_timezone: str
    left_out: Mapping[str, str]
    notes: Sequence[str] = ()


def render_report(figures: ReportFigures, facts: ReportFacts, draw: DrawFigure) -> str:
    """Render the page."""
    title = " ".join(filter(None, ("Stripe report", facts.account_id)))
    style = files("stripe_feed.report").joinpath("report.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(style)),
    )
    running = figures.headline.month
    parts = [_glance(figures)]
    if figures.subscribers is not None:
        parts.append(_subscribers(figures.subscribers, draw, running))
    parts += [
        _currency(currency, shown, draw, running) for currency, shown in figures.by_currency.items()
    ]
    if facts.left_out:
        parts.append(_left_out(facts.left_out))
    body = tag(
        "body", _header(figures, facts), tag("main", *parts), tag("footer", _FOOTER)
    )  # fmt: skip
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


_FOOTER = (
    "Amounts are in the major units of their currency; currencies are never added. Hatched bars are not observed: "
    "once hatched, they come from an invoice; crosswise, they are assumed from what came before or after. "
    "This file holds everything that it shows, names of customers among it, and loads nothing."
)


def _header(figures: ReportFigures, facts: ReportFacts) -> Html:
    mode = {True: "live", False: "test", None: NO_NUMBER}[facts.livemode]
    shown = {
        "Account": facts.account_id or NO_NUMBER,
        "Mode": mode,
        "MRR as of": _moment(figures.headline.as_of),
        "Data loaded": _moment(facts.loaded_at),
        "Months and days in": facts.reporting_timezone,
        "Shown": f"the last {figures.month_count:,} months",
    }
    listed = [tag("div", tag("dt", name), tag("dd", value)) for name, value in shown.items()]
    links = [
        tag("li", tag("a", currency.upper(), href=f"#{_anchor(currency)}"))
        for currency in figures.by_currency
    ]
    return tag(
        "header",
        tag("h1", "Stripe report"),
        tag("dl", *listed, class_="facts"),
        *(tag("p", note, class_="note") for note in facts.notes),
        tag("nav", tag("ul", *links), aria_label="Currencies") if len(links) > 1 else "",
    )


def _anchor(currency: str) -> str:
    return f"currency-{currency}"


def _moment(moment: datetime | None) -> str:
    return NO_NUMBER if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"


_GLANCE = (
    FigureColumn("currency", "Currency", "text"),
    FigureColumn("mrr", "MRR", "money"),
    FigureColumn("mrr_change", "Change this month", "money"),
    FigureColumn("arr", "ARR", "money"),
    FigureColumn("subscribers", "Subscribers", "count"),
    FigureColumn("overdue_invoices", "Overdue invoices", "count"),
    FigureColumn("overdue_amount", "Overdue", "money"),
)


def _glance(figures: ReportFigures) -> Html:
    currencies = figures.headline.currencies
    if not currencies:
        words = "No subscriptions and no invoices yet."
        return _section("glance", "At a glance", tag("p", words, class_="empty"))
    rows = [(one.currency, _glance_row(one)) for one in currencies]
    active = figures.headline.active_subscribers
    people = tag("p", tag("b", f"{active:,}"), " active subscribers in all currencies", class_="lead")  # fmt: skip
    table = _table("Where each currency stands", _GLANCE, rows, None)
    return _section("glance", "At a glance", "" if active is None else people, table)


def _glance_row(one: CurrencyHeadline) -> dict[str, Any]:
    return {
        "currency": one.currency.upper(),
        "mrr": one.mrr,
        "mrr_change": one.mrr_change,
        "arr": None if one.mrr is None else 12 * one.mrr,
        "subscribers": one.subscribers,
        "overdue_invoices": one.overdue_invoices,
        "overdue_amount": one.overdue_amount,
    }


def _subscribers(figure: Figure, draw: DrawFigure, running: date | None) -> Html:
    inside = _figure_parts(figure, "", draw, running)
    about = tag("p", figure.spec.about, class_="about")
    return _section(figure.spec.name, f"{figure.spec.title}, all currencies", about, *inside)


def _currency(
    currency: str, figures: Sequence[Figure], draw: DrawFigure, running: date | None
) -> Html:
    parts = [
        tag(
            "section",
            tag("h3", figure.spec.title, id=f"{figure.spec.name}-{currency}"),
            tag("p", figure.spec.about, class_="about"),
            *_figure_parts(figure, currency, draw, running),
            class_="figure",
            aria_labelledby=f"{figure.spec.name}-{currency}",
        )
        for figure in figures
    ]
    return _section(_anchor(currency), currency.upper(), *parts)


def _left_out(reasons: Mapping[str, str]) -> Html:
    listed = [tag("li", tag("b", title), f": {reason}.") for title, reason in reasons.items()]
    return _section("left-out", "Left out", tag("ul", *listed))


def _section(name: str, title: str, *inside: object) -> Html:
    heading = tag("h2", title, id=f"{name}-title")
    return tag("section", heading, *inside, id=name, aria_labelledby=f"{name}-title")


def _figure_parts(
    figure: Figure, currency: str, draw: DrawFigure, running: date | None
) -> list[Html]:
    if not figure.rows:
        return [tag("p", figure.spec.empty, class_="empty")]
    caption = f"{figure.spec.title}{f', {currency.upper()}' if currency else ''}"
    table = _table(caption, figure.columns, [(currency, row) for row in figure.rows], running)
    svg = draw(figure, currency)
    if svg is None:
        return [table]
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode('ascii')}"
    words = f"Chart of {caption}. The table below has its figures."
    return [_scrollable(words, tag("img", src=source, alt=words), class_="chart"), table]


def _scrollable(label: str, inside: Html, **attributes: str) -> Html:
    """A box that scrolls by itself where the window is narrower than what it holds."""
    return tag("div", inside, role="region", aria_label=label, tabindex="0", **attributes)


def _table(
    caption: str,
    columns: Sequence[FigureColumn],
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    running: date | None,
) -> Html:
    """A table of rows, each with the currency of its amounts. `running`: the month that is not over."""
    heads = [tag("th", one.title, scope="col", class_=_class_of(one)) for one in columns]
    longest = {
        one.name: max((row[one.name] for _, row in rows), default=0)
        for one in columns
        if one.kind == "bar"
    }
    lines = []
    for currency, row in rows:
        first, *others = columns
        cells = [tag("th", _text(first, row, currency, running), scope="row")]
        cells += [
            tag(
                "td",
                _text(one, row, currency, running),
                class_=_class_of(one),
                style=_colour(one, row.get(one.name), longest.get(one.name, 0)),
            )
            for one in others
        ]
        lines.append(tag("tr", *cells))
    table = tag(
        "table", tag("caption", caption), tag("thead", tag("tr", *heads)), tag("tbody", *lines)
    )
    return _scrollable(caption, table, class_="scroll")


def _class_of(column: FigureColumn) -> str | None:
    return "number" if column.kind in _NUMBERS else None


def _text(column: FigureColumn, row: Mapping[str, Any], currency: str, running: date | None) -> str:
    value = row.get(column.name)
    is_running = column.kind == "month" and value is not None and value == running
    return f"{format_figure(column, value, currency)}{' so far' if is_running else ''}"


def _colour(column: FigureColumn, value: Any, longest: int) -> str | None:
    """The colour of a share's cell, or the bar behind an amount: as a share of the `longest`."""
    if value is None:
        return None
    if column.kind == "shade":
        return f"background: rgb(125 143 240 / {float(value):.2f})"
    if column.kind == "bar" and value > 0:
        return f"background: linear-gradient(90deg, #cdd4fa {100 * value / longest:.1f}%, transparent 0)"
    return None


MAX_TEXT = 100  # characters of a name, which Stripe does not limit to what fits a cell


def format_figure(column: FigureColumn, value: Any, currency: str) -> str:
    """Format a value of a mart for people. Amounts are in minor units of the currency."""
    if value is None:
        return "" if column.kind == "shade" else NO_NUMBER
    match column.kind:
        case "money" | "bar":
            return format_money(int(value), currency)
        case "count":
            return f"{int(value):,}"
        case "share":
            return f"{_percent(value, '0.1')}%"
        case "shade":
            return f"{_percent(value, '1')}%"
        case "month":
            return f"{value:%Y-%m}"
        case "date":
            return f"{value:%Y-%m-%d}"
        case _:
            text = str(value)
            return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def _percent(share: Any, step: str) -> Decimal:
    return (100 * Decimal(str(share))).quantize(Decimal(step), ROUND_HALF_UP)


def format_money(amount: int, currency: str) -> str:
    """Format an amount in minor units as major units, exactly: 1,234.50; 1,234 in yen."""
    decimals = DECIMALS.get(currency.lower(), 2)
    major, minor = divmod(abs(amount), 10**decimals)
    fraction = f".{minor:0{decimals}}" if decimals else ""
    return f"{'-' if amount < 0 else ''}{major:,}{fraction}"
