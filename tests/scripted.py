"""A real HTTP server on loopback that answers from a script, and a proxy: for what only the wire
can show.
"""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CERTIFICATE = Path(__file__).with_name("loopback.pem")
NOW = 1_780_000_000


@dataclass(frozen=True)
class Answer:
    """One answer: whole, cut after so many bytes (`sends`), or none at all (`status` 0: the
    connection is dropped).
    """

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    date: str | None = formatdate(NOW, usegmt=True)
    sends: int | None = None
    meanwhile: Callable[[], None] | None = None  # called before the answer leaves


@dataclass(frozen=True)
class Seen:
    """One request as it came in; header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    method: str = "GET"
    body: str = ""


class Scripted:
    """Answers each request with the next answer; the last one stays."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[Answer] = []
        self.seen: list[Seen] = []
        self.reply: Callable[[Seen], Answer] | None = None  # instead of a script

    def next(self, request: Seen) -> Answer:
        self.seen.append(request)
        if self.reply is not None:
            return self.reply(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    scripted: Scripted

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 20  # head and body leave together, or each answer waits for an acknowledgement
    server: _Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.scripted.next(Seen(self.path, headers, self.command, body))
        self._send(answer)

    do_POST = do_DELETE = do_GET

    def _send(self, answer: Answer) -> None:
        if answer.meanwhile is not None:
            answer.meanwhile()
        if not answer.status:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = answer.body
        self.send_response_only(answer.status)
        if answer.headers.get("Content-Encoding") == "gzip":
            body = gzip.compress(body)
        for name, value in (
            ({"Date": answer.date} if answer.date else {}) | dict(answer.headers)
        ).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: answer.sends])
        self.close_connection = answer.sends is not None

    def do_CONNECT(self) -> None:
        """As a proxy: a tunnel to the host asked for."""
        self.server.scripted.next(
            Seen(self.path, {name.lower(): value for name, value in self.headers.items()})
        )
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as there:
            self.send_response_only(200)
            self.end_headers()
            self.wfile.flush()
            back = threading.Thread(target=_copy, args=(there, self.connection), daemon=True)
            back.start()
            _copy(self.connection, there)
            back.join()
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def scripted(*answers: Answer, tls: bool = False) -> Iterator[Scripted]:
    """Serve while the block runs."""
    server = _Server(("127.0.0.1", 0), _Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.scripted = Scripted(f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}")
    server.scripted.answers += answers
    thread = threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True)
    thread.start()
    try:
        yield server.scripted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
