"""A receiver of webhooks on loopback that behaves well or badly, request by request, and remembers
all it was sent.
"""

from __future__ import annotations

import random
import select
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

BOUND = 30.0  # seconds: nothing here waits longer
PACE = 0.02  # seconds between the bytes of an answer that trickles

Fate = Literal[
    "",  # answers, and stays for the next request
    "close",  # answers, says that it closes and does
    "hang_up",  # answers, and closes without a word
    "reset",  # RST instead of an answer
    "hang",  # no answer until the sender gives up or the receiver is released
    "late",  # the same, then answers
    "cut",  # ends in the middle of the head
    "garbage",  # answers in no protocol
    "trickle_head",  # a byte now and then, before the status is known
    "trickle",  # the same, after the head
    "endless",  # a body that does not end
    "early",  # informational answers, then the answer, and stays
]


@dataclass(frozen=True)
class Behaviour:
    """What happens to one request. `takes`: the receiver has the message, whatever the sender gets
    to know of it.
    """

    status: int = 200
    fate: Fate = ""
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    body: bytes = b"{}"

    @property
    def takes(self) -> bool:
        return 200 <= self.status < 300 and self.fate != "hang"


OK = Behaviour()
ERROR = Behaviour(500)
GONE = Behaviour(410)
THROTTLED = Behaviour(429, headers={"Retry-After": "7"})
RESET = Behaviour(500, "reset")
TAKEN_THEN_RESET = Behaviour(200, "reset")
HANG = Behaviour(200, "hang")
LATE = Behaviour(200, "late")
CUT = Behaviour(500, "cut")
GARBAGE = Behaviour(500, "garbage")
TRICKLE = Behaviour(200, "trickle")
TRICKLE_HEAD = Behaviour(500, "trickle_head")
ENDLESS = Behaviour(200, "endless")
EARLY = Behaviour(200, "early")


def redirect(location: str, status: int = 302) -> Behaviour:
    return Behaviour(status, headers={"Location": location})


@dataclass(frozen=True)
class Received:
    """One request as it came in; header names are in lower case. `connection` numbers the
    connections from 1.
    """

    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def message_id(self) -> str:
        """Its `webhook-id`, else empty."""
        return self.headers.get("webhook-id", "")


Choose = Callable[[Received, int], Behaviour]


class Receiver:
    """`received` and `accepted` (2xx meant for it) are in the order of arrival. `script` is used up
    first, then `choose` decides.
    """

    def __init__(
        self, url: str, port: int, script: Iterable[Behaviour], choose: Choose | None
    ) -> None:
        self.url, self.port = url, port
        self.script = list(script)
        self.choose: Choose = choose or (lambda *_: OK)
        self.received: list[Received] = []
        self.accepted: list[Received] = []
        self.tries: dict[str, int] = {}
        self.names: list[str | None] = []  # asked for by TLS
        self.connections = 0
        self.arrived = threading.Semaphore(0)  # once per request
        self.released = threading.Event()
        self._turn = threading.Lock()

    def connected(self) -> int:
        with self._turn:
            self.connections += 1
            return self.connections

    def take(self, request: Received) -> Behaviour:
        """Remember a request and say what happens to it."""
        with self._turn:
            self.received.append(request)
            count = self.tries[request.message_id] = self.tries.get(request.message_id, 0) + 1
            behaviour = self.script.pop(0) if self.script else self.choose(request, count)
            if behaviour.takes:
                self.accepted.append(request)
        self.arrived.release()
        return behaviour


def at_random(chances: Mapping[Behaviour, float], seed: int) -> Choose:
    """Behaviours by chance, the same for the same message and try, however threads run; else `OK`."""

    def choose(request: Received, count: int) -> Behaviour:
        drawn = random.Random(f"{seed} {request.message_id} {count}").random()
        for behaviour, share in chances.items():
            drawn -= share
            if drawn < 0:
                return behaviour
        return OK

    return choose


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 512
    receiver: Receiver
    context: ssl.SSLContext | None = None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Senders that hang up are part of the tests."""


class _Handler(socketserver.StreamRequestHandler):
    timeout = BOUND
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        if self.server.context is not None:
            self.request.settimeout(BOUND)
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def handle(self) -> None:
        number = self.server.receiver.connected()
        with suppress(OSError):
            while (request := self.read(number)) and self.answer(
                self.server.receiver.take(request)
            ):
                pass

    def finish(self) -> None:
        super().finish()
        self.request.close()

    def read(self, number: int) -> Received | None:
        first = self.rfile.readline(65_536).decode("latin-1").split(" ")
        if len(first) != 3:
            return None
        headers: dict[str, str] = {}
        while line := self.rfile.readline(65_536).decode("latin-1").rstrip("\r\n"):
            name, _, value = line.partition(":")
            more = [headers[name.lower()]] if name.lower() in headers else []
            headers[name.lower()] = ", ".join([*more, value.strip()])
        return Received(
            first[1], headers, self.rfile.read(int(headers.get("content-length", "0"))), number
        )

    def answer(self, behaviour: Behaviour) -> bool:
        """Do it; whether the connection goes on."""
        fate, body = behaviour.fate, behaviour.body
        length = {"trickle": 1 << 20, "endless": 1 << 40}.get(fate, len(body))
        lines = [f"HTTP/1.1 {behaviour.status} Whatever", f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in behaviour.headers.items()] + [
            "Connection: close"
        ] * (fate == "close")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        match fate:
            case "reset":
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            case "hang":
                self.wait()
            case "late":
                self.wait()
                self.wfile.write(head + body)
            case "cut":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
            case "garbage":
                self.wfile.write(b"\x00\xff\x16\x03 what?\r\n\r\n")
            case "trickle_head":
                self.trickle(head + body)
            case "early":
                hints = "".join(
                    f"HTTP/1.1 {status} Soon\r\nLink: </style.css>\r\n\r\n"
                    for status in (100, 102, 103, 103)
                )
                self.wfile.write(hints.encode() + head + body)
            case "trickle":
                self.wfile.write(head)
                self.trickle(b" " * (1 << 20))
            case "endless":
                self.wfile.write(head)
                while not self.server.receiver.released.is_set():
                    self.wfile.write(b" " * 65_536)
            case _:
                self.wfile.write(head + body)
        return fate in ("", "early")

    def wait(self) -> None:
        """Until the sender hangs up or the receiver is released."""
        for _ in range(int(BOUND / PACE)):
            if (
                self.server.receiver.released.is_set()
                or select.select([self.connection], [], [], PACE)[0]
            ):
                return

    def trickle(self, data: bytes) -> None:
        for position in range(min(len(data), int(BOUND / PACE))):
            if self.server.receiver.released.wait(PACE):
                return
            self.wfile.write(data[position : position + 1])


@contextmanager
def receiving(
    *script: Behaviour, choose: Choose | None = None, certificate: Path | None = None
) -> Iterator[Receiver]:
    """Serve while the block runs; with TLS where a certificate (and its key, in one file) is given."""
    server = _Server(("127.0.0.1", 0), _Handler)
    port = server.server_address[1]
    server.receiver = Receiver(
        f"http{'s' if certificate else ''}://127.0.0.1:{port}/hook", port, script, choose
    )
    if certificate is not None:
        server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.context.load_cert_chain(certificate)
        server.context.sni_callback = lambda _, name, __: server.receiver.names.append(name)
    thread = threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True)
    thread.start()
    try:
        yield server.receiver
    finally:
        server.receiver.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
