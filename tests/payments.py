"""A month of payments as raw tables: charges, a refund, a dispute, and the payouts that they are in."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from .golden_cases import second_of
from .timelines import ACCOUNT, Account, arrow_table

Row = dict[str, Any]


def _transaction(
    number: int, payout: str | None, category: str, amount: int, fee: int, day: str, currency: str
) -> tuple[Row, str | None]:
    fees = [{"amount": fee, "currency": currency, "type": "stripe_fee"}] if fee else []
    row = {
        "id": f"txn_{number}",
        "created": second_of(day),
        "available_on": second_of(day),
        "type": "payout" if category == "payout" else category,
        "reporting_category": category,
        "status": "available",
        "currency": currency,
        "amount": amount,
        "fee": fee,
        "net": amount - fee,
        "source": f"src_{number}",
        "fee_details": fees,
        "account_id": ACCOUNT,
    }
    return row, payout


TRANSACTIONS = (
    _transaction(1, "po_1", "charge", 100_00, 3_20, "2026-10-01", "usd"),
    _transaction(2, "po_1", "charge", 50_00, 1_75, "2026-10-02", "usd"),
    _transaction(3, "po_1", "refund", -20_00, 0, "2026-10-03", "usd"),
    _transaction(4, "po_1", "payout", -125_05, 0, "2026-10-05", "usd"),
    _transaction(5, "po_2", "dispute", -50_00, 15_00, "2026-10-30", "usd"),
    _transaction(6, "po_2", "charge", 200_00, 6_10, "2026-11-01", "usd"),
    _transaction(7, "po_2", "fee", 0, 2_00, "2026-11-02", "usd"),
    _transaction(8, "po_2", "payout", -126_90, 0, "2026-11-03", "usd"),
    _transaction(9, "po_3", "charge", 5000, 180, "2026-11-01", "jpy"),
    _transaction(10, "po_3", "payout", -4820, 0, "2026-11-03", "jpy"),
    _transaction(11, None, "charge", 70_00, 2_33, "2026-11-10", "usd"),
)


def _payout(name: str, amount: int, day: str, currency: str, automatic: bool = True) -> Row:
    return {
        "id": name,
        "created": second_of(day),
        "arrival_date": second_of(day),
        "status": "paid",
        "type": "bank_account",
        "method": "standard",
        "currency": currency,
        "amount": amount,
        "automatic": automatic,
        "reconciliation_status": "completed" if automatic else "not_applicable",
        "account_id": ACCOUNT,
        "livemode": False,
    }


PAYOUTS = (
    _payout("po_1", 125_05, "2026-10-05", "usd"),
    _payout("po_2", 126_90, "2026-11-03", "usd"),
    _payout("po_3", 4820, "2026-11-03", "jpy"),
    _payout("po_4", 10_00, "2026-11-04", "usd", automatic=False),
)


def _charge(number: int, amount: int, day: str, status: str = "succeeded") -> Row:
    return {
        "id": f"ch_{number}",
        "created": second_of(day),
        "status": status,
        "currency": "usd",
        "amount": amount,
        "amount_captured": amount if status == "succeeded" else 0,
        "captured": status == "succeeded",
        "payment_method_details": {"type": "card"},
        "account_id": ACCOUNT,
    }


def payment_tables() -> dict[str, pa.Table]:
    """Return the raw tables of the payments."""
    refunds = [
        {"id": "re_1", "created": second_of("2026-10-03"), "status": "succeeded", "currency": "usd", "amount": 20_00},
        {"id": "re_2", "created": second_of("2026-10-04"), "status": "failed", "currency": "usd", "amount": 50_00},
    ]  # fmt: skip
    disputes = [
        {"id": "dp_1", "created": second_of("2026-10-30"), "status": "lost", "currency": "usd", "amount": 50_00, "charge": "ch_2"},
        {"id": "dp_2", "created": second_of("2026-10-31"), "status": "needs_response", "currency": "usd", "amount": 10_00, "charge": "ch_1"},
    ]  # fmt: skip
    rows: dict[str, list[Row]] = {
        "balance_transactions": [row for row, _ in TRANSACTIONS],
        "payout_balance_transactions": [
            row | {"payout": payout} for row, payout in TRANSACTIONS if payout
        ],
        "payouts": list(PAYOUTS),
        "charges": [
            _charge(1, 100_00, "2026-10-01"),
            _charge(2, 50_00, "2026-10-02"),
            _charge(3, 30_00, "2026-10-02", status="failed"),
            _charge(4, 200_00, "2026-11-01"),
        ],
        "refunds": refunds,
        "disputes": disputes,
    }
    return {name: arrow_table(name, stored) for name, stored in rows.items()}


EMPTY = Account("observed", [], [], [], [])
"""An account with nothing but payments."""
