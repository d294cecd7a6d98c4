"""How far a sync is: a live table on a terminal, a log line per resource and minute elsewhere.

Both tell when Stripe does not answer: the requests are made again in silence until they give up.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..api.responses import is_passing
from .output import note, table

if TYPE_CHECKING:
    from rich.console import Console

    from ..extract.paging.reader import Listing
    from ..extract.run import Session

EVERY = 60.0  # seconds between log lines
RECENT = 10.0  # seconds over which speed is measured
PATIENCE = 3.0  # seconds without an answer that are worth a line
WAITING = "Waiting for Stripe, the database or another command …"


@dataclass(frozen=True, slots=True)
class Reading:
    """How far one listing is. `back_to`: what was created since then is read; nothing is known
    before the first page.
    """

    name: str
    rows: int
    pages: int
    pages_left: float
    back_to: int | None
    rows_per_second: float | None
    pages_per_second: float | None

    @property
    def share(self) -> float | None:
        """Pages read of all pages, 0 to 1; unknown until every window has had its first page."""
        if math.isinf(self.pages_left):
            return None
        return 1.0 if not self.pages_left else self.pages / (self.pages + self.pages_left)

    @property
    def seconds_left(self) -> float | None:
        """At the present speed."""
        if not self.pages_left:
            return 0.0
        if math.isinf(self.pages_left) or not self.pages_per_second:
            return None
        return self.pages_left / self.pages_per_second

    def columns(self) -> tuple[str, ...]:
        """Name, rows, pages, rows/s, position, share done and time left, as words."""
        speed = "…" if self.rows_per_second is None else f"{self.rows_per_second:,.0f}"
        share = "…" if self.share is None else f"{self.share:.0%}"
        left = "…" if self.seconds_left is None else clock(self.seconds_left)
        return self.name, f"{self.rows:,}", f"{self.pages:,}", speed, day(self.back_to), share, left

    def sentence(self) -> str:
        """The same as a log line."""
        name, rows, pages, speed, back_to, share, left = self.columns()
        if not self.pages_left:
            return f"{name}: {rows} rows, {pages} pages, all read"
        return f"{name}: {rows} rows, {pages} pages, {speed} rows/s, back to {back_to}, {share} done, {left} left"


HEAD = ("resource", "rows", "pages", "rows/s", "back to", "done", "left")


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
    )


def day(moment: int | None) -> str:
    """The date of a Unix time, in UTC; 0 is where a listing ends."""
    if moment is None:
        return "…"
    return f"{datetime.fromtimestamp(moment, timezone.utc):%Y-%m-%d}" if moment else "all"


class Meter:
    """Looks at listings again and again and knows their speed."""

    def __init__(self, session: Session, now: Callable[[], float] = time.monotonic) -> None:
        self.session = session
        self.now = now
        self.readings: dict[str, Reading] = {}
        self._past: dict[str, deque[tuple[float, int, int]]] = {}

    def look(self) -> list[Reading]:
        """How far each listing is; one that ended stays as it was seen last."""
        for run in list(self.session.runs.values()):  # the reader's threads go on meanwhile
            self.readings[run.listing.name] = self._read(run.listing)
        return list(self.readings.values())

    def _read(self, listing: Listing[Any]) -> Reading:
        past = self._past.setdefault(listing.name, deque())
        now, rows, pages = self.now(), listing.rows_read, listing.pages_read
        past.append((now, rows, pages))
        while now - past[0][0] > RECENT and len(past) > 2:
            past.popleft()
        began, rows_then, pages_then = past[0]
        seconds = now - began
        speeds = (
            ((rows - rows_then) / seconds, (pages - pages_then) / seconds)
            if seconds > 0
            else (None, None)
        )
        windows = [window for planner in listing.walks for window in list(planner.windows)]
        left = sum(window.pages_left() for window in windows)
        back_to = max((window.pos for window in windows), default=0) if pages else None
        return Reading(listing.name, rows, pages, left, back_to, *speeds)


@dataclass(slots=True)
class Silence:
    """What became of the requests to one endpoint since its last answer."""

    answers: int = 0
    failures: int = 0
    since: float | None = None  # when the first failure was seen


class Watch:
    """Looks at the requests again and again and notices endpoints that only fail."""

    def __init__(
        self, counts: Mapping[tuple[str, int], int], now: Callable[[], float] = time.monotonic
    ) -> None:
        self.counts = counts  # by endpoint and HTTP status; 0: no answer
        self.now = now
        self._seen: dict[str, Silence] = {}

    def look(self) -> dict[str, str]:
        """A line per endpoint that has not answered for a while."""
        return dict(self._troubles(_by_endpoint(self.counts)))

    def _troubles(self, counts: dict[str, dict[int, int]]) -> Iterator[tuple[str, str]]:
        for endpoint, statuses in counts.items():
            failed = {status: n for status, n in statuses.items() if is_passing(status)}
            answers, failures = sum(statuses.values()) - sum(failed.values()), sum(failed.values())
            seen = self._seen.setdefault(endpoint, Silence())
            if answers > seen.answers:
                seen.answers, seen.failures, seen.since = answers, failures, None
            elif failures > seen.failures and seen.since is None:
                seen.since = self.now()
            if seen.since is not None and (seconds := self.now() - seen.since) >= PATIENCE:
                yield (
                    endpoint,
                    f"{endpoint}: {complaint(failed)} for {seconds:.0f} s, asking again …",
                )


def _by_endpoint(counts: Mapping[tuple[str, int], int]) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for (endpoint, status), n in list(
        counts.items()
    ):  # a copy: the reader's threads count meanwhile
        found.setdefault(endpoint, {})[status] = n
    return found


def complaint(failed: Mapping[int, int]) -> str:
    """What goes wrong most."""
    status = max(failed, key=lambda status: failed[status])
    return f"Stripe answers {status}" if status else "no answer from Stripe"


class Progress:
    """Shows how far a sync is while the block runs; its `watch` is for `sync(watch=...)`."""

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet
        self.meter: Meter | None = None
        self.requests = Watch({})
        self._ended = threading.Event()
        self._live: Any = None
        self._thread: threading.Thread | None = None
        self._before = threading.Timer(
            PATIENCE, note, [WAITING]
        )  # unless the session begins to read
        self._before.daemon = True

    def __enter__(self) -> Progress:
        if not self.quiet:
            self._before.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._before.cancel()
        self._ended.set()
        if self._live is not None:
            self._live.stop()
        if self._thread is not None:
            self._thread.join()

    def watch(self, session: Session) -> None:
        """The session begins to read."""
        self._before.cancel()
        self.meter = Meter(session)
        self.requests = Watch(session.api.counts)
        if self.quiet:
            return
        if self.console.is_terminal:
            from rich.live import Live

            self._live = Live(
                get_renderable=self.picture,
                console=self.console,
                refresh_per_second=5,
                transient=True,
            )
            self._live.start()
        else:
            self._thread = threading.Thread(
                target=self._report, name="stripe-feed-progress", daemon=True
            )
            self._thread.start()

    def picture(self) -> Any:
        """The table as it is now."""
        from rich.console import Group

        readings = self.meter.look() if self.meter else []
        shown = table(HEAD, [reading.columns() for reading in readings])
        all_read = readings and not any(reading.pages_left for reading in readings)
        return Group(
            shown, *(["All read, loading …"] if all_read else self.requests.look().values())
        )

    def report(self) -> None:
        """One log line per listing."""
        for reading in self.meter.look() if self.meter else []:
            note(reading.sentence())

    def complain(self, known: set[str]) -> set[str]:
        """One log line per endpoint that does not answer and is not `known` for it; returns all of
        them.
        """
        troubles = self.requests.look()
        for endpoint in troubles.keys() - known:
            note(troubles[endpoint])
        return set(troubles)

    def _report(self) -> None:
        known: set[str] = set()
        reported = time.monotonic()
        while not self._ended.wait(1.0):
            known = self.complain(known)
            if time.monotonic() - reported >= EVERY:
                reported = time.monotonic()
                self.report()
                known = set()  # said again after each report
