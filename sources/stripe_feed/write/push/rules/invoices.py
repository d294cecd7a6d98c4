"""Invoices, their items, and quotes: what can be changed depends on how far they are."""

from __future__ import annotations

from typing import Any

from ....api.forms import path_to
from ....errors import InvalidParameter
from ....resources.writable import WRITABLE, Writable
from ...lookup.find import Lookup, Object
from ...parameters import Params
from ...unchanged import equal
from ..decision import Update, field_changes, get
from ..definition import Definition
from ..log import LoggedRow, PushStep
from ..mapping import Wanted, keep_entries, update_params

DRAFT = "draft"
_DAY = 86_400
AFTER_DRAFT = frozenset(
    ("metadata", "auto_advance", "default_payment_method", "default_source", "payment_settings")
)
"""What Stripe still takes once an invoice is finalized."""


def update_invoice(
    lookup: Lookup, push: Definition, wanted: Wanted, held: Object, logged: LoggedRow | None
) -> Update:
    """Update a draft, or the little that a finalized invoice lets change."""
    params = update_params(push, wanted, as_sent(lookup, push.row, held))
    fixed = sorted(params.keys() - AFTER_DRAFT)
    if held["status"] != DRAFT and fixed:
        raise InvalidParameter(
            f"The invoice {held['id']} is {held['status']}: Stripe does not change {', '.join(fixed)} any more.",
            fixed[0],
        )
    return _update(push, held, params)


def as_sent(lookup: Lookup, row: Writable, held: Object) -> Object:
    """An object with what it shows in another form than it is sent."""
    match row.table:
        case "invoices":
            return {**held, "days_until_due": _days_until_due(held)}
        case "invoice_items":
            pricing = held.get("pricing") or {}
            price = (pricing.get("price_details") or {}).get("price")
            amount = pricing.get("unit_amount_decimal")
            return {**held, "pricing": {"price": price}, "unit_amount_decimal": amount}
        case "quotes":
            full = get(lookup, row, held["id"], ("line_items",)) or held
            lines = full.get("line_items") or {}
            found = lines["data"] if isinstance(lines, dict) and "data" in lines else lines or []
            shown = [{"price": one["price"]["id"], "quantity": one["quantity"]} for one in found]
            return {**held, "line_items": shown}
    return held


def _days_until_due(invoice: Object) -> int | None:
    """What an invoice was given as days, which it shows as a date."""
    if invoice.get("due_date") is None:
        return None
    finalized_at = (invoice.get("status_transitions") or {}).get("finalized_at")
    seconds: int = invoice["due_date"] - (finalized_at or invoice["created"])
    return round(seconds / _DAY)


def update_invoice_item(
    lookup: Lookup, push: Definition, wanted: Wanted, held: Object, logged: LoggedRow | None
) -> Update:
    """Update an item that waits, or is on a draft."""
    shown = as_sent(lookup, push.row, held)
    params = update_params(push, wanted, shown)
    if params and not is_free(lookup, held):
        raise InvalidParameter(
            f"The invoice item {held['id']} is on an invoice that is no draft any more: it cannot be changed."
        )
    return _update(push, shown, params)


def is_free(lookup: Lookup, item: Object) -> bool:
    """Whether an invoice item waits, or is on a draft."""
    if not item.get("invoice"):
        return True
    invoice = get(lookup, WRITABLE["invoices"], str(item["invoice"]))
    return invoice is None or invoice["status"] == DRAFT


def update_quote(
    lookup: Lookup, push: Definition, wanted: Wanted, held: Object, logged: LoggedRow | None
) -> Update:
    """Update a draft; the lines are sent as a whole if they differ."""
    params = update_params(push, wanted, held)
    if "line_items" in params:
        held_lines = as_sent(lookup, push.row, held)["line_items"]
        if _same_lines(params["line_items"], held_lines):
            del params["line_items"]
        else:
            count = len(params["line_items"])
            keep_entries(push, wanted, "line_items", count, count < len(held_lines))
    if params and held["status"] != DRAFT:
        raise InvalidParameter(
            f"The quote {held['id']} is {held['status']}: only a draft can be changed."
        )
    return _update(push, held, params)


def _same_lines(wanted: Any, held: Any) -> bool:
    return len(wanted) == len(held) and all(
        set(line) <= {"price", "quantity"}
        and line.get("price") == before["price"]
        and equal("quantity", before["quantity"], line.get("quantity", 1))
        for line, before in zip(wanted, held, strict=True)
    )


def _update(push: Definition, held: Object, params: Params) -> Update:
    if not params:
        return (), (), ()
    step = PushStep("update", "post", path_to(push.row.verbs["update"].path, held["id"]), params)
    return (step,), field_changes(held, params), ()
