"""The command line: verbs that each call one library function. stdout is data, stderr is talk."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Annotated, Any, NoReturn

import typer

from ..destination.error_messages import explained
from ..destination.locks import PATIENCE
from ..errors import Drift, PartlyDone, UsageError
from ..resources import CHANGES
from . import command as cli_command
from .feed import feed_app
from .options import (
    AllowBase,
    Database,
    Dataset,
    Destination,
    EndpointRps,
    GiveUp,
    Json,
    KeyFile,
    Resources,
    Rps,
    StateDir,
    Version,
    Wait,
    key_in,
    listed,
)
from .serve import serve, webhook_app
from .triggers import deliver, triggers_app

app = typer.Typer(
    name="stripe-feed",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="A true, queryable copy of a Stripe account in DuckDB or any other dlt destination.",
    epilog="Exit codes: 0 ok, 1 unexpected, 2 usage, 3 setup or credentials, 4 partly done, 5 Stripe or the destination out of "
    "reach, 130 interrupted (run again to go on).",
)

Quiet = Annotated[
    bool, typer.Option("--quiet", help="No progress and no summary; warnings and errors stay.")
]


def main() -> NoReturn:
    """The entry point of `stripe-feed`."""
    arguments = sys.argv[1:]
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who called
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if "--debug" in arguments:  # wherever it stands: it is added to a command that failed
        arguments.remove("--debug")
        os.environ["STRIPE_FEED_DEBUG"] = "1"
    try:
        app(arguments, prog_name="stripe-feed")
    except OSError as fault:  # the help cannot be written
        from .output import hush, say

        hush(sys.stdout)
        say(f"error: {explained(fault)}")
        sys.exit(3)
    sys.exit(0)


command = partial(cli_command.command, app)
app.add_typer(feed_app, name="feed")
app.add_typer(triggers_app, name="triggers")
app.add_typer(webhook_app, name="webhook")


def show_version(asked: bool) -> None:
    """Answer `--version`."""
    if asked:
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
        bool, typer.Option("--debug", help="Show what led to an error; it can hold data.")
    ] = False,
) -> None:
    """`--debug` is taken out of the arguments by `main`, and here for the help."""


@command
def sync(
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    resources: Resources = None,
    start_date: Annotated[
        str | None, typer.Option(metavar="DATE", help="Nothing created before; UTC.")
    ] = None,
    end_date: Annotated[
        str | None, typer.Option(metavar="DATE", help="A fixed range that leaves the cursor alone.")
    ] = None,
    expand: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE.FIELD", help="Opt-in field; repeat for several."),
    ] = None,
    test_clocks: Annotated[
        bool, typer.Option("--test-clocks", help="Also rows on a test clock.")
    ] = False,
    full_refresh: Annotated[
        bool, typer.Option("--full-refresh", help="Drop the tables and load everything again.")
    ] = False,
    deletes: Annotated[
        str, typer.Option(metavar="KIND", help="soft keeps deleted rows; hard removes them.")
    ] = "soft",
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="A first run gives a change of op r for each object.")
    ] = False,
    max_rps: Rps = None,
    endpoint_rps: EndpointRps = None,
    checkpoint_rows: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="A crash costs about so many rows.")
    ] = None,
    state_dir: StateDir = None,
    wait: Wait = PATIENCE,
    give_up_after: GiveUp = 120.0,
    allow_api_base: AllowBase = False,
    api_version: Version = None,
    api_key_file: KeyFile = None,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be read; write nothing.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Load what was created, updated, cancelled or deleted, and the changes; the first run loads
    everything.
    """
    from ..api.client import API_VERSION
    from ..sync_run import dry_run, sync
    from . import output
    from .progress import Progress

    asked: dict[str, Any] = {
        "api_key": key_in(api_key_file),
        "database": database,
        "destination": destination,
        "dataset": dataset,
        "resources": listed(resources),
        "start_date": moment(start_date),
        "end_date": moment(end_date),
        "expand": fields(expand),
        "test_clocks": test_clocks,
        "full_refresh": full_refresh,
        "max_rps": max_rps,
        "endpoint_rps": endpoint_rps,
        "allow_api_base": allow_api_base,
        "api_version": api_version or API_VERSION,
        "give_up_after": give_up_after,
        "deletes": deletes,
        "snapshot": snapshot,
    }
    if is_dry_run:
        output.print_plan(dry_run(**asked), json)
        return
    with Progress(output.talk(), quiet) as progress:
        done = sync(
            **asked,
            state_dir=state_dir,
            checkpoint_rows=checkpoint_rows,
            wait=wait,
            watch=progress.watch,
        )
    output.print_synced(
        done, json, quiet, database=database, destination=destination, dataset=dataset
    )
    if resources and CHANGES in done.refused:  # nobody asked for them
        logging.getLogger("stripe_feed").warning(NO_EVENTS)
    tell_refused((name for name in done.refused if name != CHANGES or not resources), done.left_out)


def tell_refused(refused: Iterable[str], left_out: Mapping[str, Mapping[str, str]]) -> None:
    """Raise `PartlyDone` where something cannot be read, or taken."""
    from ..extract.tables.rejected import words

    names = list(refused)
    tables = [name for name in names if name != CHANGES]
    said = [f"Left out: {', '.join(tables)}; the warnings say why."] if tables else []
    if CHANGES in names:
        said.append(NO_EVENTS)
    said += words(left_out)
    if said:
        raise PartlyDone(f"{' '.join(said)} Everything else is loaded.")


NO_EVENTS = (
    "The key may not read events, so updates, cancellations and deletes of older objects are not seen: "
    "add the permission rak_event_read (Core > Events), or run `stripe-feed reconcile` now and then."
)


@command
def reconcile(
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    resources: Resources = None,
    max_rps: Rps = None,
    endpoint_rps: EndpointRps = None,
    state_dir: StateDir = None,
    wait: Wait = PATIENCE,
    give_up_after: GiveUp = 120.0,
    allow_api_base: AllowBase = False,
    api_version: Version = None,
    api_key_file: KeyFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare the whole account with the copy, heal what no event told, and tell it as changes."""
    from ..api.client import API_VERSION
    from ..sync_run import sync
    from . import output
    from .progress import Progress

    with Progress(output.talk(), quiet) as progress:
        done = sync(
            reconcile=True,
            api_key=key_in(api_key_file),
            database=database,
            destination=destination,
            dataset=dataset,
            resources=listed(resources),
            max_rps=max_rps,
            endpoint_rps=endpoint_rps,
            allow_api_base=allow_api_base,
            api_version=api_version or API_VERSION,
            give_up_after=give_up_after,
            state_dir=state_dir,
            wait=wait,
            watch=progress.watch,
        )
    output.print_synced(
        done, json, quiet, database=database, destination=destination, dataset=dataset
    )
    tell_refused(
        (name for name in done.refused if name != CHANGES), done.left_out
    )  # the comparison does without


@command
def verify(
    sample: Annotated[
        int,
        typer.Option(
            "--sample", metavar="N", min=1, help="So many of each resource, from both sides."
        ),
    ] = 100,
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    resources: Resources = None,
    max_rps: Rps = None,
    endpoint_rps: EndpointRps = None,
    give_up_after: GiveUp = 120.0,
    allow_api_base: AllowBase = False,
    api_version: Version = None,
    api_key_file: KeyFile = None,
    wait: Wait = PATIENCE,
    json: Json = False,
) -> None:
    """Compare a sample with Stripe, object by object: the row, and what its changes lead to. Exit 4
    where they differ.
    """
    from ..api.client import API_VERSION
    from ..verify_run import verify
    from . import output

    with output.working() as watch:
        found = verify(
            sample=sample,
            api_key=key_in(api_key_file),
            database=database,
            destination=destination,
            dataset=dataset,
            resources=listed(resources),
            max_rps=max_rps,
            endpoint_rps=endpoint_rps,
            allow_api_base=allow_api_base,
            api_version=api_version or API_VERSION,
            give_up_after=give_up_after,
            wait=wait,
            watch=watch,
        )
    output.print_verified(found, json)
    if found.differences:
        count = sum(found.compared.values())
        raise Drift(
            f"{len(found.differences):,} of {count:,} objects differ. Run `stripe-feed reconcile`, then verify again."
        )


command(deliver)
command(serve)


@command
def status(
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
    wait: Wait = PATIENCE,
    json: Json = False,
) -> None:
    """Show tables, cursors and freshness of the copy, and where its files are."""
    from ..destination import read
    from . import output

    output.print_status(read.status(database, destination, dataset, state_dir, wait), json)


@command
def preview(
    table: Annotated[str, typer.Argument(help="A table, such as customers.")],
    rows: Annotated[
        int, typer.Option("-n", "--rows", metavar="N", min=1, help="How many rows.")
    ] = 5,
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    wait: Wait = PATIENCE,
    json: Json = False,
) -> None:
    """Show the newest rows of a table."""
    from ..destination import read
    from . import output

    with read.opened(database, destination, dataset, wait) as copy:
        output.print_rows(read.preview(copy, table, rows), json)


@command
def query(
    sql: Annotated[
        str,
        typer.Argument(
            help='One select, such as "select count(*) from customers"; - reads it from stdin.'
        ),
    ],
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    wait: Wait = PATIENCE,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="CSV on stdout.")] = False,
) -> None:
    """Answer a query in SQL; it only reads."""
    from ..destination import read
    from . import output

    with read.opened(database, destination, dataset, wait) as copy:
        output.print_rows(read.query(copy, sys.stdin.read() if sql == "-" else sql), json, csv)


@command
def doctor(
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    allow_api_base: AllowBase = False,
    api_version: Version = None,
    api_key_file: KeyFile = None,
    give_up_after: GiveUp = 20.0,
    json: Json = False,
) -> int:
    """Check key, permissions, clock, versions and destination; one fix per finding."""
    from .. import doctor
    from ..api.client import API_VERSION
    from . import output

    findings = doctor.examine(
        api_key=key_in(api_key_file),
        database=database,
        destination=destination,
        dataset=dataset,
        allow_api_base=allow_api_base,
        api_version=api_version or API_VERSION,
        give_up_after=give_up_after,
    )
    return doctor.exit_code(output.print_findings(findings, json))


@command
def demo(
    customers: Annotated[int, typer.Option(min=1, help="How many customers to make up.")] = 500,
    database: Annotated[
        str, typer.Option(metavar="FILE", help="DuckDB file; an earlier demo's is replaced.")
    ] = "demo.duckdb",
) -> None:
    """Load a made-up account twice and show the tables; needs no account and no network."""
    from .demo import demo as run

    run(database, customers)


@partial(
    command,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def sandbox(ctx: typer.Context) -> None:
    """Run a look-alike of Stripe, to try anything against; --help lists its options."""
    from .demo import serve

    serve(ctx.args)


def moment(text: str | None) -> int | str | None:
    """A date as it is, Unix seconds as a number."""
    return int(text) if text and text.isascii() and text.isdigit() and 8 < len(text) < 12 else text


def fields(names: Iterable[str] | None) -> dict[str, list[str]]:
    """`customers.tax_ids` as table and field. Raises `UsageError` for other forms."""
    found: dict[str, list[str]] = {}
    for name in names or ():
        table, dot, field = name.partition(".")
        if not dot:
            raise UsageError(
                f"--expand takes TABLE.FIELD, such as customers.tax_ids, not {name!r}."
            )
        found.setdefault(table, []).append(field)
    return found


if __name__ == "__main__":
    main()
