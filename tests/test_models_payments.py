"""What the marts say of a month of payments, and of the copy's own health."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from fractions import Fraction
from typing import Any

import pytest

from .modelled import build, rows_of
from .payments import EMPTY, payment_tables
from .timelines import AS_OF, DAY, arrow_table, new_connection, raw_tables


@pytest.fixture(scope="module")
def paid() -> Iterator[Any]:
    """The models over payments, and over an invoice whose customer is not in the copy."""
    orphan = [{"id": "in_1", "customer": "cus_gone", "status": "void", "created": AS_OF - DAY}]
    tables = raw_tables(EMPTY) | payment_tables() | {"invoices": arrow_table("invoices", orphan)}
    connection = new_connection(tables)
    build(connection)
    yield connection
    connection.close()


def test_payouts_are_the_sum_of_their_transactions(paid: Any) -> None:
    rows = rows_of(
        paid,
        "select payout_id, transactions, charges, refunds, disputes, other, fees, net, difference, is_reconciled "
        "from stripe_models.payout_reconciliation order by payout_id",
    )

    assert [tuple(row.values()) for row in rows] == [
        ("po_1", 3, 150_00, -20_00, 0, 0, 4_95, 125_05, 0, True),
        ("po_2", 3, 200_00, 0, -50_00, 0, 23_10, 126_90, 0, True),
        ("po_3", 1, 5000, 0, 0, 0, 180, 4820, 0, True),
        ("po_4", 0, 0, 0, 0, 0, 0, 0, 10_00, None),
    ]


def test_fees_by_month_and_what_they_are_for(paid: Any) -> None:
    rows = rows_of(
        paid,
        "select month, currency, reporting_category, fee_type, transactions, fee, fee_major "
        "from stripe_models.fees_by_month order by month, currency, reporting_category",
    )

    october, november = date(2026, 10, 1), date(2026, 11, 1)
    assert [tuple(row.values()) for row in rows] == [
        (october, "usd", "charge", "stripe_fee", 2, 4_95, Fraction(495, 100)),
        (october, "usd", "dispute", "stripe_fee", 1, 15_00, 15),
        (november, "jpy", "charge", "stripe_fee", 1, 180, 180),
        (november, "usd", "charge", "stripe_fee", 2, 8_43, Fraction(843, 100)),
        (november, "usd", "fee", "stripe_fee", 1, 2_00, 2),
    ]


def test_a_fee_without_details_is_unknown(paid: Any) -> None:
    ((details,),) = paid.execute(
        "select fee_details from stripe.balance_transactions where id = 'txn_1'"
    ).fetchall()
    change = "update stripe.balance_transactions set fee_details = ? where id = 'txn_1'"
    paid.execute(change, ["[]"])
    fees = ["+fees_by_month"]
    build(paid, fees)
    rows = rows_of(paid, "select fee from stripe_models.fees_by_month where fee_type = 'unknown'")
    paid.execute(change, [details])
    build(paid, fees)

    assert rows == [{"fee": 3_20}]


def test_disputes_and_refunds_beside_charges(paid: Any) -> None:
    rows = rows_of(paid, "select * from stripe_models.disputes_and_refunds order by month")

    october = {
        "month": date(2026, 10, 1),
        "currency": "usd",
        "charges": 2,
        "charged_amount": 150_00,
        "refunds": 1,
        "refunded_amount": 20_00,
        "refund_rate": Fraction(133_333, 1_000_000),
        "disputes": 2,
        "disputed_amount": 60_00,
        "disputes_won": 0,
        "disputes_lost": 1,
        "disputes_lost_amount": 50_00,
        "disputes_open": 1,
        "dispute_rate": 1,
    }
    assert rows[0] == october
    assert (rows[1]["charged_amount"], rows[1]["refund_rate"], rows[1]["dispute_rate"]) == (
        200_00,
        0,
        0,
    )


def test_the_health_of_the_copy(paid: Any) -> None:
    rows = {row["table_name"]: row for row in rows_of(paid, "sync_health")}

    assert set(rows) == {
        "customers", "products", "prices", "plans", "subscriptions", "subscription_items",
        "invoices", "invoice_line_items", "changes", "coupons", "discounts", "charges", "refunds",
        "disputes", "balance_transactions", "payouts", "payout_balance_transactions",
    }  # fmt: skip
    assert rows["payouts"]["stored_rows"] > 0
    assert (rows["invoices"]["stored_rows"], rows["invoices"]["orphaned_rows"]) == (1, 1)
    assert rows["customers"]["orphaned_rows"] == 0
    assert {row["as_of"] for row in rows.values()} == {datetime(2026, 11, 20, 12, 34, 56)}
