"""The actions as JSON Schema, for agents and forms: what `run` takes, made of the allow-lists."""

from __future__ import annotations

from typing import Any

from ..resources.writable import WRITABLE, Parameter, Writable
from .checks import id_pattern
from .lookup.filters import FILTER_OPS
from .order import IF_SEVERAL, LIMIT, order_fields
from .parameters import NULLS
from .verbs import FEEDBACK, verbs_of

_Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCALARS: dict[str, _Schema] = {
    "text": {"type": "string"},
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "double": {"type": "number"},
    "decimal": {"type": "string", "pattern": r"^-?\d+(\.\d{1,12})?$"},
    "timestamp": {"type": ["integer", "string"], "description": "Unix seconds or ISO 8601."},
}
_NAMES = {"type": "array", "items": {"type": "string"}}
REQUIRED = {
    "get": ["id"],
    "create": ["set"],
    "insert": ["set"],
    "upsert": ["match"],
    "list_tax_ids": ["id"],
    "create_tax_id": ["set"],
    "delete_tax_id": ["tax_id"],
    "migrate": ["set"],
}


def schemas(resource: str | None = None, verb: str | None = None) -> _Schema:
    """The schema of one action, or of all (of a resource) by name below `$defs`."""
    from .lookup.find import writable

    rows = WRITABLE.values() if resource is None else [writable(resource)]
    named = {
        f"{row.table}.{name}": schema(row, name)
        for row in rows
        for name in verbs_of(row)
        if verb in (None, name)
    }
    if len(named) == 1 and verb is not None:
        return {"$schema": DIALECT, **next(iter(named.values()))}
    return {"$schema": DIALECT, "$defs": named}


def schema(row: Writable, verb: str) -> _Schema:
    """The schema of one action."""
    properties = {name: _property(row, verb, name) for name in order_fields(row.table, verb)}
    return {
        "title": f"{row.table}.{verb}",
        "type": "object",
        "properties": properties,
        "required": REQUIRED.get(verb, []),
        "additionalProperties": False,
    }


def _property(row: Writable, verb: str, name: str) -> _Schema:
    match name:
        case "id":
            return {
                "type": "string",
                "pattern": id_pattern(row.prefix),
                "description": f"Id of the {row.noun}.",
            }
        case "match":
            return {
                "type": "object",
                "minProperties": 1,
                "description": "Properties that find the object.",
            }
        case "set":
            return _set(row.parameters.get(_sent_verb(row, verb), {}))
        case "where":
            return {
                "type": "object",
                "description": f"Field: value, or field: {{{', '.join(FILTER_OPS)}: value}}; and, or: lists of these.",
            }
    return _FIXED[name]


_FIXED: dict[str, _Schema] = {
    "tax_id": {"type": "string", "pattern": "^txi_", "description": "Id of the tax id to delete."},
    "unset": {**_NAMES, "description": "Fields to clear."},
    "expand": _NAMES,
    "limit": {"type": "integer", "minimum": 1, "default": LIMIT},
    "nulls": {
        "enum": list(NULLS),
        "default": NULLS[0],
        "description": "What an empty value means.",
    },
    "only_if_empty": {
        "oneOf": [{"type": "boolean"}, _NAMES],
        "description": "Keep values that are there: all, or those of the fields named.",
    },
    "if_several": {"enum": list(IF_SEVERAL), "default": IF_SEVERAL[0]},
    "at_period_end": {"type": "boolean", "description": "End with the period, not now."},
    "reason": {"enum": list(FEEDBACK)},
    "comment": {"type": "string"},
    "dry_run": {"type": "boolean", "description": "Say what would be sent; send nothing."},
    "confirm": {
        "type": "boolean",
        "description": "Needed for what cannot be undone, or bills, on live data.",
    },
    "idempotency_key": {"type": "string", "maxLength": 200},
}


def _sent_verb(row: Writable, verb: str) -> str:
    return verb if verb in row.verbs else "create"


def _set(known: dict[str, Parameter]) -> _Schema:
    return {
        "type": "object",
        "properties": _children(known, ""),
        "additionalProperties": True,
        "description": "Parameters; dotted names such as metadata.plan reach into hashes.",
    }


def _children(known: dict[str, Parameter], prefix: str) -> dict[str, _Schema]:
    """The schemas of the parameters directly below a path."""
    below = [path for path in known if path.startswith(prefix)]
    names = dict.fromkeys(path[len(prefix) :].partition(".")[0].partition("[")[0] for path in below)
    return {name: _schema(known, f"{prefix}{name}") for name in names}


def _schema(known: dict[str, Parameter], path: str) -> _Schema:
    parameter = known.get(path)
    kinds = parameter.types if parameter else ("hash",)
    forms = [_form(known, path, kind) for kind in kinds]
    found = forms[0] if len(forms) == 1 else {"anyOf": forms}
    if parameter and parameter.values:
        found = {**found, "examples": list(parameter.values)}
    return found


def _form(known: dict[str, Parameter], path: str, kind: str) -> _Schema:
    if kind == "list":
        return {"type": ["array", "null"], "items": _schema(known, f"{path}[]")}
    if kind == "map":
        return {"type": ["object", "null"], "additionalProperties": _schema(known, f"{path}.*")}
    if kind == "hash":
        return {
            "type": ["object", "null"],
            "properties": _children(known, f"{path}."),
            "additionalProperties": False,
        }
    scalar = SCALARS[kind]
    types = scalar["type"] if isinstance(scalar["type"], list) else [scalar["type"]]
    return {**scalar, "type": [*types, "null"]}
