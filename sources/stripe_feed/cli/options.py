"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from ..errors import UsageError

Database = Annotated[
    str | None,
    typer.Option("--database", metavar="FILE", help="DuckDB file; stripe_feed.duckdb by default."),
]
Destination = Annotated[
    str | None,
    typer.Option(
        "--destination", metavar="NAME", help="Another dlt destination, such as postgres."
    ),
]
Dataset = Annotated[
    str, typer.Option("--dataset", metavar="NAME", help="Schema that holds the tables.")
]
StateDir = Annotated[
    str | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        help="dlt's working files, in a folder per destination and dataset; below ~/.dlt/pipelines by default.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines.")]
KeyFile = Annotated[
    str | None,
    typer.Option(
        "--api-key-file",
        metavar="FILE",
        help="The key, - for stdin; else dlt's secrets or STRIPE_SECRET_KEY.",
    ),
]
AllowBase = Annotated[
    bool,
    typer.Option(
        "--allow-api-base", help="Send a live key to another STRIPE_API_BASE than Stripe's."
    ),
]
Version = Annotated[
    str | None, typer.Option("--api-version", metavar="VERSION", help="Not the pinned API version.")
]
GiveUp = Annotated[
    float,
    typer.Option("--give-up-after", metavar="SECONDS", help="How long to try one request again."),
]
Resources = Annotated[
    list[str] | None, typer.Option(metavar="A,B", help="Only these resources; may be repeated.")
]
Wait = Annotated[
    float,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0,
        help="Wait so long for who writes to the copy or has its file open.",
    ),
]
Rps = Annotated[
    float | None, typer.Option(metavar="N", min=0.1, help="Requests per second at most.")
]
EndpointRps = Annotated[
    float | None, typer.Option(metavar="N", min=0.1, help="The same per endpoint.")
]


def key_in(file: str | None) -> str | None:
    """The key in a file that was named."""
    from ..api.credentials import read_key

    return None if file is None else read_key(file)


def listed(given: Iterable[str] | None, option: str = "--resources") -> list[str] | None:
    """`a,b` and repetitions as one list; nothing where nothing was given. Raises `UsageError` for a
    list without a name.
    """
    if not given:
        return None
    names = dict.fromkeys(
        name.strip() for part in given for name in part.split(",") if name.strip()
    )
    if not names:
        raise UsageError(f"{option} names nothing. Give it like a,b, or leave it out for all.")
    return list(names)
