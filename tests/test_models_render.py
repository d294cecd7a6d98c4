"""Our renderer against dbt's own: the same SQL, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from stripe_feed.errors import UsageError
from stripe_feed.models.render import (
    PROJECT_FOLDER,
    ModelFile,
    ModelTarget,
    Project,
    load_project,
    render_models,
    render_tests,
)
from tests.model_engines import DIALECTS

VARIABLES = {"as_of": "2026-11-20 12:34:56"}


@pytest.mark.skipif(find_spec("dbt") is None, reason="needs the extra dbt")
def test_the_sql_is_what_dbt_compiles(tmp_path: Path) -> None:
    (tmp_path / "profiles.yml").write_text(
        "stripe_feed:\n  target: dev\n  outputs:\n    dev: {type: duckdb, path: copy.duckdb, schema: stripe}\n"
    )
    settings = ["--project-dir", PROJECT_FOLDER, "--profiles-dir", tmp_path]
    settings += ["--target-path", tmp_path / "target", "--log-path", tmp_path / "log"]
    dbt = [sys.executable, "-m", "dbt.cli.main", "--no-version-check", "--log-level-file", "none"]
    variables = str(VARIABLES)
    subprocess.run(
        [*dbt, "compile", *map(str, settings), "--vars", variables],
        cwd=tmp_path,
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "DO_NOT_TRACK": "1"},
    )

    compiled = tmp_path / "target" / "compiled" / "stripe_feed"
    files = [file for file in compiled.rglob("*.sql") if file.parent.suffix != ".yml"]
    theirs = {file.stem: file.read_text() for file in files}
    target = ModelTarget("duckdb", "copy", "stripe", "stripe_models")
    project = load_project()
    rendered = [
        *render_models(project, target, VARIABLES).values(),
        *render_tests(project, target, VARIABLES).values(),
    ]
    assert theirs == {model.name: model.sql for model in rendered}


@pytest.mark.parametrize("type_", DIALECTS)
def test_the_sql_of_every_engine_parses(type_: str) -> None:
    import sqlglot

    target = ModelTarget(type_, "db", "stripe", "stripe_models")

    for name, model in render_models(load_project(), target).items():
        try:
            assert len(sqlglot.parse(model.sql, dialect=type_)) == 1, name
        except sqlglot.ParseError as fault:
            pytest.fail(f"{name}: {fault}")


def one_model(text: str, **macros: str) -> Project:
    return Project({"a": ModelFile("a", "marts", text)}, {}, macros, {"days": 7}, {}, {})


TARGET = ModelTarget("postgres", "db", "stripe", "stripe_models")


def test_a_macro_returns_from_a_dispatched_one() -> None:
    project = one_model(
        "select {{ size('x') }}, {{ var('days') }}",
        size="{% macro size(c) %}{{ return(adapter.dispatch('size', 'stripe_feed')(c)) }}{% endmacro %}",
        default__size="{% macro default__size(c) %}{{ return('len(' ~ c ~ ')') }}never{% endmacro %}",
        duckdb__size="{% macro duckdb__size(c) %}length({{ c }}){% endmacro %}",
    )

    assert render_models(project, TARGET)["a"].sql == "select len(x), 7"


def test_a_macro_that_an_engine_lacks() -> None:
    project = one_model(
        "{{ adapter.dispatch('size', 'stripe_feed')() }}",
        duckdb__size="{% macro duckdb__size() %}1{% endmacro %}",
    )

    with pytest.raises(UsageError, match="no postgres__size and no default__size"):
        render_models(project, TARGET)


def test_an_unknown_variable_is_named() -> None:
    with pytest.raises(UsageError, match="no variable dayz"):
        render_models(one_model("select 1"), TARGET, {"dayz": 1})
