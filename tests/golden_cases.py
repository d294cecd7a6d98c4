"""Cases whose answer somebody else has published: Stripe's glossary and support pages, and what
other tools say of the same life. Each is a customer of its own, in a currency where it matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from decimal import Decimal

from .timelines import (
    Account,
    Coupon,
    Customer,
    Discount,
    Invoice,
    Item,
    Price,
    State,
    Subscription,
    Tier,
)

Month = tuple[int, int]


def second_of(text: str) -> int:
    """Return the Unix second of a UTC day, or of a day and time: `2026-09-10 12:30`."""
    form = "%Y-%m-%d %H:%M" if " " in text else "%Y-%m-%d"
    return int(datetime.strptime(text, form).replace(tzinfo=timezone.utc).timestamp())


@dataclass(frozen=True, slots=True)
class Case:
    """A customer's life, and what is published about it: MRR at the end of months, and movements
    (kind, amount) of months, in minor units.
    """

    name: str
    source: str
    lives: tuple[tuple[State, ...], ...]
    mrr: dict[Month, int] = field(default_factory=dict)
    movements: dict[Month, tuple[str, int]] = field(default_factory=dict)
    known_difference: str = ""

    @property
    def customer(self) -> str:
        """Id of the customer that lives it."""
        return f"cus_{self.name}"


def price(
    unit: int | str | None, interval: str | None = "month", count: int = 1, currency: str = "usd"
) -> Price:
    """Return a price whose id says what it is."""
    name = f"price_{unit}_{interval}_{count}_{currency}".replace(".", "_")
    return Price(
        name, f"prod_{interval}", currency, None if unit is None else Decimal(unit), interval, count
    )


def paid(start: str, *items: Item, end: str = "", status: str = "active") -> tuple[State, ...]:
    """Return a life that begins as active and, if `end` is given, is then cancelled."""
    begun = State(second_of(start), status, items)
    if not end:
        return (begun,)
    moment = second_of(end)
    return begun, replace(
        begun, since=moment, status="canceled", canceled_at=moment, ended_at=moment,
        reason="cancellation_requested",
    )  # fmt: skip


def item(
    name: str, of: Price, quantity: int | None = 1, discounts: tuple[Discount, ...] = ()
) -> Item:
    """Return an item."""
    return Item(f"si_{name}", of, quantity, discounts)


MONTHLY, YEARLY = price(3000), price(120000, "year")
TIERED = Price(
    "price_tiered", "prod_tiered", "usd", None, "month",
    tiers=(Tier(1000, Decimal(10), 0), Tier(None, Decimal(5), 0)), tiers_mode="graduated",
)  # fmt: skip
METERED = Price("price_metered", "prod_metered", "usd", Decimal(7), "month", metered=True)
AUG, SEP, OCT, NOV = (2026, 8), (2026, 9), (2026, 10), (2026, 11)


def _trial(start: str, of: Item, end: str) -> State:
    return State(
        second_of(start), "trialing", (of,), trial_start=second_of(start), trial_end=second_of(end)
    )


def _glossary() -> Iterator[Case]:
    """The twelve cases in which dbt_stripe was run; the values are those of Stripe's glossary."""
    source = "Stripe glossary"
    yield Case(
        "renews_in_december", source, (paid("2026-08-05", item("g1", MONTHLY)),), {NOV: 3000}
    )
    yield Case(
        "period_ends_within_november", source, (paid("2026-08-25", item("g2", MONTHLY)),),
        {OCT: 3000, NOV: 3000},
    )  # fmt: skip
    yield Case(
        "trialing_since_november", source,
        ((_trial("2026-11-01", item("g3", MONTHLY), "2026-12-01"),),), {NOV: 0},
    )  # fmt: skip
    yield Case(
        "yearly_cancelled_at_once", source,
        (paid("2026-08-01", item("g4", YEARLY), end="2026-09-10"),),
        {AUG: 10000, SEP: 0, OCT: 0, NOV: 0}, {AUG: ("new", 10000), SEP: ("churn", -10000)},
    )  # fmt: skip
    begun = State(second_of("2026-08-03"), "incomplete", (item("g5", MONTHLY),))
    expired = replace(begun, since=second_of("2026-08-04"), status="incomplete_expired")
    yield Case("incomplete_expired", source, ((begun, expired),), {AUG: 0, SEP: 0, NOV: 0})
    begun = State(second_of("2026-08-03"), "active", (item("g6", MONTHLY),))
    unpaid = replace(begun, since=second_of("2026-09-20"), status="unpaid")
    yield Case("unpaid", source, ((begun, unpaid),), {AUG: 3000, SEP: 0, NOV: 0})
    yield Case("daily", source, (paid("2026-08-03", item("g7", price(100, "day"))),), {NOV: 3042})
    yield Case("metered", source, (paid("2026-08-03", item("g8", METERED, None)),), {NOV: 0})
    yield Case("tiered", source, (paid("2026-08-03", item("g9", TIERED, 250)),), {NOV: 2500})
    yield Case(
        "weekly", source, (paid("2026-08-03", item("g10", price(1000, "week"))),), {NOV: 4333}
    )
    begun = State(second_of("2026-08-03"), "active", (item("g11", MONTHLY),))
    swapped = replace(begun, since=second_of("2026-09-15"), items=(item("g11", price(6000)),))
    yield Case(
        "swap_in_place", source, ((begun, swapped),), {AUG: 3000, SEP: 6000},
        {AUG: ("new", 3000), SEP: ("expansion", 3000)},
    )  # fmt: skip
    begun = State(second_of("2026-08-03"), "active", (item("g12", MONTHLY),))
    replaced = replace(begun, since=second_of("2026-09-15"), items=(item("g12b", price(6000)),))
    yield Case(
        "swap_by_replacing_the_item", source, ((begun, replaced),), {AUG: 3000, SEP: 6000},
        {AUG: ("new", 3000), SEP: ("expansion", 3000)},
    )  # fmt: skip


def _percent(name: str, percent: int, duration: str, start: str) -> Discount:
    coupon = Coupon(f"coupon_{name}", Decimal(percent), None, None, duration)
    return Discount(f"di_{name}", coupon, second_of(start), None)


def _worked_examples() -> Iterator[Case]:
    """Worked examples of public documents; the source says whose."""
    stripe, chartmogul, profitable = "Stripe support", "ChartMogul", "profitable's tests"
    hundred = price(100_00, currency="aed")
    sixhundred = price(600_00, "year", currency="aed")
    yield Case(
        "example_1", "Stripe glossary (600, not the 800 that its formula prints)",
        tuple(paid("2026-08-03", item(f"w1_{n}", hundred)) for n in range(100))
        + tuple(paid("2026-08-03", item(f"w1y_{n}", sixhundred)) for n in range(50)),
        {NOV: 12_500_00},
    )  # fmt: skip
    yield Case(
        "example_2",
        stripe,
        (paid("2026-08-03", item("w2", price(1200_00, "year"))),),
        {NOV: 100_00},
    )
    forever = _percent("forever", 50, "forever", "2026-08-03")
    once = _percent("once", 50, "once", "2026-08-03")
    begun = State(second_of("2026-08-03"), "active", (item("w3", price(100_00)),), (forever,))
    yield Case("example_3_forever", stripe, ((begun,),), {NOV: 50_00})
    begun = State(second_of("2026-08-03"), "active", (item("w3o", price(100_00)),), (once,))
    yield Case("example_3_once", stripe, ((begun,),), {NOV: 100_00})
    yield Case(
        "example_4", stripe,
        (
            paid("2026-08-03", item("w4a", price(100_00)), end="2026-09-10"),
            paid("2026-08-03", item("w4b", price(50_00)), end="2026-10-10"),
        ),
        {AUG: 150_00, SEP: 50_00, OCT: 0},
        {AUG: ("new", 150_00), SEP: ("contraction", -100_00), OCT: ("churn", -50_00)},
    )  # fmt: skip
    trial = _trial("2026-08-01", item("w6", price(100_00)), "2026-08-15")
    active = replace(trial, since=second_of("2026-08-15"), status="active")
    yield Case("example_6_unpaid", stripe, ((trial, active),), {AUG: 100_00, NOV: 100_00})
    trial = _trial("2026-08-01", item("w6p", price(100_00)), "2026-08-15")
    active = replace(trial, since=second_of("2026-08-15"), status="active")
    gone = replace(
        active, since=second_of("2026-08-16"), status="canceled",
        canceled_at=second_of("2026-08-16"), ended_at=second_of("2026-08-16"),
    )  # fmt: skip
    yield Case("example_6_paid_then_cancelled", stripe, ((trial, active, gone),), {AUG: 0})
    yield Case(
        "examples_7_to_11", chartmogul,
        (
            paid("2025-06-10", item("w7", price(500_00, "year"), 4), end="2026-06-10"),
            paid("2025-07-14", item("w8", price(30_00), 2), end="2025-09-20"),
            paid("2026-08-01", item("w11", price(50_00), 3)),
        ),
        {(2025, 6): 166_67, (2025, 7): 226_67, (2025, 9): 166_67, (2026, 5): 166_67, (2026, 6): 0, AUG: 150_00},
        {
            (2025, 6): ("new", 166_67), (2025, 7): ("expansion", 60_00),
            (2025, 9): ("contraction", -60_00), (2026, 6): ("churn", -166_67),
            AUG: ("reactivation", 150_00),
        },
    )  # fmt: skip
    yield Case(
        "example_14", "ProfitWell", (paid("2026-09-03", item("w14", MONTHLY), end="2026-09-20"),),
        {SEP: 0, OCT: 0},
    )  # fmt: skip
    for name, unit, interval, count in (
        ("year", 118800, "year", 1),
        ("quarter", 29700, "month", 3),
        ("half_year", 59400, "month", 6),
        ("two_years", 237600, "year", 2),
    ):
        of = price(unit, interval, count)
        yield Case(
            f"example_16_{name}",
            profitable,
            (paid("2026-08-03", item(f"w16{name}", of)),),
            {NOV: 9900},
        )
    yield Case(
        "example_17_seats",
        profitable,
        (paid("2026-08-03", item("w17", price(12000, "year"), 3)),),
        {NOV: 3000},
    )
    several = (item("w17a", price(5000)), item("w17b", price(2000)), item("w17c", price(1000), 3))
    yield Case("example_17_items", profitable, (paid("2026-08-03", *several),), {NOV: 10000})
    yield Case(
        "example_17_both", profitable,
        (
            paid("2026-08-03", item("w17d", price(5000))),
            paid("2026-08-03", item("w17e", price(12000, "year"))),
        ),
        {NOV: 6000},
    )  # fmt: skip
    for name, unit, quantity, expected in (
        ("year", 10000, 1, 833), ("small", 1000, 1, 83), ("no_quantity", 12, None, 1),
    ):  # fmt: skip
        of = price(unit, "year")
        yield Case(
            f"example_18_{name}",
            profitable,
            (paid("2026-08-03", item(f"w18{name}", of, quantity)),),
            {NOV: expected},
        )
    for name, unit, interval, theirs, ours in (
        ("week", 2500, "week", 10000, 10833),
        ("day", 1000, "day", 30000, 30417),
    ):
        yield Case(
            f"example_19_{name}", profitable,
            (paid("2026-08-03", item(f"w19{name}", price(unit, interval))),), {NOV: ours},
            known_difference=f"{theirs} there: four weeks, thirty days; ours: 52 / 12, 365 / 12",
        )  # fmt: skip
    for name, unit, interval, count, expected in (
        ("quarter", 300_00, "month", 3, 100_00),
        ("two_years", 1200_00, "year", 2, 50_00),
        ("week", 100_00, "week", 1, 433_33),
    ):
        of = price(unit, interval, count)
        yield Case(
            f"example_20_{name}", "a public test with 52 / 12",
            (paid("2026-08-03", item(f"w20{name}", of)),), {NOV: expected},
        )  # fmt: skip
    yield Case(
        "example_21", "dbt_stripe DECISIONLOG",
        (paid("2026-01-15", item("w21", MONTHLY), end="2026-06-15"),),
        {(2026, 5): 3000, (2026, 6): 0}, {(2026, 6): ("churn", -3000)},
        known_difference="ours churns when the subscription has ended, theirs when a period ends",
    )  # fmt: skip


def _rates() -> Iterator[Case]:
    """Examples that speak of a whole month: each has a currency of its own."""
    begin, middle = "2026-08-03", "2026-10-10"
    yield Case(
        "example_12_stays", "ChartMogul", (paid(begin, item("w12a", price(60, currency="bob"))),)
    )
    yield Case(
        "example_12_goes",
        "ChartMogul",
        (paid(begin, item("w12b", price(10, currency="bob")), end=middle),),
    )
    for name, after in (("shrinks", 0), ("grows", 20)):
        begun = State(second_of(begin), "active", (item(f"w12{name}", price(10, currency="bob")),))
        begun = replace(begun, items=(replace(begun.items[0], quantity=1),))
        if name == "shrinks":
            begun = replace(begun, items=(*begun.items, item("w12x", price(10, currency="bob"))))
            later = replace(begun, since=second_of(middle), items=begun.items[:1])
        else:
            later = replace(
                begun,
                since=second_of(middle),
                items=(replace(begun.items[0], quantity=after // 10),),
            )
        yield Case(f"example_12_{name}", "ChartMogul", ((begun, later),))
    begun = State(second_of(begin), "active", (item("w13", price(500, currency="cop")),))
    grown = replace(
        begun, since=second_of("2026-10-05"), items=(item("w13", price(1379, currency="cop")),)
    )
    gone = replace(
        grown, since=second_of("2026-10-20"), status="canceled",
        canceled_at=second_of("2026-10-20"), ended_at=second_of("2026-10-20"),
    )  # fmt: skip
    yield Case(
        "example_13",
        "Baremetrics",
        ((begun, grown, gone),),
        {SEP: 500, OCT: 0},
        {OCT: ("churn", -500)},
    )
    begun = State(second_of(begin), "active", (item("w15", price(22000, currency="dkk")),))
    sold = replace(
        begun, since=second_of(middle), items=(item("w15", price(30000, currency="dkk")),)
    )
    yield Case("example_15_upsell", "ChurnZero", ((begun, sold),))
    yield Case(
        "example_15_lost",
        "ChurnZero",
        (paid(begin, item("w15b", price(5000, currency="dkk")), end=middle),),
    )


CASES: tuple[Case, ...] = (*_glossary(), *_worked_examples(), *_rates())


def golden_account() -> Account:
    """Return an account with every case, and the invoices that the cases about trials speak of."""
    account = Account("observed", [], [], [], [])
    prices: dict[str, Price] = {}
    coupons: dict[str, Coupon] = {}
    for case in CASES:
        begun = min(life[0].since for life in case.lives)
        account.customers.append(Customer(case.customer, begun))
        for number, life in enumerate(case.lives):
            account.subscriptions.append(_subscription(case, number, life))
            for state in life:
                prices |= {item.price.id: item.price for item in state.items}
                coupons |= {d.coupon.id: d.coupon for d in state.discounts}
    account.prices += prices.values()
    account.coupons += coupons.values()
    return account


def _subscription(case: Case, number: int, life: tuple[State, ...]) -> Subscription:
    since = life[0].since
    subscription = Subscription(
        f"sub_{case.name}_{number}",
        case.customer,
        life[0].items[0].price.currency,
        since,
        since,
        list(life),
    )
    if case.name.startswith("example_6"):
        status = "paid" if "paid_then" in case.name else "open"
        moment = second_of("2026-08-15")
        subscription.invoices.append(
            Invoice(
                f"in_{case.name}",
                case.customer,
                subscription.id,
                "usd",
                moment,
                status,
                "charge_automatically",
                (),
                100_00,
                100_00 if status == "paid" else 0,
                finalized_at=moment,
                paid_at=moment if status == "paid" else None,
                attempts=1,
            )
        )
    return subscription
