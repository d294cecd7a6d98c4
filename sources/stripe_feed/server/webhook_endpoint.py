"""Create and test the Stripe webhook endpoint, subscribed to the events stripe-feed uses."""

from __future__ import annotations

import json
import secrets
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
from ..extract.options import resource_names
from ..resources import RESOURCES

ENDPOINTS_PATH = "/v1/webhook_endpoints"
SAMPLE_EVENT = "customer.updated"
DEAUTHORIZED = "account.application.deauthorized"  # an account has revoked the access


class WebhookEndpoint(msgspec.Struct, frozen=True):
    """A webhook endpoint in Stripe. `secret` signs its webhooks; Stripe shows it only once."""

    id: str
    url: str
    enabled_events: list[str]
    secret: str | None = None


class _EndpointList(msgspec.Struct):
    data: list[WebhookEndpoint]


_endpoint_decoder = msgspec.json.Decoder(WebhookEndpoint)
_list_decoder = msgspec.json.Decoder(_EndpointList)


def events_for(resources: Sequence[str] | None = None) -> list[str]:
    """Return the event types used for these resources (the core ones by default), without repetitions."""
    return list(
        dict.fromkeys(
            event for name in resource_names(resources) for event in RESOURCES[name].events
        )
    )


def register(
    api: Api, url: str, resources: Sequence[str] | None = None, *, connect: bool = False
) -> WebhookEndpoint:
    """Create a webhook endpoint in Stripe for the events of these resources, at the pinned API
    version. `connect`: for those of all connected accounts, and not of the own one
    (https://docs.stripe.com/connect/webhooks).

    The key must be allowed to write endpoints (`rak_webhook_write`). Raises `UsageError` if an
    endpoint with this URL exists and the key may see it: its secret cannot be read again.
    """
    target = check_url(url, allow_private=not api.live)
    endpoints: list[WebhookEndpoint] = []
    with suppress(NotReadable):
        endpoints = api.get(ENDPOINTS_PATH, {"limit": 100}, _list_decoder.decode).value.data
    for endpoint in endpoints:
        if endpoint.url == url:
            raise UsageError(
                f"{endpoint.id} already has this URL at {target.host}. Remove it in Stripe first, or use its secret."
            )
    params: dict[str, Any] = {
        "url": url,
        "enabled_events": [*events_for(resources), *([DEAUTHORIZED] if connect else [])],
        "api_version": api.version,
        **({"connect": True} if connect else {}),
    }
    try:
        return api.post(
            ENDPOINTS_PATH, {**params, "description": "stripe-feed"}, _endpoint_decoder.decode
        ).value
    except RequestRefused as refusal:
        about = ", ".join(one for one in (refusal.code, refusal.param) if one) or "no reason given"
        raise SetupError(
            f"Stripe refused this endpoint ({about}). Give a public https URL; an account has at most 16 endpoints."
        ) from refusal


def send_test_event(url: str, secret: str, now: Callable[[], float] = time.time) -> AttemptResult:
    """Send a signed sample to a webhook URL, as Stripe would; its event does not exist, so it
    changes nothing.
    """
    event_id = f"evt_test_{secrets.token_hex(8)}"
    body = json.dumps(
        {
            "id": event_id,
            "object": "event",
            "type": SAMPLE_EVENT,
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
