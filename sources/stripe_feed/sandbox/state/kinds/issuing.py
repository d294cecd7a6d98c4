"""Products that an account has only once it is set up for them: Issuing, Treasury, Terminal, Identity, Radar."""

from __future__ import annotations

from ...samples.generic import REFERENCE, cents, word
from .model import Kind, Sublist, plain

ISSUING: tuple[Kind, ...] = (
    plain("issuing_cardholders", "issuing.cardholder", "ich", "issuing/cardholders", "issuing_cardholder", group="issuing",
          filters="email phone_number status type", event="issuing_cardholder", events="created updated", values={"status": "active", "type": "individual", "email": "holder@example.com"}),
    plain("issuing_cards", "issuing.card", "ic", "issuing/cards", "issuing_card", group="issuing",
          filters="cardholder@cardholder.id exp_month~ exp_year~ last4 personalization_design status type", event="issuing_card", events="created updated",
          values={"brand": "Visa", "cardholder": REFERENCE, "exp_month": 8, "exp_year": 2029, "last4": "4242", "status": "active", "type": "virtual"}),
    plain("issuing_authorizations", "issuing.authorization", "iauth", "issuing/authorizations", "issuing_authorization", group="issuing",
          filters="card@card.id cardholder status", event="issuing_authorization", events="created updated", expanded="fraud_challenges treasury",
          values={"amount": cents, "approved": True, "card": REFERENCE, "status": "pending"}),
    plain("issuing_transactions", "issuing.transaction", "ipi", "issuing/transactions", "issuing_transaction", group="issuing",
          filters="card cardholder type", event="issuing_transaction", events="created updated", expanded="purchase_details treasury",
          values={"amount": cents, "card": REFERENCE, "type": "capture"}),
    plain("issuing_disputes", "issuing.dispute", "idp", "issuing/disputes", "issuing_dispute", group="issuing",
          filters="status transaction", event="issuing_dispute", events="created updated @won=closed @lost=closed @submitted", expanded="balance_transactions treasury",
          values={"amount": cents, "status": "unsubmitted", "transaction": REFERENCE}),
    plain("issuing_tokens", "issuing.token", "intok", "issuing/tokens", "issuing_token", group="issuing",
          filters="card! status", owner="card", owners="issuing_cards", event="issuing_token", events="created updated", expanded="network_data", values={"card": REFERENCE, "status": "active"}),
    plain("personalization_designs", "issuing.personalization_design", "pd", "issuing/personalization_designs", "issuing_card", group="issuing",
          filters="lookup_keys[@lookup_key preferences% status", windowed=False, event="issuing_personalization_design", events="updated @active=activated @inactive=deactivated @rejected", values={"status": "active"}),
    plain("physical_bundles", "issuing.physical_bundle", "ics", "issuing/physical_bundles", "issuing_card", group="issuing", filters="status type", windowed=False, dated="",
          values={"status": "active", "type": "standard"}),
)  # fmt: skip

OTHER_PRODUCTS: tuple[Kind, ...] = (
    plain("radar_value_lists", "radar.value_list", "rsl", "radar/value_lists", "radar", group="radar", filters="alias contains@list_items.data.value", deletable=True,
          sublists=(Sublist("list_items", "radar.value_list_item", "/v1/radar/value_list_items", "value_list", children="radar_value_list_items", prefix="rsli", parent="value_list", count=1),),
          values={"alias": word(8), "item_type": "email"}),
    plain("verification_sessions", "identity.verification_session", "vs", "identity/verification_sessions", "identity", group="identity",
          filters="client_reference_id related_customer related_customer_account status",
          event="identity.verification_session", events="created @processing @requires_input @verified @canceled @redacted",
          expanded="provided_details related_person verified_outputs", values={"status": "processing", "type": "document"}),
    plain("verification_reports", "identity.verification_report", "vr", "identity/verification_reports", "identity", group="identity",
          filters="client_reference_id type verification_session", expanded="email id_number phone selfie", immutable=True, values={"type": "document"}),
    plain("terminal_configurations", "terminal.configuration", "tmc", "terminal/configurations", "terminal", group="terminal",
          filters="is_account_default?", windowed=False, dated="", deletable=True, expanded="*", values={"is_account_default": False}),
    plain("terminal_locations", "terminal.location", "tml", "terminal/locations", "terminal", group="terminal",
          windowed=False, dated="", deletable=True, expanded="address_kana address_kanji"),
    plain("terminal_readers", "terminal.reader", "tmr", "terminal/readers", "terminal", group="terminal",
          filters="device_type location serial_number status", windowed=False, dated="", deletable=True, values={"device_type": "stripe_s700", "serial_number": word(8), "status": "online"}),
    plain("treasury_financial_accounts", "treasury.financial_account", "fa", "treasury/financial_accounts", "treasury", group="treasury",
          filters="status", event="treasury.financial_account", events="created @closed", expanded="features platform_restrictions", values={"status": "open"}),
    plain("treasury_transactions", "treasury.transaction", "trxn", "treasury/transactions", "treasury", group="treasury",
          filters="financial_account! order_by status status_transitions%", expanded="entries flow_details", owner="financial_account", owners="treasury_financial_accounts", values={"financial_account": REFERENCE, "amount": cents, "status": "posted"}),
    *(
        plain(f"treasury_{name}s", f"treasury.{name}", prefix, f"treasury/{path}", "treasury", group="treasury",
              filters=f"financial_account! {filters}", windowed=windowed, events=events, expanded=expanded, owner="financial_account", owners="treasury_financial_accounts",
              values={"financial_account": REFERENCE, "amount": cents, "status": status})
        for name, prefix, path, filters, windowed, events, expanded, status in (
            ("received_credit", "rc", "received_credits", "linked_flows% status", False, "created @failed @succeeded", "", "succeeded"),
            ("received_debit", "rd", "received_debits", "status", False, "created", "", "succeeded"),
            ("credit_reversal", "credrev", "credit_reversals", "received_credit status", False, "created @posted", "", "processing"),
            ("debit_reversal", "debrev", "debit_reversals", "received_debit resolution status", False, "created", "", "processing"),
            ("inbound_transfer", "ibt", "inbound_transfers", "status", False, "created @canceled @failed @succeeded", "", "processing"),
            ("outbound_payment", "obp", "outbound_payments", "customer status", True, "created @canceled @failed @posted @returned", "", "processing"),
            ("outbound_transfer", "obt", "outbound_transfers", "status", False, "created @canceled @failed @posted @returned", "", "processing"),
        )
    ),
    plain("treasury_transaction_entries", "treasury.transaction_entry", "trxne", "treasury/transaction_entries", "treasury", group="treasury",
          filters="financial_account! effective_at~ order_by transaction", expanded="flow_details", immutable=True, owner="financial_account", owners="treasury_financial_accounts",
          values={"financial_account": REFERENCE}),
)  # fmt: skip
