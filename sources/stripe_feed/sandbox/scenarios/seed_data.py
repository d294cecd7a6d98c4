"""The account's past, drawn from the seed: the objects that exist when the sandbox starts. No
mutation and no event records them.
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
from ..samples import subscriptions as samples
from ..samples.customers import customer
from ..samples.subscriptions import WEIGHTED_INVOICE_STATUSES, WEIGHTED_STATUSES, Payer, PriceRef
from ..samples.values import Random
from ..state.account import Account
from ..state.builders import draft
from ..state.kinds import KINDS

Shape = Literal["growth", "even", "import", "months"]
SHAPES: tuple[Shape, ...] = ("growth", "even", "import", "months")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many objects of each kind there are, without the edge cases."""

    customers: int
    invoices: int
    subscriptions: int
    products: int


class PlannedSubscription(NamedTuple):
    """A subscription before it is stored: its invoices name it, and it names the newest of them."""

    id: str
    payer: tuple[str, str]
    created: int
    items: list[tuple[str, PriceRef]]
    status: str


class BillingAddress(msgspec.Struct):
    """The fields of a customer that its invoices copy."""

    name: str | None = None
    email: str | None = None
    address: msgspec.Raw = msgspec.Raw(b"null")


class SeedData:
    """Draws the account's objects table by table, each in the order of `created`."""

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
        self.other_kinds()

    def creation_times(self, count: int, burst: int = 0) -> list[int]:
        times = creation_times(
            self.rng, count, self.account.start, self.account.now - 3600, self.shape
        )
        if burst and len(times) > burst:
            middle = times[len(times) // 2]
            times = sorted(times[: len(times) - burst] + [middle] * burst) if self.bursts else times
        return times

    def products(self) -> None:
        rng, account = self.rng, self.account
        prices = []
        for created in self.creation_times(self.sizes.products):
            product = catalog.product(rng, created)
            for _ in range(rng.pick((2, 3, 4))):
                prices.append(catalog.price(rng, product["id"], created + int(rng.random() * 3000)))
            product["default_price"] = prices[-1]["id"] if rng.chance(0.4) else None
            account.store("products", product)
        for price in sorted(prices, key=lambda price: int(price["created"])):
            account.store_price(price)
            if price["recurring"]:
                self.by_currency.setdefault(price["currency"], []).append(
                    account.price_ref(price["id"])
                )

    def customers(self) -> None:
        count = self.sizes.customers
        burst = 340 if count >= 1500 else 130
        self.customer_times = self.creation_times(count, burst if count >= 200 else 0)
        for created in self.customer_times:
            drawn = customer(self.rng, created)
            self.account.store("customers", drawn)
            currency = drawn["currency"] or "usd"
            self.payers.append((drawn["id"], currency))

    def payer(self, before: int) -> tuple[str, str]:
        """A random customer created before a time."""
        if not self.payers:
            return self.rng.id("cus"), "usd"
        return self.payers[
            int(self.rng.random() * max(1, bisect_right(self.customer_times, before)))
        ]

    def payer_details(self, payer: tuple[str, str]) -> Payer:
        """What an invoice copies from its customer."""
        id, currency = payer
        row = self.account.tables["customers"].rows.get(id)
        details = msgspec.json.decode(row.raw, type=BillingAddress) if row else BillingAddress()
        return Payer(id, details.name, details.email, currency, details.address)

    def price_ref(self, currency: str) -> PriceRef:
        prices = self.by_currency.get(currency)
        if not prices:
            prices = self.by_currency.setdefault(currency, [self._first_price(currency)])
        return self.rng.pick(prices)

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
            prices = [
                self.price_ref(payer[1]) for _ in range(rng.pick((1, 1, 1, 1, 1, 1, 2, 2, 3)))
            ]
            if rng.chance(0.04):
                prices[0] = self._inline_price(prices[0], payer[1], created)
            items = [(rng.id("si"), price) for price in prices]
            self.planned.append(
                PlannedSubscription(
                    rng.id("sub"), payer, created, items, rng.pick(WEIGHTED_STATUSES)
                )
            )

    def _inline_price(self, like: PriceRef, currency: str, created: int) -> PriceRef:
        price = catalog.price(self.rng, like.product, created, currency)
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
        starts = [planned.created for planned in self.planned]
        count = self.sizes.invoices
        for created in self.creation_times(count, 310 if count >= 1500 else 0):
            started = bisect_right(starts, created)
            planned = (
                self.planned[int(rng.random() * started)] if started and rng.chance(0.65) else None
            )
            payer = self.payer_details(planned.payer if planned else self.payer(created))
            id = rng.id("in")
            subscribed = (
                [(price_ref, (planned.id, item)) for item, price_ref in planned.items]
                if planned
                else []
            )
            extra = rng.pick((0, 0, 1, 1)) if planned else rng.pick((1, 1, 2, 4))
            lines = [
                samples.line(rng, id, price_ref, created, item, payer)
                for price_ref, item in subscribed
            ]
            lines += [
                samples.line(rng, id, self.price_ref(payer.currency), created, None, payer)
                for _ in range(extra)
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
                samples.item(
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
            subscription = samples.subscription(
                rng, planned.id, payer, items, planned.created, planned.status
            )
            subscription["latest_invoice"] = self.latest.get(planned.id)
            self.account.store("subscriptions", subscription)

    def other_kinds(self) -> None:
        """The kinds with a share, each by a generator of its own: it changes no other object."""
        account = self.account
        for kind in KINDS.values():
            rng, count = account.generator(kind.name), int(kind.share * self.sizes.customers)
            times = creation_times(rng, count, account.start, account.now - 3600, self.shape)
            for created in times:
                account.store(kind.name, draft(account, kind.name, {kind.dated: created}, rng))


def creation_times(rng: Random, count: int, start: int, end: int, shape: Shape) -> list[int]:
    """`count` sorted creation times in [start, end)."""
    span = end - start
    match shape:
        case "even":
            shares = [rng.random() for _ in range(count)]
        case "import":
            hours = 7200 / span
            shares = [
                0.4 + hours * rng.random() if rng.chance(0.6) else rng.random() ** 0.4
                for _ in range(count)
            ]
        case "months":
            firsts = [at for at in first_days(start, end) if at + 10_800 <= end] or [start]
            shares = [
                (rng.pick(firsts) + rng.random() * min(10_800, span) - start) / span
                if rng.chance(0.8)
                else rng.random()
                for _ in range(count)
            ]
        case _:
            shares = [rng.random() ** 0.4 for _ in range(count)]
    return sorted(start + int(span * share) for share in shares)


def first_days(start: int, end: int) -> list[int]:
    """Midnight UTC of the first day of each month in [start, end)."""
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
    """Pause garbage collection: with a million objects and no cycles it would take most of the
    time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
