"""Send one message to an endpoint: a payload goes in, an `AttemptResult` comes out. Threads may share
an endpoint and its transport.

They raise nothing for faults of the other side. Results hold no body, header, query, path
or secret.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import importlib
import inspect
import json
import os
import re
import signal
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timezone
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from socket import getaddrinfo
from typing import Any, Protocol

from ..errors import SetupError, Unreachable, UsageError
from .addresses import Blocked, Connections, Resolver, check_url
from .endpoint_config import (
    EndpointConfig,
    check_endpoint_url,
    header_fault,
    is_reference,
    lookups_of,
    payload_for,
    secret_variables,
)
from .payloads import Payload
from .signatures import standard_headers, stripe_header

_TIMEOUT = 15.0  # seconds for one message
RETRY_AFTER_SECONDS = 86_400.0
KILL_SECONDS = 2.0  # between asking a command to end and ending it
THROTTLED = (429, 502, 503, 504)
SECRET_NAMES = re.compile(
    r"^STRIPE_|(^|__)((SOURCES|DESTINATION)(__|$)|CREDENTIALS)"
)  # dlt's names hold two underscores


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """How an attempt ended. `code` is an HTTP status, or words such as timeout, reset, refused,
    blocked, exit 3, error ValueError.

    `retry_after`: seconds the endpoint asks to wait. `gone`: it wants no more messages.
    `throttled`: it is overloaded.
    """

    ok: bool
    code: str
    retry_after: float | None = None
    gone: bool = False
    throttled: bool = False
    note: str = ""


class Transport(Protocol):
    """A way to send messages."""

    def send(
        self, message_id: str, trigger: str, body: bytes, headers: Mapping[str, str]
    ) -> AttemptResult:
        """Try once."""

    def close(self) -> None:
        """Release open resources."""


class Endpoint:
    """Sends the messages of one trigger. Raises `SetupError` for missing secrets before anything is
    sent.

    `hidden`: names of environment variables that no command gets.
    """

    def __init__(
        self,
        trigger: str,
        deliver: EndpointConfig,
        now: Callable[[], float],
        hidden: Collection[str] = (),
        **network: Any,
    ) -> None:
        self.trigger, self.deliver, self.now = trigger, deliver, now
        self.body, self.related_tables = payload_for(deliver), lookups_of(deliver)
        self.secrets = [resolve_secret(reference) for reference in deliver.secrets]
        try:
            self.headers("msg_0", Payload(b""))
        except SetupError as fault:
            raise SetupError(f"deliver.secrets of {trigger}: {fault}") from None
        self.transport = _transport(
            deliver, now, {*hidden, *secret_variables([deliver])}, **network
        )
        is_secret = deliver.kind == "url" and is_reference(deliver.to)
        self.host = (
            check_url(_resolve_url(deliver), deliver.allow_private).host if is_secret else None
        )

    def headers(self, message_id: str, body: Payload) -> dict[str, str]:
        """Return the headers of a payload sent now: its type, the message's id, the time, and
        signatures if there are secrets.
        """
        at = int(self.now())
        headers = {
            "content-type": body.content_type,
            "webhook-id": message_id,
            "webhook-timestamp": str(at),
        }
        if self.secrets and self.deliver.format == "stripe":
            return {**headers, "stripe-signature": stripe_header(at, body.content, self.secrets)}
        return {
            **headers,
            **(
                standard_headers(message_id, at, body.content, self.secrets) if self.secrets else {}
            ),
        }

    def send(self, message_id: str, body: Payload) -> AttemptResult:
        """Try once."""
        outcome = self.transport.send(
            message_id, self.trigger, body.content, self.headers(message_id, body)
        )
        if self.host is None:
            return outcome
        return replace(
            outcome, note=outcome.note.replace(self.host, str(self.deliver.to))
        )  # all of the URL is secret

    def close(self) -> None:
        """Close connections and files."""
        self.transport.close()


def _transport(
    deliver: EndpointConfig, now: Callable[[], float], hidden: Collection[str], **network: Any
) -> Transport:
    match deliver.kind:
        case "url":
            headers = {**deliver.headers, **_credentials(deliver.auth)}
            options = {
                "allow_private": deliver.allow_private,
                "timeout": deliver.timeout,
                **network,
            }
            return WebhookTransport(_resolve_url(deliver), headers=headers, now=now, **options)
        case "command":
            return CommandTransport(str(deliver.to), timeout=deliver.timeout, hidden=hidden)
        case "python":
            return CallableTransport(deliver.to)
        case "file":
            return FileTransport(str(deliver.to))


def _resolve_url(deliver: EndpointConfig) -> str:
    """Return the URL, resolved if it is a secret. Raises `SetupError` if the secret is not a valid
    URL.
    """
    reference = str(deliver.to)
    if not is_reference(reference):
        return reference
    url = resolve_secret(reference)
    try:
        check_endpoint_url(url, deliver.allow_private)
    except UsageError:  # its words name the host
        raise SetupError(
            f"The secret {reference} is not a usable URL: https://… without a user, a fragment or blanks, at a public "
            "host (others with allow_private = true)."
        ) from None
    return url


def _credentials(auth: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    for kind, parts in auth.items():
        if kind == "header":
            return {parts[0]: resolve_secret(parts[1])}
        values = [resolve_secret(part) for part in parts]
        if kind == "basic":
            return {
                "Authorization": "Basic " + base64.b64encode(":".join(values).encode()).decode()
            }
        return {"Authorization": f"Bearer {values[0]}"}
    return {}


def resolve_secret(reference: str) -> str:
    """Return the secret behind `env:NAME` or `dlt:section.key`. Raises `SetupError` if it is not
    set.
    """
    kind, _, name = reference.partition(":")
    if kind == "env":
        secret = os.environ.get(name)
    else:
        import dlt

        secret = dlt.secrets.get(name, str)
    if not secret:
        where = "in the environment" if kind == "env" else "in .dlt/secrets.toml"
        raise SetupError(
            f"The secret {reference} is not set. Set it {where}, or remove it from the trigger."
        )
    return str(secret).strip()


class WebhookTransport:
    """POST to a URL: only to addresses that `resolve` allows, without proxies and redirects.

    2xx is success, whatever follows the response's head. `timeout` (seconds) bounds an attempt as a
    whole, except for the system's own limit on name lookups. `headers` go with every message.
    Raises `UsageError` for an invalid URL or headers.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        allow_private: bool = False,
        timeout: float = _TIMEOUT,
        ca_certs: str | None = None,
        lookup: Resolver = getaddrinfo,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.target = check_url(url, allow_private)
        if wrong := header_fault(headers or {}):
            raise UsageError(f"The headers for {self.target.host} cannot be sent: {wrong}.")
        default_headers = {
            "Content-Type": "application/json",
            "User-Agent": f"stripe-feed/{version('stripe-feed')}",
        }
        self._headers = _merged(default_headers, headers or {})
        self._timeout, self._now = timeout, now
        self._connections = Connections(
            self.target,
            allow_private=allow_private,
            ca_certs=ca_certs,
            lookup=lookup,
            monotonic=monotonic,
        )

    def send(
        self, message_id: str, trigger: str, body: bytes, headers: Mapping[str, str]
    ) -> AttemptResult:
        """POST once."""
        if wrong := header_fault(headers):
            return AttemptResult(False, "header", note=wrong)
        try:
            answer = self._connections.post(body, _merged(self._headers, headers), self._timeout)
        except (Blocked, Unreachable) as fault:
            return AttemptResult(
                False, "blocked" if isinstance(fault, Blocked) else "lookup", note=str(fault)
            )
        except (OSError, HTTPException) as fault:
            return _failed_attempt(fault)
        status = answer.status
        if 200 <= status < 300:
            return AttemptResult(True, str(status))
        wait = retry_after(answer.getheader("Retry-After"), self._now(), answer.getheader("Date"))
        is_redirect = 300 <= status < 400
        note = "redirects are not followed, give the URL they lead to" if is_redirect else ""
        return AttemptResult(False, str(status), wait, status == 410, status in THROTTLED, note)

    def close(self) -> None:
        """Close idle connections now, busy ones when they end."""
        self._connections.close()


def _merged(base: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Merge headers; later ones win, whatever the case of their names."""
    return dict({header[0].lower(): header for header in (*base.items(), *more.items())}.values())


def retry_after(value: str | None, now: float, date: str | None = None) -> float | None:
    """Return the seconds that a `Retry-After` asks for, at most a day; None if it is neither
    seconds nor a date.

    A date counts from the `date` of the response, for the receiver's clock may differ from ours.
    """
    text = (value or "").strip()
    if re.fullmatch("[0-9]+", text):
        return min(float(text[:15]), RETRY_AFTER_SECONDS)
    until = _unix_seconds(text)
    if until is None:
        return None
    since = _unix_seconds(date or "")
    return min(max(until - (now if since is None else since), 0.0), RETRY_AFTER_SECONDS)


def _unix_seconds(date: str) -> float | None:
    try:
        parsed = parsedate_to_datetime(date)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _failed_attempt(fault: OSError | HTTPException) -> AttemptResult:
    """Describe an attempt without a response. Only TLS's and the system's own texts are quoted."""
    match fault:
        case TimeoutError():
            return AttemptResult(False, "timeout")
        case ConnectionRefusedError():
            return AttemptResult(False, "refused")
        case ConnectionError() | ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return AttemptResult(False, "reset")
        case ssl.SSLError():
            return AttemptResult(
                False, "tls", note=getattr(fault, "verify_message", "") or fault.reason or ""
            )
        case OSError():
            return AttemptResult(
                False, "unreachable", note=errno.errorcode.get(fault.errno or 0, "")
            )
        case _:
            return AttemptResult(False, "malformed", note="the answer is not HTTP")


class CommandTransport:
    """Run a shell command with the body and a newline on its stdin; exit 0 is success. Its output
    goes to our stderr.

    Its environment has `STRIPE_FEED_MESSAGE_ID` and `STRIPE_FEED_TRIGGER` and none of our secrets
    (`hidden`: names of more). It leads a process group that is ended after `timeout` seconds, when
    this process is interrupted, and when the transport is closed.
    """

    def __init__(
        self, run: str, *, timeout: float = _TIMEOUT, hidden: Collection[str] = ()
    ) -> None:
        self._run, self._timeout, self._hidden = run, timeout, hidden
        self._turn = threading.RLock()  # a signal's handler may close the sink
        self._children: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def send(
        self, message_id: str, trigger: str, body: bytes, headers: Mapping[str, str]
    ) -> AttemptResult:
        """Run once."""
        variables = {"STRIPE_FEED_MESSAGE_ID": message_id, "STRIPE_FEED_TRIGGER": trigger}
        environment = {**child_environment(self._hidden), **variables}
        try:
            with self._turn:
                if self._closed:
                    return AttemptResult(False, "closed")
                child = subprocess.Popen(
                    self._run,
                    shell=True,
                    stdin=subprocess.PIPE,
                    stdout=2,
                    env=environment,
                    start_new_session=True,
                )
                self._children.add(child)
        except (OSError, ValueError) as fault:
            return AttemptResult(False, f"error {type(fault).__name__}")
        return self._ended(child, body)

    def close(self) -> None:
        """Ask running commands to end, and start no more."""
        with self._turn:
            self._closed = True
            for child in self._children:
                _signal(child, signal.SIGTERM)

    def _ended(self, child: subprocess.Popen[bytes], body: bytes) -> AttemptResult:
        with child:
            try:
                child.communicate(body + b"\n", self._timeout)
            except subprocess.TimeoutExpired:
                _terminate(child)
                return AttemptResult(False, "timeout")
            except BaseException:
                _terminate(child)
                raise
            finally:
                with self._turn:
                    self._children.discard(child)
        status = child.returncode
        return AttemptResult(not status, f"exit {status}" if status >= 0 else f"signal {-status}")


def child_environment(hidden: Collection[str] = ()) -> dict[str, str]:
    """Return the environment without our keys, credentials of sources and destinations, and the
    names in `hidden`.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name not in hidden and not SECRET_NAMES.search(name.upper())
    }


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _terminate(child: subprocess.Popen[bytes]) -> None:
    _signal(child, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(KILL_SECONDS)
    _signal(child, signal.SIGKILL)  # what is left of the group


class CallableTransport:
    """Call a function, or `module:function`, with the parsed body and the message's id; of an
    exception only its class is reported.

    The module is searched where Python looks, then in the current directory. Many threads may call
    at once; there is no time limit. Raises `UsageError` if there is no such function.
    """

    def __init__(self, call: str | Callable[[Any, str], object]) -> None:
        self._call: Callable[[Any, str], object] = _import(call) if isinstance(call, str) else call
        if not callable(self._call) or inspect.iscoroutinefunction(self._call):
            raise UsageError(
                f"{call} is not a plain function. Give one that takes the message and its id."
            )

    def send(
        self, message_id: str, trigger: str, body: bytes, headers: Mapping[str, str]
    ) -> AttemptResult:
        """Call once."""
        try:
            self._call(json.loads(body), message_id)
        except (Exception, SystemExit) as fault:
            return AttemptResult(False, f"error {type(fault).__name__}")
        return AttemptResult(True, "ok")

    def close(self) -> None:
        """Do nothing: nothing is open."""


def _import(name: str) -> Any:
    module, _, path = name.partition(":")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        return attrgetter(path)(importlib.import_module(module))
    except Exception as fault:
        raise UsageError(
            f"{name} cannot be imported ({type(fault).__name__}). Give it as module:function."
        ) from None


class FileTransport:
    """Append each body as one line to a file that only its owner may read; a line cut short by a
    kill is ended first.

    A message is on disk when `send` returns. Threads and processes may write to one file. Raises
    `UsageError` for paths that are not regular files: links, pipes, devices and folders are left
    alone.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            opened = self._open()
        except OSError as fault:
            raise UsageError(
                f"{self.path} cannot be written ({fault.strerror}). Choose another file."
            ) from None
        os.close(opened)

    def send(
        self, message_id: str, trigger: str, body: bytes, headers: Mapping[str, str]
    ) -> AttemptResult:
        """Append once."""
        line = b" ".join(body.splitlines()) + b"\n"  # JSON breaks lines between values only
        try:
            with open(self._open(), "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                _append(file.fileno(), line)
        except UsageError as fault:
            return AttemptResult(False, "setup", note=str(fault))
        except OSError as fault:
            return AttemptResult(False, f"error {errno.errorcode.get(fault.errno or 0, 'OSError')}")
        return AttemptResult(True, "ok")

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def _open(self) -> int:
        """Open the file if it is regular, or create it; each time, for it may have been moved away."""
        if self.path.is_symlink() or (
            self.path.exists() and not self.path.is_file()
        ):  # to open a device may do things
            raise UsageError(
                f"{self.path} is a link or not a regular file, and is left unchanged. Choose another file."
            )
        opened = os.open(
            self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600
        )
        try:
            mode = os.fstat(opened).st_mode
            if not stat.S_ISREG(mode):
                raise UsageError(f"{self.path} is not a regular file. Choose another file.")
            if mode & 0o077:
                os.fchmod(opened, 0o600)
        except BaseException:
            os.close(opened)
            raise
        return opened


def _append(opened: int, line: bytes) -> None:
    size = os.fstat(opened).st_size
    if size and os.pread(opened, 1, size - 1) != b"\n":
        line = b"\n" + line
    if os.write(opened, line) != len(line):
        os.ftruncate(opened, size)
        raise OSError(errno.ENOSPC, "")
    os.fsync(opened)
