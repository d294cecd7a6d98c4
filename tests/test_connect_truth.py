"""Many connected accounts under faults, kills and revoked accounts, each with a copy of its own or all
in one dataset: the rows of each equal its truth.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stripe_feed import shared_run
from stripe_feed.destination.pipeline import dlt_settings, open_pipeline
from stripe_feed.destination.state import AccountClient
from stripe_feed.resources import CHANGES, TABLES
from stripe_feed.sandbox import Sandbox
from tests.commands import Said, Shell, shell_of
from tests.core import CORE
from tests.truth import assert_true

PACE = ("--max-rps", 2000, "--endpoint-rps", 2000)
SHARED = ("--shared",)
FILE, DATASET = "stripe_feed_accounts.duckdb", "stripe_accounts"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    with shell_of(Sandbox(customers=0, products=0, oddities=False), tmp_path) as opened:
        opened.env["DLT_DATA_DIR"] = str(tmp_path / "dlt")
        yield opened


def kill_a_round(shell: Shell, seconds: float, *arguments: object) -> None:
    """Start a round and kill it after a while, wherever it is, unless it has ended by then."""
    process = shell.spawn("sync", "--all-accounts", *PACE, *arguments)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def whole_round(shell: Shell, *arguments: object) -> Said:
    return shell.run("sync", "--all-accounts", *PACE, *arguments)


def set_faults(children: Sequence[Sandbox], share: float) -> None:
    for child in children:
        for fault in ("error_500", "reset", "truncate", "malformed"):
            assert hasattr(child.faults, fault)
            setattr(child.faults, fault, share)


def copy_of(account: str) -> Any:
    with dlt_settings():
        return open_pipeline(account=account, state_dir="state")


def rows_of(account: str) -> Any:
    """What stands for a pipeline to the comparison: its client sees the rows of one account."""

    @contextmanager
    def sql_client() -> Iterator[Any]:
        with dlt_settings():
            pipeline = open_pipeline(FILE, None, DATASET, "state")
            with pipeline.sql_client() as client:
                yield AccountClient(client, account, (*TABLES, CHANGES))

    return SimpleNamespace(sql_client=sql_client)


@pytest.mark.parametrize(
    ("accounts", "kills", "tables", "shared"),
    [
        pytest.param(3, 1, ("customers",), (), id="3", marks=pytest.mark.broad),
        pytest.param(20, 5, tuple(CORE), (), id="20", marks=pytest.mark.broad),
        pytest.param(200, 12, tuple(CORE), (), id="200", marks=pytest.mark.long),
        pytest.param(20, 5, tuple(CORE), SHARED, id="20-shared", marks=pytest.mark.broad),
        pytest.param(200, 12, tuple(CORE), SHARED, id="200-shared", marks=pytest.mark.long),
    ],
)
def test_each_account_equals_its_truth(
    shell: Shell, accounts: int, kills: int, tables: tuple[str, ...], shared: tuple[str, ...]
) -> None:
    """A tenth has revoked the access, some while they are still in the list: each is named once."""
    rng, box = random.Random(accounts), shell.box
    children = [box.connect(customers=rng.randint(1, 6), seed=n) for n in range(accounts)]
    gone = [box.connect(customers=1, seed=10_000 + n) for n in range(max(1, accounts // 10))]
    arguments = (*shared, "--resources", ",".join(tables), "--state-dir", "state")
    longest = 8 + accounts / (10 if shared else 4)
    set_faults(children, 0.02)
    for n in range(kills):
        kill_a_round(shell, rng.uniform(3, longest), *arguments)
        for child in rng.sample(children, 1 + accounts // 2):
            child.live(600, rng.randint(1, 6))
        box.advance(600)
        if n == 0:
            for account in gone:
                box.revoke(account.account_id)
                box.create("accounts", id=account.account_id)  # the list still has it
    set_faults(children, 0.0)
    box.advance(3600)

    said = whole_round(shell, *arguments)
    assert said.code == 4, said.err
    for account in gone:
        lines = [line for line in said.err.splitlines() if account.account_id in line]
        refused = [line for line in lines if f"no access to the account {account.account_id}" in line]  # fmt: skip
        assert len(refused) == 1
    assert f"{len(gone)} of {accounts + len(gone)} accounts are not loaded, 0 in part" in said.error
    for child in children:
        found = rows_of(child.account_id) if shared else copy_of(child.account_id)
        assert_true(found, child, tables=tables)


@pytest.mark.broad
def test_large_accounts_and_a_gap_of_a_month(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """First loads of several packages each, in which others change; then whole lists are compared."""
    monkeypatch.setattr(shared_run, "ROWS_OF_ACCOUNT", 30)
    children = [shell.box.connect(customers=25, seed=n) for n in range(3)]
    for child in children:
        child.create("products", id="gold", name=child.account_id)
    shell.box.advance(600)
    assert whole_round(shell, *SHARED, "--state-dir", "state", "--checkpoint-rows", 60).code == 0
    for days in (1, 31):
        for child in children:
            child.live(600, 10)
        children[0].update("products", "gold", name=f"Gold {days}")
        shell.box.advance(days * 86_400)
        said = whole_round(shell, *SHARED, "--state-dir", "state")
        assert said.code == 0, said.err
        assert ("the whole lists are compared" in said.err) == (days == 31)
        for child in children:
            assert_true(rows_of(child.account_id), child, found_later=True)
    children[1].delete("products", "gold")
    shell.box.advance(31 * 86_400)
    assert whole_round(shell, *SHARED, "--state-dir", "state").code == 0
    for child in children:
        assert_true(rows_of(child.account_id), child, found_later=True)
