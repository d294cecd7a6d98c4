"""What an account sets up, and its reports."""

from __future__ import annotations

from ...samples.generic import domain, word
from .model import Kind, plain

ACCOUNT_SETTINGS: tuple[Kind, ...] = (
    plain("portal_configurations", "billing_portal.configuration", "bpc", "billing_portal/configurations", "customer_portal", group="settings",
          filters="active? is_default?", windowed=False, events="created updated", values={"active": True}),
    plain("invoice_rendering_templates", "invoice_rendering_template", "inrtem", "invoice_rendering_templates", "invoice", group="settings",
          filters="status", windowed=False, values={"status": "active", "version": 1}),
    plain("tax_codes", "tax_code", "txcd", "tax_codes", "tax_code", group="settings", windowed=False, dated="", immutable=True),
    plain("tax_registrations", "tax.registration", "taxreg", "tax/registrations", "tax_registration", group="settings",
          filters="status*", windowed=False, values={"status": "active"}),
    plain("account_tax_ids", "tax_id", "atxi", "tax_ids", "tax_id", group="settings", filters="owner%", windowed=False, deletable=True,
          event="customer.tax_id", events="", values={"country": "DE", "type": "eu_vat", "value": "DE123456789", "owner": {"customer": None, "customer_account": None, "type": "self"}}),
    plain("payment_method_configurations", "payment_method_configuration", "pmc", "payment_method_configurations", "payment_method_configuration", group="settings",
          filters="active? application", windowed=False, dated="", expanded="*", values={"active": True, "is_default": False, "name": word(8)}),
    plain("payment_method_domains", "payment_method_domain", "pmd", "payment_method_domains", "payment_method_domain", group="settings",
          filters="domain_name enabled?", windowed=False, values={"domain_name": domain, "enabled": True}),
    plain("apple_pay_domains", "apple_pay_domain", "apwc", "apple_pay/domains", "apple_pay_domain", group="settings",
          filters="domain_name", windowed=False, deletable=True, immutable=True, values={"domain_name": domain}),
    plain("report_runs", "reporting.report_run", "frr", "reporting/report_runs", "reporting", group="settings",
          events="@succeeded @failed", values={"status": "pending", "report_type": "balance.summary.1"}),
)  # fmt: skip
