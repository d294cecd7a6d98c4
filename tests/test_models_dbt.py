"""The models through dbt; only where the extra is installed (`make test-dbt`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import pytest

from stripe_feed.destination.pipeline import open_pipeline
from stripe_feed.models.copies import build_copy_models
from stripe_feed.models.dbt_run import build_with_dbt, run_dbt
from stripe_feed.models.render import PROJECT_FOLDER
from tests.raw_tables import empty_tables, one_subscription

pytestmark = pytest.mark.skipif(find_spec("dbt") is None, reason="needs the extra dbt")

DBT = [sys.executable, "-W", "ignore::RuntimeWarning", "-m", "dbt.cli.main"]
DBT += ["--no-version-check", "--no-use-colors", "--log-level-file", "none"]
AS_OF = {"as_of": "2026-11-20 12:00:00"}
ROWS = "select * from stripe_models.{} order by all"
MARTS = ("mrr_items", "mrr_monthly_customer", "mrr_movements", "mrr_summary")


def small_copy(file: Path) -> None:
    with duckdb.connect(str(file)) as connection:
        empty_tables(connection)
        one_subscription(connection)


def rows(file: Path) -> dict[str, list[Any]]:
    with duckdb.connect(str(file), read_only=True) as connection:
        return {mart: connection.execute(ROWS.format(mart)).fetchall() for mart in MARTS}


def test_dbt_builds_the_same_rows_and_tests_them(tmp_path: Path) -> None:
    ours, theirs = (tmp_path / name / "copy.duckdb" for name in ("ours", "theirs"))
    for file in (ours, theirs):
        file.parent.mkdir()
        small_copy(file)
    place: dict[str, Any] = {"database": str(theirs), "state_dir": str(tmp_path / "state")}
    selection = [f"+{mart}" for mart in MARTS]

    build_copy_models(
        database=str(ours), state_dir=str(tmp_path / "own"), selection=selection, variables=AS_OF
    )
    results = build_with_dbt(**place, selection=selection, variables=AS_OF)

    assert {r.status for r in results if not r.missing} == {"built"}
    assert rows(theirs) == rows(ours)
    assert rows(ours)["mrr_summary"]
    pipeline = open_pipeline(str(theirs), None, "stripe", str(tmp_path / "state"))
    nodes = run_dbt(
        pipeline,
        ("test", "--select", *selection, "--indirect-selection", "cautious"),
        tmp_path / "dbt",
        {**AS_OF, "discounts": "none"},
    )
    assert len(nodes) > 20
    assert {node.status for node in nodes} == {"pass"}
    assert not list(PROJECT_FOLDER.glob("target")) + list(PROJECT_FOLDER.glob("logs"))


def test_a_project_of_the_user_takes_the_models_as_a_package(tmp_path: Path) -> None:
    small_copy(tmp_path / "copy.duckdb")
    shutil.copytree(PROJECT_FOLDER, tmp_path / "package")
    files = {
        "packages.yml": "packages:\n  - local: package\n",
        "profiles.yml": "mine:\n  target: dev\n  outputs:\n    dev: {type: duckdb, path: copy.duckdb, schema: analytics}\n",
        "dbt_project.yml": (
            "name: mine\nversion: '1.0'\nconfig-version: 2\nprofile: mine\nmodel-paths: [models]\n"
            "flags: {send_anonymous_usage_stats: false}\n"
            "vars: {stripe_feed: {source_dataset_name: stripe, discounts: none, as_of: '2026-11-20 12:00:00'}}\n"
            "models: {stripe_feed: {+schema: stripe, staging: {+materialized: ephemeral}}}\n"
        ),
        "models/best_month.sql": "select max(closing_mrr) as mrr from {{ ref('stripe_feed', 'mrr_summary') }}",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    for verb in (("deps",), ("run", "--select", "+best_month")):
        subprocess.run(
            [*DBT, *verb],
            cwd=tmp_path,
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "DBT_PROFILES_DIR": str(tmp_path), "DO_NOT_TRACK": "1"},
        )

    with duckdb.connect(str(tmp_path / "copy.duckdb"), read_only=True) as connection:
        found = connection.execute("select mrr from analytics.best_month").fetchall()
    assert found == [(3000,)]
