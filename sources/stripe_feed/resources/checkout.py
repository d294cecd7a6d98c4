"""The group `checkout`: Stripe's payment pages, what was bought there, and links to them."""

from __future__ import annotations

from .model import Child, Resource, event_types

CHECKOUT: tuple[Resource, ...] = (
    Resource(
        table="checkout_sessions",
        object="checkout.session",
        group="checkout",
        path="/v1/checkout/sessions",
        permission="rak_checkout_session_read",
        permission_guessed=True,
        label="Checkout > Checkout Sessions",
        events=event_types(
            "checkout.session",
            "completed async_payment_succeeded async_payment_failed expired",
        ),  # none says that one was opened
        relist_days=2,  # an open one lives for a day
        bearer_links=("url", "after_expiration"),
        excluded=("client_secret",),
        map_fields=("payment_method_options", "saved_payment_method_options"),
        children=(
            Child(
                field="line_items",
                table="checkout_session_line_items",
                object="item",
                parent="checkout_session",
                path="/v1/checkout/sessions/{id}/line_items",
                embeds=(("price", "prices"),),
                expand=True,
            ),
        ),
        schema_since="2026-09-30",
    ),
    Resource(
        table="payment_links",
        object="payment_link",
        group="checkout",
        created_field="",
        permission="rak_payment_link_read",
        permission_guessed=True,
        label="Payment Links > Payment Links",
        events=event_types("payment_link", "created updated"),
        created_by=("payment_link.created",),
        map_fields=("payment_method_options",),
        children=(
            Child(
                field="line_items",
                table="payment_link_line_items",
                object="item",
                parent="payment_link",
                path="/v1/payment_links/{id}/line_items",
                embeds=(("price", "prices"),),
                expand=True,
            ),
        ),
    ),
    Resource(
        table="shipping_rates",
        object="shipping_rate",
        group="checkout",
        permission="rak_shipping_rate_read",
        permission_guessed=True,
        label="Core > Shipping Rates",
        created_field="",  # it could be filtered, but without events only a whole walk sees changes
    ),
)
"""Sessions, payment links and shipping rates."""
