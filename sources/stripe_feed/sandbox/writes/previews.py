"""`/v1/invoices/create_preview`: show the next invoice without changing anything."""

from __future__ import annotations

from ..protocol.errors import Refusal
from ..protocol.parameters import Params
from ..samples.subscriptions import ENDED
from ..samples.values import Object
from ..world import World
from . import billing, invoice_items, invoice_lines, invoices, items
from .invoice_items import Proration
from .records import object_in_param


def create(account: World, id: str, given: Params) -> Object:
    """Preview the next invoice of a subscription, with or without changes, or of a new one."""
    id = f"upcoming_{account.rng.id('in')}"
    details = given.get("subscription_details", {})
    subscription = _subscription(account, given)
    customer_id = given.get("customer") or (subscription or {}).get("customer")
    customer = billing.customer_of(account, {"customer": customer_id})
    if subscription:
        lines = _changed(account, id, subscription, details)
    elif details.get("items"):
        lines = _new(account, id, details)
    else:
        lines = []
    currency = given.get("currency") or (lines[0]["currency"] if lines else customer["currency"])
    lines += _extra(account, id, customer, given.get("invoice_items", []), subscription, currency)
    if not lines:
        raise Refusal(
            404, f"No upcoming invoices for customer: {customer['id']}", "invoice_upcoming_none"
        )
    fields = {
        "billing_reason": "upcoming",
        "parent": invoices.subscription_parent(subscription) if subscription else None,
    }
    whole = invoices.new_invoice(account, customer, currency, id, fields, lines, {})
    return {"object": "invoice", "created": account.now, "livemode": account.livemode} | whole


def _subscription(account: World, given: Params) -> Object | None:
    if not given.get("subscription"):
        return None
    found = object_in_param(account, "subscriptions", given["subscription"], "subscription")
    if found["status"] in ENDED:
        raise Refusal(
            404,
            f"No upcoming invoices for customer: {found['customer']}",
            "invoice_upcoming_none",
            "subscription",
        )
    return found


def _changed(account: World, id: str, subscription: Object, details: Params) -> list[Object]:
    """Credits and debits of the change, and the next period of the items unless the change is billed
    at once, or is the end.
    """
    before = items.read_items(account, subscription["id"])
    start, end = before[0]["current_period_start"], before[0]["current_period_end"]
    stays = items.plan_items(
        account, before, details.get("items", []), "subscription_details[items]"
    )
    ends_now = details.get("cancel_now", False)
    behavior = details.get("proration_behavior", "create_prorations")
    at = details.get("proration_date", account.now)
    changes: list[Proration] = []
    if behavior != "none" and subscription["status"] != "trialing":
        changes = list(items.prorations(before, [] if ends_now else stays, start, end, at))
    lines = [
        invoice_lines.item_line(
            account, id, invoice_items.proration_item(account, subscription, change, end)
        )
        for change in changes
    ]
    ends = ends_now or details.get("cancel_at_period_end", subscription["cancel_at_period_end"])
    if ends or (changes and behavior == "always_invoice"):
        return lines
    return lines + _period(account, id, subscription, stays, end)


def _new(account: World, id: str, details: Params) -> list[Object]:
    plan = items.plan_items(account, [], details["items"], "subscription_details[items]")
    subscription = {"id": None, "metadata": details.get("metadata") or {}}
    return _period(account, id, subscription, plan, account.now)


def _period(
    account: World, id: str, subscription: Object, plan: list[items.Planned], start: int
) -> list[Object]:
    cycle = plan[0].price["recurring"]
    end = billing.after(start, cycle["interval"], cycle["interval_count"])
    period = {"current_period_start": start, "current_period_end": end}
    return [
        invoice_lines.subscription_line(
            account,
            id,
            subscription,
            {"id": (item.before or {}).get("id"), "price": item.price, "quantity": item.quantity}
            | period,
            free=False,
        )
        for item in plan
    ]


def _extra(
    account: World,
    id: str,
    customer: Object,
    given: list[Params],
    subscription: Object | None,
    currency: str,
) -> list[Object]:
    """Return the lines of pending items and of the items of the request."""
    wait = invoice_lines.pending(
        account, customer["id"], currency, subscription["id"] if subscription else None
    )
    supposed = [
        invoice_items.supposed_item(account, customer, entry)
        for entry in given
        if "invoiceitem" not in entry
    ]
    return [invoice_lines.item_line(account, id, item) for item in [*wait, *supposed]]
