"""What stands in the way of a load, found before anything is read or written: another tool's
tables, a missing right, a view.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SetupError
from ..resources import CHANGES, TABLES

NAMES = (*TABLES, CHANGES)
OURS = frozenset({"account_id", "_dlt_load_id"})  # columns that every table of ours has
POSTGRES = "dlt.destinations.postgres"
RIGHTS = """
select has_database_privilege(current_database(), 'create'),
    pg_is_in_recovery() or current_setting('default_transaction_read_only') = 'on',
    (select has_schema_privilege(oid, 'create') and has_schema_privilege(oid, 'usage') from pg_namespace where nspname = %s),
    (select has_schema_privilege(oid, 'create') and has_schema_privilege(oid, 'usage') from pg_namespace where nspname = %s)
"""
VIEWS = f"""
select distinct w.nspname || '.' || v.relname from pg_depend d
join pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass
join pg_class v on v.oid = r.ev_class join pg_namespace w on w.oid = v.relnamespace
join pg_class t on t.oid = d.refobjid and d.refclassid = 'pg_class'::regclass join pg_namespace n on n.oid = t.relnamespace
where t.oid <> v.oid and n.nspname = %s and t.relname in ({", ".join(["%s"] * len(NAMES))}) order by 1
"""


def require_place(pipeline: Any, state: Mapping[str, Any]) -> None:
    """Raise `SetupError` where a first load would meet another tool's tables, or lacks a right.
    `state`: the source's.

    A dataset that holds an account already was in order once: it is not asked again.
    """
    if "account" in state:
        return
    with pipeline.destination_client() as client:
        found = {
            name: {column.lower() for column in columns}
            for name, columns in client.get_storage_tables(NAMES)
        }
        foreign = [
            f"{pipeline.dataset_name}.{name}"
            for name, columns in found.items()
            if columns and not columns >= OURS
        ]
        if foreign:
            raise SetupError(
                f"Another tool's tables are in the way: {', '.join(foreign)}. They stay as they are; choose another --dataset."
            )
        if pipeline.destination.destination_type == POSTGRES:
            _require_rights(client.sql_client)


def _require_rights(client: Any) -> None:
    names = (client.dataset_name, client.staging_dataset_name)
    ((creates, only_reads, *schemas),) = client.execute_sql(RIGHTS, *names)
    if only_reads:
        raise SetupError(
            "The database can only be read. Take its primary server, or set default_transaction_read_only to off."
        )
    for name, may in zip(names, schemas, strict=True):
        if may is None and not creates:
            raise SetupError(
                f"The user may not create the schema {name}. Let an owner create it for this user, and so for both of "
                f"{' and '.join(names)}; or grant create on the database."
            )
        if may is False:
            raise SetupError(
                f"The user may not create tables in the schema {name}. Grant it create and usage on this schema."
            )


def require_no_views(pipeline: Any) -> None:
    """Raise `SetupError` where views stand on tables that a full refresh drops."""
    if pipeline.destination.destination_type != POSTGRES:
        return
    with pipeline.sql_client() as client:
        views = [view for (view,) in client.execute_sql(VIEWS, client.dataset_name, *NAMES)]
    if views:
        raise SetupError(
            f"--full-refresh drops the tables, and views depend on them: {', '.join(views)}. Drop those, run again, then make "
            "them anew; or leave out --full-refresh."
        )
