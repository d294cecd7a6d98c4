"""`POST /actions/{resource}/{verb}`: one action per request, for tools that speak HTTP. Off unless the
server is started with `--allow-actions`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response

from ..errors import (
    NotFound,
    OutcomeUnknown,
    PermissionMissing,
    RateLimited,
    RequestRefused,
    StripeFeedError,
    TryLater,
    UsageError,
)
from ..resources.writable import WRITABLE
from ..write.result import ActionResult
from ..write.verbs import verbs_of
from .auth import error_json
from .context import RETRY_AFTER, context_of, read_body

log = logging.getLogger("stripe_feed")

_STATUSES: tuple[tuple[type[StripeFeedError], int], ...] = (
    (OutcomeUnknown, 502),
    (RateLimited, 429),
    (TryLater, 503),
    (PermissionMissing, 403),
    (NotFound, 404),
    (RequestRefused, 422),
    (UsageError, 400),
)
"""What an action that failed is answered with; the first class that fits."""


async def act(request: Request) -> Response:
    """Run an action and answer its result as JSON."""
    actions = context_of(request).settings.actions
    if actions is None:
        return error_json(404, "Actions are off: start the server with --allow-actions.")
    resource, verb = request.path_params["resource"], request.path_params["verb"]
    if resource not in WRITABLE or verb not in verbs_of(WRITABLE[resource]):
        return error_json(404, "There is no such action; `stripe-feed action schema` prints all.")
    body = await read_body(request)
    if isinstance(body, Response):
        return body
    order = _order(body, request.headers.get("idempotency-key"))
    try:
        result = await run_sync(partial(actions.run, resource, verb, **order))
    except UsageError:
        raise
    except StripeFeedError as error:  # no key, another account's copy
        return error_json(_status(error), str(error))
    log.info("%s: %s (%s)", result.action, result.status, result.id or "no id")
    return _response(result, flat=request.query_params.get("flat") == "true")


def _order(body: bytes, key: str | None) -> dict[str, Any]:
    """What is asked for."""
    try:
        given = json.loads(body or b"{}", parse_float=Decimal)  # amounts stay exact
    except (ValueError, RecursionError):
        raise UsageError("The body is no JSON.") from None
    if not isinstance(given, Mapping):
        raise UsageError('The body is a JSON object such as {"id": "cus_...", "set": {...}}.')
    if key is not None:
        given = {**given, "idempotency_key": key}
    return dict(given)


def _response(result: ActionResult, flat: bool) -> Response:
    status = 200 if result.ok else _status(result.error)
    headers = {"Retry-After": RETRY_AFTER} if status in (429, 503) else None
    content = msgspec.json.encode(result.to_dict(flat), enc_hook=str)
    return Response(content, status, headers, "application/json")


def _status(error: StripeFeedError | None) -> int:
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
