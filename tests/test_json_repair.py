"""What is JSON but no text for a database is written out; what is broken stays broken."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stripe_feed.api.client import decode_body
from stripe_feed.api.json_repair import _MAX_DEPTH

DECODE = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read(body: bytes) -> Any:
    return {name: msgspec.json.decode(raw) for name, raw in decode_body(DECODE, body).items()}


@pytest.mark.parametrize(
    ("sent", "read_as"),
    [
        (rb'"half \ud83d"', r"half \ud83d"),
        (rb'"\uDE00 \ud83d\ude00"', "\\uDE00 \N{GRINNING FACE}"),
        (rb'"\\ud83d"', r"\ud83d"),
        (rb'"\\\ud83d"', r"\\ud83d"),
        (rb'{"\ud83d": [{"\ud83e": 1}]}', {r"\ud83d": [{r"\ud83e": 1}]}),
        (b'"tab\tand\x01"', "tab\tand\x01"),
        (b"[NaN, -Infinity, Infinity, 1]", ["NaN", "-Infinity", "Infinity", 1]),
        (rb'"NaN \ud83d"', r"NaN \ud83d"),
    ],
)
def test_what_is_no_text_is_written_out(sent: bytes, read_as: Any) -> None:
    """Wherever it is, keys included; two that differ stay two."""
    assert read(b'{"a": %s, "b": 2}' % sent) == {"a": read_as, "b": 2}


def test_a_body_that_can_be_read_is_left_as_it_is() -> None:
    """To the byte."""
    body = rb'{"a": "\ud83d\ude00 \u0000 NaN", "b": [ 1.50, 1e3 ]}'
    assert {name: bytes(raw) for name, raw in decode_body(DECODE, body).items()} == {
        "a": rb'"\ud83d\ude00 \u0000 NaN"',
        "b": b"[ 1.50, 1e3 ]",
    }


@pytest.mark.parametrize("levels", [300, 1_000, 50_000])
@pytest.mark.parametrize(
    ("before", "after"),
    [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]"), (b'{"a":\n ', b"\n" + b" " * 200 + b"}")],
)
def test_what_lies_deep_is_a_string_that_holds_its_json(
    levels: int, before: bytes, after: bytes
) -> None:
    """Readers have no stack for it; brackets in strings do not count."""
    deep = before * levels + rb'"]}\"[{"' + after * levels
    found = read(b'{"a": %s, "b": "[[[["}' % deep)

    assert found["b"] == "[[[["
    inner = found["a"]
    for _ in range(_MAX_DEPTH - 1):
        inner = inner[0] if isinstance(inner, list) else inner["a"]
    assert isinstance(inner, str) and inner.encode() in deep


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"a": "x',
        rb'{"a": "\ud83d',
        b'{"a": 1} x',
        b'{"a": NaN',
        b'{"a": ' + b"[" * 2_000,
    ],
)
def test_what_is_broken_stays_broken(body: bytes) -> None:
    """It is asked for again."""
    with pytest.raises(msgspec.DecodeError):
        read(body)


def test_what_is_no_utf_8_is_broken() -> None:
    """Also where its bytes would not be looked at."""
    with pytest.raises(UnicodeDecodeError):
        read(b'{"a": "\xed\xa0\xbd"}')
