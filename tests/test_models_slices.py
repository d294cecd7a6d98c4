"""Models brought up to date by the customers that changed have the rows of a whole build."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from stripe_feed.models import slices
from stripe_feed.models.database import ModelDatabase, duckdb_database, existing_relations
from stripe_feed.models.render import Project, RenderedModel, load_project, render_models
from stripe_feed.models.run import build_models, select_models

from .mart_rows import MARTS
from .modelled import AS_OF_ALWAYS, build, built_load_by_load, differences
from .mrr_oracle import MrrOracle
from .timelines import AS_OF, DAY, Family, draw_account, new_connection, raw_tables, utc_time

PER_CUSTOMER = {
    name for name in load_project().models if slices.is_per_customer(load_project(), name)
}


@pytest.fixture
def sliced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that were built by slices, however many customers changed."""
    names: list[str] = []
    rebuild = slices.CustomerSlices.rebuild

    def watched(self: slices.CustomerSlices, model: RenderedModel, past: Any) -> bool:
        is_done = rebuild(self, model, past)
        if is_done:
            names.append(model.name)
        return is_done

    monkeypatch.setattr(slices, "LARGEST_SHARE", 1.0)
    monkeypatch.setattr(slices.CustomerSlices, "rebuild", watched)
    monkeypatch.setenv("STRIPE_FEED_DEBUG", "1")
    return names


def hold(connection: Any, oracle: MrrOracle) -> None:
    wrong = [line for mart in MARTS for line in differences(connection, mart, oracle)]
    assert not wrong, "\n".join(wrong)


def new_load(connection: Any, number: int) -> str:
    """Record a complete load and return its id."""
    name = f"1795000001.{number:06d}"
    connection.execute(
        f"insert into stripe._dlt_loads by name select '{name}' as load_id, 0 as status, max(inserted_at) as inserted_at from stripe._dlt_loads"
    )
    return name


@pytest.mark.parametrize(
    ("loads", "timelines"), [(2, 40), pytest.param(40, 150, marks=pytest.mark.broad)]
)
def test_load_by_load_every_cell_is_as_calculated(
    sliced: list[str], loads: int, timelines: int
) -> None:
    account = draw_account(5, timelines, "observed")

    hold(built_load_by_load(account, loads), MrrOracle(account))

    assert sliced.count("mrr_items") == loads - 1
    assert set(sliced) == PER_CUSTOMER - {"int_stripe__subscription_images"}


class Mutations:
    """What a sync can do to the rows of a customer, at random."""

    def __init__(self, connection: Any, seed: int) -> None:
        self._connection, self._rng = connection, random.Random(seed)

    def __call__(self, load: str) -> None:
        for _ in range(6):
            self._rng.choice(
                (self._end, self._pay, self._lose, self._forget, self._requantify, self._discount)
            )(load)

    def _one(self, table: str) -> str:
        rows = self._connection.execute(f"select id from stripe.{table} order by id").fetchall()
        return str(self._rng.choice(rows)[0])

    def _end(self, load: str) -> None:
        self._connection.execute(
            "update stripe.subscriptions set status = 'canceled', ended_at = created + interval '40 days', "
            f"canceled_at = created + interval '40 days', _dlt_load_id = '{load}' where id = '{self._one('subscriptions')}'"
        )

    def _pay(self, load: str) -> None:
        self._connection.execute(
            "update stripe.invoices set status = 'paid', amount_paid = amount_due, amount_remaining = 0, "
            f"_dlt_load_id = '{load}' where id = '{self._one('invoices')}'"
        )

    def _lose(self, load: str) -> None:
        name = self._one("invoices")
        self._connection.execute(
            f"delete from stripe.invoices where id = '{name}'; delete from stripe.invoice_line_items where invoice = '{name}'"
        )

    def _forget(self, load: str) -> None:
        name = self._one("customers")
        for table, child, column in (
            ("subscriptions", "subscription_items", "subscription"),
            ("invoices", "invoice_line_items", "invoice"),
        ):
            own = f"from stripe.{table} where customer = '{name}'"
            self._connection.execute(
                f"delete from stripe.{child} where {column} in (select id {own}); delete {own}"
            )
        self._connection.execute(f"delete from stripe.changes where customer_id = '{name}'")
        self._connection.execute(f"delete from stripe.customers where id = '{name}'")

    def _requantify(self, load: str) -> None:
        self._connection.execute(
            f"update stripe.subscription_items set quantity = 4, _dlt_load_id = '{load}' where id = '{self._one('subscription_items')}'"
        )

    def _discount(self, load: str) -> None:
        self._connection.execute(
            "update stripe.customers set discount = (select discount from stripe.customers where discount is not null order by id limit 1), "
            f"_dlt_load_id = '{load}' where id = '{self._one('customers')}'"
        )


@pytest.mark.parametrize(
    ("seed", "loads"),
    [(1, 1), *(pytest.param(seed, 6, marks=pytest.mark.broad) for seed in range(1, 12))],
)
def test_however_rows_change_the_tables_are_those_of_a_whole_build(
    sliced: list[str], seed: int, loads: int
) -> None:
    family: Family = "invoiced" if seed % 2 else "observed"
    connection = new_connection(raw_tables(draw_account(seed, 60, family)))
    build(connection, full=False)
    mutate = Mutations(connection, seed)
    for number in range(loads):
        mutate(new_load(connection, number))
        build(connection, full=False)
    assert sliced.count("mrr_movements") == loads

    tables = [
        name
        for name, kind in existing_relations(duckdb_database(connection, "stripe")).items()
        if kind == "table" and not name.startswith("_")
    ]
    for name in tables:
        connection.execute(f"create temp table {name} as from stripe_models.{name}")
    build(connection, full=True)
    for name in tables:
        (wrong,) = connection.execute(
            f"select count(*) from ((from temp.{name} except all from stripe_models.{name}) "
            f"union all (from stripe_models.{name} except all from temp.{name}))"
        ).fetchone()
        assert not wrong, name


@pytest.mark.parametrize(
    ("days", "is_monthly_sliced"), [(18, True), pytest.param(40, False, marks=pytest.mark.broad)]
)
def test_what_time_alone_changes_is_as_calculated(
    sliced: list[str], days: int, is_monthly_sliced: bool
) -> None:
    """The clock of the models is a table here; between two builds days pass."""
    account = draw_account(6, 60, "invoiced")
    connection = new_connection(raw_tables(account))
    connection.execute("create table stripe.wall as select timestamp '2000-01-01' as moment")
    project = load_project()
    clock = "{% macro default__now() %}(select moment /* current_timestamp */ from memory.stripe.wall){% endmacro %}"
    project = replace(project, macros={**project.macros, "default__now": clock})
    database = duckdb_database(connection, "stripe")

    def build_at(second: int) -> None:
        moment = utc_time(second)
        connection.execute(f"update stripe.wall set moment = '{moment}'")
        results = build_models(database, project=project)
        assert "failed" not in {result.status for result in results}
        connection.execute(f"update stripe_models._stripe_feed_models set built_at = '{moment}'")

    build_at(AS_OF - days * DAY)
    new_load(connection, 1)
    build_at(AS_OF)

    hold(connection, MrrOracle(account))
    assert ("mrr_monthly_customer" in sliced) == is_monthly_sliced
    assert {"mrr_changes", "churn_events"} <= set(sliced)
    moments = connection.execute("select distinct as_of from stripe_models.mrr_changes").fetchall()
    assert moments == [(utc_time(AS_OF),)]


def small_copy() -> tuple[Any, ModelDatabase, Project]:
    """A small account with the models up to `int_stripe__net_mrr`, and a project of those."""
    connection = new_connection(raw_tables(draw_account(8, 12, "invoiced")))
    database, project = duckdb_database(connection, "stripe"), load_project()
    names = select_models(render_models(project, database.target), ["+int_stripe__net_mrr"])
    project = replace(project, models={name: project.models[name] for name in names})
    build_models(database, variables=AS_OF_ALWAYS, project=project)
    return connection, database, project


@pytest.mark.parametrize(
    ("change", "is_sliced"),
    [
        ("update stripe.products set name = 'Other'", True),
        ("update stripe.coupons set times_redeemed = 7", True),
        ("update stripe.prices set tax_behavior = 'inclusive'", False),
        ("update stripe.invoices set customer = null where id = (select min(id) from stripe.invoices)", False),
        ("create or replace table stripe_models._stripe_feed_customers as select 'x' as load_id, '' as customer_id, 0 as mark", False),
    ],
    ids=["a product", "a coupon's use", "a price", "an invoice of nobody", "other marks"],
)  # fmt: skip
def test_what_belongs_to_nobody_makes_a_whole_build(
    sliced: list[str], change: str, is_sliced: bool
) -> None:
    connection, database, project = small_copy()
    connection.execute(change)
    new_load(connection, 1)

    build_models(database, variables=AS_OF_ALWAYS, project=project)

    assert ("mrr_items" in sliced) == is_sliced


@pytest.mark.parametrize(
    "damage",
    [
        "delete from {table} where subscription_item_id = (select min(subscription_item_id) from {table})",
        "alter table {table} drop column subscription_item_id",
        "alter table {table} add column note varchar",
    ],
    ids=["rows deleted", "a column dropped", "a column added"],
)
def test_a_damaged_table_is_built_whole(sliced: list[str], damage: str) -> None:
    connection, database, project = small_copy()
    table = "stripe_models.mrr_items"
    connection.execute(f"create table whole as from {table}")
    connection.execute(damage.format(table=table))
    new_load(connection, 1)

    results = build_models(database, variables=AS_OF_ALWAYS, project=project)

    assert "failed" not in {result.status for result in results}
    assert "mrr_items" not in sliced and "int_stripe__invoiced_lines" in sliced
    assert connection.execute(f"from {table} except all from whole").fetchall() == []
    assert connection.execute(f"from whole except all from {table}").fetchall() == []


def test_many_changed_customers_make_a_whole_build(
    sliced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "LARGEST_SHARE", 0.2)
    connection, database, project = small_copy()
    load = new_load(connection, 1)
    connection.execute(f"update stripe.customers set _dlt_load_id = '{load}'")

    build_models(database, variables=AS_OF_ALWAYS, project=project)

    assert not sliced


def test_a_model_that_missed_a_load_is_built_whole(sliced: list[str]) -> None:
    connection, database, project = small_copy()
    new_load(connection, 1)
    build_models(database, ["+int_stripe__item_periods"], AS_OF_ALWAYS, project=project)
    new_load(connection, 2)
    sliced.clear()

    build_models(database, variables=AS_OF_ALWAYS, project=project)

    assert "int_stripe__invoiced_lines" not in sliced
    assert {"int_stripe__subscription_bases", "mrr_items"} <= set(sliced)
