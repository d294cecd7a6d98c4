"""One dataset holds one account in one mode: another key is refused before anything is written,
whoever remembers the owner.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stripe_feed.errors import WrongAccount
from stripe_feed.sandbox import Sandbox
from tests.copies import Copy, copy_of

OTHERS: dict[str, dict[str, Any]] = {
    "another account": {"seed": 9},
    "the other mode": {"seed": 8, "livemode": True},
}
SOME = ("customers", "invoices")
SMALL: dict[str, Any] = {"customers": 3, "invoices": 2, "subscriptions": 2, "oddities": False}
WITHOUT = {
    "all remembered": (),
    "no local state": ("folder",),
    "no state in the destination": ("folder", "table"),
    "state only here": ("table",),
}


def by_sync(copy: Copy, **options: Any) -> None:
    copy.sync(resources=SOME, **options)


def by_a_full_refresh(copy: Copy, **options: Any) -> None:
    copy.sync(full_refresh=True, **options)


def by_a_plain_run(copy: Copy, **options: Any) -> None:
    copy.run(copy.source(**options).with_resources(*SOME))


def by_a_plain_refresh(copy: Copy, **options: Any) -> None:
    copy.run(copy.source(**options).with_resources(*SOME), refresh="drop_sources")


LOADS = (by_sync, by_a_full_refresh, by_a_plain_run, by_a_plain_refresh)

CASES = [
    *(
        ("another account", load, without)
        for load in LOADS
        for without in ("all remembered", "no state in the destination")
    ),
    *(("another account", load, "state only here") for load in (by_sync, by_a_plain_run)),
    *(
        ("the other mode", load, without)
        for load in (by_sync, by_a_plain_run)
        for without in ("no local state", "no state in the destination")
    ),
]


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """A copy that was loaded, to be copied."""
    with copy_of(Sandbox(seed=8, **SMALL), tmp_path_factory.mktemp("owner")) as copy:
        copy.sync(resources=SOME)
        yield copy


@pytest.fixture(scope="module")
def others() -> Iterator[dict[str, tuple[Sandbox, str]]]:
    """The accounts whose keys are tried, each served."""
    with ExitStack() as stack:
        boxes = {name: Sandbox(**SMALL | options) for name, options in OTHERS.items()}
        yield {name: (box, stack.enter_context(box.serve())) for name, box in boxes.items()}


@pytest.fixture
def mine(owners: Copy, tmp_path: Path) -> Copy:
    shutil.copytree(owners.folder, tmp_path / "mine")
    return replace(owners, folder=tmp_path / "mine")


def forget(copy: Copy, *what: str) -> None:
    if "table" in what:
        with copy.pipeline.sql_client() as client:
            client.execute_sql("delete from stripe._dlt_pipeline_state")
    if "folder" in what:
        shutil.rmtree(copy.folder / copy.state, ignore_errors=True)


def content(copy: Copy) -> dict[str, tuple[Any, ...]]:
    """Every table of the database with its number of rows and a checksum of them."""
    names = copy.select(
        "select database_name, schema_name, table_name from duckdb_tables() where not internal"
    )
    found = {}
    for names_of in sorted(names):
        table = ".".join(f'"{name}"' for name in names_of)
        (found[table],) = copy.select(f"select count(*), bit_xor(hash(t::text)) from {table} t")
    return found


def reason(fault: BaseException) -> WrongAccount:
    """What dlt has wrapped."""
    inner: BaseException | None = fault
    while inner is not None and not isinstance(inner, WrongAccount):
        inner = inner.__cause__ or inner.__context__
    assert inner is not None, fault
    return inner


@pytest.mark.parametrize(("whose", "load", "without"), CASES)
def test_another_key_is_refused_before_anything_is_written(
    mine: Copy,
    others: dict[str, tuple[Sandbox, str]],
    whose: str,
    load: Callable[..., None],
    without: str,
) -> None:
    """The state names the owner, in the destination or locally; where both are lost, the rows do.
    No list is asked for.
    """
    box, url = others[whose]
    forget(mine, *WITHOUT[without])
    before = content(mine)
    box.reset_counts()
    with pytest.raises(Exception, match="The dataset holds account") as raised:
        load(mine, api_key=box.key, api_base=url, allow_api_base=True)

    key_is_for = f"the key is for account {box.account_id} in {box.account.mode} mode"
    assert f"holds account {mine.box.account_id} in test mode, but {key_is_for}" in str(
        reason(raised.value)
    )
    assert content(mine) == before
    assert {path for path, _ in box.counts} <= {"/v1/account"}
    assert not mine.pipeline.has_pending_data


@pytest.mark.parametrize("load", [by_sync, by_a_plain_run])
def test_the_right_key_goes_on_after_a_refusal(
    mine: Copy, others: dict[str, tuple[Sandbox, str]], load: Callable[..., None]
) -> None:
    """Nothing of the refused attempt is in its way, and nothing of it is loaded."""
    box, url = others["another account"]
    with pytest.raises(Exception, match="The dataset holds account"):
        load(mine, api_key=box.key, api_base=url, allow_api_base=True)
    mine.box.advance(10)
    load(mine)

    mine.check(*SOME)


def test_rows_of_any_table_name_the_owner(
    mine: Copy, others: dict[str, tuple[Sandbox, str]]
) -> None:
    """Also where they are of a resource that is not asked for."""
    box, url = others["another account"]
    with mine.pipeline.sql_client() as client:
        client.execute_sql("drop table stripe.customers")
    forget(mine, "folder", "table")
    with pytest.raises(WrongAccount):
        mine.sync(api_key=box.key, api_base=url, allow_api_base=True, resources=["customers"])


def test_another_dataset_in_the_same_file_has_an_owner_of_its_own(
    mine: Copy, others: dict[str, tuple[Sandbox, str]]
) -> None:
    """As the refusal proposes."""
    box, url = others["the other mode"]
    mine.sync(
        api_key=box.key,
        api_base=url,
        allow_api_base=True,
        dataset="theirs",
        pipeline_name="theirs",
        resources=["customers"],
    )

    found = {
        id
        for (id,) in mine.select(
            "select distinct account_id || ' ' || livemode from theirs.customers"
        )
    }
    assert found == {f"{box.account_id} {str(box.account.livemode).lower()}"}
    mine.check(*SOME)
