"""Create one model in DuckDB or Postgres, so that readers never see it missing or half filled."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..resources import CHANGE_COLUMNS, CHANGES, TABLES
from .database import ModelDatabase, existing_relations
from .render import Project, RenderedModel

STAND_IN_PREFIX = "_no_rows_"  # of the names of empty tables
_SQL_TYPES = {
    "text": "varchar",
    "ref": "varchar",
    "bigint": "bigint",
    "bool": "boolean",
    "timestamp": "timestamp with time zone",
    "decimal": "decimal(38, 12)",
    "double": "double precision",
    "json": "json",
}
_ADDED_COLUMNS = {
    **dict.fromkeys(("account_id", "_dlt_load_id"), "text"),
    "deleted_at": "timestamp",
    "extra": "json",
}


def create_stand_ins(
    database: ModelDatabase,
    project: Project,
    raw_tables: Collection[str],
    loaded: Collection[str],
) -> dict[str, str]:
    """Create an empty table for each raw table that is loaded but has no table yet: some destinations
    create it with its first row. Return their names by raw table.
    """
    names = stand_in_names(project, raw_tables, loaded)
    for table, name in names.items():
        kinds = (
            {column.name: str(column.kind) for column in CHANGE_COLUMNS} | {"_dlt_load_id": "text"}
            if table == CHANGES
            else {column.name: str(column.kind) for column in TABLES[table].columns}
            | _ADDED_COLUMNS
        )
        columns = ", ".join(f'"{column}" {_SQL_TYPES[kind]}' for column, kind in kinds.items())
        database.execute(f"create table if not exists {database.target.relation(name)} ({columns})")
    return names


def stand_in_names(
    project: Project, raw_tables: Collection[str], loaded: Collection[str]
) -> dict[str, str]:
    """The names of these empty tables, by raw table."""
    missing = [table for table in sorted(project.raw_tables - set(raw_tables)) if table in loaded]
    return {table: f"{STAND_IN_PREFIX}{table}" for table in missing}


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
    selected = database.columns(model.increment)
    for name, type_name in selected:
        if name not in stored:
            database.execute(f"alter table {relation} add column {name} {type_name}")
    names = ", ".join(name for name, _ in selected)
    database.execute(f"insert into {relation} ({names}) {model.increment}")


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


def drop_views(database: ModelDatabase, project: Project) -> list[str]:
    """Drop the project's views, which keep raw tables from being dropped, and return their names.
    The next build creates them again; views of others stay.
    """
    relations = existing_relations(database)
    views = [name for name in project.models if relations.get(name) == "view"]
    if views:
        names = ", ".join(database.target.relation(name) for name in views)
        database.execute(f"drop view {names}")
    return views
