"""The account with its event log and its webhook endpoints."""

from __future__ import annotations

from .state.account import Account
from .state.event_log import EventLog
from .webhooks.endpoints import Webhooks


class World(Account):
    """An account that records its events and sends them to its webhook endpoints."""

    def __init__(self, seed: int, now: int, start: int, livemode: bool, real_time: bool) -> None:
        super().__init__(seed, now, start, livemode, real_time)
        self.webhooks = Webhooks(self)
        self.event_log = EventLog(self, self.webhooks.publish)
