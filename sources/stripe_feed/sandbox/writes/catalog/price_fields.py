"""Convert the parameters of a price, a plan or an inline price to the fields of a price."""

from __future__ import annotations

from collections.abc import Callable

from ...protocol.errors import Refusal, required
from ...protocol.parameters import Params
from ...samples.values import Object
from ...state import mutations
from ...world import World
from ..records import check_currency, check_exclusive, check_minimum, to_fields

EMPTY_PRICE: Object = {
    "active": True,
    "billing_scheme": "per_unit",
    "custom_unit_amount": None,
    "lookup_key": None,
    "metadata": {},
    "nickname": None,
    "recurring": None,
    "tax_behavior": "unspecified",
    "tiers_mode": None,
    "transform_quantity": None,
    "type": "one_time",
    "unit_amount": None,
    "unit_amount_decimal": None,
}
RECURRING: Object = {
    "interval_count": 1,
    "meter": None,
    "trial_period_days": None,
    "usage_type": "licensed",
}
CUSTOM_AMOUNT = {"maximum": None, "minimum": None, "preset": None}
MOST_OFTEN = {"day": 1095, "week": 156, "month": 36, "year": 3}


def read_price(given: Params, within: str = "") -> Object:
    """Check parameters and return the fields of a price without its product. `within` names the
    hash that has the parameters."""

    def name(param: str) -> str:
        return f"{within}[{param}]" if within else param

    fields = to_fields(EMPTY_PRICE, given, {}) | {
        "currency": check_currency(given["currency"], name("currency"))
    }
    if "recurring" in given:
        fields |= {"recurring": _cycle(given["recurring"], name("recurring")), "type": "recurring"}
    if given.get("billing_scheme") == "tiered" or "tiers" in given:
        fields |= _tiered(given, name)
    else:
        fields |= {"tiers": None} | _untiered(given, name)
    options = {
        key: currency_option(key, one) for key, one in given.get("currency_options", {}).items()
    }
    return fields | {"currency_options": own_currency_option(EMPTY_PRICE | fields) | options}


def _untiered(given: Params, name: Callable[[str], str]) -> Object:
    amount = check_exclusive(given, "unit_amount", "unit_amount_decimal", "custom_unit_amount")
    if not amount:
        raise Refusal(
            400, "Prices require an `unit_amount` or `unit_amount_decimal` parameter to be set."
        )
    check_minimum(0, given.get("unit_amount"), name("unit_amount"))
    if amount == "custom_unit_amount":
        return {"custom_unit_amount": _custom(given["custom_unit_amount"])}
    return amounts(given)


def _cycle(given: Params, name: str) -> Object:
    cycle = RECURRING | given
    check_minimum(1, cycle["interval_count"], f"{name}[interval_count]")
    if cycle["interval_count"] > MOST_OFTEN[cycle["interval"]]:
        raise Refusal(
            400, "The maximum billing interval is three years.", param=f"{name}[interval_count]"
        )
    if cycle["usage_type"] == "metered" and not cycle["meter"]:
        raise Refusal(
            400,
            "Metered prices need a meter: `recurring.meter` must be set.",
            "parameter_missing",
            f"{name}[meter]",
        )
    return cycle


def _tiered(given: Params, name: Callable[[str], str]) -> Object:
    if "recurring" not in given:
        raise required("interval")
    for param in ("tiers", "tiers_mode"):
        if not given.get(param):
            raise required(name(param))
    tiers = [_tier(tier) for tier in given["tiers"]]
    if tiers[-1]["up_to"] is not None:
        raise Refusal(400, "The last tier must have `up_to` set to `inf`.", param=name("tiers"))
    return {"billing_scheme": "tiered", "tiers": tiers}


def _tier(given: Params) -> Object:
    found: Object = {"up_to": None if given["up_to"] == "inf" else given["up_to"]}
    for kind in ("flat", "unit"):
        found |= amounts(given, f"{kind}_amount")
    return found


def amounts(given: Params, name: str = "unit_amount") -> Object:
    """Return integer and decimal amount. A fraction has no integer amount."""
    decimal = f"{name}_decimal"
    check_exclusive(given, name, decimal)
    if given.get(name) is not None:
        return {name: given[name], decimal: str(given[name])}
    text = given.get(decimal)
    if text is None:
        return {name: None, decimal: None}
    plain = (text.rstrip("0").rstrip(".") or "0") if "." in text else text
    return {name: None if "." in plain else int(plain), decimal: plain}


def _custom(given: Params) -> Object:
    return CUSTOM_AMOUNT | {key: value for key, value in given.items() if key != "enabled"}


def currency_option(currency: str, given: Params) -> Object:
    check_currency(currency, f"currency_options[{currency}]")
    custom = given.get("custom_unit_amount")
    return amounts(given) | {
        "custom_unit_amount": None if custom is None else _custom(custom),
        "tax_behavior": given.get("tax_behavior", "unspecified"),
    }


def _own(price: Object) -> Object:
    names = ("custom_unit_amount", "tax_behavior", "unit_amount", "unit_amount_decimal")
    return {name: price[name] for name in names}


def own_currency_option(price: Object) -> Object:
    return {price["currency"]: _own(price)}


def add_price(account: World, fields: Object) -> Object:
    """Store a price, and its plan if it recurs. `fields` are those of `read_price` and a product."""
    id = fields.get("id") or account.rng.id("price")
    own = {"object": "price", "created": account.now, "livemode": account.livemode}
    return mutations.create(account, "prices", EMPTY_PRICE | own | fields | {"id": id})
