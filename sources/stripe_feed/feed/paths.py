"""Paths into the JSON of an object: `status`, `items.data.0.price.id`, `metadata["app.plan"]`.

Names are joined with dots, and keys of metadata may hold dots themselves: `metadata.app.plan` is
the key `app.plan` as well, where the object has it. Quotes are for what else is odd in a key; they
make no other path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..errors import UsageError

LONGEST = 500  # characters
DEEPEST = 50  # names

QUOTED = r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\''
STEP = rf"\[\s*(?:{QUOTED}|[0-9]{{1,9}})\s*\]|\.(?:{QUOTED})"
OUTER = re.compile(
    rf"(?:{STEP}|[^|:])*"
)  # of a placeholder: what follows the path begins with | or :
LISTED = re.compile(rf"(?:{STEP}|[^,])+")
NEXT = re.compile(
    rf"\[\s*(?P<index>{QUOTED}|[0-9]{{1,9}})\s*\]|\.(?P<quoted>{QUOTED})(?=[.\[]|$)|\.(?P<name>[^.\[]*)",
    re.DOTALL,
)


def plain(text: str) -> str:
    """A path as people write it, with quotes or without, as the names joined with dots. Raises
    `UsageError`.
    """
    text = text.strip()
    if not text or len(text) > LONGEST:
        raise UsageError(
            f"A path is between 1 and {LONGEST} characters long, such as status or metadata.plan."
        )
    names, end, whole = list[str](), 0, f".{text}"
    while end < len(whole):
        found = NEXT.match(whole, end)
        if found is None:
            raise UsageError(
                f'The path {text!r} cannot be read at character {end}. Write it like items.data.0 or metadata["a.b"].'
            )
        if (
            found["name"] == "" and "metadata" not in names
        ):  # only keys of the account's own hold dots
            raise UsageError(f"The path {text!r} has an empty name at character {max(end, 1)}.")
        names.append(_unquoted(found["index"] or found["quoted"] or found["name"]))
        end = found.end()
    if len(names) > DEEPEST:
        raise UsageError(f"The path {text!r} has more than {DEEPEST} names.")
    return ".".join(names)


def _unquoted(name: str) -> str:
    return (
        re.sub(r"\\(.)", r"\1", name[1:-1], flags=re.DOTALL)
        if re.fullmatch(QUOTED, name, re.DOTALL)
        else name
    )


def outer(text: str) -> tuple[str, str]:
    """A text that begins with a path, as the path and what follows from a `|` or `:` on that is not
    quoted.
    """
    found = OUTER.match(text)
    end = found.end() if found else 0
    return text[:end], text[end:]


def listed(texts: Sequence[str]) -> list[str]:
    """`a,b` and repetitions as one list; a comma in quotes is part of a name."""
    return [one.strip() for text in texts for one in LISTED.findall(text) if one.strip()]


def value_at(image: Any, path: str) -> Any:
    """The value at a path of names joined with dots (a number counts into an array); None where
    there is none.
    """
    return find(image, path.split("."), counts=True)


def find(value: Any, names: Sequence[str | int], counts: bool = False) -> Any:
    """The value behind names, one after the other, or several joined by dots; `counts`: a text of
    digits counts into an array.
    """
    if not names:
        return value
    first, *others = names
    if isinstance(value, list):
        at = (
            int(first)
            if isinstance(first, int)
            or (counts and first.isascii() and first.isdigit() and len(first) < 10)
            else -1
        )
        return find(value[at], others, counts) if 0 <= at < len(value) else None
    if not isinstance(value, dict) or isinstance(first, int):
        return None
    for count in range(1, len(names) + 1):
        if count > 1:
            if isinstance(names[count - 1], int):
                return None
            first = f"{first}.{names[count - 1]}"
        if first in value and (found := find(value[first], names[count:], counts)) is not None:
            return found
    return None
