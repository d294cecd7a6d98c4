"""Values of fields that only come when they are expanded. They follow from the object's id."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

from . import generic
from .customers import card, tax_id
from .invoices import invoice_payments
from .values import Object, Random

OptInSample = Callable[[Random, Object, int | None], Any]
"""Takes a generator, the object, and the length of a list if one was given."""


def constant(value: Any) -> OptInSample:
    return lambda rng, content, count: value


def from_content(sample: Callable[[Object], Any]) -> OptInSample:
    return lambda rng, content, count: sample(content)


def number_of(content: Object, field: str) -> int:
    """A large number that depends on the object and the field alone."""
    return zlib.crc32(f"{content['id']} {field}".encode())


def tax_ids(rng: Random, customer: Object, count: int | None) -> list[Object]:
    if count is None:
        count = number_of(customer, "tax_ids") % 3
    return [tax_id(rng, customer) for _ in range(count)]


def sources(rng: Random, customer: Object, count: int | None) -> list[Object]:
    if count is None:
        count = number_of(customer, "sources") % 2
    return [card(rng, customer["id"]) for _ in range(count)]


def customer_tax(rng: Random, customer: Object, count: int | None) -> Object:
    known = number_of(customer, "tax") % 3 > 0
    location = {"country": "DE", "source": "billing_address", "state": None}
    return {
        "automatic_tax": "supported" if known else "unrecognized_location",
        "ip_address": None,
        "location": location if known else None,
        "provider": "stripe",
    }


def cash_balance(rng: Random, customer: Object, count: int | None) -> Object | None:
    number = number_of(customer, "cash_balance")
    if number % 5:
        return None
    return {
        "object": "cash_balance",
        "available": {"eur": number % 10_000},
        "customer": customer["id"],
        "customer_account": None,
        "livemode": rng.livemode,
        "settings": {"reconciliation_mode": "automatic", "using_merchant_default": True},
    }


def invoice_credit_balance(rng: Random, customer: Object, count: int | None) -> Object:
    number = number_of(customer, "invoice_credit_balance")
    return {"eur": -(number % 5000)} if number % 4 == 0 else {}


def payments(rng: Random, invoice: Object, count: int | None) -> list[Object]:
    return invoice_payments(rng, invoice, 1 if count is None else count)


def drawn(object: str, prefix: str, values: Mapping[str, Any]) -> OptInSample:
    """A list of objects that exist only inside another one, as the line items of a session."""

    def draw(rng: Random, content: Object, count: int | None) -> list[Object]:
        if count is None:
            count = 1 + number_of(content, object) % 3
        created = content.get("created") or 0
        return [
            generic.sample(rng, created, object=object, prefix=prefix, values=values)
            for _ in range(count)
        ]

    return draw
