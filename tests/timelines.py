"""Random accounts as raw tables: lives of subscriptions, and what Stripe would show of them.

Two families: `observed`, where every transition is in `changes`, and `invoiced`, where changes
exist only for the last 30 days and invoice lines tell what was before.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any, Literal

import orjson
import pyarrow as pa

from stripe_feed.extract.tables.changes import CHANGE_SCHEMA
from stripe_feed.extract.tables.codec import ARROW_TYPES, UTC_TIME
from stripe_feed.resources import TABLES

Family = Literal["observed", "invoiced"]
Shape = Literal["new", "old"]
Month = tuple[int, int]
"""Year and month."""

HOUR, DAY = 3_600, 86_400
AS_OF = 1_795_178_096  # 2026-11-20 12:34:56 UTC
BEGIN = AS_OF - 430 * DAY
EVENTS_FROM = AS_OF - 30 * DAY
CURRENCIES = ("usd", "eur", "jpy")
ACCOUNT = "acct_timelines"


@dataclass(frozen=True, slots=True)
class Tier:
    """One step of a tiered price; `up_to` None: without end."""

    up_to: int | None
    unit: Decimal
    flat: int


@dataclass(frozen=True, slots=True)
class Price:
    """A price; `unit` in minor units of `currency`."""

    id: str
    product: str
    currency: str
    unit: Decimal | None
    interval: str | None  # None: one-time
    interval_count: int = 1
    metered: bool = False
    tiers: tuple[Tier, ...] = ()
    tiers_mode: str = ""
    divide_by: int = 1
    round: str = ""


@dataclass(frozen=True, slots=True)
class Coupon:
    """A coupon: exactly one of `percent` and `amount` is set."""

    id: str
    percent: Decimal | None
    amount: int | None
    currency: str | None
    duration: str  # once, repeating, forever
    products: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Discount:
    """A coupon applied to a customer, a subscription or an item, in force in [start, end)."""

    id: str
    coupon: Coupon
    start: int
    end: int | None


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a subscription."""

    id: str
    price: Price
    quantity: int | None
    discounts: tuple[Discount, ...] = ()
    created: int = 0  # 0: with the subscription


@dataclass(frozen=True, slots=True)
class State:
    """What a subscription is from `since` on, until its next state."""

    since: int
    status: str
    items: tuple[Item, ...]
    discounts: tuple[Discount, ...] = ()
    trial_start: int | None = None
    trial_end: int | None = None
    canceled_at: int | None = None
    cancel_at: int | None = None
    cancel_at_period_end: bool = False
    ended_at: int | None = None
    paused_collection: str | None = None
    reason: str | None = None
    feedback: str | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """An invoice line that bills an item for a period."""

    id: str
    item: str
    price: Price
    quantity: int | None
    amount: int
    start: int
    end: int
    proration: bool
    discount: int = 0
    tax: int = 0  # inside the amount


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice in its last state."""

    id: str
    customer: str
    subscription: str | None
    currency: str
    created: int
    status: str
    collection: str
    lines: tuple[Line, ...]
    total: int
    paid: int
    finalized_at: int | None = None
    paid_at: int | None = None
    due_date: int | None = None
    next_attempt: int | None = None
    attempts: int = 0
    credited: int = 0


@dataclass(slots=True)
class Subscription:
    """A subscription with all its states, oldest first."""

    id: str
    customer: str
    currency: str
    created: int
    start_date: int
    states: list[State]
    collection: str = "charge_automatically"
    invoices: list[Invoice] = field(default_factory=list)
    period_starts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        since = self.created
        while since < AS_OF:
            self.period_starts.append(since)
            state = state_at(self, since)
            in_trial = state is not None and state.status == "trialing" and state.trial_end
            since = (
                max(in_trial or 0, since + 1) if in_trial and in_trial > since else since + 30 * DAY
            )
        self.period_starts.append(since)

    def period_at(self, second: int) -> tuple[int, int]:
        """Return start and end of the billing period at a Unix second."""
        index = max(bisect_right(self.period_starts, second) - 1, 0)
        index = min(index, len(self.period_starts) - 2)
        return self.period_starts[index], self.period_starts[index + 1]


@dataclass(slots=True)
class Customer:
    """A customer, with what it is discounted and whether it is deleted."""

    id: str
    created: int
    discount: Discount | None = None
    deleted_at: int | None = None


@dataclass(slots=True)
class Account:
    """Everything that a batch of timelines consists of."""

    family: Family
    customers: list[Customer]
    prices: list[Price]
    coupons: list[Coupon]
    subscriptions: list[Subscription]

    def is_change(self, state: State) -> bool:
        """Return whether `changes` still holds the beginning of a state."""
        return self.family == "observed" or state.since >= EVENTS_FROM


# Drawing


def draw_account(seed: int, timelines: int, family: Family) -> Account:
    """Draw an account with so many subscriptions; the same arguments give the same account."""
    rng = random.Random(f"{seed} {family}")
    prices = _draw_prices(rng)
    coupons = _draw_coupons(rng, prices)
    account = Account(family, [], prices, coupons, [])
    names = _Names()
    while len(account.subscriptions) < timelines:
        customer = Customer(names("cus"), BEGIN + int((AS_OF - BEGIN) * rng.random() ** 1.5))
        account.customers.append(customer)
        if rng.random() < 0.1:
            customer.discount = _draw_discount(rng, names, coupons, customer.created)
        main_currency = rng.choice(CURRENCIES)
        for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 2, 3))):
            currency = main_currency if rng.random() < 0.9 else rng.choice(CURRENCIES)
            pool = [p for p in prices if p.currency == currency]
            subscription = _draw_subscription(rng, names, customer, currency, pool, coupons)
            account.subscriptions.append(subscription)
            _draw_invoices(rng, names, subscription)
    return account


class _Names:
    """Ids that count on per prefix."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def __call__(self, prefix: str) -> str:
        self._last[prefix] = self._last.get(prefix, 0) + 1
        return f"{prefix}_{self._last[prefix]:06d}"


_UNITS = tuple(
    Decimal(unit)
    for unit in (
        *("0", "1", "7", "999", "3000", "6000", "10000", "118800", "0.004", "1.5"),
        *("333.333333333333", "100000000000", "1234.5"),
    )
)
_INTERVALS = (
    *[("month", 1)] * 8,
    ("year", 1),
    ("year", 1),
    ("week", 1),
    ("week", 2),
    ("day", 1),
    ("day", 90),
    ("month", 3),
    ("month", 6),
    ("year", 2),
)


def _draw_prices(rng: random.Random) -> list[Price]:
    prices = []
    for n in range(60):
        interval, count = rng.choice(_INTERVALS)
        price = Price(
            f"price_{n:03d}",
            f"prod_{n % 9}",
            CURRENCIES[n % 3],
            rng.choice(_UNITS),
            interval,
            count,
        )
        kind = rng.random()
        if kind < 0.08:
            price = replace(price, metered=True)
        elif kind < 0.12:
            price = replace(price, interval=None)
        elif kind < 0.24:
            tiers = (
                Tier(5, Decimal(1000), 0),
                Tier(20, Decimal("800.5"), 700),
                Tier(None, Decimal(500), 0 if rng.random() < 0.5 else 99),
            )
            mode = rng.choice(("graduated", "volume"))
            price = replace(price, unit=None, tiers=tiers, tiers_mode=mode)
        elif kind < 0.32:
            price = replace(price, divide_by=rng.choice((3, 10)), round=rng.choice(("up", "down")))
        prices.append(price)
    return prices


def _draw_coupons(rng: random.Random, prices: list[Price]) -> list[Coupon]:
    coupons = []
    for n in range(24):
        products: tuple[str, ...] = ()
        if rng.random() < 0.25:
            products = tuple(sorted({p.product for p in rng.sample(prices, 4)}))
        duration = rng.choice(("once", "repeating", "forever", "forever"))
        if rng.random() < 0.5:
            percent = Decimal(rng.choice(("10", "12.5", "33.33", "50", "100")))
            coupons.append(Coupon(f"coupon_{n}", percent, None, None, duration, products))
        else:
            amount = rng.choice((1, 500, 2500, 10**7))
            currency = rng.choice(CURRENCIES)
            coupons.append(Coupon(f"coupon_{n}", None, amount, currency, duration, products))
    return coupons


def _draw_discount(
    rng: random.Random, names: _Names, coupons: list[Coupon], start: int
) -> Discount:
    coupon = rng.choice(coupons)
    end = None
    if coupon.duration == "repeating":
        end = start + rng.choice((20, 61, 92, 365)) * DAY
    return Discount(names("di"), coupon, start, end)


def _draw_item(
    rng: random.Random, names: _Names, pool: list[Price], coupons: list[Coupon], at: int
) -> Item:
    price = rng.choice(pool)
    discounts: tuple[Discount, ...] = ()
    if rng.random() < 0.06:
        discounts = (_draw_discount(rng, names, coupons, at),)
    return Item(names("si"), price, _draw_quantity(rng, price), discounts, at)


def _draw_quantity(rng: random.Random, price: Price) -> int | None:
    if price.metered:
        return None
    return rng.choice((1, 1, 1, 1, 1, 2, 3, 5, 7, 20, 21, 1000, 0, None))


def month_of(second: int, zone: tzinfo = timezone.utc) -> Month:
    """Return the year and month of a Unix second in a time zone."""
    moment = datetime.fromtimestamp(second, zone)
    return moment.year, moment.month


def month_start(month: Month, zone: tzinfo = timezone.utc) -> int:
    """Return the Unix second at which a month begins in a time zone."""
    return int(datetime(*month, 1, tzinfo=zone).timestamp())


def month_after(month: Month) -> Month:
    """Return the month that follows."""
    return (month[0], month[1] + 1) if month[1] < 12 else (month[0] + 1, 1)


def day_of(second: int, zone: tzinfo = timezone.utc) -> date:
    """Return the day of a Unix second in a time zone."""
    return datetime.fromtimestamp(second, zone).date()


def utc_time(second: int) -> datetime:
    """Return a Unix second as models show it: UTC without a zone."""
    return datetime.fromtimestamp(second, timezone.utc).replace(tzinfo=None)


def _next_month(second: int) -> int:
    return month_start(month_after(month_of(second)))


def _draw_subscription(
    rng: random.Random,
    names: _Names,
    customer: Customer,
    currency: str,
    pool: list[Price],
    coupons: list[Coupon],
) -> Subscription:
    created = customer.created + int((AS_OF - customer.created) * rng.random() ** 3)
    if rng.random() < 0.15:
        created = min(_next_month(created), AS_OF - 1)
    start_date = created - 40 * DAY if rng.random() < 0.04 else created
    items = tuple(
        _draw_item(rng, names, pool, coupons, created) for _ in range(rng.choice((1, 1, 1, 2, 3)))
    )
    status = rng.choice(("active",) * 7 + ("trialing",) * 3 + ("incomplete",))
    state = State(created, status, items)
    if status == "trialing":
        state = replace(
            state, trial_start=created, trial_end=created + rng.choice((3, 7, 14, 30)) * DAY
        )
    if rng.random() < 0.12:
        state = replace(state, discounts=(_draw_discount(rng, names, coupons, created),))
    states = [state]
    step = _Step(rng, names, pool, coupons)
    for _ in range(rng.choice((0, 1, 2, 3, 4, 6, 9))):
        since = _draw_moment(rng, states[-1])
        if since >= AS_OF:
            break
        following = step.after(replace(states[-1], since=since))
        if following is None:
            break
        states.append(following)
    sends = rng.random() < 0.2
    return Subscription(
        names("sub"),
        customer.id,
        currency,
        created,
        start_date,
        states,
        collection="send_invoice" if sends else "charge_automatically",
    )


def _draw_moment(rng: random.Random, state: State) -> int:
    if state.status == "trialing" and state.trial_end and rng.random() < 0.7:
        return max(state.since, state.trial_end)
    if state.cancel_at is not None and rng.random() < 0.8:
        return max(state.since, state.cancel_at)
    kind = rng.random()
    if kind < 0.15:
        return state.since
    if kind < 0.3:
        return _next_month(state.since)
    return (
        state.since + rng.choice((1, HOUR, DAY, 9 * DAY, 31 * DAY, 70 * DAY)) + rng.randint(0, DAY)
    )


class _Step:
    """Draws what happens to a subscription next."""

    def __init__(
        self, rng: random.Random, names: _Names, pool: list[Price], coupons: list[Coupon]
    ) -> None:
        self._rng, self._names, self._pool, self._coupons = rng, names, pool, coupons

    def after(self, state: State) -> State | None:
        """Return the next state, which begins at `state.since`; None at the end of a life."""
        rng = self._rng
        if state.status in ("canceled", "incomplete_expired"):
            return None
        if state.cancel_at is not None and state.since >= state.cancel_at:
            return self._cancel(state)
        if state.status == "trialing":
            return self._after_trial(state)
        if state.status == "incomplete":
            return replace(state, status=rng.choice(("active", "incomplete_expired")))
        if state.status == "paused":
            return replace(state, status="active") if rng.random() < 0.7 else self._cancel(state)
        if state.status == "unpaid":
            return replace(state, status="active") if rng.random() < 0.5 else self._cancel(state)
        if state.status == "past_due" and rng.random() < 0.7:
            kind = rng.choice(("active", "unpaid", "canceled"))
            if kind == "canceled":
                return replace(self._cancel(state), reason="payment_failed")
            return replace(state, status=kind)
        return self._change(state)

    def _cancel(self, state: State) -> State:
        rng = self._rng
        return replace(
            state,
            status="canceled",
            canceled_at=state.canceled_at or state.since,
            ended_at=state.since - rng.choice((0, 0, 0, 3)),
            reason=rng.choice(
                ("cancellation_requested", "payment_failed", "payment_disputed", None)
            ),
            feedback=rng.choice(("too_expensive", "unused", None)),
        )

    def _after_trial(self, state: State) -> State:
        rng = self._rng
        assert state.trial_end is not None
        if state.since < state.trial_end:
            if rng.random() < 0.4:
                return self._cancel(state)
            if rng.random() < 0.5:
                return replace(state, trial_end=state.trial_end + 7 * DAY)
            return replace(state, status="active", trial_end=state.since)
        kind = rng.random()
        if kind < 0.15:
            return replace(state, status="paused")
        if kind < 0.25:
            return self._cancel(state)
        return replace(state, status="active" if kind < 0.9 else "past_due")

    def _change(self, state: State) -> State:
        changes: tuple[Callable[[State], State], ...] = (
            self._add_item,
            self._remove_item,
            self._replace_item,
            self._swap_price,
            self._swap_price,
            self._swap_quantity,
            self._swap_quantity,
            self._swap_discount,
            lambda s: replace(s, status="past_due"),
            lambda s: replace(s, paused_collection="void" if not s.paused_collection else None),
            self._schedule_end,
            self._cancel,
            self._retain,
        )
        return self._rng.choice(changes)(state)

    def _add_item(self, state: State) -> State:
        item = _draw_item(self._rng, self._names, self._pool, self._coupons, state.since)
        return replace(state, items=(*state.items, item))

    def _remove_item(self, state: State) -> State:
        if len(state.items) == 1:
            return self._add_item(state)
        gone = self._rng.choice(state.items)
        return replace(state, items=tuple(item for item in state.items if item is not gone))

    def _replace_item(self, state: State) -> State:
        item = _draw_item(self._rng, self._names, self._pool, self._coupons, state.since)
        return replace(state, items=(*state.items[:-1], item))

    def _swap_price(self, state: State) -> State:
        price = self._rng.choice(self._pool)
        last = replace(state.items[-1], price=price, quantity=_draw_quantity(self._rng, price))
        return replace(state, items=(*state.items[:-1], last))

    def _swap_quantity(self, state: State) -> State:
        quantity = _draw_quantity(self._rng, state.items[0].price)
        return replace(state, items=(replace(state.items[0], quantity=quantity), *state.items[1:]))

    def _swap_discount(self, state: State) -> State:
        if state.discounts and self._rng.random() < 0.4:
            return replace(state, discounts=state.discounts[:-1])
        discount = _draw_discount(self._rng, self._names, self._coupons, state.since)
        return replace(state, discounts=(*state.discounts, discount))

    def _schedule_end(self, state: State) -> State:
        if state.cancel_at is not None:
            return replace(state, cancel_at=None, canceled_at=None, cancel_at_period_end=False)
        return replace(
            state,
            cancel_at=state.since + self._rng.choice((1, 12, 30)) * DAY,
            canceled_at=state.since,
            cancel_at_period_end=True,
        )

    def _retain(self, state: State) -> State:
        return replace(
            state, status="trialing", trial_start=state.since, trial_end=state.since + 30 * DAY
        )


# Amounts of prices, in minor units


def half_up(value: Fraction) -> int:
    """Round to a whole number, halves away from zero."""
    part, whole = abs(value.numerator), value.denominator
    magnitude = (2 * part + whole) // (2 * whole)
    return magnitude if value >= 0 else -magnitude


def units_of(quantity: int | None) -> int:
    """Return how many units are billed: one without a quantity."""
    return 1 if quantity is None else quantity


@cache
def billed_amount(price: Price, quantity: int | None) -> int:
    """Return what Stripe bills for an item per period; 0 for a metered price. Without a quantity
    one unit is billed.
    """
    if price.metered:
        return 0
    units = units_of(quantity)
    if price.divide_by > 1:
        whole, rest = divmod(units, price.divide_by)
        units = whole + (1 if rest and price.round == "up" else 0)
    if price.tiers:
        return half_up(_tiered(price, units))
    assert price.unit is not None
    return half_up(Fraction(price.unit) * units)


def _tiered(price: Price, units: int) -> Fraction:
    total, below = Fraction(0), 0
    for tier in price.tiers:
        inside = tier.up_to is None or units <= tier.up_to
        if price.tiers_mode == "volume":
            if inside:
                return Fraction(tier.unit) * units + tier.flat if units else Fraction(0)
            continue
        upper = units if inside else tier.up_to
        assert upper is not None
        if upper > below:
            total += Fraction(tier.unit) * (upper - below) + tier.flat
        if inside:
            return total
        below = upper
    raise AssertionError("the last tier has no end")


# Invoices


def _draw_invoices(rng: random.Random, names: _Names, subscription: Subscription) -> None:
    if rng.random() < 0.1:
        return
    for start, end in pairwise(subscription.period_starts):
        state = state_at(subscription, start)
        if state is None or state.ended_at is not None:
            return
        if state.status == "trialing":
            subscription.invoices.append(_free_invoice(names("in"), subscription, start))
        elif state.status in ("active", "past_due", "incomplete"):
            lines = tuple(_draw_lines(rng, names, state, start, end))
            subscription.invoices.append(_draw_invoice(rng, names, subscription, lines, start))


def _free_invoice(name: str, subscription: Subscription, created: int) -> Invoice:
    return Invoice(
        name,
        subscription.customer,
        subscription.id,
        subscription.currency,
        created,
        "paid",
        subscription.collection,
        (),
        0,
        0,
        finalized_at=created,
        paid_at=created,
    )


def _draw_lines(
    rng: random.Random,
    names: _Names,
    state: State,
    start: int,
    end: int,
) -> Iterator[Line]:
    for item in state.items:
        if item.price.interval is None:
            continue
        amount = billed_amount(item.price, item.quantity)
        yield Line(
            names("il"),
            item.id,
            item.price,
            item.quantity,
            amount,
            start,
            end,
            proration=False,
            discount=amount // 7 if rng.random() < 0.2 else 0,
            tax=amount // 11 if rng.random() < 0.2 else 0,
        )
        if rng.random() < 0.08:
            moment = start - rng.randint(1, 20) * DAY
            yield Line(
                names("il"), item.id, item.price, 1, rng.randint(-900, 900), moment, start,
                proration=True,
            )  # fmt: skip


def _draw_invoice(
    rng: random.Random,
    names: _Names,
    subscription: Subscription,
    lines: tuple[Line, ...],
    created: int,
) -> Invoice:
    total = sum(line.amount for line in lines)
    status = rng.choice(("paid",) * 12 + ("open",) * 3 + ("void", "uncollectible", "draft"))
    if total <= 0:
        status = "paid"
    finalized: int | None = created + (rng.choice((0, 0, HOUR)) if total > 0 else 0)
    assert finalized is not None
    if finalized >= AS_OF:
        status = "draft"
    if status == "draft":
        finalized = None
    attempts = 0
    if subscription.collection == "charge_automatically" and finalized is not None and total > 0:
        attempts = rng.choice((1, 1, 1, 1, 2, 3, 4)) if status != "void" else rng.choice((0, 1))
    paid_at = None
    if status == "paid":
        assert finalized is not None
        paid_at = finalized if attempts <= 1 else finalized + (attempts - 1) * 3 * DAY
        if paid_at >= AS_OF:
            paid_at, status = None, "open"
    paid = max(total, 0) if status == "paid" else 0
    credited = 0
    if status == "open" and rng.random() < 0.3:
        paid = rng.randint(0, total)
    elif status == "open" and rng.random() < 0.2:
        credited = rng.randint(0, total - 1)
    due = None
    if subscription.collection == "send_invoice" and finalized is not None:
        due = finalized + rng.choice((0, 7, 30, 90)) * DAY
    retry = AS_OF + 2 * DAY if status == "open" and attempts in (1, 2) else None
    return Invoice(
        names("in"), subscription.customer, subscription.id, subscription.currency, created,
        status, subscription.collection, lines, total, paid,
        finalized_at=finalized, paid_at=paid_at, due_date=due, next_attempt=retry,
        attempts=attempts, credited=credited,
    )  # fmt: skip


def state_at(subscription: Subscription, second: int) -> State | None:
    """Return the state in force at a Unix second: the last one that began by then."""
    found = None
    for state in subscription.states:
        if state.since > second:
            break
        found = state
    return found


def remaining(invoice: Invoice) -> int:
    """Return what is still to pay, in minor units."""
    if invoice.status == "paid":
        return 0
    return max(invoice.total - invoice.paid - invoice.credited, 0)


# Raw tables

_BALANCE_TRANSACTION = {
    "id": "text", "created": "timestamp", "available_on": "timestamp", "type": "text",
    "reporting_category": "text", "status": "text", "currency": "text", "amount": "bigint",
    "fee": "bigint", "net": "bigint", "source": "text", "fee_details": "json",
    "description": "text",
}  # fmt: skip
_OTHER_TABLES: dict[str, dict[str, str]] = {
    "balance_transactions": _BALANCE_TRANSACTION,
    "payout_balance_transactions": {"payout": "text", **_BALANCE_TRANSACTION},
    "_dlt_loads": {"load_id": "text", "status": "bigint", "inserted_at": "timestamp"},
}
"""Columns of tables that are no resources."""


def raw_tables(
    account: Account,
    *,
    shape: Shape = "new",
    shuffled: bool = False,
    doubled: bool = False,
    loads: int = 1,
) -> dict[str, pa.Table]:
    """Return the account as the tables of a copy, `changes` included.

    `shape`: the API version that events and rows have; `shuffled`: whether rows are stored in a random
    order; `doubled`: whether every change is there twice, as an event and as the finding of a
    comparison; `loads`: how many syncs brought the changes, `load_names` tells their ids.
    """
    rows = {
        "customers": [_customer_row(c, shape) for c in account.customers],
        "products": [
            {"id": product, "name": product.replace("_", " "), "active": True, "created": BEGIN}
            for product in sorted({price.product for price in account.prices})
        ],
        "prices": [_price_row(price) for price in account.prices],
        "plans": [_plan_row(price) for price in account.prices if price.interval],
        "subscriptions": [_subscription_row(s, shape) for s in account.subscriptions],
        "subscription_items": [
            _item_row(s, item, shape) for s in account.subscriptions for item in s.states[-1].items
        ],
        "invoices": [_invoice_row(i, shape) for s in account.subscriptions for i in s.invoices],
        "invoice_line_items": [
            _line_row(i, line, shape)
            for s in account.subscriptions
            for i in s.invoices
            for line in i.lines
        ],
        "coupons": [_coupon(coupon) for coupon in account.coupons],
        "discounts": list(_discount_rows(account, shape)),
        "changes": list(_change_rows(account, shape, doubled, loads)),
        "_dlt_loads": [
            {"load_id": name, "status": 0, "inserted_at": AS_OF - HOUR}
            for name in load_names(loads)
        ],
    }
    if shuffled:
        for name in rows:
            random.Random(name).shuffle(rows[name])
    for stored in rows.values():
        for row in stored:
            row.setdefault("_dlt_load_id", load_names(loads)[-1])
    return {name: arrow_table(name, stored) for name, stored in rows.items()}


def arrow_table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Return rows as the table of that name: absent columns are null, JSON values are dumped,
    timestamps are Unix seconds.
    """
    given: set[str] = set().union(*rows)
    columns = {
        field.name: _array(field, rows) if field.name in given else pa.nulls(len(rows), field.type)
        for field in _schema(name)
    }
    return pa.table(columns, schema=_schema(name))


@cache
def _schema(name: str) -> pa.Schema:
    if name == "changes":
        return CHANGE_SCHEMA
    fields = [pa.field(column, ARROW_TYPES[kind]) for column, kind in _kinds(name).items()]
    return pa.schema(fields)


@cache
def _kinds(name: str) -> dict[str, Any]:
    table = TABLES.get(name)
    kinds: dict[str, Any] = dict(_OTHER_TABLES.get(name, {}))
    if table is not None:
        kinds = {column.name: column.kind for column in table.columns}
        for extra in getattr(table, "expandable", ()):
            kinds[extra.column.name] = extra.column.kind
    return kinds | {
        "extra": "json", "account_id": "text", "deleted_at": "timestamp", "_version": "bigint",
        "_hash": "text", "_dlt_load_id": "text",
    }  # fmt: skip


def _array(field: pa.Field, rows: list[dict[str, Any]]) -> pa.Array:
    values = [row.get(field.name) for row in rows]
    if field.type == UTC_TIME:
        return pa.array([None if v is None else v * 1_000_000 for v in values], pa.int64()).cast(
            UTC_TIME
        )
    if pa.types.is_decimal(field.type):
        return pa.array([None if v is None else Decimal(v) for v in values], field.type)
    if pa.types.is_string(field.type):
        values = [v if v is None or isinstance(v, str) else _encode(v) for v in values]
    return pa.array(values, field.type)


def _encode(value: Any) -> str:
    return orjson.dumps(value).decode()


def _customer_row(customer: Customer, shape: Shape) -> dict[str, Any]:
    discount = None
    if customer.discount is not None:
        discount = _discount(customer.discount, shape, customer=customer.id)
    return {
        "id": customer.id,
        "created": customer.created,
        "discount": discount,
        "deleted_at": customer.deleted_at,
        "name": f"Name of {customer.id}",
        "email": f"{customer.id}@example.com",
        "livemode": False,
        "account_id": ACCOUNT,
        "_version": customer.created * 1_000_000,
    }


@cache
def _price_json(price: Price) -> dict[str, Any]:
    recurring = None
    if price.interval is not None:
        recurring = {
            "interval": price.interval,
            "interval_count": price.interval_count,
            "usage_type": "metered" if price.metered else "licensed",
        }
    whole = price.unit is not None and price.unit == price.unit.to_integral_value()
    return {
        "id": price.id,
        "object": "price",
        "product": price.product,
        "active": True,
        "currency": price.currency,
        "type": "recurring" if recurring else "one_time",
        "recurring": recurring,
        "billing_scheme": "tiered" if price.tiers else "per_unit",
        "tiers_mode": price.tiers_mode or None,
        "unit_amount": int(price.unit) if whole and price.unit is not None else None,
        "unit_amount_decimal": None if price.unit is None else f"{price.unit:f}",
        "transform_quantity": {"divide_by": price.divide_by, "round": price.round}
        if price.divide_by > 1
        else None,
        "created": BEGIN,
    }


def _price_row(price: Price) -> dict[str, Any]:
    tiers = [
        {
            "up_to": tier.up_to,
            "unit_amount": None,
            "unit_amount_decimal": f"{tier.unit:f}",
            "flat_amount": tier.flat or None,
            "flat_amount_decimal": str(tier.flat) if tier.flat else None,
        }
        for tier in price.tiers
    ]
    return {**_price_json(price), "tiers": tiers or None, "account_id": ACCOUNT}


def _plan_row(price: Price) -> dict[str, Any]:
    shown = _price_json(price)
    return {
        "id": price.id,
        "object": "plan",
        "product": price.product,
        "active": True,
        "currency": price.currency,
        "amount": shown["unit_amount"],
        "amount_decimal": shown["unit_amount_decimal"],
        "interval": price.interval,
        "interval_count": price.interval_count,
        "billing_scheme": shown["billing_scheme"],
        "tiers_mode": shown["tiers_mode"],
        "usage_type": "metered" if price.metered else "licensed",
        "created": BEGIN,
        "account_id": ACCOUNT,
    }


def _coupon(coupon: Coupon) -> dict[str, Any]:
    return {
        "id": coupon.id,
        "object": "coupon",
        "percent_off": None if coupon.percent is None else float(coupon.percent),
        "amount_off": coupon.amount,
        "currency": coupon.currency,
        "duration": coupon.duration,
        "duration_in_months": 3 if coupon.duration == "repeating" else None,
        "applies_to": {"products": list(coupon.products)} if coupon.products else None,
        "created": BEGIN,
        "account_id": ACCOUNT,
    }


def _discount(discount: Discount, shape: Shape, **owner: str) -> dict[str, Any]:
    shown = {
        "id": discount.id,
        "object": "discount",
        "start": discount.start,
        "end": discount.end,
        **owner,
    }
    if shape == "old":
        return shown | {"coupon": _coupon(discount.coupon)}
    return shown | {"source": {"type": "coupon", "coupon": discount.coupon.id}}


def _discount_rows(account: Account, shape: Shape) -> Iterator[dict[str, Any]]:
    seen = set()
    for subscription in account.subscriptions:
        for state in subscription.states:
            owned = [(d, None) for d in state.discounts] + [
                (d, item.id) for item in state.items for d in item.discounts
            ]
            for discount, item_id in owned:
                if discount.id in seen:
                    continue
                seen.add(discount.id)
                row = _discount(discount, shape, customer=subscription.customer)
                row |= {"subscription": subscription.id, "subscription_item": item_id}
                if shape == "old":
                    row["extra"] = {"coupon": row.pop("coupon")}
                yield row | {"account_id": ACCOUNT}


def _item_json(
    item: Item, shape: Shape, subscription: Subscription, period: tuple[int, int]
) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": item.id,
        "object": "subscription_item",
        "created": item.created or subscription.created,
        "subscription": subscription.id,
        "price": _price_json(item.price),
        "discounts": [discount.id for discount in item.discounts],
    }
    if item.quantity is not None:
        shown["quantity"] = item.quantity
    if shape == "new":
        shown |= {"current_period_start": period[0], "current_period_end": period[1]}
    return shown


def _subscription_json(
    subscription: Subscription, state: State, shape: Shape, second: int
) -> dict[str, Any]:
    """The subscription in a state, with the billing period that it is in at a Unix second."""
    period = subscription.period_at(second)
    details = {"reason": state.reason, "feedback": state.feedback, "comment": None}
    shown = {
        "id": subscription.id,
        "object": "subscription",
        "customer": subscription.customer,
        "currency": subscription.currency,
        "created": subscription.created,
        "start_date": subscription.start_date,
        "collection_method": subscription.collection,
        "status": state.status,
        "items": {
            "object": "list",
            "has_more": len(state.items) > 10,
            "data": [_item_json(item, shape, subscription, period) for item in state.items[:10]],
        },
        "discounts": [discount.id for discount in state.discounts],
        "trial_start": state.trial_start,
        "trial_end": state.trial_end,
        "canceled_at": state.canceled_at,
        "cancel_at": state.cancel_at,
        "cancel_at_period_end": state.cancel_at_period_end,
        "ended_at": state.ended_at,
        "cancellation_details": details,
        "pause_collection": {"behavior": state.paused_collection, "resumes_at": None}
        if state.paused_collection
        else None,
        "livemode": False,
    }
    if shape == "old":
        shown |= {"current_period_start": period[0], "current_period_end": period[1]}
    return shown


def _subscription_row(subscription: Subscription, shape: Shape) -> dict[str, Any]:
    row = _subscription_json(subscription, subscription.states[-1], shape, AS_OF)
    del row["items"]
    if shape == "old":
        names = ("current_period_start", "current_period_end")
        row["extra"] = {name: row.pop(name) for name in names}
    return row | {"account_id": ACCOUNT, "_version": subscription.states[-1].since * 1_000_000}


def _item_row(subscription: Subscription, item: Item, shape: Shape) -> dict[str, Any]:
    shown = _item_json(item, shape, subscription, subscription.period_at(AS_OF))
    return shown | {"account_id": ACCOUNT}


def _invoice_row(invoice: Invoice, shape: Shape) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": invoice.id,
        "object": "invoice",
        "customer": invoice.customer,
        "created": invoice.created,
        "status": invoice.status,
        "status_transitions": {
            "finalized_at": invoice.finalized_at,
            "paid_at": invoice.paid_at,
            "voided_at": invoice.created if invoice.status == "void" else None,
            "marked_uncollectible_at": None,
        },
        "collection_method": invoice.collection,
        "billing_reason": "subscription_cycle",
        "currency": invoice.currency,
        "subtotal": invoice.total,
        "subtotal_excluding_tax": invoice.total,
        "total": invoice.total,
        "total_excluding_tax": invoice.total,
        "amount_due": max(invoice.total, 0),
        "amount_paid": invoice.paid,
        "amount_remaining": remaining(invoice),
        "pre_payment_credit_notes_amount": invoice.credited,
        "post_payment_credit_notes_amount": 0,
        "due_date": invoice.due_date,
        "next_payment_attempt": invoice.next_attempt,
        "attempted": invoice.attempts > 0,
        "attempt_count": invoice.attempts,
        "livemode": False,
        "account_id": ACCOUNT,
        "_version": invoice.created * 1_000_000,
    }
    if shape == "old":
        row["extra"] = {"subscription": invoice.subscription, "paid": invoice.status == "paid"}
    elif invoice.subscription:
        row["parent"] = {
            "type": "subscription_details",
            "subscription_details": {"subscription": invoice.subscription},
        }
    return row


def _line_row(invoice: Invoice, line: Line, shape: Shape) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": line.id,
        "object": "line_item",
        "invoice": invoice.id,
        "subscription": invoice.subscription,
        "currency": invoice.currency,
        "amount": line.amount,
        "subtotal": line.amount,
        "quantity": line.quantity,
        "period": {"start": line.start, "end": line.end},
        "discount_amounts": [{"amount": line.discount, "discount": "di_1"}]
        if line.discount
        else [],
        "account_id": ACCOUNT,
    }
    if shape == "old":
        row["extra"] = {
            "price": _price_json(line.price),
            "proration": line.proration,
            "subscription_item": line.item,
            "type": "subscription",
            "tax_amounts": [
                {"amount": line.tax, "inclusive": True},
                {"amount": line.amount // 5, "inclusive": False},
            ],
        }
        return row
    return row | {
        "taxes": [
            {"amount": line.tax, "tax_behavior": "inclusive"},
            {"amount": line.amount // 5, "tax_behavior": "exclusive"},
        ],
        "pricing": {
            "type": "price_details",
            "price_details": {"price": line.price.id, "product": line.price.product},
        },
        "parent": {
            "type": "subscription_item_details",
            "subscription_item_details": {
                "subscription": invoice.subscription,
                "subscription_item": line.item,
                "proration": line.proration,
            },
        },
    }


def load_names(loads: int) -> list[str]:
    """Return the ids of the loads that brought an account, in order."""
    return [f"1795000000.{number:06d}" for number in range(loads)]


def _change_rows(
    account: Account, shape: Shape, doubled: bool, loads: int
) -> Iterator[dict[str, Any]]:
    transitions = sorted(
        (
            (state.since, number, subscription)
            for subscription in account.subscriptions
            for number, state in enumerate(subscription.states)
            if account.is_change(state)
        ),
        key=lambda found: (found[0], found[2].id, found[1]),
    )
    per_load = -(-len(transitions) // loads) or 1
    for place, (_, number, subscription) in enumerate(transitions):
        row = _change_row(subscription, number, shape) | {
            "seq": 2 * (place % per_load),
            "_dlt_load_id": load_names(loads)[place // per_load],
        }
        yield row
        if doubled:
            name = f"chg_{subscription.id}_{number:04d}"
            yield row | {
                "change_id": name,
                "origin": "diff",
                "event_id": None,
                "seq": row["seq"] + 1,
            }


def _change_row(subscription: Subscription, number: int, shape: Shape) -> dict[str, Any]:
    state = subscription.states[number]
    after = _subscription_json(subscription, state, shape, state.since)
    previous: dict[str, Any] | None = None
    if number:
        earlier = subscription.states[number - 1]
        moment = max(state.since - 1, earlier.since)
        before = _subscription_json(subscription, earlier, shape, moment)
        previous = {key: value for key, value in before.items() if value != after[key]}
    return {
        "change_id": f"evt_{subscription.id}_{number:04d}",
        "resource": "subscriptions",
        "object_id": subscription.id,
        "customer_id": subscription.customer,
        "op": "u" if number else "c",
        "origin": "event",
        "event_type": f"customer.subscription.{'updated' if number else 'created'}",
        "event_id": f"evt_{subscription.id}_{number:04d}",
        "occurred_at": state.since,
        "observed_at": state.since,
        "after": after,
        "previous": previous,
        "before_quality": "exact" if number else "none",
        "changed": sorted(previous or ()),
        "late": False,
        "account_id": ACCOUNT,
        "livemode": False,
    }


def new_connection(tables: Mapping[str, pa.Table], schema: str = "stripe") -> Any:
    """Return an in-memory DuckDB that holds the tables in that schema."""
    import duckdb

    connection = duckdb.connect(":memory:", config={"threads": 2})
    connection.execute(f"create schema {schema}")
    for name, table in tables.items():
        connection.register("incoming", table)
        types = [
            f"cast({column} as json) as {column}" if kind == "json" else column
            for column, kind in _json_columns(name, table)
        ]
        connection.execute(
            f"create table {schema}.{name} as select {', '.join(types)} from incoming"
        )
        connection.unregister("incoming")
    return connection


def _json_columns(name: str, table: pa.Table) -> Iterable[tuple[str, str]]:
    kinds = (
        {"after": "json", "previous": "json", "changed": "json"}
        if name == "changes"
        else (_kinds(name))
    )
    for column in table.column_names:
        yield f'"{column}"', kinds.get(column, "")
