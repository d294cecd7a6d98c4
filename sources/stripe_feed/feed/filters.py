"""Select the changes a consumer wants: by resource, operation, transition of a field, and changed
paths.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

from ..errors import UsageError, did_you_mean
from ..resources import FEED_RESOURCES, RESOURCES
from ..resources.model import field_names
from .change import Change
from .paths import normalize_path, split_prefix, value_at

OPS = {"c": "c", "u": "u", "d": "d", "r": "r", "added": "c", "updated": "u", "removed": "d"}
DEFAULT_OPS = ("c", "u", "d")  # reads of a snapshot would match every object
MAX_LISTED = 12  # names in a message
ORIGINS = ("event", "diff", "list", "snapshot")

Names = str | Collection[str] | None
Value = Any  # a JSON value, several of them, None for null or absent, `...` or "*" for anything
TransitionFilter = Mapping[str, Sequence[Value]] | None


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled filter: the store looks up `resources` (none: all) and `ops`; `matches` decides on
    the change. `prefetch` reads at once the related objects of several changes.
    """

    resources: tuple[str, ...]
    ops: tuple[str, ...]
    matches: Callable[[Change], bool]
    prefetch: Callable[[Sequence[Change]], object] = lambda changes: None

    def select(self, changes: Sequence[Change]) -> list[Change]:
        """Return the changes that match."""
        self.prefetch(changes)
        return [change for change in changes if self.matches(change)]


def compile_filter(
    resource: Names = None,
    op: Names = None,
    transition: TransitionFilter = None,
    changed: Names = None,
    origin: Names = None,
    customer: Names = None,
    origin_push: bool | None = None,
) -> Filter:
    """Compile the filters. Raises `UsageError` for unknown names and invalid forms.

    `transition` maps a dotted path to (from, to), and all its entries must hold: `{"status":
    ("active", "past_due")}`. Each side is a value, a list of values, None for null or absent, `...`
    or "*" for anything. Only an update that changed the value at the path matches; if the value
    before is unknown, only "anything" matches. `changed`: paths; one of them, or something below
    it, changed. `origin`: one of `ORIGINS`. `customer`: ids. `origin_push`:
    whether an action or push of this package made the change.
    """
    sides = {
        normalize_path(path): _both_sides(path, pair) for path, pair in (transition or {}).items()
    }
    paths = [normalize_path(path) for path in _names(changed)]
    origins, customers = _check_names(origin, ORIGINS, "origin"), _names(customer)

    def matches(change: Change) -> bool:
        if (origins and change.origin not in origins) or (
            customers and change.customer_id not in customers
        ):
            return False
        if origin_push not in (None, change.origin_push):
            return False
        if sides and not all(
            _transitioned(change, path, old, new) for path, (old, new) in sides.items()
        ):
            return False
        return not paths or any(_path_changed(change, path) for path in paths)

    return Filter(_resources(resource), _ops(op), matches)


def unknown_paths(resource: Names, paths: Iterable[str]) -> list[str]:
    """Return the paths that start with no field of these resources in the loaded API version."""
    known_fields = {"object"}.union(
        *(field_names(FEED_RESOURCES[table]) for table in _resources(resource) or RESOURCES)
    )
    return [path for path in paths if normalize_path(path).partition(".")[0] not in known_fields]


def _names(names: Names) -> tuple[str, ...]:
    if names is None:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)


def combine(first: Filter, second: Filter) -> Filter:
    """Combine two filters: a change must match both."""
    return Filter(
        first.resources or second.resources,
        first.ops,
        lambda change: (
            (not second.resources or change.resource in second.resources)
            and change.op in second.ops
            and first.matches(change)
            and second.matches(change)
        ),
        lambda changes: (first.prefetch(changes), second.prefetch(changes)),
    )


def parse_transitions(texts: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """Parse `status:active:past_due` into path, from and to; `*` is anything, `null` is null, `a,b`
    either value. Raises `UsageError` for other forms.
    """
    parsed = {}
    for text in texts:
        path, rest = split_prefix(text)  # a colon in quotes is part of a name
        sides = rest.split(":")
        if len(sides) != 3 or not path or sides[0] or not sides[1] or not sides[2]:
            raise UsageError(
                f"transition takes FIELD:FROM:TO, such as status:active:past_due, not {text[:80]!r}."
            )
        parsed[path] = (_parse_side(sides[1]), _parse_side(sides[2]))
    return parsed


def _parse_side(text: str) -> list[Value]:
    """Return each word as text, and also as the number or boolean it may stand for."""
    return [value for word in text.split(",") for value in _parse_word(word)]


def _parse_word(word: str) -> list[Value]:
    if word == "null":
        return [None]
    try:
        value = json.loads(word)
    except (ValueError, RecursionError):
        return [word]
    return [word, value] if isinstance(value, int | float) else [word]


def _resources(names: Names) -> tuple[str, ...]:
    return _check_names(names, FEED_RESOURCES, "resource")


def _ops(names: Names) -> tuple[str, ...]:
    return (
        tuple(dict.fromkeys(OPS[name] for name in _check_names(names, OPS, "kind of change")))
        or DEFAULT_OPS
    )


def _check_names(names: Names, known: Collection[str], kind: str) -> tuple[str, ...]:
    chosen = _names(names)
    for name in chosen:
        if name not in known:
            choice = (
                f"Choose from: {', '.join(known)}."
                if len(known) <= MAX_LISTED
                else f"{did_you_mean(name, known)}`stripe-feed status` lists what is loaded."
            )
            raise UsageError(f"There is no {kind} {name[:60]!r}. {choice}")
    return chosen


def _both_sides(
    path: str, pair: Sequence[Value]
) -> tuple[list[Value] | EllipsisType, list[Value] | EllipsisType]:
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise UsageError(
            f"The transition of {path!r} takes two sides, from and to, such as ('active', 'past_due')."
        )
    return _side(pair[0]), _side(pair[1])


def _side(value: Value) -> list[Value] | EllipsisType:
    values = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
    return ... if any(item is ... or item == "*" for item in values) else values


def _transitioned(
    change: Change, path: str, old: list[Value] | EllipsisType, new: list[Value] | EllipsisType
) -> bool:
    if change.op != "u" or change.after is None:
        return False
    now, before = value_at(change.after, path), change.before
    if before is None:  # unknown: match once too often rather than never
        return (
            old is ... and _is_one_of(now, new) and (_is_listed(change, path) or not change.changed)
        )
    was = value_at(before, path)
    return not _same(was, now) and _is_one_of(was, old) and _is_one_of(now, new)


def _is_one_of(value: Any, values: list[Value] | EllipsisType) -> bool:
    return isinstance(values, EllipsisType) or any(_same(value, candidate) for candidate in values)


def _same(a: Any, b: Any) -> bool:
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)  # True is not 1


def _is_listed(change: Change, path: str) -> bool:
    return any(
        changed_path == path
        or changed_path.startswith(f"{path}.")
        or path.startswith(f"{changed_path}.")
        for changed_path in change.changed
    )


def _path_changed(change: Change, path: str) -> bool:
    """Whether the path or something below it changed. Compare the images if a whole hash was
    replaced, or if the path may be the start of a key with dots.
    """
    if path in change.changed:
        return True
    if not _is_listed(change, path):
        return False
    before = change.before
    if before is None or change.after is None:
        return True
    was, now = value_at(before, path), value_at(change.after, path)
    if any(changed_path.startswith(f"{path}.") for changed_path in change.changed):
        return was is not None or now is not None
    return not _same(was, now)
