"""An account with a past, drawn from a seed: what exists when the sandbox opens. No mutation tells
of it.
"""

from __future__ import annotations

import gc
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal, NamedTuple

import msgspec

from ..samples import catalog, invoices
from ..samples import subscriptions as samples_subscriptions
from ..samples.customers import customer
from ..samples.subscriptions import WEIGHTED_INVOICE_STATUSES, WEIGHTED_STATUSES, Payer, PriceRef
from ..samples.values import Random
from ..state.account import Account

Shape = Literal["growth", "even", "import", "months"]
SHAPES: tuple[Shape, ...] = ("growth", "even", "import", "months")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many there are of each, apart from the oddities."""

    customers: int
    invoices: int
    subscriptions: int
    products: int


class PlannedSubscription(NamedTuple):
    """A subscription before it is written: its invoices refer to it, and it to the newest of them."""

    id: str
    payer: tuple[str, str]
    created: int
    items: list[tuple[str, PriceRef]]
    status: str


class BillingAddress(msgspec.Struct):
    """Who is billed, and where."""

    name: str | None = None
    email: str | None = None
    address: msgspec.Raw = msgspec.Raw(b"null")


class SeedData:
    """Draws the account's objects, table by table, each in the order of `created`."""

    def __init__(self, account: Account, sizes: Sizes, shape: Shape, bursts: bool) -> None:
        self.account, self.sizes, self.shape, self.bursts = account, sizes, shape, bursts
        self.rng = account.rng
        self.payers: list[tuple[str, str]] = []  # id and currency
        self.customer_times: list[int] = []
        self.by_currency: dict[str, list[PriceRef]] = {}
        self.planned: list[PlannedSubscription] = []
        self.latest: dict[str, str] = {}

    def run(self) -> None:
        self.products()
        self.customers()
        self.subscriptions()
        self.invoices()
        self.write_subscriptions()

    def creation_times(self, count: int, burst: int = 0) -> list[int]:
        found = creation_times(
            self.rng, count, self.account.start, self.account.now - 3600, self.shape
        )
        if burst and len(found) > burst:
            middle = found[len(found) // 2]
            found = sorted(found[: len(found) - burst] + [middle] * burst) if self.bursts else found
        return found

    def products(self) -> None:
        rng, account = self.rng, self.account
        drawn = []
        for created in self.creation_times(self.sizes.products):
            product = catalog.product(rng, created)
            for _ in range(rng.pick((2, 3, 4))):
                drawn.append(catalog.price(rng, product["id"], created + int(rng.random() * 3000)))
            product["default_price"] = drawn[-1]["id"] if rng.chance(0.4) else None
            account.store("products", product)
        for price in sorted(drawn, key=lambda price: int(price["created"])):
            account.store_price(price)
            if price["recurring"]:
                self.by_currency.setdefault(price["currency"], []).append(
                    account.price_ref(price["id"])
                )

    def customers(self) -> None:
        count = self.sizes.customers
        self.customer_times = self.creation_times(
            count, 340 if count >= 1500 else 130 if count >= 200 else 0
        )
        for created in self.customer_times:
            found = customer(self.rng, created)
            self.account.store("customers", found)
            currency = found["currency"] or "usd"
            self.payers.append((found["id"], currency))

    def payer(self, before: int) -> tuple[str, str]:
        """One of the customers that there were then."""
        if not self.payers:
            return self.rng.id("cus"), "usd"
        return self.payers[
            int(self.rng.random() * max(1, bisect_right(self.customer_times, before)))
        ]

    def payer_details(self, payer: tuple[str, str]) -> Payer:
        """What an invoice copies from it."""
        id, currency = payer
        row = self.account.tables["customers"].rows.get(id)
        found = msgspec.json.decode(row.raw, type=BillingAddress) if row else BillingAddress()
        return Payer(id, found.name, found.email, currency, found.address)

    def price_ref(self, currency: str) -> PriceRef:
        fitting = self.by_currency.get(currency)
        if not fitting:
            fitting = self.by_currency.setdefault(currency, [self._first_price(currency)])
        return self.rng.pick(fitting)

    def _first_price(self, currency: str) -> PriceRef:
        product = catalog.product(self.rng, self.account.start)
        price = catalog.price(self.rng, product["id"], self.account.start, currency)
        price |= {"active": True, "recurring": catalog.recurring(self.rng), "type": "recurring"}
        self.account.store("products", product)
        self.account.store_price(price)
        return self.account.price_ref(price["id"])

    def subscriptions(self) -> None:
        rng = self.rng
        count = self.sizes.subscriptions
        for created in self.creation_times(count, 310 if count >= 1500 else 0):
            payer = self.payer(created)
            price_ref = [
                self.price_ref(payer[1]) for _ in range(rng.pick((1, 1, 1, 1, 1, 1, 2, 2, 3)))
            ]
            if rng.chance(0.04):
                price_ref[0] = self._inline_price(price_ref[0], payer[1], created)
            items = [(rng.id("si"), one) for one in price_ref]
            self.planned.append(
                PlannedSubscription(
                    rng.id("sub"), payer, created, items, rng.pick(WEIGHTED_STATUSES)
                )
            )

    def _inline_price(self, price_ref: PriceRef, currency: str, created: int) -> PriceRef:
        price = catalog.price(self.rng, price_ref.product, created, currency)
        price |= {
            "active": False,
            "recurring": catalog.recurring(self.rng),
            "type": "recurring",
            "lookup_key": None,
        }
        self.account.inline_prices.add(price["id"])
        self.account.store_price(price)
        return self.account.price_ref(price["id"])

    def invoices(self) -> None:
        rng, account = self.rng, self.account
        begun = [planned.created for planned in self.planned]
        count = self.sizes.invoices
        for created in self.creation_times(count, 310 if count >= 1500 else 0):
            running = bisect_right(begun, created)
            planned = (
                self.planned[int(rng.random() * running)] if running and rng.chance(0.65) else None
            )
            payer = self.payer_details(planned.payer if planned else self.payer(created))
            id = rng.id("in")
            payer_details = (
                [(price_ref, (planned.id, item)) for item, price_ref in planned.items]
                if planned
                else []
            )
            more = rng.pick((0, 0, 1, 1)) if planned else rng.pick((1, 1, 2, 4))
            lines = [
                samples_subscriptions.line(rng, id, price_ref, created, item, payer)
                for price_ref, item in payer_details
            ]
            lines += [
                samples_subscriptions.line(
                    rng, id, self.price_ref(payer.currency), created, None, payer
                )
                for _ in range(more)
            ]
            status = rng.pick(WEIGHTED_INVOICE_STATUSES)
            account.store(
                "invoices",
                invoices.invoice(
                    rng, id, payer, lines, created, status, planned.id if planned else None
                ),
            )
            if planned:
                self.latest[planned.id] = id

    def write_subscriptions(self) -> None:
        rng = self.rng
        for planned in self.planned:
            items = [
                samples_subscriptions.item(
                    rng,
                    planned.id,
                    price_ref,
                    planned.created,
                    None if b'"metered"' in bytes(price_ref.price) else 1,
                )
                | {"id": id}
                for id, price_ref in planned.items
            ]
            payer = Payer(planned.payer[0], None, None, planned.payer[1])
            found = samples_subscriptions.subscription(
                rng, planned.id, payer, items, planned.created, planned.status
            )
            found["latest_invoice"] = self.latest.get(planned.id)
            self.account.store("subscriptions", found)


def creation_times(rng: Random, count: int, start: int, end: int, shape: Shape) -> list[int]:
    """`count` times of creation in [start, end), sorted."""
    span = end - start
    match shape:
        case "even":
            found = [rng.random() for _ in range(count)]
        case "import":
            hours = 7200 / span
            found = [
                0.4 + hours * rng.random() if rng.chance(0.6) else rng.random() ** 0.4
                for _ in range(count)
            ]
        case "months":
            firsts = [at for at in first_days(start, end) if at + 10_800 <= end] or [start]
            found = [
                (rng.pick(firsts) + rng.random() * min(10_800, span) - start) / span
                if rng.chance(0.8)
                else rng.random()
                for _ in range(count)
            ]
        case _:
            found = [rng.random() ** 0.4 for _ in range(count)]
    return sorted(start + int(span * share) for share in found)


def first_days(start: int, end: int) -> list[int]:
    """Midnight of each first of a month, UTC, in [start, end)."""
    first = datetime.fromtimestamp(start, timezone.utc)
    count = (end - start) // (28 * 86_400) + 3
    months = (first.year * 12 + first.month - 1 + n for n in range(count))
    days = (
        int(datetime(month // 12, month % 12 + 1, 1, tzinfo=timezone.utc).timestamp())
        for month in months
    )
    return [day for day in days if start <= day < end]


@contextmanager
def gc_paused() -> Iterator[None]:
    """A million objects without cycles: looking for cycles among them again and again takes most of
    the time.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
