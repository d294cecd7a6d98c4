"""The webhook endpoint at Stripe that rings our bell: made with exactly the events that the copy is
kept by, and tried.
"""

from __future__ import annotations

import json
import secrets as chance
import time
import urllib.parse
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from ..api.client import Api
from ..delivery.addresses import check_url
from ..delivery.signatures import stripe_header
from ..delivery.transports import AttemptResult, WebhookTransport
from ..errors import NotReadable, RequestRefused, SetupError, UsageError
from ..resources import RESOURCES
from ..sync_run import resource_names

PATH = "/v1/webhook_endpoints"
SAMPLE = "customer.updated"


class Registered(msgspec.Struct, frozen=True):
    """An endpoint at Stripe. `secret` is what its webhooks are signed with; Stripe shows it this
    once.
    """

    id: str
    url: str
    enabled_events: list[str]
    secret: str | None = None


class _Listed(msgspec.Struct):
    data: list[Registered]


_registered = msgspec.json.Decoder(Registered)
_listed = msgspec.json.Decoder(_Listed)


def events_for(resources: Sequence[str] | None = None) -> list[str]:
    """The events that the reader understands, of these resources (all by default), without
    repetitions.
    """
    return list(
        dict.fromkeys(
            event for name in resource_names(resources) for event in RESOURCES[name].events
        )
    )


def register(api: Api, url: str, resources: Sequence[str] | None = None) -> Registered:
    """Make an endpoint at Stripe for the events of these resources, at the pinned API version.

    The key must be allowed to write them (`rak_webhook_write`). Raises `UsageError` where one with
    this URL is there already, and the key may see that: its secret cannot be read again.
    """
    target = check_url(url, allow_private=not api.live)
    held: list[Registered] = []
    with suppress(NotReadable):
        held = api.get(PATH, {"limit": 100}, _listed.decode).value.data
    for one in held:
        if one.url == url:
            raise UsageError(
                f"{one.id} has this URL at {target.host} already. Remove it at Stripe first, or use its secret."
            )
    params: dict[str, Any] = {
        "url": url,
        "enabled_events": events_for(resources),
        "api_version": api.version,
    }
    try:
        return api.post(PATH, {**params, "description": "stripe-feed"}, _registered.decode).value
    except RequestRefused as refusal:
        about = ", ".join(one for one in (refusal.code, refusal.param) if one) or "no reason given"
        raise SetupError(
            f"Stripe does not take this endpoint ({about}). Give a public https URL; an account has at most 16 endpoints."
        ) from refusal


def ring(url: str, secret: str, now: Callable[[], float] = time.time) -> AttemptResult:
    """Send a signed sample to a webhook URL, as Stripe would; its event does not exist, so nothing
    changes by it.
    """
    event_id = f"evt_test_{chance.token_hex(8)}"
    body = json.dumps(
        {
            "id": event_id,
            "object": "event",
            "type": SAMPLE,
            "created": int(now()),
            "livemode": False,
            "data": {"object": {"id": "cus_test", "object": "customer"}},
        }
    ).encode()
    local = urllib.parse.urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    hook = WebhookTransport(url, allow_private=local, now=now)
    try:
        return hook.send(
            event_id,
            "webhook test",
            body,
            {"Stripe-Signature": stripe_header(int(now()), body, [secret])},
        )
    finally:
        hook.close()
