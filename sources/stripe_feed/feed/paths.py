"""Paths into the JSON of an object: `status`, `items.data.0.price.id`, `metadata["app.plan"]`.

Names are joined with dots. Metadata keys may contain dots themselves: `metadata.app.plan` also
means the key `app.plan` if the object has it. Quotes allow any other character in a key; they do
not make another path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..errors import UsageError

MAX_LENGTH = 500  # characters
_MAX_DEPTH = 50  # names

QUOTED = r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\''
STEP = rf"\[\s*(?:{QUOTED}|[0-9]{{1,9}})\s*\]|\.(?:{QUOTED})"
PATH_PREFIX = re.compile(
    rf"(?:{STEP}|[^|:])*"
)  # of a placeholder: what follows the path begins with | or :
LIST_ITEM = re.compile(rf"(?:{STEP}|[^,])+")
NEXT_NAME = re.compile(
    rf"\[\s*(?P<index>{QUOTED}|[0-9]{{1,9}})\s*\]|\.(?P<quoted>{QUOTED})(?=[.\[]|$)|\.(?P<name>[^.\[]*)",
    re.DOTALL,
)


def normalize_path(text: str) -> str:
    """Return a path, quoted or not, as names joined with dots. Raises `UsageError`."""
    text = text.strip()
    if not text or len(text) > MAX_LENGTH:
        raise UsageError(
            f"A path is between 1 and {MAX_LENGTH} characters long, such as status or metadata.plan."
        )
    names, end, dotted = list[str](), 0, f".{text}"
    while end < len(dotted):
        match = NEXT_NAME.match(dotted, end)
        if match is None:
            raise UsageError(
                f'The path {text!r} cannot be read at character {end}. Write it like items.data.0 or metadata["a.b"].'
            )
        if (
            match["name"] == "" and "metadata" not in names
        ):  # only keys of the account's own hold dots
            raise UsageError(f"The path {text!r} has an empty name at character {max(end, 1)}.")
        names.append(_unquoted(match["index"] or match["quoted"] or match["name"]))
        end = match.end()
    if len(names) > _MAX_DEPTH:
        raise UsageError(f"The path {text!r} has more than {_MAX_DEPTH} names.")
    return ".".join(names)


def _unquoted(name: str) -> str:
    return (
        re.sub(r"\\(.)", r"\1", name[1:-1], flags=re.DOTALL)
        if re.fullmatch(QUOTED, name, re.DOTALL)
        else name
    )


def split_prefix(text: str) -> tuple[str, str]:
    """Split a text after its leading path, at the first unquoted `|` or `:`."""
    match = PATH_PREFIX.match(text)
    end = match.end() if match else 0
    return text[:end], text[end:]


def split_paths(texts: Sequence[str]) -> list[str]:
    """Split `a,b` and repetitions into one list; a comma in quotes is part of a name."""
    return [item.strip() for text in texts for item in LIST_ITEM.findall(text) if item.strip()]


def value_at(image: Any, path: str) -> Any:
    """Return the value at a path of names joined with dots (a number is an array index); None if
    there is none.
    """
    return lookup(image, path.split("."), counts=True)


def lookup(value: Any, names: Sequence[str | int], counts: bool = False) -> Any:
    """Return the value below these names; several names joined by dots may be one key. `counts`:
    digits index arrays.
    """
    if not names:
        return value
    first, *others = names
    if isinstance(value, list):
        index = (
            int(first)
            if isinstance(first, int)
            or (counts and first.isascii() and first.isdigit() and len(first) < 10)
            else -1
        )
        return lookup(value[index], others, counts) if 0 <= index < len(value) else None
    if not isinstance(value, dict) or isinstance(first, int):
        return None
    for count in range(1, len(names) + 1):
        if count > 1:
            if isinstance(names[count - 1], int):
                return None
            first = f"{first}.{names[count - 1]}"
        if first in value and (nested := lookup(value[first], names[count:], counts)) is not None:
            return nested
    return None
