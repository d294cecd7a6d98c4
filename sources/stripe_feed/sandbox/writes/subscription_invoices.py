"""The invoices that a subscription causes: its first one, and those of changes."""

from __future__ import annotations

from collections.abc import Sequence

from ..protocol.parameters import Params
from ..samples.values import Object, decode
from ..state import mutations
from ..world import World
from . import invoice_items, invoices
from .invoice_items import Proration
from .records import object_in_param, object_in_path


def create_first_invoice(account: World, subscription: Object, extra: Sequence[Params]) -> Object:
    """The first invoice of a subscription: paid, open for one that is incomplete, or by mail a draft."""
    customer = object_in_param(account, "customers", subscription["customer"], "customer")
    currency, id = subscription["currency"], account.rng.id("in")
    row = account.tables["subscriptions"].rows[subscription["id"]]
    children = [decode(raw) for raw in account.children("subscriptions", row)]
    free = subscription["status"] == "trialing"
    lines = [
        invoice_items.subscription_line(account, id, subscription, item, free) for item in children
    ]
    for entry in extra:
        own = {"customer": customer["id"], "currency": currency, **entry}
        if "price" in own:
            own["pricing"] = {"price": own.pop("price")}
        own.pop("period", None)
        invoice_items.create(account, "", own)
    items = invoice_items.pending(account, customer["id"], currency, None)
    given = {name: subscription[name] for name in ("collection_method", "days_until_due")}
    fields = {
        "billing_reason": "subscription_create",
        "default_payment_method": subscription["default_payment_method"],
        "parent": invoices.subscription_parent(subscription),
    }
    made = invoices.create_draft(account, customer, currency, fields, items, lines, given, id)
    if subscription["collection_method"] == "charge_automatically":
        made = invoices.finalize_draft(account, made)
        if made["status"] == "open" and subscription["status"] != "incomplete":
            invoices.charge(account, made)
    shown = object_in_path(account, "subscriptions", subscription["id"]) | {"latest_invoice": id}
    return mutations.replace(account, "subscriptions", shown, children=False)


def prorate(
    account: World, subscription: Object, changes: Sequence[Proration], behavior: str
) -> None:
    """Credits and debits wait for the next invoice, are billed at once, or are not made."""
    if behavior == "none" or not changes:
        return
    row = account.tables["subscriptions"].rows[subscription["id"]]
    ends = [decode(raw)["current_period_end"] for raw in account.children("subscriptions", row)]
    for change in changes:
        item = invoice_items.proration_item(account, subscription, change, max(ends))
        invoice_items.add_item(account, item)
    if behavior == "always_invoice":
        bill_pending_items(account, subscription)


def bill_pending_items(account: World, subscription: Object) -> None:
    """Bill what waits for the next invoice of a subscription, if something does."""
    customer = object_in_param(account, "customers", subscription["customer"], "customer")
    items = invoice_items.pending(
        account, customer["id"], subscription["currency"], subscription["id"]
    )
    if not items:
        return
    fields = {
        "billing_reason": "subscription_update",
        "default_payment_method": subscription["default_payment_method"],
        "parent": invoices.subscription_parent(subscription),
    }
    given = {name: subscription[name] for name in ("collection_method", "days_until_due")}
    made = invoices.create_draft(
        account, customer, subscription["currency"], fields, items, given=given
    )
    if subscription["collection_method"] == "charge_automatically":
        made = invoices.finalize_draft(account, made)
        if made["status"] == "open":
            invoices.charge(account, made)
    shown = object_in_path(account, "subscriptions", subscription["id"])
    mutations.replace(
        account, "subscriptions", shown | {"latest_invoice": made["id"]}, children=False
    )
