"""The commands of `stripe-feed`. Data goes to stdout, messages to stderr."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ..destination.duckdb.optional_packages import own_process, spare_packages
from ..destination.error_messages import translate_error
from ..destination.locks import DEFAULT_WAIT
from ..destination.place import DEFAULT_DATASET
from ..errors import CopyDiffers, PartlyDone, UsageError
from . import command as cli_command
from .action import action, forget
from .feed import feed_app
from .models.commands import build_after_sync, models_app, require_built_in_models
from .models.report import report
from .options import (
    AtOnce,
    ClientOptions,
    CopyOptions,
    Json,
    LocalCopyOptions,
    RequestOptions,
    RequestTimeout,
    Resources,
    Shared,
    StateDir,
    Wait,
    require_all_accounts,
    split_names,
)
from .push import push_app
from .serve import mcp, serve, webhook_app
from .triggers import deliver, triggers_app

if TYPE_CHECKING:
    from ..sync_run import Synced

app = typer.Typer(
    name="stripe-feed",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="A true, queryable copy of a Stripe account in DuckDB or any other dlt destination.",
    epilog="Exit codes: 0 ok, 1 unexpected, 2 usage, 3 setup or credentials, 4 partly done, 5 Stripe or the destination out of "
    "reach, 130 interrupted (run again to continue).",
)

GC_THRESHOLD = 50_000  # new objects: imports and Arrow columns make many, and few cycles
Quiet = Annotated[bool, typer.Option("--quiet", help="Show only warnings and errors.")]


@dataclass(frozen=True, slots=True)
class DoctorClientOptions(ClientOptions):
    """How `doctor` makes its few requests: a fault shall show soon."""

    give_up_after: RequestTimeout = 20.0


def main() -> NoReturn:
    """Run the command line; the entry point of `stripe-feed`."""
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    own_process()
    code: object = 1
    # registered first, so called last, after the callbacks of everything that is imported from here on
    atexit.register(lambda: _end_process(code))
    try:
        _run(sys.argv[1:])
    except SystemExit as end:
        code = end.code
        raise


def _end_process(code: object) -> None:
    """End the process at once: to take apart what was imported costs a quarter of a second."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # Python reports it
    if code is None or isinstance(code, int):
        os._exit(code or 0)


def _run(arguments: list[str]) -> NoReturn:
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    # what is piped or written to a file is data: UTF-8 in every locale, or JSON would be none
    encoding = None if sys.stdout.isatty() or "PYTHONIOENCODING" in os.environ else "utf-8"
    sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")  # type: ignore[union-attr]
    if "--debug" in arguments:  # anywhere: people append it to a command that failed
        arguments.remove("--debug")
        os.environ["STRIPE_FEED_DEBUG"] = "1"
    try:
        app(arguments, prog_name="stripe-feed")
    except KeyboardInterrupt:  # before the command began
        sys.exit(130)
    except OSError as error:  # the help cannot be written
        from .output import echo_err, silence

        silence(sys.stdout)
        echo_err(f"error: {translate_error(error)}")
        sys.exit(3)
    sys.exit(0)


_command = partial(cli_command.command, app)
app.add_typer(feed_app, name="feed")
app.add_typer(models_app, name="models")
app.add_typer(push_app, name="push")
app.add_typer(triggers_app, name="triggers")
app.add_typer(webhook_app, name="webhook")


def show_version(requested: bool) -> None:
    """Print the version and exit."""
    if requested:
        from importlib.metadata import version

        sys.stdout.write(f"stripe-feed {version('stripe-feed')}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=show_version, help="Show the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; it can hold data.")
    ] = False,
) -> None:
    """Declare the global options; `main` handles `--debug`, which is here for the help only."""


@_command
def sync(
    *,
    copy: CopyOptions,
    resources: Resources = None,
    start_date: Annotated[
        str | None, typer.Option(metavar="DATE", help="Skip objects created before this UTC date.")
    ] = None,
    end_date: Annotated[
        str | None,
        typer.Option(
            metavar="DATE", help="Load only up to this UTC date, and leave the cursor unchanged."
        ),
    ] = None,
    expand: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE.FIELD", help="Also load this optional field; may be repeated."),
    ] = None,
    test_clocks: Annotated[
        bool, typer.Option("--test-clocks", help="Also load objects on a test clock.")
    ] = False,
    relist_hours: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            min=0,
            help="After how many hours to list objects again that change without an event; 24 by default.",
        ),
    ] = None,
    full_refresh: Annotated[
        bool, typer.Option("--full-refresh", help="Drop the tables and load everything again.")
    ] = False,
    deletes: Annotated[
        str, typer.Option(metavar="KIND", help="soft keeps deleted rows; hard removes them.")
    ] = "soft",
    snapshot: Annotated[
        bool,
        typer.Option("--snapshot", help="On a first run, record one change (op r) per object."),
    ] = False,
    checkpoint_rows: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Commit about every N rows, so that a crash loses no more."
        ),
    ] = None,
    all_accounts: Annotated[
        bool,
        typer.Option(
            "--all-accounts",
            help="Sync each account that is connected to the key's into a copy of its own.",
        ),
    ] = False,
    shared: Shared = False,
    at_once: AtOnce = None,
    models: Annotated[
        bool, typer.Option("--models", help="Afterwards build the models that are stale.")
    ] = False,
    state_dir: StateDir = None,
    wait: Wait = DEFAULT_WAIT,
    requests: RequestOptions,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be read; write nothing.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Load new, updated, cancelled and deleted objects, and record each change. The first run loads
    everything.
    """
    spare_packages(copy.destination)
    from ..sync_run import dry_run, sync
    from . import output, progress

    options: dict[str, Any] = {
        **copy.arguments(),
        **requests.arguments(),
        "account": copy.account,
        "resources": split_names(resources),
        "start_date": parse_day(start_date),
        "end_date": parse_day(end_date),
        "expand": parse_expand(expand),
        "test_clocks": test_clocks,
        **({} if relist_hours is None else {"relist_hours": relist_hours}),
        "full_refresh": full_refresh,
        "deletes": deletes,
        "snapshot": snapshot,
    }
    limits: dict[str, Any] = {
        "state_dir": state_dir,
        "checkpoint_rows": checkpoint_rows,
        "wait": wait,
    }
    if all_accounts:
        return _sync_all(copy, options | limits, at_once, is_dry_run or models, shared, json)
    require_all_accounts(at_once, shared)
    if is_dry_run:
        return output.print_plan(dry_run(**options), json)
    local_copy = LocalCopyOptions(**asdict(copy), state_dir=state_dir)
    if models:
        require_built_in_models(local_copy)
    with progress.Progress(output.terminal_err(), quiet) as shown:
        done = sync(**options, **limits, watch=shown.watch)
    output.print_sync_result(done, json, quiet, **copy.arguments())
    if models:
        build_after_sync(local_copy, wait)
    _warn_or_raise(done, options["resources"])


def _warn_or_raise(done: Synced, resources: list[str] | None) -> None:
    """Warn that the key may not read events, if only some resources were asked for. Raises
    `PartlyDone` if what was asked for is not loaded, or not whole.
    """
    from ..resources import CHANGES

    if resources and CHANGES in done.refused:  # the user did not ask for them
        logging.getLogger("stripe_feed").warning(_describe_no_events(done.refused[CHANGES]))
    raise_if_incomplete(done.refused, done.left_out, resources, not resources)


def _sync_all(
    copy: CopyOptions,
    options: dict[str, Any],
    at_once: int | None,
    is_for_one: bool,
    shared: bool,
    json: bool,
) -> None:
    """Sync all connected accounts. Raises `PartlyDone` if some are not loaded, or not whole, and
    `UsageError` for options of one account.
    """
    from ..accounts_run import sync_accounts
    from ..shared_run import sync_shared
    from . import output

    names_dataset = copy.dataset != DEFAULT_DATASET
    if copy.account or (names_dataset and not shared) or is_for_one:
        raise UsageError(ONE_ACCOUNT)
    options |= {"database": copy.database, "destination": copy.destination}
    if at_once is not None:
        options["at_once"] = at_once
    chosen, results, partly = options["resources"], [], []
    del options["account"]
    if not shared:
        del options["dataset"]
    elif not names_dataset:
        options["dataset"] = None
    for result in (sync_shared if shared else sync_accounts)(**options):
        results.append(result)
        if result.synced is not None:
            try:
                raise_if_incomplete(
                    result.synced.refused, result.synced.left_out, chosen, not chosen
                )
            except PartlyDone as reason:
                logging.getLogger("stripe_feed").warning("%s: %s", result.account_id, reason)
                partly.append(result.account_id)
    if json:
        output.print_account_results(results)
    failed = [result for result in results if result.synced is None]
    if failed and len(failed) == len(results) and failed[0].cause is not None:
        raise failed[0].cause
    if failed or partly:
        named = [*(result.account_id for result in failed), *partly]
        ids = ", ".join(named[:SHOWN_ACCOUNTS]) + (" …" if len(named) > SHOWN_ACCOUNTS else "")
        raise PartlyDone(
            f"{len(failed)} of {len(results)} accounts are not loaded, {len(partly)} in part: {ids}. "
            "The warnings say why. Everything else is loaded."
        )


SHOWN_ACCOUNTS = 5
ONE_ACCOUNT = (
    "--all-accounts goes with neither --account (STRIPE_ACCOUNT) nor --dataset, --dry-run or --models: "
    "give those with --account acct_..., one account at a time."
)


def raise_if_incomplete(
    refused: Mapping[str, str],
    left_out: Mapping[str, Mapping[str, str]],
    chosen: Collection[str] | None,
    needs_events: bool = False,
) -> None:
    """Raise `PartlyDone` if a resource cannot be read that was asked for by name, or rows were left
    out. `needs_events`: also if events cannot be read.
    """
    from ..extract.options import is_asked_by_name
    from ..extract.tables.rejected import describe_rejected as describe_left_out
    from ..resources import CHANGES

    tables = [name for name in refused if name != CHANGES and is_asked_by_name(name, chosen)]
    reasons = [f"Left out: {', '.join(tables)}; the warnings say why."] if tables else []
    if needs_events and CHANGES in refused:
        reasons.append(_describe_no_events(refused[CHANGES]))
    reasons += describe_left_out(left_out)
    if reasons:
        raise PartlyDone(f"{' '.join(reasons)} Everything else is loaded.")


_MISSED = "updates, cancellations and deletions of older objects are missed"
_NO_EVENTS = (
    f"The key may not read events, so {_MISSED}: "
    "add the permission rak_event_read (Core > Events), or run `stripe-feed reconcile` regularly."
)


def _describe_no_events(reason: str) -> str:
    """Say what is missing without events, and what to do; `reason`: why they cannot be read."""
    if "this key may not read it" in reason:
        return _NO_EVENTS
    return f"Events cannot be read, so {_MISSED}. {reason} Until then run `stripe-feed reconcile` regularly."


@_command
def reconcile(
    *,
    copy: CopyOptions,
    resources: Resources = None,
    state_dir: StateDir = None,
    wait: Wait = DEFAULT_WAIT,
    requests: RequestOptions,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare every object with Stripe, fix differences and record them as changes."""
    spare_packages(copy.destination)
    from ..sync_run import sync
    from . import output
    from .progress import Progress

    with Progress(output.terminal_err(), quiet) as progress:
        done = sync(
            reconcile=True,
            **copy.arguments(),
            **requests.arguments(),
            account=copy.account,
            resources=split_names(resources),
            state_dir=state_dir,
            wait=wait,
            watch=progress.watch,
        )
    output.print_sync_result(done, json, quiet, **copy.arguments())
    raise_if_incomplete(done.refused, done.left_out, split_names(resources))


@_command
def verify(
    *,
    sample: Annotated[
        int,
        typer.Option(
            "--sample",
            metavar="N",
            min=1,
            help="How many objects to compare per resource, from each side.",
        ),
    ] = 100,
    copy: CopyOptions,
    resources: Resources = None,
    requests: RequestOptions,
    wait: Wait = DEFAULT_WAIT,
    json: Json = False,
) -> None:
    """Compare a sample of objects with Stripe: each row, and the state its changes lead to. Exit 4 if
    they differ.
    """
    from ..verify_run import verify
    from . import output

    with output.status_line() as watch:
        result = verify(
            sample=sample,
            **copy.arguments(),
            **requests.arguments(),
            account=copy.account,
            resources=split_names(resources),
            wait=wait,
            watch=watch,
        )
    output.print_verification(result, json)
    if result.differences:
        count = sum(result.compared.values())
        raise CopyDiffers(
            f"{len(result.differences):,} of {count:,} objects differ. Run `stripe-feed reconcile`, then verify again."
        )


_command(deliver)
_command(serve)
_command(action)
_command(mcp)
_command(forget)
_command(report)


@_command
def status(
    *,
    copy: LocalCopyOptions,
    wait: Wait = DEFAULT_WAIT,
    json: Json = False,
) -> None:
    """Show the tables, cursors and freshness of the copy, its triggers, and where its files are."""
    from ..destination import read
    from . import output
    from .trigger_output import stored_triggers

    found = read.copy_status(**copy.arguments(), wait=wait)
    output.print_status(found, stored_triggers(found.feed_store), json)


@_command
def preview(
    *,
    table: Annotated[str, typer.Argument(help="A table, such as customers.")],
    rows: Annotated[
        int, typer.Option("-n", "--rows", metavar="N", min=1, help="How many rows.")
    ] = 5,
    copy: CopyOptions,
    wait: Wait = DEFAULT_WAIT,
    json: Json = False,
) -> None:
    """Show the newest rows of a table."""
    from ..destination import read
    from . import output

    with read.open_reader(**copy.arguments(), wait=wait) as reader:
        output.print_rows(read.preview(reader, table, rows), json)


@_command
def query(
    *,
    sql: Annotated[
        str,
        typer.Argument(
            help='One select statement, such as "select count(*) from customers"; - reads it from stdin.'
        ),
    ],
    copy: CopyOptions,
    wait: Wait = DEFAULT_WAIT,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV on stdout.")] = False,
) -> None:
    """Run a read-only SQL query."""
    from ..destination import read
    from . import output

    with read.open_reader(**copy.arguments(), wait=wait) as reader:
        output.print_rows(
            read.run_query(reader, sys.stdin.read() if sql == "-" else sql), json, csv
        )


@_command
def doctor(
    *,
    copy: CopyOptions,
    client: DoctorClientOptions,
    resources: Resources = None,
    json: Json = False,
) -> int:
    """Check the key, permissions, clock, versions and destination; print a fix for each problem."""
    from .. import doctor
    from . import output

    findings = doctor.examine(
        **copy.arguments(),
        **client.arguments(),
        account=copy.account,
        resources=split_names(resources),
    )
    return doctor.exit_code(output.print_findings(findings, json))


@_command
def demo(
    customers: Annotated[
        int, typer.Option(min=1, help="About how many customers to generate.")
    ] = 150,
    database: Annotated[
        str,
        typer.Option(metavar="FILE", help="DuckDB file; the file of an earlier demo is replaced."),
    ] = "demo.duckdb",
) -> None:
    """Load a generated account twice and show the tables; needs no Stripe account and no network."""
    from .demo import run_demo as run

    run(database, customers)


@partial(
    _command,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def sandbox(ctx: typer.Context) -> None:
    """Run a local simulation of Stripe to test against; --help lists its options."""
    from .demo import serve_sandbox

    serve_sandbox(ctx.args)


def parse_day(text: str | None) -> int | str | None:
    """Turn Unix seconds into a number; leave a date as it is."""
    return int(text) if text and text.isascii() and text.isdigit() and 8 < len(text) < 12 else text


def parse_expand(names: Iterable[str] | None) -> dict[str, list[str]]:
    """Turn `customers.tax_ids` into table and fields. Raises `UsageError` for other forms."""
    expanded: dict[str, list[str]] = {}
    for name in names or ():
        table, dot, field = name.partition(".")
        if not dot:
            raise UsageError(
                f"--expand takes TABLE.FIELD, such as customers.tax_ids, not {name!r}."
            )
        expanded.setdefault(table, []).append(field)
    return expanded


if __name__ == "__main__":
    main()
