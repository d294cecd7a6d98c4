"""Read the keys of a `[[trigger]]` table that only triggers on models have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ...api.text_file import read_text_file
from ...delivery.endpoint_config import ConfigError
from ...delivery.payloads import compile_template
from ...errors import UsageError
from ...feed.consumers import parse_duration
from ...models.render import load_project
from .model_trigger import DEFAULT_EVERY, ROW_EVENTS, ModelTrigger, RowEvent

_END = re.compile(r";(?=(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*$)", re.DOTALL)  # of a statement

MODEL_KEYS = ("model", "sql", "key", "rows", "watch", "on", "every")
CHANGE_KEYS = ("resource", "op", "event", "origin", "origin_push", "transition", "changed", "net")
"""Keys that only triggers on changes have."""


@dataclass(frozen=True, slots=True)
class RowRule:
    """The rows that a trigger watches, and what may happen to them."""

    model: str
    sql: str | None
    key: tuple[str, ...]
    rows: str | None
    watch: tuple[str, ...]
    on: tuple[RowEvent, ...]
    every: int


def is_on_model(settings: Mapping[str, Any]) -> bool:
    """Whether a trigger is one on a model."""
    return "model" in settings or "sql" in settings


def parse_row_rule(settings: Mapping[str, Any], folder: Path) -> RowRule:
    """Read what rows a trigger watches. `folder`: of the file, for `sql`. Raises `ConfigError`."""
    for name in CHANGE_KEYS:
        if name in settings:
            raise ConfigError(
                f"{name} is for triggers on changes; one on a model takes {', '.join(MODEL_KEYS)}",
                name,
            )
    deliver = settings.get("deliver")
    if isinstance(deliver, Mapping) and deliver.get("format") == "stripe":
        raise ConfigError(
            "a row of a model is no Stripe event: choose another format", "deliver", "format"
        )
    if "model" in settings and "sql" in settings:
        raise ConfigError("a trigger takes model or sql, not both", "sql")
    model, sql = (
        (_parse_model(settings["model"]), None)
        if "model" in settings
        else _read_sql(settings["sql"], folder)
    )
    known = model_columns(model) if sql is None else ()
    key, watch = (_columns(settings, name, known) for name in ("key", "watch"))
    on = _parse_on(settings.get("on", "entered"))
    if not key:
        raise ConfigError('key names the columns that identify a row, such as key = "id"', "key")
    if ("changed" in on) != bool(watch):
        raise ConfigError(
            'on = "changed" and watch go together: watch names the columns whose changes count',
            "watch" if watch else "on",
        )
    return RowRule(model, sql, key, _parse_rows(settings), watch, on, _parse_every(settings))


def model_columns(model: str) -> tuple[str, ...]:
    """The columns of a model of this package."""
    properties = load_project().properties.get(model, {})
    return tuple(column["name"] for column in properties.get("columns", ()))


def row_warnings(trigger: ModelTrigger) -> Iterator[tuple[str, ...]]:
    """Yield what a rule reads of rows that its model has no column for: each is a message, then the
    keys where it is.
    """
    known = () if trigger.sql is not None else model_columns(trigger.model)
    read: list[tuple[tuple[str | int, ...], tuple[str, ...]]] = [
        (paths, ("where",))
        for part in (trigger.where.conditions if trigger.where else ())
        for paths in part.paths
    ]
    template = trigger.deliver.template
    read += [
        (tuple(path.split(".")), ("deliver", "template"))
        for path in (compile_template(template).paths if template is not None else ())
    ]
    for (root, *names), keys in dict.fromkeys(read):
        if root in ("after", "before") and names and known and names[0] not in known:
            near = get_close_matches(str(names[0]), known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield (f"{trigger.model} has no column {names[0]!r}{hint}", *keys)


def _parse_model(name: Any) -> str:
    models = load_project().models
    if not isinstance(name, str) or name not in models:
        near = get_close_matches(str(name), models, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ". `stripe-feed models list` lists them"
        raise ConfigError(f"there is no model {str(name)[:60]!r}{hint}", "model")
    return name


def _read_sql(name: Any, folder: Path) -> tuple[str, str]:
    if not isinstance(name, str) or not name.endswith(".sql"):
        raise ConfigError('sql names a file with one select, such as "late_payers.sql"', "sql")
    file = folder / name
    try:
        text = _END.sub("", read_text_file(file, "utf-8-sig")).strip()
    except (OSError, ValueError) as fault:
        raise ConfigError(
            f"the file {name} cannot be read ({type(fault).__name__})", "sql"
        ) from None
    if not text:
        raise ConfigError(f"the file {name} is empty: write one select", "sql")
    return file.stem, text


def _columns(settings: Mapping[str, Any], name: str, known: Sequence[str]) -> tuple[str, ...]:
    value = settings.get(name, ())
    columns = (value,) if isinstance(value, str) else value
    if not isinstance(columns, list | tuple) or not all(
        isinstance(column, str) and column and '"' not in column for column in columns
    ):
        raise ConfigError(f"{name} takes the name of a column or a list of names", name)
    for column in columns:
        if known and column not in known:
            near = get_close_matches(column, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f". It has {', '.join(known)}"
            raise ConfigError(f"the model has no column {column!r}{hint}", name)
    return tuple(dict.fromkeys(columns))


def _parse_on(value: Any) -> tuple[RowEvent, ...]:
    events: Any = [value] if isinstance(value, str) else value
    if not isinstance(events, list | tuple) or not events or not {*events} <= {*ROW_EVENTS}:
        raise ConfigError(f"on takes one or more of {', '.join(ROW_EVENTS)}", "on")
    return tuple(event for event in ROW_EVENTS if event in events)  # type: ignore[misc]


def _parse_rows(settings: Mapping[str, Any]) -> str | None:
    rows = settings.get("rows")
    if rows is not None and (not isinstance(rows, str) or not rows.strip()):
        raise ConfigError('rows is a condition in SQL, such as "days_overdue >= 7"', "rows")
    return rows


def _parse_every(settings: Mapping[str, Any]) -> int:
    every = settings.get("every", f"{DEFAULT_EVERY}s")
    if not isinstance(every, str):
        raise ConfigError('every is a duration, such as "10m"', "every")
    try:
        return max(parse_duration(every), 1)
    except UsageError as fault:
        raise ConfigError(f"every: {fault}", "every") from None
