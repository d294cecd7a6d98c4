"""Execute a write: idempotency, checks, locks, change, outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ..protocol.errors import Refusal, refused, server_error
from ..protocol.faults import Fate
from ..protocol.idempotency import Outcome, ReplayedRefusal
from ..protocol.messages import Request
from ..protocol.parameters import Params
from ..world import World


@dataclass(slots=True)
class Write:
    """A request that changes something. `seconds` is how long its execution takes."""

    request: Request
    path: str
    params: Params
    headers: dict[str, str]
    fate: Fate
    seconds: float = 0.0

    @property
    def key(self) -> str:
        """The idempotency key. Only POST has one."""
        return (
            self.request.headers.get("idempotency-key", "") if self.request.method == "POST" else ""
        )


class Prepared(NamedTuple):
    """A valid write: the ids that it locks and its function."""

    locks: Iterable[str]
    act: Callable[[], bytes]


def perform(account: World, write: Write, prepare: Callable[[], Prepared]) -> bytes:
    """Answer a write, from the store if its key was used. Errors of `prepare` are not stored, because
    the execution did not begin."""
    if write.key:
        first = account.idempotency.find(write.key, account.now, write.path, write.params)
        write.headers["Idempotency-Key"] = write.key
        if first is not None:
            write.headers |= {"Idempotent-Replayed": "true", "Original-Request": first.request_id}
            if first.status != 200:
                raise ReplayedRefusal(first)
            return first.body
    locks, act = prepare()
    account.locks.check(locks)
    write.seconds = account.faults.write_time
    if write.seconds:
        account.locks.hold(locks, write.seconds)
        account.idempotency.hold(write.key, write.seconds)
    return _stored(account, write, act)


def _stored(account: World, write: Write, act: Callable[[], bytes]) -> bytes:
    """Execute, and store the outcome even if it is an error."""
    request_id, now = write.headers["Request-Id"], account.now
    try:
        body = _executed(account, write, act)
    except Refusal as refusal:
        shown = refusal.body(request_id, now, "" if account.livemode else "/test")
        _keep(account, write, refusal.status, shown)
        raise
    _keep(account, write, 200, body)
    return body


def _executed(account: World, write: Write, act: Callable[[], bytes]) -> bytes:
    """Execute, with all events naming this request."""
    if write.fate == "refused":
        raise refused()
    request = {"id": write.headers["Request-Id"], "idempotency_key": write.key or None}
    with account.event_log.action(request):
        body = act()
    if write.fate == "500_after":
        raise server_error()
    return body


def _keep(account: World, write: Write, status: int, body: bytes) -> None:
    if write.key:
        request_id = write.headers["Request-Id"]
        outcome = Outcome(account.now, write.path, write.params, status, body, request_id)
        account.idempotency.keep(write.key, outcome)
