"""The rules of the models hold over random accounts, and each sees the fault that it is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest

from stripe_feed.models.checks import RuleResult, run_checks
from stripe_feed.models.database import ModelDatabase, duckdb_database
from stripe_feed.models.render import (
    ModelTarget,
    Project,
    RenderedModel,
    load_project,
    render_models,
)

from .modelled import build
from .payments import payment_tables
from .timelines import draw_account, new_connection, raw_tables


def checked(database: ModelDatabase, project: Project) -> list[RuleResult]:
    """The results of a project's rules over the models of a database."""
    return run_checks(database, _rendered(database.target), project=project)


@cache
def _rendered(target: ModelTarget) -> dict[str, RenderedModel]:
    return render_models(load_project(), target)


@pytest.fixture(scope="module")
def database() -> Iterator[ModelDatabase]:
    """Two hundred random subscriptions and a month of payments, with all models."""
    connection = new_connection(raw_tables(draw_account(6, 200, "invoiced")) | payment_tables())
    build(connection)
    yield duckdb_database(connection, "stripe")
    connection.close()


def test_every_rule_holds(database: ModelDatabase) -> None:
    results = checked(database, load_project())

    assert [result.check.name for result in results if result.reason] == []
    assert [(result.check.name, result.rows) for result in results if result.failures] == []


def test_no_column_becomes_a_float_for_whoever_reads_arrow(database: ModelDatabase) -> None:
    found = database.execute(
        "select table_name, column_name, data_type from information_schema.columns "
        "where table_schema = 'stripe_models' and table_name not like '\\_%' escape '\\' "
        "and data_type in ('DOUBLE', 'FLOAT', 'HUGEINT')"
    )

    assert found == []


FAULTS = {
    "amounts_can_be_read": """update stripe.subscription_items set price = '{"unit_amount_decimal": "abc"}'""",
    "discounts_leave_no_debt": "update int_stripe__net_mrr set mrr = -1 where mrr > 0",
    "history_does_not_overlap": "insert into subscription_item_history select * from subscription_item_history where valid_to is not null limit 1",
    "mrr_adds_up_by_product": "update int_stripe__net_mrr set mrr = mrr + 1",
    "mrr_changes_add_up": "update mrr_changes set amount = amount + 1",
    "mrr_covers_the_calendar": "delete from mrr_summary where month = (select max(month) from months)",
    "mrr_identity": "update mrr_summary set churn_mrr = churn_mrr + 1 where churn_mrr > 0",
    "subscribers_roll_forward": "update subscriber_metrics_daily set new_subscribers = new_subscribers + 1 where new_subscribers > 0",
    "subscribers_leave_once": "delete from churn_events",
    "invoices_equal_their_lines": "update stripe.invoice_line_items set amount = amount + 1",
    "cohorts_only_lose": "update retention_cohorts set retained_customers = cohort_customers + 1 where is_complete",
    "payouts_reconcile": "update payout_reconciliation set net = net - 1, difference = 1",
    "fees_add_up": "update fees_by_month set fee = fee + 1",
    "revenue_has_every_line": "update revenue_by_product set line_items = line_items + 1",
}  # fmt: skip
"""A statement for each rule in `tests/` that breaks it."""


def test_each_rule_has_a_fault() -> None:
    assert FAULTS.keys() == load_project().tests.keys()


@pytest.mark.parametrize("rule", FAULTS)
def test_a_planted_fault_is_seen_and_its_rows_are_named(database: ModelDatabase, rule: str) -> None:
    project = load_project()
    alone = replace(project, tests={rule: project.tests[rule]}, properties={})
    database.execute("use stripe_models")
    database.execute("begin")
    try:
        database.execute(FAULTS[rule])
        (result,) = checked(database, alone)
    finally:
        database.execute("rollback")
        database.execute("use main")

    assert result.failures > 0
    first = dict(zip(result.columns, result.rows[0], strict=True))
    keys = {name for name in first if name.endswith("_id") or name in ("currency", "month", "day")}
    assert keys and all(first[name] is not None for name in keys), first
