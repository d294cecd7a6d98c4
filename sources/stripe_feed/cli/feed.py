"""`stripe-feed feed …`: the change feed on the command line. stdout is data, stderr is talk."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PartlyDone, SetupError
from .command import command
from .options import Database, Dataset, Destination, Json, StateDir, listed

if TYPE_CHECKING:
    from ..feed.change import Change
    from ..feed.feed import Feed
    from ..feed.net import Net

app = typer.Typer(
    name="feed",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Every change of the account, once, in order, with before and after.",
)
feed_app = app

Resources = Annotated[
    list[str] | None,
    typer.Option(
        "--resource", metavar="A,B", help="Only these tables; repeat or separate with commas."
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
        help="Only this transition, such as status:active:past_due. * is anything, null is null, a,b is one of both.",
    ),
]
Changed = Annotated[
    list[str] | None,
    typer.Option(
        "--changed", metavar="PATH", help="Only where this field, such as metadata.plan, changed."
    ),
]
Origins = Annotated[
    list[str] | None,
    typer.Option("--origin", metavar="A,B", help="Only known by event, diff, list or snapshot."),
]
Customers = Annotated[
    list[str] | None, typer.Option("--customer", metavar="ID", help="Only of this customer.")
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Wait for more instead of ending.")]
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The consumer's name; its position is kept under it.")
]
NONE_OF_THESE = "Only snapshots so far, or nothing of these resources; --op r shows snapshots."
ALL_PRUNED = (
    "All changes were pruned; `stripe-feed feed rebuild` brings them back from the destination."
)
PLACES = "latest, earliest, an offset, a change id, or a time such as 2026-01-31 or 30d"


@partial(command, app)
def tail(
    count: Annotated[
        int, typer.Option("-n", metavar="N", min=0, max=1_000_000, help="How many changes.")
    ] = 10,
    follow: Follow = False,
    resource: Resources = None,
    op: Ops = None,
    transition: Moves = None,
    changed: Changed = None,
    origin: Origins = None,
    customer: Customers = None,
    json: Json = False,
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Show the newest changes, in the order in which they happened."""
    from .output import say

    filters = filters_of(resource, op, transition, changed, origin, customer)
    with opened(database, destination, dataset, state_dir) as feed:
        head, shown = feed.head, feed.tail(count, **filters)
        show(shown, json)
        if not shown and head and not op:
            say(ALL_PRUNED if feed.horizon == head else NONE_OF_THESE)
        if follow:
            show(feed.follow(max([head, *(one.offset for one in shown)]), **filters), json)


@partial(command, app)
def consume(
    name: Name,
    run: Annotated[
        str | None,
        typer.Option(
            "--exec",
            metavar="CMD",
            help="Shell command that gets each change as JSON on its stdin.",
        ),
    ] = None,
    most: Annotated[
        int | None, typer.Option("--max", metavar="N", min=1, help="End after so many changes.")
    ] = None,
    start: Annotated[
        str, typer.Option("--start", metavar="PLACE", help=f"Where a new name begins: {PLACES}.")
    ] = "latest",
    resource: Resources = None,
    op: Ops = None,
    transition: Moves = None,
    changed: Changed = None,
    origin: Origins = None,
    customer: Customers = None,
    follow: Follow = False,
    keeps: Annotated[
        bool,
        typer.Option(
            "--keep-cursors",
            help="Keep positions in the destination, a server database: for disks that vanish.",
        ),
    ] = False,
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Hand the changes that NAME has not acknowledged to a command, or print them as JSON lines.

    A change is acknowledged when its line is written, or when the command ends with 0; else it
    comes again.
    """
    filters = filters_of(resource, op, transition, changed, origin, customer)
    with opened(database, destination, dataset, state_dir, keeps_cursors=keeps) as feed:
        for change in feed.consume(name, **filters, start=start, max=most, follow=follow):
            if run is None:
                write(line_of(change))
            else:
                execute(run, change)


@partial(command, app)
def net(
    since: Annotated[str, typer.Option("--since", metavar="PLACE", help=f"{PLACES}.")] = "earliest",
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="PLACE", help="The first change that is left out."),
    ] = None,
    resource: Resources = None,
    op: Ops = None,
    transition: Moves = None,
    changed: Changed = None,
    origin: Origins = None,
    customer: Customers = None,
    json: Json = False,
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Show what changed in the end, one line per object."""
    from .output import say

    filters = filters_of(resource, op, transition, changed, origin, customer)
    with opened(database, destination, dataset, state_dir) as feed:
        if not show(feed.net(since, until, **filters), json) and feed.head:
            say("Nothing changed in the end, of what the feed holds of that time.")


@partial(command, app)
def lag(
    json: Json = False,
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Show how far each consumer is."""
    from . import output

    with opened(database, destination, dataset, state_dir) as feed:
        found = feed.lag()
    if json:
        output.print_json(*found)
    elif not found:
        output.say("There are no consumers yet. `stripe-feed feed consume NAME` begins one.")
    else:
        lost = "some were pruned unseen: `feed reset`"
        rows = [
            (one.consumer, one.position, one.head, one.behind, round(one.seconds), lost * one.lost)
            for one in found
        ]
        output.data().print(
            output.table(["consumer", "offset", "head", "behind", "seconds", ""], rows)
        )


@partial(command, app)
def rebuild(
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Make the log anew from the destination; consumers keep what they acknowledged. A damaged
    store is mended first.
    """
    from ..destination.pipeline import settings
    from ..feed.feed import rebuild_feed
    from .output import say

    with settings():
        length, lost = rebuild_feed(copy_at(database, destination, dataset, state_dir))
    say(f"The feed holds {length:,} changes.")
    if lost:
        raise PartlyDone(
            f"Of the damaged store, which is kept beside the new one, not all could be read: {', '.join(lost)}."
        )


@partial(command, app)
def prune(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Such as 90d, 12h or 30m.")
    ],
    keep_latest: Annotated[
        bool, typer.Option("--keep-latest", help="Keep the newest change of each object.")
    ] = False,
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Drop old changes from the log; the destination keeps them."""
    from ..feed.consumers import age
    from .output import say

    seconds = age(older_than)
    with opened(database, destination, dataset, state_dir) as feed:
        say(f"{feed.prune(seconds, keep_latest=keep_latest):,} changes pruned.")


@partial(command, app)
def forget(
    object_id: Annotated[
        str,
        typer.Argument(metavar="OBJECT_ID", help="Such as cus_…: of a customer, all its changes."),
    ],
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Drop what the changes of an object say about it, here and in the destination's changes, for
    good.
    """
    from ..destination.pipeline import settings
    from .output import say

    with opened(database, destination, dataset, state_dir, empty_is_fine=True) as feed, settings():
        count = feed.forget(object_id)
        found = (
            f"{count:,} changes hold no data of {object_id} any more; their ids and offsets stay."
        )
        say(found if count else f"No change tells of {object_id}.")


@partial(command, app)
def reset(
    name: Name,
    to: Annotated[str, typer.Option("--to", metavar="PLACE", help=f"{PLACES}.")],
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Put a consumer somewhere else."""
    from .output import say

    with opened(database, destination, dataset, state_dir) as feed:
        feed.lag(name)  # a new name would be a mistake here
        say(f"Consumer {name} stands behind offset {feed.reset(name, to)} of {feed.head}.")


@partial(command, app)
def remove(
    name: Name,
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Forget a consumer; its changes stay."""
    from .output import say

    with opened(database, destination, dataset, state_dir, empty_is_fine=True) as feed:
        feed.remove(name)
        say(f"Consumer {name} is gone.")


def copy_at(
    database: str | None, destination: str | None, dataset: str, state_dir: str | None
) -> Any:
    """The pipeline of a copy that is there. Raises `SetupError` where it is not."""
    from ..destination.duckdb_file import duckdb_file
    from ..destination.pipeline import open_pipeline

    pipeline = open_pipeline(database, destination, dataset, state_dir)
    file = duckdb_file(pipeline)
    if file is not None and not file.is_file():
        raise SetupError(
            f"There is no file {file.name} yet. Run `stripe-feed sync` first, or name another --database."
        )
    return pipeline


@contextmanager
def opened(
    database: str | None,
    destination: str | None,
    dataset: str,
    state_dir: str | None,
    empty_is_fine: bool = False,
    keeps_cursors: bool = False,
) -> Iterator[Feed]:
    """The feed of a copy. Raises `SetupError` where there is none; an empty one is said."""
    from ..destination.pipeline import settings
    from ..feed.feed import open_feed
    from .output import say

    with settings():
        feed = open_feed(
            copy_at(database, destination, dataset, state_dir), keeps_cursors=keeps_cursors
        )
    with feed:
        if not feed.head and not empty_is_fine and feed.held_up is None:
            say(
                "The feed is empty: nothing changed since the first load. `stripe-feed sync` brings new changes."
            )
        yield feed


def filters_of(
    resource: list[str] | None,
    op: list[str] | None,
    transition: list[str] | None,
    changed: list[str] | None,
    origin: list[str] | None,
    customer: list[str] | None,
) -> dict[str, Any]:
    """The filters as Python takes them. Raises `UsageError`."""
    from ..feed import paths
    from ..feed.filters import transitions

    return {
        "resource": listed(resource, "--resource"),
        "op": listed(op, "--op"),
        "transition": transitions(transition or ()),
        "changed": paths.listed(changed or ()) or None,
        "origin": listed(origin, "--origin"),
        "customer": listed(customer, "--customer"),
    }


def show(found: Iterable[Change | Net], json: bool) -> int:
    """One line per change, each written at once; returns how many."""
    count = 0
    for one in found:
        write(line_of(one) if json else words(one))
        count += 1
    return count


def write(line: str) -> None:
    """A line of data, out before anything is acknowledged."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def line_of(found: Change | Net) -> str:
    """JSON in one line."""
    import json

    return json.dumps(found.as_dict(), separators=(",", ":"))


def words(found: Change | Net) -> str:
    """`offset time op resource object_id changed…`, with old -> new of the plain values that
    changed.
    """
    from ..feed.paths import value_at
    from .output import cell, plain, when

    last: Change = found.last if hasattr(found, "last") else found
    before, parts = found.before, []
    for path in found.changed:
        old, new = value_at(before, path), value_at(found.after, path)
        told = (
            before is not None
            and not isinstance(old, dict | list)
            and not isinstance(new, dict | list)
        )
        parts.append(
            f"{plain(path)}: {_shown(cell, old)} -> {_shown(cell, new)}" if told else plain(path)
        )
    if not parts and found is last and last.event_type:
        parts.append(plain(last.event_type))
    head = f"{last.offset:>7}  {when(last.occurred_at)}  {found.op}  {plain(found.resource)}  {plain(found.object_id)}"
    return f"{head}  {', '.join(parts)}".rstrip()


def _shown(cell: Any, value: object) -> str:
    return (
        "null"
        if value is None
        else str(value).lower()
        if isinstance(value, bool)
        else str(cell(value))
    )


def execute(run: str, change: Change) -> None:
    """Run a shell command, which inherits no key, with the change as JSON on its stdin.

    Raises `PartlyDone` where it does not end with 0.
    """
    import subprocess

    from ..delivery.transports import environment_of_child

    sys.stdout.flush()
    environment = environment_of_child()
    ended = subprocess.run(
        run, shell=True, input=line_of(change) + "\n", text=True, check=False, env=environment
    )
    if ended.returncode:
        how = (
            f"ended with {ended.returncode}"
            if ended.returncode > 0
            else f"was killed by signal {-ended.returncode}"
        )
        raise PartlyDone(
            f"The command {how} at change {change.change_id} (offset {change.offset}). It is not acknowledged and comes again."
        )
