"""The ASGI app: receives Stripe's webhooks; serves changes, health, metrics and a page. It needs
the extra `[serve]`.

The event loop never waits for the store: all access to it runs in a thread.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from secrets import compare_digest
from urllib.parse import parse_qsl

import msgspec
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from ..delivery import outbox
from ..delivery.signatures import BadSignature, verify_stripe
from ..extract.events.webhook import decode_head
from ..feed.storage.store_errors import Unusable
from . import metrics, page, webhook_inbox
from .actions_api import act
from .auth import AuthMiddleware, check_token, error_json
from .changes_api import get_changes, post_acknowledgement, row, stream
from .context import (
    HANDLED_ERRORS,
    ServerConfig,
    ServerContext,
    context_of,
    error_response,
    read_body,
)

__all__ = ["ServerConfig", "create_app"]

log = logging.getLogger("stripe_feed")

EVENT_ID = re.compile(r"evt_[A-Za-z0-9_]{1,250}")


def create_app(settings: ServerConfig) -> Starlette:
    """Return the app; the store is open while it runs. Raises `UsageError` and `SetupError` for a
    bad token or secret.
    """
    check_token(settings.token)
    if settings.secrets:
        check_secrets(settings.secrets)

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        app.state.context = context = ServerContext(settings)
        try:
            yield
        finally:
            context.close()

    routes = [
        Route("/stripe", webhook, methods=["POST"]),
        Route("/changes", get_changes),
        Route("/changes/stream", stream),
        Route("/changes/ack", post_acknowledgement, methods=["POST"]),
        Route("/actions/{resource}/{verb}", act, methods=["POST"]),
        Route("/health", health),
        Route("/metrics", metrics_text),
        Route("/objects/{table}/{id:path}", row),
        Route("/", home),
        Route("/retry", retry_message, methods=["POST"]),
        *(Route(path, static(kind, content)) for path, kind, content in page.page_files()),
    ]
    app = Starlette(
        routes=routes,
        lifespan=running,
        middleware=[Middleware(AuthMiddleware, token=settings.token, counts=settings.counts)],
        exception_handlers=dict.fromkeys(HANDLED_ERRORS, error_response),
    )
    app.router.redirect_slashes = False
    return app


def check_secrets(secrets: Sequence[str]) -> None:
    """Raise `SetupError` for unusable secrets."""
    with suppress(BadSignature):
        verify_stripe(b"", "t=0,v1=", secrets, 0)


NO_EVENT = (
    "The body is not a snapshot event. If the endpoint in Stripe sends thin events, make another one "
    "with the payload style snapshot."
)


class _Event(msgspec.Struct):
    id: str
    object: str


async def webhook(request: Request) -> Response:
    """Answer `POST /stripe`: verify, store the event's id, trigger a sync. The event itself is read
    through the API.
    """
    context = context_of(request)
    settings = context.settings
    return await take_webhook(
        request, settings.secrets, settings.counts, settings.now, partial(_record, context)
    )


async def take_webhook(
    request: Request,
    secrets: Sequence[str],
    counts: Counter[str],
    now: Callable[[], float],
    record: Callable[[str, bytes], object],
) -> Response:
    """Answer a webhook: verify its signature, and record its event's id and body, in a thread."""
    if not secrets:
        return error_json(
            404,
            "Webhooks are off: start the server with the signing secret of the endpoint in Stripe.",
        )
    body = await read_body(request)
    if isinstance(body, Response):
        return body
    try:
        verify_stripe(body, request.headers.get("stripe-signature", ""), secrets, now())
    except BadSignature as fault:
        counts["webhook_refused"] += 1
        log.warning("A webhook was refused. %s", fault)
        return error_json(400, "The signature is invalid.")
    event_id = event_id_of(body)
    if event_id is None:
        counts["webhook_refused"] += 1
        log.warning("A webhook was refused. %s", NO_EVENT)
        return error_json(400, NO_EVENT)
    await run_sync(record, event_id, body)
    counts["webhook_taken"] += 1
    return JSONResponse({"received": True})


def event_id_of(body: bytes) -> str | None:
    """Return the event id in a webhook's body."""
    try:
        event = msgspec.json.decode(body, type=_Event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return event.id if event.object == "event" and EVENT_ID.fullmatch(event.id) else None


def _record(context: ServerContext, event_id: str, body: bytes) -> None:
    settings = context.settings
    kept, head = body if settings.keep_bodies() else None, msgspec.json.encode(decode_head(body))
    if webhook_inbox.record(context.webhook_store, event_id, settings.now(), kept, head):
        settings.wake_up()


async def health(request: Request) -> Response:
    """Answer `GET /health`: 200, or 503 if the copy is not kept up to date."""
    context = context_of(request)
    state = dict(context.settings.health())
    try:
        head = await run_sync(lambda: context.webhook_store.head)  # which no long question holds
    except (Unusable, sqlite3.Error) as fault:
        return JSONResponse({"status": "failing", **state, "error": type(fault).__name__}, 503)
    failing = state.get("error") is not None
    return JSONResponse(
        {"status": "failing" if failing else "ok", "head": head, **state}, 503 if failing else 200
    )


async def metrics_text(request: Request) -> Response:
    """Answer `GET /metrics`."""
    context = context_of(request)
    settings = context.settings
    text = await context.in_thread(
        metrics.metrics,
        settings.triggers,
        settings.health(),
        context.late,
        settings.counts,
        settings.now(),
    )
    return Response(text, 200, media_type=metrics.CONTENT_TYPE)


async def home(request: Request) -> Response:
    """Answer `GET /`: the page."""
    context = context_of(request)
    settings = context.settings
    shown = await context.in_thread(page.read_overview)
    made = partial(
        page.render_page,
        shown,
        settings.triggers,
        settings.health(),
        context.key,
        settings.now(),
        await run_sync(settings.headline),
    )
    return Response(await run_sync(made), 200, media_type="text/html; charset=utf-8")


def static(kind: str, content: bytes) -> Callable[[Request], Response]:
    """Return a handler for a file that the page loads."""
    return lambda request: Response(content, 200, media_type=kind)


async def retry_message(request: Request) -> Response:
    """Answer `POST /retry`: requeue a dead message; only the page's own form may."""
    context = context_of(request)
    body = await read_body(request)
    if isinstance(body, Response):
        return body
    form = dict(parse_qsl(body.decode(errors="replace")))
    if not compare_digest(form.get("key", "").encode(), context.key.encode()):
        return error_json(403, "This form is from another run of the server. Reload the page.")
    await context.in_thread(outbox.retry, context.settings.now(), [form.get("message_id", "")])
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"retried": form["message_id"]})
    return RedirectResponse("/", 303)
