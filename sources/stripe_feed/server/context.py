"""What requests share: the configuration, the connections to the store, reading of bodies, and
errors as responses.
"""

from __future__ import annotations

import logging
import random
import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio
from anyio.to_thread import run_sync
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ..errors import Fenced, OffsetOutOfRange, UsageError
from ..feed.feed import Feed
from ..feed.lookups import LookupUnavailable
from ..feed.storage.store import FeedStore
from ..feed.storage.store_errors import Unusable
from ..report.reading import Headline
from ..triggers.models.model_trigger import AnyTrigger
from ..write.actions import Actions
from .auth import error_json
from .metrics import LateCounter

log = logging.getLogger("stripe_feed")

MAX_BODY_BYTES = 1_000_000  # of a body; Stripe's webhooks have some ten thousand
_BODY_SECONDS = 10.0  # in which a body has to come
_JITTER = 1.4  # up to so many times that: what comes all at once is not refused all at once
RETRY_AFTER = "5"
HANDLED_ERRORS = (
    HTTPException,
    UsageError,
    OffsetOutOfRange,
    Fenced,
    LookupUnavailable,
    Unusable,
    sqlite3.Error,
)
STATUS_TEXTS = {404: "There is no such page.", 405: "Method not allowed."}

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What is served, and who may access it.

    `token`: required by every route except `/health` and `/stripe`. `secrets`: of the webhook
    endpoint in Stripe; if empty, webhooks are refused. `counts`: counters of outside requests, for
    `/metrics`. `keep_bodies`: whether the key cannot read events, so that a webhook's body is the
    only source. `wake_up` is called, in a thread, after an event was stored. `health` returns
    `synced_at` (Unix seconds) and `error` (a class) of syncing, `headline` the figures of the
    models. `stopped` ends streams and waits. `actions`: what `POST /actions/...` runs; None turns
    it off. `poll` and `heartbeat` are seconds.
    """

    feed: Feed
    token: str = field(repr=False)
    secrets: Sequence[str] = field(default=(), repr=False)
    triggers: Sequence[AnyTrigger] = ()
    keep_bodies: Callable[[], bool] = lambda: False
    wake_up: Callable[[], object] = lambda: None
    health: Callable[[], Mapping[str, Any]] = dict
    headline: Callable[[], Headline | None] = lambda: None
    counts: Counter[str] = field(default_factory=Counter)
    now: Callable[[], float] = time.time
    stopped: threading.Event = field(default_factory=threading.Event)
    actions: Actions | None = None
    poll: float = 0.25
    heartbeat: float = 15.0


class ServerContext:
    """What requests share: the configuration, the server's own store connections, and the head of
    the feed.

    Webhooks have a connection of their own: they never wait for a long query.
    """

    def __init__(self, settings: ServerConfig) -> None:
        self.settings = settings
        self.store, self.webhook_store = (
            FeedStore(settings.feed.path),
            FeedStore(settings.feed.path),
        )
        self.key, self.late = secrets.token_urlsafe(24), LateCounter()
        self._head, self._looked_at = 0, float("-inf")

    def close(self) -> None:
        """Close the connections."""
        self.store.close()
        self.webhook_store.close()

    async def head(self) -> int:
        """Return the newest offset, read once per `poll` for all waiting clients."""
        if anyio.current_time() >= self._looked_at + self.settings.poll:
            self._looked_at = anyio.current_time()
            self._head = await run_sync(lambda: self.store.head)
        return self._head

    async def in_thread(
        self, question: Callable[Concatenate[FeedStore, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a function with the store, in a thread."""
        return await run_sync(partial(question, self.store, *args, **kwargs))


async def error_response(request: Request, fault: Exception) -> Response:
    """Return one of `HANDLED_ERRORS` as a response."""
    match fault:
        case HTTPException():
            return error_json(
                fault.status_code,
                STATUS_TEXTS.get(fault.status_code, fault.detail),
                **(fault.headers or {}),
            )
        case UsageError():
            return error_json(400, str(fault))
        case Fenced():
            return error_json(409, str(fault))
        case OffsetOutOfRange():
            return error_json(410, str(fault))
        case LookupUnavailable():
            return error_json(503, str(fault), Retry_After=RETRY_AFTER)
    log.warning("The feed store cannot be used (%s).", type(fault).__name__)
    return error_json(503, "The feed store cannot be used now. Try again.", Retry_After=RETRY_AFTER)


def context_of(request: Request) -> ServerContext:
    """Return the context of the request's app."""
    context: ServerContext = request.app.state.context
    return context


async def read_body(request: Request, most: int = MAX_BODY_BYTES) -> bytes | Response:
    """Return the body, or an error response if it is too long or too slow; the rest is not read."""
    too_long = error_json(413, f"The body is longer than {most:,} bytes.", Connection="close")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 19 or int(length) > most:
        return too_long
    body = bytearray()
    try:
        with anyio.fail_after(_BODY_SECONDS * random.uniform(1, _JITTER)):
            async for piece in request.stream():
                body += piece
                if len(body) > most:
                    return too_long
    except TimeoutError:
        return error_json(408, "The body did not come in time.", Connection="close")
    return bytes(body)
