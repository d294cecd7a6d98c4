"""Many connected accounts under faults, kills and revoked accounts: each account's tables equal its truth."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stripe_feed.destination.pipeline import dlt_settings, open_pipeline
from stripe_feed.sandbox import Sandbox
from tests.commands import Said, Shell, shell_of
from tests.core import CORE
from tests.truth import assert_true

PACE = ("--max-rps", 2000, "--endpoint-rps", 2000)


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


def assert_copies(shell: Shell, children: Sequence[Sandbox], tables: Sequence[str]) -> None:
    for child in children:
        with dlt_settings():
            pipeline = open_pipeline(account=child.account_id, state_dir="state")
            assert_true(pipeline, child, tables=tables)


@pytest.mark.parametrize(
    ("accounts", "kills", "tables"),
    [
        pytest.param(3, 1, ("customers",), id="3", marks=pytest.mark.broad),
        pytest.param(20, 5, tuple(CORE), id="20", marks=pytest.mark.broad),
        pytest.param(200, 12, tuple(CORE), id="200", marks=pytest.mark.long),
    ],
)
def test_each_account_equals_its_truth(
    shell: Shell, accounts: int, kills: int, tables: tuple[str, ...]
) -> None:
    """A tenth has revoked the access, some while they are still in the list: each is named once."""
    rng, box = random.Random(accounts), shell.box
    children = [box.connect(customers=rng.randint(1, 6), seed=n) for n in range(accounts)]
    gone = [box.connect(customers=1, seed=10_000 + n) for n in range(max(1, accounts // 10))]
    arguments = ("--resources", ",".join(tables), "--state-dir", "state")
    set_faults(children, 0.02)
    for n in range(kills):
        kill_a_round(shell, rng.uniform(3, 8 + accounts / 4), *arguments)
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
    assert_copies(shell, children, tables)
