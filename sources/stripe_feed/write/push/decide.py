"""What one row needs: a new object, an update, nothing; or why it cannot be sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...api.forms import path_to
from ...errors import InvalidParameter, NotFound
from ..checks import check_id, check_metadata
from ..lookup.find import Lookup, Object
from ..parameters import Params
from ..unchanged import changed, completed
from .definition import Definition
from .log import LoggedRow, Step
from .mapping import Wanted, params_for, update_only

Action = Literal["create", "update", "delete", "none", "skip", "reject", "settle"]

OPEN = "The outcome of its last request is not known yet: it is found out first."


@dataclass(frozen=True, slots=True)
class Change:
    """One field of an object, before and after."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Decision:
    """What a row needs. `none`: its object is already so. `settle`: the outcome of its last request
    has to be found out first.
    """

    key: str
    action: Action
    object_id: str | None = None
    steps: tuple[Step, ...] = ()
    changes: tuple[Change, ...] = ()
    reason: str = ""
    content: str | None = None
    notes: tuple[str, ...] = field(default=())


def decide(lookup: Lookup, push: Definition, wanted: Wanted, logged: LoggedRow | None) -> Decision:
    """Look up the object of a row, and say what it needs. Raises `InvalidParameter` for a row that
    cannot be sent.
    """
    content, noun = wanted.content, push.row.noun
    if push.mode == "insert" and logged is not None and logged.object_id:
        return Decision(wanted.key, "skip", logged.object_id, reason="It was inserted before.")
    held = find_object(lookup, push, wanted, logged)
    if held is None:
        if push.mode == "update":
            return Decision(wanted.key, "skip", reason=f"No {noun} matches.")
        return _creation(push, wanted)
    if push.mode == "insert":
        return Decision(
            wanted.key, "none", held["id"], reason=f"A {noun} matches already.", content=content
        )
    params = update_params(push, wanted, held)
    if not params:
        return Decision(wanted.key, "none", held["id"], content=content)
    step = Step("update", "post", path_to(push.row.verbs["update"].path, held["id"]), params)
    return Decision(
        wanted.key, "update", held["id"], (step,), tuple(changes(held, params)), content=content
    )


def _creation(push: Definition, wanted: Wanted) -> Decision:
    params = params_for(push, wanted, "create")
    steps = [Step("create", "post", push.row.path, params)]
    if later := update_only(push, wanted):
        steps.append(Step("update", "post", push.row.verbs["update"].path.format(id="{0}"), later))
    shown = (Change(name, None, value) for name, value in leaves({**params, **later}))
    return Decision(wanted.key, "create", None, tuple(steps), tuple(shown), content=wanted.content)


def update_params(push: Definition, wanted: Wanted, held: Object) -> Params:
    """What is left to be sent for an object to become what a row says."""
    params = params_for(push, wanted, "update")
    check_metadata(params.get("metadata"), held.get("metadata"))
    return changed(completed(params, held, wanted.given), held)


def find_object(
    lookup: Lookup, push: Definition, wanted: Wanted, logged: LoggedRow | None
) -> Object | None:
    """The object of a row: the one that it was before, else the one that matches."""
    if logged is not None and logged.object_id:
        held = get(lookup, push, logged.object_id)
        if held is not None:
            return held
    if push.match is None:
        return None
    value = wanted.given.get(push.match)
    if value in (None, ""):
        raise InvalidParameter(f"{push.match} is empty, and rows match on it.", push.match)
    if push.match == "id":
        return get(lookup, push, check_id(push.row, value))
    found = lookup.find(push.row, {push.match: value}, push.mode != "update").objects
    if len(found) > 1 and push.if_several == "error":
        ids = ", ".join(sorted(str(item["id"]) for item in found)[:5])
        raise InvalidParameter(
            f"{len(found)} {push.row.noun}s match on {push.match} ({ids}). "
            "Match on something unique, or choose with if_several: newest or oldest."
        )
    by_age = sorted(found, key=lambda item: (item.get("created") or 0, str(item["id"])))
    return by_age[-1 if push.if_several == "newest" else 0] if by_age else None


def get(lookup: Lookup, push: Definition, object_id: str) -> Object | None:
    """One object, if it exists."""
    try:
        held = lookup.get(push.row, object_id).value
    except NotFound:
        return None
    return None if held.get("deleted") else held


def changes(held: Mapping[str, Any], params: Params) -> Iterator[Change]:
    """Every field that an update changes, before and after; an empty text after unsets it."""
    for name, after in leaves(params):
        before: Any = held
        for part in name.split(".", 1) if name.startswith("metadata.") else name.split("."):
            before = before.get(part) if isinstance(before, Mapping) else None
        if before != after:
            yield Change(name, before, None if after == "" else after)


def leaves(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested parameters by dotted name; a list is one value."""
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
