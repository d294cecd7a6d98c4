"""What requests share: the settings, the connections to the store, the reading of bodies, and
faults as answers.
"""

from __future__ import annotations

import logging
import random
import secrets as chance
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

from ..errors import Fenced, PositionLost, UsageError
from ..feed.feed import Feed
from ..feed.lookups import LookupUnavailable
from ..feed.storage.store import FeedStore
from ..feed.storage.store_errors import Unusable
from ..triggers.trigger import Trigger
from .auth import refused
from .metrics import Late

log = logging.getLogger("stripe_feed")

MOST_BYTES = 1_000_000  # of a body; Stripe's webhooks have some ten thousand
BODY_SECONDS = 10.0  # in which a body has to come
SPREAD = 1.4  # up to so many times that: what comes all at once is not refused all at once
RETRY_AFTER = "5"
FAULTS = (
    HTTPException,
    UsageError,
    PositionLost,
    Fenced,
    LookupUnavailable,
    Unusable,
    sqlite3.Error,
)
WORDS = {404: "There is no such page.", 405: "This is not done here with this method."}

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Serving:
    """What is served, and who may ask.

    `token`: what every route but `/health` and `/stripe` asks for. `secrets` are those of the
    webhook endpoint at Stripe; none: no webhooks. `counts`: what strangers did, for `/metrics`.
    `keep_bodies`: whether the key cannot read events, so that a webhook's body is all there is.
    `rung` is called, in a thread, after an event was stored. `health` tells `synced_at` (Unix
    seconds) and `error` (a class) of the reading. `stopped` ends streams and waits. `poll` and
    `heartbeat` are seconds.
    """

    feed: Feed
    token: str = field(repr=False)
    secrets: Sequence[str] = field(default=(), repr=False)
    triggers: Sequence[Trigger] = ()
    keep_bodies: Callable[[], bool] = lambda: False
    rung: Callable[[], object] = lambda: None
    health: Callable[[], Mapping[str, Any]] = dict
    counts: Counter[str] = field(default_factory=Counter)
    now: Callable[[], float] = time.time
    stopped: threading.Event = field(default_factory=threading.Event)
    poll: float = 0.25
    heartbeat: float = 15.0


class Desk:
    """What requests share: the settings, connections of their own to the store, and how far the
    feed is.

    Webhooks have a connection to themselves: they never wait for a long question.
    """

    def __init__(self, settings: Serving) -> None:
        self.settings = settings
        self.store, self.door = FeedStore(settings.feed.path), FeedStore(settings.feed.path)
        self.key, self.late = chance.token_urlsafe(24), Late()
        self._head, self._looked_at = 0, float("-inf")

    def close(self) -> None:
        """Close the connections."""
        self.store.close()
        self.door.close()

    async def head(self) -> int:
        """The newest offset, looked up once per `poll` for all who wait."""
        if anyio.current_time() >= self._looked_at + self.settings.poll:
            self._looked_at = anyio.current_time()
            self._head = await run_sync(lambda: self.store.head)
        return self._head

    async def ask(
        self, question: Callable[Concatenate[FeedStore, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What a function makes of the store, in a thread."""
        return await run_sync(partial(question, self.store, *args, **kwargs))


async def answer_to(request: Request, fault: Exception) -> Response:
    """One of `FAULTS` as an answer."""
    match fault:
        case HTTPException():
            return refused(
                fault.status_code,
                WORDS.get(fault.status_code, fault.detail),
                **(fault.headers or {}),
            )
        case UsageError():
            return refused(400, str(fault))
        case Fenced():
            return refused(409, str(fault))
        case PositionLost():
            return refused(410, str(fault))
        case LookupUnavailable():
            return refused(503, str(fault), Retry_After=RETRY_AFTER)
    log.warning("The feed store cannot be used (%s).", type(fault).__name__)
    return refused(503, "The feed store cannot be used now. Try again.", Retry_After=RETRY_AFTER)


def desk_of(request: Request) -> Desk:
    """The desk of the app that is asked."""
    desk: Desk = request.app.state.desk
    return desk


async def body_of(request: Request, most: int = MOST_BYTES) -> bytes | Response:
    """The body, or the refusal of one that is too long or comes too slowly: its rest is not read."""
    too_long = refused(413, f"The body is longer than {most:,} bytes.", Connection="close")
    told = request.headers.get("content-length", "0")
    if not told.isdecimal() or len(told) > 19 or int(told) > most:
        return too_long
    found = bytearray()
    try:
        with anyio.fail_after(BODY_SECONDS * random.uniform(1, SPREAD)):
            async for piece in request.stream():
                found += piece
                if len(found) > most:
                    return too_long
    except TimeoutError:
        return refused(408, "The body did not come in time.", Connection="close")
    return bytes(found)
