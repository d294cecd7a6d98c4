"""Erase what the destination holds of forgotten objects: the bodies of their changes and, of a customer
whose rows are erased as well, every text and nested value that is no plain fact.

Rows stay with ids, amounts and times: Stripe keeps the invoices of a deleted customer, so a row that
is gone would come back with the next comparison, as a new object that fires triggers.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ..destination.state import is_missing_table, select_rows, table_name
from ..resources import CHANGES, RESOURCES, TABLES
from ..resources.model import BY_CUSTOMER
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

CUSTOMERS = "customers"
Columns = Mapping[str, Collection[str]]
"""The columns of each table that is there."""
HAS_BODY = "(after is not null or previous is not null)"
IDS_AT_ONCE = 500  # ids in one statement

PUSHED = (
    (
        "push_operations",
        "object_id = %s or path = '/v1/customers/' || %s or path like '/v1/customers/' || %s || '/%%'",
    ),
    ("push_rejected", "object_id = %s"),
)
"""Tables with what was pushed to a customer, and the condition for it: rows that are deleted."""
DIGEST_LENGTH = 64  # of a key of a row that held an e-mail address


def erase_again(store: FeedStore, client: Any) -> None:
    """Erase what later loads brought of objects that were forgotten before, and of customers' objects
    that came since.
    """
    if customers := store.query("select object_id from erased"):
        columns = held_columns(client)
        for (customer,) in customers:
            store.forget(ids_of_others(client, customer, columns))
            erase_rows(client, customer, columns)
    erase_bodies(client, [id for (id,) in store.query("select object_id from forgotten")])


def erase_bodies(client: Any, object_ids: Sequence[str]) -> None:
    """Erase the bodies of the changes of objects, and of customers' every change."""
    changes = table_name(client, CHANGES)
    for batch, marks in _batches(object_ids):
        _update(
            client,
            f"update {changes} set after = null, previous = null where {HAS_BODY} "
            f"and (object_id in ({marks}) or customer_id in ({marks}))",
            *batch,
            *batch,
        )


def addresses_of(client: Any, customer: str, columns: Columns) -> set[str]:
    """The e-mail addresses that a customer has and had, as far as the copy tells."""
    asked = [(CHANGES, "after, previous", "object_id")]
    if "email" in columns.get(CUSTOMERS, ()):
        asked.append((CUSTOMERS, "email", "id"))
    found = {
        _address(value)
        for table, chosen, key in asked
        for values in select_rows(
            client,
            f"select {chosen} from {table_name(client, table)} where {key} = %s",
            customer,
        )
        for value in values
    }
    return {address for address in found if isinstance(address, str) and "@" in address}


def _address(value: Any) -> Any:
    """An address, or that in the body of a change."""
    if isinstance(value, str) and value.startswith("{"):
        value = json.loads(value)
    return value.get("email") if isinstance(value, Mapping) else value


def ids_of(client: Any, customer: str, columns: Columns) -> list[str]:
    """The ids of all rows of a customer."""
    return [
        id
        for table, condition in _rows_of(client, columns)
        for id in _ids(client, table, condition, customer)
    ]


def erase_keys(client: Any, customer: str, ids: Sequence[str], keys: Collection[str]) -> None:
    """Delete what was pushed for the rows with some keys, as the tables have them, and for those whose
    key is the digest of an address and whose object is the customer, or one of the customer's `ids`.
    """
    found = {*keys}
    for name, condition in PUSHED:
        query = f"select distinct row_key from {table_name(client, name)} where {condition}"
        values = [customer] * condition.count("%s")
        found.update(key for (key,) in select_rows(client, query, *values) if _is_digest(key))
        for batch, marks in _batches(ids):
            query = f"select distinct row_key from {table_name(client, name)} where object_id in ({marks})"
            found.update(key for (key,) in select_rows(client, query, *batch) if _is_digest(key))
    for name, _ in PUSHED:
        for batch, marks in _batches(sorted(found)):
            _update(
                client,
                f"delete from {table_name(client, name)} where row_key in ({marks})",
                *batch,
            )


def _is_digest(key: Any) -> bool:
    return isinstance(key, str) and len(key) == DIGEST_LENGTH


def _batches(values: Sequence[str]) -> Iterator[tuple[Sequence[str], str]]:
    """Values for one statement each, with their marks."""
    for start in range(0, len(values), IDS_AT_ONCE):
        batch = values[start : start + IDS_AT_ONCE]
        yield batch, ", ".join(["%s"] * len(batch))


def erase_rows(client: Any, customer: str, columns: Columns) -> dict[str, list[str]]:
    """Erase the rows of a customer; return the ids of those that the tables hold. dlt's staging
    tables, which keep the rows of the last load, are emptied of them.
    """
    ids = {}
    for table, condition in _rows_of(client, columns):
        names = _erasable(table, columns[table])
        name = table_name(client, table)
        nulls = ", ".join(f"{_quoted(client, column)} = null" for column in names)
        held = " or ".join(f"{_quoted(client, column)} is not null" for column in names)
        _update(client, f"update {name} set {nulls} where ({condition}) and ({held})", customer)
        ids[table] = _ids(client, table, condition, customer)
        with client.with_staging_dataset():
            staged = table_name(client, table)
        _update(client, f"delete from {staged} where {condition}", customer)
    for table, condition in PUSHED:
        _update(client, f"delete from {table_name(client, table)} where {condition}", customer)
    with client.with_staging_dataset():
        staged = table_name(client, CHANGES)
    _update(client, f"delete from {staged} where customer_id = %s", customer)
    return ids


def ids_of_others(client: Any, customer: str, columns: Columns) -> list[str]:
    """Return the ids of a customer's objects whose changes do not name the customer, such as
    disputes of charges, and still have a body.
    """
    with_body = f"select object_id from {table_name(client, CHANGES)} where resource = '{{}}' and {HAS_BODY}"
    return [
        id
        for table, condition in _rows_of(client, columns)
        if table in RESOURCES and RESOURCES[table].customer_through != BY_CUSTOMER
        for id in _ids(
            client, table, f"({condition}) and id in ({with_body})".format(table), customer
        )
    ]


def _ids(client: Any, table: str, condition: str, customer: str) -> list[str]:
    query = f"select id from {table_name(client, table)} where {condition}"
    values = [customer] * condition.count("%s")
    return [str(id) for (id,) in select_rows(client, query, *values)]


def _rows_of(client: Any, columns: Columns) -> Iterator[tuple[str, str]]:
    """Each table with rows of a customer, and the condition for them; children before parents."""
    for row in RESOURCES.values():
        condition = _condition(client, row.table, columns)
        if not condition:
            continue
        for child in row.children:
            if child.table in columns:
                parents = f"select id from {table_name(client, row.table)} where {condition}"
                yield child.table, f"{child.parent} in ({parents})"
        yield row.table, condition


def _condition(client: Any, table: str, columns: Columns) -> str:
    """The condition for a customer's rows of a table; "" if nothing that is loaded leads to them."""
    if table not in columns:
        return ""
    if table == CUSTOMERS:
        return "id = %s"
    found = []
    for column, owners in RESOURCES[table].customer_through:
        if column not in columns[table]:
            continue
        if owners == CUSTOMERS:
            found.append(f"{_quoted(client, column)} = %s")
        elif condition := _condition(client, owners, columns):
            others = f"select id from {table_name(client, owners)} where {condition}"
            found.append(f"{_quoted(client, column)} in ({others})")
    return " or ".join(found)


def held_columns(client: Any) -> Columns:
    """Read which tables are there, and their columns."""
    found = {}
    for table in TABLES:
        query = f"select * from {table_name(client, table)} where 1 = 0"
        try:
            with client.execute_query(query) as cursor:
                found[table] = set(cursor.columns_schema or ())
        except Exception as fault:
            if not is_missing_table(fault):
                raise
    return found


def _erasable(table: str, held: Collection[str]) -> list[str]:
    """The columns of a table that are erased."""
    kept = {child.parent for row in RESOURCES.values() for child in row.children}
    kept |= {column for row in RESOURCES.values() for column, _ in row.customer_through}
    columns = [
        column.name
        for column in TABLES[table].columns
        if column.kind in ERASED_KINDS and column.name not in FACTS | kept
    ]
    extras = RESOURCES[table].expandable if table in RESOURCES else ()
    names = [*columns, *(extra.name for extra in extras), "extra"]
    return [name for name in names if name in held]


def _quoted(client: Any, column: str) -> str:
    return str(client.capabilities.escape_identifier(column))


def _update(client: Any, statement: str, *values: str) -> None:
    """Run a statement, with one value for all its parameters or with one for each; a table that is
    missing has nothing to erase.
    """
    if len(values) == 1:
        values *= statement.count("%s")
    try:
        client.execute_sql(statement, *values)
    except Exception as fault:
        if not is_missing_table(fault):
            raise
