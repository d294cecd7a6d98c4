"""The connected accounts of a platform."""

from __future__ import annotations

from ...samples.generic import REFERENCE, later, one_of, word
from .model import Kind, Sublist, plain

ACTIVE = {"card_payments": "active", "transfers": "active"}

CONNECT: tuple[Kind, ...] = (
    plain(
        "accounts", "account", "acct", "accounts", "connected_account", group="connect",
        events="updated", deletable=True, expanded="external_accounts company groups individual",
        sublists=(Sublist("external_accounts", "bank_account", "/v1/accounts/:id/external_accounts"),),
        values={"capabilities": ACTIVE, "created": later(0), "charges_enabled": True, "country": "DE", "default_currency": "eur", "details_submitted": True,
                "payouts_enabled": True, "type": one_of("standard", "express", "custom")},
    ),
    plain(
        "persons", "person", "person", "accounts/:id/persons", "connected_account", group="connect",
        filters="relationship%", owner="account", owners="accounts", windowed=False, deletable=True, events="created updated deleted",
        expanded="address address_kana address_kanji registered_address us_cfpb_data",
        values={"account": REFERENCE, "first_name": word(5), "last_name": word(7),
                "relationship": {"authorizer": False, "director": False, "executive": False, "legal_guardian": False, "owner": True, "percent_ownership": 50.0, "representative": False, "title": "CEO"}},
    ),
    plain(
        "external_accounts", "bank_account", "ba", "accounts/:id/external_accounts", "connected_account", group="connect",
        filters="object", owner="account", owners="accounts", windowed=False, dated="", deletable=True,
        event="account.external_account", events="created updated deleted",
        variants={"card": "card"},
        values={"account": REFERENCE, "bank_name": "STRIPE TEST BANK", "country": "DE", "currency": "eur", "exp_month": 8, "exp_year": 2029,
                "funding": "debit", "last4": "3000", "status": "new"},
    ),
    plain(
        "capabilities", "capability", "cap", "accounts/:id/capabilities", "connected_account", group="connect",
        owner="account", owners="accounts", windowed=False, dated="", events="updated",
        values={"requested": True, "status": "active"},
    ),
)  # fmt: skip
