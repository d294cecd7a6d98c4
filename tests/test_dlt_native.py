"""An ordinary dlt source: what dlt's users do with any other works here as well, and nothing is
lost by it.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pyarrow as pa
import pytest
from dlt.common.configuration.container import Container
from dlt.common.pipeline import PipelineContext
from dlt.pipeline.exceptions import PipelineStepFailed

from stripe_feed import open_feed, stripe_source
from stripe_feed.errors import SetupError, UsageError
from stripe_feed.extract.paging import reader
from stripe_feed.resources import RESOURCES
from stripe_feed.sandbox import Sandbox
from tests.commands import Said, ended
from tests.copies import FAST, Copy, copy_of, held_open
from tests.core import CORE, CORE_TABLES
from tests.truth import assert_true

SCRIPT = """
import dlt
from stripe_feed import open_feed, stripe_source

pipeline = dlt.pipeline("stripe_feed", destination="duckdb", dataset_name="stripe")
pipeline.run(stripe_source())
"""
KEYS = ("STRIPE_SECRET_KEY", "secrets.toml", "SOURCES__STRIPE_FEED__API_KEY")


SOME = ("customers", "invoices")  # enough for what is the same for all


def account() -> Sandbox:
    """A few objects of each kind; a long invoice, and a price that no list shows."""
    box = Sandbox(seed=3, customers=4, invoices=3, subscriptions=3, oddities=False)
    box.create("invoices", created=box.now - 10_000, lines=12, status="paid")
    box.create(
        "subscriptions", created=box.now - 10_000, items=[{"price_data": {"unit_amount": 4200}}, {}]
    )
    return box


def grow(box: Sandbox) -> None:
    """What is new for the next run, a price among it that no list shows."""
    box.advance(1000)
    box.create("customers")
    box.create("subscriptions", items=[{"price_data": {"unit_amount": 77}}, {}])
    box.create("invoices", lines=12)
    box.advance(10)


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    with copy_of(account(), tmp_path, hold=True) as found:
        yield found


# -- in a user's own script
# -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Sandbox, Said, Path]]:
    """The script of the README in empty folders, the key at a different place in each; all at the
    same time.
    """
    box = account()
    started = {}
    with box.serve() as url:
        for where in KEYS:
            folder = tmp_path_factory.mktemp("user")
            env = os.environ | {
                "STRIPE_API_BASE": url,
                "DLT_DATA_DIR": str(tmp_path_factory.mktemp("home")),
            }
            if where == "secrets.toml":
                (folder / ".dlt").mkdir()
                (folder / ".dlt" / where).write_text(
                    f'[sources.stripe_feed]\napi_key = "{box.key}"\n', encoding="utf-8"
                )
            else:
                env[where] = box.key
            pipes: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
            }
            started[where] = (
                folder,
                subprocess.Popen(
                    [sys.executable, "-c", SCRIPT], cwd=folder, env=env, text=True, **pipes
                ),
            )
        return {
            where: (box, ended(process), folder) for where, (folder, process) in started.items()
        }


@pytest.mark.parametrize("where", KEYS)
def test_the_shortest_script_loads_the_account(
    scripts: dict[str, tuple[Sandbox, Said, Path]], where: str
) -> None:
    """In an empty directory, with the key wherever dlt's users keep theirs, and without a word."""
    box, said, folder = scripts[where]

    assert said == Said(0, "", "")
    with duckdb.connect(str(folder / "stripe_feed.duckdb"), read_only=True) as base:
        ids = {
            table: {id for (id,) in base.execute(f"select id from stripe.{table}").fetchall()}
            for table in CORE_TABLES
        }
    assert ids == {
        table: set((box.objects if table in CORE else box.children)(table)) for table in CORE_TABLES
    }


# -- a part of it
# -----------------------------------------------------------------------------------------------------------


def test_only_the_resources_that_are_selected_are_loaded(copy: Copy) -> None:
    """The others are not even asked for."""
    copy.run(copy.source().with_resources("customers", "products"))

    copy.check("customers", "products")
    assert {path for path, _ in copy.box.counts} == {"/v1/account", "/v1/customers", "/v1/products"}
    assert tables(copy) == {"customers", "products"}


def test_subscriptions_alone_bring_the_prices_of_their_items(copy: Copy) -> None:
    """Some are in no list: they would be lost if they were selected only later."""
    copy.run(copy.source().with_resources("subscriptions"))

    copy.check("subscriptions")
    assert tables(copy) == {"subscriptions", "subscription_items", "prices", "plans"}

    copy.run(copy.source())
    copy.check()


@pytest.mark.parametrize("active", [False, True], ids=["without a pipeline", "beside a pipeline"])
def test_a_resource_can_be_looked_at(copy: Copy, active: bool) -> None:
    """Its rows come as Arrow tables; nothing is written, also where the process has a pipeline
    already.
    """
    if active:
        _ = copy.pipeline
    else:  # that of a test before would lend its cursors
        Container()[PipelineContext].deactivate()
    found: list[pa.Table] = list(copy.source().products)
    lines: list[pa.Table] = list(copy.source().invoices)

    assert {id for table in found for id in table["id"].to_pylist()} == set(
        copy.box.objects("products")
    )
    assert sum(table.num_rows for table in lines if "amount_due" in table.column_names) == len(
        copy.box.objects("invoices")
    )
    assert not (copy.folder / copy.database).exists()


def test_a_limit_brings_some_rows_and_the_next_run_the_rest(copy: Copy) -> None:
    """A sample of each resource first; it does not pass for the whole."""
    some = ("products", "prices", "subscriptions")
    copy.run(copy.source().with_resources(*some).add_limit(1))
    sample = {table: copy.one(f"select count(*) from stripe.{table}") for table in some}
    copy.run(copy.source().with_resources(*some))

    assert min(sample.values()) > 0
    copy.check(*some)


def test_a_limit_counts_pages(tmp_path: Path) -> None:
    """Not batches of thousands of rows: a sample of a large account is quick, and the next run
    brings the rest.
    """
    box = Sandbox(seed=3, customers=250, oddities=False)
    with copy_of(box, tmp_path, hold=True) as copy:
        for least, by_rows in (1, False), (101, True):
            copy.run(
                copy.source().with_resources("customers").add_limit(least, count_rows=by_rows),
                refresh="drop_sources",
            )
            assert least <= copy.one("select count(*) from stripe.customers") < least + 100
        copy.run(copy.source().with_resources("customers"))
        copy.check("customers")


HINTS: list[tuple[dict[str, Any], str]] = [
    (
        {"table_name": "people"},
        "customers: its name is fixed, since others refer to it. Use another dataset_name, or a view.",
    ),
    *(
        (
            {name: value},
            f"customers: {name} cannot be set, since rows are merged by id and version. Leave it out.",
        )
        for name, value in (
            ("write_disposition", "append"),
            ("write_disposition", {"disposition": "merge", "strategy": "upsert"}),
            ("primary_key", "email"),
            ("merge_key", "email"),
            ("incremental", dlt.sources.incremental("created")),
        )
    ),
]


def test_what_would_double_or_lose_rows_is_refused_at_once(copy: Copy) -> None:
    """As a hint of a resource, and for a whole run; before anything is read or written."""
    for hints, sentence in HINTS:
        with pytest.raises(UsageError) as refused:
            copy.source().customers.apply_hints(**hints)
        assert str(refused.value) == sentence
    for hints, _ in HINTS[:2]:
        with pytest.raises(PipelineStepFailed, match=r"UsageError'>\ncustomers: "):
            copy.run(copy.source(), **hints)

    assert copy.box.counts.total() == 0
    assert tables(copy) == set()


def test_a_resource_keeps_its_name(copy: Copy) -> None:
    """Its state and its tables go by it."""
    with pytest.raises(UsageError, match=r"^customers: its name is fixed"):
        copy.source().customers.with_name("people")


def test_what_changes_nothing_is_taken(copy: Copy) -> None:
    """`parallelize` too: all is read side by side anyway."""
    source = copy.source().with_resources(*SOME).parallelize()
    source.customers.apply_hints(
        primary_key="id",
        write_disposition="merge",
        columns={"email": {"name": "email", "description": "Mine."}},
    )
    source.max_table_nesting = 2
    copy.run(source, write_disposition="merge")

    copy.check(*SOME)


@pytest.mark.parametrize("keeps", [False, True])
def test_no_rows_stay_in_dlt_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeps: bool
) -> None:
    """Which is the user's alone; unless the settings say otherwise."""
    if keeps:
        monkeypatch.setenv("LOAD__DELETE_COMPLETED_JOBS", "false")
    with copy_of(account(), tmp_path, hold=True) as copy:
        pipeline = dlt.pipeline(
            f"private_{keeps}",
            destination=dlt.destinations.duckdb(str(tmp_path / "x.duckdb")),
            pipelines_dir=str(tmp_path),
        )
        pipeline.run(copy.source().with_resources("customers"))

    assert stat.S_IMODE(Path(pipeline.working_dir).stat().st_mode) == 0o700
    assert any(Path(pipeline.working_dir).rglob("customers*.parquet")) is keeps


@pytest.mark.parametrize(
    ("yields", "loads"), [(2, 1), *((yields, 2) for yields in (1, 2, 3, 4, 6))]
)
def test_a_generator_that_is_stopped_after_any_yield_loses_nothing(
    copy: Copy, monkeypatch: pytest.MonkeyPatch, yields: int, loads: int
) -> None:
    """In the first load and in a later one: parents, children and what is embedded in these all
    come in the end.
    """
    some = ("prices", "subscriptions")
    copy.box.faults.short = 0.9
    monkeypatch.setattr(reader, "MAX_TABLE_ROWS", 2)
    for _ in range(loads):
        copy.run(copy.source().with_resources(*some).add_limit(yields))
        copy.run(copy.source().with_resources(*some))

        copy.check(*some)
        grow(copy.box)


def test_a_backfill_that_is_stopped_and_started_again_loses_nothing(copy: Copy) -> None:
    """A fixed range has no state; what the first attempt brought is told from what it did not."""
    backfill = {"start_date": copy.box.account.start, "end_date": copy.box.now}
    copy.run(copy.source(**backfill).with_resources("subscriptions", "invoices").add_limit(1))
    copy.run(copy.source(**backfill).with_resources("subscriptions", "invoices"))

    copy.check("subscriptions", "invoices")


def tables(copy: Copy) -> set[str]:
    """Stripe's tables that exist."""
    found = copy.select(
        "select table_name from information_schema.tables where table_schema = 'stripe'"
    )
    return {name for (name,) in found if not name.startswith("_dlt")}


# -- dlt's settings
# ---------------------------------------------------------------------------------------------------------


def test_a_refresh_reads_everything_again(copy: Copy) -> None:
    """Tables and cursors are dropped first: rows that vanished at Stripe are gone as well."""
    copy.run(copy.source().with_resources(*SOME))
    copy.box.delete("customers", next(iter(copy.box.objects("customers"))))
    copy.run(copy.source().with_resources(*SOME), refresh="drop_sources")

    copy.check(*SOME)


def test_a_source_runs_again_with_dlt_s_own_settings(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts anew each time. Users of Arrow sources switch dlt's own load id on for all of them.
    Where columns are frozen, they are declared, so that nothing is to be refused; what is new is in
    `extra`.
    """
    monkeypatch.setenv("NORMALIZE__PARQUET_NORMALIZER__ADD_DLT_LOAD_ID", "true")
    source = copy.source().with_resources(*SOME)
    copy.run(source)
    copy.check(*SOME)
    grow(copy.box)
    new = copy.box.create("customers", frobnication={"level": 3})["id"]
    copy.box.create("invoices", lines=[{"unknown_to_all": 1}])
    copy.box.advance(10)
    copy.run(source, schema_contract={"columns": "freeze"})

    copy.check(*SOME)
    assert (
        copy.one(
            f"select extra ->> '$.frobnication.level' from stripe.customers where id = '{new}'"
        )
        == "3"
    )


def test_every_column_is_described_in_the_schema(copy: Copy) -> None:
    """In dlt's schema, in the words of the resource table."""
    copy.run()
    found = copy.pipeline.default_schema.tables

    for table, row in CORE_TABLES.items():
        columns = found[table]["columns"]
        assert [name for name, column in columns.items() if not column.get("description")] == []
        assert {c.name: c.description for c in row.columns}.items() <= {
            n: c["description"] for n, c in columns.items()
        }.items()


def test_every_column_is_described_in_the_database(copy: Copy) -> None:
    """By `sync` at once, by a plain run with the next one; a comment of the user's own stays, and
    nothing is done twice.
    """
    comments = (
        "select table_name, column_name, comment from duckdb_columns() where schema_name = 'stripe'"
    )
    copy.run(copy.source().with_resources(*SOME, "changes"))
    assert {comment for _, _, comment in copy.select(comments)} == {None}
    copy.select("comment on column stripe.customers.email is 'Ask first.'")
    copy.box.advance(400)
    copy.run(copy.source().with_resources(*SOME, "changes"))

    tables = copy.pipeline.default_schema.tables
    described = {
        (table, column): comment
        for table, column, comment in copy.select(comments)
        if table in (*CORE_TABLES, "changes")
    }
    assert described.pop(("customers", "email")) == "Ask first."
    assert described == {key: tables[key[0]]["columns"][key[1]]["description"] for key in described}
    assert len(described) > 100 and any("'" in str(comment) for comment in described.values())
    for column in CORE_TABLES["invoices"].columns:
        assert described["invoices", column.name] == column.description

    copy.database = "fresh.duckdb"
    copy.sync(resources=SOME)
    fresh = copy.select(f"{comments} and comment is null")
    assert [table for table, _, _ in fresh if table in (*CORE_TABLES, "changes")] == []
    copy.check(*SOME)


def test_a_dataset_with_a_space_in_its_name(copy: Copy) -> None:
    """dlt makes a name for the database of it; the conditions of the merges use that one."""
    destination = dlt.destinations.duckdb(str(copy.folder / "other.duckdb"))
    pipeline = dlt.pipeline(
        "spaces",
        destination=destination,
        dataset_name="Stripe Data",
        pipelines_dir=str(copy.folder),
    )
    with held_open(copy.folder / "other.duckdb"):
        for _ in range(2):
            pipeline.run(copy.source().with_resources(*SOME))
            assert_true(pipeline, copy.box, SOME)
            grow(copy.box)


# -- one source, again and again
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 1])
def test_no_thread_is_left_after_a_run(copy: Copy, limit: int | None) -> None:
    """Neither after a whole run nor after one that was stopped."""
    copy.run(copy.source().with_resources(*SOME).add_limit(limit))
    left = [thread for thread in threading.enumerate() if thread.name.startswith("stripe-feed")]
    for thread in left:
        thread.join(10)

    assert [thread.name for thread in left if thread.is_alive()] == []


def test_nothing_happens_before_a_source_runs(copy: Copy) -> None:
    """No key is needed to make one, and no request is sent."""
    source = stripe_source(api_base=copy.url, **FAST)

    assert list(source.selected_resources) == [*CORE, "changes"]
    assert list(source.resources) == [*RESOURCES, "changes"]
    assert copy.box.counts.total() == 0


@pytest.mark.parametrize("given", [None, "sub/ours.duckdb"])
def test_a_pipeline_that_began_in_another_folder_is_refused_there(
    copy: Copy, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    """dlt would take the first folder's file; the error names both. A file in a folder below is
    where it should be.
    """

    def pipeline() -> Any:
        where: Any = dlt.destinations.duckdb(given) if given else "duckdb"
        return dlt.pipeline(
            "ours", destination=where, dataset_name="stripe", pipelines_dir=str(copy.folder / "dlt")
        )

    here, there = copy.folder / "here", copy.folder / "there"
    for folder in (here, there):
        (folder / "sub").mkdir(parents=True)
    monkeypatch.chdir(here)
    pipeline().run(copy.source().with_resources("customers"))
    open_feed(pipeline()).close()

    monkeypatch.chdir(there)
    name = given or "ours.duckdb"
    words = f"A pipeline named ours was created in another folder, so its file is {here / name}, not {there / name}. Give this one"
    with pytest.raises(SetupError, match=re.escape(words)):
        open_feed(pipeline())
    with pytest.raises(PipelineStepFailed, match=re.escape(words)):
        pipeline().run(copy.source().with_resources("customers"))
    assert [path.name for path in there.rglob("*")] == ["sub"]


def test_a_pipeline_that_goes_to_another_database_is_refused(copy: Copy) -> None:
    """The cursors that dlt keeps for it would pass over what is in the first one only."""

    def run(file: str, name: str = "ours") -> None:
        where = dlt.destinations.duckdb(str(copy.folder / file))
        pipeline = dlt.pipeline(
            name, destination=where, dataset_name="stripe", pipelines_dir=str(copy.folder / "dlt")
        )
        pipeline.run(copy.source().with_resources("customers"))

    run("a.duckdb")
    run("b.duckdb", "theirs")
    words = f"The pipeline ours went to {copy.folder / 'a.duckdb'}, dataset stripe before, and goes to {copy.folder / 'b.duckdb'}, dataset stripe now."
    with pytest.raises(PipelineStepFailed, match=re.escape(words)):
        run("b.duckdb")
    run("a.duckdb")


def test_where_nothing_was_loaded_the_feed_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It names the file that it looked for: the folder may be the wrong one."""
    monkeypatch.chdir(tmp_path)
    pipeline = dlt.pipeline(
        "none", destination="duckdb", dataset_name="stripe", pipelines_dir=str(tmp_path / "dlt")
    )
    open_feed(pipeline).close()
    assert (
        f"File {tmp_path / 'none.duckdb'} does not exist yet: the feed is empty until the first load."
        in caplog.text
    )
