"""The HTTP listener: limits connections, the time a client may take, and its own log lines.

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

CLIENT_TIMEOUT = (
    15.0  # seconds in which a client sends a whole request, and takes what it is answered
)
MAX_CONNECTIONS = 500
RESERVED_FILES = 300  # that reading, delivery and the store may have open
BACKLOG = 64  # asyncio takes so many before it looks at one; each is a file
MAX_HEAD_BYTES = 16_384  # bytes
REPEAT_SECONDS = 60.0  # seconds between two log lines that say the same
MAX_LINES = 100  # different ones that are remembered


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there. Raises `SetupError` if that fails."""
    try:
        server = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except (OSError, UnicodeError) as fault:
        why = getattr(fault, "strerror", None) or type(fault).__name__
        raise SetupError(
            f"Nobody can listen at {host}, port {port} ({why}). Choose another --host or --port."
        ) from None
    return server


def connection_limit() -> int:
    """Return how many connections leave enough files for syncing and delivery."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(20, min(MAX_CONNECTIONS, soft - RESERVED_FILES - BACKLOG))


def bounded_protocol(most: int, patience: float, counts: Counter[str]) -> type[asyncio.Protocol]:
    """Return an HTTP/1.1 protocol that waits for no client longer than `patience` seconds.

    A new connection beyond `most` closes the one that has kept the server waiting longest.
    `counts["cut"]` counts both.
    """

    class Bounded(H11Protocol):
        waits_since: float | None = None  # None while the next move is ours

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.timer: asyncio.TimerHandle | None = None
            self._look()
            open_connections = [
                one
                for one in self.connections
                if isinstance(one, Bounded) and not one.transport.is_closing()
            ]
            if len(open_connections) > most:
                min(open_connections, key=lambda one: one.waits_since or float("inf")).cut()

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


class RateLimitedLog(logging.Filter):
    """Pass the same line once a minute, and no traceback, which can hold data. A record that is
    marked `rare` always passes: two versions of a file can be wrong in two ways within a minute.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.now, self.said = now, dict[str, float]()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is new."""
        record.exc_info = record.exc_text = None
        if getattr(record, "rare", False):
            return True
        line = record.getMessage()[:60]
        if self.now() < self.said.get(line, float("-inf")) + REPEAT_SECONDS:
            return False
        if len(self.said) >= MAX_LINES:
            self.said.clear()
        self.said[line] = self.now()
        return True


@contextmanager
def limit_logs(*names: str) -> Iterator[None]:
    """Keep these loggers from filling a disk."""
    loggers, rule = [logging.getLogger(name) for name in names], RateLimitedLog()
    for logger in loggers:
        logger.addFilter(rule)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(rule)


def run_listener(
    app: ASGIApp,
    host: str,
    bound: socket.socket,
    stopped: threading.Event,
    ready: Callable[[str], object],
    counts: Counter[str],
) -> None:
    """Serve until a signal comes, or `stopped`. `ready` gets the URL once requests are answered.

    Both signals must have handlers that return: at its end, uvicorn raises the signals it received.
    """

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready(f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}")

        async def on_tick(self, counter: int) -> bool:
            return await super().on_tick(counter) or stopped.is_set()

        def handle_exit(self, sig: int, frame: Any) -> None:
            stopped.set()  # streams end by it
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        http=bounded_protocol(connection_limit(), CLIENT_TIMEOUT, counts),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        backlog=BACKLOG,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )
    with limit_logs("uvicorn.error", "asyncio", "stripe_feed"):
        Server(config).run([bound])
