"""The source on the databases that dlt can merge into, each with a second run that changes rows;
the others are refused.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dlt
import psycopg2
import pytest
from dlt.destinations.exceptions import DatabaseTerminalException
from dlt.pipeline.exceptions import PipelineStepFailed

from stripe_feed import Feed, open_feed, open_push, stripe_source, sync
from stripe_feed.destination.error_messages import refused_error
from stripe_feed.destination.pipeline import dlt_settings, open_pipeline
from stripe_feed.errors import Fenced, SetupError, TryLater, UsageError
from stripe_feed.extract.tables import indexes
from stripe_feed.sandbox import Sandbox
from tests.copies import FAST, copy_of
from tests.postgres import postgres_server
from tests.truth import assert_true, truth


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["duckdb", "sqlite", "postgres"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    match request.param:
        case "duckdb":
            return dlt.destinations.duckdb(str(tmp_path / "copy.duckdb"))
        case "sqlite":
            return dlt.destinations.sqlalchemy(f"sqlite:///{tmp_path / 'copy.db'}")
        case _:
            return dlt.destinations.postgres(request.getfixturevalue("postgres"))


def young(box: Sandbox) -> tuple[str, str, str]:
    """A customer, a subscription with many items and an invoice with many lines, all within the
    look-back of the next run.
    """
    made = (
        box.create("customers", name="Young"),
        box.create("subscriptions", items=14),
        box.create("invoices", lines=23),
    )
    box.advance(60)
    return made[0]["id"], made[1]["id"], made[2]["id"]


def change(box: Sandbox, customer: str, subscription: str, invoice: str) -> None:
    """Rows change, children vanish, stay, change and come, lists shrink below ten and grow beyond;
    and more is new.
    """
    items = [
        id
        for id, item in box.children("subscription_items").items()
        if item["subscription"] == subscription
    ]
    lines = [
        id for id, line in box.children("invoice_line_items").items() if line["invoice"] == invoice
    ]
    box.update(
        "customers", customer, name="Changed", metadata={"": "now", "ключ": "значение"}, balance=-5
    )
    box.update(
        "subscriptions", subscription, items=[{"id": items[3], "quantity": 9}, {"id": items[0]}, {}]
    )
    box.update(
        "invoices",
        invoice,
        lines=[*({"id": id} for id in lines[2:]), *({"amount": n} for n in range(30))],
    )
    bare = box.create("invoices", lines=3)["id"]
    box.update("invoices", bare, lines=[])
    for table in ("customers", "products", "subscriptions"):
        box.create(table)
    box.create("prices", currency="jpy", unit_amount=980, recurring={"interval": "month"})
    box.advance(30)


def test_two_runs(destination: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Everything equals the account after the first run, and after a second one that changes rows;
    a third writes nothing.
    """
    box = Sandbox(seed=11, customers=40)
    ids = young(box)
    with copy_of(box, tmp_path) as copy, dlt_settings():
        pipeline = dlt.pipeline(
            "two_runs",
            destination=destination,
            dataset_name="stripe",
            pipelines_dir=str(tmp_path / "dlt"),
        )
        exact = (
            pipeline.destination.destination_name != "sqlalchemy"
        )  # SQLite has no decimals: 15 digits are left
        pipeline.run(copy.source())
        assert_true(pipeline, box, exact=exact)

        change(box, *ids)
        pipeline.run(copy.source())
        assert_true(pipeline, box, exact=exact)

        loads = _loads(pipeline)
        pipeline.run(copy.source())
        assert _loads(pipeline) == loads


def test_an_account_without_most_things(destination: Any, tmp_path: Path) -> None:
    """Resources without a row make no file that a destination stumbles over."""
    box = Sandbox(seed=11, customers=3, invoices=0, subscriptions=0, products=0, oddities=False)
    with copy_of(box, tmp_path) as copy, dlt_settings():
        pipeline = dlt.pipeline(
            "few", destination=destination, dataset_name="few", pipelines_dir=str(tmp_path / "dlt")
        )
        pipeline.run(copy.source())
        assert_true(pipeline, box, ["customers"])
        box.create("products")
        box.advance(100)
        pipeline.run(copy.source())
        assert_true(pipeline, box, ["customers", "products"])


def _loads(pipeline: Any) -> Any:
    with (
        pipeline.sql_client() as client,
        client.execute_query("select count(*) from _dlt_loads") as cursor,
    ):
        return cursor.fetchall()


WORK = """
select coalesce(sum(seq_tup_read), 0) + coalesce(sum(idx_tup_fetch), 0) from pg_stat_user_tables where schemaname like '{}%'
"""


def merged_twice(postgres: str, customers: int, folder: Path, dataset: str) -> tuple[int, int]:
    """Merge every row into a filled copy of itself; return how many rows there are, and how many
    Postgres had to look at.
    """
    box = Sandbox(seed=12, customers=customers)
    with copy_of(box, folder) as copy, dlt_settings():
        for run in range(
            2
        ):  # a pipeline of another name has no cursor: it merges everything once more
            destination = dlt.destinations.postgres(postgres)
            pipeline = dlt.pipeline(
                f"linear{run}",
                destination=destination,
                dataset_name=dataset,
                pipelines_dir=str(folder),
            )
            pipeline.run(copy.source())
            box.advance(10)
        assert_true(pipeline, box)
        with pipeline.sql_client() as client:
            client.execute_sql("select pg_stat_force_next_flush()")
            ((work,),) = client.execute_sql(WORK.format(dataset)) or []
            ((rows,),) = client.execute_sql("select count(*) from customers") or []
    assert rows == len(truth(box)["customers"].raws)
    return sum(len(expected.raws) for expected in truth(box).values()), int(work)


def test_a_merge_on_postgres_is_linear(postgres: str, tmp_path: Path) -> None:
    """20,000 rows into 20,000: Postgres looks at each a few times, not at all of them for each."""
    rows, work = merged_twice(postgres, 3600, tmp_path, "linear")
    assert rows > 20_000
    assert work < 30 * rows


INDEXES = "select tablename, indexdef from pg_indexes where schemaname = '{}'"


def indexed(pipeline: Any) -> list[str]:
    """Table and columns of each index of a dataset."""
    with pipeline.sql_client() as client:
        found = client.execute_sql(INDEXES.format(pipeline.dataset_name)) or []
    return sorted(
        f"{table} {definition[definition.index('(') :]}"
        for table, definition in found
        if not table.startswith("_dlt")
    )


def test_on_postgres_ids_are_indexed_once(postgres: str, tmp_path: Path) -> None:
    """By the run that first finds the tables; an index that is there already, whoever made it, is
    enough.
    """
    box = Sandbox(seed=11, customers=5, oddities=False)
    with copy_of(box, tmp_path) as copy, dlt_settings():
        server = dlt.destinations.postgres(postgres)
        pipeline = dlt.pipeline(
            "indexed",
            destination=server,
            dataset_name="indexed",
            pipelines_dir=str(tmp_path / "dlt"),
        )
        pipeline.run(copy.source())
        assert indexed(pipeline) == []
        with pipeline.sql_client() as client:
            client.execute_sql("create unique index mine on customers (id, livemode)")
        box.advance(400)
        box.update("customers", box.create("customers")["id"], name="Changed")
        box.advance(400)
        pipeline.run(copy.source())
        assert indexed(pipeline) == [
            "customers (id, livemode)",
            "invoice_line_items (invoice)",
            "invoices (id)",
            "plans (id)",
            "prices (id)",
            "products (id)",
            "subscription_items (subscription)",
            "subscriptions (id)",
        ]
        for _ in range(2):
            pipeline.run(copy.source())
        assert [one for one in indexed(pipeline) if "changes" in one] == [
            "changes (_dlt_load_id)",
            "changes (change_id)",
            "changes (object_id)",
        ]
        assert len(indexed(pipeline)) == 11
        with pipeline.sql_client() as client:
            bare = "select attname from pg_attribute where attrelid = 'customers'::regclass and attnum > 0 and not attisdropped"
            assert client.execute_sql(f"{bare} and col_description(attrelid, attnum) is null") == []
        assert_true(pipeline, box)


def test_on_postgres_two_runs_cannot_double_a_row(
    postgres: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What a user may do, and what another run does, are told apart. Rows that are there twice
    already are said.
    """
    where = dlt.destinations.postgres(postgres)
    with dlt.pipeline("once", destination=where, dataset_name="once").sql_client() as client:
        client.execute_sql(
            "drop schema if exists once cascade; create schema once; create table once.plans (id text)"
        )
        client.execute_sql(
            "create table once.customers (id text); insert into once.customers values ('cus_1'), ('cus_1')"
        )
        indexes.create_indexes(client, "dlt.destinations.postgres")
        assert "customers holds some rows twice. Run `stripe-feed reconcile`." in caplog.text
        with client:
            client.execute_sql("delete from once.customers")
        indexes.create_indexes(client, "dlt.destinations.postgres")
        with client:  # what is mended is kept so
            names = (
                client.execute_sql("select indexname from pg_indexes where schemaname = 'once'")
                or ()
            )
        assert ("customers_id_once",) in names
        with dlt.pipeline("once", destination=where, dataset_name="once").sql_client() as other:
            other.execute_sql("insert into once.plans values ('plan_1')")
            with pytest.raises(DatabaseTerminalException) as raised:
                other.execute_sql("insert into once.plans values ('plan_1')")
        refused = refused_error(raised.value, "postgres", "once")
        assert (type(refused), str(refused)) == (
            TryLater,
            "postgres cannot load plans: another run wrote to it at the same time, or a rule, a trigger or a policy "
            "there keeps old rows. Run again. Drop that where this stays.",
        )
        with client:
            client.execute_sql(
                "create role nobody; grant usage on schema once to nobody; set role nobody"
            )
            with pytest.raises(DatabaseTerminalException) as raised:
                client.execute_sql("select 1 from once.plans")
        assert str(refused_error(raised.value, "postgres", "once")) == (
            "postgres cannot go on: the user lacks a right (plans). "
            "Let the owner grant it, or make this user the owner, then run again."
        )


def test_an_index_waits_for_nobody(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that somebody writes to is indexed by a later load; this one goes on."""
    monkeypatch.setattr(indexes, "INDEX_LOCK_TIMEOUT", "50ms")
    box = Sandbox(seed=11, customers=5, oddities=False)
    with (
        copy_of(box, tmp_path) as copy,
        dlt_settings(),
        closing(psycopg2.connect(postgres)) as other,
    ):
        server = dlt.destinations.postgres(postgres)
        pipeline = dlt.pipeline(
            "busy", destination=server, dataset_name="busy", pipelines_dir=str(tmp_path / "dlt")
        )
        pipeline.run(copy.source(resources="customers"))
        other.cursor().execute("lock table busy.customers in row exclusive mode")
        box.create("customers")
        box.advance(400)
        pipeline.run(copy.source(resources="customers"))
        assert_true(pipeline, box, ["customers"])
        assert "customers (id)" not in indexed(pipeline)
        other.rollback()
        pipeline.run(copy.source(resources="customers"))
        assert "customers (id)" in indexed(pipeline)


def test_a_role_that_may_not_index_still_loads(postgres: str, tmp_path: Path) -> None:
    """On Postgres only a table's owner may: without an index it is slower, and as right."""
    box = Sandbox(seed=11, customers=5, oddities=False)
    with copy_of(box, tmp_path) as copy, dlt_settings():

        def load(server: str) -> Any:
            destination = dlt.destinations.postgres(server)
            pipeline = dlt.pipeline(
                "lent",
                destination=destination,
                dataset_name="lent",
                pipelines_dir=str(tmp_path / "dlt"),
            )
            pipeline.run(copy.source())
            return pipeline

        with load(postgres).sql_client() as client:
            client.execute_sql("create role loader login password 'x'")
            for schema in ("lent", "lent_staging"):
                client.execute_sql(
                    f"grant all on schema {schema} to loader; grant all on all tables in schema {schema} to loader"
                )
        box.create("customers")
        box.advance(400)
        pipeline = load(postgres.replace("postgres:x@", "loader:x@"))
        assert_true(pipeline, box)
        assert indexed(pipeline) == []


@pytest.mark.long
def test_a_merge_of_100_000_rows_on_postgres_ends(postgres: str, tmp_path: Path) -> None:
    """The same with 100,000, in a process that is stopped when it hangs."""
    program = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from tests.test_destinations import merged_twice
print(*merged_twice({postgres!r}, 18_000, Path({str(tmp_path)!r}), "linear_long"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=1200, check=True
    )
    rows, work = map(int, done.stdout.split()[-2:])
    assert rows > 100_000
    assert work < 30 * rows


def test_a_destination_that_cannot_merge_is_refused(tmp_path: Path) -> None:
    """Files would pile up: refused with the reason before anything is asked of Stripe, and nothing
    is left behind.
    """
    box = Sandbox(seed=13, customers=20)
    with copy_of(box, tmp_path) as copy, dlt_settings():
        destination = dlt.destinations.filesystem((tmp_path / "bucket").as_uri())
        pipeline = dlt.pipeline(
            "files",
            destination=destination,
            dataset_name="stripe",
            pipelines_dir=str(tmp_path / "dlt"),
        )
        with pytest.raises(PipelineStepFailed) as raised:
            pipeline.run(copy.source())
        assert isinstance(_cause(raised.value), SetupError)
        assert "filesystem cannot merge" in str(_cause(raised.value))
        assert not pipeline.has_pending_data
        assert box.counts.total() == 0
        assert not list((tmp_path / "bucket").rglob("*.parquet"))


def test_sync_refuses_a_destination_that_cannot_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same from `sync`, as a plain error."""
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", (tmp_path / "bucket").as_uri())
    with (
        copy_of(Sandbox(seed=13, customers=20), tmp_path) as copy,
        pytest.raises(SetupError, match="cannot merge"),
    ):
        copy.sync(destination="filesystem", database=None)


def _cause(error: BaseException) -> BaseException:
    """What dlt has wrapped."""
    while not isinstance(error, SetupError) and (inner := error.__cause__ or error.__context__):
        error = inner
    return error


def test_a_worker_whose_disk_is_gone_goes_on(postgres: str, tmp_path: Path) -> None:
    """Its cursor is in the destination; two workers do not both move one."""
    box = Sandbox(seed=3, customers=6, oddities=False)
    server = dlt.destinations.postgres(postgres)
    pipeline = dlt.pipeline(
        "worker", destination=server, dataset_name="worker", pipelines_dir=str(tmp_path)
    )
    ids = list(box.objects("customers"))[:3]
    with box.serve() as url:
        for name in ("First", "Second"):
            pipeline.run(
                stripe_source(resources="customers", api_key=box.key, api_base=url, **FAST)
            )
            box.advance(400)
            for id in ids if name == "First" else ():
                box.update("customers", id, name=name)
            box.advance(400)

    def worker(n: int) -> Feed:
        return open_feed(pipeline, tmp_path / f"disk{n}.sqlite", keeps_cursors=True)

    with worker(1) as feed:
        first = [one.change_id for one in feed.consume("play", start="earliest", max=2)]
    with worker(2) as feed:
        second = [one.change_id for one in feed.consume("play")]
    with worker(3) as feed:
        assert list(feed.consume("play")) == []
    with worker(4) as feed:
        every = [one.change_id for one in feed.read()]
    assert (len(first), [*first, *second]) == (2, every)

    one, other = worker(5), worker(6)
    for feed in (one, other):
        feed.reset("play", "earliest")
        list(feed.consume("play", max=1))
    one.close()
    with pytest.raises(Fenced):
        other.close()


def test_cursors_in_the_destination_are_for_servers(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="server databases"):
        open_feed(open_pipeline(str(tmp_path / "a.duckdb")), keeps_cursors=True)


def test_a_push_asks_a_copy_on_postgres_for_an_address_in_another_case(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Sandbox(seed=3, customers=5, oddities=False)
    held = next(iter(box.objects("customers")))
    box.update("customers", held, email="Ann.O'Neil@Example.org", name="Ann")
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres)
    crm = {"name": "crm", "object": "customers", "key": "n", "match": "email",
           "map": {"email": "email", "name": "name"}}  # fmt: skip
    rows = [{"n": 1, "email": "ann.o'neil@example.org", "name": "A"},
            {"n": 2, "email": "no\0body@example.org", "name": "B"}]  # fmt: skip
    with box.serve() as url:
        monkeypatch.setenv("STRIPE_API_BASE", url)
        copy: Any = {"destination": "postgres", "dataset": "push_copy"}
        for _ in range(2):  # events follow the first lists
            box.advance(120)
            sync(api_key=box.key, state_dir=str(tmp_path), resources=["customers"], **copy, **FAST)
        with open_push(crm, box.key, log=tmp_path / "push.sqlite", **copy) as push:
            assert push.plan(rows[:1]).decisions[0].object_id == held
            result = push.run(rows)
    assert [(row.status, row.object_id) for row in result.rows if row.key == "1"] == [
        ("updated", held)
    ]
