"""Prices: what they cost never changes, so a changed row makes a new price that takes the place of the
old one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from ....api.forms import path_to
from ....errors import InvalidParameter
from ....resources.writable import WRITABLE
from ...lookup.find import Lookup, Object
from ...parameters import Params
from ...unchanged import changed
from ..decision import FieldChange, Update, field_changes, get, leaves
from ..definition import Definition
from ..log import MARKER, LoggedRow, PushStep
from ..mapping import Wanted, params_for, update_params

EXPANDED = ("tiers", "currency_options")
CREATE_ONLY = ("product_data", "transfer_lookup_key")  # what no price shows
AMOUNTS = ("unit_amount", "unit_amount_decimal", "custom_unit_amount", "tiers")
WAYS_TO_CHARGE = ("custom_unit_amount", "tiers")  # beside one amount
CARRIED = ("nickname", "tax_behavior", "lookup_key")
"""What a new price takes over from the one whose place it takes, unless the row says otherwise."""
NEW_PRICE = "A price keeps its amount: a new one takes its place, and {old} is archived."


def update_price(
    lookup: Lookup, push: Definition, wanted: Wanted, held: Object, logged: LoggedRow | None
) -> Update:
    """Update a price, or put another one in its place: new price, default price, archive."""
    if any(path.split(".")[0] in EXPANDED for path in wanted.given):
        held = get(lookup, push.row, held["id"], EXPANDED) or held
    replaced = [id for id in (logged.replaced if logged else ()) if id != held["id"]]
    fixed = _fixed(push, wanted, held)
    if not fixed:
        params = update_params(push, wanted, held)
        path = path_to(push.row.verbs["update"].path, held["id"])
        steps = [PushStep("update", "post", path, params)] if params else []
        steps += succession(lookup, held["product"], held["id"], replaced)
        return steps, field_changes(held, params), ()
    full = get(lookup, push.row, held["id"], EXPANDED) or held
    params = _successor(push, wanted, full)
    steps = [
        PushStep("create", "post", push.row.path, params),
        *succession(lookup, params.get("product"), "{0}", [*replaced, held["id"]]),
    ]
    shown = [FieldChange(name, _before(full, name), value) for name, value in leaves(fixed)]
    return steps, shown, (NEW_PRICE.format(old=held["id"]),)


def _before(held: Object, name: str) -> Any:
    value: Any = held
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _fixed(push: Definition, wanted: Wanted, held: Object) -> Params:
    """What differs of what a price keeps for ever."""
    known = push.row.parameters
    names = {path.partition(".")[0] for path in wanted.given} & known["create"].keys()
    names -= {*known["update"], *CREATE_ONLY}
    given = {path: value for path, value in wanted.given.items() if path.split(".")[0] in names}
    if not given:
        return {}
    params = params_for(push, replace(wanted, given=given), "create", complete=False)
    return {
        name: value for name, value in params.items() if not _equal(name, held.get(name), value)
    }


def _equal(name: str, held: Any, value: Any) -> bool:
    if name == "currency":
        return str(held).lower() == str(value).lower()
    if name == "unit_amount_decimal" and held is not None:
        return Decimal(str(held)) == Decimal(str(value))
    if name == "custom_unit_amount" and isinstance(held, Mapping):
        value = {key: inner for key, inner in value.items() if key != "enabled"}  # is not shown
    if name == "tiers" and isinstance(held, list):
        return [_terms_of(tier) for tier in held] == [_terms_of(tier) for tier in value]
    return not changed({name: value}, {name: held})


def _terms_of(tier: Mapping[str, Any]) -> tuple[str, ...]:
    """A tier in one form, whichever of Stripe's it has."""
    amounts = []
    for name in ("unit_amount", "flat_amount"):
        value = tier.get(f"{name}_decimal", tier.get(name))
        value = tier.get(name) if value is None else value
        amounts.append("" if value is None else format(Decimal(str(value)).normalize(), "f"))
    return (str(tier.get("up_to") or "inf"), *amounts)


def _successor(push: Definition, wanted: Wanted, held: Object) -> Params:
    """The parameters of the new price: what the row says, and what the old one had beside it."""
    said = params_for(push, wanted, "create", complete=False)
    params = {**_terms(held, said), **said}
    for name in CARRIED:
        if held.get(name) not in (None, "unspecified"):
            params.setdefault(name, held[name])
    if options := _other_currencies(held, params):
        params.setdefault("currency_options", options)
    if isinstance(said.get("recurring"), Mapping):
        params["recurring"] = {**_recurring(held), **said["recurring"]}
    metadata = {k: v for k, v in (held.get("metadata") or {}).items() if k != MARKER}
    metadata |= said.get("metadata") or {}
    if metadata:
        params["metadata"] = metadata
    if params.get("lookup_key"):
        params["transfer_lookup_key"] = True
    if "product" not in params and "product_data" not in params:
        raise InvalidParameter("product is missing.", "product")
    return params


def _terms(held: Object, said: Params) -> Params:
    """What the old price charges, as parameters; the amount only if the row says none."""
    terms: Params = {"currency": held["currency"]}
    if "product_data" not in said:
        terms["product"] = held["product"]
    if held.get("recurring"):
        terms["recurring"] = _recurring(held)
    if held.get("transform_quantity"):
        terms["transform_quantity"] = held["transform_quantity"]
    if any(name in said for name in AMOUNTS):
        return terms
    if held.get("tiers"):
        tiers = [_tier(tier) for tier in held["tiers"]]
        return terms | {
            "billing_scheme": "tiered",
            "tiers_mode": held["tiers_mode"],
            "tiers": tiers,
        }
    if held.get("custom_unit_amount"):
        return terms | {
            "custom_unit_amount": {"enabled": True, **_filled(held["custom_unit_amount"])}
        }
    name = "unit_amount" if held.get("unit_amount") is not None else "unit_amount_decimal"
    return terms | {name: held[name]}


def _other_currencies(held: Object, params: Params) -> Params:
    """What the old price charges in other currencies, if the new one charges in the same way."""
    same_way = all(bool(held.get(name)) == (name in params) for name in WAYS_TO_CHARGE)
    if not same_way or params["currency"].lower() != held["currency"]:
        return {}
    options = held.get("currency_options") or {}
    return {code: _option(one) for code, one in options.items() if code != held["currency"]}


def _option(held: Mapping[str, Any]) -> Params:
    option = _tier(held)
    del option["up_to"]
    if option.get("tax_behavior") == "unspecified":
        del option["tax_behavior"]
    if "custom_unit_amount" in option:
        option["custom_unit_amount"] = {"enabled": True, **_filled(option["custom_unit_amount"])}
    if "tiers" in option:
        option["tiers"] = [_tier(tier) for tier in option["tiers"]]
    return option


def _recurring(held: Object) -> Params:
    return _filled(held.get("recurring") or {})


def _tier(tier: Mapping[str, Any]) -> Params:
    given = _filled(tier)
    for name in ("unit_amount", "flat_amount"):
        if name in given:
            given.pop(f"{name}_decimal", None)
    return {"up_to": "inf", **given}


def _filled(hash: Mapping[str, Any]) -> Params:
    return {name: value for name, value in hash.items() if value is not None}


def succession(
    lookup: Lookup, product_id: str | None, successor: str, replaced: list[str]
) -> list[PushStep]:
    """Make a price the default in the place of others, then archive them: Stripe archives no default
    price.
    """
    if not replaced:
        return []
    steps = []
    products, prices = WRITABLE["products"], WRITABLE["prices"]
    product = get(lookup, products, product_id) if product_id else None
    if product is not None and product.get("default_price") in replaced:
        path = path_to(products.verbs["update"].path, product["id"])
        steps.append(PushStep("set default price", "post", path, {"default_price": successor}))
    for id in replaced:
        path = path_to(prices.verbs["update"].path, id)
        steps.append(PushStep("archive", "post", path, {"active": False}))
    return steps
