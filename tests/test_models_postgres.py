"""The models in Postgres, over a copy that `sync` keeps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import adbc_driver_postgresql.dbapi
import dlt
import psycopg2
import pyarrow as pa
import pytest

from stripe_feed import open_copy
from stripe_feed.destination.pipeline import dlt_settings, open_pipeline
from stripe_feed.errors import UsageError
from stripe_feed.feed.feed import Feed
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.models.checks import run_checks
from stripe_feed.models.copies import build_copy_models
from stripe_feed.models.database import ModelDatabase, client_database, duckdb_database
from stripe_feed.models.render import load_project, render_models
from stripe_feed.models.run import build_models
from stripe_feed.report.run import write_report
from stripe_feed.sandbox import Sandbox
from stripe_feed.sync_run import sync
from tests.copies import FAST
from tests.model_triggers import Rows, Watched, a_model_trigger, check_against_calculation
from tests.odd_rows import make_odd
from tests.postgres import postgres_server
from tests.reports import read_page
from tests.timelines import AS_OF as TIMELINES_AS_OF
from tests.timelines import Family, draw_account, new_connection, raw_tables, utc_time

AS_OF = {"as_of": "2026-11-20 12:00:00"}


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


def rows(state_dir: Path, query: str) -> list[Any]:
    """The rows of a query on the models in Postgres."""
    with dlt_settings():
        pipeline = open_pipeline(None, "postgres", "stripe", str(state_dir))
        with client_database(pipeline.sql_client()) as database:
            return database.execute(query)


def test_a_full_refresh_drops_the_views_and_a_build_brings_them_back(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres)
    box = Sandbox(seed=11, customers=4, invoices=0, subscriptions=6, oddities=False)
    place: dict[str, Any] = {"destination": "postgres", "state_dir": str(tmp_path)}
    with box.serve() as url:
        source = {"api_key": box.key, "api_base": url, **place, **FAST}
        sync(**source)
        first = build_copy_models(**place, variables=AS_OF)
        assert {r.status for r in first if not r.missing} == {"built"}
        assert not {"invoices", "invoice_line_items", "changes"} & {r.missing for r in first}
        again = build_copy_models(**place, variables=AS_OF)
        assert {r.status for r in again if not r.missing} == {"unchanged"}
        before = rows(tmp_path, "select * from stripe_models.mrr_items order by 1, 7")
        rows(tmp_path, "create view public.mine as select * from stripe_models.mrr_summary")

        with caplog.at_level("INFO", "stripe_feed"):
            sync(**source, full_refresh=True)

        dropped = [r for r in caplog.messages if "of the models, made" in r]
        assert len(dropped) == 1
        built = build_copy_models(**place, variables=AS_OF)

    assert {r.status for r in built if not r.missing} == {"built"}
    assert rows(tmp_path, "select * from stripe_models.mrr_items order by 1, 7") == before
    assert rows(tmp_path, "select count(*) from public.mine")[0][0] > 0

    report = tmp_path / "report.html"
    written = write_report(str(report), **place, variables=AS_OF)

    assert (written.built, written.stale) == ([], ())
    ((currency, mrr),) = rows(
        tmp_path,
        "select currency, closing_mrr_major from stripe_models.mrr_summary order by month desc, closing_mrr desc limit 1",
    )
    assert read_page(report).tables[f"MRR, {currency.upper()}"][-1]["MRR"] == f"{mrr:,.2f}"


def copy_tables(connection: Any, tables: dict[str, pa.Table], url: str) -> None:
    """Copy the raw tables of a DuckDB connection to Postgres, with the types that dlt gives."""
    columns = connection.execute(
        "select table_name, column_name from information_schema.columns "
        "where table_schema = 'stripe' and data_type = 'JSON'"
    ).fetchall()
    with adbc_driver_postgresql.dbapi.connect(url) as server, server.cursor() as cursor:
        cursor.execute("create schema if not exists timelines")
        for name, table in tables.items():
            decimals = [f.name for f in table.schema if pa.types.is_decimal(f.type)]
            for column in decimals:
                at = table.schema.get_field_index(column)
                table = table.set_column(at, column, table[column].cast(pa.string()))
            cursor.adbc_ingest(name, table, db_schema_name="timelines", mode="create")
            types = dict.fromkeys(decimals, "numeric(38, 12)")
            types |= {column: "json" for owner, column in columns if owner == name}
            for column, type_ in types.items():
                cursor.execute(
                    f'alter table timelines.{name} alter column "{column}" type {type_} using "{column}"::{type_}'
                )
        server.commit()


@pytest.mark.parametrize("family", ["observed", "invoiced", "odd"])
def test_every_row_is_that_of_duckdb_in_any_time_zone(
    postgres: str, family: Family | Literal["odd"], tmp_path: Path
) -> None:
    tables = raw_tables(draw_account(5, 120, "invoiced" if family == "odd" else family))
    connection = new_connection(tables)
    if family == "odd":
        make_odd(connection)
        tables = {name: connection.table(f"stripe.{name}").to_arrow_table() for name in tables}
    connection.execute("set timezone = 'Asia/Kolkata'")
    ours = duckdb_database(connection, "stripe")
    as_of = {"as_of": f"{utc_time(TIMELINES_AS_OF)}"}
    results = build_models(ours, variables=as_of)
    copy_tables(connection, tables, postgres)
    pipeline = dlt.pipeline(
        f"timelines_{family}",
        destination=dlt.destinations.postgres(postgres),
        dataset_name="timelines",
        pipelines_dir=str(tmp_path),
    )

    with client_database(pipeline.sql_client()) as theirs:
        theirs.execute("set timezone = 'America/St_Johns'")
        build_models(theirs, variables=as_of)
        wrong = [r.name for r in results if not r.missing and not same_rows(ours, theirs, r.name)]
        assert broken_rules(theirs) == broken_rules(ours)
        theirs.execute("drop schema timelines cascade")
        theirs.execute("drop schema timelines_models cascade")

    assert len([r for r in results if not r.missing]) > 30
    assert wrong == []


def broken_rules(database: ModelDatabase) -> dict[str, tuple[int, str]]:
    """How many rows break each rule, and why it was not checked."""
    models = render_models(load_project(), database.target)
    return {r.check.name: (r.failures, r.reason) for r in run_checks(database, models)}


def same_rows(ours: ModelDatabase, theirs: ModelDatabase, name: str) -> bool:
    """Whether a model has the same rows in two databases; columns with JSON aside."""
    described = ours.columns(f"select * from stripe_models.{name}")
    columns = ", ".join(column for column, type_ in described if type_.lower() != "json")
    found, expected = (
        Counter(database.execute(f"select {columns} from {database.target.relation(name)}"))
        for database in (theirs, ours)
    )
    return found == expected


def test_postgres_has_the_types_of_columns_without_rows_too(
    postgres: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres)
    with (
        adbc_driver_postgresql.dbapi.connect(postgres, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        for schema in ("plain", "plain_models"):
            cursor.execute(f"create schema {schema}")
        cursor.execute(
            "create table plain.customers as select 'cus_1' as id, timestamptz '2026-11-01 00:00:00+02' as created, "
            """'{"a": 1}'::json as metadata, 9007199254740993 as balance, null::text as name"""
        )
        cursor.execute(
            "create table plain_models.mrr_summary as select 1.000000000001::numeric(38,12) as ratio where false"
        )
    copy = open_copy(destination="postgres", dataset="plain")
    customers: Any = copy.table("customers").to_arrow_table()
    summary = copy.table("mrr_summary").to_arrow_table()
    total = copy.sql("select sum(balance) as n from customers left join mrr_summary on true")
    with pytest.raises(UsageError, match="mrr_items is not built"):
        copy.sql("select * from mrr_items")
    with pytest.raises(UsageError, match="only reads"):
        copy.sql("delete from customers")
    seen = (copy.tables(), copy.models())

    assert [str(field.type) for field in customers.schema] == [
        "string",
        "timestamp[us, tz=UTC]",
        "string",
        "int64",
        "string",
    ]
    (row,) = customers.to_pylist()
    assert row["created"].isoformat() == "2026-10-31T22:00:00+00:00"
    assert (json.loads(row["metadata"]), row["balance"]) == ({"a": 1}, 2**53 + 1)
    assert summary.schema.field("ratio").type == pa.decimal128(38, 12)
    assert total.fetchall() == [(Decimal(2**53 + 1),)]
    assert seen == (["customers"], ["mrr_summary"])


class PostgresWatched(Watched):
    """The table `watched` in Postgres, read as `deliver` reads models."""

    def __post_init__(self) -> None:
        self.connection.execute("drop table if exists watched")
        self.connection.execute(f"create table watched ({self.columns})")

    def hold(self, rows: Rows) -> None:
        self.connection.execute("delete from watched")
        for key, row in rows.items():
            values = [key, row["customer_id"], row["mrr"], row["note"]]
            self.connection.execute("insert into watched values (%s, %s, %s, %s)", values)

    def read(self, read: Callable[[ModelDatabase], Any]) -> Any:
        return self.feed.read_models(read)


@pytest.fixture
def watched(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PostgresWatched]:
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres)
    with (
        dlt_settings(),
        closing(psycopg2.connect(postgres)) as connection,
        FeedStore(tmp_path / "copy.feed.sqlite") as store,
    ):
        connection.autocommit = True
        feed = Feed(open_pipeline(None, "postgres", "stripe", str(tmp_path)), store)
        yield PostgresWatched(store, connection=connection.cursor(), feed=feed)


def test_triggers_tell_the_differences_of_random_tables(watched: PostgresWatched) -> None:
    for seed in range(4):
        check_against_calculation(watched, seed)


def test_rows_look_as_those_of_duckdb(watched: PostgresWatched) -> None:
    sql = """
        select id, mrr::numeric as whole, mrr::numeric / 8 as part, timestamp '2026-11-30 12:00:00.5' as at_time,
            timestamptz '2026-11-30 12:00:00+02' as in_zone, date '2026-11-30' as at_day, true as is_so, 0.5::float8 as half,
            json_build_object('like', note) as nested
        from watched where note like 'a%%' or note like 'a%'
    """
    trigger = a_model_trigger(sql=sql, key=["id", "whole"])
    watched.evaluate_one(trigger)
    watched.hold({"a": {"customer_id": None, "mrr": 9, "note": "a'b"}})
    watched.evaluate_one(trigger)

    (change,) = watched.changes()
    assert (change.object_id, change.after) == (
        "a/9",
        {
            "id": "a", "whole": 9, "part": "1.1250000000000000", "at_time": "2026-11-30T12:00:00.500000Z",
            "in_zone": "2026-11-30T10:00:00Z", "at_day": "2026-11-30", "is_so": True, "half": 0.5, "nested": {"like": "a'b"},
        },
    )  # fmt: skip


def test_the_time_zone_of_a_session_is_no_difference(
    watched: PostgresWatched, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = "select timestamptz '2026-11-30 23:00:00+00' as at_time, (timestamptz '2026-11-30 23:00:00+00')::date as at_day"
    trigger = a_model_trigger(
        sql=sql, key=["at_time"], watch=["at_day"], on=["entered", "left", "changed"]
    )
    watched.evaluate_one(trigger)
    monkeypatch.setenv("PGTZ", "Asia/Kolkata")

    assert watched.evaluate_one(trigger).seen == 0


def test_keys_that_are_null_or_double_and_wrong_sql_are_told(watched: PostgresWatched) -> None:
    watched.connection.execute("insert into watched (id) values ('a'), ('a'), (null)")

    null, double, wrong, written = watched.evaluate(
        a_model_trigger("null"),
        a_model_trigger("double", rows="id is not null"),
        a_model_trigger("wrong", sql="select nothing from watched"),
        a_model_trigger(
            "written", sql="with gone as (delete from watched returning id) select * from gone"
        ),
    )

    assert str(null.error).startswith("The key (id) is null in 1 row of watched.")
    assert str(double.error).startswith("The key (id) of watched is not unique: a.")
    assert wrong.error == 'The rows of watched cannot be read: column "nothing" does not exist'
    assert written.error is not None
    watched.connection.execute("select count(*) from watched")
    assert watched.connection.fetchall() == [(3,)]
