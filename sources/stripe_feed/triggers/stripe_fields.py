"""What Stripe documents of its objects, in depth: whether a path can be in one, and which words a
field can have.

It is read from the annotations of Stripe's SDK, for hints on what may be misspelt in a rule;
nothing else relies on it.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, ForwardRef, Literal, Union, get_args, get_origin

from ..delivery.payloads import compile_template
from ..feed.filters import ORIGINS
from ..feed.lookups import RELATED_TABLES
from ..resources import RESOURCES
from ..resources.model import field_names
from .trigger import Trigger

Name = str | int
Names = tuple[Name, ...]
CHANGE_WORDS: dict[str, Sequence[str]] = {
    "op": ("c", "u", "d", "r"),
    "resource": tuple(RESOURCES),
    "origin": ORIGINS,
    "event_type": [event for row in RESOURCES.values() for event in row.events],
}
LIST = ("object", "data", "has_more", "url", "total_count")


def doubts(trigger: Trigger) -> Iterator[tuple[str, ...]]:
    """What a rule names that no documented object has: it may be misspelt, or of another version of
    the API. Each in words, and the keys where it is.
    """
    tables = trigger.wanted.resources or tuple(RESOURCES)
    for path, sides in trigger.transition.items():
        yield from _named(tables, ("after", *path.split(".")), "transition", path)
        for word in (
            word
            for side in sides
            for word in (side if isinstance(side, list) else [side])
            if isinstance(word, str)
        ):
            yield from _said(tables, ("after", *path.split(".")), word, "transition", path)
    for path in trigger.changed:
        yield from _named(tables, ("after", *path.split(".")), "changed")
    for part in trigger.where.parts if trigger.where else ():
        for names in dict.fromkeys(part.paths):
            yield from _named(tables, names, "where")
        for names, word in dict.fromkeys(part.words):
            yield from _said(tables, names, word, "where")
    template = trigger.deliver.template
    for path in compile_template(template).paths if template is not None else ():
        yield from _named(tables, tuple(path.split(".")), "deliver", "template")


def _named(tables: Sequence[str], names: Names, *keys: str) -> Iterator[tuple[str, ...]]:
    found = doubt(_tables(tables, names[0]), names[1:])
    if found is not None:
        yield (found, *keys)


def _said(tables: Sequence[str], names: Names, word: str, *keys: str) -> Iterator[tuple[str, ...]]:
    if names[0] == "change":
        known = CHANGE_WORDS.get(str(names[1]), (word,))
        found = None if word in known else f"change.{names[1]} is never {word!r}{near(word, known)}"
    else:
        found = None if word == "*" else misspelt(_tables(tables, names[0]), names[1:], word)
    if found is not None:
        yield (found, *keys)


def _tables(tables: Sequence[str], root: str | int) -> Sequence[str]:
    return (
        [RELATED_TABLES[str(root)]]
        if root in RELATED_TABLES
        else tables
        if root in ("after", "before")
        else []
    )


def doubt(tables: Sequence[str], names: Sequence[Name]) -> str | None:
    """Why no object of these tables has a path, in a few words; nothing where one may have it."""
    told = [_doubt(table, names) for table in tables]
    return told[0] if told and None not in told else None


def misspelt(tables: Sequence[str], names: Sequence[Name], word: str) -> str | None:
    """Why a field never has a word, in a few words; nothing where it may."""
    known = {one for table in tables for one in _words(_at(table, names))}
    if not known or word in known:
        return None
    return f"{_shown(names)} is never {word!r}{near(word, known)}"


def _doubt(table: str, names: Sequence[Name]) -> str | None:
    kinds = _options(_class(RESOURCES[table].object))
    for n, name in enumerate(names):
        steps = [_step(kind, name) for kind in kinds]
        if n == 0 and name in field_names(RESOURCES[table]) and not any(steps):
            return None
        if any(step is Any for step in steps):
            return None
        if not any(steps):
            return _why(table, names[:n], name, kinds)
        kinds = [one for step in steps if step for one in step]
    return None


def _why(table: str, before: Sequence[Name], name: Name, kinds: Sequence[Any]) -> str:
    place = f"{table} {_shown(before)}".rstrip()
    known = {one for kind in kinds for one in _fields(kind)}
    if known and isinstance(name, str):
        return f"{place} has no documented field {name!r}{near(name, known)}"
    if any(get_origin(kind) is list for kind in kinds):
        return f"{place} is a list: name one of it by its number, such as {_shown(before)}.0"
    if any(isinstance(kind, ForwardRef) for kind in kinds):
        root = (
            next((root for root in RELATED_TABLES if str(before[-1]).endswith(root)), None)
            if before
            else None
        )
        return f"{place} is an id in changes, without fields{f'; {root}.{name} looks it up' * bool(root)}"
    return f"{place} has no fields"


def _shown(names: Sequence[Name]) -> str:
    return ".".join(map(str, names))


def near(word: str, known: Collection[str]) -> str:
    """A hint at the word that is meant, or at some that are known."""
    found = get_close_matches(word, sorted(known), 1)
    return (
        f"; did you mean {found[0]!r}?"
        if found
        else f"; there are: {', '.join(sorted(known)[:12])}."
    )


def _class(name: str) -> Any:
    import stripe

    return getattr(stripe, "".join(part.capitalize() for part in name.split("_")), Any)


def _options(annotation: Any) -> list[Any]:
    """The kinds of value that an annotation allows. An object that is shown by its id is not
    expanded in changes.
    """
    if get_origin(annotation) in (Union, types.UnionType):
        parts = get_args(annotation)
        return [one for part in parts for one in ([part] if str in parts else _options(part))]
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


def _fields(kind: Any) -> list[str]:
    if _is_list_object(kind):
        return [*LIST]
    return (
        [name for name in vars(kind).get("__annotations__", {}) if name.islower()]
        if isinstance(kind, type)
        else []
    )


def _is_list_object(kind: Any) -> bool:
    return getattr(get_origin(kind), "__name__", "") == "ListObject"


def _step(kind: Any, name: Name) -> Any:
    """What a name leads to: kinds, `Any` for anything, or nothing."""
    origin = get_origin(kind)
    if kind is Any or origin is dict or getattr(origin, "__name__", "") == "UntypedStripeObject":
        return Any
    if _is_list_object(kind):
        return [list[get_args(kind)[0]]] if name == "data" else [str] if name in LIST else None  # type: ignore[misc]
    if origin is list:
        return _options(get_args(kind)[0]) if str(name).isdecimal() else None
    if isinstance(kind, type) and isinstance(name, str) and name in _fields(kind):
        return _options(vars(kind)["__annotations__"][name])
    return None


def _at(table: str, names: Sequence[Name]) -> list[Any]:
    kinds = _options(_class(RESOURCES[table].object))
    for name in names:
        steps = [step for kind in kinds if (step := _step(kind, name))]
        if not steps or Any in steps:
            return []
        kinds = [one for step in steps for one in step]
    return kinds


def _words(kinds: Sequence[Any]) -> Iterator[str]:
    for kind in kinds:
        if get_origin(kind) is Literal:
            yield from (word for word in get_args(kind) if isinstance(word, str))
