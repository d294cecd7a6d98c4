"""Metadata: keys are merged, `""` takes one or all away, and there are limits."""

from __future__ import annotations

from ..protocol.errors import Refusal
from ..protocol.parameters import Params

MOST_KEYS, LONGEST_KEY, LONGEST_VALUE = 50, 40, 500


def merged(before: dict[str, str], given: Params | None, name: str = "metadata") -> dict[str, str]:
    """`given` is None if the whole metadata is unset."""
    if given is None:
        return {}
    for key, value in given.items():
        if len(key) > LONGEST_KEY:
            raise Refusal(
                400, f"Invalid key: {key} must be a string under 40 characters", param=name
            )
        if len(value) > LONGEST_VALUE:
            raise Refusal(
                400, f"Invalid val: {value} must be a string under 500 characters", param=name
            )
    both = {key: value for key, value in (before | given).items() if value}
    if len(both) > MOST_KEYS:
        raise Refusal(
            400,
            f"Metadata can have up to {MOST_KEYS} keys, but you've set {len(both)}.",
            param=name,
        )
    return both
