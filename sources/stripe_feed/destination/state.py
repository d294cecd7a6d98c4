"""Read from the destination: the source's state as stored with the data, and whose rows it holds."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

from ..api.account import Account
from ..errors import WrongAccount


def read_source_state(client: Any) -> dict[str, Any]:
    """Read the source's state as stored with the data: cursors, account, mode, API version. Empty if
    there is none.
    """
    return decode_state(select_rows(client, states_query(partial(table_name, client)), limit=10))


def states_query(name: Callable[[str], str]) -> str:
    """The query for the states of completed loads, newest first; `name` qualifies a table's name."""
    return (
        f"select s.state from {name('_dlt_pipeline_state')} s join {name('_dlt_loads')} l "
        "on l.load_id = s._dlt_load_id where l.status = 0 order by l.load_id desc"
    )


def decode_state(rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """Decode the source's part of the first of these states that has one."""
    for (packed,) in rows:
        sources = json.loads(zlib.decompress(base64.b64decode(packed))).get("sources", {})
        if "stripe" in sources:
            source_state: dict[str, Any] = sources["stripe"]
            return source_state
    return {}


def stored_owner(
    state: Mapping[str, Any], client: Any, tables: Sequence[str]
) -> tuple[str, bool] | None:
    """The account whose rows the dataset holds, and whether they are live: from the source's state,
    else from the rows of these tables, and of the runs of pushes. None for an empty dataset.
    """
    from dlt.destinations.exceptions import DatabaseTerminalException

    if "account" in state:
        return state["account"], state["livemode"]
    with client:
        for table in (*tables, "push_runs") if client.has_dataset() else ():
            query = f"select distinct account_id, livemode from {table_name(client, table)}"
            is_theirs = suppress(DatabaseTerminalException)  # then it has other columns
            with nullcontext() if table in tables else is_theirs:
                for account_id, livemode in select_rows(client, query):
                    return str(account_id), bool(livemode)
    return None


def check_owner(account: Account, owner: tuple[str, bool] | None) -> None:
    """Raise `WrongAccount` if the dataset holds another account's rows or the other mode's."""
    if owner is None or owner == (account.id, account.livemode):
        return
    stored, requested = _account_and_mode(*owner), _account_and_mode(account.id, account.livemode)
    raise WrongAccount(
        f"The dataset holds {stored}, but the key is for {requested}. Use another --dataset or the other key."
    )


def _account_and_mode(account_id: str, livemode: bool) -> str:
    return f"account {account_id} in {'live' if livemode else 'test'} mode"


def table_name(client: Any, table: str) -> str:
    """The qualified name of a table."""
    return str(client.make_qualified_table_name(table))


def select_rows(
    client: Any, query: str, *values: Any, limit: int | None = None
) -> list[tuple[Any, ...]]:
    """The rows of a query, at most `limit`; none if the table does not exist."""
    try:
        with client.execute_query(query, *values) as cursor:
            rows: list[tuple[Any, ...]] = (
                cursor.fetchall() if limit is None else cursor.fetchmany(limit)
            )
            return rows
    except Exception as fault:
        if not is_missing_table(fault):
            raise
        return []


def is_missing_table(fault: Exception) -> bool:
    """Whether a destination's error means that a table or a dataset does not exist."""
    from dlt.common.destination.exceptions import DestinationUndefinedEntity

    return isinstance(fault, DestinationUndefinedEntity)
