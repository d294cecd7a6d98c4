"""Say before an action what it does that cannot be undone, and what else it changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..resources.writable import WRITABLE, Writable
from .lookup.find import PAGE, Lookup, Pages

DESTRUCTIVE: dict[tuple[str, str], str] = {
    ("customers", "delete"): "Deletes the customer for good, with its payment methods",
    ("customers", "delete_discount"): (
        "Removes the customer's discount for good: later invoices bill without it"
    ),
    ("customers", "delete_tax_id"): "Deletes the customer's tax id for good",
    ("products", "delete"): "Deletes the product for good",
    ("plans", "delete"): "Deletes the plan for good; subscriptions that use it stay",
    ("coupons", "delete"): "Deletes the coupon for good; discounts that use it stay",
    ("subscriptions", "cancel"): "Ends the subscription at once, for good",
    ("subscriptions", "delete_discount"): (
        "Removes the subscription's discounts for good: later invoices bill without them"
    ),
    ("subscriptions", "migrate"): "Migrates the subscription's billing mode; there is no way back",
    ("invoices", "delete"): "Deletes the draft for good; its invoice items do not become free",
    ("invoices", "void"): "Voids the invoice for good",
    ("invoices", "mark_uncollectible"): "Marks the invoice as uncollectible",
    ("invoices", "finalize"): (
        "Finalizes the invoice for good; if it is collected automatically, its customer is charged"
    ),
    ("invoices", "pay"): "Takes the customer's money; a draft is finalized first",
    ("invoices", "send"): "Sends the invoice to the customer; a draft is finalized first",
    ("invoice_items", "delete"): "Deletes the invoice item for good",
    ("quotes", "accept"): (
        "Accepts the quote for good: its subscription or invoice begins, which bills the customer"
    ),
    ("quotes", "cancel"): "Cancels the quote for good",
}
"""Per table and verb what cannot be undone."""
SIDE_EFFECTS: dict[tuple[str, str], str] = {
    ("customers", "source"): (
        "The source becomes the default one, and Stripe charges it for the open invoice of a past_due subscription."
    ),
    ("customers", "balance"): "The balance replaces the one that is there.",
    ("customers", "next_invoice_sequence"): "The next invoice gets this number.",
    ("invoices", "auto_advance"): "Stripe finalizes the invoice by itself, after about an hour.",
}
"""Per table and parameter what else comes of it."""
_ENDED = ("canceled", "incomplete_expired")


def side_effects(row: Writable, params: Mapping[str, Any]) -> tuple[str, ...]:
    """What else comes of a write with these parameters."""
    return tuple(
        effect
        for (table, name), effect in SIDE_EFFECTS.items()
        if table == row.table and params.get(name) not in (None, False, "")
    )


def consequences(lookup: Lookup, row: Writable, verb: str, object_id: str) -> str:
    """What an action on an object does for good; empty for one that can be undone."""
    effect = DESTRUCTIVE.get((row.table, verb))
    if effect is None:
        return ""
    more = ""
    if (row.table, verb) == ("customers", "delete"):
        count = _count(lookup, "subscriptions", {"customer": object_id})
        more = f". Subscriptions that end with it at once: {count}"
    elif (row.table, verb) == ("products", "delete"):
        count = _count(lookup, "prices", {"product": object_id})
        more = f". Prices that keep Stripe from deleting it: {count}"
    return f"{effect}{more}."


def _count(lookup: Lookup, table: str, filters: dict[str, Any]) -> str:
    """How many there are that did not end."""
    pages = Pages(lookup.api)
    listed = pages.listed(WRITABLE[table], filters, PAGE)
    count = sum(1 for item in listed if item.get("status") not in _ENDED)
    return f"{count}{' or more' if pages.has_more else ''}"
