"""Lakes: random histories in Delta and Iceberg, killed at any point; what is refused; what other
programs see.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dlt
import pyarrow as pa
import pytest
from dlt.common.destination.exceptions import DestinationUndefinedEntity

from stripe_feed import open_copy, open_feed, sync
from stripe_feed.destination.lake import client
from stripe_feed.destination.lake.tables import DeltaLakeTable, IcebergLakeTable
from stripe_feed.destination.pipeline import dlt_settings, open_pipeline, resolve_place
from stripe_feed.errors import SetupError
from stripe_feed.sandbox import Sandbox
from tests.copies import FAST, copy_of
from tests.stores import STORES, Store
from tests.test_crash import Runner
from tests.truth import SLOW, assert_true

SOME = ("customers", "prices", "subscriptions", "invoices")
KILLS = (
    "rows were handed to dlt",
    "the package is extracted",
    "in normalize",
    "about to merge in a lake",
    "merged in a lake",
    "the lake's state is noted",
    "all jobs done",
    "the load is noted",
)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with closing(Runner()) as found:
        yield found


def live_through(store: Store, folder: Path, seed: int, runner: Runner) -> None:
    """A random history, with a sync after each part of it, some of them killed first; in the end tables
    equal the account, and the feed tells each change once.
    """
    dice = random.Random(f"lake {seed}")
    box = Sandbox(seed=seed, customers=dice.randint(3, 8), oddities=False)
    box.silent_changes = False
    box.advance(3600)
    pipeline = store.pipeline(folder)
    with box.serve() as url:
        options: dict[str, Any] = {
            "api_key": box.key, "api_base": url, "state_dir": str(folder), "resources": SOME,
        } | store.options() | FAST  # fmt: skip
        for _ in range(dice.randint(2, 3)):
            if dice.random() < 0.6:
                runner.sync(dice.choice(KILLS), dice.randint(1, 4), store.settings, **options)
            sync(**options)
            box.advance(SLOW)
            box.live(dice.choice((60, 5_000, 90_000)), dice.choice((10, 60)))
            box.advance(600)
        sync(**options)
        with dlt_settings():
            assert_true(pipeline, box, SOME, found_later=True)
    with dlt_settings(), open_feed(pipeline, folder / "again.sqlite") as feed:
        told = [one.change_id for one in feed.read()]
    assert len(told) == len(set(told))


@pytest.mark.parametrize("lake", ["delta", "iceberg"])
@pytest.mark.parametrize("seed", range(1, 4), ids="seed{}".format)
def test_a_few_histories_end_equal_to_the_account(
    lake: str, seed: int, runner: Runner, tmp_path: Path
) -> None:
    with STORES[lake][1](tmp_path) as store, store.configured():
        live_through(store, tmp_path, seed, runner)


@pytest.mark.long
@pytest.mark.parametrize("lake", ["delta", "iceberg"])
@pytest.mark.parametrize("seed", range(100, 300), ids="seed{}".format)
def test_two_hundred_histories_end_equal_to_the_account(
    lake: str, seed: int, runner: Runner, tmp_path: Path
) -> None:
    with STORES[lake][1](tmp_path) as store, store.configured():
        live_through(store, tmp_path, seed, runner)


@pytest.mark.parametrize("lake", ["delta", "iceberg"])
def test_updates_and_deletes_by_sql_are_commits(lake: str, tmp_path: Path) -> None:
    """What repairs, hard deletes and `forget` run; a table of the staging dataset is none."""
    rows = pa.table({"id": ["a", "b", "c"], "name": ["x", "y", "z"], "n": [1, 2, 3]})
    merge: Any = {"disposition": "merge", "strategy": "delete-insert"}
    resource = dlt.resource(
        rows, name="things", primary_key="id", write_disposition=merge, file_format="parquet"
    )
    with STORES[lake][1](tmp_path) as store, store.configured(), dlt_settings():
        pipeline = store.pipeline(tmp_path)
        pipeline.run(resource)
        with pipeline.sql_client() as opened:
            name = opened.make_qualified_table_name("things")
            opened.execute_sql(f"update {name} set name = %s where n > %s", "new", 1)
            opened.execute_sql(f"update {name} set name = null, n = n + 10 where id = %s", "a")
            opened.execute_sql(f"delete from {name} where id in (%s, %s)", "b", "none")
            opened.execute_sql(f"delete from {name} where n = 99")
            with opened.with_staging_dataset(), pytest.raises(DestinationUndefinedEntity):
                opened.execute_sql(f"delete from {opened.make_qualified_table_name('things')}")
        with pipeline.sql_client() as opened:
            held = opened.execute_sql(f"select id, name, n from {name} order by id")
        assert held == [("a", None, 11), ("c", "new", 3)]


def test_iceberg_in_a_bucket_without_a_catalog_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason, before anything is asked of Stripe or of the bucket."""
    section = "DESTINATION__FILESYSTEM__"
    monkeypatch.setenv(f"{section}BUCKET_URL", "s3://nowhere/stripe")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"{section}CREDENTIALS__{name}", "x")
    monkeypatch.setenv(f"{section}CREDENTIALS__ENDPOINT_URL", "http://127.0.0.1:9")
    box = Sandbox(seed=1, customers=2, oddities=False)
    with (
        copy_of(box, tmp_path) as copy,
        pytest.raises(SetupError, match="in a bucket need a catalog"),
    ):
        copy.sync(destination="iceberg", database=None)
    assert box.counts.total() == 0


def test_tables_of_the_other_format_are_left_alone(tmp_path: Path) -> None:
    box = Sandbox(seed=1, customers=2, oddities=False)
    with (
        copy_of(box, tmp_path) as copy,
        STORES["delta"][1](tmp_path) as store,
        store.configured(),
    ):
        copy.sync(**store.options(), resources=["products"])
        with pytest.raises(SetupError, match="holds delta tables"):
            copy.sync(**store.options() | {"destination": "iceberg"}, resources=["products"])


def test_files_that_do_not_tell_all_rows_are_not_read() -> None:
    """Deletion vectors and delete files say which rows of a file are gone."""
    features = SimpleNamespace(reader_features=["deletionVectors"])
    delta: Any = SimpleNamespace(protocol=lambda: features, table_uri="file:///lake/customers")
    with pytest.raises(SetupError, match="customers has deletionVectors"):
        DeltaLakeTable(delta).contents()
    task = SimpleNamespace(delete_files=["x"], file=SimpleNamespace(file_path="y"))
    scan = SimpleNamespace(plan_files=lambda: [task])
    iceberg: Any = SimpleNamespace(scan=lambda: scan, location=lambda: "s3://lake/customers")
    with pytest.raises(SetupError, match="customers has delete files"):
        IcebergLakeTable(iceberg).contents()


def test_a_lake_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "find_spec", lambda name: None)
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", "lake")
    with pytest.raises(SetupError, match=r"pip install 'stripe-feed\[delta\]'"):
        open_pipeline(destination="delta")


def test_a_lake_without_a_folder_says_which_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DESTINATION__FILESYSTEM__BUCKET_URL", raising=False)
    with pytest.raises(SetupError, match="DESTINATION__FILESYSTEM__BUCKET_URL"):
        open_pipeline(destination="delta")


def test_one_folder_is_one_place_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = set()
    for url in (tmp_path / "lake").as_uri(), str(tmp_path / "lake"), "lake", "other":
        monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", url)
        keys.add(resolve_place(None, "delta").key)
    assert len(keys) == 2


@pytest.mark.parametrize("lake", ["delta", "iceberg"])
def test_a_full_refresh_loads_everything_again(lake: str, tmp_path: Path) -> None:
    """Into new tables, and what has no row at Stripe any more is gone."""
    box = Sandbox(seed=1, customers=2, oddities=False)
    with copy_of(box, tmp_path) as copy, STORES[lake][1](tmp_path) as store, store.configured():
        copy.sync(**store.options())
        pipeline = store.pipeline(tmp_path / copy.state)
        with pipeline.sql_client() as opened:
            name = opened.make_qualified_table_name("customers")
            opened.execute_sql(f"update {name} set id = 'cus_of_nobody', _version = 0")
        assert copy.sync(**store.options(), full_refresh=True).rows["customers"] == 2
        assert {"customers", "changes"} <= {*open_copy(**store.options()).tables()}
        with dlt_settings():
            assert_true(store.pipeline(tmp_path / copy.state), box)
