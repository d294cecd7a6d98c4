"""Read triggers from `triggers.toml` or from Python: a file with an error is refused as a whole, with
line and reason, before anything runs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..api.text_file import read_text_file
from ..delivery.endpoint_config import ConfigError, parse_endpoint, read_bool, reject_unknown
from ..errors import UsageError
from ..feed.consumers import parse_duration
from ..feed.filters import ORIGINS as ORIGINS_ALL
from ..feed.filters import compile_filter
from ..feed.paths import normalize_path
from ..resources import FEED_RESOURCES, RESOURCES
from . import stripe_fields
from .expressions import compile_expression
from .models.model_trigger import MODEL_PRESETS, AnyTrigger, ModelTrigger
from .models.parse import MODEL_KEYS, is_on_model, parse_row_rule, row_warnings
from .trigger import DEFAULT_ORIGINS, PRESETS, Enrol, Guard, Trigger

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_FILE = "triggers.toml"
_MAX_DEPTH = 60
_MAX_INTEGER = 2**63
T = TypeVar("T")
TRIGGER_KEYS = (
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
    *MODEL_KEYS,
)
ALL_PRESETS = {**PRESETS, **MODEL_PRESETS}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The valid triggers of a file, a line for each error, and a line for each warning about valid
    triggers.
    """

    triggers: list[AnyTrigger]
    errors: list[str]
    warnings: list[str]


def read_triggers(path: str | Path = DEFAULT_FILE) -> list[AnyTrigger]:
    """Read the triggers of a file. Raises `UsageError` with file, line and reason for any error."""
    result = check_triggers(path, with_warnings=False)
    if result.errors:
        first, *others = result.errors
        more = f" And {len(others):,} more: `stripe-feed triggers check`." if others else ""
        raise UsageError(f"{first}{more}")
    return result.triggers


def check_triggers(path: str | Path = DEFAULT_FILE, with_warnings: bool = True) -> CheckResult:
    """Check a whole file. Raises `UsageError` if it cannot be read or is not TOML."""
    file = Path(path)
    text = _read_text(file)
    document = _parse_toml(file, text)
    source = _SourceLines(file, text)
    errors = [
        source.message(f"unknown key {name!r}. A file consists of [[trigger]] tables.", -1, [name])
        for name in document
        if name != "trigger"
    ]
    tables = document.get("trigger", [])
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        return CheckResult(
            [],
            [*errors, source.message("write [[trigger]], with two brackets.", -1, ["trigger"])],
            [],
        )
    triggers_by_name, warnings = dict[str, AnyTrigger](), list[str]()
    for n, table in enumerate(tables):
        try:
            trigger = parse_any_trigger(table, file.parent)
            if trigger.name in triggers_by_name:
                raise ConfigError(f"there are two triggers called {trigger.name!r}", "name")
        except ConfigError as fault:
            errors += [
                source.message(_end_sentence(str(one)), n, one.keys)
                for one in (fault, *fault.others)
            ]
            continue
        triggers_by_name[trigger.name] = trigger
        for words, *keys in _warnings(trigger) if with_warnings else ():
            warnings.append(source.message(f"{trigger.name}: {_end_sentence(words)}", n, keys))
    return CheckResult(list(triggers_by_name.values()), errors, warnings)


def _warnings(trigger: AnyTrigger) -> Iterable[tuple[str, ...]]:
    if isinstance(trigger, ModelTrigger):
        return row_warnings(trigger)
    return stripe_fields.rule_warnings(trigger)


def write_starter(path: str | Path = DEFAULT_FILE) -> None:
    """Write a starter file with commented examples. Raises `UsageError` if the file exists; it is
    not changed.
    """
    from importlib.resources import files

    try:
        with Path(path).open("x", encoding="utf-8") as file:
            file.write(
                files("stripe_feed.triggers").joinpath("starter.toml").read_text(encoding="utf-8")
            )
    except FileExistsError:
        raise UsageError(
            f"{path} already exists and was not changed. Name another with --triggers."
        ) from None
    except (OSError, ValueError) as fault:
        raise UsageError(
            f"{path} cannot be written ({type(fault).__name__}). Name another with --triggers."
        ) from None


def _read_text(file: Path) -> str:
    try:
        return read_text_file(file, "utf-8-sig")
    except FileNotFoundError:
        raise UsageError(
            f"There is no file {file}. `stripe-feed triggers init` writes a starter file; --triggers names another."
        ) from None
    except (OSError, ValueError) as fault:
        raise UsageError(
            f"{file} cannot be read ({type(fault).__name__}). Write a triggers file, or name it."
        ) from None


def _parse_toml(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        match = re.search(r"\(at line (\d+)", str(fault))
        line = match[1] if match else max(1, len(text.splitlines()))
        raise UsageError(f"{file}:{line}: not valid TOML: {fault}.") from None
    except (
        ValueError,
        RecursionError,
    ):  # of a number with thousands of digits, of brackets in brackets
        raise UsageError(f"{file}: a number is too long, or the nesting is too deep.") from None


def _end_sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


class _SourceLines:
    """The lines of a file, to find where a key is."""

    def __init__(self, file: Path, text: str) -> None:
        self.file, self.lines = file, text.splitlines()
        self.starts = [
            i for i, line in enumerate(self.lines) if re.match(r"\s*\[\[\s*trigger\s*\]\]", line)
        ]

    def message(self, text: str, n: int, keys: Sequence[str]) -> str:
        """A message about a key of the n-th trigger (-1: before the first), with file and line of
        the deepest key that can be found.
        """
        starts = self.starts
        low = starts[n] if 0 <= n < len(starts) else 0
        high = starts[n + 1] if 0 <= n < len(starts) - 1 else len(self.lines)
        deepest = low
        for key in keys:
            pattern = rf"(^[\s\[]*([\w\"'-]+\s*\.\s*)*|[{{,]\s*)[\"']?{re.escape(key)}[\"']?\s*(=(?!=)|\]|\.)"
            deepest = next(
                (i for i in range(deepest, high) if re.search(pattern, self.lines[i])), deepest
            )
        return f"{self.file}:{deepest + 1}: {text}"


def parse_trigger(table: Mapping[str, Any]) -> Trigger:
    """Make a trigger on changes, as `parse_any_trigger` does. Raises `ConfigError` for one on a model
    too.
    """
    trigger = parse_any_trigger(table)
    if isinstance(trigger, ModelTrigger):
        raise ConfigError("a trigger on changes takes no model", "model")
    return trigger


def parse_any_trigger(table: Mapping[str, Any], folder: Path = Path()) -> AnyTrigger:
    """Make a trigger from the keys of a `[[trigger]]` table; here `deliver.python` may be a callable.
    `folder`: of the file, where `sql` is looked for. Raises `ConfigError`, a `UsageError`, for the
    first error, with the others in `others`.
    """
    reader = _Reader()
    for key, value in table.items():
        reader.read(partial(reject_unknown, {key: value}, TRIGGER_KEYS, ""), None)
    name = reader.read(lambda: _parse_name(table.get("name")), "")
    preset: dict[str, Any] = reader.read(lambda: _parse_preset(table.get("preset")), {})
    settings = {**preset, **table}
    if "sql" in table and "model" not in table:  # replaces the model of a preset
        settings.pop("model", None)
    _check_values(settings)
    is_row_rule = is_on_model(settings)
    rule = (_read_row_rule if is_row_rule else _read_change_rule)(reader, settings, folder)
    rule |= {
        "name": name,
        "where": reader.read(lambda: _parse_where(settings.get("where")), None),
        "enrol": reader.read(lambda: _parse_enrol(settings.get("enrol", "always")), Enrol()),
        "per": reader.read(lambda: _parse_per(settings.get("per", "object_id")), "object_id"),
        "guard": reader.read(lambda: _parse_guard(settings.get("guard", {})), Guard()),
        "deliver": reader.read(lambda: parse_endpoint(settings.get("deliver")), None),
    }
    reader.finish()
    return ModelTrigger(**rule) if is_row_rule else Trigger(**rule)


class _Reader:
    """Collects the errors of a trigger."""

    def __init__(self) -> None:
        self.errors: list[ConfigError] = []

    def read(self, get: Callable[[], T], otherwise: T) -> T:
        try:
            return get()
        except ConfigError as fault:
            self.errors.append(fault)
            return otherwise

    def finish(self) -> None:
        """Raise the first error, if there is one, with the others."""
        if self.errors:
            self.errors[0].others = tuple(self.errors[1:])
            raise self.errors[0]


def _read_row_rule(reader: _Reader, settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    rule = reader.read(lambda: parse_row_rule(settings, folder), None)
    return {one.name: getattr(rule, one.name) for one in fields(rule)} if rule else {}


def _read_change_rule(reader: _Reader, settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    none: tuple[str, ...] = ()
    empty: dict[str, Any] = {}
    read = reader.read
    read(lambda: _refuse_row_keys(settings), None)
    resources = read(lambda: _parse_filter("resource", settings), none)
    ops = read(lambda: _parse_filter("op", settings), none)
    transition = read(lambda: _parse_transition(settings.get("transition", {})), empty)
    changed = read(
        lambda: tuple(_parse_path(one, "changed") for one in _text_list(settings, "changed")), none
    )
    read(lambda: _require_subject(settings, reader.errors), None)
    event = read(lambda: _parse_events(settings, resources), none)
    origin = read(lambda: _choices(settings, "origin", ORIGINS_ALL), none)
    origin_push = read(
        lambda: read_bool(settings, "origin_push") if "origin_push" in settings else None, None
    )
    net = read(lambda: read_bool(settings, "net"), False)
    if reader.errors:
        return {}
    return {
        "filter": compile_filter(resources or None, ops or None, transition, changed),
        "event": event,
        "origin": origin or DEFAULT_ORIGINS,
        "origin_push": origin_push,
        "transition": transition,
        "changed": changed,
        "net": net,
        "enrolled_by": settings.get("enrolled_by"),
    }


def _refuse_row_keys(settings: Mapping[str, Any]) -> None:
    for name in MODEL_KEYS:
        if name in settings:
            raise ConfigError(f"{name} is for triggers on models: name a model, or sql", name)


def _parse_name(name: Any) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,80}", name):
        raise ConfigError(
            "a trigger needs a name of letters, digits and the characters _ . -", "name"
        )
    return name


def _parse_preset(preset: Any) -> dict[str, Any]:
    if preset is not None and (not isinstance(preset, str) or preset not in ALL_PRESETS):
        raise ConfigError(
            f"there is no preset {_shorten(preset)}. Choose from: {', '.join(ALL_PRESETS)}",
            "preset",
        )
    return ALL_PRESETS[preset] if preset else {}


def _parse_filter(key: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    values = _text_list(settings, key)
    try:
        compile_filter(**{key: values or None})  # type: ignore[arg-type]
    except UsageError as fault:
        raise ConfigError(str(fault), key) from None
    return values


def _require_subject(settings: Mapping[str, Any], errors: Sequence[ConfigError]) -> None:
    if not settings.get("resource") and not settings.get("event") and not errors:
        raise ConfigError(f"say which resource it is about: {', '.join(FEED_RESOURCES)}", "name")


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _check_values(value: Any, depth: int = 0) -> None:
    """Raise `ConfigError` for values that TOML does not allow, but its parser accepts."""
    if depth > _MAX_DEPTH:
        raise ConfigError(f"the nesting is more than {_MAX_DEPTH} deep")
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        raise ConfigError("an integer has more than 64 bits")
    items = value.values() if isinstance(value, dict) else value
    for item in items if isinstance(value, dict | list) else ():
        _check_values(item, depth + 1)


def _text_list(settings: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = settings.get(key, ())
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(
        isinstance(text, str) and text for text in texts
    ):
        raise ConfigError(f"{key} takes a text or a list of texts", key)
    return tuple(texts)


def _choices(settings: Mapping[str, Any], key: str, names: Sequence[str]) -> tuple[str, ...]:
    chosen = _text_list(settings, key)
    for name in chosen:
        if name not in names:
            raise ConfigError(f"there is no {key} {name!r}. Choose from: {', '.join(names)}", key)
    return chosen


def _parse_events(settings: Mapping[str, Any], resources: Sequence[str]) -> tuple[str, ...]:
    known = {event for table in resources or RESOURCES for event in FEED_RESOURCES[table].events}
    for name in (events := _text_list(settings, "event")):
        if name not in known:
            near = get_close_matches(name, known, 3)
            raise ConfigError(
                f"no change comes of the event {name!r}{f'; near are {near}' if near else ''}",
                "event",
            )
    return events


def _parse_transition(value: Any) -> dict[str, tuple[Any, Any]]:
    if not isinstance(value, Mapping):
        raise ConfigError(
            'transition takes a table, such as { status = { from = "active", to = "past_due" } }',
            "transition",
        )
    transition = {}
    for path, sides in value.items():
        if (
            isinstance(sides, Mapping)
            and set(sides) <= {"from", "to"}
            and sides
            and [] not in sides.values()
        ):
            transition[_parse_path(path, "transition")] = (
                _parse_side(sides.get("from", "*")),
                _parse_side(sides.get("to", "*")),
            )
        else:
            raise ConfigError(
                f'the transition of {path!r} takes {{ from = "…", to = "…" }}',
                "transition",
                str(path),
            )
    return transition


def _parse_path(text: Any, *keys: str) -> str:
    try:
        return normalize_path(str(text))
    except UsageError as fault:
        raise ConfigError(str(fault), *keys, str(text)) from None


def _parse_side(value: Any) -> Any:
    """Read one side; the text "null" is null, which TOML does not have."""
    if isinstance(value, list):
        return [_parse_side(one) for one in value]
    return None if value == "null" else value


def _parse_where(text: Any) -> Any:
    if text is None:
        return None
    if not isinstance(text, str):
        raise ConfigError("where takes an expression as text", "where")
    try:
        return compile_expression(text)
    except UsageError as fault:
        raise ConfigError(f"where: {fault}", "where") from None


def _parse_enrol(text: Any) -> Enrol:
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


def _parse_per(text: Any) -> Any:
    if text not in ("object_id", "customer_id"):
        raise ConfigError('per is "object_id" or "customer_id"', "per")
    return text


def _parse_guard(value: Any) -> Guard:
    if not isinstance(value, Mapping):
        raise ConfigError("guard takes a table, such as { max = 1000, share = 0.5 }", "guard")
    reject_unknown(value, ("max", "share"), "guard")
    max_messages, share = value.get("max", Guard().max_messages), value.get("share", Guard().share)
    if isinstance(max_messages, bool) or not isinstance(max_messages, int) or max_messages < 0:
        raise ConfigError("guard.max is a whole number of messages", "guard")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ConfigError("guard.share is between 0 and 1", "guard")
    return Guard(max_messages, float(share))
