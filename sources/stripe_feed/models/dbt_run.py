"""Run dbt on the project, for other engines and for the docs site; needs the extra `dbt`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..destination.duckdb_file import duckdb_path
from ..destination.locks import DEFAULT_WAIT
from ..destination.pipeline import dlt_settings, open_pipeline
from ..destination.place import DEFAULT_DATASET
from ..errors import SetupError
from .copies import locked_to_build, open_connection
from .database import existing_tables
from .render import PROJECT_FOLDER, load_project
from .run import (
    ModelResult,
    derived_variables,
    describe_missing,
    missing_tables,
    render_for,
    select_models,
)
from .variables import check_variables

PROFILES_FOLDER = Path(__file__).with_name("profiles")
SECRET = "DBT_ENV_SECRET_STRIPE_FEED_PASSWORD"  # dbt keeps what starts so out of logs and artefacts


@dataclass(frozen=True, slots=True)
class DbtNode:
    """What dbt did with one model or test; `status` is dbt's word."""

    name: str
    status: str
    seconds: float


def require_dbt() -> None:
    """Raise `SetupError` if dbt is not installed."""
    if find_spec("dbt") is None:
        raise SetupError("This needs dbt: pip install 'stripe-feed[dbt]'.")


def run_dbt(
    pipeline: Any,
    verb: tuple[str, ...],
    folder: Path,
    variables: Mapping[str, Any],
) -> list[DbtNode]:
    """Run a verb of dbt on the copy of a pipeline; dbt writes into `folder` only.

    The credentials go through the environment. Raises `SetupError` if dbt cannot run.
    """
    require_dbt()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = folder / "target"
    with suppress(FileNotFoundError):
        (target / "run_results.json").unlink()
    command = [
        *(sys.executable, "-W", "ignore::RuntimeWarning", "-m", "dbt.cli.main"),
        *(
            "--no-version-check",
            "--no-use-colors",
            "--log-format",
            "json",
            "--log-level-file",
            "none",
        ),
        *verb,
        *("--project-dir", str(PROJECT_FOLDER), "--profiles-dir", str(PROFILES_FOLDER)),
        *("--target-path", str(target), "--log-path", str(folder / "logs")),
        *("--vars", json.dumps(dict(variables))),
    ]
    environment = {**os.environ, **connection_settings(pipeline), "DO_NOT_TRACK": "1"}
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    results = target / "run_results.json"
    if done.returncode not in (0, 1) or not results.exists():
        raise SetupError(f"dbt cannot run: {_first_error(done.stdout)}")
    return [
        DbtNode(node["unique_id"].split(".")[2], node["status"], node["execution_time"])
        for node in json.loads(results.read_text(encoding="utf-8"))["results"]
    ]


def connection_settings(pipeline: Any) -> dict[str, str]:
    """The environment that `profiles/profiles.yml` reads. Raises `SetupError` for a destination that
    has no profile there.
    """
    file = duckdb_path(pipeline)
    dataset = str(pipeline.dataset_name)
    if file is not None:
        return {
            "STRIPE_FEED_DBT": "duckdb",
            "STRIPE_FEED_FILE": str(file),
            "STRIPE_FEED_SCHEMA": dataset,
        }
    kind = pipeline.destination.destination_type.rpartition(".")[2]
    if kind != "postgres":
        raise SetupError(
            f"stripe-feed has no dbt profile for {kind}: use an own dbt project with the package that `stripe-feed models package` prints."
        )
    credentials = pipeline.destination_client().config.credentials
    return {
        "STRIPE_FEED_DBT": "postgres",
        "STRIPE_FEED_SCHEMA": dataset,
        "STRIPE_FEED_HOST": unquote(str(credentials.host)),
        "STRIPE_FEED_PORT": str(credentials.port or 5432),
        "STRIPE_FEED_USER": str(credentials.username),
        "STRIPE_FEED_DATABASE": str(credentials.database),
        SECRET: str(credentials.password or ""),
    }


def build_with_dbt(
    *,
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DEFAULT_DATASET,
    state_dir: str | None = None,
    selection: Sequence[str] | None = None,
    variables: Mapping[str, Any] | None = None,
    full: bool = False,
    wait: float = DEFAULT_WAIT,
) -> list[ModelResult]:
    """Build the models of a copy with dbt, except those whose raw tables are missing. Nothing else
    writes to the copy meanwhile.
    """
    require_dbt()
    with dlt_settings():
        pipeline = open_pipeline(database, destination, dataset, state_dir)
        with locked_to_build(pipeline, wait):
            with open_connection(pipeline, wait) as models_database:
                raw_tables = existing_tables(models_database)
                given = {
                    **derived_variables(models_database.target, raw_tables),
                    **check_variables(variables or {}),
                }
                models = render_for(models_database, load_project(), given, raw_tables)
            missing = missing_tables(models, raw_tables)
            wanted = select_models(models, selection)
            chosen = [name for name in wanted if name not in missing]
            results = [
                ModelResult(
                    name,
                    models[name].kind,
                    "left out",
                    describe_missing(missing[name]),
                    missing=missing[name],
                )
                for name in wanted
                if name in missing
            ]
            if chosen:
                verb = ("run", "--select", *chosen, *(("--full-refresh",) if full else ()))
                nodes = run_dbt(pipeline, verb, _dbt_folder(pipeline), given)
                results += [_dbt_result(node, models[node.name].kind) for node in nodes]
    return results


def _dbt_result(node: DbtNode, kind: str) -> ModelResult:
    if node.status == "success":
        return ModelResult(node.name, kind, "built", seconds=node.seconds)
    return ModelResult(node.name, kind, "failed", f"dbt says: {node.status}", seconds=node.seconds)


def write_docs(
    *,
    out: str,
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DEFAULT_DATASET,
    state_dir: str | None = None,
    wait: float = DEFAULT_WAIT,
) -> Path:
    """Write dbt's docs of the models as one HTML file into a folder; return its path."""
    require_dbt()
    with dlt_settings():
        pipeline = open_pipeline(database, destination, dataset, state_dir)
        with locked_to_build(pipeline, wait):
            with open_connection(pipeline, wait) as models_database:
                given = derived_variables(models_database.target, existing_tables(models_database))
            folder = _dbt_folder(pipeline)
            run_dbt(pipeline, ("docs", "generate", "--static"), folder, given)
    Path(out).mkdir(parents=True, exist_ok=True)
    page = Path(out, "index.html")
    shutil.copyfile(folder / "target" / "static_index.html", page)
    return page


def _dbt_folder(pipeline: Any) -> Path:
    """Where dbt writes: below the folder of the copy's state."""
    return Path(pipeline.pipelines_dir, "dbt")


def _first_error(output: str) -> str:
    """dbt's first error, from its log as JSON lines."""
    for line in output.splitlines():
        with suppress(ValueError, KeyError, TypeError):
            info = json.loads(line)["info"]
            if info["level"] == "error":
                return str(info["msg"]).strip().splitlines()[0]
    return "run it again with --debug"
