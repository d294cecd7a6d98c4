"""Read from the destination: the source's state as stored with the data, and whose rows it holds."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

from ..api.account import Account
from ..api.credentials import check_account
from ..errors import SetupError, WrongAccount


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
        for table in (*tables, "push_runs") if tables and client.has_dataset() else ():
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
    if MANY in owner[0] and MANY not in account.id:
        raise WrongAccount(
            f"The dataset holds {stored}, and this needs one of a single account. "
            "Load the account into one of its own: `stripe-feed sync --account acct_...`."
        )
    raise WrongAccount(
        f"The dataset holds {stored}, but the key is for {requested}. Use another --dataset or the other key."
    )


def _account_and_mode(account_id: str, livemode: bool) -> str:
    platform, is_many, _ = account_id.partition(MANY)
    whose = f"the accounts connected to {platform}" if is_many else f"account {account_id}"
    return f"{whose} in {'live' if livemode else 'test'} mode"


# in the source's state of a shared dataset: account -> what its own source's state would be
ACCOUNTS = "accounts"
MANY = "/accounts"  # behind the platform's id: the owner of such a dataset


def owner_of_many(platform: Account) -> Account:
    """Who owns a dataset with the accounts that are connected to a platform: neither the platform nor
    any of them, so that no command for one account takes it for its own.
    """
    return Account(platform.id + MANY, platform.livemode, platform.created)


def stored_owner_of_many(state: Mapping[str, Any]) -> tuple[str, bool] | None:
    """What `stored_owner` returns, for a dataset of several accounts: rows tell an account, but not to
    which platform it is connected. A first load that was killed has rows and no state.
    """
    return (state["account"], state["livemode"]) if "account" in state else None


def refuse_many(state: Mapping[str, Any], what: str) -> None:
    """Raise `SetupError` for a dataset of several accounts; `what` needs one of a single account."""
    if ACCOUNTS in state:
        raise SetupError(
            f"{what} a dataset of one account, and this one holds several. "
            "Load the account into one of its own: `stripe-feed sync --account acct_...`."
        )


class AccountClient:
    """A SQL client of dlt that sees the rows of one account, in the tables that several share.

    What a query reads is named by `table_name`; what a statement changes by `rows_to_change`. The
    client is open already: entering and leaving does nothing.
    """

    def __init__(self, client: Any, account: str, shared: Collection[str]) -> None:
        self._client, self._shared = client, frozenset(shared)
        self.condition = f"account_id = '{check_account(account)}'"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def __enter__(self) -> AccountClient:
        return self

    def __exit__(self, *fault: Any) -> None:
        pass

    def make_qualified_table_name(self, table: str) -> str:
        """The rows of the account in a table, for `from` and `join`."""
        name = self.stored_name(table)
        return f"(select * from {name} where {self.condition})" if table in self._shared else name

    def stored_name(self, table: str) -> str:
        """The qualified name of the table itself."""
        return str(self._client.make_qualified_table_name(table))


def table_name(client: Any, table: str) -> str:
    """The qualified name of a table, for `from` and `join`."""
    return str(client.make_qualified_table_name(table))


def rows_to_change(client: Any, table: str) -> tuple[str, str]:
    """The qualified name of a table for `update` and `delete`, and the beginning of their condition:
    of a table that several accounts share, only the rows of one.
    """
    if isinstance(client, AccountClient):
        return client.stored_name(table), f"{client.condition} and "
    return table_name(client, table), ""


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
