"""The figures of the report: what each shows, and the columns that it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FigureKind = Literal["month", "date", "money", "bar", "count", "share", "shade", "text"]


@dataclass(frozen=True, slots=True)
class FigureColumn:
    """A column of a figure's table: its name in the query, its heading, and how its values are shown.
    `money` and `bar` are in minor units, `share` and `shade` are shares of 1; bars and shades colour
    their cells.
    """

    name: str
    title: str
    kind: FigureKind


@dataclass(frozen=True, slots=True)
class FigureSpec:
    """One figure. `sql` selects the currency, unless the figure is of all, and its columns in their
    order; `chart_sql` what the chart draws, if not those rows. They name marts in braces, and `{since}`,
    the first day shown. `empty`: what is said without rows.
    """

    name: str
    title: str
    about: str
    models: tuple[str, ...]
    columns: tuple[FigureColumn, ...]
    sql: str
    empty: str
    chart_columns: tuple[str, ...] = ()
    chart_sql: str = ""


def _month(title: str = "Month") -> FigureColumn:
    return FigureColumn("month", title, "month")


def _money(name: str, title: str) -> FigureColumn:
    return FigureColumn(name, title, "money")


def _count(name: str, title: str) -> FigureColumn:
    return FigureColumn(name, title, "count")


def _share(name: str, title: str) -> FigureColumn:
    return FigureColumn(name, title, "share")


SUBSCRIBERS_FIGURE = FigureSpec(
    "subscribers",
    "Subscribers",
    "Customers with a paid subscription, at the end of each month and on the last day. Rates are those of 30 days.",
    ("subscriber_metrics_daily",),
    (
        FigureColumn("day", "Day", "date"),
        _count("active_subscribers", "Active"),
        _count("new_30_days", "New in 30 days"),
        _count("churned_30_days", "Left in 30 days"),
        _share("churn_rate_30_days", "Churn rate"),
        _share("trial_conversion_rate_30_days", "Trials converted"),
    ),
    "select day, active_subscribers, new_30_days, churned_30_days, churn_rate_30_days, trial_conversion_rate_30_days "
    "from {subscriber_metrics_daily} where day >= date '{since}' order by day",
    "No subscribers yet.",
)

MRR_FIGURE = FigureSpec(
    "mrr",
    "MRR",
    "Monthly recurring revenue at the end of each month, after discounts, and how it is known: observed in a change, "
    "read from an invoice, or assumed from what came before or after.",
    ("mrr_summary", "mrr_monthly_customer"),
    (
        _month(),
        _money("closing_mrr", "MRR"),
        _money("observed", "Observed"),
        _money("invoice", "By invoices"),
        _money("assumed", "Assumed"),
        _money("arr", "ARR"),
        _count("closing_subscribers", "Subscribers"),
        _money("arpa", "MRR per subscriber"),
    ),
    "select summary.currency, summary.month, summary.closing_mrr, coalesce(parts.observed, 0), coalesce(parts.invoice, 0), "
    "coalesce(parts.assumed, 0), summary.arr, summary.closing_subscribers, summary.arpa "
    "from {mrr_summary} as summary left join (select currency, month, "
    "sum(case when basis = 'observed' then mrr else 0 end) as observed, "
    "sum(case when basis = 'invoice' then mrr else 0 end) as invoice, "
    "sum(case when basis = 'assumed' then mrr else 0 end) as assumed "
    "from {mrr_monthly_customer} group by currency, month) as parts "
    "on parts.month = summary.month and parts.currency = summary.currency where summary.month >= date '{since}' "
    "order by summary.month",
    "No subscriptions yet.",
)

MOVEMENTS_FIGURE = FigureSpec(
    "movements",
    "MRR movements",
    "Opening + new + reactivation + expansion - contraction - churn = closing. The last two columns say how much of "
    "what moved, up or down, is not observed.",
    ("mrr_summary", "mrr_movements"),
    (
        _month(),
        _money("opening_mrr", "Opening"),
        _money("new_mrr", "New"),
        _money("reactivation_mrr", "Reactivation"),
        _money("expansion_mrr", "Expansion"),
        _money("contraction_mrr", "Contraction"),
        _money("churn_mrr", "Churn"),
        _money("closing_mrr", "Closing"),
        _money("invoice", "By invoices"),
        _money("assumed", "Assumed"),
    ),
    "select summary.currency, summary.month, summary.opening_mrr, summary.new_mrr, summary.reactivation_mrr, summary.expansion_mrr, "
    "summary.contraction_mrr, summary.churn_mrr, summary.closing_mrr, coalesce(parts.invoice, 0), "
    "coalesce(parts.assumed, 0) from {mrr_summary} as summary left join (select currency, month, "
    "sum(case when basis = 'invoice' then abs(amount) else 0 end) as invoice, "
    "sum(case when basis = 'assumed' then abs(amount) else 0 end) as assumed "
    "from {mrr_movements} group by currency, month) as parts "
    "on parts.month = summary.month and parts.currency = summary.currency where summary.month >= date '{since}' "
    "order by summary.month",
    "No subscriptions yet.",
    ("month", "kind", "basis", "amount"),
    "select currency, month, kind, basis, sum(amount) from {mrr_movements} "
    "where month >= date '{since}' group by currency, month, kind, basis",
)

RETENTION_FIGURE = FigureSpec(
    "retention",
    "Churn and retention",
    "Shares of the MRR and of the subscribers at the end of the month before.",
    ("mrr_summary",),
    (
        _month(),
        _count("new_subscribers", "New subscribers"),
        _count("reactivated_subscribers", "Reactivated"),
        _count("churned_subscribers", "Churned"),
        _share("subscriber_churn_rate", "Subscriber churn"),
        _share("gross_mrr_churn_rate", "MRR churn"),
        _share("net_mrr_churn_rate", "Net MRR churn"),
        _share("gross_revenue_retention", "Gross retention"),
        _share("net_revenue_retention", "Net retention"),
    ),
    "select currency, month, new_subscribers, reactivated_subscribers, churned_subscribers, subscriber_churn_rate, "
    "gross_mrr_churn_rate, net_mrr_churn_rate, gross_revenue_retention, net_revenue_retention from {mrr_summary} "
    "where month >= date '{since}' order by month",
    "No subscriptions yet.",
)

COHORTS_FIGURE = FigureSpec(
    "cohorts",
    "Cohorts",
    "What share of the customers who first paid in a month still pays, by months since then.",
    ("retention_cohorts",),
    (
        FigureColumn("cohort_month", "First paid", "month"),
        _count("cohort_customers", "Customers"),
        _count("age_months", "Months"),
        FigureColumn("logo_retention", "Left", "shade"),
    ),
    "select currency, cohort_month, cohort_customers, age_months, logo_retention from {retention_cohorts} "
    "where cohort_month >= date '{since}' order by cohort_month, age_months",
    "No paying customers yet.",
)

AGING_FIGURE = FigureSpec(
    "aging",
    "Collections",
    "What is left to pay of finalized invoices, by days since it was due.",
    ("invoice_aging",),
    (
        FigureColumn("bucket", "Days overdue", "text"),
        _count("invoices", "Invoices"),
        _count("customers", "Customers"),
        _money("amount_remaining", "Left to pay"),
    ),
    "select currency, bucket, count(*), count(distinct customer_id), sum(amount_remaining) from {invoice_aging} "
    "group by currency, bucket "
    "order by case when bucket = 'uncollectible' then 1 else 0 end, min(days_overdue)",
    "No unpaid invoices.",
)

OVERDUE_FIGURE = FigureSpec(
    "overdue",
    "Longest overdue",
    "The ten open invoices that have been due for longest.",
    ("overdue_invoices", "customers_360"),
    (
        FigureColumn("customer", "Customer", "text"),
        FigureColumn("invoice_id", "Invoice", "text"),
        FigureColumn("due_at", "Due", "date"),
        _count("days_overdue", "Days overdue"),
        _count("attempt_count", "Attempts"),
        _money("amount_remaining", "Left to pay"),
    ),
    "select currency, customer, invoice_id, due_at, days_overdue, attempt_count, amount_remaining from (select "
    "invoices.currency, coalesce(nullif(customers.name, ''), invoices.customer_id) as customer, invoices.invoice_id, "
    "invoices.due_at, invoices.days_overdue, invoices.attempt_count, invoices.amount_remaining, row_number() over ("
    "partition by invoices.currency order by invoices.days_overdue desc, invoices.amount_remaining desc, "
    "invoices.invoice_id) as position from {overdue_invoices} as invoices "
    "left join {customers_360} as customers on customers.customer_id = invoices.customer_id) as ordered "
    "where position <= 10 order by position",
    "No overdue invoices.",
)

PRODUCTS_FIGURE = FigureSpec(
    "products",
    "Invoiced by product",
    "Lines of finalized invoices after discounts, without tax, in the months shown.",
    ("revenue_by_product",),
    (
        FigureColumn("product_name", "Product", "text"),
        _count("line_items", "Invoice lines"),
        FigureColumn("revenue", "Invoiced", "bar"),
        _money("paid_revenue", "Paid"),
        _money("discount_amount", "Discounts"),
    ),
    "select currency, coalesce(nullif(product_name, ''), product_id, 'No product'), sum(line_items), sum(revenue), "
    "sum(paid_revenue), sum(discount_amount) from {revenue_by_product} "
    "where month >= date '{since}' group by currency, product_id, product_name "
    "order by sum(revenue) desc, product_id",
    "No invoices yet.",
)

PAYOUTS_FIGURE = FigureSpec(
    "payouts",
    "Payouts",
    "By the month in which they arrive, without failed and cancelled ones. One that is reconciled is the sum of its "
    "transactions; manual ones have none of their own.",
    ("payout_reconciliation",),
    (
        _month(),
        _count("number", "Payouts"),
        _money("payouts", "Paid out"),
        _money("fees", "Fees taken before"),
        _count("reconciled", "Reconciled"),
        _count("differing", "Differing"),
    ),
    "select currency, arrives_at, amount, fees, is_reconciled from {payout_reconciliation} "
    "where status not in ('failed', 'canceled') and arrives_at >= timestamp '{since} 00:00:00' order by arrives_at",
    "No payouts yet.",
)

FEES_FIGURE = FigureSpec(
    "fees",
    "Fees",
    "By the month of the balance transaction.",
    ("fees_by_month",),
    (
        _month(),
        _money("fees", "Fees"),
        _money("stripe_fees", "Of Stripe"),
        _money("other_fees", "Others, and tax"),
    ),
    "select currency, month, sum(fee), sum(case when fee_type = 'stripe_fee' then fee else 0 end), "
    "sum(case when fee_type = 'stripe_fee' then 0 else fee end) from {fees_by_month} "
    "where month >= date '{since}' group by currency, month order by month",
    "No fees yet.",
)

REFUNDS_FIGURE = FigureSpec(
    "refunds",
    "Refunds and disputes",
    "By the month in which each charge, refund and dispute was created. Rates are shares of what was charged then.",
    ("disputes_and_refunds",),
    (
        _month(),
        _count("charges", "Charges"),
        _money("charged_amount", "Charged"),
        _count("refunds", "Refunds"),
        _money("refunded_amount", "Refunded"),
        _share("refund_rate", "Refund rate"),
        _count("disputes", "Disputes"),
        _money("disputed_amount", "Disputed"),
        _share("dispute_rate", "Dispute rate"),
    ),
    "select currency, month, charges, charged_amount, refunds, refunded_amount, refund_rate, disputes, disputed_amount, "
    "dispute_rate from {disputes_and_refunds} where month >= date '{since}' order by month",
    "No charges yet.",
)

BY_CURRENCY = (
    MRR_FIGURE,
    MOVEMENTS_FIGURE,
    RETENTION_FIGURE,
    COHORTS_FIGURE,
    AGING_FIGURE,
    OVERDUE_FIGURE,
    PRODUCTS_FIGURE,
    PAYOUTS_FIGURE,
    FEES_FIGURE,
    REFUNDS_FIGURE,
)
