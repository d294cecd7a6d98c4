"""Products, prices, plans and coupons. A price and a plan are one stored object that two endpoints
show in two shapes.
"""

from __future__ import annotations

from typing import Any

from .values import CURRENCIES, Object, Random, metadata

GOODS = (
    "Team",
    "Pro",
    "Starter",
    "Enterprise",
    "Support",
    "Storage",
    "Seats",
    "E-Bike",
    "Helmet",
    "Router",
)
INTERVALS = ("month",) * 6 + ("year",) * 3 + ("week",)
AMOUNTS = (500, 900, 1200, 1900, 2900, 4900, 9900, 19900, 49900, 120000)
DECIMALS = ("0.5", "0.000000000001", "12.345678901234", "1.25", "99.999999999999")


def product(rng: Random, created: int) -> Object:
    good = rng.chance(0.2)
    return {
        "id": rng.id("prod"),
        "object": "product",
        "active": rng.chance(0.85),
        "created": created,
        "default_price": None,
        "description": "Per seat, billed in advance" if rng.chance(0.5) else None,
        "images": [f"https://example.com/{rng.word(8)}.png"] if rng.chance(0.3) else [],
        "livemode": rng.livemode,
        "marketing_features": [{"name": "Unlimited projects"}, {"name": "SSO"}]
        if rng.chance(0.3)
        else [],
        "metadata": metadata(rng),
        "name": f"{rng.pick(GOODS)} {int(rng.random() * 900) + 100}",
        "package_dimensions": {"height": 12.5, "length": 30.0, "weight": 480.25, "width": 20.0}
        if good
        else None,
        "shippable": True if good else None,
        "statement_descriptor": "SANDBOX BIKES" if rng.chance(0.2) else None,
        "tax_code": "txcd_10103001" if rng.chance(0.4) else None,
        "tax_details": {"performance_location": None, "tax_code": "txcd_10103001"}
        if rng.chance(0.1)
        else None,
        "type": "good" if good else "service",
        "unit_label": "seat" if rng.chance(0.3) else None,
        "updated": created + int(rng.random() * 5_000),
        "url": f"https://example.com/p/{rng.word(5)}" if rng.chance(0.3) else None,
    }


def recurring(rng: Random, metered: bool = False) -> Object:
    return {
        "interval": rng.pick(INTERVALS),
        "interval_count": 3 if rng.chance(0.05) else 1,
        "meter": f"mtr_test_{rng.word(20)}" if metered else None,
        "trial_period_days": 14 if rng.chance(0.1) else None,
        "usage_type": "metered" if metered else "licensed",
    }


def price(rng: Random, product_id: str, created: int, currency: str | None = None) -> Object:
    currency = currency or rng.pick(CURRENCIES)
    kind = rng.random()
    price: Object = {
        "id": rng.id("price"),
        "object": "price",
        "active": rng.chance(0.8),
        "billing_scheme": "per_unit",
        "created": created,
        "currency": currency,
        "custom_unit_amount": None,
        "livemode": rng.livemode,
        "lookup_key": f"{rng.word(4).lower()}_monthly" if rng.chance(0.1) else None,
        "metadata": metadata(rng),
        "nickname": "Standard" if rng.chance(0.3) else None,
        "product": product_id,
        "recurring": recurring(rng, metered=0.15 < kind < 0.25),
        "tax_behavior": rng.pick(("unspecified", "exclusive", "inclusive")),
        "tiers_mode": None,
        "transform_quantity": {"divide_by": 10, "round": "up"} if rng.chance(0.05) else None,
        "type": "recurring",
    }
    return price | _amount(rng, currency, kind)


def _amount(rng: Random, currency: str, kind: float) -> Object:
    amount = rng.pick(AMOUNTS) * (10 if currency == "kwd" else 1)
    fields: Object = {"unit_amount": amount, "unit_amount_decimal": str(amount)}
    if kind < 0.05:
        fields = {"custom_unit_amount": {"maximum": 100_000, "minimum": 100, "preset": None}}
        fields |= {
            "unit_amount": None,
            "unit_amount_decimal": None,
            "recurring": None,
            "type": "one_time",
        }
    elif kind < 0.15:
        fields |= {"recurring": None, "type": "one_time"}
    elif kind < 0.25:
        fields |= {"unit_amount": None, "unit_amount_decimal": rng.pick(DECIMALS)}
    elif kind < 0.33:
        mode = rng.pick(("graduated", "volume"))
        fields |= {
            "billing_scheme": "tiered",
            "tiers_mode": mode,
            "unit_amount": None,
            "unit_amount_decimal": None,
        }
    return fields


def plan_of(price: Object) -> Object:
    """The plan that a recurring price also is. A one-time price is no plan."""
    cycle = price["recurring"]
    return {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price.get("unit_amount"),
        "amount_decimal": price.get("unit_amount_decimal"),
        "billing_scheme": price.get("billing_scheme", "per_unit"),
        "created": price["created"],
        "currency": price["currency"],
        "interval": cycle.get("interval"),
        "interval_count": cycle.get("interval_count"),
        "livemode": price["livemode"],
        "metadata": price.get("metadata"),
        "meter": cycle.get("meter"),
        "nickname": price.get("nickname"),
        "product": price["product"],
        "tiers_mode": price.get("tiers_mode"),
        "transform_usage": price.get("transform_quantity"),
        "trial_period_days": cycle.get("trial_period_days"),
        "usage_type": cycle.get("usage_type"),
    }


def price_fields(plan: Object, before: Object | None = None) -> Object:
    """The fields of a plan, as fields of its price."""
    names = {
        "amount": "unit_amount",
        "amount_decimal": "unit_amount_decimal",
        "transform_usage": "transform_quantity",
    }
    cycle = dict(
        (before or {}).get("recurring")
        or {"interval_count": 1, "meter": None, "trial_period_days": None}
    )
    fields: Object = {}
    for name, value in plan.items():
        if name in ("interval", "interval_count", "meter", "trial_period_days", "usage_type"):
            cycle[name] = value
        elif name != "object":
            fields[names.get(name, name)] = value
    cycle.setdefault("interval", "month")
    cycle.setdefault("usage_type", "licensed")
    return fields | {"recurring": cycle, "type": "recurring"}


def tiers(price: Object) -> list[Object] | None:
    """What `expand[]=data.tiers` adds to a price or a plan; it follows from the id."""
    if price.get("billing_scheme") != "tiered":
        return None
    unit = 100 + sum(price["id"].encode()) % 900
    first = {
        "flat_amount": None,
        "flat_amount_decimal": None,
        "unit_amount": unit,
        "unit_amount_decimal": str(unit),
    }
    last = {
        "flat_amount": 500,
        "flat_amount_decimal": "500",
        "unit_amount": None,
        "unit_amount_decimal": "0.5",
    }
    return [first | {"up_to": 10}, last | {"up_to": None}]


def currency_options(price: Object) -> dict[str, Any]:
    """What `expand[]=data.currency_options` adds."""
    own = {
        "custom_unit_amount": price.get("custom_unit_amount"),
        "tax_behavior": price.get("tax_behavior"),
        "unit_amount": price.get("unit_amount"),
        "unit_amount_decimal": price.get("unit_amount_decimal"),
    }
    options: dict[str, Any] = {price["currency"]: own}
    if sum(price["id"].encode()) % 5 == 0 and price["currency"] != "chf":
        options["chf"] = own | {
            "unit_amount": 1100,
            "unit_amount_decimal": "1100",
            "custom_unit_amount": None,
        }
    return options


def coupon(rng: Random, created: int) -> Object:
    months = rng.pick((None, 3, 12))
    return {
        "id": rng.word(8),
        "object": "coupon",
        "amount_off": None,
        "created": created,
        "currency": None,
        "duration": "repeating" if months else "forever",
        "duration_in_months": months,
        "livemode": rng.livemode,
        "max_redemptions": None,
        "metadata": metadata(rng),
        "name": "Friends and family" if rng.chance(0.5) else None,
        "percent_off": 25.0,
        "redeem_by": None,
        "times_redeemed": 0,
        "valid": True,
    }
