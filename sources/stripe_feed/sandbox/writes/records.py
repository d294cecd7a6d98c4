"""Objects read for a write, and changed by it."""

from __future__ import annotations

from ..protocol.errors import Refusal, missing
from ..protocol.parameters import Params
from ..samples.customers import Object
from ..state import mutations
from ..state.kinds import KINDS
from ..world import World
from .metadata import merged

ADDRESS = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))


def addressed(account: World, table: str, id: str) -> Object:
    """The object that a path names; 404 if there is none."""
    return _found(account, table, id, "id", 404)


def referenced(account: World, table: str, id: str, param: str) -> Object:
    """The object that a parameter names; 400 if there is none."""
    return _found(account, table, id, param, 400)


def _found(account: World, table: str, id: str, param: str, status: int) -> Object:
    row = account.tables[table].rows.get(id)
    if row is None:
        twin = "" if account.other_mode.get(table) != id else "test" if account.livemode else "live"
        raise missing(KINDS[table].object, id, param, status, twin)
    return row.content()


def add(account: World, table: str, fields: Object) -> Object:
    return mutations.create(account, table, fields)


def change(account: World, table: str, id: str, fields: Object) -> Object:
    return mutations.update(account, table, id, fields)


def stub(object: str, id: str) -> Object:
    return {"id": id, "object": object, "deleted": True}


def filled(before: Object | None, given: Params | None, empty: Object) -> Object | None:
    """A hash with all of its fields: those given, else those of before. None unsets it."""
    return None if given is None else empty | (before or {}) | given


def with_metadata(before: Object, given: Params) -> Params:
    """The parameters with the metadata that they lead to."""
    if "metadata" not in given:
        return given
    return given | {"metadata": merged(before.get("metadata") or {}, given["metadata"])}


def needs_one(given: Params, *names: str) -> str:
    """Which one of these is given; refuses two."""
    there = [name for name in names if given.get(name) is not None]
    if len(there) > 1:
        raise Refusal(
            400,
            f"You may only specify one of these parameters: {', '.join(names)}.",
            "parameters_exclusive",
        )
    return there[0] if there else ""
