"""What the models of a copy are: each with its grain, when it was built, and whether it is current."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ..resources import RESOURCES
from .database import (
    BuiltModel,
    ModelDatabase,
    existing_tables,
    newest_load,
    read_results,
)
from .render import Project, RenderedModel, load_project
from .run import (
    ModelResult,
    describe_missing,
    missing_tables,
    render_for,
    unknown_model_error,
)

ModelState = Literal["current", "stale", "not built", "left out"]


@dataclass(frozen=True, slots=True)
class ModelOverview:
    """One model of a copy. `rows` is null for a view; `reason`: why it is left out."""

    name: str
    kind: str
    grain: str
    state: ModelState
    rows: int | None = None
    built_at: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """What the project says about a model: its columns with their descriptions, and its SQL."""

    name: str
    kind: str
    description: str
    grain: str
    columns: tuple[tuple[str, str], ...]
    reads: tuple[str, ...]
    sql: str


def rendered_models(
    database: ModelDatabase, variables: Mapping[str, Any] | None = None
) -> dict[str, RenderedModel]:
    """The models as they are for what a database holds."""
    return render_for(
        database,
        load_project(),
        variables,
        existing_tables(database),
    )


def list_models(database: ModelDatabase) -> list[ModelOverview]:
    """Every model, in the order of building."""
    project = load_project()
    raw_tables = existing_tables(database)
    models = rendered_models(database)
    missing, history = missing_tables(models, raw_tables), read_results(database)
    load_id = newest_load(database, raw_tables)
    return [
        _overview(project, model, missing.get(name, ""), history.get(name), load_id)
        for name, model in models.items()
    ]


def lacking_tables(database: ModelDatabase, loaded: Collection[str] = ()) -> dict[str, str]:
    """The models that cannot be built, each with the raw table that is neither there nor `loaded`."""
    raw_tables = {*existing_tables(database), *loaded}
    return missing_tables(rendered_models(database), raw_tables)


def _overview(
    project: Project,
    model: RenderedModel,
    missing: str,
    built: BuiltModel | None,
    load_id: str | None,
) -> ModelOverview:
    state: ModelState
    if built is None:
        state = "left out" if missing else "not built"
    elif model.kind == "view" or built.load_id == load_id:
        state = "current"
    else:
        state = "stale"
    return ModelOverview(
        model.name,
        model.kind,
        _grain(project, model.name),
        state,
        built.rows if built else None,
        built.built_at if built else None,
        describe_missing(missing) if missing else "",
    )


def _grain(project: Project, name: str) -> str:
    properties = project.properties.get(name, {})
    meta = properties.get("config", {}).get("meta", {})
    return str(meta.get("grain", ""))


def describe_model(models: Mapping[str, RenderedModel], name: str) -> ModelDetails:
    """Describe one model. Raises `UsageError` if there is none of that name."""
    if name not in models:
        raise unknown_model_error(name, models)
    model, project = models[name], load_project()
    properties = project.properties.get(name, {})
    return ModelDetails(
        name,
        model.kind,
        " ".join(str(properties.get("description", "")).split()),
        _grain(project, name),
        tuple((c["name"], c.get("description", "")) for c in properties.get("columns", ())),
        (*model.refs, *model.sources),
        model.sql,
    )


def is_expected(result: ModelResult, selection: Sequence[str] | None) -> bool:
    """Whether a model that is left out was to be expected: nobody named it, and its raw table is not
    one that every sync loads.
    """
    if selection:
        return False
    core = {row.table for row in RESOURCES.values() if row.group == "core"}
    core |= {c.table for row in RESOURCES.values() if row.group == "core" for c in row.children}
    return result.missing not in core
