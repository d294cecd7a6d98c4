"""What the MRR marts must say of an account: fractions, one item and one moment at a time.

Written from the definitions alone; it shares no SQL and no macro with the models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from .timelines import (
    AS_OF,
    EVENTS_FROM,
    Account,
    Customer,
    Discount,
    Item,
    Line,
    Price,
    State,
    Subscription,
    billed_amount,
    half_up,
    month_of,
    month_start,
)

PERIODS_A_MONTH = {
    "day": Fraction(365, 12),
    "week": Fraction(52, 12),
    "month": Fraction(1),
    "year": Fraction(1, 12),
}
_BASES = ("observed", "invoice", "assumed")


@dataclass(frozen=True, slots=True)
class Settings:
    """The variables of the models that leave a definition open, with their defaults."""

    discounts: str = "recurring"
    churn_timing: str = "period_end"
    paused_collection: str = "counted"


@dataclass(frozen=True, slots=True)
class ItemMrr:
    """What an item is worth a month, in minor units, before and after discounts."""

    customer: str
    subscription: str
    item: str
    price: Price
    quantity: int | None
    gross: int
    discount: int
    basis: str

    @property
    def net(self) -> int:
        """MRR after discounts."""
        return self.gross - self.discount


@dataclass(frozen=True, slots=True)
class Span:
    """An item's MRR in [start, end); `end` None: still."""

    start: int
    end: int | None
    value: ItemMrr


def monthly(price: Price, amount: int) -> int:
    """Return what an amount per billing period is a month, rounded half up."""
    assert price.interval is not None
    return half_up(amount * PERIODS_A_MONTH[price.interval] / price.interval_count)


def is_counted(state: State, second: int, settings: Settings) -> bool:
    """Return whether a subscription counts at that second."""
    if state.status not in ("active", "past_due"):
        return False
    if state.ended_at is not None and state.ended_at <= second:
        return False
    in_trial = (
        state.trial_start is not None
        and state.trial_end is not None
        and state.trial_start <= second < state.trial_end
    )
    if in_trial:
        return False
    if settings.churn_timing == "cancel" and state.canceled_at is not None:
        return second < state.canceled_at
    return not (settings.paused_collection == "excluded" and state.paused_collection)


class MrrOracle:
    """The MRR of every item of an account, moment by moment."""

    def __init__(self, account: Account, settings: Settings = Settings(), as_of: int = AS_OF):
        self.account, self.settings, self.as_of = account, settings, as_of
        self._customers = {customer.id: customer for customer in account.customers}
        self._lines = {s.id: _lines_by_item(s) for s in account.subscriptions}
        self.spans = [
            span for subscription in account.subscriptions for span in self._spans(subscription)
        ]

    def _spans(self, subscription: Subscription) -> Iterator[Span]:
        """Yield the MRR of a subscription's items; spans of the same value are one."""
        open_spans: dict[str, tuple[int, ItemMrr]] = {}
        for moment in self._moments(subscription):
            now = {value.item: value for value in self.items_at(subscription, moment)}
            for item, (start, value) in list(open_spans.items()):
                if now.get(item) != value:
                    yield Span(start, moment, value)
                    del open_spans[item]
            for item, value in now.items():
                open_spans.setdefault(item, (moment, value))
        for start, value in open_spans.values():
            yield Span(start, None, value)

    def _moments(self, subscription: Subscription) -> list[int]:
        """Every second at which an item's MRR can change."""
        moments = {subscription.start_date, subscription.created}
        discounts = set()
        if (discount := self._customers[subscription.customer].discount) is not None:
            discounts.add(discount)
        for state in subscription.states:
            moments |= {state.since}
            moments |= {
                second
                for second in (
                    state.trial_start,
                    state.trial_end,
                    state.ended_at,
                    state.canceled_at,
                )
                if second is not None
            }
            discounts |= set(state.discounts)
            discounts |= {d for item in state.items for d in item.discounts}
        for discount in discounts:
            moments |= {discount.start} | ({discount.end} if discount.end is not None else set())
        for lines in self._lines[subscription.id].values():
            moments |= {second for line in lines for second in (line.start, line.end)}
        return sorted(moment for moment in moments if moment <= self.as_of)

    def items_at(self, subscription: Subscription, second: int) -> list[ItemMrr]:
        """Return the MRR of each item that counts at that second, items worth nothing included."""
        state, basis = self._state_at(subscription, second)
        if state is None or not is_counted(state, second, self.settings):
            return []
        found = self._items_at(subscription, state, second, basis)
        return list(self._valued(subscription, state, found, second))

    def _state_at(self, subscription: Subscription, second: int) -> tuple[State | None, str]:
        raise NotImplementedError

    def _items_at(
        self, subscription: Subscription, state: State, second: int, basis: str
    ) -> list[tuple[Item, str]]:
        raise NotImplementedError

    def _valued(
        self,
        subscription: Subscription,
        state: State,
        items: list[tuple[Item, str]],
        second: int,
    ) -> Iterator[ItemMrr]:
        raise NotImplementedError


def _lines_by_item(subscription: Subscription) -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = {}
    for invoice in subscription.invoices:
        for line in invoice.lines:
            if not line.proration:
                found.setdefault(line.item, []).append(line)
    return {item: sorted(lines, key=lambda line: line.start) for item, lines in found.items()}


# From spans to the marts


Key = tuple[str, str]  # customer, currency


def by_customer(spans: list[Span]) -> dict[Key, list[Span]]:
    """Group spans by customer and currency."""
    found: dict[Key, list[Span]] = {}
    for span in spans:
        found.setdefault((span.value.customer, span.value.price.currency), []).append(span)
    return found


def months_until(first: int, as_of: int) -> list[tuple[int, int]]:
    """Return the starts of all months from the one of `first` to that of `as_of`, as year, month."""
    (year, month), last = month_of(first), month_of(as_of)
    found = []
    while (year, month) <= last:
        found.append((year, month))
        year, month = month_of(month_start(year, month + 1))
    return found


def closes_at(month: tuple[int, int], as_of: int) -> int:
    """Return the second at which a month closes, or `as_of` within the current one."""
    return min(month_start(month[0], month[1] + 1), as_of)


def total_before(spans: list[Span], second: int) -> list[Span]:
    """Return the spans in force just before a second."""
    return [s for s in spans if s.start < second and (s.end is None or s.end >= second)]


@dataclass(frozen=True, slots=True)
class Movement:
    """How a customer's MRR in a currency moved in a month."""

    month: tuple[int, int]
    customer: str
    currency: str
    opening: int
    closing: int
    kind: str  # "" if the month has no movement
    basis: str


def movements(spans: list[Span], as_of: int = AS_OF) -> list[Movement]:
    """Return a row for each month of the calendar, customer and currency."""
    found = []
    for (customer, currency), own in sorted(by_customer(spans).items()):
        opening, ever = 0, False
        for month in months_until(min(span.start for span in own), as_of):
            inside = total_before(own, closes_at(month, as_of))
            closing = sum(span.value.net for span in inside)
            basis = max((s.value.basis for s in inside), key=_BASES.index, default="")
            kind = movement_kind(opening, closing, ever)
            found.append(Movement(month, customer, currency, opening, closing, kind, basis))
            ever = ever or closing > 0
            opening = closing
    return found


def movement_kind(opening: int, closing: int, ever: bool) -> str:
    """Name the movement from one amount to another; `ever`: whether it was above 0 before."""
    if opening == closing:
        return ""
    if opening == 0:
        return "reactivation" if ever else "new"
    if closing == 0:
        return "churn"
    return "expansion" if closing > opening else "contraction"


def paying_spans(spans: list[Span]) -> dict[str, list[tuple[int, int | None]]]:
    """Return when each customer paid: MRR after discounts above 0 in any currency; spans that touch
    are one.
    """
    found: dict[str, list[tuple[int, int | None]]] = {}
    for span in spans:
        if span.value.net > 0:
            found.setdefault(span.value.customer, []).append((span.start, span.end))
    return {customer: joined(own) for customer, own in found.items()}


def joined(spans: list[tuple[int, int | None]]) -> list[tuple[int, int | None]]:
    """Return spans as few as possible: those that touch are one."""
    found: list[tuple[int, int | None]] = []
    for start, end in sorted(spans, key=lambda span: span[0]):
        if found and (found[-1][1] is None or found[-1][1] >= start):
            last = found[-1][1]
            found[-1] = (
                found[-1][0],
                None if last is None or end is None else max(last, end),
            )
        else:
            found.append((start, end))
    return found
