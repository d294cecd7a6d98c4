"""Find misspelt names in rules: paths that no documented Stripe object has, and values that a field
never has.

The documentation is the annotations of Stripe's SDK; only these warnings depend on it.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, ForwardRef, Literal, Union, get_args, get_origin

from ..delivery.payloads import compile_template
from ..feed.filters import ORIGINS
from ..feed.lookups import RELATED_TABLES
from ..resources import FEED_RESOURCES, RESOURCES
from ..resources.model import field_names
from .trigger import Trigger

PathKey = str | int
PathKeys = tuple[PathKey, ...]
CHANGE_VALUES: dict[str, Sequence[str]] = {
    "op": ("c", "u", "d", "r"),
    "resource": tuple(FEED_RESOURCES),
    "origin": ORIGINS,
    "event_type": [event for row in FEED_RESOURCES.values() for event in row.events],
}
LIST_FIELDS = ("object", "data", "has_more", "url", "total_count")


def rule_warnings(trigger: Trigger) -> Iterator[tuple[str, ...]]:
    """Yield what a rule names that no documented object has: it may be misspelt, or belong to another
    API version. Each is a message, then the keys where it is.
    """
    tables = trigger.filter.resources or tuple(RESOURCES)
    for path, sides in trigger.transition.items():
        yield from _path_warnings(tables, ("after", *path.split(".")), "transition", path)
        for word in (
            word
            for side in sides
            for word in (side if isinstance(side, list) else [side])
            if isinstance(word, str)
        ):
            yield from _value_warnings(
                tables, ("after", *path.split(".")), word, "transition", path
            )
    for path in trigger.changed:
        yield from _path_warnings(tables, ("after", *path.split(".")), "changed")
    for part in trigger.where.conditions if trigger.where else ():
        for names in dict.fromkeys(part.paths):
            yield from _path_warnings(tables, names, "where")
        for names, word in dict.fromkeys(part.literals):
            yield from _value_warnings(tables, names, word, "where")
    template = trigger.deliver.template
    for path in compile_template(template).paths if template is not None else ():
        yield from _path_warnings(tables, tuple(path.split(".")), "deliver", "template")


def _path_warnings(tables: Sequence[str], names: PathKeys, *keys: str) -> Iterator[tuple[str, ...]]:
    warning = path_warning(_root_tables(tables, names[0]), names[1:])
    if warning is not None:
        yield (warning, *keys)


def _value_warnings(
    tables: Sequence[str], names: PathKeys, word: str, *keys: str
) -> Iterator[tuple[str, ...]]:
    if names[0] == "change":
        known = CHANGE_VALUES.get(str(names[1]), (word,))
        warning = (
            None
            if word in known
            else f"change.{names[1]} is never {word!r}{suggestion(word, known)}"
        )
    else:
        warning = (
            None if word == "*" else value_warning(_root_tables(tables, names[0]), names[1:], word)
        )
    if warning is not None:
        yield (warning, *keys)


def _root_tables(tables: Sequence[str], root: str | int) -> Sequence[str]:
    if root in RELATED_TABLES:
        return [RELATED_TABLES[str(root)]]
    return tables if root in ("after", "before") else []


def path_warning(tables: Sequence[str], names: Sequence[PathKey]) -> str | None:
    """Say why no object of these tables has a path; None if one may have it."""
    warnings = [_table_path_warning(table, names) for table in tables]
    return warnings[0] if warnings and None not in warnings else None


def value_warning(tables: Sequence[str], names: Sequence[PathKey], word: str) -> str | None:
    """Say that a field never has a value; None if it may."""
    known = {value for table in tables for value in _literal_values(_kinds_at(table, names))}
    if not known or word in known:
        return None
    return f"{_join_keys(names)} is never {word!r}{suggestion(word, known)}"


def _table_path_warning(table: str, names: Sequence[PathKey]) -> str | None:
    if table not in RESOURCES:  # it is not Stripe's
        known = field_names(FEED_RESOURCES[table])
        return None if names[0] in known else _missing(table, str(names[0]), known)
    kinds = _annotation_kinds(_sdk_class(FEED_RESOURCES[table].object))
    for n, name in enumerate(names):
        steps = [_follow_key(kind, name) for kind in kinds]
        if n == 0 and name in field_names(FEED_RESOURCES[table]) and not any(steps):
            return None
        if any(step is Any for step in steps):
            return None
        if not any(steps):
            return _missing_field(table, names[:n], name, kinds)
        kinds = [one for step in steps if step for one in step]
    return None


def _missing_field(
    table: str, before: Sequence[PathKey], name: PathKey, kinds: Sequence[Any]
) -> str:
    place = f"{table} {_join_keys(before)}".rstrip()
    known = {one for kind in kinds for one in _documented_fields(kind)}
    if known and isinstance(name, str):
        return _missing(place, name, known)
    if any(get_origin(kind) is list for kind in kinds):
        return f"{place} is a list: name an element by its number, such as {_join_keys(before)}.0"
    if any(isinstance(kind, ForwardRef) for kind in kinds):
        root = (
            next((root for root in RELATED_TABLES if str(before[-1]).endswith(root)), None)
            if before
            else None
        )
        hint = f"; {root}.{name} looks it up" if root else ""
        return f"{place} is an id in changes, without fields{hint}"
    return f"{place} has no fields"


def _missing(place: str, name: str, known: Collection[str]) -> str:
    return f"{place} has no documented field {name!r}{suggestion(name, known)}"


def _join_keys(names: Sequence[PathKey]) -> str:
    return ".".join(map(str, names))


def suggestion(word: str, known: Collection[str]) -> str:
    """Suggest the name that was meant, or list known ones."""
    matches = get_close_matches(word, sorted(known), 1)
    return (
        f"; did you mean {matches[0]!r}?"
        if matches
        else f"; there are: {', '.join(sorted(known)[:12])}."
    )


def _sdk_class(name: str) -> Any:
    import stripe

    return getattr(stripe, "".join(part.capitalize() for part in name.split("_")), Any)


def _annotation_kinds(annotation: Any) -> list[Any]:
    """The kinds of value that an annotation allows. Objects that can be ids are not expanded in
    changes.
    """
    if get_origin(annotation) in (Union, types.UnionType):
        parts = get_args(annotation)
        return [
            one for part in parts for one in ([part] if str in parts else _annotation_kinds(part))
        ]
    if isinstance(annotation, ForwardRef | str):
        import stripe

        return [
            getattr(
                stripe,
                annotation if isinstance(annotation, str) else annotation.__forward_arg__,
                Any,
            )
        ]
    return [annotation]


def _documented_fields(kind: Any) -> list[str]:
    if _is_list_object(kind):
        return [*LIST_FIELDS]
    return (
        [name for name in vars(kind).get("__annotations__", {}) if name.islower()]
        if isinstance(kind, type)
        else []
    )


def _is_list_object(kind: Any) -> bool:
    return getattr(get_origin(kind), "__name__", "") == "ListObject"


def _follow_key(kind: Any, name: PathKey) -> Any:
    """The kinds that a key leads to, `Any` for anything, or None."""
    origin = get_origin(kind)
    if kind is Any or origin is dict or getattr(origin, "__name__", "") == "UntypedStripeObject":
        return Any
    if _is_list_object(kind):
        if name == "data":
            return [list[get_args(kind)[0]]]  # type: ignore[misc]
        return [str] if name in LIST_FIELDS else None
    if origin is list:
        return _annotation_kinds(get_args(kind)[0]) if str(name).isdecimal() else None
    if isinstance(kind, type) and isinstance(name, str) and name in _documented_fields(kind):
        return _annotation_kinds(vars(kind)["__annotations__"][name])
    return None


def _kinds_at(table: str, names: Sequence[PathKey]) -> list[Any]:
    kinds = _annotation_kinds(_sdk_class(FEED_RESOURCES[table].object))
    for name in names:
        steps = [step for kind in kinds if (step := _follow_key(kind, name))]
        if not steps or Any in steps:
            return []
        kinds = [one for step in steps for one in step]
    return kinds


def _literal_values(kinds: Sequence[Any]) -> Iterator[str]:
    for kind in kinds:
        if get_origin(kind) is Literal:
            yield from (word for word in get_args(kind) if isinstance(word, str))
