"""Read a list that cannot be filtered by time from its first object to its last. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .windows import (
    FAR_FUTURE,
    MAX_EMPTY_PAGES,
    MAX_REFUSED_CURSORS,
    UNKNOWN_PAGES,
    Accepted,
    NoProgress,
    PageRequest,
    Range,
    RowKey,
    Window,
)

MAX_CURSORS = 500  # ids to continue from if the last object was deleted meanwhile
MAX_WALK_RESTARTS = 3

WHOLE_LIST: Range = (0, FAR_FUTURE)
"""What a whole walk covers: all seconds, and none of them before its last page."""


class WholeWalk:
    """One request at a time, each from the last object of the page before.

    If that object was deleted meanwhile, the walk continues from the one before it; if no cursor is
    left, from the beginning, and rows come again. Objects that are created meanwhile are in the
    next walk.
    """

    def __init__(self) -> None:
        self._window = Window(*WHOLE_LIST, splittable=False, position=FAR_FUTURE)
        self.windows = [self._window]
        self._recent: dict[str, None] = {}  # ids delivered last, the newest at the end
        self._refused = self._empty_pages = self._restarts = 0

    @property
    def finished(self) -> bool:
        """Whether every page was read."""
        return not self.windows

    def pages_left(self) -> float:
        """Estimate the pages not yet asked for: only the last page tells."""
        return 0.0 if self.finished else UNKNOWN_PAGES

    def next_request(self) -> PageRequest | None:
        """Return the next page to ask for; None while one is asked for, and at the end."""
        if self.finished or self._window.busy:
            return None
        self._window.busy = True
        return PageRequest(
            self._window, *WHOLE_LIST, next(reversed(self._recent), None), dated=False
        )

    def record_page(self, request: PageRequest, keys: Sequence[RowKey], has_more: bool) -> Accepted:
        """Record an answer. Raises `NoProgress` if the list makes none."""
        self._window.busy = False
        if keys and keys[-1].id == request.cursor:
            raise NoProgress(f"has more but repeats {request.cursor}")
        kept = [n for n, key in enumerate(keys) if key.id not in self._recent]
        for key in keys:
            self._recent.pop(key.id, None)
            self._recent[key.id] = None
        for id in list(self._recent)[:-MAX_CURSORS]:
            del self._recent[id]
        if not has_more:
            self.windows = []
        if kept:
            self._refused = self._empty_pages = 0
        elif has_more:
            self._empty_pages += 1
            if self._empty_pages > MAX_EMPTY_PAGES:
                raise NoProgress("says that it has more but brings nothing new")
        return Accepted(kept, WHOLE_LIST if self.finished else (FAR_FUTURE, FAR_FUTURE))

    def cursor_refused(self, request: PageRequest) -> None:
        """Continue from the object before the one that was deleted.

        Raises `NoProgress` if one cursor after the other is refused.
        """
        self._window.busy = False
        self._refused += 1
        if request.cursor is not None:
            self._recent.pop(request.cursor, None)
        self._restarts += not self._recent
        if self._refused > MAX_REFUSED_CURSORS or self._restarts > MAX_WALK_RESTARTS:
            raise NoProgress("refuses one cursor after the other")

    def request_failed(self, request: PageRequest) -> None:
        """Free the walk: its page was not read."""
        self._window.busy = False
