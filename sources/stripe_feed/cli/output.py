"""Words and tables on a terminal: data to stdout, talk to stderr. What strangers wrote never
reaches it as control characters.
"""

from __future__ import annotations

import csv
import logging
import os
import select
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TextIO

from ..resources import CHANGES, TABLES

if TYPE_CHECKING:
    from rich.console import Console

    from ..destination.read import Rows, Status
    from ..doctor import Finding
    from ..sync_run import Planned, Synced
    from ..verify_run import Verified

WIDEST = 40  # characters of a value in a table
QUIET = 60.0  # seconds between two log lines that say the same
MOST_LINES = 1_000  # different ones that are remembered
UNKNOWN = "a field that this version does not know"  # what `extract.records` logs for each


def talk() -> Console:
    """The console for people, on stderr."""
    return _console(stderr=True)


def data() -> Console:
    """The console for answers, on stdout."""
    return _console(stderr=False)


def _console(stderr: bool) -> Console:
    from rich.console import Console

    class Ours(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # Rich would end the process

    return Ours(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def say(line: str) -> None:
    """One line of talk; a command goes on where nobody listens any more."""
    try:
        sys.stderr.write(f"{plain(line)}\n")
    except BrokenPipeError:
        hush(sys.stderr)


def note(line: str, at: float | None = None) -> None:
    """One line of a log: with its time where no terminal shows it as it comes. `at`: Unix seconds;
    now by default.
    """
    try:
        is_watched = sys.stderr.isatty()
    except ValueError:  # closed
        is_watched = False
    moment = datetime.fromtimestamp(time.time() if at is None else at, timezone.utc)
    say(line if is_watched else f"{moment:%Y-%m-%dT%H:%M:%SZ} {line}")


@contextmanager
def working() -> Iterator[Callable[[str], None]]:
    """What shows how far something is, on a terminal; nothing elsewhere."""
    console = talk()
    if not console.is_terminal:
        yield lambda words: None
        return
    with console.status("") as status:
        yield lambda words: status.update(plain(words))


def gone(stream: TextIO) -> bool:
    """Whether the reader of a pipe went away."""
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def hush(stream: TextIO) -> None:
    """Send the rest nowhere: Python would complain about it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def invoked() -> str:
    """`stripe-feed` as it can be typed again here: with its path where it was called by a path that
    is not on PATH.
    """
    script = sys.argv[0]
    if os.path.basename(script) != "stripe-feed":
        return "stripe-feed"
    found = shutil.which("stripe-feed")
    return "stripe-feed" if found and os.path.samefile(found, script) else shlex.quote(script)


@contextmanager
def heard(quiet: bool = False) -> Iterator[None]:
    """Show what the package logs while a command runs."""
    log, handler = logging.getLogger("stripe_feed"), _Talk()
    level = log.level
    handler.setLevel(logging.WARNING if quiet else logging.INFO)
    log.addHandler(handler)
    log.setLevel(min(log.level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.tell_unknown()


class _Talk(logging.Handler):
    """Says the same line once a minute, and counts the fields that this version does not know: each
    has a line of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[str, float] = {}
        self.unknown: Counter[str] = Counter()  # by table

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if UNKNOWN in line:
            self.unknown[line.partition(":")[0]] += 1
        elif line not in self.said or not 0 <= record.created - self.said[line] < QUIET:
            if len(self.said) >= MOST_LINES:
                self.said.clear()
            self.said[line] = record.created
            note(
                line if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {line}",
                record.created,
            )

    def tell_unknown(self) -> None:
        """One line for all of them, at the end."""
        if self.unknown:
            fields = f"{count} fields" if (count := sum(self.unknown.values())) > 1 else "1 field"
            say(
                f"{fields} that this version does not know: kept in `extra` of {', '.join(sorted(self.unknown))}."
            )


def plain(text: object) -> str:
    """Text without control characters: an escape sequence in a customer's name stays harmless."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def cell(value: object) -> str:
    """A value as one short line."""
    if value is None:
        return ""
    text = plain(value if not isinstance(value, datetime) else when(value))
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def when(moment: datetime | int | None) -> str:
    """A moment in UTC, to the second."""
    if moment is None:
        return "never"
    if not isinstance(moment, datetime):
        moment = _utc(moment)
    elif moment.tzinfo is not None:
        moment = moment.astimezone(timezone.utc)
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _utc(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Any:
    """A table for a console; numbers stand to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    found = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for n, name in enumerate(columns):
        numbers = all(
            isinstance(row[n], int | float | None) and not isinstance(row[n], bool) for row in rows
        )
        found.add_column(plain(name), justify="right" if rows and numbers else "left", no_wrap=True)
    for row in rows:
        found.add_row(*(Text(f"{value:,}" if type(value) is int else cell(value)) for value in row))
    return found


def print_rows(found: Rows, json: bool, as_csv: bool = False) -> None:
    """The answer to a query: a table for people, one JSON object per line, or CSV."""
    if json:
        print_json(
            *(
                dict(zip(found.columns, map(_value, row, _kinds(found)), strict=True))
                for row in found.rows
            )
        )
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(found.columns)
        writer.writerows(map(_text, row) for row in found.rows)
    else:
        _print_table(found)


def _print_table(found: Rows) -> None:
    """As many columns as the terminal is wide; the others are named."""
    console = data()
    wide = [
        max([len(name), *(len(cell(row[n])) for row in found.rows)]) + 2
        for n, name in enumerate(found.columns)
    ]
    fit = next((n for n in range(1, len(wide)) if sum(wide[: n + 1]) > console.width), len(wide))
    console.print(table(found.columns[:fit], [row[:fit] for row in found.rows]))
    if fit < len(found.columns):
        say(f"Not shown: {', '.join(found.columns[fit:])}. --json shows all.")


def print_json(*objects: Any) -> None:
    """One line of JSON per object; exact numbers, times as ISO 8601."""
    import msgspec

    for found in objects:
        sys.stdout.write(msgspec.json.encode(found, enc_hook=str).decode() + "\n")


def print_failure(kind: str, words: str, code: int) -> None:
    """What a command that was asked for JSON answers where it failed: `{"error": {"kind",
    "message", "exit_code"}}`.
    """
    try:
        print_json({"error": {"kind": kind, "message": words, "exit_code": code}})
        sys.stdout.flush()
    except OSError:
        hush(sys.stdout)


def _text(value: Any) -> Any:
    """A value of CSV: what is nested as JSON, times as ISO 8601, truth as true and false."""
    import msgspec

    match value:
        case dict() | list() | tuple():
            return msgspec.json.encode(value, enc_hook=str).decode()
        case bool():
            return str(value).lower()
        case datetime():
            return _zoned(value).isoformat()
        case bytes():
            return value.hex()
    return value


def _zoned(moment: datetime) -> datetime:
    """A time of the copy: those without a zone are in UTC."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


def _kinds(found: Rows) -> list[bool]:
    return [name in found.json for name in found.columns]


def _value(value: Any, is_json: bool) -> Any:
    import msgspec

    if is_json and isinstance(value, str):
        return msgspec.Raw(value.encode())
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return msgspec.Raw(str(value).encode())
    return _zoned(value) if isinstance(value, datetime) else value


def print_synced(
    done: Synced,
    json: bool,
    quiet: bool,
    *,
    database: str | None,
    destination: str | None,
    dataset: str,
) -> None:
    """The summary of a run, and what to do next."""
    if json:
        print_json(done)
    if quiet:
        return
    total = sum(done.rows.values())
    place = f"{destination or database or 'stripe_feed.duckdb'}, dataset {dataset}"
    what = (
        f"{total:,} rows written to"
        if total
        else "No differences in"
        if done.healed
        else "Nothing new for"
    )
    say(f"{what} {place}: {done.requests:,} requests, {done.seconds:.1f} s.")
    for name in (name for name in (*TABLES, CHANGES) if name in done.rows):
        say(f"  {name:<20} {done.rows[name]:>12,}")
    options = {
        "--database": database,
        "--destination": destination,
        "--dataset": dataset if dataset != "stripe" else None,
    }
    given = " ".join(
        f"{option} {shlex.quote(value)} " for option, value in options.items() if value
    )
    if done.relayed:
        say(f"Next: {invoked()} feed tail {given}".rstrip())
        return
    say(f'Next: {invoked()} query {given}"select status, count(*) from invoices group by status"')


def print_verified(found: Verified, json: bool) -> None:
    """What was compared, and each difference."""
    if json:
        print_json(found)
        return
    rows = [(name, count, found.waiting[name]) for name, count in found.compared.items()]
    data().print(table(["resource", "compared", "waiting for a sync"], rows))
    for one in found.differences:
        sys.stdout.write(plain(f"{one.resource} {one.object_id}: {one.what}") + "\n")
    if not found.differences:
        sys.stdout.write("No differences.\n")


def print_plan(planned: Sequence[Planned], json: bool) -> None:
    """What a run would read; in JSON `since` is null where it reads from the beginning."""
    if json:
        print_json(
            *(
                {
                    "resource": p.resource,
                    "kind": p.kind,
                    "since": _utc(p.since) if p.since else None,
                    "until": _utc(p.until),
                }
                for p in planned
            )
        )
        return
    rows = [
        (p.resource, p.kind, when(p.since) if p.since else "the beginning", when(p.until))
        for p in planned
    ]
    data().print(table(["resource", "reads", "from (UTC)", "to (UTC)"], rows))
    say("Nothing was written.")


def print_findings(findings: Iterable[Finding], json: bool) -> list[Finding]:
    """One line per finding, as it comes; returns them all."""
    seen = []
    for found in findings:
        seen.append(found)
        if json:
            print_json(found)
        else:
            sys.stdout.write(
                plain(f"{'ok     ' if found.ok else 'problem'}  {found.check:<14} {found.text}")
                + "\n"
            )
            if found.fix:
                sys.stdout.write(plain(f"{'':24} fix: {found.fix}") + "\n")
            sys.stdout.flush()
    return seen


def print_status(found: Status, json: bool) -> None:
    """What the copy holds."""
    if json:
        print_json(found)
    elif found.account_id is None and not found.tables:
        say("Nothing is loaded yet. Run `stripe-feed sync`.")
    else:
        _print_status(found)


def _print_status(found: Status) -> None:
    mode = "unknown" if found.livemode is None else "live" if found.livemode else "test"
    console = data()
    console.print(
        f"account {found.account_id or 'unknown'}, {mode} mode, API version {found.api_version or 'unknown'}, "
        f"last load {when(found.loaded_at)} UTC"
    )
    console.print(
        table(
            ["table", "rows", "newest (UTC)"], [(t.table, t.rows, t.newest) for t in found.tables]
        )
    )
    rows = [
        (c.resource, when(c.until), _left(c.seconds_left), when(c.followed)) for c in found.cursors
    ]
    console.print(
        table(["resource", "listed up to (UTC)", "still to list", "events up to (UTC)"], rows)
    )
    for what, where in (
        ("feed store", found.feed_store),
        ("dlt's working folder", found.working_folder),
    ):
        console.print(plain(f"{what}: {where}"), soft_wrap=True)


def _left(seconds: int) -> str:
    """How much of `created` is still to be listed."""
    if seconds >= 86_400:
        return f"{seconds // 86_400:,} days"
    return f"{seconds:,} s" if seconds else "nothing"
