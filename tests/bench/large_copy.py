"""A large copy without a sandbox: a drawn account, many times over, straight into a DuckDB file.

At `LARGE` copies 112,000 customers, 158,000 subscriptions, 713,000 invoices, 1.1 million lines,
48,000 changes. The drawn account is one of the oracle's: trials, pauses, discounts, tiers, three
currencies, changes of the last 30 days.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from tests.timelines import draw_account, load_names, new_connection, raw_tables

LARGE = 105
SUBSCRIPTIONS = 1_500  # in one copy
FIRST_LOAD, SECOND_LOAD = load_names(2)
_CATALOGUE = ("prices", "plans", "products", "coupons")  # there once, not per copy
_PLAIN = ("resource", "op", "origin", "event_type", "api_version", "status", "currency")


def write_copy(file: Path, copies: int = LARGE) -> None:
    """Write the raw tables of the account, so many times over with other ids. The changes of the last
    copy wait for `load_last_copy`.
    """
    drawn = raw_tables(draw_account(7, SUBSCRIPTIONS, "invoiced"))
    typed = new_connection(drawn)
    with duckdb.connect(str(file)) as connection:
        connection.execute("set threads = 2; set preserve_insertion_order = false")
        connection.execute("create schema stripe; create schema waiting")
        for name, table in drawn.items():
            times = 1 if name in _CATALOGUE or name == "_dlt_loads" else copies
            connection.register("drawn", table)
            connection.execute(
                f"create table stripe.{name} as select {_columns(typed, name)} "
                f"from drawn cross join range(1, {times + 1}) as copies(n)"
            )
        last = f"contains(object_id, '_{copies}x')"
        connection.execute(
            f"create table waiting.changes as select * from stripe.changes where {last}; "
            f"delete from stripe.changes where {last}"
        )


def load_last_copy(file: Path, copies: int = LARGE) -> None:
    """Write what a second sync would: every row of one copy again, and its changes."""
    with duckdb.connect(str(file)) as connection:
        for table in ("customers", "subscriptions", "subscription_items", "invoices", "invoice_line_items"):  # fmt: skip
            rows = f"stripe.{table} where contains(id, '_{copies}x')"
            connection.execute(f"create or replace temp table again as select * from {rows}")
            connection.execute(f"delete from {rows}")
            connection.execute(
                f"insert into stripe.{table} select * replace ('{SECOND_LOAD}' as _dlt_load_id) from again"
            )
        connection.execute(
            f"insert into stripe.changes select * replace ('{SECOND_LOAD}' as _dlt_load_id) from waiting.changes; "
            f"insert into stripe._dlt_loads select * replace ('{SECOND_LOAD}' as load_id) from stripe._dlt_loads"
        )


def _columns(typed: Any, table: str) -> str:
    """The columns of a table, with the number of the copy in each id."""
    found = typed.execute(
        "select column_name, data_type from information_schema.columns "
        f"where table_schema = 'stripe' and table_name = '{table}' order by ordinal_position"
    ).fetchall()
    return ", ".join(_column(table, name, kind) for name, kind in found)


def _column(table: str, name: str, kind: str) -> str:
    if kind not in ("VARCHAR", "JSON") or table in _CATALOGUE or name in _PLAIN:
        return f'cast("{name}" as {kind}) as "{name}"'
    ids, numbered = "(cus|sub|si|in|il|di)_([0-9])", r"\1_' || copies.n || 'x\2"
    return f"""cast(regexp_replace("{name}", '{ids}', '{numbered}', 'g') as {kind}) as "{name}" """
