"""Build the models in DuckDB and Postgres: select, order, create, and skip what is unchanged."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any, Literal

from ..destination.error_messages import (
    UNKNOWN,
    causes_of,
    error_code,
    failed_object,
    find_reason,
)
from ..errors import UsageError, did_you_mean
from .database import (
    BuiltModel,
    ModelDatabase,
    create_schema,
    existing_relations,
    existing_tables,
    forget_last_build,
    newest_load,
    read_last_build,
    read_results,
    record_last_build,
    record_result,
)
from .relations import create_relation, create_stand_ins, stand_in_names
from .render import (
    ModelTarget,
    Project,
    RenderedModel,
    load_project,
    project_digest,
    render_model,
    render_models,
    render_text,
)
from .slices import CLOCK, CustomerSlices, can_slice, digest_of, is_per_customer
from .variables import check_variables

BuildStatus = Literal["built", "unchanged", "left out", "failed"]


@dataclass(frozen=True, slots=True)
class ModelResult:
    """What a build did with one model. `reason`: why it was left out or failed; `missing`: the raw
    table that it lacks.
    """

    name: str
    kind: str
    status: BuildStatus
    reason: str = ""
    rows: int | None = None
    seconds: float = 0.0
    missing: str = ""


def build_models(
    database: ModelDatabase,
    selection: Sequence[str] | None = None,
    variables: Mapping[str, Any] | None = None,
    full: bool = False,
    project: Project | None = None,
    loaded: Collection[str] = (),
    watch: Callable[[ModelResult], None] = lambda result: None,
) -> list[ModelResult]:
    """Build the selected models (`x`, `+x` with all that it reads, `x+` with all that reads it; all by
    default) and return what was done with each, in order.

    A table whose SQL and data are those of its last build is not built again, unless `full`. A
    model whose raw tables are missing is left out, and so are those that read it; a missing table
    that is `loaded` counts as one without rows. One that fails does not stop the others.
    """
    create_schema(database)
    content = None
    if not selection and project is None:
        content = _content_of_all(database, variables, loaded)
    if content and not full and (results := _kept_results(database, content)):
        for result in results:
            watch(result)
        return results
    forget_last_build(database)
    results = _build_selected(
        database, selection, variables, full, project or load_project(), loaded, watch
    )
    if content and not any(map(_is_failed, results)):
        record_last_build(database, content, json.dumps([asdict(result) for result in results]))
    return results


def _content_of_all(
    database: ModelDatabase, variables: Mapping[str, Any] | None, loaded: Collection[str]
) -> str | None:
    """A digest of all that the models come from; None if no load is recorded."""
    raw_tables = existing_tables(database)
    load_id = newest_load(database, raw_tables)
    if load_id is None:
        return None
    tables = [(table, sorted(columns)) for table, columns in sorted(raw_tables.items())]
    given = sorted(check_variables(variables or {}).items())
    return digest_of(project_digest(), load_id, _today(), given, sorted(loaded), tables)


def _kept_results(database: ModelDatabase, content: str) -> list[ModelResult] | None:
    """What the last build of all models found, if it would find the same again."""
    kept = read_last_build(database, content)
    if kept is None:
        return None
    results = [ModelResult(**result) for result in json.loads(kept)]
    relations = existing_relations(database)
    if any(r.status != "left out" and r.name not in relations for r in results):
        return None
    return [replace(r, status="unchanged") if r.status == "built" else r for r in results]


def _today() -> str:
    return f"{datetime.now(timezone.utc):%Y-%m-%d}"


def _build_selected(
    database: ModelDatabase,
    selection: Sequence[str] | None,
    variables: Mapping[str, Any] | None,
    full: bool,
    project: Project,
    loaded: Collection[str],
    watch: Callable[[ModelResult], None],
) -> list[ModelResult]:
    relations, history = existing_relations(database), read_results(database)
    raw_tables = existing_tables(database)
    stand_ins = create_stand_ins(database, project, raw_tables, loaded)
    raw_tables |= {table: frozenset() for table in stand_ins}
    given = variables_for(database, project, variables, raw_tables)
    rendered = render_models(project, database.target, given, stand_ins)
    wanted = set(select_models(rendered, selection))
    load_id = newest_load(database, raw_tables)
    marks = _marks(rendered, load_id)
    missing = missing_tables(rendered, raw_tables)
    slices: CustomerSlices | None = None
    if load_id is not None and can_slice(database, project, stand_ins):
        slices = CustomerSlices(
            database, project, rendered, raw_tables, history, load_id,
            definitions={name: mark.definition for name, mark in marks.items()},
            render=lambda target, name: render_model(project, target, name, given),
            now=render_text(project, database.target, "{{ as_of() }}", given),
        )  # fmt: skip
    results: dict[str, ModelResult] = {}
    try:
        for name, model in rendered.items():
            if name not in wanted:
                continue
            past = history.get(name)
            if name in missing:
                reason = describe_missing(missing[name])
                result = ModelResult(name, model.kind, "left out", reason, missing=missing[name])
            elif blocked := [ref for ref in model.refs if _is_failed(results.get(ref))]:
                result = ModelResult(name, model.kind, "failed", f"{blocked[0]} failed")
            elif not full and relations.get(name) and _is_current(model, marks[name], past):
                result = ModelResult(
                    name, model.kind, "unchanged", rows=past.rows if past else None
                )
            else:
                own_slices = slices if slices and is_per_customer(project, name) else None
                result = _build(
                    database, rendered, model, relations, history, marks, load_id, own_slices, full
                )
            results[name] = result
            watch(result)
    finally:
        if slices:
            is_whole = len(results) == len(rendered)
            slices.close(is_whole and not any(map(_is_failed, results.values())))
    return list(results.values())


def stale_models(
    database: ModelDatabase,
    variables: Mapping[str, Any] | None = None,
    loaded: Collection[str] = (),
) -> list[str]:
    """The models that `build_models` would create: they are not built, or from other data or another
    definition. Nothing is written.
    """
    project, relations = load_project(), existing_relations(database)
    history, raw_tables = read_results(database), existing_tables(database)
    stand_ins = stand_in_names(project, raw_tables, loaded)
    raw_tables |= {table: frozenset() for table in stand_ins}
    rendered = render_for(database, project, variables, raw_tables, stand_ins)
    marks = _marks(rendered, newest_load(database, raw_tables))
    missing = missing_tables(rendered, raw_tables)
    return [
        name
        for name, model in rendered.items()
        if name not in missing
        and not (name in relations and _is_current(model, marks[name], history.get(name)))
    ]


def _is_failed(result: ModelResult | None) -> bool:
    return result is not None and result.status == "failed"


def render_for(
    database: ModelDatabase,
    project: Project,
    variables: Mapping[str, Any] | None,
    raw_tables: Mapping[str, frozenset[str]],
    stand_ins: Mapping[str, str] | None = None,
) -> dict[str, RenderedModel]:
    """Render the models for what a database holds."""
    given = variables_for(database, project, variables, raw_tables)
    return render_models(project, database.target, given, stand_ins)


def variables_for(
    database: ModelDatabase,
    project: Project,
    variables: Mapping[str, Any] | None,
    raw_tables: Mapping[str, frozenset[str]],
) -> dict[str, Any]:
    """The given variables, and those that follow from what a database holds."""
    derived = derived_variables(database.target, raw_tables)
    known = {name: value for name, value in derived.items() if name in project.variables}
    return known | dict(variables or {})


def derived_variables(
    target: ModelTarget, raw_tables: Mapping[str, frozenset[str]]
) -> dict[str, Any]:
    """The variables that follow from the raw tables. Without coupons MRR is before discounts."""
    known = {} if {"coupons", "discounts"} <= raw_tables.keys() else {"discounts": "none"}
    return {
        **known,
        "source_dataset_name": target.dataset,
        "price_tiers": "tiers" in raw_tables.get("prices", ()),
        "loaded_tables": sorted(raw_tables),
    }


def select_models(
    models: Mapping[str, RenderedModel], selection: Sequence[str] | None
) -> list[str]:
    """The names of the selected models. Raises `UsageError` for an unknown one."""
    if not selection:
        return list(models)
    chosen: set[str] = set()
    for term in selection:
        name = term.strip("+")
        if name not in models:
            raise unknown_model_error(name, models)
        chosen.add(name)
        if term.startswith("+"):
            chosen |= _reach(name, {model.name: model.refs for model in models.values()})
        if term.endswith("+"):
            chosen |= _reach(name, readers_of(models))
    return [name for name in models if name in chosen]


def unknown_model_error(name: str, models: Collection[str]) -> UsageError:
    """The error for a name that no model has, with the nearest that exist."""
    hint = did_you_mean(name, models)
    return UsageError(f"There is no model {name!r}. {hint}`stripe-feed models list` lists them.")


def readers_of(models: Mapping[str, RenderedModel]) -> dict[str, tuple[str, ...]]:
    """For each model, those that read it directly."""
    return {
        name: tuple(reader.name for reader in models.values() if name in reader.refs)
        for name in models
    }


def _reach(name: str, edges: Mapping[str, Sequence[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        following = set(edges[waiting.pop()]) - found
        found |= following
        waiting += following
    return found


def missing_tables(
    models: Mapping[str, RenderedModel], raw_tables: Collection[str]
) -> dict[str, str]:
    """The models that cannot be built, each with the raw table that it, or what it reads, lacks."""
    missing: dict[str, str] = {}
    for name, model in models.items():
        lacking = [table for table in model.sources if table not in raw_tables]
        lacking += [missing[ref] for ref in model.refs if ref in missing]
        if lacking:
            missing[name] = lacking[0]
    return missing


def describe_missing(table: str) -> str:
    """Why a model without this raw table is left out."""
    return f"the table {table} is not loaded"


@dataclass(frozen=True, slots=True)
class _Marks:
    """Digests of a model's own SQL, and of everything that its rows come from."""

    definition: str
    content: str


def _marks(models: Mapping[str, RenderedModel], load_id: str | None) -> dict[str, _Marks]:
    today = _today()
    marks: dict[str, _Marks] = {}
    for name, model in models.items():
        definition = digest_of(model.kind, model.sql)
        inputs = [marks[ref].content for ref in model.refs]
        clock = today if CLOCK in model.sql else ""
        loads = (load_id or time.time_ns()) if model.sources else ""
        marks[name] = _Marks(definition, digest_of(definition, *inputs, clock, loads))
    return marks


def _is_current(model: RenderedModel, marks: _Marks, past: BuiltModel | None) -> bool:
    if past is None or past.kind != model.kind:
        return False
    if model.kind == "view":
        return past.definition == marks.definition
    return past.content == marks.content


def _build(
    database: ModelDatabase,
    models: Mapping[str, RenderedModel],
    model: RenderedModel,
    relations: dict[str, str],
    history: Mapping[str, BuiltModel],
    marks: Mapping[str, _Marks],
    load_id: str | None,
    slices: CustomerSlices | None,
    full: bool,
) -> ModelResult:
    started = time.monotonic()
    unchanged = {
        name
        for name, past in history.items()
        if name in marks and past.definition == marks[name].definition
    }
    try:
        is_sliced = slices and not full and relations.get(model.name) == "table"
        if not (is_sliced and slices and slices.rebuild(model, history.get(model.name))):
            create_relation(database, models, model, relations, unchanged)
        rows = None if model.kind == "view" else _count(database, model.name)
    except Exception as fault:
        if os.environ.get("STRIPE_FEED_DEBUG"):
            raise
        return ModelResult(model.name, model.kind, "failed", describe_fault(fault))
    seconds = time.monotonic() - started
    mark = marks[model.name]
    built_at = datetime.now(timezone.utc).replace(tzinfo=None)
    basis = slices.basis(model.name) if slices else ""
    record_result(
        database,
        BuiltModel(
            model.name, model.kind, mark.definition, mark.content, load_id, built_at, seconds, rows, basis
        ),
    )  # fmt: skip
    return ModelResult(model.name, model.kind, "built", rows=rows, seconds=seconds)


def _count(database: ModelDatabase, name: str) -> int:
    ((rows,),) = database.execute(f"select count(*) from {database.target.relation(name)}")
    return int(rows)


def describe_fault(fault: BaseException) -> str:
    """Why a database refused, without its own text: that can hold data."""
    reason, cause = find_reason(fault) or (None, causes_of(fault)[-1])
    if reason is None or reason is UNKNOWN:
        return f"the database refused it ({error_code(cause)}); --debug shows why"
    return reason.text.format(failed_object(cause))
