"""HTTP/1.1 on loopback, written for speed: one asyncio protocol without a framework."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import NamedTuple

from ..protocol.messages import Answer, Request
from ..state.account import Account

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden",
           404: "Not Found", 409: "Conflict", 429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable"}  # fmt: skip
HEAD_LIMIT = 65_536


Handler = Callable[[Request], Answer]


class Connection(asyncio.Protocol):
    """Answers the requests of one connection in order, however their bytes arrive."""

    def __init__(
        self,
        account: Account,
        answer: Handler,
        loop: asyncio.AbstractEventLoop,
        all: set[Connection],
    ) -> None:
        self.account, self.answer, self.loop, self.all = account, answer, loop, all
        self.buffer = bytearray()
        self.busy = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.all.add(self)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, error: Exception | None) -> None:
        self.all.discard(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.work()

    def work(self) -> None:
        while not self.busy and not self.transport.is_closing():
            request = self.next_request()
            if request is None:
                break
            self.serve(request)
        self.account.cpu_seconds = time.thread_time()

    def next_request(self) -> Request | None:
        """The next complete request; None if it has not arrived yet."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self.buffer) > HEAD_LIMIT:
                self.transport.close()
            return None
        first, *lines = self.buffer[:end].decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        try:
            method, target, _ = first.split(" ")
            length = int(headers.get("content-length", "0"))
        except ValueError:
            self.transport.close()
            return None
        if len(self.buffer) < end + 4 + length:
            return None
        body = bytes(self.buffer[end + 4 : end + 4 + length])
        del self.buffer[: end + 4 + length]
        return Request(method, target, headers, body)

    def serve(self, request: Request) -> None:
        answer = self.answer(request)
        if answer.delay > 0:
            self.busy = True
            self.loop.call_later(answer.delay, self.send_later, request, answer)
        else:
            self.send(request, answer)

    def send_later(self, request: Request, answer: Answer) -> None:
        self.busy = False
        if not self.transport.is_closing():
            self.send(request, answer)
            self.work()

    def send(self, request: Request, answer: Answer) -> None:
        if answer.fate == "reset":
            self.reset()
            return
        last = request.headers.get("connection", "").lower() == "close"
        body, headers = answer.body, dict(answer.headers)
        if self.account.gzip and "gzip" in request.headers.get("accept-encoding", ""):
            body, headers = gzip.compress(body, 1), headers | {"Content-Encoding": "gzip"}
        head = self.head(answer.status, headers, len(body), last)
        if answer.fate == "truncate":
            self.transport.write(head + body[: len(body) // 2])
            self.transport.close()
            return
        self.transport.write(head + body)
        if last:
            self.transport.close()

    def head(self, status: int, headers: dict[str, str], length: int, last: bool) -> bytes:
        """Status line and headers. `Date` is the sandbox's time when the answer is sent."""
        lines = [
            f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}",
            "Server: nginx",
            f"Date: {formatdate(self.account.now, usegmt=True)}",
            "Content-Type: application/json",
            f"Content-Length: {length}",
            f"Connection: {'close' if last else 'keep-alive'}",
            "Cache-Control: no-cache, no-store",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def reset(self) -> None:
        """Close so that the client gets a reset instead of the end of the stream."""
        linger = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        self.transport.abort()


class Listener(NamedTuple):
    """A running server, its connections, and its base URL."""

    server: asyncio.Server
    connections: set[Connection]
    url: str

    async def close(self) -> None:
        """Stop listening and abort the open connections."""
        self.server.close()
        for connection in list(self.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


async def listen(account: Account, answer: Handler, port: int) -> Listener:
    loop, connections = asyncio.get_running_loop(), set[Connection]()
    server = await loop.create_server(
        lambda: Connection(account, answer, loop, connections), "127.0.0.1", port, backlog=512
    )
    return Listener(server, connections, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


@contextmanager
def serve_in_thread(account: Account, answer: Handler, port: int) -> Iterator[str]:
    """Serve in a thread while the block runs; gives the base URL."""
    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(listen(account, answer, port))
    thread = threading.Thread(target=loop.run_forever, name="sandbox", daemon=True)
    thread.start()
    try:
        yield listening.url
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(listening.close())
        loop.close()
        account.cpu_before, account.cpu_seconds = account.cpu_before + account.cpu_seconds, 0.0
