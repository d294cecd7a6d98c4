"""SQL on a lake: DuckDB over the current files of each table; deletes and updates become commits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient
from dlt.destinations.impl.filesystem.sql_client import FilesystemSqlClient

from .tables import view_query

KEYS = ("id", "change_id")  # what finds a row: the first of them that a table has
STATES_SHOWN = 20  # the newest states; each is a file
LOADS_COLUMNS = (
    "load_id varchar, schema_name varchar, status bigint, inserted_at timestamptz, "
    "schema_version_hash varchar"
)


class LakeSqlClient(FilesystemSqlClient):
    """Reads each table as it is when it is first read, and after an own change."""

    remote_client: Any

    def __init__(self, remote_client: Any, dataset_name: str, *more: Any, **options: Any) -> None:
        super().__init__(remote_client, dataset_name, *more, **options)
        self.staging_dataset_name = remote_client.config.normalize_staging_dataset_name(
            remote_client.schema
        )
        self._global_config["TimeZone"] = "UTC"
        self._unshown: set[str] | None = None  # tables without a view yet

    def open_connection(self) -> Any:
        connection = super().open_connection()
        if self._unshown is None:
            names = self.remote_client.table_names()
            self._unshown = {*names, "_dlt_loads", "_dlt_pipeline_state"}
        return connection

    def create_secret(self, *_: Any, **__: Any) -> bool:
        """Let DuckDB read a bucket through dlt's own filesystem: it needs no extension for that."""
        config = self.remote_client.config
        if not config.is_local_filesystem:
            self._register_filesystem(self.remote_client.fs_client, config.protocol)
        return True

    def show_tables(self, sql: str, otherwise: str = "") -> None:
        """Make views for the tables that a query names; `otherwise`: the query of the view of a table
        that does not exist.
        """
        assert self._unshown is not None
        for name in [name for name in self._unshown if name in sql]:
            self._unshown.discard(name)
            query = self._query_of(name) or otherwise
            if query:
                view = self.make_qualified_table_name(name)
                self._conn.execute(f"create or replace view {view} as {query}")
        if otherwise:
            shown = {
                row[0]
                for row in self._conn.execute("select view_name from duckdb_views()").fetchall()
            }
            for name in re.findall(rf'"{self.dataset_name}"\."(\w+)"', sql):
                if name not in shown:
                    view = self.make_qualified_table_name(name)
                    self._conn.execute(f"create or replace view {view} as {otherwise}")

    def _query_of(self, name: str) -> str | None:
        """The query that reads a table; None if it does not exist."""
        if name == "_dlt_loads":
            return self._loads_query()
        if name == "_dlt_pipeline_state":
            return self._states_query()
        table = self.remote_client.open_table(name)
        if table is None:
            return None
        contents = table.contents()
        return view_query(contents, contents.schema.names)

    def _loads_query(self) -> str | None:
        loads = self.remote_client.completed_loads()
        if not loads:
            return None
        rows = pa.table(
            {"load_id": [load for _, load in loads], "schema_name": [name for name, _ in loads]}
        )
        self._keep("loads_held", rows)
        return (
            "select load_id, schema_name, 0::bigint as status, "
            "to_timestamp(load_id::double) as inserted_at, null::varchar as schema_version_hash from loads_held"
        )

    def _states_query(self) -> str | None:
        files = self.remote_client.state_files()[:STATES_SHOWN]
        if not files:
            return None
        read = self.remote_client.fs_client.read_text
        self._keep(
            "states_held",
            pa.table(
                {
                    "_dlt_load_id": [load_id for load_id, _ in files],
                    "document": [read(path, encoding="utf-8") for _, path in files],
                }
            ),
        )
        texts = ", ".join(
            f"document::json ->> '{name}' as {name}"
            for name in ("pipeline_name", "state", "version", "version_hash", "created_at")
        )
        return f"select {texts}, _dlt_load_id from states_held"

    def _keep(self, name: str, rows: pa.Table) -> None:
        """Keep some rows as a table, which all connections see."""
        self._conn.register(f"{name}_rows", rows)
        self._conn.execute(f"create or replace table {name} as select * from {name}_rows")
        self._conn.unregister(f"{name}_rows")

    @contextmanager
    def execute_query(self, query: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        self.show_tables(query)
        with DuckDbSqlClient.execute_query(self, query, *args, **kwargs) as cursor:
            yield cursor

    def execute_sql(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a statement; a delete or an update of a table becomes a commit."""
        change = re.match(r"\s*(delete|update)\b", sql, re.IGNORECASE)
        if change is None:
            return super().execute_sql(sql, *args, **kwargs)
        return self._change_rows(sql, *args)

    def _change_rows(self, sql: str, *values: Any) -> None:
        import sqlglot
        from sqlglot import exp

        statement = sqlglot.parse_one(sql.replace("%s", "?"), read="duckdb")
        target: exp.Table = statement.this
        where = statement.args.get("where")
        condition = f" {where.sql('duckdb')}" if where else ""
        query = f"select * from {target.sql('duckdb')}"
        if target.db and target.db != self.dataset_name:
            raise DestinationUndefinedEntity(target.name)  # no staging tables
        changes = statement.expressions if isinstance(statement, exp.Update) else []
        replaced = ", ".join(
            f"({one.expression.sql('duckdb')}) as {one.this.sql('duckdb')}" for one in changes
        )
        set_values = replaced.count("?")
        with self.execute_query(query + condition, *values[set_values:]) as cursor:
            held: pa.Table = cursor.arrow()
        if not held.num_rows:
            return
        rows = held.slice(0, 0)
        if replaced:
            with self.execute_query(
                f"select * replace ({replaced}) from ({query}{condition})", *values
            ) as cursor:
                rows = cursor.arrow()
        table = self.remote_client.open_table(target.name)
        schema = table.contents().schema
        key = next(name for name in KEYS if name in schema.names)
        table.commit(key, rows.cast(schema.remove_metadata()), held)
        assert self._unshown is not None
        self._unshown.add(target.name)
