"""The queue of one trigger's endpoint: due messages, messages in flight, and whether one more may
start.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import takewhile

from .endpoint_config import Route
from .outbox import Message
from .transports import AttemptResult, Endpoint

MAX_WAITING = (
    256  # the same with these, at a URL: such wait for an answer and for nothing of this machine
)
SLOW_FACTOR, SLOW_SECONDS = (
    3.0,
    0.02,
)  # times as long as others, and seconds: what takes longer gives its place to another message
FIRST_GUESS = 0.2  # seconds that a try takes, before any is known


@dataclass
class EndpointQueue:
    """The due messages of one trigger, and those in flight: per ordering key, their start on the
    monotonic clock.
    """

    trigger: Route
    endpoint: Endpoint
    pool: ThreadPoolExecutor
    at_once: int
    ready: deque[Message] = field(default_factory=deque)
    busy: dict[str, float] = field(default_factory=dict)
    takes: float = FIRST_GUESS  # seconds, of late
    has_more: bool = True  # lanes that were not looked up yet may be due
    paused_until: float = 0.0
    unread: Sequence[Message] = ()  # what they look up is not read yet
    looking: threading.Lock = field(default_factory=threading.Lock)
    waits_for: str = ""  # why a message could not be made, the last time
    disabled: bool = False

    @property
    def is_blocking(self) -> bool:
        """Whether a dead message blocks its ordering key."""
        return self.trigger.deliver.on_exhausted == "block"

    def has_place(self) -> bool:
        """Whether one more message may be in flight: slow ones do not count."""
        if len(self.busy) < self.at_once or self.trigger.deliver.kind != "url":
            return len(self.busy) < self.at_once
        slow = time.monotonic() - max(SLOW_SECONDS, SLOW_FACTOR * self.takes)
        waiting = sum(
            1 for _ in takewhile(lambda began: began < slow, self.busy.values())
        )  # in the order of their beginning
        return len(self.busy) - waiting < self.at_once and len(self.busy) < MAX_WAITING


@dataclass(frozen=True, slots=True)
class Sent:
    """How an attempt ended, when it began (Unix seconds), and how long it took."""

    message: Message
    outcome: AttemptResult
    began: float
    seconds: float
