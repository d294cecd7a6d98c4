"""Invoices: random ones, and the fields that are computed from their lines and status."""

from __future__ import annotations

from collections.abc import Sequence

from .subscriptions import Payer, embedded_list, lines_url
from .values import Object, Random, metadata

DAY = 86_400
PDF_RENDERING = {
    "amount_tax_display": None,
    "pdf": {"page_size": "a4"},
    "template": None,
    "template_version": None,
}
TRANSITIONS = {"paid": "paid_at", "void": "voided_at", "uncollectible": "marked_uncollectible_at"}


def invoice(
    rng: Random,
    id: str,
    payer: Payer,
    lines: Sequence[Object],
    created: int,
    status: str,
    subscription: str | None,
) -> Object:
    """A random invoice with these lines."""
    by_mail = rng.chance(0.2)
    drawn: Object = {
        "id": id,
        "object": "invoice",
        "account_country": "DE",
        "account_name": "Sandbox Bikes",
        "account_tax_ids": [rng.id("atxi")] if rng.chance(0.1) else None,
        "amount_shipping": 0,
        "application": None,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": rng.chance(0.4),
            "liability": {"type": "self"},
            "provider": "stripe",
            "status": "complete",
        },
        "billing_reason": "manual"
        if not subscription
        else rng.pick(("subscription_create", "subscription_cycle")),
        "collection_method": "send_invoice" if by_mail else "charge_automatically",
        "created": created,
        "currency": payer.currency,
        "custom_fields": [{"name": "PO", "value": rng.word(6)}] if rng.chance(0.05) else None,
        "customer": payer.id,
        "customer_account": None,
        "customer_address": payer.address,
        "customer_email": payer.email,
        "customer_name": payer.name,
        "customer_phone": None,
        "customer_shipping": None,
        "customer_tax_exempt": "none",
        "customer_tax_ids": [{"type": "eu_vat", "value": "DE123456789"}] if rng.chance(0.1) else [],
        "default_payment_method": rng.id("pm") if rng.chance(0.2) else None,
        "default_source": None,
        "default_tax_rates": [],
        "description": "Thank you for your order" if rng.chance(0.1) else None,
        "discounts": [rng.id("di")] if rng.chance(0.05) else [],
        "due_date": created + 30 * DAY if by_mail else None,
        "footer": None,
        "from_invoice": None,
        "issuer": {"type": "self"},
        "last_finalization_error": None,
        "latest_revision": None,
        "livemode": rng.livemode,
        "metadata": metadata(rng),
        "on_behalf_of": None,
        "parent": _parent(rng, subscription),
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
            "payment_method_types": ["card", "sepa_debit"] if rng.chance(0.3) else None,
        },
        "period_end": created,
        "period_start": created - 30 * DAY,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "rendering": PDF_RENDERING if rng.chance(0.3) else None,
        "shipping_cost": None,
        "shipping_details": None,
        "starting_balance": 0 if rng.chance(0.95) else -int(rng.random() * 5000),
        "statement_descriptor": "SANDBOX" if rng.chance(0.1) else None,
        "test_clock": payer.clock,
        "threshold_reason": None,
        "total_discount_amounts": [],
        "total_pretax_credit_amounts": [],
    }
    drawn |= (
        totals(lines)
        | status_fields(rng, id, status, created)
        | {"lines": embedded_list(lines_url(id), lines)}
    )
    return with_amounts_due(drawn)


def _parent(rng: Random, subscription: str | None) -> Object | None:
    if subscription:
        details = {
            "metadata": metadata(rng),
            "subscription": subscription,
            "subscription_proration_date": None,
        }
        return {
            "quote_details": None,
            "subscription_details": details,
            "type": "subscription_details",
        }
    if rng.chance(0.1):
        return {
            "quote_details": {"quote": rng.id("qt")},
            "subscription_details": None,
            "type": "quote_details",
        }
    return None


def totals(lines: Sequence[Object]) -> Object:
    """The sums over all lines, including those beyond the tenth."""
    subtotal = sum(line["amount"] for line in lines)
    taxes = [tax for line in lines for tax in line["taxes"] or ()]
    tax_amount = sum(tax["amount"] for tax in taxes)
    taxable = sum(tax["taxable_amount"] for tax in taxes)
    by_discount: dict[str, int] = {}
    for line in lines:
        for off in line["discount_amounts"] or ():
            by_discount[off["discount"]] = by_discount.get(off["discount"], 0) + off["amount"]
    discounted = sum(by_discount.values())
    return {
        "subtotal": subtotal,
        "subtotal_excluding_tax": subtotal,
        "total": subtotal - discounted + tax_amount,
        "total_discount_amounts": [
            {"amount": amount, "discount": id} for id, amount in by_discount.items()
        ],
        "total_excluding_tax": subtotal - discounted,
        "total_taxes": [taxes[0] | {"amount": tax_amount, "taxable_amount": taxable}]
        if taxes
        else [],
    }


def status_fields(rng: Random, id: str, status: str, at: int) -> Object:
    """The fields that follow from a status reached at a time. A draft has no number and no links."""
    final = status != "draft"
    link = f"{rng.account}/{'live' if rng.livemode else 'test'}_{rng.word(24)}"
    transitions = dict.fromkeys(("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at"))
    receipt = f"2{int(rng.random() * 900) + 100}-{int(rng.random() * 9000) + 1000}"
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
        "number": f"{rng.word(8).upper()}-{int(rng.random() * 900) + 1:04d}" if final else None,
        "receipt_number": receipt if status == "paid" else None,
        "status": status,
        "status_details": {"uncollectible": {"reason": "payment_not_received"}}
        if status == "uncollectible"
        else None,
        "status_transitions": transitions | reached,
        "webhooks_delivered_at": at + 3605 if final else None,
    }


def with_amounts_due(invoice: Object) -> Object:
    """The invoice with the amounts that follow from its total, balance and status."""
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


def invoice_payment(rng: Random, invoice: Object, number: int, amount: int) -> Object:
    """One object of `payments`, which only comes when expanded."""
    return {
        "id": rng.id("inpay"),
        "object": "invoice_payment",
        "amount_paid": amount,
        "amount_requested": amount,
        "created": (invoice.get("created") or 0) + number,
        "currency": invoice.get("currency"),
        "invoice": invoice["id"],
        "is_default": number == 0,
        "livemode": rng.livemode,
        "payment": {"payment_intent": rng.id("pi"), "type": "payment_intent"},
        "status": "paid",
        "status_transitions": {
            "canceled_at": None,
            "paid_at": (invoice.get("created") or 0) + 3700 + number,
        },
    }


def invoice_payments(rng: Random, invoice: Object, count: int) -> list[Object]:
    """The payments of an invoice, split into `count` parts."""
    paid = invoice.get("amount_paid") or 0
    parts = [paid // count] * (count - 1) if paid else []
    amounts = [*parts, paid - sum(parts)] if paid else []
    return [invoice_payment(rng, invoice, number, amount) for number, amount in enumerate(amounts)]


def invoice_item(rng: Random, date: int) -> Object:
    amount = 500 + int(rng.random() * 20_000)
    return {
        "id": rng.id("ii"),
        "object": "invoiceitem",
        "amount": amount,
        "currency": "eur",
        "customer": "",
        "customer_account": None,
        "date": date,
        "description": "Consulting" if rng.chance(0.5) else None,
        "discountable": True,
        "discounts": [],
        "frozen_fields": [],
        "invoice": None,
        "invoicing_rules": None,
        "livemode": rng.livemode,
        "metadata": metadata(rng),
        "net_amount": amount,
        "parent": None,
        "period": {"end": date, "start": date},
        "pricing": {
            "price_details": None,
            "type": "unit_amount_decimal",
            "unit_amount_decimal": str(amount),
        },
        "proration": False,
        "quantity": 1,
        "quantity_decimal": "1",
        "tax_rates": [],
        "test_clock": None,
    }


def quote(rng: Random, created: int) -> Object:
    """A draft without lines."""
    none = {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0}
    return {
        "id": rng.id("qt"),
        "object": "quote",
        "amount_subtotal": 0,
        "amount_total": 0,
        "application": None,
        "application_fee_amount": None,
        "application_fee_percent": None,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "collection_method": "charge_automatically",
        "computed": {"recurring": None, "upfront": None},
        "created": created,
        "currency": None,
        "customer": "",
        "customer_account": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "expires_at": created + 30 * DAY,
        "footer": None,
        "from_quote": None,
        "header": "Offer" if rng.chance(0.5) else None,
        "invoice": None,
        "invoice_settings": {
            "custom_fields": None,
            "days_until_due": None,
            "description": None,
            "footer": None,
            "issuer": {"type": "self"},
        },
        "livemode": rng.livemode,
        "metadata": metadata(rng),
        "number": None,
        "on_behalf_of": None,
        "status": "draft",
        "status_transitions": dict.fromkeys(("accepted_at", "canceled_at", "finalized_at")),
        "subscription": None,
        "subscription_data": {
            "billing_mode": {"flexible": None, "type": "classic"},
            "description": None,
            "effective_date": None,
            "metadata": None,
            "trial_period_days": None,
        },
        "subscription_schedule": None,
        "test_clock": None,
        "total_details": none | {"breakdown": None},
        "transfer_data": None,
    }
