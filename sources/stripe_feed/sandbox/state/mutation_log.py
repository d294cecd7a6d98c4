"""Read one object, and report its changes to the observers."""

from __future__ import annotations

from ..samples.values import Object
from .account import Account
from .kinds import KINDS, Operation


def read_object(account: Account, table: str, id: str) -> Object:
    row = account.tables[table].rows.get(id)
    if row is None:
        raise KeyError(f"no such {KINDS[table].object}: {id}")
    return row.content()


def check_table(table: str) -> None:
    if table not in KINDS:
        raise ValueError(f"no such table: {table}; tables are {', '.join(KINDS)}")


def price_and_plan(account: Account, id: str) -> dict[str, Object]:
    """A price and its plan, as far as they exist."""
    return {
        table: read_object(account, table, id)
        for table in ("plans", "prices")
        if id in account.tables[table].rows
    }


def record(
    account: Account,
    operation: Operation,
    table: str,
    before: Object | None,
    after: Object | None,
    more: tuple[str, ...] = (),
    hidden: bool = False,
    instead: tuple[str, ...] = (),
) -> None:
    """Report a change. `more` are last parts of further event types, `instead` those of the types
    that stand for the operation's own.
    """
    id, kind = (after or before or {})["id"], KINDS[table]
    own = tuple(map(kind.event_type, instead)) or kind.types(operation)
    events = own + tuple(map(kind.event_type, more))
    account.commit(operation, table, id, before, after, events, hidden)


def record_price(
    account: Account, operation: Operation, id: str, before: dict[str, Object]
) -> None:
    after = price_and_plan(account, id)
    for table in {**before, **after}:
        record(account, operation, table, before.get(table), after.get(table))
