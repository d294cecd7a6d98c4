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
        self.platform: Webhooks | None = None

    def publish(self, event: Event, body: Callable[[str, int], bytes]) -> None:
        """Send an event to all endpoints that subscribe to its type: to the account's own, and to
        the platform's that are for connected accounts. `body` renders it for an API version and a
        number of pending webhooks.
        """
        self._send(event, body, connect=False)
        if self.platform is not None:
            account = f'"object":"event","account":"{self.account.id}",'.encode()

            def with_account(version: str, pending: int) -> bytes:
                return body(version, pending).replace(b'"object":"event",', account, 1)

            self.platform._send(event, with_account, connect=True)

    def _send(self, event: Event, body: Callable[[str, int], bytes], connect: bool) -> None:
        subscribed = [
            endpoint
            for endpoint in self.endpoints.values()
            if endpoint.connect == connect and endpoint.subscribes_to(event.type)
        ]
        bodies: dict[str, bytes] = {}
        for endpoint in subscribed:
            version = endpoint.object["api_version"] or self.account.api_version
            if version not in bodies:
                raw = body(version, len(subscribed))
                bodies[version] = msgspec.json.format(raw, indent=2) if self.account.indent else raw
            self.sender.enqueue(Delivery(endpoint, event.id, bodies[version]), self.account.faults)
