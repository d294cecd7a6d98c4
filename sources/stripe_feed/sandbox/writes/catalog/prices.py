"""`/v1/prices` and `/v1/plans`, two views of one object with few mutable fields."""

from __future__ import annotations

from ...protocol.errors import Refusal
from ...protocol.parameters import Params
from ...samples.values import Object
from ...state import mutations
from ...state.api_versions import deleted_stub
from ...state.mutation_log import read_object
from ...state.table import has_text
from ...world import World
from ..records import (
    change,
    check_exclusive,
    new_id,
    object_in_param,
    object_in_path,
    to_fields,
)
from . import products
from .price_fields import RECURRING, add_price, currency_option, own_currency_option, read_price

PRICE_OF_PLAN = {
    "amount": "unit_amount",
    "amount_decimal": "unit_amount_decimal",
    "transform_usage": "transform_quantity",
}
CYCLE = ("interval", *RECURRING)
"""Fields of a plan that its price has in `recurring`."""


def create(account: World, id: str, given: Params) -> Object:
    """Create a price. A taken lookup key is refused or transferred."""
    given = dict(given)
    if not check_exclusive(given, "product", "product_data"):
        raise Refusal(
            400, "You must specify either `product` or `product_data` when creating a price."
        )
    transfer = given.pop("transfer_lookup_key", False)
    data = given.pop("product_data", None)
    product = (
        None if data else object_in_param(account, "products", given["product"], "product")["id"]
    )
    fields = read_price(given)
    holder = _holder(account, given.get("lookup_key"), transfer)
    product = product or products.create(account, "", data or {})["id"]
    if holder:
        change(account, "prices", holder, {"lookup_key": None})
    return add_price(account, fields | {"product": product})


def update(account: World, id: str, given: Params) -> Object:
    before = object_in_path(account, "prices", id)
    given = dict(given)
    transfer = given.pop("transfer_lookup_key", False)
    _may_change(account, before, given)
    fields = to_fields(before, given, {})
    if "currency_options" in given or "tax_behavior" in given:
        fields["currency_options"] = _options(account, before | fields, given)
    holder = _holder(account, given.get("lookup_key"), transfer, id)
    if holder:
        change(account, "prices", holder, {"lookup_key": None})
    return change(account, "prices", id, fields)


def _options(account: World, price: Object, given: Params) -> Object:
    """Merge currency options. None removes all but the price's own currency."""
    added = given.get("currency_options", {})
    held = (
        {}
        if added is None
        else account.opt_in_values.get(price["id"], {}).get("currency_options", {})
    )
    return (
        held
        | own_currency_option(price)
        | {key: currency_option(key, one) for key, one in (added or {}).items()}
    )


def _may_change(account: World, before: Object, given: Params) -> None:
    product = account.tables["products"].rows.get(before["product"])
    is_default = product is not None and product.content()["default_price"] == before["id"]
    if given.get("active") is False and is_default:
        raise Refusal(
            400,
            "This price cannot be archived because it is the default price of its product.",
            param="active",
        )
    behavior = given.get("tax_behavior", before["tax_behavior"])
    if before["tax_behavior"] not in ("unspecified", behavior):
        raise Refusal(
            400,
            "The `tax_behavior` of a price cannot be changed once it is `inclusive` or `exclusive`.",
            param="tax_behavior",
        )


def _holder(account: World, key: str | None, transfer: bool, own: str = "") -> str:
    """Return the id of the other price, active or archived, that has this lookup key, or `""`."""
    if not key:
        return ""
    holders = filter(has_text("lookup_key", key), account.tables["prices"].rows.values())
    holder = next((row.id for row in holders if row.id != own), "")
    if holder and not transfer:
        raise Refusal(
            400, f"A price (`{holder}`) already uses that lookup key.", param="lookup_key"
        )
    return holder


def create_plan(account: World, id: str, given: Params) -> Object:
    product = given.get("product")
    if isinstance(product, str):
        object_in_param(account, "products", product, "product")
    fields = read_price(_as_price(given))
    id = new_id(account, "plans", given)
    if not isinstance(product, str):
        product = products.create(account, "", product or {"name": id})["id"]
    add_price(account, fields | {"id": id, "product": product})
    return read_object(account, "plans", id)


def update_plan(account: World, id: str, given: Params) -> Object:
    before = object_in_path(account, "plans", id)
    if "product" in given:
        object_in_param(account, "products", given["product"], "product")
    return change(account, "plans", id, to_fields(before, given, {}))


def delete_plan(account: World, id: str, given: Params) -> Object:
    """Delete a plan and its price."""
    object_in_path(account, "plans", id)
    mutations.delete(account, "plans", id)
    return deleted_stub("plan", id)


def _as_price(plan: Params) -> Params:
    cycle = {name: plan[name] for name in CYCLE if name in plan}
    names = {
        name: PRICE_OF_PLAN.get(name, name)
        for name in plan
        if name not in (*CYCLE, "id", "product")
    }
    return {name: plan[old] for old, name in names.items()} | {"recurring": cycle}
