"""The default group of resources: customers, invoices, subscriptions, products, plans, prices."""

from __future__ import annotations

from .model import Child, Expandable, Resource, event_types

CORE: tuple[Resource, ...] = (
    Resource(
        table="customers",
        object="customer",
        permission="rak_customer_read",
        label="Core > Customers",
        events=(
            *event_types("customer", "created updated deleted"),
            *event_types("customer.discount", "created updated deleted"),
        ),
        created_by=("customer.created",),
        deleted_by=("customer.deleted",),
        schema_since="2026-02-25",
        hides_test_clocks=True,
        volatile=("next_invoice_sequence",),
        excluded=("subscriptions",),
        expandable=(
            Expandable("tax"),
            Expandable("sources", "/v1/customers/{id}/sources"),
            Expandable("tax_ids", "/v1/customers/{id}/tax_ids"),
            Expandable("cash_balance"),
            Expandable("invoice_credit_balance"),
        ),
    ),
    Resource(
        table="products",
        object="product",
        permission="rak_product_read",
        label="Core > Products",
        events=event_types("product", "created updated deleted"),
        created_by=("product.created",),
        deleted_by=("product.deleted",),
        client_ids=True,
        schema_since="2026-09-30",
    ),
    Resource(
        table="prices",
        object="price",
        permission="rak_plan_read",
        label="Billing > Prices",
        events=event_types("price", "created updated deleted"),
        created_by=("price.created",),
        deleted_by=("price.deleted",),
        client_ids=True,
        schema_since="2025-03-31",
        list_filters=((("active", "true"),), (("active", "false"),)),
        expandable=(Expandable("tiers"), Expandable("currency_options")),
    ),
    Resource(
        table="plans",
        object="plan",
        permission="rak_plan_read",
        label="Billing > Prices",
        events=event_types("plan", "created updated deleted"),
        created_by=("plan.created",),
        deleted_by=("plan.deleted",),
        client_ids=True,
        schema_since="2025-03-31",
        expandable=(Expandable("tiers"),),
    ),
    Resource(
        table="subscriptions",
        object="subscription",
        permission="rak_subscription_read",
        label="Billing > Subscriptions",
        events=(
            *event_types(
                "customer.subscription",
                "created updated deleted paused resumed trial_will_end pending_update_applied pending_update_expired",
            ),
            *event_types("customer.discount", "created updated deleted"),
        ),
        created_by=("customer.subscription.created",),  # `deleted` is a cancellation: it stays
        schema_since="2026-09-30",
        map_fields=("payment_settings", "pending_update"),
        list_filters=((("status", "all"),),),
        hides_test_clocks=True,
        children=(
            Child(
                field="items",
                table="subscription_items",
                object="subscription_item",
                parent="subscription",
                path="/v1/subscription_items",
                params=(("subscription", "{id}"),),
                embeds=(("price", "prices"), ("plan", "plans")),
            ),
        ),
    ),
    Resource(
        table="invoices",
        object="invoice",
        permission="rak_invoice_read",
        label="Billing > Invoices",
        events=event_types(
            "invoice",
            "created updated deleted finalized finalization_failed sent paid payment_succeeded payment_failed "
            "payment_action_required payment_attempt_required overdue overpaid will_be_due marked_uncollectible voided",
        ),
        created_by=("invoice.created",),
        deleted_by=("invoice.deleted",),
        schema_since="2026-09-30",
        bearer_links=("hosted_invoice_url", "invoice_pdf"),
        map_fields=("payment_settings", "last_finalization_error"),
        volatile=("webhooks_delivered_at", "hosted_invoice_url", "invoice_pdf"),
        excluded=("confirmation_secret",),
        expandable=(Expandable("payments", "/v1/invoice_payments", (("invoice", "{id}"),)),),
        children=(
            Child(
                field="lines",
                table="invoice_line_items",
                object="line_item",
                parent="invoice",
                path="/v1/invoices/{id}/lines",
            ),
        ),
    ),
)
"""The default group."""
