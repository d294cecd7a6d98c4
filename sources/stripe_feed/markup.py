"""HTML of texts that come from strangers: only `tag` makes markup, and it escapes every text in it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

UNSAFE_CHARACTERS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f\x85\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)  # they change how the text around them is shown
_VOID = ("img", "input", "link", "meta")  # they have no end


class Html(str):
    """Markup. Any other text is escaped."""


def tag(name: str, /, *inside: object, **attributes: object) -> Html:
    """Make an element. Underscores in attribute names become hyphens; attributes with None are left
    out.
    """
    formatted = "".join(
        f' {key.strip("_").replace("_", "-")}="{escape_text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(
        f"<{name}{formatted}>{''.join(map(escape_text, inside))}{'' if name in _VOID else f'</{name}>'}"
    )


def escape_text(value: object) -> str:
    """Keep markup; escape anything else, and replace characters that change how others are shown."""
    return (
        value
        if isinstance(value, Html)
        else html.escape(UNSAFE_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", str(value)))
    )


def join_elements(parts: Iterable[Html]) -> Html:
    """Join elements."""
    return Html("".join(parts))
