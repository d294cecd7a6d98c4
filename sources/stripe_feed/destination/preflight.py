"""Check for obstacles before a load: another tool's tables, missing privileges, dependent views,
columns of another type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from dlt.common.schema.utils import has_table_seen_data

from ..errors import SetupError
from ..resources import CHANGES, TABLES
from .place import DUCKDB, POSTGRES

TABLE_NAMES = (*TABLES, CHANGES)
_OWN_COLUMNS = frozenset({"account_id", "_dlt_load_id"})  # every table of stripe-feed has them
_MAX_NAMED = 3
PRIVILEGES_QUERY = """
select has_database_privilege(current_database(), 'create'),
    pg_is_in_recovery() or current_setting('default_transaction_read_only') = 'on',
    (select has_schema_privilege(oid, 'create') and has_schema_privilege(oid, 'usage') from pg_namespace where nspname = %s),
    (select has_schema_privilege(oid, 'create') and has_schema_privilege(oid, 'usage') from pg_namespace where nspname = %s)
"""
_TABLE_LIST = f"({', '.join(['%s'] * len(TABLE_NAMES))})"
HIDDEN_QUERY = f"""
select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = %s and (c.relname in {_TABLE_LIST} or starts_with(c.relname, '_dlt_')) and row_security_active(c.oid)
    and (exists (select from unnest(array['r', 'w', 'd']) command where not exists (
            select from pg_policy p where p.polrelid = c.oid and p.polpermissive and p.polcmd::text in ('*', command)
            and pg_get_expr(p.polqual, p.polrelid) = 'true'
            and exists (select from unnest(p.polroles) r where r = 0 or pg_has_role(r, 'usage'))))
        or exists (select from pg_policy p where p.polrelid = c.oid and not p.polpermissive)) order by 1
"""
VIEWS_QUERY = f"""
select distinct w.nspname || '.' || v.relname from pg_depend d
join pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass
join pg_class v on v.oid = r.ev_class join pg_namespace w on w.oid = v.relnamespace
join pg_class t on t.oid = d.refobjid and d.refclassid = 'pg_class'::regclass join pg_namespace n on n.oid = t.relnamespace
where t.oid <> v.oid and n.nspname = %s and t.relname in {_TABLE_LIST} order by 1
"""


def require_usable_dataset(
    pipeline: Any, state: Mapping[str, Any], tables: Sequence[str] = TABLE_NAMES
) -> None:
    """Raise `SetupError` if a first load of these tables would meet another tool's, or lacks a
    privilege, or if Postgres hides rows. `state`: the source's.

    Tables that hold rows of an account are not checked again, but for hidden rows.
    """
    is_duckdb = pipeline.destination.destination_type == DUCKDB
    is_postgres = pipeline.destination.destination_type == POSTGRES
    if is_postgres:
        _require_all_rows(pipeline)
    schema = pipeline.default_schema.tables if pipeline.default_schema_name else {}
    loaded = [name for name, table in schema.items() if has_table_seen_data(table)]
    new = [name for name in (*tables, CHANGES) if name not in loaded]
    if "account" in state and not (loaded and new):
        return
    with pipeline.destination_client() as client:
        if is_duckdb and not client.is_storage_initialized():  # nobody's tables are there
            return
        require_no_foreign_tables(client, dict.fromkeys(new), _OWN_COLUMNS)
        if is_postgres and "account" not in state:
            _require_privileges(client.sql_client)


def require_no_foreign_tables(client: Any, names: Iterable[str], own_columns: Set[str]) -> None:
    """Raise `SetupError` if a table of these names lacks the columns that ours have."""
    columns_by_table = {
        name: {column.lower() for column in columns}
        for name, columns in client.get_storage_tables(names)
    }
    foreign = [
        f"{client.sql_client.dataset_name}.{name}"
        for name, columns in columns_by_table.items()
        if columns and not columns >= own_columns
    ]
    if foreign:
        raise SetupError(
            f"Another tool's tables are in the way: {', '.join(foreign)}. They stay as they are; choose another --dataset."
        )


def require_column_types(pipeline: Any) -> None:
    """Raise `SetupError` if a column in DuckDB or Postgres has another type than loads gave it: its
    values never compare equal, however often they are written again.
    """
    if pipeline.destination.destination_type not in (DUCKDB, POSTGRES):
        return
    schema = pipeline.default_schema.tables if pipeline.default_schema_name else {}
    loaded = [name for name in TABLE_NAMES if has_table_seen_data(schema.get(name, {}))]
    places, fixes = [], []
    with pipeline.destination_client() as client:
        escape, qualify = (
            client.sql_client.escape_column_name,
            client.sql_client.make_qualified_table_name,
        )
        for table, stored in client.get_storage_tables(loaded):
            for name, column in schema[table]["columns"].items():
                if name in stored and _is_other_type(column, stored[name]):
                    type = client.type_mapper.to_destination_type(column, schema[table])
                    places.append(f"{table}.{name}")
                    fixes.append(
                        f"alter table {qualify(table)} alter column {escape(name)} type {type} using cast({escape(name)} as {type})"
                    )
    if places:
        raise SetupError(
            f"Somebody changed the type of {_named(places)} in the destination. Give it back its type "
            f"({fixes[0]}), then run `stripe-feed reconcile`; or load everything again with `stripe-feed sync --full-refresh`."
        )


def _is_other_type(expected: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    """Whether a stored column has another type than the schema says. Text may hold JSON."""
    types = expected.get("data_type"), stored["data_type"]
    return types[0] not in (None, types[1]) and types != ("json", "text")


def _require_all_rows(pipeline: Any) -> None:
    """Raise `SetupError` if row-level security may hide rows, be it from a deletion alone: they would
    be loaded a second time.
    """
    with pipeline.sql_client() as client:
        hidden = [
            table
            for (table,) in client.execute_sql(HIDDEN_QUERY, client.dataset_name, *TABLE_NAMES)
        ]
    if hidden:
        raise SetupError(
            f"Row-level security can hide rows of {_named(hidden)} from this user, and they would be loaded twice. Let its role "
            "bypass it (`alter role ... bypassrls`), or add a policy that shows and takes every row; then run again."
        )


def _named(places: Sequence[str]) -> str:
    more = f" and {len(places) - _MAX_NAMED} more" if len(places) > _MAX_NAMED else ""
    return ", ".join(places[:_MAX_NAMED]) + more


def _require_privileges(client: Any) -> None:
    names = (client.dataset_name, client.staging_dataset_name)
    ((can_create_schemas, is_read_only, *schemas),) = client.execute_sql(PRIVILEGES_QUERY, *names)
    if is_read_only:
        raise SetupError(
            "The database is read-only. Use its primary server, or set default_transaction_read_only to off."
        )
    for name, can_use in zip(names, schemas, strict=True):
        if can_use is None and not can_create_schemas:
            raise SetupError(
                f"The user may not create the schema {name}. Let an owner create it for this user, and so for both of "
                f"{' and '.join(names)}; or grant create on the database."
            )
        if can_use is False:
            raise SetupError(
                f"The user may not create tables in the schema {name}. Grant it create and usage on this schema."
            )


def require_no_dependent_views(pipeline: Any) -> None:
    """Raise `SetupError` if views depend on tables that a full refresh drops."""
    if pipeline.destination.destination_type != POSTGRES:
        return
    with pipeline.sql_client() as client:
        views = [
            view for (view,) in client.execute_sql(VIEWS_QUERY, client.dataset_name, *TABLE_NAMES)
        ]
    if views:
        raise SetupError(
            f"--full-refresh drops the tables, and views depend on them: {', '.join(views)}. Drop the views, run again, then "
            "create them again; or leave out --full-refresh."
        )
