"""`stripe-feed feed …`: the change feed on the command line. stdout is data, stderr is talk."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PartlyDone, SetupError, UsageError
from ..wording import counted
from .command import command
from .options import Json, LocalCopyOptions, split_names

if TYPE_CHECKING:
    from ..feed.change import Change
    from ..feed.feed import Feed
    from ..feed.net import NetChange

app = typer.Typer(
    name="feed",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Read every change of the account once, in order, with its before and after state.",
)
feed_app = app

_Resources = Annotated[
    list[str] | None,
    typer.Option(
        "--resource",
        metavar="A,B",
        help="Only these tables; separate with commas or repeat the option.",
    ),
]
Ops = Annotated[
    list[str] | None,
    typer.Option(
        "--op", metavar="OP", help="Only added (c), updated (u), removed (d), or r for snapshots."
    ),
]
Moves = Annotated[
    list[str] | None,
    typer.Option(
        "--transition",
        metavar="FIELD:FROM:TO",
        help="Only this transition, such as status:active:past_due. * is any value, null is null, a,b is either.",
    ),
]
Changed = Annotated[
    list[str] | None,
    typer.Option(
        "--changed", metavar="PATH", help="Only changes of this field, such as metadata.plan."
    ),
]
Origins = Annotated[
    list[str] | None,
    typer.Option(
        "--origin",
        metavar="A,B",
        help="Only changes found this way: event, diff, list or snapshot.",
    ),
]
Customers = Annotated[
    list[str] | None,
    typer.Option("--customer", metavar="ID", help="Only changes of this customer."),
]
OriginPush = Annotated[
    bool | None,
    typer.Option(
        "--origin-push/--no-origin-push",
        help="Only changes that an action or push of stripe-feed made, or only others.",
        show_default=False,
    ),
]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Keep running and wait for new changes.")
]
_Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The consumer's name; its position is stored under it."),
]
NO_MATCH = (
    "There are only snapshots so far, or no changes of these resources; --op r shows snapshots."
)
ALL_PRUNED = (
    "All changes were pruned; `stripe-feed feed rebuild` restores them from the destination."
)
POSITION_FORMS = "latest, earliest, an offset, a change id, or a time such as 2026-01-31 or 30d"


@partial(command, app)
def tail(
    *,
    count: Annotated[
        int, typer.Option("-n", metavar="N", min=0, max=1_000_000, help="How many changes.")
    ] = 10,
    follow: Follow = False,
    resource: _Resources = None,
    op: Ops = None,
    transition: Moves = None,
    changed: Changed = None,
    origin: Origins = None,
    customer: Customers = None,
    origin_push: OriginPush = None,
    json: Json = False,
    copy: LocalCopyOptions,
) -> None:
    """Show the newest changes in the order they happened."""
    from .output import echo_err

    filters = parse_filters(resource, op, transition, changed, origin, customer, origin_push)
    with open_feed_for_cli(copy) as feed:
        head, newest = feed.head, feed.tail(count, **filters)
        print_lines(newest, json)
        if not newest and head and not op:
            echo_err(ALL_PRUNED if feed.pruned_through == head else NO_MATCH)
        if follow:
            print_lines(
                feed.follow(max([head, *(change.offset for change in newest)]), **filters), json
            )


@partial(command, app)
def consume(
    *,
    name: _Name,
    run: Annotated[
        str | None,
        typer.Option(
            "--exec",
            metavar="CMD",
            help="Shell command to run per change, with the change as JSON on its stdin.",
        ),
    ] = None,
    most: Annotated[
        int | None, typer.Option("--max", metavar="N", min=1, help="Stop after N changes.")
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            "--start", metavar="PLACE", help=f"Where a new consumer starts: {POSITION_FORMS}."
        ),
    ] = "latest",
    resource: _Resources = None,
    op: Ops = None,
    transition: Moves = None,
    changed: Changed = None,
    origin: Origins = None,
    customer: Customers = None,
    origin_push: OriginPush = None,
    follow: Follow = False,
    keep_cursors: Annotated[
        bool,
        typer.Option(
            "--keep-cursors",
            help="Store positions in the destination (a server database), for machines without a lasting disk.",
        ),
    ] = False,
    copy: LocalCopyOptions,
) -> None:
    """Print the changes that NAME has not acknowledged as JSON lines, or pass them to a command.

    A change is acknowledged when its line is written or the command exits with 0; otherwise it is
    delivered again.
    """
    filters = parse_filters(resource, op, transition, changed, origin, customer, origin_push)
    require_text(run, "--exec")
    with open_feed_for_cli(copy, keep_cursors=keep_cursors) as feed:
        for change in feed.consume(name, **filters, start=start, max=most, follow=follow):
            if run is None:
                write_line(to_json_line(change))
            else:
                run_command(run, change)


@partial(command, app)
def net(
    *,
    since: Annotated[
        str, typer.Option("--since", metavar="PLACE", help=f"{POSITION_FORMS}.")
    ] = "earliest",
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="PLACE", help="Stop before this change."),
    ] = None,
    resource: _Resources = None,
    op: Ops = None,
    transition: Moves = None,
    changed: Changed = None,
    origin: Origins = None,
    customer: Customers = None,
    origin_push: OriginPush = None,
    json: Json = False,
    copy: LocalCopyOptions,
) -> None:
    """Show the net changes of a range, one line per object."""
    from .output import echo_err

    filters = parse_filters(resource, op, transition, changed, origin, customer, origin_push)
    with open_feed_for_cli(copy) as feed:
        if not print_lines(feed.net(since, until, **filters), json) and feed.head:
            echo_err("No net changes in that range.")


@partial(command, app)
def lag(
    *,
    json: Json = False,
    copy: LocalCopyOptions,
) -> None:
    """Show the position of each consumer."""
    from . import output

    with open_feed_for_cli(copy) as feed:
        lags = feed.lag()
    if json:
        output.print_json(*lags)
    elif not lags:
        output.echo_err("There are no consumers yet. `stripe-feed feed consume NAME` creates one.")
    else:
        lost = "unread changes were pruned: run `feed reset`"
        rows = [
            (
                lag.consumer,
                lag.position,
                lag.head,
                lag.behind,
                round(lag.seconds),
                lost if lag.lost else "",
            )
            for lag in lags
        ]
        output.console_out().print(
            output.make_table(["consumer", "offset", "head", "behind", "seconds", ""], rows)
        )


@partial(command, app)
def rebuild(
    *,
    copy: LocalCopyOptions,
) -> None:
    """Rebuild the log from the destination; consumers keep their positions. A damaged store is
    repaired first.
    """
    from ..destination.pipeline import dlt_settings
    from ..feed.feed import rebuild_feed
    from .output import echo_err

    with dlt_settings():
        length, lost = rebuild_feed(open_existing_copy(copy))
    echo_err(f"The feed holds {counted(length, 'change')}.")
    if lost:
        raise PartlyDone(
            f"Parts of the damaged store could not be read: {', '.join(lost)}. The damaged file is kept beside the new one."
        )


@partial(command, app)
def prune(
    *,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Such as 90d, 12h or 30m.")
    ],
    keep_latest: Annotated[
        bool, typer.Option("--keep-latest", help="Keep the newest change of each object.")
    ] = False,
    copy: LocalCopyOptions,
) -> None:
    """Delete old changes from the log; the destination keeps them."""
    from ..feed.consumers import parse_duration
    from .output import echo_err

    seconds = parse_duration(older_than)
    with open_feed_for_cli(copy) as feed:
        echo_err(f"{counted(feed.prune(seconds, keep_latest=keep_latest), 'change')} pruned.")


@partial(command, app)
def forget(
    *,
    object_id: Annotated[
        str,
        typer.Argument(
            metavar="OBJECT_ID", help="Such as cus_…; for a customer, all changes of the customer."
        ),
    ],
    copy: LocalCopyOptions,
) -> None:
    """Erase the data of an object from its changes, here and in the destination. This cannot be
    undone.
    """
    from ..destination.pipeline import dlt_settings
    from .output import echo_err

    require_text(object_id, "OBJECT_ID")
    with open_feed_for_cli(copy, allow_empty=True) as feed, dlt_settings():
        count = feed.forget(object_id)
        erased = (
            f"Data of {object_id} erased from {counted(count, 'change')}; ids and offsets stay."
        )
        echo_err(erased if count else f"No changes of {object_id} found.")


@partial(command, app)
def reset(
    *,
    name: _Name,
    to: Annotated[str, typer.Option("--to", metavar="PLACE", help=f"{POSITION_FORMS}.")],
    copy: LocalCopyOptions,
) -> None:
    """Move a consumer to another position."""
    from .output import echo_err

    with open_feed_for_cli(copy) as feed:
        feed.lag(name)  # raises for an unknown name
        echo_err(f"Consumer {name} is at offset {feed.reset(name, to)} (head {feed.head}).")


@partial(command, app)
def remove(
    *,
    name: _Name,
    copy: LocalCopyOptions,
) -> None:
    """Delete a consumer; the changes stay."""
    from .output import echo_err

    with open_feed_for_cli(copy, allow_empty=True) as feed:
        feed.remove(name)
        echo_err(f"Consumer {name} deleted.")


def open_existing_copy(copy: LocalCopyOptions) -> Any:
    """Open the pipeline of an existing copy. Raises `SetupError` if there is none."""
    from ..destination.duckdb_file import duckdb_path
    from ..destination.pipeline import open_pipeline

    pipeline = open_pipeline(copy.database, copy.destination, copy.dataset, copy.state_dir)
    file = duckdb_path(pipeline)
    if file is not None and not file.is_file():
        raise SetupError(
            f"There is no file {file.name} yet. Run `stripe-feed sync` first, or name another --database."
        )
    return pipeline


@contextmanager
def open_feed_for_cli(
    copy: LocalCopyOptions, *, allow_empty: bool = False, keep_cursors: bool = False
) -> Iterator[Feed]:
    """Open the feed of a copy; print a notice if it is empty. Raises `SetupError` if there is no copy."""
    from ..destination.pipeline import dlt_settings
    from ..feed.feed import open_feed
    from .output import echo_err

    with dlt_settings():
        feed = open_feed(open_existing_copy(copy), keeps_cursors=keep_cursors)
    with feed:
        if not feed.head and not allow_empty and feed.blocked_by is None:
            echo_err(
                "The feed is empty: nothing has changed since the first load. Run `stripe-feed sync` to load new changes."
            )
        yield feed


def parse_filters(
    resource: list[str] | None,
    op: list[str] | None,
    transition: list[str] | None,
    changed: list[str] | None,
    origin: list[str] | None,
    customer: list[str] | None,
    origin_push: bool | None,
) -> dict[str, Any]:
    """Turn the filter options into keyword arguments of `Feed`. Raises `UsageError`."""
    from ..feed import paths
    from ..feed.filters import parse_transitions

    return {
        "resource": split_names(resource, "--resource"),
        "op": split_names(op, "--op"),
        "transition": parse_transitions(transition or ()),
        "changed": paths.split_paths(changed or ()) or None,
        "origin": split_names(origin, "--origin"),
        "customer": split_names(customer, "--customer"),
        "origin_push": origin_push,
    }


def print_lines(changes: Iterable[Change | NetChange], json: bool) -> int:
    """Write one line per change, each flushed at once; return how many."""
    count = 0
    for change in changes:
        write_line(to_json_line(change) if json else format_change(change))
        count += 1
    return count


def write_line(line: str) -> None:
    """Write a line to stdout and flush it, so that it is out before it is acknowledged."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def to_json_line(change: Change | NetChange) -> str:
    """Encode a change as one line of JSON."""
    import json

    return json.dumps(change.as_dict(), separators=(",", ":"))


def format_change(change: Change | NetChange) -> str:
    """Format a change as `offset time op resource object_id changed…`, with old -> new for each
    changed scalar.
    """
    from ..feed.paths import value_at
    from .output import escape_control, format_time

    last: Change = change.last if hasattr(change, "last") else change
    before, parts = change.before, []
    for path in change.changed:
        old, new = value_at(before, path), value_at(change.after, path)
        field = escape_control(path)
        if (
            before is not None
            and not isinstance(old, dict | list)
            and not isinstance(new, dict | list)
        ):
            field += f": {_format_value(old)} -> {_format_value(new)}"
        parts.append(field)
    if not parts and change is last and last.event_type:
        parts.append(escape_control(last.event_type))
    head = f"{last.offset:>7}  {format_time(last.occurred_at)}  {change.op}  {escape_control(change.resource)}  {escape_control(change.object_id)}"
    return f"{head}  {', '.join(parts)}".rstrip()


def _format_value(value: object) -> str:
    from .output import format_cell

    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else format_cell(value)


def run_command(shell_command: str, change: Change) -> None:
    """Run a shell command with the change as JSON on its stdin; it inherits no key.

    Raises `PartlyDone` if it does not exit with 0.
    """
    import subprocess

    from ..delivery.transports import child_environment

    sys.stdout.flush()
    environment = child_environment()
    completed = subprocess.run(
        shell_command,
        shell=True,
        input=to_json_line(change) + "\n",
        text=True,
        check=False,
        env=environment,
    )
    code = completed.returncode
    if code:
        how = f"exited with {code}" if code > 0 else f"was killed by signal {-code}"
        raise PartlyDone(
            f"The command {how} at change {change.change_id} (offset {change.offset}). The change is not acknowledged and will be delivered again."
        )


def require_text(value: str | None, option: str) -> None:
    """Raise `UsageError` for a blank value, as an unset variable of a shell gives: an empty command
    would acknowledge every change.
    """
    if value is not None and (not value.strip() or "\0" in value):
        raise UsageError(f"{option} is empty. Give it a value; a shell variable may not be set.")
