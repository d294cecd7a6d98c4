"""Copies of connected accounts: every request names the account, and each has a place of its own."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dlt
import duckdb
import pytest
from dlt.common import validation
from dlt.common.configuration import resolve
from dlt.extract import extract
from dlt.pipeline.exceptions import PipelineStepFailed

from stripe_feed import connected_accounts, open_actions, stripe_source, sync, sync_accounts
from stripe_feed.api.client import Api
from stripe_feed.api.rate_limits import SAFETY, RateLimiter, SharedBudget
from stripe_feed.destination.pipeline import copy_names, dlt_settings, settings_for_many
from stripe_feed.errors import SetupError, UsageError
from stripe_feed.sandbox import Sandbox
from stripe_feed.sync_run import Synced
from tests.commands import Said, Shell, shell_of
from tests.copies import FAST, held_open

ONLY = ("--resources", "customers")


@pytest.fixture
def platform() -> Sandbox:
    return Sandbox(customers=2, products=1, oddities=False)


@pytest.fixture
def shell(platform: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    with shell_of(platform, tmp_path) as opened:
        yield opened


def names_of(account: str) -> tuple[str, str]:
    return f"stripe_feed_{account.lower()}.duckdb", f"stripe_{account.lower()}"


def customers_in(account: str) -> set[str]:
    file, dataset = names_of(account)
    with duckdb.connect(file, read_only=True) as opened:
        found = opened.execute(f"select id, account_id from {dataset}.customers").fetchall()
    assert {owner for _, owner in found} <= {account}
    return {id for id, _ in found}


def test_the_names_of_a_copy_hold_the_account() -> None:
    assert copy_names(None, None, None, None) == (None, "stripe")
    assert copy_names("acct_1aB", None, None, None) == ("stripe_feed_acct_1ab.duckdb", "stripe_acct_1ab")  # fmt: skip
    assert copy_names("acct_1aB", None, "postgres", None) == (None, "stripe_acct_1ab")
    assert copy_names("acct_1aB", "x.duckdb", None, "stripe") == ("x.duckdb", "stripe")
    for wrong in ("", "cus_1", "acct_", "acct_1/../x", "acct_1\r\nX: y"):
        with pytest.raises(UsageError, match="not the id of an account"):
            copy_names(wrong, None, None, None)
        with pytest.raises(UsageError, match="not the id of an account"):
            Api("rk_test_x", account=wrong)


def test_each_account_has_a_copy_of_its_own(platform: Sandbox, shell: Shell) -> None:
    one, other = platform.connect(customers=3), platform.connect(customers=2)

    assert shell.sync(*ONLY).code == 0
    assert shell.sync(*ONLY, "--account", one.account_id).code == 0
    assert shell.sync(*ONLY, STRIPE_ACCOUNT=other.account_id).code == 0

    for child in (one, other):
        assert customers_in(child.account_id) == set(child.objects("customers"))
        assert {request.status for request in child.log} == {200}
    assert shell.rows()["customers"] == len(platform.objects("customers"))

    made = one.create("customers", name="New")
    platform.advance(600)
    at = ("--account", one.account_id)
    assert shell.sync(*ONLY, *at).code == 0
    changes = shell.run("feed", "tail", "--json", *at).out
    assert made["id"] in changes
    status = json.loads(shell.run("status", "--json", *at).out)
    assert status["account_id"] == one.account_id
    assert "stripe_feed_acct" in status["feed_store"]
    counted = shell.run("query", "select count(*) as n from customers", "--json", *at)
    assert json.loads(counted.out) == {"n": 4}
    for verb in ("verify", "reconcile"):
        with held_open(shell.folder / names_of(one.account_id)[0]):
            said = shell.run(verb, *ONLY, "--max-rps", 2000, "--endpoint-rps", 2000, *at)
        assert said.code == 0, said.err
    assert one.account_id in shell.run("doctor", *ONLY, *at).out
    assert {request.status for request in other.log} == {200}


def test_an_account_that_cannot_be_read_is_one_line(platform: Sandbox, shell: Shell) -> None:
    gone, stays = platform.connect(), platform.connect()
    platform.revoke(gone.account_id)

    for account in (gone.account_id, "acct_unknown"):
        said = shell.sync("--account", account)
        assert said.code == 3
        assert f"no access to the account {account}" in said.error and "Check the id" in said.error
        assert not list(shell.folder.glob(f"*{account}*"))  # nor a lock
    assert shell.run("doctor", "--account", gone.account_id).code == 3
    shell.key = platform.restrict(permissions={"rak_customer_read"})
    said = shell.sync("--account", stays.account_id)
    assert (said.code, "rak_connected_account_read" in said.error) == (3, True)
    said = shell.sync("--account", "cus_1")
    assert (said.code, "not the id of an account" in said.error) == (2, True)


def test_another_account_is_refused(platform: Sandbox, shell: Shell) -> None:
    """As is the platform for the copy of an account, in the place of either."""
    one, other = platform.connect(), platform.connect()
    place = ("--database", "x.duckdb", "--dataset", "shared", *ONLY)

    assert shell.sync(*place, "--account", one.account_id).code == 0
    for refused in (("--account", other.account_id), ()):
        said = shell.sync(*place, *refused)
        assert (said.code, f"holds account {one.account_id}" in said.error) == (3, True)


def test_python_reads_an_account(platform: Sandbox, shell: Shell) -> None:
    child = platform.connect()
    at = {"api_key": platform.key, "api_base": shell.url, **FAST}
    pipeline = dlt.pipeline("of_child", destination="duckdb", dataset_name="child")
    pipeline.run(stripe_source(account=child.account_id, resources="customers", **at))

    with pipeline.sql_client() as client:
        found = client.execute_sql("select id from customers")
    assert {id for (id,) in found or ()} == set(child.objects("customers"))
    with pytest.raises(PipelineStepFailed, match="holds account"):
        pipeline.run(stripe_source(resources="customers", **at))

    done = sync(account=child.account_id, resources=["customers"], **at)
    assert done.account_id == child.account_id
    assert customers_in(child.account_id) == set(child.objects("customers"))


def test_an_action_writes_to_the_account(platform: Sandbox, shell: Shell) -> None:
    child = platform.connect(customers=1)
    with open_actions(platform.key, base=shell.url, account=child.account_id) as actions:
        made = actions.run("customers", "create", set={"name": "Theirs"})
    assert made.ok and made.id in child.objects("customers")
    said = shell.run("action", "customers", "create", "--set", "name=Also", "--account", child.account_id)  # fmt: skip
    assert said.code == 0, said.err
    assert len(child.objects("customers")) == 3 and len(platform.objects("customers")) == 2


def test_a_client_of_an_account_says_whose(platform: Sandbox, shell: Shell) -> None:
    child = platform.connect()
    with closing(Api(platform.key, base=shell.url, account=child.account_id)) as api:
        assert api.account().id == child.account_id
    with (
        closing(Api(platform.key, base=shell.url, account="acct_unknown")) as api,
        pytest.raises(SetupError, match="acct_unknown"),
    ):
        api.account()


def sync_all(shell: Shell, *arguments: object) -> tuple[Said, dict[str, dict[str, Any]]]:
    """`sync --all-accounts` and its answer by account; in the order in which they were synced."""
    paces = ("--max-rps", 2000, "--endpoint-rps", 2000)
    with ExitStack() as held:
        for account in shell.box.objects("accounts"):
            held.enter_context(held_open(shell.folder / names_of(account)[0]))
        said = shell.run("sync", "--all-accounts", "--json", *paces, *ONLY, *arguments)
    lines = [json.loads(line) for line in said.out.splitlines()]
    return said, {line["account_id"]: line for line in lines if "account_id" in line}


def test_all_accounts_and_one_that_fails(platform: Sandbox, shell: Shell) -> None:
    """It stops no other; the next round begins with what is missing, then with the oldest copy."""
    children = [platform.connect(customers=n) for n in (1, 2)]
    broken = platform.connect(customers=3)
    broken.faults.always = {"/v1/customers": 400}
    platform.create("accounts", id="acct_0revoked")  # between the list and its turn

    said, answers = sync_all(shell)
    assert said.code == 4
    assert "2 of 4 accounts are not loaded" in said.error
    assert all(id in said.error for id in (broken.account_id, "acct_0revoked"))
    for child in children:
        assert customers_in(child.account_id) == set(child.objects("customers"))
        assert answers[child.account_id]["synced"]["account_id"] == child.account_id
    assert (answers["acct_0revoked"]["exit_code"], answers["acct_0revoked"]["synced"]) == (3, None)
    assert "no access to the account acct_0revoked" in answers["acct_0revoked"]["error"]
    assert "stripe_feed.duckdb" not in {path.name for path in shell.folder.iterdir()}

    broken.faults.always = {}
    platform.delete("accounts", "acct_0revoked")
    platform.advance(7200)
    assert shell.sync(*ONLY, "--account", children[0].account_id).code == 0
    said, answers = sync_all(shell, "--at-once", 1)
    assert said.code == 0, said.err
    assert list(answers) == [broken.account_id, children[1].account_id, children[0].account_id]
    assert customers_in(broken.account_id) == set(broken.objects("customers"))


def test_all_accounts_in_one_file(platform: Sandbox, shell: Shell) -> None:
    children = [platform.connect(customers=n) for n in (1, 2)]

    said, _ = sync_all(shell, "--database", "all.duckdb")
    assert said.code == 0, said.err
    with duckdb.connect("all.duckdb", read_only=True) as opened:
        for child in children:
            found = opened.execute(f"select id from {names_of(child.account_id)[1]}.customers")
            assert {id for (id,) in found.fetchall()} == set(child.objects("customers"))


def test_a_round_ends_where_the_platform_fails(platform: Sandbox, shell: Shell) -> None:
    """A key that is revoked meanwhile fails for every account: it is said once."""
    for _ in range(3):
        child = platform.connect()
        child.faults.always = {"/v1/account": 400}
    # the account's, then the platform's own, which the next account's may overtake
    platform.faults.once = {"/v1/account": [None, 401, 401, 401]}

    said, answers = sync_all(shell, "--at-once", 1)
    assert said.code == 3
    assert answers == {} and said.err.count("not loaded") == 1
    shell.key = platform.restrict(permissions={"rak_customer_read"})
    said, _ = sync_all(shell)
    assert (said.code, "rak_connected_account_read" in said.error) == (3, True)


@pytest.mark.parametrize(
    "option",
    [["--account", "acct_1"], ["--dataset", "x"], ["--dry-run"], ["--models"]],
    ids=lambda option: option[0],
)
def test_all_accounts_go_with_no_option_of_one(shell: Shell, option: list[str]) -> None:
    said = shell.run("sync", "--all-accounts", *option)
    assert (said.code, said.error.startswith("--all-accounts goes with neither")) == (2, True)


def test_a_number_of_accounts_needs_all_of_them(shell: Shell) -> None:
    said = shell.sync("--at-once", 2)
    assert (said.code, "--all-accounts" in said.error) == (2, True)
    with pytest.raises(UsageError, match="at_once"):
        next(sync_accounts(at_once=0))


@pytest.mark.parametrize("settings", [dlt_settings, settings_for_many], ids=["one", "many"])
def test_runs_in_threads_share_the_settings_of_the_process(settings: Any) -> None:
    """The first sets them, the last resets them, in whatever order they end."""
    mask, hints = os.umask(0o022), validation.get_type_hints  # type: ignore[attr-defined]
    first, last = ExitStack(), ExitStack()
    try:
        first.enter_context(settings())
        last.enter_context(settings())
        first.close()
        assert os.environ["LOAD__DELETE_COMPLETED_JOBS"] == "true"
        assert os.umask(0o077) == 0o077
        last.close()
        assert "LOAD__DELETE_COMPLETED_JOBS" not in os.environ
        assert os.umask(0o022) == 0o022
        assert validation.get_type_hints is hints  # type: ignore[attr-defined]
    finally:
        os.umask(mask)


def test_a_version_of_dlt_may_lack_what_is_quicker_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(validation, "get_type_hints")
    with dlt_settings():
        assert not hasattr(validation, "get_type_hints")


@pytest.mark.parametrize("trace", [None, "true"], ids=["off", "on"])
def test_a_trace_that_somebody_asks_for_has_everything(
    monkeypatch: pytest.MonkeyPatch, trace: str | None
) -> None:
    def writes() -> tuple[bool, bool]:
        return vars(extract)["yaml"] is yaml, vars(resolve)["log_traces"] is log_traces

    yaml, log_traces = vars(extract)["yaml"], vars(resolve)["log_traces"]
    if trace:
        monkeypatch.setenv("ENABLE_RUNTIME_TRACE", trace)
    with dlt_settings():
        assert writes() == (bool(trace), bool(trace))
        assert vars(extract)["yaml"].safe_load("a: 1") == {"a": 1}  # only its writing is spared
    assert writes() == (True, True)


def answer_of(account: str) -> Synced:
    return Synced({"customers": 1}, 1, 0.0, 1, account, livemode=False)


def test_accounts_are_synced_side_by_side(
    platform: Sandbox, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as were asked for, no more; those in one file wait for each other."""
    accounts = {platform.connect(customers=0).account_id for _ in range(4)}
    together, most, running = threading.Barrier(2), 0, set[str]()

    def meet(account: str, **_: Any) -> Synced:
        nonlocal most
        running.add(account)
        most = max(most, len(running))
        together.wait(60)  # nobody gets here alone
        running.discard(account)
        return answer_of(account)

    monkeypatch.setattr("stripe_feed.accounts_run.sync", meet)
    at: dict[str, Any] = {"api_key": platform.key, "api_base": shell.url, **FAST}
    results = list(sync_accounts(at_once=2, **at))
    assert {one.account_id for one in results if one.synced} == accounts
    assert most == 2
    together = threading.Barrier(1)
    most = 0
    assert len(list(sync_accounts(at_once=2, database="all.duckdb", **at))) == 4
    assert most == 1


def test_a_round_that_ends_early_stops_what_runs(
    platform: Sandbox, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And begins no other account."""
    for _ in range(3):
        platform.connect(customers=0)
    first, stopped, begun = threading.Lock(), threading.Event(), threading.Semaphore(0)

    class Running:
        api = SimpleNamespace(close=stopped.set)

    def hang(account: str, watch: Any, **_: Any) -> Synced:
        begun.release()
        if not first.acquire(blocking=False):
            watch(Running())
            assert stopped.wait(60)
        return answer_of(account)

    monkeypatch.setattr("stripe_feed.accounts_run.sync", hang)
    one_by_one = sync_accounts(at_once=2, api_key=platform.key, api_base=shell.url, **FAST)
    next(one_by_one)
    assert all(begun.acquire(timeout=60) for _ in range(3))
    one_by_one.close()  # type: ignore[attr-defined]
    assert stopped.is_set()


def test_a_message_names_the_account_it_is_about(
    platform: Sandbox,
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    child = platform.connect(customers=0).account_id

    def warn(account: str, **_: Any) -> Synced:
        logging.getLogger("stripe_feed").warning("%d rows are left out.", 3)
        return answer_of(account)

    monkeypatch.setattr("stripe_feed.accounts_run.sync", warn)
    list(sync_accounts(api_key=platform.key, api_base=shell.url, **FAST))
    logging.getLogger("stripe_feed").warning("After it.")
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        f"{child}: 3 rows are left out.", "After it.",
    ]  # fmt: skip


def test_accounts_share_a_budget() -> None:
    """And each has its own. Taking is one step: another thread's turn cannot come in between."""
    shared = SharedBudget(100, 0.0)
    one, other = (RateLimiter(100, 20, 4, 0.0, shared, id) for id in ("acct_1", "acct_2"))
    for n in range(15):
        assert one.take(f"/v1/{n}", 0.0) == 0.0

    assert other.account.ready_in(0.0) == 0.0
    assert other.take("/v1/customers", 0.0) == pytest.approx(1 / (100 * SAFETY))
    assert other.account.tokens == other.account.burst  # it took none of its own either
    assert other.take("/v1/customers", 1.0) == 0.0


def test_a_429_of_one_account_slows_no_other() -> None:
    """Those of two within 30 seconds slow all."""
    shared = SharedBudget(100, 0.0)
    for second in range(9):
        shared.limited("acct_1", float(second))
    assert shared.bucket.rate == shared.bucket.max_rate
    shared.limited("acct_2", 39.0)
    assert shared.bucket.rate == shared.bucket.max_rate
    shared.limited("acct_1", 60.0)
    assert shared.bucket.rate < shared.bucket.max_rate


def test_python_lists_and_syncs_the_accounts(platform: Sandbox, shell: Shell) -> None:
    """What a scheduler maps over; those that have revoked the access are not among them."""
    stays, gone = platform.connect(customers=1), platform.connect()
    platform.revoke(gone.account_id)
    key = platform.key

    assert connected_accounts(key, base=shell.url) == [stays.account_id]
    results = list(sync_accounts(api_key=key, api_base=shell.url, resources=["customers"], **FAST))
    assert [(one.account_id, one.exit_code) for one in results] == [(stays.account_id, 0)]
    assert results[0].synced is not None and results[0].synced.rows == {"customers": 1}
