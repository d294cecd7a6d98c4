"""A change of the account, and a request that was answered."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..samples.values import Object
from .kinds import Operation


class Mutation(NamedTuple):
    """One change of one object; `events` are the types of the events that it causes."""

    operation: Operation
    table: str
    id: str
    before: Object | None
    after: Object | None
    events: tuple[str, ...]
    at: int
    hidden: bool = False  # whether children changed that `before` and `after` do not show


class LoggedRequest(NamedTuple):
    """One request that was answered."""

    method: str
    template: str
    params: dict[str, Any]
    status: int
