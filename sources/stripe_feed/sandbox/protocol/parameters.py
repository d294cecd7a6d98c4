"""Query strings and forms in, as Stripe nests them: `created[gte]=1`, `expand[]=a`,
`items[0][price]=a`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from .errors import Refusal, bad_integer, bad_limit, unknown_parameters

Params = dict[str, Any]
BOUNDS = ("gt", "gte", "lt", "lte")
COMMON = frozenset({"limit", "starting_after", "ending_before", "expand"})
INTEGER = re.compile(r"-?\d{1,18}")


def parse(query: str) -> Params:
    return {name: _arrays(value) for name, value in nested(query).items()}


def nested(query: str) -> Params:
    """All brackets as hashes, those of arrays with the index as the key."""
    fields: Params = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        name, *inner = key.replace("]", "").split("[")
        _put(fields, name, inner, value)
    return fields


def _put(into: Params, name: str, inner: list[str], value: str) -> None:
    if not inner:
        into[name] = value
        return
    hash = into.setdefault(name, {})
    if isinstance(hash, dict):
        first, *rest = inner
        _put(hash, first or _next_index(hash, rest), rest, value)


def _next_index(array: Params, rest: list[str]) -> str:
    """`a[][b]=1&a[][c]=2&a[][b]=3` are two hashes."""
    last = array.get(str(len(array) - 1))
    open_hash = bool(rest) and isinstance(last, dict) and rest[0] not in last
    return str(len(array) - open_hash)


def _arrays(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(index.isdigit() for index in value):
        return [_arrays(value[index]) for index in sorted(value, key=int)]
    return {name: _arrays(inner) for name, inner in value.items()}


@dataclass(frozen=True, slots=True)
class Span:
    """Whole seconds in [lo, hi); None means no bound."""

    lo: int | None = None
    hi: int | None = None

    def has(self, value: int | None) -> bool:
        if value is None:
            return self.lo is None
        return (self.lo is None or value >= self.lo) and (self.hi is None or value < self.hi)


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters that every list takes, and the filters of this one."""

    limit: int
    after: str
    before: str
    created: Span
    expand: tuple[str, ...]
    filters: Params


def query(params: Params, filters: Collection[str]) -> Query:
    """Read the parameters of a list. Refuses those it does not take."""
    if unknown := [name for name in params if name not in COMMON and name not in filters]:
        raise unknown_parameters(unknown)
    after, before = params.get("starting_after", ""), params.get("ending_before", "")
    if after and before:
        raise Refusal(
            400, "You may only specify one of these parameters: starting_after, ending_before."
        )
    return Query(
        page_limit(params.get("limit", "10")),
        after,
        before,
        span(params, "created"),
        expands(params),
        {name: value for name, value in params.items() if name not in COMMON and name != "created"},
    )


def page_limit(value: object) -> int:
    limit = integer("limit", value)
    if not 1 <= limit <= 100:
        raise bad_limit(limit)
    return limit


def expands(params: Params) -> tuple[str, ...]:
    value = params.get("expand", [])
    if not isinstance(value, list):
        raise Refusal(400, "Invalid array", param="expand")
    return tuple(value)


def integer(name: str, value: object) -> int:
    if not isinstance(value, str) or not INTEGER.fullmatch(value):
        raise bad_integer(name, value)
    return int(value)


def boolean(name: str, value: object) -> bool:
    if value not in ("true", "false"):
        raise Refusal(400, f"Invalid boolean: {value}", "parameter_invalid_boolean", name)
    return value == "true"


def span(params: Mapping[str, Any], name: str) -> Span:
    """A time given as an exact second, or as bounds that all hold."""
    given = params.get(name)
    if given is None:
        return Span()
    if isinstance(given, str):
        second = integer(name, given)
        return Span(second, second + 1)
    if not isinstance(given, dict):
        raise bad_integer(name, given)
    if unknown := [f"{name}[{bound}]" for bound in given if bound not in BOUNDS]:
        raise unknown_parameters(unknown)
    bounds = {bound: integer(f"{name}[{bound}]", text) for bound, text in given.items()}
    lows = [second + (bound == "gt") for bound, second in bounds.items() if bound in ("gt", "gte")]
    highs = [
        second + (bound == "lte") for bound, second in bounds.items() if bound in ("lt", "lte")
    ]
    return Span(max(lows, default=None), min(highs, default=None))
