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
from ..samples.customers import Dice, customer
from ..samples.subscriptions import INVOICE_STATUSES, STATUSES, Payer, Sold
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


class Signed(NamedTuple):
    """A subscription before it is written: its invoices refer to it, and it to the newest of them."""

    id: str
    payer: tuple[str, str]
    created: int
    items: list[tuple[str, Sold]]
    status: str


class Address(msgspec.Struct):
    """Who is billed, and where."""

    name: str | None = None
    email: str | None = None
    address: msgspec.Raw = msgspec.Raw(b"null")


class Founding:
    """Draws the account's objects, table by table, each in the order of `created`."""

    def __init__(self, account: Account, sizes: Sizes, shape: Shape, bursts: bool) -> None:
        self.account, self.sizes, self.shape, self.bursts = account, sizes, shape, bursts
        self.dice = account.dice
        self.payers: list[tuple[str, str]] = []  # id and currency
        self.joined: list[int] = []
        self.by_currency: dict[str, list[Sold]] = {}
        self.signed: list[Signed] = []
        self.latest: dict[str, str] = {}

    def run(self) -> None:
        self.products()
        self.customers()
        self.subscriptions()
        self.invoices()
        self.write_subscriptions()

    def moments(self, count: int, burst: int = 0) -> list[int]:
        found = moments(self.dice, count, self.account.start, self.account.now - 3600, self.shape)
        if burst and len(found) > burst:
            middle = found[len(found) // 2]
            found = sorted(found[: len(found) - burst] + [middle] * burst) if self.bursts else found
        return found

    def products(self) -> None:
        dice, account = self.dice, self.account
        drawn = []
        for created in self.moments(self.sizes.products):
            product = catalog.product(dice, created)
            for _ in range(dice.pick((2, 3, 4))):
                drawn.append(
                    catalog.price(dice, product["id"], created + int(dice.random() * 3000))
                )
            product["default_price"] = drawn[-1]["id"] if dice.chance(0.4) else None
            account.store("products", product)
        for price in sorted(drawn, key=lambda price: int(price["created"])):
            account.store_price(price)
            if price["recurring"]:
                self.by_currency.setdefault(price["currency"], []).append(account.sold(price["id"]))

    def customers(self) -> None:
        count = self.sizes.customers
        self.joined = self.moments(count, 340 if count >= 1500 else 130 if count >= 200 else 0)
        for created in self.joined:
            found = customer(self.dice, created)
            self.account.store("customers", found)
            currency = found["currency"] or "usd"
            self.payers.append((found["id"], currency))

    def payer(self, before: int) -> tuple[str, str]:
        """One of the customers that there were then."""
        if not self.payers:
            return self.dice.id("cus"), "usd"
        return self.payers[int(self.dice.random() * max(1, bisect_right(self.joined, before)))]

    def billed(self, payer: tuple[str, str]) -> Payer:
        """What an invoice copies from it."""
        id, currency = payer
        row = self.account.tables["customers"].rows.get(id)
        found = msgspec.json.decode(row.raw, type=Address) if row else Address()
        return Payer(id, found.name, found.email, currency, found.address)

    def sold(self, currency: str) -> Sold:
        fitting = self.by_currency.get(currency)
        if not fitting:
            fitting = self.by_currency.setdefault(currency, [self._first_price(currency)])
        return self.dice.pick(fitting)

    def _first_price(self, currency: str) -> Sold:
        product = catalog.product(self.dice, self.account.start)
        price = catalog.price(self.dice, product["id"], self.account.start, currency)
        price |= {"active": True, "recurring": catalog.recurring(self.dice), "type": "recurring"}
        self.account.store("products", product)
        self.account.store_price(price)
        return self.account.sold(price["id"])

    def subscriptions(self) -> None:
        dice = self.dice
        count = self.sizes.subscriptions
        for created in self.moments(count, 310 if count >= 1500 else 0):
            payer = self.payer(created)
            sold = [self.sold(payer[1]) for _ in range(dice.pick((1, 1, 1, 1, 1, 1, 2, 2, 3)))]
            if dice.chance(0.04):
                sold[0] = self._inline(sold[0], payer[1], created)
            items = [(dice.id("si"), one) for one in sold]
            self.signed.append(Signed(dice.id("sub"), payer, created, items, dice.pick(STATUSES)))

    def _inline(self, sold: Sold, currency: str, created: int) -> Sold:
        price = catalog.price(self.dice, sold.product, created, currency)
        price |= {
            "active": False,
            "recurring": catalog.recurring(self.dice),
            "type": "recurring",
            "lookup_key": None,
        }
        self.account.inline.add(price["id"])
        self.account.store_price(price)
        return self.account.sold(price["id"])

    def invoices(self) -> None:
        dice, account = self.dice, self.account
        begun = [signed.created for signed in self.signed]
        count = self.sizes.invoices
        for created in self.moments(count, 310 if count >= 1500 else 0):
            running = bisect_right(begun, created)
            signed = (
                self.signed[int(dice.random() * running)] if running and dice.chance(0.65) else None
            )
            payer = self.billed(signed.payer if signed else self.payer(created))
            id = dice.id("in")
            billed = [(sold, (signed.id, item)) for item, sold in signed.items] if signed else []
            more = dice.pick((0, 0, 1, 1)) if signed else dice.pick((1, 1, 2, 4))
            lines = [
                samples_subscriptions.line(dice, id, sold, created, item, payer)
                for sold, item in billed
            ]
            lines += [
                samples_subscriptions.line(
                    dice, id, self.sold(payer.currency), created, None, payer
                )
                for _ in range(more)
            ]
            status = dice.pick(INVOICE_STATUSES)
            account.store(
                "invoices",
                invoices.invoice(
                    dice, id, payer, lines, created, status, signed.id if signed else None
                ),
            )
            if signed:
                self.latest[signed.id] = id

    def write_subscriptions(self) -> None:
        dice = self.dice
        for signed in self.signed:
            items = [
                samples_subscriptions.item(
                    dice,
                    signed.id,
                    sold,
                    signed.created,
                    None if b'"metered"' in bytes(sold.price) else 1,
                )
                | {"id": id}
                for id, sold in signed.items
            ]
            payer = Payer(signed.payer[0], None, None, signed.payer[1])
            found = samples_subscriptions.subscription(
                dice, signed.id, payer, items, signed.created, signed.status
            )
            found["latest_invoice"] = self.latest.get(signed.id)
            self.account.store("subscriptions", found)


def moments(dice: Dice, count: int, start: int, end: int, shape: Shape) -> list[int]:
    """`count` times of creation in [start, end), sorted."""
    span = end - start
    match shape:
        case "even":
            found = [dice.random() for _ in range(count)]
        case "import":
            hours = 7200 / span
            found = [
                0.4 + hours * dice.random() if dice.chance(0.6) else dice.random() ** 0.4
                for _ in range(count)
            ]
        case "months":
            firsts = [at for at in first_days(start, end) if at + 10_800 <= end] or [start]
            found = [
                (dice.pick(firsts) + dice.random() * min(10_800, span) - start) / span
                if dice.chance(0.8)
                else dice.random()
                for _ in range(count)
            ]
        case _:
            found = [dice.random() ** 0.4 for _ in range(count)]
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
def unwatched() -> Iterator[None]:
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
