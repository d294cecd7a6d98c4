"""Read what the report shows from the marts of a copy."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from ..errors import UsageError
from ..models.database import ModelDatabase, existing_relations
from .figures import (
    BY_CURRENCY,
    COHORTS_FIGURE,
    MOVEMENTS_FIGURE,
    PAYOUTS_FIGURE,
    PRODUCTS_FIGURE,
    SUBSCRIBERS_FIGURE,
    FigureColumn,
    FigureSpec,
)

MAX_PRODUCTS = 10  # the rest is one row
MAX_COHORT_AGE = 12
_CURRENCY_MODELS = (
    "mrr_summary",
    "invoice_aging",
    "revenue_by_product",
    "payout_reconciliation",
    "fees_by_month",
    "disputes_and_refunds",
)

_PAYOUT_NAMES = (
    "arrives_at",
    "amount",
    "fees",
    "is_reconciled",
)  # of a payout; the figure is by month

FigureRow = Mapping[str, Any]
_Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its rows. `chart_rows`: what its chart draws."""

    spec: FigureSpec
    columns: tuple[FigureColumn, ...]
    rows: Sequence[FigureRow]
    chart_rows: Sequence[FigureRow]


@dataclass(frozen=True, slots=True)
class CurrencyHeadline:
    """Where a currency stands: amounts in minor units, null if their model is not built. `mrr_change`:
    since the month before ended.
    """

    currency: str
    mrr: int | None = None
    mrr_change: int | None = None
    subscribers: int | None = None
    overdue_invoices: int | None = None
    overdue_amount: int | None = None


@dataclass(frozen=True, slots=True)
class Headline:
    """Where the account stands, when MRR was computed (UTC), and for which month."""

    as_of: datetime | None
    month: date | None
    active_subscribers: int | None
    currencies: tuple[CurrencyHeadline, ...]


@dataclass(frozen=True, slots=True)
class ReportFigures:
    """All figures of a report: of the account, and of each currency. `month_count`: how many months
    the figures by month reach back to.
    """

    headline: Headline
    month_count: int
    subscribers: Figure | None
    by_currency: Mapping[str, Sequence[Figure]]
    missing_models: Mapping[
        str, str
    ]  # the titles of figures that are left out -> a model they lack


def read_headline(database: ModelDatabase) -> Headline:
    """Read where the account stands; empty before the first build."""
    return _Reader(database).headline()


def read_figures(
    database: ModelDatabase, month_count: int, currencies: Collection[str] | None = None
) -> ReportFigures:
    """Read the figures of the last months, of all currencies or of these. Raises `UsageError` for a
    currency that no mart knows.
    """
    reader = _Reader(database)
    headline = reader.headline()
    known = [one.currency for one in headline.currencies]
    if unknown := sorted(set(currencies or ()) - set(known)):
        raise UsageError(
            f"No mart has the currency {unknown[0]!r}. Choose from: {', '.join(known) or 'none yet'}."
        )
    shown = [currency for currency in known if not currencies or currency in currencies]
    since = reader.first_day(month_count)
    missing = {spec.title: reader.lacks(spec) for spec in (SUBSCRIBERS_FIGURE, *BY_CURRENCY)}
    tables = {
        spec: reader.by_currency(spec, since) for spec in BY_CURRENCY if not missing[spec.title]
    }
    return ReportFigures(
        replace(headline, currencies=tuple(c for c in headline.currencies if c.currency in shown)),
        month_count,
        None if missing[SUBSCRIBERS_FIGURE.title] else reader.subscribers(since),
        {
            currency: [make_figure(spec, *tables[spec][currency]) for spec in tables]
            for currency in shown
        },
        {title: model for title, model in missing.items() if model},
    )


def is_zone_of(database: ModelDatabase, zone: str) -> bool:
    """Whether the months of the models begin in a time zone; true before the first build."""
    reader = _Reader(database)
    if "months" not in reader.built:
        return True
    rows = reader.rows(("month", "opens_at"), "select month, opens_at from {months} order by month")
    return all(
        datetime(row["month"].year, row["month"].month, 1, tzinfo=ZoneInfo(zone))
        == _utc(row["opens_at"])
        for row in rows
    )


class _Reader:
    """Reads the marts that exist in a database."""

    def __init__(self, database: ModelDatabase) -> None:
        self.database = database
        self.built = existing_relations(database).keys()

    def lacks(self, spec: FigureSpec) -> str:
        """A model that a figure reads and that does not exist; "" if there is none."""
        return next((name for name in spec.models if name not in self.built), "")

    def rows(self, names: Sequence[str], sql: str, since: date = date.min) -> _Rows:
        """The rows of a query, under these names."""
        relations = {name: self.database.target.relation(name) for name in self.built}
        rows = self.database.execute(sql.format(**relations, since=since))
        return [dict(zip(names, row, strict=True)) for row in rows]

    def first_day(self, month_count: int) -> date:
        """The first day of the months that are shown: the running one is the last."""
        last = self._last_month() or datetime.now(timezone.utc).date()
        number = last.year * 12 + last.month - month_count
        return date(number // 12, number % 12 + 1, 1)

    def _last_month(self) -> date | None:
        if "months" not in self.built:
            return None
        (row,) = self.rows(("month",), "select max(month) from {months}")
        month: date | None = row["month"]
        return month

    def headline(self) -> Headline:
        month, as_of = self._last_month(), None
        if month is not None:
            (row,) = self.rows(("as_of",), "select max(as_of) from {months}")
            as_of = row["as_of"]
        by_currency: dict[str, dict[str, Any]] = {name: {} for name in self._currencies()}
        if "mrr_summary" in self.built and month is not None:
            sql = (
                "select currency, closing_mrr, closing_mrr - opening_mrr, closing_subscribers "
                "from {mrr_summary} where month = date '{since}'"
            )
            summary = ("currency", "mrr", "mrr_change", "subscribers")
            for row in self.rows(summary, sql, month):
                by_currency[row["currency"]] |= row
        if "overdue_invoices" in self.built:
            for one in by_currency.values():
                one |= {"overdue_invoices": 0, "overdue_amount": 0}
            sql = "select currency, count(*), sum(amount_remaining) from {overdue_invoices} group by currency"
            overdue = ("currency", "overdue_invoices", "overdue_amount")
            for row in self.rows(overdue, sql):
                by_currency[row["currency"]] |= row | {"overdue_amount": int(row["overdue_amount"])}
        heads = [CurrencyHeadline(**{"currency": name} | one) for name, one in by_currency.items()]
        heads.sort(key=lambda one: (-(one.subscribers or 0), one.currency))
        return Headline(as_of, month, self._active_subscribers(), tuple(heads))

    def _currencies(self) -> list[str]:
        names = [name for name in _CURRENCY_MODELS if name in self.built]
        if not names:
            return []
        union = " union ".join(f"select currency from {{{name}}}" for name in names)
        return [row["currency"] for row in self.rows(("currency",), union) if row["currency"]]

    def _active_subscribers(self) -> int | None:
        if SUBSCRIBERS_FIGURE.models[0] not in self.built:
            return None
        sql = "select active_subscribers from {subscriber_metrics_daily} order by day desc limit 1"
        found = self.rows(("active_subscribers",), sql)
        return int(found[0]["active_subscribers"]) if found else 0

    def subscribers(self, since: date) -> Figure:
        """Read the figure of all currencies."""
        names = [column.name for column in SUBSCRIBERS_FIGURE.columns]
        rows = _month_ends(self.rows(names, SUBSCRIBERS_FIGURE.sql, since))
        return Figure(SUBSCRIBERS_FIGURE, SUBSCRIBERS_FIGURE.columns, rows, rows)

    def by_currency(self, spec: FigureSpec, since: date) -> Mapping[str, tuple[_Rows, _Rows]]:
        """The rows of a figure, and those of its chart, by currency."""
        names = (
            _PAYOUT_NAMES if spec is PAYOUTS_FIGURE else [column.name for column in spec.columns]
        )
        tables: dict[str, tuple[_Rows, _Rows]] = defaultdict(lambda: ([], []))
        for row in self.rows(("currency", *names), spec.sql, since):
            tables[row.pop("currency")][0].append(row)
        if spec.chart_sql:
            for row in self.rows(("currency", *spec.chart_columns), spec.chart_sql, since):
                tables[row.pop("currency")][1].append(row)
        return tables


def make_figure(spec: FigureSpec, rows: _Rows, chart_rows: _Rows) -> Figure:
    """Make a figure of one currency from its rows."""
    columns = spec.columns
    if spec is MOVEMENTS_FIGURE:
        still = {"kind": "new", "basis": "observed", "amount": 0}  # every month has a place
        return Figure(
            spec, columns, rows, [*chart_rows, *({"month": row["month"], **still} for row in rows)]
        )
    if spec is COHORTS_FIGURE:
        columns, rows = _cohort_table(spec, rows)
    elif spec is PRODUCTS_FIGURE:
        rows = _largest(rows)
    elif spec is PAYOUTS_FIGURE:
        rows = _payouts_by_month(rows)
    return Figure(spec, columns, rows, rows)


def _month_ends(rows: _Rows) -> _Rows:
    ends = [row for row, following in pairwise(rows) if following["day"].day == 1]
    return [*ends, *rows[-1:]]


def _cohort_table(spec: FigureSpec, rows: _Rows) -> tuple[tuple[FigureColumn, ...], _Rows]:
    """One row per cohort, with a column per age."""
    first, customers, _, share = spec.columns
    cohorts: dict[date, dict[str, Any]] = {}
    oldest = 0
    for row in rows:
        cohort = cohorts.setdefault(
            row["cohort_month"],
            {name: row[name] for name in ("cohort_month", "cohort_customers")},
        )
        if row["age_months"] <= MAX_COHORT_AGE:
            oldest = max(oldest, row["age_months"])
            cohort[f"age_{row['age_months']}"] = row["logo_retention"]
    ages = [FigureColumn(f"age_{age}", str(age), share.kind) for age in range(oldest + 1)]
    return (first, customers, *ages), list(cohorts.values())


def _largest(rows: _Rows) -> _Rows:
    """The products that were invoiced most, and the others as one row. Names that several share get a
    number.
    """
    shown, rest = rows[:MAX_PRODUCTS], rows[MAX_PRODUCTS:]
    if len(rest) == 1:
        shown, rest = rows, []
    counts: Counter[str] = Counter()
    for row in shown:
        counts[row["product_name"]] += 1
        if counts[row["product_name"]] > 1:
            row["product_name"] = f"{row['product_name']} ({counts[row['product_name']]})"
    if not rest:
        return shown
    sums = {name: sum(row[name] for row in rest) for name in rest[0] if name != "product_name"}
    return [*shown, {"product_name": f"{len(rest):,} other products", **sums}]


def _payouts_by_month(rows: _Rows) -> _Rows:
    months: dict[date, dict[str, Any]] = {}
    start = dict.fromkeys(("number", "payouts", "fees", "reconciled", "differing"), 0)
    for row in rows:
        month = row["arrives_at"].date().replace(day=1)
        sums = months.setdefault(month, {"month": month, **start})
        sums["number"] += 1
        sums["payouts"] += row["amount"]
        sums["fees"] += row["fees"]
        if row["is_reconciled"] is not None:
            sums["reconciled" if row["is_reconciled"] else "differing"] += 1
    return list(months.values())


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
