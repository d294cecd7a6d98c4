"""What the marts of collections and sales must say of an account: loops over invoices and items.

Written from the definitions alone; it shares no SQL with the models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date
from fractions import Fraction
from typing import Any, TypeVar

from .metrics_oracle import invoice_aging
from .mrr_oracle import MrrOracle, Span, total_before
from .timelines import DAY, Invoice, Line, Subscription, units_of, utc_time

Row = dict[str, Any]
T = TypeVar("T")


def _major(amount: int, currency: str) -> Fraction:
    return Fraction(amount, 1 if currency == "jpy" else 100)


def _invoices(oracle: MrrOracle) -> Iterator[tuple[Subscription, Invoice]]:
    for subscription in oracle.account.subscriptions:
        for invoice in subscription.invoices:
            yield subscription, invoice


def overdue_invoices(oracle: MrrOracle) -> Iterator[Row]:
    """Yield a row for each open invoice that is at least a day overdue."""
    for row in invoice_aging(oracle):
        if row["is_overdue"]:
            del row["is_overdue"], row["status"]
            yield row


def payment_recovery(oracle: MrrOracle) -> Iterator[Row]:
    """Yield a row for each invoice that the first automatic attempt did not pay."""
    for subscription, invoice in _invoices(oracle):
        first = invoice.created if invoice.finalized_at is None else invoice.finalized_at
        failed = invoice.attempts > 1 or (
            invoice.attempts == 1 and invoice.status in ("open", "uncollectible")
        )
        if invoice.collection != "charge_automatically" or invoice.total <= 0 or not failed:
            continue
        is_paid = invoice.status == "paid"
        outcome = "lost"
        if is_paid:
            outcome = "recovered"
        elif invoice.status == "open":
            outcome = "open" if invoice.next_attempt is None else "retrying"
        recovered_at = invoice.paid_at if is_paid else None
        days = None
        if recovered_at is not None:
            days = (oracle.day_of(recovered_at) - oracle.day_of(first)).days
        last = subscription.states[-1]
        yield {
            "invoice_id": invoice.id,
            "customer_id": invoice.customer,
            "subscription_id": subscription.id,
            "currency": invoice.currency,
            "month": date(*oracle.month_of(first), 1),
            "first_attempt_at": utc_time(first),
            "attempt_count": invoice.attempts,
            "amount_due": invoice.total,
            "amount_recovered": invoice.paid if is_paid else 0,
            "outcome": outcome,
            "is_recovered": is_paid,
            "recovered_at": None if recovered_at is None else utc_time(recovered_at),
            "days_to_recover": days,
            "has_led_to_churn": last.ended_at is not None and last.reason == "payment_failed",
        }


def revenue_by_product(oracle: MrrOracle) -> Iterator[Row]:
    """Yield a row for each month, product, price and currency that was invoiced."""
    cells: dict[tuple[Any, ...], list[tuple[Invoice, Line]]] = {}
    for _, invoice in _invoices(oracle):
        if invoice.status not in ("paid", "open", "uncollectible") or invoice.finalized_at is None:
            continue
        month = date(*oracle.month_of(invoice.finalized_at), 1)
        for line in invoice.lines:
            key = (month, line.price.product, line.price.id, invoice.currency)
            cells.setdefault(key, []).append((invoice, line))
    for (month, product, price, currency), inside in cells.items():

        def amount(inside: list[tuple[Invoice, Line]]) -> int:
            return sum(line.amount - line.discount - line.tax for _, line in inside)

        revenue = amount(inside)
        yield {
            "month": month,
            "product_id": product,
            "product_name": product.replace("_", " "),
            "price_id": price,
            "currency": currency,
            "line_items": len(inside),
            "customers": len({invoice.customer for invoice, _ in inside}),
            "revenue": revenue,
            "revenue_major": _major(revenue, currency),
            "proration_revenue": amount([pair for pair in inside if pair[1].proration]),
            "paid_revenue": amount([pair for pair in inside if pair[0].status == "paid"]),
            "uncollectible_revenue": amount(
                [pair for pair in inside if pair[0].status == "uncollectible"]
            ),
            "discount_amount": sum(line.discount for _, line in inside),
        }


def plan_usage(oracle: MrrOracle) -> Iterator[Row]:
    """Yield a row for each recurring price."""
    now = total_before(oracle.spans, oracle.as_of)
    before = total_before(oracle.spans, oracle.as_of - 30 * DAY)
    for price in oracle.account.prices:
        if price.interval is None:
            continue
        own = [span.value for span in now if span.value.price.id == price.id]
        items = {value.item for value in own}
        earlier = {span.value.item for span in before if span.value.price.id == price.id}
        mrr = sum(value.net for value in own)
        yield {
            "price_id": price.id,
            "product_id": price.product,
            "currency": price.currency,
            "billing_interval": price.interval,
            "billing_interval_count": price.interval_count,
            "active_items": len(items),
            "active_subscriptions": len({value.subscription for value in own}),
            "active_customers": len({value.customer for value in own}),
            "quantity": sum(units_of(value.quantity) for value in own),
            "mrr": mrr,
            "mrr_major": _major(mrr, price.currency),
            "new_items_30_days": len(items - earlier),
            "churned_items_30_days": len(earlier - items),
        }


def renewals_due(oracle: MrrOracle) -> Iterator[Row]:
    """Yield a row for each subscription whose period or trial ends within 30 days."""
    for subscription in oracle.account.subscriptions:
        state = subscription.states[-1]
        if state.status not in ("trialing", "active", "past_due"):
            continue
        is_trial = state.status == "trialing"
        renews = state.trial_end if is_trial else subscription.period_at(oracle.as_of)[1]
        assert renews is not None
        if not oracle.as_of <= renews <= oracle.as_of + 30 * DAY:
            continue
        ends = state.cancel_at_period_end or (
            state.cancel_at is not None and state.cancel_at <= renews
        )
        yield {
            "subscription_id": subscription.id,
            "customer_id": subscription.customer,
            "status": state.status,
            "currency": subscription.currency,
            "collection_method": subscription.collection,
            "renews_at": utc_time(renews),
            "days_until_renewal": (oracle.day_of(renews) - oracle.day_of(oracle.as_of)).days,
            "is_trial_end": is_trial,
            "is_renewing": not ends,
        }


def customers_360(oracle: MrrOracle) -> Iterator[Row]:
    """Yield a row for each customer."""
    now = _by_customer(total_before(oracle.spans, oracle.as_of), lambda span: span.value.customer)
    aging = _by_customer(invoice_aging(oracle), lambda row: str(row["customer_id"]))
    subscriptions = _by_customer(oracle.account.subscriptions, lambda s: s.customer)
    for customer in oracle.account.customers:
        own = subscriptions.get(customer.id, [])
        invoices = [invoice for s in own for invoice in s.invoices]
        currency = max((s.currency for s in own), default=None)
        spans = now.get(customer.id, [])
        mrr = _net(span for span in spans if span.value.price.currency == currency)
        owed = [row for row in aging.get(customer.id, []) if row["currency"] == currency]
        paid_at = [i.paid_at for i in invoices if i.paid > 0 and i.paid_at is not None]
        shown_at = [
            i.created if i.finalized_at is None else i.finalized_at
            for i in invoices
            if i.status != "draft"
        ]
        statuses = [s.states[-1].status for s in own]
        risk = _risk(own, invoices)
        yield {
            "customer_id": customer.id,
            "name": f"Name of {customer.id}",
            "email": f"{customer.id}@example.com",
            "created_at": utc_time(customer.created),
            "is_deleted": False,
            "status": _status(statuses),
            "is_paying": _net(spans) > 0,
            "first_paid_at": utc_time(min(paid_at)) if paid_at else None,
            "last_invoice_at": utc_time(max(shown_at)) if shown_at else None,
            "currency": currency,
            "mrr": mrr,
            "arr": 12 * mrr,
            "lifetime_paid": sum(i.paid for i in invoices if i.currency == currency),
            "open_amount": sum(r["amount_remaining"] for r in owed if r["status"] == "open"),
            "overdue_amount": sum(r["amount_remaining"] for r in owed if r["is_overdue"]),
            "subscriptions": len(own),
            "active_subscriptions": sum(s in ("active", "past_due", "trialing") for s in statuses),
            "is_at_risk": risk is not None,
            "risk": risk,
        }


def _by_customer(rows: Iterable[T], customer_of: Callable[[T], str]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = {}
    for row in rows:
        found.setdefault(customer_of(row), []).append(row)
    return found


def _net(spans: Iterator[Span] | list[Span]) -> int:
    return sum(span.value.net for span in spans)


def _status(statuses: list[str]) -> str:
    for status, shown in (
        ("past_due", "past_due"),
        ("active", "active"),
        ("trialing", "trial"),
        ("paused", "paused"),
        ("canceled", "churned"),
        ("unpaid", "churned"),
    ):
        if status in statuses:
            return shown
    return "lead"


def _risk(own: list[Subscription], invoices: list[Invoice]) -> str | None:
    states = [subscription.states[-1] for subscription in own]
    if any(state.status == "past_due" for state in states):
        return "past_due"
    going = [state for state in states if state.status in ("active", "past_due", "trialing")]
    if any(state.cancel_at_period_end or state.cancel_at is not None for state in going):
        return "ending"
    if any(i.status == "open" and i.attempts > 0 for i in invoices):
        return "payment_failing"
    return None
