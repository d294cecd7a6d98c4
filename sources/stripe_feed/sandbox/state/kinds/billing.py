"""The rest of billing: what stands around invoices and subscriptions."""

from __future__ import annotations

from ...samples.generic import REFERENCE, cents, one_of, word
from .model import Kind, Sublist, plain

LINE_ITEMS = {
    "amount_subtotal": 1900,
    "amount_total": 1900,
    "amount_discount": 0,
    "amount_tax": 0,
    "quantity": 1,
}

BILLING: tuple[Kind, ...] = (
    plain(
        "promotion_codes", "promotion_code", "promo", "promotion_codes", "promotion_code", group="billing",
        filters="active? code coupon@promotion.coupon customer customer_account", events="created updated",
        values={"active": True, "code": word(8), "times_redeemed": 0, "promotion": {"coupon": "WELCOME25", "type": "coupon"},
                "restrictions": {"currency_options": None, "first_time_transaction": False, "minimum_amount": None, "minimum_amount_currency": None}},
    ),
    plain(
        "credit_notes", "credit_note", "cn", "credit_notes", "credit_note", group="billing",
        filters="customer customer_account invoice", events="created updated @void=voided",
        sublists=(Sublist("lines", "credit_note_line_item", "/v1/credit_notes/:id/lines", children="credit_note_line_items", prefix="cnli", count=1,
                          values={"amount": 1000, "discount_amount": 0, "quantity": 1, "type": "invoice_line_item"}),),
        values={"amount": 1000, "subtotal": 1000, "total": 1000, "discount_amount": 0, "amount_shipping": 0, "pre_payment_amount": 0, "post_payment_amount": 1000,
                "number": word(12), "status": "issued", "type": "post_payment", "reason": one_of("duplicate", "order_change", None)},
    ),
    plain(
        "invoice_payments", "invoice_payment", "inpay", "invoice_payments", "invoice", group="billing",
        filters="invoice payment% status", events="@paid",
        values={"amount_requested": cents, "status": "open", "is_default": True, "payment": lambda rng, created: {"payment_intent": rng.id("pi"), "type": "payment_intent"},
                "status_transitions": {"canceled_at": None, "paid_at": None}},
    ),
    plain(
        "tax_rates", "tax_rate", "txr", "tax_rates", "tax_rate", group="billing",
        filters="active? inclusive?", events="created updated",
        values={"active": True, "country": "DE", "display_name": "VAT", "effective_percentage": 19.0, "percentage": 19.0, "rate_type": "percentage", "tax_type": "vat"},
    ),
    plain(
        "subscription_schedules", "subscription_schedule", "sub_sched", "subscription_schedules", "subscription", group="billing",
        filters="canceled_at~ completed_at~ customer customer_account released_at~ scheduled0@current_phase", on_clocks=True,
        events="created updated @canceled @completed @released",
        values={"end_behavior": "release", "status": "active"},
    ),
    plain(
        "checkout_sessions", "checkout.session", "cs_test", "checkout/sessions", "checkout_session", group="billing",
        filters="customer customer_account customer_details% payment_intent payment_link status subscription",
        event="checkout.session", events="@complete=completed @expired", changes="payment_status:paid=async_payment_succeeded",
        expanded="line_items branding_settings name_collection optional_items presentment_details tax_id_collection",
        sublists=(Sublist("line_items", "item", "/v1/checkout/sessions/:id/line_items", prefix="li", values=LINE_ITEMS),),
        values={"amount_subtotal": 1900, "amount_total": 1900, "currency": "usd", "mode": "payment", "payment_method_types": ["card"], "payment_status": "unpaid", "status": "open",
                "url": "https://checkout.stripe.com/c/pay/cs_test"},
    ),
    plain(
        "payment_links", "payment_link", "plink", "payment_links", "payment_link", group="billing",
        filters="active?", events="created updated", windowed=False, dated="",
        expanded="line_items name_collection optional_items",
        sublists=(Sublist("line_items", "item", "/v1/payment_links/:id/line_items", prefix="li", values=LINE_ITEMS),),
        values={"active": True, "billing_address_collection": "auto", "customer_creation": "if_required", "submit_type": "auto", "url": "https://buy.stripe.com/test"},
    ),
    plain(
        "customer_balance_transactions", "customer_balance_transaction", "cbtxn", "customers/:id/balance_transactions", "customer", group="billing",
        filters="invoice", owner="customer", owners="customers", immutable=True,
        values={"amount": one_of(-500, -1000, 250), "type": "adjustment"},
    ),
    plain(
        "customer_cash_balance_transactions", "customer_cash_balance_transaction", "ccsbtxn", "customers/:id/cash_balance_transactions", "customer", group="billing",
        owner="customer", owners="customers", immutable=True, windowed=False, events="created",
        expanded="adjusted_for_overdraft applied_to_payment refunded_from_payment transferred_to_balance unapplied_from_payment",
        values={"net_amount": cents, "type": "funded"},
    ),
    plain(
        "tax_ids", "tax_id", "txi", "customers/:id/tax_ids", "customer", group="billing",
        owner="customer", owners="customers", windowed=False, deletable=True,
        event="customer.tax_id", events="created updated deleted",
        values={"country": "DE", "customer": REFERENCE, "type": "eu_vat", "value": "DE123456789",
                "verification": {"status": "pending", "verified_address": None, "verified_name": None}},
    ),
    plain(
        "sources", "card", "card", "customers/:id/sources", "customer", group="billing",
        filters="object", owner="customer", owners="customers", windowed=False, dated="", deletable=True,
        event="customer.source", events="created updated deleted",
        variants={"bank_account": "ba", "source": "src"},
        values={"customer": REFERENCE, "brand": "Visa", "country": "DE", "exp_month": 8, "exp_year": 2029, "funding": "credit", "last4": "4242",
                "status": "new", "type": "card", "usage": "reusable"},
    ),
    plain(
        "trial_offers", "product_catalog.trial_offer", "trof", "product_catalog/trial_offers", "plan", group="billing",
        filters="active? prices[@price", dated="", values={"active": True},
    ),
)  # fmt: skip
