"""The kinds with a life of their own: billing, as it is loaded by default."""

from __future__ import annotations

from ...samples import catalog, opt_in
from ...samples.customers import customer
from ...samples.invoices import invoice_item, quote
from .model import Filter, Kind, Operation, Sublist

CRUD: dict[Operation, str] = {"created": "created", "updated": "updated", "deleted": "deleted"}
TEXT, BOOLEAN, TIME = Filter("text"), Filter("boolean"), Filter("time")
HASH, GROUP = Filter("hash"), Filter("group")
BILLING_FILTERS = dict.fromkeys(("customer", "customer_account", "collection_method"), TEXT)
SUBSCRIPTION_STATUSES = (
    "active", "canceled", "incomplete", "incomplete_expired", "past_due", "paused", "trialing", "unpaid",
)  # fmt: skip
BILLING_EXPANDABLE = {
    "application": "application", "customer": "customer", "default_payment_method": "payment_method",
    "default_source": "card", "discounts": "discount", "on_behalf_of": "account", "test_clock": "test_clock",
}  # fmt: skip

CORE = (
    Kind(
        name="customers",
        object="customer",
        prefix="cus",
        path="/v1/customers",
        permission="rak_customer_read",
        event="customer",
        events=CRUD,
        discount_events=True,
        filters={"email": TEXT, "test_clock": TEXT},
        on_clocks=True,
        expandable={"default_source": "card", "test_clock": "test_clock"},
        opt_in={
            "tax": opt_in.customer_tax,
            "sources": opt_in.sources,
            "tax_ids": opt_in.tax_ids,
            "cash_balance": opt_in.cash_balance,
            "invoice_credit_balance": opt_in.invoice_credit_balance,
            "subscriptions": None,
        },
        sublists=(
            Sublist("tax_ids", "tax_id", "/v1/customers/:id/tax_ids"),
            Sublist("sources", "source", "/v1/customers/:id/sources"),
            Sublist(
                "subscriptions",
                "subscription",
                "/v1/customers/:id/subscriptions",
                permission="rak_subscription_read",
            ),
        ),
        keeps_stub=True,
        sample=customer,
    ),
    Kind(
        name="invoices",
        object="invoice",
        prefix="in",
        path="/v1/invoices",
        permission="rak_invoice_read",
        event="invoice",
        events=CRUD,
        leaving={"draft": ("finalized",)},
        reaching={
            "paid": ("paid", "payment_succeeded"),
            "void": ("voided",),
            "uncollectible": ("marked_uncollectible",),
        },
        filters=BILLING_FILTERS
        | {
            "status": Filter("choice", choices=("draft", "open", "paid", "uncollectible", "void")),
            "subscription": Filter(at="parent.subscription_details.subscription"),
            "due_date": TIME,
        },
        expandable=BILLING_EXPANDABLE | {"account_tax_ids": "tax_id", "latest_revision": "invoice"},
        opt_in={"payments": opt_in.payments},
        sublists=(
            Sublist("lines", "line_item", "/v1/invoices/:id/lines", children="invoice_line_items"),
            Sublist("payments", "invoice_payment", "/v1/invoice_payments", "invoice"),
        ),
    ),
    Kind(
        name="subscriptions",
        object="subscription",
        prefix="sub",
        path="/v1/subscriptions",
        permission="rak_subscription_read",
        event="customer.subscription",
        events={"created": "created", "updated": "updated", "canceled": "deleted"},
        discount_events=True,
        filters=BILLING_FILTERS
        | {
            "status": Filter("group", choices=(*SUBSCRIPTION_STATUSES, "all", "ended")),
            "price": Filter(at="items.data.price.id"),
            "plan": Filter(at="items.data.plan.id"),
            "current_period_start": Filter("time", at="items.data.current_period_start"),
            "current_period_end": Filter("time", at="items.data.current_period_end"),
            "automatic_tax": HASH,
            "test_clock": TEXT,
        },
        grouped="status",
        hidden=("canceled",),
        on_clocks=True,
        expandable=BILLING_EXPANDABLE
        | {
            "latest_invoice": "invoice",
            "pending_setup_intent": "setup_intent",
            "schedule": "subscription_schedule",
        },
        sublists=(
            Sublist(
                "items",
                "subscription_item",
                "/v1/subscription_items",
                "subscription",
                children="subscription_items",
            ),
        ),
    ),
    Kind(
        name="products",
        object="product",
        prefix="prod",
        path="/v1/products",
        permission="rak_product_read",
        event="product",
        events=CRUD,
        filters={
            "active": BOOLEAN,
            "ids": Filter("list", at="id"),
            "shippable": BOOLEAN,
            "type": TEXT,
            "url": TEXT,
        },
        expandable={"default_price": "price", "tax_code": "tax_code"},
        sample=catalog.product,
    ),
    Kind(
        name="plans",
        object="plan",
        prefix="plan",
        path="/v1/plans",
        permission="rak_plan_read",
        event="plan",
        events=CRUD,
        filters={"active": GROUP, "product": TEXT},
        grouped="active",
        hidden=("inline",),
        expandable={"product": "product"},
        opt_in={"tiers": opt_in.from_content(catalog.tiers)},
    ),
    Kind(
        name="prices",
        object="price",
        prefix="price",
        path="/v1/prices",
        permission="rak_plan_read",
        event="price",
        events=CRUD,
        filters={
            "active": GROUP,
            "currency": TEXT,
            "product": TEXT,
            "type": TEXT,
            "lookup_keys": Filter("list", at="lookup_key", most=10),
            "recurring": HASH,
        },
        grouped="active",
        hidden=("inline", "archived"),
        expandable={"product": "product"},
        opt_in={
            "tiers": opt_in.from_content(catalog.tiers),
            "currency_options": opt_in.from_content(catalog.currency_options),
        },
    ),
    Kind(
        name="coupons",
        group="billing",
        client_ids=True,
        deletable=True,
        object="coupon",
        prefix="",
        path="/v1/coupons",
        permission="rak_coupon_read",
        event="coupon",
        events=CRUD,
        opt_in={"applies_to": opt_in.constant(None), "currency_options": opt_in.constant({})},
        sample=catalog.coupon,
    ),
    Kind(
        name="invoiceitems",
        group="billing",
        deletable=True,
        object="invoiceitem",
        prefix="ii",
        path="/v1/invoiceitems",
        permission="rak_invoice_item_read",
        event="invoiceitem",
        events={"created": "created", "deleted": "deleted"},
        dated="date",
        filters={
            "customer": TEXT,
            "customer_account": TEXT,
            "invoice": TEXT,
            "pending": Filter("null", at="invoice"),
        },
        expandable={
            "customer": "customer",
            "discounts": "discount",
            "invoice": "invoice",
            "test_clock": "test_clock",
        },
        opt_in={"proration_details": opt_in.constant(None)},
        sample=invoice_item,
    ),
    Kind(
        name="quotes",
        group="billing",
        object="quote",
        prefix="qt",
        path="/v1/quotes",
        permission="rak_quote_read",
        event="quote",
        events={"created": "created"},
        reaching={
            "open": ("finalized",),
            "accepted": ("accepted",),
            "canceled": ("canceled",),
        },
        windowed=False,
        filters={
            "customer": TEXT,
            "customer_account": TEXT,
            "status": Filter("choice", choices=("accepted", "canceled", "draft", "open")),
            "test_clock": TEXT,
        },
        on_clocks=True,
        expandable={
            "application": "application",
            "customer": "customer",
            "default_tax_rates": "tax_rate",
            "discounts": "discount",
            "invoice": "invoice",
            "on_behalf_of": "account",
            "subscription": "subscription",
            "subscription_schedule": "subscription_schedule",
            "test_clock": "test_clock",
        },
        opt_in={"line_items": opt_in.constant([])},
        sublists=(Sublist("line_items", "item", "/v1/quotes/:id/line_items"),),
        sample=quote,
    ),
)
