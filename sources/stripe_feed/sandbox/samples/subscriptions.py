"""Subscriptions with their items, and the lines of invoices. Embedded lists are complete here; the
account truncates them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from .values import Object, Random, metadata

MONTH = 30 * 86_400
WEIGHTED_STATUSES = (
    *("active",) * 11, *("canceled",) * 4,
    "trialing", "past_due", "unpaid", "incomplete", "incomplete_expired", "paused",
)  # fmt: skip
ENDED = ("canceled", "incomplete_expired")
WEIGHTED_INVOICE_STATUSES = ("paid",) * 14 + ("open",) * 2 + ("draft", "void", "uncollectible")


class Payer(NamedTuple):
    """What an invoice or a subscription copies from its customer."""

    id: str
    name: str | None
    email: str | None
    currency: str
    address: Object | msgspec.Raw | None = None
    clock: str | None = None


class PriceRef(NamedTuple):
    """A price as an item embeds it and a line names it. `price` and `plan` may be encoded bytes."""

    id: str
    product: str
    amount: int | None
    decimal: str | None
    currency: str
    price: Any
    plan: Any


def embedded_list(url: str, rows: Sequence[Any]) -> Object:
    """An embedded list with all its objects; the account truncates it to ten."""
    return {
        "object": "list",
        "data": list(rows),
        "has_more": False,
        "total_count": len(rows),
        "url": url,
    }


def items_url(id: str) -> str:
    return f"/v1/subscription_items?subscription={id}"


def lines_url(id: str) -> str:
    return f"/v1/invoices/{id}/lines"


def item(
    rng: Random, subscription: str, price_ref: PriceRef, created: int, quantity: int | None = 1
) -> Object:
    trial = rng.chance(0.03)
    return {
        "id": rng.id("si"),
        "object": "subscription_item",
        "billed_until": created + MONTH if rng.chance(0.1) else None,
        "billing_thresholds": {"usage_gte": 1000} if rng.chance(0.02) else None,
        "created": created,
        "current_period_end": created + MONTH,
        "current_period_start": created,
        "current_trial": {
            "end_date": created + 7 * 86_400,
            "start_date": created,
            "trial_offer": rng.id("trof"),
        }
        if trial
        else None,
        "discounts": [rng.id("di")] if rng.chance(0.03) else [],
        "metadata": metadata(rng) if rng.chance(0.2) else {},
        "plan": price_ref.plan,
        "price": price_ref.price,
        "quantity": quantity,
        "subscription": subscription,
        "tax_rates": [tax_rate(rng, created)] if rng.chance(0.05) else [],
    }


def tax_rate(rng: Random, created: int) -> Object:
    return {
        "id": rng.id("txr"),
        "object": "tax_rate",
        "active": True,
        "country": "DE",
        "created": created,
        "description": "VAT Germany",
        "display_name": "VAT",
        "effective_percentage": 19.0,
        "flat_amount": None,
        "inclusive": False,
        "jurisdiction": "DE",
        "jurisdiction_level": "country",
        "livemode": rng.livemode,
        "metadata": {},
        "percentage": 19.0,
        "rate_type": "percentage",
        "state": None,
        "tax_type": "vat",
    }


def subscription(
    rng: Random, id: str, payer: Payer, items: Sequence[Any], created: int, status: str
) -> Object:
    """A random subscription with these items; `status` determines its dates."""
    ended = (
        created + int(rng.random() * 20 * 86_400)
        if status in ("canceled", "incomplete_expired")
        else None
    )
    trial_end = created + 14 * 86_400 if status == "trialing" or rng.chance(0.1) else None
    by_mail = rng.chance(0.15)
    fee = rng.chance(0.03)
    return {
        "id": id,
        "object": "subscription",
        "application": None,
        "application_fee_percent": 12.5 if fee else None,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": rng.chance(0.4),
            "liability": {"type": "self"},
        },
        "billing_cycle_anchor": created,
        "billing_cycle_anchor_config": {
            "day_of_month": 1,
            "hour": 17,
            "minute": 2,
            "month": None,
            "second": 24,
        }
        if rng.chance(0.1)
        else None,
        "billing_mode": {"flexible": {"proration_discounts": "included"}, "type": "flexible"}
        if rng.chance(0.5)
        else {"flexible": None, "type": "classic"},
        "billing_schedules": [],
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": rng.chance(0.08) and status == "active",
        "canceled_at": ended if status == "canceled" else None,
        "cancellation_details": {
            "comment": None,
            "feedback": rng.pick(("too_expensive", "unused", None)) if ended else None,
            "feedback_option": None,
            "reason": "cancellation_requested" if status == "canceled" else None,
        },
        "collection_method": "send_invoice" if by_mail else "charge_automatically",
        "created": created,
        "currency": payer.currency,
        "customer": payer.id,
        "customer_account": None,
        "days_until_due": 30 if by_mail else None,
        "default_payment_method": rng.id("pm") if rng.chance(0.5) else None,
        "default_source": None,
        "default_tax_rates": [tax_rate(rng, created)] if rng.chance(0.1) else [],
        "description": "Annual agreement" if rng.chance(0.1) else None,
        "discounts": [rng.id("di")] if rng.chance(0.08) else [],
        "ended_at": ended,
        "invoice_settings": {
            "account_tax_ids": None,
            "custom_fields": None,
            "description": None,
            "footer": None,
            "issuer": {"type": "self"},
        },
        "items": embedded_list(items_url(id), items),
        "latest_invoice": None,
        "livemode": rng.livemode,
        "managed_payments": {"enabled": False},
        "metadata": metadata(rng),
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": {"behavior": "void", "resumes_at": None} if rng.chance(0.03) else None,
        "payment_settings": {
            "payment_method_options": {
                "card": {"network": None, "request_three_d_secure": "automatic"}
            },
            "payment_method_types": ["card"],
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "presentment_details": None,
        "schedule": rng.id("sub_sched") if rng.chance(0.04) else None,
        "start_date": created - 86_400 * 40 if rng.chance(0.05) else created,
        "status": status,
        "status_details": {"paused": _paused(created)} if status == "paused" else None,
        "test_clock": payer.clock,
        "transfer_data": {"amount_percent": 87.5, "destination": rng.id("acct")} if fee else None,
        "trial_end": trial_end,
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": created if trial_end else None,
    }


def _paused(created: int) -> Object:
    return {
        "subscription": {"type": "trial_end_without_payment_method"},
        "transitioned_at": created + 3600,
        "type": "subscription",
    }


def line(
    rng: Random,
    invoice: str,
    price_ref: PriceRef,
    start: int,
    billed: tuple[str, str] | None,
    payer: Payer,
) -> Object:
    """A random invoice line. `billed` is the subscription and its item; without it the line comes
    from an invoice item.
    """
    quantity = 1 if rng.chance(0.7) else int(rng.random() * 24) + 1
    amount = (
        price_ref.amount if price_ref.amount is not None else 700 + int(rng.random() * 5000)
    ) * quantity
    taxed = rng.chance(0.4)
    return {
        "id": rng.id("il"),
        "object": "line_item",
        "amount": amount,
        "currency": payer.currency,
        "description": f"{quantity} x Team (at {amount / 100:.2f} / month)",
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice,
        "livemode": rng.livemode,
        "metadata": metadata(rng) if rng.chance(0.2) else {},
        "parent": line_parent(rng, billed),
        "period": {"end": start + MONTH if billed else start, "start": start},
        "pretax_credit_amounts": [],
        "pricing": {
            "price_details": {"price": price_ref.id, "product": price_ref.product},
            "type": "price_details",
            "unit_amount_decimal": price_ref.decimal,
        },
        "quantity": quantity,
        "quantity_decimal": str(quantity) if rng.chance(0.9) else f"{quantity}.000000000001",
        "subscription": billed[0] if billed else None,
        "subtotal": amount,
        "taxes": [tax(rng, amount)] if taxed else [],
    }


def line_parent(rng: Random, billed: tuple[str, str] | None) -> Object:
    if billed is None:
        details = {
            "invoice_item": rng.id("ii"),
            "proration": False,
            "proration_details": None,
            "subscription": None,
        }
        return {
            "invoice_item_details": details,
            "subscription_item_details": None,
            "type": "invoice_item_details",
        }
    details = {
        "invoice_item": None,
        "proration": False,
        "proration_details": {"credited_items": None},
        "subscription": billed[0],
        "subscription_item": billed[1],
    }
    return {
        "invoice_item_details": None,
        "subscription_item_details": details,
        "type": "subscription_item_details",
    }


def tax(rng: Random, amount: int) -> Object:
    return {
        "amount": amount * 19 // 100,
        "tax_behavior": "exclusive",
        "tax_rate_details": {"tax_rate": "txr_1M" + rng.account[6:16] + "19vat"},
        "taxability_reason": "standard_rated",
        "taxable_amount": amount,
        "type": "tax_rate_details",
    }
