"""The group `billing`: what belongs to invoices and subscriptions beyond the core."""

from __future__ import annotations

from .model import Child, Expandable, Holder, Resource, event_types

BILLING: tuple[Resource, ...] = (
    Resource(
        table="coupons",
        object="coupon",
        group="billing",
        permission="rak_coupon_read",
        permission_guessed=True,
        label="Billing > Coupons",
        events=event_types("coupon", "created updated deleted"),
        created_by=("coupon.created",),
        deleted_by=("coupon.deleted",),
        client_ids=True,
        volatile=("times_redeemed", "valid"),  # they change with each use, without an event
        expandable=(Expandable("applies_to", always=True), Expandable("currency_options")),
    ),
    Resource(
        table="discounts",
        object="discount",
        group="billing",
        permission="rak_coupon_read",
        permission_guessed=True,
        label="Billing > Coupons",
        created_field="",
        embeds=(("source.coupon", "coupons"),),
        # four levels can be expanded, so an item's discount comes with its coupon's id only
        holders=(
            Holder("customers", "discount", "customers", "id", "discount.source.coupon"),
            Holder("subscriptions", "discounts", "subscriptions", "id", "discounts.source.coupon"),
            Holder(
                "subscription_items",
                "discounts",
                "subscriptions",
                "subscription",
                "items.data.discounts",
            ),
            Holder("invoices", "discounts", "invoices", "id", "discounts.source.coupon"),
            Holder(
                "invoice_line_items", "discounts", "invoices", "invoice", "lines.data.discounts"
            ),
        ),
    ),
    Resource(
        table="promotion_codes",
        object="promotion_code",
        group="billing",
        permission="rak_promotion_code_read",
        permission_guessed=True,
        label="Billing > Promotion Codes",
        events=event_types("promotion_code", "created updated"),
        created_by=("promotion_code.created",),
        volatile=("times_redeemed",),
    ),
    Resource(
        table="tax_rates",
        object="tax_rate",
        group="billing",
        permission="rak_tax_rate_read",
        permission_guessed=True,
        label="Billing > Tax Rates",
        events=event_types("tax_rate", "created updated"),
        created_by=("tax_rate.created",),
    ),
    Resource(
        table="credit_notes",
        object="credit_note",
        group="billing",
        permission="rak_credit_note_read",
        label="Billing > Credit notes",
        events=event_types("credit_note", "created updated voided"),
        created_by=("credit_note.created",),
        bearer_links=("pdf",),
        volatile=("pdf",),
        children=(
            Child(
                field="lines",
                table="credit_note_line_items",
                object="credit_note_line_item",
                parent="credit_note",
                path="/v1/credit_notes/{id}/lines",
            ),
        ),
    ),
    Resource(
        table="invoice_items",
        object="invoiceitem",
        group="billing",
        path="/v1/invoiceitems",
        created_field="date",
        permission="rak_invoice_item_read",
        label="Billing > Invoices",
        events=event_types("invoiceitem", "created deleted"),
        created_by=("invoiceitem.created",),
        deleted_by=("invoiceitem.deleted",),
    ),
    Resource(
        table="invoice_payments",
        object="invoice_payment",
        group="billing",
        permission="rak_invoice_read",
        label="Billing > Invoices",
        events=event_types("invoice_payment", "paid"),  # no event says that one is open or canceled
        relist_days=30,
    ),
    Resource(
        table="subscription_schedules",
        object="subscription_schedule",
        group="billing",
        permission="rak_subscription_read",
        permission_guessed=True,
        label="Billing > Subscriptions",
        events=event_types(
            "subscription_schedule",
            "created updated expiring released completed canceled aborted",
        ),
        created_by=("subscription_schedule.created",),
    ),
)
"""Discounts, taxes, credit notes, and what invoices and subscriptions are made of."""
