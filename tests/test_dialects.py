"""The merges that dlt writes for warehouses nobody here has: each statement is one that its dialect
can read. Needs their drivers: `make test-engines`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlglot
from dlt.common.destination import Destination
from dlt.common.schema import Schema
from dlt.destinations.sql_jobs import SqlMergeFollowupJob
from sqlglot import exp

from stripe_feed.destination.pipeline import require_merge
from stripe_feed.extract.tables.changes import change_hints
from stripe_feed.extract.tables.codec import TableCodec
from stripe_feed.extract.tables.hints import (
    newer_wins,
    replace_children,
    table_hints,
    table_names,
)
from stripe_feed.resources import CHANGES, RESOURCES
from tests.stores import PARSED, REFUSED

pytestmark = pytest.mark.engines

CREDENTIALS = {
    "bigquery": {"PROJECT_ID": "p", "PRIVATE_KEY": "k", "CLIENT_EMAIL": "a@example.org", "TOKEN_URI": "https://example.org"},
    "snowflake": {"DATABASE": "d", "USERNAME": "u", "PASSWORD": "p", "HOST": "h"},
    "motherduck": {"DATABASE": "d", "PASSWORD": "t"},
    "redshift": {"DATABASE": "d", "USERNAME": "u", "PASSWORD": "p", "HOST": "h"},
    "databricks": {"SERVER_HOSTNAME": "h", "HTTP_PATH": "/x", "ACCESS_TOKEN": "t", "CATALOG": "c"},
    "clickhouse": {"DATABASE": "d", "USERNAME": "u", "PASSWORD": "p", "HOST": "h"},
    "synapse": {"DATABASE": "d", "USERNAME": "u", "PASSWORD": "p", "HOST": "h", "DRIVER": "ODBC Driver 18 for SQL Server"},
    "mssql": {"DATABASE": "d", "USERNAME": "u", "PASSWORD": "p", "HOST": "h", "DRIVER": "ODBC Driver 18 for SQL Server"},
}  # fmt: skip
"""Nobody is asked: a client that only writes SQL opens no connection."""


@pytest.fixture(params=PARSED)
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """dlt's client of a warehouse, with the tables of the core."""
    name = request.param
    for key, value in CREDENTIALS[name].items():
        monkeypatch.setenv(f"DESTINATION__{name.upper()}__CREDENTIALS__{key}", value)
    schema = Schema("stripe")
    destination: Any = Destination.from_reference(name)
    config = destination.spec()._bind_dataset_name(dataset_name="stripe")
    found = destination.client(schema, config)
    kind = destination.destination_type
    for resource in RESOURCES.values():
        if resource.group == "core":
            for hints in hints_of(resource, found.sql_client, kind):
                schema.update_table(_as_table(hints))
    schema.update_table(_as_table(change_hints(kind)))
    return found


def hints_of(resource: Any, sql_client: Any, kind: str) -> Iterator[dict[str, Any]]:
    codec = TableCodec(resource)
    names = table_names(sql_client, resource.table)
    yield table_hints(codec, None, kind) | {"write_disposition": newer_wins(names)}
    for child, child_codec in codec.children:
        merge = replace_children(child, names, table_names(sql_client, child.table))
        yield table_hints(child_codec, child, kind) | {"write_disposition": merge}


def _as_table(hints: dict[str, Any]) -> Any:
    """dlt's table of these hints, as its own resources make it."""
    import dlt

    made = {key: value for key, value in hints.items() if key != "table_name"}
    resource = dlt.resource([], name=hints["table_name"], **made)
    return resource.compute_table_schema()


def statements(client: Any, table: str, patch: pytest.MonkeyPatch) -> list[str]:
    """What dlt would run to merge a table."""
    written: list[str] = []
    real: Any = SqlMergeFollowupJob.generate_sql
    real = real.__func__

    def noted(cls: Any, chain: Any, sql_client: Any) -> list[str]:
        found: list[str] = real(cls, chain, sql_client)
        written.extend(found)
        return found

    with patch.context() as within:
        within.setattr(SqlMergeFollowupJob, "generate_sql", classmethod(noted))
        client._create_merge_followup_jobs([client.prepare_load_table(table)])
    return written


def test_every_statement_of_a_merge_is_read_in_its_dialect(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No statement is taken for an unknown command, and the conditions are in it."""
    dialect = client.capabilities.sqlglot_dialect
    tables = [name for name in client.schema.tables if not name.startswith("_dlt")]
    assert {"customers", "subscription_items", CHANGES} <= set(tables)
    for table in tables:
        found = statements(client, table, monkeypatch)
        parsed = [sqlglot.parse_one(one.rstrip(";"), read=dialect) for one in found]
        assert not [one for one in parsed if isinstance(one, exp.Command)], table
        assert {exp.Delete, exp.Insert} <= {type(one) for one in parsed}, table
        if table != CHANGES:
            reads = [one for one in parsed if one.find(exp.Exists) or one.find(exp.Not)]
            assert len(reads) >= 2, table


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_merge_is_refused(name: str) -> None:
    from stripe_feed.errors import SetupError

    with pytest.raises(SetupError, match="cannot merge"):
        require_merge(Destination.from_reference(name))
