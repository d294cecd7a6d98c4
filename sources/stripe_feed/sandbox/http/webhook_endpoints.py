"""`/v1/webhook_endpoints`: create, list, retrieve, update and delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ..protocol.errors import Refusal, bad_choice, missing, required, unknown_parameters
from ..protocol.event_types import TYPES
from ..protocol.parameters import Params, boolean, query
from ..samples.values import Object
from ..state.api_versions import check_version
from ..webhooks.post import is_loopback
from ..webhooks.sender import WebhookEndpoint
from ..world import World
from .lists import envelope, page_of_list

MAX_ENDPOINTS = 16
CREATED = frozenset(
    {"api_version", "connect", "description", "enabled_events", "expand", "metadata", "url"}
)
UPDATED = frozenset({"description", "disabled", "enabled_events", "expand", "metadata", "url"})


def create_endpoint(account: World, path: str, id: str, params: Params) -> bytes:
    """Create an endpoint. Only this answer has its secret."""
    _check_known(params, CREATED)
    for name in ("url", "enabled_events"):
        if not params.get(name):
            raise required(name)
    webhooks = account.webhooks
    fields: Object = {
        "id": webhooks.rng.id("we"),
        "object": "webhook_endpoint",
        "api_version": None,
        "application": None,
        "created": account.now,
        "description": None,
        "enabled_events": [],
        "livemode": account.livemode,
        "metadata": {},
        "status": "enabled",
        "url": "",
    }
    fields |= _fields(account, params, fields)
    connect = fields.pop("connect", False)
    if len(webhooks.endpoints) >= MAX_ENDPOINTS:
        raise Refusal(
            400,
            f"You have reached the maximum of {MAX_ENDPOINTS} {account.mode} webhook endpoints.",
        )
    endpoint = WebhookEndpoint(fields, f"whsec_{webhooks.rng.word(32)}", connect)
    webhooks.endpoints[endpoint.id] = endpoint
    return msgspec.json.encode(fields | {"secret": endpoint.secret})


def list_endpoints(account: World, path: str, id: str, params: Params) -> bytes:
    newest = [
        msgspec.json.encode(endpoint.object)
        for endpoint in reversed(account.webhooks.endpoints.values())
    ]
    page, has_more = page_of_list(newest, query(params, ()), "webhook endpoint")
    return envelope(path, page, has_more)


def retrieve_endpoint(account: World, path: str, id: str, params: Params) -> bytes:
    _check_known(params, frozenset({"expand"}))
    return msgspec.json.encode(_find_endpoint(account, id).object)


def update_endpoint(account: World, path: str, id: str, params: Params) -> bytes:
    _check_known(params, UPDATED)
    endpoint = _find_endpoint(account, id)
    endpoint.object = endpoint.object | _fields(account, params, endpoint.object)
    if not endpoint.enabled:
        account.webhooks.sender.forget(endpoint)
    return msgspec.json.encode(endpoint.object)


def delete_endpoint(account: World, path: str, id: str, params: Params) -> bytes:
    _check_known(params, frozenset({"expand"}))
    endpoint = _find_endpoint(account, id)
    del account.webhooks.endpoints[id]
    endpoint.object = endpoint.object | {"status": "disabled"}
    account.webhooks.sender.forget(endpoint)
    return msgspec.json.encode({"id": id, "object": "webhook_endpoint", "deleted": True})


def _find_endpoint(account: World, id: str) -> WebhookEndpoint:
    if id not in account.webhooks.endpoints:
        raise missing("webhook endpoint", id)
    return account.webhooks.endpoints[id]


def _check_known(params: Params, names: frozenset[str]) -> None:
    if unknown := [name for name in params if name not in names]:
        raise unknown_parameters(unknown)


def _fields(account: World, params: Params, before: Object) -> Object:
    """The fields that the parameters set."""
    fields = {
        name: read(account, params[name], before)
        for name, read in READERS.items()
        if name in params
    }
    if "disabled" in fields:
        fields["status"] = "disabled" if fields.pop("disabled") else "enabled"
    return fields


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Refusal(400, f"Invalid string: {value}", param=name)
    return value


def _url(account: World, value: Any, before: Object) -> str:
    url = _text("url", value)
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not url.isascii() or not url.isprintable() or " " in url:
        raise Refusal(400, f"Invalid URL: {url}", "url_invalid", "url")
    if account.livemode and parts.scheme != "https":
        raise Refusal(
            400,
            f'Invalid URL: {url}. URLs in livemode must begin with "https://"',
            "url_invalid",
            "url",
        )
    if not is_loopback(parts.hostname or ""):
        raise Refusal(
            400,
            f"Invalid URL: {url}. The sandbox sends webhooks to loopback addresses only.",
            "url_invalid",
            "url",
        )
    return url


def _types(account: World, value: Any, before: Object) -> list[str]:
    if not isinstance(value, list) or not value:
        raise Refusal(400, "Invalid array", param="enabled_events")
    for index, type in enumerate(value):
        if type != "*" and type not in TYPES:
            raise bad_choice(f"enabled_events[{index}]", (*TYPES, "*"))
    return value


def _metadata(account: World, value: Any, before: Object) -> dict[str, str]:
    """Merge the given keys. An empty value removes its key; an empty string removes all keys."""
    if value == "":
        return {}
    if not isinstance(value, dict):
        raise Refusal(400, "Invalid object", param="metadata")
    merged = before["metadata"] | {
        key: _text(f"metadata[{key}]", value) for key, value in value.items()
    }
    return {key: value for key, value in merged.items() if value}


def _version(account: World, value: Any, before: Object) -> str:
    try:
        return check_version(_text("api_version", value))
    except ValueError as error:
        raise Refusal(400, f"Invalid API version: {error}", param="api_version") from error


READERS: dict[str, Callable[[World, Any, Object], Any]] = {
    "url": _url,
    "enabled_events": _types,
    "description": lambda account, given, before: _text("description", given) or None,
    "metadata": _metadata,
    "api_version": _version,
    "connect": lambda account, given, before: boolean("connect", given),
    "disabled": lambda account, given, before: boolean("disabled", given),
}
