"""What the destination says of itself: the source's state as it is stored with the data, and whose
rows it holds.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ..api.client import Account
from ..errors import WrongAccount


def source_state(client: Any) -> dict[str, Any]:
    """The source's state as it is stored with the data: cursors, account, mode, API version; empty
    where there is none.
    """
    return state_in(select_rows(client, states_query(partial(table_name, client)), most=10))


def states_query(name: Callable[[str], str]) -> str:
    """The query for the states of completed loads, the newest first; `name` says what a table is
    called in it.
    """
    return (
        f"select s.state from {name('_dlt_pipeline_state')} s join {name('_dlt_loads')} l "
        "on l.load_id = s._dlt_load_id where l.status = 0 order by l.load_id desc"
    )


def state_in(rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """The source's part of the first of these states that has one."""
    for (packed,) in rows:
        sources = json.loads(zlib.decompress(base64.b64decode(packed))).get("sources", {})
        if "stripe" in sources:
            found: dict[str, Any] = sources["stripe"]
            return found
    return {}


def owner_in(
    state: Mapping[str, Any], client: Any, tables: Sequence[str]
) -> tuple[str, bool] | None:
    """The account whose rows the dataset holds, and whether they are live; asked of the rows where
    the source's state does not say. Nothing for an empty dataset.
    """
    if "account" in state:
        return state["account"], state["livemode"]
    with client:
        for table in tables if client.has_dataset() else ():
            query = f"select distinct account_id, livemode from {table_name(client, table)}"
            for account_id, livemode in select_rows(client, query):
                return str(account_id), bool(livemode)
    return None


def check_owner(account: Account, owner: tuple[str, bool] | None) -> None:
    """Raise `WrongAccount` if the dataset holds another account's rows or the other mode's."""
    if owner is None or owner == (account.id, account.livemode):
        return
    theirs, ours = _account_and_mode(*owner), _account_and_mode(account.id, account.livemode)
    raise WrongAccount(
        f"The dataset holds {theirs}, but the key is for {ours}. Use another --dataset or the other key."
    )


def _account_and_mode(account_id: str, livemode: bool) -> str:
    return f"account {account_id} in {'live' if livemode else 'test'} mode"


def table_name(client: Any, table: str) -> str:
    """The qualified name of a table."""
    return str(client.make_qualified_table_name(table))


def select_rows(
    client: Any, query: str, *values: Any, most: int | None = None
) -> list[tuple[Any, ...]]:
    """All rows of a small answer, or the first of a long one; none if the table does not exist."""
    try:
        with client.execute_query(query, *values) as cursor:
            rows: list[tuple[Any, ...]] = (
                cursor.fetchall() if most is None else cursor.fetchmany(most)
            )
            return rows
    except Exception as fault:
        if not is_missing(fault):
            raise
        return []


def is_missing(fault: Exception) -> bool:
    """Whether a destination says that a table or a dataset does not exist."""
    from dlt.common.destination.exceptions import DestinationUndefinedEntity

    return isinstance(fault, DestinationUndefinedEntity)
