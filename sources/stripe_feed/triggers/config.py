"""`triggers.toml`, or the same in Python, to triggers: refused whole, with line and reason, before
anything runs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from ..delivery.endpoint import ConfigError, parse_endpoint, read_bool, reject_unknown
from ..errors import UsageError
from ..feed.consumers import parse_duration
from ..feed.filters import ORIGINS as ORIGINS_ALL
from ..feed.filters import compile_filter
from ..feed.paths import normalize_path
from ..resources import RESOURCES
from . import stripe_fields
from .expressions import compile_expression
from .trigger import ORIGINS, PRESETS, Enrol, Guard, Trigger

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "triggers.toml"
DEEPEST = 60
LARGEST = 2**63
T = TypeVar("T")
KEYS = (
    "name",
    "preset",
    "resource",
    "op",
    "event",
    "origin",
    "origin_push",
    "transition",
    "changed",
    "where",
    "enrol",
    "per",
    "net",
    "guard",
    "deliver",
)


@dataclass(frozen=True, slots=True)
class Examined:
    """What a file holds: the triggers that are right, and a line for each mistake, and for each
    doubt about those.
    """

    triggers: list[Trigger]
    mistakes: list[str]
    doubts: list[str]


def read_triggers(path: str | Path = FILE) -> list[Trigger]:
    """The triggers of a file. Raises `UsageError` with file, line and reason where anything is
    wrong in it.
    """
    found = examine(path, is_doubting=False)
    if found.mistakes:
        first, *others = found.mistakes
        more = f" And {len(others):,} more: `stripe-feed triggers check`." if others else ""
        raise UsageError(f"{first}{more}")
    return found.triggers


def examine(path: str | Path = FILE, is_doubting: bool = True) -> Examined:
    """Read a file whole. Raises `UsageError` where it cannot be read, or is no TOML."""
    file = Path(path)
    text = _text(file)
    said = _parsed(file, text)
    place = _Place(file, text)
    mistakes = [
        place.line(f"unknown key {name!r}. A file is made of [[trigger]] tables.", -1, [name])
        for name in said
        if name != "trigger"
    ]
    tables = said.get("trigger", [])
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        return Examined(
            [],
            [*mistakes, place.line("write [[trigger]], with two brackets.", -1, ["trigger"])],
            [],
        )
    found, doubtful = dict[str, Trigger](), list[str]()
    for n, table in enumerate(tables):
        try:
            trigger = trigger_of(table)
            if trigger.name in found:
                raise ConfigError(f"there are two triggers called {trigger.name!r}", "name")
        except ConfigError as fault:
            mistakes += [place.line(_end(str(one)), n, one.keys) for one in (fault, *fault.others)]
            continue
        found[trigger.name] = trigger
        for words, *keys in stripe_fields.doubts(trigger) if is_doubting else ():
            doubtful.append(place.line(f"{trigger.name}: {_end(words)}", n, keys))
    return Examined(list(found.values()), mistakes, doubtful)


def write_starter(path: str | Path = FILE) -> None:
    """Write a file to begin with: commented examples. Raises `UsageError` where there is one, which
    stays as it is.
    """
    from importlib.resources import files

    try:
        with Path(path).open("x", encoding="utf-8") as file:
            file.write(
                files("stripe_feed.triggers").joinpath("starter.toml").read_text(encoding="utf-8")
            )
    except FileExistsError:
        raise UsageError(
            f"{path} is there already, and stays as it is. Name another with --triggers."
        ) from None
    except (OSError, ValueError) as fault:
        raise UsageError(
            f"{path} cannot be written ({type(fault).__name__}). Name another with --triggers."
        ) from None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(
            f"There is no file {file}. `stripe-feed triggers init` writes one to begin with; --triggers names another."
        ) from None
    except (OSError, ValueError) as fault:
        raise UsageError(
            f"{file} cannot be read ({type(fault).__name__}). Write a triggers file, or name it."
        ) from None


def _parsed(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        place = re.search(r"\(at line (\d+)", str(fault))
        line = place[1] if place else max(1, len(text.splitlines()))
        raise UsageError(f"{file}:{line}: it is no TOML: {fault}.") from None
    except (
        ValueError,
        RecursionError,
    ):  # of a number with thousands of digits, of brackets in brackets
        raise UsageError(
            f"{file}: it holds a number that is too long, or is nested too deeply."
        ) from None


def _end(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


class _Place:
    """Where something is in a file."""

    def __init__(self, file: Path, text: str) -> None:
        self.file, self.lines = file, text.splitlines()
        self.starts = [
            i for i, line in enumerate(self.lines) if re.match(r"\s*\[\[\s*trigger\s*\]\]", line)
        ]

    def line(self, words: str, n: int, keys: Sequence[str]) -> str:
        """Words about a key of the n-th trigger (-1: before the first), with file and line of the
        deepest that can be found.
        """
        starts = self.starts
        low = starts[n] if 0 <= n < len(starts) else 0
        high = starts[n + 1] if 0 <= n < len(starts) - 1 else len(self.lines)
        best = low
        for key in keys:
            word = rf"(^[\s\[]*([\w\"'-]+\s*\.\s*)*|[{{,]\s*)[\"']?{re.escape(key)}[\"']?\s*(=(?!=)|\]|\.)"
            best = next((i for i in range(best, high) if re.search(word, self.lines[i])), best)
        return f"{self.file}:{best + 1}: {words}"


def trigger_of(said: Mapping[str, Any]) -> Trigger:
    """A trigger from the words of a `[[trigger]]` table; `deliver.python` may be a callable here.
    Raises `Wrong`, a `UsageError`, for the first thing that is wrong, with the others.
    """
    wrong: list[ConfigError] = []
    none: tuple[str, ...] = ()
    empty: dict[str, Any] = {}

    def read(get: Callable[[], T], otherwise: T) -> T:
        try:
            return get()
        except ConfigError as fault:
            wrong.append(fault)
            return otherwise

    for key, value in said.items():
        read(lambda key=key, value=value: reject_unknown({key: value}, KEYS, ""), None)  # type: ignore[misc]
    name = read(lambda: _name(said.get("name")), "")
    words = {**read(lambda: _preset(said.get("preset")), empty), **said}
    _sound(words)
    resources = read(lambda: _filter("resource", words), none)
    ops = read(lambda: _filter("op", words), none)
    transition = read(lambda: _transition(words.get("transition", {})), empty)
    changed = read(lambda: tuple(_path(one, "changed") for one in _texts(words, "changed")), none)
    read(lambda: _about_something(words, wrong), None)
    event = read(lambda: _events(words, resources), none)
    origin = read(lambda: _chosen(words, "origin", ORIGINS_ALL), none)
    origin_push = read(
        lambda: read_bool(words, "origin_push") if "origin_push" in words else None, None
    )
    where = read(lambda: _where(words.get("where")), None)
    enrol = read(lambda: _enrol(words.get("enrol", "always")), Enrol())
    per: Any = read(lambda: _per(words.get("per", "object_id")), "object_id")
    net = read(lambda: read_bool(words, "net"), False)
    guard = read(lambda: _guard(words.get("guard", {})), Guard())
    deliver = read(lambda: parse_endpoint(words.get("deliver")), None)
    if wrong or deliver is None:
        wrong[0].others = tuple(wrong[1:])
        raise wrong[0]
    return Trigger(
        name=name,
        wanted=compile_filter(resources or None, ops or None, transition, changed),
        deliver=deliver,
        event=event,
        origin=origin or ORIGINS,
        origin_push=origin_push,
        transition=transition,
        changed=changed,
        where=where,
        enrol=enrol,
        per=per,
        net=net,
        guard=guard,
        enrolled_by=words.get("enrolled_by"),
    )


def _name(name: Any) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,80}", name):
        raise ConfigError(
            "a trigger needs a name of letters, digits and the characters _ . -", "name"
        )
    return name


def _preset(preset: Any) -> dict[str, Any]:
    if preset is not None and (not isinstance(preset, str) or preset not in PRESETS):
        raise ConfigError(
            f"there is no preset {_short(preset)}. Choose from: {', '.join(PRESETS)}", "preset"
        )
    return PRESETS[preset] if preset else {}


def _filter(key: str, words: Mapping[str, Any]) -> tuple[str, ...]:
    found = _texts(words, key)
    try:
        compile_filter(**{key: found or None})  # type: ignore[arg-type]
    except UsageError as fault:
        raise ConfigError(str(fault), key) from None
    return found


def _about_something(words: Mapping[str, Any], wrong: Sequence[ConfigError]) -> None:
    if not words.get("resource") and not words.get("event") and not wrong:
        raise ConfigError(f"say which resource it is about: {', '.join(RESOURCES)}", "name")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _sound(value: Any, depth: int = 0) -> None:
    """Raise `Wrong` for what TOML does not have, but its reader takes."""
    if depth > DEEPEST:
        raise ConfigError(f"it is nested more than {DEEPEST} deep")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ConfigError("it holds a whole number of more than 64 bits")
    for one in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        _sound(one, depth + 1)


def _texts(said: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = said.get(key, ())
    found = (value,) if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(
        isinstance(one, str) and one for one in found
    ):
        raise ConfigError(f"{key} takes a text or a list of texts", key)
    return tuple(found)


def _chosen(said: Mapping[str, Any], key: str, names: Sequence[str]) -> tuple[str, ...]:
    found = _texts(said, key)
    for name in found:
        if name not in names:
            raise ConfigError(f"there is no {key} {name!r}. Choose from: {', '.join(names)}", key)
    return found


def _events(said: Mapping[str, Any], resources: Sequence[str]) -> tuple[str, ...]:
    known = {event for table in resources or RESOURCES for event in RESOURCES[table].events}
    for name in (found := _texts(said, "event")):
        if name not in known:
            near = get_close_matches(name, known, 3)
            raise ConfigError(
                f"no change comes of the event {name!r}{f'; near are {near}' if near else ''}",
                "event",
            )
    return found


def _transition(said: Any) -> dict[str, tuple[Any, Any]]:
    if not isinstance(said, Mapping):
        raise ConfigError(
            'transition takes a table, such as { status = { from = "active", to = "past_due" } }',
            "transition",
        )
    found = {}
    for path, sides in said.items():
        if (
            isinstance(sides, Mapping)
            and set(sides) <= {"from", "to"}
            and sides
            and [] not in sides.values()
        ):
            found[_path(path, "transition")] = (
                _side(sides.get("from", "*")),
                _side(sides.get("to", "*")),
            )
        else:
            raise ConfigError(
                f'the transition of {path!r} takes {{ from = "…", to = "…" }}',
                "transition",
                str(path),
            )
    return found


def _path(text: Any, *keys: str) -> str:
    try:
        return normalize_path(str(text))
    except UsageError as fault:
        raise ConfigError(str(fault), *keys, str(text)) from None


def _side(value: Any) -> Any:
    """TOML has no null, so the word stands for it."""
    if isinstance(value, list):
        return [_side(one) for one in value]
    return None if value == "null" else value


def _where(text: Any) -> Any:
    if text is None:
        return None
    if not isinstance(text, str):
        raise ConfigError("where takes an expression as text", "where")
    try:
        return compile_expression(text)
    except UsageError as fault:
        raise ConfigError(f"where: {fault}", "where") from None


def _enrol(text: Any) -> Enrol:
    if text in ("always", "once", "no_concurrency"):
        return Enrol(text)
    kind, _, length = str(text).partition(" ")
    try:
        if kind == "cooldown" and length and isinstance(text, str):
            return Enrol("cooldown", parse_duration(length))
    except UsageError as fault:
        raise ConfigError(f"enrol: {fault}", "enrol") from None
    raise ConfigError(
        'enrol is "always", "once", "no_concurrency", or such as "cooldown 7d"', "enrol"
    )


def _per(text: Any) -> Any:
    if text not in ("object_id", "customer_id"):
        raise ConfigError('per is "object_id" or "customer_id"', "per")
    return text


def _guard(said: Any) -> Guard:
    if not isinstance(said, Mapping):
        raise ConfigError("guard takes a table, such as { max = 1000, share = 0.5 }", "guard")
    reject_unknown(said, ("max", "share"), "guard")
    most, share = said.get("max", Guard().most), said.get("share", Guard().share)
    if isinstance(most, bool) or not isinstance(most, int) or most < 0:
        raise ConfigError("guard.max is a whole number of messages", "guard")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ConfigError("guard.share is between 0 and 1", "guard")
    return Guard(most, float(share))
