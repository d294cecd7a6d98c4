"""Erase what the destination holds of forgotten objects: the bodies of their changes and, of a customer
whose rows are erased as well, every text and nested value that is no plain fact.

Rows stay with ids, amounts and times: Stripe keeps the invoices of a deleted customer, so a row that
is gone would come back with the next comparison, as a new object that fires triggers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..destination.state import is_missing_table, table_name
from ..resources import CHANGES, RESOURCES, TABLES
from .storage.store import FeedStore

ERASED_KINDS = ("text", "json")
FACTS = frozenset(
    (
        "id", "object", "currency", "status", "type", "number", "collection_method", "billing_reason",
        "billing_mode", "status_transitions", "period", "price", "plan", "pricing", "current_trial",
        "pause_collection", "pending_invoice_item_interval", "account_country",
        "total_discount_amounts", "total_pretax_credit_amounts", "total_taxes",
        "discount_amounts", "pretax_credit_amounts", "taxes",
    )
)  # fmt: skip
"""Texts and nested values that say nothing of a person; any other is erased, new ones too."""


PUSHED = (
    (
        "push_operations",
        "object_id = %s or path = '/v1/customers/' || %s or path like '/v1/customers/' || %s || '/%%'",
    ),
    ("push_rejected", "object_id = %s"),
)
"""Tables with what was pushed to a customer, and the condition for it: rows that are deleted."""


def erase_again(store: FeedStore, client: Any) -> None:
    """Erase what later loads brought of objects that were forgotten before."""
    for (object_id,) in store.query("select object_id from forgotten"):
        erase_bodies(client, object_id)
    for (customer,) in store.query("select object_id from erased"):
        erase_rows(client, customer)


def erase_bodies(client: Any, object_id: str) -> None:
    """Erase the bodies of an object's changes, and of a customer's every change."""
    _update(
        client,
        f"update {table_name(client, CHANGES)} set after = null, previous = null "
        "where (object_id = %s or customer_id = %s) and (after is not null or previous is not null)",
        object_id,
        object_id,
    )


def erase_rows(client: Any, customer: str) -> dict[str, int]:
    """Erase the rows of a customer; return how many the tables hold. dlt's staging tables, which keep
    the rows of the last load, are emptied of them.
    """
    counts = {}
    for table, condition in _rows_of(client):
        columns = _erasable(client, table)
        if columns is None:
            continue
        name = table_name(client, table)
        nulls = ", ".join(f"{_quoted(client, column)} = null" for column in columns)
        held = " or ".join(f"{_quoted(client, column)} is not null" for column in columns)
        _update(client, f"update {name} set {nulls} where {condition} and ({held})", customer)
        with client.execute_query(
            f"select count(*) from {name} where {condition}", customer
        ) as found:
            counts[table] = int(found.fetchall()[0][0])
    for table, condition in PUSHED:
        values = [customer] * condition.count("%s")
        _update(client, f"delete from {table_name(client, table)} where {condition}", *values)
    with client.with_staging_dataset():
        for table, condition in (*_rows_of(client), (CHANGES, "customer_id = %s")):
            _update(client, f"delete from {table_name(client, table)} where {condition}", customer)
    return counts


def _rows_of(client: Any) -> Iterator[tuple[str, str]]:
    """Each table with rows of a customer, and the condition for them; children before parents."""
    for row in RESOURCES.values():
        if row.table == "customers":
            yield row.table, "id = %s"
        elif any(column.name == "customer" for column in row.columns):
            for child in row.children:
                parents = f"select id from {table_name(client, row.table)} where customer = %s"
                yield child.table, f"{child.parent} in ({parents})"
            yield row.table, "customer = %s"


def _erasable(client: Any, table: str) -> list[str] | None:
    """The columns of a table that are erased; None without the table."""
    try:
        with client.execute_query(
            f"select * from {table_name(client, table)} where 1 = 0"
        ) as found:
            held = {column[0] for column in found.description}
    except Exception as fault:
        if not is_missing_table(fault):
            raise
        return None
    parents = {child.parent for row in RESOURCES.values() for child in row.children}
    columns = [
        column.name
        for column in TABLES[table].columns
        if column.kind in ERASED_KINDS and column.name not in FACTS | parents
    ]
    extras = RESOURCES[table].expandable if table in RESOURCES else ()
    names = [*columns, *(extra.name for extra in extras), "extra"]
    return [name for name in names if name in held]


def _quoted(client: Any, column: str) -> str:
    return str(client.capabilities.escape_identifier(column))


def _update(client: Any, statement: str, *values: str) -> None:
    """Run a statement; a table that is missing has nothing to erase."""
    try:
        client.execute_sql(statement, *values)
    except Exception as fault:
        if not is_missing_table(fault):
            raise
