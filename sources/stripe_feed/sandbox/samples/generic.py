"""Random objects of any kind, from the annotations of the SDK and a few given values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from .annotations import Field, fields_of
from .values import Object, Random, metadata

Draw = Callable[[Random, int], Any]
"""Draws a value; takes the generator and the time of creation."""

REFERENCE = ""
"""Stands for the id of an object, or for an embedded object, until one is found."""

TIMES = (
    "arrival_date", "available_on", "billed_until", "created", "date", "due_by", "end", "end_date",
    "expected_arrival_date", "period_end", "period_start", "start", "start_date", "time", "updated",
)  # fmt: skip
OF_MONEY = ("amount", "total", "net", "fee", "subtotal", "balance")


def sample(
    rng: Random,
    created: int,
    *,
    object: str,
    prefix: str,
    values: Mapping[str, Any],
    absent: Collection[str] = (),
) -> Object:
    """An object with all fields that Stripe documents: null where they may be, the given values, and
    random ones for the others. `absent` fields only come when expanded; `*` means all hashes that may
    be null and have no given value.
    """
    drawn: Object = {"id": rng.id(prefix) if prefix else rng.word(8), "object": object}
    for name, field in fields_of(object).items():
        if name not in drawn and name not in absent:
            if "*" in absent and field.nature == "hash" and field.nullable and name not in values:
                continue
            drawn[name] = REFERENCE if field.objects and not field.nullable else None
            if name in values:
                given = values[name]
                drawn[name] = given(rng, created) if callable(given) else given
            elif not (field.objects and field.nature in ("id", "object")):
                drawn[name] = value(name, field, rng, created)
    return drawn


def value(name: str, field: Field, rng: Random, created: int) -> Any:
    """A random value of a field; null if it may be null."""
    if name == "metadata":
        return metadata(rng)
    if field.nullable:
        return None
    match field.nature:
        case "text":
            return _text(name, rng)
        case "choice":
            return rng.pick(field.choices)
        case "integer":
            return _integer(name, rng, created)
        case "boolean":
            return rng.livemode if name == "livemode" else False
        case "number":
            return 12.5
        case "decimal":
            return "12.5"
        case "id" | "object":
            return rng.id(field.objects[0].rpartition(".")[2])
        case "hash":
            return {key: value(key, inner, rng, created) for key, inner in field.inner.items()}
        case "array":
            return []
        case "list":
            return {"object": "list", "data": [], "has_more": False, "url": ""}
        case "map":
            return {}


def _text(name: str, rng: Random) -> str:
    match name:
        case "currency":
            return "usd"
        case "country":
            return "US"
        case "email":
            return f"{rng.word(8).lower()}@example.com"
    return f"https://example.com/{rng.word(12)}" if "url" in name else rng.word(10)


def _integer(name: str, rng: Random, created: int) -> int:
    if name in TIMES or name.endswith("_at"):
        return created
    return 100 + int(rng.random() * 50_000) if any(word in name for word in OF_MONEY) else 1


def one_of(*choices: Any) -> Draw:
    """Draws one of these values."""
    return lambda rng, created: rng.pick(choices)


def cents(rng: Random, created: int) -> int:
    """Draws an amount in minor units."""
    return 500 + int(rng.random() * 90_000)


def later(seconds: int) -> Draw:
    """Draws the time that many seconds after the creation."""
    return lambda rng, created: created + seconds


def word(length: int = 10) -> Draw:
    """Draws letters and digits."""
    return lambda rng, created: rng.word(length)


def domain(rng: Random, created: int) -> str:
    """Draws a name of a domain."""
    return f"{rng.word(8).lower()}.example.com"
