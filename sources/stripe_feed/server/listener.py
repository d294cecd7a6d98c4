"""The HTTP listener: bounded in connections, in the time that a client may take, and in what it
logs.

It needs the extra `[serve]`.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import SetupError

PATIENCE = 15.0  # seconds in which a client sends a whole request, and takes what it is answered
MOST_CONNECTIONS = 500
FILES_FOR_OTHERS = 300  # that reading, delivery and the store may have open
ACCEPTED_AT_ONCE = 64  # asyncio takes so many before it looks at one; each is a file
MOST_HEAD = 16_384  # bytes
QUIET = 60.0  # seconds between two log lines that say the same
MOST_LINES = 100  # different ones that are remembered


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises `SetupError` where it cannot."""
    try:
        found = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except (OSError, UnicodeError) as fault:
        why = getattr(fault, "strerror", None) or type(fault).__name__
        raise SetupError(
            f"Nobody can listen at {host}, port {port} ({why}). Choose another --host or --port."
        ) from None
    return found


def most_connections() -> int:
    """How many connections leave enough files for reading and delivery."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(20, min(MOST_CONNECTIONS, soft - FILES_FOR_OTHERS - ACCEPTED_AT_ONCE))


def bounded(most: int, patience: float, counts: Counter[str]) -> type[asyncio.Protocol]:
    """HTTP/1.1 in which nobody is waited for longer than `patience` seconds.

    A new connection beyond `most` ends the one that keeps us waiting longest. `counts["cut"]`: how
    many ended either way.
    """

    class Bounded(H11Protocol):
        waits_since: float | None = None  # None while the next move is ours

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.timer: asyncio.TimerHandle | None = None
            self._look()
            held = [
                one
                for one in self.connections
                if isinstance(one, Bounded) and not one.transport.is_closing()
            ]
            if len(held) > most:
                min(held, key=lambda one: one.waits_since or float("inf")).cut()

        def connection_lost(self, exc: Exception | None) -> None:
            self._rest()
            super().connection_lost(exc)

        def handle_events(self) -> None:
            super().handle_events()
            self._look()

        def on_response_complete(self) -> None:
            self._rest()
            super().on_response_complete()
            self._look()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._look()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._look()

        def cut(self) -> None:
            counts["cut"] += 1
            self._rest()
            self.transport.abort()

        def _look(self) -> None:
            """Begin to wait where the client has to send or to take something; what it sends in
            part does not begin anew.
            """
            answered = self.cycle is None or self.cycle.response_complete
            if (
                not (answered or self.cycle.more_body or self.flow.write_paused)
                or self.transport.is_closing()
            ):
                self._rest()
            elif self.timer is None:
                self.waits_since = self.loop.time()
                self.timer = self.loop.call_later(patience, self.cut)

        def _rest(self) -> None:
            self.waits_since = None
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

    return Bounded


class Seldom(logging.Filter):
    """Lets the same line through once a minute, and no traceback, which can hold data."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.now, self.said = now, dict[str, float]()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is new."""
        record.exc_info = record.exc_text = None
        line = record.getMessage()[:60]
        if self.now() < self.said.get(line, float("-inf")) + QUIET:
            return False
        if len(self.said) >= MOST_LINES:
            self.said.clear()
        self.said[line] = self.now()
        return True


@contextmanager
def seldom(*names: str) -> Iterator[None]:
    """Keep these loggers from filling a disk."""
    loggers, rule = [logging.getLogger(name) for name in names], Seldom()
    for one in loggers:
        one.addFilter(rule)
    try:
        yield
    finally:
        for one in loggers:
            one.removeFilter(rule)


def serve(
    app: ASGIApp,
    host: str,
    door: socket.socket,
    stopped: threading.Event,
    ready: Callable[[str], object],
    counts: Counter[str],
) -> None:
    """Answer until a signal comes, or `stopped`. `ready` gets the URL once requests are answered.

    Both signals must have handlers that return: at its end, uvicorn raises again what it heard.
    """

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready(f"http://{f'[{host}]' if ':' in host else host}:{door.getsockname()[1]}")

        def handle_exit(self, sig: int, frame: Any) -> None:
            stopped.set()  # streams end by it
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        http=bounded(most_connections(), PATIENCE, counts),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        backlog=ACCEPTED_AT_ONCE,
        h11_max_incomplete_event_size=MOST_HEAD,
    )
    with seldom("uvicorn.error", "asyncio", "stripe_feed"):
        Server(config).run([door])
