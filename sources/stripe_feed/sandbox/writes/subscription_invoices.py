"""The invoices of a subscription: of its periods and of its changes."""

from __future__ import annotations

from collections.abc import Sequence

from ..protocol.parameters import Params
from ..samples.values import Object, decode
from ..state import mutations
from ..state.discounts import coupon_content, coupon_id, discount_content
from ..world import World
from . import invoice_items, invoice_lines, invoices
from .invoice_items import Proration
from .records import object_in_param, object_in_path


def create_first_invoice(account: World, subscription: Object, extra: Sequence[Params]) -> Object:
    """Create the first invoice of a subscription."""
    add_items(account, subscription, extra)
    return bill_period(account, subscription, "subscription_create")


def add_items(account: World, subscription: Object, extra: Sequence[Params]) -> None:
    """Create pending items for the next invoice."""
    for entry in extra:
        own = {"customer": subscription["customer"], "subscription": subscription["id"]}
        item = {name: value for name, value in entry.items() if name not in ("period", "price")}
        if "price" in entry:
            item["pricing"] = {"price": entry["price"]}
        invoice_items.create(account, "", own | {"currency": subscription["currency"]} | item)


def bill_period(account: World, subscription: Object, reason: str, collect: bool = True) -> Object:
    """Bill one period of all items, together with the pending ones. A trial is free. Without
    `collect` the invoice stays open.
    """
    subscription = drop_ended_discounts(account, subscription)
    id = account.rng.id("in")
    row = account.tables["subscriptions"].rows[subscription["id"]]
    children = [decode(raw) for raw in account.children("subscriptions", row)]
    free = subscription["status"] == "trialing"
    lines = [
        invoice_lines.subscription_line(account, id, subscription, item, free) for item in children
    ]
    items = invoice_lines.pending(account, subscription["customer"], subscription["currency"], None)
    return _bill(account, subscription, reason, items, lines, id, collect)


def bill_pending_items(account: World, subscription: Object) -> None:
    """Bill the pending items of a subscription, if there are any."""
    items = invoice_lines.pending(
        account, subscription["customer"], subscription["currency"], subscription["id"]
    )
    if items:
        _bill(account, subscription, "subscription_update", items, (), "")


def _bill(
    account: World,
    subscription: Object,
    reason: str,
    items: Sequence[Object],
    lines: Sequence[Object],
    id: str,
    collect: bool = True,
) -> Object:
    """Create the invoice. One by mail stays a draft, others are finalized and paid if possible."""
    customer = object_in_param(account, "customers", subscription["customer"], "customer")
    given = {name: subscription[name] for name in ("collection_method", "days_until_due")}
    by_mail = subscription["collection_method"] == "send_invoice"
    fields = {
        "billing_reason": reason,
        "default_payment_method": subscription["default_payment_method"],
        "parent": invoices.subscription_parent(subscription),
    }
    made = invoices.create_draft(
        account,
        customer,
        subscription["currency"],
        fields,
        items,
        lines,
        given | {"auto_advance": by_mail},
        id,
    )
    if not by_mail:
        made = invoices.finalize_draft(account, made)
        unpaid = made["status"] == "open" and subscription["status"] not in (
            "incomplete",
            "past_due",
        )
        if collect and unpaid:
            invoices.charge(account, made)
    shown = object_in_path(account, "subscriptions", subscription["id"])
    for taken in made["total_discount_amounts"]:
        account.set_opt_in(taken["discount"], {"used": True})
    return mutations.replace(
        account, "subscriptions", shown | {"latest_invoice": made["id"]}, children=False
    )


def drop_ended_discounts(account: World, subscription: Object) -> Object:
    """Take away the discounts that have ended, and those that were good for one invoice."""
    kept = [
        id
        for id in subscription["discounts"]
        if _goes_on(account, id, discount_content(account, id, subscription))
    ]
    if kept == subscription["discounts"]:
        return subscription
    return mutations.replace(
        account, "subscriptions", subscription | {"discounts": kept}, children=False
    )


def _goes_on(account: World, id: str, discount: Object) -> bool:
    if discount["end"] is not None and discount["end"] <= account.now:
        return False
    terms = coupon_content(account, coupon_id(account, discount))
    return terms["duration"] != "once" or not account.opt_in_values.get(id, {}).get("used")


def prorate(
    account: World, subscription: Object, changes: Sequence[Proration], behavior: str
) -> None:
    """Create pending items for a change. `always_invoice` bills them, `none` skips them."""
    if behavior == "none" or not changes:
        return
    row = account.tables["subscriptions"].rows[subscription["id"]]
    ends = [decode(raw)["current_period_end"] for raw in account.children("subscriptions", row)]
    for change in changes:
        item = invoice_items.proration_item(account, subscription, change, max(ends))
        invoice_items.add_item(account, item)
    if behavior == "always_invoice":
        bill_pending_items(account, subscription)
