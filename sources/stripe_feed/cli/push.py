"""`stripe-feed push …`: rows of a query on the copy become objects at Stripe."""

from __future__ import annotations

import json as jsonlib
import os
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SetupError, UsageError
from . import command as cli_command
from .options import AllowBase, CopyOptions, Json, KeyFile, Rps, read_key_file
from .output import echo_err, escape_control, format_time, print_json

if TYPE_CHECKING:
    from ..write.push.definition import Definition
    from ..write.push.log import LoggedRow, PushLog
    from ..write.push.run import Push

FILE = "pushes.toml"
LONGEST = 200  # characters of a value

push_app = typer.Typer(
    help="Push rows into Stripe: what is sent, and what became of it.", no_args_is_help=True
)
_command = partial(cli_command.command, push_app)

_Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", help="Pushes of the file; all by default.")
]
_File = Annotated[str, typer.Option("--file", metavar="FILE", help="The file of the pushes.")]
Log = Annotated[
    str | None,
    typer.Option(
        "--log",
        metavar="FILE",
        help="What was sent before; keep it. Beside the DuckDB file by default.",
    ),
]
FullResync = Annotated[
    bool,
    typer.Option(
        "--full-resync",
        help="Compare every row with Stripe, not only those that changed; rows that are gone stay.",
    ),
]


@dataclass(frozen=True, slots=True)
class _ClientOptions:
    """How a command asks Stripe who it is."""

    api_key_file: KeyFile = None
    allow_api_base: AllowBase = False

    def arguments(self) -> dict[str, Any]:
        """The arguments of `open_push` that these options stand for."""
        arguments = asdict(self)
        return {"api_key": read_key_file(arguments.pop("api_key_file")), **arguments}


@dataclass(frozen=True, slots=True)
class _RequestOptions(_ClientOptions):
    """How a command makes its requests to Stripe."""

    max_rps: Rps = None


@_command
def plan(
    *,
    names: _Names = None,
    copy: CopyOptions,
    file: _File = FILE,
    log: Log = None,
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
    chosen = _chosen(file, names)
    if html is not None and len(chosen) != 1:
        raise UsageError("--html writes the plan of one push: name it.")
    options = requests.arguments()
    for definition in chosen:
        with _opened(definition, _log(log, copy), copy, options) as push:
            planned = push.plan(_rows(definition, copy), full_resync=full_resync)
        if html is not None:
            _write(html, plan_to_html(planned))
        if json:
            print_json(plan_to_dict(planned))
        else:
            _print_plan(plan_to_dict(planned))
        code = max(code, 2 if planned.refusal else 4 if planned.counts()["reject"] else 0)
    return code


@_command
def run(
    *,
    names: _Names = None,
    copy: CopyOptions,
    file: _File = FILE,
    log: Log = None,
    full_resync: FullResync = False,
    json: Json = False,
    requests: _RequestOptions,
) -> int:
    """Send the rows that changed since they were sent. Exit code 4: some were rejected."""
    options = requests.arguments()
    how = {"full_resync": full_resync}
    return _run(_chosen(file, names), copy, _log(log, copy), options, how, json)


@_command
def retry(
    *,
    names: _Names = None,
    copy: CopyOptions,
    file: _File = FILE,
    log: Log = None,
    json: Json = False,
    requests: _RequestOptions,
) -> int:
    """Send only the rows that were rejected, or whose outcome is unknown."""
    options = requests.arguments()
    how = {"only_failed": True}
    return _run(_chosen(file, names), copy, _log(log, copy), options, how, json)


@_command
def show(
    *,
    names: _Names = None,
    copy: CopyOptions,
    file: _File = FILE,
    log: Log = None,
    requests: Annotated[
        int | None, typer.Option("--run", metavar="N", help="The requests of this run.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the last runs, and rows that were rejected or have no known outcome."""
    from time import time

    from ..write.push.log import PushLog

    path = Path(_log(log, copy))
    if not path.exists():
        raise SetupError(f"There is no push log {path.name} yet. Run `stripe-feed push run` first.")
    with PushLog(path, time) as opened:
        if requests is not None:
            _print_requests(opened, requests, json)
        else:
            for definition in _chosen(file, names):
                _print_state(opened, definition.name, json)


@_command
def reset(
    *,
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Pushes of the file.")],
    copy: CopyOptions,
    file: _File = FILE,
    log: Log = None,
    json: Json = False,
    client: _ClientOptions,
) -> None:
    """Forget what was sent: the next run finds each object anew. Insert creates all of them again."""
    options = client.arguments()
    for definition in _chosen(file, names):
        with _opened(definition, _log(log, copy), copy, options) as push:
            count = push.reset()
        if json:
            print_json({"push": definition.name, "rows": count})
        else:
            echo_err(f"{definition.name}: {count} rows forgotten.")


def _run(
    chosen: list[Definition],
    copy: CopyOptions,
    log: str,
    options: dict[str, Any],
    how: dict[str, bool],
    json: bool,
) -> int:
    from ..write.push.report import result_to_dict

    code = 0
    for definition in chosen:
        with _opened(definition, log, copy, options) as push:
            result = push.run(_rows(definition, copy), **how)
        if json:
            print_json(result_to_dict(result))
        else:
            _print_result(result_to_dict(result))
        code = max(code, result.exit_code)
        if result.error is not None:
            break
    return code


def _chosen(file: str, names: Iterable[str] | None) -> list[Definition]:
    """The pushes of a file that are named, or all."""
    from ..write.push.definition import read_definitions

    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as fault:
        raise SetupError(
            f"The file of the pushes {file!r} cannot be read ({type(fault).__name__}). Name it with --file."
        ) from None
    known = read_definitions(text)
    for name in names or ():
        if name not in known:
            raise UsageError(f"There is no push {name!r}. Choose from: {', '.join(known)}.")
    return [known[name] for name in (names or known)]


def _opened(
    definition: Definition, log: str, copy: CopyOptions, options: dict[str, Any]
) -> AbstractContextManager[Push]:
    from ..destination.pipeline import DEFAULT_PIPELINE
    from ..write.push.run import open_push

    database = None  # another destination takes too long to open for each row
    if copy.destination in (None, "duckdb"):
        database = copy.database or f"{DEFAULT_PIPELINE}.duckdb"
    return open_push(definition, log=log, database=database, dataset=copy.dataset, **options)


def _log(log: str | None, copy: CopyOptions) -> str:
    from ..write.push.run import LOG

    if log is not None:
        return log
    if copy.database is None:
        return LOG
    return str(Path(copy.database).with_suffix(".push.sqlite"))


def _rows(definition: Definition, copy: CopyOptions) -> list[dict[str, Any]]:
    from ..write.push.rows import query_rows

    if definition.query is None:
        raise UsageError(
            f"{definition.name}: query is missing, a select on the copy that gives the rows."
        )
    return query_rows(definition.query, copy.database, copy.destination, copy.dataset)


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
    for row in plan["rows"]:
        _line(row["action"], row["key"], row["object_id"])
        for change in row["changes"]:
            _line(
                "", f"{change['field']}:", _value(change["before"]), "->", _value(change["after"])
            )
        for why in filter(None, (row["reason"], *row["notes"])):
            _line("", why)
    refused = f" It would be refused: {plan['refusal']}" if plan["refusal"] else ""
    echo_err(
        f"{plan['push']}: {_counts(plan['counts'])}; {plan['writes']} writes, about {plan['seconds']:g} s.{refused}"
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


def _print_state(log: PushLog, push: str, json: bool) -> None:
    """Print the last runs, and the rows that failed."""
    rows = log.rows(push).values()
    failed = [_failed(row) for row in rows if row.state in ("open", "rejected")]
    runs = log.runs(push)
    if json:
        print_json({"push": push, "runs": runs, "rows": failed})
        return
    for run in runs:
        began = format_time(int(run["started_at"]))
        ended = _counts(run["counts"]) if run["ended_at"] else "did not end"
        _line(f"run {run['run']}", push, began, ended)
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
