"""Every cell of the marts equals a calculation in plain Python that shares no SQL with them."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from .mart_rows import MARTS
from .modelled import Modelled, build, built, built_load_by_load, differences
from .mrr_oracle import MrrOracle, Settings
from .timelines import Family, draw_account, new_connection, raw_tables

FAMILIES: tuple[Family, ...] = ("observed", "invoiced")

pytestmark = pytest.mark.filterwarnings("error")


def hold(connection: Any, oracle: MrrOracle, about: object) -> None:
    """Hold every mart against the calculation, and close the connection."""
    wrong = [line for mart in MARTS for line in differences(connection, mart, oracle)]
    connection.close()
    assert not wrong, "\n".join([str(about), *wrong])


def hold_drawn(seed: int, timelines: int, family: Family, **variables: Any) -> None:
    """Hold every mart over a drawn account."""
    account = draw_account(seed, timelines, family)
    oracle = MrrOracle(account, Settings(**variables))
    hold(built(account, **variables), oracle, (seed, family))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_cell_is_as_calculated(family: Family) -> None:
    """Both families together: of three thousand timelines."""
    hold_drawn(1, 1_500, family)


@pytest.mark.parametrize(
    ("variable", "value", "family"),
    [
        ("churn_timing", "cancel", "observed"),
        ("churn_timing", "cancel", "invoiced"),
        ("paused_collection", "excluded", "observed"),
        ("discounts", "all", "observed"),
        ("discounts", "forever", "invoiced"),
        ("discounts", "none", "observed"),
        ("stacked_discounts", 1, "observed"),
        ("reporting_timezone", "America/New_York", "invoiced"),
        ("reporting_timezone", "Asia/Kolkata", "observed"),
    ],
)
def test_every_cell_is_as_calculated_with_another_definition(
    variable: str, value: Any, family: Family
) -> None:
    hold_drawn(2, 150, family, **{variable: value})


def test_every_cell_is_as_calculated_with_all_other_definitions() -> None:
    """At once."""
    variables = {
        "churn_timing": "cancel",
        "paused_collection": "excluded",
        "discounts": "all",
        "stacked_discounts": 1,
        "reporting_timezone": "America/New_York",
    }
    hold_drawn(2, 150, "invoiced", **variables)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "raw",
    [{"shape": "old", "shuffled": True}, {"doubled": True}],
    ids=["old-shape-shuffled", "doubled"],
)
def test_however_changes_come_every_cell_is_the_same(raw: dict[str, Any], family: Family) -> None:
    account = draw_account(4, 150, family)
    connection = new_connection(raw_tables(account, **raw))
    build(connection)

    hold(connection, MrrOracle(account), (raw, family))


@pytest.mark.parametrize(
    ("loads", "timelines"), [(3, 150), pytest.param(50, 60, marks=pytest.mark.long)]
)
def test_after_one_load_or_many_every_cell_is_the_same(loads: int, timelines: int) -> None:
    account = draw_account(5, timelines, "observed")

    hold(built_load_by_load(account, loads), MrrOracle(account), loads)


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("part", range(5))
def test_every_cell_of_a_hundred_thousand_timelines(part: int, family: Family) -> None:
    for seed in range(10):
        hold_drawn(1_000 + 10 * part + seed, 1_000, family)


MUTANTS = {
    "a week is a quarter of a month": ("mrr_items", "'week' then 52", "'week' then 48"),
    "a year is a month": ("mrr_items", "'month' then 1 else 12 end", "'month' then 1 else 1 end"),
    "unpaid counts": ("mrr_items", "in ('active', 'past_due')", "in ('active', 'past_due', 'unpaid')"),
    "a trial counts": ("mrr_items", "in ('active', 'past_due')", "in ('active', 'past_due', 'trialing')"),
    "past due does not count": ("mrr_items", "in ('active', 'past_due')", "in ('active')"),
    "packages are never rounded up": ("mrr_items", "round_quantity = 'up'", "round_quantity = 'never'"),
    "no quantity is no unit": ("mrr_items", "else coalesce(history.quantity, 1)", "else coalesce(history.quantity, 0)"),
    "a tier ends one unit early": ("mrr_items", "spans.units <= tiers.up_to", "spans.units < tiers.up_to"),
    "a flat amount is forgotten": ("mrr_items", "- tiers.units_below) + tiers.flat_amount", "- tiers.units_below)"),
    "the first change of a second wins": ("subscription_item_history", "order by load_id desc, load_seq desc, change_id desc", "order by load_id, load_seq, change_id"),
    "an earlier end is not believed": ("subscription_item_history", "next_status = 'canceled' and", "next_status = 'gone' and"),
    "a gap is invoiced": ("subscription_item_history", "case parts.n when 0 then 'invoice' else 'assumed' end as basis", "'invoice' as basis"),
    "prorations tell of a period": ("int_stripe__invoiced_lines", "and not lines.is_proration", ""),
    "void invoices tell of a period": ("int_stripe__invoiced_lines", "('paid', 'open', 'uncollectible')", "('paid', 'open', 'uncollectible', 'void')"),
    "the state after a change was before it": ("int_stripe__subscription_bases", "has_before = 1 then 'before'", "has_before = 2 then 'before'"),
    "a discount lasts": ("mrr_discounts", "discounts.ends_at > cells.valid_from", "discounts.ends_at is not null"),
    "a discount takes off every product": ("mrr_discounts", "discounts.product_ids is null or", "true or"),
    "an amount is taken off in any currency": ("mrr_discounts", "discounts.currency = cells.currency", "discounts.currency is not null"),
    "a customer's discount is added": ("int_stripe__discountable_mrr", "case when items.subscription_discounts <> '[]' then items.subscription_discounts else coalesce(customer_discounts.discount_ids, '[]') end", "coalesce(customer_discounts.discount_ids, items.subscription_discounts)"),
    "a month ends with its successor's first instant": ("mrr_monthly_customer", "items.valid_from < months.closes_at", "items.valid_from <= months.closes_at"),
    "who comes back is new": ("mrr_movements", "previous_number is not null as was_subscriber", "false as was_subscriber"),
    "a gap is no churn": ("mrr_movements", "or next_number > month_number + 1", ""),
    "a change knows no history": ("mrr_changes", "coalesce(customers.highest_before, 0) = 0 then 'new'", "true then 'new'"),
    "a plan is a quantity": ("mrr_changes", "when changes.price_steps > 0 then 'plan'", ""),
    "opening is closing": ("mrr_summary", "coalesce(lag(closings.mrr) over (partition by calendar.currency order by calendar.month_number), 0)", "coalesce(closings.mrr, 0)"),
    "due when it was made": ("invoice_aging", "coalesce(invoices.due_at, invoices.finalized_at,", "coalesce(invoices.finalized_at,"),
    "a free invoice converts": ("trial_conversions", "invoices.amount_paid > 0", "invoices.amount_paid >= 0"),
    "a free month is a trial": ("trial_conversions", "payers.subscription_id is not null as is_of_payer", "false as is_of_payer"),
    "a free month is churn": ("int_stripe__subscriber_spans", "where trials.is_of_payer", "where false"),
    "a window of 31 days": ("subscriber_metrics_daily", "sum(churned_subscribers) over (order by day rows between 29", "sum(churned_subscribers) over (order by day rows between 30"),
    "unpaid is voluntary": ("churn_events", "when cause = 'unpaid' then 'involuntary'", "when cause = 'unpaid' then 'voluntary'"),
    "growth is retention": ("retention_cohorts", "case when monthly.mrr < members.start_mrr then monthly.mrr else members.start_mrr end", "monthly.mrr"),
    "a refused payment is recovered": ("payment_recovery", "attempted.status = 'paid' as is_recovered", "attempted.status <> 'void' as is_recovered"),
    "tax is revenue": ("revenue_by_product", "- lines.inclusive_tax", ""),
    "a loss is no revenue": ("int_stripe__invoiced_lines", "in ('paid', 'open', 'uncollectible')", "in ('paid', 'open')"),
    "yesterday is thirty days ago": ("plan_usage", "* interval '1 day'", "* interval '1 hour'"),
    "a trial renews with its period": ("renewals_due", "when subscriptions.status = 'trialing' then", "when subscriptions.status = 'paused' then"),
    "what is due later is overdue": ("customers_360", "case when is_overdue then", "case when status = 'open' then"),
}  # fmt: skip
"""What could be wrong in a model: its name, the SQL that is replaced, and by what."""


@cache
def _small(family: Family) -> Modelled:
    return Modelled(draw_account(3, 250, family))


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_fault_in_the_sql_is_seen(mutant: str) -> None:
    model, right, wrong = MUTANTS[mutant]

    assert any(_small(family).sees(model, right, wrong) for family in FAMILIES)
