"""The models say what others have published: Stripe's glossary, its support pages, other tools."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from fractions import Fraction
from typing import Any

import pytest

from .golden_cases import CASES, Case, golden_account, item, paid, price, second_of
from .modelled import built, rows_of
from .timelines import Account, Customer, Subscription


@pytest.fixture(scope="module")
def golden() -> Iterator[Any]:
    """Every case, as a customer of one account."""
    connection = built(golden_account())
    yield connection
    connection.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_mrr_is_what_is_published(golden: Any, case: Case) -> None:
    monthly = {
        row["month"]: row["mrr"]
        for row in rows_of(
            golden,
            f"select month, mrr from stripe_models.mrr_monthly_customer where customer_id = '{case.customer}'",
        )
    }
    moved = {
        row["month"]: (row["kind"], row["amount"])
        for row in rows_of(
            golden,
            f"select month, kind, amount from stripe_models.mrr_movements where customer_id = '{case.customer}'",
        )
    }

    assert {month: monthly.get(date(*month, 1), 0) for month in case.mrr} == case.mrr
    assert {month: moved.get(date(*month, 1)) for month in case.movements} == case.movements


def test_the_twelve_cases_and_the_worked_examples_are_there() -> None:
    assert sum(case.source == "Stripe glossary" for case in CASES) == 12
    assert {case.name for case in CASES if case.known_difference} == {
        "example_19_week",
        "example_19_day",
        "example_21",
    }


def summary(connection: Any, currency: str, month: date) -> dict[str, Any]:
    """The row of `mrr_summary` for a month."""
    (row,) = rows_of(
        connection,
        f"select * from stripe_models.mrr_summary where currency = '{currency}' and month = '{month}'",
    )
    return row


OCTOBER = date(2026, 10, 1)


def test_example_1_a_hundred_monthly_and_fifty_yearly(golden: Any) -> None:
    row = summary(golden, "aed", OCTOBER)

    assert (row["closing_mrr"], row["closing_mrr_major"]) == (12_500_00, 12_500)


def test_example_3_a_once_coupon_counts_where_one_time_discounts_are_subtracted() -> None:
    connection = built(golden_account(), discounts="all")
    ((mrr,),) = connection.execute(
        "select mrr from stripe_models.mrr_monthly_customer "
        "where customer_id = 'cus_example_3_once' and month = '2026-11-01'"
    ).fetchall()
    connection.close()

    assert mrr == 50_00


def test_example_5_the_rate_of_churn() -> None:
    """A hundred were active 30 days ago, twenty came, six left of whom one had come: 6 of 120."""
    account = Account("observed", [], [], [], [])
    monthly = price(1000)
    account.prices.append(monthly)
    begins = ["2026-09-01"] * 100 + ["2026-11-01"] * 20
    ends = ["2026-11-10"] * 5 + [""] * 95 + ["2026-11-12"] + [""] * 19
    for number, (start, end) in enumerate(zip(begins, ends, strict=True)):
        life = paid(start, item(f"{number:03d}", monthly), end=end)
        customer = Customer(f"cus_{number:03d}", second_of(start))
        account.customers.append(customer)
        account.subscriptions.append(
            Subscription(
                f"sub_{number:03d}",
                customer.id,
                "usd",
                customer.created,
                customer.created,
                list(life),
            )
        )
    connection = built(account)
    (row,) = rows_of(
        connection, "select * from stripe_models.subscriber_metrics_daily where day = '2026-11-20'"
    )
    connection.close()

    assert (row["active_30_days_before"], row["new_30_days"], row["churned_30_days"]) == (
        100,
        20,
        6,
    )
    assert row["churn_rate_30_days"] == Fraction(5, 100)
    assert row["active_subscribers"] == 114


@pytest.mark.parametrize(
    ("name", "outcome"), [("unpaid", "expired"), ("paid_then_cancelled", "converted")]
)
def test_example_6_a_trial_is_converted_once_it_is_paid(
    golden: Any, name: str, outcome: str
) -> None:
    rows = rows_of(
        golden,
        f"select outcome from stripe_models.trial_conversions where customer_id = 'cus_example_6_{name}'",
    )

    assert rows == [{"outcome": outcome}]


def test_examples_7_to_11_a_life_in_events(golden: Any) -> None:
    rows = rows_of(
        golden,
        "select changed_at, kind, amount from stripe_models.mrr_changes "
        "where customer_id = 'cus_examples_7_to_11' order by changed_at",
    )

    assert [(str(row["changed_at"].date()), row["kind"], row["amount"]) for row in rows] == [
        ("2025-06-10", "new", 166_67),
        ("2025-07-14", "expansion", 60_00),
        ("2025-09-20", "contraction", -60_00),
        ("2026-06-10", "churn", -166_67),
        ("2026-08-01", "reactivation", 150_00),
    ]


def test_example_12_gross_and_net_churn(golden: Any) -> None:
    row = summary(golden, "bob", OCTOBER)

    assert row["opening_mrr"] == 100
    assert row["gross_mrr_churn_rate"] == Fraction(20, 100)
    assert row["net_mrr_churn_rate"] == Fraction(10, 100)


def test_example_13_growth_before_churn_does_not_raise_the_rate(golden: Any) -> None:
    row = summary(golden, "cop", OCTOBER)

    assert (row["churn_mrr"], row["gross_mrr_churn_rate"]) == (500, 1)


def test_example_14_two_changes_and_no_movement(golden: Any) -> None:
    rows = rows_of(
        golden,
        "select kind from stripe_models.mrr_changes where customer_id = 'cus_example_14' order by changed_at",
    )
    movements = rows_of(
        golden, "select * from stripe_models.mrr_movements where customer_id = 'cus_example_14'"
    )

    assert [row["kind"] for row in rows] == ["new", "churn"]
    assert movements == []


def test_example_15_retention_of_revenue(golden: Any) -> None:
    row = summary(golden, "dkk", OCTOBER)

    assert (row["opening_mrr"], row["closing_mrr"]) == (27_000, 30_000)
    assert row["net_revenue_retention"] == Fraction(1_111_111, 1_000_000)
