"""The group `connect`: what a platform sees of its connected accounts."""

from __future__ import annotations

from .model import Child, Parent, Resource, event_types

CONNECT: tuple[Resource, ...] = (
    Resource(
        table="transfers",
        object="transfer",
        group="connect",
        permission="rak_transfer_read",
        label="Connect > Transfers",
        events=event_types("transfer", "created updated reversed"),
        created_by=("transfer.created",),
        children=(
            Child(
                field="reversals",
                table="transfer_reversals",
                object="transfer_reversal",
                parent="transfer",
                path="/v1/transfers/{id}/reversals",
            ),
        ),
        schema_since="2025-03-31",
    ),
    Resource(
        table="application_fees",
        object="application_fee",
        group="connect",
        permission="rak_application_fee_read",
        label="Connect > Application Fees",
        events=event_types("application_fee", "created refunded"),
        created_by=("application_fee.created",),
        children=(
            Child(
                field="refunds",
                table="application_fee_refunds",
                object="fee_refund",
                parent="fee",
                path="/v1/application_fees/{id}/refunds",
            ),
        ),
        customer_through=(("charge", "charges"),),
        schema_since="2025-03-31",
    ),
    Resource(
        table="accounts",
        object="account",
        group="connect",
        created_field="",  # some do not say when they were created
        permission="rak_connected_account_read",
        label="Connect > Connected accounts",
        events=event_types("account", "updated"),  # none says that one was connected
        excluded=("external_accounts",),
    ),
)
"""Transfers to accounts, and fees from them."""

ACCOUNT_LISTS: tuple[Resource, ...] = (
    Resource(
        table="persons",
        object="person",
        group="account_lists",
        path="/v1/accounts/{id}/persons",
        parent=Parent("accounts", "account", fields=()),
        created_field="",
        permission="rak_connected_account_read",
        label="Connect > Connected accounts",
        events=event_types("person", "created updated deleted"),
        created_by=("person.created",),
        deleted_by=("person.deleted",),
        map_fields=("dob", "relationship", "verification"),
        schema_since="2025-08-27",
    ),
    Resource(
        table="external_accounts",
        object="bank_account",
        other_objects=("card",),
        group="account_lists",
        path="/v1/accounts/{id}/external_accounts",
        parent=Parent("accounts", "account", fields=()),
        created_field="",
        permission="rak_connected_account_read",
        label="Connect > Connected accounts",
        events=event_types("account.external_account", "created updated deleted"),
        created_by=("account.external_account.created",),
        deleted_by=("account.external_account.deleted",),
        schema_since="2025-03-31",
    ),
    Resource(
        table="capabilities",
        object="capability",
        group="account_lists",
        path="/v1/accounts/{id}/capabilities",
        parent=Parent("accounts", "account", fields=("capabilities",), local_ids=True),
        created_field="",
        permission="rak_connected_account_read",
        label="Connect > Connected accounts",
        events=event_types("capability", "updated"),  # none says that one was added
        schema_since="2025-03-31",
    ),
)
"""One list per connected account."""
