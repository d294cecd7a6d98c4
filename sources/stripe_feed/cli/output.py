"""Print data to stdout and messages to stderr; control characters in data are escaped."""

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TextIO

from ..wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from ..accounts_run import AccountResult
    from ..destination.read import CopyStatus, QueryResult
    from ..doctor import Finding
    from ..forget_run import Receipt
    from ..sync_run import Planned, Synced
    from ..verify_run import Verified

MAX_CELL_WIDTH = 40  # characters of a value in a table
REPEAT_AFTER = 60.0  # seconds before the same log line is shown again
MAX_REMEMBERED_LINES = 1_000  # to recognise repeats
UNKNOWN_FIELD = "a field that this version does not know"  # `extract.tables` logs it for each one


def terminal_err() -> Console | None:
    """The console for messages, if stderr is a terminal."""
    return _console(stderr=True) if _is_stderr_terminal() else None


def _is_stderr_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except ValueError:  # closed
        return False


def console_out() -> Console:
    """The console for data, on stdout."""
    return _console(stderr=False)


def _console(stderr: bool) -> Console:
    from rich.console import Console

    class PipeConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # Rich would exit the process

    return PipeConsole(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def echo_err(line: str) -> None:
    """Write one line to stderr. If stderr is closed, the command continues."""
    try:
        sys.stderr.write(f"{escape_control(line)}\n")
    except BrokenPipeError:
        silence(sys.stderr)


def log_line(line: str, at: float | None = None) -> None:
    """Write one log line to stderr, with its time unless stderr is a terminal. `at`: Unix seconds;
    now by default.
    """
    moment = datetime.fromtimestamp(time.time() if at is None else at, timezone.utc)
    echo_err(line if _is_stderr_terminal() else f"{moment:%Y-%m-%dT%H:%M:%SZ} {line}")


@contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a progress text; it does nothing unless stderr is a terminal."""
    console = terminal_err()
    if console is None:
        yield lambda text: None
        return
    with console.status("") as status:
        yield lambda text: status.update(escape_control(text))


def is_pipe_closed(stream: TextIO) -> bool:
    """Whether the reader of a pipe closed it."""
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def silence(stream: TextIO) -> None:
    """Discard all further output of a stream; Python would report the closed pipe at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def command_name() -> str:
    """The command as the user can type it again: `stripe-feed`, or its path if PATH does not lead to
    it.
    """
    script = sys.argv[0]
    if os.path.basename(script) != "stripe-feed":
        return "stripe-feed"
    on_path = shutil.which("stripe-feed")
    return "stripe-feed" if on_path and os.path.samefile(on_path, script) else shlex.quote(script)


@contextmanager
def log_to_stderr(quiet: bool = False) -> Iterator[None]:
    """Show the log of the package on stderr while the block runs."""
    log, handler = logging.getLogger("stripe_feed"), _StderrHandler()
    level = log.level
    handler.setLevel(logging.WARNING if quiet else logging.INFO)
    log.addHandler(handler)
    log.setLevel(min(log.level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.summarize_unknown()


class _StderrHandler(logging.Handler):
    """Writes log lines to stderr: repeats at most once a minute, unknown fields as one summary."""

    def __init__(self) -> None:
        super().__init__()
        self.shown_at: dict[str, float] = {}
        self.unknown: Counter[str] = Counter()  # by table

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if UNKNOWN_FIELD in line:
            self.unknown[line.partition(":")[0]] += 1
        elif (
            line not in self.shown_at
            or not 0 <= record.created - self.shown_at[line] < REPEAT_AFTER
        ):
            if len(self.shown_at) >= MAX_REMEMBERED_LINES:
                self.shown_at.clear()
            self.shown_at[line] = record.created
            log_line(
                line if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {line}",
                record.created,
            )

    def summarize_unknown(self) -> None:
        """Write one line for all unknown fields."""
        if self.unknown:
            fields = f"{count} fields" if (count := sum(self.unknown.values())) > 1 else "1 field"
            echo_err(
                f"{fields} that this version does not know: kept in `extra` of {', '.join(sorted(self.unknown))}."
            )


def escape_control(text: object) -> str:
    """Escape control characters, so that an escape sequence in a customer's name is harmless."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def format_cell(value: object) -> str:
    """Format a value as one short line."""
    if value is None:
        return ""
    text = escape_control(value if not isinstance(value, datetime) else format_time(value))
    return text if len(text) <= MAX_CELL_WIDTH else text[: MAX_CELL_WIDTH - 1] + "…"


def format_time(moment: datetime | int | None) -> str:
    """Format a time in UTC, to the second."""
    if moment is None:
        return "never"
    if not isinstance(moment, datetime):
        moment = _utc(moment)
    elif moment.tzinfo is not None:
        moment = moment.astimezone(timezone.utc)
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _utc(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def make_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Any:
    """Make a table for a console; numbers are right-aligned."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for n, name in enumerate(columns):
        is_numeric = all(
            isinstance(row[n], int | float | None) and not isinstance(row[n], bool) for row in rows
        )
        grid.add_column(
            escape_control(name), justify="right" if rows and is_numeric else "left", no_wrap=True
        )
    for row in rows:
        grid.add_row(*(Text(_cell_text(value)) for value in row))
    return grid


def _cell_text(value: object) -> str:
    return f"{value:,}" if type(value) is int else format_cell(value)


def print_rows(result: QueryResult, json: bool, as_csv: bool = False) -> None:
    """Print the result of a query as a table, as one JSON object per line, or as CSV."""
    if json:
        print_json(
            *(
                dict(zip(result.columns, map(_json_value, row, _json_columns(result)), strict=True))
                for row in result.rows
            )
        )
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(result.columns)
        writer.writerows(map(_csv_value, row) for row in result.rows)
    else:
        print_table(result.columns, result.rows, narrows_pipes=True)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], narrows_pipes: bool = False
) -> None:
    """Print as many columns as fit into the terminal, and name the others. A pipe gets all, unless
    the tables can be very wide: then `narrows_pipes`.
    """
    console = console_out()
    widths = [
        max([len(name), *(len(_cell_text(row[n])) for row in rows)]) + 3
        for n, name in enumerate(columns)
    ]
    fit = len(columns)
    if console.is_terminal or narrows_pipes:
        fit = next((n for n in range(1, fit) if sum(widths[: n + 1]) > console.width), fit)
    console.width = max(console.width, sum(widths[:fit]))
    console.print(make_table(columns[:fit], [row[:fit] for row in rows]))
    if fit < len(columns):
        echo_err(f"Not shown: {', '.join(columns[fit:])}. --json shows all.")


def print_json(*objects: Any) -> None:
    """Print one line of JSON per object; numbers are exact, times are ISO 8601."""
    import msgspec

    for item in objects:
        sys.stdout.write(msgspec.json.encode(item, enc_hook=str).decode() + "\n")


def print_failure(kind: str, message: str, code: int) -> None:
    """Print the JSON of a failed command: `{"error": {"kind", "message", "exit_code"}}`."""
    try:
        print_json({"error": {"kind": kind, "message": message, "exit_code": code}})
        sys.stdout.flush()
    except OSError:
        silence(sys.stdout)


def _csv_value(value: Any) -> Any:
    """A value for CSV: nested data as JSON, times as ISO 8601, booleans as true and false."""
    import msgspec

    match value:
        case dict() | list() | tuple():
            return msgspec.json.encode(value, enc_hook=str).decode()
        case bool():
            return str(value).lower()
        case datetime():
            return _with_zone(value).isoformat()
        case bytes():
            return value.hex()
    return value


def _with_zone(moment: datetime) -> datetime:
    """Add UTC to a time without a zone; the copy stores times in UTC."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


def _json_columns(result: QueryResult) -> list[bool]:
    return [name in result.json for name in result.columns]


def _json_value(value: Any, is_json: bool) -> Any:
    import msgspec

    if is_json and isinstance(value, str):
        return msgspec.Raw(value.encode())
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return msgspec.Raw(str(value).encode())
    return _with_zone(value) if isinstance(value, datetime) else value


def print_sync_result(
    result: Synced,
    json: bool,
    quiet: bool,
    *,
    database: str | None,
    destination: str | None,
    dataset: str,
) -> None:
    """Print the summary of a run and the next step."""
    if json:
        print_json(result)
    if quiet:
        return
    from ..resources import CHANGES, TABLES

    total = sum(result.rows.values())
    place = f"{destination or database or 'stripe_feed.duckdb'}, dataset {dataset}"
    nothing = "No differences in" if result.healed else "Nothing new for"
    outcome = f"{counted(total, 'row')} written to" if total else nothing
    echo_err(f"{outcome} {place}: {counted(result.requests, 'request')}, {result.seconds:.1f} s.")
    names = [name for name in (*TABLES, CHANGES) if name in result.rows]
    width = max(map(len, names), default=0)
    for name in names:
        echo_err(f"  {name:<{width}} {result.rows[name]:>12,}")
    options = {
        "--database": database,
        "--destination": destination,
        "--dataset": dataset if dataset != "stripe" else None,
    }
    given = " ".join(
        f"{option} {shlex.quote(value)} " for option, value in options.items() if value
    )
    if result.relayed:
        echo_err(f"Next: {command_name()} feed tail {given}".rstrip())
        return
    echo_err(
        f'Next: {command_name()} query {given}"select status, count(*) from invoices group by status"'
    )


def print_account_results(results: Sequence[AccountResult]) -> None:
    """Print one line of JSON for each account: its id and what was loaded, or the error."""
    print_json(
        *(
            {
                "account_id": result.account_id,
                "synced": result.synced,
                "error": result.error or None,
                "exit_code": result.exit_code,
            }
            for result in results
        )
    )


def print_verification(result: Verified, json: bool) -> None:
    """Print how much was compared, and each difference."""
    if json:
        print_json(result)
        return
    rows = [(name, count, result.waiting[name]) for name, count in result.compared.items()]
    console_out().print(make_table(["resource", "compared", "waiting for a sync"], rows))
    for difference in result.differences:
        line = f"{difference.resource} {difference.object_id}: {difference.what}"
        sys.stdout.write(f"{escape_control(line)}\n")
    if not result.differences:
        sys.stdout.write("No differences.\n")


def print_plan(planned: Sequence[Planned], json: bool) -> None:
    """Print what a run would read; in JSON, `since` is null if it reads from the beginning, and
    `requests` if nothing tells how many it takes.
    """
    if json:
        print_json(
            *(
                {
                    "resource": p.resource,
                    "kind": p.kind,
                    "since": _utc(p.since) if p.since else None,
                    "until": _utc(p.until),
                    "requests": p.requests,
                }
                for p in planned
            )
        )
        return
    # a run reads up to now, unless an end was given; then nothing tells how long it takes
    is_range = any(p.kind == "range" for p in planned)
    rows = [
        (
            p.resource,
            p.kind,
            format_time(p.since) if p.since else "the beginning",
            format_time(p.until) if is_range else p.requests,
        )
        for p in planned
    ]
    last = "to (UTC)" if is_range else "requests"
    print_table(["resource", "reads", "from (UTC)", last], rows)
    echo_err("Nothing was written.")


def print_findings(findings: Iterable[Finding], json: bool) -> list[Finding]:
    """Print each finding as it comes, and return them all."""
    printed = []
    for finding in findings:
        printed.append(finding)
        if json:
            print_json(finding)
        else:
            state = "ok" if finding.ok else "problem"
            line = f"{state:<7}  {finding.check:<27} {finding.text}"
            sys.stdout.write(f"{escape_control(line)}\n")
            if finding.fix:
                sys.stdout.write(escape_control(f"{'':37} fix: {finding.fix}") + "\n")
            sys.stdout.flush()
    return printed


def print_status(status: CopyStatus, triggers: Sequence[Mapping[str, Any]], json: bool) -> None:
    """Print the content and the freshness of the copy, and the state of its triggers."""
    if json:
        print_json({**asdict(status), "triggers": triggers})
    elif status.account_id is None and not status.tables:
        echo_err("Nothing is loaded yet. Run `stripe-feed sync`.")
    else:
        _print_status(status, triggers)


def _print_status(status: CopyStatus, triggers: Sequence[Mapping[str, Any]]) -> None:
    mode = {None: "unknown", True: "live", False: "test"}[status.livemode]
    console = console_out()
    whose = f"account {status.account_id or 'unknown'}"
    if status.accounts is not None:
        whose = f"{counted(status.accounts, 'account')} of the platform {status.account_id}"
    console.print(
        f"{whose}, {mode} mode, API version {status.api_version or 'unknown'}, "
        f"last load {format_time(status.loaded_at)} UTC"
    )
    console.print(
        make_table(
            ["table", "rows", "newest (UTC)"], [(t.table, t.rows, t.newest) for t in status.tables]
        )
    )
    rows = [
        (c.resource, format_time(c.until), _format_left(c.seconds_left), format_time(c.followed))
        for c in status.cursors
    ]
    console.print(
        make_table(["resource", "listed up to (UTC)", "still to list", "events up to (UTC)"], rows)
    )
    for trigger in triggers:
        text = f"trigger {trigger['trigger']} ({trigger['state']}): {format_firings(trigger)}"
        console.print(escape_control(text))
    for label, path in (
        ("feed store", status.feed_store),
        ("dlt's working folder", status.working_folder),
    ):
        console.print(escape_control(f"{label}: {path}"), soft_wrap=True)


def format_firings(record: Mapping[str, Any]) -> str:
    """How often a trigger fired, its messages, and how far it is, as text."""
    parts = [f"fired {record['fired']:,}"]
    if record["last_fired"]:
        parts.append(f"last {record['last_fired']}")
    parts += [f"{count:,} {state}" for state, count in sorted(record["messages"].items())]
    if record["evaluated"]:
        parts.append(f"{counted(record['rows'], 'row')} at {record['evaluated']}")
    if record["behind"]:
        parts.append(f"{counted(record['behind'], 'change')} behind")
    return ", ".join(parts)


def _format_left(seconds: int) -> str:
    """Format how much of the `created` range is still to be listed."""
    if seconds >= 86_400:
        return counted(seconds // 86_400, "day")
    return f"{seconds:,} s" if seconds else "nothing"


def print_receipt(receipt: Receipt, json: bool) -> None:
    """Print what was erased; it holds no personal data."""
    if json:
        print_json(receipt)
        return
    rows = ", ".join(f"{table} {count:,}" for table, count in receipt.rows.items() if count)
    sys.stdout.write(
        f"{receipt.customer}: at Stripe {receipt.stripe}; erased here at {format_time(receipt.erased_at)} UTC: "
        f"rows of {rows or 'no table'}, {counted(receipt.changes, 'change')}, {counted(receipt.messages, 'message')}, {counted(receipt.push_rows, 'row')} of pushes.\n"
    )
