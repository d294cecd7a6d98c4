"""Usage, credits and entitlements."""

from __future__ import annotations

from ...samples.generic import REFERENCE, one_of, word
from .model import Kind, plain

USAGE: tuple[Kind, ...] = (
    plain(
        "meters", "billing.meter", "mtr", "billing/meters", "billing_meter", group="usage",
        filters="status", windowed=False, events="created updated",
        changes="status:inactive=deactivated status:active=reactivated",
        values={"customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"}, "default_aggregation": {"formula": "sum"}, "event_name": word(8), "status": "active"},
    ),
    plain(
        "credit_grants", "billing.credit_grant", "credgr", "billing/credit_grants", "billing_credit_grant", group="usage",
        filters="customer customer_account", windowed=False, on_clocks=True, events="created updated",
        values={"amount": {"monetary": {"currency": "usd", "value": 5000}, "type": "monetary"}, "category": one_of("paid", "promotional"), "priority": 50},
    ),
    plain(
        "credit_balance_transactions", "billing.credit_balance_transaction", "cbtxn", "billing/credit_balance_transactions", "billing_credit_balance_transaction", group="usage",
        filters="credit_grant customer^ customer_account", windowed=False, on_clocks=True, immutable=True, events="created", owner="customer", owners="customers",
        values={"type": "credit"},
    ),
    plain("billing_alerts", "billing.alert", "alrt", "billing/alerts", "billing_alert", group="usage",
          filters="alert_type meter@usage_threshold.meter", windowed=False, dated="", values={"alert_type": "usage_threshold", "status": "active"}),
    plain("features", "entitlements.feature", "feat", "entitlements/features", "entitlement", group="usage",
          filters="archived-@active lookup_key", windowed=False, dated="", values={"active": True}),
    plain("active_entitlements", "entitlements.active_entitlement", "ent", "entitlements/active_entitlements", "entitlement", group="usage",
          filters="customer^!", windowed=False, dated="", deletable=True, owner="customer", owners="customers",
          summary="entitlements.active_entitlement_summary", values={"lookup_key": word(8)}),
    plain("product_features", "product_feature", "prodft", "products/:id/features", "product", group="usage",
          windowed=False, dated="", deletable=True, owner="product", owners="products", values={"entitlement_feature": REFERENCE}),
)  # fmt: skip
