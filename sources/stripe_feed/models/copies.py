"""Open the database of a copy: to build its models, or to read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from ..destination.duckdb_file import duckdb_path, wait_for_file
from ..destination.error_messages import LAKE_PACKAGES
from ..destination.lease import hold_lease
from ..destination.locks import DEFAULT_WAIT, retry_while_locked
from ..destination.pipeline import check_destination, dlt_settings, lock_copy, open_pipeline
from ..destination.place import DEFAULT_DATASET, POSTGRES, models_schema
from ..destination.read import CopyReader, open_reader
from ..destination.state import decode_state, refuse_many, states_query
from ..errors import SetupError, UsageError
from ..resources import CHANGES, RESOURCES
from .database import (
    ModelDatabase,
    client_database,
    existing_relations,
    existing_tables,
    read_results,
)
from .relations import drop_views
from .render import BUILT_IN_TYPES, ModelTarget, load_project
from .run import ModelResult, build_models, describe_missing, missing_tables, render_for

DUCKDB_SETTINGS = (
    "set preserve_insertion_order = false",
    "set memory_limit = '1100MB'",
    "set threads = 2",
    # Writing takes a quarter less time without them, and a third more space.
    "set disabled_compression_methods = 'fsst,rle'",
)


def build_copy_models(
    *,
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DEFAULT_DATASET,
    state_dir: str | None = None,
    selection: Sequence[str] | None = None,
    variables: Mapping[str, Any] | None = None,
    full: bool = False,
    wait: float = DEFAULT_WAIT,
    watch: Callable[[ModelResult], None] = lambda result: None,
) -> list[ModelResult]:
    """Build the models of a copy in its DuckDB file or Postgres database, as `build_models` does.

    Nothing else writes to the copy meanwhile. Raises the errors of `stripe_feed.errors`.
    """
    with dlt_settings():
        pipeline = open_pipeline(database, destination, dataset, state_dir)
        with (
            locked_to_build(pipeline, wait),
            open_connection(pipeline, wait) as models_database,
        ):
            return build_models(
                models_database,
                selection,
                variables,
                full,
                loaded=loaded_tables(stored_state(models_database)),
                watch=watch,
            )


@contextmanager
def locked_to_build(pipeline: Any, wait: float) -> Iterator[None]:
    """Lock a copy against other writers, on this machine and in its database. Raises `SetupError` if
    there is no copy, or its models need dbt.
    """
    require_built_in(pipeline)
    holder = "stripe-feed models build"
    file = duckdb_path(pipeline)
    if file is not None and not file.is_file():
        raise SetupError(
            f"There is no file {file.name} yet. Run `stripe-feed sync` first, or name another --database."
        )
    with lock_copy(pipeline, holder, wait), hold_lease(pipeline, holder, wait):
        retry_while_locked(partial(check_destination, pipeline), wait)
        yield


@contextmanager
def open_connection(pipeline: Any, wait: float) -> Iterator[ModelDatabase]:
    """Open the database of a copy for writing."""
    client = pipeline.sql_client()
    file = duckdb_path(pipeline)
    if file is not None:
        wait_for_file(client, file, wait)
    with client_database(client) as database:
        refuse_many(stored_state(database), "Models need")
        if file is not None:
            for setting in DUCKDB_SETTINGS:
                database.execute(setting)
        yield database


def require_built_in(pipeline: Any) -> None:
    """Raise `SetupError` if the models of a destination need dbt."""
    kind = pipeline.destination.destination_type.rpartition(".")[2]
    if kind not in BUILT_IN_TYPES:
        raise _needs_dbt_error(kind)


def _needs_dbt_error(kind: str) -> SetupError:
    return SetupError(
        f"The built-in runner builds models in {' and '.join(BUILT_IN_TYPES)}, not in {kind}. "
        "Use dbt: `stripe-feed models package` prints the path of the project."
    )


def stored_state(database: ModelDatabase) -> dict[str, Any]:
    """The source's state as stored with the data; empty if there is none."""
    target = database.target
    if "_dlt_pipeline_state" not in existing_tables(database):
        return {}
    query = states_query(lambda table: target.relation(table, target.dataset))
    return decode_state(database.execute(query))


def loaded_tables(state: Mapping[str, Any]) -> frozenset[str]:
    """The raw tables that a sync has read, by the source's state, whether they have rows or not."""
    refuse_many(state, "Models and reports need")
    resources = state.get("resources", {})
    listed = [row for name, row in RESOURCES.items() if "t0" in resources.get(name, {})]
    tables = {row.table for row in listed}
    tables |= {child.table for row in listed for child in row.children}
    return frozenset(tables | ({CHANGES} if tables else set()))


@contextmanager
def open_to_read(
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DEFAULT_DATASET,
    wait: float = DEFAULT_WAIT,
    *,
    lakes: bool = False,
) -> Iterator[ModelDatabase]:
    """Open the models of a copy read-only. Raises `SetupError` if there is no copy, or if it is a
    lake, which holds no built models, unless `lakes` allows it.
    """
    if destination in LAKE_PACKAGES and not lakes:
        raise _needs_dbt_error(destination)
    with open_reader(database, destination, dataset, wait) as copy:
        yield reader_database(copy, dataset)


def reader_database(copy: CopyReader, dataset: str) -> ModelDatabase:
    """The models of a dataset in a copy that is open for reading."""
    ((name,),) = copy.query("select current_database()").rows

    def columns(sql: str) -> list[tuple[str, str]]:
        found = copy.query(f"select * from ({sql}) as described limit 0")
        return [(column, "") for column in found.columns]

    return ModelDatabase(
        ModelTarget(copy.dialect, str(name), dataset, models_schema(dataset)),
        lambda sql: copy.query(sql).rows,
        columns,
        nullcontext,
    )


def release_raw_tables(pipeline: Any) -> list[str]:
    """Drop the views of the models if the destination would not drop a raw table that one reads;
    return their names.
    """
    if pipeline.destination.destination_type != POSTGRES:
        return []
    with client_database(pipeline.sql_client()) as database:
        return drop_views(database, load_project())


def built_relation(database: ModelDatabase, name: str) -> str:
    """The qualified name of a built model, to select from. Raises `UsageError` if it is not built."""
    if name in read_results(database) and name in existing_relations(database):
        return database.target.relation(name)
    raw_tables = existing_tables(database)
    models = render_for(database, load_project(), None, raw_tables)
    if missing := missing_tables(models, raw_tables).get(name):
        raise UsageError(
            f"The model {name} is left out: {describe_missing(missing)}. Load it with `stripe-feed sync "
            f"--resources core,{missing}`, then run `stripe-feed models build +{name}`."
        )
    raise UsageError(
        f"The model {name} is not built. Run `stripe-feed models build +{name}`; `stripe-feed models list` lists all."
    )
