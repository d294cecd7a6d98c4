"""What the MRR marts must say of an account: fractions, one item and one moment at a time.

Written from the definitions alone; it shares no SQL and no macro with the models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from functools import cache, cached_property
from itertools import groupby
from zoneinfo import ZoneInfo

from .timelines import (
    AS_OF,
    Account,
    Discount,
    Item,
    Line,
    Month,
    Price,
    State,
    Subscription,
    billed_amount,
    day_of,
    half_up,
    month_after,
    month_of,
    month_start,
    units_of,
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
    stacked_discounts: int = 3
    reporting_timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Taken:
    """What a discount takes off an item's MRR."""

    position: int
    level: str
    discount: Discount
    before: int
    amount: int


@dataclass(frozen=True, slots=True)
class ItemMrr:
    """What an item is worth a month, in minor units, before and after discounts."""

    customer: str
    subscription: str
    item: str
    price: Price
    quantity: int | None
    status: str
    is_paused: bool
    billed: int
    gross: int
    basis: str
    taken: tuple[Taken, ...] = ()

    @property
    def discount(self) -> int:
        """What all discounts take off."""
        return sum(taken.amount for taken in self.taken)

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


@cache
def monthly(price: Price, amount: int) -> int:
    """Return what an amount per billing period is a month, rounded half up."""
    assert price.interval is not None
    return half_up(amount * PERIODS_A_MONTH[price.interval] / price.interval_count)


@dataclass(frozen=True, slots=True)
class Base:
    """The state before the first change that is known, with the billing period it was in."""

    state: State
    until: int | None  # the second of that change; None without any
    period_start: int


class MrrOracle:
    """The MRR of every item of an account, moment by moment."""

    def __init__(self, account: Account, settings: Settings = Settings(), as_of: int = AS_OF):
        self.account, self.settings, self.as_of = account, settings, as_of
        self.zone = ZoneInfo(settings.reporting_timezone)
        self._customers = {customer.id: customer for customer in account.customers}
        self._lines = {s.id: _lines_by_item(s) for s in account.subscriptions}
        self._bases = {s.id: self._base(s) for s in account.subscriptions}
        self.spans = [
            span for subscription in account.subscriptions for span in self._spans(subscription)
        ]

    @cached_property
    def month_ends(self) -> list[MonthEnd]:
        """Every month, customer and currency from the first month of its history, in order."""
        return list(_month_ends(self))

    @cached_property
    def current_month(self) -> Month:
        """The month that is not over."""
        return self.month_of(self.as_of)

    def month_of(self, second: int) -> Month:
        """Return the month of a second in the reporting time zone."""
        return month_of(second, self.zone)

    def day_of(self, second: int) -> date:
        """Return the day of a second in the reporting time zone."""
        return day_of(second, self.zone)

    def closes_at(self, month: Month) -> int:
        """Return the second at which a month closes, or now within the current one."""
        return min(month_start(month_after(month), self.zone), self.as_of)

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
        base = self._bases[subscription.id]
        moments = {subscription.start_date, subscription.created, base.period_start}
        moments |= {self._paid_until(subscription)}
        discounts = set()
        if (discount := self._customers[subscription.customer].discount) is not None:
            discounts.add(discount)
        for state in subscription.states:
            moments |= {state.since, state.trial_end or state.since} | {
                item.created for item in state.items
            }
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
        return sorted(moments)

    def items_at(self, subscription: Subscription, second: int) -> list[ItemMrr]:
        """Return the MRR of each item that counts at that second, items worth nothing included."""
        base = self._bases[subscription.id]
        if base.until is None or second < base.until:
            state = replace(base.state, status=self._status_before(base, second))
            if not self._counts_before(subscription, base, second):
                return []
            found = list(self._items_before(subscription, base, second))
        else:
            following = self._observed(subscription, second)
            if following is None:
                return []
            state = following
            found = [(item, "observed") for item in state.items]
        return list(self._valued(subscription, state, found, second))

    def _base(self, subscription: Subscription) -> Base:
        """Return the base of a subscription: of a creation the state after it, else the one before
        the first change, else the current one.
        """
        states = subscription.states
        first = next((n for n, state in enumerate(states) if self.account.is_change(state)), None)
        if first is None:
            return Base(states[-1], None, subscription.period_at(AS_OF)[0])
        since = states[first].since
        if first == 0:
            return Base(states[0], since, subscription.period_at(since)[0])
        state = states[first - 1]
        return Base(state, since, subscription.period_at(max(since - 1, state.since))[0])

    def _observed(self, subscription: Subscription, second: int) -> State | None:
        """Return the state of the last change, if the subscription counts in it."""
        index = max(n for n, state in enumerate(subscription.states) if state.since <= second)
        state = subscription.states[index]
        if state.status not in ("active", "past_due"):
            return None
        later = subscription.states[index + 1 :]
        following = [s for s in later if s.since == later[0].since][-1:]  # the last of its second
        if any(s.ended_at is not None and s.ended_at <= second for s in following):
            return None
        return None if self._is_left_out(state, second) else state

    def _is_left_out(self, state: State, second: int) -> bool:
        """Return whether a variable leaves out a state that counts by default."""
        asked = state.canceled_at if self.settings.churn_timing == "cancel" else None
        if asked is not None and asked <= second:
            return True
        return self.settings.paused_collection == "excluded" and bool(state.paused_collection)

    def _counts_before(self, subscription: Subscription, base: Base, second: int) -> bool:
        """Return whether a subscription counts before the first change."""
        state = base.state
        if second < subscription.start_date or self._is_left_out(state, second):
            return False
        if state.status in ("incomplete", "incomplete_expired"):
            return False
        if state.ended_at is not None and state.ended_at <= second:
            return False
        trial = (state.trial_start, state.trial_end)
        if trial[0] is not None and trial[1] is not None:
            if trial[0] <= second < trial[1]:
                return False
            if state.status in ("trialing", "paused") and second >= trial[1]:
                return False
        return state.status != "unpaid" or second < self._paid_until(subscription)

    def _status_before(self, base: Base, second: int) -> str:
        """Return the status of a subscription that counts before the first change."""
        begins = max(base.period_start, base.state.trial_end or 0)
        return "past_due" if base.state.status == "past_due" and second >= begins else "active"

    def _paid_until(self, subscription: Subscription) -> int:
        ends = [
            line.end
            for invoice in subscription.invoices
            for line in invoice.lines
            if invoice.status == "paid" and not line.proration and line.amount > 0
        ]
        trial_end = self._bases[subscription.id].state.trial_end or 0
        return max(max(ends, default=subscription.start_date), trial_end)

    def _items_before(
        self, subscription: Subscription, base: Base, second: int
    ) -> Iterator[tuple[Item, str]]:
        """Yield the items before the first change, from the base and from invoice lines."""
        lines = self._lines[subscription.id]
        items = {item.id: item for item in base.state.items}
        for name in {*items, *lines}:
            item = items.get(name)
            if item is None:
                found = _from_lines(lines[name], second, None)
            else:
                late = item.created > subscription.created
                begins = item.created if late else subscription.start_date
                found = _of_base(item, begins, base.period_start, lines.get(name, []), second)
            if found is not None:
                yield found

    def _valued(
        self,
        subscription: Subscription,
        state: State,
        items: list[tuple[Item, str]],
        second: int,
    ) -> Iterator[ItemMrr]:
        found = [(item, basis) for item, basis in items if item.price.interval is not None]
        billed = {item.id: billed_amount(item.price, item.quantity) for item, _ in found}
        gross = {item.id: monthly(item.price, billed[item.id]) for item, _ in found}
        taken = self._taken(subscription, state, [item for item, _ in found], gross, second)
        for item, basis in found:
            yield ItemMrr(
                subscription.customer,
                subscription.id,
                item.id,
                item.price,
                item.quantity,
                state.status,
                bool(state.paused_collection),
                billed[item.id],
                gross[item.id],
                basis,
                tuple(taken[item.id]),
            )

    def _taken(
        self,
        subscription: Subscription,
        state: State,
        items: list[Item],
        gross: dict[str, int],
        second: int,
    ) -> dict[str, list[Taken]]:
        """Return what discounts take off each item: its own ones first, then the subscription's or, if
        it has none, the customer's; each from what the one before left.
        """
        left = dict(gross)
        taken: dict[str, list[Taken]] = {item.id: [] for item in items}
        most = self.settings.stacked_discounts
        for item in items:
            own = [d for d in item.discounts if self._applies(d, item, second)]
            for position, discount in enumerate(own[:most], 1):
                _take(discount, [item], left, taken, position, "item")
        level, discounts = "subscription", state.discounts
        of_customer = self._customers[subscription.customer].discount
        if not discounts and of_customer is not None:
            level, discounts = "customer", (of_customer,)
        position = most
        for discount in discounts:
            limited_to = [item for item in items if self._applies(discount, item, second)]
            if limited_to and position < 2 * most:
                position += 1
                _take(discount, limited_to, left, taken, position, level)
        return taken

    def _applies(self, discount: Discount, item: Item, second: int) -> bool:
        coupon = discount.coupon
        durations = {
            "none": (),
            "forever": ("forever",),
            "recurring": ("forever", "repeating"),
            "all": ("forever", "repeating", "once"),
        }[self.settings.discounts]
        return (
            coupon.duration in durations
            and discount.start <= second
            and (discount.end is None or discount.end > second)
            and (coupon.amount is None or coupon.currency == item.price.currency)
            and (not coupon.products or item.price.product in coupon.products)
        )


def _take(
    discount: Discount,
    items: list[Item],
    left: dict[str, int],
    taken: dict[str, list[Taken]],
    position: int,
    level: str,
) -> None:
    """Take a discount off items. An amount is shared in proportion to what is left of each, and the
    shares are rounded so that their running sum is right.
    """
    total = sum(left[item.id] for item in items)
    so_far = 0
    before = dict(left)
    for item in sorted(items, key=lambda item: item.id):
        own = before[item.id]
        if discount.coupon.percent is not None:
            amount = half_up(own * Fraction(discount.coupon.percent) / 100)
        elif total == 0:
            amount = 0
        else:
            assert discount.coupon.amount is not None
            capped = min(monthly(item.price, discount.coupon.amount), total)
            amount = half_up(Fraction(capped * (so_far + own), total)) - half_up(
                Fraction(capped * so_far, total)
            )
        so_far += own
        left[item.id] -= amount
        taken[item.id].append(Taken(position, level, discount, own, amount))


def _of_base(
    item: Item, begins: int, period_start: int, lines: list[Line], second: int
) -> tuple[Item, str] | None:
    """Return an item of the base as it was at a second, and what tells so."""
    if second < begins:
        return None
    counts_from = max(begins, period_start)
    if second >= counts_from:
        as_it_is = (counts_from, item.price, units_of(item.quantity))
        is_billed = any(
            (line.start, line.price, units_of(line.quantity)) == as_it_is for line in lines
        )
        return item, "invoice" if is_billed else "assumed"
    earlier = [line for line in lines if line.start < counts_from]
    return _from_lines(earlier, second, item)


def _from_lines(lines: list[Line], second: int, item: Item | None) -> tuple[Item, str] | None:
    """Return what the line before a second tells; `item`: the item in the base, which follows the
    last line and is assumed before the first one.
    """
    before = [line for line in lines if line.start <= second]
    if not before:
        return None if item is None else (item, "assumed")
    line = before[-1]
    told = Item(line.item, line.price, line.quantity, () if item is None else item.discounts)
    if second < line.end:
        return told, "invoice"
    if item is not None or line is not lines[-1]:
        return told, "assumed"
    return None


def _lines_by_item(subscription: Subscription) -> dict[str, list[Line]]:
    """Return the lines that tell of a period, oldest first: of several for one period start the one
    that was finalized last.
    """
    found: dict[str, dict[int, tuple[tuple[int, str], Line]]] = {}
    for invoice in subscription.invoices:
        if invoice.status in ("draft", "void"):
            continue
        for line in invoice.lines:
            if not line.proration:
                rank = (invoice.finalized_at or 0, line.id)
                told = found.setdefault(line.item, {})
                if line.start not in told or told[line.start][0] < rank:
                    told[line.start] = (rank, line)
    return {item: [told[start][1] for start in sorted(told)] for item, told in found.items()}


# From spans to the marts


Key = tuple[str, str]  # customer, currency


def by_customer(spans: list[Span]) -> dict[Key, list[Span]]:
    """Group spans by customer and currency."""
    found: dict[Key, list[Span]] = {}
    for span in spans:
        found.setdefault((span.value.customer, span.value.price.currency), []).append(span)
    return found


def months_until(first: Month, last: Month) -> Iterator[Month]:
    """Yield the months of the calendar, both ends included."""
    while first <= last:
        yield first
        first = month_after(first)


def total_before(spans: list[Span], second: int) -> list[Span]:
    """Return the spans in force just before a second."""
    return [s for s in spans if s.start < second and (s.end is None or s.end >= second)]


@dataclass(frozen=True, slots=True)
class MonthEnd:
    """A customer's MRR in a currency at the last instant of a month; of the current one: now."""

    month: Month
    customer: str
    currency: str
    spans: list[Span]

    @property
    def net(self) -> int:
        """MRR after discounts."""
        return sum(span.value.net for span in self.spans)

    @property
    def basis(self) -> str:
        """The weakest basis of its items."""
        return weakest(span.value.basis for span in self.spans)


def weakest(bases: Iterable[str]) -> str:
    """Return the weakest basis; `observed` of none."""
    return max(bases, key=_BASES.index, default="observed")


def _month_ends(oracle: MrrOracle) -> Iterator[MonthEnd]:
    for (customer, currency), own in sorted(by_customer(oracle.spans).items()):
        first = oracle.month_of(min(span.start for span in own))
        for month in months_until(first, oracle.current_month):
            inside = total_before(own, oracle.closes_at(month))
            yield MonthEnd(month, customer, currency, inside)


@dataclass(frozen=True, slots=True)
class Movement:
    """How a customer's MRR in a currency moved in a month."""

    month: Month
    customer: str
    currency: str
    opening: int
    closing: int
    kind: str
    basis: str


def movements(oracle: MrrOracle) -> Iterator[Movement]:
    """Yield the months in which a customer's MRR moved."""
    for (customer, currency), ends in groupby(
        oracle.month_ends, key=lambda end: (end.customer, end.currency)
    ):
        opening, basis, ever = 0, "observed", False
        for end in ends:
            kind = movement_kind(opening, end.net, ever)
            if kind:
                told_by = end.basis if end.net else basis
                yield Movement(end.month, customer, currency, opening, end.net, kind, told_by)
            ever = ever or end.net > 0
            opening, basis = end.net, end.basis


@dataclass(frozen=True, slots=True)
class Change:
    """A moment at which a subscription's MRR changed."""

    at: int
    customer: str
    currency: str
    subscription: str
    before: int
    after: int
    customer_before: int
    customer_after: int
    kind: str
    reason: str
    basis: str


def changes(oracle: MrrOracle) -> Iterator[Change]:
    """Yield every change of a subscription's MRR, in order of time within a customer."""
    for (customer, currency), own in by_customer(oracle.spans).items():
        moments = {span.start for span in own} | {s.end for s in own if s.end is not None}
        highest = 0
        started: set[str] = set()
        for moment in sorted(second for second in moments if second <= oracle.as_of):
            before, after = total_before(own, moment), total_from(own, moment)
            totals = _net(before), _net(after)
            for subscription in sorted({s.value.subscription for s in before + after}):
                was = [s for s in before if s.value.subscription == subscription]
                now = [s for s in after if s.value.subscription == subscription]
                if _net(was) == _net(now):
                    continue
                kind = movement_kind(*totals, ever=highest > 0)
                if kind not in ("new", "reactivation", "churn"):
                    kind = "expansion" if _net(now) > _net(was) else "contraction"
                yield Change(
                    moment,
                    customer,
                    currency,
                    subscription,
                    _net(was),
                    _net(now),
                    *totals,
                    kind,
                    _reason(was, now, subscription in started),
                    weakest(basis for *_, basis in {*map(_worth, was)} ^ {*map(_worth, now)}),
                )
                if _net(now) > 0:
                    started.add(subscription)
            highest = max(highest, totals[1])


def total_from(spans: list[Span], second: int) -> list[Span]:
    """Return the spans in force at a second."""
    return [s for s in spans if s.start <= second and (s.end is None or s.end > second)]


def _net(spans: Iterable[Span]) -> int:
    return sum(span.value.net for span in spans)


def _worth(span: Span) -> tuple[str, str, int, int, int, str]:
    """Return what makes an item's MRR, and what tells so."""
    value = span.value
    return value.item, value.price.id, _units(value), value.gross, value.discount, value.basis


def _reason(was: list[Span], now: list[Span], is_known: bool) -> str:
    if _net(was) == 0:
        return "subscription_resumed" if is_known else "subscription_started"
    if _net(now) == 0:
        return "subscription_ended"
    if _per_price(was, lambda value: 1) != _per_price(now, lambda value: 1):
        return "plan"
    if _per_price(was, _units) != _per_price(now, _units):
        return "quantity"
    if _per_price(was, _discount) != _per_price(now, _discount):
        return "discount"
    return "price"


def _units(value: ItemMrr) -> int:
    return units_of(value.quantity)


def _discount(value: ItemMrr) -> int:
    return value.discount


def _per_price(spans: list[Span], measure: Callable[[ItemMrr], int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for span in spans:
        found[span.value.price.id] = found.get(span.value.price.id, 0) + measure(span.value)
    return {price: amount for price, amount in found.items() if amount}


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
