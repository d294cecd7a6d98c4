"""The groups `issuing` and `treasury`: cards that the account issues, and its financial accounts."""

from __future__ import annotations

from .model import Expandable, Resource, event_types

BANKING: tuple[Resource, ...] = (
    Resource(
        table="issuing_authorizations",
        object="issuing.authorization",
        group="issuing",
        path="/v1/issuing/authorizations",
        permission="rak_issuing_authorization_read",
        permission_guessed=True,
        label="Issuing > Authorizations",
        events=event_types("issuing_authorization", "created request updated"),
        created_by=("issuing_authorization.created",),
        map_fields=("amount_details", "network_data", "verification_data"),
    ),
    Resource(
        table="issuing_transactions",
        object="issuing.transaction",
        group="issuing",
        path="/v1/issuing/transactions",
        permission="rak_issuing_transaction_read",
        permission_guessed=True,
        label="Issuing > Transactions",
        events=event_types(
            "issuing_transaction", "created updated purchase_details_receipt_updated"
        ),
        created_by=("issuing_transaction.created",),
        expandable=(Expandable("purchase_details"),),
    ),
    Resource(
        table="issuing_cards",
        object="issuing.card",
        group="issuing",
        path="/v1/issuing/cards",
        permission="rak_issuing_card_read",
        permission_guessed=True,
        label="Issuing > Cards",
        events=event_types("issuing_card", "created updated"),
        created_by=("issuing_card.created",),
        excluded=("number", "cvc"),
    ),
    Resource(
        table="issuing_cardholders",
        object="issuing.cardholder",
        group="issuing",
        path="/v1/issuing/cardholders",
        permission="rak_issuing_cardholder_read",
        permission_guessed=True,
        label="Issuing > Cardholders",
        events=event_types("issuing_cardholder", "created updated"),
        created_by=("issuing_cardholder.created",),
    ),
    Resource(
        table="issuing_disputes",
        object="issuing.dispute",
        group="issuing",
        path="/v1/issuing/disputes",
        permission="rak_issuing_dispute_read",
        permission_guessed=True,
        label="Issuing > Disputes",
        events=event_types(
            "issuing_dispute",
            "created submitted updated funds_reinstated funds_rescinded closed",
        ),
        created_by=("issuing_dispute.created",),
        map_fields=("evidence",),
    ),
    Resource(
        table="personalization_designs",
        object="issuing.personalization_design",
        group="issuing",
        path="/v1/issuing/personalization_designs",
        created_field="",
        permission="rak_issuing_card_read",
        permission_guessed=True,
        label="Issuing > Personalization designs",
        events=event_types(
            "issuing_personalization_design", "activated deactivated rejected updated"
        ),
    ),
    Resource(
        table="physical_bundles",
        object="issuing.physical_bundle",
        group="issuing",
        path="/v1/issuing/physical_bundles",
        created_field="",
        permission="rak_issuing_card_read",
        permission_guessed=True,
        label="Issuing > Physical bundles",
    ),
    Resource(
        table="treasury_financial_accounts",
        object="treasury.financial_account",
        group="treasury",
        path="/v1/treasury/financial_accounts",
        permission="rak_treasury_read",
        permission_guessed=True,
        label="Treasury > Financial accounts",
        events=event_types("treasury.financial_account", "created closed features_status_updated"),
        created_by=("treasury.financial_account.created",),
        expandable=(Expandable("features"),),
    ),
)
"""Issuing, then Treasury."""
