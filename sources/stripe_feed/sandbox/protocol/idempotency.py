"""Idempotency keys: who asks again gets the first answer again, for a day."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .errors import reused_key
from .parameters import Params

DAY = 86_400


class Answered(NamedTuple):
    """One request that was carried out."""

    at: int
    path: str
    params: Params
    body: bytes


class Repeats:
    """Answers by key. What was refused is not kept: it may be asked for again, better."""

    def __init__(self) -> None:
        self.kept: dict[str, Answered] = {}

    def once(
        self, key: str, now: int, path: str, params: Params, do: Callable[[], bytes]
    ) -> tuple[bytes, bool]:
        """The answer, and whether it is a repeated one."""
        first = self.kept.get(key)
        if first is None or first.at < now - DAY:
            first = self.kept[key] = Answered(now, path, params, do())
            return first.body, False
        if first.path != path:
            raise reused_key(
                key, f"for the same endpoint they were first used for ('{path}' vs '{first.path}')"
            )
        if first.params != params:
            raise reused_key(key, "with the same parameters they were first used with")
        return first.body, True
