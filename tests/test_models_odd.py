"""Rows that Stripe should not send end no build: a cell that cannot be read counts as null."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from stripe_feed.models.checks import run_checks
from stripe_feed.models.database import duckdb_database
from stripe_feed.models.render import load_project, render_models
from stripe_feed.models.run import build_models

from .modelled import AS_OF_ALWAYS, build
from .odd_rows import make_odd
from .payments import payment_tables
from .timelines import draw_account, new_connection, raw_tables


@pytest.fixture(scope="module")
def odd() -> Iterator[Any]:
    tables = raw_tables(draw_account(5, 120, "invoiced")) | payment_tables()
    connection = new_connection(tables)
    make_odd(connection)
    build(connection)  # asserts that no model failed
    yield connection
    connection.close()


def test_odd_rows_end_no_build_and_a_rule_names_those_that_cannot_be_read(odd: Any) -> None:
    database, project = duckdb_database(odd, "stripe"), load_project()
    rule = {"amounts_can_be_read": project.tests["amounts_can_be_read"]}

    (result,) = run_checks(
        database,
        render_models(project, database.target),
        variables=AS_OF_ALWAYS,
        project=replace(project, tests=rule, properties={}),
    )

    assert result.failures == 6  # three of the amounts, in two tables
    assert ("subscription_items", "si_000001") in result.rows


def test_amounts_that_add_up_to_more_than_64_bits_fail_one_model_with_the_reason() -> None:
    connection = new_connection(raw_tables(draw_account(5, 20, "observed")))
    connection.execute(f"update stripe.invoice_line_items set amount = {2**63 - 1}")
    with closing(connection):
        results = build_models(duckdb_database(connection, "stripe"), ["+revenue_by_product"])

    assert {result.name: result.reason for result in results if result.status == "failed"} == {
        "revenue_by_product": "a number or a sum is beyond 64 bits"
    }
