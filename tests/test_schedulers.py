"""The files for schedulers: what they name exists, and Dagster and Prefect really run theirs, where
they are installed.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pytest
import yaml

from stripe_feed import open_feed
from stripe_feed.cli.main import app
from stripe_feed.destination.pipeline import open_pipeline
from stripe_feed.sandbox import Sandbox

PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"
SETTLED = 400


def commands(text: str) -> Iterator[list[str]]:
    """Every call of `stripe-feed` in a text, up to the end of its shell command."""
    for found in re.finditer(r"stripe-feed (?!\[|\")([^;&|}\n]+)", text):
        yield shlex.split(found[1])


@pytest.mark.parametrize("name", ["crontab", "github_actions.yml"])
def test_the_commands_exist_with_their_options(name: str) -> None:
    import typer.main

    group: Any = typer.main.get_command(app)
    found = list(
        commands(re.sub(r"(?m)^\s*#.*", "", (PIPELINES / name).read_text(encoding="utf-8")))
    )
    assert found
    for verb, *options in found:
        known = {option for parameter in group.commands[verb].params for option in parameter.opts}
        assert {one for one in options if one.startswith("--")} <= known


def test_the_workflow_is_a_workflow() -> None:
    said = yaml.safe_load((PIPELINES / "github_actions.yml").read_text(encoding="utf-8"))
    assert said["concurrency"] and said["permissions"] == {}
    steps = [step.get("run", "") for step in said["jobs"]["sync"]["steps"]]
    assert any(step.startswith("stripe-feed sync") for step in steps)


def test_they_are_short() -> None:
    for file in PIPELINES.iterdir():
        if file.is_file() and file.suffix != ".md":
            assert len(file.read_text(encoding="utf-8").splitlines()) <= 60, file.name


SCHEDULED = (
    "airflow_dag", "airflow_accounts", "dagster_job", "dagster_accounts", "prefect_flow", "prefect_accounts",
)  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULED)
def test_what_they_import_of_ours_is_there(name: str) -> None:
    tree = ast.parse((PIPELINES / f"{name}.py").read_text(encoding="utf-8"))
    ours = [
        (node.module or "", one.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stripe_feed")
        for one in node.names
    ]
    assert ours
    for module, attribute in ours:
        assert hasattr(importlib.import_module(module), attribute), f"{module}.{attribute}"


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    box = Sandbox(seed=4, customers=8)
    with box.serve() as url:
        monkeypatch.setenv("STRIPE_API_BASE", url)
        monkeypatch.setenv("STRIPE_SECRET_KEY", box.key)
        monkeypatch.setenv("STRIPE_DATABASE", str(tmp_path / "copy.duckdb"))
        yield box


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PIPELINES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def turn(box: Sandbox, status: str) -> str:
    """A subscription changes its status; its id."""
    id = next(id for id, one in box.objects("subscriptions").items() if one["status"] == "active")
    box.update("subscriptions", id, status=status)
    box.advance(SETTLED)
    return id


@pytest.mark.orchestrators
@pytest.mark.filterwarnings("default")
def test_dagster_materializes_the_copy_and_starts_a_run_per_change(account: Sandbox) -> None:
    dg = pytest.importorskip("dagster")
    job = script("dagster_job")
    with dg.instance_for_test() as instance:
        account.advance(SETTLED)
        done = dg.materialize([job.stripe_copy], instance=instance)
        assert (
            done.success
            and done.asset_materializations_for_node("stripe_copy")[0].metadata["customers"].value
        )
        first = job.subscription_status(dg.build_sensor_context(instance=instance))
        assert first.run_requests == []
        id = turn(account, "past_due")
        assert dg.materialize([job.stripe_copy], instance=instance).success
        second = job.subscription_status(
            dg.build_sensor_context(instance=instance, cursor=first.cursor)
        )
        (request,) = second.run_requests
        assert request.run_config["ops"]["handle"]["config"]["object_id"] == id
        assert job.on_change.execute_in_process(
            run_config=request.run_config, instance=instance
        ).success
        third = job.subscription_status(
            dg.build_sensor_context(instance=instance, cursor=second.cursor)
        )
        assert third.run_requests == []


@pytest.mark.orchestrators
@pytest.mark.filterwarnings("default")
def test_prefect_copies_and_tells_each_change_once(account: Sandbox, tmp_path: Path) -> None:
    prefect_test_harness = pytest.importorskip("prefect.testing.utilities").prefect_test_harness
    flow = script("prefect_flow")
    account.advance(SETTLED)
    with prefect_test_harness():
        assert flow.stripe_feed() == 0
        turn(account, "past_due")
        told = flow.stripe_feed()
        with open_feed(open_pipeline(str(tmp_path / "copy.duckdb"))) as feed:
            assert told == feed.head > 0
        assert flow.stripe_feed() == 0


@pytest.fixture
def connected(
    account: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Sandbox]:
    """Two accounts of the platform; the second one has a fault."""
    monkeypatch.setenv("STRIPE_FOLDER", str(tmp_path))
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    one, broken = account.connect(customers=2), account.connect(customers=1)
    broken.faults.always = {"/v1/account": 400}
    return {"one": one, "broken": broken}


def customers_of(folder: Path, account: str) -> int:
    dataset = f"stripe_{account.lower()}"
    with duckdb.connect(
        str(folder / f"stripe_feed_{account.lower()}.duckdb"), read_only=True
    ) as opened:
        query = f"select count(*) from {dataset}.customers"
        ((count,),) = opened.execute(query).fetchall()
    return int(count)


@pytest.mark.orchestrators
@pytest.mark.filterwarnings("default")
def test_dagster_has_a_partition_for_each_account(
    connected: dict[str, Sandbox], tmp_path: Path
) -> None:
    dg = pytest.importorskip("dagster")
    job = script("dagster_accounts")
    with dg.instance_for_test() as instance:
        requests = job.hourly_accounts(
            dg.build_schedule_context(instance, scheduled_execution_time=datetime(2026, 1, 1, 5))
        )
        ids = {box.account_id for box in connected.values()}
        assert {request.partition_key for request in requests} == ids
        assert len({request.run_key for request in requests}) == 2
        assert set(instance.get_dynamic_partitions("stripe_accounts")) == ids
        for name, box in connected.items():
            done = dg.materialize(
                [job.account_copy],
                instance=instance,
                partition_key=box.account_id,
                raise_on_error=False,
            )
            assert done.success is (name == "one")
    assert customers_of(tmp_path, connected["one"].account_id) == 2


@pytest.mark.orchestrators
@pytest.mark.filterwarnings("default")
def test_prefect_maps_over_the_accounts(connected: dict[str, Sandbox], tmp_path: Path) -> None:
    prefect_test_harness = pytest.importorskip("prefect.testing.utilities").prefect_test_harness
    flow = script("prefect_accounts")
    with prefect_test_harness():
        rows = flow.stripe_accounts()
    one, broken = (connected[name].account_id for name in ("one", "broken"))
    assert rows[one] > 2 and rows[broken] is None
    assert customers_of(tmp_path, one) == 2
