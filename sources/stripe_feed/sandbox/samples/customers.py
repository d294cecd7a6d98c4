"""Customers, and what belongs to one: discounts, tax ids, cards."""

from __future__ import annotations

from .values import CURRENCIES, LOCALES, Object, Random, address, metadata

FIRST_NAMES = (
    "Ada", "Amélie", "Björn", "Chidi", "Dmitri", "Elena", "Fatima", "Grace", "Hiro", "Ines", "Jonas", "Kofi", "Laila",
    "Marek", "Noor", "Oscar", "Priya", "Quinn", "Rosa", "Søren", "Tomás", "Uma", "Viktor", "Wei", "Ximena", "Yara",
)  # fmt: skip
LAST_NAMES = (
    "Abbott", "Brandt", "Castillo", "D'Angelo", "Eriksen", "Fofanah", "García", "Huang", "Ivanova", "Jørgensen",
    "Kowalski", "Lindqvist", "Müller", "Nakamura", "O'Neill", "Pereira", "Quispe", "Rossi", "Schröder", "Tanaka",
    "Usman", "Vega",    "Wójcik", "Xu", "Yılmaz", "Zhang",
)  # fmt: skip
BUSINESS_SUFFIXES = (
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


def discount(rng: Random, start: int, **holder: str) -> Object:
    return {
        "id": rng.id("di"),
        "object": "discount",
        "checkout_session": None,
        "customer": holder.get("customer"),
        "customer_account": None,
        "end": start + 7_776_000 if rng.chance(0.5) else None,
        "invoice": None,
        "invoice_item": None,
        "promotion_code": rng.id("promo") if rng.chance(0.3) else None,
        "source": {
            "coupon": rng.pick(("WELCOME25", "z4fPbAXw", "friends-and-family")),
            "type": "coupon",
        },
        "start": start,
        "subscription": holder.get("subscription"),
        "subscription_item": None,
    }


def discount_of(account: str, id: str, holder: Object) -> Object:
    """The discount with this id on a subscription or an invoice; it follows from the id."""
    rng = Random(f"discount {id}")
    rng.account = account
    drawn = discount(rng, holder.get("created") or 0)
    named = {holder["object"]: holder.get("id")} if holder["object"] in drawn else {}
    return drawn | {"id": id, "customer": holder.get("customer")} | named


def customer(rng: Random, created: int | None) -> Object:
    id = rng.id("cus")
    first, last = rng.pick(FIRST_NAMES), rng.pick(LAST_NAMES)
    name = f"{first} {last}"
    business = f"{last} {rng.pick(BUSINESS_SUFFIXES)}" if rng.chance(0.3) else None
    billed = rng.chance(0.8)
    home = address(rng) if rng.chance(0.6) else None
    return {
        "id": id,
        "object": "customer",
        "address": home,
        "balance": 0 if rng.chance(0.9) else int(rng.random() * 20_000) - 15_000,
        "business_name": business,
        "created": created,
        "currency": rng.pick(CURRENCIES) if billed else None,
        "customer_account": rng.id("acct") if rng.chance(0.02) else None,
        "default_source": rng.id("card") if rng.chance(0.1) else None,
        "delinquent": rng.chance(0.05),
        "description": f"Signed up by {rng.pick(FIRST_NAMES)}" if rng.chance(0.3) else None,
        "discount": discount(rng, created or 0, customer=id) if rng.chance(0.05) else None,
        "email": None
        if rng.chance(0.03)
        else f"{first}.{last}.{rng.word(5)}@example.com".replace("'", "").lower(),
        "individual_name": name if business and rng.chance(0.5) else None,
        "invoice_prefix": rng.word(8).upper(),
        "invoice_settings": {
            "custom_fields": [{"name": "PO number", "value": rng.word(7)}]
            if rng.chance(0.05)
            else None,
            "default_payment_method": rng.id("pm") if rng.chance(0.5) else None,
            "footer": None,
            "rendering_options": {"amount_tax_display": "include_inclusive_tax", "template": None}
            if rng.chance(0.05)
            else None,
        },
        "livemode": rng.livemode,
        "metadata": metadata(rng),
        "name": None if rng.chance(0.04) else business or name,
        "next_invoice_sequence": int(rng.random() * 40) + 1,
        "phone": f"+49 30 {int(rng.random() * 9_000_000) + 1_000_000}" if rng.chance(0.3) else None,
        "preferred_locales": [rng.pick(LOCALES)] if rng.chance(0.3) else [],
        "shipping": {"address": home, "name": name, "phone": None}
        if home and rng.chance(0.2)
        else None,
        "tax_exempt": _tax_exempt(rng),
        "test_clock": None,
    }


def _tax_exempt(rng: Random) -> str:
    if rng.chance(0.06):
        return "reverse"
    return "exempt" if rng.chance(0.03) else "none"


def tax_id(rng: Random, customer: Object) -> Object:
    return {
        "id": rng.id("txi"),
        "object": "tax_id",
        "country": "DE",
        "created": customer.get("created") or 0,
        "customer": customer["id"],
        "customer_account": None,
        "livemode": rng.livemode,
        "owner": {"customer": customer["id"], "customer_account": None, "type": "customer"},
        "type": "eu_vat",
        "value": f"DE{int(rng.random() * 899_999_999) + 100_000_000}",
        "verification": {"status": "verified", "verified_address": None, "verified_name": None},
    }


def card(rng: Random, customer: str) -> Object:
    return {
        "id": rng.id("card"),
        "object": "card",
        "address_zip": None,
        "brand": rng.pick(("Visa", "MasterCard", "American Express")),
        "country": "DE",
        "customer": customer,
        "exp_month": 1 + int(rng.random() * 12),
        "exp_year": 2029,
        "fingerprint": rng.word(16),
        "funding": "credit",
        "last4": f"{int(rng.random() * 10_000):04d}",
        "metadata": {},
        "name": None,
    }
