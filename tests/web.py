"""The app behind a real server on loopback, in a thread, and a plain client for it."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvicorn

from stripe_feed.delivery.endpoint_config import EndpointConfig
from stripe_feed.feed.change import SOURCE_COLUMNS, entry_from_row
from stripe_feed.feed.feed import Feed
from stripe_feed.feed.filters import compile_filter
from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.server.app import ServerConfig, create_app
from stripe_feed.server.listener import bounded_protocol
from stripe_feed.triggers.trigger import Trigger
from tests.feed_kills import Row

TOKEN = "0123456789abcdef-token"
BOUND = 20.0  # seconds: nothing here waits longer
NOW = 1_767_229_200.0  # an hour after the first change of `feed_kills`


@dataclass(frozen=True)
class Answer:
    """What came back; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """Its one line; fails where there is something else."""
        (words,) = self.json.values()
        assert list(self.json) == ["error"] and "\n" not in words
        return str(words)


@dataclass(frozen=True)
class Web:
    """A server that runs. `ask` opens a connection of its own for each request, and reads no
    stream: it would not end.

    It shows the token, where nothing else is given as `Authorization`; an empty one shows nothing.
    """

    port: int
    serving: ServerConfig

    @property
    def store(self) -> FeedStore:
        return self.serving.feed.store

    @property
    def shown(self) -> bytes:
        """The token as a header line, for plain sockets."""
        return f"Authorization: Bearer {self.serving.token}\r\n".encode()

    def headers(self, given: Mapping[str, str]) -> dict[str, str]:
        shown = {"Authorization": f"Bearer {self.serving.token}", **given}
        return {
            name.replace("_", "-"): value
            for name, value in shown.items()
            if value or name != "Authorization"
        }

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        with closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND)
        ) as connection:
            connection.request(method, path, body, self.headers(headers))
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(
                answer.status,
                told,
                b"" if "event-stream" in told.get("content-type", "") else answer.read(),
            )

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any = b"", **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)

    @contextmanager
    def opened(self, path: str, **headers: str) -> Iterator[http.client.HTTPResponse]:
        """An answer whose body is still to come; leaving hangs up."""
        with closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND)
        ) as connection:
            connection.request("GET", path, headers=self.headers(headers))
            with closing(connection.getresponse()) as answer:
                yield answer


class _Server(uvicorn.Server):
    """Ends at once when it is told to; uvicorn looks ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        self.loop, self.over = asyncio.get_running_loop(), asyncio.Event()
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.over.wait()

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.over.set)


@contextmanager
def served(feed: Feed, most: int = 500, patience: float = BOUND, **given: Any) -> Iterator[Web]:
    """The app on a free port; its clock stands. `most` and `patience`: see `bounded`."""
    serving = ServerConfig(feed, **{"token": TOKEN, "now": lambda: NOW, "poll": 0.01, **given})
    config = uvicorn.Config(
        create_app(serving),
        http=bounded_protocol(most, patience, serving.counts),
        log_level="critical",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=5,
        ws="none",
    )
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        server = _Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        assert server.ready.wait(BOUND)
        try:
            yield Web(listener.getsockname()[1], serving)
        finally:
            serving.stopped.set()
            server.end()
            thread.join(BOUND)
    assert not thread.is_alive()


@contextmanager
def a_feed(path: Path, *rows: Row) -> Iterator[Feed]:
    """A feed without a destination."""
    with Feed(None, FeedStore(path / "feed.sqlite"), now=lambda: NOW) as feed:
        add(feed, *rows)
        yield feed


def add(feed: Feed, *rows: Row) -> None:
    feed.store.append(
        [
            entry_from_row([{**row, "_dlt_load_id": "17.5"}[name] for name in SOURCE_COLUMNS])
            for row in rows
        ]
    )


def a_trigger(name: str, url: str = "https://example.com/hook?key=hidden", **given: Any) -> Trigger:
    return replace(Trigger(name, compile_filter(), EndpointConfig("url", url)), **given)


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


def fields(stream: http.client.HTTPResponse, count: int) -> list[dict[str, str]]:
    """So many blocks of an event stream; fewer where it ends."""
    found: list[dict[str, str]] = []
    block: dict[str, str] = {}
    with suppress(http.client.IncompleteRead):
        while len(found) < count and (line := stream.readline().decode()):
            if line == "\n":
                found, block = [*found, block], {}
            else:
                name, _, value = line.rstrip("\n").partition(":")
                block[name] = value.removeprefix(" ")
    return found
