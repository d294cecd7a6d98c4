"""What the marts besides MRR must say of an account: loops over customers, invoices and days.

Written from the definitions alone; it shares no SQL with the models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Any

from .mrr_oracle import (
    MrrOracle,
    Span,
    joined,
    months_until,
    paying_spans,
)
from .timelines import (
    EVENTS_FROM,
    Account,
    Month,
    State,
    Subscription,
    half_up,
    remaining,
    utc_time,
)


def share(part: int, whole: int) -> Fraction | None:
    """Return a ratio with six decimals, rounded half up; None of nothing."""
    return None if whole == 0 else Fraction(half_up(Fraction(part * 10**6, whole)), 10**6)


# invoice_aging


def invoice_aging(oracle: MrrOracle) -> Iterator[dict[str, Any]]:
    """Yield a row for each invoice that is open or uncollectible with something to pay."""
    for subscription in oracle.account.subscriptions:
        for invoice in subscription.invoices:
            left = remaining(invoice)
            if invoice.status not in ("open", "uncollectible") or left <= 0:
                continue
            due = next(
                second
                for second in (invoice.due_date, invoice.finalized_at, invoice.created)
                if second is not None
            )
            days = max((oracle.day_of(oracle.as_of) - oracle.day_of(due)).days, 0)
            bucket = aging_bucket(days)
            yield {
                "invoice_id": invoice.id,
                "customer_id": invoice.customer,
                "subscription_id": invoice.subscription,
                "currency": invoice.currency,
                "status": invoice.status,
                "amount_due": max(invoice.total, 0),
                "amount_paid": invoice.paid,
                "amount_remaining": left,
                "due_at": utc_time(due),
                "days_overdue": days,
                "bucket": "uncollectible" if invoice.status == "uncollectible" else bucket,
                "is_overdue": days > 0 and invoice.status == "open",
                "attempt_count": invoice.attempts,
                "next_payment_attempt_at": invoice.next_attempt and utc_time(invoice.next_attempt),
            }


def aging_bucket(days: int) -> str:
    """Name the bucket of an invoice that is so many days overdue."""
    if days == 0:
        return "current"
    for last in (30, 60, 90):
        if days <= last:
            return f"{last - 29}-{last}"
    return "90+"


# trial_conversions


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial of a subscription, and how it came out."""

    subscription: Subscription
    start: int
    end: int
    outcome: str
    converted_at: int | None
    over_at: int | None  # None while it runs
    of_payer: bool

    @property
    def is_counted(self) -> bool:
        """Whether Stripe's rate of conversion counts it."""
        return self.outcome in ("converted", "canceled") and not self.of_payer

    def row(self) -> dict[str, Any]:
        """Return the row of `trial_conversions`."""
        return {
            "subscription_id": self.subscription.id,
            "customer_id": self.subscription.customer,
            "trial_start_at": utc_time(self.start),
            "trial_end_at": utc_time(self.end),
            "outcome": self.outcome,
            "over_at": None if self.over_at is None else utc_time(self.over_at),
            "converted_at": None if self.converted_at is None else utc_time(self.converted_at),
            "is_of_payer": self.of_payer,
            "is_in_conversion_rate": self.is_counted,
        }


def trials(oracle: MrrOracle) -> Iterator[Trial]:
    """Yield every trial that the copy knows of."""
    paying = paying_spans(oracle.spans)
    for subscription in oracle.account.subscriptions:
        ends: dict[int, int] = {}
        for state in known_states(oracle.account, subscription):
            if state.trial_start is not None and state.trial_end is not None:
                ends[state.trial_start] = state.trial_end
        for start, end in ends.items():
            payments = sorted(
                invoice.paid_at
                for invoice in subscription.invoices
                if invoice.status == "paid" and invoice.paid > 0 and invoice.created >= end
                if invoice.paid_at is not None
            )
            last = subscription.states[-1]
            outcome = _outcome(last, end, payments, oracle.as_of)
            yield Trial(
                subscription,
                start,
                end,
                outcome,
                payments[0] if outcome == "converted" else None,
                {"running": None, "canceled": last.ended_at}.get(outcome, end),
                any(
                    since < start and (until is None or until >= start)
                    for since, until in paying.get(subscription.customer, ())
                ),
            )


def known_states(account: Account, subscription: Subscription) -> list[State]:
    """Return the states that changes and the current row show: with `invoiced` those of the last
    30 days and the one before.
    """
    if account.family == "observed":
        return subscription.states
    recent = [n for n, s in enumerate(subscription.states) if s.since >= EVENTS_FROM]
    first = recent[0] if recent else len(subscription.states)
    return subscription.states[max(first - 1, 0) :]


def _outcome(last: State, end: int, payments: list[int], as_of: int) -> str:
    ended = last.ended_at
    if ended is not None and ended <= end:
        return "canceled"
    if end > as_of:
        return "running"
    if payments:
        return "converted"
    if ended is not None:
        return "canceled"
    return "paused" if last.status == "paused" else "expired"


# subscriber_metrics_daily and churn_events


def subscriber_spans(oracle: MrrOracle) -> dict[str, list[tuple[int, int | None]]]:
    """Return when each customer was an active subscriber: paying, or in a trial that it got while it
    was paying, until it pays again.
    """
    spans = {customer: list(own) for customer, own in paying_spans(oracle.spans).items()}
    paying: dict[str, list[Span]] = {}
    for span in oracle.spans:
        if span.value.net > 0:
            paying.setdefault(span.value.subscription, []).append(span)
    for trial in trials(oracle):
        if not trial.of_payer:
            continue
        until = trial.over_at
        if trial.outcome in ("converted", "expired"):
            again = [
                max(span.start, trial.end)
                for span in paying.get(trial.subscription.id, ())
                if span.end is None or span.end > trial.end
            ]
            until = min(again, default=until)
        if until is None or until > trial.start:
            spans[trial.subscription.customer].append((trial.start, until))
    return {customer: joined(own) for customer, own in spans.items()}


def subscriber_metrics_daily(oracle: MrrOracle) -> Iterator[dict[str, Any]]:
    """Yield a row for each day from the first on which anything happened to that of `as_of`."""
    active: dict[int, set[str]] = {}
    for customer, spans in subscriber_spans(oracle).items():
        for day in _days(oracle, spans):
            active.setdefault(day, set()).add(customer)
    over: dict[int, list[bool]] = {}
    for trial in trials(oracle):
        if trial.is_counted and trial.over_at is not None:
            day = oracle.day_of(trial.over_at).toordinal()
            over.setdefault(day, []).append(trial.outcome == "converted")
    first = min([*active, *over], default=None)
    if first is None:
        return
    nobody: set[str] = set()
    seen: set[str] = set()
    came: dict[int, int] = {}
    went: dict[int, int] = {}
    for day in range(first, oracle.day_of(oracle.as_of).toordinal() + 1):
        today, yesterday = active.get(day, nobody), active.get(day - 1, nobody)
        came[day], went[day] = len(today - yesterday), len(yesterday - today)
        window = range(day - 29, day + 1)
        entered = sum(came.get(d, 0) for d in window)
        left = sum(went.get(d, 0) for d in window)
        before = len(active.get(day - 30, nobody))
        ended = [converted for d in window for converted in over.get(d, ())]
        yield {
            "day": date.fromordinal(day),
            "active_subscribers": len(today),
            "new_subscribers": len(today - yesterday - seen),
            "reactivated_subscribers": len((today - yesterday) & seen),
            "churned_subscribers": went[day],
            "active_30_days_before": before,
            "new_30_days": entered,
            "churned_30_days": left,
            "churn_rate_30_days": share(left, before + entered),
            "trials_ended_30_days": len(ended),
            "trials_converted_30_days": sum(ended),
            "trial_conversion_rate_30_days": share(sum(ended), len(ended)),
        }
        seen |= today


def _days(oracle: MrrOracle, spans: list[tuple[int, int | None]]) -> Iterator[int]:
    """Yield the days, as ordinals, at whose end a span is in force; of today: at `as_of`."""
    for start, end in spans:
        last = oracle.as_of if end is None else end
        until = oracle.day_of(last).toordinal() + (1 if end is None else 0)
        yield from range(oracle.day_of(start).toordinal(), until)


def churn_events(oracle: MrrOracle) -> Iterator[dict[str, Any]]:
    """Yield a row for each customer, currency and moment at which the customer ceased to be a
    subscriber.
    """
    paid: dict[str, list[Span]] = {}
    for span in oracle.spans:
        if span.value.net > 0:
            paid.setdefault(span.value.customer, []).append(span)
    subscriptions = {s.id: s for s in oracle.account.subscriptions}
    for customer, spans in subscriber_spans(oracle).items():
        own = paid[customer]
        first = min(span.start for span in own)
        for since, until in spans:
            if until is None or until > oracle.as_of:
                continue
            last = max(s.end for s in own if since <= s.start < until and s.end is not None)
            ended = [span for span in own if span.end == last]
            for currency in sorted({span.value.price.currency for span in ended}):
                lost = [span for span in ended if span.value.price.currency == currency]
                names = {span.value.subscription for span in lost}
                subscription = subscriptions[max(names)]
                cause, reason, feedback = _cause(oracle, subscription, until)
                mrr = sum(span.value.net for span in lost)
                yield {
                    "customer_id": customer,
                    "churned_at": utc_time(until),
                    "currency": currency,
                    "subscription_id": subscription.id,
                    "subscriptions": len(names),
                    "mrr_lost": mrr,
                    "mrr_lost_major": Fraction(mrr, 1 if currency == "jpy" else 100),
                    "cause": cause,
                    "cancellation_reason": reason,
                    "cancellation_feedback": feedback,
                    "kind": _kind_of_churn(cause, reason),
                    "first_paid_at": utc_time(first),
                    "tenure_days": (oracle.day_of(until) - oracle.day_of(first)).days,
                }


def _cause(
    oracle: MrrOracle, subscription: Subscription, second: int
) -> tuple[str, str | None, str | None]:
    """Return why a subscription ceased to count, with Stripe's reason and the customer's."""
    last = subscription.states[-1]
    ended = last.ended_at
    if oracle.settings.churn_timing == "cancel" and last.canceled_at is not None:
        ended = last.canceled_at
    if ended is not None and ended <= second:
        return "canceled", last.reason, last.feedback
    known = [s for s in subscription.states if oracle.account.is_change(s) and s.since <= second]
    if not known:
        return "unknown", None, None
    status = known[-1].status
    return "free" if status in ("active", "past_due") else status, None, None


def _kind_of_churn(cause: str, reason: str | None) -> str:
    if cause == "unpaid" or (
        cause == "canceled" and reason in ("payment_failed", "payment_disputed")
    ):
        return "involuntary"
    if cause == "canceled" and reason == "cancellation_requested":
        return "voluntary"
    return "unknown"


# retention_cohorts


def retention_cohorts(oracle: MrrOracle) -> Iterator[dict[str, Any]]:
    """Yield a row for each cohort, currency and month of age; a month that is not over is null."""
    by_month: dict[tuple[str, str], dict[Month, int]] = {}
    for end in oracle.month_ends:
        by_month.setdefault((end.customer, end.currency), {})[end.month] = end.net
    cohorts: dict[tuple[Month, str], list[dict[Month, int]]] = {}
    for (_, currency), months in by_month.items():
        first = min((month for month, mrr in months.items() if mrr > 0), default=None)
        if first is not None:
            cohorts.setdefault((first, currency), []).append(months)
    current = oracle.current_month
    for (cohort, currency), members in cohorts.items():
        start = sum(months[cohort] for months in members)
        for age, month in enumerate(months_until(cohort, current)):
            now = [months.get(month, 0) for months in members]
            kept = sum(min(months[cohort], mrr) for months, mrr in zip(members, now, strict=True))
            retained = sum(mrr > 0 for mrr in now)
            complete = month < current
            yield {
                "cohort_month": date(*cohort, 1),
                "currency": currency,
                "age_months": age,
                "cohort_customers": len(members),
                "cohort_mrr": start,
                "retained_customers": retained if complete else None,
                "retained_mrr": kept if complete else None,
                "mrr": sum(now) if complete else None,
                "logo_retention": share(retained, len(members)) if complete else None,
                "gross_mrr_retention": share(kept, start) if complete else None,
                "net_mrr_retention": share(sum(now), start) if complete else None,
            }
