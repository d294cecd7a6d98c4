"""One ASGI app: Stripe's webhooks in; changes, health, numbers and a page out. It needs the extra
`[serve]`.

The loop never waits for the store: what reads or writes it runs in a thread.
"""

from __future__ import annotations

import logging
import re
import secrets as chance
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
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
from .auth import check_token, gate, refused
from .changes_api import acknowledge, changes, row, stream
from .context import FAULTS, Desk, Serving, answer_to, body_of, desk_of

__all__ = ["Serving", "app_of"]

log = logging.getLogger("stripe_feed")

EVENT_ID = re.compile(r"evt_[A-Za-z0-9_]{1,250}")


def app_of(settings: Serving) -> Starlette:
    """The app; the store is open while it runs. Raises `UsageError` and `SetupError` for a bad
    token or secret.
    """
    check_token(settings.token)
    if settings.secrets:
        check_secrets(settings.secrets)

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        app.state.desk = desk = Desk(settings)
        try:
            yield
        finally:
            desk.close()

    routes = [
        Route("/stripe", webhook, methods=["POST"]),
        Route("/changes", changes),
        Route("/changes/stream", stream),
        Route("/changes/ack", acknowledge, methods=["POST"]),
        Route("/health", health),
        Route("/metrics", numbers),
        Route("/objects/{table}/{id:path}", row),
        Route("/", home),
        Route("/retry", retry, methods=["POST"]),
        *(Route(path, static(kind, content)) for path, kind, content in page.files()),
    ]
    app = Starlette(
        routes=routes,
        lifespan=running,
        middleware=[Middleware(gate, token=settings.token, counts=settings.counts)],
        exception_handlers=dict.fromkeys(FAULTS, answer_to),
    )
    app.router.redirect_slashes = False
    return app


def check_secrets(secrets: Sequence[str]) -> None:
    """Raise `SetupError` for secrets that sign nothing."""
    with suppress(BadSignature):
        verify_stripe(b"", "t=0,v1=", secrets, 0)


class _Event(msgspec.Struct):
    id: str
    object: str


async def webhook(request: Request) -> Response:
    """`POST /stripe`: verify, store the event's id, ring, answer. What happened is read through the
    API, as ever.
    """
    desk = desk_of(request)
    settings = desk.settings
    if not settings.secrets:
        return refused(
            404,
            "No webhooks are taken here: start it with the signing secret of the endpoint at Stripe.",
        )
    body = await body_of(request)
    if isinstance(body, Response):
        return body
    try:
        verify_stripe(
            body, request.headers.get("stripe-signature", ""), settings.secrets, settings.now()
        )
    except BadSignature as fault:
        settings.counts["webhook_refused"] += 1
        log.warning("A webhook was refused. %s", fault)
        return refused(400, "The signature does not hold.")
    event_id = event_in(body)
    if event_id is None:
        settings.counts["webhook_refused"] += 1
        return refused(400, "The body is no event of Stripe's.")
    await run_sync(_rung, desk, event_id, body)
    settings.counts["webhook_taken"] += 1
    return JSONResponse({"received": True})


def event_in(body: bytes) -> str | None:
    """The id of the event that a webhook's body is."""
    try:
        event = msgspec.json.decode(body, type=_Event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return event.id if event.object == "event" and EVENT_ID.fullmatch(event.id) else None


def _rung(desk: Desk, event_id: str, body: bytes) -> None:
    settings = desk.settings
    kept, head = body if settings.keep_bodies() else None, msgspec.json.encode(decode_head(body))
    if webhook_inbox.ring(desk.door, event_id, settings.now(), kept, head):
        settings.rung()


async def health(request: Request) -> Response:
    """`GET /health`: 200, or 503 where the copy is not kept up to date."""
    desk = desk_of(request)
    told = dict(desk.settings.health())
    try:
        head = await run_sync(lambda: desk.door.head)  # which no long question holds
    except (Unusable, sqlite3.Error) as fault:
        return JSONResponse({"status": "failing", **told, "error": type(fault).__name__}, 503)
    failing = told.get("error") is not None
    return JSONResponse(
        {"status": "failing" if failing else "ok", "head": head, **told}, 503 if failing else 200
    )


async def numbers(request: Request) -> Response:
    """`GET /metrics`."""
    desk = desk_of(request)
    settings = desk.settings
    found = await desk.ask(
        metrics.metrics,
        settings.triggers,
        settings.health(),
        desk.late,
        settings.counts,
        settings.now(),
    )
    return Response(found, 200, media_type=metrics.CONTENT_TYPE)


async def home(request: Request) -> Response:
    """`GET /`: the page."""
    desk = desk_of(request)
    settings = desk.settings
    shown = await desk.ask(page.look)
    made = partial(page.page, shown, settings.triggers, settings.health(), desk.key, settings.now())
    return Response(await run_sync(made), 200, media_type="text/html; charset=utf-8")


def static(kind: str, content: bytes) -> Callable[[Request], Response]:
    """A file that the page loads."""
    return lambda request: Response(content, 200, media_type=kind)


async def retry(request: Request) -> Response:
    """`POST /retry`: put a dead letter back into its lane; the page's own form only."""
    desk = desk_of(request)
    body = await body_of(request)
    if isinstance(body, Response):
        return body
    form = dict(parse_qsl(body.decode(errors="replace")))
    if not chance.compare_digest(form.get("key", "").encode(), desk.key.encode()):
        return refused(403, "This form is of another run of the server. Load the page anew.")
    await desk.ask(outbox.retry, desk.settings.now(), [form.get("message_id", "")])
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"retried": form["message_id"]})
    return RedirectResponse("/", 303)
