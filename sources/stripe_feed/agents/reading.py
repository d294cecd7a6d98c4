"""Tools that read the copy: SQL, tables, changes, and why a change did or did not fire."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from ..destination.read import KNOWN_TABLES, CopyReader, QueryResult, copy_status, run_query
from ..errors import UsageError
from ..feed.change import Change, iso
from ..feed.filters import OPS
from ..feed.paths import value_at
from ..resources import FEED_RESOURCES, TABLES
from ..resources.push_tables import PUSH_TABLES
from ..triggers.config import read_triggers
from ..triggers.models.explain import explain
from .place import WAIT, AgentContext
from .tool import Answer, Arguments, Schema, Tool, arguments_schema

MAX_ROWS, DEFAULT_ROWS = 1_000, 100
_MAX_CHANGES, DEFAULT_CHANGES = 200, 20
QUERY_SECONDS = 20.0
LARGEST = 2**63


def reading_tools(place: AgentContext, seconds: float = QUERY_SECONDS) -> list[Tool]:
    """The tools that read the copy and its feed; no request to Stripe."""
    return [
        Tool(
            "query",
            "Run one SQL query on the copy of the Stripe account. It only reads. Amounts are integers in minor "
            "units (cents) beside their currency; deleted objects have deleted_at. `tables` names the columns.",
            arguments_schema(
                ("sql",), sql={"type": "string"}, limit=_count(MAX_ROWS, DEFAULT_ROWS, "rows")
            ),
            partial(_query, place, seconds),
        ),
        Tool(
            "tables",
            "List the tables of the copy, how many rows they have and how fresh they are; or the columns of one.",
            arguments_schema(table={"enum": list(KNOWN_TABLES)}),
            partial(_tables, place),
        ),
        Tool(
            "changes",
            "List the newest changes of the account, oldest first, with old and new values. `explain` has the rest.",
            arguments_schema(
                (), **_FILTERS, limit=_count(_MAX_CHANGES, DEFAULT_CHANGES, "changes")
            ),
            partial(_changes, place),
        ),
        Tool(
            "explain",
            "Show one change whole, before and after, and why each trigger did or did not fire for it.",
            arguments_schema(("change_id",), change_id={"type": "string"}),
            partial(_explain, place),
        ),
    ]


def _count(most: int, default: int, what: str) -> Schema:
    return {
        "type": "integer",
        "minimum": 1,
        "maximum": most,
        "default": default,
        "description": f"How many {what} at most.",
    }


_FILTERS: dict[str, Schema] = {
    "resource": {"enum": list(FEED_RESOURCES)},
    "op": {"enum": [name for name in OPS if len(name) > 1], "description": "The kind of change."},
    "customer": {"type": "string", "description": "Only of this customer, such as cus_123."},
    "changed": {
        "type": "string",
        "description": "Only changes of this field, such as status or metadata.plan.",
    },
    "origin_push": {
        "type": "boolean",
        "description": "false leaves out what stripe-feed itself wrote.",
    },
}


def _query(place: AgentContext, seconds: float, arguments: Arguments) -> Answer:
    limit = arguments.get("limit", DEFAULT_ROWS)
    with place.copy() as copy, _time_limit(copy, seconds):
        found = run_query(copy, arguments["sql"], limit + 1)
    rows = [list(row) for row in _json_rows(found)]
    return Answer({"columns": found.columns, "rows": rows[:limit], "has_more": len(rows) > limit})


@contextmanager
def _time_limit(copy: CopyReader, seconds: float) -> Iterator[None]:
    """Cancel what runs longer. Raises `UsageError` for it."""
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        copy.cancel()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except UsageError:
        if not is_over.is_set():
            raise
        raise UsageError(
            f"The query took longer than {seconds:g} seconds and was cancelled. Ask for less."
        ) from None
    finally:
        timer.cancel()


def _json_rows(found: QueryResult) -> Iterator[Iterator[Any]]:
    are_json = [name in found.json for name in found.columns]
    for row in found.rows:
        yield (_plain(value, is_json) for value, is_json in zip(row, are_json, strict=True))


def _plain(value: Any, is_json: bool) -> Any:
    if is_json and isinstance(value, str):
        return json.loads(value)
    if isinstance(value, int) and not -LARGEST <= value < LARGEST:
        return str(value)  # JSON readers would round it
    return value


def _tables(place: AgentContext, arguments: Arguments) -> Answer:
    table = arguments.get("table")
    if table is not None:
        return Answer({"table": table, "columns": _columns(place, table)})
    status = copy_status(place.database, place.destination, place.dataset, place.state_dir, WAIT)
    return Answer(
        {
            "account": status.account_id,
            "livemode": status.livemode,
            "loaded_at": status.loaded_at,
            "tables": [msgspec.to_builtins(table) for table in status.tables],
            "events_read_until": {one.resource: one.followed for one in status.cursors},
        }
    )


def _columns(place: AgentContext, table: str) -> list[dict[str, Any]]:
    """The columns that there are, with what is known of them."""
    described = TABLES.get(table) or PUSH_TABLES.get(table)
    known = {column.name: column for column in described.columns} if described else {}
    with place.copy() as copy:
        names = run_query(copy, f"select * from {copy.table_name(table)} limit 0").columns
    return [
        {"name": name, "type": known[name].kind, "description": known[name].description}
        if name in known
        else {"name": name}
        for name in names
    ]


def _changes(place: AgentContext, arguments: Arguments) -> Answer:
    filters = {name: value for name, value in arguments.items() if name != "limit"}
    with place.feed() as feed:
        newest = feed.tail(arguments.get("limit", DEFAULT_CHANGES), **filters)
        return Answer({"changes": [_summary(change) for change in newest], "head": feed.head})


def _summary(change: Change) -> dict[str, Any]:
    before = change.before
    return {
        "change_id": change.change_id,
        "offset": change.offset,
        "resource": change.resource,
        "object_id": change.object_id,
        "customer_id": change.customer_id,
        "op": change.op,
        "event_type": change.event_type,
        "occurred_at": iso(change.occurred_at),
        "origin_push": change.origin_push,
        "changed": {
            path: {"before": value_at(before, path), "after": value_at(change.after, path)}
            for path in change.changed
        },
    }


def _explain(place: AgentContext, arguments: Arguments) -> Answer:
    change_id = arguments["change_id"]
    rules = read_triggers(place.triggers) if Path(place.triggers).exists() else []
    with place.feed() as feed:
        explained = explain(feed, rules, change_id)
        change = feed.store.by_id(change_id)
    return Answer({"change": change and change.as_dict(), "triggers": explained})
