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
    ),
)
"""Sessions, payment links and shipping rates."""
