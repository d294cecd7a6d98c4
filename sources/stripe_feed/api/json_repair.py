"""JSON that is no text for a database: what no reader can hold is written out inside a string, and
nothing is lost.

Half of a surrogate pair (`"\\ud83d"`, valid JSON) becomes its escape as text, and so do control
characters; `NaN` and `Infinity` become strings, and so does what is nested deeper than a reader's
stack.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

T = TypeVar("T")

MOST_LEVELS = 100
SIGNS_OF_DEPTH = (b"}" * 16, b"]" * 16, b"]}" * 8, b" " * 200)  # cheap to look for
TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]|-?\b(?:NaN|Infinity)\b', re.DOTALL)
ESCAPE = re.compile(
    rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u([dD][89a-fA-F]..)|\\.|([\x00-\x1f])", re.DOTALL
)


def decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    """Decode a body, written out where it cannot be read as it is. Raises what `decode` raises, and
    where it is no UTF-8.
    """
    body.decode()  # what stays bytes is not looked at otherwise
    if any(sign in body for sign in SIGNS_OF_DEPTH):
        body = flattened(body)
    try:
        return decode(body)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, RecursionError):
        body = flattened(written_out(body))
    try:
        return decode(body)
    except RecursionError:
        raise msgspec.DecodeError("brackets without end") from None


def written_out(body: bytes) -> bytes:
    """A body without what is no text: half pairs, control characters, and numbers that JSON lacks."""
    return TOKEN.sub(_token, body)


def _token(found: re.Match[bytes]) -> bytes:
    text = found[0]
    if text.startswith(b'"'):
        return ESCAPE.sub(_escape, text)
    return text if text in b"[]{}" else b'"%s"' % text


def _escape(found: re.Match[bytes]) -> bytes:
    half, control = found.groups()
    if half is not None:
        return b"\\\\u" + half
    return found[0] if control is None else b"\\u00%02x" % ord(control)


def flattened(body: bytes) -> bytes:
    """A body in which what lies deeper than `MOST_LEVELS` is a string that holds its JSON."""
    pieces, at = [], 0
    for start, end in _deep(body):
        pieces += [body[at:start], msgspec.json.encode(body[start:end].decode())]
        at = end
    return b"".join([*pieces, body[at:]]) if pieces else body


def _deep(body: bytes) -> Iterator[tuple[int, int]]:
    level = start = 0
    for token in TOKEN.finditer(body):
        if token[0] in (b"[", b"{"):
            level += 1
            if level == MOST_LEVELS + 1:
                start = token.start()
        elif token[0] in (b"]", b"}"):
            if level == MOST_LEVELS + 1:
                yield start, token.end()
            level -= 1
