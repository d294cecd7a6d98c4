"""The headline figures for a page that is opened often."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..errors import Locked, StripeFeedError
from .reading import Headline, read_headline

FRESH_SECONDS = 60.0  # time alone makes an invoice overdue

ReadHeadline = Callable[[Callable[[Any], Headline], float], Headline]
"""Runs a function on the models, waiting for so many seconds: `Feed.read_models`."""


class HeadlineCache:
    """Reads the headline again after a load or a build (`mark` changes then), and once a minute.

    It never waits: while another thread or process has the copy, the last one stands. Null before
    there is one, and if the models cannot be read here.
    """

    def __init__(
        self, read: ReadHeadline, mark: Callable[[], object], now: Callable[[], float]
    ) -> None:
        self._read, self._mark, self._now = read, mark, now
        self._lock = threading.Lock()
        self._last: Headline | None = None
        self._read_for: tuple[object, float] | None = None

    def get(self) -> Headline | None:
        """Return the newest headline that can be had at once."""
        if self._lock.acquire(blocking=False):
            try:
                self._refresh()
            finally:
                self._lock.release()
        return self._last

    def _refresh(self) -> None:
        mark, now = self._mark(), self._now()
        if self._read_for is not None:
            last_mark, last = self._read_for
            if mark == last_mark and last <= now < last + FRESH_SECONDS:
                return
        try:
            self._last = self._read(read_headline, 0.0)
        except Locked:
            return
        except StripeFeedError:  # no copy yet, or models that need dbt
            self._last = None
        self._read_for = mark, now
