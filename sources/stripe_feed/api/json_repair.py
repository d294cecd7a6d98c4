"""Rewrite JSON that databases or JSON readers cannot hold, without losing anything.

Half of a surrogate pair (`"\\ud83d"`, valid JSON) and control characters become their escapes as
text. `NaN`, `Infinity` and values nested deeper than a reader's stack become strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

_MAX_DEPTH = 100
DEPTH_HINTS = (b"}" * 16, b"]" * 16, b"]}" * 8, b" " * 200)  # cheap to search for
TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]|-?\b(?:NaN|Infinity)\b', re.DOTALL)
ESCAPE = re.compile(
    rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u([dD][89a-fA-F]..)|\\.|([\x00-\x1f])", re.DOTALL
)


def escape_unreadable(body: bytes) -> bytes:
    """Escape half surrogate pairs and control characters; quote numbers that JSON does not have."""
    return TOKEN.sub(_fix_token, body)


def _fix_token(match: re.Match[bytes]) -> bytes:
    text = match[0]
    if text.startswith(b'"'):
        return ESCAPE.sub(_fix_escape, text)
    return text if text in b"[]{}" else b'"%s"' % text


def _fix_escape(match: re.Match[bytes]) -> bytes:
    half, control = match.groups()
    if half is not None:
        return b"\\\\u" + half
    return match[0] if control is None else b"\\u00%02x" % ord(control)


def flatten_deep(body: bytes) -> bytes:
    """Replace each value deeper than `MAX_DEPTH` by a string that holds its JSON."""
    pieces, at = [], 0
    for start, end in _deep_spans(body):
        pieces += [body[at:start], msgspec.json.encode(body[start:end].decode())]
        at = end
    return b"".join([*pieces, body[at:]]) if pieces else body


def _deep_spans(body: bytes) -> Iterator[tuple[int, int]]:
    level = start = 0
    for token in TOKEN.finditer(body):
        if token[0] in (b"[", b"{"):
            level += 1
            if level == _MAX_DEPTH + 1:
                start = token.start()
        elif token[0] in (b"]", b"}"):
            if level == _MAX_DEPTH + 1:
                yield start, token.end()
            level -= 1
