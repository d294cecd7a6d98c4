"""Building models: what is selected, built, skipped and left out. The rows are judged elsewhere."""

from __future__ import annotations

from dataclasses import replace

import duckdb
import pytest

from stripe_feed.errors import UsageError
from stripe_feed.models import run
from stripe_feed.models.database import ModelDatabase, duckdb_database
from stripe_feed.models.render import ModelFile, Project, load_project, render_models
from stripe_feed.models.run import ModelResult, build_models, select_models
from stripe_feed.resources import TABLES
from tests.raw_tables import empty_tables, one_subscription


@pytest.fixture
def database() -> ModelDatabase:
    """A small project's database: `customers` with one row, and one complete load."""
    connection = duckdb.connect()
    connection.execute("create schema stripe")
    connection.execute("create table stripe.customers as select 'cus_1' as id")
    connection.execute("create table stripe._dlt_loads as select '1.5' as load_id, 0 as status")
    return duckdb_database(connection, "stripe")


def small_project(**models: str) -> Project:
    """A project of models in the folder marts, tables by default."""
    files = {name: ModelFile(name, "marts", text) for name, text in models.items()}
    return Project(
        files, {}, {}, {"source_dataset_name": "", "price_tiers": False}, {"marts": "table"}, {}
    )


BASE = "select id as customer_id from {{ source('stripe', 'customers') }}"
PROJECT = small_project(
    a=BASE,
    b="{{ config(materialized='view') }}select * from {{ ref('a') }}",
    c="select count(*) as customers from {{ ref('b') }}",
    other="select * from {{ source('stripe', 'coupons') }}",
    reader="select * from {{ ref('other') }}",
)


def statuses(results: list[ModelResult]) -> dict[str, str]:
    return {result.name: result.status for result in results}


def test_builds_in_order_and_leaves_out_what_lacks_a_table(database: ModelDatabase) -> None:
    results = build_models(database, project=PROJECT)

    assert statuses(results) == {
        "a": "built", "b": "built", "c": "built", "other": "left out", "reader": "left out",
    }  # fmt: skip
    assert {r.reason for r in results if r.status == "left out"} == {
        "the table coupons is not loaded"
    }
    assert database.execute("select customers from stripe_models.c") == [(1,)]


def test_builds_again_only_what_changed(database: ModelDatabase) -> None:
    build_models(database, project=PROJECT)

    assert set(statuses(build_models(database, project=PROJECT)).values()) == {
        "unchanged", "left out",
    }  # fmt: skip

    database.execute("insert into stripe.customers values ('cus_2')")
    database.execute("insert into stripe._dlt_loads values ('2.5', 0)")
    again = statuses(build_models(database, project=PROJECT))
    assert (again["a"], again["b"], again["c"]) == ("built", "unchanged", "built")
    assert database.execute("select customers from stripe_models.c") == [(2,)]

    models = {**PROJECT.models, "c": ModelFile("c", "marts", "select 7 as customers")}
    edited = statuses(build_models(database, project=replace(PROJECT, models=models)))
    assert (edited["a"], edited["c"]) == ("unchanged", "built")
    assert database.execute("select customers from stripe_models.c") == [(7,)]


def test_a_load_that_is_not_complete_changes_nothing(database: ModelDatabase) -> None:
    build_models(database, project=PROJECT)
    database.execute("insert into stripe._dlt_loads values ('3.5', 1)")

    assert "built" not in statuses(build_models(database, project=PROJECT)).values()


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (["b"], "b"),
        (["+b"], "a b"),
        (["b+"], "b c"),
        (["+b+"], "a b c"),
        (["a", "other+"], "a other reader"),
    ],
)
def test_selection(database: ModelDatabase, selection: list[str], names: str) -> None:
    build_models(database, project=PROJECT)

    found = {result.name for result in build_models(database, selection, project=PROJECT)}

    assert found == set(names.split())


def test_an_unknown_model_is_named(database: ModelDatabase) -> None:
    with pytest.raises(UsageError, match="no model 'mmr'"):
        build_models(database, ["+mmr"], project=PROJECT)


def test_a_failing_model_fails_its_readers_only(database: ModelDatabase) -> None:
    project = small_project(
        a=BASE,
        bad="select cast(customer_id as int) as number from {{ ref('a') }}",
        worse="select * from {{ ref('bad') }}",
    )

    results = {result.name: result for result in build_models(database, project=project)}

    assert statuses(list(results.values())) == {"a": "built", "bad": "failed", "worse": "failed"}
    assert "cus_1" not in results["bad"].reason  # the database's message quotes the value
    assert results["worse"].reason == "bad failed"


def test_an_incremental_model_keeps_its_rows_and_gains_columns(database: ModelDatabase) -> None:
    memory = "{{ config(materialized='incremental') }}select id as customer_id%s from {{ source('stripe', 'customers') }}{%% if is_incremental() %%} where id not in (select customer_id from {{ this }}){%% endif %%}"
    build_models(database, project=small_project(memory=memory % ""))
    database.execute("delete from stripe.customers")
    database.execute("insert into stripe.customers values ('cus_2')")

    build_models(database, full=True, project=small_project(memory=memory % ", 7 as seven"))

    rows = database.execute("select customer_id, seven from stripe_models.memory order by 1")
    assert rows == [("cus_1", None), ("cus_2", 7)]


@pytest.mark.parametrize("kinds", [("table", "view"), ("view", "table")])
def test_a_model_changes_its_kind(database: ModelDatabase, kinds: tuple[str, str]) -> None:
    for kind in kinds:
        text = f"{{{{ config(materialized='{kind}') }}}}select 1 as one"
        build_models(database, project=small_project(a=text))

        assert database.execute(
            "select table_type from information_schema.tables where table_name = 'a'"
        ) == [("VIEW" if kind == "view" else "BASE TABLE",)]


def test_every_model_builds_without_a_row_and_every_column_is_described() -> None:
    connection = duckdb.connect()
    empty_tables(connection)

    results = build_models(duckdb_database(connection, "stripe"))

    unbuilt = {result.missing for result in results if result.status != "built"}
    assert unbuilt <= load_project().raw_tables - TABLES.keys()
    hold_descriptions(connection)


def test_an_unchanged_build_renders_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = duckdb.connect()
    empty_tables(connection)
    one_subscription(connection)
    database = duckdb_database(connection, "stripe")
    project = load_project()
    names = select_models(render_models(project, database.target), ["+mrr_items"])
    project = replace(project, models={name: project.models[name] for name in names})
    monkeypatch.setattr(run, "load_project", lambda: project)
    first = build_models(database)
    unchanged = [replace(r, status="unchanged") if r.status == "built" else r for r in first]

    with monkeypatch.context() as patch:
        patch.setattr(run, "render_models", None)
        seen: list[ModelResult] = []
        again = build_models(database, watch=seen.append)
    assert [replace(r, seconds=0) for r in again] == [replace(r, seconds=0) for r in unchanged]
    assert seen == again

    build_models(database, ["mrr_items"], {"churn_timing": "cancel"})
    assert statuses(build_models(database))["mrr_items"] == "built"
    connection.execute("drop table stripe_models.mrr_items")
    assert statuses(build_models(database))["mrr_items"] == "built"
    connection.execute("insert into stripe._dlt_loads values ('2.5', 0, current_timestamp)")
    assert statuses(build_models(database))["mrr_items"] == "built"


def test_a_loaded_table_without_rows_need_not_exist() -> None:
    connection = duckdb.connect()
    empty_tables(connection)
    missing = ("changes", "invoices", "invoice_line_items")
    for table in missing:
        connection.execute(f"drop table stripe.{table}")
    database = duckdb_database(connection, "stripe")

    left = {r.missing for r in build_models(database) if r.status == "left out"}
    results = build_models(database, loaded=missing)

    assert left & set(missing)
    assert not {r.missing for r in results} & set(missing)
    assert {r.status for r in results if not r.missing} <= {"built", "unchanged"}


def hold_descriptions(connection: duckdb.DuckDBPyConnection) -> None:
    """Hold what the project says of its models against the columns that they have."""
    project = load_project()
    columns: dict[str, list[str]] = {}
    for model, column in connection.execute(
        "select table_name, column_name from information_schema.columns where table_schema = 'stripe_models'"
    ).fetchall():
        columns.setdefault(model, []).append(column)
    for own in ("_stripe_feed_models", "_stripe_feed_customers", "_stripe_feed_build"):
        del columns[own]

    assert project.properties.keys() == project.models.keys()
    for model, names in columns.items():
        described = project.properties[model]
        assert described["description"] and described["config"]["meta"]["grain"], model
        told = {column["name"]: column["description"] for column in described["columns"]}
        assert list(told) == names, model
        assert all(told.values()), model


def test_a_pause_within_a_trial_gives_one_state_at_a_time() -> None:
    connection = duckdb.connect()
    empty_tables(connection)
    one_subscription(connection)
    connection.execute("""
        update stripe.subscriptions set status = 'paused', trial_start = '2026-01-10 00:00:00+00',
        trial_end = '2026-01-24 00:00:00+00', status_details = '{"paused": {"transitioned_at": 1768011000}}'
    """)  # ten minutes after midnight
    database = duckdb_database(connection, "stripe")
    build_models(database, ["+subscription_item_history"])

    spans = database.execute(
        "select status, valid_from::varchar, valid_to::varchar from stripe_models.subscription_item_history order by 2"
    )

    assert spans[0] == ("trialing", "2026-01-10 00:00:00", "2026-01-24 00:00:00")
    assert {status for status, *_ in spans[1:]} == {"paused"}
    assert spans[1][1] == spans[0][2]
