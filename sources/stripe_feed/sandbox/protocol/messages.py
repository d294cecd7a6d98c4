"""A request and its answer, as the server passes them on."""

from __future__ import annotations

from typing import NamedTuple

from .faults import Fate


class Request(NamedTuple):
    """One request; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """One answer: how late it is sent, and what happens to it on the way."""

    status: int
    body: bytes
    headers: dict[str, str]
    delay: float = 0.0
    fate: Fate = ""
