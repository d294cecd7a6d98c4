"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from .errors import UsageError

Database = Annotated[
    str | None, typer.Option("--database", metavar="FILE", help="DuckDB file; stripe_feed.duckdb by default.")
]
Destination = Annotated[
    str | None, typer.Option("--destination", metavar="NAME", help="Another dlt destination, such as postgres.")
]
Dataset = Annotated[str, typer.Option("--dataset", metavar="NAME", help="Schema that holds the tables.")]
StateDir = Annotated[
    str | None,
    typer.Option(
        "--state-dir", metavar="DIR",
        help="dlt's working files, in a folder per destination and dataset; below ~/.dlt/pipelines by default.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines.")]


def listed(given: Iterable[str] | None, option: str = "--resources") -> list[str] | None:
    """`a,b` and repetitions as one list; nothing where nothing was given. Raises `UsageError` for a list without a name."""
    if not given:
        return None
    names = dict.fromkeys(name.strip() for part in given for name in part.split(",") if name.strip())
    if not names:
        raise UsageError(f"{option} names nothing. Give it like a,b, or leave it out for all.")
    return list(names)
