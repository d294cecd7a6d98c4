"""The lines of invoices, made of invoice items and of subscription items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..samples import invoices as samples
from ..samples.subscriptions import embedded_list, lines_url
from ..samples.values import Object, decode
from ..state import mutations
from ..state.table import has_text
from ..world import World
from . import billing
from .discounting import discount_lines
from .records import change


def of_invoice(account: World, invoice: str) -> list[Object]:
    rows = account.tables["invoiceitems"].rows.values()
    return [row.content() for row in filter(has_text("invoice", invoice), rows)]


def pending(account: World, customer: str, currency: str, subscription: str | None) -> list[Object]:
    """Return the pending items of a customer or of one subscription."""
    rows = filter(has_text("customer", customer), account.tables["invoiceitems"].rows.values())
    found = (row.content() for row in rows)
    return [
        item
        for item in found
        if item["invoice"] is None
        and item["currency"] == currency
        and subscription
        in (None, ((item["parent"] or {}).get("subscription_details") or {}).get("subscription"))
    ]


def attach(account: World, items: Sequence[Object], invoice: str) -> list[Object]:
    """Move pending items to an invoice, without an event."""
    return [change(account, "invoiceitems", item["id"], {"invoice": invoice}) for item in items]


def retotal(account: World, id: str) -> None:
    """Rebuild lines and totals of a draft after a change of its items."""
    row = account.tables["invoices"].rows[id]
    rest = [
        line
        for line in map(decode, account.children("invoices", row))
        if (line["parent"] or {}).get("type") != "invoice_item_details"
    ]
    lines = [*rest, *(item_line(account, id, item) for item in of_invoice(account, id))]
    after = row.content() | with_lines(account, row.content(), lines)
    mutations.replace(account, "invoices", samples.with_amounts_due(after), children=True)


def with_lines(account: World, invoice: Object, lines: Sequence[Object]) -> Object:
    """The lines of an invoice with its discounts, and what follows from them."""
    lines = discount_lines(account, invoice, lines)
    return samples.totals(lines) | {"lines": embedded_list(lines_url(invoice["id"]), lines)}


def item_line(account: World, invoice: str, item: Object) -> Object:
    """Make the line of an invoice item. Its id is derived from the item's id."""
    details = (item["parent"] or {}).get("subscription_details") or {}
    subscription = details.get("subscription")
    parent = {
        "invoice_item": item["id"],
        "proration": item["proration"],
        "proration_details": None,
        "subscription": subscription,
    }
    return _line(account, invoice, "il" + item["id"][2:], item["amount"], item["currency"]) | {
        "description": item["description"],
        "discountable": item["discountable"],
        "discounts": item["discounts"],
        "metadata": item["metadata"],
        "parent": {
            "invoice_item_details": parent,
            "subscription_item_details": None,
            "type": "invoice_item_details",
        },
        "period": item["period"],
        "pricing": item["pricing"],
        "quantity": item["quantity"],
        "quantity_decimal": item["quantity_decimal"],
        "subscription": subscription,
    }


def subscription_line(
    account: World, invoice: str, subscription: Object, item: Object, free: bool
) -> Object:
    """Make the line of one period of a subscription item. A free one costs nothing."""
    price, quantity = item["price"], item["quantity"]
    amount = 0 if free else billing.amount_of(price, quantity)
    parent = {
        "invoice_item": None,
        "proration": False,
        "proration_details": {"credited_items": None},
        "subscription": subscription["id"],
        "subscription_item": item["id"],
    }
    shown = 0 if quantity is None else quantity
    pricing = {"price": price.get("id"), "product": price["product"]}
    return _line(account, invoice, account.rng.id("il"), amount, price["currency"]) | {
        "description": f"{shown} x {price['product']}",
        "discounts": item.get("discounts") or [],
        "metadata": subscription["metadata"],
        "parent": {
            "invoice_item_details": None,
            "subscription_item_details": parent,
            "type": "subscription_item_details",
        },
        "period": {"end": item["current_period_end"], "start": item["current_period_start"]},
        "pricing": {
            "price_details": pricing,
            "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "quantity": shown,
        "quantity_decimal": str(shown),
        "subscription": subscription["id"],
    }


def _line(account: World, invoice: str, id: str, amount: int, currency: str) -> dict[str, Any]:
    return {
        "id": id,
        "object": "line_item",
        "amount": amount,
        "currency": currency,
        "description": None,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice,
        "livemode": account.livemode,
        "metadata": {},
        "parent": None,
        "period": None,
        "pretax_credit_amounts": [],
        "pricing": None,
        "quantity": 1,
        "quantity_decimal": "1",
        "subscription": None,
        "subtotal": amount,
        "taxes": [],
    }
