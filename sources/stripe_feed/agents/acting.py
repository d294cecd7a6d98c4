"""Tools that look up and write at Stripe: the actions, with their own schemas."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..errors import UsageError
from ..resources.writable import WRITABLE, Writable
from ..write.consequences import DESTRUCTIVE
from ..write.result import ActionResult
from ..write.schema import schema as action_schema
from ..write.verbs import is_reading, verbs_of
from .place import AgentContext
from .tool import Answer, Arguments, Schema, Tool, arguments_schema

MOST_FOUND = 100
_RESOURCE: Schema = {"enum": list(WRITABLE)}
WHERE: Schema = {
    "type": "object",
    "description": 'Field: value, or field: {"contains": value} and other operators of `action_schema`.',
}
CONFIRM: Schema = {
    "type": "string",
    "description": "The code that the first call returned; only if a person agreed.",
}
FOR_GOOD: Mapping[tuple[str, str], str] = {
    **DESTRUCTIVE,
    ("quotes", "finalize"): "Finalizes the quote for good",
}
"""What a person confirms, by table and verb."""
TWO_CALLS = (
    "The first call changes nothing: it says what would be done for good, and a person confirms it."
)


def look_up_tools(place: AgentContext) -> list[Tool]:
    """The tools that ask Stripe, and the schemas of all actions."""
    limit = {"type": "integer", "minimum": 1, "maximum": MOST_FOUND, "default": 10}
    expand = {"type": "array", "items": {"type": "string"}}
    return [
        Tool(
            "stripe_get",
            "Retrieve one object from Stripe by its id, as it is now.",
            arguments_schema(
                ("resource", "id"), resource=_RESOURCE, id={"type": "string"}, expand=expand
            ),
            partial(_look_up, place, "get"),
        ),
        Tool(
            "stripe_search",
            "Find objects by conditions; the copy answers while it is fresh, else Stripe does.",
            arguments_schema(("resource", "where"), resource=_RESOURCE, where=WHERE, limit=limit),
            partial(_look_up, place, "search"),
        ),
        Tool(
            "stripe_list",
            "List objects from Stripe, newest first.",
            arguments_schema(
                ("resource",), resource=_RESOURCE, where=WHERE, limit=limit, expand=expand
            ),
            partial(_look_up, place, "list"),
        ),
        Tool(
            "action_schema",
            "Show the whole JSON Schema of one action, nested parameters included.",
            arguments_schema(("resource", "verb"), resource=_RESOURCE, verb={"type": "string"}),
            _show_schema,
        ),
    ]


def writing_tools(place: AgentContext) -> list[Tool]:
    """One tool per action that writes."""
    return [
        _writing_tool(place, row, verb)
        for row in WRITABLE.values()
        for verb in verbs_of(row)
        if not is_reading(row, verb)
    ]


def _writing_tool(place: AgentContext, row: Writable, verb: str) -> Tool:
    for_good = FOR_GOOD.get((row.table, verb))
    words = f"{verb.replace('_', ' ').capitalize()} {'an' if row.noun[0] in 'aeiou' else 'a'} {row.noun} at Stripe."
    return Tool(
        f"{row.table}_{verb}",
        f"{words} {for_good}. {TWO_CALLS}" if for_good else words,
        _schema(row, verb, for_good is not None),
        partial(_write, place, row.table, verb),
        writes=True,
        effect=partial(_effect, place, row.table, verb) if for_good else None,
    )


def _schema(row: Writable, verb: str, is_confirmed: bool) -> Schema:
    """The schema of an action without what lies in nested parameters; `action_schema` has it all."""
    whole = action_schema(row, verb)
    properties = {name: one for name, one in whole["properties"].items() if name != "confirm"}
    if "set" in properties:
        fields = properties["set"]["properties"]
        flat = {name: _flat(one) for name, one in fields.items()}
        properties["set"] = {**properties["set"], "properties": flat}
    if is_confirmed:
        properties["confirm"] = CONFIRM
    return {**whole, "properties": properties}


def _flat(field: Schema) -> Schema:
    """A parameter without the schema of what is inside it."""
    if "anyOf" in field:
        return {**field, "anyOf": [_flat(one) for one in field["anyOf"]]}
    inside = ("properties", "items", "additionalProperties")
    return {name: value for name, value in field.items() if name not in inside}


def _show_schema(arguments: Arguments) -> Answer:
    row = WRITABLE[arguments["resource"]]
    if arguments["verb"] not in verbs_of(row):
        raise UsageError(
            f"There is no action {arguments['verb'][:40]!r} on {row.table}. Choose from: {', '.join(verbs_of(row))}."
        )
    return Answer(action_schema(row, arguments["verb"]))


def _look_up(place: AgentContext, verb: str, arguments: Arguments) -> Answer:
    order = {name: value for name, value in arguments.items() if name != "resource"}
    return _answer(place.actions().run(arguments["resource"], verb, **order))


def _write(place: AgentContext, table: str, verb: str, arguments: Arguments) -> Answer:
    order = {name: value for name, value in arguments.items() if name != "confirm"}
    if "confirm" in arguments and (table, verb) in DESTRUCTIVE:  # a person did
        order["confirm"] = True
    return _answer(place.actions().run(table, verb, **order))


def _effect(place: AgentContext, table: str, verb: str, arguments: Arguments) -> str | Answer:
    """What a call would do for good: nothing for a dry run, and for a subscription that only ends with
    its period. A call that would be refused ends with the refusal.
    """
    at_period_end = table == "subscriptions" and arguments.get("at_period_end")
    if arguments.get("dry_run") or at_period_end:
        return ""
    order = {name: value for name, value in arguments.items() if name != "confirm"}
    would = place.actions().run(table, verb, **{**order, "dry_run": True})
    if would.status != "dry_run":
        return _answer(would)
    ids = sorted({request.path for request in would.requests})
    return f"{FOR_GOOD[table, verb]}. {would.message} {', '.join(ids)}"


def _answer(result: ActionResult) -> Answer:
    said: Mapping[str, Any] = result.to_dict()
    return Answer({name: said[name] for name in said if name != "raw"}, not result.ok)
