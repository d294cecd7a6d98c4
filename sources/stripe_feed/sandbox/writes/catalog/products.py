"""`/v1/products`: create, update, and delete without prices."""

from __future__ import annotations

from ...protocol.errors import Refusal
from ...protocol.parameters import Params
from ...samples.values import Object
from ...state import mutations
from ...state.api_versions import deleted_stub
from ...world import World
from ..records import (
    add,
    change,
    check_url,
    merge_hash,
    new_id,
    object_in_param,
    object_in_path,
    to_fields,
)
from .price_fields import add_price, read_price

TAX_DETAILS = {"performance_location": None, "tax_code": None}
_EMPTY: Object = {
    "active": True,
    "default_price": None,
    "description": None,
    "images": [],
    "marketing_features": [],
    "metadata": {},
    "package_dimensions": None,
    "shippable": None,
    "statement_descriptor": None,
    "tax_code": None,
    "tax_details": None,
    "type": "service",
    "unit_label": None,
    "url": None,
}
_UNSET: Object = {"images": [], "marketing_features": []}


def create(account: World, id: str, given: Params) -> Object:
    """Create a product, and its default price from `default_price_data`."""
    fields = _fields(_EMPTY, {name: given[name] for name in given if name != "default_price_data"})
    id = new_id(account, "products", given)
    data = given.get("default_price_data")
    if data is not None:
        price = read_price(data, "default_price_data")
    product = add(account, "products", _EMPTY | {"updated": account.now} | fields | {"id": id})
    if data is None:
        return product
    made = add_price(account, price | {"product": id})
    return change(account, "products", id, {"default_price": made["id"]})


def update(account: World, id: str, given: Params) -> Object:
    before = object_in_path(account, "products", id)
    if "default_price" in given:
        price = object_in_param(account, "prices", given["default_price"], "default_price")
        if price["product"] != id:
            raise Refusal(
                400,
                f"The price specified, `{price['id']}`, belongs to another product than `{id}`.",
                param="default_price",
            )
    fields = _fields(before, given)
    unchanged = all(before[name] == value for name, value in fields.items())
    return before if unchanged else change(account, "products", id, fields)


def delete(account: World, id: str, given: Params) -> Object:
    object_in_path(account, "products", id)
    if mutations.has_prices(account, id):
        raise Refusal(
            400,
            "This product cannot be deleted because it has one or more user-created prices.",
            param="id",
        )
    mutations.delete(account, "products", id)
    return deleted_stub("product", id)


def _fields(before: Object, given: Params) -> Object:
    fields = to_fields(before, given, _UNSET)
    check_url(fields.get("url"), "url")
    for place, image in enumerate(fields.get("images", ())):
        check_url(image, f"images[{place}]")
    if set(fields.get("statement_descriptor") or "") & set("<>\\\"'"):
        raise Refusal(
            400,
            "The statement descriptor must not contain any of these characters: < > \\ \" '",
            param="statement_descriptor",
        )
    if "tax_details" in given:
        fields["tax_details"] = merge_hash(before["tax_details"], given["tax_details"], TAX_DETAILS)
    return fields
