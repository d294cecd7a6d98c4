"""The group `payments`: what customers pay, and what becomes of the money."""

from __future__ import annotations

from .model import Parent, Resource, event_types

PAYMENTS: tuple[Resource, ...] = (
    Resource(
        table="charges",
        object="charge",
        group="payments",
        permission="rak_charge_read",
        label="Core > Charges and Refunds",
        events=event_types("charge", "succeeded pending failed captured expired refunded updated"),
        # there is no `created`: a card's charge begins as succeeded or failed, others as pending
        created_by=("charge.pending", "charge.succeeded", "charge.failed"),
        bearer_links=("receipt_url",),
        volatile=("receipt_url",),
        excluded=("refunds",),
        map_fields=("payment_method_details", "fraud_details"),
    ),
    Resource(
        table="refunds",
        object="refund",
        group="payments",
        permission="rak_charge_read",
        permission_guessed=True,
        label="Core > Charges and Refunds",
        # older accounts only send `charge.refund.updated`
        events=(*event_types("refund", "created updated failed"), "charge.refund.updated"),
        created_by=("refund.created",),
        bearer_links=("next_action",),
        map_fields=("destination_details",),
        customer_through=(
            ("customer", "customers"),
            ("charge", "charges"),
            ("payment_intent", "payment_intents"),
        ),
    ),
    Resource(
        table="payment_intents",
        object="payment_intent",
        group="payments",
        permission="rak_payment_intent_read",
        permission_guessed=True,
        label="Core > PaymentIntents",
        events=event_types(
            "payment_intent",
            "created processing requires_action amount_capturable_updated partially_funded payment_failed "
            "succeeded canceled",
        ),
        created_by=("payment_intent.created",),
        bearer_links=("next_action",),
        excluded=("client_secret",),
        map_fields=("last_payment_error", "payment_method_options", "amount_details"),
        relist_days=7,  # edits have no event; one is confirmed, captured or canceled by then
    ),
    Resource(
        table="setup_intents",
        object="setup_intent",
        group="payments",
        permission="rak_setup_intent_read",
        permission_guessed=True,
        label="Core > SetupIntents",
        events=event_types(
            "setup_intent", "created requires_action setup_failed succeeded canceled"
        ),
        created_by=("setup_intent.created",),
        bearer_links=("next_action",),
        excluded=("client_secret",),
        map_fields=("last_setup_error", "payment_method_options"),
        relist_days=7,  # edits have no event; one is confirmed, captured or canceled by then
    ),
    Resource(
        table="disputes",
        object="dispute",
        group="payments",
        permission="rak_dispute_read",
        label="Core > Disputes",
        events=event_types(
            "charge.dispute", "created updated funds_withdrawn funds_reinstated closed"
        ),
        created_by=("charge.dispute.created",),
        map_fields=("payment_method_details",),
        customer_through=(("charge", "charges"), ("payment_intent", "payment_intents")),
    ),
    Resource(
        table="payouts",
        object="payout",
        group="payments",
        permission="rak_payout_read",
        label="Core > Payouts",
        events=event_types(
            "payout", "created updated paid failed canceled reconciliation_completed"
        ),
        created_by=("payout.created",),
        schema_since="2025-08-27",
    ),
    Resource(
        table="topups",
        object="topup",
        group="payments",
        permission="rak_topup_read",
        permission_guessed=True,
        label="Connect > Top-ups",
        events=event_types("topup", "created succeeded failed canceled reversed"),
        created_by=("topup.created",),
        map_fields=("payment_method_options",),
        schema_since="2026-09-30",
    ),
    Resource(
        table="reviews",
        object="review",
        group="payments",
        permission="rak_review_read",
        permission_guessed=True,
        label="Radar > Reviews",
        events=event_types("review", "opened closed"),
        created_by=("review.opened",),
        customer_through=(("charge", "charges"), ("payment_intent", "payment_intents")),
        schema_since="2025-03-31",
    ),
    Resource(
        table="early_fraud_warnings",
        object="radar.early_fraud_warning",
        group="payments",
        path="/v1/radar/early_fraud_warnings",
        permission="rak_charge_read",
        permission_guessed=True,
        label="Core > Charges and Refunds",
        events=event_types("radar.early_fraud_warning", "created updated"),
        created_by=("radar.early_fraud_warning.created",),
        customer_through=(("charge", "charges"), ("payment_intent", "payment_intents")),
        schema_since="2025-03-31",
    ),
    Resource(
        table="balance_transactions",
        object="balance_transaction",
        group="payments",
        permission="rak_balance_transaction_source_read",
        label="Core > Balance Transaction Sources",
        relist_days=14,  # without an event, pending ones become available within two weeks
        customer_through=(("source", "charges"), ("source", "refunds"), ("source", "disputes")),
    ),
    Resource(
        table="payment_methods",
        object="payment_method",
        group="payments",
        created_field="",
        permission="rak_payment_method_read",
        label="Core > PaymentMethods",
        events=event_types("payment_method", "attached updated automatically_updated detached"),
        created_by=("payment_method.attached",),
        schema_since="2026-09-30",
    ),
)
"""Charges, refunds, intents, disputes, payouts and what Radar says."""

PAYMENT_LISTS: tuple[Resource, ...] = (
    Resource(
        table="setup_attempts",
        object="setup_attempt",
        group="payment_lists",
        path="/v1/setup_attempts",
        parent=Parent("setup_intents", "setup_intent", (("setup_intent", "{id}"),)),
        created_field="",
        permission="rak_setup_intent_read",
        permission_guessed=True,
        label="Core > SetupIntents",
        map_fields=("payment_method_details", "setup_error"),
    ),
    Resource(
        table="payout_balance_transactions",
        object="balance_transaction",
        group="payment_lists",
        path="/v1/balance_transactions",
        # Stripe does not know what a payout consists of that the account made by hand
        parent=Parent("payouts", "payout", (("payout", "{id}"),), flag="automatic"),
        created_field="",
        permission="rak_balance_transaction_source_read",
        label="Core > Balance Transaction Sources",
        customer_through=(("source", "charges"), ("source", "refunds"), ("source", "disputes")),
    ),
)
"""One list per setup intent, and per payout."""
