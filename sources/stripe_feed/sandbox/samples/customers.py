"""Chance, and the customer. What is drawn looks like what Stripe sends at API version
2026-10-28.endive.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

Object = dict[str, Any]
T = TypeVar("T")

API_VERSION = "2026-10-28.endive"
LETTERS = string.ascii_letters + string.digits
CURRENCIES = ("usd",) * 11 + ("eur",) * 5 + ("gbp",) * 2 + ("jpy", "kwd")

FIRST = (
    "Ada", "Amélie", "Björn", "Chidi", "Dmitri", "Elena", "Fatima", "Grace", "Hiro", "Ines", "Jonas", "Kofi", "Laila",
    "Marek", "Noor", "Oscar", "Priya", "Quinn", "Rosa", "Søren", "Tomás", "Uma", "Viktor", "Wei", "Ximena", "Yara",
)  # fmt: skip
LAST = (
    "Abbott", "Brandt", "Castillo", "D'Angelo", "Eriksen", "Fofanah", "García", "Huang", "Ivanova", "Jørgensen",
    "Kowalski", "Lindqvist", "Müller", "Nakamura", "O'Neill", "Pereira", "Quispe", "Rossi", "Schröder", "Tanaka",
    "Usman", "Vega",    "Wójcik", "Xu", "Yılmaz", "Zhang",
)  # fmt: skip
BUSINESS = (
    "Labs",
    "& Söhne",
    "Logistics",
    "Studio",
    "Analytics",
    "Coffee Roasters",
    "GmbH",
    "K.K.",
    "Ltd",
    "Bikes",
)
PLACES = (
    ("Berlin", "DE", "10115", None, "Torstraße"), ("Lyon", "FR", "69002", None, "rue Mercière"),
    ("Portland", "US", "97205", "OR", "SW Alder St"), ("Austin", "US", "78701", "TX", "Congress Ave"),
    ("Leeds", "GB", "LS1 4DY", "West Yorkshire", "Wellington Street"), ("大阪市", "JP", "530-0001", "大阪府", "梅田"),
    ("São Paulo", "BR", "01310-100", "SP", "Avenida Paulista"), ("Kuwait City", "KW", "13001", None, "Al Soor Street"),
)  # fmt: skip
LOCALES = ("en", "de", "fr", "ja", "pt-BR", "en-GB")
KEYS = ("crm_id", "plan", "source", "region", "cohort", "salesforce_id", "seats")


class Dice(random.Random):
    """Chance with a seed, and the names that Stripe makes up."""

    livemode = False
    account = "acct_"

    def chance(self, share: float) -> bool:
        return self.random() < share

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(self.random() * len(choices))]

    def word(self, length: int) -> str:
        return "".join(self.choices(LETTERS, k=length))

    def id(self, prefix: str) -> str:
        """An id as Stripe makes them: the short ones of the old resources, the long ones with the
        account inside.
        """
        if prefix in ("cus", "prod", "si"):
            return f"{prefix}_{self.word(14)}"
        return f"{prefix}_1{self.word(5)}{self.account[6:16]}{self.word(8)}"


def address(dice: Dice) -> Object:
    city, country, postal_code, state, street = dice.pick(PLACES)
    return {
        "city": city,
        "country": country,
        "line1": f"{street} {int(dice.random() * 180) + 1}",
        "line2": f"{int(dice.random() * 9)}. OG" if dice.chance(0.2) else None,
        "postal_code": postal_code,
        "state": state,
    }


def metadata(dice: Dice) -> dict[str, str]:
    keys = int(dice.random() * 4)
    return {dice.pick(KEYS): dice.word(6 + keys) for _ in range(keys)}


def discount(dice: Dice, start: int, **holder: str) -> Object:
    return {
        "id": dice.id("di"),
        "object": "discount",
        "checkout_session": None,
        "customer": holder.get("customer"),
        "customer_account": None,
        "end": start + 7_776_000 if dice.chance(0.5) else None,
        "invoice": None,
        "invoice_item": None,
        "promotion_code": dice.id("promo") if dice.chance(0.3) else None,
        "source": {
            "coupon": dice.pick(("WELCOME25", "z4fPbAXw", "friends-and-family")),
            "type": "coupon",
        },
        "start": start,
        "subscription": holder.get("subscription"),
        "subscription_item": None,
    }


def discount_of(account: str, id: str, holder: Object) -> Object:
    """The discount that a subscription or an invoice names; it follows from the id."""
    dice = Dice(f"discount {id}")
    dice.account = account
    found = discount(dice, holder.get("created") or 0)
    return found | {
        "id": id,
        "customer": holder.get("customer"),
        holder["object"]: holder.get("id"),
    }


def customer(dice: Dice, created: int | None) -> Object:
    id = dice.id("cus")
    first, last = dice.pick(FIRST), dice.pick(LAST)
    name = f"{first} {last}"
    business = f"{last} {dice.pick(BUSINESS)}" if dice.chance(0.3) else None
    billed = dice.chance(0.8)
    home = address(dice) if dice.chance(0.6) else None
    return {
        "id": id,
        "object": "customer",
        "address": home,
        "balance": 0 if dice.chance(0.9) else int(dice.random() * 20_000) - 15_000,
        "business_name": business,
        "created": created,
        "currency": dice.pick(CURRENCIES) if billed else None,
        "customer_account": dice.id("acct") if dice.chance(0.02) else None,
        "default_source": dice.id("card") if dice.chance(0.1) else None,
        "delinquent": dice.chance(0.05),
        "description": f"Signed up by {dice.pick(FIRST)}" if dice.chance(0.3) else None,
        "discount": discount(dice, created or 0, customer=id) if dice.chance(0.05) else None,
        "email": None
        if dice.chance(0.03)
        else f"{first}.{last}.{dice.word(5)}@example.com".replace("'", "").lower(),
        "individual_name": name if business and dice.chance(0.5) else None,
        "invoice_prefix": dice.word(8).upper(),
        "invoice_settings": {
            "custom_fields": [{"name": "PO number", "value": dice.word(7)}]
            if dice.chance(0.05)
            else None,
            "default_payment_method": dice.id("pm") if dice.chance(0.5) else None,
            "footer": None,
            "rendering_options": {"amount_tax_display": "include_inclusive_tax", "template": None}
            if dice.chance(0.05)
            else None,
        },
        "livemode": dice.livemode,
        "metadata": metadata(dice),
        "name": None if dice.chance(0.04) else business or name,
        "next_invoice_sequence": int(dice.random() * 40) + 1,
        "phone": f"+49 30 {int(dice.random() * 9_000_000) + 1_000_000}"
        if dice.chance(0.3)
        else None,
        "preferred_locales": [dice.pick(LOCALES)] if dice.chance(0.3) else [],
        "shipping": {"address": home, "name": name, "phone": None}
        if home and dice.chance(0.2)
        else None,
        "tax_exempt": "reverse" if dice.chance(0.06) else "exempt" if dice.chance(0.03) else "none",
        "test_clock": None,
    }


def test_clock(dice: Dice, created: int, frozen_time: int) -> Object:
    return {
        "id": dice.id("clock"),
        "object": "test_helpers.test_clock",
        "created": created,
        "deletes_after": created + 30 * 86_400,
        "frozen_time": frozen_time,
        "livemode": False,
        "name": "Annual renewal",
        "status": "ready",
        "status_details": {},
    }


def account(dice: Dice, id: str, created: int) -> Object:
    return {
        "id": id,
        "object": "account",
        "business_profile": {"mcc": "5734", "name": "Sandbox Bikes", "url": "https://example.com"},
        "business_type": "company",
        "capabilities": {"card_payments": "active", "transfers": "active"},
        "charges_enabled": True,
        "controller": {"type": "account"},
        "country": "DE",
        "created": created,
        "default_currency": "eur",
        "details_submitted": True,
        "email": "owner@example.com",
        "metadata": {},
        "payouts_enabled": True,
        "settings": {"dashboard": {"display_name": "Sandbox Bikes", "timezone": "Etc/UTC"}},
        "type": "standard",
    }


def decoded(raw: bytes) -> Object:
    found: Object = msgspec.json.decode(raw)
    return found
