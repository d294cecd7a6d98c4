"""A stretch of the account's life."""

from __future__ import annotations

from .account import Account


def live(account: Account, seconds: int, changes: int) -> list[tuple[str, str, str]]:
    raise NotImplementedError
