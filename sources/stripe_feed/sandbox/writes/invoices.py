"""`/v1/invoices`: drafts and their transitions to open, paid, void and uncollectible."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..protocol.errors import Refusal
from ..protocol.parameters import Params
from ..samples import invoices as samples
from ..samples.values import Object, decode
from ..state import mutations
from ..state.api_versions import deleted_stub
from ..world import World
from . import billing, invoice_lines
from .discounting import inherited
from .records import (
    ADDRESS,
    add,
    check_currency,
    check_exclusive,
    merge_hash,
    object_in_param,
    object_in_path,
    schedule,
    to_fields,
)

HOUR, _DAY = 3600, 86_400
NOT_OPEN = "You can only pass in open invoices. This invoice isn't open."
DECLINED = "pm_card_chargeDeclined"
"""Stripe's test payment method that always declines."""

_AUTOMATIC_TAX: Object = {
    "disabled_reason": None, "enabled": False, "liability": None, "provider": None, "status": None,
}  # fmt: skip
_PAYMENT_SETTINGS: Object = {
    "default_mandate": None, "payment_method_options": None, "payment_method_types": None,
}  # fmt: skip
_SHIPPING: Object = {"address": ADDRESS, "name": None, "phone": None}
_TRANSITIONS: Object = dict.fromkeys(
    ("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at")
)
_EMPTY: Object = {
    "account_tax_ids": None,
    "amount_shipping": 0,
    "application": None,
    "attempt_count": 0,
    "attempted": False,
    "auto_advance": False,
    "automatic_tax": _AUTOMATIC_TAX,
    "automatically_finalizes_at": None,
    "billing_reason": "manual",
    "collection_method": "charge_automatically",
    "custom_fields": None,
    "customer_account": None,
    "customer_tax_ids": [],
    "default_payment_method": None,
    "default_source": None,
    "default_tax_rates": [],
    "description": None,
    "discounts": [],
    "due_date": None,
    "effective_at": None,
    "ending_balance": None,
    "footer": None,
    "from_invoice": None,
    "hosted_invoice_url": None,
    "invoice_pdf": None,
    "issuer": {"type": "self"},
    "last_finalization_error": None,
    "latest_revision": None,
    "metadata": {},
    "next_payment_attempt": None,
    "number": None,
    "on_behalf_of": None,
    "parent": None,
    "payment_settings": _PAYMENT_SETTINGS,
    "post_payment_credit_notes_amount": 0,
    "pre_payment_credit_notes_amount": 0,
    "receipt_number": None,
    "rendering": None,
    "shipping_cost": None,
    "shipping_details": None,
    "starting_balance": 0,
    "statement_descriptor": None,
    "status": "draft",
    "status_details": None,
    "status_transitions": _TRANSITIONS,
    "threshold_reason": None,
    "total_discount_amounts": [],
    "total_pretax_credit_amounts": [],
    "webhooks_delivered_at": None,
}
_PLAIN = frozenset(
    [
        "account_tax_ids",
        "auto_advance",
        "automatically_finalizes_at",
        "collection_method",
        "custom_fields",
        "default_payment_method",
        "default_source",
        "description",
        "due_date",
        "effective_at",
        "footer",
        "issuer",
        "metadata",
        "number",
        "on_behalf_of",
        "rendering",
        "statement_descriptor",
    ]
)
"""Parameters that are fields of the same name."""

AFTER_FINALIZATION = {
    "open": frozenset(
        ["metadata", "auto_advance", "default_payment_method", "default_source", "payment_settings"]
    ),
    "uncollectible": frozenset({"metadata"}),
    "paid": frozenset({"metadata"}),
    "void": frozenset({"metadata"}),
}
"""Status -> parameters that can still be updated."""

_UNSET: Object = {"default_tax_rates": [], "discounts": []}


def create(account: World, id: str, given: Params) -> Object:
    """Create a draft. It is empty unless pending items are included."""
    subscription = given.get("subscription")
    source = _revised(account, given.get("from_invoice"))
    owner = source or {}
    if subscription:
        owner = object_in_param(account, "subscriptions", subscription, "subscription")
    customer = billing.customer_of(account, {"customer": owner.get("customer")} | given)
    check_exclusive(given, "days_until_due", "due_date")
    billing.check_collection(given, _EMPTY, "days_until_due", "due_date")
    currency = check_currency(
        given.get("currency")
        or owner.get("currency")
        or customer["currency"]
        or account.object["default_currency"]
    )
    items: Sequence[Object] = ()
    if given.get("pending_invoice_items_behavior") == "include" or subscription:
        items = invoice_lines.pending(account, customer["id"], currency, subscription)
    parent = subscription_parent(owner) if subscription else None
    fields = {"from_invoice": given.get("from_invoice"), "parent": parent}
    made = create_draft(account, customer, currency, fields, items, given=given)
    if source:
        lines = [
            decode(raw)
            for raw in account.children("invoices", account.tables["invoices"].rows[source["id"]])
        ]
        own = [line | {"id": account.rng.id("il"), "invoice": made["id"]} for line in lines]
        after = samples.with_amounts_due(made | invoice_lines.with_lines(account, made, own))
        return mutations.replace(account, "invoices", after, children=True)
    return made


def subscription_parent(subscription: Object) -> Object:
    details = {
        "metadata": subscription["metadata"],
        "subscription": subscription["id"],
        "subscription_proration_date": None,
    }
    return {
        "quote_details": None,
        "subscription_details": details,
        "type": "subscription_details",
    }


def _revised(account: World, given: Params | None) -> Object | None:
    if given is None:
        return None
    invoice = object_in_param(account, "invoices", given["invoice"], "from_invoice[invoice]")
    if invoice["status"] == "draft":
        raise Refusal(
            400, "Only a finalized invoice can be revised.", param="from_invoice[invoice]"
        )
    return invoice


def update(account: World, id: str, given: Params) -> Object:
    before = object_in_path(account, "invoices", id)
    allowed = AFTER_FINALIZATION.get(before["status"])
    if allowed is not None and (refused := [name for name in given if name not in allowed]):
        raise Refusal(400, "Finalized invoices can't be updated in this way", param=refused[0])
    check_exclusive(given, "days_until_due", "due_date")
    billing.check_collection(given, before, "days_until_due", "due_date")
    after = before | _fields(account, before, given)
    if before["status"] == "draft":
        if "discounts" in given:
            own = account.children("invoices", account.tables["invoices"].rows[id])
            after |= invoice_lines.with_lines(account, after, list(map(decode, own)))
            after = samples.with_amounts_due(after)
        after["automatically_finalizes_at"] = _finalizes_at(account, after)
        _schedule_finalization(account, after)
    return mutations.replace(account, "invoices", after, children="discounts" in given)


def delete(account: World, id: str, given: Params) -> Object:
    """Delete a draft. Its invoice items do not become pending again."""
    before = object_in_path(account, "invoices", id)
    if before["status"] != "draft":
        raise Refusal(400, "You can only delete draft invoices.")
    if (before["parent"] or {}).get("type") == "subscription_details":
        raise Refusal(400, "You can't delete invoices created by subscriptions.")
    mutations.delete(account, "invoices", id)
    return deleted_stub("invoice", id)


def finalize(account: World, id: str, given: Params) -> Object:
    before = object_in_path(account, "invoices", id)
    if before["status"] != "draft":
        raise Refusal(
            400,
            "This invoice is already finalized, you can't re-finalize a non-draft invoice.",
        )
    after = before | {name: given[name] for name in ("auto_advance",) if name in given}
    return finalize_draft(account, after)


def pay(account: World, id: str, given: Params) -> Object:
    """Pay an invoice. A draft is finalized first, even if the payment is declined."""
    invoice = object_in_path(account, "invoices", id)
    if invoice["status"] == "paid":
        raise Refusal(400, "Invoice is already paid")
    if invoice["status"] == "void":
        raise Refusal(400, NOT_OPEN)
    if invoice["status"] == "draft":
        invoice = finalize_draft(account, invoice)
    if invoice["status"] == "paid":
        return invoice
    tried = invoice | {"attempt_count": invoice["attempt_count"] + 1, "attempted": True}
    method = given.get("payment_method") or invoice["default_payment_method"]
    if method == DECLINED and not given.get("paid_out_of_band"):
        later = {"next_payment_attempt": account.now + 3 * _DAY}
        mutations.replace(account, "invoices", tried | later, children=False)
        raise Refusal(
            402,
            "Your card was declined.",
            "card_declined",
            type="card_error",
            decline_code="generic_decline",
        )
    paid = mutations.replace(account, "invoices", _paid(account, tried), children=False)
    _activate(account, paid)
    return paid


def _activate(account: World, invoice: Object) -> None:
    """Activate the subscription if its latest invoice was paid."""
    details = (invoice["parent"] or {}).get("subscription_details") or {}
    row = account.tables["subscriptions"].rows.get(details.get("subscription", ""))
    subscription = row.content() if row else {"status": ""}
    waits = subscription["status"] in ("incomplete", "past_due", "unpaid")
    if waits and subscription["latest_invoice"] == invoice["id"]:
        after = subscription | {"status": "active"}
        mutations.replace(account, "subscriptions", after, children=False)


def send(account: World, id: str, given: Params) -> Object:
    invoice = object_in_path(account, "invoices", id)
    if invoice["collection_method"] != "send_invoice":
        raise Refusal(
            400, "You can only manually send an invoice if its collection method is 'send_invoice'."
        )
    if invoice["status"] not in ("draft", "open"):
        raise Refusal(400, NOT_OPEN)
    if invoice["status"] == "draft":
        invoice = finalize_draft(account, invoice)
    return mutations.replace(
        account, "invoices", invoice | {"auto_advance": True}, children=False, more=("sent",)
    )


def void(account: World, id: str, given: Params) -> Object:
    invoice = object_in_path(account, "invoices", id)
    if invoice["status"] == "paid":
        raise Refusal(400, "Invoices with `paid` payments cannot be voided.")
    if invoice["status"] not in ("open", "uncollectible"):
        raise Refusal(400, NOT_OPEN)
    after = _ended(account, invoice, "void", "voided_at")
    return mutations.replace(account, "invoices", samples.with_amounts_due(after), children=False)


def mark_uncollectible(account: World, id: str, given: Params) -> Object:
    invoice = object_in_path(account, "invoices", id)
    if invoice["status"] == "uncollectible":
        raise Refusal(400, "This invoice has already been marked uncollectible.")
    if invoice["status"] != "open":
        raise Refusal(400, NOT_OPEN)
    reason = {"uncollectible": {"reason": "marked_by_user"}}
    after = _ended(account, invoice, "uncollectible", "marked_uncollectible_at")
    return mutations.replace(
        account, "invoices", after | {"status_details": reason}, children=False
    )


def create_draft(
    account: World,
    customer: Object,
    currency: str,
    fields: Object,
    items: Sequence[Object] = (),
    lines: Sequence[Object] = (),
    given: Params | None = None,
    id: str = "",
) -> Object:
    """Store a draft made of lines and of pending items."""
    id = id or account.rng.id("in")
    attached = invoice_lines.attach(account, items, id)
    lines = [*lines, *(invoice_lines.item_line(account, id, item) for item in attached)]
    whole = new_invoice(account, customer, currency, id, fields, lines, given or {})
    _schedule_finalization(account, whole)
    return add(account, "invoices", whole)


def new_invoice(
    account: World,
    customer: Object,
    currency: str,
    id: str,
    fields: Object,
    lines: Sequence[Object],
    given: Params,
) -> Object:
    """Make a draft without storing it."""
    whole = _EMPTY | {
        "id": id,
        "account_country": account.object["country"],
        "account_name": account.object["settings"]["dashboard"]["display_name"],
        "currency": currency,
        "customer": customer["id"],
        "period_end": account.now,
        "period_start": account.now,
        "test_clock": customer["test_clock"],
    }
    whole |= _copied(customer) | fields
    whole |= _fields(account, whole, given)
    whole["discounts"] = whole["discounts"] or inherited(
        customer, _subscription_of(account, fields)
    )
    whole |= invoice_lines.with_lines(account, whole, lines)
    whole["automatically_finalizes_at"] = _finalizes_at(account, whole)
    return samples.with_amounts_due(whole)


def _subscription_of(account: World, fields: Object) -> Object | None:
    details = (fields.get("parent") or {}).get("subscription_details") or {}
    row = account.tables["subscriptions"].rows.get(details.get("subscription") or "")
    return row.content() if row else None


def _finalizes_at(account: World, invoice: Object) -> int | None:
    """Return when a draft is finalized automatically: at the given time, or after an hour."""
    if not invoice["auto_advance"]:
        return None
    return int(invoice["automatically_finalizes_at"] or account.now + HOUR)


def _schedule_finalization(account: World, invoice: Object) -> None:
    at = invoice["automatically_finalizes_at"]
    if at is not None:
        schedule(account, at, partial(_advance, account, invoice["id"], at))


def _advance(account: World, id: str, at: int) -> None:
    """Finalize the draft if it is still due, and collect the payment."""
    row = account.tables["invoices"].rows.get(id)
    draft = row.content() if row else {"status": ""}
    if draft["status"] != "draft" or draft["automatically_finalizes_at"] != at:
        return
    finalized = finalize_draft(account, draft)
    if finalized["status"] == "open":
        by_mail = finalized["collection_method"] == "send_invoice"
        (send if by_mail else pay)(account, id, {})


def _fields(account: World, before: Object, given: Params) -> Object:
    fields = to_fields(before, {name: given[name] for name in _PLAIN if name in given}, _UNSET)
    for name, empty in (("automatic_tax", _AUTOMATIC_TAX), ("payment_settings", _PAYMENT_SETTINGS)):
        if name in given:
            fields[name] = merge_hash(before[name], given[name], empty)
    if "shipping_details" in given:
        details = merge_hash(before["shipping_details"], given["shipping_details"], _SHIPPING)
        fields["shipping_details"] = details and details | {"address": ADDRESS | details["address"]}
    if given.get("days_until_due") is not None:
        fields["due_date"] = account.now + given["days_until_due"] * _DAY
    if "default_tax_rates" in given:
        fields["default_tax_rates"] = billing.tax_rates(account, given["default_tax_rates"])
    if "discounts" in given:
        holder = {"customer": before["customer"], "invoice": before["id"]}
        fields["discounts"] = billing.discounts(
            account, given["discounts"], before["discounts"], **holder
        )
    return fields


def _copied(customer: Object) -> Object:
    """Return the customer fields that an invoice copies until it is finalized."""
    return {
        "customer_address": customer["address"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "customer_phone": customer["phone"],
        "customer_shipping": customer["shipping"],
        "customer_tax_exempt": customer["tax_exempt"],
    }


def finalize_draft(account: World, invoice: Object) -> Object:
    """Finalize a draft: assign a number, and pay it at once if nothing is due."""
    row = account.tables["customers"].rows.get(invoice["customer"])
    customer = row.content() if row else None
    link = f"{account.id}/{account.mode}_{account.rng.word(24)}"
    after = invoice | {
        "automatically_finalizes_at": None,
        "effective_at": invoice["effective_at"] or account.now,
        "hosted_invoice_url": f"https://invoice.stripe.com/i/{link}?s=ap",
        "invoice_pdf": f"https://pay.stripe.com/invoice/{link}/pdf?s=ap",
        "status": "open",
        "status_transitions": invoice["status_transitions"] | {"finalized_at": account.now},
        "webhooks_delivered_at": account.now,
    }
    if customer:
        after |= _copied(customer) | _numbered(account, invoice, customer)
    after = samples.with_amounts_due(after)
    after["ending_balance"] = min(0, after["total"] + after["starting_balance"])
    if not after["amount_due"]:
        after = _paid(account, after)
    return mutations.replace(account, "invoices", after, children=False)


def _numbered(account: World, invoice: Object, customer: Object) -> Object:
    """Take the customer's next number and credit. Counting numbers has no event."""
    number, next = customer["invoice_prefix"], customer["next_invoice_sequence"]
    credit = min(0, customer["balance"])
    account.store("customers", customer | {"next_invoice_sequence": next + 1})
    if credit and invoice["total"] > 0:
        mutations.update(
            account, "customers", customer["id"], {"balance": min(0, credit + invoice["total"])}
        )
    return {
        "number": invoice["number"] or f"{number}-{next:04d}",
        "starting_balance": credit if invoice["total"] > 0 else 0,
    }


def charge(account: World, invoice: Object) -> Object:
    """Pay an open invoice at the first attempt."""
    tried = invoice | {"attempt_count": 1, "attempted": True}
    return mutations.replace(account, "invoices", _paid(account, tried), children=False)


def _paid(account: World, invoice: Object) -> Object:
    after = _ended(account, invoice, "paid", "paid_at")
    return samples.with_amounts_due(after)


def _ended(account: World, invoice: Object, status: str, at: str) -> Object:
    return invoice | {
        "auto_advance": False,
        "next_payment_attempt": None,
        "status": status,
        "status_details": None,
        "status_transitions": invoice["status_transitions"] | {at: account.now},
    }
