"""The rows that each mart must have, from the oracles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date
from fractions import Fraction
from typing import Any

from .metrics_oracle import (
    churn_events,
    invoice_aging,
    retention_cohorts,
    share,
    subscriber_metrics_daily,
    trials,
)
from .mrr_oracle import (
    Movement,
    MrrOracle,
    Span,
    changes,
    months_until,
    movements,
    weakest,
)
from .sales_oracle import (
    customers_360,
    overdue_invoices,
    payment_recovery,
    plan_usage,
    renewals_due,
    revenue_by_product,
)
from .timelines import Month, half_up, utc_time

Row = dict[str, Any]
_EXPONENTS = {"jpy": 0}
_SPAN = ("valid_from", "valid_to")


def major(amount: int, currency: str) -> Fraction:
    """Return an amount in major units."""
    return Fraction(amount, 10 ** _EXPONENTS.get(currency, 2))


def _span(span: Span) -> Row:
    return {
        "valid_from": utc_time(span.start),
        "valid_to": None if span.end is None else utc_time(span.end),
    }


def mrr_items(oracle: MrrOracle) -> Iterator[Row]:
    """Yield the rows of `mrr_items`, without what only says where a number comes from."""
    for span in oracle.spans:
        value = span.value
        yield {
            "subscription_item_id": value.item,
            **_span(span),
            "subscription_id": value.subscription,
            "customer_id": value.customer,
            "product_id": value.price.product,
            "price_id": value.price.id,
            "currency": value.price.currency,
            "status": value.status,
            "quantity": value.quantity,
            "unit_amount": None if value.price.unit is None else Fraction(value.price.unit),
            "billing_interval": value.price.interval,
            "billing_interval_count": value.price.interval_count,
            "billed_amount": value.billed,
            "mrr": value.gross,
            "mrr_major": major(value.gross, value.price.currency),
            "is_metered": value.price.metered,
            "is_estimated": False,
            "is_collection_paused": value.is_paused,
            "basis": value.basis,
        }


def net_mrr(oracle: MrrOracle) -> Iterator[Row]:
    """Yield the rows of `int_stripe__net_mrr`."""
    for span in oracle.spans:
        value = span.value
        yield {
            "subscription_item_id": value.item,
            **_span(span),
            "price_id": value.price.id,
            "quantity": value.quantity,
            "gross_mrr": value.gross,
            "discount": value.discount,
            "mrr": value.net,
            "basis": value.basis,
        }


def mrr_discounts(oracle: MrrOracle) -> Iterator[Row]:
    """Yield the rows of `mrr_discounts`."""
    for span in oracle.spans:
        value = span.value
        for taken in value.taken:
            yield {
                "subscription_item_id": value.item,
                "discount_id": taken.discount.id,
                "position": taken.position,
                **_span(span),
                "subscription_id": value.subscription,
                "customer_id": value.customer,
                "currency": value.price.currency,
                "level": taken.level,
                "coupon_id": taken.discount.coupon.id,
                "duration": taken.discount.coupon.duration,
                "mrr_before": taken.before,
                "discount": taken.amount,
                "discount_major": major(taken.amount, value.price.currency),
                "mrr_after": taken.before - taken.amount,
                "basis": value.basis,
            }


def mrr_monthly_customer(oracle: MrrOracle) -> Iterator[Row]:
    """Yield the rows of `mrr_monthly_customer`."""
    for end in oracle.month_ends:
        if not end.spans:
            continue
        values = [span.value for span in end.spans]
        yield {
            "customer_id": end.customer,
            "currency": end.currency,
            "month": date(*end.month, 1),
            "is_complete": end.month < oracle.current_month,
            "mrr": end.net,
            "mrr_major": major(end.net, end.currency),
            "gross_mrr": sum(value.gross for value in values),
            "discount": sum(value.discount for value in values),
            "subscription_count": len({value.subscription for value in values}),
            "paid_subscription_count": len({v.subscription for v in values if v.net > 0}),
            "basis": end.basis,
            "is_estimated": False,
        }


def mrr_movements(oracle: MrrOracle) -> Iterator[Row]:
    """Yield the rows of `mrr_movements`."""
    found = list(movements(oracle))
    came = {(m.customer, m.month) for m in found if m.kind in ("new", "reactivation")}
    went = {(m.customer, m.month) for m in found if m.kind == "churn"}
    for row in found:
        is_switch = row.kind in ("new", "reactivation", "churn") and (
            (row.customer, row.month) in came & went
        )
        yield {
            "customer_id": row.customer,
            "currency": row.currency,
            "month": date(*row.month, 1),
            "kind": row.kind,
            "opening_mrr": row.opening,
            "closing_mrr": row.closing,
            "amount": row.closing - row.opening,
            "amount_major": major(row.closing - row.opening, row.currency),
            "is_currency_switch": is_switch,
            "basis": row.basis,
            "is_complete": row.month < oracle.current_month,
        }


def mrr_changes(oracle: MrrOracle) -> Iterator[Row]:
    """Yield the rows of `mrr_changes`."""
    for row in changes(oracle):
        yield {
            "customer_id": row.customer,
            "currency": row.currency,
            "subscription_id": row.subscription,
            "changed_at": utc_time(row.at),
            "amount": row.after - row.before,
            "amount_major": major(row.after - row.before, row.currency),
            "subscription_mrr_before": row.before,
            "subscription_mrr_after": row.after,
            "customer_mrr_before": row.customer_before,
            "customer_mrr_after": row.customer_after,
            "kind": row.kind,
            "reason": row.reason,
            "basis": row.basis,
        }


def mrr_summary(oracle: MrrOracle) -> Iterator[Row]:
    """Yield the rows of `mrr_summary`."""
    ends = [end for end in oracle.month_ends if end.spans]
    moved = list(movements(oracle))
    for currency in sorted({end.currency for end in ends}):
        own = [end for end in ends if end.currency == currency]
        opening, subscribers = 0, 0
        first = min(end.month for end in own)
        for month in months_until(first, oracle.current_month):
            now = [end for end in own if end.month == month]
            closing = sum(end.net for end in now)
            paying = sum(end.net > 0 for end in now)
            inside = [m for m in moved if (m.currency, m.month) == (currency, month)]
            yield _summary(currency, month, opening, subscribers, inside, closing, paying) | {
                "is_complete": month < oracle.current_month,
                "basis": weakest(end.basis for end in now),
            }
            opening, subscribers = closing, paying


def _summary(
    currency: str,
    month: Month,
    opening: int,
    subscribers: int,
    moved: list[Movement],
    closing: int,
    paying: int,
) -> Row:
    def amount(kind: str) -> int:
        return sum(abs(m.closing - m.opening) for m in moved if m.kind == kind)

    def customers(kind: str) -> int:
        return sum(m.kind == kind for m in moved)

    grown = amount("new") + amount("reactivation") + amount("expansion")
    lost = amount("contraction") + amount("churn")
    assert opening + grown - lost == closing
    return {
        "currency": currency,
        "month": date(*month, 1),
        "opening_mrr": opening,
        **{
            f"{kind}_mrr": amount(kind)
            for kind in ("new", "reactivation", "expansion", "contraction", "churn")
        },
        "closing_mrr": closing,
        "closing_mrr_major": major(closing, currency),
        "arr": 12 * closing,
        "opening_subscribers": subscribers,
        "new_subscribers": customers("new"),
        "reactivated_subscribers": customers("reactivation"),
        "churned_subscribers": customers("churn"),
        "closing_subscribers": paying,
        "arpa": half_up(Fraction(closing, paying)) if paying else None,
        "quick_ratio": share(grown, lost),
        "gross_mrr_churn_rate": share(lost, opening),
        "net_mrr_churn_rate": share(lost - amount("expansion"), opening),
        "gross_revenue_retention": share(opening - lost, opening),
        "net_revenue_retention": share(opening - lost + amount("expansion"), opening),
        "subscriber_churn_rate": share(customers("churn"), subscribers),
    }


MARTS: dict[str, Callable[[MrrOracle], Iterable[Row]]] = {
    "mrr_items": mrr_items,
    "int_stripe__net_mrr": net_mrr,
    "mrr_discounts": mrr_discounts,
    "mrr_monthly_customer": mrr_monthly_customer,
    "mrr_changes": mrr_changes,
    "mrr_movements": mrr_movements,
    "mrr_summary": mrr_summary,
    "subscriber_metrics_daily": subscriber_metrics_daily,
    "invoice_aging": invoice_aging,
    "trial_conversions": lambda oracle: (trial.row() for trial in trials(oracle)),
    "churn_events": churn_events,
    "retention_cohorts": retention_cohorts,
    "overdue_invoices": overdue_invoices,
    "payment_recovery": payment_recovery,
    "revenue_by_product": revenue_by_product,
    "plan_usage": plan_usage,
    "renewals_due": renewals_due,
    "customers_360": customers_360,
}
"""Every mart with an oracle, and what calculates its rows."""

SPAN_KEYS = {
    "mrr_items": ("subscription_item_id",),
    "int_stripe__net_mrr": ("subscription_item_id",),
    "mrr_discounts": ("subscription_item_id", "discount_id", "position"),
}
"""Marts whose rows are spans of a key: spans that touch and say the same are one here."""


def as_few_spans(rows: Iterable[Row], key: tuple[str, ...]) -> list[Row]:
    """Join spans of a key that touch and say the same."""
    found: list[Row] = []
    for row in sorted(rows, key=lambda row: (*(row[name] for name in key), row["valid_from"])):
        last = found[-1] if found else None
        if (
            last is not None
            and last["valid_to"] == row["valid_from"]
            and all(last[name] == row[name] for name in row if name not in _SPAN)
        ):
            found[-1] = last | {"valid_to": row["valid_to"]}
        else:
            found.append(row)
    return found
