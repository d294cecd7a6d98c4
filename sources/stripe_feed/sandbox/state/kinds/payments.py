"""Payments: charges and what follows from them, up to the payout."""

from __future__ import annotations

from ...samples.generic import REFERENCE, cents, later, one_of, word
from .model import Kind, Sublist, plain

CARD = {
    "brand": "visa", "country": "US", "exp_month": 8, "exp_year": 2029, "funding": "credit", "last4": "4242",
}  # fmt: skip
PAYER = {"customer": REFERENCE, "payment_method": word(24)}

PAYMENTS: tuple[Kind, ...] = (
    plain(
        "charges", "charge", "ch", "charges", "charge", group="payments",
        filters="customer payment_intent transfer_group",
        events="updated @succeeded @pending @failed", changes="captured:true=captured amount_refunded:*=refunded",
        expanded="refunds presentment_details radar_options",
        sublists=(Sublist("refunds", "refund", "/v1/charges/:id/refunds"),),
        values={"amount": cents, "amount_captured": 0, "amount_refunded": 0, "captured": True, "customer": REFERENCE,
                "fraud_details": {}, "paid": True, "status": "succeeded", "billing_details": {"address": None, "email": None, "name": None, "phone": None, "tax_id": None},
                "payment_method_details": {"card": CARD, "type": "card"}},
    ),
    plain(
        "refunds", "refund", "re", "refunds", "charge", group="payments",
        filters="charge payment_intent",
        events="created updated updated=/charge.refund.updated @failed",
        expanded="next_action presentment_details",
        values={"amount": cents, "charge": REFERENCE, "reason": one_of("requested_by_customer", "duplicate", None), "status": "succeeded"},
    ),
    plain(
        "payment_intents", "payment_intent", "pi", "payment_intents", "payment_intent", group="payments",
        filters="customer customer_account",
        events="created @processing @requires_action @requires_capture=amount_capturable_updated @succeeded @canceled", changes="status:requires_payment_method=payment_failed",
        expanded="hooks payment_details presentment_details",
        values={"amount": cents, "capture_method": "automatic", "confirmation_method": "automatic", "customer": REFERENCE, "payment_method_types": ["card"],
                "status": "succeeded", "client_secret": word(40)},
    ),
    plain(
        "setup_intents", "setup_intent", "seti", "setup_intents", "setup_intent", group="payments",
        filters="attach_to_self? customer customer_account payment_method",
        events="created @requires_action @succeeded @canceled", changes="status:requires_payment_method=setup_failed",
        expanded="managed_payments",
        values={"attach_to_self": False, "customer": REFERENCE, "payment_method_types": ["card"], "status": "succeeded", "usage": "off_session", "client_secret": word(40)},
    ),
    plain(
        "setup_attempts", "setup_attempt", "setatt", "setup_attempts", "setup_intent", group="payments",
        filters="setup_intent!", owner="setup_intent", owners="setup_intents", retrievable=False, immutable=True,
        values={"payment_method": word(24), "payment_method_details": {"card": CARD, "type": "card"}, "status": "succeeded"},
    ),
    plain(
        "balance_transactions", "balance_transaction", "txn", "balance_transactions", "balance_transaction_source", group="payments", owner="payout", owners="payouts",
        filters="currency payout^ source type",
        values={"amount": 1000, "balance_type": "payments", "fee": 59, "net": 941, "reporting_category": "charge", "type": "charge", "status": "pending",
                "available_on": later(172_800),
                "fee_details": [{"amount": 59, "application": None, "currency": "usd", "description": "Stripe processing fees", "type": "stripe_fee"}]},
    ),
    plain(
        "disputes", "dispute", "dp", "disputes", "dispute", group="payments",
        filters="charge payment_intent",
        event="charge.dispute", events="created updated @won=closed @won=funds_reinstated @lost=closed @warning_closed=closed @needs_response=funds_withdrawn",
        values={"amount": cents, "reason": one_of("fraudulent", "product_not_received", "duplicate"), "status": "needs_response"},
    ),
    plain(
        "payouts", "payout", "po", "payouts", "payout", group="payments",
        filters="arrival_date~ destination status",
        events="created updated @paid @failed @canceled", changes="reconciliation_status:completed=reconciliation_completed",
        values={"amount": cents, "arrival_date": later(172_800), "automatic": True, "method": "standard", "source_type": "card", "status": "pending", "type": "bank_account"},
    ),
    plain(
        "transfers", "transfer", "tr", "transfers", "transfer", group="payments",
        filters="destination transfer_group", events="created updated", changes="amount_reversed:*=reversed",
        sublists=(Sublist("reversals", "transfer_reversal", "/v1/transfers/:id/reversals", children="transfer_reversals", prefix="trr", parent="transfer", by_id=True, values={"amount": 100}),),
        values={"amount": cents, "amount_reversed": 0, "destination": lambda rng, created: rng.id("acct"), "source_type": "card"},
    ),
    plain(
        "application_fees", "application_fee", "fee", "application_fees", "application_fee", group="payments",
        filters="charge", events="created", changes="amount_refunded:*=refunded",
        sublists=(Sublist("refunds", "fee_refund", "/v1/application_fees/:id/refunds", children="application_fee_refunds", prefix="fr", parent="fee", by_id=True, values={"amount": 100}),),
        values={"account": lambda rng, created: rng.id("acct"), "amount": cents, "amount_refunded": 0, "application": lambda rng, created: rng.id("ca")},
    ),
    plain(
        "topups", "topup", "tu", "topups", "topup", group="payments",
        filters="amount~ status", events="created @canceled @failed @reversed @succeeded",
        values={"amount": cents, "status": "pending"},
    ),
    plain(
        "reviews", "review", "prv", "reviews", "review", group="payments",
        events="created=opened", changes="open:false=closed",
        values={"charge": REFERENCE, "open": True, "opened_reason": "rule", "reason": "rule"},
    ),
    plain(
        "early_fraud_warnings", "radar.early_fraud_warning", "issfr", "radar/early_fraud_warnings", "charge", group="payments",
        filters="charge payment_intent", events="created updated",
        values={"actionable": True},
    ),
    plain(
        "payment_methods", "payment_method", "pm", "payment_methods", "payment_method", group="payments",
        filters="allow_redisplay customer customer_account type", owner="customer", owners="customers", under="/v1/customers/:id/payment_methods", windowed=False,
        events="created=attached updated", changes="customer:null=detached", expanded="*",
        values={"allow_redisplay": "unspecified", "billing_details": {"address": None, "email": None, "name": None, "phone": None, "tax_id": None},
                "card": CARD, "customer": REFERENCE, "type": "card"},
    ),
    plain(
        "shipping_rates", "shipping_rate", "shr", "shipping_rates", "shipping_rate", group="payments",
        filters="active? currency@fixed_amount.currency",
        values={"active": True, "fixed_amount": {"amount": 500, "currency": "usd"}, "type": "fixed_amount"},
    ),
    plain(
        "files", "file", "file", "files", "file", group="payments",
        filters="purpose", events="created", expanded="links", immutable=True,
        sublists=(Sublist("links", "file_link", "/v1/file_links", "file"),),
        values={"purpose": "dispute_evidence", "size": 9863, "type": "pdf"},
    ),
    plain("file_links", "file_link", "link", "file_links", "file", group="payments", filters="expired? file"),
)  # fmt: skip
