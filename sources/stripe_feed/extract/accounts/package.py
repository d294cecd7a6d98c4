"""The package that a thread reads into: dlt's own, or the part of one account in a package of several.

A thread that reads one account of a shared dataset sees the state, the resources and the rows of this
account alone; everything else is as in a dataset of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import dlt
from dlt.common.configuration.container import Container
from dlt.common.storages.load_package import LoadPackageStateInjectableContext
from dlt.extract.source import SourceInjectableContext


@dataclass(frozen=True, slots=True)
class AccountPart:
    """The part of one account in a package.

    `state`: what the source's state is to an account with a dataset of its own. `client`: a SQL
    client that sees the rows of the account alone. `columns`: those of each stored table.
    """

    load_id: str
    state: dict[str, Any]
    selected: Sequence[str]
    client: Any
    destination: str
    tables_without_rows: frozenset[str]
    columns: Mapping[str, Mapping[str, Any]]


_part: ContextVar[AccountPart | None] = ContextVar("account_part", default=None)


@contextmanager
def reading(part: AccountPart) -> Iterator[None]:
    """Read into the part of an account, in this thread."""
    entered = _part.set(part)
    try:
        yield
    finally:
        _part.reset(entered)


def account_part() -> AccountPart | None:
    """The part of an account that this thread reads into; None in a package of one account."""
    return _part.get()


def source_state() -> dict[str, Any]:
    """The state of the source: account, mode, and the states of its resources."""
    part = _part.get()
    state: dict[str, Any] = dlt.current.source_state() if part is None else part.state
    return state


def resource_state(name: str) -> dict[str, Any]:
    """The state of the resource that runs, which is this one."""
    part = _part.get()
    if part is None:
        own: dict[str, Any] = dlt.current.resource_state()
        return own
    state: dict[str, Any] = part.state.setdefault("resources", {}).setdefault(name, {})
    return state


def selected_resources() -> list[str]:
    """The names of the resources that this package reads."""
    part = _part.get()
    if part is not None:
        return list(part.selected)
    return list(Container()[SourceInjectableContext].source.resources.selected)


def selected_resource(name: str) -> Any:
    """The dlt resource of this name; None in a package of several accounts."""
    if _part.get() is not None:
        return None
    return Container()[SourceInjectableContext].source.resources.get(name)


def stored_columns(table: str) -> Mapping[str, Any]:
    """The columns of a table that a package has brought before; empty if none has."""
    part = _part.get()
    if part is not None:
        return part.columns.get(table, {})
    columns: Mapping[str, Any] = (
        dlt.current.source_schema().tables.get(table, {}).get("columns", {})
    )
    return columns


def load_id() -> str:
    """The id of the load; empty if nothing is loaded."""
    part = _part.get()
    if part is not None:
        return part.load_id
    if LoadPackageStateInjectableContext not in Container():
        return ""
    id: str = dlt.current.load_package_state()["load_id"]
    return id
