"""The lanes of one trigger: what is due, what is under way, and whether there is a place for one
more.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import takewhile

from .endpoint import Receiver, Route
from .outbox import Message
from .transports import Outcome

MOST = 256  # the same with these, at a URL: such wait for an answer and for nothing of this machine
SLOW, LEAST_SLOW = (
    3.0,
    0.02,
)  # times as long as others, and seconds: what takes longer gives its place to another message
GUESS = 0.2  # seconds that a try takes, before any is known


@dataclass
class Lanes:
    """The messages of one trigger that are due, and those under way: per lane, since when on the
    monotonic clock.
    """

    trigger: Route
    receiver: Receiver
    pool: ThreadPoolExecutor
    at_once: int
    ready: deque[Message] = field(default_factory=deque)
    busy: dict[str, float] = field(default_factory=dict)
    takes: float = GUESS  # seconds, of late
    has_more: bool = True  # lanes that were not looked up yet may be due
    paused_until: float = 0.0
    unread: Sequence[Message] = ()  # what they look up is not read yet
    looking: threading.Lock = field(default_factory=threading.Lock)
    waits_for: str = ""  # why a message could not be made, the last time
    disabled: bool = False

    @property
    def is_blocking(self) -> bool:
        """Whether a message that was given up holds its lane."""
        return self.trigger.deliver.on_exhausted == "block"

    def has_place(self) -> bool:
        """Whether one more may be under way: those that take long do not count."""
        if len(self.busy) < self.at_once or self.trigger.deliver.kind != "url":
            return len(self.busy) < self.at_once
        slow = time.monotonic() - max(LEAST_SLOW, SLOW * self.takes)
        waiting = sum(
            1 for _ in takewhile(lambda began: began < slow, self.busy.values())
        )  # in the order of their beginning
        return len(self.busy) - waiting < self.at_once and len(self.busy) < MOST


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of a try, when it began (Unix seconds), and for how long it took."""

    message: Message
    outcome: Outcome
    began: float
    seconds: float
