"""The account's webhook endpoints, and which events go to them in which shape."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..samples.values import Random
from ..state.account import Account
from ..state.event_log import Event
from .sender import Delivery, Sender, WebhookEndpoint


class Webhooks:
    """`hooks` are in the order in which they were made."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.rng = Random(
            f"webhooks {account.seed}"
        )  # its own, so that endpoints do not change what happens
        self.rng.account = account.id
        self.endpoints: dict[str, WebhookEndpoint] = {}
        self.sender = Sender()

    def publish(self, event: Event, body: Callable[[str, int], bytes]) -> None:
        """Send an event to all that want its type; `body` is it in an API version, pending at so
        many endpoints.
        """
        wanting = [hook for hook in self.endpoints.values() if hook.wants(event.type)]
        shapes: dict[str, bytes] = {}
        for hook in wanting:
            version = hook.object["api_version"] or self.account.api_version
            if version not in shapes:
                raw = body(version, len(wanting))
                shapes[version] = msgspec.json.format(raw, indent=2) if self.account.indent else raw
            self.sender.enqueue(Delivery(hook, event.id, shapes[version]), self.account.faults)
