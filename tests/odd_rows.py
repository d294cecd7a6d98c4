"""Rows that Stripe should not send."""

from __future__ import annotations

from collections import Counter
from typing import Any

AMOUNTS = (
    '"abc"', '"1e3"', '""', '"-500"', '"12.3456789012345"', '"99999999999999999999999999999"', "null", "7"
)  # fmt: skip
WRITTEN = (
    *(("subscription_items", "price", "unit_amount_decimal", value) for value in AMOUNTS),
    *(("changes", "after", "unit_amount_decimal", value) for value in AMOUNTS),
    *(("subscription_items", "price", "interval_count", value) for value in ("0", "-3", "null", '"x"')),
    *(("subscription_items", "price", "currency", value) for value in ("null", '"xxx"')),
    ("subscription_items", "price", "interval", '"decade"'),
    *(("invoice_line_items", "period", "start", value) for value in ("99999999999999", '"soon"', "null")),
    *(("changes", "after", "start_date", value) for value in ("99999999999999", '"soon"', "-5")),
    *(("changes", "after", "quantity", value) for value in ("-3", "1.5", '"many"')),
)  # fmt: skip
"""In a row each: a table, its JSON column, a field in there, and what it says."""

SET = (
    *(("invoice_line_items", f"""pricing = json_merge_patch(pricing, '{{"unit_amount_decimal": {value}}}')""") for value in AMOUNTS),
    ("subscription_items", "price = null"),
    ("subscription_items", "price = '[]'"),
    ("subscription_items", "quantity = -2"),
    ("subscription_items", "quantity = 9223372036854775807"),
    ("subscription_items", "subscription = 'sub_none'"),
    ("invoice_line_items", "currency = null"),
    ("invoice_line_items", "amount = null"),
    ("invoice_line_items", "quantity_decimal = -1.5"),
    ("invoice_line_items", """discount_amounts = '[{"amount": "x"}, 5, null]', taxes = '{"a": 1}'"""),
    ("invoices", "customer = null"),
    ("invoices", "currency = null"),
    ("invoices", "status = null"),
    ("invoices", "created = null"),
    ("invoices", """status_transitions = '{"finalized_at": "x"}'"""),
    ("subscriptions", "currency = null"),
    ("subscriptions", "customer = null"),
    ("subscriptions", "customer = 'cus_none'"),
    ("subscriptions", "status = 'frozen'"),
    ("subscriptions", "created = null, start_date = null"),
    ("subscriptions", "created = '1970-01-02 00:00:00+00', start_date = '1970-01-02 00:00:00+00'"),
    ("subscriptions", "created = '2090-01-02 00:00:00+00', start_date = '2090-01-02 00:00:00+00'"),
    ("customers", "deleted_at = '2026-11-01 00:00:00+00', currency = null"),
    ("changes", "after = '{}'"),
    ("changes", "after = '[]'"),
    ("prices", "product = null, currency = 'kwd'"),
    ("coupons", "percent_off = 33.33333333"),
)  # fmt: skip
"""In a row each: a table, and what its columns become."""

EMPTIED = "delete from stripe.subscription_items where subscription = (select max(id) from stripe.subscriptions)"


def make_odd(connection: Any) -> None:
    """Make a row of its own odd for each of these."""
    taken = Counter[str]()
    statements = [
        (table, f"""{column} = regexp_replace({column}::varchar, '"{field}": ?("[^"]*"|[^,}}]+)', '"{field}": {value}')::json""",
         f"contains({column}::varchar, '\"{field}\"')")
        for table, column, field, value in WRITTEN
    ]  # fmt: skip
    for table, change, where in (*statements, *((*one, "true") for one in SET)):
        key = "change_id" if table == "changes" else "id"
        kind = "resource = 'subscriptions' and op <> 'd'" if table == "changes" else "true"
        (done,) = connection.execute(
            f"update stripe.{table} set {change} where {key} = (select {key} from stripe.{table} "
            f"where {kind} and {where} order by {key} limit 1 offset {taken[table]})"
        ).fetchone()
        assert done == 1, (table, change)
        taken[table] += 1
    connection.execute(EMPTIED)
