"""The account with its event log, its webhook endpoints, and the accounts that are connected to it."""

from __future__ import annotations

from .state.account import Account
from .state.event_log import EventLog
from .webhooks.endpoints import Webhooks


class World(Account):
    """An account that records its events and sends them to webhook endpoints: to its own, and to
    those of its platform that are for connected accounts.
    """

    def __init__(self, seed: int, now: int, start: int, livemode: bool, real_time: bool) -> None:
        super().__init__(seed, now, start, livemode, real_time)
        self.webhooks = Webhooks(self)
        self.event_log = EventLog(self, self.webhooks.publish)
        self.platform: World | None = None
        self.connected: dict[str, World] = {}  # those that have revoked the access included
        self.revoked: set[str] = set()

    def connect(self, account: World) -> None:
        """Let another account be reached with `Stripe-Account`. Its clock is that of the platform."""
        account.platform, account.lock = self, self.lock
        account.webhooks.platform = self.webhooks
        self.connected[account.id] = account

    def advance(self, seconds: int) -> None:
        """Move the clocks of the platform and of all its accounts."""
        if self.platform is not None:
            self.platform.advance(seconds)
            return
        super().advance(seconds)
        for account in self.connected.values():
            Account.advance(account, self.now - account.now)

    def is_allowed(self, key: str, permission: str) -> bool:
        if self.platform is not None and key not in self.permissions:
            return self.platform.is_allowed(key, permission)
        return super().is_allowed(key, permission)
