"""The customer of Stripe's documentation (checklist S1-S29), and its like of each other resource,
load without loss.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import duckdb
import msgspec
import pytest

from stripe_feed.resources.model import Child
from stripe_feed.sandbox import Sandbox
from tests.copies import Copy, copy_of
from tests.core import CORE, CORE_TABLES
from tests.truth import columns_of

SEED = """{
"id": "cus_NffrFeUfNV2Hib",
"object": "customer",
"address": null,
"balance": 0,
"created": 1680893993,
"currency": null,
"default_source": null,
"delinquent": false,
"description": null,
"discount": null,
"email": "jennyrosen@example.com",
"invoice_prefix": "0759376C",
"invoice_settings": {
"custom_fields": null,
"default_payment_method": null,
"footer": null,
"rendering_options": null
},
"livemode": false,
"metadata": {},
"name": "Jenny Rosen",
"next_invoice_sequence": 1,
"phone": null,
"preferred_locales": [],
"shipping": null,
"tax_exempt": "none",
"test_clock": null
}"""
"""As https://docs.stripe.com/api/customers/object shows it."""

FULL = json.loads(SEED) | {
    "id": "cus_Full",
    "address": {
        "city": "Berlin",
        "country": "DE",
        "line1": "Torstr. 1",
        "line2": None,
        "postal_code": "10119",
        "state": None,
    },
    "balance": -9007199254740993,
    "currency": "eur",
    "default_source": "card_1",
    "delinquent": True,
    "description": "Zoë \u2028 🚲",
    "discount": {
        "id": "di_1",
        "object": "discount",
        "source": {"coupon": "25OFF", "type": "coupon"},
        "start": 1680893993,
    },
    "invoice_settings": {
        "custom_fields": [{"name": "PO", "value": "1"}],
        "default_payment_method": "pm_1",
        "footer": "f",
    },
    "metadata": {"order_id": "6735", "": "", "a.b": "{}"},
    "next_invoice_sequence": 2,
    "phone": "+49 30 1",
    "preferred_locales": ["de", "en"],
    "shipping": {"address": {"city": "Berlin"}, "name": "Jenny", "phone": None},
    "tax_exempt": "reverse",
    "business_name": "Rosen GmbH",
    "individual_name": "Jenny Rosen",
    "subscriptions": {
        "object": "list",
        "data": [],
        "has_more": False,
        "url": "/v1/customers/cus_Full/subscriptions",
    },
    "not_documented_yet": {"a": [1, None]},
}
BARE = {
    "id": "cus_Bare",
    "object": "customer",
    "created": 1680893993,
    "livemode": False,
    "metadata": {},
}

EXPANDED = {
    "tax": {
        "automatic_tax": "supported",
        "ip_address": None,
        "location": {"country": "DE", "source": "ip_address"},
    },
    "cash_balance": {
        "object": "cash_balance",
        "available": {"eur": 10000},
        "customer": "cus_Full",
        "livemode": False,
    },
    "invoice_credit_balance": {"eur": -1500, "jpy": 0},
    "sources": [{"id": f"card_{n}", "object": "card", "last4": "4242"} for n in range(13)],
    "tax_ids": [{"id": f"txi_{n}", "object": "tax_id", "value": f"DE{n}"} for n in range(12)],
}
"""What only comes when it is expanded; two of them are lists, longer than what an object shows."""

PRICE = {
    "id": "price_1",
    "object": "price",
    "active": True,
    "billing_scheme": "per_unit",
    "created": 1679431181,
    "currency": "usd",
    "custom_unit_amount": None,
    "livemode": False,
    "lookup_key": None,
    "metadata": {"a": "b"},
    "nickname": None,
    "product": "prod_1",
    "recurring": {
        "interval": "month",
        "interval_count": 1,
        "meter": None,
        "usage_type": "licensed",
    },
    "tax_behavior": "unspecified",
    "tiers_mode": None,
    "transform_quantity": {"divide_by": 3, "round": "up"},
    "type": "recurring",
    "unit_amount": None,
    "unit_amount_decimal": "0.000000000001",
}
PLAN = {
    "id": "price_1",
    "object": "plan",
    "active": True,
    "amount": None,
    "amount_decimal": "0.000000000001",
    "billing_scheme": "per_unit",
    "created": 1679431181,
    "currency": "usd",
    "interval": "month",
    "interval_count": 1,
    "livemode": False,
    "metadata": {"a": "b"},
    "meter": None,
    "nickname": None,
    "product": "prod_1",
    "tiers_mode": None,
    "transform_usage": {"divide_by": 3, "round": "up"},
    "trial_period_days": None,
    "usage_type": "licensed",
}
LIKE: dict[str, dict[str, Any]] = {
    "products": {
        "id": "prod_1",
        "object": "product",
        "active": True,
        "created": 1678833149,
        "default_price": "price_1",
        "description": None,
        "images": ["https://example.com/a.png"],
        "livemode": False,
        "marketing_features": [{"name": "✓"}],
        "metadata": {"k": "v"},
        "name": "Gold Plan",
        "package_dimensions": {"height": 1.5, "length": 2, "weight": 3, "width": 4},
        "shippable": None,
        "statement_descriptor": "GOLD",
        "tax_code": "txcd_1",
        "type": "service",
        "unit_label": "seat",
        "updated": 1678833150,
        "url": "https://example.com",
    },
    "prices": PRICE,
    "plans": PLAN,
    "subscriptions": {
        "id": "sub_1",
        "object": "subscription",
        "application": None,
        "application_fee_percent": 12.5,
        "automatic_tax": {"enabled": False},
        "billing_cycle_anchor": 1679609767,
        "cancel_at": 1700000000,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "collection_method": "charge_automatically",
        "created": 1679609767,
        "currency": "usd",
        "customer": "cus_Full",
        "days_until_due": 30,
        "discounts": ["di_1"],
        "ended_at": None,
        "latest_invoice": {"id": "in_1", "object": "invoice"},
        "livemode": False,
        "metadata": {},
        "status": "active",
        "start_date": 1679609767,
        "test_clock": None,
        "trial_end": 1698834803,
        "trial_start": 1679609767,
        "items": {
            "object": "list",
            "has_more": False,
            "url": "/v1/subscription_items?subscription=sub_1",
            "data": [
                {
                    "id": "si_1",
                    "object": "subscription_item",
                    "created": 1679609768,
                    "current_period_end": 1682288167,
                    "current_period_start": 1679609767,
                    "discounts": [],
                    "metadata": {"n": "1"},
                    "plan": PLAN,
                    "price": PRICE,
                    "quantity": 3,
                    "subscription": "sub_1",
                    "tax_rates": [],
                    "brand_new": True,
                }
            ],
        },
    },
    "invoices": {
        "id": "in_1",
        "object": "invoice",
        "amount_due": 9007199254740993,
        "amount_paid": 0,
        "created": 1680644467,
        "confirmation_secret": {"client_secret": "pi_secret"},
        "currency": "usd",
        "customer": {"id": "cus_Full", "name": "Jenny"},
        "customer_address": None,
        "hosted_invoice_url": "https://invoice.example.com/x",
        "livemode": False,
        "metadata": {},
        "number": "0759376C-0001",
        "period_end": 1680644467,
        "period_start": 1680644467,
        "status": "open",
        "status_transitions": {"finalized_at": 1680644470, "paid_at": None},
        "subtotal": -500,
        "total": -500,
        "lines": {
            "object": "list",
            "has_more": False,
            "url": "/v1/invoices/in_1/lines",
            "data": [
                {
                    "id": "il_1",
                    "object": "line_item",
                    "amount": -500,
                    "currency": "usd",
                    "description": "Credit",
                    "discounts": [],
                    "invoice": "in_1",
                    "livemode": False,
                    "metadata": {},
                    "parent": None,
                    "period": {"end": 2, "start": 1},
                    "pricing": {
                        "price_details": {"price": "price_1", "product": "prod_1"},
                        "unit_amount_decimal": "-0.5",
                    },
                    "quantity": 1000,
                    "quantity_decimal": "1000.000000000001",
                    "subtotal": -500,
                    "subscription": "sub_1",
                    "taxes": [],
                }
            ],
        },
    },
}
EXPAND = {"customers": tuple(EXPANDED)}

WHOLE_PRODUCT: dict[str, Any] = {
    "id": "prod_All",
    "object": "product",
    "active": True,
    "created": 1680893996,
    "updated": 1680893997,
    "default_price": "price_All",
    "description": "With all that a product can have",
    "images": ["https://example.com/1.png"],
    "livemode": False,
    "marketing_features": [{"name": "✓ all"}],
    "metadata": {"sku": "0042"},
    "name": "Everything",
    "statement_descriptor": "EVERY",
    "package_dimensions": {"height": 1.5, "length": 20, "weight": 0.25, "width": 3},
    "shippable": True,
    "tax_code": "txcd_10000000",
    "tax_details": {"performance_location": None, "tax_code": "txcd_10000000"},
    "type": "good",
    "unit_label": "seat",
    "url": "https://example.com/everything",
}
WHOLE_PRICE: dict[str, Any] = {
    "id": "price_All",
    "object": "price",
    "active": True,
    "billing_scheme": "per_unit",
    "created": 1680893996,
    "currency": "kwd",
    "custom_unit_amount": {"maximum": 90_000, "minimum": 10, "preset": None},
    "livemode": False,
    "lookup_key": "all",
    "metadata": {"tier": "gold"},
    "nickname": "All in",
    "product": "prod_All",
    "tax_behavior": "exclusive",
    "tiers_mode": "volume",
    "recurring": {
        "interval": "month",
        "interval_count": 3,
        "meter": None,
        "trial_period_days": 14,
        "usage_type": "licensed",
    },
    "transform_quantity": {"divide_by": 10, "round": "up"},
    "type": "recurring",
    "unit_amount": 12_345,
    "unit_amount_decimal": "12345.678901234567",
}
WHOLE_PLAN: dict[str, Any] = {
    "id": "price_All",
    "object": "plan",
    "active": True,
    "amount": 12_345,
    "amount_decimal": "12345.678901234567",
    "billing_scheme": "per_unit",
    "created": 1680893996,
    "currency": "kwd",
    "interval": "month",
    "interval_count": 3,
    "livemode": False,
    "metadata": {"tier": "gold"},
    "meter": "mtr_1",
    "nickname": "All in",
    "product": "prod_All",
    "tiers_mode": "volume",
    "transform_usage": {"divide_by": 10, "round": "up"},
    "trial_period_days": 14,
    "usage_type": "licensed",
}
WHOLE_ITEM: dict[str, Any] = {
    "id": "si_All",
    "object": "subscription_item",
    "billed_until": 1681000000,
    "billing_thresholds": {"usage_gte": 5},
    "created": 1680893998,
    "current_period_end": 1683485998,
    "current_period_start": 1680893998,
    "current_trial": {"end_date": 1681500000, "trial_offer": "to_1"},
    "discounts": ["di_2"],
    "metadata": {"seat": "1"},
    "plan": WHOLE_PLAN,
    "price": WHOLE_PRICE,
    "quantity": 7,
    "subscription": "sub_All",
    "tax_rates": [{"id": "txr_1", "percentage": 7.7}],
}
WHOLE_SUBSCRIPTION: dict[str, Any] = {
    "id": "sub_All", "object": "subscription", "application": "ca_1", "application_fee_percent": 2.5,
    "automatic_tax": {"disabled_reason": None, "enabled": True, "liability": {"type": "self"}},
    "billing_cycle_anchor": 1680893998,
    "billing_cycle_anchor_config": {"day_of_month": 31, "hour": None, "minute": None, "month": None, "second": None},
    "billing_mode": {"type": "flexible"}, "billing_schedules": [{"key": "k"}], "billing_thresholds": {"amount_gte": 100},
    "cancel_at": 1700000000, "cancel_at_period_end": True, "canceled_at": 1690000000,
    "cancellation_details": {"comment": "Too dear", "feedback": "too_expensive", "reason": "cancellation_requested"},
    "collection_method": "send_invoice", "created": 1680893998, "currency": "kwd", "customer": "cus_Full",
    "customer_account": "acct_1", "days_until_due": 30, "default_payment_method": "pm_1", "default_source": "card_1",
    "default_tax_rates": [{"id": "txr_1"}], "description": "All of it", "discounts": ["di_1"], "ended_at": 1700000001,
    "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}}, "latest_invoice": "in_All", "livemode": False,
    "managed_payments": {"enabled": False}, "metadata": {"k": "v"}, "next_pending_invoice_item_invoice": 1680999999,
    "on_behalf_of": "acct_2", "pause_collection": {"behavior": "void", "resumes_at": None},
    "payment_settings": {"save_default_payment_method": "off"},
    "pending_invoice_item_interval": {"interval": "week", "interval_count": 1},
    "pending_setup_intent": "seti_1", "pending_update": {"expires_at": 1681000001},
    "presentment_details": {"presentment_currency": "usd"},
    "schedule": "sub_sched_1", "start_date": 1680000000, "status": "paused",
    "status_details": {"paused": {"type": "subscription"}},
    "transfer_data": {"amount_percent": 50.25, "destination": "acct_3"}, "trial_end": 1681500000,
    "trial_settings": {"end_behavior": {"missing_payment_method": "pause"}}, "trial_start": 1680893998,
    "items": {"object": "list", "data": [WHOLE_ITEM], "has_more": False, "url": "/v1/subscription_items?subscription=sub_All"},
}  # fmt: skip
WHOLE_LINE: dict[str, Any] = {
    "id": "il_All",
    "object": "line_item",
    "amount": -1_000,
    "currency": "kwd",
    "description": "Credit ✂",
    "discount_amounts": [{"amount": 1, "discount": "di_1"}],
    "discountable": True,
    "discounts": ["di_1"],
    "invoice": "in_All",
    "livemode": False,
    "metadata": {"line": "1"},
    "parent": {"type": "invoice_item_details"},
    "period": {"end": 2, "start": 1},
    "pretax_credit_amounts": [],
    "pricing": {"type": "price_details", "unit_amount_decimal": "0.5"},
    "quantity": 3,
    "quantity_decimal": "3.000000000001",
    "subscription": "sub_All",
    "subtotal": -1_000,
    "taxes": [{"amount": 77}],
}
WHOLE_INVOICE: dict[str, Any] = {
    "id": "in_All", "object": "invoice", "account_country": "CH", "account_name": "Sandbox AG", "account_tax_ids": ["txi_1"],
    "amount_due": 10, "amount_overpaid": 11, "amount_paid": 12, "amount_paid_off_stripe": 13, "amount_remaining": 14,
    "amount_shipping": 15, "application": "ca_1", "attempt_count": 16, "attempted": True, "auto_advance": True,
    "automatic_tax": {"enabled": True}, "automatically_finalizes_at": 1681000002, "billing_reason": "subscription_cycle",
    "collection_method": "send_invoice", "created": 1680893999, "currency": "kwd",
    "custom_fields": [{"name": "PO", "value": "1"}], "customer": "cus_Full", "customer_account": "acct_1",
    "customer_address": FULL["address"], "customer_email": "all@example.com", "customer_name": "Everything AG",
    "customer_phone": "+41 44 000 00 00", "customer_shipping": {"name": "Dock 2", "address": None},
    "customer_tax_exempt": "reverse",
    "customer_tax_ids": [{"type": "ch_vat", "value": "CHE-1"}], "default_payment_method": "pm_1", "default_source": "card_1",
    "default_tax_rates": [{"id": "txr_1"}], "description": "Memo", "discounts": ["di_1"], "due_date": 1681000003,
    "effective_at": 1681000004, "ending_balance": -17, "footer": "Foot",
    "from_invoice": {"action": "revision", "invoice": "in_0"},
    "hosted_invoice_url": "https://example.com/i", "invoice_pdf": "https://example.com/i.pdf", "issuer": {"type": "self"},
    "last_finalization_error": {"type": "invalid_request_error"}, "latest_revision": "in_2", "livemode": False,
    "metadata": {"m": "1"}, "next_payment_attempt": 1681000005, "number": "0759376C-0001", "on_behalf_of": "acct_2",
    "parent": {"type": "subscription_details", "subscription_details": {"subscription": "sub_All", "metadata": {}}},
    "payment_settings": {"payment_method_types": ["card"]}, "period_end": 1681000006, "period_start": 1681000007,
    "post_payment_credit_notes_amount": 18, "pre_payment_credit_notes_amount": 19, "receipt_number": "2000-0001",
    "rendering": {"template": None}, "shipping_cost": {"amount_total": 15}, "shipping_details": {"name": "Dock 2"},
    "starting_balance": -20, "statement_descriptor": "EVERY", "status": "open", "status_details": {"type": "x"},
    "status_transitions": {"finalized_at": 1681000008, "paid_at": None}, "subtotal": 21, "subtotal_excluding_tax": 22,
    "threshold_reason": {"amount_gte": 100}, "total": -23, "total_discount_amounts": [{"amount": 1, "discount": "di_1"}],
    "total_excluding_tax": 24, "total_pretax_credit_amounts": [{"amount": 2}], "total_taxes": [{"amount": 77}],
    "webhooks_delivered_at": 1681000009,
    "lines": {"object": "list", "data": [WHOLE_LINE], "has_more": False, "url": "/v1/invoices/in_All/lines"},
}  # fmt: skip
EVERY: dict[str, dict[str, Any]] = {
    "products": WHOLE_PRODUCT,
    "prices": WHOLE_PRICE,
    "plans": WHOLE_PLAN,
    "subscriptions": WHOLE_SUBSCRIPTION,
    "subscription_items": WHOLE_ITEM,
    "invoices": WHOLE_INVOICE,
    "invoice_line_items": WHOLE_LINE,
}
"""One of each other kind with every field of its table, none of them null."""

KEPT = ("object", "created", "product", "currency", "active")
"""What the sandbox needs of an object."""


def emptied(table: str, suffix: str) -> dict[str, Any]:
    """The object of `EVERY` without its values, and its child too: null, or not there at all."""

    def empty(found: dict[str, Any]) -> dict[str, Any]:
        nulls: dict[str, Any] = dict.fromkeys(found) if suffix == "_null" else {}
        kept = {name: found[name] for name in KEPT if name in found}
        return {**nulls, **kept, "id": found["id"] + suffix}

    found = EVERY[table]
    lists = {child.field: found[child.field] for child in CORE[table].children}
    return empty(found) | {
        name: rows | {"data": [empty(one) for one in rows["data"]]} for name, rows in lists.items()
    }


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """All of the objects above, loaded once as usual and once with every opt-in field."""
    box = Sandbox(seed=1, customers=0, products=0, oddities=False)
    box.put("customers", SEED.encode())
    box.put("customers", FULL)
    box.put("customers", BARE)
    for table, found in LIKE.items():
        box.put(table, found)
        for one in (EVERY[table], emptied(table, "_null"), emptied(table, "_absent")):
            box.put(table, one)
    box.update("customers", "cus_Full", **EXPANDED)
    box.advance(60)
    with copy_of(box, tmp_path_factory.mktemp("seed"), hold=True) as found_copy:
        found_copy.sync()
        yield found_copy


@pytest.fixture(scope="module")
def expanded(copy: Copy, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    found = Copy(copy.box, copy.url, tmp_path_factory.mktemp("expanded"))
    found.sync(expand=EXPAND, resources=["customers"])
    return found


def row(copy: Copy, table: str, id: str) -> dict[str, Any]:
    """One row as DuckDB gives it, by column."""
    with closing(duckdb.connect(str(copy.folder / copy.database))) as base:
        found = base.execute(f"select * from stripe.{table} where id = ?", [id])
        names = [name for name, *_ in found.description or ()]
        (values,) = found.fetchall()
    return dict(zip(names, values, strict=True))


def rebuilt(copy: Copy, table: str, id: str) -> dict[str, Any]:
    """The object again, from its row alone: what is null in the row may have been null or absent."""
    found = row(copy, table, id)
    obj: dict[str, Any] = {}
    for column in columns_of(CORE_TABLES[table]):
        value = found[column.name]
        match value, column.kind:
            case datetime(), _:
                obj[column.name] = int(value.timestamp())
            case Decimal(), _:
                obj[column.name] = format(value.normalize(), "f")
            case str(), "json":
                obj[column.name] = json.loads(value)
            case _:
                obj[column.name] = value
    return {**obj, **json.loads(found["extra"] or "{}")}


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "S1": ("id", {"cus_NffrFeUfNV2Hib": "cus_NffrFeUfNV2Hib", "cus_Full": "cus_Full"}, {}),
    "S2": (
        "address",
        {"cus_NffrFeUfNV2Hib": None, "cus_Full": FULL["address"], "cus_Bare": None},
        {},
    ),
    "S3": (
        "description",
        {"cus_NffrFeUfNV2Hib": None, "cus_Full": "Zoë \u2028 🚲", "cus_Bare": None},
        {},
    ),
    "S4": ("email", {"cus_NffrFeUfNV2Hib": "jennyrosen@example.com", "cus_Bare": None}, {}),
    "S5": (
        "metadata",
        {"cus_NffrFeUfNV2Hib": {}, "cus_Full": {"order_id": "6735", "": "", "a.b": "{}"}},
        {},
    ),
    "S6": ("name", {"cus_NffrFeUfNV2Hib": "Jenny Rosen", "cus_Bare": None}, {}),
    "S7": ("phone", {"cus_NffrFeUfNV2Hib": None, "cus_Full": "+49 30 1", "cus_Bare": None}, {}),
    "S8": (
        "shipping",
        {"cus_NffrFeUfNV2Hib": None, "cus_Full": FULL["shipping"], "cus_Bare": None},
        {},
    ),
    "S9": ("tax", {}, {"cus_Full": EXPANDED["tax"]}),
    "S10": (
        "object",
        {"cus_NffrFeUfNV2Hib": "customer", "cus_Full": "customer", "cus_Bare": "customer"},
        {},
    ),
    "S11": (
        "balance",
        {"cus_NffrFeUfNV2Hib": 0, "cus_Full": -9007199254740993, "cus_Bare": None},
        {},
    ),
    "S12": ("cash_balance", {}, {"cus_Full": EXPANDED["cash_balance"]}),
    "S13": (
        "created",
        {"cus_NffrFeUfNV2Hib": datetime(2023, 4, 7, 18, 59, 53, tzinfo=timezone.utc)},
        {},
    ),
    "S14": ("currency", {"cus_NffrFeUfNV2Hib": None, "cus_Full": "eur", "cus_Bare": None}, {}),
    "S15": (
        "default_source",
        {"cus_NffrFeUfNV2Hib": None, "cus_Full": "card_1", "cus_Bare": None},
        {},
    ),
    "S16": ("delinquent", {"cus_NffrFeUfNV2Hib": False, "cus_Full": True, "cus_Bare": None}, {}),
    "S17": (
        "discount",
        {"cus_NffrFeUfNV2Hib": None, "cus_Full": FULL["discount"], "cus_Bare": None},
        {},
    ),
    "S18": ("invoice_credit_balance", {}, {"cus_Full": EXPANDED["invoice_credit_balance"]}),
    "S19": ("invoice_prefix", {"cus_NffrFeUfNV2Hib": "0759376C", "cus_Bare": None}, {}),
    "S20": (
        "invoice_settings",
        {
            "cus_NffrFeUfNV2Hib": {
                "custom_fields": None,
                "default_payment_method": None,
                "footer": None,
                "rendering_options": None,
            },
            "cus_Full": FULL["invoice_settings"],
            "cus_Bare": None,
        },
        {},
    ),
    "S21": ("livemode", {"cus_NffrFeUfNV2Hib": False, "cus_Full": False, "cus_Bare": False}, {}),
    "S22": (
        "next_invoice_sequence",
        {"cus_NffrFeUfNV2Hib": 1, "cus_Full": 2, "cus_Bare": None},
        {},
    ),
    "S23": (
        "preferred_locales",
        {"cus_NffrFeUfNV2Hib": [], "cus_Full": ["de", "en"], "cus_Bare": None},
        {},
    ),
    "S24": ("sources", {}, {"cus_Full": EXPANDED["sources"]}),
    "S25": ("subscriptions", {}, {}),
    "S26": (
        "tax_exempt",
        {"cus_NffrFeUfNV2Hib": "none", "cus_Full": "reverse", "cus_Bare": None},
        {},
    ),
    "S27": ("tax_ids", {}, {"cus_Full": EXPANDED["tax_ids"]}),
    "S28": ("test_clock", {"cus_NffrFeUfNV2Hib": None, "cus_Bare": None}, {}),
}
"""Checklist id: the attribute, its value by customer, and by customer when it is expanded."""


@pytest.mark.parametrize("id", CASES)
def test_attribute(copy: Copy, expanded: Copy, id: str) -> None:
    """The attribute lands in its column, null and absent alike as null; what is opt-in only where
    it is asked for.
    """
    name, plain, opted = CASES[id]
    for customer, value in plain.items():
        found = row(copy, "customers", customer)[name]
        assert (json.loads(found) if isinstance(value, dict | list) else found) == value
    for customer, value in opted.items():
        found = json.loads(row(expanded, "customers", customer)[name])
        assert (
            found["data"] if isinstance(value, list) else found
        ) == value  # a list is complete, beyond the ten shown
    assert bool(plain) == (name in row(copy, "customers", "cus_Full"))
    assert bool(plain or opted) == (name in row(expanded, "customers", "cus_Full"))


@pytest.mark.checklist("S29")
@pytest.mark.parametrize("id", [pytest.param("cus_NffrFeUfNV2Hib", id="S29")])
def test_example_object(copy: Copy, id: str) -> None:
    """Its row gives the very JSON of the documentation back; only fields that are newer than it are
    null besides.
    """
    found = rebuilt(copy, "customers", id)
    assert {name: found[name] for name in json.loads(SEED)} == json.loads(SEED)
    assert {name for name, value in found.items() if name not in json.loads(SEED)} == {
        "business_name",
        "individual_name",
        "customer_account",
    }
    assert all(found[name] is None for name in found if name not in json.loads(SEED))
    assert row(copy, "customers", id)["metadata"] == "{}"


def test_fields_newer_than_the_documentation_do_no_harm(copy: Copy) -> None:
    """Known ones have a column, unknown ones go to `extra`; the list of subscriptions is a table of
    its own.
    """
    found = row(copy, "customers", "cus_Full")
    assert (found["business_name"], found["individual_name"]) == ("Rosen GmbH", "Jenny Rosen")
    assert json.loads(found["extra"]) == {"not_documented_yet": {"a": [1, None]}}


def _children(found: dict[str, Any], child: Child) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = found[child.field]["data"]
    return rows


@pytest.mark.parametrize("table", LIKE)
def test_other_resources_come_back_whole(copy: Copy, table: str) -> None:
    """From the rows alone the object can be written again: all of it but what is never loaded, ids
    where it was expanded.
    """
    found = LIKE[table]
    lists = CORE[table].children
    wanted = {
        name: value["id"]
        if name in ("customer", "latest_invoice") and isinstance(value, dict)
        else value
        for name, value in found.items()
        if name not in [child.field for child in lists] and name != "confirmation_secret"
    }
    again = rebuilt(copy, table, found["id"])
    assert {name: again[name] for name in wanted} == wanted
    assert all(value is None for name, value in again.items() if name not in wanted)
    for child in lists:
        for one in _children(found, child):
            held = rebuilt(copy, child.table, one["id"])
            assert {name: held[name] for name in one} == one


@pytest.mark.parametrize("table", EVERY)
def test_every_column_of_every_table_is_filled(copy: Copy, table: str) -> None:
    """An object that has all fields has no null in its row but for the test clock, and comes back
    whole.
    """
    found, row_of = EVERY[table], CORE_TABLES[table]
    lists = [child.field for child in row_of.children] if not isinstance(row_of, Child) else []
    again = rebuilt(copy, table, found["id"])
    assert {name: value for name, value in again.items() if name != "test_clock"} == {
        name: value for name, value in found.items() if name not in lists
    }


@pytest.mark.parametrize("table", EVERY)
def test_null_and_absent_are_both_null(copy: Copy, table: str) -> None:
    """In a row there is no difference between the two."""
    row_of = CORE_TABLES[table]
    own = ("id", row_of.parent) if isinstance(row_of, Child) else ("id",)
    null, absent = (
        {
            name: value
            for name, value in rebuilt(copy, table, EVERY[table]["id"] + suffix).items()
            if name not in own
        }
        for suffix in ("_null", "_absent")
    )
    assert null == absent
    assert {name for name, value in null.items() if value is not None} <= {*KEPT, "livemode"}


def test_every_byte_of_json_is_kept(copy: Copy) -> None:
    """JSON columns hold Stripe's own bytes, white space included."""
    sent = msgspec.json.decode(SEED.encode(), type=dict[str, msgspec.Raw])
    assert row(copy, "customers", "cus_NffrFeUfNV2Hib")["invoice_settings"].encode() == bytes(
        sent["invoice_settings"]
    )


def test_the_tables_equal_the_account(copy: Copy, expanded: Copy) -> None:
    """And so says the reference check."""
    copy.check()
