"""The parameters of each write: names, kinds, what is required and what `""` unsets.
`write_parameters.tsv` has them as the SDK lists them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from .errors import (
    Refusal,
    bad_choice,
    bad_integer,
    blank,
    required,
    too_long,
    unknown_parameters,
    unset_refused,
)
from .parameters import INTEGER, Params, boolean

TABLE = Path(__file__).with_name("write_parameters.tsv")
DECIMAL = re.compile(r"-?\d{1,20}(\.\d{1,12})?")
NUMBER = re.compile(r"-?\d{1,15}(\.\d+)?")
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")
LONGEST = 5000
LENGTHS = {
    "customer": {"email": 512, "name": 256, "phone": 20, "business_name": 150, "individual_name": 150},
    "product": {"name": 5000, "description": 40_000, "unit_label": 12, "statement_descriptor": 22},
    "price": {"lookup_key": 200},
    "coupon": {"name": 40},
    "subscription": {"description": 500},
    "invoice": {"description": 1500, "statement_descriptor": 22},
    "quote": {"header": 50, "description": 500, "footer": 500},
}  # fmt: skip
CUSTOM_FIELD = {
    "custom_fields[].name": 40,
    "custom_fields[].value": 140,
    "marketing_features[].name": 80,
}
COUNTS = {"custom_fields": 4, "images": 8, "marketing_features": 15, "subscription.items": 20}
REFERENCES = frozenset(
    [
        "charge",
        "currency",
        "customer",
        "customer_account",
        "destination",
        "coupon",
        "discount",
        "id",
        "invoice",
        "lookup_key",
        "meter",
        "payment_method",
        "plan",
        "price",
        "product",
        "promotion_code",
        "quote",
        "source",
        "subscription",
        "subscription_item",
        "tax_code",
        "test_clock",
    ]
)
"""Strings that `""` does not unset unless the SDK says so."""

KEEPS = {"customer_update": {"default_source"}, "product_update": {"name"}}
"""Strings that an update cannot unset."""


@dataclass(slots=True)
class Spec:
    """A parameter and its inner ones: by name, `[]` for elements, `*` for any name."""

    path: str = ""
    kinds: tuple[str, ...] = ("hash",)
    required: bool = False
    unset: bool = False
    inner: dict[str, Spec] = field(default_factory=dict)


@cache
def specs() -> dict[str, Spec]:
    """Return the parameters of all writes by the SDK's name, such as `customer_create`."""
    found: dict[str, Spec] = {}
    _, *rows = TABLE.read_text(encoding="utf-8").splitlines()
    for row in rows:
        verb, path, kinds, flags = row.split("\t")
        holder = found.setdefault(verb, Spec())
        steps = path.replace("[]", ".[]").split(".") if path else []
        for step in steps:
            holder = holder.inner.setdefault(step, Spec())
        if steps:
            holder.path, holder.kinds = path, tuple(kinds.split())
            holder.required, holder.unset = "required" in flags, "unset" in flags
    return found


def checked(verb: str, given: Params) -> Params:
    """Check the parameters of a write and return typed values. None stands for unset."""
    spec = specs()[verb]
    given = {name: value for name, value in given.items() if name != "expand"}
    return _Reader(verb).hash(spec, "", given)


class _Reader:
    """Read the parameters of one write."""

    def __init__(self, verb: str) -> None:
        self.keeps = KEEPS.get(verb, set())
        object = verb.rpartition("_")[0]
        self.object = object
        self.lengths = LENGTHS.get(object, {})

    def hash(self, spec: Spec, name: str, given: Any) -> Params:
        if not isinstance(given, dict):
            raise Refusal(400, "Invalid object", param=name)
        names = {key: f"{name}[{key}]" if name else key for key in (*given, *spec.inner)}
        if strange := [names[key] for key in given if key not in spec.inner]:
            raise unknown_parameters(strange)
        for key, inner in spec.inner.items():
            if inner.required and key not in given:
                raise required(names[key])
        return {key: self.value(spec.inner[key], names[key], given[key]) for key in given}

    def value(self, spec: Spec, name: str, given: Any) -> Any:
        if given == "":
            return self.unset(spec, name)
        if spec.kinds == ("any",):
            return given
        if not spec.kinds:
            raise Refusal(400, f"Invalid {name}: it can only be unset.", param=name)
        if isinstance(given, dict):
            return self.nested(spec, name, given)
        return self.scalar(spec, name, given)

    def unset(self, spec: Spec, name: str) -> None:
        """Raise an error if `""` cannot unset it. Stripe unsets strings that name no object, although the
        SDK does not say so."""
        last = spec.path.rpartition(".")[2]
        text = "string" in spec.kinds and last not in REFERENCES and spec.path not in self.keeps
        if not spec.unset and (spec.required or not text):
            raise unset_refused(name)

    def nested(self, spec: Spec, name: str, given: Params) -> Any:
        if "list" in spec.kinds:
            return list(self.elements(spec, name, given))
        if "map" in spec.kinds:
            each = spec.inner["*"]
            if each.kinds == ("string",):  # metadata: `""` takes a key away
                return {key: self.text(each, f"{name}[{key}]", one) for key, one in given.items()}
            return {key: self.value(each, f"{name}[{key}]", one) for key, one in given.items()}
        if "hash" in spec.kinds:
            return self.hash(spec, name, given)
        raise Refusal(400, f"Invalid {WORDS.get(spec.kinds[0], 'string')}: {given}", param=name)

    def elements(self, spec: Spec, name: str, given: Params) -> Iterator[Any]:
        if not all(key.isdigit() for key in given):
            raise Refusal(400, "Invalid array", param=name)
        last = spec.path.rpartition(".")[2]
        most = COUNTS.get(last) or COUNTS.get(f"{self.object}.{last}")
        if most and len(given) > most:
            raise Refusal(400, f"Array too long: {name} takes at most {most}.", param=name)
        for key in sorted(given, key=int):
            yield self.value(spec.inner["[]"], f"{name}[{key}]", given[key])

    def scalar(self, spec: Spec, name: str, given: str) -> Any:
        """Read as the first kind that fits, or raise the error of the last one."""
        if "list" in spec.kinds or "map" in spec.kinds or spec.kinds == ("hash",):
            raise Refusal(
                400, "Invalid array" if "list" in spec.kinds else "Invalid object", param=name
            )
        kinds = [kind for kind in spec.kinds if kind != "hash"]
        for kind in kinds[:-1]:
            try:
                return self.of_kind(kind, spec, name, given)
            except Refusal:
                continue
        return self.of_kind(kinds[-1], spec, name, given)

    def of_kind(self, kind: str, spec: Spec, name: str, given: str) -> Any:
        match kind:
            case "integer":
                if not INTEGER.fullmatch(given):
                    raise bad_integer(name, given)
                return int(given)
            case "boolean":
                return boolean(name, given)
            case "number" | "decimal":
                pattern = NUMBER if kind == "number" else DECIMAL
                if not pattern.fullmatch(given):
                    raise Refusal(400, f"Invalid decimal: {given}", param=name)
                return float(given) if kind == "number" else given
            case "string":
                return self.text(spec, name, given)
            case _:
                choices = tuple(kind.removeprefix("=").split("|"))
                if given not in choices:
                    raise bad_choice(name, choices)
                return given

    def text(self, spec: Spec, name: str, given: Any) -> str:
        if not isinstance(given, str):
            raise Refusal(400, f"Invalid string: {given}", param=name)
        if spec.required and not given.strip():
            raise blank(name)
        most = self.lengths.get(spec.path) or next(
            (most for tail, most in CUSTOM_FIELD.items() if spec.path.endswith(tail)), LONGEST
        )
        if len(given) > most and not spec.path.endswith("*"):
            raise too_long(name, given, most)
        if spec.path == "email" and not EMAIL.fullmatch(given):
            raise Refusal(400, f"Invalid email address: {given}", "email_invalid", name)
        return given


WORDS = {"integer": "integer", "boolean": "boolean", "number": "decimal", "decimal": "decimal"}
