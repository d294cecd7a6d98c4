"""Invoices: drawn, and recomputed when their lines or their status change."""

from __future__ import annotations

from collections.abc import Sequence

from .customers import Dice, Object, metadata
from .subscriptions import Payer, lines_url, listed

DAY = 86_400
RENDERING = {
    "amount_tax_display": None,
    "pdf": {"page_size": "a4"},
    "template": None,
    "template_version": None,
}
TRANSITIONS = {"paid": "paid_at", "void": "voided_at", "uncollectible": "marked_uncollectible_at"}


def invoice(
    dice: Dice,
    id: str,
    payer: Payer,
    lines: Sequence[Object],
    created: int,
    status: str,
    subscription: str | None,
) -> Object:
    """An object whose `lines` are given."""
    by_mail = dice.chance(0.2)
    found: Object = {
        "id": id,
        "object": "invoice",
        "account_country": "DE",
        "account_name": "Sandbox Bikes",
        "account_tax_ids": [dice.id("atxi")] if dice.chance(0.1) else None,
        "amount_shipping": 0,
        "application": None,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": dice.chance(0.4),
            "liability": {"type": "self"},
            "provider": "stripe",
            "status": "complete",
        },
        "billing_reason": "manual"
        if not subscription
        else dice.pick(("subscription_create", "subscription_cycle")),
        "collection_method": "send_invoice" if by_mail else "charge_automatically",
        "created": created,
        "currency": payer.currency,
        "custom_fields": [{"name": "PO", "value": dice.word(6)}] if dice.chance(0.05) else None,
        "customer": payer.id,
        "customer_account": None,
        "customer_address": payer.address,
        "customer_email": payer.email,
        "customer_name": payer.name,
        "customer_phone": None,
        "customer_shipping": None,
        "customer_tax_exempt": "none",
        "customer_tax_ids": [{"type": "eu_vat", "value": "DE123456789"}]
        if dice.chance(0.1)
        else [],
        "default_payment_method": dice.id("pm") if dice.chance(0.2) else None,
        "default_source": None,
        "default_tax_rates": [],
        "description": "Thank you for your order" if dice.chance(0.1) else None,
        "discounts": [dice.id("di")] if dice.chance(0.05) else [],
        "due_date": created + 30 * DAY if by_mail else None,
        "footer": None,
        "from_invoice": None,
        "issuer": {"type": "self"},
        "last_finalization_error": None,
        "latest_revision": None,
        "livemode": dice.livemode,
        "metadata": metadata(dice),
        "on_behalf_of": None,
        "parent": _parent(dice, subscription),
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
            "payment_method_types": ["card", "sepa_debit"] if dice.chance(0.3) else None,
        },
        "period_end": created,
        "period_start": created - 30 * DAY,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "rendering": RENDERING if dice.chance(0.3) else None,
        "shipping_cost": None,
        "shipping_details": None,
        "starting_balance": 0 if dice.chance(0.95) else -int(dice.random() * 5000),
        "statement_descriptor": "SANDBOX" if dice.chance(0.1) else None,
        "test_clock": payer.clock,
        "threshold_reason": None,
        "total_discount_amounts": [],
        "total_pretax_credit_amounts": [],
    }
    found |= (
        money(lines) | standing(dice, id, status, created) | {"lines": listed(lines_url(id), lines)}
    )
    return settled(found)


def _parent(dice: Dice, subscription: str | None) -> Object | None:
    if subscription:
        details = {
            "metadata": metadata(dice),
            "subscription": subscription,
            "subscription_proration_date": None,
        }
        return {
            "quote_details": None,
            "subscription_details": details,
            "type": "subscription_details",
        }
    if dice.chance(0.1):
        return {
            "quote_details": {"quote": dice.id("qt")},
            "subscription_details": None,
            "type": "quote_details",
        }
    return None


def money(lines: Sequence[Object]) -> Object:
    """The sums over all lines, those beyond the tenth too."""
    subtotal = sum(line["amount"] for line in lines)
    taxes = [tax for line in lines for tax in line["taxes"] or ()]
    taxed = sum(tax["amount"] for tax in taxes)
    taxable = sum(tax["taxable_amount"] for tax in taxes)
    return {
        "subtotal": subtotal,
        "subtotal_excluding_tax": subtotal,
        "total": subtotal + taxed,
        "total_excluding_tax": subtotal,
        "total_taxes": [taxes[0] | {"amount": taxed, "taxable_amount": taxable}] if taxes else [],
    }


def standing(dice: Dice, id: str, status: str, at: int) -> Object:
    """What follows from the status, first reached at `at`; a draft has no number and no links yet."""
    final = status != "draft"
    link = f"{dice.account}/{'live' if dice.livemode else 'test'}_{dice.word(24)}"
    transitions = dict.fromkeys(("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at"))
    receipt = f"2{int(dice.random() * 900) + 100}-{int(dice.random() * 9000) + 1000}"
    reached: dict[str, int | None] = {"finalized_at": at + 3600} if final else {}
    if status in TRANSITIONS:
        reached[TRANSITIONS[status]] = at + 3700
    return {
        "attempt_count": 1 if status in ("paid", "uncollectible") else 0,
        "attempted": status in ("paid", "uncollectible"),
        "auto_advance": status in ("draft", "open"),
        "automatically_finalizes_at": None if final else at + 3600,
        "effective_at": at + 3600 if final else None,
        "ending_balance": 0 if final else None,
        "hosted_invoice_url": f"https://invoice.stripe.com/i/{link}?s=ap" if final else None,
        "invoice_pdf": f"https://pay.stripe.com/invoice/{link}/pdf?s=ap" if final else None,
        "next_payment_attempt": at + 4 * DAY if status == "open" else None,
        "number": f"{dice.word(8).upper()}-{int(dice.random() * 900) + 1:04d}" if final else None,
        "receipt_number": receipt if status == "paid" else None,
        "status": status,
        "status_details": {"uncollectible": {"reason": "payment_not_received"}}
        if status == "uncollectible"
        else None,
        "status_transitions": transitions | reached,
        "webhooks_delivered_at": at + 3605 if final else None,
    }


def settled(invoice: Object) -> Object:
    """The same invoice with the amounts that follow from its total, balance and status."""
    due = (
        max(0, invoice["total"] + invoice["starting_balance"])
        if invoice["status"] != "void"
        else invoice["total"]
    )
    paid = due if invoice["status"] == "paid" else 0
    return invoice | {
        "amount_due": due,
        "amount_overpaid": 0,
        "amount_paid": paid,
        "amount_paid_off_stripe": 0,
        "amount_remaining": due - paid,
    }


def invoice_payment(dice: Dice, invoice: Object, number: int, amount: int) -> Object:
    """One row of `payments`, which only comes when expanded."""
    return {
        "id": dice.id("inpay"),
        "object": "invoice_payment",
        "amount_paid": amount,
        "amount_requested": amount,
        "created": (invoice.get("created") or 0) + number,
        "currency": invoice.get("currency"),
        "invoice": invoice["id"],
        "is_default": number == 0,
        "livemode": dice.livemode,
        "payment": {"payment_intent": dice.id("pi"), "type": "payment_intent"},
        "status": "paid",
        "status_transitions": {
            "canceled_at": None,
            "paid_at": (invoice.get("created") or 0) + 3700 + number,
        },
    }
