"""The account's webhook endpoints, and which events are sent to them in which API version."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..state.account import Account
from ..state.event_log import Event
from .sender import Delivery, Sender, WebhookEndpoint


class Webhooks:
    """`endpoints` are in the order of their creation."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.rng = account.generator("webhooks")
        self.endpoints: dict[str, WebhookEndpoint] = {}
        self.sender = Sender()

    def publish(self, event: Event, body: Callable[[str, int], bytes]) -> None:
        """Send an event to all endpoints that subscribe to its type. `body` renders it for an API
        version and a number of pending webhooks.
        """
        subscribed = [
            endpoint for endpoint in self.endpoints.values() if endpoint.subscribes_to(event.type)
        ]
        bodies: dict[str, bytes] = {}
        for endpoint in subscribed:
            version = endpoint.object["api_version"] or self.account.api_version
            if version not in bodies:
                raw = body(version, len(subscribed))
                bodies[version] = msgspec.json.format(raw, indent=2) if self.account.indent else raw
            self.sender.enqueue(Delivery(endpoint, event.id, bodies[version]), self.account.faults)
