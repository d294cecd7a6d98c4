"""Reading one object, and telling the observers what happened to it."""

from __future__ import annotations

from ..samples.customers import Object
from .account import NAMES, Account
from .mutation import Kind

EVENT_OF = {
    "customers": "customer",
    "subscriptions": "customer.subscription",
    "invoices": "invoice",
    "products": "product",
    "plans": "plan",
    "prices": "price",
}


def content(account: Account, table: str, id: str) -> Object:
    row = account.tables[table].rows.get(id)
    if row is None:
        raise KeyError(f"no such {NAMES[table]}: {id}")
    return row.content()


def known(table: str) -> None:
    if table not in NAMES:
        raise ValueError(f"no such table: {table}; there are {', '.join(NAMES)}")


def sides(account: Account, id: str) -> dict[str, Object]:
    """A price as both of its tables show it."""
    return {
        table: content(account, table, id)
        for table in ("plans", "prices")
        if id in account.tables[table].rows
    }


def tell(
    account: Account,
    kind: Kind,
    table: str,
    before: Object | None,
    after: Object | None,
    event: str,
    more: tuple[str, ...] = (),
    hidden: bool = False,
) -> None:
    id = (after or before or {})["id"]
    events = (f"{EVENT_OF[table]}.{event}", *(more if table == "invoices" else ()))
    account.commit(kind, table, id, before, after, events, hidden)


def tell_price(account: Account, kind: Kind, id: str, before: dict[str, Object]) -> None:
    after = sides(account, id)
    for table in {**before, **after}:
        tell(account, kind, table, before.get(table), after.get(table), kind)
