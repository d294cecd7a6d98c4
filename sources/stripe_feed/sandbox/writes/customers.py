"""`/v1/customers`: created, updated, deleted; their discount and their tax ids."""

from __future__ import annotations

import re

import msgspec

from ..http import expansions
from ..protocol.errors import Refusal, missing
from ..protocol.parameters import Params
from ..samples import customers as samples
from ..samples.values import Object
from ..state import mutations
from ..state.api_versions import deleted_stub
from ..state.event_builder import EventDraft
from ..world import World
from .records import ADDRESS, add, change, merge_hash, object_in_path, to_fields

VALUES = {
    "eu_vat": re.compile(r"[A-Z]{2}[0-9A-Z+*]{2,12}"),
    "gb_vat": re.compile(r"GB\d{9}(\d{3})?"),
    "us_ein": re.compile(r"\d{2}-\d{7}"),
}
"""Formats of some types of tax ids. Other types take any value."""

PREFIX = re.compile(r"[A-Z0-9]{1,12}")
SETTINGS = dict.fromkeys(("custom_fields", "default_payment_method", "footer", "rendering_options"))
RENDERING = {"amount_tax_display": None, "template": None}
_SHIPPING = {"address": ADDRESS, "name": None, "phone": None}
_EMPTY: Object = {
    "address": None,
    "balance": 0,
    "business_name": None,
    "currency": None,
    "customer_account": None,
    "default_source": None,
    "delinquent": False,
    "description": None,
    "discount": None,
    "email": None,
    "individual_name": None,
    "invoice_settings": SETTINGS,
    "metadata": {},
    "name": None,
    "next_invoice_sequence": 1,
    "phone": None,
    "preferred_locales": [],
    "shipping": None,
    "tax_exempt": "none",
    "test_clock": None,
}
OPT_IN: Object = {
    "cash_balance": None,
    "invoice_credit_balance": {},
    "sources": [],
    "tax": {
        "automatic_tax": "unrecognized_location",
        "ip_address": None,
        "location": None,
        "provider": "stripe",
    },
    "tax_ids": [],
}
"""Expandable fields of a new customer."""

_UNSET: Object = {"tax_exempt": "none", "preferred_locales": []}
"""Values of unset fields that are not null."""

ACTS_ONLY = ("payment_method", "source", "tax", "tax_id_data", "validate")
"""Parameters that do not become fields."""


def create(account: World, id: str, given: Params) -> Object:
    id = account.rng.id("cus")
    clock = given.get("test_clock")
    if clock and clock not in account.clocks:
        raise missing("test_clock", clock, "test_clock", 400)
    for place, entry in enumerate(given.get("tax_id_data", ())):
        _check_tax_id(entry, f"tax_id_data[{place}][value]")
    fields = _EMPTY | {"id": id, "invoice_prefix": account.rng.word(8).upper()}
    made = add(account, "customers", fields | OPT_IN | _fields(account, fields, given))
    if "tax_id_data" in given:
        account.set_opt_in(
            id, {"tax_ids": [_tax_id(account, made, one) for one in given["tax_id_data"]]}
        )
    return made


def update(account: World, id: str, given: Params) -> Object:
    before = object_in_path(account, "customers", id)
    return change(account, "customers", id, _fields(account, before, given))


def delete(account: World, id: str, given: Params) -> Object:
    """Delete a customer and cancel its subscriptions."""
    object_in_path(account, "customers", id)
    mutations.delete(account, "customers", id)
    return deleted_stub("customer", id)


def delete_discount(account: World, id: str, given: Params) -> Object:
    discount: Object | None = object_in_path(account, "customers", id)["discount"]
    if discount is None:
        raise Refusal(404, f"No active discount for customer: {id}", "resource_missing")
    change(account, "customers", id, {"discount": None})
    return discount | {"deleted": True}


def _fields(account: World, before: Object, given: Params) -> Object:
    """Turn parameters into fields. Hashes are merged key by key."""
    own = {name: value for name, value in given.items() if name not in ACTS_ONLY}
    fields = to_fields(before, own, _UNSET)
    if not PREFIX.fullmatch(fields.get("invoice_prefix") or "A"):
        raise Refusal(
            400,
            "Invoice prefixes must be 1 to 12 uppercase letters or numbers.",
            param="invoice_prefix",
        )
    if "address" in given:
        fields["address"] = merge_hash(before["address"], given["address"], ADDRESS)
    if "shipping" in given:
        fields["shipping"] = _shipping(before["shipping"], given["shipping"])
    if "invoice_settings" in given:
        fields["invoice_settings"] = _settings(
            before["invoice_settings"], given["invoice_settings"]
        )
    if given.get("source"):
        fields["default_source"] = account.rng.id("card")
    if "cash_balance" in given:
        fields["cash_balance"] = _cash_balance(account, before, fields["cash_balance"])
    return fields


def _shipping(before: Object | None, given: Params | None) -> Object | None:
    shipping = merge_hash(before, given, _SHIPPING)
    if shipping is None or given is None:
        return None
    old = (before or {}).get("address")
    return shipping | {"address": merge_hash(old, given["address"], ADDRESS)}


def _settings(before: Object, given: Params) -> Object:
    settings = before | given
    if "rendering_options" in given:
        options = merge_hash(before["rendering_options"], given["rendering_options"], RENDERING)
        settings["rendering_options"] = options
    return settings


def _cash_balance(account: World, customer: Object, given: Params) -> Object:
    mode = given.get("settings", {}).get("reconciliation_mode", "merchant_default")
    merchant = mode == "merchant_default"
    return {
        "object": "cash_balance",
        "available": None,
        "customer": customer["id"],
        "customer_account": None,
        "livemode": account.livemode,
        "settings": {
            "reconciliation_mode": "automatic" if merchant else mode,
            "using_merchant_default": merchant,
        },
    }


def create_tax_id(account: World, id: str, given: Params) -> Object:
    customer = object_in_path(account, "customers", id)
    _check_tax_id(given, "value")
    held = expansions.full_value(account, "customers", customer, "tax_ids")
    made = _tax_id(account, customer, given)
    account.set_opt_in(id, {"tax_ids": [*held, made]})
    _tell_tax_id(account, "created", made)
    return made


def delete_tax_id(account: World, id: str, given: Params) -> Object:
    id, _, tax_id = id.partition("/")
    customer = object_in_path(account, "customers", id)
    held = {
        one["id"]: one for one in expansions.full_value(account, "customers", customer, "tax_ids")
    }
    if tax_id not in held:
        raise missing("tax_id", tax_id)
    gone = held.pop(tax_id)
    account.set_opt_in(id, {"tax_ids": list(held.values())})
    _tell_tax_id(account, "deleted", gone)
    return deleted_stub("tax_id", tax_id)


def _check_tax_id(given: Params, param: str) -> None:
    pattern = VALUES.get(given["type"])
    if pattern and not pattern.fullmatch(given["value"]):
        raise Refusal(400, f"Invalid value for {given['type']}.", "tax_id_invalid", param)


def _tax_id(account: World, customer: Object, given: Params) -> Object:
    made = samples.tax_id(account.rng, customer)
    country = given["type"][:2].upper() if given["type"][2:3] == "_" else None
    return made | {
        "country": None if country == "EU" else country,
        "created": account.now,
        "type": given["type"],
        "value": given["value"],
        "verification": {"status": "pending", "verified_address": None, "verified_name": None},
    }


def _tell_tax_id(account: World, what: str, found: Object) -> None:
    raw = msgspec.json.encode(found)
    happening = EventDraft(f"customer.tax_id.{what}", "tax_ids", found["id"], raw)
    account.event_log.add(happening, account.now)
