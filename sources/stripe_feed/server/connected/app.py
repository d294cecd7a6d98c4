"""The ASGI app that receives the webhooks of connected accounts. It needs the extra `[serve]`."""

from __future__ import annotations

import secrets as random_bytes
import sqlite3
from collections.abc import Sequence

from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...feed.storage.store_errors import Unusable
from ..app import check_secrets, take_webhook
from ..auth import AuthMiddleware
from ..context import HANDLED_ERRORS, error_response
from .accounts import Accounts


def create_accounts_app(accounts: Accounts, secrets: Sequence[str]) -> Starlette:
    """Return the app: `POST /stripe` and `GET /health`. Raises `SetupError` for a bad secret."""
    if secrets:
        check_secrets(secrets)

    async def webhook(request: Request) -> Response:
        return await take_webhook(request, secrets, accounts.counts, accounts.now, accounts.receive)

    async def health(request: Request) -> Response:
        try:
            state = await run_sync(accounts.health)
        except (Unusable, sqlite3.Error) as fault:
            return JSONResponse({"status": "failing", "error": type(fault).__name__}, 503)
        is_failing = state["error"] is not None
        return JSONResponse(
            {"status": "failing" if is_failing else "ok", **state}, 503 if is_failing else 200
        )

    app = Starlette(
        routes=[Route("/stripe", webhook, methods=["POST"]), Route("/health", health)],
        # nobody knows the token: everything else is refused as elsewhere
        middleware=[
            Middleware(AuthMiddleware, token=random_bytes.token_hex(24), counts=accounts.counts)
        ],
        exception_handlers=dict.fromkeys(HANDLED_ERRORS, error_response),
    )
    app.router.redirect_slashes = False
    return app
