"""Which changes a consumer wants: by resource, kind, transition of a field, and changed paths."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

from ..errors import UsageError
from ..resources import RESOURCES
from ..resources.model import fields
from .change import Change
from .paths import outer, plain, value_at

OPS = {"c": "c", "u": "u", "d": "d", "r": "r", "added": "c", "updated": "u", "removed": "d"}
UNASKED = ("c", "u", "d")  # a snapshot's reads would fire for every object
ORIGINS = ("event", "diff", "list", "snapshot")

Names = str | Collection[str] | None
Value = Any  # a JSON value, several of them, None for null or absent, `...` or "*" for anything
Transition = Mapping[str, Sequence[Value]] | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """`resources` (none: all) and `ops` are looked up in the store; `matches` decides on the change
    itself. `fetch` reads at once what it looks up beside some changes.
    """

    resources: tuple[str, ...]
    ops: tuple[str, ...]
    matches: Callable[[Change], bool]
    fetch: Callable[[Sequence[Change]], object] = lambda changes: None

    def among(self, changes: Sequence[Change]) -> list[Change]:
        """Those of some changes that match."""
        self.fetch(changes)
        return [one for one in changes if self.matches(one)]


def wanted(
    resource: Names = None,
    op: Names = None,
    transition: Transition = None,
    changed: Names = None,
    origin: Names = None,
    customer: Names = None,
) -> Wanted:
    """Compile the filters. Raises `UsageError` for names and forms that do not exist.

    `transition` maps a dotted path to (from, to), and all its entries must hold: `{"status":
    ("active", "past_due")}`. Each side is a value, a list of values, None for null or absent, `...`
    or "*" for anything. Only an update whose value at the path really changed matches; where the
    value before is unknown, only "anything" does. `changed`: paths; one of them, or something below
    it, changed. `origin`: of `ORIGINS`. `customer`: ids.
    """
    sides = {plain(path): _sides(path, pair) for path, pair in (transition or {}).items()}
    paths = [plain(path) for path in _names(changed)]
    origins, customers = _chosen(origin, ORIGINS, "origin"), _names(customer)

    def matches(change: Change) -> bool:
        if (origins and change.origin not in origins) or (
            customers and change.customer_id not in customers
        ):
            return False
        if sides and not all(_moved(change, path, old, new) for path, (old, new) in sides.items()):
            return False
        return not paths or any(_touched(change, path) for path in paths)

    return Wanted(_resources(resource), _ops(op), matches)


def unheard_of(resource: Names, paths: Iterable[str]) -> list[str]:
    """Those of the paths that begin with no field that these resources have in the API version that
    is loaded.
    """
    known = {"object"}.union(
        *(fields(RESOURCES[table]) for table in _resources(resource) or RESOURCES)
    )
    return [path for path in paths if plain(path).partition(".")[0] not in known]


def _names(names: Names) -> tuple[str, ...]:
    return () if names is None else (names,) if isinstance(names, str) else tuple(names)


def both(one: Wanted, other: Wanted) -> Wanted:
    """What two filters want."""
    return Wanted(
        one.resources or other.resources,
        one.ops,
        lambda change: (
            (not other.resources or change.resource in other.resources)
            and change.op in other.ops
            and one.matches(change)
            and other.matches(change)
        ),
        lambda changes: (one.fetch(changes), other.fetch(changes)),
    )


def transitions(texts: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """`status:active:past_due` as path, from and to; `*` is anything, `null` is null, `a,b` is one
    of both. Raises `UsageError` for other forms.
    """
    found = {}
    for text in texts:
        path, rest = outer(text)  # a colon in quotes is part of a name
        sides = rest.split(":")
        if len(sides) != 3 or not path or sides[0] or not sides[1] or not sides[2]:
            raise UsageError(
                f"transition takes FIELD:FROM:TO, such as status:active:past_due, not {text[:80]!r}."
            )
        found[path] = (_values(sides[1]), _values(sides[2]))
    return found


def _values(text: str) -> list[Value]:
    """A word as itself, and as the number or truth value that it may stand for."""
    return [value for word in text.split(",") for value in _readings(word)]


def _readings(word: str) -> list[Value]:
    if word == "null":
        return [None]
    try:
        read = json.loads(word)
    except (ValueError, RecursionError):
        return [word]
    return [word, read] if isinstance(read, int | float) else [word]


def _resources(names: Names) -> tuple[str, ...]:
    return _chosen(names, RESOURCES, "resource")


def _ops(names: Names) -> tuple[str, ...]:
    return (
        tuple(dict.fromkeys(OPS[name] for name in _chosen(names, OPS, "kind of change"))) or UNASKED
    )


def _chosen(names: Names, known: Collection[str], what: str) -> tuple[str, ...]:
    found = _names(names)
    for name in found:
        if name not in known:
            raise UsageError(f"There is no {what} {name[:60]!r}. Choose from: {', '.join(known)}.")
    return found


def _sides(
    path: str, pair: Sequence[Value]
) -> tuple[list[Value] | EllipsisType, list[Value] | EllipsisType]:
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise UsageError(
            f"The transition of {path!r} takes two sides, from and to, such as ('active', 'past_due')."
        )
    return _side(pair[0]), _side(pair[1])


def _side(value: Value) -> list[Value] | EllipsisType:
    values = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
    return ... if any(one is ... or one == "*" for one in values) else values


def _moved(
    change: Change, path: str, old: list[Value] | EllipsisType, new: list[Value] | EllipsisType
) -> bool:
    if change.op != "u" or change.after is None:
        return False
    now, before = value_at(change.after, path), change.before
    if before is None:  # what was before is not known: rather once too often than never
        return old is ... and _is_one_of(now, new) and (_named(change, path) or not change.changed)
    was = value_at(before, path)
    return not _same(was, now) and _is_one_of(was, old) and _is_one_of(now, new)


def _is_one_of(value: Any, values: list[Value] | EllipsisType) -> bool:
    return isinstance(values, EllipsisType) or any(_same(value, one) for one in values)


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)  # True is not 1


def _named(change: Change, path: str) -> bool:
    return any(
        one == path or one.startswith(f"{path}.") or path.startswith(f"{one}.")
        for one in change.changed
    )


def _touched(change: Change, path: str) -> bool:
    """Whether the path or something below it changed; of a hash that was replaced whole, the images
    tell; so they do where the path may be but the beginning of a key with dots.
    """
    if path in change.changed:
        return True
    if not _named(change, path):
        return False
    before = change.before
    if before is None or change.after is None:
        return True
    was, now = value_at(before, path), value_at(change.after, path)
    if any(one.startswith(f"{path}.") for one in change.changed):
        return was is not None or now is not None
    return not _same(was, now)
