"""What stands in the way of a first load is found before anything is read or written, and named
with the way out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dlt
import psycopg2
import pytest

from stripe_feed import sync_run as syncing
from stripe_feed.destination.pipeline import dlt_settings, open_pipeline
from stripe_feed.destination.preflight import require_no_dependent_views, require_usable_dataset
from stripe_feed.errors import SetupError
from stripe_feed.sandbox import Sandbox
from stripe_feed.sync_run import dry_run
from tests.commands import Shell
from tests.copies import FAST, Copy, copy_of
from tests.postgres import postgres_server

THEIRS = """
create schema stripe;
create table stripe.customers (id text primary key, account_id text, email text);
create table stripe.subscription_items (id text primary key);
create table stripe.mine (id text);
insert into stripe.customers values ('cus_theirs', 'acct_theirs', 'theirs@example.com')
"""


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    with copy_of(Sandbox(seed=4, customers=3, oddities=False), tmp_path) as found:
        yield found


def by_sync(copy: Copy) -> None:
    copy.sync()


def by_full_refresh(copy: Copy) -> None:
    copy.sync(full_refresh=True)


def by_dry_run(copy: Copy) -> None:
    dry_run(
        api_key=copy.box.key, api_base=copy.url, database=str(copy.folder / copy.database), **FAST
    )


def by_own_pipeline(copy: Copy) -> None:
    copy.run()


@pytest.mark.parametrize("load", [by_sync, by_full_refresh, by_dry_run, by_own_pipeline])
def test_another_tools_tables_stay_as_they_are(copy: Copy, load: Callable[[Copy], None]) -> None:
    """Those that have our names; they are told before a list is asked for."""
    copy.select(THEIRS)
    with pytest.raises(
        Exception,
        match=r"in the way: stripe.customers, stripe.subscription_items. .* another --dataset",
    ):
        load(copy)
    assert copy.box.counts.keys() <= {("/v1/account", 200)}
    assert copy.select("from stripe.customers") == [
        ("cus_theirs", "acct_theirs", "theirs@example.com")
    ]
    assert copy.select(
        "select count(*) from duckdb_tables() where table_name not like '\\_dlt%' escape '\\'"
    ) == [(3,)]
    assert not copy.pipeline.has_pending_data


def test_the_doctor_says_so_too(copy: Copy) -> None:
    copy.select(THEIRS)
    said = Shell(copy.box, copy.url, copy.folder).run(
        "doctor", "--database", copy.folder / copy.database
    )
    assert said.code == 3
    assert (
        "Another tool's tables are in the way: stripe.customers, stripe.subscription_items"
        in said.out
    )


def test_a_dataset_of_the_copy_is_not_in_the_way(copy: Copy) -> None:
    """With its state, and where that is lost."""
    copy.sync(resources=["customers"])
    require_usable_dataset(copy.pipeline, {})
    copy.select("drop table stripe._dlt_pipeline_state")
    require_usable_dataset(copy.pipeline, {})


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as url, closing(psycopg2.connect(url)) as base:
        base.autocommit = True
        for statement in (
            "create role loader login password 'x'",
            "create database rights",
            "create database views",
        ):
            base.cursor().execute(statement)
        yield url.rpartition("/")[0]


def at(url: str, folder: Path) -> Any:
    return dlt.pipeline(
        "at",
        destination=dlt.destinations.postgres(url),
        dataset_name="stripe",
        pipelines_dir=str(folder),
    )


HIDDEN = r"Row-level security can hide rows of stripe.customers from this user, .* bypass it"
HIDING = (
    (
        "create table stripe.customers (account_id text, _dlt_load_id text); "
        "alter table stripe.customers enable row level security",
        HIDDEN,
    ),
    ("create policy own on stripe.customers using (account_id = current_user)", HIDDEN),
    (
        "create policy seen on stripe.customers for select using (true); "
        "create policy added on stripe.customers for insert with check (true)",
        HIDDEN,  # from a deletion
    ),
    ("create policy whole on stripe.customers to loader using (true)", ""),
    ("create policy but on stripe.customers as restrictive using (account_id <> '')", HIDDEN),
    ("alter role loader bypassrls", ""),
)


def test_a_right_that_is_missing_is_named(server: str, tmp_path: Path) -> None:
    """One after the other is granted, until a load could begin."""
    loader = f"{server}/rights".replace("postgres:x@", "loader:x@")
    steps = [
        ("select 1", r"may not create the schema stripe\. .* both of stripe and stripe_staging"),
        (
            "create schema stripe",
            "may not create tables in the schema stripe. Grant it create and usage",
        ),
        (
            "grant create, usage on schema stripe to loader",
            "may not create the schema stripe_staging",
        ),
        (
            "create schema stripe_staging authorization loader; alter role loader set default_transaction_read_only = on",
            "is read-only",
        ),
    ]
    with dlt_settings(), closing(psycopg2.connect(f"{server}/rights")) as base:
        base.autocommit = True
        for statement, words in steps:
            base.cursor().execute(statement)
            with pytest.raises(SetupError, match=words):
                require_usable_dataset(at(loader, tmp_path), {})
        base.cursor().execute("alter role loader reset all")
        require_usable_dataset(at(loader, tmp_path), {})
        for statement, words in HIDING:
            base.cursor().execute(statement)
            if words:
                with pytest.raises(SetupError, match=words):
                    require_usable_dataset(at(loader, tmp_path), {"account": "acct_1"})
            else:
                require_usable_dataset(at(loader, tmp_path), {"account": "acct_1"})


def test_views_on_tables_that_are_to_be_dropped_are_named(server: str, tmp_path: Path) -> None:
    with dlt_settings(), closing(psycopg2.connect(f"{server}/views")) as base:
        base.autocommit = True
        base.cursor().execute(
            "create schema stripe; create table stripe.customers (id text); create table stripe.mine (id text)"
        )
        base.cursor().execute("create view own as select * from stripe.mine")
        pipeline = at(f"{server}/views", tmp_path)
        require_no_dependent_views(pipeline)
        base.cursor().execute(
            "create view mail as select * from stripe.customers; create materialized view b as select * from mail"
        )
        with pytest.raises(SetupError, match=r"views depend on them: public.mail\. Drop the views"):
            require_no_dependent_views(pipeline)


def test_a_full_refresh_looks_for_views_before_it_drops(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy.sync(resources=["customers"])

    def in_the_way(pipeline: Any) -> None:
        raise SetupError("in the way")

    monkeypatch.setattr(syncing, "require_no_dependent_views", in_the_way)
    with pytest.raises(SetupError, match="in the way"):
        copy.sync(full_refresh=True)
    copy.check("customers")


def test_nothing_of_it_is_asked_of_a_copy_that_is_there(tmp_path: Path) -> None:
    """An idle run stays as cheap as it is."""
    require_usable_dataset(
        open_pipeline(str(tmp_path / "none.duckdb"), state_dir=str(tmp_path)), {"account": "acct_1"}
    )
    assert not (tmp_path / "none.duckdb").exists()
