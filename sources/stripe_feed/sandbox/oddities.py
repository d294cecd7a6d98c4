from __future__ import annotations
from .account import Account
from .founding import Sizes
def plant(account: Account, sizes: Sizes) -> None: ...
def count(account: Account) -> dict[str, int]: return {}
