"""`triggers.toml`, or the same in Python, to triggers: refused whole, with line and reason, before anything runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..resources import RESOURCES, fields
from .cursors import age
from .expressions import compile_expression, fields_of
from .filters import wanted
from .paths import plain
from .receivers import Wrong, deliver_of, flag, known
from .rules import ORIGINS, PRESETS, Enrol, Guard, Trigger

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "triggers.toml"
KEYS = (
    "name", "preset", "resource", "op", "event", "origin", "transition", "changed", "where", "enrol", "per", "net", "guard",
    "deliver",
)


def read_triggers(path: str | Path = FILE) -> list[Trigger]:
    """The triggers of a file. Raises `UsageError` with file, line and reason for the first thing that is wrong in it."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        raise UsageError(f"{file} cannot be read ({type(fault).__name__}). Write a triggers file, or name it.") from None
    said = _parsed(file, text)
    for name in said:
        if name != "trigger":
            raise UsageError(f"{file}:{_line(text, -1, [name])}: unknown key {name!r}. A file is made of [[trigger]] tables.")
    tables = said.get("trigger", [])
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        raise UsageError(f"{file}:{_line(text, -1, ['trigger'])}: write [[trigger]], with two brackets.")
    found: list[Trigger] = []
    for n, table in enumerate(tables):
        try:
            trigger = trigger_of(table)
            if trigger.name in {one.name for one in found}:
                raise Wrong(f"there are two triggers called {trigger.name!r}", "name")
        except UsageError as fault:
            keys = fault.keys if isinstance(fault, Wrong) else ()
            raise UsageError(f"{file}:{_line(text, n, keys)}: {_end(str(fault))}") from None
        found.append(trigger)
    return found


def _parsed(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        place = re.search(r"\(at line (\d+)", str(fault))
        line = place[1] if place else max(1, len(text.splitlines()))
        raise UsageError(f"{file}:{line}: it is no TOML: {fault}.") from None
    except (ValueError, RecursionError):      # of a number with thousands of digits, of brackets in brackets
        raise UsageError(f"{file}: it holds a number that is too long, or is nested too deeply.") from None


def _end(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


def _line(text: str, n: int, keys: Sequence[str]) -> int:
    """The line of a key of the n-th trigger (-1: before the first); of the deepest of the keys that can be found."""
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if re.match(r"\s*\[\[\s*trigger\s*\]\]", line)]
    low = starts[n] if 0 <= n < len(starts) else 0
    high = starts[n + 1] if 0 <= n < len(starts) - 1 else len(lines)
    best = low
    for key in keys:
        word = rf"(^[\s\[]*([\w\"'-]+\s*\.\s*)*|[{{,]\s*)[\"']?{re.escape(key)}[\"']?\s*(=(?!=)|\]|\.)"
        best = next((i for i in range(best, high) if re.search(word, lines[i])), best)
    return best + 1


def trigger_of(said: Mapping[str, Any]) -> Trigger:
    """A trigger from the words of a `[[trigger]]` table; `deliver.python` may be a callable here. Raises `UsageError`."""
    known(said, KEYS, "")
    name = said.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,80}", name):
        raise Wrong("a trigger needs a name of letters, digits and the characters _ . -", "name")
    preset = said.get("preset")
    if preset is not None and (not isinstance(preset, str) or preset not in PRESETS):
        raise Wrong(f"there is no preset {preset!r}. Choose from: {', '.join(PRESETS)}", "preset")
    words = {**(PRESETS[preset] if preset else {}), **said}
    transition = _transition(words.get("transition", {}))
    changed = tuple(_path(one, "changed") for one in _texts(words, "changed"))
    try:
        filters = wanted(_texts(words, "resource") or None, _texts(words, "op") or None, transition, changed)
    except UsageError as fault:
        raise Wrong(str(fault), _at_fault(str(fault))) from None
    if not filters.resources and not words.get("event"):
        raise Wrong(f"say which resource it is about: {', '.join(RESOURCES)}", "name")
    return Trigger(
        name=name, wanted=filters, deliver=deliver_of(words.get("deliver")), event=_events(words, filters.resources),
        origin=_chosen(words, "origin", (*ORIGINS, "snapshot")) or ORIGINS, transition=transition, changed=changed,
        where=_where(words.get("where")), enrol=_enrol(words.get("enrol", "always")), per=_per(words.get("per", "object_id")),
        net=flag(words, "net"), guard=_guard(words.get("guard", {})), enrolled_by=words.get("enrolled_by"),
    )


def _at_fault(text: str) -> str:
    return "op" if "kind of change" in text else "transition" if "transition" in text else "resource"


def _texts(said: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = said.get(key, ())
    found = (value,) if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(one, str) and one for one in found):
        raise Wrong(f"{key} takes a text or a list of texts", key)
    return tuple(found)


def _chosen(said: Mapping[str, Any], key: str, names: Sequence[str]) -> tuple[str, ...]:
    found = _texts(said, key)
    for name in found:
        if name not in names:
            raise Wrong(f"there is no {key} {name!r}. Choose from: {', '.join(names)}", key)
    return found


def _events(said: Mapping[str, Any], resources: Sequence[str]) -> tuple[str, ...]:
    known = {event for table in resources or RESOURCES for event in RESOURCES[table].events}
    for name in (found := _texts(said, "event")):
        if name not in known:
            near = get_close_matches(name, known, 3)
            raise Wrong(f"no change comes of the event {name!r}{f'; near are {near}' if near else ''}", "event")
    return found


def _transition(said: Any) -> dict[str, tuple[Any, Any]]:
    if not isinstance(said, Mapping):
        raise Wrong('transition takes a table, such as { status = { from = "active", to = "past_due" } }', "transition")
    found = {}
    for path, sides in said.items():
        if isinstance(sides, Mapping) and set(sides) <= {"from", "to"} and sides and [] not in sides.values():
            found[_path(path, "transition")] = (_side(sides.get("from", "*")), _side(sides.get("to", "*")))
        else:
            raise Wrong(f'the transition of {path!r} takes {{ from = "…", to = "…" }}', "transition", str(path))
    return found


def _path(text: Any, *keys: str) -> str:
    try:
        return plain(str(text))
    except UsageError as fault:
        raise Wrong(str(fault), *keys, str(text)) from None


def _side(value: Any) -> Any:
    """TOML has no null, so the word stands for it."""
    if isinstance(value, list):
        return [_side(one) for one in value]
    return None if value == "null" else value


def _where(text: Any) -> Any:
    if text is None:
        return None
    if not isinstance(text, str):
        raise Wrong("where takes an expression as text", "where")
    try:
        return compile_expression(text)
    except UsageError as fault:
        raise Wrong(f"where: {fault}", "where") from None


def _enrol(text: Any) -> Enrol:
    if text in ("always", "once", "no_concurrency"):
        return Enrol(text)
    kind, _, length = str(text).partition(" ")
    try:
        if kind == "cooldown" and length and isinstance(text, str):
            return Enrol("cooldown", age(length))
    except UsageError as fault:
        raise Wrong(f"enrol: {fault}", "enrol") from None
    raise Wrong('enrol is "always", "once", "no_concurrency", or such as "cooldown 7d"', "enrol")


def _per(text: Any) -> Any:
    if text not in ("object_id", "customer_id"):
        raise Wrong('per is "object_id" or "customer_id"', "per")
    return text


def _guard(said: Any) -> Guard:
    if not isinstance(said, Mapping):
        raise Wrong("guard takes a table, such as { max = 1000, share = 0.5 }", "guard")
    known(said, ("max", "share"), "guard")
    most, share = said.get("max", Guard().most), said.get("share", Guard().share)
    if isinstance(most, bool) or not isinstance(most, int) or most < 0:
        raise Wrong("guard.max is a whole number of messages", "guard")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise Wrong("guard.share is between 0 and 1", "guard")
    return Guard(most, float(share))


def doubts(trigger: Trigger) -> Iterator[str]:
    """What a rule names that no documented object of its resource has: it may be misspelt, or too new for this version."""
    known = {name for table in trigger.wanted.resources for name in fields(RESOURCES[table])}
    named = {path.removeprefix("after.").removeprefix("before.") for path in fields_of(trigger.where) if "." in path
             and not path.startswith("change.")} if trigger.where else set()
    for path in sorted({*trigger.transition, *trigger.changed, *named}):
        first = re.split(r"[.\[]", path)[0]
        if known and first not in known:
            near = get_close_matches(first, known, 1)
            yield f"{'/'.join(trigger.wanted.resources)} have no documented field {first!r}" + (
                f"; did you mean {near[0]!r}?" if near else "."
            )
