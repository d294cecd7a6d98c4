"""`/v1/invoiceitems`: create, update and delete; and the items of prorations and previews."""

from __future__ import annotations

from typing import NamedTuple

from ..protocol.errors import Refusal, exclusive, required
from ..protocol.parameters import Params
from ..samples.values import Object
from ..state import mutations
from ..state.api_versions import deleted_stub
from ..world import World
from . import billing, invoice_lines
from .records import (
    add,
    change,
    check_currency,
    object_in_param,
    object_in_path,
    to_fields,
)

MOST = 250
_EMPTY: Object = {
    "customer_account": None,
    "description": None,
    "discountable": True,
    "discounts": [],
    "frozen_fields": [],
    "invoice": None,
    "invoicing_rules": None,
    "metadata": {},
    "net_amount": None,
    "parent": None,
    "pricing": None,
    "proration": False,
    "proration_details": None,
    "quantity": 1,
    "quantity_decimal": "1",
    "tax_rates": [],
    "test_clock": None,
}
_PLAIN = ("description", "discountable", "metadata", "period")
COSTS = ("amount", "pricing", "price_data", "unit_amount_decimal")


def create(account: World, id: str, given: Params) -> Object:
    """Create an invoice item. Without an invoice it waits for the customer's next one."""
    invoice = _editable(account, given["invoice"], "invoice") if given.get("invoice") else None
    customer = billing.customer_of(account, given)
    if invoice is not None and len(invoice_lines.of_invoice(account, invoice["id"])) >= MOST:
        raise Refusal(400, f"An invoice can have up to {MOST} invoice items.", param="invoice")
    fields, currency = _cost(account, given, customer)
    _check_currency(account, given, customer, invoice, currency)
    id = account.rng.id("ii")
    own = {
        "id": id,
        "currency": currency,
        "customer": customer["id"],
        "invoice": given.get("invoice"),
    }
    made = add_item(
        account,
        own
        | {"test_clock": customer["test_clock"]}
        | fields
        | _fields(account, _EMPTY | own, given),
    )
    if invoice is not None:
        invoice_lines.retotal(account, invoice["id"])
    return made


def update(account: World, id: str, given: Params) -> Object:
    """Update an invoice item. There is no event, except that of its draft invoice."""
    before = object_in_path(account, "invoiceitems", id)
    if before["invoice"]:
        _editable(account, before["invoice"], "id")
    fields = _fields(account, before, given)
    if any(name in given for name in (*COSTS, "quantity", "quantity_decimal")):
        fields |= _changed_cost(account, before, given)
    after = change(account, "invoiceitems", id, fields)
    if before["invoice"]:
        invoice_lines.retotal(account, before["invoice"])
    return after


def delete(account: World, id: str, given: Params) -> Object:
    before = object_in_path(account, "invoiceitems", id)
    if before["invoice"] and before["invoice"] in account.tables["invoices"].rows:
        _editable(account, before["invoice"], "id")
    mutations.delete(account, "invoiceitems", id)
    if before["invoice"] in account.tables["invoices"].rows:
        invoice_lines.retotal(account, before["invoice"])
    return deleted_stub("invoiceitem", id)


def _editable(account: World, invoice: str, param: str) -> Object:
    found = object_in_param(account, "invoices", invoice, param)
    if found["status"] != "draft":
        raise Refusal(
            400,
            "Invalid invoice: This invoice is no longer editable",
            "invoice_not_editable",
            param,
        )
    return found


def _cost(account: World, given: Params, customer: Object) -> tuple[Object, str]:
    """Return amount, pricing and quantity as fields, and the currency."""
    kinds = [name for name in COSTS if given.get(name) is not None]
    if len(kinds) > 1:
        raise exclusive(*kinds)
    if not kinds:
        raise required("amount")
    if kinds[0] in ("pricing", "price_data"):
        name = "pricing" if kinds[0] == "pricing" else ""
        entry = given["pricing"] if name else {"price_data": given["price_data"]}
        price = billing.sold_price(account, entry, name, recurring=False)
        return _priced(account, price, _quantity(given)), price["currency"]
    currency = given.get("currency") or customer["currency"]
    if currency is None:
        raise required("currency")
    quantity = _quantity(given)
    whole = given.get("amount")
    decimal = given.get("unit_amount_decimal") or str(whole)
    amount = round(float(decimal) * quantity) if whole is None else whole
    return _amounts(amount, None, decimal, quantity, given), check_currency(currency)


def _quantity(given: Params) -> int:
    return int(given.get("quantity") or float(given.get("quantity_decimal") or 1))


def _priced(account: World, price: Object, quantity: int) -> Object:
    id = billing.price_id(account, price)
    amount = billing.amount_of(price, quantity)
    details = {"price": id, "product": price["product"]}
    return _amounts(amount, details, price["unit_amount_decimal"], quantity, {})


def _amounts(
    amount: int, details: Object | None, decimal: str | None, quantity: int, given: Params
) -> Object:
    kind = "price_details" if details else "unit_amount_decimal"
    return {
        "amount": amount,
        "net_amount": amount,
        "pricing": {"price_details": details, "type": kind, "unit_amount_decimal": decimal},
        "quantity": quantity,
        "quantity_decimal": given.get("quantity_decimal") or str(quantity),
    }


def _changed_cost(account: World, before: Object, given: Params) -> Object:
    """Compute the new amount. Keep quantity and price unless they are given."""
    customer = object_in_param(account, "customers", before["customer"], "customer")
    held = {"quantity": before["quantity"], "currency": before["currency"]}
    if not any(given.get(name) is not None for name in COSTS):
        details = before["pricing"]["price_details"]
        held |= (
            {"pricing": {"price": details["price"]}}
            if details
            else {"unit_amount_decimal": before["pricing"]["unit_amount_decimal"]}
        )
    fields, currency = _cost(account, held | given, customer)
    if currency != before["currency"]:
        raise Refusal(400, "The currency of an invoice item cannot be changed.", param="pricing")
    return fields


def _check_currency(
    account: World, given: Params, customer: Object, invoice: Object | None, currency: str
) -> None:
    if invoice is not None and invoice["currency"] != currency:
        raise Refusal(
            400,
            f"The invoice has the currency {invoice['currency']}, the invoice item {currency}.",
            param="currency",
        )
    billing.use_currency(account, customer, currency, explicit="currency" in given)


def _fields(account: World, before: Object, given: Params) -> Object:
    fields = to_fields(before, {name: given[name] for name in _PLAIN if name in given}, {})
    if "tax_rates" in given:
        fields["tax_rates"] = billing.tax_rates(account, given["tax_rates"])
    if "discounts" in given:
        holder = {"customer": before["customer"], "invoice_item": before["id"]}
        fields["discounts"] = billing.discounts(
            account, given["discounts"], before["discounts"], **holder
        )
    if given.get("subscription"):
        object_in_param(account, "subscriptions", given["subscription"], "subscription")
        fields["parent"] = _parent(given["subscription"], "")
    return fields


def _parent(subscription: str, item: str) -> Object:
    details = {"subscription": subscription, "subscription_item": item or None}
    return {"subscription_details": details, "type": "subscription_details"}


def add_item(account: World, fields: Object) -> Object:
    """Store an invoice item. It has `date` instead of `created`."""
    now = {"date": account.now, "period": {"end": account.now, "start": account.now}}
    return add(account, "invoiceitems", _EMPTY | now | fields)


def supposed_item(account: World, customer: Object, given: Params) -> Object:
    """Make an item for a preview without storing it. Only previews take `price` and `unit_amount`."""
    entry = dict(given)
    if entry.get("price"):
        entry["pricing"] = {"price": entry.pop("price")}
    if entry.get("unit_amount") is not None:
        entry["unit_amount_decimal"] = str(entry.pop("unit_amount"))
    fields, currency = _cost(account, entry, customer)
    now = {"end": account.now, "start": account.now}
    own = {"id": account.rng.id("ii"), "currency": currency, "customer": customer["id"]}
    plain = {"description": entry.get("description"), "period": entry.get("period", now)}
    return _EMPTY | fields | own | plain


class Proration(NamedTuple):
    """A credit or a debit for the rest of a period."""

    item: str
    price: Object
    quantity: int | None
    amount: int


def proration_item(account: World, subscription: Object, proration: Proration, end: int) -> Object:
    """Make the invoice item of a proration without storing it."""
    price, quantity = proration.price, proration.quantity or 1
    word = "Unused" if proration.amount < 0 else "Remaining"
    details = {"price": price.get("id"), "product": price["product"]}
    fields = _amounts(proration.amount, details, price["unit_amount_decimal"], quantity, {})
    own = {
        "id": account.rng.id("ii"),
        "currency": subscription["currency"],
        "customer": subscription["customer"],
        "description": f"{word} time on {quantity} x {price['product']}",
        "discountable": False,
        "parent": _parent(subscription["id"], proration.item),
        "period": {"end": end, "start": account.now},
        "proration": True,
        "proration_details": {"credited_items": None},
        "test_clock": subscription["test_clock"],
    }
    return _EMPTY | fields | own
