"""One tool: its description for agents, and what it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import StripeFeedError

Arguments = Mapping[str, Any]
Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool found or did, ready for JSON."""

    data: Any
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool. `effect` says what a call would do for good (then a person confirms it), or nothing; an
    answer of its own ends the call.
    """

    name: str
    description: str
    schema: Schema
    run: Callable[[Arguments], Answer]
    writes: bool = False
    effect: Callable[[Arguments], str | Answer] | None = None


def arguments_schema(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """The schema of a tool's arguments."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def failure(error: StripeFeedError) -> Answer:
    """An error in words, which hold no data."""
    return Answer({"error": type(error).__name__, "message": str(error)}, is_error=True)
