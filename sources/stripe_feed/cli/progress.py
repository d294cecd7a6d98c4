"""Show the progress of a sync: a live table on a terminal, else one log line per resource and
minute. Both report endpoints that do not answer, because requests are retried silently.
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

from ..api.responses import is_retryable
from ..extract.paging.windows import FAR_FUTURE
from ..wording import counted
from .output import log_line, make_table

if TYPE_CHECKING:
    from rich.console import Console

    from ..extract.paging.reader import Listing
    from ..extract.run import RunContext

LOG_INTERVAL = 60.0  # seconds between log lines
SPEED_WINDOW = 10.0  # seconds over which speed is measured
_PATIENCE = 3.0  # seconds without an answer before a line is shown
WAITING = "Waiting for Stripe, the database or another command …"


@dataclass(frozen=True, slots=True)
class ListingProgress:
    """The progress of one listing. `back_to`: everything created since then is read; None before the
    first page.
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
        """The share of pages read, 0 to 1; None until every window has its first page."""
        if math.isinf(self.pages_left):
            return None
        return 1.0 if not self.pages_left else self.pages / (self.pages + self.pages_left)

    @property
    def seconds_left(self) -> float | None:
        """The estimated time left at the current speed; None if unknown."""
        if not self.pages_left:
            return 0.0
        if math.isinf(self.pages_left) or not self.pages_per_second:
            return None
        return self.pages_left / self.pages_per_second

    def columns(self) -> tuple[str, ...]:
        """Name, rows, pages, rows/s, position, share done and time left, as text."""
        speed = "…" if self.rows_per_second is None else f"{self.rows_per_second:,.0f}"
        share = "…" if self.share is None else f"{self.share:.0%}"
        left = "…" if self.seconds_left is None else format_duration(self.seconds_left)
        return (
            self.name,
            f"{self.rows:,}",
            f"{self.pages:,}",
            speed,
            format_day(self.back_to),
            share,
            left,
        )

    def sentence(self) -> str:
        """The progress as one log line."""
        name, _, _, speed, back_to, share, left = self.columns()
        read = f"{name}: {counted(self.rows, 'row')}, {counted(self.pages, 'page')}"
        if not self.pages_left:
            return f"{read}, all read"
        return f"{read}, {speed} rows/s, back to {back_to}, {share} done, {left} left"


_COLUMNS = ("resource", "rows", "pages", "rows/s", "back to", "done", "left")


def format_duration(seconds: float) -> str:
    """Format seconds as 1:02:03 or 2:03."""
    minutes, remainder = divmod(math.ceil(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60}:{minutes % 60:02}:{remainder:02}"
    return f"{minutes}:{remainder:02}"


def format_day(moment: int | None) -> str:
    """Format the UTC date of a Unix time; 0 is the end of a listing."""
    if moment is None:
        return "…"
    return f"{datetime.fromtimestamp(moment, timezone.utc):%Y-%m-%d}" if moment else "all"


class ListingMeter:
    """Samples the listings of a sync and computes their speed."""

    def __init__(self, context: RunContext, now: Callable[[], float] = time.monotonic) -> None:
        self.context = context
        self.now = now
        self.readings: dict[str, ListingProgress] = {}
        self._past: dict[str, deque[tuple[float, int, int]]] = {}

    def sample(self) -> list[ListingProgress]:
        """The progress of each listing; an ended listing keeps its last state."""
        for run in list(self.context.listing_runs.values()):  # a copy: reader threads add to it
            self.readings[run.listing.name] = self._read(run.listing)
        return list(self.readings.values())

    def _read(self, listing: Listing[Any]) -> ListingProgress:
        past = self._past.setdefault(listing.name, deque())
        now, rows, pages = self.now(), listing.rows_read, listing.pages_read
        past.append((now, rows, pages))
        while now - past[0][0] > SPEED_WINDOW and len(past) > 2:
            past.popleft()
        started, rows_then, pages_then = past[0]
        seconds = now - started
        speeds = (
            ((rows - rows_then) / seconds, (pages - pages_then) / seconds)
            if seconds > 0
            else (None, None)
        )
        windows = [window for planner in listing.walks for window in list(planner.windows)]
        left = sum(window.pages_left() for window in windows)
        # of a list without a filter by time nobody knows
        positions = [w.position for w in windows if w.position < FAR_FUTURE]
        back_to = max(positions, default=None if windows else 0) if pages else None
        return ListingProgress(listing.name, rows, pages, left, back_to, *speeds)


@dataclass(slots=True)
class EndpointState:
    """The requests to one endpoint since its last answer."""

    answers: int = 0
    failures: int = 0
    since: float | None = None  # time of the first failure


class RequestMonitor:
    """Samples the request counts and finds endpoints whose requests only fail."""

    def __init__(
        self, counts: Mapping[tuple[str, int], int], now: Callable[[], float] = time.monotonic
    ) -> None:
        self.counts = counts  # by endpoint and HTTP status; 0 is no answer
        self.now = now
        self._seen: dict[str, EndpointState] = {}

    def sample(self) -> dict[str, str]:
        """One line per endpoint that has not answered for `PATIENCE` seconds."""
        return dict(self._troubles(_by_endpoint(self.counts)))

    def _troubles(self, counts: dict[str, dict[int, int]]) -> Iterator[tuple[str, str]]:
        for endpoint, statuses in counts.items():
            failed = {status: n for status, n in statuses.items() if is_retryable(status)}
            answers, failures = sum(statuses.values()) - sum(failed.values()), sum(failed.values())
            seen = self._seen.setdefault(endpoint, EndpointState())
            if answers > seen.answers:
                seen.answers, seen.failures, seen.since = answers, failures, None
            elif failures > seen.failures and seen.since is None:
                seen.since = self.now()
            if seen.since is not None and (seconds := self.now() - seen.since) >= _PATIENCE:
                yield (
                    endpoint,
                    f"{endpoint}: {describe_failure(failed)} for {seconds:.0f} s, retrying …",
                )


def _by_endpoint(counts: Mapping[tuple[str, int], int]) -> dict[str, dict[int, int]]:
    by_endpoint: dict[str, dict[int, int]] = {}
    for (endpoint, status), n in list(counts.items()):  # a copy: reader threads add to it
        by_endpoint.setdefault(endpoint, {})[status] = n
    return by_endpoint


def describe_failure(failed: Mapping[int, int]) -> str:
    """Describe the most frequent failure."""
    status = max(failed, key=lambda status: failed[status])
    return f"Stripe answers {status}" if status else "no answer from Stripe"


class Progress:
    """Shows the progress of a sync while the block runs; pass `watch` to `sync(watch=...)`."""

    def __init__(self, console: Console | None, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet
        self.meter: ListingMeter | None = None
        self.requests = RequestMonitor({})
        self._ended = threading.Event()
        self._live: Any = None
        self._thread: threading.Thread | None = None
        self._before = threading.Timer(
            _PATIENCE, log_line, [WAITING]
        )  # cancelled once the sync starts to read
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

    def watch(self, context: RunContext) -> None:
        """Start to show progress; `sync` calls this when it starts to read."""
        self._before.cancel()
        self.meter = ListingMeter(context)
        self.requests = RequestMonitor(context.api.counts)
        if self.quiet:
            return
        if self.console is not None and self.console.is_terminal:
            from rich.live import Live

            self._live = Live(
                get_renderable=self.render,
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

    def render(self) -> Any:
        """The current table."""
        from rich.console import Group

        readings = self.meter.sample() if self.meter else []
        progress = make_table(_COLUMNS, [reading.columns() for reading in readings])
        all_read = readings and not any(reading.pages_left for reading in readings)
        return Group(
            progress, *(["All read, loading …"] if all_read else self.requests.sample().values())
        )

    def report(self) -> None:
        """Write one log line per listing."""
        for reading in self.meter.sample() if self.meter else []:
            log_line(reading.sentence())

    def report_failures(self, known: set[str]) -> set[str]:
        """Write one log line per endpoint that does not answer and is not in `known`; return all such
        endpoints.
        """
        troubles = self.requests.sample()
        for endpoint in troubles.keys() - known:
            log_line(troubles[endpoint])
        return set(troubles)

    def _report(self) -> None:
        known: set[str] = set()
        reported = time.monotonic()
        while not self._ended.wait(1.0):
            known = self.report_failures(known)
            if time.monotonic() - reported >= LOG_INTERVAL:
                reported = time.monotonic()
                self.report()
                known = set()  # repeated after each report
