"""Parameters as Stripe reads them: nested values become form fields, and only values of known types
are encoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode

from ..errors import UsageError

Form = tuple[tuple[str, str], ...]
"""Fields of a request in their order: (("items[0][price]", "price_1"), ("expand[0]", "customer"))."""

LONGEST_ID = 255
SHORTEST_SECRET = 2  # characters; a single one would be replaced all over a sentence
CERTAIN = 6  # characters; shorter ones are replaced as whole words only
PLAIN = frozenset(("true", "false"))
_ID = re.compile(r"[a-z]{2,8}_[A-Za-z0-9_]{4,}")
ADDRESS = re.compile(r"[^\s'\"<>()]+(?:@|%40)[^\s'\"<>()]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')  # what a search asks for
KEY = re.compile(r"\b[sr]k_(?:live|test)_\w+")


def encode(params: Mapping[str, Any]) -> Form:
    """Encode nested parameters. Raises `UsageError` for a value or a name that Stripe would misread."""
    fields: list[tuple[str, str]] = []
    for name, value in params.items():
        _add_fields(fields, _name(name), value)
    return tuple(fields)


def _add_fields(fields: list[tuple[str, str]], name: str, value: Any) -> None:
    match value:
        case str():
            fields.append((name, _encodable(name, value)))
        case None:
            pass
        case dict() | Mapping():
            for key, inner in value.items():
                _add_fields(fields, f"{name}[{_name(key)}]", inner)
        case list() | tuple():
            for n, inner in enumerate(value):
                _add_fields(fields, f"{name}[{n}]", inner)
        case _:
            fields.append((name, _text(name, value)))


def _name(name: object) -> str:
    if not isinstance(name, str) or not name or "[" in name or "]" in name:
        raise UsageError("A parameter's name is text, is not empty and holds no brackets.")
    return _encodable("A parameter's name", name)


def _text(name: str, value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _encodable(name, value)
        case int():
            return str(value)
        case float() if value == value and abs(value) != float("inf"):
            return format(Decimal(repr(value)), "f")
        case Decimal() if value.is_finite():
            return format(value, "f")
        case datetime() if value.tzinfo is not None:
            return str(int(value.timestamp()))
    raise UsageError(
        f"{name}: a value of type {type(value).__name__} cannot be sent. Give text, a finite number, true or false, or a time with its zone."
    )


def _encodable(name: str, text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{name}: the text holds half a character. Write it in UTF-8."
            ) from None
    return text


def to_query(form: Form) -> str:
    """The fields as a query string, or as the body of a form."""
    return urlencode(form).replace("%5B", "[").replace("%5D", "]")  # readable, as the SDK has them


def path_to(path: str, object_id: str, place: str = "{id}") -> str:
    """Put an id into a path such as `/v1/customers/{id}`. Raises `UsageError` for what cannot be an
    id.
    """
    if (
        not isinstance(object_id, str)
        or not 0 < len(object_id) <= LONGEST_ID
        or set(object_id) == {"."}
        or not object_id.isprintable()
        or object_id != object_id.strip()
    ):
        raise UsageError("This cannot be the id of an object: copy it from Stripe's Dashboard.")
    return path.replace(place, quote(object_id, safe=""))


def redact(sentence: str, form: Form) -> str:
    """Replace what was sent by the names of its fields, ids of Stripe's aside; then whatever looks
    like an e-mail address or a key.
    """
    names = {value.casefold(): name for name, value in _secrets(form)}
    if names:
        whole = (re.escape(value) for value in sorted(names, key=len, reverse=True))
        parts = (rf"(?<!\w){v}(?!\w)" if len(v) < CERTAIN else v for v in whole)
        pattern = re.compile("|".join(parts), re.IGNORECASE)
        sentence = pattern.sub(lambda match: f"<{names.get(match[0].casefold(), '...')}>", sentence)
    return KEY.sub("<key>", ADDRESS.sub("<e-mail address>", sentence))


def _secrets(form: Form) -> Iterator[tuple[str, str]]:
    for name, value in form:
        for part in (value, *(_QUOTED.findall(value) if name == "query" else ())):
            if len(part) >= SHORTEST_SECRET and part not in PLAIN and not _ID.fullmatch(part):
                yield name, part
