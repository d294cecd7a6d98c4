"""Numbers in messages."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A number with its noun, which takes an s unless it is one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
