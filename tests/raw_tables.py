"""The raw tables of a copy without rows, as DuckDB holds them."""

from __future__ import annotations

from typing import Any

from stripe_feed.extract.tables.changes import CHANGE_SCHEMA
from stripe_feed.extract.tables.codec import ADDED_COLUMNS, LOAD_COLUMN
from stripe_feed.resources import CHANGES, TABLES

SQL_TYPES = {
    "text": "varchar",
    "ref": "varchar",
    "bigint": "bigint",
    "bool": "boolean",
    "timestamp": "timestamptz",
    "decimal": "decimal(38, 12)",
    "double": "double",
    "json": "json",
}


def empty_tables(connection: Any) -> None:
    """Create every raw table without rows, and the record of one load."""
    connection.execute("create schema stripe")
    connection.execute(
        "create table stripe._dlt_loads as select '1.5' as load_id, 0 as status, current_timestamp as inserted_at"
    )
    for table, row in TABLES.items():
        columns = {
            column.name: SQL_TYPES[column.kind]
            for column in (*row.columns, *ADDED_COLUMNS, LOAD_COLUMN)
        }
        typed = ", ".join(f'"{name}" {type_}' for name, type_ in columns.items())
        connection.execute(f"create table stripe.{table} ({typed})")
    connection.register("empty_changes", CHANGE_SCHEMA.empty_table())
    connection.execute(f"create table stripe.{CHANGES} as select * from empty_changes")
    for column in ("after", "previous", "changed"):
        connection.execute(f"alter table stripe.{CHANGES} alter {column} type json")


def one_subscription(connection: Any) -> None:
    """Insert an active subscription over 30.00 usd a month, since 10 January 2026."""
    connection.execute("""
        insert into stripe.subscriptions (id, customer, status, currency, created, start_date, discounts)
        values ('sub_1', 'cus_1', 'active', 'usd', '2026-01-10 00:00:00+00', '2026-01-10 00:00:00+00', '[]');
        insert into stripe.subscription_items (id, subscription, created, quantity, price, discounts, current_period_start)
        values ('si_1', 'sub_1', '2026-01-10 00:00:00+00', 2, '{"id": "price_1", "product": "prod_1", "currency": "usd",
            "unit_amount_decimal": "1500", "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"}}',
            '[]', '2026-11-10 00:00:00+00');
        insert into stripe.customers (id, created) values ('cus_1', '2026-01-10 00:00:00+00');
    """)
