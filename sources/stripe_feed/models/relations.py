"""Create one model in DuckDB or Postgres, so that readers never see it missing or half filled."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .database import ModelDatabase
from .render import RenderedModel


def create_relation(
    database: ModelDatabase,
    models: Mapping[str, RenderedModel],
    model: RenderedModel,
    relations: dict[str, str],
    unchanged: Collection[str],
) -> None:
    """Create or replace a model. `relations`: what exists, `table` or `view` by name; views that had
    to be dropped with it are created again if they are `unchanged`, and leave `relations` otherwise.
    """
    relation = database.target.relation(model.name)
    kind = "view" if model.kind == "view" else "table"
    existing = relations.get(model.name)
    if model.kind == "incremental" and existing == "table":
        _append(database, model)
    elif database.target.type == "duckdb":
        if existing not in (None, kind):
            database.execute(f"drop {existing} {relation}")
        database.execute(f"create or replace {kind} {relation} as {model.sql}")
    elif existing is None:
        database.execute(f"create {kind} {relation} as {model.sql}")
    elif existing == kind and _same_columns(database, model):
        _refill(database, model, kind)
    else:
        _replace(database, models, model, relations, unchanged)
    relations[model.name] = kind


def _same_columns(database: ModelDatabase, model: RenderedModel) -> bool:
    stored = f"select * from {database.target.relation(model.name)}"
    return database.columns(model.sql) == database.columns(stored)


def _append(database: ModelDatabase, model: RenderedModel) -> None:
    """Insert the new rows of an incremental model by column name, after adding columns that the
    table lacks: an older version created it.
    """
    relation = database.target.relation(model.name)
    stored = {name for name, _ in database.columns(f"select * from {relation}")}
    selected = database.columns(model.sql)
    for name, type_name in selected:
        if name not in stored:
            database.execute(f"alter table {relation} add column {name} {type_name}")
    names = ", ".join(name for name, _ in selected)
    database.execute(f"insert into {relation} ({names}) {model.sql}")


def _refill(database: ModelDatabase, model: RenderedModel, kind: str) -> None:
    """Replace the content and keep the relation, and with it grants and the views of others."""
    relation = database.target.relation(model.name)
    if kind == "view":
        database.execute(f"create or replace view {relation} as {model.sql}")
        return
    with database.transaction():
        database.execute(f"delete from {relation}")
        database.execute(f"insert into {relation} {model.sql}")


def _replace(
    database: ModelDatabase,
    models: Mapping[str, RenderedModel],
    model: RenderedModel,
    relations: dict[str, str],
    unchanged: Collection[str],
) -> None:
    """Drop and create a relation whose columns or kind changed, with the project's views on it."""
    relation = database.target.relation(model.name)
    kind = "view" if model.kind == "view" else "table"
    views = _views_on(models, model.name, relations)
    with database.transaction():
        for name in reversed(views):
            database.execute(f"drop view if exists {database.target.relation(name)}")
            relations.pop(name, None)
        database.execute(f"drop {relations[model.name]} {relation}")
        database.execute(f"create {kind} {relation} as {model.sql}")
        for name in views:
            reads = models[name].refs
            if name in unchanged and all(ref in relations for ref in reads):
                database.execute(
                    f"create view {database.target.relation(name)} as {models[name].sql}"
                )
                relations[name] = "view"


def _views_on(
    models: Mapping[str, RenderedModel], name: str, relations: Mapping[str, str]
) -> list[str]:
    """The existing views that read a model, directly or through views, in the order of building."""
    affected = {name}
    views = []
    for model in models.values():
        if relations.get(model.name) == "view" and affected.intersection(model.refs):
            affected.add(model.name)
            views.append(model.name)
    return views
