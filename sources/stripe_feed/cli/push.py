"""`stripe-feed push …`: rows of a query on the copy become objects at Stripe."""

from __future__ import annotations

import json as jsonlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from csv import DictWriter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SetupError, StripeFeedError, UsageError
from ..wording import counted
from . import command as cli_command
from .options import AllowBase, Json, KeyFile, LocalCopyOptions, Profile, Rps, find_named_key
from .output import echo_err, escape_control, format_time, print_json

if TYPE_CHECKING:
    from ..write.push.definition import Definition
    from ..write.push.log import LoggedRow, PushLog
    from ..write.push.run import Push

FILE = "pushes.toml"
LONGEST = 200  # characters of a value
REJECTED = (
    "push", "run", "key", "status", "object_id", "request_id", "reason", "next_step", "failed_at",
)  # fmt: skip
"""The columns of the rows that failed."""

push_app = typer.Typer(
    help="Push rows into Stripe: what is sent, and what became of it.", no_args_is_help=True
)
_command = partial(cli_command.command, push_app)

FullResync = Annotated[
    bool,
    typer.Option(
        "--full-resync",
        help="Compare every row with Stripe, not only those that changed; rows that are gone stay.",
    ),
]


@dataclass(frozen=True, slots=True)
class _PushFile(LocalCopyOptions):
    """The file of the pushes, what they read, and what was sent before."""

    file: Annotated[str, typer.Option("--file", metavar="FILE", help="The file of the pushes.")] = (
        FILE
    )
    log: Annotated[
        str | None,
        typer.Option(
            "--log",
            metavar="FILE",
            help="What was sent before; keep it. Beside the DuckDB file by default.",
        ),
    ] = None

    @property
    def log_path(self) -> Path:
        """The push log."""
        from ..write.push.log import log_beside

        return Path(self.log or log_beside(self.database))

    def chosen(self, names: Iterable[str] | None) -> list[Definition]:
        """The pushes of the file that are named, or all."""
        from ..api.text_file import read_text_file
        from ..write.push.definition import read_definitions

        try:
            text = read_text_file(self.file)
        except (OSError, ValueError) as fault:
            raise SetupError(
                f"The file of the pushes {self.file!r} cannot be read ({type(fault).__name__}). Name it with --file."
            ) from None
        known = read_definitions(text)
        for name in names or ():
            if name not in known:
                raise UsageError(f"There is no push {name!r}. Choose from: {', '.join(known)}.")
        return [known[name] for name in (names or known)]

    def opened(
        self, definition: Definition, options: dict[str, Any]
    ) -> AbstractContextManager[Push]:
        """Open a push on the account of the key."""
        from ..destination.pipeline import DEFAULT_PIPELINE
        from ..write.push.run import open_push

        database = self.database
        if database is None and self.destination in (None, "duckdb"):
            database = f"{DEFAULT_PIPELINE}.duckdb"
        return open_push(
            definition,
            log=self.log_path,
            database=database,
            destination=self.destination,
            dataset=self.dataset,
            account=self.account,
            **options,
        )

    def rows(self, definition: Definition) -> Iterator[dict[str, Any]]:
        """The rows of a push, read when they are needed: a run whose query fails is on record."""
        from ..write.push.rows import query_rows
        from ..write.push_files import STDIN, file_rows

        if definition.file is not None:
            beside = Path() if definition.file == STDIN else Path(self.file).parent
            yield from file_rows(beside / definition.file, definition.encoding)
            return
        if definition.query is None:
            raise UsageError(
                f"{definition.name}: the rows are missing: query, a select on the copy, or file, such as a CSV."
            )
        yield from query_rows(definition.query, self.database, self.destination, self.dataset)


@dataclass(frozen=True, slots=True)
class _Pushes(_PushFile):
    """Which pushes of the file."""

    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Pushes of the file; all by default."),
    ] = None


@dataclass(frozen=True, slots=True)
class _ClientOptions:
    """How a command asks Stripe who it is."""

    api_key_file: KeyFile = None
    profile: Profile = None
    allow_api_base: AllowBase = False

    def arguments(self) -> dict[str, Any]:
        """The arguments of `open_push` that these options stand for."""
        arguments = asdict(self)
        file, profile = arguments.pop("api_key_file"), arguments.pop("profile")
        return {"api_key": find_named_key(file, profile), **arguments}


@dataclass(frozen=True, slots=True)
class _RequestOptions(_ClientOptions):
    """How a command makes its requests to Stripe."""

    max_rps: Rps = None


@_command
def plan(
    *,
    pushes: _Pushes,
    full_resync: FullResync = False,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the plan of one push as a page, too.")
    ] = None,
    json: Json = False,
    requests: _RequestOptions,
) -> int:
    """Show what `push run` would do. Nothing is written to Stripe."""
    from ..write.push.report import plan_to_dict, plan_to_html

    code = 0
    chosen = pushes.chosen(pushes.names)
    if html is not None and len(chosen) != 1:
        raise UsageError("--html writes the plan of one push: name it.")
    options = requests.arguments()
    for definition in chosen:
        with pushes.opened(definition, options) as push:
            planned = push.plan(pushes.rows(definition), full_resync=full_resync)
        if html is not None:
            _write(html, plan_to_html(planned))
        if json:
            print_json(plan_to_dict(planned))
        else:
            _print_plan(plan_to_dict(planned))
        if planned.refusal:
            code = max(code, 2)
        elif planned.counts()["reject"]:
            code = max(code, 4)
    return code


@_command
def suggest(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A push of the file.")],
    pushes: _PushFile,
) -> None:
    """Print a map of a push, by the names of the columns of its rows. Nothing is asked of Stripe."""
    from ..write.push.rows import columns_of
    from ..write.push_suggest import map_in_toml
    from ..write.push_suggest import suggest as suggest_map

    (definition,) = pushes.chosen([name])
    columns = columns_of(pushes.rows(definition))
    if not columns:
        raise UsageError(f"{name}: there are no rows, so no columns.")
    sys.stdout.write(map_in_toml(definition, suggest_map(definition, columns)))


@_command
def run(
    *,
    pushes: _Pushes,
    full_resync: FullResync = False,
    json: Json = False,
    requests: _RequestOptions,
) -> int:
    """Send the rows that changed since they were sent. Exit code 4: some were rejected."""
    return _run(pushes, requests.arguments(), {"full_resync": full_resync}, json)


@_command
def retry(*, pushes: _Pushes, json: Json = False, requests: _RequestOptions) -> int:
    """Send only the rows that were rejected, or whose outcome is unknown."""
    return _run(pushes, requests.arguments(), {"only_failed": True}, json)


@_command
def show(
    *,
    pushes: _Pushes,
    requests: Annotated[
        int | None, typer.Option("--run", metavar="N", help="The requests of this run.")
    ] = None,
    rejected: Annotated[
        bool,
        typer.Option(
            "--rejected",
            help="The rows that failed in a run (give its number), or in the last one, with reason and next step.",
        ),
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print them as CSV.")] = False,
    json: Json = False,
) -> None:
    """Show the last runs, and rows that were rejected or have no known outcome."""
    from time import time

    from ..write.push.log import PushLog

    if csv and not rejected:
        raise UsageError("--csv goes with --rejected.")
    path, names = pushes.log_path, pushes.names or []
    if not path.exists():
        raise SetupError(f"There is no push log {path.name} yet. Run `stripe-feed push run` first.")
    if requests is None and len(names) == 1 and names[0].isdecimal():
        requests, names = int(names[0]), []
    with PushLog(path, time) as opened:
        if rejected:
            pushed = [] if requests is not None else pushes.chosen(names)
            _print_rejected(_runs_to_show(opened, requests, pushed), opened, csv, json)
        elif requests is not None:
            _print_requests(opened, requests, json)
        else:
            for definition in pushes.chosen(names):
                _print_state(opened, definition.name, json)


@_command
def reset(
    *,
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Pushes of the file.")],
    pushes: _PushFile,
    json: Json = False,
    client: _ClientOptions,
) -> None:
    """Forget what was sent: the next run finds each object anew. Insert creates all of them again."""
    options = client.arguments()
    for definition in pushes.chosen(names):
        with pushes.opened(definition, options) as push:
            count = push.reset()
        if json:
            print_json({"push": definition.name, "rows": count})
        else:
            echo_err(f"{definition.name}: {counted(count, 'row')} forgotten.")


def _run(pushes: _Pushes, options: dict[str, Any], how: dict[str, bool], json: bool) -> int:
    chosen = pushes.chosen(pushes.names)
    try:
        code = _run_each(pushes, chosen, options, how, json)
    except StripeFeedError:  # the run is on record, and others may wait for it
        _record(pushes)
        raise
    _record(pushes)
    return code


def _run_each(
    pushes: _PushFile,
    chosen: list[Definition],
    options: dict[str, Any],
    how: dict[str, bool],
    json: bool,
) -> int:
    from ..write.push.report import result_to_dict

    code = 0
    for definition in chosen:
        with pushes.opened(definition, options) as push:
            result = push.run(pushes.rows(definition), **how)
        if json:
            print_json(result_to_dict(result))
        else:
            _print_result(result_to_dict(result))
        code = max(code, result.exit_code)
        if result.error is not None:
            break
    return code


def _record(pushes: _PushFile) -> None:
    """Record in the feed and the destination what pushes did."""
    from ..destination.pipeline import dlt_settings, resolve_place, state_root
    from ..destination.place import FEED_STORE_SUFFIX, companion_path
    from ..feed.storage.push_states import note_runs
    from ..feed.storage.store import FeedStore
    from ..write.push.history.load import record_runs

    copy = (pushes.database, pushes.destination, pushes.dataset)
    try:
        with dlt_settings():
            place, root = resolve_place(*copy), state_root(pushes.state_dir)
        root.mkdir(parents=True, exist_ok=True)
        with FeedStore(companion_path(place, root, FEED_STORE_SUFFIX)) as store:
            record_runs(pushes.log_path, *copy, pushes.state_dir, first=partial(note_runs, store))
    except StripeFeedError as fault:  # the push is done
        echo_err(f"The feed could not be told; the next run does it: {fault}")


def _runs_to_show(
    log: PushLog, number: int | None, chosen: list[Definition]
) -> list[dict[str, Any]]:
    """The run with a number, or the last one of each push."""
    if number is None:
        return [run for definition in chosen for run in log.runs(definition.name, last=1)]
    found = log.runs(number=number)
    if not found:
        raise UsageError(
            f"There is no run {number} in {log.path.name}. `stripe-feed push show` lists the last ones."
        )
    return found


def _write(path: str, text: str) -> None:
    def private(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)  # it shows what rows say

    try:
        with open(path, "w", encoding="utf-8", opener=private) as page:
            page.write(text)
    except OSError as fault:
        raise SetupError(
            f"{path} cannot be written ({fault.strerror}). Choose another --html."
        ) from None


# -- what is printed -------------------------------------------------------------------------------


def _print_plan(plan: dict[str, Any]) -> None:
    from ..write.push.report import money_of

    for row in plan["rows"]:
        _line(row["action"], row["key"], row["object_id"])
        for change in row["changes"]:
            field, before, after = change.values()
            money = money_of(row, field, after) or None
            _line("", f"{field}:", _value(before), "->", _value(after), money)
        for why in filter(None, (row["reason"], *row["notes"])):
            _line("", why)
    refused = f" It would be refused: {plan['refusal']}" if plan["refusal"] else ""
    echo_err(
        f"{plan['push']}: {_counts(plan['counts'])}; {counted(plan['writes'], 'write')}, about {plan['seconds']:g} s.{refused}"
    )


def _print_result(result: dict[str, Any]) -> None:
    for row in result["rows"]:
        _line(row["status"], row["key"], row["object_id"], row["reason"])
    error = f" The run was stopped: {result['error']}" if result["error"] else ""
    echo_err(f"{result['push']}, run {result['run']}: {_counts(result['counts'])}.{error}")


def _print_requests(log: PushLog, run: int, json: bool) -> None:
    for one in map(_request, log.operations(run)):
        if json:
            print_json(one)
        else:
            _line(*(None if part is None else str(part) for part in one.values()))


def _print_rejected(runs: list[dict[str, Any]], log: PushLog, csv: bool, json: bool) -> None:
    """Print the rows that failed in runs, with the reason and the next step."""
    from ..write.push.history.records import failed_rows

    found = [
        {
            "push": run["push"],
            "run": run["run"],
            **row,
            "failed_at": format_time(int(row["failed_at"])),
        }
        for run in runs
        for row in failed_rows(log, run)
    ]
    if csv:
        writer = DictWriter(sys.stdout, REJECTED, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
        return
    for row in found:
        if json:
            print_json(row)
        else:
            _line(row["status"], row["key"], row["object_id"], row["reason"], row["next_step"])
    if not json and not found:
        echo_err("No row failed.")


def _print_state(log: PushLog, push: str, json: bool) -> None:
    """Print the last runs with the state after each, and the rows that failed."""
    from ..write.push.history.states import with_states

    rows = log.rows(push).values()
    failed = [_failed(row) for row in rows if row.state in ("open", "rejected")]
    runs = [{**run, "state": state} for run, state, _ in with_states(log.runs(push)[::-1])][::-1]
    if json:
        print_json({"push": push, "runs": runs, "rows": failed})
        return
    for run in runs:
        began = format_time(int(run["started_at"]))
        ended = run["error"] or _counts(run["counts"]) if run["ended_at"] else "did not end"
        _line(f"run {run['run']}", push, began, run["state"], ended)
    for row in failed:
        _line(row["state"], row["key"], row["object_id"], row["reason"])


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no rows"


def _request(one: Any) -> dict[str, Any]:
    names = ("row_key", "version", "step", "verb", "method", "path", "state", "object_id", "request_id", "idempotency_key", "reason")  # fmt: skip
    return {name: getattr(one, name) for name in names}


def _failed(row: LoggedRow) -> dict[str, Any]:
    state = "unknown" if row.state == "open" else row.state
    return {
        "key": row.row_key,
        "state": state,
        "object_id": row.object_id,
        "reason": row.reason,
    }


def _line(*parts: str | None) -> None:
    """Print the parts that there are, on one line."""
    text = "  ".join(part for part in parts if part is not None)
    sys.stdout.write(escape_control(text) + "\n")


def _value(value: Any) -> str:
    text = jsonlib.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
